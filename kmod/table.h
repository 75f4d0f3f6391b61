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
 * dt_table_lock - lock the page table that has an address's entry
 * @mm: the address space
 * @pmd: what points to the table
 * @address: the address
 * @ptl: gets the lock
 *
 * Tables are freed after a grace period of RCU, or only with locks that the caller
 * holds against it (a fault the mmap_lock or the VMA's).  Either way one that is still in
 * its place once it is locked stays there until it is unlocked.
 *
 * Return: the entry, or NULL if there is no table: then there is nothing to unlock.
 */
static inline pte_t *dt_table_lock(struct mm_struct *mm, pmd_t *pmd,
				   unsigned long address, spinlock_t **ptl)
{
	pmd_t entry;

	rcu_read_lock();
	entry = READ_ONCE(*pmd);
	if (unlikely(pmd_bad(entry)))		/* none and huge are bad, too */
		goto none;
	*ptl = pte_lockptr(mm, &entry);
	spin_lock(*ptl);
	if (likely(entry.pmd == READ_ONCE(*pmd).pmd))
		return pte_offset_kernel(&entry, address);
	spin_unlock(*ptl);
none:
	rcu_read_unlock();
	return NULL;
}

static inline void dt_table_unlock(spinlock_t *ptl)
{
	spin_unlock(ptl);
	rcu_read_unlock();
}

#endif
