/*
 * virtio-blk fuzzing: the configuration space
 *
 * Input: feature bits, then the fields of a layout.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/block/virtio-blk/layout.h"
#include "input.h"

#define FIELD(name) \
    { offsetof(struct virtio_blk_config, name), \
      sizeof(((struct virtio_blk_config *)0)->name) }

static const struct {
    size_t offset, size;
} fields[] = {
    FIELD(capacity), FIELD(size_max), FIELD(seg_max),
    FIELD(geometry.cylinders), FIELD(geometry.heads), FIELD(geometry.sectors),
    FIELD(blk_size), FIELD(physical_block_exp), FIELD(alignment_offset),
    FIELD(min_io_size), FIELD(opt_io_size), FIELD(wce), FIELD(num_queues),
    FIELD(max_discard_sectors), FIELD(max_discard_seg),
    FIELD(discard_sector_alignment), FIELD(max_write_zeroes_sectors),
    FIELD(max_write_zeroes_seg), FIELD(write_zeroes_may_unmap),
    FIELD(max_secure_erase_sectors), FIELD(max_secure_erase_seg),
    FIELD(secure_erase_sector_alignment), FIELD(zoned.zone_sectors),
    FIELD(zoned.max_open_zones), FIELD(zoned.max_active_zones),
    FIELD(zoned.max_append_sectors), FIELD(zoned.write_granularity),
    FIELD(zoned.model),
};

static void take_segments(FuzzInput *in, VirtIOBlkSegmentLimits *limits)
{
    fuzz_take(in, limits, sizeof(*limits));
}

static void take_layout(FuzzInput *in, VirtIOBlkLayout *l)
{
    l->capacity = fuzz_u64(in);
    l->seg_max = fuzz_u32(in);
    l->cylinders = fuzz_u16(in);
    l->heads = fuzz_u8(in);
    l->sectors = fuzz_u8(in);
    l->blk_size = fuzz_u32(in);
    l->physical_block_exp = fuzz_u8(in);
    l->min_io_size = fuzz_u16(in);
    l->opt_io_size = fuzz_u32(in);
    l->writeback = fuzz_u8(in) & 1;
    l->num_queues = fuzz_u16(in);
    take_segments(in, &l->discard);
    take_segments(in, &l->write_zeroes);
    l->write_zeroes_may_unmap = fuzz_u8(in) & 1;
    take_segments(in, &l->secure_erase);
    fuzz_take(in, &l->zoned, sizeof(l->zoned));
}

/* Both byte orders say the same; every byte between the fields is 0. */
static void check_orders(const uint8_t *le, const uint8_t *be)
{
    bool covered[sizeof(struct virtio_blk_config)] = {};

    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        for (size_t j = 0; j < fields[i].size; j++) {
            size_t at = fields[i].offset;

            covered[at + j] = true;
            FUZZ_CHECK(le[at + j] == be[at + fields[i].size - 1 - j]);
        }
    }
    for (size_t i = 0; i < sizeof(covered); i++) {
        FUZZ_CHECK(covered[i] || (!le[i] && !be[i]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = { data, size };
    uint64_t features = fuzz_u64(&input);
    VirtIOBlkLayout layout = {};
    struct virtio_blk_config le, be;
    size_t len = virtio_blk_layout_size(features);

    FUZZ_CHECK(len <= sizeof(le));
    FUZZ_CHECK(len <= virtio_blk_layout_size(UINT64_MAX));
    FUZZ_CHECK(virtio_blk_layout_size(0) <= len);
    take_layout(&input, &layout);
    memset(&le, 0xaa, sizeof(le));
    memset(&be, 0x55, sizeof(be));
    virtio_blk_layout_encode(&layout, false, &le);
    virtio_blk_layout_encode(&layout, true, &be);
    check_orders((uint8_t *)&le, (uint8_t *)&be);
    FUZZ_CHECK(le64_to_cpu(le.capacity) == layout.capacity);
    FUZZ_CHECK(be16_to_cpu(be.num_queues) == layout.num_queues);
    FUZZ_CHECK(be32_to_cpu(be.zoned.zone_sectors) ==
               layout.zoned.zone_sectors);
    return 0;
}
