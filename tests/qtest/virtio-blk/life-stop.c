/*
 * virtio-blk qtests: stop and cont, resize
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "life.h"

#define SLOW_SECTOR     64
#define QUIET_MS        30
#define GROWN           (LIFE_DISK_SIZE + 8 * 1024 * 1024)

static void stop_vm(LifeVm *vm)
{
    life_qmp(vm, "{'execute': 'stop'}");
    vblk_expect_event(vm->v, "STOP");
}

static void check_all_queues(LifeVm *vm)
{
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
    }
}

/* B8, issue 2, stop/cont: stop waits for what is in the backend, once. */
static void test_in_flight(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true,
    });
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);

    life_ok(vm, life_write_kick(vm, vm->s.queues - 1, 0, 2));
    life_wait_taken(vm, 0);
    vblk_expect_pending(vm->v, io->req, 0);
    stop_vm(vm);
    g_assert_true(vblk_io_done(vm->v, io));
    life_ok(vm, io);
    life_assert_image(vm, SLOW_SECTOR, 1);
    life_cont(vm);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), ==, 1);
    check_all_queues(vm);
    life_stop(vm);
}

/* Requests in a throttle queue are let go by stop, each once. */
static void test_throttled(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .throttle = true, .log = true });
    VblkIo *io[8];

    life_hold_writes(vm, vm->s.queues, io, ARRAY_SIZE(io));
    stop_vm(vm);
    life_release(vm);
    life_cont(vm);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        life_ok(vm, io[i]);
        g_assert_cmpint(life_log_count(vm, i * 16, 1), ==, 1);
    }
    check_all_queues(vm);
    life_stop(vm);
}

/*
 * A merged request fails while the VM stops: its parts are tried by themselves,
 * and the stop waits for them, too.
 */
static void test_merged(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_LATE("write", 64) "," LIFE_SLOW("write", 72),
        .json = "\"werror\":\"report\",",
    });
    VblkIo *io[2];

    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = life_write(vm, 0, SLOW_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    vblk_kick(vm->v, 0);
    life_wait_taken(vm, 0);
    stop_vm(vm);
    g_assert_cmpint(vblk_completions(vm->v, 0), ==, ARRAY_SIZE(io));
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        life_ok(vm, io[i]);
        life_assert_image(vm, SLOW_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    g_assert_cmpint(vblk_stat(vm->v, "wr_merged"), >, 0);
    life_cont(vm);
    check_all_queues(vm);
    life_stop(vm);
}

/*
 * The same with limits, which allow the merged request and nothing more: the
 * stop does not wait for the clock.  (It stands still here.)
 */
static void test_merged_limits(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_LATE("write", 64),
        .json = "\"werror\":\"report\",",
    });
    VblkIo *io[4];

    life_qmp(vm, "{'execute': 'block_set_io_throttle', 'arguments': {'id': "
             "%s, 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': 1, 'iops_rd': 0,"
             " 'iops_wr': 0}}", vblk_qom_path(vm->v));
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = life_write(vm, 0, SLOW_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    vblk_kick(vm->v, 0);
    life_wait_taken(vm, 0);
    vblk_expect_pending(vm->v, io[0]->req, 0);
    stop_vm(vm);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        life_ok(vm, io[i]);
        life_assert_image(vm, SLOW_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    g_assert_cmpint(vblk_stat(vm->v, "wr_merged"), >, 0);
    life_stop(vm);
}

static uint64_t all_completions(LifeVm *vm)
{
    uint64_t n = 0;

    for (unsigned q = 0; q < vm->s.queues; q++) {
        n += vblk_completions(vm->v, q);
    }
    return n;
}

/*
 * B8, known bugs, "deadlock on QMP stop" and "crash on stop/cont under I/O": a
 * load goes through many of them; while stopped nothing is completed.
 */
static void test_loop(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, 6);
    uint64_t before;

    for (unsigned i = 0; i < 15; i++) {
        life_load_run(l, 20);
        stop_vm(vm);
        before = all_completions(vm);
        g_usleep(2000);
        g_assert_cmpint(all_completions(vm), ==, before);
        life_cont(vm);
    }
    life_load_run(l, 40);
    life_load_end(l);
    life_stop(vm);
}

/* B8: stop and cont sent in one go, the load goes on meanwhile. */
static void test_no_pause(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, 6);

    for (unsigned i = 0; i < 15; i++) {
        life_load_run(l, 10);
        qtest_qmp_send(vm->v->qts, "{'execute': 'stop'}");
        qtest_qmp_send(vm->v->qts, "{'execute': 'cont'}");
        life_load_run(l, 10);
        qobject_unref(qtest_qmp_receive(vm->v->qts));
        qobject_unref(qtest_qmp_receive(vm->v->qts));
        life_drop_events(vm);
    }
    life_load_end(l);
    life_assert_state(vm, "running");
    life_stop(vm);
}

/*
 * B7, known bug "main loop at 100% CPU": after starts and stops of the queues
 * an idle machine uses no time.
 */
static void test_idle(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    unsigned before;

    for (unsigned i = 0; i < 5; i++) {
        check_all_queues(vm);
        stop_vm(vm);
        life_cont(vm);
        vblk_reset(vm->v);
        life_setup(vm);
    }
    check_all_queues(vm);
    g_usleep(50000);
    before = life_cpu_ms(vm);
    g_usleep(400000);
    g_assert_cmpint(life_cpu_ms(vm) - before, <, 100);
    life_stop(vm);
}

static void resize(LifeVm *vm, int64_t size)
{
    life_qmp(vm, "{'execute': 'block_resize', 'arguments': {'node-name': "
             VBLK_NODE_QMP ", 'size': %" PRId64 "}}", size);
}

/* Row 19, issue 2 "resize notifies": interrupt, capacity, new sectors work. */
static void test_resize(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    uint64_t end = LIFE_DISK_SIZE / VBLK_SECTOR;
    uint32_t gen = 0;

    g_assert_cmpint(vblk_cfg(vm->v, capacity), ==, end);
    life_ioerr(vm, life_write_kick(vm, 0, end, 1));
    vblk_config_irq(vm->v);
    if (vblk_is_modern(vm->v)) {
        gen = vblk_cfg_generation(vm->v);
    }

    resize(vm, GROWN);
    vblk_wait_config_irq(vm->v);
    g_assert_cmpint(vblk_cfg(vm->v, capacity), ==, GROWN / VBLK_SECTOR);
    if (vblk_is_modern(vm->v)) {
        g_assert_cmpint(vblk_cfg_generation(vm->v), !=, gen);
    }
    life_ok(vm, life_write_kick(vm, 0, end, 2));
    life_assert_read(vm, 0, end, 2);

    resize(vm, LIFE_DISK_SIZE);
    vblk_wait_config_irq(vm->v);
    g_assert_cmpint(vblk_cfg(vm->v, capacity), ==, end);
    life_ioerr(vm, life_write_kick(vm, 0, end, 3));
    check_all_queues(vm);
    life_stop(vm);
}

/* Row 19: the same under a load: no request suffers. */
static void test_resize_load(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, 6);

    for (unsigned i = 1; i <= 8; i++) {
        int64_t size = LIFE_DISK_SIZE + i * 65536;

        vblk_config_irq(vm->v);
        life_load_qmp(l, 30, "{'execute': 'block_resize', 'arguments': "
                      "{'node-name': " VBLK_NODE_QMP ", 'size': %" PRId64
                      "}}", size);
        vblk_wait_config_irq(vm->v);
        g_assert_cmpint(vblk_cfg(vm->v, capacity), ==, size / VBLK_SECTOR);
    }
    life_load_end(l);
    life_stop(vm);
}

void life_add_stop_tests(void)
{
    life_add("stop/in-flight", LIFE_PCI | LIFE_MMIO | LIFE_NOEVENTFD,
             test_in_flight);
    life_add("stop/merged", LIFE_PCI | LIFE_MMIO | LIFE_NOEVENTFD,
             test_merged);
    life_add("stop/merged-limits", LIFE_PCI | LIFE_MMIO | LIFE_NOEVENTFD,
             test_merged_limits);
    life_add("stop/throttled", LIFE_PCI | LIFE_MMIO, test_throttled);
    life_add("stop/loop", LIFE_ALL, test_loop);
    life_add("stop/no-pause", LIFE_PCI | LIFE_NOEVENTFD, test_no_pause);
    life_add("stop/idle", LIFE_PCI | LIFE_MMIO | LIFE_LEGACY, test_idle);
    life_add("resize/quiet", LIFE_SPLIT | LIFE_MMIO | LIFE_LEGACY |
             LIFE_NOEVENTFD, test_resize);
    life_add("resize/load", LIFE_MAIN | LIFE_THREADS, test_resize_load);
}
