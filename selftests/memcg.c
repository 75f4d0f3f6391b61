// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who pays for memory: the memory cgroup of the process that makes it grow
 *
 * Each test has cgroups of its own and runs in them what is to be charged, while this
 * process stays outside.  A charge is what memory.current grows by; the kernel charges
 * in batches, one for each processor, so all sizes here are large beside that.
 */
#include "processes.h"

#include <sys/mount.h>
#include <sys/uio.h>

#define MIB		(1LL << 20)
#define SIZE		(16 * MIB)
#define NPAGES		(SIZE / PAGE_SIZE)

/* What a process needs besides, and batches. */
#define SLACK		(2 * MIB)

FIXTURE(memcg)
{
	char root[32];		/* empty where there is no memory controller */
	char group[2][64];
	int slot;
};

static long long number_in(const char *dir, const char *name, const char *key)
{
	char path[128], line[128];
	long long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "r");
	if (!f)
		dt_broken("%s: %s", path, strerror(errno));
	/* A file of one number, or of lines "key number". */
	while (n < 0 && fgets(line, sizeof(line), f)) {
		size_t len = strlen(key);

		if (!strncmp(line, key, len) && (!len || line[len] == ' '))
			n = atoll(line + len);
	}
	fclose(f);
	return n;
}

static long long current(const char *group)
{
	return number_in(group, "memory.current", "");
}

static bool put_in(const char *dir, const char *name, const char *text)
{
	char path[128];
	bool done;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

static void limit(const char *group, const char *max)
{
	if (!put_in(group, "memory.max", max))
		dt_broken("%s: memory.max: %s", group, strerror(errno));
}

/* A cgroup2 may be mounted anywhere, or nowhere; it is one and the same. */
FIXTURE_SETUP(memcg)
{
	strcpy(self->root, "/tmp/dirtytrack-cgroup-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->root));
	ASSERT_EQ(0, mount("none", self->root, "cgroup2", 0, NULL));
	if (!put_in(self->root, "cgroup.subtree_control", "+memory")) {
		umount(self->root);
		rmdir(self->root);
		self->root[0] = '\0';
		return;
	}
	for (int i = 0; i < 2; i++) {
		snprintf(self->group[i], sizeof(self->group[i]), "%s/dirtytrack-%d-%d",
			 self->root, getpid(), i);
		ASSERT_EQ(0, mkdir(self->group[i], 0755));
	}
	self->slot = test_new_slot(NPAGES);
}

#define NO_MEMCG "no memory controller in cgroup v2"

/* Nothing is left to pay for, so the groups are empty in every sense. */
FIXTURE_TEARDOWN(memcg)
{
	if (!self->root[0])
		return;
	close(self->slot);
	for (int i = 0; i < 2; i++) {
		EXPECT_TRUE(eventually(current(self->group[i]) < SLACK)) {
			TH_LOG("group %d: %lld bytes are charged and nothing is there",
			       i, current(self->group[i]));
		}
		EXPECT_EQ(0, rmdir(self->group[i]));
	}
	umount(self->root);
	rmdir(self->root);
}

/* Runs the statements in a child that is in the group; yields how it ended. */
#define in_group(group, ...) ({						\
	pid_t __pid = fork();						\
									\
	ASSERT_LE(0, __pid);						\
	if (!__pid) {							\
		if (!put_in(group, "cgroup.procs", "0"))		\
			dt_broken("cannot enter %s: %s", group,		\
				  strerror(errno));			\
		__VA_ARGS__;						\
		_exit(!_metadata->passed);				\
	}								\
	test_wait(__pid);						\
})

/* The statement makes the charge of the group grow by @size. */
#define EXPECT_CHARGE(group, size, statement) do {			\
	long long __before = current(group), __grown;			\
									\
	statement;							\
	__grown = current(group) - __before;				\
	EXPECT_LE((size) - SLACK / 2, __grown);				\
	EXPECT_GE((size) + SLACK, __grown);				\
} while (0)

/* ---- pages ---- */

static void store_all(int slot, long long size)
{
	char *map = _test_map(slot, 0, size / PAGE_SIZE);

	if (map == MAP_FAILED)
		dt_broken("mmap: %s", strerror(errno));
	for (long long n = 0; n < size / (long long)PAGE_SIZE; n++)
		page_write(map, n, 1 + n % 255);
	test_unmap(map, size / PAGE_SIZE);
}

static void load_all(int slot, long long size)
{
	char *map = _test_map(slot, 0, size / PAGE_SIZE);

	if (map == MAP_FAILED)
		dt_broken("mmap: %s", strerror(errno));
	for (long long n = 0; n < size / (long long)PAGE_SIZE; n++)
		page_read(map, n);
	test_unmap(map, size / PAGE_SIZE);
}

static void pwrite_all(int slot, long long size)
{
	static char buf[16 * PAGE_SIZE];

	for (long long at = 0; at < size; at += sizeof(buf))
		if (pwrite(slot, buf, sizeof(buf), at) != sizeof(buf))
			dt_broken("pwrite at %lld: %s", at, strerror(errno));
}

static void preallocate_all(int slot, long long size)
{
	if (fallocate(slot, 0, 0, size))
		dt_broken("fallocate: %s", strerror(errno));
}

static void read_into_all(int slot, long long size)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	char *map = _test_map(slot, 0, size / PAGE_SIZE);

	if (map == MAP_FAILED || read(zero, map, size) != size)
		dt_broken("read from /dev/zero into a slot: %s", strerror(errno));
	close(zero);
	test_unmap(map, size / PAGE_SIZE);
}

struct way {
	const char *name;
	void (*all)(int slot, long long size);
};

static const struct way ways[] = {
	{ "stores", store_all },
	{ "loads", load_all },
	{ "pwrite", pwrite_all },
	{ "fallocate", preallocate_all },
	{ "read into a mapping", read_into_all },
};

/* Not who made the slot. */
TEST_F(memcg, pages_are_charged_to_who_touches)
{
	if (!self->root[0])
		SKIP(return, NO_MEMCG);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		const char *group = self->group[i % 2];
		int slot = test_new_slot(NPAGES);

		EXPECT_EQ(0, in_group(group, {
			long long kernel = number_in(group, "memory.stat", "kernel");

			EXPECT_CHARGE(group, SIZE, ways[i].all(slot, SIZE));
			EXPECT_CHARGE(group, 0, ways[i].all(slot, SIZE));
			EXPECT_LE(SIZE - SLACK,
				  number_in(group, "memory.stat", "kernel") - kernel);
		})) {
			TH_LOG("by %s", ways[i].name);
		}
		/* He is gone, the slot is not. */
		EXPECT_LE(SIZE, current(group));
		close(slot);
		EXPECT_TRUE(eventually(current(group) < SLACK));
	}
}

/* Each page by itself, until it is released. */
TEST_F(memcg, two_share_a_slot)
{
	const char *a = self->group[0], *b = self->group[1];

	if (!self->root[0])
		SKIP(return, NO_MEMCG);
	EXPECT_EQ(0, in_group(a, {
		EXPECT_CHARGE(a, SIZE / 2, store_all(self->slot, SIZE / 2));
	}));
	EXPECT_EQ(0, in_group(b, {
		EXPECT_CHARGE(b, SIZE / 2, store_all(self->slot, SIZE));
	}));
	EXPECT_EQ(NPAGES, test_resident(self->slot));

	/* Whoever releases them, it is their payer who is relieved. */
	EXPECT_CHARGE(a, -SIZE / 2,
		      ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE |
					     FALLOC_FL_KEEP_SIZE, 0, SIZE / 2)));
	EXPECT_LE(SIZE / 2, current(b));
	/* And who touches them next pays for them. */
	EXPECT_EQ(0, in_group(b, {
		EXPECT_CHARGE(b, SIZE / 2, load_all(self->slot, SIZE / 2));
	}));
	EXPECT_GE(SLACK, current(a));
}

/* ---- what slots and logs need for themselves ---- */

#define LARGE		256ULL			/* GiB, none of which is touched */
#define LARGE_PAGES	(LARGE << 30 >> DIRTYTRACK_PAGE_SHIFT)

/* As the admin guide says: KiB for each GiB of the slot's size. */
#define SLOT_KIB	80.6
#define LOG_KIB		32.5

static long long large_charge(double kib)
{
	return LARGE * kib * 1024;
}

static int log_with_ring(int slot, __u32 entries)
{
	struct dirtytrack_log_create arg = {
		.size = sizeof(arg),
		.ring_entries = entries,
	};

	return dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &arg) ? -1 : arg.out_fd;
}

TEST_F(memcg, tables_logs_and_rings_are_charged_to_who_makes_them)
{
	const char *a = self->group[0], *b = self->group[1];
	int pair[2], fd;

	if (!self->root[0])
		SKIP(return, NO_MEMCG);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	EXPECT_EQ(0, in_group(a, {
		EXPECT_CHARGE(a, large_charge(SLOT_KIB), fd = test_new_slot(LARGE_PAGES));
		send_fd(pair[0], fd);
	}));
	fd = receive_fd(pair[1]);
	EXPECT_EQ(0, in_group(b, {
		struct dirtytrack_info info;
		__u32 entries;
		int log;

		EXPECT_CHARGE(b, large_charge(LOG_KIB), log = test_log_create(fd, 0));
		EXPECT_CHARGE(b, -large_charge(LOG_KIB), close(log));
		test_info(test_device(), &info);
		entries = info.out_max_ring_entries;
		EXPECT_CHARGE(b, large_charge(LOG_KIB) + entries * (long long)sizeof(__u64),
			      log = log_with_ring(fd, entries));
		EXPECT_LE(0, log);
		send_fd(pair[0], log);
	}));
	/* Who has them now need not be who pays. */
	EXPECT_LE(large_charge(SLOT_KIB) - SLACK / 2, current(a));
	EXPECT_LE(large_charge(LOG_KIB) - SLACK / 2, current(b));
	close(fd);
	EXPECT_LE(large_charge(SLOT_KIB) - SLACK / 2, current(a));
	close(receive_fd(pair[1]));
	close(pair[0]);
	close(pair[1]);
}

/* ---- limits ---- */

/* Less than the slot, more than a process needs. */
#define MAX		(SIZE / 2)
#define MAX_TEXT	"8388608"

/* What was written before the end is reported, and the slot is as good as ever. */
static void check_survivor(struct __test_metadata *_metadata, int slot, int log)
{
	__u64 *got = bitmap_alloc(NPAGES), resident = test_resident(slot), written;
	char *map = test_map(slot, 0, NPAGES);

	EXPECT_LT(0, resident);
	EXPECT_GT(NPAGES, resident);
	written = test_harvest_all(log, 0, 0, NPAGES, got, 0);
	/* The last page may have come too late for its writer. */
	EXPECT_LE(resident - 1, written);
	EXPECT_GT(NPAGES, written);
	/* They were written in order. */
	EXPECT_EQ(written, bits_count(got, written));
	store_all(slot, SIZE);
	bitmap_zero(got, NPAGES);
	EXPECT_EQ(NPAGES, test_harvest_all(log, 0, 0, NPAGES, got, 0));
	for (__u64 n = 0; n < NPAGES; n++)
		EXPECT_EQ(1 + n % 255, page_read(map, n));
	test_unmap(map, NPAGES);
	free(got);
}

/* The limit of a group ends those who are in it, and nobody else. */
TEST_F(memcg, writer_over_its_limit_is_killed)
{
	static const struct way killed[] = {
		{ "stores", store_all },
		{ "read into a mapping", read_into_all },
	};
	const char *group = self->group[0];

	if (!self->root[0])
		SKIP(return, NO_MEMCG);
	limit(group, MAX_TEXT);
	for (size_t i = 0; i < ARRAY_SIZE(killed); i++) {
		long long kills = number_in(group, "memory.events", "oom_kill");
		int slot = test_new_slot(NPAGES), log = test_log_create(slot, 0);

		EXPECT_EQ(128 + SIGKILL, in_group(group, killed[i].all(slot, SIZE))) {
			TH_LOG("by %s", killed[i].name);
		}
		EXPECT_LT(kills, number_in(group, "memory.events", "oom_kill"));
		EXPECT_GE(MAX, current(group));
		check_survivor(_metadata, slot, log);
		close(log);
		close(slot);
	}
}

/* Not to be killed: its calls fail instead. */
static void protect_from_oom(void)
{
	if (!put_in("/proc/self", "oom_score_adj", "-1000"))
		dt_broken("oom_score_adj: %s", strerror(errno));
}

TEST_F(memcg, calls_over_a_limit_fail)
{
	const char *group = self->group[0];
	int log = test_log_create(self->slot, 0), large = test_new_slot(LARGE_PAGES);

	if (!self->root[0])
		SKIP(return, NO_MEMCG);
	limit(group, MAX_TEXT);
	EXPECT_EQ(0, in_group(group, {
		static char buf[4 * PAGE_SIZE];
		long long at = 0, before;
		int dev = test_device();
		ssize_t n;

		protect_from_oom();
		/* What could be written is said first; some may then be found for more. */
		while ((n = pwrite(self->slot, buf, sizeof(buf), at)) > 0)
			at += n;
		EXPECT_EQ(-1, n);
		EXPECT_EQ(ENOMEM, errno);
		EXPECT_GT(SIZE, at);
		at -= at % (2 * PAGE_SIZE);
		EXPECT_ERRNO(ENOMEM, fallocate(self->slot, 0, 0, SIZE));
		/* Room for what a process needs, but not for any of the tables. */
		EXPECT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, at / 2, at / 2));
		before = current(group);
		for (int i = 0; i < 5; i++) {
			test_err_slot_create(ENOMEM, dev, NULL, LARGE << 30);
			test_err_log_create(ENOMEM, large, 0);
			test_err_log_create(ENOMEM, large, DIRTYTRACK_LOG_ALL_SET);
		}
		EXPECT_GE(before + SLACK / 2, current(group));
		EXPECT_EQ(0, number_in(group, "memory.events", "oom_kill"));
	}));
	check_survivor(_metadata, self->slot, log);
	close(large);
	close(log);
}

/*
 * A store cannot fail: it waits until there is room.  Meanwhile others write to the
 * slot, release pages of it, and harvest.
 */
TEST_F(memcg, store_waits_and_nobody_else)
{
	const char *group = self->group[0];
	int log = test_log_create(self->slot, 0);
	char *map = test_map(self->slot, 0, NPAGES);
	__u64 *got = bitmap_alloc(NPAGES), resident;
	long long ooms;
	int status;
	pid_t pid;

	if (!self->root[0])
		SKIP(return, NO_MEMCG);
	limit(group, MAX_TEXT);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!put_in(group, "cgroup.procs", "0"))
			dt_broken("cannot enter %s: %s", group, strerror(errno));
		protect_from_oom();
		store_all(self->slot, SIZE);
		_exit(0);
	}
	ASSERT_TRUE(eventually(number_in(group, "memory.events", "oom") > 0));
	for (int i = 0; i < 5; i++) {
		ooms = number_in(group, "memory.events", "oom");
		page_write(map, NPAGES - 1, i);
		page_write(map, NPAGES - 2, i);
		EXPECT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE |
				       FALLOC_FL_KEEP_SIZE, SIZE - PAGE_SIZE, PAGE_SIZE));
		bitmap_zero(got, NPAGES);
		test_harvest_all(log, 0, 0, NPAGES, got, 0);
		EXPECT_TRUE(bit_test(got, NPAGES - 1) && bit_test(got, NPAGES - 2));
		/* It tries all the time. */
		EXPECT_TRUE(eventually(number_in(group, "memory.events", "oom") > ooms));
	}
	resident = test_resident(self->slot);
	EXPECT_GT(NPAGES, resident);
	EXPECT_EQ(0, waitpid(pid, &status, WNOHANG));
	limit(group, "max");
	EXPECT_EQ(0, test_wait(pid));
	for (__u64 n = 0; n < NPAGES; n++)
		EXPECT_EQ(1 + n % 255, page_read(map, n));
	test_unmap(map, NPAGES);
	close(log);
	free(got);
}

TEST_HARNESS_MAIN
