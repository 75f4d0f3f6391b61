// SPDX-License-Identifier: GPL-2.0-only
/*
 * A processor with little order: see linux/atomic.h beside this file.
 *
 * Each thread has a list of its operations that have not taken effect and a list
 * of what it read since its last full barrier.  What a thread did to a word itself
 * it always sees.
 */
#include <sched.h>
#include <stdlib.h>

#include <linux/atomic.h>

#define MAX_PENDING 8
#define MAX_SEEN 8

struct pending {
	atomic64_t *v;
	s64 bits;
};

struct seen {
	const atomic64_t *v;
	s64 value;
};

static __thread struct pending pending[MAX_PENDING];
static __thread struct seen seen[MAX_SEEN];
static __thread unsigned int nr_pending, nr_seen;
static __thread u64 state;

/* True once in @n times. */
static bool once_in(unsigned int n)
{
	static u64 threads;

	if (!state)
		state = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED) *
			0x9e3779b97f4a7c15ULL;
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 20) % n == 0;
}

static void forget(const atomic64_t *v)
{
	unsigned int i;

	for (i = 0; i < nr_seen; i++) {
		if (seen[i].v == v) {
			seen[i] = seen[--nr_seen];
			return;
		}
	}
}

static void perform(unsigned int i)
{
	__atomic_fetch_or(&pending[i].v->counter, pending[i].bits,
			  __ATOMIC_SEQ_CST);
	forget(pending[i].v);
	pending[i] = pending[--nr_pending];
}

static void perform_those_on(const atomic64_t *v)
{
	unsigned int i = 0;

	while (i < nr_pending) {
		if (pending[i].v == v)
			perform(i);
		else
			i++;
	}
}

static void pass_time(void)
{
	if (nr_pending && once_in(8))
		perform(once_in(2) ? nr_pending - 1 : 0);
	if (once_in(64))
		sched_yield();
}

void smp_mb(void)
{
	while (nr_pending) {
		perform(once_in(2) ? nr_pending - 1 : 0);
		if (once_in(32))
			sched_yield();
	}
	nr_seen = 0;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

s64 atomic64_read(const atomic64_t *v)
{
	unsigned int i;
	s64 value;

	pass_time();
	perform_those_on(v);
	for (i = 0; i < nr_seen; i++) {
		if (seen[i].v == v && once_in(2))
			return seen[i].value;
	}
	value = __atomic_load_n(&v->counter, __ATOMIC_SEQ_CST);
	forget(v);
	if (nr_seen == MAX_SEEN)
		seen[0] = seen[--nr_seen];
	seen[nr_seen].v = v;
	seen[nr_seen].value = value;
	nr_seen++;
	pass_time();
	return value;
}

void atomic64_or(s64 bits, atomic64_t *v)
{
	pass_time();
	if (nr_pending == MAX_PENDING)
		perform(0);
	pending[nr_pending].v = v;
	pending[nr_pending].bits = bits;
	nr_pending++;
	if (once_in(2))
		perform(nr_pending - 1);
}

s64 atomic64_xchg(atomic64_t *v, s64 new)
{
	s64 old;

	pass_time();
	smp_mb();
	old = __atomic_exchange_n(&v->counter, new, __ATOMIC_SEQ_CST);
	smp_mb();
	return old;
}

s64 atomic64_fetch_andnot(s64 bits, atomic64_t *v)
{
	s64 old;

	pass_time();
	smp_mb();
	old = __atomic_fetch_and(&v->counter, ~bits, __ATOMIC_SEQ_CST);
	smp_mb();
	return old;
}
