// SPDX-License-Identifier: GPL-2.0-only
/*
 * Flushes by one to eight threads against a plain loop over pages, for bitmaps of odd
 * sizes, with runs at the edges of words, scattered, clustered, empty and full.
 *
 * Memory, bitmaps and figures must be those of the loop.  What a flush that failed, was
 * cancelled or killed has not restored must still be dirty.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "tap.h"

#define MAX_PAGES 1500
#define MAX_WORDS (MAX_PAGES / 64 + 1)
#define PAGE DTRACK_PAGE_SIZE
#define MAX_THREADS 8
#define NR_PATTERNS 12

/* Sizes whose last word is empty but for a bit, full, or lacks one. */
static const uint64_t sizes[] = { 1, 63, 64, 65, 127, 128, 129, 640, 1023, 1025, MAX_PAGES };

#define NR_SIZES (sizeof(sizes) / sizeof(*sizes))

static uint64_t npages, words;
static int from_fd, to_fd;
static unsigned char *from, *to, *want;
/* The second half is the loop's. */
static uint64_t *bitmaps[4];
static uint64_t seed = 1;

static uint64_t random_u64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Shared with children, as a cache would be. */
static void *map_shared(int fd, size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	if (p == MAP_FAILED)
		abort();
	return p;
}

static void set_up(void)
{
	int i;

	from_fd = memfd_create("from", MFD_CLOEXEC);
	to_fd = memfd_create("to", MFD_CLOEXEC);
	if (ftruncate(from_fd, MAX_PAGES * PAGE) || ftruncate(to_fd, MAX_PAGES * PAGE))
		abort();
	from = map_shared(from_fd, MAX_PAGES * PAGE);
	to = map_shared(to_fd, MAX_PAGES * PAGE);
	want = map_shared(-1, MAX_PAGES * PAGE);
	for (i = 0; i < 4; i++)
		bitmaps[i] = map_shared(-1, MAX_WORDS * sizeof(uint64_t));
}

static bool has_memory(int fd, uint64_t page)
{
	return lseek(fd, page * PAGE, SEEK_DATA) == (off_t)(page * PAGE);
}

static void fill(uint64_t *bitmap, unsigned int pattern)
{
	uint64_t i;

	for (i = 0; i < words; i++)
		switch (pattern) {
		case 0:		/* empty */
			bitmap[i] = 0;
			break;
		case 1:		/* full */
			bitmap[i] = ~UINT64_C(0);
			break;
		case 2:		/* edges of words */
			bitmap[i] = UINT64_C(1) << 63 | 1;
			break;
		case 3:		/* full words and empty ones */
			bitmap[i] = i & 1 ? ~UINT64_C(0) : 0;
			break;
		case 4:		/* one cluster that begins and ends inside words */
			bitmap[i] = 0;
			if (i >= words / 3 && i <= words / 2)
				bitmap[i] = i == words / 3 ? ~UINT64_C(0) << 7 :
					    i == words / 2 ? 0x1fff : ~UINT64_C(0);
			break;
		case 5:		/* a single page, the last */
			bitmap[i] = i == words - 1 ? UINT64_C(1) << (npages - 1) % 64 : 0;
			break;
		case 6:		/* one in 64 */
			bitmap[i] = UINT64_C(1) << random_u64() % 64;
			break;
		case 7:		/* mostly clean */
			bitmap[i] = random_u64() % 16 ? 0 : random_u64() & random_u64();
			break;
		default:
			bitmap[i] = random_u64() & (pattern % 2 ? random_u64() : ~UINT64_C(0));
		}
}

/*
 * Every page of @from and of @to with content of its own; some of @from are holes, zero, or
 * as in @to, and some of @to are zero.
 */
static void fill_memory(void)
{
	uint64_t page;

	if (fallocate(from_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, MAX_PAGES * PAGE))
		abort();
	for (page = 0; page < npages; page++) {
		uint64_t kind = random_u64() % 8;
		unsigned char *f = from + page * PAGE, *t = to + page * PAGE;

		memset(t, 0, PAGE);
		if (kind != 7)
			memset(t, 128 + page % 64, PAGE);
		if (kind == 1 || kind == 7)
			memset(f, 0, PAGE);
		else if (kind == 2)
			memcpy(f, t, PAGE);
		else if (kind == 3)	/* zero but for its end */
			f[PAGE - 1] = 1;
		else if (kind == 4) {	/* equal but for its end */
			memcpy(f, t, PAGE);
			f[PAGE - 1] ^= 1;
		}
		else if (kind)
			memset(f, 1 + page % 100, PAGE);
		/* kind 0: a hole */
	}
}

static bool is_zero(const unsigned char *page)
{
	static const unsigned char zeros[PAGE];

	return !memcmp(page, zeros, PAGE);
}

/*
 * What is to be, page by page; holes of @from are found before they are read.  @to has none.
 */
static void loop(const struct dtrack_flush *arg, struct dtrack_flushed *out)
{
	uint64_t page;
	int i;

	memset(out, 0, sizeof(*out));
	memcpy(want, to, npages * PAGE);
	out->next = npages;
	for (i = 0; i < 2; i++)
		memcpy(bitmaps[2 + i], bitmaps[i], words * 8);
	for (page = 0; page < npages; page++) {
		unsigned char *f = from + page * PAGE, *t = want + page * PAGE;
		bool zero = false;

		if (!(arg->bitmaps[0] && dtrack_bitmap_test(bitmaps[0], page)) &&
		    !(arg->bitmaps[1] && dtrack_bitmap_test(bitmaps[1], page)))
			continue;
		for (i = 0; i < 2; i++)
			if (arg->bitmaps[i])
				dtrack_bitmap_clear(bitmaps[2 + i], page, 1);
		if (arg->flags & DTRACK_FLUSH_HOLES)
			zero = !has_memory(from_fd, page);
		if (arg->flags & DTRACK_FLUSH_ZEROES && !zero)
			zero = has_memory(from_fd, page) ? is_zero(f) : true;
		if (arg->flags & DTRACK_FLUSH_SKIP_EQUAL &&
		    !(zero && arg->flags & DTRACK_FLUSH_PUNCH) &&
		    (has_memory(from_fd, page) ? !memcmp(f, t, PAGE) : is_zero(t)))
			out->equal++;
		else if (zero)
			out->zeroed++;
		else
			out->copied++;
		if (has_memory(from_fd, page))
			memcpy(t, f, PAGE);
		else
			memset(t, 0, PAGE);
		if (arg->flags & DTRACK_FLUSH_CHECKSUM)
			out->checksum += dtrack_checksum(t, page, 1);
	}
}

static bool same_bitmaps(void)
{
	return !memcmp(bitmaps[0], bitmaps[2], words * 8) &&
	       !memcmp(bitmaps[1], bitmaps[3], words * 8);
}

static struct dtrack_flush plain(uint32_t threads)
{
	return (struct dtrack_flush) {
		.from = from,
		.to = to,
		.npages = npages,
		.bitmaps = { bitmaps[0], bitmaps[1] },
		.threads = threads,
		.from_fd = from_fd,
		.to_fd = to_fd,
	};
}

static void prepare(uint64_t size, unsigned int first, unsigned int second)
{
	npages = size;
	words = dtrack_bitmap_words(size);
	fill_memory();
	fill(bitmaps[0], first);
	fill(bitmaps[1], second);
}

/* Does what it is told, as the loop does. */
static void check_flush(const struct dtrack_flush *arg)
{
	struct dtrack_flushed expected, got;

	loop(arg, &expected);
	CHECK_EQ(dtrack_flush(arg, &got), 0);
	CHECK(same_bitmaps());
	CHECK_EQ(got.next, expected.next);
	CHECK_EQ(got.copied, expected.copied);
	CHECK_EQ(got.zeroed, expected.zeroed);
	CHECK_EQ(got.equal, expected.equal);
	CHECK_EQ(got.checksum, expected.checksum);
	CHECK(got.threads >= 1 && got.threads <= MAX_THREADS);
	CHECK(!memcmp(to, want, npages * PAGE));
}

static void every_size_and_pattern(void)
{
	unsigned int i, pattern;

	for (i = 0; i < NR_SIZES; i++)
		for (pattern = 0; pattern < NR_PATTERNS; pattern++) {
			struct dtrack_flush arg;

			prepare(sizes[i], pattern, random_u64() % NR_PATTERNS);
			arg = plain(1 + random_u64() % MAX_THREADS);
			check_flush(&arg);
		}
}

static void every_number_of_threads(void)
{
	unsigned int threads, pattern;

	for (threads = 0; threads <= MAX_THREADS; threads++)
		for (pattern = 0; pattern < NR_PATTERNS; pattern++) {
			struct dtrack_flush arg;

			prepare(MAX_PAGES, pattern, 0);
			arg = plain(threads);
			check_flush(&arg);
		}
}

/* All combinations; a punched page has no memory. */
static void every_flag(void)
{
	uint32_t flags;
	uint64_t page;

	for (flags = 0; flags < 32; flags++) {
		struct dtrack_flush arg;

		if (flags & DTRACK_FLUSH_PUNCH &&
		    !(flags & (DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_HOLES)))
			continue;
		prepare(MAX_PAGES, 1, 6);
		arg = plain(1 + flags % 4);
		arg.flags = flags;
		/* The loop is done first, and reads no holes either. */
		check_flush(&arg);
		if (!(flags & DTRACK_FLUSH_HOLES))
			continue;
		prepare(MAX_PAGES, 1, 6);
		CHECK_EQ(dtrack_flush(&arg, &(struct dtrack_flushed) { 0 }), 0);
		/* check_flush() has looked into @to: here nobody has. */
		for (page = 0; page < npages; page++)
			if (!has_memory(from_fd, page))
				CHECK_EQ(has_memory(to_fd, page),
					 !(flags & DTRACK_FLUSH_PUNCH));
	}
}

/* Holes in the middle of a flush that are of several pages, and at the end of the file. */
static void holes_are_not_read(void)
{
	struct dtrack_flush arg;
	struct dtrack_flushed done;
	uint64_t page;

	prepare(1000, 1, 0);
	if (ftruncate(from_fd, 0) || ftruncate(from_fd, MAX_PAGES * PAGE))
		abort();
	memset(from + 300 * PAGE, 1, 200 * PAGE);
	arg = plain(4);
	arg.flags = DTRACK_FLUSH_HOLES | DTRACK_FLUSH_PUNCH | DTRACK_FLUSH_CHECKSUM;
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.copied, 200);
	CHECK_EQ(done.zeroed, 800);
	for (page = 0; page < npages; page++) {
		bool data = page >= 300 && page < 500;

		CHECK_EQ(has_memory(from_fd, page), data);
		CHECK_EQ(has_memory(to_fd, page), data);
	}
	CHECK_EQ(done.checksum, dtrack_checksum(to, 0, npages));
}

/* Holes where holes are to be are equal, and what is equal is not written. */
static void a_second_flush_writes_nothing(void)
{
	struct dtrack_flush arg;
	struct dtrack_flushed done;
	uint64_t page, data = 0;

	prepare(1025, 1, 0);
	arg = plain(4);
	arg.flags = DTRACK_FLUSH_HOLES | DTRACK_FLUSH_PUNCH | DTRACK_FLUSH_SKIP_EQUAL;
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	fill(bitmaps[0], 1);
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.equal, npages);
	CHECK_EQ(done.copied + done.zeroed, 0);
	/* Every seventh page comes to have memory, or loses it. */
	for (page = 0; page < npages; page += 7) {
		if (has_memory(from_fd, page)) {
			CHECK_EQ(fallocate(to_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					   page * PAGE, PAGE), 0);
			/* A page of zeros may stay one. */
			data += !is_zero(from + page * PAGE);
		} else {
			to[page * PAGE] = 0;
		}
	}
	fill(bitmaps[1], 1);
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.copied, data);
	CHECK(done.zeroed);
	CHECK_EQ(done.copied + done.zeroed + done.equal, npages);
	for (page = 0; page < npages; page++) {
		CHECK_EQ(has_memory(from_fd, page), has_memory(to_fd, page));
		if (has_memory(from_fd, page))
			CHECK(!memcmp(from + page * PAGE, to + page * PAGE, PAGE));
	}
}

/* In a bitmap that is clear otherwise, which is searched faster. */
static void every_single_page(void)
{
	struct dtrack_flushed done;
	struct dtrack_flush arg;
	uint64_t page;

	prepare(MAX_PAGES, 0, 0);
	arg = plain(2);
	for (page = 0; page < npages; page++) {
		memset(from + page * PAGE, 1 + page % 255, PAGE);
		dtrack_bitmap_set(bitmaps[page & 1], page, 1);
		CHECK_EQ(dtrack_flush(&arg, &done), 0);
		CHECK_EQ(done.copied, 1);
		CHECK(!memcmp(from + page * PAGE, to + page * PAGE, PAGE));
	}
	CHECK_EQ(dtrack_bitmap_count(bitmaps[0], 0, npages), 0);
	CHECK_EQ(dtrack_bitmap_count(bitmaps[1], 0, npages), 0);
}

static void one_bitmap_or_none(void)
{
	unsigned int which;

	for (which = 0; which < 4; which++) {
		struct dtrack_flush arg;

		prepare(MAX_PAGES, 6, 6);
		arg = plain(3);
		if (!(which & 1))
			arg.bitmaps[0] = NULL;
		if (!(which & 2))
			arg.bitmaps[1] = NULL;
		check_flush(&arg);
	}
	/* Twice the same. */
	prepare(MAX_PAGES, 8, 0);
	{
		struct dtrack_flush arg = plain(3);

		fill(bitmaps[1], 0);
		arg.bitmaps[1] = arg.bitmaps[0];
		CHECK_EQ(dtrack_flush(&arg, &(struct dtrack_flushed) { 0 }), 0);
		CHECK_EQ(dtrack_bitmap_count(bitmaps[0], 0, npages), 0);
	}
}

/* No page, and bits beyond the last page. */
static void ends_at_the_last_page(void)
{
	struct dtrack_flushed done;
	struct dtrack_flush arg;
	uint64_t *exact;

	prepare(65, 1, 1);
	arg = plain(2);
	exact = dtrack_bitmap_alloc(65);	/* for the sanitizer */
	exact[0] = exact[1] = ~UINT64_C(0);
	arg.bitmaps[0] = exact;
	arg.bitmaps[1] = NULL;
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.copied, 65);
	CHECK_EQ(exact[0], 0);
	CHECK_EQ(exact[1], ~UINT64_C(1));
	free(exact);

	arg.npages = 0;
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.next, 0);
	CHECK_EQ(done.copied, 0);
}

/* ---- callbacks ---- */

/**
 * struct seen - what callbacks see, and what they are to do
 * @copied: how often each page came
 * @zeroed: likewise
 * @calls: of the two
 * @fail_at: the call that fails
 * @hang_at: the call that does not return, nor those after it
 * @meet: each call waits for as many
 * @cancel_at: the call of the third callback that cancels
 * @cancelled: it did
 * @caller: who called dtrack_flush(); if others are to wait for the cancellation
 * @others_wait: they are
 * @in_other_thread: the third callback was called elsewhere
 */
static struct seen {
	unsigned char copied[MAX_PAGES];
	unsigned char zeroed[MAX_PAGES];
	uint64_t calls;
	uint64_t fail_at;
	uint64_t hang_at;
	uint64_t meet;
	uint64_t cancel_at;
	bool cancelled;
	pthread_t caller;
	bool others_wait;
	bool in_other_thread;
} seen;

static void see_nothing(void)
{
	seen = (struct seen) { .caller = pthread_self() };
}

static bool is_caller(void)
{
	return pthread_equal(pthread_self(), seen.caller);
}

static void pause_us(uint64_t us)
{
	nanosleep(&(struct timespec) { .tv_nsec = us * 1000 }, NULL);
}

/* Ten seconds at most; who does not come then will not come later. */
static void meet(void)
{
	unsigned int i;

	for (i = 0; __atomic_load_n(&seen.calls, __ATOMIC_RELAXED) <
		    __atomic_load_n(&seen.meet, __ATOMIC_RELAXED); i++) {
		if (i == 10000)
			__atomic_store_n(&seen.meet, 0, __ATOMIC_RELAXED);
		pause_us(1000);
	}
}

static int see(unsigned char *pages, uint64_t first, uint64_t n)
{
	uint64_t call = __atomic_add_fetch(&seen.calls, 1, __ATOMIC_RELAXED);

	while (seen.hang_at && call >= seen.hang_at)
		pause();
	meet();
	while (seen.others_wait && !is_caller() &&
	       !__atomic_load_n(&seen.cancelled, __ATOMIC_RELAXED))
		pause_us(1000);
	if (call == seen.fail_at)
		return -EIO;
	while (n--)
		pages[first++]++;
	return 0;
}

static int see_copy(void *opaque, uint64_t first, uint64_t n)
{
	int ret = see(seen.copied, first, n);

	(void)opaque;
	if (!ret)
		memcpy(to + first * PAGE, from + first * PAGE, n * PAGE);
	return ret;
}

static int see_zero(void *opaque, uint64_t first, uint64_t n)
{
	int ret = see(seen.zeroed, first, n);

	(void)opaque;
	if (!ret)
		memset(to + first * PAGE, 0, n * PAGE);
	return ret;
}

/* Each page is given to one thread, once, and to the right one of the two. */
static void callbacks_get_each_page_once(void)
{
	unsigned int threads;
	uint64_t page;

	for (threads = 1; threads <= MAX_THREADS; threads++) {
		struct dtrack_flush arg;
		uint64_t *dirty;

		prepare(MAX_PAGES, 9, 6);
		see_nothing();
		dirty = dtrack_bitmap_alloc(npages);
		for (page = 0; page < words; page++)
			dirty[page] = bitmaps[0][page] | bitmaps[1][page];
		arg = plain(threads);
		arg.flags = DTRACK_FLUSH_ZEROES;
		arg.copy = see_copy;
		arg.zero = see_zero;
		check_flush(&arg);
		for (page = 0; page < npages; page++) {
			bool is_dirty = dtrack_bitmap_test(dirty, page);
			bool zero = is_zero(from + page * PAGE);

			CHECK_EQ(seen.copied[page], is_dirty && !zero);
			CHECK_EQ(seen.zeroed[page], is_dirty && zero);
		}
		free(dirty);
	}
}

/* A run is one call, across words, as far as a part goes. */
static void runs_are_one_call(void)
{
	struct dtrack_flush arg;

	prepare(MAX_PAGES, 0, 0);
	see_nothing();
	dtrack_bitmap_set(bitmaps[0], 60, 30);
	dtrack_bitmap_set(bitmaps[1], 90, 20);
	arg = plain(1);
	arg.copy = see_copy;
	check_flush(&arg);
	CHECK_EQ(seen.calls, 1);
}

/* Clear where restored, dirty elsewhere; then the rest. */
static void check_rest(struct dtrack_flush *arg, const struct dtrack_flushed *done)
{
	struct dtrack_flushed rest;
	uint64_t page, left = 0, sum = 0;

	for (page = 0; page < npages; page++) {
		bool dirty = dtrack_bitmap_test(bitmaps[0], page) ||
			     dtrack_bitmap_test(bitmaps[1], page);
		bool was = dtrack_bitmap_test(bitmaps[2], page) ||
			   dtrack_bitmap_test(bitmaps[3], page);

		CHECK(was || !dirty);
		/* Not one bit of the two, unless it was killed between them. */
		if (dirty && done)
			CHECK(dtrack_bitmap_test(bitmaps[0], page) ==
			      dtrack_bitmap_test(bitmaps[2], page) &&
			      dtrack_bitmap_test(bitmaps[1], page) ==
			      dtrack_bitmap_test(bitmaps[3], page));
		if (was && !dirty) {
			CHECK(!memcmp(to + page * PAGE, from + page * PAGE, PAGE));
			sum += dtrack_checksum(from + page * PAGE, page, 1);
		}
		left += dirty;
	}
	CHECK(left);
	if (done) {
		CHECK_EQ(done->copied + done->zeroed + done->equal + left,
			 dtrack_bitmap_count(bitmaps[2], 0, npages));
		CHECK_EQ(done->checksum, arg->flags & DTRACK_FLUSH_CHECKSUM ? sum : 0);
	}
	arg->copy = NULL;
	arg->zero = NULL;
	arg->progress = NULL;
	CHECK_EQ(dtrack_flush(arg, &rest), 0);
	CHECK_EQ(rest.copied + rest.zeroed + rest.equal, left);
	for (page = 0; page < npages; page++)
		if (dtrack_bitmap_test(bitmaps[2], page))
			CHECK(!memcmp(to + page * PAGE, from + page * PAGE, PAGE));
}

/* The second bitmap is part of the first, so that the first one's bits can be counted. */
static void prepare_to_fail(unsigned int pattern)
{
	uint64_t i;

	prepare(MAX_PAGES, pattern, 6);
	for (i = 0; i < words; i++) {
		bitmaps[1][i] &= bitmaps[0][i];
		bitmaps[2][i] = bitmaps[0][i];
		bitmaps[3][i] = bitmaps[1][i];
	}
}

static void failing_callback_loses_nothing(void)
{
	unsigned int threads, at;

	for (threads = 1; threads <= MAX_THREADS; threads++)
		for (at = 1; at < 20; at += 3) {
			struct dtrack_flushed done;
			struct dtrack_flush arg;

			prepare_to_fail(at % 2 ? 1 : 9);
			see_nothing();
			seen.fail_at = at;
			arg = plain(threads);
			arg.flags = DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_SKIP_EQUAL |
				    DTRACK_FLUSH_CHECKSUM;
			arg.copy = see_copy;
			arg.zero = see_zero;
			CHECK_EQ(dtrack_flush(&arg, &done), -EIO);
			check_rest(&arg, &done);
		}
}

/* Pages of which every second is zero come one by one. */
static void failure_at_every_page_of_a_word(void)
{
	unsigned int at, page;

	for (at = 0; at < 64; at++) {
		struct dtrack_flushed done;
		struct dtrack_flush arg;

		prepare(128, 1, 1);
		for (page = 0; page < 128; page++)
			memset(from + page * PAGE, page % 2, PAGE);
		see_nothing();
		seen.fail_at = 1 + at;
		arg = plain(1);
		arg.flags = DTRACK_FLUSH_ZEROES;
		arg.copy = see_copy;
		arg.zero = see_zero;
		CHECK_EQ(dtrack_flush(&arg, &done), -EIO);
		CHECK_EQ(done.copied + done.zeroed, at);
		for (page = 0; page < 2; page++) {
			CHECK_EQ(bitmaps[page][0], ~UINT64_C(0) << at);
			CHECK_EQ(bitmaps[page][1], ~UINT64_C(0));
		}
	}
}

/* In the middle of a part, which has 64 runs: not when they are done. */
static int fail_in_caller(void *opaque, uint64_t first, uint64_t n)
{
	(void)opaque;
	(void)first;
	(void)n;
	__atomic_add_fetch(&seen.calls, 1, __ATOMIC_RELAXED);
	meet();
	if (is_caller())
		return -EIO;
	pause_us(20000);
	return 0;
}

static void others_stop_soon(void)
{
	struct dtrack_flushed done;
	struct dtrack_flush arg;
	uint64_t page;

	prepare(MAX_PAGES, 0, 0);
	for (page = 0; page < npages; page += 2)
		dtrack_bitmap_set(bitmaps[0], page, 1);
	see_nothing();
	seen.meet = 2;
	arg = plain(2);
	arg.copy = fail_in_caller;
	CHECK_EQ(dtrack_flush(&arg, &done), -EIO);
	CHECK_EQ(done.threads, 2);
	CHECK(done.copied && done.copied < 64);
}

static int cancel(void *opaque, const struct dtrack_flushed *sofar)
{
	uint64_t *calls = opaque;

	seen.in_other_thread |= !is_caller();
	if (sofar->next > npages)
		return -ERANGE;
	if (++*calls < seen.cancel_at)
		return 0;
	__atomic_store_n(&seen.cancelled, true, __ATOMIC_RELAXED);
	return -ECANCELED;
}

/* After each of its parts, of which one thread has all. */
static void progress_is_told_to_the_caller(void)
{
	unsigned int threads;

	for (threads = 1; threads <= MAX_THREADS; threads++) {
		uint64_t calls = 0;
		struct dtrack_flush arg;

		prepare(MAX_PAGES, 1, 0);
		see_nothing();
		seen.cancel_at = UINT64_MAX;
		seen.meet = threads;
		arg = plain(threads);
		arg.copy = see_copy;
		arg.progress = cancel;
		arg.opaque = &calls;
		check_flush(&arg);
		CHECK(!seen.in_other_thread);
		CHECK(threads > 1 || calls == dtrack_bitmap_words(npages) - 1);
	}
}

static void cancelled_flush_loses_nothing(void)
{
	unsigned int threads, at;

	for (threads = 1; threads <= MAX_THREADS; threads++)
		for (at = 1; at <= 9; at += 4) {
			uint64_t calls = 0;
			struct dtrack_flushed done;
			struct dtrack_flush arg;

			prepare_to_fail(1);
			see_nothing();
			seen.cancel_at = at;
			seen.others_wait = true;
			arg = plain(threads);
			arg.flags = DTRACK_FLUSH_CHECKSUM;
			arg.copy = see_copy;
			arg.progress = cancel;
			arg.opaque = &calls;
			CHECK_EQ(dtrack_flush(&arg, &done), -ECANCELED);
			CHECK_EQ(calls, at);
			CHECK(!seen.in_other_thread);
			/* The caller's, and what the others had begun. */
			CHECK(done.copied >= 64 * at && done.copied < 64 * (at + threads));
			check_rest(&arg, &done);
		}
}

/* A hole that cannot be made: the fd is of another file, open for reading. */
static void failing_punch_loses_nothing(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct dtrack_flushed done;
	struct dtrack_flush arg;

	prepare_to_fail(1);
	arg = plain(2);
	arg.flags = DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_PUNCH;
	arg.to_fd = fd;
	CHECK_EQ(dtrack_flush(&arg, &done), -EBADF);
	arg.to_fd = to_fd;
	check_rest(&arg, &done);
	close(fd);
}

/*
 * The bitmaps in shared memory say what remains to be done: killed at some moment, or, to
 * be sure that some are killed in the middle, when the first pages are done and the others
 * never will be.
 */
static void killed_flush_loses_nothing(void)
{
	unsigned int in_the_middle = 0, i;

	for (i = 0; i < 60; i++) {
		uint64_t all, left;
		struct dtrack_flush arg;
		bool full = i % 4 < 2;
		int status;
		pid_t pid;

		prepare_to_fail(full ? 1 : 9);
		all = dtrack_bitmap_count(bitmaps[0], 0, npages);
		arg = plain(1 + i % 3);
		pid = fork();
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			see_nothing();
			/* More calls than three threads need for a part each. */
			if (i % 2)
				seen.hang_at = full ? 4 + i % 16 : 3 * 64 + i % 32;
			arg.copy = see_copy;
			dtrack_flush(&arg, &(struct dtrack_flushed) { 0 });
			/* Killed all the same. */
			for (;;)
				pause();
		}
		CHECK(pid > 0);
		if (i % 2)
			while (dtrack_bitmap_count(bitmaps[0], 0, npages) == all)
				pause_us(20);
		else
			pause_us(random_u64() % 2000);
		kill(pid, SIGKILL);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		left = dtrack_bitmap_count(bitmaps[0], 0, npages);
		if (!left)
			continue;
		in_the_middle += left != all;
		check_rest(&arg, NULL);
	}
	CHECK(in_the_middle >= 30);
}

/* Eight words, and nobody is done with one before all have one. */
static void cluster_is_for_all_threads(void)
{
	struct dtrack_flushed done;
	struct dtrack_flush arg;

	prepare(MAX_PAGES, 0, 0);
	dtrack_bitmap_set(bitmaps[0], 256, 8 * 64);
	see_nothing();
	seen.meet = 8;
	arg = plain(8);
	arg.copy = see_copy;
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.threads, 8);
	CHECK_EQ(seen.calls, 8);
}

static void little_is_done_by_one(void)
{
	struct dtrack_flushed done;
	struct dtrack_flush arg;

	prepare(MAX_PAGES, 5, 0);
	arg = plain(8);
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.copied, 1);
	CHECK_EQ(done.threads, 1);
}

static int check_mask(void *opaque, uint64_t first, uint64_t n)
{
	uint64_t *wrong = opaque;
	sigset_t mask;

	(void)first;
	(void)n;
	__atomic_add_fetch(&seen.calls, 1, __ATOMIC_RELAXED);
	meet();
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	if (sigismember(&mask, SIGTERM) == is_caller() || sigismember(&mask, SIGSEGV))
		__atomic_add_fetch(wrong, 1, __ATOMIC_RELAXED);
	return 0;
}

/* The caller does, then as before. */
static void threads_take_no_signals(void)
{
	uint64_t wrong = 0;
	struct dtrack_flush arg;
	sigset_t mask;

	prepare(256, 1, 0);
	see_nothing();
	seen.meet = 4;
	arg = plain(4);
	arg.copy = check_mask;
	arg.opaque = &wrong;
	CHECK_EQ(dtrack_flush(&arg, &(struct dtrack_flushed) { 0 }), 0);
	CHECK_EQ(seen.calls, 4);
	CHECK_EQ(wrong, 0);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	CHECK(!sigismember(&mask, SIGTERM));
}

static void nonsense_is_refused(void)
{
	struct dtrack_flushed done;
	struct dtrack_flush arg;

	prepare(64, 1, 0);
#define REFUSED(...)							\
	do {								\
		arg = plain(1);						\
		__VA_ARGS__;						\
		CHECK_EQ(dtrack_flush(&arg, &done), -EINVAL);		\
		CHECK_EQ(bitmaps[0][0], ~UINT64_C(0));			\
	} while (0)
	REFUSED(arg.flags = 32);
	REFUSED(arg.from = NULL);
	REFUSED(arg.to = NULL);
	REFUSED(arg.npages = UINT64_MAX / PAGE);
	REFUSED(arg.flags = DTRACK_FLUSH_PUNCH);
	REFUSED(arg.zero = see_zero);
	REFUSED(arg.zero = see_zero; arg.flags = DTRACK_FLUSH_ZEROES | DTRACK_FLUSH_PUNCH);
	REFUSED(arg.copy = see_copy; arg.from = NULL; arg.flags = DTRACK_FLUSH_CHECKSUM);
	REFUSED(arg.copy = see_copy; arg.to = NULL; arg.flags = DTRACK_FLUSH_ZEROES);
	REFUSED(arg.copy = see_copy; arg.to = NULL; arg.flags = DTRACK_FLUSH_SKIP_EQUAL);
#undef REFUSED
	/* With callbacks for all, nothing else is needed. */
	see_nothing();
	arg = plain(1);
	arg.from = NULL;
	arg.to = NULL;
	arg.copy = see_copy;
	CHECK_EQ(dtrack_flush(&arg, &done), 0);
	CHECK_EQ(done.copied, 64);
}

/* Of pages in another place, in another order, or with one bit changed. */
static void checksum_tells_pages_apart(void)
{
	uint64_t all, parts = 0;
	int i;

	prepare(100, 0, 0);
	for (i = 0; i < 100; i++)
		memset(from + i * PAGE, i, PAGE);
	all = dtrack_checksum(from, 0, 100);
	for (i = 99; i >= 0; i--)
		parts += dtrack_checksum(from + i * PAGE, i, 1);
	CHECK_EQ(parts, all);
	CHECK_EQ(dtrack_checksum(from, 0, 0), 0);
	CHECK(dtrack_checksum(from, 1, 100) != all);
	from[57 * PAGE + 4095] ^= 128;
	CHECK(dtrack_checksum(from, 0, 100) != all);
	from[57 * PAGE + 4095] ^= 128;
	memset(from + 3 * PAGE, 4, PAGE);
	memset(from + 4 * PAGE, 3, PAGE);
	CHECK(dtrack_checksum(from, 0, 100) != all);
	/* Two zero pages are not none. */
	memset(from, 0, 2 * PAGE);
	CHECK(dtrack_checksum(from, 0, 2) != 0);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(every_size_and_pattern),
		TAP_TEST(every_number_of_threads),
		TAP_TEST(every_flag),
		TAP_TEST(holes_are_not_read),
		TAP_TEST(a_second_flush_writes_nothing),
		TAP_TEST(every_single_page),
		TAP_TEST(one_bitmap_or_none),
		TAP_TEST(ends_at_the_last_page),
		TAP_TEST(callbacks_get_each_page_once),
		TAP_TEST(runs_are_one_call),
		TAP_TEST(failing_callback_loses_nothing),
		TAP_TEST(failure_at_every_page_of_a_word),
		TAP_TEST(others_stop_soon),
		TAP_TEST(progress_is_told_to_the_caller),
		TAP_TEST(cancelled_flush_loses_nothing),
		TAP_TEST(failing_punch_loses_nothing),
		TAP_TEST(killed_flush_loses_nothing),
		TAP_TEST(cluster_is_for_all_threads),
		TAP_TEST(little_is_done_by_one),
		TAP_TEST(threads_take_no_signals),
		TAP_TEST(nonsense_is_refused),
		TAP_TEST(checksum_tells_pages_apart),
	};

	set_up();
	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
