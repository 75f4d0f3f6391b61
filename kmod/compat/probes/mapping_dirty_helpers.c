// SPDX-License-Identifier: GPL-2.0-only
/*
 * CONFIG_MAPPING_DIRTY_HELPERS: not a version but a configuration
 *
 * exports: wp_shared_mapping_range
 * exports: clean_record_shared_mapping_range
 */
#include <linux/mm.h>

void probe(struct address_space *mapping);
void probe(struct address_space *mapping)
{
	wp_shared_mapping_range(mapping, 0, 1);
}
