// SPDX-License-Identifier: GPL-2.0-only
/*
 * 6.6, "mm: handle swap page faults under per-VMA lock"
 */
#include <linux/mm.h>

void probe(struct vm_fault *vmf);
void probe(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}
