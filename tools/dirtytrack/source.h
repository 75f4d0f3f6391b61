/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the copy engine reads: memory with a dirty log.  @read and @peek may be called by
 * several threads at once, also while the others run.
 */
#ifndef SOURCE_H
#define SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/dirtytrack.h>

struct dirtytrack_extent;
struct source;

/**
 * struct source_ops - memory with a dirty log
 * @count: pages in the log now; nothing is taken out of it
 * @take: take dirty pages from @next on, as extents; @next moves to the first page
 *	not looked at.  Number of extents, 0 only when @next is at the end.  Content
 *	read after the call is at least as new as every write that completed before
 *	it.
 * @peek: which of at most 64 pages from @first on are in the log, bit 0 of @dirty being
 *	@first; they stay in it.  NULL when that cannot be told cheaply
 * @read: content of pages, holes as zeroes, without giving memory to holes
 * @extent: pages from @page to before @end have no memory, and so are zero, or may
 *	have; @page is in it, and @end after it
 * @limit: pages that may become dirty a second, 0 for no limit; NULL when there can be
 *	none
 *
 * Each returns -errno after a message; -EINTR without one.
 */
struct source_ops {
	int (*count)(struct source *src, uint64_t *dirty);
	int (*take)(struct source *src, uint64_t *next,
		    struct dirtytrack_extent *ext, unsigned int max);
	int (*peek)(struct source *src, uint64_t first, uint64_t npages,
		    uint64_t *dirty);
	int (*read)(struct source *src, uint64_t first, uint64_t npages,
		    void *buf);
	int (*extent)(struct source *src, uint64_t page, uint64_t *end,
		      bool *hole);
	int (*limit)(struct source *src, uint64_t rate);
};

/**
 * struct source - memory with a dirty log, embedded in what implements it
 * @ops: how
 * @npages: its size
 * @below: what it stands before, and has from there what it leaves as it is; or NULL
 */
struct source {
	const struct source_ops *ops;
	uint64_t npages;
	struct source *below;
};

/* Operations of one that leaves these to what is @below it. */
int source_pass_count(struct source *src, uint64_t *dirty);
int source_pass_peek(struct source *src, uint64_t first, uint64_t npages, uint64_t *dirty);
int source_pass_read(struct source *src, uint64_t first, uint64_t npages, void *buf);
int source_pass_extent(struct source *src, uint64_t page, uint64_t *end, bool *hole);
int source_pass_limit(struct source *src, uint64_t rate);

/* A slot, and a log of its own. */
struct source_slot {
	struct source base;
	bool open;
	uint32_t id;
	int slot;
	int log;
	const char *ref;	/* as the user names it */
	char name[DIRTYTRACK_NAME_LEN];
};

/* With all pages in the log.  0, or a message and -errno. */
int source_slot_open(struct source_slot *src, const char *ref);
/* The same, with flags of LOG_CREATE. */
int source_slot_open_log(struct source_slot *src, const char *ref, uint32_t flags);
/* The log ends, too.  Nothing is done when that was done before. */
void source_slot_close(struct source_slot *src);

#endif
