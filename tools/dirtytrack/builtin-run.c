// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack run: a command with slots
 *
 * A slot lives as long as something holds it.  Here that is the command: it
 * inherits the slots' fds, and takes the place of this process, so that its exit
 * status, its signals and its end are its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "builtin.h"
#include "device.h"
#include "msg.h"
#include "units.h"

#define MAX_SLOTS 64

/* A slot to be made, and what stands for it in the command's arguments. */
struct slot_arg {
	char name[DIRTYTRACK_NAME_LEN];
	char path[32];
	uint64_t size;
};

static const struct option_desc options[] = {
	{ 's', "slot", "NAME=SIZE", "make a slot; may be repeated" },
	{ 0 }
};

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

static int run(const struct builtin *cmd, int argc, char **argv)
{
	struct slot_arg slots[MAX_SLOTS];
	unsigned int nr = 0, i;
	int device, val, err;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (val == OPTION_BAD)
			goto usage;
		if (nr == MAX_SLOTS) {
			msg_error("--slot '%s': more than %d slots", optarg,
				  MAX_SLOTS);
			return EXIT_RUN;
		}
		if (parse_slot(optarg, &slots[nr]))
			goto usage;
		for (i = 0; i < nr; i++)
			if (!strcmp(slots[i].name, slots[nr].name)) {
				msg_error("--slot '%s': the name is given twice",
					  optarg);
				goto usage;
			}
		nr++;
	}
	argv += optind;
	if (!*argv) {
		msg_error("run: which command?");
		goto usage;
	}

	device = open_device();
	if (device < 0)
		return EXIT_RUN;
	for (i = 0; i < nr; i++)
		if (make_slot(device, &slots[i]))
			return EXIT_RUN;
	for (i = 0; argv[i]; i++) {
		argv[i] = substitute(argv[i], slots, nr);
		if (!argv[i]) {
			msg_errno(ENOMEM, "run");
			return EXIT_RUN;
		}
	}

	execvp(argv[0], argv);
	err = errno;
	msg_errno(err, "%s: cannot run it", argv[0]);
	return err == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;

usage:
	usage_error(cmd);
	/* Not EXIT_USAGE: the command might use that itself. */
	return EXIT_RUN;
}

const struct builtin builtin_run = {
	.name = "run",
	.summary = "Run a command that inherits new slots",
	.usage = "[--slot NAME=SIZE]... [--] COMMAND [ARGUMENT...]",
	.options = options,
	.is_wrapper = true,
	.run = run,
};
