// SPDX-License-Identifier: GPL-2.0-only
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chain.h"
#include "image.h"
#include "msg.h"

#define SUFFIX ".qcow2"
#define QCOW2_MAGIC 0x514649fb

/* The part of the header that does not change with versions of the format. */
struct qcow2_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_offset;
	uint32_t backing_len;
	uint32_t cluster_bits;
	uint64_t bytes;
};

static int no_memory(void)
{
	msg_errno(ENOMEM, "versions");
	return -ENOMEM;
}

static bool has_suffix(const char *name)
{
	size_t len = strlen(name);

	return len > strlen(SUFFIX) &&
	       !strcmp(name + len - strlen(SUFFIX), SUFFIX);
}

/* @target as a directory and what is in it. */
static int split(struct chain *c, const char *target, const char *name)
{
	char *copy = strdup(target), *dir;
	struct stat st;
	int ret;

	if (!copy)
		return no_memory();
	if (!stat(target, &st) && S_ISDIR(st.st_mode)) {
		dir = copy;
		c->leaf = strdup(name);
	} else if (has_suffix(target)) {
		copy[strlen(copy) - strlen(SUFFIX)] = '\0';
		c->leaf = strdup(basename(copy));
		/* basename() may have cut it. */
		strcpy(copy, target);
		dir = dirname(copy);
	} else {
		msg_error("%s: it is neither a directory, nor FILE.qcow2, nor an NBD URI",
			  target);
		free(copy);
		return -EINVAL;
	}
	/* Programs that are told of it may be elsewhere. */
	c->dir = realpath(dir, NULL);
	ret = -errno;
	if (!c->dir)
		msg_errno(ret, "%s", dir);
	free(copy);
	if (!c->dir)
		return ret;
	return c->leaf ? 0 : no_memory();
}

static int name_next(struct chain *c)
{
	free(c->file);
	if (asprintf(&c->file, "%s/%s.%u" SUFFIX, c->dir, c->leaf, c->next) >= 0)
		return 0;
	c->file = NULL;
	return no_memory();
}

int chain_init(struct chain *c, const char *target, const char *name)
{
	int ret;

	memset(c, 0, sizeof(*c));
	c->lock = -1;
	ret = split(c, target, name);
	if (ret)
		goto fail;
	if (asprintf(&c->partial, "%s/%s.partial", c->dir, c->leaf) < 0)
		c->partial = NULL;
	if (asprintf(&c->lock_path, "%s/%s.lock", c->dir, c->leaf) < 0)
		c->lock_path = NULL;
	if (c->partial && c->lock_path)
		return 0;
	ret = no_memory();
fail:
	chain_close(c);
	return ret;
}

/*
 * Lock it.  The lock is on the file, the check is that the name still leads to it:
 * whoever removes the name holds the lock.  fd or -errno.
 */
static int take_lock(const char *path)
{
	struct stat st, named;

	for (;;) {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
			      0600), ret;

		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			ret = -errno;
			close(fd);
			return ret;
		}
		if (!fstat(fd, &st) && !lstat(path, &named) &&
		    st.st_ino == named.st_ino && st.st_dev == named.st_dev)
			return fd;
		close(fd);
	}
}

/* Is it a version?  Its number, or -1. */
static int number_of(const struct chain *c, const char *name)
{
	size_t len = strlen(c->leaf);
	char *end;
	long n;

	if (strncmp(name, c->leaf, len) || name[len] != '.')
		return -1;
	name += len + 1;
	if (*name < '0' || *name > '9' || (*name == '0' && name[1] != '.'))
		return -1;
	n = strtol(name, &end, 10);
	return strcmp(end, SUFFIX) || n >= 1000000000 ? -1 : (int)n;
}

/* Not to be mixed with what is of something else. */
static int check_version(const struct chain *c, uint64_t bytes)
{
	struct qcow2_header h = { 0 };
	int fd = open(c->found, O_RDONLY | O_CLOEXEC), ret = 0;
	ssize_t n;

	if (fd < 0) {
		ret = -errno;
		msg_errno(ret, "%s", c->found);
		return ret;
	}
	n = pread(fd, &h, sizeof(h), 0);
	close(fd);
	if (n != (ssize_t)sizeof(h) || be32toh(h.magic) != QCOW2_MAGIC) {
		msg_error("%s: it is in the way: it has the name of a version, and is not a qcow2 image",
			  c->found);
		return -EEXIST;
	}
	if (be64toh(h.bytes) == bytes)
		return 0;
	msg_error("%s: it is of a slot of %" PRIu64 " bytes, this one has %" PRIu64,
		  c->found, (uint64_t)be64toh(h.bytes), bytes);
	return -EEXIST;
}

static int find_versions(struct chain *c)
{
	DIR *dir = opendir(c->dir);
	struct dirent *entry;
	int newest = -1;

	if (!dir) {
		int ret = -errno;

		msg_errno(ret, "%s", c->dir);
		return ret;
	}
	while ((entry = readdir(dir))) {
		int n = number_of(c, entry->d_name);

		if (n > newest)
			newest = n;
	}
	closedir(dir);
	c->next = newest + 1;
	if (newest >= 0 && asprintf(&c->found, "%s/%s.%d" SUFFIX, c->dir,
				    c->leaf, newest) < 0) {
		c->found = NULL;
		return no_memory();
	}
	return name_next(c);
}

int chain_open(struct chain *c, uint64_t bytes)
{
	int ret;

	c->lock = take_lock(c->lock_path);
	if (c->lock < 0) {
		ret = c->lock;
		if (ret == -EWOULDBLOCK)
			msg_error("%s: another backup makes versions there",
				  c->lock_path);
		else
			msg_errno(ret, "%s: cannot lock it", c->lock_path);
		return ret;
	}
	unlink(c->partial);
	ret = find_versions(c);
	if (!ret && c->found)
		ret = check_version(c, bytes);
	return ret;
}

const char *chain_backing(const struct chain *c)
{
	return c->last ? c->last + strlen(c->dir) + 1 : NULL;
}

bool chain_is_broken(const struct chain *c)
{
	return c->last && access(c->last, R_OK);
}

void chain_cut(struct chain *c)
{
	free(c->last);
	c->last = NULL;
}

int chain_commit(struct chain *c)
{
	struct image img = { .path = c->file, .partial = c->partial };
	int ret;

	/* The lock keeps out those who ask for it. */
	if (!access(c->file, F_OK)) {
		msg_error("%s: somebody else made it meanwhile", c->file);
		return -EEXIST;
	}
	img.fd = open(c->partial, O_RDONLY | O_CLOEXEC);
	if (img.fd < 0) {
		ret = -errno;
		msg_errno(ret, "%s", c->partial);
		return ret;
	}
	ret = image_commit(&img);
	/* It has its name, even if that is not on storage. */
	if (img.fd >= 0) {
		close(img.fd);
		return ret;
	}
	free(c->last);
	c->last = c->file;
	c->file = NULL;
	c->next++;
	return name_next(c) ? -ENOMEM : ret;
}

void chain_undo(struct chain *c)
{
	unlink(c->last);
	free(c->file);
	c->file = c->last;
	c->last = NULL;
	c->next--;
}

int chain_skip_to(struct chain *c, unsigned int number)
{
	c->next = number;
	return name_next(c);
}

void chain_abort(struct chain *c)
{
	unlink(c->partial);
}

void chain_clean(struct chain *c)
{
	if (c->lock < 0)
		return;
	unlink(c->partial);
	unlink(c->lock_path);
	/* Both names may be another's from now on. */
	close(c->lock);
	c->lock = -1;
}

void chain_clean_after(struct chain *c)
{
	const struct timespec tick = { .tv_nsec = 10000000 };
	unsigned int tries = 100;

	/* What a process has is closed one after the other. */
	while ((c->lock = take_lock(c->lock_path)) == -EWOULDBLOCK && --tries)
		nanosleep(&tick, NULL);
	chain_clean(c);
}

void chain_close(struct chain *c)
{
	chain_clean(c);
	free(c->dir);
	free(c->leaf);
	free(c->partial);
	free(c->lock_path);
	free(c->found);
	free(c->last);
	free(c->file);
	memset(c, 0, sizeof(*c));
	c->lock = -1;
}
