/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A checkpoint store: slots that are always some epoch of a guest's memory, all of it, and
 * the state of its devices at the same moment (Documentation/replicate.rst).
 *
 *     write, zero --> staged pages of the next epoch --commit--> slots
 *
 * All of it is in files, which the supervisor holds: memory (memfd) that lives as long as
 * somebody has them.  Who opens the store has the lock of its journal, and first brings it
 * to where the last one would have: a commit that had begun is finished, anything less is
 * forgotten.
 *
 *     committing == committed: the slots are epoch @committed; what is staged is a part of
 *			       the next
 *     committing == committed + 1: they are being made the next; a page that is still
 *			       marked has not been copied
 *
 * Until there is an epoch, nothing needs to be kept and pages go to the slots at once.
 *
 * Where others write to the slots, a guest that was let run on an epoch, there is a cache
 * besides, which is the last epoch, and a log of the slot:
 *
 *     staged pages --commit--> cache --pages that were staged, or that others wrote--> slots
 *
 * The cache is what is written to then until there is an epoch.  Others must stand still
 * while an epoch is committed; what they write all the same is found, and undone, or the
 * commit fails with -EBUSY if they do not stop.  What they write otherwise is in the slots
 * until the next commit, or store_undo().
 *
 * Functions that return int return 0 or -errno.
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "../lib/dirtytrack.h"

#define STORE_MAX_SLOTS 64
#define STORE_MESSAGE_LEN 256
#define STORE_SESSION_LEN 16
/* Bytes of device state there may be; a large one has devices with memory of their own. */
#define STORE_MAX_STATE (1024ULL * 1024 * 1024)

/* What has become of the guest; written by the supervisor alone. */
enum store_phase {
	STORE_REPLICA = 1,	/* it runs elsewhere */
	STORE_FAILING_OVER,	/* it is about to run here: no epoch is taken any more */
	STORE_RUNNING,		/* it runs here */
	STORE_FAILED,		/* it was to run here, and does not */
};

/**
 * struct store_epoch - what belongs to an epoch besides memory
 * @state_size: bytes of the state of its devices
 * @checksum: dtrack_checksum() of each slot, added
 * @has_checksum: there is one
 */
struct store_epoch {
	uint64_t state_size;
	uint64_t checksum;
	uint64_t has_checksum;
};

/**
 * struct store_head - the beginning of the journal, in shared memory
 * @magic: STORE_MAGIC
 * @committed: the last epoch that is complete; 0 for none
 * @committing: the same, or the next
 * @epochs: of the epoch n, element n % 2
 * @phase: one of enum store_phase
 * @qemu: process of the QEMU that waits, or has the guest
 * @ran: the guest was let run, and its QEMU has said so
 * @forced: of a failover that was decided: it is certain that no guest runs elsewhere
 * @failed: a guest was to run here before, and may have changed the slots
 * @attached: somebody replicates
 * @detached: he did, and said that he would not any more
 * @seen_ms: monotonic milliseconds when he was last heard of; 0 for never
 * @lease_ms: for so long after he was last answered his guest runs; 0: for ever
 * @session: his number, that nobody else has
 * @undone: pages that others had written, each time they were restored
 * @late: of those, pages written while others were to stand still
 * @message: why the last thing failed, ends with a NUL
 *
 * 64-bit fields are read and written whole.
 */
struct store_head {
	uint64_t magic;
	uint64_t committed;
	uint64_t committing;
	struct store_epoch epochs[2];
	uint64_t phase;
	uint64_t qemu;
	uint64_t ran;
	uint64_t forced;
	uint64_t failed;
	uint64_t attached;
	uint64_t detached;
	uint64_t seen_ms;
	uint64_t lease_ms;
	uint8_t session[STORE_SESSION_LEN];
	uint64_t undone;
	uint64_t late;
	char message[STORE_MESSAGE_LEN];
};

/**
 * struct store_slot - the files of a slot
 * @name: its name
 * @slot: the slot
 * @staged: pages of the next epoch, where they will be in the slot
 * @log: a log of the slot if others write to it, of all slots or of none; else -1
 * @cache: the last epoch if there is @log; else -1
 */
struct store_slot {
	char name[DIRTYTRACK_NAME_LEN];
	int slot;
	int staged;
	int log;
	int cache;
};

/* What has the last epoch, whatever others write. */
static inline int store_kept(const struct store_slot *slot)
{
	return slot->cache >= 0 ? slot->cache : slot->slot;
}

/**
 * struct store_files - all files of a store
 * @journal: struct store_head, then for each slot the pages that are staged, a bit each,
 *	and those that others wrote, as far as they were taken out of its log
 * @state: the state of the devices of the epoch n in file n % 2
 */
struct store_files {
	struct store_slot slots[STORE_MAX_SLOTS];
	unsigned int nr;
	int journal;
	int state[2];
};

/*
 * Make @journal, both @state, each @staged and, where there is a @log, @cache; each @slot
 * and its name are there.  A slot with a log has no memory yet, and the log is clean.
 */
int store_create(struct store_files *files);

/* The head, by itself, for who only looks; until the end of the process. */
int store_map_head(int journal, struct store_head **head);

struct store;

/*
 * Take the lock, within @seconds (-EBUSY), and recover.  The files stay the caller's, and
 * stay open.  A commit that others do not let end stays begun, for store_settle() or
 * store_undo().
 */
int store_open(struct store **store, const struct store_files *files,
	       double seconds);
void store_close(struct store *store);
struct store_head *store_head(struct store *store);

/*
 * Pages of slot @nr for the next epoch, in bytes; whole pages.  @generation is what
 * store_attach() returned: those of another are refused (-ESTALE).  From any thread.
 */
int store_write(struct store *store, uint64_t generation, unsigned int nr,
		const void *buf, uint64_t count, uint64_t offset);
int store_zero(struct store *store, uint64_t generation, unsigned int nr,
	       uint64_t count, uint64_t offset);
/* What would be there if the epoch were complete now. */
int store_read(struct store *store, unsigned int nr, void *buf, uint64_t count,
	       uint64_t offset);
/* A part of the device state of the next epoch. */
int store_write_state(struct store *store, uint64_t generation, const void *buf,
		      uint64_t count, uint64_t offset);

/* Finish a commit that had begun, if there is one. */
int store_settle(struct store *store);
/*
 * Somebody begins: what was staged for another is forgotten.  A generation; or 0, when a
 * commit has begun and not ended, as he was told of the epoch before it.  When it returns,
 * nothing of an earlier one goes on.
 */
uint64_t store_attach(struct store *store);
/*
 * The next epoch is complete: all of its pages have been acknowledged.  Its number must be
 * the next (-EILSEQ).  When it returns, the slots are that epoch; if it fails they will be,
 * by the next store_settle() or store_open().
 */
int store_commit(struct store *store, uint64_t generation, uint64_t number,
		 const struct store_epoch *epoch);

/*
 * Finish a commit that had begun, and undo what others have written: the slots are the last
 * epoch, until they go on (-EBUSY: they did not stop).  Without logs nothing is undone.
 */
int store_undo(struct store *store);

/* dtrack_checksum() of all slots, and added. */
int store_checksum(const struct store_files *files, uint64_t *checksum);

#endif
