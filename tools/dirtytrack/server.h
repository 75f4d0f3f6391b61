/* SPDX-License-Identifier: GPL-2.0-only */
/* nbdkit with one of our plugins, as a child of who holds what it serves. */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct listener;

#define SERVER_ARG_FDS 4

/**
 * struct server_arg - a parameter of the plugin: "KEY=NAME:FD:FD..."
 * @key: its key
 * @name: what comes before the numbers; NULL for none
 * @fds: files of ours that it gets, under numbers of its own
 * @nr_fds: how many
 */
struct server_arg {
	const char *key;
	const char *name;
	int fds[SERVER_ARG_FDS];
	unsigned int nr_fds;
};

/**
 * struct server - nbdkit
 * @certificates: directory of X.509 certificates, or NULL
 * @psk: file of pre-shared keys, or NULL
 * @verify_peer: clients must have a certificate
 * @kind: which plugin of ours
 * @plugin: its file, or NULL for wherever it is
 * @pid: of nbdkit; 0 when there is none
 * @pidfd: the same
 * @control: our end of the socket to the plugin
 */
struct server {
	const char *certificates;
	const char *psk;
	bool verify_peer;
	const char *kind;
	const char *plugin;

	pid_t pid;
	int pidfd;
	int control;
};

/*
 * Start it, to serve at @listener what the parameters say; "control" is added to them.  It
 * does not outlive this process.  0, or a message and -errno.
 */
int server_start(struct server *s, const struct listener *listener,
		 const struct server_arg *args, unsigned int nr);
void server_stop(struct server *s);

#endif
