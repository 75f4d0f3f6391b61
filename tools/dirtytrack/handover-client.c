// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "handover-client.h"
#include "interrupt.h"
#include "msg.h"
#include "nbd-client.h"
#include "units.h"

/* Bytes of state that are sent at once. */
#define STATE_CHUNK (1024 * 1024)

struct handover {
	char *uri;		/* of the server */
	char *control_uri;
	double timeout;
	struct nbd_handle *nbd;	/* the control export */
	struct nbd_handle *state;	/* the state's, or NULL */
	uint8_t session[HANDOVER_SESSION_LEN];
};

static int read_status(struct handover *h, struct handover_status *status)
{
	int64_t cookie = nbd_aio_pread(h->nbd, status, sizeof(*status), 0,
				       NBD_NULL_COMPLETION, 0);
	int ret = nbd_client_wait(h->nbd, cookie, now() + h->timeout);

	if (ret)
		return ret;
	status->message[sizeof(status->message) - 1] = '\0';
	if (le64toh(status->magic) != HANDOVER_MAGIC)
		return -ENOPROTOOPT;
	return le32toh(status->version) == HANDOVER_VERSION ? 0 : -EPROTO;
}

/* Its error is still libnbd's, if it has one. */
static int explain(const struct handover *h, int err)
{
	switch (err) {
	case -EINTR:
		break;
	case -ETIMEDOUT:
		msg_error("%s: the receiver does not answer", h->uri);
		break;
	case -EPROTO:
		msg_error("%s: the receiver is of another version", h->uri);
		break;
	case -ENOPROTOOPT:
		msg_error("%s: it is no receiver (dirtytrack receive)", h->uri);
		break;
	default:
		msg_error("%s: it is no receiver, or not there (dirtytrack receive): %s",
			  h->uri, nbd_get_error());
	}
	return err;
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
	if (!h->control_uri)
		goto fail;
	ret = nbd_client_open(&h->nbd, h->control_uri);
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
	nbd_client_close(h->state);
	nbd_client_close(h->nbd);
	free(h->control_uri);
	free(h->uri);
	free(h);
}

/* Is it connected, to a server that lives? */
static bool is_connected(struct nbd_handle *nbd)
{
	return nbd && nbd_poll(nbd, 0) >= 0 && nbd_aio_is_ready(nbd) > 0;
}

int handover_prepare(struct handover *h)
{
	char *uri;
	int ret;

	if (is_connected(h->state))
		return 0;
	nbd_client_close(h->state);
	h->state = NULL;
	uri = nbd_uri_export(h->uri, HANDOVER_STATE);
	ret = uri ? nbd_client_open(&h->state, uri) : -ENOMEM;
	free(uri);
	return ret ? explain(h, ret) : 0;
}

static int put_chunks(struct handover *h, int fd, uint64_t size, char *buf)
{
	uint64_t pos = 0;

	while (pos < size) {
		size_t len = size - pos < STATE_CHUNK ? size - pos :
							STATE_CHUNK;
		ssize_t n = pread(fd, buf, len, pos);
		int64_t cookie;
		int ret;

		if (n <= 0) {
			ret = n ? -errno : -EIO;
			msg_errno(ret, "device state: cannot read it");
			return ret;
		}
		cookie = nbd_aio_pwrite(h->state, buf, n, pos,
					NBD_NULL_COMPLETION, 0);
		ret = nbd_client_wait(h->state, cookie, now() + h->timeout);
		if (ret)
			return explain(h, ret);
		pos += n;
	}
	return 0;
}

int handover_put_state(struct handover *h, int fd, uint64_t size)
{
	char *buf = malloc(STATE_CHUNK);
	int ret = -ENOMEM;

	if (buf)
		ret = handover_prepare(h);
	else
		msg_errno(ret, "device state");
	if (!ret)
		ret = put_chunks(h, fd, size, buf);
	free(buf);
	return ret;
}

/* A server that was started again while nothing was said: nothing was lost. */
static int connect_again(struct handover *h)
{
	double deadline = now() + h->timeout;
	int ret;

	if (is_connected(h->nbd))
		return 0;
	for (;;) {
		nbd_client_close(h->nbd);
		h->nbd = NULL;
		ret = nbd_client_open(&h->nbd, h->control_uri);
		if (!ret || interrupted || now() > deadline)
			return ret;
		usleep(100000);
	}
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
	int64_t cookie;
	int ret;

	ret = connect_again(h);
	if (ret)
		return ret;
	memcpy(command.session, h->session, sizeof(h->session));
	cookie = nbd_aio_pwrite(h->nbd, &command, sizeof(command), 0,
				NBD_NULL_COMPLETION, 0);
	ret = nbd_client_wait(h->nbd, cookie, now() + h->timeout);
	/* It answered with an error if it is still there to say which. */
	if (!ret || ret == -EINTR || ret == -ETIMEDOUT ||
	    nbd_aio_is_ready(h->nbd) <= 0 || read_status(h, &status))
		return ret;
	msg_error("%s: %s", h->uri, status.message);
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

static bool is_ours(const struct handover *h,
		    const struct handover_status *status)
{
	return !memcmp(status->session, h->session, sizeof(h->session));
}

/* One try, on a new connection: the old one may have half of something. */
static enum handover_owner try_settle(struct handover *h)
{
	struct handover_status status;
	enum handover_owner owner = OWNER_UNKNOWN;

	nbd_client_close(h->nbd);
	h->nbd = NULL;
	if (nbd_client_open(&h->nbd, h->control_uri))
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
