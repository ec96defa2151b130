/*
 * vblk-bench: is what is read what was written?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every 8-byte word of a written block is a function of its place and of how
 * often the block was written, so a block that is stale, misplaced, torn or
 * mixed up with another cannot pass.  No two requests to one block are in
 * flight at a time: what a read must return is always known.
 */

#include <string.h>
#include "bench.h"

#define POISON          0xee    /* in a buffer that the device is to fill */

typedef struct Block {
    uint32_t writes;
    bool busy;
    bool maybe_zero;        /* discarded: old data or zeroes, by sector */
    bool zero;              /* zeroes and nothing else */
} Block;

struct Verify {
    uint64_t base, blocks, checked;
    Block *block;
};

Verify *verify_new(uint64_t base, uint64_t blocks)
{
    Verify *v = xalloc(1, sizeof(*v));

    v->base = base;
    v->blocks = blocks;
    v->block = xalloc(blocks, sizeof(*v->block));
    return v;
}

static Block *block_at(Verify *v, uint64_t offset)
{
    uint64_t i = (offset - v->base) / opt.bs;

    if (i >= v->blocks) {
        die("offset 0x%lx is not in the queue's part; a bug of vblk-bench",
            offset);
    }
    return &v->block[i];
}

bool verify_busy(Verify *v, uint64_t offset)
{
    return block_at(v, offset)->busy;
}

static uint64_t word(uint64_t place, uint32_t writes)
{
    uint64_t x = place * 0x9e3779b97f4a7c15ull ^
                 (uint64_t)writes * 0xbf58476d1ce4e5b9ull;

    x ^= x >> 29;
    return x | 1;   /* never the zero of a discarded block */
}

static void stamp(uint8_t *data, uint64_t offset, uint32_t writes)
{
    for (uint64_t i = 0; i < opt.bs; i += 8) {
        uint64_t w = word(offset + i, writes);

        memcpy(data + i, &w, 8);
    }
}

/* Sector by sector, as a discard may have taken only some of a block. */
static void check(const Block *b, uint64_t offset, const uint8_t *data)
{
    for (uint64_t s = 0; s < opt.bs; s += SECTOR) {
        bool zero = false;

        for (uint64_t i = s; i < s + SECTOR; i += 8) {
            uint64_t got, want = word(offset + i, b->writes);

            memcpy(&got, data + i, 8);
            if (i == s) {
                zero = b->zero || (b->maybe_zero && !got);
            }
            if (got != (zero ? 0 : want)) {
                die("verification: byte 0x%lx holds %016lx, not %016lx "
                    "(write %u of its block)", offset + i, got, want,
                    b->writes);
            }
        }
    }
}

void verify_start(Verify *v, const Op *op, uint8_t *data)
{
    Block *b;

    if (op->type == REQ_FLUSH) {
        return;
    }
    b = block_at(v, op->offset);
    b->busy = true;
    if (op->type == REQ_OUT) {
        stamp(data, op->offset, ++b->writes);
    } else if (op->type == REQ_IN) {
        memset(data, POISON, opt.bs);
    }
}

void verify_done(Verify *v, const Op *op, const uint8_t *data, uint32_t len)
{
    uint32_t want = op->type == REQ_IN ? opt.bs + 1 : 1;
    Block *b;

    if (len != want) {
        die("verification: a request of type %u at byte 0x%lx returned "
            "length %u, not %u", op->type, op->offset, len, want);
    }
    if (op->type == REQ_FLUSH) {
        return;
    }
    b = block_at(v, op->offset);
    b->busy = false;
    if (op->type == REQ_OUT) {
        b->maybe_zero = b->zero = false;
    } else if (op->type == REQ_IN) {
        check(b, op->offset, data);
        v->checked++;
    } else if (op->type == REQ_WRITE_ZEROES) {
        b->zero = true;
    } else {
        b->maybe_zero = true;
    }
}

uint64_t verify_checked(const Verify *v)
{
    return v->checked;
}
