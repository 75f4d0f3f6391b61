// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <string.h>

#include "../dirtytrack/units.h"
#include "tap.h"

static void sizes(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "1", 1 },
		{ "4096", 4096 },
		{ "7B", 7 },
		{ "4K", 4096 },
		{ "4k", 4096 },
		{ "4KiB", 4096 },
		{ "4kib", 4096 },
		{ "512M", 512ULL << 20 },
		{ "3G", 3ULL << 30 },
		{ "1T", 1ULL << 40 },
		{ "2P", 2ULL << 50 },
		{ "15E", 15ULL << 60 },
		{ "1.5G", 3ULL << 29 },
		{ "0.5K", 512 },
		{ "1.25M", 5ULL << 18 },
		{ "18446744073709551615", UINT64_MAX },
		{ "17592186044415M", 17592186044415ULL << 20 },
	};
	uint64_t bytes;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++) {
		bytes = 99;
		CHECK_EQ(parse_size(good[i].text, &bytes), 0);
		CHECK_EQ(bytes, good[i].bytes);
	}
}

static void bad_sizes(void)
{
	static const char *const invalid[] = {
		"", "K", "-1", "+1", " 1", "1 ", "1 K", "1X", "1KK", "1Ki",
		"1KB", "0x10", "1.", "1.K", ".5K", "1,5G", "1e3", "nan",
		"1BiB",
	};
	static const char *const large[] = {
		"18446744073709551616", "16E", "17592186044416M",
		"99999999999999999999999", "15.9999999999999999999E",
	};
	uint64_t bytes = 99;
	size_t i;

	for (i = 0; i < sizeof(invalid) / sizeof(*invalid); i++)
		if (parse_size(invalid[i], &bytes) != -EINVAL)
			tap_fail(__FILE__, __LINE__, "'%s' is taken",
				 invalid[i]);
	for (i = 0; i < sizeof(large) / sizeof(*large); i++)
		if (parse_size(large[i], &bytes) != -ERANGE)
			tap_fail(__FILE__, __LINE__, "'%s' is not too large",
				 large[i]);
	CHECK_EQ(bytes, 99);
}

static void numbers(void)
{
	uint64_t n = 99;

	CHECK_EQ(parse_number("0", 10, &n), 0);
	CHECK_EQ(n, 0);
	CHECK_EQ(parse_number("10", 10, &n), 0);
	CHECK_EQ(n, 10);
	CHECK_EQ(parse_number("11", 10, &n), -ERANGE);
	CHECK_EQ(parse_number("18446744073709551616", UINT64_MAX, &n), -ERANGE);
	CHECK_EQ(parse_number("", 10, &n), -EINVAL);
	CHECK_EQ(parse_number("-1", 10, &n), -EINVAL);
	CHECK_EQ(parse_number("1x", 10, &n), -EINVAL);
	CHECK_EQ(parse_number("ram0", 10, &n), -EINVAL);
	CHECK_EQ(n, 10);
}

static void seconds(void)
{
	double s = 99;

	CHECK_EQ(parse_seconds("0.25", &s), 0);
	CHECK(s == 0.25);
	CHECK_EQ(parse_seconds(".5", &s), 0);
	CHECK(s == 0.5);
	CHECK_EQ(parse_seconds("1000000", &s), 0);
	CHECK_EQ(parse_seconds("1000001", &s), -ERANGE);
	CHECK_EQ(parse_seconds("", &s), -EINVAL);
	CHECK_EQ(parse_seconds(".", &s), -EINVAL);
	CHECK_EQ(parse_seconds("-1", &s), -EINVAL);
	CHECK_EQ(parse_seconds("inf", &s), -EINVAL);
	CHECK_EQ(parse_seconds("1.2.3", &s), -EINVAL);
	CHECK(s == 1000000);
}

static void human(void)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0B" },
		{ 1023, "1023B" },
		{ 1024, "1K" },
		{ 1536, "1.5K" },
		{ 102400, "100K" },
		{ (1 << 20) - 1, "1M" },
		{ 3ULL << 29, "1.5G" },
		{ 1ULL << 40, "1T" },
		{ UINT64_MAX, "16E" },
	};
	char buf[HUMAN_LEN];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (strcmp(human_size(cases[i].bytes, buf), cases[i].text))
			tap_fail(__FILE__, __LINE__, "%llu is '%s', not '%s'",
				 (unsigned long long)cases[i].bytes, buf,
				 cases[i].text);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(sizes),
		TAP_TEST(bad_sizes),
		TAP_TEST(numbers),
		TAP_TEST(seconds),
		TAP_TEST(human),
	};

	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
