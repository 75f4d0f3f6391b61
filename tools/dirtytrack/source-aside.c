// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "msg.h"
#include "pipeline.h"
#include "source-aside.h"

/* So many that were captured are pushed before there are more. */
#define MAX_EXTENTS (256 * 1024)

/* Pages, and where they are in the buffer; those without memory are nowhere. */
struct aside_extent {
	struct dirtytrack_extent ext;
	uint64_t where;
};

static const char zeroes[DTRACK_PAGE_SIZE];

static struct source_aside *to_aside(struct source *src)
{
	return (struct source_aside *)src;
}

/* ---- the checksum ---- */

/* From any thread; no two have the same page. */
static void note_hash(struct source_aside *a, uint64_t page, const char *content)
{
	uint64_t hash = dtrack_checksum(content, page, 1);

	__atomic_fetch_add(&a->checksum, hash - a->hashes[page], __ATOMIC_RELAXED);
	a->hashes[page] = hash;
}

static void note_zeroes(struct source_aside *a, uint64_t first, uint64_t npages)
{
	for (; a->hashes && npages; first++, npages--)
		note_hash(a, first, zeroes);
}

/* ---- the source ---- */

static int aside_take(struct source *src, uint64_t *next,
		      struct dirtytrack_extent *ext, unsigned int max)
{
	int nr = src->below->ops->take(src->below, next, ext, max), i;

	/* These are not read. */
	for (i = 0; i < nr; i++)
		if (ext[i].state == DIRTYTRACK_STATE_HOLE)
			note_zeroes(to_aside(src), ext[i].first, ext[i].npages);
	return nr;
}

/* The extent that page @page is in, or the first one after it. */
static const struct aside_extent *find(const struct source_aside *a, uint64_t page)
{
	unsigned int low = 0, high = a->nr;

	while (low < high) {
		unsigned int mid = low + (high - low) / 2;
		const struct dirtytrack_extent *ext = &a->extents[mid].ext;

		if (ext->first + ext->npages <= page)
			low = mid + 1;
		else
			high = mid;
	}
	return &a->extents[low];
}

static char *place_of(const struct source_aside *a, const struct aside_extent *e,
		      uint64_t page)
{
	return a->aside->memory +
	       (e->where + page - e->ext.first) * DTRACK_PAGE_SIZE;
}

/* Pages of an epoch: what is pushed is what was captured. */
static void read_aside(struct source_aside *a, uint64_t first, uint64_t npages,
		       char *to)
{
	const struct aside_extent *e = find(a, first);

	while (npages) {
		uint64_t n = e->ext.first + e->ext.npages - first;

		if (n > npages)
			n = npages;
		memcpy(to, place_of(a, e, first), n * DTRACK_PAGE_SIZE);
		first += n;
		npages -= n;
		to += n * DTRACK_PAGE_SIZE;
		e++;
	}
}

static int aside_read(struct source *src, uint64_t first, uint64_t npages, void *buf)
{
	struct source_aside *a = to_aside(src);
	int ret = 0;
	uint64_t i;

	if (a->nr)
		read_aside(a, first, npages, buf);
	else
		ret = source_pass_read(src, first, npages, buf);
	for (i = 0; i < npages && a->hashes && !ret; i++)
		note_hash(a, first + i, (char *)buf + i * DTRACK_PAGE_SIZE);
	return ret;
}

static const struct source_ops ops = {
	.count = source_pass_count,
	.take = aside_take,
	.peek = source_pass_peek,
	.read = aside_read,
	.extent = source_pass_extent,
	.limit = source_pass_limit,
};

/* ---- capturing ---- */

static int grow(struct source_aside *a)
{
	unsigned int room = a->room ? 2 * a->room : ASIDE_TAKEN;
	struct aside_extent *extents;

	if (a->nr < a->room)
		return 0;
	extents = realloc(a->extents, room * sizeof(*extents));
	if (!extents) {
		msg_errno(ENOMEM, "slot %s", a->kept.slot.ref);
		return -ENOMEM;
	}
	a->extents = extents;
	a->room = room;
	return 0;
}

/* As much of it as there is room for. */
static int add_extent(struct source_aside *a, const struct dirtytrack_extent *ext)
{
	bool data = ext->state == DIRTYTRACK_STATE_DATA;
	uint64_t left = a->aside->capacity - a->aside->used;
	struct aside_extent *e;
	int ret = grow(a);

	if (ret)
		return ret;
	e = &a->extents[a->nr++];
	e->ext = *ext;
	e->where = a->aside->used;
	if (!data)
		return 0;
	if (e->ext.npages > left)
		e->ext.npages = left;
	dtrack_bitmap_set(a->to_copy, e->ext.first, e->ext.npages);
	a->aside->used += e->ext.npages;
	return 0;
}

/* By all threads: runs of pages that are to be in the buffer. */
static int copy_run(void *opaque, uint64_t first, uint64_t npages)
{
	struct source_aside *a = opaque;
	const struct aside_extent *e = find(a, first);
	struct source *src = &a->kept.slot.base;
	int ret = 0;

	while (npages && !ret) {
		uint64_t n = e->ext.first + e->ext.npages - first;

		if (n > npages)
			n = npages;
		ret = src->ops->read(src, first, n, place_of(a, e, first));
		first += n;
		npages -= n;
		e++;
	}
	return ret;
}

static int copy_aside(struct source_aside *a)
{
	const struct dtrack_flush flush = {
		.npages = a->base.npages,
		.bitmaps = { a->to_copy },
		.threads = a->aside->threads,
		.copy = copy_run,
		.opaque = a,
	};
	struct dtrack_flushed done;

	return dtrack_flush(&flush, &done);
}

/* Something is to be captured that was taken, or can be taken. */
static int next_extent(struct source_aside *a, struct dirtytrack_extent **ext)
{
	int nr;

	if (a->first_left == a->nr_left) {
		nr = a->base.ops->take(&a->base, &a->next, a->left, ASIDE_TAKEN);
		if (nr <= 0)
			return nr;
		a->first_left = 0;
		a->nr_left = nr;
	}
	*ext = &a->left[a->first_left];
	return 1;
}

void source_aside_begin(struct source_aside *a)
{
	a->next = 0;
	a->first_left = a->nr_left = 0;
}

static int add_dirty(struct source_aside *a, bool *more)
{
	struct dirtytrack_extent *ext;
	int ret;

	*more = false;
	while ((ret = next_extent(a, &ext)) > 0) {
		uint64_t done;

		*more = a->nr == MAX_EXTENTS ||
			(ext->state == DIRTYTRACK_STATE_DATA &&
			 a->aside->used == a->aside->capacity);
		if (*more)
			return 0;
		ret = add_extent(a, ext);
		if (ret)
			return ret;
		done = a->extents[a->nr - 1].ext.npages;
		ext->first += done;
		ext->npages -= done;
		if (!ext->npages)
			a->first_left++;
	}
	return ret;
}

int source_aside_capture(struct source_aside *a, bool *more)
{
	int ret = add_dirty(a, more);

	return ret ? ret : copy_aside(a);
}

int source_aside_push(struct source_aside *a, struct pipeline *pipe)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < a->nr && !ret; i++)
		ret = pipeline_push(pipe, &a->extents[i].ext);
	return ret;
}

void source_aside_forget(struct source_aside *a)
{
	a->nr = 0;
}

/* ---- opening ---- */

int aside_open(struct aside *aside, uint64_t capacity, unsigned int threads)
{
	aside->capacity = capacity;
	aside->threads = threads;
	/* Touched as it is needed: the guest pays for no page fault that it did not cause. */
	aside->memory = mmap(NULL, capacity * DTRACK_PAGE_SIZE,
			     PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (aside->memory != MAP_FAILED)
		return 0;
	aside->memory = NULL;
	msg_errno(errno, "a buffer for epochs");
	return -ENOMEM;
}

void aside_close(struct aside *aside)
{
	if (aside->memory)
		munmap(aside->memory, aside->capacity * DTRACK_PAGE_SIZE);
	aside->memory = NULL;
}

/* The other side begins with memory that is all zero. */
static void reset_hashes(struct source_aside *a)
{
	uint64_t page;

	a->checksum = 0;
	for (page = 0; page < a->base.npages; page++) {
		a->hashes[page] = dtrack_checksum(zeroes, page, 1);
		a->checksum += a->hashes[page];
	}
}

int source_aside_open(struct source_aside *a, const char *ref, struct aside *aside,
		      bool checksum)
{
	int ret = source_kept_open(&a->kept, ref);

	if (ret)
		return ret;
	a->base.ops = &ops;
	a->base.npages = a->kept.base.npages;
	a->base.below = &a->kept.base;
	a->aside = aside;
	a->to_copy = dtrack_bitmap_alloc(a->base.npages);
	if (checksum)
		a->hashes = calloc(a->base.npages, sizeof(*a->hashes));
	if (!a->to_copy || (checksum && !a->hashes)) {
		msg_errno(ENOMEM, "slot %s", ref);
		source_aside_close(a);
		return -ENOMEM;
	}
	if (checksum)
		reset_hashes(a);
	return 0;
}

int source_aside_restart(struct source_aside *a)
{
	int ret = source_kept_restart(&a->kept);

	if (!ret && a->hashes)
		reset_hashes(a);
	return ret;
}

void source_aside_close(struct source_aside *a)
{
	free(a->extents);
	free(a->to_copy);
	free(a->hashes);
	a->extents = NULL;
	a->to_copy = a->hashes = NULL;
	source_kept_close(&a->kept);
}
