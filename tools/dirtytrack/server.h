/* SPDX-License-Identifier: GPL-2.0-only */
/* nbdkit with our plugin, as a child of the receiver. */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct listener;
struct slot_args;

/**
 * struct server - nbdkit
 * @certificates: directory of X.509 certificates, or NULL
 * @psk: file of pre-shared keys, or NULL
 * @verify_peer: clients must have a certificate
 * @plugin: what nbdkit is to load; NULL for ours, wherever it is
 * @pid: of nbdkit; 0 when there is none
 * @pidfd: the same
 * @control: our end of the socket to the plugin
 */
struct server {
	const char *certificates;
	const char *psk;
	bool verify_peer;
	const char *plugin;

	pid_t pid;
	int pidfd;
	int control;
};

/*
 * Start it, to serve at @listener.  @slots: NULL when memory is not served any more;
 * @state: fd of the device state.  0, or a message and -errno.
 */
int server_start(struct server *s, const struct listener *listener,
		 const struct slot_args *slots, int state);
void server_stop(struct server *s);

#endif
