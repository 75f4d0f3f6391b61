// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <getopt.h>
#include <unistd.h>

#include "msg.h"
#include "units.h"
#include "watch.h"

static int set_limit(const struct watch *w, uint64_t limit)
{
	int ret = limit ? dtrack_limit(w->log, limit) : 0;

	if (ret == -ENOTTY)
		msg_error("slot %s: this module has no limits", w->ref);
	else if (ret)
		msg_errno(ret, "slot %s: cannot limit it", w->ref);
	return ret;
}

int watch_begin(struct watch *w, const struct builtin *cmd, char **argv,
		const struct table_options *opts, const struct watch_log *log)
{
	struct dirtytrack_slot_info info;

	w->ref = argv[optind];
	if (!w->ref || argv[optind + 1]) {
		if (w->ref)
			msg_error("%s: '%s' is one argument too many",
				  cmd->name, argv[optind + 1]);
		else
			msg_error("%s: which slot?", cmd->name);
		return usage_error(cmd);
	}
	w->table = table_new(cmd->columns, cmd->nr_columns, opts);
	if (!w->table)
		return usage_error(cmd);
	w->slot = open_slot(w->ref, &info);
	if (w->slot < 0)
		goto free_table;
	w->npages = info.out_length / DTRACK_PAGE_SIZE;
	w->log = open_log(w->slot, w->ref, log->flags, log->ring);
	if (w->log < 0)
		goto close_slot;
	if (set_limit(w, log->limit))
		goto close_log;
	return EXIT_OK;

close_log:
	close(w->log);
close_slot:
	close(w->slot);
free_table:
	table_free(w->table);
	return EXIT_FAILED;
}

int watch_end(struct watch *w, int err)
{
	if (err)
		msg_errno(err, "slot %s: cannot watch it", w->ref);
	close(w->log);
	close(w->slot);
	table_free(w->table);
	return err ? EXIT_FAILED : EXIT_OK;
}

int option_limit(const char *arg, uint64_t *limit)
{
	if (!parse_number(arg, DIRTYTRACK_LIMIT_MAX, limit) && *limit)
		return 0;
	msg_error("--limit: '%s' is not a number of pages from 1 to %d", arg,
		  DIRTYTRACK_LIMIT_MAX);
	return -1;
}
