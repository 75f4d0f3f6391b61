// SPDX-License-Identifier: GPL-2.0-only
/*
 * An NBD export as a target.  A lane is a connection, if the server says that
 * several of them see the same; else there is one.
 *
 * A page that is zero and one without memory are both sent as WRITE_ZEROES: TRIM is
 * a hint, after which the server may still return the old content, while a
 * WRITE_ZEROES that does not forbid holes lets the server deallocate, too.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "../lib/dirtytrack.h"
#include "msg.h"
#include "nbd-client.h"
#include "target.h"
#include "units.h"

/*
 * Pages of one WRITE_ZEROES: what a server without a faster way to do it writes
 * before it answers, or serves others.
 */
#define MAX_ZERO_PAGES (256 * 1024 * 1024 / DTRACK_PAGE_SIZE)
/* Bytes whose state is asked for at once: each page of them may be an extent of its own. */
#define MAX_STATUS (256 * 1024 * 1024)
/* How long a server may take to let a client in; and again, when others can be tried. */
#define CONNECT_SECONDS 30
#define REVIVE_SECONDS 10

/* Bytes of one state, from the end of the run before. */
struct run {
	uint64_t end;
	bool zero;
};

struct target_nbd {
	struct target base;
	char *uri;
	bool can_flush;
	bool can_zero;
	bool can_extents;
	uint64_t size;
	char *zeroes;			/* without WRITE_ZEROES */
	/* What the server said last of what it has; it holds until a flush. */
	struct run *runs;
	size_t nr_runs, room;
	size_t run;			/* where the last answer was found */
	uint64_t runs_first;		/* bytes */
	struct nbd_handle *lanes[];
};

static struct target_nbd *to_nbd(struct target *t)
{
	return (struct target_nbd *)t;
}

/* libnbd's messages begin with the function that failed. */
static int fail(struct target_nbd *t, const char *what)
{
	int err = nbd_get_errno();

	msg_error("%s: %s: %s", t->uri, what, nbd_get_error());
	return err ? -err : -EIO;
}

static bool is_lost(struct nbd_handle *nbd)
{
	return !nbd || nbd_aio_is_dead(nbd) > 0 || nbd_aio_is_closed(nbd) > 0;
}

static int request_done(void *arg, int *error)
{
	struct request *req = arg;
	int err = *error;

	/* What libnbd says of requests on a dead connection, and a server that ends. */
	if (err == ENOTCONN || err == ESHUTDOWN)
		err = ENOTCONN;
	req->done(req, -err);
	/* Retire it. */
	return 1;
}

static int send_zeroes(struct target_nbd *t, struct nbd_handle *nbd,
		       struct request *req, nbd_completion_callback done)
{
	if (t->can_zero)
		return nbd_aio_zero(nbd, req->npages * DTRACK_PAGE_SIZE,
				    req->first * DTRACK_PAGE_SIZE, done, 0);
	return nbd_aio_pwrite(nbd, t->zeroes, req->npages * DTRACK_PAGE_SIZE,
			      req->first * DTRACK_PAGE_SIZE, done, 0);
}

static int nbd_start(struct target *base, unsigned int lane,
		     struct request *req)
{
	struct target_nbd *t = to_nbd(base);
	struct nbd_handle *nbd = t->lanes[lane];
	nbd_completion_callback done = {
		.callback = request_done,
		.user_data = req,
	};
	int64_t cookie;

	if (is_lost(nbd)) {
		req->done(req, -ENOTCONN);
		return 0;
	}
	if (req->data)
		cookie = nbd_aio_pwrite(nbd, req->data,
					req->npages * DTRACK_PAGE_SIZE,
					req->first * DTRACK_PAGE_SIZE, done, 0);
	else
		cookie = send_zeroes(t, nbd, req, done);
	if (cookie >= 0)
		return 0;
	if (!is_lost(nbd))
		return fail(t, "cannot send");
	req->done(req, -ENOTCONN);
	return 0;
}

static int nbd_wait(struct target *base, unsigned int lane, int ms)
{
	struct target_nbd *t = to_nbd(base);
	struct nbd_handle *nbd = t->lanes[lane];

	if (is_lost(nbd))
		return -ENOTCONN;
	if (nbd_poll(nbd, ms) >= 0)
		return is_lost(nbd) ? -ENOTCONN : 0;
	if (is_lost(nbd))
		return -ENOTCONN;
	/* poll(2) itself, for a signal. */
	return nbd_get_errno() == EINTR ? 0 : fail(t, "cannot wait");
}

static void nbd_drop(struct target *base, unsigned int lane)
{
	struct target_nbd *t = to_nbd(base);

	nbd_close(t->lanes[lane]);
	t->lanes[lane] = NULL;
}

static int check_export(struct target_nbd *t, struct nbd_handle *nbd)
{
	int64_t size = nbd_get_size(nbd);
	int64_t min = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);

	if (size < 0)
		return fail(t, "cannot ask for its size");
	t->size = size;
	if (t->size / DTRACK_PAGE_SIZE < t->base.npages) {
		msg_error("%s: it has %" PRIu64 " bytes, %" PRIu64 " are to be copied",
			  t->uri, t->size, t->base.npages * DTRACK_PAGE_SIZE);
		return -ENOSPC;
	}
	if (nbd_is_read_only(nbd) != 0) {
		msg_error("%s: it is read-only", t->uri);
		return -EROFS;
	}
	if (min > (int64_t)DTRACK_PAGE_SIZE) {
		msg_error("%s: its blocks are larger than a page", t->uri);
		return -EINVAL;
	}
	return 0;
}

static int nbd_revive(struct target *base, unsigned int lane)
{
	struct target_nbd *t = to_nbd(base);
	int ret;

	nbd_drop(base, lane);
	ret = nbd_client_open(&t->lanes[lane], t->uri, now() + REVIVE_SECONDS);
	if (ret)
		return ret == -EINTR ? ret : -ENOTCONN;
	/* It may be another server by now. */
	return check_export(t, t->lanes[lane]);
}

static int nbd_flush_lane(struct target *base, unsigned int lane)
{
	struct target_nbd *t = to_nbd(base);
	struct nbd_handle *nbd = t->lanes[lane];
	int ret;

	/* What was written since it was asked is there now. */
	t->nr_runs = t->run = 0;
	if (is_lost(nbd))
		return -ENOTCONN;
	/*
	 * Without FLUSH what is done is all that can be had; asking anything of the
	 * server shows at least whether it is still the one that did it.
	 */
	if (t->can_flush)
		ret = nbd_client_wait(nbd, nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0),
				      base->deadline);
	else
		ret = nbd_poll(nbd, 0) < 0 ? -EIO : 0;
	if (ret == -EINTR || ret == -ETIMEDOUT)
		return ret;
	if (ret) {
		if (is_lost(nbd) || nbd_get_errno() == ESHUTDOWN)
			return -ENOTCONN;
		return fail(t, "cannot flush");
	}
	return is_lost(nbd) ? -ENOTCONN : 0;
}

static bool add_run(struct target_nbd *t, uint64_t bytes, bool zero)
{
	struct run *last = t->nr_runs ? &t->runs[t->nr_runs - 1] : NULL;
	uint64_t end = (last ? last->end : t->runs_first) + bytes;

	if (last && last->zero == zero) {
		last->end = end;
		return true;
	}
	if (t->nr_runs == t->room) {
		size_t room = t->room ? 2 * t->room : 64;
		struct run *runs = realloc(t->runs, room * sizeof(*runs));

		if (!runs)
			return false;
		t->runs = runs;
		t->room = room;
	}
	t->runs[t->nr_runs++] = (struct run){ .end = end, .zero = zero };
	return true;
}

static int on_extents(void *arg, const char *context, uint64_t offset,
		      uint32_t *entries, size_t nr, int *error)
{
	struct target_nbd *t = arg;
	size_t i;

	(void)offset;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
		return 0;
	for (i = 0; i + 1 < nr; i += 2)
		if (!add_run(t, entries[i], entries[i + 1] & LIBNBD_STATE_ZERO)) {
			*error = ENOMEM;
			return -1;
		}
	return 0;
}

/* What it has from @pos on, and how far it says it. */
static int ask_runs(struct target_nbd *t, uint64_t pos)
{
	nbd_extent_callback callback = {
		.callback = on_extents,
		.user_data = t,
	};
	uint64_t all = t->base.npages * DTRACK_PAGE_SIZE;
	uint64_t asked = all - pos < MAX_STATUS ? all - pos : MAX_STATUS;
	int ret;

	t->runs_first = pos;
	t->nr_runs = t->run = 0;
	ret = nbd_client_wait(t->lanes[0],
			      nbd_aio_block_status(t->lanes[0], asked, pos, callback,
						   NBD_NULL_COMPLETION, 0),
			      t->base.deadline);
	if (ret == -EINTR || ret == -ETIMEDOUT) {
		/* The answer has nowhere to go any more. */
		nbd_drop(&t->base, 0);
		t->nr_runs = 0;
		return ret;
	}
	if (ret) {
		t->nr_runs = 0;
		return fail(t, "cannot ask what it has");
	}
	if (t->nr_runs && t->runs[t->nr_runs - 1].end > pos)
		return 0;
	t->nr_runs = 0;
	msg_error("%s: it says nothing of what it has at %" PRIu64, t->uri, pos);
	return -EPROTO;
}

static uint64_t run_first(const struct target_nbd *t)
{
	return t->run ? t->runs[t->run - 1].end : t->runs_first;
}

/*
 * Byte @pos is in t->runs[t->run] after this.  Who goes on from page to page, which
 * may be of a run each, asks once for many.
 */
static int find_run(struct target_nbd *t, uint64_t pos)
{
	while (t->run && pos < run_first(t))
		t->run--;
	while (t->run < t->nr_runs && t->runs[t->run].end <= pos)
		t->run++;
	return t->run < t->nr_runs && pos >= run_first(t) ? 0 : ask_runs(t, pos);
}

static int nbd_extent(struct target *base, uint64_t page, uint64_t *end,
		      bool *zero)
{
	struct target_nbd *t = to_nbd(base);
	uint64_t run_end;
	int ret;

	*end = base->npages;
	*zero = false;
	if (!t->can_extents)
		return 0;
	ret = find_run(t, page * DTRACK_PAGE_SIZE);
	if (ret)
		return ret;
	/* Extents need not end where pages do: a part of a page is not zero. */
	run_end = t->runs[t->run].end;
	*zero = t->runs[t->run].zero && run_end / DTRACK_PAGE_SIZE > page;
	*end = *zero ? run_end / DTRACK_PAGE_SIZE :
		       (run_end + DTRACK_PAGE_SIZE - 1) / DTRACK_PAGE_SIZE;
	/* The last extent of a reply may be longer than what was asked for. */
	if (*end > base->npages)
		*end = base->npages;
	return 0;
}

static int nbd_read(struct target *base, uint64_t first, uint64_t npages,
		    void *buf)
{
	struct target_nbd *t = to_nbd(base);
	struct nbd_handle *nbd = t->lanes[0];
	char *to = buf;

	while (npages) {
		uint64_t n = npages < base->max_pages ? npages :
							base->max_pages;
		int ret = nbd_client_wait(nbd,
					  nbd_aio_pread(nbd, to, n * DTRACK_PAGE_SIZE,
							first * DTRACK_PAGE_SIZE,
							NBD_NULL_COMPLETION, 0),
					  base->deadline);

		if (ret == -EINTR || ret == -ETIMEDOUT) {
			/* As above. */
			nbd_drop(base, 0);
			return ret;
		}
		if (ret)
			return fail(t, "cannot read");
		first += n;
		npages -= n;
		to += n * DTRACK_PAGE_SIZE;
	}
	return 0;
}

static void close_nbd(struct target *base)
{
	struct target_nbd *t = to_nbd(base);
	unsigned int i;

	for (i = 0; i < base->lanes; i++)
		nbd_client_close(t->lanes[i]);
	free(t->runs);
	free(t->zeroes);
	free(t->uri);
	free(t);
}

static const struct target_ops ops = {
	.start = nbd_start,
	.wait = nbd_wait,
	.revive = nbd_revive,
	.drop = nbd_drop,
	.flush = nbd_flush_lane,
	.extent = nbd_extent,
	.read = nbd_read,
	.close = close_nbd,
};

/* What the first connection says of the server. */
static int ask(struct target_nbd *t, unsigned int *lanes)
{
	struct nbd_handle *nbd = t->lanes[0];
	int64_t max = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
	int ret = check_export(t, nbd);

	if (ret)
		return ret;
	/* A server that does not say takes 32 MiB; more is never sent at once. */
	t->base.max_pages = max > 0 && max < 1024 * 1024 ?
			    max / DTRACK_PAGE_SIZE : 256;
	t->can_flush = nbd_can_flush(nbd) > 0;
	t->can_zero = nbd_can_zero(nbd) > 0;
	t->can_extents =
		nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	if (nbd_can_multi_conn(nbd) <= 0)
		*lanes = 1;
	t->base.max_zero_pages = MAX_ZERO_PAGES;
	if (t->can_zero)
		return 0;
	t->base.max_zero_pages = t->base.max_pages;
	t->zeroes = calloc(t->base.max_pages, DTRACK_PAGE_SIZE);
	if (!t->zeroes) {
		msg_errno(ENOMEM, "%s", t->uri);
		return -ENOMEM;
	}
	return 0;
}

struct target *target_nbd(const char *uri, uint64_t npages, unsigned int lanes)
{
	struct target_nbd *t = calloc(1, sizeof(*t) +
					 lanes * sizeof(t->lanes[0]));
	unsigned int i;
	int ret;

	if (!t || !(t->uri = strdup(uri))) {
		msg_errno(ENOMEM, "%s", uri);
		free(t);
		return NULL;
	}
	t->base.ops = &ops;
	t->base.name = t->uri;
	t->base.npages = npages;
	t->base.readable = true;
	t->base.deadline = INFINITY;
	for (i = 0; i < lanes; i++) {
		ret = nbd_client_open(&t->lanes[i], uri, now() + CONNECT_SECONDS);
		if (ret == -EIO)
			fail(t, "cannot connect");
		else if (ret == -ETIMEDOUT)
			msg_error("%s: the server does not let us in", uri);
		if (ret)
			goto fail;
		t->base.lanes = i + 1;
		if (!i && ask(t, &lanes))
			goto fail;
	}
	return &t->base;

fail:
	close_nbd(&t->base);
	return NULL;
}
