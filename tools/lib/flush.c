// SPDX-License-Identifier: MIT
/*
 * Pages that are dirty in either of two bitmaps, restored by several threads.
 *
 * A checkpoint is kept in a cache.  What changed since, in the cache by the next epoch
 * or in the memory by a guest that runs on it, is in a bitmap each; restoring both makes
 * the memory what the cache is.
 *
 * Who has nothing to do searches: under the lock he goes on in the bitmaps where the
 * last one stopped, until he has a part of PART_PAGES pages or a little more, and
 * restores it without the lock.  Parts end at the end of a word, so nobody else has a
 * word that he clears bits of, and those who search only look behind all parts.
 *
 *	bitmaps    0110 0000 1000 | 1111 | 0000 0001 ...
 *	           part 1           part 2   ^ next: the one who has the lock
 *	           (thread 1)       (thread 2)
 *
 * Splitting the addresses beforehand, one range a thread, would need no lock, and leave
 * all the work to one thread when the dirty pages are close together.  A part takes
 * some 20 us to copy and less than 1 us to find, so the lock is seldom waited for; in
 * bitmaps where a part is far to find, searching is most of the work, and it is
 * limited by how fast memory is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "dirtytrack.h"

/*
 * Enough to be worth a lock, little enough that at the end nobody waits long for the
 * others.
 */
#define PART_PAGES 64

#define FLAGS (DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_HOLES | DTRACK_FLUSH_PUNCH | \
	       DTRACK_FLUSH_SKIP_EQUAL | DTRACK_FLUSH_CHECKSUM)

static const char zero_page[DTRACK_PAGE_SIZE];

/**
 * struct flush - what the threads share
 * @arg: what is to be done
 * @a: bitmap to search
 * @b: the other one, or @a again
 * @words: of them
 * @last_mask: bits of the last word that are pages
 * @max_threads: how many there may be
 * @err: why to stop; written under @lock, looked at without
 * @lock: of the following
 * @next: first word that was not searched
 * @done: what was done in parts that are finished
 */
struct flush {
	const struct dtrack_flush *arg;
	const uint64_t *a;
	const uint64_t *b;
	uint64_t words;
	uint64_t last_mask;
	unsigned int max_threads;
	int err;
	pthread_mutex_t lock;
	uint64_t next;
	struct dtrack_flushed done;
};

enum state { DATA, ZERO, EQUAL };

/* Pages of a file that are all data or all hole. */
struct stretch {
	uint64_t first;
	uint64_t end;
	bool is_hole;
};

/**
 * struct worker - a thread
 * @flush: what all share
 * @done: what it did in its part; @next and @threads are not used
 * @from: of the cache's file, where it was last looked at
 * @to: of the destination's
 * @pending: pages in a row with which the same is to be done
 * @restored: end of what is restored of its part
 * @nr: words in its part
 * @index: which
 * @word: the bits that are set in either bitmap
 */
struct worker {
	struct flush *flush;
	struct dtrack_flushed done;
	struct stretch from;
	struct stretch to;
	struct {
		enum state state;
		uint64_t first;
		uint64_t npages;
		uint64_t checksum;
	} pending;
	uint64_t restored;
	unsigned int nr;
	uint64_t index[PART_PAGES];
	uint64_t word[PART_PAGES];
};

/* ---- searching ---- */

static uint64_t either(const struct flush *f, uint64_t i)
{
	uint64_t word = f->a[i] | f->b[i];

	return i == f->words - 1 ? word & f->last_mask : word;
}

static bool clear_by_four(const struct flush *f, uint64_t i)
{
	const uint64_t *a = f->a + i, *b = f->b + i;

	return !(a[0] | b[0] | a[1] | b[1] | a[2] | b[2] | a[3] | b[3]);
}

/* Under the lock: the next part.  It has a page a word at least, so its arrays do. */
static void search(struct flush *f, struct worker *w)
{
	uint64_t i = f->next, pages = 0;

	w->nr = 0;
	while (pages < PART_PAGES) {
		while (i + 4 < f->words && clear_by_four(f, i))
			i += 4;
		while (i < f->words && !either(f, i))
			i++;
		if (i >= f->words)
			break;
		w->index[w->nr] = i;
		w->word[w->nr] = either(f, i++);
		pages += __builtin_popcountll(w->word[w->nr++]);
	}
	f->next = i;
}

/* ---- what a page is ---- */

static bool is_zero(const char *page)
{
	return !memcmp(page, zero_page, DTRACK_PAGE_SIZE);
}

static int find_stretch(int fd, uint64_t page, uint64_t npages, struct stretch *s)
{
	off_t pos = page * DTRACK_PAGE_SIZE, data, hole;

	data = lseek(fd, pos, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		return -errno;
	s->first = page;
	s->is_hole = true;
	s->end = npages;
	if (data < 0)
		return 0;
	/* On other files than slots, data may begin and end in the middle of a page. */
	s->end = data / DTRACK_PAGE_SIZE;
	if (s->end > page)
		return 0;
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	s->is_hole = false;
	s->end = (hole - 1) / DTRACK_PAGE_SIZE + 1;
	return 0;
}

/* Asks the file once for each stretch, not for each page.  1, 0 or -errno. */
static int is_hole(int fd, uint64_t page, uint64_t npages, struct stretch *s)
{
	int ret = 0;

	if (page < s->first || page >= s->end)
		ret = find_stretch(fd, page, npages, s);
	return ret ? ret : s->is_hole;
}

/* Is a page already what it is to become: @zero, or as @from? */
static int is_equal(struct worker *w, uint64_t page, const char *from, bool zero)
{
	const struct dtrack_flush *arg = w->flush->arg;

	/* What is to become a hole is not read, either. */
	if (zero && arg->flags & DTRACK_FLUSH_PUNCH)
		return is_hole(arg->to_fd, page, arg->npages, &w->to);
	return !memcmp((const char *)arg->to + page * DTRACK_PAGE_SIZE, from,
		       DTRACK_PAGE_SIZE);
}

/* What is to be done with a page, and its checksum; or -errno. */
static int state_of(struct worker *w, uint64_t page, uint64_t *checksum)
{
	const struct dtrack_flush *arg = w->flush->arg;
	const char *from = (const char *)arg->from + page * DTRACK_PAGE_SIZE;
	bool zero = false;
	int ret;

	if (arg->flags & DTRACK_FLUSH_HOLES) {
		ret = is_hole(arg->from_fd, page, arg->npages, &w->from);
		if (ret < 0)
			return ret;
		zero = ret;
	}
	/* A hole is not read: that would give it memory. */
	if (zero)
		from = zero_page;
	else if (arg->flags & DTRACK_FLUSH_ZEROES)
		zero = is_zero(from);
	*checksum = 0;
	if (arg->flags & DTRACK_FLUSH_CHECKSUM)
		*checksum = dtrack_checksum(from, page, 1);
	if (arg->flags & DTRACK_FLUSH_SKIP_EQUAL) {
		ret = is_equal(w, page, from, zero);
		if (ret)
			return ret < 0 ? ret : (int)EQUAL;
	}
	return zero ? ZERO : DATA;
}

/* ---- restoring ---- */

static int punch(int fd, uint64_t first, uint64_t npages)
{
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 first * DTRACK_PAGE_SIZE, npages * DTRACK_PAGE_SIZE) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int copy(const struct dtrack_flush *arg, uint64_t first, uint64_t npages)
{
	uint64_t offset = first * DTRACK_PAGE_SIZE;

	if (arg->copy)
		return arg->copy(arg->opaque, first, npages);
	memcpy((char *)arg->to + offset, (const char *)arg->from + offset,
	       npages * DTRACK_PAGE_SIZE);
	return 0;
}

static int zero(const struct dtrack_flush *arg, uint64_t first, uint64_t npages)
{
	if (arg->zero)
		return arg->zero(arg->opaque, first, npages);
	if (arg->flags & DTRACK_FLUSH_PUNCH)
		return punch(arg->to_fd, first, npages);
	memset((char *)arg->to + first * DTRACK_PAGE_SIZE, 0, npages * DTRACK_PAGE_SIZE);
	return 0;
}

/* What is pending. */
static int restore(struct worker *w)
{
	const struct dtrack_flush *arg = w->flush->arg;
	const uint64_t first = w->pending.first, npages = w->pending.npages;
	int ret;

	if (!npages)
		return 0;
	ret = __atomic_load_n(&w->flush->err, __ATOMIC_RELAXED);
	if (!ret && w->pending.state == DATA)
		ret = copy(arg, first, npages);
	else if (!ret && w->pending.state == ZERO)
		ret = zero(arg, first, npages);
	if (ret)
		return ret;
	*(w->pending.state == DATA ? &w->done.copied :
	  w->pending.state == ZERO ? &w->done.zeroed : &w->done.equal) += npages;
	w->done.checksum += w->pending.checksum;
	w->pending.npages = 0;
	w->restored = first + npages;
	return 0;
}

/* With pages that follow those that are pending, or after those. */
static int add(struct worker *w, enum state state, uint64_t first, uint64_t npages,
	       uint64_t checksum)
{
	int ret;

	if (w->pending.npages && (w->pending.state != state ||
				  w->pending.first + w->pending.npages != first)) {
		ret = restore(w);
		if (ret)
			return ret;
	}
	if (!w->pending.npages) {
		w->pending.state = state;
		w->pending.first = first;
		w->pending.checksum = 0;
	}
	w->pending.npages += npages;
	w->pending.checksum += checksum;
	return 0;
}

static int add_run(struct worker *w, uint64_t first, uint64_t npages)
{
	uint64_t page, checksum = 0;
	int ret;

	if (!(w->flush->arg->flags & ~DTRACK_FLUSH_PUNCH))
		return add(w, DATA, first, npages, 0);
	for (page = first; page < first + npages; page++) {
		ret = state_of(w, page, &checksum);
		if (ret >= 0)
			ret = add(w, ret, page, 1, checksum);
		if (ret)
			return ret;
	}
	return 0;
}

/* Runs that go on in the next word are one. */
static int restore_words(struct worker *w)
{
	unsigned int i, first;
	uint64_t bits, end;
	int ret;

	for (i = 0; i < w->nr; i++)
		for (bits = w->word[i]; bits; bits &= end) {
			first = __builtin_ctzll(bits);
			/* The carry goes through the lowest run; 0 at the end of the word. */
			end = bits + (bits & -bits);
			ret = add_run(w, w->index[i] * 64 + first,
				      (end ? __builtin_ctzll(end) : 64) - first);
			if (ret)
				return ret;
		}
	return restore(w);
}

/* What is restored of its part is clean in both bitmaps. */
static void clear(struct worker *w)
{
	uint64_t *const *bitmaps = w->flush->arg->bitmaps;
	uint64_t mask, first;
	unsigned int i, b;

	/*
	 * In this order also for who finds the bitmaps in shared memory after this process
	 * was killed.
	 */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (i = 0; i < w->nr; i++) {
		first = w->index[i] * 64;
		if (first >= w->restored)
			break;
		mask = w->restored - first < 64 ? ~(~UINT64_C(0) << (w->restored - first)) :
		       ~UINT64_C(0);
		for (b = 0; b < 2; b++)
			if (bitmaps[b])
				bitmaps[b][w->index[i]] &= ~(w->word[i] & mask);
	}
}

static int restore_part(struct worker *w)
{
	int ret;

	w->pending.npages = 0;
	w->restored = 0;
	ret = restore_words(w);
	clear(w);
	return ret;
}

/* ---- threads ---- */

/* Hands in the last part, with how it ended, and gets the next; false when there is none. */
static bool next_part(struct worker *w, int err, struct dtrack_flushed *sofar)
{
	struct flush *f = w->flush;

	pthread_mutex_lock(&f->lock);
	f->done.copied += w->done.copied;
	f->done.zeroed += w->done.zeroed;
	f->done.equal += w->done.equal;
	f->done.checksum += w->done.checksum;
	/* The first that failed says why. */
	if (!f->err)
		__atomic_store_n(&f->err, err, __ATOMIC_RELAXED);
	w->nr = 0;
	if (!f->err)
		search(f, w);
	f->done.next = f->next < f->words ? f->next * 64 : f->arg->npages;
	*sofar = f->done;
	pthread_mutex_unlock(&f->lock);
	memset(&w->done, 0, sizeof(w->done));
	return w->nr;
}

static void *work(void *arg);

/* A thread that takes no signals, but for those of its own faults. */
static int start(struct flush *f, pthread_t *thread)
{
	static const int faults[] = { SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP };
	sigset_t mask, old;
	unsigned int i;
	int ret;

	sigfillset(&mask);
	for (i = 0; i < sizeof(faults) / sizeof(*faults); i++)
		sigdelset(&mask, faults[i]);
	pthread_sigmask(SIG_BLOCK, &mask, &old);
	ret = pthread_create(thread, NULL, work, f);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/*
 * Each thread that found something to do starts the next one, so a flush of little is
 * done with few, and many are started side by side.  Where there can be no more threads,
 * those that there are do it.
 */
static bool start_another(struct flush *f, pthread_t *thread)
{
	bool started;

	pthread_mutex_lock(&f->lock);
	started = f->done.threads < f->max_threads && f->next < f->words;
	f->done.threads += started;
	pthread_mutex_unlock(&f->lock);
	if (!started || !start(f, thread))
		return started;
	pthread_mutex_lock(&f->lock);
	f->max_threads = --f->done.threads;
	pthread_mutex_unlock(&f->lock);
	return false;
}

static void run(struct flush *f, bool is_caller)
{
	struct worker w = { .flush = f };
	struct dtrack_flushed sofar;
	bool started = false, first = true;
	pthread_t thread;
	int ret = 0;

	while (next_part(&w, ret, &sofar)) {
		if (first)
			started = start_another(f, &thread);
		else if (is_caller && f->arg->progress)
			ret = f->arg->progress(f->arg->opaque, &sofar);
		first = false;
		if (!ret)
			ret = restore_part(&w);
	}
	if (started)
		pthread_join(thread, NULL);
}

static void *work(void *arg)
{
	run(arg, false);
	return NULL;
}

static unsigned int processors(void)
{
	cpu_set_t set;
	long n;

	if (!sched_getaffinity(0, sizeof(set), &set))
		return CPU_COUNT(&set);
	/* More than the set has room for. */
	n = sysconf(_SC_NPROCESSORS_ONLN);
	return n > 0 ? n : 1;
}

static bool is_valid(const struct dtrack_flush *arg)
{
	const uint32_t flags = arg->flags;
	const bool finds_zeroes = flags & (DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_HOLES);
	const bool reads = !arg->copy || flags & (DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_SKIP_EQUAL |
						  DTRACK_FLUSH_CHECKSUM);
	const bool writes = !arg->copy || flags & DTRACK_FLUSH_SKIP_EQUAL ||
			    (finds_zeroes && !arg->zero && !(flags & DTRACK_FLUSH_PUNCH));

	return !(flags & ~FLAGS) && arg->npages <= INT64_MAX / DTRACK_PAGE_SIZE &&
	       (arg->from || !reads) && (arg->to || !writes) &&
	       !(arg->zero && flags & DTRACK_FLUSH_PUNCH) &&
	       (finds_zeroes || !(arg->zero || flags & DTRACK_FLUSH_PUNCH));
}

/**
 * dtrack_flush - restore the pages that are dirty in either of two bitmaps
 * @arg: what is to be done
 * @out: what was done, also when it failed
 *
 * On return all threads have ended and the bits of all pages that were restored are
 * clear, in both bitmaps; when it failed or was cancelled, those that were not
 * restored are as they were, so that another call does the rest.  A bit is cleared after
 * its page was restored: a bitmap in shared memory says the same when the process was
 * killed.
 *
 * Return: 0; -EINVAL; what a callback returned; -errno of lseek(2) on either
 * file or of fallocate(2) on @to_fd.
 */
int dtrack_flush(const struct dtrack_flush *arg, struct dtrack_flushed *out)
{
	struct flush f = {
		.arg = arg,
		.a = arg->bitmaps[0] ? arg->bitmaps[0] : arg->bitmaps[1],
		.b = arg->bitmaps[1] ? arg->bitmaps[1] : arg->bitmaps[0],
		.words = dtrack_bitmap_words(arg->npages),
		.last_mask = ~UINT64_C(0) >> (-arg->npages % 64),
		.max_threads = arg->threads ? arg->threads : processors(),
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.done.threads = 1,
	};

	memset(out, 0, sizeof(*out));
	if (!is_valid(arg))
		return -EINVAL;
	if (!f.a)
		f.words = 0;
	run(&f, true);
	pthread_mutex_destroy(&f.lock);
	*out = f.done;
	return f.err;
}
