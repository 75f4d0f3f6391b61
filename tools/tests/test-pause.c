// SPDX-License-Identifier: GPL-2.0-only
/* Pausing processes, and that they run again whatever becomes of who paused. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../dirtytrack/msg.h"
#include "../dirtytrack/pause.h"
#include "../dirtytrack/units.h"
#include "tap.h"

#define NR_THREADS 4

/* What the guest's threads count, shared with the tests. */
static volatile unsigned long *counters;

static void *count(void *arg)
{
	volatile unsigned long *counter = arg;

	for (;;) {
		++*counter;
		if (!(*counter % 1000))
			usleep(100);
	}
	return NULL;
}

static pid_t start_guest(void)
{
	pthread_t thread;
	pid_t pid;
	int i;

	memset((void *)counters, 0, NR_THREADS * sizeof(*counters));
	pid = fork();
	if (pid)
		return pid;
	for (i = 1; i < NR_THREADS; i++)
		pthread_create(&thread, NULL, count, (void *)&counters[i]);
	count((void *)&counters[0]);
	_exit(0);
}

static void end_guest(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static unsigned long sum(void)
{
	unsigned long s = 0;
	int i;

	for (i = 0; i < NR_THREADS; i++)
		s += counters[i];
	return s;
}

/* Do the counters move within @seconds? */
static bool runs(double seconds)
{
	double end = now() + seconds;
	unsigned long before = sum();

	while (now() < end) {
		if (sum() != before)
			return true;
		usleep(1000);
	}
	return false;
}

static void stopped_when_it_returns(void)
{
	pid_t pid = start_guest();
	struct pause *p = pause_by_signal(&pid, 1, 5);
	int i;

	CHECK(p);
	for (i = 0; i < 20; i++) {
		CHECK(runs(10));
		CHECK_EQ(pause_begin(p), 0);
		CHECK(!runs(0.01));
		CHECK_EQ(pause_end(p), 0);
	}
	CHECK(runs(10));
	pause_free(p);
	end_guest(pid);
}

static void free_resumes(void)
{
	pid_t pid = start_guest();
	struct pause *p = pause_by_signal(&pid, 1, 5);

	CHECK(p);
	CHECK_EQ(pause_guard(p), 0);
	CHECK_EQ(pause_begin(p), 0);
	CHECK(!runs(0.05));
	pause_free(p);
	CHECK(runs(10));
	end_guest(pid);
}

/* Somebody else's stop is left alone. */
static void stopped_before_stays_so(void)
{
	pid_t pid = start_guest();
	struct pause *p;
	int status;

	kill(pid, SIGSTOP);
	CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
	CHECK(WIFSTOPPED(status));
	p = pause_by_signal(&pid, 1, 5);
	CHECK(p);
	CHECK_EQ(pause_begin(p), 0);
	CHECK_EQ(pause_end(p), 0);
	CHECK(!runs(0.05));
	pause_free(p);
	end_guest(pid);
}

static void one_of_two_is_gone(void)
{
	pid_t pids[2] = { start_guest(), fork() };
	struct pause *p;

	if (!pids[1]) {
		pause();
		_exit(0);
	}
	p = pause_by_signal(pids, 2, 5);
	CHECK(p);
	end_guest(pids[1]);
	CHECK_EQ(pause_begin(p), -ESRCH);
	CHECK(strstr(msg_last(), "has ended"));
	pause_end(p);
	CHECK(runs(10));
	pause_free(p);
	end_guest(pids[0]);
}

/* Dead, but not waited for: it takes signals and will never stop. */
static void zombie(void)
{
	struct pause *p;
	siginfo_t info;
	pid_t pid = start_guest();

	p = pause_by_signal(&pid, 1, 5);
	CHECK(p);
	kill(pid, SIGKILL);
	CHECK_EQ(waitid(P_PID, pid, &info, WEXITED | WNOWAIT), 0);
	CHECK_EQ(pause_begin(p), -ESRCH);
	pause_free(p);
	waitpid(pid, NULL, 0);
}

static void no_such_process(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	CHECK(!pause_by_signal(&pid, 1, 5));
	CHECK(strstr(msg_last(), "No such process"));
}

/* A child that pauses and is killed: the guard resumes. */
static void killed_while_paused(void)
{
	pid_t guest = start_guest();
	pid_t tool = fork();
	int status;

	CHECK(tool >= 0);
	if (!tool) {
		struct pause *p = pause_by_signal(&guest, 1, 5);

		if (!p || pause_guard(p) || pause_begin(p))
			_exit(1);
		raise(SIGKILL);
	}
	CHECK_EQ(waitpid(tool, &status, 0), tool);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(runs(10));
	/* For good: nothing pauses it again. */
	usleep(50000);
	CHECK(runs(10));
	end_guest(guest);
}

/*
 * Another command has the guest paused, and then resumes it, or is killed.  Ours waits for
 * that, and nobody resumes under it.
 */
static void one_at_a_time(void)
{
	int killed;

	for (killed = 0; killed < 2; killed++) {
		pid_t guest = start_guest();
		struct pause *p = pause_by_signal(&guest, 1, 5);
		double start;
		int fds[2];
		pid_t other;
		char c;

		CHECK(p);
		CHECK_EQ(pipe(fds), 0);
		other = fork();
		CHECK(other >= 0);
		if (!other) {
			struct pause *q = pause_by_signal(&guest, 1, 5);

			if (!q || pause_guard(q) || pause_begin(q) ||
			    write(fds[1], "p", 1) != 1)
				_exit(1);
			usleep(200000);
			if (killed)
				raise(SIGKILL);
			_exit(pause_end(q) ? 1 : 0);
		}
		CHECK_EQ(read(fds[0], &c, 1), 1);
		start = now();
		CHECK_EQ(pause_begin(p), 0);
		CHECK(now() - start > 0.1);
		CHECK(!runs(0.2));
		CHECK_EQ(pause_end(p), 0);
		CHECK(runs(10));
		CHECK_EQ(waitpid(other, NULL, 0), other);
		pause_free(p);
		close(fds[0]);
		close(fds[1]);
		end_guest(guest);
	}
}

/* Killed with its whole process group, when the guest is not paused: no guard
 * stays, and none of the guest's state is touched.
 */
static void killed_while_not_paused(void)
{
	pid_t guest = start_guest();
	int fds[2], status;
	pid_t tool;
	char c;

	CHECK_EQ(pipe(fds), 0);
	tool = fork();
	CHECK(tool >= 0);
	if (!tool) {
		struct pause *p = pause_by_signal(&guest, 1, 5);

		setpgid(0, 0);
		close(fds[0]);
		if (!p || pause_guard(p) || pause_begin(p) || pause_end(p))
			_exit(1);
		kill(0, SIGKILL);
	}
	close(fds[1]);
	CHECK_EQ(waitpid(tool, &status, 0), tool);
	CHECK(WIFSIGNALED(status));
	/* The guard had the other end of this pipe, too. */
	CHECK_EQ(read(fds[0], &c, 1), 0);
	CHECK(runs(10));
	close(fds[0]);
	end_guest(guest);
}

static void commands(void)
{
	char dir[] = "/tmp/dirtytrack-pause.XXXXXX";
	char on[100], off[100], flag[64];
	struct pause *p;

	CHECK(mkdtemp(dir));
	snprintf(flag, sizeof(flag), "%s/flag", dir);
	snprintf(on, sizeof(on), "echo ignored; : >'%s'", flag);
	snprintf(off, sizeof(off), "rm '%s'", flag);
	p = pause_by_command(on, off);
	CHECK(p);
	CHECK_EQ(pause_guard(p), 0);
	CHECK_EQ(pause_begin(p), 0);
	CHECK_EQ(access(flag, F_OK), 0);
	CHECK_EQ(pause_end(p), 0);
	CHECK(access(flag, F_OK) < 0);
	/* Nothing to remove now. */
	CHECK_EQ(pause_begin(p), 0);
	unlink(flag);
	CHECK_EQ(pause_end(p), -EREMOTEIO);
	CHECK(strstr(msg_last(), "it failed with status 1"));
	pause_free(p);

	p = pause_by_command("kill -TERM $$", "true");
	CHECK_EQ(pause_begin(p), -EREMOTEIO);
	CHECK(strstr(msg_last(), "killed by Terminated"));
	pause_free(p);
	rmdir(dir);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(stopped_when_it_returns),
		TAP_TEST(free_resumes),
		TAP_TEST(stopped_before_stays_so),
		TAP_TEST(one_of_two_is_gone),
		TAP_TEST(zombie),
		TAP_TEST(no_such_process),
		TAP_TEST(killed_while_paused),
		TAP_TEST(killed_while_not_paused),
		TAP_TEST(one_at_a_time),
		TAP_TEST(commands),
	};

	counters = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counters == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	msg_silence();
	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
