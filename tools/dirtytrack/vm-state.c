// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "interrupt.h"
#include "msg.h"
#include "qmp.h"
#include "thread.h"
#include "units.h"
#include "vm-state.h"

/* The name under which QEMU keeps its end of the pipe. */
#define FD_NAME "dirtytrack"
/* What the pipe holds, if that is allowed: most states, so that QEMU waits for nobody. */
#define PIPE_BYTES (1024 * 1024)
#define CHUNK (256 * 1024)
/* How soon a thread that is to end does, and how often an end is looked for. */
#define STEP_MS 10
/* How soon after it has saved QEMU is asked again whether it would resume the guest. */
#define SETTLE_US 500

static struct json_object *object_of(const char *key, struct json_object *value)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, key, value);
	return obj;
}

static void on_event(void *arg, const char *name, struct json_object *data)
{
	struct vm_state *s = arg;
	const char *status;

	if (strcmp(name, "MIGRATION"))
		return;
	status = data ? qmp_text(data, "status") : NULL;
	if (!status)
		return;
	s->failed = !strcmp(status, "failed") || !strcmp(status, "cancelled");
	s->over = s->failed || !strcmp(status, "completed");
}

/* ---- before ---- */

static void add_capability(struct json_object *list, const char *capability, bool on)
{
	struct json_object *cap = object_of("capability",
					    json_object_new_string(capability));

	json_object_object_add(cap, "state", json_object_new_boolean(on));
	json_object_array_add(list, cap);
}

static int set_capabilities(struct qmp *qmp, bool on)
{
	struct json_object *list = json_object_new_array();

	add_capability(list, "x-ignore-shared", on);
	add_capability(list, "events", on);
	return qmp_call(qmp, "migrate-set-capabilities",
			object_of("capabilities", list), -1, NULL);
}

int vm_state_check(struct qmp *qmp)
{
	int ret = set_capabilities(qmp, true);

	return ret ? ret : set_capabilities(qmp, false);
}

void vm_state_reset(struct qmp *qmp)
{
	qmp_set_cancel(qmp, NULL);
	if (set_capabilities(qmp, false))
		msg_note("device state: QEMU may still leave shared memory out of what it migrates or snapshots (x-ignore-shared)");
}

static int give_fd(struct qmp *qmp, int fd)
{
	return qmp_call(qmp, "getfd",
			object_of("fdname", json_object_new_string(FD_NAME)),
			fd, NULL);
}

static int start(struct qmp *qmp, const char *command)
{
	return qmp_call(qmp, command,
			object_of("uri", json_object_new_string("fd:" FD_NAME)),
			-1, NULL);
}

/* Indices of what pipe() makes. */
enum { READ_END, WRITE_END };

int vm_state_prepare(struct vm_state *s, struct qmp *qmp, enum vm_state_way way)
{
	const int ours = way == VM_STATE_SAVE ? READ_END : WRITE_END;
	int fds[2], ret;

	memset(s, 0, sizeof(*s));
	s->fd = -1;
	ret = set_capabilities(qmp, true);
	if (ret)
		return ret;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		ret = -errno;
		msg_errno(ret, "pipe");
		return ret;
	}
	fcntl(fds[ours], F_SETPIPE_SZ, PIPE_BYTES);
	ret = give_fd(qmp, fds[!ours]);
	/* So that QEMU's is the last one, and its end ours. */
	close(fds[!ours]);
	s->fd = fds[ours];
	s->qmp = qmp;
	qmp_on_event(qmp, on_event, s);
	/* It reads when there is something to be read. */
	if (!ret && way == VM_STATE_LOAD)
		ret = start(qmp, "migrate-incoming");
	if (ret)
		vm_state_close(s);
	return ret;
}

void vm_state_close(struct vm_state *s)
{
	if (!s->qmp)
		return;
	if (s->reading) {
		s->stop = true;
		pthread_join(s->reader, NULL);
		s->reading = false;
	}
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	qmp_on_event(s->qmp, NULL, NULL);
	s->qmp = NULL;
}

/* ---- how it goes ---- */

static int late(void)
{
	msg_error("device state: QEMU does not get done with it");
	return -ETIMEDOUT;
}

/* Until the pipe can be used; 0, -EINTR, -ETIMEDOUT after a message. */
static int wait_pipe(struct vm_state *s, short events)
{
	struct pollfd pfd = { .fd = s->fd, .events = events };

	for (;;) {
		if (interrupted || s->stop)
			return -EINTR;
		if (poll(&pfd, 1, STEP_MS) > 0)
			return 0;
		if (now() > s->deadline)
			return late();
	}
}

/* Of what failed, QEMU may know why. */
static int failed(struct qmp *qmp)
{
	struct json_object *result;
	const char *desc;

	if (qmp_command(qmp, "query-migrate", &result))
		return -EREMOTEIO;
	desc = qmp_text(result, "error-desc");
	msg_error("device state: QEMU failed%s%s", desc ? ": " : "",
		  desc ? desc : "");
	json_object_put(result);
	return -EREMOTEIO;
}

static int wait_over(struct vm_state *s)
{
	int ret = qmp_wait(s->qmp, "device state", &s->over);

	if (ret)
		return ret;
	return s->failed ? failed(s->qmp) : 0;
}

/* ---- saving ---- */

/* The next piece: its size, 0 at the end. */
static ssize_t read_some(struct vm_state *s, char *buf)
{
	for (;;) {
		int ret = wait_pipe(s, POLLIN);
		ssize_t n;

		if (ret)
			return ret;
		n = read(s->fd, buf, CHUNK);
		if (n >= 0)
			return n;
		if (errno != EINTR) {
			ret = -errno;
			msg_errno(ret, "device state: cannot read it");
			return ret;
		}
	}
}

static void *read_state(void *arg)
{
	static char buf[CHUNK];
	struct vm_state *s = arg;
	ssize_t n;

	do {
		n = read_some(s, buf);
		s->error = n > 0 ? s->put(s->put_arg, buf, n) : n;
	} while (n > 0 && !s->error);
	return NULL;
}

int vm_state_save(struct vm_state *s,
		  int (*put)(void *arg, const void *buf, size_t len),
		  void *arg, double timeout)
{
	int ret;

	s->put = put;
	s->put_arg = arg;
	s->deadline = now() + timeout;
	s->over = false;
	ret = start(s->qmp, "migrate");
	if (ret)
		return ret;
	ret = thread_start(&s->reader, read_state, s);
	s->reading = !ret;
	return ret;
}

int vm_state_saved(struct vm_state *s)
{
	pthread_join(s->reader, NULL);
	s->reading = false;
	return s->error ? s->error : wait_over(s);
}

static bool is_one_of(const char *text, const char *const *list)
{
	for (; text && *list; list++)
		if (!strcmp(text, *list))
			return true;
	return false;
}

/*
 * Is nothing under way that will still stop the guest, or by which QEMU would refuse to
 * resume it?  Also when that cannot be known.
 */
static bool is_settled(struct qmp *qmp)
{
	static const char *const passing[] = {
		"setup", "active", "device", "pre-switchover", "cancelling", NULL
	};
	static const char *const held[] = { "finish-migrate", NULL };
	struct json_object *migration, *status;
	bool settled;

	if (qmp_command(qmp, "query-migrate", &migration))
		return true;
	settled = !is_one_of(qmp_text(migration, "status"), passing);
	json_object_put(migration);
	if (!settled || qmp_command(qmp, "query-status", &status))
		return settled;
	settled = !is_one_of(qmp_text(status, "status"), held);
	json_object_put(status);
	return settled;
}

int vm_state_settle(struct vm_state *s)
{
	while (!is_settled(s->qmp) && !interrupted) {
		if (now() > s->deadline)
			return late();
		/* There is no event for it, and a guest that waits. */
		usleep(SETTLE_US);
	}
	/* It may not have been asked then. */
	return interrupted ? -EINTR : 0;
}

void vm_state_cancel(struct qmp *qmp, double timeout)
{
	double deadline = now() + timeout;

	/* Whoever wants this program to end wants the guest to run. */
	qmp_set_cancel(qmp, NULL);
	if (qmp_command(qmp, "migrate_cancel", NULL))
		return;
	while (!is_settled(qmp) && now() < deadline)
		usleep(STEP_MS * 1000);
}

/* ---- loading ---- */

static int write_all(struct vm_state *s, const char *buf, size_t len)
{
	while (len) {
		ssize_t n;
		int ret = wait_pipe(s, POLLOUT);

		if (ret)
			return ret;
		n = write(s->fd, buf, len);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= n;
	}
	return 0;
}

static int write_state(struct vm_state *s, int from, uint64_t size)
{
	static char buf[CHUNK];
	uint64_t pos = 0;

	while (pos < size) {
		ssize_t n = pread(from, buf, size - pos < CHUNK ? size - pos :
								  CHUNK, pos);
		int ret;

		if (n <= 0) {
			msg_errno(n ? errno : EIO, "device state");
			return -EIO;
		}
		ret = write_all(s, buf, n);
		/* QEMU, which knows when it has it all, may have closed its end. */
		if (ret == -EPIPE)
			return 0;
		if (ret && ret != -EINTR && ret != -ETIMEDOUT)
			msg_errno(ret, "device state: cannot give it to QEMU");
		if (ret)
			return ret;
		pos += n;
	}
	return 0;
}

int vm_state_load(struct vm_state *s, int fd, uint64_t size, double timeout)
{
	int ret;

	s->deadline = now() + timeout;
	fcntl(s->fd, F_SETFL, O_NONBLOCK);
	ret = write_state(s, fd, size);
	close(s->fd);
	s->fd = -1;
	return ret ? ret : wait_over(s);
}
