// SPDX-License-Identifier: GPL-2.0-only
/*
 * Prints how many thousand times a second this machine's time stamp counter counts, as
 * measured; fails where it has none.
 *
 * A pair of clock and counter is taken at once if nobody was in between, so of many the
 * one that took least is taken.
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#ifdef __x86_64__
#include <x86intrin.h>

#define TRIES		1000
#define MEASURE_US	200000

struct moment {
	uint64_t ns;
	uint64_t tsc;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static struct moment moment(void)
{
	struct moment best = { 0 };
	uint64_t least = UINT64_MAX;

	for (int i = 0; i < TRIES; i++) {
		uint64_t before = __rdtsc(), ns = now_ns(), after = __rdtsc();

		if (after - before < least) {
			least = after - before;
			best = (struct moment) { ns, before + least / 2 };
		}
	}
	return best;
}

int main(void)
{
	struct moment from = moment(), to;

	usleep(MEASURE_US);
	to = moment();
	printf("%.0f\n", (to.tsc - from.tsc) * 1e6 / (to.ns - from.ns));
	return 0;
}
#else
int main(void)
{
	return 1;
}
#endif
