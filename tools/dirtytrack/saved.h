/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The files that a guest is in while it is in no QEMU:
 *
 *	FILE, FILE.state		its only slot, and the state of its devices
 *	DIR/NAME.img..., DIR/state	several slots, each by its name
 *
 * Memory without the file of the state is nobody's guest: that one comes last and goes
 * first, and who has it locked is the one who may let the guest run.
 */
#ifndef SAVED_H
#define SAVED_H

#include <stdbool.h>

/* Is @path a directory of them? */
bool saved_is_dir(const char *path);
/* Names to be freed; NULL after a message. */
char *saved_memory(const char *path, const char *name);
char *saved_state(const char *path);

#endif
