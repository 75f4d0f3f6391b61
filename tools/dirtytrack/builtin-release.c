// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack release: give memory of a slot back to the host, or get it ahead of use. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "builtin.h"
#include "cold.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "range-list.h"
#include "release.h"
#include "source.h"
#include "table.h"
#include "units.h"

enum {
	OPT_FORMAT = 256,
	OPT_POPULATE,
	OPT_NODE,
	OPT_COLD,
	OPT_DRY_RUN,
	OPT_PROGRESS,
};

static const struct option_desc options[] = {
	{ 'f', "file", "FILE", "ranges from there; - for standard input" },
	{ OPT_FORMAT, "format", "FORMAT", "of it: text, json or binary" },
	{ OPT_POPULATE, "populate", NULL, "give the pages memory instead" },
	{ OPT_NODE, "node", "N", "NUMA node that it should come from" },
	{ 'z', "zero", NULL, "release what is all zero" },
	{ 'w', "watch", "SECONDS", "and again each time, of what was written since" },
	{ 'c', "count", "N", "looks of --watch; without it, until interrupted" },
	{ OPT_COLD, "cold", "N", "release nothing: list what N intervals leave unwritten" },
	{ 'i', "interval", "SECONDS", "each of them, 1 unless given" },
	{ OPT_DRY_RUN, "dry-run", NULL, "only say what would be done" },
	{ OPT_PROGRESS, "progress", NULL, "show progress also when not on a terminal" },
	TABLE_OPTIONS,
	{ 0 }
};

enum {
	COL_TIME,
	COL_ASKED,
	COL_LOOKED,
	COL_ZERO,
	COL_BROKEN,
	COL_BEFORE,
	COL_RELEASED,
	COL_SKIPPED,
	COL_POPULATED,
	COL_AFTER,
	COL_SECONDS,
	COL_UNMAPS,
	COL_FIRST,
	COL_PAGES,
	COL_OFFSET,
	COL_SIZE,
	NR_COLUMNS,
};

static const struct column columns[NR_COLUMNS] = {
	[COL_TIME] = { "TIME", COLUMN_SECONDS, 10, COLUMN_HIDDEN,
		       "seconds since the start" },
	[COL_ASKED] = { "ASKED", COLUMN_SIZE, 9, 0, "size of the ranges" },
	[COL_LOOKED] = { "LOOKED", COLUMN_SIZE, 9, COLUMN_HIDDEN,
			 "size of the pages that were looked at" },
	[COL_ZERO] = { "ZERO", COLUMN_SIZE, 9, COLUMN_HIDDEN,
		       "size of those that were zero" },
	[COL_BROKEN] = { "BROKEN", COLUMN_SIZE, 9, COLUMN_HIDDEN,
			 "size of the pages that could not be read" },
	[COL_BEFORE] = { "BEFORE", COLUMN_SIZE, 9, 0,
			 "size of the slot's memory before" },
	[COL_RELEASED] = { "RELEASED", COLUMN_SIZE, 9, 0,
			   "size of the memory given back" },
	[COL_SKIPPED] = { "SKIPPED", COLUMN_SIZE, 9, COLUMN_HIDDEN,
			  "size of what was written meanwhile, or held" },
	[COL_POPULATED] = { "POPULATED", COLUMN_SIZE, 9, COLUMN_HIDDEN,
			    "size of the memory got" },
	[COL_AFTER] = { "AFTER", COLUMN_SIZE, 9, 0,
			"size of the slot's memory after" },
	[COL_SECONDS] = { "SECONDS", COLUMN_SECONDS, 9, 0, "how long it took" },
	[COL_UNMAPS] = { "UNMAPS", COLUMN_NUMBER, 9, COLUMN_HIDDEN,
			 "runs of pages taken out of the mappings" },
	[COL_FIRST] = { "FIRST", COLUMN_NUMBER, 12, COLUMN_HIDDEN,
			"first page" },
	[COL_PAGES] = { "PAGES", COLUMN_NUMBER, 10, COLUMN_HIDDEN, "how many" },
	[COL_OFFSET] = { "OFFSET", COLUMN_NUMBER, 16, COLUMN_HIDDEN,
			 "first byte" },
	[COL_SIZE] = { "SIZE", COLUMN_SIZE, 8, COLUMN_HIDDEN,
		       "size of those pages" },
};

/* What is printed unless something else is asked for, by what is done. */
#define SHOW_ZERO	"LOOKED,ZERO,BEFORE,RELEASED,SKIPPED,AFTER,SECONDS"
#define SHOW_WATCH	"TIME," SHOW_ZERO
#define SHOW_POPULATE	"ASKED,BEFORE,POPULATED,AFTER,SECONDS"
#define SHOW_COLD	"FIRST,PAGES,SIZE"

struct release_job {
	const char *file;
	enum range_format format;
	struct range_list list;
	bool populate;
	int node;
	bool zero;
	bool watch;
	double watch_seconds;
	unsigned int count;		/* looks; 0 is no end */
	unsigned int cold;		/* intervals */
	double interval;
	bool dry_run;
	bool progress;
	struct table_options table_opts;

	struct table *table;
	struct release release;
	struct source_slot src;		/* with --zero and --cold */
	struct release before;		/* when what is printed next was begun */
	uint64_t resident;		/* pages, then */
	double start;
	double begun;
};

/* ---- what is printed ---- */

static int get_resident(struct release_job *job, uint64_t *pages)
{
	struct dirtytrack_slot_info info;
	int ret = dtrack_slot_info(job->release.slot, &info);

	if (ret)
		msg_errno(ret, "slot %s: cannot ask about it", job->release.ref);
	*pages = info.out_resident;
	return ret;
}

static int begin(struct release_job *job)
{
	job->before = job->release;
	job->begun = now();
	return get_resident(job, &job->resident);
}

static struct cell size_cell(uint64_t after, uint64_t before)
{
	return cell_number((after - before) * DTRACK_PAGE_SIZE);
}

/* What was done since. */
static int print_done(struct release_job *job)
{
	const struct release *r = &job->release, *b = &job->before;
	struct cell cells[NR_COLUMNS] = { 0 };
	double time = now();
	uint64_t after;
	int ret;

	ret = get_resident(job, &after);
	if (ret)
		return ret;
	if (r->dry_run)
		after = job->resident - (r->released - b->released) +
			(r->populated - b->populated);
	cells[COL_TIME] = cell_real(time - job->start);
	cells[COL_BEFORE] = size_cell(job->resident, 0);
	cells[COL_AFTER] = size_cell(after, 0);
	cells[COL_SECONDS] = cell_real(time - job->begun);
	if (job->zero) {
		cells[COL_LOOKED] = size_cell(r->looked, b->looked);
		cells[COL_ZERO] = size_cell(r->zero, b->zero);
		cells[COL_BROKEN] = size_cell(r->broken, b->broken);
		cells[COL_SKIPPED] = size_cell(r->skipped, b->skipped);
	} else {
		cells[COL_ASKED] = size_cell(range_list_pages(&job->list), 0);
	}
	if (job->populate) {
		cells[COL_POPULATED] = size_cell(r->populated, b->populated);
	} else {
		cells[COL_RELEASED] = size_cell(r->released, b->released);
		cells[COL_UNMAPS] = cell_number(r->unmaps - b->unmaps);
	}
	progress_clear(&job->release.progress);
	ret = table_stream(job->table, cells);
	if (ret)
		msg_errno(ret, "standard output");
	return ret;
}

static int print_cold(struct release_job *job, uint64_t first, uint64_t npages)
{
	struct cell cells[NR_COLUMNS] = {
		[COL_TIME] = cell_real(now() - job->start),
		[COL_FIRST] = cell_number(first),
		[COL_PAGES] = cell_number(npages),
		[COL_OFFSET] = cell_number(first * DTRACK_PAGE_SIZE),
		[COL_SIZE] = cell_number(npages * DTRACK_PAGE_SIZE),
	};
	int ret = table_stream(job->table, cells);

	if (ret)
		msg_errno(ret, "standard output");
	return ret;
}

/* ---- what is done ---- */

static int open_ranges_slot(struct release_job *job)
{
	struct dirtytrack_slot_info info;

	job->release.slot = open_slot(job->release.ref, &info);
	if (job->release.slot < 0)
		return job->release.slot;
	job->release.npages = info.out_length / DTRACK_PAGE_SIZE;
	return 0;
}

/* All ranges are known to be good before the first page is released. */
static int do_ranges(struct release_job *job)
{
	struct release *r = &job->release;
	int ret = open_ranges_slot(job), printed;

	if (ret)
		return ret;
	range_list_sort(&job->list);
	ret = range_list_check(&job->list, r->npages, r->ref);
	if (!ret)
		ret = begin(job);
	if (!ret) {
		ret = job->populate ? release_populate(r, &job->list, job->node) :
				      release_ranges(r, &job->list);
		/* Also of what was done until it failed. */
		printed = print_done(job);
		ret = ret ? ret : printed;
	}
	close(r->slot);
	return ret;
}

static int open_source(struct release_job *job, uint32_t flags)
{
	int ret = source_slot_open_log(&job->src, job->release.ref, flags);

	if (ret)
		return ret;
	job->release.slot = job->src.slot;
	job->release.npages = job->src.base.npages;
	return 0;
}

static int look(struct release_job *job)
{
	int ret = begin(job), printed;

	if (ret)
		return ret;
	ret = release_zero(&job->release, &job->src);
	printed = print_done(job);
	return ret ? ret : printed;
}

static int do_zero(struct release_job *job)
{
	unsigned int looks = 1;
	int ret;

	ret = open_source(job, DIRTYTRACK_LOG_ALL_SET | DIRTYTRACK_LOG_MAY_RELEASE);
	if (ret)
		return ret;
	ret = look(job);
	while (!ret && job->watch && (!job->count || looks++ < job->count)) {
		/* From the end of the last one: a slow look must not be followed by another. */
		ret = interrupt_sleep(now() + job->watch_seconds);
		if (!ret)
			ret = look(job);
	}
	source_slot_close(&job->src);
	return ret;
}

static int list_cold(struct release_job *job, const struct cold *c)
{
	uint64_t page = 0, first, npages;

	for (;;) {
		int ret = cold_next(c, page, &first, &npages);

		if (ret || !npages)
			return ret;
		ret = print_cold(job, first, npages);
		if (ret)
			return ret;
		page = first + npages;
	}
}

static int do_cold(struct release_job *job)
{
	struct cold c = {
		.src = &job->src,
		.intervals = job->cold,
		.seconds = job->interval,
		.progress = &job->release.progress,
	};
	int ret = open_source(job, 0);

	if (ret)
		return ret;
	c.written = dtrack_bitmap_alloc(job->release.npages);
	if (!c.written) {
		ret = -ENOMEM;
		msg_errno(ret, "slot %s", job->release.ref);
	} else {
		ret = cold_watch(&c);
	}
	progress_clear(&job->release.progress);
	if (!ret)
		ret = list_cold(job, &c);
	free(c.written);
	source_slot_close(&job->src);
	return ret;
}

/* ---- what is asked for ---- */

static int set_seconds(const char *option, const char *arg, double *seconds)
{
	if (option_seconds(option, arg, seconds))
		return -1;
	if (*seconds >= 0.001)
		return 0;
	msg_error("%s: '%s' is less than a millisecond", option, arg);
	return -1;
}

static int set_option(struct release_job *job, int val, const char *arg)
{
	uint64_t node;

	switch (val) {
	case 'f':
		if (job->file) {
			msg_error("--file: '%s' would be the second one", arg);
			return -1;
		}
		job->file = arg;
		return 0;
	case OPT_FORMAT:
		if (!range_format_parse(arg, &job->format))
			return 0;
		msg_error("--format: '%s' is none of text, json and binary", arg);
		return -1;
	case OPT_POPULATE:
		job->populate = true;
		return 0;
	case OPT_NODE:
		if (!parse_number(arg, INT_MAX, &node)) {
			job->node = node;
			return 0;
		}
		msg_error("--node: '%s' is not the number of a node", arg);
		return -1;
	case 'z':
		job->zero = true;
		return 0;
	case 'w':
		job->watch = true;
		return set_seconds("--watch", arg, &job->watch_seconds);
	case 'c':
		return option_count("--count", arg, &job->count);
	case OPT_COLD:
		return option_count("--cold", arg, &job->cold);
	case 'i':
		return set_seconds("--interval", arg, &job->interval);
	case OPT_DRY_RUN:
		job->dry_run = true;
		return 0;
	case OPT_PROGRESS:
		job->progress = true;
		return 0;
	}
	return table_option(&job->table_opts, val, arg) ? 0 : -1;
}

/* What goes with what; NULL, or why not. */
static const char *check_options(const struct release_job *job, bool ranges)
{
	if (job->zero + (job->cold > 0) + job->populate > 1)
		return "only one of --zero, --cold and --populate can be done at once";
	if (ranges && (job->zero || job->cold))
		return "--zero and --cold are of all pages, not of ranges";
	if (!ranges && !job->zero && !job->cold)
		return "which pages? (ranges, --file, --zero or --cold)";
	if (job->format != RANGES_GUESS && !job->file)
		return "--format is for --file";
	if (job->node != DIRTYTRACK_NODE_ANY && !job->populate)
		return "--node is for --populate";
	if (job->watch && !job->zero)
		return "--watch is for --zero";
	if (job->count && !job->watch)
		return "--count is for --watch";
	if (job->interval > 0 && !job->cold)
		return "--interval is for --cold";
	if (job->cold && job->dry_run)
		return "--cold releases nothing anyway";
	return NULL;
}

static void complete_options(struct release_job *job)
{
	if (job->interval <= 0)
		job->interval = 1;
	if (job->table_opts.list)
		return;
	if (job->cold)
		job->table_opts.list = SHOW_COLD;
	else if (job->populate)
		job->table_opts.list = SHOW_POPULATE;
	else if (job->watch)
		job->table_opts.list = SHOW_WATCH;
	else if (job->zero)
		job->table_opts.list = SHOW_ZERO;
}

/* SLOT [RANGE...] */
static int set_operands(struct release_job *job, char **argv)
{
	const char *why;

	if (!argv[0]) {
		msg_error("release: which slot?");
		return -1;
	}
	job->release.ref = argv[0];
	why = check_options(job, argv[1] || job->file);
	if (why) {
		msg_error("release: %s", why);
		return -1;
	}
	while (*++argv)
		if (range_list_parse(&job->list, *argv))
			return -1;
	return 0;
}

static int run(struct release_job *job)
{
	int ret = 0;

	interrupt_catch();
	progress_begin(&job->release.progress, job->progress);
	job->release.dry_run = job->dry_run;
	job->start = now();
	if (job->file)
		ret = range_list_read(&job->list, job->file, job->format);
	if (ret)
		return ret;
	if (job->zero)
		return do_zero(job);
	return job->cold ? do_cold(job) : do_ranges(job);
}

static int release(const struct builtin *cmd, int argc, char **argv)
{
	struct release_job job = { .node = DIRTYTRACK_NODE_ANY };
	int val, ret;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (set_option(&job, val, optarg))
			return usage_error(cmd);
	}
	ret = set_operands(&job, argv + optind);
	if (!ret) {
		complete_options(&job);
		job.table = table_new(cmd->columns, cmd->nr_columns, &job.table_opts);
	}
	if (ret || !job.table) {
		range_list_free(&job.list);
		return usage_error(cmd);
	}
	ret = run(&job);
	table_free(job.table);
	range_list_free(&job.list);
	interrupt_die();
	return ret ? EXIT_FAILED : EXIT_OK;
}

const struct builtin builtin_release = {
	.name = "release",
	.summary = "Give memory of a slot back to the host",
	.usage = "[OPTION...] SLOT [RANGE...]",
	.options = options,
	.columns = columns,
	.nr_columns = NR_COLUMNS,
	.run = release,
};
