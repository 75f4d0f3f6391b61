// SPDX-License-Identifier: GPL-2.0-only
/*
 * Nothing is lost while everything races
 *
 * Each variant is a way to write, to disturb the mapping that is written through, or
 * to ask; what is checked, and how, is in actors.h, consumers.h and race.h.
 */
#include "race.h"

FIXTURE(races) {
	struct race r;
};

FIXTURE_VARIANT(races) {
	struct race_spec race;
};

/* A few hot pages: each round finds all of them being written. */
FIXTURE_VARIANT_ADD(races, hot_pages) {
	.race = {
		.npages = 66,
		.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_BITMAP } },
	},
};

FIXTURE_VARIANT_ADD(races, extents) {
	.race = {
		.npages = 1100,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_EXTENTS } },
	},
};

FIXTURE_VARIANT_ADD(races, peek) {
	.race = {
		.npages = 333,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_PEEK } },
	},
};

FIXTURE_VARIANT_ADD(races, large_in_parts) {
	.race = {
		.npages = 6001,
		.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_PARTS } },
	},
};

/* Three consumers of one slot: what one collects, the others must get. */
FIXTURE_VARIANT_ADD(races, several_logs) {
	.race = {
		.npages = 500,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = {
			{ METHOD_SHIFTED },
			{ METHOD_EXTENTS, .pause_us = 3000 },
			{ METHOD_BITMAP, .pause_us = 30000, .flags = DIRTYTRACK_LOG_ALL_SET },
		},
	},
};

/* Two callers share a log, and a word of its bitmap. */
FIXTURE_VARIANT_ADD(races, halves_of_one_log) {
	.race = {
		.npages = 200,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = {
			{ METHOD_BITMAP, .part = PART_LOW },
			{ METHOD_EXTENTS, .part = PART_HIGH },
		},
	},
};

/* Logs start, clean and full, while pages are being written. */
FIXTURE_VARIANT_ADD(races, logs_come_and_go) {
	.race = {
		.npages = 200,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = {
			{ METHOD_BITMAP, .renew = 3 },
			{ METHOD_EXTENTS, .renew = 5, .flags = DIRTYTRACK_LOG_ALL_SET },
		},
	},
};

FIXTURE_VARIANT_ADD(races, kernel_writes) {
	.race = {
		.npages = 300,
		.actors = { { WAY_PWRITE }, { WAY_VM_WRITEV }, { WAY_READ }, { WAY_STORE } },
		.consumers = { { METHOD_BITMAP } },
	},
};

FIXTURE_VARIANT_ADD(races, fork_storm) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = { { WAY_FORK }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_BITMAP } },
	},
};

FIXTURE_VARIANT_ADD(races, mprotect_storm) {
	.race = {
		.npages = 150,
		.actors = {
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE },
		},
		.consumers = { { METHOD_BITMAP } },
	},
};

FIXTURE_VARIANT_ADD(races, remap_storm) {
	.race = {
		.npages = 150,
		.zaps = true,
		.actors = {
			{ WAY_STORE, STORM_REMAP, .process = true },
			{ WAY_STORE, STORM_REMAP, .process = true },
			{ WAY_STORE },
		},
		.consumers = { { METHOD_EXTENTS } },
	},
};

FIXTURE_VARIANT_ADD(races, dontneed_storm) {
	.race = {
		.npages = 150,
		.zaps = true,
		.actors = {
			{ WAY_STORE, STORM_DONTNEED, .process = true },
			{ WAY_STORE, STORM_CLEAR_REFS, .process = true },
			{ WAY_STORE },
		},
		.consumers = { { METHOD_BITMAP } },
	},
};

FIXTURE_VARIANT_ADD(races, punch_storm) {
	.race = {
		.npages = 150,
		.zaps = true,
		.actors = {
			{ WAY_DISCARD },
			{ WAY_DISCARD, STORM_DONTNEED, .process = true },
			{ WAY_STORE, STORM_MPROTECT, .process = true },
		},
		.consumers = {
			{ METHOD_EXTENTS },
			{ METHOD_BITMAP, .pause_us = 2000 },
		},
	},
};

FIXTURE_SETUP(races)
{
	race_open(_metadata, &self->r, &variant->race);
}

FIXTURE_TEARDOWN(races)
{
	race_close(&self->r);
}

TEST_F_TIMEOUT(races, nothing_is_lost, 15000)
{
	race_run(_metadata, &self->r);
}

TEST_HARNESS_MAIN
