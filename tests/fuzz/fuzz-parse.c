/*
 * virtio-blk fuzzing: the parser of requests and segments
 *
 * Input: numbers of descriptors, byte order, their lengths, limits, bytes.
 * Every descriptor is an allocation of its own, so that a sanitizer sees each
 * byte too many.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_blk.h"
#include "block/block-common.h"
#include "hw/block/virtio-blk/parse.h"
#include "input.h"

#define MAX_DESC    9
#define MAX_LEN     1100
#define HEADER      16

typedef struct Chain {
    struct iovec iov[MAX_DESC];
    unsigned num;
    size_t size;
} Chain;

static void chain_make(Chain *c, FuzzInput *in)
{
    for (unsigned i = 0; i < c->num; i++) {
        size_t len = fuzz_u16(in) % MAX_LEN;

        c->iov[i] = (struct iovec) { g_malloc(len), len };
        c->size += len;
    }
}

static void chain_free(Chain *c)
{
    for (unsigned i = 0; i < c->num; i++) {
        g_free(c->iov[i].iov_base);
    }
}

static void check_frame(const VirtIOBlkFrame *f, Chain *out, Chain *in)
{
    struct iovec *last = &in->iov[in->num - 1];
    g_autofree uint8_t *bytes = g_malloc(out->size);
    g_autofree uint8_t *all = g_malloc(out->size);

    FUZZ_CHECK(f->out_len == out->size - HEADER);
    FUZZ_CHECK(f->in_len == in->size - 1);
    FUZZ_CHECK(iov_size(f->out, f->out_num) == f->out_len);
    FUZZ_CHECK(iov_size(f->in, f->in_num) == f->in_len);
    FUZZ_CHECK(!(f->type & VIRTIO_BLK_T_BARRIER));
    FUZZ_CHECK(f->status == (uint8_t *)last->iov_base + last->iov_len - 1);

    iov_to_buf(out->iov, out->num, 0, all, out->size);
    FUZZ_CHECK(iov_to_buf(f->out, f->out_num, 0, bytes, f->out_len) ==
               f->out_len);
    FUZZ_CHECK(!memcmp(bytes, all + HEADER, f->out_len));

    /* All of the payload can be written, and the status is not in it. */
    *f->status = 0x55;
    FUZZ_CHECK(iov_memset(f->in, f->in_num, 0, 0, f->in_len) == f->in_len);
    FUZZ_CHECK(*f->status == 0x55);
}

static bool in_range(uint64_t sector, uint64_t sectors, uint64_t capacity)
{
    return (unsigned __int128)sector + sectors <= capacity;
}

static void check_rw(const VirtIOBlkFrame *f, const VirtIOBlkRangeLimits *l)
{
    size_t bytes[] = { f->in_len, f->out_len };

    for (unsigned i = 0; i < ARRAY_SIZE(bytes); i++) {
        bool want = bytes[i] % (l->block_sectors * BDRV_SECTOR_SIZE) == 0 &&
                    f->sector % l->block_sectors == 0 &&
                    in_range(f->sector, bytes[i] / BDRV_SECTOR_SIZE,
                             l->capacity);

        FUZZ_CHECK(virtio_blk_rw_range_ok(f->sector, bytes[i], l->capacity,
                                          l->block_sectors) == want);
    }
}

static void check_ranges(const VirtIOBlkFrame *f,
                         const VirtIOBlkRangeLimits *l, bool big_endian)
{
    g_autofree VirtIOBlkRange *ranges = NULL;
    unsigned num;

    if (virtio_blk_ranges_parse(f, l, big_endian, &ranges, &num) !=
        VIRTIO_BLK_S_OK) {
        FUZZ_CHECK(!ranges && !num);
        return;
    }
    FUZZ_CHECK(num && num <= l->max_segments && num * 16 == f->out_len);
    for (unsigned i = 0; i < num; i++) {
        FUZZ_CHECK(!(ranges[i].flags & ~l->known_flags));
        FUZZ_CHECK(ranges[i].num_sectors <= l->max_sectors);
        FUZZ_CHECK(ranges[i].num_sectors <= BDRV_REQUEST_MAX_SECTORS);
        FUZZ_CHECK(ranges[i].sector % l->block_sectors == 0);
        FUZZ_CHECK(ranges[i].num_sectors % l->block_sectors == 0);
        FUZZ_CHECK(in_range(ranges[i].sector, ranges[i].num_sectors,
                            l->capacity));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = { data, size };
    Chain out = { .num = fuzz_u8(&input) % MAX_DESC };
    Chain in = { .num = fuzz_u8(&input) % MAX_DESC };
    bool big_endian = fuzz_u8(&input) & 1;
    VirtIOBlkRangeLimits limits;
    VirtIOBlkFrame frame;

    chain_make(&out, &input);
    chain_make(&in, &input);
    limits = (VirtIOBlkRangeLimits) {
        .capacity = fuzz_u64(&input),
        .max_sectors = fuzz_u32(&input),
        .max_segments = fuzz_u16(&input),
        .block_sectors = 1u << fuzz_u8(&input) % 8,
        .known_flags = fuzz_u32(&input),
    };
    for (unsigned i = 0; i < out.num; i++) {
        fuzz_take(&input, out.iov[i].iov_base, out.iov[i].iov_len);
    }

    if (!virtio_blk_frame_parse(&frame, out.iov, out.num, in.iov, in.num,
                                big_endian)) {
        check_frame(&frame, &out, &in);
        check_rw(&frame, &limits);
        check_ranges(&frame, &limits, big_endian);
        virtio_blk_frame_destroy(&frame);
    }
    chain_free(&out);
    chain_free(&in);
    return 0;
}
