/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The module's sources in userland: the types they use.  As in the kernel, 64 bits
 * are a long long, so that a format or a shift that is wrong there is wrong here.
 */
#ifndef UNIT_LINUX_TYPES_H
#define UNIT_LINUX_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef signed long long s64;
typedef unsigned long long u64;
typedef uint32_t u32;

typedef struct {
	s64 counter;
} atomic64_t;

#endif
