/*
 * fakehost: make one ordinary file look like a block device
 *
 * A library to be preloaded into an emulator.  The file FAKEHOST_PATH answers
 * stat() as block device 240:0, and the ioctls that the host_device driver
 * sends: sizes, SCSI commands, discard, secure discard, zones.  What would be
 * read below /sys for the device is read below the folder FAKEHOST_SYSFS:
 *
 *   queue/...          as in /sys/dev/block/240:0/queue
 *   device/...         as in /sys/dev/block/240:0/device
 *   host/...           the folder of the host controller, above that
 *   fault/OP           an errno: operation OP fails with it; OP is sg_io,
 *                      secure_discard, discard, zeroout, read or write
 *   fault/sense        a sense key: TEST UNIT READY ends with it
 *   dropped            where it is there: a line "OFFSET BYTES" for each
 *                      secure discard whose cached pages Linux would drop
 *   slow-names         where it is there: to copy the file's name with
 *                      strcpy() takes a while
 *   zones              see fakezone.c
 *
 * Zones come to life when queue/zoned is there.  Then the file obeys the rules
 * of zones for writes as well, and fails those that break them with the errno
 * that Linux has for it.  The state lives as long as the process.
 *
 * fakevhost.c makes up /dev/vhost-blk, fakeoom.c has the host run out of memory
 * and the like.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

/* Each function by its own name: open() is not to become open64(). */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>
#include "fakehost.h"
#include "fakeoom.h"

#define FAKE_MAJOR      240     /* one of those kept for local use */
#define SYS_BLOCK       "/sys/dev/block/240:0"
#define SYS_HOST        "/sys/devices/fakehost"
#define SYS_DEVICE      SYS_HOST "/block/fake"

#define ERASED          0x5e    /* what a secure discard leaves behind */

/* The C library's own function. */
#define REAL(name)      ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int fail(int error)
{
    errno = -error;
    return -1;
}

/* ---- what the test has set up ---- */

/* True, and where to look, when @path is below /sys and the device's. */
static bool redirect(const char *path, char *to)
{
    static const struct {
        const char *from, *to;
    } map[] = {
        { SYS_BLOCK "/", "" }, { SYS_DEVICE "/", "" },
        { SYS_HOST "/", "host/" },
    };
    const char *dir = getenv("FAKEHOST_SYSFS");

    for (unsigned i = 0; dir && i < 3; i++) {
        size_t n = strlen(map[i].from);

        if (!strncmp(path, map[i].from, n)) {
            return snprintf(to, PATH_MAX, "%s/%s%s", dir, map[i].to,
                            path + n) < PATH_MAX;
        }
    }
    return false;
}

FILE *fake_sysfs_open(const char *name)
{
    const char *dir = getenv("FAKEHOST_SYSFS");
    char path[PATH_MAX];

    if (!dir || snprintf(path, sizeof(path), "%s/%s", dir, name) >= PATH_MAX) {
        return NULL;
    }
    return fopen(path, "re");
}

long fake_sysfs_number(const char *name, long otherwise)
{
    FILE *f = fake_sysfs_open(name);
    long value;

    if (!f || fscanf(f, "%ld", &value) != 1) {
        value = otherwise;
    }
    if (f) {
        fclose(f);
    }
    return value;
}

int fake_fault(const char *op)
{
    char name[64];

    snprintf(name, sizeof(name), "fault/%s", op);
    return -fake_sysfs_number(name, 0);
}

/* ---- which file is meant ---- */

static bool is_fake(dev_t dev, ino_t ino)
{
    const char *path = getenv("FAKEHOST_PATH");
    struct stat st;

    return path && !REAL(stat)(path, &st) && st.st_dev == dev &&
           st.st_ino == ino;
}

static bool fd_is_fake(int fd)
{
    struct stat st;
    int saved = errno;
    bool fake = !REAL(fstat)(fd, &st) && is_fake(st.st_dev, st.st_ino);

    errno = saved;
    return fake;
}

uint64_t fake_bytes(int fd)
{
    struct stat st;

    return REAL(fstat)(fd, &st) ? 0 : st.st_size;
}

/* Wraps a function of the stat() family. */
#define STAT_WRAPPER(name, what_type, stat_type)                            \
    int name(what_type what, struct stat_type *st)                          \
    {                                                                       \
        int (*real)(what_type, struct stat_type *) =                        \
            dlsym(RTLD_NEXT, #name);                                        \
        int ret = real(what, st);                                           \
                                                                            \
        if (!ret && is_fake(st->st_dev, st->st_ino)) {                      \
            st->st_mode = (st->st_mode & ~S_IFMT) | S_IFBLK;                \
            st->st_rdev = makedev(FAKE_MAJOR, 0);                           \
            st->st_size = 0;                                                \
        }                                                                   \
        return ret;                                                         \
    }

STAT_WRAPPER(stat, const char *, stat)
STAT_WRAPPER(stat64, const char *, stat64)
STAT_WRAPPER(lstat, const char *, stat)
STAT_WRAPPER(lstat64, const char *, stat64)
STAT_WRAPPER(fstat, int, stat)
STAT_WRAPPER(fstat64, int, stat64)

/* ---- open ---- */

/*
 * O_DIRECT is taken away: not all file systems have it, and the block layer
 * keeps to the alignment that it asks for all the same.
 */
static int fake_open(const char *name, const char *path, int flags,
                     mode_t mode)
{
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, name);
    const char *fake = getenv("FAKEHOST_PATH");
    char to[PATH_MAX];
    int error = fake_vhost_open(&path);

    if (fake_oom("open")) {
        error = -EMFILE;
    }
    if (error) {
        return fail(error);
    }
    if (redirect(path, to)) {
        path = to;
    } else if (fake && !strcmp(path, fake)) {
        flags &= ~O_DIRECT;
    }
    return real(path, flags, mode);
}

#define OPEN_WRAPPER(name)                                                  \
    int name(const char *path, int flags, ...)                              \
    {                                                                       \
        mode_t mode = 0;                                                    \
                                                                            \
        if (flags & (O_CREAT | __O_TMPFILE)) {                              \
            va_list ap;                                                     \
                                                                            \
            va_start(ap, flags);                                            \
            mode = va_arg(ap, mode_t);                                      \
            va_end(ap);                                                     \
        }                                                                   \
        return fake_open(#name, path, flags, mode);                         \
    }

OPEN_WRAPPER(open)
OPEN_WRAPPER(open64)

/* What a build with _FORTIFY_SOURCE calls instead. */
int __open64_2(const char *path, int flags)
{
    return fake_open("open64", path, flags, 0);
}

/* ---- names ---- */

#define SLOW_NAME_US    500

/*
 * The block layer empties the name of a node and copies that of the node below
 * into it.  Here that takes long enough for another thread to see it empty.
 */
static void slow_name(const char *from)
{
    const char *fake = getenv("FAKEHOST_PATH");

    if (fake && !strcmp(from, fake) && fake_sysfs_number("slow-names", 0)) {
        usleep(SLOW_NAME_US);
    }
}

char *strcpy(char *to, const char *from)
{
    slow_name(from);
    return memcpy(to, from, strlen(from) + 1);
}

char *__strcpy_chk(char *to, const char *from, size_t size)
{
    slow_name(from);
    return strlen(from) < size ? memcpy(to, from, strlen(from) + 1) : NULL;
}

static bool resolve(const char *path, char *to)
{
    if (strcmp(path, SYS_BLOCK)) {
        return false;
    }
    strcpy(to, SYS_DEVICE);
    return true;
}

char *realpath(const char *path, char *to)
{
    char found[PATH_MAX];

    if (!resolve(path, found)) {
        return REAL(realpath)(path, to);
    }
    return to ? strcpy(to, found) : strdup(found);
}

char *__realpath_chk(const char *path, char *to, size_t size)
{
    return size >= PATH_MAX ? realpath(path, to) : NULL;
}

/* ---- reads and writes ---- */

static size_t iov_bytes(const struct iovec *iov, int num)
{
    size_t bytes = 0;

    for (int i = 0; i < num; i++) {
        bytes += iov[i].iov_len;
    }
    return bytes;
}

static int check_read(off_t offset, size_t bytes, int fd)
{
    int error = fake_fault("read");

    if (!error && zones_present(fd)) {
        error = zones_read(offset, bytes);
    }
    return error;
}

static ssize_t fake_read(int fd, const struct iovec *iov, int num,
                         off_t offset)
{
    if (fd_is_fake(fd)) {
        int error = check_read(offset, iov_bytes(iov, num), fd);

        if (error) {
            return fail(error);
        }
    }
    return REAL(preadv64)(fd, iov, num, offset);
}

/* The first @bytes of what @iov holds. */
static ssize_t write_some(int fd, const struct iovec *iov, int num,
                          size_t bytes, off_t offset)
{
    struct iovec some[IOV_MAX];
    int n = 0;

    for (; n < num && bytes; n++) {
        some[n] = iov[n];
        if (some[n].iov_len > bytes) {
            some[n].iov_len = bytes;
        }
        bytes -= some[n].iov_len;
    }
    return REAL(pwritev64)(fd, some, n, offset);
}

static ssize_t fake_write(int fd, const struct iovec *iov, int num,
                          off_t offset)
{
    size_t bytes = iov_bytes(iov, num);
    uint64_t size, room;
    ssize_t ret;
    int error;

    if (!fd_is_fake(fd)) {
        return REAL(pwritev64)(fd, iov, num, offset);
    }
    error = fake_fault("write");
    size = fake_bytes(fd);
    room = offset < size ? size - offset : 0;
    if (!error && bytes && !room) {
        error = -ENOSPC;
    }
    /* Linux cuts a write that goes beyond the end of a block device. */
    if (bytes > room) {
        bytes = room;
    }
    if (error || !zones_present(fd)) {
        return error ? fail(error) : write_some(fd, iov, num, bytes, offset);
    }
    error = zones_write_begin(offset, bytes);
    if (error) {
        return fail(error);
    }
    ret = write_some(fd, iov, num, bytes, offset);
    zones_write_end(offset, bytes, ret == (ssize_t)bytes);
    return ret;
}

#define RW_WRAPPERS(suffix, off_type)                                       \
    ssize_t pread##suffix(int fd, void *buf, size_t n, off_type offset)     \
    {                                                                       \
        struct iovec iov = { buf, n };                                      \
                                                                            \
        return fake_read(fd, &iov, 1, offset);                              \
    }                                                                       \
    ssize_t preadv##suffix(int fd, const struct iovec *iov, int num,        \
                           off_type offset)                                 \
    {                                                                       \
        return fake_read(fd, iov, num, offset);                             \
    }                                                                       \
    ssize_t pwrite##suffix(int fd, const void *buf, size_t n,               \
                           off_type offset)                                 \
    {                                                                       \
        struct iovec iov = { (void *)buf, n };                              \
                                                                            \
        return fake_write(fd, &iov, 1, offset);                             \
    }                                                                       \
    ssize_t pwritev##suffix(int fd, const struct iovec *iov, int num,       \
                            off_type offset)                                \
    {                                                                       \
        return fake_write(fd, iov, num, offset);                            \
    }

RW_WRAPPERS(, off_t)
RW_WRAPPERS(64, off64_t)

ssize_t __pread64_chk(int fd, void *buf, size_t n, off64_t offset,
                      size_t size)
{
    return n > size ? fail(-EFAULT) : pread64(fd, buf, n, offset);
}

/* ---- discard and its kin ---- */

void fake_zero(int fd, off_t offset, uint64_t bytes)
{
    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes);
}

static void fill(int fd, uint64_t offset, uint64_t bytes)
{
    char buf[4096];

    memset(buf, ERASED, sizeof(buf));
    while (bytes) {
        size_t n = bytes < sizeof(buf) ? bytes : sizeof(buf);

        if (REAL(pwrite64)(fd, buf, n, offset) != (ssize_t)n) {
            abort();
        }
        offset += n;
        bytes -= n;
    }
}

/*
 * Linux drops the pages of a secure discard before it looks whether there is
 * anything to do; an empty range at the start means all pages.
 */
static void note_dropped(const uint64_t *range)
{
    const char *dir = getenv("FAKEHOST_SYSFS");
    char path[PATH_MAX], line[64];
    int fd, len;

    if (!dir || snprintf(path, sizeof(path), "%s/dropped", dir) >= PATH_MAX) {
        return;
    }
    fd = REAL(open)(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    len = snprintf(line, sizeof(line), "%llu %llu\n",
                   (unsigned long long)range[0], (unsigned long long)range[1]);
    if (write(fd, line, len) != len) {
        abort();
    }
    close(fd);
}

static int range_ioctl(int fd, unsigned long request, const uint64_t *range)
{
    const char *name = request == BLKSECDISCARD ? "secure_discard" :
                       request == BLKDISCARD ? "discard" : "zeroout";
    int error = fake_fault(name);

    if (error) {
        return error;
    }
    if ((range[0] | range[1]) % 512 ||
        range[0] + range[1] > fake_bytes(fd)) {
        return -EINVAL;
    }
    if (request == BLKSECDISCARD) {
        note_dropped(range);
    }
    if (!range[1]) {
        return -EINVAL;
    }
    if (request == BLKSECDISCARD) {
        fill(fd, range[0], range[1]);
        return 0;
    }
    if (zones_present(fd)) {
        return -EOPNOTSUPP;
    }
    fake_zero(fd, range[0], range[1]);
    return 0;
}

/* ---- SCSI ---- */

static const char inquiry[36] = "\x00\x00\x05\x02\x1f\x00\x00\x00"
                                "FAKEHOSTordinary file   0001";

/* Copy between @buf and the data of the command; how much there was. */
static size_t sg_copy(sg_io_hdr_t *sg, void *buf, size_t len, bool to_driver)
{
    sg_iovec_t one = { sg->dxferp, sg->dxfer_len };
    sg_iovec_t *iov = sg->iovec_count ? sg->dxferp : &one;
    size_t done = 0;

    for (unsigned i = 0; i < (sg->iovec_count ?: 1) && done < len; i++) {
        size_t n = iov[i].iov_len < len - done ? iov[i].iov_len : len - done;

        if (to_driver) {
            memcpy(iov[i].iov_base, (char *)buf + done, n);
        } else {
            memcpy((char *)buf + done, iov[i].iov_base, n);
        }
        done += n;
    }
    return done;
}

static void sg_answer(sg_io_hdr_t *sg, const void *buf, size_t len)
{
    size_t done = 0;

    if (sg->dxfer_direction == SG_DXFER_FROM_DEV) {
        done = sg_copy(sg, (void *)buf, len, true);
    }
    sg->resid = sg->dxfer_len - done;
}

static void sg_check_condition(sg_io_hdr_t *sg, uint8_t key, uint8_t code)
{
    uint8_t sense[18] = { 0x70, 0, key, [7] = 10, [12] = code };
    size_t n = sg->mx_sb_len < sizeof(sense) ? sg->mx_sb_len : sizeof(sense);

    memcpy(sg->sbp, sense, n);
    sg->sb_len_wr = n;
    sg->status = 0x02;
    sg->masked_status = 0x01;
    sg->driver_status = 0x08;       /* "there is sense data" */
    sg->resid = sg->dxfer_len;
}

static void sg_capacity(int fd, sg_io_hdr_t *sg)
{
    uint32_t last = fake_bytes(fd) / 512 - 1;
    uint8_t answer[8] = { last >> 24, last >> 16, last >> 8, last, 0, 0, 2, 0 };

    sg_answer(sg, answer, sizeof(answer));
}

/* WRITE BUFFER: what comes is put at the start of the file. */
static void sg_write_buffer(int fd, sg_io_hdr_t *sg)
{
    char buf[4096];
    size_t len = sg_copy(sg, buf, sizeof(buf), false);

    if (REAL(pwrite64)(fd, buf, len, 0) != (ssize_t)len) {
        abort();
    }
    sg->resid = sg->dxfer_len - len;
}

static int sg_io(int fd, sg_io_hdr_t *sg)
{
    int error = fake_fault("sg_io");
    long key = fake_sysfs_number("fault/sense", 0);

    if (error || sg->interface_id != 'S' || !sg->cmd_len || !sg->timeout) {
        return error ?: -EINVAL;
    }
    switch (sg->cmdp[0]) {
    case 0x00:                      /* TEST UNIT READY */
        if (key) {
            sg_check_condition(sg, key, 0x3a);
        }
        break;
    case 0x12:                      /* INQUIRY */
        sg_answer(sg, inquiry, sg->cmdp[4] < sizeof(inquiry) ?
                               sg->cmdp[4] : sizeof(inquiry));
        break;
    case 0x25:                      /* READ CAPACITY */
        sg_capacity(fd, sg);
        break;
    case 0x3b:
        if (sg->dxfer_direction == SG_DXFER_TO_DEV) {
            sg_write_buffer(fd, sg);
            break;
        }
        /* fall through */
    default:                        /* ILLEGAL REQUEST, invalid opcode */
        sg_check_condition(sg, 0x05, 0x20);
        break;
    }
    return 0;
}

/* ---- ioctl ---- */

static int fake_ioctl(int fd, unsigned long request, void *arg)
{
    switch (request) {
    case BLKGETSIZE64:
        *(uint64_t *)arg = fake_bytes(fd);
        return 0;
    case BLKSSZGET:
        *(int *)arg = fake_sysfs_number("queue/logical_block_size", 512);
        return 0;
    case BLKPBSZGET:
        *(unsigned *)arg = fake_sysfs_number("queue/physical_block_size", 512);
        return 0;
    case BLKROGET:
        *(int *)arg = 0;
        return 0;
    case BLKSECDISCARD:
    case BLKDISCARD:
    case BLKZEROOUT:
        return range_ioctl(fd, request, arg);
    case SG_IO:
        return sg_io(fd, arg);
    default:
        return zones_present(fd) ? zones_ioctl(fd, request, arg) : -ENOTTY;
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    void *arg;
    int error;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (fake_vhost_ioctl(fd, request, arg, &error)) {
        return error ? fail(error) : 0;
    }
    if (!fd_is_fake(fd)) {
        return REAL(ioctl)(fd, request, arg);
    }
    error = fake_ioctl(fd, request, arg);
    return error ? fail(error) : 0;
}

int close(int fd)
{
    fake_vhost_close(fd);
    return REAL(close)(fd);
}
