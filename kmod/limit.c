// SPDX-License-Identifier: GPL-2.0-only
/*
 * Back-pressure: a limit on how fast a slot's pages become dirty.
 *
 * The generic cell rate algorithm (ITU-T I.371), a token bucket that is one time
 * stamp: a page is due when its predecessors had their share of time each.
 * Who comes before that takes his turn, sleeps until then, and leaves a credit; his
 * fault is taken again and uses it.  (If another's does, the two changed places.)
 * So there is one turn for every page that becomes writable, whatever becomes of the
 * threads, and the rate holds for one writer as for many.
 *
 * Nothing is locked while waiting: .fault drops mmap_lock or the VMA's lock, as the
 * core allows it to if it then returns VM_FAULT_RETRY.  page_mkwrite cannot: the
 * core has hidden its flags from it, and a waiter there would keep munmap() and all
 * who queue behind it waiting.  So a slot with a limit is protected by zap, after
 * which every write comes to .fault; and where a read was first, page_mkwrite
 * removes the PTE and has the fault taken again.
 *
 * Who cannot wait takes his turn and goes on at once; the next ones wait longer.
 */
#include <linux/file.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "compat/compat.h"
#include "dirtytrack.h"
#include "trace.h"

/* Time not used that can be made up for: covers late wake-ups. */
#define DT_LIMIT_BURST	(NSEC_PER_SEC / 10)

#define DT_LIMIT_WAIT	(DIRTYTRACK_LIMIT_WAIT * NSEC_PER_SEC)

/**
 * dt_limit_init - make a limit that is none
 * @limit: the limit, zeroed
 */
void dt_limit_init(struct dt_limit *limit)
{
	spin_lock_init(&limit->lock);
	init_waitqueue_head(&limit->wait);
}

/*
 * Is the page writable already, and so paid for?  One that was released is open for a
 * collect to look, and not yet written: it counts until it was collected.
 */
static bool dt_limit_open(struct dt_slot *slot, pgoff_t pgoff)
{
	return dt_bitmap_test(&slot->open, pgoff) &&
	       !(READ_ONCE(slot->released[pgoff / DT_WORD_BITS]) >>
		 pgoff % DT_WORD_BITS & 1);
}

/* How far apart turns are; there must be a limit. */
static u64 dt_limit_turn(const struct dt_limit *limit)
{
	return NSEC_PER_SEC / limit->rate;
}

/*
 * Takes a turn.
 *
 * Return: how long it is until then, 0 for what is not worth a wait; *changes is what
 * to wait with.
 */
static u64 dt_limit_take(struct dt_limit *limit, u32 *changes)
{
	u64 now = ktime_get_ns();
	u64 wait = 0;

	spin_lock(&limit->lock);
	*changes = limit->changes;
	if (limit->credits) {
		limit->credits--;
	} else if (limit->rate) {
		limit->due = clamp(limit->due, now - DT_LIMIT_BURST,
				   now + DT_LIMIT_WAIT);
		if (limit->due > now)
			wait = limit->due - now;
		limit->due += dt_limit_turn(limit);
	}
	spin_unlock(&limit->lock);
	return wait < TICK_NSEC ? 0 : wait;
}

/* Gives back a turn that was taken with @changes. */
static void dt_limit_give_back(struct dt_limit *limit, u32 changes)
{
	spin_lock(&limit->lock);
	if (limit->changes == changes)
		limit->due -= dt_limit_turn(limit);
	spin_unlock(&limit->lock);
}

/*
 * Waits for a turn that was taken with @changes.  Returns early, with nothing taken
 * any more, for a signal and when the limit changes.
 */
static void dt_limit_wait(struct dt_slot *slot, pgoff_t pgoff, u32 changes, u64 wait)
{
	struct dt_limit *limit = &slot->limit;
	u64 waited, start = ktime_get_ns();
	long left;

	left = wait_event_interruptible_timeout(limit->wait,
						READ_ONCE(limit->changes) != changes,
						nsecs_to_jiffies(wait) + 1);
	spin_lock(&limit->lock);
	if (limit->changes == changes) {
		if (left < 0)
			limit->due -= dt_limit_turn(limit);
		else
			limit->credits++;
	}
	limit->throttles++;
	waited = ktime_get_ns() - start;
	limit->throttled_ns += waited;
	spin_unlock(&limit->lock);
	trace_dirtytrack_throttle(slot->id, pgoff, waited);
}

/**
 * dt_limit_fault - wait in a write fault
 * @slot: the slot
 * @vmf: the fault, of .fault
 *
 * Return: 0 to go on, else what the fault handler returns at once: VM_FAULT_RETRY,
 * with the lock of the fault dropped as the caller of the fault handler expects.
 */
vm_fault_t dt_limit_fault(struct dt_slot *slot, struct vm_fault *vmf)
{
	struct dt_limit *limit = &slot->limit;
	struct file *file;
	u32 changes;
	u64 wait;

	if (likely(!READ_ONCE(limit->rate)) || dt_limit_open(slot, vmf->pgoff))
		return 0;
	wait = dt_limit_take(limit, &changes);
	if (!wait || !(vmf->flags & FAULT_FLAG_ALLOW_RETRY))
		return 0;
	/* In the kernel the fault would be taken again and again until it returns. */
	if (signal_pending(current))
		return 0;
	if (vmf->flags & FAULT_FLAG_RETRY_NOWAIT) {
		dt_limit_give_back(limit, changes);
		return VM_FAULT_RETRY;
	}
	/* Without the lock the mapping may go, and the slot with it. */
	file = get_file(vmf->vma->vm_file);
	release_fault_lock(vmf);
	dt_limit_wait(slot, vmf->pgoff, changes, wait);
	fput(file);
	return VM_FAULT_RETRY;
}

/**
 * dt_limit_pass - may a page become writable now?
 * @slot: the slot
 * @pgoff: the page
 *
 * Return: true, and it counts; or false, and the caller must not make it so.
 */
bool dt_limit_pass(struct dt_slot *slot, pgoff_t pgoff)
{
	struct dt_limit *limit = &slot->limit;
	u32 changes;

	if (likely(!READ_ONCE(limit->rate)) || dt_limit_open(slot, pgoff))
		return true;
	if (!dt_limit_take(limit, &changes))
		return true;
	dt_limit_give_back(limit, changes);
	return false;
}

/**
 * dt_limit_write - wait before the kernel writes to a page
 * @slot: the slot
 * @pgoff: the page
 *
 * Context: no lock held.
 * Return: 0, or EINTR for a signal.
 */
int dt_limit_write(struct dt_slot *slot, pgoff_t pgoff)
{
	u32 changes;
	u64 wait;

	while (unlikely(READ_ONCE(slot->limit.rate)) && !dt_limit_open(slot, pgoff)) {
		wait = dt_limit_take(&slot->limit, &changes);
		if (!wait)
			break;
		dt_limit_wait(slot, pgoff, changes, wait);
		if (signal_pending(current))
			return -EINTR;
	}
	return 0;
}

/**
 * dt_limit_update - make the smallest limit of its logs a slot's
 * @slot: the slot, locked
 *
 * Who waits, waits for the new one, or not at all.
 */
void dt_limit_update(struct dt_slot *slot)
{
	struct dt_limit *limit = &slot->limit;
	struct dt_log *log;
	u64 rate = 0;

	lockdep_assert_held(&slot->lock);
	list_for_each_entry(log, &slot->logs, node) {
		if (log->rate && (!rate || log->rate < rate))
			rate = log->rate;
	}
	if (rate == limit->rate)
		return;
	spin_lock(&limit->lock);
	WRITE_ONCE(limit->rate, rate);
	WRITE_ONCE(limit->changes, limit->changes + 1);
	limit->due = ktime_get_ns();
	limit->credits = 0;
	spin_unlock(&limit->lock);
	wake_up_all(&limit->wait);
}

/**
 * dt_limit_set - set or lift the limit of a log
 * @log: the log
 * @rate: pages a second, 0 for none
 *
 * Context: takes the slot's lock.
 * Return: 0; EINVAL, EINTR.
 */
int dt_limit_set(struct dt_log *log, u64 rate)
{
	if (rate > DIRTYTRACK_LIMIT_MAX)
		return -EINVAL;
	if (mutex_lock_killable(&log->slot->lock))
		return -EINTR;
	log->rate = rate;
	dt_limit_update(log->slot);
	mutex_unlock(&log->slot->lock);
	return 0;
}
