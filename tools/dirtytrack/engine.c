// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "engine.h"
#include "image.h"
#include "msg.h"
#include "pause.h"
#include "source.h"
#include "units.h"

/* Pages of one read: 1 MiB is in the cache when it is looked at and written. */
#define CHUNK 256
#define CHUNK_BYTES (CHUNK * DTRACK_PAGE_SIZE)

/*
 * Extents taken at once.  They are copied before the next are taken: the less
 * time between the two, the fewer pages are copied again.
 */
#define NR_EXTENTS 1024

/* A round makes progress when it brings the rest below this part of the least. */
#define PROGRESS 0.9
/* So many in a row that do not end the rounds. */
#define IDLE_ROUNDS 3

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

static int read_pages(struct copy *c, uint64_t first, uint64_t npages,
		      void *buf)
{
	int ret;

	do {
		ret = c->src->ops->read(c->src, first, npages, buf);
	} while (again(c, ret));
	return ret;
}

static int copy_extent(struct copy *c, struct buffers *buf,
		       const struct dirtytrack_extent *ext)
{
	uint64_t page = ext->first, end = ext->first + ext->npages;
	int ret;

	if (ext->state == DIRTYTRACK_STATE_HOLE) {
		ret = image_discard(c->img, page, ext->npages);
		c->round.pages += ext->npages;
		return ret;
	}
	while (page < end) {
		uint64_t n = end - page < CHUNK ? end - page : CHUNK;

		ret = cancelled(c);
		if (!ret)
			ret = read_pages(c, page, n, buf->chunk);
		if (!ret)
			ret = image_write(c->img, page, n, buf->chunk);
		if (ret)
			return ret;
		page += n;
		c->round.pages += n;
		tell(c, COPY_PROGRESS);
	}
	return 0;
}

/* Take and copy what is dirty, each page at most once. */
static int copy_round(struct copy *c, struct buffers *buf)
{
	uint64_t written = c->img->written;
	uint64_t next = 0;
	int nr, i, ret;

	c->round.round++;
	c->round.expected = c->round.left;
	c->round.pages = 0;
	c->round.start = now();
	tell(c, COPY_ROUND_BEGIN);
	for (;;) {
		ret = cancelled(c);
		if (ret)
			return ret;
		nr = c->src->ops->take(c->src, &next, buf->extents,
				       NR_EXTENTS);
		if (again(c, nr))
			continue;
		if (nr < 0)
			return nr;
		if (!nr)
			break;
		for (i = 0; i < nr; i++) {
			ret = copy_extent(c, buf, &buf->extents[i]);
			if (ret)
				return ret;
		}
	}
	c->round.seconds = now() - c->round.start;
	c->round.data = c->img->written - written;
	c->total_pages += c->round.pages;
	c->total_seconds += c->round.seconds;
	return 0;
}

static int count_left(struct copy *c)
{
	int ret;

	do {
		ret = c->src->ops->count(c->src, &c->round.left);
	} while (again(c, ret));
	return ret;
}

/*
 * Seconds for @pages.  The first pass may be fast for being sequential, a late
 * round slow for being small: the slower one is the safer guess.
 */
static double estimate(const struct copy *c, uint64_t pages)
{
	double last = c->round.seconds / (c->round.pages ? c->round.pages : 1);
	double all = c->total_seconds / (c->total_pages ? c->total_pages : 1);

	return pages * (last > all ? last : all);
}

static int copy_rounds(struct copy *c, struct buffers *buf)
{
	uint64_t least = UINT64_MAX;
	unsigned int idle = 0;
	int ret;

	ret = count_left(c);
	if (ret)
		return ret;
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

		if (c->round.rest_seconds <= c->downtime) {
			c->end = COPY_FITS;
			return 0;
		}
		if (c->round.left < least * PROGRESS) {
			least = c->round.left;
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

/*
 * Compare all of the image with all of the memory.  Pages that are holes in both
 * are zero in both; all others are read from both.  The file is asked what it has,
 * not what was noted when it was written: that is to be verified, too.
 */
static int verify(struct copy *c, struct buffers *buf)
{
	uint64_t npages = c->src->npages;
	uint64_t page = 0, which = 0, first_different = 0;
	int ret;

	c->verified = 0;
	c->different = 0;
	while (page < npages) {
		uint64_t data, written, n, bad;

		ret = cancelled(c);
		if (!ret)
			ret = c->src->ops->next_data(c->src, page, &data);
		if (!ret)
			ret = image_next_data(c->img, page, &written);
		if (ret)
			return ret;
		page = data < written ? data : written;
		n = npages - page < CHUNK ? npages - page : CHUNK;
		if (!n)
			break;
		ret = read_pages(c, page, n, buf->chunk);
		if (!ret)
			ret = image_read(c->img, page, n, buf->other);
		if (ret)
			return ret;
		bad = compare(buf->chunk, buf->other, n, &which);
		if (bad && !c->different)
			first_different = page + which;
		c->different += bad;
		page += n;
		c->verified = page;
		tell(c, COPY_VERIFY);
	}
	c->verified = npages;
	tell(c, COPY_VERIFY);
	if (!c->different)
		return 0;
	msg_error("verify: %" PRIu64 " of %" PRIu64 " pages differ, the first is page %" PRIu64,
		  c->different, npages, first_different);
	return -EBADMSG;
}

static int last_round(struct copy *c, struct buffers *buf)
{
	int ret;

	c->round.paused = c->pause != NULL;
	ret = copy_round(c, buf);
	if (ret)
		return ret;
	c->round.left = 0;
	c->round.dirty_rate = 0;
	c->round.rest_seconds = 0;
	tell(c, COPY_ROUND_END);
	return c->verify ? verify(c, buf) : 0;
}

static int paused_part(struct copy *c, struct buffers *buf)
{
	int ret, resumed;

	tell(c, COPY_PAUSING);
	c->was_paused = true;
	c->paused_at = now();
	/* A terminal or pipe that takes no output must not keep the guest paused. */
	msg_hold(true);
	ret = pause_begin(c->pause);
	if (!ret) {
		tell(c, COPY_PAUSED);
		ret = last_round(c, buf);
	}
	resumed = pause_end(c->pause);
	c->seconds_paused = now() - c->paused_at;
	msg_hold(false);
	tell(c, COPY_RESUMED);
	if (ret)
		return ret;
	return resumed ? -EHOSTDOWN : 0;
}

static int check_downtime(struct copy *c)
{
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
		tell(c, COPY_ROUNDS_END);
		ret = check_downtime(c);
	}
	if (!ret)
		ret = c->pause ? paused_part(c, buf) : last_round(c, buf);
	free(buf);
	return ret;
}
