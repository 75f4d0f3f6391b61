/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Taking the module out and putting it in again, with other parameters
 *
 * Needs its file: DIRTYTRACK_KO=/path/dirtytrack.ko.
 */
#ifndef DIRTYTRACK_MODULE_H
#define DIRTYTRACK_MODULE_H

#include <sys/syscall.h>

#include "dirtytrack_test.h"

static inline int delete_module(void)
{
	return syscall(SYS_delete_module, "dirtytrack", O_NONBLOCK);
}

/* Its parameters as they are, to load it again with. */
static inline void parameters(char *buf, size_t size)
{
	DIR *dir = opendir("/sys/module/dirtytrack/parameters");
	struct dirent *entry;
	size_t n = 0;

	buf[0] = 0;
	while (dir && (entry = readdir(dir))) {
		char path[512], value[128] = "";
		FILE *f;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/module/dirtytrack/parameters/%s",
			 entry->d_name);
		f = fopen(path, "r");
		/* A string that nobody set reads as "(null)". */
		if (f && fgets(value, sizeof(value), f) && value[0] != '(') {
			value[strcspn(value, "\n")] = 0;
			n += snprintf(buf + n, size - n, "%s=%s ", entry->d_name, value);
		}
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
}

static inline int load_module(const char *ko, const char *params)
{
	int file = open(ko, O_RDONLY | O_CLOEXEC), ret;

	if (file < 0)
		dt_broken("DIRTYTRACK_KO=%s: %s", ko, strerror(errno));
	ret = syscall(SYS_finit_module, file, params, 0);
	close(file);
	return ret;
}

#endif /* DIRTYTRACK_MODULE_H */
