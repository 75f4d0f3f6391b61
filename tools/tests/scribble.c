// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who writes to a slot of standin.c without having been asked, as a guest at a secondary.
 *
 *	scribble SLOT [PAGES]
 *
 * Makes random pages rubbish, and some of them holes, so many a second, until SIGTERM; that
 * ends it between two writes, none of which is then not declared.  SIGUSR1 has it stand
 * still, and SIGUSR2 go on: "stands" and "goes on" say, on standard output, when it does.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096UL
#define TICK_US 2000

static volatile sig_atomic_t ended, stands;

static void on_signal(int sig)
{
	if (sig == SIGTERM)
		ended = 1;
	else
		stands = sig == SIGUSR1;
}

static uint64_t next_random(void)
{
	static uint64_t seed = 88172645463325252;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void *map(const char *path, const char *suffix, size_t size, int *fd)
{
	char full[4096];
	void *addr;

	snprintf(full, sizeof(full), "%s%s", path, suffix);
	*fd = open(full, O_RDWR | O_CLOEXEC);
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (addr == MAP_FAILED) {
		perror(full);
		exit(1);
	}
	return addr;
}

int main(int argc, char **argv)
{
	const struct sigaction action = { .sa_handler = on_signal };
	uint64_t rate = argc > 2 ? strtoull(argv[2], NULL, 0) : 1000, npages, i;
	_Atomic uint64_t *dirty;
	bool stood = false;
	uint64_t *ram;
	struct stat st;
	int fd, dirty_fd;

	if (argc < 2 || stat(argv[1], &st) < 0) {
		fprintf(stderr, "usage: scribble SLOT [PAGES]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	npages = st.st_size / PAGE;
	ram = map(argv[1], "", st.st_size, &fd);
	dirty = map(argv[1], ".dirty", (npages + 63) / 64 * 8, &dirty_fd);
	while (!ended) {
		for (i = 0; !stands && !ended && i < rate * TICK_US / 1000000 + 1; i++) {
			uint64_t page = next_random() % npages;

			if (next_random() % 8)
				ram[page * PAGE / 8 + next_random() % (PAGE / 8)] =
					next_random();
			else
				fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					  page * PAGE, PAGE);
			atomic_fetch_or(&dirty[page / 64], UINT64_C(1) << page % 64);
		}
		if (stood != stands) {
			stood = stands;
			puts(stood ? "stands" : "goes on");
		}
		usleep(TICK_US);
	}
	return 0;
}
