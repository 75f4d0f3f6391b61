/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a guest is handed over: what "dirtytrack migrate" and "dirtytrack receive" say
 * to each other.  All of it goes through one NBD server, so that one port, and one way
 * to secure it, is enough.
 *
 * Exports: each slot, by its name; ".state", which takes the device state from offset
 * 0 on; and ".control".  Reading at offset 0 of that returns a struct handover_status.
 * Writing a struct handover_command there does what it says, and the write is answered
 * when that is done: with an error, and a message in the status, if it was not.
 *
 *     RECEIVING --LOAD--> LOADED --RUN--> RUNNING
 *         |                 |
 *         +-----ABORT-------+--> ABORTED
 *
 * One sender has the receiver: the first that says CLAIM, by a number of its own, which is
 * in each command.  Others are refused (EBUSY) whatever they want.  It is known by that
 * number, not by its connection, which it may lose.
 *
 * The guest runs there only in RUNNING, which is reached by RUN alone, and that only
 * from LOADED.  From RUN on memory and state are not served any more.  RUNNING and ABORTED are final, so that whoever does not know whether
 * his RUN arrived sends ABORT, as often as it takes: the answer, or the phase, says
 * who has the guest.
 *
 * Numbers are in little-endian order.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <assert.h>
#include <stdint.h>

#define HANDOVER_STATE		".state"
#define HANDOVER_CONTROL	".control"

#define HANDOVER_VERSION	2
#define HANDOVER_MAGIC		0x5245564f444e4148	/* "HANDOVER" */
/* Bytes of the control export. */
#define HANDOVER_CONTROL_SIZE	4096
/* Bytes of device state there may be; a large one has devices with memory of their own. */
#define HANDOVER_MAX_STATE	(1024ULL * 1024 * 1024)
#define HANDOVER_SESSION_LEN	16
#define HANDOVER_SENDER_LEN	16
#define HANDOVER_MESSAGE_LEN	256

enum handover_phase {
	HANDOVER_RECEIVING = 1,
	HANDOVER_LOADED,
	HANDOVER_RUNNING,
	HANDOVER_ABORTED,
};

enum handover_verb {
	/* .size bytes of device state are there: give them to QEMU. */
	HANDOVER_LOAD = 1,
	/* Let the guest run; with .size 1: leave it paused, it had been before. */
	HANDOVER_RUN,
	/* Give up. */
	HANDOVER_ABORT,
	/*
	 * The sender knows how it ended, and will not ask any more; before LOAD: it leaves the
	 * receiver to others.
	 */
	HANDOVER_DONE,
	/* Before all others, and before memory is written to. */
	HANDOVER_CLAIM,
};

/**
 * struct handover_command - what is written
 * @magic: HANDOVER_MAGIC
 * @version: HANDOVER_VERSION
 * @verb: one of enum handover_verb
 * @size: an argument
 * @session: the receiver's, from its status: a command to another is refused
 * @sender: a number that another sender does not have
 */
struct handover_command {
	uint64_t magic;
	uint32_t version;
	uint32_t verb;
	uint64_t size;
	uint8_t session[HANDOVER_SESSION_LEN];
	uint8_t sender[HANDOVER_SENDER_LEN];
};

/**
 * struct handover_status - what is read
 * @magic: HANDOVER_MAGIC
 * @version: HANDOVER_VERSION
 * @phase: one of enum handover_phase
 * @session: a number that another receiver does not have
 * @message: why the last command failed, or why the receiver gave up; ends with a NUL
 */
struct handover_status {
	uint64_t magic;
	uint32_t version;
	uint32_t phase;
	uint8_t session[HANDOVER_SESSION_LEN];
	char message[HANDOVER_MESSAGE_LEN];
};

static_assert(sizeof(struct handover_command) == 56, "struct handover_command");
static_assert(sizeof(struct handover_status) == 288, "struct handover_status");

/*
 * Between the plugin and the supervisor, which started it: packets on a socket of type
 * SOCK_SEQPACKET, each from the plugin a struct plugin_packet.
 */
enum plugin_packet_type {
	/* So many clients are connected; not answered. */
	PLUGIN_CLIENTS = 1,
	/* Answered by a struct plugin_answer. */
	PLUGIN_STATUS,
	PLUGIN_COMMAND,
};

struct plugin_packet {
	uint32_t type;
	uint32_t clients;
	struct handover_command command;
};

struct plugin_answer {
	uint32_t error;		/* an errno, or 0 */
	uint32_t reserved;
	struct handover_status status;
};

#endif
