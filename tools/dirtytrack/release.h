/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory of a slot given back to the host, or got, where ranges or the content say so. */
#ifndef RELEASE_H
#define RELEASE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "progress.h"
#include "source.h"

struct range_list;

/**
 * struct release - what is done, and what was
 * @ref: the slot, as the user names it
 * @slot: fd
 * @npages: its pages
 * @dry_run: only count
 * @progress: where it is told
 * @looked: pages that were read
 * @broken: pages that could not be read
 * @zero: those of them that were zero
 * @released: pages that had memory and have none now
 * @skipped: pages that were to be released and were written meanwhile
 * @populated: pages that had no memory and have it now
 * @unmaps: runs of pages that were taken out of the mappings
 *
 * The counts grow.  In a dry run they are what would be.
 */
struct release {
	const char *ref;
	int slot;
	uint64_t npages;
	bool dry_run;
	struct progress progress;
	uint64_t looked;
	uint64_t broken;
	uint64_t zero;
	uint64_t released;
	uint64_t skipped;
	uint64_t populated;
	uint64_t unmaps;
};

/* Each returns 0, or a message and -errno; -EINTR, without one, if it was interrupted. */

/* @list is sorted, and of the slot. */
int release_ranges(struct release *r, const struct range_list *list);
int release_populate(struct release *r, const struct range_list *list, int node);
/*
 * Look at the pages that are in the log of @src, a source of the slot, and release what is
 * zero and stays so meanwhile.  One that cannot be read is counted, the first of them told
 * about, and no failure.
 */
int release_zero(struct release *r, struct source_slot *src);

#endif
