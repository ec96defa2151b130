/*
 * virtio-blk qtests: which engine serves the disk, and what the io_uring one
 * must do for the block layer
 *
 * Issue 4: "each either honoured or makes the node ineligible".  That no data
 * is lost when the engine changes is for the life/drain tests, whose disks are
 * plain files.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include <linux/io_uring.h>
#include "qobject/qlist.h"
#include "life.h"

#define RAW_NODE        "-blockdev driver=raw,node-name=disk0,file=file0"

/* Does the kernel let this user have a ring? */
bool vblk_kernel_has_uring(void)
{
    struct io_uring_params params = {};
    int fd = syscall(__NR_io_uring_setup, 4, &params);

    if (fd < 0) {
        g_test_skip("the kernel has no io_uring for this user");
        return false;
    }
    close(fd);
    return true;
}

void life_assert_engine(LifeVm *vm, const char *engine)
{
    g_autofree char *now = vblk_qom_str(vm->v, "engine");
    g_autofree char *why = vblk_qom_str(vm->v, "engine-reason");

    g_assert_cmpstr(now, ==, engine);
    g_assert_cmpstr(why, !=, "");
    g_assert_cmpint(g_str_equal(why, "the node is plain"), ==,
                    g_str_equal(engine, "io_uring"));
}

/* ---- the choice ---- */

typedef struct Choice {
    const char *name;
    const char *engine;
    const char *file_opts, *raw_opts;   /* NULL: no such node */
    const char *json;                   /* of the device */
    const char *node_args;              /* instead of a raw node */
} Choice;

static const Choice choices[] = {
    { "plain", "io_uring", "", "" },
    { "file-alone", "io_uring", "", NULL },
    { "aio-io_uring", "io_uring", ",aio=io_uring", "" },
    { "direct", "io_uring", ",cache.direct=on", ",cache.direct=on" },
    { "aio-threads", "block", ",aio=threads", "" },
    { "aio-native", "block", ",aio=native,cache.direct=on",
      ",cache.direct=on" },
    { "threads-but-asked", "io_uring", ",aio=threads", "",
      "\"io-engine\":\"io_uring\"," },
    { "not-asked", "block", "", "", "\"io-engine\":\"block\"," },
    { "share-rw", "block", "", "", "\"share-rw\":true," },
    { "part-of-file", "block", "", ",offset=4096" },
    { "shorter-than-file", "block", "", ",size=1048576" },
    { "detect-zeroes", "block", "", ",detect-zeroes=on" },
    { "detect-zeroes-below", "block", ",detect-zeroes=on", "" },
    { "throttled", "block", "", ",node-name=fmt0", "",
      " -object throttle-group,id=tg0"
      " -blockdev driver=throttle,node-name=disk0,file=fmt0,"
      "throttle-group=tg0" },
    { "copy-on-read", "block", "", ",node-name=fmt0", "",
      " -blockdev driver=copy-on-read,node-name=disk0,file=fmt0" },
};

static char *choice_nodes(const Choice *choice, const char *file)
{
    const char *name = choice->raw_opts ? "file0" : "disk0";
    const char *raw = choice->node_args ? "" : ",node-name=disk0";
    GString *s = g_string_new(NULL);

    g_string_printf(s, "-blockdev driver=file,node-name=%s,filename=%s,"
                    "locking=off%s", name, file, choice->file_opts);
    if (choice->raw_opts) {
        g_string_append_printf(s, " -blockdev driver=raw,file=file0%s%s", raw,
                               choice->raw_opts);
    }
    g_string_append(s, choice->node_args ?: "");
    return g_string_free(s, false);
}

static void test_choice(const void *data)
{
    const Choice *choice = data;
    LifeCase c = { "choice", VBLK_PCI_MODERN, .threads = 1, .queues = 1 };
    g_autofree char *file = life_temp("choice", LIFE_DISK_SIZE);
    g_autofree char *nodes = choice_nodes(choice, file);
    g_autofree char *start = g_malloc0(65536);
    LifeVm *vm;

    /* QEMU can't tell how direct I/O must be aligned where there is a hole. */
    g_assert_true(g_file_set_contents(file, start, 65536, NULL));
    g_assert_cmpint(truncate(file, LIFE_DISK_SIZE), ==, 0);
    if (vblk_kernel_has_uring()) {
        vm = life_start(&c, &(LifeSpec) {
            .blockdev = nodes, .json = choice->json,
        });
        life_assert_engine(vm, choice->engine);
        vblk_check_io(vm->v, 0);
        life_stop(vm);
    }
    unlink(file);
}

/* Not before the queues are started, nor after; a reset ends it. */
static void test_started(const LifeCase *c)
{
    LifeVm *vm;

    if (!vblk_kernel_has_uring()) {
        return;
    }
    vm = life_start(c, &(LifeSpec) { .no_setup = true });
    life_assert_engine(vm, "block");
    vblk_attach(vm->v);
    vblk_setup(vm->v);
    life_assert_engine(vm, "io_uring");
    vblk_check_io(vm->v, 0);
    vblk_reset(vm->v);
    life_assert_engine(vm, "block");
    life_setup(vm);
    life_assert_engine(vm, "io_uring");
    vblk_check_io(vm->v, 0);
    life_qmp(vm, "{'execute': 'stop'}");
    life_assert_engine(vm, "block");
    life_cont(vm);
    life_assert_engine(vm, "io_uring");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

/* What is put on the node takes the engine off it, and gives it back. */
static void test_switch(const LifeCase *c)
{
    g_autofree char *file = life_temp("overlay", 0);
    LifeVm *vm;

    if (!vblk_kernel_has_uring()) {
        unlink(file);
        return;
    }
    vm = life_start(c, &(LifeSpec) { 0 });
    life_assert_engine(vm, "io_uring");
    life_qmp(vm, "{'execute': 'blockdev-snapshot-sync', 'arguments': {"
             "'node-name': %s, 'snapshot-file': %s, 'snapshot-node-name': "
             "'ov0', 'format': 'qcow2'}}", VBLK_NODE, file);
    life_assert_engine(vm, "block");
    vblk_check_io(vm->v, 0);
    life_qmp(vm, "{'execute': 'block-commit', 'arguments': {'job-id': 'j0', "
             "'device': 'ov0', 'auto-finalize': true}}");
    qobject_unref(vblk_event(vm->v, "BLOCK_JOB_READY", 10000));
    life_qmp(vm, "{'execute': 'block-job-complete', 'arguments': {"
             "'device': 'j0'}}");
    qobject_unref(vblk_event(vm->v, "BLOCK_JOB_COMPLETED", 10000));
    life_assert_engine(vm, "io_uring");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
    unlink(file);
}

/* ---- what the block layer must learn ---- */

/* Bytes that the bitmap of the node says are dirty. */
static int64_t dirty_bytes(LifeVm *vm, const char *node)
{
    QDict *resp = life_query(vm, "{'execute': 'query-named-block-nodes', "
                             "'arguments': {'flat': true}}");
    QListEntry *e;
    int64_t count = -1;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(resp, "return"), e) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(e));
        QList *bitmaps = qdict_get_qlist(info, "dirty-bitmaps");

        if (!strcmp(qdict_get_str(info, "node-name"), node) && bitmaps) {
            QDict *b = qobject_to(QDict, qlist_peek(bitmaps));

            count = qdict_get_int(b, "count");
        }
    }
    qobject_unref(resp);
    return count;
}

/* A bitmap on either node, made while the engine runs, gets every write. */
static void test_bitmap(const LifeCase *c)
{
    static const char *const nodes[] = { VBLK_NODE, "file0" };
    LifeVm *vm;

    if (!vblk_kernel_has_uring()) {
        return;
    }
    vm = life_start(c, &(LifeSpec) { 0 });
    life_assert_engine(vm, "io_uring");
    life_ok(vm, life_write_kick(vm, 0, 0, 1));
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++) {
        life_qmp(vm, "{'execute': 'block-dirty-bitmap-add', 'arguments': {"
                 "'node': %s, 'name': 'b0', 'granularity': 4096}}", nodes[i]);
    }
    life_assert_engine(vm, "io_uring");
    life_ok(vm, life_write_kick(vm, 0, 800, 2));
    life_ok(vm, life_write_kick(vm, 0, 1600, 3));
    life_assert_read(vm, 0, 2400, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(nodes); i++) {
        g_assert_cmpint(dirty_bytes(vm, nodes[i]), ==, 2 * LIFE_BLOCK);
    }
    life_stop(vm);
}

/* The event of a write threshold, and the highest offset written. */
static void test_threshold(const LifeCase *c)
{
    QDict *entry, *event;
    LifeVm *vm;

    if (!vblk_kernel_has_uring()) {
        return;
    }
    vm = life_start(c, &(LifeSpec) { 0 });
    life_qmp(vm, "{'execute': 'block-set-write-threshold', 'arguments': {"
             "'node-name': 'file0', 'write-threshold': 1048576}}");
    life_assert_engine(vm, "io_uring");
    life_ok(vm, life_write_kick(vm, 0, 0, 1));
    g_assert_true(vblk_no_event(vm->v, "BLOCK_WRITE_THRESHOLD", 20));
    life_ok(vm, life_write_kick(vm, 0, 2048, 1));
    event = vblk_event(vm->v, "BLOCK_WRITE_THRESHOLD", 10000);
    g_assert_nonnull(event);
    qobject_unref(event);
    entry = life_block_entry(vm, "query-blockstats");
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(entry, "stats"),
                                  "wr_highest_offset"), ==,
                    1048576 + LIFE_BLOCK);
    qobject_unref(entry);
    life_stop(vm);
}

/* How many flushes reached the host, by the engine's trace. */
static unsigned host_flushes(const char *log)
{
    return life_count_words(log, "virtio_blk_engine_flush ");
}

static void flush(LifeVm *vm)
{
    g_assert_cmpint(vblk_cmd(vm->v, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL),
                    ==, VIRTIO_BLK_S_OK);
}

/*
 * A flush after a write of the engine must reach the disk; one that comes when
 * nothing was written need not.  A lost write is the worst of all.
 */
static void test_flush(const LifeCase *c)
{
    g_autofree char *file = life_temp("flush", LIFE_DISK_SIZE);
    g_autofree char *log = life_temp("log", 0);
    g_autofree char *args = g_strdup_printf("-trace virtio_blk_engine_flush "
                                            "-D %s", log);
    g_autofree char *nodes = g_strdup_printf(
        "-blockdev driver=file,node-name=file0,filename=%s,locking=off "
        RAW_NODE, file);
    LifeVm *vm;

    if (vblk_kernel_has_uring()) {
        vm = life_start(c, &(LifeSpec) { .blockdev = nodes, .args = args });
        life_assert_engine(vm, "io_uring");
        for (unsigned i = 1; i < 4; i++) {
            life_ok(vm, life_write_kick(vm, 0, 8 * i, i));
            flush(vm);
            g_assert_cmpint(host_flushes(log), ==, i);
            flush(vm);
            g_assert_cmpint(host_flushes(log), ==, i);
        }
        life_stop(vm);
    }
    unlink(file);
    unlink(log);
}

void vblk_add_engine_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(choices); i++) {
        g_autofree char *name = g_strdup_printf("engine/choice/%s",
                                                choices[i].name);

        vblk_add_data(name, &choices[i], test_choice);
    }
    life_add("engine/started", LIFE_MAIN | LIFE_ONE | LIFE_MAP, test_started);
    life_add("engine/switch", LIFE_MAIN | LIFE_ONE | LIFE_MAP, test_switch);
    life_add("engine/bitmap", LIFE_MAIN | LIFE_ONE, test_bitmap);
    life_add("engine/threshold", LIFE_MAIN | LIFE_ONE, test_threshold);
    life_add("engine/flush", LIFE_MAIN | LIFE_ONE, test_flush);
}
