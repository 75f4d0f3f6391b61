// SPDX-License-Identifier: GPL-2.0-only
/*
 * libdirtytrack with the module: consumers who keep an image by its calls alone, while
 * threads and another process write. When the writers have stopped and a last round was
 * done, image and memory must be the same.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <time.h>

#include "dirtytrack_test.h"
#include "../tools/lib/dirtytrack.h"

#define NPAGES	4096
#define ROUNDS	40

struct guest {
	int device;
	int slot;
	char *memory;
	char *image;
	int stop;
	pthread_t threads[2];
	pid_t child;
	uint64_t *bitmap;
	unsigned int started;
};

FIXTURE(library) {
	struct guest guest;
};

static struct guest *writers;

/* A page here and there, and runs. */
static void write_pages(char *memory, unsigned int *seed)
{
	__u64 page = rand_r(seed) % NPAGES, n = rand_r(seed) % 8 ? 1 : 20;

	for (; n && page < NPAGES; n--, page++)
		*(volatile __u32 *)(memory + page * PAGE_SIZE + rand_r(seed) % 1024 * 4) =
			rand_r(seed);
}

static void *writer(void *arg)
{
	unsigned int seed = (uintptr_t)arg;
	struct timespec pause = { .tv_nsec = 200000 };

	while (!__atomic_load_n(&writers->stop, __ATOMIC_ACQUIRE)) {
		write_pages(writers->memory, &seed);
		__atomic_fetch_add(&writers->started, 1, __ATOMIC_RELAXED);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void ignore(int sig)
{
	(void)sig;
}

FIXTURE_SETUP(library)
{
	struct guest *g = &self->guest;
	/* Calls are interrupted: nothing may be lost by that. */
	struct itimerval timer = { { 0, 3000 }, { 0, 3000 } };
	struct sigaction sa = { .sa_handler = ignore };
	sigset_t set, old;
	uintptr_t i;

	g->device = dtrack_open_device(NULL);
	ASSERT_LE(0, g->device);
	g->slot = dtrack_slot_create(g->device, NPAGES * PAGE_SIZE, NULL, NULL);
	ASSERT_LE(0, g->slot);
	g->memory = mmap(NULL, NPAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 g->slot, 0);
	ASSERT_NE(MAP_FAILED, g->memory);
	g->image = calloc(NPAGES, PAGE_SIZE);
	g->bitmap = dtrack_bitmap_alloc(NPAGES);
	ASSERT_TRUE(g->image && g->bitmap);
	g->stop = 0;
	g->started = 0;
	writers = g;

	sigaction(SIGALRM, &sa, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	/* The signals are for the consumer. */
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, &old));
	g->child = fork();
	ASSERT_LE(0, g->child);
	if (!g->child) {
		/* Also when an assertion ends the test. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (unsigned int seed = 99;;) {
			write_pages(g->memory, &seed);
			usleep(200);
		}
	}
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&g->threads[i], NULL, writer,
					    (void *)(i + 1)));
	sigprocmask(SIG_SETMASK, &old, NULL);
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
}

static void stop_writers(struct guest *g)
{
	unsigned int i;

	if (g->stop)
		return;
	__atomic_store_n(&g->stop, 1, __ATOMIC_RELEASE);
	for (i = 0; i < 2; i++)
		pthread_join(g->threads[i], NULL);
	kill(g->child, SIGKILL);
	while (waitpid(g->child, NULL, 0) < 0 && errno == EINTR)
		;
}

FIXTURE_TEARDOWN(library)
{
	struct guest *g = &self->guest;
	struct itimerval timer = { 0 };

	stop_writers(g);
	setitimer(ITIMER_REAL, &timer, NULL);
	munmap(g->memory, NPAGES * PAGE_SIZE);
	free(g->image);
	free(g->bitmap);
	close(g->slot);
	close(g->device);
}

static void copy(struct guest *g, __u64 first, __u64 npages)
{
	memcpy(g->image + first * PAGE_SIZE, g->memory + first * PAGE_SIZE,
	       npages * PAGE_SIZE);
}

/* The first page of which image and memory differ; NPAGES if none. */
static __u64 lost(struct guest *g)
{
	__u64 page;

	for (page = 0; page < NPAGES; page++)
		if (memcmp(g->image + page * PAGE_SIZE, g->memory + page * PAGE_SIZE,
			   PAGE_SIZE))
			break;
	return page;
}

/* Takes what there is. 0 or -errno. */
static int take_all(struct guest *g, struct dtrack_ring *ring, __u64 *pages)
{
	const struct dirtytrack_range *ranges;
	int ret, i;

	while ((ret = dtrack_ring_take(ring, &ranges))) {
		if (ret == -EINTR)
			continue;
		if (ret < 0)
			break;
		for (i = 0; i < ret; i++) {
			copy(g, ranges[i].first, ranges[i].npages);
			*pages += ranges[i].npages;
		}
	}
	return ret;
}

/* A ring that is large enough, and one that overflows all the time. */
static void follow(struct __test_metadata *_metadata, struct guest *g,
		   __u32 entries, struct dirtytrack_log_info *info)
{
	int log = dtrack_log_create_ring(g->slot, DIRTYTRACK_LOG_ALL_SET, entries);
	struct dtrack_ring *ring;
	__u64 pages = 0;
	int i, ret;

	ASSERT_LE(0, log);
	ASSERT_EQ(0, dtrack_ring_open(&ring, log));
	dtrack_ring_watermark(ring, entries / 8);
	for (i = 0; i < ROUNDS; i++) {
		ret = dtrack_ring_wait(ring, 200);
		ASSERT_TRUE(ret >= 0 || ret == -EINTR);
		/* Long enough for the small ring. */
		if (entries == DIRTYTRACK_RING_MIN_ENTRIES)
			usleep(20000);
		ASSERT_EQ(0, take_all(g, ring, &pages));
	}
	stop_writers(g);
	ASSERT_EQ(0, take_all(g, ring, &pages));
	ASSERT_EQ(NPAGES, lost(g));
	ASSERT_LT(0, pages);
	ASSERT_EQ(0, dtrack_log_info(log, info));
	dtrack_ring_close(ring);
	close(log);
}

TEST_F(library, ring)
{
	struct guest *g = &self->guest;
	struct dirtytrack_log_info info;

	follow(_metadata, g, 1U << 16, &info);
	EXPECT_EQ(0, info.out_overflows);
}

TEST_F(library, ring_overflows)
{
	struct guest *g = &self->guest;
	struct dirtytrack_log_info info;

	follow(_metadata, g, DIRTYTRACK_RING_MIN_ENTRIES, &info);
	EXPECT_LT(0, info.out_overflows);
}

static void wait_for_writes(struct guest *g)
{
	unsigned int from = __atomic_load_n(&g->started, __ATOMIC_RELAXED);

	while (__atomic_load_n(&g->started, __ATOMIC_RELAXED) - from < 10)
		usleep(1000);
}

/* One round of peek, clear, copy; by ranges or by the bitmap. */
static int two_phases(struct guest *g, int log, bool by_ranges)
{
	static struct dirtytrack_range ranges[NPAGES];
	struct dtrack_ranges_done done = { 0 };
	struct dtrack_harvested peeked;
	struct dtrack_selected out;
	__u64 next = 0;
	uint64_t first, count;
	__u32 nr = 0;
	int ret;

	memset(g->bitmap, 0, NPAGES / 8);
	do {
		ret = dtrack_peek(log, next, NPAGES - next, g->bitmap, next,
				  &peeked);
		next = peeked.next;
	} while (ret == -EINTR);
	if (ret)
		return ret;
	wait_for_writes(g);
	dtrack_for_each_run(first, count, g->bitmap, NPAGES) {
		ranges[nr].first = first;
		ranges[nr++].npages = count;
	}
	if (by_ranges) {
		do {
			ret = dtrack_clear_ranges(log, ranges, nr, &done);
		} while (ret == -EINTR);
	} else {
		next = 0;
		do {
			ret = dtrack_clear(log, next, NPAGES - next,
					   g->bitmap, next, &out);
			next = out.next;
		} while (ret == -EINTR);
	}
	for (__u32 i = 0; i < nr && !ret; i++)
		copy(g, ranges[i].first, ranges[i].npages);
	return ret;
}

TEST_F(library, two_phases)
{
	struct guest *g = &self->guest;
	int log = dtrack_log_create(g->slot, DIRTYTRACK_LOG_ALL_SET);
	struct dtrack_harvested done;

	ASSERT_LE(0, log);
	for (int i = 0; i < ROUNDS; i++)
		ASSERT_EQ(0, two_phases(g, log, i % 2));
	stop_writers(g);
	memset(g->bitmap, 0, NPAGES / 8);
	for (__u64 next = 0; next < NPAGES; next = done.next) {
		int ret = dtrack_harvest(log, next, NPAGES - next, g->bitmap,
					 next, &done);

		ASSERT_TRUE(!ret || ret == -EINTR);
	}
	for (__u64 page = 0; page < NPAGES; page++)
		if (dtrack_bitmap_test(g->bitmap, page))
			copy(g, page, 1);
	ASSERT_EQ(NPAGES, lost(g));
	close(log);
}

/* Every other copy fails, and what was harvested is put back. */
TEST_F(library, merge)
{
	struct guest *g = &self->guest;
	int log = dtrack_log_create(g->slot, DIRTYTRACK_LOG_ALL_SET);
	struct dirtytrack_extent extents[100];
	struct dirtytrack_range back[100];
	uint64_t next = 0;
	int nr, i, n = 0;

	ASSERT_LE(0, log);
	for (int round = 0; round < ROUNDS; next = 0, round++) {
		if (round == ROUNDS - 1)
			stop_writers(g);
		while ((nr = dtrack_harvest_extents(log, 0, &next, NPAGES, extents, 100))) {
			struct dtrack_ranges_done done = { 0 };

			if (nr == -EINTR)
				continue;
			ASSERT_LT(0, nr);
			for (i = 0; i < nr; i++) {
				back[i].first = extents[i].first;
				back[i].npages = extents[i].npages;
			}
			if (round < ROUNDS - 1 && ++n % 2) {
				do {
					i = dtrack_merge_ranges(log, back, nr, &done);
				} while (i == -EINTR);
				ASSERT_EQ(0, i);
				continue;
			}
			for (i = 0; i < nr; i++)
				copy(g, extents[i].first, extents[i].npages);
		}
	}
	ASSERT_EQ(NPAGES, lost(g));
	close(log);
}

TEST_F(library, limit)
{
	struct guest *g = &self->guest;
	int log = dtrack_log_create(g->slot, 0);
	struct dirtytrack_slot_info info;

	ASSERT_LE(0, log);
	EXPECT_EQ(-EINVAL, dtrack_limit(log, DIRTYTRACK_LIMIT_MAX + 1ULL));
	ASSERT_EQ(0, dtrack_limit(log, 100));
	ASSERT_EQ(0, dtrack_slot_info(g->slot, &info));
	EXPECT_EQ(100, info.out_rate);
	ASSERT_EQ(0, dtrack_limit(log, 0));
	ASSERT_EQ(0, dtrack_slot_info(g->slot, &info));
	EXPECT_EQ(0, info.out_rate);
	EXPECT_EQ(-ENOTTY, dtrack_limit(g->slot, 1));
	close(log);
}

TEST_HARNESS_MAIN
