/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QMP: the control channel of QEMU, as far as this program needs it.
 *
 * One command at a time; events are told to who wants them.  After -ETIMEDOUT or -EINTR a later
 * command may be sent: the reply that is late is recognised by its id and skipped.
 */
#ifndef QMP_H
#define QMP_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

struct json_object;
struct qmp;

/*
 * Connect to the socket at @path and negotiate.  @timeout and @cancel are those of
 * each later wait, too: seconds, and, unless NULL, what ends a wait by -EINTR when
 * it gets a value other than 0.  0, or a message and -errno.
 */
int qmp_connect(struct qmp **qmp, const char *path, double timeout,
		const volatile sig_atomic_t *cancel);
/* The same on a socket that is connected; it is closed by qmp_close(). */
int qmp_attach(struct qmp **qmp, int fd, const char *label, double timeout,
	       const volatile sig_atomic_t *cancel);
void qmp_close(struct qmp *qmp);

void qmp_set_timeout(struct qmp *qmp, double timeout);
void qmp_set_cancel(struct qmp *qmp, const volatile sig_atomic_t *cancel);

/*
 * Run a command.  @result, unless NULL, gets what it returned,
 * to be dropped with json_object_put().
 *
 * 0, or a message and: -EREMOTEIO (the other side refused), -ETIMEDOUT, -EINTR,
 * -ECONNRESET (the other side is gone), -EPROTO (it does not speak QMP), or what
 * the socket says.
 */
int qmp_command(struct qmp *qmp, const char *name, struct json_object **result);

/* The same, what it returned being of no use, and with no message when it was refused. */
int qmp_try(struct qmp *qmp, const char *name);

/*
 * The same with arguments, unless @args is NULL, whose reference is dropped, and with a
 * file descriptor that is sent along, unless @fd is -1: the other side gets another of
 * the same file.
 */
int qmp_call(struct qmp *qmp, const char *name, struct json_object *args,
	     int fd, struct json_object **result);

/*
 * Have @event called for each event, which may come while any command is waited for.
 * @data is NULL if there is none, and not to be kept.  NULL ends it.
 */
void qmp_on_event(struct qmp *qmp,
		  void (*event)(void *arg, const char *name,
				struct json_object *data),
		  void *arg);
/*
 * Take events until one has set *@until.  @what is waited for, for messages.  0, or a
 * message and -errno, as of a command.
 */
int qmp_wait(struct qmp *qmp, const char *what, const bool *until);

/* A string in what was returned, or in the data of an event; NULL if there is none. */
const char *qmp_text(struct json_object *obj, const char *key);

/* The process that listens on the socket, as far as the kernel knows; 0 if not. */
pid_t qmp_peer(const struct qmp *qmp);

#endif
