/*
 * virtio-blk: what the files of the device share
 *
 * A request's way: queue.c -> request.c -> (batch.c | commands.c | zoned.c |
 * scsi.c) -> engine -> request.c.  Nothing below calls back up except for the
 * completion.  docs/architecture.rst has the picture, threads and locks.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_INTERNAL_H
#define HW_BLOCK_VIRTIO_BLK_INTERNAL_H

#include CONFIG_DEVICES
#include "block/accounting.h"
#include "hw/virtio/virtio-blk.h"
#include "hw/virtio/virtio-blk-base.h"
#include "batch.h"
#include "parse.h"

typedef struct VirtIOBlkUring VirtIOBlkUring;

/*
 * VirtIOBlkQueue: one virtqueue and the thread that serves it.
 *
 * Every field but @reset is constant between realize and unrealize, or belongs
 * to the thread that runs @ctx.  Where there is no ioeventfd, vCPU threads and
 * the main loop serve the queue, one at a time, under the BQL.
 */
struct VirtIOBlkQueue {
    VirtIOBlock *dev;
    VirtQueue *vq;
    AioContext *ctx;
    /*
     * Requests popped and neither given back, parked nor dropped.  Written by
     * the queue's thread, read by the main loop while it waits for 0.
     */
    unsigned in_flight;
    /* Of these, what ended and still has to be put into the used ring. */
    VirtIOBlockReq *done[VIRTIO_BLK_BATCH_MAX];
    unsigned num_done;
    unsigned num_ended;                 /* in the ring, still in flight */
    bool notify;                        /* the driver is owed an interrupt */
    int64_t batch_ns;                   /* when the batch began */
    QEMUBH *again;                      /* where there is no ioeventfd */
    bool alone;                         /* no other queue in this iothread */
    unsigned linger_credit;             /* see queue_linger() */
    unsigned linger_skipped;
    /*
     * The driver reset this queue and has not enabled it again.  Written
     * under the BQL while the queue's notifier is detached.
     */
    bool reset;

    /*
     * Requests in a fast engine, and 1 while the queue's thread hands it some.
     * Written by the queue's thread; a drain waits for 0.
     */
    unsigned fast_active;
    bool fast_letting_go;               /* a drain waits for this, too */
    VirtIOBlkUring *uring;              /* of the queue's thread */
    bool uring_failed;                  /* likewise, until the next start */
};

/*
 * VirtIOBlkPlain: a node whose bytes are those of a file, with nothing on it
 * that has to see requests.  Constant until the next drain.
 */
struct VirtIOBlkPlain {
    int fd;                             /* owned by the node */
    uint64_t size;                      /* bytes that exist, whole sectors */
    size_t mem_align;                   /* of buffers; 1 when any will do */
    bool regular;                       /* a file, not a device */
    bool unmap;                         /* discard=unmap in all nodes */
    bool direct;                        /* past the page cache */
    bool no_flush;                      /* the user wants no flushes */
    bool aio_chosen;                    /* aio= names threads or native */
    BlockDriverState *node[2];          /* those a request would pass */
    ThrottleGroupMember *throttle;      /* its state is set while limited */
    /* Learnt from errors, by any queue's thread: */
    bool no_punch, no_zero_range;       /* the file system can't do it */
};

/*
 * VirtIOBlockReq: one request, from pop to completion.  Owned by the queue's
 * thread; while it is parked, by the list of stopped requests.
 */
struct VirtIOBlockReq {
    VirtQueueElement elem;              /* first: allocated by the ring code */
    VirtIOBlkQueue *queue;
    VirtIOBlkFrame frame;
    QEMUIOVector qiov;                  /* payload of a read or write */
    BlockAcctCookie acct;
    bool account;                       /* it ended well: count it */
    size_t written;                     /* to the start of the payload */
    VirtIOBlockReq *merged;             /* next request of a merged one */
    unsigned pending;                   /* segments still running */
    int ret;                            /* first error of a segment */
    QSIMPLEQ_ENTRY(VirtIOBlockReq) stopped_link;
};

/* What happens to the bytes of a segment. */
typedef enum VirtIOBlkRangeKind {
    VIRTIO_BLK_RANGE_DISCARD,
    VIRTIO_BLK_RANGE_ZERO,
    VIRTIO_BLK_RANGE_ZERO_UNMAP,        /* may be deallocated, too */
} VirtIOBlkRangeKind;

/*
 * VirtIOBlkEngine: the way requests go down.
 *
 * The functions are called in the thread of the request's queue and complete
 * in it.  @ret of a completion is 0 or a negative errno.
 */
struct VirtIOBlkEngine {
    const char *name;
    /*
     * Called before and after requests are handed over, from @enter on in
     * which a drain waits for @leave.  @enter says whether the engine can be
     * used now.  NULL for the block engine, which always can.
     */
    bool (*enter)(VirtIOBlkQueue *q);
    void (*leave)(VirtIOBlkQueue *q);
    /*
     * Main loop, a drain begins: let go of the node as soon as nothing is in
     * flight, and clear fast_letting_go then.
     */
    void (*let_go)(VirtIOBlkQueue *q);
    /* fast_active fell to 0; in the queue's thread. */
    void (*idle)(VirtIOBlkQueue *q);
    /*
     * Read or write: @req and those behind req->merged, adjacent and @niov
     * memory segments in all, end with virtio_blk_rw_done() each.
     */
    void (*rw)(VirtIOBlockReq *req, bool is_write, unsigned niov);
    /*
     * Flush, and one segment of a discard or write zeroes.  They end with
     * virtio_blk_flush_done() and virtio_blk_range_done().  False: it is not
     * for the engine, and the block layer has to do it; NULL: none ever is.
     */
    bool (*flush)(VirtIOBlockReq *req);
    bool (*range)(VirtIOBlockReq *req, VirtIOBlkRangeKind kind,
                  int64_t offset, int64_t bytes);
};

/* engine-block.c: everything that QEMU's block layer can open. */
extern const VirtIOBlkEngine virtio_blk_engine_block;

/* virtio_blk_req_offset: where a checked read or write begins, in bytes. */
static inline int64_t virtio_blk_req_offset(VirtIOBlockReq *req)
{
    return req->frame.sector << BDRV_SECTOR_BITS;
}

/* engine-uring.c: what can be done with a plain node's file. */
extern const VirtIOBlkEngine virtio_blk_engine_uring;

/* virtio_blk_uring_usable: does the kernel let us have io_uring?  BQL. */
bool virtio_blk_uring_usable(void);

/*
 * virtio_blk_uring_close: a bottom half in the thread of the queue @opaque,
 * which has nothing in flight: free its ring.
 */
void virtio_blk_uring_close(void *opaque);

/* pinned.c: guest memory that is registered with io_uring.  All with BQL. */

/*
 * virtio_blk_pinned_ref: a device may want it.
 * @asked: the user wants to hear why it cannot be done
 */
void virtio_blk_pinned_ref(bool asked);

/* virtio_blk_pinned_unref: the device goes; its rings have gone. */
void virtio_blk_pinned_unref(bool asked);

/*
 * virtio_blk_pinned_want: it does: its queues go to io_uring for direct I/O.
 * Memory is registered soon, if it is not and can be.
 */
void virtio_blk_pinned_want(void);

/* virtio_blk_pinned_bytes: how much is registered now. */
uint64_t virtio_blk_pinned_bytes(void);

/* engine-vhost.c: the kernel has the queues.  All with the BQL. */
extern const VirtIOBlkEngine virtio_blk_engine_vhost;

#ifdef CONFIG_VHOST_BLK

/* virtio_blk_in_kernel: is it the kernel that serves the queues now? */
static inline bool virtio_blk_in_kernel(VirtIOBlock *s)
{
    return qatomic_read(&s->engine) == &virtio_blk_engine_vhost;
}

/*
 * virtio_blk_vhost_realize: open the kernel backend, after virtio_init() and
 * the queues.  On failure the error names the mend.
 */
bool virtio_blk_vhost_realize(VirtIOBlock *s, Error **errp);

/* virtio_blk_vhost_unrealize: undo it; the queues are back. */
void virtio_blk_vhost_unrealize(VirtIOBlock *s);

/*
 * virtio_blk_vhost_take: give the queues to the kernel, if it may have them
 * and nobody uses them now.  In the second case it is tried again, until the
 * next virtio_blk_vhost_stopped().  For virtio_blk_engine_select(), which sets
 * the engine.  @why: static text if it fails; unchanged without a backend
 */
bool virtio_blk_vhost_take(VirtIOBlock *s, const char **why);

/*
 * virtio_blk_vhost_starting: begin and end of a time in which nobody can use
 * the queues yet.
 */
void virtio_blk_vhost_starting(VirtIOBlock *s, bool starting);

/*
 * virtio_blk_vhost_give_back: the kernel has the queues: take them back.
 * Returns when nothing is in flight; the engine is the block engine then.
 */
void virtio_blk_vhost_give_back(VirtIOBlock *s);

/*
 * virtio_blk_vhost_leave: take the queues back, if the kernel has them, and
 * serve them here, outside of a drained section, until the next try.
 * @why: for the trace
 */
void virtio_blk_vhost_leave(VirtIOBlock *s, const char *why);

/* virtio_blk_vhost_stopped: ioeventfd has stopped: try no more. */
void virtio_blk_vhost_stopped(VirtIOBlock *s);

/* virtio_blk_vhost_config_changed: the write cache was switched. */
void virtio_blk_vhost_config_changed(VirtIOBlock *s);

/* virtio_blk_vhost_stats: BlockDevOps hook: count what the kernel has done. */
void virtio_blk_vhost_stats(void *opaque);

#else

static inline bool virtio_blk_in_kernel(VirtIOBlock *s)
{
    return false;
}

static inline void virtio_blk_vhost_unrealize(VirtIOBlock *s)
{
}

static inline void virtio_blk_vhost_starting(VirtIOBlock *s, bool starting)
{
}

static inline void virtio_blk_vhost_give_back(VirtIOBlock *s)
{
}

static inline void virtio_blk_vhost_leave(VirtIOBlock *s, const char *why)
{
}

static inline void virtio_blk_vhost_stopped(VirtIOBlock *s)
{
}

static inline void virtio_blk_vhost_config_changed(VirtIOBlock *s)
{
}

#endif

/* plain.c */

/*
 * virtio_blk_plain_find: look at the node as it is now.  Main loop, nothing
 * in flight.  Returns what the caller frees with g_free(), or NULL and in @why
 * a static text.
 */
VirtIOBlkPlain *virtio_blk_plain_find(VirtIOBlock *s, const char **why);

/* virtio_blk_plain_file: the node that has the file, the last of them. */
BlockDriverState *virtio_blk_plain_file(const VirtIOBlkPlain *plain);

/* virtio_blk_plain_will_write: before a write of @bytes at byte @offset. */
void virtio_blk_plain_will_write(const VirtIOBlkPlain *plain, int64_t offset,
                                 int64_t bytes);

/* virtio_blk_plain_written: after it, before the driver is told. */
void virtio_blk_plain_written(const VirtIOBlkPlain *plain, int64_t offset,
                              int64_t bytes);

/*
 * virtio_blk_plain_discarded: after a discard, or after a write of zeroes in
 * addition to the above.
 */
void virtio_blk_plain_discarded(const VirtIOBlkPlain *plain, int64_t offset,
                                int64_t bytes);

/* engine.c */

/*
 * virtio_blk_engine_check: do the io-engine and register-memory properties ask
 * for something that we have?
 * Main loop, during realize.
 */
bool virtio_blk_engine_check(VirtIOBlock *s, Error **errp);

/*
 * virtio_blk_engine_open: open what the io-engine property asks for, after the
 * queues are made.  Main loop, during realize.
 */
bool virtio_blk_engine_open(VirtIOBlock *s, Error **errp);

/* virtio_blk_engine_close: undo it. */
void virtio_blk_engine_close(VirtIOBlock *s);

/* virtio_blk_engine_memory: bytes of registered guest memory.  BQL. */
uint64_t virtio_blk_engine_memory(VirtIOBlock *s);

/* virtio_blk_engine_may_be_vhost: may it be, by the io-engine property? */
bool virtio_blk_engine_may_be_vhost(VirtIOBlock *s);

/*
 * virtio_blk_engine_select: pick the best engine that may serve the node as
 * it is now.  Called while the node is drained or has no requests; BQL.
 * @why: for the trace, what made us look
 */
void virtio_blk_engine_select(VirtIOBlock *s, const char *why);

/*
 * virtio_blk_engine_stop: ioeventfd stops, nothing is in flight: go back to
 * the block engine and free what the queues have of another.  BQL.
 */
void virtio_blk_engine_stop(VirtIOBlock *s);

/*
 * virtio_blk_engine_hold: a drain begins.  Keep queues out of the fast engine
 * until the next virtio_blk_engine_select().  BQL.
 */
void virtio_blk_engine_hold(VirtIOBlock *s);

/*
 * virtio_blk_engine_release: a drain ends.  Select an engine anew; where the
 * drain did not wait for us, as soon as the old one is idle.  BQL.
 */
void virtio_blk_engine_release(VirtIOBlock *s);

/* virtio_blk_engine_busy: does it have requests, or hold the node?  BQL. */
bool virtio_blk_engine_busy(VirtIOBlock *s);

/*
 * virtio_blk_engine_enter: the engine for some requests, in the queue's
 * thread.  virtio_blk_engine_leave() must follow.
 */
const VirtIOBlkEngine *virtio_blk_engine_enter(VirtIOBlkQueue *q);

/* virtio_blk_engine_leave: that was all; likewise. */
static inline void virtio_blk_engine_leave(const VirtIOBlkEngine *engine,
                                           VirtIOBlkQueue *q)
{
    if (engine->leave) {
        engine->leave(q);
    }
}

/*
 * virtio_blk_engine_inactive: take one from q->fast_active, and wake whoever
 * waits for 0.  In the queue's thread.
 */
void virtio_blk_engine_inactive(VirtIOBlkQueue *q);

/* virtio_blk_engine_let_go: the engine has let go of the node.  Likewise. */
void virtio_blk_engine_let_go(VirtIOBlkQueue *q);

/*
 * virtio_blk_vdev: VIRTIO_DEVICE(s) without the check of the cast, which costs
 * as much as the work where it is done for each request.
 */
static inline VirtIODevice *virtio_blk_vdev(VirtIOBlock *s)
{
    return &s->parent_obj;
}

/* request.c */

/*
 * virtio_blk_big_endian: are request fields big-endian (legacy drivers of
 * big-endian targets; VIRTIO 1.4, 5.2.6.3)?
 */
bool virtio_blk_big_endian(VirtIOBlock *s);

/*
 * virtio_blk_capacity: of the medium now, in 512-byte sectors.  Any thread.
 */
uint64_t virtio_blk_capacity(VirtIOBlock *s);

/* virtio_blk_block_sectors: logical block size in 512-byte sectors. */
uint32_t virtio_blk_block_sectors(VirtIOBlock *s);

/*
 * virtio_blk_request_start: parse a request and set it going.
 * @batch: where reads and writes wait for company
 *
 * Returns false when its framing is beyond repair; the device is broken then
 * (virtio_error()) and the request still the caller's.
 */
bool virtio_blk_request_start(VirtIOBlockReq *req, VirtIOBlkBatch *batch);

/*
 * virtio_blk_batch_submit: send the reads or writes of @batch down, merged
 * where they are adjacent, and empty it.
 */
void virtio_blk_batch_submit(VirtIOBlkQueue *q, VirtIOBlkBatch *batch);

/*
 * virtio_blk_req_finish: give a request back to the driver and free it.
 * @written: bytes written to the start of the device-writable payload
 *
 * Reports a used length that is true to the byte (VIRTIO 1.4, 2.7.8.2).
 */
void virtio_blk_req_finish(VirtIOBlockReq *req, uint8_t status,
                           size_t written);

/*
 * virtio_blk_req_drop: free a request that the driver will never hear of
 * again, because its device or queue is being reset.
 */
void virtio_blk_req_drop(VirtIOBlockReq *req);

/* done.c */

/*
 * virtio_blk_req_push: the last step of virtio_blk_req_finish(), once the
 * driver's buffers are as it must find them.  The driver sees it soon: at the
 * end of the defer_call() section, if there is one.
 */
void virtio_blk_req_push(VirtIOBlockReq *req, size_t written);

/*
 * virtio_blk_done_settle: put what has ended into the used ring now, below the
 * section; the interrupt still comes at its end.  In the queue's thread, where
 * that is the main loop.
 */
void virtio_blk_done_settle(VirtIOBlkQueue *q);

/* request.c */

/*
 * virtio_blk_merged_iov: fill @iov with the @niov memory segments of @head and
 * of those behind its merged pointer, as rw() of an engine gets them.
 */
void virtio_blk_merged_iov(VirtIOBlockReq *head, struct iovec *iov,
                           unsigned niov);

/* virtio_blk_rw_done: end one read or write; called by engines. */
void virtio_blk_rw_done(VirtIOBlockReq *req, bool is_write, int ret);

/*
 * virtio_blk_rw_settle: the same when zones have nothing to do with the error:
 * apply the error policy, or complete.
 */
void virtio_blk_rw_settle(VirtIOBlockReq *req, bool is_write, int ret);

/* commands.c: one handler a request type, called through request.c's table */

void virtio_blk_cmd_flush(VirtIOBlockReq *req);

/* virtio_blk_flush_done: end a flush; called by engines. */
void virtio_blk_flush_done(VirtIOBlockReq *req, int ret);

/* virtio_blk_flush_by_block: let the block layer flush and end @req. */
void virtio_blk_flush_by_block(VirtIOBlockReq *req);

/* virtio_blk_range_done: end one segment; called by engines. */
void virtio_blk_range_done(VirtIOBlockReq *req, int ret);

/* virtio_blk_range_by_block: let the block layer do a segment and end it. */
void virtio_blk_range_by_block(VirtIOBlockReq *req, VirtIOBlkRangeKind kind,
                               int64_t offset, int64_t bytes);

void virtio_blk_cmd_get_id(VirtIOBlockReq *req);
void virtio_blk_cmd_discard(VirtIOBlockReq *req);
void virtio_blk_cmd_write_zeroes(VirtIOBlockReq *req);
void virtio_blk_cmd_secure_erase(VirtIOBlockReq *req);

/*
 * virtio_blk_secure_erase_check: can the medium erase securely?  Main loop,
 * during realize.
 */
bool virtio_blk_secure_erase_check(VirtIOBlock *s, Error **errp);

/* lifetime.c */

void virtio_blk_cmd_get_lifetime(VirtIOBlockReq *req);

/* virtio_blk_lifetime_check: does the medium tell its wear?  As above. */
bool virtio_blk_lifetime_check(VirtIOBlock *s, Error **errp);

/*
 * virtio_blk_lifetime_medium: note the medium's name for GET_LIFETIME.  Main
 * loop, since the block layer may change it at any time in there.
 */
void virtio_blk_lifetime_medium(VirtIOBlock *s);

/* zoned.c */

void virtio_blk_cmd_zone_report(VirtIOBlockReq *req);
void virtio_blk_cmd_zone_mgmt(VirtIOBlockReq *req);
void virtio_blk_cmd_zone_append(VirtIOBlockReq *req);

/* virtio_blk_zones_used: did the driver negotiate ZONED?  Any thread. */
bool virtio_blk_zones_used(VirtIOBlock *s);

/*
 * virtio_blk_zoned_rw_check: may a read or write of @bytes run on a zoned
 * medium?  VIRTIO_BLK_S_OK, or the status to complete with.
 */
uint8_t virtio_blk_zoned_rw_check(VirtIOBlockReq *req, uint64_t bytes);

/*
 * virtio_blk_zoned_rw_failed: find out whether a read or write failed for
 * what it asked of its zone, which the driver is told with a status of its
 * own, or for another reason, which is a matter of the error policy.
 * @ret: negative errno
 */
void virtio_blk_zoned_rw_failed(VirtIOBlockReq *req, bool is_write, int ret);

/* scsi.c */

void virtio_blk_cmd_scsi(VirtIOBlockReq *req);

/* errors.c */

/*
 * virtio_blk_req_failed: apply the user's error policy to a failed request.
 * @error: a positive errno
 * @is_read: which policy, rerror or werror
 *
 * Returns true when the request is dealt with (reported to the driver or
 * parked); false when the policy is to ignore and it must end as if well.
 */
bool virtio_blk_req_failed(VirtIOBlockReq *req, bool is_read, int error);

/*
 * virtio_blk_vm_change: VM state handler; starts parked requests again, each
 * in the thread of its queue.  When the VM stops, waits for what is in flight.
 * BQL.
 */
void virtio_blk_vm_change(void *opaque, bool running, RunState state);

/*
 * virtio_blk_stopped_drop: drop the parked requests of @q, or of all queues
 * when it is NULL.  BQL, nothing in flight.
 */
void virtio_blk_stopped_drop(VirtIOBlock *s, VirtIOBlkQueue *q);

/* bounce.c */

/* virtio_blk_req_bounced: must data go to what is not RAM?  Any thread. */
bool virtio_blk_req_bounced(VirtIOBlockReq *req);

/*
 * virtio_blk_req_finish_bounced: do so, and then end the request as
 * virtio_blk_req_finish() does.  In the thread of the request's queue.
 */
void virtio_blk_req_finish_bounced(VirtIOBlockReq *req, size_t written);

/*
 * virtio_blk_bounced_count: how many requests of @q are below us on the stack,
 * writing what made somebody call us?  Nobody may wait for these.  BQL.
 */
unsigned virtio_blk_bounced_count(VirtIOBlkQueue *q);

/*
 * virtio_blk_bounced_drop: as virtio_blk_stopped_drop(), for those.
 */
void virtio_blk_bounced_drop(VirtIOBlock *s, VirtIOBlkQueue *q);

/* queue.c */

/* virtio_blk_queues_init: make the queues and place them; BQL. */
bool virtio_blk_queues_init(VirtIOBlock *s, Error **errp);

/*
 * virtio_blk_queues_attach: let the queues' threads serve those that are not
 * reset, from what is in them now on; nothing if the kernel or a drain has
 * them.  BQL.
 */
void virtio_blk_queues_attach(VirtIOBlock *s);

/* virtio_blk_queues_cleanup: undo virtio_blk_queues_init(); BQL. */
void virtio_blk_queues_cleanup(VirtIOBlock *s);

/*
 * virtio_blk_queue_left: @num requests less are in flight; wake whoever waits
 * for the last one.  In the queue's thread.
 */
void virtio_blk_queue_left(VirtIOBlkQueue *q, unsigned num);

/*
 * virtio_blk_queues_resume: the VM runs again; look at queues that the stop
 * may have left with requests that nobody will ring for.  BQL.
 */
void virtio_blk_queues_resume(VirtIOBlock *s);

/*
 * virtio_blk_queues_busy: has @q (any queue when NULL) a request in flight?
 * What is held for the main loop alone does not count.  BQL.
 */
bool virtio_blk_queues_busy(VirtIOBlock *s, VirtIOBlkQueue *q);

/*
 * virtio_blk_wait_idle: wait until @q (all queues when NULL) has nothing in
 * flight.  Main loop or a vCPU thread with the BQL.
 */
void virtio_blk_wait_idle(VirtIOBlock *s, VirtIOBlkQueue *q);

/*
 * virtio_blk_abandon: wait likewise, then drop what can't be waited for: the
 * parked requests, and those that caused this call.  For a reset.  BQL.
 */
void virtio_blk_abandon(VirtIOBlock *s, VirtIOBlkQueue *q);

/* Hooks of VirtioDeviceClass, all with the BQL. */
int virtio_blk_start_ioeventfd(VirtIODevice *vdev);
void virtio_blk_stop_ioeventfd(VirtIODevice *vdev);
void virtio_blk_queue_reset(VirtIODevice *vdev, uint32_t index);
void virtio_blk_queue_enable(VirtIODevice *vdev, uint32_t index);

/* Hooks of BlockDevOps, main loop. */
void virtio_blk_drained_begin(void *opaque);
bool virtio_blk_drained_poll(void *opaque);
void virtio_blk_drained_end(void *opaque);

/* config.c */

/* Hooks of VirtioDeviceClass, all with the BQL. */
void virtio_blk_get_config(VirtIODevice *vdev, uint8_t *config);
void virtio_blk_set_config(VirtIODevice *vdev, const uint8_t *config);
uint64_t virtio_blk_get_features(VirtIODevice *vdev, uint64_t features,
                                 Error **errp);
int virtio_blk_validate_features(VirtIODevice *vdev);
VirtIOBlkStatus virtio_blk_set_status(VirtIODevice *vdev, uint8_t status);

/*
 * virtio_blk_config_was_read: the copy of the config space that migrates is as
 * old as the driver's last access.  Was there one?  BQL.
 */
bool virtio_blk_config_was_read(VirtIOBlock *s);

/* virtio_blk_resized: BlockDevOps hook, any thread. */
void virtio_blk_resized(void *opaque);

/*
 * virtio_blk_medium_changed: look anew at what the config space says of the
 * nodes below, while they are drained; true if the driver has to be told
 * (VIRTIO 1.4, 5.2.5.2).  Main loop.
 */
bool virtio_blk_medium_changed(VirtIOBlock *s);

/* migration.c */

extern const VMStateDescription virtio_blk_vmstate;

/* Hooks of VirtioDeviceClass, all with the BQL. */
void virtio_blk_save(VirtIODevice *vdev, QEMUFile *f);
int virtio_blk_load(VirtIODevice *vdev, QEMUFile *f, int version_id);
int virtio_blk_post_load(VirtIODevice *vdev);

/* virtio_blk_req_init: prepare a request that the ring code allocated. */
static inline void virtio_blk_req_init(VirtIOBlockReq *req, VirtIOBlkQueue *q)
{
    req->queue = q;
    req->frame.copy = NULL;
    req->merged = NULL;
    req->account = false;
}

#endif
