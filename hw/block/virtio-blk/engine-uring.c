/*
 * virtio-blk: the engine that goes straight to io_uring
 *
 * A queue has a ring of its own, which its thread makes, fills and reaps.
 * Reads and writes of a plain file go there, flushes (uring-flush.c), discards
 * and write zeroes (uring-range.c); what is not plain (misaligned memory, a
 * short transfer, any error but a flush's) and all other types of request go
 * to the block engine, whose answer counts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <liburing.h>
#include "block/aio.h"
#include "block/block_int.h"
#include "qemu/defer-call.h"
#include "qemu/error-report.h"
#include "system/block-backend.h"
#include "internal.h"
#include "pinned.h"
#include "uring.h"

#define SQ_ENTRIES  (2 * VIRTIO_BLK_BATCH_MAX)
/* No ring has more requests in flight than its virtqueue has entries. */
#define CQ_ENTRIES  VIRTQUEUE_MAX_SIZE

/* What user_data points to; pointers are aligned to more than that. */
enum {
    TAG_WRITE = 1,
    TAG_MERGED = 2,             /* a FastMerged, else a VirtIOBlockReq */
    TAG_OP = 4,                 /* a VirtIOBlkUringOp, nothing else */
};
#define TAG_MASK    (TAG_WRITE | TAG_MERGED | TAG_OP)

/* FastMerged: several requests as one. */
typedef struct FastMerged {
    VirtIOBlockReq *head;
    size_t bytes;
    unsigned niov;
    struct iovec iov[];
} FastMerged;

static int ring_init(struct io_uring *ring, bool own_thread)
{
    static const unsigned kinds[] = {
#ifdef IORING_SETUP_SINGLE_ISSUER
        /*
         * Not DEFER_TASKRUN: a thread that sleeps in poll() on such a ring is
         * not woken by a completion, seen with Linux 6.18.
         */
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
        IORING_SETUP_TASKRUN_FLAG,
#endif
        0,
    };
    int ret = -EINVAL;

    /* The main loop's work may be done by a vCPU thread that has the BQL. */
    for (unsigned i = own_thread ? 0 : ARRAY_SIZE(kinds) - 1;
         ret == -EINVAL && i < ARRAY_SIZE(kinds); i++) {
        struct io_uring_params params = {
            .flags = kinds[i] | IORING_SETUP_CQSIZE,
            .cq_entries = CQ_ENTRIES,
        };

        ret = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);
        if (ret == 0 && !(params.features & IORING_FEAT_NODROP)) {
            io_uring_queue_exit(ring);
            ret = -ENOTSUP;
        }
    }
    return ret;
}

/* The host is short of something now, which need not be for ever. */
static bool is_shortage(int ret)
{
    return ret == -ENOMEM || ret == -EAGAIN || ret == -EMFILE ||
           ret == -ENFILE;
}

bool virtio_blk_uring_usable(void)
{
    static int usable = -1;
    struct io_uring ring;

    if (usable < 0) {
        int ret = ring_init(&ring, true);

        if (is_shortage(ret)) {
            return false;
        }
        usable = ret == 0;
        if (usable) {
            io_uring_queue_exit(&ring);
        }
    }
    return usable;
}

/* The completions of requests that the kernel must be asked for. */
static bool has_deferred(VirtIOBlkUring *u)
{
#ifdef IORING_SETUP_SINGLE_ISSUER
    return IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_TASKRUN;
#else
    return false;
#endif
}

static void unregister_file(VirtIOBlkUring *u)
{
    if (u->registered) {
        io_uring_unregister_files(&u->ring);
        u->registered = false;
    }
}

static void uring_idle(VirtIOBlkQueue *q)
{
    VirtIOBlkUring *u = q->uring;

    if (u && u->let_go) {
        u->let_go = false;
        unregister_file(u);
        virtio_blk_engine_let_go(q);
    }
}

static void req_ended(VirtIOBlkQueue *q, VirtIOBlockReq *head, bool is_write,
                      size_t bytes, unsigned niov, int res)
{
    VirtIOBlockReq *next;

    if (unlikely(res < 0 || res != bytes)) {
        /* Whatever it was, the block layer finds out. */
        virtio_blk_engine_block.rw(head, is_write, niov);
        return;
    }
    if (is_write) {
        virtio_blk_plain_written(q->dev->plain, virtio_blk_req_offset(head),
                                 bytes);
    }
    for (VirtIOBlockReq *req = head; req; req = next) {
        next = req->merged;
        req->merged = NULL;
        virtio_blk_rw_done(req, is_write, 0);
    }
}

/* @tried: the kernel had it, else it never will. */
static void io_ended(VirtIOBlkQueue *q, uint64_t user_data, int res,
                     bool tried)
{
    void *p = (void *)(uintptr_t)(user_data & ~(uint64_t)TAG_MASK);
    bool is_write = user_data & TAG_WRITE;

    if (user_data & TAG_OP) {
        VirtIOBlkUringOp *op = p;

        op->ended(op, q, res, tried);
    } else if (user_data & TAG_MERGED) {
        g_autofree FastMerged *io = p;

        req_ended(q, io->head, is_write, io->bytes, io->niov, res);
    } else {
        VirtIOBlockReq *req = p;

        req_ended(q, req, is_write, req->qiov.size, req->qiov.niov, res);
    }
    virtio_blk_engine_inactive(q);
}

/* End what the kernel has done. */
static void uring_reap(VirtIOBlkUring *u)
{
    VirtIOBlkQueue *q = u->q;
    struct io_uring_cqe *cqe[VIRTIO_BLK_BATCH_MAX];
    unsigned n;

    while ((n = io_uring_peek_batch_cqe(&u->ring, cqe, ARRAY_SIZE(cqe)))) {
        for (unsigned i = 0; i < n; i++) {
            uint64_t user_data = cqe[i]->user_data;
            int res = cqe[i]->res;

            io_uring_cq_advance(&u->ring, 1);
            io_ended(q, user_data, res, true);
        }
    }
    /* The end of a flush may have started the next one. */
    if (io_uring_sq_ready(&u->ring)) {
        virtio_blk_uring_submit(u);
    }
}

/*
 * The kernel does not take the requests, and never will: let the block engine
 * have those that it has not seen.
 */
static void uring_give_up(VirtIOBlkUring *u, int error)
{
    struct io_uring_sq *sq = &u->ring.sq;
    VirtIOBlkQueue *q = u->q;

    warn_report_once("virtio-blk: io_uring fails (%s), requests go through "
                     "the block layer", strerror(-error));
    q->uring_failed = true;
    while (io_uring_sq_ready(&u->ring)) {
        unsigned slot = (sq->sqe_tail - 1) & *sq->kring_mask;
        uint64_t user_data = sq->sqes[slot].user_data;

        sq->sqe_tail--;
        *sq->ktail = sq->sqe_tail;
        io_ended(q, user_data, error, false);
    }
}

static void resubmit_bh(void *opaque)
{
    VirtIOBlkQueue *q = opaque;

    virtio_blk_uring_submit(q->uring);
    virtio_blk_engine_inactive(q);
}

void virtio_blk_uring_submit(VirtIOBlkUring *u)
{
    VirtIOBlkQueue *q = u->q;
    int ret = 0;

    while (io_uring_sq_ready(&u->ring)) {
        ret = io_uring_submit(&u->ring);
        if (ret <= 0 && ret != -EINTR) {
            break;
        }
    }
    if (likely(!io_uring_sq_ready(&u->ring))) {
        return;
    }
    if (ret == -EAGAIN || ret == -EBUSY || ret == 0) {
        /* Short of memory for the moment. */
        qatomic_set(&q->fast_active, q->fast_active + 1);
        aio_bh_schedule_oneshot(q->ctx, resubmit_bh, q);
    } else {
        uring_give_up(u, ret);
    }
}

static void ring_ready(void *opaque)
{
    VirtIOBlkUring *u = opaque;

    /* Interrupts of one round go out together. */
    defer_call_begin();
    if (has_deferred(u)) {
        io_uring_get_events(&u->ring);
    }
    uring_reap(u);
    defer_call_end();
}

static bool ring_poll(void *opaque)
{
    VirtIOBlkUring *u = opaque;

    return io_uring_cq_ready(&u->ring) || has_deferred(u);
}

static VirtIOBlkUring *uring_open(VirtIOBlkQueue *q)
{
    VirtIOBlkUring *u = g_new0(VirtIOBlkUring, 1);
    bool own_thread = q->ctx != qemu_get_aio_context();
    int ret;

    ret = ring_init(&u->ring, own_thread);
    if (ret < 0) {
        warn_report_once("virtio-blk: no io_uring for a queue (%s), requests "
                         "go through the block layer", strerror(-ret));
        q->uring_failed = true;
        g_free(u);
        return NULL;
    }
    u->q = q;
#ifdef IORING_SETUP_SINGLE_ISSUER
    if (own_thread) {
        /* Saves a look-up in each call; it does not have to work. */
        io_uring_register_ring_fd(&u->ring);
    }
#endif
    aio_set_fd_handler(q->ctx, u->ring.ring_fd, ring_ready, NULL, ring_poll,
                       ring_ready, u);
    return u;
}

void virtio_blk_uring_close(void *opaque)
{
    VirtIOBlkQueue *q = opaque;
    VirtIOBlkUring *u = q->uring;

    assert(!q->fast_active);
    q->uring_failed = false;
    if (u) {
        aio_set_fd_handler(q->ctx, u->ring.ring_fd, NULL, NULL, NULL, NULL,
                           NULL);
        if (u->pins) {
            virtio_blk_pins_close(u->pins);
        }
        io_uring_queue_exit(&u->ring);
        g_free(u);
        q->uring = NULL;
    }
}

/* Only direct I/O looks up pages: the others have their data copied. */
static void check_memory(VirtIOBlkUring *u)
{
    VirtIOBlock *s = u->q->dev;

    if (s->registers_memory && unlikely(!u->pins) && s->plain->direct) {
        u->pins = virtio_blk_pins_open(&u->ring, u->q->ctx);
    }
    if (u->pins) {
        virtio_blk_pins_check(u->pins);
    }
}

static bool uring_enter(VirtIOBlkQueue *q)
{
    VirtIOBlkUring *u = q->uring;
    VirtIOBlkPlain *plain = q->dev->plain;

    /* Limits can be set, and a flush can fail, without a drain. */
    if (q->uring_failed || qatomic_read(&plain->throttle->throttle_state) ||
        bdrv_posix_flush_error(virtio_blk_plain_file(plain))) {
        return false;
    }
    if (!u) {
        u = q->uring = uring_open(q);
    }
    if (u && !u->registered) {
        int ret = io_uring_register_files(&u->ring, &plain->fd, 1);

        u->registered = ret == 0;
    }
    if (!u || !u->registered) {
        return false;
    }
    check_memory(u);
    return true;
}

static void uring_leave(VirtIOBlkQueue *q)
{
    virtio_blk_uring_submit(q->uring);
    /* What was in the page cache is here already. */
    uring_reap(q->uring);
    virtio_blk_engine_inactive(q);
}

static void let_go_bh(void *opaque)
{
    VirtIOBlkQueue *q = opaque;
    VirtIOBlkUring *u = q->uring;

    if (u && q->fast_active) {
        u->let_go = true;
        return;
    }
    if (u) {
        unregister_file(u);
    }
    virtio_blk_engine_let_go(q);
}

static void uring_let_go(VirtIOBlkQueue *q)
{
    aio_bh_schedule_oneshot(q->ctx, let_go_bh, q);
}

static bool memory_fits(const QEMUIOVector *qiov, size_t align)
{
    uintptr_t bits = 0;

    for (int i = 0; i < qiov->niov; i++) {
        bits |= (uintptr_t)qiov->iov[i].iov_base | qiov->iov[i].iov_len;
    }
    return !(bits & (align - 1));
}

/*
 * The size of all of it when the ring can take it, else 0.
 * @sync: a write that waits for the disk
 */
static size_t fit(VirtIOBlockReq *head, const VirtIOBlkPlain *plain, bool sync)
{
    size_t bytes = 0;

    if (sync && !plain->direct) {
        /*
         * Linux tells of data lost on the way from the page cache to one
         * caller: of writes side by side, to the wrong one.  The block layer
         * makes flushes of them, one at a time.
         */
        return 0;
    }
    for (VirtIOBlockReq *req = head; req; req = req->merged) {
        if (plain->mem_align > 1 &&
            !memory_fits(&req->qiov, plain->mem_align)) {
            return 0;
        }
        bytes += req->qiov.size;
    }
    /* The kernel would let a write grow the file. */
    if (bytes > plain->size ||
        virtio_blk_req_offset(head) > plain->size - bytes || bytes > INT_MAX) {
        return 0;
    }
    return bytes;
}

static FastMerged *merged_new(VirtIOBlockReq *head, unsigned niov,
                              size_t bytes)
{
    FastMerged *io = g_malloc(sizeof(*io) + niov * sizeof(io->iov[0]));

    io->head = head;
    io->bytes = bytes;
    io->niov = niov;
    virtio_blk_merged_iov(head, io->iov, niov);
    return io;
}

/* For reads and writes inline: a call costs as much as the work. */
static inline struct io_uring_sqe *get_sqe(VirtIOBlkUring *u)
{
    struct io_uring_sqe *sqe;

    if (unlikely(u->q->uring_failed)) {
        return NULL;
    }
    sqe = io_uring_get_sqe(&u->ring);
    if (unlikely(!sqe)) {
        virtio_blk_uring_submit(u);
        sqe = io_uring_get_sqe(&u->ring);
    }
    return sqe;
}

struct io_uring_sqe *virtio_blk_uring_sqe(VirtIOBlkUring *u)
{
    return get_sqe(u);
}

void virtio_blk_uring_op(VirtIOBlkUring *u, struct io_uring_sqe *sqe,
                         VirtIOBlkUringOp *op)
{
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    sqe->user_data = (uintptr_t)op | TAG_OP;
    qatomic_set(&u->q->fast_active, u->q->fast_active + 1);
}

/* By registered memory, several segments, and write. */
static const uint8_t opcodes[2][2][2] = {
    {
        { IORING_OP_READ, IORING_OP_WRITE },
        { IORING_OP_READV, IORING_OP_WRITEV },
    }, {
        { IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED },
        { VBLK_OP_READV_FIXED, VBLK_OP_WRITEV_FIXED },
    },
};

static inline void fill_sqe(VirtIOBlkUring *u, struct io_uring_sqe *sqe,
                     const struct iovec *iov, unsigned niov, uint64_t offset,
                     bool is_write)
{
    int slot = u->pins ? virtio_blk_pins_find(u->pins, iov, niov) : -1;
    unsigned op = opcodes[slot >= 0][niov > 1][is_write];

    /* One buffer costs the kernel less than an array of one. */
    if (niov > 1) {
        io_uring_prep_rw(op, sqe, 0, iov, niov, offset);
    } else {
        io_uring_prep_rw(op, sqe, 0, iov->iov_base, iov->iov_len, offset);
    }
    if (slot >= 0) {
        sqe->buf_index = slot;
    }
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
}

static void engine_uring_rw(VirtIOBlockReq *head, bool is_write,
                            unsigned niov)
{
    VirtIOBlkQueue *q = head->queue;
    VirtIOBlock *s = q->dev;
    VirtIOBlkPlain *plain = s->plain;
    uint64_t offset = virtio_blk_req_offset(head);
    uintptr_t tag = is_write ? TAG_WRITE : 0;
    bool sync = is_write && virtio_blk_uring_syncs(s);
    size_t bytes = fit(head, plain, sync);
    struct io_uring_sqe *sqe = bytes ? get_sqe(q->uring) : NULL;

    if (unlikely(!sqe)) {
        virtio_blk_engine_block.rw(head, is_write, niov);
        return;
    }
    if (head->merged) {
        FastMerged *io = merged_new(head, niov, bytes);

        fill_sqe(q->uring, sqe, io->iov, niov, offset, is_write);
        sqe->user_data = (uintptr_t)io | tag | TAG_MERGED;
    } else {
        fill_sqe(q->uring, sqe, head->qiov.iov, niov, offset, is_write);
        sqe->user_data = (uintptr_t)head | tag;
    }
    if (is_write) {
        virtio_blk_plain_will_write(plain, offset, bytes);
        if (sync) {
            sqe->rw_flags = RWF_DSYNC;
        }
    }
    qatomic_set(&q->fast_active, q->fast_active + 1);
}

const VirtIOBlkEngine virtio_blk_engine_uring = {
    .name = "io_uring",
    .enter = uring_enter,
    .leave = uring_leave,
    .let_go = uring_let_go,
    .idle = uring_idle,
    .rw = engine_uring_rw,
    .flush = virtio_blk_uring_flush,
    .range = virtio_blk_uring_range,
};
