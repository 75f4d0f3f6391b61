/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A QEMU that waits for a guest, as a child of this process, with its memory on slots of
 * ours, and a guard that knows what is to become of it when this process is killed.
 */
#ifndef INCOMING_H
#define INCOMING_H

#include <stdbool.h>
#include <sys/types.h>

#include "guard.h"
#include "vm-state.h"

struct qmp;
struct slot_args;

/**
 * struct incoming - a QEMU that waits
 * @argv: it, with the paths of the slots in its arguments
 * @slots: its memory
 * @timeout: seconds for an answer
 * @promised: unless NULL, asked by the guard what incoming_promise() tells it otherwise
 * @arg: for @promised
 *
 * The others are between incoming_start() and incoming_end().
 */
struct incoming {
	char **argv;
	const struct slot_args *slots;
	double timeout;
	bool (*promised)(const struct incoming *in, void *arg);
	void *arg;

	struct qmp *qmp;
	struct guard starter;	/* the one until @guard, which is told of QMP */
	struct guard guard;
	struct vm_state state;	/* to be loaded */
	pid_t pid;		/* 0: none, or it has ended */
	int pidfd;
	int status;		/* of waitpid() */
};

/*
 * Start it, and see that it is what it is to be: waiting, with all of its shared memory on
 * the slots.  From here on, until it is promised, it does not outlive this process.  0, or
 * a message and -errno; incoming_end() is to be called in either case.
 */
int incoming_start(struct incoming *in);

/*
 * Others are about to believe that the guest runs here: if this process is killed from
 * here on, its guard lets it.  0, or -errno without a message.
 */
int incoming_promise(struct incoming *in);
/*
 * Lets the guest run.  It may, whatever the answer: to be interrupted is too late, before
 * and after.  0, or a message and -errno.
 */
int incoming_cont(struct incoming *in);
/* It is to outlive this process, as it is. */
void incoming_leave(struct incoming *in);

/* It has ended, or is about to: wait for that, and note its status. */
void incoming_reap(struct incoming *in);
void incoming_kill(struct incoming *in);
/* After incoming_leave(), until it ends; signals are passed on.  The exit status. */
int incoming_wait(struct incoming *in);
/* Let go of what was opened for it. */
void incoming_end(struct incoming *in);

#endif
