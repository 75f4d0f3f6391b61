// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack info: everything about one slot, and what the module allows. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "builtin.h"
#include "device.h"
#include "msg.h"
#include "slot-columns.h"
#include "units.h"

static const struct option_desc options[] = {
	{ 'b', "bytes", NULL, "print sizes in bytes" },
	{ 'J', "json", NULL, "print JSON" },
	{ 0 }
};

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

/* One slot: all columns, one a line. */
static int print_slot(const struct dirtytrack_slot_info *info,
		      const struct table_options *opts)
{
	static const struct column pair[] = {
		{ "KEY", COLUMN_TEXT, 12, 0, "" },
		{ "VALUE", COLUMN_TEXT, 20, 0, "" },
	};
	struct table_options lines = { .noheadings = true };
	struct cell cells[NR_SLOT_COLUMNS], row[2];
	struct slot_text text;
	struct table *table;
	char value[64];
	size_t i;
	int ret = 0;

	slot_cells(info, &text, cells);
	table = table_new(pair, 2, &lines);
	if (!table)
		return -ENOMEM;
	for (i = 0; i < NR_SLOT_COLUMNS && !ret; i++) {
		const struct column *c = &slot_columns[i];

		row[0] = cell_text(c->name);
		row[1] = cell_text(value);
		if (!cells[i].set)
			snprintf(value, sizeof(value), "-");
		else if (c->type == COLUMN_TEXT)
			snprintf(value, sizeof(value), "%s", cells[i].text);
		else if (c->type == COLUMN_SIZE && !opts->bytes)
			human_size(cells[i].number, value);
		else
			snprintf(value, sizeof(value), "%" PRIu64,
				 cells[i].number);
		row[1].set = true;
		ret = table_add(table, row);
	}
	if (!ret)
		ret = table_print(table, NULL);
	table_free(table);
	return ret;
}

static int print_slot_json(const struct dirtytrack_slot_info *info)
{
	struct table_options opts = { .json = true, .all = true };
	struct cell cells[NR_SLOT_COLUMNS];
	struct slot_text text;
	struct table *table;
	int ret;

	slot_cells(info, &text, cells);
	table = table_new(slot_columns, NR_SLOT_COLUMNS, &opts);
	if (!table)
		return -ENOMEM;
	ret = json_line(table_json_row(table, cells));
	table_free(table);
	return ret;
}

static int print_module(const struct dirtytrack_info *info,
			const struct table_options *opts)
{
	char size[HUMAN_LEN];

	if (opts->json) {
		struct json_object *obj = json_object_new_object();

		if (!obj)
			return -ENOMEM;
		json_object_object_add(obj, "strategy",
			json_object_new_string(strategy_name(info->out_strategy)));
		json_object_object_add(obj, "page_size",
			json_object_new_uint64(UINT64_C(1) << info->out_page_shift));
		json_object_object_add(obj, "max_slot_size",
			json_object_new_uint64(info->out_max_slot_size));
		json_object_object_add(obj, "max_slots",
			json_object_new_uint64(info->out_max_slots));
		json_object_object_add(obj, "max_logs",
			json_object_new_uint64(info->out_max_logs));
		json_object_object_add(obj, "features",
			json_object_new_uint64(info->out_features));
		return json_line(obj);
	}
	if (opts->bytes)
		snprintf(size, sizeof(size), "%" PRIu64,
			 (uint64_t)info->out_max_slot_size);
	else
		human_size(info->out_max_slot_size, size);
	printf("STRATEGY      %s\n", strategy_name(info->out_strategy));
	printf("PAGE-SIZE     %" PRIu64 "\n",
	       UINT64_C(1) << info->out_page_shift);
	printf("MAX-SLOT-SIZE %s\n", size);
	printf("MAX-SLOTS     %u\n", info->out_max_slots);
	printf("MAX-LOGS      %u\n", info->out_max_logs);
	printf("FEATURES      %#" PRIx64 "\n", (uint64_t)info->out_features);
	return fflush(stdout) ? -errno : 0;
}

static int info_module(const struct table_options *opts)
{
	struct dirtytrack_info info;
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
	ret = print_module(&info, opts);
	if (ret)
		msg_errno(ret, "standard output");
	return ret ? EXIT_FAILED : EXIT_OK;
}

static int info_slot(const char *ref, const struct table_options *opts)
{
	struct dirtytrack_slot_info info;
	int slot, ret;

	slot = open_slot(ref, &info);
	if (slot < 0)
		return EXIT_FAILED;
	close(slot);
	ret = opts->json ? print_slot_json(&info) : print_slot(&info, opts);
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
