/*
 * virtio-blk fuzzing: an input is a list of what a driver and a user do
 *
 * Zeroes are always a sensible choice: a request is whole and well formed
 * unless the input says what is wrong with it.  So nearly each input gets past
 * the first checks, and a few bytes more are a step further.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "fuzz-ops.h"
#include "transport.h"
#include "tests/fuzz/input.h"
#include "hw/pci/pci_regs.h"

#define MAX_OPS         48
#define MAX_QUEUES      3
#define SLOTS           32          /* requests that are looked after */
#define MAX_PIECES      24
#define PATIENCE        20          /* turns, for answers that may not come */
#define MUST_MS         15000       /* for those that must */

/* Guest memory: fixed places, so that an input means the same each time. */
#define RINGS           0x100000
#define RING_BYTES      0x10000
#define TABLES          0x140000
#define TABLE_BYTES     0x1000
#define MSIX            0x1f0000
#define SLOT_MEM        0x200000
#define SLOT_BYTES      0x20000     /* half for each direction */
#define HALF            (SLOT_BYTES / 2)
#define HOLE            0x90000000  /* no RAM, no device */

/* Where the device is, in QOM. */
#define VBLK_FUZZ_PCI   "/machine/peripheral/v/virtio-backend"
#define VBLK_FUZZ_MMIO  "/machine/peripheral/v"

/* Types that have a handler, SCSI_CMD and GET_LIFETIME too. */
static const uint32_t types[] = {
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_T_SECURE_ERASE, 10, VIRTIO_BLK_T_SCSI_CMD,
    VIRTIO_BLK_T_ZONE_REPORT, VIRTIO_BLK_T_ZONE_APPEND,
    VIRTIO_BLK_T_ZONE_OPEN, VIRTIO_BLK_T_ZONE_CLOSE, VIRTIO_BLK_T_ZONE_FINISH,
    VIRTIO_BLK_T_ZONE_RESET, VIRTIO_BLK_T_ZONE_RESET_ALL,
};

/* A request, as it is built. */
typedef struct Piece {
    uint64_t addr;
    uint32_t len;
    bool in;
    uint16_t flags;                 /* further ones */
    uint16_t skip;                  /* what is added to "next" */
} Piece;

typedef struct Fuzz {
    FuzzHost *h;
    Vblk v;
    FuzzInput in;
    uint64_t features;              /* to accept, of those offered */
    unsigned size;                  /* entries of a ring */
    unsigned queues;
    unsigned slot;                  /* the next one */
    uint64_t waiting[SLOTS];        /* addresses of status bytes */
    uint32_t undo;                  /* what the user has changed, by command */
    Piece piece[MAX_PIECES];
    unsigned pieces;
} Fuzz;

/* What transport.c wants of the fixture. */
uint64_t vblk_alloc(Vblk *v, size_t len)
{
    return MSIX;
}

/* ---- memory and rings ---- */

static void store(Fuzz *f, uint64_t at, const void *data, size_t len)
{
    if (len) {
        qtest_memwrite(f->v.qts, at, data, len);
    }
}

/* Not by qtest_memset(): that of QEMU's fuzzer leaks. */
static void store_byte(Fuzz *f, uint64_t at, uint8_t byte, size_t len)
{
    g_autofree uint8_t *data = g_malloc(len);

    if (len) {
        memset(data, byte, len);
    }
    store(f, at, data, len);
}

static void store16(Fuzz *f, uint64_t at, uint16_t value)
{
    qtest_writew(f->v.qts, at, value);
}

static void ring_place(Fuzz *f, unsigned i)
{
    VblkQueue *q = &f->v.q[i];
    unsigned max;

    memset(q, 0, sizeof(*q));
    q->index = i;
    vblk_bus(&f->v)->select(&f->v, i);
    max = MIN(vblk_bus(&f->v)->queue_max(&f->v), 1024);
    /* Legacy PCI knows one size only. */
    q->size = f->v.o.transport == VBLK_PCI_LEGACY ||
              f->v.o.transport == VBLK_PCI_LEGACY_ONLY ? max :
              MIN(max, f->size);
    if (!q->size) {
        return;
    }
    q->desc = RINGS + i * RING_BYTES;
    q->avail = q->desc + 16 * q->size;
    q->used = QEMU_ALIGN_UP(q->avail + 6 + 2 * q->size, 4096);
    q->avail_wrap = true;
    store_byte(f, q->desc, 0, q->used + 8 * q->size + 6 - q->desc);
    vblk_bus(&f->v)->enable(&f->v, q);
}

static void set_up(Fuzz *f)
{
    const VblkBus *bus = vblk_bus(&f->v);
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

    memset(f->waiting, 0, sizeof(f->waiting));
    bus->set_status(&f->v, 0);
    bus->set_status(&f->v, status);
    f->v.features = bus->features(&f->v) & f->features;
    bus->accept(&f->v, f->v.features);
    if (vblk_is_modern(&f->v)) {
        status |= VIRTIO_CONFIG_S_FEATURES_OK;
        bus->set_status(&f->v, status);
    }
    for (unsigned i = 0; i < f->queues; i++) {
        ring_place(f, i);
    }
    bus->set_status(&f->v, status | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void write_desc(Fuzz *f, uint64_t at, const Piece *p, uint16_t flags,
                       uint16_t next, bool packed)
{
    uint8_t d[16];

    flags |= (p->in ? VRING_DESC_F_WRITE : 0) ^ p->flags;
    stq_le_p(d, p->addr);
    stl_le_p(d + 8, p->len);
    stw_le_p(d + 12, packed ? next : flags);
    stw_le_p(d + 14, packed ? flags : next + p->skip);
    store(f, at, d, sizeof(d));
}

/* The pieces become a table, and one piece is left that points to it. */
static void make_indirect(Fuzz *f)
{
    uint64_t table = TABLES + f->slot * TABLE_BYTES;
    bool packed = vblk_has(&f->v, VIRTIO_F_RING_PACKED);

    for (unsigned i = 0; i < f->pieces; i++) {
        write_desc(f, table + 16 * i, &f->piece[i],
                   i + 1 < f->pieces && !packed ? VRING_DESC_F_NEXT : 0,
                   packed ? 0 : i + 1, packed);
    }
    f->piece[0] = (Piece) {
        .addr = table, .len = 16 * f->pieces, .flags = VRING_DESC_F_INDIRECT,
    };
    f->pieces = 1;
}

static void push_split(Fuzz *f, VblkQueue *q)
{
    uint16_t head = q->free_head;

    for (unsigned i = 0; i < f->pieces; i++) {
        uint16_t at = (head + i) % q->size;

        write_desc(f, q->desc + 16 * at, &f->piece[i],
                   i + 1 < f->pieces ? VRING_DESC_F_NEXT : 0,
                   (at + 1) % q->size, false);
    }
    q->free_head = (head + f->pieces) % q->size;
    store16(f, q->avail + 4 + 2 * (q->avail_idx++ % q->size), head);
}

static void push_packed(Fuzz *f, VblkQueue *q)
{
    uint16_t first = q->avail_idx;

    for (unsigned i = 0; i < f->pieces; i++) {
        uint16_t flags = q->avail_wrap ? VBLK_PACKED_AVAIL : VBLK_PACKED_USED;

        if (i + 1 < f->pieces) {
            flags |= VRING_DESC_F_NEXT;
        }
        write_desc(f, q->desc + 16 * q->avail_idx, &f->piece[i], flags, first,
                   true);
        if (++q->avail_idx == q->size) {
            q->avail_idx = 0;
            q->avail_wrap = !q->avail_wrap;
        }
    }
}

static void publish(Fuzz *f, VblkQueue *q)
{
    if (!vblk_has(&f->v, VIRTIO_F_RING_PACKED)) {
        store16(f, q->avail + 2, q->avail_idx);
    }
}

static void push(Fuzz *f, VblkQueue *q)
{
    if (!q->size || f->pieces > q->size) {
        return;
    }
    if (vblk_has(&f->v, VIRTIO_F_RING_PACKED)) {
        push_packed(f, q);
    } else {
        push_split(f, q);
    }
}

static void kick(Fuzz *f, VblkQueue *q)
{
    if (q->size) {
        publish(f, q);
        vblk_bus(&f->v)->notify(&f->v, q);
    }
}

static bool answered(Fuzz *f)
{
    bool all = true;

    for (unsigned i = 0; i < SLOTS; i++) {
        if (f->waiting[i] && qtest_readb(f->v.qts, f->waiting[i]) !=
                             VBLK_S_UNTOUCHED) {
            f->waiting[i] = 0;
        }
        all = all && !f->waiting[i];
    }
    return all;
}

static void settle(Fuzz *f)
{
    for (unsigned i = 0; i < PATIENCE && !answered(f); i++) {
        f->h->run(f->h);
    }
}

/* ---- requests ---- */

static void add_piece(Fuzz *f, uint64_t addr, uint32_t len, bool in)
{
    if (f->pieces < MAX_PIECES) {
        f->piece[f->pieces++] = (Piece) { .addr = addr, .len = len, .in = in };
    }
}

/* Some of the disk's borders are borders of zones as well. */
static uint64_t take_sector(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);

    switch (how & 7) {
    case 6:
        return 65536 - (how >> 3);              /* the end of 32 MiB */
    case 7:
        return how & 8 ? fuzz_u64(&f->in) : 32768 - (how >> 4);
    case 5:
        return 128 * fuzz_u16(&f->in) + (how >> 3);
    default:
        return 128 * (how & 7) + (how >> 3) * 4;
    }
}

static uint32_t take_length(Fuzz *f)
{
    static const uint32_t usual[] = {
        512, 4096, 1024, 8192, 0, 20, 8, 16, 32, 48, 64, 192, 256, 32768,
    };
    uint8_t how = fuzz_u8(&f->in);

    return how < ARRAY_SIZE(usual) ? usual[how] : fuzz_u16(&f->in) % HALF;
}

static uint32_t take_type(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);

    return how < 0xf0 ? types[how % ARRAY_SIZE(types)] : fuzz_u32(&f->in);
}

static bool has_ranges(uint32_t type)
{
    return type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES ||
           type == VIRTIO_BLK_T_SECURE_ERASE;
}

/* Payload of discard and its kin; returns its length. */
static uint32_t put_ranges(Fuzz *f, uint64_t at)
{
    struct virtio_blk_discard_write_zeroes range;
    unsigned num = 1 + fuzz_u8(&f->in) % 5;

    for (unsigned i = 0; i < num; i++) {
        uint8_t how = fuzz_u8(&f->in);

        range.sector = cpu_to_le64(take_sector(f));
        range.num_sectors = cpu_to_le32(how & 0x80 ? fuzz_u32(&f->in) :
                                        8 * (1 + (how >> 2 & 15)));
        range.flags = cpu_to_le32(how & 0x40 ? fuzz_u32(&f->in) : how & 1);
        store(f, at + i * sizeof(range), &range, sizeof(range));
    }
    return num * sizeof(range);
}

/* The parts of a SCSI command behind the header. */
static void put_scsi(Fuzz *f, uint64_t out, uint64_t in)
{
    static const uint8_t opcodes[] = { 0x12, 0x00, 0x25, 0x3b };
    uint8_t cdb[16] = { 0 }, how = fuzz_u8(&f->in);
    uint32_t len = take_length(f);

    cdb[0] = how & 0x80 ? fuzz_u8(&f->in) : opcodes[how % 4];
    cdb[4] = 36;
    store(f, out + 16, cdb, sizeof(cdb));
    add_piece(f, out + 16, how & 0x40 ? fuzz_u16(&f->in) % HALF : 6, false);
    if (len && (how & 0x0c) != 4) {
        add_piece(f, how & 8 ? out + 1024 : in + 1024, len, !(how & 8));
    }
    add_piece(f, in, 96, true);                 /* sense */
    add_piece(f, in + 96, 16, true);            /* in-header */
}

static bool data_comes_in(uint32_t type)
{
    return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID ||
           type == VIRTIO_BLK_T_ZONE_REPORT || type == 10;
}

/* Header, payload, data and status, a piece each. */
static void put_request(Fuzz *f, uint32_t type, uint64_t sector)
{
    uint64_t out = SLOT_MEM + f->slot * SLOT_BYTES, in = out + HALF;
    struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(type), .sector = cpu_to_le64(sector),
    };
    uint64_t status = in + HALF - 1;

    f->pieces = 0;
    store(f, out, &header, sizeof(header));
    add_piece(f, out, sizeof(header), false);
    if (type == VIRTIO_BLK_T_SCSI_CMD) {
        put_scsi(f, out, in);
    } else if (has_ranges(type)) {
        add_piece(f, out + 16, put_ranges(f, out + 16), false);
    } else if (data_comes_in(type)) {
        add_piece(f, in, take_length(f), true);
    } else if (type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_ZONE_APPEND) {
        uint32_t len = take_length(f);

        store_byte(f, out + 16, len, MIN(len, 64));
        add_piece(f, out + 16, len, false);
    }
    if (type == VIRTIO_BLK_T_ZONE_APPEND) {
        add_piece(f, in, 8, true);
    }
    add_piece(f, status, 1, true);
    qtest_writeb(f->v.qts, status, VBLK_S_UNTOUCHED);
    f->waiting[f->slot] = status;
}

/* Pieces of no bytes are none; the ring's rules forbid them. */
static void drop_empty(Fuzz *f)
{
    unsigned n = 0;

    for (unsigned i = 0; i < f->pieces; i++) {
        if (f->piece[i].len) {
            f->piece[n++] = f->piece[i];
        }
    }
    f->pieces = n;
}

/* Cut a piece in two, as the input says. */
static void cut(Fuzz *f, unsigned i)
{
    Piece *p = &f->piece[i];
    uint32_t at = fuzz_u8(&f->in);

    at = at & 0x80 ? (at & 0x7f) * 512 : at;
    if (f->pieces == MAX_PIECES || !at || at >= p->len) {
        return;
    }
    memmove(p + 1, p, (f->pieces - i) * sizeof(*p));
    f->pieces++;
    p[0].len = at;
    p[1].addr += at;
    p[1].len -= at;
}

static uint64_t any_address(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);

    switch (how & 7) {
    case 0:
        return HOLE + how;
    case 1:                                     /* the registers of MMIO */
        return 0xfeb00000 + how * 16;
    case 2:
        return f->v.q[0].desc + how;
    case 3:
        return 0xe0000000 + how * 256;          /* those of PCI */
    case 4:
        return 64 * MiB - how;
    case 5:
        return fuzz_u64(&f->in);
    case 6:
        return 0xa0000 + how * 64;              /* ROM and its like */
    default:
        return SLOT_MEM + how;
    }
}

/* What a driver must not do to a chain. */
static void spoil(Fuzz *f)
{
    uint8_t what = fuzz_u8(&f->in);
    unsigned i = (what >> 4) % f->pieces;
    Piece *p = &f->piece[i];

    switch (what & 7) {
    case 0:
        p->addr = any_address(f);
        break;
    case 1:
        p->len = fuzz_u32(&f->in);
        break;
    case 2:
        p->in = !p->in;
        break;
    case 3:
        memmove(p, p + 1, (--f->pieces - i) * sizeof(*p));
        break;
    case 4:
        p->flags = fuzz_u16(&f->in);
        break;
    case 5:
        p->skip = fuzz_u16(&f->in);
        break;
    case 6:
        p->len = fuzz_u8(&f->in);
        break;
    default:
        cut(f, i);
        break;
    }
}

enum {
    SHAPE_CUT       = 0x03,         /* so many cuts */
    SHAPE_INDIRECT  = 0x04,
    SHAPE_SPOIL     = 0x08,
    SHAPE_NO_KICK   = 0x10,
    SHAPE_NO_WAIT   = 0x20,
    SHAPE_QUEUE     = 0x40,         /* not the first one */
    SHAPE_SPOIL_2   = 0x80,
};

static VblkQueue *take_queue(Fuzz *f, bool other)
{
    return &f->v.q[other ? fuzz_u8(&f->in) % f->queues : 0];
}

static void shape(Fuzz *f, uint8_t how)
{
    drop_empty(f);
    for (unsigned i = 0; i < (how & SHAPE_CUT); i++) {
        cut(f, fuzz_u8(&f->in) % f->pieces);
    }
    if (how & SHAPE_SPOIL) {
        spoil(f);
    }
    if (f->pieces && how & SHAPE_INDIRECT) {
        make_indirect(f);
    }
    if (f->pieces && how & SHAPE_SPOIL_2) {
        spoil(f);
    }
}

static void op_request(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);
    uint32_t type = take_type(f);
    VblkQueue *q = take_queue(f, how & SHAPE_QUEUE);

    put_request(f, type, take_sector(f));
    shape(f, how);
    push(f, q);
    f->slot = (f->slot + 1) % SLOTS;
    if (!(how & SHAPE_NO_KICK)) {
        kick(f, q);
    }
    if (!(how & (SHAPE_NO_KICK | SHAPE_NO_WAIT))) {
        settle(f);
    }
}

/* Reads or writes that follow one another, and may be merged. */
static void op_burst(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);
    unsigned num = 2 + how % 12;
    uint64_t sector = take_sector(f);
    int step = how & 0x10 ? -8 : how & 0x20 ? 16 : 8;

    for (unsigned i = 0; i < num; i++) {
        uint64_t out = SLOT_MEM + f->slot * SLOT_BYTES;
        uint32_t len = 4096;

        put_request(f, how & 0x80 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
                    sector);
        f->pieces = 1;
        add_piece(f, out + 16 + (how & 0x80 ? HALF : 0), len, how & 0x80);
        add_piece(f, f->waiting[f->slot], 1, true);
        push(f, &f->v.q[0]);
        f->slot = (f->slot + 1) % SLOTS;
        sector += step;
    }
    kick(f, &f->v.q[0]);
    if (!(how & 0x40)) {
        settle(f);
    }
}

/* ---- registers ---- */

static void op_kick(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);
    VblkQueue *q = &f->v.q[how % f->queues];

    if (how & 0x80) {
        VblkQueue none = { .index = fuzz_u16(&f->in), .notify_off =
                           f->v.q[0].notify_off };

        vblk_bus(&f->v)->notify(&f->v, &none);
    } else {
        kick(f, q);
    }
    if (!(how & 0x40)) {
        settle(f);
    }
}

static void op_wait(Fuzz *f)
{
    settle(f);
    vblk_bus(&f->v)->read_isr(&f->v);
}

static void op_reset(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);

    if (how & 1) {
        f->features ^= fuzz_u64(&f->in);
    }
    if (how & 2) {
        vblk_bus(&f->v)->set_status(&f->v, 0);
    } else {
        set_up(f);
    }
}

static void op_queue_reset(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);
    unsigned q = how % f->queues;

    if (f->v.o.transport != VBLK_PCI_MODERN) {
        return;
    }
    vblk_bus(&f->v)->select(&f->v, q);
    vblk_queue_reset_write(&f->v, how & 0x40 ? 0 : 1);
    for (unsigned i = 0; i < 4 && vblk_queue_reset_read(&f->v); i++) {
        f->h->run(f->h);
    }
    if (!(how & 0x80)) {
        memset(f->waiting, 0, sizeof(f->waiting));
        ring_place(f, q);
    }
}

static void op_config(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);
    unsigned off = how & 0x7f;

    if (how & 0x80) {
        vblk_bus(&f->v)->cfg_read(&f->v, off, 4);
    } else {
        /* The only field that can be written, unless the input says so. */
        off = off ?: offsetof(struct virtio_blk_config, wce);
        vblk_bus(&f->v)->cfg_write8(&f->v, off, fuzz_u8(&f->in));
    }
}

static void op_status(Fuzz *f)
{
    vblk_bus(&f->v)->set_status(&f->v, fuzz_u8(&f->in));
}

static void op_register(Fuzz *f)
{
    uint16_t at = fuzz_u16(&f->in);
    uint32_t value = fuzz_u32(&f->in);

    if (!vblk_is_pci(&f->v)) {
        qtest_writel(f->v.qts, f->v.mmio + at % 0x200, value);
    } else if (at & 0x8000) {
        qpci_io_writew(f->v.pdev, f->v.bar, at & 0x7fff, value);
    } else {
        qpci_io_writel(f->v.pdev, f->v.bar, at, value);
    }
}

static void op_pci_config(Fuzz *f)
{
    uint8_t at = fuzz_u8(&f->in);
    uint16_t value = fuzz_u16(&f->in);

    if (vblk_is_pci(&f->v)) {
        /* 0 is the command register: bus master on and off. */
        qpci_config_writew(f->v.pdev, (at ?: PCI_COMMAND) & 0xfe, value);
    }
}

static void op_vectors(Fuzz *f)
{
    uint16_t vector = fuzz_u16(&f->in);

    if (vblk_is_pci(&f->v) && f->v.pdev->msix_enabled) {
        vblk_msix_config(&f->v, vector);
        vblk_bus(&f->v)->select(&f->v, 0);
        vblk_msix_queue(&f->v, vector);
    }
}

static void op_ring_memory(Fuzz *f)
{
    uint16_t at = fuzz_u16(&f->in);
    uint8_t len = fuzz_u8(&f->in) % 32, data[32];

    fuzz_take(&f->in, data, len);
    store(f, RINGS + at, data, len);
}

static void op_clock(Fuzz *f)
{
    qtest_clock_step(f->v.qts, 1000000ull << fuzz_u8(&f->in) % 16);
    f->h->run(f->h);
}

/* ---- the user ---- */

typedef struct Command {
    const char *text;
    const char *undo;
    bool number;                /* the text has a place for one */
} Command;

#define ON_D    "'arguments': { 'node-name': 'd'"
/* @V@ is the device proper. */
#define ON_V    "'arguments': { 'id': '@V@'"
#define BACKEND "'arguments': { 'path': '@V@'"
#define NO_LIMITS "{ 'execute': 'block_set_io_throttle', " ON_V ", 'bps': 0, " \
    "'bps_rd': 0, 'bps_wr': 0, 'iops': 0, 'iops_rd': 0, 'iops_wr': 0 } }"

static const Command commands[] = {
    { "{ 'execute': 'stop' }", "{ 'execute': 'cont' }" },
    { "{ 'execute': 'cont' }" },
    { "{ 'execute': 'block_resize', " ON_D ", 'size': %u } }",
      "{ 'execute': 'block_resize', " ON_D ", 'size': 33554432 } }", true },
    { "{ 'execute': 'block_set_io_throttle', " ON_V ", 'bps': 0, 'bps_rd': 0, "
      "'bps_wr': 0, 'iops': 20, 'iops_rd': 0, 'iops_wr': 0 } }", NO_LIMITS },
    { NO_LIMITS },
    { "{ 'execute': 'query-blockstats' }" },
    { "{ 'execute': 'query-block' }" },
    { "{ 'execute': 'block-set-write-threshold', " ON_D
      ", 'write-threshold': %u } }",
      "{ 'execute': 'block-set-write-threshold', " ON_D
      ", 'write-threshold': 0 } }", true },
    { "{ 'execute': 'block-dirty-bitmap-add', 'arguments': { 'node': 'd', "
      "'name': 'b' } }",
      "{ 'execute': 'block-dirty-bitmap-remove', 'arguments': { 'node': 'd', "
      "'name': 'b' } }" },
    { "{ 'execute': 'blockdev-backup', 'arguments': { 'job-id': 'j', 'device':"
      " 'd', 'target': 't', 'sync': 'none' } }",
      "{ 'execute': 'block-job-cancel', 'arguments': { 'device': 'j', 'force':"
      " true } }" },
    { "{ 'execute': 'block-job-cancel', 'arguments': { 'device': 'j' } }" },
    { "{ 'execute': 'x-query-virtio-status', " BACKEND " } }" },
    { "{ 'execute': 'block-latency-histogram-set', " ON_V
      ", 'boundaries': [1, 10] } }" },
    { "{ 'execute': 'query-named-block-nodes' }" },
};

static void execute(Fuzz *f, const char *command)
{
    g_auto(GStrv) parts = g_strsplit(command, "@V@", -1);
    g_autofree char *text = NULL;

    text = g_strjoinv(vblk_is_pci(&f->v) ? VBLK_FUZZ_PCI : VBLK_FUZZ_MMIO,
                      parts);
    f->h->qmp(f->h, text);
    f->h->run(f->h);
}

static void op_command(Fuzz *f)
{
    unsigned i = fuzz_u8(&f->in) % ARRAY_SIZE(commands);
    const Command *c = &commands[i];
    g_autofree char *text = NULL;

    if (c->number) {
        /* From 1 MiB to 33 MiB, in steps that need not fit. */
        text = g_strdup_printf(c->text, 1048576 + fuzz_u16(&f->in) * 512);
    }
    execute(f, text ?: c->text);
    if (c->undo) {
        f->undo |= BIT(i);
    }
}

/* Also what stopped because of an error goes on. */
static void undo_commands(Fuzz *f)
{
    if (strstr(f->h->args, "error=stop")) {
        execute(f, commands[0].text);
        f->undo |= BIT(0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        if (f->undo & BIT(i)) {
            execute(f, commands[i].undo);
        }
    }
    f->undo = 0;
}

/* ---- begin and end ---- */

/* As firmware does: a machine that was reset has no BARs. */
static void attach(Fuzz *f)
{
    g_clear_pointer(&f->v.pdev, g_free);
    qpci_init_pc(&f->v.pcibus, f->v.qts, NULL);
    FUZZ_CHECK(vblk_bus(&f->v)->find(&f->v));
}

static void op_system_reset(Fuzz *f)
{
    undo_commands(f);
    f->h->system_reset(f->h);
    attach(f);
    set_up(f);
}

static VblkTransport transport(const char *args, bool legacy)
{
    if (strstr(args, "microvm")) {
        return strstr(args, "force-legacy=off") ? VBLK_MMIO_MODERN :
                                                  VBLK_MMIO_LEGACY;
    }
    if (strstr(args, "disable-modern=on")) {
        return VBLK_PCI_LEGACY_ONLY;
    }
    return legacy && strstr(args, "disable-legacy=off") ? VBLK_PCI_LEGACY :
                                                         VBLK_PCI_MODERN;
}

static void begin(Fuzz *f)
{
    uint8_t how = fuzz_u8(&f->in);

    f->v.qts = f->h->qts;
    f->v.o.slot = 1;
    f->v.o.transport = transport(f->h->args, how & 1);
    f->features = how & 2 ? ~fuzz_u64(&f->in) : UINT64_MAX;
    if (!(how & 4)) {
        /* Notifications that depend on the ring need a driver with care. */
        f->features &= ~VBLK_BIT(VIRTIO_RING_F_EVENT_IDX);
    }
    f->size = how & 8 ? 256 : how & 16 ? 8 : 32;
    f->queues = 1 + (how >> 5) % MAX_QUEUES;
    attach(f);
    if (how & 0x80 && vblk_is_pci(&f->v)) {
        qpci_msix_enable(f->v.pdev);
    }
    set_up(f);
}

/* Whatever was: after a reset there is a disk that can be read. */
static void check_alive(Fuzz *f)
{
    gint64 end = g_get_monotonic_time() + MUST_MS * 1000;
    uint64_t status;

    undo_commands(f);
    f->h->system_reset(f->h);
    f->in.left = 0;
    f->features = ~VBLK_BIT(VIRTIO_RING_F_EVENT_IDX);
    attach(f);
    set_up(f);
    put_request(f, VIRTIO_BLK_T_IN, 0);
    status = f->waiting[f->slot];
    push(f, &f->v.q[0]);
    kick(f, &f->v.q[0]);
    while (!answered(f)) {
        FUZZ_CHECK(g_get_monotonic_time() < end);
        f->h->run(f->h);
    }
    FUZZ_CHECK(qtest_readb(f->v.qts, status) == VIRTIO_BLK_S_OK);
    vblk_bus(&f->v)->set_status(&f->v, 0);
}

typedef void Op(Fuzz *f);

/* Often what is there often. */
static Op *const ops[] = {
    op_request, op_request, op_request, op_request, op_burst, op_kick, op_wait,
    op_reset, op_queue_reset, op_config, op_status, op_register, op_pci_config,
    op_vectors, op_ring_memory, op_clock, op_command, op_command, op_command,
    op_system_reset,
};

void fuzz_ops(FuzzHost *h, const uint8_t *data, size_t size)
{
    Fuzz f = { .h = h, .in = { data, size } };

    begin(&f);
    for (unsigned i = 0; i < MAX_OPS && f.in.left; i++) {
        ops[fuzz_u8(&f.in) % ARRAY_SIZE(ops)](&f);
    }
    check_alive(&f);
    g_free(f.v.pdev);
}
