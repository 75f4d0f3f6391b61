// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.5, 2cb1e08985e3 "splice: Use filemap_splice_read() instead of
 * generic_file_splice_read()", which removed the latter
 *
 * exports: copy_splice_read
 */
#include <linux/fs.h>

bool probe(const struct file_operations *fops);
bool probe(const struct file_operations *fops)
{
	return fops->splice_read == copy_splice_read;
}
