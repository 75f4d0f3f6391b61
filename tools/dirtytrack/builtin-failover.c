// SPDX-License-Identifier: GPL-2.0-only
/* dirtytrack failover: let a replicated guest run at its secondary. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "replica-client.h"
#include "target.h"
#include "table.h"
#include "units.h"

enum {
	OPT_FORCE = 256,
	OPT_TIMEOUT,
	OPT_DRY_RUN,
};

static const struct option_desc options[] = {
	{ OPT_FORCE, "force", NULL, "the guest certainly runs nowhere else" },
	{ OPT_TIMEOUT, "timeout", "SECONDS", "how long it may take, 60 unless given" },
	{ OPT_DRY_RUN, "dry-run", NULL, "say how the secondary is, change nothing" },
	{ 'J', "json", NULL, "print JSON" },
	{ 0 }
};

struct job {
	const char *uri;
	bool force;
	bool dry_run;
	bool json;
	double timeout;
};

#define TICK 0.05

/*
 * The server is another one meanwhile: asked until it says how it ended.  -EINPROGRESS
 * when it does not in time.
 */
static int wait_for(struct replica *r, struct replica_state *state, double deadline)
{
	int ret = -ENOTCONN;

	for (;;) {
		if (ret)
			ret = replica_connect(r, state);
		else
			ret = replica_ask(r, state);
		if (ret == -EINTR)
			return ret;
		if (!ret && state->phase != STORE_FAILING_OVER)
			return 0;
		if (now() > deadline)
			return -EINPROGRESS;
		if (interrupt_sleep(now() + TICK))
			return -EINTR;
	}
}

static int run(struct replica *r, const struct job *job, struct replica_state *state)
{
	double deadline = now() + job->timeout;
	int ret = replica_connect(r, state);

	if (!ret && state->phase != STORE_FAILING_OVER)
		ret = replica_failover(r, job->force);
	/* A connection that was lost by now was so because it has begun. */
	if (ret == -EREMOTEIO || (ret && !state->phase) || ret == -EINTR)
		return replica_explain(r, ret);
	ret = wait_for(r, state, deadline);
	if (ret == -EINPROGRESS)
		msg_error("%s: it is not known how it ended, after %g s", job->uri,
			  job->timeout);
	if (ret)
		return ret;
	if (state->phase == STORE_RUNNING)
		return 0;
	msg_error("%s: %s", job->uri, *state->message ? state->message :
		  "the secondary was not asked: the connection was lost");
	return -EREMOTEIO;
}

static const char *phase_name(enum store_phase phase)
{
	switch (phase) {
	case STORE_REPLICA:
		return "replica";
	case STORE_FAILING_OVER:
		return "failing-over";
	case STORE_RUNNING:
		return "running";
	case STORE_FAILED:
		return "failed";
	}
	return "unknown";
}

static int print_status(const struct job *job, const struct replica_state *state)
{
	struct json_object *obj;

	if (!job->json) {
		printf("phase: %s\nepoch: %" PRIu64 "\nprimary: %s\nheard of: ",
		       phase_name(state->phase), state->committed,
		       state->attached ? "attached" : "not attached");
		if (state->unheard)
			printf("%.1f s ago\n", state->unheard);
		else
			printf("%s\n", state->attached ? "now" : "-");
		if (state->undone)
			printf("undone: %" PRIu64 " pages\n", state->undone);
		if (state->late)
			printf("late: %" PRIu64 " pages\n", state->late);
		return fflush(stdout) ? -EIO : 0;
	}
	obj = json_object_new_object();
	json_object_object_add(obj, "event", json_object_new_string("status"));
	json_object_object_add(obj, "phase",
			       json_object_new_string(phase_name(state->phase)));
	json_object_object_add(obj, "epoch",
			       json_object_new_uint64(state->committed));
	json_object_object_add(obj, "attached",
			       json_object_new_boolean(state->attached));
	json_object_object_add(obj, "unheard", json_seconds(state->unheard));
	json_object_object_add(obj, "undone", json_object_new_uint64(state->undone));
	json_object_object_add(obj, "late", json_object_new_uint64(state->late));
	json_object_object_add(obj, "message", json_object_new_string(state->message));
	return json_line(obj);
}

static int print(const struct job *job, const struct replica_state *state,
		 double seconds)
{
	struct json_object *obj;

	if (!job->json) {
		printf("the guest runs there, from epoch %" PRIu64 ", after %.3f s\n",
		       state->committed, seconds);
		return fflush(stdout) ? -EIO : 0;
	}
	obj = json_object_new_object();
	json_object_object_add(obj, "event", json_object_new_string("running"));
	json_object_object_add(obj, "epoch",
			       json_object_new_uint64(state->committed));
	json_object_object_add(obj, "time", json_seconds(seconds));
	return json_line(obj);
}

static int failover(const struct builtin *cmd, int argc, char **argv)
{
	struct job job = { .timeout = 60 };
	struct replica_state state = { 0 };
	struct replica *r;
	double start = now();
	int val, ret;

	while ((val = parse_option(cmd, argc, argv)) != OPTION_END) {
		switch (val) {
		case OPTION_HELP:
			return EXIT_OK;
		case OPT_FORCE:
			job.force = true;
			break;
		case OPT_DRY_RUN:
			job.dry_run = true;
			break;
		case 'J':
			job.json = true;
			break;
		case OPT_TIMEOUT:
			if (option_seconds("--timeout", optarg, &job.timeout))
				return usage_error(cmd);
			break;
		default:
			return usage_error(cmd);
		}
	}
	job.uri = argv[optind];
	if (!job.uri || argv[optind + 1] || target_kind(job.uri) != TARGET_NBD) {
		msg_error("failover: one target is wanted: the URI of a secondary");
		return usage_error(cmd);
	}
	interrupt_catch();
	r = replica_new(job.uri, job.timeout);
	if (!r)
		return EXIT_FAILED;
	if (job.dry_run)
		ret = replica_explain(r, replica_connect(r, &state));
	else
		ret = run(r, &job, &state);
	replica_free(r);
	if (!ret && job.dry_run)
		ret = print_status(&job, &state);
	else if (!ret)
		ret = print(&job, &state, now() - start);
	interrupt_die();
	if (ret == -EINPROGRESS)
		return EXIT_DOUBT;
	return ret ? EXIT_FAILED : EXIT_OK;
}

const struct builtin builtin_failover = {
	.name = "failover",
	.summary = "Let a replicated guest run at its secondary",
	.usage = "[OPTION...] TARGET",
	.options = options,
	.run = failover,
};
