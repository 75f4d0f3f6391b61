// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's bitmap, one thread: every operation against a model of a byte a bit,
 * at the edges of words, of groups and of what one word of the top stands for, and
 * for sizes that end anywhere.
 *
 * After each step all of it must hold: the bits are the model's, no bit lies beyond
 * the last one, a word that has bits has its summary bit unless it was claimed, and
 * its group's top bit, and the count is right.  The memory of a bitmap is exactly what
 * dt_bitmap_words(), dt_bitmap_groups() and dt_bitmap_tops() say, so that
 * AddressSanitizer sees a step outside.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "tap.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static const u64 sizes[] = {
	1, 2, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 5000, 8191, 8192,
	8193, 262143, 262144, 262145, 266241,
};

struct fixture {
	struct dt_bitmap bm;
	unsigned char *model;		/* a byte a bit */
	unsigned char *claimed;		/* a byte a word: claimed, and not taken */
};

static void *zeroed(size_t nr, size_t size)
{
	void *p = calloc(nr, size);

	if (!p)
		abort();
	return p;
}

static void setup(struct fixture *f, u64 nbits)
{
	dt_bitmap_init(&f->bm, nbits, zeroed(dt_bitmap_words(nbits), 8),
		       zeroed(dt_bitmap_groups(nbits), 8),
		       zeroed(dt_bitmap_tops(nbits), 8));
	f->model = zeroed(nbits, 1);
	f->claimed = zeroed(f->bm.nwords, 1);
}

static void teardown(struct fixture *f)
{
	free(f->bm.words);
	free(f->bm.summary);
	free(f->bm.top);
	free(f->model);
	free(f->claimed);
}

static u64 model_word(const struct fixture *f, u64 word)
{
	const unsigned char *model = f->model + word * 64;
	u64 bits = 0;
	unsigned int i, nr = 64;

	if (word == f->bm.nwords - 1)
		nr = f->bm.nbits - word * 64;
	if (!memchr(model, 1, nr))
		return 0;
	for (i = 0; i < nr; i++)
		bits |= (u64)model[i] << i;
	return bits;
}

/* Is the top bit of a group set? */
static bool topped(const struct fixture *f, u64 group)
{
	return atomic64_read(&f->bm.top[group / 64]) >> (group % 64) & 1;
}

/* What is wrong with a word, or NULL. */
static const char *word_trouble(const struct fixture *f, u64 word)
{
	u64 want = model_word(f, word);
	u64 sbit = 1ULL << (word % 64);

	if (dt_bitmap_word(&f->bm, word) != want)
		return "a word has other bits than the model";
	if (want && !f->claimed[word] &&
	    !(dt_bitmap_group(&f->bm, word / 64) & sbit))
		return "a word has bits and no summary bit";
	if (want && !topped(f, word / 64))
		return "a word has bits and its group no top bit";
	return NULL;
}

/*
 * What is wrong with the bitmap, or NULL.  The words from @first to @last change
 * in the step that is looked at; with @all the others are looked at too.
 */
static const char *trouble(const struct fixture *f, u64 first, u64 last, bool all)
{
	u64 i, count = 0;
	const char *t;

	if (all) {
		first = 0;
		last = f->bm.nwords - 1;
	}
	for (i = first; i <= last; i++) {
		t = word_trouble(f, i);
		if (t)
			return t;
	}
	if (!all)
		return NULL;
	if (f->bm.nwords % 64 &&
	    dt_bitmap_group(&f->bm, f->bm.ngroups - 1) >> (f->bm.nwords % 64))
		return "the summary has bits beyond the last word";
	if (f->bm.ngroups % 64 &&
	    (u64)atomic64_read(&f->bm.top[dt_bitmap_tops(f->bm.nbits) - 1]) >>
	    (f->bm.ngroups % 64))
		return "the top has bits beyond the last group";
	for (i = 0; i < f->bm.nwords; i++) {
		if (f->claimed[i])
			return NULL;	/* The count passes over claimed words. */
		count += __builtin_popcountll(model_word(f, i));
	}
	return dt_bitmap_count(&f->bm) == count ? NULL : "the count is wrong";
}

#define CHECK_BITMAP(f, first, last, all)				\
	do {								\
		const char *_t = trouble(f, first, last, all);		\
									\
		if (_t) {						\
			tap_fail(__FILE__, __LINE__, "%llu bits: %s",	\
				 (f)->bm.nbits, _t);			\
			return;						\
		}							\
	} while (0)

/*
 * All that is set, by whole words, in the way that a harvest finds it; what is left
 * must be nothing at all, after one more look not even a group to look at.
 */
static void check_drain(struct fixture *f)
{
	u64 group, words, word;

	for (group = dt_bitmap_next(&f->bm, &f->bm, 0); group < f->bm.ngroups;
	     group = dt_bitmap_next(&f->bm, &f->bm, group + 1)) {
		if (!dt_bitmap_busy(&f->bm, group)) {
			CHECK(!topped(f, group));
			continue;
		}
		words = dt_bitmap_claim(&f->bm, group);
		CHECK(!dt_bitmap_group(&f->bm, group));
		for (; words; words &= words - 1) {
			word = group * 64 + __builtin_ctzll(words);
			CHECK(word < f->bm.nwords);
			CHECK_EQ(dt_bitmap_take(&f->bm, word, ~0ULL),
				 model_word(f, word));
			memset(f->model + word * 64, 0,
			       word == f->bm.nwords - 1 ?
			       f->bm.nbits - word * 64 : 64);
		}
	}
	CHECK_BITMAP(f, 0, 0, true);
	for (group = 0; group < f->bm.ngroups; group++)
		CHECK(!dt_bitmap_group(&f->bm, group));
	CHECK_EQ(dt_bitmap_count(&f->bm), 0);
	for (group = 0; group < f->bm.ngroups; group++)
		CHECK(!dt_bitmap_busy(&f->bm, group));
	CHECK_EQ(dt_bitmap_next(&f->bm, &f->bm, 0), f->bm.ngroups);
}

/* The positions around which things go wrong, ascending, below @end. */
static size_t edges(u64 end, u64 *out)
{
	static const u64 at[] = {
		0, 64, 128, 4032, 4096, 4160, 8192, 258048, 262144,
	};
	size_t i, nr = 0;
	u64 pos;

	for (i = 0; i <= ARRAY_LEN(at); i++) {
		u64 centre = i < ARRAY_LEN(at) ? at[i] : end;

		for (pos = centre < 2 ? 0 : centre - 2; pos <= centre + 1; pos++) {
			if (pos < end && (!nr || pos > out[nr - 1]))
				out[nr++] = pos;
		}
	}
	return nr;
}

#define MAX_EDGES 40

static void word_mask(void)
{
	u64 word, first, end, want;
	unsigned int i;

	for (word = 0; word < 4; word++) {
		for (first = 0; first <= 256; first++) {
			for (end = 0; end <= 257; end++) {
				want = 0;
				for (i = 0; i < 64; i++) {
					if (word * 64 + i >= first &&
					    word * 64 + i < end)
						want |= 1ULL << i;
				}
				if (dt_word_mask(word, first, end) == want)
					continue;
				tap_fail(__FILE__, __LINE__,
					 "word %llu, first %llu, end %llu: %#llx, not %#llx",
					 word, first, end,
					 dt_word_mask(word, first, end), want);
				return;
			}
		}
	}
}

/* The largest slot there could be: the last page of 2^64 bytes. */
static void word_mask_far(void)
{
	u64 end = 1ULL << 52, word = end / 64 - 1;

	CHECK_EQ(dt_word_mask(word, 0, end), ~0ULL);
	CHECK_EQ(dt_word_mask(word, end - 1, end), 1ULL << 63);
	CHECK_EQ(dt_word_mask(word, end - 64, end - 63), 1);
	CHECK_EQ(dt_word_mask(word, 0, end - 64), 0);
	CHECK_EQ(dt_word_mask(word - 1, 0, end - 64), ~0ULL);
}

static void sizes_in_words(void)
{
	u64 nbits, words = 0, groups = 0, tops = 0;

	for (nbits = 1; nbits <= 600000; nbits++) {
		words += nbits % 64 == 1;
		groups += nbits % 4096 == 1;
		tops += nbits % 262144 == 1;
		CHECK_EQ(dt_bitmap_tops(nbits), tops);
		CHECK_EQ(dt_bitmap_words(nbits), words);
		CHECK_EQ(dt_bitmap_groups(nbits), groups);
	}
	CHECK_EQ(dt_bitmap_words(5000), 79);
	CHECK_EQ(dt_bitmap_groups(5000), 2);
	CHECK_EQ(dt_bitmap_tops(5000), 1);
}

static void set_each(struct fixture *f)
{
	u64 at[MAX_EDGES];
	size_t i, nr = edges(f->bm.nbits, at);

	for (i = 0; i < nr; i++) {
		dt_bitmap_set(&f->bm, at[i]);
		f->model[at[i]] = 1;
		CHECK_BITMAP(f, 0, 0, true);
		dt_bitmap_set(&f->bm, at[i]);
		CHECK_BITMAP(f, 0, 0, true);
	}
	check_drain(f);
	/* Each alone: nothing that another left helps. */
	for (i = 0; i < nr; i++) {
		dt_bitmap_set(&f->bm, at[i]);
		f->model[at[i]] = 1;
		check_drain(f);
	}
}

static void set_every(struct fixture *f)
{
	u64 i;

	if (f->bm.nbits > 10000)
		return;
	for (i = 0; i < f->bm.nbits; i++) {
		dt_bitmap_set(&f->bm, i);
		f->model[i] = 1;
		CHECK_BITMAP(f, i / 64, i / 64, i % 61 == 0);
	}
	check_drain(f);
}

static void or_patterns(struct fixture *f)
{
	static const u64 patterns[] = {
		0, 1, 1ULL << 63, 1ULL << 63 | 1, ~0ULL, ~0ULL << 32,
		0x5555555555555555, 0xaaaaaaaaaaaaaaaa,
	};
	u64 at[MAX_EDGES], word, bits;
	size_t i, p, b, nr = edges(f->bm.nwords, at);

	for (i = 0; i < nr; i++) {
		word = at[i];
		for (p = 0; p < ARRAY_LEN(patterns); p++) {
			bits = patterns[p] &
			       dt_word_mask(word, 0, f->bm.nbits);
			dt_bitmap_or(&f->bm, word, bits);
			for (b = 0; b < 64; b++) {
				if (bits >> b & 1)
					f->model[word * 64 + b] = 1;
			}
			CHECK_BITMAP(f, 0, 0, true);
			/* No bits: no summary bit either. */
			if (!bits && p == 0)
				CHECK(!(dt_bitmap_group(&f->bm, word / 64) >>
					(word % 64) & 1));
		}
	}
	check_drain(f);
}

static void set_ranges(struct fixture *f)
{
	u64 at[MAX_EDGES + 1], first, end;
	size_t i, j, nr = edges(f->bm.nbits, at);

	at[nr++] = f->bm.nbits;
	for (i = 0; i < nr; i++) {
		for (j = i; j < nr; j++) {
			first = at[i];
			end = at[j];
			dt_bitmap_set_range(&f->bm, first, end - first);
			memset(f->model + first, 1, end - first);
			/* Draining compares all of it; this is for what it clears. */
			if (f->bm.nbits < 10000)
				CHECK_BITMAP(f, 0, 0, true);
			check_drain(f);
		}
	}
}

/* Every range there is, where there are not too many. */
static void set_every_range(struct fixture *f)
{
	u64 first, end;

	if (f->bm.nbits > 200)
		return;
	for (first = 0; first < f->bm.nbits; first++) {
		for (end = first; end <= f->bm.nbits; end++) {
			dt_bitmap_set_range(&f->bm, first, end - first);
			memset(f->model + first, 1, end - first);
			CHECK_BITMAP(f, 0, 0, true);
			check_drain(f);
		}
	}
}

/* Part of a word: what is not taken stays, and is found by the next claim. */
static void take_parts(struct fixture *f)
{
	u64 at[MAX_EDGES], word, sbit, mask, valid;
	size_t i, nr = edges(f->bm.nwords, at);
	unsigned int lo, hi, b;

	for (i = 0; i < nr; i++) {
		word = at[i];
		sbit = 1ULL << (word % 64);
		valid = dt_word_mask(word, 0, f->bm.nbits);
		for (lo = 0; lo < 64; lo += 3) {
			for (hi = lo; hi <= 64; hi += 4) {
				mask = dt_word_mask(0, lo, hi);
				dt_bitmap_or(&f->bm, word, valid);
				for (b = 0; b < 64; b++) {
					if (valid >> b & 1)
						f->model[word * 64 + b] = !(mask >> b & 1);
				}
				CHECK_EQ(dt_bitmap_claim(&f->bm, word / 64), sbit);
				CHECK_EQ(dt_bitmap_take(&f->bm, word, mask),
					 valid & mask);
				CHECK_BITMAP(f, word, word, f->bm.nbits < 10000);
				/* Nothing of it is left to take. */
				CHECK_EQ(dt_bitmap_take(&f->bm, word, mask), 0);
				CHECK_BITMAP(f, word, word, false);
				check_drain(f);
			}
		}
	}
}

/* Claimed words that are given back are those of the next claim. */
static void unclaim(struct fixture *f)
{
	static const u64 parts[] = {
		0, 1, 1ULL << 63, ~0ULL, 0x5555555555555555, 0xaaaaaaaaaaaaaaaa,
	};
	u64 group, words, back, word;
	size_t p;

	for (p = 0; p < ARRAY_LEN(parts); p++) {
		dt_bitmap_set_range(&f->bm, 0, f->bm.nbits);
		memset(f->model, 1, f->bm.nbits);
		for (group = 0; group < f->bm.ngroups; group++) {
			words = dt_bitmap_claim(&f->bm, group);
			CHECK_EQ(words, dt_word_mask(group, 0, f->bm.nwords));
			CHECK_EQ(dt_bitmap_claim(&f->bm, group), 0);
			back = words & parts[p];
			dt_bitmap_unclaim(&f->bm, group, back);
			CHECK_EQ(dt_bitmap_group(&f->bm, group), back);
			for (words &= ~back; words; words &= words - 1) {
				word = group * 64 + __builtin_ctzll(words);
				CHECK_EQ(dt_bitmap_take(&f->bm, word, ~0ULL),
					 model_word(f, word));
				memset(f->model + word * 64, 0,
				       word == f->bm.nwords - 1 ?
				       f->bm.nbits - word * 64 : 64);
			}
		}
		CHECK_BITMAP(f, 0, 0, true);
		check_drain(f);
	}
}

/* The next group is that of the model, from everywhere, in one bitmap or in two. */
static void next_group(struct fixture *f)
{
	struct fixture other;
	u64 at[MAX_EDGES], from, want;
	size_t i, j, nr = edges(f->bm.ngroups, at);

	setup(&other, f->bm.nbits);
	for (i = 0; i < nr; i++) {
		for (j = i; j < nr; j++) {
			dt_bitmap_set(&f->bm, at[i] * 4096);
			f->model[at[i] * 4096] = 1;
			dt_bitmap_set(&other.bm, at[j] * 4096);
			other.model[at[j] * 4096] = 1;
			for (from = 0; from < f->bm.ngroups; from++) {
				want = from <= at[i] ? at[i] : f->bm.ngroups;
				CHECK_EQ(dt_bitmap_next(&f->bm, &f->bm, from), want);
				if (want == f->bm.ngroups && from <= at[j])
					want = at[j];
				CHECK_EQ(dt_bitmap_next(&f->bm, &other.bm, from), want);
				CHECK_EQ(dt_bitmap_next(&other.bm, &f->bm, from), want);
			}
			/* Past the last one, where a walk goes on. */
			CHECK_EQ(dt_bitmap_next(&f->bm, &other.bm, f->bm.ngroups),
				 f->bm.ngroups);
			check_drain(f);
			check_drain(&other);
		}
	}
	teardown(&other);
}

/* A group is busy while it has bits, and no longer looked at when it has none. */
static void retires(struct fixture *f)
{
	u64 at[MAX_EDGES], group;
	size_t i, nr = edges(f->bm.nbits, at);

	for (i = 0; i < nr; i++) {
		group = at[i] / 4096;
		CHECK(!dt_bitmap_busy(&f->bm, group));
		CHECK(!topped(f, group));
		dt_bitmap_set(&f->bm, at[i]);
		f->model[at[i]] = 1;
		CHECK(dt_bitmap_busy(&f->bm, group));
		CHECK(topped(f, group));

		/* Claimed and not taken, as by a setter that has not come to the summary. */
		CHECK(dt_bitmap_claim(&f->bm, group));
		CHECK(!dt_bitmap_busy(&f->bm, group));
		CHECK(topped(f, group));
		dt_bitmap_unclaim(&f->bm, group, 1ULL << (at[i] / 64 % 64));
		CHECK(dt_bitmap_busy(&f->bm, group));

		/* All of it taken: the top bit stays until the next look. */
		CHECK(dt_bitmap_claim(&f->bm, group));
		CHECK_EQ(dt_bitmap_take(&f->bm, at[i] / 64, ~0ULL), 1ULL << (at[i] % 64));
		f->model[at[i]] = 0;
		CHECK(topped(f, group));
		CHECK(!dt_bitmap_busy(&f->bm, group));
		CHECK(!topped(f, group));
	}
	check_drain(f);
}

static u64 random_u64(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Claims a random group; of its words takes some, parts of some, and none of some. */
static void random_harvest(struct fixture *f, u64 *state)
{
	u64 group = random_u64(state) % f->bm.ngroups;
	u64 words, left, word, mask, last;
	unsigned int b;

	left = dt_bitmap_claim(&f->bm, group);
	last = group * 64 + 63 < f->bm.nwords ? group * 64 + 63 : f->bm.nwords - 1;
	for (words = left; words; words &= words - 1)
		f->claimed[group * 64 + __builtin_ctzll(words)] = 1;
	for (words = left; words; words &= words - 1) {
		word = group * 64 + __builtin_ctzll(words);
		if (random_u64(state) % 4 == 0)
			continue;
		mask = random_u64(state) % 2 ? ~0ULL : random_u64(state);
		left &= ~(1ULL << (word % 64));
		f->claimed[word] = 0;
		CHECK_EQ(dt_bitmap_take(&f->bm, word, mask),
			 model_word(f, word) & mask);
		for (b = 0; b < 64 && word * 64 + b < f->bm.nbits; b++) {
			if (mask >> b & 1)
				f->model[word * 64 + b] = 0;
		}
		CHECK_BITMAP(f, word, word, false);
		/* A bit is set between claim and take. */
		if (random_u64(state) % 8 == 0) {
			dt_bitmap_set(&f->bm, group * 64 * 64);
			f->model[group * 64 * 64] = 1;
		}
	}
	dt_bitmap_unclaim(&f->bm, group, left);
	memset(f->claimed + group * 64, 0, last - group * 64 + 1);
	CHECK_BITMAP(f, group * 64, last, false);
}

#define RANDOM_STEPS 3000

static void random_steps(struct fixture *f)
{
	u64 seed = 0x5eed0000 + f->bm.nbits, state = seed;
	u64 first, n, bits, word;
	unsigned int step, b;

	printf("# %llu bits: seed %#llx\n", f->bm.nbits, seed);
	for (step = 0; step < RANDOM_STEPS; step++) {
		first = random_u64(&state) % f->bm.nbits;
		word = first / 64;
		switch (random_u64(&state) % 4) {
		case 0:
			n = 1;
			dt_bitmap_set(&f->bm, first);
			f->model[first] = 1;
			break;
		case 1:
			n = 1;
			bits = random_u64(&state) & random_u64(&state) &
			       dt_word_mask(word, 0, f->bm.nbits);
			dt_bitmap_or(&f->bm, word, bits);
			for (b = 0; b < 64; b++) {
				if (bits >> b & 1)
					f->model[word * 64 + b] = 1;
			}
			break;
		case 2:
			n = random_u64(&state) % 700;
			if (n > f->bm.nbits - first)
				n = f->bm.nbits - first;
			dt_bitmap_set_range(&f->bm, first, n);
			memset(f->model + first, 1, n);
			break;
		default:
			n = 1;
			random_harvest(f, &state);
		}
		CHECK_BITMAP(f, word, (first + (n ? n - 1 : 0)) / 64,
			     f->bm.nbits < 10000 || step % 128 == 0);
	}
	check_drain(f);
}

static void each_size(void (*test)(struct fixture *f))
{
	struct fixture f;
	size_t i;

	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		setup(&f, sizes[i]);
		test(&f);
		teardown(&f);
	}
}

#define SIZED(test)							\
	static void test##_of_every_size(void)				\
	{								\
		each_size(test);					\
	}

SIZED(set_each)
SIZED(set_every)
SIZED(or_patterns)
SIZED(set_ranges)
SIZED(set_every_range)
SIZED(take_parts)
SIZED(unclaim)
SIZED(next_group)
SIZED(retires)
SIZED(random_steps)

static const struct tap_test tests[] = {
	TAP_TEST(word_mask),
	TAP_TEST(word_mask_far),
	TAP_TEST(sizes_in_words),
	TAP_TEST(set_each_of_every_size),
	TAP_TEST(set_every_of_every_size),
	TAP_TEST(or_patterns_of_every_size),
	TAP_TEST(set_ranges_of_every_size),
	TAP_TEST(set_every_range_of_every_size),
	TAP_TEST(take_parts_of_every_size),
	TAP_TEST(unclaim_of_every_size),
	TAP_TEST(next_group_of_every_size),
	TAP_TEST(retires_of_every_size),
	TAP_TEST(random_steps_of_every_size),
};

int main(void)
{
	return tap_run(tests, ARRAY_LEN(tests));
}
