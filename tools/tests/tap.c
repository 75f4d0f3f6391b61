// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "tap.h"

static bool failed;

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

int tap_run(const struct tap_test *tests, size_t nr)
{
	size_t i, nr_failed = 0;

	/* Children of tests must not print again what is still in the buffer. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%zu\n", nr);
	for (i = 0; i < nr; i++) {
		failed = false;
		/* A test that waits for ever must not. */
		alarm(60);
		tests[i].run();
		nr_failed += failed;
		printf("%s %zu %s\n", failed ? "not ok" : "ok", i + 1,
		       tests[i].name);
	}
	printf("# Totals: pass:%zu fail:%zu xfail:0 xpass:0 skip:0 error:0\n",
	       nr - nr_failed, nr_failed);
	return nr_failed ? 1 : 0;
}
