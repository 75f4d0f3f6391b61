// SPDX-License-Identifier: GPL-2.0-only
#include "limiter.h"
#include "units.h"

/* What was not used for so long is forfeited: seconds. */
#define BURST 0.05

double limiter_turn(struct limiter *l)
{
	double time = now(), turn;

	if (!l->rate)
		return time;
	pthread_mutex_lock(&l->lock);
	if (l->next < time - BURST)
		l->next = time - BURST;
	turn = l->next;
	pthread_mutex_unlock(&l->lock);
	return turn;
}

void limiter_count(struct limiter *l, uint64_t bytes)
{
	if (!l->rate)
		return;
	pthread_mutex_lock(&l->lock);
	l->next += (double)bytes / l->rate;
	pthread_mutex_unlock(&l->lock);
}
