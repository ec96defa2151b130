/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests on several queues, with a model of what each block holds,
 * while queues are stopped and started, the memory table is set anew and the
 * dirty log comes and goes.  Every read is compared, and in the end the disk.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define QUEUES 4
#define DEPTH 16
#define SLOT_DESCS 4
#define BLOCK 4096U
#define BLOCKS 2048
#define MOST 8                  /* blocks of one request */
#define UNKNOWN UINT32_MAX      /* after a write that failed */

typedef struct Slot {
    struct virtio_blk_outhdr *hdr;
    uint8_t *data, *status;
    unsigned int block, count, shift;
    uint32_t seed;
    bool busy, logged;
} Slot;

typedef struct Model {
    Device *dev;
    Slot slots[QUEUES][DEPTH];
    uint32_t seed[BLOCKS];      /* what the block holds; 0: zeroes */
    bool busy[BLOCKS];
    uint32_t next_seed;
    unsigned int rand;
    uint8_t *log;               /* NULL: off */
    uint64_t done, failed;
    int fd;
} Model;

static unsigned int dice(Model *m, unsigned int n)
{
    return rand_r(&m->rand) % n;
}

/* Some blocks that no other request has; false when the dice found none. */
static bool reserve(Model *m, Slot *s)
{
    s->count = 1 + dice(m, MOST);
    s->block = dice(m, BLOCKS - s->count + 1);
    for (unsigned int i = 0; i < s->count; i++) {
        if (m->busy[s->block + i]) {
            return false;
        }
    }
    memset(m->busy + s->block, true, s->count);
    return true;
}

static uint32_t pick_type(Model *m)
{
    unsigned int n = dice(m, 100);

    if (n < 45) {
        return VIRTIO_BLK_T_OUT;
    } else if (n < 90) {
        return VIRTIO_BLK_T_IN;
    } else if (n < 94) {
        return VIRTIO_BLK_T_WRITE_ZEROES;
    } else if (n < 98 && backend.discard) {
        return VIRTIO_BLK_T_DISCARD;
    }
    return VIRTIO_BLK_T_FLUSH;
}

/* Header, data in one buffer or two, status: at the slot's descriptors. */
static void describe(Model *m, Queue *q, unsigned int n, uint32_t len, bool in)
{
    Slot *s = &m->slots[q->index][n];
    uint32_t first = len > 8 ? len / 2 / 8 * 8 : len;
    uint16_t flags = VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0);
    struct vring_desc *desc = &q->desc[n * SLOT_DESCS];
    uint64_t data = guest_address(m->dev, s->data + s->shift);

    desc[0] = (struct vring_desc) { guest_address(m->dev, s->hdr), 16,
                                    VRING_DESC_F_NEXT, n * SLOT_DESCS + 1 };
    desc[1] = (struct vring_desc) { data, first, flags, n * SLOT_DESCS + 2 };
    desc[2] = (struct vring_desc) { data + first, len - first, flags,
                                    n * SLOT_DESCS + 3 };
    desc[3] = (struct vring_desc) { guest_address(m->dev, s->status), 1,
                                    VRING_DESC_F_WRITE, 0 };
    if (!len) {
        desc[0].next = n * SLOT_DESCS + 3;
    } else if (first == len) {
        desc[1].next = n * SLOT_DESCS + 3;
    }
}

static uint32_t prepare_data(Model *m, Slot *s)
{
    struct virtio_blk_discard_write_zeroes segment = {
        .sector = s->block * 8, .num_sectors = s->count * 8,
        .flags = s->hdr->type == VIRTIO_BLK_T_WRITE_ZEROES && dice(m, 2),
    };

    switch (s->hdr->type) {
    case VIRTIO_BLK_T_OUT:
        s->seed = ++m->next_seed;
        fill(s->data + s->shift, s->count * BLOCK, s->block * 8, s->seed);
        return s->count * BLOCK;
    case VIRTIO_BLK_T_IN:
        memset(s->data + s->shift, 0xee, s->count * BLOCK);
        return s->count * BLOCK;
    case VIRTIO_BLK_T_FLUSH:
        return 0;
    default:
        s->seed = 0;
        memcpy(s->data + s->shift, &segment, sizeof(segment));
        return sizeof(segment);
    }
}

static bool offer(Model *m, Queue *q, unsigned int n)
{
    Slot *s = &m->slots[q->index][n];
    uint32_t len;

    if (s->busy || !reserve(m, s)) {
        return false;
    }
    *s->hdr = (struct virtio_blk_outhdr) { pick_type(m), 0, s->block * 8 };
    *s->status = 0xaa;
    /* one in four is where direct I/O cannot have it */
    s->shift = dice(m, 4) ? 0 : 8;
    s->busy = true;
    s->logged = m->log;
    len = prepare_data(m, s);
    describe(m, q, n, len, s->hdr->type == VIRTIO_BLK_T_IN);
    queue_offer(q, n * SLOT_DESCS);
    return true;
}

static void check_log(Model *m, Slot *s)
{
    uint64_t from = guest_address(m->dev, s->data + s->shift) / PAGE;
    uint64_t to = guest_address(m->dev, s->data + s->shift +
                                s->count * BLOCK - 1) / PAGE;

    for (uint64_t page = from; page <= to; page++) {
        CHECK(m->log[page / 8] >> page % 8 & 1, "page %llu is not logged",
              (unsigned long long)page);
    }
}

static void check_block(const uint8_t *p, unsigned int block, uint32_t seed)
{
    static const uint8_t none[BLOCK];

    if (seed == UNKNOWN) {
        return;
    } else if (!seed) {
        CHECK(!memcmp(p, none, BLOCK), "block %u is not zero", block);
    } else {
        check_fill(p, BLOCK, block * 8, seed);
    }
}

static void check_answer(Model *m, Slot *s, uint32_t used)
{
    uint32_t type = s->hdr->type;
    bool good = *s->status == VIRTIO_BLK_S_OK;

    CHECK(good || (backend.errors && *s->status == VIRTIO_BLK_S_IOERR),
          "type %u at block %u: status %u", type, s->block, *s->status);
    CHECK(used == 1 + (good && type == VIRTIO_BLK_T_IN ? s->count * BLOCK : 0),
          "type %u: used %u", type, used);
    m->done += good;
    m->failed += !good;
    for (unsigned int i = 0; i < s->count; i++) {
        if (type == VIRTIO_BLK_T_IN) {
            if (good) {
                check_block(s->data + s->shift + i * BLOCK, s->block + i,
                            m->seed[s->block + i]);
            }
        } else if (type != VIRTIO_BLK_T_FLUSH) {
            m->seed[s->block + i] = good ? s->seed : UNKNOWN;
        }
    }
    if (good && type == VIRTIO_BLK_T_IN && s->logged && m->log) {
        check_log(m, s);
    }
}

/* Take what is answered; how many requests that was. */
static unsigned int collect(Model *m, Queue *q)
{
    struct vring_used_elem elem;
    unsigned int n = 0;
    Slot *s;

    while (queue_poll(q, &elem)) {
        CHECK(elem.id % SLOT_DESCS == 0 && elem.id / SLOT_DESCS < DEPTH,
              "used id %u", elem.id);
        s = &m->slots[q->index][elem.id / SLOT_DESCS];
        CHECK(s->busy, "slot %u is answered twice", elem.id / SLOT_DESCS);
        check_answer(m, s, elem.len);
        s->busy = false;
        memset(m->busy + s->block, false, s->count);
        n++;
    }
    return n;
}

static void restart(Model *m, Queue *q)
{
    struct vhost_vring_state state = { .index = q->index };
    uint16_t used;
    int r;

    state.num = queue_get_base(q);
    used = __atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE);
    CHECK(used == (uint16_t)state.num, "taken %u, answered %u", state.num,
          used);
    CHECK(!ioctl(m->dev->fd, VHOST_SET_VRING_BASE, &state), "base");
    r = queue_set_backend(q, m->fd);
    CHECK(!r, "start: %s", strerror(-r));
}

static void toggle_log(Model *m)
{
    static uint8_t *log;

    if (m->log) {
        device_set_features(m->dev, m->dev->features & ~BIT(VHOST_F_LOG_ALL));
        m->log = NULL;
        /* what is in flight began with the log and may end without */
        for (int i = 0; i < QUEUES * DEPTH; i++) {
            m->slots[i / DEPTH][i % DEPTH].logged = false;
        }
    } else if (!log) {
        m->log = log = device_start_log(m->dev);
    } else {
        memset(log, 0, LOG_SIZE);
        device_set_features(m->dev, m->dev->features | BIT(VHOST_F_LOG_ALL));
        m->log = log;
    }
}

static void disturb(Model *m)
{
    switch (dice(m, 8)) {
    case 0 ... 4:
        restart(m, &m->dev->queues[dice(m, QUEUES)]);
        break;
    case 5:
        device_set_memory(m->dev, MEM_SIZE - dice(m, 2) * PAGE);
        break;
    case 6:
        device_set_limits(m->dev);
        break;
    default:
        toggle_log(m);
    }
}

/* The kernel's fault injection, set up before, is for marked tasks only. */
static void starve_worker(void)
{
    char name[32], line[32], path[300];
    unsigned int found = 0;
    FILE *file;
    glob_t all;

    snprintf(name, sizeof(name), "vhost-%d\n", getpid());
    CHECK(!glob("/proc/[0-9]*/comm", 0, NULL, &all), "no /proc");
    for (size_t i = 0; i < all.gl_pathc; i++) {
        file = fopen(all.gl_pathv[i], "r");
        if (!file) {
            continue;
        }
        if (fgets(line, sizeof(line), file) && !strcmp(line, name)) {
            snprintf(path, sizeof(path), "%.*s/make-it-fail",
                     (int)strlen(all.gl_pathv[i]) - 5, all.gl_pathv[i]);
            fclose(file);
            file = fopen(path, "w");
            CHECK(file && fputs("1", file) >= 0, "%s", path);
            found++;
        }
        fclose(file);
    }
    globfree(&all);
    CHECK(found == 1, "%u tasks are called %s", found, name);
}

static void prepare(Model *m)
{
    uint8_t *all = malloc(BLOCKS * BLOCK);

    m->dev = device_open(0);
    m->fd = open_backend();
    m->rand = time(NULL);
    m->next_seed = 1;
    for (int i = 0; i < QUEUES; i++) {
        Queue *q = queue_start(m->dev, i, DEPTH * SLOT_DESCS);

        for (int n = 0; n < DEPTH; n++) {
            Slot *s = &m->slots[q->index][n];

            s->hdr = device_alloc(m->dev, 16, 16);
            s->status = device_alloc(m->dev, 1, 1);
            s->data = device_alloc(m->dev, (MOST + 1) * BLOCK, PAGE);
        }
    }
    if (backend.starved) {
        starve_worker();
    }
    if (backend.errors) {
        for (int i = 0; i < BLOCKS; i++) {
            m->seed[i] = UNKNOWN;
        }
    } else {
        fill(all, BLOCKS * BLOCK, 0, 1);
        backend_write(all, BLOCKS * BLOCK, 0);
        for (int i = 0; i < BLOCKS; i++) {
            m->seed[i] = 1;
        }
    }
    free(all);
}

static void settle(Model *m)
{
    for (int i = 0; i < QUEUES; i++) {
        Queue *q = &m->dev->queues[i];

        for (int n = 0; n < DEPTH; n++) {
            for (int wait = 0; m->slots[i][n].busy; wait++) {
                CHECK(wait < 50000, "queue %d slot %d has no answer", i, n);
                if (!collect(m, q)) {
                    usleep(200);
                }
            }
        }
    }
}

static void compare_disk(Model *m)
{
    uint8_t *all = malloc(BLOCKS * BLOCK);

    if (!backend.errors) {
        CHECK(simple(queue_start(m->dev, QUEUES, 64), VIRTIO_BLK_T_FLUSH, 0,
                     0) == 0, "FLUSH");
        backend_read(all, BLOCKS * BLOCK, 0);
        for (int i = 0; i < BLOCKS; i++) {
            check_block(all + i * BLOCK, i, m->seed[i]);
        }
    }
    free(all);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}

static void test_verify(void)
{
    Model *m = calloc(1, sizeof(*m));
    uint64_t end, next;

    prepare(m);
    end = now_ms() + backend.verify_ms;
    next = now_ms() + 20;
    while (now_ms() < end) {
        unsigned int n = 0;

        for (int i = 0; i < QUEUES; i++) {
            Queue *q = &m->dev->queues[i];
            bool kick = false;

            n += collect(m, q);
            for (int k = 0; k < DEPTH; k++) {
                kick |= offer(m, q, k);
            }
            if (kick) {
                queue_kick(q);
            }
        }
        if (!n) {
            usleep(100);
        }
        if (now_ms() >= next) {
            disturb(m);
            next = now_ms() + dice(m, 60);
        }
    }
    settle(m);
    CHECK(m->done > 50, "only %llu requests", (unsigned long long)m->done);
    CHECK(!backend.errors || m->failed, "no request failed");
    compare_disk(m);
    fprintf(stderr, "verify: %llu requests, %llu failed\n",
            (unsigned long long)m->done, (unsigned long long)m->failed);
    device_close(m->dev);
}

const Test verify_tests[] = {
    { "verify", test_verify },
    {}
};
