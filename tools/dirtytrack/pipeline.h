/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The way from a source to a target.
 *
 *     pipeline_push --> queue --> worker of lane 0: read, classify --> requests
 *      (extents)             \--> worker of lane 1: read, classify --> requests
 *
 * Extents that were harvested are read, split into data and zero pages, and sent with
 * many requests under way, all of it while the next are harvested.  Between two
 * calls of pipeline_drain() a page may be pushed once: so no two requests for one
 * page are under way, and the order of the others does not matter.
 *
 * Nothing is sent that the target has: a page that reads as zero there is not made
 * zero.  Nor, if that is wanted, what would be sent again: a page that was written
 * since it was harvested is in the log once more, and a later round's.
 *
 * A lane that is lost is connected again, and what was under way sent again.  What was
 * done, but not flushed, may be lost with the server: it is read and sent again, too.
 */
#ifndef PIPELINE_H
#define PIPELINE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct dirtytrack_extent;
struct limiter;
struct pipeline;
struct source;
struct target;

/**
 * struct pipeline_options - how to go about it
 * @threads: a thread for each lane; otherwise lane 0 works in pipeline_push()
 * @reconnect: seconds for which a lost lane is tried again
 * @session: it is not tried again, nor is anything said: -ENOTCONN
 * @limiter: unless NULL, how fast data may be sent
 * @cancel: unless NULL, what ends the work by -EINTR when it gets a value not 0
 * @progress: unless NULL, called in the caller's thread every now and then
 * @progress_arg: its argument
 */
struct pipeline_options {
	bool threads;
	double reconnect;
	bool session;
	struct limiter *limiter;
	const volatile sig_atomic_t *cancel;
	void (*progress)(void *arg);
	void *progress_arg;
};

/**
 * struct pipeline_stats - what was done
 * @pages: pages, each time they were
 * @data: those of them sent as data
 * @requests: requests that were done
 * @reconnects: lanes that were lost and came back
 * @resent: pages sent again because of that
 * @skipped: pages that were pushed and not sent, being in the log again
 */
struct pipeline_stats {
	uint64_t pages;
	uint64_t data;
	uint64_t requests;
	uint64_t reconnects;
	uint64_t resent;
	uint64_t skipped;
};

/* Those that return int return 0, or a message and -errno; -EINTR without one. */

int pipeline_open(struct pipeline **pipe, struct source *src,
		  struct target *dst, const struct pipeline_options *opts);
/*
 * The first thing: ask the target what it has, and make zero there what has no memory
 * in the source.  The source's log has begun by then, so that what gets memory after
 * it was looked at is pushed some time.
 */
int pipeline_clear(struct pipeline *p);
/*
 * Are pages to be skipped that are in the log again when it is their turn?  Not unless
 * that is said, and not in a round after which there is none.  To be called while
 * nothing is under way.
 */
void pipeline_skip_dirty(struct pipeline *p, bool skip);
/*
 * Who waits for the target waits no longer than until nothing has been done for @seconds,
 * and not before @from: -ETIMEDOUT.  With 0 seconds, not after @from, whatever is done: -ETIME,
 * without a message.  For ever, unless that is said; @from may be INFINITY.  Nothing can
 * be copied any more after either.
 */
void pipeline_set_patience(struct pipeline *p, double from, double seconds);
/*
 * Before the target itself is asked for something, by the owner of the pipeline: that has
 * the same time.  What came of it is to be passed to pipeline_answered(), which returns it, or
 * what is to be returned if it was late.
 */
void pipeline_ask(struct pipeline *p);
int pipeline_answered(struct pipeline *p, int ret);
/* To be copied; waits while there is much to do already. */
int pipeline_push(struct pipeline *p, const struct dirtytrack_extent *ext);
/* Wait until everything that was pushed is there. */
int pipeline_drain(struct pipeline *p);
/*
 * After pipeline_drain(): wait until it is where it survives the server.  With
 * @again, what turns out to be lost is copied again; without, it is an error: the
 * source has changed since.
 */
int pipeline_flush(struct pipeline *p, bool again);

void pipeline_get_stats(struct pipeline *p, struct pipeline_stats *stats);
/* Pages of the target that may not be zero. */
uint64_t pipeline_data_pages(struct pipeline *p);

/* Ends what is under way.  The target may be closed after that. */
void pipeline_close(struct pipeline *p);

#endif
