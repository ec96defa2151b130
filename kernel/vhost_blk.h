/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the module share. */
#ifndef VHOST_BLK_H
#define VHOST_BLK_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/bvec.h>
#include <linux/fs.h>
#include <linux/llist.h>
#include <linux/types.h>
#include <linux/uio.h>
#include <linux/virtio_blk.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "vhost.h"		/* the kernel's private drivers/vhost/vhost.h */
#include "uapi/vhost_blk.h"

#define VBLK_MAX_QUEUES		64
/* A queue that had this much in one go lets the others of its worker run. */
#define VBLK_WEIGHT		128
#define VBLK_BYTE_WEIGHT	(4 << 20)
/*
 * A request's data goes to the backend in pieces of at most so many pages, one
 * after the other, so that no guest can pin all its memory with one request.
 */
#define VBLK_PIECE_PAGES	BIO_MAX_VECS
#define VBLK_BOUNCE_PAGES	64
/* Pages of our own that a queue may fill before it takes no new request. */
#define VBLK_BOUNCE_MAX		1024
#define VBLK_INLINE		8
/* Requests that a queue keeps for the next ones. */
#define VBLK_SPARE		128

/* ranges of DISCARD, WRITE_ZEROES and SECURE_ERASE in CPU order */
struct vblk_range {
	u64 sector;
	u32 count;
	bool unmap;
};

struct vblk_backend {
	struct file *file;
	const struct cred *cred;	/* of who handed the file over */
	struct block_device *bdev;	/* NULL: a regular file */
	bool bio;			/* block device opened for direct I/O */
	bool direct;			/* kiocbs may be asynchronous */
	bool nowait;			/* and may be tried without blocking */
	u32 block_size;			/* smallest unit of direct I/O */
	u32 align_mask;			/* of memory for direct I/O */
};

enum vblk_op {
	VBLK_READ, VBLK_WRITE, VBLK_FLUSH, VBLK_DISCARD, VBLK_ZEROES,
	VBLK_ERASE, VBLK_OTHER,
};

struct vblk_dev;

struct vblk_queue {
	struct vhost_virtqueue vq;
	struct vblk_dev *dev;
	/* All below is protected by vq.mutex unless it says otherwise. */
	struct vblk_backend *backend;	/* kept until nothing is in flight */
	struct vhost_blk_limits limits;
	char serial[VHOST_BLK_SERIAL_LEN];
	struct vhost_blk_stats stats;
	unsigned int inflight;		/* also read by waiters without lock */
	bool paused;			/* takes no new request */
	bool broken;			/* the ring is bad; until a new backend */
	unsigned int bounced;		/* pages of ours in use */
	bool full;			/* has too much in flight */
	bool used_misses;		/* the used ring awaits the IOTLB */
	bool dead;			/* closed: the driver gets no answer */
	wait_queue_head_t drained;
	struct llist_head done;		/* from any context, lockless */
	struct vhost_work done_work;
	struct work_struct reap_work;	/* instead of done_work: no worker */
	struct vblk_req *ready;		/* finished, not yet in the used ring */
	struct vblk_req **ready_end;
	struct vblk_req *spare;		/* structures to use again */
	unsigned int nr_spare;
	struct task_struct *runner;	/* is about to look at done anyway */
	ktime_t now;			/* when the worker's turn began */
};

struct vblk_dev {
	struct vhost_dev vdev;
	struct workqueue_struct *wq;	/* for what may block */
	struct vhost_virtqueue *vqs[VBLK_MAX_QUEUES];
	struct vblk_queue *queues[VBLK_MAX_QUEUES];
	struct vhost_blk_limits limits;	/* vdev.mutex */
	bool have_limits;
	char serial[VHOST_BLK_SERIAL_LEN];
	struct mutex sync_lock;
	int lost;			/* under it: a sync failed, see there */
};

struct vblk_req {
	struct vblk_queue *q;
	struct vblk_backend *backend;
	struct vblk_req *next;		/* in q->ready or q->spare */
	struct llist_node done;
	enum vblk_op op;
	u16 head;
	u8 status;			/* VIRTIO_BLK_S_* */
	bool fua;			/* a change is durable when it ends */
	bool keep;			/* leave space allocated */
	bool invalid;			/* refused, not failed */
	bool bounce;			/* piece is in pages of our own */
	bool tried_nowait;
	u32 used_len;			/* data bytes written for the driver */
	int error;			/* -errno of a request that failed */
	ktime_t start;
	u8 __user *status_at;

	/* the request's buffers, those the device reads first */
	struct iovec *iov;
	struct iovec *in_iov;
	unsigned int nr_in;
	/* data that is not yet moved: left bytes from offset off of *data */
	const struct iovec *data;
	size_t off;
	u64 left;
	loff_t pos;			/* of the piece in the backend */
	u64 total;			/* bytes, for the statistics */

	/* the piece on its way */
	struct bio_vec *bvec;
	unsigned int nr_bvec;
	size_t piece;			/* bytes */
	size_t moved;			/* of those */
	long result;			/* bytes or -errno of the last transfer */

	struct vblk_range *ranges;
	unsigned int nr_ranges;

	/* for the dirty log: all that the device may write */
	unsigned int nr_log;
	struct vhost_log *log;
	u64 log_len;

	/* nothing of what follows is cleared for a new request */
	struct work_struct work;
	union {
		struct bio bio;
		struct kiocb iocb;
	};
	struct iovec inline_iov[VBLK_INLINE];
	struct vhost_log inline_log[VBLK_INLINE];
	struct bio_vec inline_bvec[VBLK_INLINE];
};

/* queue.c */
struct vblk_queue *vblk_queue_new(struct vblk_dev *dev);
void vblk_queue_free(struct vblk_queue *q);
int vblk_queue_start(struct vblk_queue *q, struct vblk_backend *backend);
int vblk_queue_stop(struct vblk_queue *q, bool killable);
int vblk_queue_pause(struct vblk_queue *q);
void vblk_queue_resume(struct vblk_queue *q);
int vblk_queue_settle(struct vblk_queue *q);
void vblk_req_done(struct vblk_req *req, long result);

/* request.c */
struct vblk_req *vblk_req_take(struct vblk_queue *q, int head,
			       unsigned int out, unsigned int in,
			       unsigned int nr_log);
bool vblk_req_next(struct vblk_req *req);
bool vblk_req_step(struct vblk_req *req);
void vblk_req_free(struct vblk_req *req);
void vblk_req_free_spare(struct vblk_queue *q);
int vblk_request_init(void);
void vblk_request_exit(void);

/* data.c */
size_t vblk_data_alignment(const struct vblk_req *req);
int vblk_piece_map(struct vblk_req *req);
int vblk_piece_end(struct vblk_req *req, bool good);
void vblk_piece_iter(struct vblk_req *req, struct iov_iter *iter);

/* backend.c */
struct vblk_backend *vblk_backend_open(int fd, struct vhost_blk_limits *limits,
				       bool have_limits);
void vblk_backend_close(struct vblk_backend *backend);
void vblk_backend_submit(struct vblk_req *req);
void vblk_backend_work(struct vblk_req *req);
void vblk_backend_run(struct work_struct *work);
void vblk_backend_moved(struct vblk_req *req);

static inline bool vblk_moves_data(const struct vblk_req *req)
{
	return req->op == VBLK_READ || req->op == VBLK_WRITE;
}

#endif
