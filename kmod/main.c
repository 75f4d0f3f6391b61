// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack: guest memory whose every CPU write is tracked.
 *
 * The module, its device, and the ioctls: one row each, and the one place that
 * copies their structs in and out.  The rules that hold for all of them (sizes,
 * flags, reserved fields, fds) are kept here and nowhere else.
 */
#include <linux/ctype.h>
#include <linux/file.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "dirtytrack.h"
#include "protect.h"

union dt_arg {
	struct {
		__u32 size;
		__u32 flags;
	};
	struct dirtytrack_info info;
	struct dirtytrack_slot_create slot_create;
	struct dirtytrack_slot_next slot_next;
	struct dirtytrack_slot_open slot_open;
	struct dirtytrack_slot_info slot_info;
	struct dirtytrack_log_create log_create;
	struct dirtytrack_log_info log_info;
	struct dirtytrack_harvest harvest;
	struct dirtytrack_harvest_extents harvest_extents;
	struct dirtytrack_bitmap bitmap;
	struct dirtytrack_ranges ranges;
	struct dirtytrack_limit limit;
	struct dirtytrack_release release;
	struct dirtytrack_populate populate;
};

/*
 * The layout is for ever: a size here changes only by a struct that grows, and then
 * the row's min keeps the old one.
 */
static_assert(sizeof(struct dirtytrack_info) == 56);
static_assert(sizeof(struct dirtytrack_slot_create) == 56);
static_assert(sizeof(struct dirtytrack_slot_next) == 16);
static_assert(sizeof(struct dirtytrack_slot_open) == 48);
static_assert(sizeof(struct dirtytrack_slot_info) == 128);
static_assert(sizeof(struct dirtytrack_log_create) == 16);
static_assert(sizeof(struct dirtytrack_log_info) == 128);
static_assert(sizeof(struct dirtytrack_harvest) == 64);
static_assert(sizeof(struct dirtytrack_extent) == 16);
static_assert(sizeof(struct dirtytrack_harvest_extents) == 56);
static_assert(sizeof(struct dirtytrack_bitmap) == 56);
static_assert(sizeof(struct dirtytrack_range) == 16);
static_assert(sizeof(struct dirtytrack_ranges) == 40);
static_assert(sizeof(struct dirtytrack_limit) == 16);
static_assert(sizeof(struct dirtytrack_release) == 56);
static_assert(sizeof(struct dirtytrack_populate) == 48);
static_assert(sizeof(struct dirtytrack_ring) == 24);
static_assert(sizeof(struct dirtytrack_ring_control) == 24);

/**
 * struct dt_ioctl - an ioctl
 * @cmd: its number
 * @size: of its struct, as this module knows it
 * @min: of its struct in the first version
 * @flags: the flags that exist
 * @out_fd: offset of the field that gets a new fd, 0 for none
 * @writes: of a slot: it takes an fd that is open for writing
 * @locked: of a log: its lock is held over @call, the copying out of its result, and
 *	@undo, so that no other harvest of the log comes between
 * @call: does it; @file gets the file for the new fd
 * @undo: called when the result of a successful @call could not be copied out
 *	(a new file is dropped without it)
 */
struct dt_ioctl {
	unsigned int cmd;
	u32 size;
	u32 min;
	u32 flags;
	u32 out_fd;
	bool writes;
	bool locked;
	int (*call)(struct file *on, union dt_arg *arg, struct file **file);
	void (*undo)(struct file *on, union dt_arg *arg);
};

#define DT_IOCTL(_cmd, _struct, _last, _call, ...) {			\
	.cmd = (_cmd),							\
	.size = sizeof(struct _struct),					\
	.min = offsetofend(struct _struct, _last),			\
	.call = (_call),						\
	##__VA_ARGS__							\
}

/* The device ------------------------------------------------------------------- */

static int dt_ioctl_info(struct file *on, union dt_arg *arg, struct file **file)
{
	struct dirtytrack_info *info = &arg->info;

	info->out_features = DIRTYTRACK_FEATURE_RING | DIRTYTRACK_FEATURE_LIMIT |
			     DIRTYTRACK_FEATURE_RELEASE;
	info->out_max_slot_size = dt_slot_max_size();
	info->out_max_slots = dt_slot_max();
	info->out_max_logs = dt_log_max();
	info->out_page_shift = PAGE_SHIFT;
	info->out_strategy = dt_protect_of(NULL)->id;
	info->out_max_ring_entries = dt_ring_max();
	info->out_max_user_slots = dt_slot_user_max();
	info->out_max_memory = dt_memory_max();
	return 0;
}

/* Is it NUL-terminated and padded, of printable ASCII without '/'? */
static bool dt_name_valid(const char *name)
{
	size_t len = strnlen(name, DIRTYTRACK_NAME_LEN);
	size_t i;

	for (i = 0; i < len; i++) {
		if (!isascii(name[i]) || !isprint(name[i]) || name[i] == '/')
			return false;
	}
	return len < DIRTYTRACK_NAME_LEN &&
	       !memchr_inv(name + len, 0, DIRTYTRACK_NAME_LEN - len);
}

static int dt_ioctl_slot_create(struct file *on, union dt_arg *arg, struct file **file)
{
	struct dirtytrack_slot_create *create = &arg->slot_create;

	if (!create->length || !PAGE_ALIGNED(create->length) ||
	    !dt_name_valid(create->name))
		return -EINVAL;
	*file = dt_slot_create(create->length, create->name, &create->out_id);
	return PTR_ERR_OR_ZERO(*file);
}

static int dt_ioctl_slot_next(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_slot_next(arg->slot_next.id, &arg->slot_next.out_id);
}

static int dt_ioctl_slot_open(struct file *on, union dt_arg *arg, struct file **file)
{
	struct dirtytrack_slot_open *open = &arg->slot_open;
	bool by_name = open->flags & DIRTYTRACK_OPEN_BY_NAME;

	/* Either the one or the other. */
	if (!dt_name_valid(open->name) || by_name != !open->id ||
	    by_name != !!open->name[0])
		return -EINVAL;
	*file = by_name ? dt_slot_open_by_name(open->name) : dt_slot_open(open->id);
	return PTR_ERR_OR_ZERO(*file);
}

static const struct dt_ioctl dt_device_ioctls[] = {
	DT_IOCTL(DIRTYTRACK_GET_INFO, dirtytrack_info, out_strategy, dt_ioctl_info),
	DT_IOCTL(DIRTYTRACK_SLOT_CREATE, dirtytrack_slot_create, out_fd,
		 dt_ioctl_slot_create,
		 .out_fd = offsetof(struct dirtytrack_slot_create, out_fd)),
	DT_IOCTL(DIRTYTRACK_SLOT_NEXT, dirtytrack_slot_next, out_id,
		 dt_ioctl_slot_next),
	DT_IOCTL(DIRTYTRACK_SLOT_OPEN, dirtytrack_slot_open, name,
		 dt_ioctl_slot_open,
		 .flags = DIRTYTRACK_OPEN_BY_NAME,
		 .out_fd = offsetof(struct dirtytrack_slot_open, out_fd)),
};

/* A slot ----------------------------------------------------------------------- */

static int dt_ioctl_slot_info(struct file *on, union dt_arg *arg, struct file **file)
{
	dt_slot_info(dt_file_slot(on), &arg->slot_info);
	return 0;
}

static int dt_ioctl_log_create(struct file *on, union dt_arg *arg, struct file **file)
{
	struct dirtytrack_log_create *create = &arg->log_create;

	*file = dt_log_create(dt_file_slot(on), create->flags, create->ring_entries);
	return PTR_ERR_OR_ZERO(*file);
}

static int dt_ioctl_release(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_release_ranges(dt_file_slot(on), NULL, &arg->release);
}

static int dt_ioctl_populate(struct file *on, union dt_arg *arg, struct file **file)
{
	if (arg->populate.reserved)
		return -EOPNOTSUPP;
	return dt_populate_ranges(dt_file_slot(on), &arg->populate);
}

static const struct dt_ioctl dt_slot_ioctls[] = {
	DT_IOCTL(DIRTYTRACK_SLOT_INFO, dirtytrack_slot_info, out_protects,
		 dt_ioctl_slot_info),
	/* A log slows writers down: it is for who may write. */
	DT_IOCTL(DIRTYTRACK_LOG_CREATE, dirtytrack_log_create, ring_entries,
		 dt_ioctl_log_create, .writes = true,
		 .flags = DIRTYTRACK_LOG_ALL_SET | DIRTYTRACK_LOG_MAY_RELEASE,
		 .out_fd = offsetof(struct dirtytrack_log_create, out_fd)),
	DT_IOCTL(DIRTYTRACK_SLOT_RELEASE, dirtytrack_release, out_unmaps,
		 dt_ioctl_release, .writes = true),
	DT_IOCTL(DIRTYTRACK_SLOT_POPULATE, dirtytrack_populate, reserved,
		 dt_ioctl_populate, .writes = true),
};

/* A log ------------------------------------------------------------------------ */

static int dt_ioctl_log_info(struct file *on, union dt_arg *arg, struct file **file)
{
	dt_log_info(dt_file_log(on), &arg->log_info);
	return 0;
}

static int dt_ioctl_harvest(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_harvest_bitmap(dt_file_log(on), &arg->harvest);
}

static int dt_ioctl_harvest_extents(struct file *on, union dt_arg *arg,
				    struct file **file)
{
	return dt_harvest_extents(dt_file_log(on), &arg->harvest_extents);
}

/* The caller has the extents, but not how many. */
static void dt_undo_harvest_extents(struct file *on, union dt_arg *arg)
{
	struct dirtytrack_harvest_extents *harvest = &arg->harvest_extents;

	if (!(harvest->flags & DIRTYTRACK_HARVEST_PEEK))
		dt_harvest_undo(dt_file_log(on), harvest->first, harvest->out_next);
}

static int dt_ioctl_clear(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_select_bitmap(dt_file_log(on), &arg->bitmap, true);
}

static int dt_ioctl_clear_ranges(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_select_ranges(dt_file_log(on), &arg->ranges, true);
}

static int dt_ioctl_merge(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_select_bitmap(dt_file_log(on), &arg->bitmap, false);
}

static int dt_ioctl_merge_ranges(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_select_ranges(dt_file_log(on), &arg->ranges, false);
}

static int dt_ioctl_limit(struct file *on, union dt_arg *arg, struct file **file)
{
	return dt_limit_set(dt_file_log(on), arg->limit.rate);
}

static int dt_ioctl_release_clean(struct file *on, union dt_arg *arg,
				  struct file **file)
{
	struct dt_log *log = dt_file_log(on);

	if (!log->may_release)
		return -EPERM;
	return dt_release_ranges(log->slot, log, &arg->release);
}

static const struct dt_ioctl dt_log_ioctls[] = {
	DT_IOCTL(DIRTYTRACK_LOG_INFO, dirtytrack_log_info, out_reported,
		 dt_ioctl_log_info),
	DT_IOCTL(DIRTYTRACK_LOG_HARVEST, dirtytrack_harvest, out_new,
		 dt_ioctl_harvest, .locked = true,
		 .flags = DIRTYTRACK_HARVEST_PEEK),
	DT_IOCTL(DIRTYTRACK_LOG_HARVEST_EXTENTS, dirtytrack_harvest_extents, out_dirty,
		 dt_ioctl_harvest_extents, .locked = true,
		 .flags = DIRTYTRACK_HARVEST_PEEK,
		 .undo = dt_undo_harvest_extents),
	DT_IOCTL(DIRTYTRACK_LOG_CLEAR, dirtytrack_bitmap, out_pages, dt_ioctl_clear,
		 .locked = true),
	DT_IOCTL(DIRTYTRACK_LOG_CLEAR_RANGES, dirtytrack_ranges, out_pages,
		 dt_ioctl_clear_ranges, .locked = true),
	DT_IOCTL(DIRTYTRACK_LOG_MERGE, dirtytrack_bitmap, out_pages, dt_ioctl_merge,
		 .locked = true),
	DT_IOCTL(DIRTYTRACK_LOG_MERGE_RANGES, dirtytrack_ranges, out_pages,
		 dt_ioctl_merge_ranges, .locked = true),
	DT_IOCTL(DIRTYTRACK_LOG_LIMIT, dirtytrack_limit, rate, dt_ioctl_limit),
	DT_IOCTL(DIRTYTRACK_LOG_RELEASE_CLEAN, dirtytrack_release, out_unmaps,
		 dt_ioctl_release_clean, .locked = true),
};

/* All of them ------------------------------------------------------------------ */

/* Hands the result to the caller, with an fd for a new file, or undoes it. */
static int dt_ioctl_finish(const struct dt_ioctl *ioctl, struct file *on,
			   union dt_arg *arg, void __user *user, u32 size,
			   struct file *file, int fd)
{
	if (ioctl->out_fd)
		*(__s32 *)((char *)arg + ioctl->out_fd) = fd;
	if (copy_to_user(user, arg, size)) {
		if (file)
			fput(file);
		if (ioctl->undo)
			ioctl->undo(on, arg);
		return -EFAULT;
	}
	if (file)
		fd_install(fd, file);
	return 0;
}

static int dt_ioctl_run(const struct dt_ioctl *ioctl, struct file *on, void __user *user)
{
	union dt_arg arg = {};
	struct file *file = NULL;
	int fd = -1;
	u32 size;
	int err;

	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < ioctl->min)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	err = copy_struct_from_user(&arg, ioctl->size, user, size);
	if (err)
		return err;
	if (arg.flags & ~ioctl->flags)
		return -EOPNOTSUPP;
	if (ioctl->writes && !(on->f_mode & FMODE_WRITE))
		return -EBADF;
	/*
	 * Nothing is taken or made whose result cannot be told: find out now if
	 * the struct can be written, by writing what it has.
	 */
	size = min(size, ioctl->size);
	if (copy_to_user(user, &arg, size))
		return -EFAULT;

	if (ioctl->out_fd) {
		fd = get_unused_fd_flags(O_CLOEXEC);
		if (fd < 0)
			return fd;
	}
	if (ioctl->locked && mutex_lock_killable(&dt_file_log(on)->lock))
		return -EINTR;
	err = ioctl->call(on, &arg, &file);
	if (!err)
		err = dt_ioctl_finish(ioctl, on, &arg, user, size, file, fd);
	if (ioctl->locked)
		mutex_unlock(&dt_file_log(on)->lock);
	if (err && fd >= 0)
		put_unused_fd(fd);
	return err;
}

static long dt_ioctl_dispatch(const struct dt_ioctl *table, size_t n, struct file *on,
			      unsigned int cmd, unsigned long arg)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (table[i].cmd == cmd)
			return dt_ioctl_run(&table[i], on, (void __user *)arg);
	}
	return -ENOTTY;
}

static long dt_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dt_ioctl_dispatch(dt_device_ioctls, ARRAY_SIZE(dt_device_ioctls), file,
				 cmd, arg);
}

/**
 * dt_slot_ioctl - the ioctls of a slot
 * @file: the slot
 * @cmd: number
 * @arg: address of its struct
 *
 * Return: 0 or an error.
 */
long dt_slot_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dt_ioctl_dispatch(dt_slot_ioctls, ARRAY_SIZE(dt_slot_ioctls), file, cmd,
				 arg);
}

/**
 * dt_log_ioctl - the ioctls of a log
 * @file: the log
 * @cmd: number
 * @arg: address of its struct
 *
 * Return: 0 or an error.
 */
long dt_log_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dt_ioctl_dispatch(dt_log_ioctls, ARRAY_SIZE(dt_log_ioctls), file, cmd,
				 arg);
}

static const struct file_operations dt_device_fops = {
	.owner = THIS_MODULE,
	.llseek = noop_llseek,
	.unlocked_ioctl = dt_device_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* For everyone, as /dev/userfaultfd and /dev/ntsync: memory is charged to its user. */
static struct miscdevice dt_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dirtytrack",
	.mode = 0666,
	.fops = &dt_device_fops,
};

static int __init dt_init(void)
{
	int err;

	err = dt_protect_init();
	if (err)
		return err;
	err = dt_group_init();
	if (err)
		return err;
	err = dt_memory_init();
	if (err)
		return err;
	err = dt_slotfs_init();
	if (err)
		goto memory;
	err = misc_register(&dt_device);
	if (err)
		goto slotfs;
	dt_debugfs_init();
	return 0;
slotfs:
	dt_slotfs_exit();
memory:
	dt_memory_exit();
	return err;
}

static void __exit dt_exit(void)
{
	dt_debugfs_exit();
	misc_deregister(&dt_device);
	dt_slotfs_exit();
	dt_slot_exit();
	dt_memory_exit();
}

module_init(dt_init);
module_exit(dt_exit);

MODULE_AUTHOR("The dirtytrack developers");
MODULE_DESCRIPTION("Guest memory whose every CPU write is tracked");
MODULE_LICENSE("GPL");
