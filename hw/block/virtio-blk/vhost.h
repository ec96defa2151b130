/*
 * virtio-blk: the kernel backend of a device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_VHOST_H
#define HW_BLOCK_VIRTIO_BLK_VHOST_H

#include <linux/vhost_blk.h>
#include "hw/virtio/vhost.h"
#include "qemu/notify.h"
#include "qemu/timer.h"
#include "internal.h"

/*
 * VirtIOBlkVhost: /dev/vhost-blk, opened for a device, from realize to
 * unrealize.  BQL.
 */
struct VirtIOBlkVhost {
    VirtIOBlock *dev;
    struct vhost_dev hdev;              /* owns the file descriptor */
    struct vhost_virtqueue *vqs;        /* one a queue */
    uint64_t features;                  /* VHOST_BLK_F_* */
    struct vhost_blk_stats *counted;    /* one a queue; in the statistics */

    QEMUTimer *take_timer;              /* tries to give it the queues */
    unsigned take_delay_ms;             /* until the next try */
    bool may_take;                      /* nobody uses the rings now */
    bool failed;                        /* no more until the next start */
    Notifier node_changed;
    bool *served;                       /* queues that the kernel has */
};

/* vhost-open.c */

/*
 * virtio_blk_vhost_open: open the backend, or take the descriptor that the
 * user passed.  On failure the error names the mend.  Main loop.
 */
VirtIOBlkVhost *virtio_blk_vhost_open(VirtIOBlock *s, Error **errp);

/* virtio_blk_vhost_close: undo that; it has no queues any more. */
void virtio_blk_vhost_close(VirtIOBlkVhost *v);

/* virtio_blk_vhost_call: an ioctl; 0 or a negative errno. */
int virtio_blk_vhost_call(VirtIOBlkVhost *v, unsigned long request, void *arg);

#endif
