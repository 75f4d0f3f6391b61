// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <signal.h>

#include "msg.h"
#include "pause.h"

/*
 * What this process tells the guard; 0 when nothing is to be done.  All that the guard
 * knows of @idle is what it is told: it is a copy from before.
 */
#define GUARD_PAUSE 'P'
#define GUARD_LENT 'L'
#define GUARD_IDLE 'i'
#define GUARD_LENT_IDLE 'l'
#define GUARD_COMMIT 'C'
#define GUARD_COMMIT_IDLE 'c'
#define GUARD_FENCE 'F'

static int resume(struct pause *p)
{
	if (p->undo)
		p->undo(p);
	return p->ops->resume(p);
}

static void resume_instead(struct pause *p)
{
	unsigned int tries = 3;

	/*
	 * First that: standard error may be a terminal that is stuck.  Again if it
	 * fails: the first thing to be read may be the rest of an answer that the
	 * parent had begun to read.
	 */
	while (resume(p) && --tries)
		;
	msg_hold(false);
	msg_note(tries ? "killed while the guest was paused: it was resumed" :
			 "killed while the guest was paused: it could not be resumed");
	if (p->resumed)
		p->resumed(p);
}

/* It stays paused, but is not to be left as it is. */
static void undo_instead(struct pause *p)
{
	if (p->undo)
		p->undo(p);
	if (p->resumed)
		p->resumed(p);
}

static void pause_instead(struct pause *p)
{
	unsigned int tries = 3;

	/* Also if somebody had it paused when this began: he may have let it go on. */
	p->idle = false;
	while (p->ops->pause(p) && --tries)
		;
	msg_hold(false);
	msg_note(tries ? "killed: the guest was paused, as it may be let run elsewhere" :
			 "killed: the guest could not be paused, and may be let run elsewhere");
}

/* In the guard, this process being dead. */
static void act(void *arg, char state)
{
	struct pause *p = arg;

	p->idle = state == GUARD_COMMIT_IDLE;
	p->lent = state != GUARD_PAUSE && state != GUARD_IDLE;
	if (state == GUARD_FENCE)
		pause_instead(p);
	else if (state == GUARD_IDLE || state == GUARD_LENT_IDLE)
		undo_instead(p);
	else if (state == GUARD_PAUSE || state == GUARD_LENT ||
		 (p->settle && p->settle(p)))
		resume_instead(p);
	msg_hold(false);
}

int pause_guard(struct pause *p)
{
	int ret = pause_prepare(p);

	if (!ret)
		ret = guard_start(&p->guard, act, p);
	pause_end(p);
	return ret || !p->fence ? ret : guard_tell(&p->guard, GUARD_FENCE);
}

/* A Ctrl-Z, or output to a terminal that is not ours, must not stop us now. */
static void hold_stops(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	sigaddset(&set, SIGTTIN);
	sigaddset(&set, SIGTTOU);
	sigprocmask(how, &set, NULL);
}

static void unprepare(struct pause *p)
{
	p->prepared = false;
	pause_lock_drop(&p->lock);
}

int pause_prepare(struct pause *p)
{
	int ret = pause_lock_take(&p->lock);

	if (ret)
		return ret;
	p->prepared = true;
	ret = p->ops->prepare ? p->ops->prepare(p) : 0;
	if (ret)
		unprepare(p);
	return ret;
}

int pause_begin(struct pause *p)
{
	int ret = p->prepared ? 0 : pause_prepare(p);

	if (ret)
		return ret;
	/* Told before it is true: resuming a guest that runs does no harm. */
	ret = guard_tell(&p->guard, p->fence ? GUARD_FENCE :
				    p->idle ? GUARD_IDLE : GUARD_PAUSE);
	if (ret) {
		msg_errno(ret, "the guard process is gone");
		return ret;
	}
	hold_stops(SIG_BLOCK);
	p->paused = true;
	p->lent = false;
	return p->ops->pause(p);
}

int pause_fence(struct pause *p)
{
	int ret = p->prepared ? 0 : pause_prepare(p);
	bool idle = p->idle;

	if (ret == -EINTR)
		return ret;
	guard_tell(&p->guard, GUARD_FENCE);
	hold_stops(SIG_BLOCK);
	p->paused = true;
	p->lent = false;
	/* Who had it paused may let it go on. */
	p->idle = false;
	ret = p->ops->pause(p);
	p->idle = idle;
	return ret;
}

static int tell(struct pause *p, char state)
{
	int ret = guard_tell(&p->guard, state);

	if (ret)
		msg_errno(ret, "the guard process is gone");
	return ret;
}

int pause_lend(struct pause *p)
{
	p->lent = true;
	return tell(p, p->idle ? GUARD_LENT_IDLE : GUARD_LENT);
}

int pause_commit(struct pause *p)
{
	return tell(p, p->idle ? GUARD_COMMIT_IDLE : GUARD_COMMIT);
}

void pause_leave(struct pause *p)
{
	if (!p->paused)
		return;
	p->paused = false;
	if (!p->fence)
		guard_tell(&p->guard, 0);
	hold_stops(SIG_UNBLOCK);
	unprepare(p);
}

int pause_end(struct pause *p)
{
	int ret;

	if (!p->paused) {
		unprepare(p);
		return 0;
	}
	ret = resume(p);
	pause_leave(p);
	return ret;
}

void pause_free(struct pause *p)
{
	if (!p)
		return;
	pause_end(p);
	guard_end(&p->guard);
	pause_lock_close(&p->lock);
	p->ops->free(p);
}
