/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The dirty-rate limit of a slot: see limit.c.
 */
#ifndef DIRTYTRACK_LIMIT_H
#define DIRTYTRACK_LIMIT_H

#include <linux/mm_types.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

struct dt_log;
struct dt_slot;

/**
 * struct dt_limit - how fast a slot's pages may become dirty
 * @rate: pages a second, the smallest of its logs' limits; 0 for none.  Written
 *	under the slot's lock and @lock
 * @lock: guards what follows
 * @due: when the next page's turn is, ns of ktime_get_ns()
 * @credits: pages that were waited for and not written yet
 * @changes: counts changes of @rate
 * @throttles: waits
 * @throttled_ns: how long they were
 * @wait: who waits for his turn
 */
struct dt_limit {
	u64 rate;
	spinlock_t lock;	/* what follows */
	u64 due;
	u32 credits;
	u32 changes;
	u64 throttles;
	u64 throttled_ns;
	wait_queue_head_t wait;
};

void dt_limit_init(struct dt_limit *limit);
void dt_limit_update(struct dt_slot *slot);
int dt_limit_set(struct dt_log *log, u64 rate);
vm_fault_t dt_limit_fault(struct dt_slot *slot, struct vm_fault *vmf);
bool dt_limit_pass(struct dt_slot *slot, pgoff_t pgoff);
int dt_limit_write(struct dt_slot *slot, pgoff_t pgoff);

#endif
