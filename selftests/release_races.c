// SPDX-License-Identifier: GPL-2.0-only
/*
 * No write is lost to a release of what is clean
 *
 * Consumers copy what their logs report and then have released what is clean, while others
 * write, read, and release without looking.  Each write is numbered, and each of those
 * consumers says what number it has seen in a page before it asks for its release
 * (actors.h, consumers.h).  So a page that is zero, though something was written to it after
 * the number that was seen, is a loss: the writer notices it before he writes again,
 * others at any time, and all consumers at the end.  A page that was released without a
 * look is zero until it is written.
 *
 * When all is over, all that is left is clean, and is released: then the slot has no
 * memory, and what was charged for it is what was before.
 */
#include "figures.h"
#include "race.h"

FIXTURE(release_races) {
	struct race r;
	__u64 memory;
};

FIXTURE_VARIANT(release_races) {
	struct race_spec race;
	bool kvm;
};

/* One log and few pages: nearly all that is released is being written. */
FIXTURE_VARIANT_ADD(release_races, hot_pages) {
	.race = {
		.npages = 66,
		.zaps = true,
		.actors = {
			{ WAY_STORE, .looks = true },
			{ WAY_STORE, .looks = true, .process = true },
		},
		.consumers = { { METHOD_BITMAP, .trims = true } },
	},
};

/* Two logs that release, each half of the pages of each word, and one that looks on. */
FIXTURE_VARIANT_ADD(release_races, two_logs) {
	.race = {
		.npages = 1500,
		.zaps = true,
		.actors = {
			{ WAY_STORE, .looks = true },
			{ WAY_STORE, .looks = true, .process = true },
			{ WAY_STORE, .looks = true },
			{ WAY_LOOK },
		},
		.consumers = {
			{ METHOD_BITMAP, .trims = true },
			{ METHOD_EXTENTS, .pause_us = 2000, .trims = true },
			{ METHOD_EXTENTS, .pause_us = 5000 },
		},
	},
};

FIXTURE_VARIANT_ADD(release_races, kernel_writes) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_PWRITE, .looks = true },
			{ WAY_VM_WRITEV, .looks = true },
			{ WAY_READ, .looks = true },
			{ WAY_STORE, .looks = true },
		},
		.consumers = { { METHOD_BITMAP, .trims = true } },
	},
};

/* Pages whose writers hold them while they are taken out of the mappings. */
FIXTURE_VARIANT_ADD(release_races, hot_kernel_writes) {
	.race = {
		.npages = 18,
		.zaps = true,
		.actors = {
			{ WAY_VM_WRITEV, .looks = true },
			{ WAY_VM_WRITEV, .looks = true, .process = true },
		},
		.consumers = { { METHOD_BITMAP, .trims = true } },
	},
};

FIXTURE_VARIANT_ADD(release_races, plain_releases) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_RELEASE, .looks = true },
			{ WAY_RELEASE, .looks = true, .process = true },
			{ WAY_DISCARD, .looks = true },
			{ WAY_LOOK, .process = true },
		},
		.consumers = {
			{ METHOD_EXTENTS, .trims = true },
			{ METHOD_BITMAP, .pause_us = 2000, .trims = true },
			{ METHOD_RING, .ring_entries = 1024 },
		},
	},
};

FIXTURE_VARIANT_ADD(release_races, storms) {
	.race = {
		.npages = 150,
		.zaps = true,
		.actors = {
			{ WAY_STORE, STORM_MPROTECT, .looks = true, .process = true },
			{ WAY_STORE, STORM_REMAP, .looks = true, .process = true },
			{ WAY_FORK, .looks = true },
			{ WAY_RELEASE, STORM_DONTNEED, .looks = true, .process = true },
		},
		.consumers = {
			{ METHOD_BITMAP, .trims = true },
			{ METHOD_EXTENTS, .pause_us = 2000, .trims = true },
		},
	},
};

/* Who gives pages back that he could not copy, does not have them released either. */
FIXTURE_VARIANT_ADD(release_races, logs_come_and_go) {
	.race = {
		.npages = 300,
		.zaps = true,
		.actors = {
			{ WAY_STORE, .looks = true },
			{ WAY_STORE, .looks = true, .process = true },
			{ WAY_RELEASE, .looks = true },
		},
		.consumers = {
			{ METHOD_CLEAR_RANGES, .renew = 5, .trims = true },
			{ METHOD_BITMAP, .renew = 4, .flags = DIRTYTRACK_LOG_ALL_SET,
			  .pause_us = 1000, .trims = true },
			{ METHOD_RING, .renew = 3, .ring_entries = 256 },
		},
	},
};

FIXTURE_VARIANT_ADD(release_races, guest) {
	.race = {
		.npages = 192,
		.zaps = true,
		.actors = {
			{ WAY_GUEST, .looks = true, .process = true },
			{ WAY_STORE, .looks = true },
		},
		.consumers = {
			{ METHOD_BITMAP, .trims = true },
			{ METHOD_EXTENTS, .pause_us = 5000 },
		},
	},
	.kvm = true,
};

FIXTURE_SETUP(release_races)
{
	race_open(_metadata, &self->r, &variant->race);
	self->memory = summary("memory");
}

FIXTURE_TEARDOWN(release_races)
{
	race_close(&self->r);
}

/* Nobody writes any more: a log that starts now has nothing, and so all is clean. */
static __u64 release_rest(struct __test_metadata *_metadata, int slot, __u64 npages)
{
	int log = test_log_create(slot, DIRTYTRACK_LOG_MAY_RELEASE);

	/* Someone may hold a page yet, who is on his way out. */
	test_release_range(log, DIRTYTRACK_LOG_RELEASE_CLEAN, 0, npages);
	close(log);
	return test_resident(slot);
}

TEST_F_TIMEOUT(release_races, nothing_is_lost, 15000)
{
	if (variant->kvm && !vmm_have_kvm())
		SKIP(return, "there is no /dev/kvm");
	race_run(_metadata, &self->r);
	EXPECT_TRUE(eventually(!release_rest(_metadata, self->r.slot,
					     variant->race.npages)));
	EXPECT_TRUE(eventually(summary("memory") == self->memory));
}

TEST_HARNESS_MAIN
