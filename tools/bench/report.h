/* SPDX-License-Identifier: GPL-2.0-only */
/* The results as tables, and as JSON. */
#ifndef REPORT_H
#define REPORT_H

#include <stddef.h>

#include "measure.h"
#include "tracker.h"

/**
 * struct candidate - a tracker that was asked for
 * @tracker: the tracker
 * @missing: why it was not measured, or NULL
 */
struct candidate {
	const struct tracker *tracker;
	const char *missing;
};

/**
 * struct report - what is reported
 * @setup: what was measured
 * @runs: how often
 * @candidates: the trackers, those with the same writer one after the other
 * @nr: how many
 */
struct report {
	const struct setup *setup;
	unsigned int runs;
	const struct candidate *candidates;
	size_t nr;
};

void report_tables(const struct report *r);
void report_json(const struct report *r, const char *path);

#endif
