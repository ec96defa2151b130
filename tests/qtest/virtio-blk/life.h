/*
 * virtio-blk qtests: tools for the life-cycle tests
 *
 * Disks whose requests can be delayed, failed, held and counted; layouts of
 * queues over iothreads; a load that checks every byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_LIFE_H
#define TESTS_VIRTIO_BLK_LIFE_H

#include "fixture.h"

#define VBLK_NODE_QMP       "'" VBLK_NODE "'"

#define LIFE_BLOCK          4096        /* bytes of one request */
#define LIFE_SECTORS        (LIFE_BLOCK / VBLK_SECTOR)
/* For -device: blocks of that size, which direct I/O needs on some disks. */
#define LIFE_BLOCKS         "\"logical_block_size\":4096," \
                            "\"physical_block_size\":4096,"
#define LIFE_DELAY_MS       400         /* of a LIFE_SLOW() rule */
#define LIFE_LOAD_SECTOR    16384       /* where the load's area begins */
#define LIFE_DISK_SIZE      (32 * 1024 * 1024)

/* Rules for LifeSpec.rules, joined by commas; see LifeSpec. */
#define LIFE_RULE(iotype, sector, err, more) \
    "{\"event\":\"none\",\"iotype\":\"" iotype "\",\"sector\":" \
    G_STRINGIFY(sector) ",\"errno\":" G_STRINGIFY(err) more "}"
/* The first time @sector is in it, the request fails. */
#define LIFE_FAIL_ONCE(iotype, sector, err) \
    LIFE_RULE(iotype, sector, err, ",\"once\":true")
#define LIFE_FAIL(iotype, sector, err)  LIFE_RULE(iotype, sector, err, "")
/* The same as LIFE_FAIL_ONCE with EIO, but not at once. */
#define LIFE_FAIL_LATE(iotype, sector) \
    LIFE_RULE(iotype, sector, 5, ",\"once\":true,\"delay-ns\":200000000")
/* The first request on @sector takes LIFE_DELAY_MS of real time. */
#define LIFE_SLOW(iotype, sector) \
    LIFE_RULE(iotype, sector, 0, ",\"once\":true,\"delay-ns\":400000000")

/* Transport, ring and threads that a test is run with. */
typedef struct LifeCase {
    const char *name;
    VblkTransport transport;
    bool packed;
    unsigned threads;           /* 0 main loop, 1 iothread=, 2 mapping */
    unsigned queues;
    bool no_ioeventfd;
} LifeCase;

#define LIFE_MAIN           0x01        /* main loop, split, 2 queues */
#define LIFE_MAIN_PACKED    0x02
#define LIFE_ONE            0x04        /* one iothread, split, 2 queues */
#define LIFE_ONE_PACKED     0x08
#define LIFE_MAP            0x10        /* 2 iothreads, split, 4 queues */
#define LIFE_MAP_PACKED     0x20
#define LIFE_MMIO_MAIN      0x40        /* microvm, main loop, 1 queue */
#define LIFE_LEGACY         0x80        /* legacy PCI, one iothread */
#define LIFE_NOEVENTFD      0x100       /* ioeventfd=off, 2 queues */
#define LIFE_MMIO_ONE       0x200       /* microvm, one iothread, packed */
#define LIFE_MMIO           (LIFE_MMIO_MAIN | LIFE_MMIO_ONE)
#define LIFE_SPLIT          (LIFE_MAIN | LIFE_ONE | LIFE_MAP)
#define LIFE_PACKED         (LIFE_MAIN_PACKED | LIFE_ONE_PACKED | \
                             LIFE_MAP_PACKED)
#define LIFE_THREADS        (LIFE_ONE | LIFE_MAP | LIFE_MAP_PACKED)
#define LIFE_PCI            (LIFE_SPLIT | LIFE_PACKED)
#define LIFE_ALL            0x3ff

/* Adds /virtio-blk/life/NAME/CASE for each case in @where. */
void life_add(const char *name, unsigned where,
              void (*fn)(const LifeCase *c));
void life_add_one(const char *name, void (*fn)(void));

/*
 * The disk and what is special about the machine.  The nodes, top first:
 * [throttle], raw, [blkdebug dbg0], [blklogwrites log0], file0; the top one is
 * disk0, the raw one below a throttle fmt0.
 */
typedef struct LifeSpec {
    const char *rules;          /* blkdebug: LIFE_FAIL() and so on */
    bool throttle;              /* for life_hold() */
    bool log;                   /* for life_log_count() */
    bool qcow2;                 /* qcow2 disk0 instead of raw */
    bool read_only;
    bool msix;
    bool no_legacy;             /* disable-legacy=on (PCI) */
    bool hotplug;               /* no device yet: life_plug() */
    bool no_setup;              /* launched, not set up */
    const char *json;           /* "\"a\":1," : members for -device */
    const char *args;           /* further arguments */
    const char *machine;
    const char *device;         /* type, instead of vblk_type() */
    const char *blockdev;       /* instead of all the above nodes */
    const char *binary_env;
    const char *image, *logfile;    /* use these, they are not removed */
    uint64_t size;              /* 0: LIFE_DISK_SIZE */
    uint64_t refuse;
    unsigned queues;            /* 0: what the case says */
} LifeSpec;

typedef struct LifeVm {
    LifeCase c;
    LifeSpec s;
    Vblk *v;
    char *image, *logfile;
    char *blockdev, *args, *device;
    VblkOpts o;
} LifeVm;

LifeVm *life_start(const LifeCase *c, const LifeSpec *s);
void life_stop(LifeVm *vm);
/* Set up again, with all queues, after a reset. */
void life_setup(LifeVm *vm);
void life_plug(LifeVm *vm);             /* device_add and set up */
void life_unplug(LifeVm *vm);           /* device_del, on machine pc */

/* An empty file of that size (unlink and free it). */
char *life_temp(const char *what, uint64_t size);
/* The same in a folder, or NULL where no file can be made in it. */
char *life_temp_in(const char *dir, const char *what, uint64_t size);

/* QMP that must succeed; the answer is dropped. */
#define life_qmp(vm, ...) qtest_qmp_assert_success((vm)->v->qts, __VA_ARGS__)
QDict *life_query(LifeVm *vm, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Run state, as query-status has it; compare with life_assert_state(). */
void life_assert_state(LifeVm *vm, const char *state);
bool life_is_running(LifeVm *vm);
void life_wait_stopped(LifeVm *vm);     /* STOP event */
void life_cont(LifeVm *vm);
/* The entry of disk0's device in query-block / query-blockstats (free it). */
QDict *life_block_entry(LifeVm *vm, const char *command);
void life_assert_iostatus(LifeVm *vm, const char *status);
/* Drop the events that came up to now. */
void life_drop_events(LifeVm *vm);

/* Requests of LIFE_BLOCK bytes; data is a pattern of @seed. */
VblkIo *life_write(LifeVm *vm, unsigned q, uint64_t sector, uint32_t seed);
VblkIo *life_write_kick(LifeVm *vm, unsigned q, uint64_t sector,
                        uint32_t seed);
void life_ok(LifeVm *vm, VblkIo *io);       /* wait: status OK */
void life_ioerr(LifeVm *vm, VblkIo *io);    /* wait: status IOERR */
/* Nothing of @io may be done by the device in the next @ms. */
void life_untouched(LifeVm *vm, VblkIo *io, unsigned ms);
/* What the image holds there: the pattern of @seed, or (0) zeroes. */
void life_assert_image(LifeVm *vm, uint64_t sector, uint32_t seed);
void life_assert_read(LifeVm *vm, unsigned q, uint64_t sector, uint32_t seed);

/*
 * With .throttle: hold all further requests / let them go.  life_hold_writes:
 * and send @n writes, spread over queues 0 to @queues - 1: the i-th has seed
 * i + 1 and is for sector i * 16.  All wait when it returns.
 */
void life_hold(LifeVm *vm);
void life_hold_writes(LifeVm *vm, unsigned queues, VblkIo **io, unsigned n);
void life_release(LifeVm *vm);

/* With .log: writes that touched the sectors and reached the file. */
#define LIFE_LOG_FLUSH      1
#define LIFE_LOG_FUA        2
#define LIFE_LOG_DISCARD    4
/*
 * Writes that stop the VM, LIFE_PARKED on each queue; late, since what another
 * queue takes after the stop would stop it again.  life_park: with
 * .rules = LIFE_PARKED_RULES and .json = LIFE_STOP_JSON; the i-th write has
 * seed i + 1 and is for LIFE_PARKED_SECTOR(i); returns how many,
 * LIFE_PARKED_MAX at most.  life_assert_unparked: all are done, each once, by
 * its own queue.
 */
#define LIFE_PARKED         3
#define LIFE_PARKED_MAX     (4 * LIFE_PARKED)
#define LIFE_PARKED_SECTOR(i) (64 + (i) * 16)
#define LIFE_PARKED_RULES \
    LIFE_FAIL_LATE("write", 64) "," LIFE_FAIL_LATE("write", 80) "," \
    LIFE_FAIL_LATE("write", 96) "," LIFE_FAIL_LATE("write", 112) "," \
    LIFE_FAIL_LATE("write", 128) "," LIFE_FAIL_LATE("write", 144) "," \
    LIFE_FAIL_LATE("write", 160) "," LIFE_FAIL_LATE("write", 176) "," \
    LIFE_FAIL_LATE("write", 192) "," LIFE_FAIL_LATE("write", 208) "," \
    LIFE_FAIL_LATE("write", 224) "," LIFE_FAIL_LATE("write", 240)
#define LIFE_STOP_JSON      "\"werror\":\"stop\","
unsigned life_park(LifeVm *vm, VblkIo **io);
void life_assert_unparked(LifeVm *vm, VblkIo **io, unsigned n);

/*
 * life_wait_taken: until the device has taken a request from queue @q and not
 * given it back; a kick alone is not yet a request in flight.
 */
void life_wait_taken(LifeVm *vm, unsigned q);
unsigned life_log_count(LifeVm *vm, uint64_t sector, uint64_t nr);
/* Entries with all of @flags, anywhere. */
unsigned life_log_flags(LifeVm *vm, uint64_t flags);

/*
 * A load: @depth requests at a time on each queue, each alternately writes a
 * block of its own and reads it back.
 */
typedef struct LifeSlot {
    VblkIo *io;
    uint32_t seed;              /* last pattern written or being written */
    bool reading;
} LifeSlot;

typedef struct LifeLoad {
    LifeVm *vm;
    unsigned queues, depth;
    LifeSlot *slots;
    uint64_t submitted, completed;
    uint64_t base[VBLK_MAX_QUEUES];     /* completions before the load */
    uint64_t per_queue[VBLK_MAX_QUEUES];
    uint32_t seed;
} LifeLoad;

LifeLoad *life_load_new(LifeVm *vm, unsigned depth);
uint64_t life_load_sector(LifeLoad *l, unsigned i);     /* of a slot */
/* Reap and submit again until @n more have completed. */
void life_load_run(LifeLoad *l, unsigned n);
/*
 * The same, but false if nothing completes and the VM has stopped: no driver
 * runs then, and no device needs to have asked for its doorbell.
 */
bool life_load_while_running(LifeLoad *l, unsigned n);
/* Wait for all; every request completed exactly once; data is right. */
void life_load_end(LifeLoad *l);
/* Wait for all, load goes on with the next life_load_run(). */
void life_load_settle(LifeLoad *l);
/* The machine is gone, with requests of the load maybe. */
void life_load_free(LifeLoad *l);
/* The device was reset: forget all requests. */
void life_load_forget(LifeLoad *l);
/* Send a command, run the load, then take the (successful) answer. */
void life_load_qmp(LifeLoad *l, unsigned n, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);
/* Wait for the event; at first with up to @busy rounds of load, then quiet. */
void life_load_event(LifeLoad *l, const char *event, unsigned busy);

/* Does the kernel let this user have a ring?  Skips the test if not. */
bool vblk_kernel_has_uring(void);
/* Is @engine, with a reason that fits, the one in use? */
void life_assert_engine(LifeVm *vm, const char *engine);
/* How often a file, such as the log of -D, has these words. */
unsigned life_count_words(const char *file, const char *words);

/* From /proc: open files, threads, and CPU time in ms of the QEMU process. */
unsigned life_fds(LifeVm *vm);
unsigned life_threads(LifeVm *vm);
unsigned life_cpu_ms(LifeVm *vm);

/* The files' registration functions, called by vblk_add_lifecycle_tests(). */
void life_add_reset_tests(void);
void life_add_ring_reset_tests(void);
void life_add_stop_tests(void);
void life_add_error_tests(void);
void life_add_plug_tests(void);
void life_add_drain_tests(void);
void life_add_cache_tests(void);
void life_add_acct_tests(void);
void life_add_migrate_tests(void);
void life_add_bus_tests(void);
void life_add_endure_tests(void);
/* How often the tests of endurance do their thing; 0: there are none. */
unsigned life_endure_rounds(void);

#endif
