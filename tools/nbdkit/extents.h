/* SPDX-License-Identifier: GPL-2.0-only */
/* What of a file has memory, said as NBD wants it. Included after nbdkit's header. */
#ifndef EXTENTS_H
#define EXTENTS_H

#include <stdint.h>

/*
 * Add those of the @count bytes at @offset of a file of @size bytes; one is enough with
 * NBDKIT_FLAG_REQ_ONE in @flags.  0; or -1 after nbdkit_error(), in which @name is the
 * file's.
 */
int add_extents(struct nbdkit_extents *extents, const char *name, int fd, uint64_t size,
		uint32_t count, uint64_t offset, uint32_t flags);

#endif
