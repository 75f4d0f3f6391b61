/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Actors and consumers on one slot, all at once
 *
 * A race ends when its time is over and each part has done a minimum of work, and
 * fails if that takes too long: an idle run proves nothing.  The time is
 * DIRTYTRACK_RACE_SECONDS for each, 1 by default.
 */
#ifndef DIRTYTRACK_RACE_H
#define DIRTYTRACK_RACE_H

#include "consumers.h"

struct race_spec {
	__u64 npages;
	/*
	 * Entries are zapped: until the zap has flushed, it holds the pages, and a
	 * page that is held is reported.
	 */
	bool zaps;
	/*
	 * Mappings are split, which may have copied entries: what is collected then stays
	 * open, and was zapped itself where that is the strategy.
	 */
	bool splits;
	struct actor_spec actors[MAX_ACTORS];
	struct consumer_spec consumers[MAX_CONSUMERS];
};

struct race {
	const struct race_spec *spec;
	struct arena *arena;
	_Atomic bool consumers_stop;
	struct actor actors[MAX_ACTORS];
	struct consumer consumers[MAX_CONSUMERS];
	unsigned int nr_actors, nr_consumers;
	size_t arena_size;
	int slot;
	char *mem, *view;
};

static void race_add_actor(struct __test_metadata *_metadata, struct race *r,
			   unsigned int id)
{
	struct actor *a = &r->actors[id];

	*a = (struct actor){
		.spec = r->spec->actors[id],
		.arena = r->arena,
		.progress = &r->arena->actors[id],
		.slot = r->slot,
		.id = id,
		.nr_actors = r->nr_actors,
		.npages = r->spec->npages - r->spec->npages % STRIDE,
		.mem = r->mem,
		.random = 88172645463325252ULL + id * 1000003,
	};
	for (unsigned int i = 0; i < r->nr_actors; i++)
		a->discarded[i] = discards(r->spec->actors[i].way);
	if (a->spec.way == WAY_READ)
		ASSERT_EQ(0, pipe(a->pipe));
}

static void race_add_consumer(struct __test_metadata *_metadata, struct race *r,
			      unsigned int id)
{
	__u64 npages = r->spec->npages;
	struct consumer *c = &r->consumers[id];

	*c = (struct consumer){
		.spec = r->spec->consumers[id],
		.arena = r->arena,
		.stop = &r->consumers_stop,
		.slot = r->slot,
		.log = -1,
		.id = id,
		.npages = npages,
		.actors = r->actors,
		.nr_actors = r->nr_actors,
		.view = r->view,
		.random = 362436069362436069ULL + id * 1000003,
	};
	if (c->spec.trims)
		c->trimmer = r->arena->trimmers++;
	/* Three pages off the middle: the halves share a word. */
	if (c->spec.part == PART_LOW)
		c->npages = npages / 2 + 3;
	if (c->spec.part == PART_HIGH) {
		c->first = npages / 2 + 3;
		c->npages = npages - c->first;
	}
	consumer_open(_metadata, c);
}

static void race_open(struct __test_metadata *_metadata, struct race *r,
		      const struct race_spec *spec)
{
	__u64 npages = spec->npages;

	r->spec = spec;
	r->slot = test_new_slot(npages);
	r->mem = test_map(r->slot, 0, npages);
	r->view = mmap(NULL, npages << DIRTYTRACK_PAGE_SHIFT, PROT_READ, MAP_SHARED,
		       r->slot, 0);
	ASSERT_NE(MAP_FAILED, r->view);
	r->arena_size = sizeof(*r->arena) + npages * sizeof(struct page_state);
	r->arena = mmap(NULL, r->arena_size, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, r->arena);

	while (r->nr_actors < MAX_ACTORS && spec->actors[r->nr_actors].way != WAY_NONE)
		r->nr_actors++;
	while (r->nr_consumers < MAX_CONSUMERS &&
	       spec->consumers[r->nr_consumers].method != METHOD_NONE)
		r->nr_consumers++;
	for (unsigned int i = 0; i < r->nr_actors; i++)
		race_add_actor(_metadata, r, i);
	for (unsigned int i = 0; i < r->nr_consumers; i++)
		race_add_consumer(_metadata, r, i);
	for (unsigned int i = 0; i < r->nr_consumers; i++)
		r->consumers[i].nr_trimmers = r->arena->trimmers;
}

static void race_close(struct race *r)
{
	for (unsigned int i = 0; i < r->nr_consumers; i++)
		consumer_close(&r->consumers[i]);
	munmap(r->arena, r->arena_size);
	test_unmap(r->view, r->spec->npages);
	test_unmap(r->mem, r->spec->npages);
	close(r->slot);
}

/* ---- floors ---- */

#define FLOOR_ROUNDS		20
#define FLOOR_STORMS		20
#define FLOOR_RELEASED		200
#define FLOOR_SKIPPED		100

static __u64 floor_writes(const struct actor *a)
{
	return a->spec.way == WAY_STORE ? 2000 : 200;
}

static bool has_storm(const struct actor *a)
{
	return a->spec.storm != STORM_NONE || a->spec.way == WAY_FORK ||
	       discards(a->spec.way);
}

static bool trimmed_enough(const struct consumer *c)
{
	return !c->spec.trims ||
	       (c->released >= FLOOR_RELEASED && c->skipped >= FLOOR_SKIPPED);
}

static bool worked_enough(const struct race *r)
{
	for (unsigned int i = 0; i < r->nr_actors; i++) {
		const struct actor *a = &r->actors[i];

		if (a->progress->writes < floor_writes(a) ||
		    (has_storm(a) && a->progress->storms < FLOOR_STORMS))
			return false;
	}
	for (unsigned int i = 0; i < r->nr_consumers; i++)
		if (r->consumers[i].rounds < FLOOR_ROUNDS ||
		    !trimmed_enough(&r->consumers[i]))
			return false;
	return true;
}

static bool something_failed(const struct race *r)
{
	for (unsigned int i = 0; i < r->nr_actors; i++)
		if (r->actors[i].progress->failed)
			return true;
	for (unsigned int i = 0; i < r->nr_consumers; i++)
		if (r->consumers[i].error)
			return true;
	return false;
}

/* ---- the run ---- */

static void race_start(struct __test_metadata *_metadata, struct race *r)
{
	/* Processes first: a fork should not copy a thread's half-done work. */
	for (int threads = 0; threads < 2; threads++)
		for (unsigned int i = 0; i < r->nr_actors; i++)
			if (r->actors[i].spec.process == !threads)
				actor_start(_metadata, &r->actors[i]);
	atomic_store(&r->arena->go, true);

	for (unsigned int i = 0; i < r->nr_consumers; i++) {
		struct consumer *c = &r->consumers[i];

		if (c->spec.part == PART_HIGH) {
			c->log = r->consumers[i - 1].log;
		} else {
			ASSERT_EQ(0, consumer_log_open(c)) {
				TH_LOG("LOG_CREATE: %s", strerror(errno));
			}
		}
	}
	for (unsigned int i = 0; i < r->nr_consumers; i++) {
		struct consumer *c = &r->consumers[i];

		ASSERT_EQ(0, pthread_create(&c->thread, NULL, consumer_thread, c));
	}
}

static void race_wait(const struct race *r)
{
	double seconds = race_seconds(1), start = now();
	double limit = (4 * seconds + TEST_PATIENCE) * test_slowness();

	while (now() - start < seconds ||
	       (now() - start < limit && !worked_enough(r))) {
		if (something_failed(r))
			break;
		usleep(20000);
	}
}

static bool strategy_is_zap(void)
{
	struct dirtytrack_info info;
	int dev = _test_device();

	if (dev < 0 || _test_info(dev, &info))
		dt_broken("%s: %s", DIRTYTRACK_DEVICE, strerror(errno));
	close(dev);
	return info.out_strategy == DIRTYTRACK_STRATEGY_ZAP;
}

static void race_judge(struct __test_metadata *_metadata, const struct race *r,
		       const struct consumer *c)
{
	const struct {
		__u64 count;
		const char *what;
	} faults[] = {
		{ c->lost, "writes that a harvest should have reported" },
		{ c->differ, "pages that differ at the end" },
		{ c->impossible, "content that nobody wrote" },
		{ c->unpeeked, "pages that a peek had and the harvest had not" },
		{ c->unpaid, "pages that were merged and not reported again" },
		{ c->miscounted, "CLEARs or MERGEs that did not count what was asked" },
		{ c->tail, "pages reported when all was quiet" },
	};

	EXPECT_EQ(0, c->error);
	EXPECT_LE(FLOOR_ROUNDS, c->rounds) {
		TH_LOG("log %u: too few harvests to prove anything", c->id);
	}
	EXPECT_TRUE(trimmed_enough(c)) {
		TH_LOG("log %u: released %llu, skipped %llu: too little to prove anything",
		       c->id, c->released, c->skipped);
	}
	EXPECT_LT(0, c->reported);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		EXPECT_EQ(0, faults[i].count) {
			TH_LOG("log %u: %s", c->id, faults[i].what);
		}
	}
	/*
	 * A page again without a write costs a copy: one in 20 at most.  A ring may
	 * name a page that was cleared since: one in 5.
	 */
	if (!r->spec->zaps && !(r->spec->splits && strategy_is_zap())) {
		unsigned int most = c->spec.method == METHOD_RING ? 5 : 20;

		EXPECT_LE(c->again * most, c->reported) {
			TH_LOG("log %u: over-reporting", c->id);
		}
	}
}

static void race_run(struct __test_metadata *_metadata, struct race *r)
{
	__u64 writes = 0, storms = 0;

	race_start(_metadata, r);
	race_wait(r);

	atomic_store(&r->arena->stop, true);
	for (unsigned int i = 0; i < r->nr_actors; i++) {
		struct actor *a = &r->actors[i];

		actor_join(_metadata, a);
		writes += a->progress->writes;
		storms += a->progress->storms;
		EXPECT_LE(floor_writes(a), a->progress->writes) {
			TH_LOG("actor %u wrote too little to prove anything", i);
		}
		if (has_storm(a)) {
			EXPECT_LE(FLOOR_STORMS, a->progress->storms);
		}
	}
	atomic_store(&r->consumers_stop, true);

	for (unsigned int i = 0; i < r->nr_consumers; i++) {
		struct consumer *c = &r->consumers[i];

		pthread_join(c->thread, NULL);
		if (c->spec.method == METHOD_RING)
			fprintf(stderr, "# log %u: entries %llu, harvests for overflow %llu\n",
				i, c->ring.taken, c->ring.harvests);
		if (c->spec.trims)
			fprintf(stderr, "# log %u: pages released %llu, skipped %llu\n", i,
				c->released, c->skipped);
		fprintf(stderr, "# writes %llu, storms %llu; log %u: harvests %llu, pages reported %llu, lost %llu, over-reported %llu\n",
			writes, storms, i, (unsigned long long)c->rounds,
			c->reported, c->lost + c->differ, c->again);
		race_judge(_metadata, r, c);
	}
	for (unsigned int i = 0; i < r->nr_consumers; i++)
		if (r->consumers[i].spec.part != PART_HIGH)
			consumer_log_close(r->consumers[i].log, &r->consumers[i].ring);
}

#endif /* DIRTYTRACK_RACE_H */
