// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a harvest reports, where it puts it, and what it leaves in the log.
 *
 * Nothing races here: a page is dirty or it is not, so each result is compared
 * with one computed bit by bit.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include <linux/userfaultfd.h>

#include "dirtytrack_test.h"

#define NPAGES 333
#define WORDS ((NPAGES + 63) / 64)
#define PEEK DIRTYTRACK_HARVEST_PEEK

/* Deterministic, and without a pattern that a word-wise bug could match. */
static __u32 hash(__u64 n)
{
	n = (n + 1) * 0x9e3779b97f4a7c15ULL;
	return n >> 40;
}

/* Bits of [first, first + npages) of @map. */
static __u64 count_range(const __u64 *map, __u64 first, __u64 npages)
{
	__u64 n = 0;

	for (__u64 i = first; i < first + npages; i++)
		n += bit_test(map, i);
	return n;
}

static void write_pages(void *map, const __u64 *pages)
{
	for (__u64 i = 0; i < NPAGES; i++)
		if (bit_test(pages, i))
			page_write(map, i, 1);
}

/* Runs that begin, end and lie anywhere in words, one of them a whole word. */
static void write_runs(void *map, __u64 *dirty)
{
	static const struct { int first, npages; } runs[] = {
		{ 0, 3 }, { 5, 1 }, { 7, 1 }, { 62, 5 }, { 70, 1 }, { 72, 2 },
		{ 126, 1 }, { 128, 64 }, { 193, 1 }, { 255, 2 }, { 300, 20 },
		{ NPAGES - 1, 1 },
	};

	for (size_t r = 0; r < ARRAY_SIZE(runs); r++)
		for (int i = 0; i < runs[r].npages; i++)
			bit_set(dirty, runs[r].first + i);
	write_pages(map, dirty);
}

FIXTURE(harvest)
{
	int slot, log;
	char *map;
	__u64 dirty[WORDS], seen[WORDS];
};

FIXTURE_SETUP(harvest)
{
	self->slot = test_new_slot(NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
}

FIXTURE_TEARDOWN(harvest)
{
	test_unmap(self->map, NPAGES);
	close(self->log);
	close(self->slot);
}

/* What a peek at the whole slot sees. */
#define EXPECT_LOG(want) do {						\
	__u64 _map[WORDS] = { 0 }, _n;					\
									\
	_n = test_harvest_all(self->log, PEEK, 0, NPAGES, _map, 0);	\
	EXPECT_EQ(bits_count(want, NPAGES), _n);			\
	for (__u64 _i = 0; _i < NPAGES; _i++) {				\
		EXPECT_EQ(bit_test(want, _i), bit_test(_map, _i)) {	\
			TH_LOG("page %llu", _i);			\
		}							\
	}								\
} while (0)

TEST_F(harvest, clean_at_first)
{
	EXPECT_EQ(0, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_LOG(self->dirty);
}

/* Each write is reported, once. */
TEST_F(harvest, takes)
{
	for (int round = 0; round < 3; round++) {
		memset(self->dirty, 0, sizeof(self->dirty));
		memset(self->seen, 0, sizeof(self->seen));
		for (int i = 0; i < NPAGES; i++)
			if (hash(i + round) % 3 == 0)
				bit_set(self->dirty, i);
		write_pages(self->map, self->dirty);
		EXPECT_EQ(bits_count(self->dirty, NPAGES),
			  test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
		EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));
		EXPECT_EQ(0, test_harvest_all(self->log, 0, 0, NPAGES,
					      self->seen, 0));
	}
}

TEST_F(harvest, peek_leaves)
{
	struct dirtytrack_log_info before, after;

	for (int i = 5; i < NPAGES; i += 61)
		bit_set(self->dirty, i);
	write_pages(self->map, self->dirty);
	test_log_info(self->log, &before);
	EXPECT_EQ(0, before.out_dirty);
	EXPECT_LOG(self->dirty);
	EXPECT_LOG(self->dirty);
	test_log_info(self->log, &after);
	EXPECT_EQ(bits_count(self->dirty, NPAGES), after.out_dirty);
	EXPECT_EQ(before.out_harvests, after.out_harvests);
	EXPECT_EQ(before.out_reported, after.out_reported);

	EXPECT_EQ(bits_count(self->dirty, NPAGES),
		  test_extents_all(self->log, PEEK, 0, NPAGES, 10, self->seen, NULL));
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));
	EXPECT_LOG(self->dirty);

	/* Written again: still dirty, still once. */
	write_pages(self->map, self->dirty);
	EXPECT_LOG(self->dirty);
	EXPECT_EQ(bits_count(self->dirty, NPAGES),
		  test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	memset(self->dirty, 0, sizeof(self->dirty));
	EXPECT_LOG(self->dirty);
}

TEST_F(harvest, log_info)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_log_info info, start;
	struct dirtytrack_slot_info slot;
	struct dirtytrack_extent extents[8];
	struct dirtytrack_harvest h;

	test_slot_info(self->slot, &slot);
	test_log_info(self->log, &start);
	EXPECT_EQ(slot.out_id, start.out_slot_id);
	EXPECT_EQ(0, start.out_reserved);
	EXPECT_EQ(NPAGES, start.out_npages);
	EXPECT_EQ(0, start.out_dirty);
	EXPECT_EQ(0, start.out_harvests);
	EXPECT_EQ(0, start.out_reported);

	page_write(self->map, 1, 1);
	page_write(self->map, 2, 1);
	page_write(self->map, 200, 1);
	test_harvest(self->log, 0, 0, 2, self->seen, 0, &h);
	EXPECT_EQ(1, h.out_dirty);
	test_log_info(self->log, &info);
	/* What lies outside the range is not even collected. */
	EXPECT_EQ(0, info.out_dirty);
	EXPECT_EQ(1, info.out_harvests);
	EXPECT_EQ(1, info.out_reported);

	test_extents(self->log, 0, 0, NPAGES, extents, 8, &e);
	EXPECT_EQ(2, e.out_dirty);
	test_log_info(self->log, &info);
	EXPECT_EQ(0, info.out_dirty);
	EXPECT_EQ(2, info.out_harvests);
	EXPECT_EQ(3, info.out_reported);

	/* One that found nothing could have found something. */
	test_harvest(self->log, 0, 0, NPAGES, self->seen, 0, &h);
	test_log_info(self->log, &info);
	EXPECT_EQ(3, info.out_harvests);
	EXPECT_EQ(3, info.out_reported);
}

/* Only the range is taken, however it lies to the words. */
TEST_F(harvest, takes_range_only)
{
	static const __u64 firsts[] = { 0, 1, 62, 63, 64, 65, 127, 128, 200 };
	static const __u64 sizes[] = { 1, 2, 63, 64, 65, 128, 133 };
	static const __u64 bits[] = { 0, 1, 63, 64 };
	__u64 buf[WORDS + 2], want[WORDS + 2];
	struct dirtytrack_harvest h;

	for (size_t f = 0; f < ARRAY_SIZE(firsts); f++)
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		__u64 first = firsts[f], n = sizes[s], end = first + n;
		__u64 bit = bits[(f + s) % ARRAY_SIZE(bits)], in = 0;
		/* What is just inside and just outside. */
		const __u64 at[] = { first - 1, first, first + n / 2, end - 1, end };

		for (size_t i = 0; i < ARRAY_SIZE(at); i++)
			if (at[i] < NPAGES)
				bit_set(self->dirty, at[i]);
		write_pages(self->map, self->dirty);

		memset(buf, 0, sizeof(buf));
		memset(want, 0, sizeof(want));
		for (__u64 i = 0; i < n; i++) {
			if (bit_test(self->dirty, first + i)) {
				bit_set(want, bit + i);
				bit_clear(self->dirty, first + i);
				in++;
			}
		}
		test_harvest(self->log, 0, first, n, buf, bit, &h);
		EXPECT_EQ(end, h.out_next);
		EXPECT_EQ(in, h.out_dirty);
		EXPECT_EQ(in, h.out_new);
		EXPECT_EQ(0, memcmp(want, buf, sizeof(buf))) {
			TH_LOG("first %llu, npages %llu, bit %llu", first, n, bit);
		}
		EXPECT_LOG(self->dirty);
	}
}

/* Bits that are set stay set, and are not counted as new. */
TEST_F(harvest, or_and_new)
{
	struct dirtytrack_harvest h;

	page_write(self->map, 3, 1);
	page_write(self->map, 64, 1);
	page_write(self->map, 65, 1);
	bit_set(self->seen, 2);
	bit_set(self->seen, 64);
	bit_set(self->seen, 100);
	test_harvest(self->log, 0, 0, NPAGES, self->seen, 0, &h);
	EXPECT_EQ(3, h.out_dirty);
	EXPECT_EQ(2, h.out_new);
	EXPECT_EQ(NPAGES, h.out_next);
	EXPECT_EQ(1ULL << 2 | 1ULL << 3, self->seen[0]);
	EXPECT_EQ(1ULL << 0 | 1ULL << 1 | 1ULL << (100 - 64), self->seen[1]);

	page_write(self->map, 3, 2);
	test_harvest(self->log, PEEK, 0, NPAGES, self->seen, 0, &h);
	EXPECT_EQ(1, h.out_dirty);
	EXPECT_EQ(0, h.out_new);
	test_harvest(self->log, 0, 0, NPAGES, self->seen, 0, &h);
	EXPECT_EQ(1, h.out_dirty);
	EXPECT_EQ(0, h.out_new);
}

/* ---- every offset of the caller's bitmap ---- */

FIXTURE(offset)
{
	int slot, log;
	char *map, *buf;
	__u64 dirty[WORDS];
};

FIXTURE_VARIANT(offset)
{
	unsigned int eighths;	/* of all pages are dirty */
};

FIXTURE_VARIANT_ADD(offset, sparse) { .eighths = 1 };
FIXTURE_VARIANT_ADD(offset, half) { .eighths = 4 };
FIXTURE_VARIANT_ADD(offset, full) { .eighths = 8 };

FIXTURE_SETUP(offset)
{
	self->slot = test_new_slot(NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
	self->buf = guarded_alloc(1);
	for (int i = 0; i < NPAGES; i++)
		if (hash(i) % 8 < variant->eighths)
			bit_set(self->dirty, i);
	write_pages(self->map, self->dirty);
}

FIXTURE_TEARDOWN(offset)
{
	test_unmap(self->map, NPAGES);
	close(self->log);
	close(self->slot);
}

/*
 * The buffer ends where the last bit's word ends, and untouchable memory begins
 * there; the word before the first one is compared too.
 */
TEST_F(offset, every_bit)
{
	static const __u64 firsts[] = {
		0, 1, 7, 62, 63, 64, 65, 127, 128, 191, 192, 300,
	};
	static const __u64 sizes[] = {
		1, 2, 31, 62, 63, 64, 65, 127, 128, 129, 193, NPAGES,
	};
	__u64 want[WORDS + 4];
	struct dirtytrack_harvest h;

	for (size_t f = 0; f < ARRAY_SIZE(firsts); f++)
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++)
	for (__u64 bit = 0; bit <= 130; bit += bit < 66 || bit > 125 ? 1 : 60) {
		__u64 first = firsts[f], n = sizes[s], new = 0;
		size_t words = bitmap_words(bit + n) + 1;
		__u64 *buf = (__u64 *)page_at(self->buf, 1) - words;

		if (first + n > NPAGES)
			continue;
		for (size_t w = 0; w < words; w++) {
			buf[w] = bit & 1 ? hash(w + bit) * 0x100000001ULL : 0;
			want[w] = buf[w];
		}
		for (__u64 i = 0; i < n; i++) {
			if (bit_test(self->dirty, first + i)) {
				new += !bit_test(want + 1, bit + i);
				bit_set(want + 1, bit + i);
			}
		}
		test_harvest(self->log, PEEK, first, n, buf + 1, bit, &h);
		ASSERT_EQ(first + n, h.out_next);
		ASSERT_EQ(count_range(self->dirty, first, n), h.out_dirty);
		ASSERT_EQ(new, h.out_new) {
			TH_LOG("first %llu, npages %llu, bit %llu", first, n, bit);
		}
		ASSERT_EQ(0, memcmp(want, buf, words * sizeof(*buf))) {
			TH_LOG("first %llu, npages %llu, bit %llu", first, n, bit);
		}
	}
}

/* ---- logs ---- */

TEST_F(harvest, logs_are_independent)
{
	int other = test_log_create(self->slot, 0);

	for (int i = 0; i < NPAGES; i += 7)
		bit_set(self->dirty, i);
	write_pages(self->map, self->dirty);
	EXPECT_EQ(bits_count(self->dirty, NPAGES),
		  test_harvest_all(other, 0, 0, NPAGES, self->seen, 0));
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));
	EXPECT_LOG(self->dirty);

	/* A log that comes later has nothing of what was before it. */
	close(other);
	other = test_log_create(self->slot, 0);
	EXPECT_EQ(0, test_harvest_all(other, 0, 0, NPAGES, self->seen, 0));
	EXPECT_LOG(self->dirty);
	/* And all that comes after, of pages that were writable then. */
	write_pages(self->map, self->dirty);
	memset(self->seen, 0, sizeof(self->seen));
	EXPECT_EQ(bits_count(self->dirty, NPAGES),
		  test_harvest_all(other, 0, 0, NPAGES, self->seen, 0));
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));
	close(other);
}

/* Whatever a new log does at its start: the one before it keeps what it had. */
TEST_F(harvest, new_log_takes_nothing)
{
	int other;

	for (int i = 3; i < NPAGES; i += 11)
		bit_set(self->dirty, i);
	write_pages(self->map, self->dirty);
	other = test_log_create(self->slot, 0);
	EXPECT_LOG(self->dirty);
	/* And does not begin with what nobody had collected yet. */
	EXPECT_EQ(0, test_harvest_all(other, 0, 0, NPAGES, self->seen, 0));
	close(other);
	other = test_log_create(self->slot, DIRTYTRACK_LOG_ALL_SET);
	EXPECT_LOG(self->dirty);
	close(other);
	EXPECT_LOG(self->dirty);
}

TEST_F(harvest, all_set)
{
	static const __u64 resident[] = { 1, 5, 63, 64, 70, NPAGES - 1 };
	struct dirtytrack_log_info info;
	char byte = 0;
	int log;

	for (size_t i = 0; i < ARRAY_SIZE(resident); i++)
		bit_set(self->dirty, resident[i]);
	write_pages(self->map, self->dirty);
	/* Resident by a read is resident; read as a hole is not. */
	page_read(self->map, 10);
	bit_set(self->dirty, 10);
	ASSERT_EQ(1, pread(self->slot, &byte, 1, 11 * PAGE_SIZE));

	log = test_log_create(self->slot, DIRTYTRACK_LOG_ALL_SET);
	test_log_info(log, &info);
	EXPECT_EQ(bits_count(self->dirty, NPAGES), info.out_dirty);
	EXPECT_EQ(bits_count(self->dirty, NPAGES),
		  test_harvest_all(log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));

	/* From here it is a log like any other. */
	EXPECT_EQ(0, test_harvest_all(log, 0, 0, NPAGES, self->seen, 0));
	page_write(self->map, 5, 2);
	page_write(self->map, 20, 2);
	memset(self->seen, 0, sizeof(self->seen));
	EXPECT_EQ(2, test_harvest_all(log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_TRUE(bit_test(self->seen, 5) && bit_test(self->seen, 20));
	close(log);
}

/* A write between the start of the log and its first harvest is in it. */
TEST_F(harvest, all_set_then_write)
{
	int log;

	page_write(self->map, 1, 1);
	log = test_log_create(self->slot, DIRTYTRACK_LOG_ALL_SET);
	page_write(self->map, 1, 2);
	page_write(self->map, 2, 2);
	EXPECT_EQ(2, test_harvest_all(log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_EQ(6, self->seen[0]);
	page_write(self->map, 1, 3);
	self->seen[0] = 0;
	EXPECT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_EQ(2, self->seen[0]);
	close(log);
}

/* Looking at memory changes nothing, whether or not it allocates. */
TEST_F(harvest, reads_are_not_writes)
{
	page_write(self->map, 1, 1);
	EXPECT_EQ(1, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	for (int i = 0; i < 20; i++)
		page_read(self->map, i);
	EXPECT_EQ(0, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	/* And does not hide the write that follows. */
	page_write(self->map, 1, 2);
	page_write(self->map, 7, 2);
	EXPECT_EQ(2, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
}

/* ---- extents ---- */

static void punch(int slot, __u64 first, __u64 npages)
{
	if (fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      first * PAGE_SIZE, npages * PAGE_SIZE))
		dt_broken("punch: %s", strerror(errno));
}

#define EXPECT_EXTENT(want_first, want_npages, want_state, e) do {	\
	EXPECT_EQ(want_first, (e).first);				\
	EXPECT_EQ(want_npages, (e).npages);				\
	EXPECT_EQ(want_state, (e).state);				\
} while (0)

#define DATA DIRTYTRACK_STATE_DATA
#define HOLE DIRTYTRACK_STATE_HOLE

TEST_F(harvest, extents_merge)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_extent x[8];

	for (int i = 60; i < 70; i++)
		page_write(self->map, i, 1);
	for (int i = 126; i < 260; i++)
		page_write(self->map, i, 1);
	page_write(self->map, 0, 1);
	page_write(self->map, NPAGES - 1, 1);
	test_extents(self->log, 0, 0, NPAGES, x, 8, &e);
	ASSERT_EQ(4, e.out_nr);
	EXPECT_EQ(NPAGES, e.out_next);
	EXPECT_EQ(1 + 10 + 134 + 1, e.out_dirty);
	EXPECT_EXTENT(0, 1, DATA, x[0]);
	EXPECT_EXTENT(60, 10, DATA, x[1]);
	EXPECT_EXTENT(126, 134, DATA, x[2]);
	EXPECT_EXTENT(NPAGES - 1, 1, DATA, x[3]);

	test_extents(self->log, 0, 0, NPAGES, x, 8, &e);
	EXPECT_EQ(0, e.out_nr);
	EXPECT_EQ(0, e.out_dirty);
	EXPECT_EQ(NPAGES, e.out_next);
}

TEST_F(harvest, extents_of_all)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_extent x;

	for (int i = 0; i < NPAGES; i++)
		page_write(self->map, i, 1);
	test_extents(self->log, 0, 0, NPAGES, &x, 1, &e);
	EXPECT_EQ(1, e.out_nr);
	EXPECT_EXTENT(0, NPAGES, DATA, x);
	EXPECT_EQ(NPAGES, e.out_next);
}

TEST_F(harvest, extents_state)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_extent x[8];

	for (int i = 0; i < 10; i++)
		page_write(self->map, i, 1);
	punch(self->slot, 3, 3);
	test_extents(self->log, PEEK, 0, NPAGES, x, 8, &e);
	ASSERT_EQ(3, e.out_nr);
	EXPECT_EXTENT(0, 3, DATA, x[0]);
	EXPECT_EXTENT(3, 3, HOLE, x[1]);
	EXPECT_EXTENT(6, 4, DATA, x[2]);

	/* The state is that of now, not of when the page became dirty. */
	page_write(self->map, 4, 2);
	test_extents(self->log, PEEK, 0, NPAGES, x, 8, &e);
	ASSERT_EQ(5, e.out_nr);
	EXPECT_EXTENT(3, 1, HOLE, x[1]);
	EXPECT_EXTENT(4, 1, DATA, x[2]);
	EXPECT_EXTENT(5, 1, HOLE, x[3]);
	punch(self->slot, 0, NPAGES);
	test_extents(self->log, 0, 0, NPAGES, x, 8, &e);
	ASSERT_EQ(1, e.out_nr);
	EXPECT_EXTENT(0, 10, HOLE, x[0]);
	EXPECT_EQ(10, e.out_dirty);
}

/* Discarding is a change of content, of pages that nobody could write then. */
TEST_F(harvest, punch_is_reported)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_extent x[8];

	for (int i = 62; i < 66; i++)
		page_write(self->map, i, 1);
	EXPECT_EQ(4, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	punch(self->slot, 63, 2);
	test_extents(self->log, PEEK, 0, NPAGES, x, 8, &e);
	ASSERT_EQ(1, e.out_nr);
	EXPECT_EXTENT(63, 2, HOLE, x[0]);
	memset(self->seen, 0, sizeof(self->seen));
	EXPECT_EQ(2, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_TRUE(bit_test(self->seen, 63) && bit_test(self->seen, 64));
}

/* A range cuts an extent, on either side and in the middle of words. */
TEST_F(harvest, extents_range)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_extent x[4];

	for (int i = 30; i < 230; i++)
		bit_set(self->dirty, i);
	write_pages(self->map, self->dirty);
	test_extents(self->log, 0, 100, 50, x, 4, &e);
	ASSERT_EQ(1, e.out_nr);
	EXPECT_EXTENT(100, 50, DATA, x[0]);
	EXPECT_EQ(150, e.out_next);
	for (int i = 100; i < 150; i++)
		bit_clear(self->dirty, i);
	EXPECT_LOG(self->dirty);
	test_extents(self->log, 0, 0, NPAGES, x, 4, &e);
	ASSERT_EQ(2, e.out_nr);
	EXPECT_EXTENT(30, 70, DATA, x[0]);
	EXPECT_EXTENT(150, 80, DATA, x[1]);
}

FIXTURE(resume)
{
	int slot, log;
	char *map;
	__u64 dirty[WORDS], data[WORDS], holes[WORDS];
};

FIXTURE_VARIANT(resume)
{
	__u32 nr;
};

FIXTURE_VARIANT_ADD(resume, one) { .nr = 1 };
FIXTURE_VARIANT_ADD(resume, two) { .nr = 2 };
FIXTURE_VARIANT_ADD(resume, three) { .nr = 3 };
FIXTURE_VARIANT_ADD(resume, seven) { .nr = 7 };

FIXTURE_SETUP(resume)
{
	self->slot = test_new_slot(NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
	write_runs(self->map, self->dirty);
}

FIXTURE_TEARDOWN(resume)
{
	test_unmap(self->map, NPAGES);
	close(self->log);
	close(self->slot);
}

/* The array is full in the middle of a word: the rest of the word stays. */
TEST_F(resume, array_full)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_extent *x;
	__u64 at = 0;

	/* What lies behind the array is not ours to be written. */
	x = (void *)(page_at(guarded_alloc(1), 1) - variant->nr * sizeof(*x));
	while (at < NPAGES) {
		test_extents(self->log, 0, at, NPAGES - at, x, variant->nr, &e);
		if (e.out_next < NPAGES) {
			ASSERT_EQ(variant->nr, e.out_nr);
		}
		for (__u32 i = 0; i < e.out_nr; i++) {
			for (__u64 p = 0; p < x[i].npages; p++) {
				ASSERT_TRUE(bit_test(self->dirty, x[i].first + p));
				bit_clear(self->dirty, x[i].first + p);
			}
		}
		at = e.out_next;
		EXPECT_EQ(0, count_range(self->dirty, 0, at));
		EXPECT_LOG(self->dirty);
	}
	EXPECT_EQ(0, bits_count(self->dirty, NPAGES));
}

TEST_F(resume, data_and_holes)
{
	__u64 want_holes[WORDS] = { 0 };

	punch(self->slot, 63, 2);
	punch(self->slot, 130, 9);
	punch(self->slot, 300, 20);
	for (int i = 0; i < NPAGES; i++) {
		bool hole = (i >= 63 && i < 65) || (i >= 130 && i < 139) ||
			    (i >= 300 && i < 320);

		if (hole && bit_test(self->dirty, i)) {
			bit_clear(self->dirty, i);
			bit_set(want_holes, i);
		}
	}
	test_extents_all(self->log, 0, 0, NPAGES, variant->nr, self->data,
			 self->holes);
	EXPECT_TRUE(bitmap_equal(self->dirty, self->data, NPAGES));
	EXPECT_TRUE(bitmap_equal(want_holes, self->holes, NPAGES));
}

/* ---- memory that faults ---- */

/*
 * Harvests into memory that ends too early until it gets nowhere, then into
 * memory that is there.  Together that must be everything.
 */
TEST_F(harvest, bitmap_faults)
{
	char *guarded = guarded_alloc(1);

	write_runs(self->map, self->dirty);
	for (__u64 words = 0; words < WORDS; words++) {
		__u64 *buf = (__u64 *)page_at(guarded, 1) - words;
		__u64 at = 0, seen[WORDS] = { 0 };
		struct dirtytrack_harvest h;
		int ret;

		memset(guarded, 0, PAGE_SIZE);
		write_pages(self->map, self->dirty);
		while (!(ret = _test_harvest(self->log, 0, at, NPAGES - at, buf,
					     at, &h))) {
			ASSERT_LT(h.out_next, NPAGES);
			at = h.out_next;
		}
		ASSERT_EQ(-1, ret);
		EXPECT_EQ(EFAULT, errno);
		/* It cannot have been beyond the first dirty page without a word. */
		for (__u64 i = words * 64; i < at; i++)
			EXPECT_FALSE(bit_test(self->dirty, i));
		memcpy(seen, buf, words * sizeof(*seen));
		test_harvest_all(self->log, 0, 0, NPAGES, seen, 0);
		for (__u64 i = 0; i < NPAGES; i++) {
			EXPECT_EQ(bit_test(self->dirty, i), bit_test(seen, i)) {
				TH_LOG("page %llu, %llu words of memory", i, words);
			}
		}
	}
}

/* The same at a bit offset: one word of the log goes to two of the caller. */
TEST_F(harvest, bitmap_faults_at_offset)
{
	char *guarded = guarded_alloc(1);

	write_runs(self->map, self->dirty);
	for (__u64 words = 0; words <= WORDS; words++)
	for (__u64 bit = 1; bit < 64; bit += 31) {
		__u64 *buf = (__u64 *)page_at(guarded, 1) - words;
		__u64 at = 0, seen[WORDS + 1] = { 0 };
		struct dirtytrack_harvest h;
		int ret = 0;

		memset(guarded, 0, PAGE_SIZE);
		write_pages(self->map, self->dirty);
		while (at < NPAGES) {
			ret = _test_harvest(self->log, 0, at, NPAGES - at, buf,
					    bit + at, &h);
			if (ret)
				break;
			at = h.out_next;
		}
		if (bitmap_words(bit + NPAGES) > words) {
			ASSERT_EQ(-1, ret);
			EXPECT_EQ(EFAULT, errno);
		} else {
			EXPECT_EQ(0, ret);
		}
		memcpy(seen, buf, words * sizeof(*seen));
		test_harvest_all(self->log, 0, 0, NPAGES, seen, bit);
		for (__u64 i = 0; i < NPAGES; i++) {
			EXPECT_EQ(bit_test(self->dirty, i), bit_test(seen, bit + i)) {
				TH_LOG("page %llu, bit %llu, %llu words of memory",
				       i, bit, words);
			}
		}
	}
}

/* A bitmap that can be read and not written is as bad. */
TEST_F(harvest, bitmap_read_only)
{
	char *buf = guarded_alloc(1);

	write_runs(self->map, self->dirty);
	ASSERT_EQ(0, mprotect(buf, PAGE_SIZE, PROT_READ));
	test_err_harvest(EFAULT, self->log, 0, 0, NPAGES, buf, 0);
	EXPECT_TRUE(page_is_zero(buf));
	EXPECT_LOG(self->dirty);
}

/* Words without a dirty page are left alone, which memory can tell. */
TEST_F(harvest, bitmap_needed_in_part)
{
	char *guarded = guarded_alloc(1);
	__u64 *buf = (__u64 *)page_at(guarded, 1) - 1;
	struct dirtytrack_harvest h;

	page_write(self->map, 1, 2);
	test_harvest(self->log, 0, 0, NPAGES, buf, 0, &h);
	EXPECT_EQ(NPAGES, h.out_next);
	EXPECT_EQ(1, h.out_dirty);
	EXPECT_EQ(2, buf[0]);
}

TEST_F(resume, extents_fault)
{
	char *guarded = guarded_alloc(1);

	for (__u32 room = 0; room < variant->nr; room++) {
		struct dirtytrack_extent *x = (void *)page_at(guarded, 1);
		__u64 seen[WORDS] = { 0 }, at = 0;
		struct dirtytrack_harvest_extents e;
		int ret;

		x -= room;
		write_pages(self->map, self->dirty);
		for (;;) {
			memset(guarded, 0, PAGE_SIZE);
			ret = _test_extents(self->log, 0, at, NPAGES - at, x,
					    variant->nr, &e);
			if (ret)
				break;
			ASSERT_LE(e.out_nr, room);
			for (__u32 i = 0; i < e.out_nr; i++)
				for (__u64 p = 0; p < x[i].npages; p++)
					bit_set(seen, x[i].first + p);
			at = e.out_next;
			if (at == NPAGES)
				break;
		}
		if (!room) {
			EXPECT_EQ(-1, ret);
		}
		if (ret) {
			EXPECT_EQ(EFAULT, errno);
		}
		test_extents_all(self->log, 0, 0, NPAGES, 16, seen, NULL);
		for (__u64 i = 0; i < NPAGES; i++) {
			EXPECT_EQ(bit_test(self->dirty, i), bit_test(seen, i)) {
				TH_LOG("page %llu, room for %u", i, room);
			}
		}
	}
}

/* ---- memory that is the slot itself ---- */

FIXTURE(in_slot)
{
	int slot, log;
	char *map;
	__u64 dirty[WORDS], seen[WORDS];
};

FIXTURE_VARIANT(in_slot)
{
	bool resident, writable;
};

FIXTURE_VARIANT_ADD(in_slot, hole) { };
FIXTURE_VARIANT_ADD(in_slot, read_only) { .resident = true };
FIXTURE_VARIANT_ADD(in_slot, writable) { .resident = true, .writable = true };

#define AT 100

FIXTURE_SETUP(in_slot)
{
	self->slot = test_new_slot(NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
	if (variant->resident) {
		page_write(self->map, AT, 0);
		test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0);
		memset(self->seen, 0, sizeof(self->seen));
	}
	if (variant->writable) {
		page_write(self->map, AT, 0);
		bit_set(self->dirty, AT);
	}
	for (int i = 0; i < NPAGES; i += 13) {
		bit_set(self->dirty, i);
		page_write(self->map, i, 1);
	}
}

FIXTURE_TEARDOWN(in_slot)
{
	test_unmap(self->map, NPAGES);
	close(self->log);
	close(self->slot);
}

/*
 * The harvest writes to a page of the range it harvests.  It must not wait for
 * itself, and its own write is a write: in this report or in the next.
 */
TEST_F(in_slot, bitmap)
{
	__u64 *buf = (__u64 *)page_at(self->map, AT);
	struct dirtytrack_harvest h;

	test_harvest(self->log, 0, 0, NPAGES, buf, 0, &h);
	EXPECT_EQ(NPAGES, h.out_next);
	memcpy(self->seen, buf, sizeof(self->seen));
	test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0);
	bit_set(self->dirty, AT);
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));
}

TEST_F(in_slot, extents)
{
	struct dirtytrack_extent *x = (void *)page_at(self->map, AT);
	struct dirtytrack_harvest_extents e;

	test_extents(self->log, 0, 0, NPAGES, x, 64, &e);
	EXPECT_EQ(NPAGES, e.out_next);
	for (__u32 i = 0; i < e.out_nr; i++)
		for (__u64 p = 0; p < x[i].npages; p++)
			bit_set(self->seen, x[i].first + p);
	test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0);
	bit_set(self->dirty, AT);
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));
}

/* The outputs of the call are written when all else is done. */
TEST_F(in_slot, argument)
{
	struct dirtytrack_harvest *arg = (void *)page_at(self->map, AT);

	/* Making the argument makes the page dirty, so take that first. */
	arg->size = sizeof(*arg);
	arg->npages = NPAGES;
	arg->bitmap = (uintptr_t)self->seen;
	ASSERT_EQ(0, ioctl(self->log, DIRTYTRACK_LOG_HARVEST, arg));
	EXPECT_EQ(NPAGES, arg->out_next);
	bit_set(self->dirty, AT);
	EXPECT_TRUE(bitmap_equal(self->dirty, self->seen, NPAGES));

	/* That call wrote its outputs after it had looked. */
	memset(self->seen, 0, sizeof(self->seen));
	EXPECT_EQ(1, test_harvest_all(self->log, 0, 0, NPAGES, self->seen, 0));
	EXPECT_TRUE(bit_test(self->seen, AT));
}

/* ---- slots larger than one call may want to look at ---- */

TEST(sparse)
{
	const __u64 npages = 1ULL << 20;
	static const __u64 pages[] = {
		0, 63, 64, 4095, 4096, 32767, 32768, 262143, 262144, 999999,
		(1ULL << 20) - 1,
	};
	__u64 *seen = bitmap_alloc(npages), *want = bitmap_alloc(npages);
	int slot = test_new_slot(npages);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, npages);

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		page_write(map, pages[i], 1);
		bit_set(want, pages[i]);
	}
	EXPECT_EQ(ARRAY_SIZE(pages),
		  test_harvest_all(log, PEEK, 0, npages, seen, 0));
	EXPECT_TRUE(bitmap_equal(want, seen, npages));
	bitmap_zero(seen, npages);
	EXPECT_EQ(ARRAY_SIZE(pages),
		  test_extents_all(log, 0, 0, npages, 2, seen, NULL));
	EXPECT_TRUE(bitmap_equal(want, seen, npages));
	EXPECT_EQ(0, test_harvest_all(log, 0, 0, npages, seen, 0));
	test_unmap(map, npages);
	close(log);
	close(slot);
}

/* One call for pages [0, npages) stopped in the middle. */
#define EXPECT_STOPPED(next, npages) do {				\
	EXPECT_LT(0, next);						\
	EXPECT_GT(npages, next);					\
} while (0)

/*
 * More places than one call visits: it stops early, says where, and goes on from
 * there.  Each page is delivered by one call and no other.
 */
TEST(bounded_work)
{
	const __u64 step = 4096, places = 1100, npages = places * step;
	__u64 *seen = bitmap_alloc(npages), *want = bitmap_alloc(npages);
	struct dirtytrack_extent *extents = calloc(places, sizeof(*extents));
	struct dirtytrack_harvest_extents e;
	int slot = test_new_slot(npages);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, npages);
	struct dirtytrack_harvest h;

	for (__u64 i = 0; i < places; i++) {
		__u64 page = i * step + hash(i) % step;

		page_write(map, page, 1);
		bit_set(want, page);
	}
	test_harvest(log, PEEK, 0, npages, seen, 0, &h);
	EXPECT_STOPPED(h.out_next, npages);
	bitmap_zero(seen, npages);
	EXPECT_EQ(places, test_harvest_all(log, PEEK, 0, npages, seen, 0));
	EXPECT_TRUE(bitmap_equal(want, seen, npages));
	bitmap_zero(seen, npages);
	test_extents(log, PEEK, 0, npages, extents, places, &e);
	EXPECT_STOPPED(e.out_next, npages);
	EXPECT_EQ(places, test_extents_all(log, PEEK, 0, npages, 3000, seen, NULL));
	EXPECT_TRUE(bitmap_equal(want, seen, npages));
	bitmap_zero(seen, npages);
	test_harvest(log, 0, 0, npages, seen, 0, &h);
	EXPECT_STOPPED(h.out_next, npages);
	EXPECT_EQ(places - h.out_dirty,
		  test_harvest_all(log, 0, h.out_next, npages - h.out_next, seen, h.out_next));
	EXPECT_TRUE(bitmap_equal(want, seen, npages));
	EXPECT_EQ(0, test_harvest_all(log, 0, 0, npages, seen, 0));
	test_unmap(map, npages);
	close(log);
	close(slot);
	free(extents);
	free(seen);
	free(want);
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;

static void count_signal(int sig)
{
	(void)sig;
	signals++;
}

static void catch_signal(int sig)
{
	struct sigaction action = { .sa_handler = count_signal };

	signals = 0;
	if (sigaction(sig, &action, NULL))
		dt_broken("sigaction: %s", strerror(errno));
}

/*
 * Whatever a signal does to a call, all calls together report everything.  Not more
 * places than one call visits: what stops one early is a signal.
 */
TEST(timer_signals)
{
	const __u64 step = 4096, places = 1000, npages = places * step;
	const struct itimerval fast = { { 0, 300 }, { 0, 300 } };
	const struct itimerval off = { { 0, 0 }, { 0, 0 } };
	__u64 *seen = bitmap_alloc(npages), *want = bitmap_alloc(npages);
	int slot = test_new_slot(npages);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, npages);
	struct dirtytrack_harvest h;
	unsigned int stopped = 0;

	for (__u64 i = 0; i < places; i++)
		bit_set(want, i * step + hash(i) % step);
	catch_signal(SIGALRM);
	for (int round = 0; round < 5; round++) {
		__u64 at = 0, sum = 0;

		bitmap_zero(seen, npages);
		for (__u64 i = 0; i < places; i++)
			page_write(map, i * step + hash(i) % step, round);
		/* Without signals one call does it. */
		if (!round) {
			test_harvest(log, PEEK, 0, npages, seen, 0, &h);
			EXPECT_EQ(npages, h.out_next);
			bitmap_zero(seen, npages);
		}
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &fast, NULL));
		while (at < npages) {
			if (_test_harvest(log, 0, at, npages - at, seen, at, &h)) {
				ASSERT_EQ(EINTR, errno);
				continue;
			}
			at = h.out_next;
			sum += h.out_dirty;
			stopped += at < npages;
		}
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &off, NULL));
		EXPECT_EQ(places, sum);
		EXPECT_TRUE(bitmap_equal(want, seen, npages));
	}
	EXPECT_LT(0, signals);
	EXPECT_LT(0, stopped);
	test_unmap(map, npages);
	close(log);
	close(slot);
	free(seen);
	free(want);
}

struct filler {
	int uffd;
	pthread_t victim;
	unsigned int fills;
};

/* Serves each fault on the bitmap, after a signal to who takes the fault. */
static void *fill(void *arg)
{
	struct filler *f = arg;
	struct uffd_msg msg;

	while (read(f->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		struct uffdio_zeropage zero = {
			.range = {
				.start = msg.arg.pagefault.address & -PAGE_SIZE,
				.len = PAGE_SIZE,
			},
		};

		pthread_kill(f->victim, SIGUSR1);
		if (!ioctl(f->uffd, UFFDIO_ZEROPAGE, &zero)) {
			f->fills++;
			continue;
		}
		/* The signal made it fault again before the page was there. */
		if (errno != EEXIST || ioctl(f->uffd, UFFDIO_WAKE, &zero.range))
			dt_broken("cannot fill a page: %s", strerror(errno));
	}
	return NULL;
}

/*
 * The signal arrives while the call is in the middle of its work for certain:
 * when it touches the bitmap, whose pages come from a thread that signals first.
 * A call that does so ends with the group that it is at.
 */
TEST(signal_in_the_middle)
{
	const __u64 per_page = PAGE_SIZE * 8, npages = 3 * per_page;
	struct uffdio_api api = { .api = UFFD_API };
	struct filler f = { .victim = pthread_self() };
	struct uffdio_register reg = { };
	struct dirtytrack_harvest h;
	__u64 at = 0, sum = 0;
	unsigned int stopped = 0;
	pthread_t thread;
	int slot, log, ret;
	char *map, *buf;

	f.uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (f.uffd < 0)
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	ASSERT_EQ(0, ioctl(f.uffd, UFFDIO_API, &api));
	buf = mmap(NULL, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)buf);
	reg.range.start = (uintptr_t)buf;
	reg.range.len = 3 * PAGE_SIZE;
	reg.mode = UFFDIO_REGISTER_MODE_MISSING;
	ASSERT_EQ(0, ioctl(f.uffd, UFFDIO_REGISTER, &reg));
	catch_signal(SIGUSR1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, fill, &f));

	slot = test_new_slot(npages);
	log = test_log_create(slot, 0);
	map = test_map(slot, 0, npages);
	for (int i = 0; i < 3; i++) {
		page_write(map, i * per_page + 10, 1);
		page_write(map, i * per_page + 1000, 1);
	}
	while (at < npages) {
		ret = _test_harvest(log, 0, at, npages - at, buf, at, &h);
		if (ret) {
			ASSERT_EQ(EINTR, errno);
			continue;
		}
		/* Each of the first three finds a page of the bitmap missing. */
		if (stopped < 3)
			EXPECT_EQ(stopped * per_page + 4096, h.out_next);
		at = h.out_next;
		sum += h.out_dirty;
		stopped += at < npages;
	}
	EXPECT_EQ(3, stopped);
	EXPECT_EQ(6, sum);
	for (int i = 0; i < 3; i++) {
		EXPECT_TRUE(bit_test((__u64 *)buf, i * per_page + 10));
		EXPECT_TRUE(bit_test((__u64 *)buf, i * per_page + 1000));
	}
	EXPECT_EQ(6, bits_count((__u64 *)buf, npages));
	EXPECT_EQ(3, f.fills);
	EXPECT_LT(0, signals);
	EXPECT_EQ(0, test_harvest_all(log, 0, 0, npages, buf, 0));

	pthread_cancel(thread);
	pthread_join(thread, NULL);
	test_unmap(map, npages);
	close(log);
	close(slot);
}

TEST_HARNESS_MAIN
