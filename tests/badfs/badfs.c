/*
 * badfs: a file system with one file that fails like a bad disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * DIR/disk is held in memory twice: as written, and as made durable by fsync()
 * or by writes with O_DSYNC.  What is written to DIR/ctl is a command:
 *
 *   drop SEED          lose unflushed sectors, each with an even chance; 0: all
 *   fault OP WHAT N    fail the next N calls (-1: all) of OP, which is read,
 *                      write, fsync or fallocate; WHAT is an errno, "short",
 *                      "delay" (a second and a half) or "late": that, and EIO
 *   clear              no faults
 *   save               all is durable
 *
 * Reading DIR/ctl gives counters.  The host keeps no cache (direct_io), so
 * every system call of an engine, io_uring's too, comes here and has what
 * comes from here as its result.  A call that is delayed delays no other.
 */

#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR          512
#define DELAY_US        1500000

enum { OP_READ, OP_WRITE, OP_FSYNC, OP_FALLOCATE, OPS };
enum { FAULT_SHORT = -1, FAULT_DELAY = -2, FAULT_LATE = -3 };

static const char *const op_name[OPS] = {
    "read", "write", "fsync", "fallocate"
};

static struct {
    size_t size;
    uint8_t *now, *durable;
    bool *dirty;                        /* by sector */
    unsigned open;                      /* of the disk */
    unsigned long count[OPS], dsync, failed;
    struct {
        int what;                       /* errno or FAULT_*, 0 for none */
        long left;                      /* calls, -1 without end */
    } fault[OPS];
} disk;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void unlock(bool *held)
{
    (void)held;
    pthread_mutex_unlock(&lock);
}

/* Until the end of the block. */
#define LOCKED()                                                        \
    bool locked __attribute__((cleanup(unlock), unused)) =              \
        !pthread_mutex_lock(&lock)

/* What the next call of @op is to suffer: an errno, FAULT_* or 0. */
static int next_fault(int op)
{
    int what = disk.fault[op].what;

    disk.count[op]++;
    if (!what || !disk.fault[op].left) {
        return 0;
    }
    if (disk.fault[op].left > 0) {
        disk.fault[op].left--;
    }
    disk.failed++;
    if (what == FAULT_DELAY || what == FAULT_LATE) {
        pthread_mutex_unlock(&lock);
        usleep(DELAY_US);
        pthread_mutex_lock(&lock);
        return what == FAULT_LATE ? EIO : 0;
    }
    return what;
}

static void make_durable(size_t offset, size_t size)
{
    for (size_t i = offset / SECTOR; i * SECTOR < offset + size; i++) {
        if (disk.dirty[i]) {
            memcpy(disk.durable + i * SECTOR, disk.now + i * SECTOR, SECTOR);
            disk.dirty[i] = false;
        }
    }
}

static void drop(unsigned seed)
{
    for (size_t i = 0; i * SECTOR < disk.size; i++) {
        if (disk.dirty[i] && (!seed || rand_r(&seed) & 0x400)) {
            memcpy(disk.now + i * SECTOR, disk.durable + i * SECTOR, SECTOR);
            disk.dirty[i] = false;
        }
    }
    make_durable(0, disk.size);
}

static bool is_ctl(const char *path)
{
    return !strcmp(path, "/ctl");
}

static int bad_getattr(const char *path, struct stat *st,
                       struct fuse_file_info *fi)
{
    (void)fi;
    memset(st, 0, sizeof(*st));
    st->st_nlink = 1;
    if (!strcmp(path, "/")) {
        st->st_mode = S_IFDIR | 0755;
    } else if (is_ctl(path)) {
        st->st_mode = S_IFREG | 0600;
    } else if (!strcmp(path, "/disk")) {
        st->st_mode = S_IFREG | 0600;
        st->st_size = disk.size;
        st->st_blocks = disk.size / SECTOR;
    } else {
        return -ENOENT;
    }
    return 0;
}

static int bad_open(const char *path, struct fuse_file_info *fi)
{
    LOCKED();
    fi->direct_io = 1;
    disk.open += !is_ctl(path);
    return 0;
}

static int bad_release(const char *path, struct fuse_file_info *fi)
{
    LOCKED();
    (void)fi;
    disk.open -= !is_ctl(path);
    return 0;
}

static int ctl_read(char *buf, size_t size, off_t offset)
{
    char text[256];
    size_t dirty = 0, len;

    for (size_t i = 0; i * SECTOR < disk.size; i++) {
        dirty += disk.dirty[i];
    }
    len = snprintf(text, sizeof(text), "read %lu write %lu fsync %lu "
                   "fallocate %lu dsync %lu failed %lu open %u dirty %zu\n",
                   disk.count[OP_READ], disk.count[OP_WRITE],
                   disk.count[OP_FSYNC], disk.count[OP_FALLOCATE],
                   disk.dsync, disk.failed, disk.open, dirty);
    if ((size_t)offset >= len) {
        return 0;
    }
    if (size > len - offset) {
        size = len - offset;
    }
    memcpy(buf, text + offset, size);
    return size;
}

static int ctl_fault(const char *op, const char *what, long left)
{
    for (int i = 0; i < OPS; i++) {
        if (!strcmp(op, op_name[i])) {
            disk.fault[i].what = !strcmp(what, "short") ? FAULT_SHORT :
                                 !strcmp(what, "delay") ? FAULT_DELAY :
                                 !strcmp(what, "late") ? FAULT_LATE :
                                 atoi(what);
            disk.fault[i].left = left;
            return 0;
        }
    }
    return -EINVAL;
}

static int ctl_write(const char *buf, size_t size)
{
    char text[128], op[32], what[32];
    unsigned seed;
    long left;

    if (size >= sizeof(text)) {
        return -EINVAL;
    }
    memcpy(text, buf, size);
    text[size] = 0;
    if (sscanf(text, "drop %u", &seed) == 1) {
        /* Writes may still be on their way from a dying process. */
        if (disk.open) {
            return -EBUSY;
        }
        drop(seed);
    } else if (sscanf(text, "fault %31s %31s %ld", op, what, &left) == 3) {
        return ctl_fault(op, what, left) ?: (int)size;
    } else if (!strncmp(text, "clear", 5)) {
        memset(disk.fault, 0, sizeof(disk.fault));
    } else if (!strncmp(text, "save", 4)) {
        make_durable(0, disk.size);
    } else {
        return -EINVAL;
    }
    return size;
}

static int bad_read(const char *path, char *buf, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    LOCKED();
    int fault;

    (void)fi;
    if (is_ctl(path)) {
        return ctl_read(buf, size, offset);
    }
    if ((size_t)offset >= disk.size) {
        return 0;
    }
    if (size > disk.size - offset) {
        size = disk.size - offset;
    }
    fault = next_fault(OP_READ);
    if (fault > 0) {
        return -fault;
    }
    if (fault == FAULT_SHORT) {
        size /= 2;
    }
    memcpy(buf, disk.now + offset, size);
    return size;
}

static void store(size_t offset, const char *buf, size_t size)
{
    if (buf) {
        memcpy(disk.now + offset, buf, size);
    } else {
        memset(disk.now + offset, 0, size);
    }
    for (size_t i = offset / SECTOR; i * SECTOR < offset + size; i++) {
        disk.dirty[i] = true;
    }
}

static int bad_write(const char *path, const char *buf, size_t size,
                     off_t offset, struct fuse_file_info *fi)
{
    LOCKED();
    int fault;

    if (is_ctl(path)) {
        return ctl_write(buf, size);
    }
    if ((size_t)offset >= disk.size) {
        return -EFBIG;
    }
    if (size > disk.size - offset) {
        size = disk.size - offset;
    }
    fault = next_fault(OP_WRITE);
    if (fault > 0) {
        return -fault;
    }
    if (fault == FAULT_SHORT) {
        size /= 2;
    }
    store(offset, buf, size);
    if (fi->flags & O_DSYNC) {
        disk.dsync++;
        make_durable(offset, size);
    }
    return size;
}

static int bad_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
    LOCKED();
    int fault;

    (void)datasync;
    (void)fi;
    if (is_ctl(path)) {
        return 0;
    }
    fault = next_fault(OP_FSYNC);
    if (fault > 0) {
        return -fault;
    }
    make_durable(0, disk.size);
    return 0;
}

static int bad_fallocate(const char *path, int mode, off_t offset, off_t len,
                         struct fuse_file_info *fi)
{
    LOCKED();
    int fault;

    (void)fi;
    if (is_ctl(path)) {
        return -EOPNOTSUPP;
    }
    fault = next_fault(OP_FALLOCATE);
    if (fault > 0) {
        return -fault;
    }
    if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
        return -EOPNOTSUPP;
    }
    if ((size_t)offset < disk.size) {
        store(offset, NULL, (size_t)len < disk.size - offset ?
                            (size_t)len : disk.size - offset);
    }
    return 0;
}

static int bad_truncate(const char *path, off_t size,
                        struct fuse_file_info *fi)
{
    (void)path;
    (void)size;
    (void)fi;
    return 0;
}

static const struct fuse_operations ops = {
    .getattr = bad_getattr,
    .open = bad_open,
    .release = bad_release,
    .read = bad_read,
    .write = bad_write,
    .fsync = bad_fsync,
    .fallocate = bad_fallocate,
    .truncate = bad_truncate,
};

int main(int argc, char **argv)
{
    char *args[] = { argv[0], "-f", argc > 1 ? argv[1] : NULL, NULL };

    if (argc != 3 || atol(argv[2]) <= 0 || atol(argv[2]) % SECTOR) {
        fprintf(stderr, "Usage: badfs DIR BYTES (a multiple of %d)\n", SECTOR);
        return 2;
    }
    disk.size = atol(argv[2]);
    disk.now = calloc(1, disk.size);
    disk.durable = calloc(1, disk.size);
    disk.dirty = calloc(disk.size / SECTOR, sizeof(*disk.dirty));
    if (!disk.now || !disk.durable || !disk.dirty) {
        fprintf(stderr, "error: no memory for %zu bytes; ask for less\n",
                disk.size);
        return 1;
    }
    return fuse_main(3, args, &ops, NULL);
}
