// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on purpose, one for each tool that "check" relies on; never linked into
 * anything.  A tool that finds nothing here is not installed, not configured, or
 * its output is not read.
 */
#include <linux/compiler.h>
#include <linux/types.h>
#include <linux/version.h>

int control(int __user *address);

/**
 * control - for kernel-doc, which wants every parameter described
 */
int control(int __user *address)
{
	int for_the_compiler;

	for_the_compiler=0;			/* and for checkpatch */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
	return *address;			/* for sparse */
#endif
}
