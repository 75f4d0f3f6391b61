/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QEMU, apart from its memory: what its migration does when shared memory is not its
 * business (the capability x-ignore-shared).
 */
#ifndef VM_H
#define VM_H

#include <stdint.h>
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
 * Save the state of the devices of a guest that stands still into @fd, a file, within
 * @timeout seconds.  This may write to guest memory.  0, or a message and -errno.
 */
int vm_save(struct qmp *qmp, int fd, uint64_t *size, double timeout);
/* Give up, if it is still at it. */
void vm_cancel(struct qmp *qmp);
/*
 * Load it, in a QEMU that waits for it (-incoming defer).  The same.  What can be said to
 * it before is: the guest stands still meanwhile.
 */
int vm_prepare_load(struct qmp *qmp);
int vm_load(struct qmp *qmp, int fd, uint64_t size, double timeout);

#endif
