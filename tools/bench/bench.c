// SPDX-License-Identifier: GPL-2.0-only
/*
 * dirtytrack-bench: what it costs to know which pages were written, by each way
 * that a user could pick, side by side in one boot.
 *
 * The trackers take turns, run after run, so that what changes on the machine
 * meanwhile is shared by all.  Speed is printed, never judged; but a tracker that
 * does not report what was written ends the program, for its times mean nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../dirtytrack/units.h"
#include "bench.h"
#include "measure.h"
#include "module.h"
#include "pattern.h"
#include "report.h"
#include "results.h"
#include "ticks.h"

/*
 * Where instructions are counted: a harvest of all of them is to be shorter than
 * the time between two interrupts of the timer.  There is one processor, so
 * harvests do not run beside a writer.
 */
#define COUNTED_PAGES 2048

static const struct tracker *const trackers[] = {
	&tracker_slot,
	&tracker_slot_group,
	&tracker_slot_single,
	&tracker_slot_zap,
	&tracker_uffd_anon,
	&tracker_uffd_memfd,
	&tracker_uffd_handler,
	&tracker_soft_dirty,
	&tracker_mprotect,
	&tracker_none,
	&tracker_kvm_slot,
	&tracker_kvm_log,
	&tracker_kvm_clear,
	&tracker_kvm_ring,
};

void die(const char *fmt, ...)
{
	int err = errno;
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "dirtytrack-bench: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, ": %s\n", strerror(err));
	va_end(args);
	exit(EXIT_TROUBLE);
}

void quit(int status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "dirtytrack-bench: ");
	vfprintf(stderr, fmt, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(status);
}

void *touched_alloc(size_t size)
{
	void *p = malloc(size);

	if (!p)
		die("memory");
	memset(p, 0xff, size);
	return memset(p, 0, size);
}

/* Those that the program was started on. */
static cpu_set_t processors;

void run_on(unsigned int n)
{
	cpu_set_t one;
	int cpu;

	CPU_ZERO(&one);
	n %= CPU_COUNT(&processors);
	for (cpu = 0; !CPU_ISSET(cpu, &processors) || n--; cpu++)
		;
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		die("sched_setaffinity");
}

/* ---- options ---- */

struct options {
	struct setup setup;
	unsigned int runs;
	const char *module;
	const char *json;
	const char *names;
	bool list;
};

enum {
	OPT_LOSE = 1000,
	OPT_LIST,
	OPT_HELP,
};

static const struct option longopts[] = {
	{ "size", required_argument, NULL, 's' },
	{ "sparse", required_argument, NULL, 'S' },
	{ "runs", required_argument, NULL, 'r' },
	{ "seconds", required_argument, NULL, 't' },
	{ "tracker", required_argument, NULL, 'T' },
	{ "pattern", required_argument, NULL, 'p' },
	{ "module", required_argument, NULL, 'm' },
	{ "json", required_argument, NULL, 'J' },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "lose", required_argument, NULL, OPT_LOSE },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 },
};

static const char help_text[] =
"Usage: dirtytrack-bench [OPTION]...\n"
"\n"
"What each way of tracking written pages costs, side by side.\n"
"\n"
" -s, --size SIZE        memory that is tracked (32M)\n"
" -S, --sparse SIZE      a large region of which one page is written; 0: none (16G)\n"
" -r, --runs NUMBER      runs of which the median is shown (5)\n"
" -t, --seconds SECONDS  how long harvests go back to back in each; 0: not at all (1)\n"
" -T, --tracker LIST     only these\n"
" -p, --pattern NAME     only this\n"
" -m, --module FILE      the module, to load it as the trackers want it\n"
" -J, --json FILE        write all that was measured there\n"
"     --list             list trackers and patterns\n"
"     --lose NUMBER      forget one reported page in so many: must end with status 3\n"
" -h, --help             display this help\n"
"\n"
"Exits with 1 if something cannot be measured, 2 for a wrong option, 3 if a tracker\n"
"does not report a page that was written, 4 if no tracker asked for is there.\n";

static uint64_t option_pages(const char *name, const char *arg, uint64_t min)
{
	uint64_t bytes;

	if (parse_size(arg, &bytes) || bytes / DTRACK_PAGE_SIZE < min)
		quit(EXIT_USAGE, "--%s: '%s' is not a size of at least %llu pages", name,
		     arg, (unsigned long long)min);
	return bytes / DTRACK_PAGE_SIZE;
}

static unsigned int option_number(const char *name, const char *arg, unsigned int max)
{
	uint64_t value;

	if (parse_number(arg, max, &value) || !value)
		quit(EXIT_USAGE, "--%s: '%s' is not a number from 1 to %u", name, arg,
		     max);
	return value;
}

static void parse(struct options *o, int argc, char **argv)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "s:S:r:t:T:p:m:J:h", longopts, NULL)) != -1) {
		switch (opt) {
		case 's':
			o->setup.npages = option_pages("size", optarg, 64);
			break;
		case 'S':
			o->setup.sparse = option_pages("sparse", optarg, 0);
			break;
		case 'r':
			o->runs = option_number("runs", optarg, MAX_RUNS);
			break;
		case 't':
			if (parse_seconds(optarg, &o->setup.seconds))
				quit(EXIT_USAGE, "--seconds: '%s' is no number of seconds",
				     optarg);
			break;
		case 'T':
			o->names = optarg;
			break;
		case 'p':
			o->setup.pattern = optarg;
			break;
		case 'm':
			o->module = optarg;
			break;
		case 'J':
			o->json = optarg;
			break;
		case OPT_LIST:
			o->list = true;
			break;
		case OPT_LOSE:
			o->setup.lose = option_number("lose", optarg, 1U << 30);
			break;
		case 'h':
			fputs(help_text, stdout);
			exit(0);
		default:
			exit(EXIT_USAGE);
		}
	}
	if (optind < argc)
		quit(EXIT_USAGE, "'%s' is not an option", argv[optind]);
}

/* ---- which trackers ---- */

static bool name_is(const char *name, const char *start, size_t len)
{
	return strlen(name) == len && !strncmp(name, start, len);
}

static bool is_named(const char *names, const char *name)
{
	if (!names)
		return true;
	for (;;) {
		size_t len = strcspn(names, ",");

		if (name_is(name, names, len))
			return true;
		if (!names[len])
			return false;
		names += len + 1;
	}
}

/* A name that nothing has is a mistake, not nothing to do. */
static void check_names(const struct options *o)
{
	const char *names = o->names;
	size_t i;

	for (i = 0; o->setup.pattern && i < nr_patterns; i++)
		if (!strcmp(patterns[i].name, o->setup.pattern))
			break;
	if (o->setup.pattern && i == nr_patterns)
		quit(EXIT_USAGE, "--pattern: there is no '%s'", o->setup.pattern);
	if (o->setup.pattern && o->setup.npages < patterns[i].least)
		quit(EXIT_USAGE, "--pattern: %s needs %llu pages", o->setup.pattern,
		     (unsigned long long)patterns[i].least);
	while (names) {
		size_t len = strcspn(names, ",");

		for (i = 0; i < NELEM(trackers); i++)
			if (name_is(trackers[i]->name, names, len))
				break;
		if (i == NELEM(trackers))
			quit(EXIT_USAGE, "--tracker: there is no '%.*s'", (int)len, names);
		names = names[len] ? names + len + 1 : NULL;
	}
}

static const char *why_missing(const struct tracker *t, uint64_t npages)
{
	const char *missing = NULL;

	if (t->params)
		missing = module_missing(t->params, t->param);
	if (!missing && t->missing)
		missing = t->missing(npages);
	return missing;
}

static void print_list(void)
{
	for (size_t i = 0; i < NELEM(trackers); i++)
		printf("tracker %-18s %s\n", trackers[i]->name, trackers[i]->what);
	for (size_t i = 0; i < nr_patterns; i++)
		printf("pattern %-18s %s\n", patterns[i].name, patterns[i].what);
}

/* ---- runs ---- */

static void measure(const struct options *o, const struct tracker *t, unsigned int run,
		    bool warm_up)
{
	run_on(0);
	measure_init(&o->setup);
	measure_patterns(t, run, warm_up);
	if (o->setup.sparse)
		measure_sparse(t, run, warm_up);
	if (o->setup.seconds)
		measure_back_to_back(t, warm_up);
}

/*
 * In a process of its own: some of what a tracker does to an address space stays
 * there.  One that once had a virtual machine is taken for one that has.
 */
static void measure_apart(const struct options *o, const struct tracker *t,
			  unsigned int run, bool warm_up)
{
	int status;
	pid_t pid;

	if (t->params)
		module_use(t->params);
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		measure(o, t, run, warm_up);
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	if (WIFSIGNALED(status))
		quit(EXIT_TROUBLE, "%s: killed by signal %d", t->name, WTERMSIG(status));
	if (WEXITSTATUS(status))
		exit(WEXITSTATUS(status));
}

int main(int argc, char **argv)
{
	struct options o = {
		.setup.npages = (32ULL << 20) / DTRACK_PAGE_SIZE,
		.setup.sparse = (16ULL << 30) / DTRACK_PAGE_SIZE,
		.setup.seconds = 1,
		.runs = 5,
	};
	struct candidate candidates[NELEM(trackers)];
	struct report report = { .setup = &o.setup, .candidates = candidates };
	size_t present = 0;

	/* The tables have a character that is not ASCII. */
	setlocale(LC_CTYPE, "C.UTF-8");
	setlinebuf(stdout);
	if (ticks_per_instruction()) {
		o.setup.npages = COUNTED_PAGES;
		o.setup.seconds = 0;
	}
	parse(&o, argc, argv);
	if (o.list) {
		print_list();
		return 0;
	}
	check_names(&o);
	module_init(o.module);
	results_init();
	if (sched_getaffinity(0, sizeof(processors), &processors))
		die("sched_getaffinity");
	for (size_t i = 0; i < NELEM(trackers); i++) {
		struct candidate *c = &candidates[report.nr];

		if (!is_named(o.names, trackers[i]->name))
			continue;
		c->tracker = trackers[i];
		c->missing = why_missing(c->tracker, o.setup.npages);
		present += !c->missing;
		report.nr++;
	}
	if (!present)
		quit(EXIT_MISSING, "%s: %s", candidates[0].tracker->name,
		     candidates[0].missing);

	/* One run unmeasured: code and page tables that only a first run needs. */
	for (unsigned int run = 0; run <= o.runs; run++)
		for (size_t i = 0; i < report.nr; i++)
			if (!candidates[i].missing)
				measure_apart(&o, candidates[i].tracker, run, !run);
	report.runs = o.runs;
	report_tables(&report);
	if (o.json)
		report_json(&report, o.json);
	return 0;
}
