/*
 * virtio-blk qtests: block accounting and latency histograms
 *
 * The constants are what the stock device of QEMU 10.0 counts for the same
 * requests, save one: it leaves discards out, while this device counts them as
 * unmap operations, which is what query-blockstats has these fields for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qobject/qjson.h"
#include "qobject/qnum.h"
#include "life.h"

typedef struct Count {
    const char *name;
    int64_t want;
} Count;

static void expect_counts(LifeVm *vm, const Count *want, unsigned n)
{
    QDict *entry = life_block_entry(vm, "query-blockstats");
    QDict *d = qdict_get_qdict(entry, "stats");

    for (unsigned i = 0; i < n; i++) {
        int64_t got = qdict_get_int(d, want[i].name);

        if (got != want[i].want) {
            vblk_fail("%s is %" PRId64 ", not %" PRId64, want[i].name, got,
                    want[i].want);
        }
    }
    qobject_unref(entry);
}
#define EXPECT(vm, ...) expect_counts(vm, (const Count[]) { __VA_ARGS__ }, \
    sizeof((const Count[]) { __VA_ARGS__ }) / sizeof(Count))

static uint8_t range(LifeVm *vm, uint32_t type, uint64_t sector, uint32_t nr,
                     uint32_t flags)
{
    struct virtio_blk_discard_write_zeroes seg = {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(nr),
        .flags = cpu_to_le32(flags),
    };

    return vblk_cmd(vm->v, 0, type, 0, &seg, sizeof(seg), NULL);
}

/* Operations and bytes of each kind that went well. */
static void test_good(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    uint8_t data[3 * LIFE_BLOCK] = { 0 };

    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(vblk_read(vm->v, i * 64, data, LIFE_BLOCK), ==, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(vblk_write(vm->v, i * 64, data, sizeof(data)), ==, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(vblk_flush(vm->v), ==, 0);
    }
    g_assert_cmpint(range(vm, VIRTIO_BLK_T_DISCARD, 64, 128, 0), ==, 0);
    g_assert_cmpint(range(vm, VIRTIO_BLK_T_WRITE_ZEROES, 64, 16, 0), ==, 0);
    vblk_cmd(vm->v, 0, VIRTIO_BLK_T_GET_ID, 0, data, 20, NULL);
    EXPECT(vm, { "rd_operations", 3 }, { "rd_bytes", 3 * LIFE_BLOCK },
           { "wr_operations", 3 }, { "wr_bytes", 6 * LIFE_BLOCK + 16 * 512 },
           { "flush_operations", 4 }, { "unmap_operations", 1 },
           { "unmap_bytes", 128 * 512 }, { "failed_rd_operations", 0 },
           { "failed_wr_operations", 0 }, { "failed_flush_operations", 0 },
           { "failed_unmap_operations", 0 }, { "invalid_rd_operations", 0 },
           { "invalid_wr_operations", 0 }, { "invalid_flush_operations", 0 },
           { "invalid_unmap_operations", 0 }, { "rd_merged", 0 },
           { "wr_merged", 0 }, { "unmap_merged", 0 },
           { "wr_highest_offset", 64 * 512 + 3 * LIFE_BLOCK });
    life_stop(vm);
}

/* Requests that the device refuses count as invalid, not as done. */
static void test_invalid(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    uint64_t end = LIFE_DISK_SIZE / VBLK_SECTOR;
    uint8_t data[LIFE_BLOCK] = { 0 };

    g_assert_cmpint(vblk_read(vm->v, end, data, 512), ==, 1);
    g_assert_cmpint(vblk_read(vm->v, end - 1, data, 1024), ==, 1);
    g_assert_cmpint(vblk_write(vm->v, end, data, 512), ==, 1);
    g_assert_cmpint(range(vm, VIRTIO_BLK_T_DISCARD, end, 8, 0), ==, 1);
    g_assert_cmpint(range(vm, VIRTIO_BLK_T_WRITE_ZEROES, end, 8, 0), ==, 1);
    EXPECT(vm, { "invalid_rd_operations", 2 }, { "invalid_wr_operations", 2 },
           { "invalid_unmap_operations", 1 }, { "rd_operations", 0 },
           { "wr_operations", 0 }, { "unmap_operations", 0 },
           { "failed_rd_operations", 0 }, { "failed_wr_operations", 0 },
           { "failed_unmap_operations", 0 });
    life_stop(vm);
}

#define FAIL_RULES \
    LIFE_FAIL("read", 64, 5) "," LIFE_FAIL("write", 64, 5) "," \
    LIFE_FAIL("discard", 64, 5) "," LIFE_FAIL("write-zeroes", 64, 5)

/* Requests that the backend failed. */
static void test_failed(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = FAIL_RULES,
        .json = "\"werror\":\"report\",\"rerror\":\"report\",",
    });
    uint8_t data[LIFE_BLOCK] = { 0 };

    g_assert_cmpint(vblk_read(vm->v, 64, data, LIFE_BLOCK), ==, 1);
    g_assert_cmpint(vblk_write(vm->v, 64, data, LIFE_BLOCK), ==, 1);
    g_assert_cmpint(range(vm, VIRTIO_BLK_T_DISCARD, 64, 8, 0), ==, 1);
    g_assert_cmpint(range(vm, VIRTIO_BLK_T_WRITE_ZEROES, 64, 8, 0), ==, 1);
    EXPECT(vm, { "failed_rd_operations", 1 }, { "failed_wr_operations", 2 },
           { "failed_unmap_operations", 1 }, { "rd_operations", 0 },
           { "wr_operations", 0 }, { "unmap_operations", 0 },
           { "invalid_rd_operations", 0 }, { "invalid_wr_operations", 0 });
    life_stop(vm);
}

/* Merged requests: each is one operation, and those beyond the first merged */
static void test_merged(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    VblkIo *io[5];

    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = life_write(vm, 0, 64 + i * LIFE_SECTORS, i + 1);
    }
    vblk_kick(vm->v, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        life_ok(vm, io[i]);
    }
    EXPECT(vm, { "wr_operations", 5 }, { "wr_bytes", 5 * LIFE_BLOCK },
           { "wr_merged", 4 });
    life_stop(vm);
}

/* A parked request that is done in the end counts once, as done. */
static void test_stopped(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .rules = LIFE_FAIL_ONCE("write", 64, 5),
        .json = "\"werror\":\"stop\",",
    });
    VblkIo *io = life_write_kick(vm, 0, 64, 1);

    life_wait_stopped(vm);
    life_cont(vm);
    life_ok(vm, io);
    EXPECT(vm, { "wr_operations", 1 }, { "wr_bytes", LIFE_BLOCK },
           { "failed_wr_operations", 0 });
    life_stop(vm);
}

/* account-invalid=off, account-failed=off: the clocks ignore them. */
static void test_props(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .json = "\"account-invalid\":\"off\",\"account-failed\":\"off\",",
    });
    QDict *entry = life_block_entry(vm, "query-blockstats");
    QDict *d = qdict_get_qdict(entry, "stats");

    g_assert_false(qdict_get_bool(d, "account_invalid"));
    g_assert_false(qdict_get_bool(d, "account_failed"));
    qobject_unref(entry);
    life_stop(vm);
}

static int64_t sum_bins(QDict *stats, const char *name)
{
    QDict *h = qdict_get_qdict(stats, name);
    const QListEntry *e;
    int64_t sum = 0;

    g_assert_nonnull(h);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(h, "bins"), e) {
        sum += qnum_get_int(qobject_to(QNum, qlist_entry_obj(e)));
    }
    return sum;
}

/* block-latency-histogram-set: every request is in one bin. */
static void test_histogram(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    uint8_t data[LIFE_BLOCK] = { 0 };
    QDict *entry, *d;

    life_qmp(vm, "{'execute': 'block-latency-histogram-set', 'arguments': "
             "{'id': %s, 'boundaries': [10, 1000, 1000000000]}}",
             vblk_qom_path(vm->v));
    for (unsigned i = 0; i < 5; i++) {
        vblk_read(vm->v, i * 64, data, LIFE_BLOCK);
        vblk_write(vm->v, i * 64, data, LIFE_BLOCK);
        vblk_write(vm->v, i * 64, data, LIFE_BLOCK);
    }
    vblk_flush(vm->v);
    entry = life_block_entry(vm, "query-blockstats");
    d = qdict_get_qdict(entry, "stats");
    g_assert_cmpint(sum_bins(d, "rd_latency_histogram"), ==, 5);
    g_assert_cmpint(sum_bins(d, "wr_latency_histogram"), ==, 10);
    g_assert_cmpint(sum_bins(d, "flush_latency_histogram"), ==, 1);
    qobject_unref(entry);
    life_stop(vm);
}

#define ACCT_CASES      (LIFE_MAIN | LIFE_THREADS)

void life_add_acct_tests(void)
{
    life_add("acct/good", ACCT_CASES, test_good);
    life_add("acct/invalid", ACCT_CASES, test_invalid);
    life_add("acct/failed", ACCT_CASES, test_failed);
    life_add("acct/merged", ACCT_CASES, test_merged);
    life_add("acct/stopped", ACCT_CASES, test_stopped);
    life_add("acct/props", LIFE_MAIN, test_props);
    life_add("acct/histogram", ACCT_CASES, test_histogram);
}
