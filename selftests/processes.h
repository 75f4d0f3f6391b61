/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tests with more than one process: children, turns, fds that travel, other users
 */
#ifndef DIRTYTRACK_PROCESSES_H
#define DIRTYTRACK_PROCESSES_H

#include "dirtytrack_test.h"

#include <grp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* ---- children ---- */

/* Has the child ended by itself, with status 0? */
static inline bool child_ok(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	       !WEXITSTATUS(status);
}

/* Runs the statements in a child and waits for its end. */
#define in_child(...) do {						\
	pid_t __pid = fork();						\
									\
	ASSERT_LE(0, __pid);						\
	if (!__pid) {							\
		__VA_ARGS__;						\
		_exit(0);						\
	}								\
	ASSERT_TRUE(child_ok(__pid));					\
} while (0)

/*
 * Turns between two processes: each end of the pair waits for the other's
 * turn_give().  An end whose peer is gone is not kept waiting.
 */
static inline bool turn_give(int end)
{
	return send(end, "", 1, MSG_NOSIGNAL) == 1;
}

static inline bool turn_wait(int end)
{
	char c;

	return recv(end, &c, 1, 0) == 1;
}

/* ---- fds that travel ---- */

static inline void send_fd(int socket, int fd)
{
	char byte = 'f', control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	if (sendmsg(socket, &msg, 0) != 1)
		dt_broken("sendmsg: %s", strerror(errno));
}

static inline int receive_fd(int socket)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c;
	int fd;

	if (recvmsg(socket, &msg, 0) != 1)
		dt_broken("recvmsg: %s", strerror(errno));
	c = CMSG_FIRSTHDR(&msg);
	if (!c)
		dt_broken("the message has no fd");
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

/* ---- users ---- */

/* For good, unlike become(), and with /proc/self/fd in reach. */
static inline void become_for_good(uid_t uid)
{
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) ||
	    setresuid(uid, uid, uid) || prctl(PR_SET_DUMPABLE, 1))
		dt_broken("cannot become user %u: %s (tests run as root)", uid,
			  strerror(errno));
}

/* Runs the statements in a child that is a process of the user and nothing more. */
#define as_user(uid, ...) do {						\
	pid_t __pid = fork();						\
									\
	ASSERT_LE(0, __pid);						\
	if (!__pid) {							\
		become_for_good(uid);					\
		__VA_ARGS__;						\
		_exit(!_metadata->passed);				\
	}								\
	EXPECT_EQ(0, test_wait(__pid)) {				\
		TH_LOG("as user %u", uid);				\
	}								\
} while (0)

#endif /* DIRTYTRACK_PROCESSES_H */
