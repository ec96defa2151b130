/*
 * virtio-blk: is the node a plain file, which needs no block layer?
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/stat.h>
#include "block/block_int.h"
#include "block/write-threshold.h"
#include "qobject/qdict.h"
#include "system/block-backend.h"
#include "internal.h"

/* Why requests must pass through @bs, or NULL. */
static const char *node_needs_requests(BlockDriverState *bs)
{
    if (qatomic_read(&bs->copy_on_read)) {
        return "copy-on-read is on";
    }
    if (bs->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF) {
        return "detect-zeroes is on";
    }
    if (bs->encrypted) {
        return "the node is encrypted";
    }
    if (bs->probed) {
        return "the format was probed, so writes to its start are watched";
    }
    return NULL;
}

/*
 * Why a node that lends nothing itself is not a raw format node with the same
 * bytes as its file, or NULL.
 */
static const char *raw_is_not_plain(BlockDriverState *bs)
{
    if (bs->bl.zoned != BLK_Z_NONE) {
        /* The block layer follows their write pointers. */
        return "the disk has zones";
    }
    if (strcmp(bs->drv->format_name, "raw")) {
        return "the node is neither a file nor raw";
    }
    if (qdict_haskey(bs->options, "offset") ||
        qdict_haskey(bs->options, "size")) {
        return "the raw node is a part of its file";
    }
    return bs->file ? node_needs_requests(bs) : "the raw node has no file";
}

static void plain_fill(VirtIOBlkPlain *plain, BlockBackend *blk,
                       BlockDriverState *bs)
{
    QDict *options = bs->options;

    plain->throttle = &blk_get_public(blk)->throttle_group_member;
    plain->mem_align = 1;
    plain->direct = bs->open_flags & BDRV_O_NOCACHE;
    if (plain->direct) {
        plain->mem_align = MAX(bs->bl.min_mem_alignment,
                               bs->bl.request_alignment);
    }
    plain->no_flush = bs->open_flags & BDRV_O_NO_FLUSH;
    plain->unmap = bs->open_flags & blk_bs(blk)->open_flags & BDRV_O_UNMAP;
    plain->aio_chosen = bs->open_flags & BDRV_O_NATIVE_AIO;
    if (qdict_haskey(options, "aio")) {
        const char *aio = qdict_get_try_str(options, "aio");

        plain->aio_chosen = !aio || strcmp(aio, "io_uring");
    }
}

/* Fill in what is known of an open file; false when it is none. */
static bool plain_measure(VirtIOBlkPlain *plain, BlockBackend *blk)
{
    struct stat st;
    uint64_t sectors;

    if (fstat(plain->fd, &st) < 0) {
        return false;
    }
    blk_get_geometry(blk, &sectors);
    plain->size = sectors << BDRV_SECTOR_BITS;
    plain->regular = S_ISREG(st.st_mode);
    if (plain->regular) {
        plain->size = MIN(plain->size,
                          QEMU_ALIGN_DOWN(st.st_size, BDRV_SECTOR_SIZE));
    }
    return true;
}

VirtIOBlkPlain *virtio_blk_plain_find(VirtIOBlock *s, const char **why)
{
    g_autofree VirtIOBlkPlain *plain = g_new0(VirtIOBlkPlain, 1);
    BlockDriverState *bs = blk_bs(s->blk);
    unsigned n = 0;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (s->conf.conf.share_rw) {
        *why = "share-rw is on: others may write too";
        return NULL;
    }
    plain->node[n++] = bs;
    plain->fd = bs ? bdrv_posix_fd(bs) : -ENOMEDIUM;
    if (plain->fd == -ENOTSUP) {
        *why = raw_is_not_plain(bs);
        if (*why) {
            return NULL;
        }
        bs = bs->file->bs;
        plain->node[n++] = bs;
        plain->fd = bdrv_posix_fd(bs);
    }
    if (plain->fd < 0 || !plain_measure(plain, s->blk)) {
        *why = "there is no file or host device that can be lent";
        return NULL;
    }
    *why = node_needs_requests(bs);
    if (!*why && bs->bl.request_alignment > s->conf.conf.logical_block_size) {
        /* The block layer would read, modify and write beside us. */
        *why = "the file needs larger blocks than the guest's";
    }
    if (*why) {
        return NULL;
    }
    plain_fill(plain, s->blk, bs);
    return g_steal_pointer(&plain);
}

void virtio_blk_plain_will_write(const VirtIOBlkPlain *plain, int64_t offset,
                                 int64_t bytes)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain->node) && plain->node[i]; i++) {
        if (unlikely(plain->node[i]->write_threshold_offset)) {
            bdrv_write_threshold_check_write(plain->node[i], offset, bytes);
        }
    }
}

void virtio_blk_plain_written(const VirtIOBlkPlain *plain, int64_t offset,
                              int64_t bytes)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain->node) && plain->node[i]; i++) {
        bdrv_bypass_write_done(plain->node[i], offset, bytes);
    }
}

void virtio_blk_plain_discarded(const VirtIOBlkPlain *plain, int64_t offset,
                                int64_t bytes)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain->node) && plain->node[i]; i++) {
        bdrv_bypass_discard_done(plain->node[i], offset, bytes);
    }
}

BlockDriverState *virtio_blk_plain_file(const VirtIOBlkPlain *plain)
{
    return plain->node[1] ?: plain->node[0];
}
