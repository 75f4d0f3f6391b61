/* SPDX-License-Identifier: GPL-2.0-only */
/* Which memory of a QEMU is others' business, and whether it waits for a guest. */
#ifndef VM_H
#define VM_H

#include <sys/types.h>

struct qmp;

/**
 * struct vm_memory - memory that QEMU shares, and so leaves to others to move
 * @id: of the memory backend
 * @path: of its file
 */
struct vm_memory {
	char *id;
	char *path;
};

/*
 * Find all of it; @nr is how much there is.  A @path in /proc/self is one of process
 * @pid.  To be freed by vm_memory_free().  0, or a message and -errno.
 */
int vm_memory(struct qmp *qmp, pid_t pid, struct vm_memory **memory,
	      unsigned int *nr);
void vm_memory_free(struct vm_memory *memory, unsigned int nr);

/*
 * Of a QEMU to which a guest is to come, @label for messages.  0, or a message and -errno:
 *
 * All memory that it shares is on the @nr slots @fds, and each of them is used.
 */
int vm_check_memory(struct qmp *qmp, pid_t pid, const char *label, const int *fds,
		    unsigned int nr);
/* It waits. */
int vm_check_waiting(struct qmp *qmp, const char *label);
/* It has the guest, and does not run it unasked. */
int vm_check_stands(struct qmp *qmp, const char *label);

#endif
