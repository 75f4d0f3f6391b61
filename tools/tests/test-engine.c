// SPDX-License-Identifier: GPL-2.0-only
/*
 * The copy engine, on memory that a test writes to at the worst moments.
 *
 * The fake source keeps the guarantee of a log and nothing more: a page is in it
 * from the write until it is taken.  Hooks run when the engine asks for something,
 * which is when a guest's writes would hurt.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../dirtytrack/engine.h"
#include "../dirtytrack/msg.h"
#include "../dirtytrack/pause.h"
#include "../dirtytrack/pipeline.h"
#include "../dirtytrack/source.h"
#include "../dirtytrack/target.h"
#include "../lib/dirtytrack.h"
#include "tap.h"

#define PAGE DTRACK_PAGE_SIZE
#define NPAGES 4096

static char dir[] = "/tmp/dirtytrack-engine.XXXXXX";
static char file[64], partial[64];

static struct fake {
	struct source base;
	char *memory;
	uint64_t *resident;
	uint64_t *dirty;
	bool running;
	/* Called before the operation, with the guest running or not. */
	void (*on_count)(void);
	void (*on_take)(uint64_t next);
	void (*on_peek)(uint64_t first, uint64_t npages);
	void (*on_read)(uint64_t first);
	int fail_count, fail_take, fail_peek, fail_read;
	unsigned int takes, counts, peeks, reads;
	uint64_t limits[64];
	unsigned int nr_limits;
} fake;

static struct fake_pause {
	struct pause base;
	int fail_pause, fail_resume;
	unsigned int pauses, resumes;
	void (*on_pause)(void);
} fake_pause;

/* What is called of a handover, in this order, and which of it fails. */
static struct fake_handover {
	unsigned int prepares, saves, saveds, commits;
	int fail_prepare, fail_save, fail_saved, fail_commit;
	bool saving;
	bool at_commit;		/* the target was as the memory then */
} fake_handover;

static volatile sig_atomic_t cancel;
static struct copy_move move;
static struct copy copy;

/* The guest's write. */
static void touch(uint64_t page, char c)
{
	if (!fake.running) {
		tap_fail(__FILE__, __LINE__, "a write while paused");
		return;
	}
	memset(fake.memory + page * PAGE, c, PAGE);
	dtrack_bitmap_set(fake.resident, page, 1);
	dtrack_bitmap_set(fake.dirty, page, 1);
}

static void discard(uint64_t page)
{
	memset(fake.memory + page * PAGE, 0, PAGE);
	dtrack_bitmap_clear(fake.resident, page, 1);
	dtrack_bitmap_set(fake.dirty, page, 1);
}

static int fake_count(struct source *src, uint64_t *dirty)
{
	fake.counts++;
	if (fake.on_count && fake.running)
		fake.on_count();
	*dirty = dtrack_bitmap_count(fake.dirty, 0, src->npages);
	return fake.fail_count;
}

static int fake_take(struct source *src, uint64_t *next,
		     struct dirtytrack_extent *ext, unsigned int max)
{
	unsigned int nr = 0;

	fake.takes++;
	if (fake.on_take)
		fake.on_take(*next);
	if (fake.fail_take)
		return fake.fail_take;
	/* Few at once, so that there are many places to be interrupted at. */
	if (max > 3)
		max = 3;
	while (*next < src->npages && nr < max) {
		uint64_t page = dtrack_bitmap_next(fake.dirty, src->npages,
						   *next);
		bool data;
		uint64_t end = page;

		*next = page;
		if (page == src->npages)
			break;
		data = dtrack_bitmap_test(fake.resident, page);
		while (end < src->npages &&
		       dtrack_bitmap_test(fake.dirty, end) &&
		       dtrack_bitmap_test(fake.resident, end) == data)
			end++;
		ext[nr].first = page;
		ext[nr].npages = end - page;
		ext[nr].state = data ? DIRTYTRACK_STATE_DATA :
				       DIRTYTRACK_STATE_HOLE;
		dtrack_bitmap_clear(fake.dirty, page, end - page);
		*next = end;
		nr++;
	}
	return nr;
}

static int fake_peek(struct source *src, uint64_t first, uint64_t npages,
		     uint64_t *dirty)
{
	uint64_t i;

	(void)src;
	fake.peeks++;
	if (fake.on_peek)
		fake.on_peek(first, npages);
	if (fake.fail_peek)
		return fake.fail_peek;
	for (i = 0; i < npages; i++)
		if (dtrack_bitmap_test(fake.dirty, first + i))
			*dirty |= UINT64_C(1) << i;
	return 0;
}

static int fake_read(struct source *src, uint64_t first, uint64_t npages,
		     void *buf)
{
	(void)src;
	fake.reads++;
	if (fake.on_read)
		fake.on_read(first);
	if (fake.fail_read)
		return fake.fail_read;
	memcpy(buf, fake.memory + first * PAGE, npages * PAGE);
	return 0;
}

static int fake_extent(struct source *src, uint64_t page, uint64_t *end,
		       bool *hole)
{
	*hole = !dtrack_bitmap_test(fake.resident, page);
	*end = *hole ? dtrack_bitmap_next(fake.resident, src->npages, page) :
		       dtrack_bitmap_next_clear(fake.resident, src->npages,
						page);
	return 0;
}

static int fake_limit(struct source *src, uint64_t rate)
{
	(void)src;
	if (fake.nr_limits < 64)
		fake.limits[fake.nr_limits++] = rate;
	return 0;
}

static const struct source_ops fake_ops = {
	.count = fake_count,
	.take = fake_take,
	.peek = fake_peek,
	.read = fake_read,
	.extent = fake_extent,
	.limit = fake_limit,
};

static int pause_fake(struct pause *p)
{
	(void)p;
	fake_pause.pauses++;
	/* The guest's last chance. */
	if (fake_pause.on_pause)
		fake_pause.on_pause();
	if (fake_pause.fail_pause)
		return fake_pause.fail_pause;
	fake.running = false;
	return 0;
}

static int resume_fake(struct pause *p)
{
	(void)p;
	fake_pause.resumes++;
	fake.running = true;
	return fake_pause.fail_resume;
}

static const struct pause_ops fake_pause_ops = {
	.pause = pause_fake,
	.resume = resume_fake,
};

/* A guest with data, zero pages and holes, and a copy of it about to begin. */
static bool set_up(void)
{
	/* No threads: hooks run where the engine calls them. */
	const struct pipeline_options opts = {
		.cancel = &cancel,
		.progress = copy_progress,
		.progress_arg = &copy,
	};
	char *memory = fake.memory;
	uint64_t *resident = fake.resident, *dirty = fake.dirty;
	uint64_t i;

	memset(&fake, 0, sizeof(fake));
	fake.base.ops = &fake_ops;
	fake.base.npages = NPAGES;
	fake.memory = memory;
	fake.resident = resident;
	fake.dirty = dirty;
	fake.running = true;
	memset(memory, 0, NPAGES * PAGE);
	dtrack_bitmap_clear(resident, 0, NPAGES);
	dtrack_bitmap_clear(dirty, 0, NPAGES);
	for (i = 0; i < NPAGES; i++)
		if (i / 512 % 2 == 0)
			touch(i, i % 7 ? 'a' + i % 7 : 0);
	/* An all-set log: what is resident, from the start. */

	memset(&fake_pause, 0, sizeof(fake_pause));
	fake_pause.base.ops = &fake_pause_ops;
	memset(&copy, 0, sizeof(copy));
	copy.moves = &move;
	copy.nr_moves = 1;
	copy.pause = &fake_pause.base;
	copy.downtime = 1e6;
	copy.max_rounds = 30;
	copy.verify = true;
	copy.cancel = &cancel;
	cancel = 0;
	msg_forget();
	move.src = &fake.base;
	move.pipe = NULL;
	move.dst = target_open(file, NPAGES, 1);
	return move.dst &&
	       !pipeline_open(&move.pipe, move.src, move.dst, &opts);
}

static void drop(void)
{
	pipeline_close(move.pipe);
	target_close(move.dst);
}

static int commit(void)
{
	int ret = pipeline_flush(move.pipe, false);

	return ret ? ret : move.dst->ops->commit(move.dst);
}

static void tear_down(void)
{
	drop();
	unlink(file);
}

/* Is the committed file what the memory is?  Independent of the engine's verify. */
static bool file_is_memory(void)
{
	static char got[NPAGES * PAGE];
	int fd = open(file, O_RDONLY);
	struct stat st;
	bool same;

	if (fd < 0)
		return false;
	same = !fstat(fd, &st) && st.st_size == sizeof(got) &&
	       pread(fd, got, sizeof(got), 0) == sizeof(got) &&
	       !memcmp(got, fake.memory, sizeof(got));
	close(fd);
	return same;
}

#define CHECK_RUNNING()							\
	do {								\
		CHECK(fake.running);					\
		CHECK_EQ(fake_pause.pauses > 0, fake_pause.resumes > 0);\
	} while (0)

static void idle_guest(void)
{
	struct stat st;

	CHECK(set_up());
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_FITS);
	CHECK_EQ(copy.round.round, 2);
	CHECK_EQ(copy.total_pages, NPAGES / 2);
	CHECK_EQ(copy.verified, NPAGES);
	CHECK_EQ(copy.different, 0);
	CHECK_RUNNING();
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	/* One page in seven of the resident half is zero: a hole. */
	CHECK(!stat(file, &st));
	CHECK(st.st_blocks * 512ULL <= NPAGES / 2 * PAGE * 6 / 7 + 64 * PAGE);
	tear_down();
}

static void write_behind(uint64_t first)
{
	static unsigned int n;

	/* Pages before and after the one being read, and the page itself. */
	if (!fake.running || fake.reads > 40)
		return;
	n++;
	touch((first + n * 37) % NPAGES, 'A' + n % 26);
	touch(first, 'A' + n % 25);
	discard((first + n * 61) % NPAGES);
}

static void write_at_pause(void)
{
	unsigned int i;

	for (i = 0; i < 100; i++)
		touch(i * 40, '0' + i % 10);
	for (i = 0; i < 100; i++)
		discard(i * 40 + 7);
	for (i = 0; i < 100; i++)
		touch(i * 40 + 9, 0);
}

static void busy_guest(void)
{
	CHECK(set_up());
	fake.on_read = write_behind;
	fake_pause.on_pause = write_at_pause;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.different, 0);
	CHECK_RUNNING();
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	tear_down();
}

/* Verifying is able to fail: a write that the log misses is found. */
static void unlogged_write_is_found(void)
{
	CHECK(set_up());
	touch(1000, 'q');
	touch(3000, 'q');
	dtrack_bitmap_clear(fake.dirty, 1000, 1);
	dtrack_bitmap_clear(fake.dirty, 3000, 1);
	CHECK_EQ(copy_run(&copy), -EBADMSG);
	CHECK_EQ(copy.different, 2);
	CHECK(strstr(msg_last(), "2 of 4096 pages differ, the first is page 1000"));
	CHECK_RUNNING();
	tear_down();
}

static void write_junk(void)
{
	char junk[PAGE];
	int fd = open(partial, O_WRONLY);

	memset(junk, 'j', sizeof(junk));
	if (pwrite(fd, junk, PAGE, 600 * PAGE) != PAGE)
		tap_fail(__FILE__, __LINE__, "cannot write to the image");
	close(fd);
}

/* The image claims a page that memory has not: the other direction. */
static void extra_data_is_found(void)
{
	CHECK(set_up());
	fake_pause.on_pause = write_junk;
	CHECK_EQ(copy_run(&copy), -EBADMSG);
	CHECK_EQ(copy.different, 1);
	tear_down();
}

static void write_many(void)
{
	unsigned int i;

	for (i = 0; i < 1000; i++)
		touch(i, 'w');
}

static void no_progress(void)
{
	CHECK(set_up());
	copy.downtime = 0;
	fake.on_count = write_many;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_NO_PROGRESS);
	/* The first, the one that set the mark, three idle ones, the last. */
	CHECK_EQ(copy.round.round, 5);
	CHECK_RUNNING();
	tear_down();
}

static unsigned int shrinking;

static void write_fewer(void)
{
	unsigned int i;

	shrinking = shrinking * 3 / 4;
	for (i = 0; i < shrinking; i++)
		touch(i, 'w');
}

static void progress_goes_on(void)
{
	CHECK(set_up());
	copy.downtime = 0;
	shrinking = 4000;
	fake.on_count = write_fewer;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_FITS);
	CHECK(copy.round.round > 15);
	tear_down();
}

static const unsigned int *to_write;

static void write_as_told(void)
{
	unsigned int i;

	for (i = 0; i < *to_write; i++)
		touch(i, 'w');
	if (to_write[1])
		to_write++;
}

/* So that the time that a round takes is that of its pages. */
static void read_slowly(uint64_t first)
{
	(void)first;
	usleep(4000);
}

/* The pause is allowed to take any time, and is made short where that costs little. */
static void a_round_more_if_it_halves_the_pause(void)
{
	/* At the beginning, and after each round, of which the first has 32 chunks. */
	static const unsigned int less[] = { 0, 600, 120, 8, 0 };
	static const unsigned int same[] = { 0, 600, 590, 0 };

	CHECK(set_up());
	fake.on_count = write_as_told;
	fake.on_read = read_slowly;
	copy.verify = false;
	to_write = less;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_FITS);
	CHECK_EQ(copy.round.round, 4);
	drop();

	CHECK(set_up());
	fake.on_count = write_as_told;
	fake.on_read = read_slowly;
	copy.verify = false;
	to_write = same;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_FITS);
	CHECK_EQ(copy.round.round, 3);
	drop();

	CHECK(set_up());
	fake.on_count = write_as_told;
	fake.on_read = read_slowly;
	copy.verify = false;
	copy.max_rounds = 1;
	to_write = less;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_FITS);
	CHECK_EQ(copy.round.round, 2);
	drop();
}

#define HOT 700

/* All the time, and also between harvest and copying. */
static void write_hot(void)
{
	touch(HOT, 'h');
	touch(HOT + 1, 'h');
}

static void write_hot_at_peek(uint64_t first, uint64_t npages)
{
	if (!fake.running)
		tap_fail(__FILE__, __LINE__, "the last round skips pages");
	else if (first <= HOT && HOT < first + npages)
		write_hot();
}

static void forbid_hot(uint64_t first)
{
	if (fake.running && first == HOT)
		tap_fail(__FILE__, __LINE__, "a page is read that is in the log again");
}

static uint64_t skipped, skipped_paused;

static void note_skipped(struct copy *c, enum copy_event event)
{
	if (event != COPY_ROUND_END)
		return;
	if (c->round.paused)
		skipped_paused = c->round.skipped;
	else
		skipped += c->round.skipped;
}

/* Two pages are hot: they are skipped in each round, and there in the end. */
static void pages_written_again_are_skipped(void)
{
	CHECK(set_up());
	copy.downtime = 0;
	copy.event = note_skipped;
	skipped = 0;
	skipped_paused = 1;
	touch(HOT, 'c');
	fake.on_count = write_hot;
	fake.on_peek = write_hot_at_peek;
	fake.on_read = forbid_hot;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_NO_PROGRESS);
	CHECK_EQ(skipped, 2 * (copy.round.round - 1));
	CHECK_EQ(skipped_paused, 0);
	CHECK_EQ(copy.total_pages, NPAGES / 2 + 2);
	CHECK_EQ(copy.different, 0);
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	tear_down();
}

static void max_rounds(void)
{
	CHECK(set_up());
	copy.downtime = 0;
	copy.max_rounds = 2;
	fake.on_count = write_many;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_MAX_ROUNDS);
	CHECK_EQ(copy.round.round, 3);
	CHECK_EQ(fake_pause.pauses, 1);
	tear_down();
}

static void strict(void)
{
	CHECK(set_up());
	copy.downtime = 0;
	copy.strict = true;
	fake.on_count = write_many;
	CHECK_EQ(copy_run(&copy), -ETIME);
	CHECK_EQ(fake_pause.pauses, 0);
	CHECK(strstr(msg_last(), "0 are allowed"));
	tear_down();
}

/* Each step takes half, down to the least, and the pause has none. */
static void throttle_auto(void)
{
	unsigned int i;

	CHECK(set_up());
	copy.downtime = 0;
	copy.max_rounds = 100;
	copy.throttle = THROTTLE_AUTO;
	fake.on_count = write_many;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_NO_PROGRESS);
	CHECK(fake.nr_limits >= 3);
	for (i = 1; i + 1 < fake.nr_limits; i++)
		CHECK(fake.limits[i] <= fake.limits[i - 1] / 2 ||
		      fake.limits[i] == 256);
	CHECK_EQ(fake.limits[fake.nr_limits - 2], 256);
	CHECK_EQ(fake.limits[fake.nr_limits - 1], 0);
	tear_down();

	/* Not while rounds shrink. */
	CHECK(set_up());
	copy.downtime = 0;
	copy.throttle = THROTTLE_AUTO;
	shrinking = 4000;
	fake.on_count = write_fewer;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(fake.nr_limits, 0);
	tear_down();
}

static void throttle_fixed(void)
{
	CHECK(set_up());
	copy.throttle = THROTTLE_FIXED;
	copy.throttle_rate = 1234;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(fake.nr_limits, 2);
	CHECK_EQ(fake.limits[0], 1234);
	CHECK_EQ(fake.limits[1], 0);
	tear_down();
}

static unsigned int takes_left;

static void fail_later(uint64_t next)
{
	(void)next;
	if (takes_left && !--takes_left)
		fake.fail_take = -EIO;
}

/* However it ends, the guest does as it likes when the caller has it back. */
static void throttle_ends(void)
{
	/* In the rounds, before the pause, in the pause, and without one. */
	int how;

	for (how = 0; how < 4; how++) {
		CHECK(set_up());
		copy.throttle = THROTTLE_FIXED;
		copy.throttle_rate = 1234;
		copy.dry_run = how == 3;
		if (how == 0) {
			takes_left = 2;
			fake.on_take = fail_later;
		} else if (how == 1) {
			copy.downtime = 0;
			copy.strict = true;
			fake.on_count = write_many;
		} else if (how == 2) {
			fake_pause.fail_pause = -EIO;
		}
		CHECK_EQ(copy_run(&copy), how == 1 ? -ETIME : how == 3 ? 0 : -EIO);
		CHECK_EQ(fake.nr_limits, 2);
		CHECK_EQ(fake.limits[0], 1234);
		CHECK_EQ(fake.limits[1], 0);
		fake.fail_take = 0;
		drop();
	}
}

static void timeout(void)
{
	CHECK(set_up());
	copy.downtime = 0;
	copy.timeout = 1e-6;
	fake.on_count = write_many;
	CHECK_EQ(copy_run(&copy), -ETIME);
	CHECK_EQ(copy.end, COPY_TIMEOUT);
	CHECK_EQ(fake_pause.pauses, 0);
	tear_down();

	/* What was not taken in time is copied in the pause. */
	CHECK(set_up());
	copy.downtime = 0;
	copy.timeout = 1e-6;
	copy.pause_on_timeout = true;
	fake.on_count = write_many;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_TIMEOUT);
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	tear_down();
}

static void dry_run(void)
{
	CHECK(set_up());
	copy.dry_run = true;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(copy.end, COPY_FITS);
	CHECK_EQ(fake_pause.pauses, 0);
	CHECK_EQ(copy.round.round, 1);
	tear_down();
}

static void without_pause(void)
{
	CHECK(set_up());
	copy.pause = NULL;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK(!copy.was_paused);
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	tear_down();
}

static void failing_source(void)
{
	CHECK(set_up());
	fake.fail_read = -EIO;
	CHECK_EQ(copy_run(&copy), -EIO);
	CHECK_EQ(fake_pause.pauses, 0);
	drop();

	CHECK(set_up());
	fake.fail_peek = -ENOMEM;
	CHECK_EQ(copy_run(&copy), -ENOMEM);
	drop();

	CHECK(set_up());
	fake.fail_take = -ENOMEM;
	CHECK_EQ(copy_run(&copy), -ENOMEM);
	drop();

	CHECK(set_up());
	fake.fail_count = -ENOMEM;
	CHECK_EQ(copy_run(&copy), -ENOMEM);
	tear_down();
}

static void fail_reads(void)
{
	touch(5, 'p');
	fake.fail_read = -EIO;
}

static void failure_while_paused_resumes(void)
{
	CHECK(set_up());
	fake_pause.on_pause = fail_reads;
	CHECK_EQ(copy_run(&copy), -EIO);
	CHECK_EQ(fake_pause.pauses, 1);
	CHECK_RUNNING();
	tear_down();
}

static void failing_pause_resumes(void)
{
	CHECK(set_up());
	fake_pause.fail_pause = -ECONNRESET;
	CHECK_EQ(copy_run(&copy), -ECONNRESET);
	CHECK_EQ(fake_pause.resumes, 1);
	drop();

	/* Nobody there to be resumed: the image is whole, and that is said. */
	CHECK(set_up());
	fake_pause.fail_resume = -ECONNRESET;
	CHECK_EQ(copy_run(&copy), -EHOSTDOWN);
	CHECK_EQ(fake_pause.resumes, 1);
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	tear_down();
}

static unsigned int countdown;

static void tick(void)
{
	if (countdown && !--countdown)
		cancel = SIGINT;
}

static void tick_take(uint64_t next)
{
	(void)next;
	tick();
}

static void tick_read(uint64_t first)
{
	if (fake.running && fake.reads < 30)
		touch(first, 'i');
	tick();
}

/* Interrupted at every place where the engine asks for something. */
static void interrupted_anywhere(void)
{
	unsigned int at;
	int ret;

	for (at = 1;; at++) {
		CHECK(set_up());
		fake.on_count = tick;
		fake.on_take = tick_take;
		fake.on_read = tick_read;
		fake_pause.on_pause = tick;
		countdown = at;
		ret = copy_run(&copy);
		CHECK(fake.running);
		CHECK_EQ(fake_pause.pauses, fake_pause.resumes);
		if (countdown)
			break;
		/*
		 * At the last read there is nothing left to be interrupted: whole
		 * is whole.
		 */
		CHECK(ret == -EINTR || (!ret && copy.verified == NPAGES));
		tear_down();
		CHECK(access(partial, F_OK) < 0);
		CHECK(access(file, F_OK) < 0);
	}
	CHECK_EQ(ret, 0);
	CHECK(at > 30);
	tear_down();
}

static void stray_eintr(uint64_t first)
{
	static unsigned int n;

	(void)first;
	fake.fail_read = n++ % 2 ? 0 : -EINTR;
	fake.fail_take = fake.fail_read;
	fake.fail_peek = fake.fail_read;
}

/* EINTR from a signal that asks for nothing. */
static void eintr_without_request(void)
{
	CHECK(set_up());
	fake.on_read = stray_eintr;
	fake.on_take = stray_eintr;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(commit(), 0);
	CHECK(file_is_memory());
	tear_down();
}

/* The last of these. */
static enum copy_event pause_end_event;

static void resume_counts(struct copy *c, enum copy_event event)
{
	/* In the order that a report relies on. */
	if (event == COPY_PAUSED && fake.running)
		tap_fail(__FILE__, __LINE__, "PAUSED while running");
	if (event == COPY_RESUMED && (!fake.running || c->seconds_paused <= 0))
		tap_fail(__FILE__, __LINE__, "RESUMED too early");
	if (event == COPY_RESUMED || event == COPY_HANDED_OVER || event == COPY_LEFT_PAUSED)
		pause_end_event = event;
}

static void events_tell_the_truth(void)
{
	CHECK(set_up());
	copy.event = resume_counts;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(pause_end_event, COPY_RESUMED);
	tear_down();
	/* It could not be resumed. */
	CHECK(set_up());
	copy.event = resume_counts;
	fake_pause.fail_resume = -EIO;
	CHECK_EQ(copy_run(&copy), -EHOSTDOWN);
	CHECK_EQ(pause_end_event, COPY_LEFT_PAUSED);
	tear_down();
}

/* A device's write: the guest stands still, and its state is being saved. */
static void device_write(uint64_t page, char c)
{
	if (!fake_handover.saving) {
		tap_fail(__FILE__, __LINE__, "a device writes, and is not saved");
		return;
	}
	memset(fake.memory + page * PAGE, c, PAGE);
	dtrack_bitmap_set(fake.resident, page, 1);
	dtrack_bitmap_set(fake.dirty, page, 1);
}

static int prepare_fake(struct copy *c)
{
	(void)c;
	if (!fake.running)
		tap_fail(__FILE__, __LINE__, "prepared in the pause");
	fake_handover.prepares++;
	return fake_handover.fail_prepare;
}

static int save_fake(struct copy *c)
{
	(void)c;
	if (fake.running)
		tap_fail(__FILE__, __LINE__, "saved while running");
	fake_handover.saves++;
	fake_handover.saving = !fake_handover.fail_save;
	return fake_handover.fail_save;
}

static int saved_fake(struct copy *c)
{
	(void)c;
	fake_handover.saveds++;
	device_write(1, 'd');
	device_write(777, 'd');
	fake_handover.saving = false;
	return fake_handover.fail_saved;
}

static bool target_is_memory(void)
{
	static char got[PAGE];
	uint64_t page;

	for (page = 0; page < NPAGES; page++)
		if (move.dst->ops->read(move.dst, page, 1, got) ||
		    memcmp(got, fake.memory + page * PAGE, PAGE))
			return false;
	return true;
}

static int commit_fake(struct copy *c)
{
	(void)c;
	fake_handover.commits++;
	fake_handover.at_commit = target_is_memory();
	return fake_handover.fail_commit;
}

static const struct copy_handover fake_handover_ops = {
	.prepare = prepare_fake,
	.save = save_fake,
	.saved = saved_fake,
	.commit = commit_fake,
};

static bool set_up_handover(void)
{
	memset(&fake_handover, 0, sizeof(fake_handover));
	if (!set_up())
		return false;
	copy.handover = &fake_handover_ops;
	copy.event = resume_counts;
	copy.verify = false;
	return true;
}

/* Right before a page is read that was dirty at the pause. */
static void write_while_saved(uint64_t first)
{
	static unsigned int n;

	if (!fake_handover.saving || n++ % 3)
		return;
	device_write(first, 'x');
	device_write((first + 500) % NPAGES, 'y');
}

static void write_after_it_was_read(uint64_t next)
{
	if (fake_handover.saving && next)
		device_write(next - 1, 'z');
}

static void handover_takes_what_saving_writes(void)
{
	double sum = 0;
	unsigned int i;

	CHECK(set_up_handover());
	fake_pause.on_pause = write_at_pause;
	fake.on_read = write_while_saved;
	fake.on_take = write_after_it_was_read;
	CHECK_EQ(copy_run(&copy), 0);
	CHECK_EQ(fake_handover.prepares, 1);
	CHECK_EQ(fake_handover.saves, 1);
	CHECK_EQ(fake_handover.saveds, 1);
	CHECK_EQ(fake_handover.commits, 1);
	CHECK(fake_handover.at_commit);
	/* It runs elsewhere. */
	CHECK_EQ(fake_pause.resumes, 0);
	CHECK_EQ(pause_end_event, COPY_HANDED_OVER);
	for (i = 0; i < NR_COPY_PHASES; i++)
		sum += copy.phases[i];
	CHECK(copy.phases[PHASE_MEMORY] > 0 && copy.phases[PHASE_REST] > 0);
	CHECK(sum > copy.seconds_paused - 1e-6 &&
	      sum < copy.seconds_paused + 1e-6);
	drop();
}

static void failing_handover_resumes(void)
{
	int *const fails[] = {
		&fake_handover.fail_save, &fake_handover.fail_saved,
		&fake_handover.fail_commit,
	};
	unsigned int i;

	for (i = 0; i < sizeof(fails) / sizeof(*fails); i++) {
		CHECK(set_up_handover());
		*fails[i] = -EIO;
		CHECK_EQ(copy_run(&copy), -EIO);
		CHECK_EQ(fake_handover.saveds, i > 0);
		CHECK_EQ(fake_handover.commits, i > 1);
		CHECK_RUNNING();
		drop();
	}
	/* Not even paused. */
	CHECK(set_up_handover());
	fake_handover.fail_prepare = -EIO;
	CHECK_EQ(copy_run(&copy), -EIO);
	CHECK_EQ(fake_pause.pauses, 0);
	CHECK(!copy.was_paused);
	drop();
	/* It may run there. */
	CHECK(set_up_handover());
	fake_handover.fail_commit = -EHOSTUNREACH;
	CHECK_EQ(copy_run(&copy), -EHOSTUNREACH);
	CHECK_EQ(pause_end_event, COPY_LEFT_PAUSED);
	CHECK_EQ(fake_pause.resumes, 0);
	CHECK(!fake.running);
	drop();
}

static void write_new(void)
{
	unsigned int i;

	for (i = 512; i < 1024; i++)
		touch(i, 'n');
}

/* In a child: a filesystem that gets full in the rounds, or in the pause. */
static int run_full(bool in_pause)
{
	int ret;

	if (unshare(CLONE_NEWNS) < 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0,
		  in_pause ? "size=8m" : "size=1m") < 0)
		return 2;
	if (!set_up())
		return 3;
	if (in_pause)
		fake_pause.on_pause = write_new;
	ret = copy_run(&copy);
	if (ret != -ENOSPC)
		return 4;
	if (!fake.running || fake_pause.pauses != in_pause)
		return 5;
	tear_down();
	return access(partial, F_OK) && access(file, F_OK) ? 0 : 6;
}

static void full_disk(void)
{
	int in_pause, status;
	pid_t pid;

	for (in_pause = 0; in_pause < 2; in_pause++) {
		pid = fork();
		CHECK(pid >= 0);
		if (!pid)
			_exit(run_full(in_pause));
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFEXITED(status));
		CHECK_EQ(WEXITSTATUS(status), 0);
	}
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(idle_guest),
		TAP_TEST(busy_guest),
		TAP_TEST(unlogged_write_is_found),
		TAP_TEST(extra_data_is_found),
		TAP_TEST(no_progress),
		TAP_TEST(progress_goes_on),
		TAP_TEST(a_round_more_if_it_halves_the_pause),
		TAP_TEST(pages_written_again_are_skipped),
		TAP_TEST(max_rounds),
		TAP_TEST(strict),
		TAP_TEST(throttle_auto),
		TAP_TEST(throttle_fixed),
		TAP_TEST(throttle_ends),
		TAP_TEST(timeout),
		TAP_TEST(dry_run),
		TAP_TEST(without_pause),
		TAP_TEST(failing_source),
		TAP_TEST(failure_while_paused_resumes),
		TAP_TEST(failing_pause_resumes),
		TAP_TEST(interrupted_anywhere),
		TAP_TEST(eintr_without_request),
		TAP_TEST(events_tell_the_truth),
		TAP_TEST(handover_takes_what_saving_writes),
		TAP_TEST(failing_handover_resumes),
		TAP_TEST(full_disk),
	};
	int ret;

	fake.memory = malloc(NPAGES * PAGE);
	fake.resident = dtrack_bitmap_alloc(NPAGES);
	fake.dirty = dtrack_bitmap_alloc(NPAGES);
	if (!fake.memory || !fake.resident || !fake.dirty || !mkdtemp(dir)) {
		perror("set-up");
		return 1;
	}
	snprintf(file, sizeof(file), "%s/image", dir);
	snprintf(partial, sizeof(partial), "%s/image.partial", dir);
	msg_silence();
	ret = tap_run(tests, sizeof(tests) / sizeof(*tests));
	rmdir(dir);
	free(fake.memory);
	free(fake.resident);
	free(fake.dirty);
	return ret;
}
