/* SPDX-License-Identifier: GPL-2.0-only */
/* Which slots are the memory of a guest. */
#ifndef VM_SLOTS_H
#define VM_SLOTS_H

struct qmp;
struct vm_memory;

/**
 * struct vm_slots - the slots that a guest's memory is to be on
 * @refs: as the user names them, or what QEMU has
 * @nr: how many
 * @memory: what QEMU shares
 * @nr_memory: how much of it
 */
struct vm_slots {
	char **refs;
	unsigned int nr;
	struct vm_memory *memory;
	unsigned int nr_memory;
};

/*
 * The @nr slots @refs, or all that QEMU has when that is 0; no more than @max.  0, or a
 * message and -errno.  vm_slots_free() is to be called in either case.
 */
int vm_slots_find(struct vm_slots *slots, struct qmp *qmp,
		  const char *const *refs, unsigned int nr, unsigned int max);
/*
 * The slots @fds, which are those that were found, opened, are all of QEMU's shared
 * memory: the guest would wake up without the rest.  0, or a message and -errno.
 */
int vm_slots_check(const struct vm_slots *slots, const int *fds);
void vm_slots_free(struct vm_slots *slots);

#endif
