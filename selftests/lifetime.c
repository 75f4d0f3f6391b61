// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long things live: as long as something holds them, and not longer, however
 * that goes away.
 *
 * Tests that load the module again need its file: DIRTYTRACK_KO=/path/dirtytrack.ko.
 * They are skipped, with that reason, if it is not set.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <linux/userfaultfd.h>

#include "module.h"
#include "processes.h"

#define NPAGES 200
#define SIZE (NPAGES * PAGE_SIZE)
#define PEEK DIRTYTRACK_HARVEST_PEEK

/* ---- what a child says to its parent ---- */

static void say(int fd, char c)
{
	if (write(fd, &c, 1) != 1)
		_exit(99);
}

/* The next byte, or 0 at the end. */
static char hear(int fd)
{
	char c = 0;

	return read(fd, &c, 1) == 1 ? c : 0;
}

/* ---- each thing that holds a slot, alone ---- */

enum holder {
	SLOT_FD,
	SLOT_FD_READ_ONLY,
	SLOT_FD_PATH,
	SLOT_FD_IN_FLIGHT,
	SLOT_FD_OF_CHILD,
	SLOT_MAPPING,
	SLOT_MAPPING_OF_CHILD,
	LOG_FD,
	LOG_FD_IN_FLIGHT,
	LOG_MAPPING,
};

FIXTURE(holder)
{
	__u32 id;
	int slot, log;
	char *map;
	int fd;			/* that holds the slot, or a child's end */
	void *log_map;
	pid_t child;
};

FIXTURE_VARIANT(holder)
{
	enum holder holder;
	bool log;		/* a log is held too */
};

FIXTURE_VARIANT_ADD(holder, slot_fd) { .holder = SLOT_FD };
FIXTURE_VARIANT_ADD(holder, slot_fd_read_only) { .holder = SLOT_FD_READ_ONLY };
FIXTURE_VARIANT_ADD(holder, slot_fd_path) { .holder = SLOT_FD_PATH };
FIXTURE_VARIANT_ADD(holder, slot_fd_in_flight) { .holder = SLOT_FD_IN_FLIGHT };
FIXTURE_VARIANT_ADD(holder, slot_fd_of_child) { .holder = SLOT_FD_OF_CHILD };
FIXTURE_VARIANT_ADD(holder, slot_mapping) { .holder = SLOT_MAPPING };
FIXTURE_VARIANT_ADD(holder, slot_mapping_of_child) { .holder = SLOT_MAPPING_OF_CHILD };
FIXTURE_VARIANT_ADD(holder, log_fd) { .holder = LOG_FD, .log = true };
FIXTURE_VARIANT_ADD(holder, log_flying) { .holder = LOG_FD_IN_FLIGHT, .log = true };
FIXTURE_VARIANT_ADD(holder, log_mapping) { .holder = LOG_MAPPING, .log = true };

#define NAME "lifetime"
#define SEED 77

/* A child that has a copy of everything but drops what @keep_map says not. */
static pid_t keeper(int *end, int slot, int log, char *map, bool keep_map)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		dt_broken("socketpair: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		dt_broken("fork: %s", strerror(errno));
	if (!pid) {
		close(pair[0]);
		close(log);
		if (keep_map)
			close(slot);
		else
			test_unmap(map, NPAGES);
		say(pair[1], 'r');
		hear(pair[1]);
		_exit(0);
	}
	close(pair[1]);
	hear(pair[0]);
	*end = pair[0];
	return pid;
}

FIXTURE_SETUP(holder)
{
	int dev = test_device(), pair[2];

	self->slot = test_slot_create(dev, NAME, SIZE, &self->id);
	/* From here on only the slot can keep the module. */
	close(dev);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
	page_fill(page_at(self->map, 7), SEED);
	self->fd = -1;

	switch (variant->holder) {
	case SLOT_FD:
		self->fd = self->slot;
		self->slot = -1;
		break;
	case SLOT_FD_READ_ONLY:
		self->fd = test_reopen(self->slot, O_RDONLY);
		ASSERT_LE(0, self->fd);
		break;
	case SLOT_FD_PATH:
		self->fd = test_reopen(self->slot, O_PATH);
		ASSERT_LE(0, self->fd);
		break;
	case SLOT_FD_IN_FLIGHT:
	case LOG_FD_IN_FLIGHT:
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
		send_fd(pair[0], variant->log ? self->log : self->slot);
		close(pair[0]);
		self->fd = pair[1];
		break;
	case SLOT_FD_OF_CHILD:
		self->child = keeper(&self->fd, self->slot, self->log, self->map,
				     false);
		break;
	case SLOT_MAPPING_OF_CHILD:
		self->child = keeper(&self->fd, self->slot, self->log, self->map,
				     true);
		break;
	case LOG_FD:
		self->fd = self->log;
		self->log = -1;
		break;
	case LOG_MAPPING: {
		struct dirtytrack_log_info info;

		test_log_info(self->log, &info);
		self->log_map = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED,
				     self->log, info.out_bitmap_offset);
		ASSERT_NE(MAP_FAILED, self->log_map);
		break;
	}
	case SLOT_MAPPING:
		break;
	}
	if (variant->holder != SLOT_MAPPING) {
		test_unmap(self->map, NPAGES);
		self->map = NULL;
	}
	if (self->slot >= 0)
		close(self->slot);
	if (self->log >= 0)
		close(self->log);
}

FIXTURE_TEARDOWN(holder)
{
}

static void drop(FIXTURE_DATA(holder) *self)
{
	if (self->map)
		test_unmap(self->map, NPAGES);
	if (self->log_map)
		munmap(self->log_map, PAGE_SIZE);
	close(self->fd);
	if (self->child)
		test_wait(self->child);
}

TEST_F(holder, keeps_slot)
{
	struct dirtytrack_slot_info info;
	int dev = test_device(), slot;
	char page[PAGE_SIZE];

	EXPECT_TRUE(test_slot_listed(dev, self->id));
	slot = test_slot_open(dev, self->id);
	test_slot_info(slot, &info);
	EXPECT_EQ(self->id, info.out_id);
	EXPECT_EQ(variant->log, info.out_logs);
	EXPECT_EQ(1, info.out_resident);
	EXPECT_EQ(PAGE_SIZE, (size_t)pread(slot, page, PAGE_SIZE, 7 * PAGE_SIZE));
	EXPECT_TRUE(page_is(page, SEED));
	close(slot);
	test_err_slot_create(EEXIST, dev, NAME, PAGE_SIZE);

	drop(self);
	EXPECT_TRUE(eventually(!test_slot_listed(dev, self->id)));
	test_err_slot_open(ENOENT, dev, self->id);
	slot = test_slot_create(dev, NAME, PAGE_SIZE, NULL);
	close(slot);
	close(dev);
}

/* Code that something alive may call must not go away. */
TEST_F(holder, keeps_module)
{
	EXPECT_ERRNO(EWOULDBLOCK, delete_module());
	drop(self);
}

/* What is left of a slot is a slot: what was held before can be had again. */
TEST_F(holder, works_on)
{
	int dev = test_device(), slot, log;
	__u64 seen[bitmap_words(NPAGES)];
	char *map;

	slot = test_slot_open_name(dev, NAME);
	log = test_log_create(slot, 0);
	map = test_map(slot, 0, NPAGES);
	memset(seen, 0, sizeof(seen));
	page_write(map, 3, 1);
	EXPECT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
	if (variant->holder == LOG_FD) {
		memset(seen, 0, sizeof(seen));
		EXPECT_EQ(2, test_harvest_all(self->fd, 0, 0, NPAGES, seen, 0));
		EXPECT_TRUE(bit_test(seen, 3) && bit_test(seen, 7));
	}
	if (variant->holder == LOG_MAPPING) {
		EXPECT_TRUE(bit_test(self->log_map, 3));
		EXPECT_TRUE(bit_test(self->log_map, 7));
	}
	test_unmap(map, NPAGES);
	close(log);
	close(slot);
	drop(self);
	close(dev);
}

/* ---- death in every state ---- */

FIXTURE(death)
{
	int dev;
	unsigned int slots;
};

FIXTURE_VARIANT(death)
{
	void (*live)(int dev, int ready);
};

static int child_slot(int dev)
{
	int slot;

	if (_test_slot_create(dev, NULL, SIZE, NULL, &slot))
		_exit(98);
	return slot;
}

static int child_log(int slot)
{
	int log;

	if (_test_log_create(slot, 0, &log))
		_exit(97);
	return log;
}

static void live_created(int dev, int ready)
{
	child_slot(dev);
	say(ready, 'r');
	pause();
}

static void live_mapped(int dev, int ready)
{
	char *map = _test_map(child_slot(dev), 0, NPAGES);

	for (int i = 0; i < NPAGES; i++)
		page_write(map, i, 1);
	say(ready, 'r');
	pause();
}

static void live_logged(int dev, int ready)
{
	int slot = child_slot(dev);
	char *map = _test_map(slot, 0, NPAGES);

	for (int i = 0; i < 10; i++)
		child_log(slot);
	for (int i = 0; i < NPAGES; i++)
		page_write(map, i, 1);
	say(ready, 'r');
	pause();
}

static void *write_for_ever(void *map)
{
	for (unsigned int i = 0;; i = i * 1103515245 + 12345)
		page_write(map, (i >> 8) % NPAGES, i);
	return NULL;
}

/* Faults: the pages are taken away as fast as they are written. */
static void live_faulting(int dev, int ready)
{
	int slot = child_slot(dev);
	pthread_t thread;

	pthread_create(&thread, NULL, write_for_ever, _test_map(slot, 0, NPAGES));
	say(ready, 'r');
	for (unsigned int i = 0;; i = i * 1103515245 + 12345)
		fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (i >> 8) % NPAGES * PAGE_SIZE, 10 * PAGE_SIZE);
}

static void live_harvesting(int dev, int ready)
{
	int slot = child_slot(dev), log = child_log(slot);
	__u64 seen[bitmap_words(NPAGES)];
	pthread_t thread;

	pthread_create(&thread, NULL, write_for_ever, _test_map(slot, 0, NPAGES));
	say(ready, 'r');
	for (;;)
		if (_test_harvest_all(log, 0, 0, NPAGES, seen, 0, NULL))
			_exit(96);
}

static void live_logging(int dev, int ready)
{
	int slot = child_slot(dev);
	pthread_t thread;

	pthread_create(&thread, NULL, write_for_ever, _test_map(slot, 0, NPAGES));
	say(ready, 'r');
	for (;;)
		close(child_log(slot));
}

static void live_creating(int dev, int ready)
{
	say(ready, 'r');
	for (;;) {
		int slot = child_slot(dev);
		char *map = _test_map(slot, 0, NPAGES);

		page_write(map, 1, 1);
		child_log(slot);
		close(slot);
		/* Half of what it makes it leaves to its end, up to its fds. */
		test_unmap(map, NPAGES);
		closefrom(100);
	}
}

FIXTURE_VARIANT_ADD(death, created) { .live = live_created };
FIXTURE_VARIANT_ADD(death, mapped) { .live = live_mapped };
FIXTURE_VARIANT_ADD(death, logged) { .live = live_logged };
FIXTURE_VARIANT_ADD(death, faulting) { .live = live_faulting };
FIXTURE_VARIANT_ADD(death, harvesting) { .live = live_harvesting };
FIXTURE_VARIANT_ADD(death, logging) { .live = live_logging };
FIXTURE_VARIANT_ADD(death, creating) { .live = live_creating };

FIXTURE_SETUP(death)
{
	self->dev = test_device();
	self->slots = test_slot_count(self->dev);
}

FIXTURE_TEARDOWN(death)
{
	close(self->dev);
}

TEST_F(death, leaves_nothing)
{
	for (int round = 0; round < 5; round++) {
		int ready[2], status;
		pid_t pid;

		ASSERT_EQ(0, pipe(ready));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			close(ready[0]);
			variant->live(self->dev, ready[1]);
			_exit(95);
		}
		close(ready[1]);
		ASSERT_EQ('r', hear(ready[0]));
		pause_ms(7 * round);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		status = test_wait(pid);
		EXPECT_EQ(128 + SIGKILL, status);
		EXPECT_TRUE(eventually(test_slot_count(self->dev) == self->slots));
		close(ready[0]);
	}
}

/* ---- a consumer that is stuck ---- */

FIXTURE(stuck)
{
	int slot, log, ready[2];
	char *map;
	pid_t pid;
};

FIXTURE_VARIANT(stuck)
{
	bool extents;
};

FIXTURE_VARIANT_ADD(stuck, bitmap) { };
FIXTURE_VARIANT_ADD(stuck, extents) { .extents = true };

/* Says when a page of the region is wanted, and never gives it. */
static void *tell_of_fault(void *arg)
{
	int *fds = arg;
	struct uffd_msg msg;

	if (read(fds[0], &msg, sizeof(msg)) == sizeof(msg))
		say(fds[1], 'f');
	pause();
	return NULL;
}

/* A harvest into memory that never comes. */
static void harvest_and_hang(int log, bool extents, int ready)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_harvest h;
	static int fds[2];
	pthread_t thread;
	void *buf;

	buf = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)buf;
	reg.range.len = PAGE_SIZE;
	fds[0] = syscall(SYS_userfaultfd, O_CLOEXEC);
	fds[1] = ready;
	if (fds[0] < 0)
		say(ready, 's');
	if (ioctl(fds[0], UFFDIO_API, &api) ||
	    ioctl(fds[0], UFFDIO_REGISTER, &reg) ||
	    pthread_create(&thread, NULL, tell_of_fault, fds))
		_exit(94);
	if (extents)
		_test_extents(log, 0, 0, NPAGES, buf, 100, &e);
	else
		_test_harvest(log, 0, 0, NPAGES, buf, 0, &h);
	_exit(93);
}

FIXTURE_SETUP(stuck)
{
	char c;

	self->slot = test_new_slot(NPAGES);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
	for (int i = 0; i < NPAGES; i += 3)
		page_write(self->map, i, 1);
	ASSERT_EQ(0, pipe(self->ready));
	self->pid = fork();
	ASSERT_LE(0, self->pid);
	if (!self->pid)
		harvest_and_hang(self->log, variant->extents, self->ready[1]);
	close(self->ready[1]);
	c = hear(self->ready[0]);
	if (c == 's') {
		kill(self->pid, SIGKILL);
		SKIP(return, "no userfaultfd in this kernel");
	}
	ASSERT_EQ('f', c);
}

FIXTURE_TEARDOWN(stuck)
{
	test_unmap(self->map, NPAGES);
	close(self->log);
	close(self->slot);
	close(self->ready[0]);
}

/* It can be killed, and what it took and could not deliver is there again. */
TEST_F(stuck, killed)
{
	__u64 seen[bitmap_words(NPAGES)];
	int status;

	if (_metadata->skip)
		return;
	memset(seen, 0, sizeof(seen));
	ASSERT_EQ(0, kill(self->pid, SIGKILL));
	status = test_wait(self->pid);
	EXPECT_EQ(128 + SIGKILL, status);
	EXPECT_LE((NPAGES + 2) / 3, test_harvest_all(self->log, 0, 0, NPAGES, seen, 0));
	for (int i = 0; i < NPAGES; i += 3) {
		EXPECT_TRUE(bit_test(seen, i)) {
			TH_LOG("page %d is lost", i);
		}
	}
}

/* Writers and other consumers do not wait for it. */
TEST_F(stuck, blocks_nobody_else)
{
	__u64 seen[bitmap_words(NPAGES)];
	struct dirtytrack_slot_info info;
	int log;

	if (_metadata->skip)
		return;
	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < NPAGES; i++)
		page_write(self->map, i, 2);
	ASSERT_EQ(1, pwrite(self->slot, "x", 1, 5 * PAGE_SIZE));
	ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       0, PAGE_SIZE));
	test_slot_info(self->slot, &info);
	log = test_log_create(self->slot, 0);
	page_write(self->map, 9, 3);
	EXPECT_LE(1, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
	EXPECT_TRUE(bit_test(seen, 9));
	close(log);

	kill(self->pid, SIGKILL);
	test_wait(self->pid);
	memset(seen, 0, sizeof(seen));
	EXPECT_EQ(NPAGES, test_harvest_all(self->log, 0, 0, NPAGES, seen, 0));
}

/* ---- fds in other hands ---- */

TEST(fds_travel)
{
	__u64 seen[bitmap_words(NPAGES)];
	int dev = test_device(), pair[2], status, slot, log;
	__u32 id;
	pid_t pid;

	memset(seen, 0, sizeof(seen));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* It never opened the device. */
		close(dev);
		slot = receive_fd(pair[1]);
		log = receive_fd(pair[1]);
		say(pair[1], 'g');
		ASSERT_EQ('c', hear(pair[1]));
		page_write(test_map(slot, 0, NPAGES), 5, 1);
		EXPECT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
		EXPECT_TRUE(bit_test(seen, 5));
		_exit(!_metadata->passed);
	}
	slot = test_slot_create(dev, NULL, SIZE, &id);
	log = test_log_create(slot, 0);
	send_fd(pair[0], slot);
	send_fd(pair[0], log);
	close(slot);
	close(log);
	ASSERT_EQ('g', hear(pair[0]));
	EXPECT_TRUE(test_slot_listed(dev, id));
	say(pair[0], 'c');
	status = test_wait(pid);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(eventually(!test_slot_listed(dev, id)));
	close(pair[0]);
	close(pair[1]);
	close(dev);
}

/* A mapping is inherited, and a write through it is a write. */
TEST(fork_inherits)
{
	__u64 seen[bitmap_words(NPAGES)];
	int slot = test_new_slot(NPAGES), log = test_log_create(slot, 0), status;
	char *map = test_map(slot, 0, NPAGES);
	pid_t pid;

	memset(seen, 0, sizeof(seen));
	page_write(map, 1, 1);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		EXPECT_EQ(1, page_read(map, 1));
		page_write(map, 2, 2);
		_exit(!_metadata->passed);
	}
	status = test_wait(pid);
	EXPECT_EQ(0, status);
	EXPECT_EQ(2, page_read(map, 2));
	EXPECT_EQ(2, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
	EXPECT_EQ(6, seen[0]);

	/* A log is one log, in whichever process. */
	page_write(map, 3, 3);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		EXPECT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
		_exit(!_metadata->passed);
	}
	status = test_wait(pid);
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
	test_unmap(map, NPAGES);
	close(log);
	close(slot);
}

/* Programs that are started do not get slots that they were not given. */
TEST(exec_closes)
{
	int dev = test_device(), ids[2];
	__u32 id = 0;
	pid_t pid;

	ASSERT_EQ(0, pipe2(ids, O_CLOEXEC));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int slot = test_slot_create(dev, NULL, SIZE, &id);

		test_log_create(slot, 0);
		page_write(test_map(slot, 0, NPAGES), 1, 1);
		if (write(ids[1], &id, sizeof(id)) != sizeof(id))
			_exit(1);
		execl("/bin/sleep", "sleep", "100", NULL);
		_exit(1);
	}
	close(ids[1]);
	ASSERT_EQ(sizeof(id), (size_t)read(ids[0], &id, sizeof(id)));
	/* The pipe ends with exec. */
	EXPECT_EQ(0, hear(ids[0]));
	EXPECT_TRUE(eventually(!test_slot_listed(dev, id)));
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	kill(pid, SIGKILL);
	test_wait(pid);
	close(ids[0]);
	close(dev);
}

/* A page that was given to a pipe is the pipe's, whatever becomes of the slot. */
TEST(page_outlives_slot)
{
	int dev = test_device(), pipefd[2], slot;
	static char page[PAGE_SIZE];
	struct iovec iov;
	char *map;
	__u32 id;

	ASSERT_EQ(0, pipe(pipefd));
	slot = test_slot_create(dev, NULL, SIZE, &id);
	map = test_map(slot, 0, NPAGES);
	page_fill(page_at(map, 4), SEED);
	iov.iov_base = page_at(map, 4);
	iov.iov_len = PAGE_SIZE;
	ASSERT_EQ(PAGE_SIZE, (size_t)vmsplice(pipefd[1], &iov, 1, 0));
	test_unmap(map, NPAGES);
	close(slot);
	EXPECT_TRUE(eventually(!test_slot_listed(dev, id)));
	ASSERT_EQ(PAGE_SIZE, (size_t)read(pipefd[0], page, PAGE_SIZE));
	EXPECT_TRUE(page_is(page, SEED));
	close(pipefd[0]);
	close(pipefd[1]);
	close(dev);
}

/* ---- many times ---- */

TEST(cycles)
{
	int dev = test_device();
	unsigned int slots = test_slot_count(dev), fds = test_count_fds();
	__u32 id, last = 0;

	for (int i = 0; i < 1000; i++) {
		int slot = test_slot_create(dev, "cycle", SIZE, &id);
		int log = test_log_create(slot, i & 1 ? DIRTYTRACK_LOG_ALL_SET : 0);
		char *map = test_map(slot, 0, NPAGES);
		__u64 seen[bitmap_words(NPAGES)];

		ASSERT_LT(last, id);
		last = id;
		memset(seen, 0, sizeof(seen));
		page_write(map, i % NPAGES, 1);
		ASSERT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
		ASSERT_TRUE(bit_test(seen, i % NPAGES));
		/* In every order. */
		if (i & 2)
			close(log);
		if (i & 4)
			test_unmap(map, NPAGES);
		close(slot);
		if (!(i & 4))
			test_unmap(map, NPAGES);
		if (!(i & 2))
			close(log);
	}
	EXPECT_EQ(slots, test_slot_count(dev));
	EXPECT_EQ(fds, test_count_fds());
	close(dev);
}

static long long meminfo(const char *key)
{
	FILE *f = fopen("/proc/meminfo", "r");
	long long kib = -1;
	char line[128];

	if (!f)
		dt_broken("/proc/meminfo: %s", strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			kib = atoll(line + strlen(key) + 1);
	fclose(f);
	return kib;
}

/* Pages come back: those of a slot, and those that were punched out of it. */
TEST(memory_comes_back)
{
	const long long mib = 16, rounds = 8;
	const off_t size = mib << 20;
	long long before = meminfo("MemFree"), after;

	for (int i = 0; i < rounds; i++) {
		int slot = test_new_slot(size / PAGE_SIZE);

		ASSERT_EQ(0, fallocate(slot, 0, 0, size));
		EXPECT_EQ(size / PAGE_SIZE, test_resident(slot));
		if (i & 1) {
			ASSERT_EQ(0, fallocate(slot, FALLOC_FL_PUNCH_HOLE |
					       FALLOC_FL_KEEP_SIZE, 0, size));
			EXPECT_EQ(0, test_resident(slot));
			ASSERT_EQ(0, fallocate(slot, 0, 0, size));
		}
		close(slot);
	}
	/* Either leak alone, of half of the rounds, would be twice the margin. */
	EXPECT_TRUE(eventually((after = meminfo("MemFree"),
				before - after < mib * rounds / 4 * 1024))) {
		TH_LOG("%lld MiB of %lld did not come back",
		       (before - after) / 1024, mib * rounds);
	}
}

#define LOGGERS 3

struct load {
	int slot;
	char *map;
	bool stop;
	int index;
	unsigned int logs, lost;
	int err;
};

static void *write_until(void *arg)
{
	struct load *l = arg;

	for (unsigned int i = 1; !__atomic_load_n(&l->stop, __ATOMIC_RELAXED);
	     i = i * 1103515245 + 12345)
		page_write(l->map, LOGGERS + (i >> 8) % (NPAGES - LOGGERS), i);
	return NULL;
}

/*
 * Each log made here must have the write that its thread made after it, to a
 * page that no other thread writes.
 */
static void *log_until(void *arg)
{
	struct load *l = arg;

	while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
		__u64 seen[bitmap_words(NPAGES)];
		int log;

		memset(seen, 0, sizeof(seen));
		if (_test_log_create(l->slot, l->logs & 1 ? DIRTYTRACK_LOG_ALL_SET : 0,
				     &log)) {
			l->err = errno;
			break;
		}
		page_write(l->map, l->index, l->logs);
		if (_test_harvest_all(log, 0, 0, NPAGES, seen, 0, NULL)) {
			l->err = errno;
			break;
		}
		l->lost += !bit_test(seen, l->index);
		l->logs++;
		close(log);
	}
	return NULL;
}

TEST(logs_come_and_go_under_load)
{
	int slot = test_new_slot(NPAGES), log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, NPAGES);
	struct load writer = { .slot = slot, .map = map }, loggers[LOGGERS];
	pthread_t writer_thread, threads[LOGGERS];
	struct dirtytrack_slot_info info;
	__u64 seen[bitmap_words(NPAGES)];

	memset(seen, 0, sizeof(seen));
	ASSERT_EQ(0, pthread_create(&writer_thread, NULL, write_until, &writer));
	for (int i = 0; i < LOGGERS; i++) {
		loggers[i] = writer;
		loggers[i].index = i;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, log_until, &loggers[i]));
	}
	for (int i = 0; i < 30; i++) {
		pause_ms(50);
		test_harvest_all(log, 0, 0, NPAGES, seen, 0);
	}
	for (int i = 0; i < LOGGERS; i++) {
		__atomic_store_n(&loggers[i].stop, true, __ATOMIC_RELAXED);
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, loggers[i].err);
		EXPECT_EQ(0, loggers[i].lost);
		EXPECT_LT(0, loggers[i].logs);
		EXPECT_TRUE(bit_test(seen, i));
	}
	__atomic_store_n(&writer.stop, true, __ATOMIC_RELAXED);
	pthread_join(writer_thread, NULL);

	/* The log that was there all the time is none the worse for it. */
	test_slot_info(slot, &info);
	EXPECT_EQ(1, info.out_logs);
	test_harvest_all(log, 0, 0, NPAGES, seen, 0);
	memset(seen, 0, sizeof(seen));
	page_write(map, 50, 1);
	EXPECT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, seen, 0));
	EXPECT_TRUE(bit_test(seen, 50));
	test_unmap(map, NPAGES);
	close(log);
	close(slot);
}

/* ---- limits ---- */

/* As many as the module says, and one more is refused until one goes. */
TEST(max_logs)
{
	int dev = test_device(), slot = test_new_slot(NPAGES);
	struct dirtytrack_slot_info slot_info;
	struct dirtytrack_info info;
	struct rlimit limit;
	int *logs;

	test_info(dev, &info);
	ASSERT_GE(100000, info.out_max_logs);
	limit.rlim_max = info.out_max_logs + 100;
	limit.rlim_cur = limit.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	logs = calloc(info.out_max_logs, sizeof(*logs));
	ASSERT_NE(NULL, logs);
	for (__u32 i = 0; i < info.out_max_logs; i++)
		logs[i] = test_log_create(slot, 0);
	test_slot_info(slot, &slot_info);
	EXPECT_EQ(info.out_max_logs, slot_info.out_logs);
	test_err_log_create(ENOSPC, slot, 0);
	test_err_log_create(ENOSPC, slot, DIRTYTRACK_LOG_ALL_SET);
	/* It is a limit of one slot. */
	{
		int other = test_new_slot(NPAGES), log = test_log_create(other, 0);

		close(log);
		close(other);
	}
	close(logs[0]);
	logs[0] = test_log_create(slot, 0);
	test_err_log_create(ENOSPC, slot, 0);
	for (__u32 i = 0; i < info.out_max_logs; i++)
		close(logs[i]);
	free(logs);
	close(slot);
	close(dev);
}

TEST(max_slots)
{
	int dev = test_device();
	struct dirtytrack_info info;
	unsigned int before = test_slot_count(dev), n;
	struct rlimit limit;
	int *slots;

	test_info(dev, &info);
	ASSERT_GE(100000, info.out_max_slots);
	ASSERT_LT(before, info.out_max_slots);
	limit.rlim_max = info.out_max_slots + 100;
	limit.rlim_cur = limit.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	n = info.out_max_slots - before;
	slots = calloc(n, sizeof(*slots));
	ASSERT_NE(NULL, slots);
	for (unsigned int i = 0; i < n; i++)
		slots[i] = test_slot_create(dev, NULL, PAGE_SIZE, NULL);
	EXPECT_EQ(info.out_max_slots, test_slot_count(dev));
	test_err_slot_create(ENOSPC, dev, NULL, PAGE_SIZE);
	test_err_slot_create(ENOSPC, dev, "named", PAGE_SIZE);
	close(slots[0]);
	slots[0] = test_slot_create(dev, "named", PAGE_SIZE, NULL);
	test_err_slot_create(ENOSPC, dev, NULL, PAGE_SIZE);
	for (unsigned int i = 0; i < n; i++)
		close(slots[i]);
	EXPECT_EQ(before, test_slot_count(dev));
	free(slots);
	close(dev);
}

/* ---- the module ---- */

FIXTURE(module)
{
};

FIXTURE_SETUP(module)
{
}

FIXTURE_TEARDOWN(module)
{
}

/* In use it stays, unused it goes, and comes back. */
TEST_F(module, unload_and_load)
{
	const char *ko = getenv("DIRTYTRACK_KO");
	char params[1024], *map;
	int dev, slot, log;

	if (!ko)
		SKIP(return, "DIRTYTRACK_KO is not set to the module's file");
	for (int i = 0; i < 3; i++) {
		dev = test_device();
		ASSERT_EQ(0, test_slot_count(dev));
		slot = test_slot_create(dev, NAME, SIZE, NULL);
		log = test_log_create(slot, 0);
		map = test_map(slot, 0, NPAGES);
		page_write(map, 1, 1);
		EXPECT_ERRNO(EWOULDBLOCK, delete_module());
		close(log);
		test_unmap(map, NPAGES);
		close(slot);
		EXPECT_ERRNO(EWOULDBLOCK, delete_module());
		close(dev);

		parameters(params, sizeof(params));
		ASSERT_TRUE(eventually(delete_module() == 0)) {
			TH_LOG("delete_module: %s", strerror(errno));
		}
		EXPECT_ERRNO(ENOENT, _test_device());
		ASSERT_EQ(0, load_module(ko, params)) {
			TH_LOG("loading with '%s': %s", params, strerror(errno));
		}
	}
	dev = test_device();
	EXPECT_EQ(0, test_slot_count(dev));
	close(dev);
}

/* The limits are those of the parameters; what is no strategy or grant is refused. */
TEST_F(module, parameters)
{
	const char *ko = getenv("DIRTYTRACK_KO");
	struct dirtytrack_info info;
	int dev, slots[3], logs[2];
	char saved[1024];

	if (!ko)
		SKIP(return, "DIRTYTRACK_KO is not set to the module's file");
	parameters(saved, sizeof(saved));
	ASSERT_TRUE(eventually(delete_module() == 0));
	EXPECT_ERRNO(EINVAL, load_module(ko, "strategy=nonsense"));
	EXPECT_ERRNO(EINVAL, load_module(ko, "grants=nonsense"));
	ASSERT_EQ(0, load_module(ko, "max_slots=3 max_logs=2 max_slot_size=16384"));

	dev = test_device();
	test_info(dev, &info);
	EXPECT_EQ(3, info.out_max_slots);
	EXPECT_EQ(2, info.out_max_logs);
	EXPECT_EQ(16384, info.out_max_slot_size);
	test_err_slot_create(EFBIG, dev, NULL, 5 * PAGE_SIZE);
	for (int i = 0; i < 3; i++)
		slots[i] = test_slot_create(dev, NULL, 4 * PAGE_SIZE, NULL);
	test_err_slot_create(ENOSPC, dev, NULL, PAGE_SIZE);
	for (int i = 0; i < 2; i++)
		logs[i] = test_log_create(slots[0], 0);
	test_err_log_create(ENOSPC, slots[0], 0);
	for (int i = 0; i < 2; i++)
		close(logs[i]);
	for (int i = 0; i < 3; i++)
		close(slots[i]);
	close(dev);

	ASSERT_TRUE(eventually(delete_module() == 0));
	ASSERT_EQ(0, load_module(ko, saved));
}

/*
 * A mark of inotify outlives the file and holds the inode.  Whether that keeps the
 * slot, and the module, is open; what is not is that both go without harm.
 */
TEST_F(module, watched)
{
	const char *ko = getenv("DIRTYTRACK_KO");
	int dev = test_device(), slot, watch, again;
	char path[64], params[1024];
	__u32 id;

	slot = test_slot_create(dev, NAME, SIZE, &id);
	ASSERT_EQ(1, pwrite(slot, "x", 1, 0));
	watch = inotify_init1(IN_CLOEXEC);
	ASSERT_LE(0, watch);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", slot);
	ASSERT_LE(0, inotify_add_watch(watch, path, IN_MODIFY));
	close(slot);
	if (_test_slot_open(dev, id, &again)) {
		EXPECT_EQ(ENOENT, errno);
	} else {
		EXPECT_EQ(1, test_resident(again));
		close(again);
	}
	close(dev);
	if (ko) {
		parameters(params, sizeof(params));
		if (!delete_module()) {
			ASSERT_EQ(0, load_module(ko, params));
		} else {
			EXPECT_EQ(EWOULDBLOCK, errno);
		}
	}
	close(watch);
	dev = test_device();
	EXPECT_TRUE(eventually(!test_slot_listed(dev, id)));
	close(dev);
}

TEST_HARNESS_MAIN
