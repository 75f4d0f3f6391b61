/* SPDX-License-Identifier: GPL-2.0-only */
/* The figures that the module was to reach, and those that it has. */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdbool.h>
#include <stddef.h>

/**
 * struct figure - one of them, of this run
 * @what: what it is
 * @unit: of @value and @goal: "x" is times that of the other, or "%"
 * @value: the value
 * @goal: what it was to be
 * @at_least: it was to be this or more, not this or less
 * @reached: it is
 */
struct figure {
	const char *what;
	const char *unit;
	double value;
	double goal;
	bool at_least;
	bool reached;
};

/* How many there may be. */
extern const size_t nr_figures;
/* False if what number @i needs was not measured. */
bool figure_get(size_t i, struct figure *figure);

#endif
