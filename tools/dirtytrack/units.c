// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "units.h"

static const char suffixes[] = "KMGTPE";

/* Shift of "K", "KiB" and so on; -1 when @text is no suffix. */
static int suffix_shift(const char *text)
{
	const char *s;

	if (!*text)
		return 0;
	if (!strcasecmp(text, "B"))
		return 0;
	s = strchr(suffixes, toupper((unsigned char)*text));
	if (!s || (text[1] && strcasecmp(text + 1, "iB")))
		return -1;
	return 10 * (s - suffixes + 1);
}

/*
 * Whole numbers are exact up to 64 bits, which is why strtod() is not used for
 * them: the fraction alone goes through floating point.
 */
int parse_size(const char *text, uint64_t *bytes)
{
	uint64_t whole, part = 0;
	double fraction = 0;
	char *end;
	int shift;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end == '.') {
		double digit = 0.1;

		if (!isdigit((unsigned char)end[1]))
			return -EINVAL;
		for (end++; isdigit((unsigned char)*end); end++) {
			fraction += (*end - '0') * digit;
			digit /= 10;
		}
	}
	shift = suffix_shift(end);
	if (shift < 0)
		return -EINVAL;
	if (whole > UINT64_MAX >> shift)
		return -ERANGE;
	whole <<= shift;
	if (fraction > 0)
		part = llround(ldexp(fraction, shift));
	if (whole + part < whole)
		return -ERANGE;
	*bytes = whole + part;
	return 0;
}

int parse_number(const char *text, uint64_t max, uint64_t *number)
{
	uint64_t value;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end)
		return -EINVAL;
	if (errno || value > max)
		return -ERANGE;
	*number = value;
	return 0;
}

int parse_seconds(const char *text, double *seconds)
{
	double value;
	char *end;

	/* strtod() would take "inf", "nan", hexadecimal and leading blanks. */
	if (!*text || text[strspn(text, "0123456789.")])
		return -EINVAL;
	value = strtod(text, &end);
	if (*end || end == text)
		return -EINVAL;
	if (value > 1e6)
		return -ERANGE;
	*seconds = value;
	return 0;
}

const char *human_size(uint64_t bytes, char buf[HUMAN_LEN])
{
	double value = bytes;
	int unit = -1;

	if (bytes < 1024) {
		snprintf(buf, HUMAN_LEN, "%" PRIu64 "B", bytes);
		return buf;
	}
	/* 1023.95 would be printed as 1024.0 of its unit. */
	while (value >= 1023.95 && unit < 5) {
		value /= 1024;
		unit++;
	}
	/* "1.0M" would look more exact than it is. */
	if (value >= 99.95 || fabs(value - round(value)) < 0.05)
		snprintf(buf, HUMAN_LEN, "%.0f%c", value, suffixes[unit]);
	else
		snprintf(buf, HUMAN_LEN, "%.1f%c", value, suffixes[unit]);
	return buf;
}

double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}
