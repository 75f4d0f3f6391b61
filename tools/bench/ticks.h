/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a benchmark counts: instructions where it can, nanoseconds elsewhere.
 *
 * In a machine started by "tools/vm/run --icount" the clock is driven by the
 * instructions that the one processor executes, in user space and in the kernel, and
 * VM_ICOUNT says how many ticks of the TSC each takes.  What nothing interrupts then
 * takes the same number of ticks every time, on any host, however busy.
 */
#ifndef BENCH_TICKS_H
#define BENCH_TICKS_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* How many ticks of the TSC an instruction takes; 0 if it does not count them. */
static inline unsigned int ticks_per_instruction(void)
{
	static int ticks = -1;

	if (ticks < 0) {
		const char *s = getenv("VM_ICOUNT");

		ticks = s ? atoi(s) : 0;
	}
	return ticks;
}

static inline const char *ticks_unit(void)
{
	return ticks_per_instruction() ? "instructions" : "ns";
}

static inline double ticks_now(void)
{
	struct timespec ts;

#ifdef __x86_64__
	if (ticks_per_instruction())
		return (double)__builtin_ia32_rdtsc() / ticks_per_instruction();
#endif
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static inline int ticks_compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of @n > 0 values, which it sorts. */
static inline double ticks_median(double *values, unsigned int n)
{
	qsort(values, n, sizeof(*values), ticks_compare);
	return values[n / 2];
}

#endif
