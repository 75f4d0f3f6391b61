// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "../lib/dirtytrack.h"
#include "interrupt.h"
#include "msg.h"
#include "range-list.h"
#include "units.h"

/* A step that ends within a range does so where the module changes over, at 2 MiB. */
#define STEP_ALIGN 512

int range_format_parse(const char *text, enum range_format *format)
{
	if (!strcmp(text, "text"))
		*format = RANGES_TEXT;
	else if (!strcmp(text, "json"))
		*format = RANGES_JSON;
	else if (!strcmp(text, "binary"))
		*format = RANGES_BINARY;
	else
		return -EINVAL;
	return 0;
}

static int make_room(struct range_list *list, size_t room)
{
	struct dirtytrack_range *ranges;

	if (room <= list->room)
		return 0;
	if (room < list->room * 2)
		room = list->room * 2;
	ranges = reallocarray(list->ranges, room, sizeof(*ranges));
	if (!ranges)
		return -ENOMEM;
	list->ranges = ranges;
	list->room = room;
	return 0;
}

int range_list_add(struct range_list *list, uint64_t first, uint64_t npages)
{
	if (!npages)
		return -EINVAL;
	if (first + npages < first)
		return -EOVERFLOW;
	if (make_room(list, list->nr + 1))
		return -ENOMEM;
	list->ranges[list->nr].first = first;
	list->ranges[list->nr++].npages = npages;
	return 0;
}

/* ---- text ---- */

/* A number of pages, or a size; @is_size tells which it was. */
static int parse_pages(const char *text, uint64_t *pages, bool *is_size)
{
	uint64_t bytes;
	int ret;

	*is_size = text[strspn(text, "0123456789")];
	if (!*is_size)
		return parse_number(text, UINT64_MAX, pages);
	ret = parse_size(text, &bytes);
	if (!ret && bytes % DTRACK_PAGE_SIZE)
		ret = -EINVAL;
	*pages = bytes / DTRACK_PAGE_SIZE;
	return ret;
}

/* One range, of which @text is a copy to be cut up. */
static int parse_range(struct range_list *list, char *text)
{
	char *sign = strpbrk(text, "-+");
	bool plus = sign && *sign == '+', is_size;
	uint64_t first, second = 0;
	int ret;

	if (sign)
		*sign = '\0';
	ret = parse_pages(text, &first, &is_size);
	if (!ret && sign)
		ret = parse_pages(sign + 1, &second, &is_size);
	if (ret)
		return ret;
	if (!sign)
		return range_list_add(list, first, 1);
	if (plus)
		return range_list_add(list, first, second);
	/* The last page is meant, the offset of an end is not. */
	if (!is_size && ++second == 0)
		return -EOVERFLOW;
	return second > first ? range_list_add(list, first, second - first) : -EINVAL;
}

/* @where is "" or says where it was found. */
static int parse_word(struct range_list *list, const char *word, size_t len,
		      const char *where)
{
	char copy[64];
	int ret = -EINVAL;

	if (len < sizeof(copy)) {
		memcpy(copy, word, len);
		copy[len] = '\0';
		ret = parse_range(list, copy);
	}
	if (ret == -ENOMEM)
		msg_errno(ret, "ranges");
	else if (ret == -EOVERFLOW || ret == -ERANGE)
		msg_error("%srange '%.*s': it is too large", where,
			  len < 64 ? (int)len : 64, word);
	else if (ret)
		msg_error("%s'%.*s' is no range of pages, as 5, 0-99, 100+50 or 1G+512M",
			  where, len < 64 ? (int)len : 64, word);
	return ret;
}

int range_list_parse(struct range_list *list, const char *text)
{
	return parse_word(list, text, strlen(text), "");
}

static bool is_gap(char c)
{
	return isspace((unsigned char)c) || c == ',';
}

static int parse_text(struct range_list *list, const char *text, size_t len,
		      const char *path)
{
	const char *end = text + len;
	unsigned int line = 1;
	char where[256];
	int ret = 0;

	while (text < end && !ret) {
		const char *word = text;

		if (*text == '\n')
			line++;
		if (*text == '#') {
			while (text < end && *text != '\n')
				text++;
			continue;
		}
		if (is_gap(*text)) {
			text++;
			continue;
		}
		while (text < end && !is_gap(*text) && *text != '#')
			text++;
		snprintf(where, sizeof(where), "%s, line %u: ", path, line);
		ret = parse_word(list, word, text - word, where);
	}
	return ret;
}

/* ---- JSON ---- */

static int get_number(struct json_object *obj, uint64_t *number)
{
	if (!json_object_is_type(obj, json_type_int) || json_object_get_int64(obj) < 0)
		return -EINVAL;
	*number = json_object_get_uint64(obj);
	return 0;
}

/* {"first": 1, "pages": 2} or, as the library calls it, "npages". */
static int add_object(struct range_list *list, struct json_object *obj)
{
	struct json_object *first, *pages;
	uint64_t a, b;

	if (!json_object_object_get_ex(obj, "first", &first) ||
	    (!json_object_object_get_ex(obj, "pages", &pages) &&
	     !json_object_object_get_ex(obj, "npages", &pages)) ||
	    get_number(first, &a) || get_number(pages, &b))
		return -EINVAL;
	return range_list_add(list, a, b);
}

/* [1, 2] */
static int add_pair(struct range_list *list, struct json_object *obj)
{
	uint64_t a, b;

	if (json_object_array_length(obj) != 2 ||
	    get_number(json_object_array_get_idx(obj, 0), &a) ||
	    get_number(json_object_array_get_idx(obj, 1), &b))
		return -EINVAL;
	return range_list_add(list, a, b);
}

static int add_array(struct range_list *list, struct json_object *array)
{
	size_t i, nr = json_object_array_length(array);
	int ret = 0;

	for (i = 0; i < nr && !ret; i++) {
		struct json_object *obj = json_object_array_get_idx(array, i);

		if (json_object_is_type(obj, json_type_object))
			ret = add_object(list, obj);
		else if (json_object_is_type(obj, json_type_array))
			ret = add_pair(list, obj);
		else
			ret = -EINVAL;
	}
	return ret;
}

/* An array of ranges, an object that has one, or a range: as the command prints them. */
static int add_value(struct range_list *list, struct json_object *obj)
{
	struct json_object *ranges;

	if (json_object_is_type(obj, json_type_array))
		return add_array(list, obj);
	if (!json_object_is_type(obj, json_type_object))
		return -EINVAL;
	if (!json_object_object_get_ex(obj, "ranges", &ranges))
		return add_object(list, obj);
	return json_object_is_type(ranges, json_type_array) ?
	       add_array(list, ranges) : -EINVAL;
}

static const char *skip_space(const char *text, const char *end)
{
	while (text < end && isspace((unsigned char)*text))
		text++;
	return text;
}

/* One value after the other. */
static int parse_json(struct range_list *list, const char *text, size_t len,
		      const char *path)
{
	const char *end = text + len, *at = skip_space(text, end);
	struct json_tokener *tok = json_tokener_new();
	int ret = tok ? 0 : -ENOMEM;

	while (!ret && at < end) {
		/* The parser counts by int. */
		int some = end - at < 1 << 30 ? (int)(end - at) : 1 << 30;
		struct json_object *obj = json_tokener_parse_ex(tok, at, some);

		if (obj)
			ret = add_value(list, obj);
		else
			ret = -EINVAL;
		json_object_put(obj);
		if (ret)
			break;
		at = skip_space(at + json_tokener_get_parse_end(tok), end);
		json_tokener_reset(tok);
	}
	if (tok)
		json_tokener_free(tok);
	if (ret == -ENOMEM)
		msg_errno(ret, "%s", path);
	else if (ret)
		msg_error("%s: byte %zu: no JSON with ranges of pages, as [{\"first\": 100, \"pages\": 50}]",
			  path, at - text);
	return ret;
}

/* ---- binary ---- */

static int parse_binary(struct range_list *list, const char *buf, size_t len,
			const char *path)
{
	size_t nr;
	int ret = dtrack_ranges_decode(buf, len, NULL, 0, &nr);

	if (!ret)
		ret = make_room(list, list->nr + nr);
	if (!ret)
		ret = dtrack_ranges_decode(buf, len, list->ranges + list->nr,
					   nr, &nr);
	switch (ret) {
	case 0:
		list->nr += nr;
		break;
	case -ENODATA:
		msg_error("%s: it ends within range %zu", path, nr + 1);
		break;
	case -EINVAL:
		msg_error("%s: range %zu has no pages", path, nr + 1);
		break;
	case -EOVERFLOW:
		msg_error("%s: range %zu is too large", path, nr + 1);
		break;
	default:
		msg_errno(ret, "%s", path);
	}
	return ret;
}

/* ---- files ---- */

static int read_all(int fd, char **buf, size_t *len)
{
	size_t room = 0;

	*buf = NULL;
	*len = 0;
	for (;;) {
		ssize_t n;

		if (*len == room) {
			char *more;

			room = room ? room * 2 : 64 * 1024;
			more = realloc(*buf, room);
			if (!more)
				return -ENOMEM;
			*buf = more;
		}
		n = read(fd, *buf + *len, room - *len);
		if (n < 0 && (errno != EINTR || interrupted))
			return -errno;
		if (!n)
			return 0;
		if (n > 0)
			*len += n;
	}
}

static int parse(struct range_list *list, const char *buf, size_t len,
		 const char *path, enum range_format format)
{
	const char *begin = skip_space(buf, buf + len);

	if (format == RANGES_GUESS)
		format = begin < buf + len && (*begin == '[' || *begin == '{') ?
			 RANGES_JSON : RANGES_TEXT;
	switch (format) {
	case RANGES_JSON:
		return parse_json(list, buf, len, path);
	case RANGES_BINARY:
		return parse_binary(list, buf, len, path);
	default:
		return parse_text(list, buf, len, path);
	}
}

int range_list_read(struct range_list *list, const char *path,
		    enum range_format format)
{
	bool is_stdin = !strcmp(path, "-");
	const char *name = is_stdin ? "standard input" : path;
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	char *buf = NULL;
	size_t len = 0;
	int ret;

	ret = fd < 0 ? -errno : read_all(fd, &buf, &len);
	if (ret && ret != -EINTR)
		msg_errno(ret, "%s", name);
	if (!ret)
		ret = parse(list, buf, len, name, format);
	free(buf);
	if (fd >= 0 && !is_stdin)
		close(fd);
	return ret;
}

/* ---- lists ---- */

static int by_first(const void *a, const void *b)
{
	const struct dirtytrack_range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

void range_list_sort(struct range_list *list)
{
	struct dirtytrack_range *r = list->ranges;
	size_t i, nr = 0;

	if (!list->nr)
		return;
	qsort(r, list->nr, sizeof(*r), by_first);
	for (i = 1; i < list->nr; i++) {
		uint64_t end = r[nr].first + r[nr].npages;

		if (r[i].first > end)
			r[++nr] = r[i];
		else if (r[i].first + r[i].npages > end)
			r[nr].npages = r[i].first + r[i].npages - r[nr].first;
	}
	list->nr = nr + 1;
}

int range_list_check(const struct range_list *list, uint64_t npages,
		     const char *ref)
{
	const struct dirtytrack_range *r;

	if (!list->nr)
		return 0;
	r = &list->ranges[list->nr - 1];
	if (r->first + r->npages <= npages)
		return 0;
	msg_error("slot %s: it has %" PRIu64 " pages, and a range ends with page %" PRIu64,
		  ref, npages, (uint64_t)(r->first + r->npages - 1));
	return -EINVAL;
}

uint64_t range_list_pages(const struct range_list *list)
{
	uint64_t pages = 0;
	size_t i;

	for (i = 0; i < list->nr; i++)
		pages += list->ranges[i].npages;
	return pages;
}

void range_list_free(struct range_list *list)
{
	free(list->ranges);
	memset(list, 0, sizeof(*list));
}

uint32_t range_list_step(const struct range_list *list, struct range_cursor *cursor,
			 struct dirtytrack_range *ranges, uint32_t max,
			 uint64_t pages)
{
	uint32_t nr = 0;

	while (nr < max && pages && cursor->range < list->nr) {
		struct dirtytrack_range r = list->ranges[cursor->range];

		r.first += cursor->done;
		r.npages -= cursor->done;
		if (r.npages > pages) {
			uint64_t cut = r.first + pages - (r.first + pages) % STEP_ALIGN;

			r.npages = cut > r.first ? cut - r.first : pages;
			/* The rest begins the next step. */
			pages = 0;
			cursor->done += r.npages;
		} else {
			pages -= r.npages;
			cursor->done = 0;
			cursor->range++;
		}
		ranges[nr++] = r;
	}
	return nr;
}
