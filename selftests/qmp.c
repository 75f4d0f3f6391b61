// SPDX-License-Identifier: GPL-2.0-only
/*
 * One command to a QEMU monitor, for scripts
 *
 *     qmp SOCKET COMMAND [ARGUMENTS]
 *
 * ARGUMENTS are a JSON object.
 * Prints the answer.  Fails if there is none, or if it is an error.
 */
#include "qmp.h"

int main(int argc, char **argv)
{
	char answer[QMP_LINE];
	FILE *monitor;

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: qmp SOCKET COMMAND [ARGUMENTS]\n");
		return 2;
	}
	monitor = qmp_open(argv[1]);
	if (!monitor) {
		fprintf(stderr, "qmp: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	if (qmp_ask_with(monitor, argv[2], argc == 4 ? argv[3] : "{}", answer)) {
		fprintf(stderr, "qmp: %s: %s\n", argv[2], strerror(errno));
		fclose(monitor);
		return 1;
	}
	fputs(answer, stdout);
	fclose(monitor);
	return 0;
}
