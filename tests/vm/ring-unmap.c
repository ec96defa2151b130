/* SPDX-License-Identifier: GPL-2.0-or-later */
/* DISCARD, WRITE_ZEROES and SECURE_ERASE. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "ring.h"

#define START 8192              /* first sector of the tests' place */
#define LENGTH (1 << 20)

typedef struct virtio_blk_discard_write_zeroes Segment;

static void prepare(uint32_t seed)
{
    uint8_t *data = malloc(LENGTH);

    fill(data, LENGTH, START, seed);
    backend_write(data, LENGTH, START * 512);
    free(data);
}

/* Sectors from..to of the place are zero, the others as prepared. */
static void check_zeroes(uint32_t seed, const bool *zero)
{
    uint8_t *data = malloc(LENGTH);
    static const uint8_t none[4096];

    backend_read(data, LENGTH, START * 512);
    for (unsigned int i = 0; i < LENGTH / 4096; i++) {
        if (zero[i]) {
            CHECK(!memcmp(data + i * 4096, none, 4096),
                  "block %u is not zero", i);
        } else {
            check_fill(data + i * 4096, 4096, START + i * 8, seed);
        }
    }
    free(data);
}

static uint8_t run(Queue *q, uint32_t type, const Segment *segs,
                   uint32_t bytes)
{
    Request r = request_make(q->dev, type, 0, bytes);
    uint8_t status;

    memcpy(r.data, segs, bytes);
    status = request_run(q, &r);
    CHECK(r.used_len == 1, "used %u", r.used_len);
    return status;
}

static void ranges(uint32_t type, uint32_t flags, uint32_t seed)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    const Segment segs[] = {
        { START + 8, 8, flags }, { START + 800, 80, flags },
        { START + 160, 0, flags }, { START + 400, 16, flags },
    };
    bool zero[LENGTH / 4096] = {};

    prepare(seed);
    CHECK(run(q, type, segs, sizeof(segs)) == VIRTIO_BLK_S_OK, "status");
    for (int i = 0; i < 4; i++) {
        for (unsigned int j = 0; j < segs[i].num_sectors / 8; j++) {
            zero[(segs[i].sector - START) / 8 + j] = true;
        }
    }
    check_zeroes(seed, zero);
    device_close(dev);
}

static void test_discard(void)
{
    if (!backend.discard) {
        not_here();
    }
    ranges(VIRTIO_BLK_T_DISCARD, 0, 21);
}

static void test_write_zeroes(void)
{
    ranges(VIRTIO_BLK_T_WRITE_ZEROES, 0, 22);
}

static void test_write_zeroes_unmap(void)
{
    ranges(VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, 23);
}

static void test_keep_allocated(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    const Segment seg = { START, 80, 0 };
    bool zero[LENGTH / 4096] = {};

    dev->limits.flags |= VHOST_BLK_L_KEEP_ALLOCATED;
    device_set_limits(dev);
    prepare(24);
    CHECK(run(q, VIRTIO_BLK_T_DISCARD, &seg, 16) == VIRTIO_BLK_S_OK, "status");
    check_zeroes(24, zero);
    device_close(dev);
}

/* What is refused is refused before any segment is carried out. */
static void test_refused(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    uint64_t end = backend.size / 512;
    const uint32_t types[] = { VIRTIO_BLK_T_DISCARD,
                               VIRTIO_BLK_T_WRITE_ZEROES };
    bool zero[LENGTH / 4096] = {};
    Segment segs[9];

    prepare(25);
    for (int i = 0; i < 2; i++) {
        uint32_t type = types[i];

        for (int j = 0; j < 9; j++) {
            segs[j] = (Segment) { START + j * 8, 8, 0 };
        }
        CHECK(run(q, type, segs, 9 * 16) == VIRTIO_BLK_S_UNSUPP, "too many");
        CHECK(run(q, type, segs, 24) == VIRTIO_BLK_S_IOERR, "one and a half");
        CHECK(run(q, type, segs, 0) == VIRTIO_BLK_S_IOERR, "none");
        segs[1].sector = end - 1;
        CHECK(run(q, type, segs, 32) == VIRTIO_BLK_S_IOERR, "past the end");
        segs[1].sector = UINT64_MAX - 3;
        CHECK(run(q, type, segs, 32) == VIRTIO_BLK_S_IOERR, "wraps");
        segs[1] = (Segment) { 0, 8200, 0 };
        CHECK(run(q, type, segs, 32) == VIRTIO_BLK_S_IOERR, "too long");
        segs[1].flags = type == VIRTIO_BLK_T_DISCARD ? 1 : 2;
        CHECK(run(q, type, segs, 32) == VIRTIO_BLK_S_UNSUPP, "flag");
    }
    check_zeroes(25, zero);
    dev->limits.max_discard_segments = 0;
    dev->limits.max_write_zeroes_segments = 0;
    device_set_limits(dev);
    segs[0] = (Segment) { START, 8, 0 };
    CHECK(run(q, types[0], segs, 16) == VIRTIO_BLK_S_UNSUPP, "not offered");
    CHECK(run(q, types[1], segs, 16) == VIRTIO_BLK_S_UNSUPP, "not offered");
    check_zeroes(25, zero);
    device_close(dev);
}

/* No test device erases securely: it is refused, never done halfway. */
static void test_secure_erase(void)
{
    Device *dev = device_open(0);
    Queue *q = queue_start(dev, 0, 64);
    const Segment seg = { START, 8, 0 };
    bool zero[LENGTH / 4096] = {};
    uint32_t type = VIRTIO_BLK_T_SECURE_ERASE;

    prepare(26);
    CHECK(run(q, type, &seg, 16) == VIRTIO_BLK_S_UNSUPP, "not offered");
    dev->limits.max_secure_erase_sectors = 1024;
    dev->limits.max_secure_erase_segments = 1;
    device_set_limits(dev);
    CHECK(run(q, type, &seg, 16) == VIRTIO_BLK_S_IOERR, "not able");
    check_zeroes(26, zero);
    device_close(dev);
}

const Test unmap_tests[] = {
    { "discard", test_discard },
    { "write-zeroes", test_write_zeroes },
    { "write-zeroes-unmap", test_write_zeroes_unmap },
    { "keep-allocated", test_keep_allocated },
    { "unmap-refused", test_refused },
    { "secure-erase", test_secure_erase },
    {}
};
