// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pause by SIGSTOP.
 *
 * What a stopped process had asked of the kernel before (asynchronous I/O into
 * guest memory) still completes; who cannot exclude that pauses by other means.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "interrupt.h"
#include "msg.h"
#include "pause.h"
#include "units.h"

/**
 * struct target - a process to stop
 * @pid: its id, for /proc and for messages
 * @pidfd: it, for signals: an id may have come to mean another process
 * @ran: it was not stopped right before
 */
struct target {
	pid_t pid;
	int pidfd;
	bool ran;
};

struct pause_signal {
	struct pause base;
	double timeout;
	size_t nr;
	struct target targets[];
};

/* The state letter of a thread, 0 when it is gone. */
static char thread_state(pid_t pid, const char *tid)
{
	char path[64], text[512], *p;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", pid, tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	/* "tid (name) S": the name may contain anything, ')' included. */
	p = strrchr(text, ')');
	return p && p[1] == ' ' ? p[2] : 0;
}

/* 1 when every thread is stopped, 0 when one is not, -ESRCH when it is gone. */
static int all_stopped(const struct target *t)
{
	struct dirent *entry;
	char path[64];
	int stopped = 1;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", t->pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (stopped == 1 && (entry = readdir(dir))) {
		char state;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		state = thread_state(t->pid, entry->d_name);
		switch (state) {
		case 0:		/* ended since */
		case 'T':	/* stopped by a signal */
		case 't':	/* stopped by a tracer */
			break;
		case 'Z':
		case 'X':
			/* A leader may have ended before other threads. */
			if (atoi(entry->d_name) == t->pid &&
			    pidfd_send_signal(t->pidfd, 0, NULL, 0) < 0)
				stopped = -ESRCH;
			break;
		default:
			stopped = 0;
		}
	}
	closedir(dir);
	return stopped;
}

static int gone(const struct target *t)
{
	msg_error("process %d: it has ended", t->pid);
	return -ESRCH;
}

static bool is_zombie(const struct target *t)
{
	char tid[24], state;

	snprintf(tid, sizeof(tid), "%d", t->pid);
	state = thread_state(t->pid, tid);
	return state == 'Z' || state == 'X' || !state;
}

static int wait_stopped(const struct target *t, double deadline)
{
	for (;;) {
		int ret = all_stopped(t);

		if (ret == -ESRCH || (ret == 1 && is_zombie(t)))
			return gone(t);
		if (ret < 0) {
			msg_errno(ret, "process %d: cannot see whether it has stopped",
				  t->pid);
			return ret;
		}
		if (ret)
			return 0;
		if (interrupted)
			return -EINTR;
		if (now() > deadline) {
			msg_error("process %d: a thread of it does not stop",
				  t->pid);
			return -ETIMEDOUT;
		}
		usleep(200);
	}
}

static int pause_all(struct pause *base)
{
	struct pause_signal *p = (struct pause_signal *)base;
	size_t i;
	int ret;

	for (i = 0; i < p->nr; i++) {
		struct target *t = &p->targets[i];

		if (!pidfd_send_signal(t->pidfd, SIGSTOP, NULL, 0))
			continue;
		if (errno == ESRCH)
			return gone(t);
		ret = -errno;
		msg_errno(ret, "process %d: cannot stop it", t->pid);
		return ret;
	}
	for (i = 0; i < p->nr; i++) {
		ret = wait_stopped(&p->targets[i], now() + p->timeout);
		if (ret)
			return ret;
	}
	return 0;
}

static int resume_all(struct pause *base)
{
	struct pause_signal *p = (struct pause_signal *)base;
	int ret = 0;
	size_t i;

	/* All of them, whatever becomes of one. */
	for (i = 0; i < p->nr; i++) {
		struct target *t = &p->targets[i];

		if (!t->ran || !pidfd_send_signal(t->pidfd, SIGCONT, NULL, 0))
			continue;
		ret = -errno;
		if (errno == ESRCH)
			gone(t);
		else
			msg_errno(ret, "process %d: cannot let it continue",
				  t->pid);
	}
	return ret;
}

static void free_signal(struct pause *base)
{
	struct pause_signal *p = (struct pause_signal *)base;
	size_t i;

	for (i = 0; i < p->nr; i++)
		close(p->targets[i].pidfd);
	free(p);
}

static int prepare(struct pause *base)
{
	struct pause_signal *p = (struct pause_signal *)base;
	size_t i;

	/* Who is gone by now is found out when he is to stop. */
	for (i = 0; i < p->nr; i++)
		p->targets[i].ran = all_stopped(&p->targets[i]) != 1;
	return 0;
}

static const struct pause_ops ops = {
	.prepare = prepare,
	.pause = pause_all,
	.resume = resume_all,
	.free = free_signal,
};

struct pause *pause_by_signal(const pid_t *pids, size_t nr, double timeout)
{
	struct pause_signal *p = calloc(1, sizeof(*p) +
					nr * sizeof(p->targets[0]));

	if (!p) {
		msg_errno(ENOMEM, "--pid");
		return NULL;
	}
	p->base.ops = &ops;
	p->timeout = timeout;
	for (; p->nr < nr; p->nr++) {
		struct target *t = &p->targets[p->nr];

		t->pid = pids[p->nr];
		t->pidfd = pidfd_open(t->pid, 0);
		if (t->pidfd < 0 ||
		    pidfd_send_signal(t->pidfd, 0, NULL, 0) < 0) {
			msg_errno(errno, "process %d", t->pid);
			if (t->pidfd >= 0)
				close(t->pidfd);
			pause_lock_close(&p->base.lock);
			free_signal(&p->base);
			return NULL;
		}
		pause_lock_add(&p->base.lock, t->pid);
	}
	return &p->base;
}
