// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checkpoint store: that its slots are always some epoch, all of it, also when who
 * wrote to it was killed.
 *
 * What an epoch writes follows from its number, so that what the slots have to be can be
 * computed for any of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
		for (i = 0; i < CHANGES; i++) {
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
	int ret = send_changes(epoch, CHANGES);

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

static int make(void)
{
	unsigned int i;

	memset(&files, 0, sizeof(files));
	files.nr = NR_SLOTS;
	for (i = 0; i < NR_SLOTS; i++) {
		snprintf(files.slots[i].name, sizeof(files.slots[i].name),
			 "slot%u", i);
		files.slots[i].slot = memfd_create("slot", MFD_CLOEXEC);
		if (files.slots[i].slot < 0 ||
		    ftruncate(files.slots[i].slot, npages[i] * PAGE) < 0)
			return -errno;
	}
	modelled = 0;
	memset(model, 0, sizeof(model));
	return store_create(&files);
}

static void unmake(void)
{
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++) {
		close(files.slots[i].slot);
		close(files.slots[i].staged);
	}
	close(files.journal);
	close(files.state[0]);
	close(files.state[1]);
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

static const struct tap_test tests[] = {
	TAP_TEST(epochs_are_committed),
	TAP_TEST(a_part_is_forgotten),
	TAP_TEST(an_old_generation_is_refused),
	TAP_TEST(bad_arguments),
	TAP_TEST(reads_what_was_written),
	TAP_TEST(one_at_a_time),
	TAP_TEST(checksum_is_that_of_the_slots),
	TAP_TEST(killed_at_any_moment),
};

int main(void)
{
	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
