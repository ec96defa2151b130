/*
 * virtio-blk qtests: flushes that the io_uring engine makes, and what is left
 * of the disk's honour when one fails
 *
 * On the disk of tests/badfs, which is there when VBLK_BADFS names the program.
 * Linux tells of data that it could not write back once: whoever asks again is
 * told that all is well.  So a flush that failed must not succeed later, by
 * whatever way, as long as there is a page cache.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "badfs.h"
#include "life.h"
#include "vhost.h"

#define DISK_SIZE       (4 * 1024 * 1024)

typedef struct Rig {
    VblkBadfs badfs;
    LifeVm *vm;
} Rig;

/* @opts: of the file node; @json: of the device. */
static bool rig_start(Rig *r, const LifeCase *c, const char *opts,
                      const char *json)
{
    g_autofree char *nodes = NULL;

    if (!vblk_kernel_has_uring()) {
        return false;
    }
    vblk_badfs_begin(&r->badfs, DISK_SIZE);
    nodes = g_strdup_printf("-blockdev driver=file,node-name=" VBLK_NODE
                            ",filename=%s/disk%s", r->badfs.dir, opts);
    r->vm = life_start(c, &(LifeSpec) { .blockdev = nodes, .json = json });
    return true;
}

static void rig_stop(Rig *r)
{
    life_stop(r->vm);
    vblk_badfs_end(&r->badfs);
}

static VblkIo *flush(Rig *r, unsigned q)
{
    return vblk_io(r->vm->v, q, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
}

static VblkIo *flush_kick(Rig *r, unsigned q)
{
    VblkIo *io = flush(r, q);

    vblk_kick(r->vm->v, q);
    return io;
}

static void write_ok(Rig *r, unsigned q, unsigned seed)
{
    life_ok(r->vm, life_write_kick(r->vm, q, seed * LIFE_SECTORS, seed));
}

static unsigned fsyncs(Rig *r)
{
    return vblk_badfs_count(&r->badfs, "fsync");
}

/* Until the host is at work on that many. */
static void wait_count(Rig *r, const char *name, unsigned n)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (vblk_badfs_count(&r->badfs, name) < n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
}

/* ---- who shares a flush ---- */

/*
 * Start a flush, and have a write end while it runs: what comes now can't do
 * with that flush.
 */
static VblkIo *overtake(Rig *r)
{
    VblkIo *write, *first;

    write_ok(r, 0, 1);
    vblk_badfs_ctl(&r->badfs, "fault write delay 1\n");
    write = life_write_kick(r->vm, 0, 2 * LIFE_SECTORS, 2);
    wait_count(r, "failed", 1);
    /* The write will be first, whatever the machine is doing. */
    g_usleep(VBLK_BADFS_DELAY_MS * 1000 / 2);
    vblk_badfs_ctl(&r->badfs, "fault fsync delay 1\n");
    first = flush_kick(r, 0);
    wait_count(r, "fsync", 1);
    life_ok(r->vm, write);
    return first;
}

/*
 * VIRTIO 1.4, 5.2.6.2: what was written before a flush came.  So it may not
 * share one that had begun by then; those that wait for the next one may.
 */
static void test_share(const void *data)
{
    Rig r;
    VblkIo *first, *later[3];

    if (!rig_start(&r, data, "", NULL)) {
        return;
    }
    first = overtake(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(later); i++) {
        later[i] = flush(&r, 0);
    }
    vblk_kick(r.vm->v, 0);
    life_ok(r.vm, first);
    for (unsigned i = 0; i < ARRAY_SIZE(later); i++) {
        life_ok(r.vm, later[i]);
    }
    g_assert_cmpint(fsyncs(&r), ==, 2);
    g_assert_cmpint(vblk_badfs_count(&r.badfs, "dirty"), ==, 0);
    life_assert_engine(r.vm, "io_uring");
    rig_stop(&r);
}

/* Nothing was written since the running one began: it is enough. */
static void test_enough(const void *data)
{
    Rig r;
    VblkIo *first, *later;

    if (!rig_start(&r, data, "", NULL)) {
        return;
    }
    write_ok(&r, 0, 1);
    vblk_badfs_ctl(&r.badfs, "fault fsync delay 1\n");
    first = flush_kick(&r, 0);
    wait_count(&r, "fsync", 1);
    later = flush_kick(&r, 0);
    vblk_expect_pending(r.vm->v, later->req, 10);
    life_ok(r.vm, first);
    life_ok(r.vm, later);
    g_assert_cmpint(fsyncs(&r), ==, 1);
    rig_stop(&r);
}

/* A stop, and so a migration or a snapshot, waits for all of them. */
static void test_drain(const void *data)
{
    Rig r;
    VblkIo *first, *later;

    if (!rig_start(&r, data, "", NULL)) {
        return;
    }
    first = overtake(&r);
    later = flush_kick(&r, 0);
    vblk_expect_pending(r.vm->v, later->req, 50);
    life_qmp(r.vm, "{'execute': 'stop'}");
    life_ok(r.vm, first);
    life_cont(r.vm);
    life_assert_engine(r.vm, "io_uring");
    life_ok(r.vm, later);
    g_assert_cmpint(fsyncs(&r), ==, 2);
    g_assert_cmpint(vblk_badfs_count(&r.badfs, "dirty"), ==, 0);
    rig_stop(&r);
}

/* ---- a flush that fails ---- */

/*
 * Of two queues, in two threads: one may not be told that all is well because
 * the other one was told that it is not.
 */
static void test_two_fail(const void *data)
{
    Rig r;
    VblkIo *first, *second;

    if (!rig_start(&r, data, "", "\"werror\":\"report\",")) {
        return;
    }
    write_ok(&r, 0, 1);
    write_ok(&r, 1, 2);
    vblk_badfs_ctl(&r.badfs, "fault fsync late 1\n");
    first = flush_kick(&r, 0);
    wait_count(&r, "fsync", 1);
    second = flush_kick(&r, 1);
    vblk_expect_pending(r.vm->v, second->req, 10);
    g_assert_cmpint(fsyncs(&r), ==, 1);
    life_ioerr(r.vm, first);
    life_ioerr(r.vm, second);
    life_ioerr(r.vm, flush_kick(&r, 0));
    g_assert_cmpint(fsyncs(&r), ==, 1);
    /* Reads and writes go on, past the engine. */
    write_ok(&r, 0, 3);
    life_assert_read(r.vm, 1, 3 * LIFE_SECTORS, 3);
    life_qmp(r.vm, "{'execute': 'stop'}");
    life_cont(r.vm);
    life_assert_engine(r.vm, "block");
    rig_stop(&r);
}

/* The block layer's flush, which waited for the engine's, fails: likewise. */
static void test_block_fails(const void *data)
{
    Rig r;
    VblkIo *first, *second;

    if (!rig_start(&r, data, "", "\"werror\":\"report\",")) {
        return;
    }
    first = overtake(&r);
    vblk_badfs_ctl(&r.badfs, "fault fsync 5 1\n");
    second = flush_kick(&r, 1);
    life_ok(r.vm, first);
    life_ioerr(r.vm, second);
    life_ioerr(r.vm, flush_kick(&r, 0));
    g_assert_cmpint(fsyncs(&r), ==, 2);
    rig_stop(&r);
}

/* Direct I/O leaves nothing in the page cache, so a flush may be repeated. */
static void test_direct(const void *data)
{
    Rig r;

    if (!rig_start(&r, data, ",cache.direct=on",
                   LIFE_BLOCKS "\"werror\":\"report\",")) {
        return;
    }
    write_ok(&r, 0, 1);
    vblk_badfs_ctl(&r.badfs, "fault fsync 5 1\n");
    life_ioerr(r.vm, flush_kick(&r, 0));
    life_ok(r.vm, flush_kick(&r, 0));
    g_assert_cmpint(fsyncs(&r), ==, 2);
    life_assert_engine(r.vm, "io_uring");
    rig_stop(&r);
}

typedef struct Way {
    const char *name, *opts, *engine;
} Way;

static const Way ways[] = {
    { "engine", "", "io_uring" },
    { "block-uring", ",aio=io_uring", "block" },
    { "block-threads", ",aio=threads", "block" },
};

static const LifeCase one_queue = { "one", VBLK_PCI_MODERN, .threads = 1,
                                    .queues = 1 };

/* What "cont" repeats must not succeed. */
static void test_for_ever(const void *data)
{
    const Way *way = data;
    g_autofree char *json = g_strdup_printf("\"werror\":\"stop\","
                                            "\"io-engine\":\"%s\",",
                                            way->engine);
    VblkIo *io;
    Rig r;

    if (!rig_start(&r, &one_queue, way->opts, json)) {
        return;
    }
    life_assert_engine(r.vm, way->engine);
    write_ok(&r, 0, 1);
    vblk_badfs_ctl(&r.badfs, "fault fsync 5 1\n");
    io = flush_kick(&r, 0);
    life_wait_stopped(r.vm);
    for (unsigned i = 0; i < 2; i++) {
        life_cont(r.vm);
        life_wait_stopped(r.vm);
        life_assert_state(r.vm, "io-error");
        vblk_expect_pending(r.vm->v, io->req, 10);
    }
    g_assert_cmpint(fsyncs(&r), ==, 1);
    rig_stop(&r);
}

/* One that failed in the kernel must not succeed in QEMU. */
static void test_vhost(const void *data)
{
    g_autofree char *nodes = NULL;
    Vhost h;
    Rig r;

    if (!vhost_begin_fake(&h, NULL)) {
        return;
    }
    vblk_badfs_begin(&r.badfs, DISK_SIZE);
    nodes = g_strdup_printf("-blockdev driver=file,node-name=" VBLK_NODE
                            ",filename=%s/disk", r.badfs.dir);
    r.vm = vhost_start(&h, data, (LifeSpec) { .blockdev = nodes });
    vhost_wait_engine(r.vm, "vhost");
    write_ok(&r, 0, 1);
    vblk_badfs_ctl(&r.badfs, "fault fsync 5 1\n");
    life_ioerr(r.vm, flush_kick(&r, 0));
    vhost_wait_engine(r.vm, "block");
    life_ioerr(r.vm, flush_kick(&r, 0));
    g_assert_cmpint(fsyncs(&r), ==, 1);
    vhost_assert_userspace(r.vm);
    write_ok(&r, 0, 2);
    rig_stop(&r);
    vhost_end(&h);
}

/*
 * Without a cache a write is one and a flush, whose errors are final; what the
 * write itself says is not.
 */
static void test_synced_write(const void *data)
{
    const Way *way = data;
    g_autofree char *json = g_strdup_printf("\"werror\":\"report\","
                                            "\"write-cache\":\"off\","
                                            "\"io-engine\":\"%s\",",
                                            way->engine);
    Rig r;

    if (!rig_start(&r, &one_queue, way->opts, json)) {
        return;
    }
    life_assert_engine(r.vm, way->engine);
    write_ok(&r, 0, 1);
    write_ok(&r, 0, 2);
    g_assert_cmpint(fsyncs(&r), ==, 2);
    g_assert_cmpint(vblk_badfs_count(&r.badfs, "dirty"), ==, 0);
    vblk_badfs_ctl(&r.badfs, "fault write 28 -1\n");
    life_ioerr(r.vm, life_write_kick(r.vm, 0, 64, 2));
    vblk_badfs_ctl(&r.badfs, "clear\n");
    write_ok(&r, 0, 3);
    vblk_badfs_ctl(&r.badfs, "fault fsync 5 1\n");
    life_ioerr(r.vm, life_write_kick(r.vm, 0, 64, 4));
    life_ioerr(r.vm, life_write_kick(r.vm, 0, 64, 5));
    life_ioerr(r.vm, flush_kick(&r, 0));
    g_assert_cmpint(fsyncs(&r), ==, 4);
    rig_stop(&r);
}

/* Past the page cache there is RWF_DSYNC, and an error is its write's own. */
static void test_synced_direct(const void *data)
{
    Rig r;

    if (!rig_start(&r, data, ",cache.direct=on",
                   LIFE_BLOCKS
                   "\"werror\":\"report\",\"write-cache\":\"off\",")) {
        return;
    }
    write_ok(&r, 0, 1);
    g_assert_cmpint(vblk_badfs_count(&r.badfs, "dsync"), ==, 1);
    g_assert_cmpint(vblk_badfs_count(&r.badfs, "dirty"), ==, 0);
    vblk_badfs_ctl(&r.badfs, "fault write 5 2\n");
    life_ioerr(r.vm, life_write_kick(r.vm, 0, 64, 2));
    write_ok(&r, 0, 3);
    g_assert_cmpint(fsyncs(&r), ==, 0);
    rig_stop(&r);
}

void vblk_add_engine_flush_tests(void)
{
    static const LifeCase main_loop = { "main", VBLK_PCI_MODERN, .queues = 1 };
    static const LifeCase two = { "two", VBLK_PCI_MODERN, .threads = 2,
                                  .queues = 2 };

    if (!vblk_badfs_there()) {
        return;
    }
    vblk_add_data("faults/flush/share/main", &main_loop, test_share);
    vblk_add_data("faults/flush/share/iothread", &one_queue, test_share);
    vblk_add_data("faults/flush/enough", &one_queue, test_enough);
    vblk_add_data("faults/flush/drain/main", &main_loop, test_drain);
    vblk_add_data("faults/flush/drain/iothread", &one_queue, test_drain);
    vblk_add_data("faults/flush/two-fail", &two, test_two_fail);
    vblk_add_data("faults/flush/block-fails", &two, test_block_fails);
    vblk_add_data("faults/flush/vhost", &one_queue, test_vhost);
    vblk_add_data("faults/flush/direct", &one_queue, test_direct);
    for (unsigned i = 0; i < ARRAY_SIZE(ways); i++) {
        g_autofree char *name = g_strdup_printf("faults/flush/for-ever/%s",
                                                ways[i].name);

        g_autofree char *synced = g_strdup_printf("faults/flush/synced/%s",
                                                  ways[i].name);

        vblk_add_data(name, &ways[i], test_for_ever);
        vblk_add_data(synced, &ways[i], test_synced_write);
    }
    vblk_add_data("faults/flush/synced-direct", &one_queue,
                  test_synced_direct);
}
