// SPDX-License-Identifier: GPL-2.0-only
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "progress.h"
#include "units.h"

#define INTERVAL 0.2

void progress_begin(struct progress *p, bool asked)
{
	p->on = asked || isatty(STDERR_FILENO);
	p->shown = false;
	p->last = now();
}

void progress_show(struct progress *p, const char *fmt, ...)
{
	double time = now();
	va_list ap;

	if (!p->on || time - p->last < INTERVAL)
		return;
	p->last = time;
	p->shown = true;
	fputs("\r\033[K", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fflush(stderr);
}

void progress_clear(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
