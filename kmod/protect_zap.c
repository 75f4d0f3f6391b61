// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protect by removing PTEs: for kernels without mapping-dirty helpers.
 *
 * A zap moves the PTE's dirty bit to PG_dirty in the same critical section that
 * clears the PTE, and there is nothing left for mprotect() to make writable: one
 * pass, always settled.  The price is a fault for the next read, too.
 */
#include <linux/mm.h>

#include "protect.h"

static bool dt_zap_run(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		       pgoff_t base, unsigned long *dirty)
{
	unmap_mapping_pages(mapping, first, npages, false);
	return true;
}

const struct dt_protect_ops dt_protect_zap = {
	.name = "zap",
	.id = DIRTYTRACK_STRATEGY_ZAP,
	.run = dt_zap_run,
};
