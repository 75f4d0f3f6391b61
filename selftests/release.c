// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory given back to the host, and taken ahead of its use: by vectors of ranges
 *
 * What release does to the logs is checked by tracked.h: exactly the pages that lost
 * memory are reported, by a log that is harvested after each step, by one that is
 * harvested at the end, and by its ring.  Release of what is clean is in
 * release_clean.c.
 */
#include <signal.h>
#include <sys/time.h>

#include "figures.h"
#include "tracked.h"

#define NPAGES	(2 * 512 + 200UL)	/* more than two chunks */
#define PUNCH	(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

TRACKED_FIXTURE(release, NPAGES)

/* ---- one range, in each way that there is ---- */

enum how { BY_RANGES, BY_PUNCH, BY_MADVISE, NR_WAYS };

static int release_in_way(struct tracked *t, enum how way, __u64 first, __u64 npages)
{
	struct dirtytrack_range range = { first, npages };
	struct done done = { };

	switch (way) {
	case BY_RANGES:
		return _test_release_all(t->slot, DIRTYTRACK_SLOT_RELEASE, &range, 1,
					 &done);
	case BY_PUNCH:
		return fallocate(t->slot, PUNCH, BYTES(first), BYTES(npages));
	default:
		return madvise(page_at(t->mem, first), BYTES(npages), MADV_REMOVE);
	}
}

/* Harvests as extents: exactly the pages of @want, and they are holes or data. */
#define EXPECT_STATES(t, want_holes, want_data) do {			\
	__u64 *__holes = bitmap_alloc(NPAGES), *__data = bitmap_alloc(NPAGES); \
									\
	test_extents_all((t)->log, 0, 0, NPAGES, 9, __data, __holes);	\
	EXPECT_TRUE(bitmap_equal(__holes, want_holes, NPAGES));		\
	EXPECT_TRUE(bitmap_equal(__data, want_data, NPAGES));		\
	bitmap_zero((t)->want, NPAGES);					\
	free(__holes);							\
	free(__data);							\
} while (0)

static void set_range(__u64 *map, __u64 first, __u64 npages)
{
	for (__u64 n = first; n < first + npages; n++)
		bit_set(map, n);
}

static bool reads_zero(struct tracked *t, __u64 page)
{
	char buf[PAGE_SIZE];

	/* Of the file: that allocates nothing. */
	return pread(t->slot, buf, PAGE_SIZE, BYTES(page)) == PAGE_SIZE &&
	       page_is_zero(buf);
}

/*
 * Zero until written, a hole until touched, dirty once; and what is beside it stays as
 * it was.
 */
TEST_F(release, zero_and_hole_and_tracked_again)
{
	struct tracked *t = &self->t;
	__u64 *none = bitmap_alloc(NPAGES), *holes = bitmap_alloc(NPAGES);
	__u64 *data = bitmap_alloc(NPAGES);

	for (enum how way = 0; way < NR_WAYS; way++) {
		__u64 first = 505 + 40 * way, resident;	/* across the chunks' border */

		bitmap_zero(holes, NPAGES);
		bitmap_zero(data, NPAGES);
		put_range(t, first - 5, 30);
		check(t);
		page_fill(page_at(t->mem, first - 1), way);
		page_fill(page_at(t->mem, first + 20), way);
		wrote(t, first - 1, 1);
		wrote(t, first + 20, 1);
		check(t);
		resident = test_resident(t->slot);

		ASSERT_EQ(0, release_in_way(t, way, first, 20));
		wrote(t, first, 20);
		EXPECT_EQ(resident - 20, test_resident(t->slot));
		for (__u64 n = first; n < first + 20; n++)
			EXPECT_TRUE(reads_zero(t, n));
		EXPECT_TRUE(page_is(page_at(t->mem, first - 1), way));
		EXPECT_TRUE(page_is(page_at(t->mem, first + 20), way));
		EXPECT_EQ((off_t)BYTES(first), lseek(t->slot, BYTES(first - 1), SEEK_HOLE));
		EXPECT_EQ((off_t)BYTES(first + 20), lseek(t->slot, BYTES(first), SEEK_DATA));
		EXPECT_EQ(resident - 20, test_resident(t->slot));

		/* Two are touched before the harvest: one read, one written. */
		EXPECT_TRUE(page_is_zero(page_at(t->mem, first + 3)));
		put(t, first + 4);
		set_range(holes, first, 20);
		for (__u64 n = first + 3; n < first + 5; n++) {
			bit_clear(holes, n);
			bit_set(data, n);
		}
		EXPECT_STATES(t, holes, data);
		EXPECT_EQ(resident - 18, test_resident(t->slot));
		EXPECT_STATES(t, none, none);

		/* Reading gives memory, and is no write; a write is one. */
		EXPECT_TRUE(page_is_zero(page_at(t->mem, first + 6)));
		EXPECT_EQ(resident - 17, test_resident(t->slot));
		check(t);
		put(t, first + 6);
		put(t, first + 7);
		check(t);
		/* Again, and some of it for the first time. */
		ASSERT_EQ(0, release_in_way(t, way, first, 10));
		wrote(t, first + 3, 2);
		wrote(t, first + 6, 2);
		check(t);
		put_range(t, first, 20);
		check(t);
	}
	free(none);
	free(holes);
	free(data);
}

/* Every process's mapping of it loses the page. */
TEST_F(release, leaves_all_mappings)
{
	struct tracked *t = &self->t;
	char *other = test_map(t->slot, 100, 50);
	int pair[2];
	pid_t pid;

	put_range(t, 100, 50);
	check(t);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *mem = _test_map(t->slot, 90, 100);
		bool ok = mem != MAP_FAILED;

		/* Readable in all three, writable in this one. */
		for (__u64 n = 100; ok && n < 150; n++)
			ok = !page_is_zero(page_at(mem, n - 90));
		poke(page_at(mem, 120 - 90));
		turn_give(pair[1]);
		ok &= turn_wait(pair[1]);
		for (__u64 n = 110; n < 140; n++)
			ok &= page_is_zero(page_at(mem, n - 90)) &&
			      page_is_zero(page_at(t->mem, n));
		poke(page_at(mem, 130 - 90));
		turn_give(pair[1]);
		_exit(!ok);
	}
	ASSERT_TRUE(turn_wait(pair[0]));
	wrote(t, 120, 1);
	for (__u64 n = 100; n < 150; n++)
		EXPECT_FALSE(page_is_zero(page_at(other, n - 100)));
	EXPECT_EQ(30, test_release_range(t->slot, DIRTYTRACK_SLOT_RELEASE, 110, 30).pages);
	wrote(t, 110, 30);
	check(t);
	ASSERT_TRUE(turn_give(pair[0]));
	ASSERT_TRUE(turn_wait(pair[0]));
	wrote(t, 130, 1);
	EXPECT_FALSE(page_is_zero(page_at(other, 30)));
	EXPECT_TRUE(page_is_zero(page_at(other, 20)));
	EXPECT_TRUE(child_ok(pid));
	check(t);
	test_unmap(other, 50);
	close(pair[0]);
	close(pair[1]);
}

/* Who holds a page keeps it; the slot has another in its place. */
TEST_F(release, held_by_a_pipe)
{
	struct tracked *t = &self->t;
	struct iovec iov = { .iov_base = page_at(t->mem, 10), .iov_len = PAGE_SIZE };
	__u64 *held = bitmap_alloc(NPAGES);
	char buf[PAGE_SIZE];
	int pipes[2];

	page_fill(page_at(t->mem, 10), 77);
	wrote(t, 10, 1);
	check(t);
	bit_set(held, 10);
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ((ssize_t)PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	EXPECT_EQ(1, test_release_range(t->slot, DIRTYTRACK_SLOT_RELEASE, 10, 1).pages);
	wrote(t, 10, 1);
	check(t);
	EXPECT_TRUE(page_is_zero(page_at(t->mem, 10)));
	put(t, 10);
	check(t);
	ASSERT_EQ((ssize_t)PAGE_SIZE, read(pipes[0], buf, PAGE_SIZE));
	EXPECT_TRUE(page_is(buf, 77));
	check(t);
	close(pipes[0]);
	close(pipes[1]);
	free(held);
}

/* ---- what a call says that it did ---- */

#define EXPECT_RELEASED(slot, released, unmaps, ...) do {		\
	struct dirtytrack_range __ranges[] = { __VA_ARGS__ };		\
	struct dirtytrack_release __r;					\
									\
	ASSERT_EQ(0, _test_release(slot, DIRTYTRACK_SLOT_RELEASE, __ranges, \
				   ARRAY_SIZE(__ranges), &__r));	\
	EXPECT_EQ(ARRAY_SIZE(__ranges), __r.out_nr);			\
	EXPECT_EQ(0, __r.out_next);					\
	EXPECT_EQ(released, __r.out_released);				\
	EXPECT_EQ(0, __r.out_skipped);					\
	EXPECT_EQ(unmaps, __r.out_unmaps);				\
} while (0)

TEST(counts)
{
	int slot = test_new_slot(NPAGES);
	char *map = test_map(slot, 0, NPAGES);

	/* Nothing is there. */
	EXPECT_RELEASED(slot, 0, 0, { 0, NPAGES });
	for (__u64 n = 0; n < NPAGES; n++)
		page_write(map, n, 1);
	EXPECT_RELEASED(slot, 10, 1, { 10, 10 });
	EXPECT_RELEASED(slot, 0, 0, { 10, 10 });
	/* What had memory counts, whatever is asked for. */
	EXPECT_RELEASED(slot, 10, 1, { 5, 20 });
	EXPECT_RELEASED(slot, 4, 1, { 30, 2 }, { 32, 2 });
	EXPECT_RELEASED(slot, 6, 1, { 44, 2 }, { 42, 2 }, { 40, 3 });
	EXPECT_RELEASED(slot, 5, 1, { 50, 5 }, { 50, 5 }, { 52, 1 });
	/* One page between, which is in use: less than another run would cost. */
	EXPECT_RELEASED(slot, 2, 1, { 60, 1 }, { 62, 1 });
	EXPECT_EQ(1, page_read(map, 61));
	/* A hundred between. */
	EXPECT_RELEASED(slot, 2, 2, { 70, 1 }, { 170, 1 });
	/* In two chunks. */
	EXPECT_RELEASED(slot, 2, 2, { 511, 2 });
	EXPECT_RELEASED(slot, 3, 3, { 700, 1 }, { 200, 1 }, { 701, 1 });
	EXPECT_EQ(NPAGES - 10 - 10 - 4 - 6 - 5 - 2 - 2 - 2 - 3, test_resident(slot));
	EXPECT_RELEASED(slot, NPAGES - 44, 3, { 0, NPAGES });
	EXPECT_EQ(0, test_resident(slot));
	test_unmap(map, NPAGES);
	close(slot);
}

static __u32 hash(__u64 n)
{
	return ((n + 1) * 0x9e3779b97f4a7c15ULL) >> 40;
}

/* Shuffled, overlapping and doubled, against a model of what has memory. */
TEST(any_order)
{
	struct dirtytrack_range ranges[300];
	__u64 *resident = bitmap_alloc(NPAGES);
	int slot = test_new_slot(NPAGES);
	char *map = test_map(slot, 0, NPAGES);

	for (__u64 seed = 0; seed < 8; seed++) {
		__u64 populated = 0, released = 0;
		struct done done = { };

		for (__u64 n = 0; n < NPAGES; n++) {
			if (hash(n + seed * 77777) % 3)
				continue;
			page_fill(page_at(map, n), n + seed);
			bit_set(resident, n);
		}
		for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
			__u64 first = hash(i + seed * 1000) % NPAGES;
			__u64 npages = 1 + hash(i + seed * 3333) % 9;

			if (npages > NPAGES - first)
				npages = NPAGES - first;
			ranges[i] = (struct dirtytrack_range){ first, npages };
			for (__u64 n = first; n < first + npages; n++) {
				released += bit_test(resident, n);
				populated += !bit_test(resident, n);
				bit_clear(resident, n);
			}
		}
		ASSERT_EQ(0, _test_release_all(slot, DIRTYTRACK_SLOT_RELEASE, ranges,
					       ARRAY_SIZE(ranges), &done));
		EXPECT_EQ(released, done.pages);
		EXPECT_EQ(bits_count(resident, NPAGES), test_resident(slot));
		for (__u64 n = 0; n < NPAGES; n++)
			if (bit_test(resident, n))
				ASSERT_TRUE(page_is(page_at(map, n), n + seed));
		EXPECT_LT(0, populated);
		EXPECT_EQ(released + bits_count(resident, NPAGES) -
			  test_release_range(slot, DIRTYTRACK_SLOT_RELEASE, 0, NPAGES).pages,
			  done.pages);
		bitmap_zero(resident, NPAGES);
	}
	test_unmap(map, NPAGES);
	close(slot);
	free(resident);
}

/* What was taken for a slot is given back, to the byte. */
TEST(accounts)
{
	__u64 memory, resident, npages = 5 * 512;
	struct done done = { };
	struct dirtytrack_range *ranges = calloc(npages, sizeof(*ranges));
	int slot = test_new_slot(npages);
	char *map = test_map(slot, 0, npages);

	memory = summary("memory");
	resident = summary("resident");
	for (__u64 n = 0; n < npages; n++)
		page_write(map, n, 1);
	EXPECT_EQ(memory + (npages + 5) * PAGE_SIZE, summary("memory"));
	EXPECT_EQ(resident + npages, summary("resident"));
	/* Every second page: the chunks stay. */
	for (__u64 n = 0; n < npages / 2; n++)
		ranges[n] = (struct dirtytrack_range){ 2 * n, 1 };
	ASSERT_EQ(0, _test_release_all(slot, DIRTYTRACK_SLOT_RELEASE, ranges, npages / 2,
				       &done));
	EXPECT_EQ(npages / 2, done.pages);
	EXPECT_EQ(memory + (npages / 2 + 5) * PAGE_SIZE, summary("memory"));
	EXPECT_EQ(resident + npages / 2, summary("resident"));
	/* And the others of the last chunk: it goes. */
	test_release_range(slot, DIRTYTRACK_SLOT_RELEASE, npages - 511, 511);
	EXPECT_EQ(memory + (npages / 2 - 256 + 4) * PAGE_SIZE, summary("memory"));
	EXPECT_EQ(4 * 256, test_release_range(slot, DIRTYTRACK_SLOT_RELEASE, 0,
					      npages).pages);
	EXPECT_EQ(memory, summary("memory"));
	EXPECT_EQ(resident, summary("resident"));
	/* The same by what populates. */
	EXPECT_EQ(npages, test_release_range(slot, DIRTYTRACK_SLOT_POPULATE, 0,
					     npages).pages);
	EXPECT_EQ(memory + (npages + 5) * PAGE_SIZE, summary("memory"));
	EXPECT_EQ(npages, test_release_range(slot, DIRTYTRACK_SLOT_RELEASE, 0,
					     npages).pages);
	EXPECT_EQ(memory, summary("memory"));
	test_unmap(map, npages);
	close(slot);
	free(ranges);
}

/* ---- arrays of ranges, of each of the three calls ---- */

FIXTURE(ranges)
{
	int slot, log;
	int fd;			/* that the call is of */
	char *map;
	char *guarded;
};

FIXTURE_VARIANT(ranges)
{
	unsigned long cmd;
};

FIXTURE_VARIANT_ADD(ranges, release) { .cmd = DIRTYTRACK_SLOT_RELEASE };
FIXTURE_VARIANT_ADD(ranges, release_clean) { .cmd = DIRTYTRACK_LOG_RELEASE_CLEAN };
FIXTURE_VARIANT_ADD(ranges, populate) { .cmd = DIRTYTRACK_SLOT_POPULATE };

/* All are clean; to be released, all have memory, to be populated, none has. */
FIXTURE_SETUP(ranges)
{
	self->slot = test_new_slot(NPAGES);
	self->map = test_map(self->slot, 0, NPAGES);
	for (__u64 n = 0; variant->cmd != DIRTYTRACK_SLOT_POPULATE && n < NPAGES; n++)
		page_fill(page_at(self->map, n), n);
	self->log = test_log_create(self->slot, DIRTYTRACK_LOG_MAY_RELEASE);
	self->fd = variant->cmd == DIRTYTRACK_LOG_RELEASE_CLEAN ? self->log : self->slot;
	self->guarded = guarded_alloc(1);
}

FIXTURE_TEARDOWN(ranges)
{
	close(self->log);
	test_unmap(self->map, NPAGES);
	close(self->slot);
}

/* One call with one of the three; what it did into @done and the rest. */
static int one_call(int fd, unsigned long cmd, const void *ranges, __u32 nr, __u64 *pages,
		    __u32 *out_nr, __u64 *out_next)
{
	struct dirtytrack_populate p;
	struct dirtytrack_release r;
	int ret;

	if (cmd == DIRTYTRACK_SLOT_POPULATE) {
		ret = _test_populate(fd, ranges, nr, DIRTYTRACK_NODE_ANY, &p);
		*pages = p.out_pages;
		*out_nr = p.out_nr;
		*out_next = p.out_next;
	} else {
		ret = _test_release(fd, cmd, ranges, nr, &r);
		*pages = r.out_released;
		*out_nr = r.out_nr;
		*out_next = r.out_next;
	}
	return ret;
}

/* The call was applied to these many pages, and no others. */
static __u64 touched(int slot, unsigned long cmd)
{
	struct dirtytrack_slot_info info;

	if (_test_slot_info(slot, &info))
		dt_broken("SLOT_INFO: %s", strerror(errno));
	return cmd == DIRTYTRACK_SLOT_POPULATE ? info.out_resident :
						 NPAGES - info.out_resident;
}

static const struct {
	int err;
	struct dirtytrack_range range;
} bad[] = {
	{ EINVAL, { 0, 0 } },
	{ EINVAL, { NPAGES - 1, 0 } },
	{ EINVAL, { NPAGES, 0 } },
	{ EINVAL, { 0, NPAGES + 1 } },
	{ EINVAL, { NPAGES - 1, 2 } },
	{ EINVAL, { NPAGES, 1 } },
	{ EINVAL, { 1ULL << 52, 1 } },
	{ EINVAL, { 0, 1ULL << 32 } },
	{ EINVAL, { 1, ~1ULL } },
	{ EOVERFLOW, { 1, ~0ULL } },
	{ EOVERFLOW, { ~0ULL, 1 } },
	{ EOVERFLOW, { 1ULL << 63, 1ULL << 63 } },
};

/* A range that is not valid: an error if it is the first, else the end of the call. */
TEST_F(ranges, bad)
{
	__u64 pages, next, did = 0;
	__u32 nr;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct dirtytrack_range ranges[] = {
			{ i * 20, 2 }, { i * 20 + 1, 5 }, bad[i].range, { i * 20, 20 },
		};

		EXPECT_ERRNO(bad[i].err, one_call(self->fd, variant->cmd, ranges + 2, 2,
						  &pages, &nr, &next));
		EXPECT_EQ(did, touched(self->slot, variant->cmd));
		ASSERT_EQ(0, one_call(self->fd, variant->cmd, ranges, 4, &pages, &nr,
				      &next));
		EXPECT_EQ(2, nr);
		EXPECT_EQ(0, next);
		EXPECT_EQ(6, pages);
		did += 6;
		EXPECT_EQ(did, touched(self->slot, variant->cmd));
	}
}

TEST_F(ranges, arrays)
{
	struct dirtytrack_range *last = (void *)(page_at(self->guarded, 1) - sizeof(*last));
	__u64 pages, next;
	__u32 nr;

	*last = (struct dirtytrack_range){ 7, 2 };
	EXPECT_ERRNO(EINVAL, one_call(self->fd, variant->cmd, last, 0, &pages, &nr, &next));
	for (int odd = 1; odd < 8; odd++)
		EXPECT_ERRNO(EINVAL, one_call(self->fd, variant->cmd, (char *)last - odd,
					      1, &pages, &nr, &next));
	EXPECT_ERRNO(EFAULT, one_call(self->fd, variant->cmd, (void *)8, 1, &pages, &nr,
				      &next));
	EXPECT_ERRNO(EFAULT, one_call(self->fd, variant->cmd, NULL, 1, &pages, &nr, &next));
	EXPECT_ERRNO(EFAULT, one_call(self->fd, variant->cmd, (void *)-4096UL, 1, &pages,
				      &nr, &next));
	EXPECT_EQ(0, touched(self->slot, variant->cmd));
	/* It ends before the length that it is said to have: then the error. */
	ASSERT_EQ(0, one_call(self->fd, variant->cmd, last, ~0U, &pages, &nr, &next));
	EXPECT_EQ(1, nr);
	EXPECT_EQ(0, next);
	EXPECT_EQ(2, pages);
	EXPECT_EQ(2, touched(self->slot, variant->cmd));
	EXPECT_ERRNO(EFAULT, one_call(self->fd, variant->cmd, last + 1, ~0U, &pages, &nr,
				      &next));
	/* It is only read. */
	EXPECT_EQ(7, last->first);
	EXPECT_EQ(2, last->npages);
	ASSERT_EQ(0, mprotect(self->guarded, PAGE_SIZE, PROT_READ));
	EXPECT_EQ(0, one_call(self->fd, variant->cmd, last, 1, &pages, &nr, &next));
	EXPECT_EQ(0, pages);
}

/* Who has a log, to release what is clean, had the slot for writing. */
TEST(needs_a_writer)
{
	int slot = test_new_slot(NPAGES), fd = test_reopen(slot, O_RDONLY);
	struct dirtytrack_range range = { 0, NPAGES };
	__u64 pages, next;
	__u32 nr;

	ASSERT_LE(0, fd);
	ASSERT_EQ(1, pwrite(slot, "x", 1, 0));
	EXPECT_ERRNO(EBADF, one_call(fd, DIRTYTRACK_SLOT_RELEASE, &range, 1, &pages, &nr,
				     &next));
	EXPECT_ERRNO(EBADF, one_call(fd, DIRTYTRACK_SLOT_POPULATE, &range, 1, &pages, &nr,
				     &next));
	EXPECT_EQ(1, test_resident(slot));
	close(fd);
	close(slot);
}

/* An array that lies in the slot is read like any other. */
TEST_F(ranges, array_in_the_slot)
{
	struct dirtytrack_range *ranges = (void *)page_at(self->map, 600);
	__u64 pages, next, n, before;
	__u32 nr;

	for (__u32 i = 0; i < 100; i++)
		ranges[i] = (struct dirtytrack_range){ i * 3, 1 };
	before = touched(self->slot, variant->cmd);
	for (nr = 0, n = 0; nr < 100; nr += (__u32)n) {
		__u32 out_nr;

		ASSERT_EQ(0, one_call(self->fd, variant->cmd, ranges + nr, 100 - nr, &pages,
				      &out_nr, &next));
		ASSERT_EQ(0, next);
		n = out_nr;
	}
	EXPECT_EQ(before + 100, touched(self->slot, variant->cmd));
}

/*
 * If the page that it lies in is released by it, what comes after that reads as zero:
 * that is no range, and ends the call.
 */
static void release_array(struct __test_metadata *_metadata, unsigned long cmd)
{
	__u64 *data = bitmap_alloc(NPAGES), *holes = bitmap_alloc(NPAGES);
	int slot = test_new_slot(NPAGES), log;
	char *map = test_map(slot, 0, NPAGES);
	struct dirtytrack_range *ranges = (void *)page_at(map, 5);
	__u64 pages, next;
	__u32 nr;

	for (__u64 n = 0; n < NPAGES; n++)
		page_fill(page_at(map, n), n);
	log = test_log_create(slot, DIRTYTRACK_LOG_MAY_RELEASE);
	ranges[0] = (struct dirtytrack_range){ 0, 10 };
	ranges[1] = (struct dirtytrack_range){ 700, 1 };
	ranges[2] = (struct dirtytrack_range){ 20, 1 };
	ranges[3] = (struct dirtytrack_range){ 710, 1 };
	/* It is clean, too. */
	EXPECT_EQ(1, test_extents_all(log, 0, 0, NPAGES, 9, data, holes));
	ASSERT_EQ(0, one_call(cmd == DIRTYTRACK_LOG_RELEASE_CLEAN ? log : slot, cmd, ranges,
			      4, &pages, &nr, &next));
	EXPECT_LE(1, nr);
	EXPECT_GT(4, nr);
	EXPECT_EQ(0, next);
	EXPECT_LE(10, pages);
	EXPECT_TRUE(page_is_zero(page_at(map, 0)));
	EXPECT_TRUE(page_is_zero(ranges));
	EXPECT_TRUE(page_is(page_at(map, 10), 10));
	EXPECT_TRUE(page_is(page_at(map, 710), 710));
	close(log);
	test_unmap(map, NPAGES);
	close(slot);
	free(data);
	free(holes);
}

TEST(array_releases_itself)
{
	release_array(_metadata, DIRTYTRACK_SLOT_RELEASE);
}

TEST(array_releases_itself_if_clean)
{
	release_array(_metadata, DIRTYTRACK_LOG_RELEASE_CLEAN);
}

static void on_alarm(int sig)
{
	(void)sig;
}

static void alarm_often(long us)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval often = { { 0, us }, { 0, us } };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

/*
 * A million of them under signals, in disorder, most of them about nothing: each call
 * gets on, and all of them together do what one would have done.
 */
TEST_F_TIMEOUT(ranges, a_million_under_signals, 240)
{
	enum { NR = 1 << 20 };
	struct dirtytrack_range *ranges = calloc(NR, sizeof(*ranges));
	struct done done = { };

	/* By chunks: what jumps from one to the other is done one by one. */
	for (__u64 i = 0; i < NR; i++)
		ranges[i] = (struct dirtytrack_range){
			i * 4 / NR % 3 * 512 + i * 77 % 200, 1
		};
	alarm_often(5000);
	EXPECT_EQ(0, _test_release_all(self->fd, variant->cmd, ranges, NR, &done));
	alarm_often(0);
	EXPECT_EQ(600, done.pages);
	EXPECT_EQ(600, touched(self->slot, variant->cmd));
	EXPECT_EQ(0, done.skipped);
	for (__u64 n = 0; variant->cmd != DIRTYTRACK_SLOT_POPULATE && n < NPAGES; n++)
		if (n % 512 >= 200)
			ASSERT_TRUE(page_is(page_at(self->map, n), n));
	TH_LOG("%llu calls", done.calls);
	free(ranges);
}

/* ---- a call's work is bounded ---- */

/* More chunks than one call releases. */
#define FAR_CHUNKS	1100
#define FAR_PAGES	(FAR_CHUNKS * 512ULL)

/* @one: a range over all, or one a chunk, downwards. Return: calls. */
static __u64 release_far(struct __test_metadata *_metadata, bool one, long signals_us)
{
	struct dirtytrack_range ranges[FAR_CHUNKS];
	int slot = test_new_slot(FAR_PAGES);
	struct done done = { };
	__u32 nr;

	for (nr = 0; nr < FAR_CHUNKS; nr++) {
		__u64 page = nr * 512 + nr % 512;

		ASSERT_EQ(2, pwrite(slot, "x", 2, BYTES(page)));
		ranges[FAR_CHUNKS - 1 - nr] = (struct dirtytrack_range){ page, 1 };
	}
	if (one) {
		ranges[0] = (struct dirtytrack_range){ 0, FAR_PAGES };
		nr = 1;
	}
	if (signals_us)
		alarm_often(signals_us);
	EXPECT_EQ(0, _test_release_all(slot, DIRTYTRACK_SLOT_RELEASE, ranges, nr, &done));
	alarm_often(0);
	EXPECT_EQ(FAR_CHUNKS, done.pages);
	EXPECT_EQ(FAR_CHUNKS, done.unmaps);
	EXPECT_EQ(0, test_resident(slot));
	TH_LOG("%llu calls", done.calls);
	close(slot);
	return done.calls;
}

static void expect_bounded(struct __test_metadata *_metadata, __u64 calls)
{
	EXPECT_LE(2, calls);
	EXPECT_GE(3, calls);
}

TEST(bounded_in_a_range)
{
	expect_bounded(_metadata, release_far(_metadata, true, 0));
}

TEST(bounded_between_ranges)
{
	expect_bounded(_metadata, release_far(_metadata, false, 0));
}

/* Often; and more than once, where the machine stands still when they should come. */
TEST(stops_for_signals)
{
	__u64 calls = 0;

	for (int tries = 0; tries < 10 && calls < 4; tries++)
		calls = release_far(_metadata, true, 20);
	EXPECT_LE(4, calls);
}

/* ---- populate ---- */

FIXTURE(populate)
{
	struct tracked t;
};

FIXTURE_VARIANT(populate)
{
	enum tracked_start start;
};

FIXTURE_VARIANT_ADD(populate, fresh) { .start = START_FRESH };
FIXTURE_VARIANT_ADD(populate, ringed) { .start = START_RINGED };

FIXTURE_SETUP(populate)
{
	tracked_open(_metadata, &self->t, NPAGES, variant->start);
}

FIXTURE_TEARDOWN(populate)
{
	tracked_close(_metadata, &self->t);
}

/* Zeroed memory that nothing has touched: no log has it, and no page of before changes. */
TEST_F(populate, gives_memory)
{
	struct tracked *t = &self->t;
	struct dirtytrack_range ranges[] = {
		{ 900, 100 }, { 10, 20 }, { 20, 30 }, { 11, 1 }, { NPAGES - 1, 1 },
	};
	struct dirtytrack_slot_info before, after;
	struct dirtytrack_populate arg;

	if (test_resident(t->slot))
		wrote(t, 0, NPAGES);
	test_release_range(t->slot, DIRTYTRACK_SLOT_RELEASE, 0, NPAGES);
	page_fill(page_at(t->mem, 15), 3);
	page_fill(page_at(t->mem, 950), 4);
	wrote(t, 15, 1);
	wrote(t, 950, 1);
	check(t);
	ASSERT_EQ(0, _test_slot_info(t->slot, &before));
	ASSERT_EQ(0, _test_populate(t->slot, ranges, ARRAY_SIZE(ranges),
				    DIRTYTRACK_NODE_ANY, &arg));
	EXPECT_EQ(ARRAY_SIZE(ranges), arg.out_nr);
	EXPECT_EQ(0, arg.out_next);
	EXPECT_EQ(100 + 40 + 1 - 2, arg.out_pages);
	ASSERT_EQ(0, _test_slot_info(t->slot, &after));
	EXPECT_EQ(before.out_resident + arg.out_pages, after.out_resident);
	/* Nothing is mapped. */
	EXPECT_EQ(before.out_faults, after.out_faults);
	check(t);
	EXPECT_TRUE(page_is(page_at(t->mem, 15), 3));
	EXPECT_TRUE(page_is(page_at(t->mem, 950), 4));
	for (__u64 n = 10; n < 50; n++)
		EXPECT_TRUE(n == 15 || page_is_zero(page_at(t->mem, n)));
	EXPECT_EQ((off_t)BYTES(10), lseek(t->slot, 0, SEEK_DATA));
	EXPECT_EQ((off_t)BYTES(50), lseek(t->slot, BYTES(10), SEEK_HOLE));
	check(t);
	/* And they are pages like others. */
	put(t, 12);
	put(t, NPAGES - 1);
	check(t);
	ASSERT_EQ(0, _test_populate(t->slot, ranges, ARRAY_SIZE(ranges),
				    DIRTYTRACK_NODE_ANY, &arg));
	EXPECT_EQ(0, arg.out_pages);
	check(t);
}

/* A log that starts with all that has memory, has them. */
TEST_F(populate, all_set_has_them)
{
	struct tracked *t = &self->t;
	__u64 *data = bitmap_alloc(NPAGES), *holes = bitmap_alloc(NPAGES);
	int all;

	if (test_resident(t->slot))
		wrote(t, 0, NPAGES);
	test_release_range(t->slot, DIRTYTRACK_SLOT_RELEASE, 0, NPAGES);
	check(t);
	EXPECT_EQ(70, test_release_range(t->slot, DIRTYTRACK_SLOT_POPULATE, 100, 70).pages);
	all = test_log_create(t->slot, DIRTYTRACK_LOG_ALL_SET);
	EXPECT_EQ(70, test_extents_all(all, 0, 0, NPAGES, 9, data, holes));
	for (__u64 n = 100; n < 170; n++)
		EXPECT_TRUE(bit_test(data, n));
	/* Later ones are no change. */
	EXPECT_EQ(30, test_release_range(t->slot, DIRTYTRACK_SLOT_POPULATE, 160, 40).pages);
	EXPECT_EQ(0, test_extents_all(all, 0, 0, NPAGES, 9, data, holes));
	check(t);
	close(all);
	free(data);
	free(holes);
}

static bool node_exists(int node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", node);
	return !access(path, F_OK);
}

TEST(node)
{
	static const __s32 none[] = { -2, -1000, 1023, 1024, 65536, 0x7fffffff, -0x7fffffff - 1 };
	struct dirtytrack_range range = { 0, 10 };
	int slot = test_new_slot(NPAGES), absent = 1;
	struct dirtytrack_populate arg;

	while (node_exists(absent))
		absent++;
	EXPECT_ERRNO(EINVAL, _test_populate(slot, &range, 1, absent, &arg));
	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		EXPECT_ERRNO(EINVAL, _test_populate(slot, &range, 1, none[i], &arg));
	EXPECT_EQ(0, test_resident(slot));
	ASSERT_EQ(0, _test_populate(slot, &range, 1, 0, &arg));
	EXPECT_EQ(10, arg.out_pages);
	range.first = 10;
	ASSERT_EQ(0, _test_populate(slot, &range, 1, DIRTYTRACK_NODE_ANY, &arg));
	EXPECT_EQ(10, arg.out_pages);
	arg.reserved = 1;
	EXPECT_ERRNO(EOPNOTSUPP, dt_ioctl(slot, DIRTYTRACK_SLOT_POPULATE, &arg));
	EXPECT_EQ(20, test_resident(slot));
	close(slot);
}

TEST_HARNESS_MAIN
