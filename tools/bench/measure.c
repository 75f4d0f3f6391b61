// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a run of a tracker is: write, harvest, and compare what was reported with
 * what was written.
 *
 * Between two harvests each list of pages is written several times.  But for the
 * first time all of them are writable: it takes what the writing itself takes, and
 * what it takes to get a guest to run.  A fault is what the first time takes longer.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "measure.h"
#include "pattern.h"
#include "results.h"
#include "ticks.h"

/*
 * Few pages are written again and again, for times that are long enough.  At least three
 * times, and the median counts: what adapts to a pattern has done it by then.
 */
#define ENOUGH_PAGES 2048
#define MIN_ROUNDS 3
#define MAX_ROUNDS 16
#define SPARSE_ROUNDS 4
/*
 * Where instructions are counted, so few pages at once that the timer hardly
 * ever interrupts: what does not happen in every round is not in the median of them.
 */
#define SLICE_PAGES 128
#define SLICE_ROUNDS 16
/* What a guest of 32 bits can write to. */
#define MAX_WRITTEN (2ULL << 30 >> DIRTYTRACK_PAGE_SHIFT)

static const struct setup *setup;
static uint32_t *list;
static uint64_t *written;
static uint64_t *reported;
static uint32_t *image;

void measure_init(const struct setup *s)
{
	uint64_t most = s->npages > s->sparse ? s->npages : s->sparse;

	setup = s;
	list = touched_alloc(s->npages * sizeof(*list));
	image = touched_alloc(s->npages * sizeof(*image));
	written = touched_alloc(dtrack_bitmap_words(most) * sizeof(*written));
	reported = touched_alloc(dtrack_bitmap_words(most) * sizeof(*reported));
}

/* ---- writing ---- */

struct job {
	struct region *r;
	unsigned int who;
	unsigned int writers;
	size_t n;
	pthread_barrier_t *barrier;
	double start, end;
};

static void *do_job(void *arg)
{
	struct job *j = arg;
	size_t skip = j->who < j->n ? j->who : j->n;

	if (j->barrier) {
		run_on(j->who);
		pthread_barrier_wait(j->barrier);
	}
	j->start = ticks_now();
	j->r->tracker->writer->write(j->r, j->who, list + skip, j->n - skip,
				     j->writers);
	j->end = ticks_now();
	return NULL;
}

/* From when the first writer begins until the last one is done. */
static double write_list(struct region *r, size_t n, unsigned int writers)
{
	struct job jobs[2] = {
		{ .r = r, .who = 0, .writers = writers, .n = n },
		{ .r = r, .who = 1, .writers = writers, .n = n },
	};
	pthread_barrier_t barrier;
	pthread_t thread;

	if (writers == 1) {
		do_job(&jobs[0]);
		return jobs[0].end - jobs[0].start;
	}
	pthread_barrier_init(&barrier, NULL, 2);
	jobs[0].barrier = &barrier;
	jobs[1].barrier = &barrier;
	errno = pthread_create(&thread, NULL, do_job, &jobs[1]);
	if (errno)
		die("pthread_create");
	do_job(&jobs[0]);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&barrier);
	return (jobs[0].end > jobs[1].end ? jobs[0].end : jobs[1].end) -
	       (jobs[0].start < jobs[1].start ? jobs[0].start : jobs[1].start);
}

static void write_all(struct region *r)
{
	for (uint64_t i = 0; i < r->npages; i++)
		list[i] = i;
	write_list(r, r->npages, 1);
}

/* ---- harvesting ---- */

static double timed_harvest(struct region *r)
{
	double start = ticks_now();

	r->tracker->harvest(r);
	return ticks_now() - start;
}

/* What a faulty tracker would do. */
static void lose_some(struct region *r)
{
	uint64_t page, n = 0;

	for (page = dtrack_bitmap_next(reported, r->npages, 0); page < r->npages;
	     page = dtrack_bitmap_next(reported, r->npages, page + 1))
		if (++n % setup->lose == 0)
			dtrack_bitmap_clear(reported, page, 1);
}

/* Into reported; how many. */
static uint64_t get_report(struct region *r)
{
	dtrack_bitmap_clear(reported, 0, r->npages);
	r->tracker->report(r, reported);
	if (setup->lose)
		lose_some(r);
	return dtrack_bitmap_count(reported, 0, r->npages);
}

static void check_report(struct region *r, const char *pattern)
{
	uint64_t lost = 0, example = 0;

	if (r->tracker->untracked)
		return;
	for (uint64_t i = 0; i < dtrack_bitmap_words(r->npages); i++) {
		uint64_t missing = written[i] & ~reported[i];

		if (missing) {
			lost += __builtin_popcountll(missing);
			example = i * 64 + __builtin_ctzll(missing);
		}
	}
	if (lost)
		quit(EXIT_LOST, "%s, %s: %llu pages written were not reported, as page %llu",
		     r->tracker->name, pattern, (unsigned long long)lost,
		     (unsigned long long)example);
}

static void begin(struct region *r)
{
	r->tracker->start(r);
	r->tracker->harvest(r);
	get_report(r);
}

/* ---- memory ---- */

/*
 * Bytes.  Pages that a processor keeps for itself are free, too, and there are many:
 * MemFree does not have them.
 */
static double free_memory(void)
{
	int stat = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);
	unsigned long long pages = 0, n;
	char line[256];
	FILE *f;

	/* Who may not write there gets counters that are a little old. */
	if (stat >= 0 && write(stat, "1", 1) != 1)
		die("/proc/sys/vm/stat_refresh");
	if (stat >= 0)
		close(stat);
	f = fopen("/proc/zoneinfo", "re");
	if (!f)
		die("/proc/zoneinfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " pages free %llu", &n) == 1 ||
		    sscanf(line, " count: %llu", &n) == 1)
			pages += n;
	fclose(f);
	return pages * (double)DTRACK_PAGE_SIZE;
}

/* What was freed lately may still be on its way. */
static double settled_free_memory(void)
{
	double before = free_memory(), now;

	for (unsigned int tries = 0; tries < 20; tries++) {
		usleep(20000);
		now = free_memory();
		if (now <= before)
			break;
		before = now;
	}
	return before;
}

/* ---- patterns ---- */

/* A region that is in use: all pages have memory, and are tracked. */
static void region_open(struct region *r, const struct tracker *t, uint64_t npages)
{
	*r = (struct region) {
		.tracker = t,
		.npages = npages,
		.memory_fd = -1,
		.tracker_fd = -1,
	};
	t->open(r);
}

static bool counting(void)
{
	return ticks_per_instruction();
}

static unsigned int rounds_for(size_t n)
{
	size_t rounds = n ? ENOUGH_PAGES / n : MAX_ROUNDS;

	if (counting())
		return SLICE_ROUNDS;
	if (rounds < MIN_ROUNDS)
		return MIN_ROUNDS;
	return rounds < MAX_ROUNDS ? rounds : MAX_ROUNDS;
}

/* What the rounds of a pattern took. */
struct tally {
	double cost[MAX_ROUNDS];	/* a page */
	double fault[MAX_ROUNDS];
	double harvest[MAX_ROUNDS];
	double call[MAX_ROUNDS];	/* a harvest */
	uint64_t written;
	uint64_t reported;
	unsigned int rounds;
};

/* The less disturbed of two. */
static double write_again(struct region *r, size_t n, unsigned int writers)
{
	double one = write_list(r, n, writers);
	double other = write_list(r, n, writers);

	return one < other ? one : other;
}

/* Leaves only a part of the list, another one each round. */
static size_t take_slice(size_t n, unsigned int round)
{
	size_t first = round * SLICE_PAGES;

	if (n <= SLICE_PAGES)
		return n;
	first %= n - SLICE_PAGES + 1;
	memmove(list, list + first, SLICE_PAGES * sizeof(*list));
	return SLICE_PAGES;
}

static void one_round(struct region *r, const struct pattern *p, uint64_t seed,
		      bool slice, struct tally *t)
{
	size_t n = p->fill(list, r->npages, seed);
	double fault, harvest;
	uint64_t pages;

	if (slice)
		n = take_slice(n, t->rounds);
	dtrack_bitmap_clear(written, 0, r->npages);
	for (size_t i = 0; i < n; i++)
		dtrack_bitmap_set(written, list[i], 1);
	pages = dtrack_bitmap_count(written, 0, r->npages);

	fault = write_list(r, n, p->writers);
	fault -= write_again(r, n, p->writers);
	harvest = timed_harvest(r);
	t->written += pages;
	t->reported += get_report(r);
	check_report(r, p->name);

	t->cost[t->rounds] = (fault + harvest) / (pages ? pages : 1);
	t->fault[t->rounds] = fault / (pages ? pages : 1);
	t->harvest[t->rounds] = harvest / (pages ? pages : 1);
	t->call[t->rounds++] = harvest;
}

/* A round that was disturbed is one of many, so it does not count. */
static void add(enum metric metric, struct region *r, const char *workload,
		const struct tally *t, const double *rounds)
{
	struct series *s = series_get(metric, r->tracker, workload);

	series_add(s, median(rounds, t->rounds));
	s->written += t->written;
	s->reported += t->reported;
}

static void do_rounds(struct region *r, const struct pattern *p, unsigned int run,
		      bool slice, struct tally *t)
{
	unsigned int rounds = rounds_for(p->fill(list, r->npages, 1));

	t->rounds = 0;
	t->written = 0;
	t->reported = 0;
	for (unsigned int i = 0; i < rounds; i++)
		one_round(r, p, run * MAX_ROUNDS + i + 1, slice, t);
}

static void measure_pattern(struct region *r, const struct pattern *p,
			    unsigned int run, bool warm_up)
{
	struct tally t;

	/* Its one page would be another density than it says. */
	if (r->npages < p->least)
		return;
	/* Two writers on one processor are as many instructions as the scheduler likes. */
	if (counting() && p->writers > 1)
		return;
	do_rounds(r, p, run, counting() && p->is_cost, &t);
	if (p->is_cost && !warm_up) {
		add(METRIC_COST, r, p->name, &t, t.cost);
		add(METRIC_FAULT, r, p->name, &t, t.fault);
		add(METRIC_HARVEST, r, p->name, &t, t.harvest);
	}
	if (!p->density)
		return;
	if (counting() && p->is_cost)
		do_rounds(r, p, run, false, &t);
	if (!warm_up)
		add(METRIC_CALL, r, p->name, &t, t.call);
}

void measure_patterns(const struct tracker *t, unsigned int run, bool warm_up)
{
	double before = settled_free_memory();
	struct region r;

	region_open(&r, t, setup->npages);
	write_all(&r);
	begin(&r);
	write_all(&r);
	r.tracker->harvest(&r);
	if (!warm_up)
		series_add(series_get(METRIC_MEMORY, t, NULL),
			   before - free_memory() - setup->npages * DTRACK_PAGE_SIZE);
	get_report(&r);

	for (size_t i = 0; i < nr_patterns; i++)
		if (!setup->pattern || !strcmp(setup->pattern, patterns[i].name))
			measure_pattern(&r, &patterns[i], run, warm_up);
	t->close(&r);
}

/* ---- a large region ---- */

/* Nothing of it has memory, but for the pages that are written. */
void measure_sparse(const struct tracker *t, unsigned int run, bool warm_up)
{
	struct tally tally = { 0 };
	uint64_t seed = run + 1;
	struct region r;

	region_open(&r, t, setup->sparse);
	begin(&r);
	for (unsigned int i = 0; i < SPARSE_ROUNDS; i++) {
		uint64_t most = r.npages < MAX_WRITTEN ? r.npages : MAX_WRITTEN;

		list[0] = random_next(&seed) % most;
		dtrack_bitmap_clear(written, 0, r.npages);
		dtrack_bitmap_set(written, list[0], 1);
		write_list(&r, 1, 1);
		tally.call[tally.rounds++] = timed_harvest(&r);
		tally.written++;
		tally.reported += get_report(&r);
		check_report(&r, "one-page");
	}
	if (!warm_up)
		add(METRIC_SPARSE, &r, "one-page", &tally, tally.call);
	t->close(&r);
}

/* ---- back to back ---- */

struct race {
	struct region *r;
	struct spin spin;
	pthread_t thread;
};

static void *spin_thread(void *arg)
{
	struct race *race = arg;

	run_on(0);
	race->r->tracker->writer->spin(race->r, &race->spin);
	return NULL;
}

static void set_pause(struct race *race, bool pause)
{
	if (!race->r->tracker->pauses)
		return;
	__atomic_store_n(&race->spin.pause, pause, __ATOMIC_SEQ_CST);
	while (pause && !__atomic_load_n(&race->spin.resting, __ATOMIC_SEQ_CST))
		sched_yield();
}

/*
 * Harvests, and copies the reported pages as a consumer does, here a word of each.
 *
 * Return: pages whose word was another one than in the last copy.
 */
static uint64_t follow(struct race *race, uint64_t *nr_reported)
{
	struct region *r = race->r;
	uint64_t first, count, changed = 0;

	set_pause(race, true);
	r->tracker->harvest(r);
	set_pause(race, false);
	*nr_reported += get_report(r);
	dtrack_for_each_run(first, count, reported, r->npages)
		for (uint64_t page = first; page < first + count; page++) {
			uint32_t word = *page_word(r->mem, page);

			changed += image[page] != word;
			image[page] = word;
		}
	return changed;
}

void measure_back_to_back(const struct tracker *t, bool warm_up)
{
	uint64_t changed = 0, nr_reported = 0, harvests = 0, lost = 0;
	struct region r;
	struct race race = { .r = &r };
	double start, time;

	region_open(&r, t, setup->npages);
	write_all(&r);
	begin(&r);
	for (uint64_t page = 0; page < r.npages; page++)
		image[page] = *page_word(r.mem, page);

	run_on(1);
	errno = pthread_create(&race.thread, NULL, spin_thread, &race);
	if (errno)
		die("pthread_create");
	/* Which begins with page 0. */
	while (*page_word(r.mem, 0) == image[0])
		sched_yield();
	start = now_ns();
	do {
		changed += follow(&race, &nr_reported);
		harvests++;
		time = now_ns() - start;
	} while (time < setup->seconds * 1e9);
	t->writer->stop(&r, &race.spin);
	pthread_join(race.thread, NULL);
	changed += follow(&race, &nr_reported);
	run_on(0);

	for (uint64_t page = 0; page < r.npages && !t->untracked; page++)
		lost += image[page] != *page_word(r.mem, page);
	if (lost)
		quit(EXIT_LOST, "%s, back to back: %llu pages changed were not reported",
		     t->name, (unsigned long long)lost);
	if (!warm_up) {
		struct series *s = series_get(METRIC_WRITES, t, NULL);

		series_add(s, race.spin.writes / (time / 1e9));
		s->written += changed;
		s->reported += nr_reported;
		series_add(series_get(METRIC_HARVESTS, t, NULL), harvests / (time / 1e9));
		series_add(series_get(METRIC_STALL, t, NULL), race.spin.longest_ns);
	}
	t->close(&r);
}
