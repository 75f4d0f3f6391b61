/* SPDX-License-Identifier: GPL-2.0-only */
/* Messages: "dirtytrack: what was attempted, on what: why". */
#ifndef MSG_H
#define MSG_H

#include <stdbool.h>

/* Say it on stderr.  The last one is kept, for programs that read JSON. */
void msg_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, followed by ": " and the text of @err, which is -errno or errno. */
void msg_errno(int err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Said, but nothing failed. */
void msg_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Keep messages until they may take their time, then print them. */
void msg_hold(bool hold);

/* The last error, "" when there was none. */
const char *msg_last(void);
void msg_forget(void);
/* Keep messages off stderr: a test reads them with msg_last(). */
void msg_silence(void);

#endif
