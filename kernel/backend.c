// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The disk behind a queue, a block device or a regular file.
 *
 * A block device opened for direct I/O gets bios; a file opened so gets
 * asynchronous kiocbs, at first without leave to block.  Whatever may block (the
 * page cache, fsync, fallocate) is done by a work queue, so that it holds up no
 * other request of the worker.
 */

#include <linux/types.h>
#include <linux/cred.h>
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "vhost_blk.h"

static void vblk_default_limits(struct vblk_backend *backend,
				struct vhost_blk_limits *limits)
{
	loff_t size = i_size_read(backend->file->f_mapping->host);

	memset(limits, 0, sizeof(*limits));
	limits->capacity = size >> SECTOR_SHIFT;
	limits->logical_block_size = max_t(u32, backend->block_size, 512);
	if (!(backend->file->f_mode & FMODE_WRITE))
		limits->flags = VHOST_BLK_L_READ_ONLY;
}

static int vblk_backend_look(struct vblk_backend *backend)
{
	struct file *file = backend->file;
	struct inode *inode = file->f_mapping->host;
	struct block_device *under = inode->i_sb->s_bdev;

	if (!(file->f_mode & FMODE_READ))
		return -EBADF;
	if (S_ISBLK(inode->i_mode)) {
		backend->bdev = I_BDEV(inode);
		under = backend->bdev;
		/* zones are for userspace */
		if (bdev_is_zoned(under))
			return -EOPNOTSUPP;
	} else if (!S_ISREG(inode->i_mode)) {
		return -EINVAL;
	}
	if (!file->f_op->read_iter || !file->f_op->write_iter)
		return -EINVAL;
	backend->block_size = 1;
	if (file->f_flags & O_DIRECT) {
		backend->block_size = 512;
		if (under)
			backend->block_size = bdev_logical_block_size(under);
		backend->align_mask = backend->block_size - 1;
		if (under)
			backend->align_mask |= bdev_dma_alignment(under);
		backend->bio = backend->bdev;
		backend->direct = true;
		backend->nowait = file->f_mode & FMODE_NOWAIT;
	}
	return 0;
}

/* Where no limits were set they are filled in from the backend. */
struct vblk_backend *vblk_backend_open(int fd, struct vhost_blk_limits *limits,
				       bool have_limits)
{
	struct vblk_backend *backend;
	int r = -EBADF;

	backend = kzalloc(sizeof(*backend), GFP_KERNEL);
	if (!backend)
		return ERR_PTR(-ENOMEM);
	/* the worker's own may use what is reserved, and pass over quotas */
	backend->cred = get_current_cred();
	backend->file = fget(fd);
	if (backend->file)
		r = vblk_backend_look(backend);
	if (r) {
		vblk_backend_close(backend);
		return ERR_PTR(r);
	}
	if (!have_limits)
		vblk_default_limits(backend, limits);
	return backend;
}

void vblk_backend_close(struct vblk_backend *backend)
{
	if (backend->file)
		fput(backend->file);
	put_cred(backend->cred);
	kfree(backend);
}

static void vblk_bio_done(struct bio *bio)
{
	struct vblk_req *req = bio->bi_private;
	int error = blk_status_to_errno(bio->bi_status);

	bio_uninit(bio);
	vblk_req_done(req, error ? error : (long)req->piece);
}

static blk_opf_t vblk_bio_op(struct vblk_req *req)
{
	switch (req->op) {
	case VBLK_READ:
		return REQ_OP_READ;
	case VBLK_FLUSH:
		/* the block core takes no bare REQ_OP_FLUSH */
		return REQ_OP_WRITE | REQ_PREFLUSH;
	default:
		return REQ_OP_WRITE | REQ_SYNC | REQ_IDLE |
		       (req->fua ? REQ_FUA : 0);
	}
}

static void vblk_submit_bio(struct vblk_req *req)
{
	struct bio *bio = &req->bio;

	/* the block core would only warn */
	if (req->op == VBLK_WRITE && bdev_read_only(req->backend->bdev)) {
		vblk_req_done(req, -EPERM);
		return;
	}
	bio_init(bio, req->backend->bdev, req->bvec, req->nr_bvec,
		 vblk_bio_op(req));
	bio->bi_iter.bi_sector = req->pos >> SECTOR_SHIFT;
	bio->bi_iter.bi_size = req->piece;
	bio->bi_vcnt = req->nr_bvec;
	bio->bi_end_io = vblk_bio_done;
	bio->bi_private = req;
	submit_bio(bio);
}

/* Is the page cache between the requests and the medium? */
static bool vblk_is_cached(const struct vblk_backend *backend)
{
	return !(backend->file->f_flags & O_DIRECT);
}

/*
 * What the page cache could not write back is told of once, to one of those who
 * ask side by side.  So they ask one by one, and after the first error nobody
 * is told that all is well until all queues have stopped.
 */
static int vblk_sync(struct vblk_req *req)
{
	struct vblk_dev *dev = req->q->dev;
	struct file *file = req->backend->file;
	int r;

	if (!vblk_is_cached(req->backend))
		return vfs_fsync(file, 1);
	mutex_lock(&dev->sync_lock);
	if (!dev->lost)
		dev->lost = vfs_fsync(file, 1);
	r = dev->lost;
	mutex_unlock(&dev->sync_lock);
	return r;
}

static void vblk_prepare_iocb(struct vblk_req *req)
{
	struct file *file = req->backend->file;

	memset(&req->iocb, 0, sizeof(req->iocb));
	req->iocb.ki_filp = file;
	req->iocb.ki_pos = req->pos + req->moved;
	req->iocb.ki_flags = iocb_flags(file) & ~IOCB_APPEND;
	if (req->op == VBLK_WRITE && req->fua &&
	    !vblk_is_cached(req->backend))
		req->iocb.ki_flags |= IOCB_DSYNC;
}

/*
 * As the loop device does it.  Whether vfs_iocb_iter_write() itself counts the
 * write for those who freeze the file system is different from kernel to
 * kernel; here the caller does.
 */
static ssize_t vblk_call_file(struct vblk_req *req)
{
	struct file *file = req->backend->file;
	struct iov_iter iter;

	vblk_piece_iter(req, &iter);
	if (req->op == VBLK_READ)
		return file->f_op->read_iter(&req->iocb, &iter);
	return file->f_op->write_iter(&req->iocb, &iter);
}

static void vblk_iocb_done(struct kiocb *iocb, long result)
{
	struct vblk_req *req = container_of(iocb, struct vblk_req, iocb);
	struct super_block *sb = file_inode(iocb->ki_filp)->i_sb;

	if (req->op == VBLK_WRITE && !req->backend->bdev) {
		__sb_writers_acquired(sb, SB_FREEZE_WRITE);
		sb_end_write(sb);
	}
	vblk_req_done(req, result);
}

/* False when it would have to wait for a frozen file system. */
static bool vblk_start_write(struct vblk_req *req)
{
	struct super_block *sb = file_inode(req->backend->file)->i_sb;

	if (req->op != VBLK_WRITE || req->backend->bdev)
		return true;
	if (!sb_start_write_trylock(sb))
		return false;
	/* the completion gives it back, in whatever task it runs */
	__sb_writers_release(sb, SB_FREEZE_WRITE);
	return true;
}

static void vblk_submit_iocb(struct vblk_req *req)
{
	const struct cred *own;
	ssize_t r;

	if (!vblk_start_write(req)) {
		vblk_backend_work(req);
		return;
	}
	vblk_prepare_iocb(req);
	req->iocb.ki_complete = vblk_iocb_done;
	if (req->backend->nowait) {
		req->iocb.ki_flags |= IOCB_NOWAIT;
		req->tried_nowait = true;
	}
	own = override_creds(req->backend->cred);
	r = vblk_call_file(req);
	revert_creds(own);
	if (r != -EIOCBQUEUED)
		vblk_iocb_done(&req->iocb, r);
}

/* In the worker: start the request's piece, or its command. */
void vblk_backend_submit(struct vblk_req *req)
{
	struct vblk_backend *backend = req->backend;

	req->tried_nowait = false;
	/* With pages in the cache the file's way keeps them right. */
	if (backend->bio && !backend->file->f_mapping->nrpages &&
	    (vblk_moves_data(req) || req->op == VBLK_FLUSH))
		vblk_submit_bio(req);
	else if (backend->direct && vblk_moves_data(req))
		vblk_submit_iocb(req);
	else
		vblk_backend_work(req);
}

void vblk_backend_work(struct vblk_req *req)
{
	req->tried_nowait = false;
	queue_work(req->q->dev->wq, &req->work);
}

/*
 * In the worker, after a piece was written: somebody on the host may have read
 * what was there before into the page cache in the meantime.
 */
void vblk_backend_moved(struct vblk_req *req)
{
	struct vblk_backend *backend = req->backend;
	struct address_space *mapping = backend->file->f_mapping;

	if (backend->bio && req->op == VBLK_WRITE && mapping->nrpages)
		invalidate_inode_pages2_range(mapping, req->pos >> PAGE_SHIFT,
					      (req->pos + req->piece - 1) >>
					      PAGE_SHIFT);
}

static ssize_t vblk_move_waiting(struct vblk_req *req)
{
	struct file *file = req->backend->file;
	ssize_t r;

	vblk_prepare_iocb(req);
	if (req->op == VBLK_READ)
		return vblk_call_file(req);
	file_start_write(file);
	r = vblk_call_file(req);
	file_end_write(file);
	if (r > 0 && req->fua && vblk_is_cached(req->backend)) {
		int error = vblk_sync(req);

		if (error)
			r = error;
	}
	return r;
}

/* Pages of a block device that are in the cache would outlive its change. */
static int vblk_drop_cache(struct vblk_backend *backend, loff_t pos, loff_t len)
{
	struct address_space *mapping = backend->file->f_mapping;
	int r;

	if (!mapping->nrpages)
		return 0;
	r = filemap_write_and_wait_range(mapping, pos, pos + len - 1);
	if (r)
		return r;
	return invalidate_inode_pages2_range(mapping, pos >> PAGE_SHIFT,
					     (pos + len - 1) >> PAGE_SHIFT);
}

static int vblk_change_bdev(struct vblk_req *req, struct vblk_range *range,
			    bool unmap)
{
	struct block_device *bdev = req->backend->bdev;

	switch (req->op) {
	case VBLK_DISCARD:
		return blkdev_issue_discard(bdev, range->sector, range->count,
					    GFP_KERNEL);
	case VBLK_ZEROES:
		return blkdev_issue_zeroout(bdev, range->sector, range->count,
					    GFP_KERNEL,
					    unmap ? 0 : BLKDEV_ZERO_NOUNMAP);
#ifdef VBLK_HAVE_SECURE_ERASE
	case VBLK_ERASE:
		return blkdev_issue_secure_erase(bdev, range->sector,
						 range->count, GFP_KERNEL);
#endif
	default:
		return -EOPNOTSUPP;
	}
}

/* For file systems without a way to zero: write the zeroes. */
static int vblk_write_zeroes(struct vblk_req *req, loff_t pos, loff_t len)
{
	struct file *file = req->backend->file;
	struct bio_vec bv = { .bv_page = ZERO_PAGE(0) };
	struct iov_iter iter;
	struct kiocb iocb;
	ssize_t r = 0;

	file_start_write(file);
	while (len && r >= 0) {
		bv.bv_len = min_t(loff_t, len, PAGE_SIZE);
		iov_iter_bvec(&iter, ITER_SOURCE, &bv, 1, bv.bv_len);
		init_sync_kiocb(&iocb, file);
		iocb.ki_pos = pos;
		r = file->f_op->write_iter(&iocb, &iter);
		if (!r)
			r = -EIO;
		if (r > 0) {
			pos += r;
			len -= r;
		}
	}
	file_end_write(file);
	return r < 0 ? r : 0;
}

static int vblk_change_file(struct vblk_req *req, loff_t pos, loff_t len,
			    bool unmap)
{
	int mode = FALLOC_FL_KEEP_SIZE, r;

	if (req->op == VBLK_ERASE)
		return -EOPNOTSUPP;
	if (req->op == VBLK_DISCARD || unmap)
		mode |= FALLOC_FL_PUNCH_HOLE;
	else
		mode |= FALLOC_FL_ZERO_RANGE;
	r = vfs_fallocate(req->backend->file, mode, pos, len);
	if (r == -EOPNOTSUPP && req->op == VBLK_ZEROES)
		r = vblk_write_zeroes(req, pos, len);
	return r;
}

static int vblk_change_range(struct vblk_req *req, struct vblk_range *range)
{
	bool unmap = range->unmap && !req->keep;
	loff_t pos = range->sector << SECTOR_SHIFT;
	loff_t len = (loff_t)range->count << SECTOR_SHIFT;
	int r;

	if (!len || (req->op == VBLK_DISCARD && req->keep))
		return 0;
	if (!req->backend->bdev) {
		r = vblk_change_file(req, pos, len, unmap);
	} else {
		r = vblk_drop_cache(req->backend, pos, len);
		if (!r)
			r = vblk_change_bdev(req, range, unmap);
		if (!r)
			r = vblk_drop_cache(req->backend, pos, len);
	}
	/* a discard is a hint */
	return r == -EOPNOTSUPP && req->op == VBLK_DISCARD ? 0 : r;
}

static long vblk_change_ranges(struct vblk_req *req)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < req->nr_ranges && !r; i++)
		r = vblk_change_range(req, &req->ranges[i]);
	if (!r && req->fua)
		r = vblk_sync(req);
	return r;
}

/* In the work queue, with no guest memory but the pages of the piece. */
void vblk_backend_run(struct work_struct *work)
{
	struct vblk_req *req = container_of(work, struct vblk_req, work);
	const struct cred *own = override_creds(req->backend->cred);
	long r;

	switch (req->op) {
	case VBLK_READ:
	case VBLK_WRITE:
		r = vblk_move_waiting(req);
		break;
	case VBLK_FLUSH:
		r = vblk_sync(req);
		break;
	default:
		r = vblk_change_ranges(req);
	}
	revert_creds(own);
	vblk_req_done(req, r);
}
