// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory of a bitmap: bitmap.c does not allocate, it also compiles in userland.
 *
 * Words and summary are of whole pages each, for a log maps them to its consumer.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "dirtytrack.h"

static size_t dt_bitmap_top_size(u64 nbits)
{
	return dt_bitmap_tops(nbits) * sizeof(u64);
}

/**
 * dt_bitmap_words_size - what the words of a bitmap take
 * @nbits: its bits
 *
 * Return: bytes, a multiple of the page size.
 */
size_t dt_bitmap_words_size(u64 nbits)
{
	return PAGE_ALIGN(dt_bitmap_words(nbits) * sizeof(u64));
}

/**
 * dt_bitmap_summary_size - what the first level of its summary takes
 * @nbits: bits of the bitmap
 *
 * Return: bytes, a multiple of the page size.
 */
size_t dt_bitmap_summary_size(u64 nbits)
{
	return PAGE_ALIGN(dt_bitmap_groups(nbits) * sizeof(u64));
}

/**
 * dt_bitmap_memory - what a bitmap takes
 * @nbits: its bits
 *
 * Return: bytes of all its levels.
 */
u64 dt_bitmap_memory(u64 nbits)
{
	return dt_bitmap_words_size(nbits) + dt_bitmap_summary_size(nbits) +
	       dt_bitmap_top_size(nbits);
}

/**
 * dt_bitmap_alloc - make a bitmap with no bit set
 * @bm: the bitmap, zeroed
 * @nbits: its bits
 *
 * Return: 0 or ENOMEM; dt_bitmap_free() undoes either.
 */
int dt_bitmap_alloc(struct dt_bitmap *bm, u64 nbits)
{
	void *words = __vmalloc(dt_bitmap_words_size(nbits), DT_GFP_TABLE);
	void *summary = __vmalloc(dt_bitmap_summary_size(nbits), DT_GFP_TABLE);
	void *top = kvzalloc(dt_bitmap_top_size(nbits), DT_GFP_TABLE);

	dt_bitmap_init(bm, nbits, words, summary, top);
	return words && summary && top ? 0 : -ENOMEM;
}

/**
 * dt_bitmap_free - free what a bitmap has
 * @bm: the bitmap, whole or half made, or zeroed
 */
void dt_bitmap_free(struct dt_bitmap *bm)
{
	vfree(bm->words);
	vfree(bm->summary);
	kvfree(bm->top);
}
