// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack list: the slots that the caller may open. */
#include <errno.h>
#include <getopt.h>
#include <unistd.h>

#include "builtin.h"
#include "device.h"
#include "msg.h"
#include "slot-columns.h"

static const struct option_desc options[] = {
	TABLE_OPTIONS,
	{ 0 }
};

/* A slot may end between being found and being opened: that is no error. */
static int add_slot(struct table *table, int device, uint32_t id)
{
	struct cell cells[NR_SLOT_COLUMNS];
	struct dirtytrack_slot_info info;
	struct slot_text text;
	int slot, ret;

	slot = dtrack_slot_open_id(device, id);
	if (slot == -ENOENT || slot == -EACCES)
		return 0;
	if (slot < 0) {
		msg_errno(slot, "slot %u: cannot open it", id);
		return slot;
	}
	ret = dtrack_slot_info(slot, &info);
	if (ret) {
		msg_errno(ret, "slot %u: cannot ask about it", id);
		goto out;
	}
	slot_cells(table_shows(table, SLOT_COLUMN_PIDS) ? slot : -1, &info,
		   &text, cells);
	ret = table_add(table, cells);
	if (ret)
		msg_errno(ret, "slot %u", id);
out:
	close(slot);
	return ret;
}

static int list_slots(struct table *table)
{
	uint32_t id = 0;
	int device, ret;

	device = open_device();
	if (device < 0)
		return device;
	while (!(ret = dtrack_slot_next(device, &id))) {
		ret = add_slot(table, device, id);
		if (ret)
			goto out;
	}
	if (ret != -ENOENT) {
		msg_errno(ret, "%s: cannot list slots", DIRTYTRACK_DEVICE);
		goto out;
	}
	ret = table_print(table, "slots");
	if (ret)
		msg_errno(ret, "standard output");
out:
	close(device);
	return ret;
}

static int list(const struct builtin *cmd, int argc, char **argv)
{
	struct table_options opts = { 0 };
	struct table *table;
	int val, ret;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (!table_option(&opts, val, optarg))
			return usage_error(cmd);
	}
	if (argv[optind]) {
		msg_error("list: '%s' is one argument too many", argv[optind]);
		return usage_error(cmd);
	}
	table = table_new(cmd->columns, cmd->nr_columns, &opts);
	if (!table)
		return usage_error(cmd);
	ret = list_slots(table);
	table_free(table);
	return ret ? EXIT_FAILED : EXIT_OK;
}

const struct builtin builtin_list = {
	.name = "list",
	.summary = "List the slots that you may open",
	.usage = "[OPTION...]",
	.options = options,
	.columns = slot_columns,
	.nr_columns = NR_SLOT_COLUMNS,
	.run = list,
};
