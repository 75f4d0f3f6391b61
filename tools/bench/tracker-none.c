// SPDX-License-Identifier: GPL-2.0-only
/* No tracking: what the machine and the writers do by themselves. */
#include "tracker.h"

static void none_start(struct region *r)
{
	(void)r;
}

static void none_report(struct region *r, uint64_t *bitmap)
{
	(void)r;
	(void)bitmap;
}

const struct tracker tracker_none = {
	.name = "untracked",
	.what = "anonymous memory that nothing tracks",
	.writer = &cpu_writer,
	.untracked = true,
	.open = memory_map_anonymous,
	.start = none_start,
	.harvest = none_start,
	.report = none_report,
	.close = memory_unmap,
};
