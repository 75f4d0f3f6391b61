// SPDX-License-Identifier: GPL-2.0-only
/*
 * Walking a dirty bitmap: a bit, a byte and a word at a time.
 *
 * In 2010 qemu-kvm went from bytes to longs and gained a factor of 3.5 to 6.8.  The
 * two old ways are here to measure the library's against: each visits the runs of
 * set bits, and all must agree on what they are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../lib/dirtytrack.h"

/* A guest of 64 GiB. */
#define NBITS (64ULL << 30 >> DIRTYTRACK_PAGE_SHIFT)
#define REPEAT 5

/* What a visitor of runs would do with them, cheap and not to be optimised away. */
struct visit {
	uint64_t runs;
	uint64_t bits;
	uint64_t hash;
};

static void visit_run(struct visit *v, uint64_t first, uint64_t count)
{
	v->runs++;
	v->bits += count;
	v->hash = (v->hash ^ first) * 0x100000001b3 + count;
}

static void by_bit(const uint64_t *bitmap, struct visit *v)
{
	uint64_t i, first = NBITS;

	for (i = 0; i < NBITS; i++) {
		if (dtrack_bitmap_test(bitmap, i)) {
			if (first == NBITS)
				first = i;
		} else if (first != NBITS) {
			visit_run(v, first, i - first);
			first = NBITS;
		}
	}
	if (first != NBITS)
		visit_run(v, first, NBITS - first);
}

/* Bytes that are 0 or full are skipped as a whole, as the old code did. */
static void by_byte(const uint64_t *bitmap, struct visit *v)
{
	const unsigned char *bytes = (const unsigned char *)bitmap;
	uint64_t i, first = NBITS;
	int bit;

	for (i = 0; i < NBITS / 8; i++) {
		if (!bytes[i] && first == NBITS)
			continue;
		if (bytes[i] == 0xff && first != NBITS)
			continue;
		for (bit = 0; bit < 8; bit++) {
			if (bytes[i] >> bit & 1) {
				if (first == NBITS)
					first = i * 8 + bit;
			} else if (first != NBITS) {
				visit_run(v, first, i * 8 + bit - first);
				first = NBITS;
			}
		}
	}
	if (first != NBITS)
		visit_run(v, first, NBITS - first);
}

static void by_word(const uint64_t *bitmap, struct visit *v)
{
	uint64_t first, count;

	dtrack_for_each_run(first, count, bitmap, NBITS)
		visit_run(v, first, count);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

/* The best of some runs, in milliseconds. */
static double measure(void (*walk)(const uint64_t *, struct visit *),
		      const uint64_t *bitmap, struct visit *v)
{
	double best = 1e9;
	int i;

	for (i = 0; i < REPEAT; i++) {
		double start = now(), time;

		*v = (struct visit){ 0 };
		walk(bitmap, v);
		time = now() - start;
		if (time < best)
			best = time;
	}
	return best;
}

/* @dirty pages in runs of about @length, scattered. */
static void fill(uint64_t *bitmap, uint64_t dirty, uint64_t length)
{
	uint64_t set;

	dtrack_bitmap_clear(bitmap, 0, NBITS);
	for (set = 0; set < dirty; set += length) {
		uint64_t at = ((uint64_t)random() << 16 ^ random()) % NBITS;

		dtrack_bitmap_set(bitmap, at, NBITS - at < length ?
				  NBITS - at : length);
	}
}

int main(void)
{
	static const struct {
		const char *name;
		uint64_t dirty;
		uint64_t length;
	} cases[] = {
		{ "clean", 0, 1 },
		{ "1 in 10000, single", NBITS / 10000, 1 },
		{ "1 %, single", NBITS / 100, 1 },
		{ "1 %, runs of 64", NBITS / 100, 64 },
		{ "10 %, single", NBITS / 10, 1 },
		{ "10 %, runs of 512", NBITS / 10, 512 },
		{ "all", NBITS, NBITS },
	};
	uint64_t *bitmap = dtrack_bitmap_alloc(NBITS);
	struct visit bit, byte, word;
	size_t i;

	if (!bitmap)
		return 1;
	printf("%-20s %10s %10s %10s %10s %8s\n", "64 GiB guest, dirty", "runs",
	       "bit ms", "byte ms", "word ms", "byte/word");
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		double bits, bytes, words;

		fill(bitmap, cases[i].dirty, cases[i].length);
		bits = measure(by_bit, bitmap, &bit);
		bytes = measure(by_byte, bitmap, &byte);
		words = measure(by_word, bitmap, &word);
		if (word.hash != bit.hash || word.hash != byte.hash ||
		    word.bits != dtrack_bitmap_count(bitmap, 0, NBITS)) {
			fprintf(stderr, "%s: the walks disagree\n",
				cases[i].name);
			return 1;
		}
		printf("%-20s %10llu %10.2f %10.2f %10.2f %8.1f\n",
		       cases[i].name, (unsigned long long)word.runs, bits, bytes,
		       words, bytes / words);
	}
	free(bitmap);
	return 0;
}
