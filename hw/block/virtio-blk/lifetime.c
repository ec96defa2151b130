/*
 * virtio-blk: how worn the medium is (GET_LIFETIME)
 *
 * eMMC and UFS report their wear in sysfs, in the very units that VIRTIO uses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "block/thread-pool.h"
#include "qapi/error.h"
#include "qemu/bswap.h"
#include "qemu/lockable.h"
#include "internal.h"
#include "wire.h"
#ifdef CONFIG_LINUX
#include <sys/sysmacros.h>
#endif

/* Highest values that VIRTIO 1.4, 5.2.6 defines; others are never sent. */
#define PRE_EOL_MAX     3
#define EST_MAX         11

/* Wear: of a medium, host byte order; all 0 where it is not known. */
typedef struct Wear {
    unsigned pre_eol;
    unsigned type_a;
    unsigned type_b;
} Wear;

/* LifetimeIO: one GET_LIFETIME on its way through a worker thread. */
typedef struct LifetimeIO {
    VirtIOBlockReq *req;
    char *filename;
    Wear wear;
} LifetimeIO;

/* Read up to two numbers ("0x01" or "0x01 0x02") from @dir/@file. */
static int read_numbers(const char *dir, const char *file,
                        unsigned *a, unsigned *b)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    return sscanf(text, "%i %i", (int *)a, (int *)b);
}

static bool wear_valid(const Wear *wear)
{
    return wear->pre_eol >= 1 && wear->pre_eol <= PRE_EOL_MAX &&
           wear->type_a <= EST_MAX && wear->type_b <= EST_MAX &&
           (wear->type_a || wear->type_b);
}

static bool read_emmc(const char *dir, Wear *wear)
{
    unsigned unused;

    return read_numbers(dir, "pre_eol_info", &wear->pre_eol, &unused) == 1 &&
           read_numbers(dir, "life_time", &wear->type_a, &wear->type_b) == 2;
}

static bool read_ufs(const char *dir, Wear *wear)
{
    g_autofree char *health = g_build_filename(dir, "health_descriptor", NULL);
    unsigned unused;

    return read_numbers(health, "eol_info", &wear->pre_eol, &unused) == 1 &&
           read_numbers(health, "life_time_estimation_a", &wear->type_a,
                        &unused) == 1 &&
           read_numbers(health, "life_time_estimation_b", &wear->type_b,
                        &unused) == 1;
}

/*
 * Look at the block device's own folder in sysfs and at those above it: a
 * partition lies below its disk, a UFS unit below its host controller.
 */
static int read_wear(const char *filename, Wear *wear)
{
    g_autofree char *link = NULL;
    g_autofree char *dir = NULL;
    struct stat st;

    if (stat(filename, &st) < 0 || !S_ISBLK(st.st_mode)) {
        return -ENOTSUP;
    }
    link = g_strdup_printf("/sys/dev/block/%u:%u",
                           major(st.st_rdev), minor(st.st_rdev));
    dir = realpath(link, NULL);
    while (dir && g_str_has_prefix(dir, "/sys/devices/")) {
        g_autofree char *device = g_build_filename(dir, "device", NULL);
        char *slash = strrchr(dir, '/');

        if ((read_emmc(device, wear) || read_ufs(dir, wear)) &&
            wear_valid(wear)) {
            return 0;
        }
        *slash = '\0';
    }
    return -ENOTSUP;
}

/* "" where there is no medium. */
static char *medium_filename(VirtIOBlock *s)
{
    BlockDriverState *bs = blk_bs(s->blk);

    /* The medium may have been taken away. */
    return g_strdup(bs ? bs->exact_filename : "");
}

void virtio_blk_lifetime_medium(VirtIOBlock *s)
{
    QEMU_LOCK_GUARD(&s->medium_lock);

    g_free(s->medium_name);
    s->medium_name = medium_filename(s);
}

bool virtio_blk_lifetime_check(VirtIOBlock *s, Error **errp)
{
    g_autofree char *filename = medium_filename(s);
    Wear wear = {};

    if (read_wear(filename, &wear) == 0) {
        return true;
    }
    error_setg(errp, "lifetime=on needs a host_device on eMMC or UFS that "
               "reports its wear; use lifetime=off");
    return false;
}

static int lifetime_worker(void *opaque)
{
    LifetimeIO *io = opaque;

    return read_wear(io->filename, &io->wear);
}

static uint16_t wire16(uint16_t value, bool big_endian)
{
    return big_endian ? cpu_to_be16(value) : cpu_to_le16(value);
}

static void lifetime_done(void *opaque, int ret)
{
    LifetimeIO *io = opaque;
    VirtIOBlock *s = io->req->queue->dev;
    VirtIOBlkFrame *frame = &io->req->frame;
    bool be = virtio_blk_big_endian(s);
    VirtIOBlkLifetime answer = {
        .pre_eol_info = wire16(io->wear.pre_eol, be),
        .device_lifetime_est_typ_a = wire16(io->wear.type_a, be),
        .device_lifetime_est_typ_b = wire16(io->wear.type_b, be),
    };

    if (ret) {
        virtio_blk_req_complete(io->req, VIRTIO_BLK_S_IOERR);
    } else {
        iov_from_buf(frame->in, frame->in_num, 0, &answer, sizeof(answer));
        virtio_blk_req_finish(io->req, VIRTIO_BLK_S_OK, sizeof(answer));
    }
    g_free(io->filename);
    g_free(io);
    blk_dec_in_flight(s->blk);
}

void virtio_blk_cmd_get_lifetime(VirtIOBlockReq *req)
{
    VirtIOBlock *s = req->queue->dev;
    LifetimeIO *io;

    if (!s->conf.lifetime) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (req->frame.in_len < sizeof(VirtIOBlkLifetime)) {
        virtio_blk_req_complete(req, VIRTIO_BLK_S_IOERR);
        return;
    }
    io = g_new0(LifetimeIO, 1);
    io->req = req;
    WITH_QEMU_LOCK_GUARD(&s->medium_lock) {
        io->filename = g_strdup(s->medium_name);
    }
    blk_inc_in_flight(s->blk);
    thread_pool_submit_aio(lifetime_worker, io, lifetime_done, io);
}
