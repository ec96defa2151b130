/*
 * virtio-blk qtests: a load that checks every byte and counts completions
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qjson.h"
#include "life.h"

uint64_t life_load_sector(LifeLoad *l, unsigned i)
{
    /* Every second block: neighbours would be merged. */
    return LIFE_LOAD_SECTOR + i * 2 * LIFE_SECTORS;
}

LifeLoad *life_load_new(LifeVm *vm, unsigned depth)
{
    LifeLoad *l = g_new0(LifeLoad, 1);

    l->vm = vm;
    l->queues = vm->s.queues;
    l->depth = depth;
    l->slots = g_new0(LifeSlot, l->queues * depth);
    for (unsigned q = 0; q < l->queues; q++) {
        l->base[q] = vblk_completions(vm->v, q);
    }
    return l;
}

static void slot_submit(LifeLoad *l, unsigned i)
{
    LifeSlot *slot = &l->slots[i];
    unsigned q = i / l->depth;
    Vblk *v = l->vm->v;

    if (slot->seed && !slot->reading) {
        slot->reading = true;
        slot->io = vblk_io(v, q, VIRTIO_BLK_T_IN, life_load_sector(l, i),
                           NULL, LIFE_BLOCK);
    } else {
        slot->reading = false;
        slot->seed = ++l->seed;
        slot->io = life_write(l->vm, q, life_load_sector(l, i), slot->seed);
    }
    l->submitted++;
    l->per_queue[q]++;
}

static void slot_reap(LifeLoad *l, unsigned i)
{
    LifeSlot *slot = &l->slots[i];
    uint8_t want[LIFE_BLOCK], got[LIFE_BLOCK];
    uint8_t status = vblk_io_wait(l->vm->v, slot->io,
                                  slot->reading ? got : NULL);

    g_assert_cmpint(status, ==, VIRTIO_BLK_S_OK);
    if (slot->reading) {
        vblk_pattern(want, sizeof(want), slot->seed);
        g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    }
    slot->io = NULL;
    l->completed++;
}

/* One round over queue @q; returns how many completed. */
static unsigned queue_round(LifeLoad *l, unsigned q, bool submit)
{
    unsigned reaped = 0, added = 0;

    for (unsigned i = q * l->depth; i < (q + 1) * l->depth; i++) {
        LifeSlot *slot = &l->slots[i];

        if (slot->io && vblk_io_done(l->vm->v, slot->io)) {
            slot_reap(l, i);
            reaped++;
        }
        if (!slot->io && submit) {
            slot_submit(l, i);
            added++;
        }
    }
    if (added) {
        /* Rings only if the device asked for it: it must not forget to. */
        vblk_kick(l->vm->v, q);
    }
    return reaped;
}

static unsigned in_flight(LifeLoad *l)
{
    return l->submitted - l->completed;
}

/* How long a stopped VM may look like a busy one. */
#define QUIET_US    100000

/* False if @may_stop, and the VM has stopped and nothing completes. */
static bool load_until(LifeLoad *l, uint64_t completed, bool submit,
                       bool may_stop)
{
    gint64 last = g_get_monotonic_time();

    while (l->completed < completed) {
        unsigned reaped = 0;
        gint64 quiet;

        for (unsigned q = 0; q < l->queues; q++) {
            reaped += queue_round(l, q, submit);
        }
        quiet = g_get_monotonic_time() - last;
        if (reaped) {
            last += quiet;
        } else if (may_stop && quiet > QUIET_US && !life_is_running(l->vm)) {
            return false;
        } else if (quiet > VBLK_WAIT_MS * 1000) {
            vblk_fail("no completion for %d ms, %u requests in flight",
                    VBLK_WAIT_MS, in_flight(l));
        }
    }
    return true;
}

void life_load_run(LifeLoad *l, unsigned n)
{
    load_until(l, l->completed + n, true, false);
}

bool life_load_while_running(LifeLoad *l, unsigned n)
{
    return load_until(l, l->completed + n, true, true);
}

void life_load_settle(LifeLoad *l)
{
    load_until(l, l->submitted, false, false);
    for (unsigned q = 0; q < l->queues; q++) {
        g_assert_cmpint(vblk_completions(l->vm->v, q) - l->base[q], ==,
                        l->per_queue[q]);
    }
}

void life_load_free(LifeLoad *l)
{
    g_free(l->slots);
    g_free(l);
}

void life_load_end(LifeLoad *l)
{
    life_load_settle(l);
    for (unsigned i = 0; i < l->queues * l->depth; i++) {
        if (l->slots[i].seed) {
            life_assert_read(l->vm, i / l->depth, life_load_sector(l, i),
                             l->slots[i].seed);
        }
    }
    life_load_free(l);
}

void life_load_forget(LifeLoad *l)
{
    for (unsigned i = 0; i < l->queues * l->depth; i++) {
        if (l->slots[i].io) {
            vblk_io_abandon(l->vm->v, l->slots[i].io);
            l->slots[i].io = NULL;
        }
        /* Whether it was executed or not is not known: write anew. */
        l->slots[i].seed = 0;
    }
    l->submitted = l->completed;
    memset(l->per_queue, 0, sizeof(l->per_queue));
    memset(l->base, 0, sizeof(l->base));
}

void life_load_qmp(LifeLoad *l, unsigned n, const char *fmt, ...)
{
    QDict *resp;
    va_list ap;

    va_start(ap, fmt);
    qtest_qmp_vsend(l->vm->v->qts, fmt, ap);
    va_end(ap);
    life_load_run(l, n);
    resp = qtest_qmp_receive(l->vm->v->qts);
    if (!qdict_haskey(resp, "return")) {
        g_autoptr(GString) s = qobject_to_json_pretty(QOBJECT(resp), true);

        vblk_fail("%s: %s", fmt, s->str);
    }
    qobject_unref(resp);
}

void life_load_event(LifeLoad *l, const char *event, unsigned busy)
{
    QDict *got = NULL;

    for (unsigned i = 0; i < busy && !got; i++) {
        life_load_run(l, 8);
        got = vblk_event(l->vm->v, event, 0);
    }
    if (!got) {
        /* A job may never end while there is always something new to copy. */
        life_load_settle(l);
        vblk_expect_event(l->vm->v, event);
    }
    qobject_unref(got);
}
