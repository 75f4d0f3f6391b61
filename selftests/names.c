// SPDX-License-Identifier: GPL-2.0-only
/*
 * How slots are found again: ids, names, the list, and who may do it.
 *
 * Slots of other programs may exist while this runs; nothing here depends on
 * there being none, apart from the names, which are unlikely ones.
 */
#include "processes.h"

#include <sched.h>
#include <linux/capability.h>
#include <sys/syscall.h>

#define ALICE 12345
#define BOB 12346

FIXTURE(names)
{
	int dev;
};

FIXTURE_SETUP(names)
{
	self->dev = test_device();
}

FIXTURE_TEARDOWN(names)
{
	close(self->dev);
}

static struct dirtytrack_slot_create *create_arg(const char *bytes, size_t n)
{
	static struct dirtytrack_slot_create arg;

	memset(&arg, 0, sizeof(arg));
	arg.size = sizeof(arg);
	arg.length = PAGE_SIZE;
	memcpy(arg.name, bytes, n);
	return &arg;
}

static struct dirtytrack_slot_open *open_arg(const char *bytes, size_t n)
{
	static struct dirtytrack_slot_open arg;

	memset(&arg, 0, sizeof(arg));
	arg.size = sizeof(arg);
	arg.flags = DIRTYTRACK_OPEN_BY_NAME;
	memcpy(arg.name, bytes, n);
	return &arg;
}

/* Both calls that take a name must agree on what one is. */
#define EXPECT_BAD_NAME(bytes, n) do {					\
	EXPECT_ERRNO(EINVAL, dt_ioctl(self->dev, DIRTYTRACK_SLOT_CREATE, \
				      create_arg(bytes, n)));		\
	EXPECT_ERRNO(EINVAL, dt_ioctl(self->dev, DIRTYTRACK_SLOT_OPEN,	\
				      open_arg(bytes, n)));		\
} while (0)

TEST_F(names, length)
{
	char name[DIRTYTRACK_NAME_LEN + 1] = { 0 };
	struct dirtytrack_slot_info info;
	unsigned int before = test_slot_count(self->dev);
	int fd, again;

	for (int n = 1; n < DIRTYTRACK_NAME_LEN; n++) {
		memset(name, 'x', n);
		fd = test_slot_create(self->dev, name, PAGE_SIZE, NULL);
		test_slot_info(fd, &info);
		EXPECT_STREQ(name, info.out_name);
		again = test_slot_open_name(self->dev, name);
		close(again);
		close(fd);
	}
	/* 32 characters leave no room for the NUL. */
	memset(name, 'x', DIRTYTRACK_NAME_LEN);
	EXPECT_BAD_NAME(name, DIRTYTRACK_NAME_LEN);
	EXPECT_EQ(before, test_slot_count(self->dev));
}

TEST_F(names, characters)
{
	unsigned int before = test_slot_count(self->dev);
	struct dirtytrack_slot_create *arg;
	int fd, again;

	for (int c = 1; c < 256; c++) {
		const char first[] = { c, 'x' }, last[] = { 'x', c };

		if (c < 0x20 || c > 0x7e || c == '/') {
			EXPECT_BAD_NAME(first, 2);
			EXPECT_BAD_NAME(last, 2);
			continue;
		}
		arg = create_arg(last, 2);
		ASSERT_EQ(0, dt_ioctl(self->dev, DIRTYTRACK_SLOT_CREATE, arg)) {
			TH_LOG("character %#x: %s", c, strerror(errno));
		}
		close(arg->out_fd);
	}
	EXPECT_EQ(before, test_slot_count(self->dev));

	fd = test_slot_create(self->dev, " a name: of (this) slot, 100%! ",
			      PAGE_SIZE, NULL);
	again = test_slot_open_name(self->dev, " a name: of (this) slot, 100%! ");
	close(again);
	close(fd);
}

/* Behind the NUL there is nothing: else two names could look like one. */
TEST_F(names, padding)
{
	char name[DIRTYTRACK_NAME_LEN];

	for (int nul = 0; nul < DIRTYTRACK_NAME_LEN - 1; nul++) {
		memset(name, 0, sizeof(name));
		memset(name, 'x', nul);
		name[nul + 1] = 'y';
		EXPECT_BAD_NAME(name, sizeof(name));
		name[nul + 1] = 0;
		name[DIRTYTRACK_NAME_LEN - 1] = 'z';
		EXPECT_BAD_NAME(name, sizeof(name));
	}
}

TEST_F(names, duplicate)
{
	int a, b, c, d;
	__u32 id_a, id_b, id_c, id_d;

	a = test_slot_create(self->dev, "dup", PAGE_SIZE, &id_a);
	test_err_slot_create(EEXIST, self->dev, "dup", PAGE_SIZE);
	test_err_slot_create(EEXIST, self->dev, "dup", 2 * PAGE_SIZE);
	b = test_slot_create(self->dev, "dup2", PAGE_SIZE, &id_b);
	c = test_slot_create(self->dev, "du", PAGE_SIZE, &id_c);
	d = test_slot_create(self->dev, "Dup", PAGE_SIZE, &id_d);
	EXPECT_TRUE(id_a < id_b && id_b < id_c && id_c < id_d);

	/* The name goes with the slot, and not before. */
	close(b);
	test_err_slot_create(EEXIST, self->dev, "dup", PAGE_SIZE);
	close(a);
	a = test_slot_create(self->dev, "dup", PAGE_SIZE, &id_a);
	EXPECT_LT(id_d, id_a);
	close(a);
	close(c);
	close(d);
}

TEST_F(names, unnamed)
{
	__u32 id[3];
	int fd[3];

	for (int i = 0; i < 3; i++)
		fd[i] = test_slot_create(self->dev, NULL, PAGE_SIZE, &id[i]);
	EXPECT_TRUE(id[0] != id[1] && id[1] != id[2] && id[0] != id[2]);
	test_err_slot_open_name(EINVAL, self->dev, "");
	for (int i = 0; i < 3; i++)
		close(fd[i]);
}

/* A new fd is the same slot: same content, same inode, same id. */
TEST_F(names, open)
{
	struct dirtytrack_slot_info info;
	struct stat st, st_again;
	char buf[6];
	__u32 id;
	int fd;

	fd = test_slot_create(self->dev, "opened", 3 * PAGE_SIZE, &id);
	ASSERT_EQ(6, pwrite(fd, "secret", 6, PAGE_SIZE));
	ASSERT_EQ(0, fstat(fd, &st));
	for (int by_name = 0; by_name < 2; by_name++) {
		int again = by_name ? test_slot_open_name(self->dev, "opened") :
				      test_slot_open(self->dev, id);

		EXPECT_NE(fd, again);
		test_slot_info(again, &info);
		EXPECT_EQ(id, info.out_id);
		EXPECT_STREQ("opened", info.out_name);
		EXPECT_EQ(6, pread(again, buf, 6, PAGE_SIZE));
		EXPECT_EQ(0, memcmp(buf, "secret", 6));
		ASSERT_EQ(0, fstat(again, &st_again));
		EXPECT_EQ(st.st_ino, st_again.st_ino);
		EXPECT_EQ(st.st_dev, st_again.st_dev);
		/* Opened, not duplicated: the file position is its own. */
		EXPECT_EQ(PAGE_SIZE, (size_t)lseek(again, PAGE_SIZE, SEEK_SET));
		EXPECT_EQ(0, lseek(fd, 0, SEEK_CUR));
		EXPECT_EQ(1, pwrite(again, "S", 1, PAGE_SIZE));
		EXPECT_EQ(1, pread(fd, buf, 1, PAGE_SIZE));
		EXPECT_EQ('S', buf[0]);
		EXPECT_EQ(1, pwrite(fd, "s", 1, PAGE_SIZE));
		close(again);
	}
	/* The slot is held by whichever fd is left. */
	{
		int again = test_slot_open(self->dev, id);

		close(fd);
		EXPECT_TRUE(test_slot_listed(self->dev, id));
		fd = test_slot_open_name(self->dev, "opened");
		close(again);
	}
	close(fd);
	EXPECT_FALSE(test_slot_listed(self->dev, id));
	test_err_slot_open(ENOENT, self->dev, id);
	test_err_slot_open_name(ENOENT, self->dev, "opened");
}

TEST_F(names, open_errors)
{
	unsigned int fds;
	__u32 id;
	int fd;

	fd = test_slot_create(self->dev, "known", PAGE_SIZE, &id);
	fds = test_count_fds();
	test_err_slot_open(EINVAL, self->dev, 0);
	test_err_slot_open(ENOENT, self->dev, id + 1);
	test_err_slot_open(ENOENT, self->dev, ~0U);
	test_err_slot_open_name(EINVAL, self->dev, "");
	test_err_slot_open_name(ENOENT, self->dev, "know");
	test_err_slot_open_name(ENOENT, self->dev, "known ");
	test_err_slot_open_name(ENOENT, self->dev, "unknown");

	/* One or the other: both is a program that is mistaken about one. */
	{
		struct dirtytrack_slot_open arg = *open_arg("known", 5);

		arg.id = id;
		EXPECT_ERRNO(EINVAL, dt_ioctl(self->dev, DIRTYTRACK_SLOT_OPEN, &arg));
		arg.flags = 0;
		EXPECT_ERRNO(EINVAL, dt_ioctl(self->dev, DIRTYTRACK_SLOT_OPEN, &arg));
		memset(arg.name, 0, sizeof(arg.name));
		arg.name[DIRTYTRACK_NAME_LEN - 1] = 1;
		EXPECT_ERRNO(EINVAL, dt_ioctl(self->dev, DIRTYTRACK_SLOT_OPEN, &arg));
	}
	EXPECT_EQ(fds, test_count_fds());
	close(fd);
}

TEST_F(names, list)
{
	__u32 id[5], at, seen[5], n = 0;
	int fd[5];

	for (int i = 0; i < 5; i++)
		fd[i] = test_slot_create(self->dev, NULL, PAGE_SIZE, &id[i]);
	for (int i = 1; i < 5; i++)
		ASSERT_LT(id[i - 1], id[i]);

	/* From just before the first, from an id in use, from one that is not. */
	for (at = id[0] - 1; n < 5 && !_test_slot_next(self->dev, at, &at); )
		seen[n++] = at;
	ASSERT_EQ(5, n);
	EXPECT_EQ(0, memcmp(id, seen, sizeof(id)));
	close(fd[2]);
	ASSERT_EQ(0, _test_slot_next(self->dev, id[1], &at));
	EXPECT_EQ(id[3], at);
	ASSERT_EQ(0, _test_slot_next(self->dev, id[2], &at));
	EXPECT_EQ(id[3], at);
	EXPECT_ERRNO(ENOENT, _test_slot_next(self->dev, id[4], &at));
	EXPECT_ERRNO(ENOENT, _test_slot_next(self->dev, ~0U, &at));
	ASSERT_EQ(0, _test_slot_next(self->dev, 0, &at));
	EXPECT_GE(id[0], at);
	for (int i = 0; i < 5; i++)
		if (i != 2)
			close(fd[i]);
	for (int i = 0; i < 5; i++)
		EXPECT_FALSE(test_slot_listed(self->dev, id[i]));
}

/* ---- two users ---- */

FIXTURE(owner)
{
	int dev;
	int alice, bob;
	__u32 alice_id, bob_id;
};

FIXTURE_SETUP(owner)
{
	self->dev = test_device();
	become(ALICE);
	self->alice = test_slot_create(self->dev, "shared", PAGE_SIZE,
				       &self->alice_id);
	become(BOB);
	/* Another user's name is not taken: it could be probed otherwise. */
	self->bob = test_slot_create(self->dev, "shared", PAGE_SIZE,
				     &self->bob_id);
	become(0);
}

FIXTURE_TEARDOWN(owner)
{
	become(0);
	close(self->alice);
	close(self->bob);
	close(self->dev);
}

#define EXPECT_SLOT(want, fd) do {					\
	struct dirtytrack_slot_info __info;				\
	int __slot = (fd);						\
									\
	test_slot_info(__slot, &__info);				\
	EXPECT_EQ(want, __info.out_id);					\
	close(__slot);							\
} while (0)

/* The device is for everybody. */
TEST_F(owner, unprivileged_device)
{
	int dev, slot, log;

	become(ALICE);
	dev = test_device();
	slot = test_slot_create(dev, "mine", PAGE_SIZE, NULL);
	log = test_log_create(slot, 0);
	close(log);
	close(slot);
	close(dev);
}

TEST_F(owner, uid)
{
	struct dirtytrack_slot_info info;
	struct stat st;

	test_slot_info(self->alice, &info);
	EXPECT_EQ(ALICE, info.out_uid);
	test_slot_info(self->bob, &info);
	EXPECT_EQ(BOB, info.out_uid);
	ASSERT_EQ(0, fstat(self->alice, &st));
	EXPECT_EQ(ALICE, st.st_uid);
}

TEST_F(owner, name_is_per_user)
{
	become(ALICE);
	test_err_slot_create(EEXIST, self->dev, "shared", PAGE_SIZE);
	EXPECT_SLOT(self->alice_id, test_slot_open_name(self->dev, "shared"));
	become(BOB);
	test_err_slot_create(EEXIST, self->dev, "shared", PAGE_SIZE);
	EXPECT_SLOT(self->bob_id, test_slot_open_name(self->dev, "shared"));
}

TEST_F(owner, id_of_another)
{
	become(ALICE);
	EXPECT_SLOT(self->alice_id, test_slot_open(self->dev, self->alice_id));
	test_err_slot_open(EACCES, self->dev, self->bob_id);
	become(BOB);
	EXPECT_SLOT(self->bob_id, test_slot_open(self->dev, self->bob_id));
	test_err_slot_open(EACCES, self->dev, self->alice_id);
	become(0);
	EXPECT_SLOT(self->alice_id, test_slot_open(self->dev, self->alice_id));
	EXPECT_SLOT(self->bob_id, test_slot_open(self->dev, self->bob_id));
}

TEST_F(owner, name_of_another)
{
	int only_bobs;

	become(BOB);
	only_bobs = test_slot_create(self->dev, "only", PAGE_SIZE, NULL);
	become(ALICE);
	test_err_slot_open_name(ENOENT, self->dev, "only");
	become(0);
	close(only_bobs);
}

TEST_F(owner, list_is_of_own)
{
	become(ALICE);
	EXPECT_TRUE(test_slot_listed(self->dev, self->alice_id));
	EXPECT_FALSE(test_slot_listed(self->dev, self->bob_id));
	become(BOB);
	EXPECT_FALSE(test_slot_listed(self->dev, self->alice_id));
	EXPECT_TRUE(test_slot_listed(self->dev, self->bob_id));
	become(0);
	EXPECT_TRUE(test_slot_listed(self->dev, self->alice_id));
	EXPECT_TRUE(test_slot_listed(self->dev, self->bob_id));
}

TEST_F(owner, privileged_name)
{
	__u32 id;
	int fd;

	/* Two others have it: which one is meant? */
	test_err_slot_open_name(ENOTUNIQ, self->dev, "shared");
	/* Own slots come first. */
	fd = test_slot_create(self->dev, "shared", PAGE_SIZE, &id);
	EXPECT_SLOT(id, test_slot_open_name(self->dev, "shared"));
	close(fd);
	test_err_slot_open_name(ENOTUNIQ, self->dev, "shared");
	/* One other has it. */
	close(self->bob);
	self->bob = -1;
	EXPECT_SLOT(self->alice_id, test_slot_open_name(self->dev, "shared"));
}

/* The caller is who calls, not who opened the device. */
TEST_F(owner, device_of_root_in_other_hands)
{
	as_user(ALICE, {
		test_err_slot_open(EACCES, self->dev, self->bob_id);
		EXPECT_SLOT(self->alice_id,
			    test_slot_open(self->dev, self->alice_id));
		EXPECT_FALSE(test_slot_listed(self->dev, self->bob_id));
	});
}

/* Ownership is that of the file, and moves with it. */
TEST_F(owner, chown)
{
	struct dirtytrack_slot_info info;
	__u32 id;
	int fd = test_slot_create(self->dev, "given", PAGE_SIZE, &id);

	become(ALICE);
	test_err_slot_open(EACCES, self->dev, id);
	become(0);
	ASSERT_EQ(0, fchown(fd, ALICE, -1));
	test_slot_info(fd, &info);
	EXPECT_EQ(ALICE, info.out_uid);
	become(ALICE);
	EXPECT_SLOT(id, test_slot_open(self->dev, id));
	EXPECT_SLOT(id, test_slot_open_name(self->dev, "given"));
	EXPECT_TRUE(test_slot_listed(self->dev, id));
	become(BOB);
	test_err_slot_open(EACCES, self->dev, id);
	become(0);
	close(fd);
}

/* The mode of the file is obeyed: an owner can take a slot out of reach by it. */
TEST_F(owner, mode)
{
	static const mode_t modes[] = { 0, 0400, 0200, 0066 };
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		ASSERT_EQ(0, fchmod(self->alice, modes[i]));
		become(ALICE);
		test_err_slot_open(EACCES, self->dev, self->alice_id);
		test_err_slot_open_name(ENOENT, self->dev, "shared");
		EXPECT_FALSE(test_slot_listed(self->dev, self->alice_id));
		become(BOB);
		test_err_slot_open(EACCES, self->dev, self->alice_id);
		become(0);
		EXPECT_SLOT(self->alice_id, test_slot_open(self->dev, self->alice_id));
		EXPECT_TRUE(test_slot_listed(self->dev, self->alice_id));
	}
	/* Who has an fd does not need the mode. */
	become(ALICE);
	EXPECT_EQ(1, pwrite(self->alice, "x", 1, 0));
	fd = test_log_create(self->alice, 0);
	close(fd);
	ASSERT_EQ(0, fchmod(self->alice, 0600));
	EXPECT_SLOT(self->alice_id, test_slot_open(self->dev, self->alice_id));
	become(0);
}

/* A chown can give a user two slots of one name: neither is meant by it. */
TEST_F(owner, two_of_a_name)
{
	ASSERT_EQ(0, fchown(self->bob, ALICE, -1));
	become(ALICE);
	test_err_slot_open_name(ENOTUNIQ, self->dev, "shared");
	EXPECT_SLOT(self->alice_id, test_slot_open(self->dev, self->alice_id));
	EXPECT_SLOT(self->bob_id, test_slot_open(self->dev, self->bob_id));
	become(0);
	test_err_slot_open_name(ENOTUNIQ, self->dev, "shared");
	close(self->bob);
	self->bob = -1;
	become(ALICE);
	EXPECT_SLOT(self->alice_id, test_slot_open_name(self->dev, "shared"));
	become(0);
}

/* Only the owner may, without CAP_CHOWN and the like. */
TEST_F(owner, chown_is_refused)
{
	become(ALICE);
	EXPECT_ERRNO(EPERM, fchown(self->alice, BOB, -1));
	EXPECT_ERRNO(EPERM, fchmod(self->bob, 0666));
}

/*
 * Every user can be root in a user namespace of their own.  That must open
 * nothing, and shows uids as that namespace sees them.
 */
TEST_F(owner, user_namespace)
{
	struct dirtytrack_slot_info info;
	int status, overflow = 65534;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		FILE *f = fopen("/proc/sys/kernel/overflowuid", "r");

		if (!f || fscanf(f, "%d", &overflow) != 1)
			dt_broken("no /proc/sys/kernel/overflowuid");
		become_for_good(ALICE);
		if (unshare(CLONE_NEWUSER))
			_exit(77);
		test_err_slot_open(EACCES, self->dev, self->bob_id);
		test_err_slot_open_name(ENOENT, self->dev, "nobody's");
		EXPECT_FALSE(test_slot_listed(self->dev, self->bob_id));
		EXPECT_SLOT(self->alice_id,
			    test_slot_open(self->dev, self->alice_id));
		test_slot_info(self->alice, &info);
		EXPECT_EQ(overflow, info.out_uid);
		_exit(!_metadata->passed);
	}
	status = test_wait(pid);
	if (status == 77)
		SKIP(return, "this kernel lets no user make a user namespace");
	EXPECT_EQ(0, status);
}

/* ---- who may do what: each sentence of admin-guide.rst ---- */

#define NPAGES 130UL

/* Two users who share nothing: each is a process of its own, forked from root's. */
FIXTURE(users)
{
	int dev, pair[2];
	int slot, log;		/* Alice's, in root's hands to be passed on */
	__u32 id;
};

FIXTURE_SETUP(users)
{
	self->dev = test_device();
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, self->pair));
	become(ALICE);
	self->slot = test_slot_create(self->dev, "alice's",
				      NPAGES << DIRTYTRACK_PAGE_SHIFT, &self->id);
	self->log = test_log_create(self->slot, 0);
	become(0);
}

FIXTURE_TEARDOWN(users)
{
	close(self->pair[0]);
	close(self->pair[1]);
	close(self->log);
	close(self->slot);
	close(self->dev);
}

/* Nothing that root holds is left to the child but a device of its own. */
#define as_stranger(uid, ...)						\
	as_user(uid, {							\
		close(self->dev);					\
		close(self->slot);					\
		close(self->log);					\
		self->dev = test_device();				\
		__VA_ARGS__;						\
	})

static bool sees_slot(int dev, __u32 id)
{
	int fd, by_id = _test_slot_open(dev, id, &fd);

	if (!by_id)
		close(fd);
	/* Listing and opening follow one rule. */
	if (!by_id != test_slot_listed(dev, id))
		dt_broken("slot %u is %slisted, and opens with %d", id,
			  by_id ? "" : "not ", by_id);
	return !by_id;
}

TEST_F(users, anyone_makes_slots)
{
	static const uid_t users[] = { ALICE, BOB };
	struct stat st;

	ASSERT_EQ(0, stat(DIRTYTRACK_DEVICE, &st));
	EXPECT_EQ(0666, st.st_mode & 07777);
	for (size_t i = 0; i < ARRAY_SIZE(users); i++)
		as_stranger(users[i], {
			int slot = test_slot_create(self->dev, "own", PAGE_SIZE, NULL);

			ASSERT_EQ(0, fstat(slot, &st));
			EXPECT_EQ(S_IFREG | 0600, st.st_mode);
			EXPECT_EQ(users[i], st.st_uid);
			EXPECT_EQ(users[i], st.st_gid);
			close(test_log_create(slot, 0));
		});
}

TEST_F(users, owner_lists_and_opens)
{
	as_stranger(ALICE, {
		EXPECT_TRUE(sees_slot(self->dev, self->id));
		EXPECT_SLOT(self->id, test_slot_open_name(self->dev, "alice's"));
	});
	as_stranger(BOB, {
		EXPECT_FALSE(sees_slot(self->dev, self->id));
		test_err_slot_open(EACCES, self->dev, self->id);
		test_err_slot_open_name(ENOENT, self->dev, "alice's");
	});
}

/* What is left to a process whose identity has changed. */
static void set_capabilities(__u64 caps)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = caps, .permitted = caps },
		{ .effective = caps >> 32, .permitted = caps >> 32 },
	};

	if (syscall(SYS_capset, &header, data))
		dt_broken("capset: %s", strerror(errno));
}

/* The capability counts, not that the uid is 0. */
TEST_F(users, cap_sys_admin_lists_and_opens)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (prctl(PR_SET_KEEPCAPS, 1))
			dt_broken("PR_SET_KEEPCAPS: %s", strerror(errno));
		become_for_good(BOB);
		EXPECT_FALSE(sees_slot(self->dev, self->id));
		set_capabilities(1ULL << CAP_SYS_ADMIN);
		EXPECT_TRUE(sees_slot(self->dev, self->id));
		EXPECT_SLOT(self->id, test_slot_open_name(self->dev, "alice's"));
		/* It does not bypass the mode of the file. */
		EXPECT_ERRNO(EACCES, test_reopen(self->slot, O_RDWR));
		_exit(!_metadata->passed);
	}
	EXPECT_EQ(0, test_wait(pid));

	as_user(0, {
		EXPECT_TRUE(sees_slot(self->dev, self->id));
		set_capabilities(1ULL << CAP_DAC_OVERRIDE);
		EXPECT_FALSE(sees_slot(self->dev, self->id));
		test_err_slot_open_name(ENOENT, self->dev, "alice's");
	});
}

/* File permissions decide on /proc/PID/fd: of one's own fds and of others'. */
TEST_F(users, proc_fd)
{
	static const mode_t modes[] = { 0600, 0644, 0666 };
	char path[64];

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		bool read = modes[i] & 04, write = (modes[i] & 06) == 06;

		ASSERT_EQ(0, fchmod(self->slot, modes[i]));
		as_user(ALICE, {
			EXPECT_LE(0, test_reopen(self->slot, O_RDWR));
		});
		as_user(BOB, {
			EXPECT_EQ(read, test_reopen(self->slot, O_RDONLY) >= 0);
			EXPECT_EQ(write, test_reopen(self->slot, O_RDWR) >= 0);
			/* Others' modes are for files: SLOT_OPEN is for the owner. */
			EXPECT_FALSE(sees_slot(self->dev, self->id));
		});
	}
	/* Of a process that one may not look into, not even the fds are seen. */
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), self->slot);
	as_stranger(BOB, {
		EXPECT_ERRNO(EACCES, open(path, O_RDWR));
	});
	/* A log has no owner and no path: nobody opens it again. */
	as_user(ALICE, {
		EXPECT_GT(0, test_reopen(self->log, O_RDWR));
	});
	as_user(0, {
		EXPECT_ERRNO(ENXIO, test_reopen(self->log, O_RDWR));
		EXPECT_ERRNO(ENXIO, test_reopen(self->log, O_RDONLY));
	});
}

/* Writes, reads, maps and makes a log: all that a slot is for. */
static void use_slot(struct __test_metadata *_metadata, int slot)
{
	__u64 got[bitmap_words(NPAGES)];
	int log = test_log_create(slot, DIRTYTRACK_LOG_ALL_SET);
	char *map = test_map(slot, 0, NPAGES), byte;

	memset(got, 0, sizeof(got));
	page_write(map, 5, 'm');
	EXPECT_EQ(1, pwrite(slot, "f", 1, 99 << DIRTYTRACK_PAGE_SHIFT));
	EXPECT_EQ(1, pread(slot, &byte, 1, 5 << DIRTYTRACK_PAGE_SHIFT));
	EXPECT_EQ('m', byte);
	EXPECT_EQ('f', page_read(map, 99));
	EXPECT_LE(2, test_harvest_all(log, 0, 0, NPAGES, got, 0));
	EXPECT_TRUE(bit_test(got, 5) && bit_test(got, 99));
	close(log);
	test_unmap(map, NPAGES);
}

/*
 * With mode 0 a slot is out of reach of other processes of its owner; who is given an
 * fd has it, and who has CAP_SYS_ADMIN.
 */
TEST_F(users, mode_0_leaves_fds)
{
	ASSERT_EQ(0, fchmod(self->slot, 0));
	as_stranger(ALICE, {
		EXPECT_FALSE(sees_slot(self->dev, self->id));
		test_err_slot_open_name(ENOENT, self->dev, "alice's");
		/* The name is still taken. */
		test_err_slot_create(EEXIST, self->dev, "alice's", PAGE_SIZE);
	});
	as_user(ALICE, {
		EXPECT_ERRNO(EACCES, test_reopen(self->slot, O_RDONLY));
		EXPECT_ERRNO(EACCES, test_reopen(self->slot, O_RDWR));
	});
	send_fd(self->pair[0], self->slot);
	as_stranger(BOB, {
		use_slot(_metadata, receive_fd(self->pair[1]));
		EXPECT_FALSE(sees_slot(self->dev, self->id));
	});
	EXPECT_TRUE(sees_slot(self->dev, self->id));
}

/* Who has an fd can use it, however he got it; but it is not his. */
TEST_F(users, fd_that_was_passed)
{
	send_fd(self->pair[0], self->slot);
	as_stranger(BOB, {
		int slot = receive_fd(self->pair[1]);

		use_slot(_metadata, slot);
		EXPECT_EQ(0, fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				       0, PAGE_SIZE));
		EXPECT_ERRNO(EACCES, test_reopen(slot, O_RDONLY));
		EXPECT_ERRNO(EPERM, fchmod(slot, 0666));
		EXPECT_ERRNO(EPERM, fchown(slot, BOB, -1));
		EXPECT_FALSE(sees_slot(self->dev, self->id));
	});
}

/* A log needs a slot fd that is open for writing, and so does a mapping. */
TEST_F(users, reader_makes_no_log)
{
	int reader = test_reopen(self->slot, O_RDONLY);

	ASSERT_LE(0, reader);
	send_fd(self->pair[0], reader);
	close(reader);
	ASSERT_EQ(0, fchmod(self->slot, 0644));
	as_stranger(BOB, {
		struct dirtytrack_slot_info info;
		int slot = receive_fd(self->pair[1]);
		char byte;

		EXPECT_EQ(1, pread(slot, &byte, 1, 0));
		test_slot_info(slot, &info);
		EXPECT_EQ(self->id, info.out_id);
		EXPECT_EQ(ALICE, info.out_uid);
		test_err_log_create(EBADF, slot, 0);
		test_err_log_create(EBADF, slot, DIRTYTRACK_LOG_ALL_SET);
		EXPECT_ERRNO(EBADF, pwrite(slot, "x", 1, 0));
		errno = 0;
		EXPECT_EQ(MAP_FAILED, mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, slot, 0));
		EXPECT_EQ(EACCES, errno);
		/* Nor does the way back to writing lead through /proc. */
		EXPECT_ERRNO(EACCES, test_reopen(slot, O_RDWR));
	});
}

#define LIMIT 1000000

static void set_limit(struct __test_metadata *_metadata, int log, __u64 rate)
{
	struct dirtytrack_limit arg = { .size = sizeof(arg), .rate = rate };

	EXPECT_EQ(0, dt_ioctl(log, DIRTYTRACK_LOG_LIMIT, &arg));
}

/* Who has the log's fd can harvest, and do all else that a log is for. */
TEST_F(users, log_that_was_passed)
{
	struct dirtytrack_slot_info slot;
	__u64 got[bitmap_words(NPAGES)];

	for (int round = 0; round < 2; round++)
		send_fd(self->pair[0], self->log);
	for (int round = 0; round < 2; round++) {
		as_user(ALICE, {
			EXPECT_EQ(1, pwrite(self->slot, "a", 1, round * PAGE_SIZE));
			EXPECT_EQ(1, pwrite(self->slot, "a", 1, 70 * PAGE_SIZE));
		});
		as_stranger(BOB, {
			struct dirtytrack_log_info info;
			struct dirtytrack_range range = { 70, 1 };
			int log = receive_fd(self->pair[1]), fd;
			__u64 pages;
			void *map;

			test_log_info(log, &info);
			EXPECT_EQ(self->id, info.out_slot_id);
			map = mmap(NULL, info.out_bitmap_size, PROT_READ, MAP_SHARED, log,
				   info.out_bitmap_offset);
			ASSERT_NE(MAP_FAILED, map);
			memset(got, 0, sizeof(got));
			EXPECT_EQ(2, test_harvest_all(log, DIRTYTRACK_HARVEST_PEEK, 0,
						      NPAGES, got, 0));
			EXPECT_EQ(0, memcmp(map, got, sizeof(got)));
			EXPECT_EQ(0, _test_ranges_all(log, DIRTYTRACK_LOG_CLEAR_RANGES,
						      &range, 1, &pages));
			EXPECT_EQ(1, pages);
			memset(got, 0, sizeof(got));
			EXPECT_EQ(1, test_harvest_all(log, 0, 0, NPAGES, got, 0));
			EXPECT_TRUE(bit_test(got, round));
			EXPECT_EQ(0, _test_ranges_all(log, DIRTYTRACK_LOG_MERGE_RANGES,
						      &range, 1, &pages));
			set_limit(_metadata, log, LIMIT);
			/* From a log there is no way to the slot. */
			EXPECT_ERRNO(ENOTTY, _test_log_create(log, 0, &fd));
			EXPECT_FALSE(sees_slot(self->dev, info.out_slot_id));
			EXPECT_GT(0, pread(log, got, sizeof(__u64), 0));
			munmap(map, info.out_bitmap_size);
		});
		/* His limit holds, for the log is not his alone, and can be lifted. */
		test_slot_info(self->slot, &slot);
		EXPECT_EQ(LIMIT, slot.out_rate);
		set_limit(_metadata, self->log, 0);
		/* What he put back is there for the next, who is root. */
		memset(got, 0, sizeof(got));
		EXPECT_EQ(1, test_harvest_all(self->log, 0, 0, NPAGES, got, 0));
		EXPECT_TRUE(bit_test(got, 70));
	}
}

TEST_HARNESS_MAIN
