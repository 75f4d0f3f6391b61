// SPDX-License-Identifier: GPL-2.0-only
/*
 * The mapped bitmap and summary of a log: where they are, what they show, and
 * that nobody can write them.
 */
#include <setjmp.h>
#include <signal.h>

#include "dirtytrack_test.h"

#define PEEK DIRTYTRACK_HARVEST_PEEK

static __u64 round_up(__u64 n, __u64 to)
{
	return (n + to - 1) / to * to;
}

FIXTURE(log_map)
{
	int slot, log;
	struct dirtytrack_log_info info;
	__u64 words;
	const __u64 *bitmap, *summary;
	char *map;
};

FIXTURE_VARIANT(log_map)
{
	__u64 npages;
};

/* Edges of a word, of a page of bitmap, of a word and a page of summary. */
FIXTURE_VARIANT_ADD(log_map, p1) { .npages = 1 };
FIXTURE_VARIANT_ADD(log_map, p63) { .npages = 63 };
FIXTURE_VARIANT_ADD(log_map, p64) { .npages = 64 };
FIXTURE_VARIANT_ADD(log_map, p65) { .npages = 65 };
FIXTURE_VARIANT_ADD(log_map, p4097) { .npages = 4097 };
FIXTURE_VARIANT_ADD(log_map, p32768) { .npages = 32768 };
FIXTURE_VARIANT_ADD(log_map, p32769) { .npages = 32769 };
FIXTURE_VARIANT_ADD(log_map, p2097152) { .npages = 2097152 };
FIXTURE_VARIANT_ADD(log_map, p2097153) { .npages = 2097153 };

FIXTURE_SETUP(log_map)
{
	self->slot = test_new_slot(variant->npages);
	self->log = test_log_create(self->slot, 0);
	test_log_info(self->log, &self->info);
	self->words = bitmap_words(variant->npages);
	self->bitmap = mmap(NULL, self->info.out_bitmap_size, PROT_READ,
			    MAP_SHARED, self->log, self->info.out_bitmap_offset);
	ASSERT_NE(MAP_FAILED, (void *)self->bitmap) {
		TH_LOG("bitmap: %s", strerror(errno));
	}
	self->summary = mmap(NULL, self->info.out_summary_size, PROT_READ,
			     MAP_SHARED, self->log, self->info.out_summary_offset);
	ASSERT_NE(MAP_FAILED, (void *)self->summary) {
		TH_LOG("summary: %s", strerror(errno));
	}
	self->map = test_map(self->slot, 0, variant->npages);
}

FIXTURE_TEARDOWN(log_map)
{
	munmap((void *)self->bitmap, self->info.out_bitmap_size);
	munmap((void *)self->summary, self->info.out_summary_size);
	test_unmap(self->map, variant->npages);
	close(self->log);
	close(self->slot);
}

/* Pages at edges of words and of mapped pages; some are the same in small slots. */
static size_t some_pages(__u64 npages, __u64 *pages)
{
	const __u64 want[] = { 0, 1, 63, 64, 4095, 4096, 32767, 32768, npages - 1 };
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(want); i++)
		if (want[i] < npages && (!n || pages[n - 1] < want[i]))
			pages[n++] = want[i];
	return n;
}

TEST_F(log_map, geometry)
{
	const struct dirtytrack_log_info *i = &self->info;

	EXPECT_EQ(variant->npages, i->out_npages);
	EXPECT_EQ(0, i->out_bitmap_offset % PAGE_SIZE);
	EXPECT_EQ(0, i->out_summary_offset % PAGE_SIZE);
	EXPECT_EQ(round_up(self->words * 8, PAGE_SIZE), i->out_bitmap_size);
	EXPECT_EQ(round_up(bitmap_words(self->words) * 8, PAGE_SIZE),
		  i->out_summary_size);
	EXPECT_TRUE(i->out_bitmap_offset + i->out_bitmap_size <= i->out_summary_offset ||
		    i->out_summary_offset + i->out_summary_size <= i->out_bitmap_offset);
}

/*
 * The whole of both mappings, with what pads them, against what was written:
 * after a peek, which collects, and after a harvest, which takes.
 */
TEST_F(log_map, content)
{
	const __u64 bitmap_bytes = self->info.out_bitmap_size;
	const __u64 summary_bytes = self->info.out_summary_size;
	__u64 *bitmap = bitmap_alloc(bitmap_bytes * 8);
	__u64 *summary = bitmap_alloc(summary_bytes * 8);
	__u64 *seen = bitmap_alloc(variant->npages);
	__u64 pages[16];
	size_t n = some_pages(variant->npages, pages);

	EXPECT_TRUE(bytes_are(self->bitmap, 0, bitmap_bytes));
	EXPECT_TRUE(bytes_are(self->summary, 0, summary_bytes));

	for (size_t i = 0; i < n; i++) {
		page_write(self->map, pages[i], 1);
		bit_set(bitmap, pages[i]);
		bit_set(summary, pages[i] / 64);
	}
	ASSERT_EQ(n, test_harvest_all(self->log, PEEK, 0, variant->npages, seen, 0));
	EXPECT_EQ(0, memcmp(bitmap, self->bitmap, bitmap_bytes));
	EXPECT_EQ(0, memcmp(summary, self->summary, summary_bytes));

	/* All of the first word, and not all of the one where npages ends. */
	ASSERT_EQ(1, test_harvest_all(self->log, 0, 0, 1, seen, 0));
	bit_clear(bitmap, 0);
	if (!bitmap[0])
		bit_clear(summary, 0);
	EXPECT_EQ(0, memcmp(bitmap, self->bitmap, bitmap_bytes));
	EXPECT_EQ(0, memcmp(summary, self->summary, summary_bytes));

	test_harvest_all(self->log, 0, 0, variant->npages, seen, 0);
	EXPECT_TRUE(bytes_are(self->bitmap, 0, bitmap_bytes));
	EXPECT_TRUE(bytes_are(self->summary, 0, summary_bytes));
	free(bitmap);
	free(summary);
	free(seen);
}

/* A harvest of one log collects for the others, and their mappings show it. */
TEST_F(log_map, shows_what_others_collect)
{
	__u64 *seen = bitmap_alloc(variant->npages);
	__u64 last = variant->npages - 1;
	int other = test_log_create(self->slot, 0);

	page_write(self->map, last, 1);
	ASSERT_EQ(1, test_harvest_all(other, 0, 0, variant->npages, seen, 0));
	EXPECT_TRUE(bit_test(self->bitmap, last));
	EXPECT_TRUE(bit_test(self->summary, last / 64));
	close(other);
	free(seen);
}

TEST_F(log_map, all_set)
{
	const __u64 *bitmap, *summary;
	__u64 last = variant->npages - 1;
	int log;

	page_write(self->map, last, 1);
	log = test_log_create(self->slot, DIRTYTRACK_LOG_ALL_SET);
	bitmap = mmap(NULL, self->info.out_bitmap_size, PROT_READ, MAP_SHARED,
		      log, self->info.out_bitmap_offset);
	ASSERT_NE(MAP_FAILED, (void *)bitmap);
	summary = mmap(NULL, self->info.out_summary_size, PROT_READ, MAP_SHARED,
		       log, self->info.out_summary_offset);
	ASSERT_NE(MAP_FAILED, (void *)summary);
	EXPECT_EQ(1ULL << last % 64, bitmap[last / 64]);
	EXPECT_EQ(1ULL << last / 64 % 64, summary[last / 64 / 64]);
	munmap((void *)bitmap, self->info.out_bitmap_size);
	munmap((void *)summary, self->info.out_summary_size);
	close(log);
}

/* Any part that is made of pages can be mapped by itself. */
TEST_F(log_map, part)
{
	__u64 *seen = bitmap_alloc(variant->npages);
	__u64 last = variant->npages - 1;
	__u64 offset = last / 8 & -PAGE_SIZE;
	const __u64 *part;

	part = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_SHARED, self->log,
		    self->info.out_bitmap_offset + offset);
	ASSERT_NE(MAP_FAILED, (void *)part);
	page_write(self->map, last, 1);
	test_harvest_all(self->log, PEEK, 0, variant->npages, seen, 0);
	EXPECT_TRUE(bit_test(part, last - offset * 8));
	munmap((void *)part, PAGE_SIZE);
	free(seen);
}

/* ---- what must not be possible ---- */

#define EXPECT_NO_MAP(prot, flags, size, offset) do {			\
	void *__p = mmap(NULL, size, prot, flags, self->log, offset);	\
									\
	EXPECT_EQ(MAP_FAILED, __p) {					\
		TH_LOG("mapped with prot %#x, flags %#x", prot, flags);	\
	}								\
} while (0)

TEST_F(log_map, no_writable_mapping)
{
	const __u64 size = self->info.out_bitmap_size;
	const __u64 offsets[] = {
		self->info.out_bitmap_offset, self->info.out_summary_offset,
	};

	for (int i = 0; i < 2; i++) {
		errno = 0;
		EXPECT_NO_MAP(PROT_READ | PROT_WRITE, MAP_SHARED, PAGE_SIZE,
			      offsets[i]);
		EXPECT_EQ(EPERM, errno);
		errno = 0;
		EXPECT_NO_MAP(PROT_WRITE, MAP_SHARED, PAGE_SIZE, offsets[i]);
		EXPECT_EQ(EPERM, errno);
		/* A private copy would show one moment for ever. */
		EXPECT_NO_MAP(PROT_READ | PROT_WRITE, MAP_PRIVATE, PAGE_SIZE,
			      offsets[i]);
		EXPECT_NO_MAP(PROT_READ, MAP_PRIVATE, PAGE_SIZE, offsets[i]);
	}
	EXPECT_ERRNO(EACCES, mprotect((void *)self->bitmap, size,
				      PROT_READ | PROT_WRITE));
	EXPECT_ERRNO(EACCES, mprotect((void *)self->summary, PAGE_SIZE, PROT_WRITE));
	EXPECT_EQ(0, mprotect((void *)self->bitmap, size, PROT_NONE));
	EXPECT_EQ(0, mprotect((void *)self->bitmap, size, PROT_READ));
}

/* A debugger can write private read-only mappings, not this one. */
TEST_F(log_map, no_write_through_proc_mem)
{
	int fd = open("/proc/self/mem", O_RDWR);
	__u64 ones = ~0ULL, before = self->bitmap[0];

	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, pwrite(fd, &ones, sizeof(ones), (uintptr_t)self->bitmap));
	EXPECT_EQ(-1, pwrite(fd, &ones, sizeof(ones), (uintptr_t)self->summary));
	EXPECT_EQ(before, self->bitmap[0]);
	close(fd);
}

static sigjmp_buf bus_env;

static void on_bus(int sig)
{
	siglongjmp(bus_env, sig);
}

/*
 * There is nothing behind the summary and nothing behind the bitmap that is not
 * the summary: a mapping there is refused, or has no memory.
 */
static bool can_read(int log, __u64 size, __u64 offset, __u64 at)
{
	struct sigaction action = { .sa_handler = on_bus };
	char *p = mmap(NULL, size, PROT_READ, MAP_SHARED, log, offset);
	volatile bool read = false;

	if (p == MAP_FAILED)
		return false;
	sigaction(SIGBUS, &action, NULL);
	if (!sigsetjmp(bus_env, 1)) {
		(void)*(volatile char *)(p + at);
		read = true;
	}
	munmap(p, size);
	return read;
}

TEST_F(log_map, nothing_beyond)
{
	__u64 bitmap_end = self->info.out_bitmap_offset + self->info.out_bitmap_size;
	__u64 summary_end = self->info.out_summary_offset + self->info.out_summary_size;
	__u64 end = bitmap_end > summary_end ? bitmap_end : summary_end;
	const __u64 beyond[] = {
		end, end + PAGE_SIZE, 1ULL << 40, (1ULL << 62) - PAGE_SIZE,
		(1ULL << 63) - 2 * PAGE_SIZE,
	};

	/* The probe itself works. */
	EXPECT_TRUE(can_read(self->log, PAGE_SIZE, end - PAGE_SIZE, 0));
	for (size_t i = 0; i < ARRAY_SIZE(beyond); i++) {
		EXPECT_FALSE(can_read(self->log, PAGE_SIZE, beyond[i], 0)) {
			TH_LOG("offset %#llx", beyond[i]);
		}
	}
	EXPECT_FALSE(can_read(self->log, 2 * PAGE_SIZE, end - PAGE_SIZE, PAGE_SIZE));
}

/* A log has no content apart from its mappings. */
TEST_F(log_map, no_read_no_write)
{
	char c = 0;

	EXPECT_EQ(-1, read(self->log, &c, 1));
	EXPECT_EQ(-1, pread(self->log, &c, 1, 0));
	EXPECT_EQ(-1, write(self->log, &c, 1));
	EXPECT_EQ(-1, pwrite(self->log, &c, 1, 0));
	EXPECT_EQ(-1, ftruncate(self->log, 0));
}

TEST_HARNESS_MAIN
