// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control: compiles on every kernel, or the probes say "no" to everything.
 */
#include <linux/mm.h>

void probe(struct page *page);
void probe(struct page *page)
{
	get_page(page);
}
