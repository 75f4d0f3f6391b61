/* SPDX-License-Identifier: GPL-2.0-only */
/* What the small benchmarks share: options, time, and an end with a message. */
#ifndef SMALL_H
#define SMALL_H

#include <stdbool.h>

/**
 * struct small_option - an option of one letter
 * @letter: it; 0 ends a table of them
 * @number: what is given is a number, for this
 * @text: or it is for this
 * @flag: or nothing is given, and this becomes true
 */
struct small_option {
	char letter;
	unsigned int *number;
	const char **text;
	bool *flag;
};

/* False if there is anything else, or a number is none. */
bool small_options(int argc, char **argv, const struct small_option *options);
/* Says how the program is used, after its name.  The exit status for that. */
int small_usage(const char *options);

/* Says that @what failed, for the reason @err, and ends. */
void __attribute__((noreturn)) small_die(const char *what, int err);

/* A clock in microseconds. */
double small_now_us(void);

#endif
