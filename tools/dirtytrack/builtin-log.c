// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack log: which pages of a slot were written
 *
 * A log begins when it is made and ends with its file, so there is nothing to ask
 * about the past: the command makes a log, waits, and reports.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <json-c/json.h>

#include "builtin.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "table.h"
#include "units.h"

enum {
	OPT_ALL_SET = 256,
	OPT_BITMAP,
	OPT_PEEK,
};

static const struct option_desc options[] = {
	{ 'i', "interval", "SECONDS", "time before each report, 1 unless given" },
	{ 'c', "count", "N", "reports, 1 unless given" },
	{ OPT_ALL_SET, "all-set", NULL, "begin with every page that has memory" },
	{ OPT_PEEK, "peek", NULL, "leave pages in the log: reports add up" },
	{ OPT_BITMAP, "bitmap", NULL, "report words of the bitmap, not ranges" },
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
	int log;
	uint64_t npages;
	uint32_t flags;
	bool bitmap;
	bool json;
	double interval;
	unsigned int count;
	struct table *table;

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
		return table_stream(job->table, cells);
	row = table_json_row(job->table, cells);
	if (!row || json_object_array_add(job->rows, row))
		return -ENOMEM;
	return 0;
}

static int report_ranges(struct log_job *job)
{
	struct dtrack_extents *iter;
	struct dirtytrack_extent ext;
	int ret;

	ret = dtrack_extents_open(&iter, job->log, job->flags, 0, job->npages);
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
	uint64_t *bitmap = dtrack_bitmap_alloc(job->npages);
	struct dtrack_harvested done;
	uint64_t page;
	char bits[17];
	int ret;

	if (!bitmap)
		return -ENOMEM;
	if (job->flags & DIRTYTRACK_HARVEST_PEEK)
		ret = dtrack_peek(job->log, 0, job->npages, bitmap, 0, &done);
	else
		ret = dtrack_harvest(job->log, 0, job->npages, bitmap, 0,
				     &done);
	for (page = dtrack_bitmap_next(bitmap, job->npages, 0);
	     !ret && page < job->npages;
	     page = dtrack_bitmap_next(bitmap, job->npages, page)) {
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
			       json_object_new_uint64(job->npages));
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

static int log_slot(struct log_job *job, const char *ref, uint32_t flags)
{
	struct dirtytrack_slot_info info;
	int slot, ret;

	slot = open_slot(ref, &info);
	if (slot < 0)
		return EXIT_FAILED;
	job->npages = info.out_length / DTRACK_PAGE_SIZE;
	job->log = open_log(slot, ref, flags);
	/* The log holds the slot's memory, and more is not needed of it. */
	close(slot);
	if (job->log < 0)
		return EXIT_FAILED;
	ret = report_all(job);
	close(job->log);
	if (ret)
		msg_errno(ret, "slot %s: cannot report its log", ref);
	return ret ? EXIT_FAILED : EXIT_OK;
}

static int cmd_log(const struct builtin *cmd, int argc, char **argv)
{
	struct log_job job = { .interval = -1, .count = 1 };
	struct table_options opts = { 0 };
	uint32_t flags = 0;
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
			flags |= DIRTYTRACK_LOG_ALL_SET;
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
	argv += optind;
	if (!argv[0] || argv[1]) {
		msg_error(argv[0] ? "log: '%s' is one argument too many" :
			  "log: which slot?", argv[1]);
		return usage_error(cmd);
	}
	if (job.interval < 0)
		job.interval = flags & DIRTYTRACK_LOG_ALL_SET ? 0 : 1;
	if (job.bitmap && !opts.list)
		opts.list = "FIRST,PAGES,BITS";
	job.json = opts.json;
	job.table = table_new(cmd->columns, cmd->nr_columns, &opts);
	if (!job.table)
		return usage_error(cmd);
	ret = log_slot(&job, argv[0], flags);
	table_free(job.table);
	return ret;
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
