/* SPDX-License-Identifier: MIT */
/* Calls that take a vector of ranges, and may stop anywhere in it. Not installed. */
#ifndef DTRACK_RESUME_H
#define DTRACK_RESUME_H

#include <stdint.h>

#include <linux/dirtytrack.h>

/**
 * struct dtrack_rest - what of a vector is left to do
 * @nr: ranges done
 * @next: page of range @nr from which to go on, 0 for its first
 */
struct dtrack_rest {
	uint32_t nr;
	uint64_t next;
};

/**
 * struct dtrack_vector - one call
 * @fd: of what is asked
 * @ranges: address of the ranges
 * @nr: how many
 * @out_nr: ranges done
 * @out_next: page of range @out_nr at which the call stopped, 0 for its first
 * @opaque: of the caller
 *
 * As in the structs of the ioctls, which differ in the rest.
 */
struct dtrack_vector {
	int fd;
	uint64_t ranges;
	uint32_t nr;
	uint32_t out_nr;
	uint64_t out_next;
	void *opaque;
};

/*
 * Calls @call, which returns 0 or -errno, until all of @ranges is done, or it fails; @rest
 * says how far it is.  Of @v, @fd and @opaque are set.
 */
int dtrack_resume(struct dtrack_vector *v, const struct dirtytrack_range *ranges,
		  uint32_t nr, struct dtrack_rest *rest,
		  int (*call)(struct dtrack_vector *v));

#endif
