// SPDX-License-Identifier: GPL-2.0-only
/* Sockets of receivers: a client that vanished without a word is noticed. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../dirtytrack/listen.h"
#include "../dirtytrack/msg.h"
#include "tap.h"

static int value(int fd, int level, int option)
{
	socklen_t len = sizeof(int);
	int n = -1;

	return getsockopt(fd, level, option, &n, &len) ? -1 : n;
}

/* By the kernel, for whoever accepts the connection. */
static void silent_clients_are_noticed(const char *address)
{
	struct sockaddr_storage at;
	socklen_t len = sizeof(at);
	struct listener l;
	int client, fd;

	CHECK_EQ(listen_at(&l, address), 0);
	CHECK(l.nr >= 1);
	CHECK_EQ(getsockname(l.fds[0], (struct sockaddr *)&at, &len), 0);
	client = socket(at.ss_family, SOCK_STREAM, 0);
	CHECK_EQ(connect(client, (struct sockaddr *)&at, len), 0);
	fd = accept(l.fds[0], NULL, NULL);
	CHECK(fd >= 0);
	CHECK_EQ(value(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	CHECK(value(fd, IPPROTO_TCP, TCP_KEEPIDLE) <= 10);
	CHECK(value(fd, IPPROTO_TCP, TCP_KEEPINTVL) <= 5);
	CHECK(value(fd, IPPROTO_TCP, TCP_KEEPCNT) <= 3);
	/* What is sent is not acknowledged either. */
	CHECK(value(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) > 0);
	CHECK(value(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) <= 30000);
	close(fd);
	close(client);
	listen_end(&l);
}

static void by_address(void)
{
	silent_clients_are_noticed("127.0.0.1:0");
}

static void by_port(void)
{
	silent_clients_are_noticed("0");
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(by_address),
		TAP_TEST(by_port),
	};

	msg_silence();
	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
