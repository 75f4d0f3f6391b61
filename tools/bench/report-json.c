// SPDX-License-Identifier: GPL-2.0-only
#include <json-c/json.h>
#include <stdio.h>

#include "bench.h"
#include "figures.h"
#include "pattern.h"
#include "report.h"
#include "report-host.h"
#include "results.h"

static struct json_object *text(const char *s)
{
	return s ? json_object_new_string(s) : NULL;
}

/* Four digits are more than a measurement has. */
static struct json_object *number(double value)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%.*f", value < 1000 ? 3 : 0, value);
	return json_object_new_double_s(value, digits);
}

static struct json_object *json_host(void)
{
	struct json_object *o = json_object_new_object();
	struct host host;

	host_get(&host);
	json_object_object_add(o, "kernel", text(host.kernel));
	json_object_object_add(o, "cpu", text(host.cpu));
	json_object_object_add(o, "cpus", json_object_new_int(host.cpus));
	json_object_object_add(o, "hypervisor", text(host.hypervisor));
	return o;
}

static struct json_object *json_setup(const struct report *r)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "bytes", json_object_new_uint64(r->setup->npages *
								 DTRACK_PAGE_SIZE));
	json_object_object_add(o, "sparse_bytes",
			       json_object_new_uint64(r->setup->sparse *
						      DTRACK_PAGE_SIZE));
	json_object_object_add(o, "seconds", number(r->setup->seconds));
	json_object_object_add(o, "runs", json_object_new_int(r->runs));
	return o;
}

static struct json_object *json_trackers(const struct report *r)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < r->nr; i++) {
		const struct tracker *t = r->candidates[i].tracker;
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "name", text(t->name));
		json_object_object_add(o, "what", text(t->what));
		json_object_object_add(o, "writer", text(t->writer->name));
		json_object_object_add(o, "compared_with", text(t->writer->ours));
		json_object_object_add(o, "missing", text(r->candidates[i].missing));
		json_object_array_add(array, o);
	}
	return array;
}

static struct json_object *json_patterns(void)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < nr_patterns; i++) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "name", text(patterns[i].name));
		json_object_object_add(o, "what", text(patterns[i].what));
		json_object_object_add(o, "density", text(patterns[i].density));
		json_object_array_add(array, o);
	}
	return array;
}

static struct json_object *json_series(const struct series *s)
{
	struct json_object *o = json_object_new_object();
	struct json_object *values = json_object_new_array();
	struct summary sum = series_summary(s);

	json_object_object_add(o, "metric", text(metrics[s->metric].name));
	json_object_object_add(o, "unit", text(metric_unit(s->metric)));
	json_object_object_add(o, "tracker", text(s->tracker->name));
	json_object_object_add(o, "workload", text(s->workload));
	json_object_object_add(o, "median", number(sum.median));
	json_object_object_add(o, "min", number(sum.min));
	json_object_object_add(o, "max", number(sum.max));
	for (unsigned int i = 0; i < s->nr; i++)
		json_object_array_add(values, number(s->values[i]));
	json_object_object_add(o, "values", values);
	if (s->reported) {
		json_object_object_add(o, "written", json_object_new_uint64(s->written));
		json_object_object_add(o, "reported",
				       json_object_new_uint64(s->reported));
	}
	return o;
}

static struct json_object *figure_number(double value)
{
	char digits[32];

	snprintf(digits, sizeof(digits), "%.4g", value);
	return json_object_new_double_s(value, digits);
}

static struct json_object *json_figures(void)
{
	struct json_object *array = json_object_new_array();
	struct figure f;

	for (size_t i = 0; i < nr_figures; i++) {
		struct json_object *o;

		if (!figure_get(i, &f))
			continue;
		o = json_object_new_object();
		json_object_object_add(o, "what", text(f.what));
		json_object_object_add(o, "unit", text(f.unit));
		json_object_object_add(o, "value", figure_number(f.value));
		json_object_object_add(o, f.at_least ? "at_least" : "at_most",
				       figure_number(f.goal));
		json_object_object_add(o, "reached", json_object_new_boolean(f.reached));
		json_object_array_add(array, o);
	}
	return array;
}

void report_json(const struct report *r, const char *path)
{
	struct json_object *top = json_object_new_object();
	struct json_object *results = json_object_new_array();
	const struct series *s;

	for (size_t i = 0; (s = series_number(i)); i++)
		json_object_array_add(results, json_series(s));
	json_object_object_add(top, "host", json_host());
	json_object_object_add(top, "setup", json_setup(r));
	json_object_object_add(top, "trackers", json_trackers(r));
	json_object_object_add(top, "patterns", json_patterns());
	json_object_object_add(top, "results", results);
	json_object_object_add(top, "figures", json_figures());
	if (json_object_to_file_ext(path, top, JSON_C_TO_STRING_PRETTY |
				    JSON_C_TO_STRING_SPACED |
				    JSON_C_TO_STRING_NOSLASHESCAPE))
		quit(EXIT_TROUBLE, "%s: %s", path, json_util_get_last_err());
	json_object_put(top);
}
