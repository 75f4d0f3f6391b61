// SPDX-License-Identifier: GPL-2.0-only
#include <json-c/json.h>
#include <libsmartcols/libsmartcols.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sheet.h"

/**
 * struct sheet - a table
 * @title: printed above it
 * @columns: its columns
 * @nr: how many
 * @at: the next cell's column
 * @table: the table for people
 * @line: its row that is being filled
 * @rows: the rows as JSON
 * @row: the one that is being filled
 */
struct sheet {
	const char *title;
	const struct sheet_column *columns;
	size_t nr;
	size_t at;
	struct libscols_table *table;
	struct libscols_line *line;
	struct json_object *rows;
	struct json_object *row;
};

static void *checked(void *p)
{
	if (!p) {
		fprintf(stderr, "no memory\n");
		exit(1);
	}
	return p;
}

struct sheet *sheet_new(const char *title, const struct sheet_column *columns,
			size_t nr)
{
	struct sheet *s = checked(calloc(1, sizeof(*s)));

	setlocale(LC_CTYPE, "C.UTF-8");
	s->title = title;
	s->columns = columns;
	s->nr = nr;
	s->table = checked(scols_new_table());
	s->rows = checked(json_object_new_array());
	for (size_t i = 0; i < nr; i++)
		checked(scols_table_new_column(s->table, columns[i].title, 0,
					       i ? SCOLS_FL_RIGHT : 0));
	return s;
}

static void add(struct sheet *s, const char *text, struct json_object *value)
{
	if (!s->at) {
		s->line = checked(scols_table_new_line(s->table, NULL));
		s->row = checked(json_object_new_object());
		json_object_array_add(s->rows, s->row);
	}
	scols_line_set_data(s->line, s->at, text);
	json_object_object_add(s->row, s->columns[s->at].key, value);
	s->at = (s->at + 1) % s->nr;
}

void sheet_text(struct sheet *s, const char *text)
{
	add(s, text, json_object_new_string(text));
}

void sheet_number(struct sheet *s, double value)
{
	char text[32];

	snprintf(text, sizeof(text), "%.*f", value < 10 ? 2 : value < 100 ? 1 : 0, value);
	add(s, text, json_object_new_double_s(value, text));
}

void sheet_unknown(struct sheet *s)
{
	add(s, "-", NULL);
}

void sheet_finish(struct sheet *s, const char *path)
{
	struct json_object *top = checked(json_object_new_object());

	printf("\n%s\n", s->title);
	scols_print_table(s->table);
	fflush(stdout);
	json_object_object_add(top, "title", json_object_new_string(s->title));
	json_object_object_add(top, "rows", s->rows);
	if (path && json_object_to_file_ext(path, top, JSON_C_TO_STRING_PRETTY |
					    JSON_C_TO_STRING_SPACED)) {
		fprintf(stderr, "%s: %s\n", path, json_util_get_last_err());
		exit(1);
	}
	json_object_put(top);
	scols_unref_table(s->table);
	free(s);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double sheet_median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare);
	return (values[n / 2] + values[(n - 1) / 2]) / 2;
}
