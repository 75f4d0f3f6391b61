// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protect by write-protecting PTEs in place, with the helpers of
 * mm/mapping_dirty_helpers.c.
 *
 * A PTE that is read-only but dirty is not protected: mprotect() to PROT_READ and
 * back makes it writable without a fault (can_change_pte_writable()).  Nor is one
 * that is clean but writable.  Each helper does one of the two and takes the page
 * table locks anew, so between them mprotect() can undo what the one did, or a
 * grant come in.
 *
 * A run is settled when a clean pass that follows a write-protect pass finds nothing
 * dirty.  Take any PTE.  It was read-only when the write-protect pass had been there.
 * Had it been dirty then, it would have been so at the clean pass: only our clean
 * passes clean PTEs, or a zap, which moves the bit to PG_dirty, where gather looks.
 * So it was read-only and clean.  Written pages are dirty: so another clean pass goes
 * first and takes what there is, and this one sees only what was written between
 * that and the write-protect pass.
 *
 * A PTE that was not there when the write-protect pass came by was copied or moved
 * since, for both passes see the original before the copy: fork() inserts the
 * child's VMA behind its parent's, before it copies, and mremap() takes the lock of
 * the walk where the order is another.  A moved one is as the original was.  A copy
 * can be writable if mprotect() has made the original so; then that was dirty,
 * and the clean pass did not find it so only if it was zapped.  The caller sees such
 * copies, and opens the run again.
 *
 * It would not do to stop when a write-protect pass that follows a clean pass finds
 * nothing: mprotect() to read-write before the clean pass, a write after it, and
 * mprotect() to read-only leave a PTE which that pass does not see, dirty, with no
 * open bit.
 */
#include <linux/mm.h>

#include "compat/compat.h"
#include "protect.h"

/* A quiet run takes one; more do not help where writers fight over its pages. */
#define DT_WP_ROUNDS 3

static unsigned long dt_clean_record(struct address_space *mapping, pgoff_t first,
				     pgoff_t npages, pgoff_t base,
				     unsigned long *dirty)
{
	pgoff_t start = 0, end = 0;	/* bounds of what was recorded: unused */

	return clean_record_shared_mapping_range(mapping, first, npages, base, dirty,
						 &start, &end);
}

static void dt_wp_clean(struct address_space *mapping, pgoff_t first, pgoff_t npages,
			pgoff_t base, unsigned long *dirty)
{
	dt_clean_record(mapping, first, npages, base, dirty);
}

static bool dt_wp_run(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		      pgoff_t base, unsigned long *dirty)
{
	int i;

	for (i = 0; i < DT_WP_ROUNDS; i++) {
		wp_shared_mapping_range(mapping, first, npages);
		if (!dt_clean_record(mapping, first, npages, base, dirty))
			return true;
	}
	return false;
}

const struct dt_protect_ops dt_protect_wp = {
	.name = "wp",
	.id = DIRTYTRACK_STRATEGY_WP,
	.clean = dt_wp_clean,
	.run = dt_wp_run,
};
