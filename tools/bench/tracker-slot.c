// SPDX-License-Identifier: GPL-2.0-only
/* A slot of dirtytrack, and one log. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "tracker.h"
#include "tracker-slot.h"

void slot_open(struct region *r)
{
	int device = dtrack_open_device(NULL);
	uint32_t id;

	if (device < 0)
		quit(EXIT_TROUBLE, DIRTYTRACK_DEVICE ": %s", strerror(-device));
	r->memory_fd = dtrack_slot_create(device, r->npages * DTRACK_PAGE_SIZE, NULL,
					  &id);
	if (r->memory_fd < 0)
		quit(EXIT_TROUBLE, "creating a slot: %s", strerror(-r->memory_fd));
	close(device);
	r->mem = mmap(NULL, r->npages * DTRACK_PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_SHARED, r->memory_fd, 0);
	if (r->mem == MAP_FAILED)
		die("mmap of a slot");
	taken_alloc(r);
}

void slot_start(struct region *r)
{
	r->tracker_fd = dtrack_log_create(r->memory_fd, 0);
	if (r->tracker_fd < 0)
		quit(EXIT_TROUBLE, "creating a log: %s", strerror(-r->tracker_fd));
}

void slot_harvest(struct region *r)
{
	struct dtrack_harvested done;
	int ret = dtrack_harvest(r->tracker_fd, 0, r->npages, r->taken, 0, &done);

	if (ret)
		quit(EXIT_TROUBLE, "HARVEST: %s", strerror(-ret));
}

void slot_close(struct region *r)
{
	taken_free(r);
	close(r->tracker_fd);
	memory_unmap(r);
}

#define SLOT_TRACKER			\
	.writer = &cpu_writer,		\
	.open = slot_open,		\
	.start = slot_start,		\
	.harvest = slot_harvest,	\
	.report = taken_report,		\
	.close = slot_close

const struct tracker tracker_slot = {
	.name = "dirtytrack",
	.what = "a slot, as the module is by default",
	.params = "",
	SLOT_TRACKER,
};

const struct tracker tracker_slot_group = {
	.name = "dirtytrack-group",
	.what = "a slot, one fault opens 64 pages, always",
	.params = "grants=group",
	.param = "grants",
	SLOT_TRACKER,
};

const struct tracker tracker_slot_single = {
	.name = "dirtytrack-single",
	.what = "a slot, one fault a page, always",
	.params = "grants=single",
	.param = "grants",
	SLOT_TRACKER,
};

const struct tracker tracker_slot_zap = {
	.name = "dirtytrack-zap",
	.what = "a slot, mappings removed instead of write-protected",
	.params = "strategy=zap",
	.param = "strategy",
	SLOT_TRACKER,
};
