// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "qmp.h"
#include "receive.h"
#include "units.h"
#include "vm.h"

/* What the guard is to do when this process is killed. */
#define GUARD_KILL 'K'	/* the guest is not here yet */
#define GUARD_RUN 'R'	/* it is about to run, and the sender may know */

/* A server that cannot live is not started for ever. */
#define MAX_STARTS 20
/* A signal is seen after it. */
#define WAIT_MS 200

static bool is_final(const struct receive *r)
{
	return r->phase == HANDOVER_RUNNING || r->phase == HANDOVER_ABORTED;
}

/* ---- QEMU ---- */

static int make_argv(char ***out, char **argv, int fd)
{
	char **full, *chardev;
	size_t n = 0;

	while (argv[n])
		n++;
	full = calloc(n + 5, sizeof(*full));
	if (!full || asprintf(&chardev, "socket,id=dirtytrack,fd=%d", fd) < 0) {
		free(full);
		msg_errno(ENOMEM, "%s", argv[0]);
		return -ENOMEM;
	}
	memcpy(full, argv, n * sizeof(*full));
	full[n++] = (char *)"-chardev";
	full[n++] = chardev;
	full[n++] = (char *)"-mon";
	full[n++] = (char *)"chardev=dirtytrack,mode=control";
	*out = full;
	return 0;
}

static void run_qemu(struct receive *r, int fd)
{
	int inherited = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
	char **argv;

	if (inherited < 0 || make_argv(&argv, r->argv, inherited))
		_exit(EXIT_RUN);
	interrupt_restore();
	execvp(argv[0], argv);
	msg_errno(errno, "%s: cannot run it", argv[0]);
	_exit(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE);
}

static void reap_qemu(struct receive *r)
{
	while (waitpid(r->qemu, &r->qemu_status, 0) < 0 && errno == EINTR)
		;
	r->qemu = 0;
	close(r->qemu_fd);
}

static void kill_qemu(struct receive *r)
{
	if (!r->qemu)
		return;
	kill(r->qemu, SIGKILL);
	reap_qemu(r);
}

static int start_qemu(struct receive *r, int *qmp_fd)
{
	int pair[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		goto fail;
	r->qemu = fork();
	if (!r->qemu)
		run_qemu(r, pair[1]);
	close(pair[1]);
	if (r->qemu < 0) {
		r->qemu = 0;
		close(pair[0]);
		goto fail;
	}
	r->qemu_fd = pidfd_open(r->qemu, 0);
	*qmp_fd = pair[0];
	return 0;

fail:
	ret = -errno;
	msg_errno(ret, "%s", r->argv[0]);
	return ret;
}

/* Is it what it is to be: waiting? */
static int check_waiting(struct receive *r)
{
	struct json_object *status, *value;
	int ret = qmp_command(r->qmp, "query-status", &status);

	if (ret)
		return ret;
	if (!json_object_object_get_ex(status, "status", &value) ||
	    strcmp(json_object_get_string(value), "inmigrate")) {
		msg_error("%s: it does not wait for a guest: -incoming defer is wanted",
			  r->argv[0]);
		ret = -EINVAL;
	}
	json_object_put(status);
	return ret;
}

static bool is_slot(const struct receive *r, const char *path)
{
	struct stat file, slot;
	unsigned int i;

	if (stat(path, &file) < 0)
		return false;
	for (i = 0; i < r->slots.nr; i++)
		if (!fstat(r->slots.slots[i].fd, &slot) &&
		    slot.st_dev == file.st_dev && slot.st_ino == file.st_ino)
			return true;
	return false;
}

/* Memory that QEMU leaves to others must be memory that is received. */
static int check_memory(struct receive *r)
{
	struct vm_memory *memory;
	unsigned int nr, i;
	int ret = vm_memory(r->qmp, r->qemu, &memory, &nr);

	if (ret)
		return ret;
	for (i = 0; i < nr && !ret; i++)
		if (!is_slot(r, memory[i].path)) {
			msg_error("memory %s: it is shared and on no slot, and would be left behind",
				  memory[i].id);
			ret = -EINVAL;
		}
	if (!ret && nr != r->slots.nr) {
		msg_error("%s: it uses %u slots of %u, with share=on",
			  r->argv[0], nr, r->slots.nr);
		ret = -EINVAL;
	}
	vm_memory_free(memory, nr);
	return ret;
}

/* ---- the guard ---- */

static void guard_act(void *arg, char state)
{
	struct receive *r = arg;

	if (state == GUARD_KILL) {
		pidfd_send_signal(r->qemu_fd, SIGKILL, NULL, 0);
		return;
	}
	/* The sender may have been told so: then nobody else runs it. */
	qmp_set_cancel(r->qmp, NULL);
	qmp_command(r->qmp, "cont", NULL);
}

/* ---- what the sender asks for ---- */

static void note_message(struct receive *r, const char *text)
{
	snprintf(r->message, sizeof(r->message), "%s", text);
}

static void set_phase(struct receive *r, enum handover_phase phase)
{
	r->phase = phase;
	r->since = now();
}

static void give_up(struct receive *r, const char *why)
{
	note_message(r, why);
	kill_qemu(r);
	guard_tell(&r->guard, 0);
	set_phase(r, HANDOVER_ABORTED);
}

static int do_load(struct receive *r, uint64_t size)
{
	if (r->phase != HANDOVER_RECEIVING)
		return EBUSY;
	if (size > HANDOVER_MAX_STATE)
		return EINVAL;
	if (vm_load(r->qmp, r->state, size, r->timeout)) {
		give_up(r, interrupted ? "interrupted" : msg_last());
		return EIO;
	}
	set_phase(r, HANDOVER_LOADED);
	return 0;
}

static int do_run(struct receive *r, bool paused)
{
	if (r->phase != HANDOVER_LOADED)
		return EPERM;
	r->paused = paused;
	if (!paused) {
		/* Told before it is true: the sender gives the guest up by asking. */
		if (guard_tell(&r->guard, GUARD_RUN)) {
			give_up(r, "the receiver's guard is gone");
			return EIO;
		}
		/* From a QEMU that does not answer, one that runs nothing is made. */
		if (qmp_command(r->qmp, "cont", NULL)) {
			give_up(r, interrupted ? "interrupted" : msg_last());
			return EIO;
		}
	}
	guard_tell(&r->guard, 0);
	set_phase(r, HANDOVER_RUNNING);
	return 0;
}

static int do_command(struct receive *r, const struct handover_command *command)
{
	if (le64toh(command->magic) != HANDOVER_MAGIC ||
	    le32toh(command->version) != HANDOVER_VERSION) {
		note_message(r, "the sender is of another version");
		return EINVAL;
	}
	if (memcmp(command->session, r->session, sizeof(r->session))) {
		note_message(r, "the command is for another receiver");
		return EINVAL;
	}
	switch (le32toh(command->verb)) {
	case HANDOVER_LOAD:
		return do_load(r, le64toh(command->size));
	case HANDOVER_RUN:
		return do_run(r, le64toh(command->size));
	case HANDOVER_ABORT:
		if (r->phase == HANDOVER_RUNNING)
			return EPERM;
		if (r->phase != HANDOVER_ABORTED)
			give_up(r, "the sender gave up");
		return 0;
	case HANDOVER_DONE:
		r->done = is_final(r);
		return 0;
	}
	return EINVAL;
}

static void fill_status(const struct receive *r, struct handover_status *status)
{
	memset(status, 0, sizeof(*status));
	status->magic = htole64(HANDOVER_MAGIC);
	status->version = htole32(HANDOVER_VERSION);
	status->phase = htole32(r->phase);
	memcpy(status->session, r->session, sizeof(r->session));
	memcpy(status->message, r->message, sizeof(r->message));
}

/* A packet of the plugin.  False when there will be none any more. */
static bool serve_packet(struct receive *r)
{
	struct plugin_packet packet;
	struct plugin_answer answer = { 0 };
	ssize_t n = recv(r->server.control, &packet, sizeof(packet),
			 MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n != sizeof(packet))
		return false;
	if (packet.type == PLUGIN_CLIENTS) {
		r->clients = packet.clients;
		r->seen = true;
		if (!is_final(r))
			r->since = now();
		return true;
	}
	if (packet.type == PLUGIN_COMMAND)
		answer.error = do_command(r, &packet.command);
	fill_status(r, &answer.status);
	return send(r->server.control, &answer, sizeof(answer),
		    MSG_NOSIGNAL) == sizeof(answer);
}

/* ---- the loop ---- */

static int start_server(struct receive *r)
{
	r->clients = 0;
	return server_start(&r->server, &r->listener,
			    is_final(r) ? NULL : &r->slots, r->state);
}

static void check_time(struct receive *r)
{
	char text[HANDOVER_MESSAGE_LEN];

	if (is_final(r) || !r->seen || r->clients ||
	    now() < r->since + r->timeout)
		return;
	snprintf(text, sizeof(text), "no sender for %g s", r->timeout);
	msg_error("%s", text);
	give_up(r, text);
}

static bool is_over(const struct receive *r)
{
	if (interrupted && !is_final(r))
		return true;
	/* Who is in doubt may still come and ask. */
	return is_final(r) && (r->done || now() > r->since + r->timeout);
}

static void serve(struct receive *r)
{
	unsigned int starts = 0;

	while (!is_over(r)) {
		struct pollfd fds[] = {
			{ .fd = r->server.control, .events = POLLIN },
			{ .fd = r->server.pidfd, .events = POLLIN },
			{ .fd = r->qemu ? r->qemu_fd : -1, .events = POLLIN },
		};
		bool gone = false;

		if (poll(fds, 3, WAIT_MS) > 0) {
			if (fds[2].revents) {
				reap_qemu(r);
				if (!is_final(r)) {
					msg_error("%s: it has ended",
						  r->argv[0]);
					give_up(r, "QEMU has ended");
				}
			}
			if (fds[0].revents)
				gone = !serve_packet(r);
			gone |= fds[1].revents != 0;
		}
		if (gone) {
			server_stop(&r->server);
			if (++starts == MAX_STARTS || start_server(r)) {
				msg_error("nbdkit does not live");
				break;
			}
			if (!is_final(r))
				r->since = now();
			usleep(50000);
		}
		check_time(r);
	}
	server_stop(&r->server);
}

/* Where the guest is now: here, for as long as it lasts. */
static int wait_for_qemu(struct receive *r)
{
	struct pollfd fd = { .fd = r->qemu_fd, .events = POLLIN };

	while (r->qemu) {
		if (interrupted) {
			/* For QEMU, which is to end by it in its own way. */
			kill(r->qemu, SIGTERM);
			interrupted = 0;
		}
		if (poll(&fd, 1, WAIT_MS) > 0)
			reap_qemu(r);
	}
	if (WIFSIGNALED(r->qemu_status))
		return 128 + WTERMSIG(r->qemu_status);
	return WEXITSTATUS(r->qemu_status);
}

static int set_up(struct receive *r)
{
	int fd = -1, ret;

	r->state = memfd_create("state", MFD_CLOEXEC);
	if (r->state < 0 || ftruncate(r->state, HANDOVER_MAX_STATE) < 0 ||
	    getrandom(r->session, sizeof(r->session), 0) !=
	    sizeof(r->session)) {
		ret = -errno;
		msg_errno(ret, "receive");
		return ret;
	}
	ret = slot_args_make(&r->slots);
	if (!ret)
		ret = slot_args_substitute(&r->slots, r->argv);
	if (!ret)
		ret = start_qemu(r, &fd);
	if (ret)
		return ret;
	ret = qmp_attach(&r->qmp, fd, r->argv[0], r->timeout, &interrupted);
	if (!ret)
		ret = guard_start(&r->guard, guard_act, r);
	if (!ret)
		ret = guard_tell(&r->guard, GUARD_KILL);
	if (!ret)
		ret = check_waiting(r);
	if (!ret)
		ret = check_memory(r);
	if (!ret)
		ret = vm_prepare_load(r->qmp);
	if (!ret)
		ret = listen_at(&r->listener, r->address);
	return ret ? ret : start_server(r);
}

int receive_run(struct receive *r)
{
	int status = EXIT_RUN;

	r->phase = HANDOVER_RECEIVING;
	r->state = -1;
	interrupt_catch();
	if (!set_up(r)) {
		msg_note("waiting for a guest at %s", r->address);
		serve(r);
	}
	listen_end(&r->listener);
	if (r->phase == HANDOVER_RUNNING) {
		msg_note(r->paused ? "the guest is here, paused as it was" :
				     "the guest runs here");
		guard_end(&r->guard);
		qmp_close(r->qmp);
		status = wait_for_qemu(r);
	} else {
		kill_qemu(r);
		guard_end(&r->guard);
		qmp_close(r->qmp);
		if (r->phase == HANDOVER_ABORTED)
			msg_note("no guest: %s", r->message);
	}
	if (r->state >= 0)
		close(r->state);
	return status;
}
