/*
 * virtio-blk: zone report, zone management, zone append
 *
 * VIRTIO 1.4, 5.2.6.2.  The medium keeps the state of its zones; what it
 * answers is turned into the status that the specification names.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "hw/virtio/virtio-access.h"
#include "internal.h"
#include "trace.h"

/* Zones asked for at a time: bounds memory whatever the driver's buffer. */
#define REPORT_ZONES_MAX 1024

typedef struct virtio_blk_zone_descriptor ZoneWire;

/*
 * VIRTIO 1.4, 5.2.6.2: zones exist for a driver that negotiated ZONED; 5.2.5.3:
 * not for a legacy one.  That may take the bit when the device has both sides,
 * since the transport shows the same bits on either.
 */
bool virtio_blk_zones_used(VirtIOBlock *s)
{
    VirtIODevice *vdev = virtio_blk_vdev(s);

    return virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_ZONED) &&
           virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1);
}

/*
 * Limits of the zones that there are now, or NULL.  The driver keeps ZONED
 * when a snapshot or a block job puts a node without zones on top, and when
 * the medium is taken away.
 */
static const BlockLimits *zone_limits(VirtIOBlock *s)
{
    BlockDriverState *bs = blk_bs(s->blk);

    return bs && bs->bl.zoned != BLK_Z_NONE && bs->bl.zone_size ? &bs->bl
                                                                : NULL;
}

/* May the driver use zone commands, and are there zones to use them on? */
static bool zones_there(VirtIOBlock *s)
{
    return virtio_blk_zones_used(s) && zone_limits(s);
}

/* Status for the errno of a zone operation; 0 is fine. */
static uint8_t zone_status(int ret)
{
    switch (ret) {
    case 0:
        return VIRTIO_BLK_S_OK;
    case -ENOTSUP:
#if EOPNOTSUPP != ENOTSUP
    case -EOPNOTSUPP:
#endif
        return VIRTIO_BLK_S_UNSUPP;
    case -ETOOMANYREFS:
        return VIRTIO_BLK_S_ZONE_OPEN_RESOURCE;
    case -EOVERFLOW:
        return VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE;
    default:
        return VIRTIO_BLK_S_ZONE_INVALID_CMD;
    }
}

/* ReportIO: one zone report on its way, a part at a time. */
typedef struct ReportIO {
    VirtIOBlockReq *req;
    uint64_t wanted;            /* zones that fit into the driver's buffer */
    uint64_t done;              /* zones written to it */
    int64_t offset;             /* bytes: where the next part begins */
    unsigned num;               /* zones of the part; in and out */
    BlockZoneDescriptor zones[REPORT_ZONES_MAX];
} ReportIO;

static void report_done(void *opaque, int ret);

static void report_part(ReportIO *io)
{
    io->num = MIN(io->wanted - io->done, REPORT_ZONES_MAX);
    blk_aio_zone_report(io->req->queue->dev->blk, io->offset, &io->num,
                        io->zones, report_done, io);
}

/* Type and state have the same numbers in VIRTIO and in QEMU. */
static void report_zone(ReportIO *io, const BlockZoneDescriptor *zone)
{
    VirtIOBlkFrame *frame = &io->req->frame;
    VirtIODevice *vdev = virtio_blk_vdev(io->req->queue->dev);
    ZoneWire wire = {
        .z_type = zone->type,
        .z_state = zone->state,
    };

    virtio_stq_p(vdev, &wire.z_cap, zone->cap >> BDRV_SECTOR_BITS);
    virtio_stq_p(vdev, &wire.z_start, zone->start >> BDRV_SECTOR_BITS);
    virtio_stq_p(vdev, &wire.z_wp, zone->wp >> BDRV_SECTOR_BITS);
    iov_from_buf(frame->in, frame->in_num,
                 sizeof(struct virtio_blk_zone_report) +
                 io->done * sizeof(wire), &wire, sizeof(wire));
    io->done++;
}

static void report_finish(ReportIO *io)
{
    VirtIOBlkFrame *frame = &io->req->frame;
    VirtIODevice *vdev = virtio_blk_vdev(io->req->queue->dev);
    struct virtio_blk_zone_report header = {};

    virtio_stq_p(vdev, &header.nr_zones, io->done);
    iov_from_buf(frame->in, frame->in_num, 0, &header, sizeof(header));
    virtio_blk_req_finish(io->req, VIRTIO_BLK_S_OK,
                          sizeof(header) + io->done * sizeof(ZoneWire));
    g_free(io);
}

static void report_done(void *opaque, int ret)
{
    ReportIO *io = opaque;
    VirtIOBlock *s = io->req->queue->dev;
    BlockZoneDescriptor *last;

    trace_virtio_blk_zone_report_complete(virtio_blk_vdev(s), io->req, io->num,
                                          ret);
    if (ret) {
        virtio_blk_req_complete(io->req, zone_status(ret));
        g_free(io);
        return;
    }

    for (unsigned i = 0; i < io->num; i++) {
        report_zone(io, &io->zones[i]);
    }
    if (io->num) {
        last = &io->zones[io->num - 1];
        io->offset = last->start + last->length;
    }
    if (io->num < REPORT_ZONES_MAX || io->done == io->wanted ||
        io->offset >= virtio_blk_capacity(s) << BDRV_SECTOR_BITS) {
        report_finish(io);
    } else {
        report_part(io);
    }
}

void virtio_blk_cmd_zone_report(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    const size_t header_size = sizeof(struct virtio_blk_zone_report);
    ReportIO *io;

    if (!zones_there(s)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (req->frame.in_len < header_size + sizeof(ZoneWire) ||
        req->frame.sector >= virtio_blk_capacity(s)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_ZONE_INVALID_CMD);
        return;
    }

    io = g_new(ReportIO, 1);
    io->req = req;
    io->wanted = (req->frame.in_len - header_size) / sizeof(ZoneWire);
    io->done = 0;
    io->offset = req->frame.sector << BDRV_SECTOR_BITS;
    trace_virtio_blk_handle_zone_report(virtio_blk_vdev(s), req,
                                        req->frame.sector, io->wanted);
    report_part(io);
}

static void mgmt_done(void *opaque, int ret)
{
    VirtIOBlockReq *req = opaque;

    trace_virtio_blk_zone_mgmt_complete(virtio_blk_vdev(req->queue->dev), req,
                                        ret);
    virtio_blk_req_complete(req, zone_status(ret));
}

static BlockZoneOp mgmt_op(uint32_t type)
{
    switch (type) {
    case VIRTIO_BLK_T_ZONE_OPEN:
        return BLK_ZO_OPEN;
    case VIRTIO_BLK_T_ZONE_CLOSE:
        return BLK_ZO_CLOSE;
    case VIRTIO_BLK_T_ZONE_FINISH:
        return BLK_ZO_FINISH;
    default:
        return BLK_ZO_RESET;
    }
}

void virtio_blk_cmd_zone_mgmt(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIODevice *vdev = virtio_blk_vdev(s);
    BlockZoneOp op = mgmt_op(req->frame.type);
    uint64_t zone_sectors, sector, sectors, capacity;

    if (!zones_there(s)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (!blk_is_writable(s->blk)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_ZONE_INVALID_CMD);
        return;
    }

    capacity = virtio_blk_capacity(s);
    zone_sectors = zone_limits(s)->zone_size >> BDRV_SECTOR_BITS;
    if (req->frame.type == VIRTIO_BLK_T_ZONE_RESET_ALL) {
        sector = 0;
        sectors = capacity;
        trace_virtio_blk_handle_zone_reset_all(vdev, req, sector, sectors);
    } else {
        sector = req->frame.sector;
        if (sector >= capacity || sector % zone_sectors) {
            virtio_blk_req_complete(req, VIRTIO_BLK_S_ZONE_INVALID_CMD);
            return;
        }
        /* The last zone may be smaller (VIRTIO 1.4, 5.2.5.2). */
        sectors = MIN(zone_sectors, capacity - sector);
        trace_virtio_blk_handle_zone_mgmt(vdev, req, op, sector, sectors);
    }
    blk_aio_zone_mgmt(s->blk, op, sector << BDRV_SECTOR_BITS,
                      sectors << BDRV_SECTOR_BITS, mgmt_done, req);
}

/* AppendIO: one zone append; the block layer answers in @offset. */
typedef struct AppendIO {
    VirtIOBlockReq *req;
    int64_t offset;             /* bytes */
} AppendIO;

static void append_done(void *opaque, int ret)
{
    g_autofree AppendIO *io = opaque;
    VirtIOBlockReq *req = io->req;
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkFrame *frame = &req->frame;
    uint64_t sector = 0;

    trace_virtio_blk_zone_append_complete(virtio_blk_vdev(s), req,
                                          io->offset >> BDRV_SECTOR_BITS, ret);
    if (ret) {
        block_acct_failed(blk_get_stats(s->blk), &req->acct);
        virtio_blk_req_complete(req, zone_status(ret));
        return;
    }
    block_acct_done(blk_get_stats(s->blk), &req->acct);
    virtio_stq_p(virtio_blk_vdev(s), &sector, io->offset >> BDRV_SECTOR_BITS);
    iov_from_buf(frame->in, frame->in_num, 0, &sector, sizeof(sector));
    virtio_blk_req_finish(req, VIRTIO_BLK_S_OK, sizeof(sector));
}

/*
 * Why an append can't run, or VIRTIO_BLK_S_OK (VIRTIO 1.4, 5.2.6.2).  Whether
 * there is room behind the write pointer is known when its turn comes only: the
 * block layer looks (patch 0035).
 */
static uint8_t append_check(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkFrame *frame = &req->frame;
    const BlockLimits *bl = zone_limits(s);
    uint64_t capacity = virtio_blk_capacity(s);
    uint64_t sectors = frame->out_len >> BDRV_SECTOR_BITS;
    uint64_t zone_sectors;

    if (!zones_there(s) || !bl->max_append_sectors) {
        return VIRTIO_BLK_S_UNSUPP;
    }
    zone_sectors = bl->zone_size >> BDRV_SECTOR_BITS;
    /* Zones that need not be written in order have no append. */
    if (bl->zoned != BLK_Z_HM ||
        frame->sector >= capacity || frame->sector % zone_sectors ||
        frame->in_len < sizeof(uint64_t) || !sectors ||
        sectors > bl->max_append_sectors || sectors > zone_sectors ||
        !blk_is_writable(s->blk) ||
        !virtio_blk_rw_range_ok(frame->sector, frame->out_len, capacity,
                                virtio_blk_block_sectors(s))) {
        return VIRTIO_BLK_S_ZONE_INVALID_CMD;
    }
    return VIRTIO_BLK_S_OK;
}

void virtio_blk_cmd_zone_append(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    VirtIOBlkFrame *frame = &req->frame;
    uint8_t status;
    AppendIO *io;

    trace_virtio_blk_handle_zone_append(virtio_blk_vdev(s), req, frame->sector);
    status = append_check(req);
    if (status != VIRTIO_BLK_S_OK) {
        virtio_blk_req_complete(req, status);
        return;
    }

    io = g_new(AppendIO, 1);
    io->req = req;
    io->offset = frame->sector << BDRV_SECTOR_BITS;
    qemu_iovec_init_external(&req->qiov, frame->out, frame->out_num);
    block_acct_start(blk_get_stats(s->blk), &req->acct, frame->out_len,
                     BLOCK_ACCT_ZONE_APPEND);
    blk_aio_zone_append(s->blk, &io->offset, &req->qiov, 0, append_done, io);
}

uint8_t virtio_blk_zoned_rw_check(VirtIOBlockReq *req, uint64_t bytes)
{
    VirtIOBlock *s = req->queue->dev;
    const BlockLimits *bl = zone_limits(s);
    uint64_t capacity = virtio_blk_capacity(s);
    uint64_t sector = req->frame.sector;
    uint64_t sectors = bytes >> BDRV_SECTOR_BITS;
    uint64_t zone_sectors;

    if (!bl) {
        return VIRTIO_BLK_S_OK;
    }
    zone_sectors = bl->zone_size >> BDRV_SECTOR_BITS;
    if (sector > capacity || sectors > capacity - sector ||
        sectors > zone_sectors - sector % zone_sectors) {
        return VIRTIO_BLK_S_ZONE_INVALID_CMD;
    }
    return VIRTIO_BLK_S_OK;
}

/* ZoneProbe: looks at the zone of a failed read or write. */
typedef struct ZoneProbe {
    VirtIOBlockReq *req;
    bool is_write;
    int ret;                    /* errno of the read or write, negative */
    unsigned num;               /* zones answered, 0 or 1 */
    BlockZoneDescriptor zone;
} ZoneProbe;

/* Would the write have gone past what its zone can hold? */
static bool write_overflows(const ZoneProbe *probe)
{
    int64_t offset = probe->req->frame.sector << BDRV_SECTOR_BITS;
    const BlockZoneDescriptor *zone = &probe->zone;

    return (zone->type == BLK_ZT_SWR && zone->state == BLK_ZS_FULL) ||
           offset - zone->start + probe->req->qiov.size > zone->cap;
}

/* The driver's own fault as a status, VIRTIO_BLK_S_OK where it has none. */
static uint8_t probe_status(const ZoneProbe *probe)
{
    int64_t offset = probe->req->frame.sector << BDRV_SECTOR_BITS;
    const BlockZoneDescriptor *zone = &probe->zone;

    if (probe->ret == -ETOOMANYREFS || probe->ret == -EOVERFLOW) {
        return zone_status(probe->ret);
    }
    if (!probe->num) {
        return VIRTIO_BLK_S_OK;
    }
    if (zone->state == BLK_ZS_OFFLINE) {
        return VIRTIO_BLK_S_ZONE_INVALID_CMD;
    }
    if (!probe->is_write) {
        return VIRTIO_BLK_S_OK;
    }
    /* Capacity first: there the write pointer doesn't count any more. */
    if (zone->state == BLK_ZS_RDONLY || write_overflows(probe)) {
        return VIRTIO_BLK_S_ZONE_INVALID_CMD;
    }
    if (zone->type == BLK_ZT_SWR && offset != zone->wp) {
        return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
    }
    return VIRTIO_BLK_S_OK;
}

static void probe_done(void *opaque, int ret)
{
    g_autofree ZoneProbe *probe = opaque;
    VirtIOBlockReq *req = probe->req;
    VirtIOBlock *s = req->queue->dev;
    uint8_t status;

    if (ret) {
        probe->num = 0;
    }
    status = probe_status(probe);
    if (status == VIRTIO_BLK_S_OK) {
        virtio_blk_rw_settle(req, probe->is_write, probe->ret);
        return;
    }
    block_acct_failed(blk_get_stats(s->blk), &req->acct);
    virtio_blk_req_complete(req, status);
}

void virtio_blk_zoned_rw_failed(VirtIOBlockReq *req, bool is_write, int ret)
{
    ZoneProbe *probe = g_new0(ZoneProbe, 1);

    probe->req = req;
    probe->is_write = is_write;
    probe->ret = ret;
    probe->num = 1;
    blk_aio_zone_report(req->queue->dev->blk,
                        req->frame.sector << BDRV_SECTOR_BITS, &probe->num,
                        &probe->zone, probe_done, probe);
}
