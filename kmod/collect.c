// SPDX-License-Identifier: GPL-2.0-only
/*
 * Collect: from the slot's open bitmap to the bitmaps of all its logs.
 *
 * A group of 4096 pages at a time: consume the open bits, take the dirty bits and the
 * write permission in every address space, gather what was written, OR it into every
 * log, leave open what must be looked at again, or had better be.  All under the
 * slot's lock, so a harvest of another log waits for one group at most, and none
 * misses what was consumed for its log and not delivered yet.
 *
 * That a page was written is in one of four places:
 *
 * - the dirty bit of a PTE: recorded by the protect pass;
 * - PG_dirty: where a zap, an exit, a zap strategy, and users of get_user_pages()
 *   leave it, and dt_mark_written();
 * - a reference that someone holds: he may be writing through the kernel's mapping
 *   or by DMA right now.  Reported, and left open; and reported once more when he has
 *   dropped it;
 * - a bit that says that the page was released, and so became zero.
 */
#include <linux/bitmap.h>
#include <linux/sched/signal.h>

#include "dirtytrack.h"
#include "page.h"
#include "protect.h"
#include "trace.h"

/*
 * Runs closer than this are protected as one, which costs the look at the PTEs
 * between (they are clean and read-only, or open and due next time anyway) and
 * saves a walk, a notifier call and a TLB flush.  A secondary MMU drops all that it
 * has of the run, so where one follows, a gap must cost less to fault in again.
 */
#define DT_RUN_GAP		48
#define DT_RUN_GAP_NOTIFIED	8

/* Groups with nothing in them that are looked at before others may have the lock. */
#define DT_NEXT_GROUPS		64

/**
 * dt_mark_written - say that the kernel has written to a page
 * @slot: the slot
 * @pgoff: offset of the page
 * @page: the page
 *
 * Called after the data is in the page, while holding a reference to it.  Then a
 * collect that comes before sees the reference, if it looks at the page at all,
 * and one that comes after sees the mark.  The open bit goes last: it makes the
 * next collect look.
 */
void dt_mark_written(struct dt_slot *slot, pgoff_t pgoff, struct page *page)
{
	SetPageDirty(page);
	smp_mb__after_atomic();		/* pairs with the collect's xchg of the word */
	dt_bitmap_set(&slot->open, pgoff);
	if (dt_rings_push(slot, pgoff))
		dt_rings_wake(slot);
}

/**
 * struct dt_found - what gather found in the 64 pages of a word
 * @released: pages that were released
 * @written: pages that had PG_dirty
 * @held: pages that somebody holds
 */
struct dt_found {
	u64 released;
	u64 written;
	u64 held;
};

/* Looks at pages of a word, and takes what says that they were written. */
static void dt_gather_word(struct dt_slot *slot, u64 word, u64 open,
			   struct dt_found *found)
{
	struct page **pages = dt_pages_word(slot, word);
	u64 held = 0, written = 0, left;

	found->released |= slot->released[word] & open;
	slot->released[word] &= ~open;
	for (left = pages ? open : 0; left; left &= left - 1) {
		unsigned long i = __ffs64(left);
		struct page *page = READ_ONCE(pages[i]);

		if (!page)
			continue;
		if (dt_page_held(page))
			held |= 1ULL << i;
		if (dt_page_written(page) && dt_page_take_written(page))
			written |= 1ULL << i;
	}
	found->written |= written;
	found->held |= held;
}

/* Has pages of a word reported by the next collect that looks at them. */
static void dt_force_pages(struct dt_slot *slot, u64 word, u64 bits)
{
	struct page **pages = bits ? dt_pages_word(slot, word) : NULL;

	for (; pages && bits; bits &= bits - 1) {
		if (pages[__ffs64(bits)])
			SetPageDirty(pages[__ffs64(bits)]);
	}
}

/*
 * Counts pages that get into the logs, now or with the next collect, for no other reason
 * than that someone holds them or that they did not settle: no more than these are
 * reported in vain.
 */
static void dt_count_overreports(struct dt_slot *slot, u64 word, u64 pages)
{
	struct dt_log *log;

	if (likely(!pages))
		return;
	slot->overreports += hweight64(pages);
	list_for_each_entry(log, &slot->logs, node)
		log->overreports += hweight64(pages & ~dt_bitmap_word(&log->bitmap, word));
}

static void dt_publish(struct dt_slot *slot, u64 word, u64 dirty)
{
	struct dt_log *log;

	list_for_each_entry(log, &slot->logs, node)
		dt_bitmap_or(&log->bitmap, word, dirty);
}

/* Is one of the words of a run hot enough to stay open, if it was written again? */
static bool dt_may_stay(struct dt_slot *slot, u64 group, u32 first, u32 end)
{
	u32 word;

	for (word = first / DT_WORD_BITS; word * DT_WORD_BITS < end; word++) {
		if (slot->run_open[word] & dt_word_mask(word, first, end) &&
		    dt_group_may_stay(slot, group * DT_WORD_BITS + word))
			return true;
	}
	return false;
}

/*
 * Cleans the pages [first, end) of a group, if words among them were hot before (see
 * group.c); for those that are hot again that is all.
 *
 * Return: which words these are, as bits.
 */
static u64 dt_clean_pages(struct dt_slot *slot, u64 group, u32 first, u32 end)
{
	const struct dt_protect_ops *protect = dt_protect_of(slot);
	pgoff_t base = group * DT_GROUP_BITS;
	u64 stay = 0;
	u32 word;

	if (!protect->clean || !dt_may_stay(slot, group, first, end))
		return 0;
	protect->clean(slot->inode.i_mapping, base + first, end - first, base,
		       (unsigned long *)slot->run_dirty);
	for (word = first / DT_WORD_BITS; word * DT_WORD_BITS < end; word++) {
		u64 open = slot->run_open[word] & dt_word_mask(word, first, end);

		if (dt_group_stays(slot, group * DT_WORD_BITS + word, open,
				   slot->run_dirty[word] & open))
			stay |= 1ULL << word;
	}
	return stay;
}

static bool dt_protect_pages(struct dt_slot *slot, pgoff_t base, u32 first, u32 end)
{
	bool settled;

	slot->protects++;
	settled = dt_protect_of(slot)->run(slot->inode.i_mapping, base + first,
					   end - first, base,
					   (unsigned long *)slot->run_dirty);
	trace_dirtytrack_protect(slot->id, base + first, end - first, settled);
	return settled;
}

/*
 * Protects the pages [first, end) of a group, but for words that stay open.
 *
 * Return: words that did not settle, as bits.
 */
static u64 dt_protect_words(struct dt_slot *slot, pgoff_t base, u32 first, u32 end,
			    u64 stay)
{
	u64 unsettled = 0;
	u32 word, next;

	for (word = first / DT_WORD_BITS; word * DT_WORD_BITS < end; word = next) {
		next = word + 1;
		if (stay >> word & 1 || !slot->run_open[word])
			continue;
		while (next * DT_WORD_BITS < end && !(stay >> next & 1))
			next++;
		if (!dt_protect_pages(slot, base, max(first, word * DT_WORD_BITS),
				      min(end, next * DT_WORD_BITS)))
			unsettled |= GENMASK_ULL(next - 1, word);
	}
	return unsettled;
}

/*
 * Did a secondary MMU come to follow a mapping, unseen by a fault or mmap()?  It does
 * so before it takes its first page; so if none has by now, no page of the slot had
 * PG_dirty set for it in vain.
 */
static void dt_look_at_mappings(struct dt_slot *slot)
{
	struct address_space *mapping = slot->inode.i_mapping;
	struct rb_node *node;

	smp_mb();	/* the look at PG_dirty before that at the notifiers */
	i_mmap_lock_read(mapping);
	for (node = rb_first_cached(&mapping->i_mmap); node; node = rb_next(node))
		dt_note_mapping(slot, rb_entry(node, struct vm_area_struct, shared.rb));
	i_mmap_unlock_read(mapping);
}

/* Has pages reported again that a guest may be writing to without a trace. */
static void dt_force_words(struct dt_slot *slot, u64 group, u64 words)
{
	for (; words; words &= words - 1) {
		u32 i = __ffs64(words);

		dt_force_pages(slot, group * DT_WORD_BITS + i, slot->run_open[i]);
		dt_count_overreports(slot, group * DT_WORD_BITS + i, slot->run_open[i]);
	}
}

/*
 * Tells the logs what was found in a word, and opens its pages again that may be
 * written with no fault that would: all of them, if they are not @settled.
 *
 * Between two open pages there may be one that was granted a moment ago and had
 * its dirty bit cleaned now: it is reported, too.  Its open bit is set.  Where none
 * is, "dirty" was said of an entry that maps no page: the helpers do not ask, and a
 * userfaultfd marker has that bit by accident.
 *
 * Some pages get PG_dirty, so that the next collect reports them in any case:
 *
 * - what was not settled where a secondary MMU follows: its PTEs were cleaned but may
 *   have stayed writable, a guest writes through them without setting their dirty bits,
 *   and KVM set PG_dirty only when it took the page;
 * - what is held: not all holders say what they wrote (vhost-scsi drops its reference,
 *   and no more);
 * - what had PG_dirty and is writable, or may be.  Who zaps a PTE sets PG_dirty before he
 *   flushes TLBs, and until then someone may be writing through one, where the
 *   dirty bit is set already.  The next protect pass waits for the lock under which
 *   that flush is done.
 */
static void dt_collect_word(struct dt_slot *slot, u64 word, u64 mask, u64 open, u64 dirty,
			    bool settled, bool copied, const struct dt_found *found)
{
	u64 opened = dt_bitmap_word(&slot->open, word);
	u64 reopen = settled && !copied ? found->held : open;
	u64 writable = opened | reopen;
	u64 forced = found->held;

	dirty &= mask & (open | opened);
	dirty |= found->released | found->written;
	if (!settled && READ_ONCE(slot->has_notifier))
		forced = open;
	dt_force_pages(slot, word, forced | (found->written & writable));

	dt_count_overreports(slot, word, found->held & ~dirty);
	dt_count_overreports(slot, word, forced);
	dirty |= found->held;
	dt_publish(slot, word, dirty);
	if (open)
		dt_group_learn(slot, word, dirty);
	dt_bitmap_or(&slot->open, word, reopen);
	if (dt_rings_push_word(slot, word, reopen))
		dt_rings_wake(slot);
	slot->collected += hweight64(open);
}

/*
 * Protects and gathers the pages [first, end) of a group, numbered from its base.
 *
 * If fork() copied a PTE that mprotect() had just made writable, and the original
 * was zapped before the clean pass came to it, the copy is writable and nothing says
 * so.  That fork was over before the zap, and the zap before the end of the protect
 * pass: so the copy is counted by then, and the run stays open.
 */
static void dt_collect_run(struct dt_slot *slot, u64 group, u32 first, u32 end)
{
	pgoff_t base = group * DT_GROUP_BITS;
	int copies = atomic_read(&slot->vma_copies);
	u64 stay = dt_clean_pages(slot, group, first, end);
	u64 unsettled = dt_protect_words(slot, base, first, end, stay);
	u32 word;

	for (word = first / DT_WORD_BITS; word * DT_WORD_BITS < end; word++) {
		u64 mask = dt_word_mask(word, first, end);
		u64 open = slot->run_open[word] & mask;
		u32 from = max(first, word * DT_WORD_BITS);
		u32 to = min(end, (word + 1) * DT_WORD_BITS);
		bool settled = !((stay | unsettled) >> word & 1);
		struct dt_found found = {};

		/* One page that is fought over does not leave a whole run open. */
		if (unsettled >> word & 1 && open)
			settled = dt_protect_pages(slot, base, from, to);
		dt_gather_word(slot, group * DT_WORD_BITS + word, open, &found);
		/* PTEs were zapped: to wait for their flush, see dt_collect_word(). */
		if (stay >> word & 1 && found.written) {
			stay &= ~(1ULL << word);
			settled = dt_protect_pages(slot, base, from, to);
			dt_gather_word(slot, group * DT_WORD_BITS + word, open, &found);
		}
		dt_collect_word(slot, group * DT_WORD_BITS + word, mask, open,
				slot->run_dirty[word], settled,
				atomic_read(&slot->vma_copies) != copies, &found);
	}
	if (stay) {
		dt_look_at_mappings(slot);
		if (READ_ONCE(slot->has_notifier))
			dt_force_words(slot, group, stay);
	}
}

/* Opens the pages from @from on again that were to be collected. */
static void dt_collect_cancel(struct dt_slot *slot, u64 group, u32 from)
{
	u32 word;

	for (word = from / DT_WORD_BITS; word < DT_WORD_BITS; word++)
		dt_bitmap_or(&slot->open, group * DT_WORD_BITS + word,
			     slot->run_open[word] &
			     dt_word_mask(word, from, DT_GROUP_BITS));
}

/*
 * Collects the pages [first, end) of a group; of those, the ones in select if there
 * is one.  Others stay open.  A slot may be mapped very often, so a collect may be
 * long: it lets others run, and ends if its caller is killed.
 *
 * Return: 0 or EINTR.
 */
static int dt_collect_group(struct dt_slot *slot, u64 group, u64 first, u64 end,
			    const u64 *select)
{
	u32 gap = READ_ONCE(slot->has_notifier) ? DT_RUN_GAP_NOTIFIED : DT_RUN_GAP;
	unsigned long *open = (unsigned long *)slot->run_open;
	u64 words = dt_bitmap_claim(&slot->open, group);
	u32 run, run_end, next;
	int err = 0;

	if (!words)
		return 0;
	if (!select)
		dt_group_collect(slot, group);
	memset(slot->run_open, 0, sizeof(slot->run_open));
	memset(slot->run_dirty, 0, sizeof(slot->run_dirty));
	for (; words; words &= words - 1) {
		u64 i = __ffs64(words);
		u64 word = group * DT_WORD_BITS + i;
		u64 mask = dt_word_mask(word, first, end);

		if (select)
			mask &= select[i];
		slot->run_open[i] = dt_bitmap_take(&slot->open, word, mask);
	}

	filemap_invalidate_lock_shared(slot->inode.i_mapping);
	for (run = find_first_bit(open, DT_GROUP_BITS); run < DT_GROUP_BITS; run = next) {
		run_end = find_next_zero_bit(open, DT_GROUP_BITS, run);
		next = find_next_bit(open, DT_GROUP_BITS, run_end);
		while (next < DT_GROUP_BITS && next - run_end < gap) {
			run_end = find_next_zero_bit(open, DT_GROUP_BITS, next);
			next = find_next_bit(open, DT_GROUP_BITS, run_end);
		}
		if (fatal_signal_pending(current)) {
			dt_collect_cancel(slot, group, run);
			err = -EINTR;
			break;
		}
		dt_collect_run(slot, group, run, run_end);
		cond_resched();
	}
	filemap_invalidate_unlock_shared(slot->inode.i_mapping);
	return err;
}

/**
 * dt_collect_next - collect until a group has something for a log
 * @slot: the slot
 * @log: the log that wants it
 * @first: page to start at
 * @end: page to stop before
 * @group: gets a group of [@first, @end) before which @log has no pages that were
 *	written before the call, and which as a rule has some; or the one after the
 *	last
 *
 * The summaries are read under the slot's lock: without it a group that another
 * log's collect has consumed and not delivered yet would look idle.
 *
 * Context: takes the slot's lock, for one group's collect at most, or to look at
 * DT_NEXT_GROUPS that turn out to be clean.
 * Return: 0, or EINTR if the caller is being killed.
 */
int dt_collect_next(struct dt_slot *slot, struct dt_log *log, u64 first, u64 end,
		    u64 *group)
{
	u64 last = DIV_ROUND_UP_ULL(end, DT_GROUP_BITS);
	int looks = 0, err = 0;

	if (mutex_lock_killable(&slot->lock))
		return -EINTR;
	for (*group = first / DT_GROUP_BITS; ; (*group)++) {
		*group = dt_bitmap_next(&slot->open, &log->bitmap, *group);
		if (*group >= last)
			break;
		if (dt_bitmap_busy(&slot->open, *group)) {
			err = dt_collect_group(slot, *group, first, end, NULL);
			break;
		}
		if (dt_bitmap_busy(&log->bitmap, *group) || ++looks == DT_NEXT_GROUPS)
			break;
	}
	mutex_unlock(&slot->lock);
	return err;
}

/**
 * dt_collect_select - collect some pages of a group
 * @slot: the slot
 * @group: the group
 * @select: the pages, DT_WORD_BITS words
 *
 * Context: takes the slot's lock.
 * Return: 0, or EINTR if the caller is being killed.
 */
int dt_collect_select(struct dt_slot *slot, u64 group, const u64 *select)
{
	int err;

	if (mutex_lock_killable(&slot->lock))
		return -EINTR;
	err = dt_collect_group(slot, group, group * DT_GROUP_BITS,
			       (group + 1) * DT_GROUP_BITS, select);
	mutex_unlock(&slot->lock);
	return err;
}

/**
 * dt_collect_all - collect the whole slot, for the logs that exist
 * @slot: the slot
 *
 * Context: takes the slot's lock, for one group at a time.
 * Return: 0, or EINTR if the caller is being killed.
 */
int dt_collect_all(struct dt_slot *slot)
{
	struct dt_bitmap *open = &slot->open;
	u64 group = 0;
	int err = 0;

	while (!err && group < open->ngroups) {
		if (mutex_lock_killable(&slot->lock))
			return -EINTR;
		group = dt_bitmap_next(open, open, group);
		if (group < open->ngroups && dt_bitmap_busy(open, group))
			err = dt_collect_group(slot, group, 0, slot->npages, NULL);
		mutex_unlock(&slot->lock);
		cond_resched();
		group++;
	}
	return err;
}
