// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guests: what a vCPU writes through KVM is in our log
 *
 * A slot is a KVM memory region.  Guest writes go through KVM's own page tables,
 * which follow ours by MMU notifiers, and KVM keeps a dirty log of its own: an
 * oracle for what the guest wrote, that knows nothing of what the VMM wrote.
 *
 * The guest is a few instructions long, see kvm_vmm.h.
 */
#include "tracked.h"
#include "kvm_vmm.h"

#define NPAGES	512U
#define ROUNDS	12

/* KVM's number of the region that is the slot. */
#define REGION	1

static __u32 guest_addr(__u32 page)
{
	return VMM_RAM + (page << DIRTYTRACK_PAGE_SHIFT);
}

#define test_vmm_open(v, nvcpus) do {					\
	const char *__what;						\
									\
	ASSERT_EQ(0, vmm_open(v, nvcpus, &__what)) {			\
		TH_LOG("%s: %s", __what, strerror(errno));		\
	}								\
} while (0)

#define test_set_region(v, flags, addr, mem, npages)			\
	ASSERT_EQ(0, vmm_set_region(v, REGION, flags, addr, mem,	\
				    (__u64)(npages) << DIRTYTRACK_PAGE_SHIFT)) { \
		TH_LOG("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno)); \
	}

/* One exit of the guest: it stores or loads at @n addresses of the list. */
#define test_run_list(v, entry, n, value)				\
	ASSERT_EQ(0, vmm_run_list(v, entry, n, value)) {		\
		TH_LOG("%s", (v)->vcpus[0].trouble);			\
	}

/* ---- a guest that does as it is told ---- */

FIXTURE(guest) {
	struct tracked t;
	struct vmm v;
	unsigned int seed;
	__u64 *kvm_log;
};

/*
 * Without its own log KVM maps what a guest only reads for writing too, if the
 * host's page table lets it, and maps neighbours ahead of their first access.
 */
FIXTURE_VARIANT(guest) {
	enum tracked_start start;
	__u32 region_flags;
};

FIXTURE_VARIANT_ADD(guest, fresh_kvm_logs) {
	.start = START_FRESH,
	.region_flags = KVM_MEM_LOG_DIRTY_PAGES,
};

FIXTURE_VARIANT_ADD(guest, resident_kvm_logs) {
	.start = START_RESIDENT,
	.region_flags = KVM_MEM_LOG_DIRTY_PAGES,
};

FIXTURE_VARIANT_ADD(guest, resident_kvm_does_not_log) {
	.start = START_RESIDENT,
	.region_flags = 0,
};

FIXTURE_SETUP(guest)
{
	self->seed = 1;
	self->kvm_log = bitmap_alloc(NPAGES);
	tracked_open(_metadata, &self->t, NPAGES, variant->start);
	test_vmm_open(&self->v, 1);
	test_set_region(&self->v, variant->region_flags, VMM_RAM, self->t.mem,
			NPAGES);
}

FIXTURE_TEARDOWN(guest)
{
	vmm_close(&self->v);
	tracked_close(_metadata, &self->t);
	free(self->kvm_log);
}

/* A list of 1 to 256 pages in disorder, some of them twice; sets their bits. */
static __u32 random_list(struct vmm *v, unsigned int *seed, __u64 *pages)
{
	__u32 n = 1 + rand_r(seed) % 256;

	for (__u32 i = 0; i < n; i++) {
		__u32 page = rand_r(seed) % NPAGES;

		vmm_list(v)[i] = guest_addr(page) +
				 rand_r(seed) % (PAGE_SIZE / 4) * 4;
		bit_set(pages, page);
	}
	return n;
}

static __u32 list_all(struct vmm *v)
{
	for (__u32 page = 0; page < NPAGES; page++)
		vmm_list(v)[page] = guest_addr(page);
	return NPAGES;
}

static void want_pages(struct tracked *t, const __u64 *pages)
{
	for (__u64 n = 0; n < t->npages; n++)
		if (bit_test(pages, n))
			wrote(t, n, 1);
}

/*
 * KVM's log against the pages that the guest wrote.  Its first log may have more,
 * and one page too few there would be a fault of this test, not of ours.
 */
static void check_kvm_log(struct __test_metadata *_metadata, struct vmm *v,
			  const __u64 *wrote, __u64 *log, bool first)
{
	bitmap_zero(log, NPAGES);
	ASSERT_EQ(0, vmm_get_log(v, REGION, log));
	for (__u32 page = 0; page < NPAGES; page++) {
		if (bit_test(wrote, page)) {
			EXPECT_TRUE(bit_test(log, page)) {
				TH_LOG("KVM's log lacks page %u", page);
			}
		} else if (!first) {
			EXPECT_FALSE(bit_test(log, page)) {
				TH_LOG("KVM's log has page %u too", page);
			}
		}
	}
}

TEST_F(guest, writes)
{
	__u64 *pages = bitmap_alloc(NPAGES);

	for (int round = 0; round < ROUNDS; round++) {
		__u32 n;

		bitmap_zero(pages, NPAGES);
		n = random_list(&self->v, &self->seed, pages);
		test_run_list(&self->v, guest_write, n, round + 1);
		want_pages(&self->t, pages);

		/* Either log may be asked first: neither takes from the other. */
		if (variant->region_flags && round % 2)
			check_kvm_log(_metadata, &self->v, pages, self->kvm_log,
				      round == 0);
		check(&self->t);
		if (variant->region_flags && round % 2 == 0)
			check_kvm_log(_metadata, &self->v, pages, self->kvm_log,
				      round == 0);
	}
	free(pages);
}

/* The same pages, round after round: what was given once is taken every time. */
TEST_F(guest, writes_again)
{
	for (int round = 0; round < ROUNDS; round++) {
		for (__u32 i = 0; i < 64; i++) {
			vmm_list(&self->v)[i] = guest_addr(i * 7);
			wrote(&self->t, i * 7, 1);
		}
		test_run_list(&self->v, guest_write, 64, round + 1);
		check(&self->t);
		for (__u32 i = 0; i < 64; i++)
			EXPECT_EQ(round + 1, *(__u32 *)page_at(self->t.mem, i * 7));
	}
}

/* What the VMM writes is in our log beside what the guest writes. */
TEST_F(guest, vmm_writes_too)
{
	__u64 *pages = bitmap_alloc(NPAGES);
	int pipefd[2];

	ASSERT_EQ(0, pipe(pipefd));
	for (int round = 0; round < ROUNDS; round++) {
		__u32 n, page;
		__u64 value = fresh_value();

		bitmap_zero(pages, NPAGES);
		n = random_list(&self->v, &self->seed, pages);

		/* As a device model does: a store, read(2), and pwrite(2). */
		page = rand_r(&self->seed) % NPAGES;
		put(&self->t, page);

		page = rand_r(&self->seed) % NPAGES;
		ASSERT_EQ(sizeof(value), write(pipefd[1], &value, sizeof(value)));
		ASSERT_EQ(sizeof(value), read(pipefd[0], page_at(self->t.mem, page),
					      sizeof(value)));
		wrote(&self->t, page, 1);

		test_run_list(&self->v, guest_write, n, round + 1);
		want_pages(&self->t, pages);

		page = rand_r(&self->seed) % NPAGES;
		ASSERT_EQ(sizeof(value), pwrite(self->t.slot, &value, sizeof(value),
						(off_t)page << DIRTYTRACK_PAGE_SHIFT));
		wrote(&self->t, page, 1);

		check(&self->t);
		if (variant->region_flags)
			check_kvm_log(_metadata, &self->v, pages, self->kvm_log,
				      round == 0);
	}
	close(pipefd[0]);
	close(pipefd[1]);
	free(pages);
}

/*
 * Reading dirties nothing.  A page that the VMM has just written is writable for
 * the host, and KVM may map it for writing when the guest only reads it: a write
 * that the guest makes after the next harvest must show all the same.
 */
TEST_F(guest, reads_then_writes)
{
	__u32 n = list_all(&self->v);

	test_run_list(&self->v, guest_read, n, 0);
	check(&self->t);
	for (int round = 0; round < 4; round++) {
		for (__u32 page = round; page < NPAGES; page += 2)
			put(&self->t, page);
		n = list_all(&self->v);
		test_run_list(&self->v, guest_read, n, 0);
		check(&self->t);

		test_run_list(&self->v, guest_read, n, 0);
		check(&self->t);

		for (__u32 i = 0; i < NPAGES / 2; i++)
			vmm_list(&self->v)[i] = guest_addr(2 * i);
		test_run_list(&self->v, guest_write, NPAGES / 2, round + 1);
		for (__u32 page = 0; page < NPAGES; page += 2)
			wrote(&self->t, page, 1);
		check(&self->t);
	}
}

/*
 * Writes that wait for a harvest survive the region, and the mapping under it;
 * a new region, at another guest address and by another mapping of other pages
 * of the slot, is tracked by page of the slot.
 */
TEST_F(guest, region_moves)
{
	const __u32 shift = 100;
	bool present = true;

	for (__u32 round = 0; round < 4; round++) {
		__u32 at = VMM_RAM + round * 0x1000000;
		char *map = test_map(self->t.slot, shift, NPAGES - shift);
		__u32 n = 64;

		if (present) {
			ASSERT_EQ(0, vmm_delete_region(&self->v, REGION));
		}
		test_set_region(&self->v, variant->region_flags, at, map,
				NPAGES - shift);
		for (__u32 i = 0; i < n; i++) {
			__u32 page = (round + 5 * i) % (NPAGES - shift);

			vmm_list(&self->v)[i] = at + (page << DIRTYTRACK_PAGE_SHIFT);
			wrote(&self->t, shift + page, 1);
		}
		test_run_list(&self->v, guest_write, n, round + 1);
		/* The region goes before the mapping or after it. */
		present = round % 2 == 0;
		if (!present) {
			ASSERT_EQ(0, vmm_delete_region(&self->v, REGION));
		}
		test_unmap(map, NPAGES - shift);
		check(&self->t);
	}
}

/* The slot twice in the guest, by two mappings: any of them counts. */
TEST_F(guest, two_regions)
{
	const __u32 second = VMM_RAM + 0x1000000;
	char *map = test_map(self->t.slot, 0, NPAGES);

	ASSERT_EQ(0, vmm_set_region(&self->v, REGION + 1, variant->region_flags,
				    second, map, NPAGES * PAGE_SIZE));
	for (__u32 round = 0; round < 6; round++) {
		__u32 n = 0;

		for (__u32 page = round; page < NPAGES; page += 9) {
			__u32 base = (page / 9 + round) % 3 ? VMM_RAM : second;

			vmm_list(&self->v)[n++] = base + (page << DIRTYTRACK_PAGE_SHIFT);
			wrote(&self->t, page, 1);
		}
		test_run_list(&self->v, guest_write, n, round + 1);
		check(&self->t);
	}
	ASSERT_EQ(0, vmm_delete_region(&self->v, REGION + 1));
	test_unmap(map, NPAGES);
}

/* A VMM that dies right after its guest wrote leaves nothing but the slot. */
TEST_F(guest, vmm_dies)
{
	for (__u32 round = 0; round < 3; round++) {
		for (__u32 i = 0; i < 100; i++)
			wrote(&self->t, round + 5 * i, 1);
		in_child({
			const char *what;
			struct vmm v;
			char *map;

			map = _test_map(self->t.slot, 0, NPAGES);
			if (map == MAP_FAILED || vmm_open(&v, 1, &what))
				_exit(1);
			if (vmm_set_region(&v, REGION, variant->region_flags,
					   VMM_RAM, map, NPAGES * PAGE_SIZE))
				_exit(2);
			for (__u32 i = 0; i < 100; i++)
				vmm_list(&v)[i] = guest_addr(round + 5 * i);
			if (vmm_run_list(&v, guest_write, 100, round + 1))
				_exit(3);
		});
		check(&self->t);
	}
}

/* ---- guests that write while harvests run ---- */

#define RACE_PAGES	192U
/* Runs at least so long, and longer, up to a limit, if little happened. */
#define RACE_SECONDS	1.5
#define RACE_LIMIT	180.0
#define RACE_HARVESTS	20
#define RACE_WRITES	(4 * RACE_PAGES)

FIXTURE(race) {
	int slot;
	int log;
	char *mem;
	struct vmm v;
	__u64 *dirty;
	/* [writer][page]: what a consumer that copies dirty pages has */
	__u32 *shadow;
	/* [writer][page]: what was published before the last harvest began */
	__u32 *before;
};

FIXTURE_VARIANT(race) {
	unsigned int vcpus;
	bool vmm_writes;
	__u32 region_flags;
	/* Pages of one call: a harvest of everything may be made of several. */
	__u32 step;
};

FIXTURE_VARIANT_ADD(race, one_vcpu) {
	.vcpus = 1,
	.step = RACE_PAGES,
};

FIXTURE_VARIANT_ADD(race, two_vcpus) {
	.vcpus = 2,
	.step = RACE_PAGES,
};

FIXTURE_VARIANT_ADD(race, two_vcpus_kvm_logs) {
	.vcpus = 2,
	.region_flags = KVM_MEM_LOG_DIRTY_PAGES,
	.step = RACE_PAGES,
};

FIXTURE_VARIANT_ADD(race, vcpu_and_vmm) {
	.vcpus = 1,
	.vmm_writes = true,
	.step = 24,
};

FIXTURE_SETUP(race)
{
	unsigned int writers = variant->vcpus + variant->vmm_writes;

	self->slot = test_new_slot(RACE_PAGES);
	self->mem = test_map(self->slot, 0, RACE_PAGES);
	self->log = test_log_create(self->slot, 0);
	self->dirty = bitmap_alloc(RACE_PAGES);
	self->shadow = calloc(writers * RACE_PAGES, sizeof(*self->shadow));
	self->before = calloc(writers * RACE_PAGES, sizeof(*self->before));
	ASSERT_TRUE(self->shadow && self->before);
	test_vmm_open(&self->v, variant->vcpus);
	test_set_region(&self->v, variant->region_flags, VMM_RAM, self->mem,
			RACE_PAGES);
}

FIXTURE_TEARDOWN(race)
{
	vmm_close(&self->v);
	test_unmap(self->mem, RACE_PAGES);
	close(self->log);
	close(self->slot);
	free(self->dirty);
	free(self->shadow);
	free(self->before);
}

/* The VMM's own thread: does what guest_count does, as the last writer. */
struct vmm_writer {
	struct vmm *v;
	char *mem;
	unsigned int index;
};

static volatile __u32 *counter(char *mem, unsigned int writer, __u32 page)
{
	return (volatile __u32 *)page_at(mem, page) + writer;
}

static void *vmm_writer(void *arg)
{
	struct vmm_writer *w = arg;
	volatile __u32 *published = vmm_published(w->v, w->index);

	while (!*vmm_stop(w->v)) {
		for (__u32 page = 0; page < RACE_PAGES; page++) {
			__u32 n = *counter(w->mem, w->index, page) + 1;

			*counter(w->mem, w->index, page) = n;
			/* Pairs with the acquire in race_round(). */
			__atomic_store_n(&published[page], n, __ATOMIC_RELEASE);
		}
		/* Or it would take a processor from the guest. */
		usleep(500);
	}
	return NULL;
}

/*
 * One turn of a consumer: harvest, then copy what is dirty.  Whatever was
 * published before the harvest began must now be in the copy: either this
 * harvest reported the page or an earlier one did, after which it was copied.
 * Yields the number of pages of which that is not true.
 */
static int race_round(struct vmm *v, int log, char *mem, unsigned int writers,
		      __u32 step, __u64 *dirty, __u32 *before, __u32 *shadow,
		      __u64 *reported)
{
	unsigned int w;
	__u32 page;
	int lost = 0;

	for (w = 0; w < writers; w++)
		for (page = 0; page < RACE_PAGES; page++)
			before[w * RACE_PAGES + page] =
				__atomic_load_n(&vmm_published(v, w)[page],
						__ATOMIC_ACQUIRE);

	bitmap_zero(dirty, RACE_PAGES);
	for (page = 0; page < RACE_PAGES; page += step) {
		__u64 n;

		if (_test_harvest_all(log, 0, page, step, dirty, page, &n))
			return -1;
		*reported += n;
	}

	for (page = 0; page < RACE_PAGES; page++)
		for (w = 0; bit_test(dirty, page) && w < writers; w++)
			shadow[w * RACE_PAGES + page] = *counter(mem, w, page);

	for (w = 0; w < writers; w++)
		for (page = 0; page < RACE_PAGES; page++)
			lost += (__s32)(shadow[w * RACE_PAGES + page] -
					before[w * RACE_PAGES + page]) < 0;
	return lost;
}

static __u64 written(struct vmm *v, unsigned int writer)
{
	__u64 n = 0;

	for (__u32 page = 0; page < RACE_PAGES; page++)
		n += vmm_published(v, writer)[page];
	return n;
}

static bool race_is_over(struct vmm *v, unsigned int writers, __u64 harvests,
			 double seconds)
{
	if (seconds < RACE_SECONDS)
		return false;
	if (seconds > RACE_LIMIT)
		return true;
	for (unsigned int w = 0; w < writers; w++)
		if (written(v, w) < RACE_WRITES)
			return false;
	return harvests >= RACE_HARVESTS;
}

TEST_F_TIMEOUT(race, no_write_is_lost, 120)
{
	unsigned int writers = variant->vcpus + variant->vmm_writes;
	struct vmm_writer host = {
		.v = &self->v,
		.mem = self->mem,
		.index = variant->vcpus,
	};
	__u64 reported = 0, harvests = 0, kvm_log[RACE_PAGES / 64 + 1];
	unsigned int seed = 1;
	pthread_t thread;
	double start;

	for (unsigned int i = 0; i < variant->vcpus; i++)
		ASSERT_EQ(0, vmm_start_count(&self->v, i, VMM_RAM, RACE_PAGES));
	if (variant->vmm_writes)
		ASSERT_EQ(0, pthread_create(&thread, NULL, vmm_writer, &host));

	start = now();
	while (!race_is_over(&self->v, writers, harvests, now() - start)) {
		int lost = race_round(&self->v, self->log, self->mem, writers,
				      variant->step, self->dirty, self->before,
				      self->shadow, &reported);

		EXPECT_EQ(0, lost) {
			TH_LOG("harvest %llu", harvests);
		}
		if (lost)
			break;
		/*
		 * KVM starts a guest's fault over when an invalidation came
		 * between: bursts that hit every fault, and pauses in which
		 * the guest gets on.
		 */
		if (++harvests % 8 == 0)
			usleep(rand_r(&seed) % 8000);
		/* KVM protects for its own log, which must not confuse ours. */
		if (variant->region_flags && harvests % 3 == 0) {
			EXPECT_EQ(0, vmm_get_log(&self->v, REGION, kvm_log));
		}
	}

	*vmm_stop(&self->v) = 1;
	for (unsigned int i = 0; i < variant->vcpus; i++) {
		EXPECT_EQ(0, vmm_join(&self->v, i)) {
			TH_LOG("vCPU %u: %s", i, self->v.vcpus[i].trouble);
		}
	}
	if (variant->vmm_writes) {
		EXPECT_EQ(0, pthread_join(thread, NULL));
	}

	/* All is quiet: the copy becomes equal to the memory. */
	EXPECT_EQ(0, race_round(&self->v, self->log, self->mem, writers,
				variant->step, self->dirty, self->before,
				self->shadow, &reported));
	for (unsigned int w = 0; w < writers; w++) {
		for (__u32 page = 0; page < RACE_PAGES; page++) {
			__u32 n = *counter(self->mem, w, page);

			EXPECT_EQ(n, self->shadow[w * RACE_PAGES + page]);
			EXPECT_EQ(n, vmm_published(&self->v, w)[page]);
		}
		TH_LOG("writer %u made %llu writes under %llu harvests, which reported %llu pages",
		       w, written(&self->v, w), harvests, reported);
		EXPECT_LE(RACE_WRITES, written(&self->v, w));
	}
	EXPECT_LE(RACE_HARVESTS, harvests);
	EXPECT_LE(RACE_WRITES, reported);
}

/*
 * The harness goes on into the test after a SKIP() in a fixture's setup, so
 * whether there is anything to test on is asked before it starts.
 */
#define main harness_main
TEST_HARNESS_MAIN
#undef main

int main(int argc, char **argv)
{
	if (!vmm_have_kvm()) {
		printf("TAP version 13\n1..0 # SKIP there is no /dev/kvm\n");
		return KSFT_SKIP;
	}
	return harness_main(argc, argv);
}
