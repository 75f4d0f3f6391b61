// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.19: entries that stand in a page table for no page are softleaf_t
 */
#include <linux/mm.h>
#include <linux/leafops.h>

bool probe(pte_t pte);
bool probe(pte_t pte)
{
	return softleaf_is_uffd_wp_marker(softleaf_from_pte(pte));
}
