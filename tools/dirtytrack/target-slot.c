// SPDX-License-Identifier: GPL-2.0-only
/*
 * A slot as a target.  What is written to it is in its logs, as any write is, so
 * that a slot may be copied to a slot that is copied on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "device.h"
#include "file-io.h"
#include "msg.h"
#include "target.h"

struct target_slot {
	struct target base;
	int fd;
};

static struct target_slot *to_slot(struct target *t)
{
	return (struct target_slot *)t;
}

static int fail(struct target *t, int err, const char *what)
{
	msg_errno(err, "slot %s: %s", t->name, what);
	return err;
}

static int write_pages(struct target *t, const struct request *req)
{
	int ret = file_write(to_slot(t)->fd, req->data, req->npages * DTRACK_PAGE_SIZE,
			     req->first * DTRACK_PAGE_SIZE);

	return ret ? fail(t, ret, "cannot write to it") : 0;
}

static int punch(struct target *t, const struct request *req)
{
	int ret = file_punch(to_slot(t)->fd, req->first * DTRACK_PAGE_SIZE,
			     req->npages * DTRACK_PAGE_SIZE);

	return ret ? fail(t, ret, "cannot make a hole in it") : 0;
}

static int slot_start(struct target *t, unsigned int lane, struct request *req)
{
	int ret = req->data ? write_pages(t, req) : punch(t, req);

	(void)lane;
	if (ret)
		return ret;
	req->done(req, 0);
	return 0;
}

static int slot_extent(struct target *t, uint64_t page, uint64_t *end,
		       bool *zero)
{
	int ret = data_extent(to_slot(t)->fd, t->npages, page, end, zero);

	if (ret)
		return fail(t, ret, "cannot find its data");
	if (*end > t->npages)
		*end = t->npages;
	return 0;
}

static int slot_read(struct target *t, uint64_t first, uint64_t npages,
		     void *buf)
{
	int ret = file_read(to_slot(t)->fd, buf, npages * DTRACK_PAGE_SIZE,
			    first * DTRACK_PAGE_SIZE);

	return ret ? fail(t, ret, "cannot read it") : 0;
}

static void slot_close(struct target *t)
{
	close(to_slot(t)->fd);
	free(t);
}

static const struct target_ops ops = {
	.start = slot_start,
	.extent = slot_extent,
	.read = slot_read,
	.close = slot_close,
};

struct target *target_slot(const char *ref, uint64_t npages,
			   unsigned int lanes)
{
	struct target_slot *t = calloc(1, sizeof(*t));
	struct dirtytrack_slot_info info;

	if (!t) {
		msg_errno(ENOMEM, "slot %s", ref);
		return NULL;
	}
	t->base.ops = &ops;
	t->base.name = ref;
	t->base.npages = npages;
	t->base.lanes = lanes;
	t->base.max_pages = UINT64_MAX;
	t->base.max_zero_pages = UINT64_MAX;
	t->base.readable = true;
	t->fd = open_slot(ref, &info);
	if (t->fd < 0) {
		free(t);
		return NULL;
	}
	t->base.slot_id = info.out_id;
	if (info.out_length / DTRACK_PAGE_SIZE < npages) {
		msg_error("slot %s: it has %" PRIu64 " bytes, %" PRIu64 " are to be copied",
			  ref, (uint64_t)info.out_length,
			  npages * DTRACK_PAGE_SIZE);
		slot_close(&t->base);
		return NULL;
	}
	return &t->base;
}

int target_slot_fd(const struct target *t)
{
	return ((const struct target_slot *)t)->fd;
}
