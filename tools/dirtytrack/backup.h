/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Versions of slots, each as they were at one point in time, of which all but the first
 * have only what changed.
 */
#ifndef BACKUP_H
#define BACKUP_H

#include <signal.h>
#include <stdbool.h>
#include <time.h>

#include "backup-slot.h"
#include "copy-options.h"
#include "copy-report.h"
#include "engine.h"
#include "guard.h"
#include "pause-options.h"

#define MAX_BACKUP_SLOTS 64

/**
 * struct backup_version - a version at work, of all slots
 * @full: all slots are to be whole
 * @number: its number
 * @start: when it was begun
 * @at: the time that it shows
 * @opts: options of its copy
 * @copy: that
 * @moves: of the slots
 * @report: of it
 */
struct backup_version {
	bool full;
	unsigned int number;
	double start;
	time_t at;
	struct copy_options opts;
	struct copy copy;
	struct copy_move moves[MAX_BACKUP_SLOTS];
	struct copy_report report;
};

/**
 * struct backup - versions of slots
 * @refs: slots, as the user names them
 * @nr: how many
 * @target: where the versions go
 * @to_files: these are files
 * @incremental: after the first there are others, of what changed
 * @interval: seconds between them; 0 by signal only
 * @count: how many; 0 without end
 * @full_every: each of so many is a whole one; 0 never again
 * @retries: so many in a row may fail, and one more is an end
 * @after: shell command after each, or NULL
 * @pause_opts: how the guest is paused
 * @opts: options of the copies
 * @copy: limits of them
 * @show: says that there is a version; 0, or -errno
 * @show_arg: for it
 * @made: versions that there are
 *
 * The others are those of backup_run().
 */
struct backup {
	char **refs;
	unsigned int nr;
	const char *target;
	bool to_files;
	bool incremental;
	double interval;
	unsigned int count;
	unsigned int full_every;
	unsigned int retries;
	const char *after;
	struct pause_options pause_opts;
	struct copy_options opts;
	struct copy copy;
	int (*show)(struct backup *b, const struct backup_version *v);
	void *show_arg;
	unsigned int made;

	struct backup_slot slots[MAX_BACKUP_SLOTS];
	unsigned int nr_slots;	/* those of them that were begun with */
	struct guard guard;
	sigset_t signals;	/* blocked ones, while it waits */
	unsigned int changes;	/* versions since the last whole one */
	unsigned int failures;	/* in a row */
};

/*
 * Makes versions until there are @count, too many failed, or there is a signal.
 *
 * Return: the exit status.
 */
int backup_run(struct backup *b);

#endif
