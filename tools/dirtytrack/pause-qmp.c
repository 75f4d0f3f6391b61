// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pause by QMP: "stop" returns when the virtual CPUs stand still and disk
 * requests, which write to guest memory, are done.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <json-c/json.h>

#include "interrupt.h"
#include "msg.h"
#include "pause.h"
#include "qmp.h"
#include "units.h"

/* How soon QEMU is asked again to resume a guest. */
#define RETRY_US 50000

struct pause_qmp {
	struct pause base;
	struct qmp *qmp;
	double timeout;
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
	bool running = false;
	int ret = is_running((struct pause_qmp *)base, &running);

	if (!ret)
		base->idle = !running;
	return ret;
}

static int pause_guest(struct pause *base)
{
	struct pause_qmp *p = (struct pause_qmp *)base;

	return base->idle ? 0 : qmp_command(p->qmp, "stop", NULL);
}

/*
 * Who refuses to resume it may do it later: another QEMU, which was to have the guest, holds
 * the locks of its disks until it has ended.
 */
static int resume_guest(struct pause *base)
{
	struct pause_qmp *p = (struct pause_qmp *)base;
	double deadline = now() + p->timeout;
	int ret;

	if (base->idle)
		return 0;
	/* Whoever wants this program to end wants the guest to run. */
	qmp_set_cancel(p->qmp, NULL);
	do {
		ret = qmp_try(p->qmp, "cont");
		if (ret != -EREMOTEIO)
			return ret;
		usleep(RETRY_US);
	} while (now() < deadline);
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
	p->timeout = timeout;
	if (qmp_connect(&p->qmp, path, timeout, &interrupted)) {
		free(p);
		return NULL;
	}
	pause_lock_add(&p->base.lock, qmp_peer(p->qmp));
	return &p->base;
}

struct qmp *pause_qmp(const struct pause *base)
{
	return ((const struct pause_qmp *)base)->qmp;
}
