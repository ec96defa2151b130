/*
 * virtio-blk qtests: split and packed rings, and requests on them
 *
 * x86 guests only: ring fields are little-endian on legacy devices too.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "transport.h"

#define DESC_SIZE           16
#define RING_ALIGN          4096
/* Values of the event suppression structure's flags (VIRTIO 1.4, 2.8.10). */
#define EVENT_DISABLE       1
#define EVENT_DESC          2
#define STATUS_AT           64          /* in the page with the header */

static bool is_packed(Vblk *v)
{
    return vblk_has(v, VIRTIO_F_RING_PACKED);
}

static bool has_event_idx(Vblk *v)
{
    return vblk_has(v, VIRTIO_RING_F_EVENT_IDX);
}

/* ---- memory ---- */

uint64_t vblk_alloc(Vblk *v, size_t len)
{
    uint64_t addr = guest_alloc(&v->alloc, len);

    qtest_memset(v->qts, addr, 0, len);
    return addr;
}

uint64_t vblk_put(Vblk *v, const void *data, size_t len)
{
    uint64_t addr = guest_alloc(&v->alloc, len);

    qtest_memwrite(v->qts, addr, data, len);
    return addr;
}

void vblk_free(Vblk *v, uint64_t addr)
{
    guest_free(&v->alloc, addr);
}

static void put_desc(Vblk *v, uint64_t at, uint64_t addr, uint32_t len,
                     uint16_t third, uint16_t fourth)
{
    struct {
        uint64_t addr;
        uint32_t len;
        uint16_t third, fourth;
    } QEMU_PACKED d = {
        cpu_to_le64(addr), cpu_to_le32(len),
        cpu_to_le16(third), cpu_to_le16(fourth),
    };

    qtest_memwrite(v->qts, at, &d, sizeof(d));
}

/* ---- queues ---- */

static void queue_layout(Vblk *v, VblkQueue *vq)
{
    uint64_t desc_len = vq->size * DESC_SIZE;

    if (is_packed(v)) {
        vq->mem = vblk_alloc(v, desc_len + 2 * RING_ALIGN);
        vq->desc = vq->mem;
        vq->avail = QEMU_ALIGN_UP(vq->desc + desc_len, RING_ALIGN);
        vq->used = vq->avail + 64;
        return;
    }
    vq->mem = vblk_alloc(v, desc_len + 2 * vq->size + 8 * vq->size +
                         3 * RING_ALIGN);
    vq->desc = vq->mem;
    vq->avail = vq->desc + desc_len;
    vq->used = QEMU_ALIGN_UP(vq->avail + 6 + 2 * vq->size, RING_ALIGN);
}

static void queue_state(VblkQueue *vq)
{
    vq->num_free = vq->size;
    vq->free_head = 0;
    vq->avail_idx = vq->used_idx = vq->added = 0;
    vq->avail_wrap = vq->used_wrap = true;
    vq->pending_addr = 0;
    vq->completions = vq->kicks = 0;
    vq->by_id = g_new0(VblkReq *, vq->size);
    vq->free_next = g_new(uint16_t, vq->size);
    vq->id_free = g_new(uint16_t, vq->size);
    vq->id_num_free = vq->size;
    for (unsigned i = 0; i < vq->size; i++) {
        vq->free_next[i] = i + 1;
        vq->id_free[i] = vq->size - 1 - i;
    }
    QTAILQ_INIT(&vq->reqs);
}

unsigned vblk_queue_max(Vblk *v, unsigned q)
{
    vblk_bus(v)->select(v, q);
    return vblk_bus(v)->queue_max(v);
}

void vblk_queue_setup(Vblk *v, unsigned q)
{
    VblkQueue *vq = &v->q[q];
    unsigned max = vblk_queue_max(v, q);

    g_assert_cmpint(q, <, VBLK_MAX_QUEUES);
    g_assert_cmpint(vq->size, ==, 0);
    g_assert_cmpint(max, >, 0);
    vq->index = q;
    vq->size = v->o.ring_size ?: max;
    g_assert_cmpint(vq->size, <=, max);
    queue_layout(v, vq);
    queue_state(vq);
    if (v->o.msix) {
        vblk_msix_queue(v, q + 1);
    }
    vblk_bus(v)->enable(v, vq);
}

void vblk_queues_setup(Vblk *v)
{
    for (unsigned q = 0; q < (v->o.num_queues ?: 1); q++) {
        vblk_queue_setup(v, q);
    }
}

static void req_free(VblkQueue *vq, VblkReq *req)
{
    QTAILQ_REMOVE(&vq->reqs, req, next);
    g_free(req);
}

void vblk_queue_forget(Vblk *v, unsigned q)
{
    VblkQueue *vq = &v->q[q];
    VblkReq *req, *next;

    if (!vq->size) {
        return;
    }
    QTAILQ_FOREACH_SAFE(req, &vq->reqs, next, next) {
        if (req->table) {
            vblk_free(v, req->table);
        }
        req_free(vq, req);
    }
    vblk_free(v, vq->mem);
    g_free(vq->by_id);
    g_free(vq->free_next);
    g_free(vq->id_free);
    vq->size = 0;
}

/* ---- driver side: make chains available ---- */

static uint16_t split_take(VblkQueue *vq)
{
    uint16_t slot = vq->free_head;

    g_assert_cmpint(vq->num_free, >, 0);
    vq->free_head = vq->free_next[slot];
    vq->num_free--;
    return slot;
}

static void split_give(VblkQueue *vq, uint16_t head, unsigned n)
{
    uint16_t last = head;

    for (unsigned i = 1; i < n; i++) {
        last = vq->free_next[last];
    }
    vq->free_next[last] = vq->free_head;
    vq->free_head = head;
    vq->num_free += n;
}

static void split_avail(Vblk *v, VblkQueue *vq, uint16_t head)
{
    qtest_writew(v->qts, vq->avail + 4 + 2 * (vq->avail_idx % vq->size), head);
    vq->avail_idx++;
    vq->added++;
}

void vblk_avail_push(Vblk *v, unsigned q, uint16_t head)
{
    g_assert_false(is_packed(v));
    split_avail(v, &v->q[q], head);
}

static void split_submit(Vblk *v, VblkQueue *vq, VblkReq *req,
                         const VblkRawDesc *d, unsigned n)
{
    uint16_t base = vq->free_head;

    req->head = base;
    for (unsigned i = 0; i < n; i++) {
        uint16_t slot = split_take(vq);
        /* The free list says what follows, unless the caller knows better. */
        uint16_t next = d[i].next_absolute ? d[i].next :
                        d[i].next == i + 1 ? vq->free_next[slot] :
                        base + d[i].next;

        put_desc(v, vq->desc + slot * DESC_SIZE, d[i].addr, d[i].len,
                 d[i].flags, next);
    }
    split_avail(v, vq, req->head);
}

static uint16_t packed_avail_bits(bool wrap)
{
    return wrap ? VBLK_PACKED_AVAIL : VBLK_PACKED_USED;
}

static void packed_submit(Vblk *v, VblkQueue *vq, VblkReq *req,
                          const VblkRawDesc *d, unsigned n)
{
    g_assert_cmpint(vq->num_free, >=, n);
    g_assert_cmpint(vq->id_num_free, >, 0);
    vq->num_free -= n;
    req->head = vq->id_free[--vq->id_num_free];
    for (unsigned i = 0; i < n; i++) {
        uint64_t at = vq->desc + vq->avail_idx * DESC_SIZE;
        uint16_t flags = d[i].flags | packed_avail_bits(vq->avail_wrap);

        if (!vq->pending_addr) {
            /* First of the batch: what is there now says "not available". */
            vq->pending_addr = at + 14;
            vq->pending_flags = flags;
            put_desc(v, at, d[i].addr, d[i].len, req->head,
                     flags ^ VBLK_PACKED_AVAIL ^ VBLK_PACKED_USED);
        } else {
            put_desc(v, at, d[i].addr, d[i].len, req->head, flags);
        }
        vq->added++;
        if (++vq->avail_idx == vq->size) {
            vq->avail_idx = 0;
            vq->avail_wrap = !vq->avail_wrap;
        }
    }
}

VblkReq *vblk_submit_raw(Vblk *v, unsigned q, const VblkRawDesc *d, unsigned n)
{
    VblkQueue *vq = &v->q[q];
    VblkReq *req = g_new0(VblkReq, 1);

    g_assert_cmpint(vq->size, >, 0);
    g_assert_cmpint(n, >, 0);
    req->queue = q;
    req->ndesc = n;
    if (is_packed(v)) {
        packed_submit(v, vq, req, d, n);
    } else {
        split_submit(v, vq, req, d, n);
    }
    g_assert_null(vq->by_id[req->head]);
    vq->by_id[req->head] = req;
    QTAILQ_INSERT_TAIL(&vq->reqs, req, next);
    return req;
}

uint64_t vblk_put_table(Vblk *v, const VblkRawDesc *d, unsigned n)
{
    uint64_t table = guest_alloc(&v->alloc, n * DESC_SIZE);

    for (unsigned i = 0; i < n; i++) {
        if (is_packed(v)) {
            put_desc(v, table + i * DESC_SIZE, d[i].addr, d[i].len, 0,
                     d[i].flags & ~VRING_DESC_F_NEXT);
        } else {
            put_desc(v, table + i * DESC_SIZE, d[i].addr, d[i].len,
                     d[i].flags, d[i].next);
        }
    }
    return table;
}

VblkReq *vblk_submit(Vblk *v, unsigned q, const VblkSeg *out, unsigned nout,
                     const VblkSeg *in, unsigned nin)
{
    unsigned n = nout + nin;
    g_autofree VblkRawDesc *d = g_new0(VblkRawDesc, n);
    VblkReq *req;

    for (unsigned i = 0; i < n; i++) {
        const VblkSeg *seg = i < nout ? &out[i] : &in[i - nout];

        d[i].addr = seg->addr;
        d[i].len = seg->len;
        d[i].flags = (i < nout ? 0 : VRING_DESC_F_WRITE) |
                     (i + 1 < n ? VRING_DESC_F_NEXT : 0);
        d[i].next = i + 1;
    }
    if (v->o.indirect && n > 1 && vblk_has(v, VIRTIO_RING_F_INDIRECT_DESC)) {
        VblkRawDesc one = {
            .addr = vblk_put_table(v, d, n),
            .len = n * DESC_SIZE,
            .flags = VRING_DESC_F_INDIRECT,
        };

        req = vblk_submit_raw(v, q, &one, 1);
        req->table = one.addr;
        return req;
    }
    return vblk_submit_raw(v, q, d, n);
}

void vblk_publish(Vblk *v, unsigned q)
{
    VblkQueue *vq = &v->q[q];

    if (!is_packed(v)) {
        qtest_writew(v->qts, vq->avail + 2, vq->avail_idx);
    } else if (vq->pending_addr) {
        qtest_writew(v->qts, vq->pending_addr, vq->pending_flags);
        vq->pending_addr = 0;
    }
}

/* Was @event passed on the way from @old to @now?  (VIRTIO 1.4, 2.7.10.1) */
static bool event_passed(uint16_t event, uint16_t now, uint16_t old)
{
    return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

static bool split_wants_kick(Vblk *v, VblkQueue *vq)
{
    if (has_event_idx(v)) {
        uint16_t event = qtest_readw(v->qts, vq->used + 4 + 8 * vq->size);

        return event_passed(event, vq->avail_idx, vq->avail_idx - vq->added);
    }
    return !(qtest_readw(v->qts, vq->used) & VRING_USED_F_NO_NOTIFY);
}

static bool packed_wants_kick(Vblk *v, VblkQueue *vq)
{
    uint32_t both = qtest_readl(v->qts, vq->used);
    uint16_t flags = both >> 16;
    uint16_t event = both & 0x7fff;

    if (flags != EVENT_DESC) {
        return flags != EVENT_DISABLE;
    }
    if (!!(both & 0x8000) != vq->avail_wrap) {
        event -= vq->size;
    }
    return event_passed(event, vq->avail_idx, vq->avail_idx - vq->added);
}

void vblk_notify(Vblk *v, unsigned q)
{
    v->q[q].kicks++;
    vblk_bus(v)->notify(v, &v->q[q]);
}

bool vblk_kick(Vblk *v, unsigned q)
{
    VblkQueue *vq = &v->q[q];
    bool wanted;

    vblk_publish(v, q);
    wanted = is_packed(v) ? packed_wants_kick(v, vq) : split_wants_kick(v, vq);
    vq->added = 0;
    if (wanted) {
        vblk_notify(v, q);
    }
    return wanted;
}

/* ---- driver side: take back what is used ---- */

static void complete(Vblk *v, VblkQueue *vq, uint32_t id, uint32_t len)
{
    VblkReq *req;

    g_assert_cmpint(id, <, vq->size);
    req = vq->by_id[id];
    /* Neither a chain that was never made available nor one a second time. */
    g_assert_nonnull(req);
    g_assert_false(req->done);
    vq->by_id[id] = NULL;
    req->done = true;
    req->used_len = len;
    req->order = ++vq->completions;
    if (is_packed(v)) {
        vq->num_free += req->ndesc;
        vq->id_free[vq->id_num_free++] = id;
    } else {
        split_give(vq, id, req->ndesc);
    }
}

static bool split_poll_one(Vblk *v, VblkQueue *vq)
{
    uint64_t at = vq->used + 4 + 8 * (vq->used_idx % vq->size);

    if (qtest_readw(v->qts, vq->used + 2) == vq->used_idx) {
        return false;
    }
    complete(v, vq, qtest_readl(v->qts, at), qtest_readl(v->qts, at + 4));
    vq->used_idx++;
    return true;
}

static bool packed_poll_one(Vblk *v, VblkQueue *vq)
{
    uint64_t at = vq->desc + vq->used_idx * DESC_SIZE;
    uint16_t flags = qtest_readw(v->qts, at + 14);
    bool avail = flags & VBLK_PACKED_AVAIL, used = flags & VBLK_PACKED_USED;
    uint16_t id, skip;

    if (avail != used || used != vq->used_wrap) {
        return false;
    }
    id = qtest_readw(v->qts, at + 12);
    g_assert_cmpint(id, <, vq->size);
    skip = vq->by_id[id] ? vq->by_id[id]->ndesc : 0;
    complete(v, vq, id, qtest_readl(v->qts, at + 8));
    vq->used_idx += skip;
    if (vq->used_idx >= vq->size) {
        vq->used_idx -= vq->size;
        vq->used_wrap = !vq->used_wrap;
    }
    return true;
}

/* Ask for an interrupt with the next completion. */
static void arm_interrupt(Vblk *v, VblkQueue *vq)
{
    if (is_packed(v)) {
        qtest_writel(v->qts, vq->avail, vq->used_idx |
                     (uint32_t)vq->used_wrap << 15 | EVENT_DESC << 16);
    } else {
        qtest_writew(v->qts, vq->avail + 4 + 2 * vq->size, vq->used_idx);
    }
}

uint64_t vblk_completions(Vblk *v, unsigned q)
{
    VblkQueue *vq = &v->q[q];
    bool any = false;

    while (is_packed(v) ? packed_poll_one(v, vq) : split_poll_one(v, vq)) {
        any = true;
    }
    if (any && has_event_idx(v) && !v->o.keep_used_event) {
        arm_interrupt(v, vq);
    }
    return vq->completions;
}

bool vblk_done(Vblk *v, VblkReq *req)
{
    vblk_completions(v, req->queue);
    return req->done;
}

void vblk_wait(Vblk *v, VblkReq *req, uint32_t *used_len)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (!vblk_done(v, req)) {
        if (g_get_monotonic_time() > end) {
            vblk_fail("queue %u: chain %u not completed after %d ms",
                    req->queue, req->head, VBLK_WAIT_MS);
        }
        g_usleep(20);
    }
    if (used_len) {
        *used_len = req->used_len;
    }
    if (req->table) {
        vblk_free(v, req->table);
    }
    req_free(&v->q[req->queue], req);
}

void vblk_expect_pending(Vblk *v, VblkReq *req, unsigned ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;

    do {
        g_assert_false(vblk_done(v, req));
        g_usleep(500);
    } while (g_get_monotonic_time() < end);
}

/* ---- whole requests ---- */

bool vblk_type_is_in(uint32_t type)
{
    return !(type & VIRTIO_BLK_T_OUT) && type != VIRTIO_BLK_T_FLUSH &&
           type != VIRTIO_BLK_T_SECURE_ERASE;
}

VblkIo *vblk_io(Vblk *v, unsigned q, uint32_t type, uint64_t sector,
                const void *data, uint32_t len)
{
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(type),
        .sector = cpu_to_le64(sector),
    };
    VblkIo *io = g_new0(VblkIo, 1);
    VblkSeg out[2], in[2];
    unsigned nout = 1, nin = 0;

    io->type = type;
    io->len = len;
    io->hdr = vblk_put(v, &hdr, sizeof(hdr));
    io->status = io->hdr + STATUS_AT;
    qtest_writeb(v->qts, io->status, VBLK_S_UNTOUCHED);
    out[0] = (VblkSeg) { io->hdr, sizeof(hdr) };
    if (len) {
        io->data = data ? vblk_put(v, data, len) : vblk_alloc(v, len);
        if (vblk_type_is_in(type)) {
            in[nin++] = (VblkSeg) { io->data, len };
        } else {
            out[nout++] = (VblkSeg) { io->data, len };
        }
    }
    in[nin++] = (VblkSeg) { io->status, 1 };
    io->req = vblk_submit(v, q, out, nout, in, nin);
    return io;
}

bool vblk_io_done(Vblk *v, VblkIo *io)
{
    return vblk_done(v, io->req);
}

uint8_t vblk_io_status(Vblk *v, VblkIo *io)
{
    return qtest_readb(v->qts, io->status);
}

void vblk_io_abandon(Vblk *v, VblkIo *io)
{
    vblk_free(v, io->hdr);
    if (io->data) {
        vblk_free(v, io->data);
    }
    g_free(io);
}

uint8_t vblk_io_finish(Vblk *v, VblkIo *io, void *data, uint32_t *used)
{
    uint8_t status;

    vblk_wait(v, io->req, used);
    status = vblk_io_status(v, io);
    if (data && io->len && vblk_type_is_in(io->type)) {
        qtest_memread(v->qts, io->data, data, io->len);
    }
    vblk_io_abandon(v, io);
    return status;
}

uint8_t vblk_io_wait(Vblk *v, VblkIo *io, void *data)
{
    return vblk_io_finish(v, io, data, NULL);
}

uint8_t vblk_cmd(Vblk *v, unsigned q, uint32_t type, uint64_t sector,
                 void *data, uint32_t len, uint32_t *used)
{
    VblkIo *io = vblk_io(v, q, type, sector, data, len);

    vblk_kick(v, q);
    return vblk_io_finish(v, io, data, used);
}

uint8_t vblk_read(Vblk *v, uint64_t sector, void *data, uint32_t len)
{
    return vblk_cmd(v, 0, VIRTIO_BLK_T_IN, sector, data, len, NULL);
}

uint8_t vblk_write(Vblk *v, uint64_t sector, const void *data, uint32_t len)
{
    return vblk_cmd(v, 0, VIRTIO_BLK_T_OUT, sector, (void *)data, len, NULL);
}

uint8_t vblk_flush(Vblk *v)
{
    return vblk_cmd(v, 0, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL);
}

void vblk_pattern(void *data, size_t len, uint32_t seed)
{
    uint8_t *p = data;
    uint32_t x = seed * 2654435761u + 1;

    for (size_t i = 0; i < len; i++) {
        x = x * 1103515245u + 12345;
        p[i] = x >> 16;
    }
}

void vblk_check_io(Vblk *v, unsigned q)
{
    static uint32_t seed = 1;
    uint32_t len = MAX(vblk_cfg(v, blk_size), 4096);
    g_autofree uint8_t *data = g_malloc(len), *back = g_malloc0(len);
    uint64_t sector = q * (len / VBLK_SECTOR);

    vblk_pattern(data, len, seed++);
    g_assert_cmpint(vblk_cmd(v, q, VIRTIO_BLK_T_OUT, sector, data, len, NULL),
                    ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(vblk_cmd(v, q, VIRTIO_BLK_T_IN, sector, back, len, NULL),
                    ==, VIRTIO_BLK_S_OK);
    g_assert_cmpmem(data, len, back, len);
}

void vblk_recover(Vblk *v)
{
    vblk_setup(v);
    vblk_check_io(v, 0);
}

/* ---- chains built descriptor by descriptor ---- */

uint64_t vblk_chain_out(Vblk *v, VblkChain *c, const void *data, uint32_t len)
{
    uint64_t addr = vblk_put(v, data, len);

    g_assert_cmpint(c->nout, <, VBLK_CHAIN_MAX);
    c->out[c->nout++] = (VblkSeg) { addr, len };
    return addr;
}

uint64_t vblk_chain_in(Vblk *v, VblkChain *c, uint32_t len)
{
    uint64_t addr = guest_alloc(&v->alloc, len);

    g_assert_cmpint(c->nin, <, VBLK_CHAIN_MAX);
    qtest_memset(v->qts, addr, VBLK_FILL, len);
    c->in[c->nin++] = (VblkSeg) { addr, len };
    return addr;
}

void vblk_chain_header(Vblk *v, VblkChain *c, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(type),
        .sector = cpu_to_le64(sector),
    };

    vblk_chain_out(v, c, &hdr, sizeof(hdr));
}

void vblk_chain_status(Vblk *v, VblkChain *c)
{
    c->status = vblk_chain_in(v, c, 1);
    qtest_writeb(v->qts, c->status, VBLK_S_UNTOUCHED);
}

VblkReq *vblk_chain_submit(Vblk *v, unsigned q, const VblkChain *c)
{
    return vblk_submit(v, q, c->out, c->nout, c->in, c->nin);
}

uint8_t vblk_chain_run(Vblk *v, unsigned q, const VblkChain *c,
                       uint32_t *used)
{
    VblkReq *req = vblk_chain_submit(v, q, c);

    vblk_kick(v, q);
    vblk_wait(v, req, used);
    return c->status ? qtest_readb(v->qts, c->status) : VBLK_S_UNTOUCHED;
}

bool vblk_mem_is(Vblk *v, uint64_t addr, uint8_t val, uint32_t len)
{
    g_autofree uint8_t *data = g_malloc(len);

    qtest_memread(v->qts, addr, data, len);
    for (uint32_t i = 0; i < len; i++) {
        if (data[i] != val) {
            return false;
        }
    }
    return true;
}
