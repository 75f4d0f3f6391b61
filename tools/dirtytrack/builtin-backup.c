// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack backup: versions of slots, each as they were at one point in time, of which
 * all but the first have only what changed.
 *
 * The logs are this process's: they end with it, and after that nobody knows what changed.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <json-c/json.h>

#include "../lib/dirtytrack.h"
#include "backup.h"
#include "builtin.h"
#include "copy-options.h"
#include "interrupt.h"
#include "msg.h"
#include "target.h"
#include "units.h"

enum {
	OPT_INCREMENTAL = 256,
	OPT_COUNT,
	OPT_FULL_EVERY,
	OPT_RETRIES,
	OPT_AFTER,
};

enum {
	COL_VERSION,
	COL_KIND,
	COL_AT,
	COL_ROUNDS,
	COL_PAGES,
	COL_WRITTEN,
	COL_ZERO,
	COL_SIZE,
	COL_PAUSE,
	COL_TIME,
	COL_SLOT,
	COL_FILE,
	NR_COLUMNS,
};

static const struct option_desc options[] = {
	{ OPT_INCREMENTAL, "incremental", NULL, "go on with versions of what changed" },
	{ 'i', "interval", "SECONDS", "make one so often; else by SIGUSR1 only" },
	{ OPT_COUNT, "count", "N", "end after so many versions" },
	{ OPT_FULL_EVERY, "full-every", "N", "make each Nth version a whole one" },
	{ OPT_RETRIES, "retries", "N", "give up when more fail in a row, 3 unless given" },
	{ OPT_AFTER, "after", "COMMAND", "run a shell command after each version" },
	PAUSE_OPTIONS,
	COPY_OPTIONS,
	{ 0 }
};

static const struct column columns[NR_COLUMNS] = {
	[COL_VERSION] = { "VERSION", COLUMN_NUMBER, 7, 0, "number of the version" },
	[COL_KIND] = { "KIND", COLUMN_TEXT, 7, 0,
		       "full, or changes since the version before" },
	[COL_AT] = { "AT", COLUMN_TEXT, 20, 0, "the time that it shows" },
	[COL_ROUNDS] = { "ROUNDS", COLUMN_NUMBER, 6, COLUMN_HIDDEN,
			 "rounds, the last one included" },
	[COL_PAGES] = { "PAGES", COLUMN_NUMBER, 9, 0,
			"pages copied, each time they were" },
	[COL_WRITTEN] = { "WRITTEN", COLUMN_SIZE, 7, 0, "bytes of data sent" },
	[COL_ZERO] = { "ZERO", COLUMN_NUMBER, 8, 0,
		       "of the pages, those that were zero or had no memory" },
	[COL_SIZE] = { "SIZE", COLUMN_SIZE, 6, 0, "bytes that the file takes" },
	[COL_PAUSE] = { "PAUSE", COLUMN_SECONDS, 6, 0,
			"seconds that the guest was paused" },
	[COL_TIME] = { "TIME", COLUMN_SECONDS, 7, 0, "seconds it took" },
	[COL_SLOT] = { "SLOT", COLUMN_TEXT, 8, COLUMN_HIDDEN, "the slot" },
	[COL_FILE] = { "FILE", COLUMN_TEXT, 0, 0, "file, or URI of the server" },
};

static int set_option(struct backup *b, int val, const char *arg)
{
	int ret;

	switch (val) {
	case OPT_INCREMENTAL:
		b->incremental = true;
		return 0;
	case 'i':
		ret = option_seconds("--interval", arg, &b->interval);
		if (!ret && b->interval < 0.001) {
			msg_error("--interval: '%s' is less than a millisecond", arg);
			ret = -1;
		}
		return ret;
	case OPT_COUNT:
		return option_count("--count", arg, &b->count);
	case OPT_FULL_EVERY:
		return option_count("--full-every", arg, &b->full_every);
	case OPT_RETRIES:
		return option_count("--retries", arg, &b->retries);
	case OPT_AFTER:
		b->after = arg;
		return 0;
	}
	ret = pause_option(&b->pause_opts, val, arg);
	return ret <= 0 ? ret : copy_option(&b->opts, val, arg);
}

static bool is_directory(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static int check_options(struct backup *b)
{
	enum target_kind kind = target_kind(b->target);

	b->to_files = kind == TARGET_IMAGE;
	if (!b->to_files && kind != TARGET_NBD) {
		msg_error("backup: %s keeps no versions", b->target);
		return -1;
	}
	if (!b->incremental && (b->interval > 0 || b->count || b->full_every)) {
		msg_error("backup: --interval, --count and --full-every are of use with --incremental only");
		return -1;
	}
	if (!b->incremental)
		b->count = 1;
	if (b->to_files && b->nr > 1 && !is_directory(b->target)) {
		msg_error("backup: %s: it is no directory, which is wanted for several slots",
			  b->target);
		return -1;
	}
	return pause_options_check(&b->pause_opts, "backup");
}

/* How much of the disk the file takes. */
static uint64_t size_on_disk(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static int show_slot(struct backup *b, const struct backup_version *v,
		     const struct backup_slot *slot)
{
	struct cell cells[NR_COLUMNS] = { 0 };
	struct table *table = b->show_arg;
	struct json_object *obj, *row;
	char at[32];
	struct tm tm;

	gmtime_r(&v->at, &tm);
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cells[COL_VERSION] = cell_number(v->number);
	cells[COL_KIND] = cell_text(slot->full ? "full" : "changes");
	cells[COL_AT] = cell_text(at);
	cells[COL_ROUNDS] = cell_number(v->copy.round.round);
	cells[COL_PAGES] = cell_number(slot->stats.pages);
	cells[COL_WRITTEN] = cell_number(slot->stats.data * DTRACK_PAGE_SIZE);
	cells[COL_ZERO] = cell_number(slot->stats.pages - slot->stats.data);
	if (b->to_files)
		cells[COL_SIZE] = cell_number(size_on_disk(slot->file));
	cells[COL_PAUSE] = cell_real(v->copy.seconds_paused);
	cells[COL_TIME] = cell_real(now() - v->start);
	cells[COL_SLOT] = cell_text(slot->ref);
	cells[COL_FILE] = cell_text(slot->file);
	if (!b->opts.table.json)
		return table_stream(table, cells);
	obj = json_object_new_object();
	json_object_object_add(obj, "event", json_object_new_string("version"));
	json_object_object_add(obj, "slot", json_object_new_string(slot->ref));
	row = table_json_row(table, cells);
	json_object_object_foreach(row, key, value)
		json_object_object_add(obj, key, json_object_get(value));
	json_object_put(row);
	return json_line(obj);
}

/* A line for each slot. */
static int show_version(struct backup *b, const struct backup_version *v)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = show_slot(b, v, &b->slots[i]);
	return ret;
}

static int show_end(const struct backup *b, int status)
{
	struct json_object *obj;

	if (!b->opts.table.json)
		return status;
	obj = json_object_new_object();
	json_object_object_add(obj, "event", json_object_new_string("end"));
	json_object_object_add(obj, "versions", json_object_new_uint64(b->made));
	if (interrupted)
		json_object_object_add(obj, "signal",
				       json_object_new_int(interrupted));
	else
		json_object_object_add(obj, "status",
				       json_object_new_int(status));
	return json_line(obj) && !status ? EXIT_FAILED : status;
}

static int set_operands(struct backup *b, char **argv)
{
	b->refs = argv;
	while (argv[b->nr] && argv[b->nr + 1])
		b->nr++;
	if (!b->nr) {
		msg_error("backup: a slot and a target are wanted");
		return -1;
	}
	if (b->nr > MAX_BACKUP_SLOTS) {
		msg_error("backup: more than %d slots", MAX_BACKUP_SLOTS);
		return -1;
	}
	b->target = argv[b->nr];
	return check_options(b);
}

static int backup(const struct builtin *cmd, int argc, char **argv)
{
	struct backup b = { .retries = 3, .show = show_version };
	struct table *table;
	int val, status;

	copy_options_init(&b.opts, &b.copy);
	pause_options_init(&b.pause_opts);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (set_option(&b, val, optarg))
			return usage_error(cmd);
	}
	if (set_operands(&b, argv + optind))
		return usage_error(cmd);
	table = table_new(cmd->columns, cmd->nr_columns, &b.opts.table);
	if (!table)
		return usage_error(cmd);
	b.show_arg = table;
	status = show_end(&b, backup_run(&b));
	table_free(table);
	interrupt_die();
	return status;
}

const struct builtin builtin_backup = {
	.name = "backup",
	.summary = "Keep versions of slots, each of what changed, while the guest runs",
	.usage = "[OPTION...] SLOT... TARGET",
	.options = options,
	.columns = columns,
	.nr_columns = NR_COLUMNS,
	.run = backup,
};
