// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest for tests of the command: fills memory, then writes to it until it is
 * killed.
 *
 *	tool_writer PATH PAGES RATE READY
 *
 * Maps the first PAGES pages of PATH, writes to each, makes the file READY, and
 * from then on writes to RATE pages a second (0: as many as it can), each time some
 * bytes somewhere in a page chosen at random.  Now and then a page is cleared, and
 * one is given back.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL

static uint64_t random_number(void)
{
	static uint64_t x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void write_once(int fd, char *memory, uint64_t npages)
{
	uint64_t page = random_number() % npages;
	uint64_t what = random_number() % 100;
	uint64_t value = random_number();

	if (what == 0) {
		memset(memory + page * PAGE, 0, PAGE);
	} else if (what == 1) {
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      page * PAGE, PAGE))
			err(1, "punch");
	} else {
		memcpy(memory + page * PAGE + value % (PAGE / 8) * 8, &value,
		       sizeof(value));
	}
}

int main(int argc, char **argv)
{
	struct timespec tick = { .tv_nsec = 2000000 };
	uint64_t npages, rate, i, n;
	char *memory;
	int fd, ready;

	if (argc != 5)
		errx(2, "usage: tool_writer PATH PAGES RATE READY");
	npages = strtoull(argv[2], NULL, 0);
	rate = strtoull(argv[3], NULL, 0);
	fd = open(argv[1], O_RDWR);
	if (fd < 0)
		err(1, "%s", argv[1]);
	memory = mmap(NULL, npages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		      fd, 0);
	if (memory == MAP_FAILED)
		err(1, "%s: mmap", argv[1]);
	for (i = 0; i < npages; i++)
		memset(memory + i * PAGE, 'a' + i % 26, PAGE);
	ready = open(argv[4], O_WRONLY | O_CREAT, 0644);
	if (ready < 0)
		err(1, "%s", argv[4]);
	close(ready);

	for (;;) {
		n = rate ? rate / 500 + 1 : 1;
		for (i = 0; i < n; i++)
			write_once(fd, memory, npages);
		if (rate)
			nanosleep(&tick, NULL);
	}
}
