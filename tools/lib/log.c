// SPDX-License-Identifier: MIT
/* Logs, and the loops around a harvest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "dirtytrack.h"

/**
 * dtrack_log_create_ring - start a log that has a ring
 * @slot: fd of the slot, open for writing
 * @flags: DIRTYTRACK_LOG_ALL_SET, DIRTYTRACK_LOG_MAY_RELEASE, both or none
 * @entries: length of the ring, a power of two; 0 for a log without one
 *
 * Return: fd of the log, close-on-exec, or -errno as listed at
 * struct dirtytrack_log_create.
 */
int dtrack_log_create_ring(int slot, uint32_t flags, uint32_t entries)
{
	struct dirtytrack_log_create arg = {
		.size = sizeof(arg),
		.flags = flags,
		.out_fd = -1,
		.ring_entries = entries,
	};

	if (ioctl(slot, DIRTYTRACK_LOG_CREATE, &arg) < 0)
		return -errno;
	return arg.out_fd;
}

/**
 * dtrack_log_create - start a log
 * @slot: fd of the slot, open for writing
 * @flags: DIRTYTRACK_LOG_ALL_SET, DIRTYTRACK_LOG_MAY_RELEASE, both or none
 *
 * Return: as dtrack_log_create_ring().
 */
int dtrack_log_create(int slot, uint32_t flags)
{
	return dtrack_log_create_ring(slot, flags, 0);
}

/**
 * dtrack_limit - limit how fast a slot's pages become dirty
 * @log: fd of the log, with which the limit ends
 * @rate: pages a second, 0 to lift it
 *
 * Return: 0 or -errno as listed at struct dirtytrack_limit.
 */
int dtrack_limit(int log, uint64_t rate)
{
	struct dirtytrack_limit arg = {
		.size = sizeof(arg),
		.rate = rate,
	};

	return ioctl(log, DIRTYTRACK_LOG_LIMIT, &arg) < 0 ? -errno : 0;
}

/**
 * dtrack_log_info - size, mappings and counters of a log
 * @log: fd of the log
 * @info: filled in; on input it need not be initialised
 *
 * Return: 0 or -errno (-ENOTTY when @log is something else).
 */
int dtrack_log_info(int log, struct dirtytrack_log_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return ioctl(log, DIRTYTRACK_LOG_INFO, info) < 0 ? -errno : 0;
}

static int map_part(int log, uint64_t offset, uint64_t size,
		    const uint64_t **words)
{
	void *addr;

	if (size > SIZE_MAX)
		return -ENOMEM;
	addr = mmap(NULL, size, PROT_READ, MAP_SHARED, log, offset);
	if (addr == MAP_FAILED)
		return -errno;
	*words = addr;
	return 0;
}

/**
 * dtrack_log_mmap - map a log's bitmap and summary
 * @log: fd of the log
 * @map: filled in; undone by dtrack_log_munmap()
 *
 * The mapping keeps the log alive, also when @log is closed.
 *
 * Return: 0 or -errno of the ioctl or of mmap(2).
 */
int dtrack_log_mmap(int log, struct dtrack_log_map *map)
{
	struct dirtytrack_log_info info;
	int ret;

	ret = dtrack_log_info(log, &info);
	if (ret)
		return ret;
	ret = map_part(log, info.out_bitmap_offset, info.out_bitmap_size,
		       &map->bitmap);
	if (ret)
		return ret;
	ret = map_part(log, info.out_summary_offset, info.out_summary_size,
		       &map->summary);
	if (ret) {
		munmap((void *)map->bitmap, info.out_bitmap_size);
		return ret;
	}
	map->npages = info.out_npages;
	map->bitmap_size = info.out_bitmap_size;
	map->summary_size = info.out_summary_size;
	return 0;
}

/**
 * dtrack_log_munmap - undo dtrack_log_mmap()
 * @map: what it filled in
 */
void dtrack_log_munmap(struct dtrack_log_map *map)
{
	munmap((void *)map->bitmap, map->bitmap_size);
	munmap((void *)map->summary, map->summary_size);
}

static int harvest(int log, uint32_t flags, uint64_t first, uint64_t npages,
		   uint64_t *bitmap, uint64_t bit, struct dtrack_harvested *out)
{
	uint64_t end = first + npages;

	out->next = first;
	out->dirty = 0;
	out->fresh = 0;
	if (end < first)
		return -EOVERFLOW;
	do {
		struct dirtytrack_harvest arg = {
			.size = sizeof(arg),
			.flags = flags,
			.first = out->next,
			.npages = end - out->next,
			.bitmap = (uintptr_t)bitmap,
			.bit = bit + (out->next - first),
		};

		if (ioctl(log, DIRTYTRACK_LOG_HARVEST, &arg) < 0)
			return -errno;
		out->dirty += arg.out_dirty;
		out->fresh += arg.out_new;
		/* A call without an error makes progress: don't spin if not. */
		if (arg.out_next <= out->next || arg.out_next > end)
			return -EPROTO;
		out->next = arg.out_next;
	} while (out->next < end);
	return 0;
}

/**
 * dtrack_harvest - take the dirty pages of a range out of a log
 * @log: fd of the log
 * @first: first page
 * @npages: pages in the range, not 0
 * @bitmap: their bits are set here; other bits are left alone
 * @bit: number of the bit of @bitmap that stands for page @first
 * @out: what was done, also when an error is returned
 *
 * Calls until the whole range is done.  After an error the pages before
 * @out->next have been taken and are in @bitmap: go on from there, with @bit
 * moved by as much.
 *
 * Return: 0 or -errno as listed at struct dirtytrack_harvest.
 */
int dtrack_harvest(int log, uint64_t first, uint64_t npages, uint64_t *bitmap,
		   uint64_t bit, struct dtrack_harvested *out)
{
	return harvest(log, 0, first, npages, bitmap, bit, out);
}

/**
 * dtrack_peek - see the dirty pages of a range, and leave them in the log
 * @log: fd of the log
 * @first: first page
 * @npages: pages in the range, not 0
 * @bitmap: their bits are set here; other bits are left alone
 * @bit: number of the bit of @bitmap that stands for page @first
 * @out: what was done, also when an error is returned
 *
 * Return: as dtrack_harvest().
 */
int dtrack_peek(int log, uint64_t first, uint64_t npages, uint64_t *bitmap,
		uint64_t bit, struct dtrack_harvested *out)
{
	return harvest(log, DIRTYTRACK_HARVEST_PEEK, first, npages, bitmap, bit,
		       out);
}

/**
 * dtrack_harvest_extents - take dirty pages out of a log as extents
 * @log: fd of the log
 * @flags: 0 or DIRTYTRACK_HARVEST_PEEK
 * @next: first page to look at; moved to the first that was not looked at
 * @end: page before which to stop
 * @extents: filled in, ascending
 * @max: length of @extents, not 0
 *
 * Calls until there is an extent or the range is done.  Pages from @next on stay
 * in the log.
 *
 * Return: number of extents, 0 only when @next has reached @end; or -errno as
 * listed at struct dirtytrack_harvest_extents, nothing that was taken being lost.
 */
int dtrack_harvest_extents(int log, uint32_t flags, uint64_t *next,
			   uint64_t end, struct dirtytrack_extent *extents,
			   uint32_t max)
{
	while (*next < end) {
		struct dirtytrack_harvest_extents arg = {
			.size = sizeof(arg),
			.flags = flags,
			.first = *next,
			.npages = end - *next,
			.extents = (uintptr_t)extents,
			.nr = max,
		};

		if (ioctl(log, DIRTYTRACK_LOG_HARVEST_EXTENTS, &arg) < 0)
			return -errno;
		if (arg.out_next <= *next || arg.out_next > end ||
		    arg.out_nr > max)
			return -EPROTO;
		*next = arg.out_next;
		if (arg.out_nr)
			return arg.out_nr;
	}
	return 0;
}

/* 16 KiB of extents: what a call costs is then spread over enough of them. */
#define ITER_EXTENTS 1024

struct dtrack_extents {
	int log;
	uint32_t flags;
	uint64_t next;
	uint64_t end;
	uint32_t pos;
	uint32_t nr;
	struct dirtytrack_extent buf[ITER_EXTENTS];
};

/**
 * dtrack_extents_open - begin to walk the dirty extents of a range
 * @iter: where to store the iterator, to be ended by dtrack_extents_close()
 * @log: fd of the log, used until then
 * @flags: 0 or DIRTYTRACK_HARVEST_PEEK
 * @first: first page
 * @npages: pages in the range
 *
 * Return: 0, -EOVERFLOW or -ENOMEM.
 */
int dtrack_extents_open(struct dtrack_extents **iter, int log, uint32_t flags,
			uint64_t first, uint64_t npages)
{
	struct dtrack_extents *it;

	if (first + npages < first)
		return -EOVERFLOW;
	it = malloc(sizeof(*it));
	if (!it)
		return -ENOMEM;
	it->log = log;
	it->flags = flags;
	it->next = first;
	it->end = first + npages;
	it->pos = 0;
	it->nr = 0;
	*iter = it;
	return 0;
}

/**
 * dtrack_extents_next - the next dirty extent
 * @iter: iterator
 * @extent: filled in
 *
 * Extents are taken from the log many at a time: an iterator that is closed
 * before its end has taken pages that its user never saw.
 *
 * Return: 1; 0 when there are no more; -errno of the harvest, after which the
 * call may be repeated.
 */
int dtrack_extents_next(struct dtrack_extents *iter,
			struct dirtytrack_extent *extent)
{
	if (iter->pos == iter->nr) {
		int ret = dtrack_harvest_extents(iter->log, iter->flags,
						 &iter->next, iter->end,
						 iter->buf, ITER_EXTENTS);

		if (ret <= 0)
			return ret;
		iter->pos = 0;
		iter->nr = ret;
	}
	*extent = iter->buf[iter->pos++];
	return 1;
}

/**
 * dtrack_extents_close - end an iterator
 * @iter: iterator, or NULL
 */
void dtrack_extents_close(struct dtrack_extents *iter)
{
	free(iter);
}
