// SPDX-License-Identifier: MIT
/* RELEASE and POPULATE, and the loops around them. */
#include <errno.h>
#include <sys/ioctl.h>

#include "dirtytrack.h"
#include "resume.h"

struct release_call {
	unsigned long cmd;
	struct dtrack_released *done;
};

static int release_some(struct dtrack_vector *v)
{
	struct release_call *call = v->opaque;
	struct dirtytrack_release arg = {
		.size = sizeof(arg),
		.ranges = v->ranges,
		.nr = v->nr,
	};

	if (ioctl(v->fd, call->cmd, &arg) < 0)
		return -errno;
	call->done->released += arg.out_released;
	call->done->skipped += arg.out_skipped;
	call->done->unmaps += arg.out_unmaps;
	v->out_nr = arg.out_nr;
	v->out_next = arg.out_next;
	return 0;
}

static int release_ranges(int fd, unsigned long cmd,
			  const struct dirtytrack_range *ranges, uint32_t nr,
			  struct dtrack_released *done)
{
	struct dtrack_rest rest = { .nr = done->nr, .next = done->next };
	struct release_call call = { .cmd = cmd, .done = done };
	struct dtrack_vector v = { .fd = fd, .opaque = &call };
	int ret = dtrack_resume(&v, ranges, nr, &rest, release_some);

	done->nr = rest.nr;
	done->next = rest.next;
	return ret;
}

/**
 * dtrack_release - give the memory of pages back to the host
 * @slot: fd of the slot, open for writing
 * @ranges: the pages, in any order, ascending being fastest
 * @nr: how many ranges
 * @done: how far it is, all 0 at the beginning
 *
 * Calls until all is done.  After an error, the same call with the same arguments
 * goes on where it stopped.
 *
 * Return: 0 or -errno as listed at struct dirtytrack_release, about range @done->nr;
 * -ENOTTY also when the module is one that has no such call.
 */
int dtrack_release(int slot, const struct dirtytrack_range *ranges, uint32_t nr,
		   struct dtrack_released *done)
{
	return release_ranges(slot, DIRTYTRACK_SLOT_RELEASE, ranges, nr, done);
}

/**
 * dtrack_release_clean - release pages that a log has reported and that are clean in it
 * @log: fd of the log, made with DIRTYTRACK_LOG_MAY_RELEASE (else EPERM)
 * @ranges: the pages, in any order, ascending being fastest
 * @nr: how many ranges
 * @done: how far it is, all 0 at the beginning
 *
 * A caller who harvests, looks at pages, and then has them released by this call loses
 * no write that he has not seen: what was written since is skipped, and reported by
 * the next harvest.
 *
 * Return: as dtrack_release().
 */
int dtrack_release_clean(int log, const struct dirtytrack_range *ranges,
			 uint32_t nr, struct dtrack_released *done)
{
	return release_ranges(log, DIRTYTRACK_LOG_RELEASE_CLEAN, ranges, nr,
			      done);
}

struct populate_call {
	int node;
	uint64_t pages;
};

static int populate_some(struct dtrack_vector *v)
{
	struct populate_call *call = v->opaque;
	struct dirtytrack_populate arg = {
		.size = sizeof(arg),
		.ranges = v->ranges,
		.nr = v->nr,
		.node = call->node,
	};

	if (ioctl(v->fd, DIRTYTRACK_SLOT_POPULATE, &arg) < 0)
		return -errno;
	call->pages += arg.out_pages;
	v->out_nr = arg.out_nr;
	v->out_next = arg.out_next;
	return 0;
}

/**
 * dtrack_populate - give pages memory ahead of their use
 * @slot: fd of the slot, open for writing
 * @ranges: the pages, in any order, ascending being fastest
 * @nr: how many ranges
 * @node: NUMA node that it should come from, or DIRTYTRACK_NODE_ANY
 * @done: how far it is, all 0 at the beginning
 *
 * Calls until all is done.  After an error, what was populated stays, and the same
 * call with the same arguments goes on where it stopped.
 *
 * Return: 0 or -errno as listed at struct dirtytrack_populate, about range @done->nr;
 * -ENOTTY also when the module is one that has no such call.
 */
int dtrack_populate(int slot, const struct dirtytrack_range *ranges,
		    uint32_t nr, int node, struct dtrack_ranges_done *done)
{
	struct dtrack_rest rest = { .nr = done->nr, .next = done->next };
	struct populate_call call = { .node = node };
	struct dtrack_vector v = { .fd = slot, .opaque = &call };
	int ret = dtrack_resume(&v, ranges, nr, &rest, populate_some);

	done->nr = rest.nr;
	done->next = rest.next;
	done->pages += call.pages;
	return ret;
}
