/*
 * virtio-blk on PCI: what its types share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BLK_PCI_H
#define HW_VIRTIO_BLK_PCI_H

#include "hw/virtio/virtio-blk.h"
#include "hw/virtio/virtio-pci.h"

#define TYPE_VIRTIO_BLK_PCI "virtio-blk-pci-base"
OBJECT_DECLARE_TYPE(VirtIOBlkPCI, VirtIOBlkPCIClass, VIRTIO_BLK_PCI)

/*
 * VirtIOBlkPCI: the PCI function and, as its child, the block device.
 */
struct VirtIOBlkPCI {
    VirtIOPCIProxy parent_obj;
    VirtIOBlock vdev;
};

/*
 * VirtIOBlkPCIClass: @child_type is the type of that child, a VirtIOBlock of
 * the same size.  Constant.
 */
struct VirtIOBlkPCIClass {
    VirtioPCIClass parent_class;
    const char *child_type;
};

#endif
