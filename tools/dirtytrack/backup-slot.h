/* SPDX-License-Identifier: GPL-2.0-only */
/* One slot of those whose versions dirtytrack backup makes: where they go, and what is kept. */
#ifndef BACKUP_SLOT_H
#define BACKUP_SLOT_H

#include <stdbool.h>

#include "chain.h"
#include "engine.h"
#include "pipeline.h"
#include "qemu-nbd.h"
#include "source-kept.h"

/**
 * struct backup_slot - a slot, between two versions
 * @ref: as the user names it
 * @uri: where its versions go, or NULL: to files
 * @chain: those
 * @dir: of the socket of who writes them
 * @src: its memory, and what has to go into the next version
 * @fresh: that is everything, there having been none
 *
 * Those of the version at work:
 *
 * @full: it has all of the memory
 * @file: where it goes to, for people
 * @server: who writes the file
 * @stats: of its copy
 */
struct backup_slot {
	const char *ref;
	char *uri;
	struct chain chain;
	char dir[64];
	struct source_kept src;
	bool fresh;

	bool full;
	char *file;
	struct qemu_nbd server;
	struct pipeline_stats stats;
};

/* Those that return int return 0, or a message and -errno. */

/*
 * Where versions of slot @ref go: @target is a directory, FILE.qcow2, or an NBD URI; with
 * @several slots, one of a server with exports of their names.  Nothing is opened that a
 * child could not have.
 */
int backup_slot_init(struct backup_slot *s, const char *ref,
		     const char *target, bool several);
/* Begin to track it, and see what is there already. */
int backup_slot_open(struct backup_slot *s);
/* Has the version before gone?  Then the next one is full, and that is said. */
void backup_slot_check(struct backup_slot *s);

/*
 * Begin a version, of all memory if @full, or if it has to be; @move is its copy, with a
 * pipeline by these options.
 */
int backup_slot_begin(struct backup_slot *s, bool full,
		      struct copy_move *move, unsigned int connections,
		      const struct pipeline_options *opts);
/* All is copied: bring it to storage. */
int backup_slot_store(struct backup_slot *s, struct copy_move *move);
/* It gets its name. */
int backup_slot_commit(struct backup_slot *s);
/* The version is there, that of all slots. */
void backup_slot_done(struct backup_slot *s);
/* It is not, and its copy was ended: nothing is left of it. */
void backup_slot_abort(struct backup_slot *s, unsigned int number);
/* After that: what it had taken goes into the next one. */
void backup_slot_undo(struct backup_slot *s);
/* Ends the copy, however far it is. */
void backup_slot_end_copy(struct copy_move *move);

/* Also when it is not open, or not any more. */
void backup_slot_close(struct backup_slot *s);
/* In a guard, the process that had it open being dead. */
void backup_slot_clean_after(struct backup_slot *s);

#endif
