/*
 * virtio-blk: merging the reads and writes of one batch
 *
 * Pure code: it orders and groups ranges and knows neither devices nor rings.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_BATCH_H
#define HW_BLOCK_VIRTIO_BLK_BATCH_H

/* Most reads or writes that wait for each other before they go down. */
#define VIRTIO_BLK_BATCH_MAX 32

/*
 * For a batch on the stack: builds that clear automatic variables would spend
 * more on the items than on merging them.
 */
#if __has_attribute(uninitialized)
#define VIRTIO_BLK_NO_CLEAR __attribute__((uninitialized))
#else
#define VIRTIO_BLK_NO_CLEAR
#endif

/* VirtIOBlkBatchItem: one read or write. */
typedef struct VirtIOBlkBatchItem {
    uint64_t offset;            /* bytes from the start of the medium */
    uint64_t bytes;
    unsigned niov;              /* memory segments */
    unsigned seq;               /* place of arrival, 0 first */
    void *opaque;               /* the caller's request */
} VirtIOBlkBatchItem;

/*
 * VirtIOBlkBatch: reads or writes, never both, in order of arrival until
 * virtio_blk_batch_order() is called.  Used by one thread.
 */
typedef struct VirtIOBlkBatch {
    unsigned num;
    bool is_write;
    bool ascending;             /* offsets never fell so far */
    VirtIOBlkBatchItem item[VIRTIO_BLK_BATCH_MAX];
} VirtIOBlkBatch;

/* VirtIOBlkBatchLimits: what the backend takes in one request. */
typedef struct VirtIOBlkBatchLimits {
    uint64_t max_bytes;
    unsigned max_iov;
} VirtIOBlkBatchLimits;

/* virtio_blk_batch_init: make @batch empty. */
static inline void virtio_blk_batch_init(VirtIOBlkBatch *batch)
{
    /* The items stay as they are: @num says which of them count. */
    batch->num = 0;
}

/*
 * virtio_blk_batch_accepts: can one more read or write join @batch?  If not,
 * the caller submits the batch first.
 */
static inline bool virtio_blk_batch_accepts(const VirtIOBlkBatch *batch,
                                            bool is_write)
{
    return !batch->num || (batch->is_write == is_write &&
                           batch->num < VIRTIO_BLK_BATCH_MAX);
}

/*
 * virtio_blk_batch_add: append a read or write of @bytes at byte @offset.
 * virtio_blk_batch_accepts() must have said yes.
 */
void virtio_blk_batch_add(VirtIOBlkBatch *batch, bool is_write,
                          uint64_t offset, uint64_t bytes, unsigned niov,
                          void *opaque);

/*
 * virtio_blk_batch_order: bring adjacent ranges side by side.
 *
 * Sorts by offset, requests at the same offset in order of arrival, but only
 * when some range starts where another one ends and they are not in order
 * already.  Returns whether it sorted.
 */
bool virtio_blk_batch_order(VirtIOBlkBatch *batch);

/*
 * virtio_blk_batch_run: how many items, from @start on, make one request that
 * keeps @limits.  At least 1: an item beyond the limits goes alone.
 */
unsigned virtio_blk_batch_run(const VirtIOBlkBatch *batch, unsigned start,
                              const VirtIOBlkBatchLimits *limits);

#endif
