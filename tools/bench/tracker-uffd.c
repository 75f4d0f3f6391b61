// SPDX-License-Identifier: GPL-2.0-only
/*
 * userfaultfd write protection that the kernel resolves by itself, read and renewed
 * by PAGEMAP_SCAN: the fastest that a stock kernel (6.7) has for a process.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "tracker.h"
#include "uffd_wp.h"

/**
 * struct scan - what PAGEMAP_SCAN answered
 * @pagemap: /proc/self/pagemap
 * @found: runs of pages
 * @room: how many fit
 * @nr: how many there are
 */
struct scan {
	int pagemap;
	struct page_region *found;
	uint64_t room;
	int nr;
};

/* In so many runs a harvest of sparse memory cannot come. */
#define MAX_FOUND (1ULL << 20)

/* The fd, or -1 with errno. */
static int async_open(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static const char *uffd_missing(uint64_t npages)
{
	int fd = async_open();

	(void)npages;
	if (fd < 0)
		return "this kernel has no asynchronous userfaultfd write protection (6.7)";
	close(fd);
	return NULL;
}

static void uffd_prepare(struct region *r)
{
	struct scan *s = calloc(1, sizeof(*s));

	if (!s)
		die("memory");
	/* No two runs touch, but where one page table ends. */
	s->room = r->npages / 2 + r->npages / 512 + 2;
	if (s->room > MAX_FOUND)
		s->room = MAX_FOUND;
	s->found = touched_alloc(s->room * sizeof(*s->found));
	s->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (s->pagemap < 0)
		die("/proc/self/pagemap");
	r->private = s;
	r->tracker_fd = -1;
}

static void uffd_open_anonymous(struct region *r)
{
	memory_map_anonymous(r);
	uffd_prepare(r);
}

static void uffd_open_memfd(struct region *r)
{
	memory_map_memfd(r);
	uffd_prepare(r);
}

static void uffd_harvest(struct region *r)
{
	struct scan *s = r->private;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)r->mem,
		.end = (uintptr_t)r->mem + r->npages * DTRACK_PAGE_SIZE,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};

	/* It may stop early, and says where. */
	while (arg.start < arg.end) {
		int nr;

		arg.vec = (uintptr_t)(s->found + s->nr);
		arg.vec_len = s->room - s->nr;
		arg.walk_end = 0;
		nr = ioctl(s->pagemap, PAGEMAP_SCAN, &arg);
		if (nr < 0)
			die("PAGEMAP_SCAN");
		if (arg.walk_end <= arg.start)
			quit(EXIT_TROUBLE, "PAGEMAP_SCAN stopped after %d of %llu runs", s->nr,
			     (unsigned long long)s->room);
		s->nr += nr;
		arg.start = arg.walk_end;
	}
}

static void uffd_report(struct region *r, uint64_t *bitmap)
{
	struct scan *s = r->private;

	for (int i = 0; i < s->nr; i++)
		dtrack_bitmap_set(bitmap,
				  (s->found[i].start - (uintptr_t)r->mem) / DTRACK_PAGE_SIZE,
				  (s->found[i].end - s->found[i].start) / DTRACK_PAGE_SIZE);
	s->nr = 0;
}

static void uffd_start(struct region *r)
{
	struct uffdio_register reg = {
		.range.start = (uintptr_t)r->mem,
		.range.len = r->npages * DTRACK_PAGE_SIZE,
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	r->tracker_fd = async_open();
	if (r->tracker_fd < 0 || ioctl(r->tracker_fd, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	uffd_harvest(r);
	((struct scan *)r->private)->nr = 0;
}

static void uffd_close(struct region *r)
{
	struct scan *s = r->private;

	close(r->tracker_fd);
	close(s->pagemap);
	free(s->found);
	free(s);
	memory_unmap(r);
}

#define UFFD_TRACKER			\
	.writer = &cpu_writer,		\
	.missing = uffd_missing,	\
	.start = uffd_start,		\
	.harvest = uffd_harvest,	\
	.report = uffd_report,		\
	.close = uffd_close

const struct tracker tracker_uffd_anon = {
	.name = "uffd-async-anon",
	.what = "userfaultfd-WP async and PAGEMAP_SCAN, anonymous memory",
	.open = uffd_open_anonymous,
	UFFD_TRACKER,
};

const struct tracker tracker_uffd_memfd = {
	.name = "uffd-async-memfd",
	.what = "userfaultfd-WP async and PAGEMAP_SCAN, memfd",
	.open = uffd_open_memfd,
	UFFD_TRACKER,
};
