// SPDX-License-Identifier: GPL-2.0-only
/*
 * CLEAR and MERGE: a consumer says which pages are clean, or dirty after all.
 *
 * The pages come as a bitmap or as ranges.  Either is cut into groups of 4096: the
 * selection of one group is put together in log->select, then carried out at once,
 * so that pages which lie near each other are protected by one pass.  Memory of the
 * caller is only read between groups, with no lock held but the log's.
 */
#include <linux/bitops.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "dirtytrack.h"
#include "trace.h"

/**
 * struct dt_select - a CLEAR or MERGE at work
 * @log: the log, locked
 * @clear: which of the two
 * @group: group that @log->select is about
 * @any: something is selected in it
 * @groups: groups visited
 * @pages: pages cleared, or merged
 */
struct dt_select {
	struct dt_log *log;
	bool clear;
	bool any;
	u64 group;
	u32 groups;
	u64 pages;
};

static int dt_select_clear(struct dt_select *s)
{
	struct dt_bitmap *bitmap = &s->log->bitmap;
	u64 words, before = s->pages;

	/*
	 * First what was written and not collected: it is in the page by now, and in
	 * the log, and so need not be reported either.
	 */
	if (dt_collect_select(s->log->slot, s->group, s->log->select))
		return -EINTR;
	for (words = dt_bitmap_claim(bitmap, s->group); words; words &= words - 1) {
		u64 i = __ffs64(words);

		s->pages += hweight64(dt_bitmap_take(bitmap, s->group * DT_WORD_BITS + i,
						     s->log->select[i]));
	}
	trace_dirtytrack_clear(s->log->slot->id, s->log->id, s->group * DT_GROUP_BITS,
			       s->pages - before);
	return 0;
}

static void dt_select_merge(struct dt_select *s)
{
	u64 i, before = s->pages;

	for (i = 0; i < DT_WORD_BITS; i++) {
		dt_bitmap_or(&s->log->bitmap, s->group * DT_WORD_BITS + i,
			     s->log->select[i]);
		s->pages += hweight64(s->log->select[i]);
	}
	trace_dirtytrack_merge(s->log->slot->id, s->log->id, s->group * DT_GROUP_BITS,
			       s->pages - before);
}

/*
 * Carries out what was selected, and selects nothing.  Fails only if the caller is
 * being killed, and will not ask what was done.
 */
static int dt_select_run(struct dt_select *s)
{
	int err = 0;

	if (s->any && s->clear)
		err = dt_select_clear(s);
	else if (s->any)
		dt_select_merge(s);
	memset(s->log->select, 0, sizeof(s->log->select));
	s->any = false;
	s->groups++;
	cond_resched();
	return err;
}

/* Is it time to return to the caller? */
static bool dt_select_stop(struct dt_select *s)
{
	return s->groups >= DT_CALL_GROUPS || (s->groups && signal_pending(current));
}

/* Reads the bits of a caller's bitmap that begin at any bit. */
static int dt_user_bits(const u64 __user *bitmap, u64 pos, u32 nbits, u64 *bits)
{
	u32 shift = pos % DT_WORD_BITS;
	u64 low, high = 0;

	bitmap += pos / DT_WORD_BITS;
	if (get_user(low, bitmap))
		return -EFAULT;
	/* The next word need not exist if nothing of it is asked for. */
	if (shift + nbits > DT_WORD_BITS && get_user(high, bitmap + 1))
		return -EFAULT;
	*bits = low >> shift;
	if (shift)
		*bits |= high << (DT_WORD_BITS - shift);
	*bits &= ~0ULL >> (DT_WORD_BITS - nbits);
	return 0;
}

/* Selects the pages of one word, from page @next of it on. */
static int dt_select_word(struct dt_select *s, struct dirtytrack_bitmap *arg, u64 next,
			  u64 end)
{
	u64 word = next / DT_WORD_BITS;
	u32 nbits = min(end, (word + 1) * DT_WORD_BITS) - next;
	u64 bits;

	if (dt_user_bits(u64_to_user_ptr(arg->bitmap), arg->bit + (next - arg->first),
			 nbits, &bits))
		return -EFAULT;
	s->log->select[word % DT_WORD_BITS] = bits << (next % DT_WORD_BITS);
	s->any |= bits;
	return 0;
}

/**
 * dt_select_bitmap - CLEAR or MERGE the pages of a bitmap
 * @log: the log
 * @arg: the ioctl's argument; gets the out_ fields
 * @clear: which
 *
 * Context: the log's lock held; takes the slot's.
 * Return: 0; EINVAL, EOVERFLOW, EFAULT, EINTR as in the uapi header.
 */
int dt_select_bitmap(struct dt_log *log, struct dirtytrack_bitmap *arg, bool clear)
{
	struct dt_select s = { .log = log, .clear = clear };
	u64 next = arg->first, end = arg->first + arg->npages;
	int err;

	lockdep_assert_held(&log->lock);
	err = dt_range_check(log->slot, arg->first, arg->npages);
	if (!err)
		err = dt_user_bitmap_check(arg->bitmap, arg->bit, arg->npages);
	if (err)
		return err;
	while (next < end && !dt_select_stop(&s)) {
		s.group = next / DT_GROUP_BITS;
		do {
			err = dt_select_word(&s, arg, next, end);
			if (err)
				break;
			next = min(end, round_down(next, DT_WORD_BITS) + DT_WORD_BITS);
		} while (next < end && next % DT_GROUP_BITS);
		if (dt_select_run(&s))
			return -EINTR;
		if (err)
			break;
	}
	arg->out_next = next;
	arg->out_pages = s.pages;
	return next == arg->first ? err : 0;
}

/* Selects pages of a range, of the group that it is at. */
static void dt_select_range(struct dt_select *s, struct dt_ranges *ranges)
{
	u64 stop = min(ranges->end, (s->group + 1) * DT_GROUP_BITS);
	u64 word;

	for (word = ranges->next / DT_WORD_BITS; word * DT_WORD_BITS < stop; word++)
		s->log->select[word % DT_WORD_BITS] |=
			dt_word_mask(word, ranges->next, stop);
	s->any = true;
	ranges->next = stop;
}

/**
 * dt_select_ranges - CLEAR or MERGE the pages of ranges
 * @log: the log
 * @arg: the ioctl's argument; gets the out_ fields
 * @clear: which
 *
 * Context: the log's lock held; takes the slot's.
 * Return: 0; EINVAL, EOVERFLOW, EFAULT, EINTR as in the uapi header.
 */
int dt_select_ranges(struct dt_log *log, struct dirtytrack_ranges *arg, bool clear)
{
	struct dt_select s = { .log = log, .clear = clear };
	struct dt_ranges ranges;
	int more;

	lockdep_assert_held(&log->lock);
	more = dt_ranges_init(&ranges, log->slot, arg->ranges, arg->nr);
	if (more)
		return more;
	while ((more = dt_ranges_more(&ranges)) > 0) {
		u64 group = ranges.next / DT_GROUP_BITS;

		if (s.any && group != s.group) {
			if (dt_select_run(&s))
				return -EINTR;
			if (dt_select_stop(&s))
				break;
		}
		s.group = group;
		dt_select_range(&s, &ranges);
	}
	if (dt_select_run(&s))
		return -EINTR;
	arg->out_pages = s.pages;
	return dt_ranges_report(&ranges, &arg->out_nr, &arg->out_next) ? 0 : more;
}
