// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the plugins say of the memory of a file, while that is released: a file of tmpfs, of
 * which a page is punched between two looks at it.
 */
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "../nbdkit/extents.h"
#include "tap.h"

#define PAGE 4096
#define NPAGES 20

off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
int nbdkit_add_extent(struct nbdkit_extents *extents, uint64_t offset, uint64_t length,
		      uint32_t type);
void nbdkit_error(const char *fmt, ...);

/* What was added, in pages. */
static struct {
	uint64_t first;
	uint64_t npages;
	bool hole;
} added[NPAGES];
static unsigned int nr, empty;

int nbdkit_add_extent(struct nbdkit_extents *extents, uint64_t offset, uint64_t length,
		      uint32_t type)
{
	(void)extents;
	empty += !length;
	if (nr == NPAGES)
		return -1;
	added[nr].first = offset / PAGE;
	added[nr].npages = length / PAGE;
	added[nr++].hole = type & NBDKIT_EXTENT_HOLE;
	return 0;
}

void nbdkit_error(const char *fmt, ...)
{
	(void)fmt;
}

/* It is punched when it was found to have memory; negative for none. */
static int released;

off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
	if (whence == SEEK_HOLE && offset == (off_t)released * PAGE) {
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, PAGE);
		released = -1;
	}
	return __real_lseek64(fd, offset, whence);
}

/* Of pages 5 to 9 and 12 to 19, while @page is released. */
static int extents_while(int page, uint32_t flags)
{
	static const char data[NPAGES * PAGE] = "data";
	int fd = memfd_create("extents", MFD_CLOEXEC), ret = -1;

	nr = 0;
	empty = 0;
	released = page;
	if (!ftruncate(fd, NPAGES * PAGE) &&
	    pwrite(fd, data, 5 * PAGE, 5 * PAGE) == 5 * PAGE &&
	    pwrite(fd, data, 8 * PAGE, 12 * PAGE) == 8 * PAGE)
		ret = add_extents(NULL, "extents", fd, NPAGES * PAGE, 15 * PAGE, 5 * PAGE,
				  flags);
	close(fd);
	return ret;
}

#define CHECK_ADDED(n, page, count, is_hole)				\
	do {								\
		CHECK_EQ(added[n].first, page);				\
		CHECK_EQ(added[n].npages, count);			\
		CHECK_EQ(added[n].hole, is_hole);			\
	} while (0)

static void all(void)
{
	CHECK_EQ(extents_while(-1, 0), 0);
	CHECK_EQ(nr, 3);
	CHECK_ADDED(0, 5, 5, false);
	CHECK_ADDED(1, 10, 2, true);
	CHECK_ADDED(2, 12, 8, false);
}

static void one(void)
{
	CHECK_EQ(extents_while(-1, NBDKIT_FLAG_REQ_ONE), 0);
	CHECK_EQ(nr, 1);
	CHECK_ADDED(0, 5, 5, false);
}

static void released_meanwhile(void)
{
	CHECK_EQ(extents_while(12, 0), 0);
	CHECK_EQ(empty, 0);
	CHECK_EQ(nr, 4);
	CHECK_ADDED(1, 10, 2, true);
	CHECK_ADDED(2, 12, 1, true);
	CHECK_ADDED(3, 13, 7, false);
}

/* Who asks for one gets one. */
static void one_released_meanwhile(void)
{
	CHECK_EQ(extents_while(5, NBDKIT_FLAG_REQ_ONE), 0);
	CHECK_EQ(empty, 0);
	CHECK(nr >= 1);
	CHECK_ADDED(0, 5, 1, true);
}

static const struct tap_test tests[] = {
	TAP_TEST(all),
	TAP_TEST(one),
	TAP_TEST(released_meanwhile),
	TAP_TEST(one_released_meanwhile),
};

int main(void)
{
	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
