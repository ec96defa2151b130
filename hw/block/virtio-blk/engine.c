/*
 * virtio-blk: which engine serves the device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "internal.h"
#include "trace.h"

bool virtio_blk_engine_check(VirtIOBlock *s, Error **errp)
{
    const char *want = s->conf.io_engine;

    if (!want || !strcmp(want, "auto") ||
        !strcmp(want, virtio_blk_engine_block.name)) {
        return true;
    }
    error_setg(errp, "io-engine=%s is not known; use auto or block", want);
    return false;
}

void virtio_blk_engine_select(VirtIOBlock *s, const char *why)
{
    const VirtIOBlkEngine *engine = &virtio_blk_engine_block;

    if (s->engine != engine) {
        s->engine = engine;
        trace_virtio_blk_engine(VIRTIO_DEVICE(s), engine->name, why);
    }
}
