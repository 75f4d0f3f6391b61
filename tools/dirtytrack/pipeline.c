// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lane.h"
#include "msg.h"
#include "pipeline.h"
#include "source.h"
#include "thread.h"
#include "units.h"

/*
 * A long extent is queued in pieces, for the lanes to share.  The queue is short:
 * what waits in it is written to meanwhile, and copied again.
 */
#define PIECE_PAGES 512
#define QUEUE_PAGES 8192

static uint64_t cost(const struct dirtytrack_extent *ext)
{
	return ext->state == DIRTYTRACK_STATE_DATA ? ext->npages : 0;
}

/* ---- workers ---- */

static void note_error(struct pipeline *p, int err)
{
	if (!p->error)
		p->error = err;
	p->stop = true;
	/* Nobody waits for what will not be done. */
	pthread_cond_broadcast(&p->room);
	pthread_cond_broadcast(&p->work);
}

/* Called with the lock, as those are that come next. */
static double deadline(const struct pipeline *p)
{
	return p->patience + (p->patience > 0 && p->moved > p->from ? p->moved : p->from);
}

static int give_up(struct pipeline *p)
{
	int err = p->patience > 0 ? -ETIMEDOUT : -ETIME;

	if (err == -ETIMEDOUT && !atomic_exchange(&p->told, true))
		msg_error("%s: nothing was done there in %g s", p->dst->name, p->patience);
	note_error(p, err);
	return err;
}

/* A lane waits for a server that is stuck as long as nobody tells it: who waits for it does. */
static int check(struct pipeline *p)
{
	int ret = p->error ? p->error : pipeline_cancelled(p);

	if (!ret && now() > deadline(p))
		ret = give_up(p);
	return ret;
}

int pipeline_check(struct pipeline *p)
{
	int ret;

	pthread_mutex_lock(&p->lock);
	ret = check(p);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

void pipeline_moved(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	p->moved = now();
	pthread_mutex_unlock(&p->lock);
}

static bool take_extent(struct pipeline *p, struct dirtytrack_extent *ext)
{
	if (!p->queued)
		return false;
	*ext = p->queue[p->first];
	p->first = (p->first + 1) % QUEUE;
	p->queued--;
	p->queued_pages -= cost(ext);
	pthread_cond_broadcast(&p->room);
	return true;
}

static void *work(void *arg)
{
	struct lane *lane = arg;
	struct pipeline *p = lane->pipe;
	struct dirtytrack_extent ext;

	pthread_mutex_lock(&p->lock);
	while (!p->quit && !p->error) {
		bool have = take_extent(p, &ext);
		int ret;

		if (!have && !lane->under_way) {
			lane->busy = false;
			pthread_cond_broadcast(&p->room);
			pthread_cond_wait(&p->work, &p->lock);
			continue;
		}
		lane->busy = true;
		pthread_mutex_unlock(&p->lock);
		ret = have ? lane_copy(lane, &ext) : lane_wait(lane, WAIT_MS);
		pthread_mutex_lock(&p->lock);
		if (ret)
			note_error(p, ret);
	}
	lane->busy = false;
	pthread_cond_broadcast(&p->room);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static bool any_busy(const struct pipeline *p)
{
	unsigned int i;

	for (i = 0; i < p->nr_lanes; i++)
		if (p->lanes[i].busy)
			return true;
	return false;
}

/* Wait a tick at most for something to be taken or done.  Called with the lock. */
static void wait_tick(struct pipeline *p)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += TICK_MS * 1000000L;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000L;
	}
	pthread_cond_timedwait(&p->room, &p->lock, &ts);
	pthread_mutex_unlock(&p->lock);
	pipeline_progress(p);
	pthread_mutex_lock(&p->lock);
}

/* ---- the owner's side ---- */

void pipeline_skip_dirty(struct pipeline *p, bool skip)
{
	p->skip_dirty = skip;
}

void pipeline_set_patience(struct pipeline *p, double from, double seconds)
{
	pthread_mutex_lock(&p->lock);
	p->from = from;
	p->patience = seconds;
	pthread_mutex_unlock(&p->lock);
}

void pipeline_ask(struct pipeline *p)
{
	pthread_mutex_lock(&p->lock);
	p->moved = now();
	p->dst->deadline = deadline(p);
	pthread_mutex_unlock(&p->lock);
}

int pipeline_answered(struct pipeline *p, int ret)
{
	if (ret != -ETIMEDOUT)
		return ret;
	pthread_mutex_lock(&p->lock);
	ret = check(p);
	/* Others may have done something meanwhile. */
	if (!ret)
		ret = give_up(p);
	pthread_mutex_unlock(&p->lock);
	return ret;
}

static int queue_piece(struct pipeline *p, const struct dirtytrack_extent *ext)
{
	int ret;

	pthread_mutex_lock(&p->lock);
	p->moved = now();
	for (;;) {
		ret = check(p);
		if (ret || (p->queued < QUEUE && p->queued_pages < QUEUE_PAGES))
			break;
		wait_tick(p);
	}
	if (!ret) {
		p->queue[(p->first + p->queued++) % QUEUE] = *ext;
		p->queued_pages += cost(ext);
		pthread_cond_signal(&p->work);
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int pipeline_push(struct pipeline *p, const struct dirtytrack_extent *ext)
{
	struct dirtytrack_extent piece = *ext;
	uint64_t left = ext->npages;

	if (!p->nr_threads) {
		pipeline_moved(p);
		return p->error ? p->error :
		       (p->error = lane_copy(&p->lanes[0], ext));
	}
	while (left) {
		int ret;

		piece.npages = left;
		if (ext->state == DIRTYTRACK_STATE_DATA && left > PIECE_PAGES)
			piece.npages = PIECE_PAGES;
		ret = queue_piece(p, &piece);
		if (ret)
			return ret;
		piece.first += piece.npages;
		left -= piece.npages;
	}
	pipeline_progress(p);
	return 0;
}

static int drain_once(struct pipeline *p)
{
	int ret = 0;

	pipeline_moved(p);
	if (!p->nr_threads) {
		while (!ret && p->lanes[0].under_way)
			ret = lane_wait(&p->lanes[0], WAIT_MS);
		return ret ? (p->error = ret) : p->error;
	}
	pthread_mutex_lock(&p->lock);
	for (;;) {
		ret = check(p);
		if (ret || (!p->queued && !any_busy(p)))
			break;
		wait_tick(p);
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

/* Copy again what was lost.  No lane is busy. */
static int push_again(struct pipeline *p)
{
	uint64_t *lost = p->again;
	uint64_t first, count;
	int ret = 0;

	p->again = dtrack_bitmap_alloc(p->src->npages);
	if (!p->again) {
		p->again = lost;
		msg_errno(ENOMEM, "%s", p->dst->name);
		return -ENOMEM;
	}
	p->any_again = false;
	dtrack_for_each_run(first, count, lost, p->src->npages) {
		struct dirtytrack_extent ext = {
			.first = first,
			.state = DIRTYTRACK_STATE_DATA,
		};

		pthread_mutex_lock(&p->lock);
		p->stats.resent += count;
		pthread_mutex_unlock(&p->lock);
		while (count && !ret) {
			ext.npages = count < PIECE_PAGES ? count : PIECE_PAGES;
			ret = pipeline_push(p, &ext);
			ext.first += ext.npages;
			count -= ext.npages;
		}
		if (ret)
			break;
		first = ext.first;
	}
	free(lost);
	return ret;
}

int pipeline_drain(struct pipeline *p)
{
	int ret = drain_once(p);

	while (!ret && p->any_again) {
		ret = push_again(p);
		if (!ret)
			ret = drain_once(p);
	}
	return ret;
}

static int flush_lane(struct pipeline *p, struct lane *lane, bool again)
{
	int ret;

	pipeline_ask(p);
	ret = p->dst->ops->flush(p->dst, lane->index);
	if (ret != -ENOTCONN)
		return pipeline_answered(p, ret);
	if (!again) {
		msg_error("%s: the connection was lost before everything was flushed",
			  p->dst->name);
		return ret;
	}
	lane->lost = true;
	return lane_revive(lane);
}

int pipeline_flush(struct pipeline *p, bool again)
{
	uint64_t words = dtrack_bitmap_words(p->src->npages);
	unsigned int i;
	int ret;

	/*
	 * Each lane: one that was idle may not know that its server is another by
	 * now, and only its flush shows it.
	 */
	do {
		ret = p->any_again ? pipeline_drain(p) : 0;
		for (i = 0; i < p->nr_lanes && !ret && p->dst->ops->flush; i++)
			ret = flush_lane(p, &p->lanes[i], again);
		if (ret)
			return ret;
	} while (p->any_again);
	for (i = 0; i < p->nr_lanes; i++)
		memset(p->lanes[i].unflushed, 0, words * sizeof(uint64_t));
	return 0;
}

static int push_zero(struct pipeline *p, uint64_t first, uint64_t end)
{
	struct dirtytrack_extent ext = {
		.first = first,
		.state = DIRTYTRACK_STATE_HOLE,
	};
	int ret = 0;

	/* One request each, for the lanes to share. */
	for (; ext.first < end && !ret; ext.first += ext.npages) {
		uint64_t n = end - ext.first;

		if (n > p->dst->max_zero_pages)
			n = p->dst->max_zero_pages;
		ext.npages = n < UINT32_MAX ? n : UINT32_MAX;
		ret = pipeline_push(p, &ext);
	}
	return ret;
}

/* The target may have data in [page, end): zero where the source has no memory. */
static int clear_extent(struct pipeline *p, uint64_t page, uint64_t end)
{
	int ret = 0;

	pthread_mutex_lock(&p->lock);
	dtrack_bitmap_set(p->nonzero, page, end - page);
	pthread_mutex_unlock(&p->lock);
	while (page < end && !ret) {
		uint64_t next;
		bool hole;

		ret = p->src->ops->extent(p->src, page, &next, &hole);
		if (next > end)
			next = end;
		if (!ret && hole)
			ret = push_zero(p, page, next);
		pipeline_progress(p);
		page = next;
	}
	return ret;
}

int pipeline_clear(struct pipeline *p)
{
	struct target *t = p->dst;
	uint64_t page = 0, end;
	int ret = 0;

	for (; page < t->npages && !ret; page = end) {
		bool zero;

		pipeline_ask(p);
		ret = t->ops->extent(t, page, &end, &zero);
		ret = pipeline_answered(p, ret);
		if (!ret && !zero)
			ret = clear_extent(p, page, end);
		pipeline_progress(p);
	}
	if (!ret)
		ret = pipeline_drain(p);
	/* None of these is a page that was copied. */
	memset(&p->stats, 0, sizeof(p->stats));
	return ret;
}

void pipeline_get_stats(struct pipeline *p, struct pipeline_stats *stats)
{
	pthread_mutex_lock(&p->lock);
	*stats = p->stats;
	pthread_mutex_unlock(&p->lock);
}

uint64_t pipeline_data_pages(struct pipeline *p)
{
	return dtrack_bitmap_count(p->nonzero, 0, p->src->npages);
}

/* ---- making and ending it ---- */

static int start_threads(struct pipeline *p)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < p->nr_lanes && !ret; i++) {
		ret = thread_start(&p->lanes[i].thread, work, &p->lanes[i]);
		if (!ret)
			p->nr_threads++;
	}
	return ret;
}

int pipeline_open(struct pipeline **pipe, struct source *src,
		  struct target *dst, const struct pipeline_options *opts)
{
	unsigned int lanes = opts->threads ? dst->lanes : 1, i;
	struct pipeline *p = calloc(1, sizeof(*p) + lanes * sizeof(p->lanes[0]));
	pthread_condattr_t attr;
	int ret = -ENOMEM;

	if (!p) {
		msg_errno(ret, "%s", dst->name);
		return ret;
	}
	p->src = src;
	p->dst = dst;
	p->opts = *opts;
	p->from = INFINITY;
	p->chunk_pages = dst->max_pages < CHUNK_PAGES ? dst->max_pages :
							CHUNK_PAGES;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->room, &attr);
	pthread_condattr_destroy(&attr);
	p->nonzero = dtrack_bitmap_alloc(src->npages);
	p->again = dtrack_bitmap_alloc(src->npages);
	if (!p->nonzero || !p->again)
		goto fail;
	for (i = 0; i < lanes; i++) {
		p->nr_lanes++;
		if (lane_init(p, i))
			goto fail;
	}
	ret = opts->threads ? start_threads(p) : 0;
	if (ret)
		goto close;
	*pipe = p;
	return 0;

fail:
	msg_errno(ret, "%s", dst->name);
close:
	pipeline_close(p);
	return ret;
}

void pipeline_close(struct pipeline *p)
{
	unsigned int i;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->quit = true;
	p->stop = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (i = 0; i < p->nr_threads; i++)
		pthread_join(p->lanes[i].thread, NULL);
	for (i = 0; i < p->nr_lanes; i++) {
		if (p->lanes[i].under_way && p->dst->ops->drop)
			p->dst->ops->drop(p->dst, i);
		lane_free(&p->lanes[i]);
	}
	pthread_cond_destroy(&p->room);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p->nonzero);
	free(p->again);
	free(p);
}
