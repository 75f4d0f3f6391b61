// SPDX-License-Identifier: GPL-2.0-only
/*
 * Giving memory back to the host, and getting it ahead of use.
 *
 * A released page reads as zero from then on, with no fault that would tell: so it
 * is reported as dirty, in the state HOLE unless it was touched again.  A collect
 * knows it by a bit of its own, for its absence may be over: a mere read gives it
 * memory again.  The open bit makes the collect look.
 */
#include <linux/fs.h>
#include <linux/falloc.h>
#include <linux/highmem.h>
#include <linux/sched/signal.h>

#include "dirtytrack.h"
#include "trace.h"

/* How much is done under one hold of the invalidate_lock: faults wait for it. */
#define DT_RELEASE_BATCH DT_CHUNK_PAGES

/* Releases pages of one chunk. */
static void dt_release_batch(struct dt_slot *slot, pgoff_t first, pgoff_t end)
{
	struct address_space *mapping = slot->inode.i_mapping;
	struct page *page;
	u64 released = 0;
	LIST_HEAD(pages);
	bool wake = false;
	pgoff_t pgoff;

	filemap_invalidate_lock(mapping);
	for (pgoff = first; pgoff < end && !dt_chunk_empty(slot, first); pgoff++) {
		page = dt_page_remove(slot, pgoff);
		if (!page)
			continue;
		/* Not on the LRU: its list head is free for us. */
		list_add(&page->lru, &pages);
		released++;
		slot->released[pgoff / DT_WORD_BITS] |= 1ULL << (pgoff % DT_WORD_BITS);
		dt_bitmap_set(&slot->open, pgoff);
		wake |= dt_rings_push(slot, pgoff);
	}
	if (!list_empty(&pages)) {
		unmap_mapping_pages(mapping, first, end - first, false);
		dt_pages_trim(slot, first);
		trace_dirtytrack_release(slot->id, first, end - first, released);
	}
	filemap_invalidate_unlock(mapping);
	if (wake)
		dt_rings_wake(slot);

	while (!list_empty(&pages)) {
		page = list_first_entry(&pages, struct page, lru);
		list_del(&page->lru);
		put_page(page);
	}
}

static int dt_release(struct dt_slot *slot, pgoff_t first, pgoff_t end)
{
	pgoff_t stop;

	for (; first < end; first = stop) {
		stop = min(end, round_down(first, DT_RELEASE_BATCH) + DT_RELEASE_BATCH);
		dt_release_batch(slot, first, stop);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* Zeroes a part of a page; a hole is zero already. */
static void dt_zero(struct dt_slot *slot, loff_t offset, loff_t end)
{
	pgoff_t pgoff = offset >> PAGE_SHIFT;
	struct page *page;

	if (offset >= end)
		return;
	filemap_invalidate_lock_shared(slot->inode.i_mapping);
	page = dt_page_find(slot, pgoff);
	if (page) {
		get_page(page);
		memset(page_address(page) + offset_in_page(offset), 0, end - offset);
		dt_mark_written(slot, pgoff, page);
		put_page(page);
	}
	filemap_invalidate_unlock_shared(slot->inode.i_mapping);
}

static long dt_punch(struct dt_slot *slot, loff_t offset, loff_t len)
{
	loff_t end = min(offset + len, i_size_read(&slot->inode));
	loff_t first = round_up(offset, PAGE_SIZE);	/* whole pages */
	loff_t last = round_down(end, PAGE_SIZE);

	if (offset >= end)
		return 0;
	dt_zero(slot, offset, min(end, first));
	if (first > last)
		return 0;			/* within one page */
	dt_zero(slot, last, end);
	return dt_release(slot, first >> PAGE_SHIFT, last >> PAGE_SHIFT);
}

static long dt_populate(struct dt_slot *slot, loff_t offset, loff_t len)
{
	struct address_space *mapping = slot->inode.i_mapping;
	loff_t end = offset + len;
	struct page *page;
	pgoff_t pgoff;

	if (end > i_size_read(&slot->inode))
		return -EPERM;			/* its size cannot change */
	for (pgoff = offset >> PAGE_SHIFT; (loff_t)pgoff << PAGE_SHIFT < end; pgoff++) {
		if (signal_pending(current))
			return -EINTR;		/* what is there, stays */
		filemap_invalidate_lock_shared(mapping);
		page = dt_page_get(slot, pgoff);
		filemap_invalidate_unlock_shared(mapping);
		if (IS_ERR(page))
			return PTR_ERR(page);
		cond_resched();
	}
	return 0;
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
 * for all slots), EINTR, ENOMEM.
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
