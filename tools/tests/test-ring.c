// SPDX-License-Identifier: GPL-2.0-only
/*
 * CLEAR, MERGE and rings, by a kernel that is made here: a file for the mappings, and an
 * ioctl() that does as little in a call as it may, is interrupted, and writes to pages
 * while it is at work.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "tap.h"

#define NPAGES 5000
#define ENTRIES 64
#define MAX_ENTRIES 8192	/* more than is handed out at once */
#define PAGE 4096
#define CONTROL_OFFSET (PAGE + MAX_ENTRIES * sizeof(uint64_t))

static struct {
	int fd;
	struct dirtytrack_ring *ring;
	uint64_t *entries;
	struct dirtytrack_ring_control *control;
	bool open[NPAGES];	/* writable */
	bool log[NPAGES];	/* collected */
	uint64_t content[NPAGES];
	unsigned int calls;
	unsigned int budget;	/* pages that a call may do */
	unsigned int interrupt;	/* every so many calls fail */
	unsigned int writes;	/* pages written during a call */
	bool has_ring;
} k;

static bool has(uint64_t page)
{
	return k.open[page] || k.log[page];
}

static void push(uint64_t page)
{
	if (k.ring->head - k.control->tail < k.ring->entries) {
		k.entries[k.ring->head % k.ring->entries] = page;
		k.ring->head++;
	} else {
		k.ring->overflows++;
	}
}

static void write_page(uint64_t page)
{
	if (!k.open[page] && k.has_ring)
		push(page);
	k.open[page] = true;
	k.content[page]++;
}

static void write_some(void)
{
	unsigned int i;

	for (i = 0; i < k.writes; i++)
		write_page(random() % (i % 2 ? 50 : NPAGES));
}

static void select_page(bool clear, uint64_t page, __u64 *pages)
{
	if (clear) {
		*pages += has(page);
		k.open[page] = k.log[page] = false;
	} else {
		k.log[page] = true;
		*pages += 1;
	}
}

static int do_bitmap(struct dirtytrack_bitmap *arg, bool clear)
{
	const uint64_t *bitmap = (const void *)(uintptr_t)arg->bitmap;
	uint64_t i;

	arg->out_pages = 0;
	for (i = 0; i < arg->npages && i < k.budget; i++)
		if (dtrack_bitmap_test(bitmap, arg->bit + i))
			select_page(clear, arg->first + i, &arg->out_pages);
	arg->out_next = arg->first + i;
	return 0;
}

static int do_ranges(struct dirtytrack_ranges *arg, bool clear)
{
	const struct dirtytrack_range *r = (const void *)(uintptr_t)arg->ranges;
	unsigned int budget = k.budget;

	arg->out_pages = 0;
	arg->out_next = 0;
	for (arg->out_nr = 0; arg->out_nr < arg->nr; arg->out_nr++, r++) {
		uint64_t page = r->first;

		if (!r->npages || page + r->npages > NPAGES) {
			errno = EINVAL;
			return arg->out_nr ? 0 : -1;
		}
		for (; budget && page < r->first + r->npages; page++, budget--)
			select_page(clear, page, &arg->out_pages);
		if (page < r->first + r->npages) {
			arg->out_next = page > r->first ? page : 0;
			break;
		}
	}
	return 0;
}

static int do_extents(struct dirtytrack_harvest_extents *arg)
{
	struct dirtytrack_extent *ext = (void *)(uintptr_t)arg->extents;
	uint64_t page = arg->first, end = page + arg->npages;

	if (end > page + k.budget)
		end = page + k.budget;
	arg->out_nr = 0;
	arg->out_dirty = 0;
	for (; page < end; page++) {
		if (!has(page))
			continue;
		if (arg->out_nr && ext[arg->out_nr - 1].first +
		    ext[arg->out_nr - 1].npages == page) {
			ext[arg->out_nr - 1].npages++;
		} else if (arg->out_nr < arg->nr) {
			ext[arg->out_nr++] = (struct dirtytrack_extent){
				page, 1, DIRTYTRACK_STATE_DATA
			};
		} else {
			break;
		}
		k.open[page] = k.log[page] = false;
		arg->out_dirty++;
	}
	arg->out_next = page;
	return 0;
}

static int do_info(struct dirtytrack_log_info *arg)
{
	arg->out_npages = NPAGES;
	if (!k.has_ring)
		return 0;
	arg->out_ring_offset = 0;
	arg->out_ring_size = CONTROL_OFFSET;
	arg->out_control_offset = CONTROL_OFFSET;
	arg->out_control_size = PAGE;
	return 0;
}

static int do_call(unsigned long cmd, void *arg)
{
	switch (cmd) {
	case DIRTYTRACK_LOG_INFO:
		return do_info(arg);
	case DIRTYTRACK_LOG_CLEAR:
	case DIRTYTRACK_LOG_MERGE:
		return do_bitmap(arg, cmd == DIRTYTRACK_LOG_CLEAR);
	case DIRTYTRACK_LOG_CLEAR_RANGES:
	case DIRTYTRACK_LOG_MERGE_RANGES:
		return do_ranges(arg, cmd == DIRTYTRACK_LOG_CLEAR_RANGES);
	case DIRTYTRACK_LOG_HARVEST_EXTENTS:
		return do_extents(arg);
	}
	errno = ENOTTY;
	return -1;
}

int ioctl(int fd, unsigned long cmd, ...)
{
	va_list args;
	void *arg;
	int ret;

	va_start(args, cmd);
	arg = va_arg(args, void *);
	va_end(args);
	if (fd != k.fd) {
		errno = EBADF;
		return -1;
	}
	if (k.interrupt && cmd != DIRTYTRACK_LOG_INFO &&
	    ++k.calls % k.interrupt == 0) {
		errno = EINTR;
		return -1;
	}
	write_some();
	ret = do_call(cmd, arg);
	write_some();
	return ret;
}

static void start(bool has_ring)
{
	char *file;

	if (k.fd)
		close(k.fd);
	memset(&k, 0, sizeof(k));
	k.fd = memfd_create("log", 0);
	if (k.fd < 0 || ftruncate(k.fd, CONTROL_OFFSET + PAGE))
		abort();
	file = mmap(NULL, CONTROL_OFFSET + PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED, k.fd, 0);
	if (file == MAP_FAILED)
		abort();
	k.ring = (void *)file;
	k.entries = (void *)(file + DIRTYTRACK_RING_ENTRIES_OFFSET);
	k.control = (void *)(file + CONTROL_OFFSET);
	k.ring->entries = ENTRIES;
	k.ring->overflows = 1;
	k.budget = NPAGES;
	k.has_ring = has_ring;
}

/* All pages dirty, a third of them asked for, at bits that have nothing to do with it. */
static void clear_goes_on_after_a_signal(void)
{
	const uint64_t first = 77, npages = 4001, bit = 13;
	uint64_t *bitmap = dtrack_bitmap_alloc(bit + npages);
	uint64_t next = first, pages = 0, page;
	struct dtrack_selected done;
	int ret, interrupts = 0;

	start(false);
	k.budget = 100;
	k.interrupt = 3;
	memset(k.log, true, sizeof(k.log));
	for (page = 0; page < npages; page += 3)
		dtrack_bitmap_set(bitmap, bit + page, 1);
	do {
		ret = dtrack_clear(k.fd, next, first + npages - next, bitmap,
				   bit + (next - first), &done);
		next = done.next;
		pages += done.pages;
		interrupts += ret == -EINTR;
	} while (ret == -EINTR);
	free(bitmap);
	CHECK_EQ(ret, 0);
	CHECK_EQ(next, first + npages);
	CHECK_EQ(pages, (npages + 2) / 3);
	CHECK(interrupts > 5);
	for (page = 0; page < NPAGES; page++)
		CHECK_EQ(k.log[page], page < first || page >= first + npages ||
			 (page - first) % 3 != 0);
}

static void merge_sets_what_is_asked(void)
{
	uint64_t bitmap[2] = { 1ULL << 63, 1 };
	struct dtrack_selected done;

	start(false);
	k.budget = 1;
	CHECK_EQ(dtrack_merge(k.fd, 10, 3, bitmap, 62, &done), 0);
	CHECK_EQ(done.next, 13);
	CHECK_EQ(done.pages, 2);
	CHECK(!k.log[10] && k.log[11] && k.log[12]);
	CHECK_EQ(dtrack_merge(k.fd, UINT64_MAX, 3, bitmap, 0, &done), -EOVERFLOW);
	CHECK_EQ(dtrack_merge(-1, 0, 3, bitmap, 0, &done), -EBADF);
}

static void ranges_go_on_after_a_signal(void)
{
	static const struct dirtytrack_range ranges[] = {
		{ 4000, 300 }, { 5, 1 }, { 6, 999 }, { 1100, 7 }, { 4999, 1 },
	};
	unsigned int budget, interrupts;
	struct dtrack_ranges_done done;
	uint64_t page, left;
	int ret;

	for (budget = 1; budget < 1400; budget = budget * 3 + 1) {
		start(false);
		memset(k.log, true, sizeof(k.log));
		k.budget = budget;
		k.interrupt = 2;
		interrupts = 0;
		done = (struct dtrack_ranges_done){ 0 };
		while ((ret = dtrack_clear_ranges(k.fd, ranges, 5, &done)) ==
		       -EINTR)
			interrupts++;
		CHECK_EQ(ret, 0);
		CHECK_EQ(done.nr, 5);
		CHECK_EQ(done.pages, 1308);
		CHECK(interrupts >= 1308 / budget / 2);
		for (page = left = 0; page < NPAGES; page++)
			left += k.log[page];
		CHECK_EQ(left, NPAGES - 1308);
		CHECK(k.log[3999] && !k.log[4000] && !k.log[4299] && k.log[4300]);
	}
}

static void a_range_that_is_none_is_told(void)
{
	static const struct dirtytrack_range ranges[] = {
		{ 0, 10 }, { 20, 10 }, { 4999, 2 }, { 40, 1 },
	};
	struct dtrack_ranges_done done = { 0 };

	start(false);
	CHECK_EQ(dtrack_merge_ranges(k.fd, ranges, 4, &done), -EINVAL);
	CHECK_EQ(done.nr, 2);
	CHECK_EQ(done.pages, 20);
	CHECK(k.log[29] && !k.log[40]);
	done = (struct dtrack_ranges_done){ .nr = 1, .next = 30 };
	CHECK_EQ(dtrack_merge_ranges(k.fd, ranges, 4, &done), -EINVAL);
	done = (struct dtrack_ranges_done){ .nr = 1, .next = 19 };
	CHECK_EQ(dtrack_merge_ranges(k.fd, ranges, 4, &done), -EINVAL);
}

/* A consumer with an image, and what the kernel says of the ring meanwhile. */
static int copy_all(struct dtrack_ring *ring, uint64_t *image, unsigned int *errors)
{
	const struct dirtytrack_range *ranges;
	int ret, i;

	while ((ret = dtrack_ring_take(ring, &ranges))) {
		if (ret == -EINTR) {
			++*errors;
			continue;
		}
		if (ret < 0)
			return ret;
		for (i = 0; i < ret; i++)
			memcpy(image + ranges[i].first,
			       k.content + ranges[i].first,
			       ranges[i].npages * sizeof(*image));
		/* The last word is the consumer's. */
		if (k.calls > 3000)
			k.writes = 0;
	}
	return 0;
}

static void rings_lose_nothing(void)
{
	static uint64_t image[NPAGES];
	unsigned int seed, round, errors = 0, i;
	uint64_t overflows = 0;
	struct dtrack_ring *ring;

	for (seed = 1; seed <= 60; seed++) {
		srandom(seed);
		start(true);
		k.ring->entries = seed % 10 ? ENTRIES : MAX_ENTRIES;
		memset(image, 0, sizeof(image));
		/* Before the ring has a consumer. */
		for (i = 0; i < seed; i++)
			write_page(random() % NPAGES);
		k.budget = 1 + random() % (seed % 2 ? 40 : NPAGES);
		k.interrupt = 2 + seed % 5;
		CHECK_EQ(dtrack_ring_open(&ring, k.fd), 0);
		for (round = 0; round < 20; round++) {
			unsigned int n = random() % (seed % 3 ? 40 : 200);

			/* A batch and more. */
			if (k.ring->entries == MAX_ENTRIES && round == 10)
				n = 40000;
			for (i = 0; i < n; i++)
				write_page(random() % NPAGES);
			k.calls = 0;
			k.writes = seed % 4;
			CHECK_EQ(copy_all(ring, image, &errors), 0);
			/* A successor has what was taken and not handed out. */
			if (round % 7 == 6) {
				const struct dirtytrack_range *ranges;
				unsigned int interrupt = k.interrupt;

				write_page(round);
				k.interrupt = 1;
				CHECK_EQ(dtrack_ring_take(ring, &ranges), -EINTR);
				dtrack_ring_close(ring);
				CHECK_EQ(dtrack_ring_open(&ring, k.fd), 0);
				k.interrupt = interrupt;
			}
		}
		k.writes = 0;
		CHECK_EQ(copy_all(ring, image, &errors), 0);
		CHECK(!memcmp(image, k.content, sizeof(image)));
		overflows += k.ring->overflows;
		dtrack_ring_close(ring);
	}
	/* Else it was not tested. */
	CHECK(errors > 1000);
	CHECK(overflows > 1000);
}

static void ranges_are_sorted_and_merged(void)
{
	static const uint64_t pages[] = { 9, 3, 4, 200, 8, 5, 9 };
	const struct dirtytrack_range *ranges;
	struct dtrack_ring *ring;
	unsigned int i;

	start(true);
	CHECK_EQ(dtrack_ring_open(&ring, k.fd), 0);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), 0);
	for (i = 0; i < 7; i++)
		push(pages[i]);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), 3);
	CHECK(ranges[0].first == 3 && ranges[0].npages == 3);
	CHECK(ranges[1].first == 8 && ranges[1].npages == 2);
	CHECK(ranges[2].first == 200 && ranges[2].npages == 1);
	CHECK_EQ(k.control->tail, 7);
	dtrack_ring_close(ring);
}

/* No page of one who polls: the file that is the log here is always readable. */
static void wait_looks_before_it_sleeps(void)
{
	const struct dirtytrack_range *ranges;
	struct dtrack_ring *ring;
	int log;

	start(true);
	CHECK_EQ(dtrack_ring_open(&ring, k.fd), 0);
	log = dup(k.fd);
	close(k.fd);
	CHECK_EQ(dtrack_ring_wait(ring, 0), 1);		/* a harvest is due */
	dup2(log, k.fd);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), 0);
	close(k.fd);
	CHECK_EQ(dtrack_ring_wait(ring, 0), -EBADF);	/* asked the kernel */
	dtrack_ring_watermark(ring, 3);
	push(1);
	push(2);
	CHECK_EQ(dtrack_ring_wait(ring, 0), -EBADF);
	push(3);
	CHECK_EQ(dtrack_ring_wait(ring, 0), 1);
	dtrack_ring_watermark(ring, ENTRIES + 1);
	CHECK_EQ(dtrack_ring_wait(ring, 0), -EBADF);
	k.ring->overflows++;
	CHECK_EQ(dtrack_ring_wait(ring, 0), 1);
	dup2(log, k.fd);
	close(log);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), 0);
	k.interrupt = 1;
	push(4);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), -EINTR);
	CHECK_EQ(k.control->tail, k.ring->head);
	CHECK_EQ(dtrack_ring_wait(ring, 0), 1);		/* 4 is not handed out yet */
	k.interrupt = 0;
	CHECK_EQ(dtrack_ring_take(ring, &ranges), 1);
	CHECK_EQ(ranges[0].first, 4);
	dtrack_ring_close(ring);
}

static void nonsense_is_refused(void)
{
	const struct dirtytrack_range *ranges;
	struct dtrack_ring *ring;

	start(false);
	CHECK_EQ(dtrack_ring_open(&ring, k.fd), -ENXIO);
	start(true);
	CHECK_EQ(dtrack_ring_open(&ring, k.fd), 0);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), 0);
	push(NPAGES);
	CHECK_EQ(dtrack_ring_take(ring, &ranges), -EPROTO);
	k.control->tail = k.ring->head + 5;
	CHECK_EQ(dtrack_ring_take(ring, &ranges), -EPROTO);
	dtrack_ring_close(ring);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(clear_goes_on_after_a_signal),
		TAP_TEST(merge_sets_what_is_asked),
		TAP_TEST(ranges_go_on_after_a_signal),
		TAP_TEST(a_range_that_is_none_is_told),
		TAP_TEST(rings_lose_nothing),
		TAP_TEST(ranges_are_sorted_and_merged),
		TAP_TEST(wait_looks_before_it_sleeps),
		TAP_TEST(nonsense_is_refused),
	};

	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
