/*
 * virtio-blk: the ring of a queue, for the parts of the io_uring engine
 *
 * All of it is called in the queue's thread, between the engine's enter() and
 * leave() or while it ends a request.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_URING_H
#define HW_BLOCK_VIRTIO_BLK_URING_H

#include <liburing.h>
#include "system/block-backend.h"
#include "internal.h"
#include "pinned.h"

typedef struct VirtIOBlkUringOp VirtIOBlkUringOp;

/* VirtIOBlkUringOp: what is neither a read nor a write, on its way. */
struct VirtIOBlkUringOp {
    /*
     * It ended with @res, 0 or a negative errno.  @tried: the kernel had it,
     * else it never will.
     */
    void (*ended)(VirtIOBlkUringOp *op, VirtIOBlkQueue *q, int res,
                  bool tried);
};

/*
 * VirtIOBlkUringFlush: the flushes of a queue.  One fsync runs at a time; those
 * that come meanwhile share the next one.
 */
typedef struct VirtIOBlkUringFlush {
    VirtIOBlkUringOp op;
    VirtIOBlockReq *running;    /* the fsync answers these, linked by merged */
    VirtIOBlockReq *waiting;    /* the next one will, likewise */
    int gen;                    /* of bdrv_bypass_flush_begin() */
} VirtIOBlkUringFlush;

/* VirtIOBlkUring: the ring of a queue.  Belongs to the queue's thread. */
struct VirtIOBlkUring {
    struct io_uring ring;
    VirtIOBlkQueue *q;
    bool registered;            /* the node's file is file 0 of the ring */
    bool let_go;                /* unregister it when nothing is in flight */
    VirtIOBlkPins *pins;        /* registered memory, or NULL */
    VirtIOBlkUringFlush flush;
};

/*
 * virtio_blk_uring_syncs: must writes be on the disk when they end, since the
 * guest has no cache?
 */
static inline bool virtio_blk_uring_syncs(VirtIOBlock *s)
{
    return !blk_enable_write_cache(s->blk) && !s->plain->no_flush;
}

/* virtio_blk_uring_sqe: a free entry, or NULL when the ring takes no more. */
struct io_uring_sqe *virtio_blk_uring_sqe(VirtIOBlkUring *u);

/*
 * virtio_blk_uring_op: @sqe, prepared for file 0, is to end with @op, which
 * belongs to the caller again then.  Sent with the next submit.
 */
void virtio_blk_uring_op(VirtIOBlkUring *u, struct io_uring_sqe *sqe,
                         VirtIOBlkUringOp *op);

/* virtio_blk_uring_submit: hand what is prepared to the kernel. */
void virtio_blk_uring_submit(VirtIOBlkUring *u);

/* uring-flush.c and uring-range.c: functions of VirtIOBlkEngine */
bool virtio_blk_uring_flush(VirtIOBlockReq *req);
bool virtio_blk_uring_range(VirtIOBlockReq *req, VirtIOBlkRangeKind kind,
                            int64_t offset, int64_t bytes);

#endif
