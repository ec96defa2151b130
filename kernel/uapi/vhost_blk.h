/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What /dev/vhost-blk speaks beside the ioctls of <linux/vhost.h>.
 *
 * Set-up, in this order: VHOST_SET_OWNER, VHOST_BLK_GET_INFO, features, memory
 * table, VHOST_BLK_SET_SERIAL and VHOST_BLK_SET_LIMITS, then for each queue its
 * ring and eventfds, and VHOST_BLK_SET_BACKEND last, which starts it.
 */
#ifndef UAPI_VHOST_BLK_H
#define UAPI_VHOST_BLK_H

#include <linux/types.h>
#include <linux/ioctl.h>
#include <linux/vhost.h>

/*
 * Calls and structures only grow: a new call comes with a bit in
 * vhost_blk_info.features, a new field takes the place of reserved zeroes.  A
 * change that would break a user raises the number.
 */
#define VHOST_BLK_ABI           1

#define VHOST_BLK_SERIAL_LEN    20
#define VHOST_BLK_MAX_SEGMENTS  256

/* vhost_blk_info.features: what this module on this kernel can do */
#define VHOST_BLK_F_BLOCK_DEV       (1ULL << 0) /* block device as backend */
#define VHOST_BLK_F_FILE            (1ULL << 1) /* regular file as backend */
#define VHOST_BLK_F_DISCARD         (1ULL << 2)
#define VHOST_BLK_F_WRITE_ZEROES    (1ULL << 3)
#define VHOST_BLK_F_SECURE_ERASE    (1ULL << 4)
#define VHOST_BLK_F_DIRTY_LOG       (1ULL << 5) /* data and status, too */
#define VHOST_BLK_F_STATS           (1ULL << 6)
#define VHOST_BLK_F_WORKERS         (1ULL << 7) /* VHOST_NEW_WORKER and so on */
/* VHOST_SET_VRING_ERR tells of requests that failed, not only of bad rings */
#define VHOST_BLK_F_ERROR_EVENT     (1ULL << 8)

struct vhost_blk_info {
    __u32 abi;                  /* VHOST_BLK_ABI of the module */
    __u32 max_queues;
    __u64 features;             /* VHOST_BLK_F_* */
    __u64 reserved[6];          /* zero */
};

/* vhost_blk_limits.flags */
#define VHOST_BLK_L_READ_ONLY       (1U << 0)
/* the guest has no write cache: a completed write is on stable storage */
#define VHOST_BLK_L_WRITE_THROUGH   (1U << 1)
/* space stays allocated: DISCARD does nothing, WRITE_ZEROES does not unmap */
#define VHOST_BLK_L_KEEP_ALLOCATED  (1U << 2)

/*
 * The disk as the guest sees it.  A command with max_*_segments 0 is answered
 * with VIRTIO_BLK_S_UNSUPP.  May be called at any time; it is in force for
 * every request taken after it returns.
 */
struct vhost_blk_limits {
    __u64 capacity;                     /* in sectors of 512 bytes */
    __u32 logical_block_size;           /* bytes, a power of two, 512..65536 */
    __u32 flags;                        /* VHOST_BLK_L_* */
    __u32 max_discard_sectors;          /* in sectors of 512 bytes */
    __u32 max_discard_segments;         /* 0..VHOST_BLK_MAX_SEGMENTS */
    __u32 max_write_zeroes_sectors;
    __u32 max_write_zeroes_segments;
    __u32 max_secure_erase_sectors;
    __u32 max_secure_erase_segments;
    __u64 reserved[4];                  /* zero */
};

enum vhost_blk_stat {
    VHOST_BLK_STAT_READ,
    VHOST_BLK_STAT_WRITE,
    VHOST_BLK_STAT_FLUSH,
    VHOST_BLK_STAT_UNMAP,       /* discard, secure erase */
    VHOST_BLK_STAT_ZEROES,
    VHOST_BLK_STAT_KINDS
};

struct vhost_blk_stat_kind {
    __u64 ops;                  /* completed well */
    __u64 bytes;                /* moved or unmapped by those */
    __u64 failed;               /* the backend answered with an error */
    __u64 invalid;              /* refused before the backend saw them */
    __u64 time_ns;              /* from the queue to the used ring, all */
};

/* vhost_blk_stats.flags */
#define VHOST_BLK_Q_RUNNING         (1U << 0)   /* has a backend */
/*
 * The ring has a fault, and its queue stands still until it is stopped and
 * started again.  The bad request is still in the ring: GET_VRING_BASE points
 * to it.
 */
#define VHOST_BLK_Q_BROKEN          (1U << 1)

/* Counts since the queue's device was opened; index goes in. */
struct vhost_blk_stats {
    __u32 index;
    __u32 inflight;
    __u32 flags;                /* VHOST_BLK_Q_* */
    __s32 last_error;           /* -errno of the last failed request, or 0 */
    struct vhost_blk_stat_kind kind[VHOST_BLK_STAT_KINDS];
    __u64 turns;                /* times that requests were taken */
    __u64 signals;              /* batches of completions */
    __u64 reserved[6];
};

/* Needs no owner. */
#define VHOST_BLK_GET_INFO    _IOR(VHOST_VIRTIO, 0xF0, struct vhost_blk_info)
#define VHOST_BLK_SET_LIMITS  _IOW(VHOST_VIRTIO, 0xF1, struct vhost_blk_limits)
#define VHOST_BLK_GET_STATS   _IOWR(VHOST_VIRTIO, 0xF2, struct vhost_blk_stats)
/* NUL padded; GET_ID answers with it */
#define VHOST_BLK_SET_SERIAL  _IOW(VHOST_VIRTIO, 0xFE, \
                                   char[VHOST_BLK_SERIAL_LEN])
/*
 * Starts a queue on an open block device or raw file, or with fd -1 stops it
 * and waits until nothing of it is in flight.  VHOST_GET_VRING_BASE stops a
 * running queue in the same way.  A stop fails with EAGAIN when the used ring
 * waits for an IOTLB entry (answer the miss, then repeat) and with EINTR when
 * the caller is being killed.
 *
 * Where the file is not opened with O_DIRECT a flush that fails makes all later
 * ones fail, and writes with the cache off, until all queues have stopped: the
 * page cache tells of what was lost once.  The caller should not start them on
 * that file again.
 */
#define VHOST_BLK_SET_BACKEND _IOW(VHOST_VIRTIO, 0xFF, struct vhost_vring_file)

#endif
