// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack replicate: keep a guest going at a secondary, epoch by epoch. */
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "../lib/dirtytrack.h"
#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "replicate-report.h"
#include "replicate.h"
#include "target.h"
#include "units.h"

enum {
	OPT_ANSWER = 256,
	OPT_LEASE,
	OPT_ON_SLOW,
	OPT_BUFFER,
	OPT_THREADS,
	OPT_CHECKSUM,
	OPT_MAX_BANDWIDTH,
	OPT_RECONNECT,
	OPT_COUNT,
	OPT_REPORT,
};

static const struct option_desc options[] = {
	{ 'q', "qmp", "SOCKET", "QEMU's QMP socket" },
	{ 'i', "interval", "MS", "from one epoch to the next, 100 unless given" },
	{ OPT_LEASE, "lease", "SECONDS", "the guest stands still without a secondary for so long" },
	{ OPT_ON_SLOW, "on-slow", "WHAT", "stretch or throttle; stretch unless given" },
	{ OPT_BUFFER, "buffer", "SIZE", "of an epoch that is copied aside, 256M unless given" },
	{ OPT_THREADS, "threads", "N", "that copy it; one a processor unless given" },
	{ OPT_CHECKSUM, "checksum", NULL, "send one, for memory to be compared" },
	{ OPT_MAX_BANDWIDTH, "max-bandwidth", "RATE", "bytes of data a second" },
	{ 'c', "connections", "N", "for each slot; 4 unless given" },
	{ OPT_ANSWER, "answer", "SECONDS", "wait that long for one, 30 unless given" },
	{ OPT_RECONNECT, "reconnect", "SECONDS", "give up when the secondary is away for so long" },
	{ OPT_COUNT, "count", "N", "epochs; without it, until interrupted" },
	{ OPT_REPORT, "report", "SECONDS", "time of each line, 1 unless given" },
	TABLE_OPTIONS,
	{ 0 }
};

struct job {
	struct replicate replicate;
	const char *qmp;
	double report;
	struct table_options table;
};

static int set_on_slow(struct replicate *r, const char *arg)
{
	r->slow = !strcmp(arg, "throttle") ? SLOW_THROTTLE : SLOW_STRETCH;
	if (r->slow == SLOW_THROTTLE || !strcmp(arg, "stretch"))
		return 0;
	msg_error("--on-slow: '%s' is neither stretch nor throttle", arg);
	return -1;
}

static int set_bytes(const char *option, const char *arg, uint64_t least,
		     uint64_t *bytes)
{
	if (!parse_size(arg, bytes) && *bytes >= least)
		return 0;
	msg_error("%s: '%s' is not a number of bytes, as in 100M, and %llu at least",
		  option, arg, (unsigned long long)least);
	return -1;
}

static int set_at_least(const char *option, double least, double value)
{
	if (value >= least)
		return 0;
	msg_error("%s: less than %g seconds are too few", option, least);
	return -1;
}

static int set_option(struct job *job, int val, const char *arg)
{
	struct replicate *r = &job->replicate;

	switch (val) {
	case 'q':
		job->qmp = arg;
		return 0;
	case 'i':
		if (option_ms("--interval", arg, &r->interval))
			return -1;
		return set_at_least("--interval", 0.001, r->interval);
	case OPT_LEASE:
		if (option_seconds("--lease", arg, &r->lease))
			return -1;
		/* What takes it is answered in less, also on a busy host. */
		return set_at_least("--lease", 0.5, r->lease);
	case OPT_ON_SLOW:
		return set_on_slow(r, arg);
	case OPT_BUFFER:
		return set_bytes("--buffer", arg, DTRACK_PAGE_SIZE, &r->buffer);
	case OPT_THREADS:
		return option_count("--threads", arg, &r->threads);
	case OPT_CHECKSUM:
		r->checksum = true;
		return 0;
	case OPT_MAX_BANDWIDTH:
		return set_bytes("--max-bandwidth", arg, 1, &r->bandwidth);
	case 'c':
		return option_connections(arg, &r->connections);
	case OPT_ANSWER:
		return option_seconds("--answer", arg, &r->answer);
	case OPT_RECONNECT:
		return option_seconds("--reconnect", arg, &r->reconnect);
	case OPT_COUNT:
		return option_count("--count", arg, &r->count);
	case OPT_REPORT:
		if (option_seconds("--report", arg, &job->report))
			return -1;
		return set_at_least("--report", 0.001, job->report);
	}
	return table_option(&job->table, val, arg) ? 0 : -1;
}

/* [SLOT[=NAME]...] TARGET */
static int set_operands(struct job *job, char **argv)
{
	struct replicate *r = &job->replicate;

	for (; argv[0] && argv[1]; argv++) {
		char *eq = strrchr(argv[0], '=');

		if (r->nr_refs == MAX_REPLICAS) {
			msg_error("replicate: more than %d slots", MAX_REPLICAS);
			return -1;
		}
		r->refs[r->nr_refs] = argv[0];
		if (eq) {
			*eq = '\0';
			r->exports[r->nr_refs] = eq + 1;
		}
		r->nr_refs++;
	}
	r->uri = argv[0];
	if (!r->uri) {
		msg_error("replicate: a target is wanted: the URI of a secondary");
		return -1;
	}
	if (target_kind(r->uri) != TARGET_NBD) {
		msg_error("replicate: '%s' is not an NBD URI", r->uri);
		return -1;
	}
	if (!job->qmp) {
		msg_error("replicate: which QEMU? (--qmp)");
		return -1;
	}
	return 0;
}

static int status_of(int err)
{
	switch (err) {
	case 0:
		return EXIT_OK;
	case -EHOSTUNREACH:
		return EXIT_DOUBT;
	case -EOWNERDEAD:
		return EXIT_TAKEN_OVER;
	}
	return EXIT_FAILED;
}

static int run(struct job *job, struct replicate_report *rep)
{
	struct replicate *r = &job->replicate;
	int ret, status;

	interrupt_catch();
	ret = replicate_open(r, job->qmp);
	if (!ret)
		ret = replicate_run(r);
	/* It had no other end. */
	if (ret == -EINTR && interrupted)
		ret = 0;
	status = status_of(ret);
	replicate_report_end(rep, status);
	if (!status && rep->error)
		status = EXIT_FAILED;
	/* Who is told where the guest is not must not take it for an ordinary end. */
	if (status == EXIT_DOUBT || status == EXIT_TAKEN_OVER)
		interrupted = 0;
	replicate_close(r);
	return status;
}

static int replicate(const struct builtin *cmd, int argc, char **argv)
{
	struct job job = {
		.report = 1,
		.replicate = {
			.interval = 0.1,
			.answer = 30,
			.buffer = 256 * 1024 * 1024,
			.connections = 4,
		},
	};
	struct replicate_report rep;
	int val, status;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (set_option(&job, val, optarg))
			return usage_error(cmd);
	}
	if (set_operands(&job, argv + optind))
		return usage_error(cmd);
	if (replicate_report_open(&rep, &job.replicate, cmd, &job.table, job.report))
		return usage_error(cmd);
	status = run(&job, &rep);
	replicate_report_close(&rep);
	interrupt_die();
	return status;
}

const struct builtin builtin_replicate = {
	.name = "replicate",
	.summary = "Keep a guest ready to go on elsewhere, epoch by epoch",
	.usage = "[OPTION...] --qmp SOCKET [SLOT[=NAME]...] TARGET",
	.options = options,
	.columns = replicate_columns,
	.nr_columns = NR_REPLICATE_COLUMNS,
	.run = replicate,
};
