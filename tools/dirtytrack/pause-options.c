// SPDX-License-Identifier: GPL-2.0-only
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "builtin.h"
#include "msg.h"
#include "pause-options.h"
#include "pause.h"
#include "units.h"

void pause_options_init(struct pause_options *opts)
{
	memset(opts, 0, sizeof(*opts));
	opts->timeout = 10;
}

static int add_pid(struct pause_options *opts, const char *arg)
{
	uint64_t pid;

	if (parse_number(arg, INT_MAX, &pid) || !pid) {
		msg_error("--pid: '%s' is not a process id", arg);
		return -1;
	}
	if (opts->nr_pids == MAX_PIDS) {
		msg_error("--pid: more than %d processes", MAX_PIDS);
		return -1;
	}
	opts->pids[opts->nr_pids++] = pid;
	return 0;
}

int pause_option(struct pause_options *opts, int val, const char *arg)
{
	switch (val) {
	case 'q':
		opts->qmp = arg;
		return 0;
	case 'p':
		return add_pid(opts, arg);
	case OPT_PAUSE_CMD:
		opts->pause_cmd = arg;
		return 0;
	case OPT_RESUME_CMD:
		opts->resume_cmd = arg;
		return 0;
	case OPT_NO_PAUSE:
		opts->no_pause = true;
		return 0;
	case OPT_TIMEOUT:
		return option_seconds("--timeout", arg, &opts->timeout);
	}
	return 1;
}

int pause_options_check(const struct pause_options *opts, const char *command)
{
	int ways = !!opts->qmp + !!opts->nr_pids +
		   (opts->pause_cmd || opts->resume_cmd) + opts->no_pause;

	if (!opts->pause_cmd != !opts->resume_cmd) {
		msg_error("--pause-cmd and --resume-cmd: one is of no use without the other");
		return -1;
	}
	if (!ways) {
		msg_error("%s: how is the guest paused? (--qmp, --pid, --pause-cmd; --no-pause if nothing writes to the slot)",
			  command);
		return -1;
	}
	if (ways > 1) {
		msg_error("%s: only one of --qmp, --pid, --pause-cmd and --no-pause can be given",
			  command);
		return -1;
	}
	return 0;
}

int pause_options_open(const struct pause_options *opts, struct pause **pause)
{
	int ret;

	*pause = NULL;
	if (opts->no_pause)
		return 0;
	if (opts->qmp)
		*pause = pause_by_qmp(opts->qmp, opts->timeout);
	else if (opts->nr_pids)
		*pause = pause_by_signal(opts->pids, opts->nr_pids,
					 opts->timeout);
	else
		*pause = pause_by_command(opts->pause_cmd, opts->resume_cmd);
	if (!*pause)
		return -1;
	ret = pause_guard(*pause);
	if (ret) {
		pause_free(*pause);
		*pause = NULL;
	}
	return ret;
}
