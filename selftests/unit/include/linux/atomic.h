/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The module's sources in userland: the kernel's atomics on those of the compiler.
 *
 * Each has the order that the kernel promises and no more (see atomic_t.txt in the
 * kernel's documentation): what returns no value is unordered, what returns one is
 * a full barrier before and after.  How much less than x86 gives that is shows
 * weak/linux/atomic.h, which takes the place of this file in one of the builds.
 */
#ifndef UNIT_LINUX_ATOMIC_H
#define UNIT_LINUX_ATOMIC_H

#include <linux/types.h>

static inline void smp_mb(void)
{
#ifdef __SANITIZE_THREAD__
	/* ThreadSanitizer does not see fences; an exchange is one as well. */
	static s64 fence;

	__atomic_exchange_n(&fence, 0, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static inline void smp_mb__after_atomic(void)
{
	smp_mb();
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
	s64 old;

	smp_mb();
	old = __atomic_exchange_n(&v->counter, new, __ATOMIC_SEQ_CST);
	smp_mb();
	return old;
}

static inline s64 atomic64_fetch_andnot(s64 bits, atomic64_t *v)
{
	s64 old;

	smp_mb();
	old = __atomic_fetch_and(&v->counter, ~bits, __ATOMIC_SEQ_CST);
	smp_mb();
	return old;
}

#endif
