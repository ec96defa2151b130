/*
 * virtio-blk: the type whose queues the kernel serves where it can
 *
 * It is a virtio-blk-device in all else: features, config space and migration
 * section are the same, whoever serves the queues.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-blk.h"
#include "hw/virtio/virtio-blk-base.h"
#include "qemu/module.h"

static const Property vhost_blk_properties[] = {
    DEFINE_PROP_STRING("vhostfd", VirtIOBlock, conf.vhostfd),
};

static void vhost_blk_class_init(ObjectClass *klass, VirtIOBlkClassData data)
{
    VIRTIO_BLK_CLASS(klass)->vhost = true;
    device_class_set_props(DEVICE_CLASS(klass), vhost_blk_properties);
}

static const TypeInfo vhost_blk_info = {
    .name = TYPE_VHOST_BLK,
    .parent = TYPE_VIRTIO_BLK,
    .class_init = vhost_blk_class_init,
};

static void vhost_blk_register_types(void)
{
    type_register_static(&vhost_blk_info);
}

type_init(vhost_blk_register_types)
