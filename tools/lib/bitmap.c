// SPDX-License-Identifier: MIT
/*
 * Bitmaps, a word at a time.
 *
 * What is looked for is rare or comes in long runs, so both searches skip whole
 * words: the clear ones when looking for a set bit, the full ones when looking
 * for the end of a run.
 */
#include <stdint.h>
#include <stdlib.h>

#include "dirtytrack.h"

/* Bits from @bit on, in the word that has it. */
static uint64_t mask_from(uint64_t bit)
{
	return ~UINT64_C(0) << (bit % 64);
}

/* Bits before @bit, in the word of the last of them.  @bit is not 0. */
static uint64_t mask_before(uint64_t bit)
{
	return ~UINT64_C(0) >> (-bit % 64);
}

/**
 * dtrack_bitmap_alloc - allocate a clear bitmap
 * @nbits: bits
 *
 * Return: the bitmap, to be freed with free(3), or NULL.
 */
uint64_t *dtrack_bitmap_alloc(uint64_t nbits)
{
	uint64_t words = dtrack_bitmap_words(nbits);

	if (words > SIZE_MAX / sizeof(uint64_t))
		return NULL;
	return calloc(words ? words : 1, sizeof(uint64_t));
}

/**
 * dtrack_bitmap_set - set bits
 * @bitmap: bitmap
 * @first: first of them
 * @count: how many
 */
void dtrack_bitmap_set(uint64_t *bitmap, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t word, last;

	if (!count)
		return;
	word = first / 64;
	last = (end - 1) / 64;
	if (word == last) {
		bitmap[word] |= mask_from(first) & mask_before(end);
		return;
	}
	bitmap[word] |= mask_from(first);
	while (++word < last)
		bitmap[word] = ~UINT64_C(0);
	bitmap[last] |= mask_before(end);
}

/**
 * dtrack_bitmap_clear - clear bits
 * @bitmap: bitmap
 * @first: first of them
 * @count: how many
 */
void dtrack_bitmap_clear(uint64_t *bitmap, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	uint64_t word, last;

	if (!count)
		return;
	word = first / 64;
	last = (end - 1) / 64;
	if (word == last) {
		bitmap[word] &= ~(mask_from(first) & mask_before(end));
		return;
	}
	bitmap[word] &= ~mask_from(first);
	while (++word < last)
		bitmap[word] = 0;
	bitmap[last] &= ~mask_before(end);
}

/**
 * dtrack_bitmap_count - count the bits that are set in a range
 * @bitmap: bitmap
 * @first: first bit of the range
 * @count: bits in the range
 *
 * Return: how many of them are set.
 */
uint64_t dtrack_bitmap_count(const uint64_t *bitmap, uint64_t first,
			     uint64_t count)
{
	uint64_t end = first + count;
	uint64_t word, last, sum;

	if (!count)
		return 0;
	word = first / 64;
	last = (end - 1) / 64;
	if (word == last)
		return __builtin_popcountll(bitmap[word] & mask_from(first) &
					    mask_before(end));
	sum = __builtin_popcountll(bitmap[word] & mask_from(first));
	while (++word < last)
		sum += __builtin_popcountll(bitmap[word]);
	return sum + __builtin_popcountll(bitmap[last] & mask_before(end));
}

/*
 * First bit from @from on that differs from those of @flip, which is 0 to look
 * for a set bit and all ones to look for a clear one.
 */
static inline uint64_t next_bit(const uint64_t *bitmap, uint64_t nbits,
				uint64_t from, uint64_t flip)
{
	uint64_t words = dtrack_bitmap_words(nbits);
	uint64_t word = from / 64;
	uint64_t value, bit;

	if (from >= nbits)
		return nbits;
	value = (bitmap[word] ^ flip) & mask_from(from);
	while (!value) {
		if (++word == words)
			return nbits;
		value = bitmap[word] ^ flip;
	}
	bit = word * 64 + __builtin_ctzll(value);
	/* The last word may have bits beyond the end. */
	return bit < nbits ? bit : nbits;
}

/**
 * dtrack_bitmap_next - find a set bit
 * @bitmap: bitmap
 * @nbits: bits in it
 * @from: bit at which to begin
 *
 * Return: first set bit that is not before @from, or @nbits.
 */
uint64_t dtrack_bitmap_next(const uint64_t *bitmap, uint64_t nbits,
			    uint64_t from)
{
	return next_bit(bitmap, nbits, from, 0);
}

/**
 * dtrack_bitmap_next_clear - find a clear bit
 * @bitmap: bitmap
 * @nbits: bits in it
 * @from: bit at which to begin
 *
 * Return: first clear bit that is not before @from, or @nbits.
 */
uint64_t dtrack_bitmap_next_clear(const uint64_t *bitmap, uint64_t nbits,
				  uint64_t from)
{
	return next_bit(bitmap, nbits, from, ~UINT64_C(0));
}

/**
 * dtrack_bitmap_next_run - find a run of set bits
 * @bitmap: bitmap
 * @nbits: bits in it
 * @first: bit at which to begin; moved to the first bit of the run
 *
 * The run ends at a clear bit or at @nbits.  For all of them, dtrack_for_each_run()
 * is faster.
 *
 * Return: bits in the run; 0 when there is none, @first being @nbits then.
 */
uint64_t dtrack_bitmap_next_run(const uint64_t *bitmap, uint64_t nbits,
				uint64_t *first)
{
	*first = next_bit(bitmap, nbits, *first, 0);
	return next_bit(bitmap, nbits, *first, ~UINT64_C(0)) - *first;
}
