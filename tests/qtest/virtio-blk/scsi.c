/*
 * virtio-blk qtests: SCSI commands of legacy drivers
 *
 * VIRTIO 0.9.5, appendix D: header, command block, [data out] | [data in],
 * sense buffer, SCSI in-header, status byte.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "fake.h"

#define SIZE                (4 * MiB)
#define SENSE_LEN           96

#define TEST_UNIT_READY     0x00
#define INQUIRY             0x12
#define READ_CAPACITY       0x25
#define WRITE_BUFFER        0x3b
#define UNKNOWN_COMMAND     0xc7

#define SCSI_ON \
    (VBLK_ON_LEGACY | VBLK_ON_LEGACY_IOT | VBLK_ON_MMIO_LEGACY)

/* CHECK CONDITION, and the host's word that there is sense data. */
#define ERRORS_SENSE        (0x08000000 | 0x02)
#define ERRORS_NOT_RUN      255

/* One command; addresses are valid after scsi_build(). */
typedef struct Scsi {
    VblkChain chain;
    uint8_t cdb[10];
    uint32_t in_len[4];         /* data-in descriptors, ends with 0 */
    const void *out;
    uint32_t out_len;
    uint32_t inhdr_len;         /* 0: the right one */
    uint64_t in, sense, inhdr;
    uint32_t used;
    struct virtio_scsi_inhdr answer;
} Scsi;

static void scsi_build(Vblk *v, Scsi *c)
{
    const unsigned inhdr_len = c->inhdr_len ?: sizeof(c->answer);

    vblk_chain_header(v, &c->chain, VIRTIO_BLK_T_SCSI_CMD, 0);
    vblk_chain_out(v, &c->chain, c->cdb, sizeof(c->cdb));
    if (c->out_len) {
        vblk_chain_out(v, &c->chain, c->out, c->out_len);
    }
    for (unsigned i = 0; c->in_len[i]; i++) {
        uint64_t at = vblk_chain_in(v, &c->chain, c->in_len[i]);

        c->in = c->in ?: at;
    }
    c->sense = vblk_chain_in(v, &c->chain, SENSE_LEN);
    c->inhdr = vblk_chain_in(v, &c->chain, inhdr_len);
    vblk_chain_status(v, &c->chain);
}

/* Send it; the fields of the in-header are left in @c in host order. */
static uint8_t scsi_run(Vblk *v, Scsi *c)
{
    uint8_t status;

    scsi_build(v, c);
    status = vblk_chain_run(v, 0, &c->chain, &c->used);
    qtest_memread(v->qts, c->inhdr, &c->answer, sizeof(c->answer));
    le32_to_cpus(&c->answer.errors);
    le32_to_cpus(&c->answer.data_len);
    le32_to_cpus(&c->answer.sense_len);
    le32_to_cpus(&c->answer.residual);
    return status;
}

/* The device with scsi=on, as only a legacy driver can have it. */
static Vblk *start(VblkFake *f, const VblkVariant *variant, const char *props)
{
    VblkOpts o = vblk_opts(variant);

    if (o.transport == VBLK_PCI_LEGACY) {
        o.transport = VBLK_PCI_LEGACY_ONLY;
    }
    o.props = props;
    if (!vblk_needs_prop("scsi") ||
        (o.transport == VBLK_MMIO_LEGACY && !vblk_needs_machine("microvm")) ||
        !vblk_fake_begin(f, SIZE)) {
        return NULL;
    }
    vblk_fake_use(f, &o, NULL);
    return vblk_start(&o);
}

static void stop(VblkFake *f, Vblk *v)
{
    vblk_stop(v);
    vblk_fake_end(f);
}

/* Issue 2, SCSI_CMD: data comes in, over several descriptors. */
static void test_inquiry(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    Scsi c = { .cdb = { INQUIRY, [4] = 36 }, .in_len = { 8, 28 } };
    char head[8], text[8];

    if (!v) {
        return;
    }
    g_assert_true(vblk_has(v, VIRTIO_BLK_F_SCSI));
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_OK);
    qtest_memread(v->qts, c.chain.in[0].addr, head, sizeof(head));
    qtest_memread(v->qts, c.chain.in[1].addr, text, sizeof(text));
    g_assert_cmpmem(head, 4, "\0\0\5\2", 4);
    g_assert_cmpmem(text, 8, "FAKEHOST", 8);
    g_assert_cmpint(c.answer.errors, ==, 0);
    g_assert_cmpint(c.answer.data_len, ==, 36);
    g_assert_cmpint(c.answer.sense_len, ==, 0);
    g_assert_cmpint(c.answer.residual, ==, 0);
    /* Row 55: the in-header lies last, so all of it has to be counted. */
    g_assert_cmpint(c.used, ==, 36 + SENSE_LEN + sizeof(c.answer) + 1);
    stop(&f, v);
}

/* Row 55: the part of the buffer that no data came for reads as zero. */
static void test_residual(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    Scsi c = { .cdb = { READ_CAPACITY }, .in_len = { 5, 59 } };
    uint8_t data[8] = {};

    if (!v) {
        return;
    }
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_OK);
    qtest_memread(v->qts, c.chain.in[0].addr, data, 5);
    qtest_memread(v->qts, c.chain.in[1].addr, data + 5, 3);
    g_assert_cmpint(ldl_be_p(data), ==, SIZE / 512 - 1);
    g_assert_cmpint(ldl_be_p(data + 4), ==, 512);
    g_assert_true(vblk_mem_is(v, c.chain.in[1].addr + 3, 0, 56));
    g_assert_true(vblk_mem_is(v, c.sense, 0, SENSE_LEN));
    g_assert_cmpint(c.answer.residual, ==, 56);
    g_assert_cmpint(c.answer.data_len, ==, 64);
    stop(&f, v);
}

/* Issue 2: CHECK CONDITION brings its sense data and the residual. */
static void test_check_condition(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    Scsi c = { .cdb = { TEST_UNIT_READY } };
    Scsi bad = { .cdb = { UNKNOWN_COMMAND }, .in_len = { 512 } };
    uint8_t sense[18];

    if (!v) {
        return;
    }
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_OK);
    vblk_fake_set(&f, "fault/sense", "2");
    memset(&c.chain, 0, sizeof(c.chain));
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmphex(c.answer.errors, ==, ERRORS_SENSE);
    g_assert_cmpint(c.answer.sense_len, ==, 18);
    g_assert_cmpint(c.answer.data_len, ==, 0);
    qtest_memread(v->qts, c.sense, sense, sizeof(sense));
    g_assert_cmphex(sense[0], ==, 0x70);
    g_assert_cmphex(sense[2], ==, 2);
    g_assert_cmphex(sense[12], ==, 0x3a);

    g_assert_cmpint(scsi_run(v, &bad), ==, VIRTIO_BLK_S_IOERR);
    qtest_memread(v->qts, bad.sense, sense, sizeof(sense));
    g_assert_cmphex(sense[2], ==, 5);
    g_assert_cmpint(bad.answer.residual, ==, 512);
    g_assert_true(vblk_mem_is(v, bad.in, 0, 512));
    stop(&f, v);
}

/* Issue 2: data goes out. */
static void test_data_out(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    uint8_t data[600], back[1024];
    Scsi c = { .cdb = { WRITE_BUFFER }, .out = data, .out_len = 600 };

    if (!v) {
        return;
    }
    vblk_pattern(data, sizeof(data), 7);
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(c.answer.residual, ==, 0);
    g_assert_cmpint(c.answer.data_len, ==, 600);
    g_assert_cmpint(c.used, ==, SENSE_LEN + sizeof(c.answer) + 1);
    g_assert_cmpint(vblk_read(v, 0, back, sizeof(back)), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpmem(data, 600, back, 600);
    stop(&f, v);
}

/* Both directions in one command: SG_IO can't do that. */
static void test_both_ways(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    char data[512] = "x";
    Scsi c = { .cdb = { WRITE_BUFFER }, .out = data, .out_len = 512,
               .in_len = { 512 } };

    if (!v) {
        return;
    }
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(c.answer.errors, ==, ERRORS_NOT_RUN);
    g_assert_true(vblk_mem_is(v, c.in, 0, 512));
    g_assert_true(vblk_fake_is(&f, 0, 512, 0));
    vblk_check_io(v, 0);
    stop(&f, v);
}

/* The host refuses SG_IO altogether, as it does for most block devices. */
static void test_no_sg_io(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    Scsi c = { .cdb = { INQUIRY, [4] = 36 }, .in_len = { 36 } };

    if (!v) {
        return;
    }
    vblk_fake_fault(&f, "sg_io", ENOTTY);
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(c.answer.errors, ==, ERRORS_NOT_RUN);
    g_assert_true(vblk_mem_is(v, c.in, 0, 36));
    g_assert_true(vblk_mem_is(v, c.sense, 0, SENSE_LEN));
    vblk_check_io(v, 0);
    stop(&f, v);
}

/* scsi=off: the host is not asked, whatever it could do. */
static void test_off(const VblkVariant *variant)
{
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=off");
    Scsi c = { .cdb = { INQUIRY, [4] = 36 }, .in_len = { 36 } };

    if (!v) {
        return;
    }
    g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpint(c.answer.errors, ==, ERRORS_NOT_RUN);
    g_assert_true(vblk_mem_is(v, c.in, 0, 36));
    stop(&f, v);
}

/* B2, CVE-2026-48914: an in-header too short for what goes into it. */
static void test_short_inhdr(const VblkVariant *variant)
{
    static const uint32_t lens[] = { 1, 4, 15, 17 };
    static const char *const props[] = { "scsi=on", "scsi=off" };

    for (unsigned p = 0; p < ARRAY_SIZE(props); p++) {
        VblkFake f;
        Vblk *v = start(&f, variant, props[p]);

        if (!v) {
            return;
        }
        for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
            Scsi c = { .cdb = { INQUIRY, [4] = 36 }, .in_len = { 36 },
                       .inhdr_len = lens[i] };

            g_assert_cmpint(scsi_run(v, &c), ==, VIRTIO_BLK_S_IOERR);
            g_assert_cmpint(c.used, ==, 1);
            g_assert_true(vblk_mem_is(v, c.inhdr, VBLK_FILL, lens[i]));
        }
        stop(&f, v);
    }
}

/* B2: fewer descriptors than a command has; a command block without end. */
static void test_framing(const VblkVariant *variant)
{
    static const uint8_t cdb[300] = { INQUIRY };
    VblkFake f;
    Vblk *v = start(&f, variant, "scsi=on");
    VblkChain no_cdb = {}, no_sense = {}, long_cdb = {};
    uint32_t used;

    if (!v) {
        return;
    }
    vblk_chain_header(v, &no_cdb, VIRTIO_BLK_T_SCSI_CMD, 0);
    vblk_chain_in(v, &no_cdb, SENSE_LEN);
    vblk_chain_in(v, &no_cdb, sizeof(struct virtio_scsi_inhdr));
    vblk_chain_status(v, &no_cdb);
    g_assert_cmpint(vblk_chain_run(v, 0, &no_cdb, &used), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(used, ==, 1);

    vblk_chain_header(v, &no_sense, VIRTIO_BLK_T_SCSI_CMD, 0);
    vblk_chain_out(v, &no_sense, cdb, 6);
    vblk_chain_in(v, &no_sense, sizeof(struct virtio_scsi_inhdr));
    vblk_chain_status(v, &no_sense);
    g_assert_cmpint(vblk_chain_run(v, 0, &no_sense, &used), ==,
                    VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(used, ==, 1);

    vblk_chain_header(v, &long_cdb, VIRTIO_BLK_T_SCSI_CMD, 0);
    vblk_chain_out(v, &long_cdb, cdb, sizeof(cdb));
    vblk_chain_in(v, &long_cdb, SENSE_LEN);
    vblk_chain_in(v, &long_cdb, sizeof(struct virtio_scsi_inhdr));
    vblk_chain_status(v, &long_cdb);
    g_assert_cmpint(vblk_chain_run(v, 0, &long_cdb, NULL), ==,
                    VIRTIO_BLK_S_IOERR);
    vblk_check_io(v, 0);
    stop(&f, v);
}

/* scsi=on is for devices that offer no VERSION_1. */
static void test_modern_refused(void)
{
    VblkOpts o = { .transport = VBLK_PCI_MODERN, .props = "scsi=on" };

    vblk_fails(&o, "scsi", "disable-modern=on", NULL);
    if (vblk_needs_machine("microvm")) {
        o.transport = VBLK_MMIO_MODERN;
        vblk_fails(&o, "scsi", "virtio-mmio.force-legacy=on", NULL);
    }
}

void vblk_add_scsi_tests(void)
{
    vblk_add("scsi/inquiry", SCSI_ON, test_inquiry);
    vblk_add("scsi/residual", SCSI_ON, test_residual);
    vblk_add("scsi/check-condition", SCSI_ON, test_check_condition);
    vblk_add("scsi/data-out", SCSI_ON, test_data_out);
    vblk_add("scsi/both-ways", SCSI_ON, test_both_ways);
    vblk_add("scsi/no-sg-io", SCSI_ON, test_no_sg_io);
    vblk_add("scsi/off", SCSI_ON, test_off);
    vblk_add("scsi/short-inhdr", SCSI_ON, test_short_inhdr);
    vblk_add("scsi/framing", SCSI_ON, test_framing);
    vblk_add_one("scsi/modern-refused", test_modern_refused);
}
