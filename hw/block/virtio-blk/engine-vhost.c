/*
 * virtio-blk: the engine that lets the kernel serve the queues
 *
 * The kernel takes whole virtqueues, while the node is a plain file with
 * nothing attached to it: no request comes by here any more.  Each drained
 * section, and whatever else may change the node, takes the queues back; what
 * the kernel has begun is done by then.
 *
 * They can be given away only while nobody else pops or completes requests of
 * theirs.  So this is tried from a timer, in a drained section of its own, and
 * also when the queues are started, since nothing runs then.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "block/block_int.h"
#include "block/dirty-bitmap.h"
#include "hw/virtio/virtio-access.h"
#include "hw/virtio/virtio-bus.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "system/block-backend.h"
#include "trace.h"
#include "vhost.h"

#define RETRY_MAX_MS    1000

const VirtIOBlkEngine virtio_blk_engine_vhost = {
    .name = "vhost",
    /* No request comes by: the other functions are never called. */
};

/*
 * Features that say how a ring looks or works, so that whoever serves it must
 * know them.
 */
static const int ring_features[] = {
    VIRTIO_F_NOTIFY_ON_EMPTY,
    VIRTIO_F_ANY_LAYOUT,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
    VIRTIO_F_IOMMU_PLATFORM,
    VIRTIO_F_RING_PACKED,
    VIRTIO_F_IN_ORDER,
    VIRTIO_F_NOTIFICATION_DATA,
    VHOST_INVALID_FEATURE_BIT,
};

/* ---- may the kernel have the queues? ---- */

/* Why the driver's way of using the device is not for the kernel, or NULL. */
static const char *driver_refuses(VirtIOBlock *s)
{
    VirtIODevice *vdev = virtio_blk_vdev(s);
    uint64_t known = s->vhost->hdev.features;

    if (vdev->broken) {
        return "the driver broke the device";
    }
    if (virtio_vdev_has_feature(vdev, VIRTIO_F_RING_PACKED)) {
        return "the rings are packed";
    }
    if (virtio_bus_device_iommu_enabled(vdev) &&
        virtio_host_has_feature(vdev, VIRTIO_F_IOMMU_PLATFORM)) {
        return "an IOMMU translates the driver's addresses";
    }
    for (unsigned i = 0; ring_features[i] != VHOST_INVALID_FEATURE_BIT; i++) {
        if (ring_features[i] != VIRTIO_F_IOMMU_PLATFORM &&
            virtio_vdev_has_feature(vdev, ring_features[i]) &&
            !virtio_has_feature(known, ring_features[i])) {
            return "the driver uses a feature that the kernel has not";
        }
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1) &&
        virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_SCSI)) {
        return "the driver may send SCSI commands";
    }
    if (virtio_blk_big_endian(s)) {
        return "the driver is big-endian";
    }
    return NULL;
}

/* Each request's own time is asked for; the kernel tells of sums. */
static bool times_wanted(BlockAcctStats *stats)
{
    for (unsigned i = 0; i < ARRAY_SIZE(stats->latency_histogram); i++) {
        if (stats->latency_histogram[i].bins) {
            return true;
        }
    }
    return block_acct_interval_next(stats, NULL);
}

/* Why what the user wants is not for the kernel, or NULL. */
static const char *user_refuses(VirtIOBlock *s)
{
    VirtIOBlkConf *conf = &s->conf;

    if (blk_get_on_error(s->blk, true) != BLOCKDEV_ON_ERROR_REPORT) {
        return "rerror is not report";
    }
    if (blk_get_on_error(s->blk, false) != BLOCKDEV_ON_ERROR_REPORT) {
        return "werror is not report";
    }
    if (conf->lifetime) {
        return "lifetime is on";
    }
    if (conf->write_zeroes_may_unmap == ON_OFF_AUTO_OFF) {
        return "write-zeroes-may-unmap is off";
    }
    if (conf->secure_erase &&
        !(s->vhost->features & VHOST_BLK_F_SECURE_ERASE)) {
        return "secure-erase is on, and the kernel has none";
    }
    if (blk_get_public(s->blk)->throttle_group_member.throttle_state) {
        return "I/O limits are set";
    }
    if (times_wanted(blk_get_stats(s->blk))) {
        return "latency histograms or interval statistics are kept";
    }
    return NULL;
}

static bool has_recording_bitmap(BlockDriverState *bs)
{
    BdrvDirtyBitmap *bitmap;

    FOR_EACH_DIRTY_BITMAP(bs, bitmap) {
        if (bdrv_dirty_bitmap_enabled(bitmap) ||
            bdrv_dirty_bitmap_has_successor(bitmap)) {
            return true;
        }
    }
    return false;
}

/*
 * A reason that goes without a sign: a drained section ends when the graph is
 * locked for the change, not after it.
 */
static const char other_user[] = "somebody else uses the node, too";

/* Why the nodes need to see requests, which plain.c leaves to the engine. */
static const char *nodes_refuse(VirtIOBlkPlain *plain)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    for (unsigned i = 0; i < ARRAY_SIZE(plain->node) && plain->node[i]; i++) {
        BlockDriverState *bs = plain->node[i];

        if (QLIST_NEXT(QLIST_FIRST(&bs->parents), next_parent)) {
            return other_user;
        }
        if (has_recording_bitmap(bs)) {
            return "a dirty bitmap records writes";
        }
        if (bs->write_threshold_offset) {
            return "a write threshold is set";
        }
    }
    return plain->no_flush ? "cache.no-flush is on" : NULL;
}

static const char *refusal(VirtIOBlock *s, VirtIOBlkPlain **plain)
{
    const char *why = NULL;

    *plain = NULL;
    if (!s->ioeventfd_started) {
        return "the queues are not started";
    }
    if (s->vhost->failed) {
        return "the kernel failed";
    }
    why = driver_refuses(s) ?: user_refuses(s);
    if (!why) {
        *plain = virtio_blk_plain_find(s, &why);
    }
    if (!why) {
        why = nodes_refuse(*plain);
    }
    if (!why && (*plain)->size !=
        virtio_blk_capacity(s) << BDRV_SECTOR_BITS) {
        why = "the file is shorter than the disk";
    }
    if (why) {
        g_clear_pointer(plain, g_free);
    }
    return why;
}

/* Nothing is popped and not given back, parked, or being reset. */
static bool rings_unused(VirtIOBlock *s)
{
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        if (qatomic_read(&s->queues[i].in_flight) || s->queues[i].reset) {
            return false;
        }
    }
    QEMU_LOCK_GUARD(&s->stopped_lock);
    return QSIMPLEQ_EMPTY(&s->stopped);
}

/* ---- statistics ---- */

/*
 * A flush failed, or a write that was one as well: with a page cache no later
 * one can be believed, whoever makes it.
 */
static void note_loss(VirtIOBlock *s, unsigned kind, int error)
{
    if (virtio_blk_in_kernel(s) &&
        (kind == VHOST_BLK_STAT_FLUSH ||
         (kind != VHOST_BLK_STAT_READ && !blk_enable_write_cache(s->blk)))) {
        bdrv_posix_flush_failed(virtio_blk_plain_file(s->plain), error);
    }
}

static void count_kind(VirtIOBlock *s, unsigned kind,
                       const struct vhost_blk_stat_kind *now,
                       const struct vhost_blk_stat_kind *before, int error)
{
    static const enum BlockAcctType types[] = {
        [VHOST_BLK_STAT_READ] = BLOCK_ACCT_READ,
        [VHOST_BLK_STAT_WRITE] = BLOCK_ACCT_WRITE,
        [VHOST_BLK_STAT_FLUSH] = BLOCK_ACCT_FLUSH,
        [VHOST_BLK_STAT_UNMAP] = BLOCK_ACCT_UNMAP,
        /* As the block layer's way of serving the request does. */
        [VHOST_BLK_STAT_ZEROES] = BLOCK_ACCT_WRITE,
    };

    block_acct_add(blk_get_stats(s->blk), types[kind], now->ops - before->ops,
                   now->bytes - before->bytes, now->failed - before->failed,
                   now->invalid - before->invalid,
                   now->time_ns - before->time_ns);
    if (now->failed != before->failed) {
        note_loss(s, kind, error);
        blk_error_action(s->blk, BLOCK_ERROR_ACTION_REPORT,
                         kind == VHOST_BLK_STAT_READ, error);
    }
}

/* Returns whether a ring of a queue turned out to be broken. */
static bool count_queues(VirtIOBlkVhost *v)
{
    bool broken = false;

    for (unsigned i = 0; i < v->dev->conf.num_queues; i++) {
        struct vhost_blk_stats now = { .index = i };
        struct vhost_blk_stats *before = &v->counted[i];

        if (virtio_blk_vhost_call(v, VHOST_BLK_GET_STATS, &now) < 0) {
            continue;
        }
        for (unsigned kind = 0; kind < VHOST_BLK_STAT_KINDS; kind++) {
            count_kind(v->dev, kind, &now.kind[kind], &before->kind[kind],
                       now.last_error ? -now.last_error : EIO);
        }
        *before = now;
        broken |= v->served[i] && (now.flags & VHOST_BLK_Q_BROKEN);
    }
    return broken;
}

void virtio_blk_vhost_stats(void *opaque)
{
    VirtIOBlock *s = opaque;

    if (s->vhost) {
        count_queues(s->vhost);
    }
}

/* ---- giving the queues away ---- */

static void set_limits(VirtIOBlock *s, const VirtIOBlkPlain *plain,
                       struct vhost_blk_limits *limits)
{
    VirtIOBlkConf *conf = &s->conf;

    *limits = (struct vhost_blk_limits) {
        .capacity = virtio_blk_capacity(s),
        .logical_block_size = conf->conf.logical_block_size,
        .max_discard_sectors = conf->max_discard_sectors,
        .max_discard_segments = conf->max_discard_segments,
        .max_write_zeroes_sectors = conf->max_write_zeroes_sectors,
        .max_write_zeroes_segments = conf->max_write_zeroes_segments,
    };
    if (conf->secure_erase) {
        limits->max_secure_erase_sectors = conf->max_secure_erase_sectors;
        limits->max_secure_erase_segments = conf->max_secure_erase_segments;
    }
    if (!blk_is_writable(s->blk)) {
        limits->flags |= VHOST_BLK_L_READ_ONLY;
    }
    if (!blk_enable_write_cache(s->blk)) {
        limits->flags |= VHOST_BLK_L_WRITE_THROUGH;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(plain->node) && plain->node[i]; i++) {
        if (!(plain->node[i]->open_flags & BDRV_O_UNMAP)) {
            limits->flags |= VHOST_BLK_L_KEEP_ALLOCATED;
        }
    }
}

static int tell_limits(VirtIOBlock *s, const VirtIOBlkPlain *plain)
{
    struct vhost_blk_limits limits;

    set_limits(s, plain, &limits);
    return virtio_blk_vhost_call(s->vhost, VHOST_BLK_SET_LIMITS, &limits);
}

static int tell_serial(VirtIOBlock *s)
{
    char serial[VHOST_BLK_SERIAL_LEN] = {};

    if (s->conf.serial) {
        memcpy(serial, s->conf.serial,
               strnlen(s->conf.serial, sizeof(serial)));
    }
    return virtio_blk_vhost_call(s->vhost, VHOST_BLK_SET_SERIAL, serial);
}

static void node_changed(Notifier *notifier, void *data)
{
    VirtIOBlkVhost *v = container_of(notifier, VirtIOBlkVhost, node_changed);
    BlockDriverState *bs = blk_bs(v->dev->blk);

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (bs && (bs == data || bdrv_primary_bs(bs) == data)) {
        virtio_blk_vhost_leave(v->dev, "the node changed");
    }
}

void virtio_blk_vhost_config_changed(VirtIOBlock *s)
{
    if (virtio_blk_in_kernel(s) && tell_limits(s, s->plain) < 0) {
        virtio_blk_vhost_leave(s, "the kernel refuses the configuration");
    }
}

static int serve_queue(VirtIOBlock *s, unsigned i)
{
    VirtIODevice *vdev = virtio_blk_vdev(s);
    struct vhost_vring_file file = { .index = i, .fd = s->plain->fd };
    int ret;

    if (!virtio_queue_get_desc_addr(vdev, i)) {
        /* Should the driver set it up later, its kick comes to us. */
        event_notifier_set_handler(
            virtio_queue_get_host_notifier(s->queues[i].vq),
            virtio_queue_host_notifier_read);
        return 0;
    }
    ret = virtio_blk_vhost_call(s->vhost, VHOST_BLK_SET_BACKEND, &file);
    s->vhost->served[i] = ret == 0;
    return ret;
}

static void stop_queues(VirtIOBlock *s)
{
    VirtIOBlkVhost *v = s->vhost;

    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        if (!v->served[i]) {
            event_notifier_set_handler(
                virtio_queue_get_host_notifier(s->queues[i].vq), NULL);
        }
        v->served[i] = false;
    }
    /* Returns when nothing of a queue is in flight. */
    vhost_dev_stop(&v->hdev, virtio_blk_vdev(s), false);
}

static int start_queues(VirtIOBlock *s)
{
    VirtIODevice *vdev = virtio_blk_vdev(s);
    struct vhost_dev *hdev = &s->vhost->hdev;
    int ret;

    ret = tell_serial(s) ?: tell_limits(s, s->plain);
    if (ret < 0) {
        return ret;
    }
    hdev->acked_features = 0;
    vhost_ack_features(hdev, ring_features, vdev->guest_features);
    ret = vhost_dev_start(hdev, vdev, false);
    if (ret < 0) {
        return ret;
    }
    /*
     * With it, x-query-virtio-queue-status would ask the kernel for the
     * position of a ring, which stops the queue.
     */
    vdev->vhost_started = false;
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        ret = serve_queue(s, i);
        if (ret < 0) {
            stop_queues(s);
            return ret;
        }
    }
    return 0;
}

/* Try to give the queues away, in @ms. */
static void take_soon(VirtIOBlkVhost *v, unsigned ms)
{
    timer_mod(v->take_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

static void take_later(VirtIOBlkVhost *v)
{
    v->take_delay_ms = MIN(MAX(2 * v->take_delay_ms, 1), RETRY_MAX_MS);
    take_soon(v, v->take_delay_ms);
}

bool virtio_blk_vhost_take(VirtIOBlock *s, const char **why)
{
    VirtIOBlkVhost *v = s->vhost;
    VirtIOBlkPlain *plain;
    int ret;

    if (!v) {
        return false;
    }
    *why = refusal(s, &plain);
    if (*why) {
        trace_virtio_blk_vhost_refused(virtio_blk_vdev(s), *why);
        if (*why == other_user) {
            v->take_delay_ms = 0;
            take_later(v);
        }
        return false;
    }
    *why = "the queues are in use, it will be tried again";
    if (!v->may_take) {
        v->take_delay_ms = 0;
        take_soon(v, 0);
    } else if (!rings_unused(s)) {
        trace_virtio_blk_vhost_refused(virtio_blk_vdev(s), *why);
        take_later(v);
    } else {
        s->plain = g_steal_pointer(&plain);
        ret = start_queues(s);
        if (ret == 0) {
            *why = NULL;
            return true;
        }
        *why = "the kernel failed";
        warn_report("virtio-blk: the kernel does not take the queues (%s), "
                    "requests are served in userspace", strerror(-ret));
        v->failed = true;
        g_clear_pointer(&s->plain, g_free);
    }
    g_free(plain);
    return false;
}

static void nothing(void *opaque)
{
}

static void take_now(void *opaque)
{
    VirtIOBlkVhost *v = opaque;
    VirtIOBlock *s = v->dev;
    BlockDriverState *bs = blk_bs(s->blk);
    VirtIOBlkPlain *plain;
    const char *why;

    if (virtio_blk_in_kernel(s) || blk_in_drain(s->blk)) {
        return;
    }
    why = refusal(s, &plain);
    g_free(plain);
    if (why) {
        if (why == other_user) {
            take_later(v);
        }
        return;
    }
    object_ref(OBJECT(s));
    bdrv_ref(bs);
    bdrv_drained_begin(bs);
    /* A handler that was running when its notifier was detached has ended. */
    for (unsigned i = 0; s->ioeventfd_started && i < s->conf.num_queues; i++) {
        aio_wait_bh_oneshot(s->queues[i].ctx, nothing, NULL);
    }
    if (s->vhost == v) {
        v->may_take = s->ioeventfd_started;
    }
    bdrv_drained_end(bs);
    bdrv_unref(bs);
    if (s->vhost == v) {
        v->may_take = false;
    }
    object_unref(OBJECT(s));
}

void virtio_blk_vhost_starting(VirtIOBlock *s, bool starting)
{
    if (s->vhost) {
        s->vhost->may_take = starting;
    }
}

/* ---- taking them back ---- */

void virtio_blk_vhost_give_back(VirtIOBlock *s)
{
    VirtIOBlkPlain *plain = s->plain;

    stop_queues(s);
    count_queues(s->vhost);
    /* Nobody else has seen the kernel's writes: the next flush is needed. */
    for (unsigned i = 0; i < ARRAY_SIZE(plain->node) && plain->node[i]; i++) {
        bdrv_bypass_write_done(plain->node[i], 0, 0);
    }
    g_clear_pointer(&s->plain, g_free);
    qatomic_set(&s->engine, &virtio_blk_engine_block);
}

void virtio_blk_vhost_leave(VirtIOBlock *s, const char *why)
{
    if (!s->vhost || !s->ioeventfd_started) {
        return;
    }
    if (!virtio_blk_in_kernel(s)) {
        take_soon(s->vhost, 0);
        return;
    }
    virtio_blk_vhost_give_back(s);
    virtio_blk_engine_select(s, why);
    virtio_blk_queues_attach(s);
}

void virtio_blk_vhost_stopped(VirtIOBlock *s)
{
    if (s->vhost) {
        timer_del(s->vhost->take_timer);
        s->vhost->failed = false;
    }
}

/* ---- life ---- */

static void ring_error(EventNotifier *notifier)
{
    struct vhost_virtqueue *vq = container_of(notifier, struct vhost_virtqueue,
                                              error_notifier);
    VirtIOBlkVhost *v = container_of(vq->dev, VirtIOBlkVhost, hdev);
    VirtIOBlock *s = v->dev;

    if (!event_notifier_test_and_clear(notifier)) {
        return;
    }
    if (count_queues(v)) {
        /* The request is in the ring still: let the front end judge it. */
        v->failed = true;
        virtio_blk_vhost_leave(s, "the kernel refuses a ring");
    } else if (virtio_blk_in_kernel(s) &&
               bdrv_posix_flush_error(virtio_blk_plain_file(s->plain))) {
        virtio_blk_vhost_leave(s, "a flush failed");
    }
}

static bool transport_usable(VirtIOBlock *s, Error **errp)
{
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);

    if (!k->set_guest_notifiers || s->ioeventfd_disabled) {
        error_setg(errp, "the kernel cannot serve the queues without "
                   "ioeventfd; use ioeventfd=on, or io-engine=auto");
        return false;
    }
    return true;
}

bool virtio_blk_vhost_realize(VirtIOBlock *s, Error **errp)
{
    VirtIOBlkVhost *v;

    if (!transport_usable(s, errp)) {
        return false;
    }
    v = virtio_blk_vhost_open(s, errp);
    if (!v) {
        return false;
    }
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        event_notifier_set_handler(&v->vqs[i].error_notifier, ring_error);
    }
    v->take_timer = timer_new_ms(QEMU_CLOCK_REALTIME, take_now, v);
    v->node_changed.notify = node_changed;
    bdrv_bypass_add_notifier(&v->node_changed);
    /* The kernel signals the guest's notifiers themselves. */
    virtio_blk_vdev(s)->use_guest_notifier_mask = false;
    s->vhost = v;
    return true;
}

void virtio_blk_vhost_unrealize(VirtIOBlock *s)
{
    VirtIOBlkVhost *v = s->vhost;

    if (v) {
        s->vhost = NULL;
        notifier_remove(&v->node_changed);
        timer_free(v->take_timer);
        virtio_blk_vhost_close(v);
    }
}
