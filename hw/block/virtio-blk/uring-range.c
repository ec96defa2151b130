/*
 * virtio-blk: discard and write zeroes by io_uring
 *
 * Of a file, not of a device, whose ioctls io_uring does not have.  After any
 * error the block layer does it again, in its own way.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/falloc.h>
#include "block/block_int.h"
#include "uring.h"
#include "trace.h"

/* RangeIO: one segment on its way. */
typedef struct RangeIO {
    VirtIOBlkUringOp op;
    VirtIOBlockReq *req;
    VirtIOBlkRangeKind kind;
    int mode;                           /* of fallocate() */
    int64_t offset;
    int64_t bytes;
} RangeIO;

#define PUNCH   (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO    (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

/* How the file does it, or 0. */
static int mode_of(VirtIOBlock *s, VirtIOBlkRangeKind kind)
{
    const VirtIOBlkPlain *plain = s->plain;

    if (!plain->regular) {
        return 0;
    }
    if (kind == VIRTIO_BLK_RANGE_DISCARD && !plain->unmap) {
        /* Nothing is to happen; the block layer is quick at that. */
        return 0;
    }
    if (kind != VIRTIO_BLK_RANGE_DISCARD && virtio_blk_uring_syncs(s)) {
        /* A flush has to follow. */
        return 0;
    }
    if (kind != VIRTIO_BLK_RANGE_ZERO && plain->unmap) {
        return qatomic_read(&plain->no_punch) ? 0 : PUNCH;
    }
    return qatomic_read(&plain->no_zero_range) ? 0 : ZERO;
}

static void note_error(VirtIOBlkPlain *plain, int mode, int res)
{
    bool *missing = mode == PUNCH ? &plain->no_punch : &plain->no_zero_range;

    if (res == -EOPNOTSUPP || res == -EINVAL) {
        qatomic_set(missing, true);
    }
}

static void range_ended(VirtIOBlkUringOp *op, VirtIOBlkQueue *q, int res,
                        bool tried)
{
    g_autofree RangeIO *io = container_of(op, RangeIO, op);
    VirtIOBlkPlain *plain = q->dev->plain;

    trace_virtio_blk_engine_range(virtio_blk_vdev(q->dev), io->req, io->mode,
                                  io->offset, io->bytes, res);
    if (res < 0) {
        if (tried) {
            note_error(plain, io->mode, res);
        }
        virtio_blk_range_by_block(io->req, io->kind, io->offset, io->bytes);
        return;
    }
    virtio_blk_plain_discarded(plain, io->offset, io->bytes);
    if (io->kind == VIRTIO_BLK_RANGE_DISCARD) {
        bdrv_posix_discard_done(virtio_blk_plain_file(plain), io->bytes);
    } else {
        virtio_blk_plain_written(plain, io->offset, io->bytes);
    }
    virtio_blk_range_done(io->req, 0);
}

bool virtio_blk_uring_range(VirtIOBlockReq *req, VirtIOBlkRangeKind kind,
                            int64_t offset, int64_t bytes)
{
    VirtIOBlkQueue *q = req->queue;
    VirtIOBlock *s = q->dev;
    int mode = mode_of(s, kind);
    struct io_uring_sqe *sqe;
    RangeIO *io;

    if (!mode || !bytes || bytes > s->plain->size ||
        offset > s->plain->size - bytes) {
        return false;
    }
    sqe = virtio_blk_uring_sqe(q->uring);
    if (!sqe) {
        return false;
    }
    io = g_new(RangeIO, 1);
    *io = (RangeIO) {
        .op.ended = range_ended,
        .req = req,
        .kind = kind,
        .mode = mode,
        .offset = offset,
        .bytes = bytes,
    };
    io_uring_prep_fallocate(sqe, 0, mode, offset, bytes);
    virtio_blk_uring_op(q->uring, sqe, &io->op);
    if (kind != VIRTIO_BLK_RANGE_DISCARD) {
        virtio_blk_plain_will_write(s->plain, offset, bytes);
    }
    return true;
}
