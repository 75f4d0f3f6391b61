// SPDX-License-Identifier: GPL-2.0-only
#include "destination.h"
#include "target.h"

/* A guest stands still meanwhile. */
#define ABORT_SECONDS 5

struct destination *destination_open(const char *name, const char *qmp,
				     double timeout)
{
	struct destination *d = NULL;

	switch (target_kind(name)) {
	case TARGET_NBD:
		d = destination_receiver(name, timeout);
		break;
	case TARGET_SLOT:
		d = destination_qemu(name, qmp, timeout);
		break;
	case TARGET_IMAGE:
		d = destination_files(name);
		break;
	case TARGET_NULL:
		d = destination_null();
		break;
	}
	if (!d)
		return NULL;
	d->name = name;
	d->timeout = timeout;
	return d;
}

int destination_prepare(struct destination *d)
{
	int ret = d->ops->prepare ? d->ops->prepare(d) : 0;

	if (!ret)
		d->prepared = true;
	return ret;
}

void destination_abort(struct destination *d)
{
	if (d->ops->abort)
		d->ops->abort(d, ABORT_SECONDS);
}

void destination_end(struct destination *d, bool there)
{
	if (d->ops->end)
		d->ops->end(d, there);
}

void destination_close(struct destination *d)
{
	if (d)
		d->ops->close(d);
}
