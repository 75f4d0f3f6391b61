// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../nbdkit/replica.h"
#include "builtin.h"
#include "interrupt.h"
#include "msg.h"
#include "qmp.h"
#include "secondary.h"
#include "shell.h"
#include "thread.h"
#include "units.h"

/* What dies at once is not started for ever, unless epochs would be lost by that. */
#define MAX_STARTS 20
#define LONG_ENOUGH 2
#define STEP_SECONDS 0.1
/* A signal is seen after it. */
#define WAIT_MS 200
/* For a server that was killed to be dead. */
#define LOCK_SECONDS 30
/* How much longer than its lease the primary is waited for, to have stopped. */
#define LEASE_MARGIN 1.1
#define LEASE_MARGIN_MS 1000

static enum store_phase phase(const struct secondary *s)
{
	return __atomic_load_n(&s->head->phase, __ATOMIC_ACQUIRE);
}

static void set_phase(struct secondary *s, enum store_phase phase)
{
	__atomic_store_n(&s->head->phase, phase, __ATOMIC_RELEASE);
}

static void note(struct secondary *s, const char *text)
{
	snprintf(s->head->message, sizeof(s->head->message), "%s", text);
}

/* ---- nbdkit ---- */

static int start_server(struct secondary *s)
{
	struct server_arg args[STORE_MAX_SLOTS + 3] = { 0 };
	unsigned int nr = 0, i;
	char silence[24];

	for (i = 0; i < s->files.nr; i++) {
		const struct store_slot *slot = &s->files.slots[i];

		args[nr++] = (struct server_arg){
			.key = "slot",
			.name = slot->name,
			.fds = { slot->slot, slot->staged, slot->log, slot->cache },
			/* Who takes no epochs must not keep a log alive, either. */
			.nr_fds = s->undo && phase(s) == STORE_REPLICA ? 4 : 2,
		};
	}
	args[nr++] = (struct server_arg){
		.key = "state",
		.fds = { s->files.state[0], s->files.state[1] },
		.nr_fds = 2,
	};
	args[nr++] = (struct server_arg){
		.key = "journal",
		.fds = { s->files.journal },
		.nr_fds = 1,
	};
	snprintf(silence, sizeof(silence), "%.0f", s->silence * 1000);
	args[nr++] = (struct server_arg){ .key = "silence", .name = silence };
	s->head->attached = 0;
	s->server_began = now();
	s->opts.server.kind = "dirtytrack-replica";
	return server_start(&s->opts.server, &s->listener, args, nr);
}

static bool has_epoch(const struct secondary *s)
{
	return __atomic_load_n(&s->head->committed, __ATOMIC_ACQUIRE);
}

/* It is dead: what it had begun, the next one finishes. */
static int restart_server(struct secondary *s)
{
	server_stop(&s->opts.server);
	if (now() > s->server_began + LONG_ENOUGH)
		s->servers = 0;
	while (!interrupted && (has_epoch(s) || s->servers < MAX_STARTS)) {
		if (s->servers < MAX_STARTS && ++s->servers == MAX_STARTS)
			msg_note("nbdkit does not live: it is tried again");
		interrupt_sleep(now() + s->servers * STEP_SECONDS / 5);
		if (!start_server(s))
			return 0;
	}
	if (!interrupted)
		msg_error("nbdkit does not live");
	return -EIO;
}

/* ---- QEMU ---- */

/* One word of memory that is shared says it, to all who come after this process. */
static bool is_let_run(const struct incoming *in, void *arg)
{
	const struct secondary *s = arg;

	return phase(s) == STORE_RUNNING && s->head->qemu == (uint64_t)in->pid;
}

static int start_qemu(struct secondary *s)
{
	int ret;

	s->qemu = (struct incoming){
		.argv = s->opts.argv,
		.slots = &s->opts.slots,
		.timeout = s->opts.timeout,
		.promised = is_let_run,
		.arg = s,
	};
	ret = incoming_start(&s->qemu);
	s->head->qemu = s->qemu.pid;
	if (ret) {
		incoming_kill(&s->qemu);
		incoming_end(&s->qemu);
	}
	return ret;
}

static void end_qemu(struct secondary *s)
{
	incoming_kill(&s->qemu);
	incoming_end(&s->qemu);
}

/* One of a worker that was killed: its guard kills it, and no other may run meanwhile. */
static int wait_for_old_qemu(struct secondary *s)
{
	struct pollfd fd = { .events = POLLIN };
	double end = now() + LOCK_SECONDS;
	int ret = 0;

	if (!s->old_qemu)
		return 0;
	fd.fd = pidfd_open(s->old_qemu, 0);
	while (fd.fd >= 0 && ret <= 0 && now() < end && !interrupted)
		ret = poll(&fd, 1, WAIT_MS);
	if (fd.fd >= 0) {
		close(fd.fd);
		if (ret <= 0) {
			msg_error("process %d, QEMU, does not end", s->old_qemu);
			return -EBUSY;
		}
	}
	s->old_qemu = 0;
	return 0;
}

/*
 * In a thread of its own: one that is slow to start, or hangs, is in the way of no epoch. Until
 * it has ended s->qemu is its own.
 */
static void *starter_main(void *arg)
{
	struct secondary *s = arg;

	s->start_error = wait_for_old_qemu(s);
	if (!s->start_error)
		s->start_error = start_qemu(s);
	__atomic_store_n(&s->started, true, __ATOMIC_RELEASE);
	return NULL;
}

static void begin_qemu(struct secondary *s)
{
	s->started = false;
	s->qemu_began = now();
	s->starting = !thread_start(&s->starter, starter_main, s);
}

/* One that has been begun, however long it takes; -errno when there is none by that. */
static int end_begin(struct secondary *s)
{
	if (!s->starting)
		return 0;
	pthread_join(s->starter, NULL);
	s->starting = false;
	if (!s->start_error)
		s->waited = true;
	return s->start_error;
}

static bool has_qemu(const struct secondary *s)
{
	return !s->starting && s->qemu.pid;
}

/* When it is tried again: the more have failed, the later. */
static void plan_qemu(struct secondary *s)
{
	if (now() > s->qemu_began + LONG_ENOUGH)
		s->qemus = 0;
	else if (s->qemus < MAX_STARTS)
		s->qemus++;
	s->qemu_next = now() + s->qemus * STEP_SECONDS * 5;
}

/* The one that waits has ended, which nobody had asked of it. */
static void lose_qemu(struct secondary *s)
{
	incoming_reap(&s->qemu);
	incoming_end(&s->qemu);
	msg_note("%s: it has ended, and is started again", s->opts.argv[0]);
	plan_qemu(s);
}

/*
 * There is one that waits, or will be.  One that does not start is an error as long as none
 * has and nothing is lost by that.
 */
static int tend_qemu(struct secondary *s)
{
	int ret;

	if (s->starting && __atomic_load_n(&s->started, __ATOMIC_ACQUIRE)) {
		ret = end_begin(s);
		if (ret && !s->waited && !has_epoch(s))
			return ret;
		if (ret) {
			msg_note("%s: none waits now: it is tried again, and by failover",
				 s->opts.argv[0]);
			plan_qemu(s);
		}
	}
	if (phase(s) == STORE_REPLICA && !s->starting && !s->qemu.pid &&
	    now() >= s->qemu_next)
		begin_qemu(s);
	return 0;
}

/* ---- taking over ---- */

static uint64_t unheard_ms(const struct secondary *s)
{
	uint64_t seen = __atomic_load_n(&s->head->seen_ms, __ATOMIC_RELAXED);

	return now() * 1000 - seen;
}

/* The primary has stopped its guest, by what it said when it attached. */
static bool is_fenced_by_lease(const struct secondary *s)
{
	uint64_t lease = __atomic_load_n(&s->head->lease_ms, __ATOMIC_ACQUIRE);

	return lease && !__atomic_load_n(&s->head->detached, __ATOMIC_ACQUIRE) &&
	       unheard_ms(s) > lease * LEASE_MARGIN + LEASE_MARGIN_MS;
}

/* No guest runs at the primary, once no server is here that it could be heard by. */
static bool is_fenced(const struct secondary *s)
{
	return s->head->forced || s->fence || is_fenced_by_lease(s);
}

/* An errno, with a message to whoever asks; or 0. */
static int check_failover(struct secondary *s, bool force)
{
	if (phase(s) != STORE_REPLICA && phase(s) != STORE_FAILED) {
		note(s, "the guest was let run here already");
		return EALREADY;
	}
	if (!s->head->committed) {
		note(s, "there is no epoch yet: the first one is not complete");
		return ENODATA;
	}
	if (force || s->fence || is_fenced_by_lease(s))
		return 0;
	if (!s->head->lease_ms || s->head->detached)
		note(s, "the guest may run at the primary, which has no lease: --fence here, or --force when it is certain that it does not");
	else
		note(s, "the guest may run at the primary, whose lease has not ended");
	return EBUSY;
}

static int fail(struct secondary *s, enum store_phase to, const char *why)
{
	note(s, why);
	msg_note("no failover: %s", why);
	if (to == STORE_FAILED)
		s->head->failed = true;
	set_phase(s, to);
	return -EIO;
}

/* The slots are the last epoch, whatever had begun; but for what others write. */
static int settle_store(struct secondary *s)
{
	struct store *store;
	int ret = store_open(&store, &s->files, LOCK_SECONDS);

	if (ret)
		msg_errno(ret, "the store");
	else
		store_close(store);
	return ret;
}

/* What a guest wrote that was here before, and what a QEMU did that failed, is undone. */
static int undo_others(struct secondary *s)
{
	uint64_t undone = s->head->undone;
	struct store *store;
	int ret;

	if (!s->undo)
		return 0;
	ret = store_open(&store, &s->files, LOCK_SECONDS);
	if (!ret) {
		ret = store_undo(store);
		store_close(store);
	}
	if (ret == -EBUSY)
		return fail(s, STORE_FAILED, "somebody keeps writing to the slots here");
	if (ret)
		return fail(s, STORE_FAILED, "what others wrote cannot be undone");
	undone = s->head->undone - undone;
	if (undone)
		msg_note("%" PRIu64 " pages that others had written were restored", undone);
	return 0;
}

/*
 * The guest runs here: nothing is undone any more, and its writes are not to be slowed down
 * by a log, which ends when all who have it let go.
 */
static void end_undo(struct secondary *s)
{
	unsigned int i;

	for (i = 0; s->undo && i < s->files.nr; i++) {
		close(s->files.slots[i].log);
		close(s->files.slots[i].cache);
		s->files.slots[i].log = s->files.slots[i].cache = -1;
	}
	s->undo = false;
}

static int check_sum(struct secondary *s, const struct store_epoch *epoch)
{
	uint64_t sum;

	if (!epoch->has_checksum)
		return 0;
	if (store_checksum(&s->files, &sum))
		return fail(s, STORE_FAILED, "memory cannot be read");
	if (sum != epoch->checksum)
		return fail(s, STORE_FAILED, "memory is not what the primary sent");
	msg_note("memory is what the primary sent, by its checksum");
	return 0;
}

static int let_run(struct secondary *s)
{
	const struct store_epoch *epoch;
	uint64_t number;

	if (wait_for_old_qemu(s))
		return fail(s, STORE_FAILED, msg_last());
	if (undo_others(s))
		return -EIO;
	number = s->head->committed;
	epoch = &s->head->epochs[number % 2];
	if (check_sum(s, epoch))
		return -EIO;
	if (!s->qemu.pid && start_qemu(s))
		return fail(s, STORE_FAILED, msg_last());
	if (vm_state_load(&s->qemu.state, s->files.state[number % 2],
			  epoch->state_size, s->opts.timeout)) {
		end_qemu(s);
		return fail(s, STORE_FAILED, interrupted ? "interrupted" : msg_last());
	}
	/* From here on it is said to run here, and its guard sees to that. */
	set_phase(s, STORE_RUNNING);
	if (incoming_cont(&s->qemu)) {
		/* From a QEMU that does not answer, one that runs nothing is made. */
		end_qemu(s);
		return fail(s, STORE_FAILED, interrupted ? "interrupted" : msg_last());
	}
	s->head->ran = true;
	vm_state_reset(s->qemu.qmp);
	incoming_leave(&s->qemu);
	incoming_end(&s->qemu);
	end_undo(s);
	msg_note("the guest runs here, from epoch %" PRIu64, number);
	return 0;
}

/* As it was before.  A slot that a guest was about to run on takes no epochs any more. */
static int give_up(struct secondary *s, const char *why)
{
	server_stop(&s->opts.server);
	fail(s, s->head->failed ? STORE_FAILED : STORE_REPLICA, why);
	return start_server(s);
}

/*
 * No epoch is taken from here on: the server that might is dead, and the next one says
 * only what becomes of this.  Until it was dead it may have answered the primary, whose
 * guest goes on by that: so only now is it known whether the lease has ended.
 */
static int failover(struct secondary *s)
{
	int ret;

	server_stop(&s->opts.server);
	if (!is_fenced(s))
		return give_up(s, "the primary was heard of again");
	if (s->automatic && !s->asked)
		msg_note("nothing was heard of the primary for %.1f s",
			 unheard_ms(s) / 1000.0);
	ret = start_server(s);
	/* However it went. A guard that it forks would keep the lock of a store that is open. */
	end_begin(s);
	if (!ret && s->fence && !s->head->forced && shell_run(s->fence))
		return give_up(s, "the fence command failed");
	if (!ret)
		ret = settle_store(s);
	if (ret)
		return ret;
	/* Its failure is for whoever asks for the status. */
	let_run(s);
	return 0;
}

/* It is in the journal, with all that whoever goes on with it has to know. */
static void decide(struct secondary *s, bool asked, bool force)
{
	s->asked = asked;
	s->head->forced = force;
	set_phase(s, STORE_FAILING_OVER);
}

/* ---- what is asked ---- */

/* A packet of the plugin.  False when there will be none any more. */
static bool serve_packet(struct secondary *s, bool *begun)
{
	struct failover_packet packet;
	struct failover_answer answer;
	ssize_t n = recv(s->opts.server.control, &packet, sizeof(packet),
			 MSG_DONTWAIT);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n != sizeof(packet))
		return false;
	answer.error = check_failover(s, packet.force);
	if (!answer.error) {
		note(s, "");
		decide(s, true, packet.force);
		*begun = true;
	}
	return send(s->opts.server.control, &answer, sizeof(answer),
		    MSG_NOSIGNAL) == sizeof(answer);
}

/* The primary was lost, and nobody had to ask. */
static bool is_due(struct secondary *s)
{
	if (!s->automatic || phase(s) != STORE_REPLICA || s->head->detached ||
	    !s->head->committed || unheard_ms(s) < s->automatic * 1000 ||
	    now() < s->tried + s->automatic)
		return false;
	s->tried = now();
	if (check_failover(s, false))
		return false;
	decide(s, false, false);
	return true;
}

/* ---- the worker ---- */

static bool has_ended(struct secondary *s)
{
	struct pollfd fd = { .fd = s->guest_fd, .events = POLLIN };

	if (phase(s) != STORE_RUNNING)
		return false;
	if (s->guest_fd >= 0)
		return poll(&fd, 1, 0) > 0;
	return !s->qemu.pid;
}

/* For the guest, if it is here, to end by it in its own way. */
static bool pass_signal(struct secondary *s)
{
	if (phase(s) != STORE_RUNNING)
		return false;
	pidfd_send_signal(s->guest_fd >= 0 ? s->guest_fd : s->qemu.pidfd, SIGTERM,
			  NULL, 0);
	interrupted = 0;
	return true;
}

static void check_supervisor(struct secondary *s)
{
	if (s->orphan || getppid() == s->supervisor)
		return;
	s->orphan = true;
	msg_note("the process that kept the slots was killed: this one goes on");
}

static int serve(struct secondary *s)
{
	while (!has_ended(s)) {
		struct pollfd fds[] = {
			{ .fd = s->opts.server.control, .events = POLLIN },
			{ .fd = s->opts.server.pidfd, .events = POLLIN },
			{ .fd = has_qemu(s) ? s->qemu.pidfd : -1, .events = POLLIN },
		};
		bool gone = false, begun = false;
		int ret = 0;

		if (interrupted && !pass_signal(s))
			return EXIT_RUN;
		if (poll(fds, 3, WAIT_MS) > 0) {
			if (fds[2].revents && phase(s) == STORE_RUNNING)
				incoming_reap(&s->qemu);
			else if (fds[2].revents)
				lose_qemu(s);
			if (fds[0].revents)
				gone = !serve_packet(s, &begun);
			gone |= fds[1].revents != 0;
		}
		check_supervisor(s);
		if (begun || is_due(s))
			ret = failover(s);
		else if (gone)
			ret = restart_server(s);
		if (!ret)
			ret = tend_qemu(s);
		if (ret)
			return EXIT_RUN;
	}
	if (s->guest_fd >= 0)
		return EXIT_OK;
	return incoming_wait(&s->qemu);
}

static int begin_work(struct secondary *s)
{
	int ret = settle_store(s);

	if (ret)
		return ret;
	if (phase(s) == STORE_RUNNING) {
		/* By the guard of who decided it, if not by him. */
		s->head->ran = true;
		end_undo(s);
		s->guest_fd = pidfd_open(s->head->qemu, 0);
		return s->guest_fd < 0 ? -ESRCH : start_server(s);
	}
	s->old_qemu = s->head->qemu;
	/* The QEMU that had begun was killed with who began it. */
	if (phase(s) == STORE_FAILING_OVER)
		return failover(s);
	/* QEMU comes after it, as it may take its time. */
	return start_server(s);
}

static int work(struct secondary *s)
{
	int status = EXIT_RUN;

	s->guest_fd = -1;
	if (!begin_work(s))
		status = serve(s);
	server_stop(&s->opts.server);
	end_begin(s);
	if (phase(s) != STORE_RUNNING)
		end_qemu(s);
	if (s->orphan)
		listen_end(&s->listener);
	return status;
}

/* ---- the supervisor ---- */

/* What others write is in a log from the first page on. */
static int set_up_slot(struct secondary *s, const struct slot_arg *arg)
{
	struct store_slot *slot = &s->files.slots[s->files.nr++];

	memcpy(slot->name, arg->name, sizeof(slot->name));
	slot->slot = arg->fd;
	slot->log = s->undo ? dtrack_log_create(arg->fd, 0) : -1;
	if (!s->undo || slot->log >= 0)
		return 0;
	msg_errno(slot->log, "slot %s: cannot make a log", arg->name);
	return slot->log;
}

/* They are in parameters of nbdkit, before a ':', and are exports beside others. */
static int check_names(const struct slot_args *slots)
{
	unsigned int i;

	for (i = 0; i < slots->nr; i++) {
		const char *name = slots->slots[i].name;

		if (strchr(name, ':') || !strcmp(name, REPLICA_STATE) ||
		    !strcmp(name, REPLICA_CONTROL)) {
			msg_error("slot %s: a secondary's cannot have that name: '" REPLICA_STATE
				  "', '" REPLICA_CONTROL "' and ':' have another meaning",
				  name);
			return -EINVAL;
		}
	}
	return 0;
}

static int set_up(struct secondary *s)
{
	struct slot_args *slots = &s->opts.slots;
	unsigned int i;
	int ret = check_names(slots);

	if (!ret)
		ret = slot_args_make(slots);
	if (!ret)
		ret = slot_args_substitute(slots, s->opts.argv);
	for (i = 0; i < slots->nr && !ret; i++)
		ret = set_up_slot(s, &slots->slots[i]);
	if (ret)
		return ret;
	ret = store_create(&s->files);
	if (!ret)
		ret = store_map_head(s->files.journal, &s->head);
	if (ret) {
		msg_errno(ret, "the store");
		return ret;
	}
	return listen_at(&s->listener, s->opts.address);
}

static int wait_worker(struct secondary *s, pid_t pid)
{
	struct pollfd fd = { .fd = pidfd_open(pid, 0), .events = POLLIN };
	sig_atomic_t passed = 0;
	int status = 0;

	while (poll(&fd, 1, WAIT_MS) <= 0) {
		if (s->head->ran)
			end_undo(s);
		if (interrupted == passed)
			continue;
		passed = interrupted;
		kill(pid, passed);
	}
	close(fd.fd);
	waitpid(pid, &status, 0);
	return status;
}

/* What has failed is no reason to lose epochs: the guest may need them. */
static bool is_final(const struct secondary *s, int status, unsigned int starts)
{
	if (interrupted)
		return true;
	if (WIFSIGNALED(status))
		return !has_epoch(s) && starts >= MAX_STARTS;
	return !has_epoch(s) || phase(s) == STORE_RUNNING;
}

static int supervise(struct secondary *s)
{
	unsigned int starts = 0;
	int status;

	for (;;) {
		double started = now();
		pid_t pid;

		fflush(NULL);
		pid = fork();
		if (pid < 0) {
			msg_errno(errno, "fork");
			return EXIT_RUN;
		}
		if (!pid) {
			s->supervisor = getppid();
			_exit(work(s));
		}
		status = wait_worker(s, pid);
		starts = now() > started + LONG_ENOUGH ? 0 : starts + 1;
		if (is_final(s, status, starts))
			break;
		msg_note("%s: another one goes on", WIFSIGNALED(status) ?
			 strsignal(WTERMSIG(status)) : "it failed");
		interrupt_sleep(now() + (starts < MAX_STARTS ? starts : MAX_STARTS) *
				STEP_SECONDS);
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int secondary_run(struct secondary *s)
{
	int status = EXIT_RUN;

	interrupt_catch();
	if (!set_up(s)) {
		msg_note("waiting for epochs at %s", s->opts.address);
		status = supervise(s);
	}
	listen_end(&s->listener);
	return status;
}
