// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "extents.h"

int add_extents(struct nbdkit_extents *extents, const char *name, int fd, uint64_t size,
		uint32_t count, uint64_t offset, uint32_t flags)
{
	uint64_t pos = offset, end = offset + count;

	while (pos < end) {
		off_t data = lseek(fd, pos, SEEK_DATA), hole;

		if (data < 0 && errno == ENXIO)
			data = size;
		if (data < 0)
			goto fail;
		if ((uint64_t)data > pos &&
		    nbdkit_add_extent(extents, pos, data - pos,
				      NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) < 0)
			return -1;
		pos = data;
		if (pos >= end)
			break;
		hole = lseek(fd, pos, SEEK_HOLE);
		if (hole < 0)
			goto fail;
		/* It was released before its end was found. */
		if ((uint64_t)hole == pos)
			continue;
		if (nbdkit_add_extent(extents, pos, hole - pos, 0) < 0)
			return -1;
		pos = hole;
		if (flags & NBDKIT_FLAG_REQ_ONE)
			break;
	}
	return 0;

fail:
	nbdkit_error("%s: cannot find its data: %m", name);
	return -1;
}
