// SPDX-License-Identifier: GPL-2.0-only
#include <pwd.h>
#include <stdio.h>

#include "holders.h"
#include "slot-columns.h"

enum {
	COL_ID,
	COL_NAME,
	COL_SIZE,
	COL_RESIDENT,
	COL_LOGS,
	COL_USER,
	COL_UID,
	COL_PAGES,
	COL_FAULTS,
	COL_GRANTS,
	COL_COLLECTED,
	COL_PROTECTS,
	COL_LIMIT,
	COL_THROTTLES,
	COL_THROTTLED,
	COL_PIDS,
};

const struct column slot_columns[NR_SLOT_COLUMNS] = {
	[COL_ID] = { "ID", COLUMN_NUMBER, 4, 0, "id of the slot" },
	[COL_NAME] = { "NAME", COLUMN_TEXT, 16, 0, "name, if it has one" },
	[COL_SIZE] = { "SIZE", COLUMN_SIZE, 8, 0, "size" },
	[COL_RESIDENT] = { "RESIDENT", COLUMN_SIZE, 8, 0,
			   "size of the pages that have memory" },
	[COL_LOGS] = { "LOGS", COLUMN_NUMBER, 4, 0, "logs that exist now" },
	[COL_USER] = { "USER", COLUMN_TEXT, 10, 0, "owner" },
	[COL_UID] = { "UID", COLUMN_NUMBER, 6, COLUMN_HIDDEN,
		      "user id of the owner" },
	[COL_PAGES] = { "PAGES", COLUMN_NUMBER, 10, COLUMN_HIDDEN,
			"size in pages" },
	[COL_FAULTS] = { "FAULTS", COLUMN_NUMBER, 10, COLUMN_HIDDEN,
			 "page faults since the slot was made" },
	[COL_GRANTS] = { "GRANTS", COLUMN_NUMBER, 10, COLUMN_HIDDEN,
			 "pages that became writable by a fault" },
	[COL_COLLECTED] = { "COLLECTED", COLUMN_NUMBER, 10, COLUMN_HIDDEN,
			    "pages visited to collect their writes" },
	[COL_PROTECTS] = { "PROTECTS", COLUMN_NUMBER, 10, COLUMN_HIDDEN,
			   "runs of pages that were write-protected" },
	[COL_LIMIT] = { "LIMIT", COLUMN_NUMBER, 8, COLUMN_HIDDEN,
			"smallest limit of its logs, pages a second" },
	[COL_THROTTLES] = { "THROTTLES", COLUMN_NUMBER, 10, COLUMN_HIDDEN,
			    "how often a writer waited for a limit" },
	[COL_THROTTLED] = { "THROTTLED", COLUMN_SECONDS, 10, COLUMN_HIDDEN,
			    "how long writers waited, all together, seconds" },
	[COL_PIDS] = { SLOT_COLUMN_PIDS, COLUMN_TEXT, 12, COLUMN_HIDDEN,
		       "processes seen to have it open or mapped" },
};

void slot_cells(int slot, const struct dirtytrack_slot_info *info,
		struct slot_text *text, struct cell cells[NR_SLOT_COLUMNS])
{
	struct passwd *pw = getpwuid(info->out_uid);

	snprintf(text->name, sizeof(text->name), "%.*s", DIRTYTRACK_NAME_LEN,
		 info->out_name);
	if (pw)
		snprintf(text->user, sizeof(text->user), "%s", pw->pw_name);
	else
		snprintf(text->user, sizeof(text->user), "%u", info->out_uid);

	cells[COL_ID] = cell_number(info->out_id);
	cells[COL_NAME] = cell_text(text->name);
	cells[COL_SIZE] = cell_number(info->out_length);
	cells[COL_RESIDENT] = cell_number(info->out_resident *
					  DTRACK_PAGE_SIZE);
	cells[COL_LOGS] = cell_number(info->out_logs);
	cells[COL_USER] = cell_text(text->user);
	cells[COL_UID] = cell_number(info->out_uid);
	cells[COL_PAGES] = cell_number(info->out_length / DTRACK_PAGE_SIZE);
	cells[COL_FAULTS] = cell_number(info->out_faults);
	cells[COL_GRANTS] = cell_number(info->out_grants);
	cells[COL_COLLECTED] = cell_number(info->out_collected);
	cells[COL_PROTECTS] = cell_number(info->out_protects);
	cells[COL_LIMIT] = cell_number(info->out_rate);
	cells[COL_LIMIT].set = info->out_rate;
	cells[COL_THROTTLES] = cell_number(info->out_throttles);
	cells[COL_THROTTLED] = cell_real(info->out_throttled_ns / 1e9);
	if (slot < 0 || slot_holders(slot, text->pids, sizeof(text->pids)))
		text->pids[0] = '\0';
	cells[COL_PIDS] = cell_text(text->pids);
}
