/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver of ring.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define WAIT_MS 8000

static void must_ioctl(Device *dev, unsigned long request, void *arg,
                       const char *name)
{
    CHECK(ioctl(dev->fd, request, arg) == 0, "%s: %s", name, strerror(errno));
}

uint64_t guest_address(Device *dev, const void *p)
{
    return GUEST_BASE + ((const uint8_t *)p - dev->mem);
}

void device_set_memory(Device *dev, uint64_t size)
{
    struct {
        struct vhost_memory head;
        struct vhost_memory_region region;
    } table = {
        .head.nregions = 1,
        .region = {
            .guest_phys_addr = GUEST_BASE,
            .memory_size = size,
            .userspace_addr = (uintptr_t)dev->mem,
        },
    };

    must_ioctl(dev, VHOST_SET_MEM_TABLE, &table, "SET_MEM_TABLE");
}

uint8_t *device_start_log(Device *dev)
{
    uint8_t *log = aligned_alloc(PAGE, LOG_SIZE);
    uint64_t base = (uintptr_t)log;

    memset(log, 0, LOG_SIZE);
    must_ioctl(dev, VHOST_SET_LOG_BASE, &base, "SET_LOG_BASE");
    device_set_features(dev, dev->features | BIT(VHOST_F_LOG_ALL));
    for (int i = 0; i < MAX_QUEUES; i++) {
        if (dev->queues[i].dev) {
            queue_set_addr(&dev->queues[i], true);
        }
    }
    return log;
}

void device_set_features(Device *dev, uint64_t features)
{
    must_ioctl(dev, VHOST_SET_FEATURES, &features, "SET_FEATURES");
    dev->features = features;
}

void device_set_limits(Device *dev)
{
    must_ioctl(dev, VHOST_BLK_SET_LIMITS, &dev->limits, "SET_LIMITS");
}

Device *device_open(uint64_t features)
{
    Device *dev = calloc(1, sizeof(*dev));

    dev->fd = open("/dev/vhost-blk", O_RDWR | O_NONBLOCK);
    CHECK(dev->fd >= 0, "/dev/vhost-blk: %s", strerror(errno));
    dev->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(dev->mem != MAP_FAILED, "no memory");
    dev->used_mem = DATA_START;
    must_ioctl(dev, VHOST_SET_OWNER, NULL, "SET_OWNER");
    device_set_features(dev, features | BIT(VIRTIO_F_VERSION_1));
    if (!(features & BIT(VIRTIO_F_ACCESS_PLATFORM))) {
        device_set_memory(dev, MEM_SIZE);
    }
    dev->limits = (struct vhost_blk_limits) {
        .capacity = backend.size / 512,
        .logical_block_size = backend.block_size,
        .flags = (backend.flags & O_ACCMODE) == O_RDONLY ?
                 VHOST_BLK_L_READ_ONLY : 0,
        .max_discard_sectors = 8192,
        .max_discard_segments = 8,
        .max_write_zeroes_sectors = 8192,
        .max_write_zeroes_segments = 8,
    };
    device_set_limits(dev);
    return dev;
}

void device_close(Device *dev)
{
    for (int i = 0; i < MAX_QUEUES; i++) {
        if (dev->queues[i].dev) {
            close(dev->queues[i].kick);
            close(dev->queues[i].call);
            close(dev->queues[i].err);
        }
    }
    close(dev->fd);
    munmap(dev->mem, MEM_SIZE);
    free(dev);
}

void *device_alloc(Device *dev, size_t size, size_t align)
{
    void *p;

    dev->used_mem = (dev->used_mem + align - 1) / align * align;
    p = dev->mem + dev->used_mem;
    dev->used_mem += size;
    CHECK(dev->used_mem <= MEM_SIZE, "the test wants too much memory");
    return p;
}

int open_backend(void)
{
    int fd = open(backend.path, backend.flags);

    CHECK(fd >= 0, "%s: %s", backend.path, strerror(errno));
    return fd;
}

int vring_file(Device *dev, unsigned long request, unsigned int index, int fd)
{
    struct vhost_vring_file file = { .index = index, .fd = fd };

    return ioctl(dev->fd, request, &file) ? -errno : 0;
}

int queue_set_backend(Queue *q, int fd)
{
    return vring_file(q->dev, VHOST_BLK_SET_BACKEND, q->index, fd);
}

void queue_set_addr(Queue *q, bool log)
{
    bool iommu = q->dev->features & BIT(VIRTIO_F_ACCESS_PLATFORM);
    uint64_t shift = iommu ? GUEST_BASE - (uintptr_t)q->dev->mem : 0;
    struct vhost_vring_addr addr = {
        .index = q->index,
        .flags = log ? BIT(VHOST_VRING_F_LOG) : 0,
        .desc_user_addr = (uintptr_t)q->desc + shift,
        .avail_user_addr = (uintptr_t)q->avail + shift,
        .used_user_addr = (uintptr_t)q->used + shift,
        .log_guest_addr = guest_address(q->dev, q->used),
    };

    must_ioctl(q->dev, VHOST_SET_VRING_ADDR, &addr, "SET_VRING_ADDR");
}

static void queue_place(Queue *q)
{
    uint8_t *at = q->dev->mem + q->index * RING_ROOM;

    q->desc = (void *)at;
    q->avail = (void *)(at + q->num * sizeof(*q->desc));
    /* the used ring in pages of its own, for the dirty log */
    q->used = (void *)(at + RING_ROOM / 2);
}

Queue *queue_setup(Device *dev, unsigned int index, unsigned int num)
{
    struct vhost_vring_state state = { .index = index, .num = num };
    Queue *q = &dev->queues[index];

    q->dev = dev;
    q->index = index;
    q->num = num;
    q->event_idx = dev->features & BIT(VIRTIO_RING_F_EVENT_IDX);
    queue_place(q);
    must_ioctl(dev, VHOST_SET_VRING_NUM, &state, "SET_VRING_NUM");
    state.num = 0;
    must_ioctl(dev, VHOST_SET_VRING_BASE, &state, "SET_VRING_BASE");
    queue_set_addr(q, false);
    q->kick = eventfd(0, EFD_NONBLOCK);
    q->call = eventfd(0, EFD_NONBLOCK);
    q->err = eventfd(0, EFD_NONBLOCK);
    CHECK(!vring_file(dev, VHOST_SET_VRING_KICK, index, q->kick), "kick");
    CHECK(!vring_file(dev, VHOST_SET_VRING_CALL, index, q->call), "call");
    CHECK(!vring_file(dev, VHOST_SET_VRING_ERR, index, q->err), "err");
    return q;
}

Queue *queue_start(Device *dev, unsigned int index, unsigned int num)
{
    Queue *q = queue_setup(dev, index, num);
    int fd = open_backend();
    int r = queue_set_backend(q, fd);

    CHECK(r == 0, "SET_BACKEND: %s", strerror(-r));
    close(fd);
    return q;
}

uint16_t queue_get_base(Queue *q)
{
    struct vhost_vring_state state = { .index = q->index };

    must_ioctl(q->dev, VHOST_GET_VRING_BASE, &state, "GET_VRING_BASE");
    return state.num;
}

static void set_desc(Device *dev, struct vring_desc *desc, const Buf *buf,
                     int next)
{
    desc->addr = guest_address(dev, buf->p);
    desc->len = buf->len;
    desc->flags = (buf->in ? VRING_DESC_F_WRITE : 0) |
                  (next >= 0 ? VRING_DESC_F_NEXT : 0);
    desc->next = next >= 0 ? next : 0;
}

/* Write a chain of descriptors; its head. */
unsigned int queue_add(Queue *q, const Buf *bufs, unsigned int n)
{
    unsigned int head = q->next_desc % q->num;

    CHECK(n <= q->num, "%u buffers in a queue of %u", n, q->num);
    for (unsigned int i = 0; i < n; i++) {
        unsigned int at = q->next_desc++ % q->num;

        set_desc(q->dev, &q->desc[at], &bufs[i],
                 i + 1 < n ? (int)(q->next_desc % q->num) : -1);
    }
    return head;
}

unsigned int queue_add_indirect(Queue *q, const Buf *bufs, unsigned int n)
{
    unsigned int head = q->next_desc++ % q->num;
    struct vring_desc *table = device_alloc(q->dev, n * sizeof(*table), 16);

    for (unsigned int i = 0; i < n; i++) {
        set_desc(q->dev, &table[i], &bufs[i], i + 1 < n ? (int)i + 1 : -1);
    }
    q->desc[head] = (struct vring_desc) {
        .addr = guest_address(q->dev, table),
        .len = n * sizeof(*table),
        .flags = VRING_DESC_F_INDIRECT,
    };
    return head;
}

void queue_offer(Queue *q, unsigned int head)
{
    uint16_t idx = q->avail->idx;

    q->avail->ring[idx % q->num] = head;
    /* the device may look at the ring without a kick */
    __atomic_store_n(&q->avail->idx, idx + 1, __ATOMIC_RELEASE);
}

void queue_kick(Queue *q)
{
    uint64_t one = 1;

    CHECK(write(q->kick, &one, sizeof(one)) == sizeof(one), "kick");
}

bool queue_poll(Queue *q, struct vring_used_elem *elem)
{
    if (__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) == q->last_used) {
        return false;
    }
    *elem = q->used->ring[q->last_used++ % q->num];
    if (q->event_idx) {
        vring_used_event((&(struct vring) {
            .num = q->num, .avail = q->avail })) = q->last_used;
    }
    return true;
}

struct vring_used_elem queue_wait(Queue *q)
{
    struct vring_used_elem elem;

    for (int i = 0; i < WAIT_MS * 5; i++) {
        if (queue_poll(q, &elem)) {
            return elem;
        }
        usleep(200);
    }
    fail(__FILE__, __LINE__, "queue_wait", "queue %u: no completion in %d ms",
         q->index, WAIT_MS);
}

bool eventfd_wait(int fd, int milliseconds)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    uint64_t count;

    return poll(&p, 1, milliseconds) == 1 &&
           read(fd, &count, sizeof(count)) == sizeof(count);
}

Request request_make(Device *dev, uint32_t type, uint64_t sector, uint32_t len)
{
    Request r = { .len = len };

    r.hdr = device_alloc(dev, sizeof(*r.hdr), 16);
    r.hdr->type = type;
    r.hdr->ioprio = 0;
    r.hdr->sector = sector;
    r.data = device_alloc(dev, len, PAGE);
    r.status = device_alloc(dev, 1, 1);
    *r.status = 0xaa;
    return r;
}

void request_offer(Queue *q, Request *r)
{
    bool in = r->hdr->type == VIRTIO_BLK_T_IN ||
              r->hdr->type == VIRTIO_BLK_T_GET_ID;
    Buf bufs[3] = { { r->hdr, sizeof(*r->hdr), false } };
    unsigned int n = 1;

    if (r->len) {
        bufs[n++] = (Buf) { r->data, r->len, in };
    }
    bufs[n++] = (Buf) { r->status, 1, true };
    r->head = queue_add(q, bufs, n);
    queue_offer(q, r->head);
}

uint8_t request_run(Queue *q, Request *r)
{
    struct vring_used_elem elem;

    request_offer(q, r);
    queue_kick(q);
    elem = queue_wait(q);
    CHECK(elem.id == r->head, "used id %u, not %u", elem.id, r->head);
    r->used_len = elem.len;
    return *r->status;
}

uint8_t simple(Queue *q, uint32_t type, uint64_t sector, uint32_t len)
{
    Request r = request_make(q->dev, type, sector, len);

    return request_run(q, &r);
}

/* Every word tells its sector, its place in it, and the writer. */
void fill(void *p, size_t len, uint64_t sector, uint32_t seed)
{
    uint64_t *word = p;

    for (size_t i = 0; i < len / 8; i++) {
        word[i] = (sector + i / 64) << 32 ^ (uint64_t)seed << 8 ^ i % 64;
    }
}

void check_fill(const void *p, size_t len, uint64_t sector, uint32_t seed)
{
    uint64_t *want = malloc(len);

    fill(want, len, sector, seed);
    for (size_t i = 0; i < len / 8; i++) {
        CHECK(((const uint64_t *)p)[i] == want[i],
              "sector %llu byte %zu is %016llx, not %016llx",
              (unsigned long long)(sector + i / 64), i % 64 * 8,
              ((const unsigned long long *)p)[i],
              (unsigned long long)want[i]);
    }
    free(want);
}

static int open_direct(int flags)
{
    int fd = open(backend.path, flags | O_DIRECT);

    if (fd < 0 && errno == EINVAL) {        /* tmpfs */
        fd = open(backend.path, flags);
    }
    CHECK(fd >= 0, "%s: %s", backend.path, strerror(errno));
    return fd;
}

/* Past the page cache wherever that can be done. */
void backend_read(void *p, size_t len, uint64_t offset)
{
    int fd = open_direct(O_RDONLY);
    void *bounce = aligned_alloc(PAGE, (len + PAGE - 1) / PAGE * PAGE);

    CHECK(pread(fd, bounce, len, offset) == (ssize_t)len, "pread: %s",
          strerror(errno));
    memcpy(p, bounce, len);
    free(bounce);
    close(fd);
}

void backend_write(const void *p, size_t len, uint64_t offset)
{
    int fd = open_direct(O_WRONLY);
    void *bounce = aligned_alloc(PAGE, (len + PAGE - 1) / PAGE * PAGE);

    memcpy(bounce, p, len);
    CHECK(pwrite(fd, bounce, len, offset) == (ssize_t)len, "pwrite: %s",
          strerror(errno));
    free(bounce);
    close(fd);
}

/* A field, counted from 1, of the block device's statistics. */
uint64_t disk_stat(unsigned int field)
{
    unsigned long long value = 0;
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/stat", backend.sys);
    file = fopen(path, "r");
    CHECK(file, "%s: %s", path, strerror(errno));
    for (unsigned int i = 0; i < field; i++) {
        CHECK(fscanf(file, "%llu", &value) == 1, "%s is short", path);
    }
    fclose(file);
    return value;
}
