/*
 * virtio-blk on PCI
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-blk-base.h"
#include "hw/virtio/virtio-blk-pci.h"
#include "qapi/error.h"
#include "qemu/module.h"

/*
 * An interrupt vector for each queue and one for the configuration, unless
 * the user says otherwise; a queue for each vCPU by default.
 */
static void virtio_blk_pci_realize(VirtIOPCIProxy *proxy, Error **errp)
{
    VirtIOBlkPCI *pci = VIRTIO_BLK_PCI(proxy);
    VirtIOBlkConf *conf = &pci->vdev.conf;

    if (conf->num_queues == VIRTIO_BLK_AUTO_NUM_QUEUES) {
        conf->num_queues = virtio_pci_optimal_num_queues(0);
    }
    if (proxy->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        proxy->nvectors = conf->num_queues + 1;
    }
    qdev_realize(DEVICE(&pci->vdev), BUS(&proxy->bus), errp);
}

static void virtio_blk_pci_init(Object *obj)
{
    VirtIOBlkPCI *pci = VIRTIO_BLK_PCI(obj);

    virtio_instance_init_common(obj, &pci->vdev, sizeof(pci->vdev),
                                VIRTIO_BLK_PCI_GET_CLASS(obj)->child_type);
    object_property_add_alias(obj, "bootindex", OBJECT(&pci->vdev),
                              "bootindex");
}

static const Property virtio_blk_pci_properties[] = {
    DEFINE_PROP_UINT32("class", VirtIOPCIProxy, class_code, 0),
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void virtio_blk_pci_class_init(ObjectClass *klass,
                                      VirtIOBlkClassData data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *vpc = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    VIRTIO_BLK_PCI_CLASS(klass)->child_type = TYPE_VIRTIO_BLK;
    device_class_set_props(dc, virtio_blk_pci_properties);
    set_bit(DEVICE_CATEGORY_STORAGE, dc->categories);
    vpc->realize = virtio_blk_pci_realize;
    pc->vendor_id = PCI_VENDOR_ID_REDHAT_QUMRANET;
    pc->device_id = PCI_DEVICE_ID_VIRTIO_BLOCK;
    pc->revision = VIRTIO_PCI_ABI_VERSION;
    pc->class_id = PCI_CLASS_STORAGE_SCSI;
}

static const VirtioPCIDeviceTypeInfo virtio_blk_pci_info = {
    .base_name = TYPE_VIRTIO_BLK_PCI,
    .generic_name = "virtio-blk-pci",
    .transitional_name = "virtio-blk-pci-transitional",
    .non_transitional_name = "virtio-blk-pci-non-transitional",
    .instance_size = sizeof(VirtIOBlkPCI),
    .class_size = sizeof(VirtIOBlkPCIClass),
    .instance_init = virtio_blk_pci_init,
    .class_init = virtio_blk_pci_class_init,
};

static void virtio_blk_pci_register(void)
{
    virtio_pci_types_register(&virtio_blk_pci_info);
}

type_init(virtio_blk_pci_register)
