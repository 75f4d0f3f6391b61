// SPDX-License-Identifier: GPL-2.0-only
/*
 * Groups: how many pages one write fault opens, and which stay open.
 *
 * A fault costs microseconds, a page-table entry that is opened beside the faulting
 * one nanoseconds, then and when it is collected.  The dirty bit that the processor
 * sets in it tells whether it was written, so the result is the same.  So
 *
 * - a fault opens all 64 pages of its word of the open bitmap where that is likely to
 *   save a few faults, otherwise its own page: where the last collect found
 *   DT_GROUP_DENSE pages of the word written, or as many have become writable one by
 *   one since;
 * - a collect leaves a word open, and only takes the dirty bits, where that is likely
 *   to save a fault: where pages of it were written before this collect and before
 *   the last one.  A fault costs as much as looking at DT_GROUP_LOOKS open pages.
 *   What is not written again is protected by the next collect.
 *
 * Where the pattern changes, either way, the first round after it pays: no more
 * than about twice what single grants cost, and no more than three faults a word.
 *
 * Neither is done
 *
 * - where a secondary MMU (KVM) follows: a guest's writes do not set the dirty bit of
 *   the host's entry, and KVM drops all that it has of a run that is protected;
 * - where userfaultfd write-protects: it leaves markers in place of entries, which
 *   look dirty to the helpers;
 * - while a log of the slot has a ring: what does not fault cannot be pushed;
 * - while there is a limit: what does not fault does not wait.
 */
#include <linux/bitops.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "dirtytrack.h"

#define DT_GROUP_DENSE	3
#define DT_GROUP_LOOKS	16

static char *grants = "auto";
module_param(grants, charp, 0444);
MODULE_PARM_DESC(grants, "how many pages a write fault opens: single (1), group (64) or auto (default)");

static const char *const dt_grants[] = { "auto", "single", "group" };
static enum { DT_GRANT_AUTO, DT_GRANT_SINGLE, DT_GRANT_GROUP } dt_grant_mode;

/* Do dirty bits alone tell which pages are written, and need nobody be told? */
static bool dt_group_allowed(struct dt_slot *slot)
{
	return dt_grant_mode != DT_GRANT_SINGLE && !READ_ONCE(slot->has_notifier) &&
	       !READ_ONCE(slot->has_uffd_wp) && !READ_ONCE(slot->nrings) &&
	       !READ_ONCE(slot->limit.rate);
}

/**
 * dt_group_mask - which pages a write fault opens
 * @slot: the slot
 * @pgoff: the faulting page
 *
 * Return: bits of its word of the open bitmap.
 */
u64 dt_group_mask(struct dt_slot *slot, pgoff_t pgoff)
{
	u64 word = pgoff / DT_WORD_BITS;

	if (dt_group_allowed(slot) &&
	    (dt_grant_mode == DT_GRANT_GROUP ||
	     READ_ONCE(slot->history[word].dirty) >= DT_GROUP_DENSE ||
	     hweight64(dt_bitmap_word(&slot->open, word)) >= DT_GROUP_DENSE - 1))
		return dt_word_mask(word, 0, slot->npages);
	return 1ULL << (pgoff % DT_WORD_BITS);
}

/**
 * dt_group_collect - begin a collect of a group of words
 * @slot: the slot, locked
 * @group: the group
 */
void dt_group_collect(struct dt_slot *slot, u64 group)
{
	lockdep_assert_held(&slot->lock);
	slot->collects[group]++;
}

/**
 * dt_group_may_stay - could a word stay open?
 * @slot: the slot, locked
 * @word: index of the word
 *
 * Return: true if dt_group_stays() depends on what is found.
 */
bool dt_group_may_stay(struct dt_slot *slot, u64 word)
{
	struct dt_history *history = &slot->history[word];
	u8 last = slot->collects[word / DT_WORD_BITS] - 1;

	lockdep_assert_held(&slot->lock);
	return history->dirty && history->collect == last && dt_group_allowed(slot);
}

/**
 * dt_group_stays - should a word stay open?
 * @slot: the slot, locked
 * @word: index of the word
 * @open: which of its pages are open
 * @dirty: which of them were written
 *
 * Return: true if its pages are likely to be written again.
 */
bool dt_group_stays(struct dt_slot *slot, u64 word, u64 open, u64 dirty)
{
	struct dt_history *history = &slot->history[word];
	u32 again;

	if (!dirty || !dt_group_may_stay(slot, word))
		return false;
	again = min_t(u32, history->dirty, hweight64(dirty));
	return again * DT_GROUP_LOOKS >= hweight64(open);
}

/**
 * dt_group_learn - remember what a collect found in a word
 * @slot: the slot, locked
 * @word: index of the word
 * @dirty: which of its pages were written
 */
void dt_group_learn(struct dt_slot *slot, u64 word, u64 dirty)
{
	struct dt_history *history = &slot->history[word];

	lockdep_assert_held(&slot->lock);
	WRITE_ONCE(history->dirty, hweight64(dirty));
	history->collect = slot->collects[word / DT_WORD_BITS];
}

/**
 * dt_group_memory - how much that takes
 * @npages: size of the slot
 *
 * Return: bytes.
 */
u64 dt_group_memory(u64 npages)
{
	return PAGE_ALIGN(dt_bitmap_words(npages) * sizeof(struct dt_history)) +
	       PAGE_ALIGN(dt_bitmap_groups(npages));
}

/**
 * dt_group_alloc - make a slot's memory of what was written
 * @slot: the slot, with its open bitmap
 *
 * Return: 0 or ENOMEM; dt_group_free() undoes either.
 */
int dt_group_alloc(struct dt_slot *slot)
{
	slot->history = __vmalloc(slot->open.nwords * sizeof(*slot->history), DT_GFP_TABLE);
	slot->collects = __vmalloc(slot->open.ngroups * sizeof(*slot->collects),
				   DT_GFP_TABLE);
	return slot->history && slot->collects ? 0 : -ENOMEM;
}

/**
 * dt_group_free - free it
 * @slot: the slot
 */
void dt_group_free(struct dt_slot *slot)
{
	vfree(slot->history);
	vfree(slot->collects);
}

/**
 * dt_group_init - see what the module parameter asks for
 *
 * Return: 0 or EINVAL.
 */
int __init dt_group_init(void)
{
	int mode;

	for (mode = 0; mode < ARRAY_SIZE(dt_grants); mode++) {
		if (!strcmp(grants, dt_grants[mode])) {
			dt_grant_mode = mode;
			return 0;
		}
	}
	pr_err("grants=%s: neither auto nor single nor group\n", grants);
	return -EINVAL;
}
