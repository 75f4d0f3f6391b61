// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control: compiles on no kernel, or the probes say "yes" to everything.
 */
#include <linux/mm.h>

void probe(struct page *page);
void probe(struct page *page)
{
	no_kernel_has_this_function(page);
}
