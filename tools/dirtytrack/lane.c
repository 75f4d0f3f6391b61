// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "lane.h"
#include "limiter.h"
#include "msg.h"
#include "source.h"
#include "units.h"
#include "zero.h"

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
		p->moved = now();
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
		ret = pipeline_check(p);
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

int lane_revive(struct lane *lane)
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

/* Without threads nobody else looks at the time. */
static int check(struct pipeline *p)
{
	return p->nr_threads ? pipeline_cancelled(p) : pipeline_check(p);
}

int lane_wait(struct lane *lane, int ms)
{
	struct pipeline *p = lane->pipe;
	int ret = check(p);

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
		int ret = pipeline_cancelled(p);

		/* It is not the target that is slow. */
		pipeline_moved(p);
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
	} while (ret == -EINTR && !pipeline_cancelled(p));
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
	} while (ret == -EINTR && !pipeline_cancelled(p));
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

int lane_copy(struct lane *lane, const struct dirtytrack_extent *ext)
{
	struct pipeline *p = lane->pipe;
	uint64_t page = ext->first, end = page + ext->npages;

	if (ext->state == DIRTYTRACK_STATE_HOLE)
		return zero_pages(lane, page, ext->npages);
	while (page < end) {
		uint64_t n = end - page < p->chunk_pages ? end - page :
							    p->chunk_pages;
		int ret = check(p);

		if (!ret)
			ret = copy_chunk(lane, page, n);
		if (ret)
			return ret;
		page += n;
		if (!p->nr_threads)
			pipeline_progress(p);
	}
	return 0;
}

/* ---- making and ending it ---- */

int lane_init(struct pipeline *p, unsigned int index)
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

void lane_free(struct lane *lane)
{
	free(lane->unflushed);
	free(lane->memory);
}
