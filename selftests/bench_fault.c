// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a first write after a harvest costs, and what the harvest costs, beside
 * the way of the kernel's own: userfaultfd's asynchronous write protection, read
 * and renewed with PAGEMAP_SCAN (Linux 6.7).
 *
 *     bench_fault [-n PAGES] [-r RUNS]
 *
 * The methods take turns, run after run, in one process and on one processor;
 * what is printed is the median, in nanoseconds a page, or in instructions where
 * they can be counted (../tools/bench/ticks.h).  Speed is not judged here.  But
 * every method must report exactly the pages that were written, or its time would
 * mean nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/dirtytrack.h>

#include "uffd_wp.h"
#include "../tools/bench/ticks.h"

#define PAGE_BYTES	(1UL << DIRTYTRACK_PAGE_SHIFT)
#define MAX_RUNS	99

static unsigned long npages = 4096;
static unsigned int runs = 7;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	int err = errno;
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "bench_fault: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, ": %s\n", strerror(err));
	va_end(args);
	exit(1);
}

/* ---- methods ---- */

/* A region of npages pages, and what tracks it. */
struct region {
	char *mem;
	int memory_fd;
	int tracker_fd;
	int more_logs[7];	/* of a slot; each is harvested by nobody */
	unsigned int nr_more_logs;
};

struct method {
	const char *name;
	/* Maps fresh memory. */
	void (*open)(struct region *r);
	/* From now on harvest() reports; every page has been touched. */
	void (*track)(struct region *r);
	/* How many pages were written since the last call. */
	unsigned long (*harvest)(struct region *r);
};

static void slot_open(struct region *r)
{
	struct dirtytrack_slot_create arg = {
		.size = sizeof(arg),
		.length = npages * PAGE_BYTES,
	};
	int dev = open(DIRTYTRACK_DEVICE, O_RDWR | O_CLOEXEC);

	if (dev < 0)
		die("open " DIRTYTRACK_DEVICE);
	if (ioctl(dev, DIRTYTRACK_SLOT_CREATE, &arg))
		die("SLOT_CREATE");
	close(dev);
	r->memory_fd = arg.out_fd;
	r->mem = mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_SHARED, r->memory_fd, 0);
	if (r->mem == MAP_FAILED)
		die("mmap of a slot");
}

static int slot_log(struct region *r)
{
	struct dirtytrack_log_create arg = { .size = sizeof(arg) };

	if (ioctl(r->memory_fd, DIRTYTRACK_LOG_CREATE, &arg))
		die("LOG_CREATE");
	return arg.out_fd;
}

static void slot_track(struct region *r)
{
	r->tracker_fd = slot_log(r);
}

/* What it costs that others track the same slot. */
static void slot_track_eight(struct region *r)
{
	slot_track(r);
	while (r->nr_more_logs < 7)
		r->more_logs[r->nr_more_logs++] = slot_log(r);
}

/* Shared by all harvests, and touched once before any is timed. */
static __u64 *bitmap;
static struct page_region *regions;

static unsigned long slot_harvest(struct region *r)
{
	struct dirtytrack_harvest arg = {
		.size = sizeof(arg),
		.bitmap = (uintptr_t)bitmap,
	};
	unsigned long dirty = 0;

	while (arg.first < npages) {
		arg.npages = npages - arg.first;
		arg.bit = arg.first;
		if (ioctl(r->tracker_fd, DIRTYTRACK_LOG_HARVEST, &arg))
			die("HARVEST");
		dirty += arg.out_dirty;
		arg.first = arg.out_next;
	}
	return dirty;
}

static void memfd_open(struct region *r)
{
	r->memory_fd = memfd_create("bench_fault", MFD_CLOEXEC);
	if (r->memory_fd < 0 || ftruncate(r->memory_fd, npages * PAGE_BYTES))
		die("memfd");
	r->mem = mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_SHARED, r->memory_fd, 0);
	if (r->mem == MAP_FAILED)
		die("mmap of a memfd");
}

static void anon_open(struct region *r)
{
	r->memory_fd = -1;
	r->mem = mmap(NULL, npages * PAGE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->mem == MAP_FAILED)
		die("mmap");
	/* A huge page is one fault, and all dirty after it: not comparable. */
	if (madvise(r->mem, npages * PAGE_BYTES, MADV_NOHUGEPAGE) &&
	    errno != EINVAL)
		die("MADV_NOHUGEPAGE");
}

/* 0 if this kernel has it. */
static int uffd_open(int *fd)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};

	*fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0)
		return -1;
	if (!ioctl(*fd, UFFDIO_API, &api))
		return 0;
	close(*fd);
	return -1;
}

static int pagemap = -1;

static unsigned long uffd_harvest(struct region *r)
{
	const uintptr_t start = (uintptr_t)r->mem;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = start,
		.end = start + npages * PAGE_BYTES,
		.vec = (uintptr_t)regions,
		.vec_len = npages,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	unsigned long dirty = 0;
	int n = ioctl(pagemap, PAGEMAP_SCAN, &arg);

	if (n < 0 || arg.walk_end != arg.end)
		die("PAGEMAP_SCAN");
	for (int i = 0; i < n; i++)
		dirty += (regions[i].end - regions[i].start) / PAGE_BYTES;
	return dirty;
}

static void uffd_track(struct region *r)
{
	struct uffdio_register reg = {
		.range.start = (uintptr_t)r->mem,
		.range.len = npages * PAGE_BYTES,
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (uffd_open(&r->tracker_fd) ||
	    ioctl(r->tracker_fd, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	uffd_harvest(r);
}

static const struct method methods[] = {
	{ "dirtytrack",		slot_open,	slot_track,	slot_harvest },
	{ "with 8 logs",	slot_open,	slot_track_eight, slot_harvest },
	{ "uffd, memfd",	memfd_open,	uffd_track,	uffd_harvest },
	{ "uffd, anonymous",	anon_open,	uffd_track,	uffd_harvest },
};

#define NR_METHODS (sizeof(methods) / sizeof(methods[0]))

/* ---- measurements ---- */

enum pattern {
	SEQUENTIAL,
	EVERY_16TH,
	ANYWHERE,
	NR_PATTERNS,
};

static const char *const pattern_name[] = {
	[SEQUENTIAL] = "every page in order",
	[EVERY_16TH] = "every 16th page",
	[ANYWHERE] = "every page in disorder",
};

/*
 * Which page is written as number @i.  An odd multiplier permutes any power of two.
 */
static unsigned long page_of(enum pattern pattern, unsigned long i)
{
	switch (pattern) {
	case EVERY_16TH:
		return i * 16;
	case ANYWHERE:
		return i * 2654435761UL % npages;
	default:
		return i;
	}
}

static unsigned long pages_in(enum pattern pattern)
{
	return pattern == EVERY_16TH ? npages / 16 : npages;
}

/* Times a page. */
struct times {
	double touch;		/* first write ever, untracked */
	double fault[NR_PATTERNS];
	double harvest[NR_PATTERNS];
	double quiet;		/* a harvest of nothing, in all */
};

static double write_pages(struct region *r, enum pattern pattern)
{
	unsigned long n = pages_in(pattern);
	double start = ticks_now();

	for (unsigned long i = 0; i < n; i++)
		*(volatile char *)(r->mem + page_of(pattern, i) * PAGE_BYTES) += 1;
	return (ticks_now() - start) / n;
}

static double harvest(const struct method *m, struct region *r,
		      unsigned long expected)
{
	double start = ticks_now(), time;
	unsigned long dirty = m->harvest(r);

	time = ticks_now() - start;
	if (dirty != expected) {
		fprintf(stderr, "bench_fault: %s reported %lu pages of %lu\n",
			m->name, dirty, expected);
		exit(1);
	}
	return expected ? time / expected : time;
}

static void measure(const struct method *m, struct times *t)
{
	struct region r = { 0 };

	m->open(&r);
	t->touch = write_pages(&r, SEQUENTIAL);
	m->track(&r);
	for (enum pattern p = 0; p < NR_PATTERNS; p++) {
		t->fault[p] = write_pages(&r, p);
		t->harvest[p] = harvest(m, &r, pages_in(p));
	}
	harvest(m, &r, 0);	/* protects what it had left open */
	t->quiet = harvest(m, &r, 0);

	munmap(r.mem, npages * PAGE_BYTES);
	close(r.tracker_fd);
	while (r.nr_more_logs)
		close(r.more_logs[--r.nr_more_logs]);
	if (r.memory_fd >= 0)
		close(r.memory_fd);
}

/* ---- table ---- */

static struct times results[NR_METHODS][MAX_RUNS];
static size_t nmethods = NR_METHODS;

/* The median of what lies @offset into the results of a method. */
static double median(size_t method, size_t offset)
{
	double values[MAX_RUNS];

	for (unsigned int i = 0; i < runs; i++)
		values[i] = *(double *)((char *)&results[method][i] + offset);
	return ticks_median(values, runs);
}

static void row(const char *what, const char *which, size_t offset)
{
	double ours = median(0, offset);

	printf("%-13s %-23s %10.0f", what, which, ours);
	for (size_t m = 1; m < nmethods; m++) {
		double theirs = median(m, offset);

		printf(" %14.0f  (%5.2fx)", theirs, theirs / ours);
	}
	printf("\n");
}

static void print_table(void)
{
	printf("%-12s %-24s %10s", ticks_unit(), "a page, median (times)",
	       methods[0].name);
	for (size_t m = 1; m < nmethods; m++)
		printf(" %14s          ", methods[m].name);
	printf("\n");
	row("first touch", "untracked", offsetof(struct times, touch));
	for (enum pattern p = 0; p < NR_PATTERNS; p++)
		row("write fault", pattern_name[p],
		    offsetof(struct times, fault) + p * sizeof(double));
	for (enum pattern p = 0; p < NR_PATTERNS; p++)
		row("harvest", pattern_name[p],
		    offsetof(struct times, harvest) + p * sizeof(double));
	row("harvest", "nothing, a call", offsetof(struct times, quiet));
}

static unsigned long option(const char *name, const char *text,
			    unsigned long min, unsigned long max)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value < min || value > max) {
		fprintf(stderr, "bench_fault: %s must be from %lu to %lu\n",
			name, min, max);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	cpu_set_t cpus;
	int opt, fd;

	while ((opt = getopt(argc, argv, "n:r:")) != -1) {
		switch (opt) {
		case 'n':
			npages = option("PAGES", optarg, 64, 1 << 22);
			break;
		case 'r':
			runs = option("RUNS", optarg, 1, MAX_RUNS);
			break;
		default:
			fprintf(stderr, "usage: bench_fault [-n PAGES] [-r RUNS]\n");
			return 2;
		}
	}
	if (npages & (npages - 1)) {
		fprintf(stderr, "bench_fault: PAGES must be a power of two\n");
		return 2;
	}

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		die("sched_setaffinity");

	if (uffd_open(&fd)) {
		printf("# this kernel has no asynchronous userfaultfd write protection\n");
		nmethods = 2;
	} else {
		close(fd);
	}
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	bitmap = calloc(npages / 64, sizeof(*bitmap));
	regions = calloc(npages, sizeof(*regions));
	if (pagemap < 0 || !bitmap || !regions)
		die("setting up");
	memset(bitmap, 0xff, npages / 8);
	memset(regions, 0xff, npages * sizeof(*regions));

	/* One run unmeasured: code and page tables that only a first run needs. */
	for (unsigned int i = 0; i <= runs; i++)
		for (size_t m = 0; m < nmethods; m++)
			measure(&methods[m], &results[m][i ? i - 1 : 0]);

	printf("# %lu pages, %u runs\n", npages, runs);
	print_table();
	return 0;
}
