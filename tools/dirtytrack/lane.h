/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A lane of a pipeline: one connection of the target, what is under way on it, and the
 * memory that this takes; and what all lanes and the owner of the pipeline share.
 *
 * Threads: each lane belongs to one worker, with its works and chunks; only while
 * nothing is queued and no lane is busy does the owner of the pipeline use them.
 * What they share is under the pipeline's lock, which is held for a few words.
 */
#ifndef LANE_H
#define LANE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../lib/dirtytrack.h"
#include "pipeline.h"
#include "target.h"

/* Pages that are read at once: they are still in the cache when they are sent. */
#define CHUNK_PAGES 64
#define CHUNK_BYTES (CHUNK_PAGES * DTRACK_PAGE_SIZE)
/* What a lane may have under way. */
#define LANE_CHUNKS 32
#define LANE_WORKS 64

/* Extents. */
#define QUEUE 1024

/* How often the owner looks up while it waits, and a lost lane is tried again. */
#define TICK_MS 100
/* A request to stop is seen after it, when nothing happens. */
#define WAIT_MS 200

struct chunk {
	struct chunk *next;
	unsigned int users;
	char *data;
};

/* A request of a lane. */
struct work {
	struct request req;
	struct lane *lane;
	struct chunk *chunk;
	struct work *next;	/* of the free ones */
	bool under_way;
	bool lost;
};

struct lane {
	struct pipeline *pipe;
	unsigned int index;
	pthread_t thread;
	bool busy;		/* under the lock */
	unsigned int under_way;
	bool lost;
	int error;		/* of a request, until it is seen */
	uint64_t *unflushed;	/* done by this connection since the last flush */
	struct work *free_works;
	struct chunk *free_chunks;
	struct work works[LANE_WORKS];
	struct chunk chunks[LANE_CHUNKS];
	char *memory;
};

struct pipeline {
	struct source *src;
	struct target *dst;
	struct pipeline_options opts;
	uint64_t chunk_pages;
	unsigned int nr_lanes;
	unsigned int nr_threads;

	pthread_mutex_t lock;
	pthread_cond_t work;	/* something was queued, or it ends */
	pthread_cond_t room;	/* something was taken, or a lane is not busy */
	struct dirtytrack_extent queue[QUEUE];
	unsigned int first, queued;
	uint64_t queued_pages;	/* of data */
	bool quit;
	int error;
	atomic_bool stop;	/* @quit or @error: for those without the lock */
	atomic_bool told;	/* that it cannot write, by one of the lanes */
	struct pipeline_stats stats;
	/* One bit a page. */
	uint64_t *nonzero;	/* the target may have data */
	uint64_t *again;	/* lost: to be copied again */
	bool any_again;
	bool skip_dirty;	/* changes only while all lanes are idle */
	/* What is waited for is late: see pipeline_set_patience(). */
	double moved;		/* when something was done, or waiting began; under the lock */
	double from;
	double patience;

	struct lane lanes[];
};

static inline int pipeline_cancelled(struct pipeline *p)
{
	return (p->opts.cancel && *p->opts.cancel) || p->stop ? -EINTR : 0;
}

static inline void pipeline_progress(struct pipeline *p)
{
	if (p->opts.progress)
		p->opts.progress(p->opts.progress_arg);
}

/* Those that return int return 0, or -errno. */

/* Is it to end, as it was cancelled or is late?  Called without the lock. */
int pipeline_check(struct pipeline *p);
/* Something was done: who waits goes on waiting. */
void pipeline_moved(struct pipeline *p);
int lane_init(struct pipeline *p, unsigned int index);
/* After the target has forgotten what was under way. */
void lane_free(struct lane *lane);
/* Sends an extent; some of it is under way when this returns. */
int lane_copy(struct lane *lane, const struct dirtytrack_extent *ext);
/* Sees to what is under way, for @ms milliseconds at most. */
int lane_wait(struct lane *lane, int ms);
/* Connects a lane that was lost again, and sends again what was under way. */
int lane_revive(struct lane *lane);

#endif
