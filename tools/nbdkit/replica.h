/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How epochs get to a secondary, and how it is asked to take over: what "dirtytrack
 * replicate" and "dirtytrack failover" say to "dirtytrack secondary".  All of it goes
 * through one NBD server, as in handover.h.
 *
 * Exports: each slot, by its name; ".state", which takes the device state from offset 0
 * on; and ".control".  Reading at offset 0 of that returns a struct replica_status.
 * Writing a struct replica_command there does what it says, and the write is answered when
 * that is done: with an error, and a message in the status, if it was not.
 *
 *     ATTACH, then connections to the slots and the state,
 *     then for each epoch: its pages, the state; COMMIT; FLUSH, by which it is there
 *
 * Whoever attaches is the only one from then on: what earlier connections to slots still
 * do is refused.  The connection that attached must stay, and be heard of.
 *
 * Numbers are in little-endian order.
 */
#ifndef REPLICA_H
#define REPLICA_H

#include <assert.h>
#include <stdint.h>

#define REPLICA_STATE	".state"
#define REPLICA_CONTROL	".control"

#define REPLICA_VERSION	1
#define REPLICA_MAGIC	0x4143494c504552	/* "REPLICA" */
/* Bytes of the control export. */
#define REPLICA_CONTROL_SIZE 4096
#define REPLICA_SESSION_LEN 16
#define REPLICA_MESSAGE_LEN 256

enum replica_verb {
	/*
	 * .session is the one we had before, or zeros; .lease_ms.  If it is that of who
	 * attached last, it stays so; otherwise there is a new one.
	 */
	REPLICA_ATTACH = 1,
	/* .epoch with .state_size bytes of state and, by its flag, .checksum: by the next FLUSH. */
	REPLICA_COMMIT,
	/* There will be no more epochs; the guest goes on without. */
	REPLICA_DETACH,
	/* Let the guest run here; answered when that has begun. */
	REPLICA_FAILOVER,
};

#define REPLICA_CHECKSUM	(1U << 0)	/* of COMMIT: there is one */
#define REPLICA_FORCE		(1U << 1)	/* of FAILOVER: fenced by other means */

/**
 * struct replica_command - what is written
 * @magic: REPLICA_MAGIC
 * @version: REPLICA_VERSION
 * @verb: one of enum replica_verb
 * @session: which must be the current one, but of ATTACH and FAILOVER
 * @epoch: its number
 * @state_size: bytes of device state
 * @checksum: of all memory
 * @lease_ms: the guest stands still when the secondary was not heard of for so long; 0:
 *	it does not
 * @flags: REPLICA_ flags
 */
struct replica_command {
	uint64_t magic;
	uint32_t version;
	uint32_t verb;
	uint8_t session[REPLICA_SESSION_LEN];
	uint64_t epoch;
	uint64_t state_size;
	uint64_t checksum;
	uint32_t lease_ms;
	uint32_t flags;
};

/**
 * struct replica_status - what is read
 * @magic: REPLICA_MAGIC
 * @version: REPLICA_VERSION
 * @phase: one of enum store_phase
 * @session: of who is attached, or was last
 * @committed: the last epoch that is there, 0 for none
 * @unheard_ms: for so long nothing was heard of who is attached
 * @attached: somebody is
 * @message: why the last command failed; ends with a NUL
 * @undone: pages that others had written to the slots there, and that were restored
 * @late: of those, pages written while others were to stand still
 */
struct replica_status {
	uint64_t magic;
	uint32_t version;
	uint32_t phase;
	uint8_t session[REPLICA_SESSION_LEN];
	uint64_t committed;
	uint64_t unheard_ms;
	uint32_t attached;
	uint32_t reserved;
	char message[REPLICA_MESSAGE_LEN];
	uint64_t undone;
	uint64_t late;
};

static_assert(sizeof(struct replica_command) == 64, "struct replica_command");
static_assert(sizeof(struct replica_status) == 328, "struct replica_status");

/*
 * Between the plugin and its supervisor: a packet, which asks to let the guest run here,
 * and its answer, an errno or 0.
 */
struct failover_packet {
	uint32_t force;
};

struct failover_answer {
	uint32_t error;
};

#endif
