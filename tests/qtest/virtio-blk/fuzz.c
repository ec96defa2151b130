/*
 * virtio-blk qtests: rings full of nonsense
 *
 * What a hostile driver may write, by a generator that gives the same numbers
 * each time.  The device may call itself broken or answer; it must live, and
 * be whole after a reset.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "fixture.h"

#define ROUNDS      80
#define RING        16              /* entries */
#define MEM         16384           /* headers, then tables, then data */
#define HEADERS     4096
#define TABLES      4096

typedef struct Fuzz {
    Vblk *v;
    GRand *rand;
    uint64_t mem;
} Fuzz;

static uint32_t below(Fuzz *f, uint32_t n)
{
    return g_rand_int_range(f->rand, 0, n);
}

static uint64_t any_address(Fuzz *f)
{
    switch (below(f, 10)) {
    case 0:
        return vblk_hole(f->v);
    case 1:
        return f->v->q[0].desc + below(f, RING * 16);
    case 2:
        return ((uint64_t)g_rand_int(f->rand) << 32) | g_rand_int(f->rand);
    case 3:
        return f->mem + HEADERS + below(f, TABLES / 64) * 64;
    case 4:
        return f->mem + below(f, MEM);
    default:
        return f->mem + below(f, HEADERS / 64) * 64;
    }
}

static uint32_t any_length(Fuzz *f)
{
    static const uint32_t lens[] = {
        0, 1, 1, 15, 16, 16, 16, 17, 20, 48, 64, 512, 512, 4096, 65536,
        0x7fffffff, 0xffffffff,
    };

    return lens[below(f, ARRAY_SIZE(lens))];
}

#define CHAIN       3
#define ODDS        20              /* one field of so many is nonsense */

/* Header, data, status, over and over; some of it is wrong. */
static void any_descriptor(Fuzz *f, uint8_t *d, bool packed, unsigned i)
{
    static const uint32_t lens[CHAIN] = { 16, 512, 1 };
    static const uint16_t flags[CHAIN] = {
        VRING_DESC_F_NEXT, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
        VRING_DESC_F_WRITE,
    };
    unsigned part = i % CHAIN;
    bool right[5];
    uint64_t address = f->mem + (part ? HEADERS + TABLES : 0) +
                       below(f, HEADERS / 64) * 64;
    uint16_t flag = flags[part], id = packed ? i / CHAIN : i + 1;

    for (unsigned k = 0; k < ARRAY_SIZE(right); k++) {
        right[k] = below(f, ODDS);
    }
    /* Data may go out as well. */
    flag &= part == 1 && below(f, 2) ? ~VRING_DESC_F_WRITE : ~0;
    flag = right[0] ? flag : 1 << below(f, 3);
    if (packed) {
        /* Available in the first round of the ring. */
        flag |= right[1] ? VBLK_PACKED_AVAIL : VBLK_PACKED_USED;
    }
    stq_le_p(d, right[2] ? address : any_address(f));
    stl_le_p(d + 8, right[3] ? lens[part] : any_length(f));
    id = right[4] ? id : below(f, 2 * RING);
    stw_le_p(d + 12, packed ? id : flag);
    stw_le_p(d + 14, packed ? flag : id);
}

static void any_memory(Fuzz *f, bool packed)
{
    static const uint64_t sectors[] = { 0, 1, 8, 32767, 32768, UINT64_MAX };
    g_autofree uint8_t *buf = g_malloc0(MEM);

    for (unsigned at = 0; at < HEADERS; at += 64) {
        stl_le_p(buf + at, below(f, 20) ? below(f, 27) : g_rand_int(f->rand));
        stq_le_p(buf + at + 8, sectors[below(f, ARRAY_SIZE(sectors))]);
    }
    for (unsigned at = HEADERS; at < HEADERS + TABLES; at += 16) {
        any_descriptor(f, buf + at, packed, (at - HEADERS) / 16 % RING);
    }
    qtest_memwrite(f->v->qts, f->mem, buf, MEM);
}

static void any_ring(Fuzz *f)
{
    VblkQueue *vq = &f->v->q[0];
    uint8_t desc[RING * 16], avail[4 + 2 * RING];

    for (unsigned i = 0; i < RING; i++) {
        any_descriptor(f, desc + i * 16, f->v->o.packed, i);
        stw_le_p(avail + 4 + 2 * i, below(f, ODDS) ?
                 below(f, RING / CHAIN) * CHAIN : below(f, RING + 1));
    }
    qtest_memwrite(f->v->qts, vq->desc, desc, sizeof(desc));
    if (!f->v->o.packed) {
        stw_le_p(avail, 0);
        stw_le_p(avail + 2, below(f, ODDS) ? below(f, 4) + 1
                                           : g_rand_int(f->rand));
        qtest_memwrite(f->v->qts, vq->avail, avail, sizeof(avail));
    }
}

/* B4, B5: rings at random, some of which the device can read. */
static void test_rings(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Fuzz f = { .rand = g_rand_new_with_seed(0x5eed) };
    unsigned broken = 0;

    o.ring_size = RING;
    f.v = vblk_start(&o);
    f.mem = vblk_alloc(f.v, MEM);
    for (unsigned round = 0; round < ROUNDS; round++) {
        any_memory(&f, o.packed);
        any_ring(&f);
        vblk_notify(f.v, 0);
        g_usleep(1000);
        broken += !!(vblk_status(f.v) & VIRTIO_CONFIG_S_NEEDS_RESET);
        vblk_reset(f.v);
        vblk_setup(f.v);
        vblk_check_io(f.v, 0);
        /* Rings begin empty, not with what check_io() left behind. */
        vblk_setup(f.v);
    }
    /* Else there is something wrong with the generator. */
    g_assert_cmpint(broken, >, 0);
    g_assert_cmpint(broken, <, ROUNDS);
    g_rand_free(f.rand);
    vblk_stop(f.v);
}

void vblk_add_fuzz_tests(void)
{
    /*
     * Not with an iothread: where a buffer is no RAM the base takes the BQL to
     * read it, which the main loop holds while it waits for that iothread to
     * stop.  Both wait for ever; stock has the same code.
     */
    vblk_add("fuzz/rings", VBLK_ON_SPLIT | VBLK_ON_PACKED | VBLK_ON_MMIO |
             VBLK_ON_INDIRECT | VBLK_ON_PACKED_IND, test_rings);
}
