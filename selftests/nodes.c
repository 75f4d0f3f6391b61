// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that comes from the NUMA node that was named, on a machine that has two: as with
 * the kernel's option numa=fake=2.
 */
#include <sys/syscall.h>

#include "dirtytrack_test.h"

#define NPAGES 1200UL	/* more than two chunks */

/* On which node the page at @addr is; or -errno. */
static int node_of(const char *addr)
{
	const void *page = addr;
	int status = -1;

	if (syscall(SYS_move_pages, 0, 1UL, &page, NULL, &status, 0))
		return -errno;
	return status;
}

FIXTURE(nodes)
{
	int slot;
	char *map;
};

FIXTURE_SETUP(nodes)
{
	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "there is one node");
	self->slot = test_new_slot(NPAGES);
	self->map = test_map(self->slot, 0, NPAGES);
}

FIXTURE_TEARDOWN(nodes)
{
	test_unmap(self->map, NPAGES);
	close(self->slot);
}

/* By turns, so that none of them is where the memory would have come from anyway. */
TEST_F(nodes, populate)
{
	const __u64 run = 100;

	for (__u64 first = 0; first < NPAGES; first += run) {
		struct dirtytrack_range range = { first, run };
		struct dirtytrack_populate arg;

		ASSERT_EQ(0, _test_populate(self->slot, &range, 1, first / run % 2, &arg));
		EXPECT_EQ(run, arg.out_pages);
	}
	for (__u64 n = 0; n < NPAGES; n++) {
		EXPECT_EQ(0, page_read(self->map, n));
		ASSERT_EQ((int)(n / run % 2), node_of(page_at(self->map, n)));
	}
}

/* What has memory stays where it is. */
TEST_F(nodes, there_already)
{
	struct dirtytrack_range range = { 0, 10 };
	struct dirtytrack_populate arg;

	for (int node = 0; node < 2; node++) {
		ASSERT_EQ(0, _test_populate(self->slot, &range, 1, node, &arg));
		EXPECT_EQ(node ? 0 : 10, arg.out_pages);
		for (__u64 n = 0; n < 10; n++) {
			EXPECT_EQ(0, page_read(self->map, n));
			EXPECT_EQ(0, node_of(page_at(self->map, n)));
		}
	}
}

TEST_HARNESS_MAIN
