/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef THREAD_H
#define THREAD_H

#include <pthread.h>

/*
 * Start a thread that gets no signals: they are for the main one, to end its system
 * calls.  0, or a message and -errno.
 */
int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

#endif
