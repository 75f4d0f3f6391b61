// SPDX-License-Identifier: GPL-2.0-only
/*
 * What user space can do to a mapping of a slot, and what the log then says
 *
 * Page-table entries are copied by fork, moved by mremap, taken away by
 * MADV_DONTNEED and made writable again by mprotect, all without a call into the
 * module.  Each test does one such thing between writes and harvests, with
 * nothing racing, so that the log must have exactly the pages written.
 */
#include "tracked.h"

#include <signal.h>
#include <sched.h>
#include <linux/aio_abi.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "uffd_wp.h"

/* More than one page table, and not a multiple of anything. */
#define NPAGES		611UL
#define RW		(PROT_READ | PROT_WRITE)

/* The first page that surely has another page table than page 0. */
#define FAR		600UL

TRACKED_FIXTURE(mappings, NPAGES)
FIXTURE_VARIANT_ADD(mappings, unmapped) { .start = START_UNMAPPED };

/* ---- the CPU's ways to write ---- */

typedef __u64 unaligned_u64 __attribute__((aligned(1)));

TEST_F(mappings, edges_of_words_and_page_tables)
{
	static const __u64 pages[] = {
		0, 1, 62, 63, 64, 65, 127, 128, 191, 192, 510, 511, 512, 513,
		NPAGES - 2, NPAGES - 1,
	};
	struct tracked *t = &self->t;

	check(t);
	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		put(t, pages[i]);
		check(t);
	}
	for (size_t i = 0; i < ARRAY_SIZE(pages); i += 2)
		put(t, pages[i]);
	check(t);
	check(t);
}

TEST_F(mappings, every_page)
{
	struct tracked *t = &self->t;

	put_range(t, 0, NPAGES);
	check(t);
	put_range(t, 0, NPAGES);
	check(t);
	check(t);
}

TEST_F(mappings, same_page_again)
{
	struct tracked *t = &self->t;

	for (int i = 0; i < 20; i++) {
		put(t, 77);
		if (i % 3 == 0)
			put(t, 77);
		check(t);
	}
	check(t);
}

TEST_F(mappings, reads_report_nothing)
{
	struct tracked *t = &self->t;

	for (__u64 n = 0; n < NPAGES; n += 3)
		page_read(t->mem, n);
	check(t);
	/* A page that was mapped by a read must fault again for a write. */
	put(t, 0);
	put(t, 3);
	put(t, 4);
	check(t);
	page_read(t->mem, 3);
	check(t);
}

TEST_F(mappings, store_across_a_page_boundary)
{
	struct tracked *t = &self->t;

	*(volatile unaligned_u64 *)(page_at(t->mem, 101) - 3) =
		~fresh_value();
	wrote(t, 100, 2);
	check(t);
	/* One of the two is writable already. */
	put(t, 511);
	*(volatile unaligned_u64 *)(page_at(t->mem, 512) - 4) =
		~fresh_value();
	wrote(t, 511, 2);
	check(t);
}

TEST_F(mappings, atomic_operations)
{
	struct tracked *t = &self->t;
	unsigned int *counter = (unsigned int *)page_at(t->mem, 40);
	unsigned int before = *counter;

	check(t);
	for (int i = 1; i <= 5; i++) {
		__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
		wrote(t, 40, 1);
		check(t);
	}
	EXPECT_EQ(before + 5, *counter);
	EXPECT_TRUE(__atomic_compare_exchange_n(counter, &(unsigned int){ before + 5 },
						before, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST));
	wrote(t, 40, 1);
	check(t);
}

TEST_F(mappings, string_instruction_over_pages)
{
#ifndef __x86_64__
	SKIP(return, "rep stos is an x86 instruction");
#else
	struct tracked *t = &self->t;
	size_t len = BYTES(40) - 200;

	for (int i = 1; i <= 2; i++) {
		void *dst = page_at(t->mem, 490) + 100;
		size_t left = len;

		asm volatile("rep stosb" : "+D" (dst), "+c" (left)
			     : "a" (i) : "memory");
		EXPECT_TRUE(bytes_are(page_at(t->mem, 490) + 100, i, len));
		wrote(t, 490, 40);
		check(t);
	}
	check(t);
#endif
}

/* ---- several mappings of a slot ---- */

TEST_F(mappings, two_mappings_at_odd_offsets)
{
	struct tracked *t = &self->t;
	char *low = test_map(t->slot, 0, 313);
	char *mid = test_map(t->slot, 97, 431);
	char *high = test_map(t->slot, 301, NPAGES - 301);

	for (int round = 0; round < 3; round++) {
		put_at(t, low, 0, 5);
		put_at(t, mid, 97, 97);
		put_at(t, mid, 97, 312);
		put_at(t, high, 301, 512);
		check(t);
		/* The same pages, through another mapping each. */
		put(t, 5);
		put_at(t, low, 0, 97);
		put_at(t, high, 301, 312);
		put_at(t, mid, 97, 512);
		check(t);
		/* All at once, some in all of them. */
		put_at(t, low, 0, 305);
		put_at(t, mid, 97, 305);
		put_at(t, high, 301, 305);
		put_at(t, high, 301, NPAGES - 1);
		put(t, FAR);
		check(t);
	}
	test_unmap(low, 313);
	put_at(t, mid, 97, 100);
	put_at(t, high, 301, 400);
	check(t);
	test_unmap(mid, 431);
	test_unmap(high, NPAGES - 301);
	put(t, 100);
	put(t, 400);
	check(t);
}

TEST_F(mappings, partial_mappings_of_two_processes)
{
	struct tracked *t = &self->t;
	int pair[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *mine;

		close(pair[0]);
		munmap(t->mem, BYTES(NPAGES));
		mine = _test_map(t->slot, 211, 307);
		if (mine == MAP_FAILED)
			_exit(2);
		for (int round = 0; round < 4; round++) {
			poke(page_at(mine, 0));
			poke(page_at(mine, 300 - 211));
			poke(page_at(mine, 306 - round));
			if (!turn_give(pair[1]) || !turn_wait(pair[1]))
				_exit(3);
		}
		_exit(0);
	}
	close(pair[1]);
	for (int round = 0; round < 4; round++) {
		ASSERT_TRUE(turn_wait(pair[0]));
		wrote(t, 211, 1);
		wrote(t, 300, 1);
		wrote(t, 211 + 306 - round, 1);
		put(t, 210);
		put(t, 300);
		put(t, 518);
		check(t);
		/* The child's mapping alone was written, or mine alone. */
		put(t, 212);
		check(t);
		ASSERT_TRUE(turn_give(pair[0]));
	}
	EXPECT_TRUE(child_ok(pid));
	close(pair[0]);
	check(t);
}

TEST_F(mappings, unmapped_before_the_harvest)
{
	struct tracked *t = &self->t;
	char *other = test_map(t->slot, 100, 50);

	put_at(t, other, 100, 100);
	put_at(t, other, 100, 149);
	put(t, 149);
	test_unmap(other, 50);
	check(t);
	check(t);
	other = test_map(t->slot, 100, 50);
	put_at(t, other, 100, 101);
	check(t);
	test_unmap(other, 50);
	check(t);
}

TEST_F(mappings, mapped_over)
{
	struct tracked *t = &self->t;

	for (int round = 0; round < 3; round++) {
		put_range(t, 300, 4);
		ASSERT_EQ(t->mem, mmap(t->mem, BYTES(NPAGES), RW,
				       MAP_SHARED | MAP_FIXED, t->slot, 0));
		put(t, 301);
		put(t, 310);
		check(t);
	}
	check(t);
}

TEST_F(mappings, opened_again)
{
	struct tracked *t = &self->t;
	int fd = test_reopen(t->slot, O_RDWR);
	char *other;

	ASSERT_LE(0, fd);
	other = test_map(fd, 0, NPAGES);
	close(fd);
	for (int round = 0; round < 3; round++) {
		put_at(t, other, 0, 10);
		put(t, 11);
		put_at(t, other, 0, FAR);
		check(t);
	}
	test_unmap(other, NPAGES);
}

/* ---- read-only neighbours ---- */

static char *map_readonly(struct tracked *t, __u64 first, __u64 npages)
{
	return mmap(NULL, BYTES(npages), PROT_READ, MAP_SHARED, t->slot,
		    BYTES(first));
}

/*
 * Protecting walks every mapping of a page.  One that cannot be written must
 * neither end that walk nor be skipped once mprotect has made it writable.
 */
TEST_F(mappings, readonly_mapping_of_writable_fd)
{
	struct tracked *t = &self->t;
	char *before, *part, *rw, *after;

	before = map_readonly(t, 0, NPAGES);
	ASSERT_NE(MAP_FAILED, before);
	rw = test_map(t->slot, 0, NPAGES);
	part = map_readonly(t, 33, 500);
	ASSERT_NE(MAP_FAILED, part);
	after = map_readonly(t, 0, NPAGES);
	ASSERT_NE(MAP_FAILED, after);

	for (int round = 0; round < 3; round++) {
		/* All the entries are there, the read-only ones too. */
		for (__u64 n = 33; n < 533; n += 100) {
			page_read(before, n);
			page_read(part, n - 33);
			page_read(after, n);
		}
		put(t, 33);
		put_at(t, rw, 0, 133);
		put_at(t, rw, 0, 532);
		put(t, FAR);
		check(t);
		put_at(t, rw, 0, 33);
		put(t, 133);
		check(t);
	}
	/* Now they can be written. */
	ASSERT_EQ(0, mprotect(before, BYTES(NPAGES), RW));
	ASSERT_EQ(0, mprotect(part, BYTES(500), RW));
	for (int round = 0; round < 3; round++) {
		put_at(t, before, 0, 33);
		put_at(t, part, 33, 233);
		check(t);
	}
	test_unmap(before, NPAGES);
	test_unmap(after, NPAGES);
	put_at(t, part, 33, 33);
	put_at(t, rw, 0, 34);
	check(t);
	test_unmap(part, 500);
	test_unmap(rw, NPAGES);
}

TEST_F(mappings, readonly_fd_is_refused)
{
	struct tracked *t = &self->t;
	int fd = test_reopen(t->slot, O_RDONLY);

	ASSERT_LE(0, fd);
	for (int round = 0; round < 3; round++) {
		errno = 0;
		EXPECT_EQ(MAP_FAILED, mmap(NULL, BYTES(NPAGES), PROT_READ,
					   MAP_SHARED, fd, 0));
		EXPECT_EQ(EACCES, errno);
		put(t, 0);
		put(t, 300);
		put(t, FAR);
		check(t);
	}
	close(fd);
}

TEST_F(mappings, private_mapping_is_refused)
{
	struct tracked *t = &self->t;

	errno = 0;
	EXPECT_EQ(MAP_FAILED, mmap(NULL, BYTES(NPAGES), RW, MAP_PRIVATE,
				   t->slot, 0));
	EXPECT_EQ(EINVAL, errno);
	errno = 0;
	EXPECT_EQ(MAP_FAILED, mmap(NULL, BYTES(NPAGES), PROT_READ, MAP_PRIVATE,
				   t->slot, 0));
	EXPECT_EQ(EINVAL, errno);
	put(t, 7);
	check(t);
}

/* ---- fork ---- */

TEST_F(mappings, child_writes_and_exits)
{
	struct tracked *t = &self->t;

	/* Nothing but PG_dirty remembers these after the exit. */
	in_child(poke(page_at(t->mem, 5)); poke(page_at(t->mem, FAR)));
	wrote(t, 5, 1);
	wrote(t, FAR, 1);
	check(t);
	check(t);
	in_child(poke(page_at(t->mem, 5)));
	put(t, 6);
	wrote(t, 5, 1);
	check(t);
	check(t);
}

/* The same for a mapping that the parent never had, and a dying grandchild. */
TEST_F(mappings, grandchild_maps_writes_and_exits)
{
	struct tracked *t = &self->t;

	for (int round = 0; round < 2; round++) {
		in_child(
			pid_t pid = fork();

			if (pid < 0)
				_exit(2);
			if (!pid) {
				char *mine = _test_map(t->slot, 300, 100);

				if (mine == MAP_FAILED)
					_exit(3);
				poke(mine);
				poke(page_at(mine, 99));
				_exit(0);
			}
			poke(page_at(t->mem, 350));
			_exit(child_ok(pid) ? 0 : 4);
		);
		wrote(t, 300, 1);
		wrote(t, 350, 1);
		wrote(t, 399, 1);
		check(t);
	}
	check(t);
}

/*
 * fork copies an entry with its write permission and without its dirty bit: the
 * child's first store goes through with no fault.
 */
TEST_F(mappings, child_inherits_writable_entries)
{
	struct tracked *t = &self->t;
	int pair[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	put(t, 20);
	put(t, 21);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(pair[0]);
		for (int round = 0; round < 3; round++) {
			if (!turn_wait(pair[1]))
				_exit(2);
			poke(page_at(t->mem, 20));
			poke(page_at(t->mem, 22 + round));
			if (!turn_give(pair[1]))
				_exit(3);
		}
		_exit(turn_wait(pair[1]) ? 0 : 4);
	}
	close(pair[1]);
	check(t);
	for (int round = 0; round < 3; round++) {
		ASSERT_TRUE(turn_give(pair[0]));
		ASSERT_TRUE(turn_wait(pair[0]));
		wrote(t, 20, 1);
		wrote(t, 22 + round, 1);
		if (round)
			put(t, 21);
		check(t);
		check(t);
	}
	ASSERT_TRUE(turn_give(pair[0]));
	EXPECT_TRUE(child_ok(pid));
	close(pair[0]);
	put(t, 20);
	check(t);
}

TEST_F(mappings, parent_writes_after_fork)
{
	struct tracked *t = &self->t;
	int pair[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	put(t, 50);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(pair[0]);
		_exit(turn_wait(pair[1]) ? 0 : 2);
	}
	close(pair[1]);
	put(t, 51);
	check(t);
	put(t, 50);
	put(t, 52);
	check(t);
	ASSERT_TRUE(turn_give(pair[0]));
	EXPECT_TRUE(child_ok(pid));
	close(pair[0]);
	put(t, 50);
	check(t);
	check(t);
}

/* Killed, and replaced by another program: the two ways that no exit() runs. */
TEST_F(mappings, child_is_killed_or_execs)
{
	struct tracked *t = &self->t;
	int pair[2], status;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		for (__u64 n = 500; n < 520; n++)
			poke(page_at(t->mem, n));
		turn_give(pair[1]);
		for (;;)
			pause();
	}
	ASSERT_TRUE(turn_wait(pair[0]));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	wrote(t, 500, 20);
	check(t);

	in_child(poke(page_at(t->mem, 500)); execl("/bin/true", "true", NULL); _exit(2));
	wrote(t, 500, 1);
	check(t);
	check(t);
	close(pair[0]);
	close(pair[1]);
}

/* ---- mremap ---- */

TEST_F(mappings, mremap_moves_written_pages)
{
	struct tracked *t = &self->t;

	for (int round = 0; round < 3; round++) {
		char *room = mmap(NULL, BYTES(NPAGES), PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		ASSERT_NE(MAP_FAILED, room);
		put(t, 1);
		put(t, 511);
		t->mem = mremap(t->mem, BYTES(NPAGES), BYTES(NPAGES),
				MREMAP_MAYMOVE | MREMAP_FIXED, room);
		ASSERT_EQ(room, t->mem);
		put(t, 2);
		put(t, 511);
		put(t, FAR);
		check(t);
		put(t, 1);
		check(t);
	}
	check(t);
}

TEST_F(mappings, mremap_moves_unwritten_pages)
{
	struct tracked *t = &self->t;
	char *room = mmap(NULL, BYTES(NPAGES), PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, room);
	for (__u64 n = 0; n < NPAGES; n += 7)
		page_read(t->mem, n);
	t->mem = mremap(t->mem, BYTES(NPAGES), BYTES(NPAGES),
			MREMAP_MAYMOVE | MREMAP_FIXED, room);
	ASSERT_EQ(room, t->mem);
	check(t);
	put(t, 7);
	put(t, 8);
	check(t);
	check(t);
}

TEST_F(mappings, mremap_of_a_part)
{
	struct tracked *t = &self->t;
	char *map = test_map(t->slot, 0, NPAGES);
	char *part;

	put_at(t, map, 0, 199);
	put_at(t, map, 0, 200);
	put_at(t, map, 0, 249);
	put_at(t, map, 0, 250);
	part = mremap(page_at(map, 200), BYTES(50), BYTES(50),
		      MREMAP_MAYMOVE | MREMAP_FIXED,
		      mmap(NULL, BYTES(50), PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	ASSERT_NE(MAP_FAILED, part);
	put_at(t, part, 200, 201);
	check(t);
	put_at(t, part, 200, 200);
	put_at(t, map, 0, 199);
	put_at(t, map, 0, 250);
	check(t);
	/* Shrunk in place: what was cut off took its dirty bits along. */
	put_at(t, part, 200, 249);
	ASSERT_EQ(part, mremap(part, BYTES(50), BYTES(20), 0));
	put_at(t, part, 200, 219);
	check(t);
	check(t);
	test_unmap(part, 20);
	test_unmap(map, NPAGES);
}

TEST_F(mappings, mremap_does_not_grow)
{
	struct tracked *t = &self->t;
	char *map = test_map(t->slot, 0, 10);

	put_at(t, map, 0, 9);
	EXPECT_EQ(MAP_FAILED, mremap(map, BYTES(10), BYTES(20), MREMAP_MAYMOVE));
	put_at(t, map, 0, 8);
	check(t);
	test_unmap(map, 10);
}

/* ---- mprotect ---- */

/*
 * mprotect gives write permission back to an entry that is still dirty, and no
 * fault follows.  What took the permission away must have taken the dirty bit.
 */
static void round_trip(struct __test_metadata *_metadata, struct tracked *t,
		       __u64 first, __u64 npages, int prot)
{
	char *at = page_at(t->mem, first);
	__u64 last = first + npages - 1;

	/* Between two harvests. */
	put(t, first);
	ASSERT_EQ(0, mprotect(at, BYTES(npages), prot));
	ASSERT_EQ(0, mprotect(at, BYTES(npages), RW));
	put(t, last);
	check(t);
	put(t, first);
	put(t, last);
	check(t);

	/* Around a harvest, which finds the entries read-only and dirty. */
	put(t, first);
	put(t, last);
	ASSERT_EQ(0, mprotect(at, BYTES(npages), prot));
	check(t);
	ASSERT_EQ(0, mprotect(at, BYTES(npages), RW));
	put(t, first);
	check(t);
	put(t, first);
	put(t, last);
	check(t);

	/* After a harvest: clean entries stay clean. */
	ASSERT_EQ(0, mprotect(at, BYTES(npages), prot));
	ASSERT_EQ(0, mprotect(at, BYTES(npages), RW));
	check(t);
	put(t, last);
	check(t);

	/* Several harvests while nothing can be written, and one more write. */
	put(t, first);
	ASSERT_EQ(0, mprotect(at, BYTES(npages), prot));
	check(t);
	check(t);
	ASSERT_EQ(0, mprotect(at, BYTES(npages), RW));
	check(t);
	put(t, first);
	check(t);
	put(t, first);
	check(t);
}

TEST_F(mappings, mprotect_read_round_trip)
{
	round_trip(_metadata, &self->t, 0, NPAGES, PROT_READ);
}

TEST_F(mappings, mprotect_none_round_trip)
{
	round_trip(_metadata, &self->t, 0, NPAGES, PROT_NONE);
}

/* Splits the mapping in three, and merges it again. */
TEST_F(mappings, mprotect_of_a_part)
{
	struct tracked *t = &self->t;

	round_trip(_metadata, t, 131, 400, PROT_READ);
	round_trip(_metadata, t, 511, 2, PROT_NONE);
	put(t, 130);
	put(t, 531);
	ASSERT_EQ(0, mprotect(page_at(t->mem, 131), BYTES(400), PROT_READ));
	put(t, 129);
	put(t, 532);
	check(t);
	put(t, 130);
	put(t, 531);
	check(t);
	ASSERT_EQ(0, mprotect(page_at(t->mem, 131), BYTES(400), RW));
	put(t, 131);
	put(t, 530);
	put(t, 130);
	check(t);
}

TEST_F(mappings, mprotect_of_one_mapping_of_two)
{
	struct tracked *t = &self->t;
	char *other = test_map(t->slot, 0, NPAGES);

	for (int round = 0; round < 3; round++) {
		put(t, 90);
		put_at(t, other, 0, 90);
		put_at(t, other, 0, 91);
		ASSERT_EQ(0, mprotect(other, BYTES(NPAGES), PROT_READ));
		put(t, 92);
		check(t);
		put(t, 90);
		check(t);
		ASSERT_EQ(0, mprotect(other, BYTES(NPAGES), RW));
		put_at(t, other, 0, 90);
		check(t);
		put_at(t, other, 0, 91);
		put_at(t, other, 0, 92);
		check(t);
	}
	test_unmap(other, NPAGES);
}

TEST_F(mappings, mprotect_makes_a_readonly_mapping_writable)
{
	struct tracked *t = &self->t;
	char *map = map_readonly(t, 0, NPAGES);

	ASSERT_NE(MAP_FAILED, map);
	for (__u64 n = 0; n < NPAGES; n += 5)
		page_read(map, n);
	check(t);
	ASSERT_EQ(0, mprotect(map, BYTES(NPAGES), RW));
	put_at(t, map, 0, 5);
	put_at(t, map, 0, 6);
	check(t);
	put_at(t, map, 0, 5);
	check(t);
	test_unmap(map, NPAGES);
	check(t);
}

/* ---- holes in the address range ---- */

TEST_F(mappings, munmap_in_the_middle)
{
	struct tracked *t = &self->t;
	char *map = test_map(t->slot, 0, NPAGES);

	for (__u64 n = 299; n < 322; n++)
		put_at(t, map, 0, n);
	test_unmap(page_at(map, 300), 20);
	put_at(t, map, 0, 299);
	check(t);
	put_at(t, map, 0, 299);
	put_at(t, map, 0, 320);
	check(t);
	/* Back, at another offset of the slot. */
	ASSERT_EQ(page_at(map, 300),
		  mmap(page_at(map, 300), BYTES(20), RW, MAP_SHARED | MAP_FIXED,
		       t->slot, BYTES(3)));
	put_at(t, page_at(map, 300), 3, 3);
	put_at(t, page_at(map, 300), 3, 22);
	put_at(t, map, 0, 320);
	check(t);
	put_at(t, page_at(map, 300), 3, 3);
	put_at(t, map, 0, 3);
	check(t);
	check(t);
	test_unmap(map, NPAGES);
}

/* ---- madvise and its like ---- */

TEST_F(mappings, dontneed)
{
	struct tracked *t = &self->t;
	__u64 value;

	for (int round = 0; round < 3; round++) {
		put(t, 30);
		put(t, 31);
		value = *(__u64 *)page_at(t->mem, 30);
		ASSERT_EQ(0, madvise(page_at(t->mem, 30), BYTES(1), MADV_DONTNEED));
		/* It is a file's page: only the entry has gone. */
		EXPECT_EQ(value, *(__u64 *)page_at(t->mem, 30));
		ASSERT_EQ(0, madvise(t->mem, BYTES(NPAGES), MADV_DONTNEED));
		put(t, 32);
		check(t);
		check(t);
	}
	put(t, 30);
	check(t);
	ASSERT_EQ(0, madvise(t->mem, BYTES(NPAGES), MADV_DONTNEED));
	check(t);
	put(t, 30);
	check(t);
}

/* The reported pages of [first, first + npages) must be there as holes. */
static void check_holes(struct __test_metadata *_metadata, struct tracked *t,
			__u64 first, __u64 npages)
{
	__u64 *data = bitmap_alloc(t->npages), *holes = bitmap_alloc(t->npages);
	__u64 *want_holes = bitmap_alloc(t->npages);

	for (__u64 n = first; n < first + npages; n++) {
		bit_set(want_holes, n);
		bit_set(t->ever, n);
		bit_clear(t->want, n);
	}
	test_extents_all(t->log, 0, 0, t->npages, 5, data, holes);
	tracked_compare(_metadata, t, holes, want_holes, want_holes,
			"the holes reported", __LINE__);
	tracked_compare(_metadata, t, data, t->want, t->want,
			"the data reported", __LINE__);
	bitmap_zero(t->want, t->npages);
	free(data);
	free(holes);
	free(want_holes);
}

static void discard(struct __test_metadata *_metadata, struct tracked *t,
		    bool by_madvise)
{
	int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	/* Written and harvested, or not: the zeros are new to a consumer. */
	put_range(t, 60, 10);
	check(t);
	put_range(t, 65, 10);
	ASSERT_EQ(0, by_madvise ?
		     madvise(page_at(t->mem, 62), BYTES(10), MADV_REMOVE) :
		     fallocate(t->slot, how, BYTES(62), BYTES(10)));
	check_holes(_metadata, t, 62, 10);
	check(t);

	/* Filled again: data, and reading alone makes no write of it. */
	put(t, 63);
	EXPECT_TRUE(page_is_zero(page_at(t->mem, 64)));
	check(t);
	put(t, 64);
	check(t);

	/* Punched through while another mapping has it writable. */
	put(t, 66);
	in_child(
		poke(page_at(t->mem, 66));
		if (fallocate(t->slot, how, BYTES(66), BYTES(1)))
			_exit(2);
		_exit(page_is_zero(page_at(t->mem, 66)) ? 0 : 3);
	);
	EXPECT_TRUE(page_is_zero(page_at(t->mem, 66)));
	wrote(t, 66, 1);
	check(t);
	put(t, 66);
	check(t);
}

TEST_F(mappings, madv_remove)
{
	discard(_metadata, &self->t, true);
}

TEST_F(mappings, punch_hole)
{
	discard(_metadata, &self->t, false);
}

/* Not whole pages: the rest of a page is kept, and the page is not a hole. */
TEST_F(mappings, punch_part_of_a_page)
{
	struct tracked *t = &self->t;
	unsigned char page[PAGE_SIZE];

	put_range(t, 80, 4);
	memset(page_at(t->mem, 80), 1, BYTES(4));
	check(t);
	ASSERT_EQ(0, fallocate(t->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       BYTES(80) + 100, BYTES(3)));
	wrote(t, 80, 1);
	wrote(t, 83, 1);
	check_holes(_metadata, t, 81, 2);
	memcpy(page, page_at(t->mem, 80), PAGE_SIZE);
	EXPECT_TRUE(bytes_are(page, 1, 100));
	EXPECT_TRUE(bytes_are(page + 100, 0, PAGE_SIZE - 100));
	memcpy(page, page_at(t->mem, 83), PAGE_SIZE);
	EXPECT_TRUE(bytes_are(page, 0, 100));
	EXPECT_TRUE(bytes_are(page + 100, 1, PAGE_SIZE - 100));
	check(t);
}

/*
 * Populating for writing makes pages writable ahead of the writes: it may report
 * them, and must not make later writes invisible.
 */
TEST_F(mappings, populate)
{
	struct tracked *t = &self->t;
	__u64 *most = bitmap_alloc(NPAGES);

	ASSERT_EQ(0, madvise(page_at(t->mem, 10), BYTES(20), MADV_POPULATE_READ));
	check(t);
	put(t, 10);
	check(t);
	for (__u64 n = 20; n < 40; n++)
		bit_set(most, n);
	ASSERT_EQ(0, madvise(page_at(t->mem, 20), BYTES(20), MADV_POPULATE_WRITE));
	check_within(t, most);
	put(t, 10);
	put(t, 20);
	put(t, 39);
	check(t);
	ASSERT_EQ(0, madvise(page_at(t->mem, 20), BYTES(20), MADV_POPULATE_WRITE));
	put(t, 20);
	put(t, 40);
	bit_set(most, 40);
	check_within(t, most);
	put(t, 20);
	check(t);
	free(most);
}

TEST_F(mappings, map_populate_and_mlock)
{
	struct tracked *t = &self->t;
	char *map = mmap(NULL, BYTES(NPAGES), RW, MAP_SHARED | MAP_POPULATE,
			 t->slot, 0);

	ASSERT_NE(MAP_FAILED, map);
	check(t);
	ASSERT_EQ(0, mlock(map, BYTES(50)));
	check(t);
	put_at(t, map, 0, 3);
	put(t, 4);
	check(t);
	put_at(t, map, 0, 3);
	check(t);
	ASSERT_EQ(0, munlock(map, BYTES(50)));
	put_at(t, map, 0, 3);
	check(t);
	test_unmap(map, NPAGES);
}

/*
 * Advice about memory management that has no business with a slot.  It may be
 * refused; it must not take a write away or make one up.
 */
TEST_F(mappings, memory_advice)
{
	static const int advice[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WILLNEED,
		MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_COLD, MADV_PAGEOUT, MADV_FREE, MADV_DONTDUMP, MADV_DODUMP,
		MADV_DONTFORK, MADV_DOFORK, 25 /* MADV_COLLAPSE */,
	};
	struct tracked *t = &self->t;

	for (size_t i = 0; i < ARRAY_SIZE(advice); i++) {
		put(t, 10);
		put(t, FAR);
		madvise(t->mem, BYTES(NPAGES), advice[i]);
		check(t);
		madvise(t->mem, BYTES(NPAGES), advice[i]);
		put(t, 10);
		put(t, 11);
		check(t);
	}
}

TEST_F(mappings, numa_policy)
{
	struct tracked *t = &self->t;
	unsigned long node0 = 1, addr[4];
	int nodes[4] = { 0 }, status[4];

	for (int i = 0; i < 4; i++)
		addr[i] = (unsigned long)page_at(t->mem, 100 + i);
	for (int round = 0; round < 2; round++) {
		put_range(t, 100, 4);
		/* MPOL_BIND, MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL */
		syscall(SYS_mbind, t->mem, BYTES(NPAGES), 2, &node0, 8, 7);
		syscall(SYS_move_pages, 0, 4UL, addr, nodes, status, 2);
		syscall(SYS_migrate_pages, 0, 8UL, &node0, &node0);
		check(t);
		put_range(t, 100, 4);
		put(t, 300);
		check(t);
	}
}

/* What cleans or drops the pages of other files. */
TEST_F(mappings, sync_and_reclaim)
{
	struct tracked *t = &self->t;

	for (int round = 0; round < 2; round++) {
		put(t, 1);
		put(t, 599);
		ASSERT_EQ(0, msync(t->mem, BYTES(NPAGES), MS_SYNC));
		ASSERT_EQ(0, msync(t->mem, BYTES(NPAGES), MS_ASYNC));
		ASSERT_EQ(0, fsync(t->slot));
		ASSERT_EQ(0, fdatasync(t->slot));
		posix_fadvise(t->slot, 0, 0, POSIX_FADV_DONTNEED);
		check(t);
		ASSERT_EQ(0, msync(t->mem, BYTES(NPAGES), MS_SYNC));
		check(t);
		put(t, 1);
		check(t);
	}
}

/* ---- those who look at page tables, and change them in passing ---- */

static void write_file(struct __test_metadata *_metadata, const char *path,
		       const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	ASSERT_LE(0, fd) {
		TH_LOG("%s: %s", path, strerror(errno));
	}
	ASSERT_EQ((ssize_t)strlen(text), write(fd, text, strlen(text))) {
		TH_LOG("%s: %s", path, strerror(errno));
	}
	close(fd);
}

static __u64 pagemap(struct __test_metadata *_metadata, const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	__u64 entry;

	ASSERT_LE(0, fd);
	ASSERT_EQ(sizeof(entry),
		  pread(fd, &entry, sizeof(entry),
			((uintptr_t)addr >> DIRTYTRACK_PAGE_SHIFT) * sizeof(entry)));
	close(fd);
	return entry;
}

#define PAGEMAP_SOFT_DIRTY	(1ULL << 55)
#define PAGEMAP_UFFD_WP		(1ULL << 57)
#define PAGEMAP_PRESENT		(1ULL << 63)

TEST_F(mappings, proc_files_are_readable)
{
	static const char * const files[] = {
		"/proc/self/smaps", "/proc/self/maps", "/proc/self/numa_maps",
		"/proc/self/smaps_rollup",
	};
	struct tracked *t = &self->t;
	unsigned char resident[NPAGES];
	char buf[4096];

	put(t, 10);
	EXPECT_NE(0, pagemap(_metadata, page_at(t->mem, 10)) & PAGEMAP_PRESENT);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int fd = open(files[i], O_RDONLY | O_CLOEXEC);
		ssize_t n;

		if (fd < 0 && errno == ENOENT)
			continue;	/* a kernel without NUMA */
		ASSERT_LE(0, fd);
		while ((n = read(fd, buf, sizeof(buf))) > 0)
			;
		EXPECT_EQ(0, n) {
			TH_LOG("%s: %s", files[i], strerror(errno));
		}
		close(fd);
	}
	ASSERT_EQ(0, mincore(t->mem, BYTES(NPAGES), resident));
	check(t);
	put(t, 10);
	check(t);
}

/* Every kind: of the referenced bits, and soft-dirty, which write-protects. */
TEST_F(mappings, clear_refs)
{
	static const char * const kinds[] = { "1", "2", "3", "4" };
	struct tracked *t = &self->t;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		put(t, 10);
		put(t, FAR);
		write_file(_metadata, "/proc/self/clear_refs", kinds[i]);
		put(t, 10);
		put(t, 11);
		check(t);
		write_file(_metadata, "/proc/self/clear_refs", kinds[i]);
		check(t);
		put(t, 10);
		put(t, 12);
		check(t);
		put(t, 10);
		write_file(_metadata, "/proc/self/clear_refs", kinds[i]);
		check(t);
		put(t, 10);
		check(t);
	}
}

/* The other direction: a program that follows soft-dirty is not misled. */
TEST_F(mappings, soft_dirty_sees_writes)
{
	struct tracked *t = &self->t;
	char *anon = mmap(NULL, PAGE_SIZE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, anon);
	poke(anon);
	if (!(pagemap(_metadata, anon) & PAGEMAP_SOFT_DIRTY))
		SKIP(return, "kernel without CONFIG_MEM_SOFT_DIRTY");

	put(t, 9);
	check(t);
	write_file(_metadata, "/proc/self/clear_refs", "4");
	put(t, 9);
	put(t, 10);
	EXPECT_NE(0, pagemap(_metadata, page_at(t->mem, 9)) & PAGEMAP_SOFT_DIRTY);
	EXPECT_NE(0, pagemap(_metadata, page_at(t->mem, 10)) & PAGEMAP_SOFT_DIRTY);
	EXPECT_EQ(0, pagemap(_metadata, page_at(t->mem, 11)) & PAGEMAP_SOFT_DIRTY);
	check(t);
	put(t, 11);
	EXPECT_NE(0, pagemap(_metadata, page_at(t->mem, 11)) & PAGEMAP_SOFT_DIRTY);
	check(t);
}

static int uffd_open(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC), err;

	if (fd < 0)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = errno;
		close(fd);
		errno = err;
		return -1;
	}
	return fd;
}

static int uffd_register(int fd, void *addr, size_t len, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static int uffd_protect(int fd, void *addr, size_t len, __u64 mode)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
}

/* Modes in which userfaultfd would serve the slot's faults in our place. */
TEST_F(mappings, userfaultfd_sync_modes_are_refused)
{
	struct tracked *t = &self->t;
	int fd = uffd_open(0);

	if (fd < 0 && errno == ENOSYS)
		SKIP(return, "kernel without userfaultfd");
	ASSERT_LE(0, fd);
	put(t, 3);
	EXPECT_ERRNO(EINVAL, uffd_register(fd, t->mem, BYTES(NPAGES),
					   UFFDIO_REGISTER_MODE_MISSING));
	EXPECT_ERRNO(EINVAL, uffd_register(fd, t->mem, BYTES(NPAGES),
					   UFFDIO_REGISTER_MODE_WP));
	put(t, 4);
	check(t);
	close(fd);
}

/*
 * Does userfaultfd take other mappings of the slot's kind, which do not expand?  It
 * did when WP_ASYNC came, and stopped later, without a feature bit that says so.
 * The ring of asynchronous I/O is one that every kernel has.
 */
static bool uffd_takes_special_mappings(int fd)
{
	aio_context_t ring = 0;
	bool takes;

	if (syscall(SYS_io_setup, 1, &ring))
		return true;
	takes = !uffd_register(fd, (void *)ring, PAGE_SIZE, UFFDIO_REGISTER_MODE_WP) ||
		errno != EINVAL;
	syscall(SYS_io_destroy, ring);
	return takes;
}

/*
 * Write-protecting what is not there leaves a marker in the page table.  A fault
 * on it must end, and the write be reported; userfaultfd must see it too.
 */
TEST_F_TIMEOUT(mappings, userfaultfd_async_wp, 60)
{
	struct tracked *t = &self->t;
	int fd = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED);

	if (fd < 0 && (errno == EINVAL || errno == ENOSYS))
		SKIP(return, "kernel without userfaultfd WP_ASYNC (before 6.7)");
	ASSERT_LE(0, fd);
	if (!uffd_takes_special_mappings(fd))
		SKIP(return, "userfaultfd refuses mappings of this kind");
	ASSERT_EQ(0, uffd_register(fd, t->mem, BYTES(NPAGES),
				   UFFDIO_REGISTER_MODE_WP));
	for (int round = 0; round < 3; round++) {
		ASSERT_EQ(0, uffd_protect(fd, t->mem, BYTES(NPAGES),
					  UFFDIO_WRITEPROTECT_MODE_WP));
		check(t);
		/* A write, a read and a write after a read. */
		put(t, 20 + round);
		page_read(t->mem, 30 + round);
		page_read(t->mem, 40 + round);
		put(t, 40 + round);
		put(t, FAR);
		EXPECT_EQ(0, pagemap(_metadata, page_at(t->mem, 20 + round)) &
			     PAGEMAP_UFFD_WP);
		EXPECT_EQ(0, pagemap(_metadata, page_at(t->mem, 40 + round)) &
			     PAGEMAP_UFFD_WP);
		/* A neighbour that is made writable would be lost to userfaultfd. */
		EXPECT_NE(0, pagemap(_metadata, page_at(t->mem, 50)) &
			     PAGEMAP_UFFD_WP);
		check(t);
		put(t, 20 + round);
		check(t);

		/* Entries gone, markers left; then the kernel faults them in. */
		put(t, 60);
		ASSERT_EQ(0, uffd_protect(fd, t->mem, BYTES(NPAGES),
					  UFFDIO_WRITEPROTECT_MODE_WP));
		ASSERT_EQ(0, madvise(t->mem, BYTES(NPAGES), MADV_DONTNEED));
		check(t);
		put(t, 60);
		in_child(poke(page_at(t->mem, 61)));
		wrote(t, 61, 1);
		check(t);
		ASSERT_EQ(0, uffd_protect(fd, t->mem, BYTES(NPAGES), 0));
		put(t, 62);
		check(t);
	}
	close(fd);
	put(t, 20);
	put(t, 70);
	check(t);
}

TEST_HARNESS_MAIN
