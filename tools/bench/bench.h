/* SPDX-License-Identifier: GPL-2.0-only */
/* What all parts of the benchmark use: giving up, time, and single pages. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <time.h>

#include "../lib/dirtytrack.h"

#define NELEM(array) (sizeof(array) / sizeof((array)[0]))

/* Exit statuses. */
enum {
	EXIT_TROUBLE = 1,	/* something could not be measured */
	EXIT_USAGE = 2,
	EXIT_LOST = 3,		/* a tracker did not report what was written */
	EXIT_MISSING = 4,	/* no tracker that was asked for is there */
};

/* "dirtytrack-bench: WHAT: strerror(errno)", and the end. */
void die(const char *fmt, ...)
	__attribute__((noreturn, format(printf, 1, 2)));
/* The same without the text of an error. */
void quit(int status, const char *fmt, ...)
	__attribute__((noreturn, format(printf, 2, 3)));

/* Memory that has been touched, so that no page fault of its own is measured. */
void *touched_alloc(size_t size);

/*
 * Puts the calling thread on processor number @n of those there are, round and
 * round.  Writers are on 0, a second writer or a harvester beside one on 1.
 */
void run_on(unsigned int n);

static inline double now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

/* The word of a page that writers count in. */
static inline volatile uint32_t *page_word(char *mem, uint64_t page)
{
	return (volatile uint32_t *)(mem + page * DTRACK_PAGE_SIZE);
}

/* xorshift64*: the same numbers in every run, for every tracker. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

#endif
