// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack secondary: keep the epochs of "dirtytrack replicate", and take over. */
#include <getopt.h>

#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "secondary.h"

enum {
	OPT_FENCE = 256,
	OPT_AUTO,
	OPT_SILENCE,
	OPT_UNDO,
};

static const struct option_desc options[] = {
	INCOMING_OPTIONS,
	{ OPT_FENCE, "fence", "COMMAND", "before the guest runs here: end it there" },
	{ OPT_AUTO, "auto", "SECONDS", "take over when the primary is silent for so long" },
	{ OPT_SILENCE, "silence", "SECONDS", "a primary so silent is replaced by another, 10 unless given" },
	{ OPT_UNDO, "undo", NULL, "undo what others write to the slots" },
	{ 0 }
};

static int set_option(struct secondary *s, int val, const char *arg)
{
	switch (val) {
	case OPT_FENCE:
		s->fence = arg;
		return 0;
	case OPT_UNDO:
		s->undo = true;
		return 0;
	case OPT_SILENCE:
		return option_seconds("--silence", arg, &s->silence);
	case OPT_AUTO:
		if (option_seconds("--auto", arg, &s->automatic))
			return -1;
		if (s->automatic >= 0.1)
			return 0;
		msg_error("--auto: '%s' is less than a tenth of a second", arg);
		return -1;
	}
	return incoming_option(&s->opts, val, arg);
}

static int secondary(const struct builtin *cmd, int argc, char **argv)
{
	struct secondary s = { .silence = 10 };
	int val, status;

	incoming_options_init(&s.opts);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (val == OPTION_BAD || set_option(&s, val, optarg))
			goto usage;
	}
	s.opts.argv = argv + optind;
	if (incoming_options_check(&s.opts, "secondary"))
		goto usage;
	status = secondary_run(&s);
	interrupt_die();
	return status;

usage:
	usage_error(cmd);
	/* As of run: QEMU might use EXIT_USAGE itself. */
	return EXIT_RUN;
}

const struct builtin builtin_secondary = {
	.name = "secondary",
	.summary = "Keep the epochs of a guest that runs elsewhere, and take over",
	.usage = "--slot NAME=SIZE... --listen ADDRESS [--] QEMU [ARGUMENT...]",
	.options = options,
	.is_wrapper = true,
	.run = secondary,
};
