// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "msg.h"
#include "slot-arg.h"
#include "units.h"

static int parse_slot(const char *arg, struct slot_arg *slot)
{
	const char *eq = strchr(arg, '=');
	int ret;

	if (!eq || eq == arg) {
		msg_error("--slot '%s': NAME=SIZE is wanted, as in ram=4G", arg);
		return -EINVAL;
	}
	if (eq - arg >= DIRTYTRACK_NAME_LEN) {
		msg_error("--slot '%s': the name is longer than %d characters",
			  arg, DIRTYTRACK_NAME_LEN - 1);
		return -EINVAL;
	}
	snprintf(slot->name, sizeof(slot->name), "%.*s", (int)(eq - arg), arg);
	ret = parse_size(eq + 1, &slot->size);
	if (ret) {
		msg_error("--slot '%s': '%s' is %s", arg, eq + 1,
			  ret == -ERANGE ? "too large" :
			  "not a size, as in 4096, 512M or 1.5G");
		return ret;
	}
	if (!slot->size || slot->size % DTRACK_PAGE_SIZE) {
		msg_error("--slot '%s': %" PRIu64 " bytes are not a whole number of pages of %lu",
			  arg, slot->size, DTRACK_PAGE_SIZE);
		return -EINVAL;
	}
	return 0;
}

static void explain(int device, int err, const struct slot_arg *slot)
{
	struct dirtytrack_info info;
	char size[HUMAN_LEN];

	switch (-err) {
	case EEXIST:
		msg_error("slot %s: you have a slot of that name already",
			  slot->name);
		return;
	case EINVAL:
		msg_error("slot %s: a name has printable ASCII characters other than '/'",
			  slot->name);
		return;
	case ENOSPC:
		msg_error("slot %s: there are as many slots as the module allows",
			  slot->name);
		return;
	case EFBIG:
		if (dtrack_get_info(device, &info))
			break;
		msg_error("slot %s: %" PRIu64 " bytes are more than the module allows (%s)",
			  slot->name, slot->size,
			  human_size(info.out_max_slot_size, size));
		return;
	}
	msg_errno(err, "slot %s: cannot make it", slot->name);
}

static int make_slot(int device, struct slot_arg *slot)
{
	int fd, inherited;

	fd = dtrack_slot_create(device, slot->size, slot->name, NULL);
	if (fd < 0) {
		explain(device, fd, slot);
		return fd;
	}
	/*
	 * Without close-on-exec, and not the number of a standard stream that
	 * was closed: what the command prints must not go into the slot.
	 */
	inherited = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
	if (inherited < 0) {
		inherited = -errno;
		msg_errno(inherited, "slot %s: cannot let the command inherit it",
			  slot->name);
		return inherited;
	}
	close(fd);
	snprintf(slot->path, sizeof(slot->path), "/proc/self/fd/%d", inherited);
	slot->fd = inherited;
	return 0;
}

/* @arg with each {NAME} of a slot replaced by its path; NULL without memory. */
static char *substitute(const char *arg, const struct slot_arg *slots,
			unsigned int nr)
{
	char *out = NULL;
	size_t size;
	FILE *f = open_memstream(&out, &size);
	unsigned int i;

	if (!f)
		return NULL;
	while (*arg) {
		for (i = 0; i < nr; i++) {
			size_t len = strlen(slots[i].name);

			if (arg[0] == '{' &&
			    !strncmp(arg + 1, slots[i].name, len) &&
			    arg[len + 1] == '}') {
				fputs(slots[i].path, f);
				arg += len + 2;
				break;
			}
		}
		if (i == nr)
			fputc(*arg++, f);
	}
	if (fclose(f)) {
		free(out);
		return NULL;
	}
	return out;
}

int slot_args_add(struct slot_args *args, const char *arg)
{
	struct slot_arg *slot = &args->slots[args->nr];
	unsigned int i;
	int ret;

	if (args->nr == MAX_SLOTS) {
		msg_error("--slot '%s': more than %d slots", arg, MAX_SLOTS);
		return -E2BIG;
	}
	ret = parse_slot(arg, slot);
	if (ret)
		return ret;
	for (i = 0; i < args->nr; i++)
		if (!strcmp(args->slots[i].name, slot->name)) {
			msg_error("--slot '%s': the name is given twice", arg);
			return -EEXIST;
		}
	args->nr++;
	return 0;
}

int slot_args_make(struct slot_args *args)
{
	unsigned int i;
	int device, ret = 0;

	device = open_device();
	if (device < 0)
		return device;
	for (i = 0; i < args->nr && !ret; i++)
		ret = make_slot(device, &args->slots[i]);
	close(device);
	return ret;
}

int slot_args_substitute(const struct slot_args *args, char **argv)
{
	for (; *argv; argv++) {
		*argv = substitute(*argv, args->slots, args->nr);
		if (!*argv) {
			msg_errno(ENOMEM, "command");
			return -ENOMEM;
		}
	}
	return 0;
}
