// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bitmap with two levels of summary: see bitmap.h for the order of its levels.
 */
#include <linux/bitops.h>

#include "bitmap.h"

/**
 * dt_bitmap_init - describe a bitmap in memory that the caller has
 * @bm: what to fill in
 * @nbits: bits
 * @words: dt_bitmap_words(@nbits) zeroed words
 * @summary: dt_bitmap_groups(@nbits) zeroed words
 * @top: dt_bitmap_tops(@nbits) zeroed words
 */
void dt_bitmap_init(struct dt_bitmap *bm, u64 nbits, void *words, void *summary,
		    void *top)
{
	bm->words = words;
	bm->summary = summary;
	bm->top = top;
	bm->nbits = nbits;
	bm->nwords = dt_bitmap_words(nbits);
	bm->ngroups = dt_bitmap_groups(nbits);
}

/*
 * Sets bits of a word with a full barrier behind, also when they are set: what
 * follows (the looks at summary and top) must not be done before the word was seen.
 */
static void or_ordered(atomic64_t *word, u64 bits)
{
	if ((atomic64_read(word) & bits) == bits) {
		smp_mb();			/* pairs with claim and retire */
		return;
	}
	atomic64_or(bits, word);
	smp_mb__after_atomic();			/* pairs with claim and retire */
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
	u64 group = word / DT_WORD_BITS;
	u64 sbit = 1ULL << (word % DT_WORD_BITS);
	u64 gbit = 1ULL << (group % DT_WORD_BITS);

	if (!bits)
		return;
	or_ordered(&bm->words[word], bits);
	if (!(dt_bitmap_group(bm, group) & sbit))
		atomic64_or(sbit, &bm->summary[group]);
	if (!(atomic64_read(&bm->top[group / DT_WORD_BITS]) & gbit))
		atomic64_or(gbit, &bm->top[group / DT_WORD_BITS]);
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
 * dt_bitmap_next - find a group in which either of two bitmaps may have bits
 * @a: one bitmap
 * @b: another of the same size, or the same
 * @group: where to start
 *
 * Asks the top: dt_bitmap_busy() tells whether there are any.  Only for a claimer of
 * both is what it skips certain to be clean.
 *
 * Return: the first such group from @group on, or the number of groups.
 */
u64 dt_bitmap_next(const struct dt_bitmap *a, const struct dt_bitmap *b, u64 group)
{
	u64 mask = ~0ULL << (group % DT_WORD_BITS);
	u64 i;

	for (i = group / DT_WORD_BITS; i * DT_WORD_BITS < a->ngroups; i++) {
		u64 bits = (atomic64_read(&a->top[i]) | atomic64_read(&b->top[i])) & mask;

		if (bits)
			return i * DT_WORD_BITS + __ffs64(bits);
		mask = ~0ULL;
	}
	return a->ngroups;
}

/* Clears a group's top bit, unless a setter has just left it to us. */
static void retire(struct dt_bitmap *bm, u64 group)
{
	atomic64_t *top = &bm->top[group / DT_WORD_BITS];
	u64 gbit = 1ULL << (group % DT_WORD_BITS);
	u64 word = group * DT_WORD_BITS;
	u64 end = word + DT_WORD_BITS;

	if (end > bm->nwords)
		end = bm->nwords;
	/* A full barrier, between the top and the words: pairs with or. */
	if (!(atomic64_fetch_andnot(gbit, top) & gbit))
		return;
	for (; word < end; word++) {
		if (dt_bitmap_word(bm, word)) {
			atomic64_or(gbit, top);
			return;
		}
	}
}

/**
 * dt_bitmap_busy - may a group have bits?
 * @bm: the bitmap
 * @group: a group, as a rule from dt_bitmap_next(), which then knows of one less
 *	that has none
 *
 * For claimers: they exclude each other.
 *
 * Return: true if it may; false if all bits that setters had set when the call began
 * are taken.
 */
bool dt_bitmap_busy(struct dt_bitmap *bm, u64 group)
{
	if (dt_bitmap_group(bm, group))
		return true;
	if (atomic64_read(&bm->top[group / DT_WORD_BITS]) >> (group % DT_WORD_BITS) & 1)
		retire(bm, group);
	return false;
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

	for (group = dt_bitmap_next(bm, bm, 0); group < bm->ngroups;
	     group = dt_bitmap_next(bm, bm, group + 1)) {
		for (words = dt_bitmap_group(bm, group); words; words &= words - 1)
			count += hweight64(dt_bitmap_word(bm, group * DT_WORD_BITS +
							  __ffs64(words)));
	}
	return count;
}
