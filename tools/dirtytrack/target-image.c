// SPDX-License-Identifier: GPL-2.0-only
/*
 * An image file as a target.  It has one lane: what a second thread could add to
 * writing to the page cache is less than what it takes from the guest.
 */
#include <errno.h>
#include <stdlib.h>

#include "image.h"
#include "msg.h"
#include "target.h"

struct target_image {
	struct target base;
	struct image img;
};

static struct image *to_image(struct target *t)
{
	return &((struct target_image *)t)->img;
}

static int image_start(struct target *t, unsigned int lane,
		       struct request *req)
{
	int ret;

	(void)lane;
	if (req->data)
		ret = image_write(to_image(t), req->first, req->npages,
				  req->data);
	else
		ret = image_discard(to_image(t), req->first, req->npages);
	if (ret)
		return ret;
	req->done(req, 0);
	return 0;
}

static int extent(struct target *t, uint64_t page, uint64_t *end, bool *zero)
{
	return image_extent(to_image(t), page, end, zero);
}

static int read_back(struct target *t, uint64_t first, uint64_t npages,
		     void *buf)
{
	return image_read(to_image(t), first, npages, buf);
}

static int commit(struct target *t)
{
	return image_commit(to_image(t));
}

static void revoke(struct target *t)
{
	image_revoke(to_image(t));
}

static void close_image(struct target *t)
{
	image_abort(to_image(t));
	free(t);
}

static const struct target_ops ops = {
	.start = image_start,
	.extent = extent,
	.read = read_back,
	.commit = commit,
	.revoke = revoke,
	.close = close_image,
};

struct target *target_image(const char *path, uint64_t npages)
{
	struct target_image *t = calloc(1, sizeof(*t));

	if (!t) {
		msg_errno(ENOMEM, "%s", path);
		return NULL;
	}
	if (image_create(&t->img, path, npages)) {
		free(t);
		return NULL;
	}
	t->base.ops = &ops;
	t->base.name = t->img.path;
	t->base.npages = npages;
	t->base.lanes = 1;
	t->base.max_pages = UINT64_MAX;
	t->base.max_zero_pages = UINT64_MAX;
	t->base.readable = true;
	return &t->base;
}
