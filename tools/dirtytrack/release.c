// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "device.h"
#include "file-io.h"
#include "interrupt.h"
#include "msg.h"
#include "range-list.h"
#include "release.h"
#include "zero.h"

/* What is done between two looks whether it is to be done at all: a few milliseconds. */
#define STEP_PAGES (64 * 1024)
#define STEP_RANGES 4096

/* Pages that are read at once. */
#define CHUNK 256

static int fail(const struct release *r, int err, const char *what)
{
	if (err == -ENOTTY)
		msg_error("slot %s: this module cannot %s", r->ref, what);
	else if (err == -ENOSPC)
		msg_error("slot %s: cannot %s: no memory is left of what the module allows for all slots",
			  r->ref, what);
	else
		msg_errno(err, "slot %s: cannot %s", r->ref, what);
	return err;
}

/* Was it interrupted by a signal that is nothing to stop for? */
static bool again(int ret)
{
	return ret == -EINTR && !interrupted;
}

/* Pages of the ranges that have memory, or have none. */
static int count_state(const struct release *r, const struct dirtytrack_range *ranges,
		       uint32_t nr, bool want_hole, uint64_t *count)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		uint64_t page = ranges[i].first, last = page + ranges[i].npages;

		while (page < last) {
			uint64_t end;
			bool hole;
			int ret = data_extent(r->slot, r->npages, page, &end, &hole);

			if (ret)
				return fail(r, ret, "find its data");
			if (end > last)
				end = last;
			if (hole == want_hole)
				*count += end - page;
			page = end;
		}
	}
	return 0;
}

/* Adds what was done, of the log if there is one. */
static int release_step(struct release *r, int log, const struct dirtytrack_range *ranges,
			uint32_t nr)
{
	struct dtrack_released done = { 0 };
	int ret;

	if (r->dry_run)
		return count_state(r, ranges, nr, false, &r->released);
	do {
		ret = log < 0 ? dtrack_release(r->slot, ranges, nr, &done) :
				dtrack_release_clean(log, ranges, nr, &done);
	} while (again(ret));
	r->released += done.released;
	r->skipped += done.skipped;
	r->unmaps += done.unmaps;
	return ret && ret != -EINTR ? fail(r, ret, "release pages") : ret;
}

static int populate_step(struct release *r, int node, const struct dirtytrack_range *ranges,
			 uint32_t nr)
{
	struct dtrack_ranges_done done = { 0 };
	int ret;

	if (r->dry_run)
		return count_state(r, ranges, nr, true, &r->populated);
	do {
		ret = dtrack_populate(r->slot, ranges, nr, node, &done);
	} while (again(ret));
	r->populated += done.pages;
	if (ret == -EINVAL && node != DIRTYTRACK_NODE_ANY) {
		msg_error("--node: there is no node %d with memory", node);
		return ret;
	}
	return ret && ret != -EINTR ? fail(r, ret, "populate pages") : ret;
}

static void tell(struct release *r, uint64_t done, uint64_t all)
{
	progress_show(&r->progress, "%" PRIu64 " of %" PRIu64 " pages, %.0f%%", done,
		      all, 100.0 * done / all);
}

static uint64_t sum(const struct dirtytrack_range *ranges, uint32_t nr)
{
	uint64_t pages = 0;

	while (nr--)
		pages += ranges[nr].npages;
	return pages;
}

/* Step by step; @populate, from @node, instead of releasing. */
static int run_list(struct release *r, const struct range_list *list, bool populate,
		    int node)
{
	struct dirtytrack_range *step = malloc(STEP_RANGES * sizeof(*step));
	uint64_t done = 0, all = range_list_pages(list);
	struct range_cursor cursor = { 0 };
	int ret = 0;
	uint32_t nr;

	if (!step)
		return fail(r, -ENOMEM, "begin");
	while (!ret && (nr = range_list_step(list, &cursor, step, STEP_RANGES,
					     STEP_PAGES))) {
		if (interrupted)
			ret = -EINTR;
		else if (populate)
			ret = populate_step(r, node, step, nr);
		else
			ret = release_step(r, -1, step, nr);
		if (!ret) {
			done += sum(step, nr);
			tell(r, done, all);
		}
	}
	free(step);
	return ret;
}

int release_ranges(struct release *r, const struct range_list *list)
{
	return run_list(r, list, false, 0);
}

int release_populate(struct release *r, const struct range_list *list, int node)
{
	return run_list(r, list, true, node);
}

/* ---- zero pages ---- */

struct look {
	struct source_slot *src;
	uint32_t nr;
	struct dirtytrack_range ranges[CHUNK];
	struct dirtytrack_extent extents[CHUNK];
	char pages[CHUNK * DTRACK_PAGE_SIZE];
};

/* Released soon after they were read: the less is written in between. */
static int release_found(struct release *r, struct look *look)
{
	int ret = 0;

	if (look->nr)
		ret = release_step(r, look->src->log, look->ranges, look->nr);
	look->nr = 0;
	return ret;
}

/* One that goes on where the last one ends is one with it. */
static int found(struct release *r, struct look *look, uint64_t first, uint64_t npages)
{
	struct dirtytrack_range *last = &look->ranges[look->nr];

	r->zero += npages;
	if (look->nr && last[-1].first + last[-1].npages == first) {
		last[-1].npages += npages;
		return 0;
	}
	last->first = first;
	last->npages = npages;
	return ++look->nr == CHUNK ? release_found(r, look) : 0;
}

/* A page whose memory is broken (hardware poison) says nothing about the others. */
static int is_broken(struct release *r, uint64_t page)
{
	if (!r->broken++)
		msg_note("slot %s: page %" PRIu64 " cannot be read: %s; such pages are left as they are",
			 r->ref, page, strerror(EIO));
	return 0;
}

/* Memory that was there when the log was harvested. */
static int look_at(struct release *r, struct look *look, uint64_t first, uint64_t npages)
{
	uint64_t i, run;
	bool zero;
	int ret;

	/* Not by the source, which says why it fails. */
	ret = file_read(look->src->slot, look->pages, npages * DTRACK_PAGE_SIZE,
			first * DTRACK_PAGE_SIZE);
	if (ret == -EIO && npages == 1)
		return is_broken(r, first);
	if (ret == -EIO) {
		for (i = 0, ret = 0; i < npages && !ret; i++)
			ret = interrupted ? -EINTR : look_at(r, look, first + i, 1);
		return ret;
	}
	if (ret)
		return fail(r, ret, "read pages");
	for (i = 0; !ret && i < npages; i += run) {
		run = same_run(look->pages + i * DTRACK_PAGE_SIZE, npages - i, &zero);
		if (zero)
			ret = found(r, look, first + i, run);
	}
	r->looked += npages;
	return ret;
}

static int look_at_extent(struct release *r, struct look *look,
			  const struct dirtytrack_extent *ext)
{
	uint64_t first = ext->first, end = first + ext->npages;
	int ret = 0;

	/* A hole that is read gets no memory, but is zero anyway. */
	if (ext->state == DIRTYTRACK_STATE_HOLE)
		return 0;
	while (!ret && first < end) {
		uint64_t n = end - first < CHUNK ? end - first : CHUNK;

		ret = interrupted ? -EINTR : look_at(r, look, first, n);
		first += n;
		tell(r, first, r->npages);
	}
	return ret;
}

int release_zero(struct release *r, struct source_slot *src)
{
	struct look *look = malloc(sizeof(*look));
	uint64_t next = 0;
	int ret = 0, nr, i;

	if (!look)
		return fail(r, -ENOMEM, "begin");
	look->src = src;
	look->nr = 0;
	while (!ret) {
		nr = src->base.ops->take(&src->base, &next, look->extents, CHUNK);
		if (again(nr))
			continue;
		if (nr <= 0) {
			ret = nr;
			break;
		}
		for (i = 0; i < nr && !ret; i++)
			ret = look_at_extent(r, look, &look->extents[i]);
		if (!ret)
			ret = release_found(r, look);
	}
	free(look);
	return ret;
}
