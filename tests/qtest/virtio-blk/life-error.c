/*
 * virtio-blk qtests: rerror and werror, stopped requests and their restart
 *
 * Issue 2: "rerror/werror report, ignore, stop, enospc; stopped requests are
 * restarted on `cont` on the right iothread; BLOCK_IO_ERROR, io-status ... as
 * management tools expect".
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qemu/bswap.h"
#include "life.h"

#define BAD_SECTOR      64
#define ERR_CASES       (LIFE_PCI | LIFE_MMIO | LIFE_NOEVENTFD)

typedef struct Want {
    const char *operation, *action, *reason;
    bool status;                /* is there an io-status? */
    bool nospace;
} Want;

/* The event as management tools parse it, every member. */
static void expect_io_error(LifeVm *vm, const Want *want)
{
    QDict *event = vblk_event(vm->v, "BLOCK_IO_ERROR", VBLK_WAIT_MS);
    QDict *d;

    g_assert_nonnull(event);
    d = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(d, "device"), ==, "");
    g_assert_cmpstr(qdict_get_str(d, "node-name"), ==, VBLK_NODE);
    g_assert_cmpstr(qdict_get_str(d, "operation"), ==, want->operation);
    g_assert_cmpstr(qdict_get_str(d, "action"), ==, want->action);
    g_assert_cmpstr(qdict_get_str(d, "reason"), ==, want->reason);
    /* Only where a policy that stops gives the device an io-status. */
    g_assert_cmpint(qdict_get_try_bool(d, "nospace", false), ==,
                    want->nospace);
    g_assert_cmpint(qdict_haskey(d, "nospace"), ==, want->status);
    if (qdict_haskey(d, "qom-path")) {      /* since 9.2 */
        g_assert_cmpstr(qdict_get_str(d, "qom-path"), ==,
                        vblk_qom_path(vm->v));
    }
    qobject_unref(event);
}

/* werror=report: status, event; the machine runs on. */
static void test_report(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL("write", 64, 5) "," LIFE_FAIL("read", 128, 5),
        .json = "\"werror\":\"report\",\"rerror\":\"report\",",
    });

    life_ioerr(vm, life_write_kick(vm, 0, BAD_SECTOR, 1));
    expect_io_error(vm, &(Want) { "write", "report", strerror(EIO) });
    /* The event is limited to one a second, of the test's own clock. */
    qtest_clock_step(vm->v->qts, 1100 * 1000 * 1000LL);
    g_assert_cmpint(vblk_read(vm->v, 128, NULL, 512), ==,
                    VIRTIO_BLK_S_IOERR);
    expect_io_error(vm, &(Want) { "read", "report", strerror(EIO) });
    life_assert_state(vm, "running");
    vblk_check_io(vm->v, 0);
    life_stop(vm);
}

/* werror=ignore: the driver hears of success. */
static void test_ignore(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL("write", 64, 28) "," LIFE_FAIL("read", 128, 5),
        .json = "\"werror\":\"ignore\",\"rerror\":\"ignore\",",
    });

    life_ok(vm, life_write_kick(vm, 0, BAD_SECTOR, 1));
    expect_io_error(vm, &(Want) { "write", "ignore", strerror(ENOSPC) });
    g_assert_cmpint(vblk_read(vm->v, 128, NULL, 512), ==, VIRTIO_BLK_S_OK);
    life_assert_image(vm, BAD_SECTOR, 0);
    life_assert_state(vm, "running");
    life_stop(vm);
}

/* werror=stop: parked, io-status, and once more by cont on its own queue. */
static void test_stop(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_ONCE("write", 64, 5), .log = true,
        .json = LIFE_STOP_JSON,
    });
    unsigned q = vm->s.queues - 1;
    VblkIo *io = life_write_kick(vm, q, BAD_SECTOR, 1);

    expect_io_error(vm, &(Want) { "write", "stop", strerror(EIO), true });
    life_wait_stopped(vm);
    life_assert_state(vm, "io-error");
    life_assert_iostatus(vm, "failed");
    vblk_expect_pending(vm->v, io->req, 10);
    life_cont(vm);
    life_ok(vm, io);
    life_assert_image(vm, BAD_SECTOR, 1);
    g_assert_cmpint(life_log_count(vm, BAD_SECTOR, 1), ==, 1);
    g_assert_cmpint(vblk_completions(vm->v, q), ==, 1);
    vblk_check_io(vm->v, q);
    life_stop(vm);
}

/* rerror=stop: the same for reads; the data is right after the restart. */
static void test_read_stop(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_ONCE("read", 64, 5),
        .json = "\"rerror\":\"stop\",",
    });
    unsigned q = vm->s.queues - 1;
    uint8_t want[LIFE_BLOCK], got[LIFE_BLOCK];
    VblkIo *io;

    life_ok(vm, life_write_kick(vm, q, BAD_SECTOR, 5));
    io = vblk_io(vm->v, q, VIRTIO_BLK_T_IN, BAD_SECTOR, NULL, LIFE_BLOCK);
    vblk_kick(vm->v, q);
    expect_io_error(vm, &(Want) { "read", "stop", strerror(EIO), true });
    life_wait_stopped(vm);
    life_assert_iostatus(vm, "failed");
    vblk_expect_pending(vm->v, io->req, 10);
    life_cont(vm);
    g_assert_cmpint(vblk_io_wait(vm->v, io, got), ==, VIRTIO_BLK_S_OK);
    vblk_pattern(want, sizeof(want), 5);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    life_stop(vm);
}

#define ENOSPC_RULES LIFE_FAIL("write", 64, 5) "," \
                     LIFE_FAIL_ONCE("write", 128, 28)

/* werror=enospc, and what is the default: EIO reports, ENOSPC stops. */
static void enospc(const LifeCase *c, const char *json)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = ENOSPC_RULES, .json = json,
    });
    VblkIo *io;

    life_assert_iostatus(vm, "ok");
    life_ioerr(vm, life_write_kick(vm, 0, BAD_SECTOR, 1));
    expect_io_error(vm, &(Want) { "write", "report", strerror(EIO), true });
    life_assert_iostatus(vm, "ok");
    io = life_write_kick(vm, 0, 128, 2);
    expect_io_error(vm, &(Want) { "write", "stop", strerror(ENOSPC), true,
                                  true });
    life_wait_stopped(vm);
    life_assert_iostatus(vm, "nospace");
    vblk_expect_pending(vm->v, io->req, 10);
    life_cont(vm);
    life_ok(vm, io);
    life_assert_image(vm, 128, 2);
    life_stop(vm);
}

static void test_enospc(const LifeCase *c)
{
    enospc(c, "\"werror\":\"enospc\",");
}

static void test_default(const LifeCase *c)
{
    enospc(c, NULL);
}

/* Row 28: a failed flush obeys werror, and is done anew. */
static void test_flush(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = "{\"event\":\"none\",\"iotype\":\"flush\",\"errno\":28,"
                 "\"once\":true}",
        .log = true, .json = LIFE_STOP_JSON,
    });
    VblkIo *io;

    vblk_check_io(vm->v, 0);
    io = vblk_io(vm->v, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
    vblk_kick(vm->v, 0);
    expect_io_error(vm, &(Want) { "write", "stop", strerror(ENOSPC), true,
                                  true });
    life_wait_stopped(vm);
    vblk_expect_pending(vm->v, io->req, 10);
    life_cont(vm);
    life_ok(vm, io);
    life_stop(vm);
}

static VblkIo *send_range(LifeVm *vm, uint32_t type, uint64_t sector)
{
    struct virtio_blk_discard_write_zeroes seg = {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(LIFE_SECTORS),
    };
    VblkIo *io = vblk_io(vm->v, 0, type, 0, &seg, sizeof(seg));

    vblk_kick(vm->v, 0);
    return io;
}

/* A failed discard or write zeroes likewise. */
static void range_stop(const LifeCase *c, const char *rules, uint32_t type)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = rules, .json = LIFE_STOP_JSON,
    });
    VblkIo *io;

    life_ok(vm, life_write_kick(vm, 0, BAD_SECTOR, 3));
    io = send_range(vm, type, BAD_SECTOR);
    expect_io_error(vm, &(Want) { "write", "stop", strerror(EIO), true });
    life_wait_stopped(vm);
    vblk_expect_pending(vm->v, io->req, 10);
    life_cont(vm);
    life_ok(vm, io);
    life_assert_image(vm, BAD_SECTOR, 0);
    life_stop(vm);
}

static void test_discard(const LifeCase *c)
{
    range_stop(c, LIFE_FAIL_ONCE("discard", 64, 5), VIRTIO_BLK_T_DISCARD);
}

static void test_write_zeroes(const LifeCase *c)
{
    range_stop(c, LIFE_FAIL_ONCE("write-zeroes", 64, 5),
               VIRTIO_BLK_T_WRITE_ZEROES);
}

/*
 * B9, known bug "restart ran in the wrong AioContext": several parked requests
 * on every queue; each is completed once, on its own queue.
 */
static void test_many(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_PARKED_RULES, .log = true, .json = LIFE_STOP_JSON,
    });
    VblkIo *io[LIFE_PARKED_MAX];
    unsigned n = life_park(vm, io);

    life_cont(vm);
    life_assert_unparked(vm, io, n);
    /* Not before: the log ends where an entry is still being written. */
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(life_log_count(vm, LIFE_PARKED_SECTOR(i), 1), ==, 1);
    }
    life_stop(vm);
}

/*
 * The thread that completed the last request, by the trace; 0: it is not told,
 * for there is no trace, or lines without the thread as later than QEMU 10.0.
 */
static long completed_in(const char *log)
{
    g_autofree char *text = NULL;
    const char *last, *end;
    int64_t id;

    if (!g_file_get_contents(log, &text, NULL, NULL)) {
        return 0;
    }
    g_assert_nonnull(strstr(text, "virtio_blk_req_complete "));
    last = g_strrstr(text, ":virtio_blk_req_complete ");
    if (!last) {
        return 0;
    }
    while (last > text && last[-1] != '\n') {
        last--;
    }
    g_assert_cmpint(qemu_strtoi64(last, &end, 10, &id), ==, 0);
    return id;
}

/* B9: what is parked is executed in the thread of its queue, as all else. */
static void test_right_thread(const LifeCase *c)
{
    g_autofree char *log = life_temp("trace", 0);
    g_autofree char *args = g_strdup_printf("-trace virtio_blk_req_complete "
                                            "-msg timestamp=on -D %s", log);
    LifeVm *vm;

    unlink(log);
    vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_PARKED_RULES, .json = LIFE_STOP_JSON, .args = args,
    });
    for (unsigned q = 0; q < vm->s.queues; q++) {
        VblkIo *io;
        long thread;

        life_ok(vm, life_write_kick(vm, q, 1024, 1));
        thread = completed_in(log);
        if (!thread) {
            g_test_skip("this QEMU's log does not tell the thread");
            break;
        }
        io = life_write_kick(vm, q, BAD_SECTOR + q * 16, 1);
        life_wait_stopped(vm);
        life_cont(vm);
        life_ok(vm, io);
        g_assert_cmpint(completed_in(log), ==, thread);
    }
    life_stop(vm);
    unlink(log);
}

/* B9: fails again after each cont: parked again, none is lost or repeated. */
static void test_again(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_ONCE("write", 64, 5) ","
                 LIFE_FAIL_ONCE("write", 64, 28) ","
                 LIFE_FAIL_ONCE("write", 64, 5),
        .log = true, .json = LIFE_STOP_JSON,
    });
    VblkIo *io = life_write_kick(vm, 0, BAD_SECTOR, 1);

    for (unsigned i = 0; i < 3; i++) {
        life_wait_stopped(vm);
        vblk_expect_pending(vm->v, io->req, 5);
        life_cont(vm);
    }
    life_ok(vm, io);
    g_assert_cmpint(life_log_count(vm, BAD_SECTOR, 1), ==, 1);
    life_stop(vm);
}

/*
 * Adjacent writes of one batch go down as one; two failures in it, then all
 * well.  However the device splits it, each request ends once, with its data.
 */
static void test_merged(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_ONCE("write", 80, 5) ","
                 LIFE_FAIL_ONCE("write", 80, 5),
        .json = LIFE_STOP_JSON,
    });
    VblkIo *io[4];
    bool all = false;

    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = life_write(vm, 0, BAD_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    vblk_kick(vm->v, 0);
    for (unsigned stops = 0; !all; stops++) {
        g_assert_cmpint(stops, <, 3);
        life_wait_stopped(vm);
        life_cont(vm);
        g_usleep(20000);
        all = vblk_completions(vm->v, 0) == ARRAY_SIZE(io);
    }
    g_assert_cmpint(vblk_stat(vm->v, "wr_merged"), >, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        life_ok(vm, io[i]);
        life_assert_image(vm, BAD_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    g_assert_cmpint(vblk_completions(vm->v, 0), ==, ARRAY_SIZE(io));
    life_stop(vm);
}

/* Our promise beyond stock: of a merged request only the bad one fails. */
static void test_merged_report(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL("write", 80, 5),
        .json = "\"werror\":\"report\",",
    });
    VblkIo *io[4];

    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = life_write(vm, 0, BAD_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    vblk_kick(vm->v, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        if (i == 2) {
            life_ioerr(vm, io[i]);
            continue;
        }
        life_ok(vm, io[i]);
        life_assert_image(vm, BAD_SECTOR + i * LIFE_SECTORS, i + 1);
    }
    life_stop(vm);
}

/* Row 20: a write to a read-only disk gives IOERR whatever werror says. */
static void test_read_only(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .read_only = true,
        .json = "\"werror\":\"stop\",\"rerror\":\"stop\",",
    });

    g_assert_true(vblk_has(vm->v, VIRTIO_BLK_F_RO));
    life_ioerr(vm, life_write_kick(vm, 0, BAD_SECTOR, 1));
    life_assert_state(vm, "running");
    life_assert_image(vm, BAD_SECTOR, 0);
    life_assert_read(vm, 0, BAD_SECTOR, 0);
    life_stop(vm);
}

/* B9, B13: errors that stop and go on under a load, on every queue. */
static void test_load(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_PARKED_RULES, .json = LIFE_STOP_JSON,
    });
    LifeLoad *l = life_load_new(vm, 4);
    VblkIo *io;

    for (unsigned i = 0; i < 8; i++) {
        unsigned q = i % vm->s.queues;

        io = life_write_kick(vm, q, BAD_SECTOR + i * 16, i + 1);
        l->per_queue[q]++;
        life_wait_stopped(vm);
        life_cont(vm);
        life_load_run(l, 10);
        life_ok(vm, io);
    }
    life_load_end(l);
    life_stop(vm);
}

void life_add_error_tests(void)
{
    life_add("error/report", LIFE_MAIN | LIFE_ONE, test_report);
    life_add("error/ignore", LIFE_SPLIT, test_ignore);
    life_add("error/stop", ERR_CASES | LIFE_LEGACY, test_stop);
    life_add("error/read-stop", ERR_CASES, test_read_stop);
    life_add("error/enospc", LIFE_SPLIT, test_enospc);
    life_add("error/default", LIFE_SPLIT | LIFE_MMIO, test_default);
    life_add("error/flush", LIFE_SPLIT, test_flush);
    life_add("error/discard", LIFE_SPLIT, test_discard);
    life_add("error/write-zeroes", LIFE_SPLIT, test_write_zeroes);
    life_add("error/many", ERR_CASES, test_many);
    life_add("error/right-thread",
             LIFE_ONE_PACKED | LIFE_THREADS | LIFE_MMIO_ONE | LIFE_LEGACY,
             test_right_thread);
    life_add("error/again", LIFE_SPLIT | LIFE_MAP_PACKED, test_again);
    life_add("error/merged", ERR_CASES, test_merged);
    life_add("error/merged-report", LIFE_SPLIT | LIFE_MAP_PACKED,
             test_merged_report);
    life_add("error/read-only", LIFE_SPLIT | LIFE_MMIO, test_read_only);
    life_add("error/load", LIFE_PCI | LIFE_NOEVENTFD, test_load);
}
