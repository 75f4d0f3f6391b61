// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "source-free.h"

/* Ranges, and pages of them, between two looks whether it is to go on. */
#define STEP_RANGES 4096
#define STEP_PAGES (1024 * 1024)

static struct source_free *to_free(struct source *src)
{
	return (struct source_free *)src;
}

/* What is dirty is free no more.  Nobody else writes to the bits, nor reads these yet. */
static int free_take(struct source *src, uint64_t *next,
		     struct dirtytrack_extent *ext, unsigned int max)
{
	struct source_free *f = to_free(src);
	int nr = src->below->ops->take(src->below, next, ext, max), i;

	for (i = 0; i < nr; i++)
		dtrack_bitmap_clear(f->bits, ext[i].first, ext[i].npages);
	return nr;
}

static int free_read(struct source *src, uint64_t first, uint64_t npages,
		     void *buf)
{
	struct source_free *f = to_free(src);
	uint64_t end = first + npages, page = first;
	int ret = source_pass_read(src, first, npages, buf);

	/* Those that were taken, so all but a look at what the target has, find none. */
	while (!ret && (page = dtrack_bitmap_next(f->bits, end, page)) < end) {
		uint64_t busy = dtrack_bitmap_next_clear(f->bits, end, page);

		memset((char *)buf + (page - first) * DTRACK_PAGE_SIZE, 0,
		       (busy - page) * DTRACK_PAGE_SIZE);
		page = busy;
	}
	return ret;
}

static int free_extent(struct source *src, uint64_t page, uint64_t *end,
		       bool *hole)
{
	struct source_free *f = to_free(src);
	uint64_t next;
	int ret;

	if (dtrack_bitmap_test(f->bits, page)) {
		*hole = true;
		*end = dtrack_bitmap_next_clear(f->bits, src->npages, page);
		return 0;
	}
	ret = source_pass_extent(src, page, end, hole);
	next = dtrack_bitmap_next(f->bits, src->npages, page);
	if (!ret && *end > next)
		*end = next;
	return ret;
}

static const struct source_ops ops = {
	.count = source_pass_count,
	.take = free_take,
	.peek = source_pass_peek,
	.read = free_read,
	.extent = free_extent,
	.limit = source_pass_limit,
};

static int fail(const struct source_free *f, int err)
{
	if (err != -EINTR)
		msg_errno(err, "slot %s: cannot leave out what is free",
			  f->slot->ref);
	return err;
}

/* Takes what is said to be free out of the log. */
static int clear_list(struct source_free *f, const struct range_list *list)
{
	struct dirtytrack_range *step = malloc(STEP_RANGES * sizeof(*step));
	struct range_cursor cursor = { 0 };
	int ret = step ? 0 : -ENOMEM;
	uint32_t nr, i;

	while (!ret && (nr = range_list_step(list, &cursor, step, STEP_RANGES,
					     STEP_PAGES))) {
		struct dtrack_ranges_done done = { 0 };

		do {
			ret = interrupted ? -EINTR :
			      dtrack_clear_ranges(f->slot->log, step, nr, &done);
		} while (ret == -EINTR && !interrupted);
		for (i = 0; i < nr && !ret; i++)
			dtrack_bitmap_set(f->bits, step[i].first, step[i].npages);
	}
	free(step);
	return ret;
}

/* Puts those back that were written since @watch began. */
static int put_back(struct source_free *f, int watch)
{
	uint64_t npages = f->base.npages, i, words = dtrack_bitmap_words(npages);
	uint64_t *written = dtrack_bitmap_alloc(npages);
	struct dtrack_harvested seen = { 0 };
	int ret = written ? 0 : -ENOMEM;

	while (!ret && seen.next < npages) {
		uint64_t next = seen.next;

		ret = dtrack_harvest(watch, next, npages - next, written, next,
				     &seen);
		if (ret == -EINTR && !interrupted)
			ret = 0;
	}
	for (i = 0; !ret && i < words; i++) {
		written[i] &= f->bits[i];
		f->bits[i] &= ~written[i];
	}
	if (!ret)
		ret = merge_all(f->slot->log, npages, written);
	if (!ret)
		f->written = dtrack_bitmap_count(written, 0, npages);
	free(written);
	return ret;
}

static int take_hints(struct source_free *f, int watch, const char *path,
		      enum range_format format)
{
	struct range_list list = { 0 };
	int ret = range_list_read(&list, path, format);

	if (!ret) {
		range_list_sort(&list);
		ret = range_list_check(&list, f->base.npages, f->slot->ref);
	}
	if (!ret) {
		f->hinted = range_list_pages(&list);
		ret = clear_list(f, &list);
		/* In this order: what is written from now on is in both logs. */
		if (!ret)
			ret = put_back(f, watch);
		if (ret)
			fail(f, ret);
	}
	range_list_free(&list);
	return ret;
}

int source_free_open(struct source_free *f, struct source_slot *slot,
		     const char *path, enum range_format format)
{
	int watch, ret;

	f->base.ops = &ops;
	f->base.npages = slot->base.npages;
	f->base.below = &slot->base;
	f->slot = slot;
	f->bits = dtrack_bitmap_alloc(f->base.npages);
	if (!f->bits)
		return fail(f, -ENOMEM);
	watch = open_log(slot->slot, slot->ref, 0, 0);
	if (watch < 0) {
		source_free_close(f);
		return watch;
	}
	ret = take_hints(f, watch, path, format);
	close(watch);
	if (ret)
		source_free_close(f);
	else
		msg_note("slot %s: %" PRIu64 " pages are free and left out; %" PRIu64 " were written meanwhile",
			 slot->ref, f->hinted - f->written, f->written);
	return ret;
}

void source_free_close(struct source_free *f)
{
	free(f->bits);
	memset(f, 0, sizeof(*f));
}
