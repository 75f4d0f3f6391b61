// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eight logs of one slot
 *
 * A rate monitor, backups and a migration at once, as many as may be: each asks in a
 * form of its own and at a pace of its own, and each must come to a copy of the slot
 * that is right, whatever the others take, clear, give back, start or end meanwhile.
 * How that is checked is in consumers.h.
 */
#include "race.h"

#define ALL_SET DIRTYTRACK_LOG_ALL_SET

#define FOUR_ACTORS {							\
	{ WAY_STORE },							\
	{ WAY_STORE },							\
	{ WAY_STORE, .process = true },					\
	{ WAY_PWRITE },							\
}

/* All forms, from as fast as it can to a few times a second. */
#define EIGHT_CONSUMERS {						\
	/* A rate monitor. */						\
	{ METHOD_SHIFTED, .pause_us = 2000 },				\
	/* Backups: by extents, now and then; bit by bit. */		\
	{ METHOD_EXTENTS, .pause_us = 50000, .flags = ALL_SET },	\
	{ METHOD_RESUMED, .pause_us = 500, .flags = ALL_SET },		\
	/* Migrations: in two phases, and over connections that break. */ \
	{ METHOD_CLEAR, .pause_us = 3000, .flags = ALL_SET },		\
	{ METHOD_CLEAR_RANGES, .pause_us = 10000 },			\
	{ METHOD_MERGE, .pause_us = 1000, .flags = ALL_SET },		\
	{ METHOD_MERGE_RANGES, .pause_us = 20000 },			\
	/* Replication: as fast as it can. */				\
	{ METHOD_BITMAP },						\
}

/* The same, each for some rounds only; half of them hand over to their successor. */
#define EIGHT_THAT_COME_AND_GO {					\
	{ METHOD_BITMAP, .renew = 1 },					\
	{ METHOD_SHIFTED, .renew = 2, .how = RENEW_BY_HAND_OVER },	\
	{ METHOD_EXTENTS, .pause_us = 3000, .renew = 3, .flags = ALL_SET }, \
	{ METHOD_RESUMED, .renew = 7, .how = RENEW_BY_HAND_OVER },	\
	{ METHOD_CLEAR, .pause_us = 1000, .renew = 3,			\
	  .how = RENEW_BY_HAND_OVER },					\
	{ METHOD_CLEAR_RANGES, .renew = 5, .flags = ALL_SET },		\
	{ METHOD_MERGE, .pause_us = 2000, .renew = 4, .flags = ALL_SET }, \
	{ METHOD_MERGE_RANGES, .renew = 4, .how = RENEW_BY_HAND_OVER },	\
}

FIXTURE(logs) {
	struct race r;
};

FIXTURE_VARIANT(logs) {
	struct race_spec race;
};

FIXTURE_VARIANT_ADD(logs, threads_and_a_process) {
	.race = {
		.npages = 777,
		.actors = FOUR_ACTORS,
		.consumers = EIGHT_CONSUMERS,
	},
};

/* More than one of the groups that a harvest does at a time. */
FIXTURE_VARIANT_ADD(logs, large) {
	.race = {
		.npages = 2 * 4096 + 77,
		.actors = {
			{ WAY_STORE },
			{ WAY_STORE, .process = true },
			{ WAY_VM_WRITEV },
		},
		.consumers = EIGHT_CONSUMERS,
	},
};

FIXTURE_VARIANT_ADD(logs, storms) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_DISCARD },
			{ WAY_FORK },
			{ WAY_READ },
		},
		.consumers = EIGHT_CONSUMERS,
	},
};

FIXTURE_VARIANT_ADD(logs, guest) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_GUEST, .process = true },
			{ WAY_STORE },
			{ WAY_PWRITE },
		},
		.consumers = EIGHT_CONSUMERS,
	},
};

FIXTURE_VARIANT_ADD(logs, come_and_go) {
	.race = {
		.npages = 777,
		.actors = FOUR_ACTORS,
		.consumers = EIGHT_THAT_COME_AND_GO,
	},
};

FIXTURE_VARIANT_ADD(logs, come_and_go_in_storms) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_STORE, STORM_REMAP, .process = true },
			{ WAY_DISCARD, STORM_DONTNEED, .process = true },
			{ WAY_STORE },
		},
		.consumers = EIGHT_THAT_COME_AND_GO,
	},
};

FIXTURE_VARIANT_ADD(logs, come_and_go_beside_a_guest) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_GUEST, .process = true },
			{ WAY_STORE },
		},
		.consumers = EIGHT_THAT_COME_AND_GO,
	},
};

FIXTURE_SETUP(logs)
{
	race_open(_metadata, &self->r, &variant->race);
}

FIXTURE_TEARDOWN(logs)
{
	race_close(&self->r);
}

TEST_F_TIMEOUT(logs, each_copy_is_the_slot, 15000)
{
	if (variant->race.actors[0].way == WAY_GUEST && !vmm_have_kvm())
		SKIP(return, "there is no /dev/kvm");
	race_run(_metadata, &self->r);
}

TEST_HARNESS_MAIN
