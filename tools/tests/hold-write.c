// SPDX-License-Identifier: GPL-2.0-only
/*
 * To be preloaded: a write of a page of zeroes, as no "dirtytrack migrate" sends them, makes the
 * file $HOLD_WRITE, and goes on when that was removed.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *buf, size_t count, off64_t pos)
{
	ssize_t (*next)(int f, const void *b, size_t n, off64_t p) = dlsym(RTLD_NEXT, "pwrite64");
	const char *path = getenv("HOLD_WRITE"), *page = buf;

	if (path && count == 4096 && !*page && !memcmp(page, page + 1, 4095)) {
		close(open(path, O_CREAT | O_WRONLY, 0600));
		while (!access(path, F_OK))
			usleep(1000);
	}
	return next(fd, buf, count, pos);
}
