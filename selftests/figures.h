/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Figures that the kernel shows as text: of an fd, and of all slots together
 */
#ifndef DIRTYTRACK_FIGURES_H
#define DIRTYTRACK_FIGURES_H

#include "dirtytrack_test.h"

#define DEBUGFS "/sys/kernel/debug"

/* All of a file, in memory that is the caller's; NULL with errno. */
static inline char *slurp(const char *path)
{
	size_t size = 0, room = 1 << 16;
	char *text = malloc(room);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : 0;

	if (!text)
		dt_broken("no memory for %s", path);
	while (fd >= 0 && (n = read(fd, text + size, room - size - 1)) > 0) {
		size += n;
		if (room - size < 1 << 12) {
			room *= 2;
			text = realloc(text, room);
			if (!text)
				dt_broken("no memory for %s", path);
		}
	}
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[size] = 0;
	return text;
}

/* The number in the line "@key:<tab>number" of a text. */
static inline bool number_in(const char *text, const char *key, __u64 *value)
{
	size_t len = strlen(key);

	for (const char *line = text; line && *line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, len) && line[len] == ':' && line[len + 1] == '\t') {
			*value = strtoull(line + len + 2, NULL, 10);
			return true;
		}
	}
	return false;
}

static inline __u64 number_of_file(const char *path, const char *key)
{
	char *text = slurp(path);
	__u64 value;

	if (!text || !number_in(text, key, &value))
		dt_broken("%s has no %s", path, key);
	free(text);
	return value;
}

static inline __u64 fdinfo(int fd, const char *key)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return number_of_file(path, key);
}

static inline __u64 summary(const char *key)
{
	return number_of_file(DEBUGFS "/dirtytrack/summary", key);
}

#endif /* DIRTYTRACK_FIGURES_H */
