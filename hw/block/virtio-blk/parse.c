/*
 * virtio-blk: the framing of a request
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "block/block-common.h"
#include "standard-headers/linux/virtio_blk.h"
#include "parse.h"

static uint32_t load32(const void *p, bool big_endian)
{
    return big_endian ? ldl_be_p(p) : ldl_le_p(p);
}

static uint64_t load64(const void *p, bool big_endian)
{
    return big_endian ? ldq_be_p(p) : ldq_le_p(p);
}

/*
 * Cut header and status off by reference.  Only for layouts in which payload
 * shares a descriptor with one of them, so it need not be fast.
 */
static void frame_slice(VirtIOBlkFrame *frame,
                        struct iovec *out, unsigned out_num,
                        struct iovec *in, unsigned in_num)
{
    frame->copy = g_new(struct iovec, out_num + in_num);
    frame->out = frame->copy;
    frame->out_num = iov_copy(frame->out, out_num, out, out_num,
                              sizeof(struct virtio_blk_outhdr),
                              frame->out_len);
    frame->in = frame->copy + out_num;
    frame->in_num = iov_copy(frame->in, in_num, in, in_num, 0, frame->in_len);
}

const char *virtio_blk_frame_parse(VirtIOBlkFrame *frame,
                                   struct iovec *out, unsigned out_num,
                                   struct iovec *in, unsigned in_num,
                                   bool big_endian)
{
    struct virtio_blk_outhdr header;
    size_t out_len, in_len;
    struct iovec *last;

    if (!out_num || iov_to_buf(out, out_num, 0, &header, sizeof(header)) !=
                    sizeof(header)) {
        return "request header is missing or shorter than 16 bytes";
    }
    if (!in_num || !in[in_num - 1].iov_len) {
        return "request has no status byte";
    }

    out_len = out_num == 1 ? out->iov_len : iov_size(out, out_num);
    in_len = in_num == 1 ? in->iov_len : iov_size(in, in_num);
    last = &in[in_num - 1];

    frame->type = load32(&header.type, big_endian) & ~VIRTIO_BLK_T_BARRIER;
    frame->sector = load64(&header.sector, big_endian);
    frame->out_len = out_len - sizeof(header);
    frame->in_len = in_len - 1;
    frame->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    frame->copy = NULL;

    if (out[0].iov_len == sizeof(header) && last->iov_len == 1) {
        frame->out = out + 1;
        frame->out_num = out_num - 1;
        frame->in = in;
        frame->in_num = in_num - 1;
    } else {
        frame_slice(frame, out, out_num, in, in_num);
    }
    return NULL;
}

void virtio_blk_frame_destroy(VirtIOBlkFrame *frame)
{
    g_free(frame->copy);
    frame->copy = NULL;
}

bool virtio_blk_rw_range_ok(uint64_t sector, uint64_t bytes,
                            uint64_t capacity, uint32_t block_sectors)
{
    uint64_t sectors = bytes >> BDRV_SECTOR_BITS;

    return !(bytes & (((uint64_t)block_sectors << BDRV_SECTOR_BITS) - 1)) &&
           !(sector & (block_sectors - 1)) &&
           sectors <= BDRV_REQUEST_MAX_SECTORS &&
           sector <= capacity && sectors <= capacity - sector;
}

static bool range_ok(const VirtIOBlkRange *range,
                     const VirtIOBlkRangeLimits *limits)
{
    uint64_t bytes = (uint64_t)range->num_sectors << BDRV_SECTOR_BITS;

    return range->num_sectors <= limits->max_sectors &&
           virtio_blk_rw_range_ok(range->sector, bytes, limits->capacity,
                                  limits->block_sectors);
}

static void range_load(VirtIOBlkRange *range, const VirtIOBlkFrame *frame,
                       unsigned index, bool big_endian)
{
    struct virtio_blk_discard_write_zeroes wire;

    iov_to_buf(frame->out, frame->out_num, index * sizeof(wire),
               &wire, sizeof(wire));
    range->sector = load64(&wire.sector, big_endian);
    range->num_sectors = load32(&wire.num_sectors, big_endian);
    range->flags = load32(&wire.flags, big_endian);
}

uint8_t virtio_blk_ranges_parse(const VirtIOBlkFrame *frame,
                                const VirtIOBlkRangeLimits *limits,
                                bool big_endian,
                                VirtIOBlkRange **ranges, unsigned *num)
{
    const size_t wire_size = sizeof(struct virtio_blk_discard_write_zeroes);
    g_autofree VirtIOBlkRange *array = NULL;
    size_t n = frame->out_len / wire_size;

    *ranges = NULL;
    *num = 0;
    if (n > limits->max_segments) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    if (!n || frame->out_len % wire_size) {
        return VIRTIO_BLK_S_IOERR;
    }

    array = g_new(VirtIOBlkRange, n);
    for (size_t i = 0; i < n; i++) {
        range_load(&array[i], frame, i, big_endian);
        if (array[i].flags & ~limits->known_flags) {
            return VIRTIO_BLK_S_UNSUPP;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!range_ok(&array[i], limits)) {
            return VIRTIO_BLK_S_IOERR;
        }
    }
    *ranges = g_steal_pointer(&array);
    *num = n;
    return VIRTIO_BLK_S_OK;
}
