// SPDX-License-Identifier: GPL-2.0-only
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <json-c/json.h>
#include <libsmartcols/libsmartcols.h>

#include "msg.h"
#include "table.h"
#include "units.h"

#define MAX_COLUMNS 32

struct table {
	const struct column *columns;
	const struct table_options *opts;
	size_t shown[MAX_COLUMNS];
	size_t nr_shown;
	struct libscols_table *scols;
	struct json_object *rows;
	bool headed;
};

bool table_option(struct table_options *opts, int val, const char *arg)
{
	switch (val) {
	case 'b':
		opts->bytes = true;
		return true;
	case 'J':
		opts->json = true;
		return true;
	case 'n':
		opts->noheadings = true;
		return true;
	case 'o':
		opts->list = arg;
		return true;
	case OPT_OUTPUT_ALL:
		opts->all = true;
		return true;
	case 'r':
		opts->raw = true;
		return true;
	default:
		return false;
	}
}

static int show(struct table *t, size_t index)
{
	size_t i;

	for (i = 0; i < t->nr_shown; i++)
		if (t->shown[i] == index)
			return 0;
	if (t->nr_shown == MAX_COLUMNS)
		return -E2BIG;
	t->shown[t->nr_shown++] = index;
	return 0;
}

static int show_named(struct table *t, size_t nr, const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (strlen(t->columns[i].name) == len &&
		    !strncasecmp(t->columns[i].name, name, len))
			return show(t, i);
	msg_error("--output: there is no column '%.*s'", (int)len, name);
	return -EINVAL;
}

static int select_columns(struct table *t, size_t nr)
{
	const char *list = t->opts->list;
	size_t i;
	int ret;

	if (t->opts->all || !list || *list == '+')
		for (i = 0; i < nr; i++) {
			if (!t->opts->all &&
			    (t->columns[i].flags & COLUMN_HIDDEN))
				continue;
			ret = show(t, i);
			if (ret)
				return ret;
		}
	if (t->opts->all || !list)
		return 0;
	if (*list == '+')
		list++;
	for (;;) {
		size_t len = strcspn(list, ",");

		ret = show_named(t, nr, list, len);
		if (ret)
			return ret;
		if (!list[len])
			return 0;
		list += len + 1;
	}
}

static bool is_text(const struct column *c)
{
	return c->type == COLUMN_TEXT || c->type == COLUMN_BOOL;
}

struct table *table_new(const struct column *columns, size_t nr,
			const struct table_options *opts)
{
	struct table *t = calloc(1, sizeof(*t));
	size_t i;

	if (!t) {
		msg_errno(ENOMEM, "table");
		return NULL;
	}
	t->columns = columns;
	t->opts = opts;
	if (select_columns(t, nr))
		goto fail;
	if (opts->json) {
		t->rows = json_object_new_array();
		if (!t->rows)
			goto nomem;
		return t;
	}
	t->scols = scols_new_table();
	if (!t->scols)
		goto nomem;
	scols_table_enable_noheadings(t->scols, opts->noheadings);
	scols_table_enable_raw(t->scols, opts->raw);
	for (i = 0; i < t->nr_shown; i++) {
		const struct column *c = &columns[t->shown[i]];

		if (!scols_table_new_column(t->scols, c->name, 0,
					    is_text(c) ? 0 : SCOLS_FL_RIGHT))
			goto nomem;
	}
	return t;

nomem:
	msg_errno(ENOMEM, "table");
fail:
	table_free(t);
	return NULL;
}

void table_free(struct table *t)
{
	if (!t)
		return;
	scols_unref_table(t->scols);
	json_object_put(t->rows);
	free(t);
}

const char *cell_format(const struct column *c, const struct cell *cell,
			bool bytes, char buf[CELL_LEN])
{
	if (!cell->set)
		return "";
	switch (c->type) {
	case COLUMN_TEXT:
		return cell->text;
	case COLUMN_SIZE:
	case COLUMN_RATE:
		if (!bytes) {
			human_size(cell->number, buf);
			if (c->type == COLUMN_RATE)
				strcat(buf, "/s");
			return buf;
		}
		/* fall through */
	case COLUMN_NUMBER:
		snprintf(buf, CELL_LEN, "%" PRIu64, cell->number);
		return buf;
	case COLUMN_BOOL:
		return cell->number ? "yes" : "no";
	case COLUMN_SECONDS:
		snprintf(buf, CELL_LEN, "%.3f", cell->real);
		return buf;
	}
	return "";
}

struct json_object *json_seconds(double seconds)
{
	char text[32];

	/* Microseconds: the seventeen digits of the default are noise. */
	snprintf(text, sizeof(text), "%.6f", seconds);
	return json_object_new_double_s(seconds, text);
}

static struct json_object *json_cell(const struct column *c,
				     const struct cell *cell)
{
	if (!cell->set)
		return NULL;
	switch (c->type) {
	case COLUMN_TEXT:
		return json_object_new_string(cell->text);
	case COLUMN_NUMBER:
	case COLUMN_SIZE:
	case COLUMN_RATE:
		return json_object_new_uint64(cell->number);
	case COLUMN_BOOL:
		return json_object_new_boolean(cell->number);
	case COLUMN_SECONDS:
		return json_seconds(cell->real);
	}
	return NULL;
}

struct json_object *table_json_row(struct table *t, const struct cell *cells)
{
	struct json_object *row = json_object_new_object();
	size_t i, k;

	for (i = 0; row && i < t->nr_shown; i++) {
		const struct column *c = &t->columns[t->shown[i]];
		char key[64];

		for (k = 0; k < sizeof(key) - 1 && c->name[k]; k++)
			key[k] = isalnum((unsigned char)c->name[k]) ?
				 tolower((unsigned char)c->name[k]) : '_';
		key[k] = '\0';
		json_object_object_add(row, key,
				       json_cell(c, &cells[t->shown[i]]));
	}
	return row;
}

bool table_shows(const struct table *t, const char *name)
{
	size_t i;

	for (i = 0; i < t->nr_shown; i++)
		if (!strcmp(t->columns[t->shown[i]].name, name))
			return true;
	return false;
}

int table_add(struct table *t, const struct cell *cells)
{
	struct libscols_line *line;
	char buf[CELL_LEN];
	size_t i;

	if (t->opts->json) {
		struct json_object *row = table_json_row(t, cells);

		return row && !json_object_array_add(t->rows, row) ?
		       0 : -ENOMEM;
	}
	line = scols_table_new_line(t->scols, NULL);
	if (!line)
		return -ENOMEM;
	for (i = 0; i < t->nr_shown; i++) {
		const struct column *c = &t->columns[t->shown[i]];
		const char *text = cell_format(c, &cells[t->shown[i]],
					       t->opts->bytes, buf);

		if (*text && scols_line_set_data(line, i, text))
			return -ENOMEM;
	}
	return 0;
}

static int flush_stdout(void)
{
	if (fflush(stdout) || ferror(stdout))
		return errno ? -errno : -EIO;
	return 0;
}

int table_print(struct table *t, const char *name)
{
	struct json_object *top;
	int ret;

	if (!t->opts->json) {
		ret = scols_print_table(t->scols);
		return ret ? ret : flush_stdout();
	}
	top = json_object_new_object();
	if (!top)
		return -ENOMEM;
	json_object_object_add(top, name, json_object_get(t->rows));
	puts(json_object_to_json_string_ext(top, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_SPACED |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(top);
	return flush_stdout();
}

int json_line(struct json_object *obj)
{
	if (!obj)
		return -ENOMEM;
	puts(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_SPACED |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(obj);
	return flush_stdout();
}

/*
 * libsmartcols sizes columns by what is in all rows; rows that are printed as
 * they come get the widths of the description instead.
 */
static void print_aligned(const struct table *t, size_t i, const char *text)
{
	const struct column *c = &t->columns[t->shown[i]];
	bool last = i + 1 == t->nr_shown;

	if (t->opts->raw)
		printf("%s", *text ? text : "-");
	else if (is_text(c))
		printf("%-*s", last ? 0 : (int)c->width, text);
	else
		printf("%*s", (int)c->width, text);
	putchar(last ? '\n' : ' ');
}

int table_stream(struct table *t, const struct cell *cells)
{
	char buf[CELL_LEN];
	size_t i;

	if (t->opts->json)
		return json_line(table_json_row(t, cells));
	if (!t->headed && !t->opts->noheadings)
		for (i = 0; i < t->nr_shown; i++)
			print_aligned(t, i, t->columns[t->shown[i]].name);
	t->headed = true;
	for (i = 0; i < t->nr_shown; i++)
		print_aligned(t, i, cell_format(&t->columns[t->shown[i]],
						&cells[t->shown[i]],
						t->opts->bytes, buf));
	return flush_stdout();
}
