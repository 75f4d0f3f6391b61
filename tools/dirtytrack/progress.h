/* SPDX-License-Identifier: GPL-2.0-only */
/* A line on stderr that says how far a command is. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>

/**
 * struct progress - the line
 * @on: show it; progress_begin() sets it
 * @shown: it is there
 * @last: when it was printed
 */
struct progress {
	bool on;
	bool shown;
	double last;
};

/* If it was asked for, or stderr is a terminal. */
void progress_begin(struct progress *p, bool asked);
/* Not more than a few times a second. */
void progress_show(struct progress *p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Before anything else is printed. */
void progress_clear(struct progress *p);

#endif
