// SPDX-License-Identifier: GPL-2.0-only
/* Nowhere: a guest is stopped as if it went somewhere, and goes on here. */
#include <errno.h>
#include <stdlib.h>

#include "destination.h"
#include "msg.h"
#include "target.h"

static struct target *null_target(struct destination *d, const char *name,
				  uint64_t npages, unsigned int lanes)
{
	(void)d;
	(void)name;
	return target_null(npages, lanes);
}

static int put_state(struct destination *d, const void *buf, size_t len,
		     uint64_t pos)
{
	(void)d;
	(void)buf;
	(void)len;
	(void)pos;
	return 0;
}

static void close_null(struct destination *d)
{
	free(d);
}

/* There is no @load, nor what comes after it: it is a rehearsal. */
static const struct destination_ops ops = {
	.target = null_target,
	.put_state = put_state,
	.close = close_null,
};

struct destination *destination_null(void)
{
	struct destination *d = calloc(1, sizeof(*d));

	if (!d) {
		msg_errno(ENOMEM, "null:");
		return NULL;
	}
	d->ops = &ops;
	d->rehearsal = true;
	return d;
}
