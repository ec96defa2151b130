/*
 * virtio-blk qtests: what a driver must not send
 *
 * Issue 2: "a malformed request does to the guest exactly what the
 * specification says, and never more: no abort, no read or write outside what
 * the guest gave, no stuck queue after a reset."
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "fixture.h"

#define OK                  VIRTIO_BLK_S_OK
#define IOERR               VIRTIO_BLK_S_IOERR
#define UNSUPP              VIRTIO_BLK_S_UNSUPP
#define T_GET_LIFETIME      10
#define DISK_SECTORS        32768       /* the fixture's default size */

typedef struct virtio_blk_discard_write_zeroes Segment;

static Segment range(uint64_t sector, uint32_t num, uint32_t flags)
{
    return (Segment) {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(num),
        .flags = cpu_to_le32(flags),
    };
}

/* ---- framing that breaks the device ---- */

static void expect_framing_breaks(Vblk *v, const VblkChain *c)
{
    VblkReq *req = vblk_chain_submit(v, 0, c);

    vblk_publish(v, 0);
    vblk_notify(v, 0);
    vblk_expect_broken(v, 0);
    g_assert_false(vblk_done(v, req));
    vblk_recover(v);
}

/* No header at all. */
static void test_no_header(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {};

    vblk_chain_in(v, &c, VBLK_SECTOR);
    vblk_chain_status(v, &c);
    expect_framing_breaks(v, &c);
    vblk_stop(v);
}

/* A header of 15 bytes, in one descriptor and in two. */
static void test_short_header(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {}, d = {};
    char zero[15] = {};

    vblk_chain_out(v, &c, zero, 15);
    vblk_chain_in(v, &c, VBLK_SECTOR);
    vblk_chain_status(v, &c);
    expect_framing_breaks(v, &c);
    vblk_chain_out(v, &d, zero, 8);
    vblk_chain_out(v, &d, zero, 7);
    vblk_chain_status(v, &d);
    expect_framing_breaks(v, &d);
    vblk_stop(v);
}

/* Nowhere to put the status byte. */
static void test_no_status(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {};
    char zero[VBLK_SECTOR] = {};

    vblk_chain_header(v, &c, VIRTIO_BLK_T_OUT, 0);
    vblk_chain_out(v, &c, zero, sizeof(zero));
    expect_framing_breaks(v, &c);
    vblk_stop(v);
}

/* A status descriptor of length 0. */
static void test_empty_status(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {};

    vblk_chain_header(v, &c, VIRTIO_BLK_T_IN, 0);
    vblk_chain_status(v, &c);
    c.in[0].len = 0;
    expect_framing_breaks(v, &c);
    vblk_stop(v);
}

/* ---- framing that is unusual and allowed (VIRTIO 1.4, 2.7.4) ---- */

/* The header in four descriptors. */
static void test_split_header(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint8_t data[VBLK_SECTOR], back[VBLK_SECTOR];
    uint32_t word[4] = { cpu_to_le32(VIRTIO_BLK_T_OUT), 0, cpu_to_le32(7), 0 };
    VblkChain c = {};

    vblk_pattern(data, sizeof(data), 1);
    for (unsigned i = 0; i < ARRAY_SIZE(word); i++) {
        vblk_chain_out(v, &c, &word[i], sizeof(word[i]));
    }
    vblk_chain_out(v, &c, data, sizeof(data));
    vblk_chain_status(v, &c);
    g_assert_cmpint(vblk_chain_run(v, 0, &c, NULL), ==, OK);
    g_assert_cmpint(vblk_read(v, 7, back, sizeof(back)), ==, OK);
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    vblk_stop(v);
}

/* Header and data in one descriptor. */
static void test_header_with_data(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    struct {
        struct virtio_blk_outhdr hdr;
        uint8_t data[2 * VBLK_SECTOR];
    } QEMU_PACKED msg = {
        .hdr.type = cpu_to_le32(VIRTIO_BLK_T_OUT),
        .hdr.sector = cpu_to_le64(9),
    };
    uint8_t back[sizeof(msg.data)];
    VblkChain c = {};

    vblk_pattern(msg.data, sizeof(msg.data), 2);
    vblk_chain_out(v, &c, &msg, sizeof(msg) - VBLK_SECTOR);
    vblk_chain_out(v, &c, msg.data + VBLK_SECTOR, VBLK_SECTOR);
    vblk_chain_status(v, &c);
    g_assert_cmpint(vblk_chain_run(v, 0, &c, NULL), ==, OK);
    g_assert_cmpint(vblk_read(v, 9, back, sizeof(back)), ==, OK);
    g_assert_cmpmem(msg.data, sizeof(msg.data), back, sizeof(back));
    vblk_stop(v);
}

/* Row 55: data and status byte in one descriptor; only the byte is set. */
static void test_status_with_data(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint8_t data[VBLK_SECTOR], back[VBLK_SECTOR];
    VblkChain c = {}, bad = {};
    uint32_t used;
    uint64_t at;

    vblk_pattern(data, sizeof(data), 3);
    g_assert_cmpint(vblk_write(v, 3, data, sizeof(data)), ==, OK);
    vblk_chain_header(v, &c, VIRTIO_BLK_T_IN, 3);
    at = vblk_chain_in(v, &c, VBLK_SECTOR + 1);
    c.status = at + VBLK_SECTOR;
    g_assert_cmpint(vblk_chain_run(v, 0, &c, &used), ==, OK);
    g_assert_cmpint(used, ==, VBLK_SECTOR + 1);
    qtest_memread(v->qts, at, back, sizeof(back));
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));

    vblk_chain_header(v, &bad, VIRTIO_BLK_T_IN, DISK_SECTORS);
    at = vblk_chain_in(v, &bad, VBLK_SECTOR + 1);
    bad.status = at + VBLK_SECTOR;
    g_assert_cmpint(vblk_chain_run(v, 0, &bad, &used), ==, IOERR);
    g_assert_cmpint(used, ==, 1);
    g_assert_true(vblk_mem_is(v, at + 1, VBLK_FILL, VBLK_SECTOR - 1));
    vblk_stop(v);
}

/* ---- reads and writes that fail ---- */

typedef struct BadRequest {
    uint32_t type;
    uint64_t sector;
    uint32_t len;
    uint8_t status;
} BadRequest;

/*
 * Row 55: each fails with its status, used.len 1, and nothing beyond the
 * first data byte touched.
 */
static void run_bad(Vblk *v, const BadRequest *bad, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_autofree uint8_t *data = g_malloc(bad[i].len + 1);
        uint32_t used;
        uint8_t status;

        memset(data, VBLK_FILL, bad[i].len);
        status = vblk_cmd(v, 0, bad[i].type, bad[i].sector, data, bad[i].len,
                          &used);
        if (status != bad[i].status || used != 1) {
            vblk_fail("%u: type %u, sector %" PRIu64 ", %u bytes: status %u, "
                    "used length %u", i, bad[i].type, bad[i].sector,
                    bad[i].len, status, used);
        }
        for (unsigned k = 1; k < bad[i].len; k++) {
            g_assert_cmphex(data[k], ==, VBLK_FILL);
        }
    }
    vblk_check_io(v, 0);
}

/* Issue 2, rows 55 and 43: lengths and positions that are not on the disk. */
static void test_bad_ranges(const VblkVariant *variant)
{
    static const BadRequest bad[] = {
        { VIRTIO_BLK_T_IN, 0, 100, IOERR },
        { VIRTIO_BLK_T_IN, 0, 511, IOERR },
        { VIRTIO_BLK_T_IN, 0, 513, IOERR },
        { VIRTIO_BLK_T_IN, DISK_SECTORS, 512, IOERR },
        { VIRTIO_BLK_T_IN, DISK_SECTORS - 1, 1024, IOERR },
        { VIRTIO_BLK_T_IN, DISK_SECTORS + 1, 512, IOERR },
        { VIRTIO_BLK_T_IN, UINT64_MAX, 512, IOERR },
        { VIRTIO_BLK_T_IN, UINT64_MAX - 1, 1024, IOERR },
        { VIRTIO_BLK_T_IN, 1ull << 63, 512, IOERR },
        { VIRTIO_BLK_T_IN, 1ull << 55, 512, IOERR },
        { VIRTIO_BLK_T_IN, (1ull << 54) - 1, 512, IOERR },
        { VIRTIO_BLK_T_OUT, 0, 100, IOERR },
        { VIRTIO_BLK_T_OUT, DISK_SECTORS, 512, IOERR },
        { VIRTIO_BLK_T_OUT, DISK_SECTORS - 1, 1024, IOERR },
        { VIRTIO_BLK_T_OUT, UINT64_MAX, 512, IOERR },
        { VIRTIO_BLK_T_OUT, 1ull << 55, 512, IOERR },
    };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    struct stat st;

    run_bad(v, bad, ARRAY_SIZE(bad));
    g_assert_cmpint(stat(v->image, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, DISK_SECTORS * VBLK_SECTOR);
    vblk_stop(v);
}

/* Row 55, issue 2: requests that do not fit logical_block_size=4096. */
static void test_misaligned(const VblkVariant *variant)
{
    static const BadRequest bad[] = {
        { VIRTIO_BLK_T_IN, 1, 4096, IOERR },
        { VIRTIO_BLK_T_IN, 0, 512, IOERR },
        { VIRTIO_BLK_T_IN, 8, 4096 + 512, IOERR },
        { VIRTIO_BLK_T_OUT, 7, 4096, IOERR },
        { VIRTIO_BLK_T_OUT, 0, 3584, IOERR },
    };
    VblkOpts o = vblk_opts(variant);
    Segment r[] = { range(1, 8, 0), range(0, 7, 0), range(8, 8, 0) };
    Vblk *v;

    o.props = "logical_block_size=4096,physical_block_size=4096";
    v = vblk_start(&o);
    g_assert_cmpint(vblk_cfg(v, blk_size), ==, 4096);
    run_bad(v, bad, ARRAY_SIZE(bad));
    for (unsigned i = 0; i < ARRAY_SIZE(r); i++) {
        uint8_t expect = i < 2 ? IOERR : OK;

        g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_DISCARD, 0, &r[i],
                                 sizeof(r[i]), NULL), ==, expect);
        g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, &r[i],
                                 sizeof(r[i]), NULL), ==, expect);
    }
    vblk_stop(v);
}

/* Row 55, issue 2: "anything else UNSUPP", with no data touched. */
static void test_unknown_type(const VblkVariant *variant)
{
    static const BadRequest bad[] = {
        { 6, 0, 512, UNSUPP },
        { 7, 0, 512, UNSUPP },
        { 9, 0, 512, UNSUPP },
        { VIRTIO_BLK_T_DISCARD & ~VIRTIO_BLK_T_OUT, 0, 16, UNSUPP },
        { VIRTIO_BLK_T_WRITE_ZEROES & ~VIRTIO_BLK_T_OUT, 0, 16, UNSUPP },
        { T_GET_LIFETIME, 0, 40, UNSUPP },
        { VIRTIO_BLK_T_SECURE_ERASE, 0, 16, UNSUPP },
        { 28, 0, 512, UNSUPP },
        { 100, 0, 512, UNSUPP },
        { 0x40000000, 0, 512, UNSUPP },
        { 0x7fffffff, 0, 512, UNSUPP },
        { 0xffffffff, 0, 512, UNSUPP },
    };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    run_bad(v, bad, ARRAY_SIZE(bad));
    vblk_stop(v);
}

/* Row 55: zone commands on a device without ZONED write nothing. */
static void test_zone_commands(const VblkVariant *variant)
{
    static const BadRequest bad[] = {
        { VIRTIO_BLK_T_ZONE_OPEN, 0, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_CLOSE, 0, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_FINISH, 0, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_RESET, 0, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_RESET_ALL, 0, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_RESET, DISK_SECTORS, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_RESET, UINT64_MAX, 0, UNSUPP },
        { VIRTIO_BLK_T_ZONE_REPORT, 0, 4096, UNSUPP },
        { VIRTIO_BLK_T_ZONE_REPORT, 0, 64 + 63, UNSUPP },
        { VIRTIO_BLK_T_ZONE_REPORT, DISK_SECTORS, 4096, UNSUPP },
    };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {};
    char data[VBLK_SECTOR] = {};
    uint32_t used;
    uint64_t at;

    run_bad(v, bad, ARRAY_SIZE(bad));
    vblk_chain_header(v, &c, VIRTIO_BLK_T_ZONE_APPEND, 0);
    vblk_chain_out(v, &c, data, sizeof(data));
    at = vblk_chain_in(v, &c, 8);
    vblk_chain_status(v, &c);
    g_assert_cmpint(vblk_chain_run(v, 0, &c, &used), ==, UNSUPP);
    g_assert_cmpint(used, ==, 1);
    g_assert_true(vblk_mem_is(v, at + 1, VBLK_FILL, 7));
    vblk_stop(v);
}

/* ---- discard and write zeroes ---- */

static void expect_range(Vblk *v, uint32_t type, Segment r, uint8_t status)
{
    uint32_t used;

    g_assert_cmpint(vblk_cmd(v, 0, type, 0, &r, sizeof(r), &used), ==, status);
    g_assert_cmpint(used, ==, 1);
}

/* Rows 21 and 22: bad flags give UNSUPP, even where the range is bad too. */
static void test_range_flags(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    expect_range(v, VIRTIO_BLK_T_DISCARD, range(0, 8, 1), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_DISCARD, range(0, 8, 2), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_DISCARD, range(0, 8, 1u << 31), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_DISCARD, range(DISK_SECTORS, 8, 1), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_DISCARD, range(UINT64_MAX, 8, 4), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_WRITE_ZEROES, range(0, 8, 2), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_WRITE_ZEROES, range(0, 8, 3), UNSUPP);
    expect_range(v, VIRTIO_BLK_T_WRITE_ZEROES, range(DISK_SECTORS, 8, 2),
                 UNSUPP);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* Issue 2: ranges past the end or longer than advertised. */
static void test_range_bounds(const VblkVariant *variant)
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
    };
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.props = "max-discard-sectors=64,max-write-zeroes-sectors=64";
    v = vblk_start(&o);
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        expect_range(v, types[i], range(DISK_SECTORS, 8, 0), IOERR);
        expect_range(v, types[i], range(DISK_SECTORS - 7, 8, 0), IOERR);
        expect_range(v, types[i], range(UINT64_MAX, 8, 0), IOERR);
        expect_range(v, types[i], range(UINT64_MAX - 7, 8, 0), IOERR);
        expect_range(v, types[i], range(1ull << 55, 8, 0), IOERR);
        expect_range(v, types[i], range(0, UINT32_MAX, 0), IOERR);
        expect_range(v, types[i], range(0, 65, 0), IOERR);
        expect_range(v, types[i], range(0, 64, 0), OK);
        expect_range(v, types[i], range(DISK_SECTORS - 8, 8, 0), OK);
    }
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* Issue 2: more segments than max_discard_seg (1 by default). */
static void test_too_many_segments(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    Segment r[2] = { range(0, 8, 0), range(16, 8, 0) };
    uint32_t used;

    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_DISCARD, 0, r, sizeof(r),
                             &used), ==, UNSUPP);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, sizeof(r),
                             &used), ==, UNSUPP);
    g_assert_cmpint(used, ==, 1);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* Issue 2: a payload that is no whole number of segments is an error ... */
static void test_range_payload(const VblkVariant *variant)
{
    static const uint32_t lens[] = { 0, 1, 15, 17, 31 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    char zero[64] = {};

    for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
        uint32_t used;

        /* ... of that request, not of the device (stock breaks). */
        g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_DISCARD, 0, zero, lens[i],
                                 &used), ==, IOERR);
        g_assert_cmpint(used, ==, 1);
        g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, zero,
                                 lens[i], &used), ==, IOERR);
        g_assert_cmpint(used, ==, 1);
    }
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* Row 21, several segments: all are checked before any is executed. */
static void test_range_all_or_none(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Segment flag[3] = { range(0, 8, 0), range(16, 8, 0), range(32, 8, 2) };
    Segment past[3] = { range(0, 8, 0), range(16, 8, 0),
                      range(DISK_SECTORS, 8, 0) };
    uint8_t data[VBLK_SECTOR], back[VBLK_SECTOR];
    Vblk *v;

    if (!vblk_needs_prop("max-write-zeroes-segments")) {
        return;
    }
    o.props = "max-write-zeroes-segments=4";
    v = vblk_start(&o);
    vblk_pattern(data, sizeof(data), 5);
    g_assert_cmpint(vblk_write(v, 0, data, sizeof(data)), ==, OK);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, flag,
                             sizeof(flag), NULL), ==, UNSUPP);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, past,
                             sizeof(past), NULL), ==, IOERR);
    g_assert_cmpint(vblk_read(v, 0, back, sizeof(back)), ==, OK);
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    vblk_stop(v);
}

/* ---- read-only disks ---- */

/* Row 20: RO offered, every write fails with IOERR, and nothing changes. */
static void check_read_only(const VblkVariant *variant, const char *props)
{
    static const BadRequest bad[] = {
        { VIRTIO_BLK_T_OUT, 0, 512, IOERR },
        { VIRTIO_BLK_T_OUT, 0, 4096, IOERR },
    };
    VblkOpts o = vblk_opts(variant);
    uint8_t data[VBLK_SECTOR];
    Vblk *v;

    o.disk_opts = ",read-only=on";
    o.props = props;
    v = vblk_start(&o);
    g_assert_true(vblk_has(v, VIRTIO_BLK_F_RO));
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        g_autofree uint8_t *buf = g_malloc(bad[i].len);
        uint32_t used;

        memset(buf, 0x5a, bad[i].len);
        g_assert_cmpint(vblk_cmd(v, 0, bad[i].type, 0, buf, bad[i].len,
                                 &used), ==, bad[i].status);
        g_assert_cmpint(used, ==, 1);
    }
    if (vblk_has(v, VIRTIO_BLK_F_DISCARD)) {
        expect_range(v, VIRTIO_BLK_T_DISCARD, range(0, 8, 0), IOERR);
        expect_range(v, VIRTIO_BLK_T_WRITE_ZEROES, range(0, 8, 0), IOERR);
    }
    g_assert_cmpint(vblk_read(v, 0, data, sizeof(data)), ==, OK);
    for (unsigned i = 0; i < sizeof(data); i++) {
        g_assert_cmphex(data[i], ==, 0);
    }
    g_assert_cmpint(vblk_flush(v), ==, OK);
    g_assert_true(vblk_no_event(v, "STOP", 10));
    vblk_stop(v);
}

/* Row 20. */
static void test_read_only(const VblkVariant *variant)
{
    check_read_only(variant, NULL);
}

/* Row 20, "whatever werror says": the machine does not stop. */
static void test_read_only_stop(const VblkVariant *variant)
{
    check_read_only(variant, "werror=stop");
}

/* Row 20: nor is the error hidden. */
static void test_read_only_ignore(const VblkVariant *variant)
{
    check_read_only(variant, "werror=ignore");
}

/* ---- SCSI commands (legacy) ---- */

static void scsi_chain(Vblk *v, VblkChain *c, uint32_t inhdr_len,
                       uint64_t *inhdr)
{
    char cdb[16] = { 0x12, 0, 0, 0, 36 };   /* INQUIRY */

    vblk_chain_header(v, c, VIRTIO_BLK_T_SCSI_CMD, 0);
    vblk_chain_out(v, c, cdb, sizeof(cdb));
    vblk_chain_in(v, c, 36);
    vblk_chain_in(v, c, 96);
    *inhdr = vblk_chain_in(v, c, inhdr_len);
    vblk_chain_status(v, c);
}

/* Issue 2, SCSI_CMD without scsi=on: UNSUPP, in-header errors = 255. */
static void test_scsi_unsupported(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {};
    uint64_t inhdr;

    scsi_chain(v, &c, 16, &inhdr);
    g_assert_cmpint(vblk_chain_run(v, 0, &c, NULL), ==, UNSUPP);
    g_assert_cmpint(qtest_readl(v->qts, inhdr), ==, 255);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* B2, CVE-2026-48914: an in-header that is too short, or not there. */
static void test_scsi_short(const VblkVariant *variant)
{
    static const uint32_t lens[] = { 1, 4, 15, 17 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain none = {};

    for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
        VblkChain c = {};
        uint64_t inhdr;

        scsi_chain(v, &c, lens[i], &inhdr);
        g_assert_cmpint(vblk_chain_run(v, 0, &c, NULL), ==, IOERR);
        g_assert_true(vblk_mem_is(v, inhdr, VBLK_FILL, lens[i]));
    }
    vblk_chain_header(v, &none, VIRTIO_BLK_T_SCSI_CMD, 0);
    vblk_chain_status(v, &none);
    g_assert_cmpint(vblk_chain_run(v, 0, &none, NULL), ==, IOERR);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* ---- broken rings ---- */

/* The device must call itself broken, and be whole after a reset. */
static void expect_ring_breaks(Vblk *v, const VblkRawDesc *d, unsigned n)
{
    vblk_submit_raw(v, 0, d, n);
    vblk_publish(v, 0);
    vblk_notify(v, 0);
    vblk_expect_broken(v, 0);
    vblk_recover(v);
}

#define NEXT    VRING_DESC_F_NEXT
#define WRITE   VRING_DESC_F_WRITE
#define TABLE   VRING_DESC_F_INDIRECT

/* Issue 2: descriptor loops, at the start and further on. */
static void test_ring_loop(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t mem = vblk_alloc(v, 4096);
    VblkRawDesc self[] = { { mem, 16, NEXT, 0 } };
    VblkRawDesc ring[] = {
        { mem, 16, NEXT, 1 }, { mem, 512, NEXT | WRITE, 2 },
        { mem, 1, NEXT | WRITE, 1 },
    };

    expect_ring_breaks(v, self, 1);
    expect_ring_breaks(v, ring, 3);
    vblk_stop(v);
}

/* Issue 2: indices out of range, in a chain and in the available ring. */
static void test_ring_index(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t mem = vblk_alloc(v, 4096);
    VblkRawDesc far[] = {
        { mem, 16, NEXT, v->q[0].size, .next_absolute = true },
    };
    VblkRawDesc farther[] = {
        { mem, 16, NEXT, 0xffff, .next_absolute = true },
    };

    expect_ring_breaks(v, far, 1);
    expect_ring_breaks(v, farther, 1);
    vblk_avail_push(v, 0, v->q[0].size);
    vblk_publish(v, 0);
    vblk_notify(v, 0);
    vblk_expect_broken(v, 0);
    vblk_recover(v);
    /*
     * More entries than the ring has.  A device that is fast enough has ended
     * the first ones before it comes to the last, and can't tell.
     */
    v->q[0].avail_idx += v->q[0].size + 1;
    vblk_publish(v, 0);
    vblk_notify(v, 0);
    g_usleep(20000);
    vblk_recover(v);
    vblk_stop(v);
}

/* Issue 2: tables within tables, and tables of impossible length. */
static void test_ring_indirect(const VblkVariant *variant)
{
    static const uint32_t lens[] = { 0, 1, 15, 17, 40 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t mem = vblk_alloc(v, 4096);
    VblkRawDesc good[] = {
        { mem, 16, NEXT, 1 }, { mem + 64, 512, NEXT | WRITE, 2 },
        { mem + 1024, 1, WRITE, 0 },
    };
    uint64_t inner = vblk_put_table(v, good, 3);
    VblkRawDesc nested[] = { { inner, 48, TABLE, 0 } };
    uint64_t outer = vblk_put_table(v, nested, 1);
    VblkRawDesc d = { outer, 16, TABLE, 0 };

    expect_ring_breaks(v, &d, 1);
    for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
        d = (VblkRawDesc) { inner, lens[i], TABLE, 0 };
        expect_ring_breaks(v, &d, 1);
    }
    d = (VblkRawDesc) { vblk_hole(v), 48, TABLE, 0 };
    expect_ring_breaks(v, &d, 1);
    vblk_stop(v);
}

/* Issue 2: a chain in an indirect table that leads out of it, or round. */
static void test_ring_indirect_next(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t mem = vblk_alloc(v, 4096);
    VblkRawDesc out[] = { { mem, 16, NEXT, 1 }, { mem, 1, NEXT | WRITE, 7 } };
    VblkRawDesc round[] = { { mem, 16, NEXT, 1 }, { mem, 16, NEXT, 0 } };
    VblkRawDesc d = { vblk_put_table(v, out, 2), 32, TABLE, 0 };

    expect_ring_breaks(v, &d, 1);
    d = (VblkRawDesc) { vblk_put_table(v, round, 2), 32, TABLE, 0 };
    expect_ring_breaks(v, &d, 1);
    vblk_stop(v);
}

/* B4, issue 2: a readable descriptor behind a writable one; an empty one. */
static void test_ring_order(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t mem = vblk_alloc(v, 4096);
    VblkRawDesc mixed[] = {
        { mem + 512, 512, NEXT | WRITE, 1 }, { mem, 16, NEXT, 2 },
        { mem + 256, 1, WRITE, 0 },
    };
    VblkRawDesc empty[] = {
        { mem, 16, NEXT, 1 }, { mem + 512, 0, NEXT | WRITE, 2 },
        { mem + 256, 1, WRITE, 0 },
    };

    expect_ring_breaks(v, mixed, 3);
    expect_ring_breaks(v, empty, 3);
    vblk_stop(v);
}

/* B4, CVE-2026-16457: a packed chain whose last descriptor says "more". */
static void test_packed_endless(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;
    VblkRawDesc d[8];
    uint64_t mem;

    o.ring_size = 8;
    v = vblk_start(&o);
    mem = vblk_alloc(v, 4096);
    for (unsigned i = 0; i < ARRAY_SIZE(d); i++) {
        d[i] = (VblkRawDesc) { mem, 16, NEXT, 0 };
    }
    vblk_submit_raw(v, 0, d, ARRAY_SIZE(d));
    vblk_publish(v, 0);
    vblk_notify(v, 0);
    /* No chain can be that long: whatever it is to the device, it lives. */
    g_usleep(50000);
    vblk_status(v);
    vblk_recover(v);
    vblk_stop(v);
}

/* ---- memory that is none ---- */

/* Row 55, B1: data in memory that nobody answers: an answer, no hang. */
static void test_hole(const VblkVariant *variant)
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_GET_ID,
    };
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        VblkChain c = {};
        uint32_t used;
        uint8_t status;

        vblk_chain_header(v, &c, types[i], 64);
        if (types[i] == VIRTIO_BLK_T_OUT) {
            c.out[c.nout++] = (VblkSeg) { vblk_hole(v), VBLK_SECTOR };
        } else {
            c.in[c.nin++] = (VblkSeg) { vblk_hole(v), VBLK_SECTOR };
        }
        vblk_chain_status(v, &c);
        status = vblk_chain_run(v, 0, &c, &used);
        g_assert_cmpint(status, ==, OK);
        g_assert_cmpint(used, ==, types[i] == VIRTIO_BLK_T_IN ?
                        VBLK_SECTOR + 1 : types[i] == VIRTIO_BLK_T_OUT ? 1 :
                        VIRTIO_BLK_ID_BYTES + 1);
    }
    vblk_recover(v);
    vblk_stop(v);
}

/* Issue 2: header, status or table in no memory: alive after a reset. */
static void test_hole_control(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    for (unsigned i = 0; i < 2; i++) {
        VblkChain c = {};

        vblk_chain_header(v, &c, VIRTIO_BLK_T_IN, 0);
        vblk_chain_in(v, &c, VBLK_SECTOR);
        vblk_chain_status(v, &c);
        if (i == 0) {
            c.out[0].addr = vblk_hole(v);
        } else {
            c.in[1].addr = vblk_hole(v);
        }
        vblk_chain_submit(v, 0, &c);
        vblk_kick(v, 0);
        g_usleep(20000);
        vblk_recover(v);
    }
    vblk_stop(v);
}

/* Issue 2: more of it than the device will map at once: no hang either. */
static void test_hole_large(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    VblkChain c = {};

    vblk_chain_header(v, &c, VIRTIO_BLK_T_IN, 0);
    c.in[c.nin++] = (VblkSeg) { vblk_hole(v), 1 << 20 };
    vblk_chain_status(v, &c);
    vblk_chain_submit(v, 0, &c);
    vblk_kick(v, 0);
    g_usleep(20000);
    vblk_status(v);
    vblk_recover(v);
    vblk_stop(v);
}

/*
 * What a bad chain has mapped already must be given back each time, to the
 * address space of the device.
 */
static void test_hole_bad_chain(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint32_t used;
    Vblk *v;

    o.props = "disable-legacy=on,iommu_platform=on";
    v = vblk_start(&o);
    for (unsigned i = 0; i < 20; i++) {
        VblkChain c = {};

        vblk_chain_header(v, &c, VIRTIO_BLK_T_OUT, 64);
        c.out[c.nout++] = (VblkSeg) { vblk_hole(v), VBLK_SECTOR };
        c.out[c.nout++] = (VblkSeg) { vblk_hole(v), 0 };
        vblk_chain_status(v, &c);
        vblk_chain_submit(v, 0, &c);
        vblk_publish(v, 0);
        vblk_notify(v, 0);
        vblk_expect_broken(v, 0);
        vblk_setup(v);
    }
    for (unsigned i = 0; i < 2; i++) {
        VblkChain c = {};

        vblk_chain_header(v, &c, VIRTIO_BLK_T_IN, 64);
        c.in[c.nin++] = (VblkSeg) { vblk_hole(v), VBLK_SECTOR };
        vblk_chain_status(v, &c);
        g_assert_cmpint(vblk_chain_run(v, 0, &c, &used), ==, OK);
    }
    vblk_stop(v);
}

/*
 * Row 55, B1, CVE-2024-8612: what a failing request leaves in a bounce buffer
 * must not reach the guest.  The MSI-X table is device memory that can be read
 * back.
 */
static void test_bounce_leak(const VblkVariant *variant)
{
    static const BadRequest bad[] = {
        { VIRTIO_BLK_T_IN, DISK_SECTORS, 512, IOERR },
        { 100, 0, 512, UNSUPP },
        { VIRTIO_BLK_T_ZONE_REPORT, 0, 512, UNSUPP },
        { VIRTIO_BLK_T_FLUSH, 0, 512, OK },
    };
    VblkOpts o = vblk_opts(variant);
    uint64_t table;
    Vblk *v;

    o.msix = true;
    v = vblk_start(&o);
    table = v->pdev->msix_table_bar.addr + v->pdev->msix_table_off;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t before = qtest_readq(v->qts, table + 4);
        uint32_t used, vector = qtest_readl(v->qts, table + 16 + 8);
        VblkChain c = {};

        vblk_chain_header(v, &c, bad[i].type, bad[i].sector);
        c.in[c.nin++] = (VblkSeg) { table, bad[i].len };
        vblk_chain_status(v, &c);
        g_assert_cmpint(vblk_chain_run(v, 0, &c, &used), ==, bad[i].status);
        g_assert_cmpint(used, ==, 1);
        g_assert_cmphex(qtest_readq(v->qts, table + 4), ==, before);
        g_assert_cmphex(qtest_readl(v->qts, table + 16 + 8), ==, vector);
    }
    vblk_stop(v);
}

void vblk_add_malformed_tests(void)
{
    vblk_add("malformed/no-header", VBLK_ON_ALL, test_no_header);
    vblk_add("malformed/short-header", VBLK_ON_ALL, test_short_header);
    vblk_add("malformed/no-status", VBLK_ON_ALL, test_no_status);
    vblk_add("malformed/empty-status", VBLK_ON_MOST, test_empty_status);
    vblk_add("layout/split-header", VBLK_ON_MOST, test_split_header);
    vblk_add("layout/header-with-data", VBLK_ON_MOST, test_header_with_data);
    vblk_add("layout/status-with-data", VBLK_ON_MOST, test_status_with_data);
    vblk_add("malformed/ranges", VBLK_ON_ALL, test_bad_ranges);
    vblk_add("malformed/misaligned", VBLK_ON_MOST, test_misaligned);
    vblk_add("malformed/unknown-type", VBLK_ON_MOST, test_unknown_type);
    vblk_add("malformed/zone-commands", VBLK_ON_MOST, test_zone_commands);
    vblk_add("malformed/range-flags", VBLK_ON_MOST, test_range_flags);
    vblk_add("malformed/range-bounds", VBLK_ON_MOST, test_range_bounds);
    vblk_add("malformed/too-many-segments", VBLK_ON_MOST,
             test_too_many_segments);
    vblk_add("malformed/range-payload", VBLK_ON_MOST, test_range_payload);
    vblk_add("malformed/range-all-or-none", VBLK_ON_MOST,
             test_range_all_or_none);
    vblk_add("read-only/report", VBLK_ON_MOST, test_read_only);
    vblk_add("read-only/werror-stop", VBLK_ON_MOST, test_read_only_stop);
    vblk_add("read-only/werror-ignore", VBLK_ON_MOST, test_read_only_ignore);
    vblk_add("scsi/unsupported", VBLK_ON_LEGACY | VBLK_ON_LEGACY_IOT |
             VBLK_ON_MMIO_LEGACY, test_scsi_unsupported);
    vblk_add("scsi/short-header", VBLK_ON_LEGACY | VBLK_ON_LEGACY_IOT |
             VBLK_ON_MMIO_LEGACY, test_scsi_short);
    vblk_add("bad-ring/loop", VBLK_ON_SPLIT | VBLK_ON_LEGACY, test_ring_loop);
    vblk_add("bad-ring/index", VBLK_ON_SPLIT | VBLK_ON_LEGACY,
             test_ring_index);
    vblk_add("bad-ring/indirect", VBLK_ON_MOST, test_ring_indirect);
    vblk_add("bad-ring/indirect-next", VBLK_ON_SPLIT | VBLK_ON_LEGACY,
             test_ring_indirect_next);
    vblk_add("bad-ring/order", VBLK_ON_MOST, test_ring_order);
    vblk_add("bad-ring/packed-endless", VBLK_ON_PACKED, test_packed_endless);
    vblk_add("no-memory/data", VBLK_ON_MOST, test_hole);
    vblk_add("no-memory/control", VBLK_ON_MOST, test_hole_control);
    vblk_add("no-memory/large", VBLK_ON_MOST, test_hole_large);
    vblk_add("no-memory/bad-chain", VBLK_ON_SPLIT | VBLK_ON_PACKED |
             VBLK_ON_IOTHREAD, test_hole_bad_chain);
    vblk_add("no-memory/bounce-leak", VBLK_ON_SPLIT | VBLK_ON_PACKED,
             test_bounce_leak);
}
