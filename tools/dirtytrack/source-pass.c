// SPDX-License-Identifier: GPL-2.0-only
/* What a source that stands before another one leaves as it is. */
#include "source.h"

int source_pass_count(struct source *src, uint64_t *dirty)
{
	return src->below->ops->count(src->below, dirty);
}

int source_pass_peek(struct source *src, uint64_t first, uint64_t npages, uint64_t *dirty)
{
	return src->below->ops->peek(src->below, first, npages, dirty);
}

int source_pass_read(struct source *src, uint64_t first, uint64_t npages, void *buf)
{
	return src->below->ops->read(src->below, first, npages, buf);
}

int source_pass_extent(struct source *src, uint64_t page, uint64_t *end, bool *hole)
{
	return src->below->ops->extent(src->below, page, end, hole);
}

int source_pass_limit(struct source *src, uint64_t rate)
{
	return src->below->ops->limit(src->below, rate);
}
