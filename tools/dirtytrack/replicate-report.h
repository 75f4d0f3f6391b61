/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What dirtytrack replicate says: a table with a line for each interval of time, and what
 * happens to the secondary; or events in JSON, one a line, of each epoch, too.
 *
 * It is called while the guest runs.
 */
#ifndef REPLICATE_REPORT_H
#define REPLICATE_REPORT_H

#include "builtin.h"
#include "replicate.h"
#include "table.h"

#define NR_REPLICATE_COLUMNS 12
/* Of so many epochs, the last, pauses are known. */
#define NR_PAUSES 65536

extern const struct column replicate_columns[NR_REPLICATE_COLUMNS];

/* Of some pauses, in seconds. */
struct pauses {
	double min;
	double median;
	double p99;
	double max;
};

struct replicate_report {
	struct replicate *replicate;
	const struct table_options *opts;
	struct table *table;
	double start;
	double every;			/* seconds of a line */
	double last;			/* when there was one */
	uint64_t epochs, pages, data;	/* until then */
	double *pauses;			/* a ring of NR_PAUSES, and room to sort them */
	double lag;			/* longest since then */
	int error;			/* of standard output */
};

/* Of @replicate, whose event function is set.  0, or a message and -1. */
int replicate_report_open(struct replicate_report *rep, struct replicate *replicate,
			  const struct builtin *cmd,
			  const struct table_options *opts, double every);
/* How it was, and how it ended: an exit status. */
void replicate_report_end(struct replicate_report *rep, int status);
void replicate_report_close(struct replicate_report *rep);

#endif
