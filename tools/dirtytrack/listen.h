/* SPDX-License-Identifier: GPL-2.0-only */
/* Where clients are waited for. */
#ifndef LISTEN_H
#define LISTEN_H

#define MAX_LISTEN 8

/**
 * struct listener - sockets that listen
 * @fds: sockets, close-on-exec
 * @nr: how many: a host name may have several addresses
 * @path: of a Unix socket, to be removed; or NULL
 */
struct listener {
	int fds[MAX_LISTEN];
	unsigned int nr;
	const char *path;
};

/*
 * At @address: "unix:PATH", "HOST:PORT", "[IPV6]:PORT" or "PORT".  0, or a message and
 * -errno; -EINVAL when it is no address.
 */
int listen_at(struct listener *l, const char *address);
void listen_end(struct listener *l);

#endif
