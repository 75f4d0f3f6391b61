// SPDX-License-Identifier: GPL-2.0-only
#include "bench.h"
#include "pattern.h"

static size_t fill_every(uint32_t *list, uint64_t npages, uint64_t step)
{
	size_t n = 0;

	for (uint64_t page = 0; page < npages; page += step)
		list[n++] = page;
	return n;
}

static size_t fill_none(uint32_t *list, uint64_t npages, uint64_t seed)
{
	(void)list;
	(void)npages;
	(void)seed;
	return 0;
}

static size_t fill_all(uint32_t *list, uint64_t npages, uint64_t seed)
{
	(void)seed;
	return fill_every(list, npages, 1);
}

static size_t fill_4th(uint32_t *list, uint64_t npages, uint64_t seed)
{
	(void)seed;
	return fill_every(list, npages, 4);
}

static size_t fill_16th(uint32_t *list, uint64_t npages, uint64_t seed)
{
	(void)seed;
	return fill_every(list, npages, 16);
}

static size_t fill_64th(uint32_t *list, uint64_t npages, uint64_t seed)
{
	(void)seed;
	return fill_every(list, npages, 64);
}

static size_t fill_4096th(uint32_t *list, uint64_t npages, uint64_t seed)
{
	(void)seed;
	return fill_every(list, npages, 4096);
}

static size_t fill_random(uint32_t *list, uint64_t npages, uint64_t seed,
			  uint64_t count)
{
	size_t n;

	for (n = 0; n < count || !n; n++)
		list[n] = random_next(&seed) % npages;
	return n;
}

static size_t fill_percent(uint32_t *list, uint64_t npages, uint64_t seed)
{
	return fill_random(list, npages, seed, npages / 100);
}

static size_t fill_single(uint32_t *list, uint64_t npages, uint64_t seed)
{
	return fill_random(list, npages, seed, npages / 1024);
}

/* The hot set is in one piece, as a guest's working set tends to be. */
static size_t fill_hot(uint32_t *list, uint64_t npages, uint64_t seed)
{
	uint64_t hot = npages / 64 ? npages / 64 : 1;
	uint64_t base = random_next(&seed) % (npages - hot + 1);
	size_t n;

	for (n = 0; n < npages / 8 || !n; n++) {
		uint64_t r = random_next(&seed);

		list[n] = r % 10 ? base + r / 16 % hot : r / 16 % npages;
	}
	return n;
}

const struct pattern patterns[] = {
	{ "sequential", "every page, ascending", 1, 1, "1", 1, fill_all },
	{ "every-4th", "every 4th page, ascending", 1, 1, NULL, 1, fill_4th },
	{ "every-16th", "every 16th page, ascending", 1, 1, "1/16", 16, fill_16th },
	{ "random-1%", "one page in 100, at random", 1, 1, NULL, 1, fill_percent },
	{ "random-single", "one page in 1024, at random: hardly ever two near each other",
		1, 1, NULL, 1, fill_single },
	{ "hot-cold", "nine writes in ten to a 64th of the memory, one anywhere",
		1, 1, NULL, 1, fill_hot },
	{ "2-writers", "every page, by two writers, one the even, one the odd ones",
		2, 1, NULL, 1, fill_all },
	{ "every-64th", "every 64th page", 1, 0, "1/64", 64, fill_64th },
	{ "every-4096th", "every 4096th page", 1, 0, "1/4096", 4096, fill_4096th },
	{ "nothing", "no page", 1, 0, "0", 1, fill_none },
};

const size_t nr_patterns = NELEM(patterns);
