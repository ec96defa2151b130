/*
 * virtio-blk qtests: the properties and what is said about wrong ones
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qobject/qjson.h"
#include "fixture.h"

/* Values are JSON texts; NULL: there is none, or it is not for this test. */
typedef struct Property {
    const char *name, *type;
    const char *initial;        /* default-value of device-list-properties */
    const char *realized;       /* what qom-get answers, on q35 */
    bool some;                  /* the base's, not in each of its releases */
} Property;

/*
 * What the stock device of QEMU 10.0.13 (and 10.2.2) answered to
 * device-list-properties, and to qom-get for each of them once realized with
 * drive= only: management tools and users find all of it here as it was.
 */
static const Property stock[] = {
    { "account-failed", "OnOffAuto", "\"auto\"", "\"auto\"" },
    { "account-invalid", "OnOffAuto", "\"auto\"", "\"auto\"" },
    { "any_layout", "bool", "true", "true" },
    { "backend_defaults", "OnOffAuto", "\"auto\"", "\"auto\"" },
    { "bootindex", "int32", NULL, "-1" },
    { "config-wce", "bool", "true", "true" },
    { "cyls", "uint32", "0", "32" },
    { "discard", "bool", "true", "true" },
    { "discard_granularity", "size", "4294967295", "4294967295" },
    { "drive", "str", NULL, "\"disk0\"" },
    { "event_idx", "bool", "true", "true" },
    { "heads", "uint32", "0", "16" },
    { "in_order", "bool", "false", "false" },
    { "indirect_desc", "bool", "true", "true" },
    { "iommu_platform", "bool", "false", "false" },
    { "iothread", "link<iothread>", NULL, "\"\"" },
    { "iothread-vq-mapping", "IOThreadVirtQueueMappingList", NULL, "[]" },
    { "lcyls", "uint32", "0", "0" },
    { "lheads", "uint32", "0", "0" },
    { "logical_block_size", "size", "0", "512" },
    { "lsecs", "uint32", "0", "0" },
    { "max-discard-sectors", "uint32", "4194303", "4194303" },
    { "max-write-zeroes-sectors", "uint32", "4194303", "4194303" },
    { "min_io_size", "size", "0", "0" },
    { "notify_on_empty", "bool", "true", "true" },
    { "num-queues", "uint16", "65535", "1" },
    { "opt_io_size", "size", "0", "0" },
    { "packed", "bool", "false", "false" },
    { "physical_block_size", "size", "0", "512" },
    { "queue-size", "uint16", "256", "256" },
    { "queue_reset", "bool", "true", "true" },
    { "report-discard-granularity", "bool", "true", "true" },
    { "request-merging", "bool", "true", "true" },
    { "rerror", "BlockdevOnError", "\"auto\"", "\"auto\"" },
    { "secs", "uint32", "0", "63" },
    { "seg-max-adjust", "bool", "true", "true" },
    { "serial", "str", NULL, "\"\"" },
    { "share-rw", "bool", "false", "false" },
    { "stats-intervals", "list", "[]", NULL, true },
    { "use-disabled-flag", "bool", "true", "true" },
    { "use-started", "bool", "true", "true" },
    { "werror", "BlockdevOnError", "\"auto\"", "\"auto\"" },
    { "write-cache", "OnOffAuto", "\"auto\"", "\"auto\"" },
    { "write-zeroes", "bool", "true", "true" },
    { "x-disable-legacy-check", "bool", "false", "false" },
    { "x-enable-wce-if-config-wce", "bool", "true", "true" },
};

/* What this device has beyond that. */
static const Property ours[] = {
    { "engine", "string", NULL, NULL },
    { "engine-reason", "string", NULL, NULL },
    { "io-engine", "str", NULL, "\"\"" },
    { "lifetime", "bool", "false", "false" },
    { "max-discard-segments", "uint32", "1", "1" },
    { "max-secure-erase-sectors", "uint32", "4194303", "4194303" },
    { "max-secure-erase-segments", "uint32", "1", "1" },
    { "max-write-zeroes-segments", "uint32", "1", "1" },
    { "register-memory", "OnOffAuto", "\"auto\"", "\"auto\"" },
    { "registered-memory", "size", NULL, NULL },
    { "scsi", "bool", "false", "false" },
    { "secure-erase", "bool", "false", "false" },
    { "write-zeroes-may-unmap", "OnOffAuto", "\"on\"", "\"on\"" },
};

/* virtio-blk-pci has all of the above and these, likewise from stock. */
static const Property pci[] = {
    { "acpi-index", "uint32", "0", NULL },
    { "addr", "str", "-1", NULL },
    { "aer", "bool", "false", NULL },
    { "ats", "bool", "false", NULL },
    { "busnr", "busnr", NULL, NULL },
    { "class", "uint32", "0", NULL },
    { "disable-legacy", "OnOffAuto", "\"auto\"", NULL },
    { "disable-modern", "bool", "false", NULL },
    { "failover_pair_id", "str", NULL, NULL },
    { "ioeventfd", "bool", "true", NULL },
    { "migrate-extra", "bool", "true", NULL, true },
    { "modern-pio-notify", "bool", "false", NULL },
    { "multifunction", "bool", "false", NULL },
    { "page-per-vq", "bool", "false", NULL },
    { "rombar", "int32", "-1", NULL },
    { "romfile", "str", NULL, NULL },
    { "romsize", "uint32", "4294967295", NULL },
    { "sriov-pf", "str", NULL, NULL, true },
    { "vectors", "uint32", "4294967295", NULL },
    { "virtio-backend", "child<virtio-blk-device>", NULL, NULL },
    { "virtio-pci-bus-master-bug-migration", "bool", "false", NULL },
    { "x-ats-page-aligned", "bool", "true", NULL },
    { "x-disable-pcie", "bool", "false", NULL, true },
    { "x-ignore-backend-features", "bool", "false", NULL },
    { "x-max-bounce-buffer-size", "size", "4096", NULL },
    { "x-pcie-ari-nextfn-1", "bool", "false", NULL },
    { "x-pcie-deverr-init", "bool", "true", NULL },
    { "x-pcie-err-unc-mask", "bool", "true", NULL },
    { "x-pcie-ext-tag", "bool", "true", NULL },
    { "x-pcie-extcap-init", "bool", "true", NULL },
    { "x-pcie-flr-init", "bool", "true", NULL },
    { "x-pcie-lnkctl-init", "bool", "true", NULL },
    { "x-pcie-lnksta-dllla", "bool", "true", NULL },
    { "x-pcie-pm-init", "bool", "true", NULL },
    { "x-pcie-pm-no-soft-reset", "bool", "false", NULL },
};

/* ---- the tables ---- */

static bool is_ours(void)
{
    return vblk_has_prop("virtio-blk-device", "io-engine");
}

static void assert_json(const char *name, QObject *got, const char *want)
{
    g_autoptr(GString) text = got ? qobject_to_json(got) : NULL;

    if (g_strcmp0(text ? text->str : NULL, want)) {
        vblk_fail("%s is %s, not %s", name, text ? text->str : "not there",
                  want ?: "without a default");
    }
}

static QDict *find_property(QList *list, const char *name)
{
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(list, e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));

        if (!strcmp(qdict_get_str(d, "name"), name)) {
            return d;
        }
    }
    return NULL;
}

/* The @n properties are in @list as they should; returns how many are. */
static unsigned check_list(QList *list, const Property *p, unsigned n)
{
    unsigned there = 0;

    for (unsigned i = 0; i < n; i++) {
        QDict *d = find_property(list, p[i].name);

        if (!d && p[i].some) {
            continue;
        }
        if (!d) {
            vblk_fail("there is no property %s", p[i].name);
        }
        g_assert_cmpstr(qdict_get_str(d, "type"), ==, p[i].type);
        assert_json(p[i].name, qdict_get(d, "default-value"), p[i].initial);
        there++;
    }
    return there;
}

static QDict *list_properties(QTestState *qts, const char *type)
{
    QDict *resp = qtest_qmp(qts, "{'execute': 'device-list-properties', "
                            "'arguments': {'typename': %s}}", type);

    g_assert_true(qdict_haskey(resp, "return"));
    return resp;
}

static void check_type(const char *type, const Property *more, unsigned n)
{
    QTestState *qts = qtest_init("-machine none -nodefaults");
    QDict *resp = list_properties(qts, type);
    QList *list = qdict_get_qlist(resp, "return");
    unsigned known = check_list(list, stock, ARRAY_SIZE(stock)) +
                     check_list(list, more, n);

    if (is_ours()) {
        known += check_list(list, ours, ARRAY_SIZE(ours));
    }
    /* One that is new has to be added to ours[]. */
    g_assert_cmpint(qlist_size(list), ==, known);
    qobject_unref(resp);
    qtest_quit(qts);
}

static void test_device(void)
{
    check_type("virtio-blk-device", NULL, 0);
}

static void test_pci(void)
{
    check_type("virtio-blk-pci", pci, ARRAY_SIZE(pci));
}

/* Their properties are the same but for the two that make the difference. */
static void check_variant(const char *type)
{
    QTestState *qts = qtest_init("-machine none -nodefaults");
    QDict *all = list_properties(qts, "virtio-blk-pci");
    QDict *some = list_properties(qts, type);
    QList *list = qdict_get_qlist(some, "return");

    check_list(list, stock, ARRAY_SIZE(stock));
    g_assert_null(find_property(list, "disable-legacy"));
    g_assert_null(find_property(list, "disable-modern"));
    g_assert_cmpint(qlist_size(list), ==,
                    qlist_size(qdict_get_qlist(all, "return")) - 2);
    qobject_unref(all);
    qobject_unref(some);
    qtest_quit(qts);
}

static void test_variants(void)
{
    check_variant("virtio-blk-pci-transitional");
    check_variant("virtio-blk-pci-non-transitional");
}

/* All of virtio-blk's as they are there, but for the child; and vhostfd. */
static void check_vhost(QTestState *qts, const char *virtio, const char *vhost)
{
    QDict *theirs = list_properties(qts, virtio);
    QDict *ours_too = list_properties(qts, vhost);
    QList *list = qdict_get_qlist(ours_too, "return");
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(theirs, "return"), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));
        const char *name = qdict_get_str(d, "name");
        QDict *same = find_property(list, name);
        QObject *initial = qdict_get(d, "default-value");
        g_autoptr(GString) text = initial ? qobject_to_json(initial) : NULL;

        if (!same) {
            vblk_fail("%s has no %s", vhost, name);
        }
        g_assert_cmpstr(qdict_get_str(same, "type"), ==,
                        !strcmp(name, "virtio-backend") ?
                        "child<vhost-blk-device>" : qdict_get_str(d, "type"));
        assert_json(name, qdict_get(same, "default-value"),
                    text ? text->str : NULL);
    }
    g_assert_nonnull(find_property(list, "vhostfd"));
    g_assert_cmpint(qlist_size(list), ==,
                    qlist_size(qdict_get_qlist(theirs, "return")) + 1);
    qobject_unref(theirs);
    qobject_unref(ours_too);
}

static void test_vhost(void)
{
    static const char *const kinds[] = {
        "device", "pci", "pci-transitional", "pci-non-transitional",
    };
    QTestState *qts;

    if (!vblk_has_type("vhost-blk-device")) {
        g_test_skip("this QEMU has no vhost-blk (--disable-vhost-blk)");
        return;
    }
    qts = qtest_init("-machine none -nodefaults");
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
        g_autofree char *virtio = g_strdup_printf("virtio-blk-%s", kinds[i]);
        g_autofree char *vhost = g_strdup_printf("vhost-blk-%s", kinds[i]);

        check_vhost(qts, virtio, vhost);
    }
    qtest_quit(qts);
}

static void check_realized(Vblk *v, const Property *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        QDict *resp;

        if (p[i].some) {
            continue;
        }
        resp = vblk_qmp(v, "{'execute': 'qom-get', 'arguments': "
                        "{'path': %s, 'property': %s}}",
                        vblk_qom_path(v), p[i].name);

        if (p[i].realized) {
            assert_json(p[i].name, qdict_get(resp, "return"), p[i].realized);
        }
        qobject_unref(resp);
    }
}

static void test_realized(void)
{
    Vblk *v = vblk_launch(&(VblkOpts) { 0 });

    check_realized(v, stock, ARRAY_SIZE(stock));
    if (is_ours()) {
        check_realized(v, ours, ARRAY_SIZE(ours));
    }
    vblk_stop(v);
}

/* ---- wrong values ---- */

typedef struct Wrong {
    const char *name;
    const char *props;
    const char *says;
    bool ours;                  /* the property is not in stock */
} Wrong;

static const Wrong wrong[] = {
    { "num-queues-0", "num-queues=0",
      "num-queues property must be larger than 0" },
    { "queue-size-0", "queue-size=0", "invalid queue-size property (0)" },
    { "queue-size-2", "queue-size=2", "invalid queue-size property (2)" },
    { "queue-size-3", "queue-size=3", "invalid queue-size property (3), must "
      "be a power of 2" },
    { "queue-size-2048", "queue-size=2048", "(max 1024)" },
    { "discard-sectors-0", "max-discard-sectors=0",
      "invalid max-discard-sectors property (0), must be between 1 and "
      "4194303" },
    { "discard-sectors-many", "max-discard-sectors=4194304",
      "invalid max-discard-sectors property (4194304)" },
    { "write-zeroes-sectors-0", "max-write-zeroes-sectors=0",
      "invalid max-write-zeroes-sectors property (0)" },
    { "write-zeroes-sectors-many", "max-write-zeroes-sectors=4194304",
      "invalid max-write-zeroes-sectors property (4194304)" },
    { "block-size-odd", "logical_block_size=513",
      "logical_block_size" },
    { "block-size-physical",
      "logical_block_size=4096,physical_block_size=512",
      "logical_block_size > physical_block_size not supported" },
    { "iothread-unknown", "iothread=nobody", "'nobody' not found" },
    { "werror-word", "werror=maybe", "maybe" },
    /* Stock aborts. */
    { "num-queues-1025", "num-queues=1025",
      "num-queues property must be at most 1024", true },
    { "discard-segments-0", "max-discard-segments=0",
      "invalid max-discard-segments property (0), must be between 1 and 256",
      true },
    { "discard-segments-257", "max-discard-segments=257",
      "invalid max-discard-segments property (257)", true },
    { "write-zeroes-segments-0", "max-write-zeroes-segments=0",
      "invalid max-write-zeroes-segments property (0)", true },
    { "write-zeroes-segments-257", "max-write-zeroes-segments=257",
      "invalid max-write-zeroes-segments property (257)", true },
    { "secure-erase-segments-0",
      "secure-erase=on,max-secure-erase-segments=0",
      "invalid max-secure-erase-segments property (0)", true },
    { "secure-erase-segments-257",
      "secure-erase=on,max-secure-erase-segments=257",
      "invalid max-secure-erase-segments property (257)", true },
    { "secure-erase-sectors-0",
      "secure-erase=on,max-secure-erase-sectors=0",
      "invalid max-secure-erase-sectors property (0)", true },
    { "secure-erase-file", "secure-erase=on", "use secure-erase=off", true },
    { "lifetime-file", "lifetime=on", "use lifetime=off", true },
    { "may-unmap-word", "write-zeroes-may-unmap=maybe", "maybe", true },
    { "scsi-modern", "scsi=on", "use disable-modern=on or scsi=off", true },
    { "io-engine-word", "io-engine=warp", "warp", true },
    { "engine-read-only", "engine=block", "engine", true },
};

static void test_wrong(const void *data)
{
    const Wrong *w = data;
    VblkOpts o = { .props = w->props };

    if (!w->ours || vblk_needs_prop("io-engine")) {
        vblk_fails(&o, w->says, NULL);
    }
}

static void test_no_drive(void)
{
    VblkOpts o = { .hotplug = true, .args = "-device virtio-blk-pci" };

    vblk_fails(&o, "drive property not set", NULL);
}

static void test_empty_drive(void)
{
    VblkOpts o = { .hotplug = true, .no_disk = true,
                   .args = "-drive if=none,id=empty "
                           "-device virtio-blk-pci,drive=empty" };

    vblk_fails(&o, "Device needs media, but drive is empty", NULL);
}

/* The ends of the ranges are in them, and go to the driver. */
static void test_ends(void)
{
    static const unsigned ends[] = { 1, 256 };

    if (!vblk_needs_prop("max-discard-segments")) {
        return;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(ends); i++) {
        g_autofree char *props = g_strdup_printf(
            "max-discard-segments=%u,max-write-zeroes-segments=%u,"
            "max-discard-sectors=%u,queue-size=1024", ends[i], ends[i],
            i ? 4194303 : 1);
        Vblk *v = vblk_start(&(VblkOpts) { .props = props });

        g_assert_cmpint(vblk_cfg(v, max_discard_seg), ==, ends[i]);
        g_assert_cmpint(vblk_cfg(v, max_write_zeroes_seg), ==, ends[i]);
        g_assert_cmpint(vblk_cfg(v, max_discard_sectors), ==,
                        i ? 4194303 : 1);
        g_assert_cmpint(vblk_cfg(v, seg_max), ==, 1024 - 2);
        vblk_check_io(v, 0);
        vblk_stop(v);
    }
}

/* Wrong segment limits of a command that is not offered do not matter. */
static void test_unused_limit(void)
{
    Vblk *v = vblk_start(&(VblkOpts) {
        .props = "discard=off,max-discard-sectors=0,write-zeroes=off,"
                 "max-write-zeroes-sectors=0",
    });

    vblk_check_io(v, 0);
    vblk_stop(v);
}

/* ---- iothread-vq-mapping ---- */

#define IOTHREADS       "-object iothread,id=io0 -object iothread,id=io1 "

static const Wrong mapping[] = {
    { "unknown", "[{'iothread': 'io0'}, {'iothread': 'nobody'}]",
      "IOThread \"nobody\" object does not exist" },
    { "twice", "[{'iothread': 'io0'}, {'iothread': 'io0'}]",
      "duplicate IOThread name \"io0\"" },
    { "duplicate-vq",
      "[{'iothread': 'io0', 'vqs': [0, 1]}, {'iothread': 'io1', 'vqs': [1]}]",
      "cannot assign vq 1 to IOThread \"io1\"" },
    { "missing-vq",
      "[{'iothread': 'io0', 'vqs': [0]}, {'iothread': 'io1', 'vqs': [2]}]",
      "missing vq 1 IOThread assignment" },
    { "no-such-vq",
      "[{'iothread': 'io0', 'vqs': [0, 1]}, {'iothread': 'io1', 'vqs': [3]}]",
      "vq index 3 for IOThread \"io1\" must be less than num_queues 3" },
    { "some-without",
      "[{'iothread': 'io0', 'vqs': [0, 1, 2]}, {'iothread': 'io1'}]",
      "must have vqs or none of them" },
    { "and-iothread", "[{'iothread': 'io0'}], 'iothread': 'io1'",
      "iothread and iothread-vq-mapping properties cannot be set at the same "
      "time" },
    { "no-ioeventfd", "[{'iothread': 'io0'}], 'ioeventfd': false",
      "ioeventfd is required for iothread" },
};

static char *mapping_args(const char *value)
{
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'virtio-blk-pci', 'id': '" VBLK_DEV "', 'drive': '"
        VBLK_NODE "', 'addr': '%d', 'disable-legacy': 'off', 'num-queues': 3,"
        " 'iothread-vq-mapping': %s}", VBLK_PCI_SLOT, value);

    return g_strdup_printf(IOTHREADS "-device '%s'",
                           g_strdelimit(json, "'", '"'));
}

static void test_mapping_wrong(const void *data)
{
    const Wrong *w = data;
    g_autofree char *args = mapping_args(w->props);

    vblk_fails(&(VblkOpts) { .hotplug = true, .args = args }, w->says, NULL);
}

/* One that is right, the queues in no order. */
static void test_mapping(void)
{
    g_autofree char *args = mapping_args(
        "[{'iothread': 'io1', 'vqs': [2, 0]}, {'iothread': 'io0', "
        "'vqs': [1]}]");
    Vblk *v = vblk_launch(&(VblkOpts) {
        .hotplug = true, .args = args, .num_queues = 3,
    });
    QDict *resp;

    vblk_attach(v);
    vblk_setup(v);
    for (unsigned q = 0; q < 3; q++) {
        vblk_check_io(v, q);
    }
    resp = vblk_qmp(v, "{'execute': 'qom-get', 'arguments': {'path': %s, "
                    "'property': 'iothread-vq-mapping'}}", vblk_qom_path(v));
    assert_json("iothread-vq-mapping", qdict_get(resp, "return"),
                "[{\"iothread\": \"io1\", \"vqs\": [2, 0]}, "
                "{\"iothread\": \"io0\", \"vqs\": [1]}]");
    qobject_unref(resp);
    vblk_stop(v);
}

void vblk_add_property_tests(void)
{
    vblk_add_one("props/device", test_device);
    vblk_add_one("props/empty-drive", test_empty_drive);
    vblk_add_one("props/pci", test_pci);
    vblk_add_one("props/pci-variants", test_variants);
    vblk_add_one("props/vhost", test_vhost);
    vblk_add_one("props/realized", test_realized);
    vblk_add_one("props/no-drive", test_no_drive);
    vblk_add_one("props/ends", test_ends);
    vblk_add_one("props/unused-limit", test_unused_limit);
    vblk_add_one("props/mapping", test_mapping);
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        g_autofree char *name = g_strdup_printf("props/wrong/%s",
                                                wrong[i].name);

        vblk_add_data(name, &wrong[i], test_wrong);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(mapping); i++) {
        g_autofree char *name = g_strdup_printf("props/mapping-wrong/%s",
                                                mapping[i].name);

        vblk_add_data(name, &mapping[i], test_mapping_wrong);
    }
}
