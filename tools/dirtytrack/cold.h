/* SPDX-License-Identifier: GPL-2.0-only */
/* Which memory of a slot nobody writes to. */
#ifndef COLD_H
#define COLD_H

#include <stdint.h>

#include "progress.h"
#include "source.h"

/**
 * struct cold - what is watched
 * @src: the slot, with a log that began empty
 * @intervals: how many
 * @seconds: each
 * @written: a bit for each page that was written
 * @progress: where it is told
 */
struct cold {
	struct source_slot *src;
	unsigned int intervals;
	double seconds;
	uint64_t *written;
	struct progress *progress;
};

/* Wait and watch.  0, or a message and -errno; -EINTR without one. */
int cold_watch(struct cold *c);
/*
 * The next pages that have memory and were not written, from @page on; @npages 0 when there
 * are no more.  0, or a message and -errno.
 */
int cold_next(const struct cold *c, uint64_t page, uint64_t *first, uint64_t *npages);

#endif
