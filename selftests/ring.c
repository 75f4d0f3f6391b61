// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rings: what is in them, poll(), who may write where, and consumers of every kind
 *
 * That a consumer of a ring loses nothing while everything races is asked in races.c
 * (races.ring*), by the oracle of all consumers; that each way of writing is named by
 * a ring, in every test that uses tracked.h.
 */
#include "tracked.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define NPAGES	1024UL
#define MIN	DIRTYTRACK_RING_MIN_ENTRIES

static __u64 next_random(__u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

FIXTURE(ring) {
	int slot;
	char *mem;
	struct ring r;
	__u64 *got;
};

FIXTURE_SETUP(ring)
{
	self->slot = test_new_slot(NPAGES);
	self->mem = test_map(self->slot, 0, NPAGES);
	self->got = bitmap_alloc(NPAGES);
	ring_open(&self->r, self->slot, MIN);
}

FIXTURE_TEARDOWN(ring)
{
	ring_close(&self->r);
	free(self->got);
	test_unmap(self->mem, NPAGES);
	close(self->slot);
}

/* The consumer is up to date: nothing to read, all pages clean. */
static void catch_up(struct ring *r)
{
	__u64 *got = bitmap_alloc(NPAGES);

	do {
		if (_ring_take(r, got))
			dt_broken("a turn of the consumer: %s", strerror(errno));
	} while (ring_head(r) != r->control->tail ||
		 ring_overflows(r) != r->control->seen);
	if (_test_harvest_all(r->log, 0, 0, NPAGES, got, 0, NULL))
		dt_broken("HARVEST: %s", strerror(errno));
	free(got);
}

/* ---- entries ---- */

TEST_F(ring, fields)
{
	struct dirtytrack_info info;
	struct dirtytrack_log_info log;
	int dev = test_device();

	test_info(dev, &info);
	EXPECT_TRUE(info.out_features & DIRTYTRACK_FEATURE_RING);
	for (__u32 nr = MIN; nr && nr <= info.out_max_ring_entries; nr *= 4) {
		struct ring r;

		ring_open(&r, self->slot, nr);
		test_log_info(r.log, &log);
		EXPECT_EQ(((nr * 8 + 4095) & -4096) + 4096, log.out_ring_size);
		EXPECT_EQ(log.out_summary_offset + log.out_summary_size,
			  log.out_ring_offset);
		EXPECT_EQ(log.out_ring_offset + log.out_ring_size,
			  log.out_control_offset);
		EXPECT_EQ(PAGE_SIZE, log.out_control_size);
		EXPECT_EQ(0, log.out_overflows);
		EXPECT_EQ(0, r.shared->head);
		EXPECT_EQ(1, r.shared->overflows);
		EXPECT_EQ(nr, r.shared->entries);
		EXPECT_EQ(0, r.shared->reserved);
		EXPECT_TRUE(bytes_are(r.shared + 1, 0, r.size - sizeof(*r.shared)));
		EXPECT_TRUE(bytes_are(r.control, 0, PAGE_SIZE));
		ring_close(&r);
	}
	close(dev);
}

#define expect_entries(r, from, ...) do {				\
	const __u64 __want[] = { __VA_ARGS__ };				\
									\
	EXPECT_EQ((from) + ARRAY_SIZE(__want), ring_head(r));		\
	for (size_t __i = 0; __i < ARRAY_SIZE(__want); __i++) {		\
		EXPECT_EQ(__want[__i], ring_entry(r, (from) + __i)) {	\
			TH_LOG("entry %zu", __i);			\
		}							\
	}								\
} while (0)

TEST_F(ring, names_pages_in_order)
{
	struct dirtytrack_range merge = { 300, 1 };
	struct dirtytrack_ranges done;
	struct ring *r = &self->r;
	int other = test_log_create(self->slot, 0);

	page_write(self->mem, 7, 1);
	page_write(self->mem, 3, 1);
	page_write(self->mem, NPAGES - 1, 1);
	expect_entries(r, 0, 7, 3, NPAGES - 1);

	/* It is writable: there is no fault that could say so again. */
	page_write(self->mem, 3, 2);
	/* No write. */
	page_read(self->mem, 50);
	ASSERT_EQ(0, fallocate(self->slot, 0, 60 * PAGE_SIZE, PAGE_SIZE));
	ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       100 * PAGE_SIZE, PAGE_SIZE));
	ASSERT_EQ(0, _test_ranges(r->log, DIRTYTRACK_LOG_MERGE_RANGES, &merge, 1, &done));
	expect_entries(r, 0, 7, 3, NPAGES - 1);

	page_write(self->mem, 50, 1);
	ASSERT_EQ(1, pwrite(self->slot, "", 1, 5 * PAGE_SIZE));
	/* The kernel says so each time. */
	ASSERT_EQ(1, pwrite(self->slot, "", 1, 3 * PAGE_SIZE));
	ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       7 * PAGE_SIZE, PAGE_SIZE));
	/* A part of a page is zeroed. */
	ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       60 * PAGE_SIZE + 100, 200));
	expect_entries(r, 3, 50, 5, 3, 7, 60);

	/* Clean again by its own CLEAR, by its own HARVEST, or by another's. */
	merge.first = 3;
	ASSERT_EQ(0, _test_ranges(r->log, DIRTYTRACK_LOG_CLEAR_RANGES, &merge, 1, &done));
	page_write(self->mem, 3, 3);
	test_harvest_all(r->log, 0, 0, NPAGES, self->got, 0);
	page_write(self->mem, 3, 4);
	test_harvest_all(other, 0, 0, NPAGES, self->got, 0);
	page_write(self->mem, 3, 5);
	expect_entries(r, 8, 3, 3, 3);
	EXPECT_EQ(1, ring_overflows(r));
	close(other);
}

/* What lies beside the page that faulted may be written without a fault: not here. */
TEST_F(ring, names_only_what_is_written)
{
	struct ring *r = &self->r;
	__u64 head;

	for (int i = 0; i < 3; i++) {
		for (__u64 n = 64; n < 128; n++)
			page_write(self->mem, n, i);
		catch_up(r);
	}
	head = ring_head(r);
	page_write(self->mem, 70, 7);
	page_write(self->mem, 72, 7);
	page_write(self->mem, 71, 7);
	expect_entries(r, head, 70, 72, 71);
}

/* Each ring has every page, from when its log is there. */
TEST_F(ring, every_ring_of_the_slot)
{
	struct ring second, third;

	ring_open(&second, self->slot, 4 * MIN);
	page_write(self->mem, 1, 1);
	ring_open(&third, self->slot, MIN);
	page_write(self->mem, 2, 1);
	ring_close(&second);
	page_write(self->mem, 3, 1);
	/* What was writable when a clean log started was collected for it. */
	page_write(self->mem, 1, 2);
	expect_entries(&self->r, 0, 1, 2, 3, 1);
	expect_entries(&third, 0, 2, 3, 1);
	ring_close(&third);
}

/* Indices run on, and the array's ends meet. */
TEST_F(ring, goes_round)
{
	struct ring *r = &self->r;
	__u64 head = 0;

	catch_up(r);
	for (int round = 0; round < 10; round++) {
		for (int i = 0; i < 50; i++)
			page_write(self->mem, round * 50 + i, 1);
		ASSERT_EQ(head + 50, ring_head(r));
		for (int i = 0; i < 50; i++)
			ASSERT_EQ(round * 50 + i, ring_entry(r, head + i));
		head += 50;
		ring_set_tail(r, head);
	}
	EXPECT_EQ(1, ring_overflows(r));
	EXPECT_EQ(MIN, r->shared->entries);
}

TEST_F(ring, overflow)
{
	struct dirtytrack_log_info info;
	struct ring *r = &self->r;

	catch_up(r);
	for (__u64 n = 0; n < MIN; n++)
		page_write(self->mem, n, 1);
	EXPECT_EQ(MIN, ring_head(r));
	EXPECT_EQ(1, ring_overflows(r));
	page_write(self->mem, 500, 1);
	page_write(self->mem, 501, 1);
	EXPECT_EQ(MIN, ring_head(r));
	EXPECT_EQ(3, ring_overflows(r));
	for (__u64 n = 0; n < MIN; n++)
		EXPECT_EQ(n, ring_entry(r, n));
	test_log_info(r->log, &info);
	EXPECT_EQ(2, info.out_overflows);

	/* One is read: there is room for one, and the fallback is still due. */
	ring_set_tail(r, 1);
	page_write(self->mem, 502, 1);
	page_write(self->mem, 503, 1);
	EXPECT_EQ(MIN + 1, ring_head(r));
	EXPECT_EQ(502, ring_entry(r, MIN));
	EXPECT_EQ(4, ring_overflows(r));

	/* The bitmap is the truth, and has them all. */
	ASSERT_EQ(0, _ring_take(r, self->got));
	EXPECT_EQ(2, r->harvests);
	EXPECT_EQ(MIN + 4, bits_count(self->got, NPAGES));
	EXPECT_FALSE(ring_ready(r));
	page_write(self->mem, 504, 1);
	EXPECT_EQ(504, ring_entry(r, MIN + 1));
	EXPECT_EQ(4, ring_overflows(r));
}

/* ---- who may do what with the mappings ---- */

#define EXPECT_NO_MAP(err, prot, flags, size, offset) do {		\
	void *__p;							\
									\
	errno = 0;							\
	__p = mmap(NULL, size, prot, flags, self->r.log, offset);	\
	EXPECT_EQ(MAP_FAILED, __p) {					\
		TH_LOG("prot %#x, flags %#x, %llu at %#llx", prot, flags, \
		       (__u64)(size), (__u64)(offset));			\
	}								\
	EXPECT_EQ(err, errno);						\
} while (0)

TEST_F(ring, only_the_control_page_is_writable)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct dirtytrack_log_info info;
	__u64 ones = ~0ULL;
	char *all, *control;
	size_t size;
	int mem;

	test_log_info(self->r.log, &info);
	size = info.out_control_offset + PAGE_SIZE;
	for (__u64 at = 0; at < info.out_control_offset; at += PAGE_SIZE) {
		EXPECT_NO_MAP(EPERM, rw, MAP_SHARED, PAGE_SIZE, at);
		EXPECT_NO_MAP(EPERM, PROT_WRITE, MAP_SHARED, PAGE_SIZE, at);
		EXPECT_NO_MAP(EPERM, rw, MAP_SHARED, size - at, at);
	}
	/* The page, and one more on either side. */
	EXPECT_NO_MAP(EPERM, rw, MAP_SHARED, 2 * PAGE_SIZE,
		      info.out_control_offset - PAGE_SIZE);
	EXPECT_NO_MAP(EPERM, rw, MAP_SHARED, 2 * PAGE_SIZE, info.out_control_offset);
	EXPECT_NO_MAP(EPERM, rw, MAP_SHARED, PAGE_SIZE, size);
	EXPECT_NO_MAP(EPERM, rw, MAP_SHARED, PAGE_SIZE, 1ULL << 40);
	for (__u64 at = info.out_ring_offset; at < size; at += PAGE_SIZE) {
		EXPECT_NO_MAP(EINVAL, rw, MAP_PRIVATE, PAGE_SIZE, at);
		EXPECT_NO_MAP(EINVAL, PROT_READ, MAP_PRIVATE, PAGE_SIZE, at);
	}

	/* Not later either, nor by a debugger. */
	EXPECT_ERRNO(EACCES, mprotect((void *)self->r.shared, self->r.size, rw));
	EXPECT_ERRNO(EACCES, mprotect((void *)self->r.shared, PAGE_SIZE, PROT_WRITE));
	all = mmap(NULL, size, PROT_READ, MAP_SHARED, self->r.log, 0);
	ASSERT_NE(MAP_FAILED, (void *)all);
	for (__u64 at = 0; at < size; at += PAGE_SIZE)
		EXPECT_ERRNO(EACCES, mprotect(all + at, PAGE_SIZE, rw));
	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, mem);
	EXPECT_EQ(-1, pwrite(mem, &ones, sizeof(ones), (uintptr_t)self->r.shared));
	EXPECT_EQ(-1, pwrite(mem, &ones, sizeof(ones), (uintptr_t)self->r.entries));
	EXPECT_EQ(-1, pwrite(mem, &ones, sizeof(ones),
			     (uintptr_t)(all + info.out_control_offset)));
	close(mem);
	EXPECT_EQ(0, self->r.shared->head);

	/* The page itself may be mapped for reading, and made writable. */
	control = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, self->r.log,
		       info.out_control_offset);
	ASSERT_NE(MAP_FAILED, (void *)control);
	EXPECT_EQ(0, mprotect(control, PAGE_SIZE, rw));
	*(volatile __u64 *)control = 77;
	EXPECT_EQ(77, self->r.control->tail);
	EXPECT_EQ(77, *(volatile __u64 *)(all + info.out_control_offset));
	/* Nor does a writable mapping grow, or become one of other pages. */
	EXPECT_EQ(MAP_FAILED, mremap(control, PAGE_SIZE, 2 * PAGE_SIZE, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(control, 0, 2 * PAGE_SIZE, MREMAP_MAYMOVE));
	EXPECT_EQ(-1, syscall(SYS_remap_file_pages, control, PAGE_SIZE, 0,
			      info.out_ring_offset / PAGE_SIZE, 0));
	munmap(control, PAGE_SIZE);
	munmap(all, size);
}

static sigjmp_buf bus_env;

static void on_bus(int sig)
{
	siglongjmp(bus_env, sig);
}

static bool can_read(const volatile char *p)
{
	struct sigaction action = { .sa_handler = on_bus };
	volatile bool read = false;

	sigaction(SIGBUS, &action, NULL);
	if (!sigsetjmp(bus_env, 1)) {
		(void)*p;
		read = true;
	}
	return read;
}

TEST_F(ring, log_without_one)
{
	int log = test_log_create(self->slot, 0), ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN };
	struct pollfd fd = { .fd = log, .events = POLLIN };
	struct timeval no_time = { .tv_sec = 0 };
	struct dirtytrack_log_info info;
	fd_set set;
	__u64 end;
	char *p;

	test_log_info(log, &info);
	EXPECT_EQ(0, info.out_ring_offset);
	EXPECT_EQ(0, info.out_ring_size);
	EXPECT_EQ(0, info.out_control_offset);
	EXPECT_EQ(0, info.out_control_size);
	EXPECT_EQ(0, info.out_overflows);

	EXPECT_EQ(1, poll(&fd, 1, -1));
	EXPECT_EQ(POLLERR, fd.revents);
	FD_ZERO(&set);
	FD_SET(log, &set);
	EXPECT_EQ(1, select(log + 1, &set, NULL, NULL, &no_time));
	EXPECT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, log, &event));
	EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
	EXPECT_EQ(EPOLLERR, event.events);

	/* Where a ring and its page would be. */
	end = info.out_summary_offset + info.out_summary_size;
	p = mmap(NULL, 4 * PAGE_SIZE, PROT_READ, MAP_SHARED, log, end - PAGE_SIZE);
	ASSERT_NE(MAP_FAILED, (void *)p);
	EXPECT_TRUE(can_read(p));
	for (int i = 1; i < 4; i++) {
		EXPECT_FALSE(can_read(page_at(p, i)));
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
					   MAP_SHARED, log, end + (i - 1) * PAGE_SIZE));
	}
	munmap(p, 4 * PAGE_SIZE);
	close(ep);
	close(log);
}

/* The mappings are of what the kernel has, whatever is done to their addresses. */
TEST_F(ring, mappings_move_and_are_inherited)
{
	struct ring *r = &self->r;
	void *moved;

	catch_up(r);
	page_write(self->mem, 1, 1);
	ring_set_tail(r, 1);
	ASSERT_EQ(0, madvise((void *)r->shared, r->size, MADV_DONTNEED));
	ASSERT_EQ(0, madvise(r->control, PAGE_SIZE, MADV_DONTNEED));
	EXPECT_EQ(1, ring_head(r));
	EXPECT_EQ(1, ring_entry(r, 0));
	EXPECT_EQ(1, r->control->tail);

	moved = mmap(NULL, r->size + PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	ASSERT_NE(MAP_FAILED, moved);
	r->shared = mremap((void *)r->shared, r->size, r->size,
			   MREMAP_MAYMOVE | MREMAP_FIXED, moved);
	ASSERT_EQ(moved, (void *)r->shared);
	r->entries = moved + DIRTYTRACK_RING_ENTRIES_OFFSET;
	r->control = mremap(r->control, PAGE_SIZE, PAGE_SIZE,
			    MREMAP_MAYMOVE | MREMAP_FIXED, moved + r->size);
	ASSERT_EQ(moved + r->size, (void *)r->control);
	page_write(self->mem, 2, 1);
	EXPECT_EQ(2, ring_head(r));
	EXPECT_EQ(2, ring_entry(r, 1));
	EXPECT_ERRNO(EACCES, mprotect((void *)r->shared, PAGE_SIZE, PROT_WRITE));

	/* A child is the same consumer. */
	in_child(
		page_write(self->mem, 3, 1);
		if (ring_head(r) != 3 || ring_entry(r, 2) != 3 || r->control->tail != 1 ||
		    !mprotect((void *)r->shared, PAGE_SIZE, PROT_WRITE))
			_exit(1);
		ring_set_tail(r, 3);
	);
	EXPECT_EQ(3, ring_head(r));
	EXPECT_EQ(3, r->control->tail);
	for (__u64 n = 0; n < MIN; n++)
		page_write(self->mem, 10 + n, 1);
	EXPECT_EQ(MIN + 3, ring_head(r));
	EXPECT_EQ(1, ring_overflows(r));
}

static __u32 logs_of(int slot)
{
	struct dirtytrack_slot_info info;

	if (_test_slot_info(slot, &info))
		dt_broken("SLOT_INFO: %s", strerror(errno));
	return info.out_logs;
}

/* The log lives as long as one of fd, ring, control page; its ring works till then. */
TEST_F(ring, ends_with_the_last_of_fd_and_mappings)
{
	static const int orders[6][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	__u32 before = logs_of(self->slot);
	__u64 page = 0;

	for (int i = 0; i < 6; i++) {
		struct ring r;
		bool mapped = true;

		ring_open(&r, self->slot, MIN);
		for (int k = 0; k < 3; k++) {
			EXPECT_EQ(before + 1, logs_of(self->slot));
			switch (orders[i][k]) {
			case 0:
				close(r.log);
				break;
			case 1:
				munmap((void *)r.shared, r.size);
				mapped = false;
				break;
			case 2:
				munmap(r.control, PAGE_SIZE);
				break;
			}
			page_write(self->mem, page++, 1);
			if (mapped) {
				EXPECT_EQ(k + 1, ring_head(&r));
				EXPECT_EQ(page - 1, ring_entry(&r, k));
			}
			if (k == 2)
				break;
		}
		free(r.ranges);
		EXPECT_EQ(before, logs_of(self->slot));
	}
}

/* ---- poll() and its relatives ---- */

static bool readable_by_poll(int log)
{
	struct pollfd fd = { .fd = log, .events = POLLIN | POLLRDNORM | POLLPRI | POLLOUT };

	if (poll(&fd, 1, 0) < 0 || (fd.revents && fd.revents != (POLLIN | POLLRDNORM)))
		dt_broken("poll: %#x, %s", fd.revents, strerror(errno));
	return fd.revents;
}

static bool readable_by_select(int log)
{
	struct timeval no_time = { .tv_sec = 0 };
	fd_set in, out, except;

	FD_ZERO(&in);
	FD_SET(log, &in);
	out = except = in;
	if (select(log + 1, &in, &out, &except, &no_time) < 0 ||
	    FD_ISSET(log, &out) || FD_ISSET(log, &except))
		dt_broken("select: %s", strerror(errno));
	return FD_ISSET(log, &in);
}

static bool readable_by_epoll(int log)
{
	struct epoll_event event = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), n;

	if (epoll_ctl(ep, EPOLL_CTL_ADD, log, &event))
		dt_broken("EPOLL_CTL_ADD: %s", strerror(errno));
	n = epoll_wait(ep, &event, 1, 0);
	close(ep);
	return n == 1;
}

#define expect_readable(want, r) do {					\
	EXPECT_EQ(want, ring_ready(r));					\
	EXPECT_EQ(want, readable_by_poll((r)->log));			\
	EXPECT_EQ(want, readable_by_select((r)->log));			\
	EXPECT_EQ(want, readable_by_epoll((r)->log));			\
} while (0)

TEST_F(ring, readable_from_the_watermark_on)
{
	static const struct { __u32 set, is; } marks[] = {
		{ 0, 1 }, { 1, 1 }, { 2, 2 }, { 3, 3 }, { MIN - 1, MIN - 1 }, { MIN, MIN },
		{ MIN + 1, MIN }, { 1U << 31, MIN }, { ~0U, MIN },
	};
	struct ring *r = &self->r;

	/* What was before the ring is an overflow that the consumer has not seen. */
	expect_readable(true, r);
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		r->control->watermark = marks[i].set;
		catch_up(r);
		expect_readable(false, r);
		for (__u32 k = 0; k < marks[i].is - 1; k++)
			page_write(self->mem, k, 1);
		expect_readable(false, r);
		page_write(self->mem, marks[i].is, 1);
		expect_readable(true, r);
		/* It is a state, not an event: it can be asked twice, and changed. */
		expect_readable(true, r);
		ring_set_tail(r, r->control->tail + 1);
		expect_readable(false, r);
	}
}

TEST_F(ring, readable_by_overflow)
{
	struct ring *r = &self->r;

	r->control->watermark = MIN;
	catch_up(r);
	expect_readable(false, r);
	r->control->seen++;
	expect_readable(true, r);
	r->control->seen--;
	for (__u32 k = 0; k < MIN + 1; k++)
		page_write(self->mem, k, 1);
	ring_set_tail(r, ring_head(r));
	expect_readable(true, r);
	r->control->seen = ring_overflows(r);
	expect_readable(false, r);
}

/* A thread that polls until something is there, and can be watched. */
struct sleeper {
	int log;
	_Atomic pid_t tid;
	_Atomic int woken;	/* by what poll() returned */
	pthread_t thread;
};

static void *sleeper_run(void *arg)
{
	struct sleeper *s = arg;
	struct pollfd fd = { .fd = s->log, .events = POLLIN };

	s->tid = gettid();
	s->woken = poll(&fd, 1, -1) == 1 && fd.revents == POLLIN ? 1 : -1;
	return NULL;
}

/* A file of a thread of this process. */
static FILE *thread_file(pid_t tid, const char *name)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", tid, name);
	f = fopen(path, "re");
	if (!f)
		dt_broken("%s: %s", path, strerror(errno));
	return f;
}

/* How often a thread went to sleep. */
static __u64 thread_switches(pid_t tid)
{
	static const char field[] = "voluntary_ctxt_switches:";
	FILE *f = thread_file(tid, "status");
	__u64 value = UINT64_MAX;
	char line[256];

	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			value = strtoull(line + strlen(field), NULL, 10);
	fclose(f);
	if (value == UINT64_MAX)
		dt_broken("a thread has no %s", field);
	return value;
}

/* Does a thread sleep in poll()?  The kernel waits for one that is just about to. */
static bool thread_polls(pid_t tid)
{
	FILE *f = thread_file(tid, "syscall");
	char line[256] = "";
	char *end;
	bool polls;

	polls = fgets(line, sizeof(line), f) &&
		strtol(line, &end, 10) == SYS_poll && *end == ' ';
	fclose(f);
	return polls;
}

static bool wait_for(_Atomic int *word, double seconds)
{
	for (double end = now() + seconds; !*word && now() < end; )
		usleep(1000);
	return *word;
}

static void sleeper_start(struct sleeper *s, int log)
{
	*s = (struct sleeper){ .log = log };
	if (pthread_create(&s->thread, NULL, sleeper_run, s))
		dt_broken("no thread");
	while (!s->tid || !thread_polls(s->tid))
		usleep(1000);
}

/* A sleeper sleeps on below the watermark: his thread does not even run. */
TEST_F(ring, sleeper_is_woken_at_the_watermark)
{
	struct ring *r = &self->r;
	struct sleeper s;
	__u64 switches;

	for (int i = 0; i < 3; i++) {
		r->control->watermark = 20;
		catch_up(r);
		sleeper_start(&s, r->log);
		switches = thread_switches(s.tid);
		for (int k = 0; k < 19; k++) {
			page_write(self->mem, k, 1);
			usleep(1000);
		}
		usleep(20000);
		EXPECT_EQ(switches, thread_switches(s.tid)) {
			TH_LOG("the sleeper ran, below the watermark");
		}
		EXPECT_EQ(0, s.woken);
		/* A write, the kernel's, a release: each wakes. */
		if (i == 0) {
			page_write(self->mem, 19, 1);
		} else if (i == 1) {
			ASSERT_EQ(1, pwrite(self->slot, "", 1, 100 * PAGE_SIZE));
		} else {
			ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE, 0, PAGE_SIZE));
		}
		EXPECT_TRUE(wait_for(&s.woken, TEST_PATIENCE)) {
			TH_LOG("the sleeper was not woken, round %d", i);
			_exit(KSFT_FAIL);
		}
		EXPECT_EQ(1, s.woken);
		pthread_join(s.thread, NULL);
	}
}

TEST_F(ring, sleeper_is_woken_by_an_overflow)
{
	struct ring *r = &self->r;
	struct sleeper s;

	r->control->watermark = 1;
	catch_up(r);
	/* A ring that is full, of a consumer whose watermark cannot be reached. */
	ring_set_tail(r, ring_head(r) - MIN);
	r->control->watermark = ~0U;
	ring_set_tail(r, ring_head(r));
	sleeper_start(&s, r->log);
	for (__u32 k = 0; k < MIN - 1; k++)
		page_write(self->mem, k, 1);
	usleep(20000);
	EXPECT_EQ(0, s.woken);
	/* From here on there is no room. */
	ring_set_tail(r, ring_head(r) - MIN);
	page_write(self->mem, MIN, 1);
	EXPECT_TRUE(wait_for(&s.woken, TEST_PATIENCE));
	EXPECT_EQ(2, ring_overflows(r));
	if (!s.woken)
		_exit(KSFT_FAIL);
	pthread_join(s.thread, NULL);
}

/*
 * An edge is what comes after the consumer has done something: he who was told and did
 * nothing is not told again with each page.
 */
TEST_F(ring, edge_triggered)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	struct ring *r = &self->r;
	int events;

	r->control->watermark = 10;
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, r->log, &event));
	EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
	for (int round = 0; round < 4; round++) {
		catch_up(r);
		EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
		for (int k = 0; k < 9; k++)
			page_write(self->mem, k, 1);
		EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
		page_write(self->mem, 9, 1);
		EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
		EXPECT_EQ(EPOLLIN, event.events);

		events = 0;
		for (int k = 10; k < 50; k++) {
			page_write(self->mem, k, 1);
			events += epoll_wait(ep, &event, 1, 0);
		}
		EXPECT_EQ(0, events) {
			TH_LOG("%d events for a consumer who did nothing", events);
		}
		/* He reads a part: the next page is news, and the one after is not. */
		ring_set_tail(r, r->control->tail + 5);
		page_write(self->mem, 50, 1);
		EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
		page_write(self->mem, 51, 1);
		EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
		/* A new watermark is news, too, if it is reached. */
		r->control->watermark = 60;
		page_write(self->mem, 52, 1);
		EXPECT_EQ(0, epoll_wait(ep, &event, 1, 0));
		r->control->watermark = 10;
		page_write(self->mem, 53, 1);
		EXPECT_EQ(1, epoll_wait(ep, &event, 1, 0));
	}
	close(ep);
}

/* ---- no wake-up is lost ---- */

/*
 * A consumer who reads what is there, sometimes chooses another watermark, and sleeps
 * without end.  Writers write a handful of pages, and then wait until he has read so
 * much that there is nothing to wake him for: the last page of a handful comes as he
 * goes to sleep, and after it comes none that would wake him by accident.
 */
enum sleep_by { BY_POLL, BY_SELECT, BY_EPOLL, BY_EDGE };

enum write_by { BY_STORE, BY_STORE_TOO, BY_PWRITE, WRITE_BYS };

struct wakeups {
	int slot, ep;
	char *mem;
	struct ring r;
	_Atomic bool stop, ended;
	_Atomic int lost;
	_Atomic __u64 cycles, idle;
};

FIXTURE(wakeups) {
	struct wakeups w;
};

FIXTURE_VARIANT(wakeups) {
	enum sleep_by by;
};

FIXTURE_VARIANT_ADD(wakeups, poll) { .by = BY_POLL };
FIXTURE_VARIANT_ADD(wakeups, select) { .by = BY_SELECT };
FIXTURE_VARIANT_ADD(wakeups, epoll) { .by = BY_EPOLL };
FIXTURE_VARIANT_ADD(wakeups, epoll_edge) { .by = BY_EDGE };

FIXTURE_SETUP(wakeups)
{
	struct epoll_event event = {
		.events = EPOLLIN | (variant->by == BY_EDGE ? EPOLLET : 0),
	};

	self->w.slot = test_new_slot(NPAGES);
	self->w.mem = test_map(self->w.slot, 0, NPAGES);
	ring_open(&self->w.r, self->w.slot, 4 * MIN);
	self->w.ep = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_EQ(0, epoll_ctl(self->w.ep, EPOLL_CTL_ADD, self->w.r.log, &event));
}

FIXTURE_TEARDOWN(wakeups)
{
	close(self->w.ep);
	ring_close(&self->w.r);
	test_unmap(self->w.mem, NPAGES);
	close(self->w.slot);
}

struct wakeups_thread {
	struct wakeups *w;
	enum sleep_by sleep_by;
	enum write_by write_by;
	unsigned int burst;	/* less than so many writes before he waits */
	pthread_t thread;
};

static bool sleep_until_readable(struct wakeups *w, enum sleep_by by)
{
	struct pollfd fd = { .fd = w->r.log, .events = POLLIN };
	struct epoll_event event;
	fd_set set;

	switch (by) {
	case BY_POLL:
		return poll(&fd, 1, -1) == 1;
	case BY_SELECT:
		FD_ZERO(&set);
		FD_SET(w->r.log, &set);
		return select(w->r.log + 1, &set, NULL, NULL, NULL) == 1;
	default:
		return epoll_wait(w->ep, &event, 1, -1) == 1;
	}
}

static void *wakeups_consumer(void *arg)
{
	static const __u32 marks[] = { 0, 1, 1, 1, 2, 5, 17, 40 };
	struct wakeups_thread *t = arg;
	struct wakeups *w = t->w;
	__u64 random = 88172645463325252ULL;
	__u64 *got = bitmap_alloc(NPAGES);

	while (!w->stop) {
		if (next_random(&random) % 4 == 0)
			w->r.control->watermark = marks[next_random(&random) % 8];
		/* Between two edges there is no third: look before going to sleep. */
		do {
			bitmap_zero(got, NPAGES);
			if (_ring_take(&w->r, got))
				dt_broken("a turn of the consumer: %s", strerror(errno));
			atomic_thread_fence(memory_order_seq_cst);
		} while (t->sleep_by == BY_EDGE && ring_ready(&w->r));
		if (!sleep_until_readable(w, t->sleep_by))
			dt_broken("sleep: %s", strerror(errno));
		w->cycles++;
		if (!ring_ready(&w->r))
			w->idle++;
	}
	free(got);
	w->ended = true;
	return NULL;
}

static void wakeups_write(struct wakeups *w, enum write_by by, __u64 random)
{
	__u64 page = random / WRITE_BYS * WRITE_BYS % (NPAGES - WRITE_BYS) + by;

	if (by != BY_PWRITE)
		page_write(w->mem, page, random);
	else if (pwrite(w->slot, "", 1, page * PAGE_SIZE) != 1)
		dt_broken("pwrite: %s", strerror(errno));
}

static void *wakeups_writer(void *arg)
{
	struct wakeups_thread *t = arg;
	struct wakeups *w = t->w;
	__u64 random = 362436069ULL * (t->write_by + 1);

	while (!w->stop) {
		double end = now() + TEST_PATIENCE * test_slowness();

		for (__u64 n = next_random(&random) % t->burst; n; n--) {
			wakeups_write(w, t->write_by, next_random(&random) >> 20);
			for (__u64 k = next_random(&random) % 512; k; k--)
				asm volatile("pause");
		}
		while (ring_ready(&w->r) && !w->stop && now() < end)
			sched_yield();
		if (now() >= end) {
			w->lost++;
			w->stop = true;
		}
	}
	return NULL;
}

/* Writers from way @first on, each with bursts of less than @burst writes. */
static void wakeups_run(struct __test_metadata *_metadata, struct wakeups *w,
			enum sleep_by by, enum write_by first, unsigned int burst)
{
	struct wakeups_thread consumer = { w, .sleep_by = by };
	struct wakeups_thread writers[WRITE_BYS];
	double start = now(), seconds = race_seconds(2);
	__u64 cycles, random = 1;

	ASSERT_EQ(0, pthread_create(&consumer.thread, NULL, wakeups_consumer, &consumer));
	for (int i = first; i < WRITE_BYS; i++) {
		writers[i] = (struct wakeups_thread){ w, .write_by = i, .burst = burst };
		ASSERT_EQ(0, pthread_create(&writers[i].thread, NULL, wakeups_writer,
					    &writers[i]));
	}
	while (!w->stop && (now() < start + seconds ||
			    (w->cycles < 200 && now() < start + TEST_PATIENCE * test_slowness())))
		usleep(20000);
	cycles = w->cycles;
	w->stop = true;
	for (int i = first; i < WRITE_BYS; i++)
		pthread_join(writers[i].thread, NULL);
	if (w->lost) {
		TH_LOG("the consumer slept on after %llu turns, with entries to read",
		       cycles);
		/* Nothing would end him. */
		_exit(KSFT_FAIL);
	}
	/* Whatever his watermark is: to the end of the ring, and beyond. */
	while (!w->ended)
		wakeups_write(w, BY_PWRITE, next_random(&random) >> 20);
	pthread_join(consumer.thread, NULL);

	fprintf(stderr, "# woken %llu times, %llu of them for nothing; %llu entries, %llu overflows\n",
		cycles, (__u64)w->idle, w->r.taken, ring_overflows(&w->r) - 1);
	EXPECT_LE(200, cycles) {
		TH_LOG("too few to prove anything");
	}
	EXPECT_EQ(0, w->idle) {
		TH_LOG("poll said there was something, and there was not");
	}
}

TEST_F_TIMEOUT(wakeups, none_is_lost, 4000)
{
	wakeups_run(_metadata, &self->w, variant->by, 0, 24);
}

/* Nobody pushes after the one whose push the consumer does not wait for. */
TEST_F_TIMEOUT(wakeups, none_is_lost_of_the_last, 4000)
{
	wakeups_run(_metadata, &self->w, variant->by, BY_PWRITE, 4);
}

/* ---- an entry is there before the write that it is about ---- */

/*
 * Several threads write the same page: the one that finds the entry of the page table
 * writable, which the other's fault has just made so, must find the ring's entry, too.
 */
struct same_page {
	char *mem;
	_Atomic bool stop;
	_Atomic __u64 writes;
};

static void *same_page_writer(void *arg)
{
	struct same_page *s = arg;

	for (__u64 n = 1; !s->stop; n++) {
		*(volatile __u64 *)(s->mem + 64) = n;
		s->writes++;
	}
	return NULL;
}

static void entry_before_write(struct __test_metadata *_metadata, struct ring *r,
			       char *mine, char *others)
{
	struct same_page s = { .mem = others };
	__u64 *got = bitmap_alloc(NPAGES), missing = 0, rounds = 0;
	double end = now() + race_seconds(2);
	pthread_t thread;

	catch_up(r);
	ASSERT_EQ(0, pthread_create(&thread, NULL, same_page_writer, &s));
	for (; now() < end || rounds < 500 || s.writes <= 100; rounds++) {
		bitmap_zero(got, NPAGES);
		ASSERT_EQ(0, _ring_take(r, got));
		/* The page is clean now, or the other thread has written already. */
		*(volatile __u64 *)mine = rounds;
		/* TSO orders a load of what others store no earlier: a full barrier. */
		atomic_thread_fence(memory_order_seq_cst);
		if (ring_head(r) == r->control->tail &&
		    ring_overflows(r) == r->control->seen)
			missing++;
	}
	s.stop = true;
	pthread_join(thread, NULL);
	fprintf(stderr, "# rounds %llu, writes of the other thread %llu, entries %llu\n",
		rounds, (__u64)s.writes, r->taken);
	EXPECT_LT(100, s.writes);
	/* Each round's write had to say so. */
	EXPECT_LE(rounds - 1, r->taken + r->harvests);
	EXPECT_EQ(0, missing) {
		TH_LOG("%llu writes were done before their entry was there", missing);
	}
	free(got);
}

TEST_F_TIMEOUT(ring, entry_before_the_write_one_mapping, 4000)
{
	entry_before_write(_metadata, &self->r, self->mem, self->mem);
}

TEST_F_TIMEOUT(ring, entry_before_the_write_two_mappings, 4000)
{
	char *second = test_map(self->slot, 0, NPAGES);

	entry_before_write(_metadata, &self->r, self->mem, second);
	test_unmap(second, NPAGES);
}

/*
 * Each writer has a word in every page and counts in it.  What had been counted before
 * the consumer looked at the ring is in what he copies after it.
 */
#define COUNTERS	3

struct counter {
	char *mem;
	unsigned int id;
	__u64 npages, stride, random;
	_Atomic bool *stop;
	_Atomic __u64 *done;
	pthread_t thread;
};

static void *counter_run(void *arg)
{
	struct counter *c = arg;

	while (!*c->stop) {
		__u64 page = next_random(&c->random) % c->npages;
		__u64 n = c->done[page] + 1;

		((volatile __u64 *)page_at(c->mem, page * c->stride))[c->id] = n;
		atomic_store_explicit(&c->done[page], n, memory_order_release);
	}
	return NULL;
}

/* The writers share @npages pages, every @stride-th of the slot. */
static void count(struct __test_metadata *_metadata, struct ring *r, int slot, char *mem,
		  __u64 npages, __u64 stride)
{
	_Atomic bool stop = false;
	struct counter counters[COUNTERS];
	__u64 *got = bitmap_alloc(NPAGES), rounds = 0, lost = 0, written = 0;
	__u64 *before = calloc(npages * COUNTERS, sizeof(*before));
	__u64 *copy = calloc(npages * COUNTERS, sizeof(*copy));
	char *second = test_map(slot, 0, NPAGES);
	double end = now() + race_seconds(2);
	bool last;

	for (int i = 0; i < COUNTERS; i++) {
		counters[i] = (struct counter){
			.mem = i == COUNTERS - 1 ? second : mem,
			.id = i, .npages = npages, .stride = stride, .stop = &stop,
			.random = 521288629ULL * (i + 1),
			.done = calloc(npages, sizeof(_Atomic __u64)),
		};
		ASSERT_EQ(0, pthread_create(&counters[i].thread, NULL, counter_run,
					    &counters[i]));
	}
	do {
		last = now() >= end && rounds >= 200;
		if (last) {
			stop = true;
			for (int i = 0; i < COUNTERS; i++)
				pthread_join(counters[i].thread, NULL);
		}
		for (__u64 k = 0; k < npages * COUNTERS; k++)
			before[k] = atomic_load_explicit(
				&counters[k % COUNTERS].done[k / COUNTERS],
				memory_order_acquire);
		bitmap_zero(got, NPAGES);
		ASSERT_EQ(0, _ring_take(r, got));
		for (__u64 k = 0; k < npages * COUNTERS; k++) {
			__u64 page = k / COUNTERS * stride;

			if (bit_test(got, page))
				copy[k] = ((volatile __u64 *)page_at(mem, page))[k % COUNTERS];
			if (copy[k] >= before[k])
				continue;
			if (lost++ < 5)
				TH_LOG("round %llu: page %llu, writer %llu: %llu was done, the copy has %llu",
				       rounds, page, k % COUNTERS, before[k], copy[k]);
			copy[k] = before[k];
		}
		rounds++;
	} while (!last);
	for (__u64 k = 0; k < npages * COUNTERS; k++)
		written += before[k];
	fprintf(stderr, "# rounds %llu, writes %llu, entries %llu, harvests for overflow %llu\n",
		rounds, written, r->taken, r->harvests);
	EXPECT_LT(1000, written);
	EXPECT_EQ(0, lost);
	for (int i = 0; i < COUNTERS; i++)
		free((void *)counters[i].done);
	free(got);
	free(before);
	free(copy);
	test_unmap(second, NPAGES);
}

TEST_F_TIMEOUT(ring, writers_share_few_pages, 4000)
{
	count(_metadata, &self->r, self->slot, self->mem, 4, 1);
	EXPECT_GE(2, self->r.harvests);
}

/* So far apart that none is protected because others are. */
TEST_F_TIMEOUT(ring, writers_share_scattered_pages, 4000)
{
	count(_metadata, &self->r, self->slot, self->mem, 4, NPAGES / 4);
	EXPECT_GE(2, self->r.harvests);
}

TEST_F_TIMEOUT(ring, writers_share_many_pages, 4000)
{
	count(_metadata, &self->r, self->slot, self->mem, NPAGES, 1);
	/* It was the smallest ring. */
	EXPECT_LT(10, self->r.harvests);
}

/* ---- consumers of bad will, and dead ones ---- */

struct scribbler {
	struct dirtytrack_ring_control *control;
	const struct dirtytrack_ring *shared;
	_Atomic bool stop;
	_Atomic __u64 values;
	pthread_t thread;
};

static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	__u64 random = 2463534242ULL;

	while (!s->stop) {
		volatile struct dirtytrack_ring_control *c = s->control;
		__u64 r = next_random(&random), head = s->shared->head;
		const __u64 near[] = {
			0, ~0ULL, head, head + 1, head - 1, head - MIN, head - MIN - 1,
			head - MIN + 1, 1ULL << 63, ~head, r,
		};

		c->tail = near[(r >> 8) % ARRAY_SIZE(near)];
		c->seen = r % 3 ? s->shared->overflows + r % 2 : r;
		c->watermark = near[(r >> 16) % ARRAY_SIZE(near)];
		c->reserved = r >> 20;
		if (r % 64 == 0)
			memset((void *)c, r >> 40, PAGE_SIZE);
		s->values++;
	}
	return NULL;
}

/* Writes to clean pages a second, with another log harvested between. */
static double pace(struct __test_metadata *_metadata, int slot, int log, char *mem)
{
	__u64 *got = bitmap_alloc(NPAGES), writes = 0;
	double start, spent = 0;

	(void)slot;
	while (spent < 0.2) {
		test_harvest_all(log, 0, 0, NPAGES, got, 0);
		start = now();
		for (__u64 n = 0; n < NPAGES; n++)
			page_write(mem, n, 1);
		spent += now() - start;
		writes += NPAGES;
	}
	free(got);
	return writes / spent;
}

static void scribbler_start(struct scribbler *s, struct dirtytrack_ring_control *control,
			    const struct dirtytrack_ring *shared)
{
	*s = (struct scribbler){ .control = control, .shared = shared };
	if (pthread_create(&s->thread, NULL, scribble, s))
		dt_broken("no thread");
	while (s->values < 10)
		sched_yield();
}

static void scribbler_stop(struct scribbler *s)
{
	s->stop = true;
	pthread_join(s->thread, NULL);
}

static __u64 pages[PAGE_SIZE / sizeof(__u64)] __attribute__((aligned(4096)));

/*
 * The control page changes all the time, to anything.  Writers go on, at the pace that
 * they have beside one who scribbles on a page of his own; the slot's other logs keep
 * the guarantee, and the ring's mapping stays what it is.
 */
TEST_F_TIMEOUT(ring, garbage_in_the_control_page, 4000)
{
	struct ring *r = &self->r;
	int log = test_log_create(self->slot, 0);
	double quiet = 0, hostile = 0, p;
	struct scribbler s;

	/* Alternately, and the best of each: the machine has other things to do. */
	for (int i = 0; i < 5; i++) {
		scribbler_start(&s, (void *)pages, r->shared);
		p = pace(_metadata, self->slot, log, self->mem);
		quiet = p > quiet ? p : quiet;
		scribbler_stop(&s);
		scribbler_start(&s, r->control, r->shared);
		p = pace(_metadata, self->slot, log, self->mem);
		hostile = p > hostile ? p : hostile;
		scribbler_stop(&s);
	}
	fprintf(stderr, "# writes a second: %.0f, with garbage in the control page %.0f\n",
		quiet, hostile);
	EXPECT_LT(quiet / 3, hostile);
	EXPECT_EQ(MIN, r->shared->entries);
	EXPECT_EQ(0, r->shared->reserved);
	for (__u64 n = 0; n < MIN; n++)
		EXPECT_GT(NPAGES, r->entries[n]);

	/* Back to reason, the same ring is as good as new. */
	memset(r->control, 0, PAGE_SIZE);
	r->harvests = r->taken = 0;
	catch_up(r);
	page_write(self->mem, 5, 1);
	EXPECT_EQ(5, ring_entry(r, r->control->tail));
	EXPECT_EQ(r->control->tail + 1, ring_head(r));
	close(log);
}

FIXTURE(beside) {
	struct tracked t;
};

FIXTURE_SETUP(beside)
{
	tracked_open(_metadata, &self->t, NPAGES, START_FRESH);
}

FIXTURE_TEARDOWN(beside)
{
	tracked_close(_metadata, &self->t);
}

/* Some writes and a check of the slot's other logs, again and again. */
static void writes_and_checks(struct __test_metadata *_metadata, struct tracked *t, int rounds)
{
	static __u64 random = 123456789;

	for (int i = 0; i < rounds; i++) {
		for (int k = 0; k < 100; k++)
			put(t, next_random(&random) % NPAGES);
		/* One that collects meanwhile holds pages for a moment. */
		check_has(t);
	}
}

TEST_F_TIMEOUT(beside, garbage_in_the_control_page, 4000)
{
	struct pollfd fd = { .events = POLLIN };
	double end = now() + race_seconds(2);
	struct scribbler s;
	struct ring r;
	__u64 polls = 0;

	ring_open(&r, self->t.slot, MIN);
	fd.fd = r.log;
	scribbler_start(&s, r.control, r.shared);
	do {
		writes_and_checks(_metadata, &self->t, 1);
		polls += poll(&fd, 1, 1) >= 0;
	} while (now() < end || self->t.checks < 20);
	scribbler_stop(&s);
	fprintf(stderr, "# %llu values, %u checks, %llu polls\n", (__u64)s.values,
		self->t.checks, polls);
	EXPECT_EQ(self->t.checks, polls);
	EXPECT_LT(100, s.values);
	ring_close(&r);
}

/* A consumer in a process of his own, who is stopped and killed in the middle of it. */
static void consume_for_ever(int slot, _Atomic __u64 *turns)
{
	__u64 *got = bitmap_alloc(NPAGES);
	struct ring r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (_ring_open(&r, slot, 0, MIN))
		_exit(1);
	for (;;) {
		struct pollfd fd = { .fd = r.log, .events = POLLIN };

		poll(&fd, 1, -1);
		if (_ring_take(&r, got))
			_exit(1);
		++*turns;
	}
}

TEST_F_TIMEOUT(beside, stopped_and_killed_consumers, 4000)
{
	struct tracked *t = &self->t;
	_Atomic __u64 *turns = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	__u32 logs = logs_of(t->slot);
	__u64 stopped_at;
	int status;

	for (int i = 0; i < 8; i++) {
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid)
			consume_for_ever(t->slot, turns);
		for (*turns = 0; *turns < 5; )
			writes_and_checks(_metadata, t, 1);
		EXPECT_EQ(logs + 1, logs_of(t->slot));

		ASSERT_EQ(0, kill(pid, SIGSTOP));
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		/* Many more pages than his ring has entries. */
		stopped_at = *turns;
		writes_and_checks(_metadata, t, 10);
		EXPECT_EQ(stopped_at, *turns);
		if (i % 2) {
			ASSERT_EQ(0, kill(pid, SIGCONT));
			while (*turns < stopped_at + 5)
				writes_and_checks(_metadata, t, 1);
		}
		ASSERT_EQ(0, kill(pid, SIGKILL));
		writes_and_checks(_metadata, t, 3);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status));
		/* His log went with him. */
		for (int k = 0; k < 1000 && logs_of(t->slot) != logs; k++)
			usleep(10000);
		EXPECT_EQ(logs, logs_of(t->slot));
		writes_and_checks(_metadata, t, 1);
	}
	munmap((void *)turns, PAGE_SIZE);
}

/* ---- rings that come and go ---- */

static __u64 vmalloc_used(void)
{
	char line[256];
	__u64 kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmallocUsed: %llu", &kib);
	if (f)
		fclose(f);
	return kib;
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/*
 * Of making and dropping a log, often, beside writers: the time that nine of ten exceed.
 * That is as long as it has to be, whatever else the machine does.
 */
static double create_and_drop(struct __test_metadata *_metadata, int slot, __u32 entries,
			      int times)
{
	double *took = calloc(times, sizeof(*took)), tenth;

	for (int i = 0; i < times; i++) {
		double start = now();
		int log;

		ASSERT_EQ(0, _test_log_create_ring(slot, i % 2 ? DIRTYTRACK_LOG_ALL_SET : 0,
						   entries, &log));
		close(log);
		took[i] = now() - start;
	}
	qsort(took, times, sizeof(*took), compare_doubles);
	tenth = took[times / 10];
	free(took);
	return tenth;
}

TEST_F_TIMEOUT(ring, logs_come_and_go_under_load, 4000)
{
	struct same_page s[2] = { { .mem = self->mem }, { .mem = self->mem + PAGE_SIZE } };
	__u32 logs = logs_of(self->slot);
	double with = 1e9, without = 1e9, t;
	pthread_t threads[2];
	__u64 before;

	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, same_page_writer, &s[i]));
	/* Other processes' stacks are there, too; of rings it would be 800 MiB. */
	before = vmalloc_used();
	create_and_drop(_metadata, self->slot, 1U << 20, 100);
	EXPECT_GT(before + (64 << 10), vmalloc_used());

	/* Neither waits for all processors to have been elsewhere. */
	for (int i = 0; i < 5; i++) {
		t = create_and_drop(_metadata, self->slot, 0, 40);
		without = t < without ? t : without;
		t = create_and_drop(_metadata, self->slot, MIN, 40);
		with = t < with ? t : with;
	}
	fprintf(stderr, "# a log made and dropped: %.0f us, with a ring %.0f us\n",
		without * 1e6, with * 1e6);
	EXPECT_GT((4 * without + 0.001) * test_slowness(), with);
	EXPECT_EQ(logs, logs_of(self->slot));
	for (int i = 0; i < 2; i++) {
		s[i].stop = true;
		pthread_join(threads[i], NULL);
		EXPECT_LT(0, s[i].writes);
	}
}

TEST_HARNESS_MAIN
