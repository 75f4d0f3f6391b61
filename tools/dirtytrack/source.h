/* SPDX-License-Identifier: GPL-2.0-only */
/* What the copy engine reads: memory with a dirty log. */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdint.h>

struct dirtytrack_extent;
struct source;

/**
 * struct source_ops - memory with a dirty log
 * @count: pages in the log now; nothing is taken out of it
 * @take: take dirty pages from @next on, as extents; @next moves to the first page
 *	not looked at.  Number of extents, 0 only when @next is at the end.  Content
 *	read after the call is at least as new as every write that completed before
 *	it.
 * @read: content of pages, holes as zeroes, without giving memory to holes
 * @next_data: first page from @page on that may have data, npages when none has
 *
 * Each returns -errno after a message; -EINTR without one.
 */
struct source_ops {
	int (*count)(struct source *src, uint64_t *dirty);
	int (*take)(struct source *src, uint64_t *next,
		    struct dirtytrack_extent *ext, unsigned int max);
	int (*read)(struct source *src, uint64_t first, uint64_t npages,
		    void *buf);
	int (*next_data)(struct source *src, uint64_t page, uint64_t *data);
};

/* Embedded in what implements it. */
struct source {
	const struct source_ops *ops;
	uint64_t npages;
};

/* A slot, and an all-set log of its own. */
struct source_slot {
	struct source base;
	int slot;
	int log;
	const char *ref;	/* as the user names it */
};

/* 0, or a message and -errno. */
int source_slot_open(struct source_slot *src, const char *ref);
void source_slot_close(struct source_slot *src);

#endif
