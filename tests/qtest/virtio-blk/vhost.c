/*
 * virtio-blk qtests: the kernel serves the queues, and gives them back
 *
 * Issue 5.  The whole suite runs over vhost-blk, too (see vblk_type()); here
 * is what only vhost-blk has: when the kernel has the queues, and the errors.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "fake.h"
#include "vhost.h"

#define BINARY_ENV  "VBLK_VHOST_BINARY"

static bool emulator_has_vhost(void)
{
    if (vblk_has_type("vhost-blk-device")) {
        return true;
    }
    g_test_skip("this QEMU has no vhost-blk (--disable-vhost-blk)");
    return false;
}

static void remove_node(void *opaque)
{
    g_unlink(opaque);
}

bool vhost_begin_library(Vhost *h, const char *env)
{
    g_autofree char *lib = vblk_fake_library();
    g_autofree char *binary = NULL;
    /* Without what may come first, of which another fake may be a part. */
    const char *qemu = strrchr(g_getenv("QTEST_QEMU_BINARY"), ' ');

    *h = (Vhost) { .binary_env = BINARY_ENV };
    if (!lib) {
        return false;
    }
    h->node = life_temp("vhost-node", 0);
    qtest_add_abrt_handler(remove_node, h->node);
    /* The sanitizer's library need not come first. */
    binary = g_strdup_printf("/usr/bin/env LD_PRELOAD=%s FAKEHOST_VHOST=%s "
                             "ASAN_OPTIONS=%s:verify_asan_link_order=0 %s %s",
                             lib, h->node, g_getenv("ASAN_OPTIONS") ?: "",
                             env ?: "",
                             qemu ? qemu + 1 : g_getenv("QTEST_QEMU_BINARY"));
    g_setenv(BINARY_ENV, binary, true);
    return true;
}

bool vhost_begin_fake(Vhost *h, const char *env)
{
    return emulator_has_vhost() && vhost_begin_library(h, env);
}

bool vhost_begin(Vhost *h, const char *env)
{
    if (!g_getenv("VBLK_VHOST")) {
        return vhost_begin_fake(h, env);
    }
    *h = (Vhost) { 0 };
    return emulator_has_vhost();
}

void vhost_end(Vhost *h)
{
    if (h->node) {
        qtest_remove_abrt_handler(h->node);
        remove_node(h->node);
        g_clear_pointer(&h->node, g_free);
        g_unsetenv(BINARY_ENV);
    }
}

const char *vhost_type(const LifeCase *c)
{
    return c->transport <= VBLK_PCI_LEGACY_ONLY ? "vhost-blk-pci" :
                                                  "vhost-blk-device";
}

LifeVm *vhost_start(Vhost *h, const LifeCase *c, LifeSpec s)
{
    s.binary_env = h->binary_env;
    s.device = s.device ?: vhost_type(c);
    if (c->transport == VBLK_PCI_LEGACY) {
        /* SCSI commands are for userspace. */
        s.refuse |= VBLK_BIT(VIRTIO_BLK_F_SCSI);
    }
    return life_start(c, &s);
}

void vhost_wait_engine(LifeVm *vm, const char *engine)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    for (;;) {
        g_autofree char *now = vblk_qom_str(vm->v, "engine");

        if (!strcmp(now, engine)) {
            return;
        }
        if (g_get_monotonic_time() > end) {
            g_autofree char *why = vblk_qom_str(vm->v, "engine-reason");

            vblk_fail("the engine is still %s, not %s: %s", now, engine, why);
        }
        g_usleep(2000);
    }
}

void vhost_assert_userspace(LifeVm *vm)
{
    for (unsigned i = 0; i < 20; i++) {
        g_autofree char *now = vblk_qom_str(vm->v, "engine");

        g_assert_cmpstr(now, !=, "vhost");
        g_usleep(2000);
    }
}

/* The kernel or QEMU has the queues, as said, and serves them; ends both. */
static void check_served(Vhost *h, LifeVm *vm, bool kernel)
{
    if (kernel) {
        vhost_wait_engine(vm, "vhost");
    } else {
        vhost_assert_userspace(vm);
    }
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    vhost_end(h);
}

/* ---- errors that name the mend ---- */

typedef struct Wrong {
    const char *name;
    const char *env;            /* of the fake */
    const char *props;
    const char *say, *mend;
    bool no_fake;               /* does it fail before the device is opened? */
} Wrong;

static const Wrong wrongs[] = {
    { "missing", "FAKEHOST_VHOST=2", "num-queues=1",
      "/dev/vhost-blk is not there", "modprobe vhost_blk" },
    { "no-permission", "FAKEHOST_VHOST=13", "num-queues=1",
      "no permission to open /dev/vhost-blk", "udev rule" },
    { "removed", "FAKEHOST_VHOST=19", "num-queues=1",
      "no driver behind it any more", "modprobe vhost_blk" },
    { "version", "FAKEHOST_VHOST_ABI=77", "num-queues=1",
      "version 77 of its interface", "load the module that came with it" },
    { "features", "FAKEHOST_VHOST_LACKS=0x20", "num-queues=1",
      "lacks features 0x20", "load a newer one" },
    { "queues", NULL, "num-queues=65", "at most 64 queues", "num-queues=64" },
    { "ioeventfd", NULL, "ioeventfd=off", "without ioeventfd",
      "use ioeventfd=on" },
    { "fd", NULL, "vhostfd=nonsense", "nonsense", "nonsense" },
    { "not-vhost", NULL, "vhostfd=0", "is not this QEMU's vhost_blk",
      "io-engine=auto" },
    { "fd-and-block", NULL, "vhostfd=0,io-engine=block",
      "vhostfd needs io-engine", "vhost or auto" },
};

static void test_wrong(const void *data)
{
    const Wrong *wrong = data;
    static const char *const devices[] = {
        "vhost-blk-pci", "virtio-blk-pci",
    };
    Vhost h;

    if (!vhost_begin_fake(&h, wrong->env)) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(devices); i++) {
        g_autofree char *props = g_strdup_printf(
            "%s%s", wrong->props, i ? ",io-engine=vhost" : "");

        if (i && strstr(props, "vhostfd")) {
            continue;           /* virtio-blk has no such property */
        }
        vblk_fails(&(VblkOpts) {
            .device = devices[i], .props = props, .binary_env = h.binary_env,
        }, wrong->say, wrong->mend, NULL);
    }
    vhost_end(&h);
}

/* io-engine=auto of a vhost-blk device goes on without the module. */
static void test_auto(const LifeCase *c)
{
    static const char *const env[] = { "FAKEHOST_VHOST=2",
                                       "FAKEHOST_VHOST_ABI=77", NULL };
    Vhost h;

    for (unsigned i = 0; i < ARRAY_SIZE(env); i++) {
        LifeVm *vm;

        if (!vhost_begin_fake(&h, env[i])) {
            return;
        }
        vm = vhost_start(&h, c, (LifeSpec) {
            .json = "\"io-engine\":\"auto\",",
        });
        check_served(&h, vm, !env[i]);
    }
}

/* virtio-blk itself leaves the kernel alone until it is told. */
static void test_other_type(const LifeCase *c)
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = vhost_start(&h, c, (LifeSpec) { .device = "virtio-blk-pci" });
    vhost_assert_userspace(vm);
    life_stop(vm);
    vm = vhost_start(&h, c, (LifeSpec) {
        .device = "virtio-blk-pci", .json = "\"io-engine\":\"vhost\",",
    });
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    vhost_end(&h);
}

/* ---- which nodes and drivers the kernel may have ---- */

typedef struct Choice {
    const char *name;
    bool kernel;
    const char *file_opts, *raw_opts;
    const char *json;
    const char *more;           /* further nodes and arguments */
    bool packed;
    const char *why;            /* a word of the reason why not */
} Choice;

static const Choice choices[] = {
    { "plain", true, "", "" },
    { "direct", true, ",cache.direct=on", ",cache.direct=on" },
    { "write-through", true, "", "", "\"write-cache\":\"off\"," },
    { "werror-report", true, "", "", "\"werror\":\"report\"," },
    { "werror-stop", false, "", "", "\"werror\":\"stop\",",
      .why = "werror" },
    { "werror-enospc", false, "", "", "\"werror\":\"enospc\"," },
    { "werror-ignore", false, "", "", "\"werror\":\"ignore\"," },
    { "rerror-stop", false, "", "", "\"rerror\":\"stop\"," },
    { "packed", false, "", "", .packed = true, .why = "packed" },
    { "share-rw", false, "", "", "\"share-rw\":true," },
    { "io-engine-block", false, "", "", "\"io-engine\":\"block\"," },
    { "no-flush", false, ",cache.no-flush=on", ",cache.no-flush=on",
      .why = "no-flush" },
    { "detect-zeroes", false, "", ",detect-zeroes=on" },
    { "part-of-file", false, "", ",offset=4096" },
    { "throttled", false, "", ",node-name=fmt0", "",
      " -object throttle-group,id=tg0 -blockdev driver=throttle,"
      "node-name=disk0,file=fmt0,throttle-group=tg0" },
    { "another-user", false, "", "", "",
      " -blockdev driver=raw,node-name=other,file=file0,read-only=on",
      .why = "somebody else" },
};

static void test_choice(const void *data)
{
    const Choice *choice = data;
    LifeCase c = { "choice", VBLK_PCI_MODERN, choice->packed, 1, 2 };
    const char *raw = choice->raw_opts;
    g_autofree char *file = life_temp("choice", LIFE_DISK_SIZE);
    g_autofree char *start = g_malloc0(65536);
    g_autofree char *nodes = g_strdup_printf(
        "-blockdev driver=file,node-name=file0,filename=%s,locking=off%s "
        "-blockdev driver=raw,file=file0%s%s%s", file, choice->file_opts,
        strstr(raw, "node-name") ? "" : ",node-name=disk0", raw,
        choice->more ?: "");
    LifeVm *vm;
    Vhost h;

    /* QEMU can't tell how direct I/O must be aligned where there is a hole. */
    g_assert_true(g_file_set_contents(file, start, 65536, NULL));
    g_assert_cmpint(truncate(file, LIFE_DISK_SIZE), ==, 0);
    if (vhost_begin(&h, NULL)) {
        vm = vhost_start(&h, &c, (LifeSpec) {
            .blockdev = nodes, .json = choice->json,
        });
        if (choice->kernel) {
            vhost_wait_engine(vm, "vhost");
        } else {
            vhost_assert_userspace(vm);
        }
        if (choice->why) {
            g_autofree char *why = vblk_qom_str(vm->v, "engine-reason");

            g_assert_nonnull(strstr(why, choice->why));
        }
        vblk_check_io(vm->v, 0);
        vblk_check_io(vm->v, 1);
        life_stop(vm);
        vhost_end(&h);
    }
    unlink(file);
}

/*
 * A driver behind a virtual IOMMU is served in userspace; the trace and the
 * property say why.
 */
static void test_iommu(const LifeCase *c)
{
    g_autofree char *log = life_temp("trace", 0);
    g_autofree char *args = g_strdup_printf(
        "-device intel-iommu,device-iotlb=on -D %s "
        "-trace virtio_blk_vhost_refused", log);
    g_autofree char *text = NULL, *why = NULL;
    LifeVm *vm;
    Vhost h;

    if (!qtest_has_device("intel-iommu")) {
        g_test_skip("this QEMU has no intel-iommu");
    } else if (vhost_begin(&h, NULL)) {
        vm = vhost_start(&h, c, (LifeSpec) {
            .machine = "q35,kernel-irqchip=off", .args = args,
            .json = "\"iommu_platform\":true,", .no_legacy = true,
        });
        g_assert_true(vblk_has(vm->v, VIRTIO_F_ACCESS_PLATFORM));
        vhost_assert_userspace(vm);
        why = vblk_qom_str(vm->v, "engine-reason");
        g_assert_nonnull(strstr(why, "IOMMU"));
        vblk_check_io(vm->v, 0);
        life_stop(vm);
        g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
        g_assert_nonnull(strstr(text, "virtio_blk_vhost_refused"));
        g_assert_nonnull(strstr(text, "IOMMU"));
        vhost_end(&h);
    }
    unlink(log);
}

/* ---- on and off again ---- */

static LifeVm *start_in_kernel(Vhost *h, const LifeCase *c, LifeSpec s)
{
    LifeVm *vm = vhost_start(h, c, s);

    vhost_wait_engine(vm, "vhost");
    return vm;
}

static void test_started(const LifeCase *c)
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    vblk_check_io(vm->v, 0);
    vblk_reset(vm->v);
    vhost_assert_userspace(vm);
    life_setup(vm);
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    life_qmp(vm, "{'execute': 'stop'}");
    vhost_assert_userspace(vm);
    life_cont(vm);
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    vhost_end(&h);
}

/*
 * What comes without a drained section must be noticed at once: the kernel's
 * writes would be in no bitmap, and over each limit.
 */
static void test_attached(const LifeCase *c)
{
    static const char *const nodes[] = { VBLK_NODE, "file0" };
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++) {
        life_qmp(vm, "{'execute': 'block-dirty-bitmap-add', 'arguments': {"
                 "'node': %s, 'name': 'b0'}}", nodes[i]);
        vhost_assert_userspace(vm);
        life_qmp(vm, "{'execute': 'block-dirty-bitmap-disable', 'arguments': "
                 "{'node': %s, 'name': 'b0'}}", nodes[i]);
        vhost_wait_engine(vm, "vhost");
        life_qmp(vm, "{'execute': 'block-dirty-bitmap-enable', 'arguments': "
                 "{'node': %s, 'name': 'b0'}}", nodes[i]);
        vhost_assert_userspace(vm);
        life_qmp(vm, "{'execute': 'block-dirty-bitmap-remove', 'arguments': "
                 "{'node': %s, 'name': 'b0'}}", nodes[i]);
        vhost_wait_engine(vm, "vhost");
        life_qmp(vm, "{'execute': 'block-set-write-threshold', 'arguments': {"
                 "'node-name': %s, 'write-threshold': 1048576}}", nodes[i]);
        vhost_assert_userspace(vm);
        life_qmp(vm, "{'execute': 'block-set-write-threshold', 'arguments': {"
                 "'node-name': %s, 'write-threshold': 0}}", nodes[i]);
        vhost_wait_engine(vm, "vhost");
    }
    for (int iops = 1000; iops >= 0; iops -= 1000) {
        life_qmp(vm, "{'execute': 'block_set_io_throttle', 'arguments': {"
                 "'id': %s, 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': %d, "
                 "'iops_rd': 0, 'iops_wr': 0}}", vblk_qom_path(vm->v), iops);
        if (iops) {
            vhost_assert_userspace(vm);
        }
    }
    vhost_wait_engine(vm, "vhost");
    life_qmp(vm, "{'execute': 'block-latency-histogram-set', 'arguments': {"
             "'id': %s, 'boundaries': [1000]}}", vblk_qom_path(vm->v));
    vhost_assert_userspace(vm);
    life_qmp(vm, "{'execute': 'block-latency-histogram-set', 'arguments': {"
             "'id': %s}}", vblk_qom_path(vm->v));
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    vhost_end(&h);
}

/* Interval statistics, which only -drive can ask for, need each request. */
static void test_intervals(const LifeCase *c)
{
    g_autofree char *image = life_temp("image", LIFE_DISK_SIZE);
    Vhost h;

    for (unsigned kept = 0; kept < 2; kept++) {
        g_autofree char *drive = g_strdup_printf(
            "-drive if=none,id=disk0,format=raw,file=%s%s", image,
            kept ? ",stats-intervals.0=1" : "");
        LifeVm *vm;

        if (!vhost_begin(&h, NULL)) {
            break;
        }
        vm = vhost_start(&h, c, (LifeSpec) { .blockdev = drive });
        check_served(&h, vm, !kept);
    }
    unlink(image);
}

/* Bitmaps come and go under a load. */
static void test_bitmap_load(const LifeCase *c)
{
    LifeLoad *l;
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, "FAKEHOST_VHOST_US=300")) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    l = life_load_new(vm, 6);
    for (unsigned i = 0; i < 10; i++) {
        life_load_qmp(l, 10, "{'execute': 'block-dirty-bitmap-add', "
                      "'arguments': {'node': %s, 'name': 'b0'}}", VBLK_NODE);
        life_load_qmp(l, 10, "{'execute': 'block-dirty-bitmap-remove', "
                      "'arguments': {'node': %s, 'name': 'b0'}}", VBLK_NODE);
        vhost_wait_engine(vm, "vhost");
    }
    life_load_end(l);
    life_stop(vm);
    vhost_end(&h);
}

/* A slow kernel is waited for, and each request is done once. */
static void test_slow_flips(const LifeCase *c)
{
    LifeLoad *l;
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, "FAKEHOST_VHOST_US=3000")) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    l = life_load_new(vm, 8);
    for (unsigned i = 0; i < 25; i++) {
        life_load_qmp(l, 15, "{'execute': 'blockdev-reopen', 'arguments': "
                      "{'options': [{'driver': 'raw', 'node-name': %s, "
                      "'file': 'file0', 'discard': 'unmap'}]}}", VBLK_NODE);
        if (i % 2) {
            vhost_wait_engine(vm, "vhost");
        }
    }
    life_load_end(l);
    life_stop(vm);
    vhost_end(&h);
}

/* The new size is the kernel's, too, as soon as it has the queues again. */
static void test_resize(const LifeCase *c)
{
    uint64_t end = LIFE_DISK_SIZE / VBLK_SECTOR;
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    life_ioerr(vm, life_write_kick(vm, 0, end, 1));
    life_qmp(vm, "{'execute': 'block_resize', 'arguments': {'node-name': %s, "
             "'size': %d}}", VBLK_NODE, LIFE_DISK_SIZE + 65536);
    vhost_wait_engine(vm, "vhost");
    life_ok(vm, life_write_kick(vm, 0, end, 1));
    life_assert_read(vm, 0, end, 1);
    life_stop(vm);
    vhost_end(&h);
}

/* One queue is reset while the others are in the kernel. */
static void test_ring_reset(const LifeCase *c)
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, "FAKEHOST_VHOST_US=1000")) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    for (unsigned i = 0; i < 5; i++) {
        VblkIo *io = life_write_kick(vm, 0, 64, i + 1);

        vblk_queue_reset(vm->v, 1);
        vhost_assert_userspace(vm);
        life_ok(vm, io);
        vblk_queue_setup(vm->v, 1);
        vhost_wait_engine(vm, "vhost");
        life_assert_read(vm, 1, 64, i + 1);
        vblk_check_io(vm->v, 0);
    }
    life_stop(vm);
    vhost_end(&h);
}

/* A queue that is set up when the others have been in use for long. */
static void test_late_queue(const LifeCase *c)
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = vhost_start(&h, c, (LifeSpec) { .no_setup = true });
    vblk_attach(vm->v);
    vblk_reset(vm->v);
    vblk_negotiate(vm->v);
    vblk_queue_setup(vm->v, 0);
    vblk_driver_ok(vm->v);
    vhost_wait_engine(vm, "vhost");
    for (unsigned i = 0; i < 5; i++) {
        vblk_check_io(vm->v, 0);
    }
    vblk_queue_setup(vm->v, 1);
    vblk_check_io(vm->v, 1);
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    vblk_check_io(vm->v, 1);
    life_stop(vm);
    vhost_end(&h);
}

/* The kernel refuses a ring: the device says NEEDS_RESET, which mends it. */
static void test_broken(const LifeCase *c)
{
    uint64_t addr;
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    addr = vblk_alloc(vm->v, 64);
    vblk_submit(vm->v, 0, &(VblkSeg) { addr, 4 }, 1,
                &(VblkSeg) { addr + 32, 1 }, 1);
    vblk_kick(vm->v, 0);
    vblk_expect_broken(vm->v, 0);
    vhost_assert_userspace(vm);
    vblk_reset(vm->v);
    life_setup(vm);
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    vhost_end(&h);
}

/* ---- statistics ---- */

int64_t vhost_stat(LifeVm *vm, const char *name)
{
    QDict *entry = life_block_entry(vm, "query-blockstats");
    int64_t value = qdict_get_int(qdict_get_qdict(entry, "stats"), name);

    qobject_unref(entry);
    return value;
}

/* One request after the other took some time since @begin, and not more. */
static void assert_time(LifeVm *vm, const char *name, int64_t begin)
{
    int64_t took = vhost_stat(vm, name);

    g_assert_cmpint(took, >, 0);
    g_assert_cmpint(took, <=, (g_get_monotonic_time() - begin) * 1000);
}

/* What the kernel did is in the statistics, before and after it leaves. */
static void test_stats(const LifeCase *c)
{
    int64_t begin = g_get_monotonic_time();
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    for (unsigned i = 0; i < 5; i++) {
        life_ok(vm, life_write_kick(vm, i % 2, i * 8, i + 1));
        life_assert_read(vm, 0, i * 8, i + 1);
    }
    vblk_flush(vm->v);
    life_ioerr(vm, life_write_kick(vm, 0, 1 << 30, 1));
    vhost_wait_engine(vm, "vhost");
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(vhost_stat(vm, "wr_operations"), ==, 5);
        g_assert_cmpint(vhost_stat(vm, "wr_bytes"), ==, 5 * LIFE_BLOCK);
        g_assert_cmpint(vhost_stat(vm, "rd_operations"), ==, 5);
        g_assert_cmpint(vhost_stat(vm, "rd_bytes"), ==, 5 * LIFE_BLOCK);
        g_assert_cmpint(vhost_stat(vm, "flush_operations"), ==, 1);
        g_assert_cmpint(vhost_stat(vm, "invalid_wr_operations"), ==, 1);
        assert_time(vm, "rd_total_time_ns", begin);
        assert_time(vm, "wr_total_time_ns", begin);
        assert_time(vm, "flush_total_time_ns", begin);
        life_qmp(vm, "{'execute': 'stop'}");
    }
    life_stop(vm);
    vhost_end(&h);
}

/* An error of the disk: the driver is told, the monitor, the statistics. */
static void test_error(const LifeCase *c)
{
    g_autofree char *dir = g_dir_make_tmp("vblk-vhost-XXXXXX", NULL);
    g_autofree char *fault = g_build_filename(dir, "fault", NULL);
    g_autofree char *file = g_build_filename(fault, "read", NULL);
    g_autofree char *image = life_temp("image", LIFE_DISK_SIZE);
    g_autofree char *env = g_strdup_printf(
        "FAKEHOST_SYSFS=%s FAKEHOST_PATH=%s", dir, image);
    g_autofree char *nodes = g_strdup_printf(
        "-blockdev driver=host_device,node-name=disk0,filename=%s", image);
    LifeVm *vm;
    Vhost h;

    g_assert_cmpint(g_mkdir(fault, 0700), ==, 0);
    if (vhost_begin_fake(&h, env)) {
        uint8_t data[512];

        vm = start_in_kernel(&h, c, (LifeSpec) { .blockdev = nodes });
        g_assert_true(g_file_set_contents(file, "5", -1, NULL));
        g_assert_cmpint(vblk_cmd(vm->v, 0, VIRTIO_BLK_T_IN, 0, data,
                                 sizeof(data), NULL), ==, VIRTIO_BLK_S_IOERR);
        qobject_unref(vblk_event(vm->v, "BLOCK_IO_ERROR", 10000));
        unlink(file);
        g_assert_cmpint(vhost_stat(vm, "failed_rd_operations"), ==, 1);
        vblk_check_io(vm->v, 0);
        vhost_wait_engine(vm, "vhost");
        life_stop(vm);
        vhost_end(&h);
    }
    g_unlink(file);
    g_rmdir(fault);
    g_rmdir(dir);
    unlink(image);
}

/* The driver switches the cache while the kernel has the queues. */
static void test_cache(const LifeCase *c)
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, NULL)) {
        return;
    }
    vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
    for (unsigned i = 0; i < 4; i++) {
        vblk_cfg_write8(vm->v, offsetof(struct virtio_blk_config, wce),
                        i % 2);
        life_ok(vm, life_write_kick(vm, 0, 64, i + 1));
        life_assert_image(vm, 64, i + 1);
        vhost_wait_engine(vm, "vhost");
    }
    life_stop(vm);
    vhost_end(&h);
}

/* The machine ends, or is reset, with requests in the kernel. */
static void test_abandoned(const LifeCase *c)
{
    LifeVm *vm;
    Vhost h;

    if (!vhost_begin(&h, "FAKEHOST_VHOST_US=2000")) {
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        LifeLoad *l;

        vm = start_in_kernel(&h, c, (LifeSpec) { 0 });
        l = life_load_new(vm, 6);
        life_load_run(l, 20);
        if (i) {
            life_qmp(vm, "{'execute': 'system_reset'}");
            vblk_expect_event(vm->v, "RESET");
        }
        life_load_forget(l);
        life_load_free(l);
        life_stop(vm);
    }
    vhost_end(&h);
}

#define VHOST_CASES     (LIFE_MAIN | LIFE_ONE | LIFE_MAP)

static void add_tables(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(wrongs); i++) {
        g_autofree char *name = g_strdup_printf("vhost/wrong/%s",
                                                wrongs[i].name);

        vblk_add_data(name, &wrongs[i], test_wrong);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(choices); i++) {
        g_autofree char *name = g_strdup_printf("vhost/choice/%s",
                                                choices[i].name);

        vblk_add_data(name, &choices[i], test_choice);
    }
}

void vblk_add_vhost_tests(void)
{
    add_tables();
    life_add("vhost/auto", LIFE_ONE, test_auto);
    life_add("vhost/other-type", LIFE_ONE, test_other_type);
    life_add("vhost/iommu", LIFE_MAIN | LIFE_MAP, test_iommu);
    life_add("vhost/started", VHOST_CASES | LIFE_LEGACY | LIFE_MMIO_MAIN,
             test_started);
    life_add("vhost/attached", VHOST_CASES, test_attached);
    life_add("vhost/intervals", LIFE_MAIN | LIFE_ONE, test_intervals);
    life_add("vhost/bitmap-load", VHOST_CASES, test_bitmap_load);
    life_add("vhost/slow-flips", VHOST_CASES | LIFE_LEGACY, test_slow_flips);
    life_add("vhost/resize", VHOST_CASES, test_resize);
    life_add("vhost/ring-reset", VHOST_CASES, test_ring_reset);
    life_add("vhost/late-queue", VHOST_CASES, test_late_queue);
    life_add("vhost/broken", VHOST_CASES, test_broken);
    life_add("vhost/stats", VHOST_CASES, test_stats);
    life_add("vhost/error", LIFE_MAIN | LIFE_ONE, test_error);
    life_add("vhost/cache", VHOST_CASES, test_cache);
    life_add("vhost/abandoned", LIFE_MAIN | LIFE_ONE, test_abandoned);
    vhost_add_life_tests();
    vhost_add_move_tests();
}
