// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack receive: take a guest from "dirtytrack migrate". */
#include <errno.h>
#include <getopt.h>

#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "receive.h"

enum {
	OPT_TLS_CERTIFICATES = 256,
	OPT_TLS_PSK,
	OPT_TLS_VERIFY_PEER,
	OPT_TIMEOUT,
	OPT_PLUGIN,
};

static const struct option_desc options[] = {
	{ 's', "slot", "NAME=SIZE", "make a slot; may be repeated" },
	{ 'l', "listen", "ADDRESS", "HOST:PORT, PORT or unix:PATH" },
	{ OPT_TLS_CERTIFICATES, "tls-certificates", "DIR", "require TLS, with these" },
	{ OPT_TLS_VERIFY_PEER, "tls-verify-peer", NULL, "the sender must have one, too" },
	{ OPT_TLS_PSK, "tls-psk", "FILE", "require TLS, with pre-shared keys" },
	{ OPT_TIMEOUT, "timeout", "SECONDS", "for QEMU, and a lost sender, 30 unless given" },
	{ OPT_PLUGIN, "plugin", "FILE", "nbdkit plugin, if not the installed one" },
	{ 0 }
};

static int set_option(struct receive *r, int val, const char *arg)
{
	switch (val) {
	case 's':
		return slot_args_add(&r->slots, arg);
	case 'l':
		r->address = arg;
		return 0;
	case OPT_TLS_CERTIFICATES:
		r->server.certificates = arg;
		return 0;
	case OPT_TLS_PSK:
		r->server.psk = arg;
		return 0;
	case OPT_TLS_VERIFY_PEER:
		r->server.verify_peer = true;
		return 0;
	case OPT_TIMEOUT:
		return option_seconds("--timeout", arg, &r->timeout);
	case OPT_PLUGIN:
		r->server.plugin = arg;
		return 0;
	}
	return -EINVAL;
}

static int check_options(const struct receive *r)
{
	if (!r->slots.nr) {
		msg_error("receive: which slots? (--slot)");
		return -EINVAL;
	}
	if (!r->address) {
		msg_error("receive: where is the guest to come in? (--listen)");
		return -EINVAL;
	}
	if (r->server.certificates && r->server.psk) {
		msg_error("receive: only one of --tls-certificates and --tls-psk can be given");
		return -EINVAL;
	}
	if (r->server.verify_peer && !r->server.certificates) {
		msg_error("--tls-verify-peer: it is of no use without --tls-certificates");
		return -EINVAL;
	}
	if (!r->argv[0]) {
		msg_error("receive: which QEMU?");
		return -EINVAL;
	}
	return 0;
}

static int receive(const struct builtin *cmd, int argc, char **argv)
{
	struct receive r = { .timeout = 30 };
	int val, status;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (val == OPTION_BAD || set_option(&r, val, optarg))
			goto usage;
	}
	r.argv = argv + optind;
	if (check_options(&r))
		goto usage;
	status = receive_run(&r);
	interrupt_die();
	return status;

usage:
	usage_error(cmd);
	/* As of run: QEMU might use EXIT_USAGE itself. */
	return EXIT_RUN;
}

const struct builtin builtin_receive = {
	.name = "receive",
	.summary = "Take a guest from another QEMU, with its memory on slots",
	.usage = "--slot NAME=SIZE... --listen ADDRESS [--] QEMU [ARGUMENT...]",
	.options = options,
	.is_wrapper = true,
	.run = receive,
};
