/* SPDX-License-Identifier: GPL-2.0-only */
/* All of a part of a file, however many calls it takes and signals come. */
#ifndef FILE_IO_H
#define FILE_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* 0 or -errno, without a message; -EIO when the file has no more, or takes no more. */
int file_read(int fd, void *buf, size_t count, off_t pos);
int file_write(int fd, const void *buf, size_t count, off_t pos);
/* A hole. */
int file_punch(int fd, off_t pos, off_t len);
/* Does @path lead to it?  Not where that cannot be known. */
bool file_is_at(int fd, const char *path);

#endif
