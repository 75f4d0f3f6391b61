/* SPDX-License-Identifier: GPL-2.0-only */
/* Connections to NBD servers that no server can hold for ever. */
#ifndef NBD_CLIENT_H
#define NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nbd_handle;

/*
 * Connect until @deadline.  0; -EIO, libnbd having the error; -EINTR when interrupted;
 * -ETIMEDOUT; none of them with a message.
 */
int nbd_client_open(struct nbd_handle **nbd, const char *uri, double deadline);
/*
 * Wait for the command @cookie.  The same, and -errno of the server.  After -EINTR and
 * -ETIMEDOUT it is still under way, with the memory that it was given.
 */
int nbd_client_wait(struct nbd_handle *nbd, int64_t cookie, double deadline);
/* The same for bytes at the beginning of an export; @buf is not used after they return. */
int nbd_client_read(struct nbd_handle *nbd, void *buf, size_t count,
		    double deadline);
int nbd_client_write(struct nbd_handle *nbd, const void *buf, size_t count,
		     double deadline);
/*
 * Copy the first @size bytes of the file @fd there, each part of them within @timeout.
 * @answered is called after each, with when it was sent.  Likewise; a message only when the
 * file cannot be read.
 */
int nbd_client_put(struct nbd_handle *nbd, int fd, uint64_t size, double timeout,
		   void (*answered)(void *arg, double sent), void *arg);
/*
 * Say why nothing came of asking the @role that is to be at @uri, that @command starts;
 * libnbd has its error still, if it has one.  Nothing of a success, an interrupt, or what
 * has a message already (-EREMOTEIO).  Returns @err.
 */
int nbd_client_explain(const char *uri, const char *role, const char *command, int err);
/* Is it connected, to a server that lives?  @nbd may be NULL. */
bool nbd_client_is_ready(struct nbd_handle *nbd);
/* It is not waited for the server.  @nbd may be NULL. */
void nbd_client_close(struct nbd_handle *nbd);

/* @uri with the name of an export; to be freed.  NULL after a message. */
char *nbd_uri_export(const char *uri, const char *name);

#endif
