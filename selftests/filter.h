/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Running some of a program's tests, and giving them time
 *
 *	build/selftests/mappings 'mappings.fresh.*' 'mappings.*.punch_*'
 *
 * runs the tests whose names, as printed in the results, match one of the patterns;
 * without arguments, all.  Old kernels' harnesses cannot; those that can leave
 * arguments alone which are no options.
 *
 * A kernel that checks all it does is slow: DIRTYTRACK_SLOW says how many times, and
 * what is waited for at most, each test's end included, is multiplied by it.  The
 * machine may be slow as well, or stand still for a while: what does not come is told
 * from what comes late by minutes.
 */
#ifndef DIRTYTRACK_FILTER_H
#define DIRTYTRACK_FILTER_H

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

#include "kselftest_harness.h"

static inline int test_slowness(void)
{
	const char *text = getenv("DIRTYTRACK_SLOW");
	int times = text ? atoi(text) : 1;

	if (times < 1) {
		fprintf(stderr, "# DIRTYTRACK_SLOW=%s: not how many times\n", text);
		exit(KSFT_FAIL);
	}
	return times;
}

/* Seconds that a test may take at least; the harness's own are 30. */
#define TEST_SECONDS	300

/* Seconds to wait for what comes at once, or never. */
#define TEST_PATIENCE	120

static inline void test_give_time(void)
{
	struct __fixture_metadata *f;
	struct __test_metadata *t;

	for (f = __fixture_list; f; f = f->next)
		for (t = f->tests; t; t = t->next) {
			if (t->timeout < TEST_SECONDS)
				t->timeout = TEST_SECONDS;
			t->timeout *= test_slowness();
		}
}

static inline bool test_selected(char **patterns, const char *fixture,
				 const char *variant, const char *test)
{
	char name[256];

	snprintf(name, sizeof(name), "%s%s%s.%s", fixture, *variant ? "." : "",
		 variant, test);
	for (; *patterns; patterns++)
		if (!fnmatch(*patterns, name, 0))
			return true;
	return false;
}

static inline void *test_copy(const void *p, size_t size)
{
	void *copy = malloc(size);

	if (!copy)
		abort();
	return memcpy(copy, p, size);
}

/*
 * The harness runs each test of a fixture with each of its variants.  Replaces the
 * fixtures by copies with one variant each and only the tests selected.
 */
static inline void test_select(char **patterns)
{
	struct __fixture_variant_metadata none = { .name = "" }, *v;
	struct __fixture_metadata *fixtures = NULL, **next_fixture = &fixtures, *f;
	struct __test_metadata *t;

	if (!*patterns || **patterns == '-')
		return;
	for (f = __fixture_list; f; f = f->next) {
		for (v = f->variant ?: &none; v; v = v->next) {
			struct __fixture_metadata *copy = test_copy(f, sizeof(*f));
			struct __test_metadata **next_test = &copy->tests;

			for (t = f->tests; t; t = t->next) {
				if (!test_selected(patterns, f->name, v->name, t->name))
					continue;
				*next_test = test_copy(t, sizeof(*t));
				next_test = &(*next_test)->next;
			}
			*next_test = NULL;
			copy->next = NULL;
			if (f->variant) {
				copy->variant = test_copy(v, sizeof(*v));
				copy->variant->next = NULL;
			}
			if (!copy->tests) {
				free(copy->variant);
				free(copy);
				continue;
			}
			*next_fixture = copy;
			next_fixture = &copy->next;
		}
	}
	if (!fixtures) {
		fprintf(stderr, "# no test has such a name\n");
		exit(KSFT_FAIL);
	}
	__fixture_list = fixtures;
}

/* What TEST_HARNESS_MAIN calls. */
#define test_harness_run(argc, argv) \
	(test_give_time(), test_select((argv) + 1), test_harness_run(argc, argv))

#endif /* DIRTYTRACK_FILTER_H */
