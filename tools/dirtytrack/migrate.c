// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "destination.h"
#include "device.h"
#include "interrupt.h"
#include "migrate.h"
#include "msg.h"
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

/* That is not the memory of another slot of this guest, nor gets that of another. */
static int check_target(const struct migrate *m, unsigned int i)
{
	uint32_t id = m->moves[i].dst->slot_id;
	unsigned int k;

	for (k = 0; id && k < m->copy.nr_moves; k++) {
		if (m->sources[k].id == id) {
			msg_error("%s: it is what is to be moved", m->moves[i].dst->name);
			return -EINVAL;
		}
		if (k < i && m->moves[k].dst->slot_id == id) {
			msg_error("%s: two slots would be moved to it", m->moves[i].dst->name);
			return -EINVAL;
		}
	}
	return 0;
}

static const char *name_there(const struct migrate *m, unsigned int i)
{
	return m->names[i] ? m->names[i] : m->sources[i].name;
}

/* Where it matters, each has a name, and one of its own. */
static int check_name(const struct migrate *m, unsigned int i)
{
	const char *name = name_there(m, i);
	unsigned int k;

	if (m->dest->one || m->dest->rehearsal)
		return 0;
	if (!*name) {
		msg_error("slot %s: it has no name, by which it would be known there",
			  m->sources[i].ref);
		return -EINVAL;
	}
	for (k = 0; k < i; k++)
		if (!strcmp(name, name_there(m, k))) {
			msg_error("%s: two slots would be moved to it", name);
			return -EINVAL;
		}
	return 0;
}

static int open_move(struct migrate *m, unsigned int i)
{
	const struct pipeline_options opts = {
		/* What one thread writes to the page cache is as fast as it gets. */
		.threads = target_kind(m->target) != TARGET_IMAGE,
		.reconnect = m->reconnect,
		.limiter = m->bandwidth ? &m->limiter : NULL,
		.cancel = &interrupted,
		.progress = copy_progress,
		.progress_arg = &m->copy,
	};
	struct copy_move *move = &m->moves[i];
	int ret = check_name(m, i);

	if (ret)
		return ret;
	move->dst = m->dest->ops->target(m->dest, name_there(m, i), move->src->npages,
					 m->connections);
	if (!move->dst)
		return -EIO;
	ret = check_target(m, i);
	return ret ? ret : pipeline_open(&move->pipe, move->src, move->dst, &opts);
}

static int open_moves(struct migrate *m)
{
	unsigned int i;
	int ret = 0;

	if (m->dest->one && m->copy.nr_moves > 1) {
		msg_error("%s: the guest has %u slots, and it takes one: a directory takes each as a file, and 'slot:' each as the slot of its name",
			  m->target, m->copy.nr_moves);
		return -EINVAL;
	}
	if (m->dest->one && m->names[0]) {
		msg_error("%s: it says where slot %s goes, and '=%s' something else",
			  m->target, m->sources[0].ref, m->names[0]);
		return -EINVAL;
	}
	for (i = 0; i < m->copy.nr_moves && !ret; i++)
		ret = open_move(m, i);
	return ret;
}

/* ---- handing over ---- */

static struct migrate *to_migrate(struct copy *copy)
{
	return copy->handover_arg;
}

/*
 * QEMU here is told last: when this process is killed before the pause, nobody tells it
 * otherwise.
 */
static int prepare(struct copy *copy)
{
	struct migrate *m = to_migrate(copy);
	int ret = destination_prepare(m->dest);

	/*
	 * Who had it paused has to let it go on before it could be moved: after its state was
	 * saved QEMU refuses to do that again.  That is too much for a rehearsal.
	 */
	if (ret || (copy->rehearsal && copy->pause->idle))
		return ret;
	m->state_used = true;
	return vm_state_prepare(&m->state, pause_qmp(copy->pause), VM_STATE_SAVE);
}

static int put_state(void *arg, const void *buf, size_t len)
{
	struct migrate *m = arg;
	int ret = m->dest->ops->put_state(m->dest, buf, len, m->state_size);

	m->state_size += len;
	return ret;
}

static int save(struct copy *copy)
{
	struct migrate *m = to_migrate(copy);

	m->state_size = 0;
	if (!m->state_used)
		return 0;
	return vm_state_save(&m->state, put_state, m, m->answer);
}

static int saved(struct copy *copy)
{
	struct migrate *m = to_migrate(copy);

	return m->state_used ? vm_state_saved(&m->state) : 0;
}

/*
 * It would still be saved, or be in the hands of a QEMU that holds the locks of its disks,
 * when the guest is to go on.
 */
static void take_back(struct pause *p)
{
	struct migrate *m = p->arg;

	if (p->lent)
		destination_abort(m->dest);
	vm_state_close(&m->state);
	vm_state_cancel(pause_qmp(p), m->answer);
}

/* The guest has been asked to run there, and what became of it is not known. */
static int settle(struct migrate *m)
{
	switch (m->dest->ops->settle(m->dest, m->answer)) {
	case OWNER_THERE:
		return 0;
	case OWNER_HERE:
		msg_error("%s: the guest was not taken", m->target);
		return -EREMOTEIO;
	case OWNER_UNKNOWN:
		break;
	}
	msg_error("%s: it is not known whether the guest is there: it stays paused here",
		  m->target);
	return -EHOSTUNREACH;
}

static int commit(struct copy *copy)
{
	struct migrate *m = to_migrate(copy);
	int ret = pause_lend(copy->pause);

	if (!ret)
		ret = m->dest->ops->load(m->dest, m->state_size);
	copy_phase_end(copy, PHASE_LOAD);
	if (!ret)
		ret = pause_commit(copy->pause);
	if (ret)
		return ret;
	ret = m->dest->ops->run(m->dest, copy->pause->idle);
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
		msg_note("the guest is there; its QEMU here did not quit: do not let it run");
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
		destination_end(m->dest, true);
		return false;
	case -EHOSTUNREACH:
		return false;
	default:
		return true;
	}
}

/* In the guard: the guest goes on here, for certain. */
static void guard_resumed(struct pause *p)
{
	struct migrate *m = p->arg;

	vm_state_reset(pause_qmp(p));
	/* It was, after the guard was forked. */
	m->dest->prepared = true;
	destination_end(m->dest, false);
}

/* ---- what is free ---- */

/* The slot that it is of; nr_moves after a message. */
static unsigned int find_free(struct migrate *m, const struct migrate_free *f)
{
	struct dirtytrack_slot_info info;
	unsigned int i, nr = m->copy.nr_moves;
	int fd;

	if (!f->ref) {
		if (nr == 1)
			return 0;
		msg_error("--free: the guest has %u slots: SLOT=FILE says of which they are", nr);
		return nr;
	}
	fd = open_slot(f->ref, &info);
	if (fd < 0)
		return nr;
	close(fd);
	for (i = 0; i < nr; i++)
		if (m->sources[i].id == info.out_id)
			return i;
	msg_error("--free: slot %s is none of the guest's", f->ref);
	return nr;
}

static int leave_out_free(struct migrate *m)
{
	unsigned int i, k;
	int ret = 0;

	for (i = 0; i < m->nr_free && !ret; i++) {
		k = find_free(m, &m->free[i]);
		if (k == m->copy.nr_moves)
			return -EINVAL;
		if (m->frees[k].slot) {
			msg_error("--free: %s: its slot has another file", m->free[i].file);
			return -EINVAL;
		}
		ret = source_free_open(&m->frees[k], &m->sources[k], m->free[i].file,
				       m->free_format);
		if (!ret)
			m->moves[k].src = &m->frees[k].base;
	}
	return ret;
}

/* ---- */

int migrate_open(struct migrate *m, const char *qmp)
{
	int ret;

	m->copy.moves = m->moves;
	m->copy.handover = &handover;
	m->copy.handover_arg = m;
	m->copy.cancel = &interrupted;
	m->limiter = (struct limiter)LIMITER_INIT(m->bandwidth);
	m->copy.pause = pause_by_qmp(qmp, m->answer);
	if (!m->copy.pause)
		return -EIO;
	m->dest = destination_open(m->target, m->target_qmp, m->answer);
	if (!m->dest)
		return -EIO;
	m->copy.rehearsal = m->dest->rehearsal;
	/* It has what it needs to ask what became of the guest, and no slot. */
	m->copy.pause->settle = guard_settle;
	m->copy.pause->undo = take_back;
	m->copy.pause->resumed = guard_resumed;
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
	if (!ret)
		ret = open_moves(m);
	if (!ret && !m->copy.dry_run)
		ret = destination_prepare(m->dest);
	if (!ret && !m->copy.dry_run)
		ret = vm_state_check(pause_qmp(m->copy.pause));
	return ret;
}

int migrate_run(struct migrate *m)
{
	int ret = copy_run(&m->copy);
	bool there = !ret && !m->copy.dry_run && !m->copy.rehearsal;

	vm_state_close(&m->state);
	if (there)
		quit_here(pause_qmp(m->copy.pause));
	else if (m->state_used)
		vm_state_reset(pause_qmp(m->copy.pause));
	if (ret == -EHOSTUNREACH)
		return ret;
	destination_end(m->dest, there);
	/* It is done: a signal that came too late changes nothing. */
	if (!ret)
		interrupted = 0;
	return ret;
}

void migrate_close(struct migrate *m)
{
	unsigned int i;

	for (i = 0; i < m->copy.nr_moves; i++) {
		pipeline_close(m->moves[i].pipe);
		target_close(m->moves[i].dst);
		source_free_close(&m->frees[i]);
		source_slot_close(&m->sources[i]);
	}
	vm_slots_free(&m->slots);
	vm_state_close(&m->state);
	destination_close(m->dest);
	pause_free(m->copy.pause);
}
