// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack backup: versions of a slot, each as it was at one point in time, of which
 * all but the first have only what changed.
 *
 * The log is this process's: it ends with it, and after that nobody knows what changed.
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
#include "builtin.h"
#include "chain.h"
#include "copy-options.h"
#include "copy-report.h"
#include "device.h"
#include "engine.h"
#include "guard.h"
#include "interrupt.h"
#include "msg.h"
#include "pause-options.h"
#include "pause.h"
#include "pipeline.h"
#include "qemu-nbd.h"
#include "shell.h"
#include "source-kept.h"
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
	[COL_FILE] = { "FILE", COLUMN_TEXT, 0, 0, "file, or URI of the server" },
};

struct backup {
	const char *ref;
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
	struct source_kept src;
	struct chain chain;	/* of files */
	char dir[64];		/* for the socket */
	struct guard guard;
	sigset_t signals;	/* blocked ones, while it waits */
	unsigned int made;
	unsigned int changes;	/* versions since the last whole one */
	unsigned int failures;	/* in a row */
};

/* A version at work. */
struct version {
	bool full;
	const char *name;	/* of the file, or URI */
	unsigned int number;
	double start;
	time_t at;
	struct copy_options opts;
	struct copy copy;
	struct copy_move move;
	struct copy_report report;
	struct pipeline_stats stats;
	struct qemu_nbd server;
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
	return pause_options_check(&b->pause_opts, "backup");
}

/* ---- one version ---- */

/* How much of the disk the file takes. */
static uint64_t size_on_disk(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

static int show_version(struct backup *b, const struct version *v)
{
	struct cell cells[NR_COLUMNS] = { 0 };
	struct json_object *obj, *row;
	char at[32];
	struct tm tm;

	gmtime_r(&v->at, &tm);
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cells[COL_VERSION] = cell_number(v->number);
	cells[COL_KIND] = cell_text(v->full ? "full" : "changes");
	cells[COL_AT] = cell_text(at);
	cells[COL_ROUNDS] = cell_number(v->copy.round.round);
	cells[COL_PAGES] = cell_number(v->stats.pages);
	cells[COL_WRITTEN] = cell_number(v->stats.data * DTRACK_PAGE_SIZE);
	cells[COL_ZERO] = cell_number(v->stats.pages - v->stats.data);
	if (b->to_files)
		cells[COL_SIZE] = cell_number(size_on_disk(v->name));
	cells[COL_PAUSE] = cell_real(v->copy.seconds_paused);
	cells[COL_TIME] = cell_real(now() - v->start);
	cells[COL_FILE] = cell_text(v->name);
	if (!b->opts.table.json)
		return table_stream(b->table, cells);
	obj = json_object_new_object();
	json_object_object_add(obj, "event", json_object_new_string("version"));
	row = table_json_row(b->table, cells);
	json_object_object_foreach(row, key, value)
		json_object_object_add(obj, key, json_object_get(value));
	json_object_put(row);
	return json_line(obj);
}

/* What the user may want to know when a version is there. */
static int run_after(struct backup *b, const struct version *v)
{
	char number[16];

	if (!b->after)
		return 0;
	snprintf(number, sizeof(number), "%u", v->number);
	if (setenv("DIRTYTRACK_VERSION", number, 1) < 0 ||
	    setenv("DIRTYTRACK_FILE", v->name, 1) < 0) {
		msg_errno(ENOMEM, "--after");
		return -ENOMEM;
	}
	return shell_run(b->after);
}

/* Something for the copy to write to. */
static int open_file(struct backup *b, struct version *v)
{
	const char *backing = v->full ? NULL : chain_backing(&b->chain);
	uint64_t bytes = b->src.base.npages * DTRACK_PAGE_SIZE;
	int ret = qcow2_create(b->chain.partial, backing, bytes);

	return ret ? ret : qemu_nbd_start(&v->server, b->dir, b->chain.partial,
					  v->opts.connections);
}

static int open_target(struct backup *b, struct version *v)
{
	struct pipeline_options opts = {
		.threads = true,
		/* Nobody starts a server of ours again. */
		.reconnect = b->to_files ? 0 : v->opts.reconnect,
		.cancel = &interrupted,
		.progress = copy_progress,
		.progress_arg = &v->copy,
	};
	int ret = b->to_files ? open_file(b, v) : 0;

	if (ret)
		return ret;
	v->move.dst = target_nbd(b->to_files ? v->server.uri : b->target,
				 b->src.base.npages, v->opts.connections);
	if (!v->move.dst)
		return -EIO;
	v->move.dst->name = v->name;
	return pipeline_open(&v->move.pipe, v->move.src, v->move.dst, &opts);
}

static void close_target(struct version *v)
{
	pipeline_close(v->move.pipe);
	v->move.pipe = NULL;
	target_close(v->move.dst);
	v->move.dst = NULL;
}

/* Everything is there: bring it to storage, and give it its name. */
static int commit(struct backup *b, struct version *v)
{
	int ret = pipeline_flush(v->move.pipe, false);

	if (ret)
		return ret;
	pipeline_get_stats(v->move.pipe, &v->stats);
	if (!b->to_files)
		return 0;
	close_target(v);
	ret = qemu_nbd_finish(&v->server);
	/* An image that was not asked for any more would be surprising. */
	if (!ret && interrupted)
		ret = -EINTR;
	return ret ? ret : chain_commit(&b->chain);
}

/* -EHOSTDOWN: it is there, but the guest is still paused. */
static int copy_version(struct backup *b, struct version *v)
{
	int ret, down;

	/* What could not be put back, when a version failed. */
	ret = source_kept_undo(&b->src);
	if (!ret && v->full && b->made)
		ret = source_kept_restart(&b->src);
	if (!ret)
		ret = open_target(b, v);
	if (ret)
		return ret;
	report_begin(&v->report, b->ref, v->name);
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

/* The status for the command, if this was the last version. */
static int finish_version(struct backup *b, struct version *v, int err)
{
	int ret;

	close_target(v);
	if (err && err != -EHOSTDOWN) {
		qemu_nbd_kill(&v->server);
		if (b->to_files)
			chain_abort(&b->chain);
		report_failed(&v->report, report_status(err));
		source_kept_undo(&b->src);
		return report_status(err);
	}
	source_kept_done(&b->src);
	b->changes = v->full ? 0 : b->changes + 1;
	b->made++;
	ret = show_version(b, v);
	if (ret)
		msg_errno(ret, "standard output");
	if (!ret)
		ret = run_after(b, v);
	return ret || err ? EXIT_FAILED : EXIT_OK;
}

/* Does it have to be a whole one? */
static bool is_full(struct backup *b)
{
	if (!b->made)
		return true;
	if (b->full_every && b->changes + 1 >= b->full_every)
		return true;
	if (b->to_files && chain_is_broken(&b->chain)) {
		msg_note("%s: it is not there any more: the next version is a full one",
			 b->chain.last);
		chain_cut(&b->chain);
	}
	return b->to_files && !chain_backing(&b->chain);
}

static int make_version(struct backup *b)
{
	struct version v = {
		.full = is_full(b),
		.name = b->to_files ? b->chain.file : b->target,
		.number = b->to_files ? b->chain.next : b->made,
		.start = now(),
		.opts = b->opts,
		.copy = b->copy,
	};
	char *name = strdup(v.name);
	int status, ret;

	if (!name) {
		msg_errno(ENOMEM, "%s", v.name);
		return EXIT_FAILED;
	}
	v.name = name;
	v.move.src = &b->src.base;
	v.copy.moves = &v.move;
	v.copy.nr_moves = 1;
	v.opts.copy = &v.copy;
	/* Its rounds are shown as those of a copy; as a table, they are not. */
	v.opts.table.list = NULL;
	if (report_open(&v.report, &builtin_copy, &v.opts)) {
		free(name);
		return EXIT_FAILED;
	}
	msg_forget();
	ret = copy_version(b, &v);
	status = finish_version(b, &v, ret);
	report_close(&v.report);
	free(name);
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

static void remove_dir(const struct backup *b)
{
	char path[sizeof(b->dir) + 8];

	snprintf(path, sizeof(path), "%s/nbd", b->dir);
	unlink(path);
	rmdir(b->dir);
}

/* In the guard, this process being dead. */
static void act(void *arg, char state)
{
	struct backup *b = arg;

	(void)state;
	chain_clean_after(&b->chain);
	remove_dir(b);
}

/* A directory of our own, with a path that may be a part of a URI. */
static int make_dir(struct backup *b)
{
	const char *tmp = getenv("TMPDIR");
	int ret;

	if (!tmp || *tmp != '/' || strlen(tmp) > sizeof(b->dir) - 20 ||
	    strspn(tmp, "/-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") !=
	    strlen(tmp))
		tmp = "/tmp";
	snprintf(b->dir, sizeof(b->dir), "%s/dirtytrack.XXXXXX", tmp);
	if (mkdtemp(b->dir))
		return 0;
	ret = -errno;
	msg_errno(ret, "%s", b->dir);
	return ret;
}

/* Names of files need that of the slot. */
static int name_files(struct backup *b)
{
	struct dirtytrack_slot_info info;
	char name[SLOT_LABEL_LEN];
	int slot = open_slot(b->ref, &info), ret;

	if (slot < 0)
		return slot;
	close(slot);
	slot_label(&info, name);
	if (*name == '#')
		snprintf(name, sizeof(name), "slot-%u", info.out_id);
	ret = chain_init(&b->chain, b->target, name);
	if (ret)
		return ret;
	ret = make_dir(b);
	if (ret)
		chain_close(&b->chain);
	return ret;
}

static int open_files(struct backup *b)
{
	int ret = chain_open(&b->chain, b->src.base.npages * DTRACK_PAGE_SIZE);

	if (!ret && b->chain.found && b->incremental)
		msg_note("%s: what was written since it was made is not known: the next version is a full one",
			 b->chain.found);
	return ret;
}

static int open_source(struct backup *b)
{
	int ret = source_kept_open(&b->src, b->ref), status;

	if (ret)
		return EXIT_FAILED;
	ret = b->to_files ? open_files(b) : 0;
	status = ret ? EXIT_FAILED : make_versions(b);
	source_kept_close(&b->src);
	return status;
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

static int backup_slot(struct backup *b)
{
	int status = EXIT_FAILED;

	catch_asked(b);
	interrupt_catch();
	b->copy.cancel = &interrupted;
	if (b->to_files && name_files(b))
		return status;
	/*
	 * Guards must not hold what is opened later.  That of the pause is the younger
	 * one: it keeps the other from seeing our end, so the guest comes first.
	 */
	if (b->to_files &&
	    (guard_start(&b->guard, act, b) || guard_tell(&b->guard, 'B')))
		goto out;
	if (!pause_options_open(&b->pause_opts, &b->copy.pause))
		status = open_source(b);
	pause_free(b->copy.pause);
out:
	chain_close(&b->chain);
	if (b->to_files)
		remove_dir(b);
	guard_end(&b->guard);
	return status;
}

static int backup(const struct builtin *cmd, int argc, char **argv)
{
	struct backup b = { .retries = 3, .chain = { .lock = -1 } };
	int val, status;

	copy_options_init(&b.opts, &b.copy);
	pause_options_init(&b.pause_opts);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (set_option(&b, val, optarg))
			return usage_error(cmd);
	}
	argv += optind;
	if (!argv[0] || !argv[1] || argv[2]) {
		msg_error("backup: a slot and a target are wanted");
		return usage_error(cmd);
	}
	b.ref = argv[0];
	b.target = argv[1];
	if (check_options(&b))
		return usage_error(cmd);
	b.table = table_new(cmd->columns, cmd->nr_columns, &b.opts.table);
	if (!b.table)
		return usage_error(cmd);
	status = show_end(&b, backup_slot(&b));
	table_free(b.table);
	interrupt_die();
	return status;
}

const struct builtin builtin_backup = {
	.name = "backup",
	.summary = "Keep versions of a slot, each of what changed, while the guest runs",
	.usage = "[OPTION...] SLOT TARGET",
	.options = options,
	.columns = columns,
	.nr_columns = NR_COLUMNS,
	.run = backup,
};
