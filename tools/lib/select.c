// SPDX-License-Identifier: MIT
/* CLEAR and MERGE, and the loops around them. */
#include <errno.h>
#include <sys/ioctl.h>

#include "dirtytrack.h"
#include "resume.h"

static int select_bitmap(int log, unsigned long cmd, uint64_t first,
			 uint64_t npages, const uint64_t *bitmap, uint64_t bit,
			 struct dtrack_selected *out)
{
	uint64_t end = first + npages;

	out->next = first;
	out->pages = 0;
	if (end < first)
		return -EOVERFLOW;
	do {
		struct dirtytrack_bitmap arg = {
			.size = sizeof(arg),
			.first = out->next,
			.npages = end - out->next,
			.bitmap = (uintptr_t)bitmap,
			.bit = bit + (out->next - first),
		};

		if (ioctl(log, cmd, &arg) < 0)
			return -errno;
		out->pages += arg.out_pages;
		if (arg.out_next <= out->next || arg.out_next > end)
			return -EPROTO;
		out->next = arg.out_next;
	} while (out->next < end);
	return 0;
}

/**
 * dtrack_clear - take the pages of a bitmap out of a log, and protect them
 * @log: fd of the log
 * @first: first page
 * @npages: pages in the range, not 0
 * @bitmap: which of them
 * @bit: number of the bit of @bitmap that stands for page @first
 * @out: what was done, also when an error is returned
 *
 * Calls until the whole range is done.  After an error the pages before @out->next
 * are done: go on from there, with @bit moved by as much.
 *
 * Return: 0 or -errno as listed at struct dirtytrack_bitmap.
 */
int dtrack_clear(int log, uint64_t first, uint64_t npages,
		 const uint64_t *bitmap, uint64_t bit,
		 struct dtrack_selected *out)
{
	return select_bitmap(log, DIRTYTRACK_LOG_CLEAR, first, npages, bitmap,
			     bit, out);
}

/**
 * dtrack_merge - put the pages of a bitmap into a log
 * @log: fd of the log
 * @first: first page
 * @npages: pages in the range, not 0
 * @bitmap: which of them
 * @bit: number of the bit of @bitmap that stands for page @first
 * @out: what was done, also when an error is returned
 *
 * Return: as dtrack_clear().
 */
int dtrack_merge(int log, uint64_t first, uint64_t npages,
		 const uint64_t *bitmap, uint64_t bit,
		 struct dtrack_selected *out)
{
	return select_bitmap(log, DIRTYTRACK_LOG_MERGE, first, npages, bitmap,
			     bit, out);
}

struct select_call {
	unsigned long cmd;
	uint64_t pages;
};

static int select_some(struct dtrack_vector *v)
{
	struct select_call *call = v->opaque;
	struct dirtytrack_ranges arg = {
		.size = sizeof(arg),
		.ranges = v->ranges,
		.nr = v->nr,
	};

	if (ioctl(v->fd, call->cmd, &arg) < 0)
		return -errno;
	call->pages += arg.out_pages;
	v->out_nr = arg.out_nr;
	v->out_next = arg.out_next;
	return 0;
}

static int select_ranges(int log, unsigned long cmd,
			 const struct dirtytrack_range *ranges, uint32_t nr,
			 struct dtrack_ranges_done *done)
{
	struct dtrack_rest rest = { .nr = done->nr, .next = done->next };
	struct select_call call = { .cmd = cmd };
	struct dtrack_vector v = { .fd = log, .opaque = &call };
	int ret = dtrack_resume(&v, ranges, nr, &rest, select_some);

	done->nr = rest.nr;
	done->next = rest.next;
	done->pages += call.pages;
	return ret;
}

/**
 * dtrack_clear_ranges - take ranges of pages out of a log, and protect them
 * @log: fd of the log
 * @ranges: the ranges, in any order, ascending being fastest
 * @nr: how many
 * @done: how far it is, all 0 at the beginning
 *
 * Calls until all is done.  After an error, the same call with the same arguments
 * goes on where it stopped.
 *
 * Return: 0 or -errno as listed at struct dirtytrack_ranges, about range @done->nr.
 */
int dtrack_clear_ranges(int log, const struct dirtytrack_range *ranges,
			uint32_t nr, struct dtrack_ranges_done *done)
{
	return select_ranges(log, DIRTYTRACK_LOG_CLEAR_RANGES, ranges, nr,
			     done);
}

/**
 * dtrack_merge_ranges - put ranges of pages into a log
 * @log: fd of the log
 * @ranges: the ranges, in any order
 * @nr: how many
 * @done: how far it is, all 0 at the beginning
 *
 * Return: as dtrack_clear_ranges().
 */
int dtrack_merge_ranges(int log, const struct dirtytrack_range *ranges,
			uint32_t nr, struct dtrack_ranges_done *done)
{
	return select_ranges(log, DIRTYTRACK_LOG_MERGE_RANGES, ranges, nr,
			     done);
}
