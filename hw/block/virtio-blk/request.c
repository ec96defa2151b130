/*
 * virtio-blk: a request from the ring to its handler and back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio-access.h"
#include "qemu/main-loop.h"
#include "system/dma.h"
#include "internal.h"
#include "trace.h"
#include "wire.h"

typedef void RequestHandler(VirtIOBlockReq *req);

/*
 * Types other than IN and OUT.  5 and 3 are FLUSH and SCSI_CMD with the
 * direction bit, which legacy drivers set (VIRTIO 1.4, 5.2.6.4).
 */
static RequestHandler *const handlers[] = {
    [VIRTIO_BLK_T_SCSI_CMD] = virtio_blk_cmd_scsi,
    [VIRTIO_BLK_T_SCSI_CMD | VIRTIO_BLK_T_OUT] = virtio_blk_cmd_scsi,
    [VIRTIO_BLK_T_FLUSH] = virtio_blk_cmd_flush,
    [VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_OUT] = virtio_blk_cmd_flush,
    [VIRTIO_BLK_T_GET_ID] = virtio_blk_cmd_get_id,
    [VIRTIO_BLK_T_GET_LIFETIME] = virtio_blk_cmd_get_lifetime,
    [VIRTIO_BLK_T_DISCARD] = virtio_blk_cmd_discard,
    [VIRTIO_BLK_T_WRITE_ZEROES] = virtio_blk_cmd_write_zeroes,
    [VIRTIO_BLK_T_SECURE_ERASE] = virtio_blk_cmd_secure_erase,
    [VIRTIO_BLK_T_ZONE_APPEND] = virtio_blk_cmd_zone_append,
    [VIRTIO_BLK_T_ZONE_REPORT] = virtio_blk_cmd_zone_report,
    [VIRTIO_BLK_T_ZONE_OPEN] = virtio_blk_cmd_zone_mgmt,
    [VIRTIO_BLK_T_ZONE_CLOSE] = virtio_blk_cmd_zone_mgmt,
    [VIRTIO_BLK_T_ZONE_FINISH] = virtio_blk_cmd_zone_mgmt,
    [VIRTIO_BLK_T_ZONE_RESET] = virtio_blk_cmd_zone_mgmt,
    [VIRTIO_BLK_T_ZONE_RESET_ALL] = virtio_blk_cmd_zone_mgmt,
};

bool virtio_blk_big_endian(VirtIOBlock *s)
{
    return virtio_access_is_big_endian(virtio_blk_vdev(s));
}

uint64_t virtio_blk_capacity(VirtIOBlock *s)
{
    uint64_t sectors;

    blk_get_geometry(s->blk, &sectors);
    return sectors;
}

uint32_t virtio_blk_block_sectors(VirtIOBlock *s)
{
    return s->conf.conf.logical_block_size >> BDRV_SECTOR_BITS;
}

/*
 * The status byte lies behind payload that was not all written.  The ring code
 * marks dirty, and copies back from bounce buffers, only what the used length
 * covers, so the descriptor with the status byte must be unmapped in full
 * here: or a migrating guest would lose the byte.
 */
static void unmap_status(VirtIOBlockReq *req)
{
    VirtQueueElement *elem = &req->elem;
    struct iovec *last = &elem->in_sg[elem->in_num - 1];

    dma_memory_unmap(virtio_blk_vdev(req->queue->dev)->dma_as,
                     last->iov_base, last->iov_len,
                     DMA_DIRECTION_FROM_DEVICE, last->iov_len);
    elem->in_num--;
}

void virtio_blk_req_finish(VirtIOBlockReq *req, uint8_t status,
                           size_t written)
{
    VirtIODevice *vdev = virtio_blk_vdev(req->queue->dev);
    VirtIOBlkFrame *frame = &req->frame;

    trace_virtio_blk_req_complete(vdev, req, status);

    *frame->status = status;
    if (written < frame->in_len) {
        /*
         * The length counts the status byte, and a driver may take it for a
         * prefix: make one more byte of the prefix defined.
         */
        iov_memset(frame->in, frame->in_num, written, 0, 1);
    }
    if (unlikely(virtio_blk_req_bounced(req))) {
        virtio_blk_req_finish_bounced(req, written);
        return;
    }
    if (written < frame->in_len) {
        unmap_status(req);
    }
    virtio_blk_req_push(req, written);
}

void virtio_blk_req_complete(VirtIOBlockReq *req, uint8_t status)
{
    virtio_blk_req_finish(req, status, 0);
}

void virtio_blk_req_drop(VirtIOBlockReq *req)
{
    VirtQueue *vq = req->queue->vq;

    virtqueue_detach_element(vq, &req->elem, 0);
    virtio_blk_frame_destroy(&req->frame);
    virtqueue_recycle(vq, &req->elem);
}

void virtio_blk_rw_settle(VirtIOBlockReq *req, bool is_write, int ret)
{
    if (ret && virtio_blk_req_failed(req, !is_write, -ret)) {
        return;
    }
    req->account = true;
    virtio_blk_req_finish(req, VIRTIO_BLK_S_OK,
                          is_write ? 0 : req->frame.in_len);
}

void virtio_blk_rw_done(VirtIOBlockReq *req, bool is_write, int ret)
{
    VirtIOBlock *s = req->queue->dev;

    trace_virtio_blk_rw_complete(virtio_blk_vdev(s), req, ret);
    if (unlikely(ret) && virtio_blk_zones_used(s)) {
        virtio_blk_zoned_rw_failed(req, is_write, ret);
    } else {
        virtio_blk_rw_settle(req, is_write, ret);
    }
}

void virtio_blk_merged_iov(VirtIOBlockReq *head, struct iovec *iov,
                           unsigned niov)
{
    unsigned n = 0;

    for (VirtIOBlockReq *req = head; req; req = req->merged) {
        memcpy(&iov[n], req->qiov.iov, req->qiov.niov * sizeof(iov[0]));
        n += req->qiov.niov;
    }
    assert(n == niov);
}

/* Chain items [start, start + n) of @batch; returns their memory segments. */
static unsigned batch_chain(VirtIOBlock *s, const VirtIOBlkBatch *batch,
                            unsigned start, unsigned n)
{
    const VirtIOBlkBatchItem *first = &batch->item[start];
    const VirtIOBlkBatchItem *last = first + n - 1;
    unsigned niov = first->niov;

    if (n == 1) {
        return niov;
    }
    for (const VirtIOBlkBatchItem *item = first + 1; item <= last; item++) {
        VirtIOBlockReq *prev = item[-1].opaque;

        prev->merged = item->opaque;
        niov += item->niov;
    }
    trace_virtio_blk_submit_multireq(virtio_blk_vdev(s), (void *)batch, start,
                                     n, first->offset,
                                     last->offset + last->bytes -
                                     first->offset, batch->is_write);
    block_acct_merge_done(blk_get_stats(s->blk),
                          batch->is_write ? BLOCK_ACCT_WRITE
                                          : BLOCK_ACCT_READ, n - 1);
    return niov;
}

void virtio_blk_batch_submit(VirtIOBlkQueue *q, VirtIOBlkBatch *batch)
{
    VirtIOBlock *s = q->dev;
    const VirtIOBlkEngine *engine;
    VirtIOBlkBatchLimits limits = {};
    unsigned n;

    if (!batch->num) {
        return;
    }
    engine = virtio_blk_engine_enter(q);
    /* Without a medium there are no limits to ask for, and nothing merges. */
    if (batch->num > 1 && blk_bs(s->blk)) {
        limits.max_bytes = blk_get_max_transfer(s->blk);
        limits.max_iov = blk_get_max_iov(s->blk);
        virtio_blk_batch_order(batch);
    }
    for (unsigned start = 0; start < batch->num; start += n) {
        unsigned niov;

        n = virtio_blk_batch_run(batch, start, &limits);
        niov = batch_chain(s, batch, start, n);
        engine->rw(batch->item[start].opaque, batch->is_write, niov);
    }
    virtio_blk_batch_init(batch);
    virtio_blk_engine_leave(engine, q);
}

/* Why a read or write can't run, or VIRTIO_BLK_S_OK. */
static uint8_t rw_check(VirtIOBlockReq *req, bool is_write)
{
    VirtIOBlock *s = req->queue->dev;
    uint8_t status = VIRTIO_BLK_S_OK;

    /* VIRTIO 1.4, 5.2.6.2: a write to a read-only device fails, always. */
    if (is_write && !blk_is_writable(s->blk)) {
        return VIRTIO_BLK_S_IOERR;
    }
    if (virtio_blk_zones_used(s)) {
        status = virtio_blk_zoned_rw_check(req, req->qiov.size);
    }
    if (status == VIRTIO_BLK_S_OK &&
        !virtio_blk_rw_range_ok(req->frame.sector, req->qiov.size,
                                virtio_blk_capacity(s),
                                virtio_blk_block_sectors(s))) {
        status = VIRTIO_BLK_S_IOERR;
    }
    return status;
}

static void request_rw(VirtIOBlockReq *req, bool is_write,
                       VirtIOBlkBatch *batch)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkFrame *frame = &req->frame;
    enum BlockAcctType type = is_write ? BLOCK_ACCT_WRITE : BLOCK_ACCT_READ;
    uint8_t status;

    if (is_write) {
        qemu_iovec_init_external(&req->qiov, frame->out, frame->out_num);
        trace_virtio_blk_handle_write(virtio_blk_vdev(s), req, frame->sector,
                                      frame->out_len >> BDRV_SECTOR_BITS);
    } else {
        qemu_iovec_init_external(&req->qiov, frame->in, frame->in_num);
        trace_virtio_blk_handle_read(virtio_blk_vdev(s), req, frame->sector,
                                     frame->in_len >> BDRV_SECTOR_BITS);
    }

    status = rw_check(req, is_write);
    if (status != VIRTIO_BLK_S_OK) {
        block_acct_invalid(blk_get_stats(s->blk), type);
        virtio_blk_req_complete(req, status);
        return;
    }

    if (!virtio_blk_batch_accepts(batch, is_write) ||
        (batch->num && (!s->conf.request_merging ||
                        virtio_blk_zones_used(s)))) {
        /* A merged write must not reach over the end of a zone. */
        virtio_blk_batch_submit(req->queue, batch);
    }
    if (!batch->num) {
        req->queue->batch_ns = block_acct_clock_ns();
    }
    block_acct_start_at(&req->acct, req->qiov.size, type,
                        req->queue->batch_ns);
    virtio_blk_batch_add(batch, is_write, frame->sector << BDRV_SECTOR_BITS,
                         req->qiov.size, req->qiov.niov, req);
}

static void request_other(VirtIOBlockReq *req, VirtIOBlkBatch *batch)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkClass *vbk = VIRTIO_BLK_GET_CLASS(s);
    uint32_t type = req->frame.type;

    if (type < ARRAY_SIZE(handlers) && handlers[type]) {
        /*
         * Reads and writes that came first go down first.  The specification
         * does not ask for it; drivers of old may rely on it for a flush.
         */
        virtio_blk_batch_submit(req->queue, batch);
        handlers[type](req);
    } else if (!vbk->handle_unknown_request ||
               !vbk->handle_unknown_request(req, type)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_UNSUPP);
    }
}

bool virtio_blk_request_start(VirtIOBlockReq *req, VirtIOBlkBatch *batch)
{
    VirtIOBlock *s = req->queue->dev;
    VirtQueueElement *elem = &req->elem;
    const char *wrong;

    wrong = virtio_blk_frame_parse(&req->frame, elem->out_sg, elem->out_num,
                                   elem->in_sg, elem->in_num,
                                   virtio_blk_big_endian(s));
    if (wrong) {
        virtio_error(virtio_blk_vdev(s), "virtio-blk %s", wrong);
        return false;
    }

    switch (req->frame.type) {
    case VIRTIO_BLK_T_IN:
        request_rw(req, false, batch);
        break;
    case VIRTIO_BLK_T_OUT:
        request_rw(req, true, batch);
        break;
    default:
        request_other(req, batch);
        break;
    }
    return true;
}
