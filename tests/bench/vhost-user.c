/*
 * vblk-bench: a vhost-user-blk export of qemu-storage-daemon
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The same rings on another server of QEMU's block layer.  Doorbells and
 * interrupts are eventfds of ours here.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "bench.h"

#define QUEUE_SIZE      256
#define CONFIG_BYTES    60      /* of virtio_blk_config; all servers have it */

/* The vhost-user protocol, docs/interop/vhost-user.rst of QEMU. */
enum {
    GET_FEATURES = 1,
    SET_FEATURES = 2,
    SET_OWNER = 3,
    SET_MEM_TABLE = 5,
    SET_VRING_NUM = 8,
    SET_VRING_ADDR = 9,
    SET_VRING_BASE = 10,
    SET_VRING_KICK = 12,
    SET_VRING_CALL = 13,
    GET_PROTOCOL_FEATURES = 15,
    SET_PROTOCOL_FEATURES = 16,
    SET_VRING_ENABLE = 18,
    GET_CONFIG = 24,
    FLAG_VERSION = 1,
    FLAG_NEED_REPLY = 8,
    PROTOCOL_MQ = 1 << 0,
    PROTOCOL_REPLY_ACK = 1 << 3,
    PROTOCOL_CONFIG = 1 << 9,
};

typedef struct Msg {
    uint32_t request, flags, size;
    union {
        uint64_t u64;
        struct {
            uint32_t index, num;
        } state;
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail, log;
        } addr;
        struct {
            uint32_t n, pad;
            uint64_t gpa, size, user, offset;
        } mem;
        struct {
            uint32_t offset, size, flags;
            uint8_t bytes[CONFIG_BYTES];
        } config;
    } u;
} __attribute__((packed)) Msg;

#define MSG_HEAD        offsetof(Msg, u)

static int sock = -1;

static void send_msg(Msg *m, uint32_t request, uint32_t size, int fd)
{
    struct iovec iov = { m, MSG_HEAD + size };
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { 0 };
    struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

    m->request = request;
    m->size = size;
    m->flags |= FLAG_VERSION;
    if (fd >= 0) {
        struct cmsghdr *c;

        h.msg_control = control.buf;
        h.msg_controllen = sizeof(control.buf);
        c = CMSG_FIRSTHDR(&h);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    if (sendmsg(sock, &h, MSG_NOSIGNAL) != (ssize_t)iov.iov_len) {
        die("vhost-user request %u: %m", request);
    }
}

static void receive(Msg *m, uint32_t request)
{
    if (recv(sock, m, MSG_HEAD, MSG_WAITALL) != (ssize_t)MSG_HEAD ||
        m->request != request || m->size > sizeof(m->u) ||
        recv(sock, &m->u, m->size, MSG_WAITALL) != (ssize_t)m->size) {
        die("no proper answer to vhost-user request %u", request);
    }
}

static void set_u64(uint32_t request, uint64_t val)
{
    Msg m = { .u.u64 = val };

    send_msg(&m, request, sizeof(m.u.u64), -1);
}

static uint64_t get_u64(uint32_t request)
{
    Msg m = { 0 };

    send_msg(&m, request, 0, -1);
    receive(&m, request);
    return m.u.u64;
}

static void set_state(uint32_t request, unsigned index, unsigned num)
{
    Msg m = { .u.state = { index, num } };

    send_msg(&m, request, sizeof(m.u.state), -1);
}

/* The server has got that far, and found no fault. */
static void set_fd(uint32_t request, unsigned index, int fd)
{
    Msg m = { .flags = FLAG_NEED_REPLY, .u.u64 = index };

    send_msg(&m, request, sizeof(m.u.u64), fd);
    receive(&m, request);
    if (m.u.u64) {
        die("vhost-user request %u was refused", request);
    }
}

static void set_memory(const Mem *mem)
{
    Msg m = {
        .flags = FLAG_NEED_REPLY,
        .u.mem = { 1, 0, 0, mem->size, (uintptr_t)mem->host, 0 },
    };

    send_msg(&m, SET_MEM_TABLE, sizeof(m.u.mem), mem->fd);
    receive(&m, SET_MEM_TABLE);
    if (m.u.u64) {
        die("the vhost-user server refuses our memory");
    }
}

static uint64_t get_capacity(void)
{
    Msg m = { .u.config = { 0, CONFIG_BYTES, 0, { 0 } } };
    uint64_t sectors;

    send_msg(&m, GET_CONFIG, sizeof(m.u.config), -1);
    receive(&m, GET_CONFIG);
    memcpy(&sectors, m.u.config.bytes, sizeof(sectors));
    return sectors * SECTOR;
}

static void connect_to(const char *path)
{
    struct timeval limit = { opt.timeout, 0 };
    uint64_t end = now_ns() + opt.timeout * NS_PER_S;
    struct sockaddr_un a = { .sun_family = AF_UNIX };

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(sock, (void *)&a, sizeof(a)) < 0) {
        child_check("vhost-user socket", end);
        usleep(1000);
    }
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

static void negotiate(Device *d)
{
    uint64_t want = features_wanted() | F_PROTOCOL;
    uint64_t missing = want & ~get_u64(GET_FEATURES);

    if (missing) {
        die("the export does not offer features 0x%lx that this load needs",
            missing);
    }
    set_u64(SET_PROTOCOL_FEATURES, get_u64(GET_PROTOCOL_FEATURES) &
            (PROTOCOL_MQ | PROTOCOL_REPLY_ACK | PROTOCOL_CONFIG));
    send_msg(&(Msg) { 0 }, SET_OWNER, 0, -1);
    set_u64(SET_FEATURES, want);
    d->features = want;
}

static void set_up_queue(Device *d, unsigned n)
{
    Ring *r = &d->ring[n];
    Msg addr = { 0 };

    r->packed = opt.packed;
    r->indirect = opt.indirect;
    r->event_idx = opt.event_idx;
    ring_alloc(r, d->mem, n, QUEUE_SIZE, opt.depth, opt.segs + 2);
    ring_irq(r, false);
    r->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    addr.u.addr.index = n;
    addr.u.addr.desc = (uintptr_t)mem_at(d->mem, r->desc);
    addr.u.addr.avail = (uintptr_t)mem_at(d->mem, r->driver);
    addr.u.addr.used = (uintptr_t)mem_at(d->mem, r->device);
    set_state(SET_VRING_NUM, n, QUEUE_SIZE);
    set_state(SET_VRING_BASE, n, 0);
    send_msg(&addr, SET_VRING_ADDR, sizeof(addr.u.addr), -1);
    set_fd(SET_VRING_CALL, n, r->call_fd);
    set_fd(SET_VRING_KICK, n, r->kick_fd);
    set_state(SET_VRING_ENABLE, n, 1);
}

static char **command_line(void)
{
    Args *a = xalloc(1, sizeof(*a));

    args_begin(a);
    args(a, "--chardev", format("socket,id=qmp,path=%s", child_path("qmp")));
    args(a, "--monitor", "chardev=qmp");
    args(a, "--export",
         format("vhost-user-blk,id=disk,node-name=drive0,writable=on,"
                "addr.type=unix,addr.path=%s,iothread=io0,num-queues=%u",
                child_path("vhost-user"), opt.queues));
    return a->v;
}

/*
 * The storage daemon's monitor does not name its iothreads: take the thread
 * that a few requests keep busy.
 */
static pid_t find_iothread(Device *d)
{
    uint64_t before[MAX_THREADS], most = 0;
    pid_t tid[MAX_THREADS], found = d->pid;
    unsigned n = list_threads(d->pid, tid, MAX_THREADS);

    for (unsigned i = 0; i < n; i++) {
        before[i] = thread_cpu_ns(d->pid, tid[i]);
    }
    for (unsigned i = 0; i < 100; i++) {
        get_id(&d->ring[0]);
    }
    for (unsigned i = 0; i < n; i++) {
        uint64_t used = thread_cpu_ns(d->pid, tid[i]) - before[i];

        if (used > most) {
            most = used;
            found = tid[i];
        }
    }
    return found;
}

void vhost_user_start(Device *d)
{
    int listening = listen_at("qmp");

    if (opt.iothreads != 1 || opt.packed) {
        die("the vhost-user export has one iothread and no packed rings");
    }
    d->pid = child_start(command_line());
    qmp_accept(listening);
    d->queues = opt.queues;
    connect_to(child_path("vhost-user"));
    negotiate(d);
    set_memory(d->mem);
    d->capacity = get_capacity();
    for (unsigned n = 0; n < d->queues; n++) {
        set_up_queue(d, n);
    }
    d->iothread[d->n_iothread++] = find_iothread(d);
}

void vhost_user_stop(Device *d)
{
    (void)d;
    close(sock);
    child_quit();
}
