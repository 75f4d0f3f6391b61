// SPDX-License-Identifier: GPL-2.0-only
/*
 * Walking a dirty bitmap: a byte at a time, a long at a time, and by the library
 *
 *     bench-bitmap [-j FILE] [-r RUNS] [-s GIB]
 *
 * In 2010 qemu-kvm went from bytes to longs and gained a factor of 3.5 to 6.8.  The
 * two ways are here as they were: each visits the dirty pages one by one, after
 * skipping a byte, or a long, that is zero.  The library visits runs.  Beside them, the
 * least that can be: reading the bitmap and adding it up.
 *
 * All must agree on how many pages are dirty and on the sum of their numbers.  The
 * ways take turns; what is printed is the median of the runs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "sheet.h"
#include "small.h"

#define PAGES_PER_GIB	((1ULL << 30) >> DIRTYTRACK_PAGE_SHIFT)
#define MAX_RUNS	99
/* A walk of less is done again and again. */
#define LEAST_PAGES	(64 * PAGES_PER_GIB)

static uint64_t nbits;

/* What a visitor does, cheap and not to be optimised away. */
struct visit {
	uint64_t calls;
	uint64_t pages;
	uint64_t sum;
};

static void visit_page(struct visit *v, uint64_t page)
{
	v->calls++;
	v->pages++;
	v->sum += page;
}

static void visit_run(struct visit *v, uint64_t first, uint64_t count)
{
	v->calls++;
	v->pages += count;
	v->sum += count * first + count * (count - 1) / 2;
}

static void by_byte(const uint64_t *bitmap, struct visit *v)
{
	const unsigned char *bytes = (const unsigned char *)bitmap;

	for (uint64_t i = 0; i < nbits / 8; i++) {
		unsigned int c = bytes[i];

		for (; c; c &= c - 1)
			visit_page(v, i * 8 + __builtin_ctz(c));
	}
}

static void by_long(const uint64_t *bitmap, struct visit *v)
{
	for (uint64_t i = 0; i < nbits / 64; i++) {
		uint64_t c = bitmap[i];

		for (; c; c &= c - 1)
			visit_page(v, i * 64 + __builtin_ctzll(c));
	}
}

static void by_library(const uint64_t *bitmap, struct visit *v)
{
	uint64_t first, count;

	dtrack_for_each_run(first, count, bitmap, nbits)
		visit_run(v, first, count);
}

/* Finds nothing: how long the memory takes. */
static void read_only(const uint64_t *bitmap, struct visit *v)
{
	for (uint64_t i = 0; i < nbits / 64; i++)
		v->sum += bitmap[i];
}

static const struct {
	void (*walk)(const uint64_t *bitmap, struct visit *v);
	int finds;
} ways[] = {
	{ by_byte, 1 },
	{ by_long, 1 },
	{ by_library, 1 },
	{ read_only, 0 },
};

enum { BYTE, LONG, LIBRARY, READ, NR_WAYS };

static double time_walk(unsigned int way, const uint64_t *bitmap, struct visit *v)
{
	unsigned int times = nbits < LEAST_PAGES ? LEAST_PAGES / nbits : 1;
	double start = small_now_us();

	for (unsigned int i = 0; i < times; i++) {
		*v = (struct visit){ 0 };
		ways[way].walk(bitmap, v);
		/* The compiler has no right to know that it is the same again. */
		__asm__ volatile("" : : "r"(v), "r"(bitmap) : "memory");
	}
	return (small_now_us() - start) / times;
}

/* @part of all pages, in runs of @length, scattered. */
static void fill(uint64_t *bitmap, double part, uint64_t length)
{
	uint64_t state = 1, pages = nbits * part;

	dtrack_bitmap_clear(bitmap, 0, nbits);
	if (part == 1)
		dtrack_bitmap_set(bitmap, 0, nbits);
	else
		for (uint64_t set = 0; set < pages; set += length) {
			uint64_t at;

			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			at = state % nbits;
			dtrack_bitmap_set(bitmap, at,
					  nbits - at < length ? nbits - at : length);
		}
}

static const struct {
	const char *name;
	double part;
	uint64_t length;
} densities[] = {
	{ "empty", 0, 1 },
	{ "1 in 100000", 1e-5, 1 },
	{ "1 in 4096", 1 / 4096.0, 1 },
	{ "1 in 64", 1 / 64.0, 1 },
	{ "1 in 64, runs of 64", 1 / 64.0, 64 },
	{ "1 in 8", 1 / 8.0, 1 },
	{ "half, runs of 512", 0.5, 512 },
	{ "full", 1, 1 },
};

static void measure(struct sheet *sheet, uint64_t *bitmap, uint64_t gib,
		    unsigned int density, unsigned int runs)
{
	double times[NR_WAYS][MAX_RUNS], byte, ours, reading;
	struct visit v[NR_WAYS];
	char size[32];

	fill(bitmap, densities[density].part, densities[density].length);
	for (unsigned int run = 0; run < runs; run++)
		for (unsigned int way = 0; way < NR_WAYS; way++)
			times[way][run] = time_walk(way, bitmap, &v[way]);
	for (unsigned int way = 0; way < NR_WAYS; way++)
		if (ways[way].finds && (v[way].pages != v[BYTE].pages ||
					v[way].sum != v[BYTE].sum)) {
			fprintf(stderr, "bench-bitmap: %s: the walks disagree\n",
				densities[density].name);
			exit(1);
		}
	if (v[LIBRARY].pages != dtrack_bitmap_count(bitmap, 0, nbits)) {
		fprintf(stderr, "bench-bitmap: pages are missed\n");
		exit(1);
	}

	byte = sheet_median(times[BYTE], runs);
	ours = sheet_median(times[LIBRARY], runs);
	reading = sheet_median(times[READ], runs);
	snprintf(size, sizeof(size), "%" PRIu64 " GiB", gib);
	sheet_text(sheet, size);
	sheet_text(sheet, densities[density].name);
	sheet_number(sheet, v[BYTE].pages);
	sheet_number(sheet, byte);
	sheet_number(sheet, sheet_median(times[LONG], runs));
	sheet_number(sheet, ours);
	sheet_number(sheet, reading);
	sheet_number(sheet, byte / ours);
	sheet_number(sheet, ours / reading);
}

int main(int argc, char **argv)
{
	static const struct sheet_column columns[] = {
		{ "guest", "GUEST" },
		{ "dirty", "DIRTY" },
		{ "pages", "PAGES" },
		{ "byte_us", "BYTES, us" },
		{ "long_us", "LONGS, us" },
		{ "library_us", "LIBRARY, us" },
		{ "read_us", "READ, us" },
		{ "byte_to_library", "BYTES/LIBRARY" },
		{ "library_to_read", "LIBRARY/READ" },
	};
	unsigned int max = 1024, runs = 5;
	const char *json = NULL;
	struct sheet *sheet;
	uint64_t *bitmap;
	const struct small_option options[] = {
		{ 'j', .text = &json },
		{ 'r', .number = &runs },
		{ 's', .number = &max },
		{ 0 }
	};

	if (!small_options(argc, argv, options) || !runs || runs > MAX_RUNS ||
	    !max || max > 65536)
		return small_usage("[-j FILE] [-r RUNS] [-s GIB]");
	bitmap = dtrack_bitmap_alloc((uint64_t)max * PAGES_PER_GIB);
	if (!bitmap) {
		fprintf(stderr, "bench-bitmap: no memory\n");
		return 1;
	}
	sheet = sheet_new("Walk of a dirty bitmap, us, medians", columns,
			  sizeof(columns) / sizeof(columns[0]));
	for (uint64_t gib = max < 4 ? max : 4; gib <= max; gib *= 16) {
		nbits = gib * PAGES_PER_GIB;
		for (unsigned int i = 0; i < sizeof(densities) / sizeof(densities[0]); i++)
			measure(sheet, bitmap, gib, i, runs);
	}
	sheet_finish(sheet, json);
	free(bitmap);
	return 0;
}
