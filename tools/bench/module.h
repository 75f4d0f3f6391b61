/* SPDX-License-Identifier: GPL-2.0-only */
/* The module, with the parameters that a tracker is about. */
#ifndef MODULE_H
#define MODULE_H

#include <stdbool.h>

/* Its file, to load it from; NULL: it is loaded, and stays as it is. */
void module_init(const char *file);
/* Does it know the parameter? */
bool module_has_param(const char *param);
/* Why it cannot be had with these parameters; NULL: it can. */
const char *module_missing(const char *params, const char *param);
/* Loads it with these parameters, if it is not. */
void module_use(const char *params);

#endif
