/*
 * fakehost: what its parts share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKEHOST_H
#define FAKEHOST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define SECTOR_SHIFT    9

/* Open a file of the test's FAKEHOST_SYSFS folder for reading, or NULL. */
FILE *fake_sysfs_open(const char *name);
long fake_sysfs_number(const char *name, long otherwise);
/* Has the test asked for operation @op to fail?  0 or a negative errno. */
int fake_fault(const char *op);
uint64_t fake_bytes(int fd);
/* Make a range of the file read as zeroes. */
void fake_zero(int fd, off_t offset, uint64_t bytes);

/* What builds with _FORTIFY_SOURCE call in place of open() and so on. */
int __open64_2(const char *path, int flags);
char *__realpath_chk(const char *path, char *to, size_t size);
char *__strcpy_chk(char *to, const char *from, size_t size);
ssize_t __pread64_chk(int fd, void *buf, size_t n, off64_t offset,
                      size_t size);

/* ---- /dev/vhost-blk ---- */

/* May turn *@path to another one; 0, or a negative errno to fail with. */
int fake_vhost_open(const char **path);
/* True: it was for the vhost device, *@ret is 0 or a negative errno. */
bool fake_vhost_ioctl(int fd, unsigned long request, void *arg, int *ret);
void fake_vhost_close(int fd);

/* ---- zones; those that can fail return 0 or a negative errno ---- */

/* Is the device a zoned one? */
bool zones_present(int fd);
/* Answers the ioctls of linux/blkzoned.h; ENOTTY to others. */
int zones_ioctl(int fd, unsigned long request, void *arg);
/* May the range be read? */
int zones_read(off_t offset, uint64_t bytes);
/*
 * May the range be written?  Returns with the zones locked when the answer is
 * 0; zones_write_end() ends that.
 */
int zones_write_begin(off_t offset, uint64_t bytes);
void zones_write_end(off_t offset, uint64_t bytes, bool ok);

#endif
