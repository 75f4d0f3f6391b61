// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel-internal filesystem whose files are the slots.
 *
 * A slot is an inode, so that everything that works on a file works on it: any
 * number of opens (by id, by name, through /proc/PID/fd), mappings, and one
 * address_space that the protect pass can walk.  The inode is held by its files,
 * and through them its mappings, and by its logs; with the last of them it is
 * evicted, and its memory goes.
 */
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/statfs.h>

#include "compat/compat.h"
#include "dirtytrack.h"

#define DT_FS_MAGIC 0x64697274	/* "dirt" */

static struct vfsmount *dt_mnt;
static struct kmem_cache *dt_slot_cache;

/* The file ------------------------------------------------------------------ */

static void dt_slot_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct dt_slot *slot = dt_file_slot(file);
	struct dt_counts counts = {};

	seq_printf(m, "slot_id:\t%u\n", slot->id);
	seq_printf(m, "slot_name:\t%s\n", slot->name);
	seq_printf(m, "slot_pages:\t%llu\n", slot->npages);
	seq_printf(m, "slot_resident:\t%lld\n",
		   percpu_counter_sum_positive(&slot->resident));
	seq_printf(m, "slot_open:\t%llu\n", dt_bitmap_count(&slot->open));
	seq_printf(m, "slot_logs:\t%u\n", READ_ONCE(slot->nlogs));
	seq_printf(m, "slot_rate:\t%llu\n", READ_ONCE(slot->limit.rate));
	dt_stats_count(slot, &counts);
	dt_stats_show(m, "slot_", &counts);
}

static const struct file_operations dt_slot_fops = {
	.owner = THIS_MODULE,
	.llseek = dt_file_llseek,
	.read_iter = dt_file_read_iter,
	.write_iter = dt_file_write_iter,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.mmap = dt_slot_mmap,
	.fallocate = dt_file_fallocate,
	.fsync = noop_fsync,
	.unlocked_ioctl = dt_slot_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = dt_slot_show_fdinfo,
};

static int dt_slot_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
			   struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err;

	/* Bitmaps of logs are as large as the slot: its size never changes. */
	if ((attr->ia_valid & ATTR_SIZE) && attr->ia_size != i_size_read(inode))
		return -EPERM;
	err = setattr_prepare(idmap, dentry, attr);
	if (err)
		return err;
	attr->ia_valid &= ~ATTR_SIZE;
	setattr_copy(idmap, inode, attr);
	return 0;
}

static int dt_slot_getattr(struct mnt_idmap *idmap, const struct path *path,
			   struct kstat *stat, u32 mask, unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);
	struct dt_slot *slot = dt_inode_slot(inode);

	generic_fillattr(idmap, mask, inode, stat);
	stat->blocks = percpu_counter_sum_positive(&slot->resident) <<
		       (PAGE_SHIFT - SECTOR_SHIFT);
	return 0;
}

static const struct inode_operations dt_slot_iops = {
	.setattr = dt_slot_setattr,
	.getattr = dt_slot_getattr,
};

/* The filesystem ------------------------------------------------------------- */

static void dt_slot_init_once(void *obj)
{
	struct dt_slot *slot = obj;

	inode_init_once(&slot->inode);
}

static struct inode *dt_alloc_inode(struct super_block *sb)
{
	struct dt_slot *slot = alloc_inode_sb(sb, dt_slot_cache, GFP_KERNEL);

	if (!slot)
		return NULL;
	memset((char *)slot + sizeof(slot->inode), 0,
	       sizeof(*slot) - sizeof(slot->inode));
	mutex_init(&slot->lock);
	INIT_LIST_HEAD(&slot->logs);
	spin_lock_init(&slot->ring_lock);
	INIT_LIST_HEAD(&slot->rings);
	dt_limit_init(&slot->limit);
	return &slot->inode;
}

static void dt_free_inode(struct inode *inode)
{
	kmem_cache_free(dt_slot_cache, dt_inode_slot(inode));
}

static void dt_evict_inode(struct inode *inode)
{
	struct dt_slot *slot = dt_inode_slot(inode);

	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (!slot->npages)
		return;			/* the root directory */

	dt_slot_free(slot);
	module_put(THIS_MODULE);	/* dt_slotfs_exit() waits for our return */
}

static const struct super_operations dt_super_ops = {
	.statfs = simple_statfs,
	.alloc_inode = dt_alloc_inode,
	.free_inode = dt_free_inode,
	.evict_inode = dt_evict_inode,
};

/* "/dirtytrack:NAME", or "/dirtytrack:#ID" without a name: as memfd does. */
static char *dt_dname(struct dentry *dentry, char *buffer, int buflen)
{
	struct dt_slot *slot = dt_inode_slot(d_inode(dentry));
	char name[sizeof("/dirtytrack:") + DIRTYTRACK_NAME_LEN];
	int len;

	if (slot->name[0])
		len = snprintf(name, sizeof(name), "/dirtytrack:%s", slot->name);
	else
		len = snprintf(name, sizeof(name), "/dirtytrack:#%u", slot->id);
	if (len + 1 > buflen)
		return ERR_PTR(-ENAMETOOLONG);
	return memcpy(buffer + buflen - len - 1, name, len + 1);
}

static const struct dentry_operations dt_dentry_ops = {
	.d_dname = dt_dname,
};

static int dt_init_fs_context(struct fs_context *fc)
{
	struct pseudo_fs_context *ctx = init_pseudo(fc, DT_FS_MAGIC);

	if (!ctx)
		return -ENOMEM;
	ctx->ops = &dt_super_ops;
	ctx->dops = &dt_dentry_ops;
	return 0;
}

/*
 * No .owner: the mount made at load would hold the module for ever.  Files and
 * inodes hold it, and dt_slotfs_exit() waits for what outlives them by an instant.
 */
static struct file_system_type dt_fs_type = {
	.name = "dirtytrack",
	.init_fs_context = dt_init_fs_context,
	.kill_sb = kill_anon_super,
};

/**
 * dt_slotfs_alloc - make an inode
 * @length: size of its slot in bytes
 *
 * Return: a slot that is nothing but an inode of the caller, to be filled in; its
 * last iput() calls dt_slot_free().  NULL if memory is short.
 */
struct dt_slot *dt_slotfs_alloc(u64 length)
{
	struct inode *inode = new_inode(dt_mnt->mnt_sb);
	struct dt_slot *slot;

	if (!inode)
		return NULL;
	/* An O_PATH fd holds the inode without a file that would hold the module. */
	__module_get(THIS_MODULE);
	slot = dt_inode_slot(inode);
	slot->npages = length >> PAGE_SHIFT;
	inode->i_ino = get_next_ino();
	inode->i_mode = S_IFREG | 0600;
	inode->i_uid = current_fsuid();
	inode->i_gid = current_fsgid();
	inode->i_size = length;
	inode->i_op = &dt_slot_iops;
	inode->i_fop = &dt_slot_fops;
	simple_inode_init_ts(inode);
	return slot;
}

/**
 * dt_slotfs_open - open a slot
 * @slot: the slot; the caller's reference to its inode is consumed
 *
 * Return: a new file of the slot; ENOMEM, ENFILE.
 */
struct file *dt_slotfs_open(struct dt_slot *slot)
{
	struct inode *inode = &slot->inode;
	struct file *file;

	/* fput() will drop it: alloc_file_pseudo() does not take it. */
	__module_get(THIS_MODULE);
	file = alloc_file_pseudo(inode, dt_mnt, "dirtytrack",
				 O_RDWR | O_LARGEFILE, &dt_slot_fops);
	if (IS_ERR(file)) {
		module_put(THIS_MODULE);
		iput(inode);
		return file;
	}
	/* As for memfd: alloc_file_pseudo() leaves these to whom they suit. */
	file->f_mode |= FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE;
	return file;
}

/**
 * dt_slotfs_init - set up the filesystem of slots
 *
 * Return: 0 or an error.
 */
int __init dt_slotfs_init(void)
{
	dt_slot_cache = kmem_cache_create("dirtytrack_slot", sizeof(struct dt_slot),
					  0, SLAB_ACCOUNT, dt_slot_init_once);
	if (!dt_slot_cache)
		return -ENOMEM;
	dt_mnt = kern_mount(&dt_fs_type);
	if (IS_ERR(dt_mnt)) {
		kmem_cache_destroy(dt_slot_cache);
		return PTR_ERR(dt_mnt);
	}
	/* Guest memory is not for the host to run. */
	dt_mnt->mnt_sb->s_iflags |= SB_I_NOEXEC | SB_I_NODEV;
	return 0;
}

/**
 * dt_slotfs_exit - take the filesystem of slots down
 *
 * No file and no inode is left, for each holds the module.  But he who dropped the
 * last one may still be in dt_evict_inode(), behind its module_put().  He holds the
 * mount until he has returned from there: wait until it has no reference but ours.
 * may_umount() allows two, as a mount in a namespace has; ours make it two.
 * Inodes are freed after a grace period: wait for that, too.
 */
void dt_slotfs_exit(void)
{
	mntget(dt_mnt);
	while (!may_umount(dt_mnt))
		schedule_timeout_uninterruptible(1);
	mntput(dt_mnt);
	kern_unmount(dt_mnt);
	rcu_barrier();
	kmem_cache_destroy(dt_slot_cache);
}
