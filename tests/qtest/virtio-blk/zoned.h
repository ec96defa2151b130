/*
 * virtio-blk qtests: requests to zones
 *
 * Of zoned.c, for whatever the zoned disk is.  Each submits, waits and returns
 * the status byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_ZONED_H
#define TESTS_VIRTIO_BLK_ZONED_H

#include "fake.h"

/* One of the commands without data, for the zone at @sector. */
uint8_t zone_at(Vblk *v, uint32_t type, uint64_t sector);
/* Write vblk_pattern() with @sector as its seed. */
uint8_t write_at(Vblk *v, uint64_t sector, unsigned sectors);
/* Append the pattern of seed 99; @where: the sector, ~0 after a failure. */
uint8_t append(Vblk *v, uint64_t sector, unsigned sectors, uint64_t *where);
/*
 * Report from @sector into @len bytes; @desc has room for the zones that fit
 * into these, @num is how many there were.
 */
uint8_t report(Vblk *v, uint64_t sector, uint32_t len,
               struct virtio_blk_zone_descriptor *desc, uint64_t *num);

#endif
