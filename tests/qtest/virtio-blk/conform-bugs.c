/*
 * virtio-blk qtests: bugs that other device models had
 *
 * Each is a line of tests/conformance/bugs; those that need a load, threads or
 * a made-up host device are in life-*.c and zoned.c.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_mmio.h"
#include "standard-headers/linux/virtio_pci.h"
#include "fake.h"
#include "life.h"

#define OK                  VIRTIO_BLK_S_OK
#define SECTORS             8
#define BYTES               (SECTORS * VBLK_SECTOR)

typedef struct virtio_blk_discard_write_zeroes Segment;

static Segment range(uint64_t sector, uint32_t num)
{
    return (Segment) {
        .sector = cpu_to_le64(sector),
        .num_sectors = cpu_to_le32(num),
    };
}

/* ---- ring sizes that were not offered ---- */

#define USED        8192        /* between available and used ring */

static const uint32_t bad_sizes[] = {
    0, 1, 3, 257, 1023, 1024, 1025, 32768, 65535, 65536, 0x80000000,
    UINT32_MAX,
};

/* Descriptors at @mem, the rings behind each other from @rings on. */
static void mmio_bad_size(Vblk *v, uint32_t size, uint64_t mem, uint64_t rings)
{
    qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_SEL, 0);
    qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_NUM, size);
    if (!vblk_is_modern(v)) {
        qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_ALIGN, 4096);
        qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_PFN, mem / 4096);
        return;
    }
    qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_DESC_LOW, mem);
    qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_AVAIL_LOW, rings);
    qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_USED_LOW, rings + USED);
    qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_READY, 1);
}

static void pci_bad_size(Vblk *v, uint32_t size, uint64_t mem, uint64_t rings)
{
    uint64_t at = v->common;

    qpci_io_writew(v->pdev, v->bar, at + VIRTIO_PCI_COMMON_Q_SELECT, 0);
    qpci_io_writew(v->pdev, v->bar, at + VIRTIO_PCI_COMMON_Q_SIZE, size);
    qpci_io_writel(v->pdev, v->bar, at + VIRTIO_PCI_COMMON_Q_DESCLO, mem);
    qpci_io_writel(v->pdev, v->bar, at + VIRTIO_PCI_COMMON_Q_AVAILLO, rings);
    qpci_io_writel(v->pdev, v->bar, at + VIRTIO_PCI_COMMON_Q_USEDLO,
                   rings + USED);
    qpci_io_writew(v->pdev, v->bar, at + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

/* A queue that says it has @size entries, and a doorbell. */
static void use_bad_size(Vblk *v, uint32_t size, uint64_t mem, uint64_t rings)
{
    vblk_reset(v);
    vblk_negotiate(v);
    if (vblk_is_pci(v)) {
        pci_bad_size(v, size, mem, rings);
    } else {
        mmio_bad_size(v, size, mem, rings);
    }
    vblk_driver_ok(v);
    if (vblk_is_pci(v)) {
        qpci_io_writew(v->pdev, v->bar, v->notify, 0);
    } else {
        qtest_writel(v->qts, v->mmio + VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    }
    g_usleep(5000);
}

/*
 * B5: twice as many entries as are offered, and a good request that begins at
 * one of those that can't be there.
 */
static void test_queue_beyond(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    unsigned max = vblk_queue_max(v, 0), head = max + max / 2;
    uint64_t mem = vblk_alloc(v, 2 * max * sizeof(struct vring_desc));
    uint64_t rings = vblk_alloc(v, USED + 4 + 2 * max * 8);
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(VIRTIO_BLK_T_FLUSH),
    };
    uint64_t out = vblk_put(v, &hdr, sizeof(hdr)), status = vblk_alloc(v, 1);
    struct vring_desc desc[2] = {
        { cpu_to_le64(out), cpu_to_le32(sizeof(hdr)),
          cpu_to_le16(VRING_DESC_F_NEXT), cpu_to_le16(head + 1) },
        { cpu_to_le64(status), cpu_to_le32(1),
          cpu_to_le16(VRING_DESC_F_WRITE) },
    };

    g_assert_cmpint(2 + 2 * max * 2, <, USED);
    qtest_writeb(v->qts, status, VBLK_S_UNTOUCHED);
    qtest_memwrite(v->qts, mem + head * sizeof(*desc), desc, sizeof(desc));
    qtest_writew(v->qts, rings + 4, head);
    qtest_writew(v->qts, rings + 2, 1);
    use_bad_size(v, 2 * max, mem, rings);
    g_assert_cmphex(qtest_readb(v->qts, status), ==, VBLK_S_UNTOUCHED);
    vblk_recover(v);
    vblk_stop(v);
}

/*
 * B5, CVE-2026-50626: ring sizes beyond the offered maximum, and others that
 * are none, over memory that is full of what looks like available requests.
 */
static void test_queue_size(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v = vblk_start(&o);
    uint64_t mem = vblk_alloc(v, 64 * 1024);
    unsigned max = vblk_queue_max(v, 0);

    qtest_memset(v->qts, mem, 0x11, 64 * 1024);
    for (unsigned i = 0; i < ARRAY_SIZE(bad_sizes); i++) {
        use_bad_size(v, bad_sizes[i], mem, mem);
        vblk_setup(v);
        g_assert_cmpint(vblk_queue_max(v, 0), ==, max);
        vblk_check_io(v, 0);
    }
    vblk_stop(v);
}

/* ---- ranges that the backend can't take as they are ---- */

/*
 * Row 23, B16, known bug "write zeroes gives EINVAL": a sector of zeroes on a
 * medium that writes blocks of 4096; the rest of the block stays as it was.
 */
static void test_small_zeroes(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint8_t data[BYTES], back[BYTES];
    Segment seg[] = { range(11, 1), range(15, 2), range(8, 3) };
    Vblk *v;

    o.blkdebug_opts = ",align=4096";
    v = vblk_start(&o);
    memset(data, 0x77, sizeof(data));
    g_assert_cmpint(vblk_write(v, 8, data, BYTES), ==, OK);
    g_assert_cmpint(vblk_write(v, 16, data, BYTES), ==, OK);
    for (unsigned i = 0; i < ARRAY_SIZE(seg); i++) {
        g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, &seg[i],
                                 sizeof(seg[i]), NULL), ==, OK);
    }
    memset(data, 0, 4 * VBLK_SECTOR);
    memset(data + 7 * VBLK_SECTOR, 0, VBLK_SECTOR);
    g_assert_cmpint(vblk_read(v, 8, back, BYTES), ==, OK);
    g_assert_cmpmem(data, BYTES, back, BYTES);
    g_assert_cmpint(vblk_read(v, 16, back, BYTES), ==, OK);
    g_assert_cmphex(back[VBLK_SECTOR - 1], ==, 0);
    g_assert_cmphex(back[VBLK_SECTOR], ==, 0x77);
    vblk_stop(v);
}

/* B17, known bug "division by zero": discard_granularity=0, and no discard. */
static void test_no_granularity(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Segment seg = range(8, 8);
    Vblk *v;

    o.props = "discard_granularity=0";
    v = vblk_start(&o);
    vblk_cfg(v, discard_sector_alignment);
    g_assert_cmpint(vblk_cmd(v, 0, VIRTIO_BLK_T_DISCARD, 0, &seg, sizeof(seg),
                             NULL), ==, OK);
    vblk_check_io(v, 0);
    vblk_stop(v);

    o.props = "discard=off";
    v = vblk_start(&o);
    g_assert_false(v->host_features & VBLK_BIT(VIRTIO_BLK_F_DISCARD));
    /* Done or refused, but not a crash. */
    vblk_cmd(v, 0, VIRTIO_BLK_T_DISCARD, 0, &seg, sizeof(seg), NULL);
    vblk_check_io(v, 0);
    vblk_stop(v);
}

/*
 * B22, known bug "raw over a zoned host device": it hides the zones, but the
 * rules of host-managed ones hold all the same.  No guest could use such a
 * disk.
 */
static void test_raw_over_zoned(void)
{
    g_autofree char *blockdev = NULL;
    VblkOpts o = {};
    VblkFake f;

    if (!vblk_needs_version(8, 1, "zones") ||
        !vblk_fake_begin(&f, 1024 * VBLK_SECTOR)) {
        return;
    }
    vblk_fake_set(&f, "queue/zoned", "host-managed");
    vblk_fake_set(&f, "zones", "");
    vblk_fake_set_num(&f, "queue/chunk_sectors", 128);
    vblk_fake_set_num(&f, "queue/nr_zones", 8);
    vblk_fake_set_num(&f, "queue/max_open_zones", 0);
    vblk_fake_set_num(&f, "queue/max_active_zones", 0);
    vblk_fake_set_num(&f, "queue/zone_append_max_bytes", 32768);
    vblk_fake_use(&f, &o, NULL);
    blockdev = g_strdup_printf("-blockdev driver=host_device,node-name=host0,"
                               "filename=%s,cache.direct=on -blockdev "
                               "driver=raw,node-name=" VBLK_NODE ",file=host0,"
                               "cache.direct=on", f.image);
    o.blockdev = blockdev;
    vblk_fails(&o, "host-managed", "use drive=host0", NULL);
    vblk_fake_end(&f);
}

/* ---- the cache ---- */

#define MANY                16

/* B18, known bug "slow FUA": a write-through write is made durable once. */
static void test_one_flush(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) {
        .log = true, .json = "\"write-cache\":\"off\",",
    });
    unsigned before = life_log_flags(vm, LIFE_LOG_FUA) +
                      life_log_flags(vm, LIFE_LOG_FLUSH);

    for (unsigned i = 0; i < MANY; i++) {
        life_ok(vm, life_write_kick(vm, 0, i * LIFE_SECTORS * 2, i + 1));
    }
    g_assert_cmpint(life_log_flags(vm, LIFE_LOG_FUA) +
                    life_log_flags(vm, LIFE_LOG_FLUSH) - before, ==, MANY);
    life_stop(vm);
}

/* Row 28: a FLUSH reaches the medium, after the writes that came before it. */
static void test_flush_reaches(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .log = true });

    for (unsigned i = 1; i <= 3; i++) {
        unsigned flushes = life_log_flags(vm, LIFE_LOG_FLUSH);

        life_ok(vm, life_write_kick(vm, 0, 64, i));
        g_assert_cmpint(life_log_flags(vm, LIFE_LOG_FLUSH), ==, flushes);
        g_assert_cmpint(life_log_count(vm, 64, 1), ==, i);
        g_assert_cmpint(vblk_flush(vm->v), ==, OK);
        g_assert_cmpint(life_log_flags(vm, LIFE_LOG_FLUSH), ==, flushes + 1);
    }
    life_stop(vm);
}

/* ---- the host's asynchronous I/O ---- */

/* Instead of a value of aio=: our own io_uring engine. */
#define OUR_ENGINE          "engine"

/* A disk whose file is read as @aio says, or the reason why there is none. */
static char *add_disk(Vblk *v, const char *image, const char *aio, bool direct)
{
    QDict *resp = vblk_qmp(v, "{'execute': 'blockdev-add', 'arguments': "
                           "{'driver': 'raw', 'node-name': 'disk0', 'file': "
                           "{'driver': 'file', 'filename': %s, 'aio': %s, "
                           "'node-name': 'file0', 'cache': "
                           "{'direct': %i}}}}", image, aio, direct);
    char *why = NULL;

    if (qdict_haskey(resp, "error")) {
        why = g_strdup_printf("aio=%s: %s", aio,
            qdict_get_str(qdict_get_qdict(resp, "error"), "desc"));
    }
    qobject_unref(resp);
    return why;
}

static bool runs_our_engine(Vblk *v)
{
    g_autofree char *engine = vblk_qom_str(v, "engine");

    return !strcmp(engine, "io_uring");
}

/* A machine with an iothread and such a disk; or NULL and a skipped test. */
static Vblk *start_aio(const char *image, const char *aio, bool direct)
{
    bool ours = !strcmp(aio, OUR_ENGINE);
    bool choice = vblk_has_prop("virtio-blk-device", "io-engine");
    VblkOpts o = {
        .machine = "pc", .hotplug = true, .no_disk = true, .iothread = true,
        .props = ours ? "io-engine=io_uring" :
                 choice ? "io-engine=block" : NULL,
    };
    g_autofree char *why = NULL;
    Vblk *v;

    if (ours && !vblk_needs_prop("io-engine")) {
        return NULL;
    }
    v = vblk_launch(&o);
    why = add_disk(v, image, ours ? "threads" : aio, direct);
    if (!why) {
        vblk_device_add(v);
        vblk_attach(v);
        vblk_setup(v);
        if (!ours || runs_our_engine(v)) {
            return v;
        }
        why = g_strdup("the kernel has no io_uring for this user");
    }
    g_test_skip(why);
    vblk_stop(v);
    return NULL;
}

/*
 * B14, known bug "stuck after an io_uring resubmit": the host reads less than
 * it was asked for, as the file ends there.  What is missing reads as zero.
 */
static void test_short_read(const void *aio)
{
    bool direct = !strcmp(aio, "native");
    g_autofree char *image = life_temp("short", LIFE_DISK_SIZE);
    uint8_t data[BYTES];
    VblkIo *io[MANY];
    Vblk *v = start_aio(image, aio, direct);

    if (!v) {
        unlink(image);
        return;
    }
    memset(data, 0x33, BYTES);
    g_assert_cmpint(vblk_write(v, 0, data, BYTES), ==, OK);
    g_assert_cmpint(vblk_flush(v), ==, OK);
    g_assert_cmpint(truncate(image, 1000), ==, 0);
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < MANY; i++) {
            io[i] = vblk_io(v, 0, VIRTIO_BLK_T_IN, 0, NULL, BYTES);
            qtest_memset(v->qts, io[i]->data, VBLK_FILL, BYTES);
        }
        vblk_kick(v, 0);
        for (unsigned i = 0; i < MANY; i++) {
            g_assert_cmpint(vblk_io_wait(v, io[i], data), ==, OK);
            g_assert_cmphex(data[999], ==, 0x33);
            g_assert_cmphex(data[1000], ==, 0);
            g_assert_cmphex(data[BYTES - 1], ==, 0);
        }
    }
    g_assert_cmpint(truncate(image, LIFE_DISK_SIZE), ==, 0);
    vblk_check_io(v, 0);
    vblk_stop(v);
    unlink(image);
}

/* Microseconds that some task waited for I/O, or -1. */
static int64_t io_pressure(void)
{
    g_autofree char *text = NULL;
    const char *total;

    if (!g_file_get_contents("/proc/pressure/io", &text, NULL, NULL)) {
        return -1;
    }
    total = strstr(text, "total=");
    return total ? g_ascii_strtoll(total + 6, NULL, 10) : -1;
}

#define IDLE_US             (400 * 1000)

/* The lowest growth of io_pressure() in some spans of IDLE_US. */
static int64_t idle_pressure(void)
{
    int64_t best = INT64_MAX;

    for (unsigned i = 0; i < 5; i++) {
        int64_t before = io_pressure();

        g_usleep(IDLE_US);
        best = MIN(best, io_pressure() - before);
    }
    return best;
}

/* The pressure while the machine does nothing; -1: there is no machine. */
static int64_t pressure_with(const char *image, const char *aio)
{
    Vblk *v = start_aio(image, aio, false);
    int64_t pressure;

    if (!v) {
        return -1;
    }
    vblk_check_io(v, 0);
    g_usleep(100 * 1000);
    pressure = idle_pressure();
    vblk_stop(v);
    return pressure;
}

/*
 * B15, known bug "~100% I/O pressure on an idle VM": io_uring's wait for events
 * counted as I/O.  One task that always waits makes 100% of one processor.  The
 * number is the whole host's: high with the machine and low without it, again
 * and again, it is the machine's.
 */
static void test_idle_pressure(const void *aio)
{
    g_autofree char *image = life_temp("idle", LIFE_DISK_SIZE);
    int64_t one_waits = IDLE_US / g_get_num_processors();
    bool quiet = io_pressure() >= 0 && idle_pressure() < one_waits / 4;
    int64_t with = INT64_MAX;

    for (unsigned i = 0; i < 3 && quiet && with >= one_waits / 2; i++) {
        with = pressure_with(image, aio);
        quiet = with < one_waits / 2 || idle_pressure() < one_waits / 4;
    }
    unlink(image);
    if (!quiet) {
        g_test_skip("the host has no /proc/pressure/io, or other I/O to do");
    } else {
        g_assert_cmpint(with, <, one_waits / 2);
    }
}

void vblk_add_conform_bug_tests(void)
{
    vblk_add("conform/queue-size", VBLK_ON_MODERN | VBLK_ON_MMIO_LEGACY,
             test_queue_size);
    vblk_add("conform/queue-beyond", VBLK_ON_SPLIT | VBLK_ON_IOTHREAD |
             VBLK_ON_MMIO, test_queue_beyond);
    vblk_add("conform/small-zeroes", VBLK_ON_MOST, test_small_zeroes);
    vblk_add("conform/no-granularity", VBLK_ON_MOST, test_no_granularity);
    vblk_add_one("conform/raw-over-zoned", test_raw_over_zoned);
    life_add("conform/one-flush", LIFE_SPLIT | LIFE_MMIO | LIFE_LEGACY,
             test_one_flush);
    life_add("conform/flush-reaches", LIFE_SPLIT | LIFE_MMIO | LIFE_LEGACY,
             test_flush_reaches);
    vblk_add_data("conform/short-read/threads", "threads", test_short_read);
    vblk_add_data("conform/short-read/native", "native", test_short_read);
    vblk_add_data("conform/short-read/io_uring", "io_uring", test_short_read);
    vblk_add_data("conform/short-read/" OUR_ENGINE, OUR_ENGINE,
                  test_short_read);
    vblk_add_data("conform/idle-pressure/io_uring", "io_uring",
                  test_idle_pressure);
    vblk_add_data("conform/idle-pressure/" OUR_ENGINE, OUR_ENGINE,
                  test_idle_pressure);
}
