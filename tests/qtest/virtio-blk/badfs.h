/*
 * virtio-blk qtests: a disk that fails as it is told, tests/badfs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_BADFS_H
#define TESTS_VIRTIO_BLK_BADFS_H

#define VBLK_BADFS_DELAY_MS 1500        /* of its "delay" and "late" */

typedef struct VblkBadfs {
    char *dir;                  /* the disk is DIR/disk */
    GPid pid;
} VblkBadfs;

/* Is there such a program?  Tests are added only then. */
bool vblk_badfs_there(void);
/* vblk_badfs_begin: a disk of @size bytes, until vblk_badfs_end(). */
void vblk_badfs_begin(VblkBadfs *b, unsigned size);
void vblk_badfs_end(VblkBadfs *b);
/* Give it a command; see badfs.c's head. */
void vblk_badfs_ctl(VblkBadfs *b, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* One of its counters, as "fsync". */
unsigned vblk_badfs_count(VblkBadfs *b, const char *name);

#endif
