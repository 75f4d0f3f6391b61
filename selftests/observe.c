// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an administrator sees: tracepoints, fdinfo, debugfs.
 *
 * Every number is compared with what was done to make it so, and the three with each
 * other.
 */
#include <pthread.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/uio.h>

#include "figures.h"
#include "module.h"
#include "processes.h"

#define NPAGES 200
#define SIZE (NPAGES * PAGE_SIZE)
#define PEEK DIRTYTRACK_HARVEST_PEEK

#define TRACING "/sys/kernel/tracing"
#define INSTANCE TRACING "/instances/dirtytrack-observe"

#define ALICE 12345

/* ---- files ---- */

static void put_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		dt_broken("%s: %s", path, strerror(errno));
	close(fd);
}

static __u32 id_of(int slot)
{
	struct dirtytrack_slot_info info;

	if (_test_slot_info(slot, &info))
		dt_broken("SLOT_INFO: %s", strerror(errno));
	return info.out_id;
}

static __u64 harvest(int log)
{
	__u64 bits[bitmap_words(NPAGES)], dirty;

	memset(bits, 0, sizeof(bits));
	if (_test_harvest_all(log, 0, 0, NPAGES, bits, 0, &dirty))
		dt_broken("HARVEST: %s", strerror(errno));
	return dirty;
}

/* ---- tracepoints ---- */

FIXTURE(trace)
{
	int dev;
	char *text;		/* what was read last */
};

FIXTURE_SETUP(trace)
{
	self->dev = -1;
	if (access(TRACING "/events/dirtytrack", F_OK))
		SKIP(return, "this kernel has no trace events (or tracefs is not mounted)");
	rmdir(INSTANCE);
	ASSERT_EQ(0, mkdir(INSTANCE, 0700));
	put_text(INSTANCE "/events/dirtytrack/enable", "1");
	self->dev = test_device();
}

FIXTURE_TEARDOWN(trace)
{
	if (self->dev < 0)
		return;
	free(self->text);
	close(self->dev);
	EXPECT_EQ(0, rmdir(INSTANCE));
}

/* Reads what was traced since the last time. */
#define look(self) do {							\
	free((self)->text);						\
	(self)->text = slurp(INSTANCE "/trace");			\
	ASSERT_NE(NULL, (self)->text);					\
	put_text(INSTANCE "/trace", "");				\
} while (0)

/* The text of the next event of a name, after @from; to be freed; NULL at the end. */
static char *event(const char **from, const char *name)
{
	char tag[64];
	const char *at;

	snprintf(tag, sizeof(tag), ": dirtytrack_%s: ", name);
	at = strstr(*from, tag);
	if (!at)
		return NULL;
	at += strlen(tag);
	*from = at + strcspn(at, "\n");
	return strndup(at, *from - at);
}

static unsigned int events(const char *text, const char *name)
{
	unsigned int n = 0;
	char *e;

	for (; (e = event(&text, name)); n++)
		free(e);
	return n;
}

/* The value of key= in the text of an event. */
static __u64 value_in(const char *text, const char *key)
{
	char tag[32];
	const char *at;

	snprintf(tag, sizeof(tag), "%s=", key);
	for (at = text; (at = strstr(at, tag)); at++)
		if (at == text || at[-1] == ' ')
			return strtoull(at + strlen(tag), NULL, 0);
	dt_broken("an event has no %s: %s", key, text);
}

/* Exactly these events of a name were traced, in this order; NULL ends them. */
static bool events_are(const char *text, const char *name, ...)
{
	bool same = true;
	const char *want;
	va_list ap;
	char *got;

	va_start(ap, name);
	do {
		want = va_arg(ap, const char *);
		got = event(&text, name);
		if (!want != !got || (want && strcmp(want, got))) {
			fprintf(stderr, "# %s: wanted \"%s\", got \"%s\"\n", name,
				want ?: "(no more)", got ?: "(no more)");
			same = false;
		}
		free(got);
	} while (want && same);
	va_end(ap);
	return same;
}

/* As printf(), in one of a few buffers. */
static const char *text_of(const char *format, ...)
{
	static char buffers[8][256];
	static int n;
	va_list ap;

	n = (n + 1) % 8;
	va_start(ap, format);
	vsnprintf(buffers[n], sizeof(buffers[n]), format, ap);
	va_end(ap);
	return buffers[n];
}

TEST_F(trace, slot)
{
	__u32 a, b;
	int slot = test_slot_create(self->dev, "seen at last", SIZE, &a);
	int other = test_slot_create(self->dev, NULL, PAGE_SIZE, &b);

	/* What fails has made nothing. */
	test_err_slot_create(EEXIST, self->dev, "seen at last", SIZE);
	close(test_slot_open(self->dev, a));
	look(self);
	EXPECT_TRUE(events_are(self->text, "slot_create",
			       text_of("slot=%u npages=%d name=seen at last", a, NPAGES),
			       text_of("slot=%u npages=1 name=", b), NULL));
	EXPECT_EQ(0, events(self->text, "slot_destroy"));
	close(other);
	close(slot);
	EXPECT_TRUE(eventually(test_slot_count(self->dev) == 0));
	look(self);
	EXPECT_TRUE(events_are(self->text, "slot_destroy", text_of("slot=%u", b),
			       text_of("slot=%u", a), NULL));
	EXPECT_EQ(0, events(self->text, "slot_create"));
}

/* Numbers of logs are not used again, so an event says which is meant. */
TEST_F(trace, log)
{
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, SIZE, &id), a, b, c;

	a = test_log_create(slot, 0);
	b = test_log_create(slot, DIRTYTRACK_LOG_ALL_SET);
	EXPECT_EQ(1, fdinfo(a, "log_id"));
	EXPECT_EQ(2, fdinfo(b, "log_id"));
	close(a);
	close(b);
	c = test_log_create(slot, 0);
	EXPECT_EQ(3, fdinfo(c, "log_id"));
	close(c);
	look(self);
	EXPECT_TRUE(events_are(self->text, "log_create",
			       text_of("slot=%u log=1 all_set=0", id),
			       text_of("slot=%u log=2 all_set=1", id),
			       text_of("slot=%u log=3 all_set=0", id), NULL));
	EXPECT_TRUE(events_are(self->text, "log_destroy",
			       text_of("slot=%u log=1", id),
			       text_of("slot=%u log=2", id),
			       text_of("slot=%u log=3", id), NULL));
	close(slot);
}

TEST_F(trace, grant)
{
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, SIZE, &id);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, NPAGES);
	__u64 before;

	/* Far apart, not to be granted with each other; the second by two faults. */
	page_write(map, 5, 1);
	page_read(map, 199);
	page_write(map, 199, 1);
	look(self);
	EXPECT_TRUE(events_are(self->text, "grant",
			       text_of("slot=%u page=5 address=%#lx npages=1", id,
				       page_at(map, 5)),
			       text_of("slot=%u page=199 address=%#lx npages=1", id,
				       page_at(map, 199)), NULL));
	/* Writable it is, until it is harvested. */
	page_write(map, 5, 2);
	look(self);
	EXPECT_EQ(0, events(self->text, "grant"));
	EXPECT_EQ(2, harvest(log));
	before = fdinfo(slot, "slot_grants");
	page_write(map, 5, 3);
	look(self);
	EXPECT_TRUE(events_are(self->text, "grant",
			       text_of("slot=%u page=5 address=%#lx npages=1", id,
				       page_at(map, 5)),
			       NULL));
	EXPECT_EQ(before + 1, fdinfo(slot, "slot_grants"));
	test_unmap(map, NPAGES);
	close(log);
	close(slot);
}

TEST_F(trace, harvest)
{
	__u64 bits[bitmap_words(NPAGES)], first, end;
	struct dirtytrack_extent extents[4];
	struct dirtytrack_harvest_extents as_extents;
	const char *at;
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, SIZE, &id);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, NPAGES), *e;

	memset(bits, 0, sizeof(bits));
	page_write(map, 10, 1);
	page_write(map, 12, 1);
	page_write(map, 150, 1);
	look(self);

	/* A peek of some, a harvest of some, the rest as extents, one that fails. */
	EXPECT_EQ(2, test_harvest_all(log, PEEK, 9, 100, bits, 0));
	EXPECT_EQ(1, test_harvest_all(log, 0, 11, 100, bits, 0));
	test_extents(log, 0, 0, NPAGES, extents, 1, &as_extents);
	EXPECT_EQ(150, as_extents.out_next);
	test_err_harvest(EFAULT, log, 0, 150, 50, (void *)8, 0);
	look(self);
	at = self->text;
	static const char *const want[] = {
		"first=9 npages=100 next=109 dirty=2 peek=1 err=0 nsecs=",
		"first=11 npages=100 next=111 dirty=1 peek=0 err=0 nsecs=",
		"first=0 npages=200 next=150 dirty=1 peek=0 err=0 nsecs=",
		"first=150 npages=50 next=150 dirty=0 peek=0 err=-14 nsecs=",
	};
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		const char *text = text_of("slot=%u log=1 %s", id, want[i]);

		e = event(&at, "harvest");
		ASSERT_NE(NULL, e);
		EXPECT_EQ(0, strncmp(e, text, strlen(text))) {
			TH_LOG("%s", e);
		}
		EXPECT_LT(0, value_in(e, "nsecs"));
		EXPECT_GT(TEST_SECONDS * 1000000000ULL, value_in(e, "nsecs"));
		free(e);
	}
	EXPECT_EQ(NULL, event(&at, "harvest"));

	/* Each page that was collected is in a run that was protected, and settled. */
	at = self->text;
	first = NPAGES;
	end = 0;
	while ((e = event(&at, "protect"))) {
		EXPECT_EQ(id, value_in(e, "slot"));
		EXPECT_EQ(1, value_in(e, "settled"));
		EXPECT_LT(0, value_in(e, "npages"));
		if (value_in(e, "first") < first)
			first = value_in(e, "first");
		if (value_in(e, "first") + value_in(e, "npages") > end)
			end = value_in(e, "first") + value_in(e, "npages");
		free(e);
	}
	EXPECT_GE(10, first);
	EXPECT_LE(151, end);
	EXPECT_GE(NPAGES, end);
	EXPECT_EQ(events(self->text, "protect"), fdinfo(slot, "slot_protects"));
	test_unmap(map, NPAGES);
	close(log);
	close(slot);
}

TEST_F(trace, clear_and_merge)
{
	const struct dirtytrack_range ranges[] = {
		{ .first = 3, .npages = 4 }, { .first = 8190, .npages = 4 },
	};
	const __u64 npages = 10000;
	struct dirtytrack_ranges arg;
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, npages * PAGE_SIZE, &id);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, npages);

	ASSERT_EQ(0, _test_ranges(log, DIRTYTRACK_LOG_MERGE_RANGES, ranges, 2, &arg));
	page_write(map, 6, 1);
	page_write(map, 7, 1);
	look(self);
	EXPECT_TRUE(events_are(self->text, "merge",
			       text_of("slot=%u log=1 first=0 pages=4", id),
			       text_of("slot=%u log=1 first=4096 pages=2", id),
			       text_of("slot=%u log=1 first=8192 pages=2", id), NULL));
	EXPECT_EQ(0, events(self->text, "clear"));
	/* What was written is cleared with the rest; the page next to it stays. */
	ASSERT_EQ(0, _test_ranges(log, DIRTYTRACK_LOG_CLEAR_RANGES, ranges, 2, &arg));
	look(self);
	EXPECT_TRUE(events_are(self->text, "clear",
			       text_of("slot=%u log=1 first=0 pages=4", id),
			       text_of("slot=%u log=1 first=4096 pages=2", id),
			       text_of("slot=%u log=1 first=8192 pages=2", id), NULL));
	EXPECT_EQ(0, events(self->text, "merge"));
	test_unmap(map, npages);
	close(log);
	close(slot);
}

TEST_F(trace, release)
{
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, SIZE, &id);

	ASSERT_EQ(0, fallocate(slot, 0, 10 * PAGE_SIZE, 3 * PAGE_SIZE));
	ASSERT_EQ(0, fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       12 * PAGE_SIZE, 100 * PAGE_SIZE));
	/* Nothing is left there: nothing happens. */
	ASSERT_EQ(0, fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       12 * PAGE_SIZE, 100 * PAGE_SIZE));
	ASSERT_EQ(0, fallocate(slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SIZE));
	look(self);
	EXPECT_TRUE(events_are(self->text, "release",
			       text_of("slot=%u first=12 npages=100 pages=1", id),
			       text_of("slot=%u first=0 npages=200 pages=2", id), NULL));
	close(slot);
}

/* By ranges: one event for what is done at once, which is up to 2 MiB. */
TEST_F(trace, release_ranges)
{
	struct dirtytrack_range ranges[] = { { 30, 10 }, { 10, 5 }, { 505, 20 } };
	struct dirtytrack_release arg;
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, 1024 * PAGE_SIZE, &id);
	int log = test_log_create(slot, DIRTYTRACK_LOG_MAY_RELEASE);

	ASSERT_EQ(0, fallocate(slot, 0, 0, 1024 * PAGE_SIZE));
	ASSERT_EQ(0, _test_release(slot, DIRTYTRACK_SLOT_RELEASE, ranges, 3, &arg));
	look(self);
	EXPECT_TRUE(events_are(self->text, "release",
			       text_of("slot=%u first=10 npages=502 pages=22", id),
			       text_of("slot=%u first=512 npages=13 pages=13", id), NULL));
	/* Nothing of it is clean: nothing happens. */
	ASSERT_EQ(1, pwrite(slot, "x", 1, 600 * PAGE_SIZE));
	ranges[0] = (struct dirtytrack_range){ 600, 1 };
	ASSERT_EQ(0, _test_release(log, DIRTYTRACK_LOG_RELEASE_CLEAN, ranges, 1, &arg));
	look(self);
	EXPECT_EQ(0, events(self->text, "release"));
	close(log);
	close(slot);
}

TEST_F(trace, ring_overflow)
{
	struct dirtytrack_log_create create = { .size = sizeof(create), .ring_entries = 64 };
	struct dirtytrack_log_info info;
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, SIZE, &id);
	char *map = test_map(slot, 0, NPAGES);
	int plain = test_log_create(slot, 0);

	ASSERT_EQ(0, dt_ioctl(slot, DIRTYTRACK_LOG_CREATE, &create));
	for (int i = 0; i < 64; i++)
		page_write(map, i, 1);
	look(self);
	EXPECT_EQ(0, events(self->text, "ring_overflow"));
	EXPECT_EQ(0, fdinfo(slot, "slot_overflows"));
	page_write(map, 70, 1);
	page_write(map, 80, 1);
	look(self);
	EXPECT_TRUE(events_are(self->text, "ring_overflow",
			       text_of("slot=%u log=2 page=70", id),
			       text_of("slot=%u log=2 page=80", id), NULL));
	test_log_info(create.out_fd, &info);
	EXPECT_EQ(2, info.out_overflows);
	EXPECT_EQ(2, fdinfo(create.out_fd, "log_overflows"));
	EXPECT_EQ(0, fdinfo(plain, "log_overflows"));
	EXPECT_EQ(2, fdinfo(slot, "slot_overflows"));
	test_unmap(map, NPAGES);
	close(create.out_fd);
	close(plain);
	close(slot);
}

TEST_F(trace, throttle)
{
	struct dirtytrack_limit limit = { .size = sizeof(limit), .rate = 20 };
	__u64 nsecs = 0, nr = 0;
	const char *at;
	__u32 id;
	int slot = test_slot_create(self->dev, NULL, SIZE, &id);
	int log = test_log_create(slot, 0);
	char *map = test_map(slot, 0, NPAGES), *e;

	ASSERT_EQ(0, dt_ioctl(log, DIRTYTRACK_LOG_LIMIT, &limit));
	EXPECT_EQ(20, fdinfo(slot, "slot_rate"));
	EXPECT_EQ(20, fdinfo(log, "log_rate"));
	/*
	 * Two turns may have been saved up, and more whenever this did not run: the others
	 * are waited for.
	 */
	for (int i = 0; i < NPAGES && fdinfo(slot, "slot_throttles") < 6; i++)
		if (i % 3 < 2)
			page_write(map, i, 1);
		else
			ASSERT_EQ(1, pwrite(slot, "x", 1, i * PAGE_SIZE));
	look(self);
	for (at = self->text; (e = event(&at, "throttle")); nr++) {
		EXPECT_EQ(id, value_in(e, "slot"));
		EXPECT_GT(NPAGES, value_in(e, "page"));
		EXPECT_LT(0, value_in(e, "nsecs"));
		nsecs += value_in(e, "nsecs");
		free(e);
	}
	EXPECT_LE(6, nr);
	EXPECT_EQ(nr, fdinfo(slot, "slot_throttles"));
	EXPECT_EQ(nsecs, fdinfo(slot, "slot_throttled_ns"));
	test_unmap(map, NPAGES);
	close(log);
	EXPECT_EQ(0, fdinfo(slot, "slot_rate"));
	close(slot);
}

/* ---- fdinfo ---- */

FIXTURE(fdinfo)
{
	int dev, slot, log;
	char *map;
};

FIXTURE_SETUP(fdinfo)
{
	self->dev = test_device();
	self->slot = test_slot_create(self->dev, NULL, SIZE, NULL);
	self->log = test_log_create(self->slot, 0);
	self->map = test_map(self->slot, 0, NPAGES);
}

FIXTURE_TEARDOWN(fdinfo)
{
	test_unmap(self->map, NPAGES);
	close(self->log);
	close(self->slot);
	close(self->dev);
}

TEST_F(fdinfo, identity)
{
	int second = test_log_create(self->slot, 0);

	EXPECT_EQ(id_of(self->slot), fdinfo(self->slot, "slot_id"));
	EXPECT_EQ(NPAGES, fdinfo(self->slot, "slot_pages"));
	EXPECT_EQ(2, fdinfo(self->slot, "slot_logs"));
	EXPECT_EQ(id_of(self->slot), fdinfo(second, "slot_id"));
	EXPECT_EQ(2, fdinfo(second, "log_id"));
	EXPECT_EQ(NPAGES, fdinfo(second, "log_pages"));
	close(second);
	EXPECT_EQ(1, fdinfo(self->slot, "slot_logs"));
}

TEST_F(fdinfo, resident_and_open)
{
	page_write(self->map, 1, 1);
	page_write(self->map, 60, 1);
	page_write(self->map, 199, 1);
	page_read(self->map, 100);
	EXPECT_EQ(4, fdinfo(self->slot, "slot_resident"));
	EXPECT_EQ(3, fdinfo(self->slot, "slot_open"));
	EXPECT_EQ(3, fdinfo(self->slot, "slot_grants"));
	EXPECT_LE(4, fdinfo(self->slot, "slot_faults"));
	EXPECT_EQ(0, fdinfo(self->slot, "slot_collected"));
	EXPECT_EQ(0, fdinfo(self->slot, "slot_protects"));

	EXPECT_EQ(3, harvest(self->log));
	EXPECT_EQ(4, fdinfo(self->slot, "slot_resident"));
	EXPECT_EQ(0, fdinfo(self->slot, "slot_open"));
	EXPECT_LE(3, fdinfo(self->slot, "slot_collected"));
	EXPECT_LE(1, fdinfo(self->slot, "slot_protects"));

	ASSERT_EQ(0, fallocate(self->slot, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       PAGE_SIZE, PAGE_SIZE));
	EXPECT_EQ(3, fdinfo(self->slot, "slot_resident"));
	EXPECT_EQ(1, fdinfo(self->slot, "slot_open"));
}

/* The estimate of a log: what is in it, and what may come with the next collect. */
TEST_F(fdinfo, dirty_and_pending)
{
	__u64 bits[bitmap_words(NPAGES)];
	int other = test_log_create(self->slot, 0);

	page_write(self->map, 1, 1);
	page_write(self->map, 2, 1);
	EXPECT_EQ(0, fdinfo(self->log, "log_dirty"));
	EXPECT_EQ(2, fdinfo(self->log, "log_pending"));
	test_harvest_all(self->log, PEEK, 0, NPAGES, bits, 0);
	EXPECT_EQ(2, fdinfo(self->log, "log_dirty"));
	EXPECT_EQ(0, fdinfo(self->log, "log_pending"));
	/* Again, and another: only that one is new. */
	page_write(self->map, 2, 2);
	page_write(self->map, 180, 2);
	EXPECT_EQ(2, fdinfo(self->slot, "slot_open"));
	EXPECT_EQ(2, fdinfo(self->log, "log_dirty"));
	EXPECT_EQ(1, fdinfo(self->log, "log_pending"));
	EXPECT_EQ(0, fdinfo(self->log, "log_harvests"));
	EXPECT_EQ(0, fdinfo(self->slot, "slot_harvests"));

	EXPECT_EQ(3, harvest(other));
	EXPECT_EQ(3, fdinfo(self->log, "log_dirty"));
	EXPECT_EQ(0, fdinfo(self->log, "log_pending"));
	EXPECT_EQ(0, fdinfo(other, "log_dirty"));
	EXPECT_EQ(1, fdinfo(other, "log_harvests"));
	EXPECT_EQ(3, fdinfo(other, "log_reported"));
	EXPECT_EQ(0, fdinfo(self->log, "log_harvests"));
	EXPECT_EQ(3, harvest(self->log));
	EXPECT_EQ(0, harvest(self->log));
	EXPECT_EQ(2, fdinfo(self->log, "log_harvests"));
	EXPECT_EQ(3, fdinfo(self->log, "log_reported"));
	EXPECT_EQ(3, fdinfo(self->slot, "slot_harvests"));
	/* They stay counted when the log is gone. */
	close(other);
	EXPECT_EQ(3, fdinfo(self->slot, "slot_harvests"));
}

/*
 * A page that someone holds is reported each time, and once more when he has let go.  That
 * is counted ahead: all but the first are in vain, unless it is written again.
 */
TEST_F(fdinfo, overreports)
{
	int other = test_log_create(self->slot, 0), ends[2];
	struct iovec iov = { page_at(self->map, 3), PAGE_SIZE };
	char page[PAGE_SIZE];

	ASSERT_EQ(0, pipe(ends));
	EXPECT_EQ(0, harvest(self->log));
	page_write(self->map, 3, 1);
	ASSERT_EQ(PAGE_SIZE, vmsplice(ends[1], &iov, 1, 0));
	EXPECT_EQ(0, fdinfo(self->slot, "slot_overreports"));
	EXPECT_EQ(1, harvest(self->log));
	EXPECT_EQ(1, fdinfo(self->slot, "slot_overreports"));
	EXPECT_EQ(1, fdinfo(self->log, "log_overreports"));
	EXPECT_EQ(1, harvest(self->log));
	EXPECT_EQ(1, harvest(self->log));
	EXPECT_EQ(3, fdinfo(self->slot, "slot_overreports"));
	EXPECT_EQ(3, fdinfo(self->log, "log_overreports"));
	/* It is in the other log for its write, all the time. */
	EXPECT_EQ(1, fdinfo(other, "log_overreports"));
	EXPECT_EQ(1, fdinfo(self->slot, "slot_open"));

	ASSERT_EQ(PAGE_SIZE, read(ends[0], page, PAGE_SIZE));
	EXPECT_EQ(1, harvest(self->log));
	EXPECT_EQ(0, harvest(self->log));
	EXPECT_EQ(3, fdinfo(self->slot, "slot_overreports"));
	EXPECT_EQ(3, fdinfo(self->log, "log_overreports"));
	EXPECT_EQ(0, fdinfo(self->slot, "slot_open"));
	close(ends[0]);
	close(ends[1]);
	close(other);
}

/* ---- debugfs ---- */

static const char *const debug_files[] = {
	DEBUGFS "/dirtytrack/summary", DEBUGFS "/dirtytrack/slots", DEBUGFS "/dirtytrack/logs",
};

FIXTURE(debugfs)
{
	int dev;
};

FIXTURE_SETUP(debugfs)
{
	self->dev = -1;
	if (access(DEBUGFS "/dirtytrack", F_OK))
		SKIP(return, "this kernel has no debugfs (or it is not mounted)");
	self->dev = test_device();
	ASSERT_TRUE(eventually(test_slot_count(self->dev) == 0));
}

FIXTURE_TEARDOWN(debugfs)
{
	close(self->dev);
}

/* Also where an administrator has opened debugfs itself to everyone. */
TEST_F(debugfs, for_root)
{
	struct stat st, before;

	ASSERT_EQ(0, stat(DEBUGFS, &before));
	ASSERT_EQ(0, chmod(DEBUGFS, 0755));
	for (size_t i = 0; i < ARRAY_SIZE(debug_files); i++) {
		EXPECT_EQ(0, stat(debug_files[i], &st));
		EXPECT_EQ(S_IFREG | 0400, st.st_mode);
		EXPECT_EQ(0, st.st_uid);
		as_user(ALICE, EXPECT_ERRNO(EACCES, open(debug_files[i], O_RDONLY)));
	}
	ASSERT_EQ(0, chmod(DEBUGFS, before.st_mode & 07777));
}

/* The cell of a table in the row that begins with these numbers. */
static bool cell(const char *table, const char *column, __u64 slot, __u64 log, __u64 *value)
{
	char *text = strdup(table), *line, *lines = NULL, *word, *words;
	int wanted = -1, nkeys = log ? 2 : 1, rows = 0;

	line = strtok_r(text, "\n", &lines);
	words = NULL;
	word = strtok_r(line, " ", &words);
	for (int i = 0; word; i++, word = strtok_r(NULL, " ", &words))
		if (!strcmp(word, column))
			wanted = i;
	if (wanted < 0)
		dt_broken("no column %s", column);
	while ((line = strtok_r(NULL, "\n", &lines))) {
		__u64 key[2] = { slot, log };
		bool found = true;

		words = NULL;
		word = strtok_r(line, " ", &words);
		for (int i = 0; word && found && (i < nkeys || i <= wanted); i++) {
			__u64 number = strtoull(word, NULL, 10);

			if (i < nkeys && number != key[i])
				found = false;
			if (i == wanted && found)
				*value = number;
			word = strtok_r(NULL, " ", &words);
		}
		rows += found;
	}
	free(text);
	return rows == 1;
}

/* Both say the same, column by column, under the same names. */
TEST_F(debugfs, tables_and_fdinfo)
{
	static const char *const of_slot[] = {
		"slot", "pages", "resident", "open", "logs", "rate", "faults", "grants",
		"collected", "protects", "harvests", "overreports", "overflows", "throttles",
		"throttled_ns",
	}, *const of_log[] = {
		"slot", "log", "dirty", "pending", "harvests", "reported", "overreports",
		"overflows", "rate",
	};
	struct dirtytrack_log_create create = { .size = sizeof(create), .ring_entries = 64 };
	struct dirtytrack_limit limit = { .size = sizeof(limit), .rate = 1000000 };
	const char *name = " two blanks ";
	int slots[3], logs[3][2], ends[2];
	char *map, *table;
	char key[64];
	__u64 value;

	ASSERT_EQ(0, pipe(ends));
	for (int i = 0; i < 3; i++) {
		slots[i] = test_slot_create(self->dev, i == 1 ? name : NULL,
					    (NPAGES + i) * PAGE_SIZE, NULL);
		logs[i][0] = test_log_create(slots[i], 0);
		ASSERT_EQ(0, dt_ioctl(slots[i], DIRTYTRACK_LOG_CREATE, &create));
		logs[i][1] = create.out_fd;
		map = test_map(slots[i], 0, NPAGES);
		for (int page = 0; page < 70 + i; page++)
			page_write(map, page, 1);
		if (i == 1)
			ASSERT_EQ(0, dt_ioctl(logs[i][0], DIRTYTRACK_LOG_LIMIT, &limit));
		if (i == 2) {
			struct iovec iov = { map, PAGE_SIZE };

			ASSERT_EQ(PAGE_SIZE, vmsplice(ends[1], &iov, 1, 0));
			harvest(logs[i][1]);
			harvest(logs[i][1]);
		}
		page_write(map, 199, 1);
		test_unmap(map, NPAGES);
	}
	table = slurp(debug_files[1]);
	ASSERT_NE(NULL, table);
	EXPECT_NE(NULL, strstr(table, text_of(" %s\n", name)));
	for (int i = 0; i < 3; i++) {
		for (size_t c = 0; c < ARRAY_SIZE(of_slot); c++) {
			snprintf(key, sizeof(key), "slot_%s",
				 c ? of_slot[c] : "id");
			EXPECT_TRUE(cell(table, of_slot[c], id_of(slots[i]), 0, &value));
			EXPECT_EQ(fdinfo(slots[i], key), value) {
				TH_LOG("slot %d, %s", i, key);
			}
		}
	}
	EXPECT_LT(0, fdinfo(slots[2], "slot_overreports"));
	EXPECT_LT(0, fdinfo(slots[0], "slot_overflows"));
	free(table);

	table = slurp(debug_files[2]);
	ASSERT_NE(NULL, table);
	for (int i = 0; i < 3; i++) {
		for (int n = 0; n < 2; n++) {
			for (size_t c = 0; c < ARRAY_SIZE(of_log); c++) {
				snprintf(key, sizeof(key), "log_%s", of_log[c]);
				EXPECT_TRUE(cell(table, of_log[c], id_of(slots[i]), n + 1,
						 &value));
				EXPECT_EQ(fdinfo(logs[i][n], c == 0 ? "slot_id" :
						 c == 1 ? "log_id" : key), value) {
					TH_LOG("slot %d, log %d, %s", i, n, key);
				}
			}
			EXPECT_TRUE(cell(table, "ring", id_of(slots[i]), n + 1, &value));
			EXPECT_EQ(n ? 64 : 0, value);
		}
	}
	free(table);
	for (int i = 0; i < 3; i++) {
		close(logs[i][0]);
		close(logs[i][1]);
		close(slots[i]);
	}
	close(ends[0]);
	close(ends[1]);
}

/* What is there now goes back to nothing; what was counted stays, and only grows. */
TEST_F(debugfs, summary)
{
	struct dirtytrack_info info;
	__u64 grants, harvests, memory, npages = 512 * NPAGES;
	int slot, log;
	char *map;

	test_info(self->dev, &info);
	EXPECT_EQ(info.out_max_slots, summary("max_slots"));
	EXPECT_EQ(info.out_max_user_slots, summary("max_user_slots"));
	EXPECT_EQ(info.out_max_memory, summary("max_memory"));
	EXPECT_TRUE(eventually(!summary("memory")));
	EXPECT_EQ(0, summary("slots"));
	EXPECT_EQ(0, summary("logs"));
	EXPECT_EQ(0, summary("resident"));
	grants = summary("grants");
	harvests = summary("harvests");

	slot = test_slot_create(self->dev, NULL, npages * PAGE_SIZE, NULL);
	memory = summary("memory");
	/* Two bits a page, 16 bytes each 512, two each 64; whole pages, and less beside. */
	EXPECT_LE(npages / 4 + npages / 16, memory);
	EXPECT_GE(npages / 4 + npages / 16 + 7 * 4096, memory);
	log = test_log_create(slot, 0);
	EXPECT_LE(memory + npages / 8, summary("memory"));
	EXPECT_GE(memory + npages / 8 + 4 * 4096, summary("memory"));
	memory = summary("memory");
	map = test_map(slot, 0, npages);
	page_write(map, 1, 1);
	page_write(map, 90, 1);
	page_read(map, 2);
	EXPECT_EQ(memory + 4 * PAGE_SIZE, summary("memory"));
	EXPECT_EQ(1, summary("slots"));
	EXPECT_EQ(1, summary("logs"));
	EXPECT_EQ(3, summary("resident"));
	EXPECT_EQ(grants + 2, summary("grants"));
	EXPECT_EQ(2, harvest(log));
	EXPECT_EQ(harvests + 1, summary("harvests"));
	test_unmap(map, npages);
	close(log);
	close(slot);

	EXPECT_TRUE(eventually(!summary("slots") && !summary("memory")));
	EXPECT_EQ(0, summary("logs"));
	EXPECT_EQ(0, summary("resident"));
	EXPECT_EQ(grants + 2, summary("grants"));
	EXPECT_EQ(harvests + 1, summary("harvests"));
}

/* More than a page of text: each slot is there once. */
TEST_F(debugfs, many_slots)
{
	enum { NR = 300 };
	int slots[NR], logs[NR];
	__u64 value;
	char *table;

	for (int i = 0; i < NR; i++) {
		slots[i] = test_slot_create(self->dev, NULL, PAGE_SIZE, NULL);
		close(test_log_create(slots[i], 0));
		logs[i] = test_log_create(slots[i], 0);
	}
	table = slurp(debug_files[1]);
	ASSERT_NE(NULL, table);
	for (int i = 0; i < NR; i++)
		EXPECT_TRUE(cell(table, "pages", id_of(slots[i]), 0, &value));
	free(table);
	table = slurp(debug_files[2]);
	ASSERT_NE(NULL, table);
	for (int i = 0; i < NR; i++)
		EXPECT_TRUE(cell(table, "dirty", id_of(slots[i]), 2, &value));
	free(table);
	for (int i = 0; i < NR; i++) {
		close(logs[i]);
		close(slots[i]);
	}
}

struct reader {
	pthread_t thread;
	const char *path;
	volatile bool *stop;
	volatile unsigned long reads;
};

static void *reader(void *arg)
{
	struct reader *r = arg;
	char *text;

	while (!*r->stop) {
		text = slurp(r->path);
		if (!text)
			dt_broken("%s: %s", r->path, strerror(errno));
		free(text);
		r->reads++;
	}
	return NULL;
}

/* Each of them a few times. */
static bool have_read(const struct reader *readers)
{
	for (size_t i = 0; i < ARRAY_SIZE(debug_files); i++)
		if (readers[i].reads <= 3)
			return false;
	return true;
}

/* Read while slots and logs come and go. */
TEST_F(debugfs, while_they_go)
{
	struct reader readers[ARRAY_SIZE(debug_files)];
	volatile bool stop = false;
	char *map;

	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		readers[i] = (struct reader){ .path = debug_files[i], .stop = &stop };
		ASSERT_EQ(0, pthread_create(&readers[i].thread, NULL, reader, &readers[i]));
	}
	for (int i = 0; i < 300 || !have_read(readers); i++) {
		int slots[4], logs[4];

		for (int n = 0; n < 4; n++) {
			slots[n] = test_slot_create(self->dev, NULL, SIZE, NULL);
			logs[n] = test_log_create(slots[n], 0);
		}
		map = test_map(slots[i % 4], 0, NPAGES);
		page_write(map, i % NPAGES, 1);
		test_unmap(map, NPAGES);
		for (int n = 0; n < 4; n++) {
			close((i + n) % 2 ? slots[n] : logs[n]);
			close((i + n) % 2 ? logs[n] : slots[n]);
		}
	}
	stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		ASSERT_EQ(0, pthread_join(readers[i].thread, NULL));
		EXPECT_LT(3, readers[i].reads);
	}
	EXPECT_TRUE(eventually(!summary("slots") && !summary("memory")));
}

/* Between two reads a file holds none of the slots. */
TEST_F(debugfs, half_read)
{
	int slots[2], file;
	char c;

	for (int i = 0; i < 2; i++)
		slots[i] = test_slot_create(self->dev, NULL, PAGE_SIZE, NULL);
	file = open(debug_files[1], O_RDONLY);
	ASSERT_LE(0, file);
	ASSERT_EQ(1, read(file, &c, 1));
	close(slots[0]);
	EXPECT_TRUE(eventually(test_slot_count(self->dev) == 1));
	close(slots[1]);
	EXPECT_TRUE(eventually(test_slot_count(self->dev) == 0));
	while (read(file, &c, 1) == 1)
		;
	close(file);
}

/* An open file holds the module; with the module all files go, and come back. */
TEST_F(debugfs, unload)
{
	const char *ko = getenv("DIRTYTRACK_KO");
	char params[1024], c;
	int file;

	if (!ko)
		SKIP(return, "DIRTYTRACK_KO is not set to the module's file");
	close(self->dev);
	self->dev = -1;
	parameters(params, sizeof(params));
	for (size_t i = 0; i < ARRAY_SIZE(debug_files); i++) {
		file = open(debug_files[i], O_RDONLY);
		ASSERT_LE(0, file);
		ASSERT_EQ(1, read(file, &c, 1));
		EXPECT_ERRNO(EWOULDBLOCK, delete_module());
		ASSERT_EQ(1, read(file, &c, 1));
		close(file);
	}
	ASSERT_TRUE(eventually(delete_module() == 0));
	EXPECT_ERRNO(ENOENT, access(DEBUGFS "/dirtytrack", F_OK));
	EXPECT_ERRNO(ENOENT, access(TRACING "/events/dirtytrack", F_OK));
	ASSERT_EQ(0, load_module(ko, params));
	EXPECT_EQ(0, access(debug_files[0], F_OK));
	EXPECT_EQ(0, summary("grants"));
}

TEST_HARNESS_MAIN
