// SPDX-License-Identifier: GPL-2.0-only
#include "limiter.h"
#include "units.h"

/* What was not used for so long is forfeited: seconds. */
#define BURST 0.05

double limiter_reserve(struct limiter *l, uint64_t bytes)
{
	double time = now(), start;

	if (!l->rate)
		return time;
	pthread_mutex_lock(&l->lock);
	if (l->next < time - BURST)
		l->next = time - BURST;
	start = l->next;
	l->next += (double)bytes / l->rate;
	pthread_mutex_unlock(&l->lock);
	return start;
}
