/*
 * virtio-blk: SCSI commands of legacy drivers
 *
 * The request of VIRTIO 0.9.5, appendix D: header, command block, [data out],
 * [data in], sense buffer, SCSI in-header, status byte, each field of the
 * control part in a descriptor of its own.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "internal.h"
#ifdef CONFIG_LINUX
#include <scsi/sg.h>
#endif

/* What the driver finds in the in-header of a command that never ran. */
#define SCSI_ERRORS_NOT_RUN 255

#define SCSI_TIMEOUT_MS     30000

/* Longest command block that SG_IO takes. */
#define SCSI_CDB_MAX        255

/* ScsiIO: one SCSI command; pointers lead into the request's descriptors. */
typedef struct ScsiIO {
    VirtIOBlockReq *req;
    void *inhdr;                        /* guest memory, 16 bytes */
    uint8_t cdb[SCSI_CDB_MAX];          /* a copy: the guest can't change it */
#ifdef CONFIG_LINUX
    struct sg_io_hdr sg;
    sg_iovec_t *iov;
#endif
} ScsiIO;

/* The in-header is where the driver put it, aligned or not. */
#define INHDR(inhdr, field) \
    ((uint8_t *)(inhdr) + offsetof(struct virtio_scsi_inhdr, field))

static void store32(VirtIOBlock *s, void *field, uint32_t value)
{
    stl_he_p(field, virtio_blk_big_endian(s) ? cpu_to_be32(value)
                                             : cpu_to_le32(value));
}

/*
 * The in-header lies behind data and sense buffer, so the used length has to
 * cover those as well: whoever ends a command has written them, with zeroes
 * where the command brought nothing.
 */
static void scsi_finish(VirtIOBlockReq *req, uint8_t status)
{
    virtio_blk_req_finish(req, status, req->frame.in_len);
}

static void scsi_not_run(VirtIOBlockReq *req, void *inhdr,
                         uint8_t status)
{
    VirtIOBlkFrame *frame = &req->frame;

    iov_memset(frame->in, frame->in_num, 0, 0, frame->in_len);
    store32(req->queue->dev, INHDR(inhdr, errors), SCSI_ERRORS_NOT_RUN);
    scsi_finish(req, status);
}

#ifdef CONFIG_LINUX

static void scsi_done(void *opaque, int ret)
{
    g_autofree ScsiIO *io = opaque;
    VirtIOBlockReq *req = io->req;
    VirtIOBlock *s = req->queue->dev;
    struct sg_io_hdr *sg = &io->sg;
    uint32_t errors;

    g_free(io->iov);
    if (ret) {
        scsi_not_run(req, io->inhdr, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (sg->dxfer_direction == SG_DXFER_FROM_DEV && sg->resid > 0 &&
        sg->resid <= sg->dxfer_len) {
        iov_memset(req->frame.in, req->frame.in_num,
                   sg->dxfer_len - sg->resid, 0, sg->resid);
    }

    /* Laid out as SCSI_IOCTL results: status, message, host, driver byte. */
    errors = sg->status | sg->msg_status << 8 | sg->host_status << 16 |
             (uint32_t)sg->driver_status << 24;
    store32(s, INHDR(io->inhdr, errors), errors);
    store32(s, INHDR(io->inhdr, residual), sg->resid);
    store32(s, INHDR(io->inhdr, sense_len), sg->sb_len_wr);
    store32(s, INHDR(io->inhdr, data_len), sg->dxfer_len);
    scsi_finish(req, errors ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

/* Point @io at the data descriptors.  False when there are both directions. */
static bool scsi_map_data(ScsiIO *io)
{
    VirtQueueElement *elem = &io->req->elem;
    unsigned out_num = elem->out_num - 2;
    unsigned in_num = elem->in_num - 3;
    struct iovec *iov = in_num ? elem->in_sg : elem->out_sg + 2;
    unsigned num = in_num ? in_num : out_num;
    size_t len = iov_size(iov, num);

    if ((in_num && out_num) || len > UINT32_MAX || num > UINT16_MAX) {
        return false;
    }
    io->iov = g_new(sg_iovec_t, num);
    for (unsigned i = 0; i < num; i++) {
        io->iov[i].iov_base = iov[i].iov_base;
        io->iov[i].iov_len = iov[i].iov_len;
    }
    io->sg.dxfer_direction = in_num ? SG_DXFER_FROM_DEV :
                             out_num ? SG_DXFER_TO_DEV : SG_DXFER_NONE;
    io->sg.dxferp = num ? io->iov : NULL;
    io->sg.iovec_count = num;
    io->sg.dxfer_len = len;
    return true;
}

static void scsi_run(VirtIOBlockReq *req, void *inhdr)
{
    VirtIOBlock *s = req->queue->dev;
    VirtQueueElement *elem = &req->elem;
    struct iovec *cdb = &elem->out_sg[1];
    struct iovec *sense = &elem->in_sg[elem->in_num - 3];
    ScsiIO *io;

    io = g_new0(ScsiIO, 1);
    io->req = req;
    io->inhdr = inhdr;
    if (cdb->iov_len > sizeof(io->cdb) || !scsi_map_data(io)) {
        g_free(io);
        scsi_not_run(req, inhdr, VIRTIO_BLK_S_IOERR);
        return;
    }

    memcpy(io->cdb, cdb->iov_base, cdb->iov_len);
    memset(sense->iov_base, 0, sense->iov_len);
    io->sg.interface_id = 'S';
    io->sg.cmdp = io->cdb;
    io->sg.cmd_len = cdb->iov_len;
    io->sg.sbp = sense->iov_base;
    io->sg.mx_sb_len = MIN(sense->iov_len, UINT8_MAX);
    io->sg.timeout = SCSI_TIMEOUT_MS;
    blk_aio_ioctl(s->blk, SG_IO, &io->sg, scsi_done, io);
}

#else

static void scsi_run(VirtIOBlockReq *req, void *inhdr)
{
    scsi_not_run(req, inhdr, VIRTIO_BLK_S_UNSUPP);
}

#endif

void virtio_blk_cmd_scsi(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    VirtQueueElement *elem = &req->elem;
    struct iovec *inhdr;

    /*
     * Legacy framing: the in-header is the last descriptor but one, and the
     * status byte a descriptor of its own.
     */
    if (elem->out_num < 2 || elem->in_num < 3 || req->frame.copy) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_IOERR);
        return;
    }
    inhdr = &elem->in_sg[elem->in_num - 2];
    if (inhdr->iov_len != sizeof(struct virtio_scsi_inhdr)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (!s->conf.scsi) {
        scsi_not_run(req, inhdr->iov_base, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    scsi_run(req, inhdr->iov_base);
}
