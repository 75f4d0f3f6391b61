/* SPDX-License-Identifier: GPL-2.0-only */
/* Connections to NBD servers that no server can hold for ever. */
#ifndef NBD_CLIENT_H
#define NBD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

struct nbd_handle;

/*
 * 0; -EIO, libnbd having the error; -EINTR when interrupted; -ETIMEDOUT; none of them
 * with a message.
 */
int nbd_client_open(struct nbd_handle **nbd, const char *uri);
/* Wait for the command @cookie.  The same, and -errno of the server. */
int nbd_client_wait(struct nbd_handle *nbd, int64_t cookie, double deadline);
/* It is not waited for the server.  @nbd may be NULL. */
void nbd_client_close(struct nbd_handle *nbd);

/* @uri with the name of an export; to be freed.  NULL after a message. */
char *nbd_uri_export(const char *uri, const char *name);

#endif
