// SPDX-License-Identifier: GPL-2.0-only
/*
 * Soft-dirty bits, read from /proc/self/pagemap and cleared by
 * /proc/self/clear_refs, as CRIU does.
 *
 * Read and clear are two steps: what is written between them is lost.  So the
 * writers rest meanwhile.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "tracker.h"

#define PM_SOFT_DIRTY	(1ULL << 55)
#define READ_PAGES	4096

/**
 * struct refs - files of /proc/self
 * @pagemap: pagemap
 * @clear: clear_refs
 * @entries: room for READ_PAGES entries
 */
struct refs {
	int pagemap;
	int clear;
	uint64_t *entries;
};

static void refs_open(struct refs *s)
{
	s->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	s->clear = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	if (s->pagemap < 0 || s->clear < 0)
		die("/proc/self");
	s->entries = touched_alloc(READ_PAGES * sizeof(uint64_t));
}

static void refs_close(struct refs *s)
{
	close(s->pagemap);
	close(s->clear);
	free(s->entries);
}

static void clear(struct refs *s)
{
	if (write(s->clear, "4", 1) != 1)
		die("/proc/self/clear_refs");
}

static void soft_harvest(struct region *r)
{
	struct refs *s = r->private;
	uint64_t base = (uintptr_t)r->mem / DTRACK_PAGE_SIZE;

	for (uint64_t page = 0; page < r->npages; page += READ_PAGES) {
		uint64_t n = r->npages - page < READ_PAGES ? r->npages - page : READ_PAGES;
		ssize_t size = n * sizeof(uint64_t);

		if (pread(s->pagemap, s->entries, size,
			  (base + page) * sizeof(uint64_t)) != size)
			die("/proc/self/pagemap");
		for (uint64_t i = 0; i < n; i++)
			if (s->entries[i] & PM_SOFT_DIRTY)
				r->taken[(page + i) / 64] |= 1ULL << (page + i) % 64;
	}
	clear(s);
}

/* Without CONFIG_MEM_SOFT_DIRTY the bit is never set, and clearing it succeeds. */
static const char *soft_missing(uint64_t npages)
{
	static uint64_t word;
	struct region r = { .npages = 1, .taken = &word };
	struct refs s;

	(void)npages;
	refs_open(&s);
	r.private = &s;
	memory_map_anonymous(&r);
	clear(&s);
	*page_word(r.mem, 0) = 1;
	word = 0;
	soft_harvest(&r);
	memory_unmap(&r);
	refs_close(&s);
	return word ? NULL : "this kernel has no soft-dirty bits";
}

static void soft_open(struct region *r)
{
	struct refs *s = calloc(1, sizeof(*s));

	if (!s)
		die("memory");
	memory_map_anonymous(r);
	taken_alloc(r);
	refs_open(s);
	r->private = s;
}

static void soft_start(struct region *r)
{
	clear(r->private);
}

static void soft_close(struct region *r)
{
	refs_close(r->private);
	free(r->private);
	taken_free(r);
	memory_unmap(r);
}

const struct tracker tracker_soft_dirty = {
	.name = "soft-dirty",
	.what = "soft-dirty bits and clear_refs, writers rest during a harvest",
	.writer = &cpu_writer,
	.pauses = true,
	.missing = soft_missing,
	.open = soft_open,
	.start = soft_start,
	.harvest = soft_harvest,
	.report = taken_report,
	.close = soft_close,
};
