/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Consumers: one log and one copy of the slot each
 *
 * A consumer copies what its log reports, as a migration does, and after each
 * harvest looks at every page of the copy, not only at those reported:
 *
 *	writer (actors.h)		consumer
 *	started[page] = n		before[page] = completed[page]
 *	page = n			harvest, copy what it reports
 *	completed[page] = n		copy[page] in [before, started[page]] ?
 *
 * A write that had completed before the harvest and is not in the copy was lost.  At
 * the end the writers stop, and after one more harvest the copy must be the slot, byte
 * for byte, and the log empty.
 *
 * Some release what is clean, so that pages are zero which they have seen; see actors.h.
 *
 * Some ask for less than everything, or give something back: they look at the pages
 * that the round was about and that they copied.  What was given back must be reported
 * by the next harvest.
 */
#ifndef DIRTYTRACK_CONSUMERS_H
#define DIRTYTRACK_CONSUMERS_H

#include "actors.h"
#include "ring_consumer.h"

#define MAX_CONSUMERS	8
#define MAX_PRINT	6

/* How a consumer asks. */
enum method {
	METHOD_NONE,
	METHOD_BITMAP,
	METHOD_SHIFTED,		/* the bitmap begins in the middle of a word */
	METHOD_PARTS,		/* several ranges, none of whole words */
	METHOD_EXTENTS,
	METHOD_RESUMED,		/* one call a round, which a small array stops early */
	METHOD_PEEK,		/* peek, then harvest, which must have as much */
	METHOD_CLEAR,		/* peek; clear some pages just before they are copied */
	METHOD_CLEAR_RANGES,
	METHOD_MERGE,		/* at times the copying fails half-way: merge the rest */
	METHOD_MERGE_RANGES,
	METHOD_RING,		/* what the ring names is cleared; a harvest on overflow */
};

enum part { PART_ALL, PART_LOW, PART_HIGH };

/* What becomes of a consumer's log when it is time for another. */
enum renewal {
	RENEW_AFRESH,		/* closed, then a new log and a new copy */
	RENEW_BY_HAND_OVER,	/* both for a while; the copy goes on */
};

struct consumer_spec {
	enum method method;
	enum part part;		/* LOW and HIGH are of one log */
	unsigned int pause_us;
	unsigned int renew;	/* a new log every so many rounds */
	enum renewal how;
	__u32 flags;		/* of LOG_CREATE */
	__u32 ring_entries;	/* METHOD_RING has some; others may */
	bool ring_at_times;	/* a log without, harvested, and one with, in turn */
	__u64 limit;		/* pages a second; the next log has none, and so on */
	bool trims;		/* after each round releases what is clean of its share */
};

/* No harvest before that a page could be reported again after. */
#define NEVER (~0ULL)

struct consumer {
	struct consumer_spec spec;
	struct arena *arena;
	_Atomic bool *stop;
	int slot, log;
	struct ring ring;	/* of the log */
	unsigned int id;
	__u64 first, npages;	/* its part of the slot */
	const struct actor *actors;
	unsigned int nr_actors;
	const char *view;	/* the slot, read-only */
	char *copy;
	__u64 random;
	unsigned int trimmer, nr_trimmers;	/* which of how many, if it is one */
	bool limited;		/* the log has a limit */
	bool drain;		/* the log ends, or the writers have: fail no more */
	/* This round, by page of its part: */
	__u64 from, to;		/* what was asked about */
	__u64 *before;		/* completed when the harvest was called */
	__u64 *last;		/* the same for the last harvest that was about it */
	__u64 *got, *holes;	/* reported; as holes */
	__u64 *owed;		/* merged, so due next time */
	pthread_t thread;
	/* results */
	_Atomic __u64 rounds;
	_Atomic __u64 released, skipped;
	__u64 reported, again, lost, impossible, unpeeked, unpaid, miscounted;
	__u64 differ, tail;
	int error;
};

static bool consumer_fail(struct consumer *c, const char *what)
{
	c->error = errno;
	fprintf(stderr, "# consumer %u: %s: %s\n", c->id, what, strerror(errno));
	return false;
}

/* ---- asking ---- */

/* Not a multiple of anything; the first word has bits that are not ours. */
#define SHIFT 13

/* Goes on where the last call stopped, at its range's end or for a full array. */
static int harvest_some(struct consumer *c)
{
	struct dirtytrack_extent extents[7];
	struct dirtytrack_harvest_extents arg;
	__u64 npages = c->npages / 2 + 1;

	if (npages > c->npages - c->from)
		npages = c->npages - c->from;
	if (_test_extents(c->log, 0, c->first + c->from, npages, extents,
			  ARRAY_SIZE(extents), &arg))
		return -1;
	c->to = arg.out_next - c->first;
	for (__u32 i = 0; i < arg.out_nr; i++) {
		for (__u32 k = 0; k < extents[i].npages; k++) {
			__u64 n = extents[i].first - c->first + k;

			bit_set(c->got, n);
			if (extents[i].state == DIRTYTRACK_STATE_HOLE)
				bit_set(c->holes, n);
		}
	}
	return 0;
}

static int harvest_parts(struct consumer *c)
{
	__u64 part = c->npages / 5 + 2;

	for (__u64 at = 0; at < c->npages; at += part) {
		if (part > c->npages - at)
			part = c->npages - at;
		if (_test_harvest_all(c->log, 0, c->first + at, part, c->got, at, NULL))
			return -1;
	}
	return 0;
}

static int harvest_what_was_peeked(struct consumer *c)
{
	__u64 n = c->npages, *peeked = bitmap_alloc(n);
	int ret;

	ret = _test_harvest_all(c->log, DIRTYTRACK_HARVEST_PEEK, c->first, n, peeked, 0,
				NULL);
	if (!ret)
		ret = _test_harvest_all(c->log, 0, c->first, n, c->got, 0, NULL);
	for (__u64 i = 0; i < n; i++)
		c->unpeeked += bit_test(peeked, i) && !bit_test(c->got, i);
	free(peeked);
	return ret;
}

/* got and holes have bit n for page first + n. */
static int consumer_ask(struct consumer *c)
{
	__u64 n = c->npages;
	int ret;

	bitmap_zero(c->got, n + 64);
	bitmap_zero(c->holes, n);
	/* A resumed one goes round and round; others begin anew. */
	c->from = c->spec.method == METHOD_RESUMED && c->to < n ? c->to : 0;
	c->to = n;
	switch (c->spec.method) {
	case METHOD_BITMAP:
	case METHOD_MERGE_RANGES:
		return _test_harvest_all(c->log, 0, c->first, n, c->got, 0, NULL);
	case METHOD_SHIFTED:
	case METHOD_MERGE:
		ret = _test_harvest_all(c->log, 0, c->first, n, c->got, SHIFT, NULL);
		bitmap_shift_down(c->got, SHIFT, n);
		return ret;
	case METHOD_PARTS:
		return harvest_parts(c);
	case METHOD_EXTENTS:
		ret = _test_extents_all(c->log, 0, c->first, n, 60, c->got, c->holes,
					NULL);
		for (__u64 i = 0; i < bitmap_words(n); i++)
			c->got[i] |= c->holes[i];
		return ret;
	case METHOD_RESUMED:
		return harvest_some(c);
	case METHOD_PEEK:
		return harvest_what_was_peeked(c);
	case METHOD_CLEAR:
		return _test_harvest_all(c->log, DIRTYTRACK_HARVEST_PEEK, c->first, n,
					 c->got, 0, NULL);
	case METHOD_CLEAR_RANGES:
		/* What was a hole need not be one when it is cleared. */
		return _test_extents_all(c->log, DIRTYTRACK_HARVEST_PEEK, c->first, n,
					 60, c->got, c->got, NULL);
	case METHOD_RING:
		if (c->ring.nr)
			return _ring_take(&c->ring, c->got);
		return _test_harvest_all(c->log, 0, c->first, n, c->got, 0, NULL);
	case METHOD_NONE:
		break;
	}
	errno = EINVAL;
	return -1;
}

/* ---- copying ---- */

static const char *view_page(const struct consumer *c, __u64 i)
{
	return c->view + ((c->first + i) << DIRTYTRACK_PAGE_SHIFT);
}

static void copy_pages(struct consumer *c, __u64 from, __u64 to)
{
	for (__u64 i = from; i < to; i++) {
		if (!bit_test(c->got, i))
			continue;
		if (bit_test(c->holes, i))
			memset(page_at(c->copy, i), 0, PAGE_SIZE);
		else
			memcpy(page_at(c->copy, i), view_page(c, i), PAGE_SIZE);
	}
}

/* Says of the pages of [from, to) that are set in @map what the command says. */
static bool consumer_tell(struct consumer *c, unsigned long cmd, const __u64 *map,
			  __u64 from, __u64 to)
{
	struct dirtytrack_range ranges[16];
	__u64 asked = 0, done = 0, pages;
	__u32 nr;
	int ret;

	for (__u64 i = from; i < to; i++)
		asked += bit_test(map, i);
	if (cmd == DIRTYTRACK_LOG_CLEAR || cmd == DIRTYTRACK_LOG_MERGE) {
		ret = _test_bitmap_all(c->log, cmd, c->first + from, to - from, map,
				       from, &done);
		if (ret)
			return consumer_fail(c, dt_call(cmd)->name);
		from = to;
	}
	while ((nr = bitmap_ranges(map, &from, to, ranges, ARRAY_SIZE(ranges)))) {
		for (__u32 i = 0; i < nr; i++)
			ranges[i].first += c->first;
		if (_test_ranges_all(c->log, cmd, ranges, nr, &pages))
			return consumer_fail(c, dt_call(cmd)->name);
		done += pages;
	}
	/* Nobody else takes pages out of this log. */
	c->miscounted += done != asked;
	return true;
}

/* A page is cleared and then copied, so a write in between is copied once. */
static bool copy_in_two_phases(struct consumer *c, unsigned long cmd)
{
	__u64 to;

	for (__u64 at = c->from; at < c->to; at = to) {
		to = at + 1 + next_random(&c->random) % 100;
		if (to > c->to)
			to = c->to;
		if (!consumer_tell(c, cmd, c->got, at, to))
			return false;
		copy_pages(c, at, to);
	}
	return true;
}

/* The connection breaks at some page: from there on nothing was delivered. */
static bool copy_until_it_fails(struct consumer *c, unsigned long cmd)
{
	__u64 to = c->to;

	if (!c->drain && next_random(&c->random) % 2)
		to = c->from + next_random(&c->random) % (c->to - c->from);
	copy_pages(c, c->from, to);
	for (__u64 i = to; i < c->to; i++)
		if (bit_test(c->got, i))
			bit_set(c->owed, i);
	return consumer_tell(c, cmd, c->owed, to, c->to);
}

static bool consumer_copy(struct consumer *c)
{
	switch (c->spec.method) {
	case METHOD_CLEAR:
		return copy_in_two_phases(c, DIRTYTRACK_LOG_CLEAR);
	case METHOD_CLEAR_RANGES:
		return copy_in_two_phases(c, DIRTYTRACK_LOG_CLEAR_RANGES);
	case METHOD_MERGE:
		return copy_until_it_fails(c, DIRTYTRACK_LOG_MERGE);
	case METHOD_MERGE_RANGES:
		return copy_until_it_fails(c, DIRTYTRACK_LOG_MERGE_RANGES);
	default:
		copy_pages(c, c->from, c->to);
		return true;
	}
}

/* ---- judging ---- */

static void look_at(struct consumer *c, __u64 i)
{
	const __u64 *copy = (const __u64 *)page_at(c->copy, i);
	struct page_state *s = &c->arena->pages[c->first + i];
	__u64 started = atomic_load_explicit(&s->started, memory_order_relaxed);
	__u64 words[2] = { copy[0], copy[LAST_WORD] };
	bool discarded = c->actors->discarded[owner_of(c->first + i, c->nr_actors)];

	for (int k = 0; k < 2; k++) {
		if (plausible(s, discarded, k, words[k], c->before[i], started))
			continue;
		if (words[k] > started)
			c->impossible++;
		else if (c->lost++ < MAX_PRINT)
			fprintf(stderr, "# consumer %u, round %llu: page %llu, write %llu had completed before the harvest, the copy has %llu; %s\n",
				c->id, (unsigned long long)c->rounds, c->first + i,
				c->before[i], words[k],
				bit_test(c->got, i) ? "reported" : "not reported");
		/* Count each loss once. */
		memcpy(page_at(c->copy, i), view_page(c, i), PAGE_SIZE);
		return;
	}
}

/* What the harvest has too little, and what it has although nothing happened. */
static void look_at_report(struct consumer *c)
{
	for (__u64 i = c->from; i < c->to; i++) {
		if (!bit_test(c->got, i)) {
			c->unpaid += bit_test(c->owed, i);
			continue;
		}
		c->reported++;
		/*
		 * No write was under way since the last harvest was called.  When the
		 * writers have been told to stop, exits zap, and hold, all pages.
		 */
		if (c->last[i] == atomic_load(&c->arena->pages[c->first + i].started) &&
		    !atomic_load(&c->arena->stop))
			c->again++;
	}
}

/* ---- rounds ---- */

static bool consumer_round(struct consumer *c)
{
	for (__u64 i = 0; i < c->npages; i++)
		c->before[i] = atomic_load_explicit(
			&c->arena->pages[c->first + i].completed,
			memory_order_acquire);
	if (consumer_ask(c))
		return consumer_fail(c, "harvest");
	look_at_report(c);
	bitmap_zero(c->owed, c->npages);
	if (!consumer_copy(c))
		return false;
	/* What has been copied was started: pairs with write_begin(). */
	atomic_thread_fence(memory_order_seq_cst);
	for (__u64 i = c->from; i < c->to; i++) {
		bool owed = bit_test(c->owed, i);

		if (!owed)
			look_at(c, i);
		c->last[i] = owed ? NEVER : c->before[i];
	}
	c->rounds++;
	return true;
}

/* Each page has one at most who releases it. */
static bool trims_page(const struct consumer *c, __u64 i)
{
	return (c->first + i) / 5 % c->nr_trimmers == c->trimmer;
}

/*
 * What the copy has was seen: from here on the slot need not have it, unless something is
 * written after it.  All of the share, or a part of it.
 */
static bool consumer_trim(struct consumer *c)
{
	struct dirtytrack_range *ranges = calloc(c->npages, sizeof(*ranges));
	__u64 *share = bitmap_alloc(c->npages), at = 0;
	__u64 start = next_random(&c->random) % c->npages;
	bool part = next_random(&c->random) % 4 == 0;
	struct done done = { };
	__u32 nr;
	int ret;

	for (__u64 i = 0; i < c->npages; i++) {
		const __u64 *copy = (const __u64 *)page_at(c->copy, i);
		struct page_state *s = &c->arena->pages[c->first + i];
		__u64 words[2] = { copy[0], copy[LAST_WORD] };

		if (!trims_page(c, i) || (part && i < start))
			continue;
		bit_set(share, i);
		for (int k = 0; k < 2; k++)
			if (words[k] > atomic_load(&s->seen[k]))
				atomic_store(&s->seen[k], words[k]);
	}
	nr = bitmap_ranges(share, &at, c->npages, ranges, c->npages);
	for (__u32 i = 0; i < nr; i++)
		ranges[i].first += c->first;
	ret = _test_release_all(c->log, DIRTYTRACK_LOG_RELEASE_CLEAN, ranges, nr, &done);
	c->released += done.pages;
	c->skipped += done.skipped;
	free(ranges);
	free(share);
	return !ret || consumer_fail(c, "RELEASE_CLEAN");
}

/* All that was written before, in as many rounds as the method takes. */
static bool consumer_drain(struct consumer *c)
{
	c->drain = true;
	c->to = c->npages;
	do {
		if (!consumer_round(c))
			return false;
	} while (c->to < c->npages);
	c->drain = false;
	return true;
}

static void forget_last(struct consumer *c)
{
	for (__u64 i = 0; i < c->npages; i++)
		c->last[i] = NEVER;
}

/*
 * From when LOG_CREATE returns, every write is in the log: copy after it.  A log that
 * has all pages from the start needs no first copy.
 */
static void copy_afresh(struct consumer *c)
{
	if (c->spec.flags & DIRTYTRACK_LOG_ALL_SET)
		memset(c->copy, 0, c->npages << DIRTYTRACK_PAGE_SHIFT);
	else
		memcpy(c->copy, view_page(c, 0), c->npages << DIRTYTRACK_PAGE_SHIFT);
	bitmap_zero(c->owed, c->npages);
	c->to = c->npages;
	forget_last(c);
}

static int consumer_log_open(struct consumer *c)
{
	struct dirtytrack_limit limit = { .size = sizeof(limit), .rate = c->spec.limit };

	__u32 entries = c->spec.ring_entries;

	if (c->spec.ring_at_times && c->ring.nr)
		entries = 0;
	c->ring = (struct ring){ .log = -1 };
	if (_test_log_create_ring(c->slot, c->spec.flags | DIRTYTRACK_LOG_MAY_RELEASE, entries,
				  &c->log))
		return -1;
	c->limited = !c->limited && c->spec.limit;
	if (c->limited && dt_ioctl(c->log, DIRTYTRACK_LOG_LIMIT, &limit))
		return -1;
	return entries ? _ring_map(&c->ring, c->log) : 0;
}

static void consumer_log_close(int log, struct ring *ring)
{
	if (ring->nr)
		ring_unmap(ring);
	close(log);
}

static bool renew_afresh(struct consumer *c)
{
	consumer_log_close(c->log, &c->ring);
	if (consumer_log_open(c))
		return consumer_fail(c, "LOG_CREATE");
	copy_afresh(c);
	return true;
}

/* What the new log does not have, the old one has. */
static bool renew_by_hand_over(struct consumer *c)
{
	struct consumer next = *c;
	bool drained;

	if (consumer_log_open(&next))
		return consumer_fail(c, "LOG_CREATE");
	drained = consumer_drain(c);
	consumer_log_close(c->log, &c->ring);
	c->log = next.log;
	c->ring = next.ring;
	c->limited = next.limited;
	forget_last(c);
	return drained;
}

/* The writers have stopped: the copy becomes the slot, and the log empty. */
static bool consumer_last(struct consumer *c)
{
	if (!consumer_drain(c))
		return false;
	for (__u64 i = 0; i < c->npages; i++) {
		if (!memcmp(page_at(c->copy, i), view_page(c, i), PAGE_SIZE))
			continue;
		if (c->differ++ < MAX_PRINT)
			fprintf(stderr, "# consumer %u: page %llu of the copy differs from the slot at the end\n",
				c->id, c->first + i);
	}
	bitmap_zero(c->got, c->npages);
	if (_test_harvest_all(c->log, 0, c->first, c->npages, c->got, 0, &c->tail))
		return consumer_fail(c, "harvest");
	return true;
}

static bool consumer_rounds(struct consumer *c)
{
	copy_afresh(c);
	while (!atomic_load(c->stop)) {
		if (!consumer_round(c) || (c->spec.trims && !consumer_trim(c)))
			return false;
		if (c->spec.pause_us)
			usleep(c->spec.pause_us);
		if (!c->spec.renew || c->rounds % c->spec.renew)
			continue;
		if (c->spec.how == RENEW_AFRESH ? !renew_afresh(c) :
						  !renew_by_hand_over(c))
			return false;
	}
	return true;
}

static void *consumer_thread(void *arg)
{
	struct consumer *c = arg;
	bool ok = consumer_rounds(c);

	if (c->spec.trims)
		atomic_fetch_sub(&c->arena->trimmers, 1);
	/* All is quiet only when nothing is released any more. */
	while (atomic_load(&c->arena->trimmers))
		usleep(100);
	if (ok)
		consumer_last(c);
	return NULL;
}

static void consumer_open(struct __test_metadata *_metadata, struct consumer *c)
{
	c->before = calloc(c->npages, sizeof(*c->before));
	c->last = calloc(c->npages, sizeof(*c->last));
	c->copy = calloc(c->npages, PAGE_SIZE);
	ASSERT_NE(NULL, c->before);
	ASSERT_NE(NULL, c->last);
	ASSERT_NE(NULL, c->copy);
	/* A shifted bitmap ends one word later. */
	c->got = bitmap_alloc(c->npages + 64);
	c->holes = bitmap_alloc(c->npages);
	c->owed = bitmap_alloc(c->npages);
}

static void consumer_close(struct consumer *c)
{
	free(c->before);
	free(c->last);
	free(c->copy);
	free(c->got);
	free(c->holes);
	free(c->owed);
}

#endif /* DIRTYTRACK_CONSUMERS_H */
