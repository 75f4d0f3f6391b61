/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writers that number their writes
 *
 * An actor writes to pages of its own, in one way, and says in memory that all
 * processes share what it has begun and what it has done:
 *
 *	started[page] = n
 *	page = n
 *	completed[page] = n
 *
 * The number stands in the first and in the last word of the page, so that a page
 * copied in the middle of a write shows, too.  Each page belongs to one actor, so
 * its numbers only grow.  Discarding a page is a write as well: its number is odd,
 * and the content is zero.
 *
 * A consumer that releases what is clean (consumers.h) says before it does so which number
 * it has seen in each page: from then on the page may be zero, as long as nothing was
 * written after that number.
 */
#ifndef DIRTYTRACK_ACTORS_H
#define DIRTYTRACK_ACTORS_H

#include "dirtytrack_test.h"
#include "kvm_vmm.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>

#define MAX_ACTORS	4

/* Pages of one actor that lie side by side: less than a word of any bitmap. */
#define STRIDE		3

/* How an actor writes. */
enum way {
	WAY_NONE,
	WAY_STORE,	/* stores to a mapping */
	WAY_PWRITE,	/* pwrite() to the slot */
	WAY_VM_WRITEV,	/* process_vm_writev() */
	WAY_READ,	/* read() from a pipe into a mapping */
	WAY_FORK,	/* children that store and exit */
	WAY_DISCARD,	/* stores and punches in turn */
	WAY_RELEASE,	/* the same, with several pages released by one call */
	WAY_LOOK,	/* writes nothing: reads pages of all */
	WAY_GUEST,	/* a guest through KVM; only as a process */
};

/* What goes on beside the writes, in the mapping that they use. */
enum storm {
	STORM_NONE,
	STORM_MPROTECT,
	STORM_REMAP,
	STORM_DONTNEED,
	STORM_CLEAR_REFS,
};

struct actor_spec {
	enum way way;
	enum storm storm;
	bool process;		/* with a mapping of its own */
	bool looks;		/* before each write, whether the one before is there */
};

/* ---- what all processes see ---- */

struct page_state {
	_Atomic __u64 started;
	_Atomic __u64 completed;
	/* In its two words, by who may release the page if nothing came after. */
	_Atomic __u64 seen[2];
};

struct progress {
	_Atomic __u64 writes;
	_Atomic __u64 storms;
	_Atomic int failed;
};

struct arena {
	_Atomic bool go, stop;
	_Atomic unsigned int trimmers;	/* consumers that release, and have not ended */
	struct progress actors[MAX_ACTORS];
	struct page_state pages[];
};

struct actor {
	struct actor_spec spec;
	struct arena *arena;
	struct progress *progress;
	int slot;
	unsigned int id, nr_actors;
	bool discarded[MAX_ACTORS];	/* whose pages are discarded at times */
	__u64 npages;
	char *mem;
	__u64 random;
	__u64 window;		/* first of the groups written at the moment */
	int pipe[2];
	struct vmm vmm;		/* of a guest: runs and their number */
	__u64 guest_runs;
	pthread_t thread;
	pid_t pid;
};

static __u64 next_random(__u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static unsigned int owner_of(__u64 page, unsigned int nr_actors)
{
	return page / STRIDE % nr_actors;
}

/* ---- writers ---- */

/* Pages that a guest writes before it leaves. */
#define GUEST_BATCH	24

static bool actor_fail(struct actor *a, const char *what)
{
	fprintf(stderr, "# actor %u: %s: %s\n", a->id, what, strerror(errno));
	atomic_store(&a->progress->failed, 1);
	return false;
}

/*
 * A run of the actor's own pages.  The actor stays in a window for a while and
 * moves on, so that pages are hot at times and idle at times.
 */
static __u64 pick(struct actor *a, unsigned int *npages)
{
	__u64 r = next_random(&a->random), groups, group, page;

	groups = (a->npages / STRIDE - a->id + a->nr_actors - 1) / a->nr_actors;
	if (r % 256 == 0)
		a->window = (r >> 8) % groups;
	group = (a->window + (r >> 32) % 16) % groups;
	page = (group * a->nr_actors + a->id) * STRIDE;
	page += (r >> 40) % STRIDE;
	*npages = 1 + (r >> 48) % (STRIDE - page % STRIDE);
	return page;
}

#define LAST_WORD (PAGE_SIZE / sizeof(__u64) - 1)

static bool discards(enum way way)
{
	return way == WAY_DISCARD || way == WAY_RELEASE;
}

/*
 * The kernel need not copy a word at once: low bytes may be those of a later write than
 * @before already, and the others those of an earlier one, or of zero if that may be.
 */
static bool is_torn(__u64 word, __u64 before, __u64 started, bool zero)
{
	for (__u64 low = 0xff; low <= started; low = low << 8 | 0xff) {
		__u64 later = (before & ~low) | (word & low), high = word & ~low;

		if (later <= before)
			later += low + 1;
		if (later <= started &&
		    ((zero && !high) ||
		     (high >= (before & ~low) && high <= (started & ~low))))
			return true;
	}
	return false;
}

/*
 * May one of the two words of a page be that, given what had completed before it was read,
 * and what has started since?  Zero is what nobody has written, or was discarded, or was
 * released by someone who had seen as much in that word: he may have done so between the
 * writes of the two.
 */
static bool plausible(struct page_state *s, bool discarded, int k, __u64 word, __u64 before,
		      __u64 started)
{
	bool zero = before <= atomic_load(&s->seen[k]) ||
		    (discarded && (before | 1) <= started);

	if (!word)
		return zero;
	return (word >= before && word <= started) ||
	       is_torn(word, before, started, zero);
}

static bool read_words(struct actor *a, __u64 page, __u64 words[2])
{
	const volatile __u64 *at = (const volatile __u64 *)page_at(a->mem, page);

	/* A storm may have the mapping; and a file that is read allocates nothing. */
	if (a->spec.storm != STORM_NONE || next_random(&a->random) & 1) {
		off_t off = page << DIRTYTRACK_PAGE_SHIFT;

		return pread(a->slot, &words[0], 8, off) == 8 &&
		       pread(a->slot, &words[1], 8, off + LAST_WORD * 8) == 8;
	}
	words[0] = at[0];
	words[1] = at[LAST_WORD];
	return true;
}

/*
 * Is in the page what must be?  Of another's page that may have to be asked again, as a
 * copy of the kernel's need not write a word at once.
 */
static bool look_at_page(struct actor *a, __u64 page)
{
	struct page_state *s = &a->arena->pages[page];
	__u64 before = atomic_load_explicit(&s->completed, memory_order_acquire);
	bool own = owner_of(page, a->nr_actors) == a->id, ok = false;
	__u64 words[2], started = 0;

	for (int i = 0; !ok && i < (own ? 1 : 3); i++) {
		if (!read_words(a, page, words))
			return actor_fail(a, "pread");
		/* What was read was started: pairs with write_begin(). */
		atomic_thread_fence(memory_order_seq_cst);
		started = atomic_load_explicit(&s->started, memory_order_relaxed);
		ok = true;
		for (int k = 0; k < 2; k++)
			ok &= plausible(s, a->discarded[owner_of(page, a->nr_actors)], k,
					words[k], before, started);
	}
	if (ok)
		return true;
	fprintf(stderr, "# actor %u: page %llu has %llu and %llu, after write %llu had completed; %llu and %llu were seen, %llu has started\n",
		a->id, page, words[0], words[1], before, atomic_load(&s->seen[0]),
		atomic_load(&s->seen[1]), started);
	atomic_store(&a->progress->failed, 1);
	return false;
}

static __u64 write_begin(struct actor *a, __u64 page)
{
	struct page_state *s = &a->arena->pages[page];
	__u64 done = atomic_load_explicit(&s->completed, memory_order_relaxed);
	__u64 n = (done | 1) + 1;

	if (a->spec.looks)
		look_at_page(a, page);
	/* Nobody may see the page before the number. */
	atomic_store_explicit(&s->started, n, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return n;
}

/* The number is published after the write: release. */
static void write_end(struct actor *a, __u64 page, __u64 n)
{
	atomic_store_explicit(&a->arena->pages[page].completed, n,
			      memory_order_release);
	atomic_fetch_add_explicit(&a->progress->writes, 1, memory_order_relaxed);
}

static void store(struct actor *a, __u64 page)
{
	volatile __u64 *word = (volatile __u64 *)page_at(a->mem, page);
	__u64 n = write_begin(a, page);

	word[0] = n;
	word[LAST_WORD] = n;
	write_end(a, page, n);
}

/* Pages filled as store() would, for the kernel to copy. */
static void begin_run(struct actor *a, __u64 page, unsigned int npages, __u64 *buf)
{
	memset(buf, 0, npages * PAGE_SIZE);
	for (unsigned int i = 0; i < npages; i++) {
		__u64 *word = buf + i * (PAGE_SIZE / sizeof(*buf));

		word[0] = word[LAST_WORD] = write_begin(a, page + i);
	}
}

static void end_run(struct actor *a, __u64 page, unsigned int npages,
		    const __u64 *buf)
{
	for (unsigned int i = 0; i < npages; i++)
		write_end(a, page + i, buf[i * (PAGE_SIZE / sizeof(*buf))]);
}

static bool write_by_kernel(struct actor *a)
{
	__u64 buf[STRIDE * PAGE_SIZE / sizeof(__u64)];
	unsigned int npages;
	__u64 page = pick(a, &npages);
	ssize_t len = npages * PAGE_SIZE;
	char *at = page_at(a->mem, page);
	struct iovec local = { .iov_base = buf, .iov_len = len };
	struct iovec remote = { .iov_base = at, .iov_len = len };

	begin_run(a, page, npages, buf);
	switch (a->spec.way) {
	case WAY_PWRITE:
		if (pwrite(a->slot, buf, len, page << DIRTYTRACK_PAGE_SHIFT) != len)
			return actor_fail(a, "pwrite to the slot");
		break;
	case WAY_VM_WRITEV:
		if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != len)
			return actor_fail(a, "process_vm_writev");
		break;
	case WAY_READ:
		if (write(a->pipe[1], buf, len) != len ||
		    read(a->pipe[0], at, len) != len)
			return actor_fail(a, "read from a pipe");
		break;
	default:
		return false;
	}
	end_run(a, page, npages, buf);
	return true;
}

/*
 * The child has the entries of the parent's mapping as they are at this moment,
 * or makes its own, and leaves nothing but PG_dirty behind.
 */
static bool write_by_child(struct actor *a)
{
	bool own_mapping = next_random(&a->random) & 1;
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return actor_fail(a, "fork");
	if (!pid) {
		unsigned int npages;

		if (own_mapping) {
			a->mem = _test_map(a->slot, 0, a->npages);
			if (a->mem == MAP_FAILED)
				_exit(1);
		}
		for (int i = 0; i < 16; i++)
			store(a, pick(a, &npages));
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		return actor_fail(a, "a child that writes failed");
	atomic_fetch_add(&a->progress->storms, 1);
	/* The child drew from the same state; draw other pages next time. */
	a->random += 0x9e3779b97f4a7c15ULL;
	return true;
}

/* Says that a page is discarded now.  Is there anything to discard? */
static bool discard_begin(struct actor *a, __u64 page, __u64 *n)
{
	struct page_state *s = &a->arena->pages[page];
	__u64 done = atomic_load_explicit(&s->completed, memory_order_relaxed);

	if (done % 2 || !done ||
	    done != atomic_load_explicit(&s->started, memory_order_relaxed))
		return false;
	if (a->spec.looks)
		look_at_page(a, page);
	*n = done + 1;
	atomic_store_explicit(&s->started, *n, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return true;
}

static void discard_end(struct actor *a, __u64 page, __u64 n)
{
	write_end(a, page, n);
	if (a->spec.looks)
		look_at_page(a, page);
	atomic_fetch_add(&a->progress->storms, 1);
}

static bool store_or_discard(struct actor *a)
{
	unsigned int npages;
	__u64 page = pick(a, &npages), n;

	if (!discard_begin(a, page, &n)) {
		store(a, page);
		return true;
	}
	if (fallocate(a->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      page << DIRTYTRACK_PAGE_SHIFT, PAGE_SIZE))
		return actor_fail(a, "punch");
	discard_end(a, page, n);
	return true;
}

/* Pages that are released by one call. */
#define RELEASE_BATCH	8

static bool store_or_release(struct actor *a)
{
	struct dirtytrack_range ranges[RELEASE_BATCH], left[RELEASE_BATCH];
	unsigned int npages, nr = 0;
	__u64 n[RELEASE_BATCH];
	struct done done = { };

	for (int i = 0; i < RELEASE_BATCH; i++) {
		__u64 page = pick(a, &npages);

		if (discard_begin(a, page, &n[nr]))
			ranges[nr++] = (struct dirtytrack_range){ page, 1 };
		else if (a->arena->pages[page].started == a->arena->pages[page].completed)
			store(a, page);
	}
	memcpy(left, ranges, sizeof(left));
	if (_test_release_all(a->slot, DIRTYTRACK_SLOT_RELEASE, left, nr, &done))
		return actor_fail(a, "SLOT_RELEASE");
	for (unsigned int i = 0; i < nr; i++)
		discard_end(a, ranges[i].first, n[i]);
	return true;
}

static bool look_around(struct actor *a)
{
	for (int i = 0; i < 16; i++)
		if (!look_at_page(a, next_random(&a->random) % a->npages))
			return false;
	atomic_fetch_add(&a->progress->writes, 1);
	return true;
}

/* One exit of the guest, with one number for all the pages that it writes. */
static bool write_by_guest(struct actor *a)
{
	volatile __u32 *list = vmm_list(&a->vmm);
	__u64 n = ++a->guest_runs * 2, pages[GUEST_BATCH];
	unsigned int npages;

	for (int i = 0; i < GUEST_BATCH; i++) {
		pages[i] = pick(a, &npages);
		if (a->spec.looks)
			look_at_page(a, pages[i]);
		atomic_store_explicit(&a->arena->pages[pages[i]].started, n,
				      memory_order_relaxed);
		*list++ = VMM_RAM + (pages[i] << DIRTYTRACK_PAGE_SHIFT);
		*list++ = VMM_RAM + (pages[i] << DIRTYTRACK_PAGE_SHIFT) +
			  LAST_WORD * sizeof(__u64);
	}
	atomic_thread_fence(memory_order_seq_cst);
	if (vmm_run_list(&a->vmm, guest_write, 2 * GUEST_BATCH, n))
		return actor_fail(a, a->vmm.vcpus[0].trouble);
	for (int i = 0; i < GUEST_BATCH; i++)
		write_end(a, pages[i], n);
	return true;
}

static bool open_guest(struct actor *a)
{
	const char *what;

	if (vmm_open(&a->vmm, 1, &what))
		return actor_fail(a, what);
	return !vmm_set_region(&a->vmm, 1, 0, VMM_RAM, a->mem,
			       a->npages << DIRTYTRACK_PAGE_SHIFT) ||
	       actor_fail(a, "KVM_SET_USER_MEMORY_REGION");
}

static bool act(struct actor *a)
{
	unsigned int npages;

	switch (a->spec.way) {
	case WAY_STORE:
		store(a, pick(a, &npages));
		return true;
	case WAY_FORK:
		return write_by_child(a);
	case WAY_DISCARD:
		return store_or_discard(a);
	case WAY_RELEASE:
		return store_or_release(a);
	case WAY_LOOK:
		return look_around(a);
	case WAY_GUEST:
		return write_by_guest(a);
	default:
		return write_by_kernel(a);
	}
}

static void *actor_thread(void *arg)
{
	struct actor *a = arg;

	/* Below the consumers, who have more to race with the more they harvest. */
	if (setpriority(PRIO_PROCESS, gettid(), 10))
		actor_fail(a, "setpriority");
	while (!atomic_load(&a->arena->go))
		sched_yield();
	while (!atomic_load_explicit(&a->arena->stop, memory_order_relaxed) && act(a))
		;
	return NULL;
}

/* ---- storms ---- */

/* A storm's process has one mapping, and one thread that is hurt by it. */
static char *segv_start, *segv_end;

/*
 * The storm took the page from under a store: try the store again.  Anything
 * else faults again without this handler, and ends the process.
 */
static void segv_retry(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if ((char *)info->si_addr < segv_start || (char *)info->si_addr >= segv_end)
		signal(sig, SIG_DFL);
	else
		sched_yield();
}

static void some_part(struct actor *a, char **at, size_t *len, __u64 *first)
{
	__u64 r = next_random(&a->random), npages;

	*first = 0;
	npages = a->npages;
	if (r % 3) {
		*first = (r >> 8) % a->npages;
		npages = 1 + (r >> 32) % (a->npages - *first);
	}
	*at = page_at(a->mem, *first);
	*len = npages << DIRTYTRACK_PAGE_SHIFT;
}

static bool storm_mprotect(struct actor *a, char *at, size_t len)
{
	bool none = next_random(&a->random) % 8 == 0;

	if (mprotect(at, len, none ? PROT_NONE : PROT_READ))
		return actor_fail(a, "mprotect away");
	if (next_random(&a->random) % 2)
		usleep(next_random(&a->random) % 100);
	if (mprotect(at, len, PROT_READ | PROT_WRITE))
		return actor_fail(a, "mprotect back");
	return true;
}

/* Replaced in place, taken away and mapped again, or moved away and back. */
static bool storm_remap(struct actor *a, char *at, size_t len, __u64 first)
{
	off_t off = first << DIRTYTRACK_PAGE_SHIFT;
	__u64 r = next_random(&a->random) % 3;
	char *away = segv_end + PAGE_SIZE;	/* reserved with the mapping */

	if (r == 1 && munmap(at, len))
		return actor_fail(a, "munmap");
	/* Mappings of a slot do not merge, and only one can be moved. */
	if (mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, a->slot,
		 off) != at)
		return actor_fail(a, "mmap");
	/* With its entries: the writer has had time to make some. */
	if (r == 2)
		usleep(50);
	if (r == 2 &&
	    (mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, away) != away ||
	     mremap(away, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at))
		return actor_fail(a, "mremap");
	return true;
}

static bool clear_soft_dirty(struct actor *a)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, "4", 1) == 1;

	if (fd >= 0)
		close(fd);
	return ok || actor_fail(a, "/proc/self/clear_refs");
}

static bool storm(struct actor *a)
{
	char *at;
	size_t len;
	__u64 first;
	bool ok = true;

	some_part(a, &at, &len, &first);
	switch (a->spec.storm) {
	case STORM_MPROTECT:
		ok = storm_mprotect(a, at, len);
		break;
	case STORM_REMAP:
		ok = storm_remap(a, at, len, first);
		break;
	case STORM_DONTNEED:
		if (madvise(at, len, MADV_DONTNEED))
			ok = actor_fail(a, "MADV_DONTNEED");
		break;
	case STORM_CLEAR_REFS:
		ok = clear_soft_dirty(a);
		break;
	case STORM_NONE:
		break;
	}
	atomic_fetch_add(&a->progress->storms, 1);
	/* Let the writer get somewhere in between. */
	usleep(next_random(&a->random) % 200);
	return ok;
}

static int actor_process(struct actor *a)
{
	struct sigaction action = {
		.sa_sigaction = segv_retry,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};
	size_t len = a->npages << DIRTYTRACK_PAGE_SHIFT;
	struct actor stormer = *a;
	pthread_t writer;

	/* The moves of a storm never reach beyond this reservation. */
	segv_start = mmap(NULL, 2 * len + PAGE_SIZE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (segv_start == MAP_FAILED)
		return 1;
	segv_end = segv_start + len;
	a->mem = mmap(segv_start, len, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_FIXED, a->slot, 0);
	if (a->mem == MAP_FAILED)
		return 1;
	if (a->spec.way == WAY_GUEST && !open_guest(a))
		return 1;
	if (a->spec.storm == STORM_NONE) {
		actor_thread(a);
		return 0;
	}
	stormer.mem = a->mem;
	stormer.random = ~a->random;
	if (sigaction(SIGSEGV, &action, NULL) ||
	    pthread_create(&writer, NULL, actor_thread, a))
		return 1;
	while (!atomic_load(&a->arena->stop) && storm(&stormer))
		;
	return pthread_join(writer, NULL);
}

static void actor_start(struct __test_metadata *_metadata, struct actor *a)
{
	if (!a->spec.process) {
		ASSERT_EQ(0, pthread_create(&a->thread, NULL, actor_thread, a));
		return;
	}
	fflush(NULL);
	a->pid = fork();
	ASSERT_LE(0, a->pid);
	if (!a->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(actor_process(a));
	}
}

/* Waits for its end, after arena->stop was set. */
static void actor_join(struct __test_metadata *_metadata, struct actor *a)
{
	if (a->spec.process) {
		EXPECT_EQ(0, test_wait(a->pid)) {
			TH_LOG("the process of actor %u failed", a->id);
		}
	} else {
		pthread_join(a->thread, NULL);
	}
	EXPECT_EQ(0, a->progress->failed);
}

#endif /* DIRTYTRACK_ACTORS_H */
