// SPDX-License-Identifier: GPL-2.0-only
/*
 * A slot as a file: read, write, seek.
 *
 * Neither the invalidate_lock nor any other lock is held across a copy: user
 * memory may be a mapping of this same slot, and its fault takes that lock.  The
 * page is held by a reference instead; if it is released during the copy, the copy
 * came first.
 */
#include <linux/highmem.h>
#include <linux/uio.h>

#include "dirtytrack.h"

/**
 * dt_page_hold - get a page for a copy by the kernel
 * @slot: the slot
 * @pgoff: its offset, inside the slot
 * @alloc: give memory to a hole
 *
 * Context: takes the invalidate_lock shared.
 * Return: the page, with a reference for the caller; NULL for a hole; EIO if it is broken,
 * ENOSPC over the bound for all slots, ENOMEM.
 */
struct page *dt_page_hold(struct dt_slot *slot, pgoff_t pgoff, bool alloc)
{
	struct page *page;

	filemap_invalidate_lock_shared(slot->inode.i_mapping);
	page = alloc ? dt_page_get(slot, pgoff, NUMA_NO_NODE) : dt_page_find(slot, pgoff);
	if (!IS_ERR_OR_NULL(page))
		get_page(page);
	filemap_invalidate_unlock_shared(slot->inode.i_mapping);
	if (!IS_ERR_OR_NULL(page) && PageHWPoison(page)) {
		put_page(page);
		return ERR_PTR(-EIO);
	}
	return page;
}

/**
 * dt_file_read_iter - read, without giving memory to holes
 * @iocb: the file and the position
 * @to: where to
 *
 * Return: bytes read, 0 at the end; EFAULT.
 */
ssize_t dt_file_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct dt_slot *slot = dt_file_slot(iocb->ki_filp);
	loff_t size = i_size_read(&slot->inode);
	ssize_t done = 0;

	while (iov_iter_count(to) && iocb->ki_pos < size) {
		size_t offset = offset_in_page(iocb->ki_pos);
		size_t bytes = min(iov_iter_count(to), PAGE_SIZE - offset);
		struct page *page = dt_page_hold(slot, iocb->ki_pos >> PAGE_SHIFT, false);
		size_t copied;

		if (IS_ERR(page))
			return done ? done : PTR_ERR(page);
		if (page) {
			copied = copy_to_iter(page_address(page) + offset, bytes, to);
			put_page(page);
		} else {
			copied = iov_iter_zero(bytes, to);
		}
		iocb->ki_pos += copied;
		done += copied;
		if (copied < bytes)
			return done ? done : -EFAULT;
		if (fatal_signal_pending(current))
			return done ? done : -EINTR;
		cond_resched();
	}
	return done;
}

/**
 * dt_file_write_iter - write, and mark what was written
 * @iocb: the file and the position
 * @from: where from
 *
 * Return: bytes written, less than asked at the end; ENOSPC there and over the bound
 * for all slots, EFAULT, ENOMEM.
 */
ssize_t dt_file_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct dt_slot *slot = dt_file_slot(iocb->ki_filp);
	loff_t size = i_size_read(&slot->inode);
	ssize_t done = 0;

	if (iocb->ki_flags & IOCB_APPEND)
		iocb->ki_pos = size;
	while (iov_iter_count(from)) {
		size_t offset = offset_in_page(iocb->ki_pos);
		size_t bytes = min(iov_iter_count(from), PAGE_SIZE - offset);
		pgoff_t pgoff = iocb->ki_pos >> PAGE_SHIFT;
		struct page *page;
		size_t copied;

		if (iocb->ki_pos >= size)
			return done ? done : -ENOSPC;
		if (dt_limit_write(slot, pgoff))
			return done ? done : -EINTR;
		page = dt_page_hold(slot, pgoff, true);
		if (IS_ERR(page))
			return done ? done : PTR_ERR(page);
		copied = copy_from_iter(page_address(page) + offset, bytes, from);
		/* Also when it stopped at once: it may have written a part. */
		dt_mark_written(slot, pgoff, page);
		put_page(page);
		iocb->ki_pos += copied;
		done += copied;
		if (copied < bytes)
			return done ? done : -EFAULT;
		if (fatal_signal_pending(current))
			return done ? done : -EINTR;
		cond_resched();
	}
	return done;
}

static loff_t dt_seek(struct dt_slot *slot, loff_t offset, bool data)
{
	loff_t size = i_size_read(&slot->inode);
	pgoff_t pgoff = offset >> PAGE_SHIFT;
	pgoff_t found;

	if (offset < 0 || offset >= size)
		return -ENXIO;
	filemap_invalidate_lock_shared(slot->inode.i_mapping);
	found = dt_pages_seek(slot, pgoff, data);
	filemap_invalidate_unlock_shared(slot->inode.i_mapping);
	if (found == slot->npages)
		return data ? -ENXIO : size;
	/* Inside the page that the offset is in, it is the offset itself. */
	return max_t(loff_t, (loff_t)found << PAGE_SHIFT, offset);
}

/**
 * dt_file_llseek - set the position
 * @file: the slot
 * @offset: relative to @whence
 * @whence: also SEEK_DATA and SEEK_HOLE: by whether a page has memory
 *
 * Return: the position; ENXIO, EINVAL.
 */
loff_t dt_file_llseek(struct file *file, loff_t offset, int whence)
{
	struct dt_slot *slot = dt_file_slot(file);
	loff_t size = i_size_read(&slot->inode);

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return generic_file_llseek_size(file, offset, whence, size, size);
	offset = dt_seek(slot, offset, whence == SEEK_DATA);
	return offset < 0 ? offset : vfs_setpos(file, offset, size);
}
