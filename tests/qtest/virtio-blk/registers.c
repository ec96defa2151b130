/*
 * virtio-blk qtests: buffers and rings in the registers of a device
 *
 * To write there is left to the main loop.  An iothread that reads there would
 * wait for a lock whose holder may wait for the iothread: it is refused.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "standard-headers/linux/virtio_mmio.h"
#include "standard-headers/linux/virtio_pci.h"
#include "transport.h"

#define ROUNDS      100         /* of a race, which the first few meet */
#define RING        8           /* entries: they fit between registers */
#define SECTOR      64
#define WORD        4           /* bytes of a descriptor */

/* The configuration space: reading it has no side effect. */
static uint64_t registers(Vblk *v)
{
    return vblk_is_pci(v) ? v->bar.addr + v->device :
                            v->mmio + VIRTIO_MMIO_CONFIG;
}

/* ---- reads from the disk ---- */

/* Submit a read of a sector, @len bytes of it to @at, those before to RAM. */
static void submit_read(Vblk *v, uint64_t at, unsigned len)
{
    VblkChain c = {};

    vblk_chain_header(v, &c, VIRTIO_BLK_T_IN, 0);
    if (len < VBLK_SECTOR) {
        vblk_chain_in(v, &c, VBLK_SECTOR - len);
    }
    c.in[c.nin++] = (VblkSeg) { at, len };
    vblk_chain_status(v, &c);
    vblk_chain_submit(v, 0, &c);
}

/* A read into the device's own doorbells must not confuse it. */
static void test_own(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t where[] = {
        v->bar.addr + v->notify, v->bar.addr + v->device,
        v->bar.addr + v->isr,
    };

    for (unsigned i = 0; i < ARRAY_SIZE(where); i++) {
        submit_read(v, where[i], VBLK_SECTOR);
        vblk_kick(v, 0);
        g_usleep(20000);
        vblk_recover(v);
    }
    vblk_stop(v);
}

/*
 * A read into the device's own status register, that is: a reset by the very
 * request that it waits for.  Stock waits for ever.
 */
static void own_status(const VblkVariant *variant, bool iothread)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    if (iothread) {
        o.args = "-object iothread,id=t0";
        o.props = "iothread=t0";
    }
    v = vblk_start(&o);
    submit_read(v, v->bar.addr + v->common, VBLK_SECTOR);
    vblk_kick(v, 0);
    /* A byte of common configuration; zero once the reset is there. */
    for (int i = 0; vblk_status(v); i++) {
        g_assert_cmpint(i, <, 5000);
        g_usleep(1000);
    }
    vblk_recover(v);
    vblk_stop(v);
}

static void test_own_status(const VblkVariant *variant)
{
    own_status(variant, false);
    own_status(variant, true);
}

/*
 * A stop of the VM takes the queue from its iothread, just when a request that
 * has ended there resets the device.
 */
static void test_reset_in_stop(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t status = vblk_is_pci(v) ?
                      v->bar.addr + v->common + VIRTIO_PCI_COMMON_STATUS :
                      v->mmio + VIRTIO_MMIO_STATUS;

    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned j = 0; j < 8; j++) {
            submit_read(v, status, WORD);
        }
        vblk_publish(v, 0);
        vblk_notify(v, 0);
        qtest_qmp_assert_success(v->qts, "{ 'execute': 'stop' }");
        qtest_qmp_assert_success(v->qts, "{ 'execute': 'cont' }");
        vblk_setup(v);
    }
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* ---- writes to the disk ---- */

#define PART        (VBLK_SECTOR / 4)   /* of a sector: from registers */

/* Submit a write of what is @at, @step bytes a descriptor, and zeroes. */
static VblkReq *submit_write(Vblk *v, uint64_t at, unsigned step)
{
    VblkChain c = {};

    vblk_chain_header(v, &c, VIRTIO_BLK_T_OUT, SECTOR);
    for (unsigned i = 0; i < PART; i += step) {
        c.out[c.nout++] = (VblkSeg) { at + i, step };
    }
    c.out[c.nout++] = (VblkSeg) { vblk_alloc(v, VBLK_SECTOR),
                                  VBLK_SECTOR - PART };
    vblk_chain_status(v, &c);
    return vblk_chain_submit(v, 0, &c);
}

/*
 * An iothread writes nothing to the disk rather than something that is not
 * there; without, the registers are data like any other.
 */
static void check_write(Vblk *v, uint64_t at, unsigned step, bool iothread)
{
    uint8_t was[VBLK_SECTOR], now[VBLK_SECTOR];
    VblkReq *req;

    vblk_pattern(was, sizeof(was), 3);
    g_assert_cmpint(vblk_write(v, SECTOR, was, sizeof(was)), ==, 0);
    req = submit_write(v, at, step);
    vblk_publish(v, 0);
    vblk_notify(v, 0);
    if (iothread) {
        vblk_expect_broken(v, 0);
        g_assert_false(vblk_done(v, req));
        vblk_setup(v);
    } else {
        vblk_wait(v, req, NULL);
        memset(was, 0, sizeof(was));
        qtest_memread(v->qts, at, was, PART);
    }
    g_assert_cmpint(vblk_read(v, SECTOR, now, sizeof(now)), ==, 0);
    g_assert_cmpmem(now, sizeof(now), was, sizeof(was));
}

static void test_write(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    /* Below the registers of PCI is nothing; below those of MMIO others are. */
    uint64_t before = (vblk_is_pci(v) ? v->bar.addr : v->mmio) - PART / 2;

    check_write(v, registers(v), WORD, variant->iothread);
    check_write(v, registers(v), PART, variant->iothread);
    check_write(v, before, PART, variant->iothread);
    vblk_recover(v);
    vblk_stop(v);
}

/* The reset waits for the iothread, just when that wants the registers. */
static void test_write_reset(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    for (unsigned i = 0; i < ROUNDS; i++) {
        /* Many descriptors: they take their time. */
        submit_write(v, registers(v), WORD);
        submit_write(v, registers(v), WORD);
        vblk_publish(v, 0);
        vblk_notify(v, 0);
        vblk_setup(v);
    }
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* ---- rings ---- */

/* Set up the device with one part of its ring in registers. */
static void place_ring(Vblk *v, unsigned part)
{
    VblkQueue *q = &v->q[0];
    uint64_t *where[] = { &q->desc, &q->avail, &q->used };
    uint64_t ram;

    vblk_reset(v);
    vblk_negotiate(v);
    vblk_queues_setup(v);
    ram = *where[part];
    *where[part] = registers(v);
    vblk_bus(v)->enable(v, q);
    *where[part] = ram;
    vblk_driver_ok(v);
}

/*
 * In an iothread such a queue breaks the device before it does anything; in the
 * main loop it does what it can.  To the kernel vhost gives a copy of registers
 * for a ring, whatever the thread.  None hangs QEMU.
 */
static void test_ring(const VblkVariant *variant)
{
    bool breaks = variant->iothread &&
                  g_str_has_prefix(vblk_type(true), "virtio");
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.ring_size = RING;
    v = vblk_start(&o);
    for (unsigned part = 0; part < 3; part++) {
        place_ring(v, part);
        if (breaks) {
            vblk_expect_broken(v, 0);
        } else {
            vblk_notify(v, 0);
            g_usleep(1000);
        }
        vblk_recover(v);
    }
    vblk_stop(v);
}

void vblk_add_register_tests(void)
{
    unsigned where = VBLK_ON_SPLIT | VBLK_ON_PACKED | VBLK_ON_IOTHREAD |
                     VBLK_ON_MMIO_IOT;

    vblk_add("registers/own", VBLK_ON_SPLIT | VBLK_ON_PACKED, test_own);
    vblk_add("registers/own-status", VBLK_ON_SPLIT | VBLK_ON_PACKED,
             test_own_status);
    vblk_add("registers/reset-in-stop", where, test_reset_in_stop);
    vblk_add("registers/write", where, test_write);
    vblk_add("registers/write-beside-reset", where, test_write_reset);
    vblk_add("registers/ring", where, test_ring);
}
