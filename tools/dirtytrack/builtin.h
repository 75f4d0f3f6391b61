/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Subcommands.
 *
 * Each is one file with one struct builtin; dirtytrack.c has the table of them.
 * What a subcommand takes and prints is in its struct, and the parser, the help
 * text and the shell completion all read it there.
 */
#ifndef BUILTIN_H
#define BUILTIN_H

#include <stdbool.h>
#include <stddef.h>

struct column;

/* Exit statuses; the manual page lists them. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_DOWNTIME = 3,	/* --strict: the guest writes too fast */
	EXIT_DIFFERS = 4,	/* --verify: target and memory differ */
	EXIT_DOUBT = 5,		/* nobody knows where the guest is */
	EXIT_TAKEN_OVER = 6,	/* replicate: it runs at the secondary */
	EXIT_RUN = 125,		/* run: before the command was started */
	EXIT_NOT_EXECUTABLE = 126,
	EXIT_NOT_FOUND = 127,
};

/**
 * struct option_desc - an option
 * @val: what parse_option() returns; below 128, also the short option
 * @name: long name
 * @arg: name of its argument, or NULL
 * @help: one line
 *
 * An array of them ends with an entry without name.
 */
struct option_desc {
	int val;
	const char *name;
	const char *arg;
	const char *help;
};

/**
 * struct builtin - a subcommand
 * @name: name
 * @summary: one line
 * @usage: what follows the name on the command line
 * @options: its options
 * @columns: columns of its table, or NULL
 * @nr_columns: how many
 * @is_wrapper: the first operand is a command: what follows is its own
 * @run: argv[0] is the name; returns the exit status
 */
struct builtin {
	const char *name;
	const char *summary;
	const char *usage;
	const struct option_desc *options;
	const struct column *columns;
	size_t nr_columns;
	bool is_wrapper;
	int (*run)(const struct builtin *cmd, int argc, char **argv);
};

extern const struct builtin builtin_backup;
extern const struct builtin builtin_copy;
extern const struct builtin builtin_failover;
extern const struct builtin builtin_info;
extern const struct builtin builtin_list;
extern const struct builtin builtin_log;
extern const struct builtin builtin_migrate;
extern const struct builtin builtin_rate;
extern const struct builtin builtin_receive;
extern const struct builtin builtin_release;
extern const struct builtin builtin_replicate;
extern const struct builtin builtin_run;
extern const struct builtin builtin_secondary;

/* What parse_option() returns besides an option's @val. */
#define OPTION_END	-1	/* optind is the first operand */
#define OPTION_BAD	-2	/* the message has been printed */
#define OPTION_HELP	-3	/* --help: the help has been printed */

int parse_option(const struct builtin *cmd, int argc, char **argv);
/* Print "try ... --help" and return EXIT_USAGE. */
int usage_error(const struct builtin *cmd);
void print_help(const struct builtin *cmd);

/* Argument of the option being parsed, checked; 0, or a message and -1. */
int option_seconds(const char *option, const char *arg, double *seconds);
int option_count(const char *option, const char *arg, unsigned int *count);
int option_ms(const char *option, const char *arg, double *seconds);
int option_connections(const char *arg, unsigned int *count);

#endif
