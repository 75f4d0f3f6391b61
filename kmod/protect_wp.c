// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protect by write-protecting PTEs in place.
 *
 * A PTE that is read-only but dirty is not protected: mprotect() to PROT_READ and
 * back makes it writable without a fault (can_change_pte_writable()).  Nor is one
 * that is clean but writable.
 *
 * The kernel's passes (mm/mapping_dirty_helpers.c) do one of the two each, and flush
 * TLBs for what they changed, which a module cannot.  Each takes the page-table locks
 * anew, so between them mprotect() can undo what the one did, or a grant come in.
 *
 * First comes their write-protect pass.  Then, where there are few mappings, a pass of
 * our own takes the dirty bits.  A PTE that it finds read-only while nobody has a flush
 * of that address space pending (mm_tlb_flush_pending(): who changes PTEs and flushes
 * later has said so before he takes the lock) is in no TLB as writable: once it is clean
 * it is settled, and nothing has to be flushed for that.  One that it finds writable and
 * open was granted meanwhile: it stays, and its dirty bit with it, which is reported now
 * as it may be older.
 *
 * Where it finds another, and where it may not go (many mappings; a secondary MMU follows,
 * or userfaultfd write-protects), the kernel's clean pass follows.  A run is settled
 * when a clean pass that follows a write-protect pass finds nothing
 * dirty.  Take any PTE.  It was read-only when the write-protect pass had been there.
 * Had it been dirty then, it would have been so at the clean pass: only our clean
 * passes clean PTEs, or a zap, which moves the bit to PG_dirty, where gather looks.
 * So it was clean and read-only: protected.  In a quiet run this takes one round, if
 * a clean pass goes first and takes what there is.
 *
 * Of a PTE that was not there when the passes came by, they saw the original before
 * the copy: fork() inserts the child's VMA behind its parent's, before it copies, and
 * mremap() takes the lock of the walk where the order is another.  A moved one is as
 * the original was.  A copy
 * can be writable if mprotect() has made the original so; then that was dirty,
 * and the clean pass did not find it so only if it was zapped.  The caller sees such
 * copies, and opens the run again.
 *
 * It would not do to stop when a write-protect pass that follows a clean pass finds
 * nothing: mprotect() to read-write before the clean pass, a write after it, and
 * mprotect() to read-only leave a PTE which that pass does not see, dirty, with no
 * open bit.
 */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mmu_notifier.h>

#include "compat/compat.h"
#include "dirtytrack.h"
#include "protect.h"
#include "table.h"

/* A quiet run takes one; more do not help where writers fight over its pages. */
#define DT_WP_ROUNDS 3

/* With more mappings than this the kernel's passes do it all. */
#define DT_WP_MAPPINGS 8

/**
 * struct dt_wp_take - a pass of our own at work
 * @slot: the slot
 * @base: page that bit 0 of @dirty stands for
 * @dirty: gets the dirty bits of the PTEs
 * @settled: all PTEs so far are protected or open
 * @mm: the address space that it is at
 * @end: address up to which it does the PTEs of the table that it is at
 * @pgoff: page of the first
 */
struct dt_wp_take {
	struct dt_slot *slot;
	pgoff_t base;
	unsigned long *dirty;
	bool settled;
	struct mm_struct *mm;
	unsigned long end;
	pgoff_t pgoff;
};

/* Takes the dirty bits of the PTEs of one table, from @address on. */
static void dt_wp_take_table(pte_t *ptep, unsigned long address, void *data)
{
	struct dt_wp_take *take = data;
	unsigned long *dirty = take->dirty;
	struct mm_struct *mm = take->mm;
	u32 npages = (take->end - address) >> PAGE_SHIFT;
	u32 bit = take->pgoff - take->base;
	u32 i;

	if (mm_tlb_flush_pending(mm)) {
		take->settled = false;
		return;
	}
	for (i = 0; i < npages; i++) {
		pte_t pte = ptep_get(ptep + i);
		bool was_dirty = pte_dirty(pte), writable = pte_write(pte);

		if (!pte_present(pte))
			continue;
		if (was_dirty)
			__set_bit(bit + i, dirty);
		if (writable) {
			if (!dt_bitmap_test(&take->slot->open, take->pgoff + i))
				take->settled = false;
		} else if (was_dirty) {
			/* The processor may set other bits until it is gone. */
			pte = ptep_get_and_clear(mm, address + i * PAGE_SIZE, ptep + i);
			set_pte_at(mm, address + i * PAGE_SIZE, ptep + i,
				   pte_mkclean(pte));
		}
	}
}

static pmd_t *dt_pmd_of(struct mm_struct *mm, unsigned long address)
{
	pgd_t *pgd = pgd_offset(mm, address);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, address);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	pud = pud_offset(p4d, address);
	if (pud_none(*pud) || pud_bad(*pud))
		return NULL;
	return pmd_offset(pud, address);
}

static void dt_wp_take_mapping(struct dt_wp_take *take, struct vm_area_struct *vma,
			       pgoff_t first, pgoff_t end)
{
	pgoff_t pgoff = max(first, vma->vm_pgoff);
	unsigned long address, stop;

	end = min(end, vma->vm_pgoff + vma_pages(vma));
	if (pgoff >= end)
		return;
	address = vma->vm_start + ((pgoff - vma->vm_pgoff) << PAGE_SHIFT);
	stop = address + ((end - pgoff) << PAGE_SHIFT);
	take->mm = vma->vm_mm;
	for (; address < stop; address = take->end) {
		pmd_t *pmd = dt_pmd_of(vma->vm_mm, address);

		take->end = min((address & PMD_MASK) + PMD_SIZE, stop);
		take->pgoff = pgoff;
		if (pmd)
			dt_table_apply(vma->vm_mm, pmd, address, dt_wp_take_table, take);
		pgoff += (take->end - address) >> PAGE_SHIFT;
	}
}

/* May a pass of our own do these mappings, whose lock is held? */
static bool dt_wp_may_take(struct address_space *mapping)
{
	struct rb_node *node;
	int nr = 0;

	for (node = rb_first_cached(&mapping->i_mmap); node; node = rb_next(node)) {
		struct vm_area_struct *vma;

		vma = rb_entry(node, struct vm_area_struct, shared.rb);
		if (++nr > DT_WP_MAPPINGS || vma->vm_flags & VM_UFFD_WP ||
		    mm_has_notifiers(vma->vm_mm))
			return false;
	}
	return true;
}

static bool dt_wp_few(struct address_space *mapping)
{
	bool may;

	i_mmap_lock_read(mapping);
	may = dt_wp_may_take(mapping);
	i_mmap_unlock_read(mapping);
	return may;
}

/*
 * Takes the dirty bits of a run that was write-protected, in all mappings.
 *
 * Page tables stay while their VMA is in the tree, which only who has its lock for
 * writing takes it out of, but for those that may go at any time (table.h).
 *
 * Return: true if the run is settled.
 */
static bool dt_wp_take(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		       pgoff_t base, unsigned long *dirty)
{
	struct dt_wp_take take = {
		.slot = dt_inode_slot(mapping->host),
		.base = base,
		.dirty = dirty,
	};
	struct rb_node *node;

	i_mmap_lock_read(mapping);
	take.settled = dt_wp_may_take(mapping);
	node = take.settled ? rb_first_cached(&mapping->i_mmap) : NULL;
	for (; node; node = rb_next(node))
		dt_wp_take_mapping(&take, rb_entry(node, struct vm_area_struct, shared.rb),
				   first, first + npages);
	i_mmap_unlock_read(mapping);
	return take.settled;
}

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
	bool few = dt_wp_few(mapping);
	int i;

	if (!few)
		dt_clean_record(mapping, first, npages, base, dirty);
	for (i = 0; i < DT_WP_ROUNDS; i++) {
		wp_shared_mapping_range(mapping, first, npages);
		if (few && dt_wp_take(mapping, first, npages, base, dirty))
			return true;
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
