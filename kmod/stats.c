// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is counted, and by what names it is shown in fdinfo and debugfs.
 */
#include <linux/seq_file.h>

#include "dirtytrack.h"

#define DT_COUNT(_name, _field) { _name, offsetof(struct dt_counts, _field) }

static const struct {
	const char *name;
	size_t offset;
} dt_stats_names[] = {
	DT_COUNT("faults", stats.faults),
	DT_COUNT("grants", stats.grants),
	DT_COUNT("collected", collected),
	DT_COUNT("protects", protects),
	DT_COUNT("harvests", stats.harvests),
	DT_COUNT("overreports", overreports),
	DT_COUNT("overflows", stats.overflows),
	DT_COUNT("throttles", throttles),
	DT_COUNT("throttled_ns", throttled_ns),
};

/* What slots that are gone have counted. */
static struct dt_counts dt_stats_gone;

static u64 dt_stats_value(const struct dt_counts *counts, int i)
{
	return *(u64 *)((char *)counts + dt_stats_names[i].offset);
}

/**
 * dt_stats_count - add what a slot has counted
 * @slot: the slot
 * @counts: to what
 */
void dt_stats_count(struct dt_slot *slot, struct dt_counts *counts)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct dt_slot_stats *stats = per_cpu_ptr(slot->stats, cpu);

		counts->stats.faults += READ_ONCE(stats->faults);
		counts->stats.grants += READ_ONCE(stats->grants);
		counts->stats.harvests += READ_ONCE(stats->harvests);
		counts->stats.overflows += READ_ONCE(stats->overflows);
	}
	counts->collected += READ_ONCE(slot->collected);
	counts->protects += READ_ONCE(slot->protects);
	counts->overreports += READ_ONCE(slot->overreports);
	counts->throttles += READ_ONCE(slot->limit.throttles);
	counts->throttled_ns += READ_ONCE(slot->limit.throttled_ns);
}

/**
 * dt_stats_retire - keep what a slot has counted
 * @slot: the slot, which goes
 *
 * Context: the table of slots locked, as for dt_stats_total().
 */
void dt_stats_retire(struct dt_slot *slot)
{
	dt_stats_count(slot, &dt_stats_gone);
}

/**
 * dt_stats_total - begin a sum over all slots
 * @counts: gets what those have counted that are gone
 */
void dt_stats_total(struct dt_counts *counts)
{
	*counts = dt_stats_gone;
}

/**
 * dt_stats_show - print counts, one a line
 * @m: where to
 * @prefix: of their names
 * @counts: what
 */
void dt_stats_show(struct seq_file *m, const char *prefix, const struct dt_counts *counts)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(dt_stats_names); i++)
		seq_printf(m, "%s%s:\t%llu\n", prefix, dt_stats_names[i].name,
			   dt_stats_value(counts, i));
}

/**
 * dt_stats_head - print their names as heads of columns
 * @m: where to
 */
void dt_stats_head(struct seq_file *m)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(dt_stats_names); i++)
		seq_printf(m, " %s", dt_stats_names[i].name);
}

/**
 * dt_stats_row - print counts below these
 * @m: where to
 * @counts: what
 */
void dt_stats_row(struct seq_file *m, const struct dt_counts *counts)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(dt_stats_names); i++)
		seq_printf(m, " %llu", dt_stats_value(counts, i));
}
