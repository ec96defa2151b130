/*
 * virtio-blk: merging the reads and writes of one batch
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "batch.h"

static uint64_t item_end(const VirtIOBlkBatchItem *item)
{
    return item->offset + item->bytes;
}

void virtio_blk_batch_add(VirtIOBlkBatch *batch, bool is_write,
                          uint64_t offset, uint64_t bytes, unsigned niov,
                          void *opaque)
{
    VirtIOBlkBatchItem *item = &batch->item[batch->num];

    assert(virtio_blk_batch_accepts(batch, is_write));

    if (!batch->num) {
        batch->is_write = is_write;
        batch->ascending = true;
    } else if (offset < item[-1].offset) {
        batch->ascending = false;
    }
    *item = (VirtIOBlkBatchItem) {
        .offset = offset,
        .bytes = bytes,
        .niov = niov,
        .seq = batch->num,
        .opaque = opaque,
    };
    batch->num++;
}

/* A small set of byte offsets; neighbours in the file spread well. */
typedef struct OffsetSet {
    uint64_t bits[8];
} OffsetSet;

static unsigned offset_hash(uint64_t offset)
{
    return ((offset >> 9) * 0x9e3779b97f4a7c15ull) >> 55;
}

static void set_add(OffsetSet *set, uint64_t offset)
{
    unsigned hash = offset_hash(offset);

    set->bits[hash / 64] |= 1ull << (hash % 64);
}

static bool set_may_have(const OffsetSet *set, uint64_t offset)
{
    unsigned hash = offset_hash(offset);

    return set->bits[hash / 64] & (1ull << (hash % 64));
}

static bool ends_at(const VirtIOBlkBatch *batch, uint64_t offset)
{
    for (unsigned i = 0; i < batch->num; i++) {
        if (item_end(&batch->item[i]) == offset) {
            return true;
        }
    }
    return false;
}

/*
 * Does any item start where another one ends?  The set answers "no" for
 * nearly every item of a random load without comparing it to all others.
 */
static bool has_adjacent(const VirtIOBlkBatch *batch)
{
    OffsetSet ends = {};

    for (unsigned i = 0; i < batch->num; i++) {
        set_add(&ends, item_end(&batch->item[i]));
    }
    for (unsigned i = 0; i < batch->num; i++) {
        uint64_t offset = batch->item[i].offset;

        if (set_may_have(&ends, offset) && ends_at(batch, offset)) {
            return true;
        }
    }
    return false;
}

static int item_compare(const void *a, const void *b)
{
    const VirtIOBlkBatchItem *x = a;
    const VirtIOBlkBatchItem *y = b;

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return x->seq < y->seq ? -1 : 1;
}

bool virtio_blk_batch_order(VirtIOBlkBatch *batch)
{
    if (batch->num < 2 || batch->ascending || !has_adjacent(batch)) {
        return false;
    }
    qsort(batch->item, batch->num, sizeof(batch->item[0]), item_compare);
    batch->ascending = true;
    return true;
}

unsigned virtio_blk_batch_run(const VirtIOBlkBatch *batch, unsigned start,
                              const VirtIOBlkBatchLimits *limits)
{
    const VirtIOBlkBatchItem *item = &batch->item[start];
    uint64_t bytes = item->bytes;
    uint64_t niov = item->niov;
    unsigned n = 1;

    for (; start + n < batch->num; n++) {
        const VirtIOBlkBatchItem *next = item + n;

        bytes += next->bytes;
        niov += next->niov;
        if (item_end(next - 1) != next->offset ||
            bytes > limits->max_bytes || niov > limits->max_iov) {
            break;
        }
    }
    return n;
}
