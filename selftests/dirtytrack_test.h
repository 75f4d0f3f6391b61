/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of dirtytrack share
 *
 * Three forms of each call: _test_x() returns what the system call did (0, or -1
 * and errno), test_x() asserts that it worked, test_err_x() asserts that it
 * failed with a given errno.
 *
 * Every ioctl goes through dt_ioctl(), which holds the kernel to what the ABI
 * says of all of them: inputs are not changed, the result is 0 or -1, and after
 * success each output has been written.
 */
#ifndef DIRTYTRACK_TEST_H
#define DIRTYTRACK_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <linux/dirtytrack.h>

#include "kselftest_harness.h"
#include "filter.h"

#define PAGE_SIZE	(1UL << DIRTYTRACK_PAGE_SHIFT)

/* What outputs hold before a call: neither zero nor a plausible result. */
#define DT_POISON	0xa5

/* A test must not go on when the kernel breaks a rule of all ioctls. */
#define dt_broken(fmt, ...) do {					\
	fprintf(stderr, "# %s:%d: " fmt "\n", __FILE__, __LINE__,	\
		##__VA_ARGS__);						\
	abort();							\
} while (0)

/* ---- ioctls: one row each, with the place of every output ---- */

struct dt_field {
	const char *name;
	size_t offset;
	size_t size;
};

struct dt_call {
	unsigned long cmd;
	const char *name;
	size_t size;
	struct dt_field out[24];
};

#define DT_OUT(type, field) \
	{ #field, offsetof(struct type, field), sizeof(((struct type *)0)->field) }

static const struct dt_call dt_calls[] = {
	{
		DIRTYTRACK_GET_INFO, "GET_INFO", sizeof(struct dirtytrack_info), {
			DT_OUT(dirtytrack_info, out_features),
			DT_OUT(dirtytrack_info, out_max_slot_size),
			DT_OUT(dirtytrack_info, out_max_slots),
			DT_OUT(dirtytrack_info, out_max_logs),
			DT_OUT(dirtytrack_info, out_page_shift),
			DT_OUT(dirtytrack_info, out_strategy),
			DT_OUT(dirtytrack_info, out_max_ring_entries),
			DT_OUT(dirtytrack_info, out_max_user_slots),
			DT_OUT(dirtytrack_info, out_max_memory),
		}
	}, {
		DIRTYTRACK_SLOT_CREATE, "SLOT_CREATE",
		sizeof(struct dirtytrack_slot_create), {
			DT_OUT(dirtytrack_slot_create, out_id),
			DT_OUT(dirtytrack_slot_create, out_fd),
		}
	}, {
		DIRTYTRACK_SLOT_NEXT, "SLOT_NEXT",
		sizeof(struct dirtytrack_slot_next), {
			DT_OUT(dirtytrack_slot_next, out_id),
		}
	}, {
		DIRTYTRACK_SLOT_OPEN, "SLOT_OPEN",
		sizeof(struct dirtytrack_slot_open), {
			DT_OUT(dirtytrack_slot_open, out_fd),
		}
	}, {
		DIRTYTRACK_SLOT_INFO, "SLOT_INFO",
		sizeof(struct dirtytrack_slot_info), {
			DT_OUT(dirtytrack_slot_info, out_id),
			DT_OUT(dirtytrack_slot_info, out_uid),
			DT_OUT(dirtytrack_slot_info, out_length),
			DT_OUT(dirtytrack_slot_info, out_name),
			DT_OUT(dirtytrack_slot_info, out_resident),
			DT_OUT(dirtytrack_slot_info, out_logs),
			DT_OUT(dirtytrack_slot_info, out_reserved),
			DT_OUT(dirtytrack_slot_info, out_faults),
			DT_OUT(dirtytrack_slot_info, out_grants),
			DT_OUT(dirtytrack_slot_info, out_collected),
			DT_OUT(dirtytrack_slot_info, out_protects),
			DT_OUT(dirtytrack_slot_info, out_rate),
			DT_OUT(dirtytrack_slot_info, out_throttles),
			DT_OUT(dirtytrack_slot_info, out_throttled_ns),
		}
	}, {
		DIRTYTRACK_LOG_CREATE, "LOG_CREATE",
		sizeof(struct dirtytrack_log_create), {
			DT_OUT(dirtytrack_log_create, out_fd),
		}
	}, {
		DIRTYTRACK_LOG_INFO, "LOG_INFO",
		sizeof(struct dirtytrack_log_info), {
			DT_OUT(dirtytrack_log_info, out_slot_id),
			DT_OUT(dirtytrack_log_info, out_reserved),
			DT_OUT(dirtytrack_log_info, out_npages),
			DT_OUT(dirtytrack_log_info, out_bitmap_offset),
			DT_OUT(dirtytrack_log_info, out_bitmap_size),
			DT_OUT(dirtytrack_log_info, out_summary_offset),
			DT_OUT(dirtytrack_log_info, out_summary_size),
			DT_OUT(dirtytrack_log_info, out_dirty),
			DT_OUT(dirtytrack_log_info, out_harvests),
			DT_OUT(dirtytrack_log_info, out_reported),
			DT_OUT(dirtytrack_log_info, out_ring_offset),
			DT_OUT(dirtytrack_log_info, out_ring_size),
			DT_OUT(dirtytrack_log_info, out_control_offset),
			DT_OUT(dirtytrack_log_info, out_control_size),
			DT_OUT(dirtytrack_log_info, out_overflows),
			DT_OUT(dirtytrack_log_info, out_rate),
		}
	}, {
		DIRTYTRACK_LOG_HARVEST, "LOG_HARVEST",
		sizeof(struct dirtytrack_harvest), {
			DT_OUT(dirtytrack_harvest, out_next),
			DT_OUT(dirtytrack_harvest, out_dirty),
			DT_OUT(dirtytrack_harvest, out_new),
		}
	}, {
		DIRTYTRACK_LOG_HARVEST_EXTENTS, "LOG_HARVEST_EXTENTS",
		sizeof(struct dirtytrack_harvest_extents), {
			DT_OUT(dirtytrack_harvest_extents, out_nr),
			DT_OUT(dirtytrack_harvest_extents, out_next),
			DT_OUT(dirtytrack_harvest_extents, out_dirty),
		}
	}, {
		DIRTYTRACK_LOG_CLEAR, "LOG_CLEAR",
		sizeof(struct dirtytrack_bitmap), {
			DT_OUT(dirtytrack_bitmap, out_next),
			DT_OUT(dirtytrack_bitmap, out_pages),
		}
	}, {
		DIRTYTRACK_LOG_CLEAR_RANGES, "LOG_CLEAR_RANGES",
		sizeof(struct dirtytrack_ranges), {
			DT_OUT(dirtytrack_ranges, out_nr),
			DT_OUT(dirtytrack_ranges, out_next),
			DT_OUT(dirtytrack_ranges, out_pages),
		}
	}, {
		DIRTYTRACK_LOG_MERGE, "LOG_MERGE",
		sizeof(struct dirtytrack_bitmap), {
			DT_OUT(dirtytrack_bitmap, out_next),
			DT_OUT(dirtytrack_bitmap, out_pages),
		}
	}, {
		DIRTYTRACK_LOG_MERGE_RANGES, "LOG_MERGE_RANGES",
		sizeof(struct dirtytrack_ranges), {
			DT_OUT(dirtytrack_ranges, out_nr),
			DT_OUT(dirtytrack_ranges, out_next),
			DT_OUT(dirtytrack_ranges, out_pages),
		}
	}, {
		DIRTYTRACK_LOG_LIMIT, "LOG_LIMIT", sizeof(struct dirtytrack_limit), { }
	}, {
		DIRTYTRACK_SLOT_RELEASE, "SLOT_RELEASE",
		sizeof(struct dirtytrack_release), {
			DT_OUT(dirtytrack_release, out_nr),
			DT_OUT(dirtytrack_release, out_next),
			DT_OUT(dirtytrack_release, out_released),
			DT_OUT(dirtytrack_release, out_skipped),
			DT_OUT(dirtytrack_release, out_unmaps),
		}
	}, {
		DIRTYTRACK_LOG_RELEASE_CLEAN, "LOG_RELEASE_CLEAN",
		sizeof(struct dirtytrack_release), {
			DT_OUT(dirtytrack_release, out_nr),
			DT_OUT(dirtytrack_release, out_next),
			DT_OUT(dirtytrack_release, out_released),
			DT_OUT(dirtytrack_release, out_skipped),
			DT_OUT(dirtytrack_release, out_unmaps),
		}
	}, {
		DIRTYTRACK_SLOT_POPULATE, "SLOT_POPULATE",
		sizeof(struct dirtytrack_populate), {
			DT_OUT(dirtytrack_populate, out_nr),
			DT_OUT(dirtytrack_populate, out_next),
			DT_OUT(dirtytrack_populate, out_pages),
		}
	},
};

#define DT_NR_CALLS ARRAY_SIZE(dt_calls)
#define DT_MAX_ARG 256

static inline const struct dt_call *dt_call(unsigned long cmd)
{
	for (size_t i = 0; i < DT_NR_CALLS; i++)
		if (dt_calls[i].cmd == cmd)
			return &dt_calls[i];
	dt_broken("test bug: no row in dt_calls for ioctl %#lx", cmd);
}

/* The smallest size of its struct that an ioctl takes: that of the first version. */
static inline size_t dt_call_min(unsigned long cmd)
{
	switch (cmd) {
	case DIRTYTRACK_GET_INFO:
		return 40;
	case DIRTYTRACK_SLOT_INFO:
		return 104;
	case DIRTYTRACK_LOG_INFO:
		return 80;
	default:
		return dt_call(cmd)->size;
	}
}

static inline bool dt_is_poison(const void *p, size_t size)
{
	const unsigned char *c = p;

	for (size_t i = 0; i < size; i++)
		if (c[i] != DT_POISON)
			return false;
	return true;
}

static inline void dt_poison(const struct dt_call *call, void *arg)
{
	for (const struct dt_field *f = call->out; f->name; f++)
		memset((char *)arg + f->offset, DT_POISON, f->size);
}

/*
 * @arg has at least call->size bytes, of which the kernel is told what the
 * struct's own size field says.
 */
static inline int dt_ioctl(int fd, unsigned long cmd, void *arg)
{
	const struct dt_call *call = dt_call(cmd);
	unsigned char before[DT_MAX_ARG], after[DT_MAX_ARG];
	int ret, err;

	dt_poison(call, arg);
	memcpy(before, arg, call->size);
	ret = ioctl(fd, cmd, arg);
	err = errno;
	if (ret != 0 && ret != -1)
		dt_broken("%s returned %d", call->name, ret);

	memcpy(after, arg, call->size);
	dt_poison(call, after);
	for (size_t i = 0; i < call->size; i++)
		if (before[i] != after[i])
			dt_broken("%s changed byte %zu of its argument, an input",
				  call->name, i);

	for (const struct dt_field *f = call->out; !ret && f->name; f++)
		if (dt_is_poison((char *)arg + f->offset, f->size))
			dt_broken("%s succeeded and left %s unwritten",
				  call->name, f->name);
	errno = err;
	return ret;
}

#define EXPECT_ERRNO(expected_errno, cmd) do {				\
	int __ret, __err;						\
									\
	errno = 0;							\
	__ret = (cmd);							\
	__err = errno;							\
	EXPECT_EQ(-1, __ret) {						\
		TH_LOG("%s", #cmd);					\
	}								\
	if (__ret == -1) {						\
		EXPECT_EQ(expected_errno, __err) {			\
			TH_LOG("%s: %s", #cmd, strerror(__err));	\
		}							\
	}								\
} while (0)

/* ---- device ---- */

static inline int _test_device(void)
{
	return open(DIRTYTRACK_DEVICE, O_RDWR | O_CLOEXEC);
}

#define test_device() ({						\
	int __fd = _test_device();					\
									\
	ASSERT_LE(0, __fd) {						\
		TH_LOG(DIRTYTRACK_DEVICE ": %s (is the module loaded?)", \
		       strerror(errno));				\
	}								\
	__fd;								\
})

static inline int _test_info(int dev, struct dirtytrack_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return dt_ioctl(dev, DIRTYTRACK_GET_INFO, info);
}

#define test_info(dev, info) \
	ASSERT_EQ(0, _test_info(dev, info))

/* ---- slots ---- */

/* @name may be NULL for none, and need not be terminated if it is too long. */
static inline int _test_slot_create(int dev, const char *name, __u64 length,
				    __u32 *id, int *fd)
{
	struct dirtytrack_slot_create arg = {
		.size = sizeof(arg),
		.length = length,
	};
	int ret;

	if (name)
		memcpy(arg.name, name, strnlen(name, sizeof(arg.name)));
	ret = dt_ioctl(dev, DIRTYTRACK_SLOT_CREATE, &arg);
	if (id)
		*id = ret ? 0 : arg.out_id;
	*fd = ret ? -1 : arg.out_fd;
	return ret;
}

#define test_slot_create(dev, name, length, id) ({			\
	int __slot;							\
									\
	ASSERT_EQ(0, _test_slot_create(dev, name, length, id, &__slot)) { \
		TH_LOG("SLOT_CREATE: %s", strerror(errno));		\
	}								\
	__slot;								\
})

#define test_err_slot_create(err, dev, name, length) do {		\
	int __slot;							\
									\
	EXPECT_ERRNO(err, _test_slot_create(dev, name, length, NULL, &__slot)); \
} while (0)

/* An unnamed slot, with a device fd of its own for the moment. */
static inline int _test_new_slot(__u64 npages)
{
	int dev = _test_device(), slot = -1, err;

	if (dev < 0)
		return -1;
	_test_slot_create(dev, NULL, npages << DIRTYTRACK_PAGE_SHIFT, NULL, &slot);
	err = errno;
	close(dev);
	errno = err;
	return slot;
}

#define test_new_slot(npages) ({					\
	int __slot = _test_new_slot(npages);				\
									\
	ASSERT_LE(0, __slot) {						\
		TH_LOG("cannot make a slot on " DIRTYTRACK_DEVICE ": %s", \
		       strerror(errno));				\
	}								\
	__slot;								\
})

static inline int _test_slot_next(int dev, __u32 id, __u32 *next)
{
	struct dirtytrack_slot_next arg = { .size = sizeof(arg), .id = id };
	int ret = dt_ioctl(dev, DIRTYTRACK_SLOT_NEXT, &arg);

	*next = ret ? 0 : arg.out_id;
	return ret;
}

/* Is the slot in the caller's list? */
static inline bool test_slot_listed(int dev, __u32 id)
{
	__u32 at = 0;

	while (!_test_slot_next(dev, at, &at))
		if (at == id)
			return true;
	return false;
}

static inline unsigned int test_slot_count(int dev)
{
	unsigned int n = 0;
	__u32 at = 0;

	while (!_test_slot_next(dev, at, &at))
		n++;
	return n;
}

static inline int _test_slot_open(int dev, __u32 id, int *fd)
{
	struct dirtytrack_slot_open arg = { .size = sizeof(arg), .id = id };
	int ret = dt_ioctl(dev, DIRTYTRACK_SLOT_OPEN, &arg);

	*fd = ret ? -1 : arg.out_fd;
	return ret;
}

static inline int _test_slot_open_name(int dev, const char *name, int *fd)
{
	struct dirtytrack_slot_open arg = {
		.size = sizeof(arg),
		.flags = DIRTYTRACK_OPEN_BY_NAME,
	};
	int ret;

	memcpy(arg.name, name, strnlen(name, sizeof(arg.name)));
	ret = dt_ioctl(dev, DIRTYTRACK_SLOT_OPEN, &arg);
	*fd = ret ? -1 : arg.out_fd;
	return ret;
}

#define test_slot_open(dev, id) ({					\
	int __slot;							\
									\
	ASSERT_EQ(0, _test_slot_open(dev, id, &__slot));		\
	__slot;								\
})

#define test_slot_open_name(dev, name) ({				\
	int __slot;							\
									\
	ASSERT_EQ(0, _test_slot_open_name(dev, name, &__slot));		\
	__slot;								\
})

#define test_err_slot_open(err, dev, id) do {				\
	int __slot;							\
									\
	EXPECT_ERRNO(err, _test_slot_open(dev, id, &__slot));		\
} while (0)

#define test_err_slot_open_name(err, dev, name) do {			\
	int __slot;							\
									\
	EXPECT_ERRNO(err, _test_slot_open_name(dev, name, &__slot));	\
} while (0)

static inline int _test_slot_info(int slot, struct dirtytrack_slot_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return dt_ioctl(slot, DIRTYTRACK_SLOT_INFO, info);
}

#define test_slot_info(slot, info) \
	ASSERT_EQ(0, _test_slot_info(slot, info))

#define test_resident(slot) ({						\
	struct dirtytrack_slot_info __info;				\
									\
	test_slot_info(slot, &__info);					\
	__info.out_resident;						\
})

/* ---- logs ---- */

static inline int _test_log_create(int slot, __u32 flags, int *fd)
{
	struct dirtytrack_log_create arg = {
		.size = sizeof(arg),
		.flags = flags,
	};
	int ret = dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &arg);

	*fd = ret ? -1 : arg.out_fd;
	return ret;
}

#define test_log_create(slot, flags) ({					\
	int __log;							\
									\
	ASSERT_EQ(0, _test_log_create(slot, flags, &__log)) {		\
		TH_LOG("LOG_CREATE: %s", strerror(errno));		\
	}								\
	__log;								\
})

#define test_err_log_create(err, slot, flags) do {			\
	int __log;							\
									\
	EXPECT_ERRNO(err, _test_log_create(slot, flags, &__log));	\
} while (0)

static inline int _test_log_info(int log, struct dirtytrack_log_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return dt_ioctl(log, DIRTYTRACK_LOG_INFO, info);
}

#define test_log_info(log, info) \
	ASSERT_EQ(0, _test_log_info(log, info))

/* ---- harvest into a bitmap ---- */

/*
 * One call.  A success must have got somewhere and stayed in the range; a
 * program that calls again from out_next would spin or miss pages otherwise.
 */
static inline int _test_harvest(int log, __u32 flags, __u64 first, __u64 npages,
				void *bitmap, __u64 bit,
				struct dirtytrack_harvest *arg)
{
	int ret;

	*arg = (struct dirtytrack_harvest){
		.size = sizeof(*arg),
		.flags = flags,
		.first = first,
		.npages = npages,
		.bitmap = (uintptr_t)bitmap,
		.bit = bit,
	};
	ret = dt_ioctl(log, DIRTYTRACK_LOG_HARVEST, arg);
	if (ret)
		return ret;
	if (arg->out_next <= first || arg->out_next > first + npages)
		dt_broken("HARVEST of [%llu, +%llu) succeeded with out_next %llu",
			  first, npages, arg->out_next);
	if (arg->out_dirty > arg->out_next - first ||
	    arg->out_new > arg->out_dirty)
		dt_broken("HARVEST of [%llu, %llu): out_dirty %llu, out_new %llu",
			  first, arg->out_next, arg->out_dirty, arg->out_new);
	return 0;
}

#define test_harvest(log, flags, first, npages, bitmap, bit, arg)	\
	ASSERT_EQ(0, _test_harvest(log, flags, first, npages, bitmap, bit, arg)) { \
		TH_LOG("HARVEST: %s", strerror(errno));			\
	}

#define test_err_harvest(err, log, flags, first, npages, bitmap, bit) do { \
	struct dirtytrack_harvest __arg;				\
									\
	EXPECT_ERRNO(err, _test_harvest(log, flags, first, npages, bitmap, \
					bit, &__arg));			\
} while (0)

/* The whole range, however many calls it takes.  @dirty may be NULL. */
static inline int _test_harvest_all(int log, __u32 flags, __u64 first,
				    __u64 npages, void *bitmap, __u64 bit,
				    __u64 *dirty)
{
	__u64 end = first + npages, at = first;
	struct dirtytrack_harvest arg;

	if (dirty)
		*dirty = 0;
	while (at < end) {
		if (_test_harvest(log, flags, at, end - at, bitmap,
				  bit + (at - first), &arg))
			return -1;
		if (dirty)
			*dirty += arg.out_dirty;
		at = arg.out_next;
	}
	return 0;
}

/* Asserts, and yields the number of dirty pages. */
#define test_harvest_all(log, flags, first, npages, bitmap, bit) ({	\
	__u64 __dirty;							\
									\
	ASSERT_EQ(0, _test_harvest_all(log, flags, first, npages, bitmap, \
				       bit, &__dirty)) {		\
		TH_LOG("HARVEST: %s", strerror(errno));			\
	}								\
	__dirty;							\
})

/* ---- harvest as extents ---- */

static inline int _test_extents(int log, __u32 flags, __u64 first, __u64 npages,
				void *array, __u32 nr,
				struct dirtytrack_harvest_extents *arg)
{
	const struct dirtytrack_extent *extents = array;
	__u64 at = first, dirty = 0;
	int ret;

	*arg = (struct dirtytrack_harvest_extents){
		.size = sizeof(*arg),
		.flags = flags,
		.first = first,
		.npages = npages,
		.extents = (uintptr_t)extents,
		.nr = nr,
	};
	ret = dt_ioctl(log, DIRTYTRACK_LOG_HARVEST_EXTENTS, arg);
	if (ret)
		return ret;
	if (arg->out_next <= first || arg->out_next > first + npages)
		dt_broken("HARVEST_EXTENTS of [%llu, +%llu): out_next %llu",
			  first, npages, arg->out_next);
	if (arg->out_nr > nr)
		dt_broken("HARVEST_EXTENTS wrote %u entries of %u",
			  arg->out_nr, nr);
	/* Ascending, apart, inside [first, out_next), merged. */
	for (__u32 i = 0; i < arg->out_nr; i++) {
		const struct dirtytrack_extent *e = &extents[i];

		if (!e->npages || e->first < at ||
		    e->first + e->npages > arg->out_next ||
		    (e->state != DIRTYTRACK_STATE_DATA &&
		     e->state != DIRTYTRACK_STATE_HOLE))
			dt_broken("extent %u of [%llu, %llu): {%llu, %u, %u}, after %llu",
				  i, first, arg->out_next, e->first, e->npages,
				  e->state, at);
		if (i && e->first == at && e->state == extents[i - 1].state)
			dt_broken("extents %u and %u at page %llu should be one",
				  i - 1, i, at);
		at = e->first + e->npages;
		dirty += e->npages;
	}
	if (dirty != arg->out_dirty)
		dt_broken("out_dirty %llu, but the extents have %llu pages",
			  arg->out_dirty, dirty);
	return 0;
}

#define test_extents(log, flags, first, npages, extents, nr, arg)	\
	ASSERT_EQ(0, _test_extents(log, flags, first, npages, extents, nr, arg)) { \
		TH_LOG("HARVEST_EXTENTS: %s", strerror(errno));		\
	}

#define test_err_extents(err, log, flags, first, npages, extents, nr) do { \
	struct dirtytrack_harvest_extents __arg;			\
									\
	EXPECT_ERRNO(err, _test_extents(log, flags, first, npages, extents, \
					nr, &__arg));			\
} while (0)

/*
 * The whole range, @nr extents a call.  @data and @holes are bitmaps (bit n for
 * page first + n) of what was reported in either state; both may be NULL.
 */
static inline int _test_extents_all(int log, __u32 flags, __u64 first,
				    __u64 npages, __u32 nr, __u64 *data,
				    __u64 *holes, __u64 *dirty)
{
	struct dirtytrack_extent *extents = calloc(nr, sizeof(*extents));
	__u64 end = first + npages, at = first, sum = 0;
	struct dirtytrack_harvest_extents arg;
	int ret = 0, err;

	while (at < end) {
		ret = _test_extents(log, flags, at, end - at, extents, nr, &arg);
		if (ret)
			break;
		for (__u32 i = 0; i < arg.out_nr; i++) {
			__u64 *map = extents[i].state == DIRTYTRACK_STATE_DATA ?
				     data : holes;
			__u64 n = extents[i].first - first;

			for (__u32 k = 0; map && k < extents[i].npages; k++, n++)
				map[n / 64] |= 1ULL << n % 64;
		}
		sum += arg.out_dirty;
		at = arg.out_next;
	}
	err = errno;
	free(extents);
	if (dirty)
		*dirty = sum;
	errno = err;
	return ret;
}

#define test_extents_all(log, flags, first, npages, nr, data, holes) ({	\
	__u64 __dirty;							\
									\
	ASSERT_EQ(0, _test_extents_all(log, flags, first, npages, nr, data, \
				       holes, &__dirty)) {		\
		TH_LOG("HARVEST_EXTENTS: %s", strerror(errno));		\
	}								\
	__dirty;							\
})

/* ---- clear and merge, by bitmap and by ranges ---- */

/* @cmd is DIRTYTRACK_LOG_CLEAR or DIRTYTRACK_LOG_MERGE; one call. */
static inline int _test_bitmap(int log, unsigned long cmd, __u64 first, __u64 npages,
			       const void *bitmap, __u64 bit,
			       struct dirtytrack_bitmap *arg)
{
	int ret;

	*arg = (struct dirtytrack_bitmap){
		.size = sizeof(*arg),
		.first = first,
		.npages = npages,
		.bitmap = (uintptr_t)bitmap,
		.bit = bit,
	};
	ret = dt_ioctl(log, cmd, arg);
	if (ret)
		return ret;
	if (arg->out_next <= first || arg->out_next > first + npages ||
	    arg->out_pages > arg->out_next - first)
		dt_broken("%s of [%llu, +%llu): out_next %llu, out_pages %llu",
			  dt_call(cmd)->name, first, npages, arg->out_next,
			  arg->out_pages);
	return 0;
}

/* Where a call that succeeded stopped: behind something, and in the range it says. */
static inline void ranges_stopped(unsigned long cmd, const struct dirtytrack_range *r,
				  __u32 nr, __u32 out_nr, __u64 out_next)
{
	if (out_nr > nr || (out_nr == nr && out_next) ||
	    (!out_nr && out_next <= r[0].first) ||
	    (out_nr < nr && out_next &&
	     (out_next <= r[out_nr].first ||
	      out_next >= r[out_nr].first + r[out_nr].npages)))
		dt_broken("%s of %u ranges: out_nr %u, out_next %llu",
			  dt_call(cmd)->name, nr, out_nr, out_next);
}

/* The ranges that are left are those to call again with. */
static inline void ranges_go_on(struct dirtytrack_range **ranges, __u32 *nr,
				__u32 out_nr, __u64 out_next)
{
	*ranges += out_nr;
	*nr -= out_nr;
	if (*nr && out_next) {
		(*ranges)->npages -= out_next - (*ranges)->first;
		(*ranges)->first = out_next;
	}
}

/* @cmd is DIRTYTRACK_LOG_CLEAR_RANGES or DIRTYTRACK_LOG_MERGE_RANGES; one call. */
static inline int _test_ranges(int log, unsigned long cmd, const void *ranges,
			       __u32 nr, struct dirtytrack_ranges *arg)
{
	int ret;

	*arg = (struct dirtytrack_ranges){
		.size = sizeof(*arg),
		.ranges = (uintptr_t)ranges,
		.nr = nr,
	};
	ret = dt_ioctl(log, cmd, arg);
	if (ret)
		return ret;
	ranges_stopped(cmd, ranges, nr, arg->out_nr, arg->out_next);
	return 0;
}

/* The whole range, however many calls it takes.  @pages is the sum of out_pages. */
static inline int _test_bitmap_all(int log, unsigned long cmd, __u64 first,
				   __u64 npages, const void *bitmap, __u64 bit,
				   __u64 *pages)
{
	__u64 end = first + npages, at = first;
	struct dirtytrack_bitmap arg;

	*pages = 0;
	while (at < end) {
		if (_test_bitmap(log, cmd, at, end - at, bitmap, bit + (at - first),
				 &arg))
			return -1;
		*pages += arg.out_pages;
		at = arg.out_next;
	}
	return 0;
}

/* All ranges, however many calls it takes; cuts those that a call stopped in. */
static inline int _test_ranges_all(int log, unsigned long cmd,
				   struct dirtytrack_range *ranges, __u32 nr,
				   __u64 *pages)
{
	struct dirtytrack_ranges arg;

	*pages = 0;
	while (nr) {
		if (_test_ranges(log, cmd, ranges, nr, &arg))
			return -1;
		*pages += arg.out_pages;
		ranges_go_on(&ranges, &nr, arg.out_nr, arg.out_next);
	}
	return 0;
}

/* ---- release and populate ---- */

/*
 * @cmd is DIRTYTRACK_SLOT_RELEASE, of a slot, or DIRTYTRACK_LOG_RELEASE_CLEAN, of a log;
 * one call.
 */
static inline int _test_release(int fd, unsigned long cmd, const void *ranges, __u32 nr,
				struct dirtytrack_release *arg)
{
	int ret;

	*arg = (struct dirtytrack_release){
		.size = sizeof(*arg),
		.ranges = (uintptr_t)ranges,
		.nr = nr,
	};
	ret = dt_ioctl(fd, cmd, arg);
	if (ret)
		return ret;
	ranges_stopped(cmd, ranges, nr, arg->out_nr, arg->out_next);
	if (arg->out_unmaps > arg->out_released + arg->out_skipped)
		dt_broken("%s: out_unmaps %llu for %llu pages", dt_call(cmd)->name,
			  arg->out_unmaps, arg->out_released + arg->out_skipped);
	return 0;
}

static inline int _test_populate(int slot, const void *ranges, __u32 nr, __s32 node,
				 struct dirtytrack_populate *arg)
{
	int ret;

	*arg = (struct dirtytrack_populate){
		.size = sizeof(*arg),
		.ranges = (uintptr_t)ranges,
		.nr = nr,
		.node = node,
	};
	ret = dt_ioctl(slot, DIRTYTRACK_SLOT_POPULATE, arg);
	if (!ret)
		ranges_stopped(DIRTYTRACK_SLOT_POPULATE, ranges, nr, arg->out_nr,
			       arg->out_next);
	return ret;
}

/* What calls did in sum: released, or populated. */
struct done {
	__u64 pages, skipped, unmaps, calls;
};

/*
 * All ranges, with one of the three calls, however many it takes; cuts those that a call
 * stopped in.  Adds to @done.
 */
static inline int _test_release_all(int fd, unsigned long cmd,
				    struct dirtytrack_range *ranges, __u32 nr,
				    struct done *done)
{
	struct dirtytrack_populate p;
	struct dirtytrack_release r;

	while (nr) {
		done->calls++;
		if (cmd == DIRTYTRACK_SLOT_POPULATE) {
			if (_test_populate(fd, ranges, nr, DIRTYTRACK_NODE_ANY, &p))
				return -1;
			done->pages += p.out_pages;
			ranges_go_on(&ranges, &nr, p.out_nr, p.out_next);
		} else {
			if (_test_release(fd, cmd, ranges, nr, &r))
				return -1;
			done->pages += r.out_released;
			done->skipped += r.out_skipped;
			done->unmaps += r.out_unmaps;
			ranges_go_on(&ranges, &nr, r.out_nr, r.out_next);
		}
	}
	return 0;
}

#define test_release_range(fd, cmd, first, npages) ({			\
	struct dirtytrack_range __range = { first, npages };		\
	struct done __done = { };					\
									\
	ASSERT_EQ(0, _test_release_all(fd, cmd, &__range, 1, &__done)) { \
		TH_LOG("%s: %s", dt_call(cmd)->name, strerror(errno));	\
	}								\
	__done;								\
})

/* ---- bits ---- */

static inline size_t bitmap_words(__u64 nbits)
{
	return (nbits + 63) / 64;
}

/* Never fails: a test without memory is over. */
static inline __u64 *bitmap_alloc(__u64 nbits)
{
	__u64 *map = calloc(bitmap_words(nbits) ?: 1, sizeof(*map));

	if (!map)
		dt_broken("no memory for a bitmap of %llu bits", nbits);
	return map;
}

static inline void bitmap_zero(__u64 *map, __u64 nbits)
{
	memset(map, 0, bitmap_words(nbits) * sizeof(*map));
}

static inline bool bitmap_equal(const __u64 *a, const __u64 *b, __u64 nbits)
{
	return !memcmp(a, b, bitmap_words(nbits) * sizeof(*a));
}

static inline void bit_set(__u64 *map, __u64 n)
{
	map[n / 64] |= 1ULL << n % 64;
}

static inline void bit_clear(__u64 *map, __u64 n)
{
	map[n / 64] &= ~(1ULL << n % 64);
}

static inline bool bit_test(const __u64 *map, __u64 n)
{
	return map[n / 64] >> n % 64 & 1;
}

static inline __u64 bits_count(const __u64 *map, __u64 nbits)
{
	__u64 n = 0;

	for (__u64 i = 0; i < nbits; i++)
		n += bit_test(map, i);
	return n;
}

/* The bits from @bit on come down to the begin of the map, which has room for all. */
static inline void bitmap_shift_down(__u64 *map, __u64 bit, __u64 nbits)
{
	for (__u64 n = 0; n < nbits; n++) {
		if (bit_test(map, bit + n))
			bit_set(map, n);
		else
			bit_clear(map, n);
	}
}

/* Runs of set bits, as many as there is room for; @at is where to go on. */
static inline __u32 bitmap_ranges(const __u64 *map, __u64 *at, __u64 nbits,
				  struct dirtytrack_range *ranges, __u32 max)
{
	__u32 nr = 0;
	__u64 n;

	for (n = *at; n < nbits; n++) {
		if (!bit_test(map, n))
			continue;
		if (nr && ranges[nr - 1].first + ranges[nr - 1].npages == n)
			ranges[nr - 1].npages++;
		else if (nr < max)
			ranges[nr++] = (struct dirtytrack_range){ n, 1 };
		else
			break;
	}
	*at = n;
	return nr;
}

/* ---- time ---- */

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static inline void pause_ms(unsigned int ms)
{
	const struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

/*
 * True when @condition is, soon.  What a dying process held is gone when wait(2)
 * returns, but for what another CPU or a /proc reader has in hand at that moment.
 */
#define eventually(condition) ({					\
	const double __end = now() + TEST_PATIENCE * test_slowness();	\
	bool __met;							\
									\
	while (!(__met = (condition)) && now() < __end)			\
		pause_ms(10);						\
	__met;								\
})

/* How long a race is run: DIRTYTRACK_RACE_SECONDS, or as usual. */
static inline double race_seconds(double usual)
{
	const char *text = getenv("DIRTYTRACK_RACE_SECONDS");
	char *end;
	double seconds;

	if (!text)
		return usual;
	seconds = strtod(text, &end);
	if (*end || !(seconds > 0 && seconds <= 3600))
		dt_broken("DIRTYTRACK_RACE_SECONDS=%s: not a number of seconds", text);
	return seconds;
}

/* ---- memory ---- */

static inline void *_test_map(int slot, __u64 first, __u64 npages)
{
	return mmap(NULL, npages << DIRTYTRACK_PAGE_SHIFT,
		    PROT_READ | PROT_WRITE, MAP_SHARED, slot,
		    first << DIRTYTRACK_PAGE_SHIFT);
}

#define test_map(slot, first, npages) ({				\
	void *__p = _test_map(slot, first, npages);			\
									\
	ASSERT_NE(MAP_FAILED, __p) {					\
		TH_LOG("mmap of a slot: %s", strerror(errno));		\
	}								\
	(char *)__p;							\
})

static inline void test_unmap(void *p, __u64 npages)
{
	if (munmap(p, npages << DIRTYTRACK_PAGE_SHIFT))
		dt_broken("munmap: %s", strerror(errno));
}

static inline char *page_at(void *map, __u64 page)
{
	return (char *)map + (page << DIRTYTRACK_PAGE_SHIFT);
}

/* One store into the page, and one load from it, that the compiler keeps. */
static inline void page_write(void *map, __u64 page, unsigned char value)
{
	*(volatile unsigned char *)page_at(map, page) = value;
}

static inline unsigned char page_read(const void *map, __u64 page)
{
	return *(const volatile unsigned char *)page_at((void *)map, page);
}

/* Content that differs between pages, between seeds and within the page. */
static inline void page_fill(void *page, __u64 seed)
{
	__u64 *word = page;

	for (size_t i = 0; i < PAGE_SIZE / sizeof(*word); i++) {
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		word[i] = seed | 1;
	}
}

static inline bool page_is(const void *page, __u64 seed)
{
	__u64 want[PAGE_SIZE / sizeof(__u64)];

	page_fill(want, seed);
	return !memcmp(page, want, PAGE_SIZE);
}

static inline bool bytes_are(const void *p, unsigned char value, size_t size)
{
	const unsigned char *c = p;

	for (size_t i = 0; i < size; i++)
		if (c[i] != value)
			return false;
	return true;
}

static inline bool page_is_zero(const void *page)
{
	return bytes_are(page, 0, PAGE_SIZE);
}

/*
 * @npages of zeroed memory with a page after it that cannot be touched, to see
 * that nothing is read or written past an end.
 */
static inline char *guarded_alloc(__u64 npages)
{
	char *p = mmap(NULL, (npages + 1) << DIRTYTRACK_PAGE_SHIFT,
		       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || mprotect(page_at(p, npages), PAGE_SIZE, PROT_NONE))
		dt_broken("no guarded memory: %s", strerror(errno));
	return p;
}

/* ---- files and processes ---- */

/* Another open file of what the fd is of, through /proc. */
static inline int test_reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

/*
 * How a child ended: its exit status, or 128 + the signal.  A child of a test
 * ends with _exit(!_metadata->passed), for its EXPECTs count in its own copy.
 */
static inline int test_wait(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		dt_broken("waitpid: %s", strerror(errno));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/*
 * Takes on a user's identity and drops privilege.  The saved uid stays 0, for
 * become(0) to come back; a program that must not have that sets all three.
 */
static inline void become(uid_t uid)
{
	if (setresuid(0, 0, 0) || setresuid(uid, uid, 0))
		dt_broken("setresuid(%u): %s (tests run as root)", uid,
			  strerror(errno));
}

static inline unsigned int test_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	if (!dir)
		dt_broken("/proc/self/fd: %s", strerror(errno));
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

#endif /* DIRTYTRACK_TEST_H */
