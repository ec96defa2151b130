/*
 * virtio-blk qtests: the same again and again, and nothing is left behind
 *
 * Each test does one thing VBLK_ENDURE times (they are there only when it is
 * set), under a load that checks every byte, with queues on two iothreads.
 * Open files, threads and memory at the end are what they were at the start.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "life.h"

/* Free lists and pools have their size after so many rounds. */
#define WARM_UP         20
/* The pool of worker threads grows and shrinks by itself. */
#define POOL_THREADS    8
/* Seen: 300 KiB after 60 rounds of plug, 900 after 600, and then no more. */
#define SLACK_KIB       2048
#define LOAD_DEPTH      4
#define LOAD_RUN        12

typedef struct Usage {
    unsigned fds, threads, kib;
} Usage;

unsigned life_endure_rounds(void)
{
    const char *n = getenv("VBLK_ENDURE");

    return n ? atoi(n) : 0;
}

static unsigned resident_kib(LifeVm *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            qtest_pid(vm->v->qts));
    g_autofree char *text = NULL;
    const char *at;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    /* Not the guest's memory, which is shared or not as the host likes. */
    at = strstr(text, "RssAnon:");
    g_assert_nonnull(at);
    return atoi(at + strlen("RssAnon:"));
}

static Usage usage(LifeVm *vm)
{
    return (Usage) { life_fds(vm), life_threads(vm), resident_kib(vm) };
}

static void compare(LifeVm *vm, Usage start)
{
    Usage end = usage(vm);

    g_test_message("files %u -> %u, threads %u -> %u, memory %u -> %u KiB",
                   start.fds, end.fds, start.threads, end.threads, start.kib,
                   end.kib);
    g_assert_cmpint(end.fds, <=, start.fds);
    g_assert_cmpint(end.threads, <=, start.threads + POOL_THREADS);
    g_assert_cmpint(end.kib, <=, start.kib + SLACK_KIB);
}

/* Do @round so often; the first rounds do not count. */
static void repeat(LifeVm *vm, LifeLoad *l,
                   void (*round)(LifeVm *vm, LifeLoad *l, unsigned i))
{
    unsigned rounds = life_endure_rounds();
    Usage start = { 0 };

    for (unsigned i = 0; i < rounds + WARM_UP; i++) {
        /* The launch's alarm is for one test of ordinary length. */
        alarm(VBLK_TEST_SECONDS);
        if (i == WARM_UP) {
            start = usage(vm);
        }
        round(vm, l, i);
    }
    compare(vm, start);
}

static void round_plug(LifeVm *vm, LifeLoad *l, unsigned i)
{
    life_plug(vm);
    l = life_load_new(vm, LOAD_DEPTH);
    life_load_run(l, LOAD_RUN);
    life_unplug(vm);
    life_load_forget(l);
    life_load_free(l);
    life_drop_events(vm);
}

static void test_plug(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { .machine = "pc",
                                             .hotplug = true });

    repeat(vm, NULL, round_plug);
    life_stop(vm);
}

static void round_reset(LifeVm *vm, LifeLoad *l, unsigned i)
{
    life_load_run(l, LOAD_RUN);
    vblk_reset(vm->v);
    life_load_forget(l);
    life_setup(vm);
}

static void test_reset(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, LOAD_DEPTH);

    repeat(vm, l, round_reset);
    life_load_run(l, LOAD_RUN);
    life_load_end(l);
    life_stop(vm);
}

static void round_stop(LifeVm *vm, LifeLoad *l, unsigned i)
{
    life_load_run(l, LOAD_RUN);
    life_qmp(vm, "{'execute': 'stop'}");
    life_cont(vm);
    life_drop_events(vm);
}

static void test_stop(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, LOAD_DEPTH);

    repeat(vm, l, round_stop);
    life_load_end(l);
    life_stop(vm);
}

static void round_drain(LifeVm *vm, LifeLoad *l, unsigned i)
{
    life_load_qmp(l, LOAD_RUN, "{'execute': 'blockdev-reopen', 'arguments': "
                  "{'options': [{'driver': 'raw', 'node-name': %s, 'file': "
                  "'file0', 'discard': %s}]}}", VBLK_NODE,
                  i % 2 ? "unmap" : "ignore");
    life_drop_events(vm);
}

static void test_drain(const LifeCase *c)
{
    LifeVm *vm = life_start(c, &(LifeSpec) { 0 });
    LifeLoad *l = life_load_new(vm, LOAD_DEPTH);

    repeat(vm, l, round_drain);
    life_load_end(l);
    life_stop(vm);
}

void life_add_endure_tests(void)
{
    if (!life_endure_rounds()) {
        return;
    }
    life_add("endure/plug", LIFE_MAP, test_plug);
    life_add("endure/reset", LIFE_MAP | LIFE_MAP_PACKED, test_reset);
    life_add("endure/stop", LIFE_MAP, test_stop);
    life_add("endure/drain", LIFE_MAP, test_drain);
}
