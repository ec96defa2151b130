/*
 * virtio-blk device model: where releases of QEMU differ
 *
 * All of it, so that no other file asks.  What a release has is taken from its
 * headers and from the types that it declares, never from its version.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_BLK_BASE_H
#define HW_VIRTIO_BLK_BASE_H

#include "hw/qdev-core.h"
#include "hw/virtio/virtio.h"
#include "qom/object.h"
#include "system/dma.h"         /* for memory.h, which has moved */
#include "system/runstate.h"

/*
 * VirtIOBlkClassData: what a class_init() gets beside the class; later than
 * QEMU 10.0 a pointer to something constant.
 */
typedef __typeof__(__builtin_choose_expr(
    __builtin_types_compatible_p(__typeof__(((TypeInfo *)NULL)->class_init),
                                 void (*)(ObjectClass *, const void *)),
    (const void *)NULL, (void *)NULL)) VirtIOBlkClassData;

/*
 * VirtIOBlkStatus: what set_status() returns: nothing, or later than QEMU 10.0
 * whether the device could follow, which this one always can.
 */
typedef __typeof__(((VirtioDeviceClass *)NULL)->set_status(NULL, 0))
    VirtIOBlkStatus;
#define VIRTIO_BLK_STATUS_FOLLOWED ((VirtIOBlkStatus)0)

/*
 * virtio_blk_add_vm_change: qdev_add_vm_change_state_handler(), to which QEMU
 * later than 10.0 can give another handler, one that returns something.  The
 * caller owns the result.  Main loop, BQL.
 */
static inline VMChangeStateEntry *
virtio_blk_add_vm_change(DeviceState *dev, VMChangeStateHandler *handler,
                         void *opaque)
{
    typedef VMChangeStateEntry *One(DeviceState *, VMChangeStateHandler *,
                                    void *);
    typedef VMChangeStateEntry *Two(DeviceState *, VMChangeStateHandler *,
                                    int (*)(void *, bool, RunState), void *);
    /* Variables: gcc traps a call through the cast that does not fit. */
    One *one = (One *)qdev_add_vm_change_state_handler;
    Two *two = (Two *)qdev_add_vm_change_state_handler;

    return __builtin_types_compatible_p(One, __typeof__(
               qdev_add_vm_change_state_handler)) ?
           one(dev, handler, opaque) : two(dev, handler, NULL, opaque);
}

#endif
