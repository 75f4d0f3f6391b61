/* SPDX-License-Identifier: GPL-2.0-only */
/* As much of QEMU's monitor as stopping and continuing a guest takes. */
#ifndef DIRTYTRACK_QMP_H
#define DIRTYTRACK_QMP_H

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

/* The monitor answers at once unless the guest is in trouble. */
#define QMP_SECONDS 20

/*
 * Sends @command, unless it is NULL, and waits for the line that has @answer.
 * Other lines are events.  0, or -1 with errno: EPROTO if QEMU says no.
 */
static inline int qmp_talk(FILE *monitor, const char *command, const char *answer)
{
	char line[4096];

	/* Past the stream, which cannot turn from reading to writing on a socket. */
	if (command &&
	    dprintf(fileno(monitor), "{\"execute\": \"%s\"}\n", command) < 0)
		return -1;
	while (fgets(line, sizeof(line), monitor)) {
		if (strstr(line, answer))
			return 0;
		if (strstr(line, "\"error\"")) {
			errno = EPROTO;
			return -1;
		}
	}
	if (feof(monitor))
		errno = ECONNRESET;
	return -1;
}

static inline int qmp_command(FILE *monitor, const char *command)
{
	return qmp_talk(monitor, command, "\"return\"");
}

static inline FILE *qmp_open(const char *path)
{
	const struct timeval timeout = { .tv_sec = QMP_SECONDS };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	FILE *monitor;
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return NULL;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout))) {
		close(fd);
		return NULL;
	}
	monitor = fdopen(fd, "r");
	if (!monitor) {
		close(fd);
		return NULL;
	}
	if (qmp_talk(monitor, NULL, "\"QMP\"") ||
	    qmp_command(monitor, "qmp_capabilities")) {
		fclose(monitor);
		return NULL;
	}
	return monitor;
}

#endif /* DIRTYTRACK_QMP_H */
