/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two strategies to take write permission away, behind one interface.
 */
#ifndef DIRTYTRACK_PROTECT_H
#define DIRTYTRACK_PROTECT_H

#include "dirtytrack.h"

/**
 * struct dt_protect_ops - a way to take write permission away
 * @name: value of the module parameter that selects it
 * @id: enum dirtytrack_strategy
 * @clean: take the dirty bits of a run of pages of a mapping in every address space,
 *	and leave them writable; NULL if this strategy cannot
 * @run: protect a run, whether or not @clean was called for it
 *
 * Both are called with the invalidate_lock held, for open bits that were consumed
 * before.
 *
 * @run returns true if the run is settled: each of its PTEs was, at one
 * moment of the call, read-only and clean, or absent; so that since then only
 * dt_grant(), which sets the open bit again, can have made it writable, or it is the
 * copy of such a one by fork().  False: not so; the caller opens the run again.
 *
 * No dirty bit of a PTE is dropped: it is in @dirty (bit 0 stands for page @base)
 * or in PG_dirty of the page when the call returns.  TLBs are flushed then, so
 * that a write which completed before is in the page.
 */
struct dt_protect_ops {
	const char *name;
	u32 id;
	void (*clean)(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		      pgoff_t base, unsigned long *dirty);
	bool (*run)(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		    pgoff_t base, unsigned long *dirty);
};

#ifdef DT_HAVE_MAPPING_DIRTY_HELPERS
extern const struct dt_protect_ops dt_protect_wp;
#endif
extern const struct dt_protect_ops dt_protect_zap;

int dt_protect_init(void);
const struct dt_protect_ops *dt_protect_of(const struct dt_slot *slot);

#endif
