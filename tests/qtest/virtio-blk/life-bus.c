/*
 * virtio-blk qtests: what the bus and a broken driver do to a busy device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "hw/pci/pci_regs.h"
#include "life.h"

#define SLOW_SECTOR     64
#define QUIET_MS        30

/* A chain without a place for the status byte: no framing at all. */
static void submit_malformed(LifeVm *vm, unsigned q)
{
    VblkSeg seg = { vblk_alloc(vm->v, 16), 16 };

    vblk_submit(vm->v, q, &seg, 1, NULL, 0);
    vblk_publish(vm->v, q);
    vblk_notify(vm->v, q);
}

static void wait_needs_reset(LifeVm *vm)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (!(vblk_status(vm->v) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(200);
    }
}

/*
 * B11, known bug "virtio_error() from an iothread without the BQL": a
 * malformed request on each queue in turn breaks the device, tells the driver
 * by status and config interrupt, and a reset cures it.
 */
static void test_broken(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .msix = true });

    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
        vblk_config_irq(vm->v);
        submit_malformed(vm, q);
        wait_needs_reset(vm);
        vblk_wait_config_irq(vm->v);
        vblk_reset(vm->v);
        g_assert_cmpint(vblk_status(vm->v), ==, 0);
        life_setup(vm);
        vblk_check_io(vm->v, q);
    }
    life_stop(vm);
}

/* B11: the same with INTx, whose level another thread must not touch. */
static void test_broken_intx(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });

    for (unsigned i = 0; i < 4; i++) {
        submit_malformed(vm, i % vm->s.queues);
        wait_needs_reset(vm);
        vblk_wait_config_irq(vm->v);
        vblk_reset(vm->v);
        life_setup(vm);
    }
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

/*
 * Every time an interrupt line went up, by the trace: in which thread?  Returns
 * how often it is told (never later than QEMU 10.0, whose lines have no
 * thread); all must have been in @thread.
 */
static unsigned raised_in(const char *log, long thread)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) line = NULL;
    unsigned n = 0;

    if (!g_file_get_contents(log, &text, NULL, NULL)) {
        return 0;
    }
    line = g_strsplit(text, "\n", 0);
    for (unsigned i = 0; line[i]; i++) {
        if (strstr(line[i], ":ioapic_set_irq") &&
            g_str_has_suffix(line[i], "level: 1")) {
            const char *end;
            int64_t id;

            g_assert_cmpint(qemu_strtoi64(line[i], &end, 10, &id), ==, 0);
            g_assert_cmpint(id, ==, thread);
            n++;
        }
    }
    return n;
}

/* B11: it is the main loop that raises the interrupt, for it has the BQL. */
static void test_broken_thread(const LifeCase *c)
{
    g_autofree char *log = life_temp("trace", 0);
    g_autofree char *args = g_strdup_printf("-trace ioapic_set_irq "
                                            "-msg timestamp=on -D %s", log);
    LifeVm *vm;

    unlink(log);
    vm = life_start(c, &(LifeSpec) { .args = args });
    for (unsigned q = 0; q < vm->s.queues; q++) {
        submit_malformed(vm, q);
        wait_needs_reset(vm);
        vblk_wait_config_irq(vm->v);
        vblk_reset(vm->v);
        life_setup(vm);
    }
    if (!raised_in(log, qtest_pid(vm->v->qts))) {
        g_test_skip("this QEMU's log does not tell the thread");
    }
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    unlink(log);
}

/* B11: malformed requests while the other requests are in the backend. */
static void test_broken_in_flight(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true,
    });
    unsigned last = vm->s.queues - 1;
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);

    life_wait_taken(vm, 0);
    vblk_expect_pending(vm->v, io->req, 0);
    submit_malformed(vm, last);
    wait_needs_reset(vm);
    vblk_reset(vm->v);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), ==, 1);
    vblk_io_abandon(vm->v, io);
    life_setup(vm);
    for (unsigned q = 0; q <= last; q++) {
        vblk_check_io(vm->v, q);
    }
    life_stop(vm);
}

/* B11: all queues at the same time, from all threads. */
static void test_broken_all(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .msix = true });
    VblkSeg seg = { vblk_alloc(vm->v, 16), 16 };

    for (unsigned i = 0; i < 10; i++) {
        for (unsigned q = 0; q < vm->s.queues; q++) {
            vblk_submit(vm->v, q, &seg, 1, NULL, 0);
            vblk_publish(vm->v, q);
        }
        for (unsigned q = 0; q < vm->s.queues; q++) {
            vblk_notify(vm->v, q);
        }
        wait_needs_reset(vm);
        vblk_reset(vm->v);
        life_setup(vm);
    }
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
    }
    life_stop(vm);
}

static void set_master(LifeVm *vm, bool on)
{
    uint16_t cmd = qpci_config_readw(vm->v->pdev, PCI_COMMAND);

    qpci_config_writew(vm->v->pdev, PCI_COMMAND,
                       on ? cmd | PCI_COMMAND_MASTER :
                            cmd & ~PCI_COMMAND_MASTER);
}

/*
 * B10, known bug "deadlock clearing Bus Master": under a load, with requests
 * in flight.  A driver that sets it again resets the device and goes on.
 */
static void test_bus_master(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, 6);

    for (unsigned i = 0; i < 10; i++) {
        life_load_run(l, 20);
        set_master(vm, false);
        life_assert_state(vm, "running");
        set_master(vm, true);
        vblk_reset(vm->v);
        life_load_forget(l);
        life_setup(vm);
    }
    life_load_run(l, 30);
    life_load_end(l);
    life_stop(vm);
}

/* B10: a slow request in the backend is waited for. */
static void test_bus_master_slow(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true,
    });
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);

    life_wait_taken(vm, 0);
    vblk_expect_pending(vm->v, io->req, 0);
    set_master(vm, false);
    life_assert_state(vm, "running");
    set_master(vm, true);
    vblk_reset(vm->v);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), ==, 1);
    vblk_io_abandon(vm->v, io);
    life_setup(vm);
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

/* ioeventfd=off: the vCPU's thread serves the queues; all that again there. */
static void test_no_ioeventfd(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .msix = true });
    LifeLoad *l = life_load_new(vm, 6);

    for (unsigned i = 0; i < 5; i++) {
        life_load_run(l, 30);
        life_load_settle(l);
        life_qmp(vm, "{'execute': 'stop'}");
        life_qmp(vm, "{'execute': 'cont'}");
    }
    life_load_end(l);
    for (unsigned q = 0; q < vm->s.queues; q++) {
        g_assert_true(vblk_irq(vm->v, q));
        g_assert_false(vblk_irq(vm->v, q));
        vblk_check_io(vm->v, q);
        vblk_wait_irq(vm->v, q);
    }
    life_stop(vm);
}

/* iothread= needs ioeventfd: realize says so. */
static void test_iothread_needs_ioeventfd(void)
{
    VblkOpts o = {
        .args = "-object iothread,id=io0",
        .props = "iothread=io0,ioeventfd=off",
    };

    vblk_fails(&o, "ioeventfd is required for iothread", NULL);
}

/* Two notifiers a queue, one interrupt a completion: none left, none extra. */
static void test_interrupts(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .msix = true });

    for (unsigned i = 0; i < 20; i++) {
        unsigned q = i % vm->s.queues;

        life_ok(vm, life_write_kick(vm, q, i * 16, i + 1));
        vblk_wait_irq(vm->v, q);
        for (unsigned other = 0; other < vm->s.queues; other++) {
            g_assert_false(vblk_irq(vm->v, other));
        }
    }
    g_assert_false(vblk_config_irq(vm->v));
    life_stop(vm);
}

/*
 * iommu_platform=on behind an IOMMU that does not translate yet: the feature
 * is there, and requests find their memory through the device's own address
 * space.
 */
static void test_iommu(const LifeCase *c)
{
    LifeVm *vm;

    if (!qtest_has_device("intel-iommu")) {
        g_test_skip("this QEMU has no intel-iommu");
        return;
    }
    vm = life_start(c, &(LifeSpec) {
        .machine = "q35,kernel-irqchip=off",
        .args = "-device intel-iommu,device-iotlb=on",
        .json = "\"iommu_platform\":true,",
        .no_legacy = true,      /* the feature is none of legacy devices */
    });
    g_assert_true(vblk_has(vm->v, VIRTIO_F_ACCESS_PLATFORM));
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
    }
    vblk_reset(vm->v);
    life_setup(vm);
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

void life_add_bus_tests(void)
{
    life_add("broken/each-queue", LIFE_PCI | LIFE_NOEVENTFD, test_broken);
    life_add("broken/intx", LIFE_SPLIT | LIFE_MMIO, test_broken_intx);
    life_add("broken/thread", LIFE_THREADS | LIFE_ONE_PACKED | LIFE_MMIO_ONE,
             test_broken_thread);
    life_add("broken/in-flight", LIFE_PCI, test_broken_in_flight);
    life_add("broken/all-queues", LIFE_PCI, test_broken_all);
    life_add("bus-master/load", LIFE_PCI | LIFE_LEGACY | LIFE_NOEVENTFD,
             test_bus_master);
    life_add("bus-master/slow", LIFE_PCI | LIFE_LEGACY, test_bus_master_slow);
    life_add("no-ioeventfd", LIFE_NOEVENTFD, test_no_ioeventfd);
    life_add_one("iothread-needs-ioeventfd", test_iothread_needs_ioeventfd);
    life_add("interrupts", LIFE_PCI | LIFE_NOEVENTFD, test_interrupts);
    life_add("iommu-platform", LIFE_SPLIT, test_iommu);
}
