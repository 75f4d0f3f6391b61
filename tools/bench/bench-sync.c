// SPDX-License-Identifier: GPL-2.0-only
/*
 * A consumer's bitmap that is not aligned as the slot's: one call a page, or merged
 *
 *     bench-sync [-j FILE] [-n PAGES] [-r RUNS]
 *
 * Guest memory seldom begins where a word of the consumer's bitmap does.  Until 2025
 * QEMU then went page by page, and told KVM to clear each one by a call of its own.
 * Three ways to bring what is dirty into such a bitmap and have it protected again, in
 * two phases as QEMU does: PEEK, then CLEAR
 *
 *	page	one CLEAR for each page
 *	run	one CLEAR_RANGES for all runs of pages
 *	word	one CLEAR for the whole, by the consumer's bitmap as it is
 *
 * and, for a consumer in one phase, HARVEST.  The clears alone are timed as well: the
 * peek is the same for all.  Each must leave the log empty and have counted what is
 * new in the bitmap.  The ways take turns; medians of the runs are printed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "sheet.h"
#include "small.h"

#define MAX_RUNS	99
/* Where the slot's first page is in the bitmap. */
#define BIT		13

static uint64_t npages = 16384;
static int slot_fd, log_fd;
static char *mem;
static uint64_t *bitmap;
static struct dirtytrack_range *ranges;

/* ---- ways to clear ---- */

static void clear_bitmap(uint64_t first, uint64_t count)
{
	struct dirtytrack_bitmap arg = { .size = sizeof(arg) };
	uint64_t end = first + count;

	while (first < end) {
		arg.first = first;
		arg.npages = end - first;
		arg.bitmap = (uintptr_t)bitmap;
		arg.bit = BIT + first;
		if (ioctl(log_fd, DIRTYTRACK_LOG_CLEAR, &arg))
			small_die("CLEAR", errno);
		first = arg.out_next;
	}
}

static void by_page(void)
{
	uint64_t page;

	for (page = dtrack_bitmap_next(bitmap, BIT + npages, 0); page < BIT + npages;
	     page = dtrack_bitmap_next(bitmap, BIT + npages, page + 1))
		clear_bitmap(page - BIT, 1);
}

static void by_run(void)
{
	struct dirtytrack_ranges arg = { .size = sizeof(arg) };
	uint64_t first, count;
	uint32_t nr = 0, done = 0;

	dtrack_for_each_run(first, count, bitmap, BIT + npages)
		ranges[nr++] = (struct dirtytrack_range) { first - BIT, count };
	while (done < nr) {
		arg.ranges = (uintptr_t)(ranges + done);
		arg.nr = nr - done;
		if (ioctl(log_fd, DIRTYTRACK_LOG_CLEAR_RANGES, &arg))
			small_die("CLEAR_RANGES", errno);
		done += arg.out_nr;
		if (arg.out_next) {
			ranges[done].npages -= arg.out_next - ranges[done].first;
			ranges[done].first = arg.out_next;
		}
	}
}

static void by_word(void)
{
	clear_bitmap(0, npages);
}

static const struct {
	const char *name;
	void (*clear)(void);	/* NULL: in one phase */
} ways[] = {
	{ "page", by_page },
	{ "run", by_run },
	{ "word", by_word },
	{ "harvest", NULL },
};

#define NR_WAYS (sizeof(ways) / sizeof(ways[0]))

/* ---- measurement ---- */

struct times {
	double all[MAX_RUNS];
	double clear[MAX_RUNS];
};

static void measure(unsigned int way, uint64_t step, struct times *t, unsigned int run)
{
	struct dtrack_harvested got;
	double start, middle, end;
	uint64_t dirty = 0;
	int ret;

	dtrack_bitmap_clear(bitmap, 0, BIT + npages);
	for (uint64_t page = 0; page < npages; page += step, dirty++)
		*(volatile char *)(mem + page * DTRACK_PAGE_SIZE) += 1;

	start = small_now_us();
	ret = (ways[way].clear ? dtrack_peek : dtrack_harvest)(log_fd, 0, npages, bitmap,
							      BIT, &got);
	middle = small_now_us();
	if (ret)
		small_die("PEEK or HARVEST", -ret);
	if (ways[way].clear)
		ways[way].clear();
	end = small_now_us();
	t->all[run] = end - start;
	t->clear[run] = end - middle;

	if (got.fresh != dirty || dtrack_bitmap_count(bitmap, 0, BIT + npages) != dirty) {
		fprintf(stderr, "bench-sync: %s: %llu pages of %llu\n", ways[way].name,
			(unsigned long long)got.fresh, (unsigned long long)dirty);
		exit(1);
	}
	ret = dtrack_harvest(log_fd, 0, npages, bitmap, BIT, &got);
	if (ret || got.dirty) {
		fprintf(stderr, "bench-sync: %s left pages in the log\n", ways[way].name);
		exit(1);
	}
}

static void open_slot(void)
{
	int device = dtrack_open_device(NULL);

	if (device < 0)
		small_die(DIRTYTRACK_DEVICE, -device);
	slot_fd = dtrack_slot_create(device, npages * DTRACK_PAGE_SIZE, NULL, NULL);
	if (slot_fd < 0)
		small_die("creating a slot", -slot_fd);
	mem = mmap(NULL, npages * DTRACK_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		   slot_fd, 0);
	if (mem == MAP_FAILED)
		small_die("mmap of a slot", errno);
	memset(mem, 1, npages * DTRACK_PAGE_SIZE);
	log_fd = dtrack_log_create(slot_fd, 0);
	if (log_fd < 0)
		small_die("creating a log", -log_fd);
	bitmap = dtrack_bitmap_alloc(npages + BIT);
	ranges = calloc(npages, sizeof(*ranges));
	if (!bitmap || !ranges)
		small_die("memory", ENOMEM);
}

int main(int argc, char **argv)
{
	static const struct sheet_column columns[] = {
		{ "dirty", "DIRTY" },
		{ "way", "WAY" },
		{ "sync_us", "SYNC, us" },
		{ "page_to_this", "PAGE BY PAGE, times this" },
		{ "clear_us", "ITS CLEARS, us" },
		{ "page_clears_to_this", "PAGE BY PAGE, times this" },
	};
	static const struct {
		const char *name;
		uint64_t step;
	} cases[] = {
		{ "all", 1 },
		{ "1 in 2", 2 },
		{ "1 in 16", 16 },
	};
	static struct times times[NR_WAYS];
	unsigned int runs = 5, pages = npages;
	const char *json = NULL;
	struct sheet *sheet;
	const struct small_option options[] = {
		{ 'j', .text = &json },
		{ 'n', .number = &pages },
		{ 'r', .number = &runs },
		{ 0 }
	};

	if (!small_options(argc, argv, options) || !runs || runs > MAX_RUNS ||
	    pages < 16 || pages > 1 << 24)
		return small_usage("[-j FILE] [-n PAGES] [-r RUNS]");
	npages = pages;
	open_slot();
	sheet = sheet_new("Sync into a bitmap that is not aligned as the slot, us, medians",
			  columns, sizeof(columns) / sizeof(columns[0]));
	for (unsigned int c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		double page = 0, page_clears = 0;

		/* One run unmeasured. */
		for (unsigned int run = 0; run <= runs; run++)
			for (unsigned int i = 0; i < NR_WAYS; i++)
				measure(i, cases[c].step, &times[i], run ? run - 1 : 0);
		for (unsigned int i = 0; i < NR_WAYS; i++) {
			double all = sheet_median(times[i].all, runs);
			double clears = sheet_median(times[i].clear, runs);

			if (!i) {
				page = all;
				page_clears = clears;
			}
			sheet_text(sheet, cases[c].name);
			sheet_text(sheet, ways[i].name);
			sheet_number(sheet, all);
			sheet_number(sheet, page / all);
			sheet_number(sheet, ways[i].clear ? clears : 0);
			sheet_number(sheet, ways[i].clear ? page_clears / clears : 0);
		}
	}
	sheet_finish(sheet, json);
	return 0;
}
