// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pipeline, to a server that is as nasty as a protocol allows: requests are done
 * late and in any order, connections break with requests under way, and a server that
 * dies forgets what was not flushed.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../dirtytrack/msg.h"
#include "../dirtytrack/pipeline.h"
#include "../dirtytrack/source.h"
#include "../dirtytrack/target.h"
#include "../dirtytrack/units.h"
#include "../lib/dirtytrack.h"
#include "tap.h"

#define PAGE DTRACK_PAGE_SIZE
#define NPAGES 8192
#define MAX_LANES 8
#define MAX_HELD 128

/* ---- memory to be copied ---- */

static struct memory {
	struct source base;
	char *bytes;
	uint64_t *resident;
	uint64_t *dirty;		/* in the log again */
	int fail_read;
} memory;

static int memory_read(struct source *src, uint64_t first, uint64_t npages,
		       void *buf)
{
	(void)src;
	if (memory.fail_read)
		return memory.fail_read;
	memcpy(buf, memory.bytes + first * PAGE, npages * PAGE);
	return 0;
}

static int memory_extent(struct source *src, uint64_t page, uint64_t *end,
			 bool *hole)
{
	*hole = !dtrack_bitmap_test(memory.resident, page);
	*end = *hole ? dtrack_bitmap_next(memory.resident, src->npages, page) :
		       dtrack_bitmap_next_clear(memory.resident, src->npages,
						page);
	return 0;
}

static int memory_peek(struct source *src, uint64_t first, uint64_t npages,
		       uint64_t *dirty)
{
	uint64_t i;

	(void)src;
	for (i = 0; i < npages; i++)
		if (dtrack_bitmap_test(memory.dirty, first + i))
			*dirty |= UINT64_C(1) << i;
	return 0;
}

static const struct source_ops memory_ops = {
	.peek = memory_peek,
	.read = memory_read,
	.extent = memory_extent,
};

/* ---- a server ---- */

struct fake_lane {
	struct request *held[MAX_HELD];
	unsigned int nr;
	unsigned int incarnation;	/* of the server that it is connected to */
	bool broken;
};

static struct server {
	struct target base;
	pthread_mutex_t lock;
	char *bytes;
	char *stable;			/* what was flushed */
	unsigned char *under_way;	/* requests for each page */
	unsigned int incarnation;
	bool down;
	bool stuck;
	useconds_t slow;
	unsigned int seed;
	unsigned int most_held;
	uint64_t written, zeroed, largest;
	unsigned int overlaps;
	/* After so many requests: */
	unsigned int requests, break_at, die_at, fail_at;
	int fail;
	struct fake_lane lanes[MAX_LANES];
} server;

static void die(void)
{
	server.incarnation++;
	memcpy(server.bytes, server.stable, NPAGES * PAGE);
}

static void mark(const struct request *req, int how)
{
	uint64_t i;

	for (i = req->first; i < req->first + req->npages; i++) {
		server.under_way[i] += how;
		if (server.under_way[i] > 1)
			server.overlaps++;
	}
}

static void apply(const struct request *req)
{
	char *to = server.bytes + req->first * PAGE;

	if (req->data) {
		memcpy(to, req->data, req->npages * PAGE);
		server.written += req->npages;
	} else {
		memset(to, 0, req->npages * PAGE);
		server.zeroed += req->npages;
	}
}

static bool lane_lost(struct fake_lane *lane)
{
	return lane->broken || lane->incarnation != server.incarnation;
}

static int fake_start(struct target *t, unsigned int index, struct request *req)
{
	struct fake_lane *lane = &server.lanes[index];
	bool lost;

	(void)t;
	pthread_mutex_lock(&server.lock);
	server.requests++;
	if (server.requests == server.break_at)
		lane->broken = true;
	if (server.requests == server.die_at)
		die();
	lost = lane_lost(lane);
	if (!lost) {
		if (req->npages > server.largest)
			server.largest = req->npages;
		mark(req, 1);
		lane->held[lane->nr++] = req;
		if (lane->nr > server.most_held)
			server.most_held = lane->nr;
	}
	pthread_mutex_unlock(&server.lock);
	if (lost)
		req->done(req, -ENOTCONN);
	return 0;
}

/* A request under way is done, any of them. */
static int fake_wait(struct target *t, unsigned int index, int ms)
{
	struct fake_lane *lane = &server.lanes[index];
	struct request *req = NULL;
	int err = 0;

	(void)t;
	(void)ms;
	pthread_mutex_lock(&server.lock);
	if (lane_lost(lane)) {
		pthread_mutex_unlock(&server.lock);
		return -ENOTCONN;
	}
	if (server.slow)
		usleep(server.slow);
	if (lane->nr && !server.stuck) {
		unsigned int i = rand_r(&server.seed) % lane->nr;

		req = lane->held[i];
		lane->held[i] = lane->held[--lane->nr];
		mark(req, -1);
		if (server.fail && server.requests >= server.fail_at)
			err = server.fail;
		else
			apply(req);
	}
	pthread_mutex_unlock(&server.lock);
	if (req)
		req->done(req, err);
	else
		usleep(1000);
	return 0;
}

static void forget(struct fake_lane *lane)
{
	while (lane->nr) {
		struct request *req = lane->held[--lane->nr];

		/* Half of what was under way arrived all the same. */
		mark(req, -1);
		if (lane->incarnation == server.incarnation && lane->nr % 2)
			apply(req);
	}
}

static int fake_revive(struct target *t, unsigned int index)
{
	struct fake_lane *lane = &server.lanes[index];
	int ret = 0;

	(void)t;
	pthread_mutex_lock(&server.lock);
	forget(lane);
	if (server.down) {
		ret = -ENOTCONN;
	} else {
		lane->broken = false;
		lane->incarnation = server.incarnation;
	}
	pthread_mutex_unlock(&server.lock);
	return ret;
}

static void fake_drop(struct target *t, unsigned int index)
{
	(void)t;
	pthread_mutex_lock(&server.lock);
	forget(&server.lanes[index]);
	pthread_mutex_unlock(&server.lock);
}

/* Unless there is a deadline. */
static int wait_for_ever(void)
{
	while (now() <= server.base.deadline)
		usleep(10000);
	return -ETIMEDOUT;
}

static int fake_flush(struct target *t, unsigned int index)
{
	struct fake_lane *lane = &server.lanes[index];
	int ret = 0;

	(void)t;
	pthread_mutex_lock(&server.lock);
	if (lane_lost(lane))
		ret = -ENOTCONN;
	else if (server.stuck)
		ret = wait_for_ever();
	else
		memcpy(server.stable, server.bytes, NPAGES * PAGE);
	pthread_mutex_unlock(&server.lock);
	return ret;
}

static int fake_extent(struct target *t, uint64_t page, uint64_t *end,
		       bool *zero)
{
	static const char zeroes[PAGE];

	(void)t;
	if (server.stuck)
		return wait_for_ever();
	*zero = !memcmp(server.bytes + page * PAGE, zeroes, PAGE);
	*end = page + 1;
	return 0;
}

static const struct target_ops server_ops = {
	.start = fake_start,
	.wait = fake_wait,
	.revive = fake_revive,
	.drop = fake_drop,
	.flush = fake_flush,
	.extent = fake_extent,
};

/* ---- */

static volatile sig_atomic_t cancel;
static struct pipeline *pipe_;

static void fill(uint64_t page, unsigned int value)
{
	unsigned int *word = (unsigned int *)(memory.bytes + page * PAGE);
	size_t i;

	for (i = 0; i < PAGE / sizeof(*word); i++)
		word[i] = value ? value * 2654435761u + i : 0;
}

/* Data, single zero pages in it, and a half without memory. */
static bool set_up(unsigned int lanes, bool threads)
{
	struct pipeline_options opts = {
		.threads = threads,
		.reconnect = 5,
		.cancel = &cancel,
	};
	unsigned char *under_way = server.under_way;
	char *bytes = server.bytes, *stable = server.stable;
	uint64_t i;

	memset(memory.bytes, 0, NPAGES * PAGE);
	dtrack_bitmap_clear(memory.resident, 0, NPAGES);
	dtrack_bitmap_clear(memory.dirty, 0, NPAGES);
	for (i = 0; i < NPAGES; i++)
		if (i / 700 % 2 == 0) {
			fill(i, i % 11 ? i + 1 : 0);
			dtrack_bitmap_set(memory.resident, i, 1);
		}
	memory.base.ops = &memory_ops;
	memory.base.npages = NPAGES;
	memory.fail_read = 0;

	memset(&server, 0, sizeof(server));
	pthread_mutex_init(&server.lock, NULL);
	server.bytes = bytes;
	server.stable = stable;
	server.under_way = under_way;
	memset(bytes, 0, NPAGES * PAGE);
	memset(stable, 0, NPAGES * PAGE);
	memset(under_way, 0, NPAGES);
	server.base.ops = &server_ops;
	server.base.name = "server";
	server.base.npages = NPAGES;
	server.base.lanes = lanes;
	server.base.max_pages = UINT64_MAX;
	server.base.max_zero_pages = UINT64_MAX;
	server.seed = 1;
	cancel = 0;
	msg_forget();
	return !pipeline_open(&pipe_, &memory.base, &server.base, &opts);
}

static int push_run(uint64_t first, uint64_t npages, uint32_t state)
{
	struct dirtytrack_extent ext = {
		.first = first,
		.npages = npages,
		.state = state,
	};

	return pipeline_push(pipe_, &ext);
}

static int push_resident(void)
{
	uint64_t first, count;
	int ret;

	dtrack_for_each_run(first, count, memory.resident, NPAGES) {
		ret = push_run(first, count, DIRTYTRACK_STATE_DATA);
		if (ret)
			return ret;
	}
	return 0;
}

static bool same(void)
{
	return !memcmp(server.bytes, memory.bytes, NPAGES * PAGE);
}

static void everything_arrives(void)
{
	struct pipeline_stats stats;
	unsigned int lanes;
	uint64_t data, resident = dtrack_bitmap_count(memory.resident, 0, NPAGES);

	for (lanes = 0; lanes <= MAX_LANES; lanes += 4) {
		CHECK(set_up(lanes ? lanes : 1, lanes > 0));
		resident = dtrack_bitmap_count(memory.resident, 0, NPAGES);
		CHECK_EQ(pipeline_clear(pipe_), 0);
		CHECK_EQ(push_resident(), 0);
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK(same());
		CHECK_EQ(pipeline_flush(pipe_, true), 0);
		CHECK(!memcmp(server.stable, memory.bytes, NPAGES * PAGE));
		pipeline_get_stats(pipe_, &stats);
		data = pipeline_data_pages(pipe_);
		pipeline_close(pipe_);
		CHECK_EQ(stats.pages, resident);
		CHECK_EQ(stats.data, server.written);
		CHECK_EQ(data, server.written);
		/* A page that is zero there is not made zero. */
		CHECK_EQ(server.zeroed, 0);
		CHECK_EQ(server.overlaps, 0);
		CHECK_EQ(stats.resent, 0);
		/* More than one at a time, or it is no pipeline. */
		CHECK(server.most_held > 8);
	}
}

/* Rounds: pages get data, lose it, and are discarded. */
static void rounds(void)
{
	unsigned int seed = 7, round, i;

	CHECK(set_up(4, true));
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	for (round = 1; round < 20; round++) {
		uint64_t page = 0;

		for (i = 0; i < 100; i++) {
			uint64_t n = 1 + rand_r(&seed) % 20, k;
			unsigned int what = rand_r(&seed) % 3;

			page += rand_r(&seed) % 60;
			for (k = page; k < page + n; k++)
				fill(k, what ? round * 7 + k : 0);
			CHECK_EQ(push_run(page, n, what == 2 || what == 1 ?
					  DIRTYTRACK_STATE_DATA :
					  DIRTYTRACK_STATE_HOLE), 0);
			page += n;
		}
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK(same());
	}
	CHECK(server.zeroed > 0);
	CHECK_EQ(server.overlaps, 0);
	pipeline_close(pipe_);
}

/* Discarded again: there is nothing to be done. */
static void zeroed_once(void)
{
	CHECK(set_up(2, true));
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	CHECK_EQ(push_run(1, 20, DIRTYTRACK_STATE_HOLE), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	/* Page 11 was zero. */
	CHECK_EQ(server.zeroed, 19);
	CHECK_EQ(push_run(1, 20, DIRTYTRACK_STATE_HOLE), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	CHECK_EQ(server.zeroed, 19);
	pipeline_close(pipe_);
}

/* What the target had goes, and only where the source has nothing to write there. */
static void old_content_goes(void)
{
	uint64_t resident;

	CHECK(set_up(4, true));
	resident = dtrack_bitmap_count(memory.resident, 0, NPAGES);
	memset(server.bytes, 'o', NPAGES * PAGE);
	memset(server.bytes, 0, 64 * PAGE);
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK_EQ(server.zeroed, NPAGES - resident);
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	CHECK(same());
	pipeline_close(pipe_);
}

static void count_call(void *arg)
{
	++*(unsigned int *)arg;
}

/* Who keeps others informed can do so for each answer, also while nothing is sent. */
static void progress_while_asking(void)
{
	unsigned int calls = 0, before;
	struct pipeline_options opts = {
		.threads = true,
		.progress = count_call,
		.progress_arg = &calls,
	};

	CHECK(set_up(2, true));
	pipeline_close(pipe_);
	CHECK_EQ(pipeline_open(&pipe_, &memory.base, &server.base, &opts), 0);
	/* Nothing but zeroes there: an answer for each page, by fake_extent(). */
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK(calls >= NPAGES);
	pipeline_close(pipe_);

	/* Data there: the memory here is asked for its holes, too. */
	CHECK_EQ(pipeline_open(&pipe_, &memory.base, &server.base, &opts), 0);
	memset(server.bytes, 'o', NPAGES * PAGE);
	before = calls;
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK(calls - before >= 2 * NPAGES);
	pipeline_close(pipe_);
}

static void requests_are_as_small_as_the_server_wants(void)
{
	CHECK(set_up(2, true));
	pipeline_close(pipe_);
	server.base.max_pages = 3;
	server.base.max_zero_pages = 5;
	memset(server.bytes, 'o', NPAGES * PAGE);
	CHECK_EQ(pipeline_open(&pipe_, &memory.base, &server.base,
			       &(struct pipeline_options){ .threads = true }), 0);
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	CHECK(same());
	CHECK(server.largest <= 5);
	pipeline_close(pipe_);
}

/* A connection breaks, the server lives: at each request once. */
static void broken_connection(void)
{
	struct pipeline_stats stats;
	unsigned int at;

	for (at = 1; at < 400; at += 23) {
		CHECK(set_up(4, at % 2));
		server.break_at = at;
		CHECK_EQ(pipeline_clear(pipe_), 0);
		CHECK_EQ(push_resident(), 0);
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK_EQ(pipeline_flush(pipe_, true), 0);
		CHECK(same());
		pipeline_get_stats(pipe_, &stats);
		CHECK_EQ(stats.reconnects, 1);
		CHECK(stats.resent > 0);
		pipeline_close(pipe_);
	}
}

/* The server dies, and another comes up with what had been flushed. */
static void server_forgets(void)
{
	struct pipeline_stats stats;
	unsigned int at;

	for (at = 1; at < 400; at += 23) {
		CHECK(set_up(4, true));
		CHECK_EQ(pipeline_clear(pipe_), 0);
		CHECK_EQ(push_run(0, 700, DIRTYTRACK_STATE_DATA), 0);
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK_EQ(pipeline_flush(pipe_, true), 0);
		server.die_at = server.requests + at;
		CHECK_EQ(push_resident(), 0);
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK_EQ(pipeline_flush(pipe_, true), 0);
		CHECK(same());
		CHECK(!memcmp(server.stable, memory.bytes, NPAGES * PAGE));
		pipeline_get_stats(pipe_, &stats);
		CHECK(stats.reconnects > 0);
		pipeline_close(pipe_);
	}
}

/* Dead between the last request and the flush: lanes that were idle find out. */
static void server_dies_before_flush(void)
{
	CHECK(set_up(4, true));
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	die();
	CHECK(!same());
	CHECK_EQ(pipeline_flush(pipe_, true), 0);
	CHECK(same());
	CHECK(!memcmp(server.stable, memory.bytes, NPAGES * PAGE));

	/* When the source is not what it was, that is an error. */
	CHECK_EQ(push_run(0, 10, DIRTYTRACK_STATE_DATA), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	die();
	CHECK_EQ(pipeline_flush(pipe_, false), -ENOTCONN);
	CHECK(strstr(msg_last(), "before everything was flushed"));
	pipeline_close(pipe_);
}

/* A page that was made zero, and comes back with a server that forgot it. */
static void zeroes_are_forgotten_too(void)
{
	CHECK(set_up(2, true));
	CHECK_EQ(pipeline_clear(pipe_), 0);
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	CHECK_EQ(pipeline_flush(pipe_, true), 0);
	memset(memory.bytes, 0, 100 * PAGE);
	CHECK_EQ(push_run(0, 100, DIRTYTRACK_STATE_HOLE), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	die();
	CHECK_EQ(pipeline_flush(pipe_, true), 0);
	CHECK(same());
	pipeline_close(pipe_);
}

/*
 * Runs and single pages, also such that are sent again as their server died: they are
 * not sent while they are in the log, and nothing else is left out.
 */
static void what_is_in_the_log_again_is_skipped(void)
{
	uint64_t resident, dirty, i;
	struct pipeline_stats stats;
	unsigned int at;

	for (at = 0; at < 400; at += 80) {
		CHECK(set_up(4, true));
		resident = dtrack_bitmap_count(memory.resident, 0, NPAGES);
		for (i = 0; i < NPAGES; i++)
			if (dtrack_bitmap_test(memory.resident, i) &&
			    (i % 5 == 0 || i / 64 % 9 == 4)) {
				dtrack_bitmap_set(memory.dirty, i, 1);
				fill(i, 1 << 20);
			}
		dirty = dtrack_bitmap_count(memory.dirty, 0, NPAGES);
		server.die_at = at;
		CHECK_EQ(pipeline_clear(pipe_), 0);
		pipeline_skip_dirty(pipe_, true);
		CHECK_EQ(push_resident(), 0);
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK_EQ(pipeline_flush(pipe_, true), 0);
		pipeline_get_stats(pipe_, &stats);
		CHECK(stats.skipped >= dirty && (at || stats.skipped == dirty));
		CHECK(stats.pages >= resident - dirty &&
		      (at || stats.pages == resident - dirty));
		for (i = 0; i < NPAGES; i++)
			CHECK(!memcmp(server.bytes + i * PAGE,
				      memory.bytes + i * PAGE, PAGE) !=
			      dtrack_bitmap_test(memory.dirty, i));

		/* The last round. */
		pipeline_skip_dirty(pipe_, false);
		CHECK_EQ(push_resident(), 0);
		CHECK_EQ(pipeline_drain(pipe_), 0);
		CHECK(same());
		CHECK_EQ(server.overlaps, 0);
		pipeline_close(pipe_);
	}
}

static void server_stays_away(void)
{
	struct pipeline_options opts = { .threads = true, .reconnect = 0.3 };
	double start;

	CHECK(set_up(4, true));
	pipeline_close(pipe_);
	CHECK_EQ(pipeline_open(&pipe_, &memory.base, &server.base, &opts), 0);
	server.down = true;
	server.die_at = 20;
	start = now();
	push_resident();
	CHECK_EQ(pipeline_drain(pipe_), -ENOTCONN);
	CHECK(now() - start > 0.25);
	CHECK(strstr(msg_last(), "could not be made again in 0.3 s"));
	pipeline_close(pipe_);
}

static void failing_request(void)
{
	CHECK(set_up(4, true));
	server.fail = -ENOSPC;
	server.fail_at = 30;
	push_resident();
	CHECK_EQ(pipeline_drain(pipe_), -ENOSPC);
	CHECK(strstr(msg_last(), "server: cannot write: No space left"));
	/* It stays so. */
	CHECK_EQ(push_resident(), -ENOSPC);
	pipeline_close(pipe_);
}

static void failing_read(void)
{
	int threads;

	for (threads = 0; threads < 2; threads++) {
		CHECK(set_up(4, threads));
		memory.fail_read = -EIO;
		push_resident();
		CHECK_EQ(pipeline_drain(pipe_), -EIO);
		pipeline_close(pipe_);
	}
}

static void *cancel_soon(void *arg)
{
	usleep(100000);
	cancel = SIGINT;
	return arg;
}

/* A server that does not answer keeps nobody from leaving. */
static void interrupted(void)
{
	pthread_t thread;
	int threads;

	for (threads = 0; threads < 2; threads++) {
		double start = now();

		CHECK(set_up(4, threads));
		server.stuck = true;
		CHECK_EQ(pthread_create(&thread, NULL, cancel_soon, NULL), 0);
		push_resident();
		CHECK_EQ(pipeline_drain(pipe_), -EINTR);
		pipeline_close(pipe_);
		pthread_join(thread, NULL);
		CHECK(now() - start < 5);
	}
	/* Nor one that is given up for another reason. */
	CHECK(set_up(4, true));
	server.stuck = true;
	CHECK_EQ(push_run(0, 100, DIRTYTRACK_STATE_DATA), 0);
	pipeline_close(pipe_);
}

/* A server that does not answer is given up, where somebody waits for it who has not for ever. */
static void stuck(int err, double patience)
{
	double start = now();
	int threads;

	for (threads = 0; threads < 2; threads++) {
		CHECK(set_up(4, threads));
		pipeline_set_patience(pipe_, now() + 0.2, patience);
		server.stuck = true;
		push_resident();
		CHECK_EQ(pipeline_drain(pipe_), err);
		pipeline_close(pipe_);
	}
	/* Asked for something itself. */
	CHECK(set_up(4, true));
	CHECK_EQ(push_resident(), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	pipeline_set_patience(pipe_, now() + 0.2, patience);
	server.stuck = true;
	CHECK_EQ(pipeline_flush(pipe_, true), err);
	pipeline_close(pipe_);
	CHECK(set_up(4, true));
	pipeline_set_patience(pipe_, now() + 0.2, patience);
	server.stuck = true;
	CHECK_EQ(pipeline_clear(pipe_), err);
	pipeline_close(pipe_);
	CHECK(now() - start >= 4 * (0.2 + patience));
}

static void too_late(void)
{
	stuck(-ETIME, 0);
	/* Who set the time knows what to say. */
	CHECK_EQ(*msg_last(), 0);
}

static void no_progress(void)
{
	stuck(-ETIMEDOUT, 0.3);
	CHECK(strstr(msg_last(), "server: nothing was done there in 0.3 s"));
}

/* One that takes its time, and makes progress, is not given up. */
static void slow_server(void)
{
	double start = now();

	CHECK(set_up(1, true));
	server.slow = 20000;
	pipeline_set_patience(pipe_, 0, 1);
	CHECK_EQ(push_run(0, NPAGES, DIRTYTRACK_STATE_DATA), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	CHECK(same());
	/* Nor one of which nothing was wanted for longer than that. */
	CHECK(now() - start > 2);
	sleep(2);
	CHECK_EQ(push_run(0, 1, DIRTYTRACK_STATE_DATA), 0);
	CHECK_EQ(pipeline_drain(pipe_), 0);
	pipeline_close(pipe_);
}

static void reconnecting_takes_too_long(void)
{
	double start = now();

	CHECK(set_up(4, true));
	pipeline_set_patience(pipe_, 0, 0.5);
	server.down = true;
	server.die_at = 20;
	push_resident();
	CHECK_EQ(pipeline_drain(pipe_), -ETIMEDOUT);
	CHECK(now() - start < 4);
	pipeline_close(pipe_);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(everything_arrives),
		TAP_TEST(rounds),
		TAP_TEST(zeroed_once),
		TAP_TEST(old_content_goes),
		TAP_TEST(progress_while_asking),
		TAP_TEST(requests_are_as_small_as_the_server_wants),
		TAP_TEST(broken_connection),
		TAP_TEST(server_forgets),
		TAP_TEST(server_dies_before_flush),
		TAP_TEST(zeroes_are_forgotten_too),
		TAP_TEST(what_is_in_the_log_again_is_skipped),
		TAP_TEST(server_stays_away),
		TAP_TEST(failing_request),
		TAP_TEST(failing_read),
		TAP_TEST(interrupted),
		TAP_TEST(too_late),
		TAP_TEST(no_progress),
		TAP_TEST(slow_server),
		TAP_TEST(reconnecting_takes_too_long),
	};
	int ret;

	memory.bytes = malloc(NPAGES * PAGE);
	memory.resident = dtrack_bitmap_alloc(NPAGES);
	memory.dirty = dtrack_bitmap_alloc(NPAGES);
	server.bytes = malloc(NPAGES * PAGE);
	server.stable = malloc(NPAGES * PAGE);
	server.under_way = malloc(NPAGES);
	if (!memory.bytes || !memory.resident || !memory.dirty ||
	    !server.bytes || !server.stable || !server.under_way) {
		perror("set-up");
		return 1;
	}
	msg_silence();
	ret = tap_run(tests, sizeof(tests) / sizeof(*tests));
	free(memory.bytes);
	free(memory.resident);
	free(memory.dirty);
	free(server.bytes);
	free(server.stable);
	free(server.under_way);
	return ret;
}
