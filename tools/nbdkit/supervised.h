/* SPDX-License-Identifier: GPL-2.0-only */
/* A plugin that serves what another process holds must not go on when that is dead. */
#ifndef SUPERVISED_H
#define SUPERVISED_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>

/*
 * By SIGKILL: nbdkit itself asks for SIGTERM when it is given sockets, and ends by that when
 * its clients have left.  @control is the socket to the supervisor, of which this tells
 * whether he was dead before.  To be called in the main thread.
 */
static inline bool die_with_supervisor(int control)
{
	struct pollfd fd = { .fd = control };

	return !prctl(PR_SET_PDEATHSIG, SIGKILL) && poll(&fd, 1, 0) == 0;
}

#endif
