// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a harvest of little or nothing costs, from system call to return.
 *
 *     bench-harvest [ROUNDS]
 *
 * Slots are sparse: no page has memory but those that are written.  Printed is the
 * median of the rounds, and the least and the most.  In a machine started by
 * "tools/vm/run --icount" it is counted in instructions, and the median is the same
 * from run to run; elsewhere in nanoseconds.
 *
 * Beside it, for one dirty page in 64 GiB: the same page looked for in the log's
 * mapped bitmap by a walk of all its words, and the kernel's own way, asynchronous
 * write protection of userfaultfd read with PAGEMAP_SCAN (Linux 6.7): in memory with
 * one page table, and in a sixteenth of that memory with all page tables, which is how
 * memory looks that was in use or is protected beforehand.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/dirtytrack.h>

#include "../include/uffd_wp.h"
#include "../lib/dirtytrack.h"
#include "ticks.h"

#define PAGE_BYTES	(1UL << DIRTYTRACK_PAGE_SHIFT)
#define MAX_ROUNDS	999
#define MAX_SLOT	(1ULL << 40)
#define LARGE		(64ULL << 30)
/* A walk of a million page-table entries takes a second when emulated. */
#define POPULATED	(LARGE / 16)
#define SLOW_ROUNDS	5
/* What one page table maps. */
#define TABLE		(2ULL << 20)

static unsigned int rounds = 101;
static double times[MAX_ROUNDS];
static uint64_t *bitmap;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	int err = errno;
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "bench-harvest: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, ": %s\n", strerror(err));
	va_end(args);
	exit(1);
}

static double report(const char *what, unsigned int n)
{
	double median = ticks_median(times, n);

	printf("%-44s %12.0f %12.0f %12.0f\n", what, median, times[0], times[n - 1]);
	fflush(stdout);
	return median;
}

/* ---- slots ---- */

struct tracked {
	uint64_t npages;
	int slot;
	int log;
	char *mem;
};

static void open_slot(struct tracked *t, uint64_t bytes)
{
	struct dirtytrack_slot_create slot = { .size = sizeof(slot), .length = bytes };
	struct dirtytrack_log_create log = { .size = sizeof(log) };
	int dev = open(DIRTYTRACK_DEVICE, O_RDWR | O_CLOEXEC);

	if (dev < 0)
		die("open " DIRTYTRACK_DEVICE);
	if (ioctl(dev, DIRTYTRACK_SLOT_CREATE, &slot))
		die("SLOT_CREATE of %llu GiB", (unsigned long long)bytes >> 30);
	close(dev);
	if (ioctl(slot.out_fd, DIRTYTRACK_LOG_CREATE, &log))
		die("LOG_CREATE");
	t->npages = bytes / PAGE_BYTES;
	t->slot = slot.out_fd;
	t->log = log.out_fd;
	t->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		      t->slot, 0);
	if (t->mem == MAP_FAILED)
		die("mmap of a slot");
}

static void close_slot(struct tracked *t)
{
	munmap(t->mem, t->npages * PAGE_BYTES);
	close(t->log);
	close(t->slot);
}

/* One call that must find so many pages; of memory that is there to receive them. */
static double harvest(struct tracked *t, unsigned int flags, uint64_t expected)
{
	struct dirtytrack_harvest arg = {
		.size = sizeof(arg),
		.flags = flags,
		.npages = t->npages,
		.bitmap = (uintptr_t)bitmap,
	};
	double start = ticks_now(), time;
	int err = ioctl(t->log, DIRTYTRACK_LOG_HARVEST, &arg);

	time = ticks_now() - start;
	if (err)
		die("HARVEST");
	if (arg.out_next != t->npages || arg.out_dirty != expected) {
		fprintf(stderr, "bench-harvest: %llu pages of %llu, up to page %llu\n",
			arg.out_dirty, (unsigned long long)expected, arg.out_next);
		exit(1);
	}
	return time;
}

static void touch(struct tracked *t, uint64_t page)
{
	*(volatile char *)(t->mem + page * PAGE_BYTES) += 1;
}

static double median_no_call(struct tracked *t)
{
	unsigned int i;

	for (i = 0; i < rounds; i++) {
		double start = ticks_now();

		if (!ioctl(t->log, _IO(DIRTYTRACK_TYPE, 0xff)) || errno != ENOTTY)
			die("an ioctl that does not exist");
		times[i] = ticks_now() - start;
	}
	return report("an ioctl number that does not exist", rounds);
}

static void idle(void)
{
	struct tracked t;
	unsigned int i;
	uint64_t gib;
	char what[64];

	for (gib = 1; gib <= MAX_SLOT >> 30; gib *= 4) {
		open_slot(&t, gib << 30);
		if (gib == 1)
			median_no_call(&t);
		harvest(&t, 0, 0);
		for (i = 0; i < rounds; i++)
			times[i] = harvest(&t, 0, 0);
		snprintf(what, sizeof(what), "harvest of an idle slot, %llu GiB",
			 (unsigned long long)gib);
		report(what, rounds);
		close_slot(&t);
	}
}

/* ---- one page in 64 GiB ---- */

/* Somewhere else each time, so that nothing is in place from the last. */
static uint64_t page_of(unsigned int i, uint64_t npages)
{
	return (i + 1) * 2654435761ULL % npages;
}

static double one_page(unsigned int flags, const char *what)
{
	double median;
	struct tracked t;
	unsigned int i;

	open_slot(&t, LARGE);
	for (i = 0; i < rounds; i++) {
		touch(&t, page_of(i, t.npages));
		times[i] = harvest(&t, flags, 1);
		/* The mapped bitmap is not looked at here: take it, too. */
		if (flags)
			harvest(&t, 0, 1);
	}
	median = report(what, rounds);
	close_slot(&t);
	return median;
}

static double scan_bitmap(void)
{
	struct dirtytrack_log_info info = { .size = sizeof(info) };
	uint64_t *mapped, page, found, count;
	struct tracked t;
	double median;
	unsigned int i;

	open_slot(&t, LARGE);
	if (ioctl(t.log, DIRTYTRACK_LOG_INFO, &info))
		die("LOG_INFO");
	mapped = mmap(NULL, info.out_bitmap_size, PROT_READ, MAP_SHARED | MAP_POPULATE,
		      t.log, info.out_bitmap_offset);
	if (mapped == MAP_FAILED)
		die("mmap of a log");
	for (i = 0; i < rounds; i++) {
		double start;

		page = page_of(i, t.npages);
		touch(&t, page);
		harvest(&t, DIRTYTRACK_HARVEST_PEEK, 1);
		start = ticks_now();
		found = 0;
		dtrack_for_each_run(found, count, mapped, t.npages)
			if (found == page)
				page = UINT64_MAX;
		times[i] = ticks_now() - start;
		if (page != UINT64_MAX) {
			fprintf(stderr, "bench-harvest: the bitmap lacks a page\n");
			exit(1);
		}
		harvest(&t, 0, 1);
	}
	median = report("walk of the mapped bitmap, without the peek", rounds);
	munmap(mapped, info.out_bitmap_size);
	close_slot(&t);
	return median;
}

/* ---- userfaultfd and PAGEMAP_SCAN ---- */

/* @first: what else was mapped with the page is reported, too, but once. */
static double pagemap_scan(int pagemap, char *mem, uint64_t bytes, bool first)
{
	struct page_region regions[4];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)mem,
		.end = (uintptr_t)mem + bytes,
		.vec = (uintptr_t)regions,
		.vec_len = 4,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	double start = ticks_now(), time;
	int n = ioctl(pagemap, PAGEMAP_SCAN, &arg);

	time = ticks_now() - start;
	if (n < 0)
		die("PAGEMAP_SCAN");
	if (first)
		return time;
	if (n != 1 || arg.walk_end != arg.end ||
	    regions[0].end - regions[0].start != PAGE_BYTES) {
		fprintf(stderr, "bench-harvest: PAGEMAP_SCAN: %d regions\n", n);
		exit(1);
	}
	return time;
}

/*
 * All pages written are those of one page table, so that it is the only one unless the
 * memory is write-protected @beforehand.  0 if this kernel cannot.
 */
static double one_page_uffd(uint64_t bytes, bool beforehand, unsigned int n,
			    const char *what)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register reg = {
		.range.len = bytes,
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.range.len = bytes,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int uffd, memfd, pagemap;
	double median = 0;
	unsigned int i;
	char *room, *mem;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		return 0;
	if (ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		return 0;
	}
	memfd = memfd_create("bench-harvest", MFD_CLOEXEC);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (memfd < 0 || pagemap < 0 || ftruncate(memfd, bytes))
		die("memfd, pagemap");
	/* From where a page table begins. */
	room = mmap(NULL, bytes + TABLE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (room == MAP_FAILED)
		die("mmap");
	mem = room + (-(uintptr_t)room & (TABLE - 1));
	if (mmap(mem, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
		 memfd, 0) == MAP_FAILED)
		die("mmap of a memfd");
	reg.range.start = wp.range.start = (uintptr_t)mem;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER");
	if (beforehand && ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
		die("UFFDIO_WRITEPROTECT");
	*(volatile char *)mem += 1;
	pagemap_scan(pagemap, mem, bytes, true);
	for (i = 0; i < n; i++) {
		*(volatile char *)(mem + page_of(i, 512) * PAGE_BYTES) += 1;
		times[i] = pagemap_scan(pagemap, mem, bytes, false);
	}
	median = report(what, n);
	munmap(room, bytes + TABLE);
	close(memfd);
	close(pagemap);
	close(uffd);
	return median;
}

static void compared(const char *what, double theirs, double ours)
{
	if (theirs)
		printf("# %s: %.1f times the harvest\n", what, theirs / ours);
	else
		printf("# %s: not on this kernel\n", what);
}

int main(int argc, char **argv)
{
	double ours, peek, walk, sparse, full;

	if (argc > 1)
		rounds = atoi(argv[1]);
	if (argc > 2 || rounds < SLOW_ROUNDS || rounds > MAX_ROUNDS) {
		fprintf(stderr, "usage: bench-harvest [ROUNDS]	(%d to %d)\n",
			SLOW_ROUNDS, MAX_ROUNDS);
		return 2;
	}
	bitmap = dtrack_bitmap_alloc(MAX_SLOT / PAGE_BYTES);
	if (!bitmap)
		die("no memory");
	/* What is used of it is there before anything is measured. */
	dtrack_bitmap_set(bitmap, 0, LARGE / PAGE_BYTES);
	dtrack_bitmap_clear(bitmap, 0, LARGE / PAGE_BYTES);

	printf("%-44s %12s %12s %12s\n", ticks_unit(), "median", "least", "most");
	idle();
	printf("# one dirty page in a sparse 64 GiB\n");
	ours = one_page(0, "harvest");
	peek = one_page(DIRTYTRACK_HARVEST_PEEK, "peek");
	walk = scan_bitmap();
	sparse = one_page_uffd(LARGE, false, rounds, "PAGEMAP_SCAN, one page table");
	full = one_page_uffd(POPULATED, true, SLOW_ROUNDS,
			     "PAGEMAP_SCAN, 4 GiB, all page tables");
	compared("peek", peek, ours);
	compared("walk of the bitmap", walk, ours);
	compared("PAGEMAP_SCAN, one page table", sparse, ours);
	compared("PAGEMAP_SCAN, 4 GiB, all page tables", full, ours);
	free(bitmap);
	return 0;
}
