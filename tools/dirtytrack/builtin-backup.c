// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack backup: versions of slots, each as they were at one point in time, of which
 * all but the first have only what changed.
 *
 * The logs are this process's: they end with it, and after that nobody knows what changed.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "../lib/dirtytrack.h"
#include "backup-slot.h"
#include "builtin.h"
#include "copy-options.h"
#include "copy-report.h"
#include "engine.h"
#include "guard.h"
#include "interrupt.h"
#include "msg.h"
#include "pause-options.h"
#include "pause.h"
#include "pipeline.h"
#include "shell.h"
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

#define MAX_BACKUP_SLOTS 64

struct backup {
	char **refs;		/* of slots */
	unsigned int nr;
	const char *target;
	bool incremental;
	double interval;	/* 0: by signal only */
	unsigned int count;	/* 0: without end */
	unsigned int full_every;	/* 0: never again */
	unsigned int retries;
	const char *after;
	struct pause_options pause_opts;
	struct copy_options opts;
	struct copy copy;	/* options of each */

	bool to_files;
	struct table *table;
	struct backup_slot slots[MAX_BACKUP_SLOTS];
	unsigned int nr_slots;	/* those of them that were begun with */
	struct guard guard;
	sigset_t signals;	/* blocked ones, while it waits */
	unsigned int made;
	unsigned int changes;	/* versions since the last whole one */
	unsigned int failures;	/* in a row */
};

/* A version at work, of all slots. */
struct version {
	bool full;		/* all slots are to be whole */
	unsigned int number;
	double start;
	time_t at;
	struct copy_options opts;
	struct copy copy;
	struct copy_move moves[MAX_BACKUP_SLOTS];
	struct copy_report report;
};

static volatile sig_atomic_t asked;

static void on_asked(int sig)
{
	(void)sig;
	asked = 1;
}

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

/* ---- one version ---- */

/* How much of the disk the file takes. */
static uint64_t size_on_disk(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static int show_slot(struct backup *b, const struct version *v,
		     const struct backup_slot *slot)
{
	struct cell cells[NR_COLUMNS] = { 0 };
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
		return table_stream(b->table, cells);
	obj = json_object_new_object();
	json_object_object_add(obj, "event", json_object_new_string("version"));
	json_object_object_add(obj, "slot", json_object_new_string(slot->ref));
	row = table_json_row(b->table, cells);
	json_object_object_foreach(row, key, value)
		json_object_object_add(obj, key, json_object_get(value));
	json_object_put(row);
	return json_line(obj);
}

static int show_version(struct backup *b, const struct version *v)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = show_slot(b, v, &b->slots[i]);
	return ret;
}

/* All files of the version, a line each. */
static char *all_files(const struct backup *b)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);
	unsigned int i;

	if (!f)
		return NULL;
	for (i = 0; i < b->nr; i++)
		fprintf(f, "%s%s", i ? "\n" : "", b->slots[i].file);
	if (!fclose(f))
		return text;
	free(text);
	return NULL;
}

/* What the user may want to know when a version is there. */
static int run_after(struct backup *b, const struct version *v)
{
	char number[16], *files;
	int ret = -ENOMEM;

	if (!b->after)
		return 0;
	snprintf(number, sizeof(number), "%u", v->number);
	files = all_files(b);
	if (files && !setenv("DIRTYTRACK_VERSION", number, 1) &&
	    !setenv("DIRTYTRACK_FILE", files, 1))
		ret = shell_run(b->after);
	else
		msg_errno(ret, "--after");
	free(files);
	return ret;
}

static int begin_slots(struct backup *b, struct version *v)
{
	const struct pipeline_options opts = {
		.threads = true,
		/* Nobody starts a server of ours again. */
		.reconnect = b->to_files ? 0 : v->opts.reconnect,
		.cancel = &interrupted,
		.progress = copy_progress,
		.progress_arg = &v->copy,
	};
	unsigned int i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = backup_slot_begin(&b->slots[i], v->full, &v->moves[i],
					v->opts.connections, &opts);
	return ret;
}

/* Everything is there: bring it to storage, and then give all of it names. */
static int commit(struct backup *b, struct version *v)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = backup_slot_store(&b->slots[i], &v->moves[i]);
	/* An image that was not asked for any more would be surprising. */
	if (!ret && interrupted)
		ret = -EINTR;
	for (i = 0; i < b->nr && !ret; i++)
		ret = backup_slot_commit(&b->slots[i]);
	return ret;
}

/* -EHOSTDOWN: it is there, but the guest is still paused. */
static int copy_version(struct backup *b, struct version *v)
{
	const bool several = b->nr > 1;
	int ret = begin_slots(b, v), down;

	if (ret)
		return ret;
	report_begin(&v->report, several ? NULL : b->slots[0].ref,
		     several ? b->target : b->slots[0].file);
	down = copy_run(&v->copy);
	if (down && down != -EHOSTDOWN)
		return down;
	if (!v->copy.was_paused)
		v->copy.paused_at = now();
	v->at = time(NULL) - (time_t)(now() - v->copy.paused_at + 0.5);
	if (down)
		msg_note("the guest may still be paused: it could not be resumed");
	ret = interrupted ? -EINTR : commit(b, v);
	return ret ? ret : down;
}

static void version_done(struct backup *b)
{
	bool all_full = true;
	unsigned int i;

	for (i = 0; i < b->nr; i++) {
		all_full = all_full && b->slots[i].full;
		backup_slot_done(&b->slots[i]);
	}
	b->changes = all_full ? 0 : b->changes + 1;
	b->made++;
}

/* The status for the command, if this was the last version. */
static int finish_version(struct backup *b, struct version *v, int err)
{
	unsigned int i;
	int ret;

	for (i = 0; i < b->nr; i++)
		backup_slot_end_copy(&v->moves[i]);
	if (err && err != -EHOSTDOWN) {
		for (i = 0; i < b->nr; i++)
			backup_slot_abort(&b->slots[i], v->number);
		report_failed(&v->report, report_status(err));
		for (i = 0; i < b->nr; i++)
			backup_slot_undo(&b->slots[i]);
		return report_status(err);
	}
	ret = show_version(b, v);
	if (ret)
		msg_errno(ret, "standard output");
	if (!ret)
		ret = run_after(b, v);
	version_done(b);
	return ret || err ? EXIT_FAILED : EXIT_OK;
}

/* Do all slots have to be whole in the next version? */
static bool is_full(struct backup *b)
{
	unsigned int i;

	if (!b->made)
		return true;
	for (i = 0; i < b->nr; i++)
		backup_slot_check(&b->slots[i]);
	return b->full_every && b->changes + 1 >= b->full_every;
}

static int make_version(struct backup *b)
{
	struct version *v = calloc(1, sizeof(*v));
	int status = EXIT_FAILED;

	if (!v) {
		msg_errno(ENOMEM, "version");
		return status;
	}
	v->full = is_full(b);
	v->number = b->to_files ? b->slots[0].chain.next : b->made;
	v->start = now();
	v->opts = b->opts;
	v->copy = b->copy;
	v->copy.moves = v->moves;
	v->copy.nr_moves = b->nr;
	v->opts.copy = &v->copy;
	/* Its rounds are shown as those of a copy; as a table, they are not. */
	v->opts.table.list = NULL;
	if (!report_open(&v->report, &builtin_copy, &v->opts)) {
		msg_forget();
		status = finish_version(b, v, copy_version(b, v));
		report_close(&v->report);
	}
	free(v);
	return status;
}

/* ---- all versions ---- */

/* Until it is time, or somebody asks for it. */
static void wait_for_turn(const struct backup *b, double turn)
{
	sigset_t ends;

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigaddset(&ends, SIGQUIT);
	/* So that none comes between the look and the wait. */
	sigprocmask(SIG_BLOCK, &ends, NULL);
	while (!interrupted && !asked) {
		double left = turn - now();
		struct timespec ts = { 0 };

		if (b->interval > 0) {
			if (left <= 0)
				break;
			ts.tv_sec = left;
			ts.tv_nsec = (left - ts.tv_sec) * 1e9;
		}
		ppoll(NULL, 0, b->interval > 0 ? &ts : NULL, &b->signals);
	}
	sigprocmask(SIG_UNBLOCK, &ends, NULL);
	asked = 0;
}

static bool give_up(struct backup *b, int status)
{
	if (status == EXIT_OK) {
		b->failures = 0;
		return false;
	}
	/* What never worked will not work later. */
	return !b->made || ++b->failures > b->retries;
}

static int make_versions(struct backup *b)
{
	double turn = now();
	int status;

	for (;;) {
		status = make_version(b);
		if (interrupted || give_up(b, status) ||
		    (b->count && b->made >= b->count))
			break;
		turn += b->interval;
		if (turn < now())
			turn = now();
		wait_for_turn(b, turn);
		if (interrupted)
			break;
	}
	return status;
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

/* ---- the way there, and back ---- */

/* In the guard, this process being dead. */
static void act(void *arg, char state)
{
	struct backup *b = arg;
	unsigned int i;

	(void)state;
	for (i = 0; i < b->nr_slots; i++)
		backup_slot_clean_after(&b->slots[i]);
}

static int init_slots(struct backup *b)
{
	int ret = 0;

	while (b->nr_slots < b->nr && !ret) {
		unsigned int i = b->nr_slots++;

		ret = backup_slot_init(&b->slots[i], b->refs[i], b->target,
				       b->nr > 1);
	}
	return ret;
}

/* A version has one number, that no slot has used before. */
static int align_numbers(struct backup *b)
{
	unsigned int next = 0, i;
	int ret = 0;

	for (i = 0; i < b->nr; i++)
		if (b->slots[i].chain.next > next)
			next = b->slots[i].chain.next;
	for (i = 0; i < b->nr && !ret; i++)
		ret = chain_skip_to(&b->slots[i].chain, next);
	return ret;
}

static int open_slots(struct backup *b)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < b->nr && !ret; i++)
		ret = backup_slot_open(&b->slots[i]);
	if (ret || !b->to_files)
		return ret;
	for (i = 0; i < b->nr; i++)
		if (b->slots[i].chain.found && b->incremental)
			msg_note("%s: what was written since it was made is not known: the next version is a full one",
				 b->slots[i].chain.found);
	return align_numbers(b);
}

/* Seen between two versions, and not by what is at work for one. */
static void catch_asked(struct backup *b)
{
	struct sigaction sa = { .sa_handler = on_asked };
	sigset_t set;

	sigemptyset(&sa.sa_mask);
	sigaction(SIGUSR1, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, &b->signals);
	sigdelset(&b->signals, SIGUSR1);
}

static int backup_slots(struct backup *b)
{
	int status = EXIT_FAILED, ret;
	unsigned int i;

	catch_asked(b);
	interrupt_catch();
	b->copy.cancel = &interrupted;
	ret = init_slots(b);
	/*
	 * Guards must not hold what is opened later.  That of the pause is the younger
	 * one: it keeps the other from seeing our end, so the guest comes first.
	 */
	if (!ret && b->to_files)
		ret = guard_start(&b->guard, act, b);
	if (!ret && b->to_files)
		ret = guard_tell(&b->guard, 'B');
	if (!ret)
		ret = pause_options_open(&b->pause_opts, &b->copy.pause);
	if (!ret)
		ret = open_slots(b);
	if (!ret)
		status = make_versions(b);
	pause_free(b->copy.pause);
	for (i = 0; i < b->nr_slots; i++)
		backup_slot_close(&b->slots[i]);
	guard_end(&b->guard);
	return status;
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
	struct backup b = { .retries = 3 };
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
	b.table = table_new(cmd->columns, cmd->nr_columns, &b.opts.table);
	if (!b.table)
		return usage_error(cmd);
	status = show_end(&b, backup_slots(&b));
	table_free(b.table);
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
