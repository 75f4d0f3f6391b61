// SPDX-License-Identifier: MIT
/*
 * A checksum of pages that does not depend on the order in which they are looked at.
 *
 * Each page is hashed with its number as the seed, so that pages which change places
 * are seen, and the hashes are added: threads may each take pages as they come, and one
 * page's share can be taken out and put in again when it changes.  It finds accidents,
 * not forgeries.
 */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "dirtytrack.h"

/**
 * dtrack_checksum - checksum of pages
 * @memory: their content
 * @first: number of the first of them
 * @npages: how many
 *
 * The checksum of two sets of pages together is the sum of theirs, modulo 2^64.
 *
 * Return: the checksum, 0 for no pages.
 */
uint64_t dtrack_checksum(const void *memory, uint64_t first, uint64_t npages)
{
	const char *page = memory;
	uint64_t sum = 0, i;

	for (i = 0; i < npages; i++, page += DTRACK_PAGE_SIZE)
		sum += XXH3_64bits_withSeed(page, DTRACK_PAGE_SIZE, first + i);
	return sum;
}
