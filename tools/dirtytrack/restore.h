/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest that is in files (saved.h) is let run again, in a QEMU that waits for it with its
 * memory on new slots.  The files are only read.
 *
 * The file of its state is locked by this process and that QEMU, as long as one of them
 * lives: so it cannot be let run twice at a time.
 */
#ifndef RESTORE_H
#define RESTORE_H

#include <stdbool.h>

#include "incoming-options.h"

/**
 * struct restore - what is to be done
 * @opts: slots, QEMU, and where the files are
 * @paused: the guest is left so
 * @progress: show it
 */
struct restore {
	struct incoming_options *opts;
	bool paused;
	bool progress;
};

/* Until QEMU ends.  The exit status. */
int restore_run(struct restore *r);

#endif
