// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack run: a command with slots
 *
 * A slot lives as long as something holds it.  Here that is the command: it
 * inherits the slots' fds, and takes the place of this process, so that its exit
 * status, its signals and its end are its own.
 */
#include <errno.h>
#include <getopt.h>
#include <unistd.h>

#include "builtin.h"
#include "msg.h"
#include "slot-arg.h"

static const struct option_desc options[] = {
	{ 's', "slot", "NAME=SIZE", "make a slot; may be repeated" },
	{ 0 }
};

static int run(const struct builtin *cmd, int argc, char **argv)
{
	struct slot_args slots = { 0 };
	int val, err;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (val == OPTION_BAD)
			goto usage;
		err = slot_args_add(&slots, optarg);
		if (err == -E2BIG)
			return EXIT_RUN;
		if (err)
			goto usage;
	}
	argv += optind;
	if (!*argv) {
		msg_error("run: which command?");
		goto usage;
	}
	if (slot_args_make(&slots) || slot_args_substitute(&slots, argv))
		return EXIT_RUN;

	execvp(argv[0], argv);
	err = errno;
	msg_errno(err, "%s: cannot run it", argv[0]);
	return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;

usage:
	usage_error(cmd);
	/* Not EXIT_USAGE: the command might use that itself. */
	return EXIT_RUN;
}

const struct builtin builtin_run = {
	.name = "run",
	.summary = "Run a command that inherits new slots",
	.usage = "[--slot NAME=SIZE]... [--] COMMAND [ARGUMENT...]",
	.options = options,
	.is_wrapper = true,
	.run = run,
};
