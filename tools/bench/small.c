// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "small.h"

static bool set_number(unsigned int *number, const char *text)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (end == text || *end || *text == '-' || errno || value > UINT_MAX)
		return false;
	*number = value;
	return true;
}

bool small_options(int argc, char **argv, const struct small_option *options)
{
	const struct small_option *o;
	char letters[64] = "";
	size_t n = 0;
	int opt;

	for (o = options; o->letter && n < sizeof(letters) - 2; o++) {
		letters[n++] = o->letter;
		if (!o->flag)
			letters[n++] = ':';
	}
	letters[n] = '\0';
	while ((opt = getopt(argc, argv, letters)) != -1) {
		for (o = options; o->letter && o->letter != opt; o++)
			;
		if (!o->letter)
			return false;
		if (o->flag)
			*o->flag = true;
		else if (o->text)
			*o->text = optarg;
		else if (!set_number(o->number, optarg))
			return false;
	}
	return optind == argc;
}

int small_usage(const char *options)
{
	fprintf(stderr, "usage: %s %s\n", program_invocation_short_name, options);
	return 2;
}

void small_die(const char *what, int err)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(err));
	exit(1);
}

double small_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e6 + ts.tv_nsec / 1e3;
}
