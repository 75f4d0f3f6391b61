// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "units.h"

int open_device(void)
{
	int fd = dtrack_open_device(NULL);

	if (fd == -ENOENT || fd == -ENXIO || fd == -ENODEV)
		msg_error("%s: %s (is the dirtytrack module loaded?)",
			  DIRTYTRACK_DEVICE, strerror(-fd));
	else if (fd == -EACCES)
		msg_error("%s: %s (its mode is set by udev, 0666 by default)",
			  DIRTYTRACK_DEVICE, strerror(-fd));
	else if (fd < 0)
		msg_errno(fd, "%s", DIRTYTRACK_DEVICE);
	return fd;
}

static void explain(int err, const char *ref)
{
	switch (-err) {
	case ENOENT:
		msg_error("slot %s: there is none (dirtytrack list shows them)",
			  ref);
		break;
	case EACCES:
		msg_error("slot %s: it is another user's (root may open it)",
			  ref);
		break;
	case ENOTUNIQ:
		msg_error("slot %s: several users have one of that name (give its id)",
			  ref);
		break;
	case ENAMETOOLONG:
		msg_error("slot %s: there is none (a name has at most %d characters)",
			  ref, DIRTYTRACK_NAME_LEN - 1);
		break;
	default:
		msg_errno(err, "slot %s", ref);
	}
}

static int open_by_path(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		fd = -errno;
		msg_errno(fd, "%s", path);
	}
	return fd;
}

static int open_by_id_or_name(const char *ref)
{
	int device, fd;
	uint64_t id;

	device = open_device();
	if (device < 0)
		return device;
	if (!parse_number(ref, UINT32_MAX, &id))
		fd = dtrack_slot_open_id(device, id);
	else
		fd = dtrack_slot_open_name(device, ref);
	close(device);
	if (fd < 0)
		explain(fd, ref);
	return fd;
}

int open_slot(const char *ref, struct dirtytrack_slot_info *info)
{
	int fd, ret;

	if (!*ref) {
		msg_error("slot '': a slot is named by its name, its id or a path");
		return -EINVAL;
	}
	fd = strchr(ref, '/') ? open_by_path(ref) : open_by_id_or_name(ref);
	if (fd < 0)
		return fd;
	ret = dtrack_slot_info(fd, info);
	if (!ret)
		return fd;
	if (ret == -ENOTTY)
		msg_error("%s: it is not a slot of dirtytrack", ref);
	else
		msg_errno(ret, "slot %s: cannot ask about it", ref);
	close(fd);
	return ret;
}

int open_log(int slot, const char *ref, uint32_t flags, uint32_t ring)
{
	int fd = dtrack_log_create_ring(slot, flags, ring);

	if (fd == -ENOSPC)
		msg_error("slot %s: it has as many logs as the module allows, or no memory is left of what it allows for all slots",
			  ref);
	else if (fd == -EINVAL && ring)
		msg_error("slot %s: a ring has a power of two of entries, %d at least; 'dirtytrack info' says how many at most",
			  ref, DIRTYTRACK_RING_MIN_ENTRIES);
	else if (fd < 0)
		msg_errno(fd, "slot %s: cannot start a log", ref);
	return fd;
}

/* Pages of one call: the bitmap that nobody reads stays in the cache. */
#define COUNT_CHUNK (64 * 1024)

int count_dirty(int log, uint64_t npages, bool take, uint64_t *dirty)
{
	static uint64_t unread[COUNT_CHUNK / 64];
	uint64_t first = 0;

	*dirty = 0;
	while (first < npages) {
		uint64_t count = npages - first;
		struct dtrack_harvested done;
		int ret;

		if (count > COUNT_CHUNK)
			count = COUNT_CHUNK;
		if (take)
			ret = dtrack_harvest(log, first, count, unread, 0,
					     &done);
		else
			ret = dtrack_peek(log, first, count, unread, 0, &done);
		*dirty += done.dirty;
		if (ret)
			return ret;
		first += count;
	}
	return 0;
}

int merge_all(int log, uint64_t npages, const uint64_t *bits)
{
	struct dtrack_selected merged = { 0 };
	int ret;

	do {
		uint64_t next = merged.next;

		ret = dtrack_merge(log, next, npages - next, bits, next, &merged);
	} while (ret == -EINTR && !interrupted);
	return ret;
}

int data_extent(int slot, uint64_t npages, uint64_t page, uint64_t *end, bool *hole)
{
	off_t pos = page * DTRACK_PAGE_SIZE, next;

	/* Again, if what had memory was released before its end was found. */
	do {
		next = lseek(slot, pos, SEEK_DATA);
		if (next < 0 && errno == ENXIO)
			next = npages * DTRACK_PAGE_SIZE;
		*hole = next != pos;
		if (!*hole)
			next = lseek(slot, pos, SEEK_HOLE);
	} while (next == pos);
	if (next < 0)
		return -errno;
	*end = next / DTRACK_PAGE_SIZE;
	return 0;
}

const char *slot_label(const struct dirtytrack_slot_info *info,
		       char buf[SLOT_LABEL_LEN])
{
	if (info->out_name[0])
		snprintf(buf, SLOT_LABEL_LEN, "%.*s", DIRTYTRACK_NAME_LEN,
			 info->out_name);
	else
		snprintf(buf, SLOT_LABEL_LEN, "#%u", info->out_id);
	return buf;
}
