/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What dirtytrack copy says: a progress line, a table of rounds, or events in
 * JSON, one a line.
 *
 * While the guest is paused nothing is written, since a terminal or a pipe may
 * block; what happens then is told when it is over.
 */
#ifndef COPY_REPORT_H
#define COPY_REPORT_H

#include "builtin.h"
#include "copy-options.h"
#include "engine.h"
#include "table.h"

#define NR_COPY_COLUMNS 13

extern const struct column copy_columns[NR_COPY_COLUMNS];

struct copy_report {
	struct copy *copy;
	const struct table_options *opts;
	bool progress;
	struct table *table;		/* of rounds */
	bool holding;			/* the guest is paused */
	struct json_object *held;	/* events of that time */
	double last_progress;
	bool on_line;			/* a progress line is on the terminal */
	int error;			/* of standard output */
};

/* Of what @opts->copy does, whose event function it sets.  0, or a message and -1. */
int report_open(struct copy_report *r, const struct builtin *cmd,
		const struct copy_options *opts);
void report_begin(struct copy_report *r, const char *slot, const char *target);
/* The target is complete. */
void report_done(struct copy_report *r, const char *target);
/* The exit status for what copy_run() returned. */
int report_status(int err);
/* What the last pause was for, in seconds. */
struct json_object *json_phases(const struct copy *c);
/* It is not, for the reason that was the last message. */
void report_failed(struct copy_report *r, int status);
void report_close(struct copy_report *r);

#endif
