// SPDX-License-Identifier: GPL-2.0-only
/*
 * Slots: guest memory as files of a kernel-internal filesystem.
 *
 * A slot is an inode, so that everything that works on a file works on it: any
 * number of opens (by id, by name, through /proc/PID/fd), mappings, and one
 * address_space that the protect pass can walk.  The inode is held by its files,
 * and through them its mappings, and by its logs; with the last of them it is
 * evicted, and its memory goes.
 */
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/splice.h>
#include <linux/statfs.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "compat/compat.h"
#include "dirtytrack.h"

#define DT_FS_MAGIC 0x64697274	/* "dirt" */

/* The bitmaps and a page number must fit their types: 2^32 - 1 pages. */
#define DT_SLOT_SIZE_LIMIT (((1ULL << 32) - 1) << PAGE_SHIFT)

static unsigned int max_slots = 1024;
module_param(max_slots, uint, 0444);
MODULE_PARM_DESC(max_slots, "how many slots may exist at once");

static unsigned long max_slot_size = 1UL << 40;
module_param(max_slot_size, ulong, 0444);
MODULE_PARM_DESC(max_slot_size, "largest size of a slot, bytes");

static struct vfsmount *dt_mnt;
static struct kmem_cache *dt_slot_cache;

/* All slots by id.  The lock also guards the next id and the count. */
static DEFINE_MUTEX(dt_slots_lock);
static DEFINE_XARRAY(dt_slots);
static u32 dt_last_id;
static u32 dt_nslots;

/**
 * dt_slot_max - how many slots may exist
 *
 * Return: the limit.
 */
u32 dt_slot_max(void)
{
	return max_slots;
}

/**
 * dt_slot_max_size - how large a slot may be
 *
 * Return: the limit in bytes.
 */
u64 dt_slot_max_size(void)
{
	return min_t(u64, max_slot_size, DT_SLOT_SIZE_LIMIT);
}

static bool dt_slot_privileged(void)
{
	return ns_capable_noaudit(&init_user_ns, CAP_SYS_ADMIN);
}

/* An owner who wants to share a slot by fd only takes his mode bits away. */
static bool dt_slot_own(struct dt_slot *slot)
{
	return uid_eq(slot->inode.i_uid, current_fsuid()) &&
	       (slot->inode.i_mode & 0600) == 0600;
}

static bool dt_slot_permitted(struct dt_slot *slot)
{
	return dt_slot_own(slot) || dt_slot_privileged();
}

/* The file ------------------------------------------------------------------ */

static void dt_slot_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct dirtytrack_slot_info info = {};

	dt_slot_info(dt_file_slot(file), &info);
	seq_printf(m, "slot_id:\t%u\n", info.out_id);
	seq_printf(m, "slot_name:\t%s\n", info.out_name);
	seq_printf(m, "slot_pages:\t%llu\n", info.out_length >> PAGE_SHIFT);
	seq_printf(m, "slot_resident:\t%llu\n", info.out_resident);
	seq_printf(m, "slot_logs:\t%u\n", info.out_logs);
	seq_printf(m, "slot_faults:\t%llu\n", info.out_faults);
	seq_printf(m, "slot_grants:\t%llu\n", info.out_grants);
	seq_printf(m, "slot_collected:\t%llu\n", info.out_collected);
	seq_printf(m, "slot_protects:\t%llu\n", info.out_protects);
}

const struct file_operations dt_slot_fops = {
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

	if (slot->id) {
		mutex_lock(&dt_slots_lock);
		xa_erase(&dt_slots, slot->id);
		dt_nslots--;
		mutex_unlock(&dt_slots_lock);
	}
	dt_pages_destroy(slot);
	vfree(slot->open.words);
	vfree(slot->open.summary);
	vfree(slot->released);
	free_percpu(slot->stats);
	module_put(THIS_MODULE);	/* dt_slot_exit() waits for our return */
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
 * inodes hold it, and dt_slot_exit() waits for what outlives them by an instant.
 */
static struct file_system_type dt_fs_type = {
	.name = "dirtytrack",
	.init_fs_context = dt_init_fs_context,
	.kill_sb = kill_anon_super,
};

/* Objects --------------------------------------------------------------------- */

static struct inode *dt_slot_alloc(u64 length, const char *name)
{
	struct inode *inode = new_inode(dt_mnt->mnt_sb);
	struct dt_slot *slot;
	u64 npages = length >> PAGE_SHIFT;
	void *words, *summary;

	if (!inode)
		return ERR_PTR(-ENOMEM);

	/* An O_PATH fd holds the inode without a file that would hold the module. */
	__module_get(THIS_MODULE);
	slot = dt_inode_slot(inode);
	slot->npages = npages;
	inode->i_ino = get_next_ino();
	inode->i_mode = S_IFREG | 0600;
	inode->i_uid = current_fsuid();
	inode->i_gid = current_fsgid();
	inode->i_size = length;
	inode->i_op = &dt_slot_iops;
	inode->i_fop = &dt_slot_fops;
	simple_inode_init_ts(inode);

	memcpy(slot->name, name, sizeof(slot->name));

	words = __vmalloc(dt_bitmap_words(npages) * sizeof(u64),
			  GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	summary = __vmalloc(dt_bitmap_groups(npages) * sizeof(u64),
			    GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	dt_bitmap_init(&slot->open, npages, words, summary);
	slot->released = __vmalloc(dt_bitmap_words(npages) * sizeof(u64),
				   GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	slot->stats = alloc_percpu_gfp(struct dt_slot_stats, GFP_KERNEL_ACCOUNT);
	if (!words || !summary || !slot->released || !slot->stats ||
	    dt_pages_init(slot)) {
		iput(inode);		/* eviction frees what there is */
		return ERR_PTR(-ENOMEM);
	}
	return inode;
}

/* A new open file of a slot; consumes the caller's reference to the inode. */
static struct file *dt_slot_file(struct inode *inode)
{
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

static bool dt_name_taken(const char *name, kuid_t uid)
{
	struct dt_slot *slot;
	unsigned long id;

	if (!name[0])
		return false;
	xa_for_each(&dt_slots, id, slot) {
		if (uid_eq(slot->inode.i_uid, uid) && !strcmp(slot->name, name))
			return true;
	}
	return false;
}

static int dt_slot_publish(struct dt_slot *slot)
{
	int err;

	mutex_lock(&dt_slots_lock);
	if (dt_name_taken(slot->name, slot->inode.i_uid)) {
		err = -EEXIST;
	} else if (dt_nslots >= max_slots || dt_last_id == U32_MAX) {
		err = -ENOSPC;
	} else {
		err = xa_err(xa_store(&dt_slots, dt_last_id + 1, slot, GFP_KERNEL));
		if (!err) {
			slot->id = ++dt_last_id;
			dt_nslots++;
		}
	}
	mutex_unlock(&dt_slots_lock);
	return err;
}

/**
 * dt_slot_create - make a slot
 * @length: bytes, a multiple of the page size, not 0
 * @name: DIRTYTRACK_NAME_LEN bytes, valid, padded with NULs
 * @out_id: gets the id
 *
 * Return: a file of the slot; EFBIG, EEXIST, ENOSPC, ENOMEM.
 */
struct file *dt_slot_create(u64 length, const char *name, u32 *out_id)
{
	struct inode *inode;
	struct file *file;
	int err;

	if (length > dt_slot_max_size())
		return ERR_PTR(-EFBIG);
	inode = dt_slot_alloc(length, name);
	if (IS_ERR(inode))
		return ERR_CAST(inode);
	file = dt_slot_file(inode);
	if (IS_ERR(file))
		return file;
	err = dt_slot_publish(dt_inode_slot(inode));
	if (err) {
		fput(file);
		return ERR_PTR(err);
	}
	*out_id = dt_inode_slot(inode)->id;
	return file;
}

/**
 * dt_slot_open - open a slot by its id
 * @id: the id
 *
 * Return: a new file of the slot; ENOENT, EACCES, ENOMEM.
 */
struct file *dt_slot_open(u32 id)
{
	struct inode *inode = NULL;
	struct dt_slot *slot;
	int err = -ENOENT;

	mutex_lock(&dt_slots_lock);
	slot = xa_load(&dt_slots, id);
	if (slot && !dt_slot_permitted(slot))
		err = -EACCES;
	else if (slot)
		inode = igrab(&slot->inode);	/* NULL if it is going away */
	mutex_unlock(&dt_slots_lock);
	return inode ? dt_slot_file(inode) : ERR_PTR(err);
}

/**
 * dt_slot_open_by_name - open a slot by its name
 * @name: DIRTYTRACK_NAME_LEN bytes, valid, not empty
 *
 * The caller's own slot of that name, else for a privileged caller that of another
 * user.  A user has several only after a chown.
 *
 * Return: a new file of the slot; ENOENT, ENOTUNIQ, ENOMEM.
 */
struct file *dt_slot_open_by_name(const char *name)
{
	struct dt_slot *slot, *own = NULL, *other = NULL;
	u32 nown = 0, nother = 0;
	struct inode *inode = NULL;
	unsigned long id;

	mutex_lock(&dt_slots_lock);
	xa_for_each(&dt_slots, id, slot) {
		if (strcmp(slot->name, name))
			continue;
		if (dt_slot_own(slot)) {
			own = slot;
			nown++;
		} else if (dt_slot_privileged()) {
			other = slot;
			nother++;
		}
	}
	if (nown == 1)
		inode = igrab(&own->inode);
	else if (!nown && nother == 1)
		inode = igrab(&other->inode);
	mutex_unlock(&dt_slots_lock);
	if (inode)
		return dt_slot_file(inode);
	return ERR_PTR(nown > 1 || (!nown && nother > 1) ? -ENOTUNIQ : -ENOENT);
}

/**
 * dt_slot_next - find the next slot that the caller may open
 * @id: 0, or the id after which to look
 * @out_id: gets the id
 *
 * Return: 0 or ENOENT.
 */
int dt_slot_next(u32 id, u32 *out_id)
{
	unsigned long index = id;
	struct dt_slot *slot;
	int err = -ENOENT;

	mutex_lock(&dt_slots_lock);
	xa_for_each_start(&dt_slots, index, slot, index + 1) {
		if (dt_slot_permitted(slot)) {
			*out_id = slot->id;
			err = 0;
			break;
		}
	}
	mutex_unlock(&dt_slots_lock);
	return err;
}

/**
 * dt_slot_info - describe a slot
 * @slot: the slot
 * @info: gets the out_ fields
 */
void dt_slot_info(struct dt_slot *slot, struct dirtytrack_slot_info *info)
{
	int cpu;

	info->out_id = slot->id;
	info->out_uid = from_kuid_munged(current_user_ns(), slot->inode.i_uid);
	info->out_length = i_size_read(&slot->inode);
	memcpy(info->out_name, slot->name, sizeof(info->out_name));
	info->out_resident = percpu_counter_sum_positive(&slot->resident);
	info->out_faults = 0;
	info->out_grants = 0;
	for_each_possible_cpu(cpu) {
		info->out_faults += per_cpu_ptr(slot->stats, cpu)->faults;
		info->out_grants += per_cpu_ptr(slot->stats, cpu)->grants;
	}
	mutex_lock(&slot->lock);
	info->out_logs = slot->nlogs;
	info->out_reserved = 0;
	info->out_collected = slot->collected;
	info->out_protects = slot->protects;
	mutex_unlock(&slot->lock);
}

/**
 * dt_slot_init - set up the filesystem of slots
 *
 * Return: 0 or an error.
 */
int __init dt_slot_init(void)
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
 * dt_slot_exit - take the filesystem of slots down
 *
 * No file and no inode is left, for each holds the module.  But he who dropped the
 * last one may still be in dt_evict_inode(), behind its module_put().  He holds the
 * mount until he has returned from there: wait until it has no reference but ours.
 * may_umount() allows two, as a mount in a namespace has; ours make it two.
 * Inodes are freed after a grace period: wait for that, too.
 */
void dt_slot_exit(void)
{
	mntget(dt_mnt);
	while (!may_umount(dt_mnt))
		schedule_timeout_uninterruptible(1);
	mntput(dt_mnt);
	kern_unmount(dt_mnt);
	rcu_barrier();
	kmem_cache_destroy(dt_slot_cache);
	WARN_ON(!xa_empty(&dt_slots));
}
