/* SPDX-License-Identifier: GPL-2.0-only */
/* One run of one tracker. */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdbool.h>
#include <stdint.h>

#include "tracker.h"

/**
 * struct setup - what is measured
 * @npages: pages of the region
 * @sparse: pages of the large one; 0: it is not measured
 * @seconds: how long harvests go back to back; 0: not at all
 * @pattern: only this one; NULL: all
 * @lose: do as if one reported page in so many was not, to see that it is noticed;
 *	0: report all
 */
struct setup {
	uint64_t npages;
	uint64_t sparse;
	double seconds;
	const char *pattern;
	unsigned int lose;
};

/* Allocates what all measurements share. */
void measure_init(const struct setup *setup);

/*
 * Each adds to the results, unless the run is to warm up only.  Each ends the
 * program with EXIT_LOST if a page is missing in a report.
 */
void measure_patterns(const struct tracker *t, unsigned int run, bool warm_up);
void measure_sparse(const struct tracker *t, unsigned int run, bool warm_up);
void measure_back_to_back(const struct tracker *t, bool warm_up);

#endif
