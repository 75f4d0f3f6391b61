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

/* How often others are found to have written while they were to stand still. */
#define MAX_LOOKS 8

/* As large as a slot. */
struct area {
	int fd;
	char *addr;	/* NULL when there is none */
};

/* A slot, mapped; both bitmaps are in the journal. */
struct mapped {
	uint64_t npages;
	struct area slot;
	struct area staged;
	struct area cache;
	int log;
	uint64_t *marked;	/* pages that are staged */
	uint64_t *strayed;	/* pages that others wrote */
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

static uint64_t bitmap_size(uint64_t npages)
{
	return round_up(dtrack_bitmap_words(npages) * sizeof(uint64_t));
}

/* Where in the journal the bitmaps of slot @nr are; of the one after the last: its end. */
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
		*offset += 2 * bitmap_size(npages);
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

	for (i = 0; i < files->nr; i++) {
		if (files->slots[i].staged >= 0)
			close(files->slots[i].staged);
		if (files->slots[i].cache >= 0)
			close(files->slots[i].cache);
	}
	for (i = 0; i < 2; i++)
		if (files->state[i] >= 0)
			close(files->state[i]);
	if (files->journal >= 0)
		close(files->journal);
}

static int make_slot_files(struct store_slot *slot)
{
	uint64_t npages, size;
	int ret = size_of(slot->slot, &npages);

	size = npages * DTRACK_PAGE_SIZE;
	if (!ret)
		ret = slot->staged = make_file("staged", size);
	if (ret >= 0 && slot->log >= 0)
		ret = slot->cache = make_file("cache", size);
	return ret;
}

int store_create(struct store_files *files)
{
	struct store_head head = { .magic = STORE_MAGIC, .phase = STORE_REPLICA };
	unsigned int i;
	size_t size;
	int ret;

	files->journal = files->state[0] = files->state[1] = -1;
	for (i = 0; i < files->nr; i++)
		files->slots[i].staged = files->slots[i].cache = -1;
	ret = journal_offset(files, files->nr, &size);
	if (ret)
		return ret;
	for (i = 0; i < files->nr && ret >= 0; i++)
		ret = make_slot_files(&files->slots[i]);
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

static int map_area(struct area *area, int fd, const struct mapped *m)
{
	area->fd = fd;
	return map_file(fd, m->npages * DTRACK_PAGE_SIZE, &area->addr);
}

static int map_slot(struct store *s, unsigned int nr)
{
	const struct store_slot *files = &s->files.slots[nr];
	struct mapped *m = &s->slots[nr];
	size_t offset;
	int ret;

	m->log = files->log;
	ret = size_of(files->slot, &m->npages);
	if (!ret)
		ret = journal_offset(&s->files, nr, &offset);
	if (!ret)
		ret = map_area(&m->slot, files->slot, m);
	if (!ret)
		ret = map_area(&m->staged, files->staged, m);
	if (!ret && files->cache >= 0)
		ret = map_area(&m->cache, files->cache, m);
	if (ret)
		return ret;
	m->marked = (uint64_t *)((char *)s->head + offset);
	m->strayed = m->marked + bitmap_size(m->npages) / sizeof(uint64_t);
	return 0;
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

/* The pages of either bitmap, or of one that is not NULL. */
static int flush(const struct mapped *m, const struct area *from, const struct area *to,
		 uint64_t *a, uint64_t *b, uint32_t flags, struct dtrack_flushed *done)
{
	const struct dtrack_flush arg = {
		.from = from->addr,
		.from_fd = from->fd,
		.to = to->addr,
		.to_fd = to->fd,
		.npages = m->npages,
		.bitmaps = { a, b },
		.flags = DTRACK_FLUSH_HOLES | DTRACK_FLUSH_PUNCH | flags,
	};

	return dtrack_flush(&arg, done);
}

/* ---- what others write ---- */

static bool has_caches(const struct store *s)
{
	return s->files.nr && s->slots[0].cache.addr;
}

/*
 * Straight into the journal: what is not in a log any more is there, also when this process
 * is killed in the middle of it, for the module puts back what it could not deliver.
 */
static int take_strays(struct store *s)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < s->files.nr && !ret; i++) {
		struct mapped *m = &s->slots[i];
		struct dtrack_harvested done;

		ret = dtrack_harvest(m->log, 0, m->npages, m->strayed, 0, &done);
	}
	return ret;
}

/*
 * What was restored is in the logs, too, and beside it may be what others wrote meanwhile.
 * So all that is in them is compared: if none of it differs, the slots were the epoch when
 * they were looked at, as every page was written before that look or is in the logs again.
 */
static int look_again(struct store *s)
{
	unsigned int look, i;
	uint64_t differed;
	int ret = 0;

	for (look = 0; look < MAX_LOOKS; look++) {
		differed = 0;
		ret = take_strays(s);
		for (i = 0; i < s->files.nr && !ret; i++) {
			struct mapped *m = &s->slots[i];
			struct dtrack_flushed done;

			ret = flush(m, &m->cache, &m->slot, m->strayed, NULL,
				    DTRACK_FLUSH_SKIP_EQUAL, &done);
			differed += done.copied + done.zeroed;
		}
		s->head->undone += differed;
		s->head->late += differed;
		if (ret || !differed)
			return ret;
	}
	return -EBUSY;
}

/* Make the slots what the caches are, in what others wrote and, of a commit, in what is new. */
static int restore(struct store *s, bool is_commit)
{
	/* Of the first epoch that is all, and most of it may be holes in both. */
	uint32_t flags = s->head->committed ? 0 : DTRACK_FLUSH_SKIP_EQUAL;
	unsigned int i;
	int ret = take_strays(s);

	for (i = 0; i < s->files.nr && !ret; i++) {
		struct mapped *m = &s->slots[i];
		struct dtrack_flushed done;

		s->head->undone += dtrack_bitmap_count(m->strayed, 0, m->npages);
		ret = flush(m, &m->cache, &m->slot, is_commit ? m->marked : NULL,
			    m->strayed, flags, &done);
	}
	return ret ? ret : look_again(s);
}

/* ---- commits ---- */

/*
 * The marks stay: until their pages are in the slot, all of this is done again if it ends
 * here.  What was sent before the first epoch is in the cache already.
 */
static int stage_to_cache(struct store *s, unsigned int nr)
{
	struct mapped *m = &s->slots[nr];
	struct dtrack_flushed done;
	uint64_t *marked;
	int ret;

	if (!s->head->committed)
		return 0;
	marked = dtrack_bitmap_alloc(m->npages);
	if (!marked)
		return -ENOMEM;
	memcpy(marked, m->marked, dtrack_bitmap_words(m->npages) * sizeof(*marked));
	ret = flush(m, &m->staged, &m->cache, marked, NULL, 0, &done);
	free(marked);
	return ret;
}

static int commit_by_cache(struct store *s)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < s->files.nr && !ret; i++)
		ret = stage_to_cache(s, i);
	return ret ? ret : restore(s, true);
}

static int commit_at_once(struct store *s)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < s->files.nr && !ret; i++) {
		struct mapped *m = &s->slots[i];
		struct dtrack_flushed done;

		ret = flush(m, &m->staged, &m->slot, m->marked, NULL, 0, &done);
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
	int ret = has_caches(s) ? commit_by_cache(s) : commit_at_once(s);

	for (i = 0; i < s->files.nr && !ret; i++)
		ret = drop_staged(s, i);
	if (!ret)
		publish(&s->head->committed, s->head->committing);
	return ret;
}

/* The first epoch is all that is in the caches, as nothing of it was marked. */
static void mark_first(struct store *s)
{
	unsigned int i;

	if (!has_caches(s) || s->head->committed)
		return;
	for (i = 0; i < s->files.nr; i++)
		dtrack_bitmap_set(s->slots[i].marked, 0, s->slots[i].npages);
}

static bool is_settled(const struct store *s)
{
	return load(&s->head->committing) == load(&s->head->committed);
}

int store_settle(struct store *s)
{
	int ret = 0;

	pthread_rwlock_wrlock(&s->lock);
	if (!is_settled(s))
		ret = finish_commit(s);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

int store_undo(struct store *s)
{
	int ret = 0;

	pthread_rwlock_wrlock(&s->lock);
	if (!is_settled(s))
		ret = finish_commit(s);
	else if (has_caches(s) && s->head->committed)
		ret = restore(s, false);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

uint64_t store_attach(struct store *s)
{
	uint64_t generation = 0;

	pthread_rwlock_wrlock(&s->lock);
	if (is_settled(s) && !discard(s))
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
		mark_first(s);
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
	if (generation && generation == s->generation && is_settled(s))
		return 0;
	pthread_rwlock_unlock(&s->lock);
	return -ESTALE;
}

/* There is nothing to be kept before there is an epoch. */
static bool is_staged(const struct store *s)
{
	return s->head->committed;
}

/* The file that it goes to. */
static int destination(const struct store *s, unsigned int nr)
{
	const struct store_slot *files = &s->files.slots[nr];

	return is_staged(s) ? files->staged : store_kept(files);
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
	uint64_t size = s->slots[nr].npages * DTRACK_PAGE_SIZE;
	int ret = begin_adding(s, generation, count, offset, size);

	if (ret)
		return ret;
	ret = file_write(destination(s, nr), buf, count, offset);
	if (!ret && is_staged(s))
		mark(s, nr, count, offset);
	pthread_rwlock_unlock(&s->lock);
	return ret;
}

int store_zero(struct store *s, uint64_t generation, unsigned int nr,
	       uint64_t count, uint64_t offset)
{
	uint64_t size = s->slots[nr].npages * DTRACK_PAGE_SIZE;
	int ret = begin_adding(s, generation, count, offset, size);

	if (ret)
		return ret;
	if (count)
		ret = file_punch(destination(s, nr), offset, count);
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
			       files->staged : store_kept(files), to, n, offset);
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
		ret = is_settled(s) ? discard(s) : finish_commit(s);
	/* A commit that others do not let end stays begun. */
	if (ret == -EBUSY && s->head)
		ret = 0;
	if (ret)
		store_close(s);
	else
		*out = s;
	return ret;
}

static void unmap_area(const struct area *area, const struct mapped *m)
{
	if (area->addr)
		munmap(area->addr, m->npages * DTRACK_PAGE_SIZE);
}

void store_close(struct store *s)
{
	unsigned int i;

	if (!s)
		return;
	for (i = 0; i < s->files.nr; i++) {
		unmap_area(&s->slots[i].slot, &s->slots[i]);
		unmap_area(&s->slots[i].staged, &s->slots[i]);
		unmap_area(&s->slots[i].cache, &s->slots[i]);
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
