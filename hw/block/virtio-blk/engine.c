/*
 * virtio-blk: which engine serves the device
 *
 * The choice is made while the node has no requests, mostly at the end of a
 * drained section, in which all changes of the block graph are made.  In a
 * drained section the fast engine has nothing in flight and no hold on the
 * node; requests that start nevertheless go to the block layer, which keeps
 * them until the end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/aio.h"
#include "block/aio-wait.h"
#include "qapi/error.h"
#include "system/block-backend.h"
#include "system/system.h"
#include "internal.h"
#include "trace.h"

static bool wants(VirtIOBlock *s, const char *name)
{
    const char *want = s->conf.io_engine;

    return want && !strcmp(want, name);
}

static bool wants_auto(VirtIOBlock *s)
{
    return !s->conf.io_engine || wants(s, "auto");
}

static bool is_vhost_type(VirtIOBlock *s)
{
    return VIRTIO_BLK_GET_CLASS(s)->vhost;
}

static bool wants_vhost(VirtIOBlock *s)
{
    return wants(s, "vhost") || (!s->conf.io_engine && is_vhost_type(s));
}

bool virtio_blk_engine_may_be_vhost(VirtIOBlock *s)
{
    return wants_vhost(s) || (wants_auto(s) && is_vhost_type(s));
}

static bool in_build(const char *name)
{
#ifdef CONFIG_LINUX_IO_URING
    if (!strcmp(name, "io_uring")) {
        return true;
    }
#endif
#ifdef CONFIG_VHOST_BLK
    if (!strcmp(name, "vhost")) {
        return true;
    }
#endif
    return !strcmp(name, "auto") || !strcmp(name, "block");
}

static bool name_check(VirtIOBlock *s, Error **errp)
{
    static const char *const names[] = { "auto", "block", "io_uring",
                                         "vhost" };
    g_autoptr(GString) have = g_string_new(NULL);
    bool known = false;

    if (!s->conf.io_engine || in_build(s->conf.io_engine)) {
        return true;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++) {
        known |= wants(s, names[i]);
        if (in_build(names[i])) {
            g_string_append_printf(have, "%s%s", i ? ", " : "", names[i]);
        }
    }
    error_setg(errp, "io-engine=%s is not %s; use one of %s",
               s->conf.io_engine, known ? "in this build" : "known",
               have->str);
    return false;
}

bool virtio_blk_engine_check(VirtIOBlock *s, Error **errp)
{
#ifndef CONFIG_LINUX_IO_URING
    if (s->conf.register_memory == ON_OFF_AUTO_ON) {
        error_setg(errp, "register-memory=on needs io_uring, which is not in "
                   "this build; use register-memory=off");
        return false;
    }
#endif
    return name_check(s, errp);
}

#ifdef CONFIG_LINUX_IO_URING
/* Memory that is locked anyway costs little more when it is registered. */
static bool wants_memory(VirtIOBlock *s)
{
    return s->conf.register_memory == ON_OFF_AUTO_ON ||
           (s->conf.register_memory == ON_OFF_AUTO_AUTO &&
            mlock_state == MLOCK_ON);
}
#endif

static void memory_open(VirtIOBlock *s)
{
#ifdef CONFIG_LINUX_IO_URING
    if (wants_memory(s)) {
        virtio_blk_pinned_ref(s->conf.register_memory == ON_OFF_AUTO_ON);
        s->registers_memory = true;
    }
#endif
}

static void memory_close(VirtIOBlock *s)
{
#ifdef CONFIG_LINUX_IO_URING
    if (s->registers_memory) {
        virtio_blk_pinned_unref(s->conf.register_memory == ON_OFF_AUTO_ON);
        s->registers_memory = false;
    }
#endif
}

uint64_t virtio_blk_engine_memory(VirtIOBlock *s)
{
#ifdef CONFIG_LINUX_IO_URING
    return s->registers_memory ? virtio_blk_pinned_bytes() : 0;
#else
    return 0;
#endif
}

bool virtio_blk_engine_open(VirtIOBlock *s, Error **errp)
{
#ifdef CONFIG_VHOST_BLK
    Error *err = NULL;

    if (virtio_blk_engine_may_be_vhost(s) &&
        !virtio_blk_vhost_realize(s, &err)) {
        if (wants_vhost(s)) {
            error_propagate(errp, err);
            return false;
        }
        trace_virtio_blk_vhost_refused(virtio_blk_vdev(s),
                                       error_get_pretty(err));
        error_free(err);
    }
#endif
    if (s->conf.vhostfd && !s->vhost) {
        error_setg(errp, "vhostfd needs io-engine=vhost or auto");
        return false;
    }
    memory_open(s);
    return true;
}

void virtio_blk_engine_close(VirtIOBlock *s)
{
    memory_close(s);
    virtio_blk_vhost_unrealize(s);
}

#ifdef CONFIG_LINUX_IO_URING
/* May io_uring serve the node as it is now?  Sets s->plain then. */
static bool uring_allowed(VirtIOBlock *s, const char **why)
{
    if (wants(s, virtio_blk_engine_block.name)) {
        *why = "io-engine=block";
        return false;
    }
    if (!s->ioeventfd_started) {
        *why = "the queues are not started";
        return false;
    }
    if (!virtio_blk_uring_usable()) {
        *why = "the kernel has no io_uring for us";
        return false;
    }
    s->plain = virtio_blk_plain_find(s, why);
    if (s->plain && s->plain->aio_chosen &&
        !wants(s, virtio_blk_engine_uring.name)) {
        *why = "the node's aio option names another way";
        g_clear_pointer(&s->plain, g_free);
    }
    return s->plain != NULL;
}
#endif

void virtio_blk_engine_select(VirtIOBlock *s, const char *why)
{
    const VirtIOBlkEngine *engine = &virtio_blk_engine_block;
    const char *no_vhost = NULL;

    g_clear_pointer(&s->plain, g_free);
#ifdef CONFIG_VHOST_BLK
    if (virtio_blk_vhost_take(s, &no_vhost)) {
        engine = &virtio_blk_engine_vhost;
    }
#endif
#ifdef CONFIG_LINUX_IO_URING
    if (!s->plain && uring_allowed(s, &why)) {
        engine = &virtio_blk_engine_uring;
        if (s->registers_memory && s->plain->direct) {
            virtio_blk_pinned_want();
        }
    }
#endif
    s->engine_why = no_vhost ?:
                    engine == &virtio_blk_engine_block ? why
                                                       : "the node is plain";
    if (s->engine != engine) {
        qatomic_set(&s->engine, engine);
        trace_virtio_blk_engine(VIRTIO_DEVICE(s), engine->name,
                                s->engine_why);
    }
    /* Everything above is seen by a queue's thread that sees this. */
    qatomic_store_release(&s->engine_held, false);
}

void virtio_blk_engine_hold(VirtIOBlock *s)
{
    qatomic_set(&s->engine_held, true);
    /* Paired with the barrier in virtio_blk_engine_enter(). */
    smp_mb();
    if (virtio_blk_in_kernel(s)) {
        virtio_blk_vhost_give_back(s);
        s->engine_why = "the node is drained";
        trace_virtio_blk_engine(VIRTIO_DEVICE(s), s->engine->name, "drain");
    }
    for (unsigned i = 0; s->engine->let_go && i < s->conf.num_queues; i++) {
        VirtIOBlkQueue *q = &s->queues[i];

        if (!qatomic_read(&q->fast_letting_go)) {
            qatomic_set(&q->fast_letting_go, true);
            s->engine->let_go(q);
        }
    }
}

static void release_bh(void *opaque)
{
    VirtIOBlock *s = opaque;

    if (s->engine_waits && !blk_in_drain(s->blk)) {
        virtio_blk_engine_release(s);
    }
    object_unref(OBJECT(s));
}

void virtio_blk_engine_release(VirtIOBlock *s)
{
    /*
     * The graph's write lock is taken in a drained section that waits for
     * nobody.  What is in flight ends on the old engine; new requests go to
     * the block layer until then.
     */
    qatomic_set(&s->engine_waits, true);
    /* Paired with the barrier in idle_kick(). */
    smp_mb();
    if (!virtio_blk_engine_busy(s)) {
        qatomic_set(&s->engine_waits, false);
        virtio_blk_engine_select(s, "drained");
    }
}

/* Wake the main loop: a drain that waits, or a release that could not. */
static void idle_kick(VirtIOBlock *s)
{
    /* Paired with the barrier in virtio_blk_engine_release(). */
    smp_mb();
    if (qatomic_read(&s->engine_waits)) {
        object_ref(OBJECT(s));
        aio_bh_schedule_oneshot(qemu_get_aio_context(), release_bh, s);
    }
    aio_wait_kick();
}

void virtio_blk_engine_let_go(VirtIOBlkQueue *q)
{
    qatomic_store_release(&q->fast_letting_go, false);
    idle_kick(q->dev);
}

void virtio_blk_engine_stop(VirtIOBlock *s)
{
    qatomic_set(&s->engine_waits, false);
    virtio_blk_vhost_stopped(s);
    if (!blk_in_drain(s->blk)) {
        virtio_blk_engine_select(s, "stopped");
    }
#ifdef CONFIG_LINUX_IO_URING
    for (unsigned i = 0; i < s->conf.num_queues; i++) {
        VirtIOBlkQueue *q = &s->queues[i];

        if (q->uring) {
            aio_wait_bh_oneshot(q->ctx, virtio_blk_uring_close, q);
        }
    }
#endif
}

void virtio_blk_engine_inactive(VirtIOBlkQueue *q)
{
    VirtIOBlock *s = q->dev;
    /* Once the count is 0 the main loop may choose another one. */
    const VirtIOBlkEngine *engine = qatomic_read(&s->engine);
    unsigned active = q->fast_active - 1;

    /* Whoever sees the count fall sees all that was done before. */
    qatomic_store_release(&q->fast_active, active);
    if (active == 0) {
        if (engine->idle) {
            engine->idle(q);
        }
        idle_kick(s);
    }
}

bool virtio_blk_engine_busy(VirtIOBlock *s)
{
    for (unsigned i = 0; s->engine->enter && i < s->conf.num_queues; i++) {
        if (qatomic_load_acquire(&s->queues[i].fast_active) ||
            qatomic_load_acquire(&s->queues[i].fast_letting_go)) {
            return true;
        }
    }
    return false;
}

const VirtIOBlkEngine *virtio_blk_engine_enter(VirtIOBlkQueue *q)
{
    VirtIOBlock *s = q->dev;
    const VirtIOBlkEngine *engine;

    if (!qatomic_read(&s->engine)->enter) {
        return &virtio_blk_engine_block;
    }
    qatomic_set(&q->fast_active, q->fast_active + 1);
    /*
     * Either the main loop sees that we are active and waits for us, or we
     * see that it holds the engine.
     */
    smp_mb();
    engine = qatomic_read(&s->engine);
    if (!qatomic_load_acquire(&s->engine_held) && engine->enter &&
        engine->enter(q)) {
        return engine;
    }
    virtio_blk_engine_inactive(q);
    return &virtio_blk_engine_block;
}
