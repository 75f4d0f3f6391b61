/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the guest is paused and resumed.
 *
 * A pause has one rule: whatever happens after pause_begin() was called, also if
 * it failed half way, the guest runs again in the end.  pause_end() does that, and
 * when this process dies without a chance to call it, a child does: the guard,
 * which waits for the end of a pipe that only this process writes to.
 */
#ifndef PAUSE_H
#define PAUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "guard.h"
#include "pause-lock.h"

struct pause;
struct qmp;

/**
 * struct pause_ops - a way to pause
 * @prepare: unless NULL, finds out whether the guest runs, right before @pause, and when
 *	the guard is started
 * @pause: pause the guest, and return when it writes no more; interrupted work
 *	returns -EINTR
 * @resume: let it run, if it ran before; also after @pause failed, and in a forked
 *	child after the parent's death
 * @free: free what the constructor made
 *
 * Those that return int return 0, or a message and -errno.
 */
struct pause_ops {
	int (*prepare)(struct pause *p);
	int (*pause)(struct pause *p);
	int (*resume)(struct pause *p);
	void (*free)(struct pause *p);
};

/**
 * struct pause - embedded in what a constructor makes
 * @ops: the way
 * @lock: of the guest, if it can be known
 * @idle: somebody else had the guest paused before, and has reasons: it is not resumed
 * @prepared: pause_prepare() was called, and we have the lock
 * @paused: pause_begin() was called, pause_end() and pause_leave() were not
 * @lent: pause_lend() was called: @undo is to get it back
 * @guard: does what has to be done when this process is killed
 * @settle: for a guest that is handed over: called in the guard when this process
 *	was killed after pause_commit(): is the guest to be resumed here?
 * @undo: unless NULL, called before the guest is resumed, also in the guard
 * @resumed: unless NULL, called in the guard after it has resumed the guest, which does not
 *	wait for that; also when it could not be, or is not to be
 * @arg: for these
 * @fence: set before pause_guard(): when this process is killed, the guest is to be
 *	paused, not resumed: somebody else lets it run then
 */
struct pause {
	const struct pause_ops *ops;
	struct pause_lock lock;
	bool idle;
	bool prepared;
	bool paused;
	bool lent;
	struct guard guard;
	bool (*settle)(struct pause *p);
	void (*undo)(struct pause *p);
	void (*resumed)(struct pause *p);
	void *arg;
	bool fence;
};

/* Each returns NULL after a message. */
struct pause *pause_by_qmp(const char *path, double timeout);
struct pause *pause_by_signal(const pid_t *pids, size_t nr, double timeout);
struct pause *pause_by_command(const char *pause_cmd, const char *resume_cmd);

/*
 * Start the guard.  To be called before anything is opened that must not outlive
 * this process.  0, or a message and -errno.
 */
int pause_guard(struct pause *p);

/* Of a pause by QMP: its connection, for other commands. */
struct qmp *pause_qmp(const struct pause *p);

/*
 * Right before pause_begin(), which then takes less time: wait until nobody else has the
 * guest paused.  0, or a message and -errno.
 */
int pause_prepare(struct pause *p);
int pause_begin(struct pause *p);
/*
 * Instead: the guest must stand still, whoever else has it paused, and whatever cannot be
 * found out, or has become of the guard.
 */
int pause_fence(struct pause *p);
/* Also of what was only prepared. */
int pause_end(struct pause *p);
/*
 * From here on somebody else may have what the guest needs to go on here, such as its disks.
 * 0, or a message and -errno.
 */
int pause_lend(struct pause *p);
/*
 * From here on the guest may run elsewhere, so that it is not known to a guard whether
 * it may be resumed.  0, or a message and -errno.
 */
int pause_commit(struct pause *p);
/* The end of the pause, the guest being elsewhere, or nobody knows where. */
void pause_leave(struct pause *p);
/* Ends the pause, if there is one, and the guard. */
void pause_free(struct pause *p);

#endif
