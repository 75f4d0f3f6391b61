// SPDX-License-Identifier: GPL-2.0-only
/*
 * Restoring the pages that are dirty in either of two bitmaps, by several threads
 *
 *     bench-flush [-m] [-j FILE] [-n PAGES] [-r RUNS] [-t THREADS]
 *
 * In 2016 COLO's secondary copied its cache back by several threads, each of which had a
 * range of addresses: when the dirty pages are close together, one of them has all the
 * work.  Three ways, by one thread and by THREADS, with the dirty pages scattered, in one
 * region, and few:
 *
 *	flush	dtrack_flush()
 *	split	the addresses split beforehand, one range a thread
 *	memcpy	the same pages copied from lists that are of the same length: what there
 *		is to be reached.  The lists are made before the clock runs.
 *
 * Beside them a control: threads that take small sums to compute, as the flush takes
 * parts.  Where it gains less than THREADS times, the machine does other things, and
 * the gains of the others say as little.
 *
 * -m measures searching alone, with callbacks that do nothing, beside reading the two
 * bitmaps.  What is dirty is visited by run, and its bits are cleared.
 *
 * Beside what there is a goal for it is said whether it was reached: on a machine that does
 * other things that says little, and nothing fails by it.
 *
 * Ways and numbers of threads take turns in each run.  A gain is the median of the runs'
 * own gains; beside it that of the fastest run with all threads over the fastest with
 * one, which is less what others do to it.  Each flush is compared with the source, and its bitmaps must be clear.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench.h"
#include "sheet.h"
#include "small.h"

#define MAX_RUNS	99
#define MAX_THREADS	64
#define PAGES_PER_GIB	((1ULL << 30) >> DIRTYTRACK_PAGE_SHIFT)
/* Of all pages one in so many is dirty. */
#define PARTS		4
/* Pages of an epoch that is short. */
#define FEW		2000

/* What a flush by two threads is to gain, scattered and clustered alike, */
#define GOAL_GAIN	1.8
#define GOAL_THREADS	2
/* how much of what memcpy reaches, */
#define GOAL_OF_MEMCPY	0.9
/* and what searching may take beside reading. */
#define GOAL_SEARCH	1.5

static unsigned int runs = 7;
static unsigned int max_threads = 2;

static void __attribute__((noreturn)) fail(const char *what)
{
	fprintf(stderr, "bench-flush: %s\n", what);
	exit(EXIT_TROUBLE);
}

static void *map_memory(size_t size)
{
	/* Of single pages, as a slot is. */
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		fail(strerror(errno));
	return p;
}

static uint64_t *new_bitmap(uint64_t nbits)
{
	uint64_t *bitmap = dtrack_bitmap_alloc(nbits);

	if (!bitmap)
		fail(strerror(ENOMEM));
	/* Its pages are its own, not the kernel's one of zeros. */
	dtrack_bitmap_set(bitmap, 0, nbits);
	dtrack_bitmap_clear(bitmap, 0, nbits);
	return bitmap;
}

/* In the first, in the second, or in both. */
static void set_either(uint64_t *bitmaps[2], uint64_t page, uint64_t *state)
{
	uint64_t which = random_next(state) % 3;

	if (which != 1)
		dtrack_bitmap_set(bitmaps[0], page, 1);
	if (which != 0)
		dtrack_bitmap_set(bitmaps[1], page, 1);
}

/* Half the range, in percent of the median. */
static double spread(double *values)
{
	double median = sheet_median(values, runs);

	return (values[runs - 1] - values[0]) / 2 / median * 100;
}

static void say_goal(struct sheet *sheet, const char *relation, double goal, bool reached)
{
	char text[32];

	snprintf(text, sizeof(text), "%s %.1f: %s", relation, goal, reached ? "reached" : "not");
	sheet_text(sheet, text);
}

static void at_least(struct sheet *sheet, bool has_goal, double value, double goal)
{
	if (has_goal)
		say_goal(sheet, ">=", goal, value >= goal);
	else
		sheet_unknown(sheet);
}

/* ---- the memory ---- */

static uint64_t npages;
static char *from, *to;
/* What is dirty, and what a way is given. */
static uint64_t *dirty[2], *bitmaps[2];

static uint64_t anywhere(uint64_t i, uint64_t *state)
{
	(void)i;
	return random_next(state) % npages;
}

/* From the first page on: all in the first range of a split, however many there are. */
static uint64_t at_the_begin(uint64_t i, uint64_t *state)
{
	(void)state;
	return i;
}

static const struct {
	const char *name;
	uint64_t (*page)(uint64_t i, uint64_t *state);
	bool few;
} patterns[] = {
	{ "scattered", anywhere, false },
	{ "clustered", at_the_begin, false },
	{ "few, scattered", anywhere, true },
	{ "few, clustered", at_the_begin, true },
};

static bool is_dirty(uint64_t page)
{
	return dtrack_bitmap_test(dirty[0], page) || dtrack_bitmap_test(dirty[1], page);
}

static uint64_t make_dirty(unsigned int pattern)
{
	uint64_t wanted = patterns[pattern].few ? FEW : npages / PARTS;
	uint64_t state = 1, nr = 0, i = 0;

	for (int b = 0; b < 2; b++)
		dtrack_bitmap_clear(dirty[b], 0, npages);
	while (nr < wanted) {
		uint64_t page = patterns[pattern].page(i++, &state);

		if (is_dirty(page))
			continue;
		set_either(dirty, page, &state);
		nr++;
	}
	return nr;
}

static void check(const char *way, bool clears)
{
	bool bad = false;

	for (uint64_t page = 0; page < npages; page++) {
		uint64_t at = page * DTRACK_PAGE_SIZE;

		if (is_dirty(page))
			bad |= memcmp(from + at, to + at, DTRACK_PAGE_SIZE) != 0;
		else
			bad |= *page_word(to, page) != (uint32_t)~*page_word(from, page);
	}
	for (int b = 0; clears && b < 2; b++)
		bad |= dtrack_bitmap_count(bitmaps[b], 0, npages) != 0;
	if (bad) {
		fprintf(stderr, "bench-flush: %s did not restore what was dirty\n", way);
		exit(EXIT_LOST);
	}
}

/* ---- the ways ---- */

struct thread {
	pthread_t id;
	void (*work)(unsigned int number, unsigned int nr);
	unsigned int number;
	unsigned int nr;
};

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	t->work(t->number, t->nr);
	return NULL;
}

/* The caller is one of them. */
static void parallel(unsigned int nr, void (*work)(unsigned int number, unsigned int nr))
{
	struct thread threads[MAX_THREADS];

	for (unsigned int i = 1; i < nr; i++) {
		threads[i] = (struct thread) { .work = work, .number = i, .nr = nr };
		if (pthread_create(&threads[i].id, NULL, thread_main, &threads[i]))
			fail("no thread");
	}
	work(0, nr);
	for (unsigned int i = 1; i < nr; i++)
		pthread_join(threads[i].id, NULL);
}

static void copy_pages(uint64_t first, uint64_t n)
{
	memcpy(to + first * DTRACK_PAGE_SIZE, from + first * DTRACK_PAGE_SIZE,
	       n * DTRACK_PAGE_SIZE);
}

static void by_flush(unsigned int threads)
{
	struct dtrack_flush arg = {
		.from = from,
		.to = to,
		.npages = npages,
		.bitmaps = { bitmaps[0], bitmaps[1] },
		.threads = threads,
	};
	struct dtrack_flushed done;
	int ret = dtrack_flush(&arg, &done);

	if (ret)
		fail(strerror(-ret));
}

static void split_work(unsigned int number, unsigned int nr)
{
	uint64_t words = dtrack_bitmap_words(npages);
	uint64_t begin = words * number / nr, end = words * (number + 1) / nr;
	uint64_t first, n;

	for (uint64_t i = begin; i < end; i++) {
		bitmaps[0][i] |= bitmaps[1][i];
		bitmaps[1][i] = 0;
	}
	dtrack_for_each_run(first, n, bitmaps[0] + begin, (end - begin) * 64)
		copy_pages(begin * 64 + first, n);
	memset(bitmaps[0] + begin, 0, (end - begin) * 8);
}

static void by_split(unsigned int threads)
{
	parallel(threads, split_work);
}

/* Runs of dirty pages, and how many pages are before each. */
static struct {
	uint64_t first;
	uint64_t before;
} *list;
static uint64_t list_length, list_pages;

static void make_list(void)
{
	list_length = 0;
	list_pages = 0;
	for (uint64_t page = 0; page < npages; page++) {
		if (!is_dirty(page))
			continue;
		if (!page || !is_dirty(page - 1)) {
			list[list_length].first = page;
			list[list_length++].before = list_pages;
		}
		list_pages++;
	}
	list[list_length].before = list_pages;
}

/* Pages @begin to @end of the list. */
static void memcpy_work(unsigned int number, unsigned int nr)
{
	uint64_t begin = list_pages * number / nr, end = list_pages * (number + 1) / nr;
	uint64_t low = 0, high = list_length;

	while (high - low > 1) {
		uint64_t middle = (low + high) / 2;

		if (list[middle].before <= begin)
			low = middle;
		else
			high = middle;
	}
	while (begin < end) {
		uint64_t stop = list[low + 1].before < end ? list[low + 1].before : end;

		copy_pages(list[low].first + begin - list[low].before, stop - begin);
		begin = stop;
		low++;
	}
}

static void by_memcpy(unsigned int threads)
{
	parallel(threads, memcpy_work);
}

/* Each page of @to is other than that of @from. */
static void prepare(void)
{
	for (uint64_t page = 0; page < npages; page++)
		*page_word(to, page) = ~*page_word(from, page);
	for (int b = 0; b < 2; b++)
		memcpy(bitmaps[b], dirty[b], dtrack_bitmap_words(npages) * 8);
}

/* About as long as a part of a flush, and as many as there are. */
#define CONTROL_STEPS 20000
#define CONTROL_PARTS 256

static uint64_t control_next, control_sum;

static void control_work(unsigned int number, unsigned int nr)
{
	(void)number;
	(void)nr;
	while (__atomic_fetch_add(&control_next, 1, __ATOMIC_RELAXED) < CONTROL_PARTS) {
		uint64_t state = 1, sum = 0;

		for (unsigned int i = 0; i < CONTROL_STEPS; i++)
			sum += random_next(&state);
		__atomic_fetch_add(&control_sum, sum, __ATOMIC_RELAXED);
	}
}

static void by_control(unsigned int threads)
{
	control_next = 0;
	parallel(threads, control_work);
}

static const struct {
	const char *name;
	void (*run)(unsigned int threads);
	bool clears;
	bool restores;
} ways[] = {
	{ "flush", by_flush, true, true },
	{ "split", by_split, true, true },
	{ "memcpy", by_memcpy, false, true },
	{ "control", by_control, false, false },
};

enum { FLUSH, SPLIT, MEMCPY, CONTROL, NR_WAYS };

/* ---- measurement ---- */

/* With one thread and with all. */
struct result {
	double us[2][MAX_RUNS];
	double processors[MAX_RUNS];
};

static double processor_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static double time_once(unsigned int way, bool all, double *processors)
{
	double start, cpu, wall;

	if (ways[way].restores)
		prepare();
	cpu = processor_ns();
	start = now_ns();
	ways[way].run(all ? max_threads : 1);
	wall = now_ns() - start;
	*processors = (processor_ns() - cpu) / wall;
	if (ways[way].restores)
		check(ways[way].name, ways[way].clears);
	return wall / 1e3;
}

/* The second time counts: what it finds cached is its own, whatever ran before. */
static void measure(unsigned int way, bool all, struct result *result, unsigned int run)
{
	double processors;

	time_once(way, all, &processors);
	result->us[all][run] = time_once(way, all, &processors);
	if (all)
		result->processors[run] = processors;
}

/* Of one run to the same of another; before the runs are sorted. */
static double median_ratio(const double *a, const double *b)
{
	double ratios[MAX_RUNS];

	for (unsigned int run = 0; run < runs; run++)
		ratios[run] = a[run] / b[run];
	return sheet_median(ratios, runs);
}

static void add_rows(struct sheet *sheet, unsigned int pattern, uint64_t nr,
		     struct result results[NR_WAYS])
{
	double gain[NR_WAYS], of_memcpy[NR_WAYS][2], best[NR_WAYS][2];

	for (unsigned int way = 0; way < NR_WAYS; way++) {
		gain[way] = median_ratio(results[way].us[0], results[way].us[1]);
		for (int all = 0; all < 2; all++)
			of_memcpy[way][all] = median_ratio(results[MEMCPY].us[all],
							   results[way].us[all]);
	}
	for (unsigned int way = 0; way < NR_WAYS; way++)
		for (int all = 0; all < 2; all++) {
			sheet_median(results[way].us[all], runs);
			best[way][all] = results[way].us[all][0];
		}
	for (unsigned int way = 0; way < NR_WAYS; way++) {
		bool restores = ways[way].restores;
		bool has_goal = way == FLUSH && !patterns[pattern].few;

		sheet_text(sheet, patterns[pattern].name);
		sheet_number(sheet, nr);
		sheet_text(sheet, ways[way].name);
		for (int all = 0; all < 2; all++) {
			sheet_number(sheet, sheet_median(results[way].us[all], runs));
			sheet_number(sheet, spread(results[way].us[all]));
		}
		sheet_number(sheet, gain[way]);
		sheet_number(sheet, best[way][0] / best[way][1]);
		at_least(sheet, has_goal && max_threads == GOAL_THREADS, gain[way], GOAL_GAIN);
		for (int all = 0; all < 2; all++) {
			sheet_number(sheet, restores ? of_memcpy[way][all] : 0);
			sheet_number(sheet, restores ? best[MEMCPY][all] / best[way][all] : 0);
		}
		at_least(sheet, has_goal, of_memcpy[way][1], GOAL_OF_MEMCPY);
		sheet_number(sheet, sheet_median(results[way].processors, runs));
	}
}

static void measure_flush(const char *json)
{
	static const struct sheet_column columns[] = {
		{ "dirty", "DIRTY" },
		{ "pages", "PAGES" },
		{ "way", "WAY" },
		{ "one_us", "1 THREAD, us" },
		{ "one_spread", "+-%" },
		{ "all_us", "ALL, us" },
		{ "all_spread", "+-%" },
		{ "gain", "GAIN" },
		{ "gain_best", "FASTEST" },
		{ "gain_goal", "GOAL" },
		{ "of_memcpy_one", "OF MEMCPY, 1" },
		{ "of_memcpy_one_best", "FASTEST" },
		{ "of_memcpy_all", "OF MEMCPY, ALL" },
		{ "of_memcpy_all_best", "FASTEST" },
		{ "of_memcpy_goal", "GOAL" },
		{ "processors", "PROCESSORS HAD" },
	};
	static struct result results[NR_WAYS];
	char title[100];
	struct sheet *sheet;

	from = map_memory(npages * DTRACK_PAGE_SIZE);
	to = map_memory(npages * DTRACK_PAGE_SIZE);
	list = calloc(npages + 1, sizeof(*list));
	if (!list)
		fail(strerror(ENOMEM));
	for (int b = 0; b < 2; b++) {
		dirty[b] = new_bitmap(npages);
		bitmaps[b] = new_bitmap(npages);
	}
	for (uint64_t page = 0; page < npages; page++)
		memset(from + page * DTRACK_PAGE_SIZE, page % 251 + 1, DTRACK_PAGE_SIZE);

	snprintf(title, sizeof(title), "Flush of %" PRIu64 " MiB by 1 and %u threads, medians",
		 npages * DTRACK_PAGE_SIZE >> 20, max_threads);
	sheet = sheet_new(title, columns, NELEM(columns));
	for (unsigned int pattern = 0; pattern < NELEM(patterns); pattern++) {
		uint64_t nr = make_dirty(pattern);

		make_list();
		/* One run unmeasured.  Each time another begins. */
		for (unsigned int run = 0; run <= runs; run++)
			for (unsigned int i = 0; i < NR_WAYS * 2; i++) {
				unsigned int way = (i / 2 + run) % NR_WAYS;

				measure(way, i % 2, &results[way], run ? run - 1 : 0);
			}
		add_rows(sheet, pattern, nr, results);
	}
	sheet_finish(sheet, json);
}

/* ---- searching alone ---- */

static int nothing(void *opaque, uint64_t first, uint64_t n)
{
	uint64_t *visited = opaque;

	(void)first;
	*visited += n;
	return 0;
}

static double time_search(uint64_t nbits, uint64_t expected)
{
	uint64_t visited = 0;
	struct dtrack_flush arg = {
		.npages = nbits,
		.bitmaps = { bitmaps[0], bitmaps[1] },
		.threads = 1,
		.copy = nothing,
		.opaque = &visited,
	};
	struct dtrack_flushed done;
	double start = now_ns();
	int ret = dtrack_flush(&arg, &done);

	start = now_ns() - start;
	if (ret || visited != expected)
		fail("pages are missed");
	return start / 1e3;
}

static double time_reading(uint64_t nbits)
{
	uint64_t sum = 0;
	double start = now_ns();

	for (uint64_t i = 0; i < nbits / 64; i++)
		sum += bitmaps[0][i] + bitmaps[1][i];
	/* The compiler has no right to know that nobody wants it. */
	__asm__ volatile("" : : "r"(sum) : "memory");
	return (now_ns() - start) / 1e3;
}

static void measure_search(const char *json)
{
	static const struct sheet_column columns[] = {
		{ "guest", "GUEST" },
		{ "dirty", "DIRTY" },
		{ "pages", "PAGES" },
		{ "read_us", "READ BOTH, us" },
		{ "read_spread", "+-%" },
		{ "search_us", "SEARCH, us" },
		{ "search_spread", "+-%" },
		{ "search_to_read", "SEARCH/READ" },
		{ "search_goal", "GOAL" },
		{ "ns_a_page", "SEARCH, ns A PAGE" },
	};
	static const struct {
		const char *name;
		uint64_t one_in;
	} densities[] = {
		{ "none", 0 },
		{ "1 in 100000", 100000 },
		{ "1 in 4096", 4096 },
		{ "1 in 64", 64 },
	};
	static const unsigned int sizes[] = { 4, 64, 1024 };
	uint64_t most = sizes[NELEM(sizes) - 1] * PAGES_PER_GIB;
	struct sheet *sheet = sheet_new("Search of two bitmaps by one thread, medians", columns,
					NELEM(columns));
	double reading[MAX_RUNS], search[MAX_RUNS];

	for (int b = 0; b < 2; b++) {
		dirty[b] = new_bitmap(most);
		bitmaps[b] = new_bitmap(most);
	}
	for (unsigned int i = 0; i < NELEM(sizes) * NELEM(densities); i++) {
		uint64_t nbits = sizes[i / NELEM(densities)] * PAGES_PER_GIB;
		uint64_t one_in = densities[i % NELEM(densities)].one_in;
		uint64_t state = 1, pages = 0;
		double ratio;
		char guest[32];

		for (int b = 0; b < 2; b++)
			dtrack_bitmap_clear(dirty[b], 0, nbits);
		for (uint64_t n = 0; one_in && n < nbits / one_in; n++) {
			uint64_t page = random_next(&state) % nbits;

			pages += !is_dirty(page);
			set_either(dirty, page, &state);
		}
		for (unsigned int run = 0; run <= runs; run++) {
			unsigned int at = run ? run - 1 : 0;

			/* What is in a cache is there for both. */
			for (int b = 0; b < 2; b++)
				memcpy(bitmaps[b], dirty[b], nbits / 8);
			time_reading(nbits);
			reading[at] = time_reading(nbits);
			search[at] = time_search(nbits, pages);
		}
		ratio = median_ratio(search, reading);
		snprintf(guest, sizeof(guest), "%u GiB", sizes[i / NELEM(densities)]);
		sheet_text(sheet, guest);
		sheet_text(sheet, densities[i % NELEM(densities)].name);
		sheet_number(sheet, pages);
		sheet_number(sheet, sheet_median(reading, runs));
		sheet_number(sheet, spread(reading));
		sheet_number(sheet, sheet_median(search, runs));
		sheet_number(sheet, spread(search));
		sheet_number(sheet, ratio);
		say_goal(sheet, "<=", GOAL_SEARCH, ratio <= GOAL_SEARCH);
		sheet_number(sheet, pages ? sheet_median(search, runs) * 1e3 / pages : 0);
	}
	sheet_finish(sheet, json);
}

int main(int argc, char **argv)
{
	unsigned int pages = 65536;
	const char *json = NULL;
	bool search = false;
	const struct small_option options[] = {
		{ 'j', .text = &json },
		{ 'm', .flag = &search },
		{ 'n', .number = &pages },
		{ 'r', .number = &runs },
		{ 't', .number = &max_threads },
		{ 0 }
	};

	if (!small_options(argc, argv, options) || !runs || runs > MAX_RUNS ||
	    pages < PARTS * FEW ||
	    pages > 1 << 24 || !max_threads || max_threads > MAX_THREADS)
		return small_usage("[-m] [-j FILE] [-n PAGES] [-r RUNS] [-t THREADS]");
	npages = pages;
	if (search)
		measure_search(json);
	else
		measure_flush(json);
	return 0;
}
