// SPDX-License-Identifier: GPL-2.0-only
#include <string.h>

#include "builtin.h"
#include "copy-options.h"
#include "engine.h"
#include "msg.h"

void copy_options_init(struct copy_options *opts, struct copy *copy)
{
	memset(opts, 0, sizeof(*opts));
	opts->copy = copy;
	opts->connections = 4;
	opts->reconnect = 10;
	copy->downtime = 0.3;
	copy->max_rounds = 30;
}

int copy_option(struct copy_options *opts, int val, const char *arg)
{
	struct copy *copy = opts->copy;

	switch (val) {
	case 'd':
		return option_ms("--downtime", arg, &copy->downtime);
	case OPT_MAX_ROUNDS:
		return option_count("--max-rounds", arg, &copy->max_rounds);
	case OPT_STRICT:
		copy->strict = true;
		return 0;
	case OPT_VERIFY:
		copy->verify = true;
		return 0;
	case 'c':
		return option_connections(arg, &opts->connections);
	case OPT_RECONNECT:
		return option_seconds("--reconnect", arg, &opts->reconnect);
	case OPT_PROGRESS:
		opts->progress = true;
		return 0;
	case OPT_FREE:
		opts->free_file = arg;
		return 0;
	case OPT_FREE_FORMAT:
		if (!range_format_parse(arg, &opts->free_format))
			return 0;
		msg_error("--free-format: '%s' is none of text, json and binary", arg);
		return -1;
	}
	return table_option(&opts->table, val, arg) ? 0 : -1;
}
