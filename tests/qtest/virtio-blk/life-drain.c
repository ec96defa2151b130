/*
 * virtio-blk qtests: drained sections and graph changes under a load
 *
 * Known bugs "guest I/O stuck after backup, mirror or hotplug", "assertion in
 * drain_all", "throttled VM locks up": each command below drains the disk one
 * or more times, while every queue is busy.  The load rings a doorbell only
 * when the device asks for it, counts completions and compares all data; so
 * a notification left off, a lost or a repeated request fails the test.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "life.h"

#define DEPTH           6
#define ROUNDS          4

typedef struct Drain {
    LifeVm *vm;
    LifeLoad *l;
} Drain;

static Drain start(const LifeCase *c, LifeSpec s)
{
    Drain d = { .vm = life_start(c, &s) };

    d.l = life_load_new(d.vm, DEPTH);
    life_load_run(d.l, 20);
    return d;
}

static void finish(Drain *d)
{
    life_load_run(d->l, 40);
    life_load_end(d->l);
    for (unsigned q = 0; q < d->vm->s.queues; q++) {
        vblk_check_io(d->vm->v, q);
    }
    life_stop(d->vm);
}

/* B6, B13: a drain_all, over and over. */
static void test_drain_all(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });

    for (unsigned i = 0; i < 15; i++) {
        g_autofree char *out = vblk_qemu_io(d.vm->v, VBLK_NODE, "aio_flush");

        g_assert_cmpstr(g_strstrip(out), ==, "");
        life_load_run(d.l, 10);
    }
    finish(&d);
}

/* B6: blockdev-reopen with the options that it has. */
static void test_reopen(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });

    for (unsigned i = 0; i < 10; i++) {
        life_load_qmp(d.l, 10, "{'execute': 'blockdev-reopen', 'arguments': "
                      "{'options': [{'driver': 'raw', 'node-name': %s, "
                      "'file': 'file0', 'discard': 'unmap'}]}}", VBLK_NODE);
    }
    finish(&d);
}

/* B6: limits of the device come and go: the throttle filter of the backend. */
static void test_io_throttle(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });

    for (unsigned i = 0; i < 10; i++) {
        life_load_qmp(d.l, 10, "{'execute': 'block_set_io_throttle', "
                      "'arguments': {'id': %s, 'bps': 0, 'bps_rd': 0, "
                      "'bps_wr': 0, 'iops': %d, 'iops_rd': 0, 'iops_wr': 0}}",
                      vblk_qom_path(d.vm->v), i % 2 ? 0 : 100000);
    }
    finish(&d);
}

/* B6: snapshot, then commit of the active layer: what libvirt does daily. */
static void test_snapshot_commit(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });

    for (unsigned i = 0; i < ROUNDS; i++) {
        g_autofree char *file = life_temp("overlay", 0);
        g_autofree char *node = g_strdup_printf("ov%u", i);

        life_load_qmp(d.l, 10, "{'execute': 'blockdev-snapshot-sync', "
                      "'arguments': {'node-name': %s, 'snapshot-file': %s, "
                      "'snapshot-node-name': %s, 'format': 'qcow2'}}",
                      VBLK_NODE, file, node);
        life_load_run(d.l, 30);
        life_load_qmp(d.l, 10, "{'execute': 'block-commit', 'arguments': "
                      "{'job-id': 'j0', 'device': %s}}", node);
        life_load_event(d.l, "BLOCK_JOB_READY", 10);
        life_load_qmp(d.l, 10, "{'execute': 'block-job-complete', "
                      "'arguments': {'device': 'j0'}}");
        life_load_event(d.l, "BLOCK_JOB_COMPLETED", 20);
        unlink(file);
    }
    finish(&d);
}

static void add_file_node(LifeVm *vm, const char *node, const char *file)
{
    life_qmp(vm, "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw', "
             "'node-name': %s, 'file': {'driver': 'file', 'filename': %s, "
             "'locking': 'off'}}}", node, file);
}

/* B6: mirror to another file and pivot to it, there and back again. */
static void test_mirror(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });
    g_autofree char *from = g_strdup(VBLK_NODE);
    g_autofree char *file[ROUNDS] = { NULL };

    for (unsigned i = 0; i < ROUNDS; i++) {
        g_autofree char *to = g_strdup_printf("mirror%u", i);

        file[i] = life_temp("mirror", LIFE_DISK_SIZE);
        add_file_node(d.vm, to, file[i]);
        life_load_qmp(d.l, 10, "{'execute': 'blockdev-mirror', 'arguments': "
                      "{'job-id': 'j0', 'device': %s, 'target': %s, 'sync': "
                      "'full', 'copy-mode': %s}}", from, to,
                      i % 2 ? "write-blocking" : "background");
        life_load_event(d.l, "BLOCK_JOB_READY", 10);
        life_load_qmp(d.l, 10, "{'execute': 'block-job-complete', "
                      "'arguments': {'device': 'j0'}}");
        life_load_event(d.l, "BLOCK_JOB_COMPLETED", 20);
        life_load_qmp(d.l, 10, "{'execute': 'blockdev-del', 'arguments': "
                      "{'node-name': %s}}", from);
        g_free(from);
        from = g_steal_pointer(&to);
    }
    finish(&d);
    for (unsigned i = 0; i < ROUNDS; i++) {
        unlink(file[i]);
        g_free(g_steal_pointer(&file[i]));
    }
}

/*
 * B6, known bug: what requests of several iothreads share in a write-blocking
 * mirror.  In one area for all, each write waits for another one.
 */
static void test_mirror_cancel(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });
    g_autofree char *file = life_temp("mirror", LIFE_DISK_SIZE);

    add_file_node(d.vm, "copy", file);
    for (unsigned i = 0; i < ROUNDS; i++) {
        life_load_qmp(d.l, 10, "{'execute': 'blockdev-mirror', 'arguments': "
                      "{'job-id': 'j0', 'device': %s, 'target': 'copy', "
                      "'sync': 'full', 'copy-mode': 'write-blocking', "
                      "'granularity': %d}}", VBLK_NODE, (int)LIFE_DISK_SIZE);
        life_load_event(d.l, "BLOCK_JOB_READY", 10);
        life_load_run(d.l, 50);
        life_load_qmp(d.l, 10, "{'execute': 'block-job-cancel', 'arguments': "
                      "{'device': 'j0', 'force': true}}");
        life_load_event(d.l, "BLOCK_JOB_CANCELLED", 20);
    }
    finish(&d);
    unlink(file);
}

/* B6: backups with a filter, in a transaction with a bitmap. */
static void test_backup(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });

    for (unsigned i = 0; i < ROUNDS; i++) {
        g_autofree char *bitmap = g_strdup_printf("b%u", i);

        life_load_qmp(d.l, 5, "{'execute': 'blockdev-add', 'arguments': "
                      "{'driver': 'null-co', 'node-name': 'target', "
                      "'read-zeroes': true, 'size': %d}}", LIFE_DISK_SIZE);
        life_load_qmp(d.l, 10, "{'execute': 'transaction', 'arguments': "
                      "{'actions': [{'type': 'block-dirty-bitmap-add', 'data':"
                      " {'node': %s, 'name': %s}}, {'type': "
                      "'blockdev-backup', 'data': {'job-id': 'j0', 'device': "
                      "%s, 'target': 'target', 'sync': 'full'}}]}}",
                      VBLK_NODE, bitmap, VBLK_NODE);
        life_load_event(d.l, "BLOCK_JOB_COMPLETED", 20);
        life_load_qmp(d.l, 5, "{'execute': 'blockdev-del', 'arguments': "
                      "{'node-name': 'target'}}");
    }
    finish(&d);
}

/* ---- two disks in one throttle group, on two iothreads ---- */

#define SECOND_SLOT     5
#define SECOND_QUEUES   2

/* The fixture's view of a second device of the same machine. */
static Vblk *second_disk(LifeVm *vm)
{
    Vblk *w = g_new0(Vblk, 1);

    w->o = vm->v->o;
    w->o.slot = SECOND_SLOT;
    w->o.num_queues = SECOND_QUEUES;
    w->qts = vm->v->qts;
    /* Above what the first one's allocator, which fills from below, needs. */
    alloc_init(&w->alloc, 0, 64 * MiB, 96 * MiB, 4096);
    w->pcibus = vm->v->pcibus;      /* goes on where its BARs end */
    vblk_attach(w);
    vblk_setup(w);
    return w;
}

static char *second_args(const char *file, bool packed)
{
    return g_strdup_printf(
        "-object iothread,id=io9 -blockdev driver=file,node-name=file1,"
        "filename=%s -blockdev driver=raw,node-name=fmt1,file=file1 "
        "-blockdev driver=throttle,node-name=disk1,throttle-group=thr0,"
        "file=fmt1 -device %s,id=second,addr=%d,drive=disk1,"
        "iothread=io9,num-queues=%d,packed=%s", file, vblk_type(true),
        SECOND_SLOT, SECOND_QUEUES, packed ? "on" : "off");
}

static void run_both(LifeLoad *a, LifeLoad *b, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        life_load_run(a, 3);
        life_load_run(b, 3);
    }
}

/* B6, B12, known bug "throttle group x 2 iothreads", with stop and cont. */
static void test_throttle_group(const LifeCase *c)
{
    g_autofree char *file = life_temp("second", LIFE_DISK_SIZE);
    g_autofree char *args = second_args(file, c->packed);
    LifeVm *vm = life_start(c, &(LifeSpec) { .throttle = true,
                                             .args = args });
    LifeVm other = *vm;
    LifeLoad *a, *b;

    other.v = second_disk(vm);
    other.s.queues = SECOND_QUEUES;
    life_qmp(vm, "{'execute': 'qom-set', 'arguments': {'path': "
             "'/objects/thr0', 'property': 'limits', 'value': "
             "{'iops-total': 400}}}");
    a = life_load_new(vm, DEPTH);
    b = life_load_new(&other, DEPTH);
    for (unsigned i = 0; i < 8; i++) {
        run_both(a, b, 5);
        life_qmp(vm, "{'execute': 'stop'}");
        life_qmp(vm, "{'execute': 'cont'}");
    }
    life_load_end(a);
    life_load_end(b);
    unlink(file);
    vblk_detach(other.v);
    alloc_destroy(&other.v->alloc);
    g_free(other.v);
    life_stop(vm);
}

/* B6: the device's load goes through other nodes that come and go below it. */
static void test_filter(const LifeCase *c)
{
    Drain d = start(c, (LifeSpec) { 0 });

    for (unsigned i = 0; i < 6; i++) {
        life_load_qmp(d.l, 5, "{'execute': 'blockdev-add', 'arguments': "
                      "{'driver': 'copy-on-read', 'node-name': 'cor0', "
                      "'file': 'file0', 'discard': 'unmap'}}");
        life_load_qmp(d.l, 10, "{'execute': 'blockdev-reopen', 'arguments': "
                      "{'options': [{'driver': 'raw', 'node-name': %s, "
                      "'file': 'cor0', 'discard': 'unmap'}]}}", VBLK_NODE);
        life_load_qmp(d.l, 10, "{'execute': 'blockdev-reopen', 'arguments': "
                      "{'options': [{'driver': 'raw', 'node-name': %s, "
                      "'file': 'file0', 'discard': 'unmap'}]}}", VBLK_NODE);
        life_load_qmp(d.l, 5, "{'execute': 'blockdev-del', 'arguments': "
                      "{'node-name': 'cor0'}}");
    }
    finish(&d);
}

#define DRAIN_CASES     (LIFE_MAIN | LIFE_THREADS | LIFE_MMIO | LIFE_NOEVENTFD)

void life_add_drain_tests(void)
{
    life_add("drain/all", LIFE_ALL, test_drain_all);
    life_add("drain/reopen", DRAIN_CASES, test_reopen);
    life_add("drain/io-throttle", DRAIN_CASES, test_io_throttle);
    life_add("drain/snapshot-commit", DRAIN_CASES, test_snapshot_commit);
    life_add("drain/mirror", DRAIN_CASES, test_mirror);
    life_add("drain/mirror-cancel", DRAIN_CASES, test_mirror_cancel);
    life_add("drain/backup", DRAIN_CASES, test_backup);
    life_add("drain/filter", DRAIN_CASES, test_filter);
    life_add("drain/throttle-group",
             LIFE_ONE | LIFE_ONE_PACKED | LIFE_MAP_PACKED,
             test_throttle_group);
}
