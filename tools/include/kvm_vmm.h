/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The smallest VMM that can make a guest write where a test or benchmark wants it
 *
 *     guest physical memory
 *     0x00000000  64 KiB  control: guest code and what it talks through; plain
 *                         anonymous memory, which nothing tracks
 *     VMM_RAM     ...     regions of what is under test, as its user sets them
 *
 * The guest runs in protected mode without paging, so its addresses are
 * physical, and takes its parameters in registers.  It leaves only by HLT: exits
 * cost tens of microseconds where KVM is nested in an emulator.
 */
#ifndef DIRTYTRACK_KVM_VMM_H
#define DIRTYTRACK_KVM_VMM_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define VMM_CONTROL_SIZE	0x10000U
#define VMM_RAM			0x10000000U
#define VMM_MAX_VCPUS		2

/* What a guest is given to end. */
#define VMM_JOIN_SECONDS	40

/* Where things are in the control memory, as offsets and guest addresses. */
#define VMM_CODE		0x0000U
#define VMM_STOP		0x1000U
#define VMM_SPIN		0x1100U
#define VMM_LIST		0x2000U
#define VMM_LIST_LEN		((VMM_PUBLISHED - VMM_LIST) / 4)
#define VMM_PUBLISHED		0x8000U
#define VMM_PUBLISHED_LEN	((VMM_CONTROL_SIZE - VMM_PUBLISHED) / 4 / VMM_MAX_VCPUS)

/*
 * guest_write: stores EAX at each of the ECX addresses that ESI points to.
 * guest_read: loads from them.
 *
 * guest_count: until the word at EBP is not zero, for each of ECX pages from EBX
 * on: increments the word at EBX, then stores its value into the array at ESI.  A
 * value in the array was therefore in the page before.
 *
 * guest_spin: the same without the array, for speed: ESI points to a struct
 * vmm_spin, whose stop word ends it.
 */
asm(".pushsection .rodata\n"
"	.globl guest_code, guest_write, guest_read, guest_count, guest_spin\n"
"	.globl guest_code_end\n"
"	.code32\n"
"guest_code:\n"
"guest_write:\n"
"	mov	(%esi), %edi\n"
"	mov	%eax, (%edi)\n"
"	add	$4, %esi\n"
"	dec	%ecx\n"
"	jnz	guest_write\n"
"	hlt\n"
"guest_read:\n"
"	mov	(%esi), %edi\n"
"	mov	(%edi), %eax\n"
"	add	$4, %esi\n"
"	dec	%ecx\n"
"	jnz	guest_read\n"
"	hlt\n"
"guest_count:\n"
"	push	%ebx\n"
"	push	%ecx\n"
"	push	%esi\n"
"1:	incl	(%ebx)\n"
"	mov	(%ebx), %eax\n"
"	mov	%eax, (%esi)\n"
"	add	$4096, %ebx\n"
"	add	$4, %esi\n"
"	dec	%ecx\n"
"	jnz	1b\n"
"	pop	%esi\n"
"	pop	%ecx\n"
"	pop	%ebx\n"
"	cmpl	$0, (%ebp)\n"
"	je	guest_count\n"
"	hlt\n"
"guest_spin:\n"
"	rdtsc\n"
"	mov	%eax, %edi\n"
"1:	mov	12(%esi), %ebx\n"
"	mov	16(%esi), %ecx\n"
"2:	incl	(%ebx)\n"
"	incl	(%esi)\n"
"	rdtsc\n"
"	mov	%eax, %edx\n"
"	sub	%edi, %edx\n"
"	mov	%eax, %edi\n"
"	cmp	%edx, 4(%esi)\n"
"	jae	3f\n"
"	mov	%edx, 4(%esi)\n"
"3:	cmpl	$0, 8(%esi)\n"
"	jne	4f\n"
"	add	$4096, %ebx\n"
"	dec	%ecx\n"
"	jnz	2b\n"
"	jmp	1b\n"
"4:	hlt\n"
"guest_code_end:\n"
"	.code64\n"
"	.popsection\n");

extern const char guest_code[], guest_write[], guest_read[], guest_count[];
extern const char guest_spin[], guest_code_end[];

/**
 * struct vmm_spin - what guest_spin is told, and tells
 * @writes: pages written, one store each; wraps around
 * @longest: most ticks of the TSC between two stores, if less than 2^32
 * @stop: set to not zero to end it
 * @addr: guest address of the first page
 * @npages: how many pages; after the last comes the first
 */
struct vmm_spin {
	__u32 writes;
	__u32 longest;
	__u32 stop;
	__u32 addr;
	__u32 npages;
};

struct vcpu {
	int fd;
	struct kvm_run *run;
	size_t run_size;
	pthread_t thread;
	/* Why the last run did not end with HLT, or empty. */
	char trouble[120];
	/* It is to say where it is, rather than to go on. */
	volatile bool give_up;
};

struct vmm {
	int kvm;
	int vm;
	char *control;
	struct vcpu vcpus[VMM_MAX_VCPUS];
	unsigned int nvcpus;
};

static inline bool vmm_have_kvm(void)
{
	if (access("/dev/kvm", R_OK | W_OK) &&
	    system("modprobe -q kvm-amd || modprobe -q kvm-intel"))
		return false;
	return !access("/dev/kvm", R_OK | W_OK);
}

static inline int vmm_set_region(struct vmm *v, __u32 id, __u32 flags, __u32 addr,
				 void *mem, __u64 size)
{
	struct kvm_userspace_memory_region region = {
		.slot = id,
		.flags = flags,
		.guest_phys_addr = addr,
		.memory_size = size,
		.userspace_addr = (uintptr_t)mem,
	};

	return ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/* KVM deletes a region that is set to no bytes. */
static inline int vmm_delete_region(struct vmm *v, __u32 id)
{
	return vmm_set_region(v, id, 0, 0, NULL, 0);
}

static inline int vmm_get_log(struct vmm *v, __u32 id, __u64 *bitmap)
{
	struct kvm_dirty_log log = { .slot = id, .dirty_bitmap = bitmap };

	return ioctl(v->vm, KVM_GET_DIRTY_LOG, &log);
}

static inline int vcpu_protected_mode(struct vcpu *c)
{
	const struct kvm_segment data = {
		.limit = 0xffffffff,
		.selector = 0x10,
		.type = 3,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1,
	};
	struct kvm_segment code = data;
	struct kvm_sregs sregs;

	if (ioctl(c->fd, KVM_GET_SREGS, &sregs))
		return -1;
	code.selector = 0x08;
	code.type = 11;
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.ss = data;
	sregs.cr0 |= 1;
	return ioctl(c->fd, KVM_SET_SREGS, &sregs);
}

/*
 * A machine without vCPUs: 0, or -1 with errno and *@what naming the step that
 * failed.
 */
static inline int vmm_create(struct vmm *v, const char **what)
{
	memset(v, 0, sizeof(*v));
	*what = "open /dev/kvm";
	v->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (v->kvm < 0)
		return -1;
	*what = "KVM_CREATE_VM";
	v->vm = ioctl(v->kvm, KVM_CREATE_VM, 0);
	if (v->vm < 0)
		return -1;

	*what = "control memory";
	v->control = mmap(NULL, VMM_CONTROL_SIZE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (v->control == MAP_FAILED)
		return -1;
	memcpy(v->control + VMM_CODE, guest_code, guest_code_end - guest_code);
	return vmm_set_region(v, 0, 0, 0, v->control, VMM_CONTROL_SIZE);
}

/* Likewise. */
static inline int vmm_add_vcpu(struct vmm *v, const char **what)
{
	struct vcpu *c = &v->vcpus[v->nvcpus];

	*what = "KVM_CREATE_VCPU";
	c->fd = ioctl(v->vm, KVM_CREATE_VCPU, v->nvcpus);
	if (c->fd < 0)
		return -1;
	*what = "mmap of a vCPU";
	c->run_size = ioctl(v->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	c->run = mmap(NULL, c->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		      c->fd, 0);
	if (c->run == MAP_FAILED)
		return -1;
	*what = "KVM_SET_SREGS";
	if (vcpu_protected_mode(c))
		return -1;
	v->nvcpus++;
	return 0;
}

/* Likewise, with all its vCPUs. */
static inline int vmm_open(struct vmm *v, unsigned int nvcpus, const char **what)
{
	if (vmm_create(v, what))
		return -1;
	while (v->nvcpus < nvcpus)
		if (vmm_add_vcpu(v, what))
			return -1;
	return 0;
}

static inline void vmm_close(struct vmm *v)
{
	for (unsigned int i = 0; i < v->nvcpus; i++) {
		munmap(v->vcpus[i].run, v->vcpus[i].run_size);
		close(v->vcpus[i].fd);
	}
	munmap(v->control, VMM_CONTROL_SIZE);
	close(v->vm);
	close(v->kvm);
}

/* Runs the guest from what was set in its registers until it halts. */
static inline int vcpu_run(struct vcpu *c)
{
	struct kvm_regs regs;

	c->trouble[0] = '\0';
	while (ioctl(c->fd, KVM_RUN, 0)) {
		if ((errno == EINTR || errno == EAGAIN) && !c->give_up)
			continue;
		if (c->give_up && !ioctl(c->fd, KVM_GET_REGS, &regs)) {
			snprintf(c->trouble, sizeof(c->trouble),
				 "it does not end, at %#llx: ebx %#llx, ecx %#llx, esi %#llx",
				 regs.rip, regs.rbx, regs.rcx, regs.rsi);
			return -1;
		}
		snprintf(c->trouble, sizeof(c->trouble), "KVM_RUN: %s",
			 strerror(errno));
		return -1;
	}
	if (c->run->exit_reason == KVM_EXIT_HLT)
		return 0;
	snprintf(c->trouble, sizeof(c->trouble),
		 "the guest left with exit reason %u (MMIO address %#llx)",
		 c->run->exit_reason,
		 c->run->exit_reason == KVM_EXIT_MMIO ?
		 c->run->mmio.phys_addr : 0ULL);
	return -1;
}

static inline int vcpu_start(struct vcpu *c, const char *entry,
			     struct kvm_regs *regs)
{
	regs->rip = VMM_CODE + (entry - guest_code);
	regs->rflags = 2;
	if (!ioctl(c->fd, KVM_SET_REGS, regs))
		return 0;
	snprintf(c->trouble, sizeof(c->trouble), "KVM_SET_REGS: %s",
		 strerror(errno));
	return -1;
}

/* guest_write or guest_read over the @n addresses of the list. */
static inline int vmm_run_list(struct vmm *v, const char *entry, __u32 n,
			       __u32 value)
{
	struct kvm_regs regs = { .rsi = VMM_LIST, .rcx = n, .rax = value };

	if (vcpu_start(&v->vcpus[0], entry, &regs))
		return -1;
	return vcpu_run(&v->vcpus[0]);
}

static inline volatile __u32 *vmm_list(struct vmm *v)
{
	return (volatile __u32 *)(v->control + VMM_LIST);
}

static inline volatile __u32 *vmm_stop(struct vmm *v)
{
	return (volatile __u32 *)(v->control + VMM_STOP);
}

static inline volatile struct vmm_spin *vmm_spin(struct vmm *v, unsigned int vcpu)
{
	return (volatile struct vmm_spin *)(v->control + VMM_SPIN) + vcpu;
}

/* What a vCPU says that it has written: one word a page. */
static inline volatile __u32 *vmm_published(struct vmm *v, unsigned int vcpu)
{
	return (volatile __u32 *)(v->control + VMM_PUBLISHED) +
	       vcpu * VMM_PUBLISHED_LEN;
}

static inline void *vcpu_thread(void *arg)
{
	return (void *)(intptr_t)vcpu_run(arg);
}

/*
 * Starts guest_count on a thread: vCPU number i counts in word i of @npages pages
 * from guest address @addr on.  Its stack is the end of its published array.
 */
static inline int vmm_start_count(struct vmm *v, unsigned int i, __u32 addr,
				  __u32 npages)
{
	__u32 published = VMM_PUBLISHED + i * VMM_PUBLISHED_LEN * 4;
	struct kvm_regs regs = {
		.rbx = addr + i * 4,
		.rcx = npages,
		.rsi = published,
		.rbp = VMM_STOP,
		.rsp = published + VMM_PUBLISHED_LEN * 4,
	};

	if (vcpu_start(&v->vcpus[i], guest_count, &regs))
		return -1;
	errno = pthread_create(&v->vcpus[i].thread, NULL, vcpu_thread, &v->vcpus[i]);
	return errno ? -1 : 0;
}

static inline void vcpu_interrupted(int signal)
{
	(void)signal;
}

/*
 * After the stop word was set: 0 if the guest halted.  One that does not, in
 * VMM_JOIN_SECONDS, is asked where it is.
 */
static inline int vmm_join(struct vmm *v, unsigned int i)
{
	const struct sigaction interrupt = { .sa_handler = vcpu_interrupted };
	struct vcpu *c = &v->vcpus[i];
	struct timespec end;
	void *result;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += VMM_JOIN_SECONDS;
	errno = pthread_timedjoin_np(c->thread, &result, &end);
	if (errno == ETIMEDOUT) {
		sigaction(SIGUSR1, &interrupt, NULL);
		c->give_up = true;
		pthread_kill(c->thread, SIGUSR1);
		errno = pthread_join(c->thread, &result);
	}
	return errno || result ? -1 : 0;
}

#endif /* DIRTYTRACK_KVM_VMM_H */
