// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "device.h"
#include "msg.h"
#include "source-kept.h"

static struct source_kept *to_kept(struct source *src)
{
	return (struct source_kept *)src;
}

static int kept_take(struct source *src, uint64_t *next,
		     struct dirtytrack_extent *ext, unsigned int max)
{
	struct source_kept *k = to_kept(src);
	int nr = src->below->ops->take(src->below, next, ext, max), i;

	for (i = 0; i < nr; i++) {
		dtrack_bitmap_set(k->taken, ext[i].first, ext[i].npages);
		k->any = true;
	}
	return nr;
}

static const struct source_ops ops = {
	.count = source_pass_count,
	.take = kept_take,
	.peek = source_pass_peek,
	.read = source_pass_read,
	.extent = source_pass_extent,
	.limit = source_pass_limit,
};

int source_kept_open(struct source_kept *k, const char *ref)
{
	int ret = source_slot_open(&k->slot, ref);

	if (ret)
		return ret;
	k->base.ops = &ops;
	k->base.npages = k->slot.base.npages;
	k->base.below = &k->slot.base;
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
	int ret;

	if (!k->any)
		return 0;
	ret = merge_all(k->slot.log, k->base.npages, k->taken);
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
