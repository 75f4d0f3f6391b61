// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "interrupt.h"
#include "msg.h"
#include "qmp.h"
#include "units.h"
#include "vm.h"

/* The name under which QEMU keeps our end of the pipe. */
#define FD_NAME "dirtytrack"
#define CHUNK (256 * 1024)

static struct json_object *object_of(const char *key, struct json_object *value)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, key, value);
	return obj;
}

static const char *text_of(struct json_object *obj, const char *key)
{
	struct json_object *value;

	if (!json_object_object_get_ex(obj, key, &value) ||
	    !json_object_is_type(value, json_type_string))
		return NULL;
	return json_object_get_string(value);
}

/* ---- memory ---- */

static char *backend_path(struct qmp *qmp, const char *id, pid_t pid)
{
	static const char self[] = "/proc/self/";
	struct json_object *args = json_object_new_object(), *result;
	char *path = NULL, object[256];
	const char *text;

	snprintf(object, sizeof(object), "/objects/%s", id);
	json_object_object_add(args, "path", json_object_new_string(object));
	json_object_object_add(args, "property",
			       json_object_new_string("mem-path"));
	if (qmp_call(qmp, "qom-get", args, -1, &result))
		return NULL;
	text = json_object_get_string(result);
	if (!text)
		path = NULL;
	else if (!strncmp(text, self, strlen(self)))
		path = asprintf(&path, "/proc/%d/%s", pid,
				text + strlen(self)) < 0 ? NULL : path;
	else
		path = strdup(text);
	json_object_put(result);
	return path;
}

/* Shared memory that has no file cannot be on a slot, and would be left behind. */
static int add_backend(struct qmp *qmp, pid_t pid, struct json_object *backend,
		       struct vm_memory *m)
{
	const char *id = text_of(backend, "id");

	if (!id) {
		msg_error("memory: a shared backend of QEMU has no id");
		return -EINVAL;
	}
	m->path = backend_path(qmp, id, pid);
	if (!m->path) {
		msg_error("memory %s: it is shared and no file, and would be left behind",
			  id);
		return -EINVAL;
	}
	m->id = strdup(id);
	return m->id ? 0 : -ENOMEM;
}

int vm_memory(struct qmp *qmp, pid_t pid, struct vm_memory **memory,
	      unsigned int *nr)
{
	struct json_object *list, *value;
	size_t i, len;
	int ret;

	*nr = 0;
	*memory = NULL;
	ret = qmp_command(qmp, "query-memdev", &list);
	if (ret)
		return ret;
	len = json_object_array_length(list);
	*memory = calloc(len + 1, sizeof(**memory));
	if (!*memory)
		ret = -ENOMEM;
	for (i = 0; i < len && !ret; i++) {
		struct json_object *backend = json_object_array_get_idx(list, i);

		if (json_object_object_get_ex(backend, "share", &value) &&
		    json_object_get_boolean(value))
			ret = add_backend(qmp, pid, backend,
					  &(*memory)[(*nr)++]);
	}
	json_object_put(list);
	if (ret) {
		vm_memory_free(*memory, *nr);
		*memory = NULL;
		*nr = 0;
	}
	return ret;
}

void vm_memory_free(struct vm_memory *memory, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		free(memory[i].id);
		free(memory[i].path);
	}
	free(memory);
}

/* ---- device state ---- */

static int ignore_shared(struct qmp *qmp)
{
	struct json_object *cap = json_object_new_object();
	struct json_object *list = json_object_new_array();

	json_object_object_add(cap, "capability",
			       json_object_new_string("x-ignore-shared"));
	json_object_object_add(cap, "state", json_object_new_boolean(true));
	json_object_array_add(list, cap);
	return qmp_call(qmp, "migrate-set-capabilities",
			object_of("capabilities", list), -1, NULL);
}

static int give_fd(struct qmp *qmp, int fd)
{
	return qmp_call(qmp, "getfd",
			object_of("fdname", json_object_new_string(FD_NAME)),
			fd, NULL);
}

/* 1 when it is complete, 0 when it goes on. */
static int is_complete(struct qmp *qmp)
{
	struct json_object *result;
	const char *status, *desc;
	int ret = qmp_command(qmp, "query-migrate", &result);

	if (ret)
		return ret;
	status = text_of(result, "status");
	desc = text_of(result, "error-desc");
	if (status && !strcmp(status, "completed")) {
		ret = 1;
	} else if (status && (!strcmp(status, "failed") ||
			      !strcmp(status, "cancelled"))) {
		msg_error("device state: QEMU failed%s%s", desc ? ": " : "",
			  desc ? desc : "");
		ret = -EREMOTEIO;
	}
	json_object_put(result);
	return ret;
}

static int wait_complete(struct qmp *qmp, double deadline)
{
	for (;;) {
		int ret = is_complete(qmp);

		if (ret)
			return ret < 0 ? ret : 0;
		if (interrupted)
			return -EINTR;
		if (now() > deadline) {
			msg_error("device state: QEMU does not get done with it");
			return -ETIMEDOUT;
		}
		usleep(1000);
	}
}

/* Until the pipe can be used; 0, -EINTR, -ETIMEDOUT after a message. */
static int wait_pipe(int fd, short events, double deadline)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	for (;;) {
		if (interrupted)
			return -EINTR;
		if (poll(&pfd, 1, 200) > 0)
			return 0;
		if (now() > deadline) {
			msg_error("device state: QEMU does not get done with it");
			return -ETIMEDOUT;
		}
	}
}

static int read_pipe(int from, int to, uint64_t *size, double deadline)
{
	static char buf[CHUNK];

	*size = 0;
	for (;;) {
		int ret = wait_pipe(from, POLLIN, deadline);
		ssize_t n;

		if (ret)
			return ret;
		n = read(from, buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (!n)
			return 0;
		if (n < 0 || pwrite(to, buf, n, *size) != n) {
			ret = -errno;
			msg_errno(ret, "device state: cannot keep it");
			return ret;
		}
		*size += n;
	}
}

static int write_pipe(int to, int from, uint64_t size, double deadline)
{
	static char buf[CHUNK];
	uint64_t pos = 0;

	while (pos < size) {
		ssize_t n = pread(from, buf, size - pos < CHUNK ? size - pos :
								   CHUNK, pos);
		ssize_t done;
		int ret = wait_pipe(to, POLLOUT, deadline);

		if (ret)
			return ret;
		if (n <= 0) {
			msg_errno(n ? errno : EIO, "device state");
			return -EIO;
		}
		done = write(to, buf, n);
		/* QEMU, which knows when it has it all, may have closed its end. */
		if (done < 0 && errno == EPIPE)
			return 0;
		if (done < 0 && errno != EINTR && errno != EAGAIN) {
			ret = -errno;
			msg_errno(ret, "device state: cannot give it to QEMU");
			return ret;
		}
		if (done > 0)
			pos += done;
	}
	return 0;
}

/* Indices of what pipe() makes. */
enum { READ_END, WRITE_END };

/*
 * QEMU's migration begins, with a pipe of which @ours, which *@fd will be, stays here
 * and QEMU has the other end.
 */
static int begin(struct qmp *qmp, const char *command, int ours, int *fd)
{
	int fds[2], ret;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		ret = -errno;
		msg_errno(ret, "pipe");
		return ret;
	}
	ret = give_fd(qmp, fds[!ours]);
	/* So that QEMU's is the last one, and its end ours. */
	close(fds[!ours]);
	if (!ret)
		ret = qmp_call(qmp, command,
			       object_of("uri", json_object_new_string("fd:" FD_NAME)),
			       -1, NULL);
	if (ret)
		close(fds[ours]);
	*fd = fds[ours];
	return ret;
}

int vm_save(struct qmp *qmp, int fd, uint64_t *size, double timeout)
{
	double deadline = now() + timeout;
	int from, ret = ignore_shared(qmp);

	if (!ret)
		ret = begin(qmp, "migrate", READ_END, &from);
	if (ret)
		return ret;
	ret = read_pipe(from, fd, size, deadline);
	close(from);
	return ret ? ret : wait_complete(qmp, deadline);
}

void vm_cancel(struct qmp *qmp)
{
	qmp_set_cancel(qmp, NULL);
	qmp_command(qmp, "migrate_cancel", NULL);
}

int vm_prepare_load(struct qmp *qmp)
{
	return ignore_shared(qmp);
}

int vm_load(struct qmp *qmp, int fd, uint64_t size, double timeout)
{
	double deadline = now() + timeout;
	int to, ret = begin(qmp, "migrate-incoming", WRITE_END, &to);

	if (ret)
		return ret;
	fcntl(to, F_SETFL, O_NONBLOCK);
	ret = write_pipe(to, fd, size, deadline);
	close(to);
	return ret ? ret : wait_complete(qmp, deadline);
}
