// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "../lib/dirtytrack.h"
#include "copy-report.h"
#include "interrupt.h"
#include "msg.h"
#include "replicate-report.h"
#include "units.h"

enum {
	COL_TIME,
	COL_EPOCH,
	COL_RATE,
	COL_PAGES,
	COL_WRITTEN,
	COL_PAUSE_MIN,
	COL_PAUSE,
	COL_PAUSE_P99,
	COL_PAUSE_MAX,
	COL_LAG,
	COL_LOSSES,
	COL_THROTTLE,
};

const struct column replicate_columns[NR_REPLICATE_COLUMNS] = {
	[COL_TIME] = { "TIME", COLUMN_SECONDS, 10, 0, "seconds since the start" },
	[COL_EPOCH] = { "EPOCH", COLUMN_NUMBER, 8, 0, "last epoch that is there" },
	[COL_RATE] = { "EPOCHS/S", COLUMN_SECONDS, 9, 0, "epochs a second" },
	[COL_PAGES] = { "PAGES", COLUMN_NUMBER, 9, 0, "dirty pages of an epoch, on average" },
	[COL_WRITTEN] = { "WRITTEN", COLUMN_RATE, 9, 0, "bytes of data sent a second" },
	[COL_PAUSE_MIN] = { "PAUSE-MIN", COLUMN_SECONDS, 10, COLUMN_HIDDEN,
			    "shortest pause, seconds" },
	[COL_PAUSE] = { "PAUSE", COLUMN_SECONDS, 10, 0, "median of the pauses, seconds" },
	[COL_PAUSE_P99] = { "PAUSE-P99", COLUMN_SECONDS, 10, COLUMN_HIDDEN,
			    "99 of 100 pauses were shorter, seconds" },
	[COL_PAUSE_MAX] = { "PAUSE-MAX", COLUMN_SECONDS, 10, 0, "longest pause, seconds" },
	[COL_LAG] = { "LAG", COLUMN_SECONDS, 10, 0,
		      "longest time from a pause to its commit, seconds" },
	[COL_LOSSES] = { "LOSSES", COLUMN_NUMBER, 6, COLUMN_HIDDEN,
			 "how often the secondary was lost" },
	[COL_THROTTLE] = { "THROTTLE", COLUMN_NUMBER, 8, COLUMN_HIDDEN,
			   "pages a second that the guest may make dirty" },
};

static struct json_object *event_new(const struct replicate_report *rep,
				     const char *name)
{
	struct json_object *obj = json_object_new_object();

	json_object_object_add(obj, "event", json_object_new_string(name));
	json_object_object_add(obj, "time", json_seconds(now() - rep->start));
	return obj;
}

static void add_number(struct json_object *obj, const char *key, uint64_t n)
{
	json_object_object_add(obj, key, json_object_new_uint64(n));
}

static void add_seconds(struct json_object *obj, const char *key, double seconds)
{
	json_object_object_add(obj, key, json_seconds(seconds));
}

/* As text: few who read JSON have 64 bits for a number. */
static void add_checksum(struct json_object *obj, const struct replicate_epoch *e)
{
	char text[24];

	snprintf(text, sizeof(text), "%016" PRIx64, e->checksum);
	json_object_object_add(obj, "checksum", json_object_new_string(text));
}

static void put_event(struct replicate_report *rep, struct json_object *obj)
{
	if (rep->error)
		json_object_put(obj);
	else
		rep->error = json_line(obj);
}

/* ---- pauses ---- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Of the last @nr epochs, as far as they are known. */
static struct pauses pauses_of(struct replicate_report *rep, uint64_t nr)
{
	double *sorted = rep->pauses + NR_PAUSES;
	uint64_t all = rep->replicate->epochs, i;
	struct pauses p = { 0 };

	if (nr > NR_PAUSES)
		nr = NR_PAUSES;
	if (!nr)
		return p;
	for (i = 0; i < nr; i++)
		sorted[i] = rep->pauses[(all - nr + i) % NR_PAUSES];
	qsort(sorted, nr, sizeof(*sorted), compare);
	p.min = sorted[0];
	p.median = sorted[nr / 2];
	/* Of fewer than 100 it is the longest. */
	p.p99 = sorted[(nr * 99 + 99) / 100 - 1];
	p.max = sorted[nr - 1];
	return p;
}

/* ---- lines ---- */

static void line(struct replicate_report *rep)
{
	struct cell cells[NR_REPLICATE_COLUMNS] = { 0 };
	const struct replicate *r = rep->replicate;
	uint64_t epochs = r->epochs - rep->epochs;
	double time = now(), seconds = time - rep->last;
	struct pauses p = pauses_of(rep, epochs);

	cells[COL_TIME] = cell_real(time - rep->start);
	cells[COL_EPOCH] = cell_number(r->committed);
	cells[COL_RATE] = cell_real(epochs / seconds);
	cells[COL_WRITTEN] = cell_number((r->data - rep->data) * DTRACK_PAGE_SIZE /
					 seconds);
	if (epochs) {
		cells[COL_PAGES] = cell_number((r->pages - rep->pages) / epochs);
		cells[COL_PAUSE_MIN] = cell_real(p.min);
		cells[COL_PAUSE] = cell_real(p.median);
		cells[COL_PAUSE_P99] = cell_real(p.p99);
		cells[COL_PAUSE_MAX] = cell_real(p.max);
		cells[COL_LAG] = cell_real(rep->lag);
	}
	cells[COL_LOSSES] = cell_number(r->losses);
	if (r->throttle)
		cells[COL_THROTTLE] = cell_number(r->throttle);
	if (rep->opts->json) {
		struct json_object *obj = event_new(rep, "interval");
		struct json_object *row = table_json_row(rep->table, cells);

		json_object_object_foreach(row, key, value)
			json_object_object_add(obj, key, json_object_get(value));
		json_object_put(row);
		put_event(rep, obj);
	} else if (!rep->error) {
		rep->error = table_stream(rep->table, cells);
	}
	rep->last = time;
	rep->epochs = r->epochs;
	rep->pages = r->pages;
	rep->data = r->data;
	rep->lag = 0;
}

static void note_epoch(struct replicate_report *rep)
{
	const struct replicate *r = rep->replicate;
	const struct replicate_epoch *e = &r->epoch;
	struct json_object *obj;

	rep->pauses[(r->epochs - 1) % NR_PAUSES] = e->pause;
	if (e->lag > rep->lag)
		rep->lag = e->lag;
	if (!rep->opts->json)
		return;
	obj = event_new(rep, "epoch");
	add_number(obj, "epoch", e->number);
	add_number(obj, "pages", e->pages);
	add_number(obj, "data", e->data);
	add_number(obj, "in_pause", e->in_pause);
	add_number(obj, "state_size", e->state_size);
	add_seconds(obj, "pause", e->pause);
	json_object_object_add(obj, "phases", json_phases(&r->copy));
	add_seconds(obj, "lag", e->lag);
	if (r->checksum)
		add_checksum(obj, e);
	put_event(rep, obj);
}

/* Before it is there: whoever finds that epoch later knows what it has to be. */
static void note_sent(struct replicate_report *rep)
{
	struct json_object *obj;

	if (!rep->opts->json || !rep->replicate->checksum)
		return;
	obj = event_new(rep, "sent");
	add_number(obj, "epoch", rep->replicate->epoch.number);
	add_checksum(obj, &rep->replicate->epoch);
	put_event(rep, obj);
}

static void note_synced(struct replicate_report *rep)
{
	struct json_object *obj;

	if (!rep->opts->json)
		return;
	obj = event_new(rep, "synchronised");
	add_number(obj, "pages", rep->replicate->synced);
	put_event(rep, obj);
}

static void happened(struct replicate_report *rep, const char *event, const char *text)
{
	if (rep->opts->json)
		put_event(rep, event_new(rep, event));
	else
		msg_note("%s", text);
}

static void on_event(struct replicate *r, enum replicate_event event)
{
	struct replicate_report *rep = r->event_arg;

	switch (event) {
	case REPLICATE_ATTACHED:
		happened(rep, "attached", r->losses ?
			 "the secondary is there again" : "the secondary is there");
		break;
	case REPLICATE_SYNCED:
		note_synced(rep);
		break;
	case REPLICATE_SENT:
		note_sent(rep);
		break;
	case REPLICATE_EPOCH:
		note_epoch(rep);
		break;
	case REPLICATE_LOST:
		happened(rep, "lost", r->lease > 0 ?
			 "the secondary was lost: the guest runs until its lease ends" :
			 "the secondary was lost: the guest goes on without");
		break;
	case REPLICATE_FENCED:
		happened(rep, "fenced",
			 "the guest stands still, as it may be let run at the secondary");
		break;
	case REPLICATE_PROGRESS:
		break;
	}
	if (now() >= rep->last + rep->every)
		line(rep);
}

/* ---- */

int replicate_report_open(struct replicate_report *rep, struct replicate *replicate,
			  const struct builtin *cmd,
			  const struct table_options *opts, double every)
{
	memset(rep, 0, sizeof(*rep));
	rep->replicate = replicate;
	rep->opts = opts;
	rep->every = every;
	rep->start = rep->last = now();
	replicate->event = on_event;
	replicate->event_arg = rep;
	rep->table = table_new(cmd->columns, cmd->nr_columns, opts);
	if (!rep->table)
		return -1;
	rep->pauses = calloc(2 * NR_PAUSES, sizeof(*rep->pauses));
	if (rep->pauses)
		return 0;
	msg_errno(ENOMEM, "replicate");
	table_free(rep->table);
	return -1;
}

static void put_end(struct replicate_report *rep, const struct pauses *p, int status)
{
	const struct replicate *r = rep->replicate;
	struct json_object *obj = event_new(rep, status ? "failed" : "end");

	add_number(obj, "epochs", r->epochs);
	add_number(obj, "committed", r->committed);
	add_number(obj, "pages", r->pages);
	add_number(obj, "data", r->data);
	add_number(obj, "losses", r->losses);
	if (r->epochs) {
		add_seconds(obj, "pause_min", p->min);
		add_seconds(obj, "pause_median", p->median);
		add_seconds(obj, "pause_p99", p->p99);
		add_seconds(obj, "pause_max", p->max);
	}
	if (status) {
		json_object_object_add(obj, "message",
				       json_object_new_string(msg_last()));
		add_number(obj, "status", status);
	}
	put_event(rep, obj);
}

void replicate_report_end(struct replicate_report *rep, int status)
{
	const struct replicate *r = rep->replicate;
	struct pauses p = pauses_of(rep, r->epochs);
	double seconds = now() - rep->start;
	char size[HUMAN_LEN];

	if (r->epochs > rep->epochs)
		line(rep);
	if (rep->opts->json) {
		put_end(rep, &p, status);
	} else if (r->epochs) {
		printf("%" PRIu64 " epochs in %.1f s, %s of data; lost %" PRIu64 " times\n",
		       r->epochs, seconds,
		       human_size(r->data * DTRACK_PAGE_SIZE, size), r->losses);
		printf("pauses: min %.3f, median %.3f, p99 %.3f, max %.3f ms\n",
		       p.min * 1e3, p.median * 1e3, p.p99 * 1e3, p.max * 1e3);
		if (fflush(stdout) || ferror(stdout))
			rep->error = -EIO;
	}
	if (rep->error)
		msg_errno(rep->error, "standard output");
}

void replicate_report_close(struct replicate_report *rep)
{
	table_free(rep->table);
	free(rep->pauses);
}
