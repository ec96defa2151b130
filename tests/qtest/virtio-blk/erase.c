/*
 * virtio-blk qtests: SECURE_ERASE
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "fake.h"

#define SIZE                (4 * MiB)
#define SECTORS             (SIZE / 512)
#define DATA                0x11    /* what the disk holds beforehand */
#define ERASED              0x5e    /* what tests/fakehost leaves behind */

typedef struct virtio_blk_discard_write_zeroes EraseRange;

static Vblk *start_with(VblkFake *f, VblkOpts o, const char *props)
{
    if (!vblk_needs_prop("secure-erase") || !vblk_fake_begin(f, SIZE)) {
        return NULL;
    }
    o.props = props;
    vblk_fake_fill(f, 0, SIZE, DATA);
    vblk_fake_use(f, &o, NULL);
    return vblk_start(&o);
}

static void stop(VblkFake *f, Vblk *v)
{
    vblk_stop(v);
    vblk_fake_end(f);
}

/* Send @num ranges, given in host order, but only @len bytes of them. */
static uint8_t erase_bytes(Vblk *v, const EraseRange *range, unsigned num,
                           uint32_t len)
{
    g_autofree EraseRange *wire = g_new(EraseRange, num);
    VblkChain c = {};
    uint32_t used;
    uint8_t status;

    for (unsigned i = 0; i < num; i++) {
        wire[i] = (EraseRange) {
            .sector = cpu_to_le64(range[i].sector),
            .num_sectors = cpu_to_le32(range[i].num_sectors),
            .flags = cpu_to_le32(range[i].flags),
        };
    }
    vblk_chain_header(v, &c, VIRTIO_BLK_T_SECURE_ERASE, 0);
    if (len) {
        vblk_chain_out(v, &c, wire, len);
    }
    vblk_chain_status(v, &c);
    status = vblk_chain_run(v, 0, &c, &used);
    g_assert_cmpint(used, ==, 1);
    return status;
}

static uint8_t erase(Vblk *v, const EraseRange *range, unsigned num)
{
    return erase_bytes(v, range, num, num * sizeof(*range));
}

/* Issue 2: the feature bit and its fields of the configuration space. */
static void test_config(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant),
                         "secure-erase=on,max-secure-erase-sectors=100,"
                         "max-secure-erase-segments=5,logical_block_size=4096,"
                         "physical_block_size=4096");

    if (!v) {
        return;
    }
    g_assert_true(vblk_has(v, VIRTIO_BLK_F_SECURE_ERASE));
    g_assert_cmpint(vblk_cfg(v, max_secure_erase_sectors), ==, 100);
    g_assert_cmpint(vblk_cfg(v, max_secure_erase_seg), ==, 5);
    g_assert_cmpint(vblk_cfg(v, secure_erase_sector_alignment), ==, 8);
    stop(&f, v);
}

/* Issue 2: the medium erases that range, and no other. */
static void test_good(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 8, .num_sectors = 16 };
    const EraseRange last = { .sector = SECTORS - 1, .num_sectors = 1 };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant), "secure-erase=on");

    if (!v) {
        return;
    }
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_fake_is(&f, 0, 8 * 512, DATA));
    g_assert_true(vblk_fake_is(&f, 8 * 512, 16 * 512, ERASED));
    g_assert_true(vblk_fake_is(&f, 24 * 512, SIZE - 24 * 512, DATA));
    g_assert_cmpint(erase(v, &last, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_fake_is(&f, SIZE - 512, 512, ERASED));
    stop(&f, v);
}

/* Issue 2: the same from an iothread. */
static void test_iothread(const VblkVariant *variant)
{
    const EraseRange range[] = {
        { .sector = 8, .num_sectors = 16 }, { .sector = 64, .num_sectors = 8 },
    };
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    o.args = "-object iothread,id=io0";
    v = start_with(&f, o, "secure-erase=on,max-secure-erase-segments=2,"
                   "iothread=io0");
    if (!v) {
        return;
    }
    g_assert_cmpint(erase(v, range, 2), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_fake_is(&f, 8 * 512, 16 * 512, ERASED));
    g_assert_true(vblk_fake_is(&f, 24 * 512, 40 * 512, DATA));
    g_assert_true(vblk_fake_is(&f, 64 * 512, 8 * 512, ERASED));
    stop(&f, v);
}

/* Issue 2: as many ranges as are offered; one more is too many. */
static void test_segments(const VblkVariant *variant)
{
    static const EraseRange ranges[] = {
        { .sector = 100, .num_sectors = 1 },
        { .sector = 4000, .num_sectors = 64 },
        { .sector = 8, .num_sectors = 8 },
        { .sector = 0, .num_sectors = 1 },
    };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant),
                         "secure-erase=on,max-secure-erase-segments=3");

    if (!v) {
        return;
    }
    g_assert_cmpint(erase(v, ranges, 4), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_true(vblk_fake_is(&f, 0, SIZE, DATA));
    g_assert_cmpint(erase(v, ranges, 3), ==, VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_true(vblk_fake_is(&f, ranges[i].sector * 512,
                                   ranges[i].num_sectors * 512, ERASED));
    }
    g_assert_true(vblk_fake_is(&f, 0, 8 * 512, DATA));
    g_assert_true(vblk_fake_is(&f, 101 * 512, 3899 * 512, DATA));
    stop(&f, v);
}

/* Issue 2: a range that can't be: none of the request's ranges is erased. */
static void test_bad_range(const VblkVariant *variant)
{
    static const EraseRange bad[] = {
        { .sector = SECTORS, .num_sectors = 8 },
        { .sector = SECTORS - 8, .num_sectors = 16 },
        { .sector = UINT64_MAX - 7, .num_sectors = 16 },
        { .sector = 0, .num_sectors = 1032 },
        { .sector = 4, .num_sectors = 8 },
        { .sector = 8, .num_sectors = 4 },
    };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant),
                         "secure-erase=on,max-secure-erase-sectors=1024,"
                         "max-secure-erase-segments=2,logical_block_size=4096,"
                         "physical_block_size=4096");

    if (!v) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        EraseRange two[2] = { { .sector = 0, .num_sectors = 8 }, bad[i] };

        g_assert_cmpint(erase(v, two, 2), ==, VIRTIO_BLK_S_IOERR);
    }
    g_assert_true(vblk_fake_is(&f, 0, SIZE, DATA));
    stop(&f, v);
}

/* Row 21: unknown flags are found before anything else; and odd lengths. */
static void test_flags(const VblkVariant *variant)
{
    const EraseRange flag[] = { { .sector = SECTORS * 2, .num_sectors = 1 },
                           { .flags = 2, .num_sectors = 1 } };
    const EraseRange unmap = { .flags = 1, .num_sectors = 1 };
    const EraseRange good = { .num_sectors = 1 };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant),
                         "secure-erase=on,max-secure-erase-segments=2");

    if (!v) {
        return;
    }
    g_assert_cmpint(erase(v, flag, 2), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(erase(v, &unmap, 1), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(erase_bytes(v, &good, 1, 0), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(erase_bytes(v, &good, 1, 15), ==, VIRTIO_BLK_S_IOERR);
    g_assert_true(vblk_fake_is(&f, 0, SIZE, DATA));
    stop(&f, v);
}

/* Issue 2: the medium fails one of the ranges; then the request has failed. */
static void test_medium_error(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 8, .num_sectors = 16 };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant), "secure-erase=on");

    if (!v) {
        return;
    }
    vblk_fake_fault(&f, "secure_discard", EIO);
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_IOERR);
    g_assert_true(vblk_fake_is(&f, 0, SIZE, DATA));
    vblk_fake_fault(&f, "secure_discard", 0);
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_fake_is(&f, 8 * 512, 16 * 512, ERASED));
    stop(&f, v);
}

/* Issue 2: werror=stop holds a failed erase back, and "cont" sends it again. */
static void test_stop(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 8, .num_sectors = 16 };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant),
                         "secure-erase=on,werror=stop");
    EraseRange wire = { cpu_to_le64(range.sector), cpu_to_le32(16), 0 };
    VblkIo *io;

    if (!v) {
        return;
    }
    vblk_fake_fault(&f, "secure_discard", EIO);
    io = vblk_io(v, 0, VIRTIO_BLK_T_SECURE_ERASE, 0, &wire, sizeof(wire));
    vblk_kick(v, 0);
    vblk_expect_event(v, "STOP");
    g_assert_false(vblk_io_done(v, io));
    vblk_fake_fault(&f, "secure_discard", 0);
    vblk_qmp_ok(v, "{'execute': 'cont'}");
    g_assert_cmpint(vblk_io_wait(v, io, NULL), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_fake_is(&f, 8 * 512, 16 * 512, ERASED));
    stop(&f, v);
}

/*
 * A block job's filter lets no erase through.  That is no fault of the medium,
 * and a VM that stops for it would stop at each "cont" until the job ends.
 */
static void test_filter(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 8, .num_sectors = 16 };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant),
                         "secure-erase=on,werror=stop");

    if (!v) {
        return;
    }
    vblk_qmp_ok(v, "{'execute': 'blockdev-add', 'arguments': {'driver': "
                "'null-co', 'node-name': 'to', 'size': %d}}", (int)SIZE);
    vblk_qmp_ok(v, "{'execute': 'blockdev-mirror', 'arguments': {'job-id': "
                "'job', 'device': %s, 'target': 'to', 'sync': 'full', "
                "'speed': 1}}", VBLK_NODE);
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_true(vblk_fake_is(&f, 0, SIZE, DATA));
    vblk_qmp_ok(v, "{'execute': 'block-job-cancel', 'arguments': {'device': "
                "'job', 'force': true}}");
    vblk_expect_event(v, "BLOCK_JOB_CANCELLED");
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_fake_is(&f, 8 * 512, 16 * 512, ERASED));
    stop(&f, v);
}

/* Row 20: of a read-only disk nothing is erased. */
static void test_read_only(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 8, .num_sectors = 16 };
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!vblk_needs_prop("secure-erase") || !vblk_fake_begin(&f, SIZE)) {
        return;
    }
    o.props = "secure-erase=on";
    vblk_fake_use(&f, &o, ",read-only=on");
    v = vblk_start(&o);
    g_assert_true(vblk_has(v, VIRTIO_BLK_F_RO));
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_IOERR);
    g_assert_true(vblk_fake_is(&f, 0, SIZE, 0));
    stop(&f, v);
}

static void assert_dropped(VblkFake *f, const char *lines)
{
    g_autofree char *text = vblk_fake_get(f, "dropped");

    g_assert_cmpstr(text, ==, lines);
}

/*
 * Linux drops the cached pages of an empty range at sector 0, which it takes
 * for the whole disk: neither we, when we find out what the medium can, nor
 * the guest may get it to do so.
 */
static void test_nothing(const VblkVariant *variant)
{
    static const EraseRange ranges[] = {
        { .sector = 0, .num_sectors = 0 }, { .sector = 8, .num_sectors = 16 },
        { .sector = 64, .num_sectors = 0 },
    };
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!vblk_needs_prop("secure-erase") || !vblk_fake_begin(&f, SIZE)) {
        return;
    }
    o.props = "secure-erase=on,max-secure-erase-segments=3";
    vblk_fake_use(&f, &o, NULL);
    vblk_fake_set(&f, "dropped", "");
    v = vblk_start(&o);
    g_assert_cmpint(erase(v, ranges, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(erase(v, &ranges[2], 1), ==, VIRTIO_BLK_S_OK);
    assert_dropped(&f, "");
    g_assert_cmpint(erase(v, ranges, 3), ==, VIRTIO_BLK_S_OK);
    assert_dropped(&f, "4096 8192\n");
    g_assert_true(vblk_fake_is(&f, 8 * 512, 16 * 512, ERASED));
    stop(&f, v);
}

/* What the only dirty bitmap of the only node counts. */
static int64_t dirty_bytes(Vblk *v)
{
    QDict *resp = vblk_qmp(v, "{'execute': 'query-named-block-nodes'}");
    const QListEntry *e = qlist_first(qdict_get_qlist(resp, "return"));
    QDict *node = qobject_to(QDict, qlist_entry_obj(e));
    QList *maps = qdict_get_qlist(node, "dirty-bitmaps");
    QDict *map = qobject_to(QDict, qlist_entry_obj(qlist_first(maps)));
    int64_t bytes = qdict_get_int(map, "count");

    qobject_unref(resp);
    return bytes;
}

/* Issue 2: a mirror must learn of the change that it did not see as a write. */
static void test_bitmap(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 2048, .num_sectors = 128 };
    const EraseRange failing = { .sector = 4096, .num_sectors = 8 };
    VblkFake f;
    Vblk *v = start_with(&f, vblk_opts(variant), "secure-erase=on");

    if (!v) {
        return;
    }
    vblk_qmp_ok(v, "{'execute': 'block-dirty-bitmap-add', 'arguments': "
                "{'node': %s, 'name': 'b0', 'granularity': 65536}}",
                VBLK_NODE);
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(dirty_bytes(v), ==, 65536);
    /* One that failed may have erased a part. */
    vblk_fake_fault(&f, "secure_discard", EIO);
    g_assert_cmpint(erase(v, &failing, 1), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(dirty_bytes(v), ==, 2 * 65536);
    stop(&f, v);
}

/* Issue 2: off by default; then the type is unknown. */
static void test_off(const VblkVariant *variant)
{
    const EraseRange range = { .sector = 8, .num_sectors = 16 };
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!vblk_fake_begin(&f, SIZE)) {
        return;
    }
    vblk_fake_use(&f, &o, NULL);
    v = vblk_start(&o);
    g_assert_false(v->host_features & VBLK_BIT(VIRTIO_BLK_F_SECURE_ERASE));
    g_assert_cmpint(erase(v, &range, 1), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_true(vblk_fake_is(&f, 0, SIZE, 0));
    stop(&f, v);
}

/* Issue 2: a medium that can't, a file, numbers out of range. */
static void test_refused(void)
{
    VblkOpts o = { .props = "secure-erase=on" };
    VblkFake f;

    if (!vblk_needs_prop("secure-erase") || !vblk_fake_begin(&f, SIZE)) {
        return;
    }
    vblk_fails(&o, "secure-erase=off", NULL);
    vblk_fake_use(&f, &o, NULL);
    vblk_fake_fault(&f, "secure_discard", EOPNOTSUPP);
    vblk_fails(&o, "secure-erase=off", "not supported", NULL);
    vblk_fake_fault(&f, "secure_discard", 0);
    o.props = "secure-erase=on,max-secure-erase-segments=257";
    vblk_fails(&o, "max-secure-erase-segments", "256", NULL);
    o.props = "secure-erase=on,max-secure-erase-sectors=0";
    vblk_fails(&o, "max-secure-erase-sectors", "1", NULL);
    vblk_fake_end(&f);
}

void vblk_add_erase_tests(void)
{
    vblk_add("erase/config", VBLK_ON_SPLIT | VBLK_ON_LEGACY, test_config);
    vblk_add("erase/good", VBLK_ON_MOST, test_good);
    vblk_add("erase/iothread", VBLK_ON_SPLIT, test_iothread);
    vblk_add("erase/segments", VBLK_ON_SPLIT | VBLK_ON_PACKED, test_segments);
    vblk_add("erase/bad-range", VBLK_ON_SPLIT, test_bad_range);
    vblk_add("erase/flags", VBLK_ON_SPLIT, test_flags);
    vblk_add("erase/medium-error", VBLK_ON_SPLIT, test_medium_error);
    vblk_add("erase/stop", VBLK_ON_SPLIT, test_stop);
    vblk_add("erase/nothing", VBLK_ON_SPLIT, test_nothing);
    vblk_add("erase/filter", VBLK_ON_SPLIT, test_filter);
    vblk_add("erase/read-only", VBLK_ON_SPLIT, test_read_only);
    vblk_add("erase/bitmap", VBLK_ON_SPLIT, test_bitmap);
    vblk_add("erase/off", VBLK_ON_SPLIT, test_off);
    vblk_add_one("erase/refused", test_refused);
}
