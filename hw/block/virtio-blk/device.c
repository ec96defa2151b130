/*
 * virtio-blk: the device type, its properties, realize and reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "hw/block/block.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/iothread-vq-mapping.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qemu/module.h"
#include "system/block-ram-registrar.h"
#include "system/blockdev.h"
#include "system/runstate.h"
#include "system/system.h"
#include "internal.h"
#include "layout.h"
#include "wire.h"

/* Name of the disk in firmware device paths. */
#define FW_SUFFIX "/disk@0,0"

#define MAX_SEGMENTS 256

static const BlockDevOps block_ops = {
    .resize_cb = virtio_blk_resized,
    .drained_begin = virtio_blk_drained_begin,
    .drained_poll = virtio_blk_drained_poll,
    .drained_end = virtio_blk_drained_end,
#ifdef CONFIG_VHOST_BLK
    .stats_cb = virtio_blk_vhost_stats,
#endif
};

static bool check_queues(VirtIOBlkConf *conf, Error **errp)
{
    if (conf->num_queues == VIRTIO_BLK_AUTO_NUM_QUEUES) {
        conf->num_queues = 1;
    }
    if (!conf->num_queues) {
        error_setg(errp, "num-queues property must be larger than 0");
        return false;
    }
    if (conf->num_queues > VIRTIO_QUEUE_MAX) {
        error_setg(errp, "num-queues property must be at most %d",
                   VIRTIO_QUEUE_MAX);
        return false;
    }
    if (conf->queue_size <= 2 || !is_power_of_2(conf->queue_size) ||
        conf->queue_size > VIRTQUEUE_MAX_SIZE) {
        error_setg(errp, "invalid queue-size property (%" PRIu16 "), "
                   "must be a power of 2 larger than 2 (max %d)",
                   conf->queue_size, VIRTQUEUE_MAX_SIZE);
        return false;
    }
    return true;
}

static bool check_segments(const char *what, uint32_t sectors,
                           uint32_t segments, Error **errp)
{
    if (!sectors || sectors > BDRV_REQUEST_MAX_SECTORS) {
        error_setg(errp, "invalid max-%s-sectors property (%" PRIu32 "), "
                   "must be between 1 and %d", what, sectors,
                   (int)BDRV_REQUEST_MAX_SECTORS);
        return false;
    }
    if (!segments || segments > MAX_SEGMENTS) {
        error_setg(errp, "invalid max-%s-segments property (%" PRIu32 "), "
                   "must be between 1 and %d", what, segments, MAX_SEGMENTS);
        return false;
    }
    return true;
}

/*
 * The kernel reports errors to the driver and knows no other policy, so that
 * is what a user who sets none gets with it.
 */
static void settle_policy(VirtIOBlock *s)
{
    BlockConf *block = &s->conf.conf;

    if (block->blk && virtio_blk_engine_may_be_vhost(s) &&
        block->werror == BLOCKDEV_ON_ERROR_AUTO &&
        blk_get_on_error(block->blk, false) == BLOCKDEV_ON_ERROR_ENOSPC) {
        block->werror = BLOCKDEV_ON_ERROR_REPORT;
    }
}

static bool apply_backend(VirtIOBlkConf *conf, Error **errp)
{
    BlockConf *block = &conf->conf;

    if (!block->blk) {
        error_setg(errp, "drive property not set");
        return false;
    }
    if (!blk_is_inserted(block->blk)) {
        error_setg(errp, "Device needs media, but drive is empty");
        return false;
    }
    return check_queues(conf, errp) &&
           blkconf_apply_backend_options(block,
                                         !blk_supports_write_perm(block->blk),
                                         true, errp) &&
           blkconf_geometry(block, NULL, 65535, 255, 255, errp) &&
           blkconf_blocksizes(block, errp);
}

/* A raw node passes on requests, but not that it is for zones they are. */
static bool check_hidden_zones(VirtIOBlock *s, Error **errp)
{
    BlockDriverState *top = blk_bs(s->blk);
    BlockDriverState *bs;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (top->bl.zoned != BLK_Z_NONE) {
        return true;
    }
    for (bs = bdrv_primary_bs(top); bs; bs = bdrv_primary_bs(bs)) {
        if (bs->bl.zoned == BLK_Z_HM) {
            error_setg(errp, "node '%s' hides the zones of '%s', which is "
                       "host-managed; use drive=%s",
                       bdrv_get_node_name(top), bdrv_get_node_name(bs),
                       bdrv_get_node_name(bs));
            return false;
        }
    }
    return true;
}

/* Add the features that depend on the medium to those from properties. */
static bool settle_features(VirtIOBlock *s, Error **errp)
{
    VirtIOBlkConf *conf = &s->conf;
    BlockLimits *bl = &blk_bs(s->blk)->bl;

    if (!check_hidden_zones(s, errp)) {
        return false;
    }
    if (bl->zoned != BLK_Z_NONE) {
        virtio_add_feature(&s->host_features, VIRTIO_BLK_F_ZONED);
        if (bl->zoned == BLK_Z_HM) {
            virtio_clear_feature(&s->host_features, VIRTIO_BLK_F_DISCARD);
        }
    }
    if (conf->secure_erase && bl->zoned != BLK_Z_NONE) {
        error_setg(errp, "secure-erase=on is not for zoned media, whose zones "
                   "are erased by a reset; use secure-erase=off");
        return false;
    }
    if (conf->secure_erase) {
        virtio_add_feature(&s->host_features, VIRTIO_BLK_F_SECURE_ERASE);
        if (!check_segments("secure-erase", conf->max_secure_erase_sectors,
                            conf->max_secure_erase_segments, errp) ||
            !virtio_blk_secure_erase_check(s, errp)) {
            return false;
        }
    }
    if (conf->lifetime) {
        virtio_add_feature(&s->host_features, VIRTIO_BLK_F_LIFETIME);
        if (!virtio_blk_lifetime_check(s, errp)) {
            return false;
        }
    }
    if (virtio_has_feature(s->host_features, VIRTIO_BLK_F_DISCARD) &&
        !check_segments("discard", conf->max_discard_sectors,
                        conf->max_discard_segments, errp)) {
        return false;
    }
    return !virtio_has_feature(s->host_features, VIRTIO_BLK_F_WRITE_ZEROES) ||
           check_segments("write-zeroes", conf->max_write_zeroes_sectors,
                          conf->max_write_zeroes_segments, errp);
}

static void virtio_blk_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOBlock *s = VIRTIO_BLK(dev);
    BlockConf *block = &s->conf.conf;

    settle_policy(s);
    if (!apply_backend(&s->conf, errp)) {
        return;
    }
    s->blk = block->blk;
    s->original_wce = blk_enable_write_cache(s->blk);
    if (!virtio_blk_engine_check(s, errp) || !settle_features(s, errp)) {
        return;
    }

    s->config_size = virtio_blk_layout_size(s->host_features);
    virtio_init(vdev, VIRTIO_ID_BLOCK, s->config_size);
    if (!virtio_blk_queues_init(s, errp)) {
        virtio_cleanup(vdev);
        return;
    }
    if (!virtio_blk_engine_open(s, errp)) {
        virtio_blk_queues_cleanup(s);
        virtio_cleanup(vdev);
        return;
    }
    qemu_mutex_init(&s->stopped_lock);
    qemu_mutex_init(&s->medium_lock);
    QSIMPLEQ_INIT(&s->stopped);
    QLIST_INIT(&s->bounced);
    virtio_blk_engine_select(s, "realize");
    virtio_blk_medium_changed(s);

    /* After virtio_init(): ioeventfd must be up before requests restart. */
    s->vm_change = virtio_blk_add_vm_change(dev, virtio_blk_vm_change, s);
    blk_ram_registrar_init(&s->blk_ram_registrar, s->blk);
    blk_set_dev_ops(s->blk, &block_ops, s);
    blk_iostatus_enable(s->blk);
    add_boot_device_lchs(dev, FW_SUFFIX, block->lcyls, block->lheads,
                         block->lsecs);
}

static void virtio_blk_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOBlock *s = VIRTIO_BLK(dev);

    virtio_blk_abandon(s, NULL);
    qemu_del_vm_change_state_handler(s->vm_change);
    del_boot_device_lchs(dev, FW_SUFFIX);
    /* The backend is still drained when the drive is taken from the device. */
    blk_set_dev_ops(s->blk, NULL, NULL);
    virtio_blk_engine_close(s);
    virtio_blk_queues_cleanup(s);
    qemu_mutex_destroy(&s->stopped_lock);
    qemu_mutex_destroy(&s->medium_lock);
    g_clear_pointer(&s->medium_name, g_free);
    blk_ram_registrar_destroy(&s->blk_ram_registrar);
    blockdev_mark_auto_del(s->blk);
    virtio_cleanup(vdev);
}

/* The transport has stopped ioeventfd: nothing pops requests any more. */
static void virtio_blk_reset(VirtIODevice *vdev)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);

    assert(!s->ioeventfd_started);
    virtio_blk_abandon(s, NULL);
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        s->queues[i].reset = false;
        s->queues[i].notify = false;
    }
    if (blk_enable_write_cache(s->blk) != s->original_wce) {
        blk_set_enable_write_cache(s->blk, s->original_wce);
        if (virtio_blk_config_was_read(s)) {
            /* What is gone must not come back with a migration. */
            virtio_blk_get_config(vdev, vdev->config);
        }
    }
}

static char *get_engine(Object *obj, Error **errp)
{
    VirtIOBlock *s = VIRTIO_BLK(obj);

    return g_strdup(s->engine ? s->engine->name : "none");
}

static char *get_engine_reason(Object *obj, Error **errp)
{
    VirtIOBlock *s = VIRTIO_BLK(obj);

    return g_strdup(s->engine_why ?: "the device is not realized");
}

static void get_registered_memory(Object *obj, Visitor *v, const char *name,
                                  void *opaque, Error **errp)
{
    uint64_t bytes = virtio_blk_engine_memory(VIRTIO_BLK(obj));

    visit_type_size(v, name, &bytes, errp);
}

static void virtio_blk_instance_init(Object *obj)
{
    VirtIOBlock *s = VIRTIO_BLK(obj);

    device_add_bootindex_property(obj, &s->conf.conf.bootindex, "bootindex",
                                  FW_SUFFIX, DEVICE(obj));
}

static const Property virtio_blk_properties[] = {
    DEFINE_BLOCK_PROPERTIES(VirtIOBlock, conf.conf),
    DEFINE_BLOCK_ERROR_PROPERTIES(VirtIOBlock, conf.conf),
    DEFINE_BLOCK_CHS_PROPERTIES(VirtIOBlock, conf.conf),
    DEFINE_PROP_STRING("serial", VirtIOBlock, conf.serial),
    DEFINE_PROP_BIT64("config-wce", VirtIOBlock, host_features,
                      VIRTIO_BLK_F_CONFIG_WCE, true),
    DEFINE_PROP_BOOL("x-enable-wce-if-config-wce", VirtIOBlock,
                     conf.x_enable_wce_if_config_wce, true),
    DEFINE_PROP_BOOL("request-merging", VirtIOBlock, conf.request_merging,
                     true),
    DEFINE_PROP_UINT16("num-queues", VirtIOBlock, conf.num_queues,
                       VIRTIO_BLK_AUTO_NUM_QUEUES),
    DEFINE_PROP_UINT16("queue-size", VirtIOBlock, conf.queue_size, 256),
    DEFINE_PROP_BOOL("seg-max-adjust", VirtIOBlock, conf.seg_max_adjust, true),
    DEFINE_PROP_LINK("iothread", VirtIOBlock, conf.iothread, TYPE_IOTHREAD,
                     IOThread *),
    DEFINE_PROP_IOTHREAD_VQ_MAPPING_LIST("iothread-vq-mapping", VirtIOBlock,
                                         conf.iothread_vq_mapping_list),
    DEFINE_PROP_STRING("io-engine", VirtIOBlock, conf.io_engine),
    DEFINE_PROP_ON_OFF_AUTO("register-memory", VirtIOBlock,
                            conf.register_memory, ON_OFF_AUTO_AUTO),
    DEFINE_PROP_BIT64("discard", VirtIOBlock, host_features,
                      VIRTIO_BLK_F_DISCARD, true),
    DEFINE_PROP_BOOL("report-discard-granularity", VirtIOBlock,
                     conf.report_discard_granularity, true),
    DEFINE_PROP_UINT32("max-discard-sectors", VirtIOBlock,
                       conf.max_discard_sectors, BDRV_REQUEST_MAX_SECTORS),
    DEFINE_PROP_UINT32("max-discard-segments", VirtIOBlock,
                       conf.max_discard_segments, 1),
    DEFINE_PROP_BIT64("write-zeroes", VirtIOBlock, host_features,
                      VIRTIO_BLK_F_WRITE_ZEROES, true),
    DEFINE_PROP_UINT32("max-write-zeroes-sectors", VirtIOBlock,
                       conf.max_write_zeroes_sectors, BDRV_REQUEST_MAX_SECTORS),
    DEFINE_PROP_UINT32("max-write-zeroes-segments", VirtIOBlock,
                       conf.max_write_zeroes_segments, 1),
    DEFINE_PROP_ON_OFF_AUTO("write-zeroes-may-unmap", VirtIOBlock,
                            conf.write_zeroes_may_unmap, ON_OFF_AUTO_ON),
    DEFINE_PROP_BOOL("secure-erase", VirtIOBlock, conf.secure_erase, false),
    DEFINE_PROP_UINT32("max-secure-erase-sectors", VirtIOBlock,
                       conf.max_secure_erase_sectors, BDRV_REQUEST_MAX_SECTORS),
    DEFINE_PROP_UINT32("max-secure-erase-segments", VirtIOBlock,
                       conf.max_secure_erase_segments, 1),
    DEFINE_PROP_BOOL("lifetime", VirtIOBlock, conf.lifetime, false),
    DEFINE_PROP_BOOL("scsi", VirtIOBlock, conf.scsi, false),
};

static void virtio_blk_class_init(ObjectClass *klass, VirtIOBlkClassData data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);

    device_class_set_props(dc, virtio_blk_properties);
    object_class_property_add_str(klass, "engine", get_engine, NULL);
    object_class_property_set_description(klass, "engine",
                                          "I/O engine now in use");
    object_class_property_add_str(klass, "engine-reason", get_engine_reason,
                                  NULL);
    object_class_property_set_description(klass, "engine-reason",
                                          "Why this engine is in use");
    object_class_property_add(klass, "registered-memory", "size",
                              get_registered_memory, NULL, NULL, NULL);
    object_class_property_set_description(klass, "registered-memory",
                                          "Bytes of guest memory that are "
                                          "registered with io_uring");
    dc->vmsd = &virtio_blk_vmstate;
    set_bit(DEVICE_CATEGORY_STORAGE, dc->categories);
    vdc->realize = virtio_blk_realize;
    vdc->unrealize = virtio_blk_unrealize;
    vdc->reset = virtio_blk_reset;
    vdc->get_config = virtio_blk_get_config;
    vdc->set_config = virtio_blk_set_config;
    vdc->get_features = virtio_blk_get_features;
    vdc->validate_features = virtio_blk_validate_features;
    vdc->set_status = virtio_blk_set_status;
    vdc->queue_reset = virtio_blk_queue_reset;
    vdc->queue_enable = virtio_blk_queue_enable;
    vdc->start_ioeventfd = virtio_blk_start_ioeventfd;
    vdc->stop_ioeventfd = virtio_blk_stop_ioeventfd;
    vdc->save = virtio_blk_save;
    vdc->load = virtio_blk_load;
    vdc->post_load = virtio_blk_post_load;
}

static const TypeInfo virtio_blk_info = {
    .name = TYPE_VIRTIO_BLK,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOBlock),
    .instance_init = virtio_blk_instance_init,
    .class_init = virtio_blk_class_init,
    .class_size = sizeof(VirtIOBlkClass),
};

static void virtio_blk_register_types(void)
{
    type_register_static(&virtio_blk_info);
}

type_init(virtio_blk_register_types)
