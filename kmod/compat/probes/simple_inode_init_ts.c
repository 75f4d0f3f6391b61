// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.7, f7f43858c550 "libfs: add simple_inode_init_ts helper"
 *
 * exports: simple_inode_init_ts
 */
#include <linux/fs.h>

void probe(struct inode *inode);
void probe(struct inode *inode)
{
	simple_inode_init_ts(inode);
}
