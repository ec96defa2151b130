/*
 * virtio-blk: the configuration structure as bytes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "layout.h"

size_t virtio_blk_layout_size(uint64_t features)
{
    static const struct {
        unsigned bit;
        size_t size;
    } grow[] = {
        { VIRTIO_BLK_F_DISCARD,
          endof(struct virtio_blk_config, discard_sector_alignment) },
        { VIRTIO_BLK_F_WRITE_ZEROES,
          endof(struct virtio_blk_config, write_zeroes_may_unmap) },
        { VIRTIO_BLK_F_SECURE_ERASE,
          endof(struct virtio_blk_config, secure_erase_sector_alignment) },
        { VIRTIO_BLK_F_ZONED,
          endof(struct virtio_blk_config, zoned) },
    };
    size_t size = offsetof(struct virtio_blk_config, max_discard_sectors);

    for (size_t i = 0; i < ARRAY_SIZE(grow); i++) {
        if (features & BIT_ULL(grow[i].bit)) {
            size = MAX(size, grow[i].size);
        }
    }
    return size;
}

static void put16(void *field, uint16_t value, bool big_endian)
{
    stw_he_p(field, big_endian ? cpu_to_be16(value) : cpu_to_le16(value));
}

static void put32(void *field, uint32_t value, bool big_endian)
{
    stl_he_p(field, big_endian ? cpu_to_be32(value) : cpu_to_le32(value));
}

static void put64(void *field, uint64_t value, bool big_endian)
{
    stq_he_p(field, big_endian ? cpu_to_be64(value) : cpu_to_le64(value));
}

static void encode_segmented(const VirtIOBlkLayout *l, bool be,
                             struct virtio_blk_config *cfg)
{
    put32(&cfg->max_discard_sectors, l->discard.max_sectors, be);
    put32(&cfg->max_discard_seg, l->discard.max_segments, be);
    put32(&cfg->discard_sector_alignment, l->discard.alignment, be);

    put32(&cfg->max_write_zeroes_sectors, l->write_zeroes.max_sectors, be);
    put32(&cfg->max_write_zeroes_seg, l->write_zeroes.max_segments, be);
    cfg->write_zeroes_may_unmap = l->write_zeroes_may_unmap;

    put32(&cfg->max_secure_erase_sectors, l->secure_erase.max_sectors, be);
    put32(&cfg->max_secure_erase_seg, l->secure_erase.max_segments, be);
    put32(&cfg->secure_erase_sector_alignment, l->secure_erase.alignment, be);
}

static void encode_zoned(const VirtIOBlkZonedLayout *z, bool be,
                         struct virtio_blk_config *cfg)
{
    cfg->zoned.model = z->model;
    put32(&cfg->zoned.zone_sectors, z->zone_sectors, be);
    put32(&cfg->zoned.max_open_zones, z->max_open_zones, be);
    put32(&cfg->zoned.max_active_zones, z->max_active_zones, be);
    put32(&cfg->zoned.max_append_sectors, z->max_append_sectors, be);
    put32(&cfg->zoned.write_granularity, z->write_granularity, be);
}

void virtio_blk_layout_encode(const VirtIOBlkLayout *l, bool be,
                              struct virtio_blk_config *cfg)
{
    memset(cfg, 0, sizeof(*cfg));
    put64(&cfg->capacity, l->capacity, be);
    put32(&cfg->seg_max, l->seg_max, be);
    put16(&cfg->geometry.cylinders, l->cylinders, be);
    cfg->geometry.heads = l->heads;
    cfg->geometry.sectors = l->sectors;
    put32(&cfg->blk_size, l->blk_size, be);
    cfg->physical_block_exp = l->physical_block_exp;
    put16(&cfg->min_io_size, l->min_io_size, be);
    put32(&cfg->opt_io_size, l->opt_io_size, be);
    cfg->wce = l->writeback;
    put16(&cfg->num_queues, l->num_queues, be);
    encode_segmented(l, be, cfg);
    encode_zoned(&l->zoned, be, cfg);
}
