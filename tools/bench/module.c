// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "module.h"

#define MODULE "dirtytrack"
#define UNLOAD_TRIES 50

static const char *module_file;
/* What it was loaded with by us. */
static const char *loaded_with;

void module_init(const char *file)
{
	module_file = file;
}

static bool is_loaded(void)
{
	return !access("/sys/module/" MODULE, F_OK);
}

static bool loaded_has_param(const char *param)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/" MODULE "/parameters/%s", param);
	return !access(path, F_OK);
}

/* In .modinfo there is "parmtype=NAME:TYPE". */
static bool file_has_param(const char *param)
{
	char entry[64];
	struct stat st;
	bool found;
	char *data;
	int fd;

	snprintf(entry, sizeof(entry), "parmtype=%s:", param);
	fd = open(module_file, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die("%s", module_file);
	data = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		die("%s", module_file);
	found = memmem(data, st.st_size, entry, strlen(entry));
	munmap(data, st.st_size);
	close(fd);
	return found;
}

bool module_has_param(const char *param)
{
	return module_file ? file_has_param(param) : loaded_has_param(param);
}

const char *module_missing(const char *params, const char *param)
{
	if (!module_file && !is_loaded())
		return "the module is not loaded, and --module does not say where it is";
	if (param && !module_has_param(param))
		return "the module has no such parameter";
	if (*params && !module_file)
		return "the module must be loaded with other parameters: see --module";
	return NULL;
}

static void unload(void)
{
	/* The last reference to a slot may still be on its way. */
	for (int i = 0; i < UNLOAD_TRIES; i++) {
		if (!syscall(SYS_delete_module, MODULE, O_NONBLOCK))
			return;
		if (errno != EAGAIN && errno != EBUSY && errno != EWOULDBLOCK)
			break;
		usleep(20000);
	}
	die("unloading the module");
}

void module_use(const char *params)
{
	int fd;

	if (!module_file || (loaded_with && !strcmp(loaded_with, params)))
		return;
	if (is_loaded())
		unload();
	fd = open(module_file, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, params, 0))
		die("loading %s %s", module_file, params);
	close(fd);
	loaded_with = params;
	/* devtmpfs makes it at once, udev changes its mode: not waited for. */
	if (access(DIRTYTRACK_DEVICE, R_OK | W_OK))
		die(DIRTYTRACK_DEVICE);
}
