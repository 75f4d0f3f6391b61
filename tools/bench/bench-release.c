// SPDX-License-Identifier: GPL-2.0-only
/*
 * Seven eighths of a slot given back to the host: page by page, or in ranges
 *
 *     bench-release [-j FILE] [-n PAGES] [-r RUNS]
 *
 * A balloon inflates: the pages have memory, and are mapped writable.  In 2016 that was done
 * page by page, and for 7 of 8 GB took 4126 ms; in ranges it was 590.
 *
 *	qemu		for each page fallocate(PUNCH_HOLE) and madvise(DONTNEED): what QEMU
 *			does for the balloon of a guest with pages of 4 KiB
 *	punch		for each page fallocate(PUNCH_HOLE)
 *	page		for each page a SLOT_RELEASE
 *	range punch	for each range fallocate(PUNCH_HOLE)
 *	ranges		SLOT_RELEASE of all ranges
 *
 * Then it deflates: memory for all of a slot, beside MAP_POPULATE of a memfd, which maps it,
 * too.  So a row has both: what is populated, is then mapped.
 *
 * After each, the pages that are left are counted, and have what they had.  The ways take
 * turns; medians of the runs are printed.  An unmap is a run of pages taken out of the
 * mappings; what punches do of it is not counted by the module, but known.  What each way
 * causes of TLB flushes and calls of MMU notifiers is counted apart from the times, before
 * them: see counters.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "counters.h"
#include "sheet.h"
#include "small.h"

#define MAX_RUNS	99
/* Pages of 2 MiB. */
#define CHUNK		512
/* Counts of each page do not depend on how many there are: of a larger slot, a part. */
#define COUNTED_PAGES	(8 * CHUNK)
#define NELEM(array)	(sizeof(array) / sizeof((array)[0]))

static uint64_t npages = 32768;
static int device_fd, slot_fd;
static char *mem;
static struct dirtytrack_range *ranges, *singles;
static uint32_t nr_ranges, nr_singles;

static uint64_t size(void)
{
	return npages * DTRACK_PAGE_SIZE;
}

static uint64_t *word(uint64_t page)
{
	return (uint64_t *)(mem + page * DTRACK_PAGE_SIZE);
}

/* ---- ways to release ---- */

/* Each returns the unmaps. */

static void punch(const struct dirtytrack_range *r)
{
	if (fallocate(slot_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      r->first * DTRACK_PAGE_SIZE, r->npages * DTRACK_PAGE_SIZE))
		small_die("PUNCH_HOLE", errno);
}

static uint64_t by_punch(void)
{
	uint32_t i;

	for (i = 0; i < nr_singles; i++)
		punch(&singles[i]);
	return nr_singles;
}

static uint64_t as_qemu(void)
{
	uint32_t i;

	for (i = 0; i < nr_singles; i++) {
		punch(&singles[i]);
		if (madvise(word(singles[i].first), DTRACK_PAGE_SIZE, MADV_DONTNEED))
			small_die("MADV_DONTNEED", errno);
	}
	return nr_singles;
}

static uint64_t release(const struct dirtytrack_range *r, uint32_t nr)
{
	struct dtrack_released done = { 0 };
	int ret = dtrack_release(slot_fd, r, nr, &done);

	if (ret)
		small_die("SLOT_RELEASE", -ret);
	return done.unmaps;
}

static uint64_t by_page(void)
{
	uint64_t unmaps = 0;
	uint32_t i;

	for (i = 0; i < nr_singles; i++)
		unmaps += release(&singles[i], 1);
	return unmaps;
}

/* The module takes them out of the mappings chunk by chunk. */
static uint64_t by_range_punch(void)
{
	uint64_t unmaps = 0;
	uint32_t i;

	for (i = 0; i < nr_ranges; i++) {
		const struct dirtytrack_range *r = &ranges[i];

		punch(r);
		unmaps += (r->first + r->npages - 1) / CHUNK - r->first / CHUNK + 1;
	}
	return unmaps;
}

static uint64_t by_ranges(void)
{
	return release(ranges, nr_ranges);
}

static const struct {
	const char *name;
	uint64_t (*release)(void);
} ways[] = {
	{ "qemu", as_qemu },
	{ "punch", by_punch },
	{ "page", by_page },
	{ "range punch", by_range_punch },
	{ "ranges", by_ranges },
};

/* Of those, the one that the others are compared with. */
#define PAGE_BY_PAGE 2

struct release_times {
	double us[MAX_RUNS];
	uint64_t unmaps;
};

static uint64_t resident(int fd)
{
	struct dirtytrack_slot_info info;
	int ret = dtrack_slot_info(fd, &info);

	if (ret)
		small_die("SLOT_INFO", -ret);
	return info.out_resident;
}

static bool is_kept(uint64_t page)
{
	return page % 8 == 0;
}

static void fill(void *unused)
{
	uint64_t page;

	(void)unused;
	for (page = 0; page < npages; page++)
		*(volatile uint64_t *)word(page) = page + 1;
}

/* The others are there, and as fill() left them. */
static void check_left(unsigned int way, bool scattered)
{
	uint64_t page;

	if (resident(slot_fd) != npages - nr_singles) {
		fprintf(stderr, "bench-release: %s: %llu pages are left\n", ways[way].name,
			(unsigned long long)resident(slot_fd));
		exit(1);
	}
	for (page = 0; page < npages; page++) {
		bool kept = scattered ? is_kept(page) : page >= npages / 8 * 7;

		if (kept && *word(page) != page + 1) {
			fprintf(stderr, "bench-release: %s: page %llu is not what it was\n",
				ways[way].name, (unsigned long long)page);
			exit(1);
		}
	}
}

static void measure_release(unsigned int way, bool scattered, struct release_times *t,
			    unsigned int run)
{
	double start;

	fill(NULL);
	start = small_now_us();
	t->unmaps = ways[way].release();
	t->us[run] = small_now_us() - start;
	check_left(way, scattered);
}

/* Seven pages and one that stays, and so on; or seven eighths, and what stays. */
static void make_ranges(bool scattered)
{
	uint64_t page;

	nr_ranges = 0;
	nr_singles = 0;
	if (scattered)
		for (page = 0; page < npages; page += 8)
			ranges[nr_ranges++] = (struct dirtytrack_range) { page + 1, 7 };
	else
		ranges[nr_ranges++] = (struct dirtytrack_range) { 0, npages / 8 * 7 };
	for (page = 0; page < npages; page++)
		if (scattered ? !is_kept(page) : page < npages / 8 * 7)
			singles[nr_singles++] = (struct dirtytrack_range) { page, 1 };
}

/* Of each way, for both kinds of ranges; shared with the process that counts. */
static struct counts (*counted)[NELEM(ways)];

static void release_by(void *arg)
{
	ways[*(unsigned int *)arg].release();
}

static void count_release(struct counters *counters, bool scattered)
{
	unsigned int i;

	make_ranges(scattered);
	for (i = 0; i < NELEM(ways); i++) {
		counted[scattered][i] = counters_of(counters, fill, release_by, &i);
		check_left(i, scattered);
	}
}

static uint64_t counted_pages(void)
{
	return npages < COUNTED_PAGES ? npages : COUNTED_PAGES;
}

/* Of 1000 pages that were released. */
static void show_count(struct sheet *sheet, int64_t count)
{
	if (count == COUNT_UNKNOWN)
		sheet_unknown(sheet);
	else
		sheet_number(sheet, count * 1000.0 / (counted_pages() / 8 * 7));
}

static void bench_release(struct sheet *sheet, bool scattered, unsigned int runs)
{
	static struct release_times times[NELEM(ways)];
	double us[NELEM(ways)];
	unsigned int i, run;

	make_ranges(scattered);
	/* One run unmeasured. */
	for (run = 0; run <= runs; run++)
		for (i = 0; i < NELEM(ways); i++)
			measure_release(i, scattered, &times[i], run ? run - 1 : 0);
	for (i = 0; i < NELEM(ways); i++)
		us[i] = sheet_median(times[i].us, runs);
	for (i = 0; i < NELEM(ways); i++) {
		sheet_text(sheet, scattered ? "7 of each 8" : "in one");
		sheet_text(sheet, ways[i].name);
		sheet_number(sheet, us[i] / 1000);
		sheet_number(sheet, us[i] * 1000 / nr_singles);
		sheet_number(sheet, times[i].unmaps);
		show_count(sheet, counted[scattered][i].flushes);
		show_count(sheet, counted[scattered][i].notified);
		sheet_number(sheet, us[0] / us[i]);
		sheet_number(sheet, us[PAGE_BY_PAGE] / us[i]);
	}
}

/* ---- ways to populate ---- */

/* Each begins with a file that has no memory, and returns a mapping of it, or NULL. */

static char *map_populated(int fd)
{
	char *addr = mmap(NULL, size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			  fd, 0);

	if (addr == MAP_FAILED)
		small_die("MAP_POPULATE", errno);
	return addr;
}

static char *populate(int fd)
{
	const struct dirtytrack_range all = { 0, npages };
	struct dtrack_ranges_done done = { 0 };
	int ret = dtrack_populate(fd, &all, 1, DIRTYTRACK_NODE_ANY, &done);

	if (ret || done.pages != npages)
		small_die("SLOT_POPULATE", ret ? -ret : ENODATA);
	return NULL;
}

static char *populate_and_map(int fd)
{
	populate(fd);
	return map_populated(fd);
}

static char *allocate(int fd)
{
	if (fallocate(fd, 0, 0, size()))
		small_die("fallocate", errno);
	return NULL;
}

static const struct {
	const char *name;
	bool is_slot;
	char *(*populate)(int fd);
} populates[] = {
	{ "memfd, MAP_POPULATE", false, map_populated },
	{ "memfd, fallocate", false, allocate },
	{ "slot, SLOT_POPULATE", true, populate },
	{ "slot, SLOT_POPULATE, MAP_POPULATE", true, populate_and_map },
	{ "slot, MAP_POPULATE", true, map_populated },
	{ "slot, fallocate", true, allocate },
};

static double measure_populate(unsigned int way)
{
	bool is_slot = populates[way].is_slot;
	double start, us;
	char *addr;
	int fd;

	fd = is_slot ? dtrack_slot_create(device_fd, size(), NULL, NULL) :
		       memfd_create("bench-release", MFD_CLOEXEC);
	if (fd < 0 || (!is_slot && ftruncate(fd, size())))
		small_die("a file to populate", fd < 0 && is_slot ? -fd : errno);
	start = small_now_us();
	addr = populates[way].populate(fd);
	us = small_now_us() - start;
	if (is_slot && resident(fd) != npages)
		small_die(populates[way].name, ENODATA);
	if (addr)
		munmap(addr, size());
	close(fd);
	return us;
}

static void bench_populate(struct sheet *sheet, unsigned int runs)
{
	static double times[NELEM(populates)][MAX_RUNS];
	double us[NELEM(populates)];
	unsigned int i, run;

	for (run = 0; run <= runs; run++)
		for (i = 0; i < NELEM(populates); i++)
			times[i][run ? run - 1 : 0] = measure_populate(i);
	for (i = 0; i < NELEM(populates); i++)
		us[i] = sheet_median(times[i], runs);
	for (i = 0; i < NELEM(populates); i++) {
		sheet_text(sheet, "populate");
		sheet_text(sheet, populates[i].name);
		sheet_number(sheet, us[i] / 1000);
		sheet_number(sheet, us[i] * 1000 / npages);
		/* Nothing is taken out of mappings. */
		sheet_unknown(sheet);
		sheet_unknown(sheet);
		sheet_unknown(sheet);
		sheet_number(sheet, us[0] / us[i]);
		sheet_number(sheet, us[0] / us[i]);
	}
}

/* ---- */

static void open_slot(void)
{
	device_fd = dtrack_open_device(NULL);
	if (device_fd < 0)
		small_die(DIRTYTRACK_DEVICE, -device_fd);
	slot_fd = dtrack_slot_create(device_fd, size(), NULL, NULL);
	if (slot_fd < 0)
		small_die("creating a slot", -slot_fd);
	mem = mmap(NULL, size(), PROT_READ | PROT_WRITE, MAP_SHARED, slot_fd, 0);
	if (mem == MAP_FAILED)
		small_die("mmap of a slot", errno);
	ranges = calloc(npages, sizeof(*ranges));
	singles = calloc(npages, sizeof(*singles));
	if (!ranges || !singles)
		small_die("memory", ENOMEM);
}

/* In a process of its own: nothing is timed where there was a VM. */
static void count_releases(void)
{
	struct counters *counters;
	int status;
	pid_t pid;

	counted = mmap(NULL, 2 * sizeof(*counted), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counted == MAP_FAILED)
		small_die("memory", errno);
	pid = fork();
	if (pid < 0)
		small_die("fork", errno);
	if (!pid) {
		npages = counted_pages();
		open_slot();
		counters = counters_open(mem, size());
		count_release(counters, false);
		count_release(counters, true);
		counters_close(counters);
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		small_die("waitpid", errno);
	if (status) {
		fprintf(stderr, "bench-release: counting has failed\n");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static const struct sheet_column columns[] = {
		{ "pages", "PAGES" },
		{ "way", "WAY" },
		{ "ms", "TIME, ms" },
		{ "page_ns", "A PAGE, ns" },
		{ "unmaps", "UNMAPS" },
		{ "flushes_per_1000", "FLUSHES, per 1000" },
		{ "notified_per_1000", "NOTIFIED, per 1000" },
		{ "first_to_this", "FIRST ROW, times this" },
		{ "page_to_this", "PAGE BY PAGE, times this" },
	};
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
	    pages < 64 || pages % 8 ||
	    pages > 1 << 24)
		return small_usage("[-j FILE] [-n PAGES] [-r RUNS]");
	npages = pages;
	count_releases();
	open_slot();
	sheet = sheet_new("Release of 7/8 of a slot, and populating one; medians", columns,
			  NELEM(columns));
	bench_release(sheet, false, runs);
	bench_release(sheet, true, runs);
	munmap(mem, size());
	close(slot_fd);
	bench_populate(sheet, runs);
	sheet_finish(sheet, json);
	return 0;
}
