// SPDX-License-Identifier: GPL-2.0-only
/*
 * To files (saved.h), to run again some time: "dirtytrack receive --from".
 *
 * Nothing that is there is replaced: it may be the only copy of a guest.  All are made
 * under other names.  Memory gets its name when it is complete and on storage; the guest is
 * there when the state gets its own, in one step, after that.  So whoever wants to know,
 * the guard too, has but to look whether the file that was made here has it.
 *
 * The lock on that file is shared with the guard, and so is held until QEMU here has been
 * told to quit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "destination.h"
#include "file-io.h"
#include "image.h"
#include "interrupt.h"
#include "migrate.h"
#include "msg.h"
#include "saved.h"
#include "target.h"

struct destination_files {
	struct destination base;
	struct image state;
	struct stat made;	/* that file, whatever its name */
	struct target *memory[MAX_MOVES];
	unsigned int nr;
};

static struct destination_files *to_files(struct destination *d)
{
	return (struct destination_files *)d;
}

static int check_new(const char *path)
{
	struct stat st;

	/* What else is wrong with it is found out when it is made. */
	if (lstat(path, &st) < 0)
		return 0;
	msg_error("%s: it exists, and would be replaced: remove it, or name another", path);
	return -EEXIST;
}

static struct target *file_target(struct destination *d, const char *name,
				  uint64_t npages, unsigned int lanes)
{
	struct destination_files *f = to_files(d);
	char *path = saved_memory(d->name, name);
	struct target *t = NULL;

	(void)lanes;
	if (path && !check_new(path))
		t = target_image(path, npages);
	if (t)
		f->memory[f->nr++] = t;
	free(path);
	return t;
}

static int put_state(struct destination *d, const void *buf, size_t len,
		     uint64_t pos)
{
	struct image *state = &to_files(d)->state;
	int ret = file_write(state->fd, buf, len, pos);

	if (ret)
		msg_errno(ret, "%s: cannot write", state->partial);
	return ret;
}

static int load(struct destination *d, uint64_t size)
{
	struct destination_files *f = to_files(d);
	unsigned int i;
	int ret = 0;

	(void)size;
	for (i = 0; i < f->nr && !ret; i++)
		ret = interrupted ? -EINTR :
		      f->memory[i]->ops->commit(f->memory[i]);
	return !ret && interrupted ? -EINTR : ret;
}

static int run(struct destination *d, bool paused)
{
	struct destination_files *f = to_files(d);
	int ret = image_commit(&f->state);

	/* A name that the host may forget is none. */
	if (ret)
		image_revoke(&f->state);
	else if (paused)
		msg_note("%s: the guest was paused, and runs when it is started, unless told otherwise (dirtytrack receive --paused)",
			 d->name);
	return ret;
}

static enum handover_owner settle(struct destination *d, double seconds)
{
	struct destination_files *f = to_files(d);
	struct stat st;

	(void)seconds;
	if (stat(f->state.path, &st) < 0)
		return errno == ENOENT ? OWNER_HERE : OWNER_UNKNOWN;
	return st.st_dev == f->made.st_dev && st.st_ino == f->made.st_ino ?
	       OWNER_THERE : OWNER_HERE;
}

static void end(struct destination *d, bool there)
{
	struct destination_files *f = to_files(d);
	unsigned int i;

	if (there)
		return;
	image_abort(&f->state);
	/* The guard knows of none: killed now, memory stays, and is nobody's guest. */
	for (i = 0; i < f->nr; i++)
		f->memory[i]->ops->revoke(f->memory[i]);
}

static void close_files(struct destination *d)
{
	struct destination_files *f = to_files(d);

	image_abort(&f->state);
	free(f);
}

static const struct destination_ops ops = {
	.target = file_target,
	.put_state = put_state,
	.load = load,
	.run = run,
	.settle = settle,
	.end = end,
	.close = close_files,
};

static int make_state(struct destination_files *f, const char *path)
{
	char *name = saved_state(path);
	int ret = name ? check_new(name) : -ENOMEM;

	if (!ret)
		ret = image_create(&f->state, name, 0);
	free(name);
	if (!ret && fstat(f->state.fd, &f->made) < 0) {
		ret = -errno;
		msg_errno(ret, "%s", f->state.partial);
		image_abort(&f->state);
	}
	return ret;
}

struct destination *destination_files(const char *path)
{
	struct destination_files *f = calloc(1, sizeof(*f));

	if (!f) {
		msg_errno(ENOMEM, "%s", path);
		return NULL;
	}
	f->base.ops = &ops;
	f->base.one = !saved_is_dir(path);
	if (make_state(f, path)) {
		free(f);
		return NULL;
	}
	return &f->base;
}
