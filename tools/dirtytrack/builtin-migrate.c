// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack migrate: move a guest to another QEMU. */
#include <errno.h>
#include <getopt.h>
#include <string.h>

#include <linux/dirtytrack.h>

#include "builtin.h"
#include "copy-options.h"
#include "copy-report.h"
#include "interrupt.h"
#include "migrate.h"
#include "msg.h"
#include "target.h"
#include "units.h"

enum {
	OPT_ANSWER = 256,
	OPT_TIMEOUT,
	OPT_ON_TIMEOUT,
	OPT_MAX_BANDWIDTH,
	OPT_THROTTLE,
	OPT_DRY_RUN,
	OPT_TO_QMP,
};

static const struct option_desc options[] = {
	{ 'q', "qmp", "SOCKET", "QEMU's QMP socket" },
	{ OPT_TO_QMP, "to-qmp", "SOCKET", "QMP socket of the QEMU that waits, for a slot as target" },
	{ OPT_ANSWER, "answer", "SECONDS", "wait that long for one, 30 unless given" },
	{ OPT_THROTTLE, "throttle", "HOW", "auto, off, or PAGES a second; off unless given" },
	{ OPT_MAX_BANDWIDTH, "max-bandwidth", "RATE", "bytes of data a second" },
	{ OPT_TIMEOUT, "timeout", "SECONDS", "for the rounds" },
	{ OPT_ON_TIMEOUT, "on-timeout", "WHAT", "cancel or pause; cancel unless given" },
	{ OPT_DRY_RUN, "dry-run", NULL, "measure and predict, move nothing" },
	{ OPT_FREE, "free", "[SLOT=]FILE", "ranges of pages that are free and need not be moved" },
	FREE_FORMAT_OPTION,
	COPY_OPTIONS,
	{ 0 }
};

struct migrate_job {
	struct migrate migrate;
	const char *qmp;
	struct copy_options opts;
};

static int set_on_timeout(struct migrate *m, const char *arg)
{
	m->copy.pause_on_timeout = !strcmp(arg, "pause");
	if (m->copy.pause_on_timeout || !strcmp(arg, "cancel"))
		return 0;
	msg_error("--on-timeout: '%s' is neither cancel nor pause", arg);
	return -1;
}

static int set_throttle(struct migrate *m, const char *arg)
{
	m->copy.throttle = THROTTLE_FIXED;
	if (!strcmp(arg, "auto"))
		m->copy.throttle = THROTTLE_AUTO;
	else if (!strcmp(arg, "off"))
		m->copy.throttle = THROTTLE_OFF;
	else if (parse_number(arg, DIRTYTRACK_LIMIT_MAX,
			      &m->copy.throttle_rate) ||
		 !m->copy.throttle_rate) {
		msg_error("--throttle: '%s' is neither auto, off, nor a number of pages a second",
			  arg);
		return -1;
	}
	return 0;
}

static int set_bandwidth(struct migrate *m, const char *arg)
{
	if (!parse_size(arg, &m->bandwidth) && m->bandwidth)
		return 0;
	msg_error("--max-bandwidth: '%s' is not a number of bytes, as in 100M",
		  arg);
	return -1;
}

/* FILE, or SLOT=FILE. */
static int add_free(struct migrate *m, char *arg)
{
	struct migrate_free *f = &m->free[m->nr_free];
	char *eq = strchr(arg, '=');
	unsigned int i;

	if (m->nr_free == MAX_MOVES) {
		msg_error("--free: more than %d files", MAX_MOVES);
		return -1;
	}
	f->file = arg;
	if (eq) {
		*eq = '\0';
		f->ref = arg;
		f->file = eq + 1;
	}
	for (i = 0; i < m->nr_free; i++)
		if (!strcmp(f->file, "-") && !strcmp(m->free[i].file, "-")) {
			msg_error("--free: standard input can be read once");
			return -1;
		}
	m->nr_free++;
	return 0;
}

static int set_option(struct migrate_job *job, int val, char *arg)
{
	struct migrate *m = &job->migrate;

	switch (val) {
	case 'q':
		job->qmp = arg;
		return 0;
	case OPT_ANSWER:
		return option_seconds("--answer", arg, &m->answer);
	case OPT_TIMEOUT:
		return option_seconds("--timeout", arg, &m->copy.timeout);
	case OPT_ON_TIMEOUT:
		return set_on_timeout(m, arg);
	case OPT_THROTTLE:
		return set_throttle(m, arg);
	case OPT_MAX_BANDWIDTH:
		return set_bandwidth(m, arg);
	case OPT_DRY_RUN:
		m->copy.dry_run = true;
		return 0;
	case OPT_TO_QMP:
		m->target_qmp = arg;
		return 0;
	case OPT_FREE:
		return add_free(m, arg);
	}
	return copy_option(&job->opts, val, arg);
}

/* SLOT, or SLOT=NAME for one that has another name there. */
static void add_slot(struct migrate *m, char *arg)
{
	char *eq = strrchr(arg, '=');

	m->refs[m->nr_refs] = arg;
	if (eq) {
		*eq = '\0';
		m->names[m->nr_refs] = eq + 1;
	}
	m->nr_refs++;
}

static int check_target(const struct migrate *m)
{
	enum target_kind kind = target_kind(m->target);

	if (kind == TARGET_SLOT && !m->target_qmp) {
		msg_error("migrate: which QEMU waits for it there? (--to-qmp)");
		return -1;
	}
	if (kind != TARGET_SLOT && m->target_qmp) {
		msg_error("migrate: --to-qmp is for slots as targets only");
		return -1;
	}
	if (kind == TARGET_NULL && m->copy.verify) {
		msg_error("--verify: null: cannot be compared with anything");
		return -1;
	}
	return 0;
}

/* [SLOT...] TARGET */
static int set_operands(struct migrate_job *job, char **argv)
{
	struct migrate *m = &job->migrate;

	for (; argv[0] && argv[1]; argv++) {
		if (m->nr_refs == MAX_MOVES) {
			msg_error("migrate: more than %d slots", MAX_MOVES);
			return -1;
		}
		add_slot(m, argv[0]);
	}
	if (!argv[0]) {
		msg_error("migrate: a target is wanted: the URI of a receiver, a file, a slot, or null:");
		return -1;
	}
	m->target = argv[0];
	if (!job->qmp) {
		msg_error("migrate: which QEMU? (--qmp)");
		return -1;
	}
	return check_target(m);
}

static int status_of(int err)
{
	return err == -EHOSTUNREACH ? EXIT_DOUBT : report_status(err);
}

static int run(struct migrate_job *job, struct copy_report *report)
{
	struct migrate *m = &job->migrate;
	int ret, status;

	interrupt_catch();
	m->connections = job->opts.connections;
	m->reconnect = job->opts.reconnect;
	m->free_format = job->opts.free_format;
	m->copy.patience = m->answer;
	ret = migrate_open(m, job->qmp);
	if (!ret) {
		report_begin(report, NULL, m->target);
		ret = migrate_run(m);
	}
	status = status_of(ret);
	if (ret) {
		report_failed(report, status);
	} else {
		report_done(report, m->target);
		if (report->error)
			status = EXIT_FAILED;
		else if (m->copy.dry_run && m->copy.end != COPY_FITS)
			status = EXIT_DOWNTIME;
	}
	/* Who is told where the guest is not must not take it for an ordinary end. */
	if (status == EXIT_DOUBT)
		interrupted = 0;
	migrate_close(m);
	return status;
}

static int migrate(const struct builtin *cmd, int argc, char **argv)
{
	struct migrate_job job = { .migrate = { .answer = 30 } };
	struct copy_report report;
	int val, status;

	copy_options_init(&job.opts, &job.migrate.copy);
	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		if (val == OPTION_HELP)
			return EXIT_OK;
		if (set_option(&job, val, optarg))
			return usage_error(cmd);
	}
	if (set_operands(&job, argv + optind))
		return usage_error(cmd);
	if (report_open(&report, cmd, &job.opts))
		return usage_error(cmd);
	status = run(&job, &report);
	report_close(&report);
	interrupt_die();
	return status;
}

const struct builtin builtin_migrate = {
	.name = "migrate",
	.summary = "Move a guest, with its memory on slots, to another QEMU, or to files",
	.usage = "[OPTION...] --qmp SOCKET [SLOT[=NAME]...] TARGET",
	.options = options,
	.columns = copy_columns,
	.nr_columns = NR_COPY_COLUMNS,
	.run = migrate,
};
