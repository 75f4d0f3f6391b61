/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One at a time has a guest paused: who comes second waits.  Otherwise the first to resume
 * it would do so under the other, whose copy would be torn, or who is handing it over.
 *
 * The lock is on the guest's process, so all ways to pause that know it keep to it,
 * whichever slots they are about.
 */
#ifndef PAUSE_LOCK_H
#define PAUSE_LOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PAUSE_LOCK_MAX 64

/**
 * struct pause_lock - of processes that are paused together
 * @fds: their directories in /proc, by process id
 * @pids: those
 * @nr: how many
 * @taken: of how many we have the lock
 */
struct pause_lock {
	int fds[PAUSE_LOCK_MAX];
	pid_t pids[PAUSE_LOCK_MAX];
	size_t nr;
	size_t taken;
};

/* A process that cannot be found is left out: to find that out is others' business. */
void pause_lock_add(struct pause_lock *l, pid_t pid);
/* Waits for those who have it.  0, or -EINTR. */
int pause_lock_take(struct pause_lock *l);
/*
 * Forked processes have it together: it is free when one of them drops it, or when all
 * have ended.
 */
void pause_lock_drop(struct pause_lock *l);
void pause_lock_close(struct pause_lock *l);

#endif
