/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Groups: how many pages one write fault opens, and which stay open.  See group.c.
 */
#ifndef DIRTYTRACK_GROUP_H
#define DIRTYTRACK_GROUP_H

#include <linux/types.h>

struct dt_slot;

/**
 * struct dt_history - what the last collect saw of a word of the open bitmap
 * @dirty: how many of its pages were written
 * @collect: the low bits of the number which that collect of its group had
 */
struct dt_history {
	u8 dirty;
	u8 collect;
};

int dt_group_init(void);
u64 dt_group_memory(u64 npages);
int dt_group_alloc(struct dt_slot *slot);
void dt_group_free(struct dt_slot *slot);
u64 dt_group_mask(struct dt_slot *slot, pgoff_t pgoff);
void dt_group_collect(struct dt_slot *slot, u64 group);
bool dt_group_may_stay(struct dt_slot *slot, u64 word);
bool dt_group_stays(struct dt_slot *slot, u64 word, u64 open, u64 dirty);
void dt_group_learn(struct dt_slot *slot, u64 word, u64 dirty);

#endif
