// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "msg.h"
#include "saved.h"

static bool has_slash(const char *path)
{
	size_t len = strlen(path);

	return len && path[len - 1] == '/';
}

bool saved_is_dir(const char *path)
{
	struct stat st;

	return has_slash(path) || (!stat(path, &st) && S_ISDIR(st.st_mode));
}

static char *join(const char *path, const char *between, const char *name,
		  const char *suffix)
{
	char *out;

	if (asprintf(&out, "%s%s%s%s", path, between, name, suffix) >= 0)
		return out;
	msg_errno(ENOMEM, "%s", path);
	return NULL;
}

char *saved_memory(const char *path, const char *name)
{
	if (!saved_is_dir(path))
		return join(path, "", "", "");
	return join(path, has_slash(path) ? "" : "/", name, ".img");
}

char *saved_state(const char *path)
{
	if (!saved_is_dir(path))
		return join(path, ".", "state", "");
	return join(path, has_slash(path) ? "" : "/", "state", "");
}
