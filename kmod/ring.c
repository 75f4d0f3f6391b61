// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rings: pages as they become writable, pushed where it happens.
 *
 * Rules that make an entry enough for a consumer who clears what it names:
 *
 * - The open bit is set first, the entry is pushed next, the PTE made writable
 *   last, all under the page-table lock.  Were the entry first, its consumer could
 *   clear the page before it is open, and never hear of the write.  Were the PTE
 *   first, another thread's write through it could be done before the entry is there.
 * - A page that a collect leaves open is pushed again: no fault will come.
 * - A ring is in the slot's list before its log is handed out, and begins with one
 *   overflow: its consumer harvests first, and so has what was open before.  A grant
 *   that saw no ring set its open bit before that harvest looks:
 *
 *	grant                          LOG_CREATE, HARVEST
 *	  open bit = 1                   nrings++
 *	  full barrier                   full barrier
 *	  nrings == 0: no push           xchg(open word, 0): sees the bit
 *
 * While no log of the slot has a ring, all this is one read of a number in the fault
 * path.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "dirtytrack.h"
#include "trace.h"

static unsigned int max_ring_entries = 1U << 20;
module_param(max_ring_entries, uint, 0444);
MODULE_PARM_DESC(max_ring_entries, "how many entries the ring of a log may have");

/**
 * dt_ring_max - how large a ring may be
 *
 * Return: the limit, entries.
 */
u32 dt_ring_max(void)
{
	return max_ring_entries;
}

/**
 * dt_ring_memory - what a ring takes
 * @nr: its entries, 0 for no ring
 *
 * Return: bytes.
 */
u64 dt_ring_memory(u32 nr)
{
	struct dt_ring ring = { .nr = nr };

	return dt_ring_size(&ring) + dt_ring_control_size(&ring);
}

/**
 * dt_ring_size - how large the mapping with the entries is
 * @ring: the ring
 *
 * Return: bytes, a multiple of the page size; 0 without a ring.
 */
size_t dt_ring_size(const struct dt_ring *ring)
{
	if (!ring->nr)
		return 0;
	return PAGE_ALIGN(DIRTYTRACK_RING_ENTRIES_OFFSET + ring->nr * sizeof(u64));
}

/**
 * dt_ring_control_size - how large the mapping of the consumer's page is
 * @ring: the ring
 *
 * Return: bytes; 0 without a ring.
 */
size_t dt_ring_control_size(const struct dt_ring *ring)
{
	return ring->nr ? PAGE_SIZE : 0;
}

/**
 * dt_ring_init - make a ring
 * @ring: the ring, zeroed
 * @nr: its entries, a power of two; 0 for a log that has none
 *
 * Return: 0 or ENOMEM; dt_ring_destroy() undoes either.
 */
int dt_ring_init(struct dt_ring *ring, u32 nr)
{
	INIT_LIST_HEAD(&ring->node);
	init_waitqueue_head(&ring->wait);
	if (!nr)
		return 0;
	ring->nr = nr;
	ring->shared = __vmalloc(dt_ring_size(ring), DT_GFP_TABLE);
	ring->control = __vmalloc(dt_ring_control_size(ring), DT_GFP_TABLE);
	if (!ring->shared || !ring->control)
		return -ENOMEM;
	ring->entries = (void *)ring->shared + DIRTYTRACK_RING_ENTRIES_OFFSET;
	ring->shared->entries = nr;
	ring->shared->overflows = 1;
	return 0;
}

/**
 * dt_ring_destroy - free a ring
 * @ring: a ring that is in no list
 */
void dt_ring_destroy(struct dt_ring *ring)
{
	vfree(ring->shared);
	vfree(ring->control);
}

/**
 * dt_ring_overflows - how many entries found no room
 * @ring: the ring, if the log has one
 *
 * Return: their number.
 */
u64 dt_ring_overflows(const struct dt_ring *ring)
{
	return ring->nr ? READ_ONCE(ring->shared->overflows) - 1 : 0;
}

/* The consumer's page, each field read once. */
static struct dirtytrack_ring_control dt_ring_control(struct dt_ring *ring)
{
	return (struct dirtytrack_ring_control) {
		/* Pairs with his store-release: he has read the entries before. */
		.tail = smp_load_acquire(&ring->control->tail),
		.seen = READ_ONCE(ring->control->seen),
		.watermark = READ_ONCE(ring->control->watermark),
	};
}

static bool dt_ring_has(struct dt_ring *ring,
			const struct dirtytrack_ring_control *control)
{
	u64 used = READ_ONCE(ring->shared->head) - control->tail;

	return used >= clamp(control->watermark, 1U, ring->nr) ||
	       READ_ONCE(ring->shared->overflows) != control->seen;
}

/**
 * dt_ring_ready - is there what poll() waits for?
 * @ring: a ring
 *
 * Return: true if so.
 */
bool dt_ring_ready(struct dt_ring *ring)
{
	struct dirtytrack_ring_control control = dt_ring_control(ring);

	return dt_ring_has(ring, &control);
}

static void dt_ring_push(struct dt_ring *ring, u64 pgoff)
{
	struct dirtytrack_ring_control control = dt_ring_control(ring);
	struct dt_log *log = container_of(ring, struct dt_log, ring);
	struct dirtytrack_ring *shared = ring->shared;
	bool ready;

	if (shared->head - control.tail < ring->nr) {
		WRITE_ONCE(ring->entries[shared->head & (ring->nr - 1)], pgoff);
		/* Pairs with the consumer's load-acquire: entry and open bit. */
		smp_store_release(&shared->head, shared->head + 1);
	} else {
		/* Pairs with the consumer's load-acquire: the open bit. */
		smp_store_release(&shared->overflows, shared->overflows + 1);
		this_cpu_inc(log->slot->stats->overflows);
		trace_dirtytrack_ring_overflow(log->slot->id, log->id, pgoff);
	}

	/*
	 * The consumer writes his page, then looks at this one and goes to sleep.  If
	 * he did not see the entry, what he wrote is seen here: pairs with the barrier
	 * of poll, or with his own.
	 */
	smp_mb();
	control = dt_ring_control(ring);
	/* Who was woken and did nothing since need not be woken again. */
	ready = dt_ring_has(ring, &control);
	if (ready && (!ring->was_ready ||
		      memcmp(&ring->seen, &control, sizeof(control))))
		ring->wake = true;
	ring->was_ready = ready;
	ring->seen = control;
}

/**
 * dt_rings_push_word - put pages of a bitmap word into every ring of a slot
 * @slot: the slot
 * @word: index of the word
 * @bits: its pages, whose open bits were set, with a full barrier after it
 *
 * Context: any in which a spinlock may be taken; under a page-table lock, too.
 * Return: true if the caller is to call dt_rings_wake() when he holds no such lock.
 */
bool dt_rings_push_word(struct dt_slot *slot, u64 word, u64 bits)
{
	struct dt_ring *ring;
	bool wake = false;
	u64 left;

	if (!READ_ONCE(slot->nrings))
		return false;
	spin_lock(&slot->ring_lock);
	list_for_each_entry(ring, &slot->rings, node) {
		for (left = bits; left; left &= left - 1)
			dt_ring_push(ring, word * DT_WORD_BITS + __ffs64(left));
		wake |= ring->wake;
	}
	spin_unlock(&slot->ring_lock);
	return wake;
}

/**
 * dt_rings_push - put a page into every ring of a slot
 * @slot: the slot
 * @pgoff: the page
 *
 * Context and return: as dt_rings_push_word().
 */
bool dt_rings_push(struct dt_slot *slot, u64 pgoff)
{
	return dt_rings_push_word(slot, pgoff / DT_WORD_BITS,
				  1ULL << pgoff % DT_WORD_BITS);
}

/**
 * dt_rings_wake - wake who waits for a ring that became ready
 * @slot: the slot
 */
void dt_rings_wake(struct dt_slot *slot)
{
	struct dt_ring *ring;

	spin_lock(&slot->ring_lock);
	list_for_each_entry(ring, &slot->rings, node) {
		if (!ring->wake)
			continue;
		ring->wake = false;
		/* A barrier before the look: pairs with that of poll. */
		if (wq_has_sleeper(&ring->wait))
			wake_up_poll(&ring->wait, EPOLLIN | EPOLLRDNORM);
	}
	spin_unlock(&slot->ring_lock);
}

/**
 * dt_rings_add - begin to push into a ring
 * @slot: the slot
 * @ring: a new ring, or a log's that has none
 */
void dt_rings_add(struct dt_slot *slot, struct dt_ring *ring)
{
	if (!ring->nr)
		return;
	spin_lock(&slot->ring_lock);
	list_add_tail(&ring->node, &slot->rings);
	WRITE_ONCE(slot->nrings, slot->nrings + 1);
	spin_unlock(&slot->ring_lock);
	smp_mb();	/* nrings before the open bits: pairs with that of a grant */
}

/**
 * dt_rings_del - end it
 * @slot: the slot
 * @ring: the ring, which may not be in the list
 *
 * When it returns nobody uses the ring: no grace period is waited for.
 */
void dt_rings_del(struct dt_slot *slot, struct dt_ring *ring)
{
	spin_lock(&slot->ring_lock);
	if (!list_empty(&ring->node)) {
		list_del_init(&ring->node);
		WRITE_ONCE(slot->nrings, slot->nrings - 1);
	}
	spin_unlock(&slot->ring_lock);
}
