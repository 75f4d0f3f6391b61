/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: one for each change of state.
 *
 * Slots and logs are named by numbers, as in fdinfo and debugfs: a slot by its id, a
 * log by its number in its slot, counted from 1 and not used again.  Pages are named by
 * their offset in the slot.  A tracepoint that is off costs a jump over it; where
 * a value is not at hand anyway, it is asked for only when the tracepoint is on.
 *
 * The kernel includes this file several times, with other definitions of the macros.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dirtytrack

#if !defined(DIRTYTRACK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DIRTYTRACK_TRACE_H

#include <linux/ktime.h>
#include <linux/tracepoint.h>

#include <uapi/linux/dirtytrack.h>

TRACE_EVENT(dirtytrack_slot_create,
	TP_PROTO(u32 slot, const char *name, u64 npages),
	TP_ARGS(slot, name, npages),
	TP_STRUCT__entry(
		__field(u32, slot)
		__array(char, name, DIRTYTRACK_NAME_LEN)
		__field(u64, npages)
	),
	TP_fast_assign(
		__entry->slot = slot;
		memcpy(__entry->name, name, DIRTYTRACK_NAME_LEN);
		__entry->npages = npages;
	),
	TP_printk("slot=%u npages=%llu name=%s", __entry->slot, __entry->npages,
		  __entry->name)
);

TRACE_EVENT(dirtytrack_slot_destroy,
	TP_PROTO(u32 slot),
	TP_ARGS(slot),
	TP_STRUCT__entry(
		__field(u32, slot)
	),
	TP_fast_assign(
		__entry->slot = slot;
	),
	TP_printk("slot=%u", __entry->slot)
);

TRACE_EVENT(dirtytrack_log_create,
	TP_PROTO(u32 slot, u32 log, bool all_set),
	TP_ARGS(slot, log, all_set),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u32, log)
		__field(bool, all_set)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->log = log;
		__entry->all_set = all_set;
	),
	TP_printk("slot=%u log=%u all_set=%d", __entry->slot, __entry->log,
		  __entry->all_set)
);

TRACE_EVENT(dirtytrack_log_destroy,
	TP_PROTO(u32 slot, u32 log),
	TP_ARGS(slot, log),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u32, log)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->log = log;
	),
	TP_printk("slot=%u log=%u", __entry->slot, __entry->log)
);

/*
 * A write fault made @npages pages writable, @page at an address of the current process
 * and neighbours of it (see group.c).
 */
TRACE_EVENT(dirtytrack_grant,
	TP_PROTO(u32 slot, u64 page, unsigned long address, u64 npages),
	TP_ARGS(slot, page, address, npages),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u64, page)
		__field(unsigned long, address)
		__field(u64, npages)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->page = page;
		__entry->address = address;
		__entry->npages = npages;
	),
	TP_printk("slot=%u page=%llu address=%#lx npages=%llu", __entry->slot,
		  __entry->page, __entry->address, __entry->npages)
);

/* A collect took write permission from a run; if it did not settle, it stays open. */
TRACE_EVENT(dirtytrack_protect,
	TP_PROTO(u32 slot, u64 first, u64 npages, bool settled),
	TP_ARGS(slot, first, npages, settled),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u64, first)
		__field(u64, npages)
		__field(bool, settled)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->first = first;
		__entry->npages = npages;
		__entry->settled = settled;
	),
	TP_printk("slot=%u first=%llu npages=%llu settled=%d", __entry->slot,
		  __entry->first, __entry->npages, __entry->settled)
);

/*
 * A harvest or peek of a log ended, at @next, with @dirty pages delivered.  @start is
 * ktime_get_ns() of its beginning, 0 if the tracepoint was off then.
 */
TRACE_EVENT(dirtytrack_harvest,
	TP_PROTO(u32 slot, u32 log, u64 first, u64 end, u64 next, u64 dirty, bool peek,
		 int err, u64 start),
	TP_ARGS(slot, log, first, end, next, dirty, peek, err, start),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u32, log)
		__field(u64, first)
		__field(u64, npages)
		__field(u64, next)
		__field(u64, dirty)
		__field(u64, nsecs)
		__field(int, err)
		__field(bool, peek)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->log = log;
		__entry->first = first;
		__entry->npages = end - first;
		__entry->next = next;
		__entry->dirty = dirty;
		__entry->nsecs = start ? ktime_get_ns() - start : 0;
		__entry->err = err;
		__entry->peek = peek;
	),
	TP_printk("slot=%u log=%u first=%llu npages=%llu next=%llu dirty=%llu peek=%d err=%d nsecs=%llu",
		  __entry->slot, __entry->log, __entry->first, __entry->npages,
		  __entry->next, __entry->dirty, __entry->peek, __entry->err,
		  __entry->nsecs)
);

/* CLEAR or MERGE of a log changed @pages of the group of pages that begins at @first. */
DECLARE_EVENT_CLASS(dirtytrack_select,
	TP_PROTO(u32 slot, u32 log, u64 first, u64 pages),
	TP_ARGS(slot, log, first, pages),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u32, log)
		__field(u64, first)
		__field(u64, pages)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->log = log;
		__entry->first = first;
		__entry->pages = pages;
	),
	TP_printk("slot=%u log=%u first=%llu pages=%llu", __entry->slot, __entry->log,
		  __entry->first, __entry->pages)
);

DEFINE_EVENT(dirtytrack_select, dirtytrack_clear,
	TP_PROTO(u32 slot, u32 log, u64 first, u64 pages),
	TP_ARGS(slot, log, first, pages)
);

DEFINE_EVENT(dirtytrack_select, dirtytrack_merge,
	TP_PROTO(u32 slot, u32 log, u64 first, u64 pages),
	TP_ARGS(slot, log, first, pages)
);

/* @pages of a range lost their memory. */
TRACE_EVENT(dirtytrack_release,
	TP_PROTO(u32 slot, u64 first, u64 npages, u64 pages),
	TP_ARGS(slot, first, npages, pages),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u64, first)
		__field(u64, npages)
		__field(u64, pages)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->first = first;
		__entry->npages = npages;
		__entry->pages = pages;
	),
	TP_printk("slot=%u first=%llu npages=%llu pages=%llu", __entry->slot,
		  __entry->first, __entry->npages, __entry->pages)
);

/* A log's ring was full: from @page on its consumer needs the bitmap. */
TRACE_EVENT(dirtytrack_ring_overflow,
	TP_PROTO(u32 slot, u32 log, u64 page),
	TP_ARGS(slot, log, page),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u32, log)
		__field(u64, page)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->log = log;
		__entry->page = page;
	),
	TP_printk("slot=%u log=%u page=%llu", __entry->slot, __entry->log,
		  __entry->page)
);

/* A writer waited for @nsecs, for a log's limit of the dirty rate. */
TRACE_EVENT(dirtytrack_throttle,
	TP_PROTO(u32 slot, u64 page, u64 nsecs),
	TP_ARGS(slot, page, nsecs),
	TP_STRUCT__entry(
		__field(u32, slot)
		__field(u64, page)
		__field(u64, nsecs)
	),
	TP_fast_assign(
		__entry->slot = slot;
		__entry->page = page;
		__entry->nsecs = nsecs;
	),
	TP_printk("slot=%u page=%llu nsecs=%llu", __entry->slot, __entry->page,
		  __entry->nsecs)
);

#endif

/* Relative to a directory that Kbuild names with -I, not to the kernel's own. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH kmod
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
