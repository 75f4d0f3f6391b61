// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack receive: take a guest from "dirtytrack migrate". */
#include <getopt.h>

#include "builtin.h"
#include "interrupt.h"
#include "receive.h"

static const struct option_desc options[] = {
	INCOMING_OPTIONS,
	{ 0 }
};

static int receive(const struct builtin *cmd, int argc, char **argv)
{
	struct receive r = { 0 };
	int val, status;

	incoming_options_init(&r.opts);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (val == OPTION_BAD || incoming_option(&r.opts, val, optarg))
			goto usage;
	}
	r.opts.argv = argv + optind;
	if (incoming_options_check(&r.opts, "receive"))
		goto usage;
	status = receive_run(&r);
	interrupt_die();
	return status;

usage:
	usage_error(cmd);
	/* As of run: QEMU might use EXIT_USAGE itself. */
	return EXIT_RUN;
}

const struct builtin builtin_receive = {
	.name = "receive",
	.summary = "Take a guest from another QEMU, with its memory on slots",
	.usage = "--slot NAME=SIZE... --listen ADDRESS [--] QEMU [ARGUMENT...]",
	.options = options,
	.is_wrapper = true,
	.run = receive,
};
