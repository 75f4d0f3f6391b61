// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pause by QMP: "stop" returns when the virtual CPUs stand still and disk
 * requests, which write to guest memory, are done.
 */
#include <errno.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "interrupt.h"
#include "msg.h"
#include "pause.h"
#include "qmp.h"

struct pause_qmp {
	struct pause base;
	struct qmp *qmp;
	bool ran;	/* the guest ran when it was to be paused */
};

static int is_running(struct pause_qmp *p, bool *running)
{
	struct json_object *status, *value;
	int ret;

	ret = qmp_command(p->qmp, "query-status", &status);
	if (ret)
		return ret;
	if (json_object_object_get_ex(status, "running", &value)) {
		*running = json_object_get_boolean(value);
	} else {
		msg_error("query-status: the answer does not say whether the guest runs");
		ret = -EPROTO;
	}
	json_object_put(status);
	return ret;
}

static int prepare(struct pause *base)
{
	struct pause_qmp *p = (struct pause_qmp *)base;

	return is_running(p, &p->ran);
}

static int pause_guest(struct pause *base)
{
	struct pause_qmp *p = (struct pause_qmp *)base;

	return p->ran ? qmp_command(p->qmp, "stop", NULL) : 0;
}

static int resume_guest(struct pause *base)
{
	struct pause_qmp *p = (struct pause_qmp *)base;

	/* Somebody else had paused it, and has reasons. */
	if (!p->ran)
		return 0;
	/* Whoever wants this program to end wants the guest to run. */
	qmp_set_cancel(p->qmp, NULL);
	return qmp_command(p->qmp, "cont", NULL);
}

static void free_qmp(struct pause *base)
{
	struct pause_qmp *p = (struct pause_qmp *)base;

	qmp_close(p->qmp);
	free(p);
}

static const struct pause_ops ops = {
	.prepare = prepare,
	.pause = pause_guest,
	.resume = resume_guest,
	.free = free_qmp,
};

struct pause *pause_by_qmp(const char *path, double timeout)
{
	struct pause_qmp *p = calloc(1, sizeof(*p));

	if (!p) {
		msg_errno(ENOMEM, "%s", path);
		return NULL;
	}
	p->base.ops = &ops;
	if (qmp_connect(&p->qmp, path, timeout, &interrupted)) {
		free(p);
		return NULL;
	}
	/*
	 * Asked now, so that the guard knows: it is a copy of this process from
	 * before the pause.
	 */
	if (is_running(p, &p->ran)) {
		free_qmp(&p->base);
		return NULL;
	}
	return &p->base;
}

struct qmp *pause_qmp(const struct pause *base)
{
	return ((const struct pause_qmp *)base)->qmp;
}

bool pause_qmp_ran(const struct pause *base)
{
	return ((const struct pause_qmp *)base)->ran;
}
