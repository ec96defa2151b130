/*
 * vhost-blk on PCI: virtio-blk whose queues the kernel may serve
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio-blk-base.h"
#include "hw/virtio/virtio-blk-pci.h"
#include "qemu/module.h"

static void vhost_blk_pci_class_init(ObjectClass *klass,
                                     VirtIOBlkClassData data)
{
    VIRTIO_BLK_PCI_CLASS(klass)->child_type = TYPE_VHOST_BLK;
}

static const VirtioPCIDeviceTypeInfo vhost_blk_pci_info = {
    .base_name = "vhost-blk-pci-base",
    .generic_name = "vhost-blk-pci",
    .transitional_name = "vhost-blk-pci-transitional",
    .non_transitional_name = "vhost-blk-pci-non-transitional",
    .parent = TYPE_VIRTIO_BLK_PCI,
    .class_init = vhost_blk_pci_class_init,
};

static void vhost_blk_pci_register(void)
{
    virtio_pci_types_register(&vhost_blk_pci_info);
}

type_init(vhost_blk_pci_register)
