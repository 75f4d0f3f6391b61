// SPDX-License-Identifier: GPL-2.0-only
/*
 * Release of what is clean in a log
 *
 * What a harvest would report, keeps its memory and its content, however it was written;
 * everything else goes.  A test writes in its own way and says what it wrote, as those
 * of tracked.h do; then clean() releases the whole slot and wants exactly that.
 */
#include "tracked.h"

#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define NPAGES	(2 * 512 + 200UL)	/* more than two chunks */
#define CLEAN	DIRTYTRACK_LOG_RELEASE_CLEAN

TRACKED_FIXTURE(clean, NPAGES)

/* What each page holds, of the file: to look allocates nothing. */
static void contents(struct tracked *t, __u64 *first_words)
{
	for (__u64 n = 0; n < t->npages; n++)
		if (pread(t->slot, &first_words[n], 8, BYTES(n)) != 8)
			dt_broken("pread: %s", strerror(errno));
}

static void resident_pages(struct tracked *t, __u64 *map)
{
	off_t at = 0, end = 0;

	bitmap_zero(map, t->npages);
	while ((at = lseek(t->slot, end, SEEK_DATA)) >= 0) {
		end = lseek(t->slot, at, SEEK_HOLE);
		for (__u64 n = at / PAGE_SIZE; n < end / PAGE_SIZE; n++)
			bit_set(map, n);
	}
}

/*
 * Releases what is clean of the slot: all that has memory, but for what was said to be
 * written since the last check, which keeps its content.
 */
static void clean_slot(struct __test_metadata *_metadata, struct tracked *t, int line)
{
	__u64 *resident = bitmap_alloc(NPAGES), *after = bitmap_alloc(NPAGES);
	__u64 was[NPAGES], is[NPAGES], released = 0, skipped = 0;
	struct done done;

	resident_pages(t, resident);
	contents(t, was);
	done = test_release_range(t->log, CLEAN, 0, NPAGES);
	contents(t, is);
	resident_pages(t, after);
	for (__u64 n = 0; n < NPAGES; n++) {
		bool written = bit_test(t->want, n);

		if (!bit_test(resident, n))
			continue;
		skipped += written;
		released += !written;
		EXPECT_EQ(written, bit_test(after, n)) {
			TH_LOG("line %d: page %llu was %s and %s memory", line, n,
			       written ? "written" : "clean", written ? "lost its" : "kept");
		}
		EXPECT_EQ(written ? was[n] : 0, is[n]) {
			TH_LOG("line %d: page %llu", line, n);
		}
		if (!written)
			wrote(t, n, 1);
	}
	EXPECT_EQ(released, done.pages) {
		TH_LOG("line %d: pages released", line);
	}
	EXPECT_EQ(skipped, done.skipped) {
		TH_LOG("line %d: pages skipped", line);
	}
	EXPECT_EQ(skipped, test_resident(t->slot));
	free(resident);
	free(after);
}

#define clean(t) clean_slot(_metadata, t, __LINE__)

/* All have memory and are clean, whatever the fixture's state was. */
static void fill_slot(struct __test_metadata *_metadata, struct tracked *t)
{
	put_range(t, 0, NPAGES);
	check(t);
}

/* ---- what is clean goes ---- */

TEST_F(clean, all_that_was_harvested)
{
	struct tracked *t = &self->t;
	__u64 *holes = bitmap_alloc(NPAGES), *data = bitmap_alloc(NPAGES);

	fill_slot(_metadata, t);
	clean(t);
	EXPECT_EQ(0, test_resident(t->slot));
	/* As holes. */
	EXPECT_EQ(NPAGES, test_extents_all(t->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, 9,
					   data, holes));
	EXPECT_EQ(0, bits_count(data, NPAGES));
	check(t);
	/* They are pages like others after. */
	put_range(t, 40, 30);
	check(t);
	clean(t);
	check(t);
	free(holes);
	free(data);
}

/* A log that started clean reports nothing of what was written before. */
TEST_F(clean, what_was_there_when_the_log_started)
{
	clean(&self->t);
	check(&self->t);
}

/* Opened with a neighbour, mapped for reading, or only looked at by the kernel. */
TEST_F(clean, what_was_opened_and_not_written)
{
	struct tracked *t = &self->t;
	char *other = mmap(NULL, BYTES(NPAGES), PROT_READ, MAP_SHARED, t->slot, 0);
	char buf[PAGE_SIZE];

	ASSERT_NE(MAP_FAILED, other);
	fill_slot(_metadata, t);
	for (__u64 n = 0; n < NPAGES; n++)
		(void)page_read(other, n);
	/* One page of every group of 64. */
	for (__u64 n = 13; n < NPAGES; n += 64)
		put(t, n);
	for (__u64 n = 5; n < NPAGES; n += 64)
		ASSERT_EQ((ssize_t)PAGE_SIZE, pread(t->slot, buf, PAGE_SIZE, BYTES(n)));
	clean(t);
	check(t);
	/* Through either mapping they are zero. */
	EXPECT_TRUE(page_is_zero(page_at(other, 12)));
	EXPECT_TRUE(page_is_zero(page_at(t->mem, 14)));
	check(t);
	test_unmap(other, NPAGES);
}

TEST_F(clean, only_what_was_asked_for)
{
	struct tracked *t = &self->t;
	struct dirtytrack_range ranges[] = { { 600, 10 }, { 100, 30 }, { 603, 20 } };
	struct dirtytrack_release arg;

	fill_slot(_metadata, t);
	put(t, 110);
	put(t, 50);
	put(t, 610);
	ASSERT_EQ(0, _test_release(t->log, CLEAN, ranges, 3, &arg));
	EXPECT_EQ(3, arg.out_nr);
	EXPECT_EQ(51, arg.out_released);
	EXPECT_EQ(2, arg.out_skipped);
	EXPECT_EQ(NPAGES - 51, test_resident(t->slot));
	wrote(t, 100, 30);
	wrote(t, 600, 23);
	check(t);
}

/* Nothing to do is no work: of what is dirty already, no mapping is taken. */
TEST_F(clean, counts_unmaps)
{
	struct tracked *t = &self->t;
	__u64 got[bitmap_words(NPAGES)];
	struct done done;

	fill_slot(_metadata, t);
	EXPECT_EQ(2, test_release_range(t->log, CLEAN, 510, 4).unmaps);
	wrote(t, 510, 4);
	check(t);
	put_range(t, 0, 100);
	/* A collect of another takes them to all logs. */
	memset(got, 0, sizeof(got));
	test_harvest_all(t->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, got, 0);
	done = test_release_range(t->log, CLEAN, 0, 100);
	EXPECT_EQ(0, done.pages);
	EXPECT_EQ(100, done.skipped);
	EXPECT_EQ(0, done.unmaps);
	check(t);
}

/* ---- what was written stays, by whom ever ---- */

static void *store_thread(void *page)
{
	poke(page);
	return NULL;
}

static void by_thread(struct tracked *t, __u64 page)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, store_thread, page_at(t->mem, page)) ||
	    pthread_join(thread, NULL))
		dt_broken("a thread: %s", strerror(errno));
}

static void by_store(struct tracked *t, __u64 page)
{
	poke(page_at(t->mem, page));
}

static void by_child(struct tracked *t, __u64 page)
{
	pid_t pid = fork();

	if (!pid) {
		poke(page_at(t->mem, page));
		_exit(0);
	}
	if (pid < 0 || !child_ok(pid))
		dt_broken("a child that writes");
}

static void by_mapping_that_goes(struct tracked *t, __u64 page)
{
	char *map = _test_map(t->slot, page, 1);

	if (map == MAP_FAILED)
		dt_broken("mmap: %s", strerror(errno));
	poke(map);
	test_unmap(map, 1);
}

static void by_vm_writev(struct tracked *t, __u64 page)
{
	__u64 value = fresh_value();
	struct iovec local = { &value, 8 }, remote = { page_at(t->mem, page), 8 };

	if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != 8)
		dt_broken("process_vm_writev: %s", strerror(errno));
}

static void by_pwrite(struct tracked *t, __u64 page)
{
	__u64 value = fresh_value();

	if (pwrite(t->slot, &value, 8, BYTES(page) + 16) != 8)
		dt_broken("pwrite: %s", strerror(errno));
}

static void by_read(struct tracked *t, __u64 page)
{
	__u64 value = fresh_value();
	int pipes[2];

	if (pipe(pipes) || write(pipes[1], &value, 8) != 8 ||
	    read(pipes[0], page_at(t->mem, page), 8) != 8)
		dt_broken("read: %s", strerror(errno));
	close(pipes[0]);
	close(pipes[1]);
}

static void by_splice(struct tracked *t, __u64 page)
{
	__u64 value = fresh_value();
	loff_t off = BYTES(page);
	int pipes[2];

	if (pipe(pipes) || write(pipes[1], &value, 8) != 8 ||
	    splice(pipes[0], NULL, t->slot, &off, 8, 0) != 8)
		dt_broken("splice: %s", strerror(errno));
	close(pipes[0]);
	close(pipes[1]);
}

/* A dirty entry that is read-only, and one that came back from it. */
static void by_store_then_readonly(struct tracked *t, __u64 page)
{
	poke(page_at(t->mem, page));
	if (mprotect(page_at(t->mem, page), PAGE_SIZE, PROT_READ))
		dt_broken("mprotect: %s", strerror(errno));
}

static void by_mprotect_round_trip(struct tracked *t, __u64 page)
{
	char *at = page_at(t->mem, page);

	poke(at);
	if (mprotect(at, PAGE_SIZE, PROT_NONE) || mprotect(at, PAGE_SIZE, PROT_READ) ||
	    mprotect(at, PAGE_SIZE, PROT_READ | PROT_WRITE))
		dt_broken("mprotect: %s", strerror(errno));
	poke(at);
}

static void by_partial_punch(struct tracked *t, __u64 page)
{
	if (fallocate(t->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      BYTES(page) + 2000, 100))
		dt_broken("fallocate: %s", strerror(errno));
}

static const struct {
	const char *name;
	void (*write)(struct tracked *t, __u64 page);
} ways[] = {
	{ "store", by_store },
	{ "thread", by_thread },
	{ "child that exits", by_child },
	{ "mapping that goes", by_mapping_that_goes },
	{ "process_vm_writev", by_vm_writev },
	{ "pwrite", by_pwrite },
	{ "read", by_read },
	{ "splice", by_splice },
	{ "store, then mprotect to read-only", by_store_then_readonly },
	{ "mprotect round trip", by_mprotect_round_trip },
	{ "part of a page punched", by_partial_punch },
};

/* Each way alone, with what it wrote the time before now clean. */
TEST_F(clean, not_what_was_written_since)
{
	struct tracked *t = &self->t;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		const __u64 pages[] = { 3, 100 + i, 511, 512, NPAGES - 1 };

		ASSERT_EQ(0, mprotect(t->mem, BYTES(NPAGES), PROT_READ | PROT_WRITE));
		fill_slot(_metadata, t);
		for (size_t k = 0; k < ARRAY_SIZE(pages); k++) {
			ways[i].write(t, pages[k]);
			wrote(t, pages[k], 1);
		}
		clean(t);
		/* Another time, with nothing new: they stay. */
		clean(t);
		check(t);
		ASSERT_EQ(0, mprotect(t->mem, BYTES(NPAGES), PROT_READ | PROT_WRITE));
		/* Reported, so clean now. */
		clean(t);
		EXPECT_EQ(0, test_resident(t->slot));
		check(t);
		if (!_metadata->passed) {
			TH_LOG("by %s", ways[i].name);
			break;
		}
	}
}

/* The other process lives, with its entries, and writes when the page is gone. */
TEST_F(clean, another_process_writes_on)
{
	struct tracked *t = &self->t;
	int pair[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	fill_slot(_metadata, t);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		for (int i = 0; i < 3; i++) {
			poke(page_at(t->mem, 77));
			poke(page_at(t->mem, 600 + i));
			turn_give(pair[1]);
			if (!turn_wait(pair[1]))
				_exit(1);
		}
		_exit(0);
	}
	for (int i = 0; i < 3; i++) {
		ASSERT_TRUE(turn_wait(pair[0]));
		wrote(t, 77, 1);
		wrote(t, 600 + i, 1);
		clean(t);
		check(t);
		/* What is clean by now goes, under his entries. */
		if (i == 1) {
			clean(t);
			check(t);
		}
		turn_give(pair[0]);
	}
	EXPECT_TRUE(child_ok(pid));
	close(pair[0]);
	close(pair[1]);
	check(t);
}

/* ---- what the log says ---- */

/* Clean, but in the log: put back by its consumer; and what he has cleared. */
TEST_F(clean, not_what_was_merged)
{
	struct tracked *t = &self->t;
	struct dirtytrack_range some[] = { { 30, 5 }, { 510, 4 } };
	__u64 pages;

	fill_slot(_metadata, t);
	ASSERT_EQ(0, _test_ranges_all(t->log, DIRTYTRACK_LOG_MERGE_RANGES, some, 2, &pages));
	wrote(t, 30, 5);
	wrote(t, 510, 4);
	/* The ring has none of these. */
	if (t->ring.nr) {
		t->named = ring_head(&t->ring);
		for (__u64 n = 0; n < NPAGES; n++)
			if (bit_test(t->want, n))
				put(t, n);
	}
	clean(t);
	ASSERT_EQ(0, _test_ranges_all(t->log, DIRTYTRACK_LOG_CLEAR_RANGES, some, 2, &pages));
	EXPECT_EQ(9, pages);
	for (__u64 n = 0; n < NPAGES; n++)
		if ((n >= 30 && n < 35) || (n >= 510 && n < 514))
			bit_clear(t->want, n);
	clean(t);
	EXPECT_EQ(0, test_resident(t->slot));
	check(t);
}

/* Who was only given a log can watch, and slow writers down. */
TEST_F(clean, not_by_a_log_that_may_not)
{
	struct tracked *t = &self->t;
	struct dirtytrack_range range = { 0, NPAGES };
	int others[] = {
		test_log_create(t->slot, 0),
		test_log_create(t->slot, DIRTYTRACK_LOG_ALL_SET),
	};
	struct dirtytrack_release arg;

	fill_slot(_metadata, t);
	for (int i = 0; i < 2; i++) {
		EXPECT_ERRNO(EPERM, _test_release(others[i], CLEAN, &range, 1, &arg));
		close(others[i]);
	}
	EXPECT_EQ(NPAGES, test_resident(t->slot));
	clean(t);
	check(t);
}

/* A peek is no harvest. */
TEST_F(clean, not_what_was_peeked)
{
	struct tracked *t = &self->t;
	__u64 got[bitmap_words(NPAGES)];

	fill_slot(_metadata, t);
	put_range(t, 60, 10);
	memset(got, 0, sizeof(got));
	EXPECT_EQ(10, test_harvest_all(t->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, got, 0));
	clean(t);
	check(t);
}

/* What another log was told of, this one was not. */
TEST_F(clean, not_what_another_log_reported)
{
	struct tracked *t = &self->t;
	int other = test_log_create(t->slot, DIRTYTRACK_LOG_MAY_RELEASE);
	__u64 got[bitmap_words(NPAGES)];

	fill_slot(_metadata, t);
	put_range(t, 60, 10);
	memset(got, 0, sizeof(got));
	EXPECT_EQ(NPAGES, test_harvest_all(other, 0, 0, NPAGES, got, 0));
	clean(t);
	/* By the other log they are clean. */
	EXPECT_EQ(10, test_release_range(other, CLEAN, 0, NPAGES).pages);
	EXPECT_EQ(0, test_resident(t->slot));
	check(t);
	close(other);
}

/* And what another was not told of goes, if it is clean by this one: as a hole. */
TEST_F(clean, what_is_dirty_by_another_log)
{
	struct tracked *t = &self->t;
	__u64 *holes = bitmap_alloc(NPAGES), *data = bitmap_alloc(NPAGES);
	int other = test_log_create(t->slot, DIRTYTRACK_LOG_MAY_RELEASE);

	fill_slot(_metadata, t);
	put(t, 9);
	clean(t);
	EXPECT_EQ(NPAGES, test_extents_all(other, 0, 0, NPAGES, 9, data, holes));
	EXPECT_EQ(1, bits_count(data, NPAGES));
	EXPECT_TRUE(bit_test(data, 9));
	check(t);
	close(other);
	free(holes);
	free(data);
}

/* A log that starts with everything keeps everything, until it is harvested. */
TEST_F(clean, nothing_of_a_log_that_starts_full)
{
	struct tracked *t = &self->t;
	__u64 got[bitmap_words(NPAGES)];
	struct done done;
	int all;

	fill_slot(_metadata, t);
	all = test_log_create(t->slot, DIRTYTRACK_LOG_ALL_SET | DIRTYTRACK_LOG_MAY_RELEASE);
	done = test_release_range(all, CLEAN, 0, NPAGES);
	EXPECT_EQ(0, done.pages);
	EXPECT_EQ(NPAGES, done.skipped);
	EXPECT_EQ(0, done.unmaps);
	memset(got, 0, sizeof(got));
	EXPECT_EQ(100, test_harvest_all(all, 0, 50, 100, got, 0));
	EXPECT_EQ(100, test_release_range(all, CLEAN, 0, NPAGES).pages);
	wrote(t, 50, 100);
	check(t);
	memset(got, 0, sizeof(got));
	EXPECT_EQ(NPAGES, test_harvest_all(all, 0, 0, NPAGES, got, 0));
	EXPECT_EQ(NPAGES - 100, test_release_range(all, CLEAN, 0, NPAGES).pages);
	EXPECT_EQ(0, test_resident(t->slot));
	wrote(t, 0, 50);
	wrote(t, 150, NPAGES - 150);
	check(t);
	close(all);
}

/* Released, and touched before any harvest has told of that: the log will. */
TEST_F(clean, not_what_was_released_and_is_back)
{
	struct tracked *t = &self->t;

	fill_slot(_metadata, t);
	test_release_range(t->slot, DIRTYTRACK_SLOT_RELEASE, 20, 10);
	wrote(t, 20, 10);
	EXPECT_EQ(0, page_read(t->mem, 25));
	EXPECT_EQ(1, test_release_range(t->log, CLEAN, 20, 10).skipped);
	clean(t);
	EXPECT_EQ(1, test_resident(t->slot));
	check(t);
	clean(t);
	EXPECT_EQ(0, test_resident(t->slot));
	check(t);
}

/* ---- what somebody holds ---- */

/* In a pipe, clean: he may be writing for all that is known. */
TEST_F(clean, not_what_is_held)
{
	struct tracked *t = &self->t;
	struct iovec iov = { .iov_base = page_at(t->mem, 30), .iov_len = BYTES(3) };
	char buf[3 * PAGE_SIZE];
	int pipes[2];

	fill_slot(_metadata, t);
	ASSERT_EQ(0, pipe(pipes));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ((ssize_t)BYTES(3), vmsplice(pipes[1], &iov, 1, 0));
		/* What was skipped the next harvest reports, though nobody wrote. */
		for (__u64 n = 30; n < 33; n++)
			bit_set(t->want, n);
		clean(t);
		t->inexact = true;
		/* No ring hears of that. */
		if (t->ring.nr)
			put_range(t, 30, 3);
		check(t);
		ASSERT_EQ((ssize_t)BYTES(3), read(pipes[0], buf, BYTES(3)));
		EXPECT_EQ(0, memcmp(page_at(t->mem, 30), buf, BYTES(3)));
		/* The last one may have been left open. */
		check_within(t, t->ever);
	}
	clean(t);
	EXPECT_EQ(0, test_resident(t->slot));
	check(t);
	close(pipes[0]);
	close(pipes[1]);
}

/* ---- a harvest that has taken pages, and not delivered them ---- */

struct taker {
	int log;
	__u64 *bitmap;
	int ret, err;
	_Atomic bool ended;
	struct done done;
};

static void *taker_harvest(void *arg)
{
	struct taker *k = arg;
	struct dirtytrack_harvest h;

	k->ret = _test_harvest(k->log, 0, 0, NPAGES, k->bitmap, 0, &h);
	k->err = errno;
	return NULL;
}

static void *taker_release(void *arg)
{
	struct dirtytrack_range range = { 0, NPAGES };
	struct taker *k = arg;

	k->ret = _test_release_all(k->log, CLEAN, &range, 1, &k->done);
	k->err = errno;
	k->ended = true;
	return NULL;
}

/*
 * Its buffer makes it wait, in the middle; then there is none, and it puts back what it
 * has: a page that was neither in the log nor delivered for a while was not clean.
 */
TEST(waits_for_a_harvest)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct taker harvest, release;
	pthread_t threads[2];
	struct uffd_msg msg;
	struct tracked t;

	if (uffd < 0)
		SKIP(return, "no userfaultfd: %s", strerror(errno));
	tracked_open(_metadata, &t, NPAGES, START_FRESH);
	fill_slot(_metadata, &t);
	put_range(&t, 0, 7);
	harvest = (struct taker){ .log = t.log };
	release = (struct taker){ .log = t.log };
	harvest.bitmap = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)harvest.bitmap);
	reg.range.start = (uintptr_t)harvest.bitmap;
	reg.range.len = PAGE_SIZE;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));

	ASSERT_EQ(0, pthread_create(&threads[0], NULL, taker_harvest, &harvest));
	ASSERT_EQ((ssize_t)sizeof(msg), read(uffd, &msg, sizeof(msg)));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, taker_release, &release));
	pause_ms(200);
	EXPECT_FALSE(release.ended);
	ASSERT_EQ(0, munmap(harvest.bitmap, PAGE_SIZE));
	ASSERT_EQ(0, close(uffd));
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	EXPECT_EQ(-1, harvest.ret);
	EXPECT_EQ(EFAULT, harvest.err);
	EXPECT_EQ(0, release.ret);
	EXPECT_EQ(NPAGES - 7, release.done.pages);
	EXPECT_EQ(7, release.done.skipped);
	EXPECT_EQ(7, test_resident(t.slot));
	wrote(&t, 0, NPAGES);
	check(&t);
	tracked_close(_metadata, &t);
}

/* ---- a slot that nothing else holds ---- */

TEST(by_the_log_alone)
{
	int slot = test_new_slot(NPAGES), log = test_log_create(slot, DIRTYTRACK_LOG_MAY_RELEASE);
	struct dirtytrack_range range = { 0, NPAGES };
	__u64 got[bitmap_words(NPAGES)];
	struct done done = { };

	for (__u64 n = 0; n < NPAGES; n++)
		ASSERT_EQ(1, pwrite(slot, "x", 1, BYTES(n)));
	close(slot);
	ASSERT_EQ(0, _test_release_all(log, CLEAN, &range, 1, &done));
	EXPECT_EQ(0, done.pages);
	EXPECT_EQ(NPAGES, done.skipped);
	memset(got, 0, sizeof(got));
	EXPECT_EQ(NPAGES, test_harvest_all(log, 0, 0, NPAGES, got, 0));
	range = (struct dirtytrack_range){ 0, NPAGES };
	done = (struct done){ };
	ASSERT_EQ(0, _test_release_all(log, CLEAN, &range, 1, &done));
	EXPECT_EQ(NPAGES, done.pages);
	close(log);
}

TEST_HARNESS_MAIN
