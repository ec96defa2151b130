/*
 * virtio-blk: completion of requests whose buffers are not RAM
 *
 * A driver may let a buffer lie in the registers of a device.  The data is
 * held in a bounce buffer then, and goes there when the request completes.
 * That write is a register access with all that may follow: a reset of this
 * very device, of another one, an unplug.  So it is made by the main loop
 * under the BQL, and the request is not in flight while it lasts, or the reset
 * would wait for it for ever.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "system/dma.h"
#include "internal.h"

/*
 * VirtIOBlkBounce: a completion on its way through the main loop.  In the
 * device's list while its buffers are written, and only then; BQL.
 */
struct VirtIOBlkBounce {
    VirtIOBlockReq *req;
    size_t written;
    bool dropped;                       /* by a reset, meanwhile */
    QLIST_ENTRY(VirtIOBlkBounce) link;
};

static bool is_ram(void *host)
{
    ram_addr_t offset;

    return memory_region_from_host(host, &offset) != NULL;
}

bool virtio_blk_req_bounced(VirtIOBlockReq *req)
{
    VirtQueueElement *elem = &req->elem;
    AddressSpace *as = virtio_blk_vdev(req->queue->dev)->dma_as;

    if (likely(qatomic_read(&as->bounce_buffer_size) == 0)) {
        return false;
    }
    for (unsigned i = 0; i < elem->in_num; i++) {
        if (!is_ram(elem->in_sg[i].iov_base)) {
            return true;
        }
    }
    return false;
}

/* Bytes of a writable descriptor that the driver must see. */
static size_t defined_bytes(VirtIOBlkBounce *b, unsigned index)
{
    VirtQueueElement *elem = &b->req->elem;
    size_t left = b->written + 1;

    if (index + 1 == elem->in_num) {
        /* The status is in it, maybe behind payload that was not written. */
        return elem->in_sg[index].iov_len;
    }
    for (unsigned i = 0; i < index; i++) {
        left -= MIN(left, elem->in_sg[i].iov_len);
    }
    return MIN(left, elem->in_sg[index].iov_len);
}

/* What nothing can follow from is done first. */
static void unmap_ram(VirtIOBlkBounce *b, AddressSpace *as)
{
    VirtQueueElement *elem = &b->req->elem;

    for (unsigned i = 0; i < elem->out_num; i++) {
        dma_memory_unmap(as, elem->out_sg[i].iov_base, elem->out_sg[i].iov_len,
                         DMA_DIRECTION_TO_DEVICE, elem->out_sg[i].iov_len);
    }
    for (unsigned i = 0; i < elem->in_num; i++) {
        if (is_ram(elem->in_sg[i].iov_base)) {
            dma_memory_unmap(as, elem->in_sg[i].iov_base,
                             elem->in_sg[i].iov_len,
                             DMA_DIRECTION_FROM_DEVICE, defined_bytes(b, i));
            elem->in_sg[i].iov_base = NULL;
        }
    }
}

static void unmap_bounced(VirtIOBlkBounce *b, AddressSpace *as)
{
    DeviceState *dev = DEVICE(b->req->queue->dev);
    VirtQueueElement *elem = &b->req->elem;

    for (unsigned i = 0; i < elem->in_num; i++) {
        if (!elem->in_sg[i].iov_base) {
            continue;
        }
        if (!qdev_is_realized(dev)) {
            /* Unplugged by the last write, and its address space with it. */
            return;
        }
        dma_memory_unmap(as, elem->in_sg[i].iov_base, elem->in_sg[i].iov_len,
                         DMA_DIRECTION_FROM_DEVICE,
                         b->dropped ? 0 : defined_bytes(b, i));
    }
}

/* In the queue's thread again: the ring is its own. */
static void bounce_land(void *opaque)
{
    g_autofree VirtIOBlkBounce *b = opaque;
    VirtIOBlock *s = b->req->queue->dev;

    b->req->elem.in_num = 0;
    b->req->elem.out_num = 0;
    virtio_blk_req_push(b->req, b->written);
    blk_dec_in_flight(s->blk);
}

/* The request is out of reach of whoever waits, and can be dropped. */
static void bounce_write_out(void *opaque)
{
    VirtIOBlkBounce *b = opaque;
    VirtIOBlkQueue *q = b->req->queue;
    VirtIOBlock *s = q->dev;
    AddressSpace *as = virtio_blk_vdev(s)->dma_as;

    object_ref(OBJECT(s));
    unmap_ram(b, as);
    QLIST_INSERT_HEAD(&s->bounced, b, link);
    blk_dec_in_flight(s->blk);
    unmap_bounced(b, as);
    if (b->dropped) {
        virtio_blk_frame_destroy(&b->req->frame);
        g_free(b->req);
        g_free(b);
    } else {
        QLIST_REMOVE(b, link);
        blk_inc_in_flight(s->blk);
        aio_bh_schedule_oneshot(q->ctx, bounce_land, b);
    }
    object_unref(OBJECT(s));
}

void virtio_blk_req_finish_bounced(VirtIOBlockReq *req, size_t written)
{
    VirtIOBlkBounce *b = g_new0(VirtIOBlkBounce, 1);

    b->req = req;
    b->written = written;
    /* Not from here: this may be the completion that a drain waits for. */
    blk_inc_in_flight(req->queue->dev->blk);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), bounce_write_out, b);
}

unsigned virtio_blk_bounced_count(VirtIOBlkQueue *q)
{
    VirtIOBlkBounce *b;
    unsigned n = 0;

    QLIST_FOREACH(b, &q->dev->bounced, link) {
        n += b->req->queue == q;
    }
    return n;
}

void virtio_blk_bounced_drop(VirtIOBlock *s, VirtIOBlkQueue *q)
{
    VirtIOBlkBounce *b, *next;

    QLIST_FOREACH_SAFE(b, &s->bounced, link, next) {
        VirtIOBlkQueue *own = b->req->queue;

        if (!q || own == q) {
            QLIST_REMOVE(b, link);
            b->dropped = true;
            qatomic_set(&own->in_flight, own->in_flight - 1);
        }
    }
}
