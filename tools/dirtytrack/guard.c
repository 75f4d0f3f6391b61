// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guard.h"
#include "interrupt.h"
#include "msg.h"

/*
 * The guard must survive what kills its parent: signals to the process group,
 * and a terminal that goes away.
 */
static void guard_main(int fd, void (*act)(void *arg, char state), void *arg)
{
	sigset_t all;
	char state = 0, c;

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
		state = c;
	}
	if (state) {
		/* It may run a command, which wants signals as usual. */
		sigprocmask(SIG_UNBLOCK, &all, NULL);
		interrupted = 0;
		act(arg, state);
	}
	_exit(0);
}

int guard_start(struct guard *g, void (*act)(void *arg, char state), void *arg)
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
		guard_main(fds[0], act, arg);
	}
	close(fds[0]);
	g->fd = fds[1];
	g->pid = pid;
	return 0;
}

int guard_tell(struct guard *g, char state)
{
	ssize_t n;

	if (g->pid <= 0)
		return 0;
	do {
		n = write(g->fd, &state, 1);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

void guard_end(struct guard *g)
{
	if (g->pid <= 0)
		return;
	/*
	 * Not by the end of its pipe: it would act on that, and a guard that was started after
	 * this one has that end, too.
	 */
	kill(g->pid, SIGKILL);
	close(g->fd);
	while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
		;
	g->pid = 0;
}
