// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ABI as such: layout, struct sizes and their growth, flags, pointers, fds,
 * and the errno of each thing that can be wrong.  A call that fails must leave
 * nothing behind and take nothing away, so every failure here is bracketed by
 * two looks at what exists.
 */
#include <assert.h>
#include <sys/resource.h>

#include "dirtytrack_test.h"

/* ---- layout ---- */

#define LAYOUT(type, field, offset, size)				\
	static_assert(offsetof(struct type, field) == (offset) &&	\
		      sizeof(((struct type *)0)->field) == (size),	\
		      #type "." #field)
#define SIZE(type, size)						\
	static_assert(sizeof(struct type) == (size), #type)

LAYOUT(dirtytrack_info, size, 0, 4);
LAYOUT(dirtytrack_info, flags, 4, 4);
LAYOUT(dirtytrack_info, out_features, 8, 8);
LAYOUT(dirtytrack_info, out_max_slot_size, 16, 8);
LAYOUT(dirtytrack_info, out_max_slots, 24, 4);
LAYOUT(dirtytrack_info, out_max_logs, 28, 4);
LAYOUT(dirtytrack_info, out_page_shift, 32, 4);
LAYOUT(dirtytrack_info, out_strategy, 36, 4);
LAYOUT(dirtytrack_info, out_max_ring_entries, 40, 4);
LAYOUT(dirtytrack_info, out_max_user_slots, 44, 4);
LAYOUT(dirtytrack_info, out_max_memory, 48, 8);
SIZE(dirtytrack_info, 56);

LAYOUT(dirtytrack_slot_create, size, 0, 4);
LAYOUT(dirtytrack_slot_create, flags, 4, 4);
LAYOUT(dirtytrack_slot_create, length, 8, 8);
LAYOUT(dirtytrack_slot_create, name, 16, 32);
LAYOUT(dirtytrack_slot_create, out_id, 48, 4);
LAYOUT(dirtytrack_slot_create, out_fd, 52, 4);
SIZE(dirtytrack_slot_create, 56);

LAYOUT(dirtytrack_slot_next, size, 0, 4);
LAYOUT(dirtytrack_slot_next, flags, 4, 4);
LAYOUT(dirtytrack_slot_next, id, 8, 4);
LAYOUT(dirtytrack_slot_next, out_id, 12, 4);
SIZE(dirtytrack_slot_next, 16);

LAYOUT(dirtytrack_slot_open, size, 0, 4);
LAYOUT(dirtytrack_slot_open, flags, 4, 4);
LAYOUT(dirtytrack_slot_open, id, 8, 4);
LAYOUT(dirtytrack_slot_open, out_fd, 12, 4);
LAYOUT(dirtytrack_slot_open, name, 16, 32);
SIZE(dirtytrack_slot_open, 48);

LAYOUT(dirtytrack_slot_info, size, 0, 4);
LAYOUT(dirtytrack_slot_info, flags, 4, 4);
LAYOUT(dirtytrack_slot_info, out_id, 8, 4);
LAYOUT(dirtytrack_slot_info, out_uid, 12, 4);
LAYOUT(dirtytrack_slot_info, out_length, 16, 8);
LAYOUT(dirtytrack_slot_info, out_name, 24, 32);
LAYOUT(dirtytrack_slot_info, out_resident, 56, 8);
LAYOUT(dirtytrack_slot_info, out_logs, 64, 4);
LAYOUT(dirtytrack_slot_info, out_reserved, 68, 4);
LAYOUT(dirtytrack_slot_info, out_faults, 72, 8);
LAYOUT(dirtytrack_slot_info, out_grants, 80, 8);
LAYOUT(dirtytrack_slot_info, out_collected, 88, 8);
LAYOUT(dirtytrack_slot_info, out_protects, 96, 8);
LAYOUT(dirtytrack_slot_info, out_rate, 104, 8);
LAYOUT(dirtytrack_slot_info, out_throttles, 112, 8);
LAYOUT(dirtytrack_slot_info, out_throttled_ns, 120, 8);
SIZE(dirtytrack_slot_info, 128);

LAYOUT(dirtytrack_log_create, size, 0, 4);
LAYOUT(dirtytrack_log_create, flags, 4, 4);
LAYOUT(dirtytrack_log_create, out_fd, 8, 4);
LAYOUT(dirtytrack_log_create, ring_entries, 12, 4);
SIZE(dirtytrack_log_create, 16);

LAYOUT(dirtytrack_log_info, size, 0, 4);
LAYOUT(dirtytrack_log_info, flags, 4, 4);
LAYOUT(dirtytrack_log_info, out_slot_id, 8, 4);
LAYOUT(dirtytrack_log_info, out_reserved, 12, 4);
LAYOUT(dirtytrack_log_info, out_npages, 16, 8);
LAYOUT(dirtytrack_log_info, out_bitmap_offset, 24, 8);
LAYOUT(dirtytrack_log_info, out_bitmap_size, 32, 8);
LAYOUT(dirtytrack_log_info, out_summary_offset, 40, 8);
LAYOUT(dirtytrack_log_info, out_summary_size, 48, 8);
LAYOUT(dirtytrack_log_info, out_dirty, 56, 8);
LAYOUT(dirtytrack_log_info, out_harvests, 64, 8);
LAYOUT(dirtytrack_log_info, out_reported, 72, 8);
LAYOUT(dirtytrack_log_info, out_ring_offset, 80, 8);
LAYOUT(dirtytrack_log_info, out_ring_size, 88, 8);
LAYOUT(dirtytrack_log_info, out_control_offset, 96, 8);
LAYOUT(dirtytrack_log_info, out_control_size, 104, 8);
LAYOUT(dirtytrack_log_info, out_overflows, 112, 8);
LAYOUT(dirtytrack_log_info, out_rate, 120, 8);
SIZE(dirtytrack_log_info, 128);

LAYOUT(dirtytrack_harvest, size, 0, 4);
LAYOUT(dirtytrack_harvest, flags, 4, 4);
LAYOUT(dirtytrack_harvest, first, 8, 8);
LAYOUT(dirtytrack_harvest, npages, 16, 8);
LAYOUT(dirtytrack_harvest, bitmap, 24, 8);
LAYOUT(dirtytrack_harvest, bit, 32, 8);
LAYOUT(dirtytrack_harvest, out_next, 40, 8);
LAYOUT(dirtytrack_harvest, out_dirty, 48, 8);
LAYOUT(dirtytrack_harvest, out_new, 56, 8);
SIZE(dirtytrack_harvest, 64);

LAYOUT(dirtytrack_extent, first, 0, 8);
LAYOUT(dirtytrack_extent, npages, 8, 4);
LAYOUT(dirtytrack_extent, state, 12, 4);
SIZE(dirtytrack_extent, 16);

LAYOUT(dirtytrack_harvest_extents, size, 0, 4);
LAYOUT(dirtytrack_harvest_extents, flags, 4, 4);
LAYOUT(dirtytrack_harvest_extents, first, 8, 8);
LAYOUT(dirtytrack_harvest_extents, npages, 16, 8);
LAYOUT(dirtytrack_harvest_extents, extents, 24, 8);
LAYOUT(dirtytrack_harvest_extents, nr, 32, 4);
LAYOUT(dirtytrack_harvest_extents, out_nr, 36, 4);
LAYOUT(dirtytrack_harvest_extents, out_next, 40, 8);
LAYOUT(dirtytrack_harvest_extents, out_dirty, 48, 8);
SIZE(dirtytrack_harvest_extents, 56);

LAYOUT(dirtytrack_bitmap, size, 0, 4);
LAYOUT(dirtytrack_bitmap, flags, 4, 4);
LAYOUT(dirtytrack_bitmap, first, 8, 8);
LAYOUT(dirtytrack_bitmap, npages, 16, 8);
LAYOUT(dirtytrack_bitmap, bitmap, 24, 8);
LAYOUT(dirtytrack_bitmap, bit, 32, 8);
LAYOUT(dirtytrack_bitmap, out_next, 40, 8);
LAYOUT(dirtytrack_bitmap, out_pages, 48, 8);
SIZE(dirtytrack_bitmap, 56);

LAYOUT(dirtytrack_range, first, 0, 8);
LAYOUT(dirtytrack_range, npages, 8, 8);
SIZE(dirtytrack_range, 16);

LAYOUT(dirtytrack_ranges, size, 0, 4);
LAYOUT(dirtytrack_ranges, flags, 4, 4);
LAYOUT(dirtytrack_ranges, ranges, 8, 8);
LAYOUT(dirtytrack_ranges, nr, 16, 4);
LAYOUT(dirtytrack_ranges, out_nr, 20, 4);
LAYOUT(dirtytrack_ranges, out_next, 24, 8);
LAYOUT(dirtytrack_ranges, out_pages, 32, 8);
SIZE(dirtytrack_ranges, 40);

LAYOUT(dirtytrack_limit, size, 0, 4);
LAYOUT(dirtytrack_limit, flags, 4, 4);
LAYOUT(dirtytrack_limit, rate, 8, 8);
SIZE(dirtytrack_limit, 16);

LAYOUT(dirtytrack_release, size, 0, 4);
LAYOUT(dirtytrack_release, flags, 4, 4);
LAYOUT(dirtytrack_release, ranges, 8, 8);
LAYOUT(dirtytrack_release, nr, 16, 4);
LAYOUT(dirtytrack_release, out_nr, 20, 4);
LAYOUT(dirtytrack_release, out_next, 24, 8);
LAYOUT(dirtytrack_release, out_released, 32, 8);
LAYOUT(dirtytrack_release, out_skipped, 40, 8);
LAYOUT(dirtytrack_release, out_unmaps, 48, 8);
SIZE(dirtytrack_release, 56);

LAYOUT(dirtytrack_populate, size, 0, 4);
LAYOUT(dirtytrack_populate, flags, 4, 4);
LAYOUT(dirtytrack_populate, ranges, 8, 8);
LAYOUT(dirtytrack_populate, nr, 16, 4);
LAYOUT(dirtytrack_populate, out_nr, 20, 4);
LAYOUT(dirtytrack_populate, out_next, 24, 8);
LAYOUT(dirtytrack_populate, out_pages, 32, 8);
LAYOUT(dirtytrack_populate, node, 40, 4);
LAYOUT(dirtytrack_populate, reserved, 44, 4);
SIZE(dirtytrack_populate, 48);

LAYOUT(dirtytrack_ring, head, 0, 8);
LAYOUT(dirtytrack_ring, overflows, 8, 8);
LAYOUT(dirtytrack_ring, entries, 16, 4);
LAYOUT(dirtytrack_ring, reserved, 20, 4);
SIZE(dirtytrack_ring, 24);

LAYOUT(dirtytrack_ring_control, tail, 0, 8);
LAYOUT(dirtytrack_ring_control, seen, 8, 8);
LAYOUT(dirtytrack_ring_control, watermark, 16, 4);
LAYOUT(dirtytrack_ring_control, reserved, 20, 4);
SIZE(dirtytrack_ring_control, 24);

#define NUMBER(name, nr) static_assert((name) == (0xD700 | (nr)), #name)

NUMBER(DIRTYTRACK_GET_INFO, 0x00);
NUMBER(DIRTYTRACK_SLOT_CREATE, 0x01);
NUMBER(DIRTYTRACK_SLOT_NEXT, 0x02);
NUMBER(DIRTYTRACK_SLOT_OPEN, 0x03);
NUMBER(DIRTYTRACK_SLOT_INFO, 0x20);
NUMBER(DIRTYTRACK_LOG_CREATE, 0x21);
NUMBER(DIRTYTRACK_SLOT_RELEASE, 0x22);
NUMBER(DIRTYTRACK_SLOT_POPULATE, 0x23);
NUMBER(DIRTYTRACK_LOG_INFO, 0x40);
NUMBER(DIRTYTRACK_LOG_HARVEST, 0x41);
NUMBER(DIRTYTRACK_LOG_HARVEST_EXTENTS, 0x42);
NUMBER(DIRTYTRACK_LOG_CLEAR, 0x43);
NUMBER(DIRTYTRACK_LOG_CLEAR_RANGES, 0x44);
NUMBER(DIRTYTRACK_LOG_MERGE, 0x45);
NUMBER(DIRTYTRACK_LOG_MERGE_RANGES, 0x46);
NUMBER(DIRTYTRACK_LOG_LIMIT, 0x47);
NUMBER(DIRTYTRACK_LOG_RELEASE_CLEAN, 0x48);

static_assert(DIRTYTRACK_STRATEGY_WP == 1 && DIRTYTRACK_STRATEGY_ZAP == 2,
	      "enum dirtytrack_strategy");
static_assert(DIRTYTRACK_STATE_DATA == 1 && DIRTYTRACK_STATE_HOLE == 2,
	      "enum dirtytrack_state");
static_assert(DIRTYTRACK_OPEN_BY_NAME == 1 && DIRTYTRACK_LOG_ALL_SET == 1 &&
	      DIRTYTRACK_LOG_MAY_RELEASE == 2 &&
	      DIRTYTRACK_HARVEST_PEEK == 1, "flags");
static_assert(DIRTYTRACK_FEATURE_RING == 1 && DIRTYTRACK_FEATURE_LIMIT == 2 &&
	      DIRTYTRACK_FEATURE_RELEASE == 4, "features");
static_assert(DIRTYTRACK_NODE_ANY == -1, "node");
static_assert(DIRTYTRACK_RING_MIN_ENTRIES == 64 &&
	      DIRTYTRACK_RING_ENTRIES_OFFSET == 4096, "ring");
static_assert(DIRTYTRACK_LIMIT_MAX == 10000000 && DIRTYTRACK_LIMIT_WAIT == 1, "limit");

/* ---- one set of each object, and what a failed call could have disturbed ---- */

#define NPAGES 200
#define NDIRTY 5

struct objects {
	int dev, slot, log;
	__u32 id;
	char *map;
	__u64 bitmap[4];
	struct dirtytrack_extent extents[NPAGES];
	struct dirtytrack_range ranges[NDIRTY];
};

struct state {
	unsigned int fds, slots, logs;
	int free_fd;		/* a number can be lost without a file */
	__u64 dirty, resident;
};

/* Pages that are clean and have memory, for MERGE to put into the log, or to release. */
#define CLEAN_FIRST 70
#define CLEAN_NPAGES 3

/* One that has no memory, for POPULATE. */
#define EMPTY_FIRST 80

static const __u64 dirty_pages[NDIRTY] = { 0, 63, 64, 100, NPAGES - 1 };

static void objects_open(struct __test_metadata *_metadata, struct objects *o)
{
	o->dev = test_device();
	o->slot = test_slot_create(o->dev, NULL, NPAGES * PAGE_SIZE, &o->id);
	o->log = test_log_create(o->slot, DIRTYTRACK_LOG_MAY_RELEASE);
	o->map = test_map(o->slot, 0, NPAGES);
	for (int i = 0; i < NDIRTY; i++)
		page_write(o->map, dirty_pages[i], 1);
	for (int i = 0; i < CLEAN_NPAGES; i++)
		(void)page_read(o->map, CLEAN_FIRST + i);
}

static void objects_close(struct objects *o)
{
	test_unmap(o->map, NPAGES);
	close(o->log);
	close(o->slot);
	close(o->dev);
}

static struct state look(struct objects *o)
{
	struct dirtytrack_slot_info slot;
	__u64 bitmap[4] = { 0 };
	struct state s = { 0 };

	s.fds = test_count_fds();
	s.free_fd = dup(0);
	close(s.free_fd);
	s.slots = test_slot_count(o->dev);
	if (_test_slot_info(o->slot, &slot) ||
	    _test_harvest_all(o->log, DIRTYTRACK_HARVEST_PEEK, 0, NPAGES, bitmap,
			      0, &s.dirty))
		dt_broken("cannot look: %s", strerror(errno));
	s.logs = slot.out_logs;
	s.resident = slot.out_resident;
	for (int i = 0; i < NDIRTY; i++)
		if (!bit_test(bitmap, dirty_pages[i]))
			dt_broken("page %llu is no longer in the log",
				  dirty_pages[i]);
	return s;
}

#define EXPECT_SAME(before, after) do {					\
	EXPECT_EQ((before).fds, (after).fds);				\
	EXPECT_EQ((before).free_fd, (after).free_fd);			\
	EXPECT_EQ((before).slots, (after).slots);			\
	EXPECT_EQ((before).logs, (after).logs);				\
	EXPECT_EQ((before).dirty, (after).dirty);			\
	EXPECT_EQ((before).resident, (after).resident);			\
} while (0)

/* A call that must fail without a trace. */
#define EXPECT_REFUSED(err, objects, call) do {				\
	struct state __before = look(objects), __after;			\
									\
	EXPECT_ERRNO(err, call);					\
	__after = look(objects);					\
	EXPECT_SAME(__before, __after);					\
} while (0)

/* ---- rules of all ioctls, for each ioctl ---- */

FIXTURE(each)
{
	struct objects o;
	int fd;
	char *page;		/* for an argument that ends where memory ends */
	unsigned char arg[4096];
};

enum object { DEV, SLOT, LOG };

FIXTURE_VARIANT(each)
{
	unsigned long cmd;
	enum object object;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(each, get_info) {
	.cmd = DIRTYTRACK_GET_INFO, .object = DEV,
};

FIXTURE_VARIANT_ADD(each, slot_create) {
	.cmd = DIRTYTRACK_SLOT_CREATE, .object = DEV,
};

FIXTURE_VARIANT_ADD(each, slot_next) {
	.cmd = DIRTYTRACK_SLOT_NEXT, .object = DEV,
};

FIXTURE_VARIANT_ADD(each, slot_open) {
	.cmd = DIRTYTRACK_SLOT_OPEN, .object = DEV,
	.flags = DIRTYTRACK_OPEN_BY_NAME,
};

FIXTURE_VARIANT_ADD(each, slot_info) {
	.cmd = DIRTYTRACK_SLOT_INFO, .object = SLOT,
};

FIXTURE_VARIANT_ADD(each, log_create) {
	.cmd = DIRTYTRACK_LOG_CREATE, .object = SLOT,
	.flags = DIRTYTRACK_LOG_ALL_SET | DIRTYTRACK_LOG_MAY_RELEASE,
};

FIXTURE_VARIANT_ADD(each, log_info) {
	.cmd = DIRTYTRACK_LOG_INFO, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, harvest) {
	.cmd = DIRTYTRACK_LOG_HARVEST, .object = LOG,
	.flags = DIRTYTRACK_HARVEST_PEEK,
};

FIXTURE_VARIANT_ADD(each, harvest_extents) {
	.cmd = DIRTYTRACK_LOG_HARVEST_EXTENTS, .object = LOG,
	.flags = DIRTYTRACK_HARVEST_PEEK,
};

FIXTURE_VARIANT_ADD(each, clear) {
	.cmd = DIRTYTRACK_LOG_CLEAR, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, clear_ranges) {
	.cmd = DIRTYTRACK_LOG_CLEAR_RANGES, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, merge) {
	.cmd = DIRTYTRACK_LOG_MERGE, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, merge_ranges) {
	.cmd = DIRTYTRACK_LOG_MERGE_RANGES, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, limit) {
	.cmd = DIRTYTRACK_LOG_LIMIT, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, release) {
	.cmd = DIRTYTRACK_SLOT_RELEASE, .object = SLOT,
};

FIXTURE_VARIANT_ADD(each, release_clean) {
	.cmd = DIRTYTRACK_LOG_RELEASE_CLEAN, .object = LOG,
};

FIXTURE_VARIANT_ADD(each, populate) {
	.cmd = DIRTYTRACK_SLOT_POPULATE, .object = SLOT,
};

FIXTURE_SETUP(each)
{
	objects_open(_metadata, &self->o);
	self->fd = variant->object == DEV ? self->o.dev :
		   variant->object == SLOT ? self->o.slot : self->o.log;
	self->page = guarded_alloc(1);
}

FIXTURE_TEARDOWN(each)
{
	objects_close(&self->o);
}

/* An argument with which the call succeeds. */
static void valid(struct objects *o, unsigned long cmd, void *arg)
{
	union {
		struct dirtytrack_slot_create slot_create;
		struct dirtytrack_slot_open slot_open;
		struct dirtytrack_harvest harvest;
		struct dirtytrack_harvest_extents extents;
		struct dirtytrack_bitmap bitmap;
		struct dirtytrack_ranges ranges;
		struct dirtytrack_release release;
		struct dirtytrack_populate populate;
		__u32 size;
	} a;

	memset(&a, 0, sizeof(a));
	switch (cmd) {
	case DIRTYTRACK_SLOT_CREATE:
		a.slot_create.length = PAGE_SIZE;
		break;
	case DIRTYTRACK_SLOT_OPEN:
		a.slot_open.id = o->id;
		break;
	case DIRTYTRACK_LOG_HARVEST:
		a.harvest.npages = NPAGES;
		a.harvest.bitmap = (uintptr_t)o->bitmap;
		break;
	case DIRTYTRACK_LOG_HARVEST_EXTENTS:
		a.extents.npages = NPAGES;
		a.extents.extents = (uintptr_t)o->extents;
		a.extents.nr = NPAGES;
		break;
	case DIRTYTRACK_LOG_CLEAR:
		memset(o->bitmap, 0, sizeof(o->bitmap));
		for (int i = 0; i < NDIRTY; i++)
			bit_set(o->bitmap, dirty_pages[i]);
		a.bitmap.npages = NPAGES;
		a.bitmap.bitmap = (uintptr_t)o->bitmap;
		break;
	case DIRTYTRACK_LOG_MERGE:
		memset(o->bitmap, 0, sizeof(o->bitmap));
		for (int i = 0; i < CLEAN_NPAGES; i++)
			bit_set(o->bitmap, CLEAN_FIRST + i);
		a.bitmap.npages = NPAGES;
		a.bitmap.bitmap = (uintptr_t)o->bitmap;
		break;
	case DIRTYTRACK_LOG_CLEAR_RANGES:
		for (int i = 0; i < NDIRTY; i++)
			o->ranges[i] = (struct dirtytrack_range){ dirty_pages[i], 1 };
		a.ranges.ranges = (uintptr_t)o->ranges;
		a.ranges.nr = NDIRTY;
		break;
	case DIRTYTRACK_LOG_MERGE_RANGES:
		o->ranges[0] = (struct dirtytrack_range){ CLEAN_FIRST, CLEAN_NPAGES };
		a.ranges.ranges = (uintptr_t)o->ranges;
		a.ranges.nr = 1;
		break;
	case DIRTYTRACK_SLOT_RELEASE:
	case DIRTYTRACK_LOG_RELEASE_CLEAN:
		o->ranges[0] = (struct dirtytrack_range){ CLEAN_FIRST, CLEAN_NPAGES };
		a.release.ranges = (uintptr_t)o->ranges;
		a.release.nr = 1;
		break;
	case DIRTYTRACK_SLOT_POPULATE:
		o->ranges[0] = (struct dirtytrack_range){ EMPTY_FIRST, 1 };
		a.populate.ranges = (uintptr_t)o->ranges;
		a.populate.nr = 1;
		a.populate.node = DIRTYTRACK_NODE_ANY;
		break;
	}
	a.size = dt_call(cmd)->size;
	memcpy(arg, &a, dt_call(cmd)->size);
}

/* Puts things back as they were before a call that succeeded. */
static void undo(struct objects *o, unsigned long cmd, void *arg)
{
	struct dirtytrack_slot_create *create = arg;
	struct dirtytrack_slot_open *open = arg;
	struct dirtytrack_log_create *log = arg;

	switch (cmd) {
	case DIRTYTRACK_SLOT_CREATE:
		close(create->out_fd);
		break;
	case DIRTYTRACK_SLOT_OPEN:
		close(open->out_fd);
		break;
	case DIRTYTRACK_LOG_CREATE:
		close(log->out_fd);
		break;
	case DIRTYTRACK_LOG_HARVEST:
	case DIRTYTRACK_LOG_HARVEST_EXTENTS:
	case DIRTYTRACK_LOG_CLEAR:
	case DIRTYTRACK_LOG_CLEAR_RANGES:
		for (int i = 0; i < NDIRTY; i++)
			page_write(o->map, dirty_pages[i], 1);
		break;
	case DIRTYTRACK_LOG_MERGE:
	case DIRTYTRACK_LOG_MERGE_RANGES:
		_test_harvest_all(o->log, 0, CLEAN_FIRST, CLEAN_NPAGES, o->bitmap, 0,
				  NULL);
		break;
	case DIRTYTRACK_SLOT_RELEASE:
	case DIRTYTRACK_LOG_RELEASE_CLEAN:
		_test_harvest_all(o->log, 0, CLEAN_FIRST, CLEAN_NPAGES, o->bitmap, 0,
				  NULL);
		for (int i = 0; i < CLEAN_NPAGES; i++)
			(void)page_read(o->map, CLEAN_FIRST + i);
		break;
	case DIRTYTRACK_SLOT_POPULATE:
		fallocate(o->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  EMPTY_FIRST * PAGE_SIZE, PAGE_SIZE);
		_test_harvest_all(o->log, 0, EMPTY_FIRST, 1, o->bitmap, 0, NULL);
		break;
	}
}

static void set_u32(void *arg, size_t offset, __u32 value)
{
	memcpy((char *)arg + offset, &value, sizeof(value));
}

#define SIZE_AT		0
#define FLAGS_AT	4

TEST_F(each, exact_size)
{
	struct state before = look(&self->o), after;

	valid(&self->o, variant->cmd, self->arg);
	ASSERT_EQ(0, dt_ioctl(self->fd, variant->cmd, self->arg)) {
		TH_LOG("%s: %s", dt_call(variant->cmd)->name, strerror(errno));
	}
	undo(&self->o, variant->cmd, self->arg);
	after = look(&self->o);
	EXPECT_SAME(before, after);
}

TEST_F(each, smaller_struct)
{
	struct state before = look(&self->o), after;

	for (__u32 size = 0; size < dt_call_min(variant->cmd); size++) {
		valid(&self->o, variant->cmd, self->arg);
		set_u32(self->arg, SIZE_AT, size);
		EXPECT_ERRNO(EINVAL, dt_ioctl(self->fd, variant->cmd, self->arg));
	}
	after = look(&self->o);
	EXPECT_SAME(before, after);
}

/* A program built against an earlier header: what was added is not touched. */
TEST_F(each, earlier_struct)
{
	const size_t known = dt_call(variant->cmd)->size;

	for (size_t size = dt_call_min(variant->cmd); size < known; size++) {
		memset(self->arg, DT_POISON, sizeof(self->arg));
		valid(&self->o, variant->cmd, self->arg);
		memset(self->arg + size, DT_POISON, known - size);
		set_u32(self->arg, SIZE_AT, size);
		ASSERT_EQ(0, ioctl(self->fd, variant->cmd, self->arg)) {
			TH_LOG("size %zu: %s", size, strerror(errno));
		}
		EXPECT_TRUE(bytes_are(self->arg + size, DT_POISON,
				      sizeof(self->arg) - size));
		undo(&self->o, variant->cmd, self->arg);
	}
}

/* A program built against a later header, which uses none of what it added. */
TEST_F(each, larger_struct_zero)
{
	const size_t known = dt_call(variant->cmd)->size;
	const size_t sizes[] = { known + 1, known + 4, known + 8, known + 64, 4096 };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(self->arg, 0, sizeof(self->arg));
		valid(&self->o, variant->cmd, self->arg);
		set_u32(self->arg, SIZE_AT, sizes[i]);
		ASSERT_EQ(0, dt_ioctl(self->fd, variant->cmd, self->arg)) {
			TH_LOG("size %zu: %s", sizes[i], strerror(errno));
		}
		EXPECT_TRUE(bytes_are(self->arg + known, 0,
				      sizeof(self->arg) - known));
		undo(&self->o, variant->cmd, self->arg);
	}
}

/* The same program using it. */
TEST_F(each, larger_struct_nonzero)
{
	const size_t known = dt_call(variant->cmd)->size;
	const struct { size_t size, at; } tails[] = {
		{ known + 1, known }, { known + 8, known },
		{ known + 8, known + 7 }, { known + 64, known + 32 },
		{ 4096, 4095 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		memset(self->arg, 0, sizeof(self->arg));
		valid(&self->o, variant->cmd, self->arg);
		set_u32(self->arg, SIZE_AT, tails[i].size);
		self->arg[tails[i].at] = 1;
		EXPECT_REFUSED(E2BIG, &self->o,
			       dt_ioctl(self->fd, variant->cmd, self->arg));
	}
}

/* What lies behind the struct is not looked at. */
TEST_F(each, garbage_behind_struct)
{
	const size_t known = dt_call(variant->cmd)->size;

	memset(self->arg, 0xff, sizeof(self->arg));
	valid(&self->o, variant->cmd, self->arg);
	ASSERT_EQ(0, dt_ioctl(self->fd, variant->cmd, self->arg));
	EXPECT_TRUE(bytes_are(self->arg + known, 0xff,
			      sizeof(self->arg) - known));
	undo(&self->o, variant->cmd, self->arg);
}

TEST_F(each, unknown_flags)
{
	struct state before = look(&self->o), after;

	for (int bit = 0; bit < 32; bit++) {
		__u32 flag = 1U << bit;

		if (flag & variant->flags)
			continue;
		valid(&self->o, variant->cmd, self->arg);
		set_u32(self->arg, FLAGS_AT, flag);
		EXPECT_ERRNO(EOPNOTSUPP,
			     dt_ioctl(self->fd, variant->cmd, self->arg));
		set_u32(self->arg, FLAGS_AT, flag | variant->flags);
		EXPECT_ERRNO(EOPNOTSUPP,
			     dt_ioctl(self->fd, variant->cmd, self->arg));
	}
	after = look(&self->o);
	EXPECT_SAME(before, after);
}

TEST_F(each, bad_pointer)
{
	const size_t known = dt_call(variant->cmd)->size;
	char *end = page_at(self->page, 1);
	void *bad[] = { NULL, end, (void *)-4096UL, (void *)(1UL << 63) };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_REFUSED(EFAULT, &self->o,
			       ioctl(self->fd, variant->cmd, bad[i]));

	/* Only a part of it can be read, down to the size alone. */
	for (size_t part = 4; part < known; part += 4) {
		valid(&self->o, variant->cmd, self->arg);
		memcpy(end - part, self->arg, part);
		EXPECT_ERRNO(EFAULT, ioctl(self->fd, variant->cmd, end - part));
	}
	/* The struct is there, the zeroes behind it that size speaks of are not. */
	valid(&self->o, variant->cmd, end - known);
	set_u32(end - known, SIZE_AT, known + 8);
	EXPECT_REFUSED(EFAULT, &self->o,
		       ioctl(self->fd, variant->cmd, end - known));
}

/* Where the struct ends is where memory may end. */
TEST_F(each, nothing_behind_struct)
{
	char *arg = page_at(self->page, 1) - dt_call(variant->cmd)->size;

	valid(&self->o, variant->cmd, arg);
	ASSERT_EQ(0, dt_ioctl(self->fd, variant->cmd, arg));
	undo(&self->o, variant->cmd, arg);
}

/*
 * The input is fine and the output cannot be delivered: the call has done its
 * work by then, and must undo it.
 */
TEST_F(each, read_only_argument)
{
	valid(&self->o, variant->cmd, self->page);
	ASSERT_EQ(0, mprotect(self->page, PAGE_SIZE, PROT_READ));
	EXPECT_REFUSED(EFAULT, &self->o,
		       ioctl(self->fd, variant->cmd, self->page));
	EXPECT_REFUSED(EFAULT, &self->o,
		       ioctl(self->fd, variant->cmd, self->page));
}

/* The argument of a system call has no alignment. */
TEST_F(each, unaligned_argument)
{
	valid(&self->o, variant->cmd, self->arg + 1);
	ASSERT_EQ(0, dt_ioctl(self->fd, variant->cmd, self->arg + 1));
	memmove(self->arg, self->arg + 1, dt_call(variant->cmd)->size);
	undo(&self->o, variant->cmd, self->arg);
}

TEST_F(each, wrong_kind_of_fd)
{
	const int fds[] = {
		self->o.dev, self->o.slot, self->o.log,
		open("/dev/null", O_RDWR), open("/proc/self/exe", O_RDONLY),
	};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		ASSERT_LE(0, fds[i]);
		if (fds[i] == self->fd)
			continue;
		valid(&self->o, variant->cmd, self->arg);
		EXPECT_REFUSED(ENOTTY, &self->o,
			       dt_ioctl(fds[i], variant->cmd, self->arg));
	}
}

/* The number alone is the ioctl: with a direction or a size it is another. */
TEST_F(each, number_with_direction)
{
	const unsigned int nr = _IOC_NR(variant->cmd);
	const size_t size = dt_call(variant->cmd)->size;
	const unsigned long others[] = {
		_IOC(_IOC_READ, DIRTYTRACK_TYPE, nr, size),
		_IOC(_IOC_WRITE, DIRTYTRACK_TYPE, nr, size),
		_IOC(_IOC_READ | _IOC_WRITE, DIRTYTRACK_TYPE, nr, size),
		_IOC(_IOC_NONE, DIRTYTRACK_TYPE, nr, size),
		_IO(DIRTYTRACK_TYPE ^ 1, nr),
	};

	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		valid(&self->o, variant->cmd, self->arg);
		EXPECT_REFUSED(ENOTTY, &self->o,
			       ioctl(self->fd, others[i], self->arg));
	}
}

#ifdef __x86_64__
/* ioctl(2) of a 32-bit process: the structs are the same, the entry is not. */
static int ioctl_32(int fd, unsigned int cmd, void *arg)
{
	int ret;

	asm volatile("int $0x80"
		     : "=a" (ret)
		     : "a" (54), "b" (fd), "c" (cmd), "d" ((unsigned int)(uintptr_t)arg)
		     : "memory", "cc", "r8", "r9", "r10", "r11");
	return ret;
}

TEST_F(each, compat)
{
	char *low = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	pid_t pid;

	ASSERT_NE(MAP_FAILED, (void *)low);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		ioctl_32(-1, 0, NULL);
		_exit(0);
	}
	if (test_wait(pid))
		SKIP(return, "this kernel has no 32-bit system calls");

	valid(&self->o, variant->cmd, low);
	dt_poison(dt_call(variant->cmd), low);
	ASSERT_EQ(0, ioctl_32(self->fd, variant->cmd, low));
	for (const struct dt_field *f = dt_call(variant->cmd)->out; f->name; f++) {
		EXPECT_FALSE(dt_is_poison(low + f->offset, f->size)) {
			TH_LOG("%s was not written", f->name);
		}
	}
	undo(&self->o, variant->cmd, low);

	set_u32(low, SIZE_AT, dt_call_min(variant->cmd) - 1);
	EXPECT_EQ(-EINVAL, ioctl_32(self->fd, variant->cmd, low));
	EXPECT_EQ(-EFAULT, ioctl_32(self->fd, variant->cmd, NULL));
}
#endif

/* ---- what is particular to one ioctl ---- */

FIXTURE(uapi)
{
	struct objects o;
};

FIXTURE_SETUP(uapi)
{
	objects_open(_metadata, &self->o);
}

FIXTURE_TEARDOWN(uapi)
{
	objects_close(&self->o);
}

TEST_F(uapi, unknown_ioctls)
{
	const int fds[] = { self->o.dev, self->o.slot, self->o.log };
	const unsigned long first[] = {
		DIRTYTRACK_GET_INFO, DIRTYTRACK_SLOT_INFO, DIRTYTRACK_LOG_INFO,
	};
	const unsigned long last[] = {
		DIRTYTRACK_SLOT_OPEN, DIRTYTRACK_SLOT_POPULATE,
		DIRTYTRACK_LOG_RELEASE_CLEAN,
	};
	struct state before = look(&self->o), after;
	__u32 arg[64] = { sizeof(arg) };

	for (int i = 0; i < 3; i++) {
		for (unsigned int nr = 0; nr < 256; nr++) {
			unsigned long cmd = _IO(DIRTYTRACK_TYPE, nr);

			if (cmd >= first[i] && cmd <= last[i])
				continue;
			EXPECT_ERRNO(ENOTTY, ioctl(fds[i], cmd, arg));
			EXPECT_ERRNO(ENOTTY, ioctl(fds[i], cmd, NULL));
		}
	}
	after = look(&self->o);
	EXPECT_SAME(before, after);
}

TEST_F(uapi, get_info)
{
	struct dirtytrack_info info;

	test_info(self->o.dev, &info);
	EXPECT_EQ(DIRTYTRACK_FEATURE_RING | DIRTYTRACK_FEATURE_LIMIT |
		  DIRTYTRACK_FEATURE_RELEASE, info.out_features);
	EXPECT_LE(DIRTYTRACK_RING_MIN_ENTRIES, info.out_max_ring_entries);
	EXPECT_LT(0, info.out_max_user_slots);
	EXPECT_GE(info.out_max_slots, info.out_max_user_slots);
	EXPECT_LT(NPAGES * PAGE_SIZE, info.out_max_memory);
	EXPECT_LE(NPAGES * PAGE_SIZE, info.out_max_slot_size);
	EXPECT_EQ(0, info.out_max_slot_size % PAGE_SIZE);
	EXPECT_LT(0, info.out_max_slots);
	EXPECT_LT(0, info.out_max_logs);
	EXPECT_EQ(DIRTYTRACK_PAGE_SHIFT, info.out_page_shift);
	EXPECT_TRUE(info.out_strategy == DIRTYTRACK_STRATEGY_WP ||
		    info.out_strategy == DIRTYTRACK_STRATEGY_ZAP);
}

TEST_F(uapi, slot_length)
{
	static const __u64 bad[] = {
		0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1, 2 * PAGE_SIZE - 1,
		(1ULL << 63) + 1, ~0ULL,
	};
	struct dirtytrack_slot_info slot;
	struct dirtytrack_info info;
	struct state before, after;
	struct stat st;
	int fd;

	test_info(self->o.dev, &info);
	before = look(&self->o);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		test_err_slot_create(EINVAL, self->o.dev, NULL, bad[i]);
	test_err_slot_create(EFBIG, self->o.dev, NULL,
			     info.out_max_slot_size + PAGE_SIZE);
	test_err_slot_create(EFBIG, self->o.dev, NULL, -PAGE_SIZE);
	after = look(&self->o);
	EXPECT_SAME(before, after);

	for (__u64 n = 1; n <= 4; n++) {
		fd = test_slot_create(self->o.dev, NULL, n * PAGE_SIZE, NULL);
		test_slot_info(fd, &slot);
		EXPECT_EQ(n * PAGE_SIZE, slot.out_length);
		ASSERT_EQ(0, fstat(fd, &st));
		EXPECT_EQ(n * PAGE_SIZE, (__u64)st.st_size);
		close(fd);
	}
}

TEST_F(uapi, slot_info)
{
	struct dirtytrack_slot_info slot;
	int fd, log;
	char *map;

	test_slot_info(self->o.slot, &slot);
	EXPECT_EQ(self->o.id, slot.out_id);
	EXPECT_EQ(getuid(), slot.out_uid);
	EXPECT_EQ(NPAGES * PAGE_SIZE, slot.out_length);
	EXPECT_TRUE(bytes_are(slot.out_name, 0, sizeof(slot.out_name)));
	EXPECT_EQ(NDIRTY + CLEAN_NPAGES, slot.out_resident);
	EXPECT_EQ(1, slot.out_logs);
	EXPECT_EQ(0, slot.out_reserved);
	EXPECT_LE(NDIRTY, slot.out_faults);
	EXPECT_LE(NDIRTY, slot.out_grants);

	fd = test_slot_create(self->o.dev, "a name", 3 * PAGE_SIZE, NULL);
	test_slot_info(fd, &slot);
	EXPECT_NE(self->o.id, slot.out_id);
	EXPECT_STREQ("a name", slot.out_name);
	EXPECT_TRUE(bytes_are(slot.out_name + 6, 0, sizeof(slot.out_name) - 6));
	EXPECT_EQ(0, slot.out_resident);
	EXPECT_EQ(0, slot.out_logs);
	EXPECT_EQ(0, slot.out_faults);
	EXPECT_EQ(0, slot.out_grants);
	EXPECT_EQ(0, slot.out_collected);
	EXPECT_EQ(0, slot.out_protects);

	map = test_map(fd, 0, 3);
	page_write(map, 1, 1);
	log = test_log_create(fd, 0);
	test_slot_info(fd, &slot);
	EXPECT_EQ(1, slot.out_resident);
	EXPECT_EQ(1, slot.out_logs);
	EXPECT_LE(1, slot.out_faults);
	EXPECT_EQ(1, slot.out_grants);
	/* A log that starts clean has visited what was writable. */
	EXPECT_EQ(1, slot.out_collected);
	EXPECT_LE(1, slot.out_protects);
	close(log);
	test_slot_info(fd, &slot);
	EXPECT_EQ(0, slot.out_logs);
	test_unmap(map, 3);
	close(fd);
}

/* fds are as documented: close-on-exec, and a slot's for reading and writing. */
TEST_F(uapi, new_fds)
{
	int fd = test_slot_open(self->o.dev, self->o.id);
	int flags;

	EXPECT_EQ(FD_CLOEXEC, fcntl(self->o.slot, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(self->o.log, F_GETFD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	flags = fcntl(self->o.slot, F_GETFL);
	EXPECT_EQ(O_RDWR, flags & O_ACCMODE);
	flags = fcntl(fd, F_GETFL);
	EXPECT_EQ(O_RDWR, flags & O_ACCMODE);
	close(fd);
}

/* A process without a free fd number gets an error and not an object. */
TEST_F(uapi, no_fd_left)
{
	const struct { unsigned long cmd; int fd; } calls[] = {
		{ DIRTYTRACK_SLOT_CREATE, self->o.dev },
		{ DIRTYTRACK_SLOT_OPEN, self->o.dev },
		{ DIRTYTRACK_LOG_CREATE, self->o.slot },
	};
	unsigned char arg[DT_MAX_ARG];
	struct rlimit limit, saved;
	struct state before, after;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &saved));
	before = look(&self->o);
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		limit = saved;
		limit.rlim_cur = dup(0);
		close(limit.rlim_cur);
		valid(&self->o, calls[i].cmd, arg);
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
		EXPECT_ERRNO(EMFILE, dt_ioctl(calls[i].fd, calls[i].cmd, arg));
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &saved));
		after = look(&self->o);
		EXPECT_SAME(before, after);
	}
}

TEST_F(uapi, log_create_ring_entries)
{
	struct dirtytrack_info info;

	test_info(self->o.dev, &info);
	for (int bit = 0; bit < 32; bit++) {
		const __u32 around[] = { (1U << bit) - 1, 1U << bit, (1U << bit) + 1 };

		for (size_t i = 0; i < ARRAY_SIZE(around); i++) {
			struct dirtytrack_log_create arg = {
				.size = sizeof(arg),
				.ring_entries = around[i],
			};

			if (!around[i] || (i == 1 &&
					   around[i] >= DIRTYTRACK_RING_MIN_ENTRIES &&
					   around[i] <= info.out_max_ring_entries)) {
				ASSERT_EQ(0, dt_ioctl(self->o.slot,
						      DIRTYTRACK_LOG_CREATE, &arg));
				close(arg.out_fd);
			} else if ((around[i] & (around[i] - 1)) ||
				   around[i] < DIRTYTRACK_RING_MIN_ENTRIES ||
				   around[i] > info.out_max_ring_entries) {
				EXPECT_REFUSED(EINVAL, &self->o,
					       dt_ioctl(self->o.slot,
							DIRTYTRACK_LOG_CREATE, &arg));
			}
		}
	}
}

TEST_F(uapi, limit_rate)
{
	struct dirtytrack_limit arg = { .size = sizeof(arg) };
	const __u64 good[] = { 1, DIRTYTRACK_LIMIT_MAX, 0 };
	const __u64 bad[] = { DIRTYTRACK_LIMIT_MAX + 1, 1ULL << 32, ~0ULL };
	struct dirtytrack_log_info info;
	struct dirtytrack_slot_info slot;

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		arg.rate = good[i];
		ASSERT_EQ(0, dt_ioctl(self->o.log, DIRTYTRACK_LOG_LIMIT, &arg));
		ASSERT_EQ(0, _test_log_info(self->o.log, &info));
		EXPECT_EQ(good[i], info.out_rate);
		ASSERT_EQ(0, _test_slot_info(self->o.slot, &slot));
		EXPECT_EQ(good[i], slot.out_rate);
		for (size_t j = 0; j < ARRAY_SIZE(bad); j++) {
			arg.rate = bad[j];
			EXPECT_REFUSED(EINVAL, &self->o,
				       dt_ioctl(self->o.log, DIRTYTRACK_LOG_LIMIT,
						&arg));
			ASSERT_EQ(0, _test_log_info(self->o.log, &info));
			EXPECT_EQ(good[i], info.out_rate);
		}
	}
}

/* Who may not write a slot may look at it, and not slow its writers down. */
TEST_F(uapi, log_create_needs_writer)
{
	struct dirtytrack_slot_info info;
	int fd = test_reopen(self->o.slot, O_RDONLY), log;

	ASSERT_LE(0, fd);
	test_slot_info(fd, &info);
	EXPECT_EQ(self->o.id, info.out_id);
	EXPECT_REFUSED(EBADF, &self->o, _test_log_create(fd, 0, &log));
	EXPECT_REFUSED(EBADF, &self->o,
		       _test_log_create(fd, DIRTYTRACK_LOG_ALL_SET, &log));
	close(fd);
}

struct range {
	int err;
	__u64 first, npages;
};

static const struct range bad_ranges[] = {
	{ EINVAL, 0, 0 },
	{ EINVAL, NPAGES - 1, 0 },
	{ EINVAL, NPAGES, 0 },
	{ EINVAL, 0, NPAGES + 1 },
	{ EINVAL, 1, NPAGES },
	{ EINVAL, NPAGES - 1, 2 },
	{ EINVAL, NPAGES, 1 },
	{ EINVAL, NPAGES + 1, 1 },
	{ EINVAL, 0, ~0ULL },
	{ EINVAL, 1, ~1ULL },
	{ EINVAL, ~1ULL, 1 },
	{ EINVAL, 1ULL << 52, 1 },
	{ EINVAL, 0, 1ULL << 32 },
	{ EINVAL, 1ULL << 32, 1 },
	{ EOVERFLOW, ~0ULL, 1 },
	{ EOVERFLOW, 1, ~0ULL },
	{ EOVERFLOW, NPAGES - 1, -(__u64)(NPAGES - 2) },
	{ EOVERFLOW, ~0ULL, ~0ULL },
	{ EOVERFLOW, 1ULL << 63, 1ULL << 63 },
};

TEST_F(uapi, harvest_range)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_ranges); i++) {
		const struct range *r = &bad_ranges[i];

		for (__u32 flags = 0; flags <= DIRTYTRACK_HARVEST_PEEK; flags++) {
			struct dirtytrack_harvest h;
			struct dirtytrack_harvest_extents e;

			EXPECT_REFUSED(r->err, &self->o,
				       _test_harvest(self->o.log, flags, r->first,
						     r->npages, self->o.bitmap,
						     0, &h));
			EXPECT_REFUSED(r->err, &self->o,
				       _test_extents(self->o.log, flags, r->first,
						     r->npages, self->o.extents,
						     NPAGES, &e));
		}
	}
	EXPECT_TRUE(bytes_are(self->o.bitmap, 0, sizeof(self->o.bitmap)));
	EXPECT_TRUE(bytes_are(self->o.extents, 0, sizeof(self->o.extents)));
}

static const unsigned long by_bitmap[] = {
	DIRTYTRACK_LOG_CLEAR, DIRTYTRACK_LOG_MERGE,
};

static const unsigned long by_ranges[] = {
	DIRTYTRACK_LOG_CLEAR_RANGES, DIRTYTRACK_LOG_MERGE_RANGES,
};

TEST_F(uapi, clear_and_merge_range)
{
	__u64 all[bitmap_words(NPAGES)];

	memset(all, 0xff, sizeof(all));
	for (size_t i = 0; i < ARRAY_SIZE(bad_ranges); i++) {
		const struct range *r = &bad_ranges[i];
		struct dirtytrack_range range = { r->first, r->npages };

		for (int c = 0; c < 2; c++) {
			struct dirtytrack_bitmap b;
			struct dirtytrack_ranges a;

			EXPECT_REFUSED(r->err, &self->o,
				       _test_bitmap(self->o.log, by_bitmap[c], r->first,
						    r->npages, all, 0, &b));
			EXPECT_REFUSED(r->err, &self->o,
				       _test_ranges(self->o.log, by_ranges[c], &range, 1,
						    &a));
		}
	}
}

TEST_F(uapi, clear_and_merge_addresses)
{
	struct dirtytrack_range ranges[3] = { { 0, NPAGES }, { 0, NPAGES } };
	__u64 all[bitmap_words(NPAGES) + 1];

	memset(all, 0xff, sizeof(all));
	for (int c = 0; c < 2; c++) {
		const unsigned long bitmap = by_bitmap[c], range = by_ranges[c];
		struct dirtytrack_bitmap b;
		struct dirtytrack_ranges r;

		for (int odd = 1; odd < 8; odd++) {
			EXPECT_REFUSED(EINVAL, &self->o,
				       _test_bitmap(self->o.log, bitmap, 0, NPAGES,
						    (char *)all + odd, 0, &b));
			EXPECT_REFUSED(EINVAL, &self->o,
				       _test_ranges(self->o.log, range,
						    (char *)ranges + odd, 1, &r));
		}
		EXPECT_REFUSED(EINVAL, &self->o,
			       _test_ranges(self->o.log, range, ranges, 0, &r));
		EXPECT_REFUSED(EOVERFLOW, &self->o,
			       _test_bitmap(self->o.log, bitmap, 0, 2, all, ~0ULL, &b));
		EXPECT_REFUSED(EFAULT, &self->o,
			       _test_bitmap(self->o.log, bitmap, 0, 64, NULL, 0, &b));
		EXPECT_REFUSED(EFAULT, &self->o,
			       _test_bitmap(self->o.log, bitmap, 0, 64,
					    (void *)-4096UL, 0, &b));
		EXPECT_REFUSED(EFAULT, &self->o,
			       _test_bitmap(self->o.log, bitmap, 0, 64, all,
					    1ULL << 60, &b));
		EXPECT_REFUSED(EFAULT, &self->o,
			       _test_ranges(self->o.log, range, NULL, 1, &r));
		EXPECT_REFUSED(EFAULT, &self->o,
			       _test_ranges(self->o.log, range, (void *)-4096UL, 1, &r));
	}
}

TEST_F(uapi, harvest_addresses)
{
	struct dirtytrack_harvest_extents e;
	struct dirtytrack_harvest h;
	char *words = (char *)self->o.bitmap;
	char *extents = (char *)self->o.extents;

	for (int odd = 1; odd < 8; odd++) {
		EXPECT_REFUSED(EINVAL, &self->o,
			       _test_harvest(self->o.log, 0, 0, 64, words + odd,
					     0, &h));
		EXPECT_REFUSED(EINVAL, &self->o,
			       _test_extents(self->o.log, 0, 0, 64, extents + odd,
					     8, &e));
	}
	EXPECT_REFUSED(EINVAL, &self->o,
		       _test_extents(self->o.log, 0, 0, 64, extents, 0, &e));
	/* The last page asked for would stand at bit 2^64. */
	EXPECT_REFUSED(EOVERFLOW, &self->o,
		       _test_harvest(self->o.log, 0, 0, 2, words, ~0ULL, &h));
	EXPECT_REFUSED(EOVERFLOW, &self->o,
		       _test_harvest(self->o.log, 0, 0, NPAGES, words,
				     -(__u64)(NPAGES - 1), &h));
	/* Words at addresses that no program has, or that wrap to low ones. */
	EXPECT_REFUSED(EFAULT, &self->o,
		       _test_harvest(self->o.log, 0, 0, 64, NULL, 0, &h));
	EXPECT_REFUSED(EFAULT, &self->o,
		       _test_harvest(self->o.log, 0, 0, 64, (void *)-4096UL, 0, &h));
	EXPECT_REFUSED(EFAULT, &self->o,
		       _test_harvest(self->o.log, 0, 0, 64, words, 1ULL << 60, &h));
	EXPECT_REFUSED(EFAULT, &self->o,
		       _test_extents(self->o.log, 0, 0, 64, NULL, 8, &e));
	EXPECT_REFUSED(EFAULT, &self->o,
		       _test_extents(self->o.log, 0, 0, 64, (void *)-4096UL, 8, &e));
	EXPECT_TRUE(bytes_are(words, 0, sizeof(self->o.bitmap)));
	EXPECT_TRUE(bytes_are(extents, 0, sizeof(self->o.extents)));
}

/* bitmap + bit / 8 wraps around the address space and arrives at our words. */
TEST_F(uapi, harvest_address_wraps)
{
	struct dirtytrack_harvest h;
	__u64 words = (uintptr_t)self->o.bitmap;
	__u64 back = 1ULL << 58;
	struct state before = look(&self->o), after;
	int ret, err;

	errno = 0;
	ret = _test_harvest(self->o.log, 0, 0, 64,
			    (void *)(uintptr_t)(words - back), back * 8, &h);
	err = errno;
	/* An address below 2^58 less 2^58 is no user address. */
	EXPECT_EQ(-1, ret);
	EXPECT_TRUE(err == EFAULT || err == EOVERFLOW) {
		TH_LOG("%s", strerror(err));
	}
	after = look(&self->o);
	EXPECT_SAME(before, after);
	EXPECT_TRUE(bytes_are(self->o.bitmap, 0, sizeof(self->o.bitmap)));
}

/* nr is the length of the array, not a size to allocate. */
TEST_F(uapi, extents_huge_nr)
{
	struct dirtytrack_harvest_extents e;

	test_extents(self->o.log, 0, 0, NPAGES, self->o.extents, ~0U, &e);
	EXPECT_EQ(NDIRTY, e.out_dirty);
	EXPECT_EQ(NPAGES, e.out_next);
}

TEST_HARNESS_MAIN
