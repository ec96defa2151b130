/*
 * virtio-blk qtests: features and configuration, row by row
 *
 * Rows are those of tests/conformance/rows: what VIRTIO 1.4, 5.2, asks of a
 * block device.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "fake.h"

#define OK                  VIRTIO_BLK_S_OK
#define CONFIG(field)       offsetof(struct virtio_blk_config, field)

/* A disk whose size has a different value in each byte. */
#define ODD_SECTORS         0x1020304
#define ODD_AT              0x10203

/* The feature bits of a device that nobody has set up yet. */
static uint64_t offered_with(const VblkVariant *variant, const char *props)
{
    VblkOpts o = vblk_opts(variant);
    uint64_t features;
    Vblk *v;

    o.props = props;
    v = vblk_launch(&o);
    vblk_attach(v);
    vblk_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    features = vblk_offered(v);
    vblk_stop(v);
    return features;
}

/* Rows 1 and 2: FLUSH is there, and always beside CONFIG_WCE. */
static void test_flush_offered(const VblkVariant *variant)
{
    static const struct {
        const char *props;
        bool flush, config_wce;
    } cases[] = {
        { NULL, true, true },
        { "config-wce=off", true, false },
        { "write-cache=off", true, true },
        { "write-cache=on,config-wce=off", true, false },
        /* No cache at all: nothing to flush, so nothing is owed. */
        { "write-cache=off,config-wce=off", false, false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        uint64_t f = offered_with(variant, cases[i].props);

        g_test_message("%s: %" PRIx64, cases[i].props, f);
        g_assert_cmpint(!!(f & VBLK_BIT(VIRTIO_BLK_F_FLUSH)), ==,
                        cases[i].flush);
        g_assert_cmpint(!!(f & VBLK_BIT(VIRTIO_BLK_F_CONFIG_WCE)), ==,
                        cases[i].config_wce);
    }
}

/* Row 5: a disk without zones offers no ZONED. */
static void test_not_zoned(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);

    g_assert_false(v->host_features & VBLK_BIT(VIRTIO_BLK_F_ZONED));
    vblk_stop(v);
}

/*
 * Row 30: nor does a plain file, which has no wear to tell of, offer
 * LIFETIME; the command is unknown to it.
 */
static void test_no_lifetime(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint8_t data[40] = {};

    g_assert_false(v->host_features & VBLK_BIT(15));
    g_assert_cmpint(vblk_cmd(v, 0, 10, 0, data, sizeof(data), NULL), ==,
                    VIRTIO_BLK_S_UNSUPP);
    vblk_stop(v);
}

/*
 * Row 4: reserved bytes read 0, and stay so when written.  The config space
 * ends before unused1 unless SECURE_ERASE or ZONED follow: its length is in the
 * migration stream, and is what it was before.
 */
static void test_reserved(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.props = "discard=on,write-zeroes=on";
    v = vblk_start(&o);
    for (unsigned round = 0; round < 2; round++) {
        g_assert_cmphex(vblk_cfg8(v, CONFIG(unused)), ==, 0);
        vblk_cfg_write8(v, CONFIG(unused), 0xff);
    }
    vblk_stop(v);
}

/*
 * Row 16, and modern devices, on a little-endian machine: each byte of a
 * field is where a driver looks for it.
 */
static void test_config_bytes(const VblkVariant *variant)
{
    static const uint8_t capacity[8] = { 4, 3, 2, 1 };
    static const uint8_t blk_size[4] = { 0, 2 };
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.size = (uint64_t)ODD_SECTORS * VBLK_SECTOR;
    v = vblk_start(&o);
    for (unsigned i = 0; i < sizeof(capacity); i++) {
        g_assert_cmphex(vblk_cfg8(v, CONFIG(capacity) + i), ==, capacity[i]);
    }
    for (unsigned i = 0; i < sizeof(blk_size); i++) {
        g_assert_cmphex(vblk_cfg8(v, CONFIG(blk_size) + i), ==, blk_size[i]);
    }
    g_assert_cmphex(vblk_cfg8(v, CONFIG(seg_max)), ==, 254);
    g_assert_cmphex(vblk_cfg8(v, CONFIG(seg_max) + 1), ==, 0);
    vblk_stop(v);
}

/* Row 16: so are the bytes of a request's header and of a range. */
static void test_request_bytes(const VblkVariant *variant)
{
    static const uint8_t header[16] = {
        VIRTIO_BLK_T_OUT, 0, 0, 0, 0, 0, 0, 0, 3, 2, 1,
    };
    static const uint8_t zero[16] = { VIRTIO_BLK_T_WRITE_ZEROES };
    static const uint8_t segment[16] = { 3, 2, 1, 0, 0, 0, 0, 0, 1 };
    uint8_t data[2 * VBLK_SECTOR], back[2 * VBLK_SECTOR];
    VblkOpts o = vblk_opts(variant);
    VblkChain w = {}, z = {};
    Vblk *v;
    int fd;

    o.size = (uint64_t)ODD_SECTORS * VBLK_SECTOR;
    v = vblk_start(&o);
    vblk_pattern(data, sizeof(data), 16);
    vblk_chain_out(v, &w, header, sizeof(header));
    vblk_chain_out(v, &w, data, sizeof(data));
    vblk_chain_status(v, &w);
    g_assert_cmpint(vblk_chain_run(v, 0, &w, NULL), ==, OK);
    vblk_chain_out(v, &z, zero, sizeof(zero));
    vblk_chain_out(v, &z, segment, sizeof(segment));
    vblk_chain_status(v, &z);
    g_assert_cmpint(vblk_chain_run(v, 0, &z, NULL), ==, OK);

    fd = open(v->image, O_RDONLY);
    g_assert_cmpint(pread(fd, back, sizeof(back), ODD_AT * VBLK_SECTOR), ==,
                    sizeof(back));
    close(fd);
    memset(data, 0, VBLK_SECTOR);
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    vblk_stop(v);
}

/* ---- what a zoned device says of itself, a field a test ---- */

typedef struct ZonedField {
    const char *name;
    unsigned offset, len;
    uint32_t managed, aware;    /* what a host of that model must show */
} ZonedField;

#define ZONED(field, managed, aware) \
    { #field, CONFIG(zoned.field), \
      sizeof(((struct virtio_blk_config *)0)->zoned.field), managed, aware }

/* Rows 4 and 9 to 15; config space goes on behind unused1 here. */
static const ZonedField zoned_fields[] = {
    { "unused1", CONFIG(unused1), 3, 0, 0 },
    ZONED(model, VIRTIO_BLK_Z_HM, VIRTIO_BLK_Z_HA),
    ZONED(zone_sectors, 128, 128),
    ZONED(max_open_zones, 5, 5),
    ZONED(max_active_zones, 6, 6),
    ZONED(max_append_sectors, 64, 64),
    ZONED(write_granularity, 4096, 4096),
    ZONED(unused2, 0, 0),
};

static void check_zoned_field(const ZonedField *field, const char *model,
                              uint32_t want)
{
    VblkOpts o = {};
    uint32_t got = 0;
    VblkFake f;
    Vblk *v;

    if (!vblk_needs_version(8, 1, "zones") ||
        !vblk_fake_begin(&f, 1024 * VBLK_SECTOR)) {
        return;
    }
    vblk_fake_set(&f, "queue/zoned", model);
    vblk_fake_set(&f, "zones", "");
    vblk_fake_set_num(&f, "queue/chunk_sectors", 128);
    vblk_fake_set_num(&f, "queue/nr_zones", 8);
    vblk_fake_set_num(&f, "queue/max_open_zones", 5);
    vblk_fake_set_num(&f, "queue/max_active_zones", 6);
    vblk_fake_set_num(&f, "queue/zone_append_max_bytes", 64 * VBLK_SECTOR);
    vblk_fake_set_num(&f, "queue/physical_block_size", 4096);
    vblk_fake_use(&f, &o, NULL);
    v = vblk_start(&o);
    for (unsigned i = 0; i < field->len; i++) {
        got |= vblk_cfg8(v, field->offset + i) << (8 * i);
    }
    g_assert_cmpint(got, ==, want);
    vblk_stop(v);
    vblk_fake_end(&f);
}

static void test_zoned_field(const void *opaque)
{
    const ZonedField *field = opaque;

    check_zoned_field(field, "host-managed", field->managed);
    check_zoned_field(field, "host-aware", field->aware);
}

static void add_zoned_fields(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(zoned_fields); i++) {
        g_autofree char *path = g_strdup_printf("conform/zoned/%s",
                                                zoned_fields[i].name);

        vblk_add_data(path, &zoned_fields[i], test_zoned_field);
    }
}

/* ---- write_zeroes_may_unmap ---- */

/* What tells the truth; by default the device says what stock says. */
static const char *may_unmap_auto(void)
{
    return vblk_has_prop("virtio-blk-device", "write-zeroes-may-unmap") ?
           "write-zeroes-may-unmap=auto" : NULL;
}

static uint8_t may_unmap_with(const VblkVariant *variant, const char *disk,
                              const char *file)
{
    VblkOpts o = vblk_opts(variant);
    uint8_t val;
    Vblk *v;

    o.props = may_unmap_auto();
    o.disk_opts = disk;
    o.file_opts = file;
    v = vblk_start(&o);
    val = vblk_cfg(v, write_zeroes_may_unmap);
    vblk_stop(v);
    return val;
}

/* Row 24: 1 where every node of the disk lets go of space, 0 elsewhere. */
static void test_may_unmap(const VblkVariant *variant)
{
    g_assert_cmpint(may_unmap_with(variant, NULL, NULL), ==, 1);
    g_assert_cmpint(may_unmap_with(variant, ",discard=ignore", NULL), ==, 0);
    g_assert_cmpint(may_unmap_with(variant, NULL, ",discard=ignore"), ==, 0);
}

/* Row 24: a backend that never heard of deallocation. */
static void test_may_unmap_never(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.blockdev = "-blockdev driver=null-co,node-name=" VBLK_NODE
                 ",size=16777216,discard=unmap";
    o.props = may_unmap_auto();
    v = vblk_start(&o);
    g_assert_cmpint(vblk_cfg(v, write_zeroes_may_unmap), ==, 0);
    vblk_stop(v);
}

static void reopen(Vblk *v, const char *discard)
{
    vblk_qmp_ok(v, "{'execute': 'blockdev-reopen', 'arguments': {'options': "
                "[{'driver': 'raw', 'node-name': 'disk0', 'file': 'file0', "
                "'discard': %s}]}}", discard);
}

/* Row 25: the driver is told when the answer changes, and only then. */
static void test_may_unmap_change(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint32_t gen = 0;
    Vblk *v;

    o.props = may_unmap_auto();
    v = vblk_start(&o);
    vblk_config_irq(v);
    for (unsigned i = 0; i < 2; i++) {
        if (vblk_is_modern(v)) {
            gen = vblk_cfg_generation(v);
        }
        reopen(v, i ? "unmap" : "ignore");
        vblk_wait_config_irq(v);
        g_assert_cmpint(vblk_cfg(v, write_zeroes_may_unmap), ==, i);
        if (vblk_is_modern(v)) {
            g_assert_cmpint(vblk_cfg_generation(v), !=, gen);
        }
        vblk_check_io(v, 0);
    }
    reopen(v, "unmap");
    vblk_check_io(v, 0);
    g_assert_false(vblk_config_irq(v));
    vblk_stop(v);
}

/* Issue 2: on, the default, and off stay what they are, whatever happens. */
static void test_may_unmap_fixed(const VblkVariant *variant)
{
    static const char *const props[] = {
        NULL, "write-zeroes-may-unmap=on", "write-zeroes-may-unmap=off",
    };

    if (!vblk_needs_prop("write-zeroes-may-unmap")) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(props); i++) {
        VblkOpts o = vblk_opts(variant);
        Vblk *v;

        o.props = props[i];
        v = vblk_start(&o);
        vblk_config_irq(v);
        for (unsigned round = 0; round < 3; round++) {
            g_assert_cmpint(vblk_cfg(v, write_zeroes_may_unmap), ==, i != 2);
            reopen(v, round ? "unmap" : "ignore");
            vblk_check_io(v, 0);
        }
        g_assert_false(vblk_config_irq(v));
        vblk_stop(v);
    }
}

void vblk_add_conform_init_tests(void)
{
    vblk_add("conform/flush-offered", VBLK_ON_MOST, test_flush_offered);
    vblk_add("conform/not-zoned", VBLK_ON_ALL, test_not_zoned);
    vblk_add("conform/no-lifetime", VBLK_ON_MOST, test_no_lifetime);
    vblk_add("conform/reserved", VBLK_ON_MOST | VBLK_ON_MMIO_LEGACY,
             test_reserved);
    vblk_add("conform/config-bytes", VBLK_ON_MOST | VBLK_ON_MMIO_LEGACY,
             test_config_bytes);
    vblk_add("conform/request-bytes", VBLK_ON_MOST | VBLK_ON_MMIO_LEGACY,
             test_request_bytes);
    add_zoned_fields();
    vblk_add("conform/may-unmap", VBLK_ON_MOST, test_may_unmap);
    vblk_add("conform/may-unmap-never", VBLK_ON_MOST, test_may_unmap_never);
    vblk_add("conform/may-unmap-change", VBLK_ON_MOST, test_may_unmap_change);
    vblk_add("conform/may-unmap-fixed", VBLK_ON_MOST, test_may_unmap_fixed);
}
