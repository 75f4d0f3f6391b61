/* SPDX-License-Identifier: MIT */
/*
 * libdirtytrack: /dev/dirtytrack from C and C++
 *
 * The objects, the guarantee and every struct are described in
 * <linux/dirtytrack.h>; this library adds the loops that every caller needs and
 * nothing to remember between calls: an object is the file descriptor that the
 * kernel returned, to be closed with close(2).
 *
 * CONVENTIONS
 *
 * A function that returns int returns -errno when it fails and 0, a file
 * descriptor or a count when it does not.  errno itself is not part of the
 * interface.  Page numbers and counts are in pages of 4096 bytes, lengths in
 * bytes.  A bitmap is an array of uint64_t, bit n being bit n % 64 of word
 * n / 64.  Functions keep no state, so they may be called from any thread;
 * calls that are given the same bitmap, iterator or ring must not run at once.
 *
 * -EINTR means that a signal handler ran before anything was done by the call
 * that was interrupted.  Functions that loop say how to go on.  -EPROTO means that
 * the kernel did what its interface excludes.
 */
#ifndef DIRTYTRACK_H
#define DIRTYTRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/dirtytrack.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DTRACK_PAGE_SIZE (1UL << DIRTYTRACK_PAGE_SHIFT)

/* Device and slots */

int dtrack_open_device(const char *path);
int dtrack_get_info(int device, struct dirtytrack_info *info);

int dtrack_slot_create(int device, uint64_t length, const char *name,
		       uint32_t *id);
int dtrack_slot_next(int device, uint32_t *id);
int dtrack_slot_open_id(int device, uint32_t id);
int dtrack_slot_open_name(int device, const char *name);
int dtrack_slot_info(int slot, struct dirtytrack_slot_info *info);

/* Logs */

/**
 * struct dtrack_log_map - the mapped bitmap and summary of a log
 * @bitmap: one bit a page
 * @summary: one bit a word of @bitmap
 * @npages: bits of @bitmap
 * @bitmap_size: bytes mapped at @bitmap
 * @summary_size: bytes mapped at @summary
 *
 * Read-only, and changed by the kernel while it is read: load each word once.
 */
struct dtrack_log_map {
	const uint64_t *bitmap;
	const uint64_t *summary;
	uint64_t npages;
	size_t bitmap_size;
	size_t summary_size;
};

int dtrack_log_create(int slot, uint32_t flags);
int dtrack_log_create_ring(int slot, uint32_t flags, uint32_t entries);
int dtrack_limit(int log, uint64_t rate);
int dtrack_log_info(int log, struct dirtytrack_log_info *info);
int dtrack_log_mmap(int log, struct dtrack_log_map *map);
void dtrack_log_munmap(struct dtrack_log_map *map);

/* Harvest */

/**
 * struct dtrack_harvested - what a harvest or peek did
 * @next: first page that was not looked at
 * @dirty: pages before @next that were dirty
 * @fresh: those of them whose bit in the bitmap was clear
 */
struct dtrack_harvested {
	uint64_t next;
	uint64_t dirty;
	uint64_t fresh;
};

int dtrack_harvest(int log, uint64_t first, uint64_t npages,
		   uint64_t *bitmap, uint64_t bit,
		   struct dtrack_harvested *out);
int dtrack_peek(int log, uint64_t first, uint64_t npages,
		uint64_t *bitmap, uint64_t bit,
		struct dtrack_harvested *out);

int dtrack_harvest_extents(int log, uint32_t flags, uint64_t *next,
			   uint64_t end, struct dirtytrack_extent *extents,
			   uint32_t max);

struct dtrack_extents;

int dtrack_extents_open(struct dtrack_extents **iter, int log, uint32_t flags,
			uint64_t first, uint64_t npages);
int dtrack_extents_next(struct dtrack_extents *iter,
			struct dirtytrack_extent *extent);
void dtrack_extents_close(struct dtrack_extents *iter);

/* Clear and merge */

/**
 * struct dtrack_selected - what a clear or merge of a bitmap did
 * @next: first page that was not looked at
 * @pages: pages before @next that were dirty and are not; or that were merged
 */
struct dtrack_selected {
	uint64_t next;
	uint64_t pages;
};

/**
 * struct dtrack_ranges_done - how far a clear, merge or populate of ranges is
 * @nr: ranges done
 * @next: page of range @nr from which to go on, 0 for its first
 * @pages: pages that were dirty and are not; that were merged; that got memory
 */
struct dtrack_ranges_done {
	uint32_t nr;
	uint64_t next;
	uint64_t pages;
};

int dtrack_clear(int log, uint64_t first, uint64_t npages,
		 const uint64_t *bitmap, uint64_t bit,
		 struct dtrack_selected *out);
int dtrack_merge(int log, uint64_t first, uint64_t npages,
		 const uint64_t *bitmap, uint64_t bit,
		 struct dtrack_selected *out);
int dtrack_clear_ranges(int log, const struct dirtytrack_range *ranges,
			uint32_t nr, struct dtrack_ranges_done *done);
int dtrack_merge_ranges(int log, const struct dirtytrack_range *ranges,
			uint32_t nr, struct dtrack_ranges_done *done);

/* Release and populate */

/**
 * struct dtrack_released - how far a release is
 * @nr: ranges done
 * @next: page of range @nr from which to go on, 0 for its first
 * @released: pages that had memory and have none now
 * @skipped: pages that were asked for and keep their memory
 * @unmaps: runs of pages that were taken out of the mappings
 */
struct dtrack_released {
	uint32_t nr;
	uint64_t next;
	uint64_t released;
	uint64_t skipped;
	uint64_t unmaps;
};

int dtrack_release(int slot, const struct dirtytrack_range *ranges, uint32_t nr,
		   struct dtrack_released *done);
int dtrack_release_clean(int log, const struct dirtytrack_range *ranges,
			 uint32_t nr, struct dtrack_released *done);
int dtrack_populate(int slot, const struct dirtytrack_range *ranges,
		    uint32_t nr, int node, struct dtrack_ranges_done *done);

/* Ranges, encoded compactly */

int dtrack_ranges_encode(const struct dirtytrack_range *ranges, size_t nr,
			 void *buf, size_t size, size_t *used);
int dtrack_ranges_decode(const void *buf, size_t size,
			 struct dirtytrack_range *ranges, size_t max,
			 size_t *nr);

/* Ring */

struct dtrack_ring;

int dtrack_ring_open(struct dtrack_ring **ring, int log);
void dtrack_ring_watermark(struct dtrack_ring *ring, uint32_t entries);
int dtrack_ring_wait(struct dtrack_ring *ring, int timeout);
int dtrack_ring_take(struct dtrack_ring *ring,
		     const struct dirtytrack_range **ranges);
void dtrack_ring_close(struct dtrack_ring *ring);

/* Flush */

/* A page of the source that is all zero is as a hole. */
#define DTRACK_FLUSH_ZEROES	(1U << 0)
/* The holes of @from_fd are not read. */
#define DTRACK_FLUSH_HOLES	(1U << 1)
/* Holes become holes of @to_fd, instead of zeros in memory. */
#define DTRACK_FLUSH_PUNCH	(1U << 2)
/* A page that is equal already is not written; one to be punched, if it is a hole. */
#define DTRACK_FLUSH_SKIP_EQUAL	(1U << 3)
/* Of what the restored pages are now: dtrack_checksum(). */
#define DTRACK_FLUSH_CHECKSUM	(1U << 4)

/**
 * struct dtrack_flushed - what a flush did
 * @next: first page that no thread has come to
 * @copied: pages that were copied
 * @zeroed: pages that were made holes, or zeros
 * @equal: pages that were equal already
 * @checksum: dtrack_checksum() of those pages, if it was asked for
 * @threads: threads that did it, with the caller's
 */
struct dtrack_flushed {
	uint64_t next;
	uint64_t copied;
	uint64_t zeroed;
	uint64_t equal;
	uint64_t checksum;
	uint32_t threads;
};

/**
 * struct dtrack_flush - what a flush is to do
 * @from: source, mapped; not changed meanwhile
 * @to: destination, mapped
 * @npages: pages of both
 * @bitmaps: pages that are dirty in either are restored; NULL is an empty one
 * @flags: DTRACK_FLUSH_ flags
 * @threads: how many there may be, with the caller's; 0 for as many as processors
 * @from_fd: file that @from maps from its begin, for DTRACK_FLUSH_HOLES
 * @to_fd: file that @to maps from its begin, for DTRACK_FLUSH_PUNCH
 * @copy: copies pages, instead of memcpy(3) from @from to @to; or NULL
 * @zero: makes pages zero, instead of memset(3) or DTRACK_FLUSH_PUNCH; or NULL
 * @progress: called now and then, in the caller's thread; or NULL
 * @opaque: for the callbacks
 *
 * A callback returns 0, or a negative errno value that ends the flush.  @copy and @zero
 * are called by all threads.  @from and @to may be NULL where nothing uses them.
 */
struct dtrack_flush {
	const void *from;
	void *to;
	uint64_t npages;
	uint64_t *bitmaps[2];
	uint32_t flags;
	uint32_t threads;
	int from_fd;
	int to_fd;
	int (*copy)(void *opaque, uint64_t first, uint64_t npages);
	int (*zero)(void *opaque, uint64_t first, uint64_t npages);
	int (*progress)(void *opaque, const struct dtrack_flushed *sofar);
	void *opaque;
};

int dtrack_flush(const struct dtrack_flush *arg, struct dtrack_flushed *out);
uint64_t dtrack_checksum(const void *memory, uint64_t first, uint64_t npages);

/* Bitmaps */

/* Words that a bitmap of @nbits bits takes. */
static inline uint64_t dtrack_bitmap_words(uint64_t nbits)
{
	return nbits / 64 + (nbits % 64 != 0);
}

static inline bool dtrack_bitmap_test(const uint64_t *bitmap, uint64_t bit)
{
	return bitmap[bit / 64] >> (bit % 64) & 1;
}

uint64_t *dtrack_bitmap_alloc(uint64_t nbits);
void dtrack_bitmap_set(uint64_t *bitmap, uint64_t first, uint64_t count);
void dtrack_bitmap_clear(uint64_t *bitmap, uint64_t first, uint64_t count);
uint64_t dtrack_bitmap_count(const uint64_t *bitmap, uint64_t first,
			     uint64_t count);
uint64_t dtrack_bitmap_next(const uint64_t *bitmap, uint64_t nbits,
			    uint64_t from);
uint64_t dtrack_bitmap_next_clear(const uint64_t *bitmap, uint64_t nbits,
				  uint64_t from);
uint64_t dtrack_bitmap_next_run(const uint64_t *bitmap, uint64_t nbits,
				uint64_t *first);

/**
 * struct dtrack_runs - where dtrack_for_each_run() is
 * @bitmap: the bitmap
 * @nbits: bits in it
 * @index: the word it has come to
 * @word: what of it has not been visited
 *
 * A word is read once, when the loop comes to it.
 */
struct dtrack_runs {
	const uint64_t *bitmap;
	uint64_t nbits;
	uint64_t index;
	uint64_t word;
};

static inline struct dtrack_runs dtrack_runs_of(const uint64_t *bitmap, uint64_t nbits)
{
	struct dtrack_runs runs;

	runs.bitmap = bitmap;
	runs.nbits = nbits;
	runs.index = 0;
	runs.word = nbits ? bitmap[0] : 0;
	return runs;
}

/*
 * As dtrack_bitmap_next_run(), without looking again at what was visited.  Clear words
 * are skipped by four: most of a bitmap is clear.
 */
static inline uint64_t dtrack_runs_next(struct dtrack_runs *runs, uint64_t *first)
{
	const uint64_t words = dtrack_bitmap_words(runs->nbits);
	const uint64_t *bitmap = runs->bitmap;
	uint64_t word = runs->word, index = runs->index, end;

	while (!word) {
		while (index + 4 < words && !(bitmap[index + 1] | bitmap[index + 2] |
					      bitmap[index + 3] | bitmap[index + 4]))
			index += 4;
		if (++index >= words)
			goto none;
		word = bitmap[index];
	}
	*first = index * 64 + __builtin_ctzll(word);
	/* The carry goes through the lowest run, and stops at the bit after it. */
	end = word + (word & -word);
	if (end) {
		runs->word = word & end;
		end = index * 64 + __builtin_ctzll(end);
	} else {
		while (!end && ++index < words)
			end = ~bitmap[index];
		runs->word = end ? ~end & ~(end ^ (end - 1)) : 0;
		end = end ? index * 64 + __builtin_ctzll(end) : words * 64;
	}
	runs->index = index;
	if (end <= runs->nbits)
		return end - *first;
	/* The last word may have bits beyond the end. */
	runs->word = 0;
	if (*first < runs->nbits)
		return runs->nbits - *first;
none:
	runs->index = words;
	runs->word = 0;
	*first = runs->nbits;
	return 0;
}

#define DTRACK_RUNS_AT_(line) dtrack_runs_at_ ## line
#define DTRACK_RUNS_AT(line) DTRACK_RUNS_AT_(line)

/**
 * dtrack_for_each_run - visit each run of set bits, ascending
 * @first: uint64_t lvalue, first bit of the run
 * @count: uint64_t lvalue, bits in the run
 * @bitmap: bitmap
 * @nbits: bits in @bitmap
 *
 * What the body does to @first and @count does not matter.
 */
#define dtrack_for_each_run(first, count, bitmap, nbits)		\
	for (struct dtrack_runs DTRACK_RUNS_AT(__LINE__) =		\
	     dtrack_runs_of(bitmap, nbits);				\
	     ((count) = dtrack_runs_next(&DTRACK_RUNS_AT(__LINE__), &(first)));)

#ifdef __cplusplus
}
#endif

#endif /* DIRTYTRACK_H */
