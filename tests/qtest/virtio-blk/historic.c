/*
 * virtio-blk qtests: what two historic drivers have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "historic.h"

#define PAGE                4096
#define INDIRECT_SLOT       (OLD_MAX_SEGS * sizeof(struct vring_desc))

static const OldCase cases[] = {
    { "legacy", VBLK_PCI_LEGACY_ONLY, "pc" },
    { "legacy-iothread", VBLK_PCI_LEGACY_ONLY, "pc", "iothread=t0",
      "-object iothread,id=t0" },
    { "transitional", VBLK_PCI_LEGACY, "pc" },
    { "transitional-msix", VBLK_PCI_LEGACY, "q35", .msix = true },
    /* A ring without what came after 2008. */
    { "plain-ring", VBLK_PCI_LEGACY_ONLY, "pc",
      "indirect_desc=off,event_idx=off,ioeventfd=off" },
};

static void add_where(const char *name, void (*fn)(const OldCase *c),
                      bool legacy_only)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("/virtio-blk/historic/%s/%s",
                                                name, cases[i].name);

        if (!legacy_only || cases[i].transport == VBLK_PCI_LEGACY_ONLY) {
            g_test_add_data_func(path, &cases[i], (GTestDataFunc)fn);
        }
    }
}

void old_add(const char *name, void (*fn)(const OldCase *c))
{
    add_where(name, fn, false);
}

void old_add_legacy(const char *name, void (*fn)(const OldCase *c))
{
    add_where(name, fn, true);
}

VblkOpts old_opts(const OldCase *c)
{
    return (VblkOpts) {
        .transport = c->transport,
        .machine = c->machine,
        .props = c->props,
        .args = c->args,
        .msix = c->msix,
    };
}

Vblk *old_launch(const VblkOpts *o)
{
    Vblk *v = vblk_launch(o);

    vblk_attach(v);
    return v;
}

/* ---- registers ---- */

uint8_t old_read8(Vblk *v, unsigned reg)
{
    return qpci_io_readb(v->pdev, v->bar, reg);
}

uint16_t old_read16(Vblk *v, unsigned reg)
{
    return qpci_io_readw(v->pdev, v->bar, reg);
}

uint32_t old_read32(Vblk *v, unsigned reg)
{
    return qpci_io_readl(v->pdev, v->bar, reg);
}

void old_write8(Vblk *v, unsigned reg, uint8_t val)
{
    qpci_io_writeb(v->pdev, v->bar, reg, val);
}

void old_write16(Vblk *v, unsigned reg, uint16_t val)
{
    qpci_io_writew(v->pdev, v->bar, reg, val);
}

void old_write32(Vblk *v, unsigned reg, uint32_t val)
{
    qpci_io_writel(v->pdev, v->bar, reg, val);
}

unsigned old_config(Vblk *v)
{
    return VIRTIO_PCI_CONFIG_OFF(v->pdev->msix_enabled);
}

void old_add_status(Vblk *v, uint8_t bit)
{
    old_write8(v, VIRTIO_PCI_STATUS, old_read8(v, VIRTIO_PCI_STATUS) | bit);
}

/* ---- ring ---- */

void old_ring_make(Vblk *v, OldRing *r)
{
    uint64_t avail_end;

    old_write16(v, VIRTIO_PCI_QUEUE_SEL, 0);
    *r = (OldRing) {
        .v = v,
        .size = old_read16(v, VIRTIO_PCI_QUEUE_NUM),
    };
    g_assert_cmpint(r->size, >, 0);
    /* Both refuse a queue that somebody still uses: a reset must free it. */
    g_assert_cmphex(old_read32(v, VIRTIO_PCI_QUEUE_PFN), ==, 0);
    avail_end = r->size * sizeof(struct vring_desc) + 6 + 2 * r->size;
    r->desc = vblk_alloc(v, QEMU_ALIGN_UP(avail_end, PAGE) +
                         QEMU_ALIGN_UP(6 + 8 * r->size, PAGE));
    r->avail = r->desc + r->size * sizeof(struct vring_desc);
    r->used = QEMU_ALIGN_UP(r->desc + avail_end, PAGE);
    r->num_free = r->size;
    r->next = g_new(uint16_t, r->size);
    r->taken = g_new0(uint16_t, r->size);
    r->token = g_new0(void *, r->size);
    r->table = g_new0(uint64_t, r->size);
    for (unsigned i = 0; i < r->size; i++) {
        r->next[i] = i + 1;
    }
}

void old_ring_place(Vblk *v, OldRing *r)
{
    old_write32(v, VIRTIO_PCI_QUEUE_PFN, r->desc / PAGE);
    g_assert_cmphex(old_read32(v, VIRTIO_PCI_QUEUE_PFN), ==, r->desc / PAGE);
}

void old_ring_free(Vblk *v, OldRing *r)
{
    for (unsigned i = 0; i < r->size; i++) {
        if (r->table[i]) {
            vblk_free(v, r->table[i]);
        }
    }
    vblk_free(v, r->desc);
    g_free(r->next);
    g_free(r->taken);
    g_free(r->token);
    g_free(r->table);
    memset(r, 0, sizeof(*r));
}

static struct vring_desc make_desc(const VblkSeg *seg, bool in, bool more,
                                   uint16_t next)
{
    return (struct vring_desc) {
        .addr = cpu_to_le64(seg->addr),
        .len = cpu_to_le32(seg->len),
        .flags = cpu_to_le16((in ? VRING_DESC_F_WRITE : 0) |
                             (more ? VRING_DESC_F_NEXT : 0)),
        .next = cpu_to_le16(next),
    };
}

static void put_desc(OldRing *r, uint16_t slot, const struct vring_desc *d)
{
    qtest_memwrite(r->v->qts, r->desc + slot * sizeof(*d), d, sizeof(*d));
}

/* The table of a ring entry is made once and kept, as Haiku does. */
static void add_indirect(OldRing *r, uint16_t head, const VblkSeg *seg,
                         unsigned nout, unsigned n)
{
    struct vring_desc d[OLD_MAX_SEGS];
    struct vring_desc one = {
        .len = cpu_to_le32(n * sizeof(*d)),
        .flags = cpu_to_le16(VRING_DESC_F_INDIRECT),
    };

    for (unsigned i = 0; i < n; i++) {
        d[i] = make_desc(&seg[i], i >= nout, i + 1 < n, i + 1);
    }
    if (!r->table[head]) {
        r->table[head] = vblk_alloc(r->v, INDIRECT_SLOT);
    }
    qtest_memwrite(r->v->qts, r->table[head], d, n * sizeof(*d));
    one.addr = cpu_to_le64(r->table[head]);
    put_desc(r, head, &one);
}

static void add_direct(OldRing *r, uint16_t slot, const VblkSeg *seg,
                       unsigned nout, unsigned n)
{
    for (unsigned i = 0; i < n; i++, slot = r->next[slot]) {
        struct vring_desc d = make_desc(&seg[i], i >= nout, i + 1 < n,
                                        r->next[slot]);

        put_desc(r, slot, &d);
    }
}

bool old_ring_add(OldRing *r, const VblkSeg *seg, unsigned nout, unsigned nin,
                  void *token)
{
    unsigned n = nout + nin, need = r->indirect ? 1 : n;
    uint16_t head = r->free_head;

    g_assert_cmpint(n, <=, OLD_MAX_SEGS);
    if (r->num_free < need) {
        return false;
    }
    if (r->indirect) {
        add_indirect(r, head, seg, nout, n);
    } else {
        add_direct(r, head, seg, nout, n);
    }
    for (unsigned i = 0; i < need; i++) {
        r->free_head = r->next[r->free_head];
    }
    r->num_free -= need;
    r->taken[head] = need;
    r->token[head] = token;
    qtest_writew(r->v->qts, r->avail + 4 + 2 * (r->idx++ % r->size), head);
    return true;
}

void old_ring_show(OldRing *r)
{
    r->shown = r->idx;
    qtest_writew(r->v->qts, r->avail + 2, r->idx);
}

void *old_ring_take(OldRing *r, uint32_t *len)
{
    uint64_t at = r->used + 4 + 8 * (r->last_used % r->size);
    uint16_t last;
    uint32_t head;
    void *token;

    if (qtest_readw(r->v->qts, r->used + 2) == r->last_used) {
        return NULL;
    }
    r->last_used++;
    head = qtest_readl(r->v->qts, at);
    *len = qtest_readl(r->v->qts, at + 4);
    g_assert_cmpint(head, <, r->size);
    token = g_steal_pointer(&r->token[head]);
    g_assert_nonnull(token);
    last = head;
    for (unsigned i = 1; i < r->taken[head]; i++) {
        last = r->next[last];
    }
    r->next[last] = r->free_head;
    r->free_head = head;
    r->num_free += r->taken[head];
    return token;
}

void old_wait_irq(Vblk *v)
{
    vblk_wait_irq(v, 0);
}

void old_wait_config_irq(Vblk *v)
{
    vblk_wait_config_irq(v);
}

/* ---- beside the driver ---- */

void old_image_read(Vblk *v, uint64_t sector, void *data, uint32_t len)
{
    int fd = open(v->image ?: v->o.image, O_RDONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, data, len, sector * VBLK_SECTOR), ==, len);
    close(fd);
}

void old_image_write(Vblk *v, uint64_t sector, const void *data, uint32_t len)
{
    int fd = open(v->image ?: v->o.image, O_WRONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, data, len, sector * VBLK_SECTOR), ==, len);
    close(fd);
}

void old_resize(Vblk *v, uint64_t bytes)
{
    vblk_qmp_ok(v, "{'execute': 'block_resize', 'arguments': {"
                "'node-name': '" VBLK_NODE "', 'size': %" PRIu64 "}}", bytes);
}
