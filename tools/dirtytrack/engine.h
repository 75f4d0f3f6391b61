/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The copy engine: rounds over what is dirty, then a last one while the guest is
 * paused.
 *
 * Round 1 copies all pages that have memory, each later one the pages written
 * since, but for those that were written again before it was their turn; the last one
 * copies them all.  After each the engine counts what is left.  It ends the rounds when
 * copying that would take no longer than the downtime allowed, at the speed of
 * the last round or of all rounds, whichever is less, and one more round is not expected to
 * leave less than half of it; or when rounds bring no progress; or when there were as many
 * as allowed.
 *
 * For a guest that is handed over, the last round is in two parts: one while the state of
 * its devices is saved, and one for what this wrote to memory.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "pipeline.h"

struct pause;
struct source;
struct target;

/* Why the rounds ended. */
enum copy_end {
	COPY_FITS,		/* the rest fits the downtime */
	COPY_NO_PROGRESS,	/* rounds did not bring it down */
	COPY_MAX_ROUNDS,
	COPY_TIMEOUT,		/* they took as long as allowed */
};

/* How the guest is kept from writing faster than it is copied. */
enum copy_throttle {
	THROTTLE_OFF,
	THROTTLE_FIXED,		/* to copy.throttle_rate, from the start */
	THROTTLE_AUTO,		/* more and more, while rounds bring no progress */
};

/**
 * struct copy_round - one round
 * @round: number, from 1
 * @paused: it is the last one, the guest standing still
 * @expected: pages expected when it began
 * @pages: pages copied
 * @data: those of them that had data and were sent
 * @resent: pages sent again, because a connection was lost
 * @skipped: pages left to a later round, having been written again before their turn
 * @start: monotonic seconds
 * @seconds: how long it took
 * @left: pages dirty after it
 * @dirty_rate: pages that became dirty in a second of it
 * @rest_seconds: how long copying @left is expected to take
 * @throttle: pages a second that the guest was allowed to make dirty; 0: as it likes
 */
struct copy_round {
	unsigned int round;
	bool paused;
	uint64_t expected;
	uint64_t pages;
	uint64_t data;
	uint64_t resent;
	uint64_t skipped;
	double start;
	double seconds;
	uint64_t left;
	double dirty_rate;
	double rest_seconds;
	uint64_t throttle;
};

struct copy;

/* What the guest is paused for, in this order. */
enum copy_phase {
	PHASE_STOP,
	PHASE_MEMORY,	/* its state is saved meanwhile, if it is handed over */
	PHASE_STATE,	/* until that is done, if it takes longer */
	PHASE_REST,	/* memory that this wrote to */
	PHASE_VERIFY,
	PHASE_LOAD,
	PHASE_START,
	NR_COPY_PHASES,
};

/**
 * struct copy_handover - for a guest that is to go on elsewhere
 * @prepare: called right before the pause: what can be done while it runs
 * @save: called when it stands still: begins what may write to its memory
 * @saved: called when the memory that was dirty then is copied: waits for the end of that
 * @commit: called when all of its memory is there: 0 when it is elsewhere now;
 *	-EHOSTUNREACH when that cannot be known, so that it must not be resumed; another
 *	error when it is certain that it is not
 *
 * Each returns 0, or a message and -errno; -EINTR without one.
 */
struct copy_handover {
	int (*prepare)(struct copy *copy);
	int (*save)(struct copy *copy);
	int (*saved)(struct copy *copy);
	int (*commit)(struct copy *copy);
};

enum copy_event {
	COPY_ROUND_BEGIN,
	COPY_PROGRESS,
	COPY_ROUND_END,
	COPY_ROUNDS_END,	/* copy.end says why */
	COPY_PAUSING,		/* from here on output would keep the guest waiting */
	COPY_PAUSED,
	COPY_VERIFY,		/* copy.verified grows */
	COPY_RESUMED,		/* copy.seconds_paused is known */
	COPY_HANDED_OVER,	/* likewise; instead of COPY_RESUMED */
	COPY_LEFT_PAUSED,	/* likewise: it could not be resumed, or must not be */
};

/* What is copied to where, and the way, which is the caller's to open and close. */
struct copy_move {
	struct source *src;
	struct target *dst;
	struct pipeline *pipe;
};

/* Several moves are of one guest: they have their rounds, and the pause, together. */
struct copy {
	struct copy_move *moves;
	unsigned int nr_moves;
	struct pause *pause;	/* NULL: the guest is not paused */
	const struct copy_handover *handover;	/* NULL: it is resumed */
	void *handover_arg;
	bool rehearsal;		/* it is resumed all the same: nothing is committed */
	double downtime;	/* seconds allowed */
	unsigned int max_rounds;
	double timeout;		/* seconds allowed for the rounds; 0: any */
	bool pause_on_timeout;	/* then pause for as long as it takes; else fail */
	/*
	 * Seconds without progress, in the pause or to end the round that it waits for, after
	 * which a target is given up; 0: any.
	 */
	double patience;
	enum copy_throttle throttle;
	uint64_t throttle_rate;
	bool dry_run;		/* no pause, no last round */
	bool strict;		/* fail rather than pause for longer */
	bool verify;
	const volatile sig_atomic_t *cancel;
	void (*event)(struct copy *copy, enum copy_event event);
	void *event_arg;

	/* Results. */
	double start;
	bool in_round;
	struct pipeline_stats before;	/* of the round */
	uint64_t reconnects;
	struct copy_round round;
	uint64_t taken;		/* in the round: pages out of the log */
	enum copy_end end;
	bool cut_short;		/* COPY_TIMEOUT, in the middle of a round */
	uint64_t total_pages;
	double total_seconds;
	uint64_t verified;	/* pages compared */
	uint64_t different;	/* pages that differ */
	uint64_t first_different;
	double expected_downtime;	/* when the rounds ended */
	bool was_paused;
	double paused_at;
	double seconds_paused;
	double phase_begin;
	double phases[NR_COPY_PHASES];	/* seconds; of all, @seconds_paused is the sum */
};

/* Pages of all moves. */
uint64_t copy_npages(const struct copy *copy);
/* In the pause: what was done since the last call, or the beginning, was @phase. */
void copy_phase_end(struct copy *copy, enum copy_phase phase);
/* For struct pipeline_options: @arg is the struct copy. */
void copy_progress(void *arg);

/*
 * 0 when the target is complete, though not committed.  Otherwise a message and
 * -errno: -EINTR without one; -ETIME with @strict
 * or @timeout; -ETIMEDOUT when @patience was at its end; -EBADMSG when target and memory
 * differ; -EHOSTDOWN when the target is complete and the guest could not be
 * resumed; -EHOSTUNREACH when it is not known whether it was handed over.  In all other
 * cases, the guest was handed over (0, but in a rehearsal), or resumed if that was possible.
 */
int copy_run(struct copy *copy);

#endif
