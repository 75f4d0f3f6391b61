// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads: each lane belongs to one worker, with its works and chunks; only while
 * nothing is queued and no lane is busy does the owner of the pipeline use them.
 * What they share is under the pipeline's lock, which is held for a few words.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../lib/dirtytrack.h"
#include "limiter.h"
#include "msg.h"
#include "pipeline.h"
#include "source.h"
#include "target.h"
#include "thread.h"
#include "units.h"
#include "zero.h"

/* Pages that are read at once: they are still in the cache when they are sent. */
#define CHUNK_PAGES 64
#define CHUNK_BYTES (CHUNK_PAGES * DTRACK_PAGE_SIZE)
/* What a lane may have under way. */
#define LANE_CHUNKS 32
#define LANE_WORKS 64

/*
 * A long extent is queued in pieces, for the lanes to share.  The queue is short:
 * what waits in it is written to meanwhile, and copied again.
 */
#define PIECE_PAGES 512
#define QUEUE_PAGES 8192
#define QUEUE 1024

/* How often the owner looks up while it waits, and a lost lane is tried again. */
#define TICK_MS 100
/* A request to stop is seen after it, when nothing happens. */
#define WAIT_MS 200

struct chunk {
	struct chunk *next;
	unsigned int users;
	char *data;
};

/* A request of a lane. */
struct work {
	struct request req;
	struct lane *lane;
	struct chunk *chunk;
	struct work *next;	/* of the free ones */
	bool under_way;
	bool lost;
};

struct lane {
	struct pipeline *pipe;
	unsigned int index;
	pthread_t thread;
	bool busy;		/* under the lock */
	unsigned int under_way;
	bool lost;
	int error;		/* of a request, until it is seen */
	uint64_t *unflushed;	/* done by this connection since the last flush */
	struct work *free_works;
	struct chunk *free_chunks;
	struct work works[LANE_WORKS];
	struct chunk chunks[LANE_CHUNKS];
	char *memory;
};

struct pipeline {
	struct source *src;
	struct target *dst;
	struct pipeline_options opts;
	uint64_t chunk_pages;
	unsigned int nr_lanes;
	unsigned int nr_threads;

	pthread_mutex_t lock;
	pthread_cond_t work;	/* something was queued, or it ends */
	pthread_cond_t room;	/* something was taken, or a lane is not busy */
	struct dirtytrack_extent queue[QUEUE];
	unsigned int first, queued;
	uint64_t queued_pages;	/* of data */
	bool quit;
	int error;
	atomic_bool stop;	/* @quit or @error: for those without the lock */
	atomic_bool told;	/* that it cannot write, by one of the lanes */
	struct pipeline_stats stats;
	/* One bit a page. */
	uint64_t *nonzero;	/* the target may have data */
	uint64_t *again;	/* lost: to be copied again */
	bool any_again;
	bool skip_dirty;	/* changes only while all lanes are idle */

	struct lane lanes[];
};

static int cancelled(struct pipeline *p)
{
	return (p->opts.cancel && *p->opts.cancel) || p->stop ? -EINTR : 0;
}

static uint64_t cost(const struct dirtytrack_extent *ext)
{
	return ext->state == DIRTYTRACK_STATE_DATA ? ext->npages : 0;
}

static void progress(struct pipeline *p)
{
	if (p->opts.progress)
		p->opts.progress(p->opts.progress_arg);
}

/* ---- requests of a lane ---- */

static void free_work(struct work *w)
{
	struct lane *lane = w->lane;

	if (w->chunk && !--w->chunk->users) {
		/* Last in, first out: the one whose memory is in the cache. */
		w->chunk->next = lane->free_chunks;
		lane->free_chunks = w->chunk;
	}
	w->chunk = NULL;
	w->next = lane->free_works;
	lane->free_works = w;
}

static void work_done(struct request *req, int err)
{
	struct work *w = (struct work *)req;
	struct lane *lane = w->lane;
	struct pipeline *p = lane->pipe;

	if (err == -ENOTCONN) {
		w->lost = true;
		lane->lost = true;
		return;
	}
	w->under_way = false;
	lane->under_way--;
	if (err) {
		if (!lane->error)
			lane->error = err;
	} else {
		pthread_mutex_lock(&p->lock);
		p->stats.requests++;
		p->stats.pages += req->npages;
		if (req->data)
			p->stats.data += req->npages;
		pthread_mutex_unlock(&p->lock);
		dtrack_bitmap_set(lane->unflushed, req->first, req->npages);
	}
	free_work(w);
}

/*
 * What a connection did that was lost, and was not flushed, may be lost.  Not what others
 * did: if their server died, they are lost as well, and if they were made since, it is
 * with the one that lives.
 */
static void distrust(struct lane *lane)
{
	struct pipeline *p = lane->pipe;
	uint64_t words = dtrack_bitmap_words(p->src->npages), i;

	pthread_mutex_lock(&p->lock);
	for (i = 0; i < words; i++) {
		uint64_t word = lane->unflushed[i];

		if (!word)
			continue;
		p->again[i] |= word;
		p->nonzero[i] |= word;
		lane->unflushed[i] = 0;
		p->any_again = true;
	}
	pthread_mutex_unlock(&p->lock);
}

static int reconnect(struct lane *lane)
{
	const struct timespec tick = { .tv_nsec = TICK_MS * 1000000L };
	struct pipeline *p = lane->pipe;
	double deadline = now() + p->opts.reconnect;
	int ret;

	if (p->opts.session)
		return -ENOTCONN;
	for (;;) {
		ret = cancelled(p);
		if (!ret)
			ret = p->dst->ops->revive(p->dst, lane->index);
		if (ret != -ENOTCONN)
			return ret;
		if (now() >= deadline)
			break;
		nanosleep(&tick, NULL);
	}
	msg_error("%s: the connection was lost, and could not be made again in %g s",
		  p->dst->name, p->opts.reconnect);
	return ret;
}

static int lane_revive(struct lane *lane)
{
	struct pipeline *p = lane->pipe;
	unsigned int i;
	int ret;

	while (lane->lost) {
		/* Others of the lane may not have heard of it yet. */
		for (i = 0; i < LANE_WORKS; i++)
			lane->works[i].lost = lane->works[i].under_way;
		ret = reconnect(lane);
		if (ret)
			return ret;
		lane->lost = false;
		distrust(lane);
		pthread_mutex_lock(&p->lock);
		p->stats.reconnects++;
		pthread_mutex_unlock(&p->lock);
		for (i = 0; i < LANE_WORKS && !lane->lost; i++) {
			struct work *w = &lane->works[i];

			if (!w->lost)
				continue;
			w->lost = false;
			pthread_mutex_lock(&p->lock);
			p->stats.resent += w->req.npages;
			pthread_mutex_unlock(&p->lock);
			ret = p->dst->ops->start(p->dst, lane->index, &w->req);
			if (ret)
				return ret;
		}
	}
	return 0;
}

/* See to what has become of the lane's requests. */
static int lane_check(struct lane *lane)
{
	struct pipeline *p = lane->pipe;
	int ret = lane->error;

	if (ret) {
		/* Said once, not by each lane; others may come here before there is @error. */
		if (!p->stop && !atomic_exchange(&p->told, true))
			msg_errno(ret, "%s: cannot write", p->dst->name);
		return ret;
	}
	return lane->lost ? lane_revive(lane) : 0;
}

static int lane_wait(struct lane *lane, int ms)
{
	struct pipeline *p = lane->pipe;
	int ret = cancelled(p);

	if (ret)
		return ret;
	ret = p->dst->ops->wait(p->dst, lane->index, ms);
	if (ret == -ENOTCONN) {
		lane->lost = true;
		ret = 0;
	}
	return ret ? ret : lane_check(lane);
}

static int get_work(struct lane *lane, struct work **w)
{
	while (!lane->free_works) {
		int ret = lane_wait(lane, WAIT_MS);

		if (ret)
			return ret;
	}
	*w = lane->free_works;
	lane->free_works = (*w)->next;
	(*w)->chunk = NULL;
	return 0;
}

static int get_chunk(struct lane *lane, struct chunk **c)
{
	while (!lane->free_chunks) {
		int ret = lane_wait(lane, WAIT_MS);

		if (ret)
			return ret;
	}
	*c = lane->free_chunks;
	lane->free_chunks = (*c)->next;
	(*c)->users = 0;
	return 0;
}

/* @chunk: NULL to make the pages zero. */
static int send(struct lane *lane, uint64_t first, uint64_t npages,
		struct chunk *chunk, const char *data)
{
	struct pipeline *p = lane->pipe;
	struct work *w;
	int ret = get_work(lane, &w);

	if (ret)
		return ret;
	w->req.first = first;
	w->req.npages = npages;
	w->req.data = data;
	w->chunk = chunk;
	if (chunk)
		chunk->users++;
	w->under_way = true;
	lane->under_way++;
	ret = p->dst->ops->start(p->dst, lane->index, &w->req);
	return ret ? ret : lane_check(lane);
}

/* ---- what a lane does with an extent ---- */

static void count_pages(struct pipeline *p, uint64_t npages)
{
	pthread_mutex_lock(&p->lock);
	p->stats.pages += npages;
	pthread_mutex_unlock(&p->lock);
}

/* The next run of [*first, end) that must be made zero, its bits cleared. */
static uint64_t take_nonzero(struct pipeline *p, uint64_t *first, uint64_t end)
{
	uint64_t count;

	pthread_mutex_lock(&p->lock);
	count = dtrack_bitmap_next_run(p->nonzero, end, first);
	if (count > p->dst->max_zero_pages)
		count = p->dst->max_zero_pages;
	dtrack_bitmap_clear(p->nonzero, *first, count);
	pthread_mutex_unlock(&p->lock);
	return count;
}

static int zero_pages(struct lane *lane, uint64_t first, uint64_t npages)
{
	struct pipeline *p = lane->pipe;
	uint64_t end = first + npages;
	uint64_t left = npages, count;

	while ((count = take_nonzero(p, &first, end))) {
		int ret = send(lane, first, count, NULL, NULL);

		if (ret)
			return ret;
		first += count;
		left -= count;
	}
	/* Those that were zero in the target. */
	count_pages(p, left);
	return 0;
}

/* Until data may be sent.  What is under way goes on. */
static int wait_turn(struct lane *lane)
{
	struct pipeline *p = lane->pipe;
	double left;

	if (!p->opts.limiter)
		return 0;
	while ((left = limiter_turn(p->opts.limiter) - now()) > 0) {
		const double step = left < TICK_MS / 1000.0 ? left :
							      TICK_MS / 1000.0;
		const struct timespec ts = { .tv_nsec = step * 1e9 };
		int ret = cancelled(p);

		if (!ret && lane->under_way)
			ret = lane_wait(lane, step * 1000 + 1);
		else if (!ret)
			nanosleep(&ts, NULL);
		if (ret)
			return ret;
	}
	return 0;
}

static int data_pages(struct lane *lane, uint64_t first, uint64_t npages,
		      struct chunk *chunk, const char *data)
{
	struct pipeline *p = lane->pipe;

	if (p->opts.limiter)
		limiter_count(p->opts.limiter, npages * DTRACK_PAGE_SIZE);
	/* Before it is written: a write that fails half way leaves data, too. */
	pthread_mutex_lock(&p->lock);
	dtrack_bitmap_set(p->nonzero, first, npages);
	pthread_mutex_unlock(&p->lock);
	return send(lane, first, npages, chunk, data);
}

static int read_pages(struct pipeline *p, uint64_t first, uint64_t npages,
		      void *buf)
{
	int ret;

	do {
		ret = p->src->ops->read(p->src, first, npages, buf);
		/* A signal that is nothing to stop for. */
	} while (ret == -EINTR && !cancelled(p));
	return ret;
}

/* What of a chunk's pages is in the log again: a bit each, @first being bit 0. */
static int find_dirty(struct pipeline *p, uint64_t first, uint64_t npages,
		      uint64_t *dirty)
{
	int ret;

	*dirty = 0;
	if (!p->skip_dirty || !p->src->ops->peek)
		return 0;
	do {
		ret = p->src->ops->peek(p->src, first, npages, dirty);
	} while (ret == -EINTR && !cancelled(p));
	if (ret || !*dirty)
		return ret;
	pthread_mutex_lock(&p->lock);
	p->stats.skipped += dtrack_bitmap_count(dirty, 0, npages);
	pthread_mutex_unlock(&p->lock);
	return 0;
}

static int copy_run(struct lane *lane, uint64_t first, uint64_t npages,
		    struct chunk *chunk, char *data)
{
	int ret = read_pages(lane->pipe, first, npages, data);

	while (npages && !ret) {
		bool zero;
		uint64_t n = same_run(data, npages, &zero);

		ret = zero ? zero_pages(lane, first, n) :
			     data_pages(lane, first, n, chunk, data);
		first += n;
		npages -= n;
		data += n * DTRACK_PAGE_SIZE;
	}
	return ret;
}

static int copy_chunk(struct lane *lane, uint64_t first, uint64_t npages)
{
	uint64_t dirty, start = 0, end;
	struct chunk *chunk;
	int ret = get_chunk(lane, &chunk);

	if (ret)
		return ret;
	/* Ours until everything of it is sent. */
	chunk->users = 1;
	/* All that may take long comes before the look at the log. */
	ret = wait_turn(lane);
	if (!ret)
		ret = find_dirty(lane->pipe, first, npages, &dirty);
	for (; start < npages && !ret; start = end) {
		start = dtrack_bitmap_next_clear(&dirty, npages, start);
		end = dtrack_bitmap_next(&dirty, npages, start);
		if (start < end)
			ret = copy_run(lane, first + start, end - start, chunk,
				       chunk->data + start * DTRACK_PAGE_SIZE);
	}
	if (!--chunk->users) {
		chunk->next = lane->free_chunks;
		lane->free_chunks = chunk;
	}
	return ret;
}

static int copy_extent(struct lane *lane, const struct dirtytrack_extent *ext)
{
	struct pipeline *p = lane->pipe;
	uint64_t page = ext->first, end = page + ext->npages;

	if (ext->state == DIRTYTRACK_STATE_HOLE)
		return zero_pages(lane, page, ext->npages);
	while (page < end) {
		uint64_t n = end - page < p->chunk_pages ? end - page :
							    p->chunk_pages;
		int ret = cancelled(p);

		if (!ret)
			ret = copy_chunk(lane, page, n);
		if (ret)
			return ret;
		page += n;
		if (!p->nr_threads)
			progress(p);
	}
	return 0;
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
		ret = have ? copy_extent(lane, &ext) : lane_wait(lane, WAIT_MS);
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
	progress(p);
	pthread_mutex_lock(&p->lock);
}

/* ---- the owner's side ---- */

void pipeline_skip_dirty(struct pipeline *p, bool skip)
{
	p->skip_dirty = skip;
}

static int queue_piece(struct pipeline *p, const struct dirtytrack_extent *ext)
{
	int ret;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		ret = p->error ? p->error : cancelled(p);
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

	if (!p->nr_threads)
		return p->error ? p->error :
		       (p->error = copy_extent(&p->lanes[0], ext));
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
	progress(p);
	return 0;
}

static int drain_once(struct pipeline *p)
{
	int ret = 0;

	if (!p->nr_threads) {
		while (!ret && p->lanes[0].under_way)
			ret = lane_wait(&p->lanes[0], WAIT_MS);
		return ret ? (p->error = ret) : p->error;
	}
	pthread_mutex_lock(&p->lock);
	for (;;) {
		ret = p->error ? p->error : cancelled(p);
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
	int ret = p->dst->ops->flush(p->dst, lane->index);

	if (ret != -ENOTCONN)
		return ret;
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

		ret = t->ops->extent(t, page, &end, &zero);
		if (!ret && !zero)
			ret = clear_extent(p, page, end);
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

static int lane_init(struct pipeline *p, unsigned int index)
{
	struct lane *lane = &p->lanes[index];
	unsigned int i;

	lane->pipe = p;
	lane->index = index;
	lane->unflushed = dtrack_bitmap_alloc(p->src->npages);
	if (!lane->unflushed)
		return -ENOMEM;
	/* Pages are touched as they are needed: most lanes never use all of it. */
	if (posix_memalign((void **)&lane->memory, DTRACK_PAGE_SIZE,
			   LANE_CHUNKS * CHUNK_BYTES)) {
		lane->memory = NULL;
		return -ENOMEM;
	}
	for (i = 0; i < LANE_CHUNKS; i++) {
		struct chunk *c = &lane->chunks[LANE_CHUNKS - 1 - i];

		c->data = lane->memory + i * CHUNK_BYTES;
		c->next = lane->free_chunks;
		lane->free_chunks = c;
	}
	for (i = 0; i < LANE_WORKS; i++) {
		struct work *w = &lane->works[i];

		w->lane = lane;
		w->req.done = work_done;
		w->next = lane->free_works;
		lane->free_works = w;
	}
	return 0;
}

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
		free(p->lanes[i].unflushed);
		free(p->lanes[i].memory);
	}
	pthread_cond_destroy(&p->room);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p->nonzero);
	free(p->again);
	free(p);
}
