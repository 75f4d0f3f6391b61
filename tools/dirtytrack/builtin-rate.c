// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack rate: how fast a slot is written, in distinct pages. */
#include <errno.h>
#include <getopt.h>

#include "builtin.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "table.h"
#include "units.h"
#include "watch.h"

enum {
	OPT_LIMIT = 256,
};

static const struct option_desc options[] = {
	{ 'i', "interval", "SECONDS", "time of each line, 1 unless given" },
	{ 'c', "count", "N", "lines; without it, until interrupted" },
	LIMIT_OPTION(OPT_LIMIT),
	TABLE_OPTIONS,
	{ 0 }
};

enum {
	COL_TIME,
	COL_DIRTY,
	COL_PAGES,
	COL_RATE,
	COL_RESIDENT,
	COL_LOGS,
	COL_LIMIT,
	COL_THROTTLES,
	COL_THROTTLED,
	NR_COLUMNS,
};

static const struct column columns[NR_COLUMNS] = {
	[COL_TIME] = { "TIME", COLUMN_SECONDS, 10, 0, "seconds since the start" },
	[COL_DIRTY] = { "DIRTY", COLUMN_NUMBER, 10, 0,
			"pages written in the interval" },
	[COL_PAGES] = { "PAGES/S", COLUMN_NUMBER, 10, 0, "pages a second" },
	[COL_RATE] = { "RATE", COLUMN_RATE, 10, 0, "bytes a second" },
	[COL_RESIDENT] = { "RESIDENT", COLUMN_SIZE, 9, 0,
			   "size of the pages that have memory" },
	[COL_LOGS] = { "LOGS", COLUMN_NUMBER, 4, COLUMN_HIDDEN,
		       "logs that exist, this one included" },
	[COL_LIMIT] = { "LIMIT", COLUMN_NUMBER, 8, COLUMN_HIDDEN,
			"limit of the slot, pages a second" },
	[COL_THROTTLES] = { "THROTTLES", COLUMN_NUMBER, 9, COLUMN_HIDDEN,
			    "how often writers waited in the interval" },
	[COL_THROTTLED] = { "THROTTLED", COLUMN_SECONDS, 10, COLUMN_HIDDEN,
			    "how long they waited, all together, seconds" },
};

struct rate_job {
	struct watch watch;
	double interval;
	unsigned int count;	/* 0 is no end */
};

/* The limit of a slot may be another's. */
static void limit_cells(const struct dirtytrack_slot_info *info,
			const struct dirtytrack_slot_info *last,
			struct cell cells[NR_COLUMNS])
{
	uint64_t ns = info->out_throttled_ns - last->out_throttled_ns;

	cells[COL_LIMIT] = cell_number(info->out_rate);
	cells[COL_LIMIT].set = info->out_rate;
	cells[COL_THROTTLES] = cell_number(info->out_throttles -
					   last->out_throttles);
	cells[COL_THROTTLED] = cell_real(ns / 1e9);
}

static int watch_rate(struct rate_job *job)
{
	struct dirtytrack_slot_info info, old;
	double start, last;
	unsigned int line;
	int ret;

	ret = dtrack_slot_info(job->watch.slot, &old);
	if (ret)
		return ret;
	start = last = now();
	for (line = 0; !job->count || line < job->count; line++) {
		struct cell cells[NR_COLUMNS];
		double time, pages;
		uint64_t dirty;

		interrupt_sleep(last + job->interval);
		ret = count_dirty(job->watch.log, job->watch.npages, true,
				  &dirty);
		if (!ret)
			ret = dtrack_slot_info(job->watch.slot, &info);
		if (ret)
			return ret;
		time = now();
		/* What was written in this time, however long it turned out. */
		pages = dirty / (time - last);
		last = time;
		cells[COL_TIME] = cell_real(time - start);
		cells[COL_DIRTY] = cell_number(dirty);
		cells[COL_PAGES] = cell_number(pages + 0.5);
		cells[COL_RATE] = cell_number(pages * DTRACK_PAGE_SIZE);
		cells[COL_RESIDENT] = cell_number(info.out_resident *
						  DTRACK_PAGE_SIZE);
		cells[COL_LOGS] = cell_number(info.out_logs);
		limit_cells(&info, &old, cells);
		old = info;
		ret = table_stream(job->watch.table, cells);
		if (ret)
			return ret;
	}
	return 0;
}

static int rate(const struct builtin *cmd, int argc, char **argv)
{
	struct rate_job job = { .interval = 1 };
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
			if (job.interval < 0.001) {
				msg_error("--interval: '%s' is less than a millisecond",
					  optarg);
				return usage_error(cmd);
			}
			break;
		case 'c':
			if (option_count("--count", optarg, &job.count))
				return usage_error(cmd);
			break;
		case OPT_LIMIT:
			if (option_limit(optarg, &log.limit))
				return usage_error(cmd);
			break;
		default:
			if (!table_option(&opts, val, optarg))
				return usage_error(cmd);
		}
	}
	if (log.limit && !opts.list)
		opts.list = "+THROTTLES,THROTTLED";
	ret = watch_begin(&job.watch, cmd, argv, &opts, &log);
	if (ret)
		return ret;
	return watch_end(&job.watch, watch_rate(&job));
}

const struct builtin builtin_rate = {
	.name = "rate",
	.summary = "Show how fast a slot is written",
	.usage = "[OPTION...] SLOT",
	.options = options,
	.columns = columns,
	.nr_columns = NR_COLUMNS,
	.run = rate,
};
