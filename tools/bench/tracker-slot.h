/* SPDX-License-Identifier: GPL-2.0-only */
/* What a slot does whoever writes to it. */
#ifndef TRACKER_SLOT_H
#define TRACKER_SLOT_H

struct region;

void slot_open(struct region *r);
void slot_start(struct region *r);
void slot_harvest(struct region *r);
void slot_close(struct region *r);

#endif
