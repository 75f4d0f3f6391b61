// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.19, "mm: introduce leaf entry type and use to simplify leaf entry
 * logic", and its series: before, pte_marker_uffd_wp()
 */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/leafops.h>

bool probe(pte_t pte);
bool probe(pte_t pte)
{
	return pte_is_uffd_wp_marker(pte);
}
