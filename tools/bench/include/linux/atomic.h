/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The module's bitmap in a benchmark: the kernel's atomics as they are on x86, where
 * each that changes memory is a full barrier by itself.  (The unit tests have their
 * own, which order no more than the kernel promises, and cost more.)
 */
#ifndef BENCH_LINUX_ATOMIC_H
#define BENCH_LINUX_ATOMIC_H

#include <linux/types.h>

static inline void smp_mb(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline void smp_mb__after_atomic(void)
{
#ifdef __x86_64__
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
#else
	smp_mb();
#endif
}

static inline s64 atomic64_read(const atomic64_t *v)
{
	return __atomic_load_n(&v->counter, __ATOMIC_RELAXED);
}

static inline void atomic64_or(s64 bits, atomic64_t *v)
{
	__atomic_fetch_or(&v->counter, bits, __ATOMIC_RELAXED);
}

static inline s64 atomic64_xchg(atomic64_t *v, s64 new)
{
	return __atomic_exchange_n(&v->counter, new, __ATOMIC_SEQ_CST);
}

static inline s64 atomic64_fetch_andnot(s64 bits, atomic64_t *v)
{
	return __atomic_fetch_and(&v->counter, ~bits, __ATOMIC_SEQ_CST);
}

#endif
