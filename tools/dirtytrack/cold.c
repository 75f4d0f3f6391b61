// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>

#include "../lib/dirtytrack.h"
#include "cold.h"
#include "interrupt.h"
#include "msg.h"
#include "units.h"

static int harvest(struct cold *c)
{
	struct source_slot *src = c->src;
	struct dtrack_harvested done = { 0 };
	int ret;

	do {
		uint64_t next = done.next;

		ret = dtrack_harvest(src->log, next, src->base.npages - next,
				     c->written, next, &done);
	} while (ret == -EINTR && !interrupted);
	if (ret && ret != -EINTR)
		msg_errno(ret, "slot %s: cannot harvest its log", src->ref);
	return ret;
}

int cold_watch(struct cold *c)
{
	double start = now();
	unsigned int i;
	int ret = 0;

	for (i = 1; i <= c->intervals && !ret; i++) {
		ret = interrupt_sleep(start + i * c->seconds);
		if (!ret)
			ret = harvest(c);
		progress_show(c->progress, "interval %u of %u", i, c->intervals);
	}
	return ret;
}

int cold_next(const struct cold *c, uint64_t page, uint64_t *first, uint64_t *npages)
{
	struct source *src = &c->src->base;
	uint64_t end, written;
	bool hole;

	*npages = 0;
	while (page < src->npages) {
		int ret;

		page = dtrack_bitmap_next_clear(c->written, src->npages, page);
		if (page >= src->npages)
			break;
		ret = src->ops->extent(src, page, &end, &hole);
		if (ret)
			return ret;
		if (!hole) {
			written = dtrack_bitmap_next(c->written, src->npages, page);
			*first = page;
			*npages = (written < end ? written : end) - page;
			break;
		}
		page = end;
	}
	return 0;
}
