/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Versions of a slot as files: NAME.0.qcow2 is a whole image, and each later one has what
 * changed since the one before, which is its backing file.
 *
 * A version is made as NAME.partial and gets its name when it is complete and on stable
 * storage.  NAME.lock is there while somebody makes versions, and locked by him.
 */
#ifndef CHAIN_H
#define CHAIN_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct chain - versions in a directory
 * @dir: the directory, an absolute path
 * @leaf: NAME
 * @partial: the version that is being made
 * @lock_path: NAME.lock
 * @lock: fd of it, or -1
 * @found: the newest version that was there from the start, or NULL
 * @next: number of the next version
 * @last: the version that was made last, or NULL: then the next one is whole
 * @file: what the next version will be called
 */
struct chain {
	char *dir;
	char *leaf;
	char *partial;
	char *lock_path;
	int lock;
	char *found;
	unsigned int next;
	char *last;
	char *file;
};

/* Those that return int return 0, or a message and -errno. */

/*
 * Where they are: in the directory @target, called @name; or FILE.N.qcow2 when @target is
 * FILE.qcow2.  Nothing is opened that another process could not have.
 */
int chain_init(struct chain *c, const char *target, const char *name);
/* Look what is there, keep others out, and remove what somebody who was killed left. */
int chain_open(struct chain *c, uint64_t bytes);
/* The file that the next version adds to, relative to it; NULL when it is whole. */
const char *chain_backing(const struct chain *c);
/* Has the version made last gone? */
bool chain_is_broken(const struct chain *c);
/* The next version is a whole one. */
void chain_cut(struct chain *c);
/* The version that is being made is complete: it is @last now. */
int chain_commit(struct chain *c);
/* The version made last is not to be: it goes, and the next one, of its number, is whole. */
void chain_undo(struct chain *c);
/* Leave out numbers, as others have versions with them: the next version is @number. */
int chain_skip_to(struct chain *c, unsigned int number);
/* It is not, and never will be. */
void chain_abort(struct chain *c);
/* Removes what must not stay. */
void chain_clean(struct chain *c);
/*
 * The same for somebody who had opened it and is dead, or about to be, unless another has
 * it by now.
 */
void chain_clean_after(struct chain *c);
void chain_close(struct chain *c);

#endif
