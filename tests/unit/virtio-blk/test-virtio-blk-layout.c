/*
 * virtio-blk: unit tests of the configuration structure
 *
 * Offsets and sizes are numbers counted from the structure in VIRTIO 1.4,
 * 5.2.4, not taken from a header, so that a slip there shows as well.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/block/virtio-blk/layout.h"

#define CONFIG_SIZE 96
#define GUARD 16

/* Field: one of VirtIOBlkLayout, and where the driver finds it. */
typedef struct Field {
    const char *name;
    unsigned host;              /* offset in VirtIOBlkLayout */
    unsigned wire;              /* offset in the config space */
    unsigned bits;              /* 1: a flag */
} Field;

#define FIELD(member, wire, bits) \
    { #member, offsetof(VirtIOBlkLayout, member), wire, bits }

static const Field fields[] = {
    FIELD(capacity, 0, 64),
    FIELD(seg_max, 12, 32),
    FIELD(cylinders, 16, 16),
    FIELD(heads, 18, 8),
    FIELD(sectors, 19, 8),
    FIELD(blk_size, 20, 32),
    FIELD(physical_block_exp, 24, 8),
    FIELD(min_io_size, 26, 16),
    FIELD(opt_io_size, 28, 32),
    FIELD(writeback, 32, 1),
    FIELD(num_queues, 34, 16),
    FIELD(discard.max_sectors, 36, 32),
    FIELD(discard.max_segments, 40, 32),
    FIELD(discard.alignment, 44, 32),
    FIELD(write_zeroes.max_sectors, 48, 32),
    FIELD(write_zeroes.max_segments, 52, 32),
    FIELD(write_zeroes_may_unmap, 56, 1),
    FIELD(secure_erase.max_sectors, 60, 32),
    FIELD(secure_erase.max_segments, 64, 32),
    FIELD(secure_erase.alignment, 68, 32),
    FIELD(zoned.zone_sectors, 72, 32),
    FIELD(zoned.max_open_zones, 76, 32),
    FIELD(zoned.max_active_zones, 80, 32),
    FIELD(zoned.max_append_sectors, 84, 32),
    FIELD(zoned.write_granularity, 88, 32),
    FIELD(zoned.model, 92, 8),
};

static unsigned field_bytes(const Field *f)
{
    return f->bits == 1 ? 1 : f->bits / 8;
}

static void set_host(VirtIOBlkLayout *layout, const Field *f, uint64_t value)
{
    uint8_t *p = (uint8_t *)layout + f->host;

    switch (f->bits) {
    case 1:
        *(bool *)p = value;
        break;
    case 8:
        *p = value;
        break;
    case 16:
        *(uint16_t *)p = value;
        break;
    case 32:
        *(uint32_t *)p = value;
        break;
    case 64:
        *(uint64_t *)p = value;
        break;
    default:
        g_assert_not_reached();
    }
}

static void set_wire(uint8_t *wire, const Field *f, uint64_t value, bool be)
{
    unsigned n = field_bytes(f);

    for (unsigned i = 0; i < n; i++) {
        wire[f->wire + (be ? n - 1 - i : i)] = value >> (8 * i);
    }
}

/* Encode @layout over rubbish; not a byte past the structure may change. */
static void check_encode(const VirtIOBlkLayout *layout, bool be,
                         const uint8_t *want)
{
    struct {
        struct virtio_blk_config cfg;
        uint8_t guard[GUARD];
    } got;
    uint8_t guard[GUARD];

    g_assert_cmpuint(sizeof(got.cfg), ==, CONFIG_SIZE);
    memset(&got, 0xa5, sizeof(got));
    memset(guard, 0xa5, sizeof(guard));
    virtio_blk_layout_encode(layout, be, &got.cfg);
    g_assert_cmpmem(&got.cfg, CONFIG_SIZE, want, CONFIG_SIZE);
    g_assert_cmpmem(got.guard, GUARD, guard, GUARD);
}

static void test_zero(void)
{
    const uint8_t want[CONFIG_SIZE] = {};
    VirtIOBlkLayout layout = {};

    check_encode(&layout, false, want);
    check_encode(&layout, true, want);
}

/* Every bit of every field alone: all other bytes read 0. */
static void test_field(const void *opaque)
{
    const Field *f = opaque;

    for (unsigned bit = 0; bit < f->bits; bit++) {
        for (int be = 0; be < 2; be++) {
            uint8_t want[CONFIG_SIZE] = {};
            VirtIOBlkLayout layout = {};

            set_host(&layout, f, 1ull << bit);
            set_wire(want, f, 1ull << bit, be);
            check_encode(&layout, be, want);
        }
    }
}

static const VirtIOBlkLayout full = {
    .capacity = 0x0102030405060708ull,
    .seg_max = 0x11121314,
    .cylinders = 0x2122,
    .heads = 0x23,
    .sectors = 0x24,
    .blk_size = 0x31323334,
    .physical_block_exp = 0x41,
    .min_io_size = 0x4344,
    .opt_io_size = 0x51525354,
    .writeback = true,
    .num_queues = 0x6364,
    .discard = { 0x71727374, 0x75767778, 0x797a7b7c },
    .write_zeroes = { 0x81828384, 0x85868788, 0x898a8b8c },
    .write_zeroes_may_unmap = true,
    .secure_erase = { 0x91929394, 0x95969798, 0x999a9b9c },
    .zoned = {
        .model = 0xb5,
        .zone_sectors = 0xa1a2a3a4,
        .max_open_zones = 0xa5a6a7a8,
        .max_active_zones = 0xa9aaabac,
        .max_append_sectors = 0xadaeafb0,
        .write_granularity = 0xb1b2b3b4,
    },
};

static void test_little_endian(void)
{
    /* One 32-bit word a column; write zeroes has no alignment to show. */
    static const uint8_t want[CONFIG_SIZE] = {
        0x08, 0x07, 0x06, 0x05,  0x04, 0x03, 0x02, 0x01,
        0x00, 0x00, 0x00, 0x00,  0x14, 0x13, 0x12, 0x11,
        0x22, 0x21, 0x23, 0x24,  0x34, 0x33, 0x32, 0x31,
        0x41, 0x00, 0x44, 0x43,  0x54, 0x53, 0x52, 0x51,
        0x01, 0x00, 0x64, 0x63,  0x74, 0x73, 0x72, 0x71,
        0x78, 0x77, 0x76, 0x75,  0x7c, 0x7b, 0x7a, 0x79,
        0x84, 0x83, 0x82, 0x81,  0x88, 0x87, 0x86, 0x85,
        0x01, 0x00, 0x00, 0x00,  0x94, 0x93, 0x92, 0x91,
        0x98, 0x97, 0x96, 0x95,  0x9c, 0x9b, 0x9a, 0x99,
        0xa4, 0xa3, 0xa2, 0xa1,  0xa8, 0xa7, 0xa6, 0xa5,
        0xac, 0xab, 0xaa, 0xa9,  0xb0, 0xaf, 0xae, 0xad,
        0xb4, 0xb3, 0xb2, 0xb1,  0xb5, 0x00, 0x00, 0x00,
    };

    check_encode(&full, false, want);
}

static void test_big_endian(void)
{
    static const uint8_t want[CONFIG_SIZE] = {
        0x01, 0x02, 0x03, 0x04,  0x05, 0x06, 0x07, 0x08,
        0x00, 0x00, 0x00, 0x00,  0x11, 0x12, 0x13, 0x14,
        0x21, 0x22, 0x23, 0x24,  0x31, 0x32, 0x33, 0x34,
        0x41, 0x00, 0x43, 0x44,  0x51, 0x52, 0x53, 0x54,
        0x01, 0x00, 0x63, 0x64,  0x71, 0x72, 0x73, 0x74,
        0x75, 0x76, 0x77, 0x78,  0x79, 0x7a, 0x7b, 0x7c,
        0x81, 0x82, 0x83, 0x84,  0x85, 0x86, 0x87, 0x88,
        0x01, 0x00, 0x00, 0x00,  0x91, 0x92, 0x93, 0x94,
        0x95, 0x96, 0x97, 0x98,  0x99, 0x9a, 0x9b, 0x9c,
        0xa1, 0xa2, 0xa3, 0xa4,  0xa5, 0xa6, 0xa7, 0xa8,
        0xa9, 0xaa, 0xab, 0xac,  0xad, 0xae, 0xaf, 0xb0,
        0xb1, 0xb2, 0xb3, 0xb4,  0xb5, 0x00, 0x00, 0x00,
    };

    check_encode(&full, true, want);
}

/* The four features that reach past num_queues, and where each one ends. */
static const struct {
    unsigned bit;
    size_t end;
} grow[] = {
    { 13, 48 },                 /* DISCARD */
    { 14, 57 },                 /* WRITE_ZEROES */
    { 16, 72 },                 /* SECURE_ERASE */
    { 17, 96 },                 /* ZONED */
};

static void test_size_combinations(void)
{
    for (unsigned set = 0; set < 16; set++) {
        uint64_t features = 0, others = UINT64_MAX;
        size_t want = 36;

        for (unsigned i = 0; i < ARRAY_SIZE(grow); i++) {
            others &= ~(1ull << grow[i].bit);
            if (set & (1 << i)) {
                features |= 1ull << grow[i].bit;
                want = MAX(want, grow[i].end);
            }
        }
        g_assert_cmpuint(virtio_blk_layout_size(features), ==, want);
        g_assert_cmpuint(virtio_blk_layout_size(features | others), ==, want);
    }
}

static void test_size_each_bit(void)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        size_t want = 36;

        for (unsigned i = 0; i < ARRAY_SIZE(grow); i++) {
            if (bit == grow[i].bit) {
                want = grow[i].end;
            }
        }
        g_assert_cmpuint(virtio_blk_layout_size(1ull << bit), ==, want);
    }
}

/* A feature may be turned on without moving the fields a guest knows. */
static void test_size_grows(void)
{
    for (unsigned from = 0; from < 16; from++) {
        for (unsigned i = 0; i < ARRAY_SIZE(grow); i++) {
            uint64_t features = 0;

            for (unsigned j = 0; j < ARRAY_SIZE(grow); j++) {
                features |= from & (1 << j) ? 1ull << grow[j].bit : 0;
            }
            g_assert_cmpuint(
                virtio_blk_layout_size(features | 1ull << grow[i].bit), >=,
                virtio_blk_layout_size(features));
            g_assert_cmpuint(virtio_blk_layout_size(features), <=,
                             CONFIG_SIZE);
        }
    }
}

/* No field of an offered feature is cut off by the size. */
static void test_size_covers(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        const Field *f = &fields[i];
        uint64_t features = f->wire < 36 ? 0
                            : f->wire < 48 ? 1ull << 13
                            : f->wire < 60 ? 1ull << 14
                            : f->wire < 72 ? 1ull << 16 : 1ull << 17;

        g_assert_cmpuint(f->wire + field_bytes(f), <=,
                         virtio_blk_layout_size(features));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/layout/zero", test_zero);
    for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
        g_autofree char *path = g_strdup_printf("/layout/field/%s",
                                                fields[i].name);

        g_test_add_data_func(path, &fields[i], test_field);
    }
    g_test_add_func("/layout/little-endian", test_little_endian);
    g_test_add_func("/layout/big-endian", test_big_endian);
    g_test_add_func("/layout/size/combinations", test_size_combinations);
    g_test_add_func("/layout/size/each-bit", test_size_each_bit);
    g_test_add_func("/layout/size/grows", test_size_grows);
    g_test_add_func("/layout/size/covers", test_size_covers);
    return g_test_run();
}
