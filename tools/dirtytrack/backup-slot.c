// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"
#include "backup-slot.h"
#include "device.h"
#include "interrupt.h"
#include "msg.h"
#include "nbd-client.h"
#include "target.h"

/* ---- where they go ---- */

/* A directory of our own, with a path that may be a part of a URI. */
static int make_dir(struct backup_slot *s)
{
	const char *tmp = getenv("TMPDIR");
	int ret;

	if (!tmp || *tmp != '/' || strlen(tmp) > sizeof(s->dir) - 20 ||
	    strspn(tmp, "/-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") !=
	    strlen(tmp))
		tmp = "/tmp";
	snprintf(s->dir, sizeof(s->dir), "%s/dirtytrack.XXXXXX", tmp);
	if (mkdtemp(s->dir))
		return 0;
	ret = -errno;
	msg_errno(ret, "%s", s->dir);
	s->dir[0] = '\0';
	return ret;
}

static void remove_dir(struct backup_slot *s)
{
	char path[sizeof(s->dir) + 8];

	if (!s->dir[0])
		return;
	snprintf(path, sizeof(path), "%s/nbd", s->dir);
	unlink(path);
	rmdir(s->dir);
	s->dir[0] = '\0';
}

/* What files and exports are called. */
static int name_of(const char *ref, char name[SLOT_LABEL_LEN])
{
	struct dirtytrack_slot_info info;
	int slot = open_slot(ref, &info);

	if (slot < 0)
		return slot;
	close(slot);
	slot_label(&info, name);
	if (*name == '#')
		snprintf(name, SLOT_LABEL_LEN, "slot-%u", info.out_id);
	return 0;
}

static int init_uri(struct backup_slot *s, const char *uri, const char *name,
		    bool several)
{
	s->uri = several ? nbd_uri_export(uri, name) : strdup(uri);
	if (s->uri)
		return 0;
	if (!several)
		msg_errno(ENOMEM, "%s", uri);
	return -EINVAL;
}

int backup_slot_init(struct backup_slot *s, const char *ref,
		     const char *target, bool several)
{
	char name[SLOT_LABEL_LEN];
	int ret;

	memset(s, 0, sizeof(*s));
	s->ref = ref;
	s->chain.lock = -1;
	ret = name_of(ref, name);
	if (ret)
		return ret;
	if (target_kind(target) == TARGET_NBD)
		return init_uri(s, target, name, several);
	ret = chain_init(&s->chain, target, name);
	return ret ? ret : make_dir(s);
}

int backup_slot_open(struct backup_slot *s)
{
	int ret = source_kept_open(&s->src, s->ref);

	s->fresh = true;
	if (!ret && !s->uri)
		ret = chain_open(&s->chain, s->src.base.npages * DTRACK_PAGE_SIZE);
	return ret;
}

void backup_slot_check(struct backup_slot *s)
{
	if (s->uri || !chain_is_broken(&s->chain))
		return;
	msg_note("%s: it is not there any more: the next version is a full one",
		 s->chain.last);
	chain_cut(&s->chain);
}

/* ---- a version ---- */

/* Something for the copy to write to. */
static int open_file(struct backup_slot *s, unsigned int connections)
{
	const char *backing = s->full ? NULL : chain_backing(&s->chain);
	uint64_t bytes = s->src.base.npages * DTRACK_PAGE_SIZE;
	int ret = qcow2_create(s->chain.partial, backing, bytes);

	return ret ? ret : qemu_nbd_start(&s->server, s->dir, s->chain.partial,
					  connections);
}

int backup_slot_begin(struct backup_slot *s, bool full,
		      struct copy_move *move, unsigned int connections,
		      const struct pipeline_options *opts)
{
	int ret;

	memset(&s->stats, 0, sizeof(s->stats));
	move->src = &s->src.base;
	s->full = full || (!s->uri && !chain_backing(&s->chain));
	s->file = strdup(s->uri ? s->uri : s->chain.file);
	if (!s->file) {
		msg_errno(ENOMEM, "slot %s", s->ref);
		return -ENOMEM;
	}
	/* What could not be put back, when a version failed. */
	ret = source_kept_undo(&s->src);
	if (!ret && s->full && !s->fresh)
		ret = source_kept_restart(&s->src);
	s->fresh = false;
	if (!ret && !s->uri)
		ret = open_file(s, connections);
	if (ret)
		return ret;
	move->dst = target_nbd(s->uri ? s->uri : s->server.uri,
			       s->src.base.npages, connections);
	if (!move->dst)
		return -EIO;
	move->dst->name = s->file;
	return pipeline_open(&move->pipe, move->src, move->dst, opts);
}

void backup_slot_end_copy(struct copy_move *move)
{
	pipeline_close(move->pipe);
	move->pipe = NULL;
	target_close(move->dst);
	move->dst = NULL;
}

int backup_slot_store(struct backup_slot *s, struct copy_move *move)
{
	int ret = pipeline_flush(move->pipe, false);

	if (ret)
		return ret;
	pipeline_get_stats(move->pipe, &s->stats);
	if (s->uri)
		return 0;
	backup_slot_end_copy(move);
	return qemu_nbd_finish(&s->server);
}

int backup_slot_commit(struct backup_slot *s)
{
	return s->uri ? 0 : chain_commit(&s->chain);
}

static void end_version(struct backup_slot *s)
{
	free(s->file);
	s->file = NULL;
}

void backup_slot_done(struct backup_slot *s)
{
	source_kept_done(&s->src);
	end_version(s);
}

void backup_slot_abort(struct backup_slot *s, unsigned int number)
{
	qemu_nbd_kill(&s->server);
	if (s->uri)
		return;
	/* Another slot's may have failed when this one had its name. */
	if (s->chain.next != number)
		chain_undo(&s->chain);
	chain_abort(&s->chain);
}

void backup_slot_undo(struct backup_slot *s)
{
	source_kept_undo(&s->src);
	end_version(s);
}

/* ---- the end ---- */

void backup_slot_close(struct backup_slot *s)
{
	source_kept_close(&s->src);
	chain_close(&s->chain);
	remove_dir(s);
	free(s->uri);
	s->uri = NULL;
}

void backup_slot_clean_after(struct backup_slot *s)
{
	if (s->uri)
		return;
	chain_clean_after(&s->chain);
	remove_dir(s);
}
