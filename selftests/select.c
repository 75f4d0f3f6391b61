// SPDX-License-Identifier: GPL-2.0-only
/*
 * CLEAR and MERGE: the pages that they are about, and no others.
 *
 * Each call is compared with a model: a bit a page for what the log has.  Every
 * selection is given as a bitmap at several bit offsets, and as ranges in several
 * orders.
 */
#include <signal.h>
#include <sys/time.h>

#include "dirtytrack_test.h"

#define NPAGES (3 * 4096 + 77)		/* more than three groups */

enum form { BITMAP, BITMAP_ODD, RANGES, RANGES_DOWN, RANGES_ONE_BY_ONE };

static unsigned long cmd_bitmap(bool clear)
{
	return clear ? DIRTYTRACK_LOG_CLEAR : DIRTYTRACK_LOG_MERGE;
}

static unsigned long cmd_ranges(bool clear)
{
	return clear ? DIRTYTRACK_LOG_CLEAR_RANGES : DIRTYTRACK_LOG_MERGE_RANGES;
}

/* As @map says, for the pages of [first, first + npages). */
static int apply_bitmap(int log, bool clear, const __u64 *map, __u64 first,
			__u64 npages, __u64 shift, __u64 *pages)
{
	__u64 *copy = bitmap_alloc(shift + npages);
	int ret;

	for (__u64 i = 0; i < npages; i++)
		if (bit_test(map, first + i))
			bit_set(copy, shift + i);
	ret = _test_bitmap_all(log, cmd_bitmap(clear), first, npages, copy, shift, pages);
	free(copy);
	return ret;
}

static int apply(int log, bool clear, enum form form, const __u64 *map, __u64 *pages)
{
	struct dirtytrack_range *ranges;
	__u64 at = 0;
	__u32 nr = 0;
	int ret;

	if (form == BITMAP || form == BITMAP_ODD)
		return apply_bitmap(log, clear, map, 0, NPAGES,
				    form == BITMAP ? 0 : 37, pages);

	ranges = calloc(NPAGES, sizeof(*ranges));
	if (form != RANGES_ONE_BY_ONE)
		nr = bitmap_ranges(map, &at, NPAGES, ranges, NPAGES);
	for (; at < NPAGES; at++)
		if (bit_test(map, at))
			ranges[nr++] = (struct dirtytrack_range){ at, 1 };
	for (__u32 i = 0; form == RANGES_DOWN && i < nr / 2; i++) {
		struct dirtytrack_range swap = ranges[i];

		ranges[i] = ranges[nr - 1 - i];
		ranges[nr - 1 - i] = swap;
	}
	ret = _test_ranges_all(log, cmd_ranges(clear), ranges, nr, pages);
	free(ranges);
	return ret;
}

static __u32 hash(__u64 n)
{
	return ((n + 1) * 0x9e3779b97f4a7c15ULL) >> 40;
}

/* Runs of all lengths, single pages, whole words and a whole group. */
static void pattern(__u64 *map, __u64 seed)
{
	bitmap_zero(map, NPAGES);
	for (__u64 i = 0; i < NPAGES; ) {
		__u64 run = hash(seed + i) % 7 ? 1 + hash(seed + i) % 5 : 64 + i % 200;
		bool set = hash(seed + 3 * i) % 3 == 0;

		for (; run-- && i < NPAGES; i++)
			if (set && i / 4096 != 1)
				bit_set(map, i);
	}
	for (__u64 i = 4096; seed % 2 && i < 8192; i++)
		bit_set(map, i);
}

FIXTURE(select)
{
	int slot, log, other;
	char *map;
	__u64 *written, *chosen, *got, *want;
};

FIXTURE_VARIANT(select)
{
	enum form form;
};

FIXTURE_VARIANT_ADD(select, bitmap) { .form = BITMAP };
FIXTURE_VARIANT_ADD(select, bitmap_odd) { .form = BITMAP_ODD };
FIXTURE_VARIANT_ADD(select, ranges) { .form = RANGES };
FIXTURE_VARIANT_ADD(select, ranges_down) { .form = RANGES_DOWN };
FIXTURE_VARIANT_ADD(select, ranges_one_by_one) { .form = RANGES_ONE_BY_ONE };

FIXTURE_SETUP(select)
{
	self->slot = test_new_slot(NPAGES);
	self->map = test_map(self->slot, 0, NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->other = test_log_create(self->slot, 0);
	self->written = bitmap_alloc(NPAGES);
	self->chosen = bitmap_alloc(NPAGES);
	self->got = bitmap_alloc(NPAGES);
	self->want = bitmap_alloc(NPAGES);
}

FIXTURE_TEARDOWN(select)
{
	close(self->other);
	close(self->log);
	test_unmap(self->map, NPAGES);
	close(self->slot);
	free(self->written);
	free(self->chosen);
	free(self->got);
	free(self->want);
}

static void write_pattern(char *map, const __u64 *pages)
{
	for (__u64 i = 0; i < NPAGES; i++)
		if (bit_test(pages, i))
			page_write(map, i, 1);
}

#define EXPECT_HARVEST(log, pages) do {					\
	bitmap_zero(self->got, NPAGES);					\
	test_harvest_all(log, 0, 0, NPAGES, self->got, 0);		\
	EXPECT_TRUE(bitmap_equal(self->got, pages, NPAGES)) {		\
		for (__u64 i = 0; i < NPAGES; i++) {			\
			if (bit_test(self->got, i) == bit_test(pages, i)) \
				continue;				\
			TH_LOG("page %llu: %s", i, bit_test(pages, i) ?	\
			       "missing" : "should not be there");	\
			break;						\
		}							\
	}								\
} while (0)

/* Whether what is cleared was collected before or not. */
TEST_F(select, clear)
{
	for (int peek = 0; peek < 2; peek++) {
		__u64 pages, both = 0;

		pattern(self->written, 2 * peek);
		pattern(self->chosen, 17 + peek);
		write_pattern(self->map, self->written);
		if (peek)
			test_harvest_all(self->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES,
					 self->got, 0);
		for (__u64 i = 0; i < (NPAGES + 63) / 64; i++) {
			both += __builtin_popcountll(self->written[i] & self->chosen[i]);
			self->want[i] = self->written[i] & ~self->chosen[i];
		}
		ASSERT_EQ(0, apply(self->log, true, variant->form, self->chosen, &pages));
		EXPECT_EQ(both, pages);
		EXPECT_HARVEST(self->log, self->want);
		/* Another log has nothing to do with it. */
		EXPECT_HARVEST(self->other, self->written);
	}
}

/* A cleared page is protected: what is written to it after is in the log. */
TEST_F(select, clear_protects)
{
	__u64 pages;

	pattern(self->chosen, 5);
	write_pattern(self->map, self->chosen);
	ASSERT_EQ(0, apply(self->log, true, variant->form, self->chosen, &pages));
	EXPECT_EQ(bits_count(self->chosen, NPAGES), pages);
	write_pattern(self->map, self->chosen);
	EXPECT_HARVEST(self->log, self->chosen);
}

/*
 * What is not cleared stays writable: no fault is forced on it.  But where what is
 * cleared lies so near that it is protected as one, pages between it are, too.
 */
#define FAR	128
#define NEAR	16

TEST_F(select, clear_leaves_others_open)
{
	struct dirtytrack_slot_info before, after;
	__u64 pages;

	for (__u64 i = 0; i < NPAGES; i++) {
		page_write(self->map, i, 1);
		if (i % FAR < NEAR)
			bit_set(self->chosen, i);
		else
			bit_set(self->want, i);
	}
	ASSERT_EQ(0, apply(self->log, true, variant->form, self->chosen, &pages));
	EXPECT_EQ(bits_count(self->chosen, NPAGES), pages);
	ASSERT_EQ(0, _test_slot_info(self->slot, &before));
	for (__u64 i = 0; i < NPAGES; i++)
		if (i % FAR >= NEAR)
			page_write(self->map, i, 2);
	ASSERT_EQ(0, _test_slot_info(self->slot, &after));
	EXPECT_EQ(0, after.out_faults - before.out_faults);
	EXPECT_HARVEST(self->log, self->want);

	/* The chosen ones were not: each word of them takes a fault, or more. */
	for (__u64 i = 0; i < NPAGES; i += FAR)
		page_write(self->map, i, 3);
	ASSERT_EQ(0, _test_slot_info(self->slot, &after));
	EXPECT_LE(NPAGES / FAR, after.out_faults - before.out_faults);
}

/* What is written to between chosen pages, near ones too, is reported all the same. */
TEST_F(select, clear_reports_others)
{
	__u64 pages;

	for (__u64 i = 0; i < NPAGES; i++) {
		page_write(self->map, i, 1);
		bit_set(i % 2 ? self->chosen : self->want, i);
	}
	ASSERT_EQ(0, apply(self->log, true, variant->form, self->chosen, &pages));
	for (__u64 i = 0; i < NPAGES; i += 2)
		page_write(self->map, i, 2);
	EXPECT_HARVEST(self->log, self->want);
}

TEST_F(select, merge)
{
	__u64 pages;

	pattern(self->written, 8);
	pattern(self->chosen, 9);
	write_pattern(self->map, self->written);
	ASSERT_EQ(0, apply(self->log, false, variant->form, self->chosen, &pages));
	EXPECT_EQ(bits_count(self->chosen, NPAGES), pages);
	for (__u64 i = 0; i < (NPAGES + 63) / 64; i++)
		self->want[i] = self->written[i] | self->chosen[i];
	EXPECT_HARVEST(self->log, self->want);
	EXPECT_HARVEST(self->other, self->written);
	/* Once. */
	bitmap_zero(self->want, NPAGES);
	EXPECT_HARVEST(self->log, self->want);
}

/* What a harvest gave and its caller could not deliver, he puts back. */
TEST_F(select, harvest_then_merge)
{
	__u64 *taken = bitmap_alloc(NPAGES);
	__u64 pages;

	pattern(self->written, 11);
	write_pattern(self->map, self->written);
	test_harvest_all(self->log, 0, 0, NPAGES, taken, 0);
	ASSERT_EQ(0, apply(self->log, false, variant->form, taken, &pages));
	EXPECT_HARVEST(self->log, self->written);
	free(taken);
}

FIXTURE(range)
{
	int slot, log;
	char *map;
};

FIXTURE_SETUP(range)
{
	self->slot = test_new_slot(NPAGES);
	self->map = test_map(self->slot, 0, NPAGES);
	self->log = test_log_create(self->slot, 0);
}

FIXTURE_TEARDOWN(range)
{
	close(self->log);
	test_unmap(self->map, NPAGES);
	close(self->slot);
}

/* Every bit offset with every edge of a range, beside memory that is not there. */
TEST_F(range, bitmap_edges)
{
	static const __u64 firsts[] = { 0, 1, 63, 64, 4095, 4096, NPAGES - 65 };
	static const __u64 lens[] = { 1, 2, 63, 64, 65 };
	char *guarded = guarded_alloc(1);
	__u64 *all = bitmap_alloc(NPAGES);
	__u64 got[2];

	memset(all, 0xff, NPAGES / 8);
	for (size_t f = 0; f < ARRAY_SIZE(firsts); f++)
	for (size_t l = 0; l < ARRAY_SIZE(lens); l++)
	for (__u64 bit = 0; bit < 128; bit += 21) {
		__u64 first = firsts[f], npages = lens[l];
		__u64 words = bitmap_words(bit + npages);
		struct dirtytrack_bitmap arg = {
			.size = sizeof(arg),
			.first = first,
			.npages = npages,
			.bitmap = (uintptr_t)(page_at(guarded, 1) - words * 8),
			.bit = bit,
		};

		memset(guarded, 0xff, PAGE_SIZE);
		ASSERT_EQ(0, dt_ioctl(self->log, DIRTYTRACK_LOG_MERGE, &arg));
		EXPECT_EQ(npages, arg.out_pages);
		/* One word less is one too few. */
		arg.bitmap += 8;
		if (words == 1 || bit % 64 + npages > 64) {
			int ret = dt_ioctl(self->log, DIRTYTRACK_LOG_MERGE, &arg);

			EXPECT_TRUE(ret ? errno == EFAULT :
				    arg.out_next < first + npages);
		}
		memset(got, 0, sizeof(got));
		EXPECT_EQ(npages, test_harvest_all(self->log, 0, first, npages, got, 0));
		memset(got, 0, sizeof(got));
		EXPECT_EQ(0, test_harvest_all(self->log, 0, 0, NPAGES, all, 0));
	}
	free(all);
}

#define EXPECT_RANGES(err, done, ...) do {				\
	struct dirtytrack_range __ranges[] = { __VA_ARGS__ };		\
	struct dirtytrack_ranges __arg = {				\
		.size = sizeof(__arg),					\
		.ranges = (uintptr_t)__ranges,				\
		.nr = ARRAY_SIZE(__ranges),				\
	};								\
	int __ret = dt_ioctl(self->log, DIRTYTRACK_LOG_CLEAR_RANGES, &__arg); \
									\
	EXPECT_EQ((err) ? -1 : 0, __ret);				\
	EXPECT_EQ(err, __ret ? errno : 0);				\
	EXPECT_TRUE(__ret || __arg.out_nr == (done));			\
} while (0)

/* A bad range ends the call where it stands, and nothing else is cleared. */
TEST_F(range, bad_ranges)
{
	__u64 *got = bitmap_alloc(NPAGES);

	page_write(self->map, 1, 1);
	page_write(self->map, 2, 1);
	page_write(self->map, 3, 1);
	EXPECT_RANGES(EINVAL, 0, { 1, 0 });
	EXPECT_RANGES(EINVAL, 0, { 0, NPAGES + 1 });
	EXPECT_RANGES(EINVAL, 0, { NPAGES, 1 });
	EXPECT_RANGES(EOVERFLOW, 0, { ~0ULL, 2 });
	EXPECT_RANGES(0, 1, { 1, 1 }, { NPAGES, 1 }, { 2, 1 });
	EXPECT_RANGES(0, 2, { 1, 1 }, { 1, 1 }, { 3, 0 }, { 2, 1 });
	EXPECT_EQ(2, test_harvest_all(self->log, 0, 0, NPAGES, got, 0));
	EXPECT_TRUE(bit_test(got, 2) && bit_test(got, 3));
	free(got);
}

TEST_F(range, bad_arrays)
{
	char *guarded = guarded_alloc(1);
	struct dirtytrack_range *last = (void *)(page_at(guarded, 1) - sizeof(*last));
	struct dirtytrack_ranges arg = { .size = sizeof(arg) };

	arg.nr = 0;
	arg.ranges = (uintptr_t)last;
	EXPECT_ERRNO(EINVAL, dt_ioctl(self->log, DIRTYTRACK_LOG_CLEAR_RANGES, &arg));
	arg.nr = 1;
	arg.ranges = (uintptr_t)last - 4;
	EXPECT_ERRNO(EINVAL, dt_ioctl(self->log, DIRTYTRACK_LOG_CLEAR_RANGES, &arg));
	arg.ranges = 8;
	EXPECT_ERRNO(EFAULT, dt_ioctl(self->log, DIRTYTRACK_LOG_MERGE_RANGES, &arg));
	/* The array ends in the middle: the first is done, then the error. */
	*last = (struct dirtytrack_range){ 7, 1 };
	arg.ranges = (uintptr_t)last;
	arg.nr = 2;
	ASSERT_EQ(0, dt_ioctl(self->log, DIRTYTRACK_LOG_MERGE_RANGES, &arg));
	EXPECT_EQ(1, arg.out_nr);
	EXPECT_EQ(1, arg.out_pages);
	arg.ranges += sizeof(*last);
	arg.nr = 1;
	EXPECT_ERRNO(EFAULT, dt_ioctl(self->log, DIRTYTRACK_LOG_MERGE_RANGES, &arg));
}

/* ---- slots larger than one call does, and signals ---- */

/* A page in each group of 4096. */
static struct dirtytrack_range *one_in_each(__u64 groups)
{
	struct dirtytrack_range *ranges = calloc(groups, sizeof(*ranges));

	for (__u64 i = 0; i < groups; i++)
		ranges[i] = (struct dirtytrack_range){ i * 4096 + hash(i) % 4096, 1 };
	return ranges;
}

/*
 * More groups than one call visits: it stops early, says where, and goes on from
 * there.  MERGE sets the bits of one page a group, CLEAR clears them again.
 */
TEST(bounded_work)
{
	const __u64 groups = 1100, npages = groups * 4096;
	__u64 *chosen = bitmap_alloc(npages), pages;
	int slot = test_new_slot(npages);
	int log = test_log_create(slot, 0);

	for (int clear = 0; clear < 2; clear++) {
		struct dirtytrack_range *ranges = one_in_each(groups);
		struct dirtytrack_bitmap b;
		struct dirtytrack_ranges r;

		for (__u64 i = 0; i < groups; i++)
			bit_set(chosen, ranges[i].first);
		ASSERT_EQ(0, _test_bitmap(log, cmd_bitmap(clear), 0, npages, chosen, 0, &b));
		EXPECT_GT(npages, b.out_next);
		EXPECT_EQ(b.out_next / 4096, b.out_pages);
		ASSERT_EQ(0, _test_bitmap_all(log, cmd_bitmap(clear), b.out_next,
					      npages - b.out_next, chosen, b.out_next,
					      &pages));
		EXPECT_EQ(groups, b.out_pages + pages);

		/* The same by ranges, of what is the other way round again. */
		ASSERT_EQ(0, _test_bitmap_all(log, cmd_bitmap(!clear), 0, npages, chosen, 0,
					      &pages));
		ASSERT_EQ(0, _test_ranges(log, cmd_ranges(clear), ranges, groups, &r));
		EXPECT_GT(groups, r.out_nr);
		EXPECT_EQ(r.out_nr, r.out_pages);
		ASSERT_EQ(0, _test_ranges_all(log, cmd_ranges(clear), ranges + r.out_nr,
					      groups - r.out_nr, &pages));
		EXPECT_EQ(groups, r.out_pages + pages);
		bitmap_zero(chosen, npages);
		EXPECT_EQ(clear ? 0 : groups,
			  test_harvest_all(log, DIRTYTRACK_HARVEST_PEEK, 0, npages, chosen, 0));
		bitmap_zero(chosen, npages);
		free(ranges);
	}
	close(log);
	close(slot);
	free(chosen);
}

static void on_alarm(int sig)
{
	(void)sig;
}

static void signals_each(unsigned int us)
{
	const struct itimerval timer = { { 0, us }, { 0, us } };
	const struct sigaction action = { .sa_handler = on_alarm };

	if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &timer, NULL))
		dt_broken("no signals: %s", strerror(errno));
}

/* How many calls merge or clear all ranges, of which one is one page. */
static unsigned int ranges_calls(struct __test_metadata *_metadata, int log, bool clear,
				 struct dirtytrack_range *ranges, __u32 nr)
{
	struct dirtytrack_ranges arg;
	unsigned int calls = 0;

	while (nr) {
		calls++;
		if (_test_ranges(log, cmd_ranges(clear), ranges, nr, &arg)) {
			ASSERT_EQ(EINTR, errno);
			continue;
		}
		ranges_go_on(&ranges, &nr, arg.out_nr, arg.out_next);
	}
	return calls;
}

/* How many calls merge or clear all of a bitmap. */
static unsigned int bitmap_calls(struct __test_metadata *_metadata, int log, bool clear,
				 const __u64 *map, __u64 npages)
{
	struct dirtytrack_bitmap arg;
	unsigned int calls = 0;
	__u64 at = 0;

	while (at < npages) {
		calls++;
		if (_test_bitmap(log, cmd_bitmap(clear), at, npages - at, map, at, &arg)) {
			ASSERT_EQ(EINTR, errno);
			continue;
		}
		at = arg.out_next;
	}
	return calls;
}

/*
 * A million ranges: one call does them all, for they are in few groups; but with
 * signals all the while they take many calls.
 */
TEST_F_TIMEOUT(range, many_under_signals, 120)
{
	enum { NR = 1 << 20 };
	struct dirtytrack_range *ranges = calloc(NR, sizeof(*ranges));
	__u64 *got = bitmap_alloc(NPAGES);

	for (__u64 i = 0; i < NR; i++)
		ranges[i] = (struct dirtytrack_range){ i % NPAGES, 1 };
	EXPECT_EQ(1, ranges_calls(_metadata, self->log, false, ranges, NR));
	EXPECT_EQ(NPAGES, test_harvest_all(self->log, 0, 0, NPAGES, got, 0));
	signals_each(1000);
	EXPECT_LT(1, ranges_calls(_metadata, self->log, false, ranges, NR));
	signals_each(0);
	EXPECT_EQ(NPAGES, test_harvest_all(self->log, 0, 0, NPAGES, got, 0));
	free(ranges);
	free(got);
}

/* As many groups as one call does, with signals all the while: in many calls. */
TEST(groups_under_signals)
{
	const __u64 groups = 1000, npages = groups * 4096;
	struct dirtytrack_range *ranges = one_in_each(groups);
	__u64 *chosen = bitmap_alloc(npages), *got = bitmap_alloc(npages);
	int slot = test_new_slot(npages);
	int log = test_log_create(slot, 0);

	for (__u64 i = 0; i < groups; i++)
		bit_set(chosen, ranges[i].first);
	for (int clear = 0; clear < 2; clear++) {
		unsigned int by_bitmap = 0, by_ranges = 0, n;

		EXPECT_EQ(1, bitmap_calls(_metadata, log, clear, chosen, npages));
		EXPECT_EQ(1, ranges_calls(_metadata, log, clear, ranges, groups));
		signals_each(200);
		/* A call is short, and the machine may be slow to send a signal. */
		for (n = 0; n < 1000 && (by_bitmap == n || by_ranges == n); n++) {
			by_bitmap += bitmap_calls(_metadata, log, clear, chosen, npages);
			by_ranges += ranges_calls(_metadata, log, clear, ranges, groups);
		}
		signals_each(0);
		EXPECT_LT(n, by_bitmap);
		EXPECT_LT(n, by_ranges);
		bitmap_zero(got, npages);
		EXPECT_EQ(clear ? 0 : groups,
			  test_harvest_all(log, DIRTYTRACK_HARVEST_PEEK, 0, npages, got, 0));
		EXPECT_TRUE(clear || bitmap_equal(chosen, got, npages));
	}
	close(log);
	close(slot);
	free(ranges);
	free(chosen);
	free(got);
}

TEST_HARNESS_MAIN
