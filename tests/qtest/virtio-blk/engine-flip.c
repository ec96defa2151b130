/*
 * virtio-blk qtests: the engine leaves and comes back, hundreds of times,
 * below a load that checks every byte
 *
 * Each round takes the node through all that libvirt does to a running disk.
 * The io_uring engine must go where the block layer has to see requests and
 * come back when it has not, and no write may be lost on the way: at the end
 * the load's data is compared through the device and in the host's file.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "life.h"

#define DEPTH       6
#define ROUNDS      10
#define DISK_SIZE   (12 * MiB)

typedef struct Flip {
    LifeVm *vm;
    LifeLoad *l;
    char *node, *file_node, *file;      /* the disk as it is now */
    unsigned serial;                    /* for names */
    unsigned flips;                     /* times that the engine changed */
    bool io_uring;                      /* when last looked at */
} Flip;

/* Which engine serves the disk; the changes are counted. */
static void expect_engine(Flip *f, const char *engine)
{
    g_autofree char *now = vblk_qom_str(f->vm->v, "engine");
    bool io_uring = !strcmp(now, "io_uring");

    g_assert_cmpstr(now, ==, engine);
    f->flips += io_uring != f->io_uring;
    f->io_uring = io_uring;
    life_load_run(f->l, 10);
}

/*
 * In memory where possible: io_uring completes later there, so that requests
 * are in flight when the engine has to go; and a slow disk does not matter,
 * whose flushes hold all requests up at the end of each job.
 */
static char *temp(const char *what, uint64_t size)
{
    return life_temp_in("/dev/shm", what, size) ?: life_temp(what, size);
}

static void op_snapshot(Flip *f)
{
    g_autofree char *file = temp("overlay", 0);
    g_autofree char *node = g_strdup_printf("ov%u", f->serial++);

    life_load_qmp(f->l, 10, "{'execute': 'blockdev-snapshot-sync', "
                  "'arguments': {'node-name': %s, 'snapshot-file': %s, "
                  "'snapshot-node-name': %s, 'format': 'qcow2'}}",
                  f->node, file, node);
    expect_engine(f, "block");
    life_load_qmp(f->l, 10, "{'execute': 'block-commit', 'arguments': "
                  "{'job-id': 'j0', 'device': %s}}", node);
    life_load_event(f->l, "BLOCK_JOB_READY", 10);
    life_load_qmp(f->l, 10, "{'execute': 'block-job-complete', "
                  "'arguments': {'device': 'j0'}}");
    life_load_event(f->l, "BLOCK_JOB_COMPLETED", 20);
    unlink(file);
}

/* Onto another file, whose nodes are the disk from then on. */
static void op_mirror(Flip *f)
{
    g_autofree char *file = temp("mirror", DISK_SIZE);
    g_autofree char *node = g_strdup_printf("disk%u", ++f->serial);
    g_autofree char *file_node = g_strdup_printf("file%u", f->serial);

    life_load_qmp(f->l, 5, "{'execute': 'blockdev-add', 'arguments': "
                  "{'driver': 'file', 'node-name': %s, 'filename': %s}}",
                  file_node, file);
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-add', 'arguments': "
                  "{'driver': 'raw', 'node-name': %s, 'file': %s}}",
                  node, file_node);
    life_load_qmp(f->l, 10, "{'execute': 'blockdev-mirror', 'arguments': "
                  "{'job-id': 'j0', 'device': %s, 'target': %s, 'sync': "
                  "'full', 'copy-mode': %s}}", f->node, node,
                  f->serial % 2 ? "write-blocking" : "background");
    expect_engine(f, "block");
    life_load_event(f->l, "BLOCK_JOB_READY", 10);
    life_load_qmp(f->l, 10, "{'execute': 'block-job-complete', "
                  "'arguments': {'device': 'j0'}}");
    life_load_event(f->l, "BLOCK_JOB_COMPLETED", 20);
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-del', 'arguments': "
                  "{'node-name': %s}}", f->node);
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-del', 'arguments': "
                  "{'node-name': %s}}", f->file_node);
    unlink(f->file);
    g_free(f->node);
    g_free(f->file_node);
    g_free(f->file);
    f->node = g_steal_pointer(&node);
    f->file_node = g_steal_pointer(&file_node);
    f->file = g_steal_pointer(&file);
}

/* Slow enough that the load can look at the engine while it runs. */
static void op_backup(Flip *f)
{
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-add', 'arguments': "
                  "{'driver': 'null-co', 'node-name': 'target', "
                  "'read-zeroes': true, 'size': %d}}", (int)DISK_SIZE);
    life_load_qmp(f->l, 10, "{'execute': 'blockdev-backup', 'arguments': "
                  "{'job-id': 'j0', 'device': %s, 'target': 'target', 'sync': "
                  "'full', 'speed': 65536}}", f->node);
    expect_engine(f, "block");
    life_load_qmp(f->l, 5, "{'execute': 'block-job-set-speed', 'arguments': "
                  "{'device': 'j0', 'speed': 0}}");
    life_load_event(f->l, "BLOCK_JOB_COMPLETED", 20);
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-del', 'arguments': "
                  "{'node-name': 'target'}}");
}

/*
 * A filter below the device, put in and taken out.  Not a throttle node, which
 * QEMU 10.0.13 cannot add to a node in an iothread: it crashes.
 */
static void op_filter(Flip *f)
{
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-add', 'arguments': "
                  "{'driver': 'copy-on-read', 'node-name': 'cor0', "
                  "'file': %s}}", f->file_node);
    life_load_qmp(f->l, 10, "{'execute': 'blockdev-reopen', 'arguments': "
                  "{'options': [{'driver': 'raw', 'node-name': %s, 'file': "
                  "'cor0'}]}}", f->node);
    expect_engine(f, "block");
    life_load_qmp(f->l, 10, "{'execute': 'blockdev-reopen', 'arguments': "
                  "{'options': [{'driver': 'raw', 'node-name': %s, 'file': "
                  "%s}]}}", f->node, f->file_node);
    life_load_qmp(f->l, 5, "{'execute': 'blockdev-del', 'arguments': "
                  "{'node-name': 'cor0'}}");
}

/*
 * Limits of the device, in a throttle group: the engine looks at each batch.
 */
static void op_limits(Flip *f)
{
    for (unsigned i = 0; i < 2; i++) {
        life_load_qmp(f->l, 20, "{'execute': 'block_set_io_throttle', "
                      "'arguments': {'id': %s, 'group': 'g0', 'bps': 0, "
                      "'bps_rd': 0, 'bps_wr': 0, 'iops': %d, 'iops_rd': 0, 'iops_wr': 0}}",
                      vblk_qom_path(f->vm->v), i ? 0 : 100000);
    }
}

static void op_resize(Flip *f)
{
    for (unsigned i = 0; i < 2; i++) {
        life_load_qmp(f->l, 10, "{'execute': 'block_resize', 'arguments': "
                      "{'node-name': %s, 'size': %d}}", f->node,
                      (int)(DISK_SIZE + (i ? 0 : MiB)));
    }
}

/* The detection of zeroes must see each write. */
static void op_reopen(Flip *f)
{
    for (unsigned i = 0; i < 2; i++) {
        life_load_qmp(f->l, 10, "{'execute': 'blockdev-reopen', 'arguments': "
                      "{'options': [{'driver': 'raw', 'node-name': %s, "
                      "'file': %s, 'detect-zeroes': %s}]}}", f->node,
                      f->file_node, i ? "off" : "on");
        expect_engine(f, i ? "io_uring" : "block");
    }
}

/* Added while the engine runs, which has to tell it of each write. */
static void op_bitmap(Flip *f)
{
    life_load_qmp(f->l, 10, "{'execute': 'block-dirty-bitmap-add', "
                  "'arguments': {'node': %s, 'name': 'b0'}}", f->node);
    expect_engine(f, "io_uring");
    life_load_qmp(f->l, 5, "{'execute': 'block-dirty-bitmap-remove', "
                  "'arguments': {'node': %s, 'name': 'b0'}}", f->node);
}

static void op_stop(Flip *f)
{
    g_autofree char *now = NULL;

    life_qmp(f->vm, "{'execute': 'stop'}");
    now = vblk_qom_str(f->vm->v, "engine");
    g_assert_cmpstr(now, ==, "block");
    life_cont(f->vm);
    f->flips += 2;
}

static void (*const ops[])(Flip *f) = {
    op_snapshot, op_mirror, op_backup, op_filter, op_limits, op_resize,
    op_reopen, op_bitmap, op_stop,
};

/* Nothing is in flight: each block is what was written last. */
static void check_file(Flip *f)
{
    uint8_t want[LIFE_BLOCK], got[LIFE_BLOCK];
    int fd = open(f->file, O_RDONLY);

    g_assert_cmpint(fd, >=, 0);
    for (unsigned i = 0; i < f->l->queues * f->l->depth; i++) {
        if (f->l->slots[i].seed) {
            vblk_pattern(want, sizeof(want), f->l->slots[i].seed);
            g_assert_cmpint(pread(fd, got, sizeof(got), VBLK_SECTOR *
                                  life_load_sector(f->l, i)), ==,
                            sizeof(got));
            g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
        }
    }
    close(fd);
}

static void test_flip(const LifeCase *c)
{
    Flip f = { 0 };

    if (!vblk_kernel_has_uring()) {
        return;
    }
    f.file = temp("image", DISK_SIZE);
    f.vm = life_start(c, &(LifeSpec) { .image = f.file });
    f.l = life_load_new(f.vm, DEPTH);
    f.node = g_strdup(VBLK_NODE);
    f.file_node = g_strdup("file0");
    f.io_uring = true;

    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned op = 0; op < ARRAY_SIZE(ops); op++) {
            expect_engine(&f, "io_uring");
            /* Another order in each round: 4 and 9 have no common divisor. */
            ops[(i + 4 * op) % ARRAY_SIZE(ops)](&f);
        }
    }
    expect_engine(&f, "io_uring");
    g_assert_cmpuint(f.flips, >=, 12 * ROUNDS);
    life_load_settle(f.l);
    check_file(&f);
    life_load_end(f.l);
    life_stop(f.vm);
    unlink(f.file);
    g_free(f.node);
    g_free(f.file_node);
    g_free(f.file);
}

void vblk_add_engine_flip_tests(void)
{
    life_add("engine/flip", LIFE_ONE | LIFE_MAP | LIFE_MAP_PACKED, test_flip);
}
