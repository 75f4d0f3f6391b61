/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The objects of dirtytrack and what the files of the module call in each other.
 *
 * A slot is an inode of a kernel-internal filesystem, a log is a file with a
 * reference to that inode.  Pages are named by their offset in the slot (pgoff).
 * "first" and "npages" make a range; "end" is the page after its last.
 */
#ifndef DIRTYTRACK_H
#define DIRTYTRACK_H

#undef pr_fmt
#define pr_fmt(fmt) "dirtytrack: " fmt

#include <linux/fs.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/percpu_counter.h>

#include <uapi/linux/dirtytrack.h>

#include "bitmap.h"
#include "group.h"
#include "limit.h"
#include "ring.h"

#if !defined(CONFIG_64BIT) || PAGE_SHIFT != DIRTYTRACK_PAGE_SHIFT
#error "dirtytrack needs a 64-bit kernel with pages of 4 KiB"
#endif

struct seq_file;

/* Groups with pages to work on that one call visits at most. */
#define DT_CALL_GROUPS	1024

/* Extents that are copied out at once. */
#define DT_LOG_EXTENTS	64

/*
 * For tables of a size that a caller chose: that there is no memory for it is told to
 * him, not to the kernel's log, which he could fill with it.
 */
#define DT_GFP_TABLE	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN)

/* The page store is chunked by what one huge entry can map. */
#define DT_CHUNK_PAGES	512

/**
 * struct dt_chunk - 2 MiB of a slot
 * @pages: DT_CHUNK_PAGES page pointers, NULL where there is no memory; NULL as a
 *	whole before the first
 * @resident: how many are not NULL
 *
 * Entries appear by cmpxchg under mapping->invalidate_lock shared, and go away
 * under it exclusive.
 */
struct dt_chunk {
	struct page **pages;
	atomic_t resident;
};

/**
 * struct dt_slot_stats - what is counted on each CPU, to share no cache line
 * @faults: calls of .fault and .page_mkwrite
 * @grants: PTEs made writable
 * @harvests: harvests of any of the logs, peeks not counted
 * @overflows: pages that found no room in a ring
 */
struct dt_slot_stats {
	u64 faults;
	u64 grants;
	u64 harvests;
	u64 overflows;
};

/**
 * struct dt_counts - all that is counted of a slot, or of all slots together
 * @stats: sums over CPUs
 * @collected: open pages visited by collects
 * @protects: runs of pages protected
 * @overreports: pages reported with no sign of a write, at most
 * @throttles: waits for the limit
 * @throttled_ns: how long they were
 */
struct dt_counts {
	struct dt_slot_stats stats;
	u64 collected;
	u64 protects;
	u64 overreports;
	u64 throttles;
	u64 throttled_ns;
};

/**
 * struct dt_slot - guest memory
 * @inode: the file; its i_mapping has the mappings and the invalidate_lock
 * @id: id, in the table of all slots
 * @name: name, padded with NULs
 * @npages: size
 * @sponsor: user to whose bound it counts; none if its maker was privileged
 * @charged: bytes charged for its tables and bitmaps; pages are charged as they come
 * @chunks: the page store
 * @resident: pages in it
 * @open: pages that may be writable somewhere (see vma.c)
 * @history: for each word of @open what the last collect saw of it (see group.c);
 *	written under @lock
 * @collects: how many collects each group of words had, low bits; under @lock
 * @released: a bit for each page that was released since its last collect; set
 *	under the invalidate_lock exclusive, cleared under it shared and @lock
 * @has_notifier: an mm with a secondary MMU (KVM) mapped the slot or faulted on it;
 *	stays set
 * @has_uffd_wp: a mapping that userfaultfd write-protects was seen; stays set
 * @vma_copies: how often a mapping was copied, by fork, split or move
 * @stats: counters of the fault path
 * @ring_lock: guards the rings
 * @rings: rings of the logs that have one
 * @nrings: their number
 * @limit: how fast pages may become dirty
 * @lock: serialises collects and guards what follows
 * @logs: all logs
 * @nlogs: their number
 * @last_log_id: number of the log that was made last
 * @collected: open pages visited by collects
 * @protects: runs of pages protected
 * @overreports: pages reported with no sign of a write, at most
 * @run_open: what a collect took from @open, one group
 * @run_dirty: what it found to be written
 *
 * Lock order: mmap_lock or VMA lock (of a fault) -> invalidate_lock
 *	dt_log.lock -> dt_slot.lock -> invalidate_lock -> i_mmap_rwsem -> page
 *	table lock -> ring_lock -> wait queue of a ring
 *	dt_slot.lock -> dt_limit.lock
 * None but mmap_lock and dt_log.lock is held across a copy to or from user memory,
 * which may be the slot itself.
 */
struct dt_slot {
	struct inode inode;
	u32 id;
	char name[DIRTYTRACK_NAME_LEN];
	u64 npages;
	kuid_t sponsor;
	u64 charged;
	struct dt_chunk *chunks;
	struct percpu_counter resident;
	struct dt_bitmap open;
	struct dt_history *history;
	u8 *collects;
	u64 *released;
	bool has_notifier;
	bool has_uffd_wp;
	atomic_t vma_copies;
	struct dt_slot_stats __percpu *stats;
	spinlock_t ring_lock;		/* the rings */
	struct list_head rings;
	u32 nrings;
	struct dt_limit limit;

	struct mutex lock;		/* collects, and what follows */
	struct list_head logs;
	u32 nlogs;
	u32 last_log_id;
	u64 collected;
	u64 protects;
	u64 overreports;
	u64 run_open[DT_WORD_BITS];
	u64 run_dirty[DT_WORD_BITS];
};

static inline struct dt_slot *dt_inode_slot(struct inode *inode)
{
	return container_of(inode, struct dt_slot, inode);
}

static inline struct dt_slot *dt_file_slot(struct file *file)
{
	return dt_inode_slot(file_inode(file));
}

/**
 * struct dt_log - one consumer's view of a slot
 * @slot: the slot; the log holds a reference to its inode
 * @id: number of the log in its slot, from 1; 0 before it is in the list
 * @may_release: it may release what is clean in it
 * @charged: bytes charged for it
 * @node: in the slot's list, under its lock
 * @bitmap: dirty pages; collects of any log of the slot set bits, harvests of
 *	this one take them
 * @ring: its ring, if it has one
 * @rate: its dirty-rate limit, pages a second, under the slot's lock
 * @overreports: pages that it got with no sign of a write, under the slot's lock
 * @lock: one harvest at a time: two at once could each miss what the other has
 *	taken and not delivered yet.  Guards what follows.
 * @harvests: calls
 * @reported: pages that they reported
 * @taken: what a harvest took of one group and has not delivered yet
 * @resident: which of those pages have memory
 * @extents: extents on their way to the caller
 * @select: pages of one group that a CLEAR or MERGE is about
 */
struct dt_log {
	struct dt_slot *slot;
	u32 id;
	bool may_release;
	u64 charged;
	struct list_head node;
	struct dt_bitmap bitmap;
	struct dt_ring ring;
	u64 rate;
	u64 overreports;
	struct mutex lock;		/* harvests, and what follows */
	u64 harvests;
	u64 reported;
	u64 taken[DT_WORD_BITS];
	u64 resident[DT_WORD_BITS];
	struct dirtytrack_extent extents[DT_LOG_EXTENTS];
	u64 select[DT_WORD_BITS];
};

/**
 * struct dt_ranges - how far an array of ranges is done
 * @slot: the slot that they are of
 * @array: the array
 * @nr: its length
 * @i: index of the range that is being done
 * @first: its first page
 * @next: its first page that is not done; whoever does pages sets it
 * @end: page after its last; 0 if the range has not been read yet
 */
struct dt_ranges {
	struct dt_slot *slot;
	const struct dirtytrack_range __user *array;
	u32 nr;
	u32 i;
	u64 first;
	u64 next;
	u64 end;
};

/* slotfs.c */
int dt_slotfs_init(void);
void dt_slotfs_exit(void);
struct dt_slot *dt_slotfs_alloc(u64 length);
struct file *dt_slotfs_open(struct dt_slot *slot);

/* slot.c */
void dt_slot_exit(void);
struct file *dt_slot_create(u64 length, const char *name, u32 *out_id);
struct file *dt_slot_open(u32 id);
struct file *dt_slot_open_by_name(const char *name);
int dt_slot_next(u32 id, u32 *out_id);
void dt_slot_free(struct dt_slot *slot);
void dt_slot_info(struct dt_slot *slot, struct dirtytrack_slot_info *info);
struct dt_slot *dt_slot_get_next(u32 id);
u32 dt_slots_sum(struct dt_counts *counts, u64 *resident, u64 *logs);
u32 dt_slot_max(void);
u32 dt_slot_user_max(void);
u64 dt_slot_max_size(void);

/* stats.c */
void dt_stats_count(struct dt_slot *slot, struct dt_counts *counts);
void dt_stats_retire(struct dt_slot *slot);
void dt_stats_total(struct dt_counts *counts);
void dt_stats_show(struct seq_file *m, const char *prefix, const struct dt_counts *counts);
void dt_stats_head(struct seq_file *m);
void dt_stats_row(struct seq_file *m, const struct dt_counts *counts);

/* debugfs.c */
void dt_debugfs_init(void);
void dt_debugfs_exit(void);

/* memory.c */
int dt_memory_init(void);
void dt_memory_exit(void);
int dt_memory_charge(u64 bytes);
void dt_memory_uncharge(u64 bytes);
u64 dt_memory_used(void);
u64 dt_memory_max(void);

/* bitmap_memory.c */
size_t dt_bitmap_words_size(u64 nbits);
size_t dt_bitmap_summary_size(u64 nbits);
u64 dt_bitmap_memory(u64 nbits);
int dt_bitmap_alloc(struct dt_bitmap *bm, u64 nbits);
void dt_bitmap_free(struct dt_bitmap *bm);

/* pages.c */
u64 dt_pages_table_size(u64 npages);
int dt_pages_init(struct dt_slot *slot);
void dt_pages_destroy(struct dt_slot *slot);
struct page *dt_page_find(struct dt_slot *slot, pgoff_t pgoff);
struct page **dt_pages_word(struct dt_slot *slot, u64 word);
struct page *dt_page_get(struct dt_slot *slot, pgoff_t pgoff, int node);
u64 dt_pages_resident(struct dt_slot *slot, u64 word);
pgoff_t dt_pages_seek(struct dt_slot *slot, pgoff_t pgoff, bool resident);
bool dt_chunk_empty(struct dt_slot *slot, pgoff_t pgoff);
void dt_pages_remove(struct dt_slot *slot, u64 word, u64 bits, struct list_head *pages);
void dt_pages_trim(struct dt_slot *slot, pgoff_t pgoff);

/* file.c */
struct page *dt_page_hold(struct dt_slot *slot, pgoff_t pgoff, bool alloc);
ssize_t dt_file_read_iter(struct kiocb *iocb, struct iov_iter *to);
ssize_t dt_file_write_iter(struct kiocb *iocb, struct iov_iter *from);
loff_t dt_file_llseek(struct file *file, loff_t offset, int whence);

/* release.c */
long dt_file_fallocate(struct file *file, int mode, loff_t offset, loff_t len);
int dt_release_ranges(struct dt_slot *slot, struct dt_log *log,
		      struct dirtytrack_release *arg);
int dt_populate_ranges(struct dt_slot *slot, struct dirtytrack_populate *arg);

/* vma.c */
int dt_slot_mmap(struct file *file, struct vm_area_struct *vma);
void dt_note_mapping(struct dt_slot *slot, struct vm_area_struct *vma);

/* collect.c */
void dt_mark_written(struct dt_slot *slot, pgoff_t pgoff, struct page *page);
int dt_collect_next(struct dt_slot *slot, struct dt_log *log, u64 first, u64 end,
		    u64 *group);
int dt_collect_select(struct dt_slot *slot, u64 group, const u64 *select);
int dt_collect_all(struct dt_slot *slot);

/* log.c */
struct file *dt_log_create(struct dt_slot *slot, u32 flags, u32 ring_entries);
void dt_log_info(struct dt_log *log, struct dirtytrack_log_info *info);
struct dt_log *dt_file_log(struct file *file);
u64 dt_log_pending(struct dt_log *log);
u32 dt_log_max(void);

/* harvest.c */
int dt_harvest_bitmap(struct dt_log *log, struct dirtytrack_harvest *arg);
int dt_harvest_extents(struct dt_log *log, struct dirtytrack_harvest_extents *arg);
void dt_harvest_undo(struct dt_log *log, u64 first, u64 end);
int dt_user_bitmap_check(u64 bitmap, u64 bit, u64 npages);

/* ranges.c */
int dt_range_check(struct dt_slot *slot, u64 first, u64 npages);
int dt_ranges_init(struct dt_ranges *ranges, struct dt_slot *slot, u64 array, u32 nr);
int dt_ranges_more(struct dt_ranges *ranges);
bool dt_ranges_report(const struct dt_ranges *ranges, u32 *out_nr, __u64 *out_next);

/* select.c */
int dt_select_bitmap(struct dt_log *log, struct dirtytrack_bitmap *arg, bool clear);
int dt_select_ranges(struct dt_log *log, struct dirtytrack_ranges *arg, bool clear);

/* main.c */
long dt_slot_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long dt_log_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

#endif
