/*
 * virtio-blk qtests: merging of adjacent reads and writes of one batch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fixture.h"

#define OK                  VIRTIO_BLK_S_OK
#define IOERR               VIRTIO_BLK_S_IOERR
#define BYTES               4096
#define SECTORS             (BYTES / VBLK_SECTOR)
#define MAX_BATCH           64

typedef struct Batch {
    Vblk *v;
    unsigned n;
    VblkIo *io[MAX_BATCH];
    uint8_t status[MAX_BATCH];
} Batch;

/* One request for the @slot-th 4 KiB of the disk. */
static void batch_add(Batch *b, uint32_t type, unsigned slot)
{
    uint8_t data[BYTES];

    g_assert_cmpint(b->n, <, MAX_BATCH);
    vblk_pattern(data, BYTES, slot + 1);
    b->io[b->n++] = vblk_io(b->v, 0, type, slot * SECTORS,
                            type == VIRTIO_BLK_T_OUT ? data : NULL, BYTES);
}

static void batch_run(Batch *b)
{
    vblk_kick(b->v, 0);
    for (unsigned i = 0; i < b->n; i++) {
        b->status[i] = vblk_io_wait(b->v, b->io[i], NULL);
    }
    b->n = 0;
}

static void batch_run_ok(Batch *b)
{
    unsigned n = b->n;

    batch_run(b);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(b->status[i], ==, OK);
    }
}

/* Read each of @n slots back with a batch; the data must be the pattern. */
static void check_slots(Vblk *v, unsigned n)
{
    VblkIo *io[MAX_BATCH];
    uint8_t want[BYTES], back[BYTES];

    for (unsigned i = 0; i < n; i++) {
        io[i] = vblk_io(v, 0, VIRTIO_BLK_T_IN, i * SECTORS, NULL, BYTES);
    }
    vblk_kick(v, 0);
    for (unsigned i = 0; i < n; i++) {
        vblk_pattern(want, BYTES, i + 1);
        g_assert_cmpint(vblk_io_wait(v, io[i], back), ==, OK);
        g_assert_cmpmem(want, BYTES, back, BYTES);
    }
}

/* Issue 2: "adjacent reads or writes of one batch go down as one". */
static void test_in_order(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    for (unsigned i = 0; i < 8; i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 7);
    g_assert_cmpint(vblk_stat(b.v, "wr_operations"), ==, 8);
    g_assert_cmpint(vblk_stat(b.v, "wr_bytes"), ==, 8 * BYTES);
    check_slots(b.v, 8);
    g_assert_cmpint(vblk_stat(b.v, "rd_merged"), ==, 7);
    g_assert_cmpint(vblk_stat(b.v, "rd_operations"), ==, 8);
    vblk_stop(b.v);
}

/* Issue 2: a batch in any other order is sorted and merged as well. */
static void test_reversed(const VblkVariant *variant)
{
    static const uint8_t mixed[] = { 11, 8, 10, 9, 13, 12, 15, 14 };
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    for (int i = 7; i >= 0; i--) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 7);
    for (unsigned i = 0; i < ARRAY_SIZE(mixed); i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, mixed[i]);
    }
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 14);
    check_slots(b.v, 16);
    vblk_stop(b.v);
}

/* Issue 2: what is not adjacent is not merged, but all of it is done. */
static void test_gaps(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    for (unsigned i = 0; i < 16; i += 2) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 0);
    for (unsigned i = 1; i < 16; i += 2) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_add(&b, VIRTIO_BLK_T_OUT, 16);
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 1);
    check_slots(b.v, 17);
    vblk_stop(b.v);
}

/* The same sectors twice in a batch: both requests done, none merged. */
static void test_overlap(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    batch_add(&b, VIRTIO_BLK_T_OUT, 0);
    batch_add(&b, VIRTIO_BLK_T_OUT, 0);
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 0);
    g_assert_cmpint(vblk_stat(b.v, "wr_operations"), ==, 2);
    check_slots(b.v, 1);
    vblk_stop(b.v);
}

/* Reads and writes are never merged with each other. */
static void test_directions(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    batch_add(&b, VIRTIO_BLK_T_OUT, 0);
    batch_add(&b, VIRTIO_BLK_T_OUT, 1);
    batch_add(&b, VIRTIO_BLK_T_IN, 2);
    batch_add(&b, VIRTIO_BLK_T_IN, 3);
    batch_add(&b, VIRTIO_BLK_T_IN, 4);
    batch_add(&b, VIRTIO_BLK_T_OUT, 5);
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 1);
    g_assert_cmpint(vblk_stat(b.v, "rd_merged"), ==, 2);
    vblk_stop(b.v);
}

/* Issue 2, property request-merging=off: each goes down alone. */
static void test_off(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = {};

    o.props = "request-merging=off";
    b.v = vblk_start(&o);
    for (unsigned i = 0; i < 8; i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    check_slots(b.v, 8);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 0);
    g_assert_cmpint(vblk_stat(b.v, "rd_merged"), ==, 0);
    vblk_stop(b.v);
}

/* Issue 2: "bounded by the backend's maximum ... transfer". */
static void test_max_transfer(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = {};

    o.blkdebug_opts = ",max-transfer=16384";
    b.v = vblk_start(&o);
    for (unsigned i = 0; i < 8; i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 6);
    check_slots(b.v, 8);
    g_assert_cmpint(vblk_stat(b.v, "rd_merged"), ==, 6);
    vblk_stop(b.v);
}

/* Issue 2: "bounded by the backend's maximum iov" (1024). */
static void test_max_iov(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    g_autofree uint8_t *data = g_malloc(6 * 254 * VBLK_SECTOR);
    g_autofree uint8_t *back = g_malloc(6 * 254 * VBLK_SECTOR);
    VblkReq *req[6];
    uint64_t status[6];

    vblk_pattern(data, 6 * 254 * VBLK_SECTOR, 1);
    for (unsigned i = 0; i < 6; i++) {
        g_autofree VblkChain *c = g_new0(VblkChain, 1);

        vblk_chain_header(v, c, VIRTIO_BLK_T_OUT, i * 254);
        for (unsigned k = 0; k < 254; k++) {
            vblk_chain_out(v, c, data + (i * 254 + k) * VBLK_SECTOR,
                           VBLK_SECTOR);
        }
        vblk_chain_status(v, c);
        status[i] = c->status;
        req[i] = vblk_chain_submit(v, 0, c);
    }
    vblk_kick(v, 0);
    for (unsigned i = 0; i < 6; i++) {
        vblk_wait(v, req[i], NULL);
        g_assert_cmpint(qtest_readb(v->qts, status[i]), ==, OK);
    }
    /* Four of them have 1016 segments: 4 + 2 requests in two. */
    g_assert_cmpint(vblk_stat(v, "wr_merged"), ==, 4);
    for (unsigned i = 0; i < 6; i++) {
        g_assert_cmpint(vblk_read(v, i * 254, back + i * 254 * VBLK_SECTOR,
                                  254 * VBLK_SECTOR), ==, OK);
    }
    g_assert_cmpmem(data, 6 * 254 * VBLK_SECTOR, back, 6 * 254 * VBLK_SECTOR);
    vblk_stop(v);
}

/* More adjacent requests than the device collects at once. */
static void test_long_batch(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    for (unsigned i = 0; i < MAX_BATCH; i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), >=, MAX_BATCH - 2);
    check_slots(b.v, MAX_BATCH);
    vblk_stop(b.v);
}

static Batch start_failing(const VblkVariant *variant, const char *iotype,
                           unsigned slot)
{
    VblkOpts o = vblk_opts(variant);
    g_autofree char *opts =
        g_strdup_printf(",inject-error.0.event=none,inject-error.0.errno=5,"
                        "inject-error.0.once=off,inject-error.0.iotype=%s,"
                        "inject-error.0.sector=%u", iotype, slot * SECTORS);

    o.blkdebug_opts = opts;
    return (Batch) { .v = vblk_start(&o) };
}

/* A merged write fails: only the part with the bad sector is an error. */
static void test_failing_write(const VblkVariant *variant)
{
    Batch b = start_failing(variant, "write", 4);
    uint8_t want[BYTES], back[BYTES];

    for (unsigned i = 0; i < 8; i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run(&b);
    for (unsigned i = 0; i < 8; i++) {
        g_assert_cmpint(b.status[i], ==, i == 4 ? IOERR : OK);
        if (i != 4) {
            vblk_pattern(want, BYTES, i + 1);
            g_assert_cmpint(vblk_read(b.v, i * SECTORS, back, BYTES), ==, OK);
            g_assert_cmpmem(want, BYTES, back, BYTES);
        }
    }
    g_assert_cmpint(vblk_stat(b.v, "failed_wr_operations"), ==, 1);
    vblk_stop(b.v);
}

/* The same for a merged read; the good parts bring their data. */
static void test_failing_read(const VblkVariant *variant)
{
    Batch b = start_failing(variant, "read", 2);
    VblkIo *io[6];
    uint8_t want[BYTES], back[BYTES];

    for (unsigned i = 0; i < 6; i++) {
        batch_add(&b, VIRTIO_BLK_T_OUT, i);
    }
    batch_run_ok(&b);
    for (unsigned i = 0; i < 6; i++) {
        io[i] = vblk_io(b.v, 0, VIRTIO_BLK_T_IN, i * SECTORS, NULL, BYTES);
    }
    vblk_kick(b.v, 0);
    for (unsigned i = 0; i < 6; i++) {
        uint8_t status = vblk_io_wait(b.v, io[i], back);

        g_assert_cmpint(status, ==, i == 2 ? IOERR : OK);
        vblk_pattern(want, BYTES, i + 1);
        if (status == OK) {
            g_assert_cmpmem(want, BYTES, back, BYTES);
        }
    }
    vblk_stop(b.v);
}

/* A bad request in the middle of a batch fails alone, the rest is merged. */
static void test_invalid_amid(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Batch b = { .v = vblk_start(&o) };

    batch_add(&b, VIRTIO_BLK_T_OUT, 0);
    batch_add(&b, VIRTIO_BLK_T_OUT, 1 << 20);
    batch_add(&b, VIRTIO_BLK_T_OUT, 1);
    batch_run(&b);
    g_assert_cmpint(b.status[0], ==, OK);
    g_assert_cmpint(b.status[1], ==, IOERR);
    g_assert_cmpint(b.status[2], ==, OK);
    g_assert_cmpint(vblk_stat(b.v, "wr_merged"), ==, 1);
    g_assert_cmpint(vblk_stat(b.v, "invalid_wr_operations"), ==, 1);
    check_slots(b.v, 2);
    vblk_stop(b.v);
}

void vblk_add_merge_tests(void)
{
    vblk_add("merge/in-order", VBLK_ON_MOST, test_in_order);
    vblk_add("merge/reversed", VBLK_ON_MOST, test_reversed);
    vblk_add("merge/gaps", VBLK_ON_MOST, test_gaps);
    vblk_add("merge/overlap", VBLK_ON_SPLIT, test_overlap);
    vblk_add("merge/directions", VBLK_ON_MOST, test_directions);
    vblk_add("merge/off", VBLK_ON_MOST, test_off);
    vblk_add("merge/max-transfer", VBLK_ON_SPLIT | VBLK_ON_PACKED,
             test_max_transfer);
    vblk_add("merge/max-iov", VBLK_ON_INDIRECT | VBLK_ON_PACKED_IND,
             test_max_iov);
    vblk_add("merge/long-batch", VBLK_ON_SPLIT | VBLK_ON_PACKED,
             test_long_batch);
    vblk_add("merge/failing-write", VBLK_ON_SPLIT | VBLK_ON_PACKED |
             VBLK_ON_LEGACY, test_failing_write);
    vblk_add("merge/failing-read", VBLK_ON_SPLIT | VBLK_ON_PACKED |
             VBLK_ON_LEGACY, test_failing_read);
    vblk_add("merge/invalid-amid", VBLK_ON_SPLIT, test_invalid_amid);
}
