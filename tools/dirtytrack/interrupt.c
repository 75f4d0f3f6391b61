// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"
#include "units.h"

/*
 * How often an alarm comes until it is set anew: libnbd begins a wait anew after each, so
 * not as often as such a wait is short.
 */
#define ALARM_AGAIN_US 500000

volatile sig_atomic_t interrupted;

static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
/*
 * A closed pipe and the file size limit are errors of a write that must be
 * undone like any other, not deaths.
 */
static const int ignored[] = { SIGPIPE, SIGXFSZ };

#define NR_CAUGHT (sizeof(caught) / sizeof(*caught))
#define NR_IGNORED (sizeof(ignored) / sizeof(*ignored))

static struct sigaction old[NR_CAUGHT + NR_IGNORED];

static void handler(int sig)
{
	interrupted = sig;
}

void interrupt_catch(void)
{
	/* No SA_RESTART: a blocking call is to return. */
	struct sigaction sa = { .sa_handler = handler };
	size_t i;

	sigemptyset(&sa.sa_mask);
	for (i = 0; i < NR_CAUGHT; i++) {
		sigaction(caught[i], NULL, &old[i]);
		/* Ignored on purpose, for instance by nohup: leave it so. */
		if (old[i].sa_handler != SIG_IGN)
			sigaction(caught[i], &sa, NULL);
	}
	sa.sa_handler = SIG_IGN;
	for (i = 0; i < NR_IGNORED; i++)
		sigaction(ignored[i], &sa, &old[NR_CAUGHT + i]);
}

void interrupt_restore(void)
{
	sigset_t none;
	size_t i;

	for (i = 0; i < NR_CAUGHT; i++)
		sigaction(caught[i], &old[i], NULL);
	for (i = 0; i < NR_IGNORED; i++)
		sigaction(ignored[i], &old[NR_CAUGHT + i], NULL);
	/* A thread's, or a part of this program's, in which none may come. */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void interrupt_die(void)
{
	struct sigaction sa = { .sa_handler = SIG_DFL };
	int sig = interrupted;

	if (!sig)
		return;
	sigaction(sig, &sa, NULL);
	raise(sig);
	_exit(128 + sig);
}

static void on_alarm(int sig)
{
	if (!interrupted)
		interrupted = sig;
}

void interrupt_at(double deadline)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	double left = deadline - now();
	struct itimerval timer = { 0 };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGALRM, &sa, NULL);
	if (deadline) {
		/* Again: it may come right before a call that waits. */
		timer.it_interval.tv_usec = ALARM_AGAIN_US;
		/* Nothing is no time for a timer. */
		if (left < 1e-6)
			left = 1e-6;
		timer.it_value.tv_sec = floor(left);
		timer.it_value.tv_usec = (left - floor(left)) * 1e6;
		if (!timer.it_value.tv_sec && !timer.it_value.tv_usec)
			timer.it_value.tv_usec = 1;
	}
	setitimer(ITIMER_REAL, &timer, NULL);
}

int interrupt_sleep(double deadline)
{
	struct timespec ts;

	ts.tv_sec = floor(deadline);
	ts.tv_nsec = (deadline - floor(deadline)) * 1e9;
	while (!interrupted) {
		int err = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts,
					  NULL);

		if (!err)
			return 0;
		if (err != EINTR)
			return -err;
	}
	return -EINTR;
}
