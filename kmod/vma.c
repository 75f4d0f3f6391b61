// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of a slot, and the one function that grants write permission.
 *
 * The invariant that all tracking rests on:
 *
 *	A writable PTE implies that the page's open bit is set, or that a collect
 *	which consumed the bit is about to protect that PTE.
 *
 * PTEs are born read-only: vm_page_prot is, because the VMA has a page_mkwrite.
 * dt_grant() sets the open bit and makes the PTE writable, both under the page
 * table lock; often those of a whole group of pages (group.c).  A collect consumes
 * the bits first and protects then, which takes the same locks:
 *
 *	grant                              collect (collect.c)
 *	  lock(ptl)                          xchg(open word, 0)
 *	  set open bit                       lock(ptl)
 *	  write PTE                          protect PTE
 *	  unlock(ptl)                        unlock(ptl)
 *
 * If the xchg saw the bit, the protect pass waits for the grant and revokes it.
 * If it did not, the bit is there for the next collect.  page_mkwrite returns
 * VM_FAULT_NOPAGE, so that the core never makes the PTE writable itself, at a
 * time when the bit may be gone.
 *
 * What else could make a PTE writable is excluded:
 *
 * - mprotect() gives permission back to a *dirty* PTE of a shared mapping: the
 *   protect pass leaves PTEs clean (protect_wp.c).
 * - fork() copies a writable PTE as a writable clean one: the child's is found by
 *   the protect pass, as the parent's, or the collect looks again (collect.c).
 * - A private mapping writes to pages that are not the slot's: refused.
 * - walk_page_mapping() ends at the first VMA that the protect pass's helpers
 *   skip, that is one without VM_MAYWRITE, and so would leave those after it
 *   unprotected: a mapping of an fd that is not open for writing is refused.
 * - Migration and huge pages: our pages are not movable, and the VMA is
 *   VM_NOHUGEPAGE.
 */
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>

#include "compat/compat.h"
#include "dirtytrack.h"
#include "table.h"
#include "trace.h"

/**
 * struct dt_grant - a grant at work
 * @vma: the mapping
 * @slot: the slot
 * @pgoff: the faulting page
 * @pfn: what is mapped where the fault was
 * @mask: which pages of its word of the open bitmap may be granted
 * @granted: which were
 * @wake: a ring's consumer is to be woken
 */
struct dt_grant {
	struct vm_area_struct *vma;
	struct dt_slot *slot;
	pgoff_t pgoff;
	unsigned long pfn;
	u64 mask;
	u64 granted;
	bool wake;
};

/* Is a page mapped read-only here, of whose write userfaultfd need not hear first? */
static __always_inline bool dt_may_grant(pte_t pte)
{
	return pte_present(pte) && !pte_write(pte) && !pte_uffd_wp(pte);
}

/* Does the soft-dirty bit of this PTE wait for a fault? */
static bool dt_soft_dirty_armed(struct vm_area_struct *vma, pte_t pte)
{
	return IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) &&
	       !(vma->vm_flags & VM_SOFTDIRTY) && !pte_soft_dirty(pte);
}

/*
 * Grants the faulting page, whose PTE this is, and its neighbours in the page table.
 * All under the table's lock: look, open, write the PTEs.
 */
static void dt_grant_ptes(pte_t *ptep, unsigned long addr, void *data)
{
	struct dt_grant *g = data;
	struct vm_area_struct *vma = g->vma;
	u32 here = g->pgoff % DT_WORD_BITS;
	pte_t faulting = ptep_get(ptep), pte;
	u64 neighbours = 0, left, open;

	/* Not what the fault saw, or no longer in need: let it fault again. */
	if (!dt_may_grant(faulting) || pte_pfn(faulting) != g->pfn ||
	    !(vma->vm_flags & VM_WRITE))
		return;
	for (left = g->mask & ~(1ULL << here); left; left &= left - 1) {
		pte = ptep_get(ptep - here + __ffs64(left));
		if (dt_may_grant(pte) && !dt_soft_dirty_armed(vma, pte))
			neighbours |= left & -left;
	}

	open = neighbours | 1ULL << here;
	dt_bitmap_or(&g->slot->open, g->pgoff / DT_WORD_BITS, open);
	if (unlikely(READ_ONCE(g->slot->nrings)))
		g->wake = dt_rings_push_word(g->slot, g->pgoff / DT_WORD_BITS, open);
	/* From the old ones, which may be dirty: a dirty bit is never dropped. */
	pte = pte_mkdirty(pte_mkyoung(pte_mkwrite_novma(faulting)));
	set_pte_at(vma->vm_mm, addr, ptep, pte);
	for (left = neighbours; left; left &= left - 1) {
		long i = (long)__ffs64(left) - here;

		pte = pte_mkwrite_novma(ptep_get(ptep + i));
		set_pte_at(vma->vm_mm, addr + i * PAGE_SIZE, ptep + i, pte);
	}
	g->granted = open;
}

/* The pages of the faulting one's word that its page table has in this mapping. */
static u64 dt_table_mask(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long start = max(vmf->address & PMD_MASK, vma->vm_start);
	unsigned long end = min((vmf->address & PMD_MASK) + PMD_SIZE, vma->vm_end);
	unsigned long address = vmf->address & PAGE_MASK;

	return dt_word_mask(vmf->pgoff / DT_WORD_BITS,
			    vmf->pgoff - ((address - start) >> PAGE_SHIFT),
			    vmf->pgoff + ((end - address) >> PAGE_SHIFT));
}

/*
 * Grants write permission for the page that is mapped at the faulting address, and
 * for those of @mask that are mapped beside it.  Does nothing if it is no longer so: the
 * fault is taken again.
 *
 * Context: a fault handler: mmap_lock or the VMA's lock held.
 */
static void dt_grant(struct vm_fault *vmf, struct dt_slot *slot, struct page *page,
		     u64 mask)
{
	struct dt_grant g = {
		.vma = vmf->vma,
		.slot = slot,
		.pgoff = vmf->pgoff,
		.pfn = page_to_pfn(page),
		.mask = mask,
	};

	if (mask & (mask - 1))		/* more than one page */
		g.mask &= dt_table_mask(vmf);
	/* If the table went away under us there is nothing to undo: fault again. */
	dt_table_apply(vmf->vma->vm_mm, vmf->pmd, vmf->address, dt_grant_ptes, &g);
	if (!g.granted)
		return;
	this_cpu_add(slot->stats->grants, hweight64(g.granted));
	trace_dirtytrack_grant(slot->id, g.pgoff, vmf->address, hweight64(g.granted));
	if (g.wake)
		dt_rings_wake(slot);
}

static int dt_clear_marker(pte_t *ptep, unsigned long addr, void *data)
{
	struct vm_area_struct *vma = data;

	if (pte_is_uffd_wp_marker(ptep_get(ptep)))
		pte_clear(vma->vm_mm, addr, ptep);
	return 0;
}

/*
 * vm_insert_page() takes a userfaultfd marker for a page that is there, and would
 * do so for ever.  Without the marker userfaultfd takes the page for written,
 * which is true now, or (a read) harmless.
 */
static int dt_insert(struct vm_fault *vmf, struct page *page)
{
	struct vm_area_struct *vma = vmf->vma;
	int err = vm_insert_page(vma, vmf->address, page);

	if (err != -EBUSY)
		return err;
	apply_to_page_range(vma->vm_mm, vmf->address, PAGE_SIZE, dt_clear_marker,
			    vma);
	err = vm_insert_page(vma, vmf->address, page);
	/* Another thread's fault was faster. */
	return err == -EBUSY ? 0 : err;
}

/**
 * dt_note_mapping - remember what kinds of mappings a slot has
 * @slot: the slot
 * @vma: a mapping of it
 */
void dt_note_mapping(struct dt_slot *slot, struct vm_area_struct *vma)
{
	if (mm_has_notifiers(vma->vm_mm) && !READ_ONCE(slot->has_notifier))
		WRITE_ONCE(slot->has_notifier, true);
	if (vma->vm_flags & VM_UFFD_WP && !READ_ONCE(slot->has_uffd_wp))
		WRITE_ONCE(slot->has_uffd_wp, true);
}

static vm_fault_t dt_vma_fault(struct vm_fault *vmf)
{
	struct dt_slot *slot = dt_file_slot(vmf->vma->vm_file);
	struct address_space *mapping = slot->inode.i_mapping;
	vm_fault_t ret = VM_FAULT_NOPAGE;
	struct page *page;
	bool fresh;
	int err;

	this_cpu_inc(slot->stats->faults);
	dt_note_mapping(slot, vmf->vma);
	if (vmf->pgoff >= slot->npages)
		return VM_FAULT_SIGBUS;
	if (vmf->flags & FAULT_FLAG_WRITE) {
		ret = dt_limit_fault(slot, vmf);
		if (ret)
			return ret;
		ret = VM_FAULT_NOPAGE;
	}

	/* Keeps the page in the slot until its PTE can be found and zapped. */
	filemap_invalidate_lock_shared(mapping);
	page = dt_page_find(slot, vmf->pgoff);
	fresh = !page;
	if (fresh)
		page = dt_page_get(slot, vmf->pgoff, NUMA_NO_NODE);
	if (IS_ERR(page)) {
		/* SIGBUS over the bound: VM_FAULT_OOM would fault again, for ever. */
		ret = vmf_error(PTR_ERR(page));
		goto unlock;
	}
	if (PageHWPoison(page)) {
		ret = VM_FAULT_HWPOISON;
		goto unlock;
	}
	err = dt_insert(vmf, page);
	if (err)
		ret = vmf_error(err);
	else if (vmf->flags & FAULT_FLAG_WRITE)	/* not in a second fault */
		dt_grant(vmf, slot, page, fresh ? 1ULL << (vmf->pgoff % DT_WORD_BITS) :
						      dt_group_mask(slot, vmf->pgoff));
unlock:
	filemap_invalidate_unlock_shared(mapping);
	return ret;
}

/*
 * Without the invalidate_lock: the PTE that is granted is one that maps the page
 * the fault saw, and a release zaps it whether it is writable or not.
 */
static vm_fault_t dt_vma_page_mkwrite(struct vm_fault *vmf)
{
	struct dt_slot *slot = dt_file_slot(vmf->vma->vm_file);

	this_cpu_inc(slot->stats->faults);
	dt_note_mapping(slot, vmf->vma);
	if (likely(!READ_ONCE(slot->limit.rate)) || dt_limit_pass(slot, vmf->pgoff))
		dt_grant(vmf, slot, vmf->page, dt_group_mask(slot, vmf->pgoff));
	else			/* to .fault, which can wait: see limit.c */
		unmap_mapping_pages(slot->inode.i_mapping, vmf->pgoff, 1, false);
	return VM_FAULT_NOPAGE;
}

/*
 * Maps nothing: called under RCU, it could not allocate.  But its being there is
 * what lets 6.4 and later call .fault under the VMA's lock, instead of dropping
 * it and taking mmap_lock for every fault.
 */
static vm_fault_t dt_vma_map_pages(struct vm_fault *vmf, pgoff_t start, pgoff_t end)
{
	return 0;
}

/* A VMA was copied, with its PTEs: see dt_collect_run(). */
static void dt_vma_open(struct vm_area_struct *vma)
{
	atomic_inc(&dt_file_slot(vma->vm_file)->vma_copies);
}

static const struct vm_operations_struct dt_vm_ops = {
	.open = dt_vma_open,
	.fault = dt_vma_fault,
	.map_pages = dt_vma_map_pages,
	.page_mkwrite = dt_vma_page_mkwrite,
};

/**
 * dt_slot_mmap - map a slot
 * @file: the slot
 * @vma: the mapping
 *
 * Return: 0; EINVAL for a private mapping, EACCES for an fd that is not open for
 * writing (a PROT_READ mapping of one that is, is fine).
 */
int dt_slot_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	if (!(vma->vm_flags & VM_MAYWRITE))
		return -EACCES;
	vm_flags_set(vma, VM_MIXEDMAP | VM_DONTEXPAND | VM_NOHUGEPAGE);
	vma->vm_ops = &dt_vm_ops;
	dt_note_mapping(dt_file_slot(file), vma);
	return 0;
}
