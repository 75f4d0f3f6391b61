// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the demo guest does for a living: it writes to its memory at a steady
 * rate and checks that the memory still holds what it wrote.
 *
 *     workload MIB|PAGESp PAGES_PER_SECOND|max
 *
 * Its memory is so many MiB or, with a p, pages; "max" is as fast as it can.
 *
 * The whole content of a page follows from its number and from how often it was
 * rewritten, which is kept apart from it.  So a page that is lost, stale, torn or
 * somebody else's shows at the next check, whatever happened to the guest's RAM
 * underneath.
 *
 * Each second it prints one line:
 *
 *     tick N pages P checked C bad B
 *
 * P, C and B are totals since the start.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE_BYTES	4096
#define PAGE_WORDS	(PAGE_BYTES / sizeof(uint64_t))

/* Pauses a second: short enough to look steady, few enough to cost little. */
#define BURSTS		10
/* Pages between two looks at the clock, as fast as it can. */
#define PAGES_A_LOOK	64

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static uint64_t seed_of(uint64_t page, uint64_t version)
{
	return mix(page * 0x9e3779b97f4a7c15ULL + version);
}

static void write_page(uint64_t *mem, uint64_t page, uint64_t version)
{
	uint64_t *words = mem + page * PAGE_WORDS;
	uint64_t seed = seed_of(page, version);

	for (size_t i = 0; i < PAGE_WORDS; i++)
		words[i] = seed + i;
}

static int page_is_bad(const uint64_t *mem, uint64_t page, uint64_t version)
{
	const uint64_t *words = mem + page * PAGE_WORDS;
	uint64_t seed = seed_of(page, version);

	for (size_t i = 0; i < PAGE_WORDS; i++)
		if (words[i] != seed + i)
			return 1;
	return 0;
}

static unsigned long number(const char *what, const char *text)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || end == text || !value || value > 1UL << 30) {
		fprintf(stderr, "workload: %s is not a number above 0: %s\n",
			what, text);
		exit(2);
	}
	return value;
}

/* How many pages its memory is: "64" MiB, or "2000p". */
static uint64_t pages_of(char *text)
{
	size_t last = strlen(text) - 1;

	if (!*text || text[last] != 'p')
		return number("MIB", text) * (1 << 20) / PAGE_BYTES;
	text[last] = '\0';
	return number("PAGES", text);
}

static void next_burst(struct timespec *next)
{
	next->tv_nsec += 1000000000L / BURSTS;
	if (next->tv_nsec >= 1000000000L) {
		next->tv_nsec -= 1000000000L;
		next->tv_sec++;
	}
}

static int is_before(const struct timespec *next)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < next->tv_sec ||
	       (now.tv_sec == next->tv_sec && now.tv_nsec < next->tv_nsec);
}

static void sleep_until(const struct timespec *next)
{
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL) == EINTR)
		;
}

static uint64_t npages, total, checked, bad;
static uint32_t *versions;
static uint64_t *mem;

static void work(uint64_t burst)
{
	static uint64_t cursor, salt = 1;

	for (uint64_t n = 0; n < burst; n++, total++) {
		uint64_t page;

		/* Half in order, half anywhere: runs and singles. */
		if (n & 1)
			page = cursor++ % npages;
		else
			page = mix(salt++) % npages;
		write_page(mem, page, ++versions[page]);
	}
	/* As many are checked, in order: each gets its turn. */
	for (uint64_t n = 0; n < burst; n++) {
		uint64_t page = checked++ % npages;

		bad += page_is_bad(mem, page, versions[page]);
	}
}

int main(int argc, char **argv)
{
	uint64_t burst = PAGES_A_LOOK;
	struct timespec next;
	int paced;

	if (argc != 3) {
		fprintf(stderr, "usage: workload MIB|PAGESp PAGES_PER_SECOND|max\n");
		return 2;
	}
	npages = pages_of(argv[1]);
	paced = strcmp(argv[2], "max") != 0;
	if (paced)
		burst = (number("PAGES_PER_SECOND", argv[2]) + BURSTS - 1) / BURSTS;

	mem = mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	versions = calloc(npages, sizeof(*versions));
	if (mem == MAP_FAILED || !versions) {
		fprintf(stderr, "workload: no memory for %llu pages: %s\n",
			(unsigned long long)npages, strerror(errno));
		return 1;
	}
	for (uint64_t page = 0; page < npages; page++)
		write_page(mem, page, 0);
	printf("working set of %llu pages is written\n",
	       (unsigned long long)npages);

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (uint64_t tick = 1;; tick++) {
		for (int i = 0; i < BURSTS; i++) {
			next_burst(&next);
			do
				work(burst);
			while (!paced && is_before(&next));
			if (paced)
				sleep_until(&next);
		}
		printf("tick %llu pages %llu checked %llu bad %llu\n",
		       (unsigned long long)tick, (unsigned long long)total,
		       (unsigned long long)checked, (unsigned long long)bad);
		fflush(stdout);
	}
}
