// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <libnbd.h>

#include "handover-client.h"
#include "interrupt.h"
#include "msg.h"
#include "nbd-client.h"
#include "units.h"

struct handover {
	char *uri;		/* of the server */
	char *control_uri;
	char *state_uri;
	double timeout;
	double deadline;	/* of all answers; 0: none */
	struct nbd_handle *nbd;	/* the control export */
	struct nbd_handle *state;	/* the state's, or NULL */
	uint8_t session[HANDOVER_SESSION_LEN];
	uint8_t sender[HANDOVER_SENDER_LEN];	/* us */
	bool claimed;		/* and nothing more was asked for */
};

static double answer_by(const struct handover *h)
{
	double time = now() + h->timeout;

	return h->deadline && h->deadline < time ? h->deadline : time;
}

static int read_status(struct handover *h, struct handover_status *status)
{
	int ret = nbd_client_read(h->nbd, status, sizeof(*status),
				  answer_by(h));

	if (ret)
		return ret;
	status->message[sizeof(status->message) - 1] = '\0';
	if (le64toh(status->magic) != HANDOVER_MAGIC)
		return -ENOPROTOOPT;
	return le32toh(status->version) == HANDOVER_VERSION ? 0 : -EPROTO;
}

static bool is_ours(const struct handover *h,
		    const struct handover_status *status)
{
	return !memcmp(status->session, h->session, sizeof(h->session));
}

static int explain(const struct handover *h, int err)
{
	return nbd_client_explain(h->uri, "receiver", "dirtytrack receive", err);
}

/* Before anything is sent: memory of two senders would be mixed. */
static int claim(struct handover *h)
{
	int ret;

	if (getrandom(h->sender, sizeof(h->sender), 0) != sizeof(h->sender)) {
		ret = -errno;
		msg_errno(ret, "%s", h->uri);
		return ret;
	}
	ret = handover_command(h, HANDOVER_CLAIM, 0);
	h->claimed = !ret;
	return explain(h, ret);
}

int handover_open(struct handover **out, const char *uri, double timeout)
{
	struct handover *h = calloc(1, sizeof(*h));
	struct handover_status status;
	int ret = -ENOMEM;

	if (h)
		h->uri = strdup(uri);
	if (!h || !h->uri) {
		msg_errno(ret, "%s", uri);
		goto fail;
	}
	h->timeout = timeout;
	ret = -EINVAL;
	h->control_uri = nbd_uri_export(uri, HANDOVER_CONTROL);
	h->state_uri = nbd_uri_export(uri, HANDOVER_STATE);
	if (!h->control_uri || !h->state_uri)
		goto fail;
	ret = nbd_client_open(&h->nbd, h->control_uri, answer_by(h));
	if (!ret)
		ret = read_status(h, &status);
	if (ret) {
		explain(h, ret);
		goto fail;
	}
	if (le32toh(status.phase) != HANDOVER_RECEIVING) {
		msg_error("%s: it has a guest already, or has given up", uri);
		ret = -EBUSY;
		goto fail;
	}
	memcpy(h->session, status.session, sizeof(h->session));
	ret = claim(h);
	if (ret)
		goto fail;
	*out = h;
	return 0;

fail:
	handover_close(h);
	return ret;
}

void handover_close(struct handover *h)
{
	if (!h)
		return;
	/* Somebody else may have it, or who starts this again. */
	if (h->claimed)
		handover_done(h);
	nbd_client_close(h->state);
	nbd_client_close(h->nbd);
	free(h->control_uri);
	free(h->state_uri);
	free(h->uri);
	free(h);
}

/* A server that was started again while nothing was said: nothing was lost. */
static int connect_again(struct nbd_handle **nbd, const char *uri,
			 double deadline)
{
	int ret;

	if (nbd_client_is_ready(*nbd))
		return 0;
	for (;;) {
		nbd_client_close(*nbd);
		*nbd = NULL;
		ret = nbd_client_open(nbd, uri, deadline);
		if (!ret || interrupted || now() > deadline)
			return ret;
		usleep(100000);
	}
}

int handover_prepare(struct handover *h)
{
	double deadline = answer_by(h);
	struct handover_status status;
	int ret;

	ret = connect_again(&h->state, h->state_uri, deadline);
	if (!ret)
		ret = connect_again(&h->nbd, h->control_uri, deadline);
	if (!ret)
		ret = read_status(h, &status);
	if (ret)
		return explain(h, ret);
	if (le32toh(status.phase) == HANDOVER_RECEIVING && is_ours(h, &status))
		return 0;
	msg_error("%s: the receiver has given up%s%s", h->uri,
		  *status.message ? ": " : "", status.message);
	return -EREMOTEIO;
}

/*
 * A write that was not answered is written again: the file that it goes to outlives the
 * server.
 */
int handover_put_state(struct handover *h, const void *buf, size_t len,
		       uint64_t pos)
{
	double deadline = answer_by(h);
	int64_t cookie;
	int ret;

	do {
		ret = connect_again(&h->state, h->state_uri, deadline);
		if (ret)
			break;
		cookie = nbd_aio_pwrite(h->state, buf, len, pos,
					NBD_NULL_COMPLETION, 0);
		ret = nbd_client_wait(h->state, cookie, deadline);
	} while (ret && !nbd_client_is_ready(h->state) && !interrupted &&
		 now() < deadline);
	return explain(h, ret);
}

int handover_command(struct handover *h, enum handover_verb verb, uint64_t size)
{
	struct handover_command command = {
		.magic = htole64(HANDOVER_MAGIC),
		.version = htole32(HANDOVER_VERSION),
		.verb = htole32(verb),
		.size = htole64(size),
	};
	struct handover_status status;
	int ret;

	ret = connect_again(&h->nbd, h->control_uri, answer_by(h));
	if (ret)
		return ret;
	memcpy(command.session, h->session, sizeof(h->session));
	memcpy(command.sender, h->sender, sizeof(h->sender));
	h->claimed = false;
	ret = nbd_client_write(h->nbd, &command, sizeof(command), answer_by(h));
	/* It answered with an error if it is still there to say which. */
	if (!ret || ret == -EINTR || ret == -ETIMEDOUT ||
	    nbd_aio_is_ready(h->nbd) <= 0 || read_status(h, &status))
		return ret;
	/* The server may have refused it, and the receiver know nothing of that. */
	msg_error("%s: %s", h->uri, *status.message ? status.message : strerror(-ret));
	return -EREMOTEIO;
}

void handover_done(struct handover *h)
{
	double timeout = h->timeout;

	if (!h->nbd || nbd_aio_is_ready(h->nbd) <= 0)
		return;
	h->timeout = 1;
	handover_command(h, HANDOVER_DONE, 0);
	h->timeout = timeout;
}

/* One try, on a new connection: the old one may have half of something. */
static enum handover_owner try_settle(struct handover *h)
{
	struct handover_status status;
	enum handover_owner owner = OWNER_UNKNOWN;

	nbd_client_close(h->nbd);
	h->nbd = NULL;
	if (nbd_client_open(&h->nbd, h->control_uri, answer_by(h)))
		return OWNER_UNKNOWN;
	/* The answer does not matter, what it has become does. */
	if (!read_status(h, &status) && is_ours(h, &status))
		handover_command(h, HANDOVER_ABORT, 0);
	if (nbd_aio_is_ready(h->nbd) > 0 && !read_status(h, &status) &&
	    is_ours(h, &status)) {
		if (le32toh(status.phase) == HANDOVER_RUNNING)
			owner = OWNER_THERE;
		else if (le32toh(status.phase) == HANDOVER_ABORTED)
			owner = OWNER_HERE;
	}
	return owner;
}

enum handover_owner handover_settle(struct handover *h, double seconds)
{
	double deadline = now() + seconds;
	/* Whoever wants us to stop wants the guest to be somewhere. */
	sig_atomic_t signal = interrupted;
	enum handover_owner owner;

	for (;;) {
		interrupted = 0;
		owner = try_settle(h);
		if (owner != OWNER_UNKNOWN || now() > deadline)
			break;
		usleep(200000);
	}
	if (!interrupted)
		interrupted = signal;
	return owner;
}

void handover_abort(struct handover *h, double seconds)
{
	h->deadline = now() + seconds;
	handover_settle(h, seconds);
	h->deadline = 0;
}
