/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A raw memory image: a sparse file of the slot's size.
 *
 * It is written as FILE.partial and becomes FILE, at once and on stable storage,
 * by image_commit(): FILE is a whole image or what it was before.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * struct image - an image at work
 * @fd: FILE.partial, locked, or a FILE to be read; -1 when there is none
 * @path: FILE
 * @partial: FILE.partial
 * @npages: size in pages
 * @named: it is FILE by now
 */
struct image {
	int fd;
	char *path;
	char *partial;
	uint64_t npages;
	bool named;
};

/* Those that return int return 0, or a message and -errno. */

int image_create(struct image *img, const char *path, uint64_t npages);
/* One that is there, only to be read; image_abort() closes it. */
int image_open(struct image *img, const char *path);
int image_write(struct image *img, uint64_t first, uint64_t npages,
		const void *buf);
/* Make pages holes. */
int image_discard(struct image *img, uint64_t first, uint64_t npages);
int image_read(struct image *img, uint64_t first, uint64_t npages, void *buf);
/* Pages from @page to before @end are a hole, and so zero, or may not be. */
int image_extent(struct image *img, uint64_t page, uint64_t *end, bool *zero);
int image_commit(struct image *img);
/* After that, whether it failed or not: there is to be no FILE after all. */
void image_revoke(struct image *img);
/* Remove it, unless it was committed. */
void image_abort(struct image *img);

#endif
