// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack rate: how fast a slot is written, in distinct pages. */
#include <errno.h>
#include <getopt.h>
#include <unistd.h>

#include "builtin.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "table.h"
#include "units.h"

static const struct option_desc options[] = {
	{ 'i', "interval", "SECONDS", "time of each line, 1 unless given" },
	{ 'c', "count", "N", "lines; without it, until interrupted" },
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
};

struct rate_job {
	int slot;
	int log;
	uint64_t npages;
	double interval;
	unsigned int count;	/* 0 is no end */
	struct table *table;
};

static int watch(struct rate_job *job)
{
	double start = now(), last = start;
	unsigned int line;

	for (line = 0; !job->count || line < job->count; line++) {
		struct dirtytrack_slot_info info;
		struct cell cells[NR_COLUMNS];
		double time, pages;
		uint64_t dirty;
		int ret;

		interrupt_sleep(last + job->interval);
		ret = count_dirty(job->log, job->npages, true, &dirty);
		if (!ret)
			ret = dtrack_slot_info(job->slot, &info);
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
		ret = table_stream(job->table, cells);
		if (ret)
			return ret;
	}
	return 0;
}

static int rate_slot(struct rate_job *job, const char *ref)
{
	struct dirtytrack_slot_info info;
	int ret;

	job->slot = open_slot(ref, &info);
	if (job->slot < 0)
		return EXIT_FAILED;
	job->npages = info.out_length / DTRACK_PAGE_SIZE;
	job->log = open_log(job->slot, ref, 0);
	if (job->log < 0) {
		close(job->slot);
		return EXIT_FAILED;
	}
	ret = watch(job);
	if (ret)
		msg_errno(ret, "slot %s: cannot watch it", ref);
	close(job->log);
	close(job->slot);
	return ret ? EXIT_FAILED : EXIT_OK;
}

static int rate(const struct builtin *cmd, int argc, char **argv)
{
	struct rate_job job = { .interval = 1 };
	struct table_options opts = { 0 };
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
		default:
			if (!table_option(&opts, val, optarg))
				return usage_error(cmd);
		}
	}
	argv += optind;
	if (!argv[0] || argv[1]) {
		msg_error(argv[0] ? "rate: '%s' is one argument too many" :
			  "rate: which slot?", argv[1]);
		return usage_error(cmd);
	}
	job.table = table_new(cmd->columns, cmd->nr_columns, &opts);
	if (!job.table)
		return usage_error(cmd);
	ret = rate_slot(&job, argv[0]);
	table_free(job.table);
	return ret;
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
