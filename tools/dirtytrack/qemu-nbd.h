/* SPDX-License-Identifier: GPL-2.0-only */
/* qcow2 images, made by qemu-img and written through a qemu-nbd of ours. */
#ifndef QEMU_NBD_H
#define QEMU_NBD_H

#include <stdint.h>
#include <sys/types.h>

#include "listen.h"

/**
 * struct qemu_nbd - qemu-nbd, as a child that does not outlive us
 * @pid: of it; 0 when there is none
 * @uri: where it serves the image
 * @listener: its socket
 * @address: of that
 */
struct qemu_nbd {
	pid_t pid;
	char *uri;
	struct listener listener;
	char *address;
};

/* Those that return int return 0, or a message and -errno; -EINTR without one. */

/*
 * Make an image, for its owner only: a whole one, or, with @backing, one of what differs
 * from that, page by page.  @backing is relative to the image.
 */
int qcow2_create(const char *image, const char *backing, uint64_t bytes);

/* Serve @image to so many @clients, by a socket in @dir, which is nobody else's. */
int qemu_nbd_start(struct qemu_nbd *q, const char *dir, const char *image,
		   unsigned int clients);
/* All clients are gone: let it close the image. */
int qemu_nbd_finish(struct qemu_nbd *q);
/* The image is of no use: end it at once.  If it had ended by itself, say why. */
void qemu_nbd_kill(struct qemu_nbd *q);

#endif
