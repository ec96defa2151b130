/*
 * vblk-crash: what a flush promised is there after QEMU was killed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Each round starts a QEMU on the disk of badfs, writes stamped blocks on all
 * queues with flushes between them, kills it (SIGKILL) at a random moment, has
 * badfs lose what was not flushed, and looks at every sector.  Instead of badfs
 * it can be Linux's null_blk with a write-back cache (cache_size), whose power
 * is switched off and on again: --power.  A sector holds
 *
 *   - no version older than the last one that was completed before a flush
 *     was sent, if that flush was completed; without a flush (the driver did
 *     not negotiate it) than the last one that was completed;
 *   - no version that was never sent, nor one that an earlier round lost.
 *
 * The rings, the set-up of the device and the stamps of a block are those of
 * tests/bench.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../bench/bench.h"

#define BLOCK           4096u
#define BLOCKS          1024u           /* 4 MiB: each is written often */
#define BLOCKS_POWER    8192u           /* see clear_disk() */
#define SECTORS         (BLOCK / SECTOR)
#define MAX_RUN         4u              /* blocks of one request */
#define SLOTS           24u             /* requests in flight on each queue */
#define CELL            64
#define CELL_STATUS     32
#define WINDOW_MS       80              /* the kill comes within them */
#define FLUSH_ONE_IN    12              /* requests */
#define RELEASE_TRIES   5000            /* of a millisecond */

Options opt = {
    .target = TARGET_QEMU, .iothreads = 2, .poll_max_ns = -1, .queues = 2,
    .depth = SLOTS, .bs = BLOCK, .segs = 1, .region = BLOCKS * BLOCK,
    .indirect = true, .event_idx = true, .timeout = 30,
};

/* What is known of a block.  Versions count up, and never start again. */
typedef struct Block {
    uint32_t issued;            /* newest version ever sent */
    uint32_t first;             /* of this round; 0: not written in it */
    uint32_t acked;             /* newest that was completed in this round */
    uint32_t durable;           /* newest that must be there; 0: none */
    uint32_t found[SECTORS];    /* by the last check */
} Block;

/* Shared by the process that checks and the one that writes. */
static struct Ledger {
    uint64_t writes, flushes;   /* completed, all rounds */
    Block block[BLOCKS_POWER];
} *ledger;

typedef struct Slot {
    bool used;
    uint32_t start, n;          /* blocks; n = 0: a flush */
    uint32_t *acked;            /* flush: of all blocks when it was sent */
} Slot;

typedef struct Queue {
    Ring *ring;
    uint64_t data, cells;
    unsigned in_flight;
    Slot slot[SLOTS];
} Queue;

static struct {
    const char *dir, *engine, *power;
    char *disk;
    unsigned kills, seed, window, flush_one_in;
    bool direct, through;
} cmd = { .engine = "block", .kills = 10, .window = WINDOW_MS,
          .flush_one_in = FLUSH_ONE_IN };

static bool busy[BLOCKS_POWER];
static unsigned blocks = BLOCKS;
static unsigned rng;
static uint64_t at_risk, lost;

uint64_t features_wanted(void)
{
    return F_VERSION_1 | F_EVENT_IDX | F_INDIRECT | F_MQ |
           (opt.packed ? F_PACKED : 0) | (cmd.through ? 0 : F_FLUSH);
}

/* qemu.c wants it for frozen main threads, which are none here. */
void get_id(Ring *r)
{
    (void)r;
}

static unsigned random_below(unsigned n)
{
    return rand_r(&rng) % n;
}

static uint64_t word(uint32_t sector, uint32_t version)
{
    uint64_t x = sector * 0x9e3779b97f4a7c15ull ^
                 version * 0xbf58476d1ce4e5b9ull;

    return version ? x ^ x >> 29 : 0;
}

static void stamp(uint8_t *data, uint32_t block, uint32_t version)
{
    uint64_t *w = (uint64_t *)data;

    for (unsigned i = 0; i < BLOCK / 8; i++) {
        w[i] = word(block * SECTORS + i / (SECTOR / 8), version);
    }
}

/* ---- the writer ---- */

static void submit(Queue *q, const Device *d, unsigned n, Slot request)
{
    uint64_t cell = q->cells + n * CELL;
    uint64_t data = q->data + n * MAX_RUN * BLOCK;
    struct req_header *h = mem_at(d->mem, cell);
    Seg seg[3] = { { cell, sizeof(*h) } };
    unsigned segs = 1;

    *h = (struct req_header) {
        .type = request.n ? REQ_OUT : REQ_FLUSH,
        .sector = request.n ? (uint64_t)request.start * SECTORS : 0,
    };
    if (request.n) {
        seg[segs++] = (Seg) { data, request.n * BLOCK };
    }
    seg[segs++] = (Seg) { cell + CELL_STATUS, 1 };
    *(uint8_t *)mem_at(d->mem, cell + CELL_STATUS) = 0xff;
    q->slot[n] = request;
    q->slot[n].used = true;
    q->in_flight++;
    ring_add(q->ring, n, seg, segs - 1, 1);
}

static void submit_flush(Queue *q, const Device *d, unsigned n)
{
    Slot s = { .acked = xalloc(blocks, sizeof(*s.acked)) };

    for (unsigned i = 0; i < blocks; i++) {
        s.acked[i] = ledger->block[i].acked;
    }
    submit(q, d, n, s);
}

/* One write to a block at a time, so that versions have an order. */
static void submit_write(Queue *q, const Device *d, unsigned n)
{
    Slot s = { .start = random_below(blocks) };
    unsigned want = 1 + random_below(MAX_RUN);
    uint8_t *data = mem_at(d->mem, q->data + n * MAX_RUN * BLOCK);

    for (; s.n < want && s.start + s.n < blocks && !busy[s.start + s.n];
         s.n++) {
        Block *b = &ledger->block[s.start + s.n];

        busy[s.start + s.n] = true;
        b->issued++;
        if (!b->first) {
            b->first = b->issued;
        }
        stamp(data + s.n * BLOCK, s.start + s.n, b->issued);
    }
    if (s.n) {
        submit(q, d, n, s);
    }
}

static void complete(Queue *q, const Device *d, unsigned n)
{
    Slot *s = &q->slot[n];
    uint8_t status = *(uint8_t *)mem_at(d->mem,
                                        q->cells + n * CELL + CELL_STATUS);

    if (status) {
        die("a %s ended with status %u", s->n ? "write" : "flush", status);
    }
    for (unsigned i = s->start; i < s->start + s->n; i++) {
        Block *b = &ledger->block[i];

        busy[i] = false;
        b->acked = b->issued;
        if (cmd.through) {
            b->durable = b->acked;
        }
    }
    if (s->n) {
        ledger->writes++;
    } else {
        for (unsigned i = 0; i < blocks; i++) {
            ledger->block[i].durable = MAX(ledger->block[i].durable,
                                           s->acked[i]);
        }
        free(s->acked);
        ledger->flushes++;
    }
    s->used = false;
    q->in_flight--;
}

static bool serve(Queue *q, const Device *d)
{
    bool any = false;
    uint32_t len;
    int n;

    while ((n = ring_get(q->ring, &len)) >= 0) {
        complete(q, d, n);
        any = true;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        if (q->slot[i].used) {
            continue;
        }
        any = true;
        if (!cmd.through && random_below(cmd.flush_one_in) == 0) {
            submit_flush(q, d, i);
        } else {
            submit_write(q, d, i);
        }
    }
    if (ring_publish(q->ring)) {
        ring_kick(q->ring);
    }
    return any;
}

static void check_engine(void)
{
    char *answer = qmp("{\"execute\": \"qom-get\", \"arguments\": {\"path\": "
                       "\"/machine/peripheral/disk/virtio-backend\", "
                       "\"property\": \"engine\"}}\n");

    if (!strstr(answer, cmd.engine)) {
        die("the engine in use is not %s: %s", cmd.engine, answer);
    }
    free(answer);
}

/* The process that writes; its QEMU dies in the middle of it. */
static void write_and_kill(void)
{
    static Mem mem;
    static Device d;
    static Queue q[MAX_QUEUES];
    uint64_t end;

    mem_create(&mem, 64 * MIB);
    d.mem = &mem;
    qemu_start(&d);
    check_engine();
    for (unsigned i = 0; i < opt.queues; i++) {
        q[i].ring = &d.ring[i];
        q[i].data = mem_alloc(&mem, SLOTS * MAX_RUN * BLOCK, 4096);
        q[i].cells = mem_alloc(&mem, SLOTS * CELL, 4096);
    }
    end = now_ns() + random_below(cmd.window * 1000) * 1000ull;
    while (now_ns() < end) {
        bool any = false;

        for (unsigned i = 0; i < opt.queues; i++) {
            any |= serve(&q[i], &d);
        }
        if (!any) {
            usleep(20);
        }
    }
    child_kill();
    /* What it completed until it died was acknowledged as well. */
    for (unsigned i = 0; i < opt.queues; i++) {
        uint32_t len;
        int n;

        while ((n = ring_get(q[i].ring, &len)) >= 0) {
            complete(&q[i], &d, n);
        }
    }
    _exit(0);
}

/* ---- the checker ---- */

static void ctl(const char *text, int *error)
{
    char *path = format("%s/ctl", cmd.dir);
    int fd = open(path, O_WRONLY);

    *error = fd < 0 || write(fd, text, strlen(text)) < 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    free(path);
}

static unsigned count_unflushed(void)
{
    char *path = format("%s/ctl", cmd.dir), text[256] = "", *at = NULL;
    int fd = open(path, O_RDONLY);

    if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0) {
        at = strstr(text, "dirty ");
    }
    close(fd);
    free(path);
    return at ? atoi(at + 6) : 0;
}

/* Not before the last write of the dead process has come in. */
static void lose_unflushed(void)
{
    char *text = format("drop %u\n", random_below(3) ? random_below(1000) : 0);
    unsigned unflushed = 0;
    int error = EBUSY;

    for (unsigned i = 0; error == EBUSY && i < RELEASE_TRIES; i++) {
        if (i) {
            usleep(1000);
        }
        unflushed = count_unflushed();
        ctl(text, &error);
    }
    if (error) {
        die("%s/ctl: %s; is badfs mounted there?", cmd.dir, strerror(error));
    }
    at_risk += unflushed;
    free(text);
}

static void write_power(const char *text)
{
    int fd = open(cmd.power, O_WRONLY);

    if (fd < 0 || write(fd, text, 1) != 1) {
        die("%s: %m; is it the power of a null_blk device?", cmd.power);
    }
    close(fd);
}

/* The cache goes with the power, and the device's node until it is back. */
static void power_cycle(void)
{
    write_power("0");
    write_power("1");
    for (unsigned i = 0; access(cmd.disk, R_OK | W_OK); i++) {
        if (i == RELEASE_TRIES) {
            die("%s is not back: %m", cmd.disk);
        }
        usleep(1000);
    }
}

static bool is_version(const uint64_t *w, uint32_t sector, uint32_t version)
{
    for (unsigned i = 0; i < SECTOR / 8; i++) {
        if (w[i] != word(sector, version)) {
            return false;
        }
    }
    return true;
}

static uint32_t version_found(const uint64_t *w, uint32_t sector,
                              const Block *b)
{
    for (uint32_t v = b->issued + 1; v-- > 0; ) {
        if (is_version(w, sector, v)) {
            return v;
        }
    }
    die("sector %u holds none of the %u versions that were written to it",
        sector, b->issued);
}

static void check_sector(const uint64_t *w, unsigned index, unsigned s,
                         unsigned round)
{
    Block *b = &ledger->block[index];
    uint32_t sector = index * SECTORS + s;
    uint32_t v = version_found(w, sector, b);

    lost += v < b->acked;
    if (v < b->durable) {
        die("round %u: sector %u lost data: it holds version %u, but %u was "
            "acknowledged and %s", round, sector, v, b->durable,
            cmd.through ? "the disk is write-through" : "flushed");
    }
    if (v != b->found[s] && (!b->first || v < b->first)) {
        die("round %u: sector %u holds version %u, which was lost before",
            round, sector, v);
    }
    b->found[s] = v;
}

static void check_disk(unsigned round)
{
    static uint64_t data[BLOCK / 8];
    int fd = open(cmd.disk, O_RDONLY);

    for (unsigned i = 0; i < blocks; i++) {
        Block *b = &ledger->block[i];

        if (pread(fd, data, BLOCK, (off_t)i * BLOCK) != BLOCK) {
            die("%s: cannot read: %m", cmd.disk);
        }
        for (unsigned s = 0; s < SECTORS; s++) {
            check_sector(data + s * SECTOR / 8, i, s, round);
        }
        b->first = b->acked = b->durable = 0;
    }
    close(fd);
}

/*
 * The disk holds no version at all at the start.  With null_blk of a round: it
 * writes straight to a page that was flushed before, so that only a block's
 * first write can be lost, and there are more blocks to write.
 */
static void clear_disk(void)
{
    static uint8_t zeroes[BLOCK];
    uint64_t range[2] = { 0, (uint64_t)blocks * BLOCK };
    int fd = open(cmd.disk, O_RDWR), error;

    if (fd < 0 || (cmd.power && ioctl(fd, BLKDISCARD, range))) {
        die("%s: %m; is it a disk that can discard?", cmd.disk);
    }
    for (unsigned i = 0; i < blocks && !cmd.power; i++) {
        if (pwrite(fd, zeroes, BLOCK, (off_t)i * BLOCK) != BLOCK) {
            die("%s: %m; is badfs mounted there?", cmd.disk);
        }
    }
    close(fd);
    if (!cmd.power) {
        ctl("save\n", &error);
    }
    for (unsigned i = 0; i < blocks; i++) {
        memset(ledger->block[i].found, 0, sizeof(ledger->block[i].found));
    }
}

static void one_round(unsigned round)
{
    pid_t pid;
    int status;

    rng = cmd.seed + round;
    if (cmd.power) {
        clear_disk();
    }
    pid = fork();
    if (pid < 0) {
        die("fork: %m");
    }
    if (!pid) {
        alarm(60);
        write_and_kill();
    }
    waitpid(pid, &status, 0);
    if (status) {
        die("round %u: the writer failed (wait status 0x%x)", round, status);
    }
    if (cmd.power) {
        power_cycle();
    } else {
        lose_unflushed();
    }
    check_disk(round);
}

static void usage(void)
{
    printf("Usage: vblk-crash --qemu=FILE --dir=MOUNT [options]\n"
           "Kill a writing QEMU again and again on the disk of badfs.\n\n"
           "  --disk=FILE --power=FILE\n"
           "                  instead of --dir: a null_blk device, and what "
           "switches it\n"
           "  --engine=NAME   block, io_uring or vhost [block]\n"
           "  --kills=N       how often [10]\n"
           "  --window=MS     the kill comes within so long [80]\n"
           "  --flush-one-in=N  so many requests are one flush [12]\n"
           "  --direct        cache.direct=on\n"
           "  --through       a driver without flushes: write-through\n"
           "  --packed        packed rings\n"
           "  --seed=N        of all that is random [0]\n");
    exit(0);
}

static void parse(int argc, char **argv)
{
    static const struct option known[] = {
        { "qemu", 1, NULL, 'q' }, { "dir", 1, NULL, 'd' },
        { "disk", 1, NULL, 'b' }, { "power", 1, NULL, 'P' },
        { "window", 1, NULL, 'w' }, { "flush-one-in", 1, NULL, 'f' },
        { "engine", 1, NULL, 'e' }, { "kills", 1, NULL, 'k' },
        { "direct", 0, NULL, 'D' }, { "through", 0, NULL, 't' },
        { "packed", 0, NULL, 'p' }, { "seed", 1, NULL, 's' },
        { "help", 0, NULL, 'h' }, { 0 }
    };
    int c;

    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'q':
            opt.binary = optarg;
            break;
        case 'd':
            cmd.dir = optarg;
            break;
        case 'b':
            cmd.disk = optarg;
            break;
        case 'P':
            cmd.power = optarg;
            break;
        case 'w':
            cmd.window = atoi(optarg) ?: 1;
            break;
        case 'f':
            cmd.flush_one_in = atoi(optarg) ?: 1;
            break;
        case 'e':
            cmd.engine = optarg;
            break;
        case 'k':
            cmd.kills = atoi(optarg);
            break;
        case 's':
            cmd.seed = atoi(optarg);
            break;
        case 'D':
            cmd.direct = true;
            break;
        case 't':
            cmd.through = true;
            break;
        case 'p':
            opt.packed = true;
            break;
        case 'h':
            usage();
            break;
        default:
            exit(2);
        }
    }
    if (!opt.binary || !cmd.kills || !cmd.dir == !cmd.disk ||
        !cmd.disk != !cmd.power) {
        die("--qemu, --kills, and --dir or --disk and --power are needed; see "
            "vblk-crash --help");
    }
    if (cmd.dir) {
        cmd.disk = format("%s/disk", cmd.dir);
    } else {
        blocks = BLOCKS_POWER;
        opt.region = blocks * BLOCK;
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    /* QEMU cannot tell how small the blocks of badfs may be. */
    opt.device = format("io-engine=%s,logical_block_size=4096,"
                        "physical_block_size=4096", cmd.engine);
    opt.blockdev[opt.n_blockdev++] =
        format("{\"driver\": \"%s\", \"node-name\": \"drive0\", "
               "\"filename\": \"%s\", \"cache\": {\"direct\": %s}}",
               cmd.power ? "host_device" : "file", cmd.disk,
               cmd.direct ? "true" : "false");
    ledger = mmap(NULL, sizeof(*ledger), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ledger == MAP_FAILED) {
        die("out of memory");
    }
    if (!cmd.power) {
        clear_disk();
    }
    for (unsigned i = 1; i <= cmd.kills; i++) {
        one_round(i);
        if (i % 50 == 0) {
            fprintf(stderr, "   %u of %u kills\n", i, cmd.kills);
        }
    }
    printf("%u kills, %lu writes and %lu flushes acknowledged, "
           "%lu sectors lost that no flush covers\n", cmd.kills,
           ledger->writes, ledger->flushes, lost);
    if (!cmd.power) {
        printf("%lu sectors at risk\n", at_risk);
    }
    return 0;
}
