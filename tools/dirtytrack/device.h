/* SPDX-License-Identifier: GPL-2.0-only */
/* The device and slots, found as people name them, with messages. */
#ifndef DEVICE_H
#define DEVICE_H

#include "../lib/dirtytrack.h"

/* fd, or a message and -errno. */
int open_device(void);

/*
 * The slot that @ref names: by path when it has a '/', by id when it is a number,
 * by name otherwise.  @info is filled in.  fd, or a message and -errno.
 */
int open_slot(const char *ref, struct dirtytrack_slot_info *info);

/*
 * A log of the slot @ref, with a ring of so many entries or, for 0, without.  fd, or a
 * message and -errno.
 */
int open_log(int slot, const char *ref, uint32_t flags, uint32_t ring);

/*
 * Count the dirty pages of a log of @npages pages, taking them out of it or not.
 * 0 or -errno, @dirty being what was counted until then.
 */
int count_dirty(int log, uint64_t npages, bool take, uint64_t *dirty);

/*
 * Put the pages of @bits back into a log of @npages pages, all of them unless a signal
 * says to stop.  0 or -errno.
 */
int merge_all(int log, uint64_t npages, const uint64_t *bits);

/*
 * Pages of a slot of @npages pages, from @page to before @end, have no memory, or may have;
 * @page is in it, and @end after it, also while pages are released.  0 or -errno.
 */
int data_extent(int slot, uint64_t npages, uint64_t page, uint64_t *end, bool *hole);

/* Text for messages and tables: the name of the slot, or "#ID". */
#define SLOT_LABEL_LEN (DIRTYTRACK_NAME_LEN + 1)
const char *slot_label(const struct dirtytrack_slot_info *info,
		       char buf[SLOT_LABEL_LEN]);

#endif
