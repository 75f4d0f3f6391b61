/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KTAP for tests in C: a table of functions, each of them one line of the result.
 * A test fails by CHECK(), which leaves its function.
 */
#ifndef TAP_H
#define TAP_H

#include <stdbool.h>
#include <stddef.h>

struct tap_test {
	const char *name;
	void (*run)(void);
};

#define TAP_TEST(fn) { #fn, fn }

/* Run them all and print the result; what main() returns. */
int tap_run(const struct tap_test *tests, size_t nr);

/* Note that the current test failed, and why. */
void tap_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define CHECK(cond)							\
	do {								\
		if (!(cond)) {						\
			tap_fail(__FILE__, __LINE__, "%s", #cond);	\
			return;						\
		}							\
	} while (0)

#define CHECK_EQ(a, b)							\
	do {								\
		long long _a = (long long)(a), _b = (long long)(b);	\
									\
		if (_a != _b) {						\
			tap_fail(__FILE__, __LINE__,			\
				 "%s is %lld, not %s (%lld)", #a, _a,	\
				 #b, _b);				\
			return;						\
		}							\
	} while (0)

#endif
