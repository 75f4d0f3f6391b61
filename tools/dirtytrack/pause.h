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

struct pause;

/**
 * struct pause_ops - a way to pause
 * @pause: pause the guest, and return when it writes no more; interrupted work
 *	returns -EINTR
 * @resume: let it run, if it ran before; also after @pause failed, and in a forked
 *	child after the parent's death
 * @free: free what the constructor made
 *
 * Those that return int return 0, or a message and -errno.
 */
struct pause_ops {
	int (*pause)(struct pause *p);
	int (*resume)(struct pause *p);
	void (*free)(struct pause *p);
};

/* Embedded in what a constructor makes. */
struct pause {
	const struct pause_ops *ops;
	bool paused;		/* pause_begin() was called, pause_end() was not */
	int guard_fd;
	pid_t guard_pid;
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

int pause_begin(struct pause *p);
int pause_end(struct pause *p);
/* Ends the pause, if there is one, and the guard. */
void pause_free(struct pause *p);

#endif
