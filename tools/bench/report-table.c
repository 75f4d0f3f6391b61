// SPDX-License-Identifier: GPL-2.0-only
/*
 * The results as tables: a row a tracker, a column a workload.  A cell has the
 * median, how many times the tracker of ours that has the same writer it is, and
 * half the distance of the extremes.
 */
#include <stdio.h>
#include <string.h>
#include <libsmartcols/libsmartcols.h>

#include "../dirtytrack/units.h"
#include "bench.h"
#include "figures.h"
#include "pattern.h"
#include "report.h"
#include "report-host.h"
#include "results.h"

#define MAX_COLUMNS 16
#define CELL 48

/* What a column shows. */
struct column {
	const char *title;
	enum metric metric;
	const char *workload;
	bool is_over_report;
};

static void put_number(char *text, size_t size, double value)
{
	double magnitude = value < 0 ? -value : value;

	snprintf(text, size, "%.*f", magnitude < 10 ? 2 : magnitude < 100 ? 1 : 0,
		 value);
}

static const struct series *ours(const struct report *r, const struct series *s)
{
	for (size_t i = 0; i < r->nr; i++) {
		const struct tracker *t = r->candidates[i].tracker;

		if (!strcmp(t->name, s->tracker->writer->ours))
			return series_find(s->metric, t, s->workload);
	}
	return NULL;
}

static void put_median(const struct report *r, const struct series *s, char text[CELL])
{
	struct summary sum = series_summary(s);
	const struct series *base = ours(r, s);
	size_t len;

	put_number(text, CELL, sum.median);
	len = strlen(text);
	if (base && base != s && series_summary(base).median)
		len += snprintf(text + len, CELL - len, " (%.2fx)",
				sum.median / series_summary(base).median);
	snprintf(text + len, CELL - len, " ±%.0f%%", summary_spread(&sum));
}

static void put_over_report(const struct series *s, char text[CELL])
{
	double over = (double)s->reported - s->written;

	if (!s->tracker->untracked && s->reported)
		snprintf(text, CELL, "%.2f%%", over / s->reported * 100);
}

static void put_cell(const struct report *r, const struct column *c,
		     const struct tracker *t, char text[CELL])
{
	const struct series *s = series_find(c->metric, t, c->workload);

	text[0] = '\0';
	if (!s)
		return;
	if (c->is_over_report)
		put_over_report(s, text);
	else
		put_median(r, s, text);
}

static bool has_column(const struct report *r, const struct column *c)
{
	for (size_t i = 0; i < r->nr; i++)
		if (series_find(c->metric, r->candidates[i].tracker, c->workload))
			return true;
	return false;
}

static void print(const struct report *r, const char *title,
		  const struct column *columns, size_t nr)
{
	struct libscols_table *table = scols_new_table();
	const struct column *shown[MAX_COLUMNS];
	size_t nr_shown = 0;

	for (size_t i = 0; i < nr && nr_shown < MAX_COLUMNS; i++)
		if (has_column(r, &columns[i]))
			shown[nr_shown++] = &columns[i];
	if (!table || !nr_shown)
		goto out;
	scols_table_new_column(table, "TRACKER", 0, 0);
	for (size_t i = 0; i < nr_shown; i++)
		scols_table_new_column(table, shown[i]->title, 0, SCOLS_FL_RIGHT);
	for (size_t i = 0; i < r->nr; i++) {
		struct libscols_line *line;
		char text[CELL];

		if (r->candidates[i].missing)
			continue;
		line = scols_table_new_line(table, NULL);
		scols_line_set_data(line, 0, r->candidates[i].tracker->name);
		for (size_t k = 0; k < nr_shown; k++) {
			put_cell(r, shown[k], r->candidates[i].tracker, text);
			scols_line_set_data(line, k + 1, text);
		}
	}
	printf("\n%s\n", title);
	scols_print_table(table);
out:
	scols_unref_table(table);
}

static void print_patterns(const struct report *r, enum metric metric,
			   const char *title)
{
	struct column columns[MAX_COLUMNS];
	char heading[96];
	size_t nr = 0;

	for (size_t i = 0; i < nr_patterns; i++)
		if (patterns[i].is_cost)
			columns[nr++] = (struct column) {
				patterns[i].name, metric, patterns[i].name, false,
			};
	snprintf(heading, sizeof(heading), "%s, %s", title, metric_unit(metric));
	print(r, heading, columns, nr);
}

/* From nothing to everything, and then the large region. */
static void print_densities(const struct report *r)
{
	char title[96], size[HUMAN_LEN], sparse_title[32], sparse[HUMAN_LEN];
	struct column columns[MAX_COLUMNS];
	size_t nr = 0;

	for (size_t i = nr_patterns; i--; )
		if (patterns[i].density && strcmp(patterns[i].density, "1"))
			columns[nr++] = (struct column) {
				patterns[i].density, METRIC_CALL, patterns[i].name, false,
			};
	columns[nr++] = (struct column) { "1", METRIC_CALL, "sequential", false };
	snprintf(sparse_title, sizeof(sparse_title), "1 page of %s",
		 human_size(r->setup->sparse * DTRACK_PAGE_SIZE, sparse));
	columns[nr++] = (struct column) { sparse_title, METRIC_SPARSE, "one-page", false };
	snprintf(title, sizeof(title),
		 "A harvest of %s, by the part of its pages that was written, %s",
		 human_size(r->setup->npages * DTRACK_PAGE_SIZE, size),
		 metric_unit(METRIC_CALL));
	print(r, title, columns, nr);
}

static void print_rest(const struct report *r)
{
	static const struct column columns[] = {
		{ "WRITES, 1000/s", METRIC_WRITES, NULL, false },
		{ "HARVESTS/s", METRIC_HARVESTS, NULL, false },
		{ "LONGEST STALL, us", METRIC_STALL, NULL, false },
		{ "IN VAIN", METRIC_WRITES, NULL, true },
		{ "AT REST", METRIC_COST, "random-1%", true },
		{ "MEMORY, KiB", METRIC_MEMORY, NULL, false },
	};

	static const char busy[] =
		"One writer under back-to-back harvests; how many of the pages reported had\n"
		"not been changed, meanwhile and when nothing races; memory besides the region's";
	static const char at_rest[] =
		"Pages reported that had not been changed; memory besides the region's";

	print(r, r->setup->seconds ? busy : at_rest, columns, NELEM(columns));
}

static void print_figures(void)
{
	static const char *const columns[] = { "FIGURE", "HERE", "GOAL", "REACHED" };
	struct libscols_table *table = scols_new_table();
	size_t nr = 0;

	for (size_t i = 0; table && i < NELEM(columns); i++)
		scols_table_new_column(table, columns[i], 0, i ? SCOLS_FL_RIGHT : 0);
	for (size_t i = 0; table && i < nr_figures; i++) {
		char value[CELL], goal[CELL];
		struct libscols_line *line;
		struct figure f;

		if (!figure_get(i, &f))
			continue;
		nr++;
		snprintf(value, sizeof(value), "%.3g%s", f.value, f.unit);
		snprintf(goal, sizeof(goal), "%s %.3g%s", f.at_least ? "≥" : "≤", f.goal,
			 f.unit);
		line = scols_table_new_line(table, NULL);
		scols_line_set_data(line, 0, f.what);
		scols_line_set_data(line, 1, value);
		scols_line_set_data(line, 2, goal);
		scols_line_set_data(line, 3, f.reached ? "yes" : "no");
	}
	if (nr) {
		printf("\nFigures and goals: times userfaultfd-WP async and PAGEMAP_SCAN, of a memfd or\n"
		       "of anonymous memory, whichever does better; pages reported\n");
		scols_print_table(table);
	}
	scols_unref_table(table);
}

void report_tables(const struct report *r)
{
	char size[HUMAN_LEN];
	struct host host;

	host_get(&host);
	printf("Linux %s, %u x %s%s%s, %s, %u runs\n", host.kernel, host.cpus, host.cpu,
	       *host.hypervisor ? ", virtual: " : "", host.hypervisor,
	       human_size(r->setup->npages * DTRACK_PAGE_SIZE, size), r->runs);
	printf("Medians (times dirtytrack, or dirtytrack-kvm for vCPUs) ±half the range\n");
	print_patterns(r, METRIC_COST, "Cost: fault plus harvest");
	print_patterns(r, METRIC_FAULT, "The fault alone");
	print_densities(r);
	print_rest(r);
	print_figures();
	printf("\n");
	for (size_t i = 0; i < r->nr; i++)
		if (r->candidates[i].missing)
			printf("not measured: %s: %s\n", r->candidates[i].tracker->name,
			       r->candidates[i].missing);
}
