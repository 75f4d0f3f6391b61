// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>

#include "builtin.h"
#include "incoming-options.h"
#include "msg.h"

void incoming_options_init(struct incoming_options *opts)
{
	memset(opts, 0, sizeof(*opts));
	opts->timeout = 30;
}

int incoming_option(struct incoming_options *opts, int val, const char *arg)
{
	switch (val) {
	case 's':
		return slot_args_add(&opts->slots, arg);
	case 'l':
		opts->address = arg;
		return 0;
	case OPT_TLS_CERTIFICATES:
		opts->server.certificates = arg;
		return 0;
	case OPT_TLS_PSK:
		opts->server.psk = arg;
		return 0;
	case OPT_TLS_VERIFY_PEER:
		opts->server.verify_peer = true;
		return 0;
	case OPT_QEMU_TIMEOUT:
		return option_seconds("--timeout", arg, &opts->timeout);
	case OPT_PLUGIN:
		opts->server.plugin = arg;
		return 0;
	}
	return -EINVAL;
}

int incoming_options_check(const struct incoming_options *opts,
			   const char *command)
{
	if (!opts->slots.nr) {
		msg_error("%s: which slots? (--slot)", command);
		return -EINVAL;
	}
	if (!opts->address && !opts->from) {
		msg_error("%s: where is the guest to come in? (--listen)",
			  command);
		return -EINVAL;
	}
	if (opts->from && (opts->address || opts->server.certificates ||
			   opts->server.psk || opts->server.plugin)) {
		msg_error("%s: a guest that comes from files comes in nowhere: --listen, and what goes with it, are not for --from",
			  command);
		return -EINVAL;
	}
	if (opts->server.certificates && opts->server.psk) {
		msg_error("%s: only one of --tls-certificates and --tls-psk can be given",
			  command);
		return -EINVAL;
	}
	if (opts->server.verify_peer && !opts->server.certificates) {
		msg_error("--tls-verify-peer: it is of no use without --tls-certificates");
		return -EINVAL;
	}
	if (!opts->argv[0]) {
		msg_error("%s: which QEMU?", command);
		return -EINVAL;
	}
	return 0;
}
