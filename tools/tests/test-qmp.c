// SPDX-License-Identifier: GPL-2.0-only
/*
 * The QMP client against a server that follows a script: what it sends, and what
 * it waits for before it goes on.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "../dirtytrack/msg.h"
#include "../dirtytrack/qmp.h"
#include "../dirtytrack/units.h"
#include "tap.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define NEGOTIATED GREETING, WAIT, "{\"return\": {}, \"id\": 1}\r\n"
#define TIMEOUT 0.3

/* Steps of a script that are not text to be sent. */
static const char WAIT[] = "wait for a command";
static const char PAUSE[] = "let time pass";
static const char STAY[] = "stay, and say nothing";

static void play(int fd, const char *const *script)
{
	char buf[1024];

	for (; *script; script++) {
		if (*script == WAIT) {
			if (read(fd, buf, sizeof(buf)) <= 0)
				_exit(1);
		} else if (*script == PAUSE) {
			usleep(20000);
		} else if (*script == STAY) {
			while (read(fd, buf, sizeof(buf)) > 0)
				;
			_exit(0);
		} else if (send(fd, *script, strlen(*script),
				MSG_NOSIGNAL) < 0) {
			_exit(1);
		}
	}
	_exit(0);
}

static pid_t server;

static int start(const char *const *script)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	server = fork();
	if (server < 0)
		return -1;
	if (!server) {
		close(fds[0]);
		play(fds[1], script);
	}
	close(fds[1]);
	msg_forget();
	return fds[0];
}

static void stop(struct qmp *qmp)
{
	qmp_close(qmp);
	waitpid(server, NULL, 0);
}

/* What connecting to a server that follows the script results in. */
static int attach(const char *const *script)
{
	struct qmp *qmp = NULL;
	int ret = qmp_attach(&qmp, start(script), "test", TIMEOUT, NULL);

	stop(ret ? NULL : qmp);
	return ret;
}

/* What a command results in, after a connection that works. */
static int command(const char *const *script)
{
	struct qmp *qmp;
	int ret = qmp_attach(&qmp, start(script), "test", TIMEOUT, NULL);

	if (ret)
		return -ENOTCONN;
	ret = qmp_command(qmp, "stop", NULL);
	stop(qmp);
	return ret;
}

static void command_and_result(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT,
		"{\"return\": {\"running\": true}, \"id\": 2}\r\n", NULL
	};
	struct json_object *result = NULL, *value;
	struct qmp *qmp;

	CHECK_EQ(qmp_attach(&qmp, start(script), "test", TIMEOUT, NULL), 0);
	CHECK_EQ(qmp_command(qmp, "query-status", &result), 0);
	CHECK(json_object_object_get_ex(result, "running", &value));
	CHECK(json_object_get_boolean(value));
	json_object_put(result);
	stop(qmp);
}

static void events_are_skipped(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT,
		"{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\"}\r\n"
		"{\"event\": \"RESUME\", \"data\": {\"id\": 2}}\r\n",
		"{\"return\": {}, \"id\": 2}\r\n{\"event\": \"STOP\"}\r\n", NULL
	};

	CHECK_EQ(command(script), 0);
}

/* What on_event() was told. */
static struct {
	unsigned int nr;
	char names[64];
	int value;
	bool seen;
} told;

static void on_event(void *arg, const char *name, struct json_object *data)
{
	struct json_object *value;

	told.nr++;
	strcat(told.names, name);
	if (data && json_object_object_get_ex(data, "n", &value))
		told.value = json_object_get_int(value);
	told.seen = told.seen || !strcmp(name, arg);
}

/* Those that come while something else is waited for, too. */
static void events_are_told(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT,
		"{\"event\": \"A\"}{\"event\": \"B\", \"data\": {\"n\": 7}}",
		"{\"return\": {}, \"id\": 2}", PAUSE, "{\"event\": \"C\"}",
		PAUSE, "{\"event\": \"D\"}{\"event\": \"E\"}", STAY, NULL
	};
	static char wanted[] = "D", never[] = "F";
	bool late = false;
	struct qmp *qmp;

	memset(&told, 0, sizeof(told));
	CHECK_EQ(qmp_attach(&qmp, start(script), "test", TIMEOUT, NULL), 0);
	qmp_on_event(qmp, on_event, wanted);
	CHECK_EQ(qmp_command(qmp, "stop", NULL), 0);
	CHECK_EQ(told.value, 7);
	CHECK(!told.seen);
	CHECK_EQ(qmp_wait(qmp, "event", &told.seen), 0);
	CHECK(told.seen);
	CHECK(!strcmp(told.names, "ABCD"));
	/* It is there already: nothing to wait for. */
	CHECK_EQ(qmp_wait(qmp, "event", &told.seen), 0);
	CHECK(!strcmp(told.names, "ABCD"));
	qmp_on_event(qmp, on_event, never);
	CHECK_EQ(qmp_wait(qmp, "event", &late), -ETIMEDOUT);
	CHECK(!strcmp(told.names, "ABCDE"));
	stop(qmp);
}

/* A message may come in any pieces, and two in one. */
static void pieces(void)
{
	static const char *const script[] = {
		"{\"QMP\": {\"ver", PAUSE, "sion\": {}, \"capabilities\": []}",
		PAUSE, "}", PAUSE, "\r\n\r\n", WAIT,
		"{\"return\"", PAUSE, ": {}, \"id\": 1}{\"event\":\"A\"}", WAIT,
		"{\"event\": \"}{\\\"\"} {\"return\": {}, \"id\":", PAUSE,
		" 2}", NULL
	};

	CHECK_EQ(command(script), 0);
}

static void refusal(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT,
		"{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}, \"id\": 2}\r\n",
		NULL
	};

	CHECK_EQ(command(script), -EREMOTEIO);
	CHECK(!strcmp(msg_last(), "test: stop: refused: not now"));
}

static void end_of_file(void)
{
	static const char *const no_greeting[] = { NULL };
	static const char *const half_greeting[] = { "{\"QMP\": ", NULL };
	static const char *const no_reply[] = { NEGOTIATED, WAIT, NULL };
	static const char *const half_reply[] = {
		NEGOTIATED, WAIT, "{\"return\": {", NULL
	};

	CHECK_EQ(attach(no_greeting), -ECONNRESET);
	CHECK_EQ(attach(half_greeting), -ECONNRESET);
	CHECK_EQ(command(no_reply), -ECONNRESET);
	CHECK_EQ(command(half_reply), -ECONNRESET);
	CHECK(strstr(msg_last(), "test: stop: the other side has closed"));
}

static void not_qmp(void)
{
	static const char *const garbage[] = { "SSH-2.0-OpenSSH\r\n", STAY, NULL };
	static const char *const list[] = { "[1, 2]\r\n", STAY, NULL };
	static const char *const text[] = { "\"QMP\"\r\n", STAY, NULL };
	static const char *const other[] = { "{\"hello\": 1}\r\n", STAY, NULL };
	static const char *const empty[] = {
		NEGOTIATED, WAIT, "{\"id\": 2}\r\n", STAY, NULL
	};

	CHECK_EQ(attach(garbage), -EPROTO);
	CHECK_EQ(attach(list), -EPROTO);
	CHECK_EQ(attach(text), -EPROTO);
	CHECK_EQ(attach(other), -EPROTO);
	CHECK_EQ(command(empty), -EPROTO);
	CHECK(strstr(msg_last(), "does not speak QMP"));
}

/* A message without end is refused, not collected for ever. */
static void endless_message(void)
{
	struct qmp *qmp;
	char block[4096];
	int fds[2], ret;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	server = fork();
	CHECK(server >= 0);
	if (!server) {
		close(fds[0]);
		memset(block, 'x', sizeof(block));
		block[0] = '"';
		while (send(fds[1], block, sizeof(block), MSG_NOSIGNAL) > 0)
			block[0] = 'x';
		_exit(0);
	}
	close(fds[1]);
	ret = qmp_attach(&qmp, fds[0], "test", 20, NULL);
	waitpid(server, NULL, 0);
	CHECK_EQ(ret, -EPROTO);
}

static void timeouts(void)
{
	static const char *const no_greeting[] = { STAY, NULL };
	static const char *const no_capabilities[] = { GREETING, STAY, NULL };
	static const char *const no_reply[] = { NEGOTIATED, STAY, NULL };
	double start_time = now();

	CHECK_EQ(attach(no_greeting), -ETIMEDOUT);
	CHECK(strstr(msg_last(), "another client"));
	CHECK_EQ(attach(no_capabilities), -ETIMEDOUT);
	CHECK_EQ(command(no_reply), -ETIMEDOUT);
	CHECK(strstr(msg_last(), "no answer in 0.3 s"));
	CHECK(now() - start_time >= 3 * TIMEOUT);
	CHECK(now() - start_time < 3 * TIMEOUT + 10);
}

/* Events for ever are no reason to wait for ever. */
static void timeout_among_events(void)
{
	struct qmp *qmp;
	int fds[2], ret;

	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	server = fork();
	CHECK(server >= 0);
	if (!server) {
		close(fds[0]);
		dprintf(fds[1], GREETING);
		signal(SIGPIPE, SIG_DFL);
		for (;;) {
			dprintf(fds[1], "{\"event\": \"TICK\"}\r\n");
			usleep(10000);
		}
	}
	close(fds[1]);
	ret = qmp_attach(&qmp, fds[0], "test", TIMEOUT, NULL);
	waitpid(server, NULL, 0);
	CHECK_EQ(ret, -ETIMEDOUT);
}

static volatile sig_atomic_t cancel;

static void on_alarm(int sig)
{
	cancel = sig;
}

/* SIGUSR1 from a child, which the caller need not wait for. */
static void alarm_in(unsigned int microseconds)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	pid_t parent = getpid();

	sigaction(SIGUSR1, &sa, NULL);
	if (!fork()) {
		usleep(microseconds);
		kill(parent, SIGUSR1);
		_exit(0);
	}
}

/* A command that was given up does not confuse the next one. */
static void late_reply(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT, WAIT,
		"{\"return\": {\"late\": 1}, \"id\": 2}\r\n"
		"{\"error\": {\"desc\": \"of the second\"}, \"id\": 3}\r\n",
		NULL
	};
	struct qmp *qmp;

	CHECK_EQ(qmp_attach(&qmp, start(script), "test", TIMEOUT, NULL), 0);
	CHECK_EQ(qmp_command(qmp, "stop", NULL), -ETIMEDOUT);
	CHECK_EQ(qmp_command(qmp, "cont", NULL), -EREMOTEIO);
	CHECK(strstr(msg_last(), "cont: refused: of the second"));
	stop(qmp);
}

/* A child that takes over tells its replies from those to its parent. */
static void forked(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT, PAUSE, WAIT,
		"{\"return\": {}, \"id\": 2}\r\n",
		"{\"error\": {\"desc\": \"the child's\"}, \"id\": 1048578}\r\n",
		NULL
	};
	struct qmp *qmp;
	int status;
	pid_t pid;

	CHECK_EQ(qmp_attach(&qmp, start(script), "test", TIMEOUT, NULL), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		usleep(100000);
		_exit(qmp_command(qmp, "cont", NULL) == -EREMOTEIO ? 0 : 1);
	}
	/* Sent, and its reply not waited for. */
	cancel = 0;
	qmp_set_cancel(qmp, &cancel);
	alarm_in(20000);
	CHECK_EQ(qmp_command(qmp, "stop", NULL), -EINTR);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	stop(qmp);
}


static void cancelled_and_resumed(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT, WAIT,
		"{\"return\": {}, \"id\": 2}\r\n{\"return\": {}, \"id\": 3}\r\n",
		NULL
	};
	struct qmp *qmp;
	double start_time;

	CHECK_EQ(qmp_attach(&qmp, start(script), "test", 30, NULL), 0);
	alarm_in(50000);
	start_time = now();
	cancel = 0;
	qmp_set_cancel(qmp, &cancel);
	msg_forget();
	CHECK_EQ(qmp_command(qmp, "stop", NULL), -EINTR);
	CHECK(now() - start_time < 20);
	CHECK(!*msg_last());
	qmp_set_cancel(qmp, NULL);
	CHECK_EQ(qmp_command(qmp, "cont", NULL), 0);
	stop(qmp);
}

static void unix_socket(void)
{
	static const char *const script[] = {
		NEGOTIATED, WAIT, "{\"return\": {}, \"id\": 2}\r\n", NULL
	};
	char dir[] = "/tmp/dirtytrack-qmp.XXXXXX", path[64], longer[200];
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct qmp *qmp;
	int fd;

	CHECK(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/sock", dir);
	CHECK_EQ(qmp_connect(&qmp, path, TIMEOUT, NULL), -ENOENT);
	CHECK(strstr(msg_last(), path));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_EQ(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	CHECK_EQ(qmp_connect(&qmp, path, TIMEOUT, NULL), -ECONNREFUSED);
	CHECK_EQ(listen(fd, 1), 0);
	server = fork();
	CHECK(server >= 0);
	if (!server)
		play(accept(fd, NULL, NULL), script);
	CHECK_EQ(qmp_connect(&qmp, path, 5, NULL), 0);
	CHECK_EQ(qmp_command(qmp, "stop", NULL), 0);
	stop(qmp);
	close(fd);
	unlink(path);
	rmdir(dir);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	CHECK_EQ(qmp_connect(&qmp, longer, 5, NULL), -ENAMETOOLONG);
}

int main(void)
{
	static const struct tap_test tests[] = {
		TAP_TEST(command_and_result),
		TAP_TEST(events_are_skipped),
		TAP_TEST(events_are_told),
		TAP_TEST(pieces),
		TAP_TEST(refusal),
		TAP_TEST(end_of_file),
		TAP_TEST(not_qmp),
		TAP_TEST(endless_message),
		TAP_TEST(timeouts),
		TAP_TEST(timeout_among_events),
		TAP_TEST(late_reply),
		TAP_TEST(cancelled_and_resumed),
		TAP_TEST(forked),
		TAP_TEST(unix_socket),
	};

	msg_silence();
	return tap_run(tests, sizeof(tests) / sizeof(*tests));
}
