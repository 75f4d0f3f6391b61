// SPDX-License-Identifier: GPL-2.0-only
/* The compact encoding of ranges: what it looks like, and what is no encoding. */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "tap.h"

#define LAST ((UINT64_C(1) << 52) - 1)

static const struct dirtytrack_range ranges[] = {
	{ 0, 1 },
	{ 0x123456789, 4095 },
	{ 2, 4096 },
	{ LAST, 1 },
	{ 0, LAST + 1 },
	{ 7, 0x123456789a },
};

#define NR (sizeof(ranges) / sizeof(*ranges))

static const unsigned char encoding[] = {
	0x01, 0, 0, 0, 0, 0, 0, 0,
	0xff, 0x9f, 0x78, 0x56, 0x34, 0x12, 0, 0,
	0, 0x20, 0, 0, 0, 0, 0, 0,		0, 0x10, 0, 0, 0, 0, 0, 0,
	0x01, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0, 0, 0, 0, 0, 0, 0, 0,			0, 0, 0, 0, 0, 0, 0x10, 0,
	0, 0x70, 0, 0, 0, 0, 0, 0,		0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0,
};

static void encodes(void)
{
	unsigned char buf[sizeof(encoding) + 2];
	size_t used = 99;

	memset(buf, 0xee, sizeof(buf));
	/* At an odd address, with a byte behind that is not to be touched. */
	CHECK_EQ(dtrack_ranges_encode(ranges, NR, buf + 1, sizeof(encoding), &used), 0);
	CHECK_EQ(used, sizeof(encoding));
	CHECK(!memcmp(buf + 1, encoding, sizeof(encoding)));
	CHECK_EQ(buf[sizeof(buf) - 1], 0xee);
	CHECK_EQ(dtrack_ranges_encode(ranges, 0, buf, 0, &used), 0);
	CHECK_EQ(used, 0);
}

static void encodes_into_little(void)
{
	unsigned char buf[sizeof(encoding)];
	size_t size, used;

	CHECK_EQ(dtrack_ranges_encode(ranges, NR, NULL, 0, &used), 0);
	CHECK_EQ(used, sizeof(encoding));
	for (size = 0; size < sizeof(encoding); size++) {
		memset(buf, 0xee, sizeof(buf));
		CHECK_EQ(dtrack_ranges_encode(ranges, NR, buf, size, &used), -ENOSPC);
		CHECK_EQ(used, sizeof(encoding));
		CHECK_EQ(buf[size], 0xee);
	}
}

static void encodes_no_nonsense(void)
{
	static const struct {
		struct dirtytrack_range range;
		int err;
	} bad[] = {
		{ { 5, 0 }, -EINVAL },
		{ { LAST + 1, 1 }, -EOVERFLOW },
		{ { LAST, 2 }, -EOVERFLOW },
		{ { 1, LAST + 1 }, -EOVERFLOW },
		{ { 1, UINT64_MAX }, -EOVERFLOW },
		{ { UINT64_MAX, 1 }, -EOVERFLOW },
	};
	struct dirtytrack_range two[2] = { { 1, 1 } };
	unsigned char buf[64];
	size_t i, used;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		two[1] = bad[i].range;
		CHECK_EQ(dtrack_ranges_encode(two, 2, buf, sizeof(buf), &used),
			 bad[i].err);
		CHECK_EQ(used, 8);
	}
}

static void decodes(void)
{
	struct dirtytrack_range out[NR + 1];
	unsigned char odd[sizeof(encoding) + 1];
	size_t nr = 99;

	memcpy(odd + 1, encoding, sizeof(encoding));
	memset(out, 0xee, sizeof(out));
	CHECK_EQ(dtrack_ranges_decode(odd + 1, sizeof(encoding), out, NR, &nr), 0);
	CHECK_EQ(nr, NR);
	CHECK(!memcmp(out, ranges, sizeof(ranges)));
	CHECK_EQ(out[NR].first, 0xeeeeeeeeeeeeeeee);
	CHECK_EQ(dtrack_ranges_decode(encoding, sizeof(encoding), NULL, 0, &nr), 0);
	CHECK_EQ(nr, NR);
	CHECK_EQ(dtrack_ranges_decode(encoding, 0, out, NR, &nr), 0);
	CHECK_EQ(nr, 0);
	memset(out, 0xee, sizeof(out));
	CHECK_EQ(dtrack_ranges_decode(encoding, sizeof(encoding), out, NR - 1, &nr),
		 -ENOSPC);
	CHECK_EQ(nr, NR);
	CHECK_EQ(out[NR - 2].npages, LAST + 1);
	CHECK_EQ(out[NR - 1].first, 0xeeeeeeeeeeeeeeee);
}

/* Ranges end after these many bytes, and so may the encoding. */
static void decodes_what_is_cut(void)
{
	static const size_t ends[] = { 0, 8, 16, 32, 40, 56, 72 };
	struct dirtytrack_range out[NR];
	size_t size, nr, whole = 0;

	for (size = 0; size <= sizeof(encoding); size++) {
		bool end;

		if (whole < NR && ends[whole + 1] <= size)
			whole++;
		end = ends[whole] == size;
		CHECK_EQ(dtrack_ranges_decode(encoding, size, out, NR, &nr),
			 end ? 0 : -ENODATA);
		CHECK_EQ(nr, whole);
	}
	CHECK_EQ(whole, NR);
}

static void decodes_no_nonsense(void)
{
	static const struct {
		unsigned char words[16];
		size_t size;
		int err;
	} bad[] = {
		/* Both counts are 0. */
		{ { 0, 0x10 }, 16, -EINVAL },
		{ { 0 }, 16, -EINVAL },
		/* The last page is 2^52 - 1. */
		{ { 0x02, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 8, -EOVERFLOW },
		{ { 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0 }, 16, -EOVERFLOW },
		{ { 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0 }, 16, -EOVERFLOW },
		{ { 0, 0x10, 0, 0, 0, 0, 0, 0,
		    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 16, -EOVERFLOW },
	};
	struct dirtytrack_range out[4];
	unsigned char buf[24] = { 1 };
	size_t i, nr;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		memcpy(buf + 8, bad[i].words, 16);
		CHECK_EQ(dtrack_ranges_decode(buf, 8 + bad[i].size, out, 4, &nr),
			 bad[i].err);
		CHECK_EQ(nr, 1);
	}
}

/* A sender may use two words for any count. */
static void decodes_long_form(void)
{
	static const unsigned char words[16] = { 0, 0x50, 0, 0, 0, 0, 0, 0, 3 };
	struct dirtytrack_range out;
	size_t nr;

	CHECK_EQ(dtrack_ranges_decode(words, sizeof(words), &out, 1, &nr), 0);
	CHECK_EQ(nr, 1);
	CHECK_EQ(out.first, 5);
	CHECK_EQ(out.npages, 3);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(encodes),
		TAP_TEST(encodes_into_little),
		TAP_TEST(encodes_no_nonsense),
		TAP_TEST(decodes),
		TAP_TEST(decodes_what_is_cut),
		TAP_TEST(decodes_no_nonsense),
		TAP_TEST(decodes_long_form),
	};

	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
