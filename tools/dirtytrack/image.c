// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "image.h"
#include "msg.h"

bool page_is_zero(const void *page)
{
	const uint64_t *word = page;
	const uint64_t *end = word + DTRACK_PAGE_SIZE / sizeof(*word);

	/* A page with data mostly shows it in its first cache line. */
	for (; word < end; word += 8)
		if (word[0] | word[1] | word[2] | word[3] |
		    word[4] | word[5] | word[6] | word[7])
			return false;
	return true;
}

static int check_target(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return 0;
	if (S_ISREG(st.st_mode))
		return 0;
	msg_error("%s: it exists and is not a regular file", path);
	return -EINVAL;
}

/*
 * Open FILE.partial and lock it.  One that is there and not locked was left by a
 * program that was killed, and is used again.  The lock is on the file, the check
 * is that the name still leads to it: whoever removes the name holds the lock.
 */
static int open_partial(const char *partial)
{
	struct stat st, named;
	int fd, ret;

	for (;;) {
		fd = open(partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			  0600);
		if (fd < 0) {
			ret = -errno;
			msg_errno(ret, "%s: cannot create it", partial);
			return ret;
		}
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			ret = -errno;
			if (ret == -EWOULDBLOCK)
				msg_error("%s: another copy is writing it",
					  partial);
			else
				msg_errno(ret, "%s: cannot lock it", partial);
			goto fail;
		}
		if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
			ret = -EINVAL;
			msg_error("%s: it exists and is not a regular file",
				  partial);
			goto fail;
		}
		if (!stat(partial, &named) && named.st_ino == st.st_ino &&
		    named.st_dev == st.st_dev)
			return fd;
		close(fd);
	}
fail:
	close(fd);
	return ret;
}

int image_create(struct image *img, const char *path, uint64_t npages)
{
	int ret = -ENOMEM;

	memset(img, 0, sizeof(*img));
	img->fd = -1;
	img->npages = npages;
	ret = check_target(path);
	if (ret)
		return ret;
	ret = -ENOMEM;
	img->path = strdup(path);
	img->data = dtrack_bitmap_alloc(npages);
	if (!img->path || !img->data ||
	    asprintf(&img->partial, "%s.partial", path) < 0) {
		img->partial = NULL;
		msg_errno(ret, "%s", path);
		goto fail;
	}
	ret = open_partial(img->partial);
	if (ret < 0)
		goto fail;
	img->fd = ret;
	/* To nothing first: what a killed program left there must not stay. */
	if (ftruncate(img->fd, 0) < 0 || fchmod(img->fd, 0600) < 0 ||
	    ftruncate(img->fd, npages * DTRACK_PAGE_SIZE) < 0) {
		ret = -errno;
		msg_errno(ret, "%s: cannot make it %llu bytes long",
			  img->partial,
			  (unsigned long long)(npages * DTRACK_PAGE_SIZE));
		goto fail;
	}
	return 0;

fail:
	image_abort(img);
	return ret;
}

static int write_run(struct image *img, uint64_t first, uint64_t npages,
		     const char *buf)
{
	off_t pos = first * DTRACK_PAGE_SIZE;
	size_t left = npages * DTRACK_PAGE_SIZE;

	/* Before the write: one that fails half way has left data, too. */
	dtrack_bitmap_set(img->data, first, npages);
	while (left) {
		ssize_t n = pwrite(img->fd, buf, left, pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int ret = n ? -errno : -EIO;

			msg_errno(ret, "%s: cannot write", img->partial);
			return ret;
		}
		buf += n;
		pos += n;
		left -= n;
	}
	img->written += npages;
	return 0;
}

static int punch(struct image *img, uint64_t first, uint64_t npages)
{
	static const char zeroes[16 * DTRACK_PAGE_SIZE];
	uint64_t written = img->written;
	int ret = 0;

	if (!fallocate(img->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       first * DTRACK_PAGE_SIZE, npages * DTRACK_PAGE_SIZE)) {
		dtrack_bitmap_clear(img->data, first, npages);
		return 0;
	}
	if (errno != EOPNOTSUPP) {
		ret = -errno;
		msg_errno(ret, "%s: cannot make a hole", img->partial);
		return ret;
	}
	/* A filesystem without holes: what was data becomes zeroes. */
	while (npages && !ret) {
		uint64_t n = npages < 16 ? npages : 16;

		ret = write_run(img, first, n, zeroes);
		first += n;
		npages -= n;
	}
	img->written = written;
	return ret;
}

int image_discard(struct image *img, uint64_t first, uint64_t npages)
{
	uint64_t end = first + npages;
	uint64_t count;

	img->zeroed += npages;
	/* What never had data is a hole already. */
	while ((count = dtrack_bitmap_next_run(img->data, end, &first))) {
		int ret = punch(img, first, count);

		if (ret)
			return ret;
		first += count;
	}
	return 0;
}

int image_write(struct image *img, uint64_t first, uint64_t npages,
		const void *buf)
{
	const char *page = buf;

	while (npages) {
		bool zero = page_is_zero(page);
		uint64_t n = 1;
		int ret;

		while (n < npages &&
		       page_is_zero(page + n * DTRACK_PAGE_SIZE) == zero)
			n++;
		ret = zero ? image_discard(img, first, n) :
			     write_run(img, first, n, page);
		if (ret)
			return ret;
		first += n;
		npages -= n;
		page += n * DTRACK_PAGE_SIZE;
	}
	return 0;
}

int image_read(struct image *img, uint64_t first, uint64_t npages, void *buf)
{
	off_t pos = first * DTRACK_PAGE_SIZE;
	size_t left = npages * DTRACK_PAGE_SIZE;
	char *to = buf;

	while (left) {
		ssize_t n = pread(img->fd, to, left, pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int ret = n ? -errno : -EIO;

			msg_errno(ret, "%s: cannot read it back",
				  img->partial);
			return ret;
		}
		to += n;
		pos += n;
		left -= n;
	}
	return 0;
}

int image_next_data(struct image *img, uint64_t page, uint64_t *data)
{
	off_t pos = lseek(img->fd, page * DTRACK_PAGE_SIZE, SEEK_DATA);

	if (pos < 0 && errno != ENXIO) {
		int ret = -errno;

		msg_errno(ret, "%s: cannot find its data", img->partial);
		return ret;
	}
	*data = pos < 0 ? img->npages : pos / DTRACK_PAGE_SIZE;
	return 0;
}

/* Make the name last, too. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd, ret = 0;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return -errno;
	/* Some filesystems have no fsync of directories, and need none. */
	if (fsync(fd) < 0 && errno != EINVAL)
		ret = -errno;
	close(fd);
	return ret;
}

int image_commit(struct image *img)
{
	int ret = 0;

	if (fsync(img->fd) < 0) {
		ret = -errno;
		msg_errno(ret, "%s: cannot bring it to storage", img->partial);
		return ret;
	}
	if (rename(img->partial, img->path) < 0) {
		ret = -errno;
		msg_errno(ret, "%s: cannot rename it to %s", img->partial,
			  img->path);
		return ret;
	}
	ret = sync_directory(img->path);
	if (ret)
		msg_errno(ret, "%s: cannot bring its name to storage",
			  img->path);
	/* The name is given: image_abort() must not take it for a partial one. */
	close(img->fd);
	img->fd = -1;
	return ret;
}

void image_abort(struct image *img)
{
	if (img->fd >= 0) {
		unlink(img->partial);
		close(img->fd);
		img->fd = -1;
	}
	free(img->data);
	free(img->partial);
	free(img->path);
	img->data = NULL;
	img->partial = NULL;
	img->path = NULL;
}
