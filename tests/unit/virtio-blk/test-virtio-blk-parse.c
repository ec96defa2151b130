/*
 * virtio-blk: unit tests of request framing and of segment rules
 *
 * Constants are numbers from VIRTIO 1.4, 5.2.6, not taken from a header.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/block/virtio-blk/parse.h"

#define SEED 0x70617273
#define ROUNDS 20000

#define HEADER 16
#define SEGMENT 16
#define S_OK 0
#define S_IOERR 1
#define S_UNSUPP 2
#define UNMAP 1

#define MEMORY 512
#define MAX_IOV 40

/* The block layer takes no more than this in one go: 2 GiB less a sector. */
#define MOST_SECTORS 4194303

/* Chain: a descriptor chain over memory of its own. */
typedef struct Chain {
    uint8_t out_mem[MEMORY];
    uint8_t in_mem[MEMORY];
    struct iovec out[MAX_IOV];
    struct iovec in[MAX_IOV];
    unsigned out_num;
    unsigned in_num;
} Chain;

static void put(uint8_t *p, unsigned n, uint64_t value, bool be)
{
    for (unsigned i = 0; i < n; i++) {
        p[be ? n - 1 - i : i] = value >> (8 * i);
    }
}

static void put_header(Chain *c, uint32_t type, uint64_t sector, bool be)
{
    put(c->out_mem, 4, type, be);
    put(c->out_mem + 4, 4, 0xfeedface, be);     /* ioprio: reserved */
    put(c->out_mem + 8, 8, sector, be);
}

/* Append descriptors of these lengths; -1 ends the list. */
static void add_out(Chain *c, const int *lens)
{
    size_t at = iov_size(c->out, c->out_num);

    for (; *lens >= 0; at += *lens++) {
        g_assert_cmpuint(c->out_num, <, MAX_IOV);
        g_assert_cmpuint(at + *lens, <=, MEMORY);
        c->out[c->out_num++] = (struct iovec) { c->out_mem + at, *lens };
    }
}

static void add_in(Chain *c, const int *lens)
{
    size_t at = iov_size(c->in, c->in_num);

    for (; *lens >= 0; at += *lens++) {
        g_assert_cmpuint(c->in_num, <, MAX_IOV);
        g_assert_cmpuint(at + *lens, <=, MEMORY);
        c->in[c->in_num++] = (struct iovec) { c->in_mem + at, *lens };
    }
}

#define LENS(...) ((const int[]) { __VA_ARGS__, -1 })

/* @len bytes in descriptors that end at @cut1 and @cut2, cut1 <= cut2. */
#define CUTS(len, cut1, cut2) LENS(cut1, (cut2) - (cut1), (len) - (cut2))

static const char *parse(Chain *c, VirtIOBlkFrame *frame, bool be)
{
    struct iovec out[MAX_IOV], in[MAX_IOV];
    const char *wrong;

    memset(frame, 0xa5, sizeof(*frame));
    memcpy(out, c->out, sizeof(out));
    memcpy(in, c->in, sizeof(in));
    wrong = virtio_blk_frame_parse(frame, c->out, c->out_num, c->in,
                                   c->in_num, be);
    /* The descriptors are the ring's; they have to be unmapped as they are. */
    g_assert_cmpmem(out, sizeof(out), c->out, sizeof(c->out));
    g_assert_cmpmem(in, sizeof(in), c->in, sizeof(c->in));
    return wrong;
}

/* @iov has @len bytes, and byte i is the memory at @mem + i. */
static void check_bytes(const struct iovec *iov, unsigned num, size_t len,
                        const uint8_t *mem)
{
    size_t at = 0;

    for (unsigned i = 0; i < num; i++) {
        if (iov[i].iov_len) {
            g_assert_true(iov[i].iov_base == mem + at);
        }
        at += iov[i].iov_len;
    }
    g_assert_cmpuint(at, ==, len);
}

/* A frame that parse() found right: is it what the chain says? */
static void check_frame(const Chain *c, const VirtIOBlkFrame *frame,
                        uint32_t type, uint64_t sector)
{
    size_t out_len = iov_size(c->out, c->out_num) - HEADER;
    size_t in_len = iov_size(c->in, c->in_num) - 1;

    g_assert_cmphex(frame->type, ==, type);
    g_assert_cmphex(frame->sector, ==, sector);
    g_assert_cmpuint(frame->out_len, ==, out_len);
    g_assert_cmpuint(frame->in_len, ==, in_len);
    g_assert_true(frame->status == c->in_mem + in_len);
    g_assert_cmpuint(frame->out_num, <=, c->out_num);
    g_assert_cmpuint(frame->in_num, <=, c->in_num);
    check_bytes(frame->out, frame->out_num, out_len, c->out_mem + HEADER);
    check_bytes(frame->in, frame->in_num, in_len, c->in_mem);
}

#define SECTOR 0x1122334455667788ull

static void expect_frame(Chain *c, bool be)
{
    VirtIOBlkFrame frame;

    g_assert_cmpstr(parse(c, &frame, be), ==, NULL);
    check_frame(c, &frame, 13, SECTOR);
    virtio_blk_frame_destroy(&frame);
    g_assert_null(frame.copy);
    /* Nothing left: the second call frees nothing. */
    virtio_blk_frame_destroy(&frame);
}

/* The layouts that drivers use: no copy, no allocation. */
static void test_common_layouts(void)
{
    static const struct {
        int out[4], in[4];
    } layout[] = {
        { { 16, -1 }, { 1, -1 } },
        { { 16, -1 }, { 64, 1, -1 } },
        { { 16, -1 }, { 64, 32, 1, -1 } },
        { { 16, 64, -1 }, { 1, -1 } },
        { { 16, 64, 32, -1 }, { 1, -1 } },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(layout); i++) {
        for (int be = 0; be < 2; be++) {
            Chain c = {};
            VirtIOBlkFrame frame;

            put_header(&c, 13, SECTOR, be);
            add_out(&c, layout[i].out);
            add_in(&c, layout[i].in);
            g_assert_cmpstr(parse(&c, &frame, be), ==, NULL);
            check_frame(&c, &frame, 13, SECTOR);
            g_assert_null(frame.copy);
            g_assert_true(frame.out == c.out + 1);
            g_assert_cmpuint(frame.out_num, ==, c.out_num - 1);
            g_assert_true(frame.in == c.in);
            g_assert_cmpuint(frame.in_num, ==, c.in_num - 1);
            virtio_blk_frame_destroy(&frame);
        }
    }
}

/* Header and 24 bytes of payload, cut at every two places. */
static void test_split_out(void)
{
    const int len = HEADER + 24;

    for (int i = 0; i <= len; i++) {
        for (int j = i; j <= len; j++) {
            Chain c = {};

            put_header(&c, 13, SECTOR, j & 1);
            add_out(&c, CUTS(len, i, j));
            add_in(&c, LENS(1));
            expect_frame(&c, j & 1);
        }
    }
}

/* 24 bytes of payload and the status, cut at every two places. */
static void test_split_in(void)
{
    const int len = 24 + 1;

    for (int i = 0; i < len; i++) {
        for (int j = i; j < len; j++) {
            for (int joined = 0; joined < 2; joined++) {
                Chain c = {};

                put_header(&c, 13, SECTOR, false);
                /* With and without a header of its own. */
                add_out(&c, joined ? LENS(HEADER + 8) : LENS(HEADER, 8));
                add_in(&c, CUTS(len, i, j));
                expect_frame(&c, false);
            }
        }
    }
}

static void test_single_bytes(void)
{
    Chain c = {};

    put_header(&c, 13, SECTOR, false);
    for (int i = 0; i < HEADER + 20; i++) {
        add_out(&c, LENS(1));
    }
    for (int i = 0; i < 20 + 1; i++) {
        add_in(&c, LENS(1));
    }
    expect_frame(&c, false);
}

static void test_empty_descriptors(void)
{
    static const struct {
        int out[8], in[8];
    } layout[] = {
        { { 0, 16, -1 }, { 0, 1, -1 } },
        { { 16, 0, -1 }, { 0, 0, 1, -1 } },
        { { 0, 8, 0, 8, 0, -1 }, { 1, -1 } },
        { { 0, 8, 0, 40, 0, 3, 0, -1 }, { 0, 5, 0, 7, -1 } },
        { { 16, 0, 32, 0, -1 }, { 32, 0, 1, -1 } },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(layout); i++) {
        Chain c = {};

        put_header(&c, 13, SECTOR, false);
        add_out(&c, layout[i].out);
        add_in(&c, layout[i].in);
        expect_frame(&c, false);
    }
}

/* What the driver writes to its header later changes nothing. */
static void test_header_copied(void)
{
    VirtIOBlkFrame frame;
    Chain c = {};

    put_header(&c, 1, 7, false);
    add_out(&c, LENS(HEADER, 8));
    add_in(&c, LENS(1));
    g_assert_cmpstr(parse(&c, &frame, false), ==, NULL);
    put_header(&c, 0, 8, false);
    check_frame(&c, &frame, 1, 7);
    /* Nor does parsing write to the driver's memory. */
    g_assert_cmpuint(*frame.status, ==, 0);
    virtio_blk_frame_destroy(&frame);
}

/* Any type is handed on as it is, apart from the barrier bit of old. */
static void test_types(void)
{
    static const uint32_t odd[] = { 0, 3, 12, 27, 0x7fffffff, 0x5a5a5a5a };

    for (unsigned i = 0; i < 32 + ARRAY_SIZE(odd); i++) {
        uint32_t type = i < 32 ? 1u << i : odd[i - 32];

        for (int be = 0; be < 2; be++) {
            VirtIOBlkFrame frame;
            Chain c = {};

            add_out(&c, LENS(HEADER));
            add_in(&c, LENS(1));
            put_header(&c, type, 0, be);
            g_assert_cmpstr(parse(&c, &frame, be), ==, NULL);
            check_frame(&c, &frame, type & 0x7fffffff, 0);
            virtio_blk_frame_destroy(&frame);

            put_header(&c, type | 0x80000000, UINT64_MAX, be);
            g_assert_cmpstr(parse(&c, &frame, be), ==, NULL);
            check_frame(&c, &frame, type & 0x7fffffff, UINT64_MAX);
            virtio_blk_frame_destroy(&frame);
        }
    }
}

static void expect_wrong(Chain *c, const char *about)
{
    VirtIOBlkFrame frame;
    const char *wrong = parse(c, &frame, false);

    g_assert_nonnull(wrong);
    if (!strstr(wrong, about)) {
        g_error("\"%s\" does not name the %s", wrong, about);
    }
}

static void test_short_header(void)
{
    Chain none = {};

    add_in(&none, LENS(32, 1));
    expect_wrong(&none, "header");

    for (int len = 0; len < HEADER; len++) {
        for (int cut = 0; cut <= len; cut++) {
            Chain c = {};

            add_out(&c, CUTS(len, cut, cut));
            add_in(&c, LENS(32, 1));
            expect_wrong(&c, "header");
        }
    }
}

static void test_no_status(void)
{
    static const int in[][4] = { { -1 }, { 0, -1 }, { 0, 0, -1 },
                                 { 32, 0, -1 }, { 32, 1, 0, -1 } };

    for (unsigned i = 0; i < ARRAY_SIZE(in); i++) {
        for (int joined = 0; joined < 2; joined++) {
            Chain c = {};

            add_out(&c, joined ? LENS(HEADER + 8) : LENS(HEADER, 8));
            add_in(&c, in[i]);
            expect_wrong(&c, "status");
        }
    }
}

/*
 * Reads and writes
 */

/* The rule sector by sector: each one there, whole blocks, on blocks. */
static bool model_rw_ok(unsigned sector, unsigned bytes, unsigned capacity,
                        unsigned block)
{
    unsigned touched = 0;

    for (unsigned b = 0; b < bytes; b += 512) {
        if (sector + b / 512 >= capacity) {
            return false;
        }
        touched++;
    }
    return touched * 512 == bytes && touched % block == 0 &&
           sector % block == 0 && sector <= capacity;
}

static void test_rw_small(void)
{
    static const unsigned blocks[] = { 1, 2, 8 };

    for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
        for (unsigned capacity = 0; capacity <= 24; capacity++) {
            for (unsigned sector = 0; sector <= 34; sector++) {
                for (unsigned bytes = 0; bytes <= 34 * 512; bytes += 256) {
                    g_assert_cmpint(
                        virtio_blk_rw_range_ok(sector, bytes, capacity,
                                               blocks[i]), ==,
                        model_rw_ok(sector, bytes, capacity, blocks[i]));
                }
            }
        }
    }
}

/* A length is in bytes: every one that is no multiple of the block fails. */
static void test_rw_lengths(void)
{
    for (unsigned block = 1; block <= 64; block *= 2) {
        for (unsigned bytes = 0; bytes <= 2 * 64 * 512; bytes++) {
            g_assert_cmpint(virtio_blk_rw_range_ok(0, bytes, 1 << 20, block),
                            ==, bytes % (block * 512) == 0);
        }
    }
}

static void test_rw_limits(void)
{
    const uint64_t top = UINT64_MAX, half = 1ull << 63;

    static const struct {
        uint64_t sector, bytes, capacity;
        uint32_t block;
        bool ok;
    } t[] = {
        { 0, MOST_SECTORS * 512ull, 1ull << 40, 1, true },
        { 0, (MOST_SECTORS + 1) * 512ull, 1ull << 40, 1, false },
        { 0, (MOST_SECTORS - 7) * 512ull, 1ull << 40, 8, true },
        { 0, 1ull << 32, 1ull << 40, 1, false },
        { 0, 1ull << 41, 1ull << 40, 1, false },
        { 1ull << 40, 0, 1ull << 40, 1, true },
        { (1ull << 40) - 1, 512, 1ull << 40, 1, true },
        { 1ull << 40, 512, 1ull << 40, 1, false },
        { (1ull << 40) - 1, 1024, 1ull << 40, 1, false },
        { (1ull << 40) + 1, 0, 1ull << 40, 1, false },
        /* A block that is half there. */
        { 8, 4096, 12, 8, false },
        { 8, 4096, 16, 8, true },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        g_assert_cmpint(virtio_blk_rw_range_ok(t[i].sector, t[i].bytes,
                                               t[i].capacity, t[i].block),
                        ==, t[i].ok);
    }
    /* sector + sectors, and sector * 512, that wrap into the medium. */
    g_assert_false(virtio_blk_rw_range_ok(top, 512, 64, 1));
    g_assert_false(virtio_blk_rw_range_ok(top, 1024, 64, 1));
    g_assert_false(virtio_blk_rw_range_ok(top - 7, 8192, 64, 8));
    g_assert_false(virtio_blk_rw_range_ok(half, 512, 64, 1));
    g_assert_false(virtio_blk_rw_range_ok(1ull << 55, 512, 64, 1));
    g_assert_false(virtio_blk_rw_range_ok(0, top - 511, 64, 1));
    g_assert_false(virtio_blk_rw_range_ok(1, top - 511, 64, 1));
    g_assert_true(virtio_blk_rw_range_ok(top - 1, 512, top, 1));
}

/*
 * Discard, write zeroes, secure erase
 */

static const struct Command {
    const char *name;
    uint32_t known_flags;
} commands[] = {
    { "discard", 0 },
    { "write-zeroes", UNMAP },
    { "secure-erase", 0 },
};

static VirtIOBlkRangeLimits limits_of(const struct Command *cmd)
{
    return (VirtIOBlkRangeLimits) {
        .capacity = 10000,
        .max_sectors = 256,
        .max_segments = 4,
        .block_sectors = 8,
        .known_flags = cmd->known_flags,
    };
}

static void put_segment(Chain *c, unsigned i, uint64_t sector, uint32_t num,
                        uint32_t flags, bool be)
{
    uint8_t *p = c->out_mem + HEADER + i * SEGMENT;

    put(p, 8, sector, be);
    put(p + 8, 4, num, be);
    put(p + 12, 4, flags, be);
}

/*
 * Parse the segments of @c; on success the caller frees the ranges.  A failed
 * parse leaves nothing that could be executed.
 */
static uint8_t segments(Chain *c, const VirtIOBlkRangeLimits *limits, bool be,
                        VirtIOBlkRange **ranges, unsigned *num)
{
    VirtIOBlkFrame frame;
    uint8_t status;

    *ranges = (void *)0x1;
    *num = 0xa5a5;
    g_assert_cmpstr(parse(c, &frame, be), ==, NULL);
    status = virtio_blk_ranges_parse(&frame, limits, be, ranges, num);
    virtio_blk_frame_destroy(&frame);
    if (status == S_OK) {
        g_assert_nonnull(*ranges);
    } else {
        g_assert_null(*ranges);
        g_assert_cmpuint(*num, ==, 0);
    }
    return status;
}

static uint8_t segments_status(Chain *c, const VirtIOBlkRangeLimits *limits)
{
    g_autofree VirtIOBlkRange *ranges = NULL;
    unsigned num;

    return segments(c, limits, false, &ranges, &num);
}

/* The status of a request with this one segment. */
static uint8_t one_segment(const VirtIOBlkRangeLimits *limits,
                           uint64_t sector, uint32_t num, uint32_t flags)
{
    Chain c = {};

    put_segment(&c, 0, sector, num, flags, false);
    add_out(&c, LENS(HEADER, SEGMENT));
    add_in(&c, LENS(1));
    return segments_status(&c, limits);
}

/* Three segments, two cuts anywhere, both byte orders: read as written. */
static void test_seg_split(void)
{
    VirtIOBlkRangeLimits limits = {
        .capacity = UINT64_MAX, .max_sectors = UINT32_MAX, .max_segments = 3,
        .block_sectors = 1, .known_flags = UINT32_MAX,
    };
    const int len = HEADER + 3 * SEGMENT;

    for (int i = 0; i <= len; i++) {
        for (int j = i; j <= len; j++) {
            g_autofree VirtIOBlkRange *ranges = NULL;
            bool be = j & 1;
            unsigned num;
            Chain c = {};

            put_segment(&c, 0, SECTOR, 0x00112233, 0xaabbccdd, be);
            put_segment(&c, 1, 0, 0, 0, be);
            put_segment(&c, 2, 1, 2, 3, be);
            add_out(&c, CUTS(len, i, j));
            add_in(&c, LENS(1));
            g_assert_cmpuint(segments(&c, &limits, be, &ranges, &num), ==,
                             S_OK);
            g_assert_cmpuint(num, ==, 3);
            g_assert_cmphex(ranges[0].sector, ==, SECTOR);
            g_assert_cmphex(ranges[0].num_sectors, ==, 0x00112233);
            g_assert_cmphex(ranges[0].flags, ==, 0xaabbccdd);
            g_assert_cmpuint(ranges[1].sector, ==, 0);
            g_assert_cmpuint(ranges[1].num_sectors, ==, 0);
            g_assert_cmpuint(ranges[1].flags, ==, 0);
            g_assert_cmpuint(ranges[2].sector, ==, 1);
            g_assert_cmpuint(ranges[2].num_sectors, ==, 2);
            g_assert_cmpuint(ranges[2].flags, ==, 3);
        }
    }
}

/* Payloads of 0 to 7 segments' bytes where 4 segments are advertised. */
static void test_seg_length(const void *opaque)
{
    VirtIOBlkRangeLimits limits = limits_of(opaque);

    for (int len = 0; len < 7 * SEGMENT; len++) {
        uint8_t want = len / SEGMENT > 4 ? S_UNSUPP
                       : len && len % SEGMENT == 0 ? S_OK : S_IOERR;

        for (int joined = 0; joined < 2; joined++) {
            Chain c = {};

            /* All zero: segments of no sectors, which break no rule. */
            add_out(&c, joined ? LENS(HEADER + len) : LENS(HEADER, len));
            add_in(&c, LENS(1));
            g_assert_cmpuint(segments_status(&c, &limits), ==, want);
        }
    }
}

/* The count of segments allowed is a limit, not a size of our own. */
static void test_seg_count(const void *opaque)
{
    VirtIOBlkRangeLimits limits = limits_of(opaque);

    for (unsigned allowed = 0; allowed <= 6; allowed++) {
        for (unsigned n = 1; n <= 6; n++) {
            g_autofree VirtIOBlkRange *ranges = NULL;
            unsigned num;
            Chain c = {};
            uint8_t status;

            limits.max_segments = allowed;
            for (unsigned i = 0; i < n; i++) {
                put_segment(&c, i, 8 * i, 8, 0, false);
            }
            add_out(&c, LENS(HEADER, n * SEGMENT));
            add_in(&c, LENS(1));
            status = segments(&c, &limits, false, &ranges, &num);
            g_assert_cmpuint(status, ==, n <= allowed ? S_OK : S_UNSUPP);
            g_assert_cmpuint(num, ==, n <= allowed ? n : 0);
            for (unsigned i = 0; i < num; i++) {
                g_assert_cmpuint(ranges[i].sector, ==, 8 * i);
            }
        }
    }
}

/* Every flag bit alone, and with the one that is known. */
static void test_seg_flags(const void *opaque)
{
    const struct Command *cmd = opaque;
    VirtIOBlkRangeLimits limits = limits_of(cmd);

    for (unsigned bit = 0; bit < 32; bit++) {
        uint32_t flags = 1u << bit;
        uint8_t want = flags & ~cmd->known_flags ? S_UNSUPP : S_OK;

        g_assert_cmpuint(one_segment(&limits, 8, 8, flags), ==, want);
        if (flags != UNMAP) {
            g_assert_cmpuint(one_segment(&limits, 8, 8, flags | UNMAP), ==,
                             S_UNSUPP);
        }
    }
    g_assert_cmpuint(one_segment(&limits, 8, 8, 0), ==, S_OK);
}

static void test_seg_range(const void *opaque)
{
    VirtIOBlkRangeLimits limits = limits_of(opaque);

    static const struct {
        uint64_t sector;
        uint32_t num;
        uint8_t status;
    } t[] = {
        { 0, 8, S_OK },
        { 0, 0, S_OK },
        { 10000, 0, S_OK },
        { 0, 256, S_OK },               /* max_sectors */
        { 0, 257, S_IOERR },
        { 0, 264, S_IOERR },
        { 0, UINT32_MAX, S_IOERR },
        { 0, 0x80000000, S_IOERR },
        { 9992, 8, S_OK },              /* capacity */
        { 9992, 16, S_IOERR },
        { 10000, 8, S_IOERR },
        { 10008, 0, S_IOERR },
        { UINT64_MAX - 7, 8, S_IOERR },
        { UINT64_MAX - 7, 16, S_IOERR },
        { 1ull << 55, 8, S_IOERR },
        { 1ull << 32, 8, S_IOERR },
        { 1, 8, S_IOERR },              /* whole blocks */
        { 4, 8, S_IOERR },
        { 7, 8, S_IOERR },
        { 0, 1, S_IOERR },
        { 0, 4, S_IOERR },
        { 8, 15, S_IOERR },
        { 4, 4, S_IOERR },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        g_assert_cmpuint(one_segment(&limits, t[i].sector, t[i].num, 0), ==,
                         t[i].status);
    }
    /* What the backend can't take is refused whatever was advertised. */
    limits.capacity = 1ull << 40;
    limits.max_sectors = UINT32_MAX;
    limits.block_sectors = 1;
    g_assert_cmpuint(one_segment(&limits, 0, MOST_SECTORS, 0), ==, S_OK);
    g_assert_cmpuint(one_segment(&limits, 0, MOST_SECTORS + 1, 0), ==,
                     S_IOERR);
    g_assert_cmpuint(one_segment(&limits, 0, UINT32_MAX, 0), ==, S_IOERR);
    /* 4 GiB, and 4 GiB and a sector, are not 0 and one sector. */
    g_assert_cmpuint(one_segment(&limits, 0, 1 << 23, 0), ==, S_IOERR);
    g_assert_cmpuint(one_segment(&limits, 0, (1 << 23) + 1, 0), ==, S_IOERR);
    /* And a device that advertises no sectors takes none. */
    limits.max_sectors = 0;
    g_assert_cmpuint(one_segment(&limits, 0, 1, 0), ==, S_IOERR);
}

/*
 * One bad segment spoils the request wherever it stands, and a bad flag counts
 * before a bad range, be it in front of it or behind.
 */
static void test_seg_precedence(const void *opaque)
{
    VirtIOBlkRangeLimits limits = limits_of(opaque);

    for (unsigned range = 0; range <= 4; range++) {
        for (unsigned flag = 0; flag <= 4; flag++) {
            Chain c = {};

            for (unsigned i = 0; i < 4; i++) {
                put_segment(&c, i, i == range ? 10000 : 8 * i, 8,
                            i == flag ? 2 : 0, false);
            }
            add_out(&c, LENS(HEADER, 4 * SEGMENT));
            add_in(&c, LENS(1));
            g_assert_cmpuint(segments_status(&c, &limits), ==,
                             flag < 4 ? S_UNSUPP : range < 4 ? S_IOERR : S_OK);
        }
    }
}

/* As many as a device can advertise, in as many descriptors as there are. */
static void test_seg_many(void)
{
    const unsigned n = 256;
    g_autofree uint8_t *mem = g_malloc0(HEADER + n * SEGMENT);
    g_autofree struct iovec *out = g_new(struct iovec, n + 1);
    VirtIOBlkRangeLimits limits = limits_of(&commands[1]);
    g_autofree VirtIOBlkRange *ranges = NULL;
    uint8_t status = 0xff;
    struct iovec in = { &status, 1 };
    VirtIOBlkFrame frame;
    unsigned num;

    limits.max_segments = n;
    out[0] = (struct iovec) { mem, HEADER };
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = mem + HEADER + i * SEGMENT;

        put(p, 8, 8 * i, false);
        put(p + 8, 4, 8 + 8 * (i % 3), false);
        put(p + 12, 4, i & UNMAP, false);
        out[i + 1] = (struct iovec) { p, SEGMENT };
    }
    g_assert_null(virtio_blk_frame_parse(&frame, out, n + 1, &in, 1, false));
    g_assert_cmpuint(virtio_blk_ranges_parse(&frame, &limits, false, &ranges,
                                             &num), ==, S_OK);
    g_assert_cmpuint(num, ==, n);
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpuint(ranges[i].sector, ==, 8 * i);
        g_assert_cmpuint(ranges[i].num_sectors, ==, 8 + 8 * (i % 3));
        g_assert_cmpuint(ranges[i].flags, ==, i & UNMAP);
    }
    virtio_blk_frame_destroy(&frame);
}

/*
 * Random requests
 */

static uint64_t get(const uint8_t *p, unsigned n, bool be)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < n; i++) {
        value = value << 8 | p[be ? i : n - 1 - i];
    }
    return value;
}

/* The status of the segments at @mem by the rules, one after the other. */
static uint8_t model_segments(const uint8_t *mem, size_t len,
                              const VirtIOBlkRangeLimits *l, bool be)
{
    uint8_t status = len && len % SEGMENT == 0 ? S_OK : S_IOERR;

    if (len / SEGMENT > l->max_segments) {
        return S_UNSUPP;
    }
    for (size_t at = 0; status == S_OK && at < len; at += SEGMENT) {
        if (get(mem + at + 12, 4, be) & ~l->known_flags) {
            status = S_UNSUPP;
        }
    }
    for (size_t at = 0; status == S_OK && at < len; at += SEGMENT) {
        uint64_t sector = get(mem + at, 8, be);
        uint64_t num = get(mem + at + 8, 4, be);

        if (sector > l->capacity || num > l->max_sectors ||
            sector + num > l->capacity || sector % l->block_sectors ||
            num % l->block_sectors) {
            status = S_IOERR;
        }
    }
    return status;
}

/* Descriptors of random lengths, some empty, for up to @len bytes. */
static void random_lens(GRand *rand, int *lens, int len)
{
    int n = g_rand_int_range(rand, 0, 9);
    int at = 0;

    for (int i = 0; i < n && at < len; i++) {
        int most = i == n - 1 ? len - at : MIN(len - at, 40);

        lens[i] = g_rand_int_range(rand, 0, 4) ? g_rand_int_range(rand, 0,
                                                                  most + 1)
                                               : most;
        at += lens[i];
        lens[i + 1] = -1;
    }
    if (!n || !len) {
        lens[0] = -1;
    }
}

/* Half of the chains have the header and the status where drivers put them. */
static void random_chain(GRand *rand, Chain *c)
{
    int lens[12];

    if (g_rand_boolean(rand)) {
        add_out(c, LENS(HEADER));
    }
    random_lens(rand, lens, g_rand_int_range(rand, 0, 7) * SEGMENT);
    add_out(c, lens);
    random_lens(rand, lens, g_rand_int_range(rand, 0, 100));
    add_in(c, lens);
    if (g_rand_boolean(rand)) {
        add_in(c, LENS(1));
    }
    for (unsigned i = 0; i < MEMORY; i++) {
        c->in_mem[i] = c->out_mem[i] = g_rand_int(rand);
    }
}

/* Segments that break a rule only now and then. */
static void random_segments(GRand *rand, Chain *c, bool be)
{
    for (unsigned i = 0; i < 8; i++) {
        put_segment(c, i, g_rand_int_range(rand, 0, 400) * 4,
                    g_rand_int_range(rand, 0, 36) * 8,
                    g_rand_int_range(rand, 0, 8) ? 0 : 1u <<
                    g_rand_int_range(rand, 0, 2), be);
    }
}

/* Returns the status of the segments, or 0xff where the framing is wrong. */
static uint8_t fuzz_round(GRand *rand)
{
    const struct Command *cmd = &commands[g_rand_int_range(rand, 0, 3)];
    VirtIOBlkRangeLimits limits = limits_of(cmd);
    g_autofree VirtIOBlkRange *ranges = NULL;
    bool be = g_rand_boolean(rand), framed;
    VirtIOBlkFrame frame;
    uint8_t status;
    unsigned num;
    Chain c = {};

    limits.capacity = 1600;
    limits.block_sectors = 4;
    random_chain(rand, &c);
    if (g_rand_int_range(rand, 0, 8)) {
        random_segments(rand, &c, be);
    }

    framed = iov_size(c.out, c.out_num) >= HEADER && c.in_num &&
             c.in[c.in_num - 1].iov_len;
    if (parse(&c, &frame, be)) {
        g_assert_false(framed);
        return 0xff;
    }
    g_assert_true(framed);
    check_frame(&c, &frame, get(c.out_mem, 4, be) & 0x7fffffff,
                get(c.out_mem + 8, 8, be));
    virtio_blk_frame_destroy(&frame);

    status = segments(&c, &limits, be, &ranges, &num);
    g_assert_cmpuint(status, ==,
                     model_segments(c.out_mem + HEADER, frame.out_len,
                                    &limits, be));
    g_assert_cmpuint(num, ==, status == S_OK ? frame.out_len / SEGMENT : 0);
    for (unsigned i = 0; i < num; i++) {
        const uint8_t *p = c.out_mem + HEADER + i * SEGMENT;

        g_assert_cmphex(ranges[i].sector, ==, get(p, 8, be));
        g_assert_cmphex(ranges[i].num_sectors, ==, get(p + 8, 4, be));
        g_assert_cmphex(ranges[i].flags, ==, get(p + 12, 4, be));
    }
    return status;
}

static void test_fuzz(void)
{
    unsigned seen[256] = {};

    g_test_message("seed 0x%x, %u rounds", SEED, ROUNDS);
    for (unsigned round = 0; round < ROUNDS; round++) {
        /* A seed a round: a failure can be run again alone. */
        GRand *rand = g_rand_new_with_seed(SEED + round);

        seen[fuzz_round(rand)]++;
        g_rand_free(rand);
    }
    g_test_message("ok %u, I/O error %u, unsupported %u, malformed %u",
                   seen[S_OK], seen[S_IOERR], seen[S_UNSUPP], seen[0xff]);
    /* Fuzz that only ever fails early would test little. */
    g_assert_cmpuint(seen[S_OK], >, ROUNDS / 50);
    g_assert_cmpuint(seen[S_IOERR], >, ROUNDS / 50);
    g_assert_cmpuint(seen[S_UNSUPP], >, ROUNDS / 50);
    g_assert_cmpuint(seen[0xff], >, ROUNDS / 50);
}

static void add_command_tests(const struct Command *cmd)
{
    static const struct {
        const char *name;
        void (*run)(const void *opaque);
    } t[] = {
        { "length", test_seg_length },
        { "count", test_seg_count },
        { "flags", test_seg_flags },
        { "range", test_seg_range },
        { "precedence", test_seg_precedence },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
        g_autofree char *path = g_strdup_printf("/parse/%s/%s", cmd->name,
                                                t[i].name);

        g_test_add_data_func(path, cmd, t[i].run);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/parse/frame/common-layouts", test_common_layouts);
    g_test_add_func("/parse/frame/split-out", test_split_out);
    g_test_add_func("/parse/frame/split-in", test_split_in);
    g_test_add_func("/parse/frame/single-bytes", test_single_bytes);
    g_test_add_func("/parse/frame/empty-descriptors", test_empty_descriptors);
    g_test_add_func("/parse/frame/header-copied", test_header_copied);
    g_test_add_func("/parse/frame/types", test_types);
    g_test_add_func("/parse/frame/short-header", test_short_header);
    g_test_add_func("/parse/frame/no-status", test_no_status);
    g_test_add_func("/parse/rw/small", test_rw_small);
    g_test_add_func("/parse/rw/lengths", test_rw_lengths);
    g_test_add_func("/parse/rw/limits", test_rw_limits);
    g_test_add_func("/parse/segments/split", test_seg_split);
    g_test_add_func("/parse/segments/many", test_seg_many);
    for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
        add_command_tests(&commands[i]);
    }
    g_test_add_func("/parse/fuzz", test_fuzz);
    return g_test_run();
}
