/* SPDX-License-Identifier: GPL-2.0-only */
/* Which processes hold a slot, as far as /proc lets the caller see. */
#ifndef HOLDERS_H
#define HOLDERS_H

#include <stddef.h>

/*
 * Ids of the processes that have @slot open or mapped, this one left out, ascending
 * and apart by a space, ending with "..." if there is no room.  0 or -errno.
 */
int slot_holders(int slot, char *text, size_t size);

#endif
