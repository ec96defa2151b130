// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A request: copied from the ring and checked once, then taken from step to
 * step until it has a status.  Section numbers are those of VIRTIO 1.2.
 */

#include <linux/slab.h>

#include "vhost_blk.h"

static struct kmem_cache *vblk_req_cache;

static void vblk_refuse(struct vblk_req *req, u8 status)
{
	req->status = status;
	req->invalid = true;
}

/* IN and OUT: what is checked here is in range of the disk ever after. */
static void vblk_parse_data(struct vblk_req *req, u64 sector)
{
	const struct vhost_blk_limits *l = &req->q->limits;
	u64 count = req->left >> SECTOR_SHIFT;
	u32 mask = l->logical_block_size - 1;

	if (req->op == VBLK_WRITE && l->flags & VHOST_BLK_L_READ_ONLY)
		vblk_refuse(req, VIRTIO_BLK_S_IOERR);
	else if (req->left & mask || sector & (mask >> SECTOR_SHIFT))
		vblk_refuse(req, VIRTIO_BLK_S_IOERR);
	else if (sector > l->capacity || count > l->capacity - sector)
		vblk_refuse(req, VIRTIO_BLK_S_IOERR);
	else if (req->op == VBLK_READ && req->left >= U32_MAX)
		/* more than the used ring can tell */
		vblk_refuse(req, VIRTIO_BLK_S_IOERR);
	if (req->invalid)
		return;
	req->pos = sector << SECTOR_SHIFT;
	req->total = req->left;
	req->bounce = vblk_data_alignment(req) & req->backend->align_mask;
}

struct vblk_unmap_limits {
	u32 sectors, segments, flags;
};

static struct vblk_unmap_limits vblk_unmap_limits(struct vblk_req *req)
{
	const struct vhost_blk_limits *l = &req->q->limits;

	switch (req->op) {
	case VBLK_DISCARD:
		return (struct vblk_unmap_limits) {
			l->max_discard_sectors, l->max_discard_segments, 0 };
	case VBLK_ZEROES:
		return (struct vblk_unmap_limits) {
			l->max_write_zeroes_sectors,
			l->max_write_zeroes_segments,
			VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
	default:
		return (struct vblk_unmap_limits) {
			l->max_secure_erase_sectors,
			l->max_secure_erase_segments, 0 };
	}
}

static u8 vblk_check_range(struct vblk_req *req, struct vblk_range *range,
			   u32 max)
{
	const struct vhost_blk_limits *l = &req->q->limits;
	u32 mask = (l->logical_block_size >> SECTOR_SHIFT) - 1;

	if (range->count > max || (range->sector | range->count) & mask ||
	    range->sector > l->capacity ||
	    range->count > l->capacity - range->sector)
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* 5.2.6.2: a segment with an unknown flag is answered with UNSUPP. */
static u8 vblk_read_ranges(struct vblk_req *req, u64 length, u32 flags)
{
	struct vhost_virtqueue *vq = &req->q->vq;
	struct virtio_blk_discard_write_zeroes seg;
	struct iov_iter iter;
	unsigned int i;
	u32 seen;

	iov_iter_init(&iter, ITER_SOURCE, req->iov, req->in_iov - req->iov,
		      sizeof(struct virtio_blk_outhdr) + length);
	iov_iter_advance(&iter, sizeof(struct virtio_blk_outhdr));

	for (i = 0; i < req->nr_ranges; i++) {
		if (!copy_from_iter_full(&seg, sizeof(seg), &iter))
			return VIRTIO_BLK_S_IOERR;
		seen = vhost32_to_cpu(vq, (__force __virtio32)seg.flags);
		if (seen & ~flags)
			return VIRTIO_BLK_S_UNSUPP;
		req->ranges[i].unmap = seen;
		req->ranges[i].sector =
			vhost64_to_cpu(vq, (__force __virtio64)seg.sector);
		req->ranges[i].count =
			vhost32_to_cpu(vq, (__force __virtio32)seg.num_sectors);
	}
	return VIRTIO_BLK_S_OK;
}

/* Everything is checked before anything is done. */
static u8 vblk_parse_ranges(struct vblk_req *req, u64 length)
{
	const size_t size = sizeof(struct virtio_blk_discard_write_zeroes);
	struct vblk_unmap_limits limits = vblk_unmap_limits(req);
	unsigned int i;
	u8 status;

	if (!limits.segments)
		return VIRTIO_BLK_S_UNSUPP;
	if (req->q->limits.flags & VHOST_BLK_L_READ_ONLY)
		return VIRTIO_BLK_S_IOERR;
	if (!length || length % size)
		return VIRTIO_BLK_S_IOERR;
	if (length / size > limits.segments)
		return VIRTIO_BLK_S_UNSUPP;
	req->nr_ranges = length / size;
	req->ranges = kmalloc_array(req->nr_ranges, sizeof(*req->ranges),
				    GFP_KERNEL_ACCOUNT);
	if (!req->ranges)
		return VIRTIO_BLK_S_IOERR;
	status = vblk_read_ranges(req, length, limits.flags);
	for (i = 0; i < req->nr_ranges && status == VIRTIO_BLK_S_OK; i++) {
		status = vblk_check_range(req, &req->ranges[i],
					  limits.sectors);
		req->total += (u64)req->ranges[i].count << SECTOR_SHIFT;
	}
	return status;
}

static void vblk_get_id(struct vblk_req *req, u64 room)
{
	size_t len = min_t(u64, room, VHOST_BLK_SERIAL_LEN);
	struct iov_iter iter;

	iov_iter_init(&iter, ITER_DEST, req->in_iov, req->nr_in, len);
	if (copy_to_iter(req->q->serial, len, &iter) == len) {
		req->status = VIRTIO_BLK_S_OK;
		req->used_len = len;
	}
}

/*
 * out: bytes to read after the header; in: bytes the device may write without
 * the status byte
 */
static void vblk_parse_type(struct vblk_req *req, u32 type, u64 sector,
			    u64 out, u64 in)
{
	u8 status;

	/* old drivers set the bit; it never had a meaning that binds us */
	switch (type & ~VIRTIO_BLK_T_BARRIER) {
	case VIRTIO_BLK_T_IN:
		req->op = VBLK_READ;
		req->data = req->in_iov;
		req->left = in;
		vblk_parse_data(req, sector);
		return;
	case VIRTIO_BLK_T_OUT:
		req->op = VBLK_WRITE;
		req->data = req->iov;
		req->off = sizeof(struct virtio_blk_outhdr);
		req->left = out;
		vblk_parse_data(req, sector);
		return;
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_OUT:	/* of old drivers */
		req->op = VBLK_FLUSH;
		return;
	case VIRTIO_BLK_T_GET_ID:
		vblk_get_id(req, in);
		return;
	case VIRTIO_BLK_T_DISCARD:
		req->op = VBLK_DISCARD;
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		req->op = VBLK_ZEROES;
		break;
#ifdef VBLK_HAVE_SECURE_ERASE
	case VIRTIO_BLK_T_SECURE_ERASE:
		req->op = VBLK_ERASE;
		break;
#endif
	default:
		vblk_refuse(req, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	status = vblk_parse_ranges(req, out);
	if (status != VIRTIO_BLK_S_OK)
		vblk_refuse(req, status);
}

/* Copy n elements, into room within the request where they fit. */
static void *vblk_keep(void *own, unsigned int room, const void *from,
		       unsigned int n, size_t size)
{
	void *to = own;

	if (n > room)
		to = kvmalloc_array(n, size, GFP_KERNEL_ACCOUNT);
	if (to)
		memcpy(to, from, n * size);
	return to;
}

/* Copy what vhost_get_vq_desc() left in the queue's arrays. */
static int vblk_keep_buffers(struct vblk_req *req, unsigned int out,
			     unsigned int in, unsigned int nr_log)
{
	struct vhost_virtqueue *vq = &req->q->vq;
	const struct iovec *last;
	unsigned int i;

	req->iov = vblk_keep(req->inline_iov, VBLK_INLINE, vq->iov, out + in,
			     sizeof(*vq->iov));
	req->log = vblk_keep(req->inline_log, VBLK_INLINE, vq->log, nr_log,
			     sizeof(*vq->log));
	if (!req->iov || !req->log)
		return -ENOMEM;
	req->in_iov = req->iov + out;
	req->nr_in = in;
	req->nr_log = nr_log;
	for (i = 0; i < nr_log; i++)
		req->log_len += req->log[i].len;
	last = &req->in_iov[in - 1];
	req->status_at = (u8 __user *)last->iov_base + last->iov_len - 1;
	return 0;
}

/*
 * 2.7.4.1 lets the driver lay the bytes out as it likes.  The header is read
 * once: the guest may change it meanwhile.
 */
static bool vblk_read_header(const struct vblk_req *req, unsigned int out,
			     struct virtio_blk_outhdr *hdr)
{
	struct iov_iter iter;

	/* as they all do */
	if (req->iov->iov_len >= sizeof(*hdr))
		return !copy_from_user(hdr, req->iov->iov_base, sizeof(*hdr));
	iov_iter_init(&iter, ITER_SOURCE, req->iov, out, sizeof(*hdr));
	return copy_from_iter_full(hdr, sizeof(*hdr), &iter);
}

static int vblk_req_fill(struct vblk_req *req, unsigned int out,
			 unsigned int in, unsigned int nr_log)
{
	struct vhost_virtqueue *vq = &req->q->vq;
	struct virtio_blk_outhdr hdr;
	size_t in_len, out_len;
	int r;

	/* 5.2.6: a header to read and a status byte to write, at the least */
	in_len = iov_length(vq->iov + out, in);
	out_len = iov_length(vq->iov, out);
	if (!in_len || out_len < sizeof(hdr))
		return -EINVAL;
	r = vblk_keep_buffers(req, out, in, nr_log);
	if (r)
		return r;
	if (!vblk_read_header(req, out, &hdr))
		return -EFAULT;
	vblk_parse_type(req, vhost32_to_cpu(vq, (__force __virtio32)hdr.type),
			vhost64_to_cpu(vq, (__force __virtio64)hdr.sector),
			out_len - sizeof(hdr), in_len - 1);
	return 0;
}

static struct vblk_req *vblk_req_new(struct vblk_queue *q)
{
	struct vblk_req *req;

	if (q->spare) {
		req = q->spare;
		q->spare = req->next;
		q->nr_spare--;
	} else {
		req = kmem_cache_alloc(vblk_req_cache, GFP_KERNEL);
		if (!req)
			return NULL;
		INIT_WORK(&req->work, vblk_backend_run);
	}
	memset(req, 0, offsetof(struct vblk_req, work));
	return req;
}

/* Under vq.mutex.  -EINVAL or -EFAULT: there is no request to answer. */
struct vblk_req *vblk_req_take(struct vblk_queue *q, int head,
			       unsigned int out, unsigned int in,
			       unsigned int nr_log)
{
	struct vblk_req *req = vblk_req_new(q);
	int r;

	if (!req)
		return ERR_PTR(-ENOMEM);
	req->q = q;
	req->backend = q->backend;
	req->head = head;
	req->start = q->now;
	req->op = VBLK_OTHER;
	req->fua = q->limits.flags & VHOST_BLK_L_WRITE_THROUGH ||
		   q->backend->file->f_flags & O_DSYNC;
	req->keep = q->limits.flags & VHOST_BLK_L_KEEP_ALLOCATED;
	req->status = VIRTIO_BLK_S_IOERR;
	r = vblk_req_fill(req, out, in, nr_log);
	if (r) {
		vblk_req_free(req);
		return ERR_PTR(r);
	}
	return req;
}

/* Under vq.mutex. */
void vblk_req_free(struct vblk_req *req)
{
	struct vblk_queue *q = req->q;

	if (req->bvec)
		vblk_piece_end(req, false);
	if (req->iov != req->inline_iov)
		kvfree(req->iov);
	if (req->log != req->inline_log)
		kvfree(req->log);
	kfree(req->ranges);
	if (q->nr_spare == VBLK_SPARE) {
		kmem_cache_free(vblk_req_cache, req);
	} else {
		req->next = q->spare;
		q->spare = req;
		q->nr_spare++;
	}
}

/* Under vq.mutex. */
void vblk_req_free_spare(struct vblk_queue *q)
{
	struct vblk_req *req;

	while ((req = q->spare)) {
		q->spare = req->next;
		kmem_cache_free(vblk_req_cache, req);
	}
	q->nr_spare = 0;
}

/* Start what is to be done next; true when the request has its status. */
bool vblk_req_next(struct vblk_req *req)
{
	if (req->invalid || req->op == VBLK_OTHER)
		return true;
	if (vblk_moves_data(req)) {
		if (!req->left) {
			req->status = VIRTIO_BLK_S_OK;
			if (req->op == VBLK_READ)
				req->used_len = req->total;
			return true;
		}
		req->error = vblk_piece_map(req);
		if (req->error)
			return true;
	}
	vblk_backend_submit(req);
	return false;
}

/* A file may be shorter than the disk: zeroes follow its end. */
static bool vblk_fill_zeroes(struct vblk_req *req)
{
	struct iov_iter iter;

	if (req->op != VBLK_READ || req->backend->bdev)
		return false;
	vblk_piece_iter(req, &iter);
	iov_iter_zero(iov_iter_count(&iter), &iter);
	req->moved = req->piece;
	return true;
}

/* A transfer has ended; true when the request has its status. */
bool vblk_req_step(struct vblk_req *req)
{
	if (req->result == -EAGAIN && req->tried_nowait) {
		vblk_backend_work(req);
		return false;
	}
	if (req->result < 0) {
		req->error = req->result;
		return true;
	}
	if (!vblk_moves_data(req)) {
		req->status = VIRTIO_BLK_S_OK;
		return true;
	}
	req->moved += req->result;
	if (req->moved < req->piece) {
		if (req->result > 0) {
			vblk_backend_work(req);
			return false;
		}
		if (!vblk_fill_zeroes(req)) {
			req->error = -EIO;
			return true;
		}
	}
	vblk_backend_moved(req);
	req->error = vblk_piece_end(req, true);
	if (req->error)
		return true;
	return vblk_req_next(req);
}

int vblk_request_init(void)
{
	vblk_req_cache = KMEM_CACHE(vblk_req, SLAB_ACCOUNT);
	return vblk_req_cache ? 0 : -ENOMEM;
}

void vblk_request_exit(void)
{
	kmem_cache_destroy(vblk_req_cache);
}
