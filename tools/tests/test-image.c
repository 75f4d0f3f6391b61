// SPDX-License-Identifier: GPL-2.0-only
/* The image file: holes, replacement in one step, and nothing left of failures. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../dirtytrack/image.h"
#include "../dirtytrack/msg.h"
#include "../dirtytrack/zero.h"
#include "../lib/dirtytrack.h"
#include "tap.h"

#define PAGE DTRACK_PAGE_SIZE
#define NPAGES 64

static char dir[] = "/tmp/dirtytrack-image.XXXXXX";
static char file[64], partial[64];
static char page[PAGE];

static bool exists(const char *path)
{
	struct stat st;

	return !lstat(path, &st);
}

static void fill(char *buf, char c)
{
	memset(buf, c, PAGE);
}

static void commit_replaces(void)
{
	struct image img;
	struct stat st;
	char got[PAGE];
	int fd;

	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	CHECK_EQ(write(fd, "old", 3), 3);
	close(fd);
	CHECK_EQ(image_create(&img, file, NPAGES), 0);
	fill(page, 'a');
	CHECK_EQ(image_write(&img, 3, 1, page), 0);
	CHECK(!stat(file, &st) && st.st_size == 3);
	CHECK(exists(partial));
	CHECK_EQ(image_commit(&img), 0);
	CHECK(!exists(partial));
	CHECK(!stat(file, &st));
	CHECK_EQ(st.st_size, NPAGES * PAGE);
	/* Guest memory is nobody else's business. */
	CHECK_EQ(st.st_mode & 0777, 0600);
	CHECK(st.st_blocks * 512 < 3 * (long)PAGE);
	image_abort(&img);
	CHECK(exists(file));
	fd = open(file, O_RDONLY);
	CHECK_EQ(pread(fd, got, PAGE, 3 * PAGE), PAGE);
	CHECK(!memcmp(got, page, PAGE));
	close(fd);
	unlink(file);
}

static void abort_removes(void)
{
	struct image img;

	CHECK_EQ(image_create(&img, file, NPAGES), 0);
	fill(page, 'a');
	CHECK_EQ(image_write(&img, 0, 1, page), 0);
	image_abort(&img);
	CHECK(!exists(partial) && !exists(file));
}

static void revoke_removes_what_has_its_name(void)
{
	struct image img, other;

	CHECK_EQ(image_create(&img, file, NPAGES), 0);
	/* Not yet: there is nothing to be removed but what abort removes. */
	image_revoke(&img);
	CHECK(exists(partial));
	CHECK_EQ(image_commit(&img), 0);
	/* Another is being made. */
	CHECK_EQ(image_create(&other, file, NPAGES), 0);
	image_revoke(&img);
	CHECK(!exists(file) && exists(partial));
	image_abort(&img);
	CHECK(exists(partial));
	image_abort(&other);
	CHECK(!exists(partial));
}

static void one_that_is_there_is_read(void)
{
	struct image img;
	char got[PAGE];

	CHECK_EQ(image_open(&img, file), -ENOENT);
	CHECK_EQ(image_open(&img, dir), -EINVAL);
	CHECK_EQ(image_create(&img, file, NPAGES), 0);
	fill(page, 'r');
	CHECK_EQ(image_write(&img, 5, 1, page), 0);
	CHECK_EQ(image_commit(&img), 0);
	image_abort(&img);
	CHECK_EQ(image_open(&img, file), 0);
	CHECK_EQ(img.npages, NPAGES);
	CHECK_EQ(image_read(&img, 5, 1, got), 0);
	CHECK(!memcmp(got, page, PAGE));
	image_abort(&img);
	CHECK(exists(file));
	CHECK_EQ(truncate(file, PAGE + 1), 0);
	CHECK_EQ(image_open(&img, file), -EINVAL);
	unlink(file);
}

/* Where what image_extent() says of page @from ends. */
static uint64_t extent_end(struct image *img, uint64_t from, bool *zero)
{
	uint64_t end = 0;

	return image_extent(img, from, &end, zero) ? 0 : end;
}

static void discarded_pages_are_holes(void)
{
	struct image img;
	struct stat st;
	char buf[4 * PAGE];
	bool zero;

	CHECK_EQ(image_create(&img, file, NPAGES), 0);
	memset(buf, 'x', sizeof(buf));
	CHECK_EQ(image_write(&img, 8, 4, buf), 0);
	CHECK_EQ(image_discard(&img, 9, 2), 0);
	CHECK_EQ(extent_end(&img, 0, &zero), 8);
	CHECK(zero);
	CHECK_EQ(extent_end(&img, 8, &zero), 9);
	CHECK(!zero);
	CHECK_EQ(extent_end(&img, 9, &zero), 11);
	CHECK(zero);
	CHECK_EQ(extent_end(&img, 11, &zero), 12);
	CHECK(!zero);
	CHECK_EQ(extent_end(&img, 12, &zero), NPAGES);
	CHECK(zero);
	CHECK_EQ(image_read(&img, 9, 1, buf), 0);
	CHECK(page_is_zero(buf));
	CHECK_EQ(image_discard(&img, 0, NPAGES), 0);
	CHECK(!fstat(img.fd, &st));
	CHECK_EQ(st.st_blocks, 0);
	CHECK_EQ(st.st_size, NPAGES * PAGE);
	image_abort(&img);
}

/* Every byte of a page counts. */
static void zero_test_is_exact(void)
{
	size_t i;

	memset(page, 0, PAGE);
	CHECK(page_is_zero(page));
	for (i = 0; i < PAGE; i++) {
		page[i] = 1;
		CHECK(!page_is_zero(page));
		page[i] = 0;
	}
}

static void two_at_once(void)
{
	struct image a, b;

	CHECK_EQ(image_create(&a, file, NPAGES), 0);
	CHECK_EQ(image_create(&b, file, NPAGES), -EWOULDBLOCK);
	CHECK(strstr(msg_last(), "another copy is writing it"));
	CHECK(exists(partial));
	image_abort(&a);
	CHECK(!exists(partial));
	CHECK_EQ(image_create(&b, file, NPAGES), 0);
	image_abort(&b);
}

/* What a killed program left is used again, and nothing of it stays. */
static void leftover_is_reused(void)
{
	struct image img;
	struct stat st;
	bool zero;
	int fd;

	fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	fill(page, 'z');
	CHECK_EQ(pwrite(fd, page, PAGE, 5 * PAGE), PAGE);
	CHECK_EQ(ftruncate(fd, 2 * NPAGES * PAGE), 0);
	close(fd);
	CHECK_EQ(image_create(&img, file, NPAGES), 0);
	CHECK(!fstat(img.fd, &st));
	CHECK_EQ(st.st_size, NPAGES * PAGE);
	CHECK_EQ(st.st_mode & 0777, 0600);
	CHECK_EQ(extent_end(&img, 0, &zero), NPAGES);
	CHECK(zero);
	image_abort(&img);
}

static void targets_that_are_no_files(void)
{
	struct image img;

	CHECK_EQ(image_create(&img, "/dev/null", NPAGES), -EINVAL);
	CHECK(strstr(msg_last(), "not a regular file"));
	CHECK_EQ(image_create(&img, dir, NPAGES), -EINVAL);
	CHECK_EQ(image_create(&img, "/nonexistent/dir/file", NPAGES), -ENOENT);
	CHECK(strstr(msg_last(), "/nonexistent/dir/file.partial"));
	/* A link there must not lead the image elsewhere. */
	CHECK_EQ(symlink("/tmp/elsewhere", partial), 0);
	CHECK_EQ(image_create(&img, file, NPAGES), -ELOOP);
	unlink(partial);
	CHECK(!exists("/tmp/elsewhere"));
}

static void file_size_limit(void)
{
	struct rlimit old, small = { .rlim_cur = 8 * PAGE };
	struct image img;
	int created;

	getrlimit(RLIMIT_FSIZE, &old);
	small.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &small);
	created = image_create(&img, file, NPAGES);
	setrlimit(RLIMIT_FSIZE, &old);
	CHECK_EQ(created, -EFBIG);
	CHECK(!exists(partial));
}

/* In a child with a mount namespace of its own: a full filesystem. */
static int fill_tmpfs(void)
{
	struct image img;
	unsigned int i;
	int ret = 0;

	if (unshare(CLONE_NEWNS) < 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0, "size=32k") < 0)
		return 2;
	if (image_create(&img, file, NPAGES))
		return 3;
	fill(page, 'f');
	for (i = 0; i < NPAGES && !ret; i++)
		ret = image_write(&img, i, 1, page);
	if (ret != -ENOSPC || !strstr(msg_last(), "No space left"))
		return 4;
	image_abort(&img);
	return exists(partial) || exists(file) ? 5 : 0;
}

static void full_disk(void)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid)
		_exit(fill_tmpfs());
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(commit_replaces),
		TAP_TEST(abort_removes),
		TAP_TEST(revoke_removes_what_has_its_name),
		TAP_TEST(one_that_is_there_is_read),
		TAP_TEST(discarded_pages_are_holes),
		TAP_TEST(zero_test_is_exact),
		TAP_TEST(two_at_once),
		TAP_TEST(leftover_is_reused),
		TAP_TEST(targets_that_are_no_files),
		TAP_TEST(file_size_limit),
		TAP_TEST(full_disk),
	};
	int ret;

	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	snprintf(file, sizeof(file), "%s/image", dir);
	snprintf(partial, sizeof(partial), "%s/image.partial", dir);
	msg_silence();
	ret = tap_run(tests, sizeof(tests) / sizeof(*tests));
	rmdir(dir);
	return ret;
}
