/*
 * virtio-blk qtests: each request type as a good driver sends it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "fixture.h"

#define OK                  VIRTIO_BLK_S_OK
#define SECTORS             8           /* of most requests here */
#define BYTES               (SECTORS * VBLK_SECTOR)

/* Issue 2, "requests: IN, OUT": what is written is read back. */
static void test_rw(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* B1, row 55: used.len is data + status for IN, the status alone for OUT. */
static void test_used_len(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint8_t data[BYTES] = {};
    uint32_t used;

    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_OUT, 0, data, BYTES, &used),
                    ==, OK);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_IN, 0, data, BYTES, &used),
                    ==, OK);
    g_assert_cmpint(used, ==, BYTES + 1);
    vblk_stop(v);
}

/* Issue 2: data in many descriptors of unequal length lands in order. */
static void test_many_segments(const VblkVariant *variant)
{
    static const uint32_t out_len[] = { 512, 1, 511, 3000, 72 };
    static const uint32_t in_len[] = { 7, 1000, 3088, 1 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain w = {}, r = {};
    uint8_t data[4096], back[4096], *p = data;
    uint64_t at[ARRAY_SIZE(in_len)];
    uint32_t used;

    vblk_pattern(data, sizeof(data), 3);
    vblk_chain_header(v, &w, VIRTIO_BLK_T_OUT, 40);
    for (unsigned i = 0; i < ARRAY_SIZE(out_len); p += out_len[i++]) {
        vblk_chain_out(v, &w, p, out_len[i]);
    }
    g_assert_cmpint(p - data, ==, sizeof(data));
    vblk_chain_status(v, &w);
    g_assert_cmpint(vblk_chain_run(v, 0, &w, NULL), ==, OK);

    vblk_chain_header(v, &r, VIRTIO_BLK_T_IN, 40);
    for (unsigned i = 0; i < ARRAY_SIZE(in_len); i++) {
        at[i] = vblk_chain_in(v, &r, in_len[i]);
    }
    vblk_chain_status(v, &r);
    g_assert_cmpint(vblk_chain_run(v, 0, &r, &used), ==, OK);
    g_assert_cmpint(used, ==, sizeof(back) + 1);
    p = back;
    for (unsigned i = 0; i < ARRAY_SIZE(in_len); p += in_len[i++]) {
        qtest_memread(v->qts, at[i], p, in_len[i]);
    }
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    vblk_stop(v);
}

/* Issue 2, seg_max: a request of as many segments as are advertised. */
static void test_seg_max(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    unsigned n = vblk_cfg(v, seg_max);
    g_autofree VblkChain *c = g_new0(VblkChain, 1);
    g_autofree uint8_t *data = g_malloc(n * VBLK_SECTOR);
    g_autofree uint8_t *back = g_malloc(n * VBLK_SECTOR);

    g_assert_cmpint(n, ==, 254);
    vblk_pattern(data, n * VBLK_SECTOR, 4);
    vblk_chain_header(v, c, VIRTIO_BLK_T_OUT, 0);
    for (unsigned i = 0; i < n; i++) {
        vblk_chain_out(v, c, data + i * VBLK_SECTOR, VBLK_SECTOR);
    }
    vblk_chain_status(v, c);
    g_assert_cmpint(vblk_chain_run(v, 0, c, NULL), ==, OK);
    g_assert_cmpint(vblk_read(v, 0, back, n * VBLK_SECTOR), ==, OK);
    g_assert_cmpmem(data, n * VBLK_SECTOR, back, n * VBLK_SECTOR);
    vblk_stop(v);
}

/* Issue 2, FLUSH; row 55 for its length; row 28: it reaches the file. */
static void test_flush(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint32_t used;

    g_assert_true(vblk_has(v, VIRTIO_BLK_F_FLUSH));
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, &used), ==,
                    OK);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(vblk_stat(v, "flush_operations"), ==, 1);
    vblk_stop(v);
}

/*
 * Row 26: neither FLUSH nor CONFIG_WCE accepted: the device does without its
 * write cache.  (Seen from outside: the file layer may write with FUA.)
 */
static void test_writethrough(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    g_assert_true(vblk_writeback(v));
    v->o.refuse = VBLK_BIT(VIRTIO_BLK_F_FLUSH) |
                  VBLK_BIT(VIRTIO_BLK_F_CONFIG_WCE);
    vblk_setup(v);
    g_assert_false(vblk_writeback(v));
    vblk_check_io(v, 0);
    /* The next driver is not bound by it. */
    v->o.refuse = 0;
    vblk_setup(v);
    g_assert_true(vblk_writeback(v));
    vblk_stop(v);
}

static void check_id(const VblkVariant *variant, const char *props,
                     const char *expect)
{
    VblkOpts o = vblk_opts(variant);
    char id[VIRTIO_BLK_ID_BYTES], want[VIRTIO_BLK_ID_BYTES] = {};
    uint32_t used;
    Vblk *v;

    o.props = props;
    v = vblk_start(&o);
    memset(id, VBLK_FILL, sizeof(id));
    memcpy(want, expect, strlen(expect));
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_GET_ID, 0, id, sizeof(id),
                             &used), ==, OK);
    g_assert_cmpmem(id, sizeof(id), want, sizeof(want));
    g_assert_cmpint(used, ==, sizeof(id) + 1);
    vblk_stop(v);
}

/* Row 57: the ID is 20 bytes padded with NUL (stock: one NUL only). */
static void test_get_id(const VblkVariant *variant)
{
    check_id(variant, "serial=AB-12", "AB-12");
}

/* Row 57: no NUL at all when the serial number fills the 20 bytes. */
static void test_get_id_long(const VblkVariant *variant)
{
    check_id(variant, "serial=0123456789ABCDEFGHIJklm", "0123456789ABCDEFGHIJ");
}

/* Row 57: a disk without a serial number has one of NULs. */
static void test_get_id_none(const VblkVariant *variant)
{
    check_id(variant, NULL, "");
}

/* Row 55: an ID buffer of another size gets what fits, and says how much. */
static void test_get_id_sizes(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    char big[64], small[8];
    uint32_t used;
    Vblk *v;

    o.props = "serial=0123456789";
    v = vblk_start(&o);
    memset(big, VBLK_FILL, sizeof(big));
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_GET_ID, 0, big, sizeof(big),
                             &used), ==, OK);
    g_assert_cmpint(used, ==, VIRTIO_BLK_ID_BYTES + 1);
    g_assert_cmpstr(big, ==, "0123456789");
    /* The status byte counts too, and may stand for the byte after the ID. */
    g_assert_cmpint((uint8_t)big[VIRTIO_BLK_ID_BYTES + 1], ==, VBLK_FILL);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_GET_ID, 0, small,
                             sizeof(small), &used), ==, OK);
    g_assert_cmpint(used, ==, sizeof(small) + 1);
    g_assert_cmpmem(small, sizeof(small), "01234567", 8);
    vblk_stop(v);
}

/* ---- ranges ---- */

static uint8_t range_cmd(Vblk *v, uint32_t type,
                         const struct virtio_blk_discard_write_zeroes *seg,
                         unsigned n, uint32_t *used)
{
    return vblk_cmd(v, 0, type, 0, (void *)seg, n * sizeof(*seg), used);
}

static struct virtio_blk_discard_write_zeroes range(uint64_t sector,
                                                    uint32_t num,
                                                    uint32_t flags)
{
    return (struct virtio_blk_discard_write_zeroes) {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(num),
        .flags = cpu_to_le32(flags),
    };
}

/* Fill [0, sectors) with a byte that is not zero. */
static void fill_disk(Vblk *v, unsigned sectors)
{
    g_autofree uint8_t *data = g_malloc(sectors * VBLK_SECTOR);

    memset(data, 0x5a, sectors * VBLK_SECTOR);
    g_assert_cmpint(vblk_write(v, 0, data, sectors * VBLK_SECTOR), ==, OK);
}

static void expect_bytes(Vblk *v, uint64_t sector, unsigned sectors,
                         uint8_t val)
{
    g_autofree uint8_t *data = g_malloc(sectors * VBLK_SECTOR);

    g_assert_cmpint(vblk_read(v, sector, data, sectors * VBLK_SECTOR), ==, OK);
    for (unsigned i = 0; i < sectors * VBLK_SECTOR; i++) {
        g_assert_cmphex(data[i], ==, val);
    }
}

static blkcnt_t blocks_of(Vblk *v)
{
    struct stat st;

    g_assert_cmpint(vblk_flush(v), ==, OK);
    g_assert_cmpint(stat(v->image, &st), ==, 0);
    return st.st_blocks;
}

/* Issue 2, DISCARD: ends well, frees space, leaves the neighbours alone. */
static void test_discard(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    struct virtio_blk_discard_write_zeroes seg = range(256, 256, 0);
    blkcnt_t before;
    uint32_t used;

    g_assert_true(vblk_has(v, VIRTIO_BLK_F_DISCARD));
    fill_disk(v, 1024);
    before = blocks_of(v);
    g_assert_cmpint(range_cmd(v, VIRTIO_BLK_T_DISCARD, &seg, 1, &used), ==, OK);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(blocks_of(v), ==, before - 256);
    expect_bytes(v, 0, 256, 0x5a);
    expect_bytes(v, 512, 512, 0x5a);
    vblk_stop(v);
}

static void check_write_zeroes(const VblkVariant *variant, uint32_t flags)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    struct virtio_blk_discard_write_zeroes seg = range(255, 258, flags);
    uint32_t used;

    g_assert_true(vblk_has(v, VIRTIO_BLK_F_WRITE_ZEROES));
    fill_disk(v, 1024);
    g_assert_cmpint(range_cmd(v, VIRTIO_BLK_T_WRITE_ZEROES, &seg, 1, &used),
                    ==, OK);
    g_assert_cmpint(used, ==, 1);
    expect_bytes(v, 0, 255, 0x5a);
    expect_bytes(v, 255, 258, 0);
    expect_bytes(v, 513, 511, 0x5a);
    vblk_stop(v);
}

/* Row 23: reads after write zeroes return zeroes. */
static void test_write_zeroes(const VblkVariant *variant)
{
    check_write_zeroes(variant, 0);
}

/* Row 23, with leave to deallocate. */
static void test_write_zeroes_unmap(const VblkVariant *variant)
{
    check_write_zeroes(variant, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
}

/*
 * Row 24: with write-zeroes-may-unmap=off nothing is deallocated, though the
 * driver gives leave and the medium could.
 */
static void test_may_unmap(const VblkVariant *variant)
{
    struct virtio_blk_discard_write_zeroes seg =
        range(256, 256, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);

    if (!vblk_needs_prop("write-zeroes-may-unmap")) {
        return;
    }
    for (unsigned on = 0; on < 2; on++) {
        VblkOpts o = vblk_opts(variant);
        blkcnt_t before;
        Vblk *v;

        o.props = on ? "write-zeroes-may-unmap=on"
                     : "write-zeroes-may-unmap=off";
        v = vblk_start(&o);
        fill_disk(v, 1024);
        before = blocks_of(v);
        g_assert_cmpint(range_cmd(v, VIRTIO_BLK_T_WRITE_ZEROES, &seg, 1, NULL),
                        ==, OK);
        g_assert_cmpint(blocks_of(v), ==, before - (on ? 256 : 0));
        expect_bytes(v, 256, 256, 0);
        vblk_stop(v);
    }
}

/* Row 23, issue 2: "discard and write zeroes with more than one segment". */
static void test_multi_segment(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    struct virtio_blk_discard_write_zeroes seg[8];
    blkcnt_t before;
    uint32_t used;
    Vblk *v;

    if (!vblk_needs_prop("max-discard-segments")) {
        return;
    }
    o.props = "max-discard-segments=8,max-write-zeroes-segments=8";
    v = vblk_start(&o);
    g_assert_cmpint(vblk_cfg(v, max_discard_seg), ==, 8);
    g_assert_cmpint(vblk_cfg(v, max_write_zeroes_seg), ==, 8);
    fill_disk(v, 1024);
    for (unsigned i = 0; i < 8; i++) {
        seg[i] = range(i * 64, 8, i & 1);
    }
    g_assert_cmpint(range_cmd(v, VIRTIO_BLK_T_WRITE_ZEROES, seg, 8, &used), ==,
                    OK);
    g_assert_cmpint(used, ==, 1);
    for (unsigned i = 0; i < 8; i++) {
        expect_bytes(v, i * 64, 8, 0);
        expect_bytes(v, i * 64 + 8, 56, 0x5a);
        seg[i] = range(512 + i * 64, 8, 0);
    }
    before = blocks_of(v);
    g_assert_cmpint(range_cmd(v, VIRTIO_BLK_T_DISCARD, seg, 8, &used), ==, OK);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(blocks_of(v), ==, before - 8 * 8);
    vblk_stop(v);
}

/* Row 23 and issue 2: one segment that fails makes the request fail. */
static void test_multi_segment_error(void)
{
    VblkOpts o = { .props = "max-write-zeroes-segments=8" };
    struct virtio_blk_discard_write_zeroes seg[3] = {
        range(0, 8, 0), range(64, 8, 0), range(128, 8, 0),
    };
    uint32_t used;
    Vblk *v;

    if (!vblk_needs_prop("max-write-zeroes-segments")) {
        return;
    }
    o.blkdebug_opts = ",inject-error.0.event=none,inject-error.0.iotype="
                      "write-zeroes,inject-error.0.sector=64,"
                      "inject-error.0.errno=5";
    v = vblk_start(&o);
    g_assert_cmpint(range_cmd(v, VIRTIO_BLK_T_WRITE_ZEROES, seg, 3, &used), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(used, ==, 1);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* ---- odd but allowed ---- */

/* Bits that old drivers set (BARRIER; OUT with FLUSH) change nothing. */
static void test_old_bits(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint8_t data[BYTES], back[BYTES] = {};

    vblk_pattern(data, BYTES, 9);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_BARRIER, 0,
                             data, BYTES, NULL), ==, OK);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_IN | VIRTIO_BLK_T_BARRIER, 0,
                             back, BYTES, NULL), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_OUT, 0,
                             NULL, 0, NULL), ==, OK);
    g_assert_cmpmem(data, BYTES, back, BYTES);
    vblk_stop(v);
}

/* Row 55: space that a command has no use for is not counted as written. */
static void test_spare_in_buffer(const VblkVariant *variant)
{
    static const uint32_t types[] = { VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_OUT };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint8_t data[VBLK_SECTOR] = { 1, 2, 3 };

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        VblkChain c = {};
        uint64_t spare;
        uint32_t used;

        vblk_chain_header(v, &c, types[i], 0);
        if (types[i] == VIRTIO_BLK_T_OUT) {
            vblk_chain_out(v, &c, data, sizeof(data));
        }
        spare = vblk_chain_in(v, &c, 100);
        vblk_chain_status(v, &c);
        g_assert_cmpint(vblk_chain_run(v, 0, &c, &used), ==, OK);
        g_assert_cmpint(used, ==, 1);
        g_assert_true(vblk_mem_is(v, spare + 1, VBLK_FILL, 99));
    }
    vblk_stop(v);
}

/* A read or write of nothing is no error. */
static void test_empty_rw(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint32_t used;

    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_OUT, 0, NULL, 0, &used), ==,
                    OK);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_IN, 0, NULL, 0, &used), ==,
                    OK);
    g_assert_cmpint(used, ==, 1);
    vblk_stop(v);
}

void vblk_add_request_tests(void)
{
    vblk_add("request/rw", VBLK_ON_ALL, test_rw);
    vblk_add("request/used-len", VBLK_ON_ALL, test_used_len);
    vblk_add("request/many-segments", VBLK_ON_ALL, test_many_segments);
    vblk_add("request/seg-max", VBLK_ON_ALL, test_seg_max);
    vblk_add("request/flush", VBLK_ON_MOST, test_flush);
    vblk_add("request/writethrough", VBLK_ON_SPLIT | VBLK_ON_LEGACY,
             test_writethrough);
    vblk_add("request/get-id", VBLK_ON_MOST, test_get_id);
    vblk_add("request/get-id-long", VBLK_ON_SPLIT, test_get_id_long);
    vblk_add("request/get-id-none", VBLK_ON_SPLIT, test_get_id_none);
    vblk_add("request/get-id-sizes", VBLK_ON_MOST, test_get_id_sizes);
    vblk_add("request/discard", VBLK_ON_MOST, test_discard);
    vblk_add("request/write-zeroes", VBLK_ON_MOST, test_write_zeroes);
    vblk_add("request/write-zeroes-unmap", VBLK_ON_MOST,
             test_write_zeroes_unmap);
    vblk_add("request/may-unmap", VBLK_ON_MOST, test_may_unmap);
    vblk_add("request/multi-segment", VBLK_ON_MOST, test_multi_segment);
    vblk_add_one("request/multi-segment-error", test_multi_segment_error);
    vblk_add("request/old-bits", VBLK_ON_MOST, test_old_bits);
    vblk_add("request/spare-in-buffer", VBLK_ON_MOST, test_spare_in_buffer);
    vblk_add("request/empty-rw", VBLK_ON_MOST, test_empty_rw);
}
