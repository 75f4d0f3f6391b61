// SPDX-License-Identifier: MIT
/*
 * The layout of every ioctl struct, field by field.
 *
 * A program and the module are built apart, on 32 and 64 bits: what they share is
 * these numbers.  A change that moves a field must fail to compile here, not in a
 * guest.
 */
#include <assert.h>
#include <stddef.h>

#include <linux/dirtytrack.h>

#define SIZE(type, bytes) \
	static_assert(sizeof(struct type) == (bytes), #type)
#define FIELD(type, field, offset, bytes) \
	static_assert(offsetof(struct type, field) == (offset) && \
		      sizeof(((struct type *)0)->field) == (bytes), \
		      #type "." #field)

SIZE(dirtytrack_info, 56);
FIELD(dirtytrack_info, size, 0, 4);
FIELD(dirtytrack_info, flags, 4, 4);
FIELD(dirtytrack_info, out_features, 8, 8);
FIELD(dirtytrack_info, out_max_slot_size, 16, 8);
FIELD(dirtytrack_info, out_max_slots, 24, 4);
FIELD(dirtytrack_info, out_max_logs, 28, 4);
FIELD(dirtytrack_info, out_page_shift, 32, 4);
FIELD(dirtytrack_info, out_strategy, 36, 4);
FIELD(dirtytrack_info, out_max_ring_entries, 40, 4);
FIELD(dirtytrack_info, out_max_user_slots, 44, 4);
FIELD(dirtytrack_info, out_max_memory, 48, 8);

SIZE(dirtytrack_slot_create, 56);
FIELD(dirtytrack_slot_create, size, 0, 4);
FIELD(dirtytrack_slot_create, flags, 4, 4);
FIELD(dirtytrack_slot_create, length, 8, 8);
FIELD(dirtytrack_slot_create, name, 16, 32);
FIELD(dirtytrack_slot_create, out_id, 48, 4);
FIELD(dirtytrack_slot_create, out_fd, 52, 4);

SIZE(dirtytrack_slot_next, 16);
FIELD(dirtytrack_slot_next, size, 0, 4);
FIELD(dirtytrack_slot_next, flags, 4, 4);
FIELD(dirtytrack_slot_next, id, 8, 4);
FIELD(dirtytrack_slot_next, out_id, 12, 4);

SIZE(dirtytrack_slot_open, 48);
FIELD(dirtytrack_slot_open, size, 0, 4);
FIELD(dirtytrack_slot_open, flags, 4, 4);
FIELD(dirtytrack_slot_open, id, 8, 4);
FIELD(dirtytrack_slot_open, out_fd, 12, 4);
FIELD(dirtytrack_slot_open, name, 16, 32);

SIZE(dirtytrack_slot_info, 128);
FIELD(dirtytrack_slot_info, size, 0, 4);
FIELD(dirtytrack_slot_info, flags, 4, 4);
FIELD(dirtytrack_slot_info, out_id, 8, 4);
FIELD(dirtytrack_slot_info, out_uid, 12, 4);
FIELD(dirtytrack_slot_info, out_length, 16, 8);
FIELD(dirtytrack_slot_info, out_name, 24, 32);
FIELD(dirtytrack_slot_info, out_resident, 56, 8);
FIELD(dirtytrack_slot_info, out_logs, 64, 4);
FIELD(dirtytrack_slot_info, out_reserved, 68, 4);
FIELD(dirtytrack_slot_info, out_faults, 72, 8);
FIELD(dirtytrack_slot_info, out_grants, 80, 8);
FIELD(dirtytrack_slot_info, out_collected, 88, 8);
FIELD(dirtytrack_slot_info, out_protects, 96, 8);
FIELD(dirtytrack_slot_info, out_rate, 104, 8);
FIELD(dirtytrack_slot_info, out_throttles, 112, 8);
FIELD(dirtytrack_slot_info, out_throttled_ns, 120, 8);

SIZE(dirtytrack_log_create, 16);
FIELD(dirtytrack_log_create, size, 0, 4);
FIELD(dirtytrack_log_create, flags, 4, 4);
FIELD(dirtytrack_log_create, out_fd, 8, 4);
FIELD(dirtytrack_log_create, ring_entries, 12, 4);

SIZE(dirtytrack_log_info, 128);
FIELD(dirtytrack_log_info, size, 0, 4);
FIELD(dirtytrack_log_info, flags, 4, 4);
FIELD(dirtytrack_log_info, out_slot_id, 8, 4);
FIELD(dirtytrack_log_info, out_reserved, 12, 4);
FIELD(dirtytrack_log_info, out_npages, 16, 8);
FIELD(dirtytrack_log_info, out_bitmap_offset, 24, 8);
FIELD(dirtytrack_log_info, out_bitmap_size, 32, 8);
FIELD(dirtytrack_log_info, out_summary_offset, 40, 8);
FIELD(dirtytrack_log_info, out_summary_size, 48, 8);
FIELD(dirtytrack_log_info, out_dirty, 56, 8);
FIELD(dirtytrack_log_info, out_harvests, 64, 8);
FIELD(dirtytrack_log_info, out_reported, 72, 8);
FIELD(dirtytrack_log_info, out_ring_offset, 80, 8);
FIELD(dirtytrack_log_info, out_ring_size, 88, 8);
FIELD(dirtytrack_log_info, out_control_offset, 96, 8);
FIELD(dirtytrack_log_info, out_control_size, 104, 8);
FIELD(dirtytrack_log_info, out_overflows, 112, 8);
FIELD(dirtytrack_log_info, out_rate, 120, 8);

SIZE(dirtytrack_harvest, 64);
FIELD(dirtytrack_harvest, size, 0, 4);
FIELD(dirtytrack_harvest, flags, 4, 4);
FIELD(dirtytrack_harvest, first, 8, 8);
FIELD(dirtytrack_harvest, npages, 16, 8);
FIELD(dirtytrack_harvest, bitmap, 24, 8);
FIELD(dirtytrack_harvest, bit, 32, 8);
FIELD(dirtytrack_harvest, out_next, 40, 8);
FIELD(dirtytrack_harvest, out_dirty, 48, 8);
FIELD(dirtytrack_harvest, out_new, 56, 8);

SIZE(dirtytrack_extent, 16);
FIELD(dirtytrack_extent, first, 0, 8);
FIELD(dirtytrack_extent, npages, 8, 4);
FIELD(dirtytrack_extent, state, 12, 4);

SIZE(dirtytrack_harvest_extents, 56);
FIELD(dirtytrack_harvest_extents, size, 0, 4);
FIELD(dirtytrack_harvest_extents, flags, 4, 4);
FIELD(dirtytrack_harvest_extents, first, 8, 8);
FIELD(dirtytrack_harvest_extents, npages, 16, 8);
FIELD(dirtytrack_harvest_extents, extents, 24, 8);
FIELD(dirtytrack_harvest_extents, nr, 32, 4);
FIELD(dirtytrack_harvest_extents, out_nr, 36, 4);
FIELD(dirtytrack_harvest_extents, out_next, 40, 8);
FIELD(dirtytrack_harvest_extents, out_dirty, 48, 8);

SIZE(dirtytrack_bitmap, 56);
FIELD(dirtytrack_bitmap, size, 0, 4);
FIELD(dirtytrack_bitmap, flags, 4, 4);
FIELD(dirtytrack_bitmap, first, 8, 8);
FIELD(dirtytrack_bitmap, npages, 16, 8);
FIELD(dirtytrack_bitmap, bitmap, 24, 8);
FIELD(dirtytrack_bitmap, bit, 32, 8);
FIELD(dirtytrack_bitmap, out_next, 40, 8);
FIELD(dirtytrack_bitmap, out_pages, 48, 8);

SIZE(dirtytrack_range, 16);
FIELD(dirtytrack_range, first, 0, 8);
FIELD(dirtytrack_range, npages, 8, 8);

SIZE(dirtytrack_ranges, 40);
FIELD(dirtytrack_ranges, size, 0, 4);
FIELD(dirtytrack_ranges, flags, 4, 4);
FIELD(dirtytrack_ranges, ranges, 8, 8);
FIELD(dirtytrack_ranges, nr, 16, 4);
FIELD(dirtytrack_ranges, out_nr, 20, 4);
FIELD(dirtytrack_ranges, out_next, 24, 8);
FIELD(dirtytrack_ranges, out_pages, 32, 8);

SIZE(dirtytrack_release, 56);
FIELD(dirtytrack_release, size, 0, 4);
FIELD(dirtytrack_release, flags, 4, 4);
FIELD(dirtytrack_release, ranges, 8, 8);
FIELD(dirtytrack_release, nr, 16, 4);
FIELD(dirtytrack_release, out_nr, 20, 4);
FIELD(dirtytrack_release, out_next, 24, 8);
FIELD(dirtytrack_release, out_released, 32, 8);
FIELD(dirtytrack_release, out_skipped, 40, 8);
FIELD(dirtytrack_release, out_unmaps, 48, 8);

SIZE(dirtytrack_populate, 48);
FIELD(dirtytrack_populate, size, 0, 4);
FIELD(dirtytrack_populate, flags, 4, 4);
FIELD(dirtytrack_populate, ranges, 8, 8);
FIELD(dirtytrack_populate, nr, 16, 4);
FIELD(dirtytrack_populate, out_nr, 20, 4);
FIELD(dirtytrack_populate, out_next, 24, 8);
FIELD(dirtytrack_populate, out_pages, 32, 8);
FIELD(dirtytrack_populate, node, 40, 4);
FIELD(dirtytrack_populate, reserved, 44, 4);

SIZE(dirtytrack_limit, 16);
FIELD(dirtytrack_limit, size, 0, 4);
FIELD(dirtytrack_limit, flags, 4, 4);
FIELD(dirtytrack_limit, rate, 8, 8);

SIZE(dirtytrack_ring, 24);
FIELD(dirtytrack_ring, head, 0, 8);
FIELD(dirtytrack_ring, overflows, 8, 8);
FIELD(dirtytrack_ring, entries, 16, 4);
FIELD(dirtytrack_ring, reserved, 20, 4);

SIZE(dirtytrack_ring_control, 24);
FIELD(dirtytrack_ring_control, tail, 0, 8);
FIELD(dirtytrack_ring_control, seen, 8, 8);
FIELD(dirtytrack_ring_control, watermark, 16, 4);
FIELD(dirtytrack_ring_control, reserved, 20, 4);
