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
#include "file-io.h"
#include "image.h"
#include "msg.h"

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
	if (!img->path ||
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

int image_open(struct image *img, const char *path)
{
	struct stat st;
	int ret;

	memset(img, 0, sizeof(*img));
	/* It has the one name, also for messages: an abort leaves it. */
	img->named = true;
	img->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (img->fd < 0 || fstat(img->fd, &st) < 0) {
		ret = -errno;
		msg_errno(ret, "%s: cannot open it", path);
		goto fail;
	}
	ret = -EINVAL;
	if (!S_ISREG(st.st_mode) || st.st_size % DTRACK_PAGE_SIZE) {
		msg_error("%s: it is not an image of memory: not a whole number of pages in a regular file",
			  path);
		goto fail;
	}
	img->npages = st.st_size / DTRACK_PAGE_SIZE;
	ret = -ENOMEM;
	img->path = strdup(path);
	img->partial = strdup(path);
	if (img->path && img->partial)
		return 0;
	msg_errno(ret, "%s", path);

fail:
	image_abort(img);
	return ret;
}

int image_write(struct image *img, uint64_t first, uint64_t npages,
		const void *buf)
{
	int ret = file_write(img->fd, buf, npages * DTRACK_PAGE_SIZE,
			     first * DTRACK_PAGE_SIZE);

	if (ret)
		msg_errno(ret, "%s: cannot write", img->partial);
	return ret;
}

int image_discard(struct image *img, uint64_t first, uint64_t npages)
{
	static const char zeroes[16 * DTRACK_PAGE_SIZE];
	int ret = 0;

	if (!fallocate(img->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		       first * DTRACK_PAGE_SIZE, npages * DTRACK_PAGE_SIZE))
		return 0;
	if (errno != EOPNOTSUPP) {
		ret = -errno;
		msg_errno(ret, "%s: cannot make a hole", img->partial);
		return ret;
	}
	/* A filesystem without holes: what was data becomes zeroes. */
	while (npages && !ret) {
		uint64_t n = npages < 16 ? npages : 16;

		ret = image_write(img, first, n, zeroes);
		first += n;
		npages -= n;
	}
	return ret;
}

int image_read(struct image *img, uint64_t first, uint64_t npages, void *buf)
{
	int ret = file_read(img->fd, buf, npages * DTRACK_PAGE_SIZE,
			    first * DTRACK_PAGE_SIZE);

	if (ret)
		msg_errno(ret, "%s: cannot read it back", img->partial);
	return ret;
}

int image_extent(struct image *img, uint64_t page, uint64_t *end, bool *zero)
{
	off_t pos = page * DTRACK_PAGE_SIZE;
	off_t next = lseek(img->fd, pos, SEEK_DATA);

	if (next < 0 && errno == ENXIO)
		next = img->npages * DTRACK_PAGE_SIZE;
	/* Blocks may be smaller than pages: the page with the first data has data. */
	*zero = next >= 0 && next / DTRACK_PAGE_SIZE > page;
	if (!*zero && next >= 0) {
		next = lseek(img->fd, next, SEEK_HOLE);
		if (next >= 0)
			next += DTRACK_PAGE_SIZE - 1;
	}
	if (next < 0) {
		int ret = -errno;

		msg_errno(ret, "%s: cannot find its data", img->partial);
		return ret;
	}
	*end = next / DTRACK_PAGE_SIZE;
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
	img->named = true;
	ret = sync_directory(img->path);
	if (ret)
		msg_errno(ret, "%s: cannot bring its name to storage",
			  img->path);
	/* The name is given: image_abort() must not take it for a partial one. */
	close(img->fd);
	img->fd = -1;
	return ret;
}

void image_revoke(struct image *img)
{
	if (!img->named)
		return;
	unlink(img->path);
	img->named = false;
	/* A name that comes back with the host would be that of what is no image. */
	sync_directory(img->path);
}

void image_abort(struct image *img)
{
	if (img->fd >= 0) {
		if (!img->named)
			unlink(img->partial);
		close(img->fd);
		img->fd = -1;
	}
	free(img->partial);
	free(img->path);
	img->partial = NULL;
	img->path = NULL;
}
