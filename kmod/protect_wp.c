// SPDX-License-Identifier: GPL-2.0-only
/*
 * Protect by write-protecting PTEs in place.
 *
 * A PTE that is read-only but dirty is not protected: mprotect() to PROT_READ and
 * back makes it writable without a fault (can_change_pte_writable()).  Nor is one
 * that is clean but writable.
 *
 * Where there are few mappings, each PTE is made both at once, under its table's lock:
 * a run is settled by one pass.  A PTE that was not there when the pass came by was
 * copied or moved since, for the pass sees the original before the copy: fork() inserts
 * the child's VMA behind its parent's, before it copies, and mremap() takes the lock of
 * the walk where the order is another.  So it is as the original was: protected.
 *
 * What a module cannot do is flush TLBs.  But a write-protect pass of the kernel's
 * (mm/mapping_dirty_helpers.c) flushes all of its range, for the sake of whoever has
 * changed PTEs in it and not flushed yet, if somebody says that he has
 * (mm_tlb_flush_nested()).  So we do, and let it follow, with nothing to protect.
 *
 * Elsewhere the kernel's passes do it all: where there are many mappings, where a
 * secondary MMU follows, which they tell, and where userfaultfd write-protects.  Each
 * pass protects or cleans, and takes the page
 * table locks anew, so between them mprotect() can undo what the one did, or a
 * grant come in.
 *
 * Then a run is settled when a clean pass that follows a write-protect pass finds nothing
 * dirty.  Take any PTE.  It was read-only when the write-protect pass had been there.
 * Had it been dirty then, it would have been so at the clean pass: only our clean
 * passes clean PTEs, or a zap, which moves the bit to PG_dirty, where gather looks.
 * So it was read-only and clean.  Written pages are dirty: so another clean pass goes
 * first and takes what there is, and this one sees only what was written between
 * that and the write-protect pass.
 *
 * Of a PTE that was not there when the write-protect pass came by, both passes see the
 * original before the copy, as above.  A moved one is as the original was.  A copy
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
#include <linux/sched/mm.h>

#include "compat/compat.h"
#include "protect.h"
#include "table.h"

/* A quiet run takes one; more do not help where writers fight over its pages. */
#define DT_WP_ROUNDS 3

/* With more mappings than this the kernel's passes do it all. */
#define DT_WP_MAPPINGS 8

/**
 * struct dt_wp_once - a pass of our own at work
 * @base: page that bit 0 of @dirty stands for
 * @dirty: gets the dirty bits of the PTEs
 * @changed: some PTE was
 * @mm: the address space that it is at
 * @end: address up to which it does the PTEs of the table that it is at
 * @pgoff: page of the first
 * @mms: whose TLBs are to be flushed for it; one for each mapping
 * @nr: their number
 */
struct dt_wp_once {
	pgoff_t base;
	unsigned long *dirty;
	bool changed;
	struct mm_struct *mm;
	unsigned long end;
	pgoff_t pgoff;
	struct mm_struct *mms[DT_WP_MAPPINGS];
	int nr;
};

/* Protects the PTEs of one table, from @address on. */
static void dt_wp_table(pte_t *ptep, unsigned long address, void *data)
{
	struct dt_wp_once *once = data;
	struct mm_struct *mm = once->mm;
	unsigned long end = once->end;
	pgoff_t pgoff = once->pgoff;

	for (; address < end; address += PAGE_SIZE, ptep++, pgoff++) {
		pte_t pte = ptep_get(ptep);

		if (!pte_present(pte) || !(pte_write(pte) || pte_dirty(pte)))
			continue;
		/* The processor may set its dirty bit until it is gone. */
		pte = ptep_get_and_clear(mm, address, ptep);
		if (pte_dirty(pte))
			__set_bit(pgoff - once->base, once->dirty);
		set_pte_at(mm, address, ptep, pte_wrprotect(pte_mkclean(pte)));
		once->changed = true;
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

static void dt_wp_mapping(struct dt_wp_once *once, struct vm_area_struct *vma,
			  pgoff_t first, pgoff_t end)
{
	pgoff_t pgoff = max(first, vma->vm_pgoff);
	unsigned long address, stop;

	end = min(end, vma->vm_pgoff + vma_pages(vma));
	if (pgoff >= end)
		return;
	address = vma->vm_start + ((pgoff - vma->vm_pgoff) << PAGE_SHIFT);
	stop = address + ((end - pgoff) << PAGE_SHIFT);
	once->mm = vma->vm_mm;
	for (; address < stop; address = once->end) {
		pmd_t *pmd = dt_pmd_of(vma->vm_mm, address);

		once->end = min((address & PMD_MASK) + PMD_SIZE, stop);
		once->pgoff = pgoff;
		if (pmd)
			dt_table_apply(vma->vm_mm, pmd, address, dt_wp_table, once);
		pgoff += (once->end - address) >> PAGE_SHIFT;
	}
}

/* May a pass of our own do these mappings? */
static bool dt_wp_may_once(struct address_space *mapping)
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

/*
 * Protects a run in one pass over all mappings.
 *
 * Page tables stay while their VMA is in the tree, which only who has its lock for
 * writing takes it out of, but for those that may go at any time (table.h).
 *
 * Return: false if the kernel's passes have to do it.
 */
static bool dt_wp_once(struct address_space *mapping, pgoff_t first, pgoff_t npages,
		       pgoff_t base, unsigned long *dirty)
{
	struct dt_wp_once once = { .base = base, .dirty = dirty };
	struct rb_node *node;
	bool may;

	i_mmap_lock_read(mapping);
	may = dt_wp_may_once(mapping);
	node = may ? rb_first_cached(&mapping->i_mmap) : NULL;
	for (; node; node = rb_next(node)) {
		struct vm_area_struct *vma;

		vma = rb_entry(node, struct vm_area_struct, shared.rb);
		mmgrab(vma->vm_mm);
		inc_tlb_flush_pending(vma->vm_mm);
		once.mms[once.nr++] = vma->vm_mm;
		dt_wp_mapping(&once, vma, first, first + npages);
	}
	i_mmap_unlock_read(mapping);
	if (once.changed)
		wp_shared_mapping_range(mapping, first, npages);
	while (once.nr) {
		dec_tlb_flush_pending(once.mms[--once.nr]);
		mmdrop(once.mms[once.nr]);
	}
	return may;
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
	int i;

	if (dt_wp_once(mapping, first, npages, base, dirty))
		return true;
	dt_clean_record(mapping, first, npages, base, dirty);
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
