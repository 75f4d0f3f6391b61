/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Results of a small benchmark: a table for people, the same as JSON for charts.
 *
 * A row is filled cell by cell, from left to right.
 */
#ifndef SHEET_H
#define SHEET_H

#include <stddef.h>

/**
 * struct sheet_column - a column
 * @key: its name in JSON
 * @title: its heading
 */
struct sheet_column {
	const char *key;
	const char *title;
};

struct sheet;

struct sheet *sheet_new(const char *title, const struct sheet_column *columns,
			size_t nr);
void sheet_text(struct sheet *s, const char *text);
void sheet_number(struct sheet *s, double value);
/* There is no such value, or it is not known: "-", and null in JSON. */
void sheet_unknown(struct sheet *s);
/* Prints the table; with @path, also writes {"title": ..., "rows": [...]} there. */
void sheet_finish(struct sheet *s, const char *path);

/* The median of @n values, which are sorted by it. */
double sheet_median(double *values, size_t n);

#endif
