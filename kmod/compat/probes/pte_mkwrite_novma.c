// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.5, 2f0584f3f4bd "mm: Rename arch pte_mkwrite()'s to pte_mkwrite_novma()"
 */
#include <linux/mm.h>

pte_t probe(pte_t pte);
pte_t probe(pte_t pte)
{
	return pte_mkwrite_novma(pte);
}
