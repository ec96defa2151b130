/*
 * virtio-blk: features, config space, write cache, resize
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "hw/virtio/virtio-mmio.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "internal.h"
#include "layout.h"
#include "wire.h"

/* seg_max of devices whose queue size was fixed (machine types before 4.2). */
#define SEG_MAX_FIXED (128 - 2)

static bool offers(VirtIOBlock *s, unsigned bit)
{
    return virtio_has_feature(s->host_features, bit);
}

/*
 * Sectors a track.  A medium whose cylinders are no multiple of the logical
 * block size gets a track that is; others keep theirs, since for some (DASD)
 * it counts blocks and has a meaning of its own.
 */
static uint8_t track_sectors(VirtIOBlock *s)
{
    BlockConf *conf = &s->conf.conf;
    int64_t length = blk_getlength(s->blk);

    if (length > 0 &&
        length / conf->heads / conf->secs % conf->logical_block_size) {
        return conf->secs & ~(virtio_blk_block_sectors(s) - 1);
    }
    return conf->secs;
}

static uint32_t discard_alignment(VirtIOBlock *s)
{
    BlockConf *conf = &s->conf.conf;

    if (conf->discard_granularity == (uint32_t)-1 ||
        !s->conf.report_discard_granularity) {
        return conf->logical_block_size >> BDRV_SECTOR_BITS;
    }
    return conf->discard_granularity >> BDRV_SECTOR_BITS;
}

static bool passes_through(BlockDriver *drv)
{
    return drv->is_filter || !strcmp(drv->format_name, "raw");
}

/*
 * VIRTIO 1.4, 5.2.5.2: no where no sector can be deallocated.  A format
 * decides by itself; filters and raw do no more than what is below them.
 */
static bool write_zeroes_may_unmap(VirtIOBlock *s)
{
    BlockDriverState *bs = blk_bs(s->blk);

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    while (bs && bs->drv && bdrv_can_write_zeroes_with_unmap(bs)) {
        if (!passes_through(bs->drv)) {
            return true;
        }
        bs = bdrv_primary_bs(bs);
    }
    return false;
}

static void layout_segmented(VirtIOBlock *s, VirtIOBlkLayout *layout)
{
    VirtIOBlkConf *conf = &s->conf;

    if (offers(s, VIRTIO_BLK_F_DISCARD)) {
        layout->discard = (VirtIOBlkSegmentLimits) {
            .max_sectors = conf->max_discard_sectors,
            .max_segments = conf->max_discard_segments,
            .alignment = discard_alignment(s),
        };
    }
    if (offers(s, VIRTIO_BLK_F_WRITE_ZEROES)) {
        layout->write_zeroes = (VirtIOBlkSegmentLimits) {
            .max_sectors = conf->max_write_zeroes_sectors,
            .max_segments = conf->max_write_zeroes_segments,
        };
        layout->write_zeroes_may_unmap = s->may_unmap;
    }
    if (offers(s, VIRTIO_BLK_F_SECURE_ERASE)) {
        layout->secure_erase = (VirtIOBlkSegmentLimits) {
            .max_sectors = conf->max_secure_erase_sectors,
            .max_segments = conf->max_secure_erase_segments,
            .alignment = virtio_blk_block_sectors(s),
        };
    }
}

static void layout_zoned(VirtIOBlock *s, VirtIOBlkLayout *layout)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    BlockDriverState *bs = blk_bs(s->blk);

    /* A node without zones may have come on top since realize. */
    if (!bs || bs->bl.zoned == BLK_Z_NONE ||
        !virtio_host_has_feature(vdev, VIRTIO_BLK_F_ZONED)) {
        return;
    }
    /*
     * VIRTIO 1.4, 5.2.5.2: a driver that refused ZONED sees no zones, nor does
     * a legacy one, which comes to DRIVER_OK without FEATURES_OK.
     */
    if ((vdev->status & (VIRTIO_CONFIG_S_FEATURES_OK |
                         VIRTIO_CONFIG_S_DRIVER_OK)) &&
        !virtio_blk_zones_used(s)) {
        return;
    }
    layout->zoned = (VirtIOBlkZonedLayout) {
        .model = bs->bl.zoned == BLK_Z_HM ? VIRTIO_BLK_Z_HM : VIRTIO_BLK_Z_HA,
        .zone_sectors = bs->bl.zone_size >> BDRV_SECTOR_BITS,
        .max_open_zones = bs->bl.max_open_zones,
        .max_active_zones = bs->bl.max_active_zones,
        .max_append_sectors = bs->bl.max_append_sectors,
        .write_granularity = bs->bl.write_granularity ?:
                             s->conf.conf.logical_block_size,
    };
}

void virtio_blk_get_config(VirtIODevice *vdev, uint8_t *config)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    BlockConf *conf = &s->conf.conf;
    uint32_t block_size = conf->logical_block_size;
    struct virtio_blk_config cfg;
    VirtIOBlkLayout layout = {
        .capacity = virtio_blk_capacity(s),
        .seg_max = s->conf.seg_max_adjust ? s->conf.queue_size - 2
                                          : SEG_MAX_FIXED,
        .cylinders = conf->cyls,
        .heads = conf->heads,
        .sectors = track_sectors(s),
        .blk_size = block_size,
        .physical_block_exp = get_physical_block_exp(conf),
        .min_io_size = conf->min_io_size / block_size,
        .opt_io_size = conf->opt_io_size / block_size,
        .writeback = blk_enable_write_cache(s->blk),
        .num_queues = s->conf.num_queues,
    };

    layout_segmented(s, &layout);
    layout_zoned(s, &layout);
    virtio_blk_layout_encode(&layout, virtio_blk_big_endian(s), &cfg);
    memcpy(config, &cfg, s->config_size);
}

/*
 * The only field a driver may write is writeback (VIRTIO 1.4, 5.2.5).  The
 * transports hand over their copy of the whole structure whatever was written.
 */
void virtio_blk_set_config(VirtIODevice *vdev, const uint8_t *config)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);

    blk_set_enable_write_cache(s->blk,
        config[offsetof(struct virtio_blk_config, wce)] != 0);
    virtio_blk_vhost_config_changed(s);
    if (!virtio_blk_config_was_read(s)) {
        /* Else the copy that migrates would not count on the other side. */
        virtio_blk_get_config(vdev, vdev->config);
    }
}

bool virtio_blk_config_was_read(VirtIOBlock *s)
{
    const struct virtio_blk_config *copy = VIRTIO_DEVICE(s)->config;

    return copy->num_queues != 0;
}

/* The word for a device of the other kind, legacy or modern. */
static const char *other_kind(VirtIOBlock *s, bool modern)
{
    BusState *bus = qdev_get_parent_bus(DEVICE(s));

    if (object_dynamic_cast(OBJECT(bus), TYPE_VIRTIO_MMIO_BUS)) {
        return modern ? "-global virtio-mmio.force-legacy=off"
                      : "-global virtio-mmio.force-legacy=on";
    }
    return modern ? "disable-modern=off" : "disable-modern=on";
}

static bool legacy_possible(VirtIOBlock *s, Error **errp)
{
    BlockDriverState *bs = blk_bs(s->blk);

    if (bs && bs->bl.zoned == BLK_Z_HM) {
        error_setg(errp, "a host-managed zoned disk needs a modern virtio "
                   "device; use %s", other_kind(s, true));
        return false;
    }
    return true;
}

uint64_t virtio_blk_get_features(VirtIODevice *vdev, uint64_t features,
                                 Error **errp)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);

    features |= s->host_features;
    virtio_add_feature(&features, VIRTIO_BLK_F_SEG_MAX);
    virtio_add_feature(&features, VIRTIO_BLK_F_GEOMETRY);
    virtio_add_feature(&features, VIRTIO_BLK_F_TOPOLOGY);
    virtio_add_feature(&features, VIRTIO_BLK_F_BLK_SIZE);

    if (!virtio_has_feature(features, VIRTIO_F_VERSION_1)) {
        if (!legacy_possible(s, errp)) {
            return 0;
        }
        /* Legacy guests have always seen it so, and migrate with it. */
        virtio_clear_feature(&features, VIRTIO_F_ANY_LAYOUT);
        virtio_add_feature(&features, VIRTIO_BLK_F_SCSI);
        /* VIRTIO 1.4, 5.2.5.3: legacy drivers know no zones. */
        virtio_clear_feature(&features, VIRTIO_BLK_F_ZONED);
    } else if (s->conf.scsi) {
        error_setg(errp, "scsi=on is for legacy virtio devices only; "
                   "use %s or scsi=off", other_kind(s, false));
        return 0;
    }

    /* VIRTIO 1.4, 5.2.5.2: CONFIG_WCE never without FLUSH. */
    if (blk_enable_write_cache(s->blk) ||
        (s->conf.x_enable_wce_if_config_wce &&
         virtio_has_feature(features, VIRTIO_BLK_F_CONFIG_WCE))) {
        virtio_add_feature(&features, VIRTIO_BLK_F_FLUSH);
    }
    if (!blk_is_writable(s->blk)) {
        virtio_add_feature(&features, VIRTIO_BLK_F_RO);
    }
    if (s->conf.num_queues > 1) {
        virtio_add_feature(&features, VIRTIO_BLK_F_MQ);
    }
    return features;
}

/*
 * VIRTIO 1.4, 5.2.5.2: a driver that refuses ZONED cannot use a host-managed
 * medium, so it must not get FEATURES_OK; and CONFIG_WCE without FLUSH starts
 * with the cache off, since such a driver has no way to flush it.
 */
int virtio_blk_validate_features(VirtIODevice *vdev)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    BlockDriverState *bs = blk_bs(s->blk);

    if (bs && bs->bl.zoned == BLK_Z_HM &&
        !virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_ZONED)) {
        return -EINVAL;
    }
    if (virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE)) {
        bool wce = s->original_wce &&
                   virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_FLUSH);

        if (blk_enable_write_cache(s->blk) != wce) {
            blk_set_enable_write_cache(s->blk, wce);
            /* The copy migrates: there the cache must be off as well. */
            virtio_blk_get_config(vdev, vdev->config);
        }
    }
    return 0;
}

/*
 * VIRTIO 1.4, 5.2.6.2: a driver that has neither CONFIG_WCE nor FLUSH gets a
 * write-through cache.  One that has CONFIG_WCE sets the mode itself, maybe
 * before DRIVER_OK, and must find it as it left it.
 */
VirtIOBlkStatus virtio_blk_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);

    if ((status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        !virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE)) {
        blk_set_enable_write_cache(s->blk,
            virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_FLUSH));
        virtio_blk_vhost_config_changed(s);
    }
    return VIRTIO_BLK_STATUS_FOLLOWED;
}

static void notify_config_bh(void *opaque)
{
    VirtIODevice *vdev = opaque;

    /* It may have been unplugged meanwhile. */
    if (qdev_is_realized(DEVICE(vdev))) {
        virtio_notify_config(vdev);
    }
    object_unref(OBJECT(vdev));
}

void virtio_blk_resized(void *opaque)
{
    /* The config interrupt needs the BQL; an iothread may have called us. */
    object_ref(OBJECT(opaque));
    aio_bh_schedule_oneshot(qemu_get_aio_context(), notify_config_bh, opaque);
}

bool virtio_blk_medium_changed(VirtIOBlock *s)
{
    bool before = s->may_unmap;

    virtio_blk_lifetime_medium(s);
    switch (s->conf.write_zeroes_may_unmap) {
    case ON_OFF_AUTO_ON:
        s->may_unmap = true;
        break;
    case ON_OFF_AUTO_OFF:
        s->may_unmap = false;
        break;
    default:
        s->may_unmap = write_zeroes_may_unmap(s);
        break;
    }
    return s->may_unmap != before;
}
