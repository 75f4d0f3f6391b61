// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../include/kvm_vmm.h"
#include "../lib/dirtytrack.h"
#include "counters.h"

/* KVM's number of the region. */
#define REGION 1

#define EVENT "events/kvm/kvm_unmap_hva_range/id"

/* Pages that the control takes out of the mapping, one by one. */
#define CONTROL 64U

/* Of so many flushes one may be missed. */
#define MISSED 16
/* Who misses flushes counts too few: the most of so many times is right. */
#define TRIES 3

/**
 * struct counters - two counters
 * @mem: memory that code is counted on
 * @size: its size
 * @here: the processor of the thread that is counted
 * @there: that of the other one, -1: none
 * @before: on which processors the thread could run
 * @spinner: the other thread
 * @tid: its number
 * @rounds: it counts them while it runs
 * @stop: it ends
 * @waited: how long it had been runnable without running at the beginning, ns
 * @began: when that was, ns
 * @flushes: the interrupts at the beginning; COUNT_UNKNOWN: they are not counted
 * @has_vm: @vmm is one
 * @vmm: the VM
 * @event: the trace event, -1: it is not counted
 */
struct counters {
	char *mem;
	size_t size;
	int here;
	int there;
	cpu_set_t before;
	pthread_t spinner;
	pid_t tid;
	uint64_t rounds;
	bool stop;
	uint64_t waited;
	uint64_t began;
	int64_t flushes;
	bool has_vm;
	struct vmm vmm;
	int event;
};

static void __attribute__((format(printf, 1, 2))) unknown(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("not counted: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

static void only(cpu_set_t *set, int cpu)
{
	CPU_ZERO(set);
	CPU_SET(cpu, set);
}

/* ---- flushes ---- */

/* The column of @cpu: those that are offline have none. */
static int column_of(const char *heads, int cpu)
{
	int column = 0, number, len;

	while (sscanf(heads, " CPU%d%n", &number, &len) == 1) {
		if (number == cpu)
			return column;
		heads += len;
		column++;
	}
	return -1;
}

static int64_t value_of(const char *row, int column)
{
	char *end;
	int64_t value;

	do {
		value = strtoull(row, &end, 10);
		if (end == row)
			return COUNT_UNKNOWN;
		row = end;
	} while (column--);
	return value;
}

/* Interrupts of @cpu for flushes of its TLB. */
static int64_t tlb_interrupts(int cpu)
{
	FILE *file = fopen("/proc/interrupts", "re");
	int64_t value = COUNT_UNKNOWN;
	size_t size = 0;
	char *line = NULL;
	int column;

	if (!file)
		return COUNT_UNKNOWN;
	if (getline(&line, &size, file) > 0) {
		column = column_of(line, cpu);
		while (column >= 0 && getline(&line, &size, file) > 0) {
			char *row = line + strspn(line, " ");

			if (strncmp(row, "TLB:", 4))
				continue;
			value = value_of(row + 4, column);
			break;
		}
	}
	free(line);
	fclose(file);
	return value;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * In user mode all the time: what goes idle has its TLB flushed later, without a call.
 * Ahead of others, of which none needs much.
 */
static void *spin(void *arg)
{
	struct counters *c = arg;

	setpriority(PRIO_PROCESS, 0, -20);
	__atomic_store_n(&c->tid, gettid(), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		__atomic_add_fetch(&c->rounds, 1, __ATOMIC_RELAXED);
		__builtin_ia32_pause();
	}
	return NULL;
}

/* Returns when the other thread runs: what it waited before, has been accounted. */
static void meet_spinner(const struct counters *c)
{
	uint64_t rounds = __atomic_load_n(&c->rounds, __ATOMIC_RELAXED);

	while (__atomic_load_n(&c->rounds, __ATOMIC_RELAXED) == rounds)
		sched_yield();
}

/* How long it was runnable and did not run; 0 where the kernel has no CONFIG_SCHED_INFO. */
static uint64_t spinner_waited(const struct counters *c)
{
	unsigned long long waited = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)c->tid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%*u %llu", &waited) != 1)
		waited = 0;
	fclose(file);
	return waited;
}

static void begin_flushes(struct counters *c)
{
	meet_spinner(c);
	c->waited = spinner_waited(c);
	c->began = now_ns();
	c->flushes = tlb_interrupts(c->there);
}

/* Unknown if the other thread had to wait for more than a part in MISSED of the time. */
static int64_t end_flushes(const struct counters *c)
{
	int64_t flushes = tlb_interrupts(c->there) - c->flushes;
	uint64_t time = now_ns() - c->began;

	meet_spinner(c);
	return (spinner_waited(c) - c->waited) * MISSED > time ? COUNT_UNKNOWN : flushes;
}

/* 0 or an errno. */
static int start_spinner(struct counters *c)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int err;

	only(&set, c->there);
	pthread_attr_init(&attr);
	err = pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	if (!err)
		err = pthread_create(&c->spinner, &attr, spin, c);
	pthread_attr_destroy(&attr);
	while (!err && !__atomic_load_n(&c->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	return err;
}

static void open_flushes(struct counters *c)
{
	int cpu, err;

	for (cpu = 0; cpu < CPU_SETSIZE && c->there < 0; cpu++)
		if (cpu != c->here && CPU_ISSET(cpu, &c->before))
			c->there = cpu;
	if (c->there < 0) {
		unknown("TLB flushes: there is no second processor");
		return;
	}
	err = start_spinner(c);
	if (err) {
		unknown("TLB flushes: a thread on processor %d: %s", c->there, strerror(err));
		c->there = -1;
		return;
	}
	c->flushes = tlb_interrupts(c->there);
	if (c->flushes == COUNT_UNKNOWN)
		unknown("TLB flushes: /proc/interrupts has no row of them");
}

static void close_flushes(struct counters *c)
{
	if (c->there < 0)
		return;
	__atomic_store_n(&c->stop, true, __ATOMIC_RELAXED);
	pthread_join(c->spinner, NULL);
}

/* ---- notifiers ---- */

/* The number of the trace event; -1: there is none. */
static int event_id(void)
{
	static const char *const paths[] = {
		"/sys/kernel/tracing/" EVENT,
		"/sys/kernel/debug/tracing/" EVENT,
	};
	size_t i;
	int id;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		FILE *file = fopen(paths[i], "re");
		bool found;

		if (!file)
			continue;
		found = fscanf(file, "%d", &id) == 1;
		fclose(file);
		if (found)
			return id;
	}
	return -1;
}

/*
 * A counter of the processor, of which a filter takes what is the thread's.  One of the
 * thread would be switched with it, for which the kernel patches its scheduler: so
 * would all else be slower, and an emulated processor may fall over it.
 */
static int open_event(int id, int cpu)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = id,
	};
	char filter[32];
	int fd;

	fd = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	snprintf(filter, sizeof(filter), "common_pid == %d", (int)gettid());
	if (fd >= 0 && ioctl(fd, PERF_EVENT_IOC_SET_FILTER, filter)) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static void open_notified(struct counters *c)
{
	const char *what;
	int id;

	if (!vmm_have_kvm()) {
		unknown("MMU notifiers: there is no /dev/kvm");
		return;
	}
	id = event_id();
	if (id < 0) {
		unknown("MMU notifiers: there is no %s in tracefs", EVENT);
		return;
	}
	if (vmm_create(&c->vmm, &what)) {
		unknown("MMU notifiers: %s: %s", what, strerror(errno));
		return;
	}
	c->has_vm = true;
	if (vmm_set_region(&c->vmm, REGION, 0, VMM_RAM, c->mem, c->size)) {
		unknown("MMU notifiers: KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
		return;
	}
	c->event = open_event(id, c->here);
	if (c->event < 0)
		unknown("MMU notifiers: perf_event_open: %s", strerror(errno));
}

static void close_notified(struct counters *c)
{
	if (c->event >= 0)
		close(c->event);
	if (c->has_vm)
		vmm_close(&c->vmm);
}

/* ---- both ---- */

static void begin(struct counters *c)
{
	if (c->flushes != COUNT_UNKNOWN)
		begin_flushes(c);
	if (c->event >= 0)
		ioctl(c->event, PERF_EVENT_IOC_RESET, 0);
}

static struct counts end(struct counters *c)
{
	struct counts counts = { COUNT_UNKNOWN, COUNT_UNKNOWN };
	uint64_t notified;

	if (c->event >= 0 && read(c->event, &notified, sizeof(notified)) == sizeof(notified))
		counts.notified = notified;
	if (c->flushes != COUNT_UNKNOWN)
		counts.flushes = end_flushes(c);
	return counts;
}

struct counts counters_of(struct counters *c, void (*before)(void *), void (*code)(void *),
			  void *arg)
{
	struct counts most = { COUNT_UNKNOWN, COUNT_UNKNOWN };
	unsigned int i;

	for (i = 0; i < TRIES; i++) {
		struct counts counts;

		if (before)
			before(arg);
		begin(c);
		code(arg);
		counts = end(c);
		if (counts.flushes > most.flushes)
			most.flushes = counts.flushes;
		most.notified = counts.notified;
	}
	if (c->flushes != COUNT_UNKNOWN && most.flushes == COUNT_UNKNOWN)
		unknown("TLB flushes: the thread on processor %d had to wait too often",
			c->there);
	return most;
}

/* Pages that were written are unmapped: each is a flush, and a call of notifiers. */
static void unmap_pages(void *arg)
{
	struct counters *c = arg;
	unsigned int i;

	for (i = 0; i < CONTROL; i++) {
		char *page = c->mem + i * DTRACK_PAGE_SIZE;

		*(volatile char *)page = 0;
		madvise(page, DTRACK_PAGE_SIZE, MADV_DONTNEED);
	}
}

static bool too_few(int64_t count)
{
	return count != COUNT_UNKNOWN && count < CONTROL - CONTROL / MISSED;
}

static void control(struct counters *c)
{
	struct counts counts = counters_of(c, NULL, unmap_pages, c);

	if (too_few(counts.flushes))
		unknown("TLB flushes: of %u only %d were an interrupt", CONTROL,
			(int)counts.flushes);
	if (too_few(counts.flushes) || counts.flushes == COUNT_UNKNOWN)
		c->flushes = COUNT_UNKNOWN;
	if (too_few(counts.notified)) {
		unknown("MMU notifiers: of %u calls only %d were seen", CONTROL,
			(int)counts.notified);
		close(c->event);
		c->event = -1;
	}
}

struct counters *counters_open(void *mem, size_t size)
{
	struct counters *c = calloc(1, sizeof(*c));
	cpu_set_t set;

	if (!c || sched_getaffinity(0, sizeof(c->before), &c->before)) {
		perror("counters");
		exit(1);
	}
	c->mem = mem;
	c->size = size;
	c->here = sched_getcpu();
	c->there = -1;
	c->flushes = COUNT_UNKNOWN;
	c->event = -1;
	only(&set, c->here);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		unknown("all: staying on processor %d: %s", c->here, strerror(errno));
		return c;
	}
	open_flushes(c);
	open_notified(c);
	control(c);
	return c;
}

void counters_close(struct counters *c)
{
	close_notified(c);
	close_flushes(c);
	sched_setaffinity(0, sizeof(c->before), &c->before);
	free(c);
}
