// SPDX-License-Identifier: GPL-2.0-only
/*
 * A bound on the memory of all slots together: their pages and what describes them.
 *
 * Memory is charged before it is allocated, and uncharged when the slot gives it up.
 * (A page that somebody still holds then is his: it is charged to his memory cgroup
 * or to whom it was, as ever, and counts here no more.)
 */
#include <linux/module.h>
#include <linux/percpu_counter.h>

#include "dirtytrack.h"

static unsigned long max_memory;
module_param(max_memory, ulong, 0444);
MODULE_PARM_DESC(max_memory, "bytes that all slots may take, with their logs (default: the machine's memory)");

/*
 * What a CPU keeps to itself of the count.  Faults charge a page each, on all CPUs at
 * once: they share a cache line every 64th time, and look at each other's only when
 * the bound is as near as all of them together may be wrong.
 */
#define DT_MEMORY_BATCH (64 * PAGE_SIZE)

static struct percpu_counter dt_memory;

/**
 * dt_memory_max - how much memory all slots may take
 *
 * Return: the limit in bytes.
 */
u64 dt_memory_max(void)
{
	return max_memory ?: (u64)totalram_pages() << PAGE_SHIFT;
}

/**
 * dt_memory_used - how much memory they take
 *
 * Return: bytes.
 */
u64 dt_memory_used(void)
{
	return percpu_counter_sum_positive(&dt_memory);
}

static bool dt_memory_exceeds(u64 limit)
{
	return __percpu_counter_compare(&dt_memory, limit, DT_MEMORY_BATCH) > 0;
}

/**
 * dt_memory_charge - reserve memory
 * @bytes: how much
 *
 * Charged, then looked at: so that two who ask at once cannot both have what is left
 * for one; it may be that neither gets it.  Looked at before, too: so that who
 * asks for too much does not take it from a fault meanwhile.
 *
 * Return: 0, or ENOSPC over the limit.
 */
int dt_memory_charge(u64 bytes)
{
	u64 max = dt_memory_max();

	if (bytes > max || dt_memory_exceeds(max - bytes))
		return -ENOSPC;
	percpu_counter_add_batch(&dt_memory, bytes, DT_MEMORY_BATCH);
	if (!dt_memory_exceeds(max))
		return 0;
	dt_memory_uncharge(bytes);
	return -ENOSPC;
}

/**
 * dt_memory_uncharge - give memory back
 * @bytes: how much
 */
void dt_memory_uncharge(u64 bytes)
{
	percpu_counter_add_batch(&dt_memory, -(s64)bytes, DT_MEMORY_BATCH);
}

/**
 * dt_memory_init - count from zero
 *
 * Return: 0 or ENOMEM.
 */
int __init dt_memory_init(void)
{
	return percpu_counter_init(&dt_memory, 0, GFP_KERNEL);
}

/**
 * dt_memory_exit - every slot is gone, and all that was charged
 */
void dt_memory_exit(void)
{
	WARN_ON(percpu_counter_sum(&dt_memory));
	percpu_counter_destroy(&dt_memory);
}
