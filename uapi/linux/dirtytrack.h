/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * dirtytrack: guest memory whose every CPU write is tracked
 *
 *     /dev/dirtytrack --SLOT_CREATE--> slot fd --LOG_CREATE--> log fd
 *       (char device)                (guest memory)          (one consumer's view)
 *
 * Each object is a file and lives as long as something holds it: an fd, a
 * mapping, or (for a slot) one of its logs.
 */

/**
 * DOC: Guarantee
 *
 * Every write that completed before DIRTYTRACK_LOG_HARVEST is called is reported
 * by that harvest or by an earlier one of the same log.  A write that races a
 * harvest is reported by it, by the next one, or by both.  A page may be
 * reported without having changed, never the reverse.  To copy a page, read its
 * content after the harvest that reported it has returned.
 *
 * "Write" means a store by any CPU through any mapping of the slot (a guest
 * through KVM, a thread, another process), a kernel write to such a mapping
 * (read(2), ptrace, process_vm_writev, DMA through a pinned page), pwrite() to
 * the slot and the discarding of a page.  "The same log" is literal: logs of one
 * slot are independent, and each gives the guarantee on its own.
 */

/**
 * DOC: Vocabulary
 *
 * A page is 4096 bytes and is named by its index in the slot (its pfn there, not
 * an address).  A range is a first page and a count.  "next" is the first page
 * that was not looked at.
 */

/**
 * DOC: Structs
 *
 * Every ioctl takes one struct that starts with its own size and flags, and that
 * may grow at its end in a later version.  A larger struct is accepted while what
 * the kernel does not know is zero.  Fields whose names begin with "out" are written
 * by the kernel and ignored on input; all others are read and never changed.  The
 * ioctl's result is 0 or -1: counts are in fields.
 */

/**
 * DOC: Errors
 *
 * The same for every ioctl:
 *
 * - EINVAL: size is smaller than the first version of the struct, or a value is
 *   outside what its field allows.
 * - E2BIG: the part of the struct that this kernel does not know is not zero, or
 *   size is more than 4096.
 * - EOPNOTSUPP: an unknown flag, or a reserved field that is not zero.
 * - EOVERFLOW: the end of a range does not fit in 64 bits.
 * - EFAULT: an address cannot be read or written.  Nothing is lost: what could
 *   not be delivered is reported again.  Memory that there is nothing to be written
 *   to is not touched, and not checked.
 * - EINTR: a signal arrived before any progress was made.
 * - ENOTTY: an unknown ioctl number, or the wrong kind of fd.
 * - ENOMEM, EMFILE, ENFILE: as everywhere.
 *
 * Errors of one ioctl are listed with it.
 */
#ifndef _UAPI_LINUX_DIRTYTRACK_H
#define _UAPI_LINUX_DIRTYTRACK_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define DIRTYTRACK_DEVICE "/dev/dirtytrack"

/* Bytes in a slot's name, with the terminating NUL. */
#define DIRTYTRACK_NAME_LEN 32

/* A page is 1 << DIRTYTRACK_PAGE_SHIFT bytes. */
#define DIRTYTRACK_PAGE_SHIFT 12

#define DIRTYTRACK_TYPE 0xD7

/* Ioctls of the device */
#define DIRTYTRACK_GET_INFO		_IO(DIRTYTRACK_TYPE, 0x00)
#define DIRTYTRACK_SLOT_CREATE		_IO(DIRTYTRACK_TYPE, 0x01)
#define DIRTYTRACK_SLOT_NEXT		_IO(DIRTYTRACK_TYPE, 0x02)
#define DIRTYTRACK_SLOT_OPEN		_IO(DIRTYTRACK_TYPE, 0x03)

/* Ioctls of a slot */
#define DIRTYTRACK_SLOT_INFO		_IO(DIRTYTRACK_TYPE, 0x20)
#define DIRTYTRACK_LOG_CREATE		_IO(DIRTYTRACK_TYPE, 0x21)
#define DIRTYTRACK_SLOT_RELEASE		_IO(DIRTYTRACK_TYPE, 0x22)
#define DIRTYTRACK_SLOT_POPULATE	_IO(DIRTYTRACK_TYPE, 0x23)

/* Ioctls of a log */
#define DIRTYTRACK_LOG_INFO		_IO(DIRTYTRACK_TYPE, 0x40)
#define DIRTYTRACK_LOG_HARVEST		_IO(DIRTYTRACK_TYPE, 0x41)
#define DIRTYTRACK_LOG_HARVEST_EXTENTS	_IO(DIRTYTRACK_TYPE, 0x42)
#define DIRTYTRACK_LOG_CLEAR		_IO(DIRTYTRACK_TYPE, 0x43)
#define DIRTYTRACK_LOG_CLEAR_RANGES	_IO(DIRTYTRACK_TYPE, 0x44)
#define DIRTYTRACK_LOG_MERGE		_IO(DIRTYTRACK_TYPE, 0x45)
#define DIRTYTRACK_LOG_MERGE_RANGES	_IO(DIRTYTRACK_TYPE, 0x46)
#define DIRTYTRACK_LOG_LIMIT		_IO(DIRTYTRACK_TYPE, 0x47)
#define DIRTYTRACK_LOG_RELEASE_CLEAN	_IO(DIRTYTRACK_TYPE, 0x48)

/**
 * enum dirtytrack_strategy - how the module takes write permission away
 * @DIRTYTRACK_STRATEGY_WP: mappings are write-protected and their dirty bits
 *	collected; the kernel has CONFIG_MAPPING_DIRTY_HELPERS.
 * @DIRTYTRACK_STRATEGY_ZAP: mappings are removed, and come back by a fault.
 */
enum dirtytrack_strategy {
	DIRTYTRACK_STRATEGY_WP = 1,
	DIRTYTRACK_STRATEGY_ZAP = 2
};

/* LOG_CREATE makes rings. */
#define DIRTYTRACK_FEATURE_RING (1U << 0)
/* There is LOG_LIMIT. */
#define DIRTYTRACK_FEATURE_LIMIT (1U << 1)
/* There are SLOT_RELEASE, SLOT_POPULATE and LOG_RELEASE_CLEAN. */
#define DIRTYTRACK_FEATURE_RELEASE (1U << 2)

/**
 * struct dirtytrack_info - argument of DIRTYTRACK_GET_INFO
 * @size: sizeof(struct dirtytrack_info)
 * @flags: must be 0
 * @out_features: bits, of DIRTYTRACK_FEATURE: which later additions this module has
 * @out_max_slot_size: largest size of a slot, bytes
 * @out_max_slots: how many slots may exist at once
 * @out_max_logs: how many logs one slot may have at once
 * @out_page_shift: binary logarithm of the page size
 * @out_strategy: one of enum dirtytrack_strategy
 * @out_max_ring_entries: largest ring of a log, entries
 * @out_max_user_slots: how many slots of one unprivileged user may exist at once
 * @out_max_memory: bytes that all slots together may take: pages that have memory, and
 *	the bitmaps, rings and tables of slots and logs
 *
 * What the module can do and how much it allows.  Asked by a program that wants
 * to know; there are no version numbers.
 */
struct dirtytrack_info {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_features;
	__aligned_u64 out_max_slot_size;
	__u32 out_max_slots;
	__u32 out_max_logs;
	__u32 out_page_shift;
	__u32 out_strategy;
	__u32 out_max_ring_entries;
	__u32 out_max_user_slots;
	__aligned_u64 out_max_memory;
};

/**
 * struct dirtytrack_slot_create - argument of DIRTYTRACK_SLOT_CREATE
 * @size: sizeof(struct dirtytrack_slot_create)
 * @flags: must be 0
 * @length: size of the slot in bytes, a multiple of the page size, not 0
 * @name: name, NUL-terminated, padded with NULs to the end; empty for none.
 *	Printable ASCII without '/'.
 * @out_id: id of the slot, never 0, not reused while the module is loaded
 * @out_fd: fd of the slot, close-on-exec, open for reading and writing
 *
 * Makes a slot, with no page in it: memory is allocated, zeroed, as it is
 * touched, and charged to the memory cgroup of who touches it.  The fd is like
 * that of a regular file with mode 0600 of the caller: it can be mapped
 * (MAP_SHARED, from an fd open for writing), read, written, punched, and opened
 * again through /proc/PID/fd.  Its size never changes.  As a file it refuses: a
 * private mapping (EINVAL), one of an fd that is not open for writing (EACCES), one
 * for execution (EPERM), another size and preallocation beyond the end (EPERM),
 * writing at the end (ENOSPC).  Where memory would exceed out_max_memory, write and
 * preallocation fail with ENOSPC, and access to a mapping with SIGBUS.
 *
 * Errors: EINVAL (length, name), EEXIST (the caller's user has a slot of that
 * name; he can come to two by a chown, not by this call), ENOSPC (as many slots as are
 * allowed at all or to the caller, or no memory left of out_max_memory), EFBIG (length
 * over out_max_slot_size).  Slots made in a user namespace count for who made the
 * outermost of those that the caller is in; slots made by a caller with CAP_SYS_ADMIN
 * in the initial one, for nobody.
 */
struct dirtytrack_slot_create {
	__u32 size;
	__u32 flags;
	__aligned_u64 length;
	char name[DIRTYTRACK_NAME_LEN];
	__u32 out_id;
	__s32 out_fd;
};

/**
 * struct dirtytrack_slot_next - argument of DIRTYTRACK_SLOT_NEXT
 * @size: sizeof(struct dirtytrack_slot_next)
 * @flags: must be 0
 * @id: 0, or the id after which to look
 * @out_id: smallest larger id of a slot that the caller may open
 *
 * Lists the slots, one a call.
 *
 * Errors: ENOENT (there are no more).
 */
struct dirtytrack_slot_next {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 out_id;
};

/* The slot is named by its name, not by its id. */
#define DIRTYTRACK_OPEN_BY_NAME (1U << 0)

/**
 * struct dirtytrack_slot_open - argument of DIRTYTRACK_SLOT_OPEN
 * @size: sizeof(struct dirtytrack_slot_open)
 * @flags: 0 or DIRTYTRACK_OPEN_BY_NAME
 * @id: id of the slot; must be 0 with DIRTYTRACK_OPEN_BY_NAME
 * @out_fd: a new fd of the slot, close-on-exec, open for reading and writing
 * @name: name of the slot, as in struct dirtytrack_slot_create; must be all
 *	zero without DIRTYTRACK_OPEN_BY_NAME
 *
 * Opens a slot for its owner (the user whose file it is, while he may read and write
 * it by its mode) or for a caller with CAP_SYS_ADMIN in the initial user namespace.
 * By name, the caller's own slot comes first; a privileged caller who has none gets
 * another user's.
 *
 * Errors: EINVAL (id 0, empty name), ENOENT (no such slot), EACCES (another
 * user's, by id), ENOTUNIQ (several slots that come into question have that name).
 */
struct dirtytrack_slot_open {
	__u32 size;
	__u32 flags;
	__u32 id;
	__s32 out_fd;
	char name[DIRTYTRACK_NAME_LEN];
};

/**
 * struct dirtytrack_slot_info - argument of DIRTYTRACK_SLOT_INFO, on a slot fd
 * @size: sizeof(struct dirtytrack_slot_info)
 * @flags: must be 0
 * @out_id: id
 * @out_uid: owner, as seen in the caller's user namespace
 * @out_length: size in bytes
 * @out_name: name, padded with NULs
 * @out_resident: pages that have memory
 * @out_logs: logs that exist
 * @out_reserved: 0
 * @out_faults: page faults that the module served since the slot was made
 * @out_grants: pages that became writable by a fault
 * @out_collected: pages visited by a collect, that is once writable
 * @out_protects: calls that took write permission from a run of pages
 * @out_rate: the smallest limit of its logs, pages a second; 0 for none
 * @out_throttles: how often a writer waited for it
 * @out_throttled_ns: how long, all writers together
 *
 * @out_faults and @out_grants are sums of per-CPU counters: exact when nothing runs.
 */
struct dirtytrack_slot_info {
	__u32 size;
	__u32 flags;
	__u32 out_id;
	__u32 out_uid;
	__aligned_u64 out_length;
	char out_name[DIRTYTRACK_NAME_LEN];
	__aligned_u64 out_resident;
	__u32 out_logs;
	__u32 out_reserved;
	__aligned_u64 out_faults;
	__aligned_u64 out_grants;
	__aligned_u64 out_collected;
	__aligned_u64 out_protects;
	__aligned_u64 out_rate;
	__aligned_u64 out_throttles;
	__aligned_u64 out_throttled_ns;
};

/* Every resident page is in the log from the start. */
#define DIRTYTRACK_LOG_ALL_SET (1U << 0)
/* Who has an fd of the log may release pages of the slot: LOG_RELEASE_CLEAN. */
#define DIRTYTRACK_LOG_MAY_RELEASE (1U << 1)

/**
 * struct dirtytrack_log_create - argument of DIRTYTRACK_LOG_CREATE, on a slot fd
 * @size: sizeof(struct dirtytrack_log_create)
 * @flags: DIRTYTRACK_LOG_ALL_SET and DIRTYTRACK_LOG_MAY_RELEASE, or none of them
 * @out_fd: fd of the log, close-on-exec
 * @ring_entries: entries of the log's ring, a power of two from
 *	DIRTYTRACK_RING_MIN_ENTRIES to out_max_ring_entries; 0 for no ring
 *
 * Starts a log: from when the call returns, every write is in it.  Without
 * DIRTYTRACK_LOG_ALL_SET the log starts clean, which costs one pass over the
 * pages that are writable now; with it, the log starts with every page that has
 * memory (and may have some that lost it lately, as holes), and nothing is protected
 * before the first harvest.  The log ends with
 * the last reference to its file, however that goes away.
 *
 * Its fd can be given to others, who then can learn what is written and slow writers
 * down.  They can change the content of the slot only if the log was made with
 * DIRTYTRACK_LOG_MAY_RELEASE.
 *
 * Errors: EBADF (the slot fd is not open for writing), EINVAL (@ring_entries), ENOSPC
 * (as many logs as the slot may have, or no memory left of out_max_memory), EINTR.
 */
struct dirtytrack_log_create {
	__u32 size;
	__u32 flags;
	__s32 out_fd;
	__u32 ring_entries;
};

#define DIRTYTRACK_RING_MIN_ENTRIES 64

/* Where the entries begin, in the mapping that begins with struct dirtytrack_ring. */
#define DIRTYTRACK_RING_ENTRIES_OFFSET 4096

/**
 * struct dirtytrack_ring - head of a log's ring, written by the kernel only
 * @head: entries written since the ring was made; entry n is at index
 *	n % @entries of the array of __u64 at DIRTYTRACK_RING_ENTRIES_OFFSET
 * @overflows: how often an entry found no room; and 1 from the start, for what was
 *	there before the ring
 * @entries: the array's length
 * @reserved: 0
 *
 * The ring is an index to the log: it says at once, with no system call, where pages
 * were written.  The log's bitmap stays the truth.  A page's number is put into the
 * ring whenever the page becomes writable (before the write that caused it is
 * done), when the kernel writes to it or it is released, and when a collect has to
 * leave it writable.  So it may be there several times, or for a page that was
 * harvested meanwhile.  What MERGE puts back is not in it, nor what LOG_RELEASE_CLEAN
 * skips. ::
 *
 *       kernel                                consumer
 *
 *    page becomes writable              poll(): sleep until head - tail >= watermark
 *      |            |                     |                   or overflows != seen
 *      | room       | no room             v
 *      v            v                   load-acquire head, overflows
 *    entry,      overflows++              |                         |
 *    head++         |                     | overflows == seen       | != seen
 *      |            |                     v                         v
 *      |  wake, if  |                   read entries [tail, head)  seen = overflows,
 *      +-> ready <--+                   store-release tail = head  tail = head,
 *                                         |                        full barrier
 *          write-protected,               v                         |
 *       <------------------------------ CLEAR_RANGES of the pages   v
 *          out of the bitmap            (ENOSPC never, EINTR:     HARVEST of the
 *                                        again), copy them        slot, copy
 *
 * A page that was written and not yet reported to the consumer by a CLEAR or HARVEST is
 * in an entry from tail on, or overflows differs from what the consumer has seen.  A
 * ring of no use to its consumer any more costs writers an increment: it never
 * makes them wait, and what the consumer writes into his page concerns only him.
 */
struct dirtytrack_ring {
	__aligned_u64 head;
	__aligned_u64 overflows;
	__u32 entries;
	__u32 reserved;
};

/**
 * struct dirtytrack_ring_control - the consumer's page of a log's ring
 * @tail: entries read.  When @head of the ring is more than @entries ahead of it
 *	(that is also if it is not in the past), the ring counts as full
 * @seen: @overflows of the ring when the consumer last took a harvest instead
 * @watermark: entries to be read that make the log readable for poll(); 0 counts
 *	as 1, more than there are as all.  Set while no one polls.
 * @reserved: 0
 *
 * poll(), select() and epoll of the log's fd report POLLIN when as many entries as
 * @watermark wait or @seen differs from @overflows, and POLLERR for a log without a
 * ring.  An edge, for EPOLLET, is the first entry or overflow with which that is so after
 * a change of this page: its consumer has a full barrier between the change and his last
 * look at the ring, and sleeps only if that found nothing.
 */
struct dirtytrack_ring_control {
	__aligned_u64 tail;
	__aligned_u64 seen;
	__u32 watermark;
	__u32 reserved;
};

/**
 * struct dirtytrack_log_info - argument of DIRTYTRACK_LOG_INFO, on a log fd
 * @size: sizeof(struct dirtytrack_log_info)
 * @flags: must be 0
 * @out_slot_id: id of the slot
 * @out_reserved: 0
 * @out_npages: pages of the slot, that is bits of the bitmap
 * @out_bitmap_offset: where mmap() of the log fd finds the bitmap, bytes
 * @out_bitmap_size: size of that mapping, a multiple of the page size
 * @out_summary_offset: where mmap() finds the summary, bytes
 * @out_summary_size: size of that mapping
 * @out_dirty: pages that are in the log now; what was written and not collected
 *	yet is not counted
 * @out_harvests: HARVEST and HARVEST_EXTENTS calls that took something away or
 *	could have
 * @out_reported: pages that they reported
 * @out_ring_offset: where mmap() finds struct dirtytrack_ring and its entries
 * @out_ring_size: size of that mapping; 0 without a ring
 * @out_control_offset: where mmap() finds struct dirtytrack_ring_control; the one
 *	mapping that may be writable, if it is of this page and no other
 * @out_control_size: size of that mapping; 0 without a ring
 * @out_overflows: entries that found no room in the ring
 * @out_rate: the log's limit, pages a second; 0 for none
 *
 * The mappings are shared and read-only (EINVAL for a private one, EPERM for one that
 * is writable and not of the control page) and may be read at any time.  The bitmap is of
 * __u64 words in native byte order, page n being bit n % 64 of word n / 64; bit
 * m % 64 of word m / 64 of the summary is set if word m of the bitmap is not
 * zero (it may be set when the word is zero, while a call is at work).  They show
 * what was collected: a harvest or peek, of any log of the slot, collects.
 */
struct dirtytrack_log_info {
	__u32 size;
	__u32 flags;
	__u32 out_slot_id;
	__u32 out_reserved;
	__aligned_u64 out_npages;
	__aligned_u64 out_bitmap_offset;
	__aligned_u64 out_bitmap_size;
	__aligned_u64 out_summary_offset;
	__aligned_u64 out_summary_size;
	__aligned_u64 out_dirty;
	__aligned_u64 out_harvests;
	__aligned_u64 out_reported;
	__aligned_u64 out_ring_offset;
	__aligned_u64 out_ring_size;
	__aligned_u64 out_control_offset;
	__aligned_u64 out_control_size;
	__aligned_u64 out_overflows;
	__aligned_u64 out_rate;
};

/* Report, and leave the pages in the log. */
#define DIRTYTRACK_HARVEST_PEEK (1U << 0)

/**
 * struct dirtytrack_harvest - argument of DIRTYTRACK_LOG_HARVEST, on a log fd
 * @size: sizeof(struct dirtytrack_harvest)
 * @flags: 0 or DIRTYTRACK_HARVEST_PEEK
 * @first: first page of the range
 * @npages: pages in the range, not 0; the range ends inside the slot
 * @bitmap: address of __u64 words, aligned to 8 bytes
 * @bit: number of the bit, in @bitmap, that stands for page @first
 * @out_next: page at which the call stopped: @first + @npages if it did all
 * @out_dirty: pages of [@first, @out_next) that were dirty
 * @out_new: those of them whose bit in @bitmap was clear
 *
 * Takes the dirty pages of the range out of the log and sets their bits in the
 * caller's bitmap.  Other bits, and words without a dirty page, are left alone:
 * a caller who wants only this harvest clears the bitmap before.  @bit need not
 * be a multiple of 64, nor have anything to do with @first.  The words must not
 * be written by others during the call.
 *
 * The work of one call is bounded: it may stop early, with @out_next less than
 * the end, also for a signal or an address that faults after some progress.
 * Call again from @out_next.
 *
 * Errors: EINVAL (range outside the slot or empty, @bitmap unaligned), EOVERFLOW (also
 * if the last word of @bitmap has no address), EFAULT, EINTR.
 */
struct dirtytrack_harvest {
	__u32 size;
	__u32 flags;
	__aligned_u64 first;
	__aligned_u64 npages;
	__aligned_u64 bitmap;
	__aligned_u64 bit;
	__aligned_u64 out_next;
	__aligned_u64 out_dirty;
	__aligned_u64 out_new;
};

/**
 * enum dirtytrack_state - what a dirty extent holds now
 * @DIRTYTRACK_STATE_DATA: pages with memory: read them
 * @DIRTYTRACK_STATE_HOLE: pages without: they are zero, and reading them through
 *	a mapping would allocate them
 */
enum dirtytrack_state {
	DIRTYTRACK_STATE_DATA = 1,
	DIRTYTRACK_STATE_HOLE = 2
};

/**
 * struct dirtytrack_extent - a run of dirty pages of one state
 * @first: first page
 * @npages: how many
 * @state: one of enum dirtytrack_state
 */
struct dirtytrack_extent {
	__aligned_u64 first;
	__u32 npages;
	__u32 state;
};

/**
 * struct dirtytrack_harvest_extents - argument of DIRTYTRACK_LOG_HARVEST_EXTENTS
 * @size: sizeof(struct dirtytrack_harvest_extents)
 * @flags: 0 or DIRTYTRACK_HARVEST_PEEK
 * @first: first page of the range
 * @npages: pages in the range, not 0; the range ends inside the slot
 * @extents: address of an array of struct dirtytrack_extent, aligned to 8 bytes
 * @nr: its length, not 0
 * @out_nr: entries written
 * @out_next: page at which the call stopped: @first + @npages if it did all
 * @out_dirty: pages in the entries written
 *
 * Takes the dirty pages of the range out of the log and lists them as extents,
 * ascending, apart from each other, adjacent ones of one state merged.  The call
 * stops early when the array is full, and for the reasons that
 * DIRTYTRACK_LOG_HARVEST does; pages from @out_next on stay in the log.
 *
 * Errors: EINVAL (range outside the slot or empty, @extents unaligned, @nr 0),
 * EOVERFLOW, EFAULT, EINTR.
 */
struct dirtytrack_harvest_extents {
	__u32 size;
	__u32 flags;
	__aligned_u64 first;
	__aligned_u64 npages;
	__aligned_u64 extents;
	__u32 nr;
	__u32 out_nr;
	__aligned_u64 out_next;
	__aligned_u64 out_dirty;
};

/**
 * struct dirtytrack_bitmap - argument of DIRTYTRACK_LOG_CLEAR and _LOG_MERGE
 * @size: sizeof(struct dirtytrack_bitmap)
 * @flags: must be 0
 * @first: first page of the range
 * @npages: pages in the range, not 0; the range ends inside the slot
 * @bitmap: address of __u64 words, aligned to 8 bytes, which are only read
 * @bit: number of the bit, in @bitmap, that stands for page @first
 * @out_next: page at which the call stopped: @first + @npages if it did all
 * @out_pages: CLEAR: pages that were dirty and are not any more; MERGE: pages that
 *	were asked for, also those that are in the log already
 *
 * Says something about the pages of the range whose bit is set.
 *
 * CLEAR takes them out of the log and protects them again: from then on they are
 * clean until they are written.  For a consumer in two phases, who peeks first and
 * clears a page just before he copies it, so that what is written in between is
 * copied once.  The guarantee holds: the content that is read after the call has all
 * that was written before it.
 *
 * MERGE puts pages into the log, dirty or not.  For a consumer who could not
 * deliver what a harvest gave him.
 *
 * The work of one call is bounded, as that of DIRTYTRACK_LOG_HARVEST.
 *
 * Errors: EINVAL (range outside the slot or empty, @bitmap unaligned), EOVERFLOW,
 * EFAULT, EINTR.
 */
struct dirtytrack_bitmap {
	__u32 size;
	__u32 flags;
	__aligned_u64 first;
	__aligned_u64 npages;
	__aligned_u64 bitmap;
	__aligned_u64 bit;
	__aligned_u64 out_next;
	__aligned_u64 out_pages;
};

/**
 * struct dirtytrack_range - a run of pages
 * @first: first page
 * @npages: how many, not 0
 */
struct dirtytrack_range {
	__aligned_u64 first;
	__aligned_u64 npages;
};

/**
 * struct dirtytrack_ranges - argument of DIRTYTRACK_LOG_CLEAR_RANGES and
 *	_LOG_MERGE_RANGES
 * @size: sizeof(struct dirtytrack_ranges)
 * @flags: must be 0
 * @ranges: address of an array of struct dirtytrack_range, aligned to 8 bytes,
 *	which is only read.  In any order; ascending is fastest: pages that are near
 *	each other and come one after the other are protected at once
 * @nr: its length, not 0
 * @out_nr: ranges done
 * @out_next: page of range @out_nr at which the call stopped, 0 if it did nothing of it
 * @out_pages: as in struct dirtytrack_bitmap
 *
 * The same as DIRTYTRACK_LOG_CLEAR and _LOG_MERGE, about the pages of the ranges.
 * A range that is not valid ends the call: with an error if it is the first.  To go
 * on after a call that stopped, call again with the ranges from @out_nr on, the first
 * of them beginning at @out_next if that is not 0.
 *
 * Errors: EINVAL (range outside the slot or empty, @ranges unaligned, @nr 0),
 * EOVERFLOW, EFAULT, EINTR.
 */
struct dirtytrack_ranges {
	__u32 size;
	__u32 flags;
	__aligned_u64 ranges;
	__u32 nr;
	__u32 out_nr;
	__aligned_u64 out_next;
	__aligned_u64 out_pages;
};

/**
 * struct dirtytrack_release - argument of DIRTYTRACK_SLOT_RELEASE, on a slot fd, and of
 *	DIRTYTRACK_LOG_RELEASE_CLEAN, on a log fd
 * @size: sizeof(struct dirtytrack_release)
 * @flags: must be 0
 * @ranges: address of an array of struct dirtytrack_range, aligned to 8 bytes,
 *	which is only read.  In any order, and they may overlap; ascending is fastest:
 *	what comes one after the other and lies in the same 2 MiB is released at once
 * @nr: its length, not 0
 * @out_nr: ranges done
 * @out_next: page of range @out_nr at which the call stopped, 0 if it did nothing of it
 * @out_released: pages that had memory and have none now
 * @out_skipped: pages that were asked for and keep their memory
 * @out_unmaps: runs of pages that were taken out of the mappings: for each, every
 *	mapping of them costs a call of its MMU notifiers and a TLB flush, at most
 *
 * Gives the memory of pages back to the host.  They read as zero until they are
 * written, which gives them memory again; every log reports them as dirty, in the
 * state DIRTYTRACK_STATE_HOLE unless they were touched by then.  Pages without memory
 * are left alone.  fallocate(FALLOC_FL_PUNCH_HOLE) and madvise(MADV_REMOVE) do
 * the same for one range.  Pages that lie between those that are released may be taken
 * out of mappings, too, and come back with a fault.
 *
 * LOG_RELEASE_CLEAN, of a log made with DIRTYTRACK_LOG_MAY_RELEASE, releases pages of the
 * log's slot that were not written since the log reported them, or since it started, if it
 * started clean: what it would report if it were harvested now, keeps its memory.
 * Nobody can write to a page between the look at it and its release.  Skipped also are
 * pages that someone holds a reference to, as he may be writing (see the guarantee):
 * every page that is skipped is reported by the next harvest that gets to it.  A caller
 * who harvests, looks at pages, and then has them released by this call loses no write
 * that he has not seen.
 *
 * The work of one call is bounded: it may stop early, also for a signal after some
 * progress.  To go on, call again with the ranges from @out_nr on, the first of them
 * beginning at @out_next if that is not 0.  A range that is not valid ends the
 * call: with an error if it is the first.
 *
 * Errors: EBADF (the slot fd is not open for writing), EPERM (the log was made without
 * DIRTYTRACK_LOG_MAY_RELEASE), EINVAL (range outside the slot or empty, @ranges unaligned,
 * @nr 0), EOVERFLOW, EFAULT, EINTR (killed while waiting for a harvest of the log).
 */
struct dirtytrack_release {
	__u32 size;
	__u32 flags;
	__aligned_u64 ranges;
	__u32 nr;
	__u32 out_nr;
	__aligned_u64 out_next;
	__aligned_u64 out_released;
	__aligned_u64 out_skipped;
	__aligned_u64 out_unmaps;
};

/* Memory of whatever node the caller's policy says. */
#define DIRTYTRACK_NODE_ANY (-1)

/**
 * struct dirtytrack_populate - argument of DIRTYTRACK_SLOT_POPULATE, on a slot fd
 * @size: sizeof(struct dirtytrack_populate)
 * @flags: must be 0
 * @ranges: as in struct dirtytrack_release
 * @nr: its length, not 0
 * @out_nr: ranges done
 * @out_next: as in struct dirtytrack_release
 * @out_pages: pages that had no memory and have it now
 * @node: NUMA node that the memory should come from, if it has some left;
 *	DIRTYTRACK_NODE_ANY for that of the caller's policy
 * @reserved: must be 0
 *
 * Gives pages memory ahead of their use, zeroed, charged to the memory cgroup of the
 * caller.  Nothing is mapped, and no log reports them: their content does not
 * change.  fallocate() without flags does the same for one range.
 *
 * The call stops early as that of struct dirtytrack_release does, and where there is no
 * memory; what was populated stays.  It fails if it did nothing.
 *
 * Errors: EBADF (the slot fd is not open for writing), EINVAL (range outside the slot or
 * empty, @ranges unaligned, @nr 0, no such node), EOVERFLOW, EFAULT, ENOSPC (no memory
 * left of out_max_memory), ENOMEM.
 */
struct dirtytrack_populate {
	__u32 size;
	__u32 flags;
	__aligned_u64 ranges;
	__u32 nr;
	__u32 out_nr;
	__aligned_u64 out_next;
	__aligned_u64 out_pages;
	__s32 node;
	__u32 reserved;
};

/* Largest limit, pages a second. */
#define DIRTYTRACK_LIMIT_MAX 10000000

/* A writer waits at most as long at once, in seconds. */
#define DIRTYTRACK_LIMIT_WAIT 1

/**
 * struct dirtytrack_limit - argument of DIRTYTRACK_LOG_LIMIT, on a log fd
 * @size: sizeof(struct dirtytrack_limit)
 * @flags: must be 0
 * @rate: how many pages may become dirty a second, at most DIRTYTRACK_LIMIT_MAX; 0
 *	lifts the log's limit
 *
 * Limits how fast the slot's pages become dirty: how many become writable in a second, or
 * are written by the kernel.  A page counts once until it is collected, so the limit
 * has an effect while some log is harvested; one that was released counts with each fault
 * and call that writes to it until then.  The smallest limit of the slot's logs
 * holds; each ends with its log.
 *
 * A writer who exceeds it waits in his page fault, holding no lock, until it is his
 * turn, a signal arrives, or the limit is changed or lifted, but at most
 * DIRTYTRACK_LIMIT_WAIT seconds: so each writing thread gets a page in that time
 * whatever the limit.  Those who cannot wait (a signal is pending, a caller that
 * must not sleep) do not; what they write counts, and the others wait for it.  What was
 * not used for 100 ms is forfeited.  Nobody waits to read, but as pages are
 * unmapped when they are collected (as with DIRTYTRACK_STRATEGY_ZAP), a read faults, too.
 *
 * Errors: EINVAL (@rate).
 */
struct dirtytrack_limit {
	__u32 size;
	__u32 flags;
	__aligned_u64 rate;
};

#endif /* _UAPI_LINUX_DIRTYTRACK_H */
