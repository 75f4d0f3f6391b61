// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bitmap functions against a reference that looks at one bit at a time, for every
 * range of a few words and for patterns whose runs end at and beside word edges.
 */
#include <stdlib.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "tap.h"

#define WORDS 4
#define BITS (WORDS * 64)

static uint64_t map[WORDS];

static bool ref_test(uint64_t bit)
{
	const unsigned char *byte = (const unsigned char *)map;

	/* Little-endian hosts only, which the module's hosts are. */
	return byte[bit / 8] >> (bit % 8) & 1;
}

static uint64_t ref_next(uint64_t nbits, uint64_t from, bool value)
{
	while (from < nbits && ref_test(from) != value)
		from++;
	return from < nbits ? from : nbits;
}

static uint64_t ref_count(uint64_t first, uint64_t count)
{
	uint64_t sum = 0;

	while (count--)
		sum += ref_test(first++);
	return sum;
}

/* Patterns that set bits where an off-by-one would show. */
static unsigned int nr_patterns(void)
{
	return 8 + 64;
}

static void pattern(unsigned int nr)
{
	static const uint64_t fixed[8][WORDS] = {
		{ 0, 0, 0, 0 },
		{ ~0ULL, ~0ULL, ~0ULL, ~0ULL },
		{ 1, 1, 1, 1 },
		{ 1ULL << 63, 1ULL << 63, 1ULL << 63, 1ULL << 63 },
		{ 1ULL << 63, 1, 1ULL << 63, 1 },
		{ 0, ~0ULL, 0, ~0ULL },
		{ ~0ULL >> 1, ~0ULL << 1, ~1ULL, ~0ULL >> 1 },
		{ 0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0, 0xf0f0f0f0f0f0f0f0 },
	};
	int i;

	if (nr < 8) {
		memcpy(map, fixed[nr], sizeof(map));
		return;
	}
	/* Of each density from sparse to full, the same on every run. */
	srandom(nr);
	memset(map, 0, sizeof(map));
	for (i = 0; i < BITS; i++)
		if (random() % 64 < nr - 8)
			map[i / 64] |= 1ULL << (i % 64);
}

static void next_matches_reference(void)
{
	unsigned int p;
	uint64_t nbits, from;

	for (p = 0; p < nr_patterns(); p++) {
		pattern(p);
		for (nbits = 0; nbits <= BITS; nbits++)
			for (from = 0; from <= nbits + 1; from++) {
				uint64_t at = from < nbits ? from : nbits;

				CHECK_EQ(dtrack_bitmap_next(map, nbits, from),
					 ref_next(nbits, at, true));
				CHECK_EQ(dtrack_bitmap_next_clear(map, nbits,
								  from),
					 ref_next(nbits, at, false));
			}
	}
}

static void count_matches_reference(void)
{
	unsigned int p;
	uint64_t first, end;

	for (p = 0; p < nr_patterns(); p++) {
		pattern(p);
		for (first = 0; first <= BITS; first++)
			for (end = first; end <= BITS; end++)
				CHECK_EQ(dtrack_bitmap_count(map, first,
							     end - first),
					 ref_count(first, end - first));
	}
}

/* The runs are apart, ascending, as long as can be, and all there is. */
static void runs_are_the_set_bits(void)
{
	uint64_t nbits, first, count, last, sum;
	unsigned int p;

	for (p = 0; p < nr_patterns(); p++) {
		pattern(p);
		for (nbits = 0; nbits <= BITS; nbits++) {
			last = 0;
			sum = 0;
			dtrack_for_each_run(first, count, map, nbits) {
				CHECK(!sum || first > last);
				CHECK(first + count <= nbits);
				CHECK_EQ(ref_count(first, count), count);
				CHECK(first + count == nbits ||
				      !ref_test(first + count));
				last = first + count;
				sum += count;
			}
			CHECK_EQ(first, nbits);
			CHECK_EQ(sum, ref_count(0, nbits));
		}
	}
}

static void set_and_clear_touch_the_range(void)
{
	uint64_t before[WORDS], first, end, i;
	static const unsigned int some[] = { 0, 1, 7, 40 };
	unsigned int p;

	for (p = 0; p < sizeof(some) / sizeof(*some); p++)
		for (first = 0; first <= BITS; first++)
			for (end = first; end <= BITS; end++) {
				pattern(some[p]);
				memcpy(before, map, sizeof(map));
				dtrack_bitmap_set(map, first, end - first);
				for (i = 0; i < BITS; i++)
					CHECK_EQ(dtrack_bitmap_test(map, i),
						 (i >= first && i < end) ||
						 dtrack_bitmap_test(before, i));
				memcpy(map, before, sizeof(map));
				dtrack_bitmap_clear(map, first, end - first);
				for (i = 0; i < BITS; i++)
					CHECK_EQ(dtrack_bitmap_test(map, i),
						 !(i >= first && i < end) &&
						 dtrack_bitmap_test(before, i));
			}
}

/* Under AddressSanitizer: the word after the last one is not read. */
static void last_word_is_the_last(void)
{
	uint64_t nbits, first, count, sum = 0;

	for (nbits = 0; nbits <= 193; nbits++) {
		uint64_t *exact = dtrack_bitmap_alloc(nbits);

		CHECK(exact);
		dtrack_bitmap_set(exact, 0, nbits);
		CHECK_EQ(dtrack_bitmap_count(exact, 0, nbits), nbits);
		dtrack_for_each_run(first, count, exact, nbits)
			sum += count;
		CHECK_EQ(dtrack_bitmap_next_clear(exact, nbits, 0), nbits);
		dtrack_bitmap_clear(exact, 0, nbits);
		CHECK_EQ(dtrack_bitmap_next(exact, nbits, 0), nbits);
		free(exact);
	}
	CHECK_EQ(sum, 193 * 194 / 2);
	CHECK_EQ(dtrack_bitmap_words(0), 0);
	CHECK_EQ(dtrack_bitmap_words(64), 1);
	CHECK_EQ(dtrack_bitmap_words(65), 2);
	CHECK_EQ(dtrack_bitmap_words(UINT64_MAX), 1ULL << 58);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(next_matches_reference),
		TAP_TEST(count_matches_reference),
		TAP_TEST(runs_are_the_set_bits),
		TAP_TEST(set_and_clear_touch_the_range),
		TAP_TEST(last_word_is_the_last),
	};

	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
