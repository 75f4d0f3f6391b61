// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "engine.h"
#include "msg.h"
#include "pause.h"
#include "pipeline.h"
#include "source.h"
#include "target.h"
#include "units.h"

/* Pages that are compared at once. */
#define CHUNK 256
#define CHUNK_BYTES (CHUNK * DTRACK_PAGE_SIZE)

/*
 * Extents taken at once.  They are on their way before the next are taken: the less
 * time between the two, the fewer pages are copied again.
 */
#define NR_EXTENTS 1024

/* A round makes progress when it brings the rest below this part of the least. */
#define PROGRESS 0.9
/* So many in a row that do not end the rounds. */
#define IDLE_ROUNDS 3

/* Seconds: what else has to be done in a pause takes about as long. */
#define LEAST_PAUSE 0.005

/* Least that an automatic throttle comes to, pages a second: a guest still lives. */
#define LEAST_RATE 256

struct buffers {
	char chunk[CHUNK_BYTES];
	char other[CHUNK_BYTES];
	struct dirtytrack_extent extents[NR_EXTENTS];
};

static void tell(struct copy *c, enum copy_event event)
{
	if (c->event)
		c->event(c, event);
}

static int cancelled(const struct copy *c)
{
	return c->cancel && *c->cancel ? -EINTR : 0;
}

/* Was it interrupted by a signal that is nothing to stop for? */
static bool again(const struct copy *c, int ret)
{
	return ret == -EINTR && !cancelled(c);
}

uint64_t copy_npages(const struct copy *c)
{
	uint64_t npages = 0;
	unsigned int i;

	for (i = 0; i < c->nr_moves; i++)
		npages += c->moves[i].src->npages;
	return npages;
}

/* What the pipelines have done since the rounds began. */
static void get_stats(const struct copy *c, struct pipeline_stats *sum)
{
	unsigned int i;

	memset(sum, 0, sizeof(*sum));
	for (i = 0; i < c->nr_moves; i++) {
		struct pipeline_stats stats;

		pipeline_get_stats(c->moves[i].pipe, &stats);
		sum->pages += stats.pages;
		sum->data += stats.data;
		sum->resent += stats.resent;
		sum->skipped += stats.skipped;
		sum->reconnects += stats.reconnects;
	}
}

static void update_round(struct copy *c)
{
	struct pipeline_stats stats;

	get_stats(c, &stats);
	c->round.pages = stats.pages - c->before.pages;
	c->round.data = stats.data - c->before.data;
	c->round.resent = stats.resent - c->before.resent;
	c->round.skipped = stats.skipped - c->before.skipped;
	c->reconnects = stats.reconnects;
}

void copy_progress(void *arg)
{
	struct copy *c = arg;

	if (!c->in_round)
		return;
	update_round(c);
	tell(c, COPY_PROGRESS);
}

static void set_patience(struct copy *c, double from, double seconds)
{
	unsigned int i;

	for (i = 0; i < c->nr_moves; i++)
		pipeline_set_patience(c->moves[i].pipe, from, seconds);
}

/* In the rounds: when they are to be over, what is under way is given up, or waited for. */
static void be_patient_in_rounds(struct copy *c)
{
	if (c->timeout > 0 && !(c->pause_on_timeout && c->patience <= 0))
		set_patience(c, c->start + c->timeout,
			     c->pause_on_timeout ? c->patience : 0);
}

/* In the pause a guest waits for it. */
static void be_patient_in_pause(struct copy *c)
{
	set_patience(c, c->pause && c->patience > 0 ? 0 : INFINITY, c->patience);
}

static bool is_late(const struct copy *c)
{
	return c->timeout > 0 && now() - c->start > c->timeout;
}

/* Take what is dirty, each page at most once, and send it off. */
static int push_dirty(struct copy *c, struct copy_move *m, struct buffers *buf)
{
	uint64_t next = 0;
	int nr, i, ret;

	for (;;) {
		ret = cancelled(c);
		if (ret)
			return ret;
		/* What is not taken stays in the log. */
		if (!c->was_paused && is_late(c))
			return 0;
		nr = m->src->ops->take(m->src, &next, buf->extents, NR_EXTENTS);
		if (again(c, nr))
			continue;
		if (nr <= 0)
			return nr;
		for (i = 0; i < nr; i++)
			c->taken += buf->extents[i].npages;
		for (i = 0; i < nr; i++) {
			ret = pipeline_push(m->pipe, &buf->extents[i]);
			if (ret)
				return ret;
		}
	}
}

static int copy_dirty(struct copy *c, struct buffers *buf)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < c->nr_moves && !ret; i++)
		ret = push_dirty(c, &c->moves[i], buf);
	for (i = 0; i < c->nr_moves && !ret; i++)
		ret = pipeline_drain(c->moves[i].pipe);
	return ret;
}

void copy_phase_end(struct copy *c, enum copy_phase phase)
{
	double time = now();

	c->phases[phase] += time - c->phase_begin;
	c->phase_begin = time;
}

/* There is no flush: the guest would have to wait. */
static int run_last_round(struct copy *c, struct buffers *buf)
{
	int ret = copy_dirty(c, buf);

	copy_phase_end(c, PHASE_MEMORY);
	if (ret || !c->handover)
		return ret;
	ret = c->handover->saved(c);
	copy_phase_end(c, PHASE_STATE);
	/* Nothing writes any more: what this finds is all. */
	if (!ret)
		ret = copy_dirty(c, buf);
	copy_phase_end(c, PHASE_REST);
	return ret;
}

static int run_round(struct copy *c, struct buffers *buf)
{
	unsigned int i;
	int ret;

	if (c->round.paused)
		return run_last_round(c, buf);
	ret = copy_dirty(c, buf);
	/*
	 * The fewer pages have not been flushed, the fewer are sent again when the
	 * server dies.
	 */
	for (i = 0; i < c->nr_moves && !ret; i++)
		ret = pipeline_flush(c->moves[i].pipe, true);
	return ret;
}

static int copy_round(struct copy *c, struct buffers *buf)
{
	int ret;

	c->round.round++;
	c->round.expected = c->round.left;
	c->round.pages = 0;
	c->round.skipped = 0;
	c->round.start = now();
	c->taken = 0;
	get_stats(c, &c->before);
	tell(c, COPY_ROUND_BEGIN);
	c->in_round = true;
	ret = run_round(c, buf);
	c->in_round = false;
	c->cut_short = ret == -ETIME;
	if (ret && !c->cut_short)
		return ret;
	update_round(c);
	c->round.seconds = now() - c->round.start;
	c->total_pages += c->round.pages;
	c->total_seconds += c->round.seconds;
	return 0;
}

/* Of what the round took, what it did not come to. */
static uint64_t count_unsent(const struct copy *c)
{
	uint64_t done = c->round.pages + c->round.skipped;

	return c->taken > done ? c->taken - done : 0;
}

static int count_left(struct copy *c)
{
	uint64_t left = 0;
	unsigned int i;

	for (i = 0; i < c->nr_moves; i++) {
		struct source *src = c->moves[i].src;
		uint64_t dirty;
		int ret;

		do {
			ret = src->ops->count(src, &dirty);
		} while (again(c, ret));
		if (ret)
			return ret;
		left += dirty;
	}
	c->round.left = left + (c->cut_short ? count_unsent(c) : 0);
	return 0;
}

/* A page without memory is not sent: it is to be zero in the target from the start. */
static int clear_targets(struct copy *c)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < c->nr_moves && !ret; i++)
		ret = pipeline_clear(c->moves[i].pipe);
	return ret;
}

/*
 * Seconds for @pages.  The first pass may be fast for being sequential, a late
 * round slow for being small: the slower one is the safer guess.  Skipped pages count in
 * the round, or one that skips all but a few would be taken for a slow one.
 */
static double estimate(const struct copy *c, uint64_t pages)
{
	uint64_t done = c->round.pages + c->round.skipped;
	double last = c->round.seconds / (done ? done : 1);
	double all = c->total_seconds / (c->total_pages ? c->total_pages : 1);

	return pages * (last > all ? last : all);
}

static int set_throttle(struct copy *c, uint64_t rate)
{
	unsigned int i;

	if (c->round.throttle == rate)
		return 0;
	c->round.throttle = rate;
	for (i = 0; i < c->nr_moves; i++) {
		struct source *src = c->moves[i].src;
		/* Each its part, and none of them none. */
		uint64_t part = rate && rate < c->nr_moves ? 1 :
				rate / c->nr_moves;
		int ret = src->ops->limit ? src->ops->limit(src, part) :
					    -EOPNOTSUPP;

		if (ret == -EOPNOTSUPP)
			msg_error("--throttle: it is not to be had here");
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * A round brought no progress: half of what the guest did, or was allowed to do.  Is
 * there anything left to be taken from it?
 */
static bool throttle_more(struct copy *c, int *ret)
{
	uint64_t rate = c->round.throttle;

	if (c->throttle != THROTTLE_AUTO || rate == LEAST_RATE)
		return false;
	if (!rate || rate > c->round.dirty_rate)
		rate = c->round.dirty_rate;
	rate /= 2;
	*ret = set_throttle(c, rate > LEAST_RATE ? rate : LEAST_RATE);
	return true;
}

static void skip_dirty(struct copy *c, bool skip)
{
	unsigned int i;

	for (i = 0; i < c->nr_moves; i++)
		pipeline_skip_dirty(c->moves[i].pipe, skip);
}

/*
 * The pause would be short enough.  Would one more round, which takes as long as that pause,
 * leave less than half of it?  Then the guest is better off, for a time that nobody feels.
 * If the round before was made for that, it must have been so: @before is what it was to
 * halve.
 */
static bool is_worth_a_round(const struct copy *c, double before)
{
	return c->round.rest_seconds > LEAST_PAUSE &&
	       c->round.rest_seconds < c->round.seconds / 2 &&
	       c->round.rest_seconds < before / 2 &&
	       c->round.round < c->max_rounds && !is_late(c);
}

static int copy_rounds(struct copy *c, struct buffers *buf)
{
	double rest = HUGE_VAL;	/* of the last that left little enough */
	uint64_t least = UINT64_MAX;
	unsigned int idle = 0;
	int ret;

	c->start = now();
	be_patient_in_rounds(c);
	ret = clear_targets(c);
	/* That is a part of the first round. */
	c->cut_short = ret == -ETIME;
	if (c->cut_short)
		ret = 0;
	if (!ret && c->throttle == THROTTLE_FIXED)
		ret = set_throttle(c, c->throttle_rate);
	if (!ret)
		ret = count_left(c);
	if (ret)
		return ret;
	if (c->cut_short) {
		c->end = COPY_TIMEOUT;
		return 0;
	}
	skip_dirty(c, true);
	for (;;) {
		ret = copy_round(c, buf);
		if (!ret)
			ret = count_left(c);
		if (ret)
			return ret;
		c->round.dirty_rate = c->round.seconds > 0 ?
				      c->round.left / c->round.seconds : 0;
		c->round.rest_seconds = estimate(c, c->round.left);
		tell(c, COPY_ROUND_END);

		if (c->cut_short) {
			c->end = COPY_TIMEOUT;
			return 0;
		}
		if (c->round.rest_seconds <= c->downtime) {
			if (is_worth_a_round(c, rest)) {
				rest = c->round.rest_seconds;
				continue;
			}
			c->end = COPY_FITS;
			return 0;
		}
		if (is_late(c)) {
			c->end = COPY_TIMEOUT;
			return 0;
		}
		if (c->round.left < least * PROGRESS) {
			least = c->round.left;
			idle = 0;
		} else if (throttle_more(c, &ret)) {
			if (ret)
				return ret;
			idle = 0;
		} else if (++idle == IDLE_ROUNDS) {
			c->end = COPY_NO_PROGRESS;
			return 0;
		}
		if (c->round.round >= c->max_rounds) {
			c->end = COPY_MAX_ROUNDS;
			return 0;
		}
	}
}

/* How many pages of @npages differ, and which is the first. */
static uint64_t compare(const char *a, const char *b, uint64_t npages,
			uint64_t *first)
{
	uint64_t different = 0, i;

	if (!memcmp(a, b, npages * DTRACK_PAGE_SIZE))
		return 0;
	for (i = 0; i < npages; i++)
		if (memcmp(a + i * DTRACK_PAGE_SIZE, b + i * DTRACK_PAGE_SIZE,
			   DTRACK_PAGE_SIZE) && !different++)
			*first = i;
	return different;
}

static int read_source(struct copy *c, struct source *src, uint64_t first,
		       uint64_t npages, void *buf)
{
	int ret;

	do {
		ret = src->ops->read(src, first, npages, buf);
	} while (again(c, ret));
	return ret;
}

/* First page from @page on that may not be zero, npages when there is none. */
static int source_next_data(struct source *src, uint64_t page, uint64_t *data)
{
	uint64_t end = page;
	bool hole = true;
	int ret = 0;

	while (hole && !ret) {
		page = end;
		if (page >= src->npages)
			break;
		ret = src->ops->extent(src, page, &end, &hole);
	}
	*data = page;
	return ret;
}

/*
 * Compare all of a target with all of the memory.  Pages that are holes in both
 * are zero in both; all others are read from both.  The target is asked what it has,
 * not what was noted when it was written: that is to be verified, too.
 */
static int verify_move(struct copy *c, const struct copy_move *m,
		       struct buffers *buf)
{
	uint64_t npages = m->src->npages;
	uint64_t before = c->verified;
	uint64_t page = 0, which = 0;

	while (page < npages) {
		uint64_t data, written, n, bad;
		int ret;

		ret = cancelled(c);
		if (!ret)
			ret = source_next_data(m->src, page, &data);
		if (!ret) {
			pipeline_ask(m->pipe);
			ret = pipeline_answered(m->pipe, target_next_data(m->dst, page, &written));
		}
		if (ret)
			return ret;
		page = data < written ? data : written;
		n = npages - page < CHUNK ? npages - page : CHUNK;
		if (!n)
			break;
		ret = read_source(c, m->src, page, n, buf->chunk);
		if (!ret) {
			pipeline_ask(m->pipe);
			ret = pipeline_answered(m->pipe,
						m->dst->ops->read(m->dst, page, n, buf->other));
		}
		if (ret)
			return ret;
		bad = compare(buf->chunk, buf->other, n, &which);
		if (bad && !c->different)
			c->first_different = before + page + which;
		c->different += bad;
		page += n;
		c->verified = before + page;
		tell(c, COPY_VERIFY);
	}
	c->verified = before + npages;
	return 0;
}

static int verify(struct copy *c, struct buffers *buf)
{
	unsigned int i;

	c->verified = 0;
	c->different = 0;
	for (i = 0; i < c->nr_moves; i++) {
		int ret = verify_move(c, &c->moves[i], buf);

		if (ret)
			return ret;
	}
	tell(c, COPY_VERIFY);
	if (!c->different)
		return 0;
	msg_error("verify: %" PRIu64 " of %" PRIu64 " pages differ, the first is page %" PRIu64,
		  c->different, copy_npages(c), c->first_different);
	return -EBADMSG;
}

static int last_round(struct copy *c, struct buffers *buf)
{
	int ret;

	c->round.paused = c->pause != NULL;
	/* There is no later round. */
	skip_dirty(c, false);
	ret = copy_round(c, buf);
	if (ret)
		return ret;
	c->round.left = 0;
	c->round.dirty_rate = 0;
	c->round.rest_seconds = 0;
	tell(c, COPY_ROUND_END);
	if (!c->verify)
		return 0;
	ret = verify(c, buf);
	copy_phase_end(c, PHASE_VERIFY);
	return ret;
}

/* With the guest standing still. */
static int finish(struct copy *c, struct buffers *buf)
{
	/* It stands still, and what is done for it now must not wait. */
	int ret = set_throttle(c, 0);

	if (!ret && c->handover)
		ret = c->handover->save(c);
	if (!ret)
		ret = last_round(c, buf);
	if (!ret && c->handover && !c->rehearsal)
		ret = c->handover->commit(c);
	return ret;
}

static int prepare(struct copy *c)
{
	/* This first, as it may take as long as others' pauses. */
	int ret = pause_prepare(c->pause);

	if (!ret && c->handover)
		ret = c->handover->prepare(c);
	if (ret)
		pause_end(c->pause);
	return ret;
}

static int paused_part(struct copy *c, struct buffers *buf)
{
	int ret = prepare(c), resumed = 0;
	bool left;

	if (ret)
		return ret;
	tell(c, COPY_PAUSING);
	c->was_paused = true;
	c->paused_at = now();
	c->phase_begin = c->paused_at;
	/* A terminal or pipe that takes no output must not keep the guest paused. */
	msg_hold(true);
	ret = pause_begin(c->pause);
	copy_phase_end(c, PHASE_STOP);
	if (!ret) {
		tell(c, COPY_PAUSED);
		ret = finish(c, buf);
	}
	/* Where it may run elsewhere, it is not resumed. */
	left = c->handover && !c->rehearsal && (!ret || ret == -EHOSTUNREACH);
	if (left)
		pause_leave(c->pause);
	else
		resumed = pause_end(c->pause);
	copy_phase_end(c, PHASE_START);
	c->seconds_paused = c->phase_begin - c->paused_at;
	msg_hold(false);
	tell(c, left && !ret ? COPY_HANDED_OVER :
		left || resumed ? COPY_LEFT_PAUSED : COPY_RESUMED);
	if (ret)
		return ret;
	return resumed ? -EHOSTDOWN : 0;
}

static int check_downtime(struct copy *c)
{
	if (c->cut_short) {
		msg_error("after %g s, %" PRIu64 " pages would still have to be copied",
			  c->timeout, c->round.left);
		return -ETIME;
	}
	if (c->end == COPY_TIMEOUT && !c->pause_on_timeout) {
		msg_error("after %g s, the guest would still have to be paused for about %.0f ms",
			  c->timeout, c->round.rest_seconds * 1000);
		return -ETIME;
	}
	if (c->end == COPY_FITS || !c->strict)
		return 0;
	msg_error("the guest would have to be paused for about %.0f ms, %.0f are allowed",
		  c->round.rest_seconds * 1000, c->downtime * 1000);
	return -ETIME;
}

int copy_run(struct copy *c)
{
	struct buffers *buf = malloc(sizeof(*buf));
	int ret;

	if (!buf) {
		msg_errno(ENOMEM, "copy");
		return -ENOMEM;
	}
	ret = copy_rounds(c, buf);
	if (!ret) {
		c->expected_downtime = c->round.rest_seconds;
		tell(c, COPY_ROUNDS_END);
		ret = check_downtime(c);
	}
	if (!ret && !c->dry_run) {
		be_patient_in_pause(c);
		ret = c->pause ? paused_part(c, buf) : last_round(c, buf);
	}
	/* What else there is to do for the target, no guest waits for. */
	set_patience(c, INFINITY, 0);
	/* Whatever came of it: what the caller does next may take long. */
	if (set_throttle(c, 0) && !ret)
		msg_note("--throttle: the limit stays until this command ends");
	free(buf);
	return ret;
}
