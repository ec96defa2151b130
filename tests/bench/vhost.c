/*
 * vblk-bench: a disk served by the kernel's vhost-blk, without QEMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Doorbells and interrupts are eventfds of ours, as they are with KVM.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bench.h"
#include "../../kernel/uapi/vhost_blk.h"

#define QUEUE_SIZE      512

static int dev = -1;

static void control(unsigned long request, const void *arg, const char *name)
{
    if (ioctl(dev, request, arg) < 0) {
        die("/dev/vhost-blk: %s: %m", name);
    }
}

static void set_memory(const Mem *m)
{
    struct {
        struct vhost_memory head;
        struct vhost_memory_region region;
    } table = {
        .head.nregions = 1,
        .region = { .memory_size = m->size,
                    .userspace_addr = (uintptr_t)m->host },
    };

    control(VHOST_SET_MEM_TABLE, &table, "memory table");
}

static int file_of(Ring *r, unsigned long request, const char *name)
{
    struct vhost_vring_file file = { .index = r->index };

    file.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    control(request, &file, name);
    return file.fd;
}

static void set_up_queue(Device *d, unsigned n, int backend)
{
    struct vhost_vring_state state = { .index = n, .num = QUEUE_SIZE };
    struct vhost_vring_file file = { .index = n, .fd = backend };
    struct vhost_vring_addr addr = { .index = n };
    Ring *r = &d->ring[n];

    r->indirect = opt.indirect;
    r->event_idx = opt.event_idx;
    ring_alloc(r, d->mem, n, QUEUE_SIZE, opt.depth, opt.segs + 2);
    control(VHOST_SET_VRING_NUM, &state, "queue size");
    state.num = 0;
    control(VHOST_SET_VRING_BASE, &state, "queue base");
    addr.desc_user_addr = (uintptr_t)mem_at(d->mem, r->desc);
    addr.avail_user_addr = (uintptr_t)mem_at(d->mem, r->driver);
    addr.used_user_addr = (uintptr_t)mem_at(d->mem, r->device);
    control(VHOST_SET_VRING_ADDR, &addr, "queue address");
    r->kick_fd = file_of(r, VHOST_SET_VRING_KICK, "doorbell");
    r->call_fd = file_of(r, VHOST_SET_VRING_CALL, "interrupt");
    ring_irq(r, false);
    control(VHOST_BLK_SET_BACKEND, &file, opt.file);
}

static bool is_called(const char *path, const char *name)
{
    char line[64] = "";
    FILE *f = fopen(path, "r");

    if (f) {
        if (!fgets(line, sizeof(line), f)) {
            line[0] = 0;
        }
        fclose(f);
    }
    line[strcspn(line, "\n")] = 0;
    return !strcmp(line, name);
}

/*
 * The kernel names its worker after the process; it is a process of its own or,
 * from Linux 6.4 on, a thread of ours.
 */
static pid_t find_worker(pid_t *pid)
{
    char *name = format("vhost-%d", getpid());
    int tid = 0;
    glob_t all;

    if (glob("/proc/[0-9]*/task/[0-9]*/comm", 0, NULL, &all)) {
        die("no threads in /proc");
    }
    for (size_t i = 0; i < all.gl_pathc && !tid; i++) {
        if (is_called(all.gl_pathv[i], name) &&
            sscanf(all.gl_pathv[i], "/proc/%d/task/%d", pid, &tid) != 2) {
            tid = 0;
        }
    }
    globfree(&all);
    if (!tid) {
        die("no thread is called %s", name);
    }
    return tid;
}

static void pin(pid_t tid)
{
    cpu_set_t cpus;

    CPU_ZERO(&cpus);
    CPU_SET(opt.server_cpu, &cpus);
    if (sched_setaffinity(tid, sizeof(cpus), &cpus) < 0) {
        die("--server-cpu=%d: %m", opt.server_cpu);
    }
}

void vhost_start(Device *d)
{
    uint64_t features;
    int backend;

    if (opt.packed) {
        die("--packed=on: vhost-blk has split queues only");
    }
    backend = open(opt.file, O_RDWR | O_CLOEXEC |
                   (opt.direct ? O_DIRECT : 0));
    if (backend < 0) {
        die("%s: %m", opt.file);
    }
    dev = open("/dev/vhost-blk", O_RDWR | O_CLOEXEC);
    if (dev < 0) {
        die("/dev/vhost-blk: %m; modprobe vhost_blk?");
    }
    control(VHOST_SET_OWNER, NULL, "owner");
    /* the disk offers more, such as a cache, but it is not told to the ring */
    features = features_wanted() & (F_INDIRECT | F_EVENT_IDX | F_VERSION_1);
    control(VHOST_SET_FEATURES, &features, "features");
    set_memory(d->mem);
    d->features = features;
    d->queues = opt.queues;
    d->capacity = lseek(backend, 0, SEEK_END);
    for (unsigned n = 0; n < opt.queues; n++) {
        set_up_queue(d, n, backend);
    }
    close(backend);
    d->iothread[0] = find_worker(&d->pid);
    d->n_iothread = 1;
    if (opt.server_cpu >= 0) {
        pin(d->iothread[0]);
    }
}

void vhost_stop(Device *d)
{
    for (unsigned n = 0; n < d->queues; n++) {
        struct vhost_vring_state state = { .index = n };

        control(VHOST_GET_VRING_BASE, &state, "stop");
    }
    close(dev);
}
