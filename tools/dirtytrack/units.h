/* SPDX-License-Identifier: GPL-2.0-only */
/* Numbers as people write and read them. */
#ifndef UNITS_H
#define UNITS_H

#include <stddef.h>
#include <stdint.h>

#define HUMAN_LEN 16

/* "4096", "64K", "1.5GiB": bytes, by powers of 1024.  -EINVAL, -ERANGE. */
int parse_size(const char *text, uint64_t *bytes);
/* A whole number up to @max.  -EINVAL, -ERANGE. */
int parse_number(const char *text, uint64_t max, uint64_t *number);
/* Seconds, with a fraction: 0 to a million.  -EINVAL, -ERANGE. */
int parse_seconds(const char *text, double *seconds);

/* The shortest of "512B", "1.5K", "20M": never more than four digits. */
const char *human_size(uint64_t bytes, char buf[HUMAN_LEN]);

/* Monotonic seconds. */
double now(void);

#endif
