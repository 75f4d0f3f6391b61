/* SPDX-License-Identifier: GPL-2.0-only */
/* What commands share that watch one slot through a log of their own. */
#ifndef WATCH_H
#define WATCH_H

#include "device.h"
#include "table.h"

/**
 * struct watch - a slot, a log of it, and where to print what is seen
 * @ref: the slot, as it was named
 * @slot: fd
 * @npages: its pages
 * @log: fd
 * @table: table
 */
struct watch {
	const char *ref;
	int slot;
	uint64_t npages;
	int log;
	struct table *table;
};

/**
 * struct watch_log - which log
 * @flags: of LOG_CREATE
 * @ring: entries of its ring, 0 for none
 * @limit: pages a second, 0 for no limit
 */
struct watch_log {
	uint32_t flags;
	uint32_t ring;
	uint64_t limit;
};

/*
 * After the options of @cmd were parsed: what is left of @argv must be a slot.  Opens
 * that and makes the log and the table, of which @opts is used until watch_end().
 * EXIT_OK, or the exit status after a message.
 */
int watch_begin(struct watch *w, const struct builtin *cmd, char **argv,
		const struct table_options *opts, const struct watch_log *log);

/* Undo it.  The exit status, after a message if @err is not 0. */
int watch_end(struct watch *w, int err);

/* Argument of --limit; 0, or a message and -1. */
int option_limit(const char *arg, uint64_t *limit);

#define LIMIT_OPTION(val)						\
	{ val, "limit", "PAGES", "let at most so many pages become dirty a second" }

#endif
