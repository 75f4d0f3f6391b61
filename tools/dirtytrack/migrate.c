// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "handover-client.h"
#include "interrupt.h"
#include "migrate.h"
#include "msg.h"
#include "nbd-client.h"
#include "pause.h"
#include "qmp.h"
#include "target.h"

/* ---- which memory ---- */

static int open_sources(struct migrate *m)
{
	int fds[MAX_MOVES];
	unsigned int i;

	for (i = 0; i < m->slots.nr; i++) {
		int ret = source_slot_open(&m->sources[i], m->slots.refs[i]);

		if (ret)
			return ret;
		m->moves[i].src = &m->sources[i].base;
		m->copy.nr_moves++;
		fds[i] = m->sources[i].slot;
	}
	return vm_slots_check(&m->slots, fds);
}

static int open_move(struct migrate *m, unsigned int i)
{
	const struct pipeline_options opts = {
		.threads = true,
		.reconnect = m->reconnect,
		.limiter = m->bandwidth ? &m->limiter : NULL,
		.cancel = &interrupted,
		.progress = copy_progress,
		.progress_arg = &m->copy,
	};
	struct copy_move *move = &m->moves[i];
	uint64_t npages = move->src->npages;
	const char *name = m->exports[i] ? m->exports[i] : m->sources[i].name;
	char *uri;

	if (!*name) {
		msg_error("slot %s: it has no name, by which the receiver would know it",
			  m->sources[i].ref);
		return -EINVAL;
	}
	if (m->handover) {
		uri = nbd_uri_export(m->uri, name);
		if (!uri)
			return -ENOMEM;
		move->dst = target_nbd(uri, npages, m->connections);
		free(uri);
	} else {
		move->dst = target_null(npages, m->connections);
	}
	if (!move->dst)
		return -EIO;
	return pipeline_open(&move->pipe, move->src, move->dst, &opts);
}

/* ---- handing over ---- */

static struct migrate *to_migrate(struct copy *copy)
{
	return copy->handover_arg;
}

/* Connections may have been lost since they were made. */
static int prepare(struct copy *copy)
{
	return handover_prepare(to_migrate(copy)->handover);
}

static int put_state(void *arg, const void *buf, size_t len)
{
	struct migrate *m = arg;
	int ret = handover_put_state(m->handover, buf, len, m->state_size);

	m->state_size += len;
	return ret;
}

static int save(struct copy *copy)
{
	struct migrate *m = to_migrate(copy);

	m->state_size = 0;
	return vm_state_save(&m->state, put_state, m, m->answer);
}

static int saved(struct copy *copy)
{
	return vm_state_saved(&to_migrate(copy)->state);
}

/* It would still be saved when the guest is to go on. */
static void stop_saving(struct pause *p)
{
	struct migrate *m = p->arg;

	vm_state_close(&m->state);
	vm_state_cancel(pause_qmp(p), m->answer);
}

/* The guest has been asked to run there, and what became of it is not known. */
static int settle(struct migrate *m)
{
	switch (handover_settle(m->handover, m->answer)) {
	case OWNER_THERE:
		return 0;
	case OWNER_HERE:
		msg_error("%s: the receiver did not take the guest", m->uri);
		return -EREMOTEIO;
	case OWNER_UNKNOWN:
		break;
	}
	msg_error("%s: it is not known whether the guest runs there: it stays paused here",
		  m->uri);
	return -EHOSTUNREACH;
}

static int commit(struct copy *copy)
{
	struct migrate *m = to_migrate(copy);
	int ret;

	ret = handover_command(m->handover, HANDOVER_LOAD, m->state_size);
	copy_phase_end(copy, PHASE_LOAD);
	if (ret && ret != -EREMOTEIO && ret != -EINTR)
		msg_error("%s: the receiver is gone", m->uri);
	if (!ret)
		ret = pause_commit(copy->pause);
	if (ret)
		return ret;
	ret = handover_command(m->handover, HANDOVER_RUN,
			       copy->pause->idle);
	return ret ? settle(m) : 0;
}

static const struct copy_handover handover = {
	.prepare = prepare,
	.save = save,
	.saved = saved,
	.commit = commit,
};

/* The guest is there: what is left of it here must not run again. */
static void quit_here(struct qmp *qmp)
{
	qmp_set_cancel(qmp, NULL);
	if (qmp_command(qmp, "quit", NULL))
		msg_note("the guest runs there; its QEMU here did not quit: do not let it run");
}

/*
 * In the guard: this process was killed when the guest was about to run there.  Is it
 * to be resumed here?
 */
static bool guard_settle(struct pause *p)
{
	struct migrate *m = p->arg;

	switch (settle(m)) {
	case 0:
		quit_here(pause_qmp(p));
		return false;
	case -EHOSTUNREACH:
		return false;
	default:
		return true;
	}
}

/* ---- */

/* The pages of one slot are told from those of another by nothing. */
static int leave_out_free(struct migrate *m)
{
	int ret;

	if (!m->free_file)
		return 0;
	if (m->copy.nr_moves != 1) {
		msg_error("--free: the guest has %u slots, and it is of one",
			  m->copy.nr_moves);
		return -EINVAL;
	}
	ret = source_free_open(&m->free, &m->sources[0], m->free_file,
			       m->free_format);
	if (!ret)
		m->moves[0].src = &m->free.base;
	return ret;
}

int migrate_open(struct migrate *m, const char *qmp)
{
	unsigned int i;
	int ret;

	m->copy.moves = m->moves;
	m->copy.handover = &handover;
	m->copy.handover_arg = m;
	m->copy.cancel = &interrupted;
	m->limiter = (struct limiter)LIMITER_INIT(m->bandwidth);
	m->copy.pause = pause_by_qmp(qmp, m->answer);
	if (!m->copy.pause)
		return -EIO;
	/* To nothing goes only what does not go at all. */
	if (target_kind(m->uri) != TARGET_NULL) {
		ret = handover_open(&m->handover, m->uri, m->answer);
		if (ret)
			return ret;
	}
	/* It has what it needs to ask the receiver, and no slot. */
	m->copy.pause->settle = guard_settle;
	m->copy.pause->undo = stop_saving;
	m->copy.pause->arg = m;
	ret = pause_guard(m->copy.pause);
	if (ret)
		return ret;
	ret = vm_slots_find(&m->slots, pause_qmp(m->copy.pause), m->refs,
			    m->nr_refs, MAX_MOVES);
	if (!ret)
		ret = open_sources(m);
	if (!ret)
		ret = leave_out_free(m);
	for (i = 0; i < m->copy.nr_moves && !ret; i++)
		ret = open_move(m, i);
	if (!ret && m->handover && !m->copy.dry_run)
		ret = handover_prepare(m->handover);
	if (!ret && m->handover && !m->copy.dry_run)
		ret = vm_state_prepare(&m->state, pause_qmp(m->copy.pause),
				       VM_STATE_SAVE);
	return ret;
}

int migrate_run(struct migrate *m)
{
	int ret = copy_run(&m->copy);
	sig_atomic_t signal = interrupted;

	if (!m->handover)
		return ret;
	if (!ret && !m->copy.dry_run)
		quit_here(pause_qmp(m->copy.pause));
	if (ret == -EHOSTUNREACH)
		return ret;
	/* A receiver that is told need not wait for us to come back. */
	interrupted = 0;
	if (ret || m->copy.dry_run)
		handover_settle(m->handover, 0);
	handover_done(m->handover);
	interrupted = ret ? signal : 0;
	return ret;
}

void migrate_close(struct migrate *m)
{
	unsigned int i;

	for (i = 0; i < m->copy.nr_moves; i++) {
		pipeline_close(m->moves[i].pipe);
		target_close(m->moves[i].dst);
		source_slot_close(&m->sources[i]);
	}
	source_free_close(&m->free);
	vm_slots_free(&m->slots);
	vm_state_close(&m->state);
	handover_close(m->handover);
	pause_free(m->copy.pause);
}
