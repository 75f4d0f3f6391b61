// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tap.h"

/* What any of them takes, many times over: the machine may have other things to do. */
#define TEST_SECONDS 300

static bool failed;
static const char *volatile running;

void tap_fail(const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	failed = true;
	printf("# %s:%d: ", file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

/* Of a program that waits for ever it is known in which test. */
static void did_not_end(int sig)
{
	static const char text[] = " did not end\n";

	(void)sig;
	if (write(STDOUT_FILENO, "# ", 2) < 0 ||
	    write(STDOUT_FILENO, running, strlen(running)) < 0 ||
	    write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

int tap_run(const struct tap_test *tests, size_t nr)
{
	size_t i, nr_failed = 0;

	/* Children of tests must not print again what is still in the buffer. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, did_not_end);
	printf("TAP version 13\n1..%zu\n", nr);
	for (i = 0; i < nr; i++) {
		failed = false;
		/* A test that waits for ever must not. */
		running = tests[i].name;
		alarm(TEST_SECONDS);
		tests[i].run();
		nr_failed += failed;
		printf("%s %zu %s\n", failed ? "not ok" : "ok", i + 1,
		       tests[i].name);
	}
	printf("# Totals: pass:%zu fail:%zu xfail:0 xpass:0 skip:0 error:0\n",
	       nr - nr_failed, nr_failed);
	return nr_failed ? 1 : 0;
}
