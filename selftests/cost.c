// SPDX-License-Identifier: GPL-2.0-only
/*
 * What things cost, counted in instructions: from the system call, or the store that
 * faults, to its return.
 *
 * Runs in a machine started by "tools/vm/run --icount" and nowhere else: there a
 * figure is the same on every host and in every run, so that it can be judged.  One
 * that nothing interrupted is the least of some, and most are equal to it.
 */
#include "dirtytrack_test.h"
#include "../tools/bench/ticks.h"

#define GIB	(1ULL << 30 >> DIRTYTRACK_PAGE_SHIFT)
#define GROUP	4096

/* What nothing interrupted: the median, if as many as that are alike. */
#define undisturbed(values, n) ({					\
	double __median = ticks_median(values, n);			\
									\
	EXPECT_EQ((values)[(n) / 4], __median) {			\
		TH_LOG("%.0f, %.0f, %.0f: not the same each time",	\
		       (values)[0], (values)[(n) / 4], __median);	\
	}								\
	__median;							\
})

FIXTURE(cost)
{
	int slot;
	__u64 npages;
	char *map;
};

FIXTURE_SETUP(cost)
{
	if (!ticks_per_instruction())
		dt_broken("start the machine with tools/vm/run --icount");
}

FIXTURE_TEARDOWN(cost)
{
}

#define open_slot(pages) do {						\
	self->npages = pages;						\
	self->slot = test_new_slot(self->npages);			\
	self->map = test_map(self->slot, 0, self->npages);		\
} while (0)

#define close_slot() do {						\
	test_unmap(self->map, self->npages);				\
	close(self->slot);						\
} while (0)

/* One harvest of all of the slot. */
static double harvest_cost(int log, __u64 npages, __u32 flags, __u64 *seen,
			   __u64 expected)
{
	struct dirtytrack_harvest arg = {
		.size = sizeof(arg),
		.flags = flags,
		.npages = npages,
		.bitmap = (uintptr_t)seen,
	};
	double start = ticks_now(), ticks;
	int err = ioctl(log, DIRTYTRACK_LOG_HARVEST, &arg);

	ticks = ticks_now() - start;
	if (err || arg.out_next != npages || arg.out_dirty != expected)
		dt_broken("HARVEST: %s, %llu pages of %llu", err ? strerror(errno) : "done",
			  arg.out_dirty, expected);
	return ticks;
}

/* ---- harvests ---- */

#define ROUNDS 41

/* From the idle log of a slot of 4 GiB, and of 64, as the figure was asked for. */
TEST_F(cost, idle_harvest)
{
	static const __u64 sizes[] = { 1, 4, 64 };
	double values[ROUNDS], cost;

	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		__u64 npages = sizes[s] * GIB;
		int slot = test_new_slot(npages);
		int log = test_log_create(slot, 0);

		for (int i = 0; i < ROUNDS; i++)
			values[i] = harvest_cost(log, npages, 0, NULL, 0);
		cost = undisturbed(values, ROUNDS);
		TH_LOG("idle, %llu GiB: %.0f instructions", sizes[s], cost);
		EXPECT_GT(10000, cost);
		close(log);
		close(slot);
	}
}

/* What was dirty once, and is not any more, is forgotten by the next harvest. */
TEST_F(cost, idle_after_work)
{
	double fresh[ROUNDS], used[ROUNDS];
	__u64 *seen = bitmap_alloc(GIB);
	int log;

	open_slot(GIB);
	log = test_log_create(self->slot, 0);
	for (int i = 0; i < ROUNDS; i++)
		fresh[i] = harvest_cost(log, GIB, 0, seen, 0);
	for (__u64 page = 0; page < GIB; page += GROUP)
		page_write(self->map, page, 1);
	harvest_cost(log, GIB, 0, seen, GIB / GROUP);
	harvest_cost(log, GIB, 0, seen, 0);
	for (int i = 0; i < ROUNDS; i++)
		used[i] = harvest_cost(log, GIB, 0, seen, 0);
	EXPECT_EQ(undisturbed(fresh, ROUNDS), undisturbed(used, ROUNDS));
	close(log);
	close_slot();
	free(seen);
}

/* Reads every word, as cheaply as a loop can. */
static __u64 walk(const __u64 *bitmap, __u64 words)
{
	const __u64 *end = bitmap + words;

	while (bitmap < end && !*bitmap)
		bitmap++;
	return words - (end - bitmap);
}

/* One page in 64 GiB is found 100 times faster than by a walk of the bitmap. */
TEST_F(cost, one_page_in_64_gib)
{
	static const struct { __u32 flags; const char *name; } forms[] = {
		{ 0, "harvest" }, { DIRTYTRACK_HARVEST_PEEK, "peek" },
	};
	const __u64 npages = 64 * GIB, page = npages - 1;
	double values[ROUNDS], walks[ROUNDS], cost, scan;
	struct dirtytrack_log_info info;
	__u64 *seen = bitmap_alloc(npages);
	const __u64 *shown;
	int log;

	open_slot(npages);
	log = test_log_create(self->slot, 0);
	test_log_info(log, &info);
	shown = mmap(NULL, info.out_bitmap_size, PROT_READ, MAP_SHARED | MAP_POPULATE,
		     log, info.out_bitmap_offset);
	ASSERT_NE(MAP_FAILED, shown);
	bit_set(seen, page);
	page_write(self->map, page, 1);
	harvest_cost(log, npages, DIRTYTRACK_HARVEST_PEEK, seen, 1);
	for (int i = 0; i < ROUNDS; i++) {
		double start = ticks_now();
		__u64 found = walk(shown, npages / 64);

		walks[i] = ticks_now() - start;
		ASSERT_EQ(page / 64, found);
	}
	scan = walks[0];
	for (int i = 1; i < ROUNDS; i++)
		if (walks[i] < scan)
			scan = walks[i];
	harvest_cost(log, npages, 0, seen, 1);

	for (size_t f = 0; f < ARRAY_SIZE(forms); f++) {
		for (int i = 0; i < ROUNDS; i++) {
			page_write(self->map, page, 2);
			values[i] = harvest_cost(log, npages, forms[f].flags, seen, 1);
			if (forms[f].flags)
				harvest_cost(log, npages, 0, seen, 1);
		}
		cost = ticks_median(values, ROUNDS);
		TH_LOG("one page in 64 GiB: %s %.0f instructions, walk %.0f: %.0f times",
		       forms[f].name, cost, scan, scan / cost);
		EXPECT_LE(100 * cost, scan);
	}
	munmap((void *)shown, info.out_bitmap_size);
	close(log);
	close_slot();
	free(seen);
}

/* ---- faults ---- */

#define FAULTS	401
#define LOGS	8

/*
 * The first write to a page since the last harvest costs the same with eight logs.
 * One page of each word is written, which is not enough to open the others, and what
 * the harvest left open the next one closes: so each of the writes faults.
 */
TEST_F(cost, fault_with_eight_logs)
{
	const __u64 npages = FAULTS * 64;
	struct dirtytrack_slot_info before, after;
	double values[FAULTS], with[2];
	__u64 seen[FAULTS];
	int logs[LOGS];

	open_slot(npages);
	for (__u64 i = 0; i < FAULTS; i++)
		page_write(self->map, i * 64, 1);
	logs[0] = test_log_create(self->slot, 0);
	for (int n = 0; n < 2; n++) {
		for (int i = 1; n && i < LOGS; i++)
			logs[i] = test_log_create(self->slot, 0);
		test_slot_info(self->slot, &before);
		for (__u64 i = 0; i < FAULTS; i++) {
			double start = ticks_now();

			page_write(self->map, i * 64, 2 + n);
			values[i] = ticks_now() - start;
		}
		test_slot_info(self->slot, &after);
		EXPECT_EQ(FAULTS, after.out_faults - before.out_faults);
		/* What a fault takes may depend on the page, but not on the logs. */
		with[n] = ticks_median(values, FAULTS);
		harvest_cost(logs[0], npages, 0, seen, FAULTS);
		harvest_cost(logs[0], npages, 0, seen, 0);
	}
	TH_LOG("a fault: %.0f instructions with one log, %.0f with %d", with[0], with[1],
	       LOGS);
	EXPECT_EQ(with[0], with[1]);
	for (int i = 0; i < LOGS; i++)
		close(logs[i]);
	close_slot();
}

/* ---- starts ---- */

#define START_PAGES	(64 * GROUP)	/* 1 GiB */
#define START_ROUNDS	5

static double least_start(int slot, __u32 flags)
{
	struct dirtytrack_log_create arg = { .size = sizeof(arg), .flags = flags };
	double start, ticks, least = 0;

	for (int i = 0; i < START_ROUNDS; i++) {
		start = ticks_now();
		if (ioctl(slot, DIRTYTRACK_LOG_CREATE, &arg))
			dt_broken("LOG_CREATE: %s", strerror(errno));
		ticks = ticks_now() - start;
		if (!i || ticks < least)
			least = ticks;
		close(arg.out_fd);
	}
	return least;
}

/*
 * An all-set start costs the same for an empty slot and a full one but for filling
 * the bitmap, which is a few instructions a page: it does nothing to a page.
 */
TEST_F(cost, full_start)
{
	double empty, full;

	open_slot(START_PAGES);
	empty = least_start(self->slot, DIRTYTRACK_LOG_ALL_SET);
	ASSERT_EQ(0, fallocate(self->slot, 0, 0, START_PAGES * PAGE_SIZE));
	ASSERT_EQ(START_PAGES, test_resident(self->slot));
	full = least_start(self->slot, DIRTYTRACK_LOG_ALL_SET);
	TH_LOG("all set: %.0f instructions, empty; %.0f, full: %.1f a page", empty, full,
	       (full - empty) / START_PAGES);
	EXPECT_LE(full - empty, 2.0 * START_PAGES);
	close_slot();
}

/* A clean start of a slot that nobody writes to is no more than an idle harvest. */
TEST_F(cost, clean_start)
{
	double empty, full;

	open_slot(START_PAGES);
	empty = least_start(self->slot, 0);
	ASSERT_EQ(0, fallocate(self->slot, 0, 0, START_PAGES * PAGE_SIZE));
	least_start(self->slot, 0);
	full = least_start(self->slot, 0);
	TH_LOG("clean: %.0f instructions, empty; %.0f, full", empty, full);
	EXPECT_LE(full, empty + 1000);
	close_slot();
}

TEST_HARNESS_MAIN
