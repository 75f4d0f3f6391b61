/* SPDX-License-Identifier: GPL-2.0-only */
/* Is a page all zero? */
#ifndef ZERO_H
#define ZERO_H

#include <stdbool.h>
#include <stdint.h>

bool page_is_zero(const void *page);
/* Pages from @buf on, @npages at most, that are all zero or all not, as the first is. */
uint64_t same_run(const void *buf, uint64_t npages, bool *zero);

#endif
