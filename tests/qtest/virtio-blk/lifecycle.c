/*
 * virtio-blk qtests: registration of the life-cycle tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "life.h"

void vblk_add_lifecycle_tests(void)
{
    life_add_reset_tests();
    life_add_ring_reset_tests();
    life_add_stop_tests();
    life_add_error_tests();
    life_add_plug_tests();
    life_add_drain_tests();
    life_add_cache_tests();
    life_add_acct_tests();
    life_add_migrate_tests();
    life_add_bus_tests();
    life_add_endure_tests();
}
