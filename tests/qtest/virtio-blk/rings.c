/*
 * virtio-blk qtests: queue sizes and numbers, wrap, order, notifications
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "hw/pci/pci_regs.h"
#include "qobject/qnum.h"
#include "fixture.h"

#define OK                  VIRTIO_BLK_S_OK
#define MAX_QUEUES          8

/* One write each to @n sectors as one batch; then the same for reads. */
static void batch_rw(Vblk *v, unsigned q, unsigned n, uint32_t seed)
{
    g_autofree VblkIo **io = g_new(VblkIo *, n);
    uint8_t data[VBLK_SECTOR], back[VBLK_SECTOR];

    for (unsigned i = 0; i < n; i++) {
        vblk_pattern(data, sizeof(data), seed + i);
        io[i] = vblk_io(v, q, VIRTIO_BLK_T_OUT, i, data, sizeof(data));
    }
    vblk_kick(v, q);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(vblk_io_wait(v, io[i], NULL), ==, OK);
    }
    for (unsigned i = 0; i < n; i++) {
        io[i] = vblk_io(v, q, VIRTIO_BLK_T_IN, i, NULL, sizeof(back));
    }
    vblk_kick(v, q);
    for (unsigned i = 0; i < n; i++) {
        vblk_pattern(data, sizeof(data), seed + i);
        g_assert_cmpint(vblk_io_wait(v, io[i], back), ==, OK);
        g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    }
}

/* How many requests of vblk_io() go into the ring at once. */
static unsigned ring_fits(Vblk *v)
{
    return v->q[0].size / (v->o.indirect ? 1 : 3);
}

static void check_size(Vblk *v, unsigned size)
{
    unsigned rounds = size > 64 ? 2 : 12;

    v->o.ring_size = size;
    vblk_setup(v);
    for (unsigned i = 0; i < rounds; i++) {
        batch_rw(v, 0, ring_fits(v), i * 1000);
    }
}

/* Issue 2, "queue sizes": a driver may use less than what is offered. */
static void test_sizes(const VblkVariant *variant)
{
    static const unsigned sizes[] = { 4, 8, 16, 32, 64, 256, 512, 1024 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        if (sizes[i] <= vblk_queue_max(v, 0)) {
            check_size(v, sizes[i]);
        }
    }
    vblk_stop(v);
}

/* VIRTIO 1.4, 2.8.1: packed rings have any size, a power of 2 or not. */
static void test_odd_sizes(const VblkVariant *variant)
{
    static const unsigned sizes[] = { 5, 7, 33, 100 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        check_size(v, sizes[i]);
    }
    vblk_stop(v);
}

/* B5: legacy drivers take the size that the device says. */
static void test_legacy_size(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    batch_rw(v, 0, ring_fits(v), 1);
    batch_rw(v, 0, ring_fits(v), 2);
    vblk_stop(v);
}

/* Wrap of the ring at every offset: batches that do not divide its size. */
static void test_wrap(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.ring_size = 16;
    v = vblk_start(&o);
    for (unsigned i = 0; i < 60; i++) {
        batch_rw(v, 0, 1 + i % ring_fits(v), i * 100);
    }
    g_assert_cmpint(vblk_completions(v, 0), >, 6 * 16);
    vblk_stop(v);
}

/* The 16-bit index of a split ring passes 65535. */
static void test_index_wrap(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;
    VblkQueue *vq;
    VblkReq *req;
    VblkChain c = {};

    o.ring_size = o.queue_size = 1024;
    v = vblk_start(&o);
    vq = &v->q[0];
    /* Flushes in a table each; all use the same memory. */
    vblk_chain_header(v, &c, VIRTIO_BLK_T_FLUSH, 0);
    vblk_chain_status(v, &c);
    v->o.indirect = true;
    for (unsigned done = 0; done < 65536 + 512; done += 512) {
        VblkReq *reqs[512];

        for (unsigned i = 0; i < 512; i++) {
            VblkRawDesc d[2] = {
                { c.out[0].addr, 16, VRING_DESC_F_NEXT, 1 },
                { c.status, 1, VRING_DESC_F_WRITE, 0 },
            };
            reqs[i] = vblk_submit_raw(v, 0, d, 2);
        }
        vblk_kick(v, 0);
        for (unsigned i = 0; i < 512; i++) {
            vblk_wait(v, reqs[i], NULL);
        }
    }
    g_assert_cmpint(vq->completions, >, 65536);
    req = vblk_chain_submit(v, 0, &c);
    vblk_kick(v, 0);
    vblk_wait(v, req, NULL);
    vblk_stop(v);
}

/* ---- several queues ---- */

/* Issue 2, "1..N queues": each works, alone and with the others. */
static void test_queues(const VblkVariant *variant)
{
    for (unsigned n = 1; n <= MAX_QUEUES; n += n < 3 ? 1 : 5) {
        VblkOpts o = vblk_opts(variant);
        VblkIo *io[MAX_QUEUES];
        Vblk *v;

        o.num_queues = n;
        v = vblk_start(&o);
        g_assert_cmpint(vblk_has(v, VIRTIO_BLK_F_MQ), ==, n > 1);
        g_assert_cmpint(vblk_cfg(v, num_queues), ==, n);
        for (unsigned q = 0; q < n; q++) {
            vblk_check_io(v, q);
            io[q] = vblk_io(v, q, VIRTIO_BLK_T_IN, 0, NULL, VBLK_SECTOR);
        }
        for (unsigned q = 0; q < n; q++) {
            vblk_kick(v, q);
        }
        for (unsigned q = 0; q < n; q++) {
            g_assert_cmpint(vblk_io_wait(v, io[q], NULL), ==, OK);
        }
        /* There is no queue behind the last. */
        g_assert_cmpint(vblk_queue_max(v, n), ==, 0);
        vblk_stop(v);
    }
}

/* Doorbells of queues that are not set up, or not there, are ignored. */
static void test_stray_doorbell(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;
    VblkQueue *vq;

    o.num_queues = 2;
    v = vblk_start(&o);
    vblk_reset(v);
    vblk_negotiate(v);
    vblk_queue_setup(v, 0);
    vblk_driver_ok(v);
    vq = &v->q[1];
    vq->notify_off = v->q[0].notify_off;
    for (unsigned i = 1; i < 70; i++) {
        vq->index = i;
        vblk_notify(v, 1);
    }
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* Old guests kick before DRIVER_OK; the request must not be lost. */
static void test_early_kick(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkIo *io;

    vblk_reset(v);
    vblk_negotiate(v);
    vblk_queues_setup(v);
    io = vblk_io(v, 0, VIRTIO_BLK_T_IN, 0, NULL, VBLK_SECTOR);
    vblk_kick(v, 0);
    g_assert_cmpint(vblk_io_wait(v, io, NULL), ==, OK);
    vblk_driver_ok(v);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* ---- order ---- */

/* Issue 2: completions in another order than submissions. */
static void test_out_of_order(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint8_t a[VBLK_SECTOR], b[VBLK_SECTOR], back[VBLK_SECTOR];
    VblkIo *first, *second;
    Vblk *v;

    o.blkdebug = true;
    v = vblk_start(&o);
    vblk_pattern(a, sizeof(a), 1);
    vblk_pattern(b, sizeof(b), 2);
    vblk_hold(v, "pwritev", "first");
    first = vblk_io(v, 0, VIRTIO_BLK_T_OUT, 0, a, sizeof(a));
    vblk_kick(v, 0);
    vblk_wait_held(v, "first");
    for (unsigned i = 0; i < 10; i++) {
        second = vblk_io(v, 0, VIRTIO_BLK_T_OUT, 100, b, sizeof(b));
        vblk_kick(v, 0);
        g_assert_cmpint(vblk_io_wait(v, second, NULL), ==, OK);
    }
    g_assert_false(vblk_io_done(v, first));
    g_assert_cmpint(vblk_io_status(v, first), ==, VBLK_S_UNTOUCHED);
    vblk_release(v, "first");
    g_assert_cmpint(vblk_io_wait(v, first, NULL), ==, OK);
    g_assert_cmpint(vblk_read(v, 0, back, sizeof(back)), ==, OK);
    g_assert_cmpmem(a, sizeof(a), back, sizeof(back));
    g_assert_cmpint(vblk_read(v, 100, back, sizeof(back)), ==, OK);
    g_assert_cmpmem(b, sizeof(b), back, sizeof(back));
    vblk_stop(v);
}

/* ---- interrupts ---- */

/*
 * An iothread sets the cause; the main loop sets it again when it raises the
 * line.  Who looks in between sees it twice: wait until the line is up.
 */
static void wait_line(Vblk *v)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (vblk_is_pci(v) && !(qpci_config_readw(v->pdev, PCI_STATUS) &
                               PCI_STATUS_INTERRUPT)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* INTx or the MMIO line: one for a completion, none without. */
static void test_irq(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkIo *io;

    g_assert_false(vblk_irq(v, 0));
    io = vblk_io(v, 0, VIRTIO_BLK_T_IN, 0, NULL, VBLK_SECTOR);
    vblk_kick(v, 0);
    wait_line(v);
    vblk_wait_irq(v, 0);
    g_assert_true(vblk_io_done(v, io));
    vblk_io_wait(v, io, NULL);
    if (o.iothread && !vblk_is_pci(v)) {
        /* What wait_line() is for: the line of MMIO cannot be seen. */
        g_usleep(50 * 1000);
        vblk_irq(v, 0);
    }
    g_assert_false(vblk_irq(v, 0));
    g_assert_false(vblk_config_irq(v));
    vblk_stop(v);
}

/* Issue 2, "vectors": MSI-X, a vector for each queue. */
static void test_msix(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.msix = true;
    o.num_queues = 4;
    v = vblk_start(&o);
    for (unsigned q = 0; q < 4; q++) {
        VblkIo *io = vblk_io(v, q, VIRTIO_BLK_T_IN, 0, NULL, VBLK_SECTOR);

        vblk_kick(v, q);
        vblk_wait_irq(v, q);
        vblk_io_wait(v, io, NULL);
        for (unsigned other = 0; other < 4; other++) {
            g_assert_false(vblk_irq(v, other));
        }
    }
    g_assert_false(vblk_config_irq(v));
    vblk_stop(v);
}

static void expect_irq(Vblk *v, bool expect)
{
    VblkIo *io = vblk_io(v, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);

    vblk_kick(v, 0);
    vblk_io_wait(v, io, NULL);
    if (expect) {
        vblk_wait_irq(v, 0);
    } else {
        g_usleep(5000);
        g_assert_false(vblk_irq(v, 0));
    }
}

static void mute(Vblk *v, bool on)
{
    if (vblk_has(v, VIRTIO_F_RING_PACKED)) {
        qtest_writew(v->qts, v->q[0].avail + 2, on ? 1 : 0);
    } else {
        qtest_writew(v->qts, v->q[0].avail,
                     on ? VRING_AVAIL_F_NO_INTERRUPT : 0);
    }
}

/* A driver that asks for no interrupts gets none (no EVENT_IDX). */
static void test_no_interrupt(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    mute(v, true);
    expect_irq(v, false);
    expect_irq(v, false);
    mute(v, false);
    expect_irq(v, true);
    vblk_stop(v);
}

static void set_used_event(Vblk *v, unsigned ahead)
{
    VblkQueue *vq = &v->q[0];
    unsigned at = vq->used_idx + ahead;
    bool wrap = vq->used_wrap;

    if (!vblk_has(v, VIRTIO_F_RING_PACKED)) {
        qtest_writew(v->qts, vq->avail + 4 + 2 * vq->size, at);
        return;
    }
    if (at >= vq->size) {
        at -= vq->size;
        wrap = !wrap;
    }
    qtest_writel(v->qts, vq->avail, at | wrap << 15 | 2 << 16);
}

/* EVENT_IDX: the interrupt comes with the completion asked for, no other. */
static void test_event_idx(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint8_t back[VBLK_SECTOR];
    Vblk *v;

    o.event_idx = true;
    o.indirect = true;      /* one ring entry for each request */
    o.keep_used_event = true;
    o.ring_size = 8;
    v = vblk_start(&o);
    /* The device may send the first one whatever the index says. */
    vblk_read(v, 0, back, sizeof(back));
    vblk_irq(v, 0);
    for (unsigned round = 0; round < 5; round++) {
        set_used_event(v, 2);
        expect_irq(v, false);
        expect_irq(v, false);
        expect_irq(v, true);
        expect_irq(v, false);
    }
    vblk_stop(v);
}

/* A read; was its doorbell asked for? */
static bool read_asked(Vblk *v)
{
    VblkIo *io = vblk_io(v, 0, VIRTIO_BLK_T_IN, 0, NULL, VBLK_SECTOR);
    bool asked = vblk_kick(v, 0);

    g_assert_cmpint(vblk_io_wait(v, io, NULL), ==, OK);
    return asked;
}

/* EVENT_IDX: an idle device asks for the next doorbell, each time. */
static void test_event_idx_kick(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.event_idx = true;
    /* A legacy driver has no say in it. */
    o.ring_size = variant->transport == VBLK_PCI_LEGACY ? 0 : 16;
    v = vblk_start(&o);
    for (unsigned i = 0; i < 50; i++) {
        unsigned waits = 0;

        while (!read_asked(v)) {
            /* An iothread looks for more a little before it is idle. */
            g_assert_true(variant->iothread && waits < 10);
            g_usleep(1000 << waits++);
        }
    }
    vblk_stop(v);
}

void vblk_add_ring_tests(void)
{
    vblk_add("ring/sizes", VBLK_ON_MODERN | VBLK_ON_INDIRECT |
             VBLK_ON_PACKED_IND, test_sizes);
    vblk_add("ring/odd-sizes", VBLK_ON_PACKED | VBLK_ON_PACKED_IND,
             test_odd_sizes);
    vblk_add("ring/legacy-size", VBLK_ON_LEGACY | VBLK_ON_MMIO_LEGACY,
             test_legacy_size);
    vblk_add("ring/wrap", VBLK_ON_MODERN | VBLK_ON_INDIRECT |
             VBLK_ON_PACKED_IND, test_wrap);
    vblk_add("ring/index-wrap", VBLK_ON_SPLIT, test_index_wrap);
    vblk_add("ring/queues", VBLK_ON_MOST, test_queues);
    vblk_add("ring/stray-doorbell", VBLK_ON_MOST, test_stray_doorbell);
    vblk_add("ring/early-kick", VBLK_ON_LEGACY | VBLK_ON_MMIO_LEGACY,
             test_early_kick);
    /* blkdebug resumes a request in the main loop, not in an iothread. */
    vblk_add("ring/out-of-order",
             VBLK_ON_ALL & ~VBLK_ON_IOTHREAD & ~VBLK_ON_MMIO_IOT,
             test_out_of_order);
    vblk_add("irq/line", VBLK_ON_ALL, test_irq);
    vblk_add("irq/msix", VBLK_ON_SPLIT | VBLK_ON_PACKED | VBLK_ON_LEGACY,
             test_msix);
    vblk_add("irq/none-wanted", VBLK_ON_MOST, test_no_interrupt);
    vblk_add("irq/event-idx", VBLK_ON_MODERN, test_event_idx);
    vblk_add("ring/event-idx-kick", VBLK_ON_MOST, test_event_idx_kick);
}
