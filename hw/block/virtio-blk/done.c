/*
 * virtio-blk: giving requests back to the driver, several at a time
 *
 * What ends in one round of the event loop shares a write of the used index, a
 * look at whether the driver wants an interrupt, and a turn at the statistics.
 * Each of these costs more than the rest of giving a request back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/defer-call.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "internal.h"

/* Before the driver hears of the requests, who may look at the statistics. */
static void done_account(VirtIOBlkQueue *q, unsigned num)
{
    VIRTIO_BLK_NO_CLEAR BlockAcctCookie *cookie[VIRTIO_BLK_BATCH_MAX];
    unsigned n = 0;

    for (unsigned i = 0; i < num; i++) {
        if (q->done[i]->account) {
            cookie[n++] = &q->done[i]->acct;
        }
    }
    if (n) {
        block_acct_done_many(blk_get_stats(q->dev->blk), cookie, n);
    }
}

static void done_push(VirtIOBlkQueue *q, unsigned num)
{
    WITH_RCU_READ_LOCK_GUARD() {
        for (unsigned i = 0; i < num; i++) {
            VirtIOBlockReq *req = q->done[i];

            virtqueue_fill(q->vq, &req->elem, req->written + 1, i);
        }
        virtqueue_flush(q->vq, num);
    }
    for (unsigned i = 0; i < num; i++) {
        virtio_blk_frame_destroy(&q->done[i]->frame);
        virtqueue_recycle(q->vq, &q->done[i]->elem);
    }
    q->num_done = 0;
}

static void done_write(VirtIOBlkQueue *q)
{
    unsigned num = q->num_done;

    if (num) {
        done_account(q, num);
        done_push(q, num);
        q->num_ended += num;
        q->notify = true;
    }
}

/* They are not in flight any more; whoever waits for them may go on. */
static void done_release(VirtIOBlkQueue *q)
{
    unsigned num = q->num_ended;

    if (num) {
        q->num_ended = 0;
        blk_dec_in_flight(q->dev->blk);
        virtio_blk_queue_left(q, num);
    }
}

void virtio_blk_done_settle(VirtIOBlkQueue *q)
{
    done_write(q);
    done_release(q);
}

/* The end of the defer_call() section. */
static void done_end(void *opaque)
{
    VirtIOBlkQueue *q = opaque;
    VirtIODevice *vdev = virtio_blk_vdev(q->dev);

    done_write(q);
    if (qemu_in_iothread()) {
        /* Who waits for the requests may take the notifier away. */
        if (q->notify) {
            q->notify = false;
            virtio_notify(vdev, q->vq);
        }
        done_release(q);
        return;
    }
    done_release(q);
    /*
     * Last, when no request is on the stack any more: an interrupt may be a
     * write into the registers of any device, even a reset of this one, which
     * waits for the requests.
     */
    if (q->notify) {
        q->notify = false;
        virtio_notify(vdev, q->vq);
    }
}

void virtio_blk_req_push(VirtIOBlockReq *req, size_t written)
{
    VirtIOBlkQueue *q = req->queue;

    req->written = written;
    q->done[q->num_done++] = req;
    if (q->num_done == ARRAY_SIZE(q->done)) {
        done_write(q);
    } else if (q->num_done == 1 && !q->num_ended) {
        /* A drain, and so a migration, must find the used ring written. */
        blk_inc_in_flight(q->dev->blk);
        /* At once, unless the caller's caller says that there will be more. */
        defer_call(done_end, q);
    }
}
