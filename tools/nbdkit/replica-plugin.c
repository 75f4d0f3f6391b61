// SPDX-License-Identifier: GPL-2.0-only
/*
 * nbdkit-dirtytrack-replica-plugin: a checkpoint store as NBD exports.
 *
 * It is run by "dirtytrack secondary", which holds the files of the store (store.h); what
 * clients say is in replica.h.  It can be killed at any moment: another one goes on with
 * what is committed.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "../lib/dirtytrack.h"
#include "extents.h"
#include "replica.h"
#include "store.h"
#include "supervised.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* For a server that was killed to be dead. */
#define LOCK_SECONDS 30

enum export_kind { EXPORT_SLOT, EXPORT_STATE, EXPORT_CONTROL };

/**
 * struct client - a connection
 * @kind: of the export
 * @slot: which, of EXPORT_SLOT
 * @generation: of who was attached when it came
 */
struct client {
	enum export_kind kind;
	unsigned int slot;
	uint64_t generation;
};

static struct store_files files = { .journal = -1, .state = { -1, -1 } };
static struct store *store;	/* NULL when nothing is taken any more */
static struct store_head *head;
static int control = -1;
/* Who was not heard of for so long, though he is connected, is gone. */
static unsigned int silence_ms = 10000;

/* Of all that control connections do. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* Of the socket to the supervisor, who may take his time. */
static pthread_mutex_t asking = PTHREAD_MUTEX_INITIALIZER;
static const struct client *owner;	/* who is attached */
static _Atomic uint64_t generation;	/* his */
static struct {
	bool set;
	uint64_t number;
	struct store_epoch epoch;
} prepared;				/* to be committed by FLUSH */

/* ---- parameters ---- */

/* "NAME:FD:FD", and ":FD:FD" for what others write */
static int add_slot(const char *value)
{
	struct store_slot slot = { .log = -1, .cache = -1 };
	int used = 0, more = 0;

	if (files.nr < STORE_MAX_SLOTS &&
	    sscanf(value, "%31[^:]:%d:%d%n:%d:%d%n", slot.name, &slot.slot,
		   &slot.staged, &used, &slot.log, &slot.cache, &more) >= 3 &&
	    !value[more ? more : used]) {
		files.slots[files.nr++] = slot;
		return 0;
	}
	nbdkit_error("slot=%s: NAME and two or four numbers are wanted, %d times at most",
		     value, STORE_MAX_SLOTS);
	return -1;
}

/* "FD:FD" */
static int add_state(const char *value)
{
	if (sscanf(value, "%d:%d", &files.state[0], &files.state[1]) == 2)
		return 0;
	nbdkit_error("state=%s: NUMBER:NUMBER is wanted", value);
	return -1;
}

static int config(const char *key, const char *value)
{
	if (!strcmp(key, "slot"))
		return add_slot(value);
	if (!strcmp(key, "journal"))
		return nbdkit_parse_int(key, value, &files.journal);
	if (!strcmp(key, "state"))
		return add_state(value);
	if (!strcmp(key, "control"))
		return nbdkit_parse_int(key, value, &control);
	if (!strcmp(key, "silence"))
		return nbdkit_parse_unsigned(key, value, &silence_ms);
	nbdkit_error("there is no parameter '%s'", key);
	return -1;
}

static void keep_from_others(int fd)
{
	if (fd >= 0)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static int config_complete(void)
{
	unsigned int i;

	if (!files.nr || files.journal < 0 || files.state[0] < 0 || control < 0) {
		nbdkit_error("this plugin is run by dirtytrack secondary");
		return -1;
	}
	/* nbdkit may start others, which have no business with it. */
	for (i = 0; i < files.nr; i++) {
		keep_from_others(files.slots[i].slot);
		keep_from_others(files.slots[i].staged);
		keep_from_others(files.slots[i].log);
		keep_from_others(files.slots[i].cache);
	}
	keep_from_others(files.journal);
	keep_from_others(files.state[0]);
	keep_from_others(files.state[1]);
	keep_from_others(control);
	return 0;
}

static int after_fork(void)
{
	int ret = die_with_supervisor(control) ? 0 : -EPIPE;

	if (!ret)
		ret = store_map_head(files.journal, &head);
	if (!ret && head->phase == STORE_REPLICA)
		ret = store_open(&store, &files, LOCK_SECONDS);
	if (ret)
		nbdkit_error("the supervisor, or the store: %s", strerror(-ret));
	return ret ? -1 : 0;
}

static void unload(void)
{
	store_close(store);
}

/* ---- what is said ---- */

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * UINT64_C(1000) + ts.tv_nsec / 1000000;
}

/* Who is attached is alive. */
static void heard(uint64_t from)
{
	if (from && from == generation)
		__atomic_store_n(&head->seen_ms, now_ms(), __ATOMIC_RELAXED);
}

static uint64_t unheard_ms(void)
{
	uint64_t seen = __atomic_load_n(&head->seen_ms, __ATOMIC_RELAXED);

	return seen ? now_ms() - seen : 0;
}

static int refuse(int err, const char *why)
{
	snprintf(head->message, sizeof(head->message), "%s", why);
	nbdkit_error("%s", why);
	return err;
}

static bool is_session(const struct replica_command *c)
{
	return !memcmp(c->session, head->session, sizeof(c->session));
}

static bool has_session(void)
{
	static const uint8_t none[REPLICA_SESSION_LEN];

	return memcmp(head->session, none, sizeof(none)) != 0;
}

static int attach(struct client *client, const struct replica_command *c)
{
	uint64_t begun;

	if (!store || head->phase != STORE_REPLICA)
		return refuse(EPERM, "the guest was let run here: nothing is taken any more");
	/* He who comes back may be noticed before his old connection's end is. */
	if (owner && owner != client && !is_session(c) && unheard_ms() < silence_ms)
		return refuse(EBUSY, "another one replicates to here");
	begun = store_attach(store);
	if (!begun)
		return refuse(EIO, "an epoch that had begun cannot be committed");
	/* He who had no answer to this comes again with what he knows, and is the same. */
	if (!(has_session() && is_session(c)) &&
	    getrandom(head->session, sizeof(head->session), 0) !=
	    sizeof(head->session))
		return refuse(EIO, "getrandom");
	owner = client;
	generation = client->generation = begun;
	prepared.set = false;
	/* Before there is a lease: one that was not heard of since is over. */
	heard(begun);
	__atomic_store_n(&head->lease_ms, le32toh(c->lease_ms), __ATOMIC_RELEASE);
	__atomic_store_n(&head->detached, 0, __ATOMIC_RELEASE);
	head->attached = 1;
	return 0;
}

static int prepare(const struct replica_command *c)
{
	prepared.number = le64toh(c->epoch);
	prepared.epoch = (struct store_epoch){
		.state_size = le64toh(c->state_size),
		.checksum = le64toh(c->checksum),
		.has_checksum = (le32toh(c->flags) & REPLICA_CHECKSUM) != 0,
	};
	prepared.set = true;
	return 0;
}

static int detach(void)
{
	head->attached = 0;
	head->detached = 1;
	owner = NULL;
	return 0;
}

/*
 * The supervisor has the say, and ends this process by it.  Without the lock: who is attached
 * must be answered meanwhile, or a question would end his lease.
 */
static int ask_failover(const struct replica_command *c)
{
	struct failover_packet packet = {
		.force = (le32toh(c->flags) & REPLICA_FORCE) != 0,
	};
	struct failover_answer answer;
	ssize_t n;

	pthread_mutex_lock(&asking);
	do {
		n = send(control, &packet, sizeof(packet), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n == sizeof(packet))
		do {
			n = recv(control, &answer, sizeof(answer), 0);
		} while (n < 0 && errno == EINTR);
	pthread_mutex_unlock(&asking);
	return n == sizeof(answer) ? (int)answer.error :
	       refuse(EIO, "the supervisor is gone");
}

static int do_own_command(struct client *client, const struct replica_command *c)
{
	uint32_t verb = le32toh(c->verb);

	if (verb == REPLICA_ATTACH)
		return attach(client, c);
	if (client != owner || !is_session(c))
		return refuse(ESTALE, "another one has attached since");
	heard(client->generation);
	if (verb == REPLICA_COMMIT)
		return prepare(c);
	if (verb == REPLICA_DETACH)
		return detach();
	return refuse(EINVAL, "there is no such command");
}

static int do_command(struct client *client, const struct replica_command *c)
{
	int err;

	if (le64toh(c->magic) != REPLICA_MAGIC ||
	    le32toh(c->version) != REPLICA_VERSION)
		return refuse(EINVAL, "the command is of another version");
	if (le32toh(c->verb) == REPLICA_FAILOVER)
		return ask_failover(c);
	pthread_mutex_lock(&lock);
	err = do_own_command(client, c);
	pthread_mutex_unlock(&lock);
	return err;
}

static int control_write(struct client *client, const void *buf, uint32_t count,
			 uint64_t offset)
{
	struct replica_command command;
	int err;

	if (offset || count < sizeof(command)) {
		nbdkit_error("a command is written at the beginning, and at once");
		nbdkit_set_error(EINVAL);
		return -1;
	}
	memcpy(&command, buf, sizeof(command));
	err = do_command(client, &command);
	if (err)
		nbdkit_set_error(err);
	return err ? -1 : 0;
}

static void control_read(struct client *client, void *buf, uint32_t count,
			 uint64_t offset)
{
	unsigned char page[REPLICA_CONTROL_SIZE] = { 0 };
	struct replica_status status = { 0 };

	pthread_mutex_lock(&lock);
	heard(client->generation);
	status.magic = htole64(REPLICA_MAGIC);
	status.version = htole32(REPLICA_VERSION);
	/* It is decided, and may still fail. */
	status.phase = htole32(head->phase == STORE_RUNNING && !head->ran ?
			       STORE_FAILING_OVER : head->phase);
	memcpy(status.session, head->session, sizeof(status.session));
	status.committed = htole64(head->committed);
	status.unheard_ms = htole64(unheard_ms());
	status.attached = htole32(head->attached);
	status.undone = htole64(head->undone);
	status.late = htole64(head->late);
	memcpy(status.message, head->message, sizeof(status.message));
	pthread_mutex_unlock(&lock);
	memcpy(page, &status, sizeof(status));
	memcpy(buf, page + offset, count);
}

static int refuse_commit(int err)
{
	char why[STORE_MESSAGE_LEN];

	if (err == -EILSEQ)
		snprintf(why, sizeof(why), "epoch %" PRIu64 ": it is not the one after epoch %" PRIu64,
			 prepared.number, head->committed);
	else
		snprintf(why, sizeof(why), "epoch %" PRIu64 ": %s", prepared.number,
			 err == -EBUSY ? "somebody keeps writing to the slots there" :
			 strerror(-err));
	refuse(-err, why);
	return err;
}

static int commit(struct client *client)
{
	int ret = 0;

	pthread_mutex_lock(&lock);
	/* A success would say that what he sent is there. */
	if (client != owner)
		ret = -ESTALE;
	else
		heard(client->generation);
	if (!ret && prepared.set) {
		prepared.set = false;
		ret = store_commit(store, client->generation, prepared.number,
				   &prepared.epoch);
		if (ret)
			refuse_commit(ret);
	}
	pthread_mutex_unlock(&lock);
	return ret;
}

/* ---- clients ---- */

/*
 * Whoever comes is told which epoch there is, and makes up by that what he will send:
 * afterwards a commit that had failed must not come to its end.
 */
static void settle(void)
{
	pthread_mutex_lock(&lock);
	if (store)
		store_settle(store);
	pthread_mutex_unlock(&lock);
}

static void *open_export(int readonly)
{
	const char *name = nbdkit_export_name();
	struct client *client = calloc(1, sizeof(*client));

	(void)readonly;
	if (!name || !client) {
		free(client);
		return NULL;
	}
	client->generation = generation;
	if (!strcmp(name, REPLICA_CONTROL)) {
		client->kind = EXPORT_CONTROL;
		client->generation = 0;
		settle();
		return client;
	}
	if (!strcmp(name, REPLICA_STATE)) {
		client->kind = EXPORT_STATE;
		return client;
	}
	for (; client->slot < files.nr; client->slot++)
		if (!strcmp(files.slots[client->slot].name, name))
			return client;
	nbdkit_error("there is no export '%s'", name);
	free(client);
	errno = ENOENT;
	return NULL;
}

static void close_export(void *handle)
{
	pthread_mutex_lock(&lock);
	if (owner == handle) {
		owner = NULL;
		head->attached = 0;
	}
	pthread_mutex_unlock(&lock);
	free(handle);
}

static int list_exports(int readonly, int is_tls, struct nbdkit_exports *list)
{
	unsigned int i;

	(void)readonly;
	(void)is_tls;
	for (i = 0; i < files.nr; i++)
		if (nbdkit_add_export(list, files.slots[i].name, NULL) < 0)
			return -1;
	if (nbdkit_add_export(list, REPLICA_STATE, NULL) < 0)
		return -1;
	return nbdkit_add_export(list, REPLICA_CONTROL, NULL);
}

static int64_t get_size(void *handle)
{
	const struct client *client = handle;

	switch (client->kind) {
	case EXPORT_CONTROL:
		return REPLICA_CONTROL_SIZE;
	case EXPORT_STATE:
		return STORE_MAX_STATE;
	case EXPORT_SLOT:
		break;
	}
	return lseek(files.slots[client->slot].slot, 0, SEEK_END);
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

static int is_slot(void *handle)
{
	return ((struct client *)handle)->kind == EXPORT_SLOT;
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
		      uint32_t *maximum)
{
	*minimum = is_slot(handle) ? DTRACK_PAGE_SIZE : 1;
	*preferred = DTRACK_PAGE_SIZE;
	*maximum = 32 * 1024 * 1024;
	return 0;
}

static int answer(int err)
{
	if (!err)
		return 0;
	if (err == -ESTALE)
		nbdkit_error("it is for who is attached, and another one may be by now");
	nbdkit_set_error(-err);
	return -1;
}

static int read_export(void *handle, void *buf, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	struct client *client = handle;

	(void)flags;
	if (client->kind == EXPORT_CONTROL) {
		control_read(client, buf, count, offset);
		return 0;
	}
	if (!store || client->kind == EXPORT_STATE) {
		nbdkit_error("it cannot be read");
		return answer(-EPERM);
	}
	return answer(store_read(store, client->slot, buf, count, offset));
}

static int write_export(void *handle, const void *buf, uint32_t count,
			uint64_t offset, uint32_t flags)
{
	struct client *client = handle;

	(void)flags;
	if (client->kind == EXPORT_CONTROL)
		return control_write(client, buf, count, offset);
	if (!store)
		return answer(-ESTALE);
	heard(client->generation);
	if (client->kind == EXPORT_STATE)
		return answer(store_write_state(store, client->generation, buf,
						count, offset));
	return answer(store_write(store, client->generation, client->slot, buf,
				  count, offset));
}

static int zero_export(void *handle, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	struct client *client = handle;

	(void)flags;
	if (!store)
		return answer(-ESTALE);
	heard(client->generation);
	return answer(store_zero(store, client->generation, client->slot, count,
				 offset));
}

static int flush_export(void *handle, uint32_t flags)
{
	struct client *client = handle;

	(void)flags;
	/* Of a slot alone nothing becomes an epoch. */
	return client->kind == EXPORT_CONTROL ? answer(commit(client)) : 0;
}

/* Of the last epoch: who has attached has sent nothing yet when he wants to know. */
static int get_extents(void *handle, uint32_t count, uint64_t offset,
		       uint32_t flags, struct nbdkit_extents *extents)
{
	const struct client *client = handle;
	const struct store_slot *slot = &files.slots[client->slot];

	return add_extents(extents, slot->name, store_kept(slot), get_size(handle),
			   count, offset, flags);
}

static struct nbdkit_plugin plugin = {
	.name = "dirtytrack-replica",
	.longname = "a checkpoint store of dirtytrack",
	.version = DIRTYTRACK_VERSION,
	.description = "Takes the epochs of a guest's memory",
	.unload = unload,
	.config = config,
	.config_complete = config_complete,
	.after_fork = after_fork,
	.list_exports = list_exports,
	.open = open_export,
	.close = close_export,
	.get_size = get_size,
	.can_write = yes,
	.can_flush = yes,
	.can_multi_conn = yes,
	.can_zero = is_slot,
	.can_trim = is_slot,
	.can_extents = is_slot,
	.can_fast_zero = is_slot,
	.block_size = block_size,
	.pread = read_export,
	.pwrite = write_export,
	.zero = zero_export,
	.trim = zero_export,
	.flush = flush_export,
	.extents = get_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
