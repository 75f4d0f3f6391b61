// SPDX-License-Identifier: GPL-2.0-only
/*
 * Harvest: collect, take out of the log, deliver.
 *
 * Group by group (4096 pages), so that the work done before a signal, a full array
 * or an address that faults is a whole number of groups or ends at a known page,
 * and so that the slot's lock is never held for longer.
 *
 * The guarantee of the uapi header holds because
 *
 * - a write that completed found its page open, and collect reads the open bitmap
 *   after the call began, under the slot's lock: what another log's collect has
 *   consumed is in our bitmap by then (dt_collect_next());
 * - a bit that was taken is delivered or put back before the log's lock is dropped;
 * - whether a page has memory is asked after its bit was taken: memory that comes
 *   or goes later sets the bit again.
 *
 * There is no grace period and no wait but for two mutexes.
 */
#include <linux/bitops.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "dirtytrack.h"
#include "trace.h"

/**
 * struct dt_harvest - a harvest at work
 * @log: the log, locked
 * @first: first page of the range
 * @next: every page before it was delivered
 * @end: page after the range's last
 * @peek: leave the bits in the log
 * @dirty: pages delivered
 * @deliver: deliver dirty bits of one word; 0, EFAULT, or ENOSPC if there is no
 *	place for more; sets @next to the first page not delivered unless 0
 * @bitmap: address of the caller's bitmap
 * @bit: bit in it for page @first
 * @new: bits set in it that were clear
 * @extents: address of the caller's array
 * @nr: its length
 * @nr_copied: extents copied to it
 * @nr_staged: extents in @log->extents, which come next
 */
struct dt_harvest {
	struct dt_log *log;
	u64 first, next, end;
	bool peek;
	u64 dirty;
	int (*deliver)(struct dt_harvest *h, u64 word, u64 bits, u64 resident);

	u64 __user *bitmap;
	u64 bit;
	u64 new;

	struct dirtytrack_extent __user *extents;
	u32 nr;
	u32 nr_copied;
	u32 nr_staged;
};

/* Into a bitmap ---------------------------------------------------------------- */

static int dt_deliver_bitmap(struct dt_harvest *h, u64 word, u64 bits, u64 resident)
{
	u64 page = word * DT_WORD_BITS;
	u64 pages = hweight64(bits);
	u64 __user *to;
	u64 pos, low, high, old_low = 0, old_high = 0;

	if (page < h->first) {		/* the bits before it are clear */
		bits >>= h->first - page;
		page = h->first;
	}
	pos = h->bit + (page - h->first);
	to = h->bitmap + pos / DT_WORD_BITS;
	low = bits << (pos % DT_WORD_BITS);
	high = pos % DT_WORD_BITS ? bits >> (DT_WORD_BITS - pos % DT_WORD_BITS) : 0;

	/* All of the word or nothing of it, so that what is new is counted once. */
	if (low && get_user(old_low, to))
		goto fault;
	if (high && (get_user(old_high, to + 1) || put_user(old_high | high, to + 1)))
		goto fault;
	if (low && put_user(old_low | low, to)) {
		if (high)
			(void)put_user(old_high, to + 1);
		goto fault;
	}
	h->new += hweight64(low & ~old_low) + hweight64(high & ~old_high);
	h->dirty += pages;
	return 0;
fault:
	h->next = page;
	return -EFAULT;
}

/* As extents ------------------------------------------------------------------- */

/* Copies staged extents out, but for the last @keep, which may grow yet. */
static int dt_flush_extents(struct dt_harvest *h, u32 keep)
{
	struct dirtytrack_extent *staged = h->log->extents;
	u32 n = h->nr_staged - keep;
	u32 i;

	if (copy_to_user(h->extents + h->nr_copied, staged, n * sizeof(*staged))) {
		h->next = staged[0].first;
		for (i = 0; i < h->nr_staged; i++) {
			h->dirty -= staged[i].npages;
			if (!h->peek)
				dt_bitmap_set_range(&h->log->bitmap, staged[i].first,
						    staged[i].npages);
		}
		h->nr_staged = 0;
		return -EFAULT;
	}
	memmove(staged, staged + n, keep * sizeof(*staged));
	h->nr_copied += n;
	h->nr_staged = keep;
	return 0;
}

static int dt_stage_extent(struct dt_harvest *h, u64 first, u32 npages, u32 state)
{
	struct dirtytrack_extent *last = h->log->extents + h->nr_staged - 1;
	int err;

	if (h->nr_staged && last->state == state &&
	    last->first + last->npages == first && last->npages <= U32_MAX - npages) {
		last->npages += npages;
		h->dirty += npages;
		return 0;
	}
	if (h->nr_copied + h->nr_staged == h->nr) {
		h->next = first;
		return -ENOSPC;
	}
	if (h->nr_staged == DT_LOG_EXTENTS) {
		err = dt_flush_extents(h, 1);
		if (err)
			return err;
	}
	h->log->extents[h->nr_staged++] = (struct dirtytrack_extent) {
		.first = first,
		.npages = npages,
		.state = state,
	};
	h->dirty += npages;
	return 0;
}

static int dt_deliver_extents(struct dt_harvest *h, u64 word, u64 bits, u64 resident)
{
	while (bits) {
		u32 shift = __ffs64(bits);
		bool data = resident >> shift & 1;
		u64 same = (bits & (data ? resident : ~resident)) >> shift;
		u32 run = ~same ? __ffs64(~same) : DT_WORD_BITS;
		int err;

		err = dt_stage_extent(h, word * DT_WORD_BITS + shift, run,
				      data ? DIRTYTRACK_STATE_DATA :
					     DIRTYTRACK_STATE_HOLE);
		if (err)
			return err;
		bits &= ~((~0ULL >> (DT_WORD_BITS - run)) << shift);
	}
	return 0;
}

/* The walk --------------------------------------------------------------------- */

/*
 * Takes the dirty pages of a group that are in the range into log->taken, then
 * looks which have memory, where that is told.
 *
 * Return: the words that have some, as bits.
 */
static u64 dt_take_group(struct dt_harvest *h, u64 group)
{
	struct dt_bitmap *bitmap = &h->log->bitmap;
	struct dt_slot *slot = h->log->slot;
	u64 claimed, words, left, found = 0;

	claimed = h->peek ? dt_bitmap_group(bitmap, group) :
			    dt_bitmap_claim(bitmap, group);
	words = claimed & dt_word_mask(group, h->next / DT_WORD_BITS,
				       DIV_ROUND_UP_ULL(h->end, DT_WORD_BITS));
	if (!h->peek)
		dt_bitmap_unclaim(bitmap, group, claimed & ~words);

	for (left = words; left; left &= left - 1) {
		u32 i = __ffs64(left);
		u64 word = group * DT_WORD_BITS + i;
		u64 mask = dt_word_mask(word, h->next, h->end);

		h->log->taken[i] = h->peek ? dt_bitmap_word(bitmap, word) & mask :
					     dt_bitmap_take(bitmap, word, mask);
		if (h->log->taken[i])
			found |= 1ULL << i;
	}

	if (!h->extents)
		return found;
	filemap_invalidate_lock_shared(slot->inode.i_mapping);
	for (left = found; left; left &= left - 1) {
		u32 i = __ffs64(left);

		h->log->resident[i] = dt_pages_resident(slot,
							group * DT_WORD_BITS + i);
	}
	filemap_invalidate_unlock_shared(slot->inode.i_mapping);
	return found;
}

/* Puts back what was taken of a group from page h->next on. */
static void dt_put_back(struct dt_harvest *h, u64 group, u64 words)
{
	for (; words && !h->peek; words &= words - 1) {
		u32 i = __ffs64(words);
		u64 word = group * DT_WORD_BITS + i;

		dt_bitmap_or(&h->log->bitmap, word, h->log->taken[i] &
			     dt_word_mask(word, h->next, h->end));
	}
}

static int dt_harvest_group(struct dt_harvest *h, u64 group)
{
	u64 words = dt_take_group(h, group);
	int err;

	for (; words; words &= words - 1) {
		u32 i = __ffs64(words);

		err = h->deliver(h, group * DT_WORD_BITS + i, h->log->taken[i],
				 h->log->resident[i]);
		if (err) {
			dt_put_back(h, group, words);
			return err;
		}
	}
	h->next = min(h->end, (group + 1) * DT_GROUP_BITS);
	return 0;
}

static int dt_harvest_walk(struct dt_harvest *h)
{
	int groups = 0;
	int err = 0;

	while (h->next < h->end && groups++ < DT_CALL_GROUPS) {
		u64 group;

		err = dt_collect_next(h->log->slot, h->log, h->next, h->end, &group);
		if (err)
			break;
		h->next = min(h->end, max(h->next, group * DT_GROUP_BITS));
		if (h->next == h->end)
			break;
		err = dt_harvest_group(h, group);
		if (err || signal_pending(current))
			break;
		cond_resched();
	}
	if (h->nr_staged && dt_flush_extents(h, 0))
		err = -EFAULT;
	/* What was delivered is, and the caller is told how far that goes. */
	return err != -ENOSPC && h->next == h->first ? err : 0;
}

static int dt_harvest(struct dt_harvest *h)
{
	u64 start = trace_dirtytrack_harvest_enabled() ? ktime_get_ns() : 0;
	struct dt_log *log = h->log;
	int err;

	lockdep_assert_held(&log->lock);
	err = dt_harvest_walk(h);
	if (!h->peek) {
		log->harvests++;
		log->reported += h->dirty;
		this_cpu_inc(log->slot->stats->harvests);
	}
	trace_dirtytrack_harvest(log->slot->id, log->id, h->first, h->end, h->next,
				 h->dirty, h->peek, err, start);
	return err;
}

/**
 * dt_user_bitmap_check - can a caller's bitmap be where he says?
 * @bitmap: its address
 * @bit: first bit
 * @npages: how many
 *
 * Return: 0; EINVAL if it is not aligned, EOVERFLOW if its last word has no address.
 */
int dt_user_bitmap_check(u64 bitmap, u64 bit, u64 npages)
{
	u64 end;

	if (!IS_ALIGNED(bitmap, sizeof(u64)))
		return -EINVAL;
	if (check_add_overflow(bit, npages, &end) ||
	    check_add_overflow(bitmap, end / BITS_PER_BYTE, &end))
		return -EOVERFLOW;
	return 0;
}

/**
 * dt_harvest_bitmap - harvest into a bitmap of the caller
 * @log: the log
 * @arg: the ioctl's argument; gets the out_ fields
 *
 * Context: the log's lock held.
 * Return: 0; EINVAL, EOVERFLOW, EFAULT, EINTR as in the uapi header.
 */
int dt_harvest_bitmap(struct dt_log *log, struct dirtytrack_harvest *arg)
{
	struct dt_harvest h = {
		.log = log,
		.first = arg->first,
		.next = arg->first,
		.end = arg->first + arg->npages,
		.peek = arg->flags & DIRTYTRACK_HARVEST_PEEK,
		.deliver = dt_deliver_bitmap,
		.bitmap = u64_to_user_ptr(arg->bitmap),
		.bit = arg->bit,
	};
	int err;

	err = dt_range_check(log->slot, arg->first, arg->npages);
	if (!err)
		err = dt_user_bitmap_check(arg->bitmap, arg->bit, arg->npages);
	if (err)
		return err;
	err = dt_harvest(&h);
	arg->out_next = h.next;
	arg->out_dirty = h.dirty;
	arg->out_new = h.new;
	return err;
}

/**
 * dt_harvest_extents - harvest into an array of extents
 * @log: the log
 * @arg: the ioctl's argument; gets the out_ fields
 *
 * Context: the log's lock held.
 * Return: 0; EINVAL, EOVERFLOW, EFAULT, EINTR as in the uapi header.
 */
int dt_harvest_extents(struct dt_log *log, struct dirtytrack_harvest_extents *arg)
{
	struct dt_harvest h = {
		.log = log,
		.first = arg->first,
		.next = arg->first,
		.end = arg->first + arg->npages,
		.peek = arg->flags & DIRTYTRACK_HARVEST_PEEK,
		.deliver = dt_deliver_extents,
		.extents = u64_to_user_ptr(arg->extents),
		.nr = arg->nr,
	};
	int err;

	err = dt_range_check(log->slot, arg->first, arg->npages);
	if (err)
		return err;
	if (!IS_ALIGNED(arg->extents, sizeof(u64)) || !arg->nr)
		return -EINVAL;
	err = dt_harvest(&h);
	arg->out_next = h.next;
	arg->out_dirty = h.dirty;
	arg->out_nr = h.nr_copied;
	return err;
}

/**
 * dt_harvest_undo - put back a harvest that its caller cannot be told of
 * @log: the log
 * @first: first page of its range
 * @end: page at which it stopped
 *
 * What it took is no longer known, so all of the range is reported again.
 *
 * Context: the log's lock held, since the harvest.
 */
void dt_harvest_undo(struct dt_log *log, u64 first, u64 end)
{
	dt_bitmap_set_range(&log->bitmap, first, end - first);
}
