// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each is a median over that of userfaultfd's asynchronous write protection with
 * PAGEMAP_SCAN, or how many of the pages reported had not been written.  Of a memfd and of
 * anonymous memory the one counts that does better.
 */
#include "bench.h"
#include "figures.h"
#include "results.h"

/* What a figure is made of. */
struct source {
	const char *what;
	const struct tracker *ours;
	enum metric metric;
	const char *workload;
	double goal;
	bool at_least;
	bool over_report;
};

static const struct source sources[] = {
	{ "sequential writes, cost of a page", &tracker_slot, METRIC_COST, "sequential",
		1.0 / 6, false, false },
	{ "every 4th page, cost", &tracker_slot, METRIC_COST, "every-4th",
		0.5, false, false },
	{ "every 16th page, cost", &tracker_slot, METRIC_COST, "every-16th",
		1, false, false },
	{ "one page in 1024 at random, cost", &tracker_slot, METRIC_COST, "random-single",
		1.1, false, false },
	{ "single grants, a fault alone", &tracker_slot_single, METRIC_FAULT,
		"sequential", 1.1, false, false },
	{ "single grants, harvest alone, all pages dirty", &tracker_slot_single,
		METRIC_CALL, "sequential", 0.9, false, false },
	{ "writes under back-to-back harvests", &tracker_slot, METRIC_WRITES, NULL,
		15, true, false },
	{ "harvest of one page in the large, sparse region", &tracker_slot, METRIC_SPARSE,
		"one-page", 1.0 / 200, false, false },
	{ "reported in vain, nothing racing", &tracker_slot, METRIC_COST, NULL,
		0, false, true },
	{ "reported in vain, busy guest", &tracker_kvm_slot, METRIC_WRITES, NULL,
		5, false, true },
};

const size_t nr_figures = NELEM(sources);

static const struct tracker *const theirs[] = { &tracker_uffd_anon, &tracker_uffd_memfd };

static bool put_ratio(const struct source *from, double *value)
{
	const struct series *s = series_find(from->metric, from->ours, from->workload);
	double best = 0;

	for (size_t i = 0; i < NELEM(theirs); i++) {
		const struct series *t = series_find(from->metric, theirs[i],
						     from->workload);
		double median = t ? series_summary(t).median : 0;

		if (median > 0 && (!best || (median > best) == from->at_least))
			best = median;
	}
	if (!s || !best)
		return false;
	*value = series_summary(s).median / best;
	return true;
}

/* Over all that was measured of the tracker. */
static bool put_over_report(const struct source *from, double *value)
{
	uint64_t reported = 0, written = 0;
	const struct series *s;

	for (size_t i = 0; (s = series_number(i)); i++)
		if (s->tracker == from->ours && s->metric == from->metric) {
			reported += s->reported;
			written += s->written;
		}
	if (!reported)
		return false;
	*value = ((double)reported - written) / reported * 100;
	return true;
}

bool figure_get(size_t i, struct figure *figure)
{
	const struct source *from = &sources[i];

	*figure = (struct figure) {
		.what = from->what,
		.unit = from->over_report ? "%" : "x",
		.goal = from->goal,
		.at_least = from->at_least,
	};
	if (from->over_report ? !put_over_report(from, &figure->value) :
				!put_ratio(from, &figure->value))
		return false;
	figure->reached = from->at_least ? figure->value >= from->goal :
					   figure->value <= from->goal;
	return true;
}
