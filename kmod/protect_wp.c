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
 * A run is settled when a write-protect pass finds no writable PTE and, right
 * after it, a clean pass finds no dirty one.  Take any PTE.  It was read-only when
 * the first of these two looked at it, and clean when the second did.  If it had
 * been dirty at the first look, it would have been so at the second: only our
 * clean pass cleans PTEs, or a zap, which moves the bit to PG_dirty, where gather
 * looks.  So at the first look it was read-only and clean.
 *
 * A PTE that was not there at the first look was copied since, by fork(), from one
 * that was writable, so dirty at its own first look; if the clean pass did not find
 * that one dirty, it was zapped.  The caller sees such copies, and opens the run
 * again.
 *
 * It would not do to stop when a write-protect pass that follows a clean pass finds
 * nothing: mprotect() to read-write before the clean pass, a write after it, and
 * mprotect() to read-only leave a PTE which that pass does not see, dirty, with no
 * open bit.
 */
#include <linux/mm.h>

#include "compat/compat.h"
#include "protect.h"

/* A quiet run takes two; more do not help where writers fight over its pages. */
#define DT_WP_ROUNDS 3

static bool dt_wp_run(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		      pgoff_t base, unsigned long *dirty)
{
	pgoff_t start = 0, end = 0;	/* bounds of what was recorded: unused */
	unsigned long writable, cleaned;
	int i;

	for (i = 0; i < DT_WP_ROUNDS; i++) {
		writable = wp_shared_mapping_range(mapping, first, npages);
		cleaned = clean_record_shared_mapping_range(mapping, first, npages,
							    base, dirty, &start, &end);
		if (!writable && !cleaned)
			return true;
	}
	return false;
}

const struct dt_protect_ops dt_protect_wp = {
	.name = "wp",
	.id = DIRTYTRACK_STRATEGY_WP,
	.run = dt_wp_run,
};
