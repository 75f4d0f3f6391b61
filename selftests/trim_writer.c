// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest that knows what its memory holds, for tests of what takes zero pages away from
 * it.
 *
 *	trim_writer PATH PAGES READY
 *
 * Maps PATH, and makes the file READY when it has written to all of its first PAGES pages.
 * Then each of its threads picks a page of its own, checks that it holds what was written
 * last, and writes anew: half the time zeros. At the first SIGTERM they stop, and it prints
 *
 *	data M
 *
 * that is how many pages are not zero. At the second one it checks all pages, and prints
 *
 *	writes N bad B
 *
 * Fails if any was bad.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE		4096UL
#define PAGE_WORDS	(PAGE / sizeof(uint64_t))
#define THREADS		2

static volatile uint64_t *memory;
static uint64_t npages;
/* What each page holds: at its begin, in the middle and at its end; 0 is a page of zeros. */
static uint64_t *values;
static volatile sig_atomic_t done;

struct thread {
	pthread_t id;
	unsigned int nr;
	uint64_t random;
	uint64_t writes;
	uint64_t bad;
};

static uint64_t random_number(struct thread *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return t->random;
}

static volatile uint64_t *word(uint64_t page, unsigned int nth)
{
	static const unsigned int words[] = { 0, PAGE_WORDS / 2 + 1, PAGE_WORDS - 1 };

	return &memory[page * PAGE_WORDS + words[nth]];
}

static int is_bad(uint64_t page)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		if (*word(page, i) != values[page])
			return 1;
	return 0;
}

static void write_page(uint64_t page, uint64_t value)
{
	unsigned int i;

	/* One word after the other: whoever looks meanwhile sees a page half written. */
	for (i = 0; i < 3; i++)
		*word(page, i) = value;
	values[page] = value;
}

static void *work(void *arg)
{
	struct thread *t = arg;

	while (!done) {
		uint64_t page = random_number(t) % npages;
		uint64_t value = random_number(t);

		page -= page % THREADS;
		page += t->nr;
		if (page >= npages)
			continue;
		t->bad += is_bad(page);
		write_page(page, value & 1 ? value : 0);
		/* Time for the page to be clean. */
		if (++t->writes % 64 == 0)
			usleep(1000);
	}
	return NULL;
}

static void stop(int sig)
{
	(void)sig;
	done++;
}

int main(int argc, char **argv)
{
	struct thread threads[THREADS] = { 0 };
	uint64_t page, writes = 0, data = 0, bad = 0;
	unsigned int i;
	int fd;

	if (argc != 4)
		errx(2, "usage: trim_writer PATH PAGES READY");
	npages = strtoull(argv[2], NULL, 0);
	values = calloc(npages, sizeof(*values));
	fd = open(argv[1], O_RDWR);
	if (!npages || !values || fd < 0)
		err(1, "%s", argv[1]);
	memory = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s: mmap", argv[1]);
	signal(SIGTERM, stop);
	for (page = 0; page < npages; page++)
		write_page(page, page | 1);
	fd = open(argv[3], O_WRONLY | O_CREAT, 0644);
	if (fd < 0)
		err(1, "%s", argv[3]);
	for (i = 0; i < THREADS; i++) {
		threads[i].nr = i;
		threads[i].random = 88172645463325252ULL + i;
		if (pthread_create(&threads[i].id, NULL, work, &threads[i]))
			errx(1, "no thread");
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		writes += threads[i].writes;
		bad += threads[i].bad;
	}
	for (page = 0; page < npages; page++)
		data += values[page] != 0;
	printf("data %llu\n", (unsigned long long)data);
	fflush(stdout);
	while (done < 2)
		usleep(10000);
	for (page = 0; page < npages; page++)
		bad += is_bad(page);
	printf("writes %llu bad %llu\n", (unsigned long long)writes,
	       (unsigned long long)bad);
	return bad != 0;
}
