// SPDX-License-Identifier: GPL-2.0-only
/*
 * Limits: the rate holds, nobody else notices, and waiters are let go
 *
 * That no write is lost while a limit comes and goes is asked in races.c
 * (races.limited).
 *
 * A rate of one page a second is how the other tests make writers wait: what should
 * happen at once, does or takes a second.  The machine may be busy, so what is asked
 * for is that the middle of several tries be far from a second.
 */
#include "tracked.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#include "kvm_vmm.h"

#define NPAGES		16384UL
#define MAX_WRITERS	8
#define TRIES		5

/* Far less than a second, on a machine that is busy. */
#define AT_ONCE		0.3

static int _test_limit(int log, __u64 rate)
{
	struct dirtytrack_limit arg = { .size = sizeof(arg), .rate = rate };

	return dt_ioctl(log, DIRTYTRACK_LOG_LIMIT, &arg);
}

#define test_limit(log, rate) \
	ASSERT_EQ(0, _test_limit(log, rate)) { \
		TH_LOG("LOG_LIMIT: %s", strerror(errno)); \
	}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *values, int n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return values[n / 2];
}

/* The one in the middle is near nothing; @what names them all. */
static void expect_at_once(struct __test_metadata *_metadata, const char *what,
			   double *took)
{
	double middle = median(took, TRIES);

	fprintf(stderr, "# %s: %.3f s, longest %.3f s\n", what, middle, took[TRIES - 1]);
	EXPECT_GT(AT_ONCE, middle) {
		TH_LOG("%s: %.3f s", what, middle);
	}
}

/* ---- writers ---- */

enum way { STORE, READ_FIRST, PWRITE, VM_WRITEV, FORKED };

struct writer {
	enum way way;
	int slot;
	char *mem;
	__u64 first, npages;
	_Atomic bool *stop;
	_Atomic __u64 done;	/* pages */
	_Atomic pid_t tid;
	double longest;		/* seconds for one page */
	pthread_t thread;
};

static void write_page(struct writer *w, __u64 page, __u64 n)
{
	char *at = page_at(w->mem, page);
	struct iovec local = { &n, sizeof(n) }, remote = { at, sizeof(n) };

	switch (w->way) {
	case READ_FIRST:
		page_read(w->mem, page);
		__attribute__((fallthrough));
	case STORE:
	case FORKED:
		*(volatile __u64 *)at = n;
		return;
	case PWRITE:
		if (pwrite(w->slot, &n, sizeof(n), page << DIRTYTRACK_PAGE_SHIFT) !=
		    sizeof(n))
			dt_broken("pwrite: %s", strerror(errno));
		return;
	case VM_WRITEV:
		if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) != sizeof(n))
			dt_broken("process_vm_writev: %s", strerror(errno));
		return;
	}
}

static void *writer_run(void *arg)
{
	struct writer *w = arg;

	w->tid = gettid();
	for (__u64 n = 0; !*w->stop; n++) {
		double start = now(), took;

		write_page(w, w->first + n % w->npages, n + 1);
		took = now() - start;
		if (took > w->longest)
			w->longest = took;
		w->done++;
	}
	return NULL;
}

static bool sleeps(pid_t tid)
{
	char path[64], line[256];
	char state = '?';
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	f = fopen(path, "re");
	if (f && fgets(line, sizeof(line), f) && strrchr(line, ')'))
		state = strrchr(line, ')')[2];
	if (f)
		fclose(f);
	return state == 'S' || state == 'D';
}

struct limited {
	int slot, log;
	char *mem;
	__u64 *got;
	_Atomic bool stop;
	struct writer writers[MAX_WRITERS];
	unsigned int nr;
};

static void limited_open(struct __test_metadata *_metadata, struct limited *l)
{
	l->slot = test_new_slot(NPAGES);
	l->mem = test_map(l->slot, 0, NPAGES);
	l->log = test_log_create(l->slot, 0);
	l->got = bitmap_alloc(NPAGES);
}

static void limited_close(struct limited *l)
{
	free(l->got);
	close(l->log);
	test_unmap(l->mem, NPAGES);
	close(l->slot);
}

FIXTURE(limit) {
	struct limited l;
};

FIXTURE_SETUP(limit)
{
	limited_open(_metadata, &self->l);
}

FIXTURE_TEARDOWN(limit)
{
	limited_close(&self->l);
}

static struct dirtytrack_slot_info slot_info(int slot)
{
	struct dirtytrack_slot_info info;

	if (_test_slot_info(slot, &info))
		dt_broken("SLOT_INFO: %s", strerror(errno));
	return info;
}

static void start_writers(struct limited *l, unsigned int nr, enum way way)
{
	l->stop = false;
	l->nr = nr;
	for (unsigned int i = 0; i < nr; i++) {
		struct writer *w = &l->writers[i];

		*w = (struct writer){
			.way = way,
			.slot = l->slot,
			.mem = l->mem,
			.npages = NPAGES / MAX_WRITERS,
			.first = i * (NPAGES / MAX_WRITERS),
			.stop = &l->stop,
		};
		if (nr == 1)
			w->npages = NPAGES;
		if (pthread_create(&w->thread, NULL, writer_run, w))
			dt_broken("no thread");
	}
}

static __u64 writers_done(struct limited *l)
{
	__u64 done = 0;

	for (unsigned int i = 0; i < l->nr; i++)
		done += l->writers[i].done;
	return done;
}

/* All writers are asleep, each in the middle of a write. */
static void wait_for_waiters(struct limited *l)
{
	for (double end = now() + TEST_PATIENCE; now() < end; usleep(1000)) {
		unsigned int asleep = 0;
		__u64 done = writers_done(l);

		for (unsigned int i = 0; i < l->nr; i++)
			asleep += l->writers[i].tid && sleeps(l->writers[i].tid);
		if (asleep == l->nr && done == writers_done(l))
			return;
	}
	dt_broken("the writers do not wait");
}

/* Waits until each writer has written one page more than now. */
static double progress_of_all(struct limited *l)
{
	double start = now();
	__u64 before[MAX_WRITERS];

	for (unsigned int i = 0; i < l->nr; i++)
		before[i] = l->writers[i].done;
	for (unsigned int i = 0; i < l->nr; i++)
		while (l->writers[i].done == before[i] && now() < start + TEST_PATIENCE)
			usleep(1000);
	return now() - start;
}

static void join_writers(struct limited *l)
{
	l->stop = true;
	/* Those who wait are let go. */
	_test_limit(l->log, 0);
	for (unsigned int i = 0; i < l->nr; i++)
		pthread_join(l->writers[i].thread, NULL);
}

/* ---- the rate ---- */

/* Slots that are measured at the same time: a limit is its slot's alone. */
#define MAX_RATED 6

struct rated {
	enum way way;
	unsigned int writers;
	__u64 rate;
};

FIXTURE(rate) {
	struct limited l[MAX_RATED];
	unsigned int nr;
};

FIXTURE_VARIANT(rate) {
	struct rated slots[MAX_RATED];
};

FIXTURE_VARIANT_ADD(rate, slow) {
	.slots = {
		{ STORE, 1, 500 },
		{ STORE, 4, 500 },
		{ STORE, 4, 20 },
		{ READ_FIRST, 1, 500 },
		{ PWRITE, 1, 500 },
		{ VM_WRITEV, 4, 500 },
	},
};

/* Those take all of an emulated machine: one at a time. */
#define FAST(name, ...) FIXTURE_VARIANT_ADD(rate, name) { .slots = { { __VA_ARGS__ } } }

FAST(one_5000, STORE, 1, 5000);
FAST(four_5000, STORE, 4, 5000);
FAST(read_first_four_5000, READ_FIRST, 4, 5000);
FAST(pwrite_four_5000, PWRITE, 4, 5000);

FIXTURE_SETUP(rate)
{
	for (; self->nr < MAX_RATED && variant->slots[self->nr].writers; self->nr++)
		limited_open(_metadata, &self->l[self->nr]);
}

FIXTURE_TEARDOWN(rate)
{
	for (unsigned int i = 0; i < self->nr; i++)
		limited_close(&self->l[i]);
}

/* Pages a second that each of the logs had, harvested every 100 ms for @seconds. */
static void dirty_rates(struct __test_metadata *_metadata, struct limited *l,
			unsigned int nr, double seconds, double *rates)
{
	double start[MAX_RATED], next, at = 0;
	__u64 dirty[MAX_RATED] = { 0 };

	for (unsigned int i = 0; i < nr; i++) {
		test_harvest_all(l[i].log, 0, 0, NPAGES, l[i].got, 0);
		start[i] = now();
	}
	next = now();
	do {
		next += 0.1;
		while (now() < next)
			usleep(1000);
		for (unsigned int i = 0; i < nr; i++) {
			dirty[i] += test_harvest_all(l[i].log, 0, 0, NPAGES, l[i].got, 0);
			at = now();
			rates[i] = dirty[i] / (at - start[i]);
		}
	} while (at < start[nr - 1] + seconds);
}

static double dirty_rate(struct __test_metadata *_metadata, struct limited *l,
			 double seconds)
{
	double rate;

	dirty_rates(_metadata, l, 1, seconds, &rate);
	return rate;
}

static bool within(double rate, double want, double part)
{
	return rate > want * (1 - part) && rate < want * (1 + part);
}

/*
 * Within 10 % over 5 seconds, two times in a row: what comes by the right rate on its
 * way from one that is wrong to another does not stay there.  More measurements are
 * allowed, and told of: someone who did not run for a second has not been dirtying
 * pages either, and a machine that is busy does not let everybody run in each five of
 * them.
 */
#define MEASUREMENTS 8
#define IN_A_ROW 2

static void expect_rates(struct __test_metadata *_metadata, struct limited *l,
			 unsigned int nr, const __u64 *want)
{
	unsigned int row[MAX_RATED] = { 0 }, held = 0;
	double rates[MAX_RATED];

	/* What had been saved up before there was a limit, or a writer. */
	dirty_rates(_metadata, l, nr, 0.5, rates);
	for (int n = 0; n < MEASUREMENTS && held < nr; n++) {
		dirty_rates(_metadata, l, nr, 5, rates);
		for (unsigned int i = 0; i < nr; i++) {
			fprintf(stderr, "# %.1f pages a second of %llu, measurement %d\n",
				rates[i], want[i], n + 1);
			if (row[i] == IN_A_ROW)
				continue;
			row[i] = within(rates[i], want[i], 0.1) ? row[i] + 1 : 0;
			held += row[i] == IN_A_ROW;
		}
	}
	for (unsigned int i = 0; i < nr; i++) {
		EXPECT_EQ(IN_A_ROW, row[i]) {
			TH_LOG("%.1f pages a second instead of %llu, slot %u", rates[i],
			       want[i], i);
		}
	}
}

static void expect_rate(struct __test_metadata *_metadata, struct limited *l,
			__u64 want)
{
	expect_rates(_metadata, l, 1, &want);
}

/* A limit means something to those who would be a lot faster without. */
static __u64 meant_rate(struct __test_metadata *_metadata, struct limited *l, __u64 rate)
{
	__u64 pace = 0;

	for (int i = 0; i < MEASUREMENTS && rate > pace / 4; i++)
		pace = dirty_rate(_metadata, l, 1);
	if (rate <= pace / 4)
		return rate;
	fprintf(stderr, "# without a limit only %llu pages a second\n", pace);
	return pace / 4;
}

TEST_F_TIMEOUT(rate, holds, 300)
{
	struct dirtytrack_slot_info before[MAX_RATED], after;
	__u64 rates[MAX_RATED];

	for (unsigned int i = 0; i < self->nr; i++) {
		struct limited *l = &self->l[i];

		start_writers(l, variant->slots[i].writers, variant->slots[i].way);
		rates[i] = meant_rate(_metadata, l, variant->slots[i].rate);
		ASSERT_LT(10, rates[i]);
		before[i] = slot_info(l->slot);
		EXPECT_EQ(0, before[i].out_throttles);
		test_limit(l->log, rates[i]);
		EXPECT_EQ(rates[i], slot_info(l->slot).out_rate);
	}
	expect_rates(_metadata, self->l, self->nr, rates);
	for (unsigned int i = 0; i < self->nr; i++) {
		after = slot_info(self->l[i].slot);
		join_writers(&self->l[i]);

		/* They waited for most of that time, and the counters say so. */
		EXPECT_LT(before[i].out_throttles + 20, after.out_throttles);
		EXPECT_LT(before[i].out_throttled_ns + 1000000000, after.out_throttled_ns);
		EXPECT_EQ(0, slot_info(self->l[i].slot).out_rate);
	}
}

TEST_F_TIMEOUT(limit, guest_is_held_to_it, 300)
{
	struct kvm_regs regs = { .rsi = VMM_SPIN };
	volatile struct vmm_spin *spin;
	const char *what;
	struct vmm v;

	if (!vmm_have_kvm())
		SKIP(return, "no /dev/kvm");
	ASSERT_EQ(0, vmm_open(&v, 1, &what)) {
		TH_LOG("%s: %s", what, strerror(errno));
	}
	ASSERT_EQ(0, vmm_set_region(&v, 1, 0, VMM_RAM, self->l.mem,
				    NPAGES << DIRTYTRACK_PAGE_SHIFT));
	spin = vmm_spin(&v, 0);
	spin->addr = VMM_RAM;
	spin->npages = NPAGES;
	test_limit(self->l.log, 500);
	ASSERT_EQ(0, vcpu_start(&v.vcpus[0], guest_spin, &regs));
	ASSERT_EQ(0, pthread_create(&v.vcpus[0].thread, NULL, vcpu_thread, &v.vcpus[0]));
	expect_rate(_metadata, &self->l, 500);
	test_limit(self->l.log, 0);
	spin->stop = 1;
	EXPECT_EQ(0, vmm_join(&v, 0)) {
		TH_LOG("%s", v.vcpus[0].trouble);
	}
	vmm_close(&v);
}

/* The smallest of the slot's limits holds, each as long as its log. */
TEST_F_TIMEOUT(limit, smallest_holds, 300)
{
	struct dirtytrack_log_info info;
	int second = test_log_create(self->l.slot, 0), third = test_log_create(self->l.slot, 0);

	test_limit(self->l.log, 300);
	test_limit(second, 100000);
	EXPECT_EQ(300, slot_info(self->l.slot).out_rate);
	test_limit(third, 50);
	EXPECT_EQ(50, slot_info(self->l.slot).out_rate);
	test_log_info(self->l.log, &info);
	EXPECT_EQ(300, info.out_rate);
	test_log_info(second, &info);
	EXPECT_EQ(100000, info.out_rate);

	start_writers(&self->l, 2, STORE);
	expect_rate(_metadata, &self->l, 50);
	close(third);
	EXPECT_EQ(300, slot_info(self->l.slot).out_rate);
	expect_rate(_metadata, &self->l, 300);
	join_writers(&self->l);
	EXPECT_EQ(100000, slot_info(self->l.slot).out_rate);
	close(second);
	EXPECT_EQ(0, slot_info(self->l.slot).out_rate);
}

/* A turn is one page's, not that of those which lie beside it. */
TEST_F(limit, counts_pages)
{
	__u64 grants;

	for (int i = 0; i < 3; i++) {
		for (__u64 n = 64; n < 128; n++)
			page_write(self->l.mem, n, i);
		test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
	}
	test_limit(self->l.log, 100000);
	test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
	/* Mapped, so that they could be granted with their neighbour. */
	for (__u64 n = 64; n < 128; n++)
		page_read(self->l.mem, n);
	grants = slot_info(self->l.slot).out_grants;
	for (__u64 n = 70; n < 75; n++) {
		page_write(self->l.mem, n, 7);
		EXPECT_EQ(++grants, slot_info(self->l.slot).out_grants);
	}
}

/* What was released is open, for a collect to look, but was not written. */
TEST_F(limit, released_pages_count)
{
	const enum way ways[] = { STORE, PWRITE };
	const __u64 npages = 12;

	for (int i = 0; i < 2; i++) {
		struct writer w = { .way = ways[i], .slot = self->l.slot, .mem = self->l.mem };
		double start;

		test_limit(self->l.log, 0);
		for (__u64 n = 0; n < npages; n++)
			page_write(self->l.mem, n, 1);
		test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
		test_limit(self->l.log, 20);
		ASSERT_EQ(0, fallocate(self->l.slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       0, npages * PAGE_SIZE));
		start = now();
		for (__u64 n = 0; n < npages; n++)
			write_page(&w, n, 2);
		/* Two of them are what 100 ms forgive. */
		EXPECT_LT((npages - 3) / 20.0, now() - start);
	}
}

/* Punching a part of a page writes to it, and writes nothing where there is none. */
TEST_F(limit, punched_parts_count)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	const __u64 npages = 12;
	double start;

	for (__u64 n = 0; n < npages; n++)
		page_write(self->l.mem, n, 1);
	test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
	ASSERT_EQ(0, fallocate(self->l.slot, punch, npages * PAGE_SIZE,
			       (NPAGES - npages) * PAGE_SIZE));
	test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
	test_limit(self->l.log, 20);
	start = now();
	for (__u64 n = 0; n < npages; n++)
		ASSERT_EQ(0, fallocate(self->l.slot, punch, n * PAGE_SIZE + 8, 1));
	EXPECT_LT((npages - 3) / 20.0, now() - start);

	test_limit(self->l.log, 1);
	start = now();
	for (__u64 n = npages; n < 2 * npages; n++)
		ASSERT_EQ(0, fallocate(self->l.slot, punch, n * PAGE_SIZE + 8, 1));
	EXPECT_GT(npages / 2, now() - start);
}

/* Who did not write for a while cannot make up for it: 100 ms are forgiven. */
TEST_F_TIMEOUT(limit, unused_is_forfeited, 300)
{
	double start, seconds;
	__u64 dirty;

	test_limit(self->l.log, 200);
	usleep(3000000);
	start_writers(&self->l, 2, STORE);
	start = now();
	usleep(1000000);
	while (writers_done(&self->l) <= 20 && now() < start + TEST_PATIENCE)
		usleep(1000);
	dirty = test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
	seconds = now() - start;
	join_writers(&self->l);
	fprintf(stderr, "# %llu pages in the first %.2f s, of 200 a second\n", dirty,
		seconds);
	EXPECT_LT(20, dirty);
	/* A thread whose turn it is may have been told and not run. */
	EXPECT_GT(200 * seconds + 20 + 20, dirty);
}

/* ---- those it is not about ---- */

/*
 * Few enough pages that what is measured is not how fast a TLB is filled again: it is
 * flushed when pages are protected.  Each writer's first page is one of them.
 */
#define READ_STEP 64

struct reader {
	const char *mem;
	_Atomic bool stop;
	__u64 reads;
	double longest;
	pthread_t thread;
};

static void *reader_run(void *arg)
{
	struct reader *r = arg;

	while (!r->stop) {
		for (__u64 page = 0; page < NPAGES && !r->stop; page += READ_STEP) {
			double start = now(), took;

			page_read(r->mem, page);
			took = now() - start;
			if (took > r->longest)
				r->longest = took;
			r->reads++;
		}
	}
	return NULL;
}

static double reads_a_second(struct __test_metadata *_metadata, struct limited *l,
			     struct reader *r)
{
	double start = now();

	*r = (struct reader){ .mem = l->mem };
	ASSERT_EQ(0, pthread_create(&r->thread, NULL, reader_run, r));
	while (now() < start + 1) {
		usleep(100000);
		test_harvest_all(l->log, 0, 0, NPAGES, l->got, 0);
	}
	r->stop = true;
	pthread_join(r->thread, NULL);
	return r->reads / (now() - start);
}

/* A reader is as fast beside eight waiting writers as alone, and never waits. */
TEST_F_TIMEOUT(limit, readers_do_not_wait, 300)
{
	double alone = 0, beside = 0, rate, longest[TRIES];
	struct reader r;

	for (__u64 n = 0; n < NPAGES; n++)
		page_write(self->l.mem, n, 1);
	for (int i = 0; i < TRIES; i++) {
		rate = reads_a_second(_metadata, &self->l, &r);
		alone = rate > alone ? rate : alone;
		test_limit(self->l.log, 1);
		start_writers(&self->l, 8, i % 2 ? STORE : READ_FIRST);
		wait_for_waiters(&self->l);
		rate = reads_a_second(_metadata, &self->l, &r);
		beside = rate > beside ? rate : beside;
		longest[i] = r.longest;
		join_writers(&self->l);
	}
	fprintf(stderr, "# reads a second: alone %.0f, beside waiters %.0f\n", alone,
		beside);
	EXPECT_LT(alone / 2, beside);
	expect_at_once(_metadata, "the longest read", longest);
}

/*
 * No lock is held while waiting: another thread of the same process maps, unmaps and
 * forks meanwhile, and other writers write what is writable.
 */
static void expect_no_lock_held(struct __test_metadata *_metadata,
				struct limited *l, enum way way)
{
	double took[3][TRIES];

	page_write(l->mem, NPAGES - 1, 1);
	test_limit(l->log, 1);
	start_writers(l, 8, way);
	for (int i = 0; i < TRIES; i++) {
		double worst = 0, start, t;
		pid_t pid;

		wait_for_waiters(l);
		for (int k = 0; k < 20 && worst < AT_ONCE; k++) {
			void *p;

			start = now();
			p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			ASSERT_NE(MAP_FAILED, p);
			ASSERT_EQ(0, munmap(p, PAGE_SIZE));
			p = test_map(l->slot, 0, 1);
			test_unmap(p, 1);
			t = now() - start;
			worst = t > worst ? t : worst;
		}
		took[0][i] = worst;

		wait_for_waiters(l);
		start = now();
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(0);
		took[1][i] = now() - start;
		ASSERT_TRUE(child_ok(pid));

		wait_for_waiters(l);
		start = now();
		test_harvest_all(l->log, 0, 0, NPAGES, l->got, 0);
		ASSERT_EQ(0, fallocate(l->slot, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE,
				       (NPAGES - 1) * PAGE_SIZE, PAGE_SIZE));
		took[2][i] = now() - start;
	}
	join_writers(l);
	expect_at_once(_metadata, "mmap and munmap beside waiters", took[0]);
	expect_at_once(_metadata, "fork beside waiters", took[1]);
	expect_at_once(_metadata, "harvest and punch beside waiters", took[2]);
}

TEST_F_TIMEOUT(limit, no_lock_is_held, 300)
{
	expect_no_lock_held(_metadata, &self->l, STORE);
}

TEST_F_TIMEOUT(limit, no_lock_is_held_after_a_read, 300)
{
	expect_no_lock_held(_metadata, &self->l, READ_FIRST);
}

TEST_F_TIMEOUT(limit, no_lock_is_held_by_the_kernels_writes, 300)
{
	expect_no_lock_held(_metadata, &self->l, PWRITE);
}

/* ---- how a wait ends ---- */

/* Of four writers with a limit of one page a second, for 10 seconds. */
static void longest_waits(struct __test_metadata *_metadata, struct limited *l,
			  double *longest, __u64 *fewest)
{
	double start, most;

	test_limit(l->log, 1);
	start_writers(l, 4, STORE);
	start = now();
	while (now() < start + 10) {
		usleep(100000);
		test_harvest_all(l->log, 0, 0, NPAGES, l->got, 0);
	}
	*fewest = UINT64_MAX;
	for (int i = 0; i < 4; i++) {
		__u64 done = l->writers[i].done;

		/* One page at once for what was saved up, then one a second. */
		most = now() - start + 4;
		EXPECT_GE(most, done) {
			TH_LOG("writer %d had %llu pages in %.1f s", i, done, most - 4);
		}
		*fewest = done < *fewest ? done : *fewest;
	}
	join_writers(l);
	for (int i = 0; i < 4; i++)
		longest[i] = l->writers[i].longest;
	qsort(longest, 4, sizeof(*longest), compare_doubles);
	fprintf(stderr, "# longest waits for a page: %.2f %.2f %.2f %.2f s; %llu pages at least\n",
		longest[0], longest[1], longest[2], longest[3], *fewest);
}

/*
 * A second is the most that a writer waits at once, and then he has his page; at least
 * in one of several tries, for the machine may keep everybody waiting.
 */
TEST_F_TIMEOUT(limit, nobody_waits_long, 300)
{
	double longest[4];
	__u64 fewest;

	for (int i = 0; i < TRIES; i++) {
		longest_waits(_metadata, &self->l, longest, &fewest);
		EXPECT_LT(0.9, longest[0]);
		if (longest[1] < 2 && fewest >= 5)
			break;
	}
	EXPECT_GT(2, longest[1]);
	EXPECT_LE(5, fewest);
}

enum release { LIFT, RAISE, CLOSE, KILL_HOLDER, RELEASES };

static const char *const release_names[] = {
	[LIFT] = "lifted", [RAISE] = "raised", [CLOSE] = "log closed",
	[KILL_HOLDER] = "holder of the log killed",
};

static void hold_a_limit(int slot, int end)
{
	int log;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (_test_log_create(slot, 0, &log) || _test_limit(log, 1))
		_exit(1);
	turn_give(end);
	for (;;)
		pause();
}

static double release_waiters(struct __test_metadata *_metadata,
			      struct limited *l, enum release how)
{
	int log = -1, pair[2];
	pid_t pid = -1;
	double took;

	if (how == KILL_HOLDER) {
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			hold_a_limit(l->slot, pair[1]);
		close(pair[1]);
		ASSERT_TRUE(turn_wait(pair[0]));
		close(pair[0]);
	} else {
		log = test_log_create(l->slot, 0);
		test_limit(log, 1);
	}
	test_harvest_all(l->log, 0, 0, NPAGES, l->got, 0);
	start_writers(l, 4, STORE);
	wait_for_waiters(l);
	/* Their time is not near, either. */
	progress_of_all(l);
	wait_for_waiters(l);
	switch (how) {
	case LIFT:
		test_limit(log, 0);
		break;
	case RAISE:
		test_limit(log, 1000000);
		break;
	case CLOSE:
		close(log);
		break;
	default:
		ASSERT_EQ(0, kill(pid, SIGKILL));
		break;
	}
	took = progress_of_all(l);
	join_writers(l);
	if (how == LIFT || how == RAISE)
		close(log);
	if (how == KILL_HOLDER)
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	return took;
}

TEST_F_TIMEOUT(limit, waiters_are_released_at_once, 300)
{
	for (int how = 0; how < RELEASES; how++) {
		double took[TRIES];
		char what[64];

		for (int i = 0; i < TRIES; i++)
			took[i] = release_waiters(_metadata, &self->l, how);
		snprintf(what, sizeof(what), "four waiters, %s", release_names[how]);
		expect_at_once(_metadata, what, took);
	}
	EXPECT_EQ(0, slot_info(self->l.slot).out_rate);
}

/* A process whose thread waits ends as fast as any other. */
TEST_F_TIMEOUT(limit, killed_while_waiting, 300)
{
	for (enum way way = STORE; way <= VM_WRITEV; way++) {
		double took[TRIES];
		char what[64];

		for (int i = 0; i < TRIES; i++) {
			struct writer w = {
				.way = way, .slot = self->l.slot, .mem = self->l.mem,
				.npages = NPAGES, .stop = &self->l.stop,
			};
			double start;
			pid_t pid;

			test_limit(self->l.log, 1);
			test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
			pid = fork();
			ASSERT_LE(0, pid);
			if (!pid) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				writer_run(&w);
				_exit(1);
			}
			usleep(150000);
			while (!sleeps(pid))
				usleep(1000);
			start = now();
			ASSERT_EQ(0, kill(pid, SIGKILL));
			ASSERT_EQ(128 + SIGKILL, test_wait(pid));
			took[i] = now() - start;
		}
		snprintf(what, sizeof(what), "end of a killed writer, way %d", way);
		expect_at_once(_metadata, what, took);
	}
}

static _Atomic int handled;

static void on_usr1(int sig)
{
	(void)sig;
	handled++;
}

/* A handler runs while its thread's write waits, and the write is done after it. */
TEST_F_TIMEOUT(limit, handler_runs_while_waiting, 300)
{
	struct sigaction action = { .sa_handler = on_usr1, .sa_flags = SA_RESTART };
	double took[TRIES];

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	test_limit(self->l.log, 1);
	start_writers(&self->l, 1, STORE);
	for (int i = 0; i < TRIES; i++) {
		double start;
		__u64 done;

		progress_of_all(&self->l);
		wait_for_waiters(&self->l);
		done = self->l.writers[0].done;
		start = now();
		handled = 0;
		ASSERT_EQ(0, pthread_kill(self->l.writers[0].thread, SIGUSR1));
		while (!handled && now() < start + TEST_PATIENCE)
			usleep(1000);
		took[i] = now() - start;
		EXPECT_EQ(1, handled);
		/* The page is still to be waited for. */
		wait_for_waiters(&self->l);
		EXPECT_GE(done + 1 + (__u64)(now() - start), self->l.writers[0].done);
	}
	join_writers(&self->l);
	expect_at_once(_metadata, "a handler", took);
	for (__u64 n = 0; n < self->l.writers[0].done; n++)
		EXPECT_EQ(n + 1, *(__u64 *)page_at(self->l.mem, n));
}

struct pwriter {
	int slot;
	char *buf;
	_Atomic ssize_t ret;
	_Atomic int err;
	_Atomic pid_t tid;
	pthread_t thread;
};

static void *pwriter_run(void *arg)
{
	struct pwriter *p = arg;
	ssize_t ret;

	p->tid = gettid();
	ret = pwrite(p->slot, p->buf, 100 * PAGE_SIZE, 0);
	p->err = ret < 0 ? errno : 0;
	p->ret = ret;
	return NULL;
}

/* A system call says how far it came, or that it was interrupted. */
TEST_F_TIMEOUT(limit, pwrite_is_interrupted, 300)
{
	struct sigaction action = { .sa_handler = on_usr1 };
	struct pwriter p = { .slot = self->l.slot, .buf = calloc(100, PAGE_SIZE) };
	double took[TRIES];

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	test_limit(self->l.log, 1);
	for (int i = 0; i < TRIES; i++) {
		double begin = now(), start;
		__u64 dirty;

		test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
		bitmap_zero(self->l.got, NPAGES);
		memset(p.buf, i + 1, 100 * PAGE_SIZE);
		p.ret = p.tid = 0;
		ASSERT_EQ(0, pthread_create(&p.thread, NULL, pwriter_run, &p));
		while (!p.tid)
			usleep(1000);
		usleep(100000);
		while (!sleeps(p.tid))
			usleep(1000);
		start = now();
		ASSERT_EQ(0, pthread_kill(p.thread, SIGUSR1));
		pthread_join(p.thread, NULL);
		took[i] = now() - start;

		dirty = test_harvest_all(self->l.log, 0, 0, NPAGES, self->l.got, 0);
		if (p.ret < 0) {
			EXPECT_EQ(EINTR, p.err);
			EXPECT_EQ(0, dirty);
		} else {
			EXPECT_LT(0, p.ret);
			/* One a second, and what had been saved up. */
			EXPECT_GT((now() - begin + 4) * PAGE_SIZE, p.ret);
			EXPECT_EQ(p.ret / PAGE_SIZE, dirty);
			EXPECT_TRUE(bytes_are(self->l.mem, i + 1, p.ret));
		}
	}
	expect_at_once(_metadata, "an interrupted pwrite", took);
	free(p.buf);
}

/* ---- the mapping goes while its writer waits ---- */

static __thread sigjmp_buf segv_env;

static void on_segv(int sig)
{
	siglongjmp(segv_env, sig);
}

struct doomed {
	char *at;
	_Atomic pid_t tid;
	_Atomic int signal;
	pthread_t thread;
};

static void *doomed_run(void *arg)
{
	struct doomed *d = arg;
	int sig = sigsetjmp(segv_env, 1);

	if (!sig) {
		d->tid = gettid();
		*(volatile char *)d->at = 1;
	}
	d->signal = sig ?: -1;
	return NULL;
}

/* Of four writers, how many were waiting for a page when their mapping went. */
static int doomed_round(struct __test_metadata *_metadata, int dev, bool slot_goes,
			bool log_goes)
{
	struct doomed d[4];
	int slot, log, hit = 0;
	double start;
	char *mem;
	__u32 id;

	slot = test_slot_create(dev, NULL, NPAGES << DIRTYTRACK_PAGE_SHIFT, &id);
	mem = test_map(slot, 0, NPAGES);
	log = test_log_create(slot, 0);
	test_limit(log, 1);
	/* What was saved up is used: the next ones wait. */
	for (int k = 0; k < 2; k++)
		page_write(mem, 100 + k, 1);
	for (int k = 0; k < 4; k++) {
		d[k] = (struct doomed){ .at = page_at(mem, k) };
		ASSERT_EQ(0, pthread_create(&d[k].thread, NULL, doomed_run, &d[k]));
	}
	for (int k = 0; k < 4; k++)
		while (!d[k].signal && (!d[k].tid || !sleeps(d[k].tid)))
			usleep(1000);
	test_unmap(mem, NPAGES);
	/* With the slot, and its limit: nobody has it but those who wait. */
	if (slot_goes)
		close(slot);
	if (log_goes)
		close(log);
	start = now();
	for (int k = 0; k < 4; k++) {
		pthread_join(d[k].thread, NULL);
		hit += d[k].signal == SIGSEGV;
	}
	EXPECT_GT(TEST_PATIENCE, now() - start);
	if (!slot_goes)
		close(slot);
	if (!log_goes)
		close(log);
	EXPECT_TRUE(eventually(!test_slot_listed(dev, id)));
	return hit;
}

TEST_F_TIMEOUT(limit, mapping_goes_while_waiting, 600)
{
	struct sigaction action = { .sa_handler = on_segv };
	int dev = test_device();

	ASSERT_EQ(0, sigaction(SIGSEGV, &action, NULL));
	for (int i = 0; i < 4; i++) {
		int hit = 0;

		/* Where a second goes by before, one of them has had his page. */
		for (int try = 0; try < TRIES && hit != 4; try++)
			hit = doomed_round(_metadata, dev, i % 2, i >= 2);
		EXPECT_EQ(4, hit);
	}
	close(dev);
}

/* A child's writes count, and its end takes nothing away from the others' turns. */
TEST_F_TIMEOUT(limit, processes_share_it, 300)
{
	struct writer w = {
		.way = FORKED, .slot = self->l.slot, .mem = self->l.mem, .npages = NPAGES / 2,
		.first = NPAGES / 2, .stop = &self->l.stop,
	};
	pid_t pid;

	test_limit(self->l.log, 500);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		writer_run(&w);
	}
	start_writers(&self->l, 2, STORE);
	expect_rate(_metadata, &self->l, 500);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, test_wait(pid));
	expect_rate(_metadata, &self->l, 500);
	join_writers(&self->l);
}

TEST_HARNESS_MAIN
