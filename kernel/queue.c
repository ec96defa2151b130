// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A queue: from the available ring to requests, from requests to the used ring.
 *
 * All ring work is done by the queue's vhost worker with the owner's memory in
 * place, under vq.mutex.  Completions come from anywhere: they put the request
 * on q->done, which takes no lock, and wake the worker.
 */

#include <linux/slab.h>

#include "vhost_blk.h"

#define VBLK_USED_BATCH 32

/* Get the worker to look at q->done; callable from any context. */
static void vblk_wake(struct vblk_queue *q)
{
#ifdef VBLK_HAVE_VQ_WORK
	/* no worker: its owner was killed, and with it the guest's memory */
	if (!vhost_vq_work_queue(&q->vq, &q->done_work))
		schedule_work(&q->reap_work);
#else
	vhost_work_queue(&q->dev->vdev, &q->done_work);
#endif
}

/* The transfer of a request has ended with a count of bytes or -errno. */
void vblk_req_done(struct vblk_req *req, long result)
{
	struct vblk_queue *q = req->q;

	req->result = result;
	/* It ended as it was submitted: the one who did that will look. */
	if (READ_ONCE(q->runner) == current) {
		llist_add(&req->done, &q->done);
		return;
	}
	/* The queue lives until a grace period after its last request. */
	rcu_read_lock();
	llist_add(&req->done, &q->done);
	vblk_wake(q);
	rcu_read_unlock();
}

static void vblk_add_ready(struct vblk_queue *q, struct vblk_req *req)
{
	req->next = NULL;
	*q->ready_end = req;
	q->ready_end = &req->next;
}

static struct vblk_req *vblk_next_ready(struct vblk_queue *q)
{
	struct vblk_req *req = q->ready;

	if (req) {
		q->ready = req->next;
		if (!q->ready)
			q->ready_end = &q->ready;
	}
	return req;
}

/* Under vq.mutex: take ended transfers further. */
static void vblk_collect(struct vblk_queue *q)
{
	struct llist_node *list = llist_del_all(&q->done);
	struct vblk_req *req, *next;

	list = llist_reverse_order(list);
	llist_for_each_entry_safe(req, next, list, done) {
		if (vblk_req_step(req))
			vblk_add_ready(q, req);
	}
}

static void vblk_count(struct vblk_queue *q, struct vblk_req *req)
{
	static const enum vhost_blk_stat kinds[] = {
		[VBLK_READ] = VHOST_BLK_STAT_READ,
		[VBLK_WRITE] = VHOST_BLK_STAT_WRITE,
		[VBLK_FLUSH] = VHOST_BLK_STAT_FLUSH,
		[VBLK_DISCARD] = VHOST_BLK_STAT_UNMAP,
		[VBLK_ZEROES] = VHOST_BLK_STAT_ZEROES,
		[VBLK_ERASE] = VHOST_BLK_STAT_UNMAP,
	};
	struct vhost_blk_stat_kind *kind;

	if (req->op == VBLK_OTHER)
		return;
	kind = &q->stats.kind[kinds[req->op]];
	kind->time_ns += ktime_to_ns(ktime_sub(q->now, req->start));
	if (req->invalid) {
		kind->invalid++;
	} else if (req->status != VIRTIO_BLK_S_OK) {
		kind->failed++;
		q->stats.last_error = req->error;
		vq_err(&q->vq, "request failed with %d\n", req->error);
	} else {
		kind->ops++;
		kind->bytes += req->total;
	}
}

/* Write the status byte, and tell the dirty log of all that was written. */
static void vblk_answer(struct vblk_queue *q, struct vblk_req *req)
{
	struct vhost_virtqueue *vq = &q->vq;

	if (put_user(req->status, req->status_at))
		vq_err(vq, "the status byte cannot be written\n");
	/* Logging may have begun while the request was in flight. */
	if (vhost_has_feature(vq, VHOST_F_LOG_ALL) &&
	    vhost_log_write(vq, req->log, req->nr_log, req->log_len,
			    req->in_iov, req->nr_in) < 0)
		vq_err(vq, "the dirty log cannot be written\n");
}

static void vblk_gone(struct vblk_queue *q, unsigned int count)
{
	WRITE_ONCE(q->inflight, q->inflight - count);
	if (!q->inflight)
		wake_up_all(&q->drained);
}

/* Under vq.mutex: forget finished requests. */
static void vblk_drop(struct vblk_queue *q)
{
	struct vblk_req *req;

	while ((req = vblk_next_ready(q))) {
		vblk_req_free(req);
		vblk_gone(q, 1);
	}
}

/* Under vq.mutex: one batch of finished requests to the used ring. */
static void vblk_deliver_some(struct vblk_queue *q)
{
	struct vring_used_elem used[VBLK_USED_BATCH];
	struct vhost_virtqueue *vq = &q->vq;
	struct vblk_req *req;
	unsigned int n = 0;

	while (n < VBLK_USED_BATCH && (req = vblk_next_ready(q))) {
		vblk_answer(q, req);
		vblk_count(q, req);
		used[n].id = cpu_to_vhost32(vq, req->head);
		used[n].len = cpu_to_vhost32(vq, req->used_len + 1);
		vblk_req_free(req);
		n++;
	}
	vhost_add_used_n(vq, used, n);
	vblk_gone(q, n);
}

static void vblk_deliver(struct vblk_queue *q)
{
	if (!q->ready)
		return;
	if (q->dead) {
		vblk_drop(q);
		return;
	}
	if (!vq_meta_prefetch(&q->vq)) {
		/* the core wakes us when the entry comes */
		q->used_misses = true;
		wake_up_all(&q->drained);
		return;
	}
	q->used_misses = false;
	q->now = ktime_get();
	while (q->ready)
		vblk_deliver_some(q);
	q->stats.signals++;
	vhost_signal(&q->dev->vdev, &q->vq);
}

static void vblk_put_back(struct vhost_virtqueue *vq)
{
#ifdef VBLK_DISCARD_NDESC
	vhost_discard_vq_desc(vq, 1, 1);
#else
	vhost_discard_vq_desc(vq, 1);
#endif
}

/* One request from the ring: its bytes, or -errno to stop taking more. */
static long vblk_take_one(struct vblk_queue *q)
{
	struct vhost_virtqueue *vq = &q->vq;
	unsigned int out, in, nr_log;
	struct vblk_req *req;
	int head;

	head = vhost_get_vq_desc(vq, vq->iov, ARRAY_SIZE(vq->iov), &out, &in,
				 vq->log, &nr_log);
	if (head < 0) {
		/* EAGAIN: an IOTLB miss, the core wakes us after it */
		q->broken = head != -EAGAIN;
		return head;
	}
	if (head == vq->num)
		return -ENOENT;
	req = vblk_req_take(q, head, out, in, nr_log);
	if (IS_ERR(req)) {
		/* The request stays in the ring for whoever serves it next. */
		vblk_put_back(vq);
		if (PTR_ERR(req) == -ENOMEM) {
			vhost_poll_queue(&vq->poll);
		} else {
			q->broken = true;
			vq_err(vq, "a request has no header or no status\n");
		}
		return PTR_ERR(req);
	}
	WRITE_ONCE(q->inflight, q->inflight + 1);
	if (vblk_req_next(req))
		vblk_add_ready(q, req);
	return vblk_moves_data(req) ? req->total : 0;
}

/*
 * More in flight than there are descriptors comes of a driver that offers some
 * twice, many bounced pages of one that aligns nothing.
 */
static bool vblk_has_enough(struct vblk_queue *q)
{
	return q->inflight >= q->vq.num || q->bounced >= VBLK_BOUNCE_MAX;
}

/* Under vq.mutex: take requests until there are none or it is enough. */
static void vblk_take(struct vblk_queue *q)
{
	struct vhost_virtqueue *vq = &q->vq;
	struct vhost_dev *vdev = &q->dev->vdev;
	u64 bytes = 0;
	int count = 0;
	long r;

	if (!vhost_vq_get_backend(vq) || q->paused || q->broken ||
	    !vq_meta_prefetch(vq))
		return;
	vhost_disable_notify(vdev, vq);
	do {
		if (vblk_has_enough(q)) {
			q->full = true;
			return;
		}
		r = vblk_take_one(q);
		if (r == -ENOENT) {
			if (!vhost_enable_notify(vdev, vq))
				return;
			vhost_disable_notify(vdev, vq);
			continue;
		}
		if (r < 0)
			return;
		bytes += r;
		if (!count++)
			q->stats.turns++;
	} while (!vhost_exceeds_weight(vq, count, min_t(u64, bytes, INT_MAX)));
}

static void vblk_run(struct vblk_queue *q)
{
	struct blk_plug plug;

	mutex_lock(&q->vq.mutex);
	q->now = ktime_get();
	/* neighbours that come together are merged in the plug */
	blk_start_plug(&plug);
	WRITE_ONCE(q->runner, current);
	vblk_collect(q);
	vblk_take(q);
	blk_finish_plug(&plug);
	/*
	 * Whoever interrupts us from here on wakes the worker, too; what came
	 * before is collected.
	 */
	WRITE_ONCE(q->runner, NULL);
	barrier();
	vblk_collect(q);
	vblk_deliver(q);
	if (q->full && !vblk_has_enough(q)) {
		q->full = false;
		vhost_poll_queue(&q->vq.poll);
	}
	mutex_unlock(&q->vq.mutex);
}

static void vblk_handle_done(struct vhost_work *work)
{
	vblk_run(container_of(work, struct vblk_queue, done_work));
}

static void vblk_handle_kick(struct vhost_work *work)
{
	struct vhost_virtqueue *vq =
		container_of(work, struct vhost_virtqueue, poll.work);
	struct vblk_queue *q = container_of(vq, struct vblk_queue, vq);

	vblk_run(q);
}

/* The owner is dead and so is the worker: release what ends from now on. */
static void vblk_reap(struct work_struct *work)
{
	struct vblk_queue *q = container_of(work, struct vblk_queue, reap_work);
	struct vblk_req *req, *next;

	mutex_lock(&q->vq.mutex);
	llist_for_each_entry_safe(req, next, llist_del_all(&q->done), done)
		vblk_add_ready(q, req);
	vblk_drop(q);
	mutex_unlock(&q->vq.mutex);
}

static int vblk_drain(struct vblk_queue *q, bool killable)
{
	/* ask once more for an IOTLB entry that is missing */
	mutex_lock(&q->vq.mutex);
	q->used_misses = false;
	if (q->inflight)
		vblk_wake(q);
	mutex_unlock(&q->vq.mutex);

	if (!killable)
		wait_event(q->drained, !READ_ONCE(q->inflight));
	else if (wait_event_killable(q->drained, !READ_ONCE(q->inflight) ||
				     READ_ONCE(q->used_misses)))
		return -EINTR;
	return READ_ONCE(q->inflight) ? -EAGAIN : 0;
}

/* Under vdev.mutex, as all below.  Safe on a queue that is stopped. */
int vblk_queue_stop(struct vblk_queue *q, bool killable)
{
	struct vblk_backend *backend;
	int r;

	mutex_lock(&q->vq.mutex);
	vhost_vq_set_backend(&q->vq, NULL);
	mutex_unlock(&q->vq.mutex);
	r = vblk_drain(q, killable);
	if (r)
		return r;
	mutex_lock(&q->vq.mutex);
	backend = q->backend;
	q->backend = NULL;
	q->broken = false;
	q->full = false;
	vblk_req_free_spare(q);
	mutex_unlock(&q->vq.mutex);
	if (backend)
		vblk_backend_close(backend);
	return 0;
}

/* Finish a stop that was interrupted, before its ring is changed. */
int vblk_queue_settle(struct vblk_queue *q)
{
	bool stopped;

	mutex_lock(&q->vq.mutex);
	stopped = !vhost_vq_get_backend(&q->vq);
	mutex_unlock(&q->vq.mutex);
	return stopped ? vblk_queue_stop(q, true) : 0;
}

int vblk_queue_start(struct vblk_queue *q, struct vblk_backend *backend)
{
	struct vhost_virtqueue *vq = &q->vq;
	int r = -EFAULT;

	mutex_lock(&vq->mutex);
	if (vhost_vq_access_ok(vq)) {
		vhost_vq_set_backend(vq, backend);
		r = vhost_vq_init_access(vq);
		if (r)
			vhost_vq_set_backend(vq, NULL);
		else
			q->backend = backend;
	}
	mutex_unlock(&vq->mutex);
	/* the driver may have kicked before */
	if (!r)
		vhost_poll_queue(&vq->poll);
	return r;
}

int vblk_queue_pause(struct vblk_queue *q)
{
	mutex_lock(&q->vq.mutex);
	q->paused = true;
	mutex_unlock(&q->vq.mutex);
	return vblk_drain(q, true);
}

void vblk_queue_resume(struct vblk_queue *q)
{
	mutex_lock(&q->vq.mutex);
	q->paused = false;
	if (vhost_vq_get_backend(&q->vq))
		vhost_poll_queue(&q->vq.poll);
	mutex_unlock(&q->vq.mutex);
}

struct vblk_queue *vblk_queue_new(struct vblk_dev *dev)
{
	struct vblk_queue *q = kvzalloc(sizeof(*q), GFP_KERNEL);

	if (!q)
		return NULL;
	q->dev = dev;
	q->vq.handle_kick = vblk_handle_kick;
	init_waitqueue_head(&q->drained);
	init_llist_head(&q->done);
	vhost_work_init(&q->done_work, vblk_handle_done);
	INIT_WORK(&q->reap_work, vblk_reap);
	q->ready_end = &q->ready;
	return q;
}

void vblk_queue_free(struct vblk_queue *q)
{
	kvfree(q);
}
