/*
 * virtio-blk fuzzing: merging
 *
 * Input: limits, then reads or writes: place and length in sectors, memory
 * segments.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/block/virtio-blk/batch.h"
#include "input.h"

static bool before(const VirtIOBlkBatchItem *a, const VirtIOBlkBatchItem *b)
{
    return a->offset < b->offset ||
           (a->offset == b->offset && a->seq < b->seq);
}

/* Every item is still there, once, with what it had. */
static void check_items(const VirtIOBlkBatch *now, const VirtIOBlkBatch *was)
{
    bool seen[VIRTIO_BLK_BATCH_MAX] = {};

    FUZZ_CHECK(now->num == was->num && now->is_write == was->is_write);
    for (unsigned i = 0; i < now->num; i++) {
        const VirtIOBlkBatchItem *item = &now->item[i];

        FUZZ_CHECK(item->seq < was->num && !seen[item->seq]);
        seen[item->seq] = true;
        FUZZ_CHECK(!memcmp(item, &was->item[item->seq], sizeof(*item)));
    }
}

/* An adjacent pair anywhere must be side by side afterwards. */
static void check_order(const VirtIOBlkBatch *b, bool sorted)
{
    if (sorted || b->ascending) {
        for (unsigned i = 1; i < b->num; i++) {
            FUZZ_CHECK(before(&b->item[i - 1], &b->item[i]));
        }
        return;
    }
    for (unsigned i = 0; i < b->num; i++) {
        for (unsigned j = 0; j < b->num; j++) {
            FUZZ_CHECK(b->item[i].offset + b->item[i].bytes !=
                       b->item[j].offset);
        }
    }
}

static void check_runs(const VirtIOBlkBatch *b,
                       const VirtIOBlkBatchLimits *limits)
{
    unsigned n;

    for (unsigned start = 0; start < b->num; start += n) {
        uint64_t bytes = 0, niov = 0;

        n = virtio_blk_batch_run(b, start, limits);
        FUZZ_CHECK(n && start + n <= b->num);
        for (unsigned i = start; i < start + n; i++) {
            bytes += b->item[i].bytes;
            niov += b->item[i].niov;
            FUZZ_CHECK(i == start || b->item[i - 1].offset +
                       b->item[i - 1].bytes == b->item[i].offset);
        }
        FUZZ_CHECK(n == 1 ||
                   (bytes <= limits->max_bytes && niov <= limits->max_iov));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FuzzInput input = { data, size };
    VirtIOBlkBatchLimits limits = {
        .max_bytes = (uint64_t)fuzz_u16(&input) << 9,
        .max_iov = fuzz_u8(&input),
    };
    bool is_write = fuzz_u8(&input) & 1;
    VirtIOBlkBatch batch, was;

    memset(&batch, 0, sizeof(batch));
    virtio_blk_batch_init(&batch);
    while (input.left && virtio_blk_batch_accepts(&batch, is_write)) {
        uint64_t offset = (uint64_t)fuzz_u16(&input) << 9;
        uint64_t bytes = (uint64_t)fuzz_u8(&input) << 9;
        unsigned niov = fuzz_u8(&input);

        virtio_blk_batch_add(&batch, is_write, offset, bytes, niov, &batch);
    }
    if (!batch.num) {
        return 0;
    }
    FUZZ_CHECK(!virtio_blk_batch_accepts(&batch, !is_write));
    was = batch;
    check_order(&batch, virtio_blk_batch_order(&batch));
    check_items(&batch, &was);
    check_runs(&batch, &limits);
    return 0;
}
