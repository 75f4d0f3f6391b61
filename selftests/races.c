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
		.splits = true,
		.actors = {
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE },
		},
		.consumers = { { METHOD_BITMAP } },
	},
};

/* More mappings than the module protects by a pass of its own (protect_wp.c). */
FIXTURE_VARIANT_ADD(races, mprotect_storm_many_mappings) {
	.race = {
		.npages = 150,
		.splits = true,
		.actors = {
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE, .process = true },
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

/* Rings, from one that is never full to the smallest, whose consumer sleeps. */
FIXTURE_VARIANT_ADD(races, ring) {
	.race = {
		.npages = 500,
		.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_RING, .ring_entries = 4096 } },
	},
};

FIXTURE_VARIANT_ADD(races, ring_overflows) {
	.race = {
		.npages = 6001,
		.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_RING, .pause_us = 3000,
				 .ring_entries = DIRTYTRACK_RING_MIN_ENTRIES } },
	},
};

/* What others collect they take out of the open bitmap, not out of the rings. */
FIXTURE_VARIANT_ADD(races, ring_beside_logs) {
	.race = {
		.npages = 500,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = {
			{ METHOD_RING, .ring_entries = 256 },
			{ METHOD_EXTENTS, .pause_us = 3000 },
			{ METHOD_CLEAR_RANGES, .pause_us = 5000, .ring_entries = 64 },
			{ METHOD_RING, .pause_us = 2000, .flags = DIRTYTRACK_LOG_ALL_SET,
			  .ring_entries = DIRTYTRACK_RING_MIN_ENTRIES },
		},
	},
};

/* Each begins with pages that became writable when there was no ring, or no log. */
FIXTURE_VARIANT_ADD(races, rings_come_and_go) {
	.race = {
		.npages = 200,
		.actors = { { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = {
			{ METHOD_RING, .renew = 3, .ring_entries = 1024 },
			{ METHOD_RING, .renew = 5, .flags = DIRTYTRACK_LOG_ALL_SET,
			  .ring_entries = DIRTYTRACK_RING_MIN_ENTRIES },
			{ METHOD_RING, .renew = 4, .how = RENEW_BY_HAND_OVER,
			  .ring_entries = 256 },
		},
	},
};

/* While there is no ring, a fault opens many pages, and some stay open. */
FIXTURE_VARIANT_ADD(races, rings_and_groups) {
	.race = {
		.npages = 500,
		.actors = { { WAY_STORE }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = {
			{ METHOD_RING, .renew = 4, .ring_entries = 1024,
			  .ring_at_times = true },
			{ METHOD_RING, .pause_us = 1000, .renew = 3, .ring_entries = 64,
			  .ring_at_times = true, .flags = DIRTYTRACK_LOG_ALL_SET },
			{ METHOD_EXTENTS, .pause_us = 500 },
		},
	},
};

FIXTURE_VARIANT_ADD(races, ring_kernel_writes) {
	.race = {
		.npages = 300,
		.actors = { { WAY_PWRITE }, { WAY_VM_WRITEV }, { WAY_READ }, { WAY_STORE } },
		.consumers = { { METHOD_RING, .ring_entries = 4096 } },
	},
};

FIXTURE_VARIANT_ADD(races, ring_fork_storm) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = { { WAY_FORK }, { WAY_STORE }, { WAY_STORE, .process = true } },
		.consumers = { { METHOD_RING, .ring_entries = 4096 } },
	},
};

/* What a collect has to leave open is named again, and so may be named for nothing. */
FIXTURE_VARIANT_ADD(races, ring_mprotect_storm) {
	.race = {
		.npages = 150,
		.zaps = true,
		.actors = {
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_STORE },
		},
		.consumers = {
			{ METHOD_RING, .ring_entries = 1024 },
			{ METHOD_BITMAP, .pause_us = 2000 },
		},
	},
};

FIXTURE_VARIANT_ADD(races, ring_punch_storm) {
	.race = {
		.npages = 150,
		.zaps = true,
		.actors = {
			{ WAY_DISCARD },
			{ WAY_DISCARD, STORM_DONTNEED, .process = true },
			{ WAY_STORE, STORM_REMAP, .process = true },
		},
		.consumers = {
			{ METHOD_RING, .ring_entries = 1024 },
			{ METHOD_EXTENTS, .pause_us = 2000 },
		},
	},
};

/* Waiting writers, and a strategy that changes with each log that comes and goes. */
FIXTURE_VARIANT_ADD(races, limited) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_STORE },
			{ WAY_STORE, STORM_MPROTECT, .process = true },
			{ WAY_PWRITE },
			{ WAY_VM_WRITEV },
		},
		.consumers = {
			{ METHOD_RING, .renew = 4, .ring_entries = 256, .limit = 3000 },
			{ METHOD_EXTENTS, .pause_us = 2000, .renew = 7, .limit = 1000 },
			{ METHOD_BITMAP, .pause_us = 5000 },
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
