// SPDX-License-Identifier: GPL-2.0-only
/* dtrack_checksum() of a file's pages, as dirtytrack replicate --checksum prints it. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"

int main(int argc, char **argv)
{
	char page[DTRACK_PAGE_SIZE];
	uint64_t sum = 0, n;
	int fd = argc == 2 ? open(argv[1], O_RDONLY) : -1;

	if (fd < 0) {
		perror(argc == 2 ? argv[1] : "usage: checksum FILE");
		return 1;
	}
	for (n = 0; read(fd, page, sizeof(page)) == (ssize_t)sizeof(page); n++)
		sum += dtrack_checksum(page, n, 1);
	printf("%016" PRIx64 "\n", sum);
	return 0;
}
