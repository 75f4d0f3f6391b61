/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A page table at hand, locked.
 *
 * apply_to_page_range() finds and locks one, too, but walks down from the top, which
 * took a fifth of all that a write fault of one page costs.
 */
#ifndef DIRTYTRACK_TABLE_H
#define DIRTYTRACK_TABLE_H

#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/rcupdate.h>

/**
 * dt_table_apply - call a function with the page table of an address locked
 * @mm: the address space
 * @pmd: what points to the table
 * @address: the address
 * @fn: gets its entry, the address and @data; not called if there is no table
 * @data: for @fn
 *
 * Tables are freed after a grace period of RCU, or only with locks that the caller
 * holds against it (a fault the mmap_lock or the VMA's).  Either way one that is still in
 * its place once it is locked stays there until it is unlocked.
 */
static __always_inline void dt_table_apply(struct mm_struct *mm, pmd_t *pmd,
					   unsigned long address,
					   void (*fn)(pte_t *ptep, unsigned long address,
						      void *data), void *data)
{
	spinlock_t *ptl;	/* of the table, in whose page the kernel has it */
	pmd_t entry;

	rcu_read_lock();
	entry = READ_ONCE(*pmd);
	if (likely(!pmd_bad(entry))) {		/* none and huge are bad, too */
		ptl = pte_lockptr(mm, &entry);
		spin_lock(ptl);
		if (likely(entry.pmd == READ_ONCE(*pmd).pmd))
			fn(pte_offset_kernel(&entry, address), address, data);
		spin_unlock(ptl);
	}
	rcu_read_unlock();
}

#endif
