/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A slot of which a test says what it writes, and checks that the log says so
 *
 * The test calls put(), or writes in its own way and calls wrote(); check() then
 * harvests and wants exactly those pages: a page too few is a lost write, a page
 * too many costs every consumer a copy.  A second log, harvested once at the end,
 * must have the union: logs are independent, and what one harvest collects it
 * owes to all of them.  If that log has a ring, it must have named each page by the time
 * of the check.
 */
#ifndef DIRTYTRACK_TRACKED_H
#define DIRTYTRACK_TRACKED_H

#include "processes.h"
#include "ring_consumer.h"

#define BYTES(npages)	((npages) << DIRTYTRACK_PAGE_SHIFT)

/* What the slot's pages are when the log starts. */
enum tracked_start {
	START_FRESH,	/* no page has memory */
	START_RESIDENT,	/* all were written through the mapping of the test */
	START_UNMAPPED,	/* all have memory, and no mapping has touched them */
	START_RINGED,	/* as resident, and a log has a ring: pages open one by one */
};

struct tracked {
	int slot;
	int log;
	int late;	/* harvested at the end only */
	struct ring ring;	/* of late, if it has one */
	__u64 named;	/* entry from which on those of the last check are */
	__u64 npages;
	char *mem;
	__u64 *want;	/* written since the last check */
	__u64 *ever;	/* written since the start */
	__u64 *got;	/* what the last check harvested */
	unsigned int checks;
	bool inexact;	/* some check allowed more than was written */
};

/* A value that no store before had, in this process or in another. */
static inline __u64 fresh_value(void)
{
	static __u64 count;

	return (__u64)getpid() << 40 | ++count;
}

/* One store, at an offset that moves through the page from store to store. */
static inline void poke(void *page)
{
	__u64 value = fresh_value();

	*(volatile __u64 *)((char *)page + value * sizeof(value) % PAGE_SIZE) = value;
}

static inline void wrote(struct tracked *t, __u64 first, __u64 npages)
{
	for (__u64 n = first; n < first + npages; n++) {
		bit_set(t->want, n);
		bit_set(t->ever, n);
	}
}

/* Stores to @page of the slot through @map, which begins at page @first. */
static inline void put_at(struct tracked *t, char *map, __u64 first, __u64 page)
{
	poke(page_at(map, page - first));
	wrote(t, page, 1);
}

static inline void put(struct tracked *t, __u64 page)
{
	put_at(t, t->mem, 0, page);
}

static inline void put_range(struct tracked *t, __u64 first, __u64 npages)
{
	for (__u64 n = first; n < first + npages; n++)
		put(t, n);
}

/* More than there are entries between two checks of any test. */
#define TRACKED_RING (1U << 16)

static inline void tracked_open(struct __test_metadata *_metadata,
				struct tracked *t, __u64 npages,
				enum tracked_start start)
{
	*t = (struct tracked){
		.npages = npages,
		.want = bitmap_alloc(npages),
		.ever = bitmap_alloc(npages),
		.got = bitmap_alloc(npages),
	};
	t->slot = test_new_slot(npages);
	t->mem = test_map(t->slot, 0, npages);
	for (__u64 n = 0; n < npages; n++) {
		__u64 value = fresh_value();

		if (start == START_RESIDENT || start == START_RINGED)
			poke(page_at(t->mem, n));
		else if (start == START_UNMAPPED)
			ASSERT_EQ(sizeof(value), pwrite(t->slot, &value, sizeof(value),
							n << DIRTYTRACK_PAGE_SHIFT));
	}
	t->log = test_log_create(t->slot, DIRTYTRACK_LOG_MAY_RELEASE);
	if (start != START_RINGED) {
		t->late = test_log_create(t->slot, DIRTYTRACK_LOG_MAY_RELEASE);
		return;
	}
	ring_open(&t->ring, t->slot, TRACKED_RING);
	t->late = t->ring.log;
	t->ring.control->seen = ring_overflows(&t->ring);
}

/* At most a handful: a lost mapping is hundreds of pages. */
#define TRACKED_PRINT 8

static inline void tracked_compare(struct __test_metadata *_metadata,
				   const struct tracked *t, const __u64 *got,
				   const __u64 *least, const __u64 *most,
				   const char *what, int line)
{
	unsigned int lost = 0, extra = 0;

	for (__u64 n = 0; n < t->npages; n++) {
		if (bit_test(least, n) && !bit_test(got, n) &&
		    lost++ < TRACKED_PRINT)
			TH_LOG("line %d: page %llu was written and %s lacks it",
			       line, n, what);
		if (most && bit_test(got, n) && !bit_test(most, n) &&
		    extra++ < TRACKED_PRINT)
			TH_LOG("line %d: page %llu was not written and %s has it",
			       line, n, what);
	}
	EXPECT_EQ(0, lost) {
		TH_LOG("line %d: writes lost", line);
	}
	EXPECT_EQ(0, extra) {
		TH_LOG("line %d: pages reported without a write", line);
	}
}

/* Both ways of asking are the same question, so they take turns. */
static inline void tracked_harvest(struct __test_metadata *_metadata,
				   struct tracked *t)
{
	bitmap_zero(t->got, t->npages);
	if (t->checks++ % 2)
		test_extents_all(t->log, 0, 0, t->npages, 3, t->got, t->got);
	else
		test_harvest_all(t->log, 0, 0, t->npages, t->got, 0);
}

/*
 * The ring has named what was written.  What a collect left open it named during the
 * harvest of the last check, or after: so that is where to begin.
 */
static inline void tracked_named(struct __test_metadata *_metadata, struct tracked *t,
				 __u64 head, int line)
{
	__u64 *named = bitmap_alloc(t->npages);

	ASSERT_EQ(t->ring.control->seen, ring_overflows(&t->ring));
	for (__u64 n = t->named; n != ring_head(&t->ring); n++) {
		ASSERT_GT(t->npages, ring_entry(&t->ring, n));
		bit_set(named, ring_entry(&t->ring, n));
	}
	tracked_compare(_metadata, t, named, t->want, NULL, "the ring", line);
	free(named);
	t->named = head;
	ring_set_tail(&t->ring, head);
}

static inline void tracked_check(struct __test_metadata *_metadata,
				 struct tracked *t, const __u64 *most, int line)
{
	__u64 head = t->ring.nr ? ring_head(&t->ring) : 0;

	tracked_harvest(_metadata, t);
	if (t->ring.nr)
		tracked_named(_metadata, t, head, line);
	tracked_compare(_metadata, t, t->got, t->want, most, "the harvest", line);
	if (most != t->want)
		t->inexact = true;
	bitmap_zero(t->want, t->npages);
}

/* The harvest has the pages that were written, and no other. */
#define check(t) tracked_check(_metadata, t, (t)->want, __LINE__)

/* It has them, and may have any of @most beside. */
#define check_within(t, most) tracked_check(_metadata, t, most, __LINE__)

/* It has them, and may have anything beside. */
#define check_has(t) tracked_check(_metadata, t, NULL, __LINE__)

static inline void tracked_close(struct __test_metadata *_metadata,
				 struct tracked *t)
{
	__u64 *got = bitmap_alloc(t->npages);

	/* No ASSERT here: in a teardown after a failed one it never ends. */
	EXPECT_EQ(0, _test_harvest_all(t->late, 0, 0, t->npages, got, 0, NULL));
	tracked_compare(_metadata, t, got, t->ever, t->inexact ? NULL : t->ever,
			"the log harvested once", __LINE__);
	free(got);
	test_unmap(t->mem, t->npages);
	if (t->ring.nr)
		ring_unmap(&t->ring);
	close(t->late);
	close(t->log);
	close(t->slot);
	free(t->want);
	free(t->ever);
	free(t->got);
}

/* A fixture whose tests have a tracked slot as self->t, in one of these states. */
#define TRACKED_FIXTURE(name, npages)					\
	FIXTURE(name) {							\
		struct tracked t;					\
	};								\
									\
	FIXTURE_VARIANT(name) {						\
		enum tracked_start start;				\
	};								\
									\
	FIXTURE_VARIANT_ADD(name, fresh) { .start = START_FRESH };	\
	FIXTURE_VARIANT_ADD(name, resident) { .start = START_RESIDENT }; \
	FIXTURE_VARIANT_ADD(name, ringed) { .start = START_RINGED };	\
									\
	FIXTURE_SETUP(name)						\
	{								\
		tracked_open(_metadata, &self->t, npages, variant->start); \
	}								\
									\
	FIXTURE_TEARDOWN(name)						\
	{								\
		tracked_close(_metadata, &self->t);			\
	}

#endif /* DIRTYTRACK_TRACKED_H */
