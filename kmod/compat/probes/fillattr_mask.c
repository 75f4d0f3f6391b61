// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.6, 0d72b92883c6 "fs: pass the request_mask to generic_fillattr"
 */
#include <linux/fs.h>

void probe(struct inode *inode, struct kstat *stat);
void probe(struct inode *inode, struct kstat *stat)
{
	generic_fillattr(&nop_mnt_idmap, STATX_BASIC_STATS, inode, stat);
}
