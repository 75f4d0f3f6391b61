// SPDX-License-Identifier: GPL-2.0-only
/* Messages may come from any thread; who reads the last one is alone by then. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "msg.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last[1024];
static bool silent;
static bool held;
static char kept[4096];

static void say(const char *text)
{
	size_t len = strlen(kept);

	if (silent)
		return;
	if (held)
		snprintf(kept + len, sizeof(kept) - len, "dirtytrack: %s\n",
			 text);
	else
		fprintf(stderr, "dirtytrack: %s\n", text);
}

void msg_hold(bool hold)
{
	pthread_mutex_lock(&lock);
	held = hold;
	if (!hold) {
		fputs(kept, stderr);
		kept[0] = '\0';
	}
	pthread_mutex_unlock(&lock);
}

void msg_error(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lock);
	va_start(ap, fmt);
	vsnprintf(last, sizeof(last), fmt, ap);
	va_end(ap);
	say(last);
	pthread_mutex_unlock(&lock);
}

void msg_errno(int err, const char *fmt, ...)
{
	va_list ap;
	size_t len;

	pthread_mutex_lock(&lock);
	va_start(ap, fmt);
	vsnprintf(last, sizeof(last), fmt, ap);
	va_end(ap);
	len = strlen(last);
	snprintf(last + len, sizeof(last) - len, ": %s", strerror(abs(err)));
	say(last);
	pthread_mutex_unlock(&lock);
}

void msg_note(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&lock);
	say(text);
	pthread_mutex_unlock(&lock);
}

const char *msg_last(void)
{
	return last;
}

void msg_forget(void)
{
	last[0] = '\0';
}

void msg_silence(void)
{
	silent = true;
}
