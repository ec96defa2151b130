/*
 * virtio-blk: the framing of a request
 *
 * Pure code: it knows iovecs, neither devices nor guests.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_PARSE_H
#define HW_BLOCK_VIRTIO_BLK_PARSE_H

#include "qemu/iov.h"

/*
 * VirtIOBlkFrame: a request taken apart (VIRTIO 1.4, 5.2.6).
 *
 * The header is a copy, so a guest that rewrites it later changes nothing.
 * @out and @in are the payload between header and status byte; they point
 * into the descriptor arrays that were given, or into @copy where a descriptor
 * is shared between payload and header or status.
 */
typedef struct VirtIOBlkFrame {
    uint32_t type;              /* VIRTIO_BLK_T_*, without the barrier bit */
    uint64_t sector;            /* 512-byte sectors */
    struct iovec *out;          /* device-readable payload */
    struct iovec *in;           /* device-writable payload */
    unsigned out_num;
    unsigned in_num;
    size_t out_len;             /* bytes */
    size_t in_len;              /* bytes, without the status byte */
    uint8_t *status;
    struct iovec *copy;         /* owned, NULL in the common layouts */
} VirtIOBlkFrame;

/*
 * VirtIOBlkRange: one segment of discard, write zeroes or secure erase in host
 * byte order (VIRTIO 1.4, 5.2.6, struct virtio_blk_discard_write_zeroes).
 */
typedef struct VirtIOBlkRange {
    uint64_t sector;            /* 512-byte sectors */
    uint32_t num_sectors;
    uint32_t flags;
} VirtIOBlkRange;

/*
 * VirtIOBlkRangeLimits: what a segment must obey; all in 512-byte sectors.
 */
typedef struct VirtIOBlkRangeLimits {
    uint64_t capacity;
    uint32_t max_sectors;       /* of one segment */
    uint32_t max_segments;      /* of one request */
    uint32_t block_sectors;     /* logical block size, a power of two */
    uint32_t known_flags;       /* other flag bits make it UNSUPP */
} VirtIOBlkRangeLimits;

/*
 * virtio_blk_frame_parse: take a descriptor chain apart.
 * @frame: filled in on success; release with virtio_blk_frame_destroy()
 * @out, @in: device-readable and device-writable descriptors, must outlive
 *            @frame and are never changed
 * @big_endian: byte order of the header
 *
 * Returns NULL, or a static text that says what the driver did wrong.
 */
const char *virtio_blk_frame_parse(VirtIOBlkFrame *frame,
                                   struct iovec *out, unsigned out_num,
                                   struct iovec *in, unsigned in_num,
                                   bool big_endian);

/* virtio_blk_frame_destroy: release what virtio_blk_frame_parse() took. */
void virtio_blk_frame_destroy(VirtIOBlkFrame *frame);

/*
 * virtio_blk_rw_range_ok: may a read or write of @bytes at @sector run?
 * @capacity: of the medium, 512-byte sectors
 * @block_sectors: logical block size in 512-byte sectors, a power of two
 */
bool virtio_blk_rw_range_ok(uint64_t sector, uint64_t bytes,
                            uint64_t capacity, uint32_t block_sectors);

/*
 * virtio_blk_ranges_parse: copy and check the segments of a request.
 * @frame: the request, whose readable payload holds the segments
 * @limits: what they must obey
 * @big_endian: byte order of the segments
 * @ranges: set to an array that the caller frees with g_free()
 * @num: set to its length
 *
 * Flags of every segment are looked at before any range, as VIRTIO 1.4,
 * 5.2.6.2 asks.  Returns VIRTIO_BLK_S_OK, or the status to complete with,
 * @ranges being NULL then.
 */
uint8_t virtio_blk_ranges_parse(const VirtIOBlkFrame *frame,
                                const VirtIOBlkRangeLimits *limits,
                                bool big_endian,
                                VirtIOBlkRange **ranges, unsigned *num);

#endif
