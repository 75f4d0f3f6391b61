// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long a harvest takes: by xchg, and by a second buffer and SRCU
 *
 *     bench-latency [-j FILE] [-r RUNS] -m MODULE
 *
 * MODULE is bench_srcu.ko, which does both (srcu/bench_srcu.c); it is loaded and
 * unloaded here, also when this fails or is interrupted.  The methods take turns; each
 * run gives percentiles of its harvests, and the median of each over the runs is printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sheet.h"
#include "small.h"

#define DIRECTORY	"/sys/kernel/debug/bench_srcu/"
#define MAX_RUNS	99
#define MAX_HARVESTS	10000

static const char *const methods[] = { "xchg", "expedited", "srcu" };
static const double parts[] = { 0.5, 0.9, 0.99, 1 };

#define NR_METHODS	(sizeof(methods) / sizeof(methods[0]))
#define NR_PARTS	(sizeof(parts) / sizeof(parts[0]))

/* Microseconds. */
static double results[NR_METHODS][NR_PARTS][MAX_RUNS];

static bool loaded;
static volatile sig_atomic_t stopped;

/* The files of the module must be closed.  0 or errno. */
static int unload(void)
{
	int err = 0;

	if (loaded && syscall(SYS_delete_module, "bench_srcu", O_NONBLOCK))
		err = errno;
	loaded = false;
	return err;
}

static void unload_at_exit(void)
{
	int err = unload();

	if (err)
		fprintf(stderr, "bench-latency: unloading bench_srcu: %s\n", strerror(err));
}

static void stop(int sig)
{
	(void)sig;
	stopped = 1;
}

static void load(const char *module)
{
	/* No SA_RESTART: it ends the read of a file, which is a run. */
	const struct sigaction action = { .sa_handler = stop };
	int fd = open(module, O_RDONLY | O_CLOEXEC);

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		small_die(module, errno);
	close(fd);
	loaded = true;
	atexit(unload_at_exit);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(unsigned int method, unsigned int run)
{
	static double times[MAX_HARVESTS];
	char path[64];
	size_t n = 0;
	FILE *f;
	int err;

	snprintf(path, sizeof(path), DIRECTORY "%s", methods[method]);
	f = fopen(path, "re");
	if (!f)
		small_die(path, errno);
	errno = ENODATA;
	while (n < MAX_HARVESTS && fscanf(f, "%lf", &times[n]) == 1)
		n++;
	err = stopped ? EINTR : errno;
	fclose(f);
	if (!n || stopped)
		small_die(path, err);
	qsort(times, n, sizeof(times[0]), compare);
	for (unsigned int i = 0; i < NR_PARTS; i++) {
		size_t at = n * parts[i];

		results[method][i][run] = times[at < n ? at : n - 1] / 1e3;
	}
}

int main(int argc, char **argv)
{
	static const struct sheet_column columns[] = {
		{ "method", "METHOD" },
		{ "p50_us", "P50, us" },
		{ "p90_us", "P90, us" },
		{ "p99_us", "P99, us" },
		{ "max_us", "MAX, us" },
		{ "p99_to_xchg", "P99, times xchg" },
	};
	const char *json = NULL, *module = NULL;
	unsigned int runs = 5;
	struct sheet *sheet;
	double xchg_p99 = 0;
	int err;
	const struct small_option options[] = {
		{ 'j', .text = &json },
		{ 'm', .text = &module },
		{ 'r', .number = &runs },
		{ 0 }
	};

	if (!small_options(argc, argv, options) || !module || !runs || runs > MAX_RUNS)
		return small_usage("[-j FILE] [-r RUNS] -m MODULE");
	load(module);
	for (unsigned int run = 0; run < runs; run++)
		for (unsigned int i = 0; i < NR_METHODS; i++)
			measure(i, run);
	err = unload();
	if (err)
		small_die("unloading bench_srcu", err);

	sheet = sheet_new("Latency of a harvest of a bitmap of 4 GiB, while it is written to",
			  columns, sizeof(columns) / sizeof(columns[0]));
	for (unsigned int i = 0; i < NR_METHODS; i++) {
		double median = 0;

		sheet_text(sheet, methods[i]);
		for (unsigned int k = 0; k < NR_PARTS; k++) {
			median = sheet_median(results[i][k], runs);
			sheet_number(sheet, median);
		}
		median = sheet_median(results[i][2], runs);
		if (!i)
			xchg_p99 = median;
		sheet_number(sheet, median / xchg_p99);
	}
	sheet_finish(sheet, json);
	return 0;
}
