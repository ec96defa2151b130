/*
 * fakehost: split rings, as a vhost backend sees them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <string.h>
#include "fakering.h"

#define HEADER  16                  /* bytes of a request's header */

void fake_ring_place(FakeRing *ring, const struct vhost_vring_addr *addr)
{
    ring->desc = (void *)(uintptr_t)addr->desc_user_addr;
    ring->avail = (void *)(uintptr_t)addr->avail_user_addr;
    ring->used = (void *)(uintptr_t)addr->used_user_addr;
    ring->used_guest = addr->log_guest_addr;
    ring->log_used = addr->flags & (1 << VHOST_VRING_F_LOG);
}

void fake_ring_start(FakeRing *ring)
{
    ring->last_used = ring->used->idx;
    ring->signalled_valid = false;
    ring->used->flags = 0;
}

/* Where guest address @addr is, and how much of @len from there on. */
static void *find(FakeDev *dev, uint64_t addr, uint64_t len, uint64_t *room)
{
    const struct vhost_memory *mem = fake_dev_memory(dev);

    for (unsigned i = 0; i < mem->nregions; i++) {
        const struct vhost_memory_region *r = &mem->regions[i];

        if (addr >= r->guest_phys_addr &&
            addr - r->guest_phys_addr < r->memory_size) {
            uint64_t at = addr - r->guest_phys_addr;

            *room = r->memory_size - at < len ? r->memory_size - at : len;
            return (void *)(uintptr_t)(r->userspace_addr + at);
        }
    }
    return NULL;
}

static bool add_buffer(FakeChain *c, FakeDev *dev, const struct vring_desc *d)
{
    bool in = d->flags & VRING_DESC_F_WRITE;
    uint64_t addr = d->addr, left = d->len, room;

    if (c->in && !in) {
        return false;               /* what is read comes first */
    }
    while (left) {
        void *at = find(dev, addr, left, &room);
        unsigned n = c->out + c->in;

        if (!at || n == FAKE_IOV) {
            return false;
        }
        c->iov[n] = (struct iovec) { at, room };
        c->guest[n] = addr;
        *(in ? &c->in : &c->out) += 1;
        *(in ? &c->in_len : &c->out_len) += room;
        addr += room;
        left -= room;
    }
    return true;
}

/* The descriptors of a table from @i on; -1 when they are no chain. */
static int walk(FakeChain *c, FakeDev *dev, const struct vring_desc *table,
                unsigned num, unsigned i, bool indirect)
{
    for (unsigned n = 0; n < num; n++) {
        struct vring_desc d;

        if (i >= num) {
            return -1;
        }
        d = table[i];
        if (d.flags & VRING_DESC_F_INDIRECT) {
            uint64_t room;
            struct vring_desc *inner = find(dev, d.addr, d.len, &room);

            if (indirect || !inner || room != d.len ||
                d.len % sizeof(d) || !d.len ||
                d.flags & VRING_DESC_F_NEXT) {
                return -1;
            }
            return walk(c, dev, inner, d.len / sizeof(d), 0, true);
        }
        if (!add_buffer(c, dev, &d)) {
            return -1;
        }
        if (!(d.flags & VRING_DESC_F_NEXT)) {
            return c->in_len && c->out_len >= HEADER ? 1 : -1;
        }
        i = d.next;
    }
    return -1;                      /* a loop */
}

static uint16_t avail_idx(FakeRing *ring)
{
    return __atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE);
}

int fake_ring_pop(FakeRing *ring, FakeDev *dev, FakeChain *c)
{
    uint16_t there = avail_idx(ring) - ring->last_avail;
    uint16_t head = ring->avail->ring[ring->last_avail % ring->num];

    if (!there) {
        return 0;
    }
    memset(c, 0, offsetof(FakeChain, iov));
    c->bytes = c->written = 0;
    c->invalid = false;
    c->head = head;
    if (there > ring->num || head >= ring->num ||
        walk(c, dev, ring->desc, ring->num, head, false) < 0) {
        return -1;
    }
    ring->last_avail++;
    return 1;
}

static void log_used(FakeRing *ring, FakeDev *dev, size_t offset, size_t len)
{
    if (ring->log_used) {
        fake_dev_log(dev, ring->used_guest + offset, len);
    }
}

void fake_ring_push(FakeRing *ring, FakeDev *dev, uint16_t head, uint32_t len)
{
    unsigned i = ring->last_used % ring->num;

    ring->used->ring[i].id = head;
    ring->used->ring[i].len = len;
    log_used(ring, dev, offsetof(struct vring_used, ring[i]),
             sizeof(ring->used->ring[i]));
    ring->last_used++;
    __atomic_store_n(&ring->used->idx, ring->last_used, __ATOMIC_RELEASE);
    log_used(ring, dev, offsetof(struct vring_used, idx), 2);
}

bool fake_ring_wants_signal(FakeRing *ring, FakeDev *dev)
{
    uint16_t old = ring->signalled, new = ring->last_used;
    bool valid = ring->signalled_valid;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!fake_dev_feature(dev, VIRTIO_RING_F_EVENT_IDX)) {
        return !(ring->avail->flags & VRING_AVAIL_F_NO_INTERRUPT);
    }
    ring->signalled = new;
    ring->signalled_valid = true;
    /* What the driver waits for stands behind its ring. */
    return !valid || vring_need_event(ring->avail->ring[ring->num], new, old);
}

bool fake_ring_enable_notify(FakeRing *ring, FakeDev *dev)
{
    uint16_t *event = (uint16_t *)&ring->used->ring[ring->num];

    if (fake_dev_feature(dev, VIRTIO_RING_F_EVENT_IDX)) {
        *event = ring->last_avail;
        log_used(ring, dev, (char *)event - (char *)ring->used, 2);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        return avail_idx(ring) != ring->last_avail;
    }
    return false;
}

static void copy(const struct iovec *iov, unsigned n, size_t offset,
                 char *buf, size_t len, bool to_guest)
{
    for (unsigned i = 0; i < n && len; i++) {
        size_t part = iov[i].iov_len;
        char *at = iov[i].iov_base;

        if (offset >= part) {
            offset -= part;
            continue;
        }
        part = part - offset < len ? part - offset : len;
        memcpy(to_guest ? at + offset : buf, to_guest ? buf : at + offset,
               part);
        offset = 0;
        buf += part;
        len -= part;
    }
}

void fake_chain_read(FakeChain *c, size_t offset, void *buf, size_t len)
{
    copy(c->iov, c->out, offset, buf, len, false);
}

void fake_chain_write(FakeChain *c, size_t offset, const void *buf, size_t len)
{
    copy(c->iov + c->out, c->in, offset, (char *)buf, len, true);
}

void fake_chain_log(FakeChain *c, FakeDev *dev)
{
    for (unsigned i = c->out; i < c->out + c->in; i++) {
        fake_dev_log(dev, c->guest[i], c->iov[i].iov_len);
    }
}
