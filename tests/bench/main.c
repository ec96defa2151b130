/*
 * vblk-bench: options and output
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One run of one load on one device; prints one JSON object.  scripts/bench
 * makes comparisons of many.
 */

#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"
#include "../vm/count.h"

#define GUEST_MEM_MIN   (64 * MIB)
#define GUEST_MEM_MAX   (1792 * MIB)    /* all of it below the PCI hole */

Options opt = {
    .target = TARGET_QEMU,
    .iothreads = 1,
    .poll_max_ns = -1,
    .server_cpu = -1,
    .registered = true,
    .queues = 1,
    .depth = 32,
    .bs = 4 * KIB,
    .segs = 1,
    .region = GIB,
    .load = "randread",
    .wait = WAIT_POLL,
    .indirect = true,
    .event_idx = true,
    .freeze = true,
    .pin = true,
    .warm = 0.3,
    .time = 1,
    .timeout = 20,
};

enum {
    O_HELP = 256, O_TARGET, O_BINARY, O_WRAP, O_FILE, O_DIRECT, O_BLOCKDEV,
    O_QEMU_ARG, O_DEVICE, O_IOTHREADS, O_POLL_MAX, O_QUEUES, O_DEPTH, O_BATCH,
    O_THREADS, O_BS, O_SEGS, O_REGION, O_LOAD, O_WAIT, O_PACKED, O_INDIRECT,
    O_EVENT_IDX, O_VERIFY, O_FREEZE, O_PIN, O_WARM, O_TIME, O_COUNT, O_TIMEOUT,
    O_SERVER_CPU, O_REGISTERED,
};

static const struct {
    const char *name;
    int id;
    const char *arg, *help;
} known[] = {
    { "help", O_HELP, NULL, "this text" },
    { "target", O_TARGET, "NAME",
      "qemu, vhost-user, vhost, io_uring or wakeup [qemu]" },
    { "binary", O_BINARY, "FILE", "the emulator or qemu-storage-daemon" },
    { "wrap", O_WRAP, "WORDS", "run the binary under this command" },
    { "blockdev", O_BLOCKDEV, "JSON", "a block node; the disk's is drive0" },
    { "device", O_DEVICE, "LIST", "more properties of the device: a=b,c=d" },
    { "qemu-arg", O_QEMU_ARG, "WORD", "one more argument for the binary" },
    { "file", O_FILE, "FILE", "what io_uring or vhost reads and writes" },
    { "direct", O_DIRECT, "on|off", "open that file with O_DIRECT [off]" },
    { "registered", O_REGISTERED, "on|off",
      "register file and memory with io_uring [on]" },
    { "iothreads", O_IOTHREADS, "N", "threads that serve the queues [1]" },
    { "poll-max-ns", O_POLL_MAX, "NS", "of the iothreads" },
    { "queues", O_QUEUES, "N", "virtqueues [1]" },
    { "depth", O_DEPTH, "N", "requests in flight on each queue [32]" },
    { "batch", O_BATCH, "N", "submit at least N at once [depth / 4]" },
    { "threads", O_THREADS, "N", "driver threads [as many as iothreads]" },
    { "server-cpu", O_SERVER_CPU, "N", "the CPU of vhost's worker [any]" },
    { "bs", O_BS, "BYTES", "size of a request [4k]" },
    { "segs", O_SEGS, "N", "data descriptors of a request [1]" },
    { "region", O_REGION, "BYTES", "use this much of the disk [1g]" },
    { "load", O_LOAD, "NAME", "randread read randwrite write randrw flush "
                              "discard writezeroes trimmix" },
    { "wait", O_WAIT, "poll|irq", "spin for completions, or sleep [poll]" },
    { "packed", O_PACKED, "on|off", "packed virtqueues [off]" },
    { "indirect", O_INDIRECT, "on|off", "indirect descriptors [on]" },
    { "event-idx", O_EVENT_IDX, "on|off", "VIRTIO_F_EVENT_IDX [on]" },
    { "verify", O_VERIFY, "on|off", "stamp and check each block [off]" },
    { "freeze", O_FREEZE, "on|off", "stop QEMU's main thread meanwhile [on]" },
    { "pin", O_PIN, "on|off", "driver and device on CPUs of their own [on]" },
    { "warm", O_WARM, "SECONDS", "run this long before measuring [0.3]" },
    { "time", O_TIME, "SECONDS", "measure this long [1]" },
    { "count", O_COUNT, "N", "this many requests a queue, instead" },
    { "timeout", O_TIMEOUT, "SECONDS", "nothing may take longer [20]" },
};

static void help(void)
{
    printf("Usage: vblk-bench --binary=FILE --blockdev=JSON... [options]\n"
           "Drive a virtio-blk device without a guest; print figures as "
           "JSON.\n\n");
    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        char *left = format("--%s%s%s", known[i].name,
                            known[i].arg ? "=" : "", known[i].arg ?: "");

        printf("  %-22s %s\n", left, known[i].help);
    }
    exit(0);
}

static bool on_off(const char *name, const char *s)
{
    if (strcmp(s, "on") && strcmp(s, "off")) {
        die("--%s=%s: say on or off", name, s);
    }
    return !strcmp(s, "on");
}

/* A number with an optional k, m or g, between MIN and MAX. */
static uint64_t number(const char *name, const char *s, uint64_t min,
                       uint64_t max)
{
    uint64_t n = 0, unit = 1;
    int used = 0;

    if (sscanf(s, "%lu%n", &n, &used) < 1 || *s == '-') {
        die("--%s=%s: not a number", name, s);
    }
    switch (s[used]) {
    case 'k':
        unit = KIB;
        break;
    case 'm':
        unit = MIB;
        break;
    case 'g':
        unit = GIB;
        break;
    }
    if (s[used + (unit > 1)] || n > max / unit || n * unit < min) {
        die("--%s=%s: say a number from %lu to %lu", name, s, min, max);
    }
    return n * unit;
}

static double seconds(const char *name, const char *s)
{
    char *end;
    double d = strtod(s, &end);

    if (end == s || *end || !(d >= 0 && d <= 3600)) {
        die("--%s=%s: say a number of seconds", name, s);
    }
    return d;
}

static int one_of(const char *name, const char *s, const char *const *names,
                  unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (!strcmp(s, names[i])) {
            return i;
        }
    }
    die("--%s=%s: no such choice; see --help", name, s);
}

static void add_to(const char **list, unsigned *n, const char *s)
{
    if (*n == MAX_ARGS) {
        die("%s: too many of these", s);
    }
    list[(*n)++] = s;
}

static bool take_text(int id, const char *s)
{
    switch (id) {
    case O_BINARY:
        opt.binary = s;
        return true;
    case O_WRAP:
        opt.wrap = s;
        return true;
    case O_FILE:
        opt.file = s;
        return true;
    case O_BLOCKDEV:
        add_to(opt.blockdev, &opt.n_blockdev, s);
        return true;
    case O_QEMU_ARG:
        add_to(opt.qemu_arg, &opt.n_qemu_arg, s);
        return true;
    case O_DEVICE:
        opt.device = s;
        return true;
    case O_LOAD:
        opt.load = s;
        return true;
    }
    return false;
}

static bool take_switch(int id, const char *name, const char *s)
{
    bool *to = id == O_DIRECT ? &opt.direct :
               id == O_REGISTERED ? &opt.registered :
               id == O_PACKED ? &opt.packed :
               id == O_INDIRECT ? &opt.indirect :
               id == O_EVENT_IDX ? &opt.event_idx :
               id == O_VERIFY ? &opt.verify :
               id == O_FREEZE ? &opt.freeze :
               id == O_PIN ? &opt.pin : NULL;

    if (to) {
        *to = on_off(name, s);
    }
    return to;
}

static bool take_choice(int id, const char *name, const char *s)
{
    static const char *const targets[] = { "qemu", "vhost-user", "io_uring",
                                          "vhost", "wakeup" };
    static const char *const waits[] = { "poll", "irq" };

    switch (id) {
    case O_TARGET:
        opt.target = one_of(name, s, targets, ARRAY_SIZE(targets));
        return true;
    case O_WAIT:
        opt.wait = one_of(name, s, waits, ARRAY_SIZE(waits));
        return true;
    case O_WARM:
        opt.warm = seconds(name, s);
        return true;
    case O_TIME:
        opt.time = seconds(name, s);
        return true;
    }
    return false;
}

static void take_number(int id, const char *name, const char *s)
{
    static const struct {
        int id;
        unsigned *to;
        uint64_t *to64;
        uint64_t min, max;
    } numbers[] = {
        { O_IOTHREADS, &opt.iothreads, NULL, 1, MAX_IOTHREADS },
        { O_POLL_MAX, (unsigned *)&opt.poll_max_ns, NULL, 0, NS_PER_S },
        { O_QUEUES, &opt.queues, NULL, 1, MAX_QUEUES },
        { O_DEPTH, &opt.depth, NULL, 1, MAX_DEPTH },
        { O_BATCH, &opt.batch, NULL, 1, MAX_DEPTH },
        { O_THREADS, &opt.threads, NULL, 1, MAX_QUEUES },
        { O_SERVER_CPU, (unsigned *)&opt.server_cpu, NULL, 0, 1023 },
        { O_BS, NULL, &opt.bs, SECTOR, 16 * MIB },
        { O_SEGS, &opt.segs, NULL, 1, 128 },
        { O_REGION, NULL, &opt.region, SECTOR, 1024 * GIB },
        { O_COUNT, NULL, &opt.count, 1, UINT32_MAX },
        { O_TIMEOUT, &opt.timeout, NULL, 1, 3600 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (numbers[i].id == id) {
            uint64_t n = number(name, s, numbers[i].min, numbers[i].max);

            if (numbers[i].to) {
                *numbers[i].to = n;
            } else {
                *numbers[i].to64 = n;
            }
        }
    }
}

static void take_option(int id, const char *s)
{
    const char *name = "";

    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i].id == id) {
            name = known[i].name;
        }
    }
    if (id == O_HELP) {
        help();
    }
    if (!take_text(id, s) && !take_switch(id, name, s) &&
        !take_choice(id, name, s)) {
        take_number(id, name, s);
    }
}

static void parse(int argc, char **argv)
{
    struct option o[ARRAY_SIZE(known) + 1] = { 0 };
    int id;

    for (unsigned i = 0; i < ARRAY_SIZE(known); i++) {
        o[i] = (struct option) {
            known[i].name, known[i].arg ? required_argument : no_argument,
            NULL, known[i].id
        };
    }
    while ((id = getopt_long(argc, argv, "", o, NULL)) != -1) {
        if (id == '?') {
            die("see vblk-bench --help");
        }
        take_option(id, optarg);
    }
    if (optind < argc) {
        die("%s: what is this? See vblk-bench --help", argv[optind]);
    }
}

static void settle(void)
{
    bool bare = opt.target == TARGET_URING || opt.target == TARGET_VHOST;

    if (opt.target == TARGET_WAKEUP) {
        opt.threads = 1;
        return;
    }
    if (bare ? !opt.file : !opt.binary) {
        die("--%s=FILE is missing", bare ? "file" : "binary");
    }
    if (!bare && !opt.n_blockdev) {
        die("--blockdev=JSON with node-name drive0 is missing");
    }
    opt.threads = MIN(opt.threads ?: opt.iothreads, opt.queues);
    opt.batch = opt.batch ?: MAX(opt.depth / 4, 1);
    if (opt.batch > opt.depth) {
        die("--batch is more than --depth: nothing would ever be sent");
    }
    if (opt.wait == WAIT_IRQ && !opt.freeze && opt.target == TARGET_QEMU) {
        die("--wait=irq needs --freeze=on: QEMU's main thread would take the "
            "interrupts");
    }
    load_check();
}

static uint64_t memory_needed(void)
{
    uint64_t slot = opt.bs + (opt.segs + 2) * 16 + 64;
    uint64_t n = opt.queues * opt.depth * slot + opt.queues * MIB + 4 * MIB;
    uint64_t size = (n + GUEST_MEM_MIN) / GUEST_MEM_MIN * GUEST_MEM_MIN;

    if (size > GUEST_MEM_MAX) {
        die("queues * depth * bs needs %llu MiB of guest memory; at most %llu "
            "are possible", size / MIB, GUEST_MEM_MAX / MIB);
    }
    return size;
}

static void print_histogram(const Result *r)
{
    static const double at[] = {
        0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999,
        0.9999, 1
    };

    printf(", \"latency_ns\": {");
    for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
        printf("%s\"%g\": %lu", i ? ", " : "", at[i] * 100,
               hist_value(r, at[i]));
    }
    printf("}");
}

static void print_result(const Result *r)
{
    double n = r->ios ?: 1;

    printf("{\"seconds\": %.6f, \"ios\": %lu, \"iops\": %.1f, "
           "\"mib_per_s\": %.1f", r->seconds, r->ios, r->ios / r->seconds,
           r->bytes / r->seconds / MIB);
    printf(", \"iothread_ns_per_io\": %.1f, \"process_ns_per_io\": %.1f, "
           "\"driver_ns_per_io\": %.1f", r->cpu_iothread / n,
           r->cpu_process / n, r->cpu_driver / n);
    printf(", \"iothread_use\": %.4f, \"iothread_system_share\": %.3f",
           r->cpu_iothread / r->seconds / NS_PER_S,
           r->system_ticks * (double)NS_PER_S / sysconf(_SC_CLK_TCK) /
           (r->cpu_iothread ?: 1));
    printf(", \"kicks_per_io\": %.5f, \"irqs_per_io\": %.5f, "
           "\"merged\": %lu, \"verified\": %lu", r->kicks / n, r->irqs / n,
           r->merged, r->verified);
    print_histogram(r);
    printf("}\n");
}

/* A thread of its own may clean up where a signal handler may not. */
static void *wait_for_signal(void *opaque)
{
    int sig;

    sigwait(opaque, &sig);
    die("interrupted");
}

static void catch_signals(void)
{
    static sigset_t set;
    pthread_t thread;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, wait_for_signal, &set)) {
        die("cannot start a thread");
    }
}

static const struct {
    void (*start)(Device *d);
    void (*stop)(Device *d);
} servers[] = {
    [TARGET_QEMU] = { qemu_start, qemu_stop },
    [TARGET_VHOST_USER] = { vhost_user_start, vhost_user_stop },
    [TARGET_VHOST] = { vhost_start, vhost_stop },
};

int main(int argc, char **argv)
{
    static Device d;
    static Result r;
    static Mem mem;

    parse(argc, argv);
    settle();
    catch_signals();
    /* For tests/vm/count.c: what comes between is what the requests cost. */
    if (opt.target == TARGET_WAKEUP) {
        wakeup_run(&r);
    } else if (opt.target == TARGET_URING) {
        COUNT_MARK(0);
        uring_run(&r);
        COUNT_MARK(1);
    } else {
        mem_create(&mem, memory_needed());
        d.mem = &mem;
        servers[opt.target].start(&d);
        COUNT_MARK(0);
        load_run(&d, &r);
        COUNT_MARK(1);
        servers[opt.target].stop(&d);
    }
    print_result(&r);
    return 0;
}
