// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every failure point of every call
 *
 * With fault injection the kernel can be told to let the n-th of a thread's
 * allocations and user copies fail.  Each test sweeps an operation: n from 1 until it
 * comes through without having been hit.  So each error path is taken, one after the
 * other, and after each the test wants
 *
 * - a clean error, of those that the ABI names, or a success in spite of it;
 * - everything as it was: fds, slots, logs, and every page that was written in the
 *   log, unless the call has delivered it;
 * - nothing left: the module unloads after, and kmemleak looks at the end.
 *
 * An operation that allocates must have failed at least once, or the sweep has proved
 * nothing.  Loading the module is not swept: what the kernel's own loader and tracing
 * do when they fail there is to warn.
 */
#include "tracked.h"

#include <sys/uio.h>

#define NPAGES		200UL
#define BYTES(npages)	((npages) << DIRTYTRACK_PAGE_SHIFT)
#define NAME		"swept"

/* More points than any operation has. */
#define MAX_NTH		3000U

/* ---- fault injection ---- */

#define DEBUGFS "/sys/kernel/debug/"

/* All allocations may fail, and nothing is printed of it. */
static const struct {
	const char *path, *value;
} knobs[] = {
	{ DEBUGFS "failslab/verbose", "0" },
	{ DEBUGFS "failslab/ignore-gfp-wait", "N" },
	{ DEBUGFS "fail_page_alloc/verbose", "0" },
	{ DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ DEBUGFS "fail_page_alloc/min-order", "0" },
	{ DEBUGFS "fail_usercopy/verbose", "0" },
};

static bool put_in(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

static int nth_fd;

/* From now on, of this thread. */
static void nth_arm(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	/* What is left of the last count may hit this copy: once. */
	if (pwrite(nth_fd, text, len, 0) != len && pwrite(nth_fd, text, len, 0) != len)
		dt_broken("fail-nth: %s", strerror(errno));
}

/* Not any more; says whether something was made to fail. */
static bool nth_disarm(void)
{
	char text[16] = "";
	/* The copy of the answer may be what fails: then nothing else has. */
	bool hit = pread(nth_fd, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0;

	nth_arm(0);
	return hit;
}

/* Is there none in this kernel? */
static bool nth_open(struct __test_metadata *_metadata)
{
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0)
		SKIP(return false, "kernel without fault injection");
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		EXPECT_TRUE(put_in(knobs[i].path, knobs[i].value)) {
			TH_LOG("%s: %s", knobs[i].path, strerror(errno));
		}
	}
	return true;
}

/* ---- a sweep ---- */

struct subject {
	int dev, slot, log, second;
	__u32 id;
	char *mem;
	__u64 written[NPAGES / 64 + 1];	/* and not reported yet */
	unsigned int fds, slots;
	int source;			/* a file with data to copy, if one is wanted */
	/* of the operation */
	int fd, err;
	ssize_t ret;
	void *map;
	__u64 buf[PAGE_SIZE / sizeof(__u64)];
	struct dirtytrack_harvest_extents extents;
	struct dirtytrack_populate populate;
	struct dirtytrack_release release;
	pid_t pid;
};

struct operation {
	/* What must be there; not hit. */
	void (*before)(struct __test_metadata *_metadata, struct subject *s);
	/* Returns -1 and errno if it failed. */
	ssize_t (*run)(struct subject *s);
	/* What it must have done or not done; undoes it. */
	void (*after)(struct __test_metadata *_metadata, struct subject *s);
	/* It comes through whatever is hit, if anything is there to be hit. */
	bool absorbs;
};

/* Maps the slot again, whole. */
static void map_anew(struct __test_metadata *_metadata, struct subject *s)
{
	ASSERT_EQ(s->mem, mmap(s->mem, BYTES(NPAGES), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_FIXED, s->slot, 0));
	ASSERT_EQ(page_at(s->mem, NPAGES),
		  mmap(page_at(s->mem, NPAGES), BYTES(NPAGES), PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

static void subject_open(struct __test_metadata *_metadata, struct subject *s)
{
	memset(s, 0, sizeof(*s));
	s->dev = test_device();
	s->slot = test_slot_create(s->dev, "subject", BYTES(NPAGES), &s->id);
	/* With room behind it. */
	s->mem = mmap(NULL, BYTES(2 * NPAGES), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	ASSERT_NE(MAP_FAILED, s->mem);
	map_anew(_metadata, s);
	s->log = test_log_create(s->slot, DIRTYTRACK_LOG_MAY_RELEASE);
	s->second = test_log_create(s->slot, 0);
}

static void subject_close(struct subject *s)
{
	test_unmap(s->mem, 2 * NPAGES);
	if (s->source)
		close(s->source);
	close(s->second);
	close(s->log);
	close(s->slot);
	close(s->dev);
}

static void dirty(struct subject *s, __u64 page)
{
	poke(page_at(s->mem, page));
	bit_set(s->written, page);
}

/* Some pages in every word, in runs and alone. */
static void dirty_some(struct __test_metadata *_metadata, struct subject *s)
{
	(void)_metadata;
	for (__u64 n = 0; n < NPAGES; n += 1 + n % 5)
		dirty(s, n);
}

/* What was written is in both logs, or has been delivered. */
static void nothing_lost(struct __test_metadata *_metadata, struct subject *s,
			 const __u64 *delivered)
{
	__u64 got[ARRAY_SIZE(s->written)] = { 0 }, second[ARRAY_SIZE(s->written)] = { 0 };

	test_harvest_all(s->log, 0, 0, NPAGES, got, 0);
	test_harvest_all(s->second, 0, 0, NPAGES, second, 0);
	for (__u64 n = 0; n < NPAGES; n++) {
		if (!bit_test(s->written, n))
			continue;
		EXPECT_TRUE(bit_test(got, n) || (delivered && bit_test(delivered, n))) {
			TH_LOG("page %llu is lost", n);
		}
		EXPECT_TRUE(bit_test(second, n)) {
			TH_LOG("page %llu is lost to the other log", n);
		}
	}
	memset(s->written, 0, sizeof(s->written));
}

static void sweep(struct __test_metadata *_metadata, struct subject *s,
		  const struct operation *op)
{
	unsigned int nth, failed = 0;
	struct dirtytrack_slot_info info;
	bool hit = true;

	for (nth = 1; hit && nth < MAX_NTH; nth++) {
		if (op->before)
			op->before(_metadata, s);
		s->fds = test_count_fds();
		s->slots = test_slot_count(s->dev);
		s->fd = -1;
		s->pid = -1;
		s->map = MAP_FAILED;

		nth_arm(nth);
		s->ret = op->run(s);
		s->err = errno;
		hit = nth_disarm();

		if (s->ret < 0) {
			failed++;
			EXPECT_TRUE(hit);
			EXPECT_TRUE(s->err == ENOMEM || s->err == EFAULT) {
				TH_LOG("%s", strerror(s->err));
			}
			EXPECT_EQ(s->fds, test_count_fds());
			EXPECT_EQ(s->slots, test_slot_count(s->dev));
		}
		if (op->after)
			op->after(_metadata, s);
		EXPECT_EQ(s->fds, test_count_fds());
		EXPECT_EQ(s->slots, test_slot_count(s->dev));
		test_slot_info(s->slot, &info);
		EXPECT_EQ(2, info.out_logs);
		if (!_metadata->passed) {
			TH_LOG("at point %u", nth);
			break;
		}
	}
	TH_LOG("%u points, %u failures", nth - 2, failed);
	EXPECT_LT(nth, MAX_NTH);
	if (op->absorbs) {
		EXPECT_EQ(0, failed);
	} else {
		EXPECT_LT(0, failed);
	}
}

FIXTURE(nth) {
	struct subject s;
};

FIXTURE_SETUP(nth)
{
	if (nth_open(_metadata))
		subject_open(_metadata, &self->s);
}

FIXTURE_TEARDOWN(nth)
{
	if (_metadata->skip)
		return;
	subject_close(&self->s);
	close(nth_fd);
}

/* The harness goes on into the test after a SKIP() in a fixture's setup. */
#define SWEEP(...) do {							\
	const struct operation __op = { __VA_ARGS__ };			\
									\
	if (!_metadata->skip)						\
		sweep(_metadata, &self->s, &__op);			\
} while (0)

static ssize_t as_result(const void *map)
{
	return map == MAP_FAILED ? -1 : 0;
}

static void close_fd(struct __test_metadata *_metadata, struct subject *s)
{
	(void)_metadata;
	if (s->fd >= 0)
		close(s->fd);
}

static void check_lost(struct __test_metadata *_metadata, struct subject *s)
{
	nothing_lost(_metadata, s, NULL);
}

/* Whatever happened, the mappings that there are still track. */
static void still_tracks(struct __test_metadata *_metadata, struct subject *s)
{
	dirty(s, 3);
	dirty(s, NPAGES - 1);
	nothing_lost(_metadata, s, NULL);
}

/* ---- the device ---- */

static ssize_t run_info(struct subject *s)
{
	struct dirtytrack_info info;

	return _test_info(s->dev, &info);
}

static ssize_t run_open_device(struct subject *s)
{
	s->fd = _test_device();
	return s->fd;
}

static ssize_t run_slot_create(struct subject *s)
{
	return _test_slot_create(s->dev, NAME, BYTES(NPAGES), NULL, &s->fd);
}

/* The name is free again, or the slot is usable. */
static void after_slot_create(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 got = 0;
	char *map;
	int log;

	if (s->ret < 0)
		return;
	map = test_map(s->fd, 0, NPAGES);
	log = test_log_create(s->fd, 0);
	page_write(map, 5, 1);
	test_harvest_all(log, 0, 0, 64, &got, 0);
	EXPECT_EQ(1ULL << 5, got);
	close(log);
	test_unmap(map, NPAGES);
	close(s->fd);
}

static ssize_t run_slot_next(struct subject *s)
{
	__u32 next;

	return _test_slot_next(s->dev, 0, &next);
}

static ssize_t run_slot_open(struct subject *s)
{
	return _test_slot_open(s->dev, s->id, &s->fd);
}

static ssize_t run_slot_open_name(struct subject *s)
{
	return _test_slot_open_name(s->dev, "subject", &s->fd);
}

TEST_F(nth, info) { SWEEP(.run = run_info); }
TEST_F(nth, open_device) { SWEEP(.run = run_open_device, .after = close_fd); }
TEST_F(nth, slot_create) { SWEEP(.run = run_slot_create, .after = after_slot_create); }
TEST_F(nth, slot_next) { SWEEP(.run = run_slot_next); }
TEST_F(nth, slot_open) { SWEEP(.run = run_slot_open, .after = close_fd); }
TEST_F(nth, slot_open_by_name) { SWEEP(.run = run_slot_open_name, .after = close_fd); }

/* ---- a slot ---- */

static ssize_t run_slot_info(struct subject *s)
{
	struct dirtytrack_slot_info info;

	return _test_slot_info(s->slot, &info);
}

static ssize_t run_reopen(struct subject *s)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->slot);
	s->fd = open(path, O_RDWR | O_CLOEXEC);
	return s->fd;
}

static ssize_t read_fdinfo(int fd)
{
	char path[64], text[1024];
	int file, err;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	n = read(file, text, sizeof(text));
	err = errno;
	close(file);
	errno = err;
	return n;
}

static ssize_t run_slot_fdinfo(struct subject *s)
{
	return read_fdinfo(s->slot);
}

static ssize_t run_log_fdinfo(struct subject *s)
{
	return read_fdinfo(s->log);
}

static ssize_t run_log_create(struct subject *s)
{
	return _test_log_create(s->slot, 0, &s->fd);
}

static ssize_t run_log_create_full(struct subject *s)
{
	return _test_log_create(s->slot, DIRTYTRACK_LOG_ALL_SET, &s->fd);
}

static ssize_t run_log_create_ring(struct subject *s)
{
	struct dirtytrack_log_create arg = {
		.size = sizeof(arg),
		.ring_entries = DIRTYTRACK_RING_MIN_ENTRIES,
	};
	int ret = dt_ioctl(s->slot, DIRTYTRACK_LOG_CREATE, &arg);

	s->fd = ret ? -1 : arg.out_fd;
	return ret;
}

/* It has what is written from now on; the logs that were there lack nothing. */
static void after_log_create(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 got = 0;

	if (s->ret >= 0) {
		dirty(s, 5);
		test_harvest_all(s->fd, 0, 5, 1, &got, 0);
		EXPECT_EQ(1, got);
		close(s->fd);
	}
	nothing_lost(_metadata, s, NULL);
}

TEST_F(nth, slot_info) { SWEEP(.run = run_slot_info); }
TEST_F(nth, reopen) { SWEEP(.run = run_reopen, .after = close_fd); }
TEST_F(nth, slot_fdinfo) { SWEEP(.run = run_slot_fdinfo); }
TEST_F(nth, log_fdinfo) { SWEEP(.run = run_log_fdinfo); }

TEST_F(nth, log_create)
{
	SWEEP(.before = dirty_some, .run = run_log_create, .after = after_log_create);
}

TEST_F(nth, log_create_full)
{
	SWEEP(.before = dirty_some, .run = run_log_create_full,
	      .after = after_log_create);
}

TEST_F(nth, log_create_ring)
{
	SWEEP(.before = dirty_some, .run = run_log_create_ring,
	      .after = after_log_create);
}

/* ---- as a file ---- */

#define FILE_FIRST	10
#define FILE_PAGES	3
#define FILE_OFFSET	(BYTES(FILE_FIRST) + 100)

/* Without memory, and in no log. */
static void punched(struct __test_metadata *_metadata, struct subject *s)
{
	memset(s->buf, 0x5a, sizeof(s->buf));
	ASSERT_EQ(0, fallocate(s->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       0, BYTES(NPAGES)));
	nothing_lost(_metadata, s, NULL);
}

static ssize_t run_pwrite(struct subject *s)
{
	struct iovec iov[FILE_PAGES] = {
		{ s->buf, PAGE_SIZE }, { s->buf, PAGE_SIZE }, { s->buf, PAGE_SIZE },
	};

	return pwritev(s->slot, iov, FILE_PAGES, FILE_OFFSET);
}

/* What it says that it has written it has, and what has changed is in the log. */
static void after_pwrite(struct __test_metadata *_metadata, struct subject *s)
{
	char page[PAGE_SIZE];

	for (__u64 n = FILE_FIRST; n <= FILE_FIRST + FILE_PAGES; n++) {
		size_t from = n == FILE_FIRST ? FILE_OFFSET % PAGE_SIZE : 0;
		__s64 said = FILE_OFFSET + s->ret - BYTES(n);

		ASSERT_EQ((ssize_t)PAGE_SIZE, pread(s->slot, page, PAGE_SIZE, BYTES(n)));
		if (!bytes_are(page, 0, PAGE_SIZE))
			bit_set(s->written, n);
		if (said > (__s64)PAGE_SIZE)
			said = PAGE_SIZE;
		if (s->ret > 0 && said > (__s64)from)
			EXPECT_TRUE(bytes_are(page + from, 0x5a, said - from));
	}
	nothing_lost(_metadata, s, NULL);
}

static ssize_t run_pread(struct subject *s)
{
	return pread(s->slot, s->buf, PAGE_SIZE, 100);
}

static ssize_t run_populate(struct subject *s)
{
	return fallocate(s->slot, 0, 0, BYTES(64));
}

static void after_populate(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 resident = test_resident(s->slot);

	EXPECT_LE(resident, 64);
	if (s->ret >= 0)
		EXPECT_EQ(64, resident);
	still_tracks(_metadata, s);
}

static void resident_and_clean(struct __test_metadata *_metadata, struct subject *s)
{
	for (__u64 n = 0; n < NPAGES; n++)
		dirty(s, n);
	nothing_lost(_metadata, s, NULL);
}

static ssize_t run_punch(struct subject *s)
{
	return fallocate(s->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100,
			 BYTES(150));
}

/* Pages that were not empty and are now, whole or in part, have been written. */
static void after_punch(struct __test_metadata *_metadata, struct subject *s)
{
	for (__u64 n = 0; n <= 150; n++)
		bit_set(s->written, n);
	for (__u64 n = 1; n < 150; n++)
		EXPECT_TRUE(bytes_are(page_at(s->mem, n), 0, PAGE_SIZE));
	nothing_lost(_metadata, s, NULL);
}

/* Pages of two words, in no order, some of them twice. */
static const struct dirtytrack_range some[] = { { 100, 20 }, { 10, 60 }, { 115, 10 } };

/* How many pages of some[] have memory. */
static __u64 resident_of_some(struct subject *s)
{
	__u64 n = 0;

	for (__u64 page = 0; page < NPAGES; page++)
		n += ((page >= 10 && page < 70) || (page >= 100 && page < 125)) &&
		     lseek(s->slot, BYTES(page), SEEK_DATA) == (off_t)BYTES(page);
	return n;
}

static ssize_t run_populate_ranges(struct subject *s)
{
	return _test_populate(s->slot, some, ARRAY_SIZE(some), DIRTYTRACK_NODE_ANY,
			      &s->populate);
}

/* What it says that it has done it has, and where it stopped is where to go on. */
static void after_populate_ranges(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 resident = resident_of_some(s);

	EXPECT_EQ(resident, test_resident(s->slot));
	if (s->ret >= 0) {
		EXPECT_EQ(resident, s->populate.out_pages);
		EXPECT_LT(0, resident);
		if (s->populate.out_nr == ARRAY_SIZE(some)) {
			EXPECT_EQ(85, resident);
		}
	}
	still_tracks(_metadata, s);
}

static ssize_t run_release(struct subject *s)
{
	return _test_release(s->slot, DIRTYTRACK_SLOT_RELEASE, some, ARRAY_SIZE(some),
			     &s->release);
}

static ssize_t run_release_clean(struct subject *s)
{
	return _test_release(s->log, DIRTYTRACK_LOG_RELEASE_CLEAN, some,
			     ARRAY_SIZE(some), &s->release);
}

/* The ranges that it says it did, and nothing else; released pages are in the logs. */
static void after_release(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 released = 85 - resident_of_some(s);

	EXPECT_EQ(NPAGES - released, test_resident(s->slot));
	if (s->ret >= 0) {
		EXPECT_EQ(released, s->release.out_released);
		EXPECT_EQ(0, s->release.out_skipped);
		EXPECT_LT(0, released);
	}
	for (__u64 n = 0; n < NPAGES; n++)
		if (lseek(s->slot, BYTES(n), SEEK_DATA) != (off_t)BYTES(n))
			bit_set(s->written, n);
	nothing_lost(_metadata, s, NULL);
}

TEST_F(nth, pwrite)
{
	SWEEP(.before = punched, .run = run_pwrite, .after = after_pwrite);
}

TEST_F(nth, pread) { SWEEP(.before = resident_and_clean, .run = run_pread); }

TEST_F(nth, populate)
{
	SWEEP(.before = punched, .run = run_populate, .after = after_populate);
}

TEST_F(nth, punch)
{
	SWEEP(.before = resident_and_clean, .run = run_punch, .after = after_punch,
	      .absorbs = true);
}

TEST_F(nth, populate_ranges)
{
	SWEEP(.before = punched, .run = run_populate_ranges,
	      .after = after_populate_ranges);
}

TEST_F(nth, release)
{
	SWEEP(.before = resident_and_clean, .run = run_release, .after = after_release);
}

TEST_F(nth, release_clean)
{
	SWEEP(.before = resident_and_clean, .run = run_release_clean,
	      .after = after_release);
}

/* ---- mappings ---- */

static ssize_t run_map(struct subject *s)
{
	s->map = _test_map(s->slot, 0, NPAGES);
	return as_result(s->map);
}

static void after_map(struct __test_metadata *_metadata, struct subject *s)
{
	if (s->ret >= 0) {
		poke(page_at(s->map, 8));
		bit_set(s->written, 8);
		test_unmap(s->map, NPAGES);
	}
	still_tracks(_metadata, s);
}

/* A fault that fails for want of memory is tried again, so a store never fails. */
static ssize_t run_store(struct subject *s)
{
	page_write(s->mem, 20, 0x33);
	page_write(s->mem, 21, 0x34);
	return 0;
}

static void after_store(struct __test_metadata *_metadata, struct subject *s)
{
	EXPECT_EQ(0x33, page_read(s->mem, 20));
	EXPECT_EQ(0x34, page_read(s->mem, 21));
	bit_set(s->written, 20);
	bit_set(s->written, 21);
	nothing_lost(_metadata, s, NULL);
}

static ssize_t run_load(struct subject *s)
{
	return page_read(s->mem, 30);
}

/* The kernel writes through the mapping, and faults for it. */
#define COPY_FIRST	20
#define COPY_PAGES	2

static void punched_and_source(struct __test_metadata *_metadata, struct subject *s)
{
	punched(_metadata, s);
	if (!s->source) {
		s->source = memfd_create("source", MFD_CLOEXEC);
		ASSERT_LT(0, s->source);
		for (__u64 n = 0; n < COPY_PAGES; n++)
			ASSERT_EQ((ssize_t)PAGE_SIZE,
				  pwrite(s->source, s->buf, PAGE_SIZE, BYTES(n)));
	}
}

static ssize_t run_read(struct subject *s)
{
	return pread(s->source, page_at(s->mem, COPY_FIRST), BYTES(COPY_PAGES), 0);
}

static ssize_t run_vm_writev(struct subject *s)
{
	struct iovec local[COPY_PAGES] = { { s->buf, PAGE_SIZE }, { s->buf, PAGE_SIZE } };
	struct iovec remote = { page_at(s->mem, COPY_FIRST), BYTES(COPY_PAGES) };

	return process_vm_writev(getpid(), local, COPY_PAGES, &remote, 1, 0);
}

/* As after_pwrite(). */
static void after_copy(struct __test_metadata *_metadata, struct subject *s)
{
	ssize_t said = s->ret < 0 ? 0 : s->ret;

	EXPECT_TRUE(bytes_are(page_at(s->mem, COPY_FIRST), 0x5a, said));
	for (__u64 n = COPY_FIRST; n < COPY_FIRST + COPY_PAGES; n++)
		if (!bytes_are(page_at(s->mem, n), 0, PAGE_SIZE))
			bit_set(s->written, n);
	nothing_lost(_metadata, s, NULL);
}

static ssize_t run_fork(struct subject *s)
{
	s->pid = fork();
	if (!s->pid) {
		poke(page_at(s->mem, 40));
		_exit(0);
	}
	return s->pid;
}

static void after_fork(struct __test_metadata *_metadata, struct subject *s)
{
	if (s->pid > 0) {
		EXPECT_TRUE(child_ok(s->pid));
		bit_set(s->written, 40);
	}
	still_tracks(_metadata, s);
}

/* A part in the middle is cut out, moved or changed: the VMA is split. */
static ssize_t run_mprotect(struct subject *s)
{
	return mprotect(page_at(s->mem, 50), BYTES(50), PROT_READ);
}

static void after_mprotect(struct __test_metadata *_metadata, struct subject *s)
{
	ASSERT_EQ(0, mprotect(page_at(s->mem, 50), BYTES(50), PROT_READ | PROT_WRITE));
	dirty(s, 60);
	still_tracks(_metadata, s);
}

static ssize_t run_mremap(struct subject *s)
{
	s->map = mremap(page_at(s->mem, 50), BYTES(50), BYTES(50),
			MREMAP_MAYMOVE | MREMAP_FIXED, page_at(s->mem, NPAGES + 50));
	return as_result(s->map);
}

static void map_and_dirty(struct __test_metadata *_metadata, struct subject *s)
{
	map_anew(_metadata, s);
	for (__u64 n = 45; n < 105; n++)
		dirty(s, n);
}

static void after_mremap(struct __test_metadata *_metadata, struct subject *s)
{
	char *moved = s->ret < 0 ? page_at(s->mem, 50) : s->map;

	dirty(s, 49);
	dirty(s, 100);
	poke(page_at(moved, 11));
	bit_set(s->written, 61);
	still_tracks(_metadata, s);
}

static ssize_t run_munmap(struct subject *s)
{
	return munmap(page_at(s->mem, 50), BYTES(50));
}

static ssize_t run_map_log(struct subject *s)
{
	s->map = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, s->log, 0);
	if (s->map != MAP_FAILED)
		s->buf[0] = *(volatile __u64 *)s->map;
	return as_result(s->map);
}

static void unmap_page(struct __test_metadata *_metadata, struct subject *s)
{
	if (s->map != MAP_FAILED)
		ASSERT_EQ(0, munmap(s->map, PAGE_SIZE));
}

TEST_F(nth, map) { SWEEP(.run = run_map, .after = after_map); }

TEST_F(nth, store)
{
	SWEEP(.before = punched, .run = run_store, .after = after_store, .absorbs = true);
}

TEST_F(nth, store_to_resident)
{
	SWEEP(.before = resident_and_clean, .run = run_store, .after = after_store,
	      .absorbs = true);
}

TEST_F(nth, load)
{
	SWEEP(.before = punched, .run = run_load, .after = still_tracks, .absorbs = true);
}

TEST_F(nth, read_into_mapping)
{
	SWEEP(.before = punched_and_source, .run = run_read, .after = after_copy);
}

TEST_F(nth, vm_writev)
{
	SWEEP(.before = punched_and_source, .run = run_vm_writev, .after = after_copy);
}

TEST_F(nth, fork) { SWEEP(.before = dirty_some, .run = run_fork, .after = after_fork); }

TEST_F(nth, mprotect)
{
	SWEEP(.before = map_and_dirty, .run = run_mprotect, .after = after_mprotect);
}

TEST_F(nth, mremap)
{
	SWEEP(.before = map_and_dirty, .run = run_mremap, .after = after_mremap);
}

TEST_F(nth, munmap)
{
	SWEEP(.before = map_and_dirty, .run = run_munmap, .after = still_tracks);
}

TEST_F(nth, map_log) { SWEEP(.run = run_map_log, .after = unmap_page); }

/* ---- a log ---- */

static void dirty_and_empty(struct __test_metadata *_metadata, struct subject *s)
{
	memset(s->buf, 0, sizeof(s->buf));
	dirty_some(_metadata, s);
}

static ssize_t run_log_info(struct subject *s)
{
	struct dirtytrack_log_info info;

	return _test_log_info(s->log, &info);
}

static ssize_t run_harvest(struct subject *s)
{
	struct dirtytrack_harvest arg;

	/* From another bit than the first page's, so that words are cut. */
	return _test_harvest(s->log, 0, 0, NPAGES, s->buf, 13, &arg);
}

/* The caller has the bits, even if the call could not say how many. */
static void after_harvest(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 got[ARRAY_SIZE(s->written)];

	for (size_t i = 0; i < ARRAY_SIZE(got); i++)
		got[i] = s->buf[i] >> 13 | s->buf[i + 1] << 51;
	nothing_lost(_metadata, s, got);
}

static ssize_t run_extents(struct subject *s)
{
	return _test_extents(s->log, 0, 0, NPAGES, s->buf, 100, &s->extents);
}

/* Nobody knows how many are his. */
static void after_extents(struct __test_metadata *_metadata, struct subject *s)
{
	const struct dirtytrack_extent *e = (void *)s->buf;
	__u64 got[ARRAY_SIZE(s->written)] = { 0 };

	for (__u32 i = 0; s->ret >= 0 && i < s->extents.out_nr; i++)
		for (__u64 n = 0; n < e[i].npages; n++)
			bit_set(got, e[i].first + n);
	nothing_lost(_metadata, s, got);
}

static ssize_t run_peek(struct subject *s)
{
	struct dirtytrack_harvest arg;

	return _test_harvest(s->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, s->buf, 0, &arg);
}

static ssize_t run_peek_extents(struct subject *s)
{
	return _test_extents(s->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, s->buf, 100,
			     &s->extents);
}

/* Half of the pages of each word, in a bitmap. */
static void dirty_and_select(struct __test_metadata *_metadata, struct subject *s)
{
	dirty_some(_metadata, s);
	for (size_t i = 0; i < ARRAY_SIZE(s->written); i++)
		s->buf[i] = 0x00ff00ff00ff00ffULL;
}

static ssize_t run_clear(struct subject *s)
{
	struct dirtytrack_bitmap arg;

	return _test_bitmap(s->log, DIRTYTRACK_LOG_CLEAR, 0, NPAGES, s->buf, 0, &arg);
}

static ssize_t run_merge(struct subject *s)
{
	struct dirtytrack_bitmap arg;

	return _test_bitmap(s->log, DIRTYTRACK_LOG_MERGE, 0, NPAGES, s->buf, 0, &arg);
}

/* Who clears takes the pages upon himself. */
static void after_clear(struct __test_metadata *_metadata, struct subject *s)
{
	nothing_lost(_metadata, s, s->buf);
}

static const struct dirtytrack_range ranges[] = { { 0, 30 }, { 100, 70 }, { 63, 2 } };

static ssize_t run_clear_ranges(struct subject *s)
{
	struct dirtytrack_ranges arg;

	return _test_ranges(s->log, DIRTYTRACK_LOG_CLEAR_RANGES, ranges,
			    ARRAY_SIZE(ranges), &arg);
}

static ssize_t run_merge_ranges(struct subject *s)
{
	struct dirtytrack_ranges arg;

	return _test_ranges(s->log, DIRTYTRACK_LOG_MERGE_RANGES, ranges,
			    ARRAY_SIZE(ranges), &arg);
}

static void after_clear_ranges(struct __test_metadata *_metadata, struct subject *s)
{
	__u64 cleared[ARRAY_SIZE(s->written)] = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		for (__u64 n = 0; n < ranges[i].npages; n++)
			bit_set(cleared, ranges[i].first + n);
	nothing_lost(_metadata, s, cleared);
}

static ssize_t run_limit(struct subject *s)
{
	struct dirtytrack_limit arg = { .size = sizeof(arg), .rate = 1000000 };

	return dt_ioctl(s->log, DIRTYTRACK_LOG_LIMIT, &arg);
}

TEST_F(nth, log_info) { SWEEP(.run = run_log_info); }

TEST_F(nth, harvest)
{
	SWEEP(.before = dirty_and_empty, .run = run_harvest, .after = after_harvest);
}

TEST_F(nth, harvest_extents)
{
	SWEEP(.before = dirty_and_empty, .run = run_extents, .after = after_extents);
}

TEST_F(nth, peek)
{
	SWEEP(.before = dirty_and_empty, .run = run_peek, .after = check_lost);
}

TEST_F(nth, peek_extents)
{
	SWEEP(.before = dirty_and_empty, .run = run_peek_extents, .after = check_lost);
}

TEST_F(nth, clear)
{
	SWEEP(.before = dirty_and_select, .run = run_clear, .after = after_clear);
}

TEST_F(nth, clear_ranges)
{
	SWEEP(.before = dirty_some, .run = run_clear_ranges, .after = after_clear_ranges);
}

TEST_F(nth, merge)
{
	SWEEP(.before = dirty_and_select, .run = run_merge, .after = check_lost);
}

TEST_F(nth, merge_ranges)
{
	SWEEP(.before = dirty_some, .run = run_merge_ranges, .after = check_lost);
}

TEST_F(nth, limit) { SWEEP(.run = run_limit, .after = still_tracks); }

TEST_HARNESS_MAIN
