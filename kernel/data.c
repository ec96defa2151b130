// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The pages behind a piece of a request: the guest's own, pinned, or where the
 * backend's direct I/O cannot take their alignment, pages of ours.
 *
 * Pages are pinned, not only referenced, so that a fork of the owner cannot
 * leave the transfer in a page that the guest has no more.
 */

#include <linux/mm.h>
#include <linux/slab.h>

#include "vhost_blk.h"

#define VBLK_PIN_BATCH 16

/* A place in the guest's data buffers. */
struct vblk_cursor {
	const struct iovec *iov;
	size_t off;
};

static void vblk_skip(struct vblk_cursor *at, size_t bytes)
{
	at->off += bytes;
	while (at->off && at->off >= at->iov->iov_len) {
		at->off -= at->iov->iov_len;
		at->iov++;
	}
}

static struct vblk_cursor vblk_cursor(const struct vblk_req *req)
{
	struct vblk_cursor at = { req->data, req->off };

	vblk_skip(&at, 0);
	return at;
}

static unsigned long vblk_here(const struct vblk_cursor *at, u64 left,
			       size_t *room)
{
	*room = min_t(u64, left, at->iov->iov_len - at->off);
	return (unsigned long)at->iov->iov_base + at->off;
}

/* All addresses and lengths of the data, or-ed. */
size_t vblk_data_alignment(const struct vblk_req *req)
{
	struct vblk_cursor at = vblk_cursor(req);
	u64 left = req->left;
	size_t bits = 0, room;

	while (left) {
		bits |= vblk_here(&at, left, &room);
		bits |= room;
		left -= room;
		if (left)
			vblk_skip(&at, room);
	}
	return bits;
}

static void vblk_add_page(struct vblk_req *req, struct page *page,
			  unsigned int offset, unsigned int len)
{
	struct bio_vec *bv = &req->bvec[req->nr_bvec++];

	bv->bv_page = page;
	bv->bv_offset = offset;
	bv->bv_len = len;
	req->piece += len;
}

/* Pin some pages of one buffer; the count of bytes, or -errno. */
static long vblk_pin_some(struct vblk_req *req, unsigned long start,
			  size_t room, unsigned int max)
{
	unsigned int offset = offset_in_page(start), len;
	struct page *pages[VBLK_PIN_BATCH];
	size_t want = min_t(size_t, offset + room,
			    (size_t)VBLK_PIN_BATCH << PAGE_SHIFT);
	long bytes = 0;
	int n, i;

	n = min_t(size_t, DIV_ROUND_UP(want, PAGE_SIZE), max);
	n = pin_user_pages_fast(start & PAGE_MASK, n,
				req->op == VBLK_READ ? FOLL_WRITE : 0, pages);
	if (n <= 0)
		return n ? n : -EFAULT;
	for (i = 0; i < n; i++) {
		len = min_t(size_t, PAGE_SIZE - offset, room);
		vblk_add_page(req, pages[i], offset, len);
		room -= len;
		bytes += len;
		offset = 0;
	}
	return bytes;
}

static int vblk_pin(struct vblk_req *req, unsigned int max)
{
	struct vblk_cursor at = vblk_cursor(req);
	u64 left = req->left;
	unsigned long start;
	size_t room;
	long n;

	while (left && req->nr_bvec < max) {
		start = vblk_here(&at, left, &room);
		n = vblk_pin_some(req, start, room, max - req->nr_bvec);
		if (n < 0)
			return n;
		left -= n;
		if (left)
			vblk_skip(&at, n);
	}
	return 0;
}

/* Copy between the guest and our pages; false when the guest's are bad. */
static bool vblk_copy(struct vblk_req *req)
{
	struct vblk_cursor at = vblk_cursor(req);
	bool in = req->op == VBLK_READ;
	unsigned int i, left;
	unsigned long start;
	size_t room;
	void *page;

	for (i = 0; i < req->nr_bvec; i++) {
		page = page_address(req->bvec[i].bv_page);
		for (left = req->bvec[i].bv_len; left; left -= room) {
			start = vblk_here(&at, left, &room);
			if (in ? copy_to_user((void __user *)start, page, room)
			       : copy_from_user(page, (void __user *)start,
						room))
				return false;
			page += room;
			if (left > room || i + 1 < req->nr_bvec)
				vblk_skip(&at, room);
		}
	}
	return true;
}

static int vblk_bounce(struct vblk_req *req, unsigned int max)
{
	u64 left = req->left;
	struct page *page;
	unsigned int len;

	while (left && req->nr_bvec < max) {
		page = alloc_page(GFP_KERNEL_ACCOUNT);
		if (!page)
			return -ENOMEM;
		len = min_t(u64, left, PAGE_SIZE);
		vblk_add_page(req, page, 0, len);
		req->q->bounced++;
		left -= len;
	}
	if (req->op == VBLK_WRITE && !vblk_copy(req))
		return -EFAULT;
	return 0;
}

/* The pages that the rest of the data lies in, at most max. */
static unsigned int vblk_count_pages(struct vblk_req *req, unsigned int max)
{
	struct vblk_cursor at = vblk_cursor(req);
	u64 left = req->left, count = 0;
	unsigned long start;
	size_t room;

	while (left && count < max) {
		start = vblk_here(&at, left, &room);
		count += DIV_ROUND_UP(offset_in_page(start) + room, PAGE_SIZE);
		left -= room;
		if (left)
			vblk_skip(&at, room);
	}
	return min_t(u64, count, max);
}

/* Under vq.mutex in the worker: get the next piece of the data into bvec. */
int vblk_piece_map(struct vblk_req *req)
{
	unsigned int max;
	int r = -ENOMEM;

	max = req->bounce ?
		min_t(u64, DIV_ROUND_UP(req->left, PAGE_SIZE),
		      VBLK_BOUNCE_PAGES) :
		vblk_count_pages(req, VBLK_PIECE_PAGES);
	req->bvec = req->inline_bvec;
	if (max > VBLK_INLINE)
		req->bvec = kmalloc_array(max, sizeof(*req->bvec),
					  GFP_KERNEL_ACCOUNT);
	req->nr_bvec = 0;
	req->piece = 0;
	req->moved = 0;
	if (req->bvec)
		r = req->bounce ? vblk_bounce(req, max) : vblk_pin(req, max);
	if (r && req->bvec)
		vblk_piece_end(req, false);
	return r;
}

static void vblk_release_pages(struct vblk_req *req)
{
	bool dirty = req->op == VBLK_READ;
	unsigned int i;

	for (i = 0; i < req->nr_bvec; i++) {
		struct page *page = req->bvec[i].bv_page;

		if (req->bounce) {
			__free_page(page);
			req->q->bounced--;
		} else if (dirty) {
			unpin_user_pages_dirty_lock(&page, 1, true);
		} else {
			unpin_user_page(page);
		}
	}
}

/*
 * Under vq.mutex.  good: the piece was moved whole; only then are the guest's
 * bytes touched.
 */
int vblk_piece_end(struct vblk_req *req, bool good)
{
	int r = 0;

	if (good && req->bounce && req->op == VBLK_READ && !vblk_copy(req))
		r = -EFAULT;
	vblk_release_pages(req);
	if (req->bvec != req->inline_bvec)
		kfree(req->bvec);
	req->bvec = NULL;
	if (good && !r) {
		req->left -= req->piece;
		req->pos += req->piece;
	}
	if (good && !r && req->left) {
		struct vblk_cursor at = vblk_cursor(req);

		vblk_skip(&at, req->piece);
		req->data = at.iov;
		req->off = at.off;
	}
	return r;
}

/* What of the piece is not moved yet. */
void vblk_piece_iter(struct vblk_req *req, struct iov_iter *iter)
{
	iov_iter_bvec(iter, req->op == VBLK_READ ? ITER_DEST : ITER_SOURCE,
		      req->bvec, req->nr_bvec, req->piece);
	iov_iter_advance(iter, req->moved);
}
