/*
 * virtio-blk qtests: zoned devices
 *
 * The rows in comments are those of the table of what VIRTIO 1.4 asks of a
 * block device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "zoned.h"

#define OK              VIRTIO_BLK_S_OK
#define INVALID         VIRTIO_BLK_S_ZONE_INVALID_CMD
#define UNALIGNED       VIRTIO_BLK_S_ZONE_UNALIGNED_WP

/* The disk of most tests: 11 zones, the last one half as long as the others. */
#define ZONE            128             /* sectors */
#define CONV            0               /* a conventional zone */
#define SMALL           7               /* a zone with less capacity */
#define SMALL_CAP       96
#define READ_ONLY       8
#define OFFLINE         9
#define LAST            10
#define LAST_SECTORS    64
#define SECTORS         (LAST * ZONE + LAST_SECTORS)
#define MAX_APPEND      64              /* sectors */

#define START(zone)     ((zone) * (uint64_t)ZONE)

/* Those that can have zones: modern ones, with and without an iothread. */
#define ZONED_ON        VBLK_ON_MODERN

typedef struct virtio_blk_zone_descriptor Desc;

static const char layout[] = "0 0 conv 0\n7 7 seq 96\n8 8 ro 0\n"
                             "9 9 offline 0\n";

/* Describe the device; a test may change it before start(). */
static bool begin_sized(VblkFake *f, const char *model, uint64_t sectors)
{
    if (!vblk_needs_version(8, 1, "zones") ||
        !vblk_fake_begin(f, sectors * 512)) {
        return false;
    }
    vblk_fake_set(f, "queue/zoned", model);
    vblk_fake_set(f, "zones", layout);
    vblk_fake_set_num(f, "queue/chunk_sectors", ZONE);
    vblk_fake_set_num(f, "queue/nr_zones", LAST + 1);
    vblk_fake_set_num(f, "queue/max_open_zones", 0);
    vblk_fake_set_num(f, "queue/max_active_zones", 0);
    vblk_fake_set_num(f, "queue/zone_append_max_bytes", MAX_APPEND * 512);
    vblk_fake_set_num(f, "queue/physical_block_size", 512);
    return true;
}

static bool begin(VblkFake *f, const char *model)
{
    return begin_sized(f, model, SECTORS);
}

static Vblk *start_opts(VblkFake *f, VblkOpts o)
{
    vblk_fake_use(f, &o, NULL);
    return vblk_start(&o);
}

/* A host-managed disk with a driver that can do zones, or NULL. */
static Vblk *start(VblkFake *f, const VblkVariant *variant)
{
    return begin(f, "host-managed") ? start_opts(f, vblk_opts(variant)) : NULL;
}

static void stop(VblkFake *f, Vblk *v)
{
    vblk_stop(v);
    vblk_fake_end(f);
}

/* ---- requests ---- */

/* One of the commands without data, for the zone at @sector. */
uint8_t zone_at(Vblk *v, uint32_t type, uint64_t sector)
{
    uint32_t used;
    uint8_t status = vblk_cmd(v, 0, type, sector, NULL, 0, &used);

    g_assert_cmpint(used, ==, 1);
    return status;
}

static uint8_t zone_open(Vblk *v, unsigned zone)
{
    return zone_at(v, VIRTIO_BLK_T_ZONE_OPEN, START(zone));
}

static uint8_t zone_close(Vblk *v, unsigned zone)
{
    return zone_at(v, VIRTIO_BLK_T_ZONE_CLOSE, START(zone));
}

static uint8_t zone_finish(Vblk *v, unsigned zone)
{
    return zone_at(v, VIRTIO_BLK_T_ZONE_FINISH, START(zone));
}

static uint8_t zone_reset(Vblk *v, unsigned zone)
{
    return zone_at(v, VIRTIO_BLK_T_ZONE_RESET, START(zone));
}

uint8_t write_at(Vblk *v, uint64_t sector, unsigned sectors)
{
    g_autofree uint8_t *data = g_malloc(sectors * 512);

    vblk_pattern(data, sectors * 512, sector);
    return vblk_write(v, sector, data, sectors * 512);
}

static uint8_t read_at(Vblk *v, uint64_t sector, unsigned sectors)
{
    g_autofree uint8_t *data = g_malloc(sectors * 512);

    return vblk_read(v, sector, data, sectors * 512);
}

/* Submit an append of @len bytes; @result: where the answer will be. */
static VblkReq *append_submit(Vblk *v, VblkChain *c, uint64_t sector,
                              uint32_t len, uint64_t *result)
{
    g_autofree uint8_t *data = g_malloc(len);

    vblk_pattern(data, len, 99);
    vblk_chain_header(v, c, VIRTIO_BLK_T_ZONE_APPEND, sector);
    if (len) {
        vblk_chain_out(v, c, data, len);
    }
    *result = vblk_chain_in(v, c, sizeof(uint64_t));
    vblk_chain_status(v, c);
    return vblk_chain_submit(v, 0, c);
}

/* Append @sectors; stores where they were put, or ~0 when they were not. */
uint8_t append(Vblk *v, uint64_t sector, unsigned sectors,
               uint64_t *where)
{
    VblkChain c = {};
    uint64_t result;
    VblkReq *req = append_submit(v, &c, sector, sectors * 512, &result);
    uint8_t status;

    vblk_kick(v, 0);
    vblk_wait(v, req, NULL);
    status = qtest_readb(v->qts, c.status);
    *where = status == OK ? qtest_readq(v->qts, result) : ~0ull;
    return status;
}

/* Report from @sector into @len bytes; the zones told of are in @desc. */
uint8_t report(Vblk *v, uint64_t sector, uint32_t len, Desc *desc,
               uint64_t *num)
{
    VblkChain c = {};
    uint64_t at;
    uint8_t status;

    vblk_chain_header(v, &c, VIRTIO_BLK_T_ZONE_REPORT, sector);
    at = vblk_chain_in(v, &c, len);
    vblk_chain_status(v, &c);
    status = vblk_chain_run(v, 0, &c, NULL);
    if (status != OK) {
        return status;
    }
    *num = qtest_readq(v->qts, at);
    g_assert_true(vblk_mem_is(v, at + 8, 0, 56));
    qtest_memread(v->qts, at + 64, desc, *num * sizeof(*desc));
    return status;
}

static Desc zone_desc(Vblk *v, unsigned zone)
{
    Desc desc;
    uint64_t num;

    g_assert_cmpint(report(v, START(zone), 64 + sizeof(desc), &desc, &num),
                    ==, OK);
    g_assert_cmpint(num, ==, 1);
    g_assert_cmpint(le64_to_cpu(desc.z_start), ==, START(zone));
    return desc;
}

/* State of a zone, and where its write pointer is within it. */
static void check_zone(Vblk *v, unsigned zone, uint8_t state, unsigned wp)
{
    Desc desc = zone_desc(v, zone);

    g_assert_cmpint(desc.z_state, ==, state);
    g_assert_cmpint(le64_to_cpu(desc.z_wp), ==, START(zone) + wp);
}

/* ---- what the device shows ---- */

static void check_config(Vblk *v, uint8_t model)
{
    const unsigned unused = offsetof(struct virtio_blk_config, zoned.unused2);

    g_assert_true(vblk_has(v, VIRTIO_BLK_F_ZONED));
    g_assert_cmpint(vblk_cfg(v, zoned.model), ==, model);
    g_assert_cmpint(vblk_cfg(v, zoned.zone_sectors), ==, ZONE);
    g_assert_cmpint(vblk_cfg(v, zoned.max_open_zones), ==, 5);
    g_assert_cmpint(vblk_cfg(v, zoned.max_active_zones), ==, 6);
    g_assert_cmpint(vblk_cfg(v, zoned.max_append_sectors), ==, MAX_APPEND);
    g_assert_cmpint(vblk_cfg(v, zoned.write_granularity), ==, 4096);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(vblk_cfg8(v, unused + i), ==, 0);
    }
}

/* The fields are there, but the driver finds zeroes. */
static void check_no_zones(Vblk *v)
{
    const unsigned start = offsetof(struct virtio_blk_config, zoned);

    for (unsigned i = start; i < sizeof(struct virtio_blk_config); i++) {
        g_assert_cmpint(vblk_cfg8(v, i), ==, 0);
    }
}

/* Rows 9 to 15. */
static void test_config(const VblkVariant *variant)
{
    static const char *const model[] = { "host-managed", "host-aware" };

    for (unsigned i = 0; i < ARRAY_SIZE(model); i++) {
        VblkFake f;
        Vblk *v;

        if (!begin(&f, model[i])) {
            return;
        }
        vblk_fake_set_num(&f, "queue/max_open_zones", 5);
        vblk_fake_set_num(&f, "queue/max_active_zones", 6);
        vblk_fake_set_num(&f, "queue/physical_block_size", 4096);
        v = start_opts(&f, vblk_opts(variant));
        check_config(v, i ? VIRTIO_BLK_Z_HA : VIRTIO_BLK_Z_HM);
        /* Row 9: a host-managed medium knows no discard of its own. */
        g_assert_cmpint(vblk_has(v, VIRTIO_BLK_F_DISCARD), ==, i);
        stop(&f, v);
    }
}

/* A host-aware disk with a driver that refuses ZONED, or NULL. */
static Vblk *start_refused(VblkFake *f, const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);

    if (!begin(f, "host-aware")) {
        return NULL;
    }
    o.refuse = VBLK_BIT(VIRTIO_BLK_F_ZONED);
    return start_opts(f, o);
}

/* Row 7: host-aware, and a driver without zones: an ordinary disk. */
static void test_refuse_aware(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start_refused(&f, variant);

    if (!v) {
        return;
    }
    check_no_zones(v);
    g_assert_cmpint(write_at(v, START(1) + 9, 2 * ZONE), ==, OK);
    stop(&f, v);
}

/* Row 32: the medium could, but the driver has not said that it can. */
static void test_refused_commands(const VblkVariant *variant)
{
    uint64_t where, num;
    Desc desc;
    VblkFake f;
    Vblk *v = start_refused(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(report(v, 0, 4096, &desc, &num), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(zone_open(v, 2), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(zone_close(v, 2), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(zone_finish(v, 2), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(zone_reset(v, 2), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_RESET_ALL, 0), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(append(v, START(2), 1, &where), ==, VIRTIO_BLK_S_UNSUPP);
    stop(&f, v);
}

/* Row 8: host-managed, and a driver without zones: it can't go on. */
static void test_refuse_managed(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint64_t features;
    VblkFake f;
    Vblk *v;

    if (!begin(&f, "host-managed")) {
        return;
    }
    vblk_fake_use(&f, &o, NULL);
    v = vblk_launch(&o);
    vblk_attach(v);
    vblk_reset(v);
    vblk_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    vblk_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    features = vblk_offered(v) & VBLK_BIT(VIRTIO_F_VERSION_1);
    g_assert_false(vblk_accept(v, features));
    /* And one that comes later, and can, does. */
    vblk_reset(v);
    vblk_setup(v);
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    stop(&f, v);
}

/*
 * Row 6: no zones for a legacy driver.  Where the device has a modern side as
 * well, its one set of bits is seen by the driver, which takes them all.
 */
static void test_legacy(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if ((o.transport == VBLK_MMIO_LEGACY && !vblk_needs_machine("microvm")) ||
        !begin(&f, "host-aware")) {
        return;
    }
    v = start_opts(&f, o);
    if (o.transport != VBLK_PCI_LEGACY) {
        g_assert_false(v->host_features & VBLK_BIT(VIRTIO_BLK_F_ZONED));
    }
    check_no_zones(v);
    g_assert_cmpint(zone_open(v, 2), ==, VIRTIO_BLK_S_UNSUPP);
    vblk_check_io(v, 0);
    stop(&f, v);
}

/* Rows 6 and 8: a device without VERSION_1 can't be host-managed. */
static void test_legacy_managed(void)
{
    VblkOpts o = { .transport = VBLK_PCI_LEGACY_ONLY };
    VblkFake f;

    if (!begin(&f, "host-managed")) {
        return;
    }
    vblk_fake_use(&f, &o, NULL);
    vblk_fails(&o, "host-managed", "disable-modern=off", NULL);
    if (vblk_needs_machine("microvm")) {
        o.transport = VBLK_MMIO_LEGACY;
        vblk_fails(&o, "host-managed", "virtio-mmio.force-legacy=off", NULL);
    }
    vblk_fake_end(&f);
}

/* A raw node knows no zones; the disk must not pass for an ordinary one. */
static void test_raw(void)
{
    VblkOpts o = {};
    g_autofree char *blockdev = NULL;
    VblkFake f;

    if (!begin(&f, "host-managed")) {
        return;
    }
    vblk_fake_use(&f, &o, NULL);
    blockdev = g_strdup_printf("-blockdev driver=host_device,node-name=host0,"
                               "filename=%s,cache.direct=on "
                               "-blockdev driver=raw,node-name=" VBLK_NODE
                               ",file=host0,cache.direct=on", f.image);
    o.blockdev = blockdev;
    vblk_fails(&o, "hides the zones", "drive=host0", NULL);
    vblk_fake_end(&f);
}

/* Rows 52 to 54 by never offering both: zones are erased by a reset. */
static void test_secure_erase(void)
{
    VblkOpts o = { .props = "secure-erase=on" };
    VblkFake f;

    if (!vblk_needs_prop("secure-erase") || !begin(&f, "host-managed")) {
        return;
    }
    vblk_fake_use(&f, &o, NULL);
    vblk_fails(&o, "zoned", "secure-erase=off", NULL);
    vblk_fake_end(&f);
}

/* ---- reports ---- */

static void check_all(const Desc *d)
{
    static const struct {
        uint8_t zone, type, state, cap, wp;
    } want[] = {
        { CONV, VIRTIO_BLK_ZT_CONV, VIRTIO_BLK_ZS_NOT_WP, ZONE, 0 },
        { 1, VIRTIO_BLK_ZT_SWR, VIRTIO_BLK_ZS_IOPEN, ZONE, 8 },
        { 2, VIRTIO_BLK_ZT_SWR, VIRTIO_BLK_ZS_EMPTY, ZONE, 0 },
        { SMALL, VIRTIO_BLK_ZT_SWR, VIRTIO_BLK_ZS_EMPTY, SMALL_CAP, 0 },
        { READ_ONLY, VIRTIO_BLK_ZT_SWR, VIRTIO_BLK_ZS_RDONLY, ZONE, 0 },
        { OFFLINE, VIRTIO_BLK_ZT_SWR, VIRTIO_BLK_ZS_OFFLINE, ZONE, 0 },
        { LAST, VIRTIO_BLK_ZT_SWR, VIRTIO_BLK_ZS_EMPTY, LAST_SECTORS, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        const Desc *zone = &d[want[i].zone];

        g_assert_cmpint(le64_to_cpu(zone->z_start), ==, START(want[i].zone));
        g_assert_cmpint(zone->z_type, ==, want[i].type);
        g_assert_cmpint(zone->z_state, ==, want[i].state);
        g_assert_cmpint(le64_to_cpu(zone->z_cap), ==, want[i].cap);
        /* VIRTIO 1.4: no meaning where the zone has no pointer. */
        if (zone->z_state <= VIRTIO_BLK_ZS_CLOSED && want[i].zone != CONV) {
            g_assert_cmpint(le64_to_cpu(zone->z_wp), ==,
                            START(want[i].zone) + want[i].wp);
        }
        for (unsigned b = 0; b < sizeof(zone->reserved); b++) {
            g_assert_cmpint(zone->reserved[b], ==, 0);
        }
    }
}

/* Row 10: what a report says. */
static void test_report(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    Desc d[LAST + 1];
    uint64_t num;

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    /* All there is; the buffer may hold more. */
    g_assert_cmpint(report(v, 0, 64 + 64 * 64, d, &num), ==, OK);
    g_assert_cmpint(num, ==, LAST + 1);
    check_all(d);
    /* One; some, from the middle of a zone; a buffer that ends within one. */
    g_assert_cmpint(report(v, START(3), 64 + 64, d, &num), ==, OK);
    g_assert_cmpint(num, ==, 1);
    g_assert_cmpint(le64_to_cpu(d[0].z_start), ==, START(3));
    g_assert_cmpint(report(v, START(3) + 5, 64 + 3 * 64 + 63, d, &num), ==,
                    OK);
    g_assert_cmpint(num, ==, 3);
    g_assert_cmpint(le64_to_cpu(d[0].z_start), ==, START(3));
    g_assert_cmpint(le64_to_cpu(d[2].z_start), ==, START(5));
    /* The last sector. */
    g_assert_cmpint(report(v, SECTORS - 1, 4096, d, &num), ==, OK);
    g_assert_cmpint(num, ==, 1);
    g_assert_cmpint(le64_to_cpu(d[0].z_start), ==, START(LAST));
    stop(&f, v);
}

/* Reports that can't be: past the end, or without room for one zone. */
static void test_report_bad(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    Desc d;
    uint64_t num;

    if (!v) {
        return;
    }
    g_assert_cmpint(report(v, SECTORS, 4096, &d, &num), ==, INVALID);
    g_assert_cmpint(report(v, UINT64_MAX, 4096, &d, &num), ==, INVALID);
    g_assert_cmpint(report(v, 1ull << 55, 4096, &d, &num), ==, INVALID);
    g_assert_cmpint(report(v, 0, 64 + 63, &d, &num), ==, INVALID);
    g_assert_cmpint(report(v, 0, 1, &d, &num), ==, INVALID);
    stop(&f, v);
}

#define MANY            2500
#define MANY_ZONE       8               /* sectors */

/* More zones than are asked of the host at a time. */
static void test_report_many(const VblkVariant *variant)
{
    g_autofree Desc *d = g_new(Desc, MANY);
    VblkFake f;
    uint64_t num;
    Vblk *v;

    if (!begin(&f, "host-managed")) {
        return;
    }
    g_assert_cmpint(truncate(f.image, MANY * MANY_ZONE * 512), ==, 0);
    vblk_fake_set_num(&f, "queue/chunk_sectors", MANY_ZONE);
    vblk_fake_set_num(&f, "queue/nr_zones", MANY);
    vblk_fake_set(&f, "zones", NULL);
    v = start_opts(&f, vblk_opts(variant));
    for (unsigned room = 2048; room <= 4096; room += 1024) {
        unsigned want = MIN(room, MANY);

        g_assert_cmpint(report(v, 0, 64 + room * 64, d, &num), ==, OK);
        g_assert_cmpint(num, ==, want);
        for (unsigned i = 0; i < want; i++) {
            g_assert_cmpint(le64_to_cpu(d[i].z_start), ==, i * MANY_ZONE);
        }
    }
    stop(&f, v);
}

/* The most memory that the emulator has had, in KiB. */
static long peak_memory(Vblk *v)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(v->qts));
    g_autofree char *text = NULL;
    const char *line;
    long kib;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "VmHWM:");
    g_assert_nonnull(line);
    g_assert_cmpint(sscanf(line, "VmHWM: %ld", &kib), ==, 1);
    return kib;
}

/* B3, CVE-2026-5761: a huge buffer costs no memory of the host. */
static void test_report_huge(const VblkVariant *variant)
{
    const uint32_t part = 8 * 1024 * 1024;
    VblkFake f;
    Vblk *v = start(&f, variant);
    VblkChain c = {};
    uint64_t buf;
    long before;

    if (!v) {
        return;
    }
    buf = vblk_alloc(v, part);
    before = peak_memory(v);
    vblk_chain_header(v, &c, VIRTIO_BLK_T_ZONE_REPORT, 0);
    /* The same memory again and again: 2 GiB to the device. */
    while (c.nin < 250) {
        c.in[c.nin++] = (VblkSeg) { buf, part };
    }
    vblk_chain_status(v, &c);
    g_assert_cmpint(vblk_chain_run(v, 0, &c, NULL), ==, OK);
    g_assert_cmpint(qtest_readq(v->qts, buf), ==, LAST + 1);
    g_assert_cmpint(peak_memory(v) - before, <, 64 * 1024);
    stop(&f, v);
}

/* ---- states ---- */

/* Row 33: a conventional zone has no states to change. */
static void test_conventional(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(zone_open(v, CONV), ==, INVALID);
    g_assert_cmpint(zone_close(v, CONV), ==, INVALID);
    g_assert_cmpint(zone_finish(v, CONV), ==, INVALID);
    g_assert_cmpint(zone_reset(v, CONV), ==, INVALID);
    /* It is written anywhere. */
    g_assert_cmpint(write_at(v, START(CONV) + 77, 8), ==, OK);
    g_assert_cmpint(write_at(v, START(CONV) + 3, 8), ==, OK);
    stop(&f, v);
}

/* Rows 35, 37, 38, 39 and 51: each command in each state. */
static void test_states(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(zone_close(v, 1), ==, INVALID);
    check_zone(v, 1, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_open(v, 1), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_EOPEN, 0);
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    g_assert_cmpint(zone_open(v, 1), ==, OK);
    g_assert_cmpint(zone_close(v, 1), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_CLOSED, 8);
    g_assert_cmpint(write_at(v, START(1) + 8, 8), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_IOPEN, 16);
    g_assert_cmpint(zone_finish(v, 1), ==, OK);
    g_assert_cmpint(zone_desc(v, 1).z_state, ==, VIRTIO_BLK_ZS_FULL);
    g_assert_cmpint(zone_open(v, 1), ==, INVALID);
    g_assert_cmpint(zone_close(v, 1), ==, INVALID);
    g_assert_cmpint(zone_desc(v, 1).z_state, ==, VIRTIO_BLK_ZS_FULL);
    g_assert_cmpint(zone_reset(v, 1), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_EMPTY, 0);
    /* Row 51: what was written is gone. */
    g_assert_true(vblk_fake_is(&f, START(1) * 512, 16 * 512, 0));
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    stop(&f, v);
}

/* Rows 35 to 39: zones that no command moves, and sectors that are none. */
static void test_states_bad(const VblkVariant *variant)
{
    static const uint32_t type[] = {
        VIRTIO_BLK_T_ZONE_OPEN, VIRTIO_BLK_T_ZONE_CLOSE,
        VIRTIO_BLK_T_ZONE_FINISH, VIRTIO_BLK_T_ZONE_RESET,
    };
    static const uint64_t sector[] = {
        START(READ_ONLY), START(OFFLINE), START(1) + 1, START(LAST + 1),
        SECTORS, UINT64_MAX, UINT64_MAX - ZONE + 1, 1ull << 56,
    };
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    for (unsigned t = 0; t < ARRAY_SIZE(type); t++) {
        for (unsigned i = 0; i < ARRAY_SIZE(sector); i++) {
            g_assert_cmpint(zone_at(v, type[t], sector[i]), ==, INVALID);
        }
    }
    check_zone(v, 1, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_desc(v, READ_ONLY).z_state, ==,
                    VIRTIO_BLK_ZS_RDONLY);
    stop(&f, v);
}

/* Row 10: the last zone may be smaller. */
static void test_last_zone(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(zone_open(v, LAST), ==, OK);
    g_assert_cmpint(write_at(v, START(LAST), LAST_SECTORS), ==, OK);
    g_assert_cmpint(zone_desc(v, LAST).z_state, ==, VIRTIO_BLK_ZS_FULL);
    g_assert_cmpint(zone_reset(v, LAST), ==, OK);
    check_zone(v, LAST, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_finish(v, LAST), ==, OK);
    g_assert_cmpint(zone_desc(v, LAST).z_state, ==, VIRTIO_BLK_ZS_FULL);
    stop(&f, v);
}

/* Rows 40 and 51. */
static void test_reset_all(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    uint64_t where;

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(CONV), 8), ==, OK);
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    g_assert_cmpint(zone_open(v, 2), ==, OK);
    g_assert_cmpint(write_at(v, START(3), 8), ==, OK);
    g_assert_cmpint(zone_close(v, 3), ==, OK);
    g_assert_cmpint(zone_finish(v, 4), ==, OK);
    g_assert_cmpint(write_at(v, START(LAST), 8), ==, OK);
    /* The sector has no meaning (VIRTIO 1.4, 5.2.6). */
    g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_RESET_ALL, 12345), ==, OK);
    for (unsigned i = 1; i <= LAST; i++) {
        if (i != READ_ONLY && i != OFFLINE) {
            check_zone(v, i, VIRTIO_BLK_ZS_EMPTY, 0);
        }
    }
    g_assert_cmpint(zone_desc(v, READ_ONLY).z_state, ==,
                    VIRTIO_BLK_ZS_RDONLY);
    g_assert_false(vblk_fake_is(&f, 0, 8 * 512, 0));
    g_assert_cmpint(append(v, START(1), 8, &where), ==, OK);
    g_assert_cmpint(where, ==, START(1));
    stop(&f, v);
}

static Vblk *start_limits(VblkFake *f, const VblkVariant *variant,
                          unsigned max_open, unsigned max_active)
{
    if (!begin(f, "host-managed")) {
        return NULL;
    }
    vblk_fake_set_num(f, "queue/max_open_zones", max_open);
    vblk_fake_set_num(f, "queue/max_active_zones", max_active);
    return start_opts(f, vblk_opts(variant));
}

/* Row 36: too many open zones; the state stays as it was. */
static void test_max_open(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start_limits(&f, variant, 2, 0);

    if (!v) {
        return;
    }
    g_assert_cmpint(zone_open(v, 1), ==, OK);
    g_assert_cmpint(zone_open(v, 2), ==, OK);
    g_assert_cmpint(zone_open(v, 3), ==, VIRTIO_BLK_S_ZONE_OPEN_RESOURCE);
    check_zone(v, 3, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_close(v, 2), ==, OK);
    g_assert_cmpint(zone_open(v, 3), ==, OK);
    stop(&f, v);
}

/* Row 41: the same for zones that a write or an append opens. */
static void test_max_open_implicit(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start_limits(&f, variant, 2, 0);
    uint64_t where;

    if (!v) {
        return;
    }
    g_assert_cmpint(zone_open(v, 1), ==, OK);
    g_assert_cmpint(zone_open(v, 2), ==, OK);
    g_assert_cmpint(write_at(v, START(3), 8), ==,
                    VIRTIO_BLK_S_ZONE_OPEN_RESOURCE);
    g_assert_cmpint(append(v, START(3), 8, &where), ==,
                    VIRTIO_BLK_S_ZONE_OPEN_RESOURCE);
    check_zone(v, 3, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_close(v, 2), ==, OK);
    g_assert_cmpint(write_at(v, START(3), 8), ==, OK);
    stop(&f, v);
}

/* Row 36: too many active zones. */
static void test_max_active(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start_limits(&f, variant, 0, 2);

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    g_assert_cmpint(zone_close(v, 1), ==, OK);
    g_assert_cmpint(zone_open(v, 2), ==, OK);
    g_assert_cmpint(zone_open(v, 3), ==, VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE);
    check_zone(v, 3, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_finish(v, 1), ==, OK);
    g_assert_cmpint(zone_open(v, 3), ==, OK);
    stop(&f, v);
}

/* Row 41: the same for zones that a write or an append makes active. */
static void test_max_active_implicit(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start_limits(&f, variant, 0, 2);
    uint64_t where;

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    g_assert_cmpint(zone_close(v, 1), ==, OK);
    g_assert_cmpint(zone_open(v, 2), ==, OK);
    g_assert_cmpint(write_at(v, START(3), 8), ==,
                    VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE);
    g_assert_cmpint(append(v, START(3), 8, &where), ==,
                    VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE);
    check_zone(v, 3, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(zone_finish(v, 1), ==, OK);
    g_assert_cmpint(append(v, START(3), 8, &where), ==, OK);
    stop(&f, v);
}

/* ---- append ---- */

/* Row 44: where it went; appends and writes follow one another. */
static void test_append(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    uint8_t data[8 * 512], back[8 * 512];
    uint64_t where;

    if (!v) {
        return;
    }
    g_assert_cmpint(append(v, START(2), 8, &where), ==, OK);
    g_assert_cmpint(where, ==, START(2));
    g_assert_cmpint(write_at(v, START(2) + 8, 4), ==, OK);
    g_assert_cmpint(append(v, START(2), 8, &where), ==, OK);
    g_assert_cmpint(where, ==, START(2) + 12);
    check_zone(v, 2, VIRTIO_BLK_ZS_IOPEN, 20);
    vblk_pattern(data, sizeof(data), 99);
    g_assert_cmpint(vblk_read(v, where, back, sizeof(back)), ==, OK);
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    /* After a reset they begin anew. */
    g_assert_cmpint(zone_reset(v, 2), ==, OK);
    g_assert_cmpint(append(v, START(2), MAX_APPEND, &where), ==, OK);
    g_assert_cmpint(where, ==, START(2));
    stop(&f, v);
}

/* Send @n appends of @len sectors at once; their status bytes and answers. */
static void append_together(Vblk *v, uint64_t sector, unsigned n, unsigned len,
                            uint8_t *status, uint64_t *where)
{
    g_autofree VblkChain *c = g_new0(VblkChain, n);
    g_autofree VblkReq **req = g_new(VblkReq *, n);
    g_autofree uint64_t *at = g_new(uint64_t, n);

    for (unsigned i = 0; i < n; i++) {
        req[i] = append_submit(v, &c[i], sector, len * 512, &at[i]);
    }
    vblk_kick(v, 0);
    for (unsigned i = 0; i < n; i++) {
        vblk_wait(v, req[i], NULL);
        status[i] = qtest_readb(v->qts, c[i].status);
        where[i] = qtest_readq(v->qts, at[i]);
    }
}

/* Row 44: several at once; each is told its own place. */
static void test_append_batch(const VblkVariant *variant)
{
    enum { N = 10, LEN = 8 };
    VblkFake f;
    Vblk *v = start(&f, variant);
    uint8_t status[N];
    uint64_t where[N], seen = 0;

    if (!v) {
        return;
    }
    append_together(v, START(3), N, LEN, status, where);
    for (unsigned i = 0; i < N; i++) {
        uint64_t at = where[i] - START(3);

        g_assert_cmpint(status[i], ==, OK);
        g_assert_cmpint(at % LEN, ==, 0);
        seen |= 1ull << (at / LEN);
    }
    g_assert_cmphex(seen, ==, (1ull << N) - 1);
    check_zone(v, 3, VIRTIO_BLK_ZS_IOPEN, N * LEN);
    stop(&f, v);
}

/* Several of @len sectors at once from @wp on, and room for @fit of them. */
static void append_too_many(Vblk *v, unsigned zone, unsigned wp, unsigned len,
                            unsigned fit)
{
    enum { N = 6 };
    uint8_t status[N];
    uint64_t where[N];
    unsigned ok = 0;

    g_assert_cmpint(write_at(v, START(zone), wp), ==, OK);
    append_together(v, START(zone), N, len, status, where);
    for (unsigned i = 0; i < N; i++) {
        if (status[i] == OK) {
            g_assert_cmpint(where[i], ==, START(zone) + wp + ok * len);
            ok++;
        } else {
            g_assert_cmpint(status[i], ==, INVALID);
        }
    }
    g_assert_cmpint(ok, ==, fit);
}

/*
 * What has no room any more when its turn comes must not land in the next zone,
 * nor a part of it in the last one.
 */
static void test_append_batch_full(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    append_too_many(v, 4, ZONE - 8, 4, 2);
    check_zone(v, 4, VIRTIO_BLK_ZS_FULL, ZONE);
    check_zone(v, 5, VIRTIO_BLK_ZS_EMPTY, 0);
    append_too_many(v, LAST, LAST_SECTORS - 12, 8, 1);
    check_zone(v, LAST, VIRTIO_BLK_ZS_IOPEN, LAST_SECTORS - 4);
    stop(&f, v);
}

/*
 * There is no zone at the end of the disk, and no write pointer either (the
 * address sanitizer sees that it is left alone).
 */
static void test_write_nothing(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    uint64_t end;

    if (!v) {
        return;
    }
    end = vblk_cfg(v, capacity);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_OUT, end, NULL, 0, NULL), ==,
                    OK);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_OUT, START(4), NULL, 0, NULL),
                    ==, OK);
    check_zone(v, 4, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(write_at(v, START(4), 8), ==, OK);
    stop(&f, v);
}

typedef struct Append {
    uint64_t sector;
    unsigned sectors;
} Append;

/* Each of them fails and leaves its zone alone. */
static void append_all_bad(VblkFake *f, Vblk *v, const Append *bad, unsigned n)
{
    uint64_t where;

    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(append(v, bad[i].sector, bad[i].sectors, &where), ==,
                        INVALID);
    }
    check_zone(v, 2, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(append(v, START(2), 8, &where), ==, OK);
    g_assert_cmpint(where, ==, START(2));
    stop(f, v);
}

static void check_append_bad(const VblkVariant *variant, const Append *bad,
                             unsigned n)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (v) {
        append_all_bad(&f, v, bad, n);
    }
}

/* Row 34: and takes no append. */
static void test_append_conventional(const VblkVariant *variant)
{
    static const Append bad[] = { { START(CONV), 1 } };

    check_append_bad(variant, bad, ARRAY_SIZE(bad));
}

/* Row 42, also where the sector can't be written for its alignment. */
static void test_append_amid(const VblkVariant *variant)
{
    static const Append bad[] = {
        { START(2) + 8, 8 }, { START(2) + ZONE / 2, 8 },
        { START(3) - 8, 8 }, { START(2) + 1, 8 },
    };

    for (unsigned granularity = 512; granularity <= 4096; granularity *= 8) {
        VblkFake f;

        if (!begin(&f, "host-managed")) {
            return;
        }
        vblk_fake_set_num(&f, "queue/physical_block_size", granularity);
        append_all_bad(&f, start_opts(&f, vblk_opts(variant)), bad,
                       ARRAY_SIZE(bad));
    }
}

/* Row 46: longer than what max_append_sectors allows. */
static void test_append_long(const VblkVariant *variant)
{
    static const Append bad[] = {
        { START(2), MAX_APPEND + 1 }, { START(2), ZONE },
    };

    check_append_bad(variant, bad, ARRAY_SIZE(bad));
}

/* Nothing to append. */
static void test_append_empty(const VblkVariant *variant)
{
    static const Append bad[] = { { START(2), 0 }, { START(LAST), 0 } };

    check_append_bad(variant, bad, ARRAY_SIZE(bad));
}

/*
 * B21: behind the last zone, by a little and by a lot.  The zone there would be
 * one beyond the array of write pointers, if the last one has full length.
 */
static void test_append_behind(const VblkVariant *variant)
{
    static const Append bad[] = {
        { SECTORS, 1 }, { START(LAST + 1), 0 }, { START(LAST + 1), 1 },
        { START(LAST + 2), 0 }, { UINT64_MAX - ZONE + 1, 1 },
        { 1ull << 57, 1 },
    };

    for (unsigned full = 0; full < 2; full++) {
        VblkFake f;

        if (!begin_sized(&f, "host-managed",
                         full ? START(LAST + 1) : SECTORS)) {
            return;
        }
        append_all_bad(&f, start_opts(&f, vblk_opts(variant)), bad,
                       ARRAY_SIZE(bad));
    }
}

/* Rows 49 and 50. */
static void test_append_dead(const VblkVariant *variant)
{
    static const Append bad[] = {
        { START(READ_ONLY), 1 }, { START(OFFLINE), 1 },
    };

    check_append_bad(variant, bad, ARRAY_SIZE(bad));
}

/* Row 55: of appends, reports and the commands without data. */
static void test_used_len(const VblkVariant *variant)
{
    static const struct {
        uint32_t type, len;
        uint64_t sector;
        uint32_t used;
    } cmd[] = {
        { VIRTIO_BLK_T_ZONE_OPEN, 0, START(1), 1 },
        { VIRTIO_BLK_T_ZONE_OPEN, 0, START(CONV), 1 },
        { VIRTIO_BLK_T_ZONE_REPORT, 4096, START(0), 64 + 64 * (LAST + 1) + 1 },
        { VIRTIO_BLK_T_ZONE_REPORT, 4096, START(LAST), 64 + 64 + 1 },
        { VIRTIO_BLK_T_ZONE_REPORT, 64 + 127, START(2), 64 + 64 + 1 },
        { VIRTIO_BLK_T_ZONE_REPORT, 64 + 63, START(2), 1 },
        { VIRTIO_BLK_T_ZONE_REPORT, 4096, SECTORS, 1 },
    };
    static const Append appends[] = {
        { START(2), 1 }, { START(2) + 1, 1 }, { START(READ_ONLY), 1 },
    };
    VblkFake f;
    Vblk *v = start(&f, variant);
    uint32_t used;

    if (!v) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(cmd); i++) {
        vblk_cmd(v, 0, cmd[i].type, cmd[i].sector, NULL, cmd[i].len, &used);
        g_assert_cmpint(used, ==, cmd[i].used);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(appends); i++) {
        VblkChain c = {};
        uint64_t result;
        VblkReq *req = append_submit(v, &c, appends[i].sector,
                                     appends[i].sectors * 512, &result);

        vblk_kick(v, 0);
        vblk_wait(v, req, &used);
        g_assert_cmpint(used, ==, i ? 1 : sizeof(result) + 1);
    }
    stop(&f, v);
}

/* Rows 43 and 47: no room; nothing must land in the zone that comes next. */
static void test_append_full(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    uint64_t where;

    if (!v) {
        return;
    }
    g_assert_cmpint(zone_finish(v, 2), ==, OK);
    g_assert_cmpint(append(v, START(2), 1, &where), ==, INVALID);
    g_assert_cmpint(write_at(v, START(4), ZONE - 4), ==, OK);
    g_assert_cmpint(append(v, START(4), 8, &where), ==, INVALID);
    g_assert_cmpint(append(v, START(4), 4, &where), ==, OK);
    g_assert_cmpint(where, ==, START(4) + ZONE - 4);
    g_assert_cmpint(append(v, START(4), 1, &where), ==, INVALID);
    check_zone(v, 3, VIRTIO_BLK_ZS_EMPTY, 0);
    check_zone(v, 5, VIRTIO_BLK_ZS_EMPTY, 0);
    /* Less capacity than the zone is long. */
    g_assert_cmpint(append(v, START(SMALL), 60, &where), ==, OK);
    g_assert_cmpint(append(v, START(SMALL), 37, &where), ==, INVALID);
    g_assert_cmpint(append(v, START(SMALL), 36, &where), ==, OK);
    g_assert_cmpint(zone_desc(v, SMALL).z_state, ==, VIRTIO_BLK_ZS_FULL);
    g_assert_cmpint(append(v, START(SMALL), 1, &where), ==, INVALID);
    /* The last zone is shorter: no part of what does not fit is written. */
    g_assert_cmpint(append(v, START(LAST), LAST_SECTORS - 4, &where), ==, OK);
    g_assert_cmpint(append(v, START(LAST), 8, &where), ==, INVALID);
    check_zone(v, LAST, VIRTIO_BLK_ZS_IOPEN, LAST_SECTORS - 4);
    g_assert_cmpint(append(v, START(LAST), 4, &where), ==, OK);
    g_assert_cmpint(where, ==, START(LAST) + LAST_SECTORS - 4);
    stop(&f, v);
}

/* Row 45: the medium has no append. */
static void test_append_none(const VblkVariant *variant)
{
    VblkFake f;
    uint64_t where;
    Vblk *v;

    if (!begin(&f, "host-managed")) {
        return;
    }
    vblk_fake_set_num(&f, "queue/zone_append_max_bytes", 0);
    v = start_opts(&f, vblk_opts(variant));
    g_assert_cmpint(vblk_cfg(v, zoned.max_append_sectors), ==, 0);
    g_assert_cmpint(append(v, START(2), 1, &where), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(write_at(v, START(2), 1), ==, OK);
    stop(&f, v);
}

/* No room for the answer: then nothing is written. */
static void test_append_no_room(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);
    VblkChain c = {};
    uint8_t data[512] = {};

    if (!v) {
        return;
    }
    vblk_chain_header(v, &c, VIRTIO_BLK_T_ZONE_APPEND, START(2));
    vblk_chain_out(v, &c, data, sizeof(data));
    vblk_chain_in(v, &c, 7);
    vblk_chain_status(v, &c);
    g_assert_cmpint(vblk_chain_run(v, 0, &c, NULL), ==, INVALID);
    check_zone(v, 2, VIRTIO_BLK_ZS_EMPTY, 0);
    stop(&f, v);
}

/* ---- reads and writes ---- */

/* Row 48: a write elsewhere than at the write pointer. */
static void test_write_pointer(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(1) + 1, 1), ==, UNALIGNED);
    check_zone(v, 1, VIRTIO_BLK_ZS_EMPTY, 0);
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    g_assert_cmpint(write_at(v, START(1), 8), ==, UNALIGNED);
    g_assert_cmpint(write_at(v, START(1) + 7, 8), ==, UNALIGNED);
    g_assert_cmpint(write_at(v, START(1) + 16, 8), ==, UNALIGNED);
    check_zone(v, 1, VIRTIO_BLK_ZS_IOPEN, 8);
    g_assert_cmpint(write_at(v, START(1) + 8, 8), ==, OK);
    stop(&f, v);
}

/* Row 48: writes in order, sent at once, across the end of a zone. */
static void test_write_batch(const VblkVariant *variant)
{
    enum { N = 8, LEN = 32 };
    uint8_t data[LEN * 512] = { 1 };
    VblkFake f;
    Vblk *v = start(&f, variant);
    VblkIo *io[N];

    if (!v) {
        return;
    }
    for (unsigned i = 0; i < N; i++) {
        io[i] = vblk_io(v, 0, VIRTIO_BLK_T_OUT, START(1) + i * LEN, data,
                        sizeof(data));
    }
    vblk_kick(v, 0);
    for (unsigned i = 0; i < N; i++) {
        g_assert_cmpint(vblk_io_wait(v, io[i], NULL), ==, OK);
    }
    /* Not even tried: a merged one fails, and only then goes in parts. */
    g_assert_cmpint(vblk_stat(v, "wr_merged"), ==, 0);
    g_assert_cmpint(zone_desc(v, 1).z_state, ==, VIRTIO_BLK_ZS_FULL);
    g_assert_cmpint(zone_desc(v, 2).z_state, ==, VIRTIO_BLK_ZS_FULL);
    stop(&f, v);
}

/* Row 47: over the end of a zone, of the disk. */
static void test_bounds(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(1), ZONE + 1), ==, INVALID);
    g_assert_cmpint(write_at(v, START(CONV) + ZONE - 1, 2), ==, INVALID);
    g_assert_cmpint(read_at(v, START(1) + ZONE - 1, 2), ==, INVALID);
    g_assert_cmpint(read_at(v, START(CONV), ZONE + 1), ==, INVALID);
    g_assert_cmpint(read_at(v, START(1), ZONE), ==, OK);
    g_assert_cmpint(write_at(v, START(LAST), LAST_SECTORS + 1), ==, INVALID);
    check_zone(v, 1, VIRTIO_BLK_ZS_EMPTY, 0);
    stop(&f, v);
}

/* Row 43: over the end of a zone's capacity, and into a full one. */
static void test_capacity(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(SMALL), SMALL_CAP + 1), ==, INVALID);
    g_assert_cmpint(write_at(v, START(SMALL), SMALL_CAP - 1), ==, OK);
    g_assert_cmpint(write_at(v, START(SMALL) + SMALL_CAP - 1, 2), ==,
                    INVALID);
    g_assert_cmpint(write_at(v, START(SMALL) + SMALL_CAP - 1, 1), ==, OK);
    g_assert_cmpint(write_at(v, START(SMALL) + SMALL_CAP, 1), ==, INVALID);
    /* Full: any place in it. */
    g_assert_cmpint(write_at(v, START(SMALL), 1), ==, INVALID);
    stop(&f, v);
}

/* Row 50. */
static void test_offline(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(OFFLINE), 1), ==, INVALID);
    g_assert_cmpint(read_at(v, START(OFFLINE) + 8, 8), ==, INVALID);
    stop(&f, v);
}

/* Row 49. */
static void test_zone_read_only(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    g_assert_cmpint(write_at(v, START(READ_ONLY), 1), ==, INVALID);
    g_assert_cmpint(write_at(v, START(READ_ONLY) + 5, 1), ==, INVALID);
    g_assert_cmpint(read_at(v, START(READ_ONLY), 8), ==, OK);
    stop(&f, v);
}

/* Row 34: zones that would rather be written in order, but need not. */
static void test_aware(const VblkVariant *variant)
{
    VblkFake f;
    uint64_t where;
    Vblk *v;

    if (!begin(&f, "host-aware")) {
        return;
    }
    v = start_opts(&f, vblk_opts(variant));
    g_assert_cmpint(zone_desc(v, 1).z_type, ==, VIRTIO_BLK_ZT_SWP);
    g_assert_cmpint(write_at(v, START(1) + 40, 8), ==, OK);
    g_assert_cmpint(write_at(v, START(1), 8), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_IOPEN, 48);
    /* Row 34: sequential-write-required zones only. */
    g_assert_cmpint(append(v, START(1), 8, &where), ==, INVALID);
    g_assert_cmpint(zone_reset(v, 1), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_EMPTY, 0);
    stop(&f, v);
}

/*
 * The driver's mistakes are its own; the error policy of the user is for
 * errors of the medium.
 */
static void test_error_policy(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint8_t data[512] = {};
    VblkFake f;
    VblkIo *io;
    Vblk *v;

    if (!begin(&f, "host-managed")) {
        return;
    }
    o.props = "werror=stop,rerror=stop";
    v = start_opts(&f, o);
    g_assert_cmpint(write_at(v, START(1) + 1, 1), ==, UNALIGNED);
    g_assert_cmpint(read_at(v, START(OFFLINE), 1), ==, INVALID);
    vblk_fake_fault(&f, "write", EIO);
    io = vblk_io(v, 0, VIRTIO_BLK_T_OUT, START(1), data, sizeof(data));
    vblk_kick(v, 0);
    vblk_expect_event(v, "STOP");
    vblk_fake_fault(&f, "write", 0);
    vblk_qmp_ok(v, "{'execute': 'cont'}");
    g_assert_cmpint(vblk_io_wait(v, io, NULL), ==, OK);
    check_zone(v, 1, VIRTIO_BLK_ZS_IOPEN, 1);
    stop(&f, v);
}

/*
 * Why a write failed is asked in a report, also when it was in flight as the
 * reset of the device began to drain.  Such a report waits for the end of the
 * drain, which must not wait for it.
 */
static void test_drain(const VblkVariant *variant)
{
    uint8_t data[512] = {};
    VblkIo *io[4];
    VblkFake f;
    Vblk *v = start(&f, variant);

    if (!v) {
        return;
    }
    vblk_qmp_ok(v, "{'execute': 'block_set_io_throttle', 'arguments': {'id': "
                "%s, 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': 1, "
                "'iops_rd': 0, 'iops_wr': 0}}", vblk_qom_path(v));
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = vblk_io(v, 0, VIRTIO_BLK_T_OUT, START(1 + i) + 1, data,
                        sizeof(data));
    }
    vblk_kick(v, 0);
    vblk_expect_pending(v, io[ARRAY_SIZE(io) - 1]->req, 20);
    vblk_reset(v);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        vblk_io_abandon(v, io[i]);
    }
    stop(&f, v);
}

static void add_state_tests(void)
{
    vblk_add("zoned/conventional", ZONED_ON, test_conventional);
    vblk_add("zoned/states", ZONED_ON, test_states);
    vblk_add("zoned/states-bad", ZONED_ON, test_states_bad);
    vblk_add("zoned/last-zone", ZONED_ON, test_last_zone);
    vblk_add("zoned/reset-all", ZONED_ON, test_reset_all);
    vblk_add("zoned/max-open", ZONED_ON, test_max_open);
    vblk_add("zoned/max-active", ZONED_ON, test_max_active);
    vblk_add("zoned/max-open-implicit", ZONED_ON, test_max_open_implicit);
    vblk_add("zoned/max-active-implicit", ZONED_ON, test_max_active_implicit);
}

static void add_data_tests(void)
{
    vblk_add("zoned/append", ZONED_ON, test_append);
    vblk_add("zoned/append-batch", ZONED_ON, test_append_batch);
    vblk_add("zoned/append-conventional", ZONED_ON, test_append_conventional);
    vblk_add("zoned/append-amid", ZONED_ON, test_append_amid);
    vblk_add("zoned/append-long", ZONED_ON, test_append_long);
    vblk_add("zoned/append-empty", ZONED_ON, test_append_empty);
    vblk_add("zoned/append-behind", ZONED_ON, test_append_behind);
    vblk_add("zoned/append-dead", ZONED_ON, test_append_dead);
    vblk_add("zoned/append-full", ZONED_ON, test_append_full);
    vblk_add("zoned/append-batch-full", ZONED_ON, test_append_batch_full);
    vblk_add("zoned/write-nothing", ZONED_ON, test_write_nothing);
    vblk_add("zoned/append-none", ZONED_ON, test_append_none);
    vblk_add("zoned/append-no-room", ZONED_ON, test_append_no_room);
    vblk_add("zoned/write-pointer", ZONED_ON, test_write_pointer);
    vblk_add("zoned/write-batch", ZONED_ON, test_write_batch);
    vblk_add("zoned/bounds", ZONED_ON, test_bounds);
    vblk_add("zoned/capacity", ZONED_ON, test_capacity);
    vblk_add("zoned/read-only", ZONED_ON, test_zone_read_only);
    vblk_add("zoned/offline", ZONED_ON, test_offline);
    vblk_add("zoned/aware", ZONED_ON, test_aware);
    vblk_add("zoned/error-policy", ZONED_ON, test_error_policy);
    vblk_add("zoned/drain", ZONED_ON, test_drain);
}

void vblk_add_zoned_tests(void)
{
    vblk_add("zoned/config", ZONED_ON, test_config);
    vblk_add("zoned/refuse-aware", ZONED_ON, test_refuse_aware);
    vblk_add("zoned/refused-commands", ZONED_ON, test_refused_commands);
    vblk_add("zoned/used-len", ZONED_ON, test_used_len);
    vblk_add("zoned/refuse-managed", ZONED_ON, test_refuse_managed);
    vblk_add("zoned/legacy", VBLK_ON_LEGACY | VBLK_ON_MMIO_LEGACY,
             test_legacy);
    vblk_add_one("zoned/legacy-managed", test_legacy_managed);
    vblk_add_one("zoned/raw", test_raw);
    vblk_add_one("zoned/secure-erase", test_secure_erase);
    vblk_add("zoned/report", ZONED_ON, test_report);
    vblk_add("zoned/report-bad", ZONED_ON, test_report_bad);
    vblk_add("zoned/report-many", ZONED_ON, test_report_many);
    vblk_add("zoned/report-huge", ZONED_ON, test_report_huge);
    add_state_tests();
    add_data_tests();
}
