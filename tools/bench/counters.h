/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How many TLB flushes, and calls of MMU notifiers, some code of this thread causes
 *
 * Nothing in the kernel is changed for it.  A second thread of the process runs on a
 * processor of its own, so that a flush is an interrupt there: the row "TLB" of
 * /proc/interrupts has it.  Not counted are flushes of the processor that asks for
 * them, of which there is one for each, and those that came while something else ran
 * in the thread's place: how long that was is looked at.  A VM that has the memory as
 * its own makes the process one with an MMU notifier, and the trace event at the begin of
 * KVM's is counted.
 *
 * What cannot be counted is not 0 but COUNT_UNKNOWN: where there is one processor, or
 * the other one has too much else to do, no KVM, no tracefs, or where processors flush the
 * TLBs of others without an interrupt.  A control of known flushes finds that out.
 */
#ifndef COUNTERS_H
#define COUNTERS_H

#include <stddef.h>
#include <stdint.h>

#define COUNT_UNKNOWN (-1)

/**
 * struct counts - what was counted, or COUNT_UNKNOWN
 * @flushes: flushes of the TLB of another processor
 * @notified: calls of an MMU notifier
 */
struct counts {
	int64_t flushes;
	int64_t notified;
};

struct counters;

/*
 * Counters for code that takes pages of @mem, a shared mapping of 64 pages or more, out of
 * it.  What is not known is said on standard error.  The process has a VM from then on,
 * and its mm is one with notifiers for ever: nothing should be timed in it.
 */
struct counters *counters_open(void *mem, size_t size);
/* What @code causes, after @before, if any.  Both are done several times. */
struct counts counters_of(struct counters *c, void (*before)(void *), void (*code)(void *),
			  void *arg);
void counters_close(struct counters *c);

#endif
