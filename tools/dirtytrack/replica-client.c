// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "../nbdkit/replica.h"
#include "msg.h"
#include "nbd-client.h"
#include "replica-client.h"
#include "units.h"

struct replica {
	char *uri;		/* of the server */
	char *control_uri;
	char *state_uri;
	double timeout;
	struct nbd_handle *nbd;	/* the control export */
	struct nbd_handle *state;	/* the state's, or NULL */
	bool attached;		/* by this connection */
	double heard;
	uint8_t session[REPLICA_SESSION_LEN];
};

struct replica *replica_new(const char *uri, double timeout)
{
	struct replica *r = calloc(1, sizeof(*r));

	if (!r) {
		msg_errno(ENOMEM, "%s", uri);
		return NULL;
	}
	r->timeout = timeout;
	r->uri = strdup(uri);
	r->control_uri = nbd_uri_export(uri, REPLICA_CONTROL);
	r->state_uri = nbd_uri_export(uri, REPLICA_STATE);
	if (r->uri && r->control_uri && r->state_uri)
		return r;
	replica_free(r);
	return NULL;
}

void replica_disconnect(struct replica *r)
{
	nbd_client_close(r->state);
	nbd_client_close(r->nbd);
	r->state = r->nbd = NULL;
	r->attached = false;
}

void replica_free(struct replica *r)
{
	if (!r)
		return;
	replica_disconnect(r);
	free(r->state_uri);
	free(r->control_uri);
	free(r->uri);
	free(r);
}

double replica_heard(const struct replica *r)
{
	return r->heard;
}

/* What the secondary has heard of us as well, so that it will wait: @sent, or later. */
static void note_heard(struct replica *r, double sent)
{
	if (r->attached)
		r->heard = sent;
}

int replica_explain(const struct replica *r, int err)
{
	return nbd_client_explain(r->uri, "secondary", "dirtytrack secondary", err);
}

static int read_status(struct replica *r, struct replica_status *status)
{
	double sent = now();
	int ret = nbd_client_read(r->nbd, status, sizeof(*status),
				  sent + r->timeout);

	if (ret)
		return ret;
	note_heard(r, sent);
	status->message[sizeof(status->message) - 1] = '\0';
	if (le64toh(status->magic) != REPLICA_MAGIC)
		return -ENOPROTOOPT;
	return le32toh(status->version) == REPLICA_VERSION ? 0 : -EPROTO;
}

int replica_ask(struct replica *r, struct replica_state *state)
{
	static const uint8_t none[REPLICA_SESSION_LEN];
	struct replica_status status;
	int ret = read_status(r, &status);

	if (ret)
		return ret;
	state->phase = le32toh(status.phase);
	state->committed = le64toh(status.committed);
	state->ours = !memcmp(status.session, r->session, sizeof(r->session)) &&
		      memcmp(r->session, none, sizeof(none));
	state->attached = le32toh(status.attached);
	state->unheard = le64toh(status.unheard_ms) / 1000.0;
	memcpy(state->message, status.message, sizeof(state->message));
	state->undone = le64toh(status.undone);
	state->late = le64toh(status.late);
	return 0;
}

int replica_connect(struct replica *r, struct replica_state *state)
{
	int ret;

	replica_disconnect(r);
	ret = nbd_client_open(&r->nbd, r->control_uri, now() + r->timeout);
	return ret ? ret : replica_ask(r, state);
}

/* It answered with an error, @err, if it is still there to say which. */
static int ask_why(struct replica *r, int err)
{
	struct replica_status status;

	if (err == -EINTR || err == -ETIMEDOUT || nbd_aio_is_ready(r->nbd) <= 0 ||
	    read_status(r, &status))
		return err;
	msg_error("%s: %s", r->uri, status.message);
	return -EREMOTEIO;
}

static int do_command(struct replica *r, struct replica_command *c)
{
	double sent = now();
	int ret;

	if (!r->nbd)
		return -ENOTCONN;
	c->magic = htole64(REPLICA_MAGIC);
	c->version = htole32(REPLICA_VERSION);
	memcpy(c->session, r->session, sizeof(r->session));
	ret = nbd_client_write(r->nbd, c, sizeof(*c), sent + r->timeout);
	if (ret)
		return ask_why(r, ret);
	note_heard(r, sent);
	return 0;
}

int replica_attach(struct replica *r, double lease, uint64_t committed)
{
	struct replica_command c = {
		.verb = htole32(REPLICA_ATTACH),
		.lease_ms = htole32(lease * 1000),
	};
	struct replica_status status;
	int ret = do_command(r, &c);

	if (ret)
		return ret;
	/* The command was heard, but before this was known. */
	r->attached = true;
	ret = read_status(r, &status);
	if (ret)
		return ret;
	if (le64toh(status.committed) != committed) {
		msg_error("%s: it came to another epoch meanwhile", r->uri);
		return -EREMOTEIO;
	}
	memcpy(r->session, status.session, sizeof(r->session));
	return nbd_client_open(&r->state, r->state_uri, now() + r->timeout);
}

int replica_detach(struct replica *r)
{
	struct replica_command c = { .verb = htole32(REPLICA_DETACH) };

	return do_command(r, &c);
}

struct heard {
	struct replica *replica;
	void (*heard)(void *arg);
	void *arg;
};

static void on_answered(void *arg, double sent)
{
	const struct heard *h = arg;

	note_heard(h->replica, sent);
	h->heard(h->arg);
}

int replica_put_state(struct replica *r, int fd, uint64_t size,
		      void (*heard)(void *arg), void *arg)
{
	struct heard h = { .replica = r, .heard = heard, .arg = arg };

	return nbd_client_put(r->state, fd, size, r->timeout, on_answered, &h);
}

int replica_commit(struct replica *r, uint64_t number,
		   const struct store_epoch *epoch)
{
	struct replica_command c = {
		.verb = htole32(REPLICA_COMMIT),
		.epoch = htole64(number),
		.state_size = htole64(epoch->state_size),
		.checksum = htole64(epoch->checksum),
		.flags = htole32(epoch->has_checksum ? REPLICA_CHECKSUM : 0),
	};
	double sent;
	int ret = do_command(r, &c);

	if (ret)
		return ret;
	sent = now();
	ret = nbd_client_wait(r->nbd, nbd_aio_flush(r->nbd, NBD_NULL_COMPLETION, 0),
			      sent + r->timeout);
	if (ret)
		return ask_why(r, ret);
	note_heard(r, sent);
	return 0;
}

int replica_failover(struct replica *r, bool force)
{
	struct replica_command c = {
		.verb = htole32(REPLICA_FAILOVER),
		.flags = htole32(force ? REPLICA_FORCE : 0),
	};

	return do_command(r, &c);
}
