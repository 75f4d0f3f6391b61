// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack log: which pages of a slot were written
 *
 * A log begins when it is made and ends with its file, so there is nothing to ask
 * about the past: the command makes a log, waits, and reports.  With a ring it need not
 * know when to look.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "builtin.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "table.h"
#include "units.h"
#include "watch.h"

enum {
	OPT_ALL_SET = 256,
	OPT_BITMAP,
	OPT_LIMIT,
	OPT_PEEK,
	OPT_RING,
};

/* Half a megabyte: what a fast writer makes dirty in a tenth of a second. */
#define RING_ENTRIES (64 * 1024)

static const struct option_desc options[] = {
	{ 'i', "interval", "SECONDS", "time before each report, 1 unless given" },
	{ 'c', "count", "N", "reports, 1 unless given" },
	{ OPT_ALL_SET, "all-set", NULL, "begin with every page that has memory" },
	{ OPT_PEEK, "peek", NULL, "leave pages in the log: reports add up" },
	{ OPT_BITMAP, "bitmap", NULL, "report words of the bitmap, not ranges" },
	{ 'f', "follow", NULL, "report pages as they become dirty, without an end" },
	{ OPT_RING, "ring", "ENTRIES", "length of the ring of --follow, 65536 unless given" },
	LIMIT_OPTION(OPT_LIMIT),
	TABLE_OPTIONS,
	{ 0 }
};

enum {
	COL_REPORT,
	COL_TIME,
	COL_FIRST,
	COL_PAGES,
	COL_OFFSET,
	COL_SIZE,
	COL_STATE,
	COL_BITS,
	NR_COLUMNS,
};

static const struct column columns[NR_COLUMNS] = {
	[COL_REPORT] = { "REPORT", COLUMN_NUMBER, 6, COLUMN_HIDDEN,
			 "number of the report" },
	[COL_TIME] = { "TIME", COLUMN_SECONDS, 10, COLUMN_HIDDEN,
		       "when it was made, seconds from the log's start" },
	[COL_FIRST] = { "FIRST", COLUMN_NUMBER, 12, 0,
			"first page, or page of bit 0" },
	[COL_PAGES] = { "PAGES", COLUMN_NUMBER, 10, 0, "dirty pages" },
	[COL_OFFSET] = { "OFFSET", COLUMN_NUMBER, 16, COLUMN_HIDDEN,
			 "first byte" },
	[COL_SIZE] = { "SIZE", COLUMN_SIZE, 8, 0, "size of those pages" },
	[COL_STATE] = { "STATE", COLUMN_TEXT, 5, 0,
			"data, or hole: without memory, so zero" },
	[COL_BITS] = { "BITS", COLUMN_TEXT, 16, COLUMN_HIDDEN,
		       "64 pages, hexadecimal, lowest bit first page" },
};

struct log_job {
	struct watch watch;
	uint32_t flags;
	bool bitmap;
	bool follow;
	bool json;
	double interval;
	unsigned int count;	/* 0 is no end */

	/* The report at work. */
	unsigned int report;
	double time;
	uint64_t dirty;
	struct json_object *rows;
};

static int put_row(struct log_job *job, uint64_t first, uint64_t npages,
		   const char *state, const char *bits)
{
	struct cell cells[NR_COLUMNS] = {
		[COL_REPORT] = cell_number(job->report),
		[COL_TIME] = cell_real(job->time),
		[COL_FIRST] = cell_number(first),
		[COL_PAGES] = cell_number(npages),
		[COL_OFFSET] = cell_number(first * DTRACK_PAGE_SIZE),
		[COL_SIZE] = cell_number(npages * DTRACK_PAGE_SIZE),
		[COL_STATE] = cell_text(state),
		[COL_BITS] = cell_text(bits),
	};
	struct json_object *row;

	job->dirty += npages;
	if (!job->json)
		return table_stream(job->watch.table, cells);
	row = table_json_row(job->watch.table, cells);
	if (!row || json_object_array_add(job->rows, row))
		return -ENOMEM;
	return 0;
}

static int report_ranges(struct log_job *job)
{
	struct dtrack_extents *iter;
	struct dirtytrack_extent ext;
	int ret;

	ret = dtrack_extents_open(&iter, job->watch.log, job->flags, 0, job->watch.npages);
	if (ret)
		return ret;
	while ((ret = dtrack_extents_next(iter, &ext)) > 0) {
		ret = put_row(job, ext.first, ext.npages,
			      ext.state == DIRTYTRACK_STATE_HOLE ?
			      "hole" : "data", NULL);
		if (ret)
			break;
	}
	dtrack_extents_close(iter);
	return ret;
}

static int report_bitmap(struct log_job *job)
{
	uint64_t *bitmap = dtrack_bitmap_alloc(job->watch.npages);
	struct dtrack_harvested done;
	uint64_t page;
	char bits[17];
	int ret;

	if (!bitmap)
		return -ENOMEM;
	if (job->flags & DIRTYTRACK_HARVEST_PEEK)
		ret = dtrack_peek(job->watch.log, 0, job->watch.npages, bitmap, 0, &done);
	else
		ret = dtrack_harvest(job->watch.log, 0, job->watch.npages, bitmap, 0,
				     &done);
	for (page = dtrack_bitmap_next(bitmap, job->watch.npages, 0);
	     !ret && page < job->watch.npages;
	     page = dtrack_bitmap_next(bitmap, job->watch.npages, page)) {
		uint64_t word = bitmap[page / 64];

		snprintf(bits, sizeof(bits), "%016" PRIx64, word);
		page -= page % 64;
		ret = put_row(job, page, __builtin_popcountll(word), NULL,
			      bits);
		page += 64;
	}
	free(bitmap);
	return ret;
}

static int report(struct log_job *job)
{
	struct json_object *obj;
	int ret;

	job->dirty = 0;
	if (!job->json) {
		if (job->report > 1)
			putchar('\n');
		return job->bitmap ? report_bitmap(job) : report_ranges(job);
	}
	job->rows = json_object_new_array();
	if (!job->rows)
		return -ENOMEM;
	ret = job->bitmap ? report_bitmap(job) : report_ranges(job);
	obj = ret ? NULL : json_object_new_object();
	if (!obj) {
		json_object_put(job->rows);
		return ret ? ret : -ENOMEM;
	}
	json_object_object_add(obj, "report",
			       json_object_new_uint64(job->report));
	json_object_object_add(obj, "time", json_seconds(job->time));
	json_object_object_add(obj, "npages",
			       json_object_new_uint64(job->watch.npages));
	json_object_object_add(obj, "dirty",
			       json_object_new_uint64(job->dirty));
	json_object_object_add(obj, job->bitmap ? "words" : "ranges",
			       job->rows);
	return json_line(obj);
}

static int report_all(struct log_job *job)
{
	double start = now();

	for (job->report = 1; job->report <= job->count; job->report++) {
		int ret;

		interrupt_sleep(start + job->report * job->interval);
		job->time = now() - start;
		ret = report(job);
		if (ret)
			return ret;
	}
	return 0;
}

/* What was taken from the ring, or harvested in its place: which state is not known. */
static int report_taken(struct log_job *job, const struct dirtytrack_range *ranges,
			int nr)
{
	int ret = 0;
	int i;

	for (i = 0; i < nr && !ret; i++)
		ret = put_row(job, ranges[i].first, ranges[i].npages, NULL,
			      NULL);
	return ret;
}

/* Until there is nothing at the moment; *any tells if there was something. */
static int take_all(struct log_job *job, struct dtrack_ring *ring, bool *any)
{
	const struct dirtytrack_range *ranges;
	int ret;

	*any = false;
	while ((ret = dtrack_ring_take(ring, &ranges)) > 0) {
		*any = true;
		ret = report_taken(job, ranges, ret);
		if (ret)
			break;
	}
	return ret;
}

static int follow_ring(struct log_job *job, struct dtrack_ring *ring)
{
	double start = now(), last = start;
	int ret;

	job->report = 1;
	while (!job->count || job->report <= job->count) {
		bool any = false;

		interrupt_sleep(last + job->interval);
		ret = dtrack_ring_wait(ring, -1);
		last = job->time = now();
		job->time -= start;
		if (ret > 0)
			ret = take_all(job, ring, &any);
		/* To be stopped and continued ends a call, too. */
		if (ret < 0 && ret != -EINTR)
			return ret;
		job->report += any;
	}
	return 0;
}

static int follow(struct log_job *job)
{
	struct dtrack_ring *ring;
	int ret;

	ret = dtrack_ring_open(&ring, job->watch.log);
	if (ret)
		return ret;
	/* Each row is a line of its own, in JSON, too. */
	job->json = false;
	ret = follow_ring(job, ring);
	dtrack_ring_close(ring);
	return ret;
}

/* What was not given, and what does not go together. */
static int complete_options(struct log_job *job, struct table_options *opts,
			    struct watch_log *log)
{
	const char *odd = NULL;

	if (job->follow && job->bitmap)
		odd = "--bitmap";
	else if (job->follow && job->flags)
		odd = "--peek";
	if (odd) {
		msg_error("log: --follow and %s do not go together", odd);
		return -1;
	}
	if (log->ring && !job->follow) {
		msg_error("log: --ring is for --follow");
		return -1;
	}
	if (job->follow && !log->ring)
		log->ring = RING_ENTRIES;
	if (!job->follow && !job->count)
		job->count = 1;
	if (job->interval < 0)
		job->interval = job->follow ||
				log->flags & DIRTYTRACK_LOG_ALL_SET ? 0 : 1;
	if (job->bitmap && !opts->list)
		opts->list = "FIRST,PAGES,BITS";
	if (job->follow && !opts->list)
		opts->list = "TIME,FIRST,PAGES,SIZE";
	job->json = opts->json;
	return 0;
}

static int cmd_log(const struct builtin *cmd, int argc, char **argv)
{
	struct log_job job = { .interval = -1 };
	struct table_options opts = { 0 };
	struct watch_log log = { 0 };
	int val, ret;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		switch (val) {
		case OPTION_HELP:
			return EXIT_OK;
		case 'i':
			if (option_seconds("--interval", optarg, &job.interval))
				return usage_error(cmd);
			break;
		case 'c':
			if (option_count("--count", optarg, &job.count))
				return usage_error(cmd);
			break;
		case OPT_ALL_SET:
			log.flags |= DIRTYTRACK_LOG_ALL_SET;
			break;
		case 'f':
			job.follow = true;
			break;
		case OPT_RING:
			if (option_count("--ring", optarg, &log.ring))
				return usage_error(cmd);
			break;
		case OPT_LIMIT:
			if (option_limit(optarg, &log.limit))
				return usage_error(cmd);
			break;
		case OPT_PEEK:
			job.flags |= DIRTYTRACK_HARVEST_PEEK;
			break;
		case OPT_BITMAP:
			job.bitmap = true;
			break;
		default:
			if (!table_option(&opts, val, optarg))
				return usage_error(cmd);
		}
	}
	if (complete_options(&job, &opts, &log))
		return usage_error(cmd);
	ret = watch_begin(&job.watch, cmd, argv, &opts, &log);
	if (ret)
		return ret;
	return watch_end(&job.watch, job.follow ? follow(&job) : report_all(&job));
}

const struct builtin builtin_log = {
	.name = "log",
	.summary = "Report which pages of a slot are written",
	.usage = "[OPTION...] SLOT",
	.options = options,
	.columns = columns,
	.nr_columns = NR_COLUMNS,
	.run = cmd_log,
};
