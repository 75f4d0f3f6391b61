// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listen.h"
#include "msg.h"
#include "tcp.h"
#include "unix-socket.h"

#define UNIX_PREFIX "unix:"
#define BACKLOG 64
/* A client that is silent is asked so often. */
#define SILENT_PROBES 3

static int fail(const char *address, const char *what)
{
	int ret = -errno;

	msg_errno(ret, "%s: %s", address, what);
	return ret;
}

/* A socket that nobody listens at was left by a program that was killed. */
static void remove_leftover(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;

	if (fd < 0)
		return;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 &&
	    errno == ECONNREFUSED && !lstat(addr->sun_path, &st) &&
	    S_ISSOCK(st.st_mode))
		unlink(addr->sun_path);
	close(fd);
}

static int listen_unix(struct listener *l, const char *path)
{
	struct sockaddr_un addr;
	int fd = unix_socket(path, &addr), ret;

	if (fd < 0)
		return fd;
	remove_leftover(&addr);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = fail(path, "cannot listen there");
		close(fd);
		return ret;
	}
	l->fds[l->nr++] = fd;
	l->path = path;
	if (listen(fd, BACKLOG) < 0)
		return fail(path, "cannot listen there");
	return 0;
}

static int listen_addr(struct listener *l, const struct addrinfo *ai)
{
	int one = 1, ret;
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC,
			ai->ai_protocol);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* Whoever accepts a connection has this from here. */
	tcp_notice_silence(fd, SILENT_PROBES);
	/* The wildcard of IPv4 has a socket of its own. */
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	l->fds[l->nr++] = fd;
	return 0;
}

static int listen_tcp(struct listener *l, const char *address)
{
	const struct addrinfo hints = {
		.ai_flags = AI_PASSIVE | AI_ADDRCONFIG,
		.ai_socktype = SOCK_STREAM,
	};
	const char *colon = strrchr(address, ':');
	const char *port = colon ? colon + 1 : address;
	size_t len = colon ? colon - address : 0;
	struct addrinfo *list, *ai;
	char host[256];
	int err;

	if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
		address++;
		len -= 2;
	}
	if (!*port || len >= sizeof(host)) {
		msg_error("'%s' is not an address, as in HOST:PORT or unix:PATH",
			  address);
		return -EINVAL;
	}
	snprintf(host, sizeof(host), "%.*s", (int)len, address);
	err = getaddrinfo(len ? host : NULL, port, &hints, &list);
	if (err) {
		msg_error("%s: %s", address, gai_strerror(err));
		return -EADDRNOTAVAIL;
	}
	err = 0;
	for (ai = list; ai && l->nr < MAX_LISTEN && !err; ai = ai->ai_next)
		err = listen_addr(l, ai);
	freeaddrinfo(list);
	if (err) {
		msg_errno(err, "%s: cannot listen there", address);
		listen_end(l);
	}
	return err;
}

int listen_at(struct listener *l, const char *address)
{
	memset(l, 0, sizeof(*l));
	if (!strncmp(address, UNIX_PREFIX, strlen(UNIX_PREFIX)))
		return listen_unix(l, address + strlen(UNIX_PREFIX));
	return listen_tcp(l, address);
}

void listen_end(struct listener *l)
{
	unsigned int i;

	for (i = 0; i < l->nr; i++)
		close(l->fds[i]);
	l->nr = 0;
	if (l->path)
		unlink(l->path);
	l->path = NULL;
}
