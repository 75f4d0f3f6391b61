// SPDX-License-Identifier: GPL-2.0-only
/*
 * For a test: makes the processor of its caller hold up every grace period.
 *
 * A byte written to /dev/dirtytrack_stall: 'r' reads under RCU with preemption off, 's'
 * does so with interrupts off, too; the call returns when another writes 'e', or with
 * ETIME after STALL_SECONDS.  A byte read says whether someone is held up.
 */
#include <linux/fs.h>
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/uaccess.h>

/* Before the kernel complains: of RCU after 21 s, of a lockup after 20. */
#define STALL_SECONDS 15

static bool stalled, end;

static int stall(bool interrupts_off)
{
	u64 until = ktime_get_mono_fast_ns() + STALL_SECONDS * NSEC_PER_SEC;
	unsigned long flags = 0;
	int ret = 0;

	WRITE_ONCE(end, false);
	rcu_read_lock();
	preempt_disable();
	if (interrupts_off)
		local_irq_save(flags);
	WRITE_ONCE(stalled, true);
	while (!READ_ONCE(end) && !ret) {
		cpu_relax();
		if (ktime_get_mono_fast_ns() > until)
			ret = -ETIME;
	}
	WRITE_ONCE(stalled, false);
	if (interrupts_off)
		local_irq_restore(flags);
	preempt_enable();
	rcu_read_unlock();
	return ret;
}

static ssize_t stall_write(struct file *file, const char __user *buf, size_t len,
			   loff_t *pos)
{
	int ret = 0;
	char c;

	if (len != 1 || get_user(c, buf))
		return -EINVAL;
	if (c == 'e')
		WRITE_ONCE(end, true);
	else
		ret = stall(c == 's');
	return ret ?: 1;
}

static ssize_t stall_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	if (!len || put_user((char)READ_ONCE(stalled), buf))
		return -EINVAL;
	return 1;
}

static const struct file_operations stall_fops = {
	.owner = THIS_MODULE,
	.read = stall_read,
	.write = stall_write,
};

static struct miscdevice stall_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dirtytrack_stall",
	.fops = &stall_fops,
};

module_misc_device(stall_device);
MODULE_DESCRIPTION("Holds up grace periods, for a test");
MODULE_LICENSE("GPL");
