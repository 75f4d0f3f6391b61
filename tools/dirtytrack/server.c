// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupt.h"
#include "listen.h"
#include "msg.h"
#include "server.h"

/* Where nbdkit finds the sockets that it is to serve, by the convention of systemd. */
#define FIRST_SOCKET 3
/* Numbers that do not get into the way of those. */
#define FIRST_OTHER 64
#define MAX_ARGS 160

struct command {
	char *argv[MAX_ARGS];
	unsigned int argc;
	char plugin[PATH_MAX];
};

/* In the child: what cannot be done has no other way out. */
static void must(bool ok, const char *what)
{
	if (ok)
		return;
	msg_errno(errno, "nbdkit: %s", what);
	_exit(127);
}

static void add(struct command *c, const char *fmt, const char *text, int number)
{
	must(c->argc < MAX_ARGS - 1 &&
	     asprintf(&c->argv[c->argc], fmt, text, number) > 0, "memory");
	c->argc++;
}

/* Our plugin, if it is next to this program, as in the build directory; by name if not. */
static const char *find_plugin(const char *kind, char buf[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", buf, PATH_MAX - 1);
	char *slash;
	size_t left;

	buf[n < 0 ? 0 : n] = '\0';
	slash = strrchr(buf, '/');
	if (!slash)
		return kind;
	left = buf + PATH_MAX - slash;
	if (snprintf(slash, left, "/nbdkit-%s-plugin.so", kind) >= (int)left)
		return kind;
	return access(buf, R_OK) ? kind : buf;
}

static int pass(int fd)
{
	int passed = fcntl(fd, F_DUPFD, FIRST_OTHER);

	must(passed >= 0, "fcntl");
	return passed;
}

static void add_tls(struct command *c, const struct server *s)
{
	if (s->certificates) {
		add(c, "--tls=require", NULL, 0);
		add(c, "--tls-certificates=%s", s->certificates, 0);
		if (s->verify_peer)
			add(c, "--tls-verify-peer", NULL, 0);
	} else if (s->psk) {
		add(c, "--tls=require", NULL, 0);
		add(c, "--tls-psk=%s", s->psk, 0);
	} else {
		add(c, "--tls=off", NULL, 0);
	}
}

static void add_arg(struct command *c, const struct server_arg *arg)
{
	char text[256];
	size_t len;
	unsigned int i;

	len = snprintf(text, sizeof(text), "%s=%s", arg->key,
		       arg->name ? arg->name : "");
	for (i = 0; i < arg->nr_fds && len < sizeof(text); i++)
		len += snprintf(text + len, sizeof(text) - len, "%s%d",
				i || arg->name ? ":" : "", pass(arg->fds[i]));
	must(len < sizeof(text), "a parameter is too long");
	add(c, "%s", text, 0);
}

/* It has nothing to serve, nor may go on with anything, when its supervisor is dead. */
static void end_with(pid_t parent)
{
	must(!prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl");
	if (getppid() != parent)
		_exit(127);
}

static void run_nbdkit(struct server *s, const struct listener *l,
		       const struct server_arg *args, unsigned int nr, int control,
		       pid_t parent)
{
	struct command c = { 0 };
	int sockets[MAX_LISTEN];
	char number[24];
	unsigned int i;

	end_with(parent);
	add(&c, "nbdkit", NULL, 0);
	add(&c, "--foreground", NULL, 0);
	add_tls(&c, s);
	add(&c, "%s", s->plugin ? s->plugin : find_plugin(s->kind, c.plugin), 0);
	add(&c, "control=%2$d", NULL, pass(control));
	for (i = 0; i < nr; i++)
		add_arg(&c, &args[i]);
	for (i = 0; i < l->nr; i++) {
		sockets[i] = fcntl(l->fds[i], F_DUPFD_CLOEXEC, FIRST_OTHER);
		must(sockets[i] >= 0, "fcntl");
	}
	for (i = 0; i < l->nr; i++)
		must(dup2(sockets[i], FIRST_SOCKET + i) >= 0, "dup2");
	snprintf(number, sizeof(number), "%d", getpid());
	setenv("LISTEN_PID", number, 1);
	snprintf(number, sizeof(number), "%u", l->nr);
	setenv("LISTEN_FDS", number, 1);
	/* Ctrl-C is for the supervisor, which then stops this. */
	setpgid(0, 0);
	interrupt_restore();
	execvp(c.argv[0], c.argv);
	must(false, "cannot run it");
}

int server_start(struct server *s, const struct listener *l,
		 const struct server_arg *args, unsigned int nr)
{
	pid_t parent = getpid();
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		ret = -errno;
		msg_errno(ret, "socketpair");
		return ret;
	}
	s->pid = fork();
	if (s->pid < 0) {
		ret = -errno;
		s->pid = 0;
		msg_errno(ret, "nbdkit: fork");
		close(pair[0]);
		close(pair[1]);
		return ret;
	}
	if (!s->pid)
		run_nbdkit(s, l, args, nr, pair[1], parent);
	close(pair[1]);
	s->control = pair[0];
	s->pidfd = pidfd_open(s->pid, 0);
	if (s->pidfd < 0) {
		ret = -errno;
		msg_errno(ret, "nbdkit: pidfd_open");
		server_stop(s);
		return ret;
	}
	return 0;
}

void server_stop(struct server *s)
{
	if (!s->pid)
		return;
	/* Not politely: a client that is stuck would keep it. */
	kill(s->pid, SIGKILL);
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
	s->pid = 0;
	if (s->pidfd >= 0)
		close(s->pidfd);
	close(s->control);
}
