// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "holders.h"

/* What the links in /proc/PID/fd of slots begin with. */
#define SLOT_LINK "/dirtytrack:"

static bool has_open(pid_t pid, const struct stat *slot)
{
	struct dirent *entry;
	bool found = false;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		char link[sizeof(SLOT_LINK)] = "";
		struct stat st;

		/* By the link first: stat() of any file of others may block. */
		if (readlinkat(dirfd(dir), entry->d_name, link,
			       sizeof(link) - 1) < 0 || strcmp(link, SLOT_LINK))
			continue;
		found = !fstatat(dirfd(dir), entry->d_name, &st, 0) &&
			st.st_dev == slot->st_dev && st.st_ino == slot->st_ino;
	}
	closedir(dir);
	return found;
}

static bool has_mapped(pid_t pid, const struct stat *slot)
{
	unsigned int major_nr, minor_nr;
	unsigned long long ino;
	bool found = false;
	char *line = NULL;
	size_t size = 0;
	char path[64];
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return false;
	while (!found && getline(&line, &size, maps) > 0)
		found = sscanf(line, "%*x-%*x %*s %*x %x:%x %llu", &major_nr,
			       &minor_nr, &ino) == 3 &&
			makedev(major_nr, minor_nr) == slot->st_dev &&
			ino == slot->st_ino;
	free(line);
	fclose(maps);
	return found;
}

static int by_number(const struct dirent **a, const struct dirent **b)
{
	long x = atol((*a)->d_name), y = atol((*b)->d_name);

	return (x > y) - (x < y);
}

static int is_process(const struct dirent *entry)
{
	return isdigit((unsigned char)entry->d_name[0]);
}

int slot_holders(int slot, char *text, size_t size)
{
	struct dirent **processes;
	size_t len = 0;
	struct stat st;
	int nr, i;

	text[0] = '\0';
	if (fstat(slot, &st) < 0)
		return -errno;
	nr = scandir("/proc", &processes, is_process, by_number);
	if (nr < 0)
		return -errno;
	for (i = 0; i < nr; i++) {
		pid_t pid = atol(processes[i]->d_name);

		free(processes[i]);
		if (pid == getpid() ||
		    (!has_open(pid, &st) && !has_mapped(pid, &st)))
			continue;
		if (len + 16 > size - 4) {
			strcpy(text + len, " ...");
			/* The rest is only freed. */
			while (++i < nr)
				free(processes[i]);
			break;
		}
		len += sprintf(text + len, "%s%d", len ? " " : "", pid);
	}
	free(processes);
	return 0;
}
