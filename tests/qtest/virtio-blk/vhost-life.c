/*
 * virtio-blk qtests: plugs, resets, reboots and resizes of a vhost-blk device
 *
 * In the midst of a load that the kernel serves.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost.h"

#define ROUNDS      4
#define SLOW_FAKE   "FAKEHOST_VHOST_US=1000"

static LifeLoad *load_in_kernel(LifeVm *vm)
{
    LifeLoad *l;

    vhost_wait_engine(vm, "vhost");
    l = life_load_new(vm, 6);
    life_load_run(l, 30);
    return l;
}

static void drop_load(LifeLoad *l)
{
    life_load_forget(l);
    life_load_free(l);
}

/* A load from the start to a good end, in the kernel. */
static void check_load(LifeVm *vm)
{
    life_load_end(load_in_kernel(vm));
}

/* The device goes with requests in the kernel, and comes again. */
static void test_plug(const LifeCase *c)
{
    unsigned fds = 0;
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, SLOW_FAKE)) {
        return;
    }
    vm = vhost_start(&h, c, (LifeSpec) { .machine = "pc", .hotplug = true });
    for (unsigned i = 0; i < ROUNDS; i++) {
        LifeLoad *l;

        life_plug(vm);
        l = load_in_kernel(vm);
        life_unplug(vm);
        drop_load(l);
        if (!i) {
            fds = life_fds(vm);
        }
    }
    g_assert_cmpint(life_fds(vm), <=, fds);
    life_plug(vm);
    check_load(vm);
    life_unplug(vm);
    /* Nobody has the node any more. */
    life_qmp(vm, "{'execute': 'blockdev-del', 'arguments': "
             "{'node-name': %s}}", VBLK_NODE);
    life_stop(vm);
    vhost_end(&h);
}

/*
 * @end takes the device from its driver in the midst of a load, again and
 * again: the queues are QEMU's at once, and @begin gives it a driver anew.
 */
static void check_ends(const LifeCase *c, void (*end)(LifeVm *vm),
                       void (*begin)(LifeVm *vm))
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, SLOW_FAKE)) {
        return;
    }
    vm = vhost_start(&h, c, (LifeSpec) { 0 });
    for (unsigned i = 0; i < ROUNDS; i++) {
        LifeLoad *l = load_in_kernel(vm);

        end(vm);
        vhost_assert_userspace(vm);
        drop_load(l);
        begin(vm);
    }
    check_load(vm);
    life_stop(vm);
    vhost_end(&h);
}

static void reset_device(LifeVm *vm)
{
    vblk_reset(vm->v);
}

/* The driver resets the device: what the kernel had is over when it reads 0. */
static void test_reset(const LifeCase *c)
{
    check_ends(c, reset_device, life_setup);
}

static void reset_machine(LifeVm *vm)
{
    life_qmp(vm, "{'execute': 'system_reset'}");
    vblk_expect_event(vm->v, "RESET");
    /* The event comes before the devices are reset. */
    qobject_unref(life_query(vm, "{'execute': 'query-status'}"));
}

static void find_device(LifeVm *vm)
{
    vblk_detach(vm->v);
    vblk_attach(vm->v);
    life_setup(vm);
}

/* The machine is reset under a load, and its next driver finds the disk. */
static void test_reboot(const LifeCase *c)
{
    check_ends(c, reset_machine, find_device);
}

/* The disk grows under a load: the driver is told, the kernel takes it. */
static void test_resize_load(const LifeCase *c)
{
    uint64_t sectors = LIFE_DISK_SIZE / VBLK_SECTOR;
    LifeLoad *l;
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, SLOW_FAKE)) {
        return;
    }
    vm = vhost_start(&h, c, (LifeSpec) { 0 });
    l = load_in_kernel(vm);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t end = sectors;

        sectors += 128;
        life_load_qmp(l, 10, "{'execute': 'block_resize', 'arguments': "
                      "{'node-name': %s, 'size': %" PRId64 "}}", VBLK_NODE,
                      (int64_t)(sectors * VBLK_SECTOR));
        vhost_wait_engine(vm, "vhost");
        life_load_settle(l);
        g_assert_cmpuint(vblk_cfg64(vm->v, 0), ==, sectors);
        drop_load(l);
        life_ok(vm, life_write_kick(vm, 0, end, i + 1));
        life_assert_read(vm, vm->s.queues - 1, end, i + 1);
        life_ioerr(vm, life_write_kick(vm, 0, sectors, 1));
        l = load_in_kernel(vm);
    }
    life_load_end(l);
    life_stop(vm);
    vhost_end(&h);
}

/*
 * A real disk with a bad sector, which $VBLK_BAD_SECTOR tells: the kernel
 * reports it; a guest that is to stop for it is served in userspace.
 */
static void test_bad_disk(const LifeCase *c)
{
    uint64_t bad = g_ascii_strtoull(g_getenv("VBLK_BAD_SECTOR"), NULL, 10);
    g_autofree char *node = g_strdup_printf(
        "-blockdev driver=host_device,node-name=disk0,cache.direct=on,"
        "filename=%s", g_getenv("VBLK_DISK"));
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = vhost_start(&h, c, (LifeSpec) { .blockdev = node });
    vhost_wait_engine(vm, "vhost");
    life_ioerr(vm, life_write_kick(vm, 0, bad, 1));
    qobject_unref(vblk_event(vm->v, "BLOCK_IO_ERROR", 10000));
    g_assert_cmpint(vhost_stat(vm, "failed_wr_operations"), ==, 1);
    vblk_check_io(vm->v, 0);
    vhost_wait_engine(vm, "vhost");
    life_stop(vm);

    vm = vhost_start(&h, c, (LifeSpec) {
        .blockdev = node, .json = "\"werror\":\"stop\",",
    });
    vhost_assert_userspace(vm);
    vblk_io_abandon(vm->v, life_write_kick(vm, 0, bad, 1));
    life_wait_stopped(vm);
    life_assert_state(vm, "io-error");
    life_stop(vm);
    vhost_end(&h);
}

void vhost_add_life_tests(void)
{
    if (g_getenv("VBLK_BAD_SECTOR")) {
        life_add("vhost/bad-disk", LIFE_MAP, test_bad_disk);
    }
    /* The slots of the pc machine can be ejected. */
    life_add("vhost/plug", LIFE_MAIN | LIFE_ONE | LIFE_MAP, test_plug);
    life_add("vhost/reset", LIFE_MAIN | LIFE_MAP | LIFE_LEGACY |
             LIFE_MMIO_MAIN, test_reset);
    life_add("vhost/reboot", LIFE_MAIN | LIFE_MAP, test_reboot);
    life_add("vhost/resize-load", LIFE_MAIN | LIFE_ONE | LIFE_MAP,
             test_resize_load);
}
