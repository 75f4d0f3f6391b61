/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What memory is copied to: an NBD export, an image file, a slot, or nothing.
 *
 * A target has lanes, which are independent of each other: connections of an NBD
 * client.  A lane is used by one thread at a time and has any number of requests
 * under way.
 */
#ifndef TARGET_H
#define TARGET_H

#include <stdbool.h>
#include <stdint.h>

struct target;

/**
 * struct request - pages to be written or made zero
 * @first: first page
 * @npages: how many, no more than the target's max_pages or max_zero_pages
 * @data: their content, which must stay as it is until @done; NULL to make them zero
 * @done: called once, by the thread that uses the lane: 0; -ENOTCONN, the lane being
 *	lost; or -errno without a message
 */
struct request {
	uint64_t first;
	uint64_t npages;
	const void *data;
	void (*done)(struct request *req, int err);
};

/**
 * struct target_ops - what a target can do
 * @start: begin a request.  It ends with its @done, which may be called before this
 *	returns.  When this fails, @done is not called.
 * @wait: wait @ms at most for a request to be done; -ENOTCONN when the lane is lost.
 *	NULL when requests are done as soon as they are started.
 * @revive: a lane that was lost, connected again: -ENOTCONN without a message when
 *	that did not work now and may later.  Requests that were under way are
 *	forgotten, their @done is not called any more.  NULL when lanes are not lost.
 * @drop: give a lane up, with the requests that are under way, as @revive does.
 *	NULL likewise.
 * @flush: what was done before by this lane survives the end of who has it.  -ENOTCONN
 *	as above.  NULL when there is nothing to be done for that.
 * @extent: pages from @page to before @end read as zero, or may not; @page is in the
 *	target, and @end after it
 * @read: content of pages
 * @commit: everything is there and was flushed: give it its name.  May be NULL.
 * @revoke: what @commit gave a name is removed, also if it failed after it had done so.
 *	May be NULL.
 * @close: let go; what was not committed, and would have got a name by it, is removed
 *
 * Those that return int return 0, or a message and -errno, unless said otherwise.
 */
struct target_ops {
	int (*start)(struct target *t, unsigned int lane, struct request *req);
	int (*wait)(struct target *t, unsigned int lane, int ms);
	int (*revive)(struct target *t, unsigned int lane);
	void (*drop)(struct target *t, unsigned int lane);
	int (*flush)(struct target *t, unsigned int lane);
	int (*extent)(struct target *t, uint64_t page, uint64_t *end,
		      bool *zero);
	int (*read)(struct target *t, uint64_t first, uint64_t npages,
		    void *buf);
	int (*commit)(struct target *t);
	void (*revoke)(struct target *t);
	void (*close)(struct target *t);
};

/**
 * struct target - embedded in what implements it
 * @ops: what it can do
 * @name: for messages
 * @npages: pages that are copied to it; it may be larger
 * @lanes: lanes it has
 * @max_pages: most pages of a request with data
 * @max_zero_pages: most pages of one without
 * @readable: @read gives what was written
 * @slot_id: of the slot that it is, or 0
 * @deadline: until when @flush, @extent and @read may wait for others: -ETIMEDOUT without a
 *	message after that
 */
struct target {
	const struct target_ops *ops;
	const char *name;
	uint64_t npages;
	unsigned int lanes;
	uint64_t max_pages;
	uint64_t max_zero_pages;
	bool readable;
	uint32_t slot_id;
	double deadline;
};

/* What target_open() makes of a name. */
enum target_kind {
	TARGET_IMAGE,		/* a path */
	TARGET_NBD,		/* nbd://..., nbds+unix://... */
	TARGET_SLOT,		/* slot:NAME */
	TARGET_NULL,		/* null: */
};

enum target_kind target_kind(const char *name);
/* Of a TARGET_SLOT: NAME, or another way to say which, or nothing. */
const char *target_slot_ref(const char *name);

/*
 * Open the target that @name says, for @npages pages, with @lanes lanes at most.
 * NULL after a message.
 */
struct target *target_open(const char *name, uint64_t npages,
			   unsigned int lanes);
/* First page from @page on that may not be zero, npages when there is none. */
int target_next_data(struct target *t, uint64_t page, uint64_t *data);
void target_close(struct target *t);

/* One for each kind; they are what target_open() calls. */
struct target *target_image(const char *path, uint64_t npages);
struct target *target_nbd(const char *uri, uint64_t npages,
			  unsigned int lanes);
struct target *target_slot(const char *ref, uint64_t npages,
			   unsigned int lanes);
struct target *target_null(uint64_t npages, unsigned int lanes);

/* The slot that a target_slot() is; the target's. */
int target_slot_fd(const struct target *t);

#endif
