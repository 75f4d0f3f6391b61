// SPDX-License-Identifier: MIT
/* The device and its slots. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>

#include "dirtytrack.h"

static int do_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

/* The kernel wants the whole field, NULs included, so that it can grow a meaning. */
static int fill_name(char field[DIRTYTRACK_NAME_LEN], const char *name)
{
	size_t len = name ? strlen(name) : 0;

	if (len >= DIRTYTRACK_NAME_LEN)
		return -ENAMETOOLONG;
	memset(field, 0, DIRTYTRACK_NAME_LEN);
	if (len)
		memcpy(field, name, len);
	return 0;
}

/**
 * dtrack_open_device - open the device
 * @path: its path, or NULL for DIRTYTRACK_DEVICE
 *
 * The fd is close-on-exec and needed only to make and find slots.
 *
 * Return: fd; -ENOENT when the module is not loaded, or what open(2) says.
 */
int dtrack_open_device(const char *path)
{
	int fd = open(path ? path : DIRTYTRACK_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/**
 * dtrack_get_info - what the module can do and how much it allows
 * @device: fd of the device
 * @info: filled in; on input it need not be initialised
 *
 * Return: 0 or -errno (-ENOTTY when @device is something else).
 */
int dtrack_get_info(int device, struct dirtytrack_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return do_ioctl(device, DIRTYTRACK_GET_INFO, info);
}

/**
 * dtrack_slot_create - make a slot
 * @device: fd of the device
 * @length: bytes, a multiple of the page size
 * @name: name, or NULL or "" for none
 * @id: where to store the slot's id, or NULL
 *
 * Return: fd of the slot, close-on-exec, open for reading and writing;
 * -ENAMETOOLONG when @name does not fit, or -errno as listed at
 * struct dirtytrack_slot_create.
 */
int dtrack_slot_create(int device, uint64_t length, const char *name,
		       uint32_t *id)
{
	struct dirtytrack_slot_create arg = {
		.size = sizeof(arg),
		.length = length,
		.out_fd = -1,
	};
	int ret;

	ret = fill_name(arg.name, name);
	if (ret)
		return ret;
	ret = do_ioctl(device, DIRTYTRACK_SLOT_CREATE, &arg);
	if (ret)
		return ret;
	if (id)
		*id = arg.out_id;
	return arg.out_fd;
}

/**
 * dtrack_slot_next - find the slot after one
 * @device: fd of the device
 * @id: id after which to look, 0 to begin; replaced by the one found
 *
 * Return: 0; -ENOENT when there are no more, @id being left alone; or -errno.
 */
int dtrack_slot_next(int device, uint32_t *id)
{
	struct dirtytrack_slot_next arg = {
		.size = sizeof(arg),
		.id = *id,
	};
	int ret;

	ret = do_ioctl(device, DIRTYTRACK_SLOT_NEXT, &arg);
	if (!ret)
		*id = arg.out_id;
	return ret;
}

static int slot_open(int device, struct dirtytrack_slot_open *arg)
{
	int ret = do_ioctl(device, DIRTYTRACK_SLOT_OPEN, arg);

	return ret ? ret : arg->out_fd;
}

/**
 * dtrack_slot_open_id - open the slot that has an id
 * @device: fd of the device
 * @id: its id
 *
 * Return: fd of the slot, close-on-exec; -ENOENT when there is none, -EACCES when
 * it is another user's, or -errno.
 */
int dtrack_slot_open_id(int device, uint32_t id)
{
	struct dirtytrack_slot_open arg = {
		.size = sizeof(arg),
		.id = id,
		.out_fd = -1,
	};

	return slot_open(device, &arg);
}

/**
 * dtrack_slot_open_name - open the slot that has a name
 * @device: fd of the device
 * @name: its name
 *
 * Return: fd of the slot, close-on-exec; -ENOENT when there is none, -ENOTUNIQ
 * when several other users have one, -ENAMETOOLONG when no name is that long, or
 * -errno.
 */
int dtrack_slot_open_name(int device, const char *name)
{
	struct dirtytrack_slot_open arg = {
		.size = sizeof(arg),
		.flags = DIRTYTRACK_OPEN_BY_NAME,
		.out_fd = -1,
	};
	int ret;

	ret = fill_name(arg.name, name);
	return ret ? ret : slot_open(device, &arg);
}

/**
 * dtrack_slot_info - size, owner and counters of a slot
 * @slot: fd of the slot
 * @info: filled in; on input it need not be initialised
 *
 * Return: 0 or -errno (-ENOTTY when @slot is something else).
 */
int dtrack_slot_info(int slot, struct dirtytrack_slot_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return do_ioctl(slot, DIRTYTRACK_SLOT_INFO, info);
}
