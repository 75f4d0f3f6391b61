/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where a guest goes: what takes its memory and the state of its devices, and where it is
 * decided, at one moment, that it is there and not here any more.
 *
 *     open, target... --prepare--> ready --state...--> --load--> --run--> it is there
 *                                    |                   |        |
 *                                    +-------------------+--end---+--> it is here
 *
 * There is one for each kind of TARGET: a receiver, by NBD; a QEMU on this host that waits on
 * other slots; files; and nothing, from which each guest comes back.
 */
#ifndef DESTINATION_H
#define DESTINATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handover-client.h"

struct destination;
struct target;

/**
 * struct destination_ops - what it can do
 * @target: where the memory of the slot goes that is called @name there; it stays valid
 *	until @close.  NULL after a message.
 * @prepare: are all targets there, and is it ready?  When that is first asked, and right
 *	before the pause.  No process may be forked after that.  May be NULL.
 * @put_state: @len bytes of device state; may be called in another thread, while nothing
 *	else is, between @prepare and @load
 * @load: all memory, and @size bytes of state, are there: do with it what can fail
 * @run: the guest is there from now on; with @paused, somebody had it paused before, and
 *	has reasons.  When this fails, with a message or not, it is @settle that knows.
 * @settle: what became of that, also in the guard.  The guest is not to run there, unless
 *	it is too late for that.  Tries for @seconds.
 * @abort: unless NULL, called when @load was and the guest is to go on here, before it does,
 *	also in the guard: whoever has loaded it is to let go of its disks.  Tries for
 *	@seconds
 * @end: it is known now where the guest is, @there or here; in a dry run, too.  Here also in
 *	the guard.
 * @close: let go
 *
 * Those that return int return 0, or a message and -errno; -EINTR without one.
 */
struct destination_ops {
	struct target *(*target)(struct destination *d, const char *name,
				 uint64_t npages, unsigned int lanes);
	int (*prepare)(struct destination *d);
	int (*put_state)(struct destination *d, const void *buf, size_t len,
			 uint64_t pos);
	int (*load)(struct destination *d, uint64_t size);
	int (*run)(struct destination *d, bool paused);
	enum handover_owner (*settle)(struct destination *d, double seconds);
	void (*abort)(struct destination *d, double seconds);
	void (*end)(struct destination *d, bool there);
	void (*close)(struct destination *d);
};

/**
 * struct destination - embedded in what implements it
 * @ops: what it can do
 * @name: the TARGET
 * @timeout: seconds for an answer
 * @prepared: it was asked for that, and is in our hands
 * @one: it takes one slot, whatever that is called
 * @rehearsal: the guest goes on here in the end
 */
struct destination {
	const struct destination_ops *ops;
	const char *name;
	double timeout;
	bool prepared;
	bool one;
	bool rehearsal;
};

/*
 * The one that the TARGET @name says; a slot has a QEMU that waits, with its monitor at
 * @qmp.  NULL after a message.
 */
struct destination *destination_open(const char *name, const char *qmp,
				     double timeout);
int destination_prepare(struct destination *d);
void destination_abort(struct destination *d);
void destination_end(struct destination *d, bool there);
void destination_close(struct destination *d);

/* One for each kind; they are what destination_open() calls. */
struct destination *destination_receiver(const char *uri, double timeout);
struct destination *destination_files(const char *path);
struct destination *destination_qemu(const char *slots, const char *qmp, double timeout);
struct destination *destination_null(void);

#endif
