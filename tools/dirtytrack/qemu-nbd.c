// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"
#include "msg.h"
#include "qemu-nbd.h"

/* Where it finds the socket that it is to serve, by the convention of systemd. */
#define FIRST_SOCKET 3
#define NOT_FOUND 127
/*
 * A page.  A larger cluster of which one page is written would be filled up, with zeroes
 * or from the backing file.
 */
#define CLUSTER "cluster_size=4096"

/* In the child.  @socket: -1, or what it is to serve. */
static void exec_program(const char *const argv[], int socket, pid_t parent)
{
	int null = open("/dev/null", O_RDWR);
	char number[24];

	/* Not politely: what it writes to is removed then. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	/* Ctrl-C is for us, and we end it then. */
	setpgid(0, 0);
	/* Images have everything that the guest knows. */
	umask(077);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	if (socket == FIRST_SOCKET)
		fcntl(socket, F_SETFD, 0);
	else if (socket >= 0)
		dup2(socket, FIRST_SOCKET);
	if (socket >= 0) {
		snprintf(number, sizeof(number), "%d", getpid());
		setenv("LISTEN_PID", number, 1);
		setenv("LISTEN_FDS", "1", 1);
	}
	interrupt_restore();
	execvp(argv[0], (char *const *)argv);
	_exit(NOT_FOUND);
}

static pid_t spawn(const char *const argv[], int socket)
{
	pid_t parent = getpid(), pid = fork();

	if (!pid)
		exec_program(argv, socket, parent);
	if (pid < 0) {
		pid = -errno;
		msg_errno(pid, "%s: fork", argv[0]);
	}
	return pid;
}

/* What a program ended with. */
static int explain(const char *program, int status)
{
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_FOUND)
		msg_error("%s: cannot run it: is qemu-utils installed?", program);
	else if (WIFEXITED(status))
		msg_error("%s: it failed with status %d", program,
			  WEXITSTATUS(status));
	else
		msg_error("%s: it was killed by signal %d, %s", program,
			  WTERMSIG(status), strsignal(WTERMSIG(status)));
	return -EREMOTEIO;
}

static int wait_for(pid_t pid, const char *program)
{
	int status;

	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
		if (!interrupted)
			continue;
		kill(pid, SIGKILL);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		return -EINTR;
	}
	return explain(program, status);
}

int qcow2_create(const char *image, const char *backing, uint64_t bytes)
{
	char size[24], relative[NAME_MAX + 3];
	const char *argv[16] = { "qemu-img", "create", "-q", "-f", "qcow2",
				 "-o", CLUSTER };
	unsigned int n = 7;
	pid_t pid;

	snprintf(size, sizeof(size), "%" PRIu64, bytes);
	if (backing) {
		/* A colon before the first slash would make it a protocol. */
		snprintf(relative, sizeof(relative), "%s%s", strchr(backing, ':') ?
			 "./" : "", backing);
		argv[n++] = "-F";
		argv[n++] = "qcow2";
		argv[n++] = "-b";
		argv[n++] = relative;
	}
	argv[n++] = image;
	argv[n++] = size;
	pid = spawn(argv, -1);
	return pid < 0 ? pid : wait_for(pid, argv[0]);
}

static int make_names(struct qemu_nbd *q, const char *dir)
{
	if (asprintf(&q->address, "unix:%s/nbd", dir) < 0)
		q->address = NULL;
	if (asprintf(&q->uri, "nbd+unix:///?socket=%s/nbd", dir) < 0)
		q->uri = NULL;
	if (q->address && q->uri)
		return 0;
	msg_errno(ENOMEM, "qemu-nbd");
	return -ENOMEM;
}

static void forget(struct qemu_nbd *q)
{
	listen_end(&q->listener);
	free(q->address);
	free(q->uri);
	memset(q, 0, sizeof(*q));
}

int qemu_nbd_start(struct qemu_nbd *q, const char *dir, const char *image,
		   unsigned int clients)
{
	char number[16];
	const char *const argv[] = {
		"qemu-nbd", "-f", "qcow2", "-t", "-e", number,
		"--discard=unmap", image, NULL,
	};
	int ret;

	memset(q, 0, sizeof(*q));
	snprintf(number, sizeof(number), "%u", clients);
	ret = make_names(q, dir);
	if (!ret)
		ret = listen_at(&q->listener, q->address);
	if (ret) {
		forget(q);
		return ret;
	}
	q->pid = spawn(argv, q->listener.fds[0]);
	if (q->pid < 0) {
		ret = q->pid;
		forget(q);
		return ret;
	}
	/* Its own only: who connects when it is dead is to be told so. */
	close(q->listener.fds[0]);
	q->listener.nr = 0;
	return 0;
}

int qemu_nbd_finish(struct qemu_nbd *q)
{
	int ret;

	kill(q->pid, SIGTERM);
	ret = wait_for(q->pid, "qemu-nbd");
	forget(q);
	return ret;
}

void qemu_nbd_kill(struct qemu_nbd *q)
{
	const struct timespec tick = { .tv_nsec = 10000000 };
	unsigned int tries = interrupted ? 1 : 20;
	int status;
	pid_t pid;

	if (!q->pid)
		return;
	/* Its end of a connection is closed before it has ended. */
	while (!(pid = waitpid(q->pid, &status, WNOHANG)) && --tries)
		nanosleep(&tick, NULL);
	if (pid == q->pid) {
		explain("qemu-nbd", status);
	} else {
		kill(q->pid, SIGKILL);
		while (waitpid(q->pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	forget(q);
}
