/*
 * virtio-blk qtests: device reset with requests in flight or stopped
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "life.h"

#define SLOW_SECTOR     64
#define FAIL_SECTOR     128
#define QUIET_MS        100

/*
 * Issue 2, "reset ... with requests in flight": a request that is in the
 * backend when the driver resets the device is executed once, is not given
 * back afterwards, and the device can be used again.
 */
static void test_in_flight(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true,
    });
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);

    life_ok(vm, life_write_kick(vm, 0, 0, 2));
    g_assert_false(vblk_io_done(vm->v, io));
    vblk_reset(vm->v);

    /* What was in flight is over when the status reads 0: no late write. */
    life_setup(vm);
    life_ok(vm, life_write_kick(vm, 0, SLOW_SECTOR, 3));
    g_usleep(LIFE_DELAY_MS * 1000);
    life_assert_read(vm, 0, SLOW_SECTOR, 3);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), ==, 2);
    g_assert_cmpint(vblk_completions(vm->v, 0), ==, 2);
    vblk_io_abandon(vm->v, io);
    life_stop(vm);
}

/* The same for a queue in the throttle filter, which the reset must empty. */
static void test_throttled(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .throttle = true, .log = true });
    VblkIo *io[8];

    life_hold_writes(vm, vm->s.queues, io, ARRAY_SIZE(io));
    vblk_reset(vm->v);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        g_assert_cmpint(life_log_count(vm, i * 16, 1), <=, 1);
        vblk_io_abandon(vm->v, io[i]);
    }
    life_release(vm);
    life_setup(vm);
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
        g_assert_cmpint(vblk_completions(vm->v, q), ==, 2);
    }
    life_stop(vm);
}

/* Reset under a load that never pauses, again and again (Linux suspend). */
static void test_loop(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, 6);

    for (unsigned i = 0; i < 15; i++) {
        life_load_run(l, 20);
        vblk_reset(vm->v);
        life_load_forget(l);
        life_setup(vm);
    }
    life_load_run(l, 40);
    life_load_end(l);
    life_stop(vm);
}

/*
 * A reset waits for the queues' threads; meanwhile a job may end, in a drained
 * section.  The queues must not come back by that: before DRIVER_OK nothing may
 * be taken from the rings (VIRTIO 1.4, 3.1.1).
 */
static void test_beside_job(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .size = 1024 * 1024 });

    life_qmp(vm, "{'execute': 'blockdev-add', 'arguments': {'driver': "
             "'null-co', 'node-name': 'target', 'size': 1048576}}");
    for (unsigned i = 0; i < 60; i++) {
        VblkIo *io;

        life_qmp(vm, "{'execute': 'blockdev-backup', 'arguments': {"
                 "'job-id': 'j', 'device': '" VBLK_NODE "', "
                 "'target': 'target', 'sync': 'full'}}");
        g_usleep(i * 50);
        vblk_reset(vm->v);
        vblk_negotiate(vm->v);
        vblk_queues_setup(vm->v);
        io = life_write(vm, 0, 8 * i, i + 1);
        vblk_publish(vm->v, 0);
        life_untouched(vm, io, 1);
        vblk_driver_ok(vm->v);
        vblk_kick(vm->v, 0);
        life_ok(vm, io);
        vblk_expect_event(vm->v, "BLOCK_JOB_COMPLETED");
    }
    life_stop(vm);
}

/* A write that werror=stop parked, on each queue. */
static LifeVm *start_stopped(const LifeCase *c, VblkIo **io)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_ONCE("write", 128, 5), .log = true,
        .json = "\"werror\":\"stop\",",
    });

    *io = life_write_kick(vm, vm->s.queues - 1, FAIL_SECTOR, 1);
    life_wait_stopped(vm);
    life_assert_state(vm, "io-error");
    vblk_expect_pending(vm->v, (*io)->req, 0);
    return vm;
}

/* Issue 2, stopped requests: the driver's reset drops them for good. */
static void test_stopped(const LifeCase *c)
{
    VblkIo *io;
    LifeVm *vm = start_stopped(c, &io);

    vblk_reset(vm->v);
    life_cont(vm);
    life_untouched(vm, io, QUIET_MS);
    life_assert_image(vm, FAIL_SECTOR, 0);
    g_assert_cmpint(life_log_count(vm, FAIL_SECTOR, 1), ==, 0);
    vblk_io_abandon(vm->v, io);

    life_setup(vm);
    vblk_check_io(vm->v, vm->s.queues - 1);
    life_stop(vm);
}

static void wait_reset_done(LifeVm *vm)
{
    vblk_expect_event(vm->v, "RESET");
    qobject_unref(life_query(vm, "{'execute': 'query-status'}"));
}

/* The same by system_reset, which the management does to a stopped guest. */
static void test_stopped_system_reset(const LifeCase *c)
{
    VblkIo *io;
    LifeVm *vm = start_stopped(c, &io);

    life_qmp(vm, "{'execute': 'system_reset'}");
    wait_reset_done(vm);
    life_cont(vm);
    life_untouched(vm, io, QUIET_MS);
    life_assert_image(vm, FAIL_SECTOR, 0);
    vblk_io_abandon(vm->v, io);
    vblk_detach(vm->v);
    vblk_attach(vm->v);
    life_setup(vm);
    vblk_check_io(vm->v, vm->s.queues - 1);
    life_stop(vm);
}

/* system_reset while requests are in the backend: they end, none is lost. */
static void test_system_reset(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true,
    });
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);

    life_ok(vm, life_write_kick(vm, 0, 0, 2));
    life_qmp(vm, "{'execute': 'system_reset'}");
    wait_reset_done(vm);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), ==, 1);
    life_assert_image(vm, SLOW_SECTOR, 1);
    vblk_io_abandon(vm->v, io);
    vblk_detach(vm->v);
    vblk_attach(vm->v);
    life_setup(vm);
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

void life_add_reset_tests(void)
{
    life_add("reset/in-flight", LIFE_ALL, test_in_flight);
    life_add("reset/throttled", LIFE_PCI | LIFE_MMIO, test_throttled);
    life_add("reset/loop", LIFE_MAIN | LIFE_THREADS | LIFE_MMIO | LIFE_LEGACY |
             LIFE_NOEVENTFD, test_loop);
    life_add("reset/beside-job", LIFE_THREADS, test_beside_job);
    life_add("reset/stopped", LIFE_PCI | LIFE_MMIO | LIFE_LEGACY,
             test_stopped);
    life_add("reset/stopped-system-reset", LIFE_SPLIT,
             test_stopped_system_reset);
    life_add("reset/system-reset", LIFE_SPLIT, test_system_reset);
}
