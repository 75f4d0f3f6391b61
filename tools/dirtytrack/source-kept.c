// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "source-kept.h"

static struct source_kept *to_kept(struct source *src)
{
	return (struct source_kept *)src;
}

static struct source *slot_of(struct source *src)
{
	return &to_kept(src)->slot.base;
}

static int kept_count(struct source *src, uint64_t *dirty)
{
	return slot_of(src)->ops->count(slot_of(src), dirty);
}

static int kept_take(struct source *src, uint64_t *next,
		     struct dirtytrack_extent *ext, unsigned int max)
{
	struct source_kept *k = to_kept(src);
	int nr = slot_of(src)->ops->take(slot_of(src), next, ext, max), i;

	for (i = 0; i < nr; i++) {
		dtrack_bitmap_set(k->taken, ext[i].first, ext[i].npages);
		k->any = true;
	}
	return nr;
}

static int kept_peek(struct source *src, uint64_t first, uint64_t npages,
		     uint64_t *dirty)
{
	return slot_of(src)->ops->peek(slot_of(src), first, npages, dirty);
}

static int kept_read(struct source *src, uint64_t first, uint64_t npages,
		     void *buf)
{
	return slot_of(src)->ops->read(slot_of(src), first, npages, buf);
}

static int kept_extent(struct source *src, uint64_t page, uint64_t *end,
		       bool *hole)
{
	return slot_of(src)->ops->extent(slot_of(src), page, end, hole);
}

static int kept_limit(struct source *src, uint64_t rate)
{
	return slot_of(src)->ops->limit(slot_of(src), rate);
}

static const struct source_ops ops = {
	.count = kept_count,
	.take = kept_take,
	.peek = kept_peek,
	.read = kept_read,
	.extent = kept_extent,
	.limit = kept_limit,
};

int source_kept_open(struct source_kept *k, const char *ref)
{
	int ret = source_slot_open(&k->slot, ref);

	if (ret)
		return ret;
	k->base.ops = &ops;
	k->base.npages = k->slot.base.npages;
	k->any = false;
	k->taken = dtrack_bitmap_alloc(k->base.npages);
	if (k->taken)
		return 0;
	msg_errno(ENOMEM, "slot %s", ref);
	source_slot_close(&k->slot);
	return -ENOMEM;
}

void source_kept_done(struct source_kept *k)
{
	if (!k->any)
		return;
	k->any = false;
	memset(k->taken, 0, dtrack_bitmap_words(k->base.npages) * sizeof(*k->taken));
}

int source_kept_restart(struct source_kept *k)
{
	/* This one first: a slot may have as many logs as it can. */
	if (k->slot.log >= 0)
		close(k->slot.log);
	k->slot.log = open_log(k->slot.slot, k->slot.ref, DIRTYTRACK_LOG_ALL_SET, 0);
	if (k->slot.log < 0)
		return k->slot.log;
	source_kept_done(k);
	return 0;
}

int source_kept_undo(struct source_kept *k)
{
	struct dtrack_selected merged = { 0 };
	int ret;

	if (!k->any)
		return 0;
	do {
		uint64_t next = merged.next;

		ret = dtrack_merge(k->slot.log, next, k->base.npages - next,
				   k->taken, next, &merged);
	} while (ret == -EINTR && !interrupted);
	if (ret) {
		msg_errno(ret, "slot %s: cannot put pages back into its log",
			  k->slot.ref);
		return ret;
	}
	source_kept_done(k);
	return 0;
}

void source_kept_close(struct source_kept *k)
{
	free(k->taken);
	k->taken = NULL;
	source_slot_close(&k->slot);
}
