/* SPDX-License-Identifier: GPL-2.0-only */
/* Write patterns: which pages are written between two harvests, in which order. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stddef.h>
#include <stdint.h>

/**
 * struct pattern - a write pattern
 * @name: name
 * @what: one line
 * @writers: threads or vCPUs that write: number i of @writers takes every
 *	@writers-th entry of the list from i on
 * @is_cost: part of the table of costs; the others are for the harvest only
 * @density: as a heading in the table of harvests; NULL if it is not there
 * @least: pages that a region must have to be written that sparsely
 * @fill: lists the pages in @list, which has room for @npages entries; returns how
 *	many; some may be there twice
 */
struct pattern {
	const char *name;
	const char *what;
	unsigned int writers;
	int is_cost;
	const char *density;
	uint64_t least;
	size_t (*fill)(uint32_t *list, uint64_t npages, uint64_t seed);
};

extern const struct pattern patterns[];
extern const size_t nr_patterns;

#endif
