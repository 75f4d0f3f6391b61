/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef UNIX_SOCKET_H
#define UNIX_SOCKET_H

struct sockaddr_un;

/*
 * A stream socket, close-on-exec, and the address of @path, for bind() or connect().  fd,
 * or a message and -errno.
 */
int unix_socket(const char *path, struct sockaddr_un *addr);

#endif
