/* SPDX-License-Identifier: GPL-2.0-only */
/* The module's sources in userland: the bit operations they use. */
#ifndef UNIT_LINUX_BITOPS_H
#define UNIT_LINUX_BITOPS_H

#include <linux/types.h>

/* Undefined for 0, as in the kernel: UBSan says so. */
static inline unsigned int __ffs64(u64 word)
{
	return __builtin_ctzll(word);
}

static inline unsigned int hweight64(u64 word)
{
	return __builtin_popcountll(word);
}

#endif
