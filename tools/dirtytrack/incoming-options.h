/* SPDX-License-Identifier: GPL-2.0-only */
/* Options of all subcommands to which a guest comes. */
#ifndef INCOMING_OPTIONS_H
#define INCOMING_OPTIONS_H

#include "server.h"
#include "slot-arg.h"

/**
 * struct incoming_options - what was asked for
 * @slots: to be made
 * @address: where to listen; or
 * @from: files that the guest is in; who has no option for it leaves it NULL
 * @server: how to serve
 * @timeout: seconds for QEMU to answer, and for a sender that is gone to come back
 * @argv: QEMU
 */
struct incoming_options {
	struct slot_args slots;
	const char *address;
	const char *from;
	struct server server;
	double timeout;
	char **argv;
};

/* Apart from the values of other options. */
enum {
	OPT_TLS_CERTIFICATES = 700,
	OPT_TLS_PSK,
	OPT_TLS_VERIFY_PEER,
	OPT_QEMU_TIMEOUT,
	OPT_PLUGIN,
};

#define INCOMING_OPTIONS						      \
	{ 's', "slot", "NAME=SIZE", "make a slot; may be repeated" },	      \
	{ 'l', "listen", "ADDRESS", "HOST:PORT, PORT or unix:PATH" },	      \
	{ OPT_TLS_CERTIFICATES, "tls-certificates", "DIR", "require TLS, with these" }, \
	{ OPT_TLS_VERIFY_PEER, "tls-verify-peer", NULL, "the sender must have one, too" }, \
	{ OPT_TLS_PSK, "tls-psk", "FILE", "require TLS, with pre-shared keys" }, \
	{ OPT_QEMU_TIMEOUT, "timeout", "SECONDS", "for QEMU, and a lost sender, 30 unless given" }, \
	{ OPT_PLUGIN, "plugin", "FILE", "nbdkit plugin, if not the installed one" }

void incoming_options_init(struct incoming_options *opts);
/* Take note of option @val, one of INCOMING_OPTIONS.  0, or a message and -errno. */
int incoming_option(struct incoming_options *opts, int val, const char *arg);
/* Is everything there?  @command is for messages.  0, or a message and -errno. */
int incoming_options_check(const struct incoming_options *opts,
			   const char *command);

#endif
