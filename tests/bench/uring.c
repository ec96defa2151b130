/*
 * vblk-bench: the same loads by io_uring, without any device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the host's kernel can do on the file: the yardstick for the rest.  One
 * thread and one io_uring for each queue's worth of requests; file and memory
 * are registered; requests are sent in the batches that the driver would use.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <liburing.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <unistd.h>
#include "bench.h"

typedef struct UQueue {
    pthread_t thread;
    unsigned index;
    struct io_uring ring;
    Stream stream;
    uint8_t *data;
    uint64_t start[MAX_DEPTH];
    uint32_t expect[MAX_DEPTH];
    uint16_t free[MAX_DEPTH];
    unsigned n_free;
    uint64_t submitted;
    _Atomic uint64_t done;
    _Atomic pid_t tid;
    uint64_t hist[HIST_BUCKETS];
} UQueue;

static int file = -1;
static atomic_bool stop, measuring;

static uint64_t file_size(void)
{
    struct stat st;
    uint64_t size = 0;

    if (fstat(file, &st) < 0) {
        die("%s: %m", opt.file);
    }
    if (S_ISBLK(st.st_mode)) {
        ioctl(file, BLKGETSIZE64, &size);
        return size;
    }
    return st.st_size;
}

static void set_up_ring(UQueue *q)
{
    struct iovec iov = { q->data, opt.depth * opt.bs };
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    };
    int ret = io_uring_queue_init_params(2 * opt.depth, &q->ring, &p);

    if (ret == -EINVAL) {
        memset(&p, 0, sizeof(p));
        ret = io_uring_queue_init_params(2 * opt.depth, &q->ring, &p);
    }
    if (ret < 0) {
        die("io_uring: %s; is it allowed here?", strerror(-ret));
    }
    if (!opt.registered) {
        return;
    }
    ret = io_uring_register_files(&q->ring, &file, 1);
    if (ret == 0) {
        ret = io_uring_register_buffers(&q->ring, &iov, 1);
    }
    if (ret < 0) {
        die("io_uring registration: %s", strerror(-ret));
    }
}

static void prep_data(struct io_uring_sqe *sqe, int op, uint8_t *data,
                      uint64_t offset)
{
    if (opt.registered) {
        op = op == IORING_OP_READ ? IORING_OP_READ_FIXED :
                                    IORING_OP_WRITE_FIXED;
    }
    io_uring_prep_rw(op, sqe, opt.registered ? 0 : file, data, opt.bs, offset);
    sqe->buf_index = 0;
}

static void prepare(UQueue *q, unsigned slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);
    uint8_t *data = q->data + slot * opt.bs;
    Op op = stream_next(&q->stream);
    int mode = FALLOC_FL_KEEP_SIZE;
    int fd = opt.registered ? 0 : file;

    q->expect[slot] = op.type == REQ_IN || op.type == REQ_OUT ? opt.bs : 0;
    switch (op.type) {
    case REQ_IN:
        prep_data(sqe, IORING_OP_READ, data, op.offset);
        break;
    case REQ_OUT:
        prep_data(sqe, IORING_OP_WRITE, data, op.offset);
        break;
    case REQ_FLUSH:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    default:
        mode |= op.type == REQ_DISCARD ? FALLOC_FL_PUNCH_HOLE :
                                         FALLOC_FL_ZERO_RANGE;
        io_uring_prep_fallocate(sqe, fd, mode, op.offset, opt.bs);
    }
    if (opt.registered) {
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    io_uring_sqe_set_data64(sqe, slot);
}

static bool wants_more(const UQueue *q)
{
    return !stop && (!opt.count || q->submitted < opt.count);
}

static void refill(UQueue *q)
{
    uint64_t now;

    if (q->n_free < opt.batch || !wants_more(q)) {
        return;
    }
    now = now_ns();
    while (q->n_free && (!opt.count || q->submitted < opt.count)) {
        unsigned slot = q->free[--q->n_free];

        q->start[slot] = now;
        prepare(q, slot);
        q->submitted++;
    }
}

static void reap(UQueue *q)
{
    bool measure = measuring;
    uint64_t now = now_ns();
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(&q->ring, head, cqe) {
        unsigned slot = io_uring_cqe_get_data64(cqe);

        if (cqe->res != (int)q->expect[slot]) {
            die("%s: io_uring answered %d instead of %u", opt.file, cqe->res,
                q->expect[slot]);
        }
        if (measure) {
            hist_add(q->hist, now - q->start[slot]);
        }
        q->free[q->n_free++] = slot;
        n++;
    }
    io_uring_cq_advance(&q->ring, n);
    atomic_store_explicit(&q->done, q->done + n, memory_order_relaxed);
}

static void submit_and_wait(UQueue *q)
{
    struct __kernel_timespec limit = { .tv_sec = opt.timeout };
    unsigned flying = opt.depth - q->n_free;
    struct io_uring_cqe *cqe;
    unsigned want = opt.batch > q->n_free ? opt.batch - q->n_free : 1;
    int ret;

    ret = io_uring_submit_and_wait_timeout(&q->ring, &cqe, MIN(want, flying),
                                           &limit, NULL);
    if (ret < 0 && ret != -EINTR) {
        die("%s: io_uring: %s", opt.file, strerror(-ret));
    }
}

/* DEFER_TASKRUN wants the ring made and used by one thread. */
static void *work(void *opaque)
{
    UQueue *q = opaque;

    pin_thread(-1);
    set_up_ring(q);
    q->tid = gettid();
    for (;;) {
        refill(q);
        if (q->n_free == opt.depth) {
            break;
        }
        submit_and_wait(q);
        reap(q);
    }
    io_uring_queue_exit(&q->ring);
    return NULL;
}

static void add_up(UQueue *q, Result *r, int sign)
{
    for (unsigned i = 0; i < opt.queues; i++) {
        r->ios += sign * q[i].done;
    }
    /* Workers that the kernel starts for us are threads of this process. */
    r->cpu_process += sign * process_cpu_ns(getpid());
    for (unsigned i = 0; i < opt.queues; i++) {
        r->cpu_iothread += sign * thread_cpu_ns(getpid(), q[i].tid);
        r->system_ticks += sign * thread_system_ticks(getpid(), q[i].tid);
    }
    r->seconds += sign * (now_ns() / (double)NS_PER_S);
}

static UQueue *new_queues(void)
{
    UQueue *q = xalloc(opt.queues, sizeof(*q));
    Mem mem;

    for (unsigned i = 0; i < opt.queues; i++) {
        mem_create(&mem, MIB + opt.depth * opt.bs);
        q[i].data = mem_at(&mem, mem_alloc(&mem, opt.depth * opt.bs, 4096));
        memset(q[i].data, 0x5a, opt.depth * opt.bs);
        q[i].index = i;
        stream_init(&q[i].stream, i, opt.queues, file_size());
        for (unsigned j = 0; j < opt.depth; j++) {
            q[i].free[q[i].n_free++] = opt.depth - 1 - j;
        }
    }
    return q;
}

void uring_run(Result *r)
{
    uint64_t t0 = now_ns();
    UQueue *q;

    file = open(opt.file, O_RDWR | O_CLOEXEC | (opt.direct ? O_DIRECT : 0));
    if (file < 0) {
        die("%s: %m", opt.file);
    }
    q = new_queues();
    for (unsigned i = 0; i < opt.queues; i++) {
        if (pthread_create(&q[i].thread, NULL, work, &q[i])) {
            die("cannot start a thread");
        }
    }
    sleep_until(t0 + opt.warm * NS_PER_S);
    measuring = true;
    add_up(q, r, -1);
    sleep_until(t0 + (opt.warm + opt.time) * NS_PER_S);
    add_up(q, r, 1);
    measuring = false;
    stop = true;
    for (unsigned i = 0; i < opt.queues; i++) {
        pthread_join(q[i].thread, NULL);
        for (unsigned j = 0; j < HIST_BUCKETS; j++) {
            r->hist[j] += q[i].hist[j];
        }
    }
    r->bytes = r->ios * opt.bs;
}
