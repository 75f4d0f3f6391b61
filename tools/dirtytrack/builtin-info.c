// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack info: everything about one slot, and what the module allows. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "builtin.h"
#include "device.h"
#include "msg.h"
#include "slot-columns.h"

static const struct option_desc options[] = {
	{ 'b', "bytes", NULL, "print sizes in bytes" },
	{ 'J', "json", NULL, "print JSON" },
	{ 0 }
};

enum {
	COL_STRATEGY,
	COL_PAGE_SIZE,
	COL_MAX_SLOT_SIZE,
	COL_MAX_SLOTS,
	COL_MAX_USER_SLOTS,
	COL_MAX_LOGS,
	COL_MAX_RING,
	COL_MAX_MEMORY,
	COL_FEATURES,
	NR_MODULE_COLUMNS,
};

static const struct column module_columns[NR_MODULE_COLUMNS] = {
	[COL_STRATEGY] = { "STRATEGY", COLUMN_TEXT, 13, 0,
			   "how write permission is taken away" },
	[COL_PAGE_SIZE] = { "PAGE-SIZE", COLUMN_SIZE, 9, 0, "size of a page" },
	[COL_MAX_SLOT_SIZE] = { "MAX-SLOT-SIZE", COLUMN_SIZE, 13, 0,
				"size of the largest slot" },
	[COL_MAX_SLOTS] = { "MAX-SLOTS", COLUMN_NUMBER, 9, 0,
			    "slots that may exist" },
	[COL_MAX_USER_SLOTS] = { "MAX-USER-SLOTS", COLUMN_NUMBER, 14, 0,
				 "slots that an unprivileged user may have" },
	[COL_MAX_LOGS] = { "MAX-LOGS", COLUMN_NUMBER, 8, 0,
			   "logs that a slot may have" },
	[COL_MAX_RING] = { "MAX-RING", COLUMN_NUMBER, 8, 0,
			   "entries that the ring of a log may have" },
	[COL_MAX_MEMORY] = { "MAX-MEMORY", COLUMN_SIZE, 10, 0,
			     "memory that all slots may take" },
	[COL_FEATURES] = { "FEATURES", COLUMN_TEXT, 12, 0,
			   "later additions that this module has" },
};

/* Those that came after the command are numbers. */
static const char *feature_names(uint64_t features, char buf[CELL_LEN])
{
	static const char *const names[] = { "ring", "limit", "release" };
	size_t len = 0;
	unsigned int i;

	buf[0] = '\0';
	for (i = 0; features && len < CELL_LEN; i++, features >>= 1) {
		if (!(features & 1))
			continue;
		if (i < sizeof(names) / sizeof(*names))
			len += snprintf(buf + len, CELL_LEN - len, "%s%s",
					len ? "," : "", names[i]);
		else
			len += snprintf(buf + len, CELL_LEN - len, "%s%u",
					len ? "," : "", i);
	}
	return buf;
}

static const char *strategy_name(uint32_t strategy)
{
	switch (strategy) {
	case DIRTYTRACK_STRATEGY_WP:
		return "write-protect";
	case DIRTYTRACK_STRATEGY_ZAP:
		return "zap";
	}
	return "unknown";
}

static int print_json(const struct column *columns, size_t nr,
		      const struct cell *cells)
{
	struct table_options opts = { .json = true, .all = true };
	struct table *table;
	int ret;

	table = table_new(columns, nr, &opts);
	if (!table)
		return -ENOMEM;
	ret = json_line(table_json_row(table, cells));
	table_free(table);
	return ret;
}

/* One row: all its columns, one a line. */
static int print_row(const struct column *columns, size_t nr,
		     const struct cell *cells, const struct table_options *opts)
{
	static const struct column pair[] = {
		{ "KEY", COLUMN_TEXT, 14, 0, "" },
		{ "VALUE", COLUMN_TEXT, 20, 0, "" },
	};
	struct table_options lines = { .noheadings = true };
	char buf[CELL_LEN];
	struct cell row[2];
	struct table *table;
	int ret = 0;
	size_t i;

	if (opts->json)
		return print_json(columns, nr, cells);
	table = table_new(pair, 2, &lines);
	if (!table)
		return -ENOMEM;
	for (i = 0; i < nr && !ret; i++) {
		const char *text = cell_format(&columns[i], &cells[i],
					       opts->bytes, buf);

		row[0] = cell_text(columns[i].name);
		row[1] = cell_text(*text ? text : "-");
		ret = table_add(table, row);
	}
	if (!ret)
		ret = table_print(table, NULL);
	table_free(table);
	return ret;
}

static int info_module(const struct table_options *opts)
{
	struct cell cells[NR_MODULE_COLUMNS];
	struct dirtytrack_info info;
	char features[CELL_LEN];
	int device, ret;

	device = open_device();
	if (device < 0)
		return EXIT_FAILED;
	ret = dtrack_get_info(device, &info);
	close(device);
	if (ret) {
		msg_errno(ret, "%s: cannot ask about it", DIRTYTRACK_DEVICE);
		return EXIT_FAILED;
	}
	cells[COL_STRATEGY] = cell_text(strategy_name(info.out_strategy));
	cells[COL_PAGE_SIZE] = cell_number(UINT64_C(1) << info.out_page_shift);
	cells[COL_MAX_SLOT_SIZE] = cell_number(info.out_max_slot_size);
	cells[COL_MAX_SLOTS] = cell_number(info.out_max_slots);
	cells[COL_MAX_USER_SLOTS] = cell_number(info.out_max_user_slots);
	cells[COL_MAX_LOGS] = cell_number(info.out_max_logs);
	cells[COL_MAX_RING] = cell_number(info.out_max_ring_entries);
	cells[COL_MAX_MEMORY] = cell_number(info.out_max_memory);
	cells[COL_FEATURES] = cell_text(feature_names(info.out_features, features));
	ret = print_row(module_columns, NR_MODULE_COLUMNS, cells, opts);
	if (ret)
		msg_errno(ret, "standard output");
	return ret ? EXIT_FAILED : EXIT_OK;
}

static int info_slot(const char *ref, const struct table_options *opts)
{
	struct cell cells[NR_SLOT_COLUMNS];
	struct dirtytrack_slot_info info;
	struct slot_text text;
	int slot, ret;

	slot = open_slot(ref, &info);
	if (slot < 0)
		return EXIT_FAILED;
	slot_cells(slot, &info, &text, cells);
	close(slot);
	ret = print_row(slot_columns, NR_SLOT_COLUMNS, cells, opts);
	if (ret)
		msg_errno(ret, "standard output");
	return ret ? EXIT_FAILED : EXIT_OK;
}

static int info(const struct builtin *cmd, int argc, char **argv)
{
	struct table_options opts = { 0 };
	int val;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (!table_option(&opts, val, optarg))
			return usage_error(cmd);
	}
	argv += optind;
	if (!argv[0])
		return info_module(&opts);
	if (argv[1]) {
		msg_error("info: '%s' is one argument too many", argv[1]);
		return usage_error(cmd);
	}
	return info_slot(argv[0], &opts);
}

const struct builtin builtin_info = {
	.name = "info",
	.summary = "Show everything about one slot, or what the module allows",
	.usage = "[OPTION...] [SLOT]",
	.options = options,
	.columns = slot_columns,
	.nr_columns = NR_SLOT_COLUMNS,
	.run = info,
};
