/*
 * virtio-blk fuzzing: the loader of the migration section
 *
 * Input: number of queues, features, the config space that the base loaded
 * before, and then the section.  The loader is compiled in here, over a stream
 * and a device that are no more than it needs: a ring element is one byte.
 * What was loaded is saved again, and must be the section that was read.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
/* Neither messages nor classes: the device is no object. */
#define error_report fuzz_error_report
#define object_dynamic_cast_assert fuzz_cast
#include "hw/block/virtio-blk/migration.c"
#include "input.h"

#define MAX_QUEUES  8

typedef struct Bytes {
    uint8_t data[8192];
    size_t len;
} Bytes;

static FuzzInput stream;
static Bytes loaded, saved;
static VirtIOBlock device;
static VirtIOBlkQueue queues[MAX_QUEUES];
static bool packed;
static uint64_t features;
static int cache_set;

static void record(Bytes *b, const void *data, size_t len)
{
    if (b->len + len <= sizeof(b->data)) {
        memcpy(b->data + b->len, data, len);
    }
    b->len += len;
}

/* ---- what the loader calls ---- */

int qemu_get_byte(QEMUFile *f)
{
    uint8_t x = fuzz_u8(&stream);

    record(&loaded, &x, 1);
    return x;
}

unsigned int qemu_get_be32(QEMUFile *f)
{
    uint32_t x = fuzz_u32(&stream);

    record(&loaded, &x, sizeof(x));
    return x;
}

void qemu_put_byte(QEMUFile *f, int v)
{
    uint8_t x = v;

    record(&saved, &x, 1);
}

void qemu_put_be32(QEMUFile *f, unsigned int v)
{
    uint32_t x = v;

    record(&saved, &x, sizeof(x));
}

void *qemu_get_virtqueue_element(VirtIODevice *vdev, QEMUFile *f, size_t sz)
{
    VirtQueueElement *elem = g_malloc0(sz);

    elem->index = qemu_get_byte(f);
    elem->ndescs = packed ? 3 : 0;
    return elem;
}

void qemu_put_virtqueue_element(VirtIODevice *vdev, QEMUFile *f,
                                VirtQueueElement *elem)
{
    qemu_put_byte(f, elem->index);
}

void blk_set_enable_write_cache(BlockBackend *blk, bool wce)
{
    cache_set = wce;
}

bool virtio_blk_config_was_read(VirtIOBlock *s)
{
    return virtio_lduw_p(&s->parent_obj,
                         &((struct virtio_blk_config *)
                           s->parent_obj.config)->num_queues);
}

void error_report(const char *fmt, ...)
{
}

Object *object_dynamic_cast_assert(Object *obj, const char *name,
                                   const char *file, int line,
                                   const char *func)
{
    return obj;
}

const VMStateInfo virtio_vmstate_info;

/* ---- one run ---- */

static void set_up(FuzzInput *in, struct virtio_blk_config *cfg)
{
    memset(&device, 0, sizeof(device));
    device.conf.num_queues = 1 + fuzz_u8(in) % MAX_QUEUES;
    device.queues = queues;
    packed = fuzz_u8(in) & 1;
    features = packed ? 1ull << VIRTIO_F_RING_PACKED : 0;
    device.parent_obj.host_features = features;
    device.parent_obj.guest_features = fuzz_u64(in);
    device.parent_obj.config = (uint8_t *)cfg;
    fuzz_take(in, cfg, sizeof(*cfg));
    qemu_mutex_init(&device.stopped_lock);
    QSIMPLEQ_INIT(&device.stopped);
    loaded.len = saved.len = 0;
    cache_set = -1;
}

static void tear_down(void)
{
    VirtIOBlockReq *req;

    while ((req = QSIMPLEQ_FIRST(&device.stopped))) {
        QSIMPLEQ_REMOVE_HEAD(&device.stopped, stopped_link);
        g_free(req);
    }
    qemu_mutex_destroy(&device.stopped_lock);
}

static void check_requests(void)
{
    VirtIOBlockReq *req;

    QSIMPLEQ_FOREACH(req, &device.stopped, stopped_link) {
        FUZZ_CHECK(req->queue >= queues &&
                   req->queue < queues + device.conf.num_queues);
        FUZZ_CHECK(req->elem.ndescs == (packed ? 3 : 1));
    }
}

/* Anything but 0 means "one more", but is written as 1. */
static void check_saved(void)
{
    size_t at = 0, unit = device.conf.num_queues > 1 ? 6 : 2;

    virtio_blk_save(&device.parent_obj, NULL);
    FUZZ_CHECK(saved.len == loaded.len);
    if (saved.len > sizeof(saved.data)) {
        return;
    }
    for (; at + unit < saved.len; at += unit) {
        FUZZ_CHECK(saved.data[at] == 1 && loaded.data[at] != 0);
        FUZZ_CHECK(!memcmp(saved.data + at + 1, loaded.data + at + 1,
                           unit - 1));
    }
    FUZZ_CHECK(saved.data[at] == 0 && at + 1 == saved.len);
}

static void check_post_load(const struct virtio_blk_config *cfg)
{
    int ret = virtio_blk_post_load(&device.parent_obj);

    if (ret == 0 && cache_set >= 0) {
        FUZZ_CHECK(lduw_le_p(&cfg->num_queues) == device.conf.num_queues ||
                   lduw_be_p(&cfg->num_queues) == device.conf.num_queues);
    }
    FUZZ_CHECK(ret == 0 || cache_set < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct virtio_blk_config cfg;

    stream = (FuzzInput) { data, size };
    set_up(&stream, &cfg);
    if (virtio_blk_load(&device.parent_obj, NULL, 2) == 0) {
        check_requests();
        check_saved();
        check_post_load(&cfg);
    }
    tear_down();
    return 0;
}
