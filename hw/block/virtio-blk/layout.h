/*
 * virtio-blk: the configuration structure as bytes
 *
 * Pure code: host values in, guest-endian structure out.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_LAYOUT_H
#define HW_BLOCK_VIRTIO_BLK_LAYOUT_H

#include "standard-headers/linux/virtio_blk.h"

/* VirtIOBlkSegmentLimits: one of the three segmented commands. */
typedef struct VirtIOBlkSegmentLimits {
    uint32_t max_sectors;       /* 512-byte sectors of one segment */
    uint32_t max_segments;      /* of one request */
    uint32_t alignment;         /* 512-byte sectors; 0 where it has none */
} VirtIOBlkSegmentLimits;

/* VirtIOBlkZonedLayout: what a zoned medium is (VIRTIO 1.4, 5.2.4). */
typedef struct VirtIOBlkZonedLayout {
    uint8_t model;              /* VIRTIO_BLK_Z_* */
    uint32_t zone_sectors;      /* 512-byte sectors */
    uint32_t max_open_zones;    /* 0: no limit */
    uint32_t max_active_zones;  /* 0: no limit */
    uint32_t max_append_sectors;
    uint32_t write_granularity; /* bytes */
} VirtIOBlkZonedLayout;

/*
 * VirtIOBlkLayout: the configuration of a device in host byte order
 * (VIRTIO 1.4, 5.2.4).  Fields of a feature that is not offered stay 0.
 */
typedef struct VirtIOBlkLayout {
    uint64_t capacity;          /* 512-byte sectors */
    uint32_t seg_max;
    uint16_t cylinders;
    uint8_t heads;
    uint8_t sectors;            /* a track */
    uint32_t blk_size;          /* bytes */
    uint8_t physical_block_exp; /* log2 of logical blocks a physical block */
    uint16_t min_io_size;       /* logical blocks */
    uint32_t opt_io_size;       /* logical blocks */
    bool writeback;
    uint16_t num_queues;
    VirtIOBlkSegmentLimits discard;
    VirtIOBlkSegmentLimits write_zeroes;
    bool write_zeroes_may_unmap;
    VirtIOBlkSegmentLimits secure_erase;
    VirtIOBlkZonedLayout zoned;
} VirtIOBlkLayout;

/*
 * virtio_blk_layout_size: bytes of config space that a device with the
 * feature bits @features shows.  It grows with the features, so that guests
 * and streams of older devices find the size they know.
 */
size_t virtio_blk_layout_size(uint64_t features);

/*
 * virtio_blk_layout_encode: write @layout as the driver reads it.
 * @cfg: all of it is written, unused fields as 0 (VIRTIO 1.4, 5.2.5.2)
 * @big_endian: byte order of the fields
 */
void virtio_blk_layout_encode(const VirtIOBlkLayout *layout, bool big_endian,
                              struct virtio_blk_config *cfg);

#endif
