// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checkpoint store: that its slots are always some epoch, all of it, also when who
 * wrote to it was killed; and with caches, also when others write to the slots.
 *
 * What an epoch writes follows from its number, so that what the slots have to be can be
 * computed for any of them.  The slots, and the logs that have what others write, are those
 * of standin.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../nbdkit/store.h"
#include "tap.h"

#define PAGE DTRACK_PAGE_SIZE
#define NR_SLOTS 2
/* Neither a whole number of words. */
static const uint64_t npages[NR_SLOTS] = { 1500, 65 };
#define MOST_PAGES 1500
#define LONG_ENOUGH 10

static struct store_files files;
static struct store *store;
static uint64_t generation;
static char dir[] = "/dev/shm/test-store.XXXXXX";
static bool caches;		/* of the test that is run */
static _Atomic uint64_t *declared[NR_SLOTS];

/* What the slots have to be: a stamp for each page, 0 being zeros. */
static uint64_t model[NR_SLOTS][MOST_PAGES];
static uint64_t modelled;	/* the epoch */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x7fb5d329728ea185;
	x ^= x >> 27;
	x *= 0x81dadef4bc2dd44d;
	return x ^ x >> 33;
}

static void fill(uint64_t *page, uint64_t stamp)
{
	size_t i;

	for (i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = stamp ? stamp + i : 0;
}

/* The @nth thing that epoch @epoch does: which pages of which slot it makes what. */
struct change {
	unsigned int slot;
	uint64_t first;
	uint64_t count;
	uint64_t stamp;
};

#define CHANGES 60
/* Of every epoch of a test. */
static unsigned int changes = CHANGES;

static struct change change_of(uint64_t epoch, unsigned int nth)
{
	uint64_t x = mix(epoch * 1000 + nth);
	struct change c = { .slot = nth % 7 == 0 };

	c.first = x % npages[c.slot];
	c.count = 1 + (x >> 20) % 40;
	if (c.count > npages[c.slot] - c.first)
		c.count = npages[c.slot] - c.first;
	c.stamp = (x >> 30) % 4 ? x | 1 : 0;
	return c;
}

static void model_to(uint64_t epoch)
{
	uint64_t page;
	unsigned int i;

	if (epoch < modelled) {
		memset(model, 0, sizeof(model));
		modelled = 0;
	}
	while (modelled < epoch) {
		modelled++;
		for (i = 0; i < changes; i++) {
			struct change c = change_of(modelled, i);

			for (page = c.first; page < c.first + c.count; page++)
				model[c.slot][page] = c.stamp;
		}
	}
}

/* Send the first @nr changes of an epoch. */
static int send_changes(uint64_t epoch, unsigned int nr)
{
	static uint64_t buf[40 * PAGE / 8];
	unsigned int i;
	uint64_t n;
	int ret = 0;

	for (i = 0; i < nr && !ret; i++) {
		struct change c = change_of(epoch, i);

		for (n = 0; n < c.count; n++)
			fill(buf + n * PAGE / 8, c.stamp);
		if (c.stamp)
			ret = store_write(store, generation, c.slot, buf,
					  c.count * PAGE, c.first * PAGE);
		else
			ret = store_zero(store, generation, c.slot,
					 c.count * PAGE, c.first * PAGE);
	}
	return ret;
}

static int send_epoch(uint64_t epoch)
{
	struct store_epoch e = { .state_size = 8 + epoch % 100 };
	int ret = send_changes(epoch, changes);

	if (!ret)
		ret = store_write_state(store, generation, &epoch, sizeof(epoch), 0);
	return ret ? ret : store_commit(store, generation, epoch, &e);
}

/* Are the slots, as files, epoch @epoch? */
static bool is_epoch(uint64_t epoch)
{
	uint64_t want[PAGE / 8], got[PAGE / 8], page, state;
	unsigned int i;

	model_to(epoch);
	for (i = 0; i < NR_SLOTS; i++)
		for (page = 0; page < npages[i]; page++) {
			fill(want, model[i][page]);
			if (pread(files.slots[i].slot, got, PAGE, page * PAGE) !=
			    (ssize_t)PAGE || memcmp(want, got, PAGE))
				return false;
		}
	return !epoch ||
	       (pread(files.state[epoch % 2], &state, sizeof(state), 0) ==
		sizeof(state) && state == epoch);
}

/* A slot, and where writers declare what they wrote to it. */
static int make_slot(int device, unsigned int nr)
{
	struct store_slot *slot = &files.slots[nr];
	char path[64];
	void *addr;
	int fd;

	snprintf(slot->name, sizeof(slot->name), "slot%u", nr);
	slot->log = -1;
	slot->slot = dtrack_slot_create(device, npages[nr] * PAGE, slot->name, NULL);
	if (slot->slot < 0)
		return slot->slot;
	if (caches)
		slot->log = dtrack_log_create(slot->slot, 0);
	snprintf(path, sizeof(path), "%s/slot%u.dirty", dir, nr);
	fd = open(path, O_RDWR | O_CLOEXEC);
	addr = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED)
		return -errno;
	declared[nr] = addr;
	close(fd);
	return caches && slot->log < 0 ? slot->log : 0;
}

static int remove_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	return ftw->level ? remove(path) : 0;
}

static int make(void)
{
	int device = open(DIRTYTRACK_DEVICE, O_RDWR | O_CLOEXEC), ret = 0;
	unsigned int i;

	/* Of a test that failed. */
	nftw(dir, remove_file, 8, FTW_DEPTH | FTW_PHYS);
	memset(&files, 0, sizeof(files));
	files.nr = NR_SLOTS;
	for (i = 0; i < NR_SLOTS && !ret; i++)
		ret = make_slot(device, i);
	close(device);
	modelled = 0;
	memset(model, 0, sizeof(model));
	return ret ? ret : store_create(&files);
}

static void unmake(void)
{
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++) {
		close(files.slots[i].slot);
		close(files.slots[i].staged);
		if (caches) {
			close(files.slots[i].log);
			close(files.slots[i].cache);
		}
		munmap((void *)declared[i], PAGE);
	}
	close(files.journal);
	close(files.state[0]);
	close(files.state[1]);
	nftw(dir, remove_file, 8, FTW_DEPTH | FTW_PHYS);
}

static int begin(void)
{
	int ret = store_open(&store, &files, LONG_ENOUGH);

	if (ret)
		return ret;
	generation = store_attach(store);
	return generation ? 0 : -EIO;
}

static uint64_t memory_of(int fd)
{
	off_t pos = lseek(fd, 0, SEEK_DATA);

	return pos < 0 ? 0 : 1;
}

static void epochs_are_committed(void)
{
	uint64_t e;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	for (e = 1; e <= 20; e++) {
		CHECK_EQ(send_epoch(e), 0);
		CHECK_EQ(store_head(store)->committed, e);
		CHECK(is_epoch(e));
		/* What was staged has given its memory back. */
		CHECK_EQ(memory_of(files.slots[0].staged), 0);
	}
	store_close(store);
	unmake();
}

/* The slots do not change before the commit, and a part of an epoch is forgotten. */
static void a_part_is_forgotten(void)
{
	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(send_epoch(1), 0);
	CHECK_EQ(send_changes(2, CHANGES), 0);
	CHECK(is_epoch(1));
	/* Another one comes: changes of epoch 3 that he did not send are not in it. */
	generation = store_attach(store);
	CHECK(generation);
	CHECK_EQ(memory_of(files.slots[0].staged), 0);
	CHECK(is_epoch(1));
	CHECK_EQ(send_epoch(2), 0);
	CHECK(is_epoch(2));
	CHECK_EQ(send_changes(3, CHANGES / 2), 0);
	store_close(store);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(store_head(store)->committed, 2);
	CHECK(is_epoch(2));
	CHECK_EQ(send_epoch(3), 0);
	CHECK(is_epoch(3));
	store_close(store);
	unmake();
}

/* Who was replaced cannot add to what others send, nor commit it. */
static void an_old_generation_is_refused(void)
{
	const struct store_epoch e = { 0 };
	static const char page[PAGE] = "old";
	uint64_t old;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(store_write(store, 0, 0, page, PAGE, 0), -ESTALE);
	CHECK_EQ(send_epoch(1), 0);
	old = generation;
	generation = store_attach(store);
	CHECK(generation != old);
	CHECK_EQ(store_write(store, old, 0, page, PAGE, 0), -ESTALE);
	CHECK_EQ(store_zero(store, old, 0, PAGE, 0), -ESTALE);
	CHECK_EQ(store_write_state(store, old, page, 8, 0), -ESTALE);
	CHECK_EQ(store_commit(store, old, 2, &e), -ESTALE);
	CHECK_EQ(send_epoch(2), 0);
	CHECK(is_epoch(2));
	store_close(store);
	unmake();
}

static void bad_arguments(void)
{
	const struct store_epoch e = { .state_size = STORE_MAX_STATE + 1 };
	static const char page[2 * PAGE];

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(store_write(store, generation, 0, page, 512, 0), -EINVAL);
	CHECK_EQ(store_write(store, generation, 0, page, PAGE, 512), -EINVAL);
	CHECK_EQ(store_write(store, generation, 1, page, 2 * PAGE, 64 * PAGE), -EINVAL);
	CHECK_EQ(store_zero(store, generation, 1, PAGE, 65 * PAGE), -EINVAL);
	CHECK_EQ(store_zero(store, generation, 1, PAGE, -PAGE), -EINVAL);
	CHECK_EQ(store_write_state(store, generation, page, 2, STORE_MAX_STATE - 1),
		 -EINVAL);
	CHECK_EQ(store_commit(store, generation, 2, &e), -EILSEQ);
	CHECK_EQ(store_commit(store, generation, 0, &e), -EILSEQ);
	CHECK_EQ(store_commit(store, generation, 1, &e), -EINVAL);
	CHECK_EQ(store_head(store)->committing, 0);
	CHECK_EQ(send_epoch(1), 0);
	CHECK(is_epoch(1));
	store_close(store);
	unmake();
}

/* What was staged is read, and what was not is read from the slot. */
static void reads_what_was_written(void)
{
	static char a[3 * PAGE], b[3 * PAGE], got[3 * PAGE];

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(store_write(store, generation, 0, a, 3 * PAGE, 62 * PAGE), 0);
	CHECK_EQ(store_commit(store, generation, 1, &(struct store_epoch){ 0 }), 0);
	CHECK_EQ(store_write(store, generation, 0, b, PAGE, 63 * PAGE), 0);
	CHECK_EQ(store_zero(store, generation, 0, PAGE, 64 * PAGE), 0);
	memcpy(a + PAGE, b, PAGE);
	memset(a + 2 * PAGE, 0, PAGE);
	CHECK_EQ(store_read(store, 0, got, 3 * PAGE, 62 * PAGE), 0);
	CHECK(!memcmp(a, got, sizeof(a)));
	/* Not a whole number of pages. */
	CHECK_EQ(store_read(store, 0, got, PAGE, 62 * PAGE + 100), 0);
	CHECK(!memcmp(a + 100, got, PAGE));
	store_close(store);
	unmake();
}

/* Two must not have it; a second one waits for the end of the first. */
static void one_at_a_time(void)
{
	struct store *other;
	int status;
	pid_t pid;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(store_open(&other, &files, 0.05), -EBUSY);
	store_close(store);
	pid = fork();
	if (!pid) {
		if (begin())
			_exit(1);
		usleep(300000);
		_exit(0);
	}
	usleep(100000);
	CHECK_EQ(store_open(&other, &files, LONG_ENOUGH), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	store_close(other);
	unmake();
}

static void checksum_is_that_of_the_slots(void)
{
	static uint64_t page[PAGE / 8];
	uint64_t sum = 0, got, i;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(send_epoch(1), 0);
	model_to(1);
	for (i = 0; i < npages[0]; i++) {
		fill(page, model[0][i]);
		sum += dtrack_checksum(page, i, 1);
	}
	for (i = 0; i < npages[1]; i++) {
		fill(page, model[1][i]);
		sum += dtrack_checksum(page, i, 1);
	}
	CHECK_EQ(store_checksum(&files, &got), 0);
	CHECK_EQ(sum, got);
	store_close(store);
	unmake();
}

/* Epochs one after the other, with parts of some thrown away, until it is killed. */
static void replicate(void)
{
	uint64_t e;

	if (begin())
		_exit(1);
	for (e = store_head(store)->committed + 1;; e++) {
		if (mix(e) % 5 == 0) {
			if (send_changes(e, mix(e) % CHANGES))
				_exit(1);
			generation = store_attach(store);
		}
		if (send_epoch(e))
			_exit(1);
	}
}

/*
 * Killed at any moment: whoever comes next finds an epoch, and no older one than the last
 * that was acknowledged.
 */
static void killed_at_any_moment(void)
{
	unsigned int i, in_commit = 0, in_epoch = 0;
	struct store_head *head;
	uint64_t last = 0;
	pid_t pid;

	CHECK_EQ(make(), 0);
	CHECK_EQ(store_map_head(files.journal, &head), 0);
	for (i = 0; i < 150; i++) {
		int status;

		pid = fork();
		if (!pid)
			replicate();
		/* Until it has it, and then some. */
		while (head->committed == last)
			usleep(100);
		usleep(mix(i) % 3000);
		kill(pid, SIGKILL);
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status));
		in_commit += head->committing != head->committed;
		in_epoch += head->committing == head->committed;
		CHECK(head->committed > last);
		CHECK_EQ(store_open(&store, &files, LONG_ENOUGH), 0);
		last = head->committed;
		CHECK_EQ(head->committing, last);
		CHECK(is_epoch(last));
		store_close(store);
	}
	/* Or it has not tested what it is to test. */
	CHECK(in_commit);
	CHECK(in_epoch);
	munmap(head, sizeof(*head));
	unmake();
}

/* ---- others write to the slots ---- */

/* Rubbish in some pages, and holes where others were. */
static void stray(uint64_t *random, unsigned int nr)
{
	while (nr--) {
		unsigned int slot = (*random = mix(*random + 1)) % 8 == 0;
		uint64_t page = (*random >> 8) % npages[slot];

		if (*random >> 60)
			pwrite(files.slots[slot].slot, random, sizeof(*random),
			       page * PAGE + (*random >> 40) % 511 * 8);
		else
			fallocate(files.slots[slot].slot,
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  page * PAGE, PAGE);
		atomic_fetch_or(&declared[slot][page / 64], UINT64_C(1) << page % 64);
	}
}

/* What is zero in the epoch takes no memory, as if nobody had written to it. */
static bool has_right_holes(void)
{
	unsigned int i;
	uint64_t page;

	for (i = 0; i < NR_SLOTS; i++)
		for (page = 0; page < npages[i]; page++)
			if ((lseek(files.slots[i].slot, page * PAGE, SEEK_DATA) ==
			     (off_t)(page * PAGE)) != (model[i][page] != 0))
				return false;
	return true;
}

static void a_commit_undoes_what_others_wrote(void)
{
	uint64_t e, random = 1, undone = 0;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	for (e = 1; e <= 20; e++) {
		stray(&random, 50);
		CHECK_EQ(send_changes(e, CHANGES), 0);
		stray(&random, 50);
		CHECK(!is_epoch(e - 1));
		CHECK_EQ(send_epoch(e), 0);
		CHECK(is_epoch(e));
		CHECK(has_right_holes());
		CHECK(store_head(store)->undone > undone);
		undone = store_head(store)->undone;
		/* Twice the same: what was restored is not taken for what others wrote. */
		CHECK_EQ(store_undo(store), 0);
		CHECK_EQ(store_head(store)->undone, undone);
	}
	CHECK_EQ(store_head(store)->late, 0);
	store_close(store);
	unmake();
}

/* Also without a commit, which leaves alone what was sent of the next epoch. */
static void undo_is_of_others_only(void)
{
	uint64_t random = 2;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(store_undo(store), 0);
	CHECK_EQ(send_epoch(1), 0);
	CHECK_EQ(send_changes(2, CHANGES), 0);
	stray(&random, 200);
	CHECK(!is_epoch(1));
	CHECK_EQ(store_undo(store), 0);
	CHECK(is_epoch(1));
	CHECK(has_right_holes());
	CHECK_EQ(store_write_state(store, generation, &(uint64_t){ 2 }, 8, 0), 0);
	CHECK_EQ(store_commit(store, generation, 2, &(struct store_epoch){ .state_size = 8 }), 0);
	CHECK(is_epoch(2));
	store_close(store);
	unmake();
}

/* Who comes back before there was an epoch does not send again what arrived. */
static void the_first_epoch_is_all_that_was_sent(void)
{
	uint64_t random = 3;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	CHECK_EQ(send_changes(1, CHANGES), 0);
	stray(&random, 100);
	store_close(store);
	CHECK_EQ(begin(), 0);
	stray(&random, 100);
	CHECK_EQ(store_write_state(store, generation, &(uint64_t){ 1 }, 8, 0), 0);
	CHECK_EQ(store_commit(store, generation, 1, &(struct store_epoch){ .state_size = 8 }), 0);
	CHECK(is_epoch(1));
	CHECK(has_right_holes());
	store_close(store);
	unmake();
}

static atomic_bool writing;

static void *keep_writing(void *arg)
{
	while (atomic_load(&writing))
		stray(arg, 20);
	return NULL;
}

/* Others who do not stand still: either they are found out, or what they wrote is undone. */
static void who_does_not_stand_still_is_found(void)
{
	unsigned int refused = 0, tries;
	uint64_t e = 0, random = 4;
	pthread_t thread;

	CHECK_EQ(make(), 0);
	CHECK_EQ(begin(), 0);
	for (tries = 0; tries < 1000 && (!refused || tries < 20); tries++) {
		int ret;

		atomic_store(&writing, true);
		CHECK_EQ(pthread_create(&thread, NULL, keep_writing, &random), 0);
		ret = send_epoch(++e);
		if (ret) {
			refused++;
			CHECK_EQ(ret, -EBUSY);
			CHECK_EQ(store_head(store)->committed, e - 1);
			CHECK(store_head(store)->late);
			CHECK_EQ(store_write(store, generation, 0, &random, PAGE, 0),
				 -ESTALE);
			/* Nobody begins before it was finished, nor finishes it by that. */
			CHECK_EQ(store_attach(store), 0);
			/* Opened again, it is as it was. */
			if (refused % 2) {
				store_close(store);
				CHECK_EQ(store_open(&store, &files, LONG_ENOUGH), 0);
			}
		}
		atomic_store(&writing, false);
		pthread_join(thread, NULL);
		if (tries % 3)
			CHECK_EQ(store_settle(store), 0);
		/* The commit ends in any case, and is undone what was written after it. */
		CHECK_EQ(store_undo(store), 0);
		CHECK_EQ(store_head(store)->committed, e);
		CHECK(is_epoch(e));
		generation = store_attach(store);
		CHECK(generation);
	}
	CHECK(refused);
	store_close(store);
	unmake();
}

/* Stands still while the lock is held, also if that ends by a kill in the middle. */
static void write_beside_commits(const atomic_bool *stop, uint64_t random)
{
	int lock = open(dir, O_RDONLY | O_CLOEXEC);

	while (!atomic_load(stop)) {
		flock(lock, LOCK_EX);
		stray(&random, 100);
		flock(lock, LOCK_UN);
		usleep(100);
	}
	_exit(0);
}

static void replicate_beside_others(void)
{
	int lock = open(dir, O_RDONLY | O_CLOEXEC);
	uint64_t e;

	if (begin())
		_exit(1);
	for (e = store_head(store)->committed + 1;; e++) {
		struct store_epoch epoch = { .state_size = 8 };

		if (send_changes(e, changes) ||
		    store_write_state(store, generation, &e, sizeof(e), 0))
			_exit(1);
		flock(lock, LOCK_EX);
		if (store_commit(store, generation, e, &epoch) || store_head(store)->late)
			_exit(1);
		flock(lock, LOCK_UN);
	}
}

/*
 * What others wrote is undone also when who was at it is killed: a bit that he took out of
 * the log and a page that he had not come to yet are not forgotten.
 */
static void killed_while_others_write(void)
{
	unsigned int i, in_commit = 0, strayed = 0;
	struct store_head *head;
	atomic_bool *stop;
	uint64_t last = 0;

	/* Few, as what is new is restored whoever wrote to it besides. */
	changes = 3;
	CHECK_EQ(make(), 0);
	CHECK_EQ(store_map_head(files.journal, &head), 0);
	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(stop != MAP_FAILED);
	for (i = 0; i < 150; i++) {
		pid_t writer, victim;
		int status;

		atomic_store(stop, false);
		writer = fork();
		if (!writer)
			write_beside_commits(stop, mix(i) % 1000);
		victim = fork();
		if (!victim)
			replicate_beside_others();
		while (head->committed == last && !waitpid(victim, NULL, WNOHANG))
			usleep(100);
		usleep(mix(i) % 3000);
		kill(victim, SIGKILL);
		CHECK_EQ(waitpid(victim, &status, 0), victim);
		CHECK(WIFSIGNALED(status));
		/* It wrote on while the slots were neither the one nor the other. */
		atomic_store(stop, true);
		CHECK_EQ(waitpid(writer, &status, 0), writer);
		CHECK_EQ(status, 0);
		CHECK(head->committed > last);
		if (head->committed == last)
			break;
		last = head->committing;
		if (head->committing != head->committed) {
			in_commit++;
			CHECK_EQ(store_open(&store, &files, LONG_ENOUGH), 0);
			CHECK(is_epoch(last));
		} else {
			CHECK_EQ(store_open(&store, &files, LONG_ENOUGH), 0);
			strayed += !is_epoch(last);
			CHECK_EQ(store_undo(store), 0);
			CHECK(is_epoch(last));
		}
		CHECK_EQ(head->committed, last);
		store_close(store);
	}
	/* Or it has not tested what it is to test. */
	CHECK(in_commit);
	CHECK(strayed);
	munmap(stop, PAGE);
	munmap(head, sizeof(*head));
	unmake();
	changes = CHANGES;
}

/* As without caches. */
#define WITH_CACHES(test)			\
static void test ## _with_caches(void)		\
{						\
	caches = true;				\
	test();					\
	caches = false;				\
}

WITH_CACHES(epochs_are_committed)
WITH_CACHES(a_part_is_forgotten)
WITH_CACHES(an_old_generation_is_refused)
WITH_CACHES(bad_arguments)
WITH_CACHES(reads_what_was_written)
WITH_CACHES(one_at_a_time)
WITH_CACHES(checksum_is_that_of_the_slots)
WITH_CACHES(killed_at_any_moment)
WITH_CACHES(a_commit_undoes_what_others_wrote)
WITH_CACHES(undo_is_of_others_only)
WITH_CACHES(the_first_epoch_is_all_that_was_sent)
WITH_CACHES(who_does_not_stand_still_is_found)
WITH_CACHES(killed_while_others_write)

static const struct tap_test tests[] = {
	TAP_TEST(epochs_are_committed),
	TAP_TEST(a_part_is_forgotten),
	TAP_TEST(an_old_generation_is_refused),
	TAP_TEST(bad_arguments),
	TAP_TEST(reads_what_was_written),
	TAP_TEST(one_at_a_time),
	TAP_TEST(checksum_is_that_of_the_slots),
	TAP_TEST(killed_at_any_moment),
	TAP_TEST(epochs_are_committed_with_caches),
	TAP_TEST(a_part_is_forgotten_with_caches),
	TAP_TEST(an_old_generation_is_refused_with_caches),
	TAP_TEST(bad_arguments_with_caches),
	TAP_TEST(reads_what_was_written_with_caches),
	TAP_TEST(one_at_a_time_with_caches),
	TAP_TEST(checksum_is_that_of_the_slots_with_caches),
	TAP_TEST(killed_at_any_moment_with_caches),
	TAP_TEST(a_commit_undoes_what_others_wrote_with_caches),
	TAP_TEST(undo_is_of_others_only_with_caches),
	TAP_TEST(the_first_epoch_is_all_that_was_sent_with_caches),
	TAP_TEST(who_does_not_stand_still_is_found_with_caches),
	TAP_TEST(killed_while_others_write_with_caches),
};

int main(void)
{
	int ret;

	if (!mkdtemp(dir) || setenv("DIRTYTRACK_STANDIN", dir, 1))
		return 1;
	ret = tap_run(tests, sizeof(tests) / sizeof(*tests));
	rmdir(dir);
	return ret;
}
