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

/* Longer lines are read in pieces: what is looked for is at their beginning. */
#define QMP_LINE 4096

/* Waits for the line that has @what.  0, or -1 with errno: EPROTO for an error. */
static inline int qmp_wait(FILE *monitor, const char *what, char line[QMP_LINE])
{
	while (fgets(line, QMP_LINE, monitor)) {
		if (strstr(line, what))
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

/* Lines before the answer are events. */
static inline int qmp_ask_with(FILE *monitor, const char *command, const char *arguments,
			       char line[QMP_LINE])
{
	/* Past the stream, which cannot turn from reading to writing on a socket. */
	if (dprintf(fileno(monitor), "{\"execute\": \"%s\", \"arguments\": %s}\n", command,
		    arguments) < 0)
		return -1;
	return qmp_wait(monitor, "\"return\"", line);
}

static inline int qmp_ask(FILE *monitor, const char *command, char line[QMP_LINE])
{
	return qmp_ask_with(monitor, command, "{}", line);
}

static inline int qmp_command(FILE *monitor, const char *command)
{
	char line[QMP_LINE];

	return qmp_ask(monitor, command, line);
}

static inline FILE *qmp_open(const char *path)
{
	const struct timeval timeout = { .tv_sec = QMP_SECONDS };
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	char line[QMP_LINE];
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
	if (qmp_wait(monitor, "\"QMP\"", line) ||
	    qmp_command(monitor, "qmp_capabilities")) {
		fclose(monitor);
		return NULL;
	}
	return monitor;
}

#endif /* DIRTYTRACK_QMP_H */
