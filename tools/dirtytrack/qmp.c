// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#include "msg.h"
#include "qmp.h"
#include "units.h"
#include "unix-socket.h"

/* A larger message is not an answer to anything that is asked here. */
#define MAX_MESSAGE (1024 * 1024)

/* More commands than a process sends. */
#define FORK_IDS (1 << 20)

struct qmp {
	int fd;
	char *label;
	double timeout;
	const volatile sig_atomic_t *cancel;
	void (*event)(void *arg, const char *name, struct json_object *data);
	void *event_arg;
	bool quiet;		/* a refusal is nothing to speak of */
	int64_t id;		/* of the last command */
	pid_t pid;		/* of who sent it */
	struct json_tokener *tok;
	size_t message;		/* bytes of the message that is being parsed */
	size_t pos, len;	/* what of buf has not been parsed */
	char buf[4096];
};

static bool cancelled(const struct qmp *qmp)
{
	return qmp->cancel && *qmp->cancel;
}

static int fail(struct qmp *qmp, int err, const char *what)
{
	if (err == -EINTR)
		return err;
	if (err == -ECONNRESET || err == -EPIPE) {
		msg_error("%s: %s: the other side has closed the connection",
			  qmp->label, what);
		return -ECONNRESET;
	}
	if (err == -ETIMEDOUT)
		msg_error("%s: %s: no answer in %g s", qmp->label, what,
			  qmp->timeout);
	else if (err == -EPROTO)
		msg_error("%s: %s: the other side does not speak QMP",
			  qmp->label, what);
	else
		msg_errno(err, "%s: %s", qmp->label, what);
	return err;
}

static int wait_for(struct qmp *qmp, short events, double deadline)
{
	struct pollfd pfd = { .fd = qmp->fd, .events = events };

	for (;;) {
		double left = deadline - now();
		int ret;

		if (cancelled(qmp))
			return -EINTR;
		if (left <= 0)
			return -ETIMEDOUT;
		/*
		 * In steps: a signal that arrives between the test above and
		 * poll() interrupts nothing.
		 */
		ret = poll(&pfd, 1, left < 0.2 ? left * 1000 + 1 : 200);
		if (ret > 0)
			return 0;
		if (ret < 0 && errno != EINTR)
			return -errno;
	}
}

static int receive(struct qmp *qmp, double deadline)
{
	ssize_t n;
	int ret;

	do {
		ret = wait_for(qmp, POLLIN, deadline);
		if (ret)
			return ret;
		n = recv(qmp->fd, qmp->buf, sizeof(qmp->buf), MSG_DONTWAIT);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	if (n < 0)
		return -errno;
	if (!n)
		return -ECONNRESET;
	qmp->pos = 0;
	qmp->len = n;
	return 0;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next message, an object. */
static int next_message(struct qmp *qmp, double deadline,
			struct json_object **message)
{
	for (;;) {
		struct json_object *obj;
		size_t used;
		int ret;

		/* Between messages only: within one, the tokener wants all. */
		while (!qmp->message && qmp->pos < qmp->len &&
		       is_space(qmp->buf[qmp->pos]))
			qmp->pos++;
		if (qmp->pos == qmp->len) {
			ret = receive(qmp, deadline);
			if (ret)
				return ret;
			continue;
		}
		obj = json_tokener_parse_ex(qmp->tok, qmp->buf + qmp->pos,
					    qmp->len - qmp->pos);
		used = json_tokener_get_parse_end(qmp->tok);
		qmp->pos += used;
		qmp->message += used;
		if (obj) {
			qmp->message = 0;
			if (!json_object_is_type(obj, json_type_object)) {
				json_object_put(obj);
				break;
			}
			*message = obj;
			return 0;
		}
		if (json_tokener_get_error(qmp->tok) != json_tokener_continue ||
		    qmp->message > MAX_MESSAGE)
			break;
		qmp->pos = qmp->len;
	}
	/* What follows may make sense again: a command to resume is still tried. */
	json_tokener_reset(qmp->tok);
	qmp->message = 0;
	qmp->pos = qmp->len;
	return -EPROTO;
}

/* The first bytes carry @fd, unless that is -1. */
static ssize_t send_some(int sock, const char *text, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (char *)text, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *cmsg = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control.space);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int send_all(struct qmp *qmp, const char *text, int fd, double deadline)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = send_some(qmp->fd, text, len, fd);

		if (n < 0 && errno == EAGAIN) {
			int ret = wait_for(qmp, POLLOUT, deadline);

			if (ret)
				return ret;
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		fd = -1;
		text += n;
		len -= n;
	}
	return 0;
}

/* Is @message the reply to the last command? */
static bool is_reply(const struct qmp *qmp, struct json_object *message)
{
	struct json_object *id;

	return json_object_object_get_ex(message, "id", &id) &&
	       json_object_is_type(id, json_type_int) &&
	       json_object_get_int64(id) == qmp->id;
}

static int take_reply(struct qmp *qmp, const char *name,
		      struct json_object *reply, struct json_object **result)
{
	struct json_object *value, *desc;

	if (json_object_object_get_ex(reply, "return", &value)) {
		if (result)
			*result = json_object_get(value);
		return 0;
	}
	if (!json_object_object_get_ex(reply, "error", &value))
		return fail(qmp, -EPROTO, name);
	if (qmp->quiet)
		return -EREMOTEIO;
	if (json_object_is_type(value, json_type_object) &&
	    json_object_object_get_ex(value, "desc", &desc))
		msg_error("%s: %s: refused: %s", qmp->label, name,
			  json_object_get_string(desc));
	else
		msg_error("%s: %s: refused without a reason", qmp->label, name);
	return -EREMOTEIO;
}

/* NULL without memory; drops the reference to @args. */
static struct json_object *command_object(const char *name,
					  struct json_object *args, int64_t id)
{
	struct json_object *obj = json_object_new_object();

	if (!obj) {
		json_object_put(args);
		return NULL;
	}
	json_object_object_add(obj, "execute", json_object_new_string(name));
	if (args)
		json_object_object_add(obj, "arguments", args);
	json_object_object_add(obj, "id", json_object_new_int64(id));
	return obj;
}

static int send_command(struct qmp *qmp, const char *name,
			struct json_object *args, int fd, double deadline)
{
	struct json_object *obj = command_object(name, args, ++qmp->id);
	char *text = NULL;
	int ret = -ENOMEM;

	if (obj && asprintf(&text, "%s\n", json_object_to_json_string(obj)) > 0)
		ret = send_all(qmp, text, fd, deadline);
	json_object_put(obj);
	free(text);
	return ret;
}

static void take_event(struct qmp *qmp, struct json_object *message)
{
	const char *name = qmp_text(message, "event");
	struct json_object *data = NULL;

	if (!qmp->event || !name)
		return;
	json_object_object_get_ex(message, "data", &data);
	qmp->event(qmp->event_arg, name, data);
}

int qmp_call(struct qmp *qmp, const char *name, struct json_object *args,
	     int fd, struct json_object **result)
{
	double deadline = now() + qmp->timeout;
	struct json_object *message;
	int ret;

	/*
	 * A forked child that takes over when its parent has died must not take
	 * the reply to the parent's last command for its own.
	 */
	if (qmp->pid != getpid()) {
		qmp->pid = getpid();
		qmp->id += FORK_IDS;
	}
	ret = send_command(qmp, name, args, fd, deadline);
	if (ret)
		return fail(qmp, ret, name);
	for (;;) {
		ret = next_message(qmp, deadline, &message);
		if (ret)
			return fail(qmp, ret, name);
		if (is_reply(qmp, message)) {
			ret = take_reply(qmp, name, message, result);
			json_object_put(message);
			return ret;
		}
		/* An event, or the reply to a command that was given up. */
		take_event(qmp, message);
		json_object_put(message);
	}
}

int qmp_wait(struct qmp *qmp, const char *what, const bool *until)
{
	double deadline = now() + qmp->timeout;
	struct json_object *message;
	int ret;

	while (!*until) {
		ret = next_message(qmp, deadline, &message);
		if (ret)
			return fail(qmp, ret, what);
		take_event(qmp, message);
		json_object_put(message);
	}
	return 0;
}

int qmp_command(struct qmp *qmp, const char *name, struct json_object **result)
{
	return qmp_call(qmp, name, NULL, -1, result);
}

int qmp_try(struct qmp *qmp, const char *name)
{
	int ret;

	qmp->quiet = true;
	ret = qmp_command(qmp, name, NULL);
	qmp->quiet = false;
	return ret;
}

const char *qmp_text(struct json_object *obj, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(obj, key, &value) ||
	    !json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

pid_t qmp_peer(const struct qmp *qmp)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(qmp->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return 0;
	return cred.pid;
}

static int negotiate(struct qmp *qmp)
{
	struct json_object *greeting, *value;
	int ret;

	ret = next_message(qmp, now() + qmp->timeout, &greeting);
	if (ret == -ETIMEDOUT) {
		/* QEMU talks to one client and lets others wait. */
		msg_error("%s: no greeting in %g s (is another client connected?)",
			  qmp->label, qmp->timeout);
		return ret;
	}
	if (ret)
		return fail(qmp, ret, "greeting");
	if (!json_object_object_get_ex(greeting, "QMP", &value))
		ret = fail(qmp, -EPROTO, "greeting");
	json_object_put(greeting);
	return ret ? ret : qmp_command(qmp, "qmp_capabilities", NULL);
}

int qmp_attach(struct qmp **out, int fd, const char *label, double timeout,
	       const volatile sig_atomic_t *cancel)
{
	struct qmp *qmp = calloc(1, sizeof(*qmp));
	int ret = -ENOMEM;

	if (!qmp) {
		close(fd);
		goto nomem;
	}
	qmp->fd = fd;
	qmp->pid = getpid();
	qmp->timeout = timeout;
	qmp->cancel = cancel;
	qmp->label = strdup(label);
	qmp->tok = json_tokener_new();
	if (!qmp->label || !qmp->tok)
		goto nomem;
	ret = negotiate(qmp);
	if (ret)
		goto fail;
	*out = qmp;
	return 0;

nomem:
	msg_errno(ENOMEM, "%s", label);
fail:
	qmp_close(qmp);
	return ret;
}

int qmp_connect(struct qmp **qmp, const char *path, double timeout,
		const volatile sig_atomic_t *cancel)
{
	struct sockaddr_un addr;
	int fd = unix_socket(path, &addr), ret;

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = -errno;
		msg_errno(ret, "%s: cannot connect to QEMU's monitor", path);
		close(fd);
		return ret;
	}
	return qmp_attach(qmp, fd, path, timeout, cancel);
}

void qmp_close(struct qmp *qmp)
{
	if (!qmp)
		return;
	close(qmp->fd);
	if (qmp->tok)
		json_tokener_free(qmp->tok);
	free(qmp->label);
	free(qmp);
}

void qmp_set_timeout(struct qmp *qmp, double timeout)
{
	qmp->timeout = timeout;
}

void qmp_set_cancel(struct qmp *qmp, const volatile sig_atomic_t *cancel)
{
	qmp->cancel = cancel;
}

void qmp_on_event(struct qmp *qmp,
		  void (*event)(void *arg, const char *name,
				struct json_object *data),
		  void *arg)
{
	qmp->event = event;
	qmp->event_arg = arg;
}
