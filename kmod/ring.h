/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A log's ring: an index of pages as they become writable.  Its life cycle and what
 * a consumer may rely on are in the uapi header, at struct dirtytrack_ring.
 */
#ifndef DIRTYTRACK_RING_H
#define DIRTYTRACK_RING_H

#include <linux/list.h>
#include <linux/poll.h>
#include <linux/types.h>
#include <linux/wait.h>

#include <uapi/linux/dirtytrack.h>

struct dt_slot;

/**
 * struct dt_ring - the ring of a log
 * @shared: head and counters, then the entries; the consumer maps it read-only
 * @entries: the entries
 * @nr: how many, a power of two; 0 for a log without a ring
 * @control: the consumer's page.  He may write anything there at any time: each
 *	field is read once for what is decided by it, and every value means something
 * @node: in the slot's list
 * @wait: who polls
 * @seen: the control page as it was at the last push
 * @was_ready: poll() would have returned then
 * @wake: someone is to be woken once the page-table lock is dropped
 *
 * The slot's ring_lock guards all but the consumer's page.  It is taken under a
 * page-table lock, and nothing sleeps under it.
 */
struct dt_ring {
	struct dirtytrack_ring *shared;
	u64 *entries;
	u32 nr;
	struct dirtytrack_ring_control *control;
	struct list_head node;
	wait_queue_head_t wait;
	struct dirtytrack_ring_control seen;
	bool was_ready;
	bool wake;
};

int dt_ring_init(struct dt_ring *ring, u32 nr);
void dt_ring_destroy(struct dt_ring *ring);
u64 dt_ring_memory(u32 nr);
size_t dt_ring_size(const struct dt_ring *ring);
size_t dt_ring_control_size(const struct dt_ring *ring);
bool dt_ring_ready(struct dt_ring *ring);
u64 dt_ring_overflows(const struct dt_ring *ring);
u32 dt_ring_max(void);

void dt_rings_add(struct dt_slot *slot, struct dt_ring *ring);
void dt_rings_del(struct dt_slot *slot, struct dt_ring *ring);
bool dt_rings_push(struct dt_slot *slot, u64 pgoff);
bool dt_rings_push_word(struct dt_slot *slot, u64 word, u64 bits);
void dt_rings_wake(struct dt_slot *slot);

#endif
