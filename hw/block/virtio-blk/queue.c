/*
 * virtio-blk: virtqueues, their threads, ioeventfd, drain and queue reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "hw/virtio/iothread-vq-mapping.h"
#include "hw/virtio/virtio-bus.h"
#include "qapi/error.h"
#include "qemu/defer-call.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/processor.h"
#include "qemu/timer.h"
#include "system/runstate.h"
#include "internal.h"

#define LINGER_NS       4000    /* longest wait for the driver, */
#define LINGER_TRY_NS   16000   /* while it returns from a doorbell */
#define LINGER_LOOKS    16      /* at the ring between two at the clock */
#define LINGER_ROUNDS   8       /* before others have their turn */
#define LINGER_CREDIT   4       /* waits in vain that are forgiven */
#define LINGER_SELDOM   32      /* then only one in so many is made */

static VirtIOBlockReq *queue_pop(VirtIOBlkQueue *q)
{
    VirtIOBlockReq *req = virtqueue_pop(q->vq, sizeof(*req));

    if (req) {
        virtio_blk_req_init(req, q);
        qatomic_set(&q->in_flight, q->in_flight + 1);
    }
    return req;
}

void virtio_blk_queue_left(VirtIOBlkQueue *q, unsigned num)
{
    unsigned left = q->in_flight - num;

    /* A plain store is enough: one thread writes. */
    qatomic_set(&q->in_flight, left);
    if (!left) {
        /* The block layer wakes nobody for requests that it never saw. */
        aio_wait_kick();
    }
}

/* Start requests until the ring is empty or the driver broke it. */
static void queue_pop_all(VirtIOBlkQueue *q, VirtIOBlkBatch *batch)
{
    VirtIOBlockReq *req;

    /* What ends at once makes room for more: that must not go on for ever. */
    for (unsigned i = 0; i < VIRTQUEUE_MAX_SIZE && (req = queue_pop(q)); i++) {
        if (!virtio_blk_request_start(req, batch)) {
            virtio_blk_req_drop(req);
            virtio_blk_queue_left(q, 1);
            return;
        }
    }
}

/* What the ring has goes down; what ends at once is given back. */
static void queue_round(VirtIOBlkQueue *q)
{
    VIRTIO_BLK_NO_CLEAR VirtIOBlkBatch batch;

    virtio_blk_batch_init(&batch);
    defer_call_begin();
    queue_pop_all(q, &batch);
    virtio_blk_batch_submit(q, &batch);
    defer_call_end();
}

/*
 * Everything has ended: is the driver about to send more?  Seeing that here,
 * with notifications off, saves its doorbell and our way through the event
 * loop, which cost more than a read from the page cache.  A driver that turned
 * out to be slower a few times is asked seldom.
 */
static bool queue_linger(VirtIOBlkQueue *q)
{
    int64_t end;

    if (!q->alone || q->in_flight || !q->ctx->poll_max_ns) {
        return false;
    }
    if (!q->linger_credit && ++q->linger_skipped % LINGER_SELDOM) {
        return false;
    }
    end = get_clock() + MIN(q->linger_credit ? LINGER_NS : LINGER_TRY_NS,
                            q->ctx->poll_max_ns);
    do {
        for (unsigned i = 0; i < LINGER_LOOKS; i++) {
            if (!virtio_queue_empty(q->vq)) {
                q->linger_credit = LINGER_CREDIT;
                return true;
            }
            cpu_relax();
        }
    } while (get_clock() < end);
    if (q->linger_credit) {
        q->linger_credit--;
    }
    return false;
}

/* There is more, which nobody will ring for, but others have their turn. */
static void queue_again(VirtIOBlkQueue *q)
{
    if (q->dev->ioeventfd_disabled) {
        qemu_bh_schedule(q->again);
    } else {
        event_notifier_set(virtio_queue_get_host_notifier(q->vq));
    }
}

static void queue_run(VirtIOBlkQueue *q)
{
    /*
     * Polling of the AioContext may have turned them off already.  Off without
     * polling: it began in the old handler while a drain in another thread
     * put the new one in its place, for which it never ends.
     */
    bool manage_notification = virtio_queue_get_notification(q->vq) ||
                               !q->ctx->poll_started;
    unsigned rounds = 0;

    if (manage_notification) {
        virtio_queue_set_notification(q->vq, 0);
    }
    do {
        queue_round(q);
    } while (++rounds < LINGER_ROUNDS &&
             (!virtio_queue_empty(q->vq) || queue_linger(q)));
    if (manage_notification) {
        virtio_queue_set_notification(q->vq, 1);
    }
    /* What came before notifications were on again has no other herald. */
    if (!virtio_queue_empty(q->vq)) {
        queue_again(q);
    }
}

/* Only where there is no ioeventfd; main loop. */
static void queue_again_bh(void *opaque)
{
    VirtIOBlkQueue *q = opaque;
    VirtIODevice *vdev = virtio_blk_vdev(q->dev);

    /* A VM that stopped starts it again, see virtio_blk_vm_change(). */
    if (runstate_is_running() && !q->reset &&
        virtio_device_started(vdev, vdev->status)) {
        queue_run(q);
    }
}

void virtio_blk_queues_resume(VirtIOBlock *s)
{
    for (unsigned i = 0; s->ioeventfd_disabled && i < s->conf.num_queues; i++) {
        qemu_bh_schedule(s->queues[i].again);
    }
}

static void handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    VirtIOBlkQueue *q = &s->queues[virtio_get_queue_index(vq)];

    /*
     * Not in a thread that is not the queue's: the notifier is read here by
     * the main loop after its queue was detached, since a vCPU may still kick
     * it.  Nothing is lost, the next start kicks again.
     */
    if (qatomic_read(&s->queues_detached)) {
        return;
    }
    if (!s->ioeventfd_disabled && !s->ioeventfd_started) {
        /* Legacy drivers kick before DRIVER_OK: start now, it kicks again. */
        virtio_device_start_ioeventfd(vdev);
        if (!s->ioeventfd_disabled) {
            return;
        }
    }
    if (virtio_blk_in_kernel(s)) {
        /* The driver has set this queue up after the others were started. */
        virtio_blk_vhost_leave(s, "another queue is in use");
    } else if (!qatomic_read(&q->reset)) {
        queue_run(q);
    }
}

static bool iothread_usable(VirtIOBlock *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    BusState *qbus = BUS(qdev_get_parent_bus(DEVICE(s)));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);

    if (!k->set_guest_notifiers || !k->ioeventfd_assign) {
        error_setg(errp, "device is incompatible with iothread "
                   "(transport does not support notifiers)");
        return false;
    }
    if (!virtio_device_ioeventfd_enabled(vdev)) {
        error_setg(errp, "ioeventfd is required for iothread");
        return false;
    }
    return true;
}

/* Fill @ctx, one entry a queue; takes references on iothreads. */
static bool place_queues(VirtIOBlock *s, AioContext **ctx, Error **errp)
{
    VirtIOBlkConf *conf = &s->conf;
    AioContext *all;

    if (conf->iothread && conf->iothread_vq_mapping_list) {
        error_setg(errp, "iothread and iothread-vq-mapping properties cannot "
                   "be set at the same time");
        return false;
    }
    if ((conf->iothread || conf->iothread_vq_mapping_list) &&
        !iothread_usable(s, errp)) {
        return false;
    }
    if (conf->iothread_vq_mapping_list) {
        return iothread_vq_mapping_apply(conf->iothread_vq_mapping_list, ctx,
                                         conf->num_queues, errp);
    }

    if (conf->iothread) {
        object_ref(OBJECT(conf->iothread));
        all = iothread_get_aio_context(conf->iothread);
    } else {
        all = qemu_get_aio_context();
    }
    for (unsigned i = 0; i < conf->num_queues; i++) {
        ctx[i] = all;
    }
    return true;
}

/* Is a queue the only one in its iothread? */
static bool context_is_alone(AioContext **ctx, unsigned num, unsigned i)
{
    for (unsigned j = 0; j < num; j++) {
        if (j != i && ctx[j] == ctx[i]) {
            return false;
        }
    }
    return ctx[i] != qemu_get_aio_context();
}

bool virtio_blk_queues_init(VirtIOBlock *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    unsigned num = s->conf.num_queues;
    g_autofree AioContext **ctx = g_new0(AioContext *, num);

    /* Without notifiers the vCPU threads serve the queues. */
    s->ioeventfd_disabled = !virtio_device_ioeventfd_enabled(vdev);
    if (!place_queues(s, ctx, errp)) {
        return false;
    }

    s->queues = g_new0(VirtIOBlkQueue, num);
    for (unsigned i = 0; i < num; i++) {
        s->queues[i].dev = s;
        s->queues[i].vq = virtio_add_queue(vdev, s->conf.queue_size,
                                           handle_output);
        s->queues[i].ctx = ctx[i];
        s->queues[i].alone = context_is_alone(ctx, num, i);
        s->queues[i].again = aio_bh_new(qemu_get_aio_context(),
                                        queue_again_bh, &s->queues[i]);
    }
    qemu_coroutine_inc_pool_size(num * s->conf.queue_size / 2);
    return true;
}

void virtio_blk_queues_cleanup(VirtIOBlock *s)
{
    VirtIOBlkConf *conf = &s->conf;

    assert(!s->ioeventfd_started);
    for (unsigned i = 0; i < conf->num_queues; i++) {
        qemu_bh_delete(s->queues[i].again);
        virtio_del_queue(VIRTIO_DEVICE(s), i);
    }
    qemu_coroutine_dec_pool_size(conf->num_queues * conf->queue_size / 2);
    if (conf->iothread_vq_mapping_list) {
        iothread_vq_mapping_cleanup(conf->iothread_vq_mapping_list);
    }
    if (conf->iothread) {
        object_unref(OBJECT(conf->iothread));
    }
    g_free(s->queues);
    s->queues = NULL;
}

/*
 * Somebody waits in the queue's own thread, below a defer_call() section: that
 * would not end before the wait does.
 */
static void done_settle(VirtIOBlkQueue *q)
{
    if (q->ctx == qemu_get_current_aio_context()) {
        virtio_blk_done_settle(q);
    }
}

bool virtio_blk_queues_busy(VirtIOBlock *s, VirtIOBlkQueue *q)
{
    if (q) {
        done_settle(q);
        return qatomic_read(&q->in_flight) > virtio_blk_bounced_count(q);
    }
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        if (virtio_blk_queues_busy(s, &s->queues[i])) {
            return true;
        }
    }
    return false;
}

void virtio_blk_wait_idle(VirtIOBlock *s, VirtIOBlkQueue *q)
{
    /*
     * A drain makes throttled requests go at once.  It does not wait for
     * requests that it held back itself, such as the parts of a failed merged
     * request: they run when it ends, and would be throttled, with everybody
     * waiting for them, but for a second one.
     */
    blk_drain(s->blk);
    if (virtio_blk_queues_busy(s, q)) {
        blk_drain(s->blk);
    }
    AIO_WAIT_WHILE_UNLOCKED(NULL, virtio_blk_queues_busy(s, q));
}

void virtio_blk_abandon(VirtIOBlock *s, VirtIOBlkQueue *q)
{
    virtio_blk_wait_idle(s, q);
    /* Not before: what was in flight may have been parked meanwhile. */
    virtio_blk_stopped_drop(s, q);
    virtio_blk_bounced_drop(s, q);
}

static void queue_attach(VirtIOBlkQueue *q)
{
    /* Also kicks the queue, for what came in while it was detached. */
    virtio_queue_aio_attach_host_notifier(q->vq, q->ctx);
}

void virtio_blk_queues_attach(VirtIOBlock *s)
{
    if (virtio_blk_in_kernel(s) || blk_in_drain(s->blk)) {
        return;
    }
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        if (!s->queues[i].reset) {
            queue_attach(&s->queues[i]);
        }
    }
}

/* A kick that no handler saw yet is void: the next attach kicks again. */
static void queue_detach_here(VirtIOBlkQueue *q)
{
    virtio_queue_aio_detach_host_notifier(q->vq, q->ctx);
    event_notifier_test_and_clear(virtio_queue_get_host_notifier(q->vq));
}

/* DetachCall: a detach that the main loop waits for. */
typedef struct DetachCall {
    VirtIOBlkQueue *q;
    QemuEvent done;
} DetachCall;

static void queue_detach_bh(void *opaque)
{
    DetachCall *call = opaque;

    queue_detach_here(call->q);
    qemu_event_set(&call->done);
}

/*
 * Done in the queue's thread, so that no handler of the queue runs beside it.
 * That thread does not wait for the main loop, and the main loop does nothing
 * else meanwhile, nor serves the queue: an interrupt or a bounce buffer may be
 * a reset of this device, half of whose queues are still attached.
 */
static void queue_detach(VirtIOBlkQueue *q)
{
    DetachCall call = { .q = q };

    if (q->ctx == qemu_get_aio_context()) {
        queue_detach_here(q);
        return;
    }
    qemu_event_init(&call.done, false);
    aio_bh_schedule_oneshot(q->ctx, queue_detach_bh, &call);
    qemu_event_wait(&call.done);
    qemu_event_destroy(&call.done);
}

void virtio_blk_drained_begin(void *opaque)
{
    VirtIOBlock *s = opaque;

    virtio_blk_engine_hold(s);
    if (!s->ioeventfd_started) {
        return;
    }
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        virtio_queue_aio_detach_host_notifier(s->queues[i].vq,
                                              s->queues[i].ctx);
    }
}

bool virtio_blk_drained_poll(void *opaque)
{
    VirtIOBlock *s = opaque;

    /* The BlockBackend outlives the queues. */
    for (unsigned i = 0; s->queues && i < s->conf.num_queues; i++) {
        done_settle(&s->queues[i]);
    }
    return virtio_blk_engine_busy(s);
}

void virtio_blk_drained_end(void *opaque)
{
    VirtIOBlock *s = opaque;

    virtio_blk_engine_release(s);
    /* Nodes are changed and reopened while they are drained. */
    if (virtio_blk_medium_changed(s)) {
        virtio_blk_resized(s);
    }
    if (s->ioeventfd_started) {
        virtio_blk_queues_attach(s);
    }
}

/* Give every queue its ioeventfd, in one memory transaction. */
static int host_notifiers_assign(VirtIOBlock *s)
{
    VirtioBusState *bus = VIRTIO_BUS(qdev_get_parent_bus(DEVICE(s)));
    unsigned num = s->conf.num_queues;
    unsigned n;
    int ret = 0;

    memory_region_transaction_begin();
    for (n = 0; n < num; n++) {
        ret = virtio_bus_set_host_notifier(bus, n, true);
        if (ret != 0) {
            error_report("virtio-blk: no host notifier for queue %u: %s",
                         n, strerror(-ret));
            break;
        }
    }
    if (ret != 0) {
        for (unsigned i = 0; i < n; i++) {
            virtio_bus_set_host_notifier(bus, i, false);
        }
    }
    memory_region_transaction_commit();

    if (ret != 0) {
        /* Only now: the commit still needed the file descriptors. */
        for (unsigned i = 0; i < n; i++) {
            virtio_bus_cleanup_host_notifier(bus, i);
        }
    }
    return ret;
}

static void host_notifiers_release(VirtIOBlock *s)
{
    VirtioBusState *bus = VIRTIO_BUS(qdev_get_parent_bus(DEVICE(s)));
    unsigned num = s->conf.num_queues;

    memory_region_transaction_begin();
    for (unsigned i = 0; i < num; i++) {
        virtio_bus_set_host_notifier(bus, i, false);
    }
    memory_region_transaction_commit();
    for (unsigned i = 0; i < num; i++) {
        virtio_bus_cleanup_host_notifier(bus, i);
    }
}

static int guest_notifiers_set(VirtIOBlock *s, bool assign)
{
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);

    return k->set_guest_notifiers(qbus->parent, s->conf.num_queues, assign);
}

static int notifiers_assign(VirtIOBlock *s)
{
    int ret = guest_notifiers_set(s, true);

    if (ret != 0) {
        error_report("virtio-blk: no guest notifiers: %s", strerror(-ret));
        return ret;
    }
    ret = host_notifiers_assign(s);
    if (ret != 0) {
        guest_notifiers_set(s, false);
    }
    return ret;
}

int virtio_blk_start_ioeventfd(VirtIODevice *vdev)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    Error *err = NULL;

    if (s->ioeventfd_started || s->ioeventfd_starting) {
        return 0;
    }
    if (s->queues_detached) {
        /* By what the waits of a stop let in; the next kick tries again. */
        return -EBUSY;
    }
    s->ioeventfd_starting = true;
    if (notifiers_assign(s) != 0) {
        s->ioeventfd_disabled = true;
        s->ioeventfd_starting = false;
        return -ENOSYS;
    }

    /* Block jobs do best in the thread of the first queue; it's no must. */
    if (blk_set_aio_context(s->blk, s->queues[0].ctx, &err) < 0) {
        warn_report_err(err);
    }

    /*
     * Not before: moving the context drains, and our drain callbacks must not
     * attach notifiers yet.
     */
    s->ioeventfd_starting = false;
    s->ioeventfd_started = true;
    /* Paired with the read side of the notifier that the attach kicks. */
    smp_wmb();

    if (!blk_in_drain(s->blk)) {
        virtio_blk_vhost_starting(s, true);
        virtio_blk_engine_select(s, "started");
        virtio_blk_vhost_starting(s, false);
        virtio_blk_queues_attach(s);
    }
    return 0;
}

void virtio_blk_stop_ioeventfd(VirtIODevice *vdev)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);

    if (!s->ioeventfd_started) {
        return;
    }
    if (virtio_blk_in_kernel(s)) {
        virtio_blk_vhost_give_back(s);
    }

    /*
     * In a drained section, too: that does not wait for a running handler.  No
     * events are handled until all are detached and none can come back.
     */
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        queue_detach(&s->queues[i]);
    }
    qatomic_set(&s->queues_detached, true);
    host_notifiers_release(s);

    /* From here on a drain neither detaches nor attaches. */
    s->ioeventfd_started = false;

    /* Restart bottom halves and requests in flight still use notifiers. */
    virtio_blk_wait_idle(s, NULL);
    virtio_blk_engine_stop(s);
    /* It stays where it is when someone else holds it there. */
    blk_set_aio_context(s->blk, qemu_get_aio_context(), NULL);
    guest_notifiers_set(s, false);
    qatomic_set(&s->queues_detached, false);
}

/*
 * VIRTIO 1.4, 2.6.1: once the driver reads the reset back, nothing of the
 * queue may run, complete or notify.
 */
void virtio_blk_queue_reset(VirtIODevice *vdev, uint32_t index)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    VirtIOBlkQueue *q;

    if (index >= s->conf.num_queues) {
        return;
    }
    q = &s->queues[index];
    qatomic_set(&q->reset, true);
    virtio_blk_vhost_leave(s, "a queue is reset");
    if (s->ioeventfd_started) {
        queue_detach(q);
    }
    virtio_blk_abandon(s, q);
    q->notify = false;
}

void virtio_blk_queue_enable(VirtIODevice *vdev, uint32_t index)
{
    VirtIOBlock *s = VIRTIO_BLK(vdev);
    VirtIOBlkQueue *q;

    if (index >= s->conf.num_queues || !s->queues[index].reset) {
        return;
    }
    q = &s->queues[index];
    q->reset = false;
    if (s->ioeventfd_started && !blk_in_drain(s->blk)) {
        queue_attach(q);
    }
    virtio_blk_vhost_leave(s, "a queue is enabled");
}
