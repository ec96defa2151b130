/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests that move data, FLUSH, GET_ID, and those that are refused. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ring.h"

#define SECTORS_PER_BLOCK (backend.block_size / 512)

static void test_write_read(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    const uint32_t sizes[] = { 4096, 65536, 3 << 20, backend.block_size };
    uint64_t sector = 64;

    for (int i = 0; i < 4; i++) {
        Request w = request_make(dev, VIRTIO_BLK_T_OUT, sector, sizes[i]);
        Request r = request_make(dev, VIRTIO_BLK_T_IN, sector, sizes[i]);
        static uint8_t seen[3 << 20];

        fill(w.data, w.len, sector, i + 1);
        CHECK(request_run(q, &w) == VIRTIO_BLK_S_OK, "OUT: %u", *w.status);
        CHECK(w.used_len == 1, "OUT: used %u", w.used_len);
        CHECK(simple(q, VIRTIO_BLK_T_FLUSH, 0, 0) == VIRTIO_BLK_S_OK, "FLUSH");
        backend_read(seen, sizes[i], sector * 512);
        check_fill(seen, sizes[i], sector, i + 1);
        CHECK(request_run(q, &r) == VIRTIO_BLK_S_OK, "IN: %u", *r.status);
        CHECK(r.used_len == sizes[i] + 1, "IN: used %u", r.used_len);
        check_fill(r.data, sizes[i], sector, i + 1);
        sector += sizes[i] / 512;
    }
    device_close(dev);
}

static void test_read_only(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);

    dev->limits.flags |= VHOST_BLK_L_READ_ONLY;
    device_set_limits(dev);
    CHECK(simple(q, VIRTIO_BLK_T_IN, 0, 4096) == VIRTIO_BLK_S_OK, "IN");
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 0, 4096) == VIRTIO_BLK_S_IOERR, "OUT");
    CHECK(simple(q, VIRTIO_BLK_T_DISCARD, 0, 16) == VIRTIO_BLK_S_IOERR,
          "DISCARD");
    device_close(dev);
}

/* Many requests at once, in a queue that wraps several times. */
static void test_depth(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 256);
    Request r[64];

    for (int round = 0; round < 6; round++) {
        bool read = round & 1;

        for (int i = 0; i < 64; i++) {
            if (round < 2) {
                r[i] = request_make(dev, read ? VIRTIO_BLK_T_IN :
                                    VIRTIO_BLK_T_OUT, 512 + i * 64, 16384);
            }
            r[i].hdr->type = read ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
            *r[i].status = 0xaa;
            fill(r[i].data, 16384, r[i].hdr->sector, read ? 99 : round);
            request_offer(q, &r[i]);
        }
        queue_kick(q);
        for (int i = 0; i < 64; i++) {
            CHECK(queue_wait(q).len == (read ? 16385 : 1), "used length");
        }
        for (int i = 0; i < 64; i++) {
            CHECK(*r[i].status == VIRTIO_BLK_S_OK, "status %u", *r[i].status);
            check_fill(r[i].data, 16384, r[i].hdr->sector,
                       read ? round - 1 : round);
        }
    }
    device_close(dev);
}

static void check_layout(Queue *q, const Buf *bufs, unsigned int n,
                         bool indirect, uint32_t used, uint8_t *status)
{
    struct vring_used_elem elem;
    unsigned int head;

    *status = 0xaa;
    head = indirect ? queue_add_indirect(q, bufs, n) : queue_add(q, bufs, n);
    queue_offer(q, head);
    queue_kick(q);
    elem = queue_wait(q);
    CHECK(elem.id == head && elem.len == used, "used %u, %u", elem.id,
          elem.len);
    CHECK(*status == VIRTIO_BLK_S_OK, "status %u", *status);
}

/* 2.7.4.1: how the bytes are cut into descriptors means nothing. */
static void layout(bool indirect)
{
    Device *dev = device_open(BIT(VIRTIO_RING_F_INDIRECT_DESC));
    Queue *q = queue_start(dev, 0, 256);
    struct virtio_blk_outhdr *hdr = device_alloc(dev, 16, 16);
    uint8_t *data = device_alloc(dev, 32768, PAGE);
    uint8_t *back = device_alloc(dev, 65536, PAGE);
    Buf bufs[200];
    unsigned int n = 0, at = 0;

    /* the header in three, then odd pieces of data, at odd addresses */
    fill(data, 16384, 800, 7);
    *hdr = (struct virtio_blk_outhdr) { VIRTIO_BLK_T_OUT, 0, 800 };
    bufs[n++] = (Buf) { hdr, 3, false };
    bufs[n++] = (Buf) { (uint8_t *)hdr + 3, 12, false };
    bufs[n++] = (Buf) { (uint8_t *)hdr + 15, 1, false };
    for (unsigned int piece = 1; at < 16384; piece += 7) {
        unsigned int len = piece < 16384 - at ? piece : 16384 - at;

        bufs[n++] = (Buf) { data + at, len, false };
        at += len;
    }
    bufs[n++] = (Buf) { back, 1, true };
    check_layout(q, bufs, n, indirect, 1, back);

    /* header and data in one; data and status in one, off every border */
    memmove(data + 16, data, 16384);
    memcpy(data, hdr, 16);
    bufs[0] = (Buf) { data, 16 + 16384, false };
    bufs[1] = (Buf) { back, 1, true };
    check_layout(q, bufs, 2, indirect, 1, back);
    hdr->type = VIRTIO_BLK_T_IN;
    bufs[0] = (Buf) { hdr, 16, false };
    bufs[1] = (Buf) { back + 8, 5000, true };
    bufs[2] = (Buf) { back + 5008, 16384 - 5000 + 1, true };
    check_layout(q, bufs, 3, indirect, 16385, back + 8 + 16384);
    check_fill(back + 8, 16384, 800, 7);
    device_close(dev);
}

static void test_layout(void)
{
    layout(false);
}

static void test_indirect(void)
{
    layout(true);
}

static void test_flush(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    Request r = request_make(dev, VIRTIO_BLK_T_FLUSH, 0, 0);
    uint64_t before = backend.is_block ? disk_stat(16) : 0;

    CHECK(request_run(q, &r) == VIRTIO_BLK_S_OK, "status %u", *r.status);
    CHECK(r.used_len == 1, "used %u", r.used_len);
    if (backend.counts_flushes) {
        CHECK(disk_stat(16) > before, "no flush came to the disk");
    }
    device_close(dev);
}

/* With no cache in the guest's view a write is durable when it completes. */
static void test_write_through(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    uint64_t before;

    if (!backend.counts_flushes) {
        not_here();
    }
    before = disk_stat(16);
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 0, 4096) == VIRTIO_BLK_S_OK, "OUT");
    CHECK(disk_stat(16) == before, "a flush that was not asked for");
    dev->limits.flags |= VHOST_BLK_L_WRITE_THROUGH;
    device_set_limits(dev);
    CHECK(simple(q, VIRTIO_BLK_T_OUT, 0, 4096) == VIRTIO_BLK_S_OK, "OUT");
    CHECK(disk_stat(16) > before, "the write was not flushed");
    device_close(dev);
}

static void test_get_id(void)
{
    static char serial[VHOST_BLK_SERIAL_LEN] = "VBLK-KERNEL-01";
    const uint32_t sizes[] = { 20, 64, 7 };
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);

    CHECK(!ioctl(dev->fd, VHOST_BLK_SET_SERIAL, serial), "SET_SERIAL: %s",
          strerror(errno));
    for (int i = 0; i < 3; i++) {
        uint32_t len = sizes[i] < 20 ? sizes[i] : 20;
        Request r = request_make(dev, VIRTIO_BLK_T_GET_ID, 0, sizes[i]);

        memset(r.data, 0x55, r.len);
        CHECK(request_run(q, &r) == VIRTIO_BLK_S_OK, "status %u", *r.status);
        CHECK(r.used_len == len + 1, "used %u", r.used_len);
        CHECK(!memcmp(r.data, serial, len), "it is %.20s", r.data);
        CHECK(r.len <= 20 || r.data[20] == 0x55, "it wrote too much");
    }
    device_close(dev);
}

static void test_range(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    /* less than the disk has, whose own check would hide ours */
    uint64_t end = backend.size / 1024;
    const struct {
        uint64_t sector;
        uint32_t len;
    } bad[] = {
        { end, 4096 }, { end - SECTORS_PER_BLOCK, backend.block_size * 2 },
        { UINT64_MAX, 4096 }, { UINT64_MAX / 512, 4096 }, { 0, 100 },
        { 0, backend.block_size + 1 }, { end + 1, 0 },
        { UINT64_MAX - 7, 4096 },
    };

    dev->limits.capacity = end;
    device_set_limits(dev);
    for (int type = 0; type < 2; type++) {
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            Request r = request_make(dev, type, bad[i].sector, bad[i].len);

            CHECK(request_run(q, &r) == VIRTIO_BLK_S_IOERR,
                  "type %d case %zu: %u", type, i, *r.status);
            CHECK(r.used_len == 1, "used %u", r.used_len);
        }
    }
    CHECK(simple(q, VIRTIO_BLK_T_IN, end - SECTORS_PER_BLOCK,
                 backend.block_size) == VIRTIO_BLK_S_OK, "the last block");
    if (SECTORS_PER_BLOCK > 1) {
        CHECK(simple(q, VIRTIO_BLK_T_IN, 1, backend.block_size) ==
              VIRTIO_BLK_S_IOERR, "half a block");
    }
    device_close(dev);
}

static void test_unsupported(void)
{
    static const uint32_t types[] = { 2, 3, 9, 10, 12, 15, 24, 26, 99,
                                      UINT32_MAX };
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        Request r = request_make(dev, types[i], 0, 512);

        CHECK(request_run(q, &r) == VIRTIO_BLK_S_UNSUPP, "type %u: %u",
              types[i], *r.status);
        CHECK(r.used_len == 1, "type %u: used %u", types[i], r.used_len);
    }
    device_close(dev);
}

/* Requests beside one another become one of the disk's. */
static void test_merge(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_setup(dev, 0, 256);
    uint64_t before;
    int fd = open_backend();

    if (!backend.merges) {
        not_here();
    }
    for (int i = 0; i < 64; i++) {
        Request r = request_make(dev, VIRTIO_BLK_T_OUT, 2048 + i * 8, 4096);

        request_offer(q, &r);
    }
    before = disk_stat(6);
    CHECK(!queue_set_backend(q, fd), "SET_BACKEND");
    for (int i = 0; i < 64; i++) {
        queue_wait(q);
    }
    CHECK(disk_stat(6) - before > 40, "only %llu merges",
          (unsigned long long)(disk_stat(6) - before));
    device_close(dev);
}

/* A raw file that ends within a request: zeroes follow. */
static void test_short_file(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    Request r = request_make(dev, VIRTIO_BLK_T_IN, 0, 65536);
    uint64_t sector = backend.size / 512 - 64;

    if (backend.is_block) {
        not_here();
    }
    dev->limits.capacity += 64;
    device_set_limits(dev);
    fill(r.data, 32768, sector, 5);
    backend_write(r.data, 32768, sector * 512);
    memset(r.data, 0x77, 65536);
    r.hdr->sector = sector;
    CHECK(request_run(q, &r) == VIRTIO_BLK_S_OK, "status %u", *r.status);
    CHECK(r.used_len == 65537, "used %u", r.used_len);
    check_fill(r.data, 32768, sector, 5);
    for (int i = 32768; i < 65536; i++) {
        CHECK(r.data[i] == 0, "byte %d is %02x", i, r.data[i]);
    }
    device_close(dev);
}

/*
 * The file system has room for half of the file.  What it keeps for root is
 * not for a driver whose owner is not root, whoever does the work.
 */
static void test_reserved(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    unsigned int failed = 0, count = 0;

    if (!backend.reserved) {
        not_here();
    }
    for (uint64_t at = 0; at < backend.size; at += 1 << 20) {
        uint8_t status = simple(q, VIRTIO_BLK_T_OUT, at / 512, 1 << 20);

        CHECK(status == VIRTIO_BLK_S_OK || status == VIRTIO_BLK_S_IOERR,
              "status %u", status);
        failed += status == VIRTIO_BLK_S_IOERR;
        count++;
    }
    CHECK(failed >= count / 4, "%u of %u writes fail", failed, count);
    CHECK(failed < count, "nothing can be written");
    device_close(dev);
}

const Test io_tests[] = {
    { "write-read", test_write_read },
    { "depth", test_depth },
    { "layout", test_layout },
    { "indirect", test_indirect },
    { "flush", test_flush },
    { "write-through", test_write_through },
    { "get-id", test_get_id },
    { "read-only", test_read_only },
    { "range", test_range },
    { "unsupported", test_unsupported },
    { "merge", test_merge },
    { "short-file", test_short_file },
    { "reserved", test_reserved },
    {}
};
