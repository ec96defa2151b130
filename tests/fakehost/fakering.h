/*
 * fakehost: split rings, as a vhost backend sees them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef FAKERING_H
#define FAKERING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <linux/vhost.h>
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

#define FAKE_IOV    1024

typedef struct FakeDev FakeDev;
typedef struct FakeQueue FakeQueue;

typedef struct FakeRing {
    unsigned num;
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    uint64_t used_guest;            /* guest address of the used ring */
    bool log_used;
    uint16_t last_avail, last_used, signalled;
    bool signalled_valid;
} FakeRing;

/* A chain taken from a ring, and what became of it. */
typedef struct FakeChain {
    uint16_t head;
    unsigned out, in;               /* entries of iov, in this order */
    size_t out_len, in_len;
    struct iovec iov[FAKE_IOV];
    uint64_t guest[FAKE_IOV];       /* guest address of each */
    uint64_t bytes;
    size_t written;                 /* data bytes, from the start */
    bool invalid;
} FakeChain;

/* What the rings need of the device. */
const struct vhost_memory *fake_dev_memory(const FakeDev *dev);
bool fake_dev_feature(const FakeDev *dev, unsigned bit);
void fake_dev_log(FakeDev *dev, uint64_t addr, uint64_t len);

void fake_ring_place(FakeRing *ring, const struct vhost_vring_addr *addr);
void fake_ring_start(FakeRing *ring);
/* 1: @c has the next chain; 0: there is none; -1: the ring is broken. */
int fake_ring_pop(FakeRing *ring, FakeDev *dev, FakeChain *c);
void fake_ring_push(FakeRing *ring, FakeDev *dev, uint16_t head, uint32_t len);
bool fake_ring_wants_signal(FakeRing *ring, FakeDev *dev);
/* Ask for a kick; true if something came meanwhile. */
bool fake_ring_enable_notify(FakeRing *ring, FakeDev *dev);

/* Copy from what the device may read, or to what it may write, of a chain. */
void fake_chain_read(FakeChain *c, size_t offset, void *buf, size_t len);
void fake_chain_write(FakeChain *c, size_t offset, const void *buf,
                      size_t len);
/* Tell the dirty log of all that may have been written. */
void fake_chain_log(FakeChain *c, FakeDev *dev);

#endif
