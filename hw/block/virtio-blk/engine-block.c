/*
 * virtio-blk: the engine on top of QEMU's block layer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "internal.h"

static BdrvRequestFlags rw_flags(VirtIOBlock *s)
{
    return blk_ram_registrar_ok(&s->blk_ram_registrar) ? BDRV_REQ_REGISTERED_BUF
                                                       : 0;
}

static void rw_submit(VirtIOBlockReq *req, bool is_write, QEMUIOVector *qiov,
                      BlockCompletionFunc *done, void *opaque)
{
    VirtIOBlock *s = req->queue->dev;

    if (is_write) {
        blk_aio_pwritev(s->blk, virtio_blk_req_offset(req), qiov, rw_flags(s),
                        done, opaque);
    } else {
        blk_aio_preadv(s->blk, virtio_blk_req_offset(req), qiov, rw_flags(s),
                       done, opaque);
    }
}

static void read_done(void *opaque, int ret)
{
    virtio_blk_rw_done(opaque, false, ret);
}

static void write_done(void *opaque, int ret)
{
    virtio_blk_rw_done(opaque, true, ret);
}

/* MergedIO: several requests on their way as one. */
typedef struct MergedIO {
    VirtIOBlockReq *head;
    QEMUIOVector qiov;
    bool is_write;
} MergedIO;

static void merged_done(void *opaque, int ret)
{
    g_autofree MergedIO *io = opaque;
    VirtIOBlockReq *next;

    qemu_iovec_destroy(&io->qiov);
    for (VirtIOBlockReq *req = io->head; req; req = next) {
        next = req->merged;
        req->merged = NULL;
        if (ret) {
            /* One bad sector must not fail its neighbours: try one by one. */
            rw_submit(req, io->is_write, &req->qiov,
                      io->is_write ? write_done : read_done, req);
        } else {
            virtio_blk_rw_done(req, io->is_write, 0);
        }
    }
}

static void engine_block_rw(VirtIOBlockReq *head, bool is_write, unsigned niov)
{
    MergedIO *io;

    if (!head->merged) {
        rw_submit(head, is_write, &head->qiov,
                  is_write ? write_done : read_done, head);
        return;
    }

    io = g_new(MergedIO, 1);
    io->head = head;
    io->is_write = is_write;
    qemu_iovec_init(&io->qiov, niov);
    for (VirtIOBlockReq *req = head; req; req = req->merged) {
        qemu_iovec_concat(&io->qiov, &req->qiov, 0, req->qiov.size);
    }
    rw_submit(head, is_write, &io->qiov, merged_done, io);
}

static void flush_done(void *opaque, int ret)
{
    virtio_blk_flush_done(opaque, ret);
}

static void engine_block_flush(VirtIOBlockReq *req)
{
    blk_aio_flush(req->queue->dev->blk, flush_done, req);
}

static void segment_done(void *opaque, int ret)
{
    virtio_blk_segment_done(opaque, ret);
}

static void engine_block_discard(VirtIOBlockReq *req, int64_t offset,
                                 int64_t bytes)
{
    blk_aio_pdiscard(req->queue->dev->blk, offset, bytes, segment_done, req);
}

static void engine_block_write_zeroes(VirtIOBlockReq *req, int64_t offset,
                                      int64_t bytes, bool may_unmap)
{
    blk_aio_pwrite_zeroes(req->queue->dev->blk, offset, bytes,
                          may_unmap ? BDRV_REQ_MAY_UNMAP : 0,
                          segment_done, req);
}

const VirtIOBlkEngine virtio_blk_engine_block = {
    .name = "block",
    .rw = engine_block_rw,
    .flush = engine_block_flush,
    .discard = engine_block_discard,
    .write_zeroes = engine_block_write_zeroes,
};
