// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack copy: a slot as it is at one point in time, taken while the guest runs. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "builtin.h"
#include "copy-options.h"
#include "copy-report.h"
#include "engine.h"
#include "interrupt.h"
#include "msg.h"
#include "pause-options.h"
#include "pause.h"
#include "pipeline.h"
#include "source-free.h"
#include "source.h"
#include "target.h"

static const struct option_desc options[] = {
	PAUSE_OPTIONS,
	FREE_OPTIONS,
	COPY_OPTIONS,
	{ 0 }
};

struct copy_job {
	const char *ref;
	const char *target;
	struct pause_options pause;
	struct copy_options opts;
	struct source_free free;
	struct copy copy;
};

static int set_option(struct copy_job *job, int val, const char *arg)
{
	int ret = pause_option(&job->pause, val, arg);

	return ret <= 0 ? ret : copy_option(&job->opts, val, arg);
}

static int check_options(const struct copy_job *job)
{
	if (job->copy.verify && target_kind(job->target) == TARGET_NULL) {
		msg_error("--verify: null: cannot be compared with anything");
		return -1;
	}
	return pause_options_check(&job->pause, "copy");
}

/*
 * Bring it to storage, and give it its name.  Tracking has ended by then: this may
 * take long.
 */
static int commit(struct copy_move *m)
{
	int ret = pipeline_flush(m->pipe, false);

	if (!ret && m->dst->ops->commit)
		ret = m->dst->ops->commit(m->dst);
	return ret;
}

static int run_move(struct copy_job *job, struct copy_report *report,
		    struct copy_move *m, struct source_slot *src)
{
	int ret, status;

	report_begin(report, job->ref, job->target);
	ret = copy_run(&job->copy);
	if (!ret && interrupted)
		ret = -EINTR;
	status = report_status(ret);
	/* Without -EHOSTDOWN nothing whole was copied. */
	if (!ret || ret == -EHOSTDOWN) {
		if (ret)
			msg_note("the guest may still be paused: it could not be resumed");
		source_slot_close(src);
		ret = commit(m);
		if (ret)
			status = EXIT_FAILED;
	}
	if (ret) {
		report_failed(report, status);
	} else {
		/* It is done: a signal that came too late changes nothing. */
		interrupted = 0;
		report_done(report, job->target);
		if (report->error)
			status = EXIT_FAILED;
	}
	return status;
}

/* NULL after a message. */
static struct target *open_target(const struct copy_job *job,
				  const struct source_slot *src)
{
	struct target *t = target_open(job->target, src->base.npages,
				       job->opts.connections);

	if (t && t->slot_id == src->id) {
		msg_error("%s: it is what is to be copied", job->target);
		target_close(t);
		return NULL;
	}
	return t;
}

static int copy_to_target(struct copy_job *job, struct copy_report *report,
			  struct source_slot *src)
{
	struct pipeline_options opts = {
		/* What one thread writes to the page cache is as fast as it gets. */
		.threads = target_kind(job->target) != TARGET_IMAGE,
		.reconnect = job->opts.reconnect,
		.cancel = &interrupted,
		.progress = copy_progress,
		.progress_arg = &job->copy,
	};
	struct copy_move move = {
		.src = job->free.slot ? &job->free.base : &src->base,
	};
	int status = EXIT_FAILED;

	move.dst = open_target(job, src);
	if (!move.dst || pipeline_open(&move.pipe, move.src, move.dst, &opts)) {
		report_failed(report, EXIT_FAILED);
	} else {
		job->copy.moves = &move;
		job->copy.nr_moves = 1;
		status = run_move(job, report, &move, src);
	}
	pipeline_close(move.pipe);
	target_close(move.dst);
	return status;
}

static int open_source(struct copy_job *job, struct source_slot *src)
{
	int ret = source_slot_open(src, job->ref);

	if (ret || !job->opts.free_file)
		return ret;
	ret = source_free_open(&job->free, src, job->opts.free_file,
			       job->opts.free_format);
	if (ret)
		source_slot_close(src);
	return ret;
}

static int copy_slot(struct copy_job *job, struct copy_report *report)
{
	struct source_slot src;
	int status;

	interrupt_catch();
	job->copy.cancel = &interrupted;
	job->copy.patience = job->pause.timeout;
	/* Before the slot and the target: the guard must not hold them. */
	if (pause_options_open(&job->pause, &job->copy.pause)) {
		report_failed(report, EXIT_FAILED);
		return EXIT_FAILED;
	}
	if (open_source(job, &src)) {
		report_failed(report, EXIT_FAILED);
		status = EXIT_FAILED;
	} else {
		status = copy_to_target(job, report, &src);
		source_free_close(&job->free);
		source_slot_close(&src);
	}
	pause_free(job->copy.pause);
	return status;
}

static int copy(const struct builtin *cmd, int argc, char **argv)
{
	struct copy_job job = { 0 };
	struct copy_report report;
	int val, status;

	copy_options_init(&job.opts, &job.copy);
	pause_options_init(&job.pause);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (set_option(&job, val, optarg))
			return usage_error(cmd);
	}
	argv += optind;
	if (!argv[0] || !argv[1] || argv[2]) {
		msg_error("copy: a slot and a target are wanted");
		return usage_error(cmd);
	}
	job.ref = argv[0];
	job.target = argv[1];
	if (check_options(&job))
		return usage_error(cmd);
	if (report_open(&report, cmd, &job.opts))
		return usage_error(cmd);
	status = copy_slot(&job, &report);
	report_close(&report);
	interrupt_die();
	return status;
}

const struct builtin builtin_copy = {
	.name = "copy",
	.summary = "Copy a slot to a file or NBD server while the guest runs",
	.usage = "[OPTION...] SLOT TARGET",
	.options = options,
	.columns = copy_columns,
	.nr_columns = NR_COPY_COLUMNS,
	.run = copy,
};
