/* SPDX-License-Identifier: GPL-2.0-only */
/* Slots for a command that inherits them: --slot NAME=SIZE, and {NAME} in arguments. */
#ifndef SLOT_ARG_H
#define SLOT_ARG_H

#include <stdint.h>

#include "../lib/dirtytrack.h"

#define MAX_SLOTS 64

/* A slot to be made, and what stands for it in the command's arguments. */
struct slot_arg {
	char name[DIRTYTRACK_NAME_LEN];
	char path[32];
	uint64_t size;
	int fd;			/* without close-on-exec; of slot_arg_make() */
};

struct slot_args {
	struct slot_arg slots[MAX_SLOTS];
	unsigned int nr;
};

/* The argument of an option --slot.  0, or a message and -errno; -E2BIG for too many. */
int slot_args_add(struct slot_args *args, const char *arg);
/* Make them.  0, or a message and -errno. */
int slot_args_make(struct slot_args *args);
/* Put paths into the arguments of a command, in place.  0, or a message and -errno. */
int slot_args_substitute(const struct slot_args *args, char **argv);

#endif
