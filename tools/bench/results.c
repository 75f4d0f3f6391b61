// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "results.h"
#include "ticks.h"

/* Trackers by patterns by metrics, with room. */
#define MAX_SERIES 2048

const struct metric_desc metrics[NR_METRICS] = {
	[METRIC_COST] = { "cost", "ns/page", "instructions/page", 1 },
	[METRIC_FAULT] = { "fault", "ns/page", "instructions/page", 1 },
	[METRIC_HARVEST] = { "harvest", "ns/page", "instructions/page", 1 },
	[METRIC_CALL] = { "harvest-call", "us", "1000 instructions", 1e3 },
	[METRIC_SPARSE] = { "harvest-sparse", "us", "1000 instructions", 1e3 },
	[METRIC_WRITES] = { "writes", "1000/s", NULL, 1e3 },
	[METRIC_HARVESTS] = { "harvests", "1/s", NULL, 1 },
	[METRIC_STALL] = { "stall", "us", NULL, 1e3 },
	[METRIC_MEMORY] = { "memory", "KiB", "KiB", 1024 },
};

const char *metric_unit(enum metric metric)
{
	const struct metric_desc *m = &metrics[metric];

	return ticks_per_instruction() ? m->counted_unit : m->unit;
}

/*
 * In memory that children share with their parent.  One of them at a time adds to it,
 * and the parent reads when they are gone.
 */
static struct all {
	size_t nr;
	struct series series[MAX_SERIES];
} *all;

void results_init(void)
{
	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		die("memory");
}

static struct series *find(enum metric metric, const struct tracker *tracker,
			   const char *workload)
{
	for (size_t i = 0; i < all->nr; i++) {
		struct series *s = &all->series[i];

		if (s->metric == metric && s->tracker == tracker &&
		    !strcmp(s->workload ?: "", workload ?: ""))
			return s;
	}
	return NULL;
}

const struct series *series_find(enum metric metric, const struct tracker *tracker,
				 const char *workload)
{
	return find(metric, tracker, workload);
}

struct series *series_get(enum metric metric, const struct tracker *tracker,
			  const char *workload)
{
	struct series *s = find(metric, tracker, workload);

	if (s)
		return s;
	if (all->nr == MAX_SERIES)
		quit(EXIT_TROUBLE, "more than %d series", MAX_SERIES);
	s = &all->series[all->nr++];
	s->metric = metric;
	s->tracker = tracker;
	s->workload = workload;
	return s;
}

const struct series *series_number(size_t i)
{
	return i < all->nr ? &all->series[i] : NULL;
}

void series_add(struct series *s, double value)
{
	if (s->nr < MAX_RUNS)
		s->values[s->nr++] = value / metrics[s->metric].scale;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void sort(double *sorted, const double *values, unsigned int nr)
{
	memcpy(sorted, values, nr * sizeof(sorted[0]));
	qsort(sorted, nr, sizeof(sorted[0]), compare);
}

double median(const double *values, unsigned int nr)
{
	double sorted[MAX_RUNS];

	sort(sorted, values, nr);
	return (sorted[nr / 2] + sorted[(nr - 1) / 2]) / 2;
}

struct summary series_summary(const struct series *s)
{
	double sorted[MAX_RUNS];

	sort(sorted, s->values, s->nr);
	return (struct summary) {
		.median = median(sorted, s->nr),
		.min = sorted[0],
		.max = sorted[s->nr - 1],
	};
}

double summary_spread(const struct summary *s)
{
	return s->median ? (s->max - s->min) / 2 / s->median * 100 : 0;
}
