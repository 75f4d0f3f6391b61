// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.3, b74d24f7a74f "fs: port ->getattr() to pass mnt_idmap", and its series
 */
#include <linux/fs.h>

int probe(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr);
int probe(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	return setattr_prepare(idmap, dentry, attr);
}
