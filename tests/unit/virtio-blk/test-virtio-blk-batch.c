/*
 * virtio-blk: unit tests of merging
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/block/virtio-blk/batch.h"

#define SEED 0x76626c6b
#define ROUNDS 20000
#define KB 1024
#define GB (1ull << 30)

static const VirtIOBlkBatchLimits no_limits = {
    .max_bytes = UINT64_MAX,
    .max_iov = UINT_MAX,
};

/* Request: what a driver sent; its place in the array is its arrival. */
typedef struct Request {
    uint64_t offset;
    uint64_t bytes;
    unsigned niov;
    bool is_write;
    unsigned down;              /* times it reached the backend */
} Request;

static void add(VirtIOBlkBatch *batch, Request *req)
{
    g_assert_true(virtio_blk_batch_accepts(batch, req->is_write));
    virtio_blk_batch_add(batch, req->is_write, req->offset, req->bytes,
                         req->niov, req);
}

/* A batch of @num reads, one memory segment each unless it says more. */
static void fill(VirtIOBlkBatch *batch, Request *req, unsigned num)
{
    virtio_blk_batch_init(batch);
    for (unsigned i = 0; i < num; i++) {
        req[i].niov = req[i].niov ?: 1;
        add(batch, &req[i]);
    }
    g_assert_cmpuint(batch->num, ==, num);
}

/* The items of @batch are @req in the order of the indices in @order. */
static void check_order(const VirtIOBlkBatch *batch, const Request *req,
                        const unsigned *order)
{
    for (unsigned i = 0; i < batch->num; i++) {
        const Request *want = &req[order[i]];
        const VirtIOBlkBatchItem *item = &batch->item[i];

        g_assert_true(item->opaque == want);
        g_assert_cmpuint(item->seq, ==, order[i]);
        g_assert_cmpuint(item->offset, ==, want->offset);
        g_assert_cmpuint(item->bytes, ==, want->bytes);
        g_assert_cmpuint(item->niov, ==, want->niov);
    }
}

static void check_as_arrived(const VirtIOBlkBatch *batch, const Request *req)
{
    unsigned order[VIRTIO_BLK_BATCH_MAX];

    for (unsigned i = 0; i < batch->num; i++) {
        order[i] = i;
    }
    check_order(batch, req, order);
}

/* The runs of @batch have the lengths in @runs, which ends with 0. */
static void check_runs(const VirtIOBlkBatch *batch,
                       const VirtIOBlkBatchLimits *limits,
                       const unsigned *runs)
{
    unsigned start = 0;

    for (; *runs; runs++) {
        g_assert_cmpuint(start, <, batch->num);
        g_assert_cmpuint(virtio_blk_batch_run(batch, start, limits), ==,
                         *runs);
        start += *runs;
    }
    g_assert_cmpuint(start, ==, batch->num);
}

#define RUNS(...) ((const unsigned[]) { __VA_ARGS__, 0 })
#define ORDER(...) ((const unsigned[]) { __VA_ARGS__ })

static void test_empty(void)
{
    VirtIOBlkBatch batch;

    memset(&batch, 0xff, sizeof(batch));
    virtio_blk_batch_init(&batch);
    g_assert_cmpuint(batch.num, ==, 0);
    g_assert_true(virtio_blk_batch_accepts(&batch, false));
    g_assert_true(virtio_blk_batch_accepts(&batch, true));
    g_assert_false(virtio_blk_batch_order(&batch));
    g_assert_cmpuint(batch.num, ==, 0);
}

static void test_one(void)
{
    Request req = { .offset = 4 * KB, .bytes = KB, .niov = 3,
                    .is_write = true };
    VirtIOBlkBatch batch;

    /* What a batch held before must not show. */
    memset(&batch, 0xff, sizeof(batch));
    fill(&batch, &req, 1);
    g_assert_true(batch.is_write);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_as_arrived(&batch, &req);
    check_runs(&batch, &no_limits, RUNS(1));
}

static void test_kinds(void)
{
    Request req = { .bytes = KB, .niov = 1 };
    VirtIOBlkBatch batch;

    for (int is_write = 0; is_write < 2; is_write++) {
        virtio_blk_batch_init(&batch);
        req.is_write = is_write;
        for (unsigned i = 0; i < VIRTIO_BLK_BATCH_MAX; i++) {
            add(&batch, &req);
            g_assert_cmpint(batch.is_write, ==, is_write);
            g_assert_false(virtio_blk_batch_accepts(&batch, !is_write));
        }
        /* Full: of neither kind. */
        g_assert_false(virtio_blk_batch_accepts(&batch, is_write));
        virtio_blk_batch_init(&batch);
        g_assert_true(virtio_blk_batch_accepts(&batch, !is_write));
    }
}

static void test_two(void)
{
    Request up[] = { { 0, KB }, { KB, KB } };
    Request down[] = { { KB, KB }, { 0, KB } };
    Request gap[] = { { 0, KB }, { KB + 512, KB } };
    Request gap_down[] = { { KB + 512, KB }, { 0, KB } };
    Request overlap[] = { { 0, KB }, { 512, KB } };
    VirtIOBlkBatch batch;

    fill(&batch, up, 2);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_as_arrived(&batch, up);
    check_runs(&batch, &no_limits, RUNS(2));

    fill(&batch, down, 2);
    g_assert_true(virtio_blk_batch_order(&batch));
    check_order(&batch, down, ORDER(1, 0));
    check_runs(&batch, &no_limits, RUNS(2));

    fill(&batch, gap, 2);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_runs(&batch, &no_limits, RUNS(1, 1));

    /* Nothing to merge: arrival order stays, though it falls. */
    fill(&batch, gap_down, 2);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_as_arrived(&batch, gap_down);
    check_runs(&batch, &no_limits, RUNS(1, 1));

    fill(&batch, overlap, 2);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_runs(&batch, &no_limits, RUNS(1, 1));
}

static void test_adjacent(void)
{
    Request req[VIRTIO_BLK_BATCH_MAX] = {};
    VirtIOBlkBatch batch;

    for (unsigned i = 0; i < VIRTIO_BLK_BATCH_MAX; i++) {
        req[i].offset = i * 4 * KB;
        req[i].bytes = 4 * KB;
    }
    fill(&batch, req, VIRTIO_BLK_BATCH_MAX);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_as_arrived(&batch, req);
    check_runs(&batch, &no_limits, RUNS(VIRTIO_BLK_BATCH_MAX));
    /* A run may be asked for from any item on. */
    for (unsigned i = 0; i < VIRTIO_BLK_BATCH_MAX; i++) {
        g_assert_cmpuint(virtio_blk_batch_run(&batch, i, &no_limits), ==,
                         VIRTIO_BLK_BATCH_MAX - i);
    }
}

static void test_reversed(void)
{
    Request req[VIRTIO_BLK_BATCH_MAX] = {};
    unsigned order[VIRTIO_BLK_BATCH_MAX];
    VirtIOBlkBatch batch;

    for (unsigned i = 0; i < VIRTIO_BLK_BATCH_MAX; i++) {
        order[i] = VIRTIO_BLK_BATCH_MAX - 1 - i;
        req[i].offset = order[i] * 4 * KB;
        req[i].bytes = 4 * KB;
    }
    fill(&batch, req, VIRTIO_BLK_BATCH_MAX);
    g_assert_true(virtio_blk_batch_order(&batch));
    check_order(&batch, req, order);
    check_runs(&batch, &no_limits, RUNS(VIRTIO_BLK_BATCH_MAX));
    /* In order now: a second call has nothing to do. */
    g_assert_false(virtio_blk_batch_order(&batch));
    check_order(&batch, req, order);
}

/* Only the last request falls, and only it touches another. */
static void test_late_neighbour(void)
{
    Request req[] = { { 8 * KB, KB }, { 16 * KB, KB }, { 32 * KB, KB },
                      { 7 * KB, KB } };
    VirtIOBlkBatch batch;

    fill(&batch, req, 4);
    g_assert_true(virtio_blk_batch_order(&batch));
    check_order(&batch, req, ORDER(3, 0, 1, 2));
    check_runs(&batch, &no_limits, RUNS(2, 1, 1));
}

static void test_duplicates(void)
{
    Request same[] = { { KB, KB }, { KB, KB }, { KB, KB } };
    Request mixed[] = { { KB, KB }, { 0, KB }, { KB, 512 }, { 0, KB },
                        { KB, KB }, { 2 * KB, KB } };
    VirtIOBlkBatch batch;

    fill(&batch, same, 3);
    g_assert_false(virtio_blk_batch_order(&batch));
    check_as_arrived(&batch, same);
    check_runs(&batch, &no_limits, RUNS(1, 1, 1));

    /* At one offset the first to arrive stays the first. */
    fill(&batch, mixed, 6);
    g_assert_true(virtio_blk_batch_order(&batch));
    check_order(&batch, mixed, ORDER(1, 3, 0, 2, 4, 5));
    check_runs(&batch, &no_limits, RUNS(1, 2, 1, 2));
}

static void test_max_iov(void)
{
    Request req[] = { { 0, KB, 3 }, { KB, KB, 4 }, { 2 * KB, KB, 5 } };
    VirtIOBlkBatchLimits limits = no_limits;
    VirtIOBlkBatch batch;

    fill(&batch, req, 3);
    limits.max_iov = 12;
    check_runs(&batch, &limits, RUNS(3));
    limits.max_iov = 11;
    check_runs(&batch, &limits, RUNS(2, 1));
    limits.max_iov = 9;
    check_runs(&batch, &limits, RUNS(2, 1));
    limits.max_iov = 7;
    check_runs(&batch, &limits, RUNS(2, 1));
    limits.max_iov = 6;
    check_runs(&batch, &limits, RUNS(1, 1, 1));
    /* Each alone is beyond the limit, and goes down all the same. */
    limits.max_iov = 0;
    check_runs(&batch, &limits, RUNS(1, 1, 1));
}

static void test_max_bytes(void)
{
    Request req[] = { { 0, 3 * KB }, { 3 * KB, 4 * KB }, { 7 * KB, 5 * KB } };
    VirtIOBlkBatchLimits limits = no_limits;
    VirtIOBlkBatch batch;

    fill(&batch, req, 3);
    limits.max_bytes = 12 * KB;
    check_runs(&batch, &limits, RUNS(3));
    limits.max_bytes = 12 * KB - 1;
    check_runs(&batch, &limits, RUNS(2, 1));
    limits.max_bytes = 9 * KB;
    check_runs(&batch, &limits, RUNS(2, 1));
    limits.max_bytes = 7 * KB;
    check_runs(&batch, &limits, RUNS(2, 1));
    limits.max_bytes = 7 * KB - 1;
    check_runs(&batch, &limits, RUNS(1, 1, 1));
    limits.max_bytes = 0;
    check_runs(&batch, &limits, RUNS(1, 1, 1));
}

/* A sum that passes the end of its type is no small sum. */
static void test_overflow(void)
{
    const uint64_t top = UINT64_MAX - 511;
    Request high[] = { { top - KB, KB }, { top, 511 } };
    Request wraps[] = { { 0, 512 }, { top, 512 } };
    Request wraps_down[] = { { top, 512 }, { 0, 512 } };
    Request segments[] = { { 0, KB, UINT_MAX }, { KB, KB, 2 } };
    Request large[] = { { 0, 2 * GB }, { 2 * GB, 2 * GB }, { 4 * GB, KB } };
    VirtIOBlkBatchLimits limits = { .max_bytes = 3 * GB, .max_iov = 8 };
    VirtIOBlkBatch batch;

    fill(&batch, high, 2);
    virtio_blk_batch_order(&batch);
    check_as_arrived(&batch, high);
    check_runs(&batch, &no_limits, RUNS(2));

    /* The end of the last sector there can be is not sector 0. */
    fill(&batch, wraps, 2);
    virtio_blk_batch_order(&batch);
    check_runs(&batch, &no_limits, RUNS(1, 1));
    fill(&batch, wraps_down, 2);
    virtio_blk_batch_order(&batch);
    check_runs(&batch, &no_limits, RUNS(1, 1));

    fill(&batch, segments, 2);
    check_runs(&batch, &limits, RUNS(1, 1));

    fill(&batch, large, 3);
    check_runs(&batch, &limits, RUNS(1, 2));
    limits.max_bytes = 4 * GB;
    check_runs(&batch, &limits, RUNS(2, 1));
}

/* An empty range goes down once, too, whatever it is next to. */
static void test_empty_range(void)
{
    Request req[] = { { 2 * KB, KB }, { KB, 0 }, { KB, KB }, { 0, KB } };
    VirtIOBlkBatch batch;

    fill(&batch, req, 4);
    g_assert_true(virtio_blk_batch_order(&batch));
    check_order(&batch, req, ORDER(3, 1, 2, 0));
    check_runs(&batch, &no_limits, RUNS(4));
}

/*
 * The model: the rules of batch.h, told pair by pair.
 */

static bool model_sorts(const Request *req, unsigned num)
{
    bool falls = false, touches = false;

    for (unsigned i = 0; i < num; i++) {
        for (unsigned j = 0; j < num; j++) {
            falls |= j > i && req[j].offset < req[i].offset;
            touches |= j != i && req[j].offset == req[i].offset + req[i].bytes;
        }
    }
    return falls && touches;
}

/* How many others must go before request @i of a sorted batch? */
static unsigned model_place(const Request *req, unsigned num, unsigned i)
{
    unsigned place = 0;

    for (unsigned j = 0; j < num; j++) {
        place += req[j].offset < req[i].offset ||
                 (req[j].offset == req[i].offset && j < i);
    }
    return place;
}

/* May the @n requests at @item be one? */
static bool model_joins(const Request **item, unsigned n,
                        const VirtIOBlkBatchLimits *limits)
{
    uint64_t bytes = 0, niov = 0;

    for (unsigned i = 0; i < n; i++) {
        bytes += item[i]->bytes;
        niov += item[i]->niov;
        if (i && (item[i]->offset != item[i - 1]->offset + item[i - 1]->bytes ||
                  item[i]->is_write != item[0]->is_write)) {
            return false;
        }
    }
    return n == 1 || (bytes <= limits->max_bytes && niov <= limits->max_iov);
}

static unsigned model_run(const Request **item, unsigned num,
                          const VirtIOBlkBatchLimits *limits)
{
    unsigned n = num;

    while (!model_joins(item, n, limits)) {
        n--;
    }
    return n;
}

/* Submit @batch, which holds @req.  Returns what it did wrong, or NULL. */
static const char *submit(VirtIOBlkBatch *batch, Request *req,
                          const VirtIOBlkBatchLimits *limits)
{
    const Request *item[VIRTIO_BLK_BATCH_MAX];
    unsigned num = batch->num, n;
    bool sorts = model_sorts(req, num);

    for (unsigned i = 0; i < num; i++) {
        item[sorts ? model_place(req, num, i) : i] = &req[i];
    }
    if (virtio_blk_batch_order(batch) != sorts) {
        return sorts ? "not sorted" : "sorted for nothing";
    }
    if (batch->num != num) {
        return "changed its length";
    }
    for (unsigned start = 0; start < num; start += n) {
        n = virtio_blk_batch_run(batch, start, limits);
        if (n != model_run(item + start, num - start, limits)) {
            return "a run of another length";
        }
        for (unsigned i = start; i < start + n; i++) {
            Request *down = batch->item[i].opaque;

            if (down != item[i]) {
                return "another order";
            }
            down->down++;
        }
    }
    return NULL;
}

static void submit_ok(VirtIOBlkBatch *batch, Request *req,
                      const VirtIOBlkBatchLimits *limits, unsigned round)
{
    unsigned num = batch->num;
    const char *wrong = submit(batch, req, limits);

    for (unsigned i = 0; i < num && !wrong; i++) {
        wrong = req[i].down == 1 ? NULL : "a request lost or doubled";
    }
    if (!wrong) {
        return;
    }
    g_test_message("seed 0x%x round %u: %s; max_bytes %" PRIu64 " max_iov %u",
                   SEED, round, wrong, limits->max_bytes, limits->max_iov);
    for (unsigned i = 0; i < num; i++) {
        g_test_message("  offset %" PRIu64 " bytes %" PRIu64 " niov %u",
                       req[i].offset, req[i].bytes, req[i].niov);
    }
    g_assert_cmpstr(wrong, ==, NULL);
}

/* One way of sending requests: the offset of the next one, in blocks. */
static uint64_t next_block(GRand *rand, unsigned shape, const Request *prev)
{
    uint64_t after = prev ? (prev->offset + prev->bytes) / 512 : 1 << 20;

    switch (shape) {
    case 0:                     /* in order, now and then a jump */
        return g_rand_int_range(rand, 0, 8) ? after : g_rand_int(rand);
    case 1:                     /* backwards, with gaps */
        return (prev ? prev->offset / 512 : 1 << 20) -
               g_rand_int_range(rand, 1, 6);
    case 2:                     /* crowded: neighbours, overlaps, duplicates */
        return g_rand_int_range(rand, 0, 40);
    case 3:                     /* far apart, anywhere in 2 EiB */
        return (uint64_t)g_rand_int(rand) << 20 | g_rand_int_range(rand, 0, 2);
    default:                    /* slots of one size, as file systems do */
        return g_rand_int_range(rand, 0, 64) * 8;
    }
}

static void next_request(GRand *rand, unsigned shape, Request *req,
                         const Request *prev)
{
    unsigned blocks = shape == 4 ? 8 : g_rand_int_range(rand, 1, 6);

    *req = (Request) {
        .offset = next_block(rand, shape, prev) * 512,
        .bytes = blocks * 512,
        .niov = g_rand_int_range(rand, 1, 5),
        .is_write = g_rand_int_range(rand, 0, 24) == 0,
    };
}

/*
 * A stream of reads and writes through one batch, as the device sends it: the
 * batch goes down when the next request can't join it, and at the end.
 */
static void random_round(GRand *rand, unsigned round)
{
    Request req[3 * VIRTIO_BLK_BATCH_MAX];
    unsigned num = g_rand_int_range(rand, 1, ARRAY_SIZE(req) + 1);
    unsigned shape = g_rand_int_range(rand, 0, 5), first = 0;
    VirtIOBlkBatchLimits limits = {
        .max_bytes = g_rand_int_range(rand, 1, 64) * 512,
        .max_iov = g_rand_int_range(rand, 1, 64),
    };
    VirtIOBlkBatch batch;

    virtio_blk_batch_init(&batch);
    for (unsigned i = 0; i < num; i++) {
        bool joins;

        next_request(rand, shape, &req[i], i ? &req[i - 1] : NULL);
        joins = i == first || (req[i].is_write == req[first].is_write &&
                               i - first < 32);
        g_assert_cmpint(virtio_blk_batch_accepts(&batch, req[i].is_write), ==,
                        joins);
        if (!joins) {
            submit_ok(&batch, req + first, &limits, round);
            virtio_blk_batch_init(&batch);
            first = i;
        }
        add(&batch, &req[i]);
    }
    submit_ok(&batch, req + first, &limits, round);
    for (unsigned i = 0; i < num; i++) {
        g_assert_cmpuint(req[i].down, ==, 1);
    }
}

static void test_random(void)
{
    GRand *rand = g_rand_new_with_seed(SEED);

    g_test_message("seed 0x%x, %u rounds", SEED, ROUNDS);
    for (unsigned round = 0; round < ROUNDS; round++) {
        random_round(rand, round);
    }
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/batch/empty", test_empty);
    g_test_add_func("/batch/one", test_one);
    g_test_add_func("/batch/kinds", test_kinds);
    g_test_add_func("/batch/two", test_two);
    g_test_add_func("/batch/adjacent", test_adjacent);
    g_test_add_func("/batch/reversed", test_reversed);
    g_test_add_func("/batch/late-neighbour", test_late_neighbour);
    g_test_add_func("/batch/duplicates", test_duplicates);
    g_test_add_func("/batch/max-iov", test_max_iov);
    g_test_add_func("/batch/max-bytes", test_max_bytes);
    g_test_add_func("/batch/overflow", test_overflow);
    g_test_add_func("/batch/empty-range", test_empty_range);
    g_test_add_func("/batch/random", test_random);
    return g_test_run();
}
