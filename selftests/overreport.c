// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many pages are reported though they hold what they held before, and whether
 * any is not reported that does not
 *
 *     overreport [-i MS] [-n SAMPLES] [-r HARVESTS] [-t SECONDS] -q SOCKET SLOT
 *
 * Keeps a copy of a working guest's memory in the way every consumer does: copies
 * a page when the log reports it.  For a sample the guest is stopped through QMP,
 * so that memory stands still while it is compared:
 *
 * - a reported page that is equal to the copy was reported in vain;
 * - a page that is not reported and differs from the copy is lost.  Every page is
 *   compared, every time.
 *
 * With -r, so many harvests run between two samples while the guest works, MS
 * apart, but none is begun after SECONDS; they look for losses.  The figure of
 * pages reported in vain then counts pages that changed between such a harvest and
 * their copying, so it means something only without -r.
 *
 * Prints one "key: value" a line; fails if a page was lost or nothing happened.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/dirtytrack.h>

#include "qmp.h"

#define PAGE_BYTES	(1UL << DIRTYTRACK_PAGE_SHIFT)
#define CHUNK_PAGES	64UL
#define NR_EXTENTS	512

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	int err = errno;
	va_list args;

	fprintf(stderr, "overreport: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(err));
	exit(1);
}

struct watch {
	int slot;
	int log;
	uint64_t npages;
	char *copy;
	/* Reported by the harvest of this sample. */
	bool *reported;
};

struct tally {
	uint64_t harvests;
	uint64_t reported;
	uint64_t in_vain;
	uint64_t lost;
};

static void watch_open(struct watch *w, const char *name)
{
	struct dirtytrack_slot_open open_arg = {
		.size = sizeof(open_arg),
		.flags = DIRTYTRACK_OPEN_BY_NAME,
	};
	struct dirtytrack_slot_info info = { .size = sizeof(info) };
	/* The copy starts empty, so the log starts with all there is. */
	struct dirtytrack_log_create create = {
		.size = sizeof(create),
		.flags = DIRTYTRACK_LOG_ALL_SET,
	};
	int dev = open(DIRTYTRACK_DEVICE, O_RDWR | O_CLOEXEC);

	if (dev < 0)
		die("open " DIRTYTRACK_DEVICE);
	if (strlen(name) >= sizeof(open_arg.name)) {
		errno = ENAMETOOLONG;
		die("slot %s", name);
	}
	strcpy(open_arg.name, name);
	if (ioctl(dev, DIRTYTRACK_SLOT_OPEN, &open_arg))
		die("slot %s", name);
	close(dev);
	w->slot = open_arg.out_fd;
	if (ioctl(w->slot, DIRTYTRACK_SLOT_INFO, &info))
		die("SLOT_INFO");
	if (ioctl(w->slot, DIRTYTRACK_LOG_CREATE, &create))
		die("LOG_CREATE");
	w->log = create.out_fd;

	w->npages = info.out_length / PAGE_BYTES;
	w->copy = mmap(NULL, info.out_length, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	w->reported = calloc(w->npages, sizeof(*w->reported));
	if (w->copy == MAP_FAILED || !w->reported)
		die("memory for a copy of %s", name);
}

/* By pread(), which leaves holes holes and the page tables alone. */
static void read_pages(struct watch *w, uint64_t first, uint64_t n, char *buf)
{
	ssize_t got = pread(w->slot, buf, n * PAGE_BYTES, first * PAGE_BYTES);

	if (got != (ssize_t)(n * PAGE_BYTES)) {
		if (got >= 0)
			errno = EIO;
		die("reading %llu pages at %llu", (unsigned long long)n,
		    (unsigned long long)first);
	}
}

/* Copies what is reported and counts what did not need it. */
static void take_extent(struct watch *w, const struct dirtytrack_extent *e,
			struct tally *t)
{
	static char buf[CHUNK_PAGES * PAGE_BYTES];
	uint64_t at = e->first, left = e->npages;

	while (left) {
		uint64_t n = left < CHUNK_PAGES ? left : CHUNK_PAGES;

		read_pages(w, at, n, buf);
		for (uint64_t i = 0; i < n; i++) {
			char *copy = w->copy + (at + i) * PAGE_BYTES;

			w->reported[at + i] = true;
			if (!memcmp(copy, buf + i * PAGE_BYTES, PAGE_BYTES))
				t->in_vain++;
			else
				memcpy(copy, buf + i * PAGE_BYTES, PAGE_BYTES);
		}
		at += n;
		left -= n;
	}
	t->reported += e->npages;
}

static void harvest(struct watch *w, struct tally *t)
{
	static struct dirtytrack_extent extents[NR_EXTENTS];
	struct dirtytrack_harvest_extents arg = {
		.size = sizeof(arg),
		.extents = (uintptr_t)extents,
		.nr = NR_EXTENTS,
	};

	while (arg.first < w->npages) {
		arg.npages = w->npages - arg.first;
		if (ioctl(w->log, DIRTYTRACK_LOG_HARVEST_EXTENTS, &arg))
			die("HARVEST_EXTENTS");
		for (uint32_t i = 0; i < arg.out_nr; i++)
			take_extent(w, &extents[i], t);
		arg.first = arg.out_next;
	}
	t->harvests++;
}

/* The guest is stopped: whatever differs now was not reported. */
static void compare_all(struct watch *w, struct tally *t)
{
	static char buf[CHUNK_PAGES * PAGE_BYTES];

	for (uint64_t at = 0; at < w->npages; at += CHUNK_PAGES) {
		uint64_t n = w->npages - at < CHUNK_PAGES ? w->npages - at : CHUNK_PAGES;
		char *copy = w->copy + at * PAGE_BYTES;

		read_pages(w, at, n, buf);
		if (!memcmp(copy, buf, n * PAGE_BYTES))
			continue;
		for (uint64_t i = 0; i < n; i++, copy += PAGE_BYTES) {
			if (!memcmp(copy, buf + i * PAGE_BYTES, PAGE_BYTES))
				continue;
			if (t->lost++ < 8)
				fprintf(stderr, "overreport: page %llu changed and was %s\n",
					(unsigned long long)(at + i),
					w->reported[at + i] ?
					"read before it stood still" : "not reported");
			memcpy(copy, buf + i * PAGE_BYTES, PAGE_BYTES);
		}
	}
}

static void sample(struct watch *w, FILE *monitor, struct tally *t)
{
	if (qmp_command(monitor, "stop"))
		die("QMP stop");
	memset(w->reported, 0, w->npages * sizeof(*w->reported));
	harvest(w, t);
	compare_all(w, t);
	if (qmp_command(monitor, "cont"))
		die("QMP cont");
}

static void sleep_ms(unsigned long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

static unsigned long option(const char *name, const char *text, unsigned long max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value > max) {
		fprintf(stderr, "overreport: %s must be from 0 to %lu\n", name, max);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	unsigned long ms = 500, samples = 10, between = 0, seconds = 3600;
	struct tally first = { 0 }, racing = { 0 }, still = { 0 };
	const char *socket_path = NULL;
	struct watch w;
	FILE *monitor;
	int opt;

	while ((opt = getopt(argc, argv, "i:n:r:t:q:")) != -1) {
		switch (opt) {
		case 'i':
			ms = option("MS", optarg, 60000);
			break;
		case 'n':
			samples = option("SAMPLES", optarg, 100000);
			break;
		case 'r':
			between = option("HARVESTS", optarg, 100000);
			break;
		case 't':
			seconds = option("SECONDS", optarg, 3600);
			break;
		case 'q':
			socket_path = optarg;
			break;
		default:
			optind = argc;
		}
	}
	if (optind != argc - 1 || !socket_path) {
		fprintf(stderr, "usage: overreport [-i MS] [-n SAMPLES] [-r HARVESTS] [-t SECONDS] -q SOCKET SLOT\n");
		return 2;
	}

	monitor = qmp_open(socket_path);
	if (!monitor)
		die("QMP at %s", socket_path);
	watch_open(&w, argv[optind]);
	sample(&w, monitor, &first);
	for (unsigned long i = 0; i < samples; i++) {
		time_t end = time(NULL) + seconds;

		for (unsigned long k = 0; k < between && time(NULL) < end; k++) {
			sleep_ms(ms);
			harvest(&w, &racing);
		}
		sleep_ms(ms);
		sample(&w, monitor, &still);
	}
	fclose(monitor);

	printf("pages: %llu\n", (unsigned long long)w.npages);
	printf("samples: %llu\n", (unsigned long long)still.harvests);
	printf("harvests while working: %llu\n", (unsigned long long)racing.harvests);
	printf("reported while working: %llu\n", (unsigned long long)racing.reported);
	printf("reported: %llu\n", (unsigned long long)still.reported);
	printf("reported in vain: %llu\n", (unsigned long long)still.in_vain);
	printf("reported in vain, percent: %.2f\n", still.reported ?
	       100.0 * still.in_vain / still.reported : 0.0);
	printf("lost: %llu\n", (unsigned long long)(first.lost + still.lost));
	/* Between two harvests so near to each other it may not have. */
	if (!still.reported && !racing.reported) {
		fprintf(stderr, "overreport: the guest wrote nothing\n");
		return 1;
	}
	return first.lost || still.lost;
}
