// SPDX-License-Identifier: GPL-2.0-only
/*
 * Up to 6.18: 5.19, 1db9dbc2ef05 "mm/uffd: PTE_MARKER_UFFD_WP"
 */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>

bool probe(pte_t pte);
bool probe(pte_t pte)
{
	return pte_marker_uffd_wp(pte);
}
