// SPDX-License-Identifier: GPL-2.0-only
#include <signal.h>

#include "msg.h"
#include "thread.h"

int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	err = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		msg_errno(err, "thread");
	return -err;
}
