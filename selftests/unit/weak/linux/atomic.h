/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's atomics on a processor that uses the freedom it is given.
 *
 * x86 orders far more than the kernel promises, so a barrier that is missing does no
 * harm there and no test on it can find out.  Here, an operation that returns no
 * value may take effect any time before the next full barrier of its thread, after
 * later operations on other words; and a read may return what its thread read from
 * that word at any time since its last full barrier.  Both is what arm64, for one,
 * may do.  Threads also give up the processor between any two operations now and
 * then.
 *
 * Not modelled: the order of reads of which one gives the address of the other.
 */
#ifndef UNIT_WEAK_LINUX_ATOMIC_H
#define UNIT_WEAK_LINUX_ATOMIC_H

#include <linux/types.h>

void smp_mb(void);
s64 atomic64_read(const atomic64_t *v);
void atomic64_or(s64 bits, atomic64_t *v);
s64 atomic64_xchg(atomic64_t *v, s64 new);
s64 atomic64_fetch_andnot(s64 bits, atomic64_t *v);

static inline void smp_mb__after_atomic(void)
{
	smp_mb();
}

#endif
