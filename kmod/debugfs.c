// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/kernel/debug/dirtytrack: all slots and logs at a glance, for root.
 *
 *	summary		the sum of all slots, one value a line
 *	slots		a table of them
 *	logs		a table of all logs
 *
 * Reading holds one slot at a time, by a reference: any slot may go meanwhile, or come.
 * Open files hold the module.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "dirtytrack.h"

static struct dentry *dt_debugfs;

static int summary_show(struct seq_file *m, void *unused)
{
	struct dt_counts counts;
	u64 resident, logs;
	u32 slots;

	slots = dt_slots_sum(&counts, &resident, &logs);
	seq_printf(m, "slots:\t%u\n", slots);
	seq_printf(m, "max_slots:\t%u\n", dt_slot_max());
	seq_printf(m, "max_user_slots:\t%u\n", dt_slot_user_max());
	seq_printf(m, "logs:\t%llu\n", logs);
	seq_printf(m, "resident:\t%llu\n", resident);
	seq_printf(m, "memory:\t%llu\n", dt_memory_used());
	seq_printf(m, "max_memory:\t%llu\n", dt_memory_max());
	dt_stats_show(m, "", &counts);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(summary);

/*
 * Both tables are walked by slot: the position is the smallest id of the next one.
 * No slot has the id 0: there are the heads of the columns.
 */
static void *slots_start(struct seq_file *m, loff_t *pos)
{
	struct dt_slot *slot;

	if (!*pos)
		return SEQ_START_TOKEN;
	if (*pos > U32_MAX)
		return NULL;
	slot = dt_slot_get_next(*pos);
	if (slot)
		*pos = slot->id;
	return slot;
}

static void slots_stop(struct seq_file *m, void *v)
{
	struct dt_slot *slot = v;

	if (slot && v != SEQ_START_TOKEN)
		iput(&slot->inode);
}

static void *slots_next(struct seq_file *m, void *v, loff_t *pos)
{
	slots_stop(m, v);
	++*pos;
	return slots_start(m, pos);
}

static int slots_show(struct seq_file *m, void *v)
{
	struct dt_counts counts = {};
	struct dt_slot *slot = v;

	if (v == SEQ_START_TOKEN) {
		seq_puts(m, "slot uid pages resident open logs rate");
		dt_stats_head(m);
		seq_puts(m, " name\n");
		return 0;
	}
	dt_stats_count(slot, &counts);
	seq_printf(m, "%u %u %llu %lld %llu %u %llu", slot->id,
		   from_kuid_munged(seq_user_ns(m), slot->inode.i_uid), slot->npages,
		   percpu_counter_sum_positive(&slot->resident),
		   dt_bitmap_count(&slot->open), READ_ONCE(slot->nlogs),
		   READ_ONCE(slot->limit.rate));
	dt_stats_row(m, &counts);
	/* Last, as it may have blanks. */
	seq_printf(m, " %s\n", slot->name);
	return 0;
}

static const struct seq_operations slots_sops = {
	.start = slots_start,
	.next = slots_next,
	.stop = slots_stop,
	.show = slots_show,
};
DEFINE_SEQ_ATTRIBUTE(slots);

static int logs_show(struct seq_file *m, void *v)
{
	struct dirtytrack_log_info info = {};
	struct dt_slot *slot = v;
	struct dt_log *log;

	if (v == SEQ_START_TOKEN) {
		seq_puts(m, "slot log dirty pending harvests reported overreports ring overflows rate\n");
		return 0;
	}
	mutex_lock(&slot->lock);
	list_for_each_entry(log, &slot->logs, node) {
		dt_log_info(log, &info);
		seq_printf(m, "%u %u %llu %llu %llu %llu %llu %u %llu %llu\n", slot->id,
			   log->id, info.out_dirty, dt_log_pending(log),
			   info.out_harvests, info.out_reported, log->overreports,
			   log->ring.nr, info.out_overflows, info.out_rate);
		cond_resched();
	}
	mutex_unlock(&slot->lock);
	return 0;
}

static const struct seq_operations logs_sops = {
	.start = slots_start,
	.next = slots_next,
	.stop = slots_stop,
	.show = logs_show,
};
DEFINE_SEQ_ATTRIBUTE(logs);

/**
 * dt_debugfs_init - make the files
 *
 * That there is no debugfs is no error.
 */
void __init dt_debugfs_init(void)
{
	dt_debugfs = debugfs_create_dir("dirtytrack", NULL);
	debugfs_create_file("summary", 0400, dt_debugfs, NULL, &summary_fops);
	debugfs_create_file("slots", 0400, dt_debugfs, NULL, &slots_fops);
	debugfs_create_file("logs", 0400, dt_debugfs, NULL, &logs_fops);
}

/**
 * dt_debugfs_exit - take them away
 */
void dt_debugfs_exit(void)
{
	debugfs_remove(dt_debugfs);
}
