/*
 * virtio-blk: opening the kernel backend, and why it can't be
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "vhost.h"

#define DEVICE "/dev/vhost-blk"

/* What every module has had; without it there is no use in going on. */
#define NEEDED (VHOST_BLK_F_BLOCK_DEV | VHOST_BLK_F_FILE | \
                VHOST_BLK_F_DISCARD | VHOST_BLK_F_WRITE_ZEROES | \
                VHOST_BLK_F_DIRTY_LOG | VHOST_BLK_F_STATS)

int virtio_blk_vhost_call(VirtIOBlkVhost *v, unsigned long request, void *arg)
{
    int fd = (uintptr_t)v->hdev.opaque;

    return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static void set_open_error(int error, Error **errp)
{
    switch (error) {
    case ENOENT:
        error_setg(errp, DEVICE " is not there; load the kernel module with "
                   "\"modprobe vhost_blk\", or use io-engine=auto");
        break;
    case ENODEV:
    case ENXIO:
        error_setg(errp, DEVICE " has no driver behind it any more; load the "
                   "kernel module with \"modprobe vhost_blk\", or use "
                   "io-engine=auto");
        break;
    case EACCES:
    case EPERM:
        error_setg(errp, "no permission to open " DEVICE "; give QEMU's user "
                   "access to it (a udev rule, and the device cgroup), pass "
                   "it open with vhostfd=, or use io-engine=auto");
        break;
    default:
        error_setg_errno(errp, error, "cannot open " DEVICE "; mend that, or "
                         "use io-engine=auto");
        break;
    }
}

static int get_fd(VirtIOBlock *s, Error **errp)
{
    int fd;

    if (s->conf.vhostfd) {
        return monitor_fd_param(monitor_cur(), s->conf.vhostfd, errp);
    }
    fd = open(DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        set_open_error(errno, errp);
    }
    return fd;
}

static const char *fd_name(VirtIOBlock *s)
{
    return s->conf.vhostfd ? "the file descriptor of vhostfd" : DEVICE;
}

/* Is it what this file was written for? */
static bool check_info(VirtIOBlock *s, int fd, struct vhost_blk_info *info,
                       Error **errp)
{
    if (ioctl(fd, VHOST_BLK_GET_INFO, info) < 0) {
        error_setg(errp, "%s is not this QEMU's vhost_blk (%s); load the "
                   "module that came with it, or use io-engine=auto",
                   fd_name(s), strerror(errno));
        return false;
    }
    if (info->abi != VHOST_BLK_ABI) {
        error_setg(errp, "the vhost_blk module has version %u of its "
                   "interface, this QEMU needs %u; load the module that came "
                   "with it, or use io-engine=auto", info->abi,
                   VHOST_BLK_ABI);
        return false;
    }
    if ((info->features & NEEDED) != NEEDED) {
        error_setg(errp, "the vhost_blk module lacks features 0x%llx that "
                   "this QEMU needs; load a newer one, or use io-engine=auto",
                   (unsigned long long)(NEEDED & ~info->features));
        return false;
    }
    if (s->conf.num_queues > info->max_queues) {
        error_setg(errp, "the vhost_blk module has at most %u queues; use "
                   "num-queues=%u, or io-engine=auto", info->max_queues,
                   info->max_queues);
        return false;
    }
    return true;
}

static void free_vhost(VirtIOBlkVhost *v)
{
    g_free(v->vqs);
    g_free(v->counted);
    g_free(v->served);
    g_free(v);
}

VirtIOBlkVhost *virtio_blk_vhost_open(VirtIOBlock *s, Error **errp)
{
    unsigned num = s->conf.num_queues;
    struct vhost_blk_info info = {};
    VirtIOBlkVhost *v;
    int fd = get_fd(s, errp);

    if (fd < 0) {
        return NULL;
    }
    if (!check_info(s, fd, &info, errp)) {
        close(fd);
        return NULL;
    }
    v = g_new0(VirtIOBlkVhost, 1);
    v->dev = s;
    v->features = info.features;
    v->vqs = g_new0(struct vhost_virtqueue, num);
    v->counted = g_new0(struct vhost_blk_stats, num);
    v->served = g_new0(bool, num);
    v->hdev.vqs = v->vqs;
    v->hdev.nvqs = num;
    /* Takes the descriptor, and closes it when it fails. */
    if (vhost_dev_init(&v->hdev, (void *)(uintptr_t)fd,
                       VHOST_BACKEND_TYPE_KERNEL, 0, errp) < 0) {
        error_prepend(errp, "%s cannot be used: ", fd_name(s));
        free_vhost(v);
        return NULL;
    }
    return v;
}

void virtio_blk_vhost_close(VirtIOBlkVhost *v)
{
    vhost_dev_cleanup(&v->hdev);
    free_vhost(v);
}
