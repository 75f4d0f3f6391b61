// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long a harvest of a dirty bitmap takes while it is being written to: by one
 * xchg for each word that is not zero, and by a swapped second buffer.
 *
 * The second is how KVM did it until 2012: readers of the pointer (vCPUs that mark
 * pages dirty) are in SRCU sections, so the harvester publishes an empty buffer, waits
 * for a grace period, and then has the old one to himself.  The first needs no
 * sections and no grace period.
 *
 * Files in debugfs, each a method; reading one runs it and gives what each harvest
 * took, in ns, one a line:
 *
 *	xchg		one buffer
 *	expedited	two, and synchronize_srcu_expedited(), as in KVM
 *	srcu		two, and synchronize_srcu()
 *
 * Setters count the bits that they changed from clear to set, harvests the bits that
 * they found: a method that loses one is an error, not a result.
 */
#include <linux/bitops.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/prandom.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/vmalloc.h>

#define MAX_SETTERS	16
#define MAX_HARVESTS	10000
#define LINE		16	/* bytes of output for one harvest, at most */

static unsigned int setters = 1;
module_param(setters, uint, 0444);
MODULE_PARM_DESC(setters, "threads that set bits");

static unsigned int harvests = 200;
module_param(harvests, uint, 0644);
MODULE_PARM_DESC(harvests, "harvests in a run");

static unsigned long npages = 1UL << 20;
module_param(npages, ulong, 0444);
MODULE_PARM_DESC(npages, "bits of the bitmap");

static unsigned int exit_pages = 16;
module_param(exit_pages, uint, 0644);
MODULE_PARM_DESC(exit_pages, "bits that a setter sets in one section, as a vCPU in one exit");

static unsigned int guest_us = 20;
module_param(guest_us, uint, 0644);
MODULE_PARM_DESC(guest_us, "time that a setter spends outside, as a vCPU in the guest");

DEFINE_STATIC_SRCU(bench_srcu);

/* One run at a time; it has the buffers and the setters. */
static DEFINE_MUTEX(bench_lock);
static unsigned long *bench_buffer[2];
static unsigned long __rcu *bench_current;
static u64 bench_set[MAX_SETTERS];
static u64 bench_times[MAX_HARVESTS];

static size_t bench_words(void)
{
	return BITS_TO_LONGS(npages);
}

/* ---- setters ---- */

static int bench_setter(void *data)
{
	u64 *set = data;
	u32 state = hash_32((u32)(unsigned long)data, 32) | 1;

	while (!kthread_should_stop()) {
		unsigned long *bitmap;
		unsigned int i;
		int idx;

		idx = srcu_read_lock(&bench_srcu);
		bitmap = srcu_dereference(bench_current, &bench_srcu);
		for (i = 0; i < exit_pages; i++) {
			state ^= state << 13;
			state ^= state >> 17;
			state ^= state << 5;
			if (!test_and_set_bit(state % npages, bitmap))
				(*set)++;
		}
		srcu_read_unlock(&bench_srcu, idx);
		usleep_range(guest_us, guest_us + 1);
	}
	return 0;
}

/* ---- harvests: how many bits were there ---- */

static u64 bench_xchg(void)
{
	unsigned long *bitmap = rcu_dereference_protected(bench_current,
							  lockdep_is_held(&bench_lock));
	size_t i, words = bench_words();
	u64 found = 0;

	for (i = 0; i < words; i++)
		if (READ_ONCE(bitmap[i]))
			found += hweight_long(xchg(&bitmap[i], 0));
	return found;
}

static u64 bench_swap(void (*synchronize)(struct srcu_struct *))
{
	unsigned long *old = rcu_dereference_protected(bench_current,
						       lockdep_is_held(&bench_lock));
	size_t i, words = bench_words();
	u64 found = 0;

	rcu_assign_pointer(bench_current, bench_buffer[old == bench_buffer[0]]);
	synchronize(&bench_srcu);
	for (i = 0; i < words; i++)
		if (old[i]) {
			found += hweight_long(old[i]);
			old[i] = 0;
		}
	return found;
}

static u64 bench_expedited(void)
{
	return bench_swap(synchronize_srcu_expedited);
}

static u64 bench_plain(void)
{
	return bench_swap(synchronize_srcu);
}

/* ---- a run ---- */

static int bench_run(u64 (*harvest)(void), unsigned int n)
{
	struct task_struct *threads[MAX_SETTERS];
	u64 found = 0, set = 0;
	unsigned int i, started;
	int err = 0;

	memset(bench_set, 0, sizeof(bench_set));
	for (started = 0; started < setters; started++) {
		threads[started] = kthread_run(bench_setter, &bench_set[started],
					       "bench_setter/%u", started);
		if (IS_ERR(threads[started])) {
			err = PTR_ERR(threads[started]);
			break;
		}
	}
	for (i = 0; i < n && !err; i++) {
		u64 start;

		/* Something to find. */
		usleep_range(500, 600);
		start = ktime_get_ns();
		found += harvest();
		bench_times[i] = ktime_get_ns() - start;
		if (signal_pending(current))
			err = -EINTR;
	}
	while (started--)
		kthread_stop(threads[started]);
	found += harvest();
	for (i = 0; i < setters; i++)
		set += bench_set[i];
	if (!err && (found != set || !set)) {
		pr_err("bench_srcu: %llu bits were set, %llu found\n", set, found);
		err = -EIO;
	}
	return err;
}

static int bench_show(struct seq_file *m, void *v)
{
	unsigned int i, n = min(READ_ONCE(harvests), MAX_HARVESTS);
	int err;

	if (mutex_lock_interruptible(&bench_lock))
		return -EINTR;
	err = bench_run(m->private, n);
	for (i = 0; i < n && !err; i++)
		seq_printf(m, "%llu\n", bench_times[i]);
	mutex_unlock(&bench_lock);
	return err;
}

/* A buffer that is large enough: one that is not has the run done again. */
static int bench_open(struct inode *inode, struct file *file)
{
	return single_open_size(file, bench_show, inode->i_private,
				MAX_HARVESTS * LINE);
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.open = bench_open,
	.read = seq_read,
	.llseek = seq_lseek,
	.release = single_release,
};

static struct dentry *bench_dir;

static int __init bench_init(void)
{
	if (!setters || setters > MAX_SETTERS || !npages)
		return -EINVAL;
	bench_buffer[0] = vcalloc(bench_words(), sizeof(long));
	bench_buffer[1] = vcalloc(bench_words(), sizeof(long));
	if (!bench_buffer[0] || !bench_buffer[1]) {
		vfree(bench_buffer[0]);
		vfree(bench_buffer[1]);
		return -ENOMEM;
	}
	RCU_INIT_POINTER(bench_current, bench_buffer[0]);
	bench_dir = debugfs_create_dir("bench_srcu", NULL);
	debugfs_create_file("xchg", 0400, bench_dir, bench_xchg, &bench_fops);
	debugfs_create_file("expedited", 0400, bench_dir, bench_expedited, &bench_fops);
	debugfs_create_file("srcu", 0400, bench_dir, bench_plain, &bench_fops);
	return 0;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
	debugfs_remove_recursive(bench_dir);
	vfree(bench_buffer[0]);
	vfree(bench_buffer[1]);
}
module_exit(bench_exit);

MODULE_DESCRIPTION("benchmark: a bitmap harvested by xchg, and by a second buffer and SRCU");
MODULE_LICENSE("GPL");
