/*
 * virtio-blk qtests: the registers of the transports
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "transport.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_mmio.h"
#include "standard-headers/linux/virtio_pci.h"

#define VENDOR_QUMRANET     0x1af4
#define MMIO_BASE           0xfeb00000  /* of microvm */
#define MMIO_STEP           0x200
#define MMIO_SLOTS          24
#define MMIO_MAGIC          0x74726976
#define MMIO_ID_BLOCK       2
#define LEGACY_PAGE         4096

#define COMMON(field)       offsetof(struct virtio_pci_common_cfg, field)

/* ---- PCI, VIRTIO 1 interface ---- */

static uint32_t common_read(Vblk *v, unsigned off, unsigned len)
{
    uint64_t at = v->common + off;

    return len == 1 ? qpci_io_readb(v->pdev, v->bar, at) :
           len == 2 ? qpci_io_readw(v->pdev, v->bar, at) :
                      qpci_io_readl(v->pdev, v->bar, at);
}

static void common_write(Vblk *v, unsigned off, unsigned len, uint32_t val)
{
    uint64_t at = v->common + off;

    if (len == 1) {
        qpci_io_writeb(v->pdev, v->bar, at, val);
    } else if (len == 2) {
        qpci_io_writew(v->pdev, v->bar, at, val);
    } else {
        qpci_io_writel(v->pdev, v->bar, at, val);
    }
}

/* Note down one vendor capability; returns the BAR it is in, or -1. */
static int take_cap(Vblk *v, uint8_t cap)
{
    uint8_t type = qpci_config_readb(v->pdev, cap + VIRTIO_PCI_CAP_CFG_TYPE);
    uint32_t off = qpci_config_readl(v->pdev, cap + VIRTIO_PCI_CAP_OFFSET);

    switch (type) {
    case VIRTIO_PCI_CAP_COMMON_CFG:
        v->common = off;
        break;
    case VIRTIO_PCI_CAP_NOTIFY_CFG:
        if (v->notify_mul) {
            return -1;      /* a second, port I/O one */
        }
        v->notify = off;
        v->notify_mul = qpci_config_readl(v->pdev,
                                          cap + VIRTIO_PCI_NOTIFY_CAP_MULT);
        break;
    case VIRTIO_PCI_CAP_ISR_CFG:
        v->isr = off;
        break;
    case VIRTIO_PCI_CAP_DEVICE_CFG:
        v->device = off;
        v->device_len = qpci_config_readl(v->pdev,
                                          cap + VIRTIO_PCI_CAP_LENGTH);
        break;
    default:
        return -1;
    }
    return qpci_config_readb(v->pdev, cap + VIRTIO_PCI_CAP_BAR);
}

static bool pci_find(Vblk *v)
{
    int devfn = QPCI_DEVFN(v->o.slot ?: VBLK_PCI_SLOT, 0);

    v->pdev = qpci_device_find(&v->pcibus.bus, devfn);
    if (!v->pdev ||
        qpci_config_readw(v->pdev, PCI_VENDOR_ID) != VENDOR_QUMRANET) {
        return false;
    }
    qpci_device_enable(v->pdev);
    return true;
}

static bool modern_find(Vblk *v)
{
    uint8_t cap = 0;
    int bar = -1;

    if (!pci_find(v)) {
        return false;
    }
    v->notify_mul = 0;
    while ((cap = qpci_find_capability(v->pdev, PCI_CAP_ID_VNDR, cap))) {
        int here = take_cap(v, cap);

        if (here >= 0) {
            g_assert_true(bar < 0 || bar == here);
            bar = here;
        }
    }
    g_assert_cmpint(bar, >=, 0);
    v->bar = qpci_iomap(v->pdev, bar, NULL);
    return true;
}

static uint64_t modern_features(Vblk *v)
{
    uint64_t lo, hi;

    common_write(v, COMMON(device_feature_select), 4, 0);
    lo = common_read(v, COMMON(device_feature), 4);
    common_write(v, COMMON(device_feature_select), 4, 1);
    hi = common_read(v, COMMON(device_feature), 4);
    return hi << 32 | lo;
}

static void modern_accept(Vblk *v, uint64_t features)
{
    common_write(v, COMMON(guest_feature_select), 4, 0);
    common_write(v, COMMON(guest_feature), 4, features);
    common_write(v, COMMON(guest_feature_select), 4, 1);
    common_write(v, COMMON(guest_feature), 4, features >> 32);
}

static uint8_t modern_status(Vblk *v)
{
    return common_read(v, COMMON(device_status), 1);
}

static void modern_set_status(Vblk *v, uint8_t status)
{
    common_write(v, COMMON(device_status), 1, status);
}

static void modern_select(Vblk *v, unsigned q)
{
    common_write(v, COMMON(queue_select), 2, q);
}

static unsigned modern_queue_max(Vblk *v)
{
    return common_read(v, COMMON(queue_size), 2);
}

static void modern_enable(Vblk *v, VblkQueue *vq)
{
    common_write(v, COMMON(queue_size), 2, vq->size);
    common_write(v, COMMON(queue_desc_lo), 4, vq->desc);
    common_write(v, COMMON(queue_desc_hi), 4, vq->desc >> 32);
    common_write(v, COMMON(queue_avail_lo), 4, vq->avail);
    common_write(v, COMMON(queue_avail_hi), 4, vq->avail >> 32);
    common_write(v, COMMON(queue_used_lo), 4, vq->used);
    common_write(v, COMMON(queue_used_hi), 4, vq->used >> 32);
    vq->notify_off = v->notify + v->notify_mul *
                     common_read(v, COMMON(queue_notify_off), 2);
    common_write(v, COMMON(queue_enable), 2, 1);
}

static void modern_notify(Vblk *v, VblkQueue *vq)
{
    qpci_io_writew(v->pdev, v->bar, vq->notify_off, vq->index);
}

static uint8_t modern_read_isr(Vblk *v)
{
    return qpci_io_readb(v->pdev, v->bar, v->isr);
}

static uint32_t pci_read(Vblk *v, uint64_t at, unsigned len)
{
    return len == 1 ? qpci_io_readb(v->pdev, v->bar, at) :
           len == 2 ? qpci_io_readw(v->pdev, v->bar, at) :
                      qpci_io_readl(v->pdev, v->bar, at);
}

static uint32_t modern_cfg_read(Vblk *v, unsigned off, unsigned len)
{
    return pci_read(v, v->device + off, len);
}

static void modern_cfg_write8(Vblk *v, unsigned off, uint8_t val)
{
    qpci_io_writeb(v->pdev, v->bar, v->device + off, val);
}

static uint32_t modern_generation(Vblk *v)
{
    return common_read(v, COMMON(config_generation), 1);
}

void vblk_queue_reset_write(Vblk *v, uint16_t val)
{
    common_write(v, VIRTIO_PCI_COMMON_Q_RESET, 2, val);
}

uint16_t vblk_queue_reset_read(Vblk *v)
{
    return common_read(v, VIRTIO_PCI_COMMON_Q_RESET, 2);
}

static const VblkBus modern_bus = {
    .find = modern_find,
    .features = modern_features,
    .accept = modern_accept,
    .status = modern_status,
    .set_status = modern_set_status,
    .select = modern_select,
    .queue_max = modern_queue_max,
    .enable = modern_enable,
    .notify = modern_notify,
    .read_isr = modern_read_isr,
    .cfg_read = modern_cfg_read,
    .cfg_write8 = modern_cfg_write8,
    .generation = modern_generation,
};

/* ---- PCI, legacy interface: registers in the I/O BAR ---- */

static bool legacy_find(Vblk *v)
{
    if (!pci_find(v)) {
        return false;
    }
    v->bar = qpci_iomap(v->pdev, 0, NULL);
    g_assert_true(v->bar.is_io);
    return true;
}

static uint64_t legacy_features(Vblk *v)
{
    return qpci_io_readl(v->pdev, v->bar, VIRTIO_PCI_HOST_FEATURES);
}

static void legacy_accept(Vblk *v, uint64_t features)
{
    qpci_io_writel(v->pdev, v->bar, VIRTIO_PCI_GUEST_FEATURES, features);
}

static uint8_t legacy_status(Vblk *v)
{
    return qpci_io_readb(v->pdev, v->bar, VIRTIO_PCI_STATUS);
}

static void legacy_set_status(Vblk *v, uint8_t status)
{
    qpci_io_writeb(v->pdev, v->bar, VIRTIO_PCI_STATUS, status);
}

static void legacy_select(Vblk *v, unsigned q)
{
    qpci_io_writew(v->pdev, v->bar, VIRTIO_PCI_QUEUE_SEL, q);
}

static unsigned legacy_queue_max(Vblk *v)
{
    return qpci_io_readw(v->pdev, v->bar, VIRTIO_PCI_QUEUE_NUM);
}

static void legacy_enable(Vblk *v, VblkQueue *vq)
{
    qpci_io_writel(v->pdev, v->bar, VIRTIO_PCI_QUEUE_PFN,
                   vq->desc / LEGACY_PAGE);
}

static void legacy_notify(Vblk *v, VblkQueue *vq)
{
    qpci_io_writew(v->pdev, v->bar, VIRTIO_PCI_QUEUE_NOTIFY, vq->index);
}

static uint8_t legacy_read_isr(Vblk *v)
{
    return qpci_io_readb(v->pdev, v->bar, VIRTIO_PCI_ISR);
}

static uint32_t legacy_cfg_read(Vblk *v, unsigned off, unsigned len)
{
    return pci_read(v, VIRTIO_PCI_CONFIG_OFF(v->pdev->msix_enabled) + off,
                    len);
}

static void legacy_cfg_write8(Vblk *v, unsigned off, uint8_t val)
{
    qpci_io_writeb(v->pdev, v->bar,
                   VIRTIO_PCI_CONFIG_OFF(v->pdev->msix_enabled) + off, val);
}

static const VblkBus legacy_bus = {
    .find = legacy_find,
    .features = legacy_features,
    .accept = legacy_accept,
    .status = legacy_status,
    .set_status = legacy_set_status,
    .select = legacy_select,
    .queue_max = legacy_queue_max,
    .enable = legacy_enable,
    .notify = legacy_notify,
    .read_isr = legacy_read_isr,
    .cfg_read = legacy_cfg_read,
    .cfg_write8 = legacy_cfg_write8,
};

/* ---- MSI-X ---- */

uint64_t vblk_msix_vector(Vblk *v, unsigned vector)
{
    uint64_t off = v->pdev->msix_table_off + vector * PCI_MSIX_ENTRY_SIZE;
    QPCIBar bar = v->pdev->msix_table_bar;
    uint64_t addr = vblk_alloc(v, 4);

    g_assert_cmpint(vector, <, qpci_msix_table_size(v->pdev));
    qpci_io_writel(v->pdev, bar, off + PCI_MSIX_ENTRY_LOWER_ADDR, addr);
    qpci_io_writel(v->pdev, bar, off + PCI_MSIX_ENTRY_UPPER_ADDR, addr >> 32);
    qpci_io_writel(v->pdev, bar, off + PCI_MSIX_ENTRY_DATA, vector + 1);
    qpci_io_writel(v->pdev, bar, off + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
    return addr;
}

void vblk_msix_config(Vblk *v, unsigned vector)
{
    if (vblk_is_modern(v)) {
        common_write(v, COMMON(msix_config), 2, vector);
    } else {
        qpci_io_writew(v->pdev, v->bar, VIRTIO_MSI_CONFIG_VECTOR, vector);
    }
}

void vblk_msix_queue(Vblk *v, unsigned vector)
{
    if (vblk_is_modern(v)) {
        common_write(v, COMMON(queue_msix_vector), 2, vector);
    } else {
        qpci_io_writew(v->pdev, v->bar, VIRTIO_MSI_QUEUE_VECTOR, vector);
    }
}

/* ---- MMIO, versions 1 and 2 ---- */

static uint32_t mmio_read(Vblk *v, unsigned reg)
{
    return qtest_readl(v->qts, v->mmio + reg);
}

static void mmio_write(Vblk *v, unsigned reg, uint32_t val)
{
    qtest_writel(v->qts, v->mmio + reg, val);
}

static bool mmio_find(Vblk *v)
{
    for (unsigned i = 0; i < MMIO_SLOTS; i++) {
        v->mmio = MMIO_BASE + i * MMIO_STEP;
        if (mmio_read(v, VIRTIO_MMIO_MAGIC_VALUE) != MMIO_MAGIC ||
            mmio_read(v, VIRTIO_MMIO_DEVICE_ID) != MMIO_ID_BLOCK) {
            continue;
        }
        g_assert_cmpint(mmio_read(v, VIRTIO_MMIO_VERSION), ==,
                        vblk_is_modern(v) ? 2 : 1);
        v->device_len = MMIO_STEP - VIRTIO_MMIO_CONFIG;
        return true;
    }
    return false;
}

static uint64_t mmio_features(Vblk *v)
{
    uint64_t lo, hi = 0;

    mmio_write(v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    lo = mmio_read(v, VIRTIO_MMIO_DEVICE_FEATURES);
    if (vblk_is_modern(v)) {
        mmio_write(v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
        hi = mmio_read(v, VIRTIO_MMIO_DEVICE_FEATURES);
    }
    return hi << 32 | lo;
}

static void mmio_accept(Vblk *v, uint64_t features)
{
    mmio_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    mmio_write(v, VIRTIO_MMIO_DRIVER_FEATURES, features);
    if (vblk_is_modern(v)) {
        mmio_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
        mmio_write(v, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
    } else {
        mmio_write(v, VIRTIO_MMIO_GUEST_PAGE_SIZE, LEGACY_PAGE);
    }
}

static uint8_t mmio_status(Vblk *v)
{
    return mmio_read(v, VIRTIO_MMIO_STATUS);
}

static void mmio_set_status(Vblk *v, uint8_t status)
{
    mmio_write(v, VIRTIO_MMIO_STATUS, status);
}

static void mmio_select(Vblk *v, unsigned q)
{
    mmio_write(v, VIRTIO_MMIO_QUEUE_SEL, q);
}

static unsigned mmio_queue_max(Vblk *v)
{
    return mmio_read(v, VIRTIO_MMIO_QUEUE_NUM_MAX);
}

static void mmio_enable(Vblk *v, VblkQueue *vq)
{
    mmio_write(v, VIRTIO_MMIO_QUEUE_NUM, vq->size);
    if (!vblk_is_modern(v)) {
        mmio_write(v, VIRTIO_MMIO_QUEUE_ALIGN, LEGACY_PAGE);
        mmio_write(v, VIRTIO_MMIO_QUEUE_PFN, vq->desc / LEGACY_PAGE);
        return;
    }
    mmio_write(v, VIRTIO_MMIO_QUEUE_DESC_LOW, vq->desc);
    mmio_write(v, VIRTIO_MMIO_QUEUE_DESC_HIGH, vq->desc >> 32);
    mmio_write(v, VIRTIO_MMIO_QUEUE_AVAIL_LOW, vq->avail);
    mmio_write(v, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, vq->avail >> 32);
    mmio_write(v, VIRTIO_MMIO_QUEUE_USED_LOW, vq->used);
    mmio_write(v, VIRTIO_MMIO_QUEUE_USED_HIGH, vq->used >> 32);
    mmio_write(v, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void mmio_notify(Vblk *v, VblkQueue *vq)
{
    mmio_write(v, VIRTIO_MMIO_QUEUE_NOTIFY, vq->index);
}

static uint8_t mmio_read_isr(Vblk *v)
{
    uint32_t isr = mmio_read(v, VIRTIO_MMIO_INTERRUPT_STATUS);

    mmio_write(v, VIRTIO_MMIO_INTERRUPT_ACK, isr);
    return isr;
}

static uint32_t mmio_cfg_read(Vblk *v, unsigned off, unsigned len)
{
    uint64_t at = v->mmio + VIRTIO_MMIO_CONFIG + off;

    return len == 1 ? qtest_readb(v->qts, at) :
           len == 2 ? qtest_readw(v->qts, at) : qtest_readl(v->qts, at);
}

static void mmio_cfg_write8(Vblk *v, unsigned off, uint8_t val)
{
    qtest_writeb(v->qts, v->mmio + VIRTIO_MMIO_CONFIG + off, val);
}

static uint32_t mmio_generation(Vblk *v)
{
    return mmio_read(v, VIRTIO_MMIO_CONFIG_GENERATION);
}

static const VblkBus mmio_bus = {
    .find = mmio_find,
    .features = mmio_features,
    .accept = mmio_accept,
    .status = mmio_status,
    .set_status = mmio_set_status,
    .select = mmio_select,
    .queue_max = mmio_queue_max,
    .enable = mmio_enable,
    .notify = mmio_notify,
    .read_isr = mmio_read_isr,
    .cfg_read = mmio_cfg_read,
    .cfg_write8 = mmio_cfg_write8,
    .generation = mmio_generation,
};

const VblkBus *vblk_bus(const Vblk *v)
{
    static const VblkBus *const buses[] = {
        [VBLK_PCI_MODERN] = &modern_bus,
        [VBLK_PCI_LEGACY] = &legacy_bus,
        [VBLK_PCI_LEGACY_ONLY] = &legacy_bus,
        [VBLK_MMIO_MODERN] = &mmio_bus,
        [VBLK_MMIO_LEGACY] = &mmio_bus,
    };

    return buses[v->o.transport];
}
