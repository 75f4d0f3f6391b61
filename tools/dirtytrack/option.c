// SPDX-License-Identifier: GPL-2.0-only
/* Options: parsed by, and described from, the tables of struct builtin. */
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "builtin.h"
#include "msg.h"
#include "table.h"
#include "units.h"

#define MAX_OPTIONS 48
#define MAX_CONNECTIONS 64
/* getopt_long() returns this for --help, which has no entry of its own. */
#define VAL_HELP 'h'

int parse_option(const struct builtin *cmd, int argc, char **argv)
{
	struct option longopts[MAX_OPTIONS + 2] = { 0 };
	/* '+': the first operand ends the options. */
	char shortopts[2 * MAX_OPTIONS + 4] = "+h";
	const char *shorts = cmd->is_wrapper ? shortopts : shortopts + 1;
	const struct option_desc *o;
	size_t len = strlen(shortopts);
	unsigned int i = 0;
	int val;

	for (o = cmd->options; o->name && i < MAX_OPTIONS; o++, i++) {
		longopts[i].name = o->name;
		longopts[i].has_arg = o->arg ? required_argument : no_argument;
		longopts[i].val = o->val;
		if (o->val < 128) {
			shortopts[len++] = o->val;
			if (o->arg)
				shortopts[len++] = ':';
		}
	}
	longopts[i].name = "help";
	longopts[i].val = VAL_HELP;

	/* getopt's own messages begin with argv[0]. */
	val = getopt_long(argc, argv, shorts, longopts, NULL);
	switch (val) {
	case -1:
		return OPTION_END;
	case '?':
		return OPTION_BAD;
	case VAL_HELP:
		print_help(cmd);
		return OPTION_HELP;
	default:
		return val;
	}
}

int usage_error(const struct builtin *cmd)
{
	fprintf(stderr, "Try 'dirtytrack %s --help'.\n", cmd->name);
	return EXIT_USAGE;
}

static void print_option(int val, const char *name, const char *arg,
			 const char *help)
{
	char left[64];

	snprintf(left, sizeof(left), "--%s%s%s", name, arg ? " " : "",
		 arg ? arg : "");
	if (val < 128)
		printf(" -%c, %-22s %s\n", val, left, help);
	else
		printf("     %-22s %s\n", left, help);
}

void print_help(const struct builtin *cmd)
{
	const struct option_desc *o;
	size_t i;

	printf("Usage: dirtytrack %s %s\n\n%s.\n\nOptions:\n", cmd->name,
	       cmd->usage, cmd->summary);
	for (o = cmd->options; o->name; o++)
		print_option(o->val, o->name, o->arg, o->help);
	print_option(VAL_HELP, "help", NULL, "display this help");

	if (cmd->columns) {
		printf("\nOutput columns:\n");
		for (i = 0; i < cmd->nr_columns; i++)
			printf(" %14s  %s\n", cmd->columns[i].name,
			       cmd->columns[i].help);
	}
	printf("\nFor more details see dirtytrack-%s(1).\n", cmd->name);
}

int option_seconds(const char *option, const char *arg, double *seconds)
{
	if (!parse_seconds(arg, seconds))
		return 0;
	msg_error("%s: '%s' is not a number of seconds from 0 to 1000000",
		  option, arg);
	return -1;
}

int option_count(const char *option, const char *arg, unsigned int *count)
{
	uint64_t value;

	if (!parse_number(arg, UINT_MAX, &value) && value) {
		*count = value;
		return 0;
	}
	msg_error("%s: '%s' is not a count from 1 to %u", option, arg, UINT_MAX);
	return -1;
}

int option_ms(const char *option, const char *arg, double *seconds)
{
	uint64_t ms;

	if (!parse_number(arg, INT_MAX, &ms)) {
		*seconds = ms / 1000.0;
		return 0;
	}
	msg_error("%s: '%s' is not a number of milliseconds", option, arg);
	return -1;
}

int option_connections(const char *arg, unsigned int *count)
{
	if (option_count("--connections", arg, count))
		return -1;
	if (*count <= MAX_CONNECTIONS)
		return 0;
	msg_error("--connections: %u are more than %d", *count,
		  MAX_CONNECTIONS);
	return -1;
}
