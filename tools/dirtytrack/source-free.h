/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A slot as a source of which some pages are said to be free: they need not be copied, and
 * are zero for who copies, until they are written.
 *
 * Who says so says it of one moment; what is written later is data again.  A log that was
 * begun before the hints are read has what was written since, whenever that moment was
 * after the command had begun:
 *
 *	log of the source		log of the hints
 *	  all pages in it		  begins, empty
 *	     |				     |		hints are made, and read
 *	  free pages taken out	   ------>   |
 *	     |				  ends: what is in it is put back
 *	     v
 *	  later writes
 */
#ifndef SOURCE_FREE_H
#define SOURCE_FREE_H

#include "range-list.h"
#include "source.h"

/**
 * struct source_free - the source
 * @base: for the copy engine
 * @slot: of what it is
 * @bits: a bit for each page that is free; owned
 * @hinted: pages that were said to be free
 * @written: those of them that were written meanwhile
 *
 * All 0 before it is open, and when it is closed.
 */
struct source_free {
	struct source base;
	struct source_slot *slot;
	uint64_t *bits;
	uint64_t hinted;
	uint64_t written;
};

/*
 * @slot has just been opened, and stays the caller's.  The ranges come from the file @path,
 * which is opened once all that is written is noticed: a FIFO, for one, is waited for.  0,
 * or a message and -errno; -EINTR without one.
 */
int source_free_open(struct source_free *f, struct source_slot *slot,
		     const char *path, enum range_format format);
void source_free_close(struct source_free *f);

#endif
