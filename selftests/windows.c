// SPDX-License-Identifier: GPL-2.0-only
/*
 * Narrow windows: one race a test
 *
 * races.c lets everything race with everything.  Here each test has few pages and
 * few moving parts, so that one interleaving comes up as often as can be; where the
 * order can be forced, it is.
 */
#include "tracked.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* ---- several writers of one page ---- */

/*
 * Each writer has a word in every page and counts in it.  A write that had completed
 * before a harvest was called must be in what is copied after it.  Two writers of one
 * page are what races.c does not have: the second finds the entry writable that the
 * first one's fault has made so, while that fault is still being served.
 */
#define WRITERS		2
#define FEW_PAGES	6

enum manner {
	PLAIN,		/* stores */
	IN_A_BRACKET,	/* mprotect to read-write, stores, mprotect to read-only */
};

struct writer {
	char *mem;
	enum manner manner;
	unsigned int id;
	__u64 random;
	_Atomic bool *stop;
	_Atomic __u64 done[FEW_PAGES];
	_Atomic __u64 writes;
	pthread_t thread;
};

FIXTURE(words) {
	int slot, log;
	_Atomic bool stop;
	char *mem[WRITERS];
	char *view;
	struct writer writers[WRITERS];
	__u64 shadow[WRITERS][FEW_PAGES];
};

FIXTURE_VARIANT(words) {
	enum manner manner;
	bool own_mapping;	/* each writer has one */
};

FIXTURE_VARIANT_ADD(words, one_mapping) { .manner = PLAIN };
FIXTURE_VARIANT_ADD(words, two_mappings) { .manner = PLAIN, .own_mapping = true };
/* A writer that takes permission away from the other would end it. */
FIXTURE_VARIANT_ADD(words, mprotect) { .manner = IN_A_BRACKET, .own_mapping = true };

FIXTURE_SETUP(words)
{
	self->slot = test_new_slot(FEW_PAGES);
	self->view = test_map(self->slot, 0, FEW_PAGES);
	self->log = test_log_create(self->slot, 0);
	for (unsigned int i = 0; i < WRITERS; i++) {
		self->mem[i] = i && !variant->own_mapping ? self->mem[0] :
			       test_map(self->slot, 0, FEW_PAGES);
		self->writers[i] = (struct writer){
			.mem = self->mem[i],
			.manner = variant->manner,
			.id = i,
			.random = 88172645463325252ULL + i * 1000003,
			.stop = &self->stop,
		};
	}
}

FIXTURE_TEARDOWN(words)
{
	for (unsigned int i = 0; i < WRITERS; i++)
		if (!i || variant->own_mapping)
			test_unmap(self->mem[i], FEW_PAGES);
	test_unmap(self->view, FEW_PAGES);
	close(self->log);
	close(self->slot);
}

static volatile __u64 *word_of(char *mem, unsigned int writer, __u64 page)
{
	return (volatile __u64 *)page_at(mem, page) + writer;
}

static void count_once(struct writer *w, __u64 page)
{
	__u64 n = atomic_load_explicit(&w->done[page], memory_order_relaxed) + 1;

	*word_of(w->mem, w->id, page) = n;
	/* Pairs with the acquire in words_round(). */
	atomic_store_explicit(&w->done[page], n, memory_order_release);
	atomic_fetch_add_explicit(&w->writes, 1, memory_order_relaxed);
}

static void *word_writer(void *arg)
{
	struct writer *w = arg;

	while (!atomic_load_explicit(w->stop, memory_order_relaxed)) {
		__u64 page;

		w->random = w->random * 6364136223846793005ULL + 1442695040888963407ULL;
		page = (w->random >> 33) % FEW_PAGES;
		if (w->manner == PLAIN) {
			count_once(w, page);
			continue;
		}
		if (mprotect(w->mem, FEW_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE))
			dt_broken("mprotect: %s", strerror(errno));
		count_once(w, page);
		if (w->random >> 62)
			count_once(w, FEW_PAGES - 1 - page);
		if (mprotect(w->mem, FEW_PAGES * PAGE_SIZE, PROT_READ))
			dt_broken("mprotect: %s", strerror(errno));
	}
	return NULL;
}

/* Harvests and copies; yields how many words lack a write that had completed. */
static int words_round(int log, struct writer *writers, char *view,
		       __u64 shadow[WRITERS][FEW_PAGES])
{
	__u64 before[WRITERS][FEW_PAGES], got = 0;
	int lost = 0;

	for (unsigned int i = 0; i < WRITERS; i++)
		for (__u64 n = 0; n < FEW_PAGES; n++)
			before[i][n] = atomic_load_explicit(&writers[i].done[n],
							    memory_order_acquire);
	if (_test_harvest_all(log, 0, 0, FEW_PAGES, &got, 0, NULL))
		dt_broken("HARVEST: %s", strerror(errno));
	for (unsigned int i = 0; i < WRITERS; i++) {
		for (__u64 n = 0; n < FEW_PAGES; n++) {
			if (bit_test(&got, n))
				shadow[i][n] = *word_of(view, i, n);
			lost += shadow[i][n] < before[i][n];
		}
	}
	return lost;
}

/* Each of them enough to prove something. */
static bool all_wrote(const struct writer *writers)
{
	for (unsigned int i = 0; i < WRITERS; i++)
		if (writers[i].writes <= 100)
			return false;
	return true;
}

TEST_F_TIMEOUT(words, nothing_is_lost, 3700)
{
	double end = now() + race_seconds(2);
	__u64 rounds = 0;
	int lost = 0;

	for (unsigned int i = 0; i < WRITERS; i++)
		ASSERT_EQ(0, pthread_create(&self->writers[i].thread, NULL,
					    word_writer, &self->writers[i]));
	while (!lost && (now() < end || rounds < 100 || !all_wrote(self->writers))) {
		lost = words_round(self->log, self->writers, self->view, self->shadow);
		/* At times the writers get some way before they are stopped again. */
		if (++rounds % 4 == 0)
			usleep(rounds % 100);
	}
	atomic_store(&self->stop, true);
	for (unsigned int i = 0; i < WRITERS; i++)
		pthread_join(self->writers[i].thread, NULL);
	EXPECT_EQ(0, lost) {
		TH_LOG("harvest %llu lacks a write that had completed", rounds);
	}
	EXPECT_EQ(0, words_round(self->log, self->writers, self->view, self->shadow));
	for (unsigned int i = 0; i < WRITERS; i++) {
		EXPECT_LT(100, self->writers[i].writes);
		for (__u64 n = 0; n < FEW_PAGES; n++)
			EXPECT_EQ(self->writers[i].done[n], self->shadow[i][n]);
	}
}

/* ---- other races ---- */

FIXTURE(window) {
	__u64 rounds;
};

FIXTURE_SETUP(window)
{
	self->rounds = 0;
}

FIXTURE_TEARDOWN(window)
{
	TH_LOG("%llu rounds", self->rounds);
}

/* ---- a page that is held, and mapped and unmapped meanwhile ---- */

struct mapper {
	char *mem;
	_Atomic bool stop;
	_Atomic __u64 times;
};

static void *map_and_unmap(void *arg)
{
	struct mapper *m = arg;

	while (!atomic_load(&m->stop)) {
		page_read(m->mem, 0);
		if (madvise(m->mem, PAGE_SIZE, MADV_DONTNEED))
			dt_broken("MADV_DONTNEED: %s", strerror(errno));
		m->times++;
	}
	return NULL;
}

/*
 * A page is known to be held by its count of references, of which its mappings have
 * one each; those come and go while the count is read.
 */
TEST_F_TIMEOUT(window, held_page_is_reported, 3700)
{
	int slot = test_new_slot(1), log, pipes[2];
	struct mapper m = { .mem = test_map(slot, 0, 1) };
	struct iovec iov = { .iov_base = m.mem, .iov_len = PAGE_SIZE };
	double end = now() + race_seconds(2);
	__u64 got, missing = 0;
	pthread_t thread;

	page_write(m.mem, 0, 1);
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ((ssize_t)PAGE_SIZE, vmsplice(pipes[1], &iov, 1, 0));
	log = test_log_create(slot, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, map_and_unmap, &m));
	while (now() < end || self->rounds < 100 || m.times < 100) {
		got = 0;
		test_harvest_all(log, 0, 0, 1, &got, 0);
		missing += !got;
		self->rounds++;
	}
	atomic_store(&m.stop, true);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, missing) {
		TH_LOG("%llu of %llu harvests lack the page", missing, self->rounds);
	}
	test_unmap(m.mem, 1);
	close(pipes[0]);
	close(pipes[1]);
	close(log);
	close(slot);
}

/* ---- entries that fork copies ---- */

struct fork_race {
	_Atomic __u64 written;	/* the last write that has completed */
	_Atomic __u64 harvests;
	_Atomic bool stop;
};

static volatile __u64 *word_at(char *mem)
{
	return (volatile __u64 *)mem;
}

static void write_next(struct fork_race *r, char *mem)
{
	__u64 n = r->written + 1;

	*word_at(mem) = n;
	atomic_store(&r->written, n);
}

static void await_harvests(struct fork_race *r, __u64 n)
{
	for (n += r->harvests; r->harvests < n && !r->stop; )
		usleep(100);
}

/*
 * An entry that is dirty and read-only becomes writable by mprotect(), is copied by
 * fork(), which makes the copy clean, and goes away.  The child writes through the
 * copy when all that has been collected.
 */
static int fork_race(struct fork_race *r, int slot)
{
	while (!r->stop) {
		char *mem = _test_map(slot, 0, 1);
		pid_t pid;

		if (mem == MAP_FAILED)
			return 1;
		write_next(r, mem);
		if (mprotect(mem, PAGE_SIZE, PROT_READ))
			return 2;
		usleep(200);
		if (mprotect(mem, PAGE_SIZE, PROT_READ | PROT_WRITE))
			return 3;
		pid = fork();
		if (pid < 0)
			return 4;
		if (!pid) {
			await_harvests(r, 3);
			write_next(r, mem);
			await_harvests(r, 2);
			_exit(0);
		}
		if (munmap(mem, PAGE_SIZE) || !child_ok(pid))
			return 5;
	}
	return 0;
}

TEST_F_TIMEOUT(window, copies_by_fork_are_protected, 3700)
{
	struct fork_race *r = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int slot = test_new_slot(1), log = test_log_create(slot, 0);
	char *view = test_map(slot, 0, 1);
	double end = now() + race_seconds(2);
	__u64 got, before, copy = 0;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, r);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(fork_race(r, slot));
	while (now() < end || r->written < 20) {
		before = r->written;
		got = 0;
		test_harvest_all(log, 0, 0, 1, &got, 0);
		if (got)
			copy = *word_at(view);
		EXPECT_LE(before, copy) {
			TH_LOG("write %llu had completed, the copy has %llu", before,
			       copy);
		}
		if (copy < before)
			break;
		r->harvests++;
	}
	self->rounds = r->written / 2;
	r->stop = true;
	EXPECT_TRUE(child_ok(pid));
	test_unmap(view, 1);
	close(log);
	close(slot);
	munmap(r, PAGE_SIZE);
}

/* ---- a write that lasts for several harvests, and ends during one ---- */

struct long_write {
	char *mem;
	char *from;		/* one page, which userfaultfd holds back */
	int uffd;
	_Atomic __u64 done, harvests;
	_Atomic bool stop;
};

static bool hold_back(int uffd, char *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)page, .len = PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return !ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &reg);
}

/* Lets go of the page, with a number in it, after two harvests have seen the write. */
static void *deliver(void *arg)
{
	static __u64 data[PAGE_SIZE / sizeof(__u64)] __attribute__((aligned(PAGE_SIZE)));
	struct long_write *w = arg;
	struct uffdio_copy copy = {
		.dst = (uintptr_t)w->from,
		.src = (uintptr_t)data,
		.len = PAGE_SIZE,
	};
	struct uffd_msg msg;

	while (read(w->uffd, &msg, sizeof(msg)) == sizeof(msg)) {
		__u64 n = w->harvests + 2;

		while (w->harvests < n && !w->stop)
			sched_yield();
		data[0] = w->done + 1;
		usleep(data[0] * 17 % 100);
		if (ioctl(w->uffd, UFFDIO_COPY, &copy))
			dt_broken("UFFDIO_COPY: %s", strerror(errno));
	}
	return NULL;
}

/* The kernel has taken a reference to the slot's page when it faults on the data. */
static void *write_long(void *arg)
{
	struct long_write *w = arg;
	struct iovec local = { .iov_base = w->from, .iov_len = PAGE_SIZE };
	struct iovec remote = { .iov_base = w->mem, .iov_len = PAGE_SIZE };
	bool last;

	do {
		last = w->stop;
		if (madvise(w->from, PAGE_SIZE, MADV_DONTNEED) ||
		    process_vm_writev(getpid(), &local, 1, &remote, 1, 0) !=
		    (ssize_t)PAGE_SIZE)
			dt_broken("process_vm_writev: %s", strerror(errno));
		atomic_store(&w->done, w->done + 1);
	} while (!last);
	return NULL;
}

/*
 * A harvest that finds nobody holding the page finds what he wrote: PG_dirty is set
 * before the reference is dropped, so it is looked at after.
 */
TEST_F_TIMEOUT(window, held_write_is_reported_at_its_end, 3700)
{
	int slot = test_new_slot(1), log = test_log_create(slot, 0);
	struct long_write w = {
		.mem = test_map(slot, 0, 1),
		.from = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		.uffd = syscall(SYS_userfaultfd, O_CLOEXEC),
	};
	double end = now() + race_seconds(2);
	char *view = test_map(slot, 0, 1);
	__u64 got, before, copy = 0;
	pthread_t threads[2];

	if (w.uffd < 0 && errno == ENOSYS)
		SKIP(return, "kernel without userfaultfd");
	ASSERT_LE(0, w.uffd);
	ASSERT_NE(MAP_FAILED, w.from);
	ASSERT_TRUE(hold_back(w.uffd, w.from));
	ASSERT_EQ(0, pthread_create(&threads[0], NULL, deliver, &w));
	ASSERT_EQ(0, pthread_create(&threads[1], NULL, write_long, &w));
	while (now() < end || w.done < 20) {
		before = w.done;
		got = 0;
		test_harvest_all(log, 0, 0, 1, &got, 0);
		if (got)
			copy = *word_at(view);
		EXPECT_LE(before, copy) {
			TH_LOG("write %llu had completed, the copy has %llu", before,
			       copy);
		}
		if (copy < before)
			break;
		w.harvests++;
	}
	self->rounds = w.done;
	w.stop = true;
	pthread_join(threads[1], NULL);
	pthread_cancel(threads[0]);
	pthread_join(threads[0], NULL);
	close(w.uffd);
	munmap(w.from, PAGE_SIZE);
	test_unmap(view, 1);
	test_unmap(w.mem, 1);
	close(log);
	close(slot);
}

/* ---- a page that is faulted in while it is released ---- */

struct fault_race {
	char *mem;
	_Atomic __u64 go, done;	/* rounds */
};

static void *fault_in(void *arg)
{
	struct fault_race *r = arg;

	for (__u64 round = 1; ; round++) {
		while (r->go < round)
			sched_yield();
		if (r->go == UINT64_MAX)
			return NULL;
		*word_at(r->mem) = round;
		r->done = round;
	}
}

/*
 * Whichever came first, afterwards the mapping has the page that the slot has; a
 * mapping of the page that was released would hide all writes from everybody else.
 */
TEST_F_TIMEOUT(window, mapping_has_the_page_of_the_slot, 3700)
{
	int slot = test_new_slot(1);
	struct fault_race r = { .mem = test_map(slot, 0, 1) };
	double end = now() + race_seconds(2);
	unsigned int seed = 1, differ = 0;
	pthread_t thread;
	__u64 value;

	ASSERT_EQ(0, pthread_create(&thread, NULL, fault_in, &r));
	while (!differ && (now() < end || self->rounds < 100)) {
		/* Not mapped, and with memory or without. */
		value = ~0ULL;
		if (rand_r(&seed) % 4)
			ASSERT_EQ(sizeof(value), pwrite(slot, &value, sizeof(value), 0));
		ASSERT_EQ(0, madvise(r.mem, PAGE_SIZE, MADV_DONTNEED));
		r.go = ++self->rounds;
		if (rand_r(&seed) % 2)
			usleep(rand_r(&seed) % 60);
		ASSERT_EQ(0, fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       0, PAGE_SIZE));
		while (r.done < self->rounds)
			sched_yield();
		ASSERT_EQ(sizeof(value), pread(slot, &value, sizeof(value), 0));
		differ += value != *word_at(r.mem);
	}
	r.go = UINT64_MAX;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, differ) {
		TH_LOG("round %llu: the slot has %llu, the mapping %llu", self->rounds,
		       value, *word_at(r.mem));
	}
	test_unmap(r.mem, 1);
	close(slot);
}

/* ---- a write that waits for its data ---- */

struct pwriter {
	int slot;
	const char *from;
	ssize_t ret;
};

static void *pwrite_page(void *arg)
{
	struct pwriter *w = arg;

	w->ret = pwrite(w->slot, w->from, PAGE_SIZE, PAGE_SIZE);
	return NULL;
}

/*
 * The second half of the data comes from a page that userfaultfd holds back.  While
 * pwrite() waits, harvests come and go; when it has returned, the next one has the
 * page, whatever those reported.
 */
TEST(pwrite_waits_for_its_data)
{
	struct uffdio_api api = { .api = UFFD_API };
	int slot = test_new_slot(3), uffd, log = test_log_create(slot, 0);
	char *from = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static char data[PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
	struct pwriter w = { .slot = slot, .from = from + PAGE_SIZE / 2 };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)from + PAGE_SIZE, .len = PAGE_SIZE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_copy copy = {
		.dst = (uintptr_t)from + PAGE_SIZE,
		.src = (uintptr_t)data,
		.len = PAGE_SIZE,
	};
	struct uffd_msg msg;
	pthread_t thread;
	__u64 got = 0;

	ASSERT_NE(MAP_FAILED, from);
	memset(from, 1, PAGE_SIZE);
	memset(data, 2, PAGE_SIZE);
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (uffd < 0 && errno == ENOSYS)
		SKIP(return, "kernel without userfaultfd");
	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_API, &api));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_REGISTER, &reg));
	ASSERT_EQ(0, pthread_create(&thread, NULL, pwrite_page, &w));
	ASSERT_EQ((ssize_t)sizeof(msg), read(uffd, &msg, sizeof(msg)));
	ASSERT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);

	for (int i = 0; i < 3; i++)
		test_harvest_all(log, 0, 0, 3, &got, 0);
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ((ssize_t)PAGE_SIZE, w.ret);
	got = 0;
	test_harvest_all(log, 0, 0, 3, &got, 0);
	EXPECT_EQ(1ULL << 1, got);
	got = 0;
	test_harvest_all(log, 0, 0, 3, &got, 0);
	EXPECT_EQ(0, got);
	close(uffd);
	munmap(from, 2 * PAGE_SIZE);
	close(log);
	close(slot);
}

/* ---- two harvests of one log ---- */

/* Two callers, each with pages of his own in the same word of the log's bitmap. */
#define SHARED_PAGES	256
#define SECOND_FIRST	224

struct harvester {
	int log;
	bool extents;
	__u64 first, npages;
	void *to;
	_Atomic pid_t tid;
	_Atomic bool done;
	int ret;
	__u64 nr;		/* extents */
	pthread_t thread;
};

static void *harvest_once(void *arg)
{
	struct harvester *h = arg;
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_harvest b;

	h->tid = gettid();
	if (h->extents) {
		h->ret = _test_extents(h->log, 0, h->first, h->npages, h->to,
				       SHARED_PAGES, &e);
		h->nr = e.out_nr;
	} else {
		h->ret = _test_harvest(h->log, 0, h->first, h->npages, h->to,
				       h->first, &b);
	}
	h->done = true;
	return NULL;
}

/* The pages that it got. */
static void harvested(const struct harvester *h, __u64 *got)
{
	const struct dirtytrack_extent *e = h->to;

	bitmap_zero(got, SHARED_PAGES);
	if (!h->extents)
		memcpy(got, h->to, SHARED_PAGES / 8);
	for (__u64 i = 0; i < h->nr; i++)
		for (__u64 n = 0; n < e[i].npages; n++)
			bit_set(got, e[i].first + n);
}

static char state_of(pid_t tid)
{
	char path[64], line[256] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "r");
	if (f) {
		if (!fgets(line, sizeof(line), f))
			line[0] = 0;
		fclose(f);
	}
	end = strrchr(line, ')');
	return end ? end[2] : '?';
}

/* Until it is done, or has been waiting for a while. */
static void run_into(const struct harvester *h)
{
	for (int asleep = 0; !h->done && asleep < 50; usleep(1000))
		asleep = h->tid && strchr("SD", state_of(h->tid)) ? asleep + 1 : 0;
}

FIXTURE(sharers) {
	int slot, log, uffd;
	char *mem, *late;
};

FIXTURE_VARIANT(sharers) {
	bool extents[2];
};

FIXTURE_VARIANT_ADD(sharers, bitmaps) { .extents = { false, false } };
FIXTURE_VARIANT_ADD(sharers, bitmap_extents) { .extents = { false, true } };
FIXTURE_VARIANT_ADD(sharers, extents_bitmap) { .extents = { true, false } };
FIXTURE_VARIANT_ADD(sharers, extents) { .extents = { true, true } };

FIXTURE_SETUP(sharers)
{
	self->slot = test_new_slot(SHARED_PAGES);
	self->log = test_log_create(self->slot, 0);
	self->mem = test_map(self->slot, 0, SHARED_PAGES);
	/* For up to 256 extents: one page. */
	self->late = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->late);
	self->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	ASSERT_LE(0, self->uffd);
	ASSERT_TRUE(hold_back(self->uffd, self->late));
}

FIXTURE_TEARDOWN(sharers)
{
	close(self->uffd);
	munmap(self->late, PAGE_SIZE);
	test_unmap(self->mem, SHARED_PAGES);
	close(self->log);
	close(self->slot);
}

/*
 * The first has taken its pages and is delivering them, to memory that userfaultfd
 * holds back, when the second comes.  What a harvest has taken is kept in the log
 * until it is delivered.  More pages than are copied out at once as extents, so that
 * the first has some of the shared word's still to deliver in either form.
 */
TEST_F(sharers, each_gets_its_own)
{
	static __u64 buf[PAGE_SIZE / sizeof(__u64)];
	struct harvester first = {
		.log = self->log,
		.extents = variant->extents[0],
		.npages = SECOND_FIRST,
		.to = self->late,
	};
	struct harvester second = {
		.log = self->log,
		.extents = variant->extents[1],
		.first = SECOND_FIRST,
		.npages = SHARED_PAGES - SECOND_FIRST,
		.to = buf,
	};
	struct uffdio_zeropage zero = {
		.range = { .start = (uintptr_t)self->late, .len = PAGE_SIZE },
	};
	__u64 got[2][SHARED_PAGES / 64], left[SHARED_PAGES / 64] = { 0 };
	struct uffd_msg msg;

	for (__u64 n = 0; n < SHARED_PAGES; n += 2)
		page_write(self->mem, n, n + 1);
	ASSERT_EQ(0, pthread_create(&first.thread, NULL, harvest_once, &first));
	ASSERT_EQ((ssize_t)sizeof(msg), read(self->uffd, &msg, sizeof(msg)));
	ASSERT_EQ(0, pthread_create(&second.thread, NULL, harvest_once, &second));
	run_into(&second);
	EXPECT_FALSE(first.done);
	ASSERT_EQ(0, ioctl(self->uffd, UFFDIO_ZEROPAGE, &zero));
	pthread_join(first.thread, NULL);
	pthread_join(second.thread, NULL);

	EXPECT_EQ(0, first.ret);
	EXPECT_EQ(0, second.ret);
	harvested(&first, got[0]);
	harvested(&second, got[1]);
	test_harvest_all(self->log, 0, 0, SHARED_PAGES, left, 0);
	for (__u64 n = 0; n < SHARED_PAGES; n++) {
		bool low = n < SECOND_FIRST;

		EXPECT_EQ(low && n % 2 == 0, bit_test(got[0], n)) {
			TH_LOG("page %llu, first harvest", n);
		}
		EXPECT_EQ(!low && n % 2 == 0, bit_test(got[1], n)) {
			TH_LOG("page %llu, second harvest", n);
		}
		EXPECT_FALSE(bit_test(left, n)) {
			TH_LOG("page %llu is still in the log", n);
		}
	}
}

/* ---- a full log that starts while pages come to be ---- */

#define COMING	1500U

struct comer {
	char *mem;
	int log;
	_Atomic __u64 written;
};

static void *write_each(void *arg)
{
	struct comer *c = arg;

	for (__u64 n = 0; n < COMING; n++) {
		page_write(c->mem, n, 1);
		atomic_store(&c->written, n + 1);
	}
	return NULL;
}

/* Collects all the time, for its own log and whatever others there are. */
static void *harvest_other(void *arg)
{
	struct comer *c = arg;
	__u64 *got = bitmap_alloc(COMING);

	while (c->written < COMING)
		if (_test_harvest_all(c->log, 0, 0, COMING, got, 0, NULL))
			dt_broken("HARVEST: %s", strerror(errno));
	free(got);
	return NULL;
}

/*
 * Each page had memory when the log started, or was written later: either way it is
 * in the log.
 */
TEST_F_TIMEOUT(window, full_log_starts_meanwhile, 3700)
{
	double end = now() + race_seconds(2);
	unsigned int seed = 1;

	for (; self->rounds < 5 || now() < end; self->rounds++) {
		int slot = test_new_slot(COMING), log;
		struct comer c = {
			.mem = test_map(slot, 0, COMING),
			.log = test_log_create(slot, 0),
		};
		__u64 *got = bitmap_alloc(COMING), at = rand_r(&seed) % COMING, n;
		pthread_t threads[2];

		ASSERT_EQ(0, pthread_create(&threads[0], NULL, harvest_other, &c));
		ASSERT_EQ(0, pthread_create(&threads[1], NULL, write_each, &c));
		while (c.written < at)
			sched_yield();
		log = test_log_create(slot, DIRTYTRACK_LOG_ALL_SET);
		pthread_join(threads[0], NULL);
		pthread_join(threads[1], NULL);
		n = test_harvest_all(log, 0, 0, COMING, got, 0);
		EXPECT_EQ(COMING, n) {
			TH_LOG("round %llu: the log started when %llu pages were written",
			       self->rounds, at);
		}
		free(got);
		close(log);
		close(c.log);
		test_unmap(c.mem, COMING);
		close(slot);
		if (n != COMING)
			break;
	}
}

TEST_HARNESS_MAIN
