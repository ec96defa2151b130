/*
 * virtio-blk: the engine on top of QEMU's block layer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "internal.h"

static BdrvRequestFlags rw_flags(VirtIOBlock *s)
{
    return blk_ram_registrar_ok(&s->blk_ram_registrar) ? BDRV_REQ_REGISTERED_BUF
                                                       : 0;
}

/*
 * Reads and writes are coroutines of ours: that takes no AIOCB, and no bottom
 * half for what completes at once.
 */
static void coroutine_fn single_entry(void *opaque)
{
    VirtIOBlockReq *req = opaque;
    VirtIOBlock *s = req->queue->dev;
    bool is_write = req->frame.type == VIRTIO_BLK_T_OUT;
    int64_t offset = virtio_blk_req_offset(req);
    int ret;

    if (is_write) {
        ret = blk_co_counted_pwritev(s->blk, offset, &req->qiov, rw_flags(s));
    } else {
        ret = blk_co_counted_preadv(s->blk, offset, &req->qiov, rw_flags(s));
    }
    virtio_blk_rw_done(req, is_write, ret);
    blk_dec_in_flight(s->blk);
}

/* Enter a coroutine for which a drain waits. */
static void start(VirtIOBlock *s, CoroutineEntry *entry, void *opaque)
{
    blk_inc_in_flight(s->blk);
    aio_co_enter(qemu_get_current_aio_context(),
                 qemu_coroutine_create(entry, opaque));
}

/* MergedIO: several requests on their way as one. */
typedef struct MergedIO {
    VirtIOBlockReq *head;
    QEMUIOVector qiov;
    bool is_write;
    struct iovec iov[];
} MergedIO;

static MergedIO *merged_new(VirtIOBlockReq *head, bool is_write, unsigned niov)
{
    MergedIO *io = g_malloc(sizeof(*io) + niov * sizeof(io->iov[0]));

    io->head = head;
    io->is_write = is_write;
    virtio_blk_merged_iov(head, io->iov, niov);
    qemu_iovec_init_external(&io->qiov, io->iov, niov);
    return io;
}

static void merged_done(MergedIO *io, int ret)
{
    VirtIOBlockReq *next;

    for (VirtIOBlockReq *req = io->head; req; req = next) {
        next = req->merged;
        req->merged = NULL;
        if (ret) {
            /* One bad sector must not fail its neighbours: try one by one. */
            start(req->queue->dev, single_entry, req);
        } else {
            virtio_blk_rw_done(req, io->is_write, 0);
        }
    }
}

static void coroutine_fn merged_entry(void *opaque)
{
    g_autofree MergedIO *io = opaque;
    VirtIOBlock *s = io->head->queue->dev;
    int64_t offset = virtio_blk_req_offset(io->head);
    int ret;

    if (io->is_write) {
        ret = blk_co_counted_pwritev(s->blk, offset, &io->qiov, rw_flags(s));
    } else {
        ret = blk_co_counted_preadv(s->blk, offset, &io->qiov, rw_flags(s));
    }
    merged_done(io, ret);
    blk_dec_in_flight(s->blk);
}

static void engine_block_rw(VirtIOBlockReq *head, bool is_write, unsigned niov)
{
    VirtIOBlock *s = head->queue->dev;

    if (head->merged) {
        start(s, merged_entry, merged_new(head, is_write, niov));
    } else {
        start(s, single_entry, head);
    }
}

const VirtIOBlkEngine virtio_blk_engine_block = {
    .name = "block",
    .rw = engine_block_rw,
};
