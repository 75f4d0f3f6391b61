// SPDX-License-Identifier: GPL-2.0-only
/* Memory and bitmaps for trackers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "tracker.h"

/*
 * A page without access on each side: a mapping that merges with a new one
 * becomes soft-dirty as a whole.
 */
void memory_map_anonymous(struct region *r)
{
	size_t size = r->npages * DTRACK_PAGE_SIZE;
	char *guarded = mmap(NULL, size + 2 * DTRACK_PAGE_SIZE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (guarded == MAP_FAILED)
		die("mmap");
	r->memory_fd = -1;
	r->mem = mmap(guarded + DTRACK_PAGE_SIZE, size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	if (r->mem == MAP_FAILED)
		die("mmap");
	/* A huge page is one fault, and all dirty after it: not comparable. */
	if (madvise(r->mem, size, MADV_NOHUGEPAGE) && errno != EINVAL)
		die("MADV_NOHUGEPAGE");
}

void memory_map_memfd(struct region *r)
{
	size_t size = r->npages * DTRACK_PAGE_SIZE;

	r->memory_fd = memfd_create("dirtytrack-bench", MFD_CLOEXEC);
	if (r->memory_fd < 0 || ftruncate(r->memory_fd, size))
		die("memfd");
	r->mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_NORESERVE, r->memory_fd, 0);
	if (r->mem == MAP_FAILED)
		die("mmap of a memfd");
}

void memory_unmap(struct region *r)
{
	size_t size = r->npages * DTRACK_PAGE_SIZE;

	if (r->memory_fd >= 0) {
		munmap(r->mem, size);
		close(r->memory_fd);
	} else {
		munmap(r->mem - DTRACK_PAGE_SIZE, size + 2 * DTRACK_PAGE_SIZE);
	}
}

void taken_alloc(struct region *r)
{
	r->taken = touched_alloc(dtrack_bitmap_words(r->npages) * sizeof(uint64_t));
}

void taken_report(struct region *r, uint64_t *bitmap)
{
	for (uint64_t i = 0; i < dtrack_bitmap_words(r->npages); i++)
		if (r->taken[i]) {
			bitmap[i] |= r->taken[i];
			r->taken[i] = 0;
		}
}

void taken_free(struct region *r)
{
	free(r->taken);
}

/* Take before protect: a fault in between sets the bit again. */
void taken_collect(struct region *r, uint64_t *from,
		   void (*protect)(struct region *r, uint64_t first, uint64_t npages))
{
	uint64_t first, next, count, end = 0, start = 0;

	for (uint64_t i = 0; i < dtrack_bitmap_words(r->npages); i++)
		if (__atomic_load_n(&from[i], __ATOMIC_RELAXED))
			r->taken[i] |= __atomic_exchange_n(&from[i], 0, __ATOMIC_SEQ_CST);
	for (next = 0; ; next = first + count) {
		first = next;
		count = dtrack_bitmap_next_run(r->taken, r->npages, &first);
		if (end && (!count || first - end >= RUN_GAP)) {
			protect(r, start, end - start);
			end = 0;
		}
		if (!count)
			break;
		if (!end)
			start = first;
		end = first + count;
	}
}
