/*
 * virtio-blk qtests: each operation with each error, policy and engine
 *
 * The disk is the one of tests/badfs, so that errors come from system calls,
 * io_uring's as well.  The cells are generated; what each one expects is said
 * by fails() and policy_of() alone, from docs/architecture.rst ("Errors and
 * parking") and the user page.
 *
 * The tests are there when VBLK_BADFS names the program.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "badfs.h"
#include "life.h"

#define DISK_SIZE       (4 * 1024 * 1024)
#define BLOCK           4096
#define BLOCK_SECTORS   (BLOCK / VBLK_SECTOR)
#define FOR_EVER        (-1)

typedef enum Op { OP_READ, OP_WRITE, OP_FLUSH, OP_DISCARD, OP_ZEROES } Op;

typedef enum Policy { REPORT, IGNORE, STOP, ENOSPC_STOPS } Policy;

static const char *const engines[] = { "block", "io_uring" };
static const char *const policies[] = { "report", "ignore", "stop", "enospc" };

static const struct {
    const char *name;
    const char *call;           /* of badfs */
    uint32_t type;
} ops[] = {
    [OP_READ] = { "read", "read", VIRTIO_BLK_T_IN },
    [OP_WRITE] = { "write", "write", VIRTIO_BLK_T_OUT },
    [OP_FLUSH] = { "flush", "fsync", VIRTIO_BLK_T_FLUSH },
    [OP_DISCARD] = { "discard", "fallocate", VIRTIO_BLK_T_DISCARD },
    [OP_ZEROES] = { "write-zeroes", "fallocate", VIRTIO_BLK_T_WRITE_ZEROES },
};

/* What an error does below the device. */
enum { SHORT = -1, DELAY = -2 };

/* ENODEV last: QEMU remembers that there are no zeroes then. */
static const struct {
    const char *name;
    int what;                   /* an errno, SHORT or DELAY */
    int times;
} errors[] = {
    { "EIO", EIO, FOR_EVER },
    { "ENOSPC", ENOSPC, FOR_EVER },
    { "EINTR", EINTR, 1 },
    { "EAGAIN", EAGAIN, 1 },
    { "short", SHORT, 1 },
    { "slow", DELAY, 1 },
    { "ETIMEDOUT", ETIMEDOUT, FOR_EVER },
    { "ENODEV", ENODEV, FOR_EVER },
};

typedef struct Cells {
    Op op;
    Policy policy;
    bool uring;
} Cells;

typedef struct Rig {
    const Cells *cells;
    LifeVm *vm;
    VblkBadfs badfs;
    unsigned round;             /* makes patterns differ */
} Rig;

/* Does the request fail, as far as the device is concerned? */
static bool fails(const Cells *c, int what)
{
    switch (what) {
    case SHORT:
    case DELAY:
        return false;
    case EINTR:
        /* It is tried again, but never a flush. */
        return c->op == OP_FLUSH;
    case EAGAIN:
        /* What the ring fails the block layer does again, but no flush. */
        return !c->uring || c->op == OP_FLUSH;
    case ENODEV:
        /* Of fallocate() it means "not for this file": a hint, or written. */
        return c->op != OP_DISCARD && c->op != OP_ZEROES;
    default:
        return true;
    }
}

static Policy policy_of(const Cells *c, int what)
{
    if (c->policy == ENOSPC_STOPS) {
        return what == ENOSPC ? STOP : REPORT;
    }
    return c->policy;
}

/* ---- the machine ---- */

static void start(Rig *r)
{
    const Cells *c = r->cells;
    const LifeCase life = { "faults", VBLK_PCI_MODERN, .threads = 1,
                            .queues = 1 };
    g_autofree char *nodes = NULL, *json = NULL;

    vblk_badfs_begin(&r->badfs, DISK_SIZE);
    /* No page cache: its state after a failed flush is for ever unknown. */
    nodes = g_strdup_printf("-blockdev driver=file,node-name=" VBLK_NODE
                            ",filename=%s/disk,cache.direct=on,discard=unmap",
                            r->badfs.dir);
    json = g_strdup_printf("\"io-engine\":\"%s\",\"%s\":\"%s\","
                           "\"logical_block_size\":%d,"
                           "\"physical_block_size\":%d,",
                           engines[c->uring],
                           c->op == OP_READ ? "rerror" : "werror",
                           policies[c->policy], BLOCK, BLOCK);
    r->vm = life_start(&life, &(LifeSpec) { .blockdev = nodes, .json = json });
    life_assert_engine(r->vm, engines[c->uring]);
}

/* ---- one cell ---- */

/* A place of its own for each cell, so that nothing is left from the last. */
static uint64_t sector_of(const Rig *r)
{
    return r->round * BLOCK_SECTORS;
}

static VblkIo *submit(Rig *r)
{
    Vblk *v = r->vm->v;
    struct virtio_blk_discard_write_zeroes range = {
        .sector = cpu_to_le64(sector_of(r)),
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };
    uint32_t type = ops[r->cells->op].type;
    uint8_t data[BLOCK];
    VblkIo *io;

    vblk_pattern(data, sizeof(data), r->round);
    switch (r->cells->op) {
    case OP_READ:
        io = vblk_io(v, 0, type, sector_of(r), NULL, BLOCK);
        break;
    case OP_WRITE:
        io = vblk_io(v, 0, type, sector_of(r), data, BLOCK);
        break;
    case OP_FLUSH:
        io = vblk_io(v, 0, type, 0, NULL, 0);
        break;
    default:
        io = vblk_io(v, 0, type, 0, &range, sizeof(range));
        break;
    }
    vblk_kick(v, 0);
    return io;
}

/* The event as policy_of() promises it. */
static void expect_event(Rig *r, int what)
{
    static const char *const action[] = { "report", "ignore", "stop" };
    QDict *event = vblk_event(r->vm->v, "BLOCK_IO_ERROR", VBLK_WAIT_MS);
    QDict *d;

    g_assert_nonnull(event);
    d = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(d, "action"), ==,
                    action[policy_of(r->cells, what)]);
    g_assert_cmpstr(qdict_get_str(d, "operation"), ==,
                    r->cells->op == OP_READ ? "read" : "write");
    g_assert_cmpstr(qdict_get_str(d, "reason"), ==, strerror(what));
    if (r->cells->policy == STOP || r->cells->policy == ENOSPC_STOPS) {
        g_assert_cmpint(qdict_get_bool(d, "nospace"), ==, what == ENOSPC);
    }
    qobject_unref(event);
}

/* Parked, and done once more by cont. */
static void stop_and_go(Rig *r, VblkIo *io)
{
    LifeVm *vm = r->vm;

    life_wait_stopped(vm);
    life_assert_state(vm, "io-error");
    vblk_expect_pending(vm->v, io->req, 10);
    vblk_badfs_ctl(&r->badfs, "clear\n");
    life_cont(vm);
}

static void check_done(Rig *r, const uint8_t *got)
{
    uint8_t want[BLOCK] = {}, now[BLOCK];

    if (r->cells->op != OP_ZEROES && r->cells->op != OP_DISCARD) {
        vblk_pattern(want, sizeof(want), r->round);
    }
    if (r->cells->op == OP_READ) {
        g_assert_cmpmem(got, BLOCK, want, BLOCK);
    } else if (r->cells->op == OP_WRITE || r->cells->op == OP_ZEROES) {
        g_assert_cmpint(vblk_read(r->vm->v, sector_of(r), now, BLOCK), ==,
                        VIRTIO_BLK_S_OK);
        g_assert_cmpmem(now, BLOCK, want, BLOCK);
    }
}

static void no_event(Rig *r)
{
    g_assert_true(vblk_no_event(r->vm->v, "BLOCK_IO_ERROR", 5));
}

/* Slow is slow, and neither an error nor a reason for the VM to stand still. */
static void wait_slow(Rig *r, VblkIo *io)
{
    vblk_expect_pending(r->vm->v, io->req, VBLK_BADFS_DELAY_MS / 3);
    life_assert_state(r->vm, "running");
}

static void prepare(Rig *r)
{
    uint8_t data[BLOCK];

    r->round++;
    /* The event is limited to one a second, of the test's own clock. */
    qtest_clock_step(r->vm->v->qts, 1100 * 1000 * 1000LL);
    vblk_pattern(data, sizeof(data),
                 r->cells->op == OP_WRITE ? r->round + 1000 : r->round);
    g_assert_cmpint(vblk_write(r->vm->v, sector_of(r), data, BLOCK), ==,
                    VIRTIO_BLK_S_OK);
}

static void cell(Rig *r, const char *name, int what, int times)
{
    bool fail = fails(r->cells, what);
    Policy policy = policy_of(r->cells, what);
    g_autofree char *word = g_strdup_printf("%d", what);
    uint8_t got[BLOCK], status;
    VblkIo *io;

    g_test_message("%s: %s", name, fail ? policies[policy] : "done");
    prepare(r);
    vblk_badfs_ctl(&r->badfs, "fault %s %s %d\n", ops[r->cells->op].call,
        what == SHORT ? "short" : what == DELAY ? "delay" : word, times);
    io = submit(r);
    if (what == DELAY) {
        wait_slow(r, io);
    }
    if (fail) {
        expect_event(r, what);
    }
    if (fail && policy == STOP) {
        stop_and_go(r, io);
    }
    status = vblk_io_wait(r->vm->v, io,
                          r->cells->op == OP_READ ? got : NULL);
    vblk_badfs_ctl(&r->badfs, "clear\n");
    g_assert_cmpint(status, ==, fail && policy == REPORT ?
                                VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
    life_assert_state(r->vm, "running");
    if (!fail || policy == STOP) {
        check_done(r, got);
    }
    if (!fail) {
        no_event(r);
    }
}

static void test_cells(const void *data)
{
    Rig r = { .cells = data };

    start(&r);
    for (unsigned i = 0; i < ARRAY_SIZE(errors); i++) {
        if (errors[i].what != SHORT || r.cells->op <= OP_WRITE) {
            cell(&r, errors[i].name, errors[i].what, errors[i].times);
        }
    }
    life_stop(r.vm);
    vblk_badfs_end(&r.badfs);
}

void vblk_add_fault_tests(void)
{
    if (!vblk_badfs_there()) {
        return;
    }
    for (unsigned e = 0; e < ARRAY_SIZE(engines); e++) {
        for (Op op = 0; op < ARRAY_SIZE(ops); op++) {
            for (Policy p = 0; p < ARRAY_SIZE(policies); p++) {
                Cells *c = vblk_keep(g_new(Cells, 1));
                g_autofree char *name =
                    g_strdup_printf("faults/%s/%s/%s", engines[e],
                                    ops[op].name, policies[p]);

                *c = (Cells) { op, p, e };
                if (op != OP_READ || p != ENOSPC_STOPS) {
                    vblk_add_data(name, c, test_cells);
                }
            }
        }
    }
}
