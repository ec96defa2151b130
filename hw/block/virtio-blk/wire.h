/*
 * virtio-blk: wire structures that the Linux header does not have yet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_BLOCK_VIRTIO_BLK_WIRE_H
#define HW_BLOCK_VIRTIO_BLK_WIRE_H

/* VIRTIO 1.4, 5.2.3 and 5.2.6 */
#define VIRTIO_BLK_F_LIFETIME           15
#define VIRTIO_BLK_T_GET_LIFETIME       10

/* VirtIOBlkLifetime: answer to GET_LIFETIME, little or guest endian. */
typedef struct QEMU_PACKED VirtIOBlkLifetime {
    uint16_t pre_eol_info;              /* 1 normal, 2 warning, 3 urgent */
    uint16_t device_lifetime_est_typ_a; /* 1..11, tenths of life used */
    uint16_t device_lifetime_est_typ_b;
} VirtIOBlkLifetime;

#endif
