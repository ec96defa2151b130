/*
 * vblk-bench: the loads, and the threads that drive the rings with them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"

/* Spins between two looks at the clock, when nothing completes. */
#define SPINS           (1 << 16)
#define CELL            64      /* bytes of header, range and status */
#define CELL_RANGE      16
#define CELL_STATUS     32
#define MAX_SEGS        130

typedef struct Load {
    const char *name;
    unsigned read_percent;
    uint32_t other;         /* what the rest of the requests are */
    bool sequential;
    unsigned flush_every;   /* each Nth request is a flush; 0: none */
} Load;

static const Load loads[] = {
    { "randread",    100, REQ_IN,           false, 0 },
    { "read",        100, REQ_IN,           true,  0 },
    { "randwrite",   0,   REQ_OUT,          false, 0 },
    { "write",       0,   REQ_OUT,          true,  0 },
    { "randrw",      70,  REQ_OUT,          false, 0 },
    { "flush",       0,   REQ_OUT,          false, 4 },
    { "discard",     0,   REQ_DISCARD,      false, 0 },
    { "writezeroes", 0,   REQ_WRITE_ZEROES, false, 0 },
    { "trimmix",     40,  REQ_DISCARD,      false, 16 },
};

typedef struct Slot {
    Op op;
    uint64_t start;
} Slot;

typedef struct Queue {
    Ring *ring;
    Mem *mem;
    Stream stream;
    Verify *verify;
    uint64_t data, cells;
    Slot slot[MAX_DEPTH];
    uint16_t free[MAX_DEPTH];
    unsigned n_free;
    uint64_t submitted, limit;
    _Atomic uint64_t done;
} Queue;

typedef struct Worker {
    pthread_t thread;
    unsigned index;
    Queue *queue[MAX_QUEUES];
    unsigned n_queue;
    uint64_t hist[HIST_BUCKETS];
    _Atomic uint64_t cpu;           /* of the thread, at its end */
} Worker;

static const Load *load;
static atomic_bool stop, measuring;

/* ---- what to do next ---- */

void load_check(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(loads); i++) {
        if (!strcmp(loads[i].name, opt.load)) {
            load = &loads[i];
        }
    }
    if (!load) {
        die("no load %s; see vblk-bench --help", opt.load);
    }
    if (opt.segs > MAX_SEGS - 2 || opt.bs % (opt.segs * SECTOR)) {
        die("--segs=%u does not divide %llu bytes into sectors", opt.segs,
            (unsigned long long)opt.bs);
    }
}

uint64_t features_wanted(void)
{
    return F_VERSION_1 | F_FLUSH |
           (opt.event_idx ? F_EVENT_IDX : 0) |
           (opt.indirect ? F_INDIRECT : 0) |
           (opt.packed ? F_PACKED : 0) |
           (opt.queues > 1 ? F_MQ : 0) |
           (load->other == REQ_DISCARD ? F_DISCARD : 0) |
           (load->other == REQ_WRITE_ZEROES ? F_WRITE_ZEROES : 0);
}

/*
 * Each queue has a part of the device for itself: sequential streams do not
 * meet, and verification needs no locks.
 */
void stream_init(Stream *s, unsigned index, unsigned of, uint64_t capacity)
{
    uint64_t blocks = MIN(capacity, opt.region) / opt.bs / of;

    if (!blocks) {
        die("the device is too small for %u queues of %llu bytes", of,
            (unsigned long long)opt.bs);
    }
    memset(s, 0, sizeof(*s));
    s->rng = 0x9e3779b97f4a7c15ull * (index + 1);
    s->blocks = blocks;
    s->base = index * blocks * opt.bs;
}

static uint64_t random_number(Stream *s)
{
    s->rng ^= s->rng << 13;
    s->rng ^= s->rng >> 7;
    s->rng ^= s->rng << 17;
    return s->rng;
}

static uint64_t random_block(Stream *s)
{
    return (random_number(s) >> 16) % s->blocks;
}

Op stream_next(Stream *s)
{
    Op op;

    s->n++;
    if (load->flush_every && s->n % load->flush_every == 0) {
        return (Op) { REQ_FLUSH, 0 };
    }
    op.type = load->other;
    if (load->read_percent == 100 ||
        (load->read_percent &&
         (random_number(s) >> 16) % 100 < load->read_percent)) {
        op.type = REQ_IN;
    }
    if (load->sequential) {
        op.offset = s->at;
        s->at = s->at + 1 < s->blocks ? s->at + 1 : 0;
    } else {
        op.offset = random_block(s);
    }
    op.offset = s->base + op.offset * opt.bs;
    return op;
}

/* ---- latency ---- */

/* 1/32 of an octave wide, exact below 32 ns. */
void hist_add(uint64_t *hist, uint64_t ns)
{
    unsigned octave;

    if (ns < HIST_SUB) {
        hist[ns]++;
        return;
    }
    octave = 63 - __builtin_clzll(ns) - 4;
    hist[octave * HIST_SUB + ((ns >> (octave - 1)) & (HIST_SUB - 1))]++;
}

static uint64_t bucket_value(unsigned i)
{
    unsigned octave = i / HIST_SUB, sub = i % HIST_SUB;

    return octave ? (uint64_t)(HIST_SUB + sub) << (octave - 1) : sub;
}

uint64_t hist_value(const Result *r, double quantile)
{
    uint64_t total = 0, seen = 0;

    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        total += r->hist[i];
    }
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += r->hist[i];
        if (seen && seen >= quantile * total) {
            return bucket_value(i);
        }
    }
    return 0;
}

/* ---- one request ---- */

static void submit(Queue *q, uint64_t now)
{
    unsigned slot = q->free[q->n_free - 1], n_seg = 0, n_out;
    uint64_t cell = q->cells + slot * CELL, data = q->data + slot * opt.bs;
    struct req_header *h = mem_at(q->mem, cell);
    uint32_t step = opt.bs / opt.segs;
    Seg seg[MAX_SEGS];
    Op op = stream_next(&q->stream);

    if (q->verify) {
        while (op.type != REQ_FLUSH && verify_busy(q->verify, op.offset)) {
            op = stream_next(&q->stream);
        }
        verify_start(q->verify, &op, mem_at(q->mem, data));
    }
    h->type = op.type;
    h->sector = op.type == REQ_IN || op.type == REQ_OUT ?
                op.offset / SECTOR : 0;
    seg[n_seg++] = (Seg) { cell, sizeof(*h) };
    if (op.type == REQ_IN || op.type == REQ_OUT) {
        for (unsigned i = 0; i < opt.segs; i++) {
            seg[n_seg++] = (Seg) { data + i * step, step };
        }
    } else if (op.type != REQ_FLUSH) {
        struct req_range *r = mem_at(q->mem, cell + CELL_RANGE);

        *r = (struct req_range) { op.offset / SECTOR, opt.bs / SECTOR, 0 };
        seg[n_seg++] = (Seg) { cell + CELL_RANGE, sizeof(*r) };
    }
    n_out = op.type == REQ_IN ? 1 : n_seg;
    seg[n_seg++] = (Seg) { cell + CELL_STATUS, 1 };
    *(uint8_t *)mem_at(q->mem, cell + CELL_STATUS) = 0xff;
    q->slot[slot] = (Slot) { op, now };
    q->n_free--;
    q->submitted++;
    ring_add(q->ring, slot, seg, n_out, n_seg - n_out);
}

static void complete(Queue *q, unsigned slot, uint32_t len)
{
    uint64_t cell = q->cells + slot * CELL;
    Op *op = &q->slot[slot].op;
    uint8_t status = *(uint8_t *)mem_at(q->mem, cell + CELL_STATUS);

    if (status) {
        die("request type %u at byte %llu of queue %u: status %u", op->type,
            (unsigned long long)op->offset, q->ring->index, status);
    }
    if (q->verify) {
        verify_done(q->verify, op, mem_at(q->mem, q->data + slot * opt.bs),
                    len);
    }
    q->free[q->n_free++] = slot;
}

/* Outside of any load: send GET_ID and look until it is completed. */
void get_id(Ring *r)
{
    uint64_t end = now_ns() + opt.timeout * NS_PER_S;
    uint64_t at = mem_alloc(r->mem, 64, 64);
    struct req_header *h = mem_at(r->mem, at);
    Seg seg[] = { { at, sizeof(*h) }, { at + 16, 20 }, { at + 36, 1 } };
    uint32_t len;

    h->type = REQ_GET_ID;
    ring_add(r, 0, seg, 1, 2);
    if (ring_publish(r)) {
        ring_kick(r);
    }
    while (ring_get(r, &len) < 0) {
        child_check("answer to a request", end);
        usleep(100);
    }
}

/* ---- one thread ---- */

static bool wants_more(Queue *q)
{
    return q->submitted < q->limit &&
           !atomic_load_explicit(&stop, memory_order_relaxed);
}

static bool refill(Queue *q)
{
    uint64_t now;

    if (q->n_free < opt.batch || !wants_more(q)) {
        return false;
    }
    now = now_ns();
    while (q->n_free && q->submitted < q->limit) {
        submit(q, now);
    }
    if (ring_publish(q->ring)) {
        ring_kick(q->ring);
    }
    return true;
}

static bool reap(Worker *w, Queue *q)
{
    bool measure = atomic_load_explicit(&measuring, memory_order_relaxed);
    uint32_t len;
    uint64_t now = 0, n = 0;
    int slot;

    while ((slot = ring_get(q->ring, &len)) >= 0) {
        if (!n++) {
            now = now_ns();
        }
        if (measure) {
            hist_add(w->hist, now - q->slot[slot].start);
        }
        complete(q, slot, len);
    }
    if (n) {
        atomic_store_explicit(&q->done, q->done + n, memory_order_relaxed);
        if (opt.wait == WAIT_POLL && opt.event_idx) {
            ring_irq(q->ring, false);
        }
    }
    return n;
}

static bool busy(const Worker *w)
{
    for (unsigned i = 0; i < w->n_queue; i++) {
        if (w->queue[i]->n_free < opt.depth || wants_more(w->queue[i])) {
            return true;
        }
    }
    return false;
}

static void stuck(const Worker *w)
{
    const Queue *q = w->queue[0];

    for (unsigned i = 0; i < w->n_queue; i++) {
        if (w->queue[i]->n_free < opt.depth) {
            q = w->queue[i];
        }
    }
    die("queue %u: no completion for %u s, %u requests in flight",
        q->ring->index, opt.timeout, opt.depth - q->n_free);
}

static void spin(Worker *w, uint64_t *idle_since, unsigned *spins)
{
    __builtin_ia32_pause();
    if (++*spins < SPINS) {
        return;
    }
    *spins = 0;
    if (!*idle_since) {
        *idle_since = now_ns();
    } else if (now_ns() - *idle_since > opt.timeout * NS_PER_S) {
        stuck(w);
    }
}

/* Sleep until one of the queues interrupts; false: look again at once. */
static bool sleep_for_irq(Worker *w)
{
    struct pollfd p[MAX_QUEUES];
    uint64_t count;

    for (unsigned i = 0; i < w->n_queue; i++) {
        p[i] = (struct pollfd) { w->queue[i]->ring->call_fd, POLLIN };
        ring_irq(w->queue[i]->ring, true);
    }
    for (unsigned i = 0; i < w->n_queue; i++) {
        if (reap(w, w->queue[i])) {
            return false;
        }
    }
    if (poll(p, w->n_queue, opt.timeout * 1000) == 0) {
        stuck(w);
    }
    for (unsigned i = 0; i < w->n_queue; i++) {
        ring_irq(w->queue[i]->ring, false);
        if ((p[i].revents & POLLIN) &&
            read(p[i].fd, &count, sizeof(count)) == sizeof(count)) {
            w->queue[i]->ring->irqs += count;
        }
    }
    return true;
}

static void *work(void *opaque)
{
    Worker *w = opaque;
    uint64_t idle_since = 0;
    unsigned spins = 0;

    pin_thread(w->index);
    while (busy(w)) {
        bool progress = false;

        for (unsigned i = 0; i < w->n_queue; i++) {
            progress |= reap(w, w->queue[i]);
            progress |= refill(w->queue[i]);
        }
        if (progress) {
            idle_since = spins = 0;
        } else if (opt.wait == WAIT_IRQ) {
            sleep_for_irq(w);
        } else {
            spin(w, &idle_since, &spins);
        }
    }
    w->cpu = thread_cpu_ns(getpid(), gettid());
    return NULL;
}

/* ---- a run ---- */

static Queue *new_queue(Device *d, unsigned n)
{
    Queue *q = xalloc(1, sizeof(*q));

    q->ring = &d->ring[n];
    q->mem = d->mem;
    q->data = mem_alloc(d->mem, opt.depth * opt.bs, 4096);
    q->cells = mem_alloc(d->mem, opt.depth * CELL, 4096);
    memset(mem_at(d->mem, q->data), 0x5a, opt.depth * opt.bs);
    stream_init(&q->stream, n, opt.queues, d->capacity);
    for (unsigned i = 0; i < opt.depth; i++) {
        q->free[q->n_free++] = opt.depth - 1 - i;
    }
    if (opt.verify) {
        q->verify = verify_new(q->stream.base, q->stream.blocks);
    }
    return q;
}

typedef struct Snapshot {
    uint64_t t, done, kicks, irqs, merged;
    uint64_t cpu_iothread, cpu_process, cpu_driver, system_ticks;
} Snapshot;

/* While the rings run; counters of another thread may lag by a request. */
static Snapshot snapshot(Device *d, Queue **queue)
{
    Snapshot s = { 0 };

    for (unsigned i = 0; i < d->queues; i++) {
        s.done += atomic_load(&queue[i]->done);
        s.kicks += __atomic_load_n(&d->ring[i].kicks, __ATOMIC_RELAXED);
        s.irqs += __atomic_load_n(&d->ring[i].irqs, __ATOMIC_RELAXED);
    }
    for (unsigned i = 0; i < d->n_iothread; i++) {
        s.cpu_iothread += thread_cpu_ns(d->pid, d->iothread[i]);
        s.system_ticks += thread_system_ticks(d->pid, d->iothread[i]);
    }
    s.cpu_process = process_cpu_ns(d->pid);
    s.cpu_driver = process_cpu_ns(getpid());
    s.t = now_ns();
    return s;
}

static void start_workers(Worker *w, Queue **queue)
{
    memset(w, 0, opt.threads * sizeof(*w));
    for (unsigned i = 0; i < opt.queues; i++) {
        Worker *mine = &w[i % opt.threads];

        mine->queue[mine->n_queue++] = queue[i];
    }
    for (unsigned i = 0; i < opt.threads; i++) {
        w[i].index = i;
        if (pthread_create(&w[i].thread, NULL, work, &w[i])) {
            die("cannot start a thread");
        }
    }
}

static uint64_t join_workers(Worker *w, Result *res)
{
    uint64_t cpu = 0;

    for (unsigned i = 0; i < opt.threads; i++) {
        pthread_join(w[i].thread, NULL);
        cpu += w[i].cpu;
        for (unsigned j = 0; res && j < HIST_BUCKETS; j++) {
            res->hist[j] += w[i].hist[j];
        }
    }
    return cpu;
}

/*
 * One pass over all blocks with one type of request, not measured: by polling,
 * as QEMU's main thread may be there to take the interrupts.
 */
static void whole_device(Queue **queue, uint32_t type)
{
    static Worker w[MAX_QUEUES];
    const Load pass = { "pass", type == REQ_IN ? 100 : 0, type, true, 0 };
    const Load *saved = load;
    Wait wait = opt.wait;

    load = &pass;
    opt.wait = WAIT_POLL;
    for (unsigned i = 0; i < opt.queues; i++) {
        queue[i]->stream.at = 0;
        queue[i]->limit = queue[i]->submitted + queue[i]->stream.blocks;
    }
    start_workers(w, queue);
    join_workers(w, NULL);
    for (unsigned i = 0; i < opt.queues; i++) {
        queue[i]->stream.at = 0;
    }
    load = saved;
    opt.wait = wait;
}

static void differences(Result *res, const Snapshot *a, const Snapshot *b)
{
    res->seconds = (b->t - a->t) / (double)NS_PER_S;
    res->ios = b->done - a->done;
    res->bytes = res->ios * opt.bs;
    res->kicks = b->kicks - a->kicks;
    res->irqs = b->irqs - a->irqs;
    res->cpu_iothread = b->cpu_iothread - a->cpu_iothread;
    res->cpu_process = b->cpu_process - a->cpu_process;
    res->system_ticks = b->system_ticks - a->system_ticks;
    res->cpu_driver = b->cpu_driver - a->cpu_driver;
}

static void timed_run(Device *d, Queue **queue, Result *res)
{
    static Worker w[MAX_QUEUES];
    Snapshot a, b;

    for (unsigned i = 0; i < opt.queues; i++) {
        queue[i]->limit = opt.count ? queue[i]->submitted + opt.count :
                          UINT64_MAX;
    }
    a = snapshot(d, queue);
    measuring = opt.count;
    start_workers(w, queue);
    if (!opt.count) {
        sleep_until(a.t + opt.warm * NS_PER_S);
        measuring = true;
        a = snapshot(d, queue);
        sleep_until(a.t + opt.time * NS_PER_S);
        b = snapshot(d, queue);
        measuring = false;
        stop = true;
    }
    join_workers(w, res);
    if (opt.count) {
        b = snapshot(d, queue);
    }
    stop = false;
    differences(res, &a, &b);
}

void load_run(Device *d, Result *res)
{
    Queue *queue[MAX_QUEUES];
    uint64_t merged = 0;

    for (unsigned i = 0; i < opt.queues; i++) {
        queue[i] = new_queue(d, i);
    }
    if (opt.verify) {
        whole_device(queue, REQ_OUT);
    }
    if (opt.target == TARGET_QEMU) {
        merged = qmp_merged();
        qemu_freeze(d, true);
    }
    timed_run(d, queue, res);
    if (opt.target == TARGET_QEMU) {
        qemu_freeze(d, false);
        res->merged = qmp_merged() - merged;
    }
    if (opt.verify) {
        whole_device(queue, REQ_IN);
        for (unsigned i = 0; i < opt.queues; i++) {
            res->verified += verify_checked(queue[i]->verify);
        }
    }
}
