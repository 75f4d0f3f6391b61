/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guard: a child that does what its parent cannot do any more when that is killed.
 *
 * It waits for the end of a pipe that only the parent writes to, and what was written
 * last tells it what is to be done then.
 */
#ifndef GUARD_H
#define GUARD_H

#include <sys/types.h>

struct guard {
	int fd;
	pid_t pid;	/* 0: there is none */
};

/*
 * Start it.  @act is called in the child when the parent is dead, with the last letter
 * that it was told, unless that is 0.  To be called before anything is opened that
 * must not outlive the parent.  0, or a message and -errno.
 */
int guard_start(struct guard *g, void (*act)(void *arg, char state), void *arg);
/* 0; or -errno when the guard is gone.  Without a guard, 0. */
int guard_tell(struct guard *g, char state);
/* To be called when there is nothing left to be done. */
void guard_end(struct guard *g);

#endif
