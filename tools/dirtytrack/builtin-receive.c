// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack receive: take a guest from "dirtytrack migrate", or from its files. */
#include <getopt.h>

#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "receive.h"
#include "restore.h"

enum {
	OPT_FROM = 256,
	OPT_PAUSED,
	OPT_PROGRESS,
};

static const struct option_desc options[] = {
	INCOMING_OPTIONS,
	{ OPT_FROM, "from", "FILE", "take it from there, where it was moved to" },
	{ OPT_PAUSED, "paused", NULL, "with --from: leave it so" },
	{ OPT_PROGRESS, "progress", NULL, "with --from: show progress also when not on a terminal" },
	{ 0 }
};

/* One of the two, with the same options. */
struct job {
	struct receive receive;
	struct restore restore;
};

static int set_option(struct job *job, int val, const char *arg)
{
	switch (val) {
	case OPT_FROM:
		job->receive.opts.from = arg;
		return 0;
	case OPT_PAUSED:
		job->restore.paused = true;
		return 0;
	case OPT_PROGRESS:
		job->restore.progress = true;
		return 0;
	}
	return incoming_option(&job->receive.opts, val, arg);
}

static int check_options(const struct job *job)
{
	if (!job->receive.opts.from && (job->restore.paused || job->restore.progress)) {
		msg_error("receive: --paused and --progress are for --from only");
		return -1;
	}
	return incoming_options_check(&job->receive.opts, "receive");
}

static int receive(const struct builtin *cmd, int argc, char **argv)
{
	struct job job = { .restore.opts = &job.receive.opts };
	int val, status;

	incoming_options_init(&job.receive.opts);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (val == OPTION_BAD || set_option(&job, val, optarg))
			goto usage;
	}
	job.receive.opts.argv = argv + optind;
	if (check_options(&job))
		goto usage;
	status = job.receive.opts.from ? restore_run(&job.restore) :
					 receive_run(&job.receive);
	interrupt_die();
	return status;

usage:
	usage_error(cmd);
	/* As of run: QEMU might use EXIT_USAGE itself. */
	return EXIT_RUN;
}

const struct builtin builtin_receive = {
	.name = "receive",
	.summary = "Take a guest from another QEMU, or from files, with its memory on slots",
	.usage = "--slot NAME=SIZE... {--listen ADDRESS | --from FILE} [--] QEMU [ARGUMENT...]",
	.options = options,
	.is_wrapper = true,
	.run = receive,
};
