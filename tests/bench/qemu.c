/*
 * vblk-bench: a virtio-blk device in a QEMU of our own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest has no CPU ("-accel qtest"): the device is set up over the qtest
 * socket, and the rings are driven here, through the guest's memory.
 *
 * Under KVM a doorbell is one eventfd write by the kernel, and an interrupt
 * is one eventfd write by the iothread.  Without KVM both eventfds exist in
 * QEMU all the same, but the main loop stands between them and the guest.  So
 * we take descriptors of both (pidfd_getfd), ring the first ourselves and
 * wait on the second, and stop QEMU's main thread while it is measured, as it
 * would answer the interrupts before us.
 */

#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"

#define SLOT            4
#define CONFIG_ENABLE   (1u << 31)
#define CONFIG_ADDRESS  0xcf8
#define CONFIG_DATA     0xcfc
#define MMIO_BASE       0xe0000000u
#define MAX_CAPS        32
#define MAX_EVENTFDS    512
#define QUEUE_SIZE      512
#define MAX_TRIES       50

/* PCI and virtio-pci registers, VIRTIO 1.3 section 4.1. */
enum {
    PCI_CMD = 0x04,
    PCI_BAR = 0x10,
    PCI_CAPS = 0x34,
    PCI_CMD_MEM_MASTER = 0x6,
    CAP_VENDOR = 0x09,
    CAP_MSIX = 0x11,
    VIRTIO_CAP_COMMON = 1,
    VIRTIO_CAP_NOTIFY = 2,
    VIRTIO_CAP_DEVICE = 4,
    COMMON_DEV_SELECT = 0x00,
    COMMON_DEV_FEATURES = 0x04,
    COMMON_DRV_SELECT = 0x08,
    COMMON_DRV_FEATURES = 0x0c,
    COMMON_CONFIG_VECTOR = 0x10,
    COMMON_STATUS = 0x14,
    COMMON_Q_SELECT = 0x16,
    COMMON_Q_SIZE = 0x18,
    COMMON_Q_VECTOR = 0x1a,
    COMMON_Q_ENABLE = 0x1c,
    COMMON_Q_NOTIFY = 0x1e,
    COMMON_Q_DESC = 0x20,
    COMMON_Q_DRIVER = 0x28,
    COMMON_Q_DEVICE = 0x30,
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
};

static struct {
    int qtest;
    uint64_t bar[6];
    uint64_t common, notify, device, msix;
    uint32_t notify_mul;
    bool frozen;
} q;

/* ---- qtest ---- */

static uint64_t qtest(const char *fmt, ...)
{
    char cmd[128], *line;
    uint64_t val = 0;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(cmd, sizeof(cmd), fmt, ap);
    va_end(ap);
    send_text(q.qtest, cmd, "a qtest command");
    line = read_line(q.qtest, "a qtest answer");
    if (strncmp(line, "OK", 2)) {
        die("qtest command %s failed: %s", cmd, line);
    }
    sscanf(line + 2, " 0x%lx", &val);
    free(line);
    return val;
}

/* ---- the command line ---- */

/*
 * A property list "a=b,c=d" as members of a JSON object.  Of a property that
 * knows more than on and off these are words: "a='on'".
 */
static char *as_json(const char *list)
{
    char *copy = strdup(list), *save, *out = strdup("");

    for (char *p = strtok_r(copy, ",", &save); p;
         p = strtok_r(NULL, ",", &save)) {
        char *eq = strchr(p, '=');
        bool plain;

        if (!eq) {
            die("--device=%s: not of the form name=value,...", list);
        }
        *eq++ = 0;
        plain = strspn(eq, "0123456789") == strlen(eq);
        if (!strcmp(eq, "on") || !strcmp(eq, "off")) {
            plain = true;
            eq = strcmp(eq, "on") ? "false" : "true";
        }
        if (*eq == '\'' && eq[1]) {
            eq++;
            eq[strlen(eq) - 1] = 0;
        }
        out = format(plain ? "%s, \"%s\": %s" : "%s, \"%s\": \"%s\"",
                     out, p, eq);
    }
    free(copy);
    return out;
}

static char *iothreads_json(void)
{
    char *map = strdup("");

    if (opt.iothreads == 1) {
        return ", \"iothread\": \"io0\"";
    }
    for (unsigned i = 0; i < opt.iothreads; i++) {
        map = format("%s%s{\"iothread\": \"io%u\"}", map, i ? ", " : "", i);
    }
    return format(", \"iothread-vq-mapping\": [%s]", map);
}

static char **command_line(Device *d)
{
    Args *a = xalloc(1, sizeof(*a));

    args_begin(a);
    args(a, "-nodefaults", "-no-user-config");
    args(a, "-display", "none");
    args(a, "-accel", "qtest");
    args(a, "-qtest-log", "none");
    args(a, "-qtest", format("unix:%s", child_path("qtest")));
    args(a, "-qmp", format("unix:%s", child_path("qmp")));
    args(a, "-object", format("memory-backend-file,id=ram,share=on,size=%lu,"
                              "mem-path=/proc/%d/fd/%d", d->mem->size,
                              getpid(), d->mem->fd));
    args(a, "-m", format("%llu", d->mem->size / MIB));
    args(a, "-machine", "q35,memory-backend=ram");
    args(a, "-device",
         format("{\"driver\": \"virtio-blk-pci\", \"id\": \"disk\", "
                "\"addr\": \"0x%x\", \"disable-legacy\": \"on\", "
                "\"drive\": \"drive0\", \"num-queues\": %u, \"packed\": %s"
                "%s%s}", SLOT, opt.queues, opt.packed ? "true" : "false",
                iothreads_json(), as_json(opt.device ?: "")));
    return a->v;
}

static void launch(Device *d)
{
    int listen_qtest = listen_at("qtest"), listen_qmp = listen_at("qmp");

    d->pid = child_start(command_line(d));
    q.qtest = accept_from(listen_qtest, "qtest connection");
    qmp_accept(listen_qmp);
}

/* ---- PCI ---- */

static void config_select(unsigned reg)
{
    qtest("outl 0x%x 0x%x\n", CONFIG_ADDRESS,
          CONFIG_ENABLE | SLOT << 11 | (reg & ~3u));
}

static uint32_t config_read(unsigned reg)
{
    config_select(reg);
    return qtest("inl 0x%x\n", CONFIG_DATA) >> (reg & 3) * 8;
}

static void config_write(unsigned reg, uint32_t val)
{
    config_select(reg);
    qtest("outl 0x%x 0x%x\n", CONFIG_DATA, val);
}

static void map_bars(void)
{
    uint32_t next = MMIO_BASE;

    for (unsigned i = 0; i < 6; i++) {
        uint32_t reg = PCI_BAR + 4 * i, was = config_read(reg), mask, size;

        config_write(reg, ~0u);
        mask = config_read(reg);
        if (!mask || (was & 1)) {
            continue;
        }
        size = -(mask & ~0xfu);
        next = (next + size - 1) & -size;
        config_write(reg, next);
        q.bar[i] = next;
        next += size;
        if ((was & 6) == 4) {
            config_write(PCI_BAR + 4 * ++i, 0);
        }
    }
    config_write(PCI_CMD, PCI_CMD_MEM_MASTER);
}

static void take_virtio_cap(unsigned cap)
{
    uint8_t type = config_read(cap + 3), bar = config_read(cap + 4);
    uint64_t at;

    if (bar > 5 || !q.bar[bar]) {
        return;
    }
    at = q.bar[bar] + config_read(cap + 8);
    if (type == VIRTIO_CAP_COMMON) {
        q.common = at;
    } else if (type == VIRTIO_CAP_NOTIFY) {
        q.notify = at;
        q.notify_mul = config_read(cap + 16);
    } else if (type == VIRTIO_CAP_DEVICE) {
        q.device = at;
    }
}

static void find_caps(void)
{
    unsigned cap = config_read(PCI_CAPS) & 0xfc;

    for (unsigned n = 0; cap && n < MAX_CAPS; n++) {
        uint8_t id = config_read(cap);

        if (id == CAP_VENDOR) {
            take_virtio_cap(cap);
        } else if (id == CAP_MSIX) {
            uint32_t table = config_read(cap + 4);

            q.msix = q.bar[table & 7] + (table & ~7u);
            config_write(cap, config_read(cap) | 1u << 31);
        }
        cap = config_read(cap + 1) & 0xfc;
    }
    if (!q.common || !q.notify || !q.device || !q.msix) {
        die("no modern virtio device with MSI-X in slot %d", SLOT);
    }
}

static uint64_t common_read(unsigned reg, unsigned bytes)
{
    return qtest("read%c 0x%lx\n", bytes == 1 ? 'b' : bytes == 2 ? 'w' : 'l',
                 q.common + reg);
}

static void common_write(unsigned reg, unsigned bytes, uint32_t val)
{
    qtest("write%c 0x%lx 0x%x\n", bytes == 1 ? 'b' : bytes == 2 ? 'w' : 'l',
          q.common + reg, val);
}

static void common_write64(unsigned reg, uint64_t val)
{
    common_write(reg, 4, val);
    common_write(reg + 4, 4, val >> 32);
}

/* ---- virtio ---- */

static void negotiate(Device *d)
{
    uint64_t want = features_wanted(), offered, missing;

    common_write(COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    common_write(COMMON_DEV_SELECT, 4, 0);
    offered = common_read(COMMON_DEV_FEATURES, 4);
    common_write(COMMON_DEV_SELECT, 4, 1);
    offered |= common_read(COMMON_DEV_FEATURES, 4) << 32;
    missing = want & ~offered;
    if (missing) {
        die("the device does not offer features 0x%lx that this load needs",
            missing);
    }
    d->features = want;
    common_write(COMMON_DRV_SELECT, 4, 0);
    common_write(COMMON_DRV_FEATURES, 4, want);
    common_write(COMMON_DRV_SELECT, 4, 1);
    common_write(COMMON_DRV_FEATURES, 4, want >> 32);
    common_write(COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
                 STATUS_FEATURES_OK);
    if (!(common_read(COMMON_STATUS, 1) & STATUS_FEATURES_OK)) {
        die("the device refuses features 0x%lx", want);
    }
}

/*
 * The message of a queue's MSI-X vector is a store into a word of memory of
 * ours: there is no interrupt controller to pass.
 */
static void set_vector(Device *d, unsigned n)
{
    uint64_t entry = q.msix + 16 * n, at = mem_alloc(d->mem, 4, 64);

    qtest("writel 0x%lx 0x%x\n", entry, (unsigned)at);
    qtest("writel 0x%lx 0\n", entry + 4);
    qtest("writel 0x%lx 1\n", entry + 8);
    qtest("writel 0x%lx 0\n", entry + 12);
    common_write(COMMON_Q_VECTOR, 2, n);
}

static void set_up_queue(Device *d, unsigned n)
{
    Ring *r = &d->ring[n];
    unsigned size;

    common_write(COMMON_Q_SELECT, 2, n);
    size = MIN(common_read(COMMON_Q_SIZE, 2), QUEUE_SIZE);
    common_write(COMMON_Q_SIZE, 2, size);
    r->packed = opt.packed;
    r->indirect = opt.indirect;
    r->event_idx = opt.event_idx;
    ring_alloc(r, d->mem, n, size, opt.depth, opt.segs + 2);
    common_write64(COMMON_Q_DESC, r->desc);
    common_write64(COMMON_Q_DRIVER, r->driver);
    common_write64(COMMON_Q_DEVICE, r->device);
    set_vector(d, n);
    common_write(COMMON_Q_ENABLE, 2, 1);
    ring_irq(r, false);
}

static void set_up_device(Device *d)
{
    map_bars();
    find_caps();
    common_write(COMMON_STATUS, 1, 0);
    negotiate(d);
    for (unsigned n = 0; n < opt.queues; n++) {
        set_up_queue(d, n);
    }
    d->capacity = qtest("readq 0x%lx\n", q.device) * SECTOR;
    common_write(COMMON_STATUS, 1, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
                 STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

/* ---- the eventfds ---- */

static const EventFd *find_eventfd(const EventFd *e, unsigned n, int fd)
{
    for (unsigned i = 0; i < n; i++) {
        if (e[i].fd == fd) {
            return &e[i];
        }
    }
    return NULL;
}

/* The one eventfd whose count has grown since BEFORE. */
static int grown(Device *d, const EventFd *before, unsigned n_before)
{
    static EventFd after[MAX_EVENTFDS];
    unsigned n = list_eventfds(d->pid, after, MAX_EVENTFDS);
    int found = -1;

    for (unsigned i = 0; i < n; i++) {
        const EventFd *b = find_eventfd(before, n_before, after[i].fd);

        if (after[i].count > (b ? b->count : 0)) {
            if (found >= 0) {
                return -1;
            }
            found = after[i].fd;
        }
    }
    return found;
}

/*
 * A doorbell sent the long way, by qtest, leaves its mark in the eventfd that
 * we look for.  Now and then the main loop is just using one of its own; then
 * we ring again.
 */
static int find_kick_fd(Device *d, unsigned n)
{
    static EventFd before[MAX_EVENTFDS];
    int fd = -1;

    for (unsigned i = 0; fd < 0 && i < MAX_TRIES; i++) {
        unsigned count = list_eventfds(d->pid, before, MAX_EVENTFDS);

        qtest("writew 0x%lx %u\n", q.notify + n * q.notify_mul, n);
        fd = grown(d, before, count);
    }
    if (fd < 0) {
        die("cannot tell which eventfd is the doorbell of queue %u; does "
            "the device use ioeventfd?", n);
    }
    return fd;
}

static void find_kick_fds(Device *d)
{
    usleep(20000);      /* they go to sleep: none is stopped in a lock */
    for (unsigned i = 0; i < d->n_iothread; i++) {
        stop_thread(d->iothread[i]);
    }
    for (unsigned n = 0; n < d->queues; n++) {
        d->ring[n].kick_fd = take_fd(d->pid, find_kick_fd(d, n));
    }
    for (unsigned i = 0; i < d->n_iothread; i++) {
        let_thread(d->iothread[i]);
    }
}

static void find_call_fd(Device *d, Ring *r)
{
    static EventFd before[MAX_EVENTFDS];
    int found = -1;

    for (unsigned i = 0; found < 0 && i < MAX_TRIES; i++) {
        unsigned count = list_eventfds(d->pid, before, MAX_EVENTFDS);

        ring_irq(r, true);
        get_id(r);
        usleep(10000);
        found = grown(d, before, count);
    }
    if (found < 0) {
        die("cannot tell which eventfd is the interrupt of queue %u",
            r->index);
    }
    r->call_fd = take_fd(d->pid, found);
    ring_irq(r, false);
}

/* QEMU's main thread keeps what it did not see; it finds it later. */
void qemu_freeze(Device *d, bool on)
{
    if (!opt.freeze || q.frozen == on) {
        return;
    }
    if (on) {
        stop_thread(d->pid);
    } else {
        let_thread(d->pid);
    }
    q.frozen = on;
}

void qemu_start(Device *d)
{
    launch(d);
    qmp_iothreads(d);
    d->queues = opt.queues;
    set_up_device(d);
    find_kick_fds(d);
    if (opt.freeze) {
        qemu_freeze(d, true);
        for (unsigned n = 0; n < d->queues; n++) {
            find_call_fd(d, &d->ring[n]);
        }
        qemu_freeze(d, false);
    }
}

void qemu_stop(Device *d)
{
    qemu_freeze(d, false);
    child_quit();
}
