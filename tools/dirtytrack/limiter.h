/* SPDX-License-Identifier: GPL-2.0-only */
/* A limit of bytes a second that several threads keep together. */
#ifndef LIMITER_H
#define LIMITER_H

#include <pthread.h>
#include <stdint.h>

/**
 * struct limiter - a limit
 * @rate: bytes a second; 0 for none
 * @next: monotonic seconds, when the next byte may go
 */
struct limiter {
	pthread_mutex_t lock;
	uint64_t rate;
	double next;
};

#define LIMITER_INIT(bytes) { PTHREAD_MUTEX_INITIALIZER, (bytes), 0 }

/*
 * When the next bytes may go, monotonic seconds.  How many they are need not be known
 * before: those that went are counted, and who comes next waits for them.
 */
double limiter_turn(struct limiter *l);
void limiter_count(struct limiter *l, uint64_t bytes);

#endif
