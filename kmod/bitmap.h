/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bitmap with two levels of summary: bits in words, a summary with one bit a word,
 * and a top with one bit a summary word.
 *
 * So finding what is dirty costs in proportion to what is dirty: of a bitmap of
 * 32 MiB (a slot of 1 TiB) no more than 8 KiB of top is read to see that it is
 * clean.  The two levels are kept in different ways.  A word becomes clean and dirty
 * again all the time, so its summary bit goes with it:
 *
 *      setter                              claimer
 *      1. word    |= bit                   1. summary bits -> 0   (claim)
 *         full barrier                        full barrier
 *      2. summary |= word's bit            2. word         -> 0   (take)
 *         top     |= group's bit
 *
 * If the claimer's 1 comes before the setter's 2, the summary bit is left for the
 * next claim; if it comes after, the claimer's 2 finds the bit.  So a bit that is
 * set is never without a summary bit, once its setter has returned, unless the
 * one who claimed that summary bit is about to take the word.  The converse does
 * not hold: a summary bit may be set for a word that is zero.
 *
 * A top bit stays when its group is claimed, for as a rule the group is dirty again
 * soon, and setters then need not write to a word that they share with 262144 bits.
 * Who comes by and finds the group clean retires it:
 *
 *      setter                              claimer
 *      1. word    |= bit                   1. top bit -> 0
 *         full barrier                        full barrier
 *      2. summary |= word's bit            2. if any word of the group is not zero:
 *         top     |= group's bit              top bit -> 1
 *
 * It looks at the words, not at the summary: a setter that sees the top bit set, at
 * 2, and therefore leaves it, has set its bit before, but maybe not the summary's.
 * That way one barrier of the setter serves both levels.
 *
 * Setters need no lock.  Claimers of one bitmap exclude each other, because one
 * that skips a word for its clear summary bit must not overlook a word that
 * another claimed and has not taken yet, or a group that another is retiring and
 * finds dirty.
 *
 * Arithmetic and memory order only: this file and bitmap.c also compile in
 * userland, for unit tests and benchmarks.
 */
#ifndef DIRTYTRACK_BITMAP_H
#define DIRTYTRACK_BITMAP_H

#include <linux/atomic.h>
#include <linux/types.h>

#define DT_WORD_BITS	64	/* bits a word, words a summary word */
#define DT_GROUP_BITS	(DT_WORD_BITS * DT_WORD_BITS)
#define DT_TOP_BITS	(DT_WORD_BITS * DT_GROUP_BITS)

/**
 * struct dt_bitmap - a bitmap with two levels of summary
 * @words: the bits; bit n is bit n % 64 of word n / 64
 * @summary: bit m % 64 of word m / 64 stands for word m
 * @top: bit g % 64 of word g / 64 stands for word g of the summary
 * @nbits: bits
 * @nwords: words that hold them
 * @ngroups: words of the summary; a group is what one of them covers, 4096 bits
 *
 * For example 5,000 bits take 79 words and 2 groups; bit 4,999 is bit 7 of word
 * 78, which bit 14 of summary word 1 stands for, and for that bit 1 of the top's only
 * word.
 */
struct dt_bitmap {
	atomic64_t *words;
	atomic64_t *summary;
	atomic64_t *top;
	u64 nbits;
	u64 nwords;
	u64 ngroups;
};

static inline u64 dt_bitmap_words(u64 nbits)
{
	return (nbits + DT_WORD_BITS - 1) / DT_WORD_BITS;
}

static inline u64 dt_bitmap_groups(u64 nbits)
{
	return (nbits + DT_GROUP_BITS - 1) / DT_GROUP_BITS;
}

static inline u64 dt_bitmap_tops(u64 nbits)
{
	return (nbits + DT_TOP_BITS - 1) / DT_TOP_BITS;
}

void dt_bitmap_init(struct dt_bitmap *bm, u64 nbits, void *words, void *summary,
		    void *top);
void dt_bitmap_set(struct dt_bitmap *bm, u64 bit);
void dt_bitmap_or(struct dt_bitmap *bm, u64 word, u64 bits);
void dt_bitmap_set_range(struct dt_bitmap *bm, u64 first, u64 nbits);
u64 dt_bitmap_next(const struct dt_bitmap *a, const struct dt_bitmap *b, u64 group);
bool dt_bitmap_busy(struct dt_bitmap *bm, u64 group);
u64 dt_bitmap_claim(struct dt_bitmap *bm, u64 group);
void dt_bitmap_unclaim(struct dt_bitmap *bm, u64 group, u64 words);
u64 dt_bitmap_take(struct dt_bitmap *bm, u64 word, u64 mask);
u64 dt_bitmap_count(const struct dt_bitmap *bm);

/**
 * dt_bitmap_group - which words of a group may have bits
 * @bm: the bitmap
 * @group: index of the summary word
 *
 * Return: the summary word.
 */
static inline u64 dt_bitmap_group(const struct dt_bitmap *bm, u64 group)
{
	return atomic64_read(&bm->summary[group]);
}

/**
 * dt_bitmap_word - look at a word without taking it
 * @bm: the bitmap
 * @word: its index
 *
 * Return: the word.
 */
static inline u64 dt_bitmap_word(const struct dt_bitmap *bm, u64 word)
{
	return atomic64_read(&bm->words[word]);
}

/**
 * dt_bitmap_test - is a bit set?
 * @bm: the bitmap
 * @bit: its index
 *
 * Return: true if so.
 */
static inline bool dt_bitmap_test(const struct dt_bitmap *bm, u64 bit)
{
	return dt_bitmap_word(bm, bit / DT_WORD_BITS) >> bit % DT_WORD_BITS & 1;
}

/**
 * dt_word_mask - the bits of a word that lie in a range
 * @word: index of the word
 * @first: first bit of the range
 * @end: bit after its last
 *
 * Return: the mask, 0 if the word lies outside.
 */
static inline u64 dt_word_mask(u64 word, u64 first, u64 end)
{
	u64 base = word * DT_WORD_BITS;
	u64 mask = ~0ULL;

	if (end <= base || first >= base + DT_WORD_BITS)
		return 0;
	if (first > base)
		mask &= ~0ULL << (first - base);
	if (end < base + DT_WORD_BITS)
		mask &= ~0ULL >> (base + DT_WORD_BITS - end);
	return mask;
}

#endif
