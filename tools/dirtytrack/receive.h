/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The receiver of a guest: holds its slots, has nbdkit serve them and a QEMU wait for
 * the rest, and is the one who knows who has the guest (../nbdkit/handover.h).
 */
#ifndef RECEIVE_H
#define RECEIVE_H

#include <stdbool.h>

#include "../nbdkit/handover.h"
#include "incoming-options.h"
#include "incoming.h"
#include "listen.h"

/**
 * struct receive - a receiver
 * @opts: what it is to do
 *
 * The others are receive_run()'s.
 */
struct receive {
	struct incoming_options opts;

	struct listener listener;
	struct incoming qemu;
	int state;		/* a file with the device state */
	enum handover_phase phase;
	bool paused;		/* the guest is to be left so */
	bool settled;		/* it is here, and its QEMU is like any other */
	bool done;		/* the sender knows how it ended */
	bool seen;		/* there was a sender */
	unsigned int clients;
	double since;		/* there is none, or the phase is final */
	uint8_t session[HANDOVER_SESSION_LEN];
	uint8_t sender[HANDOVER_SENDER_LEN];
	bool claimed;		/* by @sender */
	char message[HANDOVER_MESSAGE_LEN];
};

/* Until QEMU ends.  The exit status. */
int receive_run(struct receive *r);

#endif
