/*
 * virtio-blk: flush, device ID, discard, write zeroes, secure erase
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "internal.h"
#include "trace.h"
#ifdef CONFIG_LINUX
#include <linux/fs.h>
#endif

void virtio_blk_flush_done(VirtIOBlockReq *req, int ret)
{
    VirtIOBlock *s = req->queue->dev;

    if (ret && virtio_blk_req_failed(req, false, -ret)) {
        return;
    }
    block_acct_done(blk_get_stats(s->blk), &req->acct);
    virtio_blk_req_complete(req, VIRTIO_BLK_S_OK);
}

static void flush_cb(void *opaque, int ret)
{
    virtio_blk_flush_done(opaque, ret);
}

void virtio_blk_flush_by_block(VirtIOBlockReq *req)
{
    blk_aio_flush(req->queue->dev->blk, flush_cb, req);
}

void virtio_blk_cmd_flush(VirtIOBlockReq *req)
{
    VirtIOBlkQueue *q = req->queue;
    const VirtIOBlkEngine *engine;

    block_acct_start(blk_get_stats(q->dev->blk), &req->acct, 0,
                     BLOCK_ACCT_FLUSH);
    engine = virtio_blk_engine_enter(q);
    if (!engine->flush || !engine->flush(req)) {
        virtio_blk_flush_by_block(req);
    }
    virtio_blk_engine_leave(engine, q);
}

/* VIRTIO 1.4, 5.2.6: 20 bytes, padded with NUL, unterminated when full. */
void virtio_blk_cmd_get_id(VirtIOBlockReq *req)
{
    const char *serial = req->queue->dev->conf.serial;
    char id[VIRTIO_BLK_ID_BYTES] = {};
    size_t written;

    if (serial) {
        memcpy(id, serial, strnlen(serial, sizeof(id)));
    }
    written = iov_from_buf(req->frame.in, req->frame.in_num, 0,
                           id, sizeof(id));
    virtio_blk_req_finish(req, VIRTIO_BLK_S_OK, written);
}

void virtio_blk_range_done(VirtIOBlockReq *req, int ret)
{
    VirtIOBlock *s = req->queue->dev;

    if (ret && !req->ret) {
        req->ret = ret;
    }
    if (--req->pending) {
        return;
    }
    if (req->ret == -ENOTSUP &&
        req->frame.type == VIRTIO_BLK_T_SECURE_ERASE) {
        /* A filter has come on top: no medium's error, and "cont" no mend. */
        block_acct_failed(blk_get_stats(s->blk), &req->acct);
        virtio_blk_req_complete(req, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (req->ret && virtio_blk_req_failed(req, false, -req->ret)) {
        return;
    }
    block_acct_done(blk_get_stats(s->blk), &req->acct);
    virtio_blk_req_complete(req, VIRTIO_BLK_S_OK);
}

static void range_cb(void *opaque, int ret)
{
    virtio_blk_range_done(opaque, ret);
}

typedef void SegmentSubmit(VirtIOBlockReq *req, const VirtIOBlkEngine *engine,
                           const VirtIOBlkRange *range);

static int64_t range_offset(const VirtIOBlkRange *range)
{
    return range->sector << BDRV_SECTOR_BITS;
}

static int64_t range_bytes(const VirtIOBlkRange *range)
{
    return (int64_t)range->num_sectors << BDRV_SECTOR_BITS;
}

static void segments_submit(VirtIOBlockReq *req, const VirtIOBlkRange *ranges,
                            unsigned num, SegmentSubmit *submit)
{
    VirtIOBlkQueue *q = req->queue;
    const VirtIOBlkEngine *engine = virtio_blk_engine_enter(q);

    /* The request may be gone with the last of them. */
    for (unsigned i = 0; i < num; i++) {
        submit(req, engine, &ranges[i]);
    }
    virtio_blk_engine_leave(engine, q);
}

/*
 * Check all segments, then run all of them side by side; the request ends
 * when the last one does.
 */
static void segments_run(VirtIOBlockReq *req,
                         const VirtIOBlkRangeLimits *limits,
                         enum BlockAcctType acct_type, SegmentSubmit *submit)
{
    VirtIOBlock *s = req->queue->dev;
    g_autofree VirtIOBlkRange *ranges = NULL;
    int64_t bytes = 0;
    uint8_t status;
    unsigned num;

    status = virtio_blk_ranges_parse(&req->frame, limits,
                                     virtio_blk_big_endian(s), &ranges, &num);
    if (status == VIRTIO_BLK_S_OK && !blk_is_writable(s->blk)) {
        status = VIRTIO_BLK_S_IOERR;
    }
    if (status != VIRTIO_BLK_S_OK) {
        block_acct_invalid(blk_get_stats(s->blk), acct_type);
        virtio_blk_req_complete(req, status);
        return;
    }

    for (unsigned i = 0; i < num; i++) {
        bytes += range_bytes(&ranges[i]);
    }
    block_acct_start(blk_get_stats(s->blk), &req->acct, bytes, acct_type);
    req->ret = 0;
    req->pending = num;
    segments_submit(req, ranges, num, submit);
}

static VirtIOBlkRangeLimits range_limits(VirtIOBlock *s, uint32_t max_sectors,
                                         uint32_t max_segments,
                                         uint32_t known_flags)
{
    return (VirtIOBlkRangeLimits) {
        .capacity = virtio_blk_capacity(s),
        .max_sectors = max_sectors,
        .max_segments = max_segments,
        .block_sectors = virtio_blk_block_sectors(s),
        .known_flags = known_flags,
    };
}

void virtio_blk_range_by_block(VirtIOBlockReq *req, VirtIOBlkRangeKind kind,
                               int64_t offset, int64_t bytes)
{
    BlockBackend *blk = req->queue->dev->blk;

    if (kind == VIRTIO_BLK_RANGE_DISCARD) {
        blk_aio_pdiscard(blk, offset, bytes, range_cb, req);
    } else {
        blk_aio_pwrite_zeroes(blk, offset, bytes,
                              kind == VIRTIO_BLK_RANGE_ZERO_UNMAP
                              ? BDRV_REQ_MAY_UNMAP : 0, range_cb, req);
    }
}

static void range_submit(VirtIOBlockReq *req, const VirtIOBlkEngine *engine,
                         VirtIOBlkRangeKind kind, const VirtIOBlkRange *range)
{
    int64_t offset = range_offset(range), bytes = range_bytes(range);

    if (!engine->range || !engine->range(req, kind, offset, bytes)) {
        virtio_blk_range_by_block(req, kind, offset, bytes);
    }
}

static void discard_submit(VirtIOBlockReq *req, const VirtIOBlkEngine *engine,
                           const VirtIOBlkRange *range)
{
    range_submit(req, engine, VIRTIO_BLK_RANGE_DISCARD, range);
}

void virtio_blk_cmd_discard(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    /* VIRTIO 1.4, 5.2.6.2: the unmap flag is not for discard. */
    VirtIOBlkRangeLimits limits =
        range_limits(s, s->conf.max_discard_sectors,
                     s->conf.max_discard_segments, 0);

    segments_run(req, &limits, BLOCK_ACCT_UNMAP, discard_submit);
}

static void write_zeroes_submit(VirtIOBlockReq *req,
                                const VirtIOBlkEngine *engine,
                                const VirtIOBlkRange *range)
{
    VirtIOBlock *s = req->queue->dev;
    bool unmap = range->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

    /* Whoever says that nothing is deallocated must see to it. */
    if (s->conf.write_zeroes_may_unmap == ON_OFF_AUTO_OFF) {
        unmap = false;
    }
    range_submit(req, engine, unmap ? VIRTIO_BLK_RANGE_ZERO_UNMAP
                                    : VIRTIO_BLK_RANGE_ZERO, range);
}

void virtio_blk_cmd_write_zeroes(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkRangeLimits limits =
        range_limits(s, s->conf.max_write_zeroes_sectors,
                     s->conf.max_write_zeroes_segments,
                     VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);

    segments_run(req, &limits, BLOCK_ACCT_WRITE, write_zeroes_submit);
}

#ifdef BLKSECDISCARD

/* EraseIO: one segment on its way through ioctl(BLKSECDISCARD). */
typedef struct EraseIO {
    VirtIOBlockReq *req;
    uint64_t range[2];                  /* byte offset and length */
} EraseIO;

static void erase_done(void *opaque, int ret)
{
    g_autofree EraseIO *io = opaque;
    BlockDriverState *bs = blk_bs(io->req->queue->dev->blk);

    /*
     * The ioctl passes the block layer by, but dirty bitmaps must know: also
     * of what failed, since a part may have been erased.
     */
    if (bs) {
        bdrv_set_dirty(bs, io->range[0], io->range[1]);
    }
    virtio_blk_range_done(io->req, ret);
}

static void erase_submit(VirtIOBlockReq *req, const VirtIOBlkEngine *engine,
                         const VirtIOBlkRange *range)
{
    EraseIO *io;

    if (!range->num_sectors) {
        /* Linux would drop all cached pages of the disk, the dirty as well. */
        virtio_blk_range_done(req, 0);
        return;
    }
    io = g_new(EraseIO, 1);
    io->req = req;
    io->range[0] = range_offset(range);
    io->range[1] = range_bytes(range);
    blk_aio_ioctl(req->queue->dev->blk, BLKSECDISCARD, io->range,
                  erase_done, io);
}

bool virtio_blk_secure_erase_check(VirtIOBlock *s, Error **errp)
{
    /*
     * Linux looks whether the medium can, and then at the alignment.  (Before
     * 5.19 it looks whether it can discard; what it can't will be UNSUPP.)  An
     * empty aligned range would make it drop the cached pages of the disk.
     */
    uint64_t misaligned[2] = { 1, 1 };
    int ret = blk_ioctl(s->blk, BLKSECDISCARD, misaligned);

    if (ret == -EINVAL) {
        return true;
    }
    error_setg_errno(errp, -ret, "secure-erase=on needs a host_device whose "
                     "medium can erase securely; use secure-erase=off");
    return false;
}

#else

static void erase_submit(VirtIOBlockReq *req, const VirtIOBlkEngine *engine,
                         const VirtIOBlkRange *range)
{
    virtio_blk_range_done(req, -ENOTSUP);
}

bool virtio_blk_secure_erase_check(VirtIOBlock *s, Error **errp)
{
    error_setg(errp, "secure-erase=on is not available on this host; "
               "use secure-erase=off");
    return false;
}

#endif

void virtio_blk_cmd_secure_erase(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkRangeLimits limits =
        range_limits(s, s->conf.max_secure_erase_sectors,
                     s->conf.max_secure_erase_segments, 0);

    if (!s->conf.secure_erase) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    segments_run(req, &limits, BLOCK_ACCT_UNMAP, erase_submit);
}
