/*
 * virtio-blk qtests: a medium that is taken away, or covered, while the driver
 * goes on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "fake.h"

#define ZONE            128             /* sectors */
#define ZONES           4
#define T_GET_LIFETIME  10              /* VIRTIO 1.4, 5.2.6 */
#define SIZE            (ZONES * ZONE * 512)

static bool begin_zoned(VblkFake *f)
{
    if (!vblk_fake_begin(f, SIZE)) {
        return false;
    }
    vblk_fake_set(f, "queue/zoned", "host-managed");
    vblk_fake_set(f, "zones", "0 0 conv 0\n");
    vblk_fake_set_num(f, "queue/chunk_sectors", ZONE);
    vblk_fake_set_num(f, "queue/nr_zones", ZONES);
    vblk_fake_set_num(f, "queue/max_open_zones", 0);
    vblk_fake_set_num(f, "queue/max_active_zones", 0);
    vblk_fake_set_num(f, "queue/zone_append_max_bytes", 4096);
    vblk_fake_set_num(f, "queue/physical_block_size", 512);
    return true;
}

static uint8_t cmd(Vblk *v, uint32_t type, uint32_t len)
{
    g_autofree uint8_t *data = g_malloc0(len + 1);
    uint32_t used;
    uint8_t status = vblk_cmd(v, 0, type, 0, len ? data : NULL, len, &used);

    g_assert_cmpint(used, ==, 1);
    return status;
}

/* No zone command finds zones, and reads know no zone. */
static void check_no_zones(Vblk *v, uint8_t read_status)
{
    uint8_t data[512];

    g_assert_cmpint(vblk_read(v, 3, data, sizeof(data)), ==, read_status);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_ZONE_REPORT, 4096), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_ZONE_OPEN, 0), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_ZONE_RESET_ALL, 0), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(vblk_cfg(v, zoned.model), ==, VIRTIO_BLK_Z_NONE);
    g_assert_cmpint(vblk_cfg(v, zoned.zone_sectors), ==, 0);
}

/* A snapshot of a zoned disk has no zones; the driver still has ZONED. */
static void test_zoned_snapshot(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    g_autofree char *over = NULL;
    VblkFake f;
    Vblk *v;

    if (!begin_zoned(&f)) {
        return;
    }
    over = g_build_filename(f.dir, "fault", "over.qcow2", NULL);
    vblk_fake_use(&f, &o, NULL);
    v = vblk_start(&o);
    g_assert_cmpint(vblk_cfg(v, zoned.zone_sectors), ==, ZONE);
    vblk_qmp_ok(v, "{'execute': 'blockdev-snapshot-sync', 'arguments': {"
                "'node-name': %s, 'snapshot-file': %s, "
                "'snapshot-node-name': 'over', 'format': 'qcow2'}}",
                VBLK_NODE, over);
    check_no_zones(v, VIRTIO_BLK_S_OK);
    vblk_stop(v);
    g_unlink(over);
    vblk_fake_end(&f);
}

static Vblk *start_and_remove(VblkFake *f, VblkOpts *o)
{
    g_autofree char *out = NULL;
    Vblk *v;

    vblk_fake_use_drive(f, o);
    v = vblk_start(o);
    out = qtest_hmp(v->qts, "drive_del " VBLK_NODE);
    g_assert_cmpstr(out, ==, "");
    return v;
}

/* The same when there is no medium any more. */
static void test_zoned_removed(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!begin_zoned(&f)) {
        return;
    }
    v = start_and_remove(&f, &o);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_ZONE_REPORT, 4096), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_ZONE_OPEN, 0), ==,
                    VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_IN, 512), ==, VIRTIO_BLK_S_IOERR);
    vblk_stop(v);
    vblk_fake_end(&f);
}

static void test_lifetime_removed(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint8_t answer[6];
    uint32_t used;
    VblkFake f;
    Vblk *v;

    if (!vblk_fake_begin(&f, SIZE)) {
        return;
    }
    vblk_fake_set(&f, "device/pre_eol_info", "0x01");
    vblk_fake_set(&f, "device/life_time", "0x01 0x01");
    o.props = "lifetime=on";
    v = start_and_remove(&f, &o);
    vblk_cmd(v, 0, T_GET_LIFETIME, 0, answer, sizeof(answer),
             &used);
    g_assert_cmpint(cmd(v, VIRTIO_BLK_T_IN, 512), ==, VIRTIO_BLK_S_IOERR);
    vblk_stop(v);
    vblk_fake_end(&f);
}

/* Empty reads pass the check of their range; two of them would be merged. */
static void test_empty_removed(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkIo *io[4];
    VblkFake f;
    Vblk *v;

    if (!vblk_fake_begin(&f, SIZE)) {
        return;
    }
    v = start_and_remove(&f, &o);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        io[i] = vblk_io(v, 0, VIRTIO_BLK_T_IN, 0, NULL, 0);
    }
    vblk_kick(v, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(io); i++) {
        g_assert_cmpint(vblk_io_wait(v, io[i], NULL), ==, VIRTIO_BLK_S_IOERR);
    }
    vblk_stop(v);
    vblk_fake_end(&f);
}

void vblk_add_medium_tests(void)
{
    vblk_add("medium/zoned-snapshot", VBLK_ON_SPLIT | VBLK_ON_PACKED,
             test_zoned_snapshot);
    vblk_add("medium/zoned-removed", VBLK_ON_SPLIT, test_zoned_removed);
    vblk_add("medium/lifetime-removed", VBLK_ON_SPLIT, test_lifetime_removed);
    vblk_add("medium/empty-removed", VBLK_ON_SPLIT | VBLK_ON_MMIO,
             test_empty_removed);
}
