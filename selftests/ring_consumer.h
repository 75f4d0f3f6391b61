/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A consumer of a log's ring, as the drawing at struct dirtytrack_ring has it
 *
 * It uses the ring, CLEAR_RANGES of what the ring names, and HARVEST when entries
 * found no room.  What else the log could tell it, it does not ask.
 */
#ifndef DIRTYTRACK_RING_CONSUMER_H
#define DIRTYTRACK_RING_CONSUMER_H

#include "dirtytrack_test.h"

struct ring {
	int log;
	__u64 npages;		/* of the slot */
	__u32 nr;		/* entries */
	size_t size;
	const struct dirtytrack_ring *shared;
	struct dirtytrack_ring_control *control;
	const __u64 *entries;
	struct dirtytrack_range *ranges;
	__u64 taken;		/* entries read */
	__u64 harvests;		/* taken because entries found no room */
};

static inline int _test_log_create_ring(int slot, __u32 flags, __u32 entries, int *fd)
{
	struct dirtytrack_log_create arg = {
		.size = sizeof(arg),
		.flags = flags,
		.ring_entries = entries,
	};
	int ret = dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &arg);

	*fd = ret ? -1 : arg.out_fd;
	return ret;
}

/* Maps the ring of @log. */
static inline int _ring_map(struct ring *r, int log)
{
	struct dirtytrack_log_info info;

	*r = (struct ring){ .log = log };
	if (_test_log_info(log, &info))
		return -1;
	r->npages = info.out_npages;
	r->size = info.out_ring_size;
	r->shared = mmap(NULL, r->size, PROT_READ, MAP_SHARED, log, info.out_ring_offset);
	if (r->shared == MAP_FAILED)
		return -1;
	r->control = mmap(NULL, info.out_control_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			  log, info.out_control_offset);
	if (r->control == MAP_FAILED)
		return -1;
	r->nr = r->shared->entries;
	r->entries = (const void *)((const char *)r->shared +
				    DIRTYTRACK_RING_ENTRIES_OFFSET);
	r->ranges = calloc(r->nr, sizeof(*r->ranges));
	return r->ranges ? 0 : -1;
}

static inline int _ring_open(struct ring *r, int slot, __u32 flags, __u32 entries)
{
	int log;

	if (_test_log_create_ring(slot, flags, entries, &log))
		return -1;
	return _ring_map(r, log);
}

#define ring_open(r, slot, entries) \
	ASSERT_EQ(0, _ring_open(r, slot, 0, entries)) { \
		TH_LOG("a log with a ring: %s", strerror(errno)); \
	}

static inline void ring_unmap(struct ring *r)
{
	munmap((void *)r->shared, r->size);
	munmap(r->control, PAGE_SIZE);
	free(r->ranges);
}

static inline void ring_close(struct ring *r)
{
	ring_unmap(r);
	close(r->log);
}

static inline __u64 ring_head(const struct ring *r)
{
	return __atomic_load_n(&r->shared->head, __ATOMIC_ACQUIRE);
}

static inline __u64 ring_overflows(const struct ring *r)
{
	return __atomic_load_n(&r->shared->overflows, __ATOMIC_ACQUIRE);
}

static inline __u64 ring_entry(const struct ring *r, __u64 n)
{
	return r->entries[n % r->nr];
}

static inline void ring_set_tail(struct ring *r, __u64 tail)
{
	__atomic_store_n(&r->control->tail, tail, __ATOMIC_RELEASE);
}

/* By the consumer's own look, what poll() waits for. */
static inline bool ring_ready(const struct ring *r)
{
	__u32 watermark = r->control->watermark;

	if (!watermark)
		watermark = 1;
	if (watermark > r->nr)
		watermark = r->nr;
	return ring_head(r) - r->control->tail >= watermark ||
	       ring_overflows(r) != r->control->seen;
}

/*
 * One turn: what the ring names is cleared, or if entries found no room the slot is
 * harvested, and set in @got.  The caller copies it then.
 */
static inline int _ring_take(struct ring *r, __u64 *got)
{
	__u64 overflows = ring_overflows(r), head = ring_head(r);
	__u64 tail = r->control->tail;
	__u64 pages;
	__u32 nr = 0;

	if (overflows != r->control->seen) {
		__atomic_store_n(&r->control->seen, overflows, __ATOMIC_RELAXED);
		ring_set_tail(r, head);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		r->harvests++;
		return _test_harvest_all(r->log, 0, 0, r->npages, got, 0, NULL);
	}
	if (head - tail > r->nr)
		dt_broken("head %llu is more than %u after tail %llu", head, r->nr, tail);
	for (; tail != head; tail++) {
		__u64 page = ring_entry(r, tail);

		if (page >= r->npages)
			dt_broken("entry %llu is %llu, of %llu pages", tail, page,
				  r->npages);
		r->taken++;
		if (bit_test(got, page))
			continue;
		bit_set(got, page);
		if (nr && r->ranges[nr - 1].first + r->ranges[nr - 1].npages == page)
			r->ranges[nr - 1].npages++;
		else
			r->ranges[nr++] = (struct dirtytrack_range){ page, 1 };
	}
	ring_set_tail(r, head);
	return _test_ranges_all(r->log, DIRTYTRACK_LOG_CLEAR_RANGES, r->ranges, nr, &pages);
}

#endif /* DIRTYTRACK_RING_CONSUMER_H */
