/*
 * virtio-blk qtests: the profile of Linux 3.x virtio_blk
 *
 * Many requests in flight, a doorbell a batch, the ring filled until nothing
 * goes in.  Partitions are read before DRIVER_OK, and so are the requests that
 * waited over a suspend: both go into a queue whose device status is not yet
 * what the specification of today asks for.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "hw/pci/pci_regs.h"
#include "fake.h"
#include "historic.h"

#define WANTED \
    (VBLK_BIT(VIRTIO_BLK_F_SEG_MAX) | VBLK_BIT(VIRTIO_BLK_F_SIZE_MAX) | \
     VBLK_BIT(VIRTIO_BLK_F_GEOMETRY) | VBLK_BIT(VIRTIO_BLK_F_RO) | \
     VBLK_BIT(VIRTIO_BLK_F_BLK_SIZE) | VBLK_BIT(VIRTIO_BLK_F_SCSI) | \
     VBLK_BIT(VIRTIO_BLK_F_FLUSH) | VBLK_BIT(VIRTIO_BLK_F_TOPOLOGY) | \
     VBLK_BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
     VBLK_BIT(VIRTIO_RING_F_EVENT_IDX))
#define STATUS_BITS \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | \
     VIRTIO_CONFIG_S_DRIVER_OK)
#define SENSE_LEN           96
#define ID_LEN              20
#define DISK                (16 * MiB)
#define BLOCK               1024
#define BLOCK_SECTORS       (BLOCK / VBLK_SECTOR)
#define ERRORS_NOT_RUN      255

/* A request: the driver's part lies in front of the data, in one piece. */
typedef struct Rq {
    QTAILQ_ENTRY(Rq) next;
    uint32_t type;
    uint64_t sector;
    uint32_t len, seed;
    uint64_t mem;               /* header, command, sense, in-header, status */
    uint64_t data;
    bool done;
    uint8_t status;
    uint32_t used;
} Rq;

typedef QTAILQ_HEAD(, Rq) RqList;

typedef struct Linux {
    Vblk *v;
    OldRing ring;
    uint32_t features;
    uint64_t capacity;
    uint32_t seg_max, blk_size;
    RqList waiting;             /* the block layer's queue */
    RqList flying;              /* on the ring; gone over with a suspend */
    unsigned full;              /* times that the ring was full */
    uint8_t saved_status;
} Linux;

/* Where the parts of a request lie in rq->mem. */
enum {
    AT_HEADER = 0, AT_STATUS = 16, AT_COMMAND = 32, AT_INHDR = 64,
    AT_SENSE = 128, RQ_MEM = 256,
};

static bool has(Linux *l, unsigned bit)
{
    return l->features & VBLK_BIT(bit);
}

/* The legacy bus code reads configuration byte by byte, whatever the field. */
static uint64_t config(Linux *l, unsigned off, unsigned len)
{
    uint8_t data[8] = {};

    for (unsigned i = 0; i < len; i++) {
        data[i] = old_read8(l->v, old_config(l->v) + off + i);
    }
    return ldq_le_p(data);
}
#define CONFIG(l, field) \
    config(l, offsetof(struct virtio_blk_config, field), \
           sizeof(((struct virtio_blk_config *)0)->field))

/* ---- the queue ---- */

static void find_queue(Linux *l)
{
    Vblk *v = l->v;

    if (v->o.msix) {
        old_write16(v, VIRTIO_MSI_CONFIG_VECTOR, 0);
        g_assert_cmpint(old_read16(v, VIRTIO_MSI_CONFIG_VECTOR), ==, 0);
    }
    old_ring_make(v, &l->ring);
    l->ring.indirect = has(l, VIRTIO_RING_F_INDIRECT_DESC);
    old_ring_place(v, &l->ring);
    if (v->o.msix) {
        old_write16(v, VIRTIO_MSI_QUEUE_VECTOR, 1);
        g_assert_cmpint(old_read16(v, VIRTIO_MSI_QUEUE_VECTOR), ==, 1);
    }
}

static void delete_queue(Linux *l)
{
    Vblk *v = l->v;

    old_write16(v, VIRTIO_PCI_QUEUE_SEL, 0);
    if (v->o.msix) {
        old_write16(v, VIRTIO_MSI_QUEUE_VECTOR, VIRTIO_MSI_NO_VECTOR);
        old_read8(v, VIRTIO_PCI_ISR);
    }
    old_write32(v, VIRTIO_PCI_QUEUE_PFN, 0);
    if (v->o.msix) {
        old_write16(v, VIRTIO_MSI_CONFIG_VECTOR, VIRTIO_MSI_NO_VECTOR);
        g_assert_cmpint(old_read16(v, VIRTIO_MSI_CONFIG_VECTOR), ==,
                        VIRTIO_MSI_NO_VECTOR);
    }
    old_ring_free(v, &l->ring);
}

static bool want_doorbell(Linux *l, uint16_t old)
{
    OldRing *r = &l->ring;
    QTestState *qts = l->v->qts;

    if (has(l, VIRTIO_RING_F_EVENT_IDX)) {
        uint16_t event = qtest_readw(qts, r->used + 4 + 8 * r->size);

        return (uint16_t)(r->idx - event - 1) < (uint16_t)(r->idx - old);
    }
    return !(qtest_readw(qts, r->used) & VRING_USED_F_NO_NOTIFY);
}

static void doorbell(Linux *l)
{
    old_write16(l->v, VIRTIO_PCI_QUEUE_NOTIFY, 0);
}

/* The index is written here and not before: a batch is seen as a whole. */
static void kick(Linux *l)
{
    uint16_t old = l->ring.shown;

    old_ring_show(&l->ring);
    if (want_doorbell(l, old)) {
        doorbell(l);
    }
}

/* ---- requests ---- */

static void put_header(Linux *l, Rq *rq)
{
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(rq->type),
        .sector = cpu_to_le64(rq->sector),
    };

    qtest_memwrite(l->v->qts, rq->mem + AT_HEADER, &hdr, sizeof(hdr));
    qtest_writeb(l->v->qts, rq->mem + AT_STATUS, VBLK_S_UNTOUCHED);
}

static Rq *rq_new(Linux *l, uint32_t type, uint64_t sector, uint32_t len)
{
    Rq *rq = g_new0(Rq, 1);

    rq->type = type;
    rq->sector = sector;
    rq->len = len;
    rq->mem = vblk_alloc(l->v, RQ_MEM + len);
    rq->data = rq->mem + RQ_MEM;
    return rq;
}

static void rq_free(Linux *l, Rq *rq)
{
    vblk_free(l->v, rq->mem);
    g_free(rq);
}

/* A page is a segment: data at an odd place in memory is cut at its end. */
static unsigned map_data(const Rq *rq, VblkSeg *seg)
{
    unsigned n = 0;

    for (uint32_t at = 0; at < rq->len; at += seg[n++].len) {
        uint64_t addr = rq->data + at;

        seg[n].addr = addr;
        seg[n].len = MIN(rq->len - at, 4096 - addr % 4096);
    }
    return n;
}

/* Header, [command], data, [sense, in-header], status. */
static bool add_request(Linux *l, Rq *rq)
{
    bool scsi = rq->type == VIRTIO_BLK_T_SCSI_CMD;
    VblkSeg seg[OLD_MAX_SEGS];
    unsigned nout = 0, nin = 0, n;

    put_header(l, rq);
    seg[nout++] = (VblkSeg) { rq->mem + AT_HEADER, 16 };
    if (scsi) {
        seg[nout++] = (VblkSeg) { rq->mem + AT_COMMAND, 6 };
    }
    n = map_data(rq, seg + nout);
    g_assert_cmpint(n, <=, l->seg_max);
    if (rq->type == VIRTIO_BLK_T_OUT) {
        nout += n;
    } else {
        nin += n;
    }
    if (scsi) {
        seg[nout + nin++] = (VblkSeg) { rq->mem + AT_SENSE, SENSE_LEN };
        seg[nout + nin++] = (VblkSeg) { rq->mem + AT_INHDR, 16 };
    }
    seg[nout + nin++] = (VblkSeg) { rq->mem + AT_STATUS, 1 };
    if (old_ring_add(&l->ring, seg, nout, nin, rq)) {
        return true;
    }
    doorbell(l);        /* "desperate": with nothing new to be seen */
    l->full++;
    return false;
}

/* The request function: as much as fits, then one doorbell. */
static void run_queue(Linux *l)
{
    bool issued = false;
    Rq *rq;

    while ((rq = QTAILQ_FIRST(&l->waiting)) && add_request(l, rq)) {
        QTAILQ_REMOVE(&l->waiting, rq, next);
        QTAILQ_INSERT_TAIL(&l->flying, rq, next);
        issued = true;
    }
    if (issued) {
        kick(l);
    }
}

static void enable_callbacks(Linux *l, bool enable)
{
    OldRing *r = &l->ring;
    QTestState *qts = l->v->qts;

    qtest_writew(qts, r->avail, enable ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
    if (enable && has(l, VIRTIO_RING_F_EVENT_IDX)) {
        qtest_writew(qts, r->avail + 4 + 2 * r->size, r->last_used);
    }
}

/* Interrupt: take all there is with callbacks off, look again, go on. */
static void done(Linux *l)
{
    OldRing *r = &l->ring;
    uint32_t used;
    Rq *rq;

    do {
        enable_callbacks(l, false);
        while ((rq = old_ring_take(r, &used))) {
            rq->done = true;
            rq->used = used;
            rq->status = qtest_readb(l->v->qts, rq->mem + AT_STATUS);
            QTAILQ_REMOVE(&l->flying, rq, next);
        }
        enable_callbacks(l, true);
    } while (qtest_readw(l->v->qts, r->used + 2) != r->last_used);
    run_queue(l);
}

static void queue_rq(Linux *l, Rq *rq)
{
    QTAILQ_INSERT_TAIL(&l->waiting, rq, next);
}

static void wait_all(Linux *l)
{
    while (!QTAILQ_EMPTY(&l->flying) || !QTAILQ_EMPTY(&l->waiting)) {
        old_wait_irq(l->v);
        done(l);
    }
}

/* One request that nothing else goes with; its status. */
static uint8_t execute(Linux *l, Rq *rq)
{
    queue_rq(l, rq);
    run_queue(l);
    wait_all(l);
    g_assert_true(rq->done);
    return rq->status;
}

static Rq *rq_write(Linux *l, uint64_t sector, uint32_t len, uint32_t seed)
{
    Rq *rq = rq_new(l, VIRTIO_BLK_T_OUT, sector, len);
    g_autofree uint8_t *data = g_malloc(len);

    rq->seed = seed;
    vblk_pattern(data, len, seed);
    qtest_memwrite(l->v->qts, rq->data, data, len);
    return rq;
}

static void assert_image(Linux *l, uint64_t sector, uint32_t len,
                         uint32_t seed)
{
    g_autofree uint8_t *data = g_malloc(len), *want = g_malloc(len);

    vblk_pattern(want, len, seed);
    old_image_read(l->v, sector, data, len);
    g_assert_cmpmem(data, len, want, len);
}

/* A read must bring what the image holds. */
static void assert_read(Linux *l, Rq *rq)
{
    g_autofree uint8_t *data = g_malloc(rq->len), *want = g_malloc(rq->len);

    g_assert_cmpint(rq->status, ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(rq->used, ==, rq->len + 1);
    old_image_read(l->v, rq->sector, want, rq->len);
    qtest_memread(l->v->qts, rq->data, data, rq->len);
    g_assert_cmpmem(data, rq->len, want, rq->len);
}

static void check_rw(Linux *l, uint64_t sector, uint32_t len, uint32_t seed)
{
    Rq *out = rq_write(l, sector, len, seed);
    Rq *in = rq_new(l, VIRTIO_BLK_T_IN, sector, len);

    g_assert_cmpint(execute(l, out), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(out->used, ==, 1);
    assert_image(l, sector, len, seed);
    execute(l, in);
    assert_read(l, in);
    rq_free(l, out);
    rq_free(l, in);
}

/* ---- life ---- */

/* Partitions are looked for before the driver says DRIVER_OK. */
static void add_disk(Linux *l)
{
    Rq *rq = rq_new(l, VIRTIO_BLK_T_IN, 0, 4096);

    execute(l, rq);
    assert_read(l, rq);
    rq_free(l, rq);
}

static void probe(Linux *l)
{
    Vblk *v = l->v;

    old_write8(v, VIRTIO_PCI_STATUS, 0);
    old_add_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    old_add_status(v, VIRTIO_CONFIG_S_DRIVER);
    l->features = old_read32(v, VIRTIO_PCI_HOST_FEATURES) & WANTED;
    old_write32(v, VIRTIO_PCI_GUEST_FEATURES, l->features);
    l->seg_max = has(l, VIRTIO_BLK_F_SEG_MAX) ? CONFIG(l, seg_max) : 1;
    find_queue(l);
    l->capacity = CONFIG(l, capacity);
    l->blk_size = has(l, VIRTIO_BLK_F_BLK_SIZE) ? CONFIG(l, blk_size) : 512;
    add_disk(l);
    old_add_status(v, VIRTIO_CONFIG_S_DRIVER_OK);
}

static Linux *linux_start(const VblkOpts *o)
{
    Linux *l = g_new0(Linux, 1);

    QTAILQ_INIT(&l->waiting);
    QTAILQ_INIT(&l->flying);
    l->v = old_launch(o);
    probe(l);
    return l;
}

/* Reset first, so that nothing completes any more; then the queue goes. */
static void freeze(Linux *l)
{
    uint16_t command;

    l->saved_status = old_read8(l->v, VIRTIO_PCI_STATUS);
    old_write8(l->v, VIRTIO_PCI_STATUS, 0);
    delete_queue(l);
    command = qpci_config_readw(l->v->pdev, PCI_COMMAND);
    qpci_config_writew(l->v->pdev, PCI_COMMAND,
                       command & ~PCI_COMMAND_MASTER);
}

/* Features, queue, requests; the status comes last and in one piece. */
static void restore(Linux *l)
{
    uint16_t command = qpci_config_readw(l->v->pdev, PCI_COMMAND);

    qpci_config_writew(l->v->pdev, PCI_COMMAND, command | PCI_COMMAND_MASTER);
    old_write32(l->v, VIRTIO_PCI_GUEST_FEATURES, l->features);
    find_queue(l);
    run_queue(l);
    old_write8(l->v, VIRTIO_PCI_STATUS, l->saved_status);
}

static void linux_stop(Linux *l)
{
    old_write8(l->v, VIRTIO_PCI_STATUS, 0);
    delete_queue(l);
    vblk_stop(l->v);
    g_free(l);
}

/* ---- tests ---- */

/* What the default device offers of what the driver wants. */
static uint32_t expected_features(const OldCase *c)
{
    uint32_t f = VBLK_BIT(VIRTIO_BLK_F_SEG_MAX) |
                 VBLK_BIT(VIRTIO_BLK_F_GEOMETRY) |
                 VBLK_BIT(VIRTIO_BLK_F_BLK_SIZE) |
                 VBLK_BIT(VIRTIO_BLK_F_FLUSH) |
                 VBLK_BIT(VIRTIO_BLK_F_TOPOLOGY);

    if (c->transport == VBLK_PCI_LEGACY_ONLY) {
        f |= VBLK_BIT(VIRTIO_BLK_F_SCSI);
    }
    if (!c->props || !strstr(c->props, "event_idx=off")) {
        f |= VBLK_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
             VBLK_BIT(VIRTIO_RING_F_EVENT_IDX);
    }
    return f;
}

static void test_probe(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);

    g_assert_cmphex(l->features, ==, expected_features(c));
    g_assert_cmpint(l->capacity, ==, DISK / VBLK_SECTOR);
    g_assert_cmpint(l->seg_max, ==, 256 - 2);
    g_assert_cmpint(l->blk_size, ==, 512);
    g_assert_cmpint(CONFIG(l, geometry.heads), ==, 16);
    g_assert_cmpint(CONFIG(l, geometry.sectors), ==, 63);
    g_assert_cmpint(CONFIG(l, geometry.cylinders), ==, DISK / 512 / 16 / 63);
    g_assert_cmpint(CONFIG(l, physical_block_exp), ==, 0);
    g_assert_cmpint(CONFIG(l, opt_io_size), ==, 0);
    g_assert_cmphex(old_read8(l->v, VIRTIO_PCI_STATUS), ==, STATUS_BITS);
    check_rw(l, 0, BLOCK, 1);
    check_rw(l, l->capacity - 1, 512, 2);
    check_rw(l, 100, (l->seg_max - 1) * 4096, 3);
    linux_stop(l);
}

/* Write @n blocks from @first on, as one burst; answers in any order. */
static void burst(Linux *l, unsigned first, unsigned n, uint32_t seed)
{
    g_autofree Rq **rq = g_new(Rq *, n);

    for (unsigned i = 0; i < n; i++) {
        /* downwards: the device may sort and merge them, or not */
        uint64_t block = first + n - 1 - i;

        rq[i] = rq_write(l, block * BLOCK_SECTORS, BLOCK, seed + block);
        queue_rq(l, rq[i]);
    }
    run_queue(l);
    wait_all(l);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(rq[i]->status, ==, VIRTIO_BLK_S_OK);
        g_assert_cmpint(rq[i]->used, ==, 1);
        assert_image(l, rq[i]->sector, BLOCK, rq[i]->seed);
        rq_free(l, rq[i]);
    }
}

/* Batches of any size, each with the one doorbell: all of it is answered. */
static void test_batches(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);

    for (unsigned i = 0; i < 20; i++) {
        int64_t before = vblk_stat(l->v, "wr_operations");

        burst(l, i * 10, 1 + i * 3, i * 1000);
        g_assert_cmpint(vblk_stat(l->v, "wr_operations") - before, ==,
                        1 + i * 3);
    }
    g_assert_cmpint(l->full, ==, 0);
    linux_stop(l);
}

/* More than the ring holds: the rest goes in as answers make room. */
static void test_full_ring(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);
    unsigned holds = l->ring.indirect ? l->ring.size : l->ring.size / 3;

    burst(l, 0, holds, 1);
    g_assert_cmpint(l->full, ==, 0);
    burst(l, 0, holds * 2 + 7, 2);
    g_assert_cmpint(l->full, >=, 1);
    g_assert_cmpint(l->ring.num_free, ==, l->ring.size);
    linux_stop(l);
}

/* FLUSH has no data; GET_ID brings 20 bytes for the file "serial". */
static void test_flush_and_serial(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    g_autofree char *props = g_strdup_printf("%s%sserial=historic-0042",
                                             c->props ?: "",
                                             c->props ? "," : "");
    char serial[ID_LEN] = "";
    Linux *l;
    Rq *rq;

    o.props = props;
    l = linux_start(&o);
    rq = rq_new(l, VIRTIO_BLK_T_GET_ID, 0, ID_LEN);
    g_assert_cmpint(execute(l, rq), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(rq->used, ==, ID_LEN + 1);
    qtest_memread(l->v->qts, rq->data, serial, ID_LEN);
    g_assert_cmpmem(serial, ID_LEN, "historic-0042\0\0\0\0\0\0\0", ID_LEN);
    rq_free(l, rq);

    g_assert_cmpint(vblk_stat(l->v, "flush_operations"), ==, 0);
    check_rw(l, 8, BLOCK, 1);
    rq = rq_new(l, VIRTIO_BLK_T_FLUSH, 0, 0);
    g_assert_cmpint(execute(l, rq), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(rq->used, ==, 1);
    rq_free(l, rq);
    g_assert_cmpint(vblk_stat(l->v, "flush_operations"), ==, 1);
    linux_stop(l);
}

/* Without FLUSH in the features every write is on the disk when it is done. */
static void test_no_flush(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    g_autofree char *props = g_strdup_printf("%s%swrite-cache=off,"
                                             "config-wce=off",
                                             c->props ?: "",
                                             c->props ? "," : "");
    Linux *l;

    o.props = props;
    l = linux_start(&o);
    g_assert_false(has(l, VIRTIO_BLK_F_FLUSH));
    g_assert_false(vblk_writeback(l->v));
    check_rw(l, 8, BLOCK, 1);
    linux_stop(l);
}

/*
 * SG_IO on a device that says SCSI and knows no command: UNSUPP, and errors in
 * place.  A transitional one does not say it, so the ioctl ends in the driver;
 * here it is sent all the same.
 */
static void test_scsi(const OldCase *c)
{
    static const uint8_t inquiry[6] = { 0x12, [4] = 36 };
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);
    Rq *rq = rq_new(l, VIRTIO_BLK_T_SCSI_CMD, 0, 36);
    struct virtio_scsi_inhdr inhdr;

    g_assert_cmpint(has(l, VIRTIO_BLK_F_SCSI), ==,
                    c->transport == VBLK_PCI_LEGACY_ONLY);
    qtest_memwrite(l->v->qts, rq->mem + AT_COMMAND, inquiry, 6);
    g_assert_cmpint(execute(l, rq), ==, VIRTIO_BLK_S_UNSUPP);
    qtest_memread(l->v->qts, rq->mem + AT_INHDR, &inhdr, sizeof(inhdr));
    g_assert_cmpint(le32_to_cpu(inhdr.errors), ==, ERRORS_NOT_RUN);
    g_assert_true(vblk_mem_is(l->v, rq->data, 0, 36));
    g_assert_true(vblk_mem_is(l->v, rq->mem + AT_SENSE, 0, SENSE_LEN));
    rq_free(l, rq);
    check_rw(l, 8, BLOCK, 1);
    linux_stop(l);
}

/*
 * SG_IO with scsi=on, which a transitional device can't have: the host's device
 * gets the command, also after a suspend; what it refuses brings sense data.
 */
static void test_scsi_on(const OldCase *c)
{
    static const uint8_t inquiry[6] = { 0x12, [4] = 36 };
    static const uint8_t unknown[6] = { 0xc7 };
    g_autofree char *props = g_strdup_printf("%s%sscsi=on", c->props ?: "",
                                             c->props ? "," : "");
    VblkOpts o = old_opts(c);
    VblkFake f;
    Linux *l;
    Rq *rq;

    if (!vblk_needs_prop("scsi") || !vblk_fake_begin(&f, DISK)) {
        return;
    }
    o.props = props;
    o.image = f.image;
    vblk_fake_use(&f, &o, NULL);
    l = linux_start(&o);
    g_assert_true(has(l, VIRTIO_BLK_F_SCSI));
    for (unsigned i = 0; i < 2; i++) {
        char vendor[8];

        rq = rq_new(l, VIRTIO_BLK_T_SCSI_CMD, 0, 36);
        qtest_memwrite(l->v->qts, rq->mem + AT_COMMAND, inquiry, 6);
        g_assert_cmpint(execute(l, rq), ==, VIRTIO_BLK_S_OK);
        qtest_memread(l->v->qts, rq->data + 8, vendor, 8);
        g_assert_cmpmem(vendor, 8, "FAKEHOST", 8);
        g_assert_cmpint(qtest_readl(l->v->qts, rq->mem + AT_INHDR), ==, 0);
        qtest_memwrite(l->v->qts, rq->mem + AT_COMMAND, unknown, 6);
        g_assert_cmpint(execute(l, rq), ==, VIRTIO_BLK_S_IOERR);
        /* CHECK CONDITION; sense key ILLEGAL REQUEST */
        g_assert_cmpint(qtest_readl(l->v->qts, rq->mem + AT_INHDR) & 0xff, ==,
                        2);
        g_assert_cmpint(qtest_readb(l->v->qts, rq->mem + AT_SENSE + 2), ==, 5);
        rq_free(l, rq);
        freeze(l);
        restore(l);
    }
    linux_stop(l);
    vblk_fake_end(&f);
}

/* The feature RO makes the disk read-only; a write all the same fails. */
static void test_read_only(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l;
    Rq *rq;

    o.disk_opts = ",read-only=on";
    o.file_opts = ",read-only=on";
    l = linux_start(&o);
    g_assert_true(has(l, VIRTIO_BLK_F_RO));
    rq = rq_write(l, 0, BLOCK, 1);
    g_assert_cmpint(execute(l, rq), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(rq->used, ==, 1);
    rq_free(l, rq);
    add_disk(l);
    linux_stop(l);
}

/* A failed request is one request's failure, in the middle of a batch. */
static void test_errors(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);
    Rq *rq[9];

    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        rq[i] = rq_write(l, i == 4 ? l->capacity - 1 : i * 16, BLOCK, i);
        queue_rq(l, rq[i]);
    }
    run_queue(l);
    wait_all(l);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        g_assert_cmpint(rq[i]->status, ==, i == 4 ? VIRTIO_BLK_S_IOERR :
                                                    VIRTIO_BLK_S_OK);
        if (i != 4) {
            assert_image(l, rq[i]->sector, BLOCK, i);
        }
        rq_free(l, rq[i]);
    }
    linux_stop(l);
}

/* The new capacity is read in the work item of a configuration change. */
static void test_resize(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);

    old_resize(l->v, 3 * DISK);
    old_wait_config_irq(l->v);
    l->capacity = CONFIG(l, capacity);
    g_assert_cmpint(l->capacity, ==, 3 * DISK / VBLK_SECTOR);
    check_rw(l, l->capacity - BLOCK_SECTORS, BLOCK, 1);
    freeze(l);
    restore(l);
    g_assert_cmpint(CONFIG(l, capacity), ==, 3 * DISK / VBLK_SECTOR);
    check_rw(l, l->capacity - BLOCK_SECTORS, BLOCK, 2);
    linux_stop(l);
}

/* Suspend of an idle disk, several times. */
static void test_suspend(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);

    for (unsigned i = 0; i < 4; i++) {
        burst(l, 0, 40, i);
        freeze(l);
        g_assert_cmpint(old_read8(l->v, VIRTIO_PCI_STATUS), ==, 0);
        restore(l);
        g_assert_cmphex(old_read8(l->v, VIRTIO_PCI_STATUS), ==, STATUS_BITS);
    }
    burst(l, 0, 40, 9);
    linux_stop(l);
}

/* What waits in the block layer is sent by restore(), before any status. */
static void test_resume_with_requests(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l = linux_start(&o);
    Rq *rq[30];

    freeze(l);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        rq[i] = rq_write(l, i * 16, BLOCK, i);
        queue_rq(l, rq[i]);
    }
    restore(l);
    wait_all(l);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        g_assert_cmpint(rq[i]->status, ==, VIRTIO_BLK_S_OK);
        assert_image(l, rq[i]->sector, BLOCK, i);
        rq_free(l, rq[i]);
    }
    linux_stop(l);
}

/* Requests in the device when it is reset: sent again by who lost them. */
static void suspend_in_flight(Linux *l, unsigned round)
{
    Rq *rq[12];

    vblk_throttle_on(l->v);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        rq[i] = i % 3 ? rq_write(l, i * 16, BLOCK, round * 100 + i) :
                        rq_new(l, VIRTIO_BLK_T_IN, i * 16, BLOCK);
        queue_rq(l, rq[i]);
    }
    run_queue(l);
    g_usleep(10000);
    g_assert_cmpint(qtest_readw(l->v->qts, l->ring.used + 2), ==,
                    l->ring.last_used);
    freeze(l);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        qtest_writeb(l->v->qts, rq[i]->mem + AT_STATUS, VBLK_S_UNTOUCHED);
    }
    vblk_throttle_off(l->v);
    g_usleep(5000);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        g_assert_cmphex(qtest_readb(l->v->qts, rq[i]->mem + AT_STATUS), ==,
                        VBLK_S_UNTOUCHED);
        QTAILQ_REMOVE(&l->flying, rq[i], next);
        queue_rq(l, rq[i]);
    }
    restore(l);
    wait_all(l);
    for (unsigned i = 0; i < ARRAY_SIZE(rq); i++) {
        g_assert_cmpint(rq[i]->status, ==, VIRTIO_BLK_S_OK);
        if (i % 3) {
            assert_image(l, rq[i]->sector, BLOCK, rq[i]->seed);
        } else {
            assert_read(l, rq[i]);
        }
        rq_free(l, rq[i]);
    }
}

static void test_suspend_in_flight(const OldCase *c)
{
    VblkOpts o = old_opts(c);
    Linux *l;

    o.throttle = true;
    l = linux_start(&o);
    for (unsigned round = 0; round < 3; round++) {
        suspend_in_flight(l, round);
    }
    linux_stop(l);
}

void vblk_add_linux3_tests(void)
{
    old_add("linux3/probe", test_probe);
    old_add("linux3/batches", test_batches);
    old_add("linux3/full-ring", test_full_ring);
    old_add("linux3/flush-and-serial", test_flush_and_serial);
    old_add("linux3/no-flush", test_no_flush);
    old_add("linux3/scsi", test_scsi);
    old_add_legacy("linux3/scsi-on", test_scsi_on);
    old_add("linux3/read-only", test_read_only);
    old_add("linux3/errors", test_errors);
    old_add("linux3/resize", test_resize);
    old_add("linux3/suspend", test_suspend);
    old_add("linux3/resume-with-requests", test_resume_with_requests);
    old_add("linux3/suspend-in-flight", test_suspend_in_flight);
}
