/*
 * virtio-blk: guest memory that is registered with io_uring
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/syscall.h>
#include "qemu/units.h"
#include "migration/misc.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/timer.h"
#include "system/reset.h"
#include "system/xen.h"
#include "internal.h"
#include "pinned.h"
#include "trace.h"

/* The kernel takes no more at a time. */
#define PIECE_MAX   GiB
#define SLOTS       1024

#define RETRY_MS    1000

/* Of linux/io_uring.h, Linux 6.12 and 6.13. */
#define REGISTER_CLONE_BUFFERS  30
#define DST_REPLACE             (1u << 1)

typedef struct CloneBuffers {
    uint32_t src_fd;
    uint32_t flags;
    uint32_t src_off;
    uint32_t dst_off;
    uint32_t nr;
    uint32_t pad[3];
} CloneBuffers;

unsigned virtio_blk_pinned_generation;

static struct {
    /* Protects the next three.  A leaf, but for locks of the kernel. */
    QemuMutex lock;
    VirtIOBlkPiece piece[SLOTS];        /* by address */
    unsigned num;
    QLIST_HEAD(, VirtIOBlkPins) rings;

    /* The rest: BQL. */
    unsigned users;
    unsigned asked;                     /* users that want to hear why not */
    struct io_uring donor;
    bool pinned;                        /* the donor is open */
    bool vectored;
    bool publish;                       /* each change at once */
    bool failed;                        /* until the machine is reset */
    uint64_t bytes;
    unsigned long used[BITS_TO_LONGS(SLOTS)];
    RAMBlockNotifier notifier;
    QEMUTimer *timer;
} pinned;

static void complain(const char *what, int error)
{
    trace_virtio_blk_pinned(what, pinned.bytes, error);
    if (pinned.asked) {
        warn_report_once("virtio-blk: register-memory=on, but %s (%s); "
                         "requests pin their pages one by one", what,
                         strerror(-error));
    }
}

/* ---- the table of the donor ---- */

static int donor_set(unsigned slot, void *host, size_t size)
{
    struct iovec iov = { host, size };
    __u64 tag = 0;
    int ret = io_uring_register_buffers_update_tag(&pinned.donor, slot, &iov,
                                                   &tag, 1);

    return ret < 0 ? ret : 0;
}

static int clone_table(struct io_uring *ring, unsigned flags)
{
    CloneBuffers arg = { .src_fd = pinned.donor.ring_fd, .flags = flags };

    return syscall(__NR_io_uring_register, ring->ring_fd,
                   REGISTER_CLONE_BUFFERS, &arg, 1) < 0 ? -errno : 0;
}

/* Can another ring have what the donor has? */
static int probe_clone(void)
{
    struct io_uring ring;
    int ret = io_uring_queue_init(1, &ring, 0);

    if (ret == 0) {
        ret = clone_table(&ring, 0);
        io_uring_queue_exit(&ring);
    }
    return ret;
}

static bool probe_vectored(void)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&pinned.donor);
    bool there = probe &&
                 io_uring_opcode_supported(probe, VBLK_OP_READV_FIXED) &&
                 io_uring_opcode_supported(probe, VBLK_OP_WRITEV_FIXED);

    io_uring_free_probe(probe);
    return there;
}

static int donor_open(void)
{
    int ret = io_uring_queue_init(1, &pinned.donor, 0);

    if (ret < 0) {
        return ret;
    }
    ret = io_uring_register_buffers_sparse(&pinned.donor, SLOTS);
    if (ret == 0) {
        ret = probe_clone();
    }
    if (ret < 0) {
        io_uring_queue_exit(&pinned.donor);
        return ret;
    }
    pinned.vectored = probe_vectored();
    return 0;
}

/* ---- pieces ---- */

/* Queues see it before their next request, and let go of what has gone. */
static void publish(void)
{
    VirtIOBlkPins *pins;

    QEMU_LOCK_GUARD(&pinned.lock);
    qatomic_store_release(&virtio_blk_pinned_generation,
                          virtio_blk_pinned_generation + 1);
    QLIST_FOREACH(pins, &pinned.rings, next) {
        qemu_bh_schedule(pins->update);
    }
}

static int piece_add(void *host, size_t size)
{
    unsigned slot = find_first_zero_bit(pinned.used, SLOTS);
    unsigned i;
    int ret = slot < SLOTS ? donor_set(slot, host, size) : -ENOSPC;

    if (ret < 0) {
        return ret;
    }
    set_bit(slot, pinned.used);
    pinned.bytes += size;
    WITH_QEMU_LOCK_GUARD(&pinned.lock) {
        for (i = pinned.num; i > 0; i--) {
            if (pinned.piece[i - 1].start < (uintptr_t)host) {
                break;
            }
            pinned.piece[i] = pinned.piece[i - 1];
        }
        pinned.piece[i] = (VirtIOBlkPiece) { (uintptr_t)host, size, slot };
        pinned.num++;
    }
    return 0;
}

/* Take the first piece from @start to @end from the list; false: none. */
static bool piece_take(uintptr_t start, uintptr_t end, VirtIOBlkPiece *piece)
{
    QEMU_LOCK_GUARD(&pinned.lock);
    for (unsigned i = 0; i < pinned.num; i++) {
        *piece = pinned.piece[i];
        if (piece->start >= start && piece->start < end) {
            pinned.num--;
            memmove(&pinned.piece[i], &pinned.piece[i + 1],
                    (pinned.num - i) * sizeof(pinned.piece[0]));
            return true;
        }
    }
    return false;
}

static void block_added(RAMBlockNotifier *n, void *host, size_t size,
                        size_t max_size)
{
    int ret = 0;

    /* What can grow holds tables of the firmware, no buffers. */
    if (size != max_size) {
        return;
    }
    for (size_t at = 0; ret == 0 && at < size; at += PIECE_MAX) {
        ret = piece_add((char *)host + at, MIN(PIECE_MAX, size - at));
    }
    if (ret < 0) {
        complain(ret == -ENOMEM ?
                 "the limit of locked memory (ulimit -l) is too small" :
                 "some of the memory can't be registered", ret);
    }
    if (pinned.publish) {
        trace_virtio_blk_pinned("plugged", pinned.bytes, ret);
        publish();
    }
}

/* Before the memory is unmapped; no request has a hold on it any more. */
static void block_removed(RAMBlockNotifier *n, void *host, size_t size,
                          size_t max_size)
{
    uintptr_t start = (uintptr_t)host;
    VirtIOBlkPiece piece;
    bool any = false;

    while (piece_take(start, start + max_size, &piece)) {
        any = true;
        pinned.bytes -= piece.size;
        /* A slot that the kernel does not clear is not used again. */
        if (donor_set(piece.slot, NULL, 0) == 0) {
            clear_bit(piece.slot, pinned.used);
        }
    }
    if (any && pinned.publish) {
        trace_virtio_blk_pinned("unplugged", pinned.bytes, 0);
        publish();
    }
}

/* ---- all of it ---- */

/*
 * While memory is still on its way, or writes to it are to be seen, each page
 * has to be looked up.  Both begin while the VM stands still, without rings.
 */
static bool pages_are_watched(void)
{
    return migration_in_incoming_postcopy() || migration_in_bg_snapshot();
}

static void give_up(const char *what, int error)
{
    pinned.failed = true;
    complain(what, error);
}

static void pin_all(void *opaque)
{
    int ret;

    if (pinned.pinned || pinned.failed || !pinned.users) {
        return;
    }
    if (pages_are_watched()) {
        timer_mod(pinned.timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                RETRY_MS);
        return;
    }
    /*
     * Not only the uncoordinated ones: all of a block is pinned, plugged or
     * not.
     */
    ret = xen_enabled() ? -ENOTSUP : ram_block_discard_disable(true);
    if (ret < 0) {
        give_up("another device takes memory from the guest", ret);
        return;
    }
    ret = donor_open();
    if (ret < 0) {
        ram_block_discard_disable(false);
        give_up("the kernel can't share registered memory between rings",
                ret);
        return;
    }
    pinned.pinned = true;
    ram_block_notifier_add(&pinned.notifier);
    pinned.publish = true;
    trace_virtio_blk_pinned("all", pinned.bytes, 0);
    publish();
}

static void unpin_all(void)
{
    if (!pinned.pinned) {
        return;
    }
    pinned.publish = false;
    ram_block_notifier_remove(&pinned.notifier);
    pinned.pinned = false;
    publish();
    trace_virtio_blk_pinned("none", pinned.bytes, 0);
    WITH_QEMU_LOCK_GUARD(&pinned.lock) {
        io_uring_queue_exit(&pinned.donor);
    }
    bitmap_zero(pinned.used, SLOTS);
    ram_block_discard_disable(false);
}

/*
 * A reset of the machine can put new pages in the place of broken ones, of
 * which nobody tells.  All is registered anew when a disk is used again.
 */
static void machine_reset(void *opaque)
{
    unpin_all();
    pinned.failed = false;
}

static void first_user(void)
{
    if (pinned.timer) {
        return;
    }
    qemu_mutex_init(&pinned.lock);
    pinned.notifier.ram_block_added = block_added;
    pinned.notifier.ram_block_removed = block_removed;
    pinned.timer = timer_new_ms(QEMU_CLOCK_REALTIME, pin_all, NULL);
    qemu_register_reset(machine_reset, NULL);
}

void virtio_blk_pinned_ref(bool asked)
{
    first_user();
    pinned.users++;
    pinned.asked += asked;
}

void virtio_blk_pinned_unref(bool asked)
{
    pinned.asked -= asked;
    if (--pinned.users == 0) {
        timer_del(pinned.timer);
        unpin_all();
        pinned.failed = false;
    }
}

void virtio_blk_pinned_want(void)
{
    if (!pinned.pinned && !pinned.failed) {
        timer_mod(pinned.timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
    }
}

uint64_t virtio_blk_pinned_bytes(void)
{
    return pinned.bytes;
}

/* ---- a queue's ring ---- */

static void update_bh(void *opaque)
{
    virtio_blk_pins_check(opaque);
}

VirtIOBlkPins *virtio_blk_pins_open(struct io_uring *ring, AioContext *ctx)
{
    VirtIOBlkPins *pins = g_new0(VirtIOBlkPins, 1);

    pins->ring = ring;
    pins->update = aio_bh_new(ctx, update_bh, pins);
    WITH_QEMU_LOCK_GUARD(&pinned.lock) {
        QLIST_INSERT_HEAD(&pinned.rings, pins, next);
    }
    return pins;
}

void virtio_blk_pins_close(VirtIOBlkPins *pins)
{
    WITH_QEMU_LOCK_GUARD(&pinned.lock) {
        QLIST_REMOVE(pins, next);
    }
    qemu_bh_delete(pins->update);
    g_free(pins->piece);
    g_free(pins);
}

/* Called with the lock. */
static int clone_now(VirtIOBlkPins *pins)
{
    int ret = -ENODATA;

    /* Where there are no pieces there may be no donor. */
    if (pinned.num) {
        ret = clone_table(pins->ring, pins->cloned ? DST_REPLACE : 0);
    }
    if (ret < 0 && pins->cloned) {
        io_uring_unregister_buffers(pins->ring);
        pins->cloned = false;
        /* Linux 6.12 clones, but does not replace. */
        ret = pinned.num ? clone_table(pins->ring, 0) : ret;
    }
    if (ret < 0) {
        return ret;
    }
    pins->cloned = true;
    pins->vectored = pinned.vectored;
    pins->num = pinned.num;
    pins->piece = g_renew(VirtIOBlkPiece, pins->piece, pins->num);
    memcpy(pins->piece, pinned.piece, pins->num * sizeof(pins->piece[0]));
    return 0;
}

void virtio_blk_pins_update(VirtIOBlkPins *pins)
{
    int ret;

    /* Whatever comes: what was known is not true any more. */
    pins->num = 0;
    pins->last = 0;
    if (pages_are_watched()) {
        return;
    }
    QEMU_LOCK_GUARD(&pinned.lock);
    pins->generation = qatomic_read(&virtio_blk_pinned_generation);
    ret = clone_now(pins);
    trace_virtio_blk_pinned("cloned", pins->num, pinned.num ? ret : 0);
}

static bool lies_in(const VirtIOBlkPiece *piece, const struct iovec *iov)
{
    uintptr_t offset = (uintptr_t)iov->iov_base - piece->start;

    return offset < piece->size && iov->iov_len <= piece->size - offset;
}

static bool search(VirtIOBlkPins *pins, const struct iovec *iov)
{
    unsigned low = 0, high = pins->num;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (lies_in(&pins->piece[middle], iov)) {
            pins->last = middle;
            return true;
        }
        if (pins->piece[middle].start < (uintptr_t)iov->iov_base) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

int virtio_blk_pins_find(VirtIOBlkPins *pins, const struct iovec *iov,
                         unsigned niov)
{
    if (!pins->num || (niov > 1 && !pins->vectored)) {
        return -1;
    }
    if (!lies_in(&pins->piece[pins->last], iov) && !search(pins, iov)) {
        return -1;
    }
    for (unsigned i = 1; i < niov; i++) {
        if (!lies_in(&pins->piece[pins->last], &iov[i])) {
            return -1;
        }
    }
    return pins->piece[pins->last].slot;
}
