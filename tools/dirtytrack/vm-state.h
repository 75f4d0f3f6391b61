/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The state of QEMU's devices: what its migration moves when shared memory is not its
 * business (the capability x-ignore-shared).  It goes through a pipe of which QEMU has
 * the other end.
 *
 * A guest stands still meanwhile.  So all that can be said to QEMU before is said by
 * vm_state_prepare(), and QEMU says by itself when it is done.
 */
#ifndef VM_STATE_H
#define VM_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct qmp;

enum vm_state_way {
	VM_STATE_SAVE,
	VM_STATE_LOAD,
};

/**
 * struct vm_state - the state on its way
 * @qmp: QEMU; NULL when nothing is prepared
 * @fd: our end of the pipe, or -1
 * @over: QEMU has said how it ended
 * @failed: and that was not well
 *
 * The others are of the thread that takes what QEMU saves.
 */
struct vm_state {
	struct qmp *qmp;
	int fd;
	bool over;
	bool failed;

	pthread_t reader;
	bool reading;
	atomic_bool stop;
	int (*put)(void *arg, const void *buf, size_t len);
	void *put_arg;
	double deadline;
	int error;
};

/* Those that return int return 0, or a message and -errno; -EINTR without one. */

/* Could its state be saved without its memory?  Nothing is changed. */
int vm_state_check(struct qmp *qmp);
/*
 * Before anything else, when the guest may still run; for loading it runs in another QEMU,
 * and this one waits for a guest (-incoming defer).  No process may be forked from here on
 * that lives longer than the state's way.  Whatever comes of it, QEMU leaves shared memory
 * out of all that it migrates from here on, until vm_state_reset().
 */
int vm_state_prepare(struct vm_state *s, struct qmp *qmp, enum vm_state_way way);
/*
 * Have QEMU save, the guest standing still.  This may write to guest memory.  @put gets
 * it, piece by piece, in another thread, while the caller does other things, all of it in
 * @timeout seconds.
 */
int vm_state_save(struct vm_state *s,
		  int (*put)(void *arg, const void *buf, size_t len),
		  void *arg, double timeout);
/* Wait until that is done: guest memory is not written to after it. */
int vm_state_saved(struct vm_state *s);
/*
 * After that, for a guest that is to go on here: wait until QEMU would resume it, which it
 * refuses for a moment.
 */
int vm_state_settle(struct vm_state *s);
/* Load @size bytes from @fd, a file, within @timeout seconds. */
int vm_state_load(struct vm_state *s, int fd, uint64_t size, double timeout);
/*
 * When it is known where the guest goes on, to the QEMU that has it: what that migrates, or
 * snapshots, some time is to have all memory.
 */
void vm_state_reset(struct qmp *qmp);
/* Ends what is under way here; QEMU notices. */
void vm_state_close(struct vm_state *s);

/*
 * Whatever QEMU has begun to save is given up, and the guest can be resumed after this.
 * For who knows nothing of a struct vm_state, too; one that there is was closed before.
 */
void vm_state_cancel(struct qmp *qmp, double timeout);

#endif
