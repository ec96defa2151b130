/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small virtio-blk driver that speaks to /dev/vhost-blk with no machine and
 * no guest: its "guest memory" is a mapping of this process.
 */
#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vhost.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "../../kernel/uapi/vhost_blk.h"

#define GUEST_BASE 0x40000000ULL    /* not where the process has it */
#define MEM_SIZE (64UL << 20)
#define RING_ROOM (64UL << 10)
#define DATA_START (4UL << 20)
#define MAX_QUEUES 64
#define PAGE 4096UL

#define LOG_SIZE (((GUEST_BASE + MEM_SIZE) / PAGE / 8 + PAGE - 1) / PAGE * PAGE)

#define BIT(n) (1ULL << (n))

typedef struct Queue {
    struct Device *dev;
    unsigned int index;
    unsigned int num;
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    int kick, call, err;
    uint16_t next_desc;         /* descriptors are taken round and round */
    uint16_t last_used;
    bool event_idx;
} Queue;

typedef struct Device {
    int fd;
    uint8_t *mem;
    size_t used_mem;
    uint64_t features;
    struct vhost_blk_limits limits;
    Queue queues[MAX_QUEUES];
} Device;

typedef struct Buf {
    void *p;
    uint32_t len;
    bool in;                    /* the device writes it */
} Buf;

/* The backend of this run. */
typedef struct Backend {
    const char *path;
    int flags;                  /* of open() */
    uint64_t size;
    uint32_t block_size;
    bool is_block;
    bool discard;               /* what is discarded reads as zeroes */
    bool late;                  /* answers tens of milliseconds later */
    bool late_data;             /* and moves data as late */
    bool bad_end;               /* its last MiB is bad */
    bool errors;                /* any request may fail */
    bool starved;               /* the worker's allocations fail at times */
    bool merges;
    bool counts_flushes;
    bool pulled;                /* may be pulled, in the end */
    bool zoned;
    bool reserved;              /* a part of the room is root's */
    unsigned int verify_ms;
    unsigned int noise_s, noise_seed;
    char *sys;                  /* its folder in sysfs, for block devices */
} Backend;

extern Backend backend;

/* End the test with a reason when the condition does not hold. */
#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            fail(__FILE__, __LINE__, #condition, __VA_ARGS__); \
        } \
    } while (0)

void fail(const char *file, int line, const char *what, const char *format,
          ...) __attribute__((format(printf, 4, 5), noreturn));
/* End a test that means nothing on this disk. */
void not_here(void) __attribute__((noreturn));

Device *device_open(uint64_t features);
void device_close(Device *dev);
void device_set_limits(Device *dev);
void device_set_features(Device *dev, uint64_t features);
void device_set_memory(Device *dev, uint64_t size);
/* Log what the device writes from now on; a bit a page, LOG_SIZE bytes. */
uint8_t *device_start_log(Device *dev);
void *device_alloc(Device *dev, size_t size, size_t align);
uint64_t guest_address(Device *dev, const void *p);

int open_backend(void);
Queue *queue_setup(Device *dev, unsigned int index, unsigned int num);
void queue_set_addr(Queue *q, bool log);
int queue_set_backend(Queue *q, int fd);
Queue *queue_start(Device *dev, unsigned int index, unsigned int num);
uint16_t queue_get_base(Queue *q);
int vring_file(Device *dev, unsigned long request, unsigned int index, int fd);

unsigned int queue_add(Queue *q, const Buf *bufs, unsigned int n);
unsigned int queue_add_indirect(Queue *q, const Buf *bufs, unsigned int n);
void queue_offer(Queue *q, unsigned int head);
void queue_kick(Queue *q);
bool queue_poll(Queue *q, struct vring_used_elem *elem);
struct vring_used_elem queue_wait(Queue *q);
bool eventfd_wait(int fd, int milliseconds);

/* A request as drivers lay it out: header, data, status. */
typedef struct Request {
    struct virtio_blk_outhdr *hdr;
    uint8_t *data;
    uint32_t len;
    uint8_t *status;
    unsigned int head;
    uint32_t used_len;
} Request;

Request request_make(Device *dev, uint32_t type, uint64_t sector, uint32_t len);
void request_offer(Queue *q, Request *r);
/* Offer, kick and wait; the status byte. */
uint8_t request_run(Queue *q, Request *r);
uint8_t simple(Queue *q, uint32_t type, uint64_t sector, uint32_t len);

void fill(void *p, size_t len, uint64_t sector, uint32_t seed);
void check_fill(const void *p, size_t len, uint64_t sector, uint32_t seed);
void backend_read(void *p, size_t len, uint64_t offset);
void backend_write(const void *p, size_t len, uint64_t offset);
uint64_t disk_stat(unsigned int field);

typedef struct Test {
    const char *name;
    void (*run)(void);
} Test;

extern const Test io_tests[];
extern const Test unmap_tests[];
extern const Test control_tests[];
extern const Test hostile_tests[];
extern const Test verify_tests[];

#endif
