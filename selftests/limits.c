// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bounds on all slots together: memory, and slots of one user.
 *
 * The module is loaded again with small ones, and with its own after each test: this
 * needs its file, DIRTYTRACK_KO=/path/dirtytrack.ko.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "module.h"
#include "processes.h"

#define MIB (1UL << 20)
#define LIMIT (16 * MIB)
#define NPAGES (2 * LIMIT / PAGE_SIZE)		/* of a slot that does not fit */
#define USER_SLOTS 3

#define ALICE 12345
#define BOB 12346
#define SUBUID 223450

FIXTURE(limits)
{
	int dev;
	char saved[1024];
};

FIXTURE_SETUP(limits)
{
	const char *ko = getenv("DIRTYTRACK_KO");
	char params[1200];

	self->dev = -1;
	if (!ko)
		SKIP(return, "DIRTYTRACK_KO is not set to the module's file");
	parameters(self->saved, sizeof(self->saved));
	snprintf(params, sizeof(params), "%s max_memory=%lu max_user_slots=%d",
		 self->saved, LIMIT, USER_SLOTS);
	ASSERT_TRUE(eventually(delete_module() == 0));
	ASSERT_EQ(0, load_module(ko, params)) {
		TH_LOG("loading with '%s': %s", params, strerror(errno));
	}
	self->dev = test_device();
}

/* With what was charged and is not given back, the module warns as it goes. */
FIXTURE_TEARDOWN(limits)
{
	close(self->dev);
	EXPECT_TRUE(eventually(delete_module() == 0));
	EXPECT_EQ(0, load_module(getenv("DIRTYTRACK_KO"), self->saved));
}

TEST_F(limits, info)
{
	struct dirtytrack_info info;

	test_info(self->dev, &info);
	EXPECT_EQ(LIMIT, info.out_max_memory);
	EXPECT_EQ(USER_SLOTS, info.out_max_user_slots);
}

/* Writes from page @first on until something stops it.  Yields how many pages. */
static __u64 write_pages(int slot, __u64 first, __u64 npages, int *err)
{
	static const char page[PAGE_SIZE] = "full";
	__u64 n;

	*err = 0;
	for (n = 0; n < npages; n++) {
		errno = 0;
		if (pwrite(slot, page, sizeof(page),
			   (first + n) << DIRTYTRACK_PAGE_SHIFT) != PAGE_SIZE) {
			*err = errno;
			break;
		}
	}
	return n;
}

static int punch(int slot, __u64 first, __u64 npages)
{
	return fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 first << DIRTYTRACK_PAGE_SHIFT, npages << DIRTYTRACK_PAGE_SHIFT);
}

/*
 * What a full slot leaves for others is less than a page, and what it has beside its pages
 * is what the administrator's guide says: 4 KiB of pointers a 2 MiB, and tables.
 */
TEST_F(limits, pages_and_tables)
{
	int slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
	int other = test_slot_create(self->dev, NULL, PAGE_SIZE, NULL), err;
	__u64 n, tables = NPAGES / 512 * 16 + NPAGES / 8 * 2 + NPAGES / 64 * 2;
	__u64 room;

	n = write_pages(slot, 0, NPAGES, &err);
	EXPECT_EQ(ENOSPC, err);
	EXPECT_EQ(n, test_resident(slot));
	room = LIMIT - tables - n * PAGE_SIZE - (n + 511) / 512 * 4096;
	/* Besides, two objects of the module, of the other slot's tables a page each, */
	EXPECT_LE(4 * PAGE_SIZE, room);
	/* and what fills up the pages of its own, and less than what a page needs. */
	EXPECT_GE(16 * PAGE_SIZE, room);

	/* The other is a slot without pages, and cannot get one. */
	EXPECT_EQ(0, write_pages(other, 0, 1, &err));
	EXPECT_EQ(ENOSPC, err);
	EXPECT_EQ(0, test_resident(other));
	/* It can get those that the first gives back, with their pointers. */
	ASSERT_EQ(0, punch(slot, 0, 512));
	EXPECT_EQ(1, write_pages(other, 0, 1, &err));
	/* Which leaves 510 and the other's pointers; a chunk's come back with it. */
	EXPECT_EQ(510, write_pages(slot, 0, 512, &err));
	EXPECT_EQ(ENOSPC, err);
	close(other);
	EXPECT_EQ(2, write_pages(slot, 510, 2, &err));
	close(slot);
}

TEST_F(limits, short_write)
{
	int slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
	char *data = calloc(NPAGES, PAGE_SIZE);
	ssize_t n;

	ASSERT_TRUE(data);
	n = pwrite(slot, data, NPAGES * PAGE_SIZE, 0);
	EXPECT_LT(LIMIT / 2, n);
	EXPECT_GT(LIMIT, n);
	EXPECT_EQ(0, n % PAGE_SIZE);
	EXPECT_EQ(n / PAGE_SIZE, test_resident(slot));
	EXPECT_ERRNO(ENOSPC, pwrite(slot, data, NPAGES * PAGE_SIZE - n, n));
	/* What is there can be written again, and a hole be read. */
	EXPECT_EQ(n, pwrite(slot, data, n, 0));
	EXPECT_EQ(PAGE_SIZE, pread(slot, data, PAGE_SIZE, n));
	EXPECT_EQ(n / PAGE_SIZE, test_resident(slot));
	free(data);
	close(slot);
}

TEST_F(limits, preallocate)
{
	int slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
	__u64 n;

	EXPECT_ERRNO(ENOSPC, fallocate(slot, 0, 0, NPAGES * PAGE_SIZE));
	n = test_resident(slot);
	EXPECT_LT(LIMIT / 2 / PAGE_SIZE, n);
	EXPECT_ERRNO(ENOSPC, fallocate(slot, FALLOC_FL_KEEP_SIZE, 0,
				       (n + 1) * PAGE_SIZE));
	EXPECT_EQ(0, fallocate(slot, 0, 0, n * PAGE_SIZE));
	EXPECT_EQ(n, test_resident(slot));
	close(slot);
}

/*
 * By ranges it is the same: what there is room for comes, and the call says how far it
 * got; the one after that gets nowhere, and says why.  What is released can be had again.
 */
TEST_F(limits, populate_and_release)
{
	int slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
	struct dirtytrack_range ranges[] = { { 10, 20 }, { 100, NPAGES - 100 } };
	struct dirtytrack_populate p;
	struct done done;
	__u64 n;

	ASSERT_EQ(0, _test_populate(slot, ranges, 2, DIRTYTRACK_NODE_ANY, &p));
	EXPECT_EQ(1, p.out_nr);
	n = p.out_next - 100;
	EXPECT_EQ(20 + n, p.out_pages);
	EXPECT_EQ(20 + n, test_resident(slot));
	EXPECT_LT(LIMIT / 2 / PAGE_SIZE, n);
	ranges[1].first += n;
	ranges[1].npages -= n;
	EXPECT_ERRNO(ENOSPC, _test_populate(slot, ranges + 1, 1, DIRTYTRACK_NODE_ANY, &p));
	EXPECT_ERRNO(ENOSPC, _test_populate(slot, ranges + 1, 1, 0, &p));
	EXPECT_EQ(20 + n, test_resident(slot));
	/* What has memory needs none. */
	ASSERT_EQ(0, _test_populate(slot, ranges, 1, DIRTYTRACK_NODE_ANY, &p));
	EXPECT_EQ(0, p.out_pages);
	for (int i = 0; i < 3; i++) {
		done = test_release_range(slot, DIRTYTRACK_SLOT_RELEASE, 200, 300);
		EXPECT_EQ(300, done.pages);
		done = test_release_range(slot, DIRTYTRACK_SLOT_POPULATE, 200, 300);
		EXPECT_EQ(300, done.pages);
	}
	done = test_release_range(slot, DIRTYTRACK_SLOT_RELEASE, 0, NPAGES);
	EXPECT_EQ(20 + n, done.pages);
	done = test_release_range(slot, DIRTYTRACK_SLOT_POPULATE, 0, n);
	EXPECT_EQ(n, done.pages);
	close(slot);
}

/* How a child ends that makes one access. */
static int access_status(char *page, bool write)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		signal(SIGBUS, SIG_DFL);
		if (write)
			page_write(page, 0, 1);
		else
			page_read(page, 0);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		dt_broken("a child: %s", strerror(errno));
	return status;
}

TEST_F(limits, fault)
{
	int slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
	char *map = test_map(slot, 0, NPAGES);
	int status, ends[2], err;
	__u64 n;

	n = write_pages(slot, 0, NPAGES, &err);
	ASSERT_EQ(ENOSPC, err);
	for (int write = 0; write < 2; write++) {
		/* Also where there are pointers for it, and where there are none. */
		for (__u64 page = n; page < NPAGES; page += NPAGES - 1 - n) {
			status = access_status(page_at(map, page), write);
			EXPECT_TRUE(WIFSIGNALED(status));
			EXPECT_EQ(SIGBUS, WTERMSIG(status));
		}
	}
	/* What is there can be had. */
	EXPECT_EQ(0, access_status(page_at(map, n - 1), false));
	EXPECT_EQ(0, access_status(page_at(map, n - 1), true));
	/* In a system call: no signal. */
	ASSERT_EQ(0, pipe(ends));
	ASSERT_EQ(1, write(ends[1], "x", 1));
	EXPECT_ERRNO(EFAULT, read(ends[0], page_at(map, n), 1));
	EXPECT_EQ(n, test_resident(slot));

	ASSERT_EQ(0, punch(slot, 0, 2));
	EXPECT_EQ(0, access_status(page_at(map, 0), false));
	EXPECT_EQ(0, access_status(page_at(map, 1), true));
	status = access_status(page_at(map, n), true);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(n, test_resident(slot));
	close(ends[0]);
	close(ends[1]);
	test_unmap(map, NPAGES);
	close(slot);
}

/* A slot or log that does not fit is not made, and leaves the room that it found. */
TEST_F(limits, create)
{
	struct dirtytrack_log_create ring = {
		.size = sizeof(ring), .ring_entries = 1 << 20,
	};
	/* Two bits a page: tables of a 256 GiB slot. */
	const __u64 large = 256UL << 30;
	int slot, large_slot, logs[64], nlogs = 0, err;
	__u64 before, after;

	slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
	before = write_pages(slot, 0, NPAGES, &err);
	ASSERT_EQ(0, punch(slot, 0, NPAGES));

	test_err_slot_create(ENOSPC, self->dev, NULL, large);
	test_err_slot_create(ENOSPC, self->dev, NULL, large);
	large_slot = test_slot_create(self->dev, NULL, large / 16, NULL);
	/* 32.5 KiB for each GiB: some fit, and not as many as a slot may have. */
	while (nlogs < 64 && !_test_log_create(large_slot, 0, &logs[nlogs]))
		nlogs++;
	EXPECT_EQ(ENOSPC, errno);
	EXPECT_LT(10, nlogs);
	EXPECT_GT(64, nlogs);
	EXPECT_ERRNO(ENOSPC, dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &ring));
	for (int i = 0; i < nlogs; i++)
		close(logs[i]);
	close(large_slot);

	/* An 8 MiB ring has room now. */
	ASSERT_EQ(0, dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &ring));
	logs[0] = ring.out_fd;
	EXPECT_ERRNO(ENOSPC, dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &ring));
	after = write_pages(slot, 0, NPAGES, &err);
	EXPECT_EQ(ENOSPC, err);
	EXPECT_GT(before - 8 * MIB / PAGE_SIZE, after);
	close(logs[0]);
	after += write_pages(slot, after, NPAGES, &err);
	EXPECT_EQ(before, after);
	close(slot);
}

struct filler {
	pthread_t thread;
	int slot;
	__u64 pages;
};

static void *fill(void *arg)
{
	struct filler *f = arg;
	int err;

	f->pages = write_pages(f->slot, 0, NPAGES, &err);
	return NULL;
}

/*
 * Many at once come close to the limit, each with what two others are about to give
 * back again at most, and do not exceed it.  What they had is there for one.
 */
TEST_F(limits, together)
{
	enum { NR = 4 };
	struct filler f[NR];
	__u64 alone, sum;
	int slot, err;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < NR; i++)
			f[i].slot = test_slot_create(self->dev, NULL,
						     NPAGES * PAGE_SIZE, NULL);
		alone = write_pages(f[0].slot, 0, NPAGES, &err);
		ASSERT_EQ(0, punch(f[0].slot, 0, NPAGES));
		for (int i = 0; i < NR; i++)
			ASSERT_EQ(0, pthread_create(&f[i].thread, NULL, fill, &f[i]));
		sum = 0;
		for (int i = 0; i < NR; i++) {
			ASSERT_EQ(0, pthread_join(f[i].thread, NULL));
			EXPECT_EQ(f[i].pages, test_resident(f[i].slot));
			sum += f[i].pages;
		}
		EXPECT_GE(alone, sum);
		EXPECT_LE(alone - 3 * NR, sum) {
			TH_LOG("%llu pages alone, %llu together", alone, sum);
		}
		for (int i = 0; i < NR; i++)
			close(f[i].slot);
		slot = test_slot_create(self->dev, NULL, NPAGES * PAGE_SIZE, NULL);
		sum = write_pages(slot, 0, NPAGES, &err);
		EXPECT_LE(alone, sum);
		close(slot);
	}
}

/* ---- slots of one user ---- */

/* Runs the statements as another user: their status is what is asked for. */
#define user_status(uid, ...) ({						\
	pid_t __pid = fork();						\
									\
	ASSERT_LE(0, __pid);						\
	if (!__pid) {							\
		become_for_good(uid);					\
		__VA_ARGS__;						\
		_exit(0);						\
	}								\
	test_wait(__pid);						\
})

/* Makes slots until it fails; the status says how many, plus 100 if with ENOSPC. */
static void make_slots(int dev)
{
	int fd, n = 0;

	while (n < 50 && !_test_slot_create(dev, NULL, PAGE_SIZE, NULL, &fd))
		n++;
	_exit(n + (errno == ENOSPC ? 100 : 0));
}

TEST_F(limits, user_slots)
{
	const int all = 100 + USER_SLOTS;
	const int none = W_EXITCODE(100, 0);		/* as wait() has it */
	int fds[USER_SLOTS + 5], given;

	/* Users are apart, and what ended counts no more. */
	EXPECT_EQ(all, user_status(ALICE, make_slots(self->dev)));
	EXPECT_TRUE(eventually(test_slot_count(self->dev) == 0));
	EXPECT_EQ(0, user_status(ALICE, {
		for (int i = 0; i < USER_SLOTS; i++)
			if (_test_slot_create(self->dev, NULL, PAGE_SIZE, NULL, &fds[i]))
				_exit(98);
		if (!fork())
			make_slots(self->dev);
		wait(&given);
		if (given != none)
			_exit(97);
		close(fds[0]);
		if (_test_slot_create(self->dev, NULL, PAGE_SIZE, NULL, &fds[0]))
			_exit(96);
	}));
	EXPECT_TRUE(eventually(test_slot_count(self->dev) == 0));

	/* Root has as many as there may be, and what he gives away stays his. */
	for (int i = 0; i < USER_SLOTS + 5; i++) {
		fds[i] = test_slot_create(self->dev, NULL, PAGE_SIZE, NULL);
		ASSERT_EQ(0, fchown(fds[i], ALICE, ALICE));
	}
	EXPECT_EQ(all, user_status(ALICE, make_slots(self->dev)));
	EXPECT_EQ(all, user_status(BOB, make_slots(self->dev)));
	for (int i = 0; i < USER_SLOTS + 5; i++)
		close(fds[i]);
}

static void write_map(pid_t pid, const char *name, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		dt_broken("%s: %s", path, strerror(errno));
	close(fd);
}

/* In his own user namespace a user is many users, and has no more slots for that. */
TEST_F(limits, user_namespace)
{
	int ready[2], mapped[2], status;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(mapped));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int fd;

		become_for_good(ALICE);
		if (_test_slot_create(self->dev, NULL, PAGE_SIZE, NULL, &fd))
			_exit(98);
		if (unshare(CLONE_NEWUSER))
			_exit(errno == EINVAL || errno == ENOSYS ? 4 : 97);
		if (write(ready[1], "", 1) != 1 || read(mapped[0], &c, 1) != 1)
			_exit(96);
		/* Another user, privileged there, as far as the kernel knows. */
		if (setresgid(0, 0, 0) || setresuid(0, 0, 0))
			_exit(95);
		make_slots(self->dev);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) == 1) {
		char map[32];

		snprintf(map, sizeof(map), "0 %d 10", SUBUID);
		write_map(pid, "gid_map", map);
		write_map(pid, "uid_map", map);
		ASSERT_EQ(1, write(mapped[1], "", 1));
	}
	status = test_wait(pid);
	close(ready[0]);
	close(mapped[0]);
	close(mapped[1]);
	if (status == 4)
		SKIP(return, "this kernel has no user namespaces");
	EXPECT_EQ(100 + USER_SLOTS - 1, status);
	EXPECT_TRUE(eventually(test_slot_count(self->dev) == 0));
}

TEST_HARNESS_MAIN
