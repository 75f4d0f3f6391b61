// SPDX-License-Identifier: GPL-2.0-only
/*
 * mprotect() and a handler of SIGSEGV, which runs in the writer.  The order of what
 * handler and harvest do, and why the bit is set twice: see tracker-uffd-handler.c.
 *
 * Each page that was written is a mapping of its own until its neighbours are
 * written, too, or the harvest makes one mapping of all again; the kernel
 * has a limit on how many there may be.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "tracker.h"

/* A handler finds only what is global. */
static struct {
	uintptr_t start;
	uintptr_t end;
	uint64_t *dirty;
	struct sigaction before;
} tracked;

static void mark(uint64_t page)
{
	__atomic_fetch_or(&tracked.dirty[page / 64], 1ULL << page % 64,
			  __ATOMIC_SEQ_CST);
}

static void handle(int sig, siginfo_t *info, void *context)
{
	uintptr_t addr = (uintptr_t)info->si_addr & -DTRACK_PAGE_SIZE;
	uint64_t page = (addr - tracked.start) / DTRACK_PAGE_SIZE;
	int err = errno;

	(void)sig;
	(void)context;
	if (addr < tracked.start || addr >= tracked.end) {
		/* A fault of the benchmark itself: it comes again, and kills. */
		sigaction(SIGSEGV, &tracked.before, NULL);
		return;
	}
	mark(page);
	if (mprotect((void *)addr, DTRACK_PAGE_SIZE, PROT_READ | PROT_WRITE))
		abort();
	mark(page);
	errno = err;
}

static const char *mprotect_missing(uint64_t npages)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
	unsigned long long max;

	if (!f || fscanf(f, "%llu", &max) != 1)
		die("vm.max_map_count");
	fclose(f);
	/* Every 4th page is the worst of the patterns; some are the program's own. */
	return npages / 2 + 1024 < max ? NULL :
		"so much memory needs more mappings than vm.max_map_count";
}

static void protect(struct region *r, uint64_t first, uint64_t npages)
{
	if (mprotect(r->mem + first * DTRACK_PAGE_SIZE, npages * DTRACK_PAGE_SIZE,
		     PROT_READ))
		die("mprotect");
}

static void mprotect_open(struct region *r)
{
	memory_map_anonymous(r);
	taken_alloc(r);
	tracked.start = (uintptr_t)r->mem;
	tracked.end = tracked.start + r->npages * DTRACK_PAGE_SIZE;
	tracked.dirty = touched_alloc(dtrack_bitmap_words(r->npages) * sizeof(uint64_t));
}

static void mprotect_start(struct region *r)
{
	struct sigaction action = {
		.sa_sigaction = handle,
		.sa_flags = SA_SIGINFO | SA_RESTART,
	};

	if (sigaction(SIGSEGV, &action, &tracked.before))
		die("sigaction");
	protect(r, 0, r->npages);
}

static void mprotect_harvest(struct region *r)
{
	taken_collect(r, tracked.dirty, protect);
}

static void mprotect_close(struct region *r)
{
	sigaction(SIGSEGV, &tracked.before, NULL);
	taken_free(r);
	free(tracked.dirty);
	memory_unmap(r);
}

const struct tracker tracker_mprotect = {
	.name = "mprotect",
	.what = "mprotect and a handler of SIGSEGV, anonymous memory",
	.writer = &cpu_writer,
	.missing = mprotect_missing,
	.open = mprotect_open,
	.start = mprotect_start,
	.harvest = mprotect_harvest,
	.report = taken_report,
	.close = mprotect_close,
};
