/*
 * virtio-blk qtests: a host block device that is made up
 *
 * tests/fakehost makes a file look like one to the emulator.  A test sets up
 * what the device is, in files that the library reads, and can change some of
 * them while the emulator runs.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_FAKE_H
#define TESTS_VIRTIO_BLK_FAKE_H

#include "fixture.h"

typedef struct VblkFake {
    char *dir;                  /* of its own, removed by vblk_fake_end() */
    char *image;
    char *blockdev;
} VblkFake;

/*
 * vblk_fake_library: path of tests/fakehost's library, which lies beside this
 * program (free it).  Marks the test as skipped, and returns NULL, where it
 * does not.
 */
char *vblk_fake_library(void);
/*
 * vblk_fake_begin: make a device of @size bytes.  Marks the test as skipped,
 * and returns false, where that can't be had.
 */
bool vblk_fake_begin(VblkFake *f, uint64_t size);
/* vblk_fake_use: let the emulator have it; @opts: ",a=b" for the blockdev. */
void vblk_fake_use(VblkFake *f, VblkOpts *o, const char *opts);
/* vblk_fake_use_drive: the same as a -drive, which drive_del can remove. */
void vblk_fake_use_drive(VblkFake *f, VblkOpts *o);
void vblk_fake_end(VblkFake *f);

/* Write, or with NULL remove, one file that the library reads. */
void vblk_fake_set(VblkFake *f, const char *name, const char *text);
void vblk_fake_set_num(VblkFake *f, const char *name, long value);
/* What the library wrote into such a file (free it). */
char *vblk_fake_get(VblkFake *f, const char *name);
/* Let operation @op fail with this errno, 0: no more. */
void vblk_fake_fault(VblkFake *f, const char *op, int error);
/* Are these bytes of the device all @val? */
bool vblk_fake_is(VblkFake *f, uint64_t offset, uint64_t len, uint8_t val);
/* Fill bytes of the device, behind the emulator's back. */
void vblk_fake_fill(VblkFake *f, uint64_t offset, uint64_t len, uint8_t val);

#endif
