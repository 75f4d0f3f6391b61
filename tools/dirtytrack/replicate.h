/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest is replicated: epoch after epoch of its memory, and of all else that its QEMU
 * has, goes to a secondary, so that it can go on there (Documentation/replicate.rst).
 */
#ifndef REPLICATE_H
#define REPLICATE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "limiter.h"
#include "source-aside.h"
#include "vm-slots.h"
#include "vm-state.h"

struct replica;

#define MAX_REPLICAS 64

/* What is done when an epoch cannot be sent in the interval. */
enum slow_link {
	SLOW_STRETCH,		/* the next one begins when it was */
	SLOW_THROTTLE,		/* the guest is kept from writing that much */
};

enum replicate_event {
	REPLICATE_ATTACHED,	/* all memory, or what has changed, is to be sent */
	REPLICATE_SYNCED,	/* replicate.synced of it is sent; epochs are next */
	REPLICATE_SENT,		/* replicate.epoch is about to be committed */
	REPLICATE_EPOCH,	/* replicate.epoch is committed */
	REPLICATE_LOST,		/* the secondary; the guest goes on without */
	REPLICATE_FENCED,	/* the guest stands still until it is back */
	REPLICATE_PROGRESS,
};

/**
 * struct replicate_epoch - an epoch that is committed
 * @number: its number
 * @pages: pages that were dirty
 * @data: those of them sent as data
 * @in_pause: pages that were sent in the pause, because the buffer was full
 * @state_size: bytes of device state
 * @pause: seconds that the guest stood still
 * @lag: seconds from then to the commit: what would have been lost until then
 * @checksum: of all memory, if one is computed
 * @throttle: pages a second that the guest may make dirty; 0: as it likes
 */
struct replicate_epoch {
	uint64_t number;
	uint64_t pages;
	uint64_t data;
	uint64_t in_pause;
	uint64_t state_size;
	double pause;
	double lag;
	uint64_t checksum;
	uint64_t throttle;
};

/**
 * struct replicate - a guest that is replicated
 * @refs: slots, as the user names them
 * @exports: their names at the secondary; NULL when they are the slots'
 * @nr_refs: how many; 0 for all that QEMU has
 * @uri: the secondary
 * @interval: seconds from the beginning of an epoch to that of the next
 * @answer: seconds for an answer
 * @lease: the guest stands still when nothing was heard of the secondary for so long;
 *	0: it goes on
 * @reconnect: give up when the secondary was away for so long; 0: never
 * @buffer: bytes of an epoch that are copied aside
 * @threads: that copy; 0: as many as processors
 * @connections: to each slot
 * @bandwidth: bytes a second; 0 for any
 * @slow: what to do when the link is too slow
 * @checksum: send one with each epoch
 * @count: epochs to be sent; 0: until interrupted
 * @event: unless NULL, called when something has happened, and the guest runs
 * @event_arg: for its use
 *
 * The others are between replicate_open() and replicate_close().
 */
struct replicate {
	const char *refs[MAX_REPLICAS];
	const char *exports[MAX_REPLICAS];
	unsigned int nr_refs;
	const char *uri;
	double interval;
	double answer;
	double lease;
	double reconnect;
	uint64_t buffer;
	unsigned int threads;
	unsigned int connections;
	uint64_t bandwidth;
	enum slow_link slow;
	bool checksum;
	unsigned int count;
	void (*event)(struct replicate *r, enum replicate_event event);
	void *event_arg;

	/* Results. */
	struct replicate_epoch epoch;
	uint64_t epochs;		/* committed by this process */
	uint64_t pages;			/* of all epochs */
	uint64_t data;			/* sent as data, before epochs, too */
	uint64_t synced;		/* pages, each time, before the first epoch of a session */
	uint64_t losses;		/* how often the secondary was lost */
	bool attached;
	bool fenced;			/* the guest stands still */

	struct limiter limiter;
	struct replica *replica;
	struct pause *pause;
	struct vm_slots slots;
	struct aside aside;
	struct source_aside sources[MAX_REPLICAS];
	unsigned int nr;		/* of sources */
	struct copy copy;		/* of what is sent before an epoch; phases of its pause */
	struct copy_move moves[MAX_REPLICAS];
	bool stands;			/* it was paused, and is not let go */
	bool must_stand;		/* it may be let run there; also if it cannot be paused */
	bool was_attached;
	bool fatal;			/* it is no use to try again */
	bool taken_over;		/* the guest was let run there */
	uint64_t committed;		/* there, as far as is known */
	uint64_t pending;		/* is being committed, or 0 */
	uint64_t data_before;		/* sent in sessions that have ended */
	double epoch_begin;
	uint64_t throttle;
	struct vm_state saving;
	int state;			/* a file with what was saved */
	uint64_t state_size;
};

/*
 * Connect to QEMU, at the socket @qmp, and find the memory.  0, or a message and -errno.
 * replicate_close() is to be called in either case.
 */
int replicate_open(struct replicate *r, const char *qmp);
/*
 * Until as many epochs were sent as wanted (0) or it is interrupted (-EINTR), with the
 * guest running in either case.  Otherwise a message and -errno; -EOWNERDEAD when the
 * guest was let run there, and is paused here; -EHOSTUNREACH when it may have been, and is
 * paused, too.
 */
int replicate_run(struct replicate *r);
void replicate_close(struct replicate *r);

#endif
