// SPDX-License-Identifier: GPL-2.0-only
/* Writers that are threads of this process. */
#include <x86intrin.h>

#include "bench.h"
#include "tracker.h"

static void cpu_write(struct region *r, unsigned int who, const uint32_t *list,
		      size_t n, unsigned int stride)
{
	(void)who;
	for (size_t i = 0; i < n; i += stride)
		++*page_word(r->mem, list[i]);
}

/*
 * Looks at pause again after it said that it rests no more: the one who asks
 * for the next rest may have seen that it still rested from the last.
 */
static void rest(struct spin *s)
{
	while (__atomic_load_n(&s->pause, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&s->resting, true, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&s->pause, __ATOMIC_SEQ_CST))
			__builtin_ia32_pause();
		__atomic_store_n(&s->resting, false, __ATOMIC_SEQ_CST);
	}
}

/*
 * The TSC, because reading the clock is as much work as a write; it is compared
 * with the clock at the end.
 */
static void cpu_spin(struct region *r, struct spin *s)
{
	double start = now_ns();
	uint64_t first = __rdtsc(), last = first, longest = 0, writes = 0;
	uint64_t page = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		uint64_t now;

		rest(s);
		++*page_word(r->mem, page);
		writes++;
		now = __rdtsc();
		if (now - last > longest)
			longest = now - last;
		last = now;
		page = page + 1 == r->npages ? 0 : page + 1;
	}
	s->writes = writes;
	s->longest_ns = longest * (now_ns() - start) / (__rdtsc() - first);
	/* Who waits for a rest is not kept waiting. */
	__atomic_store_n(&s->resting, true, __ATOMIC_SEQ_CST);
}

static void cpu_stop(struct region *r, struct spin *s)
{
	(void)r;
	__atomic_store_n(&s->stop, true, __ATOMIC_SEQ_CST);
}

const struct writer cpu_writer = {
	.name = "CPU",
	.ours = "dirtytrack",
	.write = cpu_write,
	.spin = cpu_spin,
	.stop = cpu_stop,
};
