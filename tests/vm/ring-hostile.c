/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A driver that means harm, or is merely broken. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

/*
 * The ring is bad: the error is told, nothing is answered, the request stays
 * in the ring, and the queue can be stopped.
 */
static void expect_broken(Queue *q, const char *what)
{
    struct vhost_blk_stats stats = { .index = q->index };
    uint16_t base = q->avail->idx - 1;

    queue_kick(q);
    CHECK(eventfd_wait(q->err, 3000), "%s: no error is told", what);
    usleep(5000);
    CHECK(!ioctl(q->dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    CHECK(stats.flags == (VHOST_BLK_Q_RUNNING | VHOST_BLK_Q_BROKEN),
          "%s: flags %x", what, stats.flags);
    CHECK(q->used->idx == q->last_used, "%s: it was answered", what);
    CHECK(queue_get_base(q) == base, "%s: it was taken", what);
}

static Queue *fresh(void)
{
    Device *dev = device_open(BIT(VIRTIO_RING_F_INDIRECT_DESC));
    Queue *q = queue_start(dev, 0, 64);

    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    return q;
}

static void bad_frame(const char *what, const Buf *bufs, unsigned int n,
                      Queue *q)
{
    queue_offer(q, queue_add(q, bufs, n));
    expect_broken(q, what);
    device_close(q->dev);
}

/* 5.2.6: every request has a header and a status byte. */
static void test_framing(void)
{
    Queue *q = fresh();
    struct virtio_blk_outhdr *hdr = device_alloc(q->dev, 16, 16);
    uint8_t *p = device_alloc(q->dev, PAGE, PAGE);

    bad_frame("no status", (Buf[]) { { hdr, 16, false }, { p, 512, false } }, 2,
              q);
    q = fresh();
    hdr = device_alloc(q->dev, 16, 16);
    bad_frame("short header", (Buf[]) { { hdr, 15, false }, { hdr, 1, true } },
              2, q);
    q = fresh();
    p = device_alloc(q->dev, PAGE, PAGE);
    bad_frame("no header", (Buf[]) { { p, 512, true } }, 1, q);
    q = fresh();
    p = device_alloc(q->dev, PAGE, PAGE);
    hdr = device_alloc(q->dev, 16, 16);
    bad_frame("out after in", (Buf[]) { { hdr, 16, false }, { p, 512, true },
              { p, 512, false }, { p, 1, true } }, 4, q);
}

/* Give the queue a request whose descriptors a function then spoils. */
static void spoilt(const char *what, void (*spoil)(Queue *q, unsigned int head))
{
    Queue *q = fresh();
    Request r = request_make(q->dev, VIRTIO_BLK_T_IN, 0, 4096);
    unsigned int head = queue_add(q, (Buf[]) {
        { r.hdr, 16, false }, { r.data, 4096, true }, { r.status, 1, true } },
        3);

    spoil(q, head);
    queue_offer(q, head);
    expect_broken(q, what);
    device_close(q->dev);
}

static void spoil_loop(Queue *q, unsigned int head)
{
    q->desc[head + 2].flags |= VRING_DESC_F_NEXT;
    q->desc[head + 2].next = head;
}

static void spoil_next(Queue *q, unsigned int head)
{
    q->desc[head].next = 5000;
}

static void spoil_address(Queue *q, unsigned int head)
{
    q->desc[head + 1].addr = UINT64_MAX - 100;
}

static void spoil_length(Queue *q, unsigned int head)
{
    q->desc[head + 1].len = UINT32_MAX;
}

static void spoil_nested(Queue *q, unsigned int head)
{
    struct vring_desc *table = device_alloc(q->dev, 16, 16);

    *table = q->desc[head];
    table->flags = VRING_DESC_F_INDIRECT;
    q->desc[head] = (struct vring_desc) { guest_address(q->dev, table), 16,
                                          VRING_DESC_F_INDIRECT, 0 };
}

static void test_descriptors(void)
{
    spoilt("loop", spoil_loop);
    spoilt("next", spoil_next);
    spoilt("address", spoil_address);
    spoilt("length", spoil_length);
    spoilt("nested indirect", spoil_nested);
}

static void test_bad_head(void)
{
    Queue *q = fresh();

    queue_offer(q, 64);
    expect_broken(q, "head");
    device_close(q->dev);
}

/* The same descriptors thousands of times over, faster than they are served. */
static void test_flood(void)
{
    Queue *q = fresh();
    Request r = request_make(q->dev, VIRTIO_BLK_T_IN, 0, 4096);
    struct vhost_blk_stats stats = {};

    request_offer(q, &r);
    for (int i = 0; i < 64; i++) {
        q->avail->ring[i] = r.head;
    }
    for (int i = 0; i < 40; i++) {
        /* no further ahead than the core allows, so that it goes on */
        __atomic_fetch_add(&q->avail->idx, i < 30 ? 60 : 3000,
                           __ATOMIC_RELEASE);
        queue_kick(q);
        usleep(5000);
        CHECK(!ioctl(q->dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
        CHECK(stats.inflight <= 64, "%u in flight", stats.inflight);
    }
    queue_get_base(q);
    CHECK(!ioctl(q->dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    CHECK(stats.kind[0].ops >= 60, "%llu reads", stats.kind[0].ops);
    CHECK(stats.inflight == 0, "%u in flight after the stop", stats.inflight);
    device_close(q->dev);
}

/* Unaligned requests that want more memory of the host than they may have. */
static void test_unaligned_flood(void)
{
    Queue *q = fresh();
    const uint32_t len = 128 << 10;
    uint8_t *data = device_alloc(q->dev, (len + 2 * PAGE) * 64, PAGE);
    struct virtio_blk_outhdr *hdr = device_alloc(q->dev, 16, 16);
    uint8_t *status = device_alloc(q->dev, 64, 1);
    uint16_t first = q->used->idx;

    if (!(backend.flags & O_DIRECT)) {
        not_here();
    }
    queue_get_base(q);
    q = queue_start(q->dev, 1, 256);
    first = q->used->idx;
    hdr->type = VIRTIO_BLK_T_IN;
    hdr->sector = 0;
    for (int i = 0; i < 64; i++) {
        status[i] = 0xaa;
        queue_offer(q, queue_add(q, (Buf[]) { { hdr, 16, false },
            { data + i * (len + PAGE) + 4, len, true },
            { status + i, 1, true } }, 3));
    }
    queue_kick(q);
    for (int i = 0; i < 64; i++) {
        queue_wait(q);
    }
    CHECK((uint16_t)(q->used->idx - first) == 64, "answers");
    for (int i = 1; i < 64; i++) {
        CHECK(status[i] == 0, "request %d: %u", i, status[i]);
        CHECK(!memcmp(data + 4, data + i * (len + PAGE) + 4, len),
              "request %d", i);
    }
    device_close(q->dev);
}

/* Memory that the table promises, but the process has no more. */
static void test_lost_memory(void)
{
    Queue *q = fresh();
    Request r = request_make(q->dev, VIRTIO_BLK_T_IN, 0, 4096);
    uint8_t *hole = q->dev->mem + MEM_SIZE - 16 * PAGE;
    struct vring_used_elem elem;
    unsigned int head;

    CHECK(!munmap(hole, 16 * PAGE), "munmap");
    head = queue_add(q, (Buf[]) {
        { r.hdr, 16, false }, { r.data, 4096, true }, { hole, 1, true } }, 3);
    queue_offer(q, head);
    queue_kick(q);
    elem = queue_wait(q);
    CHECK(elem.id == head, "used %u", elem.id);
    CHECK(eventfd_wait(q->err, 2000), "no error is told");
    /* data that cannot be had fails its request alone */
    for (int type = 0; type < 2; type++) {
        for (int odd = 0; odd < 2; odd++) {
            r = request_make(q->dev, type, 0, 0);
            head = queue_add(q, (Buf[]) {
                { r.hdr, 16, false }, { hole + odd, 8192, type == 0 },
                { r.status, 1, true } }, 3);
            queue_offer(q, head);
            queue_kick(q);
            CHECK(queue_wait(q).len == 1, "used length");
            CHECK(*r.status == VIRTIO_BLK_S_IOERR, "status %u", *r.status);
        }
    }
    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "IN");
    device_close(q->dev);
}

static uint32_t one_in(unsigned int *seed, int n)
{
    return rand_r(seed) % n == 0;
}

/* A request that is right in most places, at descriptors at..at+3. */
static void noisy_request(Queue *q, unsigned int at, unsigned int *seed)
{
    static const uint32_t types[] = { 0, 1, 4, 8, 11, 13, 14, 77 };
    uint32_t type = types[rand_r(seed) % 8];
    struct virtio_blk_outhdr *hdr = (void *)(q->dev->mem + DATA_START +
                                             at * PAGE);
    uint64_t base = GUEST_BASE + DATA_START + at * PAGE;

    *hdr = (struct virtio_blk_outhdr) { type, rand_r(seed),
        one_in(seed, 6) ? (uint64_t)rand_r(seed) << 33 :
        (uint64_t)rand_r(seed) % 512 * 8 };
    q->desc[at] = (struct vring_desc) { base, 16, VRING_DESC_F_NEXT, at + 1 };
    q->desc[at + 1] = (struct vring_desc) {
        base + PAGE + (one_in(seed, 3) ? rand_r(seed) % 512 : 0),
        type == 11 || type == 13 ? 16 : rand_r(seed) % 20 * 512,
        VRING_DESC_F_NEXT | (type == 0 || type == 8 ? VRING_DESC_F_WRITE : 0),
        at + 2 };
    q->desc[at + 2] = (struct vring_desc) { base + 8, 1, VRING_DESC_F_WRITE,
                                            0 };
    if (one_in(seed, 4)) {
        struct vring_desc *spoilt = &q->desc[at + rand_r(seed) % 3];

        switch (rand_r(seed) % 4) {
        case 0:
            spoilt->addr = (uint64_t)rand_r(seed) << (rand_r(seed) % 40);
            break;
        case 1:
            spoilt->len = rand_r(seed) >> (rand_r(seed) % 31);
            break;
        case 2:
            spoilt->flags = rand_r(seed);
            break;
        default:
            spoilt->next = rand_r(seed) % 80;
        }
    }
}

/*
 * Change the ring while the kernel reads it, for up to 2 ms: it may see any
 * mixture, but each value once.
 */
static void noisy_wait(Queue *q, unsigned int *seed)
{
    for (int i = rand_r(seed) % 40; i; i--) {
        struct vring_desc *desc = &q->desc[rand_r(seed) % q->num];
        uint32_t value = rand_r(seed);

        switch (rand_r(seed) % 8) {
        case 0:
            __atomic_store_n(&desc->len, value >> rand_r(seed) % 31,
                             __ATOMIC_RELAXED);
            break;
        case 1:
            __atomic_store_n(&desc->flags, value % 8, __ATOMIC_RELAXED);
            break;
        case 2:
            __atomic_store_n(&desc->next, value % 80, __ATOMIC_RELAXED);
            break;
        default:
            break;
        }
        usleep(rand_r(seed) % 100);
    }
}

static void noisy_round(Queue *q, int fd, unsigned int *seed)
{
    struct vhost_vring_state state = {};

    for (unsigned int i = 0; i + 4 <= q->num; i += 4) {
        noisy_request(q, i, seed);
        q->avail->ring[i / 4] = one_in(seed, 30) ? (uint32_t)rand_r(seed) : i;
    }
    q->avail->idx = 0;
    q->used->idx = 0;
    CHECK(!ioctl(q->dev->fd, VHOST_SET_VRING_BASE, &state), "base");
    CHECK(!queue_set_backend(q, fd), "start");
    __atomic_store_n(&q->avail->idx, q->num / 4, __ATOMIC_RELEASE);
    queue_kick(q);
    noisy_wait(q, seed);
    queue_get_base(q);
}

static void count_noise(Device *dev, uint64_t *good, uint64_t *bad)
{
    struct vhost_blk_stats stats = {};

    CHECK(!ioctl(dev->fd, VHOST_BLK_GET_STATS, &stats), "stats");
    CHECK(!stats.inflight, "%u in flight", stats.inflight);
    *good = 0;
    *bad = 0;
    for (int k = 0; k < VHOST_BLK_STAT_KINDS; k++) {
        *good += stats.kind[k].ops;
        *bad += stats.kind[k].invalid + stats.kind[k].failed;
    }
}

/*
 * Noise in the rings, as long as asked: the ring fuzzer of /dev/vhost-blk.
 * That it ends and the kernel is silent is the test.
 */
static void test_noise(void)
{
    Device *dev = device_open(BIT(VIRTIO_RING_F_INDIRECT_DESC));
    Queue *q = queue_setup(dev, 0, 64);
    unsigned int seed = backend.noise_seed;
    uint64_t good = 0, bad = 0, rounds = 0;
    int fd = open_backend();
    time_t end = time(NULL) + backend.noise_s;

    /* on a busy machine it takes longer */
    while (time(NULL) < end ||
           ((good < 50 || bad < 50) && time(NULL) < end + 18)) {
        noisy_round(q, fd, &seed);
        count_noise(dev, &good, &bad);
        rounds++;
    }
    fprintf(stderr, "noise: seed %u, %llu rounds, %llu good and %llu bad "
            "requests\n", backend.noise_seed, (unsigned long long)rounds,
            (unsigned long long)good, (unsigned long long)bad);
    CHECK(good >= 50 && bad >= 50, "%llu good and %llu bad requests",
          (unsigned long long)good, (unsigned long long)bad);
    device_close(dev);
}

const Test hostile_tests[] = {
    { "framing", test_framing },
    { "descriptors", test_descriptors },
    { "bad-head", test_bad_head },
    { "flood", test_flood },
    { "unaligned-flood", test_unaligned_flood },
    { "lost-memory", test_lost_memory },
    { "noise", test_noise },
    {}
};
