/*
 * fakehost: /dev/vhost-blk without a kernel module
 *
 * The ioctls of the module, answered in the emulator's own process.  A queue
 * that has a backend is served by a thread: it takes what the ring holds, at
 * most FAKE_BATCH at a time, and answers it last first.  So requests are in
 * flight, and end out of order, while the emulator does what it likes.
 *
 *   FAKEHOST_VHOST        a path: open("/dev/vhost-blk") opens it instead; a
 *                         number: that errno.  Not set: there is no fake
 *   FAKEHOST_VHOST_ABI    version that GET_INFO tells, instead of the real one
 *   FAKEHOST_VHOST_LACKS  feature bits that GET_INFO hides
 *   FAKEHOST_VHOST_US     how long a batch takes, in us
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/vhost.h>
#include <linux/vhost_blk.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "standard-headers/linux/virtio_blk.h"
#include "fakehost.h"
#include "fakeoom.h"
#include "fakering.h"

#define MAX_DEVS    16
#define MAX_QUEUES  64
#define FAKE_BATCH  8

#define FEATURES ((1ull << VIRTIO_F_NOTIFY_ON_EMPTY) | \
                  (1ull << VIRTIO_RING_F_INDIRECT_DESC) | \
                  (1ull << VIRTIO_RING_F_EVENT_IDX) | \
                  (1ull << VHOST_F_LOG_ALL) | (1ull << 27) | \
                  (1ull << VIRTIO_F_VERSION_1))

struct FakeQueue {
    FakeRing ring;
    FakeDev *dev;
    unsigned index;
    int kick, call, err;            /* duplicates, or -1 */
    int backend, stop;              /* likewise; -1 while it is stopped */
    pthread_t thread;
    struct vhost_blk_stats stats;   /* protected by dev->lock */
};

struct FakeDev {
    int fd;                         /* 0: not in use */
    bool owned;
    pthread_mutex_t lock;           /* what follows, while queues run */
    uint64_t features;
    struct vhost_memory *mem;
    uint8_t *log;
    struct vhost_blk_limits limits;
    char serial[VHOST_BLK_SERIAL_LEN];
    FakeQueue queue[MAX_QUEUES];
};

static FakeDev *devs[MAX_DEVS];
static pthread_mutex_t devs_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- guest memory ---- */

const struct vhost_memory *fake_dev_memory(const FakeDev *dev)
{
    return dev->mem;
}

bool fake_dev_feature(const FakeDev *dev, unsigned bit)
{
    return dev->features >> bit & 1;
}

void fake_dev_log(FakeDev *dev, uint64_t addr, uint64_t len)
{
    uint64_t last = (addr + len - 1) / 4096;

    if (!len || !dev->log || !fake_dev_feature(dev, VHOST_F_LOG_ALL)) {
        return;
    }
    for (uint64_t page = addr / 4096; page <= last; page++) {
        __atomic_fetch_or(&dev->log[page / 8], 1 << page % 8,
                          __ATOMIC_SEQ_CST);
    }
}

/* ---- requests ---- */

static uint8_t move_data(FakeQueue *q, FakeChain *c, uint64_t sector,
                         bool is_write)
{
    size_t n = is_write ? c->out_len - sizeof(struct virtio_blk_outhdr) :
                          c->in_len - 1;
    struct vhost_blk_limits *l = &q->dev->limits;
    unsigned align = l->logical_block_size / 512;
    ssize_t ret;
    void *buf;

    if (n % l->logical_block_size || sector % align ||
        sector > l->capacity || n / 512 > l->capacity - sector ||
        (is_write && l->flags & VHOST_BLK_L_READ_ONLY)) {
        c->invalid = true;
        return VIRTIO_BLK_S_IOERR;
    }
    c->bytes = n;
    if (posix_memalign(&buf, 4096, n ?: 1)) {
        abort();
    }
    if (is_write) {
        fake_chain_read(c, sizeof(struct virtio_blk_outhdr), buf, n);
        ret = pwrite64(q->backend, buf, n, sector * 512);
        if (ret == (ssize_t)n && l->flags & VHOST_BLK_L_WRITE_THROUGH &&
            fdatasync(q->backend)) {
            ret = -1;
        }
    } else {
        ret = pread64(q->backend, buf, n, sector * 512);
        if (ret >= 0) {
            /* Zeroes follow the end of a file. */
            memset((char *)buf + ret, 0, n - ret);
            ret = n;
            fake_chain_write(c, 0, buf, n);
            c->written = n;
        }
    }
    q->stats.last_error = ret < 0 ? -errno : q->stats.last_error;
    free(buf);
    return ret == (ssize_t)n ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
}

typedef struct Segments {
    uint32_t sectors, segments, flags;
} Segments;

static Segments segment_limits(const struct vhost_blk_limits *l, uint32_t type)
{
    return type == VIRTIO_BLK_T_DISCARD ?
        (Segments) { l->max_discard_sectors, l->max_discard_segments } :
        type == VIRTIO_BLK_T_WRITE_ZEROES ?
        (Segments) { l->max_write_zeroes_sectors,
                     l->max_write_zeroes_segments, 1 } :
        (Segments) { l->max_secure_erase_sectors,
                     l->max_secure_erase_segments };
}

static uint8_t check_segments(FakeQueue *q, FakeChain *c, uint32_t type,
                              struct virtio_blk_discard_write_zeroes *seg)
{
    const struct vhost_blk_limits *l = &q->dev->limits;
    size_t len = c->out_len - sizeof(struct virtio_blk_outhdr);
    Segments max = segment_limits(l, type);
    unsigned n = len / sizeof(*seg), align = l->logical_block_size / 512;

    if (!max.segments) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (l->flags & VHOST_BLK_L_READ_ONLY || !len || len % sizeof(*seg)) {
        return VIRTIO_BLK_S_IOERR;
    }
    if (n > max.segments) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    fake_chain_read(c, sizeof(struct virtio_blk_outhdr), seg, len);
    for (unsigned i = 0; i < n; i++) {
        if (seg[i].flags & ~max.flags) {
            return VIRTIO_BLK_S_UNSUPP;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        if (seg[i].num_sectors > max.sectors || seg[i].sector > l->capacity ||
            seg[i].num_sectors > l->capacity - seg[i].sector ||
            (seg[i].sector | seg[i].num_sectors) % align) {
            return VIRTIO_BLK_S_IOERR;
        }
        c->bytes += seg[i].num_sectors * 512ull;
    }
    return VIRTIO_BLK_S_OK;
}

static uint8_t change_ranges(FakeQueue *q, FakeChain *c, uint32_t type)
{
    struct virtio_blk_discard_write_zeroes seg[VHOST_BLK_MAX_SEGMENTS];
    size_t len = c->out_len - sizeof(struct virtio_blk_outhdr);
    bool keep = q->dev->limits.flags & VHOST_BLK_L_KEEP_ALLOCATED;
    uint8_t status = check_segments(q, c, type, seg);

    if (status != VIRTIO_BLK_S_OK) {
        c->invalid = true;
        return status;
    }
    for (unsigned i = 0; i < len / sizeof(*seg); i++) {
        bool punch = !keep && (type != VIRTIO_BLK_T_WRITE_ZEROES ||
                               seg[i].flags & 1);
        int mode = punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

        if (!seg[i].num_sectors || (type == VIRTIO_BLK_T_DISCARD && keep)) {
            continue;
        }
        if (fallocate(q->backend, mode | FALLOC_FL_KEEP_SIZE,
                      seg[i].sector * 512, seg[i].num_sectors * 512ull) &&
            fallocate(q->backend, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      seg[i].sector * 512, seg[i].num_sectors * 512ull)) {
            q->stats.last_error = -errno;
            return VIRTIO_BLK_S_IOERR;
        }
    }
    return VIRTIO_BLK_S_OK;
}

/* Do it; *kind says how it counts, or VHOST_BLK_STAT_KINDS that it does not. */
static uint8_t do_request(FakeQueue *q, FakeChain *c, unsigned *kind)
{
    struct virtio_blk_outhdr hdr;

    fake_chain_read(c, 0, &hdr, sizeof(hdr));
    hdr.type &= ~VIRTIO_BLK_T_BARRIER;
    *kind = VHOST_BLK_STAT_KINDS;
    switch (hdr.type) {
    case VIRTIO_BLK_T_IN:
        *kind = VHOST_BLK_STAT_READ;
        return move_data(q, c, hdr.sector, false);
    case VIRTIO_BLK_T_OUT:
        *kind = VHOST_BLK_STAT_WRITE;
        return move_data(q, c, hdr.sector, true);
    case VIRTIO_BLK_T_FLUSH:
    case VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_OUT:
        *kind = VHOST_BLK_STAT_FLUSH;
        return fdatasync(q->backend) ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
    case VIRTIO_BLK_T_GET_ID:
        c->written = c->in_len - 1 < VHOST_BLK_SERIAL_LEN ?
                     c->in_len - 1 : VHOST_BLK_SERIAL_LEN;
        fake_chain_write(c, 0, q->dev->serial, c->written);
        return VIRTIO_BLK_S_OK;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_SECURE_ERASE:
        *kind = VHOST_BLK_STAT_UNMAP;
        return change_ranges(q, c, hdr.type);
    case VIRTIO_BLK_T_WRITE_ZEROES:
        *kind = VHOST_BLK_STAT_ZEROES;
        return change_ranges(q, c, hdr.type);
    default:
        return VIRTIO_BLK_S_UNSUPP;
    }
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

static void serve_chain(FakeQueue *q, FakeChain *c)
{
    uint64_t start = now_ns();
    struct vhost_blk_stat_kind *count;
    unsigned kind;
    uint8_t status;

    status = do_request(q, c, &kind);
    fake_chain_write(c, c->in_len - 1, &status, 1);
    fake_chain_log(c, q->dev);
    if (kind == VHOST_BLK_STAT_KINDS) {
        return;
    }
    count = &q->stats.kind[kind];
    count->time_ns += now_ns() - start;
    if (c->invalid) {
        count->invalid++;
    } else if (status != VIRTIO_BLK_S_OK) {
        count->failed++;
        eventfd_write(q->err, 1);
    } else {
        count->ops++;
        count->bytes += c->bytes;
    }
}

/* ---- a queue's thread ---- */

/* Take and answer some; true if there may be more. */
static bool serve_batch(FakeQueue *q)
{
    const char *us = getenv("FAKEHOST_VHOST_US");
    FakeChain chain[FAKE_BATCH];
    unsigned n = 0;
    int ret = 0;

    pthread_mutex_lock(&q->dev->lock);
    while (n < FAKE_BATCH && !(q->stats.flags & VHOST_BLK_Q_BROKEN) &&
           (ret = fake_ring_pop(&q->ring, q->dev, &chain[n])) > 0) {
        n++;
    }
    if (ret < 0) {
        q->stats.flags |= VHOST_BLK_Q_BROKEN;
        eventfd_write(q->err, 1);
    }
    pthread_mutex_unlock(&q->dev->lock);
    if (n && us) {
        usleep(atoi(us));
    }
    pthread_mutex_lock(&q->dev->lock);
    for (unsigned i = n; i--; ) {
        serve_chain(q, &chain[i]);
        fake_ring_push(&q->ring, q->dev, chain[i].head, chain[i].written + 1);
    }
    if (n && q->call >= 0 && fake_ring_wants_signal(&q->ring, q->dev)) {
        eventfd_write(q->call, 1);
    }
    pthread_mutex_unlock(&q->dev->lock);
    return n == FAKE_BATCH;
}

static void *queue_thread(void *opaque)
{
    FakeQueue *q = opaque;
    struct pollfd fds[2] = { { q->stop, POLLIN }, { q->kick, POLLIN } };
    eventfd_t value;

    do {
        fds[0].revents = 0;
        while (serve_batch(q) || fake_ring_enable_notify(&q->ring, q->dev)) {
            if (poll(fds, 1, 0) > 0) {
                return NULL;
            }
        }
        poll(fds, 2, -1);
        if (fds[1].revents) {
            eventfd_read(q->kick, &value);
        }
    } while (!fds[0].revents);
    return NULL;
}

static void queue_stop(FakeQueue *q)
{
    if (q->backend >= 0) {
        eventfd_write(q->stop, 1);
        pthread_join(q->thread, NULL);
        close(q->stop);
        close(q->backend);
        q->backend = -1;
        q->stats.flags = 0;
    }
}

static int queue_start(FakeQueue *q, int fd)
{
    queue_stop(q);
    if (fd < 0) {
        return 0;
    }
    if (!q->dev->mem || q->kick < 0 || !q->ring.num) {
        return -EFAULT;
    }
    q->backend = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (q->backend < 0) {
        return -EBADF;
    }
    q->stop = fake_eventfd(0, EFD_CLOEXEC);
    q->stats.flags = VHOST_BLK_Q_RUNNING;
    fake_ring_start(&q->ring);
    if (pthread_create(&q->thread, NULL, queue_thread, q)) {
        abort();
    }
    return 0;
}

/* ---- ioctls ---- */

static long number_of(const char *env, long otherwise)
{
    const char *text = getenv(env);
    long value;

    return text && sscanf(text, "%li", &value) == 1 ? value : otherwise;
}

static int get_info(struct vhost_blk_info *info)
{
    *info = (struct vhost_blk_info) {
        .abi = number_of("FAKEHOST_VHOST_ABI", VHOST_BLK_ABI),
        .max_queues = MAX_QUEUES,
        .features = (VHOST_BLK_F_BLOCK_DEV | VHOST_BLK_F_FILE |
                     VHOST_BLK_F_DISCARD | VHOST_BLK_F_WRITE_ZEROES |
                     VHOST_BLK_F_DIRTY_LOG | VHOST_BLK_F_STATS |
                     VHOST_BLK_F_ERROR_EVENT) &
                    ~number_of("FAKEHOST_VHOST_LACKS", 0),
    };
    return 0;
}

static int replace_fd(int *place, int fd)
{
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int old = *place;

    if (fd >= 0 && copy < 0) {
        return -errno;
    }
    *place = copy;
    if (old >= 0) {
        close(old);
    }
    return 0;
}

static int set_memory(FakeDev *dev, const struct vhost_memory *mem)
{
    size_t size = sizeof(*mem) + mem->nregions * sizeof(mem->regions[0]);

    free(dev->mem);
    dev->mem = malloc(size);
    memcpy(dev->mem, mem, size);
    return 0;
}

static int set_limits(FakeDev *dev, const struct vhost_blk_limits *limits)
{
    if (limits->logical_block_size < 512 ||
        limits->flags & ~(VHOST_BLK_L_READ_ONLY | VHOST_BLK_L_WRITE_THROUGH |
                          VHOST_BLK_L_KEEP_ALLOCATED)) {
        return -EINVAL;
    }
    dev->limits = *limits;
    return 0;
}

/* Calls about a queue that do not wait for it; the device is locked. */
static int queue_call(FakeQueue *q, unsigned long request, void *arg)
{
    struct vhost_vring_state *state = arg;
    struct vhost_vring_file *file = arg;

    switch (request) {
    case VHOST_SET_VRING_NUM:
        q->ring.num = state->num;
        return 0;
    case VHOST_SET_VRING_BASE:
        q->ring.last_avail = state->num;
        return 0;
    case VHOST_SET_VRING_ADDR:
        fake_ring_place(&q->ring, arg);
        return 0;
    case VHOST_SET_VRING_KICK:
        return q->backend >= 0 ? -EBUSY : replace_fd(&q->kick, file->fd);
    case VHOST_SET_VRING_CALL:
        return replace_fd(&q->call, file->fd);
    case VHOST_SET_VRING_ERR:
        return replace_fd(&q->err, file->fd);
    case VHOST_BLK_GET_STATS:
        q->stats.index = q->index;
        memcpy(arg, &q->stats, sizeof(q->stats));
        return 0;
    default:
        return -ENOTTY;
    }
}

static int dev_call(FakeDev *dev, unsigned long request, void *arg)
{
    switch (request) {
    case VHOST_SET_FEATURES:
        dev->features = *(uint64_t *)arg;
        return dev->features & ~FEATURES ? -EOPNOTSUPP : 0;
    case VHOST_SET_MEM_TABLE:
        return set_memory(dev, arg);
    case VHOST_SET_LOG_BASE:
        dev->log = (uint8_t *)(uintptr_t)*(uint64_t *)arg;
        return 0;
    case VHOST_BLK_SET_LIMITS:
        return set_limits(dev, arg);
    case VHOST_BLK_SET_SERIAL:
        memcpy(dev->serial, arg, sizeof(dev->serial));
        return 0;
    default:
        /* All others begin with the index of a queue. */
        if (*(unsigned *)arg >= MAX_QUEUES) {
            return -ENOBUFS;
        }
        return queue_call(&dev->queue[*(unsigned *)arg], request, arg);
    }
}

static int owner_call(FakeDev *dev, unsigned long request, void *arg)
{
    struct vhost_vring_state *state = arg;
    struct vhost_vring_file *file = arg;
    int ret;

    /* These wait for the queue's thread, which takes the lock. */
    if (request == VHOST_GET_VRING_BASE && state->index < MAX_QUEUES) {
        queue_stop(&dev->queue[state->index]);
        state->num = dev->queue[state->index].ring.last_avail;
        return 0;
    }
    if (request == VHOST_BLK_SET_BACKEND && file->index < MAX_QUEUES) {
        return queue_start(&dev->queue[file->index], file->fd);
    }
    pthread_mutex_lock(&dev->lock);
    ret = dev_call(dev, request, arg);
    pthread_mutex_unlock(&dev->lock);
    return ret;
}

static int vhost_call(FakeDev *dev, unsigned long request, void *arg)
{
    switch (request) {
    case VHOST_BLK_GET_INFO:
        return get_info(arg);
    case VHOST_GET_FEATURES:
        *(uint64_t *)arg = FEATURES;
        return 0;
    case VHOST_GET_BACKEND_FEATURES:
        *(uint64_t *)arg = 0;
        return 0;
    case VHOST_SET_BACKEND_FEATURES:
        return 0;
    case VHOST_SET_OWNER:
        if (dev->owned) {
            return -EBUSY;
        }
        dev->owned = true;
        return 0;
    default:
        return dev->owned ? owner_call(dev, request, arg) : -EPERM;
    }
}

/* ---- the device node ---- */

int fake_vhost_open(const char **path)
{
    const char *to = getenv("FAKEHOST_VHOST");

    if (!to || strcmp(*path, "/dev/vhost-blk")) {
        return 0;
    }
    if (*to != '/') {
        return -atoi(to);
    }
    *path = to;
    return 0;
}

static bool is_node(int fd)
{
    const char *path = getenv("FAKEHOST_VHOST");
    struct stat node, st;

    return path && *path == '/' && !stat(path, &node) && !fstat(fd, &st) &&
           node.st_dev == st.st_dev && node.st_ino == st.st_ino;
}

static FakeDev *dev_new(int fd)
{
    FakeDev *dev = calloc(1, sizeof(*dev));

    dev->fd = fd;
    pthread_mutex_init(&dev->lock, NULL);
    for (unsigned i = 0; i < MAX_QUEUES; i++) {
        FakeQueue *q = &dev->queue[i];

        q->dev = dev;
        q->index = i;
        q->kick = q->call = q->err = q->backend = -1;
    }
    return dev;
}

/* The device of @fd; made at the first call. */
static FakeDev *dev_get(int fd, bool make)
{
    FakeDev *found = NULL;

    pthread_mutex_lock(&devs_lock);
    for (unsigned i = 0; i < MAX_DEVS && !found; i++) {
        found = devs[i] && devs[i]->fd == fd ? devs[i] : NULL;
    }
    for (unsigned i = 0; make && i < MAX_DEVS && !found; i++) {
        if (!devs[i]) {
            found = devs[i] = dev_new(fd);
        }
    }
    pthread_mutex_unlock(&devs_lock);
    return found;
}

bool fake_vhost_ioctl(int fd, unsigned long request, void *arg, int *ret)
{
    if (_IOC_TYPE(request) != VHOST_VIRTIO || !is_node(fd)) {
        return false;
    }
    *ret = vhost_call(dev_get(fd, true), request, arg);
    return true;
}

void fake_vhost_close(int fd)
{
    FakeDev *dev = getenv("FAKEHOST_VHOST") ? dev_get(fd, false) : NULL;

    if (!dev) {
        return;
    }
    pthread_mutex_lock(&devs_lock);
    for (unsigned i = 0; i < MAX_DEVS; i++) {
        devs[i] = devs[i] == dev ? NULL : devs[i];
    }
    pthread_mutex_unlock(&devs_lock);
    for (unsigned i = 0; i < MAX_QUEUES; i++) {
        FakeQueue *q = &dev->queue[i];

        queue_stop(q);
        replace_fd(&q->kick, -1);
        replace_fd(&q->call, -1);
        replace_fd(&q->err, -1);
    }
    free(dev->mem);
    free(dev);
}
