// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "msg.h"
#include "pause.h"

/* What this process tells the guard. */
#define GUARD_PAUSE 'P'
#define GUARD_RESUMED 'R'

/*
 * The guard must survive what kills its parent: signals to the process group,
 * and a terminal that goes away.
 */
static void guard_main(struct pause *p, int fd)
{
	unsigned int tries = 3;
	bool paused = false;
	sigset_t all;
	char c;

	setsid();
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	prctl(PR_SET_NAME, "dirtytrack-grd");
	for (;;) {
		ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		paused = c == GUARD_PAUSE;
	}
	if (paused) {
		/* Resuming may run a command, which wants signals as usual. */
		sigprocmask(SIG_UNBLOCK, &all, NULL);
		/*
		 * First that: standard error may be a terminal that is stuck.
		 * Again if it fails: the first thing to be read may be the rest
		 * of an answer that the parent had begun to read.
		 */
		while (p->ops->resume(p) && --tries)
			;
		msg_hold(false);
		msg_note("killed while the guest was paused: it was resumed");
	}
	_exit(0);
}

int pause_guard(struct pause *p)
{
	int fds[2], ret;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		ret = -errno;
		msg_errno(ret, "pipe");
		return ret;
	}
	pid = fork();
	if (pid < 0) {
		ret = -errno;
		msg_errno(ret, "fork");
		close(fds[0]);
		close(fds[1]);
		return ret;
	}
	if (!pid) {
		close(fds[1]);
		guard_main(p, fds[0]);
	}
	close(fds[0]);
	p->guard_fd = fds[1];
	p->guard_pid = pid;
	return 0;
}

static int tell_guard(struct pause *p, char c)
{
	ssize_t n;

	if (p->guard_pid <= 0)
		return 0;
	do {
		n = write(p->guard_fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* A Ctrl-Z, or output to a terminal that is not ours, must not stop us now. */
static void hold_stops(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	sigaddset(&set, SIGTTIN);
	sigaddset(&set, SIGTTOU);
	sigprocmask(how, &set, NULL);
}

int pause_begin(struct pause *p)
{
	int ret;

	/* Told before it is true: resuming a guest that runs does no harm. */
	ret = tell_guard(p, GUARD_PAUSE);
	if (ret) {
		msg_errno(ret, "the guard process is gone");
		return ret;
	}
	hold_stops(SIG_BLOCK);
	p->paused = true;
	return p->ops->pause(p);
}

int pause_end(struct pause *p)
{
	int ret;

	if (!p->paused)
		return 0;
	p->paused = false;
	ret = p->ops->resume(p);
	tell_guard(p, GUARD_RESUMED);
	hold_stops(SIG_UNBLOCK);
	return ret;
}

void pause_free(struct pause *p)
{
	if (!p)
		return;
	pause_end(p);
	if (p->guard_pid > 0) {
		close(p->guard_fd);
		while (waitpid(p->guard_pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	p->ops->free(p);
}
