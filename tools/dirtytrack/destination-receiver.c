// SPDX-License-Identifier: GPL-2.0-only
/* To a "dirtytrack receive", by NBD. */
#include <errno.h>
#include <stdlib.h>

#include "destination.h"
#include "interrupt.h"
#include "msg.h"
#include "nbd-client.h"
#include "target.h"

struct destination_receiver {
	struct destination base;
	struct handover *handover;
};

static struct handover *to_handover(struct destination *d)
{
	return ((struct destination_receiver *)d)->handover;
}

static struct target *nbd_target(struct destination *d, const char *name,
				 uint64_t npages, unsigned int lanes)
{
	char *uri = nbd_uri_export(d->name, name);
	struct target *t;

	if (!uri)
		return NULL;
	t = target_nbd(uri, npages, lanes);
	free(uri);
	return t;
}

/* Connections may have been lost since they were made. */
static int prepare(struct destination *d)
{
	return handover_prepare(to_handover(d));
}

static int put_state(struct destination *d, const void *buf, size_t len,
		     uint64_t pos)
{
	return handover_put_state(to_handover(d), buf, len, pos);
}

static int load(struct destination *d, uint64_t size)
{
	int ret = handover_command(to_handover(d), HANDOVER_LOAD, size);

	if (ret && ret != -EREMOTEIO && ret != -EINTR)
		msg_error("%s: the receiver is gone", d->name);
	return ret;
}

static int run(struct destination *d, bool paused)
{
	return handover_command(to_handover(d), HANDOVER_RUN, paused);
}

static enum handover_owner settle(struct destination *d, double seconds)
{
	return handover_settle(to_handover(d), seconds);
}

static void abort_receiver(struct destination *d, double seconds)
{
	handover_abort(to_handover(d), seconds);
}

/* A receiver that is told need not wait for us to come back. */
static void end(struct destination *d, bool there)
{
	sig_atomic_t signal = interrupted;

	interrupted = 0;
	if (!there)
		handover_settle(to_handover(d), 0);
	handover_done(to_handover(d));
	interrupted = signal;
}

static void close_receiver(struct destination *d)
{
	handover_close(to_handover(d));
	free(d);
}

static const struct destination_ops ops = {
	.target = nbd_target,
	.prepare = prepare,
	.put_state = put_state,
	.load = load,
	.run = run,
	.settle = settle,
	.abort = abort_receiver,
	.end = end,
	.close = close_receiver,
};

struct destination *destination_receiver(const char *uri, double timeout)
{
	struct destination_receiver *r = calloc(1, sizeof(*r));

	if (!r) {
		msg_errno(ENOMEM, "%s", uri);
		return NULL;
	}
	r->base.ops = &ops;
	if (handover_open(&r->handover, uri, timeout)) {
		free(r);
		return NULL;
	}
	return &r->base;
}
