/*
 * virtio-blk qtests: a virtual machine with one virtio-blk device, and a
 * small driver for it that can also do everything a driver must not.
 *
 * Each step asserts by itself: a test only says what it expects beyond "this
 * step works".  Nothing waits for ever: every wait has a time-out, and a whole
 * test is aborted by vblk_launch()'s alarm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_FIXTURE_H
#define TESTS_VIRTIO_BLK_FIXTURE_H

#include "qemu/osdep.h"
#include "libqtest.h"
#include "libqos/libqos-malloc.h"
#include "libqos/pci.h"
#include "libqos/pci-pc.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"

#define VBLK_SECTOR         512
#define VBLK_MAX_QUEUES     16
#define VBLK_WAIT_MS        10000       /* longest wait for one thing */
#define VBLK_TEST_SECONDS   60          /* longest time between launches */
#define VBLK_PCI_SLOT       4
#define VBLK_DEV            "vblk0"     /* id= of the device */
#define VBLK_NODE           "disk0"     /* node-name of the top node */
/* QOM path of the device proper (also where the machine is microvm). */
#define VBLK_QOM_PCI        "/machine/peripheral/" VBLK_DEV "/virtio-backend"
#define VBLK_QOM_MMIO       "/machine/peripheral/" VBLK_DEV

/* Not a status that a device writes: what the driver put there before. */
#define VBLK_S_UNTOUCHED    0xff

#define VBLK_BIT(n)         (1ull << (n))
/* Packed ring descriptor flags. */
#define VBLK_PACKED_AVAIL   (1 << 7)
#define VBLK_PACKED_USED    (1 << 15)

typedef enum VblkTransport {
    VBLK_PCI_MODERN,        /* virtio-blk-pci, the VIRTIO 1 interface */
    VBLK_PCI_LEGACY,        /* same device, driven through its I/O BAR */
    VBLK_PCI_LEGACY_ONLY,   /* disable-modern=on */
    VBLK_MMIO_MODERN,       /* virtio-blk-device on microvm, version 2 */
    VBLK_MMIO_LEGACY,       /* the same, version 1 */
} VblkTransport;

/* What to build.  A zeroed structure is a q35, modern PCI, split ring disk. */
typedef struct VblkOpts {
    VblkTransport transport;
    const char *machine;        /* NULL: "q35", or "microvm" for MMIO */
    const char *device;         /* NULL: virtio-blk-pci / virtio-blk-device */
    const char *props;          /* "a=b,c=d" added to -device */
    const char *args;           /* further QEMU arguments (iothreads, ...) */
    const char *blockdev;       /* all -blockdev arguments, top = disk0 */
    const char *image;          /* use this file, do not make one */
    uint64_t size;              /* bytes of the disk; 0: 16 MiB */
    const char *disk_opts;      /* ",a=b" added to the top blockdev */
    const char *file_opts;      /* ",a=b" added to the file blockdev */
    bool blkdebug;              /* raw disk0 -> blkdebug dbg0 -> file0 */
    const char *blkdebug_opts;  /* ",a=b" added to it, e.g. inject-error */
    bool throttle;              /* throttle disk0 -> raw thr-raw -> file0 */
    bool packed;                /* offer packed=on and use it */
    bool indirect;              /* put each request in an indirect table */
    bool iothread;              /* all queues in an iothread of their own */
    bool event_idx;             /* negotiate EVENT_IDX and use it */
    bool msix;                  /* MSI-X rather than INTx (PCI only) */
    bool hotplug;               /* start without the device */
    bool no_disk;               /* no -blockdev by the fixture either */
    unsigned slot;              /* PCI slot to look at; 0: VBLK_PCI_SLOT */
    unsigned num_queues;        /* 0: leave num-queues alone, set up 1 */
    unsigned queue_size;        /* queue-size=; 0: leave it alone */
    unsigned ring_size;         /* entries to set up; 0: what it offers */
    bool keep_used_event;       /* EVENT_IDX: do not ask for interrupts */
    uint64_t refuse;            /* feature bits not to accept */
    const char *binary_env;     /* NULL: QTEST_QEMU_BINARY */
} VblkOpts;

/* A piece of guest memory. */
typedef struct VblkSeg {
    uint64_t addr;
    uint32_t len;
} VblkSeg;

/* One chain in flight.  Owned by the fixture until vblk_wait() gave it back. */
typedef struct VblkReq {
    QTAILQ_ENTRY(VblkReq) next;
    unsigned queue;
    uint16_t head;              /* split: first descriptor; packed: id */
    uint16_t ndesc;             /* ring entries taken */
    uint64_t table;             /* indirect table or 0 */
    bool done;
    uint64_t order;             /* n-th completion of its queue, from 1 */
    uint32_t used_len;
} VblkReq;

typedef struct VblkQueue {
    unsigned index;
    unsigned size;              /* ring entries in use; 0: not set up */
    uint64_t mem;               /* what guest_alloc() returned */
    uint64_t desc, avail, used; /* packed: ring, driver, device area */
    uint16_t num_free;
    uint16_t *free_next;        /* split: free list of descriptors */
    uint16_t free_head;
    uint16_t avail_idx;         /* split: next index; packed: next slot */
    uint16_t used_idx;          /* likewise */
    bool avail_wrap, used_wrap; /* packed wrap counters */
    uint16_t added;             /* split: chains, packed: entries; */
                                /* since the last kick */
    uint64_t pending_addr;      /* packed: first flags, held until the kick */
    uint16_t pending_flags;
    uint64_t kicks;             /* doorbells really rung */
    uint64_t completions;
    VblkReq **by_id;
    uint16_t *id_free;          /* packed: stack of free buffer ids */
    uint16_t id_num_free;
    uint32_t notify_off;        /* modern PCI doorbell */
    uint64_t msix_addr;
    QTAILQ_HEAD(, VblkReq) reqs;
} VblkQueue;

typedef struct Vblk {
    VblkOpts o;
    QTestState *qts;
    char *image;                /* temporary file, removed by vblk_stop() */
    QGuestAllocator alloc;
    QPCIBusPC pcibus;
    QPCIDevice *pdev;
    QPCIBar bar;                /* where the registers are */
    uint32_t common, isr, notify, notify_mul, device; /* offsets in bar */
    uint32_t device_len;        /* bytes of config space the device shows */
    uint64_t mmio;
    uint64_t config_msix_addr;
    uint8_t isr_seen;           /* INTx: causes read and not yet asked for */
    GSList *events;             /* QMP events not asked for yet */
    uint64_t host_features;     /* as read by vblk_negotiate() */
    uint64_t features;          /* accepted */
    VblkQueue q[VBLK_MAX_QUEUES];
} Vblk;

/* Fail the test with a message of its own, as an assertion does. */
#define vblk_fail(...) do {                                                  \
        g_autofree char *msg_ = g_strdup_printf(__VA_ARGS__);                \
        g_assertion_message(G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC,     \
                            msg_);                                           \
    } while (0)

/* ---- life of the machine ---- */

/* vblk_start: QEMU with the device, up to DRIVER_OK. */
Vblk *vblk_start(const VblkOpts *o);
/* vblk_launch: QEMU, no register touched; vblk_attach: find the device. */
Vblk *vblk_launch(const VblkOpts *o);
void vblk_attach(Vblk *v);
void vblk_detach(Vblk *v);      /* forget the device (before an unplug) */
void vblk_stop(Vblk *v);
/*
 * The guest has migrated to the QEMU of @to (launched, not attached): its
 * driver, rings and requests, that is @v, go on there; @to has the old QEMU.
 */
void vblk_move(Vblk *v, Vblk *to);
/*
 * The type that all tests are for: virtio-blk's, or with VBLK_VHOST in the
 * environment vhost-blk's, where QTEST_QEMU_BINARY must have a /dev/vhost-blk.
 */
const char *vblk_type(bool pci);
/* The arguments of -device as the fixture would write them (free it). */
char *vblk_device_arg(const VblkOpts *o);
/* vblk_device_add: hot plug that device through QMP (not attached yet). */
void vblk_device_add(Vblk *v);

/*
 * vblk_fails: start QEMU with these options; it must fail, and say on standard
 * error something that contains each of the words.  (NULL ends the list.)
 */
void vblk_fails(const VblkOpts *o, ...) G_GNUC_NULL_TERMINATED;

static inline bool vblk_is_pci(const Vblk *v)
{
    return v->o.transport <= VBLK_PCI_LEGACY_ONLY;
}

static inline bool vblk_is_modern(const Vblk *v)
{
    return v->o.transport == VBLK_PCI_MODERN ||
           v->o.transport == VBLK_MMIO_MODERN;
}

static inline bool vblk_has(const Vblk *v, unsigned feature)
{
    return v->features & VBLK_BIT(feature);
}

const char *vblk_qom_path(const Vblk *v);

/* ---- initialisation, in one go or step by step ---- */

void vblk_setup(Vblk *v);               /* all of the following */
void vblk_reset(Vblk *v);               /* status 0; forgets all rings */
uint64_t vblk_offered(Vblk *v);         /* feature bits offered */
void vblk_negotiate(Vblk *v);           /* ACK, DRIVER, features, OK */
/* Write exactly these bits; true if FEATURES_OK stuck (always on legacy). */
bool vblk_accept(Vblk *v, uint64_t features);
void vblk_queue_setup(Vblk *v, unsigned q);
void vblk_queues_setup(Vblk *v);        /* o.num_queues or 1 of them */
void vblk_driver_ok(Vblk *v);
unsigned vblk_queue_max(Vblk *v, unsigned q);   /* size the device offers */
/* RING_RESET: write queue_reset = 1 / wait until it reads 0 / forget rings. */
void vblk_queue_reset_begin(Vblk *v, unsigned q);
void vblk_queue_reset_wait(Vblk *v, unsigned q);
void vblk_queue_reset(Vblk *v, unsigned q);
/* Give the queue's memory and requests back without telling the device. */
void vblk_queue_forget(Vblk *v, unsigned q);

uint8_t vblk_status(Vblk *v);
void vblk_set_status(Vblk *v, uint8_t status);
/* Wait for NEEDS_RESET (modern), see that a good request gets no answer. */
void vblk_expect_broken(Vblk *v, unsigned q);

/* ---- configuration space (offsets: struct virtio_blk_config) ---- */

uint8_t vblk_cfg8(Vblk *v, unsigned off);
uint16_t vblk_cfg16(Vblk *v, unsigned off);
uint32_t vblk_cfg32(Vblk *v, unsigned off);
uint64_t vblk_cfg64(Vblk *v, unsigned off);
void vblk_cfg_write8(Vblk *v, unsigned off, uint8_t val);
#define vblk_cfg(v, field) \
    (sizeof(((struct virtio_blk_config *)0)->field) == 1 ? \
        vblk_cfg8(v, offsetof(struct virtio_blk_config, field)) : \
     sizeof(((struct virtio_blk_config *)0)->field) == 2 ? \
        vblk_cfg16(v, offsetof(struct virtio_blk_config, field)) : \
     sizeof(((struct virtio_blk_config *)0)->field) == 4 ? \
        vblk_cfg32(v, offsetof(struct virtio_blk_config, field)) : \
        vblk_cfg64(v, offsetof(struct virtio_blk_config, field)))
uint32_t vblk_cfg_generation(Vblk *v);  /* modern only */

/* ---- guest memory ---- */

uint64_t vblk_alloc(Vblk *v, size_t len);           /* zeroed */
uint64_t vblk_put(Vblk *v, const void *data, size_t len);
void vblk_free(Vblk *v, uint64_t addr);
/* An address range that no RAM and no device answers. */
uint64_t vblk_hole(Vblk *v);

/* ---- raw chains: any layout, right or wrong ---- */

/*
 * Put the chain on the ring.  The device cannot see it before vblk_publish()
 * or vblk_kick(), so that what is submitted between two kicks is one batch.
 */
VblkReq *vblk_submit(Vblk *v, unsigned q, const VblkSeg *out, unsigned nout,
                     const VblkSeg *in, unsigned nin);
/*
 * One raw ring entry chain for malformed rings: descriptors as given, written
 * from the queue's next free slot and made available as they are.  @next is
 * relative to the first one (split rings only).
 */
typedef struct VblkRawDesc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
    bool next_absolute;
} VblkRawDesc;
VblkReq *vblk_submit_raw(Vblk *v, unsigned q, const VblkRawDesc *d,
                         unsigned n);
/* Split rings: make any head index available. */
void vblk_avail_push(Vblk *v, unsigned q, uint16_t head);
/* A table for VRING_DESC_F_INDIRECT, @next counting from its start. */
uint64_t vblk_put_table(Vblk *v, const VblkRawDesc *d, unsigned n);
void vblk_publish(Vblk *v, unsigned q);     /* make visible, no doorbell */
/* Publish, ring the doorbell if the device wants it (returns that). */
bool vblk_kick(Vblk *v, unsigned q);
void vblk_notify(Vblk *v, unsigned q);      /* only the doorbell */
/* Look at the used ring; true once the chain is done. */
bool vblk_done(Vblk *v, VblkReq *req);
/* Wait for it, free it; stores used.len.  Aborts after VBLK_WAIT_MS. */
void vblk_wait(Vblk *v, VblkReq *req, uint32_t *used_len);
/* Poll for @ms; aborts if the chain completes. */
void vblk_expect_pending(Vblk *v, VblkReq *req, unsigned ms);
/* Completions that the used ring of @q shows (polls it). */
uint64_t vblk_completions(Vblk *v, unsigned q);

/* ---- whole requests ---- */

typedef struct VblkIo {
    VblkReq *req;
    uint32_t type;
    uint64_t hdr, data, status;     /* guest addresses */
    uint32_t len;
} VblkIo;

/* Is the data of this type of request written by the device? */
bool vblk_type_is_in(uint32_t type);
/* header, one data segment (if len), status; not kicked.  data NULL: zeroes */
VblkIo *vblk_io(Vblk *v, unsigned q, uint32_t type, uint64_t sector,
                const void *data, uint32_t len);
/*
 * Wait, copy in-data to @data if not NULL, free; returns the status byte.
 * Its address and io->data may be used before that to look at the memory.
 */
uint8_t vblk_io_wait(Vblk *v, VblkIo *io, void *data);
/* The same, and used.len. */
uint8_t vblk_io_finish(Vblk *v, VblkIo *io, void *data, uint32_t *used);
bool vblk_io_done(Vblk *v, VblkIo *io);
uint8_t vblk_io_status(Vblk *v, VblkIo *io);    /* byte in memory, now */
void vblk_io_abandon(Vblk *v, VblkIo *io);  /* after a reset dropped it */

/* submit, kick, wait.  @used may be NULL. */
uint8_t vblk_cmd(Vblk *v, unsigned q, uint32_t type, uint64_t sector,
                 void *data, uint32_t len, uint32_t *used);
uint8_t vblk_read(Vblk *v, uint64_t sector, void *data, uint32_t len);
uint8_t vblk_write(Vblk *v, uint64_t sector, const void *data, uint32_t len);
uint8_t vblk_flush(Vblk *v);
/* Write a pattern, read it back, on queue q: "this queue works". */
void vblk_check_io(Vblk *v, unsigned q);
/* After what broke the device: a reset must make it whole. */
void vblk_recover(Vblk *v);
/* @len bytes that depend on @seed and position. */
void vblk_pattern(void *data, size_t len, uint32_t seed);

/* ---- chains built descriptor by descriptor ---- */

#define VBLK_CHAIN_MAX      300
#define VBLK_FILL           0xaa    /* what in-buffers hold beforehand */

typedef struct VblkChain {
    VblkSeg out[VBLK_CHAIN_MAX], in[VBLK_CHAIN_MAX];
    unsigned nout, nin;
    uint64_t status;            /* address of the status byte, 0: none */
} VblkChain;

/* Each returns the guest address.  Memory is not given back before the end. */
uint64_t vblk_chain_out(Vblk *v, VblkChain *c, const void *data, uint32_t len);
uint64_t vblk_chain_in(Vblk *v, VblkChain *c, uint32_t len);
void vblk_chain_header(Vblk *v, VblkChain *c, uint32_t type, uint64_t sector);
void vblk_chain_status(Vblk *v, VblkChain *c);
VblkReq *vblk_chain_submit(Vblk *v, unsigned q, const VblkChain *c);
/* submit, kick, wait; the status byte, or VBLK_S_UNTOUCHED without one */
uint8_t vblk_chain_run(Vblk *v, unsigned q, const VblkChain *c,
                       uint32_t *used);
/* Are these @len bytes of guest memory all @val? */
bool vblk_mem_is(Vblk *v, uint64_t addr, uint8_t val, uint32_t len);

/* ---- interrupts ---- */

bool vblk_irq(Vblk *v, unsigned q);         /* came since last asked? */
bool vblk_config_irq(Vblk *v);
void vblk_wait_irq(Vblk *v, unsigned q);
void vblk_wait_config_irq(Vblk *v);

/* ---- QMP ---- */

/* The whole response, with "return" or "error". */
QDict *vblk_qmp(Vblk *v, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void vblk_qmp_ok(Vblk *v, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/*
 * The oldest event of that name not yet taken (unref it), or NULL after the
 * time-out.  Other events are kept.  (qtest_qmp_eventwait() sees none.)
 */
QDict *vblk_event(Vblk *v, const char *name, unsigned timeout_ms);
void vblk_expect_event(Vblk *v, const char *name);      /* VBLK_WAIT_MS */
bool vblk_no_event(Vblk *v, const char *name, unsigned timeout_ms);
/* One number of query-blockstats for disk0, e.g. "wr_merged". */
int64_t vblk_stat(Vblk *v, const char *name);
/* Is the device's write cache on?  (query-block) */
bool vblk_writeback(Vblk *v);
char *vblk_qom_str(Vblk *v, const char *prop);      /* of the device proper */
/* What the command printed (free it). */
char *vblk_qemu_io(Vblk *v, const char *node, const char *cmd);

/*
 * Does the binary's device have this property?  When not, marks the test as
 * skipped (with the name of the property) and returns false.
 */
bool vblk_needs_prop(const char *prop);
bool vblk_has_prop(const char *device, const char *prop);
bool vblk_has_type(const char *device);
bool vblk_needs_machine(const char *machine);
/* Is QEMU that new? */
bool vblk_needs_version(unsigned major, unsigned minor, const char *what);
/* Can it serve virtio-mmio from an iothread without KVM? */
bool vblk_needs_mmio_iothread(void);

/* ---- requests held in flight ---- */

/*
 * With o.blkdebug: the next request that raises @event ("read_aio",
 * "write_aio", "flush_to_disk", ...) in the block layer is held under @tag
 * until vblk_release().  One call holds one request; a drain waits for it for
 * ever, so release it before anything that drains.  Not for use with
 * iothreads: the release resumes the request in the main loop's thread.
 */
void vblk_hold(Vblk *v, const char *event, const char *tag);
void vblk_wait_held(Vblk *v, const char *tag);
void vblk_release(Vblk *v, const char *tag);
/*
 * With o.throttle: from now on requests stay queued in the throttle filter
 * (one a 1000 s of the test's clock, which stands still), until
 * vblk_throttle_off(), or until a drain lets them go at once.
 */
void vblk_throttle_on(Vblk *v);
void vblk_throttle_off(Vblk *v);

/* ---- test registration ---- */

/* A layout variant that a test is run with. */
typedef struct VblkVariant {
    const char *name;           /* "modern-split", ... */
    VblkTransport transport;
    bool packed, indirect, event_idx;
    bool iothread;
} VblkVariant;

#define VBLK_ON_SPLIT       0x01        /* modern PCI, split ring */
#define VBLK_ON_PACKED      0x02        /* modern PCI, packed ring */
#define VBLK_ON_LEGACY      0x04        /* legacy PCI */
#define VBLK_ON_MMIO        0x08        /* modern MMIO */
#define VBLK_ON_MMIO_LEGACY 0x10
#define VBLK_ON_INDIRECT    0x20        /* modern PCI, split, all extras */
#define VBLK_ON_PACKED_IND  0x40        /* modern PCI, packed, all extras */
#define VBLK_ON_IOTHREAD    0x80        /* modern PCI, split, iothread */
#define VBLK_ON_MMIO_IOT    0x100       /* modern MMIO, packed, iothread */
#define VBLK_ON_LEGACY_IOT  0x200       /* legacy PCI, iothread */
/* Any two of transport, ring format and thread come together in one. */
#define VBLK_ON_MODERN      (VBLK_ON_SPLIT | VBLK_ON_PACKED | VBLK_ON_MMIO | \
                             VBLK_ON_IOTHREAD | VBLK_ON_MMIO_IOT)
#define VBLK_ON_MOST        (VBLK_ON_MODERN | VBLK_ON_LEGACY)
#define VBLK_ON_ALL         0x1ff

/* Adds /virtio-blk/NAME/VARIANT for each variant in @where. */
void vblk_add(const char *name, unsigned where,
              void (*fn)(const VblkVariant *variant));
/* Adds /virtio-blk/NAME. */
void vblk_add_one(const char *name, void (*fn)(void));
void vblk_add_data(const char *name, const void *data,
                   void (*fn)(const void *data));
/* Free @data with g_free() when all tests have run; returns it. */
void *vblk_keep(void *data);
/* The options of a variant, to be refined by the test. */
VblkOpts vblk_opts(const VblkVariant *variant);

/* Each source file of tests has one of these; main.c calls them all. */
void vblk_add_request_tests(void);
void vblk_add_malformed_tests(void);
void vblk_add_ring_tests(void);
void vblk_add_property_tests(void);
void vblk_add_config_tests(void);
void vblk_add_merge_tests(void);
void vblk_add_lifecycle_tests(void);    /* lifecycle.c */
void vblk_add_engine_tests(void);
void vblk_add_fault_tests(void);
void vblk_add_engine_flush_tests(void);
void vblk_add_engine_range_tests(void);
void vblk_add_engine_flip_tests(void);
void vblk_add_memory_tests(void);
void vblk_add_registered_tests(void);
void vblk_add_register_tests(void);
void vblk_add_oom_tests(void);
void vblk_add_chaos_tests(void);
void vblk_add_sandbox_tests(void);
/* Become @argv, with one system call forbidden (sandbox.c). */
void vblk_exec_without(int nr, char **argv) G_NORETURN;
void vblk_add_haiku_tests(void);        /* historic-haiku.c */
void vblk_add_linux3_tests(void);       /* historic-linux.c */
void vblk_add_vhost_tests(void);
void vblk_add_scsi_tests(void);
void vblk_add_fuzz_tests(void);
void vblk_add_erase_tests(void);
void vblk_add_lifetime_tests(void);
void vblk_add_zoned_tests(void);
void vblk_add_zoned_host_tests(void);
void vblk_add_medium_tests(void);
void vblk_add_conform_init_tests(void);     /* conform-*.c */
void vblk_add_conform_bug_tests(void);

#endif
