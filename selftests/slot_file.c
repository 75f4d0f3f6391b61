// SPDX-License-Identifier: GPL-2.0-only
/*
 * A slot as a file: what programs that know nothing of slots do to one.
 *
 * Content is compared with a plain buffer that gets the same writes, and after
 * each way of writing the log is asked for exactly the pages written.
 */
#include <setjmp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <linux/falloc.h>

#include "dirtytrack_test.h"

#define NPAGES 40
#define SIZE (NPAGES * PAGE_SIZE)
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

FIXTURE(file)
{
	int dev, slot, log;
	__u32 id;
	char *want;		/* what the slot should hold */
	char *buf;
};

FIXTURE_SETUP(file)
{
	self->dev = test_device();
	self->slot = test_slot_create(self->dev, "file", SIZE, &self->id);
	self->log = test_log_create(self->slot, 0);
	self->want = calloc(1, SIZE);
	self->buf = malloc(SIZE);
	ASSERT_TRUE(self->want && self->buf);
}

FIXTURE_TEARDOWN(file)
{
	free(self->want);
	free(self->buf);
	close(self->log);
	close(self->slot);
	close(self->dev);
}

/* Takes the log; the arguments are all pages that are in it. */
#define EXPECT_DIRTY(...) do {						\
	const int _pages[] = { __VA_ARGS__ };				\
	__u64 _want = 0, _map = 0;					\
									\
	for (size_t _i = 0; _i < ARRAY_SIZE(_pages); _i++)		\
		_want |= 1ULL << _pages[_i];				\
	test_harvest_all(self->log, 0, 0, NPAGES, &_map, 0);		\
	EXPECT_EQ(_want, _map) {					\
		TH_LOG("pages %#llx, not %#llx", _map, _want);		\
	}								\
} while (0)

#define EXPECT_CLEAN() do {						\
	__u64 _map = 0;							\
									\
	test_harvest_all(self->log, 0, 0, NPAGES, &_map, 0);		\
	EXPECT_EQ(0, _map);						\
} while (0)

/* The whole slot, as read(2) sees it. */
#define EXPECT_CONTENT() do {						\
	memset(self->buf, 0x77, SIZE);					\
	EXPECT_EQ(SIZE, (size_t)pread(self->slot, self->buf, SIZE, 0));	\
	EXPECT_EQ(0, memcmp(self->want, self->buf, SIZE));		\
} while (0)

static void fill(char *p, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		p[i] = (seed = seed * 1103515245 + 12345) >> 16 | 1;
}

/* ---- what it looks like ---- */

TEST_F(file, stat)
{
	struct statfs fs;
	struct stat st;
	char *map;

	ASSERT_EQ(0, fstat(self->slot, &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	EXPECT_EQ(0600, st.st_mode & 07777);
	EXPECT_EQ(geteuid(), st.st_uid);
	EXPECT_EQ(SIZE, (size_t)st.st_size);
	EXPECT_EQ(0, st.st_blocks);
	EXPECT_EQ(PAGE_SIZE, (size_t)st.st_blksize);

	map = test_map(self->slot, 0, NPAGES);
	page_write(map, 0, 1);
	page_write(map, 9, 1);
	page_read(map, 11);
	ASSERT_EQ(1, pwrite(self->slot, "x", 1, 20 * PAGE_SIZE));
	ASSERT_EQ(0, fstat(self->slot, &st));
	EXPECT_EQ(4 * PAGE_SIZE / 512, (size_t)st.st_blocks);
	EXPECT_EQ(4, test_resident(self->slot));
	EXPECT_EQ(SIZE, (size_t)st.st_size);
	test_unmap(map, NPAGES);

	ASSERT_EQ(0, fstatfs(self->slot, &fs));
	EXPECT_EQ(PAGE_SIZE, (size_t)fs.f_bsize);
}

TEST_F(file, name_in_proc)
{
	char path[64], link[64], want[64], line[512];
	bool found = false;
	char *map;
	ssize_t n;
	int fd;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->slot);
	n = readlink(path, link, sizeof(link) - 1);
	ASSERT_LT(0, n);
	link[n] = 0;
	EXPECT_STREQ("/dirtytrack:file", link);

	map = test_map(self->slot, 0, NPAGES);
	f = fopen("/proc/self/maps", "r");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f))
		found |= !!strstr(line, "/dirtytrack:file");
	fclose(f);
	EXPECT_TRUE(found);
	test_unmap(map, NPAGES);

	fd = test_slot_create(self->dev, NULL, PAGE_SIZE, &self->id);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link) - 1);
	ASSERT_LT(0, n);
	link[n] = 0;
	snprintf(want, sizeof(want), "/dirtytrack:#%u", self->id);
	EXPECT_STREQ(want, link);
	close(fd);
}

/* The value of a key of /proc/self/fdinfo, or -1. */
static long long fdinfo(int fd, const char *key)
{
	char path[64], line[256];
	long long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "r");
	if (!f)
		dt_broken("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':' &&
		    line[strlen(key) + 1] == '\t')
			value = atoll(line + strlen(key) + 2);
	fclose(f);
	return value;
}

TEST_F(file, fdinfo)
{
	__u64 seen;

	ASSERT_EQ(1, pwrite(self->slot, "x", 1, 3 * PAGE_SIZE));
	ASSERT_EQ(1, pwrite(self->slot, "x", 1, 8 * PAGE_SIZE));
	EXPECT_EQ(self->id, fdinfo(self->slot, "slot_id"));
	EXPECT_EQ(NPAGES, fdinfo(self->slot, "slot_pages"));
	EXPECT_EQ(2, fdinfo(self->slot, "slot_resident"));
	EXPECT_EQ(1, fdinfo(self->slot, "slot_logs"));

	EXPECT_EQ(self->id, fdinfo(self->log, "slot_id"));
	EXPECT_EQ(NPAGES, fdinfo(self->log, "log_pages"));
	test_harvest_all(self->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, &seen, 0);
	EXPECT_EQ(2, fdinfo(self->log, "log_dirty"));
	test_harvest_all(self->log, 0, 0, NPAGES, &seen, 0);
	EXPECT_EQ(0, fdinfo(self->log, "log_dirty"));
	EXPECT_EQ(1, fdinfo(self->log, "log_harvests"));
	EXPECT_EQ(2, fdinfo(self->log, "log_reported"));
}

TEST_F(file, attributes)
{
	const struct timespec times[2] = { { 1, 0 }, { 2, 0 } };
	struct stat st;

	ASSERT_EQ(0, fchmod(self->slot, 0640));
	ASSERT_EQ(0, fchown(self->slot, 1234, 5678));
	ASSERT_EQ(0, futimens(self->slot, times));
	ASSERT_EQ(0, fstat(self->slot, &st));
	EXPECT_EQ(0640, st.st_mode & 07777);
	EXPECT_EQ(1234, st.st_uid);
	EXPECT_EQ(5678, st.st_gid);
	EXPECT_EQ(2, st.st_mtime);
	EXPECT_EQ(SIZE, (size_t)st.st_size);
	EXPECT_CLEAN();
}

/* ---- read and write ---- */

/* Reading tells nothing apart from the content: no page is made for it. */
TEST_F(file, read_hole)
{
	EXPECT_CONTENT();
	EXPECT_EQ(0, test_resident(self->slot));
	EXPECT_EQ(0, pread(self->slot, self->buf, 1, SIZE));
	EXPECT_EQ(0, pread(self->slot, self->buf, SIZE, SIZE));
	EXPECT_EQ(0, pread(self->slot, self->buf, 1, SIZE + 12345));
	EXPECT_EQ(100, pread(self->slot, self->buf, SIZE, SIZE - 100));
	EXPECT_ERRNO(EINVAL, pread(self->slot, self->buf, 1, -1));
	EXPECT_CLEAN();

	/* A file position, moved by what was read. */
	EXPECT_EQ(5000, read(self->slot, self->buf, 5000));
	EXPECT_EQ(5000, lseek(self->slot, 0, SEEK_CUR));
	EXPECT_EQ(SIZE - 5000, (size_t)read(self->slot, self->buf, SIZE));
	EXPECT_EQ(0, read(self->slot, self->buf, SIZE));
}

TEST_F(file, pwrite)
{
	static const struct {
		int at, size;
		int pages[4];
	} writes[] = {
		{ 0, 1, { 0, -1 } },
		{ 4095, 1, { 0, -1 } },
		{ 4095, 2, { 0, 1, -1 } },
		{ 4096, 4096, { 1, -1 } },
		{ 8192, 8192, { 2, 3, -1 } },
		{ 20000, 5000, { 4, 5, 6, -1 } },
		{ 8191, 4098, { 1, 2, 3, -1 } },
		{ SIZE - 1, 1, { NPAGES - 1, -1 } },
		{ SIZE - 4097, 4097, { NPAGES - 2, NPAGES - 1, -1 } },
		{ 12288, 0, { -1 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(writes); i++) {
		__u64 want = 0, seen = 0;

		fill(self->want + writes[i].at, writes[i].size, i);
		ASSERT_EQ(writes[i].size,
			  pwrite(self->slot, self->want + writes[i].at,
				 writes[i].size, writes[i].at));
		for (const int *p = writes[i].pages; *p >= 0; p++)
			want |= 1ULL << *p;
		test_harvest_all(self->log, 0, 0, NPAGES, &seen, 0);
		EXPECT_EQ(want, seen) {
			TH_LOG("write %zu", i);
		}
		EXPECT_CONTENT();
	}
	EXPECT_CLEAN();
}

TEST_F(file, vectors)
{
	char a[100], b[5000], c[1];
	struct iovec iov[4] = {
		{ a, sizeof(a) }, { NULL, 0 }, { b, sizeof(b) }, { c, sizeof(c) },
	};
	const size_t sum = sizeof(a) + sizeof(b) + sizeof(c), at = 3 * PAGE_SIZE - 50;

	fill(a, sizeof(a), 1);
	fill(b, sizeof(b), 2);
	fill(c, sizeof(c), 3);
	ASSERT_EQ(sum, (size_t)pwritev(self->slot, iov, 4, at));
	memcpy(self->want + at, a, sizeof(a));
	memcpy(self->want + at + sizeof(a), b, sizeof(b));
	memcpy(self->want + at + sizeof(a) + sizeof(b), c, sizeof(c));
	EXPECT_DIRTY(2, 3, 4);
	EXPECT_CONTENT();

	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	memset(c, 0, sizeof(c));
	ASSERT_EQ(sum, (size_t)preadv(self->slot, iov, 4, at));
	EXPECT_EQ(0, memcmp(self->want + at, a, sizeof(a)));
	EXPECT_EQ(0, memcmp(self->want + at + sizeof(a), b, sizeof(b)));
	EXPECT_EQ(self->want[at + sum - 1], c[0]);
	EXPECT_CLEAN();

	ASSERT_EQ(10 * PAGE_SIZE, (size_t)lseek(self->slot, 10 * PAGE_SIZE, SEEK_SET));
	ASSERT_EQ(sum, (size_t)writev(self->slot, iov, 4));
	EXPECT_EQ(10 * PAGE_SIZE + sum, (size_t)lseek(self->slot, 0, SEEK_CUR));
	memcpy(self->want + 10 * PAGE_SIZE, self->want + at, sum);
	EXPECT_DIRTY(10, 11);
	EXPECT_CONTENT();
	ASSERT_EQ(10 * PAGE_SIZE, (size_t)lseek(self->slot, 10 * PAGE_SIZE, SEEK_SET));
	memset(b, 0, sizeof(b));
	ASSERT_EQ(sum, (size_t)readv(self->slot, iov, 4));
	EXPECT_EQ(0, memcmp(self->want + at + sizeof(a), b, sizeof(b)));
}

/* A slot does not grow. */
TEST_F(file, write_at_the_end)
{
	struct stat st;

	fill(self->want + SIZE - 100, 100, 1);
	EXPECT_EQ(100, pwrite(self->slot, self->want + SIZE - 100, PAGE_SIZE, SIZE - 100));
	EXPECT_DIRTY(NPAGES - 1);
	EXPECT_ERRNO(ENOSPC, pwrite(self->slot, "x", 1, SIZE));
	EXPECT_ERRNO(ENOSPC, pwrite(self->slot, "x", 1, SIZE + PAGE_SIZE));
	EXPECT_ERRNO(EINVAL, pwrite(self->slot, "x", 1, -1));
	EXPECT_EQ(0, pwrite(self->slot, "x", 0, SIZE));
	EXPECT_CLEAN();
	EXPECT_CONTENT();
	ASSERT_EQ(0, fstat(self->slot, &st));
	EXPECT_EQ(SIZE, (size_t)st.st_size);

	/* Appending is writing at the end. */
	ASSERT_EQ(0, fcntl(self->slot, F_SETFL, O_APPEND));
	EXPECT_ERRNO(ENOSPC, write(self->slot, "x", 1));
	EXPECT_CLEAN();
	EXPECT_CONTENT();
}

/*
 * Memory of the caller that ends early.  What arrived is marked, and what the
 * call says it wrote is what it wrote.
 */
TEST_F(file, memory_faults)
{
	char *guarded = guarded_alloc(1), *end = page_at(guarded, 1);
	ssize_t n;

	fill(guarded, PAGE_SIZE, 1);
	EXPECT_ERRNO(EFAULT, pwrite(self->slot, end, 10, 0));
	EXPECT_ERRNO(EFAULT, pwrite(self->slot, (void *)-4096UL, PAGE_SIZE, 0));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	EXPECT_CONTENT();

	for (int in = 1; in < 200; in += 66) {
		const int at = 5 * PAGE_SIZE - 100;

		n = pwrite(self->slot, end - in, in + 50, at);
		EXPECT_LT(0, n);
		EXPECT_LE(n, in);
		memcpy(self->want + at, end - in, n > 0 ? n : 0);
		EXPECT_CONTENT();
		if (n > 100) {
			EXPECT_DIRTY(4, 5);
		} else {
			EXPECT_DIRTY(4);
		}
	}

	EXPECT_ERRNO(EFAULT, pread(self->slot, end, 10, 0));
	n = pread(self->slot, end - 10, 20, 5 * PAGE_SIZE - 100);
	EXPECT_LT(0, n);
	EXPECT_LE(n, 10);
	EXPECT_EQ(0, memcmp(end - 10, self->want + 5 * PAGE_SIZE - 100,
			    n > 0 ? n : 0));
}

/* From the slot to the slot, through its own mapping, resident or not. */
TEST_F(file, write_from_own_mapping)
{
	char *map = test_map(self->slot, 0, NPAGES);

	ASSERT_EQ(PAGE_SIZE, (size_t)pwrite(self->slot, page_at(map, 3), PAGE_SIZE, 0));
	ASSERT_EQ(PAGE_SIZE, (size_t)pwrite(self->slot, page_at(map, 7), PAGE_SIZE,
					    7 * PAGE_SIZE));
	fill(self->want + 9 * PAGE_SIZE, PAGE_SIZE, 1);
	memcpy(page_at(map, 9), self->want + 9 * PAGE_SIZE, PAGE_SIZE);
	ASSERT_EQ(5000, pwrite(self->slot, page_at(map, 9) + 10, 5000,
			       20 * PAGE_SIZE - 2000));
	memcpy(self->want + 20 * PAGE_SIZE - 2000, self->want + 9 * PAGE_SIZE + 10,
	       PAGE_SIZE - 10);
	EXPECT_DIRTY(0, 7, 9, 19, 20);
	EXPECT_CONTENT();

	/* read(2) into a mapping is a write to the slot by the kernel. */
	ASSERT_EQ(PAGE_SIZE, (size_t)pread(self->slot, page_at(map, 30) + 5, PAGE_SIZE,
					   9 * PAGE_SIZE));
	memcpy(self->want + 30 * PAGE_SIZE + 5, self->want + 9 * PAGE_SIZE, PAGE_SIZE);
	EXPECT_DIRTY(30, 31);
	EXPECT_CONTENT();
	test_unmap(map, NPAGES);
}

TEST_F(file, mapping_and_write_agree)
{
	char *map = test_map(self->slot, 0, NPAGES);

	fill(self->want, SIZE, 3);
	ASSERT_EQ(SIZE, (size_t)pwrite(self->slot, self->want, SIZE, 0));
	EXPECT_EQ(0, memcmp(self->want, map, SIZE));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);

	self->want[PAGE_SIZE] = 'm';
	map[PAGE_SIZE] = 'm';
	EXPECT_DIRTY(1);
	EXPECT_CONTENT();
	/* A page that is writable in a mapping, and marked by the file. */
	map[PAGE_SIZE] = 'n';
	ASSERT_EQ(1, pwrite(self->slot, "f", 1, PAGE_SIZE + 1));
	self->want[PAGE_SIZE] = 'n';
	self->want[PAGE_SIZE + 1] = 'f';
	EXPECT_DIRTY(1);
	EXPECT_CONTENT();
	EXPECT_CLEAN();
	test_unmap(map, NPAGES);
}

/* ---- between files ---- */

static int temporary_file(void)
{
	int fd = memfd_create("plain", MFD_CLOEXEC);

	if (fd < 0)
		dt_broken("memfd_create: %s", strerror(errno));
	return fd;
}

TEST_F(file, sendfile)
{
	int plain = temporary_file();
	off_t from = 3 * PAGE_SIZE - 10;

	fill(self->buf, SIZE, 5);
	ASSERT_EQ(SIZE, (size_t)write(plain, self->buf, SIZE));
	ASSERT_EQ(0, lseek(plain, 0, SEEK_SET));
	memcpy(self->want + PAGE_SIZE, self->buf, 2 * PAGE_SIZE + 7);
	ASSERT_EQ(PAGE_SIZE, (size_t)lseek(self->slot, PAGE_SIZE, SEEK_SET));
	ASSERT_EQ(2 * PAGE_SIZE + 7,
		  (size_t)sendfile(self->slot, plain, NULL, 2 * PAGE_SIZE + 7));
	EXPECT_DIRTY(1, 2, 3);
	EXPECT_CONTENT();

	/* Out of it, over a hole. */
	ASSERT_EQ(0, ftruncate(plain, 0));
	ASSERT_EQ(0, lseek(plain, 0, SEEK_SET));
	ASSERT_EQ(2 * PAGE_SIZE, (size_t)sendfile(plain, self->slot, &from, 2 * PAGE_SIZE));
	EXPECT_EQ(5 * PAGE_SIZE - 10, (size_t)from);
	ASSERT_EQ(2 * PAGE_SIZE, (size_t)pread(plain, self->buf, SIZE, 0));
	EXPECT_EQ(0, memcmp(self->buf, self->want + 3 * PAGE_SIZE - 10, 2 * PAGE_SIZE));
	EXPECT_EQ(3, test_resident(self->slot));
	EXPECT_CLEAN();

	/* And it ends where the slot ends. */
	from = SIZE - 100;
	EXPECT_EQ(100, sendfile(plain, self->slot, &from, PAGE_SIZE));
	EXPECT_EQ(0, sendfile(plain, self->slot, &from, PAGE_SIZE));
	close(plain);
}

TEST_F(file, splice)
{
	off64_t at = 2 * PAGE_SIZE + 100;
	int pipefd[2];
	ssize_t n, sum = 0;

	ASSERT_EQ(0, pipe(pipefd));
	fill(self->want + at, 6000, 6);
	ASSERT_EQ(6000, write(pipefd[1], self->want + at, 6000));
	while (sum < 6000) {
		n = splice(pipefd[0], NULL, self->slot, &at, 6000 - sum, SPLICE_F_MOVE);
		ASSERT_LT(0, n);
		sum += n;
	}
	EXPECT_EQ(2 * PAGE_SIZE + 6100, (size_t)at);
	EXPECT_DIRTY(2, 3);
	EXPECT_CONTENT();

	at = 2 * PAGE_SIZE;
	for (sum = 0; sum < 3 * (ssize_t)PAGE_SIZE; sum += n) {
		n = splice(self->slot, &at, pipefd[1], NULL, 3 * PAGE_SIZE - sum, 0);
		ASSERT_LT(0, n);
		ASSERT_EQ(n, read(pipefd[0], self->buf + sum, n));
	}
	EXPECT_EQ(0, memcmp(self->buf, self->want + 2 * PAGE_SIZE, 3 * PAGE_SIZE));
	EXPECT_EQ(2, test_resident(self->slot));
	EXPECT_CLEAN();
	close(pipefd[0]);
	close(pipefd[1]);
}

/* What a pipe holds of a slot is a moment of it, or a page that stays reported. */
TEST_F(file, splice_and_hold)
{
	off64_t at = 0;
	int pipefd[2];
	char byte;

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_EQ(1, pwrite(self->slot, "1", 1, 0));
	EXPECT_DIRTY(0);
	ASSERT_EQ(1, splice(self->slot, &at, pipefd[1], NULL, 1, 0));
	ASSERT_EQ(0, fallocate(self->slot, PUNCH, 0, PAGE_SIZE));
	ASSERT_EQ(1, pwrite(self->slot, "2", 1, 0));
	ASSERT_EQ(1, read(pipefd[0], &byte, 1));
	EXPECT_EQ('1', byte);
	EXPECT_DIRTY(0);
	EXPECT_CLEAN();
	close(pipefd[0]);
	close(pipefd[1]);
}

TEST_F(file, copy_file_range)
{
	int other = test_new_slot(NPAGES);
	off64_t in = 100, out = 5 * PAGE_SIZE - 100;
	size_t left = 2 * PAGE_SIZE;
	ssize_t n;

	fill(self->buf, SIZE, 8);
	ASSERT_EQ(SIZE, (size_t)pwrite(other, self->buf, SIZE, 0));
	memcpy(self->want + out, self->buf + in, left);
	for (; left; left -= n) {
		n = copy_file_range(other, &in, self->slot, &out, left, 0);
		if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP))
			SKIP(return, "this kernel copies no ranges between such files");
		ASSERT_LT(0, n);
	}
	EXPECT_DIRTY(4, 5, 6);
	EXPECT_CONTENT();
	close(other);
}

/* ---- seek ---- */

TEST_F(file, seek)
{
	EXPECT_EQ(SIZE, (size_t)lseek(self->slot, 0, SEEK_END));
	EXPECT_EQ(SIZE - 1, (size_t)lseek(self->slot, -1, SEEK_END));
	EXPECT_EQ(SIZE - 11, (size_t)lseek(self->slot, -10, SEEK_CUR));
	EXPECT_EQ(7, lseek(self->slot, 7, SEEK_SET));
	EXPECT_ERRNO(EINVAL, lseek(self->slot, -1, SEEK_SET));
	EXPECT_ERRNO(EINVAL, lseek(self->slot, -SIZE - 1, SEEK_END));
	EXPECT_ERRNO(EINVAL, lseek(self->slot, 0, 77));
	EXPECT_EQ(7, lseek(self->slot, 0, SEEK_CUR));
	/* Offsets that do not fit an int. */
	EXPECT_ERRNO(ENXIO, lseek(self->slot, 1LL << 40, SEEK_DATA));
}

/* SEEK_DATA and SEEK_HOLE from @from, as pages of @resident say. */
static off_t seek_want(__u64 resident, off_t from, int whence)
{
	bool data = whence == SEEK_DATA;

	if (from < 0 || from >= (off_t)SIZE)
		return -1;
	for (off_t at = from; at < (off_t)SIZE; at = (at | (PAGE_SIZE - 1)) + 1)
		if ((resident >> at / PAGE_SIZE & 1) == data)
			return at;
	return data ? -1 : (off_t)SIZE;
}

TEST_F(file, seek_data_and_hole)
{
	static const __u64 patterns[] = {
		0, (1ULL << NPAGES) - 1, 1, 1ULL << (NPAGES - 1), 0x5555555555,
		0xaaaaaaaaaa, 0x00ff0000f3, 0xfffffffffe, 0x7fffffffff,
	};

	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		ASSERT_EQ(0, fallocate(self->slot, PUNCH, 0, SIZE));
		for (int p = 0; p < NPAGES; p++)
			if (patterns[i] >> p & 1)
				ASSERT_EQ(1, pwrite(self->slot, "x", 1, p * PAGE_SIZE));
		ASSERT_EQ(bits_count(&patterns[i], NPAGES), test_resident(self->slot));
		for (off_t at = 0; at <= (off_t)SIZE; at += PAGE_SIZE) {
			for (int in = -1; in < 2; in++) {
				const int whence[] = { SEEK_DATA, SEEK_HOLE };

				for (int w = 0; w < 2; w++) {
					off_t want = seek_want(patterns[i], at + in, whence[w]);

					errno = 0;
					ASSERT_EQ(want, lseek(self->slot, at + in, whence[w])) {
						TH_LOG("pattern %#llx, %s from %ld",
						       patterns[i],
						       w ? "hole" : "data", at + in);
					}
					if (want < 0) {
						ASSERT_EQ(ENXIO, errno);
					}
				}
			}
		}
	}
	/* The position is where it arrived. */
	ASSERT_EQ(0, lseek(self->slot, 0, SEEK_SET));
	ASSERT_EQ(0, fallocate(self->slot, PUNCH, 0, 5 * PAGE_SIZE));
	EXPECT_EQ(5 * PAGE_SIZE, (size_t)lseek(self->slot, 0, SEEK_DATA));
	EXPECT_EQ(5 * PAGE_SIZE, (size_t)lseek(self->slot, 0, SEEK_CUR));
}

TEST(seek_far)
{
	const __u64 npages = 1ULL << 22;
	const off_t size = npages * PAGE_SIZE, far = size - 3 * PAGE_SIZE;
	int slot = test_new_slot(npages);

	EXPECT_EQ(0, lseek(slot, 0, SEEK_HOLE));
	EXPECT_ERRNO(ENXIO, lseek(slot, 0, SEEK_DATA));
	ASSERT_EQ(1, pwrite(slot, "x", 1, far));
	EXPECT_EQ(far, lseek(slot, 1, SEEK_DATA));
	EXPECT_EQ(far + (off_t)PAGE_SIZE, lseek(slot, far, SEEK_HOLE));
	EXPECT_EQ(size, lseek(slot, 0, SEEK_END));
	close(slot);
}

/* ---- allocate and punch ---- */

TEST_F(file, punch)
{
	static const struct { off_t at, size; } punches[] = {
		{ 0, PAGE_SIZE },
		{ 2 * PAGE_SIZE, 3 * PAGE_SIZE },
		{ 6 * PAGE_SIZE + 10, 20 },
		{ 7 * PAGE_SIZE - 1, 1 },
		{ 8 * PAGE_SIZE - 1, 2 },
		{ 9 * PAGE_SIZE + 100, PAGE_SIZE - 100 },
		{ 10 * PAGE_SIZE, 100 },
		{ 11 * PAGE_SIZE + 1, 2 * PAGE_SIZE - 2 },
		{ 14 * PAGE_SIZE + 1, 4 * PAGE_SIZE },
		{ SIZE - 100, 1000 },
		{ SIZE - PAGE_SIZE, 100 * PAGE_SIZE },
		{ SIZE, PAGE_SIZE },
		{ SIZE + 123456, 1 },
		{ 20 * PAGE_SIZE, (1LL << 62) },
	};
	char *map = test_map(self->slot, 0, NPAGES);

	fill(self->want, SIZE, 9);
	memcpy(map, self->want, SIZE);
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	for (size_t i = 0; i < ARRAY_SIZE(punches); i++) {
		off_t at = punches[i].at, end = at + punches[i].size;
		__u64 dirty = 0, seen = 0;

		ASSERT_EQ(0, fallocate(self->slot, PUNCH, at, punches[i].size));
		for (off_t o = at; o < end && o < (off_t)SIZE; o++) {
			self->want[o] = 0;
			dirty |= 1ULL << o / PAGE_SIZE;
		}
		test_harvest_all(self->log, 0, 0, NPAGES, &seen, 0);
		/* A hole that is punched again may be reported or not. */
		EXPECT_EQ(dirty & ~(1ULL << (NPAGES - 1)),
			  seen & dirty & ~(1ULL << (NPAGES - 1))) {
			TH_LOG("punch %zu", i);
		}
		EXPECT_EQ(0, seen & ~dirty);
		EXPECT_CONTENT();
		for (int p = 0; p < NPAGES; p++) {
			off_t first = p * PAGE_SIZE, last = first + PAGE_SIZE;

			if (at > first || end < last)
				continue;
			first = lseek(self->slot, first, SEEK_DATA);
			EXPECT_TRUE(first < 0 || first >= last) {
				TH_LOG("page %d is still there", p);
			}
		}
	}
	/* The mapping sees the same, and brings pages back. */
	EXPECT_EQ(0, memcmp(self->want, map, SIZE));
	test_unmap(map, NPAGES);
}

TEST_F(file, punch_counts)
{
	ASSERT_EQ(SIZE, (size_t)pwrite(self->slot, self->want, SIZE, 0));
	EXPECT_EQ(NPAGES, test_resident(self->slot));
	ASSERT_EQ(0, fallocate(self->slot, PUNCH, 3 * PAGE_SIZE - 1, 2 * PAGE_SIZE + 2));
	EXPECT_EQ(NPAGES - 2, test_resident(self->slot));
	ASSERT_EQ(0, fallocate(self->slot, PUNCH, 0, SIZE));
	EXPECT_EQ(0, test_resident(self->slot));
	/* No page is made to zero a part of it. */
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	ASSERT_EQ(0, fallocate(self->slot, PUNCH, 100, 2 * PAGE_SIZE));
	EXPECT_EQ(0, test_resident(self->slot));
	EXPECT_EQ(0, lseek(self->slot, 0, SEEK_HOLE));
	EXPECT_CONTENT();
}

TEST_F(file, preallocate)
{
	fill(self->want + 3 * PAGE_SIZE, PAGE_SIZE, 1);
	ASSERT_EQ(PAGE_SIZE, (size_t)pwrite(self->slot, self->want + 3 * PAGE_SIZE,
					    PAGE_SIZE, 3 * PAGE_SIZE));
	ASSERT_EQ(0, fallocate(self->slot, 0, 2 * PAGE_SIZE, 4 * PAGE_SIZE));
	EXPECT_EQ(4, test_resident(self->slot));
	EXPECT_CONTENT();
	ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_KEEP_SIZE, 10 * PAGE_SIZE - 1, 2));
	EXPECT_EQ(6, test_resident(self->slot));
	EXPECT_EQ(2 * PAGE_SIZE, (size_t)lseek(self->slot, 0, SEEK_DATA));
	EXPECT_EQ(6 * PAGE_SIZE, (size_t)lseek(self->slot, 2 * PAGE_SIZE, SEEK_HOLE));
	ASSERT_EQ(0, posix_fallocate(self->slot, 0, SIZE));
	EXPECT_EQ(NPAGES, test_resident(self->slot));
	EXPECT_CONTENT();

	/* It does not grow. */
	EXPECT_ERRNO(EPERM, fallocate(self->slot, 0, 0, SIZE + 1));
	EXPECT_ERRNO(EPERM, fallocate(self->slot, FALLOC_FL_KEEP_SIZE, SIZE, PAGE_SIZE));
	EXPECT_EQ(NPAGES, test_resident(self->slot));
}

TEST_F(file, fallocate_refused)
{
	static const int modes[] = {
		FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
		FALLOC_FL_UNSHARE_RANGE,
		FALLOC_FL_UNSHARE_RANGE | FALLOC_FL_KEEP_SIZE, 1 << 20,
	};
	int fd = test_reopen(self->slot, O_RDONLY);

	fill(self->want, SIZE, 2);
	ASSERT_EQ(SIZE, (size_t)pwrite(self->slot, self->want, SIZE, 0));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		EXPECT_ERRNO(EOPNOTSUPP, fallocate(self->slot, modes[i], 0, PAGE_SIZE));
	}
	EXPECT_ERRNO(EINVAL, fallocate(self->slot, PUNCH, 0, 0));
	EXPECT_ERRNO(EINVAL, fallocate(self->slot, PUNCH, -1, PAGE_SIZE));
	EXPECT_ERRNO(EBADF, fallocate(fd, PUNCH, 0, PAGE_SIZE));
	EXPECT_CLEAN();
	EXPECT_CONTENT();
	close(fd);
}

TEST_F(file, size_is_fixed)
{
	char path[64];
	struct stat st;
	int fd;

	fill(self->want, SIZE, 4);
	ASSERT_EQ(SIZE, (size_t)pwrite(self->slot, self->want, SIZE, 0));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	EXPECT_ERRNO(EPERM, ftruncate(self->slot, 0));
	EXPECT_ERRNO(EPERM, ftruncate(self->slot, SIZE - 1));
	EXPECT_ERRNO(EPERM, ftruncate(self->slot, SIZE + PAGE_SIZE));
	EXPECT_EQ(0, ftruncate(self->slot, SIZE));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->slot);
	EXPECT_ERRNO(EPERM, truncate(path, 0));
	EXPECT_ERRNO(EPERM, (fd = test_reopen(self->slot, O_RDWR | O_TRUNC)));
	ASSERT_EQ(0, fstat(self->slot, &st));
	EXPECT_EQ(SIZE, (size_t)st.st_size);
	EXPECT_CONTENT();
	EXPECT_CLEAN();
}

TEST_F(file, sync)
{
	char *map = test_map(self->slot, 0, NPAGES);

	page_write(map, 3, 1);
	EXPECT_EQ(0, fsync(self->slot));
	EXPECT_EQ(0, fdatasync(self->slot));
	EXPECT_EQ(0, msync(map, SIZE, MS_SYNC));
	EXPECT_EQ(0, msync(map, SIZE, MS_ASYNC));
	EXPECT_EQ(0, syncfs(self->slot));
	EXPECT_DIRTY(3);
	EXPECT_EQ(1, page_read(map, 3));
	test_unmap(map, NPAGES);
}

/* ---- opening it again ---- */

TEST_F(file, reopen)
{
	int rw = test_reopen(self->slot, O_RDWR), ro = test_reopen(self->slot, O_RDONLY);
	int wo = test_reopen(self->slot, O_WRONLY);
	char *map;
	char c = 0;

	ASSERT_LE(0, rw);
	ASSERT_LE(0, ro);
	ASSERT_LE(0, wo);
	EXPECT_EQ(1, pwrite(rw, "r", 1, 5 * PAGE_SIZE));
	EXPECT_EQ(1, pwrite(wo, "w", 1, 6 * PAGE_SIZE));
	EXPECT_ERRNO(EBADF, pwrite(ro, "o", 1, 7 * PAGE_SIZE));
	EXPECT_ERRNO(EBADF, pread(wo, &c, 1, 7 * PAGE_SIZE));
	EXPECT_EQ(1, pread(ro, &c, 1, 5 * PAGE_SIZE));
	EXPECT_EQ('r', c);
	EXPECT_DIRTY(5, 6);
	map = test_map(rw, 0, NPAGES);
	page_write(map, 8, 1);
	EXPECT_DIRTY(8);
	test_unmap(map, NPAGES);

	/* The slot is its file, whichever fd is left. */
	close(self->slot);
	self->slot = rw;
	EXPECT_TRUE(test_slot_listed(self->dev, self->id));
	close(ro);
	close(wo);
}

TEST_F(file, open_from_another_process)
{
	int ready[2], status;
	char path[64];
	pid_t pid;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int fd;

		/* As a program that inherited nothing. */
		close(self->slot);
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), self->slot);
		fd = open(path, O_RDWR);
		ASSERT_LE(0, fd);
		page_write(test_map(fd, 0, NPAGES), 12, 'c');
		ASSERT_EQ(1, pwrite(fd, "w", 1, 13 * PAGE_SIZE));
		_exit(!_metadata->passed);
	}
	status = test_wait(pid);
	EXPECT_EQ(0, status);
	self->want[12 * PAGE_SIZE] = 'c';
	self->want[13 * PAGE_SIZE] = 'w';
	EXPECT_DIRTY(12, 13);
	EXPECT_CONTENT();
	close(ready[0]);
	close(ready[1]);
}

/* Mode 0600 is looked at. */
TEST_F(file, mode_is_obeyed)
{
	int status;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (setresuid(12345, 12345, 12345) || prctl(PR_SET_DUMPABLE, 1))
			dt_broken("setresuid: %s", strerror(errno));
		EXPECT_ERRNO(EACCES, test_reopen(self->slot, O_RDONLY));
		EXPECT_ERRNO(EACCES, test_reopen(self->slot, O_RDWR));
		_exit(!_metadata->passed);
	}
	status = test_wait(pid);
	EXPECT_EQ(0, status);
}

/* ---- mmap ---- */

#define EXPECT_NO_MAP(err, prot, flags, fd, size, offset) do {		\
	void *_p = mmap(NULL, size, prot, flags, fd, offset);		\
	int _err = errno;						\
									\
	EXPECT_EQ(MAP_FAILED, _p);					\
	EXPECT_EQ(err, _err);						\
} while (0)

/* Writes to a private mapping would be seen by nobody, this module included. */
TEST_F(file, private_is_refused)
{
	EXPECT_NO_MAP(EINVAL, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->slot, SIZE, 0);
	EXPECT_NO_MAP(EINVAL, PROT_READ, MAP_PRIVATE, self->slot, SIZE, 0);
}

TEST_F(file, read_only_fd_is_refused)
{
	int fd = test_reopen(self->slot, O_RDONLY);

	ASSERT_LE(0, fd);
	EXPECT_NO_MAP(EACCES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, SIZE, 0);
	EXPECT_NO_MAP(EACCES, PROT_READ, MAP_SHARED, fd, SIZE, 0);
	EXPECT_NO_MAP(EACCES, PROT_NONE, MAP_SHARED, fd, SIZE, 0);
	close(fd);
}

TEST_F(file, protections)
{
	const int prots[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
	};

	ASSERT_EQ(1, pwrite(self->slot, "p", 1, PAGE_SIZE));
	EXPECT_DIRTY(1);
	for (size_t i = 0; i < ARRAY_SIZE(prots); i++) {
		char *map = mmap(NULL, SIZE, prots[i], MAP_SHARED, self->slot, 0);

		ASSERT_NE(MAP_FAILED, (void *)map) {
			TH_LOG("prot %#x: %s", prots[i], strerror(errno));
		}
		ASSERT_EQ(0, mprotect(map, SIZE, PROT_READ));
		EXPECT_EQ('p', page_read(map, 1));
		ASSERT_EQ(0, mprotect(map, SIZE, PROT_READ | PROT_WRITE));
		EXPECT_CLEAN();
		page_write(map, 2, 1);
		EXPECT_DIRTY(2);
		test_unmap(map, NPAGES);
	}
}

TEST_F(file, no_execution)
{
	char *map;

	EXPECT_NO_MAP(EPERM, PROT_READ | PROT_EXEC, MAP_SHARED, self->slot, SIZE, 0);
	EXPECT_NO_MAP(EPERM, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED,
		      self->slot, SIZE, 0);
	map = test_map(self->slot, 0, NPAGES);
	EXPECT_EQ(-1, mprotect(map, SIZE, PROT_READ | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
	test_unmap(map, NPAGES);
}

TEST_F(file, map_at_offset)
{
	char *map = test_map(self->slot, 10, 5);

	page_write(map, 0, 'a');
	page_write(map, 4, 'b');
	self->want[10 * PAGE_SIZE] = 'a';
	self->want[14 * PAGE_SIZE] = 'b';
	EXPECT_DIRTY(10, 14);
	EXPECT_CONTENT();
	test_unmap(map, 5);
}

static sigjmp_buf bus_env;

static void on_bus(int sig)
{
	siglongjmp(bus_env, sig);
}

/* Touches a byte, and says whether that was a bus error. */
static bool bus_error(char *p, bool write)
{
	struct sigaction action = { .sa_handler = on_bus };

	sigaction(SIGBUS, &action, NULL);
	if (sigsetjmp(bus_env, 1))
		return true;
	if (write)
		*(volatile char *)p = 1;
	else
		(void)*(volatile char *)p;
	return false;
}

TEST_F(file, beyond_the_end)
{
	const off_t far[] = { 0, 1LL << 40, (1LL << 62) };
	char *map = test_map(self->slot, NPAGES - 2, 4);

	EXPECT_FALSE(bus_error(page_at(map, 1) + PAGE_SIZE - 1, true));
	EXPECT_TRUE(bus_error(page_at(map, 2), false));
	EXPECT_TRUE(bus_error(page_at(map, 2), true));
	EXPECT_TRUE(bus_error(page_at(map, 3) + 100, true));
	test_unmap(map, 4);
	for (size_t i = 0; i < ARRAY_SIZE(far); i++) {
		map = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   self->slot, SIZE + far[i]);
		if (map == MAP_FAILED)
			continue;
		EXPECT_TRUE(bus_error(map, false));
		EXPECT_TRUE(bus_error(map, true));
		test_unmap(map, 1);
	}
	EXPECT_DIRTY(NPAGES - 1);
	EXPECT_EQ(1, test_resident(self->slot));
}

/* Memory that broke is given to nobody, and goes with its page. */
TEST_F(file, broken_memory)
{
	char *map = test_map(self->slot, 0, NPAGES), *other;

	memset(map, 1, SIZE);
	/* The kernel knows no such pages, and says so: EBUSY. */
	if (madvise(map + 5 * PAGE_SIZE, PAGE_SIZE, MADV_HWPOISON) && errno == EINVAL)
		SKIP(return, "a kernel without memory failures");
	EXPECT_ERRNO(EIO, pread(self->slot, self->buf, 8, 5 * PAGE_SIZE));
	EXPECT_ERRNO(EIO, pwrite(self->slot, self->buf, 8, 5 * PAGE_SIZE));
	EXPECT_ERRNO(EIO, fallocate(self->slot, PUNCH, 5 * PAGE_SIZE + 8, 8));
	EXPECT_ERRNO(EIO, fallocate(self->slot, PUNCH, 4 * PAGE_SIZE, PAGE_SIZE + 8));
	/* What comes before it is read. */
	EXPECT_EQ(2 * PAGE_SIZE, pread(self->slot, self->buf, 4 * PAGE_SIZE, 3 * PAGE_SIZE));
	other = test_map(self->slot, 0, NPAGES);
	EXPECT_TRUE(bus_error(page_at(other, 5), false));
	EXPECT_FALSE(bus_error(page_at(other, 6), false));

	EXPECT_EQ(0, fallocate(self->slot, PUNCH, 5 * PAGE_SIZE, PAGE_SIZE));
	EXPECT_EQ(8, pread(self->slot, self->buf, 8, 5 * PAGE_SIZE));
	EXPECT_FALSE(bus_error(page_at(other, 5), false));
	EXPECT_EQ(NPAGES, test_resident(self->slot));
	test_unmap(other, NPAGES);
	test_unmap(map, NPAGES);
}

TEST_F(file, populate)
{
	char *map;

	map = mmap(NULL, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_POPULATE, self->slot, 0);
	ASSERT_NE(MAP_FAILED, (void *)map);
	EXPECT_EQ(4, test_resident(self->slot));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	page_write(map, 1, 1);
	EXPECT_DIRTY(1);
	test_unmap(map, 4);

	map = test_map(self->slot, 10, 4);
	ASSERT_EQ(0, mlock(map, 4 * PAGE_SIZE)) {
		TH_LOG("mlock: %s", strerror(errno));
	}
	EXPECT_EQ(8, test_resident(self->slot));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	page_write(map, 2, 1);
	EXPECT_DIRTY(12);
	ASSERT_EQ(0, munlock(map, 4 * PAGE_SIZE));
	page_write(map, 3, 1);
	EXPECT_DIRTY(13);
	test_unmap(map, 4);
}

/* How QEMU takes memory: reserve, map over it, advise and not mind the answers. */
TEST_F(file, as_qemu_does)
{
	static const int advice[] = {
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_DOFORK,
		MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTDUMP, MADV_DODUMP,
		MADV_WILLNEED, MADV_RANDOM, MADV_NORMAL,
	};
	char *area, *map;

	EXPECT_EQ(SIZE, (size_t)lseek(self->slot, 0, SEEK_END));
	area = mmap(NULL, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)area);
	map = mmap(area + PAGE_SIZE, SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, self->slot, 0);
	ASSERT_EQ((void *)(area + PAGE_SIZE), (void *)map);
	fill(self->want, SIZE, 11);
	memcpy(map, self->want, SIZE);
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	for (size_t i = 0; i < ARRAY_SIZE(advice); i++) {
		madvise(map, SIZE, advice[i]);
		EXPECT_EQ(0, memcmp(self->want, map, SIZE));
		EXPECT_CLEAN();
		page_write(map, i, ++self->want[i * PAGE_SIZE]);
		EXPECT_DIRTY(i);
	}
	munmap(area, 2 * SIZE);
	EXPECT_CONTENT();
}

/* What drops page tables drops no page, and no write. */
TEST_F(file, madvise_dontneed)
{
	char *map = test_map(self->slot, 0, NPAGES);

	fill(self->want, 3 * PAGE_SIZE, 12);
	memcpy(map, self->want, 3 * PAGE_SIZE);
	ASSERT_EQ(0, madvise(map, SIZE, MADV_DONTNEED));
	EXPECT_DIRTY(0, 1, 2);
	EXPECT_EQ(3, test_resident(self->slot));
	EXPECT_EQ(0, memcmp(self->want, map, SIZE));
	EXPECT_CLEAN();
	EXPECT_ERRNO(EINVAL, madvise(map, SIZE, MADV_FREE));
	madvise(map, SIZE, MADV_COLD);
	madvise(map, SIZE, MADV_PAGEOUT);
	EXPECT_EQ(0, memcmp(self->want, map, SIZE));
	test_unmap(map, NPAGES);
}

TEST_F(file, madvise_remove)
{
	char *map = test_map(self->slot, 0, NPAGES);

	fill(self->want, SIZE, 13);
	memcpy(map, self->want, SIZE);
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	ASSERT_EQ(0, madvise(page_at(map, 5), 3 * PAGE_SIZE, MADV_REMOVE));
	memset(self->want + 5 * PAGE_SIZE, 0, 3 * PAGE_SIZE);
	EXPECT_EQ(NPAGES - 3, test_resident(self->slot));
	EXPECT_DIRTY(5, 6, 7);
	EXPECT_CONTENT();
	EXPECT_EQ(0, memcmp(self->want, map, SIZE));
	test_unmap(map, NPAGES);
}

TEST_F(file, madvise_populate)
{
	char *map = test_map(self->slot, 0, NPAGES);

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
	ASSERT_EQ(0, madvise(map, 2 * PAGE_SIZE, MADV_POPULATE_READ));
	EXPECT_EQ(2, test_resident(self->slot));
	EXPECT_CLEAN();
	ASSERT_EQ(0, madvise(map, 4 * PAGE_SIZE, MADV_POPULATE_WRITE));
	EXPECT_EQ(4, test_resident(self->slot));
	test_harvest_all(self->log, 0, 0, NPAGES, self->buf, 0);
	page_write(map, 0, 1);
	page_write(map, 3, 1);
	EXPECT_DIRTY(0, 3);
	test_unmap(map, NPAGES);
}

/* A mapping cannot be made to reach further than was asked of the slot. */
TEST_F(file, no_expansion)
{
	char *map = test_map(self->slot, 0, 4);
	void *p = mremap(map, 4 * PAGE_SIZE, 8 * PAGE_SIZE, MREMAP_MAYMOVE);

	EXPECT_EQ(MAP_FAILED, p);
	page_write(map, 3, 1);
	EXPECT_DIRTY(3);
	test_unmap(map, 4);
}

/*
 * O_DIRECT: refused, or it works.  A slot is memory and has nothing to bypass;
 * programs that ask for it anyway must not be lied to.
 */
TEST_F(file, o_direct)
{
	char *page = guarded_alloc(1);
	int fd = test_reopen(self->slot, O_RDWR | O_DIRECT);

	if (fd < 0) {
		EXPECT_EQ(EINVAL, errno);
		return;
	}
	fill(page, PAGE_SIZE, 1);
	EXPECT_EQ(PAGE_SIZE, (size_t)pwrite(fd, page, PAGE_SIZE, 2 * PAGE_SIZE));
	memcpy(self->want + 2 * PAGE_SIZE, page, PAGE_SIZE);
	EXPECT_DIRTY(2);
	EXPECT_CONTENT();
	memset(page, 0, PAGE_SIZE);
	EXPECT_EQ(PAGE_SIZE, (size_t)pread(fd, page, PAGE_SIZE, 2 * PAGE_SIZE));
	EXPECT_EQ(0, memcmp(self->want + 2 * PAGE_SIZE, page, PAGE_SIZE));
	close(fd);
}

TEST_HARNESS_MAIN
