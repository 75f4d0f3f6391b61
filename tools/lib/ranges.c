// SPDX-License-Identifier: MIT
/*
 * Ranges of pages in 64-bit words, as they were proposed for virtio-balloon: a guest
 * that frees much at once names most of it by one word a range, not by one a page.
 *
 *	 63                                         12 11          0
 *	+---------------------------------------------+-------------+
 *	| first page                                  | count, or 0 |
 *	+---------------------------------------------+-------------+
 *	| count, if it is 0 above                                   |
 *	+-----------------------------------------------------------+
 *
 * Little-endian.  The proposal's sender has a count of exactly 4096 overflow into the
 * page number, so what he means by it is not what is read here: a count that does not
 * fit goes to the second word.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "dirtytrack.h"

#define COUNT_BITS 12
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)
/* One more than the last page that has a number. */
#define MAX_PAGES (UINT64_C(1) << (64 - COUNT_BITS))

static int check(const struct dirtytrack_range *range)
{
	if (!range->npages)
		return -EINVAL;
	if (range->first >= MAX_PAGES || range->npages > MAX_PAGES - range->first)
		return -EOVERFLOW;
	return 0;
}

/* Buffers come from files and rings: they need not be aligned. */
static void put_word(void *buf, uint64_t value)
{
	value = htole64(value);
	memcpy(buf, &value, sizeof(value));
}

static uint64_t get_word(const void *buf)
{
	uint64_t value;

	memcpy(&value, buf, sizeof(value));
	return le64toh(value);
}

/**
 * dtrack_ranges_encode - write ranges in the compact encoding
 * @ranges: the ranges
 * @nr: how many
 * @buf: where to, without alignment; or NULL to know the size
 * @size: bytes there
 * @used: bytes that the encoding takes; if a range is not valid, those before it take
 *
 * Return: 0; -ENOSPC when @size is not enough, what is in @buf being undefined; -EINVAL
 * (a range is empty); -EOVERFLOW (a page has a number of 2^52 or more).
 */
int dtrack_ranges_encode(const struct dirtytrack_range *ranges, size_t nr,
			 void *buf, size_t size, size_t *used)
{
	size_t i, at = 0;
	char *out = buf;

	for (i = 0; i < nr; i++) {
		const struct dirtytrack_range *r = &ranges[i];
		bool fits = r->npages <= COUNT_MASK;
		size_t len = fits ? 8 : 16;
		int ret = check(r);

		*used = at;
		if (ret)
			return ret;
		if (out && at <= size && len <= size - at) {
			put_word(out + at, r->first << COUNT_BITS |
					   (fits ? r->npages : 0));
			if (!fits)
				put_word(out + at + 8, r->npages);
		}
		at += len;
	}
	*used = at;
	return out && at > size ? -ENOSPC : 0;
}

/**
 * dtrack_ranges_decode - read ranges from the compact encoding
 * @buf: the encoding, without alignment
 * @size: bytes of it
 * @ranges: where to, or NULL to know how many there are
 * @max: how many there is room for
 * @nr: ranges in @buf; after an error, those before it
 *
 * A count that would have fit in the first word may be in the second all the same.
 *
 * Return: 0; -ENOSPC when @max is not enough, the first @max being in @ranges; -ENODATA
 * (the encoding ends within a range); -EINVAL (a range is empty: both counts are 0);
 * -EOVERFLOW (a page would have a number of 2^52 or more).
 */
int dtrack_ranges_decode(const void *buf, size_t size,
			 struct dirtytrack_range *ranges, size_t max,
			 size_t *nr)
{
	const char *in = buf, *end = in + size;

	*nr = 0;
	while (in < end) {
		struct dirtytrack_range r;
		uint64_t word;
		int ret;

		if (end - in < 8)
			return -ENODATA;
		word = get_word(in);
		in += 8;
		r.first = word >> COUNT_BITS;
		r.npages = word & COUNT_MASK;
		if (!r.npages) {
			if (end - in < 8)
				return -ENODATA;
			r.npages = get_word(in);
			in += 8;
		}
		ret = check(&r);
		if (ret)
			return ret;
		if (ranges && *nr < max)
			ranges[*nr] = r;
		(*nr)++;
	}
	return ranges && *nr > max ? -ENOSPC : 0;
}
