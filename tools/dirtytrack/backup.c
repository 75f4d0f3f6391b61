// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backup.h"
#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "pause.h"
#include "pipeline.h"
#include "shell.h"
#include "units.h"

static volatile sig_atomic_t asked;

static void on_asked(int sig)
{
	(void)sig;
	asked = 1;
}

/* ---- one version ---- */

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
static int run_after(struct backup *b, const struct backup_version *v)
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

static int begin_slots(struct backup *b, struct backup_version *v)
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
static int commit(struct backup *b, struct backup_version *v)
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
static int copy_version(struct backup *b, struct backup_version *v)
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
static int finish_version(struct backup *b, struct backup_version *v, int err)
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
	ret = b->show(b, v);
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
	struct backup_version *v = calloc(1, sizeof(*v));
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
	/* A server that is stuck must not keep the guest paused. */
	v->copy.patience = b->pause_opts.timeout;
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

int backup_run(struct backup *b)
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
