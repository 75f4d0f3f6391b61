// SPDX-License-Identifier: GPL-2.0-only
#include <string.h>

#include "target.h"

#define SLOT_PREFIX "slot:"

static bool is_uri(const char *name)
{
	static const char *const schemes[] = {
		"nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock",
		"nbds+vsock",
	};
	const char *end = strstr(name, "://");
	size_t i;

	for (i = 0; end && i < sizeof(schemes) / sizeof(*schemes); i++)
		if (strlen(schemes[i]) == (size_t)(end - name) &&
		    !memcmp(schemes[i], name, end - name))
			return true;
	return false;
}

enum target_kind target_kind(const char *name)
{
	if (is_uri(name))
		return TARGET_NBD;
	if (!strcmp(name, "null:"))
		return TARGET_NULL;
	if (!strncmp(name, SLOT_PREFIX, strlen(SLOT_PREFIX)))
		return TARGET_SLOT;
	return TARGET_IMAGE;
}

const char *target_slot_ref(const char *name)
{
	return name + strlen(SLOT_PREFIX);
}

struct target *target_open(const char *name, uint64_t npages,
			   unsigned int lanes)
{
	switch (target_kind(name)) {
	case TARGET_NBD:
		return target_nbd(name, npages, lanes);
	case TARGET_NULL:
		return target_null(npages, lanes);
	case TARGET_SLOT:
		return target_slot(target_slot_ref(name), npages, lanes);
	case TARGET_IMAGE:
		break;
	}
	return target_image(name, npages);
}

int target_next_data(struct target *t, uint64_t page, uint64_t *data)
{
	uint64_t end = page;
	bool zero = true;

	while (zero) {
		int ret;

		page = end;
		if (page >= t->npages) {
			page = t->npages;
			break;
		}
		ret = t->ops->extent(t, page, &end, &zero);
		if (ret)
			return ret;
	}
	*data = page;
	return 0;
}

void target_close(struct target *t)
{
	if (t)
		t->ops->close(t);
}
