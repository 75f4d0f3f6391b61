// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writers that are not a store of this process
 *
 * Other processes, debuggers, and the kernel on someone's behalf: read(2), signal
 * frames, futexes, and I/O that is under way while harvests come and go.  What
 * they write must be in the log as if the CPU had stored it.
 *
 * A page that someone holds a reference to may be written at any moment without a
 * fault, so it is in every harvest until the reference is gone.
 */
#include "tracked.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <ucontext.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/nbd.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define NPAGES		200UL

TRACKED_FIXTURE(writers, NPAGES)

/* Bytes that differ from what is in the slot. */
static void fill(void *buf, size_t len)
{
	unsigned char *c = buf;
	__u64 seed = fresh_value();

	for (size_t i = 0; i < len; i++)
		c[i] = seed + i % 251;
}

/* Pages that [off, off + len) touches were written. */
static void wrote_bytes(struct tracked *t, size_t off, size_t len)
{
	__u64 first = off / PAGE_SIZE;

	wrote(t, first, (off + len - 1) / PAGE_SIZE - first + 1);
}

/* ---- other processes ---- */

TEST_F(writers, fd_passed_to_another_process)
{
	struct tracked *t = &self->t;
	int pair[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *mem;
		int fd;

		/* Nothing inherited: all it has is what the message brings. */
		munmap(t->mem, BYTES(NPAGES));
		close(t->slot);
		fd = receive_fd(pair[1]);
		mem = _test_map(fd, 11, 50);
		close(fd);
		if (mem == MAP_FAILED)
			_exit(3);
		for (int round = 0; round < 3; round++) {
			poke(mem);
			poke(page_at(mem, 49 - round));
			if (!turn_give(pair[1]) || !turn_wait(pair[1]))
				_exit(4);
		}
		_exit(0);
	}
	close(pair[1]);
	send_fd(pair[0], t->slot);
	for (int round = 0; round < 3; round++) {
		ASSERT_TRUE(turn_wait(pair[0]));
		wrote(t, 11, 1);
		wrote(t, 60 - round, 1);
		check(t);
		check(t);
		ASSERT_TRUE(turn_give(pair[0]));
	}
	EXPECT_TRUE(child_ok(pid));
	close(pair[0]);
	check(t);
}

TEST_F(writers, process_vm_writev)
{
	struct tracked *t = &self->t;
	char buf[3 * PAGE_SIZE];
	int pair[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(pair[0]);
		turn_give(pair[1]);
		_exit(turn_wait(pair[1]) ? 0 : 2);
	}
	close(pair[1]);
	ASSERT_TRUE(turn_wait(pair[0]));
	for (int round = 0; round < 3; round++) {
		/* The child's mapping, then this process's own. */
		pid_t pids[] = { pid, getpid() };

		for (int i = 0; i < 2; i++) {
			size_t off = BYTES(70) - 5, len = BYTES(2) + 10;
			struct iovec local = { .iov_base = buf, .iov_len = len };
			struct iovec remote[2] = {
				{ .iov_base = t->mem + off, .iov_len = len - 7 },
				{ .iov_base = t->mem + BYTES(100), .iov_len = 7 },
			};

			fill(buf, len);
			ASSERT_EQ((ssize_t)len, process_vm_writev(pids[i], &local,
								  1, remote, 2, 0));
			EXPECT_EQ(0, memcmp(t->mem + off, buf, len - 7));
			wrote_bytes(t, off, len - 7);
			wrote(t, 100, 1);
			check(t);
			check(t);
		}
	}
	/* Reading another process takes references, and writes nothing. */
	for (int i = 0; i < 2; i++) {
		struct iovec local = { .iov_base = buf, .iov_len = sizeof(buf) };
		struct iovec remote = { .iov_base = t->mem, .iov_len = sizeof(buf) };

		ASSERT_EQ((ssize_t)sizeof(buf),
			  process_vm_readv(pid, &local, 1, &remote, 1, 0));
		check(t);
	}
	ASSERT_TRUE(turn_give(pair[0]));
	EXPECT_TRUE(child_ok(pid));
	close(pair[0]);
}

TEST_F(writers, ptrace_and_proc_mem)
{
	struct tracked *t = &self->t;
	char path[64], buf[PAGE_SIZE + 100];
	int status, fd;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(2);
		raise(SIGSTOP);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	for (int round = 0; round < 3; round++) {
		off_t at = (uintptr_t)t->mem + BYTES(20) - 50;

		ASSERT_EQ(0, ptrace(PTRACE_POKEDATA, pid, page_at(t->mem, 9) + 64,
				    (void *)(uintptr_t)fresh_value()));
		wrote(t, 9, 1);
		check(t);
		fill(buf, sizeof(buf));
		ASSERT_EQ((ssize_t)sizeof(buf), pwrite(fd, buf, sizeof(buf), at));
		EXPECT_EQ(0, memcmp(t->mem + BYTES(20) - 50, buf, sizeof(buf)));
		wrote(t, 19, 3);
		check(t);
		check(t);
	}
	close(fd);
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, pid, NULL, NULL));
	EXPECT_TRUE(child_ok(pid));
}

/* A debugger may write where the process may not, but not to shared memory. */
TEST_F(writers, ptrace_does_not_write_to_a_readonly_mapping)
{
	struct tracked *t = &self->t;
	char *map = mmap(NULL, BYTES(NPAGES), PROT_READ, MAP_SHARED, t->slot, 0);
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	__u64 value = fresh_value(), before;

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_LE(0, fd);
	before = *(__u64 *)page_at(map, 5);
	EXPECT_ERRNO(EIO, pwrite(fd, &value, sizeof(value), (uintptr_t)page_at(map, 5)));
	EXPECT_EQ(before, *(__u64 *)page_at(map, 5));
	check(t);
	put(t, 5);
	check(t);
	close(fd);
	test_unmap(map, NPAGES);
}

/* ---- read(2) and its like, into a mapping ---- */

TEST_F(writers, read_from_files_pipes_and_sockets)
{
	struct tracked *t = &self->t;
	char buf[2 * PAGE_SIZE];
	size_t off = BYTES(30) + 4000, len = PAGE_SIZE + 500;
	int file = memfd_create("source", MFD_CLOEXEC), pipes[2], pair[2], zero;

	ASSERT_LE(0, file);
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, zero);

	for (int round = 0; round < 2; round++) {
		struct iovec iov[2] = {
			{ .iov_base = t->mem + BYTES(40) + 7, .iov_len = 9 },
			{ .iov_base = t->mem + BYTES(51) - 1, .iov_len = 2 },
		};
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

		fill(buf, len);
		ASSERT_EQ((ssize_t)len, pwrite(file, buf, len, 0));
		ASSERT_EQ((ssize_t)len, pread(file, t->mem + off, len, 0));
		EXPECT_EQ(0, memcmp(t->mem + off, buf, len));
		wrote_bytes(t, off, len);
		check(t);

		fill(buf, len);
		ASSERT_EQ((ssize_t)len, write(pipes[1], buf, len));
		ASSERT_EQ((ssize_t)len, read(pipes[0], t->mem + off, len));
		EXPECT_EQ(0, memcmp(t->mem + off, buf, len));
		wrote_bytes(t, off, len);
		check(t);

		ASSERT_EQ(11, send(pair[1], buf, 11, 0));
		ASSERT_EQ(11, recvmsg(pair[0], &msg, 0));
		wrote(t, 40, 1);
		wrote(t, 50, 2);
		check(t);

		ASSERT_EQ(11, preadv(file, iov, 2, 0));
		wrote(t, 40, 1);
		wrote(t, 50, 2);
		check(t);

		ASSERT_EQ((ssize_t)len, read(zero, t->mem + off, len));
		EXPECT_TRUE(bytes_are(t->mem + off, 0, len));
		wrote_bytes(t, off, len);
		check(t);

		ASSERT_EQ(64, getrandom(t->mem + BYTES(60) - 32, 64, 0));
		wrote(t, 59, 2);
		check(t);

		/* The slot is a file, too. */
		put(t, 70);
		check(t);
		ASSERT_EQ((ssize_t)PAGE_SIZE, pread(t->slot, page_at(t->mem, 71),
						    PAGE_SIZE, BYTES(70)));
		EXPECT_EQ(0, memcmp(page_at(t->mem, 70), page_at(t->mem, 71),
				    PAGE_SIZE));
		wrote(t, 71, 1);
		check(t);
	}
	check(t);
	close(file);
	close(zero);
	close(pipes[0]);
	close(pipes[1]);
	close(pair[0]);
	close(pair[1]);
}

/* Copies that stop at a page that cannot be written: what was written counts. */
TEST_F(writers, read_that_faults_in_the_middle)
{
	struct tracked *t = &self->t;
	char *map = mmap(NULL, BYTES(3), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char buf[2 * PAGE_SIZE], was[16];
	int pipes[2];

	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(map, mmap(map, PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, t->slot, BYTES(80)));
	ASSERT_EQ(0, pipe(pipes));
	fill(buf, sizeof(buf));
	ASSERT_EQ((ssize_t)sizeof(buf), write(pipes[1], buf, sizeof(buf)));
	memcpy(was, page_at(t->mem, 80) + PAGE_SIZE - sizeof(was), sizeof(was));
	read(pipes[0], map + PAGE_SIZE - sizeof(was), sizeof(buf));
	ASSERT_NE(0, memcmp(was, map + PAGE_SIZE - sizeof(was), sizeof(was)));
	wrote(t, 80, 1);
	check(t);
	check(t);
	close(pipes[0]);
	close(pipes[1]);
	munmap(map, BYTES(3));
}

/* ---- to the slot as a file ---- */

TEST_F(writers, pwrite_to_the_slot)
{
	struct tracked *t = &self->t;
	char buf[4 * PAGE_SIZE];
	struct iovec iov[2] = {
		{ .iov_base = buf, .iov_len = PAGE_SIZE },
		{ .iov_base = buf + PAGE_SIZE, .iov_len = 33 },
	};

	for (int round = 0; round < 3; round++) {
		size_t off = BYTES(90) - 3, len = BYTES(3) + 6;

		fill(buf, sizeof(buf));
		ASSERT_EQ((ssize_t)len, pwrite(t->slot, buf, len, off));
		EXPECT_EQ(0, memcmp(t->mem + off, buf, len));
		wrote_bytes(t, off, len);
		check(t);
		ASSERT_EQ((ssize_t)PAGE_SIZE + 33, pwritev(t->slot, iov, 2, BYTES(110)));
		wrote(t, 110, 2);
		check(t);
		/* And beside a store to the same pages. */
		put(t, 111);
		ASSERT_EQ(1, pwrite(t->slot, buf, 1, BYTES(111)));
		ASSERT_EQ(1, pwrite(t->slot, buf, 1, BYTES(112)));
		put(t, 112);
		wrote(t, 111, 2);
		check(t);
		check(t);
	}
}

/*
 * From a mapping of the slot itself, of pages that have no memory yet or that must
 * be faulted in: neither a deadlock nor a page too many.
 */
TEST_F(writers, pwrite_from_the_slot_to_itself)
{
	struct tracked *t = &self->t;

	put(t, 120);
	check(t);
	ASSERT_EQ((ssize_t)BYTES(2), pwrite(t->slot, page_at(t->mem, 120), BYTES(2),
					    BYTES(130)));
	EXPECT_EQ(0, memcmp(page_at(t->mem, 120), page_at(t->mem, 130), BYTES(2)));
	wrote(t, 130, 2);
	check(t);
	/* Onto the page that the data comes from. */
	ASSERT_EQ(100, pwrite(t->slot, page_at(t->mem, 120), 100, BYTES(120) + 200));
	wrote(t, 120, 1);
	check(t);
	ASSERT_EQ(0, madvise(t->mem, BYTES(NPAGES), MADV_DONTNEED));
	ASSERT_EQ(100, pwrite(t->slot, page_at(t->mem, 140), 100, BYTES(140) + 200));
	wrote(t, 140, 1);
	check(t);
}

/* What could be copied is written and reported, and the caller told how much. */
TEST_F(writers, pwrite_from_memory_that_faults)
{
	struct tracked *t = &self->t;
	char *buf = mmap(NULL, BYTES(3), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	__u64 *most = bitmap_alloc(NPAGES);
	char before[3 * PAGE_SIZE];
	ssize_t n;

	ASSERT_NE(MAP_FAILED, buf);
	fill(buf, BYTES(1));
	ASSERT_EQ(0, mprotect(buf + BYTES(1), BYTES(2), PROT_NONE));
	ASSERT_EQ((ssize_t)sizeof(before), pread(t->slot, before, sizeof(before),
						 BYTES(150)));
	check(t);
	/* From the middle of a page, so that the fault is not at its edge. */
	n = pwrite(t->slot, buf + 100, BYTES(2), BYTES(150) + 10);
	ASSERT_LT(0, n);
	ASSERT_GE((ssize_t)PAGE_SIZE - 100, n);
	EXPECT_EQ(0, memcmp(t->mem + BYTES(150) + 10, buf + 100, n));
	wrote(t, 150, 1);
	for (__u64 page = 151; page < 153; page++)
		EXPECT_EQ(0, memcmp(page_at(t->mem, page),
				    before + BYTES(page - 150), PAGE_SIZE));
	check(t);
	/* The kernel need not know that it has copied nothing. */
	EXPECT_ERRNO(EFAULT, pwrite(t->slot, buf + BYTES(1), 10, BYTES(150)));
	bit_set(most, 150);
	check_within(t, most);
	check(t);
	free(most);
	munmap(buf, BYTES(3));
}

TEST_F(writers, sendfile_and_splice_to_the_slot)
{
	struct tracked *t = &self->t;
	int file = memfd_create("source", MFD_CLOEXEC), pipes[2];
	char buf[2 * PAGE_SIZE];
	loff_t off;

	ASSERT_LE(0, file);
	ASSERT_EQ(0, pipe(pipes));
	for (int round = 0; round < 2; round++) {
		fill(buf, sizeof(buf));
		ASSERT_EQ((ssize_t)sizeof(buf), pwrite(file, buf, sizeof(buf), 0));
		ASSERT_EQ(0, lseek(file, 0, SEEK_SET));
		ASSERT_EQ((off_t)BYTES(160), lseek(t->slot, BYTES(160), SEEK_SET));
		ASSERT_EQ((ssize_t)sizeof(buf), sendfile(t->slot, file, NULL,
							 sizeof(buf))) {
			TH_LOG("sendfile: %s", strerror(errno));
		}
		EXPECT_EQ(0, memcmp(page_at(t->mem, 160), buf, sizeof(buf)));
		wrote(t, 160, 2);
		check(t);

		fill(buf, sizeof(buf));
		ASSERT_EQ((ssize_t)sizeof(buf), write(pipes[1], buf, sizeof(buf)));
		off = BYTES(170) + 8;
		ASSERT_EQ((ssize_t)sizeof(buf), splice(pipes[0], NULL, t->slot, &off,
						       sizeof(buf), 0));
		EXPECT_EQ(0, memcmp(page_at(t->mem, 170) + 8, buf, sizeof(buf)));
		wrote(t, 170, 3);
		check(t);

		/* Out of the slot: a copy, so that nobody keeps its pages. */
		off = BYTES(160);
		ASSERT_EQ((ssize_t)PAGE_SIZE, splice(t->slot, &off, pipes[1], NULL,
						     PAGE_SIZE, 0));
		check(t);
		ASSERT_EQ((ssize_t)PAGE_SIZE, read(pipes[0], buf, PAGE_SIZE));
		EXPECT_EQ(0, memcmp(page_at(t->mem, 160), buf, PAGE_SIZE));
		check(t);
	}
	close(file);
	close(pipes[0]);
	close(pipes[1]);
}

/* ---- pages that are held ---- */

/*
 * Someone had a page for writing.  When he lets go of it is up to a workqueue at
 * times, so harvest until it is quiet; what is reported meanwhile are @held.
 */
static void check_until_quiet(struct __test_metadata *_metadata, struct tracked *t,
			      const __u64 *held)
{
	EXPECT_TRUE(eventually(({
		check_within(t, held);
		!bits_count(t->got, t->npages);
	}))) {
		TH_LOG("still reported after 5 s without a holder");
	}
}

TEST_F_TIMEOUT(writers, vmsplice_holds_pages, 60)
{
	struct tracked *t = &self->t;
	__u64 *held = bitmap_alloc(NPAGES);
	struct iovec iov = { .iov_base = page_at(t->mem, 10), .iov_len = BYTES(3) };
	char buf[3 * PAGE_SIZE];
	int pipes[2], copy[2];

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(0, pipe(copy));
	for (unsigned int flags = 0; flags <= SPLICE_F_GIFT; flags += SPLICE_F_GIFT) {
		put_range(t, 10, 3);
		ASSERT_EQ((ssize_t)BYTES(3), vmsplice(pipes[1], &iov, 1, flags));
		for (__u64 n = 10; n < 13; n++)
			bit_set(held, n);
		for (int i = 0; i < 3; i++) {
			wrote(t, 10, 3);
			check(t);
		}
		/* A second pipe holds the first page on its own. */
		ASSERT_EQ((ssize_t)PAGE_SIZE, tee(pipes[0], copy[1], PAGE_SIZE, 0));
		ASSERT_EQ((ssize_t)BYTES(3), read(pipes[0], buf, BYTES(3)));
		EXPECT_EQ(0, memcmp(page_at(t->mem, 10), buf, BYTES(3)));
		check_within(t, held);
		wrote(t, 10, 1);
		check_within(t, held);
		wrote(t, 10, 1);
		put(t, 20);
		check(t);
		ASSERT_EQ((ssize_t)PAGE_SIZE, read(copy[0], buf, PAGE_SIZE));
		check_until_quiet(_metadata, t, held);
		put(t, 10);
		check(t);
		check(t);
	}
	close(pipes[0]);
	close(pipes[1]);
	close(copy[0]);
	close(copy[1]);
	free(held);
}

/*
 * A block device whose server is the test: a read of it is under way for as long
 * as the test wants, and its data arrive in the pages, through the kernel's own
 * mapping, when the test sends them.
 */
struct slow_disk {
	int dev;		/* the block device, O_DIRECT */
	int server;		/* this end of the connection */
	pthread_t thread;	/* runs the kernel's end */
	__u64 handle;		/* of the request that was received last */
	const char *skip;
};

static void *slow_disk_run(void *arg)
{
	ioctl((int)(intptr_t)arg, NBD_DO_IT);
	return NULL;
}

static bool slow_disk_open(struct slow_disk *d)
{
	struct timeval patience = { .tv_sec = 20 };
	__u64 size;
	int pair[2];

	d->dev = open("/dev/nbd0", O_RDWR | O_CLOEXEC | O_DIRECT);
	if (d->dev < 0) {
		if (system("modprobe nbd nbds_max=1 >/dev/null 2>&1"))
			d->skip = "cannot load the nbd module";
		for (int i = 0; d->dev < 0 && i < 100; i++) {
			usleep(20000);
			d->dev = open("/dev/nbd0", O_RDWR | O_CLOEXEC | O_DIRECT);
		}
	}
	if (d->dev < 0) {
		d->skip = d->skip ?: "no /dev/nbd0";
		return false;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    ioctl(d->dev, NBD_SET_BLKSIZE, PAGE_SIZE) ||
	    ioctl(d->dev, NBD_SET_SIZE_BLOCKS, 1024UL) ||
	    ioctl(d->dev, NBD_SET_SOCK, pair[0])) {
		d->skip = "cannot set up /dev/nbd0";
		return false;
	}
	close(pair[0]);
	d->server = pair[1];
	/* A driver that asks for nothing fails the test, and does not hang it. */
	setsockopt(d->server, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (pthread_create(&d->thread, NULL, slow_disk_run, (void *)(intptr_t)d->dev)) {
		d->skip = "cannot make a thread";
		return false;
	}
	/* The device has its size when the kernel's end is at work. */
	for (int i = 0; i < 500; i++) {
		if (!ioctl(d->dev, BLKGETSIZE64, &size) && size == BYTES(1024UL))
			return true;
		usleep(10000);
	}
	d->skip = "/dev/nbd0 does not start";
	return false;
}

static void slow_disk_close(struct slow_disk *d)
{
	ioctl(d->dev, NBD_DISCONNECT);
	close(d->server);
	pthread_join(d->thread, NULL);
	ioctl(d->dev, NBD_CLEAR_SOCK);
	close(d->dev);
}

/* The next read request, or 0; its pages are in the hands of the driver now. */
static size_t slow_disk_request(struct slow_disk *d)
{
	struct nbd_request req;

	if (recv(d->server, &req, sizeof(req), MSG_WAITALL) != sizeof(req) ||
	    req.magic != htobe32(NBD_REQUEST_MAGIC) ||
	    (be32toh(req.type) & 0xffff) != NBD_CMD_READ)
		return 0;
	memcpy(&d->handle, req.handle, sizeof(d->handle));
	return be32toh(req.len);
}

static bool slow_disk_send(struct slow_disk *d, const void *data, size_t len)
{
	return send(d->server, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool slow_disk_begin_reply(struct slow_disk *d)
{
	struct nbd_reply reply = { .magic = htobe32(NBD_REPLY_MAGIC) };

	memcpy(reply.handle, &d->handle, sizeof(d->handle));
	return slow_disk_send(d, &reply, sizeof(reply));
}

#define IO_FIRST	40UL
#define IO_PAGES	8UL
#define IO_BYTES	BYTES(IO_PAGES)

/* A read of the slow disk into a slot. */
struct direct_read {
	struct slow_disk disk;
	bool in_thread;		/* which waits in pread(); else by AIO */
	char data[IO_BYTES];	/* what the disk will have sent */
	void *to;
	ssize_t ret;
	pthread_t thread;
	aio_context_t context;
};

static bool direct_open(struct direct_read *r)
{
	if (!slow_disk_open(&r->disk))
		return false;
	if (syscall(SYS_io_setup, 4, &r->context))
		r->disk.skip = "kernel without AIO";
	return !r->disk.skip;
}

static void direct_close(struct direct_read *r)
{
	syscall(SYS_io_destroy, r->context);
	slow_disk_close(&r->disk);
}

static void *direct_pread(void *arg)
{
	struct direct_read *r = arg;

	r->ret = pread(r->disk.dev, r->to, IO_BYTES, 0);
	return NULL;
}

/* The driver has the pages when this returns. */
static bool direct_begin(struct direct_read *r, void *to)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = r->disk.dev,
		.aio_buf = (uintptr_t)to,
		.aio_nbytes = IO_BYTES,
	}, *cbs = &cb;

	fill(r->data, IO_BYTES);
	r->to = to;
	if (r->in_thread ? pthread_create(&r->thread, NULL, direct_pread, r) :
			   syscall(SYS_io_submit, r->context, 1L, &cbs) != 1)
		return false;
	return slow_disk_request(&r->disk) == IO_BYTES;
}

/* By AIO the kernel lets go of the pages when it likes, before or after. */
static bool direct_end(struct direct_read *r)
{
	struct io_event event;

	if (r->in_thread)
		return !pthread_join(r->thread, NULL) && r->ret == IO_BYTES;
	return syscall(SYS_io_getevents, r->context, 1L, 1L, &event, NULL) == 1 &&
	       event.res == IO_BYTES;
}

/*
 * The read is under way: harvests report its pages each time, before data, with
 * half of the data there, and after it; then they are quiet.
 */
static void harvest_around_read(struct __test_metadata *_metadata, struct tracked *t,
				struct direct_read *r)
{
	char *in_slot = page_at(t->mem, IO_FIRST);
	__u64 *held = bitmap_alloc(NPAGES);
	size_t half = IO_BYTES / 2 + 100;

	for (__u64 n = IO_FIRST; n < IO_FIRST + IO_PAGES; n++)
		bit_set(held, n);
	for (int i = 0; i < 3; i++) {
		wrote(t, IO_FIRST, IO_PAGES);
		put(t, 100 + i);
		check(t);
	}
	ASSERT_TRUE(slow_disk_begin_reply(&r->disk));
	ASSERT_TRUE(slow_disk_send(&r->disk, r->data, half));
	/* Until the kernel has taken it out of the socket. */
	ASSERT_TRUE(eventually(!memcmp(in_slot, r->data, IO_BYTES / 2)));
	for (int i = 0; i < 2; i++) {
		wrote(t, IO_FIRST, IO_PAGES);
		check(t);
	}
	/* A copy taken after the last harvest lacks the second half. */
	EXPECT_NE(0, memcmp(in_slot + IO_BYTES - PAGE_SIZE,
			    r->data + IO_BYTES - PAGE_SIZE, PAGE_SIZE));
	ASSERT_TRUE(slow_disk_send(&r->disk, r->data + half, IO_BYTES - half));
	ASSERT_TRUE(direct_end(r));
	EXPECT_EQ(0, memcmp(in_slot, r->data, IO_BYTES));
	wrote(t, IO_FIRST + IO_PAGES / 2, IO_PAGES / 2);
	check_within(t, held);
	check_until_quiet(_metadata, t, held);
	put(t, IO_FIRST);
	check(t);
	check(t);
	free(held);
}

TEST_F_TIMEOUT(writers, direct_read_in_flight, 120)
{
	struct tracked *t = &self->t;
	struct direct_read r = { .in_thread = true };

	if (!direct_open(&r))
		SKIP(return, "%s", r.disk.skip);
	check(t);
	for (int round = 0; round < 2; round++) {
		ASSERT_TRUE(direct_begin(&r, page_at(t->mem, IO_FIRST)));
		harvest_around_read(_metadata, t, &r);
	}
	direct_close(&r);
}

TEST_F_TIMEOUT(writers, async_direct_read_in_flight, 120)
{
	struct tracked *t = &self->t;
	struct direct_read r = { .in_thread = false };

	if (!direct_open(&r))
		SKIP(return, "%s", r.disk.skip);
	for (int round = 0; round < 2; round++) {
		ASSERT_TRUE(direct_begin(&r, page_at(t->mem, IO_FIRST)));
		harvest_around_read(_metadata, t, &r);
	}
	direct_close(&r);
}

/* The reader's mapping goes away while the data is still coming. */
TEST_F_TIMEOUT(writers, direct_read_outlives_the_mapping, 120)
{
	struct tracked *t = &self->t;
	struct direct_read r = { .in_thread = false };
	char *map = test_map(t->slot, IO_FIRST, IO_PAGES);

	if (!direct_open(&r))
		SKIP(return, "%s", r.disk.skip);
	ASSERT_TRUE(direct_begin(&r, map));
	test_unmap(map, IO_PAGES);
	harvest_around_read(_metadata, t, &r);
	direct_close(&r);
}

/*
 * Punched while it is held: the slot lets go of the page, the holder's data go
 * nowhere, and a new page in its place is tracked by itself.
 */
TEST_F_TIMEOUT(writers, punched_during_direct_read, 120)
{
	struct tracked *t = &self->t;
	struct direct_read r = { .in_thread = false };

	if (!direct_open(&r))
		SKIP(return, "%s", r.disk.skip);
	ASSERT_TRUE(direct_begin(&r, page_at(t->mem, IO_FIRST)));
	wrote(t, IO_FIRST, IO_PAGES);
	check(t);
	ASSERT_EQ(0, fallocate(t->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       BYTES(IO_FIRST), IO_BYTES));
	wrote(t, IO_FIRST, IO_PAGES);
	check(t);
	put(t, IO_FIRST);
	check(t);
	ASSERT_TRUE(slow_disk_begin_reply(&r.disk));
	ASSERT_TRUE(slow_disk_send(&r.disk, r.data, IO_BYTES));
	ASSERT_TRUE(direct_end(&r));
	for (__u64 n = IO_FIRST + 1; n < IO_FIRST + IO_PAGES; n++)
		EXPECT_TRUE(page_is_zero(page_at(t->mem, n)));
	check(t);
	put(t, IO_FIRST);
	put(t, IO_FIRST + 1);
	check(t);
	check(t);
	direct_close(&r);
}

/*
 * A page that a driver is to write is kept by a release of what is clean, however often
 * it was harvested, and so is what arrived in it after the last harvest.
 */
TEST_F_TIMEOUT(writers, clean_release_during_direct_read, 120)
{
	struct tracked *t = &self->t;
	struct direct_read r = { .in_thread = false };
	char *in_slot = page_at(t->mem, IO_FIRST);
	__u64 *held = bitmap_alloc(NPAGES);
	struct done done;

	if (!direct_open(&r))
		SKIP(return, "%s", r.disk.skip);
	ASSERT_TRUE(direct_begin(&r, in_slot));
	for (int i = 0; i < 2; i++) {
		wrote(t, IO_FIRST, IO_PAGES);
		check(t);
		done = test_release_range(t->log, DIRTYTRACK_LOG_RELEASE_CLEAN, IO_FIRST,
					  IO_PAGES);
		EXPECT_EQ(0, done.pages);
		EXPECT_EQ(IO_PAGES, done.skipped);
	}
	ASSERT_TRUE(slow_disk_begin_reply(&r.disk));
	ASSERT_TRUE(slow_disk_send(&r.disk, r.data, IO_BYTES));
	ASSERT_TRUE(direct_end(&r));
	wrote(t, IO_FIRST, IO_PAGES);
	done = test_release_range(t->log, DIRTYTRACK_LOG_RELEASE_CLEAN, IO_FIRST, IO_PAGES);
	EXPECT_EQ(0, done.pages);
	EXPECT_EQ(0, memcmp(in_slot, r.data, IO_BYTES));
	for (__u64 n = IO_FIRST; n < IO_FIRST + IO_PAGES; n++)
		bit_set(held, n);
	check_within(t, held);
	check_until_quiet(_metadata, t, held);
	/* Nobody has it any more, and it was reported. */
	done = test_release_range(t->log, DIRTYTRACK_LOG_RELEASE_CLEAN, IO_FIRST, IO_PAGES);
	EXPECT_EQ(IO_PAGES, done.pages);
	wrote(t, IO_FIRST, IO_PAGES);
	check(t);
	direct_close(&r);
	free(held);
}

/*
 * A buffer that is registered for good would be written for ever without a fault.
 * The kernel refuses to pin it: before 6.5 as it does every file's pages there,
 * later because the mapping wants to hear of writes.
 */
TEST_F(writers, io_uring_fixed_buffer_is_refused)
{
	struct tracked *t = &self->t;
	struct io_uring_params params = { .flags = 0 };
	struct iovec iov = { .iov_base = page_at(t->mem, 3), .iov_len = BYTES(4) };
	int fd = syscall(SYS_io_uring_setup, 4, &params);

	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		SKIP(return, "kernel without io_uring");
	ASSERT_LE(0, fd);
	put(t, 3);
	errno = 0;
	EXPECT_EQ(-1, syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS,
			      &iov, 1));
	EXPECT_TRUE(errno == EFAULT || errno == EOPNOTSUPP) {
		TH_LOG("IORING_REGISTER_BUFFERS: %s", strerror(errno));
	}
	for (__u64 n = 3; n < 7; n++)
		bit_set(t->got, n);
	/* The attempt may have faulted pages in for writing. */
	check_within(t, t->got);
	put(t, 4);
	check(t);
	check(t);
	close(fd);
}

/* ---- what the kernel writes for a thread ---- */

/* On a stack in the slot: its own stores, and what read() copies there. */
static int on_stack(void *arg)
{
	volatile char local[3 * PAGE_SIZE];
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	for (size_t i = 0; i < sizeof(local); i += 512)
		local[i] = 1;
	*(uintptr_t *)arg = (uintptr_t)local;
	return zero < 0 || read(zero, (char *)local, sizeof(local)) != sizeof(local) ||
	       close(zero);
}

TEST_F(writers, stack_of_a_thread)
{
	struct tracked *t = &self->t;
	size_t first = 100, npages = 40;
	__u64 *stack = bitmap_alloc(NPAGES);
	uintptr_t local;
	pid_t pid;

	for (size_t n = first; n < first + npages; n++)
		bit_set(stack, n);
	for (int round = 0; round < 2; round++) {
		pid = clone(on_stack, page_at(t->mem, first + npages),
			    CLONE_VM | CLONE_FS | SIGCHLD, &local);
		ASSERT_LT(0, pid);
		ASSERT_TRUE(child_ok(pid));
		wrote_bytes(t, local - (uintptr_t)t->mem, 3 * PAGE_SIZE);
		check_within(t, stack);
	}
	check(t);
	free(stack);
}

static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

TEST_F(writers, signal_frame)
{
	struct tracked *t = &self->t;
	size_t first = 150, npages = 32;
	__u64 *frame = bitmap_alloc(NPAGES);
	stack_t stack = {
		.ss_sp = page_at(t->mem, first),
		.ss_size = BYTES(npages),
	}, old;
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };

	for (size_t n = first; n < first + npages; n++)
		bit_set(frame, n);
	ASSERT_EQ(0, sigaltstack(&stack, &old));
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	for (int round = 1; round <= 3; round++) {
		ASSERT_EQ(0, raise(SIGUSR1));
		ASSERT_EQ(round, handled);
		/* The frame begins at the top of the stack. */
		wrote(t, first + npages - 1, 1);
		check_within(t, frame);
		check(t);
	}
	ASSERT_EQ(0, sigaltstack(&old, NULL));
	free(frame);
}

/* Adds 5 to the word by way of the kernel. */
static int futex_add(int *word, int private)
{
	int other = 0;

	return syscall(SYS_futex, &other, FUTEX_WAKE_OP | private, 1, 1UL, word,
		       FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0));
}

TEST_F(writers, futex_operations)
{
	struct tracked *t = &self->t;
	int *word = (int *)(page_at(t->mem, 60) + 128);

	for (int round = 1; round <= 3; round++) {
		*word = round;
		wrote(t, 60, 1);
		check(t);
		ASSERT_EQ(0, futex_add(word, FUTEX_PRIVATE_FLAG));
		EXPECT_EQ(round + 5, *word);
		wrote(t, 60, 1);
		check(t);
		check(t);
	}
	/* A waiter only looks. */
	EXPECT_ERRNO(EAGAIN, syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 12345,
				     NULL, NULL, 0));
	check(t);
}

/*
 * A shared futex is named by its file and offset, for which the kernel asks the
 * page; a slot's page does not know them.
 */
TEST_F(writers, shared_futex_is_refused)
{
	struct tracked *t = &self->t;
	int *word = (int *)(page_at(t->mem, 60) + 128);
	__u64 *most = bitmap_alloc(NPAGES);

	*word = 1;
	wrote(t, 60, 1);
	check(t);
	EXPECT_ERRNO(EFAULT, futex_add(word, 0));
	EXPECT_ERRNO(EFAULT, syscall(SYS_futex, word, FUTEX_WAIT, 1, NULL, NULL, 0));
	EXPECT_EQ(1, *word);
	/* The kernel has looked for the page as one who would write. */
	bit_set(most, 60);
	check_within(t, most);
	check(t);
	free(most);
}

/* The owner of a lock dies: the kernel says so in the lock. */
TEST_F(writers, robust_futex)
{
	struct tracked *t = &self->t;
	pthread_mutex_t *mutex = (pthread_mutex_t *)(page_at(t->mem, 61) + 256);
	pthread_mutexattr_t attr;

	ASSERT_EQ(0, pthread_mutexattr_init(&attr));
	ASSERT_EQ(0, pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
	ASSERT_EQ(0, pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	ASSERT_EQ(0, pthread_mutex_init(mutex, &attr));
	for (int round = 0; round < 2; round++) {
		int pair[2];
		pid_t pid;

		wrote(t, 61, 1);
		check(t);
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			if (pthread_mutex_lock(mutex) || !turn_give(pair[1]) ||
			    !turn_wait(pair[1]))
				_exit(2);
			_exit(0);
		}
		close(pair[1]);
		ASSERT_TRUE(turn_wait(pair[0]));
		wrote(t, 61, 1);
		check(t);
		/* From here on only the kernel writes. */
		ASSERT_TRUE(turn_give(pair[0]));
		ASSERT_TRUE(child_ok(pid));
		wrote(t, 61, 1);
		check(t);
		close(pair[0]);
		ASSERT_EQ(EOWNERDEAD, pthread_mutex_lock(mutex));
		ASSERT_EQ(0, pthread_mutex_consistent(mutex));
		ASSERT_EQ(0, pthread_mutex_unlock(mutex));
	}
	wrote(t, 61, 1);
	check(t);
}

static int idle_thread(void *arg)
{
	(void)arg;
	return 0;
}

/* The ids that clone() stores, and the one that exit clears. */
TEST_F(writers, thread_ids)
{
	struct tracked *t = &self->t;
	static char stack[16 * PAGE_SIZE] __attribute__((aligned(16)));
	pid_t *parent_tid = (pid_t *)page_at(t->mem, 62);
	pid_t *child_tid = (pid_t *)(page_at(t->mem, 63) + 8);
	int status;
	pid_t pid;

	for (int round = 0; round < 2; round++) {
		*child_tid = -1;
		wrote(t, 63, 1);
		check(t);
		/* Its memory is ours: what it does to the id, it does to the slot. */
		pid = clone(idle_thread, stack + sizeof(stack), CLONE_VM |
			    CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD,
			    NULL, parent_tid, NULL, child_tid);
		ASSERT_LT(0, pid);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(pid, *parent_tid);
		EXPECT_EQ(0, *child_tid);
		wrote(t, 62, 2);
		check(t);
		check(t);
	}
}

/* System calls that fill in a struct of the caller. */
TEST_F(writers, results_of_system_calls)
{
	struct tracked *t = &self->t;
	struct timespec *ts = (struct timespec *)(page_at(t->mem, 71) - 8);

	for (int round = 0; round < 2; round++) {
		/* Not the vdso's, which is code of this process. */
		ASSERT_EQ(0, syscall(SYS_clock_gettime, CLOCK_MONOTONIC, ts));
		wrote(t, 70, 2);
		check(t);
		ASSERT_EQ(0, fstat(t->slot, (struct stat *)(page_at(t->mem, 73) - 16)));
		wrote(t, 72, 2);
		check(t);
		ASSERT_LT(0, syscall(SYS_getcwd, page_at(t->mem, 75), PAGE_SIZE));
		wrote(t, 75, 1);
		check(t);
	}
	check(t);
}

TEST_HARNESS_MAIN
