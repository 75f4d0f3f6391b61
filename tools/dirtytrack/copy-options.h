/* SPDX-License-Identifier: GPL-2.0-only */
/* Options of all subcommands that run the copy engine. */
#ifndef COPY_OPTIONS_H
#define COPY_OPTIONS_H

#include <stdbool.h>

#include "range-list.h"
#include "table.h"

struct copy;

/**
 * struct copy_options - what was asked for
 * @copy: the engine's own options are set there
 * @connections: to each export of an NBD server
 * @reconnect: seconds for which a lost one is tried again
 * @progress: show it also when not on a terminal
 * @free_file: ranges of pages that are free, NULL for none; of FREE_OPTIONS
 * @free_format: of it
 * @table: of the report
 */
struct copy_options {
	struct copy *copy;
	unsigned int connections;
	double reconnect;
	bool progress;
	const char *free_file;
	enum range_format free_format;
	struct table_options table;
};

/* Apart from the values of other options, and from OPT_OUTPUT_ALL. */
enum {
	OPT_MAX_ROUNDS = 900,
	OPT_STRICT,
	OPT_VERIFY,
	OPT_RECONNECT,
	OPT_PROGRESS,
	OPT_FREE,
	OPT_FREE_FORMAT,
};

#define COPY_OPTIONS							      \
	{ 'd', "downtime", "MS", "downtime wanted at most, 300 unless given" }, \
	{ OPT_MAX_ROUNDS, "max-rounds", "N", "rounds before it, 30 unless given" }, \
	{ OPT_STRICT, "strict", NULL, "fail rather than pause for longer" },  \
	{ OPT_VERIFY, "verify", NULL, "compare target and memory in the pause" }, \
	{ 'c', "connections", "N", "to an NBD server, for each slot; 4 unless given" }, \
	{ OPT_RECONNECT, "reconnect", "SECONDS", "try that long when one is lost, 10 unless given" }, \
	{ OPT_PROGRESS, "progress", NULL, "show progress also when not on a terminal" }, \
	TABLE_OPTIONS

/* Of those that copy once. */
#define FREE_OPTIONS							      \
	{ OPT_FREE, "free", "FILE", "ranges of pages that are free and need not be copied" }, \
	FREE_FORMAT_OPTION

#define FREE_FORMAT_OPTION						      \
	{ OPT_FREE_FORMAT, "free-format", "FORMAT", "of it: text, json or binary" }

/* The defaults, here and in @copy. */
void copy_options_init(struct copy_options *opts, struct copy *copy);
/* Take note of option @val, one of COPY_OPTIONS or FREE_OPTIONS.  0, or a message and -1. */
int copy_option(struct copy_options *opts, int val, const char *arg);

#endif
