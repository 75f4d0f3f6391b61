// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file-io.h"

int file_read(int fd, void *buf, size_t count, off_t pos)
{
	char *to = buf;

	while (count) {
		ssize_t n = pread(fd, to, count, pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		to += n;
		pos += n;
		count -= n;
	}
	return 0;
}

int file_write(int fd, const void *buf, size_t count, off_t pos)
{
	const char *from = buf;

	while (count) {
		ssize_t n = pwrite(fd, from, count, pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		from += n;
		pos += n;
		count -= n;
	}
	return 0;
}

int file_punch(int fd, off_t pos, off_t len)
{
	while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pos, len) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

bool file_is_at(int fd, const char *path)
{
	struct stat a, b;

	return !fstat(fd, &a) && !stat(path, &b) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}
