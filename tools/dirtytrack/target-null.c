// SPDX-License-Identifier: GPL-2.0-only
/* Nothing as a target: what the rest of the way can do. */
#include <errno.h>
#include <stdlib.h>

#include "msg.h"
#include "target.h"

static int null_start(struct target *t, unsigned int lane, struct request *req)
{
	(void)t;
	(void)lane;
	req->done(req, 0);
	return 0;
}

static int null_extent(struct target *t, uint64_t page, uint64_t *end,
		       bool *zero)
{
	(void)page;
	*end = t->npages;
	*zero = true;
	return 0;
}

static int null_read(struct target *t, uint64_t first, uint64_t npages,
		     void *buf)
{
	(void)first;
	(void)npages;
	(void)buf;
	msg_error("%s: nothing can be read from it", t->name);
	return -EOPNOTSUPP;
}

static void null_close(struct target *t)
{
	free(t);
}

static const struct target_ops ops = {
	.start = null_start,
	.extent = null_extent,
	.read = null_read,
	.close = null_close,
};

struct target *target_null(uint64_t npages, unsigned int lanes)
{
	struct target *t = calloc(1, sizeof(*t));

	if (!t) {
		msg_errno(ENOMEM, "null:");
		return NULL;
	}
	t->ops = &ops;
	t->name = "null:";
	t->npages = npages;
	t->lanes = lanes;
	t->max_pages = UINT64_MAX;
	t->max_zero_pages = UINT64_MAX;
	return t;
}
