// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nothing is lost while everything races
 *
 * Writers number their writes.  A consumer copies what each harvest reports into
 * a shadow of the slot, as a migration does, and after each harvest looks at
 * every page of the shadow, not only at those reported:
 *
 *	writer				consumer
 *	started[page] = n		before[page] = completed[page]
 *	page = n			harvest, copy what it reports
 *	completed[page] = n		shadow[page] in [before, started[page]] ?
 *
 * A write that had completed before the harvest and is not in the shadow was
 * lost.  The number stands in the first and in the last word of the page, so that
 * a page collected in the middle of a write shows, too.  At the end the writers
 * stop, and after one more harvest the shadow must be the slot, byte for byte.
 *
 * Each page belongs to one actor, so its numbers only grow.  Discarding a page is
 * a write as well: its number is odd, and the content is zero.
 *
 * A run ends when its time is over and each part has done a minimum of work, and
 * fails if that takes too long: an idle run proves nothing.  The time is
 * DIRTYTRACK_RACE_SECONDS for each variant, 1 by default.
 */
#include "dirtytrack_test.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define MAX_ACTORS	4
#define MAX_CONSUMERS	3
#define MAX_PRINT	6

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
};

/* What goes on beside the writes, in the mapping that they use. */
enum storm {
	STORM_NONE,
	STORM_MPROTECT,
	STORM_REMAP,
	STORM_DONTNEED,
	STORM_CLEAR_REFS,
};

/* How a consumer asks. */
enum method {
	METHOD_BITMAP,
	METHOD_SHIFTED,	/* the bitmap begins in the middle of a word */
	METHOD_PARTS,	/* several ranges, none of whole words */
	METHOD_EXTENTS,
	METHOD_PEEK,	/* peek, then harvest, which must have as much */
};

enum part { PART_ALL, PART_LOW, PART_HIGH };

struct actor_spec {
	enum way way;
	enum storm storm;
	bool process;		/* with a mapping of its own */
};

struct consumer_spec {
	enum method method;
	enum part part;		/* LOW and HIGH are of one log */
	unsigned int pause_us;
	unsigned int renew;	/* a new log every so many rounds */
	__u32 flags;		/* of LOG_CREATE */
	bool used;
};

/* ---- what all processes see ---- */

struct page_state {
	_Atomic __u64 started;
	_Atomic __u64 completed;
};

struct progress {
	_Atomic __u64 writes;
	_Atomic __u64 storms;
	_Atomic int failed;
};

struct arena {
	_Atomic bool go, stop;
	struct progress actors[MAX_ACTORS];
	struct page_state pages[];
};

struct actor {
	struct actor_spec spec;
	struct arena *arena;
	struct progress *progress;
	int slot;
	unsigned int id, nr_actors;
	__u64 npages;
	char *mem;
	__u64 random;
	__u64 window;		/* first of the groups written at the moment */
	int pipe[2];
	pthread_t thread;
	pid_t pid;
};

struct consumer {
	struct consumer_spec spec;
	struct arena *arena;
	_Atomic bool *stop;
	int slot, log;
	unsigned int id;
	__u64 first, npages;	/* its part of the slot */
	const struct actor *actors;
	unsigned int nr_actors;
	const char *view;	/* the slot, read-only */
	char *shadow;
	__u64 *before;		/* completed when this harvest was called */
	__u64 *before_last;	/* the same for the one before */
	bool has_last;
	__u64 *got, *holes;
	pthread_t thread;
	/* results */
	_Atomic __u64 rounds;
	__u64 reported, again, lost, impossible, unpeeked, differ, tail;
	int error;
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

static __u64 write_begin(struct actor *a, __u64 page)
{
	struct page_state *s = &a->arena->pages[page];
	__u64 done = atomic_load_explicit(&s->completed, memory_order_relaxed);
	__u64 n = (done | 1) + 1;

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

#define LAST_WORD (PAGE_SIZE / sizeof(__u64) - 1)

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

static bool store_or_discard(struct actor *a)
{
	unsigned int npages;
	__u64 page = pick(a, &npages);
	struct page_state *s = &a->arena->pages[page];
	__u64 done = atomic_load_explicit(&s->completed, memory_order_relaxed);

	if (done % 2 || !done) {
		store(a, page);
		return true;
	}
	atomic_store_explicit(&s->started, done + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	if (fallocate(a->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      page << DIRTYTRACK_PAGE_SHIFT, PAGE_SIZE))
		return actor_fail(a, "punch");
	write_end(a, page, done + 1);
	atomic_fetch_add(&a->progress->storms, 1);
	return true;
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

/* ---- consumers ---- */

static bool consumer_fail(struct consumer *c, const char *what)
{
	c->error = errno;
	fprintf(stderr, "# consumer %u: %s: %s\n", c->id, what, strerror(errno));
	return false;
}

/* got and holes have bit n for page first + n. */
static int harvest(struct consumer *c)
{
	__u64 n = c->npages, words = bitmap_words(n), part;
	__u64 *peeked;
	int ret;

	bitmap_zero(c->got, n + 64);
	bitmap_zero(c->holes, n);
	switch (c->spec.method) {
	case METHOD_BITMAP:
		return _test_harvest_all(c->log, 0, c->first, n, c->got, 0, NULL);

	case METHOD_SHIFTED:
		ret = _test_harvest_all(c->log, 0, c->first, n, c->got, 13, NULL);
		for (__u64 i = 0; i < words; i++)
			c->got[i] = c->got[i] >> 13 | c->got[i + 1] << 51;
		return ret;

	case METHOD_PARTS:
		for (__u64 at = 0; at < n; at += part) {
			part = n / 5 + 2;
			if (part > n - at)
				part = n - at;
			ret = _test_harvest_all(c->log, 0, c->first + at, part,
						c->got, at, NULL);
			if (ret)
				return ret;
		}
		return 0;

	case METHOD_EXTENTS:
		ret = _test_extents_all(c->log, 0, c->first, n, 60, c->got,
					c->holes, NULL);
		for (__u64 i = 0; i < words; i++)
			c->got[i] |= c->holes[i];
		return ret;

	case METHOD_PEEK:
		peeked = bitmap_alloc(n);
		ret = _test_harvest_all(c->log, DIRTYTRACK_HARVEST_PEEK, c->first,
					n, peeked, 0, NULL);
		if (!ret)
			ret = _test_harvest_all(c->log, 0, c->first, n, c->got, 0,
						NULL);
		for (__u64 i = 0; i < n; i++)
			c->unpeeked += bit_test(peeked, i) && !bit_test(c->got, i);
		free(peeked);
		return ret;
	}
	errno = EINVAL;
	return -1;
}

static const char *view_page(const struct consumer *c, __u64 i)
{
	return c->view + ((c->first + i) << DIRTYTRACK_PAGE_SHIFT);
}

/* May the word be that, given what had completed before and has started since? */
static bool plausible(const struct consumer *c, __u64 page, __u64 word,
		      __u64 before, __u64 started)
{
	const struct actor *a = &c->actors[owner_of(page, c->nr_actors)];

	if (word)
		return word >= before && word <= started;
	if (a->spec.way == WAY_DISCARD)
		return !before || (before | 1) <= started;
	return !before;
}

static void look_at(struct consumer *c, __u64 i)
{
	const __u64 *shadow = (const __u64 *)(c->shadow + (i << DIRTYTRACK_PAGE_SHIFT));
	struct page_state *s = &c->arena->pages[c->first + i];
	__u64 started = atomic_load_explicit(&s->started, memory_order_relaxed);
	__u64 words[2] = { shadow[0], shadow[LAST_WORD] };

	for (int k = 0; k < 2; k++) {
		if (plausible(c, c->first + i, words[k], c->before[i], started))
			continue;
		if (words[k] > started)
			c->impossible++;
		else if (c->lost++ < MAX_PRINT)
			fprintf(stderr, "# consumer %u, round %llu: page %llu, write %llu had completed before the harvest, the copy has %llu; %s\n",
				c->id, (unsigned long long)c->rounds, c->first + i,
				c->before[i], words[k],
				bit_test(c->got, i) ? "reported" : "not reported");
		/* Count each loss once. */
		memcpy(c->shadow + (i << DIRTYTRACK_PAGE_SHIFT), view_page(c, i),
		       PAGE_SIZE);
		return;
	}
}

static bool consumer_round(struct consumer *c)
{
	__u64 *swap = c->before_last;

	c->before_last = c->before;
	c->before = swap;
	for (__u64 i = 0; i < c->npages; i++)
		c->before[i] = atomic_load_explicit(
			&c->arena->pages[c->first + i].completed,
			memory_order_acquire);
	if (harvest(c))
		return consumer_fail(c, "harvest");

	for (__u64 i = 0; i < c->npages; i++) {
		char *copy = c->shadow + (i << DIRTYTRACK_PAGE_SHIFT);

		if (!bit_test(c->got, i))
			continue;
		c->reported++;
		/* No write was under way since the last harvest was called. */
		if (c->has_last && c->before_last[i] ==
		    atomic_load(&c->arena->pages[c->first + i].started))
			c->again++;
		if (bit_test(c->holes, i))
			memset(copy, 0, PAGE_SIZE);
		else
			memcpy(copy, view_page(c, i), PAGE_SIZE);
	}
	/* What has been copied was started: pairs with write_begin(). */
	atomic_thread_fence(memory_order_seq_cst);
	for (__u64 i = 0; i < c->npages; i++)
		look_at(c, i);
	c->has_last = true;
	c->rounds++;
	return true;
}

/* From when LOG_CREATE returns, every write is in the log: copy after it. */
static void copy_all(struct consumer *c)
{
	if (c->spec.flags & DIRTYTRACK_LOG_ALL_SET)
		memset(c->shadow, 0, c->npages << DIRTYTRACK_PAGE_SHIFT);
	else
		memcpy(c->shadow, view_page(c, 0), c->npages << DIRTYTRACK_PAGE_SHIFT);
	c->has_last = false;
}

static bool renew_log(struct consumer *c)
{
	close(c->log);
	if (_test_log_create(c->slot, c->spec.flags, &c->log))
		return consumer_fail(c, "LOG_CREATE");
	copy_all(c);
	return true;
}

/*
 * The writers have stopped.  After one harvest the copy is the slot, and the next
 * one has nothing to report.
 */
static bool consumer_last(struct consumer *c)
{
	if (!consumer_round(c))
		return false;
	for (__u64 i = 0; i < c->npages; i++) {
		if (!memcmp(c->shadow + (i << DIRTYTRACK_PAGE_SHIFT),
			    view_page(c, i), PAGE_SIZE))
			continue;
		if (c->differ++ < MAX_PRINT)
			fprintf(stderr, "# consumer %u: page %llu of the copy differs from the slot at the end\n",
				c->id, c->first + i);
	}
	if (harvest(c))
		return consumer_fail(c, "harvest");
	c->tail = bits_count(c->got, c->npages);
	return true;
}

static void *consumer_thread(void *arg)
{
	struct consumer *c = arg;

	copy_all(c);
	while (!atomic_load(c->stop)) {
		if (!consumer_round(c))
			return NULL;
		if (c->spec.pause_us)
			usleep(c->spec.pause_us);
		if (c->spec.renew && c->rounds % c->spec.renew == 0 &&
		    !renew_log(c))
			return NULL;
	}
	consumer_last(c);
	return NULL;
}

/* ---- variants ---- */

FIXTURE(races) {
	struct arena *arena;
	_Atomic bool consumers_stop;
	struct actor actors[MAX_ACTORS];
	struct consumer consumers[MAX_CONSUMERS];
	unsigned int nr_actors, nr_consumers;
	size_t arena_size;
	int slot;
	char *mem, *view;
};

FIXTURE_VARIANT(races) {
	__u64 npages;
	/*
	 * Entries are zapped: until the zap has flushed, it holds the pages, and a
	 * page that is held is reported.
	 */
	bool zaps;
	struct actor_spec actors[MAX_ACTORS];
	struct consumer_spec consumers[MAX_CONSUMERS];
};

/* A few hot pages: each round finds all of them being written. */
FIXTURE_VARIANT_ADD(races, hot_pages) {
	.npages = 66,
	.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = { { METHOD_BITMAP, .used = true } },
};

FIXTURE_VARIANT_ADD(races, extents) {
	.npages = 1100,
	.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = { { METHOD_EXTENTS, .used = true } },
};

FIXTURE_VARIANT_ADD(races, peek) {
	.npages = 333,
	.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = { { METHOD_PEEK, .used = true } },
};

FIXTURE_VARIANT_ADD(races, large_in_parts) {
	.npages = 6001,
	.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = { { METHOD_PARTS, .used = true } },
};

/* Three consumers of one slot: what one collects, the others must get. */
FIXTURE_VARIANT_ADD(races, several_logs) {
	.npages = 500,
	.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = {
		{ METHOD_SHIFTED, .used = true },
		{ METHOD_EXTENTS, .pause_us = 3000, .used = true },
		{ METHOD_BITMAP, .pause_us = 30000, .flags = DIRTYTRACK_LOG_ALL_SET,
		  .used = true },
	},
};

/* Two callers share a log, and a word of its bitmap. */
FIXTURE_VARIANT_ADD(races, halves_of_one_log) {
	.npages = 200,
	.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = {
		{ METHOD_BITMAP, .part = PART_LOW, .used = true },
		{ METHOD_EXTENTS, .part = PART_HIGH, .used = true },
	},
};

/* Logs start, clean and full, while pages are being written. */
FIXTURE_VARIANT_ADD(races, logs_come_and_go) {
	.npages = 200,
	.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = {
		{ METHOD_BITMAP, .renew = 3, .used = true },
		{ METHOD_EXTENTS, .renew = 5, .flags = DIRTYTRACK_LOG_ALL_SET,
		  .used = true },
	},
};

FIXTURE_VARIANT_ADD(races, kernel_writes) {
	.npages = 300,
	.actors = { { WAY_PWRITE }, { WAY_VM_WRITEV }, { WAY_READ }, { WAY_STORE } },
	.consumers = { { METHOD_BITMAP, .used = true } },
};

FIXTURE_VARIANT_ADD(races, fork_storm) {
	.npages = 300,
	.zaps = true,
	.actors = { { WAY_FORK }, { WAY_STORE }, { WAY_STORE, .process = true } },
	.consumers = { { METHOD_BITMAP, .used = true } },
};

FIXTURE_VARIANT_ADD(races, mprotect_storm) {
	.npages = 150,
	.actors = {
		{ WAY_STORE, STORM_MPROTECT, .process = true },
		{ WAY_STORE, STORM_MPROTECT, .process = true },
		{ WAY_STORE },
	},
	.consumers = { { METHOD_BITMAP, .used = true } },
};

FIXTURE_VARIANT_ADD(races, remap_storm) {
	.npages = 150,
	.zaps = true,
	.actors = {
		{ WAY_STORE, STORM_REMAP, .process = true },
		{ WAY_STORE, STORM_REMAP, .process = true },
		{ WAY_STORE },
	},
	.consumers = { { METHOD_EXTENTS, .used = true } },
};

FIXTURE_VARIANT_ADD(races, dontneed_storm) {
	.npages = 150,
	.zaps = true,
	.actors = {
		{ WAY_STORE, STORM_DONTNEED, .process = true },
		{ WAY_STORE, STORM_CLEAR_REFS, .process = true },
		{ WAY_STORE },
	},
	.consumers = { { METHOD_BITMAP, .used = true } },
};

FIXTURE_VARIANT_ADD(races, punch_storm) {
	.npages = 150,
	.zaps = true,
	.actors = {
		{ WAY_DISCARD },
		{ WAY_DISCARD, STORM_DONTNEED, .process = true },
		{ WAY_STORE, STORM_MPROTECT, .process = true },
	},
	.consumers = {
		{ METHOD_EXTENTS, .used = true },
		{ METHOD_BITMAP, .pause_us = 2000, .used = true },
	},
};

static void start_actor(struct __test_metadata *_metadata, struct actor *a)
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

static void open_consumer(struct __test_metadata *_metadata, struct consumer *c)
{
	c->before = calloc(c->npages, sizeof(*c->before));
	c->before_last = calloc(c->npages, sizeof(*c->before_last));
	c->shadow = calloc(c->npages, PAGE_SIZE);
	ASSERT_NE(NULL, c->before);
	ASSERT_NE(NULL, c->before_last);
	ASSERT_NE(NULL, c->shadow);
	/* A shifted bitmap ends one word later. */
	c->got = bitmap_alloc(c->npages + 64);
	c->holes = bitmap_alloc(c->npages);
}

FIXTURE_SETUP(races)
{
	__u64 npages = variant->npages;

	self->slot = test_new_slot(npages);
	self->mem = test_map(self->slot, 0, npages);
	self->view = mmap(NULL, npages << DIRTYTRACK_PAGE_SHIFT, PROT_READ,
			  MAP_SHARED, self->slot, 0);
	ASSERT_NE(MAP_FAILED, self->view);
	self->arena_size = sizeof(*self->arena) + npages * sizeof(struct page_state);
	self->arena = mmap(NULL, self->arena_size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->arena);

	while (self->nr_actors < MAX_ACTORS &&
	       variant->actors[self->nr_actors].way != WAY_NONE)
		self->nr_actors++;
	for (unsigned int i = 0; i < self->nr_actors; i++) {
		struct actor *a = &self->actors[i];

		*a = (struct actor){
			.spec = variant->actors[i],
			.arena = self->arena,
			.progress = &self->arena->actors[i],
			.slot = self->slot,
			.id = i,
			.nr_actors = self->nr_actors,
			.npages = npages - npages % STRIDE,
			.mem = self->mem,
			.random = 88172645463325252ULL + i * 1000003,
		};
		if (a->spec.way == WAY_READ)
			ASSERT_EQ(0, pipe(a->pipe));
	}
	for (unsigned int i = 0; i < MAX_CONSUMERS && variant->consumers[i].used; i++) {
		struct consumer *c = &self->consumers[self->nr_consumers++];

		*c = (struct consumer){
			.spec = variant->consumers[i],
			.arena = self->arena,
			.stop = &self->consumers_stop,
			.slot = self->slot,
			.id = i,
			.npages = npages,
			.actors = self->actors,
			.nr_actors = self->nr_actors,
			.view = self->view,
		};
		/* Three pages off the middle: the halves share a word. */
		if (c->spec.part == PART_LOW)
			c->npages = npages / 2 + 3;
		if (c->spec.part == PART_HIGH) {
			c->first = npages / 2 + 3;
			c->npages = npages - c->first;
		}
		open_consumer(_metadata, c);
	}
}

FIXTURE_TEARDOWN(races)
{
	for (unsigned int i = 0; i < self->nr_consumers; i++) {
		struct consumer *c = &self->consumers[i];

		free(c->before);
		free(c->before_last);
		free(c->shadow);
		free(c->got);
		free(c->holes);
	}
	munmap(self->arena, self->arena_size);
	munmap(self->view, variant->npages << DIRTYTRACK_PAGE_SHIFT);
	test_unmap(self->mem, variant->npages);
	close(self->slot);
}

/* ---- floors ---- */

#define FLOOR_ROUNDS		20
#define FLOOR_STORMS		20

static __u64 floor_writes(const struct actor *a)
{
	return a->spec.way == WAY_STORE ? 2000 : 200;
}

static bool has_storm(const struct actor *a)
{
	return a->spec.storm != STORM_NONE || a->spec.way == WAY_FORK ||
	       a->spec.way == WAY_DISCARD;
}

static bool worked_enough(const struct actor *actors, unsigned int nr_actors,
			  const struct consumer *consumers,
			  unsigned int nr_consumers)
{
	for (unsigned int i = 0; i < nr_actors; i++) {
		const struct actor *a = &actors[i];

		if (a->progress->writes < floor_writes(a) ||
		    (has_storm(a) && a->progress->storms < FLOOR_STORMS))
			return false;
	}
	for (unsigned int i = 0; i < nr_consumers; i++)
		if (consumers[i].rounds < FLOOR_ROUNDS)
			return false;
	return true;
}

static bool something_failed(const struct actor *actors, unsigned int nr_actors,
			     const struct consumer *consumers,
			     unsigned int nr_consumers)
{
	for (unsigned int i = 0; i < nr_actors; i++)
		if (actors[i].progress->failed)
			return true;
	for (unsigned int i = 0; i < nr_consumers; i++)
		if (consumers[i].error)
			return true;
	return false;
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double race_seconds(void)
{
	const char *text = getenv("DIRTYTRACK_RACE_SECONDS");
	char *end;
	double seconds;

	if (!text)
		return 1;
	seconds = strtod(text, &end);
	if (*end || !(seconds > 0 && seconds <= 3600))
		dt_broken("DIRTYTRACK_RACE_SECONDS=%s: not a number of seconds", text);
	return seconds;
}

TEST_F_TIMEOUT(races, nothing_is_lost, 15000)
{
	double seconds = race_seconds(), start, limit;
	__u64 writes = 0, storms = 0;
	int status;

	/* Processes first: a fork should not copy a thread's half-done work. */
	for (int threads = 0; threads < 2; threads++)
		for (unsigned int i = 0; i < self->nr_actors; i++)
			if (self->actors[i].spec.process == !threads)
				start_actor(_metadata, &self->actors[i]);
	atomic_store(&self->arena->go, true);

	for (unsigned int i = 0; i < self->nr_consumers; i++) {
		struct consumer *c = &self->consumers[i];

		c->log = c->spec.part == PART_HIGH ? self->consumers[i - 1].log :
			 test_log_create(self->slot, c->spec.flags);
	}
	for (unsigned int i = 0; i < self->nr_consumers; i++) {
		struct consumer *c = &self->consumers[i];

		ASSERT_EQ(0, pthread_create(&c->thread, NULL, consumer_thread, c));
	}

	start = now();
	limit = (4 * seconds + 60) * test_slowness();
	while (now() - start < seconds ||
	       (now() - start < limit &&
		!worked_enough(self->actors, self->nr_actors, self->consumers,
			       self->nr_consumers))) {
		if (something_failed(self->actors, self->nr_actors,
				     self->consumers, self->nr_consumers))
			break;
		usleep(20000);
	}

	atomic_store(&self->arena->stop, true);
	for (unsigned int i = 0; i < self->nr_actors; i++) {
		struct actor *a = &self->actors[i];

		if (a->spec.process) {
			ASSERT_EQ(a->pid, waitpid(a->pid, &status, 0));
			EXPECT_EQ(0, status) {
				TH_LOG("the process of actor %u failed", i);
			}
		} else {
			pthread_join(a->thread, NULL);
		}
		EXPECT_EQ(0, a->progress->failed);
		writes += a->progress->writes;
		storms += a->progress->storms;
		EXPECT_LE(floor_writes(a), a->progress->writes) {
			TH_LOG("actor %u wrote too little to prove anything", i);
		}
		if (has_storm(a))
			EXPECT_LE(FLOOR_STORMS, a->progress->storms);
	}
	atomic_store(&self->consumers_stop, true);

	for (unsigned int i = 0; i < self->nr_consumers; i++) {
		struct consumer *c = &self->consumers[i];

		pthread_join(c->thread, NULL);
		fprintf(stderr, "# writes %llu, storms %llu; log %u: harvests %llu, pages reported %llu, lost %llu, over-reported %llu\n",
			writes, storms, i, (unsigned long long)c->rounds,
			c->reported, c->lost + c->differ, c->again);
		EXPECT_EQ(0, c->error);
		EXPECT_LE(FLOOR_ROUNDS, c->rounds) {
			TH_LOG("log %u: too few harvests to prove anything", i);
		}
		EXPECT_LT(0, c->reported);
		EXPECT_EQ(0, c->lost) {
			TH_LOG("log %u: writes that a harvest should have reported", i);
		}
		EXPECT_EQ(0, c->differ) {
			TH_LOG("log %u: pages that differ at the end", i);
		}
		EXPECT_EQ(0, c->impossible) {
			TH_LOG("log %u: content that nobody wrote", i);
		}
		EXPECT_EQ(0, c->unpeeked) {
			TH_LOG("log %u: pages that a peek had and the harvest had not", i);
		}
		EXPECT_EQ(0, c->tail) {
			TH_LOG("log %u: pages reported when all was quiet", i);
		}
		/* A page again without a write costs a copy: one in 20 at most. */
		if (!variant->zaps)
			EXPECT_LE(c->again * 20, c->reported) {
				TH_LOG("log %u: over-reporting", i);
			}
	}
	for (unsigned int i = 0; i < self->nr_consumers; i++)
		if (self->consumers[i].spec.part != PART_HIGH)
			close(self->consumers[i].log);
}

TEST_HARNESS_MAIN
