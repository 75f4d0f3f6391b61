// SPDX-License-Identifier: GPL-2.0-only
/*
 * nbdkit-dirtytrack-plugin: slots as NBD exports.
 *
 *	nbdkit dirtytrack slot=NAME [slot=...]
 *
 * By itself it serves slots to whatever speaks NBD.  For "dirtytrack receive" it also
 * takes what is needed to hand a guest over (handover.h), and has no part in it but to
 * pass it on: who has the guest is decided by one process, which outlives this one.
 *
 * What was acknowledged is in the slot, and a slot lives as long as somebody holds it.
 * So there is nothing to flush, and a server that was killed has forgotten nothing.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "../dirtytrack/file-io.h"
#include "../lib/dirtytrack.h"
#include "extents.h"
#include "handover.h"
#include "supervised.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define MAX_EXPORTS 64

struct export {
	char *name;
	int fd;
	int64_t size;
	bool is_control;
};

static struct export exports[MAX_EXPORTS];
static unsigned int nr_exports;
static int control = -1;

/* Of @control: a packet and its answer, and the number of clients. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int clients;

/*
 * The guest may run: its memory is nobody else's any more.  Who reads or writes it has @in_use
 * for reading from before the look at @closed until he is done.
 */
static atomic_bool closed;
static pthread_rwlock_t in_use = PTHREAD_RWLOCK_INITIALIZER;

/* ---- parameters ---- */

static int add_export(const char *name, int fd, int64_t size, bool is_control)
{
	struct export *e = &exports[nr_exports];
	unsigned int i;

	for (i = 0; i < nr_exports; i++)
		if (!strcmp(exports[i].name, name)) {
			nbdkit_error("%s: the name is given twice", name);
			return -1;
		}
	if (nr_exports == MAX_EXPORTS) {
		nbdkit_error("more than %d exports", MAX_EXPORTS);
		return -1;
	}
	e->name = strdup(name);
	if (!e->name) {
		nbdkit_error("strdup: %m");
		return -1;
	}
	e->fd = fd;
	e->size = size;
	e->is_control = is_control;
	nr_exports++;
	return 0;
}

static int add_file(const char *name, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0) {
		nbdkit_error("%s: %m", name);
		return -1;
	}
	/* nbdkit may start others, which have no business with it. */
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	return add_export(name, fd, st.st_size, false);
}

static int add_slot(const char *name)
{
	int device, fd;

	device = dtrack_open_device(NULL);
	if (device < 0) {
		nbdkit_error("%s: %s", DIRTYTRACK_DEVICE, strerror(-device));
		return -1;
	}
	fd = dtrack_slot_open_name(device, name);
	close(device);
	if (fd < 0) {
		nbdkit_error("slot %s: %s", name, strerror(-fd));
		return -1;
	}
	return add_file(name, fd);
}

/* "NAME:FD", an fd that was inherited. */
static int add_fd(const char *value)
{
	const char *colon = strrchr(value, ':');
	char *name;
	int fd, ret;

	if (!colon || nbdkit_parse_int("fd", colon + 1, &fd) < 0) {
		nbdkit_error("fd=%s: NAME:NUMBER is wanted", value);
		return -1;
	}
	name = strndup(value, colon - value);
	if (!name) {
		nbdkit_error("strndup: %m");
		return -1;
	}
	ret = add_file(name, fd);
	free(name);
	return ret;
}

static int add_control(const char *value)
{
	if (nbdkit_parse_int("control", value, &control) < 0)
		return -1;
	fcntl(control, F_SETFD, FD_CLOEXEC);
	return add_export(HANDOVER_CONTROL, -1, HANDOVER_CONTROL_SIZE, true);
}

static int config(const char *key, const char *value)
{
	if (!strcmp(key, "slot"))
		return add_slot(value);
	if (!strcmp(key, "fd"))
		return add_fd(value);
	if (!strcmp(key, "control"))
		return add_control(value);
	nbdkit_error("there is no parameter '%s'", key);
	return -1;
}

static int config_complete(void)
{
	if (nr_exports)
		return 0;
	nbdkit_error("which slot? (slot=NAME)");
	return -1;
}

static int after_fork(void)
{
	if (control < 0 || die_with_supervisor(control))
		return 0;
	nbdkit_error("the supervisor is gone");
	return -1;
}

#define CONFIG_HELP \
	"slot=<NAME>     (required) A slot to serve; may be repeated."

/* ---- the supervisor ---- */

/* An errno; EIO when nobody is there to ask. */
static int ask(const struct plugin_packet *packet, struct plugin_answer *answer)
{
	ssize_t n;

	pthread_mutex_lock(&lock);
	do {
		n = send(control, packet, sizeof(*packet), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n == sizeof(*packet))
		do {
			n = recv(control, answer, sizeof(*answer), 0);
		} while (n < 0 && errno == EINTR);
	pthread_mutex_unlock(&lock);
	if (n != sizeof(*answer)) {
		nbdkit_error("the supervisor is gone");
		return EIO;
	}
	return answer->error;
}

static void tell_clients(int change)
{
	struct plugin_packet packet = { .type = PLUGIN_CLIENTS };
	ssize_t n;

	if (control < 0)
		return;
	pthread_mutex_lock(&lock);
	clients += change;
	packet.clients = clients;
	do {
		n = send(control, &packet, sizeof(packet), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	pthread_mutex_unlock(&lock);
}

static int control_read(void *buf, uint32_t count, uint64_t offset)
{
	const struct plugin_packet packet = { .type = PLUGIN_STATUS };
	unsigned char page[HANDOVER_CONTROL_SIZE] = { 0 };
	struct plugin_answer answer;
	int err = ask(&packet, &answer);

	if (err) {
		nbdkit_set_error(err);
		return -1;
	}
	memcpy(page, &answer.status, sizeof(answer.status));
	memcpy(buf, page + offset, count);
	return 0;
}

/* Nobody begins any more; then it is waited for those who have. */
static void close_memory(void)
{
	closed = true;
	pthread_rwlock_wrlock(&in_use);
	pthread_rwlock_unlock(&in_use);
}

static int control_write(const void *buf, uint32_t count, uint64_t offset)
{
	struct plugin_packet packet = { .type = PLUGIN_COMMAND };
	struct plugin_answer answer;
	int err;

	if (offset || count < sizeof(packet.command)) {
		nbdkit_error("a command is written at the beginning, and at once");
		nbdkit_set_error(EINVAL);
		return -1;
	}
	memcpy(&packet.command, buf, sizeof(packet.command));
	if (le32toh(packet.command.verb) == HANDOVER_RUN)
		close_memory();
	err = ask(&packet, &answer);
	if (!err)
		return 0;
	nbdkit_set_error(err);
	return -1;
}

/* ---- clients ---- */

/* To be followed by memory_end(), unless it fails. */
static int memory_begin(const struct export *e)
{
	pthread_rwlock_rdlock(&in_use);
	if (!closed)
		return 0;
	pthread_rwlock_unlock(&in_use);
	nbdkit_error("%s: the guest has it", e->name);
	nbdkit_set_error(EPERM);
	return -1;
}

static void *open_export(int readonly)
{
	const char *name = nbdkit_export_name();
	unsigned int i;

	(void)readonly;
	if (!name)
		return NULL;
	for (i = 0; i < nr_exports; i++)
		/* With one slot, its name need not be given. */
		if (!strcmp(exports[i].name, name) ||
		    (!*name && nr_exports == 1)) {
			tell_clients(1);
			return &exports[i];
		}
	nbdkit_error("there is no export '%s'", name);
	errno = ENOENT;
	return NULL;
}

static void close_export(void *handle)
{
	(void)handle;
	tell_clients(-1);
}

static int list_exports(int readonly, int is_tls, struct nbdkit_exports *list)
{
	unsigned int i;

	(void)readonly;
	(void)is_tls;
	for (i = 0; i < nr_exports; i++)
		if (nbdkit_add_export(list, exports[i].name, NULL) < 0)
			return -1;
	return 0;
}

static int64_t get_size(void *handle)
{
	return ((struct export *)handle)->size;
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

static int is_memory(void *handle)
{
	return !((struct export *)handle)->is_control;
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
		      uint32_t *maximum)
{
	(void)handle;
	*minimum = 1;
	*preferred = DTRACK_PAGE_SIZE;
	*maximum = 0xffffffff;
	return 0;
}

static int memory_end(const struct export *e, int err, const char *what)
{
	pthread_rwlock_unlock(&in_use);
	if (!err)
		return 0;
	errno = -err;
	nbdkit_error("%s: cannot %s: %m", e->name, what);
	return -1;
}

static int read_export(void *handle, void *buf, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	const struct export *e = handle;

	(void)flags;
	if (e->is_control)
		return control_read(buf, count, offset);
	if (memory_begin(e))
		return -1;
	return memory_end(e, file_read(e->fd, buf, count, offset), "read");
}

static int write_export(void *handle, const void *buf, uint32_t count,
			uint64_t offset, uint32_t flags)
{
	const struct export *e = handle;

	(void)flags;
	if (e->is_control)
		return control_write(buf, count, offset);
	if (memory_begin(e))
		return -1;
	return memory_end(e, file_write(e->fd, buf, count, offset), "write");
}

/* Also when holes are not wanted: memory has nothing to be allocated in advance for. */
static int zero_export(void *handle, uint32_t count, uint64_t offset,
		       uint32_t flags)
{
	const struct export *e = handle;

	(void)flags;
	if (memory_begin(e))
		return -1;
	return memory_end(e, file_punch(e->fd, offset, count), "make a hole");
}

static int flush_export(void *handle, uint32_t flags)
{
	(void)handle;
	(void)flags;
	return 0;
}

static int get_extents(void *handle, uint32_t count, uint64_t offset,
		       uint32_t flags, struct nbdkit_extents *extents)
{
	const struct export *e = handle;

	return add_extents(extents, e->name, e->fd, e->size, count, offset, flags);
}

static void unload(void)
{
	unsigned int i;

	for (i = 0; i < nr_exports; i++) {
		if (exports[i].fd >= 0)
			close(exports[i].fd);
		free(exports[i].name);
	}
	if (control >= 0)
		close(control);
}

static struct nbdkit_plugin plugin = {
	.name = "dirtytrack",
	.longname = "slots of dirtytrack",
	.version = DIRTYTRACK_VERSION,
	.description = "Serves guest memory whose every write is tracked",
	.unload = unload,
	.config = config,
	.config_complete = config_complete,
	.config_help = CONFIG_HELP,
	.after_fork = after_fork,
	.magic_config_key = "slot",
	.list_exports = list_exports,
	.open = open_export,
	.close = close_export,
	.get_size = get_size,
	.can_write = yes,
	.can_flush = yes,
	.can_multi_conn = yes,
	.can_zero = is_memory,
	.can_trim = is_memory,
	.can_extents = is_memory,
	.can_fast_zero = is_memory,
	.block_size = block_size,
	.pread = read_export,
	.pwrite = write_export,
	.zero = zero_export,
	.trim = zero_export,
	.flush = flush_export,
	.extents = get_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
