/* SPDX-License-Identifier: GPL-2.0-only */
/* The columns of list and info. */
#ifndef SLOT_COLUMNS_H
#define SLOT_COLUMNS_H

#include "device.h"
#include "table.h"

#define NR_SLOT_COLUMNS 16

#define SLOT_COLUMN_PIDS "PIDS"

extern const struct column slot_columns[NR_SLOT_COLUMNS];

/* Text that cells point to while they are in use. */
struct slot_text {
	char name[SLOT_LABEL_LEN];
	char user[64];
	char pids[256];
};

/* @slot is asked who holds it, which takes a walk over /proc; -1 to do without. */
void slot_cells(int slot, const struct dirtytrack_slot_info *info,
		struct slot_text *text, struct cell cells[NR_SLOT_COLUMNS]);

#endif
