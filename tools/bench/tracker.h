/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ways to learn which pages were written, behind one table of operations
 *
 *	open	memory, as this tracker can follow it; nothing is tracked
 *	start	from now on, what is written is reported
 *	harvest	find out what was written since the last harvest (or start), and
 *		have the next write to each page seen again.  This is what is timed:
 *		it ends when the answer is there, in whatever form the tracker gives
 *	report	the answer as bits of a bitmap; not timed, and it forgets the answer
 *	close	the end of it
 *
 * Every page has memory and is mapped where the writer writes before start, but in
 * the measurement of sparse memory.
 */
#ifndef TRACKER_H
#define TRACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct region;

/* What a writer that never rests is told and tells. */
struct spin {
	bool stop;		/* atomic: end */
	bool pause;		/* atomic: rest */
	bool resting;		/* atomic: no write is under way */
	uint64_t writes;
	double longest_ns;	/* between two writes */
};

/**
 * struct writer - who writes
 * @name: "CPU" or "vCPU"
 * @ours: name of the tracker that others with this writer are compared with
 * @write: writer number @who stores to pages list[0], list[stride] and so on, below
 *	@n; each page's first word gets a value that it did not have
 * @spin: increments the first word of all pages, round and round, until told to stop
 * @stop: tells it
 */
struct writer {
	const char *name;
	const char *ours;
	void (*write)(struct region *r, unsigned int who, const uint32_t *list,
		      size_t n, unsigned int stride);
	void (*spin)(struct region *r, struct spin *s);
	void (*stop)(struct region *r, struct spin *s);
};

extern const struct writer cpu_writer;
extern const struct writer vcpu_writer;

/**
 * struct tracker - a way to learn which pages were written
 * @name: name
 * @what: one line
 * @writer: who writes
 * @params: parameters that the module must be loaded with; NULL: needs no module
 * @param: a parameter that the module must have for that; NULL: none
 * @pauses: a write that races a harvest can be lost, so writers rest meanwhile
 * @untracked: reports nothing: what is measured is what the others add to
 * @missing: why it cannot be used with @npages here, or NULL
 */
struct tracker {
	const char *name;
	const char *what;
	const struct writer *writer;
	const char *params;
	const char *param;
	bool pauses;
	bool untracked;
	const char *(*missing)(uint64_t npages);
	void (*open)(struct region *r);
	void (*start)(struct region *r);
	void (*harvest)(struct region *r);
	void (*report)(struct region *r, uint64_t *bitmap);
	void (*close)(struct region *r);
};

extern const struct tracker tracker_none;
extern const struct tracker tracker_slot, tracker_slot_group;
extern const struct tracker tracker_slot_single, tracker_slot_zap;
extern const struct tracker tracker_uffd_anon, tracker_uffd_memfd;
extern const struct tracker tracker_uffd_handler;
extern const struct tracker tracker_soft_dirty;
extern const struct tracker tracker_mprotect;
extern const struct tracker tracker_kvm_slot, tracker_kvm_log, tracker_kvm_clear;
extern const struct tracker tracker_kvm_ring;

/**
 * struct region - memory, and what tracks it
 * @tracker: the tracker
 * @npages: pages
 * @mem: where they are mapped here
 * @memory_fd: what they are of, or -1
 * @tracker_fd: the tracker's file, or -1
 * @taken: bitmap for trackers that answer with one; report clears it
 * @private: the tracker's own
 */
struct region {
	const struct tracker *tracker;
	uint64_t npages;
	char *mem;
	int memory_fd;
	int tracker_fd;
	uint64_t *taken;
	void *private;
};

/* Anonymous memory for @r, of small pages, apart from every other mapping. */
void memory_map_anonymous(struct region *r);
/* A memfd. */
void memory_map_memfd(struct region *r);
void memory_unmap(struct region *r);

/* r->taken, and the usual report of it. */
void taken_alloc(struct region *r);
void taken_report(struct region *r, uint64_t *bitmap);
void taken_free(struct region *r);
/*
 * Moves bits that other threads set in @from to r->taken, and calls @protect for
 * runs of them, which may have pages without a bit in gaps of less than
 * RUN_GAP: a system call costs more than looking at that many page table entries.
 */
#define RUN_GAP 512
void taken_collect(struct region *r, uint64_t *from,
		   void (*protect)(struct region *r, uint64_t first, uint64_t npages));

#endif
