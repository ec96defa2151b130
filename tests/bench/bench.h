/*
 * vblk-bench: shared declarations
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VBLK_BENCH_H
#define VBLK_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_QUEUES      16
#define MAX_DEPTH       256
#define MAX_IOTHREADS   8
#define MAX_ARGS        32
#define MAX_THREADS     256
#define SECTOR          512
#define KIB             1024ull
#define MIB             (1024 * KIB)
#define GIB             (1024 * MIB)
#define NS_PER_S        1000000000ull

#define ARRAY_SIZE(x)   (sizeof(x) / sizeof((x)[0]))
#define MIN(a, b)       ((a) < (b) ? (a) : (b))
#define MAX(a, b)       ((a) > (b) ? (a) : (b))

/* Wire format of a request, VIRTIO 1.3 section 5.2.6. */
enum {
    REQ_IN = 0,
    REQ_OUT = 1,
    REQ_FLUSH = 4,
    REQ_GET_ID = 8,
    REQ_DISCARD = 11,
    REQ_WRITE_ZEROES = 13,
};

struct req_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct req_range {
    uint64_t sector;
    uint32_t sectors;
    uint32_t flags;
};

/* Feature bits that the driver knows. */
#define F_FLUSH         (1ull << 9)
#define F_MQ            (1ull << 12)
#define F_DISCARD       (1ull << 13)
#define F_WRITE_ZEROES  (1ull << 14)
#define F_INDIRECT      (1ull << 28)
#define F_EVENT_IDX     (1ull << 29)
#define F_PROTOCOL      (1ull << 30)    /* vhost-user only */
#define F_VERSION_1     (1ull << 32)
#define F_PACKED        (1ull << 34)

typedef enum Wait {
    WAIT_POLL,              /* the driver spins, no interrupt wanted */
    WAIT_IRQ,               /* the driver sleeps until the interrupt */
} Wait;

typedef enum Target {
    TARGET_QEMU,            /* a device in a QEMU */
    TARGET_VHOST_USER,      /* an export of qemu-storage-daemon */
    TARGET_URING,           /* no device: io_uring on the file itself */
    TARGET_VHOST,           /* the kernel's vhost-blk, without QEMU */
    TARGET_WAKEUP,          /* nothing: two threads wake each other */
} Target;

typedef struct Options {
    Target target;
    const char *binary;             /* of QEMU or qemu-storage-daemon */
    const char *wrap;               /* words before the binary */
    const char *file;               /* of TARGET_URING and TARGET_VHOST */
    bool direct;
    bool registered;                /* io_uring knows file and memory */
    const char *blockdev[MAX_ARGS];
    unsigned n_blockdev;
    const char *qemu_arg[MAX_ARGS];
    unsigned n_qemu_arg;
    const char *device;             /* more properties, a=b,c=d */
    unsigned iothreads;
    int poll_max_ns;                /* of the iothreads; -1: their default */
    unsigned queues;
    unsigned depth;
    unsigned batch;                 /* fewest free slots that are refilled */
    unsigned threads;               /* of the driver */
    int server_cpu;                 /* of TARGET_VHOST's worker; -1: any */
    uint64_t bs;                    /* bytes of a request */
    unsigned segs;                  /* data descriptors of a request */
    uint64_t region;                /* bytes of the device that are used */
    const char *load;
    Wait wait;
    bool packed;
    bool indirect;
    bool event_idx;
    bool verify;
    bool freeze;                    /* stop QEMU's main thread in the run */
    bool pin;                       /* CPUs of their own for driver, device */
    double warm, time;              /* seconds */
    uint64_t count;                 /* requests a queue, instead of time */
    unsigned timeout;               /* seconds that nothing may take */
} Options;

extern Options opt;

/* ---- util.c ---- */

void die(const char *fmt, ...)
    __attribute__((noreturn, format(printf, 1, 2)));
void *xalloc(size_t n, size_t size);
uint64_t now_ns(void);
void sleep_until(uint64_t ns);
/*
 * Keep the calling thread, a driver's or (-1) any of the device, off the CPUs
 * of the others: a driver that spins on the CPU of the thread that it waits
 * for measures the scheduler.  Nothing happens where CPUs are too few.
 */
void pin_thread(int driver);
char *format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* FN is called once when the program dies. */
void at_die(void (*fn)(void));

/* ---- the shared memory ---- */

typedef struct Mem {
    int fd;
    uint8_t *host;          /* address in this process */
    uint64_t size;
    uint64_t next;          /* first guest address not given out */
} Mem;

void mem_create(Mem *m, uint64_t size);
uint64_t mem_alloc(Mem *m, uint64_t size, uint64_t align);

static inline void *mem_at(const Mem *m, uint64_t gpa)
{
    return m->host + gpa;
}

/* ---- ring.c: the driver's side of one queue ---- */

typedef struct Seg {
    uint64_t addr;
    uint32_t len;
} Seg;

typedef struct Ring {
    Mem *mem;
    unsigned index, size;
    bool packed, indirect, event_idx;
    uint64_t desc, driver, device;      /* guest addresses of its parts */
    int kick_fd, call_fd;
    /* the driver's state */
    uint16_t next, seen;                /* free-running (split) or position */
    uint16_t kicked;                    /* NEXT at the last doorbell check */
    bool next_wrap, seen_wrap;
    unsigned chain;                     /* descriptors of a request, at most */
    uint64_t indirect_tables;
    uint16_t *slot_of;                  /* split: of a head; packed: see .c */
    /* counted */
    uint64_t kicks, irqs;
} Ring;

void ring_alloc(Ring *r, Mem *mem, unsigned index, unsigned size,
                unsigned slots, unsigned chain);
void ring_add(Ring *r, unsigned slot, const Seg *seg, unsigned n_out,
              unsigned n_in);
bool ring_publish(Ring *r);             /* true: the device wants a doorbell */
void ring_kick(Ring *r);
int ring_get(Ring *r, uint32_t *len);   /* a completed slot, or -1 */
void ring_irq(Ring *r, bool on);

/* ---- devices ---- */

typedef struct Device {
    pid_t pid;
    Mem *mem;
    uint64_t features;                  /* accepted */
    uint64_t capacity;                  /* bytes */
    unsigned queues;
    Ring ring[MAX_QUEUES];
    pid_t iothread[MAX_IOTHREADS];
    unsigned n_iothread;
} Device;

void qemu_start(Device *d);
void qemu_stop(Device *d);
void qemu_freeze(Device *d, bool on);

void vhost_start(Device *d);
void vhost_stop(Device *d);

void vhost_user_start(Device *d);
void vhost_user_stop(Device *d);

/* ---- child.c: one process that serves the disk ---- */

typedef struct Args {
    char *v[128];
    unsigned n;
} Args;

void arg(Args *a, char *s);
void args(Args *a, char *s, char *t);
void args_begin(Args *a);

char *child_path(const char *name);
pid_t child_start(char **argv);
void child_check(const char *what, uint64_t end);
void child_quit(void);
void child_kill(void);

int listen_at(const char *name);
int accept_from(int fd, const char *what);
char *read_line(int fd, const char *what);
void send_text(int fd, const char *text, const char *what);

void qmp_accept(int fd);
char *qmp(const char *cmd);
void qmp_iothreads(Device *d);
uint64_t qmp_merged(void);

/* ---- procfs.c ---- */

typedef struct EventFd {
    int fd;
    uint64_t count;
} EventFd;

unsigned list_eventfds(pid_t pid, EventFd *e, unsigned max);
int take_fd(pid_t pid, int fd);
uint64_t thread_cpu_ns(pid_t pid, pid_t tid);
uint64_t thread_system_ticks(pid_t pid, pid_t tid);
uint64_t process_cpu_ns(pid_t pid);
unsigned list_threads(pid_t pid, pid_t *tid, unsigned max);
void stop_thread(pid_t tid);
void let_thread(pid_t tid);

/* ---- load.c ---- */

#define HIST_SUB        32
#define HIST_BUCKETS    (64 * HIST_SUB)

typedef struct Result {
    double seconds;
    uint64_t ios, bytes;
    uint64_t kicks, irqs, merged;
    uint64_t cpu_iothread, cpu_process, cpu_driver;
    uint64_t system_ticks;              /* of the iothreads */
    uint64_t verified;
    uint64_t hist[HIST_BUCKETS];
} Result;

uint64_t hist_value(const Result *r, double quantile);
void load_run(Device *d, Result *res);
void get_id(Ring *r);
void load_check(void);          /* dies when the load is not a known one */
uint64_t features_wanted(void);

/* What one request is to do; shared with uring.c. */
typedef struct Op {
    uint32_t type;
    uint64_t offset;
} Op;

typedef struct Stream {
    uint64_t rng;
    uint64_t base, blocks, at;
    uint64_t n;
} Stream;

void stream_init(Stream *s, unsigned index, unsigned of, uint64_t capacity);
Op stream_next(Stream *s);
void hist_add(uint64_t *hist, uint64_t ns);

/* ---- verify.c ---- */

typedef struct Verify Verify;

Verify *verify_new(uint64_t base, uint64_t blocks);
bool verify_busy(Verify *v, uint64_t offset);
void verify_start(Verify *v, const Op *op, uint8_t *data);
void verify_done(Verify *v, const Op *op, const uint8_t *data, uint32_t len);
uint64_t verify_checked(const Verify *v);

/* ---- uring.c ---- */

void uring_run(Result *res);

/* ---- wakeup.c ---- */

void wakeup_run(Result *res);

#endif
