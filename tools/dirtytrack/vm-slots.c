// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "file-io.h"
#include "msg.h"
#include "qmp.h"
#include "vm-slots.h"
#include "vm.h"

int vm_slots_find(struct vm_slots *slots, struct qmp *qmp,
		  const char *const *refs, unsigned int nr, unsigned int max)
{
	unsigned int all, i;
	int ret;

	memset(slots, 0, sizeof(*slots));
	ret = vm_memory(qmp, qmp_peer(qmp), &slots->memory, &slots->nr_memory);
	if (ret)
		return ret;
	all = nr ? nr : slots->nr_memory;
	if (!all) {
		msg_error("no memory of the guest is on a slot");
		return -EINVAL;
	}
	if (all > max) {
		msg_error("the guest has more than %u slots", max);
		return -E2BIG;
	}
	slots->refs = calloc(all, sizeof(*slots->refs));
	for (i = 0; slots->refs && i < all; i++) {
		slots->refs[i] = strdup(nr ? refs[i] : slots->memory[i].path);
		if (!slots->refs[i])
			break;
		slots->nr++;
	}
	if (slots->nr == all)
		return 0;
	msg_errno(ENOMEM, "slots");
	return -ENOMEM;
}

int vm_slots_check(const struct vm_slots *slots, const int *fds)
{
	unsigned int i, k;

	for (i = 0; i < slots->nr_memory; i++) {
		for (k = 0; k < slots->nr; k++)
			if (file_is_at(fds[k], slots->memory[i].path))
				break;
		if (k == slots->nr) {
			msg_error("memory %s: it is shared and not on one of the slots: it would be left behind",
				  slots->memory[i].id);
			return -EINVAL;
		}
	}
	if (slots->nr_memory == slots->nr)
		return 0;
	msg_error("of %u slots, the guest has %u", slots->nr, slots->nr_memory);
	return -EINVAL;
}

void vm_slots_free(struct vm_slots *slots)
{
	unsigned int i;

	for (i = 0; i < slots->nr; i++)
		free(slots->refs[i]);
	free(slots->refs);
	vm_memory_free(slots->memory, slots->nr_memory);
	memset(slots, 0, sizeof(*slots));
}
