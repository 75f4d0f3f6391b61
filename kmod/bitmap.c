// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two-level bitmap: see bitmap.h for the order of its two levels.
 */
#include <linux/bitops.h>

#include "bitmap.h"

/**
 * dt_bitmap_init - describe a bitmap in memory that the caller has
 * @bm: what to fill in
 * @nbits: bits
 * @words: dt_bitmap_words(@nbits) zeroed words
 * @summary: dt_bitmap_groups(@nbits) zeroed words
 */
void dt_bitmap_init(struct dt_bitmap *bm, u64 nbits, void *words, void *summary)
{
	bm->words = words;
	bm->summary = summary;
	bm->nbits = nbits;
	bm->nwords = dt_bitmap_words(nbits);
	bm->ngroups = dt_bitmap_groups(nbits);
}

/*
 * Sets bits of a word with a full barrier behind, also when they are set: what
 * follows (the look at the summary) must not be done before the word was seen.
 */
static void or_ordered(atomic64_t *word, u64 bits)
{
	if ((atomic64_read(word) & bits) == bits) {
		smp_mb();			/* pairs with the claim's xchg */
		return;
	}
	atomic64_or(bits, word);
	smp_mb__after_atomic();			/* pairs with the claim's xchg */
}

/**
 * dt_bitmap_or - set bits of one word
 * @bm: the bitmap
 * @word: index of the word
 * @bits: the bits to set; none is allowed
 *
 * Lockless, in any context.  The summary bit is set whether or not the word was
 * zero: that it was not only means that another setter is about to set the
 * summary bit, not that it has.
 */
void dt_bitmap_or(struct dt_bitmap *bm, u64 word, u64 bits)
{
	u64 sbit = 1ULL << (word % DT_WORD_BITS);

	if (!bits)
		return;
	or_ordered(&bm->words[word], bits);
	if (!(dt_bitmap_group(bm, word / DT_WORD_BITS) & sbit))
		atomic64_or(sbit, &bm->summary[word / DT_WORD_BITS]);
}

/**
 * dt_bitmap_set - set one bit
 * @bm: the bitmap
 * @bit: its number
 *
 * Lockless, in any context.
 */
void dt_bitmap_set(struct dt_bitmap *bm, u64 bit)
{
	dt_bitmap_or(bm, bit / DT_WORD_BITS, 1ULL << (bit % DT_WORD_BITS));
}

/**
 * dt_bitmap_set_range - set a run of bits
 * @bm: the bitmap
 * @first: first bit
 * @nbits: how many
 *
 * Lockless, in any context.
 */
void dt_bitmap_set_range(struct dt_bitmap *bm, u64 first, u64 nbits)
{
	u64 end = first + nbits;
	u64 word;

	for (word = first / DT_WORD_BITS; word * DT_WORD_BITS < end; word++)
		dt_bitmap_or(bm, word, dt_word_mask(word, first, end));
}

/**
 * dt_bitmap_claim - take a group's summary
 * @bm: the bitmap
 * @group: index of the summary word
 *
 * The caller then takes each word that is returned, or gives it back with
 * dt_bitmap_unclaim().  Claimers of one bitmap exclude each other.
 *
 * Return: the summary word, now zero: a bit for each word to take.
 */
u64 dt_bitmap_claim(struct dt_bitmap *bm, u64 group)
{
	if (!dt_bitmap_group(bm, group))
		return 0;
	/* A full barrier, between the summary and the words: pairs with or. */
	return atomic64_xchg(&bm->summary[group], 0);
}

/**
 * dt_bitmap_unclaim - give back claimed words that were not taken
 * @bm: the bitmap
 * @group: index of the summary word
 * @words: their bits in the summary word
 */
void dt_bitmap_unclaim(struct dt_bitmap *bm, u64 group, u64 words)
{
	if (words)
		atomic64_or(words, &bm->summary[group]);
}

/**
 * dt_bitmap_take - take bits out of a claimed word
 * @bm: the bitmap
 * @word: index of the word
 * @mask: the bits to take; what is outside it stays, and keeps its summary bit
 *
 * Return: those of @mask that were set, now clear.
 */
u64 dt_bitmap_take(struct dt_bitmap *bm, u64 word, u64 mask)
{
	u64 old;

	if (!dt_bitmap_word(bm, word))
		return 0;
	if (mask == ~0ULL)
		return atomic64_xchg(&bm->words[word], 0);
	old = atomic64_fetch_andnot(mask, &bm->words[word]);
	if (old & ~mask)
		dt_bitmap_unclaim(bm, word / DT_WORD_BITS,
				  1ULL << (word % DT_WORD_BITS));
	return old & mask;
}

/**
 * dt_bitmap_count - count the set bits
 * @bm: the bitmap
 *
 * Return: their number; an estimate while others set or take bits.
 */
u64 dt_bitmap_count(const struct dt_bitmap *bm)
{
	u64 group, words, count = 0;

	for (group = 0; group < bm->ngroups; group++) {
		for (words = dt_bitmap_group(bm, group); words; words &= words - 1)
			count += hweight64(dt_bitmap_word(bm, group * DT_WORD_BITS +
							  __ffs64(words)));
	}
	return count;
}
