/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A slot as a source for several copies, one after the other, by one log: each has what
 * was written since the one before was begun.  What a copy that failed has taken out of
 * the log goes back to it.
 */
#ifndef SOURCE_KEPT_H
#define SOURCE_KEPT_H

#include "source.h"

/**
 * struct source_kept - what is kept between two copies
 * @base: for the copy engine
 * @slot: the slot and its log
 * @taken: a bit for each page that was taken since the last copy that is complete
 * @any: there is such a page
 */
struct source_kept {
	struct source base;
	struct source_slot slot;
	uint64_t *taken;
	bool any;
};

/* Those that return int return 0, or a message and -errno. */

/* With all pages in the log. */
int source_kept_open(struct source_kept *k, const char *ref);
/* Again, all pages. */
int source_kept_restart(struct source_kept *k);
/* A copy is complete, and where nothing can happen to it. */
void source_kept_done(struct source_kept *k);
/* A copy failed.  When this does, too, it is to be tried again before the next copy. */
int source_kept_undo(struct source_kept *k);
void source_kept_close(struct source_kept *k);

#endif
