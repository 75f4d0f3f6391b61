// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "interrupt.h"
#include "msg.h"
#include "nbd-client.h"
#include "pause.h"
#include "qmp.h"
#include "replica-client.h"
#include "replicate.h"
#include "target.h"
#include "units.h"

/* A lost secondary is looked for so often. */
#define RETRY_SECONDS 0.2
/* What is not heard for that part of a lease, or a second, is asked for. */
#define LEASE_PARTS 4
#define ALIVE_SECONDS 1
/*
 * Of the lease, what is left for QEMU to stop the guest.  The secondary waits longer than
 * the lease, too.
 */
#define LEASE_STOP 0.9
/* Rounds before the first epoch: what is left is copied aside, not sent, in the pause. */
#define SYNC_ROUNDS 5

/* Least that a throttle comes to, pages a second: a guest still lives. */
#define LEAST_RATE 256

static void count_sent(const struct replicate *r, uint64_t *pages, uint64_t *data)
{
	unsigned int i;

	*pages = *data = 0;
	for (i = 0; i < r->copy.nr_moves; i++) {
		struct pipeline_stats stats;

		/* It is being opened. */
		if (!r->moves[i].pipe)
			continue;
		pipeline_get_stats(r->moves[i].pipe, &stats);
		*pages += stats.pages;
		*data += stats.data;
	}
}

static void update_data(struct replicate *r)
{
	uint64_t pages, data;

	count_sent(r, &pages, &data);
	r->data = r->data_before + data;
}

static void tell(struct replicate *r, enum replicate_event event)
{
	update_data(r);
	if (r->event)
		r->event(r, event);
}

/* Nothing that is done later makes it better. */
static int fatal(struct replicate *r, int ret)
{
	/* A signal is seen by who began. */
	if (ret && ret != -EINTR)
		r->fatal = true;
	return ret;
}

/* The pending epoch is there. */
static void committed(struct replicate *r)
{
	unsigned int i;

	for (i = 0; i < r->nr; i++)
		source_kept_done(&r->sources[i].kept);
	r->committed = r->pending;
	r->pending = 0;
	r->epoch.lag = now() - r->epoch_begin;
	r->epoch.throttle = r->throttle;
	r->epochs++;
	r->pages += r->epoch.pages;
	tell(r, REPLICATE_EPOCH);
}

/* ---- the lease ---- */

static double lease_end(const struct replicate *r)
{
	return replica_heard(r->replica) + r->lease * LEASE_STOP;
}

/* Nobody can take over without an epoch, which may be there before that is known. */
static bool has_lease(const struct replicate *r)
{
	return r->lease > 0 && (r->committed || r->pending);
}

/* When it ends, whatever is being done is interrupted, by SIGALRM. */
static void renew_lease(struct replicate *r)
{
	interrupt_at(has_lease(r) && !r->fenced ? lease_end(r) : 0);
}

static bool is_lease_over(const struct replicate *r)
{
	return has_lease(r) && now() >= lease_end(r);
}

/* It is not in the way of what ends the lease, nor of what a user wants. */
static void clear_alarm(void)
{
	if (interrupted == SIGALRM)
		interrupted = 0;
}

/*
 * The guest stands still from here on: it may be let run there.  What else is wanted has
 * to wait for that.
 */
static int fence(struct replicate *r)
{
	sig_atomic_t signal = interrupted;
	int ret = 0;

	r->must_stand = true;
	if (r->fenced)
		return 0;
	interrupt_at(0);
	qmp_set_cancel(pause_qmp(r->pause), NULL);
	/* Also when it was about to be paused, and what was asked got no answer. */
	while (!r->stands) {
		interrupted = 0;
		ret = pause_fence(r->pause);
		if (interrupted)
			signal = interrupted;
		if (ret != -EINTR)
			break;
	}
	qmp_set_cancel(pause_qmp(r->pause), &interrupted);
	interrupted = signal == SIGALRM ? 0 : signal;
	if (ret) {
		msg_error("the guest could not be stopped, and may be let run at the secondary");
		return fatal(r, ret);
	}
	r->stands = r->fenced = true;
	tell(r, REPLICATE_FENCED);
	return 0;
}

/* The end of an epoch's pause, or of a fence, if the guest may run here. */
static int let_go(struct replicate *r)
{
	int ret;

	if (is_lease_over(r))
		return fence(r);
	r->fenced = r->stands = r->must_stand = false;
	renew_lease(r);
	ret = pause_end(r->pause);
	/* To resume is not given up; what comes after it may be. */
	qmp_set_cancel(pause_qmp(r->pause), &interrupted);
	return fatal(r, ret);
}

/* ---- a session: what is between attaching and the loss of the secondary ---- */

static void keep_alive(struct replicate *r)
{
	/* Also before there is an epoch: the lease begins with it, and counts from before. */
	double part = r->lease > 0 && r->lease / LEASE_PARTS < ALIVE_SECONDS ?
		      r->lease / LEASE_PARTS : ALIVE_SECONDS;
	struct replica_state state;

	if (now() < replica_heard(r->replica) + part)
		return;
	if (!replica_ask(r->replica, &state))
		renew_lease(r);
	else if (!interrupted)
		/* What is being sent might be waited for without end: as at a lease's. */
		raise(SIGALRM);
}

static void on_heard(void *arg)
{
	renew_lease(arg);
}

static void on_progress(void *arg)
{
	struct replicate *r = arg;

	keep_alive(r);
	if (!r->stands)
		tell(r, REPLICATE_PROGRESS);
}

static int open_move(struct replicate *r, unsigned int i)
{
	const struct pipeline_options opts = {
		.threads = true,
		/* A lane that is lost is of a session that is. */
		.session = true,
		.limiter = r->bandwidth ? &r->limiter : NULL,
		.cancel = &interrupted,
		.progress = on_progress,
		.progress_arg = r,
	};
	struct copy_move *move = &r->moves[i];
	const struct source_slot *slot = &r->sources[i].kept.slot;
	const char *name = r->exports[i] ? r->exports[i] : slot->name;
	char *uri;

	if (!*name) {
		msg_error("slot %s: it has no name, by which the secondary would know it",
			  slot->ref);
		return fatal(r, -EINVAL);
	}
	uri = nbd_uri_export(r->uri, name);
	if (!uri)
		return fatal(r, -ENOMEM);
	move->src = &r->sources[i].base;
	move->dst = target_nbd(uri, move->src->npages, r->connections);
	free(uri);
	if (!move->dst)
		return interrupted ? -EINTR : -EIO;
	r->copy.nr_moves++;
	return pipeline_open(&move->pipe, move->src, move->dst, &opts);
}

static int set_throttle(struct replicate *r, uint64_t rate)
{
	unsigned int i;

	if (rate == r->throttle)
		return 0;
	r->throttle = rate;
	for (i = 0; i < r->nr; i++) {
		struct source *src = &r->sources[i].base;
		int ret = src->ops->limit(src, rate && rate < r->nr ? 1 :
					       rate / r->nr);

		if (ret)
			return fatal(r, ret);
	}
	return 0;
}

static void end_session(struct replicate *r)
{
	unsigned int i;

	/* Without a secondary there is no link that is too slow. */
	set_throttle(r, 0);
	update_data(r);
	r->data_before = r->data;
	for (i = 0; i < r->nr; i++) {
		pipeline_close(r->moves[i].pipe);
		target_close(r->moves[i].dst);
	}
	memset(r->moves, 0, sizeof(r->moves));
	r->copy.nr_moves = 0;
	replica_disconnect(r->replica);
	r->attached = false;
}

static void forget_all(struct replicate *r)
{
	unsigned int i;

	for (i = 0; i < r->nr; i++)
		source_aside_forget(&r->sources[i]);
	r->aside.used = 0;
}

/*
 * What the secondary does not have is dirty: all memory, when it is not the one that we
 * sent to; and what was sent of an epoch that it does not have.
 */
static int make_dirty(struct replicate *r, const struct replica_state *state)
{
	bool same = state->ours && (state->committed == r->committed ||
				    state->committed == r->pending);
	bool has_all = same && r->pending && state->committed == r->pending;
	unsigned int i;
	int ret = 0;

	forget_all(r);
	/* Only its answer was lost. */
	if (has_all)
		committed(r);
	for (i = 0; i < r->nr && !ret; i++) {
		if (same || !r->was_attached)
			ret = source_kept_undo(&r->sources[i].kept);
		else
			ret = source_aside_restart(&r->sources[i]);
	}
	r->pending = 0;
	r->committed = state->committed;
	return fatal(r, ret);
}

static int check_phase(struct replicate *r, const struct replica_state *state)
{
	if (state->phase == STORE_REPLICA)
		return 0;
	/* It may still come to nothing: it is asked again. */
	if (state->phase == STORE_FAILING_OVER && r->was_attached) {
		int ret = fence(r);

		return ret ? ret : -EBUSY;
	}
	/* Of another guest, or another time, it says nothing. */
	r->taken_over = r->was_attached;
	if (r->taken_over)
		msg_error("%s: the guest was let run there", r->uri);
	else
		msg_error("%s: it has let a guest run, and takes no epochs any more",
			  r->uri);
	return fatal(r, r->taken_over ? -EOWNERDEAD : -EBUSY);
}

static int begin_session(struct replicate *r)
{
	struct replica_state state;
	unsigned int i;
	int ret;

	ret = replica_connect(r->replica, &state);
	if (!ret)
		ret = check_phase(r, &state);
	if (!ret)
		ret = make_dirty(r, &state);
	if (!ret)
		ret = replica_attach(r->replica, r->lease, state.committed);
	if (ret)
		return ret;
	r->was_attached = r->attached = true;
	renew_lease(r);
	/* Before all that may take long. */
	if (r->fenced)
		ret = let_go(r);
	for (i = 0; i < r->nr && !ret; i++)
		ret = open_move(r, i);
	/* What is wrong the first time, and not the connection, stays so. */
	if (ret)
		return r->epochs || replica_ask(r->replica, &state) ? ret :
								     fatal(r, ret);
	tell(r, REPLICATE_ATTACHED);
	return 0;
}

/* Most of what it does not have goes while the guest runs. */
static int synchronise(struct replicate *r)
{
	const struct copy copy = {
		.moves = r->moves,
		.nr_moves = r->copy.nr_moves,
		.downtime = r->interval,
		.max_rounds = SYNC_ROUNDS,
		.dry_run = true,
		.cancel = &interrupted,
	};

	uint64_t data;
	unsigned int i;
	int ret;

	r->copy = copy;
	ret = copy_run(&r->copy);
	/* Rounds leave out what was written again: an epoch has it as it was captured. */
	for (i = 0; i < r->nr; i++)
		pipeline_skip_dirty(r->moves[i].pipe, false);
	if (!ret) {
		count_sent(r, &r->synced, &data);
		tell(r, REPLICATE_SYNCED);
	}
	return ret;
}

/* ---- an epoch ---- */

static int send_captured(struct replicate *r)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < r->nr && !ret; i++)
		ret = source_aside_push(&r->sources[i], r->moves[i].pipe);
	for (i = 0; i < r->nr && !ret; i++)
		ret = pipeline_drain(r->moves[i].pipe);
	if (!ret)
		forget_all(r);
	return ret;
}

/* What has no room in the buffer is sent at once, the guest standing still. */
static int capture(struct replicate *r)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < r->nr; i++)
		source_aside_begin(&r->sources[i]);
	for (i = 0; i < r->nr && !ret; i++) {
		bool more = true;

		while (more && !ret) {
			ret = fatal(r, source_aside_capture(&r->sources[i], &more));
			if (ret || !more)
				break;
			r->epoch.in_pause += r->aside.used;
			ret = send_captured(r);
		}
	}
	return ret;
}

/* From the thread that takes what QEMU saves. */
static int put_state(void *arg, const void *buf, size_t len)
{
	struct replicate *r = arg;
	int ret;

	if (pwrite(r->state, buf, len, r->state_size) == (ssize_t)len) {
		r->state_size += len;
		return 0;
	}
	ret = errno ? -errno : -EIO;
	msg_errno(ret, "device state: cannot keep it");
	return ret;
}

/* It would still be saved when the guest is to go on; also in the guard. */
static void stop_saving(struct pause *p)
{
	struct replicate *r = p->arg;

	vm_state_close(&r->saving);
	vm_state_cancel(pause_qmp(p), r->answer);
}

/* In the guard: what QEMU migrates, or snapshots, some time is to have all memory. */
static void guard_resumed(struct pause *p)
{
	vm_state_reset(pause_qmp(p));
}

static int save(struct replicate *r)
{
	int ret;

	r->state_size = 0;
	ret = vm_state_save(&r->saving, put_state, r, r->answer);
	if (!ret)
		ret = vm_state_saved(&r->saving);
	return fatal(r, ret);
}

/* What can be done while the guest runs. */
static int prepare(struct replicate *r)
{
	int ret = pause_prepare(r->pause);

	if (!ret)
		ret = vm_state_prepare(&r->saving, pause_qmp(r->pause),
				       VM_STATE_SAVE);
	return fatal(r, ret);
}

/*
 * A guest that somebody else has paused is not stopped, and he may have let it go on: then
 * what was captured is of no one moment.
 */
static int check_idle(struct replicate *r)
{
	int ret;

	if (!r->pause->idle)
		return 0;
	ret = fatal(r, r->pause->ops->prepare(r->pause));
	return !ret && !r->pause->idle ? -EAGAIN : ret;
}

/* Until it is as it is to be sent.  -EAGAIN when it has to be taken again. */
static int take_epoch(struct replicate *r)
{
	int ret = prepare(r), resumed;

	if (ret) {
		pause_end(r->pause);
		return ret;
	}
	memset(r->copy.phases, 0, sizeof(r->copy.phases));
	r->copy.paused_at = r->copy.phase_begin = now();
	/* A terminal or pipe that takes no output must not keep the guest paused. */
	msg_hold(true);
	ret = fatal(r, pause_begin(r->pause));
	r->stands = !ret;
	copy_phase_end(&r->copy, PHASE_STOP);
	if (!ret)
		ret = save(r);
	copy_phase_end(&r->copy, PHASE_STATE);
	if (!ret)
		ret = capture(r);
	if (!ret)
		ret = check_idle(r);
	copy_phase_end(&r->copy, PHASE_MEMORY);
	if (!ret)
		ret = fatal(r, vm_state_settle(&r->saving));
	if (ret)
		stop_saving(r->pause);
	vm_state_close(&r->saving);
	copy_phase_end(&r->copy, PHASE_STATE);
	resumed = let_go(r);
	copy_phase_end(&r->copy, PHASE_START);
	r->epoch.pause = r->copy.phase_begin - r->copy.paused_at;
	msg_hold(false);
	return ret ? ret : resumed;
}

static int commit(struct replicate *r)
{
	struct store_epoch epoch = {
		.state_size = r->state_size,
		.has_checksum = r->checksum,
	};
	unsigned int i;
	int ret;

	for (i = 0; i < r->nr; i++)
		epoch.checksum += r->sources[i].checksum;
	ret = replica_put_state(r->replica, r->state, r->state_size, on_heard, r);
	if (ret)
		return ret;
	r->pending = r->committed + 1;
	r->epoch.number = r->pending;
	r->epoch.checksum = epoch.checksum;
	r->epoch.state_size = r->state_size;
	renew_lease(r);
	tell(r, REPLICATE_SENT);
	ret = replica_commit(r->replica, r->pending, &epoch);
	if (ret)
		return ret;
	committed(r);
	/* The lease may have ended, and it has answered all the same. */
	if (r->fenced)
		return let_go(r);
	renew_lease(r);
	return 0;
}

/* ---- a link that is too slow ---- */

/* @seconds: what the epoch took, its pause and all. */
static int adapt_throttle(struct replicate *r, double seconds)
{
	double rate = r->epoch.pages / seconds;

	if (r->slow != SLOW_THROTTLE)
		return 0;
	if (seconds > r->interval)
		/* What could have been sent, and a little less: it is late already. */
		return set_throttle(r, rate * 0.9 > LEAST_RATE ? rate * 0.9 :
							       LEAST_RATE);
	if (!r->throttle || seconds > r->interval / 2)
		return 0;
	/* Of what it may write, it would write less. */
	if (r->epoch.pages < r->throttle * r->interval / 4)
		return set_throttle(r, 0);
	return set_throttle(r, r->throttle + r->throttle / 4);
}

/* ---- one after the other ---- */

/* What was captured goes back to the logs. */
static int undo_epoch(struct replicate *r)
{
	unsigned int i;
	int ret = 0;

	forget_all(r);
	for (i = 0; i < r->nr && !ret; i++)
		ret = source_kept_undo(&r->sources[i].kept);
	return fatal(r, ret);
}

static int do_epoch(struct replicate *r)
{
	uint64_t pages, data;
	int ret;

	memset(&r->epoch, 0, sizeof(r->epoch));
	r->epoch_begin = now();
	count_sent(r, &pages, &data);
	while ((ret = take_epoch(r)) == -EAGAIN) {
		ret = undo_epoch(r);
		if (ret)
			return ret;
	}
	if (!ret)
		ret = send_captured(r);
	if (ret)
		return ret;
	count_sent(r, &r->epoch.pages, &r->epoch.data);
	r->epoch.pages -= pages;
	r->epoch.data -= data;
	ret = commit(r);
	return ret ? ret : adapt_throttle(r, r->epoch.lag);
}

static int wait_until(struct replicate *r, double time)
{
	while (now() < time) {
		double step = now() + 0.1;
		int ret = interrupt_sleep(time < step ? time : step);

		if (ret)
			return ret;
		keep_alive(r);
		tell(r, REPLICATE_PROGRESS);
	}
	return 0;
}

static int session(struct replicate *r)
{
	int ret = begin_session(r);

	if (!ret)
		ret = synchronise(r);
	while (!ret && (!r->count || r->epochs < r->count)) {
		double begin = now();

		ret = do_epoch(r);
		if (!ret && r->epochs != r->count)
			ret = wait_until(r, begin + r->interval);
	}
	return ret;
}

/* The secondary was lost: until it is to be tried again.  0, or why not. */
static int after_loss(struct replicate *r, int err, double *since)
{
	if (r->fatal || (interrupted && interrupted != SIGALRM))
		return err;
	/* It never was one. */
	if (!r->was_attached)
		return replica_explain(r->replica, err);
	if (r->attached) {
		r->losses++;
		*since = now();
		tell(r, REPLICATE_LOST);
	}
	if (r->reconnect && now() > *since + r->reconnect) {
		msg_error("%s: the secondary is away for more than %g s", r->uri,
			  r->reconnect);
		return -ENOTCONN;
	}
	return 0;
}

static int run_sessions(struct replicate *r)
{
	double since = 0;
	int ret, fenced;

	for (;;) {
		ret = session(r);
		if (!ret)
			return 0;
		/* Before anything is said: who is told may take no output. */
		fenced = is_lease_over(r) ? fence(r) : 0;
		if (fenced)
			return fenced;
		ret = after_loss(r, ret, &since);
		if (ret)
			return ret;
		end_session(r);
		fenced = is_lease_over(r) ? fence(r) : 0;
		if (fenced)
			return fenced;
		clear_alarm();
		/* It may come a moment too early, and must come again. */
		renew_lease(r);
		if (interrupt_sleep(now() + RETRY_SECONDS) &&
		    interrupted != SIGALRM)
			return -EINTR;
	}
}

static int stay_fenced(struct replicate *r)
{
	if (!fence(r))
		msg_error("%s: %s: the guest stays paused, as it may be let run there",
			  r->uri, r->lease > 0 ?
			  "it was not told that there is no lease any more" :
			  "it was about to let the guest run");
	return -EHOSTUNREACH;
}

/* With a lease, the guest may run here only when the secondary knows that there is none. */
static int part(struct replicate *r, int err)
{
	const bool idle = r->pause->idle;
	sig_atomic_t signal;
	int ret = -ENOTCONN;

	interrupt_at(0);
	clear_alarm();
	signal = interrupted;
	interrupted = 0;
	/* Of a guest whose QEMU is gone, it must not be said that it goes on. */
	if (r->attached && !r->pause->ops->prepare(r->pause))
		ret = replica_detach(r->replica);
	/* That was asked for now, not when it was paused. */
	r->pause->idle = idle;
	if (r->taken_over)
		fence(r);
	else if (ret && (has_lease(r) || r->must_stand))
		err = stay_fenced(r);
	else if (r->must_stand)
		let_go(r);
	interrupted = signal;
	return err;
}

int replicate_run(struct replicate *r)
{
	return part(r, run_sessions(r));
}

/* ---- */

static int open_sources(struct replicate *r)
{
	int fds[MAX_REPLICAS];
	unsigned int i;

	for (i = 0; i < r->slots.nr; i++) {
		int ret = source_aside_open(&r->sources[i], r->slots.refs[i],
					    &r->aside, r->checksum);

		if (ret)
			return ret;
		r->nr++;
		fds[i] = r->sources[i].kept.slot.slot;
	}
	return vm_slots_check(&r->slots, fds);
}

int replicate_open(struct replicate *r, const char *qmp)
{
	int ret;

	r->state = -1;
	r->limiter = (struct limiter)LIMITER_INIT(r->bandwidth);
	r->replica = replica_new(r->uri, r->answer);
	if (!r->replica)
		return -EINVAL;
	r->pause = pause_by_qmp(qmp, r->answer);
	if (!r->pause)
		return -EIO;
	/* Who is killed cannot tell the secondary, and it takes over. */
	r->pause->fence = r->lease > 0;
	r->pause->arg = r;
	/* For the guard, who does not know how far it was. */
	r->pause->undo = stop_saving;
	r->pause->resumed = guard_resumed;
	ret = pause_guard(r->pause);
	r->pause->undo = NULL;
	if (ret)
		return ret;
	r->state = memfd_create("state", MFD_CLOEXEC);
	if (r->state < 0) {
		ret = -errno;
		msg_errno(ret, "device state");
		return ret;
	}
	ret = aside_open(&r->aside, r->buffer / DTRACK_PAGE_SIZE, r->threads);
	if (!ret)
		ret = vm_slots_find(&r->slots, pause_qmp(r->pause), r->refs,
				    r->nr_refs, MAX_REPLICAS);
	return ret ? ret : open_sources(r);
}

void replicate_close(struct replicate *r)
{
	unsigned int i;

	if (r->replica)
		end_session(r);
	for (i = 0; i < r->nr; i++)
		source_aside_close(&r->sources[i]);
	aside_close(&r->aside);
	vm_slots_free(&r->slots);
	replica_free(r->replica);
	/* Where it may run elsewhere, it is not resumed. */
	if (r->pause && r->must_stand)
		pause_leave(r->pause);
	else if (r->pause && r->was_attached && !r->fatal)
		vm_state_reset(pause_qmp(r->pause));
	pause_free(r->pause);
	if (r->state >= 0)
		close(r->state);
}
