// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the calls of a log wait for: for no grace period, not for readers, and for a
 * harvest of another log no longer than one group takes it.
 *
 * No test asks how long something takes.  They ask what happens before what, count
 * what happens meanwhile, or compare with the same thing in the same minute.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <linux/membarrier.h>
#include <linux/userfaultfd.h>

#include "processes.h"
#include "../tools/bench/ticks.h"

#define PEEK		DIRTYTRACK_HARVEST_PEEK
#define GROUP		4096

/* The test's own processor, and the other. */
#define HERE		0
#define THERE		1

static void run_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		dt_broken("cannot run on processor %d (two are needed): %s", cpu,
			  strerror(errno));
}

/* ---- grace periods ---- */

#define STALL_DEVICE	"/dev/dirtytrack_stall"
#define NPAGES		(3 * GROUP)
/* All of a test is to be done before the stall ends by itself, on any kernel. */
#define ROUNDS		4

/* selftests/stall/build puts it beside the program. */
static void load_stall(void)
{
	struct utsname name;
	char self[4000], path[4200];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int file;

	if (n < 0 || uname(&name))
		dt_broken("no program, no kernel");
	self[n] = 0;
	*strrchr(self, '/') = 0;
	snprintf(path, sizeof(path), "%s/stall/%s/dirtytrack_stall.ko", self,
		 name.release);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || syscall(SYS_finit_module, file, "", 0))
		dt_broken("%s: %s (selftests/stall/build makes it)", path,
			  strerror(errno));
	close(file);
	/*
	 * Behind our back, after a grace period, a worker frees what a module needs only
	 * to start, and has every processor flush its TLB.  A stalled one does not
	 * answer, and the worker keeps this processor until it does.
	 */
	for (int i = 0; i < 3; i++) {
		usleep(100000);
		if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
			dt_broken("membarrier: %s", strerror(errno));
	}
	usleep(100000);
}

static void unload_stall(void)
{
	while (syscall(SYS_delete_module, "dirtytrack_stall", O_NONBLOCK)) {
		if (errno != EAGAIN && errno != EWOULDBLOCK)
			dt_broken("delete_module: %s", strerror(errno));
		usleep(1000);
	}
}

/* What waits for a grace period, for all to see. */
struct waiter {
	pthread_t thread;
	atomic_int tid;
	atomic_bool over;	/* one that began after the stall is */
};

FIXTURE(grace)
{
	int slot, log, other, device;
	char *map;
	pid_t reader;
	struct waiter waiter;
};

FIXTURE_VARIANT(grace)
{
	char stall;
};

/* Someone reads under RCU and is not preempted; his processor serves interrupts. */
FIXTURE_VARIANT_ADD(grace, long_reader) { .stall = 'r' };
/* The processor does not even do that. */
FIXTURE_VARIANT_ADD(grace, stalled_cpu) { .stall = 's' };

static bool stalled(int device)
{
	char c = 0;

	return read(device, &c, 1) == 1 && c;
}

static void *wait_for_grace_period(void *arg)
{
	struct waiter *w = arg;

	atomic_store(&w->tid, syscall(SYS_gettid));
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
		dt_broken("membarrier: %s", strerror(errno));
	atomic_store(&w->over, true);
	return NULL;
}

/* Does it sleep in the kernel? */
static bool waits(struct waiter *w)
{
	char path[64], line[512] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", atomic_load(&w->tid));
	f = fopen(path, "r");
	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		*line = 0;
	fclose(f);
	return strstr(line, ") D ");
}

/* Does the kernel look for stray accesses to its memory (KASAN)? */
static bool kernel_is_checked(void)
{
	char line[256];
	FILE *f = fopen("/proc/kallsyms", "r");
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, " kasan_report\n");
	if (f)
		fclose(f);
	return found;
}

/*
 * From before a test's process exists: later kernels (6.13) remember for a while that
 * a processor ran it, and would interrupt the stalled one to flush its TLB.
 */
static void __attribute__((constructor)) stay_here(void)
{
	run_on(HERE);
}

FIXTURE_SETUP(grace)
{
	if (variant->stall == 's' && kernel_is_checked())
		return;		/* see NO_STALL */
	load_stall();
	self->device = open(STALL_DEVICE, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->device);
	self->slot = test_new_slot(NPAGES);
	self->map = test_map(self->slot, 0, NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->other = test_log_create(self->slot, 0);

	self->reader = fork();
	ASSERT_LE(0, self->reader);
	if (!self->reader) {
		run_on(THERE);
		_exit(write(self->device, &variant->stall, 1) == 1 ? 0 : 1);
	}
	while (!stalled(self->device))
		usleep(1000);
	ASSERT_EQ(0, pthread_create(&self->waiter.thread, NULL, wait_for_grace_period,
				    &self->waiter));
	while (!waits(&self->waiter) && !atomic_load(&self->waiter.over))
		usleep(1000);
}

/* Nothing that was done so far had to wait for a grace period: none was over. */
#define none_was_over(what) do {					\
	EXPECT_TRUE(stalled(self->device)) {				\
		TH_LOG("%s: not done before the stall ended by itself", what); \
	}								\
	EXPECT_FALSE(atomic_load(&self->waiter.over)) {			\
		TH_LOG("%s: a grace period was over before", what);	\
	}								\
} while (0)

#define NO_STALL "KASAN interrupts every processor when memory is freed"

FIXTURE_TEARDOWN(grace)
{
	if (!self->reader)
		return;		/* skipped */
	/* The control: the grace period was waited for, and ends with the stall. */
	EXPECT_FALSE(atomic_load(&self->waiter.over));
	EXPECT_EQ(1, write(self->device, "e", 1));
	EXPECT_EQ(0, test_wait(self->reader)) {
		TH_LOG("the stall ended by itself");
	}
	EXPECT_EQ(0, pthread_join(self->waiter.thread, NULL));
	EXPECT_TRUE(atomic_load(&self->waiter.over));
	close(self->device);
	test_unmap(self->map, NPAGES);
	close(self->other);
	close(self->log);
	close(self->slot);
	unload_stall();
}

static void write_some(char *map)
{
	for (__u64 page = 0; page < NPAGES; page += 331)
		page_write(map, page, 1);
}

#define SOME ((NPAGES + 330) / 331)

TEST_F(grace, logs_come_and_go)
{
	void *shown;
	int log;

	if (!self->reader)
		SKIP(return, NO_STALL);
	for (int i = 0; i < ROUNDS; i++) {
		write_some(self->map);
		log = test_log_create(self->slot, 0);
		none_was_over("LOG_CREATE");
		shown = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, log, 0);
		ASSERT_NE(MAP_FAILED, shown);
		page_write(self->map, 7, 2);
		close(log);
		test_unmap(shown, 1);
		none_was_over("the end of a log that is mapped");

		log = test_log_create(self->slot, DIRTYTRACK_LOG_ALL_SET);
		none_was_over("LOG_CREATE, all set");
		close(log);
		none_was_over("the end of a log");
	}
}

TEST_F(grace, harvest)
{
	__u64 seen[bitmap_words(NPAGES)], idle[bitmap_words(NPAGES)];

	if (!self->reader)
		SKIP(return, NO_STALL);
	for (int i = 0; i < ROUNDS; i++) {
		memset(seen, 0, sizeof(seen));
		memset(idle, 0, sizeof(idle));
		write_some(self->map);
		EXPECT_EQ(SOME, test_harvest_all(self->log, PEEK, 0, NPAGES, seen, 0));
		none_was_over("PEEK");
		EXPECT_EQ(SOME, test_harvest_all(self->log, 0, 0, NPAGES, seen, 0));
		none_was_over("HARVEST");
		EXPECT_EQ(0, test_harvest_all(self->log, 0, 0, NPAGES, idle, 0));
		none_was_over("HARVEST of nothing");
		write_some(self->map);
		EXPECT_EQ(SOME, test_extents_all(self->log, 0, 0, NPAGES, 7, seen, seen));
		none_was_over("HARVEST_EXTENTS");
	}
}

TEST_F(grace, clear_and_merge)
{
	struct dirtytrack_range range = { .npages = NPAGES };
	__u64 seen[bitmap_words(NPAGES)];
	struct dirtytrack_ranges ranges;
	struct dirtytrack_bitmap bitmap;

	if (!self->reader)
		SKIP(return, NO_STALL);
	memset(seen, 0xff, sizeof(seen));
	for (int i = 0; i < ROUNDS; i++) {
		write_some(self->map);
		ASSERT_EQ(0, _test_bitmap(self->log, DIRTYTRACK_LOG_CLEAR, 0, NPAGES, seen,
					  0, &bitmap));
		/* All that was merged last, too. */
		EXPECT_EQ(i ? NPAGES : SOME, bitmap.out_pages);
		none_was_over("CLEAR");
		ASSERT_EQ(0, _test_bitmap(self->log, DIRTYTRACK_LOG_MERGE, 0, NPAGES, seen,
					  0, &bitmap));
		none_was_over("MERGE");
		ASSERT_EQ(0, _test_ranges(self->log, DIRTYTRACK_LOG_CLEAR_RANGES, &range,
					  1, &ranges));
		EXPECT_EQ(NPAGES, ranges.out_pages);
		none_was_over("CLEAR_RANGES");
		ASSERT_EQ(0, _test_ranges(self->log, DIRTYTRACK_LOG_MERGE_RANGES, &range,
					  1, &ranges));
		none_was_over("MERGE_RANGES");
	}
}

struct harvester {
	int log;
	__u64 npages;
	atomic_bool stop;
	atomic_uint calls;
};

static void *harvest_again_and_again(void *arg)
{
	struct harvester *h = arg;
	__u64 *seen = bitmap_alloc(h->npages);

	while (!atomic_load(&h->stop)) {
		if (_test_harvest_all(h->log, 0, 0, h->npages, seen, 0, NULL))
			dt_broken("HARVEST: %s", strerror(errno));
		atomic_fetch_add(&h->calls, 1);
	}
	free(seen);
	return NULL;
}

TEST_F(grace, harvest_beside_another)
{
	struct harvester other = { .log = self->other, .npages = NPAGES };
	__u64 seen[bitmap_words(NPAGES)];
	pthread_t thread;

	if (!self->reader)
		SKIP(return, NO_STALL);
	memset(seen, 0, sizeof(seen));
	ASSERT_EQ(0, pthread_create(&thread, NULL, harvest_again_and_again, &other));
	for (int i = 0; i < ROUNDS || atomic_load(&other.calls) < ROUNDS; i++) {
		write_some(self->map);
		EXPECT_EQ(SOME, test_harvest_all(self->log, 0, 0, NPAGES, seen, 0));
		if (!stalled(self->device))
			break;
	}
	none_was_over("HARVEST of two logs");
	atomic_store(&other.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	none_was_over("HARVEST of the other log");
}

/* ---- readers ---- */

#define READ_PAGES	GROUP
#define READ_ROUNDS	301

FIXTURE(readers)
{
	int slot, log;
	char *map;
	const __u64 *shown;
	size_t shown_size;
};

FIXTURE_SETUP(readers)
{
	struct dirtytrack_log_info info;

	run_on(HERE);
	self->slot = test_new_slot(READ_PAGES);
	self->map = test_map(self->slot, 0, READ_PAGES);
	for (__u64 page = 0; page < READ_PAGES; page++)
		page_write(self->map, page, 1);
	self->log = test_log_create(self->slot, 0);
	test_log_info(self->log, &info);
	self->shown_size = info.out_bitmap_size;
	self->shown = mmap(NULL, self->shown_size, PROT_READ, MAP_SHARED, self->log,
			   info.out_bitmap_offset);
	ASSERT_NE(MAP_FAILED, self->shown);
}

FIXTURE_TEARDOWN(readers)
{
	munmap((void *)self->shown, self->shown_size);
	test_unmap(self->map, READ_PAGES);
	close(self->log);
	close(self->slot);
}

/*
 * Reads the slot through a mapping of its own, from the second page on, by pread(),
 * and the log's bitmap, until it is killed.
 */
static pid_t start_reader(int slot, const __u64 *shown, size_t shown_size)
{
	volatile __u64 sum = 0;
	char buf[PAGE_SIZE];
	pid_t pid = fork();
	char *map;

	if (pid)
		return pid;
	run_on(THERE);
	map = _test_map(slot, 1, READ_PAGES - 1);
	if (map == MAP_FAILED)
		_exit(1);
	for (;;) {
		for (__u64 page = 0; page < READ_PAGES - 1; page++)
			sum += page_read(map, page);
		for (size_t i = 0; i < shown_size / sizeof(*shown); i++)
			sum += *(const volatile __u64 *)(shown + i);
		if (pread(slot, buf, sizeof(buf), PAGE_SIZE) != sizeof(buf))
			_exit(1);
	}
}

/* The lower quartile: what a harvest of one page takes when nothing interrupts it. */
static double harvest_time(int log, char *map)
{
	static double times[READ_ROUNDS];
	__u64 seen[bitmap_words(READ_PAGES)];
	struct dirtytrack_harvest arg;

	for (int i = 0; i < READ_ROUNDS; i++) {
		double start;

		page_write(map, 0, i);
		start = ticks_now();
		if (_test_harvest(log, 0, 0, READ_PAGES, seen, 0, &arg))
			dt_broken("HARVEST: %s", strerror(errno));
		times[i] = ticks_now() - start;
		if (arg.out_dirty != 1)
			dt_broken("%llu pages are dirty instead of one", arg.out_dirty);
	}
	ticks_median(times, READ_ROUNDS);
	return times[READ_ROUNDS / 4];
}

/* Factor between the two that no busy machine makes. */
#define FACTOR 4

TEST_F(readers, do_not_matter)
{
	double alone = 0, beside = 0;
	pid_t pid;

	/* Whatever the machine does meanwhile, once it does it to neither. */
	for (int i = 0; i < 5; i++) {
		alone = harvest_time(self->log, self->map);
		pid = start_reader(self->slot, self->shown, self->shown_size);
		ASSERT_LT(0, pid);
		beside = harvest_time(self->log, self->map);
		kill(pid, SIGKILL);
		ASSERT_EQ(128 + SIGKILL, test_wait(pid));
		if (beside < FACTOR * alone)
			break;
	}
	TH_LOG("a harvest takes %.2f times what it takes without readers", beside / alone);
	EXPECT_LT(beside, FACTOR * alone);
}

struct stuck_read {
	int slot;
	char *buf;
	ssize_t got;
};

static void *read_and_hang(void *arg)
{
	struct stuck_read *r = arg;

	r->got = pread(r->slot, r->buf, PAGE_SIZE, 0);
	return NULL;
}

/* One who reads the slot into memory that does not come is not waited for. */
TEST_F(readers, may_hang)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct stuck_read r = { .slot = self->slot };
	__u64 seen[bitmap_words(READ_PAGES)];
	struct uffdio_zeropage zero = { 0 };
	struct uffd_msg msg;
	pthread_t thread;
	int uffd, log;

	r.buf = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, r.buf);
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	reg.range.start = zero.range.start = (uintptr_t)r.buf;
	reg.range.len = zero.range.len = PAGE_SIZE;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, pthread_create(&thread, NULL, read_and_hang, &r));
	ASSERT_EQ(sizeof(msg), read(uffd, &msg, sizeof(msg)));

	memset(seen, 0, sizeof(seen));
	for (__u64 page = 0; page < READ_PAGES; page++)
		page_write(self->map, page, 2);
	EXPECT_EQ(READ_PAGES, test_harvest_all(self->log, PEEK, 0, READ_PAGES, seen, 0));
	EXPECT_EQ(READ_PAGES, test_harvest_all(self->log, 0, 0, READ_PAGES, seen, 0));
	log = test_log_create(self->slot, DIRTYTRACK_LOG_ALL_SET);
	EXPECT_EQ(READ_PAGES, test_extents_all(log, 0, 0, READ_PAGES, 9, seen, seen));
	close(log);

	/* It hung all the time. */
	EXPECT_EQ(0, r.got);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(PAGE_SIZE, r.got);
	close(uffd);
	munmap(r.buf, PAGE_SIZE);
}

/* ---- another log's harvest ---- */

#define MANY_GROUPS	1000	/* in one call: the bound is 1024 */
#define MANY_CALLS	5

struct large {
	int log;
	char *map;
	__u64 *seen;	/* bit n: page n */
	atomic_bool stop;
};

/* A page in each group but the first, then one call for all of it. */
static void *harvest_much(void *arg)
{
	const __u64 npages = (__u64)MANY_GROUPS * GROUP;
	struct dirtytrack_harvest h;
	struct large *l = arg;

	run_on(THERE);
	for (int i = 0; i < MANY_CALLS; i++) {
		for (__u64 group = 1; group < MANY_GROUPS; group++)
			page_write(l->map, group * GROUP, 1);
		bitmap_zero(l->seen, npages);
		if (_test_harvest(l->log, 0, GROUP, npages - GROUP, l->seen, GROUP, &h))
			dt_broken("HARVEST: %s", strerror(errno));
		if (h.out_dirty != MANY_GROUPS - 1)
			dt_broken("%llu pages of %d", h.out_dirty, MANY_GROUPS - 1);
	}
	atomic_store(&l->stop, true);
	return NULL;
}

/* Has the call come to a group? */
static bool delivered(const struct large *l, __u64 group)
{
	return *(const volatile __u64 *)(l->seen + group * (GROUP / 64)) & 1;
}

/* How many harvests of @log there were within the calls for a thousand groups. */
static unsigned int harvests_within(struct __test_metadata *_metadata, struct large *l,
				    int log)
{
	struct dirtytrack_harvest arg;
	unsigned int within = 0;
	__u64 seen[GROUP / 64];
	pthread_t thread;

	atomic_store(&l->stop, false);
	ASSERT_EQ(0, pthread_create(&thread, NULL, harvest_much, l));
	while (!atomic_load(&l->stop)) {
		bool begun = delivered(l, 1);

		page_write(l->map, 0, 1);
		memset(seen, 0, sizeof(seen));
		test_harvest(log, 0, 0, GROUP, seen, 0, &arg);
		EXPECT_EQ(1, seen[0] & 1);
		/* It had delivered its first group before, and has the last yet to. */
		if (begun && delivered(l, 1) && !delivered(l, MANY_GROUPS - 1))
			within++;
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	TH_LOG("%u harvests within %d calls for %d groups", within, MANY_CALLS,
	       MANY_GROUPS);
	return within;
}

/*
 * Within one call for a thousand groups, another log is harvested many times: it
 * waits for a group or a few, not for the call, nor for many groups of it: as a rule a
 * harvest comes in after each group, and after one in five it must.  Who does not run meanwhile
 * harvests nothing, and may try again.
 */
#define FEW_GROUPS 5

TEST(another_harvest_delays_by_a_group)
{
	const __u64 npages = (__u64)MANY_GROUPS * GROUP;
	unsigned int within = 0;
	struct large l = { 0 };
	int slot, log;

	run_on(HERE);
	slot = test_new_slot(npages);
	l.map = test_map(slot, 0, npages);
	l.seen = bitmap_alloc(npages);
	l.log = test_log_create(slot, 0);
	log = test_log_create(slot, 0);
	for (int i = 0; i < 10 && within < MANY_CALLS * MANY_GROUPS / FEW_GROUPS; i++)
		within = harvests_within(_metadata, &l, log);
	EXPECT_LE(MANY_CALLS * MANY_GROUPS / FEW_GROUPS, within);
	test_unmap(l.map, npages);
	free(l.seen);
	close(l.log);
	close(log);
	close(slot);
}

/* ---- starts ---- */

#define START_PAGES	(2 * GROUP + 100)

/* What the last step added to the slot's counters. */
#define counted(info, was) do {						\
	*(was) = *(info);						\
	test_slot_info(slot, info);					\
} while (0)

TEST(clean_start_is_one_pass)
{
	struct dirtytrack_slot_info info = { 0 }, was;
	int slot = test_new_slot(START_PAGES), log, again;
	char *map = test_map(slot, 0, START_PAGES);

	for (__u64 page = 0; page < START_PAGES; page++)
		page_write(map, page, 1);
	counted(&info, &was);
	log = test_log_create(slot, 0);
	counted(&info, &was);
	EXPECT_EQ(START_PAGES, info.out_collected - was.out_collected);
	/* One run a group. */
	EXPECT_EQ((START_PAGES + GROUP - 1) / GROUP, info.out_protects - was.out_protects);

	/* What nobody wrote to since need not be visited again. */
	again = test_log_create(slot, 0);
	counted(&info, &was);
	EXPECT_EQ(0, info.out_collected - was.out_collected);
	EXPECT_EQ(0, info.out_protects - was.out_protects);

	/* Nor pages that nobody wrote to at all. */
	page_write(map, GROUP + 5, 2);
	close(again);
	again = test_log_create(slot, 0);
	counted(&info, &was);
	EXPECT_GE(64, info.out_collected - was.out_collected);
	EXPECT_EQ(1, info.out_protects - was.out_protects);
	test_unmap(map, START_PAGES);
	close(again);
	close(log);
	close(slot);
}

/* It protects nothing: who writes meanwhile and after does not fault once. */
TEST(full_start_stops_no_writer)
{
	struct dirtytrack_slot_info info = { 0 }, was;
	int slot = test_new_slot(START_PAGES), log;
	char *map = test_map(slot, 0, START_PAGES);
	__u64 seen[bitmap_words(START_PAGES)];

	for (__u64 page = 0; page < START_PAGES; page++)
		page_write(map, page, 1);
	counted(&info, &was);
	log = test_log_create(slot, DIRTYTRACK_LOG_ALL_SET);
	for (__u64 page = 0; page < START_PAGES; page++)
		page_write(map, page, 2);
	counted(&info, &was);
	EXPECT_EQ(0, info.out_collected - was.out_collected);
	EXPECT_EQ(0, info.out_protects - was.out_protects);
	EXPECT_EQ(0, info.out_faults - was.out_faults);
	EXPECT_EQ(START_PAGES, test_harvest_all(log, 0, 0, START_PAGES, seen, 0));
	test_unmap(map, START_PAGES);
	close(log);
	close(slot);
}

TEST_HARNESS_MAIN
