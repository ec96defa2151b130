/*
 * virtio-blk qtests: a zoned disk that the host's kernel has
 *
 * zoned.c has a made-up one.  Here VBLK_ZONED names a host-managed disk, with
 * seven sequential zones or more, which loses what is on it: what the device
 * says of it, and does to it, is compared with what the host's kernel says.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include "qemu/bswap.h"
#include "qemu/memalign.h"
#include "zoned.h"

#define OK              VIRTIO_BLK_S_OK
#define UNALIGNED       VIRTIO_BLK_S_ZONE_UNALIGNED_WP
#define MAX_ZONES       64
#define REPORT_LEN      (64 + MAX_ZONES * 64)

/* PCI in the main loop; MMIO with packed rings in an iothread. */
#define WHERE           (VBLK_ON_SPLIT | VBLK_ON_MMIO_IOT)

typedef struct Host {
    const char *disk;
    int fd;
    char *blockdev;
    unsigned seq;               /* the first sequential zone */
    unsigned zones;
    struct blk_zone zone[MAX_ZONES];
} Host;

/* Read the state of all zones into h->zone. */
static void host_look(Host *h)
{
    const size_t size = sizeof(struct blk_zone_report);
    g_autofree struct blk_zone_report *r = g_malloc0(size + sizeof(h->zone));

    r->nr_zones = MAX_ZONES;
    g_assert_cmpint(ioctl(h->fd, BLKREPORTZONE, r), ==, 0);
    h->zones = r->nr_zones;
    memcpy(h->zone, r->zones, sizeof(h->zone));
}

/* Is zone @i in that state, with its pointer @wp sectors from its start? */
static void host_check(Host *h, unsigned i, uint8_t cond, unsigned wp)
{
    host_look(h);
    g_assert_cmpint(h->zone[i].cond, ==, cond);
    if (cond != BLK_ZONE_COND_FULL) {
        g_assert_cmpint(h->zone[i].wp, ==, h->zone[i].start + wp);
    }
}

static uint64_t start_of(Host *h, unsigned i)
{
    return h->zone[i].start;
}

/* Do @sectors of the disk hold the pattern of @seed?  Not asking QEMU. */
static bool host_has(Host *h, uint64_t sector, unsigned sectors, uint32_t seed)
{
    g_autofree uint8_t *want = g_malloc(sectors * 512);
    uint8_t *got = qemu_memalign(4096, sectors * 512);
    int fd = open(h->disk, O_RDONLY | O_DIRECT);
    bool same;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, got, sectors * 512, sector * 512), ==,
                    sectors * 512);
    close(fd);
    vblk_pattern(want, sectors * 512, seed);
    same = !memcmp(got, want, sectors * 512);
    qemu_vfree(got);
    return same;
}

static void host_reset(Host *h)
{
    struct blk_zone *last = &h->zone[h->zones - 1];
    struct blk_zone_range range = { .sector = start_of(h, h->seq) };

    range.nr_sectors = last->start + last->len - range.sector;
    g_assert_cmpint(ioctl(h->fd, BLKRESETZONE, &range), ==, 0);
}

/* Find the disk, with all zones empty; false: the test is skipped. */
static bool host_begin(Host *h)
{
    *h = (Host) { .disk = g_getenv("VBLK_ZONED") };
    if (!h->disk) {
        g_test_skip("VBLK_ZONED names no zoned disk");
        return false;
    }
    h->fd = open(h->disk, O_RDWR);
    g_assert_cmpint(h->fd, >=, 0);
    host_look(h);
    while (h->zone[h->seq].type == BLK_ZONE_TYPE_CONVENTIONAL) {
        h->seq++;
    }
    g_assert_cmpint(h->zones, >=, h->seq + 7);
    host_reset(h);
    h->blockdev = g_strdup_printf("-blockdev driver=host_device,node-name="
                                  VBLK_NODE ",filename=%s,cache.direct=on",
                                  h->disk);
    return true;
}

static void host_end(Host *h)
{
    close(h->fd);
    g_free(h->blockdev);
}

static Vblk *start(Host *h, const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);

    if (!host_begin(h)) {
        return NULL;
    }
    o.blockdev = h->blockdev;
    return vblk_start(&o);
}

static void stop(Host *h, Vblk *v)
{
    vblk_stop(v);
    host_end(h);
}

/* What /sys says of the disk's queue, a word or a number. */
static char *host_attr(Host *h, const char *name)
{
    g_autofree char *disk = g_path_get_basename(h->disk);
    g_autofree char *path = g_strdup_printf("/sys/class/block/%s/queue/%s",
                                            disk, name);
    char *text;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return g_strchomp(text);
}

static int64_t host_num(Host *h, const char *name)
{
    g_autofree char *text = host_attr(h, name);

    return g_ascii_strtoll(text, NULL, 10);
}

static void test_config(const VblkVariant *variant)
{
    Host h;
    Vblk *v = start(&h, variant);
    g_autofree char *model = NULL;
    uint64_t bytes;

    if (!v) {
        return;
    }
    model = host_attr(&h, "zoned");
    g_assert_cmpstr(model, ==, "host-managed");
    g_assert_cmpint(vblk_cfg(v, zoned.model), ==, VIRTIO_BLK_Z_HM);
    g_assert_cmpint(vblk_cfg(v, zoned.zone_sectors), ==,
                    host_num(&h, "chunk_sectors"));
    g_assert_cmpint(vblk_cfg(v, zoned.max_open_zones), ==,
                    host_num(&h, "max_open_zones"));
    g_assert_cmpint(vblk_cfg(v, zoned.max_active_zones), ==,
                    host_num(&h, "max_active_zones"));
    g_assert_cmpint(vblk_cfg(v, zoned.max_append_sectors), ==,
                    host_num(&h, "zone_append_max_bytes") / 512);
    g_assert_cmpint(vblk_cfg(v, zoned.write_granularity), ==,
                    host_num(&h, "physical_block_size"));
    g_assert_cmpint(ioctl(h.fd, BLKGETSIZE64, &bytes), ==, 0);
    g_assert_cmpint(vblk_cfg(v, capacity), ==, bytes / 512);
    stop(&h, v);
}

/* Does the device report what the host does, zone by zone? */
static void check_report(Host *h, Vblk *v)
{
    struct virtio_blk_zone_descriptor d[MAX_ZONES];
    uint64_t num;

    host_look(h);
    g_assert_cmpint(report(v, 0, REPORT_LEN, d, &num), ==, OK);
    g_assert_cmpint(num, ==, h->zones);
    for (unsigned i = 0; i < num; i++) {
        const struct blk_zone *zone = &h->zone[i];

        /* Type and condition have the same numbers in Linux and VIRTIO. */
        g_assert_cmpint(d[i].z_type, ==, zone->type);
        g_assert_cmpint(d[i].z_state, ==, zone->cond);
        g_assert_cmpint(le64_to_cpu(d[i].z_start), ==, zone->start);
        g_assert_cmpint(le64_to_cpu(d[i].z_cap), ==, zone->capacity);
        /* VIRTIO 1.4: no meaning where the zone has no pointer. */
        if (zone->cond >= BLK_ZONE_COND_EMPTY &&
            zone->cond <= BLK_ZONE_COND_CLOSED) {
            g_assert_cmpint(le64_to_cpu(d[i].z_wp), ==, zone->wp);
        }
    }
}

static void test_report(const VblkVariant *variant)
{
    Host h;
    Vblk *v = start(&h, variant);
    unsigned z = h.seq;

    if (!v) {
        return;
    }
    check_report(&h, v);
    g_assert_cmpint(write_at(v, start_of(&h, z), 8), ==, OK);
    g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_OPEN, start_of(&h, z + 1)),
                    ==, OK);
    g_assert_cmpint(write_at(v, start_of(&h, z + 2), 24), ==, OK);
    g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_CLOSE, start_of(&h, z + 2)),
                    ==, OK);
    g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_FINISH, start_of(&h, z + 3)),
                    ==, OK);
    check_report(&h, v);
    g_assert_cmpint(h.zone[z].cond, ==, BLK_ZONE_COND_IMP_OPEN);
    g_assert_cmpint(h.zone[z + 1].cond, ==, BLK_ZONE_COND_EXP_OPEN);
    g_assert_cmpint(h.zone[z + 2].cond, ==, BLK_ZONE_COND_CLOSED);
    g_assert_cmpint(h.zone[z + 3].cond, ==, BLK_ZONE_COND_FULL);
    stop(&h, v);
}

static void test_write(const VblkVariant *variant)
{
    Host h;
    Vblk *v = start(&h, variant);
    uint64_t at;

    if (!v) {
        return;
    }
    at = start_of(&h, h.seq);
    g_assert_cmpint(write_at(v, at + 8, 8), ==, UNALIGNED);
    host_check(&h, h.seq, BLK_ZONE_COND_EMPTY, 0);
    g_assert_cmpint(write_at(v, at, 8), ==, OK);
    host_check(&h, h.seq, BLK_ZONE_COND_IMP_OPEN, 8);
    g_assert_cmpint(write_at(v, at, 8), ==, UNALIGNED);
    g_assert_cmpint(write_at(v, at + 16, 8), ==, UNALIGNED);
    g_assert_cmpint(write_at(v, at + 8, 3), ==, OK);
    host_check(&h, h.seq, BLK_ZONE_COND_IMP_OPEN, 11);
    g_assert_true(host_has(&h, at, 8, at));
    g_assert_true(host_has(&h, at + 8, 3, at + 8));
    /* It would reach over what the zone holds. */
    g_assert_cmpint(write_at(v, at + h.zone[h.seq].capacity - 1, 2), ==,
                    VIRTIO_BLK_S_ZONE_INVALID_CMD);
    stop(&h, v);
}

static void test_append(const VblkVariant *variant)
{
    static const unsigned len[] = { 8, 1, 64, 7 };
    Host h;
    Vblk *v = start(&h, variant);
    uint64_t at, where;
    unsigned wp = 0;

    if (!v) {
        return;
    }
    at = start_of(&h, h.seq + 1);
    for (unsigned i = 0; i < ARRAY_SIZE(len); i++) {
        g_assert_cmpint(append(v, at, len[i], &where), ==, OK);
        g_assert_cmpint(where, ==, at + wp);
        g_assert_true(host_has(&h, where, len[i], 99));
        wp += len[i];
        host_check(&h, h.seq + 1, BLK_ZONE_COND_IMP_OPEN, wp);
        /* A write goes where the append has left off. */
        g_assert_cmpint(write_at(v, at + wp, 4), ==, OK);
        wp += 4;
    }
    g_assert_cmpint(append(v, at + 8, 8, &where), ==,
                    VIRTIO_BLK_S_ZONE_INVALID_CMD);
    host_check(&h, h.seq + 1, BLK_ZONE_COND_IMP_OPEN, wp);
    stop(&h, v);
}

static void test_states(const VblkVariant *variant)
{
    static const struct {
        uint32_t type;
        uint8_t cond;
        unsigned wp, write;     /* sectors; those written before */
    } step[] = {
        { VIRTIO_BLK_T_ZONE_OPEN, BLK_ZONE_COND_EXP_OPEN, 0 },
        { VIRTIO_BLK_T_ZONE_CLOSE, BLK_ZONE_COND_EMPTY, 0 },
        { VIRTIO_BLK_T_ZONE_CLOSE, BLK_ZONE_COND_CLOSED, 8, 8 },
        { VIRTIO_BLK_T_ZONE_OPEN, BLK_ZONE_COND_EXP_OPEN, 8 },
        { VIRTIO_BLK_T_ZONE_FINISH, BLK_ZONE_COND_FULL, 0 },
        { VIRTIO_BLK_T_ZONE_RESET, BLK_ZONE_COND_EMPTY, 0 },
        { VIRTIO_BLK_T_ZONE_RESET_ALL, BLK_ZONE_COND_EMPTY, 0, 8 },
    };
    Host h;
    Vblk *v = start(&h, variant);
    uint64_t at;

    if (!v) {
        return;
    }
    /* The first and the last; others stay alone. */
    for (unsigned z = h.seq; z < h.zones; z += h.zones - 1 - h.seq) {
        at = start_of(&h, z);
        for (unsigned i = 0; i < ARRAY_SIZE(step); i++) {
            g_assert_true(!step[i].write ||
                          write_at(v, at, step[i].write) == OK);
            g_assert_cmpint(zone_at(v, step[i].type, at), ==, OK);
            host_check(&h, z, step[i].cond, step[i].wp);
            host_check(&h, h.seq + 1, BLK_ZONE_COND_EMPTY, 0);
        }
    }
    stop(&h, v);
}

/* Open as many as the host lets us, then one more, which stays as it was. */
static void check_open_limit(Host *h, Vblk *v, unsigned limit)
{
    uint64_t more = start_of(h, h->seq + limit);

    for (unsigned i = 0; i < limit; i++) {
        g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_OPEN,
                                start_of(h, h->seq + i)), ==, OK);
    }
    g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_OPEN, more), ==,
                    VIRTIO_BLK_S_ZONE_OPEN_RESOURCE);
    g_assert_cmpint(write_at(v, more, 8), ==,
                    VIRTIO_BLK_S_ZONE_OPEN_RESOURCE);
    host_check(h, h->seq + limit, BLK_ZONE_COND_EMPTY, 0);
}

/* Likewise with zones that are written to and closed. */
static void check_active_limit(Host *h, Vblk *v, unsigned limit)
{
    for (unsigned i = 0; i < limit; i++) {
        uint64_t at = start_of(h, h->seq + i);

        g_assert_cmpint(write_at(v, at, 8), ==, OK);
        g_assert_cmpint(zone_at(v, VIRTIO_BLK_T_ZONE_CLOSE, at), ==, OK);
    }
    g_assert_cmpint(write_at(v, start_of(h, h->seq + limit), 8), ==,
                    VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE);
    host_check(h, h->seq + limit, BLK_ZONE_COND_EMPTY, 0);
}

static void test_limits(const VblkVariant *variant)
{
    Host h;
    Vblk *v = start(&h, variant);
    unsigned open, active;

    if (!v) {
        return;
    }
    open = host_num(&h, "max_open_zones");
    active = host_num(&h, "max_active_zones");
    g_assert_cmpint(open, >, 0);
    g_assert_cmpint(open, <, active);
    g_assert_cmpint(active, <, h.zones - h.seq);
    check_open_limit(&h, v, open);
    check_active_limit(&h, v, active);
    stop(&h, v);
}

typedef struct Engine {
    const char *name, *device, *props, *engine;
} Engine;

/* The first two need a /dev/vhost-blk where VBLK_ZONED is. */
static const Engine engines[] = {
    { "zoned-host/vhost-blk", "vhost-blk-pci", NULL, "vhost" },
    { "zoned-host/vhost", "virtio-blk-pci", "io-engine=vhost", "vhost" },
    { "zoned-host/io_uring", "virtio-blk-pci", "io-engine=io_uring",
      "io_uring" },
};

/* Only the block layer follows the zones' write pointers. */
static void test_engine(const void *data)
{
    const Engine *e = data;
    VblkOpts o = { .device = e->device, .props = e->props };
    g_autofree char *why = NULL;
    uint64_t where;
    Host h;
    Vblk *v;

    if (!vblk_has_type(e->device)) {
        g_test_skip("this QEMU has no vhost-blk (--disable-vhost-blk)");
        return;
    }
    if (!host_begin(&h)) {
        return;
    }
    o.blockdev = h.blockdev;
    v = vblk_start(&o);
    for (unsigned i = 0; i < 20; i++) {
        g_autofree char *engine = NULL;

        g_assert_cmpint(write_at(v, start_of(&h, h.seq) + i * 9, 8), ==, OK);
        g_assert_cmpint(append(v, start_of(&h, h.seq), 1, &where), ==, OK);
        g_assert_cmpint(where, ==, start_of(&h, h.seq) + i * 9 + 8);
        engine = vblk_qom_str(v, "engine");
        g_assert_cmpstr(engine, !=, e->engine);
    }
    why = vblk_qom_str(v, "engine-reason");
    g_assert_cmpstr(why, ==, "the disk has zones");
    stop(&h, v);
}

void vblk_add_zoned_host_tests(void)
{
    vblk_add("zoned-host/config", WHERE, test_config);
    vblk_add("zoned-host/report", WHERE, test_report);
    vblk_add("zoned-host/write", WHERE, test_write);
    vblk_add("zoned-host/append", WHERE, test_append);
    vblk_add("zoned-host/states", WHERE, test_states);
    vblk_add("zoned-host/limits", WHERE, test_limits);
    for (unsigned i = 0; i < ARRAY_SIZE(engines); i++) {
        vblk_add_data(engines[i].name, &engines[i], test_engine);
    }
}
