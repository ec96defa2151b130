/*
 * virtio-blk qtests: hot plug and unplug
 *
 * On the pc machine, where the guest ejects through ACPI's PCI hotplug
 * registers: device_del asks, the write of the slot's bit takes it away.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qjson.h"
#include "life.h"

#define PCIHP_EJECT     0xae08
#define SLOW_SECTOR     64
#define ROUNDS          20
#define SETTLED         5       /* after so many, nothing may grow */

/* Driver and device part; the memory of requests in flight stays allocated. */
void life_unplug(LifeVm *vm)
{
    life_qmp(vm, "{'execute': 'device_del', 'arguments': {'id': %s}}",
             VBLK_DEV);
    qtest_outl(vm->v->qts, PCIHP_EJECT, 1 << VBLK_PCI_SLOT);
    vblk_expect_event(vm->v, "DEVICE_DELETED");     /* the device proper */
    vblk_expect_event(vm->v, "DEVICE_DELETED");     /* its proxy */
    vblk_detach(vm->v);
}

static LifeVm *start(const LifeCase *c, LifeSpec s)
{
    LifeVm *vm;

    s.machine = "pc";
    s.hotplug = true;
    vm = life_start(c, &s);
    life_plug(vm);
    return vm;
}

/* The node is free again: its user is really gone. */
static void del_node(LifeVm *vm, const char *node)
{
    life_qmp(vm, "{'execute': 'blockdev-del', 'arguments': "
             "{'node-name': %s}}", node);
}

static void assert_gone(LifeVm *vm)
{
    QDict *resp = life_query(vm, "{'execute': 'query-block'}");

    g_assert_true(qlist_empty(qdict_get_qlist(resp, "return")));
    qobject_unref(resp);
    del_node(vm, VBLK_NODE);
}

/* Unplug with a request in the backend: it ends, then the device goes. */
static void test_in_flight(const LifeCase *c)
{
    LifeVm *vm = start(c, (LifeSpec) {
        .rules = LIFE_SLOW("write", 64), .log = true,
    });
    VblkIo *io = life_write_kick(vm, 0, SLOW_SECTOR, 1);

    life_ok(vm, life_write_kick(vm, 0, 0, 2));
    life_wait_taken(vm, 0);
    vblk_expect_pending(vm->v, io->req, 0);
    life_unplug(vm);
    life_assert_image(vm, SLOW_SECTOR, 1);
    g_assert_cmpint(life_log_count(vm, SLOW_SECTOR, 1), ==, 1);
    vblk_io_abandon(vm->v, io);

    life_plug(vm);
    life_assert_read(vm, vm->s.queues - 1, SLOW_SECTOR, 1);
    life_unplug(vm);
    assert_gone(vm);
    life_stop(vm);
}

/* Unplug with requests that wait in the throttle filter. */
static void test_throttled(const LifeCase *c)
{
    LifeVm *vm = start(c, (LifeSpec) { .throttle = true });
    VblkIo *io[6];

    life_hold_writes(vm, vm->s.queues, io, ARRAY_SIZE(io));
    life_unplug(vm);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        vblk_io_abandon(vm->v, io[i]);
    }
    assert_gone(vm);
    life_stop(vm);
}

/* Unplug while a request is parked: it goes with the device, not executed. */
static void test_stopped(const LifeCase *c)
{
    LifeVm *vm = start(c, (LifeSpec) {
        .rules = LIFE_FAIL_ONCE("write", 64, 28), .log = true,
        .json = "\"werror\":\"stop\",",
    });
    VblkIo *io = life_write_kick(vm, vm->s.queues - 1, 64, 1);

    life_wait_stopped(vm);
    life_unplug(vm);
    life_cont(vm);
    life_untouched(vm, io, 30);
    g_assert_cmpint(life_log_count(vm, 64, 1), ==, 0);
    vblk_io_abandon(vm->v, io);

    life_plug(vm);
    vblk_check_io(vm->v, 0);
    life_unplug(vm);
    assert_gone(vm);
    life_stop(vm);
}

/* B6, known bug "guest I/O stuck after ... hotplug": 20 times, no leaks. */
static void test_loop(const LifeCase *c)
{
    LifeVm *vm = start(c, (LifeSpec) { 0 });
    unsigned fds = 0, threads = 0;

    life_unplug(vm);
    for (unsigned i = 0; i < ROUNDS; i++) {
        LifeLoad *l;

        life_plug(vm);
        l = life_load_new(vm, 4);
        life_load_run(l, 12);
        life_unplug(vm);
        life_load_forget(l);
        life_load_free(l);
        if (i == SETTLED) {
            fds = life_fds(vm);
            threads = life_threads(vm);
        }
    }
    g_assert_cmpint(life_fds(vm), <=, fds);
    /* The pool of I/O threads grows and shrinks by itself. */
    g_assert_cmpint(life_threads(vm), <=, threads + 8);
    assert_gone(vm);
    for (unsigned i = 0; i < c->threads; i++) {
        g_autofree char *id = g_strdup_printf("io%u", i);

        life_qmp(vm, "{'execute': 'object-del', 'arguments': {'id': %s}}", id);
    }
    life_stop(vm);
}

/* A device_add that fails leaves nothing behind: the next one works. */
static void test_failed_add(const LifeCase *c)
{
    LifeVm *vm = start(c, (LifeSpec) { 0 });
    QDict *resp;

    life_unplug(vm);
    for (unsigned i = 0; i < 3; i++) {
        resp = vblk_qmp(vm->v, "{'execute': 'device_add', 'arguments': "
                        "{'driver': 'virtio-blk-pci', 'id': 'bad0', 'drive': "
                        "%s, 'num-queues': 0, 'addr': '7'}}", VBLK_NODE);
        g_assert_true(qdict_haskey(resp, "error"));
        qobject_unref(resp);
    }
    life_plug(vm);
    vblk_check_io(vm->v, 0);
    life_unplug(vm);
    assert_gone(vm);
    life_stop(vm);
}

void life_add_plug_tests(void)
{
    life_add("plug/in-flight", LIFE_PCI | LIFE_NOEVENTFD, test_in_flight);
    life_add("plug/throttled", LIFE_PCI, test_throttled);
    life_add("plug/stopped", LIFE_PCI, test_stopped);
    life_add("plug/loop", LIFE_SPLIT | LIFE_MAP_PACKED, test_loop);
    life_add("plug/failed-add", LIFE_SPLIT, test_failed_add);
}
