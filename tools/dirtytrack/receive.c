// SPDX-License-Identifier: GPL-2.0-only
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "qmp.h"
#include "receive.h"
#include "units.h"

/* A server that cannot live is not started for ever. */
#define MAX_STARTS 20
/* A signal is seen after it. */
#define WAIT_MS 200

static bool is_final(const struct receive *r)
{
	return r->phase == HANDOVER_RUNNING || r->phase == HANDOVER_ABORTED;
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
	incoming_kill(&r->qemu);
	incoming_leave(&r->qemu);
	set_phase(r, HANDOVER_ABORTED);
}

static int do_load(struct receive *r, uint64_t size)
{
	if (r->phase != HANDOVER_RECEIVING)
		return EBUSY;
	if (size > HANDOVER_MAX_STATE)
		return EINVAL;
	if (vm_state_load(&r->qemu.state, r->state, size, r->opts.timeout)) {
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
		if (incoming_promise(&r->qemu)) {
			give_up(r, "the receiver's guard is gone");
			return EIO;
		}
		/* From a QEMU that does not answer, one that runs nothing is made. */
		if (incoming_cont(&r->qemu)) {
			give_up(r, msg_last());
			return EIO;
		}
		/* One that was meant for a QEMU without a guest is not for one with it. */
		interrupted = 0;
	}
	incoming_leave(&r->qemu);
	set_phase(r, HANDOVER_RUNNING);
	return 0;
}

/* A sender that has gone for good without a word is given up with all else (check_time). */
static int do_claim(struct receive *r, const struct handover_command *command)
{
	if (r->phase != HANDOVER_RECEIVING)
		return EBUSY;
	memcpy(r->sender, command->sender, sizeof(r->sender));
	r->claimed = true;
	return 0;
}

static int do_done(struct receive *r)
{
	if (r->phase == HANDOVER_RECEIVING)
		r->claimed = false;
	r->done = is_final(r);
	return 0;
}

static bool is_senders(const struct receive *r, const struct handover_command *command)
{
	return r->claimed && !memcmp(command->sender, r->sender, sizeof(r->sender));
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
	if (!is_senders(r, command) &&
	    (r->claimed || le32toh(command->verb) != HANDOVER_CLAIM)) {
		note_message(r, r->claimed ? "another sender has the receiver" :
					     "the sender has not claimed the receiver");
		return EBUSY;
	}
	switch (le32toh(command->verb)) {
	case HANDOVER_CLAIM:
		return do_claim(r, command);
	case HANDOVER_LOAD:
		return do_load(r, le64toh(command->size));
	case HANDOVER_RUN:
		return do_run(r, le64toh(command->size));
	case HANDOVER_ABORT:
		if (r->phase == HANDOVER_RUNNING) {
			note_message(r, "the guest is here already");
			return EPERM;
		}
		if (r->phase != HANDOVER_ABORTED)
			give_up(r, "the sender gave up");
		return 0;
	case HANDOVER_DONE:
		return do_done(r);
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
	ssize_t n = recv(r->opts.server.control, &packet, sizeof(packet),
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
	n = send(r->opts.server.control, &answer, sizeof(answer), MSG_NOSIGNAL);
	/* When the sender, who counts the time, has his answer. */
	if (r->phase == HANDOVER_RUNNING && !r->settled) {
		vm_state_reset(r->qemu.qmp);
		r->settled = true;
	}
	return n == sizeof(answer);
}

/* ---- the loop ---- */

static int start_server(struct receive *r)
{
	struct server_arg args[MAX_SLOTS + 1] = { 0 };
	unsigned int nr = 0, i;

	r->clients = 0;
	/* The guest's memory is nobody else's any more when it is here. */
	for (i = 0; i < r->opts.slots.nr && !is_final(r); i++)
		args[nr++] = (struct server_arg){
			.key = "fd",
			.name = r->opts.slots.slots[i].name,
			.fds = { r->opts.slots.slots[i].fd },
			.nr_fds = 1,
		};
	if (nr)
		args[nr++] = (struct server_arg){
			.key = "fd",
			.name = HANDOVER_STATE,
			.fds = { r->state },
			.nr_fds = 1,
		};
	r->opts.server.kind = "dirtytrack";
	return server_start(&r->opts.server, &r->listener, args, nr);
}

static void check_time(struct receive *r)
{
	char text[HANDOVER_MESSAGE_LEN];

	if (is_final(r) || !r->seen || r->clients ||
	    now() < r->since + r->opts.timeout)
		return;
	snprintf(text, sizeof(text), "no sender for %g s", r->opts.timeout);
	msg_error("%s", text);
	give_up(r, text);
}

static bool is_over(const struct receive *r)
{
	if (interrupted && !is_final(r))
		return true;
	/* Who is in doubt may still come and ask. */
	return is_final(r) && (r->done || now() > r->since + r->opts.timeout);
}

static void serve(struct receive *r)
{
	unsigned int starts = 0;

	while (!is_over(r)) {
		struct pollfd fds[] = {
			{ .fd = r->opts.server.control, .events = POLLIN },
			{ .fd = r->opts.server.pidfd, .events = POLLIN },
			{ .fd = r->qemu.pid ? r->qemu.pidfd : -1, .events = POLLIN },
		};
		bool gone = false;

		if (poll(fds, 3, WAIT_MS) > 0) {
			if (fds[2].revents) {
				incoming_reap(&r->qemu);
				if (!is_final(r)) {
					msg_error("%s: it has ended",
						  r->opts.argv[0]);
					give_up(r, "QEMU has ended");
				}
			}
			if (fds[0].revents)
				gone = !serve_packet(r);
			gone |= fds[1].revents != 0;
		}
		if (gone) {
			server_stop(&r->opts.server);
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
	server_stop(&r->opts.server);
}

static int set_up(struct receive *r)
{
	int ret;

	r->state = memfd_create("state", MFD_CLOEXEC);
	if (r->state < 0 || ftruncate(r->state, HANDOVER_MAX_STATE) < 0 ||
	    getrandom(r->session, sizeof(r->session), 0) !=
	    sizeof(r->session)) {
		ret = -errno;
		msg_errno(ret, "receive");
		return ret;
	}
	ret = slot_args_make(&r->opts.slots);
	if (!ret)
		ret = slot_args_substitute(&r->opts.slots, r->opts.argv);
	if (ret)
		return ret;
	r->qemu = (struct incoming){
		.argv = r->opts.argv,
		.slots = &r->opts.slots,
		.timeout = r->opts.timeout,
	};
	ret = incoming_start(&r->qemu);
	if (!ret)
		ret = listen_at(&r->listener, r->opts.address);
	return ret ? ret : start_server(r);
}

int receive_run(struct receive *r)
{
	int status = EXIT_RUN;

	r->phase = HANDOVER_RECEIVING;
	r->state = -1;
	interrupt_catch();
	if (!set_up(r)) {
		msg_note("waiting for a guest at %s", r->opts.address);
		serve(r);
	}
	listen_end(&r->listener);
	if (r->phase == HANDOVER_RUNNING) {
		msg_note(r->paused ? "the guest is here, paused as it was" :
				     "the guest runs here");
		incoming_end(&r->qemu);
		status = incoming_wait(&r->qemu);
	} else {
		incoming_kill(&r->qemu);
		incoming_end(&r->qemu);
		if (r->phase == HANDOVER_ABORTED)
			msg_note("no guest: %s", r->message);
	}
	if (r->state >= 0)
		close(r->state);
	return status;
}
