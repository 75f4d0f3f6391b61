// SPDX-License-Identifier: GPL-2.0-only
/*
 * Groups: one fault that opens 64 pages, and pages that stay open
 *
 * Whatever is open, the log has what was written and nothing else.  And it pays:
 * the slot's counter of faults says how many each pattern took.
 */
#include <sys/uio.h>

#include "tracked.h"

#define WORD	64
#define NPAGES	(16 * WORD + 7)

FIXTURE(groups)
{
	struct tracked t;
	bool wp;	/* pages are write-protected in place */
	char grants[16]; /* the module's parameter */
	bool automatic;	/* it leaves the decision to the module */
};

FIXTURE_SETUP(groups)
{
	struct dirtytrack_info info;
	FILE *f = fopen("/sys/module/dirtytrack/parameters/grants", "r");
	int dev = test_device();

	test_info(dev, &info);
	close(dev);
	self->wp = info.out_strategy == DIRTYTRACK_STRATEGY_WP;
	ASSERT_NE(NULL, f);
	ASSERT_EQ(1, fscanf(f, "%15s", self->grants));
	fclose(f);
	self->automatic = !strcmp(self->grants, "auto");
	tracked_open(_metadata, &self->t, NPAGES, START_RESIDENT);
}

FIXTURE_TEARDOWN(groups)
{
	tracked_close(_metadata, &self->t);
}

static __u64 faults(struct __test_metadata *_metadata, struct tracked *t)
{
	struct dirtytrack_slot_info info;

	test_slot_info(t->slot, &info);
	return info.out_faults;
}

/*
 * Writes every @step-th page, says how many faults that took, and checks.  A harvest
 * by few extents at a time would collect again and again, and see nothing written in
 * between: here it is by bitmap.
 */
static __u64 sweep(struct __test_metadata *_metadata, struct tracked *t, __u64 step)
{
	__u64 before = faults(_metadata, t), took;

	for (__u64 n = 0; n < t->npages; n += step)
		put(t, n);
	took = faults(_metadata, t) - before;
	t->checks = 0;
	check(t);
	return took;
}

/* What the parameter asks for is what a fault opens, from the first on. */
TEST_F(groups, parameter)
{
	const __u64 words = NPAGES / WORD + 1, tables = NPAGES / 512 + 1;
	struct dirtytrack_slot_info before, after;
	__u64 granted, took;

	/* One page of each word is written, until that is what the module expects. */
	for (int round = 0; round < 4; round++)
		sweep(_metadata, &self->t, WORD);
	check(&self->t);
	check(&self->t);
	test_slot_info(self->t.slot, &before);
	took = sweep(_metadata, &self->t, WORD);
	test_slot_info(self->t.slot, &after);
	granted = after.out_grants - before.out_grants;
	EXPECT_EQ(words, took);
	check(&self->t);
	check(&self->t);

	if (!strcmp(self->grants, "group")) {
		/* A page that is not mapped is not opened with its neighbour. */
		if (!self->wp)
			return;
		/* A fault opens what is in its page table: a word may lie in two. */
		EXPECT_LE(NPAGES - tables * WORD, granted);
		took = sweep(_metadata, &self->t, 1);
		EXPECT_LE(words, took);
		EXPECT_GE(words + tables, took);
		return;
	}
	EXPECT_EQ(words, granted);
	if (self->automatic)
		return;
	ASSERT_STREQ("single", self->grants);
	for (int round = 0; round < 4; round++)
		EXPECT_EQ(NPAGES, sweep(_metadata, &self->t, 1));
}

TEST_F(groups, dense_words_open_at_once)
{
	const __u64 words = NPAGES / WORD + 1;
	__u64 took = sweep(_metadata, &self->t, 1);

	if (self->wp && self->automatic)
		EXPECT_GE(3 * words, took);
	took = sweep(_metadata, &self->t, 1);
	if (self->wp && self->automatic)
		EXPECT_GE(words, took);
}

TEST_F(groups, hot_words_stay_open)
{
	for (int round = 0; round < 3; round++)
		sweep(_metadata, &self->t, 4);
	for (int round = 0; round < 5; round++) {
		__u64 took = sweep(_metadata, &self->t, 4);

		if (self->wp && self->automatic)
			EXPECT_EQ(0, took);
	}
}

/* What is not written again costs nothing from the second harvest on. */
TEST_F(groups, cold_words_are_closed)
{
	struct dirtytrack_slot_info before, after;

	for (int round = 0; round < 4; round++)
		sweep(_metadata, &self->t, 1);
	check(&self->t);
	test_slot_info(self->t.slot, &before);
	for (int round = 0; round < 3; round++)
		check(&self->t);
	test_slot_info(self->t.slot, &after);
	EXPECT_EQ(before.out_protects, after.out_protects);
	EXPECT_EQ(before.out_collected, after.out_collected);
	sweep(_metadata, &self->t, 7);
}

/* A word that was dense and is not any more is forgotten. */
TEST_F(groups, changed_mind)
{
	struct dirtytrack_slot_info before, after;

	for (int round = 0; round < 4; round++)
		sweep(_metadata, &self->t, 1);
	for (int round = 0; round < 4; round++)
		sweep(_metadata, &self->t, WORD);
	check(&self->t);
	check(&self->t);
	test_slot_info(self->t.slot, &before);
	sweep(_metadata, &self->t, WORD);
	test_slot_info(self->t.slot, &after);
	if (self->automatic)
		EXPECT_EQ(NPAGES / WORD + 1, after.out_grants - before.out_grants);
}

TEST_F(groups, strides)
{
	const __u64 strides[] = { 1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 63, 64, 65, 4 };

	for (size_t i = 0; i < ARRAY_SIZE(strides); i++)
		for (int round = 0; round < 4; round++)
			sweep(_metadata, &self->t, strides[i]);
}

/* Other pages each time, from none to all. */
TEST_F(groups, any_pages)
{
	unsigned int seed = 1;

	for (int round = 0; round < 100; round++) {
		unsigned int of = 1 + rand_r(&seed) % 100;

		for (__u64 n = 0; n < NPAGES; n++)
			if (!(rand_r(&seed) % of))
				put(&self->t, n);
		check(&self->t);
		if (!(round % 7))
			check(&self->t);
	}
}

/* Opens a word by three faults in it. */
static void open_word(struct tracked *t, __u64 word)
{
	put_range(t, word * WORD, 3);
}

/* Writers who never fault on the neighbours that they write to. */
TEST_F(groups, writers_without_a_fault)
{
	struct tracked *t = &self->t;
	char data[PAGE_SIZE];
	struct iovec from = { data, sizeof(data) }, to = { NULL, sizeof(data) };
	int pipes[2], mem = open("/proc/self/mem", O_RDWR);

	ASSERT_LE(0, mem);
	ASSERT_EQ(0, pipe(pipes));
	for (int round = 0; round < 6; round++) {
		memset(data, 'a' + round, sizeof(data));
		open_word(t, 1);
		to.iov_base = page_at(t->mem, WORD + 20);
		ASSERT_EQ(sizeof(data), process_vm_writev(getpid(), &from, 1, &to, 1, 0));
		wrote(t, WORD + 20, 1);
		ASSERT_EQ(8, write(pipes[1], data, 8));
		ASSERT_EQ(8, read(pipes[0], page_at(t->mem, WORD + 31), 8));
		wrote(t, WORD + 31, 1);
		ASSERT_EQ(8, pwrite(mem, data, 8, (off_t)page_at(t->mem, WORD + 40)));
		wrote(t, WORD + 40, 1);
		ASSERT_EQ(8, pwrite(t->slot, data, 8,
				    (off_t)(WORD + 50) << DIRTYTRACK_PAGE_SHIFT));
		wrote(t, WORD + 50, 1);
		check(t);
	}
	close(mem);
	close(pipes[0]);
	close(pipes[1]);
}

/* Neighbours that a child wrote to before it died, through what it inherited. */
TEST_F(groups, writer_who_died)
{
	struct tracked *t = &self->t;

	for (int round = 0; round < 6; round++) {
		pid_t pid;

		open_word(t, 2);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			for (__u64 n = 3; n < WORD; n += 5)
				poke(page_at(t->mem, 2 * WORD + n));
			_exit(0);
		}
		ASSERT_EQ(0, test_wait(pid));
		for (__u64 n = 3; n < WORD; n += 5)
			wrote(t, 2 * WORD + n, 1);
		check(t);
	}
}

/* Mappings in which a word lies anywhere, across the ends of page tables, too. */
TEST_F(groups, mappings_that_are_not_aligned)
{
	struct tracked *t = &self->t;

	for (__u64 first = 1; first < 2 * WORD; first += 21) {
		char *map = test_map(t->slot, first, NPAGES - first - 2);

		for (int round = 0; round < 4; round++) {
			for (__u64 n = first; n < NPAGES - 2; n += 1 + round)
				put_at(t, map, first, n);
			sweep(_metadata, t, 5);
		}
		test_unmap(map, NPAGES - first - 2);
		check(t);
	}
}

/* A hole beside: written to for the first time in an open word, or released there. */
TEST_F(groups, holes_in_open_words)
{
	struct tracked *t = &self->t;

	for (int round = 0; round < 6; round++) {
		open_word(t, 3);
		ASSERT_EQ(0, fallocate(t->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       (off_t)(3 * WORD + 8) << DIRTYTRACK_PAGE_SHIFT,
				       8 << DIRTYTRACK_PAGE_SHIFT));
		wrote(t, 3 * WORD + 8, 8);
		check(t);
		put_range(t, 3 * WORD + 5, 8);
		check(t);
		check(t);
		put(t, 3 * WORD + 9);
		check(t);
		put_range(t, 3 * WORD + 8, 8);
		check(t);
	}
}

/* Words that stay open are protected, or found, when a new log starts. */
TEST_F(groups, log_that_starts_on_hot_words)
{
	struct tracked *t = &self->t;
	__u64 *got = bitmap_alloc(NPAGES);

	for (int round = 0; round < 4; round++)
		sweep(_metadata, t, 2);
	for (int round = 0; round < 4; round++) {
		int log;

		sweep(_metadata, t, 2);
		log = test_log_create(t->slot, 0);
		test_harvest_all(log, 0, 0, NPAGES, got, 0);
		EXPECT_EQ(0, bits_count(got, NPAGES));
		for (__u64 n = 1; n < NPAGES; n += 3)
			put(t, n);
		test_harvest_all(log, 0, 0, NPAGES, got, 0);
		tracked_compare(_metadata, t, got, t->want, t->want, "the new log",
				__LINE__);
		bitmap_zero(got, NPAGES);
		close(log);
		check(t);
	}
	free(got);
}

/* With a ring every page faults: what does not could not be pushed. */
TEST_F(groups, ring_hears_of_every_page)
{
	struct tracked *t = &self->t;
	struct dirtytrack_log_create arg = { .size = sizeof(arg), .ring_entries = 4096 };
	struct dirtytrack_log_info info;
	struct dirtytrack_ring *ring;
	__u64 *got = bitmap_alloc(NPAGES), *entries, head;

	for (int round = 0; round < 4; round++)
		sweep(_metadata, t, 1);
	ASSERT_EQ(0, dt_ioctl(t->slot, DIRTYTRACK_LOG_CREATE, &arg));
	test_log_info(arg.out_fd, &info);
	ring = mmap(NULL, info.out_ring_size, PROT_READ, MAP_SHARED, arg.out_fd,
		    info.out_ring_offset);
	ASSERT_NE(MAP_FAILED, (void *)ring);
	entries = (void *)((char *)ring + DIRTYTRACK_RING_ENTRIES_OFFSET);
	test_harvest_all(arg.out_fd, 0, 0, NPAGES, got, 0);
	for (int round = 0; round < 3; round++) {
		head = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
		for (__u64 n = 0; n < NPAGES; n++)
			put(t, n);
		ASSERT_EQ(1, ring->overflows);
		bitmap_zero(got, NPAGES);
		for (; head < __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE); head++)
			bit_set(got, entries[head % ring->entries]);
		EXPECT_EQ(NPAGES, bits_count(got, NPAGES));
		check(t);
	}
	munmap(ring, info.out_ring_size);
	close(arg.out_fd);
	for (int round = 0; round < 3; round++)
		sweep(_metadata, t, 1);
	free(got);
}

TEST_HARNESS_MAIN
