/*
 * virtio-blk qtests: the profile of Haiku's virtio_block (2013)
 *
 * One request at a time; header and status byte lie behind each other in one
 * page that is used for all of them; ioprio is always 1.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/units.h"
#include "historic.h"

#define WANTED \
    (VBLK_BIT(0) /* BARRIER */ | VBLK_BIT(VIRTIO_BLK_F_SIZE_MAX) | \
     VBLK_BIT(VIRTIO_BLK_F_SEG_MAX) | VBLK_BIT(VIRTIO_BLK_F_GEOMETRY) | \
     VBLK_BIT(VIRTIO_BLK_F_RO) | VBLK_BIT(VIRTIO_BLK_F_BLK_SIZE) | \
     VBLK_BIT(VIRTIO_BLK_F_FLUSH) | VBLK_BIT(VIRTIO_BLK_F_TOPOLOGY) | \
     VBLK_BIT(VIRTIO_RING_F_INDIRECT_DESC))
/* The structure that it knows ends here. */
#define CONFIG_LEN          offsetof(struct virtio_blk_config, num_queues)
#define IOPRIO              1
#define STATUS_AT           sizeof(struct virtio_blk_outhdr)
#define SMALL_PAGE          4096
#define DISK                (16 * MiB)

typedef struct Haiku {
    Vblk *v;
    OldRing ring;
    uint32_t features;
    struct virtio_blk_config cfg;
    uint64_t blocks;            /* of block_size bytes */
    uint32_t block_size, physical;
    uint64_t page;              /* header and status byte */
    uint32_t used;              /* used.len of the last request */
} Haiku;

/* One go from offset 0 on, in the widest accesses that fit. */
static void read_config(Haiku *h)
{
    uint8_t *to = (uint8_t *)&h->cfg;
    unsigned from = old_config(h->v);

    for (unsigned at = 0, step; at < CONFIG_LEN; at += step) {
        unsigned left = CONFIG_LEN - at;

        step = left >= 4 ? 4 : left >= 2 ? 2 : 1;
        if (step == 4) {
            stl_le_p(to + at, old_read32(h->v, from + at));
        } else if (step == 2) {
            stw_le_p(to + at, old_read16(h->v, from + at));
        } else {
            to[at] = old_read8(h->v, from + at);
        }
    }
    h->block_size = h->features & VBLK_BIT(VIRTIO_BLK_F_BLK_SIZE) ?
                    le32_to_cpu(h->cfg.blk_size) : VBLK_SECTOR;
    h->blocks = le64_to_cpu(h->cfg.capacity) * VBLK_SECTOR / h->block_size;
    h->physical = h->block_size;
    if (h->features & VBLK_BIT(VIRTIO_BLK_F_TOPOLOGY)) {
        h->physical <<= h->cfg.physical_block_exp;
    }
}

static void setup(Haiku *h)
{
    Vblk *v = h->v;

    old_write8(v, VIRTIO_PCI_STATUS, 0);    /* and does not look again */
    old_add_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    old_add_status(v, VIRTIO_CONFIG_S_DRIVER);
    h->features = old_read32(v, VIRTIO_PCI_HOST_FEATURES) & WANTED;
    old_write32(v, VIRTIO_PCI_GUEST_FEATURES, h->features);
    read_config(h);
    old_ring_make(v, &h->ring);
    h->ring.indirect = h->features & VBLK_BIT(VIRTIO_RING_F_INDIRECT_DESC);
    old_ring_place(v, &h->ring);
    if (v->o.msix) {
        old_write16(v, VIRTIO_MSI_CONFIG_VECTOR, 0);
        old_write16(v, VIRTIO_MSI_QUEUE_VECTOR, 1);
    }
    old_add_status(v, VIRTIO_CONFIG_S_DRIVER_OK);
}

static Haiku *haiku_start(const VblkOpts *o)
{
    Haiku *h = g_new0(Haiku, 1);

    h->v = old_launch(o);
    h->page = vblk_alloc(h->v, SMALL_PAGE);
    setup(h);
    return h;
}

/* Unload: reset without a look back, memory given back at once. */
static void uninit(Haiku *h)
{
    old_write8(h->v, VIRTIO_PCI_STATUS, 0);
    old_ring_free(h->v, &h->ring);
}

static void haiku_stop(Haiku *h)
{
    uninit(h);
    vblk_stop(h->v);
    g_free(h);
}

/* Put a request into the ring, with the page's header and status byte. */
static void request(Haiku *h, bool out, uint64_t sector, const VblkSeg *data,
                    unsigned n)
{
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(out ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN),
        .ioprio = cpu_to_le32(IOPRIO),
        .sector = cpu_to_le64(sector),
    };
    VblkSeg seg[OLD_MAX_SEGS] = { { h->page, sizeof(hdr) } };
    QTestState *qts = h->v->qts;

    g_assert_cmpint(n, <=, le32_to_cpu(h->cfg.seg_max));
    qtest_memwrite(qts, h->page, &hdr, sizeof(hdr));
    qtest_writeb(qts, h->page + STATUS_AT, VBLK_S_UNTOUCHED);
    memcpy(&seg[1], data, n * sizeof(*data));
    seg[n + 1] = (VblkSeg) { h->page + STATUS_AT, 1 };
    g_assert_true(old_ring_add(&h->ring, seg, out ? 1 + n : 1,
                               out ? 1 : n + 1, h));
    old_ring_show(&h->ring);
    if (!(qtest_readw(qts, h->ring.used) & VRING_USED_F_NO_NOTIFY)) {
        old_write16(h->v, VIRTIO_PCI_QUEUE_NOTIFY, 0);
    }
}

/* The interrupt handler wakes who waits: the status byte of the page. */
static uint8_t answer(Haiku *h)
{
    do {
        old_wait_irq(h->v);     /* maybe one of before a reset */
    } while (!old_ring_take(&h->ring, &h->used));
    return qtest_readb(h->v->qts, h->page + STATUS_AT);
}

static uint8_t transfer(Haiku *h, bool out, uint64_t sector,
                        const VblkSeg *data, unsigned n)
{
    request(h, out, sector, data, n);
    return answer(h);
}

/* @n pieces of @len bytes, each in a page of its own. */
static void scatter(Haiku *h, VblkSeg *seg, unsigned n, uint32_t len)
{
    for (unsigned i = 0; i < n; i++) {
        seg[i] = (VblkSeg) { vblk_alloc(h->v, SMALL_PAGE), len };
    }
}

static void gather(Haiku *h, const VblkSeg *seg, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        vblk_free(h->v, seg[i].addr);
    }
}

/* Write with @n pieces, look into the image; then the same for a read. */
static void check_rw(Haiku *h, uint64_t sector, unsigned n, uint32_t piece,
                     uint32_t seed)
{
    const uint32_t len = n * piece;
    g_autofree uint8_t *data = g_malloc(len), *back = g_malloc(len);
    VblkSeg seg[OLD_MAX_SEGS];

    vblk_pattern(data, len, seed);
    scatter(h, seg, n, piece);
    for (unsigned i = 0; i < n; i++) {
        qtest_memwrite(h->v->qts, seg[i].addr, data + i * piece, piece);
    }
    g_assert_cmpint(transfer(h, true, sector, seg, n), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(h->used, ==, 1);
    old_image_read(h->v, sector, back, len);
    g_assert_cmpmem(data, len, back, len);

    vblk_pattern(data, len, seed + 1);
    old_image_write(h->v, sector, data, len);
    g_assert_cmpint(transfer(h, false, sector, seg, n), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(h->used, ==, len + 1);
    for (unsigned i = 0; i < n; i++) {
        qtest_memread(h->v->qts, seg[i].addr, back + i * piece, piece);
    }
    g_assert_cmpmem(data, len, back, len);
    gather(h, seg, n);
}

/* The disk that it finds: sizes, geometry, topology. */
static void test_probe(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    g_autofree char *props = g_strdup_printf("%s%sphysical_block_size=4096",
                                             c->props ?: "",
                                             c->props ? "," : "");
    Haiku *h;

    o.props = props;
    h = haiku_start(&o);
    g_assert_cmphex(h->features & ~VBLK_BIT(VIRTIO_RING_F_INDIRECT_DESC), ==,
                    VBLK_BIT(VIRTIO_BLK_F_SEG_MAX) |
                    VBLK_BIT(VIRTIO_BLK_F_GEOMETRY) |
                    VBLK_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                    VBLK_BIT(VIRTIO_BLK_F_FLUSH) |
                    VBLK_BIT(VIRTIO_BLK_F_TOPOLOGY));
    g_assert_cmpint(h->blocks, ==, DISK / 512);
    g_assert_cmpint(h->block_size, ==, 512);
    g_assert_cmpint(h->physical, ==, 4096);
    g_assert_cmpint(le32_to_cpu(h->cfg.size_max), ==, 0);
    g_assert_cmpint(le32_to_cpu(h->cfg.seg_max), ==, 256 - 2);
    g_assert_cmpint(h->cfg.geometry.heads, ==, 16);
    g_assert_cmpint(h->cfg.geometry.sectors, ==, 63);
    g_assert_cmpint(le16_to_cpu(h->cfg.geometry.cylinders), ==,
                    DISK / 512 / 16 / 63);
    g_assert_cmphex(old_read8(h->v, VIRTIO_PCI_STATUS), ==,
                    VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                    VIRTIO_CONFIG_S_DRIVER_OK);
    check_rw(h, 0, 1, 512, 1);
    haiku_stop(h);
}

/* Large logical blocks change its unit, not that of the wire. */
static void test_big_blocks(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    g_autofree char *props =
        g_strdup_printf("%s%slogical_block_size=4096,physical_block_size=4096",
                        c->props ?: "", c->props ? "," : "");
    Haiku *h;

    o.props = props;
    h = haiku_start(&o);
    g_assert_cmpint(h->block_size, ==, 4096);
    g_assert_cmpint(h->physical, ==, 4096);
    g_assert_cmpint(h->blocks, ==, DISK / 4096);
    check_rw(h, (h->blocks - 1) * h->block_size / VBLK_SECTOR, 1, 4096, 1);
    haiku_stop(h);
}

/* One request at a time, one page for all, any number of pieces. */
static void test_io(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Haiku *h = haiku_start(&o);
    unsigned most = le32_to_cpu(h->cfg.seg_max);

    for (unsigned i = 0; i < 40; i++) {
        check_rw(h, i * 37, 1 + i % 7, 512 << i % 4, i * 2);
    }
    check_rw(h, 1000, most, SMALL_PAGE, 100);
    check_rw(h, DISK / 512 - 1, 1, 512, 101);
    haiku_stop(h);
}

/* What it takes for an I/O error; the next request is served as before. */
static void test_errors(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Haiku *h;
    VblkSeg seg[2];

    o.blkdebug_opts = ",inject-error.0.event=read_aio,"
                      "inject-error.0.sector=8,inject-error.0.errno=5,"
                      "inject-error.0.once=on";
    h = haiku_start(&o);
    scatter(h, seg, 2, 512);
    g_assert_cmpint(transfer(h, false, 8, seg, 2), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(h->used, ==, 1);
    check_rw(h, 8, 2, 512, 5);
    g_assert_cmpint(transfer(h, true, h->blocks - 1, seg, 2), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(transfer(h, false, h->blocks, seg, 1), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(h->used, ==, 1);
    check_rw(h, h->blocks - 2, 2, 512, 6);
    gather(h, seg, 2);
    haiku_stop(h);
}

/* It takes RO, and the device refuses what it should not have sent. */
static void test_read_only(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    uint8_t data[512];
    Haiku *h;
    VblkSeg seg;

    o.disk_opts = ",read-only=on";
    o.file_opts = ",read-only=on";
    h = haiku_start(&o);
    g_assert_true(h->features & VBLK_BIT(VIRTIO_BLK_F_RO));
    scatter(h, &seg, 1, 512);
    qtest_memset(h->v->qts, seg.addr, 0x11, 512);
    g_assert_cmpint(transfer(h, true, 3, &seg, 1), ==, VIRTIO_BLK_S_IOERR);
    old_image_read(h->v, 3, data, sizeof(data));
    g_assert_true(buffer_is_zero(data, sizeof(data)));
    g_assert_cmpint(transfer(h, false, 3, &seg, 1), ==, VIRTIO_BLK_S_OK);
    g_assert_true(vblk_mem_is(h->v, seg.addr, 0, 512));
    gather(h, &seg, 1);
    haiku_stop(h);
}

/*
 * After 10 s it gives a request up and uses the page for the next one while
 * the device still has the first: what the header says by then must not turn
 * the late read into a write, nor move it.
 */
static void test_late_answer(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    uint8_t data[512], back[512];
    uint32_t both;
    Haiku *h;
    VblkSeg seg[2];

    o.throttle = true;
    h = haiku_start(&o);
    scatter(h, seg, 2, 512);
    vblk_pattern(data, sizeof(data), 1);
    old_image_write(h->v, 20, data, sizeof(data));
    vblk_throttle_on(h->v);
    request(h, false, 20, &seg[0], 1);
    g_usleep(20000);
    g_assert_cmpint(qtest_readw(h->v->qts, h->ring.used + 2), ==, 0);
    vblk_pattern(data, sizeof(data), 2);
    qtest_memwrite(h->v->qts, seg[1].addr, data, sizeof(data));
    request(h, true, 30, &seg[1], 1);
    vblk_throttle_off(h->v);
    while (qtest_readw(h->v->qts, h->ring.used + 2) < 2) {
        g_usleep(100);          /* vblk_launch()'s alarm ends it */
    }
    g_assert_cmpint(answer(h), ==, VIRTIO_BLK_S_OK);
    both = h->used;
    g_assert_true(old_ring_take(&h->ring, &h->used) == h);
    g_assert_cmpint(both + h->used, ==, 512 + 1 + 1);
    old_image_read(h->v, 30, back, sizeof(back));
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    vblk_pattern(data, sizeof(data), 1);
    qtest_memread(h->v->qts, seg[0].addr, back, sizeof(back));
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    old_image_read(h->v, 20, back, sizeof(back));
    g_assert_cmpmem(data, sizeof(data), back, sizeof(back));
    gather(h, seg, 2);
    haiku_stop(h);
}

/* A configuration interrupt makes it read the structure again. */
static void test_resize(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Haiku *h = haiku_start(&o);
    VblkSeg seg;

    old_resize(h->v, 2 * DISK);
    old_wait_config_irq(h->v);
    read_config(h);
    g_assert_cmpint(h->blocks, ==, 2 * DISK / 512);
    check_rw(h, h->blocks - 8, 8, 512, 1);

    old_resize(h->v, DISK);
    old_wait_config_irq(h->v);
    read_config(h);
    g_assert_cmpint(h->blocks, ==, DISK / 512);
    check_rw(h, h->blocks - 8, 8, 512, 3);
    scatter(h, &seg, 1, 512);
    g_assert_cmpint(transfer(h, false, h->blocks, &seg, 1), ==,
                    VIRTIO_BLK_S_IOERR);
    gather(h, &seg, 1);
    haiku_stop(h);
}

/*
 * Unload with a request in the device, and load again, with never a look at
 * the status: once the write of 0 is through, the memory is the driver's.
 */
static void test_reload(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Haiku *h;

    o.throttle = true;
    h = haiku_start(&o);
    for (unsigned i = 0; i < 4; i++) {
        VblkSeg seg[2];

        scatter(h, seg, 2, 512);
        vblk_throttle_on(h->v);
        request(h, i % 2, 40, seg, 2);
        if (i & 2) {
            g_usleep(10000);    /* else the doorbell may not be seen yet */
        }
        uninit(h);
        qtest_memset(h->v->qts, h->page, VBLK_FILL, SMALL_PAGE);
        qtest_memset(h->v->qts, seg[0].addr, VBLK_FILL, 512);
        vblk_throttle_off(h->v);
        g_usleep(5000);
        g_assert_true(vblk_mem_is(h->v, h->page, VBLK_FILL, SMALL_PAGE));
        g_assert_true(vblk_mem_is(h->v, seg[0].addr, VBLK_FILL, 512));
        setup(h);
        g_assert_cmpint(qtest_readw(h->v->qts, h->ring.used + 2), ==, 0);
        gather(h, seg, 2);
        check_rw(h, 40, 3, 1024, i);
    }
    haiku_stop(h);
}

void vblk_add_haiku_tests(void)
{
    old_add("haiku/probe", test_probe);
    old_add("haiku/big-blocks", test_big_blocks);
    old_add("haiku/io", test_io);
    old_add("haiku/errors", test_errors);
    old_add("haiku/read-only", test_read_only);
    old_add("haiku/late-answer", test_late_answer);
    old_add("haiku/resize", test_resize);
    old_add("haiku/reload", test_reload);
}
