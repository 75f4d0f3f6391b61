/* SPDX-License-Identifier: GPL-2.0-only */
/* The side of a handover that has the guest: see ../nbdkit/handover.h. */
#ifndef HANDOVER_CLIENT_H
#define HANDOVER_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "../nbdkit/handover.h"

struct handover;

/*
 * To the receiver at @uri, which names no export, and which takes memory from nobody else
 * from here on.  @timeout: seconds for the answer to a command.  0, or a message and -errno.
 */
int handover_open(struct handover **h, const char *uri, double timeout);
/* If no command was sent, others may have the receiver. */
void handover_close(struct handover *h);

/*
 * Right before the pause: is the receiver ready, and are we connected?  The guest would
 * stand still while that is done.  0, or a message and -errno.
 */
int handover_prepare(struct handover *h);
/*
 * Bring @len bytes of device state there.  May be called in another thread than the rest,
 * between handover_prepare() and a command.  0, or a message and -errno.
 */
int handover_put_state(struct handover *h, const void *buf, size_t len,
		       uint64_t pos);

/*
 * A command.  0; or a message and -EREMOTEIO, the receiver having refused it; or,
 * without a message, another error: it is not known whether the command arrived.
 */
int handover_command(struct handover *h, enum handover_verb verb,
		     uint64_t size);

/* It is known how it ended: the receiver need not wait for questions. */
void handover_done(struct handover *h);

/* Who has the guest. */
enum handover_owner {
	OWNER_HERE,
	OWNER_THERE,
	OWNER_UNKNOWN,
};

/*
 * After a RUN of which nothing is known: the receiver is to give up, unless it is too
 * late.  Tries for @seconds.
 */
enum handover_owner handover_settle(struct handover *h, double seconds);
/*
 * The same when there was no RUN: the receiver is to give up, and when it says so, its QEMU
 * has ended.  That takes @seconds at most, whatever its answers take.
 */
void handover_abort(struct handover *h, double seconds);

#endif
