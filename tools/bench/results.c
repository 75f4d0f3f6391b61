// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "results.h"
#include "ticks.h"

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

static struct series **all;
static size_t nr_all;

static struct series *find(enum metric metric, const struct tracker *tracker,
			   const char *workload)
{
	for (size_t i = 0; i < nr_all; i++) {
		struct series *s = all[i];

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
	s = calloc(1, sizeof(*s));
	all = reallocarray(all, nr_all + 1, sizeof(*all));
	if (!s || !all)
		die("memory");
	s->metric = metric;
	s->tracker = tracker;
	s->workload = workload;
	all[nr_all++] = s;
	return s;
}

const struct series *series_number(size_t i)
{
	return i < nr_all ? all[i] : NULL;
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
