/*
 * virtio-blk qtests: what two historic drivers have in common
 *
 * The profiles do what those drivers do on the wire, in that order, with the
 * legacy registers and a split ring of their own: nothing here uses the ring
 * of the fixture, which behaves better than they did.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_VIRTIO_BLK_HISTORIC_H
#define TESTS_VIRTIO_BLK_HISTORIC_H

#include "fixture.h"
#include "standard-headers/linux/virtio_pci.h"

#define OLD_MAX_SEGS        300

/* Device and disk that a profile is run with. */
typedef struct OldCase {
    const char *name;
    VblkTransport transport;    /* one of the two legacy PCI ones */
    const char *machine;
    const char *props, *args;
    bool msix;
} OldCase;

/* Adds /virtio-blk/historic/NAME/CASE for each case. */
void old_add(const char *name, void (*fn)(const OldCase *c));
/* The same for those without a modern side. */
void old_add_legacy(const char *name, void (*fn)(const OldCase *c));
/* QEMU with the device found, nothing but PCI touched; @more: see old_opts. */
VblkOpts old_opts(const OldCase *c);
Vblk *old_launch(const VblkOpts *o);

/* ---- registers of the legacy interface ---- */

uint8_t old_read8(Vblk *v, unsigned reg);
uint16_t old_read16(Vblk *v, unsigned reg);
uint32_t old_read32(Vblk *v, unsigned reg);
void old_write8(Vblk *v, unsigned reg, uint8_t val);
void old_write16(Vblk *v, unsigned reg, uint16_t val);
void old_write32(Vblk *v, unsigned reg, uint32_t val);
/* Offset of the configuration structure: MSI-X moves it. */
unsigned old_config(Vblk *v);
/* Both drivers add a bit to what they read. */
void old_add_status(Vblk *v, uint8_t bit);

/* ---- a split ring in one piece of memory, as legacy devices want it ---- */

typedef struct OldRing {
    Vblk *v;
    unsigned size;
    uint64_t desc, avail, used;
    bool indirect;              /* each request in a table of its own */
    uint16_t free_head, num_free;
    uint16_t *next;
    uint16_t idx;               /* of the available ring, maybe not shown */
    uint16_t shown;             /* what the device sees */
    uint16_t last_used;
    void **token;               /* by head; NULL: not in flight */
    uint16_t *taken;            /* descriptors, by head */
    uint64_t *table;
} OldRing;

/* Select queue 0, see that it is free, give it memory; no address written. */
void old_ring_make(Vblk *v, OldRing *r);
/* Tell the device where it is. */
void old_ring_place(Vblk *v, OldRing *r);
void old_ring_free(Vblk *v, OldRing *r);
/* False when there is no room.  The device does not see it yet. */
bool old_ring_add(OldRing *r, const VblkSeg *seg, unsigned nout, unsigned nin,
                  void *token);
void old_ring_show(OldRing *r);
/* What the device finished next, or NULL. */
void *old_ring_take(OldRing *r, uint32_t *len);
/* Wait for the device's interrupt by reading the ISR, or the MSI-X word. */
void old_wait_irq(Vblk *v);
void old_wait_config_irq(Vblk *v);

/* ---- what tests look at beside the driver ---- */

/* Bytes of the image file itself. */
void old_image_read(Vblk *v, uint64_t sector, void *data, uint32_t len);
void old_image_write(Vblk *v, uint64_t sector, const void *data,
                     uint32_t len);
void old_resize(Vblk *v, uint64_t bytes);

#endif
