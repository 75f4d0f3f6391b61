// SPDX-License-Identifier: GPL-2.0-only
/*
 * The code of the tracepoints, which their header makes here and nowhere else.
 */
#define CREATE_TRACE_POINTS
#include "trace.h"
