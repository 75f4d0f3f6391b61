// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ranges of pages that a caller names: one, or an array of them in his memory.
 *
 * An array may be long, and is worked through as it comes: each range is read and
 * checked when the one before it is done.  So nothing of a range that is not valid
 * is done, and of those after it neither.
 */
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "dirtytrack.h"

/* How many are read between two looks at signals. */
#define DT_RANGES_LOOK 1024

/**
 * dt_range_check - is a caller's range in the slot?
 * @slot: the slot
 * @first: first page
 * @npages: how many
 *
 * Return: 0; EOVERFLOW, EINVAL (also for an empty one).
 */
int dt_range_check(struct dt_slot *slot, u64 first, u64 npages)
{
	u64 end;

	if (check_add_overflow(first, npages, &end))
		return -EOVERFLOW;
	if (!npages || end > slot->npages)
		return -EINVAL;
	return 0;
}

/**
 * dt_ranges_init - begin with an array of ranges
 * @ranges: how far it is
 * @slot: the slot that they are of
 * @array: address of the array
 * @nr: its length
 *
 * Return: 0; EINVAL for an address that is not aligned, or no ranges.
 */
int dt_ranges_init(struct dt_ranges *ranges, struct dt_slot *slot, u64 array, u32 nr)
{
	if (!nr || !IS_ALIGNED(array, sizeof(u64)))
		return -EINVAL;
	*ranges = (struct dt_ranges) {
		.slot = slot,
		.array = u64_to_user_ptr(array),
		.nr = nr,
	};
	return 0;
}

/**
 * dt_ranges_more - is there more to do?
 * @ranges: how far it is; gets the next range when one is done
 *
 * Context: reads memory of the caller, which may be the slot.
 * Return: 1 if @ranges->next is a page to do, 0 if that was all; EFAULT, EINVAL,
 * EOVERFLOW as to the next range, EINTR.
 */
int dt_ranges_more(struct dt_ranges *ranges)
{
	struct dirtytrack_range range;
	int err;

	if (ranges->next < ranges->end)
		return 1;
	if (ranges->end) {
		ranges->first = 0;
		ranges->next = 0;
		ranges->end = 0;
		ranges->i++;
	}
	if (ranges->i == ranges->nr)
		return 0;
	if (ranges->i && !(ranges->i % DT_RANGES_LOOK)) {
		cond_resched();
		if (signal_pending(current))
			return -EINTR;
	}
	if (copy_from_user(&range, ranges->array + ranges->i, sizeof(range)))
		return -EFAULT;
	err = dt_range_check(ranges->slot, range.first, range.npages);
	if (err)
		return err;
	ranges->first = range.first;
	ranges->next = range.first;
	ranges->end = range.first + range.npages;
	return 1;
}

/**
 * dt_ranges_report - tell the caller how far it came
 * @ranges: how far it is
 * @out_nr: gets how many ranges are done
 * @out_next: gets the page of the next one at which it stopped, 0 for its first
 *
 * Return: true if anything was done.
 */
bool dt_ranges_report(const struct dt_ranges *ranges, u32 *out_nr, __u64 *out_next)
{
	bool done = ranges->end && ranges->next == ranges->end;

	*out_nr = ranges->i + done;
	*out_next = !done && ranges->next > ranges->first ? ranges->next : 0;
	return *out_nr || *out_next;
}
