/*
 * virtio-blk qtests: a /dev/vhost-blk for the emulator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_VHOST_H
#define TESTS_VIRTIO_BLK_VHOST_H

#include "life.h"

/* A machine whose device is vhost-blk's. */
typedef struct Vhost {
    char *node;                 /* stands for /dev/vhost-blk */
    const char *binary_env;
} Vhost;

/*
 * Find a backend: that of the machine, where VBLK_VHOST says that there is
 * one, else tests/fakehost's with @env ("A=b ...") for it.  Marks the test as
 * skipped, and returns false, where there is none.
 */
bool vhost_begin(Vhost *h, const char *env);
/* The same, and never the machine's. */
bool vhost_begin_fake(Vhost *h, const char *env);
/* The library alone: the emulator need not know the type. */
bool vhost_begin_library(Vhost *h, const char *env);
void vhost_end(Vhost *h);

/* life_start() with a vhost-blk device. */
LifeVm *vhost_start(Vhost *h, const LifeCase *c, LifeSpec s);
/* The type of device for that case. */
const char *vhost_type(const LifeCase *c);
/* Is, or becomes, @engine the one in use? */
void vhost_wait_engine(LifeVm *vm, const char *engine);
/* A counter of query-blockstats. */
int64_t vhost_stat(LifeVm *vm, const char *name);
/* Is it not "vhost", and does it stay so? */
void vhost_assert_userspace(LifeVm *vm);

void vhost_add_move_tests(void);        /* vhost-move.c */
void vhost_add_life_tests(void);        /* vhost-life.c */

#endif
