/* SPDX-License-Identifier: GPL-2.0-only */
/* Options of all subcommands that pause a guest and let it go on. */
#ifndef PAUSE_OPTIONS_H
#define PAUSE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct pause;

#define MAX_PIDS 64

/* What was asked for. */
struct pause_options {
	const char *qmp;
	const char *pause_cmd;
	const char *resume_cmd;
	pid_t pids[MAX_PIDS];
	size_t nr_pids;
	bool no_pause;
	double timeout;		/* seconds for an answer */
};

/* Apart from the values of other options. */
enum {
	OPT_PAUSE_CMD = 800,
	OPT_RESUME_CMD,
	OPT_NO_PAUSE,
	OPT_TIMEOUT,
};

#define PAUSE_OPTIONS							      \
	{ 'q', "qmp", "SOCKET", "pause QEMU by its QMP socket" },	      \
	{ 'p', "pid", "PID", "pause a process by SIGSTOP; may be repeated" }, \
	{ OPT_PAUSE_CMD, "pause-cmd", "COMMAND", "pause by a shell command" }, \
	{ OPT_RESUME_CMD, "resume-cmd", "COMMAND", "resume by a shell command" }, \
	{ OPT_NO_PAUSE, "no-pause", NULL, "never pause: nothing must write at the end" }, \
	{ OPT_TIMEOUT, "timeout", "SECONDS", "for an answer to pause, 10 unless given" }

/* The defaults. */
void pause_options_init(struct pause_options *opts);
/* Take note of option @val.  0; 1 when it is not one of PAUSE_OPTIONS; a message and -1. */
int pause_option(struct pause_options *opts, int val, const char *arg);
/* Do they say one way to pause?  @command is for messages.  0, or a message and -1. */
int pause_options_check(const struct pause_options *opts, const char *command);
/* That way, with its guard.  NULL with 0 for --no-pause.  0, or a message and -errno. */
int pause_options_open(const struct pause_options *opts, struct pause **pause);

#endif
