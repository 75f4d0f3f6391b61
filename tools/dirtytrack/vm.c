// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "file-io.h"
#include "msg.h"
#include "qmp.h"
#include "vm.h"

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
	const char *id = qmp_text(backend, "id");

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

static bool is_one_of(const char *path, const int *fds, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (file_is_at(fds[i], path))
			return true;
	return false;
}

int vm_check_memory(struct qmp *qmp, pid_t pid, const char *label, const int *fds,
		    unsigned int nr)
{
	struct vm_memory *memory;
	unsigned int used, i;
	int ret = vm_memory(qmp, pid, &memory, &used);

	if (ret)
		return ret;
	for (i = 0; i < used && !ret; i++)
		if (!is_one_of(memory[i].path, fds, nr)) {
			msg_error("%s: memory %s: it is shared and on no slot that is received, and would be left behind",
				  label, memory[i].id);
			ret = -EINVAL;
		}
	if (!ret && used != nr) {
		msg_error("%s: it uses %u slots of %u, with share=on", label, used, nr);
		ret = -EINVAL;
	}
	vm_memory_free(memory, used);
	return ret;
}

int vm_check_stands(struct qmp *qmp, const char *label)
{
	struct json_object *status, *running;
	int ret = qmp_command(qmp, "query-status", &status);

	if (ret)
		return ret;
	if (!json_object_object_get_ex(status, "running", &running) ||
	    json_object_get_boolean(running)) {
		msg_error("%s: it let the guest run when it was loaded: it is to be started with -S",
			  label);
		ret = -EINVAL;
	}
	json_object_put(status);
	return ret;
}

int vm_check_waiting(struct qmp *qmp, const char *label)
{
	struct json_object *status;
	const char *text;
	int ret = qmp_command(qmp, "query-status", &status);

	if (ret)
		return ret;
	text = qmp_text(status, "status");
	if (!text || strcmp(text, "inmigrate")) {
		msg_error("%s: it does not wait for a guest: -incoming defer is wanted",
			  label);
		ret = -EINVAL;
	}
	json_object_put(status);
	return ret;
}
