/*
 * virtio-blk qtests: registration and main
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fixture.h"

static const struct {
    unsigned where;
    VblkVariant variant;
} variants[] = {
    { VBLK_ON_SPLIT, { "modern-split", VBLK_PCI_MODERN } },
    { VBLK_ON_PACKED, { "modern-packed", VBLK_PCI_MODERN, .packed = true } },
    { VBLK_ON_LEGACY, { "legacy", VBLK_PCI_LEGACY } },
    { VBLK_ON_MMIO, { "mmio", VBLK_MMIO_MODERN } },
    { VBLK_ON_MMIO_LEGACY, { "mmio-legacy", VBLK_MMIO_LEGACY } },
    { VBLK_ON_INDIRECT, { "modern-split-indirect", VBLK_PCI_MODERN,
                          .indirect = true, .event_idx = true } },
    { VBLK_ON_PACKED_IND, { "modern-packed-indirect", VBLK_PCI_MODERN,
                            .packed = true, .indirect = true,
                            .event_idx = true } },
    { VBLK_ON_IOTHREAD, { "modern-split-iothread", VBLK_PCI_MODERN,
                          .iothread = true } },
    { VBLK_ON_LEGACY_IOT, { "legacy-iothread", VBLK_PCI_LEGACY,
                            .iothread = true } },
    { VBLK_ON_MMIO_IOT, { "mmio-packed-iothread", VBLK_MMIO_MODERN,
                          .packed = true, .iothread = true } },
};

/* Data of all tests, also of those that are not run. */
static GSList *kept;

void *vblk_keep(void *data)
{
    kept = g_slist_prepend(kept, data);
    return data;
}

/* A test and the variant that it is run with. */
typedef struct VariantTest {
    void (*fn)(const VblkVariant *variant);
    const VblkVariant *variant;
} VariantTest;

static void run_variant(const void *opaque)
{
    const VariantTest *test = opaque;

    if (test->variant->transport < VBLK_MMIO_MODERN ||
        !test->variant->iothread || vblk_needs_mmio_iothread()) {
        test->fn(test->variant);
    }
}

void vblk_add(const char *name, unsigned where,
              void (*fn)(const VblkVariant *variant))
{
    for (unsigned i = 0; i < ARRAY_SIZE(variants); i++) {
        const VblkVariant *variant = &variants[i].variant;
        g_autofree char *path = g_strdup_printf("/virtio-blk/%s/%s", name,
                                                variant->name);

        if (where & variants[i].where) {
            VariantTest *test = vblk_keep(g_new(VariantTest, 1));

            test->fn = fn;
            test->variant = variant;
            g_test_add_data_func(path, test, run_variant);
        }
    }
}

void vblk_add_one(const char *name, void (*fn)(void))
{
    g_autofree char *path = g_strdup_printf("/virtio-blk/%s", name);

    g_test_add_func(path, fn);
}

void vblk_add_data(const char *name, const void *data,
                   void (*fn)(const void *data))
{
    g_autofree char *path = g_strdup_printf("/virtio-blk/%s", name);

    g_test_add_data_func(path, data, fn);
}

VblkOpts vblk_opts(const VblkVariant *variant)
{
    return (VblkOpts) {
        .transport = variant->transport,
        .packed = variant->packed,
        .indirect = variant->indirect,
        .event_idx = variant->event_idx,
        .iothread = variant->iothread,
    };
}

int main(int argc, char **argv)
{
    int ret;

    if (argc > 3 && !strcmp(argv[1], "--without-syscall")) {
        vblk_exec_without(atoi(argv[2]), argv + 3);
    }
    g_test_init(&argc, &argv, NULL);
    vblk_add_request_tests();
    vblk_add_malformed_tests();
    vblk_add_ring_tests();
    vblk_add_merge_tests();
    vblk_add_property_tests();
    vblk_add_config_tests();
    vblk_add_lifecycle_tests();
    vblk_add_engine_tests();
    vblk_add_fuzz_tests();
    vblk_add_fault_tests();
    vblk_add_engine_flush_tests();
    vblk_add_engine_range_tests();
    vblk_add_engine_flip_tests();
    vblk_add_memory_tests();
    vblk_add_registered_tests();
    vblk_add_register_tests();
    vblk_add_oom_tests();
    vblk_add_chaos_tests();
    vblk_add_sandbox_tests();
    vblk_add_vhost_tests();
    vblk_add_scsi_tests();
    vblk_add_erase_tests();
    vblk_add_lifetime_tests();
    vblk_add_zoned_tests();
    vblk_add_zoned_host_tests();
    vblk_add_medium_tests();
    vblk_add_conform_init_tests();
    vblk_add_conform_bug_tests();
    vblk_add_haiku_tests();
    vblk_add_linux3_tests();
    ret = g_test_run();
    g_slist_free_full(kept, g_free);
    return ret;
}
