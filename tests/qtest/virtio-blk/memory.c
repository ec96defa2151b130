/*
 * virtio-blk qtests: buffers in memory that comes, moves and goes
 *
 * The ring code remembers where RAM is.  It must forget at each change of the
 * memory map, or data lands in what is no longer there.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hw/pci/pci_regs.h"
#include "fixture.h"

#define PLACE(i)    (0xc0000000u + (i) * MiB)   /* of two BARs of RAM */
#define DATA        4096        /* what a bounce buffer may have */
#define ROUNDS      12

/* ---- RAM in the BARs of two devices, which change places ---- */

typedef struct Bars {
    Vblk *v;
    QPCIDevice *dev[2];
    unsigned at[2];             /* place of each */
} Bars;

static void bars_place(Bars *b, unsigned swapped)
{
    for (unsigned i = 0; i < 2; i++) {
        qpci_config_writew(b->dev[i], PCI_COMMAND, 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        b->at[i] = i ^ swapped;
        qpci_config_writel(b->dev[i], PCI_BASE_ADDRESS_2, PLACE(b->at[i]));
        qpci_config_writel(b->dev[i], PCI_BASE_ADDRESS_3, 0);
        qpci_config_writew(b->dev[i], PCI_COMMAND, PCI_COMMAND_MEMORY);
    }
}

/* Read or write DATA bytes at @sector, with the data at @addr; the status. */
static uint8_t transfer(Vblk *v, uint32_t type, uint64_t sector, uint64_t addr)
{
    VblkChain c = {};

    vblk_chain_header(v, &c, type, sector);
    if (type == VIRTIO_BLK_T_IN) {
        c.in[c.nin++] = (VblkSeg) { addr, DATA };
    } else {
        c.out[c.nout++] = (VblkSeg) { addr, DATA };
    }
    vblk_chain_status(v, &c);
    return vblk_chain_run(v, 0, &c, NULL);
}

static void expect_memory(Vblk *v, uint64_t addr, uint32_t seed)
{
    uint8_t want[DATA], got[DATA];

    vblk_pattern(want, sizeof(want), seed);
    qtest_memread(v->qts, addr, got, sizeof(got));
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
}

static void fill_memory(Vblk *v, uint64_t addr, uint32_t seed)
{
    uint8_t data[DATA];

    vblk_pattern(data, sizeof(data), seed);
    qtest_memwrite(v->qts, addr, data, sizeof(data));
}

/*
 * What is at each place reaches the disk from there, and comes back there; that
 * it was not the other one twice, the disk tells.
 */
static void round_trip(Bars *b, unsigned round)
{
    uint8_t want[DATA], got[DATA];

    for (unsigned i = 0; i < 2; i++) {
        fill_memory(b->v, PLACE(b->at[i]), 100 * round + i);
    }
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(transfer(b->v, VIRTIO_BLK_T_OUT, 64 * i,
                                 PLACE(b->at[i])), ==, VIRTIO_BLK_S_OK);
        g_assert_cmpint(transfer(b->v, VIRTIO_BLK_T_IN, 64 * i,
                                 PLACE(b->at[i]) + DATA), ==,
                        VIRTIO_BLK_S_OK);
    }
    for (unsigned i = 0; i < 2; i++) {
        expect_memory(b->v, PLACE(b->at[i]) + DATA, 100 * round + i);
        vblk_pattern(want, sizeof(want), 100 * round + i);
        g_assert_cmpint(vblk_read(b->v, 64 * i, got, sizeof(got)), ==,
                        VIRTIO_BLK_S_OK);
        g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    }
}

static void test_move(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Bars b = { NULL };

    if (!qtest_has_device("ivshmem-plain")) {
        g_test_skip("this QEMU has no ivshmem-plain");
        return;
    }
    o.args = "-object memory-backend-ram,id=m0,size=1M,share=on "
             "-object memory-backend-ram,id=m1,size=1M,share=on "
             "-device ivshmem-plain,memdev=m0,addr=8 "
             "-device ivshmem-plain,memdev=m1,addr=9";
    b.v = vblk_start(&o);
    for (unsigned i = 0; i < 2; i++) {
        b.dev[i] = qpci_device_find(&b.v->pcibus.bus, QPCI_DEVFN(8 + i, 0));
        g_assert_nonnull(b.dev[i]);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        bars_place(&b, round & 1);
        round_trip(&b, round);
    }

    /* Nobody is there now: the data goes nowhere, not into what was there. */
    qpci_config_writew(b.dev[0], PCI_COMMAND, 0);
    transfer(b.v, VIRTIO_BLK_T_IN, 64, PLACE(b.at[0]));
    qpci_config_writew(b.dev[0], PCI_COMMAND, PCI_COMMAND_MEMORY);
    expect_memory(b.v, PLACE(b.at[0]), 100 * (ROUNDS - 1));

    for (unsigned i = 0; i < 2; i++) {
        g_free(b.dev[i]);
    }
    vblk_check_io(b.v, 0);
    vblk_stop(b.v);
}

/* ---- memory modules ---- */

#define DIMM_PORT   0xa00       /* ACPI memory hot plug */
#define DIMM_FLAGS  (DIMM_PORT + 0x14)
#define DIMM_EJECT  (1 << 3)

static uint64_t dimm_plug(Vblk *v)
{
    QDict *resp, *info;
    uint64_t addr;

    vblk_qmp_ok(v, "{'execute': 'object-add', 'arguments': {'qom-type': "
                "'memory-backend-ram', 'id': 'm0', 'size': 134217728}}");
    vblk_qmp_ok(v, "{'execute': 'device_add', 'arguments': {'driver': "
                "'pc-dimm', 'id': 'dimm0', 'memdev': 'm0'}}");
    resp = vblk_qmp(v, "{'execute': 'query-memory-devices'}");
    info = qobject_to(QDict, qlist_peek(qdict_get_qlist(resp, "return")));
    addr = qdict_get_int(qdict_get_qdict(info, "data"), "addr");
    qobject_unref(resp);
    return addr;
}

static void dimm_unplug(Vblk *v)
{
    vblk_qmp_ok(v, "{'execute': 'device_del', 'arguments': {'id': 'dimm0'}}");
    /* The guest agrees. */
    qtest_outl(v->qts, DIMM_PORT, 0);
    qtest_outb(v->qts, DIMM_FLAGS, DIMM_EJECT);
    vblk_expect_event(v, "DEVICE_DELETED");
    vblk_qmp_ok(v, "{'execute': 'object-del', 'arguments': {'id': 'm0'}}");
}

/* Plugged, used, unplugged, and another one in its place. */
static void test_dimm(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    Vblk *v;

    o.args = "-m 96,slots=1,maxmem=1G";
    v = vblk_start(&o);
    for (unsigned round = 0; round < 4; round++) {
        uint64_t addr = dimm_plug(v);

        fill_memory(v, addr, round);
        g_assert_cmpint(transfer(v, VIRTIO_BLK_T_OUT, 8, addr), ==,
                        VIRTIO_BLK_S_OK);
        g_assert_cmpint(transfer(v, VIRTIO_BLK_T_IN, 8, addr + 64 * MiB), ==,
                        VIRTIO_BLK_S_OK);
        expect_memory(v, addr + 64 * MiB, round);
        dimm_unplug(v);
        /* Where nothing is, nothing is found: no crash, no memory of old. */
        transfer(v, VIRTIO_BLK_T_IN, 8, addr);
        qtest_readb(v->qts, addr);
        if (vblk_status(v) & VIRTIO_CONFIG_S_NEEDS_RESET) {
            vblk_reset(v);
            vblk_setup(v);
        }
        vblk_check_io(v, 0);
    }
    vblk_stop(v);
}

#define MEMORY_CASES    (VBLK_ON_SPLIT | VBLK_ON_PACKED | VBLK_ON_LEGACY | \
                         VBLK_ON_INDIRECT | VBLK_ON_PACKED_IND)

void vblk_add_memory_tests(void)
{
    vblk_add("memory/move", MEMORY_CASES, test_move);
    vblk_add("memory/dimm", MEMORY_CASES, test_dimm);
}
