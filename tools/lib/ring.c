// SPDX-License-Identifier: MIT
/*
 * The consumer's side of a log's ring, as drawn at struct dirtytrack_ring.
 *
 * What was taken from the ring and not handed out is kept here, so that an error loses
 * nothing: entries that wait to be cleared, or a harvest that is not at its end.
 *
 *	kernel                          here
 *	  open bit = 1
 *	  entry n = page
 *	  store-release head = n + 1      load-acquire head: entries before it are there,
 *	                                    and a CLEAR of them finds the open bits
 *	                                  copy entries
 *	  load-acquire tail               store-release tail: they are copied
 *	  may write over entry
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "dirtytrack.h"

/* What one call hands out: enough that sorting makes ranges of it. */
#define BATCH 4096

/**
 * struct dtrack_ring - a consumer
 * @log: fd of the log
 * @npages: pages of the slot
 * @shared: the kernel's mapping
 * @shared_size: bytes of it
 * @entries: in it
 * @control: the consumer's page
 * @control_size: bytes mapped
 * @nr: length of @entries
 * @next: page from which a harvest goes on; @npages when there is none
 * @nr_ranges: ranges that are to be cleared
 * @done: how far that is
 * @ranges: those, and what is handed out
 * @pages: entries, to be sorted
 * @extents: of a harvest
 */
struct dtrack_ring {
	int log;
	uint64_t npages;
	const struct dirtytrack_ring *shared;
	size_t shared_size;
	const uint64_t *entries;
	struct dirtytrack_ring_control *control;
	size_t control_size;
	uint64_t nr;
	uint64_t next;
	uint32_t nr_ranges;
	struct dtrack_ranges_done done;
	struct dirtytrack_range ranges[BATCH];
	union {
		uint64_t pages[BATCH];
		struct dirtytrack_extent extents[BATCH];
	};
};

/* Entries did not all find room: the log knows what they were. */
static void begin_harvest(struct dtrack_ring *ring, uint64_t head,
			  uint64_t overflows)
{
	__atomic_store_n(&ring->control->seen, overflows, __ATOMIC_RELAXED);
	__atomic_store_n(&ring->control->tail, head, __ATOMIC_RELEASE);
	/*
	 * The kernel is to see it before the harvest looks: who writes after that finds
	 * room, so that one harvest is enough.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	ring->next = 0;
}

static uint64_t load_head(const struct dtrack_ring *ring)
{
	return __atomic_load_n(&ring->shared->head, __ATOMIC_ACQUIRE);
}

static uint64_t load_overflows(const struct dtrack_ring *ring)
{
	return __atomic_load_n(&ring->shared->overflows, __ATOMIC_ACQUIRE);
}

static int map(int log, uint64_t offset, uint64_t size, int prot, void **addr)
{
	if (size > SIZE_MAX)
		return -ENOMEM;
	*addr = mmap(NULL, size, prot, MAP_SHARED, log, offset);
	return *addr == MAP_FAILED ? -errno : 0;
}

/**
 * dtrack_ring_open - begin to consume the ring of a log
 * @ring: where to store the consumer, to be ended by dtrack_ring_close()
 * @log: fd of a log that was made by dtrack_log_create_ring(), used until then
 *
 * The first that it takes is a harvest of the slot, so that it does not matter what
 * was written, or taken by another, before.  A ring has one consumer at a time.
 *
 * Return: 0; -ENXIO when the log has no ring, -ENOMEM, or -errno of the ioctl or
 * of mmap(2).
 */
int dtrack_ring_open(struct dtrack_ring **ring, int log)
{
	struct dirtytrack_log_info info;
	struct dtrack_ring *r;
	void *addr;
	int ret;

	ret = dtrack_log_info(log, &info);
	if (ret)
		return ret;
	if (!info.out_ring_size)
		return -ENXIO;
	r = malloc(sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->log = log;
	r->npages = info.out_npages;
	r->shared_size = info.out_ring_size;
	r->control_size = info.out_control_size;
	r->nr_ranges = 0;
	ret = map(log, info.out_ring_offset, info.out_ring_size, PROT_READ,
		  &addr);
	if (ret)
		goto free;
	r->shared = addr;
	r->entries = (const uint64_t *)((const char *)addr +
					DIRTYTRACK_RING_ENTRIES_OFFSET);
	r->nr = r->shared->entries;
	ret = map(log, info.out_control_offset, info.out_control_size,
		  PROT_READ | PROT_WRITE, &addr);
	if (ret)
		goto unmap;
	r->control = addr;
	begin_harvest(r, load_head(r), load_overflows(r));
	*ring = r;
	return 0;

unmap:
	munmap((void *)r->shared, r->shared_size);
free:
	free(r);
	return ret;
}

/**
 * dtrack_ring_close - end a consumer
 * @ring: the consumer, or NULL
 *
 * Nothing is lost: what it did not hand out is still in the log, and its successor begins
 * with a harvest.
 */
void dtrack_ring_close(struct dtrack_ring *ring)
{
	if (!ring)
		return;
	munmap((void *)ring->shared, ring->shared_size);
	munmap(ring->control, ring->control_size);
	free(ring);
}

/**
 * dtrack_ring_watermark - how many entries are worth to be woken for
 * @ring: the consumer
 * @entries: their number; 0 counts as 1, more than the ring has as all
 *
 * Not to be called while another thread polls the log.
 */
void dtrack_ring_watermark(struct dtrack_ring *ring, uint32_t entries)
{
	__atomic_store_n(&ring->control->watermark, entries, __ATOMIC_RELAXED);
}

/* What poll() would say, without a system call. */
static bool ready(const struct dtrack_ring *ring)
{
	uint64_t watermark = ring->control->watermark;

	if (!watermark)
		watermark = 1;
	if (watermark > ring->nr)
		watermark = ring->nr;
	return ring->nr_ranges || ring->next < ring->npages ||
	       load_head(ring) - ring->control->tail >= watermark ||
	       load_overflows(ring) != ring->control->seen;
}

/**
 * dtrack_ring_wait - sleep until there is something to take
 * @ring: the consumer
 * @timeout: milliseconds, or -1 for ever
 *
 * A consumer with more to wait for polls the log's fd itself, for POLLIN, after
 * dtrack_ring_take() has returned 0.
 *
 * Return: 1 when as many entries as the watermark wait, or a harvest is due; 0 after
 * @timeout, when there may be fewer; -EINTR, or -errno of poll(2).
 */
int dtrack_ring_wait(struct dtrack_ring *ring, int timeout)
{
	struct pollfd fd = { .fd = ring->log, .events = POLLIN };
	int ret;

	if (ready(ring))
		return 1;
	ret = poll(&fd, 1, timeout);
	if (ret < 0)
		return -errno;
	if (ret && !(fd.revents & POLLIN))
		return fd.revents & POLLNVAL ? -EBADF : -EPROTO;
	return ret;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Sorted, without what is there twice, neighbours together. */
static uint32_t make_ranges(struct dirtytrack_range *ranges, uint64_t *pages,
			    uint32_t nr)
{
	uint32_t i, n = 0;

	qsort(pages, nr, sizeof(*pages), compare);
	for (i = 0; i < nr; i++) {
		struct dirtytrack_range *last = &ranges[n - 1];

		if (n && pages[i] < last->first + last->npages)
			continue;
		if (n && pages[i] == last->first + last->npages) {
			last->npages++;
			continue;
		}
		ranges[n].first = pages[i];
		ranges[n++].npages = 1;
	}
	return n;
}

/* Makes ranges of what is in the ring. */
static int read_entries(struct dtrack_ring *ring)
{
	uint64_t tail = ring->control->tail, head = load_head(ring);
	uint32_t nr, i;

	if (head - tail > ring->nr)
		return -EPROTO;
	nr = head - tail < BATCH ? head - tail : BATCH;
	for (i = 0; i < nr; i++) {
		ring->pages[i] = ring->entries[(tail + i) % ring->nr];
		if (ring->pages[i] >= ring->npages)
			return -EPROTO;
	}
	/* From here on they are nowhere but in ranges. */
	__atomic_store_n(&ring->control->tail, tail + nr, __ATOMIC_RELEASE);
	ring->nr_ranges = make_ranges(ring->ranges, ring->pages, nr);
	ring->done = (struct dtrack_ranges_done){ 0 };
	return 0;
}

static int take_entries(struct dtrack_ring *ring)
{
	int ret = 0, nr;

	if (!ring->nr_ranges)
		ret = read_entries(ring);
	if (!ret)
		ret = dtrack_clear_ranges(ring->log, ring->ranges,
					  ring->nr_ranges, &ring->done);
	if (ret)
		return ret;
	nr = ring->nr_ranges;
	ring->nr_ranges = 0;
	return nr;
}

static int take_harvest(struct dtrack_ring *ring)
{
	int nr, i;

	nr = dtrack_harvest_extents(ring->log, 0, &ring->next, ring->npages,
				    ring->extents, BATCH);
	for (i = 0; i < nr; i++) {
		ring->ranges[i].first = ring->extents[i].first;
		ring->ranges[i].npages = ring->extents[i].npages;
	}
	return nr;
}

/**
 * dtrack_ring_take - take pages out of the log that were written
 * @ring: the consumer
 * @ranges: where to store the address of the ranges, which are good until the next
 *	call; ascending, apart from each other unless they are a harvest's
 *
 * The pages are out of the log and protected: the content that is read now has all
 * that was written before, and what is written from now on is in the ring again.
 * Entries come a batch at a time, so call until there is nothing; when some found no
 * room in the ring, the slot is harvested instead, likewise in several calls.
 *
 * Return: number of ranges; 0 when there is nothing now; -errno of the ioctl that
 * clears or harvests, after which nothing is lost and the call may be repeated; -EPROTO
 * when the mappings hold what neither the kernel nor this consumer writes.
 */
int dtrack_ring_take(struct dtrack_ring *ring,
		     const struct dirtytrack_range **ranges)
{
	uint64_t overflows;
	int ret;

	*ranges = ring->ranges;
	/*
	 * The tail of the last call is written before the ring is looked at: who finds
	 * nothing now and goes to sleep is woken for what comes, by an edge, too.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!ring->nr_ranges && ring->next == ring->npages) {
		overflows = load_overflows(ring);
		if (overflows != ring->control->seen)
			begin_harvest(ring, load_head(ring), overflows);
	}
	if (ring->next < ring->npages) {
		ret = take_harvest(ring);
		if (ret)
			return ret;
	}
	return take_entries(ring);
}
