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

struct handover;

#define MAX_MOVES 64

/**
 * struct migrate - a guest on its way
 * @refs: slots, as the user names them
 * @exports: their names at the receiver; NULL when they are the slots'
 * @nr_refs: how many; 0 for all that QEMU has
 * @uri: the receiver
 * @answer: seconds for an answer
 * @bandwidth: bytes a second; 0 for any
 * @reconnect: as of the pipelines
 * @connections: to each export
 * @free_file: ranges of pages that are free, NULL for none
 * @free_format: of it
 * @copy: limits and reporting are set by the caller
 *
 * The others are between migrate_open() and migrate_close().
 */
struct migrate {
	const char *refs[MAX_MOVES];
	const char *exports[MAX_MOVES];
	unsigned int nr_refs;
	const char *uri;
	double answer;
	uint64_t bandwidth;
	double reconnect;
	unsigned int connections;
	const char *free_file;
	enum range_format free_format;
	struct copy copy;

	struct limiter limiter;
	struct handover *handover;	/* NULL in a dry run to nothing */
	struct source_slot sources[MAX_MOVES];
	struct source_free free;	/* of the first */
	struct copy_move moves[MAX_MOVES];
	struct vm_slots slots;
	struct vm_state state;
	uint64_t state_size;	/* of what the receiver has */
};

/*
 * Connect to QEMU, at the socket @qmp, and to the receiver, and find the memory.  0, or
 * a message and -errno.  migrate_close() is to be called in either case.
 */
int migrate_open(struct migrate *m, const char *qmp);
/*
 * 0: the guest is there, and its QEMU here has ended; in a dry run, the rounds have.  Otherwise as copy_run(), and the
 * receiver was told.
 */
int migrate_run(struct migrate *m);
void migrate_close(struct migrate *m);

#endif
