/* SPDX-License-Identifier: GPL-2.0-only */
/* Ranges of pages as users and programs name them, in arguments and files. */
#ifndef RANGE_LIST_H
#define RANGE_LIST_H

#include <stddef.h>
#include <stdint.h>

#include <linux/dirtytrack.h>

/**
 * struct range_list - ranges
 * @ranges: in the order in which they were named
 * @nr: how many
 * @room: for how many there is
 *
 * All 0 at the beginning; range_list_free() ends it.
 */
struct range_list {
	struct dirtytrack_range *ranges;
	size_t nr;
	size_t room;
};

enum range_format {
	RANGES_GUESS,		/* JSON if it begins with a bracket or brace, else text */
	RANGES_TEXT,
	RANGES_JSON,
	RANGES_BINARY,		/* of dtrack_ranges_decode() */
};

/* Those that return int return 0, or a message and -errno unless something else is said. */

/* "text", "json" or "binary"; -EINVAL without a message. */
int range_format_parse(const char *text, enum range_format *format);

/* -EINVAL for none, -EOVERFLOW, -ENOMEM; without a message. */
int range_list_add(struct range_list *list, uint64_t first, uint64_t npages);
/* "5", "0-99", "100+50"; each number a page, or, as "1G", an offset of bytes. */
int range_list_parse(struct range_list *list, const char *text);
/* All of a file, or of standard input for "-".  -EINTR without a message. */
int range_list_read(struct range_list *list, const char *path,
		    enum range_format format);
/* In ascending order, apart from each other. */
void range_list_sort(struct range_list *list);
/* Are those of a sorted list in a slot of @npages pages, which is @ref? */
int range_list_check(const struct range_list *list, uint64_t npages,
		     const char *ref);
/* Pages of a sorted list. */
uint64_t range_list_pages(const struct range_list *list);
void range_list_free(struct range_list *list);

/* Where range_list_step() is; all 0 at the beginning. */
struct range_cursor {
	size_t range;
	uint64_t done;		/* pages of it */
};

/*
 * The next ranges, @max of them and about @pages pages at most: work that is done between
 * two looks at the clock.  How many; 0 at the end.
 */
uint32_t range_list_step(const struct range_list *list, struct range_cursor *cursor,
			 struct dirtytrack_range *ranges, uint32_t max,
			 uint64_t pages);

#endif
