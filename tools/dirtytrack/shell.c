// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupt.h"
#include "msg.h"
#include "shell.h"

static void exec_shell(const char *command, pid_t parent)
{
	int null = open("/dev/null", O_RDWR);

	/* Who resumes a guest when we are dead must be the last one to do something. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	/*
	 * Ctrl-C is for this program, which then resumes the guest: it must not
	 * hit the command that does it.
	 */
	setpgid(0, 0);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	/* Standard output has the events or the table. */
	dup2(STDERR_FILENO, STDOUT_FILENO);
	interrupt_restore();
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

int shell_run(const char *command)
{
	pid_t parent = getpid(), pid;
	int status, ret;

	pid = fork();
	if (pid < 0) {
		ret = -errno;
		msg_errno(ret, "'%s': fork", command);
		return ret;
	}
	if (!pid)
		exec_shell(command, parent);
	/* To its end, also when interrupted: half a pause has no name. */
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR) {
			ret = -errno;
			msg_errno(ret, "'%s': wait", command);
			return ret;
		}
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	if (WIFEXITED(status))
		msg_error("'%s': it failed with status %d", command,
			  WEXITSTATUS(status));
	else
		msg_error("'%s': it was killed by %s", command,
			  strsignal(WTERMSIG(status)));
	return -EREMOTEIO;
}
