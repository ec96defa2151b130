/*
 * virtio-blk: guest memory that is registered with io_uring
 *
 * The kernel looks up and holds the pages of a buffer for each direct request.
 * Of registered memory it does so once, for all rings of this process together:
 * a ring of its own has all of the guest's memory, the queues' rings clone what
 * that has.  Pages stay where they are meanwhile, so nothing may take them from
 * the guest.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_PINNED_H
#define HW_BLOCK_VIRTIO_BLK_PINNED_H

#include <liburing.h>
#include "block/aio.h"
#include "qemu/queue.h"

/* Of linux/io_uring.h, newer than what we may be compiled with. */
#define VBLK_OP_READV_FIXED     60      /* Linux 6.15 */
#define VBLK_OP_WRITEV_FIXED    61

/* VirtIOBlkPiece: at most 1 GiB of guest memory, at host address @start. */
typedef struct VirtIOBlkPiece {
    uintptr_t start;
    size_t size;
    unsigned slot;                      /* of the tables of all rings */
} VirtIOBlkPiece;

/*
 * VirtIOBlkPins: what a queue's ring knows of registered memory.  Belongs to
 * the queue's thread.
 */
typedef struct VirtIOBlkPins {
    struct io_uring *ring;
    QEMUBH *update;
    unsigned generation;                /* which the copy was made of */
    bool cloned;                        /* the ring has a table */
    bool vectored;                      /* the kernel takes several segments */
    unsigned last;                      /* where the last buffer was */
    unsigned num;
    VirtIOBlkPiece *piece;              /* by address, no gaps in the array */
    QLIST_ENTRY(VirtIOBlkPins) next;    /* the list has a lock of its own */
} VirtIOBlkPins;

/* Changes with each change of what is registered.  Any thread reads. */
extern unsigned virtio_blk_pinned_generation;

/*
 * virtio_blk_pins_open: a ring, made in this thread, which runs @ctx, is to
 * have what is registered, now and later.
 */
VirtIOBlkPins *virtio_blk_pins_open(struct io_uring *ring, AioContext *ctx);

/* virtio_blk_pins_close: undo it, before the ring goes. */
void virtio_blk_pins_close(VirtIOBlkPins *pins);

/* virtio_blk_pins_update: follow a change.  In the queue's thread. */
void virtio_blk_pins_update(VirtIOBlkPins *pins);

/*
 * virtio_blk_pins_check: do so if there was one since.  Has to be called
 * between popping a request and virtio_blk_pins_find(): memory that the
 * request lies in was made known before, and memory that has gone since is not
 * mistaken for it.
 */
static inline void virtio_blk_pins_check(VirtIOBlkPins *pins)
{
    if (unlikely(pins->generation !=
                 qatomic_load_acquire(&virtio_blk_pinned_generation))) {
        virtio_blk_pins_update(pins);
    }
}

/*
 * virtio_blk_pins_find: the slot in the ring's table of the piece that all of
 * @iov lies in, or -1.
 */
int virtio_blk_pins_find(VirtIOBlkPins *pins, const struct iovec *iov,
                         unsigned niov);

#endif
