// SPDX-License-Identifier: GPL-2.0-only
/*
 * To a QEMU on this host that somebody has started on other slots, to wait for a guest.
 *
 * It has no supervisor, so this process and its guard decide who has the guest.  Both have
 * the one connection that its monitor has, on which things are done in order: who asks for
 * its status after a "cont" knows what came of that, and who was told that it quits, or sees
 * that it has ended, knows that the guest will not run there.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include <json-c/json.h>

#include "destination.h"
#include "file-io.h"
#include "interrupt.h"
#include "migrate.h"
#include "msg.h"
#include "qmp.h"
#include "target.h"
#include "units.h"
#include "vm-state.h"
#include "vm.h"

#define STEP_US 100000

struct destination_qemu {
	struct destination base;
	const char *path;	/* of its monitor */
	struct qmp *qmp;
	int pidfd;		/* of its process */
	struct vm_state vm_state;
	bool told;		/* to quit, and it has said that it does */
	int state;		/* a file with the device state */
	int slots[MAX_MOVES];
	unsigned int nr;
};

static struct destination_qemu *to_qemu(struct destination *d)
{
	return (struct destination_qemu *)d;
}

static struct target *slot_target(struct destination *d, const char *name,
				  uint64_t npages, unsigned int lanes)
{
	struct destination_qemu *q = to_qemu(d);
	struct target *t = target_slot(d->one ? target_slot_ref(d->name) : name,
				       npages, lanes);

	if (t)
		q->slots[q->nr++] = target_slot_fd(t);
	return t;
}

static int prepare(struct destination *d)
{
	struct destination_qemu *q = to_qemu(d);
	int ret = vm_check_waiting(q->qmp, q->path);

	if (ret || d->prepared)
		return ret;
	ret = vm_check_memory(q->qmp, qmp_peer(q->qmp), q->path, q->slots, q->nr);
	return ret ? ret : vm_state_prepare(&q->vm_state, q->qmp, VM_STATE_LOAD);
}

static int put_state(struct destination *d, const void *buf, size_t len,
		     uint64_t pos)
{
	int ret = file_write(to_qemu(d)->state, buf, len, pos);

	if (ret)
		msg_errno(ret, "device state");
	return ret;
}

static int load(struct destination *d, uint64_t size)
{
	struct destination_qemu *q = to_qemu(d);
	int ret = vm_state_load(&q->vm_state, q->state, size, d->timeout);

	return ret ? ret : vm_check_stands(q->qmp, q->path);
}

static int run(struct destination *d, bool paused)
{
	return paused ? 0 : qmp_command(to_qemu(d)->qmp, "cont", NULL);
}

static bool has_ended(const struct destination_qemu *q)
{
	struct pollfd fd = { .fd = q->pidfd, .events = POLLIN };

	return poll(&fd, 1, 0) > 0;
}

/* Has the guest been running there?  Also when it has stopped for a reason of its own. */
static int has_run(struct qmp *qmp, bool *run)
{
	static const char *const before[] = { "inmigrate", "paused", "prelaunch" };
	struct json_object *status;
	const char *text;
	size_t i;
	int ret = qmp_command(qmp, "query-status", &status);

	if (ret)
		return ret;
	text = qmp_text(status, "status");
	*run = true;
	for (i = 0; text && i < sizeof(before) / sizeof(*before); i++)
		if (!strcmp(text, before[i]))
			*run = false;
	json_object_put(status);
	return text ? 0 : -EPROTO;
}

static enum handover_owner try_settle(struct destination_qemu *q)
{
	bool run;

	if (has_ended(q))
		return OWNER_HERE;
	if (has_run(q->qmp, &run))
		return OWNER_UNKNOWN;
	if (run)
		return OWNER_THERE;
	q->told = !qmp_command(q->qmp, "quit", NULL);
	return q->told ? OWNER_HERE : OWNER_UNKNOWN;
}

static enum handover_owner settle(struct destination *d, double seconds)
{
	struct destination_qemu *q = to_qemu(d);
	double deadline = now() + seconds;
	enum handover_owner owner;

	/* Whoever wants us to stop wants the guest to be somewhere. */
	qmp_set_cancel(q->qmp, NULL);
	for (;;) {
		owner = try_settle(q);
		if (owner != OWNER_UNKNOWN || now() > deadline)
			return owner;
		usleep(STEP_US);
	}
}

/* It has said that it quits, and has the locks of the disks until it did. */
static void abort_qemu(struct destination *d, double seconds)
{
	struct destination_qemu *q = to_qemu(d);
	struct pollfd fd = { .fd = q->pidfd, .events = POLLIN };
	double timeout = d->timeout;
	double deadline = now() + seconds, left;

	vm_state_close(&q->vm_state);
	if (!q->told && !has_ended(q)) {
		qmp_set_cancel(q->qmp, NULL);
		qmp_set_timeout(q->qmp, seconds);
		q->told = !qmp_command(q->qmp, "quit", NULL);
		qmp_set_timeout(q->qmp, timeout);
	}
	/* Signals do not end it. */
	while ((left = deadline - now()) > 0 &&
	       poll(&fd, 1, left * 1000 + 1) < 0)
		;
}

/* It may have all that the guest is: nobody must let it run by mistake. */
static void end(struct destination *d, bool there)
{
	struct destination_qemu *q = to_qemu(d);

	vm_state_close(&q->vm_state);
	if (there)
		vm_state_reset(q->qmp);
	if (there || !d->prepared || q->told || has_ended(q))
		return;
	qmp_set_cancel(q->qmp, NULL);
	qmp_command(q->qmp, "quit", NULL);
}

static void close_qemu(struct destination *d)
{
	struct destination_qemu *q = to_qemu(d);

	vm_state_close(&q->vm_state);
	qmp_close(q->qmp);
	if (q->pidfd >= 0)
		close(q->pidfd);
	if (q->state >= 0)
		close(q->state);
	free(q);
}

static const struct destination_ops ops = {
	.target = slot_target,
	.prepare = prepare,
	.put_state = put_state,
	.load = load,
	.run = run,
	.settle = settle,
	.abort = abort_qemu,
	.end = end,
	.close = close_qemu,
};

static int set_up(struct destination_qemu *q, double timeout)
{
	int ret = qmp_connect(&q->qmp, q->path, timeout, &interrupted);

	if (ret)
		return ret;
	q->state = memfd_create("state", MFD_CLOEXEC);
	if (q->state < 0) {
		msg_errno(errno, "device state");
		return -EIO;
	}
	/* Of a process that cannot be seen it cannot be seen that it has ended. */
	q->pidfd = pidfd_open(qmp_peer(q->qmp), 0);
	if (q->pidfd >= 0)
		return vm_check_waiting(q->qmp, q->path);
	msg_errno(errno, "%s: it is not known which process listens there", q->path);
	return -ESRCH;
}

struct destination *destination_qemu(const char *slots, const char *qmp, double timeout)
{
	struct destination_qemu *q = calloc(1, sizeof(*q));

	if (!q) {
		msg_errno(ENOMEM, "%s", slots);
		return NULL;
	}
	q->base.ops = &ops;
	q->base.one = *target_slot_ref(slots) != '\0';
	q->path = qmp;
	q->pidfd = -1;
	q->state = -1;
	if (set_up(q, timeout)) {
		close_qemu(&q->base);
		return NULL;
	}
	return &q->base;
}
