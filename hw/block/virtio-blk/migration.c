/*
 * virtio-blk: the migration section
 *
 * Byte for byte what QEMU's stock device writes: for each parked request a 1,
 * the queue number as be32 when there are several queues, and the ring
 * element; then a 0.  Newest request first, as stock keeps them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio-access.h"
#include "migration/qemu-file-types.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "internal.h"

static void save_request(VirtIOBlock *s, QEMUFile *f, VirtIOBlockReq *req)
{
    qemu_put_sbyte(f, 1);
    if (s->conf.num_queues > 1) {
        qemu_put_be32(f, req->queue - s->queues);
    }
    qemu_put_virtqueue_element(VIRTIO_DEVICE(s), f, &req->elem);
}

void virtio_blk_save(VirtIODevice *vdev, QEMUFile *f)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    g_autoptr(GPtrArray) parked = g_ptr_array_new();
    VirtIOBlockReq *req;

    WITH_QEMU_LOCK_GUARD(&s->stopped_lock) {
        QSIMPLEQ_FOREACH(req, &s->stopped, stopped_link) {
            g_ptr_array_add(parked, req);
        }
        for (guint i = parked->len; i > 0; i--) {
            save_request(s, f, g_ptr_array_index(parked, i - 1));
        }
    }
    qemu_put_sbyte(f, 0);
}

static int load_request(VirtIOBlock *s, QEMUFile *f)
{
    VirtIOBlockReq *req;
    uint32_t index = 0;

    if (s->conf.num_queues > 1) {
        index = qemu_get_be32(f);
        if (index >= s->conf.num_queues) {
            error_report("virtio-blk: parked request on queue %" PRIu32
                         ", but num-queues=%u", index, s->conf.num_queues);
            return -EINVAL;
        }
    }

    req = qemu_get_virtqueue_element(VIRTIO_DEVICE(s), f, sizeof(*req));
    if (!virtio_host_has_feature(VIRTIO_DEVICE(s), VIRTIO_F_RING_PACKED)) {
        /* The stream has it for packed rings only. */
        req->elem.ndescs = 1;
    }
    virtio_blk_req_init(req, &s->queues[index]);
    WITH_QEMU_LOCK_GUARD(&s->stopped_lock) {
        QSIMPLEQ_INSERT_HEAD(&s->stopped, req, stopped_link);
    }
    return 0;
}

int virtio_blk_load(VirtIODevice *vdev, QEMUFile *f, int version_id)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    int ret;

    while (qemu_get_sbyte(f)) {
        ret = load_request(s, f);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/*
 * The write cache mode that the driver chose is not in the section, but the
 * config space is: a database must not lose its write-through disk.
 */
int virtio_blk_post_load(VirtIODevice *vdev)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    const struct virtio_blk_config *cfg = vdev->config;
    uint16_t num_queues = virtio_lduw_p(vdev, &cfg->num_queues);

    if (!virtio_blk_config_was_read(s)) {
        return 0;
    }
    if (num_queues != s->conf.num_queues) {
        error_report("virtio-blk: num-queues=%u, but the source had %u; start "
                     "the destination with num-queues=%u", s->conf.num_queues,
                     num_queues, num_queues);
        return -EINVAL;
    }
    if (virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE)) {
        blk_set_enable_write_cache(s->blk, cfg->wce);
    }
    return 0;
}

const VMStateDescription virtio_blk_vmstate = {
    .name = "virtio-blk",
    .minimum_version_id = 2,
    .version_id = 2,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};
