// SPDX-License-Identifier: GPL-2.0-only
/*
 * A slot as a source.  Pages are read by pread(): it costs no page-table entry of
 * ours that a later harvest would have to protect, and never gives memory to a
 * hole, as touching a mapping does.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "file-io.h"
#include "msg.h"
#include "source.h"

static struct source_slot *to_slot(struct source *src)
{
	return (struct source_slot *)src;
}

static int fail(struct source_slot *s, int err, const char *what)
{
	if (err != -EINTR)
		msg_errno(err, "slot %s: %s", s->ref, what);
	return err;
}

static int slot_count(struct source *src, uint64_t *dirty)
{
	struct source_slot *s = to_slot(src);
	int ret = count_dirty(s->log, src->npages, false, dirty);

	return ret ? fail(s, ret, "cannot count its dirty pages") : 0;
}

static int slot_take(struct source *src, uint64_t *next,
		     struct dirtytrack_extent *ext, unsigned int max)
{
	struct source_slot *s = to_slot(src);
	int ret = dtrack_harvest_extents(s->log, 0, next, src->npages, ext,
					 max);

	return ret < 0 ? fail(s, ret, "cannot harvest its log") : ret;
}

/* It collects what it looks at, and costs little where nothing was written. */
static int slot_peek(struct source *src, uint64_t first, uint64_t npages,
		     uint64_t *dirty)
{
	struct source_slot *s = to_slot(src);
	struct dtrack_harvested done;
	int ret = dtrack_peek(s->log, first, npages, dirty, 0, &done);

	return ret ? fail(s, ret, "cannot look at its log") : 0;
}

static int slot_read(struct source *src, uint64_t first, uint64_t npages,
		     void *buf)
{
	struct source_slot *s = to_slot(src);
	int ret = file_read(s->slot, buf, npages * DTRACK_PAGE_SIZE,
			    first * DTRACK_PAGE_SIZE);

	return ret ? fail(s, ret, "cannot read it") : 0;
}

static int slot_extent(struct source *src, uint64_t page, uint64_t *end,
		       bool *hole)
{
	struct source_slot *s = to_slot(src);
	int ret = data_extent(s->slot, src->npages, page, end, hole);

	return ret ? fail(s, ret, "cannot find its data") : 0;
}

static int slot_limit(struct source *src, uint64_t rate)
{
	struct source_slot *s = to_slot(src);
	int ret = dtrack_limit(s->log, rate);

	return ret ? fail(s, ret, "cannot limit how fast it is written") : 0;
}

static const struct source_ops ops = {
	.count = slot_count,
	.take = slot_take,
	.peek = slot_peek,
	.read = slot_read,
	.extent = slot_extent,
	.limit = slot_limit,
};

int source_slot_open_log(struct source_slot *src, const char *ref, uint32_t flags)
{
	struct dirtytrack_slot_info info;

	src->base.ops = &ops;
	src->ref = ref;
	src->slot = open_slot(ref, &info);
	if (src->slot < 0)
		return src->slot;
	src->id = info.out_id;
	memcpy(src->name, info.out_name, sizeof(src->name));
	src->base.npages = info.out_length / DTRACK_PAGE_SIZE;
	src->log = open_log(src->slot, ref, flags, 0);
	if (src->log < 0) {
		close(src->slot);
		return src->log;
	}
	src->open = true;
	return 0;
}

int source_slot_open(struct source_slot *src, const char *ref)
{
	return source_slot_open_log(src, ref, DIRTYTRACK_LOG_ALL_SET);
}

void source_slot_close(struct source_slot *src)
{
	if (!src->open)
		return;
	src->open = false;
	close(src->log);
	close(src->slot);
}
