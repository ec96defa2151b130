/*
 * virtio-blk qtests: GET_LIFETIME
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "fake.h"

#define SIZE                MiB
/* VIRTIO 1.4, 5.2.3 and 5.2.6; the Linux header has neither yet. */
#define F_LIFETIME          15
#define T_GET_LIFETIME      10
#define ANSWER_LEN          6

static bool begin(VblkFake *f, VblkOpts *o)
{
    if (!vblk_needs_prop("lifetime") || !vblk_fake_begin(f, SIZE)) {
        return false;
    }
    o->props = "lifetime=on";
    vblk_fake_use(f, o, NULL);
    return true;
}

static void set_emmc(VblkFake *f, const char *eol, const char *wear)
{
    vblk_fake_set(f, "device/pre_eol_info", eol);
    vblk_fake_set(f, "device/life_time", wear);
}

/* Ask with a buffer of @len bytes, not all of which need be written. */
static uint8_t ask(Vblk *v, uint32_t len, uint16_t answer[3], uint32_t *used)
{
    VblkChain c = {};
    uint64_t at;
    uint8_t status;

    vblk_chain_header(v, &c, T_GET_LIFETIME, 0);
    at = vblk_chain_in(v, &c, len);
    vblk_chain_status(v, &c);
    status = vblk_chain_run(v, 0, &c, used);
    qtest_memread(v->qts, at, answer, ANSWER_LEN);
    for (unsigned i = 0; i < 3; i++) {
        le16_to_cpus(&answer[i]);
    }
    return status;
}

static void check(Vblk *v, uint16_t eol, uint16_t a, uint16_t b)
{
    uint16_t answer[3];
    uint32_t used;

    g_assert_cmpint(ask(v, ANSWER_LEN, answer, &used), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(used, ==, ANSWER_LEN + 1);
    g_assert_cmpint(answer[0], ==, eol);
    g_assert_cmpint(answer[1], ==, a);
    g_assert_cmpint(answer[2], ==, b);
}

/* Row 29: eMMC's wear, as it is when it is asked for. */
static void test_emmc(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    /* Not skipped where there is no such property: that is no LIFETIME. */
    if (!vblk_fake_begin(&f, SIZE)) {
        return;
    }
    if (vblk_has_prop("virtio-blk-device", "lifetime")) {
        o.props = "lifetime=on";
    }
    vblk_fake_use(&f, &o, NULL);
    set_emmc(&f, "0x01\n", "0x02 0x0b\n");
    v = vblk_start(&o);
    g_assert_true(vblk_has(v, F_LIFETIME));
    check(v, 1, 2, 11);
    set_emmc(&f, "0x03\n", "0x0a 0x00\n");
    check(v, 3, 10, 0);
    vblk_stop(v);
    vblk_fake_end(&f);
}

/* Row 29: UFS keeps it in a folder, a file for each number. */
static void test_ufs(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!begin(&f, &o)) {
        return;
    }
    vblk_fake_set(&f, "host/health_descriptor/eol_info", "0x02\n");
    vblk_fake_set(&f, "host/health_descriptor/life_time_estimation_a",
                  "0x05\n");
    vblk_fake_set(&f, "host/health_descriptor/life_time_estimation_b",
                  "0x07\n");
    v = vblk_start(&o);
    check(v, 2, 5, 7);
    vblk_stop(v);
    vblk_fake_end(&f);
}

/* Row 29: the same from an iothread. */
static void test_iothread(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!begin(&f, &o)) {
        return;
    }
    o.args = "-object iothread,id=io0";
    o.props = "lifetime=on,iothread=io0";
    set_emmc(&f, "0x02", "0x03 0x04");
    v = vblk_start(&o);
    check(v, 2, 3, 4);
    vblk_stop(v);
    vblk_fake_end(&f);
}

#define ROUNDS              60
#define QUERIES             8

/*
 * query-block writes the names of all nodes anew, and a format's is empty for
 * a moment.  An iothread that reads it must not find it so.
 */
static void test_query(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    VblkFake f;
    Vblk *v;

    if (!begin(&f, &o)) {
        return;
    }
    g_free(f.blockdev);
    f.blockdev = g_strdup_printf(
        "-blockdev driver=host_device,node-name=file0,filename=%s "
        "-blockdev driver=raw,node-name=" VBLK_NODE ",file=file0", f.image);
    o.blockdev = f.blockdev;
    o.args = "-object iothread,id=io0";
    o.props = "lifetime=on,iothread=io0";
    set_emmc(&f, "0x02", "0x03 0x04");
    v = vblk_start(&o);
    vblk_fake_set_num(&f, "slow-names", 1);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < QUERIES; i++) {
            qtest_qmp_send(v->qts, "{'execute': 'query-block'}");
        }
        check(v, 2, 3, 4);
        for (unsigned i = 0; i < QUERIES; i++) {
            qobject_unref(qtest_qmp_receive(v->qts));
        }
    }
    vblk_stop(v);
    vblk_fake_end(&f);
}

/* Row 31: values that the specification reserves are not passed on. */
static void test_reserved(void)
{
    static const struct {
        const char *eol, *wear;
    } bad[] = {
        { "0x00", "0x01 0x01" }, { "0x04", "0x01 0x01" },
        { "0x01", "0x0c 0x01" }, { "0x01", "0x01 0x0c" },
        { "0x01", "0x00 0x00" }, { "0x01", "-1 1" }, { "", "0x01 0x01" },
        { "0x01", "0x01" }, { "0x01", NULL },
    };
    VblkOpts o = {};
    VblkFake f;
    Vblk *v;

    if (!begin(&f, &o)) {
        return;
    }
    set_emmc(&f, "0x01", "0x01 0x01");
    v = vblk_start(&o);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        uint16_t answer[3];
        uint32_t used;

        set_emmc(&f, bad[i].eol, bad[i].wear);
        g_assert_cmpint(ask(v, ANSWER_LEN, answer, &used), ==,
                        VIRTIO_BLK_S_IOERR);
        g_assert_cmpint(used, ==, 1);
    }
    set_emmc(&f, "0x01", "0x01 0x01");
    check(v, 1, 1, 1);
    vblk_stop(v);
    vblk_fake_end(&f);
}

/* Row 30: no LIFETIME on a medium that has no such data. */
static void test_no_data(void)
{
    VblkOpts o = {};
    VblkFake f;

    if (!begin(&f, &o)) {
        return;
    }
    vblk_fails(&o, "lifetime", "lifetime=off", NULL);
    set_emmc(&f, "0x00", "0x00 0x00");
    vblk_fails(&o, "lifetime", "lifetime=off", NULL);
    vblk_fake_end(&f);
    o = (VblkOpts) { .props = "lifetime=on" };
    vblk_fails(&o, "lifetime", "host_device", NULL);
}

/* Row 30, and issue 2: not offered by default, then the type is unknown. */
static void test_off(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint16_t answer[3];
    VblkFake f;
    Vblk *v;

    if (!vblk_fake_begin(&f, SIZE)) {
        return;
    }
    set_emmc(&f, "0x01", "0x01 0x01");
    vblk_fake_use(&f, &o, NULL);
    v = vblk_start(&o);
    g_assert_false(v->host_features & VBLK_BIT(F_LIFETIME));
    g_assert_cmpint(ask(v, ANSWER_LEN, answer, NULL), ==,
                    VIRTIO_BLK_S_UNSUPP);
    vblk_stop(v);
    vblk_fake_end(&f);
}

/* Row 55: a buffer too small gets nothing, one too large only the answer. */
static void test_buffer(const VblkVariant *variant)
{
    VblkOpts o = vblk_opts(variant);
    uint16_t answer[3];
    uint32_t used;
    VblkFake f;
    Vblk *v;

    if (!begin(&f, &o)) {
        return;
    }
    set_emmc(&f, "0x01", "0x02 0x03");
    v = vblk_start(&o);
    g_assert_cmpint(ask(v, ANSWER_LEN - 1, answer, &used), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(used, ==, 1);
    g_assert_cmpint(ask(v, 512, answer, &used), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(used, ==, ANSWER_LEN + 1);
    g_assert_cmpint(answer[2], ==, 3);
    vblk_stop(v);
    vblk_fake_end(&f);
}

void vblk_add_lifetime_tests(void)
{
    vblk_add("lifetime/emmc", VBLK_ON_SPLIT | VBLK_ON_PACKED, test_emmc);
    vblk_add("lifetime/ufs", VBLK_ON_SPLIT, test_ufs);
    vblk_add("lifetime/iothread", VBLK_ON_SPLIT, test_iothread);
    vblk_add("lifetime/query", VBLK_ON_SPLIT, test_query);
    vblk_add_one("lifetime/reserved", test_reserved);
    vblk_add_one("lifetime/no-data", test_no_data);
    vblk_add("lifetime/off", VBLK_ON_SPLIT | VBLK_ON_LEGACY, test_off);
    vblk_add("lifetime/buffer", VBLK_ON_SPLIT, test_buffer);
}
