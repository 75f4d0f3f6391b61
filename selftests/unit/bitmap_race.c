// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's bitmap, many setters against one claimer.
 *
 * What a setter is promised: its bits are taken by the first harvest that starts
 * after the call returned, or by an earlier one, but not by one that had ended
 * before the call began.  (A harvest claims every group that may have bits and takes
 * the claimed words.)  The claimer numbers its harvests and notes for each bit the last that
 * took it; so a setter that reads the numbers before and after its call knows which
 * harvests may have its bits, waits for the last of them, and looks.
 *
 * That fails when the summary bit is set before the word, or not set because the
 * word was not zero (another setter may not have set it yet); when a barrier
 * between the two is missing (in the "weak" build); when the claimer takes the word
 * before it clears the summary bit, or keeps no summary bit for what it leaves in a
 * word; when a group is retired that a setter has just come to; and when any of it is
 * not atomic, which ThreadSanitizer sees too.
 * "make mutants" shows each of these.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bitmap.h"
#include "tap.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#define NBITS 8257		/* three groups; the last has two words, one with a bit */
#define NR_SETTERS 3
#define BURST 8			/* calls between two waits */
#define SECONDS 0.8
#define MIN_CALLS 2000		/* however busy the machine is */

struct race;

struct race_ops {
	/* Chooses and sets bits; returns the first, and how many in @nr. */
	u64 (*set)(struct race *r, unsigned int setter, u64 *state, u64 *nr);
	void (*harvest)(struct race *r, u64 number);
	/* No bit is set by two setters, nor twice between two waits. */
	bool exclusive;
};

struct race {
	struct dt_bitmap bm;
	const struct race_ops *ops;
	u64 nr_taken;				/* bits, by all harvests */
	atomic_ullong started, finished;	/* harvests */
	atomic_ullong last[NBITS];		/* harvest that took the bit last */
	atomic_ullong taken[NBITS];		/* how often it was taken */
	atomic_bool stop;
	atomic_uint running;			/* setters */
	atomic_ullong calls, lost, twice, foreign;
	atomic_ullong lost_bit;
};

struct setter {
	struct race *r;
	unsigned int number;
	u64 seed;
	pthread_t thread;
	u64 sets[NBITS];		/* how often it set a bit, if exclusive */
};

static u64 random_u64(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *setter_main(void *arg)
{
	struct setter *s = arg;
	struct race *r = s->r;
	struct { u64 first, nr, before, after; } call[BURST];
	u64 state = s->seed, bit;
	unsigned int i;

	while (!atomic_load(&r->stop)) {
		for (i = 0; i < BURST; i++) {
			call[i].before = atomic_load(&r->finished);
			call[i].first = r->ops->set(r, s->number, &state,
						    &call[i].nr);
			/*
			 * Who says that he has written orders that after the
			 * write.  One barrier for two calls: the second must
			 * not need the one after the first.
			 */
			if (i % 2) {
				smp_mb();	/* pairs with the claim's */
				call[i].after = atomic_load(&r->started) + 1;
				call[i - 1].after = call[i].after;
			}
			for (bit = 0; bit < call[i].nr; bit++)
				s->sets[call[i].first + bit]++;
		}
		while (atomic_load(&r->finished) < call[BURST - 1].after)
			sched_yield();
		atomic_fetch_add(&r->calls, BURST);
		for (i = 0; i < BURST; i++) {
			for (bit = call[i].first; bit < call[i].first + call[i].nr; bit++) {
				if (atomic_load(&r->last[bit]) <= call[i].before) {
					atomic_store(&r->lost_bit, bit);
					atomic_fetch_add(&r->lost, 1);
					atomic_store(&r->stop, true);
				} else if (r->ops->exclusive &&
					   atomic_load(&r->taken[bit]) != s->sets[bit]) {
					atomic_fetch_add(&r->twice, 1);
					atomic_store(&r->stop, true);
				}
			}
		}
	}
	atomic_fetch_sub(&r->running, 1);
	return NULL;
}

static void take(struct race *r, u64 word, u64 mask, u64 number)
{
	u64 bits = dt_bitmap_take(&r->bm, word, mask), bit;

	if (bits & ~(mask & dt_word_mask(word, 0, NBITS)))
		atomic_fetch_add(&r->foreign, 1);
	for (; bits; bits &= bits - 1) {
		bit = word * 64 + __builtin_ctzll(bits);
		if (bit >= NBITS)
			break;
		r->nr_taken++;
		atomic_fetch_add(&r->taken[bit], 1);
		atomic_store(&r->last[bit], number);
	}
}

/*
 * The next group that may have bits.  What is looked at and found clean is retired,
 * as in a harvest of the module.
 */
static u64 next_busy(struct race *r, u64 group)
{
	for (;; group++) {
		group = dt_bitmap_next(&r->bm, &r->bm, group);
		if (group == r->bm.ngroups || dt_bitmap_busy(&r->bm, group))
			return group;
	}
}

#define for_each_busy(r, group)						\
	for ((group) = next_busy(r, 0); (group) < (r)->bm.ngroups;	\
	     (group) = next_busy(r, (group) + 1))

static void harvest_words(struct race *r, u64 number)
{
	u64 group, words;

	for_each_busy(r, group) {
		for (words = dt_bitmap_claim(&r->bm, group); words; words &= words - 1)
			take(r, group * 64 + __builtin_ctzll(words), ~0ULL, number);
	}
}

/* Half of each word, then by another claim what is left. */
static void harvest_halves(struct race *r, u64 number)
{
	static const u64 masks[] = { 0x00ffff0000ffff00, ~0ULL };
	u64 group, words;
	size_t i;

	for (i = 0; i < ARRAY_LEN(masks); i++) {
		for_each_busy(r, group) {
			words = dt_bitmap_claim(&r->bm, group);
			for (; words; words &= words - 1)
				take(r, group * 64 + __builtin_ctzll(words),
				     masks[i], number);
		}
	}
}

/* Gives back every other word that it claimed, and claims again. */
static void harvest_in_turns(struct race *r, u64 number)
{
	static const u64 turns[] = { 0x5555555555555555, ~0ULL };
	u64 group, words;
	size_t i;

	for_each_busy(r, group) {
		for (i = 0; i < ARRAY_LEN(turns); i++) {
			words = dt_bitmap_claim(&r->bm, group);
			dt_bitmap_unclaim(&r->bm, group, words & ~turns[i]);
			for (words &= turns[i]; words; words &= words - 1)
				take(r, group * 64 + __builtin_ctzll(words),
				     ~0ULL, number);
		}
	}
}

/* Few words, so that setters meet in them: the first ones and the last one. */
static u64 hot_word(u64 n)
{
	static const u64 words[] = { 0, 1, 63, 64, 129 };

	return words[n % ARRAY_LEN(words)];
}

/* Bits of its own, in words that all share; each once in a burst. */
static u64 set_own(struct race *r, unsigned int setter, u64 *state, u64 *nr)
{
	u64 bit = (*state)++ % BURST * NR_SETTERS + setter;

	bit += hot_word(bit % 4) * 64;
	dt_bitmap_set(&r->bm, bit);
	*nr = 1;
	return bit;
}

/* The same bits as the others. */
static u64 set_same(struct race *r, unsigned int setter, u64 *state, u64 *nr)
{
	u64 bit = hot_word(random_u64(state)) * 64;

	(void)setter;
	dt_bitmap_set(&r->bm, bit);
	*nr = 1;
	return bit;
}

static u64 set_runs(struct race *r, unsigned int setter, u64 *state, u64 *nr)
{
	u64 first = hot_word(random_u64(state)) * 64 + random_u64(state) % 64;

	(void)setter;
	if (first >= NBITS)
		first = NBITS - 1;
	*nr = random_u64(state) % 150;
	if (*nr > NBITS - first)
		*nr = NBITS - first;
	dt_bitmap_set_range(&r->bm, first, *nr);
	return first;
}

static void *zeroed(size_t nr, size_t size)
{
	void *p = calloc(nr, size);

	if (!p)
		abort();
	return p;
}

static void race(const struct race_ops *ops)
{
	struct race *r = zeroed(1, sizeof(*r));
	struct setter *setters = zeroed(NR_SETTERS, sizeof(*setters));
	double end = seconds() + SECONDS;
	unsigned int i;
	u64 number = 0, taken;

	dt_bitmap_init(&r->bm, NBITS, zeroed(dt_bitmap_words(NBITS), 8),
		       zeroed(dt_bitmap_groups(NBITS), 8),
		       zeroed(dt_bitmap_tops(NBITS), 8));
	r->ops = ops;
	atomic_store(&r->running, NR_SETTERS);
	for (i = 0; i < NR_SETTERS; i++) {
		setters[i] = (struct setter){ .r = r, .number = i, .seed = 17 + i };
		if (pthread_create(&setters[i].thread, NULL, setter_main, &setters[i]))
			abort();
	}
	/* After the end, too, as long as a setter waits for a harvest. */
	while (atomic_load(&r->running)) {
		number = atomic_fetch_add(&r->started, 1) + 1;
		/* Pairs with the barrier after each call of a setter. */
		smp_mb();
		taken = r->nr_taken;
		ops->harvest(r, number);
		atomic_store(&r->finished, number);
		if (r->nr_taken == taken)
			sched_yield();
		if (seconds() > end && atomic_load(&r->calls) >= MIN_CALLS)
			atomic_store(&r->stop, true);
	}
	for (i = 0; i < NR_SETTERS; i++)
		pthread_join(setters[i].thread, NULL);
	printf("# seeds 17 to %u: %llu calls, %llu harvests\n", 17 + NR_SETTERS - 1,
	       atomic_load(&r->calls), number);
	if (atomic_load(&r->lost))
		printf("# bit %llu (word %llu) was set and not harvested; it is %s in the word now, the summary bit is %s, the top bit is %s\n",
		       atomic_load(&r->lost_bit), atomic_load(&r->lost_bit) / 64,
		       dt_bitmap_word(&r->bm, r->lost_bit / 64) >> r->lost_bit % 64 & 1 ?
		       "set" : "clear",
		       dt_bitmap_group(&r->bm, r->lost_bit / 4096) >>
		       (r->lost_bit / 64 % 64) & 1 ? "set" : "clear",
		       atomic64_read(&r->bm.top[0]) >> (r->lost_bit / 4096) & 1 ?
		       "set" : "clear");
	CHECK_EQ(atomic_load(&r->lost), 0);
	CHECK_EQ(atomic_load(&r->twice), 0);
	CHECK_EQ(atomic_load(&r->foreign), 0);
	free(r->bm.words);
	free(r->bm.summary);
	free(r->bm.top);
	free(r);
	free(setters);
}

#define RACE(name, ...)							\
	static void name(void)						\
	{								\
		static const struct race_ops ops = { __VA_ARGS__ };	\
									\
		race(&ops);						\
	}

/* Every set is harvested, once: as many takes of a bit as sets. */
RACE(own_bits, .set = set_own, .harvest = harvest_words, .exclusive = true)
RACE(own_bits_by_halves, .set = set_own, .harvest = harvest_halves, .exclusive = true)
RACE(own_bits_in_turns, .set = set_own, .harvest = harvest_in_turns, .exclusive = true)
RACE(same_bits, .set = set_same, .harvest = harvest_words)
RACE(same_bits_by_halves, .set = set_same, .harvest = harvest_halves)
RACE(runs, .set = set_runs, .harvest = harvest_words)
RACE(runs_in_turns, .set = set_runs, .harvest = harvest_in_turns)

static const struct tap_test tests[] = {
	TAP_TEST(own_bits),
	TAP_TEST(own_bits_by_halves),
	TAP_TEST(own_bits_in_turns),
	TAP_TEST(same_bits),
	TAP_TEST(same_bits_by_halves),
	TAP_TEST(runs),
	TAP_TEST(runs_in_turns),
};

int main(void)
{
	return tap_run(tests, ARRAY_LEN(tests));
}
