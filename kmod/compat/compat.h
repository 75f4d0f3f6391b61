/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What older kernels lack, by the names of newer ones.
 *
 * The module is written for the newest kernel.  Each difference has a probe of its
 * name in probes/, tried against the kernel that is built for; this is the only
 * place that looks at the answers, apart from the choice of a protect strategy.
 */
#ifndef DIRTYTRACK_COMPAT_H
#define DIRTYTRACK_COMPAT_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pgtable.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#ifdef DT_HAVE_PTE_IS_UFFD_WP_MARKER
#include <linux/leafops.h>
#else
#include <linux/userfaultfd_k.h>
#endif

/* 6.3, 1c71222e5f23 "mm: replace vma->vm_flags direct modifications" */
#ifndef DT_HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 6.3, b74d24f7a74f "fs: port ->getattr() to pass mnt_idmap" */
#ifndef DT_HAVE_MNT_IDMAP
#define mnt_idmap user_namespace
#endif

/* 6.6, 0d72b92883c6 "fs: pass the request_mask to generic_fillattr" */
#ifndef DT_HAVE_FILLATTR_MASK
#define generic_fillattr(idmap, mask, inode, stat) \
	generic_fillattr(idmap, inode, stat)
#endif

/*
 * 6.6, "mm: handle swap page faults under per-VMA lock".  Until then .fault of a file
 * was called under mmap_lock only.
 */
#ifndef DT_HAVE_RELEASE_FAULT_LOCK
static inline void release_fault_lock(struct vm_fault *vmf)
{
	mmap_read_unlock(vmf->vma->vm_mm);
}
#endif

/* 6.5, 2cb1e08985e3 "splice: Use filemap_splice_read() instead ..." */
#ifndef DT_HAVE_COPY_SPLICE_READ
#define copy_splice_read generic_file_splice_read
#endif

/* 6.7, the series "fs: new accessor methods for atime and mtime" */
#ifndef DT_HAVE_SIMPLE_INODE_INIT_TS
static inline void simple_inode_init_ts(struct inode *inode)
{
	inode->i_ctime = current_time(inode);
	inode->i_mtime = inode->i_ctime;
	inode->i_atime = inode->i_ctime;
}
#endif

/*
 * 6.5, 2f0584f3f4bd "mm: Rename arch pte_mkwrite()'s to pte_mkwrite_novma()".  The
 * pte_mkwrite() of these kernels is not exported; it differs for shadow stacks only.
 */
#ifndef DT_HAVE_PTE_MKWRITE_NOVMA
#define pte_mkwrite_novma pte_mkwrite
#endif

/* 6.19, the series "mm: remove is_swap_[pte, pmd]() + non-swap entries" */
#ifndef DT_HAVE_PTE_IS_UFFD_WP_MARKER
#define pte_is_uffd_wp_marker pte_marker_uffd_wp
#endif

#endif
