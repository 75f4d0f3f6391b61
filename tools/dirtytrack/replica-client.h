/* SPDX-License-Identifier: GPL-2.0-only */
/* Of a secondary, who sends it epochs or has it take over: see ../nbdkit/replica.h. */
#ifndef REPLICA_CLIENT_H
#define REPLICA_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "../nbdkit/store.h"

struct replica;

/**
 * struct replica_state - how a secondary is
 * @phase: who has the guest
 * @committed: its last epoch, 0 for none
 * @ours: the last who attached was this process
 * @attached: somebody replicates to it
 * @unheard: seconds since it heard of him; 0 for never
 * @message: why the last command failed
 * @undone: pages that others had written to its slots, and that were restored
 * @late: of those, pages written while others were to stand still
 */
struct replica_state {
	enum store_phase phase;
	uint64_t committed;
	bool ours;
	bool attached;
	double unheard;
	char message[STORE_MESSAGE_LEN];
	uint64_t undone;
	uint64_t late;
};

/*
 * Those that return int return 0, or a message and -EREMOTEIO, the secondary having
 * refused; or without a message another error: it is not known whether the command
 * arrived.  replica_explain() says what that was.
 */

/* For the secondary at @uri, which names no export.  NULL after a message. */
struct replica *replica_new(const char *uri, double timeout);
void replica_free(struct replica *r);

/* Connect, again if need be. */
int replica_connect(struct replica *r, struct replica_state *state);
void replica_disconnect(struct replica *r);
/* Shows that this side lives, too. */
int replica_ask(struct replica *r, struct replica_state *state);
/*
 * Be the one who sends, whose guest stands still when nothing was heard of the secondary
 * for @lease seconds (0: it does not).  What was sent for an epoch that is not committed is
 * forgotten.  Connections to slots are to be made after that.  It is refused if the last epoch
 * there is not @committed, by which was decided what is to be sent.
 */
int replica_attach(struct replica *r, double lease, uint64_t committed);
int replica_detach(struct replica *r);
/* The state of an epoch's devices, from @fd.  @heard is called whenever we were heard of. */
int replica_put_state(struct replica *r, int fd, uint64_t size,
		      void (*heard)(void *arg), void *arg);
/* It is complete. */
int replica_commit(struct replica *r, uint64_t number,
		   const struct store_epoch *epoch);
/* Begin to let the guest run there.  @force: it certainly runs nowhere else. */
int replica_failover(struct replica *r, bool force);

/*
 * When the last request was sent, being attached, that was answered: the secondary has
 * heard of us since.  Monotonic seconds.
 */
double replica_heard(const struct replica *r);

/* A message for what had none, but for -EINTR.  Returns @err. */
int replica_explain(const struct replica *r, int err);

#endif
