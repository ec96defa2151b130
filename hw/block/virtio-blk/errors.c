/*
 * virtio-blk: error policy, parked requests and their restart
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "qemu/defer-call.h"
#include "qemu/lockable.h"
#include "system/runstate.h"
#include "internal.h"

static void req_park(VirtIOBlockReq *req)
{
    VirtIOBlkQueue *q = req->queue;
    VirtIOBlock *s = q->dev;

    /* It is parsed anew when it starts again, here or on another host. */
    virtio_blk_frame_destroy(&req->frame);
    WITH_QEMU_LOCK_GUARD(&s->stopped_lock) {
        QSIMPLEQ_INSERT_TAIL(&s->stopped, req, stopped_link);
    }
    virtio_blk_queue_left(q, 1);
}

bool virtio_blk_req_failed(VirtIOBlockReq *req, bool is_read, int error)
{
    VirtIOBlock *s = req->queue->dev;
    BlockErrorAction action = blk_get_error_action(s->blk, is_read, error);

    if (action == BLOCK_ERROR_ACTION_STOP) {
        /* Before the VM is told to stop, so that "cont" finds it. */
        req_park(req);
    }
    blk_error_action(s->blk, action, is_read, error);
    if (action == BLOCK_ERROR_ACTION_REPORT) {
        block_acct_failed(blk_get_stats(s->blk), &req->acct);
        virtio_blk_req_complete(req, VIRTIO_BLK_S_IOERR);
    }
    return action != BLOCK_ERROR_ACTION_IGNORE;
}

/* Restart: the parked requests of one queue on the way to its thread. */
typedef struct Restart {
    VirtIOBlkQueue *queue;
    VirtIOBlkStoppedList list;
} Restart;

static void restart_bh(void *opaque)
{
    g_autofree Restart *restart = opaque;
    VirtIOBlkQueue *q = restart->queue;
    VirtIOBlock *s = q->dev;
    VIRTIO_BLK_NO_CLEAR VirtIOBlkBatch batch;
    VirtIOBlockReq *req;
    bool ok = true;

    virtio_blk_batch_init(&batch);
    defer_call_begin();
    while ((req = QSIMPLEQ_FIRST(&restart->list))) {
        QSIMPLEQ_REMOVE_HEAD(&restart->list, stopped_link);
        if (ok) {
            qatomic_set(&q->in_flight, q->in_flight + 1);
            ok = virtio_blk_request_start(req, &batch);
            if (ok) {
                continue;
            }
            virtio_blk_queue_left(q, 1);
        }
        /* The device is broken: only a reset can follow. */
        virtio_blk_req_drop(req);
    }
    virtio_blk_batch_submit(q, &batch);
    defer_call_end();

    /* Paired with the one in restart_queue(). */
    blk_dec_in_flight(s->blk);
}

/* Move what is parked for @q to @list, in order.  With stopped_lock. */
static void take_queue(VirtIOBlock *s, VirtIOBlkQueue *q,
                       VirtIOBlkStoppedList *list)
{
    VirtIOBlockReq *req, *next;

    QSIMPLEQ_INIT(list);
    QSIMPLEQ_FOREACH_SAFE(req, &s->stopped, stopped_link, next) {
        if (req->queue == q) {
            QSIMPLEQ_REMOVE(&s->stopped, req, VirtIOBlockReq, stopped_link);
            QSIMPLEQ_INSERT_TAIL(list, req, stopped_link);
        }
    }
}

static void restart_queue(VirtIOBlkQueue *q)
{
    VirtIOBlock *s = q->dev;
    Restart *restart = g_new(Restart, 1);

    restart->queue = q;
    WITH_QEMU_LOCK_GUARD(&s->stopped_lock) {
        take_queue(s, q, &restart->list);
    }
    if (QSIMPLEQ_EMPTY(&restart->list)) {
        g_free(restart);
        return;
    }

    /* A drain, and so a reset, waits for the bottom half and what it starts. */
    blk_inc_in_flight(s->blk);
    aio_bh_schedule_oneshot(q->ctx, restart_bh, restart);
}

void virtio_blk_vm_change(void *opaque, bool running, RunState state)
{
    VirtIOBlock *s = opaque;

    if (!running) {
        /*
         * What is left for the drain of all disks that comes next may end with
         * work that the drain holds back, and that would run after it.  No
         * drain of ours without need: each one pauses the disk's block jobs.
         */
        if (virtio_blk_queues_busy(s, NULL)) {
            virtio_blk_wait_idle(s, NULL);
        }
        return;
    }
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        restart_queue(&s->queues[i]);
    }
    virtio_blk_queues_resume(s);
}

static void drop_queue(VirtIOBlkQueue *q)
{
    VirtIOBlock *s = q->dev;
    VirtIOBlkStoppedList list;
    VirtIOBlockReq *req;

    WITH_QEMU_LOCK_GUARD(&s->stopped_lock) {
        take_queue(s, q, &list);
    }
    while ((req = QSIMPLEQ_FIRST(&list))) {
        QSIMPLEQ_REMOVE_HEAD(&list, stopped_link);
        virtio_blk_req_drop(req);
    }
}

void virtio_blk_stopped_drop(VirtIOBlock *s, VirtIOBlkQueue *q)
{
    if (q) {
        drop_queue(q);
        return;
    }
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        drop_queue(&s->queues[i]);
    }
}
