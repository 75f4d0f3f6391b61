/* SPDX-License-Identifier: GPL-2.0-only */
/* A guest is moved: its memory by the copy engine, all else by its QEMU. */
#ifndef MIGRATE_H
#define MIGRATE_H

#include "engine.h"
#include "limiter.h"
#include "source-free.h"
#include "source.h"
#include "vm-slots.h"
#include "vm-state.h"

struct destination;

#define MAX_MOVES 64

/* Pages of a slot that are free. */
struct migrate_free {
	const char *ref;	/* of the slot; NULL: it is the only one */
	const char *file;
};

/**
 * struct migrate - a guest on its way
 * @refs: slots, as the user names them
 * @names: their names there; NULL when they are the slots'
 * @nr_refs: how many; 0 for all that QEMU has
 * @target: where the guest goes
 * @target_qmp: the monitor of the QEMU there, if @target is a slot
 * @answer: seconds for an answer
 * @bandwidth: bytes a second; 0 for any
 * @reconnect: as of the pipelines
 * @connections: to each export
 * @free: ranges of pages that are free
 * @nr_free: how many files of them
 * @free_format: of these
 * @copy: limits and reporting are set by the caller
 *
 * The others are between migrate_open() and migrate_close().
 */
struct migrate {
	const char *refs[MAX_MOVES];
	const char *names[MAX_MOVES];
	unsigned int nr_refs;
	const char *target;
	const char *target_qmp;
	double answer;
	uint64_t bandwidth;
	double reconnect;
	unsigned int connections;
	struct migrate_free free[MAX_MOVES];
	unsigned int nr_free;
	enum range_format free_format;
	struct copy copy;

	struct limiter limiter;
	struct destination *dest;
	struct source_slot sources[MAX_MOVES];
	struct source_free frees[MAX_MOVES];	/* of those that have free pages */
	struct copy_move moves[MAX_MOVES];
	struct vm_slots slots;
	struct vm_state state;
	bool state_used;	/* QEMU here was prepared for it */
	uint64_t state_size;	/* of what is there */
};

/*
 * Connect to QEMU, at the socket @qmp, and to where the guest goes, and find the memory.
 * 0, or a message and -errno.  migrate_close() is to be called in either case.
 */
int migrate_open(struct migrate *m, const char *qmp);
/*
 * 0: the guest is there, and its QEMU here has ended; in a dry run, the rounds have; in a
 * rehearsal, it goes on here.  Otherwise as copy_run(), and who waits for it was told.
 */
int migrate_run(struct migrate *m);
void migrate_close(struct migrate *m);

#endif
