/*
 * virtio-blk qtests: reset of one queue (VIRTIO_F_RING_RESET)
 *
 * Specification row 56: once the reset reads back, nothing of that queue may
 * run or notify; the other queues go on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "life.h"

#define SLOW_SECTOR     64
#define QUIET_MS        50
#define RR_CASES        (LIFE_PCI | LIFE_NOEVENTFD)

/* The memory of a ring the driver took back, to see whether it is left alone */
typedef struct OldRing {
    uint64_t addr;
    size_t len;
    void *was;
} OldRing;

static OldRing ring_keep(LifeVm *vm, unsigned q)
{
    VblkQueue *vq = &vm->v->q[q];
    OldRing old = { .addr = vq->mem, .len = 8192 };

    old.was = g_malloc(old.len);
    qtest_memread(vm->v->qts, old.addr, old.was, old.len);
    return old;
}

static void ring_untouched(LifeVm *vm, OldRing *old)
{
    g_autofree void *now = g_malloc(old->len);

    qtest_memread(vm->v->qts, old->addr, now, old->len);
    g_assert_cmpmem(now, old->len, old->was, old->len);
    g_clear_pointer(&old->was, g_free);
}

/*
 * Reset @q; its old ring, as the driver left it, goes to @old.  The memory is
 * never used again: a page is put in its place.
 */
static void reset_queue(LifeVm *vm, unsigned q, OldRing *old)
{
    Vblk *v = vm->v;

    vblk_queue_reset_begin(v, q);
    vblk_queue_reset_wait(v, q);
    *old = ring_keep(vm, q);
    v->q[q].mem = vblk_alloc(v, 4096);
    vblk_queue_forget(v, q);
}

static void enable_queue(LifeVm *vm, unsigned q, unsigned size)
{
    unsigned was = vm->v->o.ring_size;

    vm->v->o.ring_size = size;
    vblk_queue_setup(vm->v, q);
    vm->v->o.ring_size = was;
}

/* What came from queue @q to the driver until now is none of its business. */
static void forget_irq(LifeVm *vm, unsigned q)
{
    vblk_irq(vm->v, q);
}

/*
 * Row 56, B20: a request in the backend when its queue is reset: it is either
 * dropped or finished before the reset reads back, never after.
 */
static void test_in_flight(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true, .msix = true,
    });
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);
    OldRing old;
    uint8_t status;

    life_wait_taken(vm, 0);
    vblk_expect_pending(vm->v, io->req, 0);
    reset_queue(vm, 0, &old);
    forget_irq(vm, 0);
    status = vblk_io_status(vm->v, io);
    vblk_check_io(vm->v, 1);

    g_usleep((LIFE_DELAY_MS + QUIET_MS) * 1000);
    g_assert_cmpint(vblk_io_status(vm->v, io), ==, status);
    g_assert_false(vblk_irq(vm->v, 0));
    ring_untouched(vm, &old);

    enable_queue(vm, 0, 32);
    vblk_check_io(vm->v, 0);
    g_assert_cmpint(vblk_completions(vm->v, 0), ==, 2);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), <=, 1);
    vblk_io_abandon(vm->v, io);
    life_stop(vm);
}

/*
 * Row 56, B20: the new ring, elsewhere and smaller, is enabled at once: no
 * completion of the old ring's requests may land in it (stock: they do).
 */
static void test_reenable(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .throttle = true });
    VblkIo *io[6], *other;
    OldRing old;

    life_hold_writes(vm, 1, io, ARRAY_SIZE(io));
    other = life_write_kick(vm, 1, 256, 7);
    reset_queue(vm, 0, &old);
    enable_queue(vm, 0, 16);
    life_release(vm);
    life_ok(vm, other);
    g_usleep(QUIET_MS * 1000);
    g_assert_cmpint(vblk_completions(vm->v, 0), ==, 0);
    ring_untouched(vm, &old);
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        vblk_io_abandon(vm->v, io[i]);
    }
    life_stop(vm);
}

/* Late: both are taken before the VM stops. */
#define STOP_RULES LIFE_FAIL_LATE("write", 64) "," \
                   LIFE_FAIL_LATE("write", 128)

/*
 * Row 56: parked requests of the queue are dropped, those of another one
 * restart.
 */
static void test_stopped(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = STOP_RULES, .log = true, .json = "\"werror\":\"stop\",",
    });
    VblkIo *gone = life_write(vm, 0, 64, 1), *other = life_write(vm, 1, 128, 2);
    OldRing old;

    vblk_kick(vm->v, 0);
    vblk_kick(vm->v, 1);
    life_wait_stopped(vm);
    vblk_expect_pending(vm->v, gone->req, 20);
    vblk_expect_pending(vm->v, other->req, 0);
    reset_queue(vm, 0, &old);
    life_cont(vm);
    life_ok(vm, other);
    life_untouched(vm, gone, QUIET_MS);
    ring_untouched(vm, &old);
    life_assert_image(vm, 64, 0);
    g_assert_cmpint(life_log_count(vm, 64, 1), ==, 0);

    enable_queue(vm, 0, 32);
    vblk_check_io(vm->v, 0);
    vblk_io_abandon(vm->v, gone);
    life_stop(vm);
}

/* Row 56: a doorbell for a queue that is reset starts nothing. */
static void test_kick(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    VblkIo *io;
    OldRing old;
    uint32_t off;

    vblk_check_io(vm->v, 0);
    io = life_write(vm, 0, 64, 1);
    vblk_publish(vm->v, 0);
    off = vm->v->q[0].notify_off;
    reset_queue(vm, 0, &old);
    qpci_io_writew(vm->v->pdev, vm->v->bar, off, 0);
    life_untouched(vm, io, QUIET_MS);
    ring_untouched(vm, &old);
    life_assert_image(vm, 64, 0);
    enable_queue(vm, 0, 64);
    vblk_check_io(vm->v, 0);
    vblk_io_abandon(vm->v, io);
    life_stop(vm);
}

/* Row 56: again and again, while the other queues are at work. */
static void test_loop(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .queues = c->queues + 1 });
    unsigned last = c->queues;
    LifeLoad *l = life_load_new(vm, 4);
    VblkIo *io[6];
    OldRing old;

    l->queues = last;       /* the load leaves the last queue to us */
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned i = 0; i < 4; i++) {
            io[i] = life_write(vm, last, 64 + i * 16, round + 1);
        }
        vblk_kick(vm->v, last);
        life_load_run(l, 10);
        for (unsigned i = 4; i < ARRAY_SIZE(io); i++) {
            io[i] = life_write_kick(vm, last, 1024 + i * 16, 1);
        }
        reset_queue(vm, last, &old);
        life_load_run(l, 10);
        ring_untouched(vm, &old);
        enable_queue(vm, last, 32 << round % 2);
        vblk_check_io(vm->v, last);
        for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
            vblk_io_abandon(vm->v, io[i]);
        }
    }
    life_load_end(l);
    life_stop(vm);
}

/* Row 56: reset reads 0 and the queue is disabled afterwards. */
static void test_registers(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    OldRing old;

    g_assert_true(vblk_has(vm->v, VIRTIO_F_RING_RESET));
    for (unsigned q = 0; q < vm->s.queues; q++) {
        unsigned max = vblk_queue_max(vm->v, q);

        reset_queue(vm, q, &old);
        g_free(old.was);
        g_assert_cmpint(qpci_io_readw(vm->v->pdev, vm->v->bar,
                                      vm->v->common + 0x1c), ==, 0);
        g_assert_cmpint(vblk_queue_max(vm->v, q), >=, max);
        enable_queue(vm, q, 64);
        vblk_check_io(vm->v, q);
    }
    /* The whole device still resets, with one queue in reset. */
    reset_queue(vm, 0, &old);
    g_free(old.was);
    vblk_reset(vm->v);
    life_setup(vm);
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

void life_add_ring_reset_tests(void)
{
    life_add("ring-reset/in-flight", RR_CASES, test_in_flight);
    life_add("ring-reset/re-enable", RR_CASES, test_reenable);
    life_add("ring-reset/stopped", RR_CASES, test_stopped);
    life_add("ring-reset/kick", RR_CASES, test_kick);
    life_add("ring-reset/loop", RR_CASES, test_loop);
    life_add("ring-reset/registers", LIFE_SPLIT, test_registers);
}
