/*
 * virtio-blk: flushes by io_uring
 *
 * VIRTIO 1.4, 5.2.6.2: a flush must put on the disk what was written by the
 * requests that ended before it was made available.  An fsync does so when it
 * starts after the flush came.
 *
 * What an fsync that fails leaves behind is never known, and a second one may
 * find nothing wrong.  So its error is the flush's, the block layer does not
 * try again, and is told that it can't either.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "uring.h"
#include "trace.h"

static void answer(VirtIOBlockReq *head, int ret)
{
    VirtIOBlockReq *next;

    for (VirtIOBlockReq *req = head; req; req = next) {
        next = req->merged;
        req->merged = NULL;
        virtio_blk_flush_done(req, ret);
    }
}

/* The block layer waits for a flush of others, and knows who needs none. */
static void pass_on(VirtIOBlockReq *head)
{
    VirtIOBlockReq *next;

    for (VirtIOBlockReq *req = head; req; req = next) {
        next = req->merged;
        req->merged = NULL;
        virtio_blk_flush_by_block(req);
    }
}

static void fsync_ended(VirtIOBlkUringOp *op, VirtIOBlkQueue *q, int res,
                        bool tried);

/*
 * Start an fsync for @head and those behind it; false: the block layer has to
 * wait for that of somebody else, or to fail them.
 */
static bool start(VirtIOBlkQueue *q, VirtIOBlockReq *head)
{
    BlockDriverState *bs = virtio_blk_plain_file(q->dev->plain);
    VirtIOBlkUringFlush *f = &q->uring->flush;
    struct io_uring_sqe *sqe;
    int ret = bdrv_bypass_flush_begin(bs, &f->gen);

    if (ret == -EALREADY) {
        answer(head, 0);
        return true;
    }
    if (ret < 0) {
        return false;
    }
    /* Looked at here, where no other flush runs, as well as in enter(). */
    sqe = bdrv_posix_flush_error(bs) ? NULL : virtio_blk_uring_sqe(q->uring);
    if (!sqe) {
        bdrv_bypass_flush_end(bs, f->gen, -EIO);
        return false;
    }
    io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
    f->op.ended = fsync_ended;
    f->running = head;
    virtio_blk_uring_op(q->uring, sqe, &f->op);
    return true;
}

static void fsync_ended(VirtIOBlkUringOp *op, VirtIOBlkQueue *q, int res,
                        bool tried)
{
    VirtIOBlkUringFlush *f = container_of(op, VirtIOBlkUringFlush, op);
    BlockDriverState *bs = virtio_blk_plain_file(q->dev->plain);
    VirtIOBlockReq *head = f->running, *waiting = f->waiting;
    bool others;

    f->running = NULL;
    f->waiting = NULL;
    if (tried && res < 0) {
        bdrv_posix_flush_failed(bs, -res);
    }
    others = bdrv_bypass_flush_end(bs, f->gen, res);
    trace_virtio_blk_engine_flush(virtio_blk_vdev(q->dev), tried, res);
    if (tried) {
        answer(head, res);
    } else {
        pass_on(head);
    }
    if (waiting) {
        /* Those of other threads have their turn. */
        if (others || !start(q, waiting)) {
            pass_on(waiting);
        }
        virtio_blk_engine_inactive(q);
    }
}

bool virtio_blk_uring_flush(VirtIOBlockReq *req)
{
    VirtIOBlkQueue *q = req->queue;
    VirtIOBlkUringFlush *f = &q->uring->flush;

    if (q->dev->plain->no_flush) {
        return false;
    }
    if (!f->running) {
        return start(q, req);
    }
    /* What runs may have begun before the last write ended. */
    if (!f->waiting) {
        qatomic_set(&q->fast_active, q->fast_active + 1);
    }
    req->merged = f->waiting;
    f->waiting = req;
    return true;
}
