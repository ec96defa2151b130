/*
 * virtio-blk qtests: requests without sense or order
 *
 * A fuzzer that knows what a request looks like: random types, sectors,
 * lengths and flags, cut into descriptors at random, in batches, with resets
 * between them.  Every request is answered, with a status that exists and no
 * more bytes than it has room for, or the device says that it is broken.
 *
 * VBLK_SEED is the seed [1], VBLK_CHAOS the number of batches [150].
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "fixture.h"

#define SLOTS           8       /* requests of a batch */
#define ROOM            65536   /* bytes each way of a request */
#define MAX_PIECES      6
#define ANSWER_MS       5000
#define CAPACITY        32768   /* sectors: 16 MiB */

typedef struct Slot {
    VblkReq *req;
    uint64_t out, in;           /* guest memory, ROOM bytes each */
    uint32_t in_len;
    bool has_status;
} Slot;

typedef struct Chaos {
    Vblk *v;
    bool may_break;             /* the driver can see a broken device */
    unsigned rng;
    Slot slot[SLOTS];
} Chaos;

static unsigned number(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text ? atoi(text) : otherwise;
}

static unsigned below(Chaos *c, unsigned n)
{
    return (unsigned)rand_r(&c->rng) % n;
}

static bool one_in(Chaos *c, unsigned n)
{
    return below(c, n) == 0;
}

static uint32_t some_type(Chaos *c)
{
    if (one_in(c, 20)) {
        return below(c, INT_MAX) * 2 + 1;
    }
    return below(c, 28) | (one_in(c, 10) ? VIRTIO_BLK_T_BARRIER : 0);
}

static uint64_t some_sector(Chaos *c)
{
    switch (below(c, 8)) {
    case 0:
        return CAPACITY - below(c, 3);
    case 1:
        return UINT64_MAX - below(c, 16);
    case 2:
        return (uint64_t)below(c, INT_MAX) << below(c, 33);
    default:
        return below(c, CAPACITY);
    }
}

static uint32_t some_length(Chaos *c)
{
    static const uint32_t usual[] = { 0, 1, 6, 15, 16, 20, 32, 48, 511, 512,
                                      513, 1024, 4096, 8192, 32768 };

    return one_in(c, 6) ? below(c, 40000) : usual[below(c, ARRAY_SIZE(usual))];
}

/* Cut @len bytes at @addr into pieces; returns how many. */
static unsigned cut(Chaos *c, VblkSeg *seg, uint64_t addr, uint32_t len)
{
    unsigned n = 0;

    while (len) {
        uint32_t piece = n + 1 == MAX_PIECES || one_in(c, 2) ? len :
                         1 + below(c, one_in(c, 2) ? MIN(len, 32) : len);

        seg[n++] = (VblkSeg) { addr, piece };
        addr += piece;
        len -= piece;
    }
    return n;
}

/* The usual cuts, which drivers make: header and status for themselves. */
static unsigned cut_usual(VblkSeg *seg, uint64_t addr, uint32_t first,
                          uint32_t second)
{
    unsigned n = 0;

    if (first) {
        seg[n++] = (VblkSeg) { addr, first };
    }
    if (second) {
        seg[n++] = (VblkSeg) { addr + first, second };
    }
    return n;
}

static void fill_ranges(Chaos *c, uint8_t *payload, uint32_t len)
{
    struct virtio_blk_discard_write_zeroes range;

    for (uint32_t at = 0; at + sizeof(range) <= len; at += sizeof(range)) {
        range.sector = cpu_to_le64(some_sector(c));
        range.num_sectors = cpu_to_le32(below(c, one_in(c, 9) ? INT_MAX : 99));
        range.flags = cpu_to_le32(one_in(c, 5) ? below(c, 4) : below(c, 2));
        memcpy(payload + at, &range, sizeof(range));
    }
}

static void submit(Chaos *c, Slot *s)
{
    static uint8_t out[ROOM];
    struct virtio_blk_outhdr header = {
        .type = cpu_to_le32(some_type(c)),
        .sector = cpu_to_le64(some_sector(c)),
    };
    uint32_t payload = below(c, 2) ? some_length(c) : 0;
    uint32_t head = c->may_break && one_in(c, 60) ? below(c, 16) : 16;
    uint32_t in = payload && !one_in(c, 4) ? 0 : some_length(c);
    VblkSeg so[MAX_PIECES], si[MAX_PIECES];
    unsigned nout, nin;

    memset(out, below(c, 256), sizeof(out));
    memcpy(out, &header, sizeof(header));
    fill_ranges(c, out + head, MIN(payload, 512));
    qtest_memwrite(c->v->qts, s->out, out, head + MIN(payload, 1024));
    s->has_status = !c->may_break || !one_in(c, 60);
    s->in_len = in + s->has_status;
    if (s->in_len) {
        qtest_memset(c->v->qts, s->in + s->in_len - 1, VBLK_S_UNTOUCHED, 1);
    }
    if (one_in(c, 2)) {
        nout = cut(c, so, s->out, head + payload);
        nin = cut(c, si, s->in, s->in_len);
    } else {
        nout = cut_usual(so, s->out, head, payload);
        nin = cut_usual(si, s->in, in, s->has_status);
    }
    if (nout + nin) {
        s->req = vblk_submit(c->v, 0, so, nout, si, nin);
    }
}

static bool broken(Chaos *c)
{
    return c->may_break &&
           (vblk_status(c->v) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void check_answer(Chaos *c, Slot *s)
{
    uint32_t used;
    uint8_t status;

    vblk_wait(c->v, s->req, &used);
    s->req = NULL;
    g_assert_cmpint(used, <=, s->in_len);
    g_assert_cmpint(used, >=, 1);
    status = qtest_readb(c->v->qts, s->in + s->in_len - 1);
    g_assert_cmpint(status, <=, VIRTIO_BLK_S_UNSUPP);
}

/* True when all were answered, false when the device is broken. */
static bool reap(Chaos *c)
{
    gint64 end = g_get_monotonic_time() + ANSWER_MS * 1000;
    unsigned left;

    do {
        left = 0;
        for (unsigned i = 0; i < SLOTS; i++) {
            if (c->slot[i].req && vblk_done(c->v, c->slot[i].req)) {
                check_answer(c, &c->slot[i]);
            }
            left += c->slot[i].req != NULL;
        }
        if (left && broken(c)) {
            return false;
        }
        if (g_get_monotonic_time() > end) {
            vblk_fail("%u requests without an answer after %d ms", left,
                      ANSWER_MS);
        }
    } while (left);
    return true;
}

static void start_anew(Chaos *c)
{
    vblk_reset(c->v);
    for (unsigned i = 0; i < SLOTS; i++) {
        c->slot[i].req = NULL;
    }
    vblk_setup(c->v);
}

static void batch(Chaos *c)
{
    unsigned n = 1 + below(c, SLOTS);

    for (unsigned i = 0; i < n; i++) {
        submit(c, &c->slot[i]);
    }
    vblk_kick(c->v, 0);
    if (one_in(c, 16)) {
        /* With requests in flight, answered or not. */
        start_anew(c);
    } else if (!reap(c)) {
        start_anew(c);
    }
    if (one_in(c, 16)) {
        vblk_cfg_write8(c->v, below(c, 60), below(c, 256));
    }
}

static void test_chaos(const VblkVariant *variant)
{
    unsigned batches = number("VBLK_CHAOS", 150);
    Chaos c = { .rng = number("VBLK_SEED", 1) };
    VblkOpts o = vblk_opts(variant);

    o.props = "serial=chaos,max-discard-segments=3,"
              "max-write-zeroes-segments=5";
    c.v = vblk_start(&o);
    c.may_break = vblk_is_modern(c.v);
    for (unsigned i = 0; i < SLOTS; i++) {
        c.slot[i].out = vblk_alloc(c.v, ROOM);
        c.slot[i].in = vblk_alloc(c.v, ROOM);
    }
    g_test_message("VBLK_SEED=%u VBLK_CHAOS=%u", c.rng, batches);
    for (unsigned i = 0; i < batches; i++) {
        alarm(VBLK_TEST_SECONDS);
        batch(&c);
    }
    start_anew(&c);
    vblk_check_io(c.v, 0);
    vblk_stop(c.v);
}

void vblk_add_chaos_tests(void)
{
    vblk_add("chaos", VBLK_ON_ALL, test_chaos);
}
