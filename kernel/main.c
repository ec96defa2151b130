// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vhost-blk: /dev/vhost-blk, its ioctls, and the life of an open device.
 *
 * An ioctl holds vdev.mutex from end to end, so the rings, the memory table and
 * the backends change one at a time.  Whatever a request in flight relies on is
 * changed only after the queue has drained.
 */

#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/slab.h>

#include "vhost_blk.h"

#define VBLK_FEATURES ((1ULL << VIRTIO_F_NOTIFY_ON_EMPTY) | \
		       (1ULL << VIRTIO_RING_F_INDIRECT_DESC) | \
		       (1ULL << VIRTIO_RING_F_EVENT_IDX) | \
		       (1ULL << VHOST_F_LOG_ALL) | \
		       (1ULL << VIRTIO_F_ANY_LAYOUT) | \
		       (1ULL << VIRTIO_F_VERSION_1) | \
		       (1ULL << VIRTIO_F_ACCESS_PLATFORM))
#define VBLK_BACKEND_FEATURES (1ULL << VHOST_BACKEND_F_IOTLB_MSG_V2)

static int vblk_open(struct inode *inode, struct file *file)
{
	struct vblk_dev *dev = kvzalloc(sizeof(*dev), GFP_KERNEL);
	int i;

	if (!dev)
		return -ENOMEM;
	i = 0;
	mutex_init(&dev->sync_lock);
	/* of its own: one disk that blocks is no trouble for the others */
	dev->wq = alloc_workqueue("vhost-blk", WQ_UNBOUND, 0);
	if (!dev->wq)
		goto no_memory;
	for (; i < VBLK_MAX_QUEUES; i++) {
		dev->queues[i] = vblk_queue_new(dev);
		if (!dev->queues[i])
			goto no_memory;
		dev->vqs[i] = &dev->queues[i]->vq;
	}
	vhost_dev_init(&dev->vdev, dev->vqs, VBLK_MAX_QUEUES, UIO_MAXIOV,
		       VBLK_WEIGHT, VBLK_BYTE_WEIGHT, true, NULL);
	file->private_data = dev;
	return 0;

no_memory:
	while (i-- > 0)
		vblk_queue_free(dev->queues[i]);
	if (dev->wq)
		destroy_workqueue(dev->wq);
	kvfree(dev);
	return -ENOMEM;
}

/* Stop everything for good; nobody waits for the answers any more. */
static void vblk_stop_for_good(struct vblk_dev *dev)
{
	int i;

	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		mutex_lock(&dev->vqs[i]->mutex);
		dev->queues[i]->dead = true;
		mutex_unlock(&dev->vqs[i]->mutex);
	}
	for (i = 0; i < VBLK_MAX_QUEUES; i++)
		vblk_queue_stop(dev->queues[i], false);
	vhost_dev_stop(&dev->vdev);
	/* a completion may still stand between its request and the wake-up */
	synchronize_rcu();
	vhost_dev_flush(&dev->vdev);
	for (i = 0; i < VBLK_MAX_QUEUES; i++)
		flush_work(&dev->queues[i]->reap_work);
}

static int vblk_release(struct inode *inode, struct file *file)
{
	struct vblk_dev *dev = file->private_data;
	int i;

	mutex_lock(&dev->vdev.mutex);
	vblk_stop_for_good(dev);
	mutex_unlock(&dev->vdev.mutex);
	vhost_dev_cleanup(&dev->vdev);
	destroy_workqueue(dev->wq);
	for (i = 0; i < VBLK_MAX_QUEUES; i++)
		vblk_queue_free(dev->queues[i]);
	kvfree(dev);
	return 0;
}

static long vblk_get_info(void __user *argp)
{
	struct vhost_blk_info info = {
		.abi = VHOST_BLK_ABI,
		.max_queues = VBLK_MAX_QUEUES,
		.features = VHOST_BLK_F_BLOCK_DEV | VHOST_BLK_F_FILE |
			    VHOST_BLK_F_DISCARD | VHOST_BLK_F_WRITE_ZEROES |
			    VHOST_BLK_F_DIRTY_LOG | VHOST_BLK_F_STATS |
			    VHOST_BLK_F_ERROR_EVENT,
	};

#ifdef VBLK_HAVE_SECURE_ERASE
	info.features |= VHOST_BLK_F_SECURE_ERASE;
#endif
#ifdef VBLK_HAVE_WORKER_IOCTL
	info.features |= VHOST_BLK_F_WORKERS;
#endif
	return copy_to_user(argp, &info, sizeof(info)) ? -EFAULT : 0;
}

static struct vblk_queue *vblk_get_queue(struct vblk_dev *dev, u32 index)
{
	if (index >= VBLK_MAX_QUEUES)
		return NULL;
	return dev->queues[array_index_nospec(index, VBLK_MAX_QUEUES)];
}

static bool vblk_limits_good(const struct vhost_blk_limits *l)
{
	u32 size = l->logical_block_size;

	return !memchr_inv(l->reserved, 0, sizeof(l->reserved)) &&
	       size >= 512 && size <= 65536 && is_power_of_2(size) &&
	       l->capacity <= LLONG_MAX >> SECTOR_SHIFT &&
	       !(l->flags & ~(VHOST_BLK_L_READ_ONLY |
			      VHOST_BLK_L_WRITE_THROUGH |
			      VHOST_BLK_L_KEEP_ALLOCATED)) &&
	       l->max_discard_segments <= VHOST_BLK_MAX_SEGMENTS &&
	       l->max_write_zeroes_segments <= VHOST_BLK_MAX_SEGMENTS &&
	       l->max_secure_erase_segments <= VHOST_BLK_MAX_SEGMENTS;
}

static bool vblk_backend_allows(struct vblk_backend *backend,
				const struct vhost_blk_limits *limits)
{
	return (limits->flags & VHOST_BLK_L_READ_ONLY ||
		backend->file->f_mode & FMODE_WRITE) &&
	       limits->logical_block_size >= backend->block_size;
}

static long vblk_set_limits(struct vblk_dev *dev, void __user *argp)
{
	struct vhost_blk_limits limits;
	int i;

	if (copy_from_user(&limits, argp, sizeof(limits)))
		return -EFAULT;
	if (!vblk_limits_good(&limits))
		return -EINVAL;
	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		struct vblk_backend *backend = dev->queues[i]->backend;

		if (backend && !vblk_backend_allows(backend, &limits))
			return -EINVAL;
	}
	dev->limits = limits;
	dev->have_limits = true;
	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		mutex_lock(&dev->vqs[i]->mutex);
		dev->queues[i]->limits = limits;
		mutex_unlock(&dev->vqs[i]->mutex);
	}
	return 0;
}

static long vblk_set_serial(struct vblk_dev *dev, void __user *argp)
{
	int i;

	if (copy_from_user(dev->serial, argp, sizeof(dev->serial)))
		return -EFAULT;
	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		mutex_lock(&dev->vqs[i]->mutex);
		memcpy(dev->queues[i]->serial, dev->serial,
		       sizeof(dev->serial));
		mutex_unlock(&dev->vqs[i]->mutex);
	}
	return 0;
}

static long vblk_get_stats(struct vblk_dev *dev, void __user *argp)
{
	struct vhost_blk_stats stats;
	struct vblk_queue *q;
	u32 index;

	if (get_user(index, (u32 __user *)argp))
		return -EFAULT;
	q = vblk_get_queue(dev, index);
	if (!q)
		return -ENOBUFS;
	mutex_lock(&q->vq.mutex);
	stats = q->stats;
	stats.inflight = q->inflight;
	if (vhost_vq_get_backend(&q->vq))
		stats.flags |= VHOST_BLK_Q_RUNNING;
	if (q->broken)
		stats.flags |= VHOST_BLK_Q_BROKEN;
	mutex_unlock(&q->vq.mutex);
	stats.index = index;
	return copy_to_user(argp, &stats, sizeof(stats)) ? -EFAULT : 0;
}

static bool vblk_running(struct vblk_dev *dev)
{
	int i;

	for (i = 0; i < VBLK_MAX_QUEUES; i++)
		if (dev->queues[i]->backend)
			return true;
	return false;
}

static long vblk_set_backend(struct vblk_dev *dev, void __user *argp)
{
	struct vblk_backend *backend;
	struct vhost_vring_file f;
	struct vblk_queue *q;
	int r;

	if (copy_from_user(&f, argp, sizeof(f)))
		return -EFAULT;
	q = vblk_get_queue(dev, f.index);
	if (!q)
		return -ENOBUFS;
	if (f.fd == VHOST_FILE_UNBIND)
		return vblk_queue_stop(q, true);

	backend = vblk_backend_open(f.fd, &dev->limits, dev->have_limits);
	if (IS_ERR(backend))
		return PTR_ERR(backend);
	r = vblk_backend_allows(backend, &dev->limits) ? 0 : -EINVAL;
	if (!r)
		r = vblk_queue_stop(q, true);
	if (!r) {
		if (!vblk_running(dev))
			dev->lost = 0;
		mutex_lock(&q->vq.mutex);
		q->limits = dev->limits;
		mutex_unlock(&q->vq.mutex);
		r = vblk_queue_start(q, backend);
	}
	if (r)
		vblk_backend_close(backend);
	return r;
}

static int vblk_init_iotlb(struct vhost_dev *vdev)
{
#ifdef VBLK_IOTLB_ENABLED
	return vhost_init_device_iotlb(vdev, true);
#else
	return vhost_init_device_iotlb(vdev);
#endif
}

static void vblk_drop_iotlb(struct vblk_dev *dev)
{
	struct vhost_dev *vdev = &dev->vdev;
	int i;

	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		struct vhost_virtqueue *vq = dev->vqs[i];

		mutex_lock(&vq->mutex);
		vq->iotlb = NULL;
		memset(vq->meta_iotlb, 0, sizeof(vq->meta_iotlb));
		mutex_unlock(&vq->mutex);
	}
	vhost_iotlb_free(vdev->iotlb);
	vdev->iotlb = NULL;
}

/* The next driver may do without the IOMMU that this one has. */
static int vblk_set_iotlb(struct vblk_dev *dev, bool on)
{
	/* A new table would forget the entries that running queues use. */
	if (on == !!dev->vdev.iotlb)
		return 0;
	if (vblk_running(dev))
		return -EBUSY;
	if (on)
		return vblk_init_iotlb(&dev->vdev);
	vblk_drop_iotlb(dev);
	return 0;
}

static long vblk_set_features(struct vblk_dev *dev, void __user *argp)
{
	u64 features;
	int i, r;

	if (copy_from_user(&features, argp, sizeof(features)))
		return -EFAULT;
	if (features & ~VBLK_FEATURES)
		return -EOPNOTSUPP;
	if (features & (1ULL << VHOST_F_LOG_ALL) &&
	    !vhost_log_access_ok(&dev->vdev))
		return -EFAULT;
	r = vblk_set_iotlb(dev, features & (1ULL << VIRTIO_F_ACCESS_PLATFORM));
	if (r)
		return r;
	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		mutex_lock(&dev->vqs[i]->mutex);
		dev->vqs[i]->acked_features = features;
		mutex_unlock(&dev->vqs[i]->mutex);
	}
	return 0;
}

static long vblk_set_backend_features(struct vblk_dev *dev, void __user *argp)
{
	struct vhost_dev *vdev = &dev->vdev;
	u64 features;
	int i;

	if (copy_from_user(&features, argp, sizeof(features)))
		return -EFAULT;
	if (features & ~VBLK_BACKEND_FEATURES)
		return -EOPNOTSUPP;
	for (i = 0; i < VBLK_MAX_QUEUES; i++) {
		mutex_lock(&vdev->vqs[i]->mutex);
		vdev->vqs[i]->acked_backend_features = features;
		mutex_unlock(&vdev->vqs[i]->mutex);
	}
	return 0;
}

static long vblk_reset_owner(struct vblk_dev *dev)
{
	struct vhost_iotlb *umem = vhost_dev_reset_owner_prepare();
	int i;

	if (!umem)
		return -ENOMEM;
	vblk_stop_for_good(dev);
	vhost_dev_reset_owner(&dev->vdev, umem);
	for (i = 0; i < VBLK_MAX_QUEUES; i++)
		dev->queues[i]->dead = false;
	return 0;
}

/*
 * A request in flight answers at the addresses that the old table gave it, so
 * the table changes only between requests.
 */
static long vblk_set_mem_table(struct vblk_dev *dev, unsigned int cmd,
			       void __user *argp)
{
	int i, paused;
	long r = 0;

	for (paused = 0; paused < VBLK_MAX_QUEUES && !r; paused++)
		r = vblk_queue_pause(dev->queues[paused]);
	if (!r)
		r = vhost_dev_ioctl(&dev->vdev, cmd, argp);
	for (i = 0; i < paused; i++)
		vblk_queue_resume(dev->queues[i]);
	return r;
}

static long vblk_vring_ioctl(struct vblk_dev *dev, unsigned int cmd,
			     void __user *argp)
{
	struct vblk_queue *q;
	u32 index;
	int r;

	if (get_user(index, (u32 __user *)argp))
		return -EFAULT;
	q = vblk_get_queue(dev, index);
	if (!q)
		return -ENOBUFS;
	if (cmd == VHOST_GET_VRING_BASE)
		r = vblk_queue_stop(q, true);
	else
		r = vblk_queue_settle(q);
	return r ? r : vhost_vring_ioctl(&dev->vdev, cmd, argp);
}

static long vblk_owner_ioctl(struct vblk_dev *dev, unsigned int cmd,
			     void __user *argp)
{
	long r = vhost_dev_check_owner(&dev->vdev);

	if (r)
		return r;
	switch (cmd) {
	case VHOST_BLK_SET_BACKEND:
		return vblk_set_backend(dev, argp);
	case VHOST_BLK_SET_SERIAL:
		return vblk_set_serial(dev, argp);
	case VHOST_BLK_SET_LIMITS:
		return vblk_set_limits(dev, argp);
	case VHOST_BLK_GET_STATS:
		return vblk_get_stats(dev, argp);
	case VHOST_SET_FEATURES:
		return vblk_set_features(dev, argp);
	case VHOST_SET_BACKEND_FEATURES:
		return vblk_set_backend_features(dev, argp);
	case VHOST_RESET_OWNER:
		return vblk_reset_owner(dev);
	case VHOST_SET_MEM_TABLE:
		return vblk_set_mem_table(dev, cmd, argp);
#ifdef VBLK_HAVE_WORKER_IOCTL
	case VHOST_NEW_WORKER:
	case VHOST_FREE_WORKER:
	case VHOST_ATTACH_VRING_WORKER:
	case VHOST_GET_VRING_WORKER:
		return vhost_worker_ioctl(&dev->vdev, cmd, argp);
#endif
	}
	r = vhost_dev_ioctl(&dev->vdev, cmd, argp);
	if (r == -ENOIOCTLCMD)
		r = vblk_vring_ioctl(dev, cmd, argp);
	return r;
}

static long vblk_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct vblk_dev *dev = file->private_data;
	void __user *argp = (void __user *)arg;
	u64 features;
	long r;

	switch (cmd) {
	case VHOST_GET_FEATURES:
		features = VBLK_FEATURES;
		return copy_to_user(argp, &features, 8) ? -EFAULT : 0;
	case VHOST_GET_BACKEND_FEATURES:
		features = VBLK_BACKEND_FEATURES;
		return copy_to_user(argp, &features, 8) ? -EFAULT : 0;
	case VHOST_BLK_GET_INFO:
		return vblk_get_info(argp);
	}
	mutex_lock(&dev->vdev.mutex);
	if (cmd == VHOST_SET_OWNER)
		r = vhost_dev_set_owner(&dev->vdev);
	else
		r = vblk_owner_ioctl(dev, cmd, argp);
	mutex_unlock(&dev->vdev.mutex);
	return r;
}

static ssize_t vblk_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct vblk_dev *dev = iocb->ki_filp->private_data;
	bool noblock = iocb->ki_filp->f_flags & O_NONBLOCK;

	return vhost_chr_read_iter(&dev->vdev, to, noblock);
}

static ssize_t vblk_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct vblk_dev *dev = iocb->ki_filp->private_data;

	return vhost_chr_write_iter(&dev->vdev, from);
}

static __poll_t vblk_poll(struct file *file, poll_table *wait)
{
	struct vblk_dev *dev = file->private_data;

	return vhost_chr_poll(file, &dev->vdev, wait);
}

static const struct file_operations vblk_fops = {
	.owner		= THIS_MODULE,
	.open		= vblk_open,
	.release	= vblk_release,
	.unlocked_ioctl	= vblk_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.read_iter	= vblk_read_iter,
	.write_iter	= vblk_write_iter,
	.poll		= vblk_poll,
	.llseek		= noop_llseek,
};

static struct miscdevice vblk_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "vhost-blk",
	.fops	= &vblk_fops,
};

static int __init vblk_init(void)
{
	int r = vblk_request_init();

	if (r)
		return r;
	r = misc_register(&vblk_misc);
	if (r)
		vblk_request_exit();
	return r;
}

static void __exit vblk_exit(void)
{
	misc_deregister(&vblk_misc);
	vblk_request_exit();
}

module_init(vblk_init);
module_exit(vblk_exit);

MODULE_LICENSE("GPL");
MODULE_VERSION("1");
MODULE_DESCRIPTION("virtio-blk queues served by the kernel");
