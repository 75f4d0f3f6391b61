// SPDX-License-Identifier: GPL-2.0-only
/*
 * Giving memory back to the host, and getting it ahead of use.
 *
 * A released page reads as zero from then on, with no fault that would tell: so it
 * is reported as dirty, in the state HOLE unless it was touched again.  A collect
 * knows it by a bit of its own, for its absence may be over: a mere read gives it
 * memory again.  The open bit makes the collect look.
 *
 * Pages are released chunk by chunk (2 MiB), whatever ranges they were named in, with
 * the invalidate_lock held exclusive: no fault can map one, no pwrite() find one, and
 * no collect is between what it takes from a page and what it tells the logs.  So
 * when a page was taken out of all mappings, what was ever written to it shows
 *
 * - in the log, if a collect has seen it (or in the bit of an earlier release, which
 *   no collect has seen yet);
 * - in PG_dirty, where zapping left the dirty bits of PTEs, KVM what it knew, and
 *   dt_mark_written() what the kernel wrote;
 * - or in a reference that someone holds.
 *
 * If none of these is there, nobody has written since the log was harvested, and nobody
 * can: there is no mapping to write through, and none comes before the lock is
 * dropped.  A look at the same before it is unmapped saves that for a page which is not
 * clean anyway.
 */
#include <linux/bitmap.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/highmem.h>
#include <linux/nodemask.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "dirtytrack.h"
#include "page.h"
#include "trace.h"

#define DT_CHUNK_WORDS (DT_CHUNK_PAGES / DT_WORD_BITS)

/* Chunks with something to do that one call visits at most. */
#define DT_RELEASE_CHUNKS 1024

/*
 * Runs closer than this are unmapped as one: a page between them costs a fault, if it is
 * in use, another run a walk, calls of notifiers and a TLB flush.
 */
#define DT_RELEASE_GAP 8

/* Pages that are freed at once. */
#define DT_RELEASE_BATCH 64

/**
 * struct dt_release - a release at work
 * @slot: the slot
 * @log: release only what is clean in it; NULL to release anything
 * @chunk: the chunk that @select is about
 * @any: something is selected in it
 * @chunks: chunks visited that had memory
 * @released: pages released
 * @skipped: pages that keep their memory
 * @unmaps: runs taken out of the mappings
 * @select: pages of the chunk to be released
 * @resident: pages of the chunk that have memory
 */
struct dt_release {
	struct dt_slot *slot;
	struct dt_log *log;
	u64 chunk;
	bool any;
	u32 chunks;
	u64 released;
	u64 skipped;
	u64 unmaps;
	u64 select[DT_CHUNK_WORDS];
	u64 resident[DT_CHUNK_WORDS];
};

/*
 * Which of some pages of a word, that have memory, are dirty in the log?  Or may become
 * so: @unmapped says that none should be mapped any more.
 */
static u64 dt_release_dirty(struct dt_release *r, u64 word, u64 bits, bool unmapped)
{
	struct page **pages = dt_pages_word(r->slot, word);
	u64 dirty = bits & (dt_bitmap_word(&r->log->bitmap, word) |
			    r->slot->released[word]);

	for (bits &= ~dirty; bits; bits &= bits - 1) {
		struct page *page = pages[__ffs64(bits)];

		/* In this order: see dt_page_held(). */
		if ((unmapped ? !dt_page_ours_alone(page) : dt_page_held(page)) ||
		    dt_page_written(page))
			dirty |= bits & -bits;
	}
	return dirty;
}

/*
 * Selects no longer what is dirty.  That goes into the log: what somebody holds who only
 * reads would not be reported otherwise.
 */
static void dt_release_skip(struct dt_release *r, bool unmapped)
{
	u32 i;

	for (i = 0; r->log && i < DT_CHUNK_WORDS; i++) {
		u64 bits = r->select[i] & r->resident[i];
		u64 word = r->chunk * DT_CHUNK_WORDS + i;
		u64 dirty = bits ? dt_release_dirty(r, word, bits, unmapped) : 0;

		r->select[i] &= ~dirty;
		dt_bitmap_or(&r->log->bitmap, word, dirty);
		r->skipped += hweight64(dirty);
	}
}

/* Takes what is selected out of all mappings. */
static void dt_release_unmap(struct dt_release *r)
{
	const unsigned long *resident = (const unsigned long *)r->resident;
	const unsigned long *select = (const unsigned long *)r->select;
	pgoff_t base = r->chunk * DT_CHUNK_PAGES;
	u32 run, end = 0, next;

	for (;;) {
		run = find_next_and_bit(select, resident, DT_CHUNK_PAGES, end);
		if (run >= DT_CHUNK_PAGES)
			break;
		next = run;
		do {
			end = find_next_zero_bit(select, DT_CHUNK_PAGES, next);
			next = find_next_bit(select, DT_CHUNK_PAGES, end);
		} while (next < DT_CHUNK_PAGES && next - end < DT_RELEASE_GAP);
		unmap_mapping_pages(r->slot->inode.i_mapping, base + run, end - run,
				    false);
		r->unmaps++;
	}
}

/* Takes what is selected, and mapped no more, out of the slot. */
static void dt_release_take(struct dt_release *r, struct list_head *pages)
{
	struct dt_slot *slot = r->slot;
	bool wake = false;
	u32 i;

	for (i = 0; i < DT_CHUNK_WORDS; i++) {
		u64 word = r->chunk * DT_CHUNK_WORDS + i;
		u64 bits = r->select[i] & r->resident[i];

		if (!bits)
			continue;
		dt_pages_remove(slot, word, bits, pages);
		slot->released[word] |= bits;
		dt_bitmap_or(&slot->open, word, bits);
		wake |= dt_rings_push_word(slot, word, bits);
		r->released += hweight64(bits);
	}
	if (wake)
		dt_rings_wake(slot);
}

static void dt_release_free(struct list_head *pages)
{
	struct page *batch[DT_RELEASE_BATCH];
	int n = 0;

	while (!list_empty(pages)) {
		batch[n] = list_first_entry(pages, struct page, lru);
		list_del(&batch[n++]->lru);
		if (n == DT_RELEASE_BATCH || list_empty(pages)) {
			release_pages(batch, n);
			n = 0;
		}
	}
}

static void dt_release_chunk(struct dt_release *r)
{
	const unsigned long *select = (const unsigned long *)r->select;
	u32 first = find_first_bit(select, DT_CHUNK_PAGES);
	u32 last = find_last_bit(select, DT_CHUNK_PAGES);
	pgoff_t base = r->chunk * DT_CHUNK_PAGES;
	struct dt_slot *slot = r->slot;
	u64 before = r->released;
	LIST_HEAD(pages);
	u32 i;

	filemap_invalidate_lock(slot->inode.i_mapping);
	for (i = 0; i < DT_CHUNK_WORDS; i++)
		r->resident[i] = r->select[i] ?
			dt_pages_resident(slot, r->chunk * DT_CHUNK_WORDS + i) : 0;
	dt_release_skip(r, false);
	dt_release_unmap(r);
	smp_mb();	/* see dt_page_ours_alone() */
	dt_release_skip(r, true);
	dt_release_take(r, &pages);
	dt_pages_trim(slot, base);
	filemap_invalidate_unlock(slot->inode.i_mapping);
	if (r->released != before)
		trace_dirtytrack_release(slot->id, base + first, last + 1 - first,
					 r->released - before);
	dt_release_free(&pages);
	r->chunks++;
}

/* Releases what was selected, and selects nothing. */
static void dt_release_run(struct dt_release *r)
{
	/* Memory that comes right now, comes after. */
	if (r->any && !dt_chunk_empty(r->slot, r->chunk * DT_CHUNK_PAGES))
		dt_release_chunk(r);
	memset(r->select, 0, sizeof(r->select));
	r->any = false;
	cond_resched();
}

/* Selects pages from @first on of their chunk; returns the page after the last. */
static u64 dt_release_select(struct dt_release *r, u64 first, u64 end)
{
	u64 stop = min(end, round_down(first, DT_CHUNK_PAGES) + DT_CHUNK_PAGES);
	u64 word;

	for (word = first / DT_WORD_BITS; word * DT_WORD_BITS < stop; word++)
		r->select[word % DT_CHUNK_WORDS] |= dt_word_mask(word, first, stop);
	r->chunk = first / DT_CHUNK_PAGES;
	r->any = true;
	return stop;
}

/**
 * dt_release_ranges - release the pages of ranges
 * @slot: the slot
 * @log: a log of the slot, of which only clean pages are released; or NULL
 * @arg: the ioctl's argument; gets the out_ fields
 *
 * Context: @log's lock held, so that no harvest of it has taken what it has not
 * delivered yet; takes the invalidate_lock.
 * Return: 0; EINVAL, EOVERFLOW, EFAULT as in the uapi header.
 */
int dt_release_ranges(struct dt_slot *slot, struct dt_log *log,
		      struct dirtytrack_release *arg)
{
	struct dt_release r = { .slot = slot, .log = log };
	struct dt_ranges ranges;
	int more;

	if (log)
		lockdep_assert_held(&log->lock);
	more = dt_ranges_init(&ranges, slot, arg->ranges, arg->nr);
	if (more)
		return more;
	while ((more = dt_ranges_more(&ranges)) > 0) {
		if (r.any && ranges.next / DT_CHUNK_PAGES != r.chunk) {
			dt_release_run(&r);
			if (r.chunks >= DT_RELEASE_CHUNKS || signal_pending(current))
				break;
		}
		ranges.next = dt_release_select(&r, ranges.next, ranges.end);
	}
	dt_release_run(&r);
	arg->out_released = r.released;
	arg->out_skipped = r.skipped;
	arg->out_unmaps = r.unmaps;
	return dt_ranges_report(&ranges, &arg->out_nr, &arg->out_next) ? 0 : more;
}

static int dt_release(struct dt_slot *slot, pgoff_t first, pgoff_t end)
{
	struct dt_release r = { .slot = slot };

	while (first < end) {
		first = dt_release_select(&r, first, end);
		dt_release_run(&r);
		if (fatal_signal_pending(current))
			return -EINTR;
	}
	return 0;
}

/* Zeroes a part of a page, as a pwrite() would; a hole is zero already. */
static int dt_zero(struct dt_slot *slot, loff_t offset, loff_t end)
{
	pgoff_t pgoff = offset >> PAGE_SHIFT;
	struct page *page;
	int err;

	if (offset >= end)
		return 0;
	page = dt_page_hold(slot, pgoff, false);
	if (IS_ERR_OR_NULL(page))
		return PTR_ERR_OR_ZERO(page);
	put_page(page);			/* nobody waits while he holds it */
	err = dt_limit_write(slot, pgoff);
	if (err)
		return err;
	page = dt_page_hold(slot, pgoff, false);
	if (IS_ERR_OR_NULL(page))
		return PTR_ERR_OR_ZERO(page);
	memset(page_address(page) + offset_in_page(offset), 0, end - offset);
	dt_mark_written(slot, pgoff, page);
	put_page(page);
	return 0;
}

static long dt_punch(struct dt_slot *slot, loff_t offset, loff_t len)
{
	loff_t end = min(offset + len, i_size_read(&slot->inode));
	loff_t first = round_up(offset, PAGE_SIZE);	/* whole pages */
	loff_t last = round_down(end, PAGE_SIZE);
	int err;

	if (offset >= end)
		return 0;
	err = dt_zero(slot, offset, min(end, first));
	if (err || first > last)
		return err;			/* within one page */
	err = dt_zero(slot, last, end);
	if (err)
		return err;
	return dt_release(slot, first >> PAGE_SHIFT, last >> PAGE_SHIFT);
}

/*
 * Gives memory to the pages from @next on of their bitmap word; @next gets the first
 * that has none for want of it, or the page after the last, @pages is counted up.
 *
 * Page by page: the kernel's bulk allocator does not charge cgroups, and with __GFP_ACCOUNT
 * gives one page a call.
 */
static int dt_populate_word(struct dt_slot *slot, u64 *next, u64 end, int node, u64 *pages)
{
	u64 word = *next / DT_WORD_BITS;
	u64 bits = dt_word_mask(word, *next, end);
	int err = 0;

	filemap_invalidate_lock_shared(slot->inode.i_mapping);
	*next = min(end, (word + 1) * DT_WORD_BITS);
	for (bits &= ~dt_pages_resident(slot, word); bits; bits &= bits - 1) {
		u64 pgoff = word * DT_WORD_BITS + __ffs64(bits);
		struct page *page = dt_page_get(slot, pgoff, node);

		if (IS_ERR(page)) {
			*next = pgoff;
			err = PTR_ERR(page);
			break;
		}
		(*pages)++;
	}
	filemap_invalidate_unlock_shared(slot->inode.i_mapping);
	cond_resched();
	return err;
}

/**
 * dt_populate_ranges - give memory to the pages of ranges
 * @slot: the slot
 * @arg: the ioctl's argument; gets the out_ fields
 *
 * Context: takes the invalidate_lock shared.
 * Return: 0; EINVAL, EOVERFLOW, EFAULT, ENOSPC, ENOMEM as in the uapi header.
 */
int dt_populate_ranges(struct dt_slot *slot, struct dirtytrack_populate *arg)
{
	int node = arg->node == DIRTYTRACK_NODE_ANY ? NUMA_NO_NODE : arg->node;
	struct dt_ranges ranges;
	u64 pages = 0;
	u32 words = 0;
	int err;

	if (node != NUMA_NO_NODE &&
	    (node < 0 || node >= MAX_NUMNODES || !node_state(node, N_MEMORY)))
		return -EINVAL;
	err = dt_ranges_init(&ranges, slot, arg->ranges, arg->nr);
	if (err)
		return err;
	while ((err = dt_ranges_more(&ranges)) > 0) {
		err = dt_populate_word(slot, &ranges.next, ranges.end, node, &pages);
		if (err || ++words == DT_RELEASE_CHUNKS * DT_CHUNK_WORDS ||
		    signal_pending(current))
			break;
	}
	arg->out_pages = pages;
	return dt_ranges_report(&ranges, &arg->out_nr, &arg->out_next) ? 0 : err;
}

static long dt_populate(struct dt_slot *slot, loff_t offset, loff_t len)
{
	u64 next = offset >> PAGE_SHIFT, end = DIV_ROUND_UP_ULL(offset + len, PAGE_SIZE);
	u64 pages = 0;
	int err = 0;

	if (offset + len > i_size_read(&slot->inode))
		return -EPERM;			/* its size cannot change */
	while (!err && next < end) {
		if (signal_pending(current))
			return -EINTR;		/* what is there, stays */
		err = dt_populate_word(slot, &next, end, NUMA_NO_NODE, &pages);
	}
	return err;
}

/**
 * dt_file_fallocate - release or populate
 * @file: the slot
 * @mode: FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE releases, 0 and
 *	FALLOC_FL_KEEP_SIZE populate
 * @offset: in bytes
 * @len: in bytes; pages that a release covers in part are zeroed there
 *
 * Return: 0; EOPNOTSUPP (other modes), EPERM (beyond the end), ENOSPC (over the bound
 * for all slots), EIO (a part of a broken page), EINTR, ENOMEM.
 */
long dt_file_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct dt_slot *slot = dt_file_slot(file);

	switch (mode) {
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		return dt_punch(slot, offset, len);
	case FALLOC_FL_KEEP_SIZE:
	case 0:
		return dt_populate(slot, offset, len);
	default:
		return -EOPNOTSUPP;
	}
}
