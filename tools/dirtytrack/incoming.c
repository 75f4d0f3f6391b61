// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "builtin.h"
#include "incoming.h"
#include "interrupt.h"
#include "msg.h"
#include "qmp.h"
#include "slot-arg.h"
#include "vm.h"

/* What the guard is to do when this process is killed. */
#define GUARD_KILL 'K'	/* the guest is not here yet */
#define GUARD_RUN 'R'	/* it is about to run, and others may know */

/* A signal is seen after it. */
#define WAIT_MS 200

/*
 * With -S: whatever the state says that the guest did, loading it does not let it run.
 */
static int make_argv(char ***out, char **argv, int fd)
{
	char **full, *chardev;
	size_t n = 0;

	while (argv[n])
		n++;
	full = calloc(n + 6, sizeof(*full));
	if (!full || asprintf(&chardev, "socket,id=dirtytrack,fd=%d", fd) < 0) {
		free(full);
		msg_errno(ENOMEM, "%s", argv[0]);
		return -ENOMEM;
	}
	memcpy(full, argv, n * sizeof(*full));
	full[n++] = (char *)"-chardev";
	full[n++] = chardev;
	full[n++] = (char *)"-mon";
	full[n++] = (char *)"chardev=dirtytrack,mode=control";
	full[n++] = (char *)"-S";
	*out = full;
	return 0;
}

/* Once there is a guard: @watched ends without a word if there will not be one. */
static void wait_for_guard(int watched)
{
	ssize_t n;
	char c;

	do {
		n = read(watched, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(EXIT_RUN);
}

static void run_qemu(struct incoming *in, int fd, int watched)
{
	int inherited = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
	char **argv;

	wait_for_guard(watched);
	if (inherited < 0 || make_argv(&argv, in->argv, inherited))
		_exit(EXIT_RUN);
	interrupt_restore();
	execvp(argv[0], argv);
	msg_errno(errno, "%s: cannot run it", argv[0]);
	_exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

static void starter_act(void *arg, char state)
{
	struct incoming *in = arg;

	if (state == GUARD_KILL)
		pidfd_send_signal(in->pidfd, SIGKILL, NULL, 0);
}

/* @watch: where the child waits for it. */
static int start_starter(struct incoming *in, int watch)
{
	int ret = guard_start(&in->starter, starter_act, in);

	if (!ret)
		ret = guard_tell(&in->starter, GUARD_KILL);
	if (!ret && write(watch, "", 1) < 0)
		ret = -errno;
	return ret;
}

static int start_qemu(struct incoming *in, int *qmp_fd)
{
	int pair[2] = { -1, -1 }, watch[2] = { -1, -1 }, ret, i;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
	    pipe2(watch, O_CLOEXEC) < 0)
		goto fail;
	pid = fork();
	if (pid < 0)
		goto fail;
	if (!pid) {
		close(watch[1]);
		run_qemu(in, pair[1], watch[0]);
	}
	in->pid = pid;
	close(watch[0]);
	close(pair[1]);
	*qmp_fd = pair[0];
	in->pidfd = pidfd_open(in->pid, 0);
	ret = start_starter(in, watch[1]);
	close(watch[1]);
	return ret;

fail:
	ret = -errno;
	for (i = 0; i < 2; i++) {
		if (pair[i] >= 0)
			close(pair[i]);
		if (watch[i] >= 0)
			close(watch[i]);
	}
	msg_errno(ret, "%s", in->argv[0]);
	return ret;
}

static void guard_act(void *arg, char state)
{
	struct incoming *in = arg;
	bool promised = in->promised ? in->promised(in, in->arg) :
				       state == GUARD_RUN;

	if (!promised) {
		pidfd_send_signal(in->pidfd, SIGKILL, NULL, 0);
		return;
	}
	/* Others may have been told so: then nobody else runs it. */
	incoming_cont(in);
	vm_state_reset(in->qmp);
}

/* Memory that QEMU leaves to others must be memory that is received. */
static int check_memory(struct incoming *in)
{
	int fds[MAX_SLOTS];
	unsigned int i;

	for (i = 0; i < in->slots->nr; i++)
		fds[i] = in->slots->slots[i].fd;
	return vm_check_memory(in->qmp, in->pid, in->argv[0], fds, in->slots->nr);
}

int incoming_start(struct incoming *in)
{
	int fd = -1, ret;

	ret = start_qemu(in, &fd);
	if (!ret)
		ret = qmp_attach(&in->qmp, fd, in->argv[0], in->timeout,
				 &interrupted);
	if (!ret)
		ret = guard_start(&in->guard, guard_act, in);
	if (!ret)
		ret = guard_tell(&in->guard, GUARD_KILL);
	if (!ret)
		guard_end(&in->starter);
	if (!ret)
		ret = vm_check_waiting(in->qmp, in->argv[0]);
	if (!ret)
		ret = check_memory(in);
	return ret ? ret : vm_state_prepare(&in->state, in->qmp, VM_STATE_LOAD);
}

int incoming_promise(struct incoming *in)
{
	return guard_tell(&in->guard, GUARD_RUN);
}

int incoming_cont(struct incoming *in)
{
	qmp_set_cancel(in->qmp, NULL);
	return qmp_command(in->qmp, "cont", NULL);
}

void incoming_leave(struct incoming *in)
{
	guard_tell(&in->guard, 0);
}

void incoming_reap(struct incoming *in)
{
	while (waitpid(in->pid, &in->status, 0) < 0 && errno == EINTR)
		;
	in->pid = 0;
	close(in->pidfd);
}

void incoming_kill(struct incoming *in)
{
	if (!in->pid)
		return;
	kill(in->pid, SIGKILL);
	incoming_reap(in);
}

int incoming_wait(struct incoming *in)
{
	struct pollfd fd = { .fd = in->pidfd, .events = POLLIN };

	while (in->pid) {
		if (interrupted) {
			/* For QEMU, which is to end by it in its own way. */
			kill(in->pid, SIGTERM);
			interrupted = 0;
		}
		if (poll(&fd, 1, WAIT_MS) > 0)
			incoming_reap(in);
	}
	if (WIFSIGNALED(in->status))
		return 128 + WTERMSIG(in->status);
	return WEXITSTATUS(in->status);
}

void incoming_end(struct incoming *in)
{
	guard_end(&in->starter);
	guard_end(&in->guard);
	vm_state_close(&in->state);
	qmp_close(in->qmp);
	in->qmp = NULL;
}
