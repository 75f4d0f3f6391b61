/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * SIGINT, SIGTERM, SIGHUP and SIGQUIT as a request to stop: work is left at the
 * next safe place, what was begun is undone, and the program then dies of that
 * signal, so that the caller sees what it expects to see.
 */
#ifndef INTERRUPT_H
#define INTERRUPT_H

#include <signal.h>

/* The signal that arrived, or 0.  Blocking system calls return EINTR. */
extern volatile sig_atomic_t interrupted;

void interrupt_catch(void);
/* In a child before exec: dispositions as before interrupt_catch(), nothing blocked. */
void interrupt_restore(void);
/* If a signal arrived, die of it; otherwise return. */
void interrupt_die(void);
/*
 * At the monotonic time @deadline, unless that is 0, interrupted becomes SIGALRM, which
 * interrupts work like the others; they are not overridden by it.  Only the last call
 * counts.
 */
void interrupt_at(double deadline);
/* Sleep until the monotonic time @deadline.  -EINTR if interrupted. */
int interrupt_sleep(double deadline);

#endif
