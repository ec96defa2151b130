/*
 * virtio-blk qtests: guest memory that is registered with io_uring
 *
 * The kernel keeps the pages that were there when memory was registered.  Both
 * sides of that are tested: data goes there without a look at the guest's
 * address space, and never to pages that are the guest's no more.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/utsname.h>
#include "qemu/units.h"
#include "qobject/qnum.h"
#include "life.h"

#define PAGE            4096
#define PAGE_SECTORS    (PAGE / VBLK_SECTOR)
#define MEMORY_MB       96
#define MACHINE_ARGS    "-m 96,slots=2,maxmem=1G"
#define DIMM            (128 * MiB)
#define ON              "\"register-memory\":\"on\","
#define OFF             "\"register-memory\":\"off\","
#define MEMORY_EVENTS   "-trace virtio_blk_pinned -D "
#define ROUNDS          4

typedef struct Rig {
    LifeVm *vm;
    char *image, *nodes;
} Rig;

/* ---- the machine ---- */

static bool kernel_is(unsigned major, unsigned minor)
{
    struct utsname u;
    unsigned a, b;

    g_assert_cmpint(uname(&u), ==, 0);
    g_assert_cmpint(sscanf(u.release, "%u.%u", &a, &b), ==, 2);
    return a > major || (a == major && b >= minor);
}

static bool can_register(void)
{
    if (!vblk_needs_prop("register-memory") || !vblk_kernel_has_uring()) {
        return false;
    }
    if (!kernel_is(6, 12)) {
        g_test_skip("the kernel's rings can't share registered memory");
        return false;
    }
    return true;
}

/*
 * In memory where that takes direct I/O (Linux 6.6), so that nothing depends on
 * how busy the disk is.  Its start is written: where there is a hole QEMU can't
 * tell how I/O must be aligned.
 */
static char *new_image(void)
{
    g_autofree char *start = g_malloc0(MiB);
    char *image = life_temp_in("/dev/shm", "registered", LIFE_DISK_SIZE);
    int fd = image ? open(image, O_WRONLY | O_DIRECT) : -1;

    if (fd < 0) {
        if (image) {
            unlink(image);
            g_free(image);
        }
        image = life_temp("registered", LIFE_DISK_SIZE);
        fd = open(image, O_WRONLY);
    }
    g_assert_cmpint(fcntl(fd, F_SETFL, 0), ==, 0);
    g_assert_cmpint(write(fd, start, MiB), ==, MiB);
    close(fd);
    return image;
}

static void rig_start(Rig *r, const LifeCase *c, LifeSpec spec)
{
    g_autofree char *engine = NULL;
    g_autofree char *json = g_strdup_printf(LIFE_BLOCKS "%s", spec.json ?: "");

    if (!r->image) {
        r->image = new_image();
        r->nodes = g_strdup_printf("-blockdev driver=file,node-name="
                                   VBLK_NODE ",filename=%s,locking=off,"
                                   "cache.direct=on", r->image);
    }
    spec.blockdev = r->nodes;
    spec.json = json;
    spec.args = spec.args ?: MACHINE_ARGS;
    r->vm = life_start(c, &spec);
    if (!spec.hotplug) {
        engine = vblk_qom_str(r->vm->v, "engine");
        g_assert_cmpstr(engine, ==, "io_uring");
    }
}

static void rig_stop(Rig *r)
{
    life_stop(r->vm);
    unlink(r->image);
    g_free(r->image);
    g_free(r->nodes);
}

/* ---- what is registered ---- */

static uint64_t registered(LifeVm *vm)
{
    QDict *resp = life_query(vm, "{'execute': 'qom-get', 'arguments': {"
                             "'path': %s, 'property': 'registered-memory'}}",
                             vblk_qom_path(vm->v));
    uint64_t bytes = qnum_get_uint(qobject_to(QNum,
                                              qdict_get(resp, "return")));

    qobject_unref(resp);
    return bytes;
}

static void wait_registered(LifeVm *vm, uint64_t min, uint64_t max)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    uint64_t now;

    while ((now = registered(vm)) < min || now > max) {
        if (g_get_monotonic_time() > end) {
            vblk_fail("%" PRIu64 " bytes are registered, not %" PRIu64
                      " to %" PRIu64, now, min, max);
        }
        g_usleep(5000);
    }
}

static void wait_all(LifeVm *vm)
{
    wait_registered(vm, MEMORY_MB * MiB, UINT64_MAX);
}

static void rig_start_registered(Rig *r, const LifeCase *c, LifeSpec spec)
{
    rig_start(r, c, spec);
    wait_all(r->vm);
}

/* KiB of pinned pages, as the kernel counts them. */
static uint64_t pinned_kib(LifeVm *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            qtest_pid(vm->v->qts));
    g_autofree char *text = NULL;
    const char *at;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    at = strstr(text, "VmPin:");
    g_assert_nonnull(at);
    return g_ascii_strtoull(at + 6, NULL, 10);
}

static void wait_pinned(LifeVm *vm, uint64_t min, uint64_t max)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    uint64_t now;

    while ((now = pinned_kib(vm)) < min || now > max) {
        if (g_get_monotonic_time() > end) {
            vblk_fail("%" PRIu64 " KiB are pinned, not %" PRIu64 " to %"
                      PRIu64, now, min, max);
        }
        g_usleep(5000);
    }
}

/* ---- requests whose buffers we choose ---- */

static uint64_t pages(LifeVm *vm, unsigned n)
{
    return ROUND_UP(vblk_alloc(vm->v, (n + 1) * PAGE), PAGE);
}

/* One page or several, of which every second one is a buffer of its own. */
static VblkReq *put(LifeVm *vm, unsigned q, bool write, uint64_t sector,
                    uint64_t addr, unsigned segs, VblkChain *c)
{
    memset(c, 0, sizeof(*c));
    vblk_chain_header(vm->v, c, write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                      sector);
    for (unsigned i = 0; i < segs; i++) {
        VblkSeg seg = { addr + 2 * i * PAGE, PAGE };

        if (write) {
            c->out[c->nout++] = seg;
        } else {
            c->in[c->nin++] = seg;
        }
    }
    vblk_chain_status(vm->v, c);
    return vblk_chain_submit(vm->v, q, c);
}

static void get(LifeVm *vm, VblkReq *req, const VblkChain *c)
{
    uint8_t status;

    vblk_wait(vm->v, req, NULL);
    qtest_memread(vm->v->qts, c->status, &status, 1);
    g_assert_cmpint(status, ==, VIRTIO_BLK_S_OK);
}

static void transfer(LifeVm *vm, unsigned q, bool write, uint64_t sector,
                     uint64_t addr, unsigned segs)
{
    g_autofree VblkChain *c = g_new(VblkChain, 1);
    VblkReq *req = put(vm, q, write, sector, addr, segs, c);

    vblk_kick(vm->v, q);
    get(vm, req, c);
}

static void fill(LifeVm *vm, uint64_t addr, unsigned segs, uint32_t seed)
{
    uint8_t data[PAGE];

    for (unsigned i = 0; i < segs; i++) {
        vblk_pattern(data, PAGE, seed + i);
        qtest_memwrite(vm->v->qts, addr + 2 * i * PAGE, data, PAGE);
    }
}

/* The patterns of @seed, or zeroes where it is 0. */
static void expect(LifeVm *vm, uint64_t addr, unsigned segs, uint32_t seed)
{
    uint8_t want[PAGE] = {}, got[PAGE];

    for (unsigned i = 0; i < segs; i++) {
        if (seed) {
            vblk_pattern(want, PAGE, seed + i);
        }
        qtest_memread(vm->v->qts, addr + 2 * i * PAGE, got, PAGE);
        g_assert_cmpmem(got, PAGE, want, PAGE);
    }
}

/* There and back, in parts of that many segments. */
static void round_trip(LifeVm *vm, unsigned q, uint64_t from, uint64_t to,
                       unsigned segs, uint32_t seed)
{
    uint64_t sector = 4096 + seed % 16 * 512;

    fill(vm, from, segs, seed);
    transfer(vm, q, true, sector, from, segs);
    fill(vm, to, segs, seed + 1000);
    transfer(vm, q, false, sector, to, segs);
    expect(vm, to, segs, seed);
}

/* ---- the ways of a request ---- */

/* Two adjacent requests that are there at once go down as one. */
static void merged_trip(LifeVm *vm, uint64_t from, uint64_t to, uint32_t seed)
{
    g_autofree VblkChain *c = g_new(VblkChain, 2);
    uint64_t sector = 2048;
    VblkReq *req[2];

    for (unsigned write = 2; write--; ) {
        uint64_t addr = write ? from : to;

        fill(vm, addr, 4, write ? seed : seed + 1000);
        for (unsigned i = 0; i < 2; i++) {
            req[i] = put(vm, 0, write, sector + 2 * i * PAGE_SECTORS,
                         addr + 4 * i * PAGE, 2, &c[i]);
        }
        vblk_kick(vm->v, 0);
        for (unsigned i = 0; i < 2; i++) {
            get(vm, req[i], &c[i]);
        }
    }
    expect(vm, to, 4, seed);
}

static void test_io(const LifeCase *c)
{
    uint64_t merged, from, to;
    LifeLoad *load;
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    rig_start_registered(&r, c, (LifeSpec) { .json = ON });
    from = pages(r.vm, 40);
    to = pages(r.vm, 40);
    for (unsigned q = 0; q < c->queues; q++) {
        for (unsigned segs = 1; segs <= 16; segs *= 4) {
            round_trip(r.vm, q, from, to, segs, 10 * q + segs);
        }
    }
    merged = vblk_stat(r.vm->v, "wr_merged");
    merged_trip(r.vm, from, to, 77);
    g_assert_cmpint(vblk_stat(r.vm->v, "wr_merged"), ==, merged + 1);
    load = life_load_new(r.vm, 8);
    life_load_run(load, 300);
    life_qmp(r.vm, "{'execute': 'stop'}");
    life_cont(r.vm);
    life_load_run(load, 300);
    life_load_end(load);
    rig_stop(&r);
}

/*
 * When the file behind the guest's memory loses a page, the guest gets a new
 * one and the kernel still has the old one: then it shows whether a request
 * went by registered memory.
 */
static void lose_pages(int fd, uint64_t addr, unsigned segs)
{
    for (unsigned i = 0; i < segs; i++) {
        g_assert_cmpint(fallocate(fd, FALLOC_FL_PUNCH_HOLE |
                                      FALLOC_FL_KEEP_SIZE,
                                  addr + 2 * i * PAGE, PAGE), ==, 0);
    }
}

static void by_registered(LifeVm *vm, int memory, unsigned segs, bool yes)
{
    uint64_t addr = pages(vm, 2 * segs), other = pages(vm, 2 * segs);
    uint64_t sector = 1024 * segs;

    /* A write of what the guest has lost; what it has now is zeroes. */
    fill(vm, addr, segs, 5);
    lose_pages(memory, addr, segs);
    transfer(vm, 0, true, sector, addr, segs);
    transfer(vm, 0, false, sector, other, segs);
    expect(vm, other, segs, yes ? 5 : 0);

    /* A read to where the guest does not see it. */
    fill(vm, other, segs, 6);
    transfer(vm, 0, true, sector, other, segs);
    transfer(vm, 0, false, sector, addr, segs);
    expect(vm, addr, segs, yes ? 0 : 6);
}

/* A machine whose memory is a file, which is left open for the test. */
static int start_on_file(Rig *r, const LifeCase *c, const char *json)
{
    g_autofree char *memory = life_temp_in("/dev/shm", "memory",
                                           MEMORY_MB * MiB);
    g_autofree char *args = NULL;
    int fd;

    if (!memory) {
        g_test_skip("there is no /dev/shm");
        return -1;
    }
    fd = open(memory, O_RDWR);
    g_assert_cmpint(fd, >=, 0);
    args = g_strdup_printf("-object memory-backend-file,id=ram0,share=on,"
                           "size=%dM,mem-path=%s -m %d "
                           "-machine memory-backend=ram0",
                           MEMORY_MB, memory, MEMORY_MB);
    rig_start(r, c, (LifeSpec) { .json = json, .args = args });
    unlink(memory);
    return fd;
}

static void used_or_not(const LifeCase *c, const char *json, bool yes)
{
    Rig r = { 0 };
    int memory = start_on_file(&r, c, json);

    if (memory < 0) {
        return;
    }
    if (yes) {
        wait_all(r.vm);
    } else {
        vblk_check_io(r.vm->v, 0);
        g_assert_cmpint(registered(r.vm), ==, 0);
    }
    by_registered(r.vm, memory, 1, yes);
    if (kernel_is(6, 15)) {
        by_registered(r.vm, memory, 3, yes);
    }
    close(memory);
    rig_stop(&r);
}

static void test_used(const LifeCase *c)
{
    if (can_register()) {
        used_or_not(c, ON, true);
        used_or_not(c, OFF, false);
        used_or_not(c, NULL, false);
    }
}

/* ---- memory that comes and goes ---- */

static uint64_t dimm_plug(LifeVm *vm)
{
    QDict *resp, *info;
    uint64_t addr;

    life_qmp(vm, "{'execute': 'object-add', 'arguments': {'qom-type': "
             "'memory-backend-ram', 'id': 'm0', 'size': 134217728}}");
    life_qmp(vm, "{'execute': 'device_add', 'arguments': {'driver': "
             "'pc-dimm', 'id': 'dimm0', 'memdev': 'm0'}}");
    resp = life_query(vm, "{'execute': 'query-memory-devices'}");
    info = qobject_to(QDict, qlist_peek(qdict_get_qlist(resp, "return")));
    addr = qdict_get_int(qdict_get_qdict(info, "data"), "addr");
    qobject_unref(resp);
    return addr;
}

/* The guest agrees by the ACPI registers of memory hot plug. */
static void dimm_unplug(LifeVm *vm)
{
    life_qmp(vm, "{'execute': 'device_del', 'arguments': {'id': 'dimm0'}}");
    qtest_outl(vm->v->qts, 0xa00, 0);
    qtest_outb(vm->v->qts, 0xa14, 1 << 3);
    vblk_expect_event(vm->v, "DEVICE_DELETED");
    life_qmp(vm, "{'execute': 'object-del', 'arguments': {'id': 'm0'}}");
}

/*
 * The same place in the guest and most likely the same in QEMU, but other
 * pages: what is read must arrive in those, under load.
 */
static void test_dimm(const LifeCase *c)
{
    uint64_t base;
    LifeLoad *load;
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    rig_start_registered(&r, c, (LifeSpec) { .json = ON });
    base = registered(r.vm);
    load = life_load_new(r.vm, 4);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t addr;

        life_load_run(load, 50);
        addr = dimm_plug(r.vm);
        wait_registered(r.vm, base + DIMM, base + DIMM);
        life_load_run(load, 50);
        for (unsigned q = 0; q < c->queues; q++) {
            round_trip(r.vm, q, addr + q * MiB, addr + 64 * MiB + q * MiB,
                       1 + 2 * (i & 1), 100 * i + q + 1);
            load->base[q] += 2;         /* not the load's own */
        }
        life_load_run(load, 50);
        dimm_unplug(r.vm);
        wait_registered(r.vm, base, base);
    }
    life_load_end(load);
    rig_stop(&r);
}

/*
 * All queues share one registration, and idle ones, too, let go of memory that
 * is no more.
 */
static void test_pinned_once(const LifeCase *c)
{
    uint64_t without, all, spare = 4096;
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    rig_start(&r, c, (LifeSpec) { .json = OFF });
    without = pinned_kib(r.vm);
    life_stop(r.vm);
    rig_start_registered(&r, c, (LifeSpec) { .json = ON });
    for (unsigned q = 0; q < c->queues; q++) {
        vblk_check_io(r.vm->v, q);
    }
    all = without + registered(r.vm) / KiB;
    wait_pinned(r.vm, all, all + spare);
    for (unsigned i = 0; i < ROUNDS; i++) {
        dimm_plug(r.vm);
        wait_pinned(r.vm, all + DIMM / KiB, all + DIMM / KiB + spare);
        for (unsigned q = 0; q < c->queues; q++) {
            vblk_check_io(r.vm->v, q);
        }
        dimm_unplug(r.vm);
        wait_pinned(r.vm, all, all + spare);
    }
    rig_stop(&r);
}

/* A reset of the machine takes all back; who uses the disk gets it again. */
static void test_machine_reset(const LifeCase *c)
{
    int memory;
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    memory = start_on_file(&r, c, ON);
    if (memory < 0) {
        return;
    }
    wait_all(r.vm);
    vblk_check_io(r.vm->v, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        life_qmp(r.vm, "{'execute': 'system_reset'}");
        vblk_expect_event(r.vm->v, "RESET");
        wait_registered(r.vm, 0, 0);
        /* As qemu_ram_remap() does with a page that is broken. */
        lose_pages(memory, 64 * MiB, 1);
        vblk_detach(r.vm->v);
        vblk_attach(r.vm->v);
        life_setup(r.vm);
        wait_all(r.vm);
        round_trip(r.vm, 0, 65 * MiB, 64 * MiB, 1, i + 1);
    }
    close(memory);
    rig_stop(&r);
}

/* ---- when it can't be, or must not ---- */

static char *read_log(const char *log)
{
    char *text = NULL;

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    return text;
}

static void wait_log(const char *log, const char *words)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    for (;;) {
        g_autofree char *text = read_log(log);

        if (strstr(text, words)) {
            return;
        }
        if (g_get_monotonic_time() > end) {
            vblk_fail("the log has no \"%s\", but: %s", words, text);
        }
        g_usleep(5000);
    }
}

/* A disk that goes on without; @why is in the trace. */
static void works_without(const LifeCase *c, LifeSpec spec, const char *why)
{
    g_autofree char *log = life_temp("log", 0);
    g_autofree char *args = g_strdup_printf(MACHINE_ARGS " " MEMORY_EVENTS
                                            "%s %s", log, spec.args ?: "");
    uint64_t addr;
    Rig r = { 0 };

    spec.args = args;
    rig_start(&r, c, spec);
    wait_log(log, why);
    addr = pages(r.vm, 20);
    round_trip(r.vm, 0, addr, addr + 10 * PAGE, 3, 9);
    g_assert_cmpint(registered(r.vm), <, MEMORY_MB * MiB);
    rig_stop(&r);
    unlink(log);
}

/* root may lock any number of pages, unless it is told not to. */
static void test_limit(const LifeCase *c)
{
    g_autofree char *prlimit = g_find_program_in_path("prlimit");
    g_autofree char *setpriv = g_find_program_in_path("setpriv");
    g_autofree char *binary = NULL;

    if (!can_register()) {
        return;
    }
    if (!prlimit || !setpriv) {
        g_test_skip("prlimit or setpriv is missing");
        return;
    }
    binary = g_strdup_printf("%s --memlock=8388608 %s %s", prlimit,
                             geteuid() ? "" :
                             "setpriv --bounding-set=-ipc_lock",
                             g_getenv("QTEST_QEMU_BINARY"));
    g_setenv("VBLK_LIMITED_BINARY", binary, true);
    works_without(c, (LifeSpec) {
        .json = ON, .binary_env = "VBLK_LIMITED_BINARY",
    }, "the limit of locked memory (ulimit -l) is too small");
    g_unsetenv("VBLK_LIMITED_BINARY");
}

#define VIRTIO_MEM  "-object memory-backend-ram,id=vm0,size=128M " \
                    "-device virtio-mem-pci,memdev=vm0,requested-size=0"

/* Devices that take memory from the guest and this exclude each other. */
static void test_discards(const LifeCase *c)
{
    QDict *resp;
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    if (!qtest_has_device("virtio-mem-pci")) {
        g_test_skip("this QEMU has no virtio-mem-pci");
        return;
    }
    works_without(c, (LifeSpec) { .json = ON, .args = VIRTIO_MEM },
                  "another device takes memory from the guest");

    rig_start_registered(&r, c, (LifeSpec) {
        .json = ON, .args = MACHINE_ARGS " -device pcie-root-port,id=p0 "
        "-object memory-backend-ram,id=vm0,size=128M",
    });
    resp = vblk_qmp(r.vm->v, "{'execute': 'device_add', 'arguments': {"
                    "'driver': 'virtio-mem-pci', 'memdev': 'vm0', "
                    "'bus': 'p0'}}");
    g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(resp, "error"),
                                          "desc"), "iscarding RAM"));
    qobject_unref(resp);
    rig_stop(&r);
}

/* It ends with the last disk. */
static void test_last_disk(const LifeCase *c)
{
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    rig_start(&r, c, (LifeSpec) {
        .json = ON, .machine = "pc", .hotplug = true,
    });
    for (unsigned i = 0; i < ROUNDS; i++) {
        life_plug(r.vm);
        wait_all(r.vm);
        vblk_check_io(r.vm->v, 0);
        wait_pinned(r.vm, MEMORY_MB * KiB, UINT64_MAX);
        life_unplug(r.vm);
        wait_pinned(r.vm, 0, MEMORY_MB * KiB / 2);
    }
    rig_stop(&r);
}

/* ---- auto ---- */

static void test_auto(const LifeCase *c)
{
    Rig r = { 0 };

    if (!can_register()) {
        return;
    }
    if (geteuid()) {
        g_test_skip("only root may lock that much memory");
        return;
    }
    rig_start_registered(&r, c, (LifeSpec) {
        .args = "-overcommit mem-lock=on",
    });
    vblk_check_io(r.vm->v, 0);
    life_stop(r.vm);
    rig_start(&r, c, (LifeSpec) {
        .args = "-overcommit mem-lock=on", .json = OFF,
    });
    vblk_check_io(r.vm->v, 0);
    g_assert_cmpint(registered(r.vm), ==, 0);
    rig_stop(&r);
}

void vblk_add_registered_tests(void)
{
    life_add("registered/io", LIFE_PCI | LIFE_LEGACY, test_io);
    life_add("registered/used", LIFE_MAIN | LIFE_ONE_PACKED, test_used);
    life_add("registered/dimm", LIFE_MAIN | LIFE_ONE_PACKED | LIFE_MAP,
             test_dimm);
    life_add("registered/pinned-once", LIFE_ONE | LIFE_MAP, test_pinned_once);
    life_add("registered/machine-reset", LIFE_ONE, test_machine_reset);
    life_add("registered/limit", LIFE_MAIN | LIFE_ONE, test_limit);
    life_add("registered/discards", LIFE_ONE, test_discards);
    life_add("registered/last-disk", LIFE_ONE, test_last_disk);
    life_add("registered/auto", LIFE_ONE, test_auto);
}
