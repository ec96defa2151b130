/*
 * virtio-blk qtests: what a guest of each machine type is shown
 *
 * A guest that migrates, or that is started again years later on a newer QEMU
 * with its old machine type, must find the device it knows: features and
 * config space.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fixture.h"

typedef struct Machine {
    const char *name, *machine;
    VblkTransport transport;
    uint64_t features;
    const char *config;         /* bytes of the config space, in hex */
    const char *props, *disk_opts;  /* as in VblkOpts */
} Machine;

/*
 * As the stock device of QEMU 10.0.13 has it, with a raw 16 MiB image, on a
 * machine of that name (and arguments): run this test with QTEST_QEMU_BINARY
 * naming the stock one, and a row that does not fit tells what it should be.
 */
static const Machine machines[] = {
    { "q35-10.0", "pc-q35-10.0", VBLK_PCI_MODERN, 0x10130006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "q35-10.0-legacy", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "q35-10.0-smp", "pc-q35-10.0 -smp 4", VBLK_PCI_MODERN, 0x10130007e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000400ffff3f000100000001000000ffff3f000100000001" },
    { "q35-7.2", "pc-q35-7.2", VBLK_PCI_MODERN, 0x10130006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "q35-5.1-smp", "pc-q35-5.1 -smp 4", VBLK_PCI_MODERN, 0x130006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "q35-4.1", "pc-q35-4.1", VBLK_PCI_MODERN, 0x130006e54,
      "0080000000000000000000007e0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "q35-4.1-queue-size",
      "pc-q35-4.1 -global virtio-blk-device.queue-size=512",
      VBLK_PCI_MODERN, 0x130006e54,
      "0080000000000000000000007e0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "i440fx-10.0-legacy", "pc-i440fx-10.0", VBLK_PCI_LEGACY, 0x79006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "i440fx-2.6", "pc-i440fx-2.6", VBLK_PCI_LEGACY, 0x71000ed4,
      "0080000000000000000000007e0000002000103f00020000000000000000"
      "000001000100" },
    { "microvm", "microvm", VBLK_MMIO_MODERN, 0x10130006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    { "microvm-legacy", "microvm", VBLK_MMIO_LEGACY, 0x31006ed4,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001" },
    /* The same with other options, on a transitional device. */
    { "ignore", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001",
      .disk_opts = ",discard=ignore" },
    { "read-only", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79006e74,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100ffff3f000100000001000000ffff3f000100000001",
      .disk_opts = ",read-only=on" },
    { "write-through", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79006454,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000000000100ffff3f000100000001000000ffff3f000100000001",
      .props = "write-cache=off,config-wce=off" },
    { "no-ranges", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79000e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100",
      .props = "discard=off,write-zeroes=off" },
    { "4k", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79006e54,
      "008000000000000000000000fe0000002000103800100000010002001000"
      "000001000100ffff3f000100000008000000ffff3f000100000001",
      .props = "logical_block_size=4096,physical_block_size=8192,"
               "min_io_size=8192,opt_io_size=65536" },
    { "granularity", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79006e54,
      "008000000000000000000000fe0000002000103f00020000000000000000"
      "000001000100640000000100000080000000070000000100000001",
      .props = "discard_granularity=65536,max-discard-sectors=100,"
               "max-write-zeroes-sectors=7" },
    { "geometry", "pc-q35-10.0", VBLK_PCI_LEGACY, 0x79007e54,
      "0080000000000000000000003e0000006400082000020000000000000000"
      "000001000400ffff3f000100000001000000ffff3f000100000001",
      .props = "cyls=100,heads=8,secs=32,num-queues=4,queue-size=64" },
};

static bool machine_there(const Machine *m)
{
    g_auto(GStrv) word = g_strsplit(m->machine, " ", 2);

    return vblk_needs_machine(word[0]);
}

/* Bytes past the end read as ff, as they do where nothing answers. */
static char *read_config(Vblk *v)
{
    unsigned len = sizeof(struct virtio_blk_config);
    uint8_t byte[sizeof(struct virtio_blk_config)];
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < len; i++) {
        byte[i] = vblk_cfg8(v, i);
    }
    while (len && byte[len - 1] == 0xff) {
        len--;
    }
    for (unsigned i = 0; i < len; i++) {
        g_string_append_printf(s, "%02x", byte[i]);
    }
    return g_string_free(s, false);
}

static void test_machine(const void *data)
{
    const Machine *m = data;
    bool pci = m->transport < VBLK_MMIO_MODERN;
    g_autofree char *config = NULL;
    uint64_t features;
    Vblk *v;

    if (!machine_there(m)) {
        return;
    }
    v = vblk_launch(&(VblkOpts) {
        .machine = m->machine, .transport = m->transport,
        /* Named, so that the fixture adds nothing about legacy or modern. */
        .device = pci ? "virtio-blk-pci" : NULL,
        .props = m->props, .disk_opts = m->disk_opts,
    });
    vblk_attach(v);
    vblk_reset(v);
    vblk_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    features = vblk_offered(v);
    config = read_config(v);
    if (features != m->features || strcmp(config, m->config)) {
        vblk_fail("a guest is shown features 0x%" PRIx64 " and config space "
                  "%s", features, config);
    }
    vblk_stop(v);
}

void vblk_add_config_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(machines); i++) {
        g_autofree char *name = g_strdup_printf("machine/%s",
                                                machines[i].name);

        vblk_add_data(name, &machines[i], test_machine);
    }
}
