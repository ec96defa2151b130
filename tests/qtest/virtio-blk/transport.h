/*
 * virtio-blk qtests: the registers of the transports
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_TRANSPORT_H
#define TESTS_VIRTIO_BLK_TRANSPORT_H

#include "fixture.h"

/* What a driver does with registers; queue calls act on the selected queue. */
typedef struct VblkBus {
    bool (*find)(Vblk *v);
    uint64_t (*features)(Vblk *v);
    void (*accept)(Vblk *v, uint64_t features);
    uint8_t (*status)(Vblk *v);
    void (*set_status)(Vblk *v, uint8_t status);
    void (*select)(Vblk *v, unsigned q);
    unsigned (*queue_max)(Vblk *v);
    void (*enable)(Vblk *v, VblkQueue *vq);
    void (*notify)(Vblk *v, VblkQueue *vq);
    uint8_t (*read_isr)(Vblk *v);           /* reads and acknowledges */
    uint32_t (*cfg_read)(Vblk *v, unsigned off, unsigned len);
    void (*cfg_write8)(Vblk *v, unsigned off, uint8_t val);
    uint32_t (*generation)(Vblk *v);
} VblkBus;

const VblkBus *vblk_bus(const Vblk *v);

/* PCI only, after the features: point a vector at a word of guest memory. */
uint64_t vblk_msix_vector(Vblk *v, unsigned vector);
void vblk_msix_config(Vblk *v, unsigned vector);
void vblk_msix_queue(Vblk *v, unsigned vector);
/* VERSION_1 PCI only. */
void vblk_queue_reset_write(Vblk *v, uint16_t val);
uint16_t vblk_queue_reset_read(Vblk *v);

#endif
