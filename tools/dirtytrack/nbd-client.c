// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "interrupt.h"
#include "msg.h"
#include "nbd-client.h"
#include "tcp.h"
#include "units.h"

/* A signal is seen after it. */
#define WAIT_MS 200
/* Bytes of a file that are sent at once. */
#define CHUNK (1024 * 1024)
/* A server that is silent is asked so often. */
#define SILENT_PROBES 2

static int connect_in_time(struct nbd_handle *nbd, const char *uri, double deadline)
{
	/* nbd_connect_uri() would wait for a server that is stuck. */
	if (nbd_aio_connect_uri(nbd, uri) < 0)
		return -EIO;
	while (nbd_aio_is_connecting(nbd) > 0) {
		if (interrupted)
			return -EINTR;
		if (now() > deadline)
			return -ETIMEDOUT;
		if (nbd_poll(nbd, WAIT_MS) < 0 && nbd_get_errno() != EINTR)
			return -EIO;
	}
	return nbd_aio_is_ready(nbd) > 0 ? 0 : -EIO;
}

int nbd_client_open(struct nbd_handle **out, const char *uri, double deadline)
{
	struct nbd_handle *nbd = nbd_create();
	int ret = -EIO;

	if (!nbd)
		return ret;
	/* The URI is the user's own: it may name his certificates. */
	if (nbd_set_uri_allow_local_file(nbd, true) == 0 &&
	    nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
		ret = connect_in_time(nbd, uri, deadline);
	if (ret) {
		nbd_close(nbd);
		return ret;
	}
	tcp_notice_silence(nbd_aio_get_fd(nbd), SILENT_PROBES);
	*out = nbd;
	return 0;
}

int nbd_client_wait(struct nbd_handle *nbd, int64_t cookie, double deadline)
{
	bool failed = false;

	if (cookie < 0)
		return -EIO;
	for (;;) {
		/* Whatever it returns but 0 it returns once. */
		int done = nbd_aio_command_completed(nbd, cookie);

		if (done > 0)
			return 0;
		if (done < 0) {
			int err = nbd_get_errno();

			return err && err != ENOTCONN && err != ESHUTDOWN ?
			       -err : -EIO;
		}
		if (failed)
			return -EIO;
		if (interrupted)
			return -EINTR;
		if (now() > deadline)
			return -ETIMEDOUT;
		failed = nbd_poll(nbd, WAIT_MS) < 0 && nbd_get_errno() != EINTR;
	}
}

/*
 * Memory of a command, which libnbd may use for longer than somebody waits for it.  @to
 * is where what was read goes; NULL when nobody wants it any more, or of a write.
 */
struct bounce {
	unsigned int users;
	void *to;
	size_t count;
	char data[];
};

static struct bounce *bounce_new(size_t count, void *to)
{
	struct bounce *b = malloc(sizeof(*b) + count);

	if (b)
		*b = (struct bounce){ .users = 2, .to = to, .count = count };
	return b;
}

static void bounce_put(void *arg)
{
	struct bounce *b = arg;

	if (!--b->users)
		free(b);
}

static int on_answer(void *arg, int *error)
{
	struct bounce *b = arg;

	if (b->to && !*error)
		memcpy(b->to, b->data, b->count);
	/* It is not retired by that: it is waited for. */
	return 0;
}

static nbd_completion_callback bounce_done(struct bounce *b)
{
	return (nbd_completion_callback){
		.callback = on_answer,
		.user_data = b,
		.free = bounce_put,
	};
}

int nbd_client_read(struct nbd_handle *nbd, void *buf, size_t count,
		    double deadline)
{
	struct bounce *b = bounce_new(count, buf);
	int ret;

	if (!b)
		return -ENOMEM;
	ret = nbd_client_wait(nbd, nbd_aio_pread(nbd, b->data, count, 0,
						 bounce_done(b), 0),
			      deadline);
	b->to = NULL;
	bounce_put(b);
	return ret;
}

static int write_at(struct nbd_handle *nbd, struct bounce *b, uint64_t pos,
		    double deadline)
{
	int ret = nbd_client_wait(nbd, nbd_aio_pwrite(nbd, b->data, b->count, pos,
						      bounce_done(b), 0),
				  deadline);

	bounce_put(b);
	return ret;
}

int nbd_client_write(struct nbd_handle *nbd, const void *buf, size_t count,
		     double deadline)
{
	struct bounce *b = bounce_new(count, NULL);

	if (!b)
		return -ENOMEM;
	memcpy(b->data, buf, count);
	return write_at(nbd, b, 0, deadline);
}

int nbd_client_put(struct nbd_handle *nbd, int fd, uint64_t size, double timeout,
		   void (*answered)(void *arg, double sent), void *arg)
{
	uint64_t pos = 0;

	while (pos < size) {
		size_t count = size - pos < CHUNK ? size - pos : CHUNK;
		struct bounce *b = bounce_new(count, NULL);
		double sent = now();
		int ret;

		if (!b) {
			msg_errno(ENOMEM, "device state");
			return -ENOMEM;
		}
		if (pread(fd, b->data, count, pos) != (ssize_t)count) {
			msg_errno(errno ? errno : EIO, "device state: cannot read it");
			free(b);
			return -EIO;
		}
		ret = write_at(nbd, b, pos, sent + timeout);
		if (ret)
			return ret;
		answered(arg, sent);
		pos += count;
	}
	return 0;
}

int nbd_client_explain(const char *uri, const char *role, const char *command, int err)
{
	switch (err) {
	case 0:
	case -EINTR:
	case -EREMOTEIO:
		break;
	case -ETIMEDOUT:
		msg_error("%s: the %s does not answer", uri, role);
		break;
	case -EPROTO:
		msg_error("%s: the %s is of another version", uri, role);
		break;
	case -ENOPROTOOPT:
		msg_error("%s: it is no %s (%s)", uri, role, command);
		break;
	default:
		msg_error("%s: it is no %s, or not there (%s): %s", uri, role, command,
			  nbd_get_error() ? nbd_get_error() : strerror(-err));
	}
	return err;
}

bool nbd_client_is_ready(struct nbd_handle *nbd)
{
	return nbd && nbd_poll(nbd, 0) >= 0 && nbd_aio_is_ready(nbd) > 0;
}

void nbd_client_close(struct nbd_handle *nbd)
{
	/* A server that was told so does not complain of a client that left. */
	if (nbd && nbd_aio_is_ready(nbd) > 0)
		nbd_aio_disconnect(nbd, 0);
	nbd_close(nbd);
}

static void put_escaped(FILE *f, const char *name)
{
	for (; *name; name++)
		if (isalnum((unsigned char)*name) || strchr("-._~", *name))
			fputc(*name, f);
		else
			fprintf(f, "%%%02X", (unsigned char)*name);
}

char *nbd_uri_export(const char *uri, const char *name)
{
	const char *authority = strstr(uri, "://");
	const char *path, *rest;
	char *out = NULL;
	size_t size;
	FILE *f;

	if (!authority) {
		msg_error("%s: it is not an NBD URI", uri);
		return NULL;
	}
	authority += 3;
	path = authority + strcspn(authority, "/?#");
	rest = path + strcspn(path, "?#");
	if (rest - path > 1) {
		msg_error("%s: it names an export: several are needed, whose names are known",
			  uri);
		return NULL;
	}
	f = open_memstream(&out, &size);
	if (!f)
		goto nomem;
	fprintf(f, "%.*s/", (int)(path - uri), uri);
	put_escaped(f, name);
	fputs(rest, f);
	if (!fclose(f))
		return out;
	free(out);
nomem:
	msg_errno(ENOMEM, "%s", uri);
	return NULL;
}
