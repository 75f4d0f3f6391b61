// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for the module, for tests and benchmarks of the command where there is
 * none.  It is linked under the command with --wrap, and answers its ioctls.
 *
 *	$DIRTYTRACK_STANDIN/NAME	a slot: its memory, a file to be mapped
 *	$DIRTYTRACK_STANDIN/NAME.dirty	a bit for each page of it that was written
 *	$DIRTYTRACK_STANDIN/NAME.dirtyN	one of its logs, locked by whose it is
 *	$DIRTYTRACK_STANDIN/NAME.carried what is on its way from the one to the others
 *	$DIRTYTRACK_STANDIN/NAME.limit	pages a second, for the writer to keep to
 *
 * Who writes to the memory sets the bit after the write, atomically; what the module
 * finds out, writers declare here.  A harvest moves what was declared to all logs, then
 * takes bits out of its own, as the module does, so the guarantee holds word for word.
 * Whoever harvests may be killed, as in the module: a bit is where it goes to before it is
 * not any more where it came from.
 *
 * Storage has its stand-in, too: of $DIRTYTRACK_STANDIN_FSYNC, N:error has the Nth fsync of
 * a process fail, and N:slow has it wait for a file "go".
 *
 * Of $DIRTYTRACK_STANDIN_RELEASED, a page, somebody releases that page when it was found to
 * have memory, and its end is looked for.
 *
 * $DIRTYTRACK_STANDIN_BROKEN is a page of slots whose memory is broken: reading it fails.
 *
 * While there is a file $DIRTYTRACK_STANDIN_KILL, who would kill somebody waits, and says so
 * by one with the suffix ".held".
 *
 * For writers that declare nothing, as a real QEMU, $DIRTYTRACK_STANDIN_ALL has every
 * page in the log whenever somebody begins to look.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../lib/dirtytrack.h"

int __real_ioctl(int fd, unsigned long cmd, ...);
int __real_open64(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long cmd, ...);
int __wrap_open64(const char *path, int flags, ...);
int __real_poll(struct pollfd *fds, nfds_t nfds, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t nfds, int timeout);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
ssize_t __real_pread64(int fd, void *buf, size_t count, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t count, off_t offset);
off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
int __real_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig);

#define PAGE DTRACK_PAGE_SIZE
#define MAX_LOGS 4
#define MAX_CALL (64 * 1024)	/* pages of one harvest: callers must call again */

static int fail(int err)
{
	errno = err;
	return -1;
}

static const char *standin_dir(void)
{
	const char *dir = getenv("DIRTYTRACK_STANDIN");

	if (!dir)
		abort();
	return dir;
}

/* The path of what @fd is, if that is in the directory. */
static bool path_of(int fd, char path[PATH_MAX])
{
	const char *dir = standin_dir();
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, PATH_MAX - 1);
	if (n < 0)
		return false;
	path[n] = '\0';
	return !strncmp(path, dir, strlen(dir));
}

int __wrap_open64(const char *path, int flags, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, flags);
	mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
	va_end(ap);
	if (!strcmp(path, DIRTYTRACK_DEVICE))
		return __real_open64(standin_dir(), O_RDONLY | O_CLOEXEC);
	return __real_open64(path, flags, mode);
}

static int open_in_dir(const char *name, const char *suffix, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s%s", standin_dir(), name, suffix);
	return __real_open64(path, flags | O_CLOEXEC, 0600);
}

static int slot_create(struct dirtytrack_slot_create *arg)
{
	struct stat st;
	int fd, log;

	fd = open_in_dir(arg->name, "", O_RDWR | O_CREAT | O_EXCL);
	if (fd < 0)
		return -1;
	log = open_in_dir(arg->name, ".dirty", O_RDWR | O_CREAT | O_TRUNC);
	if (log < 0 || ftruncate(fd, arg->length) < 0 ||
	    ftruncate(log, dtrack_bitmap_words(arg->length / PAGE) * 8) < 0 ||
	    fstat(fd, &st) < 0)
		abort();
	close(log);
	close(open_in_dir(arg->name, ".limit", O_RDWR | O_CREAT | O_TRUNC));
	arg->out_id = st.st_ino;
	arg->out_fd = fd;
	return 0;
}

static int slot_open(struct dirtytrack_slot_open *arg)
{
	if (!(arg->flags & DIRTYTRACK_OPEN_BY_NAME))
		return fail(ENOENT);
	arg->out_fd = open_in_dir(arg->name, "", O_RDWR);
	return arg->out_fd < 0 ? -1 : 0;
}

static uint64_t limit, waits;

static int slot_info(int fd, struct dirtytrack_slot_info *arg)
{
	char path[PATH_MAX];
	struct stat st;

	if (!path_of(fd, path) || fstat(fd, &st) < 0)
		return fail(ENOTTY);
	memset(arg, 0, sizeof(*arg));
	arg->size = sizeof(*arg);
	arg->out_id = st.st_ino;
	arg->out_uid = st.st_uid;
	arg->out_length = st.st_size;
	arg->out_resident = st.st_blocks * 512 / PAGE;
	waits += limit != 0;
	arg->out_rate = limit;
	arg->out_throttles = waits;
	arg->out_throttled_ns = waits * 500000000;
	snprintf(arg->out_name, sizeof(arg->out_name), "%.31s",
		 strrchr(path, '/') + 1);
	return 0;
}

/* The end of what has memory, or has not, at @page; capped by @end. */
static uint64_t same_state(int slot, uint64_t page, uint64_t end, bool *hole)
{
	off_t next = __real_lseek64(slot, page * PAGE, SEEK_DATA);

	if (next < 0)
		next = end * PAGE;
	*hole = next / PAGE > page;
	if (!*hole)
		next = __real_lseek64(slot, next, SEEK_HOLE) + PAGE - 1;
	return (uint64_t)next / PAGE < end ? (uint64_t)next / PAGE : end;
}

/* What writers declare of a slot, and its logs, which are made as they are needed. */
struct declared {
	char path[PATH_MAX];	/* of the slot */
	uint64_t npages;
	int lock;		/* while it is locked */
	_Atomic uint64_t *words;
	_Atomic uint64_t *carried;
	_Atomic uint64_t *logs[MAX_LOGS];
};

static _Atomic uint64_t *map_words(int fd, uint64_t npages)
{
	void *addr = mmap(NULL, dtrack_bitmap_words(npages) * 8,
			  PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (addr == MAP_FAILED)
		abort();
	return addr;
}

static int open_beside(const char *slot, const char *suffix, int flags)
{
	char path[PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s%s", slot, suffix);
	fd = __real_open64(path, flags | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		abort();
	return fd;
}

static void declared_open(struct declared *d, const char *slot, uint64_t npages)
{
	int fd;

	memset(d, 0, sizeof(*d));
	strcpy(d->path, slot);
	d->npages = npages;
	fd = open_beside(slot, ".dirty", 0);
	d->words = map_words(fd, npages);
	close(fd);
	fd = open_beside(slot, ".carried", O_CREAT);
	if (ftruncate(fd, dtrack_bitmap_words(npages) * 8) < 0)
		abort();
	d->carried = map_words(fd, npages);
	close(fd);
}

static void declared_close(struct declared *d)
{
	size_t size = dtrack_bitmap_words(d->npages) * 8;
	int n;

	for (n = 0; n < MAX_LOGS; n++)
		if (d->logs[n])
			munmap((void *)d->logs[n], size);
	munmap((void *)d->carried, size);
	munmap((void *)d->words, size);
}

/* The @nth log of a slot, if there has been one. */
static _Atomic uint64_t *map_log(const struct declared *d, int nth)
{
	_Atomic uint64_t *words = NULL;
	char path[PATH_MAX + 24];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s.dirty%d", d->path, nth);
	fd = __real_open64(path, O_RDWR | O_CLOEXEC);
	/* It may be of a slot of this name that was smaller. */
	if (fd >= 0 && !fstat(fd, &st) &&
	    (uint64_t)st.st_size >= dtrack_bitmap_words(d->npages) * 8)
		words = map_words(fd, d->npages);
	if (fd >= 0)
		close(fd);
	return words;
}

/*
 * One collects at a time, and nobody makes a log.  By a file that nobody inherits: who dies
 * with it lets it go.
 */
static void declared_lock(struct declared *d)
{
	d->lock = open_beside(d->path, ".dirty", 0);
	if (flock(d->lock, LOCK_EX) < 0)
		abort();
}

static void declared_unlock(struct declared *d)
{
	close(d->lock);
}

/*
 * Move what was declared of the pages to all logs, by way of what is carried: a page that is
 * declared again before that is clear is in the logs after it was written.
 */
static void collect(struct declared *d, uint64_t first, uint64_t npages)
{
	uint64_t end = dtrack_bitmap_words(first + npages), i = first / 64;
	int n;

	while (i < end && !atomic_load(&d->words[i]) && !atomic_load(&d->carried[i]))
		i++;
	for (n = 0; i < end && n < MAX_LOGS; n++)
		if (!d->logs[n])
			d->logs[n] = map_log(d, n);
	for (; i < end; i++) {
		uint64_t word = atomic_load(&d->words[i]);

		if (word) {
			atomic_fetch_or(&d->carried[i], word);
			atomic_fetch_and(&d->words[i], ~word);
		}
		word = atomic_load(&d->carried[i]);
		for (n = 0; word && n < MAX_LOGS; n++)
			if (d->logs[n])
				atomic_fetch_or(&d->logs[n][i], word);
		if (word)
			atomic_store(&d->carried[i], 0);
	}
}

/* A log is the bitmap file; it finds its slot by its name. */
struct log {
	ino_t id;
	bool may_release;
	_Atomic uint64_t *words;
	uint64_t npages;
	int slot;
	struct declared *declared;
};

/* Kept until the process ends: to map one for each call would be most of the call. */
static struct log logs[64];
static unsigned int nr_logs;
static pthread_mutex_t logs_lock = PTHREAD_MUTEX_INITIALIZER;

static int log_find(int fd, struct log *log)
{
	char path[PATH_MAX], *suffix;
	struct stat st;
	unsigned int i;
	int again;

	if (fstat(fd, &st) < 0)
		return -1;
	for (i = 0; i < nr_logs; i++)
		if (logs[i].id == st.st_ino) {
			*log = logs[i];
			return 0;
		}
	log->id = st.st_ino;
	log->may_release = false;
	if (!path_of(fd, path))
		return fail(ENOTTY);
	suffix = strstr(path, ".dirty");
	if (!suffix)
		return fail(ENOTTY);
	/* The mapping must not keep the log's lock. */
	again = __real_open64(path, O_RDWR | O_CLOEXEC);
	*suffix = '\0';
	log->slot = __real_open64(path, O_RDWR | O_CLOEXEC);
	if (log->slot < 0 || fstat(log->slot, &st) < 0)
		abort();
	log->npages = st.st_size / PAGE;
	log->words = map_words(again, log->npages);
	close(again);
	if (nr_logs == sizeof(logs) / sizeof(*logs))
		abort();
	log->declared = malloc(sizeof(*log->declared));
	if (!log->declared)
		abort();
	declared_open(log->declared, path, log->npages);
	logs[nr_logs++] = *log;
	return 0;
}

/* Of one that was just attached. */
static void log_allow_release(const struct log *log)
{
	unsigned int i;

	for (i = 0; i < nr_logs; i++)
		if (logs[i].id == log->id)
			logs[i].may_release = true;
}

static int log_attach(int fd, struct log *log)
{
	int ret;

	pthread_mutex_lock(&logs_lock);
	ret = log_find(fd, log);
	pthread_mutex_unlock(&logs_lock);
	return ret;
}

/* So that the log has what was written to the pages. */
static void log_collect(struct log *log, uint64_t first, uint64_t npages)
{
	pthread_mutex_lock(&logs_lock);
	declared_lock(log->declared);
	collect(log->declared, first, npages);
	declared_unlock(log->declared);
	pthread_mutex_unlock(&logs_lock);
}

/* The process has one log, and so one ring. */
static struct {
	int log;
	uint64_t npages;
	off_t offset;
	struct dirtytrack_ring *shared;
	struct dirtytrack_ring_control *control;
	uint64_t *entries;
	bool *pushed;		/* pages that are in it and not taken */
} ring;

static size_t ring_size(uint32_t entries)
{
	return DIRTYTRACK_RING_ENTRIES_OFFSET +
	       (entries * sizeof(uint64_t) + PAGE - 1) / PAGE * PAGE;
}

static void ring_create(int log, uint64_t npages, uint32_t entries)
{
	size_t size = ring_size(entries) + PAGE;
	char *addr;

	ring.log = log;
	ring.npages = npages;
	ring.offset = (dtrack_bitmap_words(npages) * 8 + PAGE - 1) / PAGE * PAGE;
	ring.pushed = calloc(npages, sizeof(*ring.pushed));
	if (!ring.pushed || ftruncate(log, ring.offset) < 0 ||
	    ftruncate(log, ring.offset + size) < 0)
		abort();
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, log,
		    ring.offset);
	if (addr == MAP_FAILED)
		abort();
	ring.shared = (void *)addr;
	ring.entries = (void *)(addr + DIRTYTRACK_RING_ENTRIES_OFFSET);
	ring.control = (void *)(addr + size - PAGE);
	ring.shared->entries = entries;
	ring.shared->overflows = 1;
}

static void ring_push(uint64_t page)
{
	struct dirtytrack_ring *r = ring.shared;

	ring.pushed[page] = true;
	if (r->head - ring.control->tail < r->entries)
		ring.entries[r->head++ % r->entries] = page;
	else
		r->overflows++;
}

/* A log that is nobody's, of zeroes. */
static int take_log(const char *slot, uint64_t npages)
{
	char path[PATH_MAX + 24];
	int n, fd;

	for (n = 0; n < MAX_LOGS; n++) {
		snprintf(path, sizeof(path), "%s.dirty%d", slot, n);
		fd = __real_open64(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return -1;
		if (!flock(fd, LOCK_EX | LOCK_NB)) {
			if (ftruncate(fd, 0) < 0 ||
			    ftruncate(fd, dtrack_bitmap_words(npages) * 8) < 0)
				abort();
			return fd;
		}
		close(fd);
	}
	return fail(ENOSPC);
}

static int log_create(int slot, struct dirtytrack_log_create *arg)
{
	uint64_t page, end, i;
	char path[PATH_MAX];
	struct declared declared;
	struct stat st;
	struct log log;
	bool hole;
	int fd;

	if (!path_of(slot, path) || fstat(slot, &st) < 0)
		return fail(ENOTTY);
	declared_open(&declared, path, st.st_size / PAGE);
	declared_lock(&declared);
	/* It begins without what was written before. */
	collect(&declared, 0, declared.npages);
	fd = take_log(path, declared.npages);
	declared_unlock(&declared);
	declared_close(&declared);
	if (fd < 0)
		return -1;
	log_attach(fd, &log);
	if (arg->flags & DIRTYTRACK_LOG_MAY_RELEASE)
		log_allow_release(&log);
	if (arg->flags & DIRTYTRACK_LOG_ALL_SET)
		for (page = 0; page < log.npages; page = end) {
			end = same_state(log.slot, page, log.npages, &hole);
			for (i = page; !hole && i < end; i++)
				atomic_fetch_or(&log.words[i / 64],
						UINT64_C(1) << i % 64);
		}
	if (arg->ring_entries)
		ring_create(fd, log.npages, arg->ring_entries);
	arg->out_fd = fd;
	return 0;
}

/* Is the page dirty; take it out unless @peek. */
static bool test_page(struct log *log, uint64_t page, bool peek)
{
	uint64_t mask = UINT64_C(1) << page % 64;

	if (!(atomic_load(&log->words[page / 64]) & mask))
		return false;
	if (peek)
		return true;
	/* In this order: who sets the bit from now on is pushed again. */
	if (ring.shared)
		ring.pushed[page] = false;
	atomic_fetch_and(&log->words[page / 64], ~mask);
	return true;
}

static int log_info(int fd, struct dirtytrack_log_info *arg)
{
	struct log log;

	if (log_attach(fd, &log))
		return -1;
	arg->out_npages = log.npages;
	if (ring.shared) {
		arg->out_ring_offset = ring.offset;
		arg->out_ring_size = ring_size(ring.shared->entries);
		arg->out_control_offset = ring.offset + arg->out_ring_size;
		arg->out_control_size = PAGE;
	}
	return 0;
}

static int clear_ranges(int fd, struct dirtytrack_ranges *arg)
{
	const struct dirtytrack_range *r = (const void *)(uintptr_t)arg->ranges;
	struct log log;
	uint64_t page;
	uint32_t i;

	if (log_attach(fd, &log))
		return -1;
	log_collect(&log, 0, log.npages);
	arg->out_pages = 0;
	for (i = 0; i < arg->nr; i++, r++)
		for (page = r->first; page < r->first + r->npages; page++)
			arg->out_pages += test_page(&log, page, false);
	arg->out_nr = i;
	arg->out_next = 0;
	return 0;
}

static int merge(int fd, struct dirtytrack_bitmap *arg)
{
	const uint64_t *bitmap = (const uint64_t *)(uintptr_t)arg->bitmap;
	uint64_t page, end = arg->first + arg->npages;
	struct log log;

	if (log_attach(fd, &log))
		return -1;
	if (arg->npages > MAX_CALL)
		end = arg->first + MAX_CALL;
	arg->out_pages = 0;
	for (page = arg->first; page < end; page++) {
		if (!dtrack_bitmap_test(bitmap, arg->bit + page - arg->first))
			continue;
		atomic_fetch_or(&log.words[page / 64], UINT64_C(1) << page % 64);
		arg->out_pages++;
	}
	arg->out_next = end;
	return 0;
}

static bool ring_ready(void)
{
	return ring.shared->head - ring.control->tail >
	       ring.control->watermark ||
	       ring.shared->overflows != ring.control->seen;
}

/* Only the consumer of the ring is expected to poll without an end. */
int __wrap_poll(struct pollfd *fds, nfds_t nfds, int timeout)
{
	struct log log;
	uint64_t page;

	if (!ring.shared || nfds != 1 || fds->fd != ring.log)
		return __real_poll(fds, nfds, timeout);
	log_attach(ring.log, &log);
	while (!ring_ready()) {
		log_collect(&log, 0, log.npages);
		for (page = 0; page < ring.npages; page++)
			if (!ring.pushed[page] && test_page(&log, page, true))
				ring_push(page);
		usleep(1000);
	}
	fds->revents = POLLIN;
	return 1;
}

int __wrap_fsync(int fd)
{
	const char *how = getenv("DIRTYTRACK_STANDIN_FSYNC");
	static int nr;

	if (!how || ++nr != atoi(how))
		return __real_fsync(fd);
	if (strstr(how, ":error"))
		return fail(EIO);
	fprintf(stderr, "standin: at fsync %d\n", nr);
	while (access("go", F_OK))
		usleep(10000);
	return __real_fsync(fd);
}

off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
	const char *page = getenv("DIRTYTRACK_STANDIN_RELEASED");
	static bool released;

	if (page && whence == SEEK_HOLE && offset == (off_t)PAGE * atoi(page) && !released) {
		released = true;
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
			      PAGE) < 0)
			abort();
	}
	return __real_lseek64(fd, offset, whence);
}

/* A read that begins before the broken page ends there. */
ssize_t __wrap_pread64(int fd, void *buf, size_t count, off_t offset)
{
	const char *page = getenv("DIRTYTRACK_STANDIN_BROKEN");
	off_t broken = page ? (off_t)PAGE * atoi(page) : 0;
	char path[PATH_MAX];

	if (!page || offset >= broken + (off_t)PAGE || offset + (off_t)count <= broken ||
	    !path_of(fd, path) || strchr(strrchr(path, '/'), '.'))
		return __real_pread64(fd, buf, count, offset);
	if (offset >= broken)
		return fail(EIO);
	return __real_pread64(fd, buf, broken - offset, offset);
}

/* Who looks at a few pages looks whether they were written since: that begins nothing. */
static void log_begin(struct log *log, uint64_t first, uint64_t npages)
{
	uint64_t i;

	log_collect(log, first, npages);
	if (first || npages <= 64 || !getenv("DIRTYTRACK_STANDIN_ALL"))
		return;
	for (i = 0; i < log->npages; i++)
		atomic_fetch_or(&log->words[i / 64], UINT64_C(1) << i % 64);
}

static int harvest(int fd, struct dirtytrack_harvest *arg)
{
	uint64_t *bitmap = (uint64_t *)(uintptr_t)arg->bitmap;
	uint64_t page, end = arg->first + arg->npages;
	struct log log;

	if (log_attach(fd, &log))
		return -1;
	log_begin(&log, arg->first, arg->npages);
	if (arg->npages > MAX_CALL)
		end = arg->first + MAX_CALL;
	arg->out_dirty = 0;
	arg->out_new = 0;
	for (page = arg->first; page < end; page++) {
		uint64_t bit = arg->bit + page - arg->first;

		if (!test_page(&log, page, true))
			continue;
		arg->out_dirty++;
		arg->out_new += !dtrack_bitmap_test(bitmap, bit);
		bitmap[bit / 64] |= UINT64_C(1) << bit % 64;
		atomic_signal_fence(memory_order_seq_cst);
		if (!(arg->flags & DIRTYTRACK_HARVEST_PEEK))
			test_page(&log, page, false);
	}
	arg->out_next = end;
	return 0;
}

static int harvest_extents(int fd, struct dirtytrack_harvest_extents *arg)
{
	struct dirtytrack_extent *ext =
		(struct dirtytrack_extent *)(uintptr_t)arg->extents;
	bool peek = arg->flags & DIRTYTRACK_HARVEST_PEEK, hole = false;
	uint64_t page, end = arg->first + arg->npages, same_end = 0;
	uint32_t nr = 0;
	struct log log;

	if (log_attach(fd, &log))
		return -1;
	log_begin(&log, arg->first, arg->npages);
	if (arg->npages > MAX_CALL)
		end = arg->first + MAX_CALL;
	arg->out_dirty = 0;
	for (page = arg->first; page < end; page++) {
		uint32_t state;

		if (!(atomic_load(&log.words[page / 64]) >> page % 64 & 1))
			continue;
		if (page >= same_end)
			same_end = same_state(log.slot, page, log.npages,
					      &hole);
		state = hole ? DIRTYTRACK_STATE_HOLE : DIRTYTRACK_STATE_DATA;
		if (!nr || ext[nr - 1].state != state ||
		    ext[nr - 1].first + ext[nr - 1].npages != page) {
			if (nr == arg->nr)
				break;
			ext[nr].first = page;
			ext[nr].npages = 0;
			ext[nr++].state = state;
		}
		test_page(&log, page, peek);
		ext[nr - 1].npages++;
		arg->out_dirty++;
	}
	arg->out_nr = nr;
	arg->out_next = page;
	return 0;
}

#define RELEASE_CALL 1000	/* pages of one release or populate */

/* Where a call about ranges is, and what is left of its pages. */
struct vector {
	const struct dirtytrack_range *ranges;
	uint32_t nr;
	uint64_t next;
	uint32_t at;
	unsigned int left;
};

/* The next page of the ranges; false when there is none, or none in this call. */
static bool vector_page(struct vector *v, uint64_t npages, uint64_t *page)
{
	const struct dirtytrack_range *r = &v->ranges[v->at];

	if (v->at == v->nr || !v->left || !r->npages || r->first >= npages ||
	    r->npages > npages - r->first)
		return false;
	v->left--;
	*page = v->next ? v->next : r->first;
	v->next = *page + 1;
	if (v->next == r->first + r->npages) {
		v->at++;
		v->next = 0;
	}
	return true;
}

static bool has_memory(int slot, uint64_t page)
{
	return __real_lseek64(slot, page * PAGE, SEEK_DATA) == (off_t)(page * PAGE);
}

/* Of what is clean in @log, if that is not NULL. */
static int release_pages(int slot, struct declared *d, struct log *log,
			 struct dirtytrack_release *arg)
{
	struct vector v = { (const void *)(uintptr_t)arg->ranges, arg->nr, 0, 0,
			    RELEASE_CALL };
	uint64_t page;

	arg->out_released = 0;
	arg->out_skipped = 0;
	arg->out_unmaps = 0;
	while (vector_page(&v, d->npages, &page)) {
		if (!has_memory(slot, page))
			continue;
		if (log && test_page(log, page, true)) {
			arg->out_skipped++;
			continue;
		}
		if (fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      page * PAGE, PAGE) < 0)
			abort();
		atomic_fetch_or(&d->words[page / 64], UINT64_C(1) << page % 64);
		arg->out_released++;
		arg->out_unmaps++;
	}
	arg->out_nr = v.at;
	arg->out_next = v.next;
	return v.at || v.next ? 0 : fail(EINVAL);
}

static int slot_release(int slot, struct dirtytrack_release *arg)
{
	struct declared declared;
	char path[PATH_MAX];
	struct stat st;
	int ret;

	if (!path_of(slot, path) || fstat(slot, &st) < 0)
		return fail(ENOTTY);
	declared_open(&declared, path, st.st_size / PAGE);
	ret = release_pages(slot, &declared, NULL, arg);
	declared_close(&declared);
	return ret;
}

static int log_release_clean(int fd, struct dirtytrack_release *arg)
{
	struct log log;

	if (log_attach(fd, &log))
		return -1;
	if (!log.may_release)
		return fail(EPERM);
	log_collect(&log, 0, log.npages);
	return release_pages(log.slot, log.declared, &log, arg);
}

static int slot_populate(int slot, struct dirtytrack_populate *arg)
{
	struct vector v = { (const void *)(uintptr_t)arg->ranges, arg->nr, 0, 0,
			    RELEASE_CALL };
	static const char zero[PAGE];
	struct stat st;
	uint64_t page;

	/* One node, as most machines have. */
	if (fstat(slot, &st) < 0 || arg->node > 0)
		return fail(EINVAL);
	arg->out_pages = 0;
	while (vector_page(&v, st.st_size / PAGE, &page)) {
		if (has_memory(slot, page))
			continue;
		if (pwrite(slot, zero, PAGE, page * PAGE) != (ssize_t)PAGE)
			abort();
		arg->out_pages++;
	}
	arg->out_nr = v.at;
	arg->out_next = v.next;
	return v.at || v.next ? 0 : fail(EINVAL);
}

static int log_limit(int fd, struct dirtytrack_limit *arg)
{
	char path[PATH_MAX];
	int file;

	if (!path_of(fd, path) || !strstr(path, ".dirty"))
		return fail(ENOTTY);
	strcpy(strstr(path, ".dirty"), ".limit");
	file = __real_open64(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || pwrite(file, &arg->rate, 8, 0) != 8)
		abort();
	close(file);
	limit = arg->rate;
	return 0;
}

/*
 * In $DIRTYTRACK_STANDIN_DELAY milliseconds: time for others to do something while the
 * command is at work.
 */
static void linger(void)
{
	const char *delay = getenv("DIRTYTRACK_STANDIN_DELAY");

	if (delay)
		usleep(atoi(delay) * 1000);
}

/* The number in a file; 0 if it has none; negative without the file. */
static int number_in(const char *path)
{
	FILE *f = fopen(path, "re");
	int number = -1;

	if (f) {
		if (fscanf(f, "%d", &number) != 1)
			number = 0;
		fclose(f);
	}
	return number;
}

/*
 * For a test to do something at a certain point, however long that takes: passes over
 * the memory (harvests from its first page on, and calls that release or populate) go on while there is no
 * file $DIRTYTRACK_STANDIN_HOLD, or while it has their number, of this process, or more.
 * One that has to wait says so by a file with its number for a suffix.
 */
static void hold(void)
{
	const char *path = getenv("DIRTYTRACK_STANDIN_HOLD");
	static _Atomic int passes;
	char said[PATH_MAX];
	int pass, allowed;

	if (!path)
		return;
	pass = ++passes;
	while ((allowed = number_in(path)) >= 0 && allowed < pass) {
		snprintf(said, sizeof(said), "%s.%d", path, pass);
		close(__real_open64(said, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		usleep(5000);
	}
}

/* Of a harvest; who only looks does not begin a pass. */
static void hold_harvest(uint64_t first, uint32_t flags)
{
	if (!first && !(flags & DIRTYTRACK_HARVEST_PEEK))
		hold();
}

int __wrap_kill(pid_t pid, int sig)
{
	const char *path = getenv("DIRTYTRACK_STANDIN_KILL");
	char said[PATH_MAX];

	while (sig == SIGKILL && path && !access(path, F_OK)) {
		snprintf(said, sizeof(said), "%s.held", path);
		close(__real_open64(said, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
		usleep(5000);
	}
	return __real_kill(pid, sig);
}

int __wrap_ioctl(int fd, unsigned long cmd, ...)
{
	void *arg;
	va_list ap;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	switch (cmd) {
	case DIRTYTRACK_SLOT_CREATE:
		return slot_create(arg);
	case DIRTYTRACK_SLOT_OPEN:
		return slot_open(arg);
	case DIRTYTRACK_SLOT_INFO:
		return slot_info(fd, arg);
	case DIRTYTRACK_LOG_CREATE:
		return log_create(fd, arg);
	case DIRTYTRACK_LOG_INFO:
		return log_info(fd, arg);
	case DIRTYTRACK_LOG_CLEAR_RANGES:
		return clear_ranges(fd, arg);
	case DIRTYTRACK_LOG_MERGE:
		return merge(fd, arg);
	case DIRTYTRACK_LOG_LIMIT:
		return log_limit(fd, arg);
	case DIRTYTRACK_SLOT_RELEASE:
		hold();
		return slot_release(fd, arg);
	case DIRTYTRACK_SLOT_POPULATE:
		hold();
		return slot_populate(fd, arg);
	case DIRTYTRACK_LOG_RELEASE_CLEAN:
		linger();
		hold();
		return log_release_clean(fd, arg);
	case DIRTYTRACK_LOG_HARVEST:
		hold_harvest(((struct dirtytrack_harvest *)arg)->first,
			     ((struct dirtytrack_harvest *)arg)->flags);
		return harvest(fd, arg);
	case DIRTYTRACK_LOG_HARVEST_EXTENTS:
		linger();
		hold_harvest(((struct dirtytrack_harvest_extents *)arg)->first,
			     ((struct dirtytrack_harvest_extents *)arg)->flags);
		return harvest_extents(fd, arg);
	}
	if (_IOC_TYPE(cmd) == DIRTYTRACK_TYPE)
		return fail(ENOTTY);
	return __real_ioctl(fd, cmd, arg);
}
