/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Set-up, stop, logging, queues, and owners that come and go. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define TRIES 20

#ifndef VHOST_NEW_WORKER        /* headers before Linux 6.5 */
struct vhost_worker_state {
    unsigned int worker_id;
};
struct vhost_vring_worker {
    unsigned int index;
    unsigned int worker_id;
};
#define VHOST_NEW_WORKER _IOR(VHOST_VIRTIO, 0x8, struct vhost_worker_state)
#define VHOST_ATTACH_VRING_WORKER _IOW(VHOST_VIRTIO, 0x15, \
                                       struct vhost_vring_worker)
#define VHOST_GET_VRING_WORKER _IOWR(VHOST_VIRTIO, 0x16, \
                                     struct vhost_vring_worker)
#endif

static void test_info(void)
{
    struct vhost_blk_info info = {};
    int fd = open("/dev/vhost-blk", O_RDWR);
    uint64_t features;

    CHECK(!ioctl(fd, VHOST_BLK_GET_INFO, &info), "%s", strerror(errno));
    CHECK(info.abi == VHOST_BLK_ABI, "abi %u", info.abi);
    CHECK(info.max_queues == 64, "max_queues %u", info.max_queues);
    CHECK(info.features & VHOST_BLK_F_BLOCK_DEV, "no block devices");
    CHECK(info.features & VHOST_BLK_F_DIRTY_LOG, "no dirty log");
    for (int i = 0; i < 6; i++) {
        CHECK(!info.reserved[i], "reserved %d", i);
    }
    CHECK(!ioctl(fd, VHOST_GET_FEATURES, &features), "GET_FEATURES");
    CHECK(features & BIT(VIRTIO_F_VERSION_1) &&
          features & BIT(VHOST_F_LOG_ALL) &&
          features & BIT(VIRTIO_F_ACCESS_PLATFORM) &&
          features & BIT(VIRTIO_RING_F_EVENT_IDX) &&
          features & BIT(VIRTIO_RING_F_INDIRECT_DESC) &&
          !(features & BIT(VIRTIO_F_RING_PACKED)), "%llx",
          (unsigned long long)features);
    CHECK(ioctl(fd, _IO(VHOST_VIRTIO, 0xee), 0) == -1, "unknown ioctl");
    close(fd);
}

/* Only the process that became the owner may set the device up. */
static void test_owner(void)
{
    int fd = open("/dev/vhost-blk", O_RDWR), status;
    struct vhost_blk_limits limits = { .logical_block_size = 512 };
    Device *dev;

    CHECK(ioctl(fd, VHOST_BLK_SET_LIMITS, &limits) == -1 && errno == EPERM,
          "no owner: %s", strerror(errno));
    close(fd);
    dev = device_open(0);
    CHECK(ioctl(dev->fd, VHOST_SET_OWNER, NULL) == -1 && errno == EBUSY,
          "second owner: %s", strerror(errno));
    queue_start(dev, 0, 64);
    if (fork() == 0) {
        bool good = ioctl(dev->fd, VHOST_BLK_SET_LIMITS, &limits) == -1 &&
                    errno == EPERM &&
                    queue_set_backend(&dev->queues[0], -1) == -EPERM;

        _exit(good ? 0 : 1);
    }
    wait(&status);
    CHECK(status == 0, "a child has its parent's rights");
    CHECK(simple(&dev->queues[0], VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    device_close(dev);
}

static void test_backend_refused(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_setup(dev, 0, 64);
    int fd, r;

    fd = open("/dev/null", O_RDWR);
    CHECK(queue_set_backend(q, fd) == -EINVAL, "/dev/null");
    close(fd);
    CHECK(queue_set_backend(q, fd) == -EBADF, "a closed fd");
    fd = open(backend.path, O_WRONLY);
    CHECK(queue_set_backend(q, fd) == -EBADF, "write only");
    close(fd);
    fd = open(backend.path, O_RDONLY);
    CHECK(queue_set_backend(q, fd) == -EINVAL, "read only");
    dev->limits.flags |= VHOST_BLK_L_READ_ONLY;
    device_set_limits(dev);
    r = queue_set_backend(q, fd);
    CHECK(!r, "read-only disk: %s", strerror(-r));
    dev->limits.flags = 0;
    CHECK(ioctl(dev->fd, VHOST_BLK_SET_LIMITS, &dev->limits) == -1 &&
          errno == EINVAL, "writable while the fd is not");
    CHECK(vring_file(dev, VHOST_BLK_SET_BACKEND, 64, fd) == -ENOBUFS,
          "queue 64");
    close(fd);
    device_close(dev);
}

/* Zones need commands that only userspace has. */
static void test_zoned(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_setup(dev, 0, 64);
    int fd = open_backend();

    if (!backend.zoned) {
        not_here();
    }
    CHECK(queue_set_backend(q, fd) == -EOPNOTSUPP, "it is taken");
    device_close(dev);
}

static bool limits_refused(Device *dev, const struct vhost_blk_limits *limits)
{
    return ioctl(dev->fd, VHOST_BLK_SET_LIMITS, limits) == -1 &&
           errno == EINVAL;
}

/* Each rule for itself; what is just good enough is taken. */
static void test_limits_refused(void)
{
    Device *dev = device_open(0);
    struct vhost_blk_limits bad[10], good = dev->limits;
    size_t words = sizeof(good.reserved) / sizeof(good.reserved[0]);

    for (int i = 0; i < 10; i++) {
        bad[i] = dev->limits;
    }
    bad[0].logical_block_size = 256;
    bad[1].logical_block_size = 1000;
    bad[2].logical_block_size = 131072;
    bad[3].logical_block_size = 0;
    bad[4].capacity = UINT64_MAX / 512;
    bad[5].capacity = INT64_MAX / 512 + 1;
    bad[6].max_discard_segments = VHOST_BLK_MAX_SEGMENTS + 1;
    bad[7].max_write_zeroes_segments = VHOST_BLK_MAX_SEGMENTS + 1;
    bad[8].max_secure_erase_segments = VHOST_BLK_MAX_SEGMENTS + 1;
    bad[9].flags = 1U << 3;
    for (int i = 0; i < 10; i++) {
        CHECK(limits_refused(dev, &bad[i]), "case %d", i);
    }
    for (size_t i = 0; i < words; i++) {
        bad[0] = good;
        bad[0].reserved[i] = 1;
        CHECK(limits_refused(dev, &bad[0]), "reserved word %zu", i);
    }
    good.logical_block_size = 65536;
    good.capacity = INT64_MAX / 512;
    good.max_discard_segments = VHOST_BLK_MAX_SEGMENTS;
    good.max_write_zeroes_segments = VHOST_BLK_MAX_SEGMENTS;
    good.max_secure_erase_segments = VHOST_BLK_MAX_SEGMENTS;
    good.flags = VHOST_BLK_L_READ_ONLY | VHOST_BLK_L_WRITE_THROUGH |
                 VHOST_BLK_L_KEEP_ALLOCATED;
    CHECK(ioctl(dev->fd, VHOST_BLK_SET_LIMITS, &good) == 0, "good: %s",
          strerror(errno));
    device_close(dev);
}

/* No smaller blocks than the disk's own, before it is there or after. */
static void test_limits_block(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_setup(dev, 0, 64);
    struct vhost_blk_limits small = dev->limits;
    int fd = open_backend(), r;

    small.logical_block_size = 512;
    if (backend.block_size == 512 || !(backend.flags & O_DIRECT)) {
        not_here();
    }
    CHECK(ioctl(dev->fd, VHOST_BLK_SET_LIMITS, &small) == 0, "no backend");
    r = queue_set_backend(q, fd);
    CHECK(r == -EINVAL, "the backend: %d", r);
    device_set_limits(dev);
    r = queue_set_backend(q, fd);
    CHECK(!r, "the backend: %s", strerror(-r));
    CHECK(limits_refused(dev, &small), "with a backend");
    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 512) == VIRTIO_BLK_S_IOERR,
          "half a block");
    device_close(dev);
}

/* A driver of another make sets no limits: the backend's own are taken. */
static void test_defaults(void)
{
    Device *dev = calloc(1, sizeof(*dev)), *other = device_open(0);
    Queue *q;

    *dev = *other;
    dev->fd = open("/dev/vhost-blk", O_RDWR);
    CHECK(!ioctl(dev->fd, VHOST_SET_OWNER, NULL), "SET_OWNER");
    device_set_features(dev, BIT(VIRTIO_F_VERSION_1));
    device_set_memory(dev, MEM_SIZE);
    q = queue_start(dev, 0, 64);
    CHECK(simple(q, VIRTIO_BLK_T_OUT, backend.size / 512 - 8, 4096) == 0,
          "the last block");
    CHECK(simple(q, VIRTIO_BLK_T_IN, backend.size / 512, 4096) == 1,
          "past the end");
    close(dev->fd);
    device_close(other);
}

static void test_stats(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 3, 64);
    struct vhost_blk_stats stats = { .index = 3 };
    const struct vhost_blk_stat_kind *kind = stats.kind;
    struct virtio_blk_discard_write_zeroes segment = { .num_sectors = 128 };
    Request zeroes = request_make(dev, VIRTIO_BLK_T_WRITE_ZEROES, 0,
                                  sizeof(segment));

    for (int i = 0; i < 3; i++) {
        simple(q, VIRTIO_BLK_T_OUT, 0, 4096);
    }
    for (int i = 0; i < 5; i++) {
        simple(q, VIRTIO_BLK_T_IN, 0, 8192);
    }
    simple(q, VIRTIO_BLK_T_IN, UINT64_MAX, 8192);
    simple(q, VIRTIO_BLK_T_FLUSH, 0, 0);
    memcpy(zeroes.data, &segment, sizeof(segment));
    CHECK(request_run(q, &zeroes) == 0, "WRITE_ZEROES");
    CHECK(!ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats), "%s",
          strerror(errno));
    CHECK(kind[0].ops == 5 && kind[0].bytes == 5 * 8192 &&
          kind[0].invalid == 1 && kind[0].failed == 0, "reads: %llu, %llu",
          kind[0].ops, kind[0].bytes);
    CHECK(kind[1].ops == 3 && kind[1].bytes == 3 * 4096, "writes: %llu",
          kind[1].ops);
    CHECK(kind[2].ops == 1 && kind[3].ops == 0, "flushes: %llu", kind[2].ops);
    CHECK(kind[4].ops == 1 && kind[4].bytes == 65536, "zeroes: %llu, %llu",
          kind[4].ops, kind[4].bytes);
    CHECK(!stats.last_error && !eventfd_wait(q->err, 0), "an error is told");
    CHECK(kind[0].time_ns > 1000 && kind[0].time_ns < 10000000000, "%llu ns",
          kind[0].time_ns);
    CHECK(stats.inflight == 0 && stats.index == 3, "inflight");
    stats.index = 64;
    CHECK(ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats) == -1 &&
          errno == ENOBUFS, "queue 64");
    device_close(dev);
}

/* An interrupt only where the driver asked for one. */
static void test_event_idx(void)
{
    Device *dev = device_open(BIT(VIRTIO_RING_F_EVENT_IDX));
    Queue *q = queue_start(dev, 0, 64);
    struct vring_used_elem elem;
    Request r[4];

    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    CHECK(eventfd_wait(q->call, 2000), "the first has no interrupt");
    /* wake me at the fourth from here */
    q->event_idx = false;
    q->avail->ring[q->num] = q->last_used + 3;
    for (int i = 0; i < 4; i++) {
        r[i] = request_make(dev, VIRTIO_BLK_T_IN, 8 * i, 4096);
        CHECK(!eventfd_wait(q->call, i ? 50 : 0), "interrupt before %d", i);
        request_offer(q, &r[i]);
        queue_kick(q);
        while (!queue_poll(q, &elem)) {
            usleep(100);
        }
    }
    CHECK(eventfd_wait(q->call, 2000), "no interrupt");
    device_close(dev);
}

static void test_no_interrupt(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);

    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    CHECK(eventfd_wait(q->call, 2000), "no interrupt");
    q->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    CHECK(!eventfd_wait(q->call, 100), "an interrupt nobody wants");
    device_close(dev);
}

static void test_queues(void)
{
    Device *dev = device_open(0);
    struct vhost_vring_state state = { .index = 64, .num = 64 };

    for (int i = 0; i < MAX_QUEUES; i++) {
        Queue *q = queue_start(dev, i, 64);
        Request r = request_make(dev, VIRTIO_BLK_T_OUT, i * 8, 4096);

        fill(r.data, 4096, i * 8, 300 + i);
        request_offer(q, &r);
        queue_kick(q);
    }
    for (int i = 0; i < MAX_QUEUES; i++) {
        queue_wait(&dev->queues[i]);
    }
    for (int i = 0; i < MAX_QUEUES; i++) {
        Request r = request_make(dev, VIRTIO_BLK_T_IN, i * 8, 4096);

        CHECK(request_run(&dev->queues[63 - i], &r) == 0, "queue %d", 63 - i);
        check_fill(r.data, 4096, i * 8, 300 + i);
    }
    CHECK(ioctl(dev->fd, VHOST_SET_VRING_NUM, &state) == -1 &&
          errno == ENOBUFS, "queue 64");
    device_close(dev);
}

static Request *offer_many(Queue *q, unsigned int n, uint32_t type)
{
    Request *r = calloc(n, sizeof(*r));

    for (unsigned int i = 0; i < n; i++) {
        r[i] = request_make(q->dev, type, i * 8, 4096);
        request_offer(q, &r[i]);
    }
    queue_kick(q);
    return r;
}

/* A stop leaves nothing in flight, and the next start goes on from there. */
static void test_drain(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 256);
    struct vhost_vring_state state;
    struct vring_used_elem elem;
    uint16_t base, done;
    Request *r;
    int fd = open_backend();

    for (int round = 0; round < 4; round++) {
        r = offer_many(q, 48, VIRTIO_BLK_T_IN);
        usleep(round * 7000);
        if (round & 1) {
            CHECK(!queue_set_backend(q, -1), "stop");
        }
        base = queue_get_base(q);
        done = __atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE);
        CHECK(done == base, "taken %u, given back %u", base, done);
        CHECK(!round || (uint16_t)(base - q->last_used) > 0, "none taken");
        queue_kick(q);
        usleep(20000);
        CHECK(q->used->idx == done, "the queue runs after its stop");
        state = (struct vhost_vring_state) { .index = 0, .num = base };
        CHECK(!ioctl(dev->fd, VHOST_SET_VRING_BASE, &state), "base");
        CHECK(!queue_set_backend(q, fd), "start");
        for (int i = 0; i < 48; i++) {
            elem = queue_wait(q);
            CHECK(elem.len == 4097, "used %u", elem.len);
        }
        for (int i = 0; i < 48; i++) {
            CHECK(*r[i].status == 0, "request %d: %u", i, *r[i].status);
        }
        free(r);
    }
    device_close(dev);
}

static void *keep_offering(void *opaque)
{
    Queue *q = opaque;
    Request r[64];

    for (int i = 0; i < 64; i++) {
        r[i] = request_make(q->dev, VIRTIO_BLK_T_IN, i * 8, 4096);
    }
    for (int i = 0; i < 1000; i++) {
        request_offer(q, &r[i % 64]);
        queue_kick(q);
        usleep(2000);
    }
    return NULL;
}

/* The driver goes on while its queue is stopped: the stop ends all the same. */
static void test_busy_stop(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 1024);
    struct timespec t[2];
    pthread_t thread;
    uint16_t base;

    CHECK(!pthread_create(&thread, NULL, keep_offering, q), "thread");
    usleep(100000);
    clock_gettime(CLOCK_MONOTONIC, &t[0]);
    base = queue_get_base(q);
    clock_gettime(CLOCK_MONOTONIC, &t[1]);
    CHECK(t[1].tv_sec - t[0].tv_sec <= 1, "it took %ld s",
          (long)(t[1].tv_sec - t[0].tv_sec));
    CHECK(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) == base, "base");
    pthread_join(thread, NULL);
    CHECK(q->used->idx == base, "it runs on");
    device_close(dev);
}

static void test_running_ring_is_fixed(void)
{
    Device *dev = device_open(0);
    struct vhost_vring_state state = { .index = 0, .num = 32 };

    queue_start(dev, 0, 64);
    CHECK(ioctl(dev->fd, VHOST_SET_VRING_NUM, &state) == -1 &&
          errno == EBUSY, "NUM: %s", strerror(errno));
    CHECK(ioctl(dev->fd, VHOST_SET_VRING_BASE, &state) == -1 &&
          errno == EBUSY, "BASE: %s", strerror(errno));
    device_close(dev);
}

/* The memory table changes under load: every request is answered once. */
static void test_mem_table(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 256);
    struct vhost_blk_stats stats = {};
    uint16_t done;
    Request *r;

    for (int round = 0; round < 5; round++) {
        r = offer_many(q, 48, VIRTIO_BLK_T_IN);
        usleep(10000);
        done = __atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE);
        CHECK(!ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
        device_set_memory(dev, MEM_SIZE - round * 65536);
        done += stats.inflight;
        CHECK((uint16_t)(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) -
                         done) < 256, "%u were in flight", stats.inflight);
        for (int i = 0; i < 48; i++) {
            queue_wait(q);
            CHECK(*r[i].status == 0, "request %d: %u", i, *r[i].status);
        }
        free(r);
        dev->used_mem = DATA_START;
    }
    /* a request whose memory is gone is not carried out anywhere */
    device_set_memory(dev, DATA_START);
    done = q->used->idx;
    r = offer_many(q, 1, VIRTIO_BLK_T_IN);
    CHECK(eventfd_wait(q->err, 3000), "no error is told");
    CHECK(q->used->idx == done, "it was answered");
    CHECK(!ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    CHECK(stats.kind[0].ops == 240, "%llu reads", stats.kind[0].ops);
    device_close(dev);
}

static bool logged(Device *dev, const uint8_t *log, const void *p)
{
    uint64_t page = guest_address(dev, p) / PAGE;

    return log[page / 8] >> page % 8 & 1;
}

static unsigned int count_logged(const uint8_t *log)
{
    unsigned int n = 0;

    for (size_t i = 0; i < LOG_SIZE; i++) {
        n += __builtin_popcount(log[i]);
    }
    return n;
}

static void clear_log(uint8_t *log)
{
    memset(log, 0, LOG_SIZE);
}

static Request spread_request(Device *dev, uint32_t type, uint32_t len)
{
    Request r;

    device_alloc(dev, 0, PAGE);
    r = request_make(dev, type, 0, len);
    r.status = device_alloc(dev, PAGE, PAGE);
    return r;
}

/* Every page the device writes is in the log, and no page that it reads. */
static void test_dirty_log(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    Request in, out;
    uint8_t *log;

    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    log = device_start_log(dev);
    in = spread_request(dev, VIRTIO_BLK_T_IN, 3 * PAGE);
    CHECK(request_run(q, &in) == 0, "IN");
    usleep(10000);
    for (int i = 0; i < 3; i++) {
        CHECK(logged(dev, log, in.data + i * PAGE), "data page %d", i);
    }
    CHECK(logged(dev, log, in.status), "status");
    CHECK(logged(dev, log, q->used), "used ring");
    CHECK(count_logged(log) == 5, "%u pages", count_logged(log));

    clear_log(log);
    out = spread_request(dev, VIRTIO_BLK_T_OUT, 3 * PAGE);
    CHECK(request_run(q, &out) == 0, "OUT");
    usleep(10000);
    CHECK(logged(dev, log, out.status) && logged(dev, log, q->used), "OUT");
    CHECK(count_logged(log) == 2, "%u pages", count_logged(log));

    device_set_features(dev, dev->features & ~BIT(VHOST_F_LOG_ALL));
    queue_set_addr(q, false);
    clear_log(log);
    CHECK(request_run(q, &in) == 0, "IN");
    CHECK(count_logged(log) == 0, "%u pages", count_logged(log));
    device_close(dev);
}

static bool in_flight(Queue *q)
{
    struct vhost_blk_stats stats = { .index = q->index };

    CHECK(!ioctl(q->dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    return stats.inflight;
}

/* Have a late disk begin a request; a busy machine may see its end already. */
static void offer_late(Queue *q, Request *r)
{
    for (int i = 0; i < TRIES; i++) {
        *r->status = 0xaa;
        request_offer(q, r);
        queue_kick(q);
        for (int wait = 0; *r->status == 0xaa && wait < 100; wait++) {
            if (in_flight(q)) {
                return;
            }
            usleep(200);
        }
        queue_wait(q);
    }
    fail(__FILE__, __LINE__, "in_flight", "it is always answered before");
}

/* What was in flight when the logging began is logged, too. */
static void test_late_log(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    uint8_t *log = NULL;
    Request in;

    if (!backend.late) {
        not_here();
    }
    in = spread_request(dev, VIRTIO_BLK_T_IN, 2 * PAGE);
    for (int i = 0; i < TRIES; i++) {
        offer_late(q, &in);
        log = device_start_log(dev);
        if (in_flight(q)) {
            break;
        }
        CHECK(i < TRIES - 1, "it is always answered before");
        queue_wait(q);
        device_set_features(dev, dev->features & ~BIT(VHOST_F_LOG_ALL));
    }
    queue_wait(q);
    usleep(10000);
    CHECK(logged(dev, log, in.data) && logged(dev, log, in.data + PAGE) &&
          logged(dev, log, in.status), "not logged");
    device_close(dev);
}

static void iotlb_send(Device *dev, uint8_t type, uint64_t iova, uint64_t size,
                       uint64_t where)
{
    struct vhost_msg msg = {
        .type = VHOST_IOTLB_MSG,
        .iotlb = { .iova = iova, .size = size, .uaddr = where,
                   .perm = VHOST_ACCESS_RW, .type = type },
    };

    CHECK(write(dev->fd, &msg, sizeof(msg)) == sizeof(msg), "IOTLB: %s",
          strerror(errno));
}

static void iotlb_map(Device *dev, const void *p, uint64_t size)
{
    iotlb_send(dev, VHOST_IOTLB_UPDATE, guest_address(dev, p), size,
               (uintptr_t)p);
}

static uint64_t iotlb_miss(Device *dev)
{
    struct pollfd p = { .fd = dev->fd, .events = POLLIN };
    struct vhost_msg msg;

    CHECK(poll(&p, 1, 3000) == 1, "no miss is told");
    CHECK(read(dev->fd, &msg, sizeof(msg)) == sizeof(msg), "%s",
          strerror(errno));
    CHECK(msg.iotlb.type == VHOST_IOTLB_MISS, "message %u", msg.iotlb.type);
    return msg.iotlb.iova;
}

/* A driver that comes after does without the IOMMU. */
static void iotlb_gone(Queue *q, int fd)
{
    Device *dev = q->dev;
    uint64_t features = BIT(VIRTIO_F_VERSION_1);

    CHECK(ioctl(dev->fd, VHOST_SET_FEATURES, &features) == -1 &&
          errno == EBUSY, "under a running queue: %s", strerror(errno));
    CHECK(queue_get_base(q) == 2, "base");
    device_set_features(dev, features);
    queue_set_addr(q, false);
    CHECK(!queue_set_backend(q, fd), "start");
    for (int i = 0; i < 2; i++) {
        queue_wait(q);
    }
    CHECK(simple(q, VIRTIO_BLK_T_IN, 64, 4096) == 0, "IN");
}

/* Addresses through an IOMMU: a miss is asked for, then the request goes on. */
static void test_iotlb(void)
{
    Device *dev = device_open(BIT(VIRTIO_F_ACCESS_PLATFORM));
    Queue *q = queue_setup(dev, 0, 64);
    int fd = open_backend(), r;
    Request in, out;

    device_set_memory(dev, MEM_SIZE);
    iotlb_map(dev, dev->mem, DATA_START);
    r = queue_set_backend(q, fd);
    CHECK(!r, "SET_BACKEND: %s", strerror(-r));
    out = request_make(dev, VIRTIO_BLK_T_OUT, 64, 4 * PAGE);
    fill(out.data, out.len, 64, 77);
    request_offer(q, &out);
    queue_kick(q);
    CHECK(iotlb_miss(dev) / PAGE == guest_address(dev, out.hdr) / PAGE, "hdr");
    usleep(20000);
    CHECK(q->used->idx == 0, "answered without its memory");
    iotlb_map(dev, dev->mem + DATA_START, 1 << 20);
    queue_wait(q);
    CHECK(*out.status == 0, "OUT: %u", *out.status);
    in = request_make(dev, VIRTIO_BLK_T_IN, 64, 4 * PAGE);
    CHECK(request_run(q, &in) == 0, "IN: %u", *in.status);
    check_fill(in.data, in.len, 64, 77);
    /* what the guest unmapped is out of reach */
    iotlb_send(dev, VHOST_IOTLB_INVALIDATE, guest_address(dev, dev->mem) +
               DATA_START, 1 << 20, 0);
    for (int i = 0; i < 2; i++) {
        request_offer(q, &in);
    }
    queue_kick(q);
    CHECK(iotlb_miss(dev) >= GUEST_BASE + DATA_START, "no miss");
    iotlb_gone(q, fd);
    device_close(dev);
}

/* A busy queue is served in turns, so that others of its worker have theirs. */
static void test_weight(void)
{
    Device *dev = device_open(0);
    Queue *busy = queue_setup(dev, 0, 1024);
    struct vhost_blk_stats stats = {};
    int fd = open_backend();
    Request r;

    for (int i = 0; i < 340; i++) {
        r = request_make(dev, VIRTIO_BLK_T_IN, 0, 4096);
        request_offer(busy, &r);
    }
    CHECK(!queue_set_backend(busy, fd), "start");
    for (int i = 0; i < 340; i++) {
        queue_wait(busy);
    }
    CHECK(!ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    CHECK(stats.turns >= 3, "340 requests in %llu turns", stats.turns);
    device_close(dev);
}

/* How much of a busy queue was done when a quiet one had its answer. */
static unsigned int busy_before_quiet(void)
{
    Device *dev = device_open(0);
    Queue *busy = queue_setup(dev, 0, 1024), *quiet = queue_setup(dev, 1, 64);
    int fd = open_backend();
    unsigned int done;
    Request r;

    for (int i = 0; i < 340; i++) {
        r = request_make(dev, VIRTIO_BLK_T_IN, 0, 4096);
        request_offer(busy, &r);
    }
    r = request_make(dev, VIRTIO_BLK_T_IN, 0, 4096);
    request_offer(quiet, &r);
    CHECK(!queue_set_backend(busy, fd), "start");
    CHECK(!queue_set_backend(quiet, fd), "start");
    queue_wait(quiet);
    done = __atomic_load_n(&busy->used->idx, __ATOMIC_ACQUIRE);
    close(fd);
    device_close(dev);
    return done;
}

/*
 * The queue that is busy lets the others of its worker in between.  Where a
 * work queue does the I/O, that one's order says more than the worker's.
 */
static void test_starve(void)
{
    if (!backend.merges) {
        not_here();
    }
    for (int i = 0; i < 20 * TRIES; i++) {
        if (busy_before_quiet() < 340) {
            return;
        }
    }
    fail(__FILE__, __LINE__, "busy_before_quiet", "the quiet queue is always "
         "last");
}

static uint32_t own_worker(Device *dev, unsigned int index)
{
    struct vhost_vring_worker attach = { .index = index };
    struct vhost_worker_state worker = {};

    CHECK(!ioctl(dev->fd, VHOST_NEW_WORKER, &worker), "worker %u: %s", index,
          strerror(errno));
    attach.worker_id = worker.worker_id;
    CHECK(!ioctl(dev->fd, VHOST_ATTACH_VRING_WORKER, &attach), "attach");
    attach.worker_id = 0;
    CHECK(!ioctl(dev->fd, VHOST_GET_VRING_WORKER, &attach), "get");
    CHECK(attach.worker_id == worker.worker_id, "worker %u", attach.worker_id);
    return worker.worker_id;
}

/* Where the kernel has them, each queue may have a worker of its own. */
static void test_workers(void)
{
    Device *dev = device_open(0);
    struct vhost_worker_state worker = {};
    struct vhost_blk_info info = {};

    CHECK(!ioctl(dev->fd, VHOST_BLK_GET_INFO, &info), "info");
    if (!(info.features & VHOST_BLK_F_WORKERS)) {
        CHECK(ioctl(dev->fd, VHOST_NEW_WORKER, &worker) == -1, "a worker");
        device_close(dev);
        return;
    }
    for (int i = 0; i < MAX_QUEUES; i++) {
        queue_start(dev, i, 64);
        /* under a running queue, too */
        CHECK(own_worker(dev, i) == (uint32_t)i + 1, "another id");
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MAX_QUEUES; i++) {
            for (int n = 0; n < 4; n++) {
                Request r = request_make(dev, VIRTIO_BLK_T_IN, i * 8, 4096);

                request_offer(&dev->queues[i], &r);
            }
            queue_kick(&dev->queues[i]);
        }
        for (int i = 0; i < MAX_QUEUES * 4; i++) {
            CHECK(queue_wait(&dev->queues[i / 4]).len == 4097, "IN");
        }
    }
    CHECK(queue_get_base(&dev->queues[63]) == 12, "base");
    device_close(dev);
}

/* A process that is killed in the middle of its I/O ends at once. */
static void test_killed(void)
{
    pid_t pid;
    int status;

    for (int round = 0; round < 3; round++) {
        pid = fork();
        if (pid == 0) {
            Device *dev = device_open(0);

            offer_many(queue_start(dev, 0, 128), 32, VIRTIO_BLK_T_IN);
            offer_many(queue_start(dev, 1, 128), 32, VIRTIO_BLK_T_FLUSH);
            pause();
        }
        usleep(60000 + round * 10000);
        kill(pid, SIGKILL);
        for (int i = 0; waitpid(pid, &status, WNOHANG) != pid; i++) {
            CHECK(i < 300, "it does not end");
            usleep(10000);
        }
    }
}

/* A child has the device, too; its parent, the owner, dies in mid I/O. */
static void test_orphan(void)
{
    int life[2], status;
    pid_t pid;
    char c;

    CHECK(!pipe(life), "pipe");
    pid = fork();
    if (pid == 0) {
        Device *dev = device_open(0);
        Queue *q = queue_start(dev, 0, 128);

        offer_many(q, 32, VIRTIO_BLK_T_IN);
        if (fork() == 0) {
            usleep(150000);
            close(dev->fd);
            _exit(0);
        }
        usleep(5000);
        _exit(0);
    }
    close(life[1]);
    CHECK(waitpid(pid, &status, 0) == pid && !status, "status %x", status);
    /* the pipe's last end is closed by the child's end */
    CHECK(read(life[0], &c, 1) == 0, "pipe");
}

/*
 * The host reads a block into its page cache while the guest's write of it is
 * on the way: it does not see the old contents ever after.
 */
static void test_host_cache(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    Request r = request_make(dev, VIRTIO_BLK_T_OUT, 8192, 4096);
    int fd = open(backend.path, O_RDONLY);
    uint8_t seen[4096];

    if (!backend.late_data) {
        not_here();
    }
    for (int i = 0; i < TRIES; i++) {
        bool late;

        r.hdr->sector = 8192 + i * 256;
        fill(r.data, 4096, r.hdr->sector, 66);
        offer_late(q, &r);
        CHECK(pread(fd, seen, 4096, r.hdr->sector * 512) == 4096, "pread");
        late = *r.status == 0xaa;
        queue_wait(q);
        CHECK(*r.status == 0, "status %u", *r.status);
        CHECK(pread(fd, seen, 4096, r.hdr->sector * 512) == 4096, "pread");
        check_fill(seen, 4096, r.hdr->sector, 66);
        if (late) {
            break;
        }
        CHECK(i < TRIES - 1, "the write is always quicker than the read");
    }
    close(fd);
    device_close(dev);
}

/* The host makes a disk read-only that was opened for writing. */
static void test_set_read_only(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    int on = 1, off = 0, fd = open_backend();
    uint8_t status[2];

    if (!backend.is_block) {
        not_here();
    }
    CHECK(!ioctl(fd, BLKROSET, &on), "BLKROSET: %s", strerror(errno));
    status[0] = simple(q, VIRTIO_BLK_T_OUT, 0, 4096);
    status[1] = simple(q, VIRTIO_BLK_T_IN, 0, 4096);
    ioctl(fd, BLKROSET, &off);
    CHECK(status[0] == VIRTIO_BLK_S_IOERR, "OUT: %u", status[0]);
    CHECK(status[1] == VIRTIO_BLK_S_OK, "IN: %u", status[1]);
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 0, 4096) == VIRTIO_BLK_S_OK, "OUT");
    device_close(dev);
}

/*
 * A fork and a write beside the data, while the disk has yet to fill it: the
 * data arrives in the page that the parent has after that.
 */
static void test_fork(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    Request r = request_make(dev, VIRTIO_BLK_T_IN, 4096, 2048);
    pid_t pid;

    if (!backend.late_data) {
        not_here();
    }
    fill(r.data, 2048, 4096, 55);
    backend_write(r.data, 2048, 4096 * 512);
    memset(r.data, 0, PAGE);
    offer_late(q, &r);
    pid = fork();
    if (pid == 0) {
        sleep(1);
        _exit(0);
    }
    r.data[PAGE - 1] = 1;
    queue_wait(q);
    CHECK(*r.status == 0, "status %u", *r.status);
    check_fill(r.data, 2048, 4096, 55);
    waitpid(pid, NULL, 0);
    device_close(dev);
}

/* The disk's errors: its own status, its own count, its neighbours are well. */
static void test_io_error(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 2, 64);
    struct vhost_blk_stats stats = { .index = 2 };
    uint64_t bad = backend.size / 512 - 2048;
    Request r[6];

    if (!backend.bad_end) {
        not_here();
    }
    for (int i = 0; i < 6; i++) {
        r[i] = request_make(dev, i & 1, bad - 16 + i / 2 * 8, 4096);
        request_offer(q, &r[i]);
    }
    queue_kick(q);
    for (int i = 0; i < 6; i++) {
        struct vring_used_elem elem = queue_wait(q);

        CHECK(elem.len == 1 || elem.len == 4097, "used %u", elem.len);
        CHECK(elem.len == 1 || elem.id < r[4].head, "used %u of a failure",
              elem.len);
    }
    for (int i = 0; i < 6; i++) {
        CHECK(*r[i].status == (i / 2 == 2 ? VIRTIO_BLK_S_IOERR : 0),
              "request %d: %u", i, *r[i].status);
    }
    CHECK(!ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    CHECK(stats.kind[0].failed == 1 && stats.kind[1].failed == 1 &&
          stats.kind[0].ops == 2, "%llu and %llu failures",
          stats.kind[0].failed, stats.kind[1].failed);
    CHECK(eventfd_wait(q->err, 1000), "nobody is told");
    CHECK(stats.last_error == -EIO, "error %d", stats.last_error);
    CHECK(stats.flags == VHOST_BLK_Q_RUNNING, "flags %x", stats.flags);
    device_close(dev);
}

/*
 * A flush that failed must not succeed when it is tried again, on any queue:
 * what the page cache has lost it tells of once.
 */
static void test_lost(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64), *other = queue_start(dev, 1, 64);
    uint64_t bad = backend.size / 512 - 2048;

    if (!backend.bad_end) {
        not_here();
    }
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 64, 4096) == 0, "OUT");
    CHECK(simple(q, VIRTIO_BLK_T_FLUSH, 0, 0) == 0, "FLUSH");
    CHECK(simple(q, VIRTIO_BLK_T_OUT, bad, 4096) == 0, "OUT to the cache");
    CHECK(simple(q, VIRTIO_BLK_T_FLUSH, 0, 0) == VIRTIO_BLK_S_IOERR,
          "a flush of what is lost is answered well");
    CHECK(simple(q, VIRTIO_BLK_T_FLUSH, 0, 0) == VIRTIO_BLK_S_IOERR,
          "the second flush is answered well");
    CHECK(simple(other, VIRTIO_BLK_T_FLUSH, 0, 0) == VIRTIO_BLK_S_IOERR,
          "another queue's flush is answered well");
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 64, 4096) == 0, "OUT");
    device_close(dev);
}

static void test_reset_owner(void)
{
    Device *dev = device_open(0);

    offer_many(queue_start(dev, 0, 128), 32, VIRTIO_BLK_T_IN);
    CHECK(!ioctl(dev->fd, VHOST_RESET_OWNER, NULL), "RESET_OWNER: %s",
          strerror(errno));
    CHECK(ioctl(dev->fd, VHOST_BLK_SET_LIMITS, &dev->limits) == -1 &&
          errno == EPERM, "it still has an owner");
    CHECK(!ioctl(dev->fd, VHOST_SET_OWNER, NULL), "SET_OWNER: %s",
          strerror(errno));
    device_set_features(dev, BIT(VIRTIO_F_VERSION_1));
    device_set_memory(dev, MEM_SIZE);
    device_set_limits(dev);
    memset(dev->mem, 0, DATA_START);
    memset(dev->queues, 0, sizeof(dev->queues));
    CHECK(simple(queue_start(dev, 0, 64), VIRTIO_BLK_T_IN, 0, 4096) == 0,
          "IN");
    device_close(dev);
}

/* The disk is pulled: errors, and the queue can still be stopped. */
static void test_removal(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 128);
    char path[256];
    FILE *file;

    if (!backend.pulled) {
        not_here();
    }
    snprintf(path, sizeof(path), "%s/device/delete", backend.sys);
    file = fopen(path, "w");
    CHECK(file, "%s: %s", path, strerror(errno));
    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    offer_many(q, 32, VIRTIO_BLK_T_IN);
    fputs("1\n", file);
    fclose(file);
    for (int i = 0; i < 32; i++) {
        queue_wait(q);
    }
    CHECK(simple(q, VIRTIO_BLK_T_IN, 1 << 13, 4096) == VIRTIO_BLK_S_IOERR,
          "IN");
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 0, 4096) == VIRTIO_BLK_S_IOERR, "OUT");
    CHECK(simple(q, VIRTIO_BLK_T_FLUSH, 0, 0) != 0xaa, "FLUSH");
    CHECK(queue_get_base(q) == q->last_used, "base");
    device_close(dev);
}

const Test control_tests[] = {
    { "info", test_info },
    { "owner", test_owner },
    { "backend-refused", test_backend_refused },
    { "zoned", test_zoned },
    { "limits-refused", test_limits_refused },
    { "limits-block", test_limits_block },
    { "defaults", test_defaults },
    { "stats", test_stats },
    { "event-idx", test_event_idx },
    { "no-interrupt", test_no_interrupt },
    { "queues", test_queues },
    { "drain", test_drain },
    { "busy-stop", test_busy_stop },
    { "running-ring", test_running_ring_is_fixed },
    { "mem-table", test_mem_table },
    { "dirty-log", test_dirty_log },
    { "late-log", test_late_log },
    { "iotlb", test_iotlb },
    { "weight", test_weight },
    { "starve", test_starve },
    { "workers", test_workers },
    { "killed", test_killed },
    { "orphan", test_orphan },
    { "host-cache", test_host_cache },
    { "set-read-only", test_set_read_only },
    { "fork", test_fork },
    { "io-error", test_io_error },
    { "lost", test_lost },
    { "reset-owner", test_reset_owner },
    { "zz-removal", test_removal },
    {}
};
