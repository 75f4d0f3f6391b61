// SPDX-License-Identifier: GPL-2.0-only
/*
 * Logs: one consumer's view of a slot, a file with the bitmap in it.
 *
 * A log is in its slot's list from its creation to the last reference to its file,
 * which the kernel drops however its users end.  That is all there is to stopping:
 * nothing is unprotected, for the next write to a page makes it writable anyway.
 */
#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "compat/compat.h"
#include "dirtytrack.h"
#include "trace.h"

static unsigned int max_logs = 64;
module_param(max_logs, uint, 0444);
MODULE_PARM_DESC(max_logs, "how many logs one slot may have at once");

/**
 * dt_log_max - how many logs a slot may have
 *
 * Return: the limit.
 */
u32 dt_log_max(void)
{
	return max_logs;
}

static void dt_log_free(struct dt_log *log)
{
	dt_ring_destroy(&log->ring);
	dt_bitmap_free(&log->bitmap);
	iput(&log->slot->inode);
	dt_memory_uncharge(log->charged);
	kfree(log);
}

static int dt_log_release(struct inode *inode, struct file *file)
{
	struct dt_log *log = file->private_data;
	struct dt_slot *slot = log->slot;

	dt_rings_del(slot, &log->ring);
	mutex_lock(&slot->lock);
	if (!list_empty(&log->node)) {
		list_del(&log->node);
		slot->nlogs--;
		dt_limit_update(slot);
		trace_dirtytrack_log_destroy(slot->id, log->id);
	}
	mutex_unlock(&slot->lock);
	dt_log_free(log);
	return 0;
}

static size_t dt_log_ring_offset(struct dt_log *log)
{
	return dt_bitmap_words_size(log->bitmap.nbits) +
	       dt_bitmap_summary_size(log->bitmap.nbits);
}

static size_t dt_log_control_offset(struct dt_log *log)
{
	return dt_log_ring_offset(log) + dt_ring_size(&log->ring);
}

/* What the file has at an offset: words, summary, ring, control page. */
static void *dt_log_memory(struct dt_log *log, size_t offset)
{
	const struct {
		void *memory;
		size_t size;
	} parts[] = {
		{ log->bitmap.words, dt_bitmap_words_size(log->bitmap.nbits) },
		{ log->bitmap.summary, dt_bitmap_summary_size(log->bitmap.nbits) },
		{ log->ring.shared, dt_ring_size(&log->ring) },
		{ log->ring.control, dt_ring_control_size(&log->ring) },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		if (offset < parts[i].size)
			return parts[i].memory + offset;
		offset -= parts[i].size;
	}
	return NULL;
}

static vm_fault_t dt_log_fault(struct vm_fault *vmf)
{
	struct dt_log *log = vmf->vma->vm_file->private_data;
	void *memory = dt_log_memory(log, (size_t)vmf->pgoff << PAGE_SHIFT);

	if (!memory)
		return VM_FAULT_SIGBUS;
	vmf->page = vmalloc_to_page(memory);
	get_page(vmf->page);
	return 0;
}

static const struct vm_operations_struct dt_log_vm_ops = {
	.fault = dt_log_fault,
};

/* Is a mapping of the consumer's page and nothing else? */
static bool dt_log_maps_control(struct dt_log *log, struct vm_area_struct *vma)
{
	return log->ring.nr && vma_pages(vma) == 1 &&
	       vma->vm_pgoff == dt_log_control_offset(log) >> PAGE_SHIFT;
}

static int dt_log_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	/* Page permissions are the trust boundary: it is read-only for good. */
	if (!dt_log_maps_control(file->private_data, vma)) {
		if (vma->vm_flags & VM_WRITE)
			return -EPERM;
		vm_flags_clear(vma, VM_MAYWRITE);
	}
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &dt_log_vm_ops;
	return 0;
}

static __poll_t dt_log_poll(struct file *file, poll_table *wait)
{
	struct dt_log *log = file->private_data;

	if (!log->ring.nr)
		return EPOLLERR;
	poll_wait(file, &log->ring.wait, wait);
	smp_mb();		/* pairs with wq_has_sleeper() of dt_rings_wake() */
	return dt_ring_ready(&log->ring) ? EPOLLIN | EPOLLRDNORM : 0;
}

static void dt_log_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct dirtytrack_log_info info = {};
	struct dt_log *log = file->private_data;

	dt_log_info(log, &info);
	seq_printf(m, "slot_id:\t%u\n", info.out_slot_id);
	seq_printf(m, "log_id:\t%u\n", log->id);
	seq_printf(m, "log_pages:\t%llu\n", info.out_npages);
	seq_printf(m, "log_dirty:\t%llu\n", info.out_dirty);
	seq_printf(m, "log_pending:\t%llu\n", dt_log_pending(log));
	seq_printf(m, "log_harvests:\t%llu\n", info.out_harvests);
	seq_printf(m, "log_reported:\t%llu\n", info.out_reported);
	seq_printf(m, "log_overreports:\t%llu\n", READ_ONCE(log->overreports));
	seq_printf(m, "log_overflows:\t%llu\n", info.out_overflows);
	seq_printf(m, "log_rate:\t%llu\n", info.out_rate);
}

static const struct file_operations dt_log_fops = {
	.owner = THIS_MODULE,
	.release = dt_log_release,
	.llseek = noop_llseek,
	.mmap = dt_log_mmap,
	.poll = dt_log_poll,
	.unlocked_ioctl = dt_log_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = dt_log_show_fdinfo,
};

/**
 * dt_file_log - the log of a file
 * @file: a file of which dt_log_ioctl() is the ioctl
 *
 * Return: the log.
 */
struct dt_log *dt_file_log(struct file *file)
{
	return file->private_data;
}

static struct dt_log *dt_log_alloc(struct dt_slot *slot, u32 ring_entries)
{
	u64 charge = sizeof(struct dt_log) + dt_bitmap_memory(slot->npages) +
		     dt_ring_memory(ring_entries);
	struct dt_log *log;
	int err;

	err = dt_memory_charge(charge);
	if (err)
		return ERR_PTR(err);
	log = kzalloc(sizeof(*log), GFP_KERNEL_ACCOUNT);
	if (!log) {
		dt_memory_uncharge(charge);
		return ERR_PTR(-ENOMEM);
	}
	ihold(&slot->inode);
	log->slot = slot;
	log->charged = charge;
	mutex_init(&log->lock);
	INIT_LIST_HEAD(&log->node);
	if (dt_ring_init(&log->ring, ring_entries) ||
	    dt_bitmap_alloc(&log->bitmap, slot->npages)) {
		dt_log_free(log);
		return ERR_PTR(-ENOMEM);
	}
	return log;
}

static int dt_log_publish(struct dt_log *log, bool all_set)
{
	struct dt_slot *slot = log->slot;
	int err = 0;

	mutex_lock(&slot->lock);
	if (slot->nlogs >= max_logs) {
		err = -ENOSPC;
	} else {
		log->id = ++slot->last_log_id;
		list_add_tail(&log->node, &slot->logs);
		slot->nlogs++;
		dt_rings_add(slot, &log->ring);
		trace_dirtytrack_log_create(slot->id, log->id, all_set);
	}
	mutex_unlock(&slot->lock);
	return err;
}

/*
 * Puts every page that has memory into a published log.  Memory that comes after
 * comes with a write, which is collected, or is zero; memory that goes is
 * collected, too.
 */
static int dt_log_fill(struct dt_log *log)
{
	struct address_space *mapping = log->slot->inode.i_mapping;
	u64 word;

	for (word = 0; word < log->bitmap.nwords; ) {
		u64 end = min(word + DT_WORD_BITS, log->bitmap.nwords);

		filemap_invalidate_lock_shared(mapping);
		for (; word < end; word++)
			dt_bitmap_or(&log->bitmap, word,
				     dt_pages_resident(log->slot, word));
		filemap_invalidate_unlock_shared(mapping);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/**
 * dt_log_create - start a log
 * @slot: the slot
 * @flags: as in the uapi header
 * @ring_entries: size of its ring, 0 for none
 *
 * A clean start collects what was written so far for the logs that exist, and
 * then joins them: a write in between is in the new log, too, no later one is
 * missed.
 *
 * Return: a file of the log; EINVAL (size of the ring), ENOSPC, EINTR, ENOMEM.
 */
struct file *dt_log_create(struct dt_slot *slot, u32 flags, u32 ring_entries)
{
	bool all_set = flags & DIRTYTRACK_LOG_ALL_SET;
	struct dt_log *log;
	struct file *file;
	int err;

	if (ring_entries && (!is_power_of_2(ring_entries) ||
			     ring_entries < DIRTYTRACK_RING_MIN_ENTRIES ||
			     ring_entries > dt_ring_max()))
		return ERR_PTR(-EINVAL);
	log = dt_log_alloc(slot, ring_entries);
	if (IS_ERR(log))
		return ERR_CAST(log);
	log->may_release = flags & DIRTYTRACK_LOG_MAY_RELEASE;
	file = anon_inode_getfile("[dirtytrack-log]", &dt_log_fops, log,
				  O_RDWR | O_CLOEXEC);
	if (IS_ERR(file)) {
		dt_log_free(log);
		return file;
	}
	err = all_set ? 0 : dt_collect_all(slot);
	if (!err)
		err = dt_log_publish(log, all_set);
	if (!err && all_set)
		err = dt_log_fill(log);
	if (err) {
		fput(file);
		return ERR_PTR(err);
	}
	return file;
}

/**
 * dt_log_pending - how many pages may become dirty in a log when it is collected
 * @log: the log
 *
 * Return: the open pages that are not in the log; an estimate while they change.
 */
u64 dt_log_pending(struct dt_log *log)
{
	const struct dt_bitmap *open = &log->slot->open;
	u64 group, words, count = 0;

	for (group = dt_bitmap_next(open, open, 0); group < open->ngroups;
	     group = dt_bitmap_next(open, open, group + 1)) {
		for (words = dt_bitmap_group(open, group); words; words &= words - 1) {
			u64 word = group * DT_WORD_BITS + __ffs64(words);

			count += hweight64(dt_bitmap_word(open, word) &
					   ~dt_bitmap_word(&log->bitmap, word));
		}
	}
	return count;
}

/**
 * dt_log_info - describe a log
 * @log: the log
 * @info: gets the out_ fields
 */
void dt_log_info(struct dt_log *log, struct dirtytrack_log_info *info)
{
	info->out_slot_id = log->slot->id;
	info->out_reserved = 0;
	info->out_npages = log->bitmap.nbits;
	info->out_bitmap_offset = 0;
	info->out_bitmap_size = dt_bitmap_words_size(log->bitmap.nbits);
	info->out_summary_offset = dt_bitmap_words_size(log->bitmap.nbits);
	info->out_summary_size = dt_bitmap_summary_size(log->bitmap.nbits);
	info->out_dirty = dt_bitmap_count(&log->bitmap);
	info->out_harvests = READ_ONCE(log->harvests);
	info->out_reported = READ_ONCE(log->reported);
	info->out_ring_offset = log->ring.nr ? dt_log_ring_offset(log) : 0;
	info->out_ring_size = dt_ring_size(&log->ring);
	info->out_control_offset = log->ring.nr ? dt_log_control_offset(log) : 0;
	info->out_control_size = dt_ring_control_size(&log->ring);
	info->out_overflows = dt_ring_overflows(&log->ring);
	info->out_rate = READ_ONCE(log->rate);
}
