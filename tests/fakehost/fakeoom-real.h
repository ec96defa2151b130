/*
 * fakehost: functions of libraries that fakeoom.c stands before
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKEOOM_REAL_H
#define FAKEOOM_REAL_H

#include <stddef.h>

/* liburing's, whose header is not needed for more. */
struct io_uring;
struct io_uring_params;
int io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                               struct io_uring_params *p);
int io_uring_queue_init(unsigned entries, struct io_uring *ring,
                        unsigned flags);
int io_uring_register_files(struct io_uring *ring, const int *files,
                            unsigned n);

/* glib's: they return NULL where their namesakes without "try" abort. */
void *g_try_malloc(size_t n);
void *g_try_malloc0(size_t n);
void *g_try_realloc(void *p, size_t n);
void *g_try_malloc_n(size_t n, size_t size);
void *g_try_malloc0_n(size_t n, size_t size);
void *g_try_realloc_n(void *p, size_t n, size_t size);

#endif
