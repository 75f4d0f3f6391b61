// SPDX-License-Identifier: GPL-2.0-only
/* Pause by shell commands: for monitors that this program does not know. */
#include <errno.h>
#include <stdlib.h>

#include "msg.h"
#include "pause.h"
#include "shell.h"

struct pause_command {
	struct pause base;
	const char *pause_cmd;
	const char *resume_cmd;
};

static int pause_guest(struct pause *base)
{
	return shell_run(((struct pause_command *)base)->pause_cmd);
}

static int resume_guest(struct pause *base)
{
	return shell_run(((struct pause_command *)base)->resume_cmd);
}

static void free_command(struct pause *base)
{
	free(base);
}

static const struct pause_ops ops = {
	.pause = pause_guest,
	.resume = resume_guest,
	.free = free_command,
};

struct pause *pause_by_command(const char *pause_cmd, const char *resume_cmd)
{
	struct pause_command *p = calloc(1, sizeof(*p));

	if (!p) {
		msg_errno(ENOMEM, "--pause-cmd");
		return NULL;
	}
	p->base.ops = &ops;
	p->pause_cmd = pause_cmd;
	p->resume_cmd = resume_cmd;
	return &p->base;
}
