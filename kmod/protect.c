// SPDX-License-Identifier: GPL-2.0-only
/*
 * The choice of a protect strategy.
 */
#include <linux/module.h>
#include <linux/string.h>
#include <xen/xen.h>

#include "compat/compat.h"
#include "protect.h"

static char *strategy;
module_param(strategy, charp, 0444);
MODULE_PARM_DESC(strategy, "how write permission is taken away: wp or zap (default: wp where this kernel has it, but zap where KVM maps the slot)");

static const struct dt_protect_ops *const dt_strategies[] = {
#ifdef DT_HAVE_MAPPING_DIRTY_HELPERS
	&dt_protect_wp,
#endif
	&dt_protect_zap,
};

static const struct dt_protect_ops *dt_protect;

/**
 * dt_protect_of - how a slot is protected
 * @slot: the slot; NULL for one that no secondary MMU follows
 *
 * With a limit every write has to come to .fault, whatever the parameter says.
 *
 * Where a secondary MMU follows, the runs are exact and each pass over one makes
 * KVM stop its vCPUs: the one pass of zap is cheaper than the four of wp, and what it
 * leaves cannot be written through by a guest without a fault.
 *
 * Return: the strategy.
 */
const struct dt_protect_ops *dt_protect_of(const struct dt_slot *slot)
{
	if (slot && READ_ONCE(slot->limit.rate))
		return &dt_protect_zap;
	if (!strategy && slot && READ_ONCE(slot->has_notifier))
		return &dt_protect_zap;
	return dt_protect;
}

/**
 * dt_protect_init - choose the strategy
 *
 * Return: 0, or EINVAL if the one that was asked for is not there.
 */
int __init dt_protect_init(void)
{
	int i;

	/* Xen PV does not clear the dirty bit of a PTE that is changed in place. */
	if (!strategy && xen_pv_domain()) {
		dt_protect = &dt_protect_zap;
		return 0;
	}
	for (i = 0; i < ARRAY_SIZE(dt_strategies); i++) {
		if (!strategy || !strcmp(strategy, dt_strategies[i]->name)) {
			dt_protect = dt_strategies[i];
			return 0;
		}
	}
	pr_err("strategy=%s: not one of this kernel's\n", strategy);
	return -EINVAL;
}
