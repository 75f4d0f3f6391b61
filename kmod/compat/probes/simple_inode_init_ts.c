// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.7, the series "fs: new accessor methods for atime and mtime"
 *
 * exports: simple_inode_init_ts
 */
#include <linux/fs.h>

void probe(struct inode *inode);
void probe(struct inode *inode)
{
	simple_inode_init_ts(inode);
}
