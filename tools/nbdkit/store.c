// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../dirtytrack/file-io.h"
#include "store.h"

#define STORE_MAGIC 0x45524f5453544b43	/* "CKTSTORE" */
#define LOCK_TICK_NS (10 * 1000 * 1000)

/* A slot, mapped. */
struct mapped {
	uint64_t npages;
	char *slot;
	char *staged;
	uint64_t *marked;	/* pages that are staged, in the journal */
};

/**
 * struct store - a store that this process has
 * @files: its files
 * @lock_fd: the journal, opened again, so that the lock goes with this process
 * @head: the journal
 * @journal_size: bytes of it
 * @lock: taken to read by what adds to the next epoch, to write by what begins one or
 *	commits it
 * @generation: of who may add to it
 */
struct store {
	struct store_files files;
	int lock_fd;
	struct store_head *head;
	size_t journal_size;
	pthread_rwlock_t lock;
	uint64_t generation;
	struct mapped slots[STORE_MAX_SLOTS];
};

/* ---- the files ---- */

static uint64_t round_up(uint64_t size)
{
	return (size + DTRACK_PAGE_SIZE - 1) & ~(DTRACK_PAGE_SIZE - 1);
}

static int size_of(int fd, uint64_t *npages)
{
	struct stat st;

	*npages = 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	*npages = st.st_size / DTRACK_PAGE_SIZE;
	return 0;
}

/* Where in the journal the bitmap of slot @nr is; of the one after the last: its end. */
static int journal_offset(const struct store_files *files, unsigned int nr,
			  size_t *offset)
{
	unsigned int i;

	*offset = round_up(sizeof(struct store_head));
	for (i = 0; i < nr; i++) {
		uint64_t npages;
		int ret = size_of(files->slots[i].slot, &npages);

		if (ret)
			return ret;
		*offset += round_up(dtrack_bitmap_words(npages) * sizeof(uint64_t));
	}
	return 0;
}

static int make_file(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, size))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

static void close_files(struct store_files *files)
{
	unsigned int i;

	for (i = 0; i < files->nr; i++)
		if (files->slots[i].staged >= 0)
			close(files->slots[i].staged);
	for (i = 0; i < 2; i++)
		if (files->state[i] >= 0)
			close(files->state[i]);
	if (files->journal >= 0)
		close(files->journal);
}

int store_create(struct store_files *files)
{
	struct store_head head = { .magic = STORE_MAGIC, .phase = STORE_REPLICA };
	unsigned int i;
	size_t size;
	int ret;

	files->journal = files->state[0] = files->state[1] = -1;
	for (i = 0; i < files->nr; i++)
		files->slots[i].staged = -1;
	ret = journal_offset(files, files->nr, &size);
	if (ret)
		return ret;
	for (i = 0; i < files->nr && ret >= 0; i++) {
		uint64_t npages;

		ret = size_of(files->slots[i].slot, &npages);
		if (!ret)
			ret = make_file("staged", npages * DTRACK_PAGE_SIZE);
		files->slots[i].staged = ret;
	}
	for (i = 0; i < 2 && ret >= 0; i++)
		ret = files->state[i] = make_file("state", STORE_MAX_STATE);
	if (ret >= 0)
		ret = files->journal = make_file("journal", size);
	if (ret >= 0 && pwrite(files->journal, &head, sizeof(head), 0) !=
	    sizeof(head))
		ret = -EIO;
	if (ret >= 0)
		return 0;
	close_files(files);
	return ret;
}

static int map_file(int fd, size_t size, char **addr)
{
	*addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*addr != MAP_FAILED)
		return 0;
	*addr = NULL;
	return -errno;
}

int store_map_head(int journal, struct store_head **head)
{
	char *addr;
	int ret = map_file(journal, sizeof(**head), &addr);

	if (ret)
		return ret;
	*head = (struct store_head *)addr;
	return (*head)->magic == STORE_MAGIC ? 0 : -EINVAL;
}

/*
 * By a description of this process alone: it is let go when this process is dead, not
 * before, and a server that was killed may take a moment to be.
 */
static int take_lock(struct store *s, double seconds)
{
	const struct timespec tick = { .tv_nsec = LOCK_TICK_NS };
	uint64_t ticks = seconds * 1e9 / LOCK_TICK_NS + 1;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->files.journal);
	s->lock_fd = open(path, O_RDWR | O_CLOEXEC);
	if (s->lock_fd < 0)
		return -errno;
	while (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (!ticks--)
			return -EBUSY;
		nanosleep(&tick, NULL);
	}
	return 0;
}

static int map_slot(struct store *s, unsigned int nr)
{
	struct mapped *m = &s->slots[nr];
	size_t offset;
	int ret;

	ret = size_of(s->files.slots[nr].slot, &m->npages);
	if (!ret)
		ret = journal_offset(&s->files, nr, &offset);
	if (!ret)
		ret = map_file(s->files.slots[nr].slot,
			       m->npages * DTRACK_PAGE_SIZE, &m->slot);
	if (!ret)
		ret = map_file(s->files.slots[nr].staged,
			       m->npages * DTRACK_PAGE_SIZE, &m->staged);
	if (!ret)
		m->marked = (uint64_t *)((char *)s->head + offset);
	return ret;
}

static int map_all(struct store *s)
{
	unsigned int i;
	char *addr;
	int ret;

	ret = journal_offset(&s->files, s->files.nr, &s->journal_size);
	if (!ret)
		ret = map_file(s->files.journal, s->journal_size, &addr);
	if (ret)
		return ret;
	s->head = (struct store_head *)addr;
	if (s->head->magic != STORE_MAGIC)
		return -EINVAL;
	for (i = 0; i < s->files.nr && !ret; i++)
		ret = map_slot(s, i);
	return ret;
}

/* ---- epochs ---- */

static uint64_t load(const uint64_t *field)
{
	return __atomic_load_n(field, __ATOMIC_ACQUIRE);
}

static void publish(uint64_t *field, uint64_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
}

/* Nothing of it is marked any more: its memory is free for the next epoch. */
static int drop_staged(struct store *s, unsigned int nr)
{
	return file_punch(s->files.slots[nr].staged, 0,
			  s->slots[nr].npages * DTRACK_PAGE_SIZE);
}

/* Forget what is staged.  First the marks, or a page that is gone would be one of zeros. */
static int discard(struct store *s)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < s->files.nr && !ret; i++) {
		memset(s->slots[i].marked, 0,
		       dtrack_bitmap_words(s->slots[i].npages) * sizeof(uint64_t));
		__atomic_thread_fence(__ATOMIC_RELEASE);
		ret = drop_staged(s, i);
	}
	return ret;
}

/*
 * From here on, dying does no harm: a mark goes when its page has been copied, and what was
 * staged stays as it is until all have.
 */
static int finish_commit(struct store *s)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < s->files.nr && !ret; i++) {
		struct dtrack_flush flush = {
			.from = s->slots[i].staged,
			.from_fd = s->files.slots[i].staged,
			.to = s->slots[i].slot,
			.to_fd = s->files.slots[i].slot,
			.npages = s->slots[i].npages,
			.bitmaps = { s->slots[i].marked },
			.flags = DTRACK_FLUSH_HOLES | DTRACK_FLUSH_PUNCH,
		};
		struct dtrack_flushed done;

		ret = dtrack_flush(&flush, &done);
	}
	for (i = 0; i < s->files.nr && !ret; i++)
		ret = drop_staged(s, i);
	if (!ret)
		publish(&s->head->committed, s->head->committing);
	return ret;
}

static int recover(struct store *s)
{
	if (load(&s->head->committing) != load(&s->head->committed))
		return finish_commit(s);
	return discard(s);
}

uint64_t store_attach(struct store *s)
{
	uint64_t generation = 0;

	pthread_rwlock_wrlock(&s->lock);
	if (!recover(s))
		generation = ++s->generation;
	pthread_rwlock_unlock(&s->lock);
	return generation;
}

int store_commit(struct store *s, uint64_t generation, uint64_t number,
		 const struct store_epoch *epoch)
{
	int ret = -ESTALE;

	pthread_rwlock_wrlock(&s->lock);
	if (generation == s->generation)
		ret = number == load(&s->head->committed) + 1 &&
		      number == load(&s->head->committing) + 1 ? 0 : -EILSEQ;
	if (!ret && epoch->state_size > STORE_MAX_STATE)
		ret = -EINVAL;
	if (!ret) {
		s->head->epochs[number % 2] = *epoch;
		publish(&s->head->committing, number);
		ret = finish_commit(s);
	}
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

/* ---- what is added to an epoch ---- */

static int begin_adding(struct store *s, uint64_t generation, uint64_t count,
			uint64_t offset, uint64_t size)
{
	if ((count | offset) % DTRACK_PAGE_SIZE || offset > size ||
	    count > size - offset)
		return -EINVAL;
	pthread_rwlock_rdlock(&s->lock);
	if (generation && generation == s->generation &&
	    load(&s->head->committing) == load(&s->head->committed))
		return 0;
	pthread_rwlock_unlock(&s->lock);
	return -ESTALE;
}

/* Where it goes: there is nothing to be kept before there is an epoch. */
static bool is_staged(const struct store *s)
{
	return s->head->committed;
}

/* The pages are in place: other threads may mark those of the same word. */
static void mark(struct store *s, unsigned int nr, uint64_t count, uint64_t offset)
{
	uint64_t page = offset / DTRACK_PAGE_SIZE;
	uint64_t end = page + count / DTRACK_PAGE_SIZE;

	while (page < end) {
		uint64_t bits = end - page < 64 - page % 64 ? end - page :
							    64 - page % 64;

		__atomic_fetch_or(&s->slots[nr].marked[page / 64],
				  ~UINT64_C(0) >> (64 - bits) << page % 64,
				  __ATOMIC_RELEASE);
		page += bits;
	}
}

int store_write(struct store *s, uint64_t generation, unsigned int nr,
		const void *buf, uint64_t count, uint64_t offset)
{
	const struct store_slot *files = &s->files.slots[nr];
	uint64_t size = s->slots[nr].npages * DTRACK_PAGE_SIZE;
	int ret = begin_adding(s, generation, count, offset, size);

	if (ret)
		return ret;
	ret = file_write(is_staged(s) ? files->staged : files->slot, buf, count,
			offset);
	if (!ret && is_staged(s))
		mark(s, nr, count, offset);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

int store_zero(struct store *s, uint64_t generation, unsigned int nr,
	       uint64_t count, uint64_t offset)
{
	const struct store_slot *files = &s->files.slots[nr];
	uint64_t size = s->slots[nr].npages * DTRACK_PAGE_SIZE;
	int ret = begin_adding(s, generation, count, offset, size);

	if (ret)
		return ret;
	if (count)
		ret = file_punch(is_staged(s) ? files->staged : files->slot, offset,
				 count);
	if (!ret && is_staged(s))
		mark(s, nr, count, offset);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

int store_write_state(struct store *s, uint64_t generation, const void *buf,
		      uint64_t count, uint64_t offset)
{
	uint64_t which;
	int ret;

	if (offset > STORE_MAX_STATE || count > STORE_MAX_STATE - offset)
		return -EINVAL;
	ret = begin_adding(s, generation, 0, 0, 0);
	if (ret)
		return ret;
	which = (s->head->committed + 1) % 2;
	ret = file_write(s->files.state[which], buf, count, offset);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

int store_read(struct store *s, unsigned int nr, void *buf, uint64_t count,
	       uint64_t offset)
{
	const struct store_slot *files = &s->files.slots[nr];
	uint64_t end = offset + count;
	char *to = buf;
	int ret = 0;

	pthread_rwlock_rdlock(&s->lock);
	while (offset < end && !ret) {
		uint64_t page = offset / DTRACK_PAGE_SIZE;
		uint64_t n = (page + 1) * DTRACK_PAGE_SIZE - offset;

		if (n > end - offset)
			n = end - offset;
		ret = file_read(dtrack_bitmap_test(s->slots[nr].marked, page) ?
			       files->staged : files->slot, to, n, offset);
		to += n;
		offset += n;
	}
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

/* ---- opening ---- */

int store_open(struct store **out, const struct store_files *files, double seconds)
{
	struct store *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return -ENOMEM;
	s->files = *files;
	pthread_rwlock_init(&s->lock, NULL);
	ret = take_lock(s, seconds);
	if (!ret)
		ret = map_all(s);
	if (!ret)
		ret = recover(s);
	if (ret)
		store_close(s);
	else
		*out = s;
	return ret;
}

void store_close(struct store *s)
{
	unsigned int i;

	if (!s)
		return;
	for (i = 0; i < s->files.nr; i++) {
		struct mapped *m = &s->slots[i];

		if (m->slot)
			munmap(m->slot, m->npages * DTRACK_PAGE_SIZE);
		if (m->staged)
			munmap(m->staged, m->npages * DTRACK_PAGE_SIZE);
	}
	if (s->head)
		munmap(s->head, s->journal_size);
	/* With it the lock. */
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	pthread_rwlock_destroy(&s->lock);
	free(s);
}

struct store_head *store_head(struct store *s)
{
	return s->head;
}

static int slot_checksum(int fd, uint64_t *sum)
{
	static const char zeroes[DTRACK_PAGE_SIZE];
	uint64_t npages, page;
	off_t data = 0;
	char *addr;
	int ret = size_of(fd, &npages);

	if (!ret)
		ret = map_file(fd, npages * DTRACK_PAGE_SIZE, &addr);
	if (ret)
		return ret;
	for (page = 0; page < npages; page++) {
		off_t pos = page * DTRACK_PAGE_SIZE;

		/* A hole is not touched: that would give it memory. */
		if (data <= pos) {
			data = lseek(fd, pos, SEEK_DATA);
			if (data < 0)
				data = npages * DTRACK_PAGE_SIZE;
		}
		*sum += dtrack_checksum(data > pos ? zeroes : addr + pos, page, 1);
	}
	munmap(addr, npages * DTRACK_PAGE_SIZE);
	return 0;
}

int store_checksum(const struct store_files *files, uint64_t *checksum)
{
	unsigned int i;
	int ret = 0;

	*checksum = 0;
	for (i = 0; i < files->nr && !ret; i++)
		ret = slot_checksum(files->slots[i].slot, checksum);
	return ret;
}
