// SPDX-License-Identifier: GPL-2.0-only
/*
 * Slots as objects: who may make, list and open them, and what they are made of.
 * That they are files is the work of slotfs.c.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/user_namespace.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "dirtytrack.h"
#include "trace.h"

/* The bitmaps and a page number must fit their types: 2^32 - 1 pages. */
#define DT_SLOT_SIZE_LIMIT (((1ULL << 32) - 1) << PAGE_SHIFT)

static unsigned int max_slots = 1024;
module_param(max_slots, uint, 0444);
MODULE_PARM_DESC(max_slots, "how many slots may exist at once");

static unsigned int max_user_slots;
module_param(max_user_slots, uint, 0444);
MODULE_PARM_DESC(max_user_slots, "how many of them may be an unprivileged user's (default: a quarter)");

static unsigned long max_slot_size = 1UL << 40;
module_param(max_slot_size, ulong, 0444);
MODULE_PARM_DESC(max_slot_size, "largest size of a slot, bytes");

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
 * dt_slot_user_max - how many slots an unprivileged user may have
 *
 * Return: the limit.
 */
u32 dt_slot_user_max(void)
{
	return max_user_slots ?: max(max_slots / 4, 1U);
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

/*
 * The user who answers for a slot.  In a user namespace of his own he can be many:
 * it is he who made the outermost of them.
 */
static kuid_t dt_slot_sponsor(void)
{
	struct user_namespace *ns = current_user_ns();
	kuid_t uid = current_fsuid();

	if (dt_slot_privileged())
		return INVALID_UID;
	for (; ns != &init_user_ns; ns = ns->parent)
		uid = ns->owner;
	return uid;
}

static struct dt_slot *dt_slot_alloc(u64 length, const char *name)
{
	u64 npages = length >> PAGE_SHIFT;
	size_t words_size = dt_bitmap_words_size(npages);
	u64 charge = sizeof(struct dt_slot) + dt_pages_table_size(npages) +
		     dt_bitmap_memory(npages) + words_size + dt_group_memory(npages);
	struct dt_slot *slot;
	int err;

	err = dt_memory_charge(charge);
	if (err)
		return ERR_PTR(err);
	slot = dt_slotfs_alloc(length);
	if (!slot) {
		dt_memory_uncharge(charge);
		return ERR_PTR(-ENOMEM);
	}
	slot->charged = charge;
	slot->sponsor = dt_slot_sponsor();
	memcpy(slot->name, name, sizeof(slot->name));

	slot->released = __vmalloc(words_size, DT_GFP_TABLE);
	slot->stats = alloc_percpu_gfp(struct dt_slot_stats, GFP_KERNEL_ACCOUNT);
	if (dt_bitmap_alloc(&slot->open, npages) || !slot->released || !slot->stats ||
	    dt_group_alloc(slot) || dt_pages_init(slot)) {
		iput(&slot->inode);	/* which frees what there is */
		return ERR_PTR(-ENOMEM);
	}
	return slot;
}

/**
 * dt_slot_free - end a slot
 * @slot: the slot, which nobody holds any more, whole or half made
 *
 * Its inode is evicted: what is beside it goes.
 */
void dt_slot_free(struct dt_slot *slot)
{
	if (slot->id) {
		trace_dirtytrack_slot_destroy(slot->id);
		mutex_lock(&dt_slots_lock);
		xa_erase(&dt_slots, slot->id);
		dt_nslots--;
		dt_stats_retire(slot);
		mutex_unlock(&dt_slots_lock);
	}
	dt_pages_destroy(slot);
	dt_bitmap_free(&slot->open);
	dt_group_free(slot);
	vfree(slot->released);
	free_percpu(slot->stats);
	dt_memory_uncharge(slot->charged);
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

/* Has the user who answers for it as many slots as he may? */
static bool dt_user_full(struct dt_slot *slot)
{
	struct dt_slot *other;
	unsigned long id;
	u32 n = 0;

	if (!uid_valid(slot->sponsor))
		return false;
	xa_for_each(&dt_slots, id, other)
		n += uid_eq(other->sponsor, slot->sponsor);
	return n >= dt_slot_user_max();
}

static int dt_slot_publish(struct dt_slot *slot)
{
	int err;

	mutex_lock(&dt_slots_lock);
	if (dt_name_taken(slot->name, slot->inode.i_uid)) {
		err = -EEXIST;
	} else if (dt_nslots >= max_slots || dt_last_id == U32_MAX ||
		   dt_user_full(slot)) {
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
	struct dt_slot *slot;
	struct file *file;
	int err;

	if (length > dt_slot_max_size())
		return ERR_PTR(-EFBIG);
	slot = dt_slot_alloc(length, name);
	if (IS_ERR(slot))
		return ERR_CAST(slot);
	file = dt_slotfs_open(slot);
	if (IS_ERR(file))
		return file;
	err = dt_slot_publish(slot);
	if (err) {
		fput(file);
		return ERR_PTR(err);
	}
	trace_dirtytrack_slot_create(slot->id, slot->name, slot->npages);
	*out_id = slot->id;
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
	return inode ? dt_slotfs_open(slot) : ERR_PTR(err);
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
		return dt_slotfs_open(dt_inode_slot(inode));
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
 * dt_slot_get_next - find the next slot, whoever's it is
 * @id: smallest id to be considered
 *
 * Return: the slot, with a reference to its inode, or NULL if there are no more.
 */
struct dt_slot *dt_slot_get_next(u32 id)
{
	unsigned long index = id;
	struct dt_slot *slot;

	mutex_lock(&dt_slots_lock);
	xa_for_each_start(&dt_slots, index, slot, index) {
		if (igrab(&slot->inode))
			break;
	}
	mutex_unlock(&dt_slots_lock);
	return slot;
}

/**
 * dt_slots_sum - count over all slots
 * @counts: gets what was counted since the module was loaded, also of slots that are
 *	gone: a slot is added to those in the same moment as it leaves the table
 * @resident: gets the pages that have memory
 * @logs: gets the number of logs
 *
 * Return: the number of slots.
 */
u32 dt_slots_sum(struct dt_counts *counts, u64 *resident, u64 *logs)
{
	struct dt_slot *slot;
	unsigned long id;
	u32 nslots;

	*resident = 0;
	*logs = 0;
	mutex_lock(&dt_slots_lock);
	dt_stats_total(counts);
	xa_for_each(&dt_slots, id, slot) {
		dt_stats_count(slot, counts);
		*resident += percpu_counter_sum_positive(&slot->resident);
		*logs += READ_ONCE(slot->nlogs);
	}
	nslots = dt_nslots;
	mutex_unlock(&dt_slots_lock);
	return nslots;
}

/**
 * dt_slot_info - describe a slot
 * @slot: the slot
 * @info: gets the out_ fields
 */
void dt_slot_info(struct dt_slot *slot, struct dirtytrack_slot_info *info)
{
	struct dt_counts counts = {};

	dt_stats_count(slot, &counts);
	info->out_id = slot->id;
	info->out_uid = from_kuid_munged(current_user_ns(), slot->inode.i_uid);
	info->out_length = i_size_read(&slot->inode);
	memcpy(info->out_name, slot->name, sizeof(info->out_name));
	info->out_resident = percpu_counter_sum_positive(&slot->resident);
	info->out_faults = counts.stats.faults;
	info->out_grants = counts.stats.grants;
	mutex_lock(&slot->lock);
	info->out_logs = slot->nlogs;
	info->out_reserved = 0;
	info->out_rate = slot->limit.rate;
	mutex_unlock(&slot->lock);
	info->out_collected = counts.collected;
	info->out_protects = counts.protects;
	info->out_throttles = counts.throttles;
	info->out_throttled_ns = counts.throttled_ns;
}

/**
 * dt_slot_exit - the module goes
 */
void dt_slot_exit(void)
{
	WARN_ON(!xa_empty(&dt_slots));
}
