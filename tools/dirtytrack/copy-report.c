// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "../lib/dirtytrack.h"
#include "copy-report.h"
#include "interrupt.h"
#include "msg.h"
#include "source.h"
#include "units.h"

enum {
	COL_ROUND,
	COL_PAGES,
	COL_WRITTEN,
	COL_ZERO,
	COL_SKIPPED,
	COL_TIME,
	COL_SPEED,
	COL_DIRTY,
	COL_LEFT,
	COL_REST,
	COL_PAUSED,
	COL_RESENT,
	COL_THROTTLE,
};

const struct column copy_columns[NR_COPY_COLUMNS] = {
	[COL_ROUND] = { "ROUND", COLUMN_NUMBER, 5, 0, "number of the round" },
	[COL_PAGES] = { "PAGES", COLUMN_NUMBER, 10, 0, "pages copied" },
	[COL_WRITTEN] = { "WRITTEN", COLUMN_SIZE, 8, 0,
			  "bytes of data sent" },
	[COL_ZERO] = { "ZERO", COLUMN_NUMBER, 8, 0,
		       "pages that are zero or have no memory" },
	[COL_SKIPPED] = { "SKIPPED", COLUMN_NUMBER, 8, 0,
			  "pages left to a later round, being written" },
	[COL_TIME] = { "TIME", COLUMN_SECONDS, 8, 0, "seconds it took" },
	[COL_SPEED] = { "SPEED", COLUMN_RATE, 8, 0,
			"bytes of memory copied a second" },
	[COL_DIRTY] = { "DIRTY/S", COLUMN_NUMBER, 8, 0,
			"pages that became dirty a second" },
	[COL_LEFT] = { "LEFT", COLUMN_NUMBER, 8, 0, "pages dirty after it" },
	[COL_REST] = { "REST", COLUMN_SECONDS, 8, 0,
		       "seconds that copying them was expected to take" },
	[COL_PAUSED] = { "PAUSED", COLUMN_BOOL, 6, 0,
			 "whether the guest was paused" },
	[COL_RESENT] = { "RESENT", COLUMN_NUMBER, 8, COLUMN_HIDDEN,
			 "pages sent again after a connection was lost" },
	[COL_THROTTLE] = { "THROTTLE", COLUMN_NUMBER, 8, COLUMN_HIDDEN,
			   "pages a second that the guest might make dirty" },
};

static double speed(const struct copy_round *r)
{
	return r->seconds > 0 ? r->pages * DTRACK_PAGE_SIZE / r->seconds : 0;
}

static void round_cells(const struct copy_round *r,
			struct cell cells[NR_COPY_COLUMNS])
{
	cells[COL_ROUND] = cell_number(r->round);
	cells[COL_PAGES] = cell_number(r->pages);
	cells[COL_WRITTEN] = cell_number(r->data * DTRACK_PAGE_SIZE);
	cells[COL_ZERO] = cell_number(r->pages - r->data);
	cells[COL_SKIPPED] = cell_number(r->skipped);
	cells[COL_TIME] = cell_real(r->seconds);
	cells[COL_SPEED] = cell_number(speed(r));
	cells[COL_DIRTY] = cell_number(r->dirty_rate);
	cells[COL_LEFT] = cell_number(r->left);
	cells[COL_REST] = cell_real(r->rest_seconds);
	cells[COL_PAUSED] = cell_number(r->paused);
	cells[COL_RESENT] = cell_number(r->resent);
	if (r->throttle)
		cells[COL_THROTTLE] = cell_number(r->throttle);
}

static struct json_object *event_new(const char *name)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "event", json_object_new_string(name));
	return obj;
}

static void add_number(struct json_object *obj, const char *key, uint64_t n)
{
	json_object_object_add(obj, key, json_object_new_uint64(n));
}

static void add_text(struct json_object *obj, const char *key, const char *text)
{
	json_object_object_add(obj, key, json_object_new_string(text));
}

static void put_event(struct copy_report *r, struct json_object *obj)
{
	if (r->holding)
		json_object_array_add(r->held, obj);
	else if (r->error)
		json_object_put(obj);
	else
		r->error = json_line(obj);
}

static void clear_line(struct copy_report *r)
{
	if (r->on_line)
		fputs("\r\033[K", stderr);
	r->on_line = false;
}

/* Where a round is. */
struct pace {
	double time;		/* since it began */
	double pages;		/* a second */
	uint64_t left;		/* pages of it */
	uint64_t bytes;		/* of data, sent in all rounds */
};

static struct pace pace_of(const struct copy *c)
{
	const struct copy_round *round = &c->round;
	/* More may have become dirty since the pages were counted. */
	uint64_t done = round->pages + round->skipped;
	struct pace pace = {
		.time = now() - round->start,
		.left = round->expected > done ? round->expected - done : 0,
		.bytes = (c->before.data + round->data) * DTRACK_PAGE_SIZE,
	};

	pace.pages = pace.time > 0 ? round->pages / pace.time : 0;
	return pace;
}

/* Seconds until it ends. */
static double eta(const struct pace *pace)
{
	return pace->pages > 0 ? pace->left / pace->pages : 0;
}

static void print_progress(struct copy_report *r)
{
	const struct copy_round *round = &r->copy->round;
	const struct pace pace = pace_of(r->copy);
	char rate[HUMAN_LEN], sent[HUMAN_LEN];

	fprintf(stderr, "\r\033[Kround %u: %" PRIu64 " pages left, %s/s, %.0f s; %s sent",
		round->round, pace.left,
		human_size(pace.pages * DTRACK_PAGE_SIZE, rate), eta(&pace),
		human_size(pace.bytes, sent));
	if (round->dirty_rate > 0)
		fprintf(stderr, "; %.0f pages/s become dirty, %.0f ms would be left",
			round->dirty_rate, round->rest_seconds * 1000);
	if (round->throttle)
		fprintf(stderr, "; throttled to %" PRIu64, round->throttle);
	fflush(stderr);
	r->on_line = true;
}

static void put_progress(struct copy_report *r)
{
	const struct copy_round *round = &r->copy->round;
	const struct pace pace = pace_of(r->copy);
	struct json_object *obj = event_new("progress");

	add_number(obj, "round", round->round);
	add_number(obj, "pages", round->pages);
	add_number(obj, "skipped", round->skipped);
	add_number(obj, "expected", round->expected);
	json_object_object_add(obj, "time", json_seconds(pace.time));
	add_number(obj, "left", pace.left);
	json_object_object_add(obj, "eta", json_seconds(eta(&pace)));
	add_number(obj, "speed", pace.pages * DTRACK_PAGE_SIZE);
	add_number(obj, "bytes", pace.bytes);
	/* Of the round before. */
	if (round->round > 1) {
		add_number(obj, "dirty_rate", round->dirty_rate);
		json_object_object_add(obj, "rest",
				       json_seconds(round->rest_seconds));
	}
	if (round->throttle)
		add_number(obj, "throttle", round->throttle);
	put_event(r, obj);
}

static void progress(struct copy_report *r)
{
	double time = now();

	if (!r->progress || r->holding ||
	    time - r->last_progress < (r->opts->json ? 1 : 0.2))
		return;
	r->last_progress = time;
	if (r->opts->json)
		put_progress(r);
	else
		print_progress(r);
}

static void round_end(struct copy_report *r)
{
	const struct copy_round *round = &r->copy->round;
	struct cell cells[NR_COPY_COLUMNS] = { 0 };
	struct json_object *obj, *row;

	round_cells(round, cells);
	if (!r->opts->json) {
		if (!r->error)
			r->error = table_add(r->table, cells);
		return;
	}
	obj = event_new("round");
	row = table_json_row(r->table, cells);
	json_object_object_foreach(row, key, value)
		json_object_object_add(obj, key, json_object_get(value));
	json_object_put(row);
	put_event(r, obj);
}

static const char *end_name(enum copy_end end)
{
	switch (end) {
	case COPY_FITS:
		return "fits";
	case COPY_NO_PROGRESS:
		return "no-progress";
	case COPY_MAX_ROUNDS:
		return "max-rounds";
	case COPY_TIMEOUT:
		return "timeout";
	}
	return "unknown";
}

/* Not the case that was asked for: say so before the guest feels it. */
static void say_end(const struct copy *c)
{
	const char *why = c->end == COPY_MAX_ROUNDS ?
			  "there were as many rounds as allowed" :
			  c->end == COPY_TIMEOUT ?
			  "it took as long as allowed" :
			  "the guest writes as fast as it is copied";

	if (c->end == COPY_FITS || c->strict || c->dry_run ||
	    (c->end == COPY_TIMEOUT && !c->pause_on_timeout))
		return;
	if (c->pause)
		msg_note("%s: the pause will be about %.0f ms, not the %.0f asked for",
			 why, c->round.rest_seconds * 1000, c->downtime * 1000);
	else
		msg_note("%s: ending with %" PRIu64 " pages to go", why,
			 c->round.left);
}

static void rounds_end(struct copy_report *r)
{
	struct json_object *obj;

	clear_line(r);
	if (r->opts->json) {
		obj = event_new("rounds_end");
		add_text(obj, "reason", end_name(r->copy->end));
		add_number(obj, "left", r->copy->round.left);
		json_object_object_add(obj, "rest",
			json_seconds(r->copy->round.rest_seconds));
		json_object_object_add(obj, "time",
			json_seconds(r->copy->total_seconds));
		add_number(obj, "bytes", (r->copy->before.data +
					  r->copy->round.data) * DTRACK_PAGE_SIZE);
		put_event(r, obj);
	}
	say_end(r->copy);
}

static const char *const phase_names[NR_COPY_PHASES] = {
	[PHASE_STOP] = "stop",
	[PHASE_MEMORY] = "memory",
	[PHASE_STATE] = "state",
	[PHASE_REST] = "rest",
	[PHASE_VERIFY] = "verify",
	[PHASE_LOAD] = "load",
	[PHASE_START] = "start",
};

struct json_object *json_phases(const struct copy *c)
{
	struct json_object *obj = json_object_new_object();
	unsigned int i;

	for (i = 0; i < NR_COPY_PHASES; i++)
		if (c->phases[i] > 0)
			json_object_object_add(obj, phase_names[i],
					       json_seconds(c->phases[i]));
	return obj;
}

/* That was expected to take copy.expected_downtime. */
static double memory_seconds(const struct copy *c)
{
	return c->phases[PHASE_MEMORY] + c->phases[PHASE_REST];
}

static void print_pause(const struct copy *c)
{
	const char *before = "of it: ";
	unsigned int i;

	printf("%s: %.0f ms%s\n", c->handover ? "downtime" : "paused",
	       c->seconds_paused * 1000,
	       c->rehearsal ? ", but for loading, in a rehearsal: the guest goes on here" : "");
	for (i = 0; i < NR_COPY_PHASES; i++)
		if (c->phases[i] > 0) {
			printf("%s%s %.1f ms", before, phase_names[i],
			       c->phases[i] * 1000);
			before = ", ";
		}
	printf("\nexpected: %.1f ms for memory, which took %.1f ms\n",
	       c->expected_downtime * 1000, memory_seconds(c) * 1000);
}

/* What happened in the pause; and that it is over, by @event, unless that is NULL. */
static void pause_over(struct copy_report *r, const char *event)
{
	struct json_object *obj;
	size_t i, nr;

	r->holding = false;
	if (!r->opts->json)
		return;
	nr = json_object_array_length(r->held);
	for (i = 0; i < nr; i++)
		put_event(r, json_object_get(json_object_array_get_idx(r->held,
								       i)));
	json_object_array_del_idx(r->held, 0, nr);
	if (!event)
		return;
	obj = event_new(event);
	json_object_object_add(obj, "paused",
			       json_seconds(r->copy->seconds_paused));
	json_object_object_add(obj, "expected",
			       json_seconds(r->copy->expected_downtime));
	json_object_object_add(obj, "memory",
			       json_seconds(memory_seconds(r->copy)));
	json_object_object_add(obj, "phases", json_phases(r->copy));
	put_event(r, obj);
}

static void verified(struct copy_report *r)
{
	const struct copy *c = r->copy;
	struct json_object *obj;

	if (c->verified < copy_npages(c) || !r->opts->json)
		return;
	obj = event_new("verified");
	add_number(obj, "pages", c->verified);
	add_number(obj, "different", c->different);
	put_event(r, obj);
}

static void on_event(struct copy *copy, enum copy_event event)
{
	struct copy_report *r = copy->event_arg;

	switch (event) {
	case COPY_ROUND_BEGIN:
		r->last_progress = 0;
		break;
	case COPY_PROGRESS:
		progress(r);
		break;
	case COPY_ROUND_END:
		round_end(r);
		break;
	case COPY_ROUNDS_END:
		rounds_end(r);
		break;
	case COPY_PAUSING:
		r->holding = true;
		break;
	case COPY_PAUSED:
		if (r->opts->json)
			put_event(r, event_new("paused"));
		break;
	case COPY_VERIFY:
		verified(r);
		break;
	case COPY_RESUMED:
		pause_over(r, "resumed");
		break;
	case COPY_HANDED_OVER:
		pause_over(r, "handed_over");
		break;
	case COPY_LEFT_PAUSED:
		pause_over(r, NULL);
		break;
	}
}

int report_open(struct copy_report *r, const struct builtin *cmd,
		const struct copy_options *opts)
{
	memset(r, 0, sizeof(*r));
	r->copy = opts->copy;
	r->opts = &opts->table;
	r->progress = opts->progress ||
		      (!r->opts->json && isatty(STDERR_FILENO));
	r->copy->event = on_event;
	r->copy->event_arg = r;
	r->table = table_new(cmd->columns, cmd->nr_columns, r->opts);
	if (!r->table)
		return -1;
	r->held = json_object_new_array();
	if (!r->held) {
		msg_errno(ENOMEM, "copy");
		table_free(r->table);
		return -1;
	}
	return 0;
}

void report_begin(struct copy_report *r, const char *slot, const char *target)
{
	struct json_object *obj;

	if (!r->opts->json)
		return;
	obj = event_new("begin");
	if (slot)
		add_text(obj, "slot", slot);
	add_text(obj, "target", target);
	add_number(obj, "npages", copy_npages(r->copy));
	add_number(obj, "page_size", DTRACK_PAGE_SIZE);
	put_event(r, obj);
}

static uint64_t data_pages(const struct copy *c)
{
	uint64_t pages = 0;
	unsigned int i;

	for (i = 0; i < c->nr_moves; i++)
		pages += pipeline_data_pages(c->moves[i].pipe);
	return pages;
}

static void print_summary(struct copy_report *r, const char *target)
{
	const struct copy *c = r->copy;
	char data[HUMAN_LEN], size[HUMAN_LEN];

	if (table_print(r->table, NULL))
		r->error = -EIO;
	if (c->verify)
		printf("identical: %" PRIu64 " pages\n", c->verified);
	if (c->dry_run)
		printf("%s: memory would take about %.0f ms of downtime, after %.1f s\n",
		       c->end == COPY_FITS ? "converges" : "does not converge",
		       c->round.rest_seconds * 1000, c->total_seconds);
	else if (c->was_paused)
		print_pause(c);
	else
		printf("paused: never; whole only if nothing was written meanwhile\n");
	if (c->reconnects)
		printf("reconnected: %" PRIu64 " times\n", c->reconnects);
	printf("target: %s, %s of data in %s\n", target,
	       human_size(data_pages(c) * DTRACK_PAGE_SIZE, data),
	       human_size(copy_npages(c) * DTRACK_PAGE_SIZE, size));
	if (fflush(stdout) || ferror(stdout))
		r->error = -EIO;
}

void report_done(struct copy_report *r, const char *target)
{
	struct json_object *obj;

	if (r->opts->json) {
		obj = event_new("end");
		add_text(obj, "target", target);
		add_number(obj, "npages", copy_npages(r->copy));
		add_number(obj, "data_pages", data_pages(r->copy));
		put_event(r, obj);
	} else {
		print_summary(r, target);
	}
	if (r->error)
		msg_errno(r->error, "standard output");
}

int report_status(int err)
{
	switch (err) {
	case 0:
		return EXIT_OK;
	case -ETIME:
		return EXIT_DOWNTIME;
	case -EBADMSG:
		return EXIT_DIFFERS;
	default:
		return EXIT_FAILED;
	}
}

void report_failed(struct copy_report *r, int status)
{
	struct json_object *obj;

	clear_line(r);
	if (!r->opts->json) {
		if (interrupted)
			msg_note("interrupted: it is not complete");
		return;
	}
	obj = event_new("failed");
	if (interrupted) {
		add_text(obj, "message", "interrupted");
		add_number(obj, "signal", interrupted);
	} else {
		add_text(obj, "message", msg_last());
		add_number(obj, "status", status);
	}
	put_event(r, obj);
}

void report_close(struct copy_report *r)
{
	table_free(r->table);
	json_object_put(r->held);
}
