/*
 * vblk-bench: the driver's side of a virtqueue, split and packed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Single producer; the caller keeps one thread on one ring.
 */

#include <string.h>
#include <unistd.h>
#include "bench.h"

/* VIRTIO 1.3 sections 2.7 and 2.8. */
struct split_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};

struct split_driver {
    uint16_t flags;
    uint16_t idx;
    uint16_t ring[];
};

struct split_used {
    uint32_t id;
    uint32_t len;
};

struct split_device {
    uint16_t flags;
    uint16_t idx;
    struct split_used ring[];
};

struct packed_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};

struct packed_event {
    uint16_t off_wrap;
    uint16_t flags;
};

enum {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    DESC_AVAIL = 1 << 7,
    DESC_USED = 1 << 15,
    NO_NOTIFY = 1,              /* the flag of both halves of a split ring */
    EVENT_ENABLE = 0,
    EVENT_DISABLE = 1,
    EVENT_DESC = 2,
};

/* How far ahead an event index is put that is not to be met. */
#define FAR             0x8000

static inline uint16_t load16(const uint16_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void store16(uint16_t *p, uint16_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static inline void full_barrier(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Was EVENT passed on the way from OLD to NEW? (section 2.7.10) */
static inline bool passed(uint16_t event, uint16_t new, uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static uint16_t *used_event(Ring *r)
{
    struct split_driver *d = mem_at(r->mem, r->driver);

    return &d->ring[r->size];
}

static uint16_t *avail_event(Ring *r)
{
    struct split_device *d = mem_at(r->mem, r->device);

    return (uint16_t *)&d->ring[r->size];
}

static void alloc_parts(Ring *r)
{
    if (r->packed) {
        r->desc = mem_alloc(r->mem, r->size * sizeof(struct packed_desc), 4096);
        r->driver = mem_alloc(r->mem, sizeof(struct packed_event), 64);
        r->device = mem_alloc(r->mem, sizeof(struct packed_event), 64);
    } else {
        r->desc = mem_alloc(r->mem, r->size * sizeof(struct split_desc), 4096);
        r->driver = mem_alloc(r->mem, 6 + 2 * r->size, 4096);
        r->device = mem_alloc(r->mem, 6 + 8 * r->size, 4096);
    }
}

/*
 * A ring of SIZE descriptors for requests of CHAIN descriptors at most.  In a
 * direct split ring each slot owns a fixed chain.
 */
void ring_alloc(Ring *r, Mem *mem, unsigned index, unsigned size,
                unsigned slots, unsigned chain)
{
    unsigned need = r->indirect ? slots : slots * chain;

    if (size < need) {
        die("queue of %u descriptors, but depth %u needs %u; lower --depth "
            "or --segs, or use --indirect=on", size, slots, need);
    }
    r->mem = mem;
    r->index = index;
    r->size = size;
    r->chain = chain;
    r->kick_fd = r->call_fd = -1;
    r->next_wrap = r->seen_wrap = true;
    alloc_parts(r);
    r->indirect_tables = mem_alloc(mem, slots * chain * 16ull, 4096);
    r->slot_of = xalloc(size, sizeof(*r->slot_of));
}

static void fill_split(struct split_desc *d, unsigned first, const Seg *seg,
                       unsigned n_out, unsigned n_in)
{
    unsigned n = n_out + n_in;

    for (unsigned i = 0; i < n; i++) {
        d[i].addr = seg[i].addr;
        d[i].len = seg[i].len;
        d[i].flags = (i + 1 < n ? DESC_NEXT : 0) |
                     (i >= n_out ? DESC_WRITE : 0);
        d[i].next = first + i + 1;
    }
}

static void add_split(Ring *r, unsigned slot, const Seg *seg, unsigned n_out,
                      unsigned n_in)
{
    struct split_desc *d = mem_at(r->mem, r->desc);
    struct split_driver *avail = mem_at(r->mem, r->driver);
    unsigned head;

    if (r->indirect) {
        uint64_t table = r->indirect_tables + slot * r->chain * 16ull;

        head = slot;
        fill_split(mem_at(r->mem, table), 0, seg, n_out, n_in);
        d[head].addr = table;
        d[head].len = (n_out + n_in) * sizeof(*d);
        d[head].flags = DESC_INDIRECT;
    } else {
        head = slot * r->chain;
        fill_split(d + head, head, seg, n_out, n_in);
    }
    r->slot_of[head] = slot;
    avail->ring[r->next & (r->size - 1)] = head;
    r->next++;
}

static uint16_t packed_flags(bool wrap)
{
    return wrap ? DESC_AVAIL : DESC_USED;
}

static void packed_advance(Ring *r, uint16_t *at, bool *wrap, unsigned n)
{
    *at += n;
    if (*at >= r->size) {
        *at -= r->size;
        *wrap = !*wrap;
    }
}

static unsigned add_packed_indirect(Ring *r, unsigned slot, const Seg *seg,
                                    unsigned n_out, unsigned n_in,
                                    uint16_t *flags)
{
    struct packed_desc *d = mem_at(r->mem, r->desc);
    uint64_t table = r->indirect_tables + slot * r->chain * 16ull;
    struct packed_desc *t = mem_at(r->mem, table);

    for (unsigned i = 0; i < n_out + n_in; i++) {
        t[i].addr = seg[i].addr;
        t[i].len = seg[i].len;
        t[i].id = 0;
        t[i].flags = i >= n_out ? DESC_WRITE : 0;
    }
    d[r->next].addr = table;
    d[r->next].len = (n_out + n_in) * sizeof(*t);
    d[r->next].id = slot;
    *flags = packed_flags(r->next_wrap) | DESC_INDIRECT;
    packed_advance(r, &r->next, &r->next_wrap, 1);
    return 1;
}

static unsigned add_packed_direct(Ring *r, unsigned slot, const Seg *seg,
                                  unsigned n_out, unsigned n_in,
                                  uint16_t *first_flags)
{
    struct packed_desc *d = mem_at(r->mem, r->desc);
    unsigned n = n_out + n_in;

    for (unsigned i = 0; i < n; i++) {
        uint16_t flags = packed_flags(r->next_wrap) |
                         (i + 1 < n ? DESC_NEXT : 0) |
                         (i >= n_out ? DESC_WRITE : 0);

        d[r->next].addr = seg[i].addr;
        d[r->next].len = seg[i].len;
        d[r->next].id = slot;
        if (i) {
            d[r->next].flags = flags;
        } else {
            *first_flags = flags;
        }
        packed_advance(r, &r->next, &r->next_wrap, 1);
    }
    return n;
}

/* The head's flags make a packed chain available: they are written last. */
static void add_packed(Ring *r, unsigned slot, const Seg *seg, unsigned n_out,
                       unsigned n_in)
{
    struct packed_desc *d = mem_at(r->mem, r->desc);
    unsigned head = r->next;
    uint16_t flags = 0;

    r->kicked += r->indirect ?
        add_packed_indirect(r, slot, seg, n_out, n_in, &flags) :
        add_packed_direct(r, slot, seg, n_out, n_in, &flags);
    r->slot_of[slot] = n_out + n_in;
    store16(&d[head].flags, flags);
}

void ring_add(Ring *r, unsigned slot, const Seg *seg, unsigned n_out,
              unsigned n_in)
{
    if (r->packed) {
        add_packed(r, slot, seg, n_out, n_in);
    } else {
        add_split(r, slot, seg, n_out, n_in);
    }
}

static bool publish_split(Ring *r)
{
    struct split_driver *avail = mem_at(r->mem, r->driver);
    struct split_device *used = mem_at(r->mem, r->device);
    uint16_t old = r->kicked;

    store16(&avail->idx, r->next);
    full_barrier();     /* the index before the look at the device's wish */
    r->kicked = r->next;
    if (r->event_idx) {
        return passed(load16(avail_event(r)), r->next, old);
    }
    return !(load16(&used->flags) & NO_NOTIFY);
}

/* Here r->kicked counts the descriptors since the last look. */
static bool publish_packed(Ring *r)
{
    struct packed_event *e = mem_at(r->mem, r->device);
    uint16_t added = r->kicked, flags, off_wrap, event;

    full_barrier();
    r->kicked = 0;
    flags = load16(&e->flags);
    if (flags != EVENT_DESC) {
        return flags != EVENT_DISABLE;
    }
    off_wrap = load16(&e->off_wrap);
    event = off_wrap & 0x7fff;
    if ((off_wrap >> 15) != r->next_wrap) {
        event -= r->size;
    }
    return passed(event, r->next, r->next - added);
}

bool ring_publish(Ring *r)
{
    return r->packed ? publish_packed(r) : publish_split(r);
}

void ring_kick(Ring *r)
{
    uint64_t one = 1;

    if (write(r->kick_fd, &one, sizeof(one)) != sizeof(one)) {
        die("doorbell of queue %u: %m", r->index);
    }
    r->kicks++;
}

static int get_split(Ring *r, uint32_t *len)
{
    struct split_device *used = mem_at(r->mem, r->device);
    struct split_used *u = &used->ring[r->seen & (r->size - 1)];

    if (load16(&used->idx) == r->seen) {
        return -1;
    }
    if (u->id >= r->size) {
        die("queue %u: the device returned chain %u of %u", r->index, u->id,
            r->size);
    }
    *len = u->len;
    r->seen++;
    return r->slot_of[u->id];
}

static int get_packed(Ring *r, uint32_t *len)
{
    struct packed_desc *d = mem_at(r->mem, r->desc);
    uint16_t flags = load16(&d[r->seen].flags), id;

    if (!!(flags & DESC_AVAIL) != r->seen_wrap ||
        !!(flags & DESC_USED) != r->seen_wrap) {
        return -1;
    }
    id = d[r->seen].id;
    if (id >= r->size) {
        die("queue %u: the device returned buffer %u of %u", r->index, id,
            r->size);
    }
    *len = d[r->seen].len;
    packed_advance(r, &r->seen, &r->seen_wrap,
                   r->indirect ? 1 : r->slot_of[id]);
    return id;
}

int ring_get(Ring *r, uint32_t *len)
{
    return r->packed ? get_packed(r, len) : get_split(r, len);
}

/*
 * Ask for an interrupt at the next completion, or for none.  The caller looks
 * for completions once more after switching it on.
 */
void ring_irq(Ring *r, bool on)
{
    if (r->packed) {
        struct packed_event *e = mem_at(r->mem, r->driver);

        if (on && r->event_idx) {
            e->off_wrap = r->seen | r->seen_wrap << 15;
            store16(&e->flags, EVENT_DESC);
        } else {
            store16(&e->flags, on ? EVENT_ENABLE : EVENT_DISABLE);
        }
    } else if (r->event_idx) {
        store16(used_event(r), on ? r->seen : r->seen + FAR);
    } else {
        struct split_driver *d = mem_at(r->mem, r->driver);

        store16(&d->flags, on ? 0 : NO_NOTIFY);
    }
    full_barrier();
}
