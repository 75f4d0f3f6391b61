/* SPDX-License-Identifier: GPL-2.0-only */
/* What was measured: one series of values, one a run, for each thing. */
#ifndef RESULTS_H
#define RESULTS_H

#include <stddef.h>
#include <stdint.h>

#include "tracker.h"

#define MAX_RUNS 99

enum metric {
	METRIC_COST,		/* fault and harvest, a page written */
	METRIC_FAULT,
	METRIC_HARVEST,		/* a page written */
	METRIC_CALL,		/* a harvest of the region */
	METRIC_SPARSE,		/* a harvest of one page in a large region */
	METRIC_WRITES,		/* under back-to-back harvests */
	METRIC_HARVESTS,	/* of them */
	METRIC_STALL,		/* longest, under them */
	METRIC_MEMORY,
	NR_METRICS,
};

/**
 * struct metric_desc - a metric
 * @name: its name in JSON
 * @unit: its unit
 * @counted_unit: where instructions are counted; NULL: there is none
 * @scale: ns (or instructions), bytes, or events a second in a unit
 */
struct metric_desc {
	const char *name;
	const char *unit;
	const char *counted_unit;
	double scale;
};

extern const struct metric_desc metrics[NR_METRICS];
const char *metric_unit(enum metric metric);

/**
 * struct series - values of one metric
 * @metric: the metric
 * @tracker: the tracker
 * @workload: name of the pattern; NULL if there is only one
 * @values: in order of the runs
 * @nr: how many
 * @written: pages written, in all runs
 * @reported: pages reported
 */
struct series {
	enum metric metric;
	const struct tracker *tracker;
	const char *workload;
	double values[MAX_RUNS];
	unsigned int nr;
	uint64_t written;
	uint64_t reported;
};

/* Before all else. */
void results_init(void);
/* The series, made if there is none. */
struct series *series_get(enum metric metric, const struct tracker *tracker,
			  const char *workload);
/* It, or NULL. */
const struct series *series_find(enum metric metric, const struct tracker *tracker,
				 const char *workload);
/* All of them, in the order in which they were made; NULL after the last. */
const struct series *series_number(size_t i);

void series_add(struct series *s, double value);

double median(const double *values, unsigned int nr);

/* Of the values, in units of the metric. */
struct summary {
	double median;
	double min;
	double max;
};

struct summary series_summary(const struct series *s);
/* Half of what is between the extremes, in percent of the median. */
double summary_spread(const struct summary *s);

#endif
