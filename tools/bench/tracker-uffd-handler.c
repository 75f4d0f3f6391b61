// SPDX-License-Identifier: GPL-2.0-only
/*
 * userfaultfd write protection with a thread that answers each fault, as
 * QEMU's background snapshot does.
 *
 *      handler                          harvest
 *      1. bit    -> 1                   1. bit      -> 0  (take)
 *      2. page   -> writable            2. page     -> protected
 *      3. bit    -> 1
 *
 * 1 is before the write can complete, so a harvest that begins after it has the
 * page.  If a harvest passes between 1 and 2, the page is left writable: 3 makes the
 * next one look at it, which waits for an answer that it finds begun.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "tracker.h"
#include "uffd_wp.h"

/**
 * struct handler - the thread
 * @thread: it
 * @end: eventfd that ends it
 * @dirty: bits that it sets
 * @answers: twice the number of faults that were answered, and one more while it does
 */
struct handler {
	pthread_t thread;
	int end;
	uint64_t *dirty;
	unsigned int answers;
};

static void write_protect(struct region *r, uint64_t first, uint64_t npages,
			  uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range.start = (uintptr_t)r->mem + first * DTRACK_PAGE_SIZE,
		.range.len = npages * DTRACK_PAGE_SIZE,
		.mode = mode,
	};

	if (ioctl(r->tracker_fd, UFFDIO_WRITEPROTECT, &wp))
		die("UFFDIO_WRITEPROTECT");
}

static void protect(struct region *r, uint64_t first, uint64_t npages)
{
	write_protect(r, first, npages, UFFDIO_WRITEPROTECT_MODE_WP);
}

static void mark(struct handler *h, uint64_t page)
{
	__atomic_fetch_or(&h->dirty[page / 64], 1ULL << page % 64, __ATOMIC_SEQ_CST);
}

static void count_answer(struct handler *h)
{
	__atomic_fetch_add(&h->answers, 1, __ATOMIC_SEQ_CST);
}

static void wait_for_answer(const struct handler *h)
{
	unsigned int answers = __atomic_load_n(&h->answers, __ATOMIC_SEQ_CST);

	while (answers % 2 && __atomic_load_n(&h->answers, __ATOMIC_SEQ_CST) == answers)
		sched_yield();
}

static void *handle(void *arg)
{
	struct region *r = arg;
	struct handler *h = r->private;
	struct pollfd fds[] = {
		{ .fd = r->tracker_fd, .events = POLLIN },
		{ .fd = h->end, .events = POLLIN },
	};
	struct uffd_msg msgs[16];

	/* Where the writer is, who sleeps meanwhile: waking another processor takes longer. */
	run_on(0);
	for (;;) {
		ssize_t size = read(r->tracker_fd, msgs, sizeof(msgs));

		if (size < 0 && errno == EAGAIN) {
			if (poll(fds, 2, -1) < 0)
				die("poll of a userfaultfd");
			if (fds[1].revents)
				return NULL;
			continue;
		}
		if (size < 0)
			die("read of a userfaultfd");
		for (size_t i = 0; i < size / sizeof(msgs[0]); i++) {
			uint64_t page = (msgs[i].arg.pagefault.address -
					 (uintptr_t)r->mem) / DTRACK_PAGE_SIZE;

			count_answer(h);
			mark(h, page);
			write_protect(r, page, 1, 0);
			mark(h, page);
			count_answer(h);
		}
	}
}

static int handler_fd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	/* Pages that are not there yet, from Linux 6.4 on. */
	api.features |= UFFD_FEATURE_WP_UNPOPULATED;
	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static const char *handler_missing(uint64_t npages)
{
	int fd = handler_fd();

	(void)npages;
	if (fd < 0)
		return "this kernel has no userfaultfd write protection of absent pages (6.4)";
	close(fd);
	return NULL;
}

static void handler_open(struct region *r)
{
	struct handler *h = calloc(1, sizeof(*h));

	if (!h)
		die("memory");
	memory_map_anonymous(r);
	taken_alloc(r);
	h->dirty = touched_alloc(dtrack_bitmap_words(r->npages) * sizeof(uint64_t));
	h->end = eventfd(0, EFD_CLOEXEC);
	if (h->end < 0)
		die("eventfd");
	r->private = h;
}

static void handler_start(struct region *r)
{
	struct handler *h = r->private;
	struct uffdio_register reg = {
		.range.start = (uintptr_t)r->mem,
		.range.len = r->npages * DTRACK_PAGE_SIZE,
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	r->tracker_fd = handler_fd();
	if (r->tracker_fd < 0 || ioctl(r->tracker_fd, UFFDIO_REGISTER, &reg))
		die("userfaultfd");
	protect(r, 0, r->npages);
	errno = pthread_create(&h->thread, NULL, handle, r);
	if (errno)
		die("pthread_create");
}

static void handler_harvest(struct region *r)
{
	struct handler *h = r->private;

	wait_for_answer(h);
	taken_collect(r, h->dirty, protect);
}

static void handler_close(struct region *r)
{
	struct handler *h = r->private;
	uint64_t one = 1;

	if (write(h->end, &one, sizeof(one)) != sizeof(one))
		die("eventfd");
	pthread_join(h->thread, NULL);
	close(h->end);
	close(r->tracker_fd);
	taken_free(r);
	free(h->dirty);
	free(h);
	memory_unmap(r);
}

const struct tracker tracker_uffd_handler = {
	.name = "uffd-handler",
	.what = "userfaultfd-WP, a thread answers each fault, anonymous memory",
	.writer = &cpu_writer,
	.missing = handler_missing,
	.open = handler_open,
	.start = handler_start,
	.harvest = handler_harvest,
	.report = taken_report,
	.close = handler_close,
};
