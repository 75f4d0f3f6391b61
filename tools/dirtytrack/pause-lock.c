// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "interrupt.h"
#include "msg.h"
#include "pause-lock.h"
#include "units.h"

/* How soon it is seen that it is free: others' pauses take longer. */
#define STEP_US 1000
/* A wait that people may wonder about. */
#define LONG_SECONDS 1

void pause_lock_add(struct pause_lock *l, pid_t pid)
{
	char path[32];
	size_t i;
	int fd;

	if (pid <= 0 || l->nr == PAUSE_LOCK_MAX)
		return;
	snprintf(path, sizeof(path), "/proc/%d", pid);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	/* In one order for all, or two would wait for each other. */
	for (i = l->nr++; i && l->pids[i - 1] > pid; i--) {
		l->pids[i] = l->pids[i - 1];
		l->fds[i] = l->fds[i - 1];
	}
	l->pids[i] = pid;
	l->fds[i] = fd;
}

static int take_one(int fd, pid_t pid)
{
	double told = now() + LONG_SECONDS;
	bool waiting = true;

	/* In steps, for a signal may arrive right before a call that waits. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		/* What else there is means that there are no locks here. */
		if (errno != EWOULDBLOCK && errno != EINTR)
			break;
		if (interrupted)
			return -EINTR;
		if (waiting && now() > told) {
			msg_note("process %d: another command has it paused: waiting",
				 pid);
			waiting = false;
		}
		usleep(STEP_US);
	}
	return 0;
}

int pause_lock_take(struct pause_lock *l)
{
	while (l->taken < l->nr) {
		int ret = take_one(l->fds[l->taken], l->pids[l->taken]);

		if (ret) {
			pause_lock_drop(l);
			return ret;
		}
		l->taken++;
	}
	return 0;
}

void pause_lock_drop(struct pause_lock *l)
{
	while (l->taken)
		flock(l->fds[--l->taken], LOCK_UN);
}

void pause_lock_close(struct pause_lock *l)
{
	pause_lock_drop(l);
	while (l->nr)
		close(l->fds[--l->nr]);
}
