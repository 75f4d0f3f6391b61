/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tables: described once, printed as text or JSON.
 *
 * A subcommand describes its columns in an array of struct column and fills an
 * array of struct cell of the same order for each row.  Help, column selection,
 * text and JSON follow from that.
 */
#ifndef TABLE_H
#define TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "builtin.h"

struct json_object;

enum column_type {
	COLUMN_TEXT,
	COLUMN_NUMBER,		/* unsigned */
	COLUMN_SIZE,		/* bytes */
	COLUMN_RATE,		/* bytes a second */
	COLUMN_SECONDS,		/* with a fraction */
	COLUMN_BOOL,		/* a number, 0 for no */
};

#define COLUMN_HIDDEN 1		/* not shown unless asked for */

/**
 * struct column - a column
 * @name: heading; in JSON, lower case with '_' for '-' and '/'
 * @type: type of its cells
 * @width: characters it is given when rows are printed as they come
 * @flags: 0 or COLUMN_HIDDEN
 * @help: one line
 */
struct column {
	const char *name;
	enum column_type type;
	unsigned int width;
	unsigned int flags;
	const char *help;
};

/* A cell, of the type of its column; empty when !@set. */
struct cell {
	bool set;
	union {
		const char *text;
		uint64_t number;
		double real;
	};
};

static inline struct cell cell_text(const char *text)
{
	struct cell c = { .set = text && *text, .text = text };

	return c;
}

static inline struct cell cell_number(uint64_t number)
{
	struct cell c = { .set = true, .number = number };

	return c;
}

static inline struct cell cell_real(double real)
{
	struct cell c = { .set = true, .real = real };

	return c;
}

/* The text of a cell, which may be in @buf. */
#define CELL_LEN 64
const char *cell_format(const struct column *column, const struct cell *cell,
			bool bytes, char buf[CELL_LEN]);

/* The options that every table has. */
struct table_options {
	bool bytes;
	bool json;
	bool noheadings;
	bool raw;
	bool all;
	const char *list;
};

enum {
	OPT_OUTPUT_ALL = 1000,
};

#define TABLE_OPTIONS							    \
	{ 'b', "bytes", NULL, "print sizes in bytes" },			    \
	{ 'J', "json", NULL, "print JSON" },				    \
	{ 'n', "noheadings", NULL, "don't print headings" },		    \
	{ 'o', "output", "LIST", "columns to print, or +LIST for more" },   \
	{ OPT_OUTPUT_ALL, "output-all", NULL, "print all columns" },	    \
	{ 'r', "raw", NULL, "print columns apart by one space" }

/* Take note of option @val.  False when it is not one of TABLE_OPTIONS. */
bool table_option(struct table_options *opts, int val, const char *arg);

struct table;

/* NULL, with a message, when @opts names a column that there is not. */
struct table *table_new(const struct column *columns, size_t nr,
			const struct table_options *opts);
void table_free(struct table *table);

/* Is the column of that name printed? */
bool table_shows(const struct table *table, const char *name);

/* Add a row.  Texts are copied.  0 or -ENOMEM. */
int table_add(struct table *table, const struct cell *cells);
/* Print all rows; in JSON, {"NAME": [ROW, ...]}.  0 or -errno. */
int table_print(struct table *table, const char *name);

/* Print one row now (in JSON, as one line), with the headings before the first. */
int table_stream(struct table *table, const struct cell *cells);

/* A row as a JSON object with the selected columns. */
struct json_object *table_json_row(struct table *table,
				   const struct cell *cells);
struct json_object *json_seconds(double seconds);
/* One line on stdout, flushed; drops the reference.  0 or -errno. */
int json_line(struct json_object *obj);

#endif
