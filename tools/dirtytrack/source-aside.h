/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A slot as a source of epochs: what is dirty is copied aside while the guest stands
 * still, by several threads, and read from there when it runs again.
 *
 *     source_aside_capture: log --take--> extents, their pages --copy--> buffer
 *     source_aside_push:    extents --> pipeline --read--> buffer
 *
 * Before the first epoch, it is a source like others, read where it is.  Pages of an epoch
 * that failed go back to the log (source-kept.h).
 */
#ifndef SOURCE_ASIDE_H
#define SOURCE_ASIDE_H

#include "source-kept.h"

struct pipeline;
struct aside_extent;

/* Extents that are taken out of the log at once. */
#define ASIDE_TAKEN 1024

/**
 * struct aside - memory for what is copied aside, of all slots of a guest
 * @memory: the buffer
 * @capacity: pages in it
 * @used: pages that are taken
 * @threads: that copy, with the caller's; 0 for as many as processors
 */
struct aside {
	char *memory;
	uint64_t capacity;
	uint64_t used;
	unsigned int threads;
};

/**
 * struct source_aside - a slot
 * @base: for the pipeline and the copy engine
 * @kept: the slot and its log
 * @aside: where pages go
 * @next: page to go on with, of this epoch
 * @left: extents that were taken out of the log, and not captured
 * @first_left: the first of them
 * @nr_left: end of them
 * @extents: what was captured and is to be pushed, ascending
 * @nr: how many
 * @room: for how many there is memory
 * @to_copy: pages of @extents that are not in the buffer yet
 * @hashes: of each page, as the other side knows it; NULL without a checksum
 * @checksum: their sum
 */
struct source_aside {
	struct source base;
	struct source_kept kept;
	struct aside *aside;
	uint64_t next;
	struct dirtytrack_extent left[ASIDE_TAKEN];
	unsigned int first_left;
	unsigned int nr_left;
	struct aside_extent *extents;
	unsigned int nr;
	unsigned int room;
	uint64_t *to_copy;
	uint64_t *hashes;
	uint64_t checksum;
};

/* Those that return int return 0, or a message and -errno; -EINTR without one. */

int aside_open(struct aside *aside, uint64_t capacity, unsigned int threads);
void aside_close(struct aside *aside);

int source_aside_open(struct source_aside *a, const char *ref,
		      struct aside *aside, bool checksum);
void source_aside_close(struct source_aside *a);
/* All pages are dirty, and the other side has none. */
int source_aside_restart(struct source_aside *a);

/* An epoch begins: from the first page on. */
void source_aside_begin(struct source_aside *a);
/*
 * Copy aside what is dirty, as far as there is room; with @more, what is left is to be
 * captured when that has been pushed and forgotten.
 */
int source_aside_capture(struct source_aside *a, bool *more);
int source_aside_push(struct source_aside *a, struct pipeline *pipe);
/* What was captured has been sent: of all sources before the buffer is used again. */
void source_aside_forget(struct source_aside *a);

#endif
