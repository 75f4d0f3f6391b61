/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The secondary of a replicated guest: holds its slots and the store of its epochs, has
 * nbdkit take them, and lets the guest run when it is told to, or has heard nothing of
 * the primary for too long (Documentation/replicate.rst).
 *
 * It is two processes.  One has all files and does nothing but start the other, again if
 * it is killed; if it is killed itself, the other one goes on.
 */
#ifndef SECONDARY_H
#define SECONDARY_H

#include <pthread.h>
#include <stdbool.h>

#include "../nbdkit/store.h"
#include "incoming-options.h"
#include "incoming.h"
#include "listen.h"

/**
 * struct secondary - a secondary
 * @opts: its slots and QEMU, and how to serve
 * @fence: command by which the primary's guest is certain not to run; or NULL
 * @undo: what others write to the slots is undone by each epoch
 * @silence: seconds after which a primary that is connected, but silent, is gone
 * @automatic: take over when the primary was not heard of for so many seconds; 0: never
 *
 * The others are secondary_run()'s.
 */
struct secondary {
	struct incoming_options opts;
	const char *fence;
	bool undo;
	double silence;
	double automatic;

	pid_t supervisor;
	bool orphan;		/* that was killed */
	struct listener listener;
	struct store_files files;
	struct store_head *head;
	struct incoming qemu;
	pthread_t starter;	/* starts it */
	bool starting;
	bool started;		/* by @starter, which has ended or is about to */
	int start_error;
	bool waited;		/* one has been started */
	double qemu_began;	/* when the last one was begun, */
	double qemu_next;	/* and the next may be */
	pid_t old_qemu;		/* of a worker that was killed, until it is dead */
	int guest_fd;		/* pidfd of a guest that another one let run; or -1 */
	bool asked;		/* to take over, by somebody */
	double tried;		/* when it last tried to take over by itself */
	double server_began;
	unsigned int servers;	/* started, and not alive for long */
	unsigned int qemus;
};

/* Until the guest that was let run here ends, or it is interrupted.  The exit status. */
int secondary_run(struct secondary *s);

#endif
