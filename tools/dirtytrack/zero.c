// SPDX-License-Identifier: GPL-2.0-only
#include "../lib/dirtytrack.h"
#include "zero.h"

bool page_is_zero(const void *page)
{
	const uint64_t *word = page;
	const uint64_t *end = word + DTRACK_PAGE_SIZE / sizeof(*word);

	/* A page with data mostly shows it in its first cache line. */
	for (; word < end; word += 8)
		if (word[0] | word[1] | word[2] | word[3] |
		    word[4] | word[5] | word[6] | word[7])
			return false;
	return true;
}

uint64_t same_run(const void *buf, uint64_t npages, bool *zero)
{
	const char *page = buf;
	uint64_t n = 1;

	*zero = page_is_zero(page);
	while (n < npages && page_is_zero(page + n * DTRACK_PAGE_SIZE) == *zero)
		n++;
	return n;
}
