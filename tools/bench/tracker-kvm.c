// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a guest's vCPUs write: KVM's own dirty log, in its three forms, and a slot
 *
 * The guest is a few instructions long (kvm_vmm.h).  It gets its list of pages in
 * memory that nothing tracks, and leaves when it is done; what that costs
 * is in the second write to the same pages, too, and so not in the cost of a fault.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "kvm_vmm.h"
#include "tracker.h"
#include "tracker-slot.h"

/* KVM's number of the region. */
#define REGION 1

/* One list for each vCPU, in what the tests of the small VMM use otherwise. */
#define LIST_LEN 4096U

#define TSC_KHZ_FALLBACK 1000000

/**
 * struct guest - a machine
 * @vmm: it
 * @entries: entries of a ring, 0: no ring
 * @rings: of each vCPU
 * @fetched: entries taken from it so far
 * @lock: of taking: the one whose ring is full does it, too
 * @value: what was stored last
 */
struct guest {
	struct vmm vmm;
	uint32_t entries;
	struct kvm_dirty_gfn *rings[VMM_MAX_VCPUS];
	uint32_t fetched[VMM_MAX_VCPUS];
	pthread_mutex_t lock;
	uint32_t value;
};

static uint32_t list_addr(unsigned int who)
{
	return who ? VMM_PUBLISHED : VMM_LIST;
}

/* ---- the ring ---- */

/* Entries that are not there any more are written to again after the reset. */
static void ring_take(struct region *r)
{
	struct guest *g = r->private;
	bool any = false;

	pthread_mutex_lock(&g->lock);
	for (unsigned int i = 0; i < VMM_MAX_VCPUS; i++) {
		for (;;) {
			struct kvm_dirty_gfn *e =
				&g->rings[i][g->fetched[i] % g->entries];

			if (__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) !=
			    KVM_DIRTY_GFN_F_DIRTY)
				break;
			if ((e->slot & 0xffff) == REGION)
				r->taken[e->offset / 64] |= 1ULL << e->offset % 64;
			__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET,
					 __ATOMIC_RELEASE);
			g->fetched[i]++;
			any = true;
		}
	}
	if (any && ioctl(g->vmm.vm, KVM_RESET_DIRTY_RINGS, 0) < 0)
		die("KVM_RESET_DIRTY_RINGS");
	pthread_mutex_unlock(&g->lock);
}

/* A vCPU whose ring is full may be taking. */
static void ring_report(struct region *r, uint64_t *bitmap)
{
	struct guest *g = r->private;

	pthread_mutex_lock(&g->lock);
	taken_report(r, bitmap);
	pthread_mutex_unlock(&g->lock);
}

/* ---- writers ---- */

/* Until the guest halts.  A ring that is full must be emptied before it goes on. */
static void run(struct region *r, struct vcpu *c, const char *entry,
		struct kvm_regs *regs)
{
	if (vcpu_start(c, entry, regs))
		quit(EXIT_TROUBLE, "%s", c->trouble);
	while (vcpu_run(c)) {
		if (c->run->exit_reason != KVM_EXIT_DIRTY_RING_FULL)
			quit(EXIT_TROUBLE, "%s", c->trouble);
		ring_take(r);
	}
}

static void vcpu_write(struct region *r, unsigned int who, const uint32_t *list,
		       size_t n, unsigned int stride)
{
	struct guest *g = r->private;
	uint32_t *addrs = (uint32_t *)(g->vmm.control + list_addr(who));
	uint32_t value = __atomic_add_fetch(&g->value, 1, __ATOMIC_RELAXED);

	while (n) {
		struct kvm_regs regs = { .rsi = list_addr(who), .rax = value };
		uint32_t count = 0;

		for (; n && count < LIST_LEN; count++) {
			addrs[count] = VMM_RAM + (*list << DIRTYTRACK_PAGE_SHIFT);
			n -= n < stride ? n : stride;
			list += stride;
		}
		regs.rcx = count;
		run(r, &g->vmm.vcpus[who], guest_write, &regs);
	}
}

static void vcpu_spin(struct region *r, struct spin *s)
{
	struct guest *g = r->private;
	volatile struct vmm_spin *told = vmm_spin(&g->vmm, 0);
	struct kvm_regs regs = { .rsi = VMM_SPIN };
	int khz = ioctl(g->vmm.vcpus[0].fd, KVM_GET_TSC_KHZ, 0);

	told->addr = VMM_RAM;
	told->npages = r->npages;
	told->writes = 0;
	told->longest = 0;
	told->stop = 0;
	if (__atomic_load_n(&s->stop, __ATOMIC_SEQ_CST))
		return;
	run(r, &g->vmm.vcpus[0], guest_spin, &regs);
	s->writes = told->writes;
	s->longest_ns = told->longest * 1e6 / (khz > 0 ? khz : TSC_KHZ_FALLBACK);
}

static void vcpu_stop(struct region *r, struct spin *s)
{
	struct guest *g = r->private;

	__atomic_store_n(&s->stop, true, __ATOMIC_SEQ_CST);
	vmm_spin(&g->vmm, 0)->stop = 1;
}

const struct writer vcpu_writer = {
	.name = "vCPU",
	.ours = "dirtytrack-kvm",
	.write = vcpu_write,
	.spin = vcpu_spin,
	.stop = vcpu_stop,
};

/* ---- trackers ---- */

static const char *kvm_missing(uint64_t npages)
{
	(void)npages;
	return vmm_have_kvm() ? NULL : "there is no /dev/kvm";
}

static const char *ring_missing(uint64_t npages)
{
	const char *missing = kvm_missing(npages);
	int kvm, bytes;

	if (missing)
		return missing;
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	bytes = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
	close(kvm);
	return bytes > 0 ? NULL : "this KVM has no dirty ring";
}

static void set_region(struct region *r, uint32_t flags)
{
	struct guest *g = r->private;

	if (vmm_set_region(&g->vmm, REGION, flags, VMM_RAM, r->mem,
			   r->npages * DTRACK_PAGE_SIZE))
		die("KVM_SET_USER_MEMORY_REGION");
}

static void enable(struct guest *g, uint32_t cap, uint64_t arg, const char *name)
{
	struct kvm_enable_cap enable_cap = { .cap = cap, .args[0] = arg };

	if (ioctl(g->vmm.vm, KVM_ENABLE_CAP, &enable_cap))
		die("%s", name);
}

/* Two vCPUs; a capability may have to be had before. */
static void guest_open(struct region *r, uint32_t cap, uint64_t arg, const char *name)
{
	struct guest *g = calloc(1, sizeof(*g));
	const char *what;

	if (!g)
		die("memory");
	if (vmm_create(&g->vmm, &what))
		die("%s", what);
	if (cap)
		enable(g, cap, arg, name);
	for (unsigned int i = 0; i < VMM_MAX_VCPUS; i++)
		if (vmm_add_vcpu(&g->vmm, &what))
			die("%s", what);
	pthread_mutex_init(&g->lock, NULL);
	r->private = g;
	set_region(r, 0);
}

static void guest_close(struct region *r)
{
	struct guest *g = r->private;

	for (unsigned int i = 0; i < VMM_MAX_VCPUS; i++)
		if (g->rings[i])
			munmap(g->rings[i], g->entries * sizeof(*g->rings[i]));
	vmm_close(&g->vmm);
	free(g);
}

static void kvm_open(struct region *r)
{
	memory_map_anonymous(r);
	taken_alloc(r);
	guest_open(r, 0, 0, NULL);
}

static void clear_open(struct region *r)
{
	memory_map_anonymous(r);
	taken_alloc(r);
	guest_open(r, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		   KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
		   "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
}

static void ring_open(struct region *r)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int bytes = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING);
	struct guest *g;

	close(kvm);
	memory_map_anonymous(r);
	taken_alloc(r);
	guest_open(r, KVM_CAP_DIRTY_LOG_RING, bytes, "KVM_CAP_DIRTY_LOG_RING");
	g = r->private;
	g->entries = bytes / sizeof(struct kvm_dirty_gfn);
	for (unsigned int i = 0; i < VMM_MAX_VCPUS; i++) {
		g->rings[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
				   g->vmm.vcpus[i].fd,
				   KVM_DIRTY_LOG_PAGE_OFFSET * DTRACK_PAGE_SIZE);
		if (g->rings[i] == MAP_FAILED)
			die("mmap of a dirty ring");
	}
}

static void kvm_slot_open(struct region *r)
{
	slot_open(r);
	guest_open(r, 0, 0, NULL);
}

static void kvm_start(struct region *r)
{
	set_region(r, KVM_MEM_LOG_DIRTY_PAGES);
}

static void log_harvest(struct region *r)
{
	struct guest *g = r->private;

	if (vmm_get_log(&g->vmm, REGION, (__u64 *)r->taken))
		die("KVM_GET_DIRTY_LOG");
}

/* Get, which protects nothing, then clear what was got. */
static void clear_harvest(struct region *r)
{
	struct guest *g = r->private;
	struct kvm_clear_dirty_log clear = {
		.slot = REGION,
		.num_pages = r->npages,
		.dirty_bitmap = r->taken,
	};

	if (vmm_get_log(&g->vmm, REGION, (__u64 *)r->taken))
		die("KVM_GET_DIRTY_LOG");
	if (ioctl(g->vmm.vm, KVM_CLEAR_DIRTY_LOG, &clear))
		die("KVM_CLEAR_DIRTY_LOG");
}

static void kvm_close(struct region *r)
{
	guest_close(r);
	taken_free(r);
	memory_unmap(r);
}

static void kvm_slot_close(struct region *r)
{
	guest_close(r);
	slot_close(r);
}

const struct tracker tracker_kvm_slot = {
	.name = "dirtytrack-kvm",
	.what = "a slot as a guest's memory, as the module is by default",
	.writer = &vcpu_writer,
	.params = "",
	.missing = kvm_missing,
	.open = kvm_slot_open,
	.start = slot_start,
	.harvest = slot_harvest,
	.report = taken_report,
	.close = kvm_slot_close,
};

#define KVM_TRACKER			\
	.writer = &vcpu_writer,		\
	.start = kvm_start,		\
	.close = kvm_close

const struct tracker tracker_kvm_log = {
	.name = "kvm-log",
	.what = "KVM_GET_DIRTY_LOG, which protects",
	.missing = kvm_missing,
	.open = kvm_open,
	.harvest = log_harvest,
	.report = taken_report,
	KVM_TRACKER,
};

const struct tracker tracker_kvm_clear = {
	.name = "kvm-log-clear",
	.what = "KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG",
	.missing = kvm_missing,
	.open = clear_open,
	.harvest = clear_harvest,
	.report = taken_report,
	KVM_TRACKER,
};

const struct tracker tracker_kvm_ring = {
	.name = "kvm-ring",
	.what = "KVM's dirty ring, one for each vCPU",
	.missing = ring_missing,
	.open = ring_open,
	.harvest = ring_take,
	.report = ring_report,
	KVM_TRACKER,
};
