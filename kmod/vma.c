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
 * table lock.  A collect consumes the bits first and protects then, which takes
 * the same locks:
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
#include "trace.h"

struct dt_grant {
	struct vm_area_struct *vma;
	struct dt_slot *slot;
	pgoff_t pgoff;
	unsigned long pfn;
	bool wake;
};

static int dt_grant_pte(pte_t *ptep, unsigned long addr, void *data)
{
	struct dt_grant *g = data;
	struct vm_area_struct *vma = g->vma;
	pte_t pte = ptep_get(ptep);

	/* Not what the fault saw, or no longer in need: let it fault again. */
	if (!pte_present(pte) || pte_pfn(pte) != g->pfn || pte_write(pte))
		return 0;
	if (!(vma->vm_flags & VM_WRITE))
		return 0;
	/* Someone wants to hear of this write first. */
	if (pte_uffd_wp(pte))
		return 0;

	dt_bitmap_set(&g->slot->open, g->pgoff);
	g->wake = dt_rings_push(g->slot, g->pgoff);
	/* From the old one, which may be dirty: a dirty bit is never dropped. */
	pte = pte_mkdirty(pte_mkyoung(pte_mkwrite_novma(pte)));
	set_pte_at(vma->vm_mm, addr, ptep, pte);
	this_cpu_inc(g->slot->stats->grants);
	trace_dirtytrack_grant(g->slot->id, g->pgoff, addr);
	return 0;
}

/*
 * Grants write permission for one page that is mapped at the faulting address.
 * Does nothing if it is no longer so: the fault is taken again.
 *
 * Context: a fault handler: mmap_lock or the VMA's lock held.
 */
static void dt_grant(struct vm_fault *vmf, struct page *page)
{
	struct vm_area_struct *vma = vmf->vma;
	struct dt_grant g = {
		.vma = vma,
		.slot = dt_file_slot(vma->vm_file),
		.pgoff = vmf->pgoff,
		.pfn = page_to_pfn(page),
	};

	/*
	 * -ENOMEM also means that the page table went away under us (6.12 and
	 * later).  Either way there is nothing to undo: fault again.
	 */
	apply_to_page_range(vma->vm_mm, vmf->address, PAGE_SIZE, dt_grant_pte, &g);
	if (g.wake)
		dt_rings_wake(g.slot);
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

/* Remembers that a mapping of the slot is followed by a secondary MMU. */
static void dt_note_notifier(struct dt_slot *slot, struct mm_struct *mm)
{
	if (mm_has_notifiers(mm) && !READ_ONCE(slot->has_notifier))
		WRITE_ONCE(slot->has_notifier, true);
}

static vm_fault_t dt_vma_fault(struct vm_fault *vmf)
{
	struct dt_slot *slot = dt_file_slot(vmf->vma->vm_file);
	struct address_space *mapping = slot->inode.i_mapping;
	vm_fault_t ret = VM_FAULT_NOPAGE;
	struct page *page;
	int err;

	this_cpu_inc(slot->stats->faults);
	dt_note_notifier(slot, vmf->vma->vm_mm);
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
	page = dt_page_get(slot, vmf->pgoff);
	if (!page) {
		ret = VM_FAULT_OOM;
		goto unlock;
	}
	if (PageHWPoison(page)) {
		ret = VM_FAULT_HWPOISON;
		goto unlock;
	}
	err = dt_insert(vmf, page);
	if (err)
		ret = vmf_error(err);
	else if (vmf->flags & FAULT_FLAG_WRITE)
		dt_grant(vmf, page);	/* not in a second fault */
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
	dt_note_notifier(slot, vmf->vma->vm_mm);
	if (dt_limit_pass(slot, vmf->pgoff))
		dt_grant(vmf, vmf->page);
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
	dt_note_notifier(dt_file_slot(file), vma->vm_mm);
	return 0;
}
