/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a page of the store itself tells: was it written, may somebody be writing?
 */
#ifndef DIRTYTRACK_PAGE_H
#define DIRTYTRACK_PAGE_H

#include <linux/mm.h>

/* Of order 0, and never a part of anything larger: there is no head to look for. */
static inline struct folio *dt_page_folio(struct page *page)
{
	return (struct folio *)page;
}

/**
 * dt_page_held - does someone besides the slot and its mappings hold a page?
 * @page: a page of the store
 *
 * The slot holds one reference and each mapping one.  mapcount goes up after the
 * reference and down before it, so unless both are the same before and after, the
 * answer is yes.  Such a user sets PG_dirty before he drops his reference: look at
 * dt_page_written() after.
 *
 * Context: invalidate_lock held.
 * Return: true if that cannot be excluded.
 */
static inline bool dt_page_held(struct page *page)
{
	struct folio *folio = dt_page_folio(page);
	int before, count, after, again;

	before = atomic_read(&folio->_mapcount) + 1;
	smp_rmb();	/* pairs with the reference taken before mapcount goes up */
	count = folio_ref_count(folio);
	smp_rmb();	/* pairs with mapcount going down before the reference */
	after = atomic_read(&folio->_mapcount) + 1;
	smp_rmb();	/* with both: one mapping may have gone and another come */
	again = folio_ref_count(folio);
	smp_rmb();	/* pairs with PG_dirty set before the reference is dropped */
	return before != after || count != again || count != 1 + after;
}

/**
 * dt_page_ours_alone - has only the slot a page?
 * @page: a page of the store, which was just taken out of all mappings
 *
 * Context: invalidate_lock held exclusive, and a full barrier since: who takes
 * references with no lock (get_user_pages_fast()) looks again if the page is still
 * mapped after he has taken one, and it is not.
 * Return: true if nobody else has a reference, and nothing maps it.
 */
static inline bool dt_page_ours_alone(struct page *page)
{
	struct folio *folio = dt_page_folio(page);
	bool alone = folio_ref_count(folio) == 1 && atomic_read(&folio->_mapcount) == -1;

	smp_rmb();	/* pairs with PG_dirty set before the reference is dropped */
	return alone;
}

/**
 * dt_page_written - has a page PG_dirty?
 * @page: a page of the store
 *
 * That is where a zap leaves the dirty bits of PTEs, where KVM and users of
 * get_user_pages() say that they wrote, and dt_mark_written() that the kernel did.
 *
 * Return: whether it has.
 */
static inline bool dt_page_written(struct page *page)
{
	return folio_test_dirty(dt_page_folio(page));
}

/**
 * dt_page_take_written - take PG_dirty from a page
 * @page: a page of the store
 *
 * Return: whether it had it.
 */
static inline bool dt_page_take_written(struct page *page)
{
	return folio_test_clear_dirty(dt_page_folio(page));
}

#endif
