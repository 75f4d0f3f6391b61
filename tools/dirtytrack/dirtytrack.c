// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack: the command.  Subcommands are in builtin-*.c. */
#include <stdio.h>
#include <string.h>

#include "builtin.h"
#include "msg.h"

static const struct builtin *const builtins[] = {
	&builtin_run,
	&builtin_list,
	&builtin_info,
	&builtin_log,
	&builtin_rate,
	&builtin_release,
	&builtin_copy,
	&builtin_backup,
	&builtin_migrate,
	&builtin_receive,
	&builtin_replicate,
	&builtin_secondary,
	&builtin_failover,
};

#define NR_BUILTINS (sizeof(builtins) / sizeof(*builtins))

static const struct builtin *find_builtin(const char *name)
{
	size_t i;

	for (i = 0; i < NR_BUILTINS; i++)
		if (!strcmp(builtins[i]->name, name))
			return builtins[i];
	return NULL;
}

static void print_overview(FILE *out)
{
	size_t i;

	fputs("Usage: dirtytrack COMMAND [OPTION...] [ARGUMENT...]\n\n"
	      "Guest memory whose every write is tracked: make it, watch it, copy it.\n\n"
	      "Commands:\n", out);
	for (i = 0; i < NR_BUILTINS; i++)
		fprintf(out, "  %-9s %s\n", builtins[i]->name,
			builtins[i]->summary);
	fputs("  help      Describe a command\n\n"
	      "Options:\n"
	      " -h, --help     display this help\n"
	      " -V, --version  display version\n\n"
	      "A SLOT is given by its name, its id, or the path of an open one,\n"
	      "as in /proc/PID/fd/N.  For more details see dirtytrack(1).\n", out);
}

/* For the shell completion: what the tables say, one word a line. */
static int print_words(const char *command)
{
	const struct option_desc *o;
	const struct builtin *cmd;
	size_t i;

	if (!command) {
		for (i = 0; i < NR_BUILTINS; i++)
			puts(builtins[i]->name);
		puts("help");
		return EXIT_OK;
	}
	cmd = find_builtin(command);
	if (!cmd)
		return EXIT_USAGE;
	for (o = cmd->options; o->name; o++)
		printf("--%s%s\n", o->name, o->arg ? "=" : "");
	puts("--help");
	return EXIT_OK;
}

static int unknown(const char *name)
{
	msg_error("there is no command '%s'", name);
	fputs("Try 'dirtytrack help'.\n", stderr);
	return EXIT_USAGE;
}

static int help(int argc, char **argv)
{
	const struct builtin *cmd;

	if (argc < 2) {
		print_overview(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[1], "--words"))
		return print_words(argv[2]);
	cmd = find_builtin(argv[1]);
	if (!cmd)
		return unknown(argv[1]);
	print_help(cmd);
	return EXIT_OK;
}

int main(int argc, char **argv)
{
	const struct builtin *cmd;
	char title[64];

	if (argc < 2) {
		print_overview(stderr);
		return EXIT_USAGE;
	}
	argc--;
	argv++;
	if (!strcmp(argv[0], "-h") || !strcmp(argv[0], "--help")) {
		print_overview(stdout);
		return EXIT_OK;
	}
	if (!strcmp(argv[0], "-V") || !strcmp(argv[0], "--version")) {
		puts("dirtytrack " DIRTYTRACK_VERSION);
		return EXIT_OK;
	}
	if (!strcmp(argv[0], "help"))
		return help(argc, argv);
	cmd = find_builtin(argv[0]);
	if (!cmd)
		return unknown(argv[0]);
	/* getopt begins its messages with argv[0]. */
	snprintf(title, sizeof(title), "dirtytrack: %s", cmd->name);
	argv[0] = title;
	return cmd->run(cmd, argc, argv);
}
