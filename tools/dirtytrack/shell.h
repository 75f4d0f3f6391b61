/* SPDX-License-Identifier: GPL-2.0-only */
/* Commands of the user's. */
#ifndef SHELL_H
#define SHELL_H

/*
 * Run it by the shell, to its end, also when a signal arrives; what it prints goes to
 * standard error.  0, or a message and -errno; -EREMOTEIO when it failed.
 */
int shell_run(const char *command);

#endif
