// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the summaries of the module's bitmap are worth, and what they cost.
 *
 *     bench-summary [RUNS]
 *
 * kmod/bitmap.c, as it is, is harvested as the module does it, beside the same bitmap
 * without summaries, harvested word by word.  Both take what is set with one xchg for
 * each word that is not zero and OR it into a bitmap of the caller; both must find the
 * same.  They take turns; what is printed is the median of the runs and how many
 * times faster it is with summaries in one and the same run: median, least and most.
 */
#include <stdio.h>
#include <stdlib.h>

#include <linux/bitops.h>

#include "bitmap.h"
#include "ticks.h"

/* A slot of 64 GiB. */
#define NBITS (64ULL << 30 >> 12)
#define NWORDS (NBITS / DT_WORD_BITS)

#define MAX_RUNS 99
#define MAX_ROUNDS 1001

static u64 rounds;		/* harvests in one measurement */
static u64 *got;		/* the caller's bitmap */

/* ---- two ways to harvest ---- */

static u64 deliver(u64 word, u64 bits)
{
	got[word] |= bits;
	return !!bits;
}

static u64 harvest_summaries(struct dt_bitmap *bm)
{
	u64 group, words, found = 0;

	for (group = dt_bitmap_next(bm, bm, 0); group < bm->ngroups;
	     group = dt_bitmap_next(bm, bm, group + 1)) {
		if (!dt_bitmap_busy(bm, group))
			continue;
		for (words = dt_bitmap_claim(bm, group); words; words &= words - 1) {
			u64 word = group * DT_WORD_BITS + __ffs64(words);

			found += deliver(word, dt_bitmap_take(bm, word, ~0ULL));
		}
	}
	return found;
}

static u64 harvest_words(struct dt_bitmap *bm)
{
	u64 word, found = 0;

	for (word = 0; word < bm->nwords; word++) {
		if (atomic64_read(&bm->words[word]))
			found += deliver(word, atomic64_xchg(&bm->words[word], 0));
	}
	return found;
}

/* ---- what is dirty ---- */

static u64 state = 1;

static u64 random_u64(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Somewhere else each time, as a rule in another group than the last. */
static void set_one(struct dt_bitmap *bm)
{
	dt_bitmap_set(bm, random_u64() % NBITS);
}

static void set_some(struct dt_bitmap *bm)
{
	u64 i;

	for (i = 0; i < NBITS / 10000; i++)
		dt_bitmap_set(bm, random_u64() % NBITS);
}

/* One page in every sixteenth word. */
static void set_sixteenth(struct dt_bitmap *bm)
{
	u64 word;

	for (word = 0; word < NWORDS; word += 16)
		dt_bitmap_or(bm, word, 1);
}

static void set_all(struct dt_bitmap *bm)
{
	dt_bitmap_set_range(bm, 0, NBITS);
}

static void set_none(struct dt_bitmap *bm)
{
	(void)bm;
}

static const struct {
	const char *name;
	void (*set)(struct dt_bitmap *bm);
	u64 rounds;
} cases[] = {
	{ "none",		set_none,	1001 },
	{ "one",		set_one,	1001 },
	{ "1 in 10000",		set_some,	21 },
	{ "1 in 1024",		set_sixteenth,	21 },
	{ "all",		set_all,	11 },
};

#define NR_CASES (sizeof(cases) / sizeof(cases[0]))

/* ---- measurement ---- */

/*
 * Nanoseconds a harvest: the median, for some are interrupted.  The time to set is
 * not in it.
 */
static double measure(struct dt_bitmap *bm, u64 (*harvest)(struct dt_bitmap *),
		      void (*set)(struct dt_bitmap *), u64 *found)
{
	static double time[MAX_ROUNDS];
	double start;
	u64 i;

	*found = 0;
	for (i = 0; i < rounds; i++) {
		set(bm);
		start = ticks_now();
		*found += harvest(bm);
		time[i] = ticks_now() - start;
	}
	return ticks_median(time, rounds);
}

static void die(const char *why)
{
	fprintf(stderr, "bench-summary: %s\n", why);
	exit(1);
}

static void *zeroed(size_t words)
{
	void *p = calloc(words, sizeof(u64));

	if (!p)
		die("no memory");
	return p;
}

/* What one way left would be the other's to find. */
static void check_clean(struct dt_bitmap *bm)
{
	u64 word;

	harvest_summaries(bm);
	for (word = 0; word < bm->nwords; word++) {
		if (atomic64_read(&bm->words[word]))
			die("a harvest left something");
	}
}

int main(int argc, char **argv)
{
	double with[MAX_RUNS], without[MAX_RUNS], ratio[MAX_RUNS], median;
	int i, runs = argc > 1 ? atoi(argv[1]) : 9;
	struct dt_bitmap bm;
	u64 found[2], seed;
	size_t c;

	if (argc > 2 || runs < 1 || runs > MAX_RUNS) {
		fprintf(stderr, "usage: bench-summary [RUNS]\n");
		return 2;
	}
	dt_bitmap_init(&bm, NBITS, zeroed(NWORDS), zeroed(dt_bitmap_groups(NBITS)),
		       zeroed(dt_bitmap_tops(NBITS)));
	got = zeroed(NWORDS);

	printf("# harvest of a 64 GiB slot's bitmap, with summaries and without, %d runs\n",
	       runs);
	printf("%-12s %14s %14s %10s   %s\n", "dirty", "with, ns", "without, ns",
	       "times", "least to most");
	for (c = 0; c < NR_CASES; c++) {
		rounds = cases[c].rounds;
		/* One run unmeasured. */
		for (i = -1; i < runs; i++) {
			int at = i < 0 ? 0 : i;

			seed = state;
			with[at] = measure(&bm, harvest_summaries, cases[c].set,
					   &found[0]);
			check_clean(&bm);
			state = seed;
			without[at] = measure(&bm, harvest_words, cases[c].set,
					      &found[1]);
			check_clean(&bm);
			if (found[0] != found[1])
				die("the two ways find different words");
			ratio[at] = without[at] / with[at];
		}
		median = ticks_median(ratio, runs);
		printf("%-12s %14.0f %14.0f %10.2f   %.2f to %.2f\n", cases[c].name,
		       ticks_median(with, runs), ticks_median(without, runs), median,
		       ratio[0], ratio[runs - 1]);
	}
	return 0;
}
