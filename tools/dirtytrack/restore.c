// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin.h"
#include "file-io.h"
#include "image.h"
#include "incoming.h"
#include "interrupt.h"
#include "msg.h"
#include "progress.h"
#include "qmp.h"
#include "restore.h"
#include "saved.h"
#include "units.h"
#include "zero.h"

/* Pages that are read at once. */
#define CHUNK 256

/* What is open while a guest comes. */
struct coming {
	struct restore *r;
	struct incoming qemu;
	int state;
	uint64_t size;		/* of the state */
	struct image memory[MAX_SLOTS];
	struct progress progress;
	uint64_t done, npages;	/* of all memory */
	char *buf;
};

/* QEMU inherits it, and the lock. */
static int open_state(struct coming *c)
{
	char *path = saved_state(c->r->opts->from);
	struct stat st;
	int ret = 0;

	if (!path)
		return -ENOMEM;
	c->state = open(path, O_RDONLY);
	if (c->state < 0 || fstat(c->state, &st) < 0) {
		ret = -errno;
		msg_errno(ret, "%s: no guest is there", path);
	} else if (flock(c->state, LOCK_EX | LOCK_NB) < 0) {
		ret = -errno;
		if (ret == -EWOULDBLOCK)
			msg_error("%s: the guest runs, or is about to, or is being moved there",
				  path);
		else
			msg_errno(ret, "%s: cannot lock it", path);
	} else {
		c->size = st.st_size;
	}
	free(path);
	return ret;
}

static int open_memory(struct coming *c, unsigned int i)
{
	const struct slot_arg *slot = &c->r->opts->slots.slots[i];
	struct image *img = &c->memory[i];
	char *path = saved_memory(c->r->opts->from, slot->name);
	int ret = path ? image_open(img, path) : -ENOMEM;

	free(path);
	if (ret)
		return ret;
	c->npages += img->npages;
	if (img->npages == slot->size / DTRACK_PAGE_SIZE)
		return 0;
	msg_error("%s: it has %" PRIu64 " bytes, and slot %s %" PRIu64, img->path,
		  img->npages * DTRACK_PAGE_SIZE, slot->name, slot->size);
	return -EINVAL;
}

static int open_files(struct coming *c)
{
	unsigned int i;
	int ret;

	if (c->r->opts->slots.nr > 1 && !saved_is_dir(c->r->opts->from)) {
		msg_error("%s: it is the memory of one slot: several are in a directory",
			  c->r->opts->from);
		return -EINVAL;
	}
	ret = open_state(c);
	for (i = 0; i < c->r->opts->slots.nr && !ret; i++)
		ret = open_memory(c, i);
	return ret;
}

static int write_data(const struct slot_arg *slot, const char *buf, uint64_t first,
		      uint64_t npages)
{
	while (npages) {
		bool zero;
		uint64_t run = same_run(buf, npages, &zero);
		int ret = zero ? 0 : file_write(slot->fd, buf, run * DTRACK_PAGE_SIZE,
						first * DTRACK_PAGE_SIZE);

		if (ret) {
			msg_errno(ret, "slot %s: cannot write to it", slot->name);
			return ret;
		}
		buf += run * DTRACK_PAGE_SIZE;
		first += run;
		npages -= run;
	}
	return 0;
}

/* From @page on, a chunk at most, or what is zero; @page moves to where that ends. */
static int load_some(struct coming *c, const struct slot_arg *slot, struct image *img,
		     uint64_t *page)
{
	uint64_t end, npages;
	bool zero;
	int ret = image_extent(img, *page, &end, &zero);

	if (ret)
		return ret;
	if (end > img->npages)
		end = img->npages;
	npages = end - *page;
	if (!zero) {
		npages = npages < CHUNK ? npages : CHUNK;
		ret = image_read(img, *page, npages, c->buf);
		if (!ret)
			ret = write_data(slot, c->buf, *page, npages);
	}
	*page += npages;
	c->done += npages;
	return ret;
}

static int load_slot(struct coming *c, unsigned int i)
{
	const struct slot_arg *slot = &c->r->opts->slots.slots[i];
	struct image *img = &c->memory[i];
	uint64_t page = 0;
	/* QEMU may have written to it when it was started. */
	int ret = file_punch(slot->fd, 0, slot->size);

	if (ret)
		msg_errno(ret, "slot %s: cannot make it empty", slot->name);
	while (!ret && page < img->npages) {
		ret = interrupted ? -EINTR : load_some(c, slot, img, &page);
		progress_show(&c->progress, "%" PRIu64 " of %" PRIu64 " pages loaded",
			      c->done, c->npages);
	}
	return ret;
}

static int load_memory(struct coming *c)
{
	unsigned int i;
	int ret = 0;

	c->buf = malloc(CHUNK * DTRACK_PAGE_SIZE);
	if (!c->buf) {
		msg_errno(ENOMEM, "memory");
		return -ENOMEM;
	}
	progress_begin(&c->progress, c->r->progress);
	for (i = 0; i < c->r->opts->slots.nr && !ret; i++)
		ret = load_slot(c, i);
	progress_clear(&c->progress);
	free(c->buf);
	return ret;
}

static int let_run(struct coming *c)
{
	int ret;

	if (c->r->paused)
		return 0;
	/* From here on it uses its disks: to be killed, or interrupted, is too late. */
	ret = incoming_promise(&c->qemu);
	return ret ? ret : incoming_cont(&c->qemu);
}

static int bring(struct coming *c)
{
	struct incoming_options *opts = c->r->opts;
	int ret = open_files(c);

	if (!ret)
		ret = slot_args_make(&opts->slots);
	if (!ret)
		ret = slot_args_substitute(&opts->slots, opts->argv);
	if (ret)
		return ret;
	c->qemu = (struct incoming){
		.argv = opts->argv,
		.slots = &opts->slots,
		.timeout = opts->timeout,
	};
	ret = incoming_start(&c->qemu);
	if (!ret)
		ret = load_memory(c);
	if (!ret)
		ret = vm_state_load(&c->qemu.state, c->state, c->size, opts->timeout);
	if (!ret)
		ret = let_run(c);
	if (ret) {
		incoming_kill(&c->qemu);
		incoming_end(&c->qemu);
	}
	return ret;
}

int restore_run(struct restore *r)
{
	struct coming c = { .r = r, .state = -1 };
	int status = EXIT_RUN, ret;
	unsigned int i;

	for (i = 0; i < MAX_SLOTS; i++)
		c.memory[i].fd = -1;
	interrupt_catch();
	ret = bring(&c);
	for (i = 0; i < r->opts->slots.nr; i++)
		image_abort(&c.memory[i]);
	if (!ret) {
		msg_note(r->paused ? "the guest is here, paused" : "the guest runs here");
		vm_state_reset(c.qemu.qmp);
		incoming_leave(&c.qemu);
		incoming_end(&c.qemu);
		status = incoming_wait(&c.qemu);
	}
	if (c.state >= 0)
		close(c.state);
	return status;
}
