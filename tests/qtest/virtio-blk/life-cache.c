/*
 * virtio-blk qtests: the write cache mode in all its rules
 *
 * A write is durable when it went down with FUA, or a flush followed it: the
 * log of writes below the disk tells.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "life.h"

#define WCE_CASES       (LIFE_MAIN | LIFE_THREADS | LIFE_LEGACY | LIFE_MMIO)
#define WRITEBACK(v)    vblk_cfg(v, wce)

static void set_writeback(LifeVm *vm, uint8_t val)
{
    vblk_cfg_write8(vm->v, offsetof(struct virtio_blk_config, wce), val);
}

static unsigned durables(LifeVm *vm)
{
    return life_log_flags(vm, LIFE_LOG_FUA) +
           life_log_flags(vm, LIFE_LOG_FLUSH);
}

static bool write_is_durable(LifeVm *vm)
{
    unsigned before = durables(vm), q = vm->s.queues - 1;

    life_ok(vm, life_write_kick(vm, q, 64, 1));
    return durables(vm) > before;
}

static LifeVm *start(const LifeCase *c, const char *json, uint64_t refuse)
{
    return life_start(c, &(LifeSpec) {
        .log = true, .json = json, .refuse = refuse,
    });
}

/* Rows 27, 28: the writeback byte switches at once, in both directions. */
static void test_byte(const LifeCase *c)
{
    LifeVm *vm = start(c, NULL, 0);

    g_assert_true(vblk_has(vm->v, VIRTIO_BLK_F_CONFIG_WCE));
    g_assert_cmpint(WRITEBACK(vm->v), ==, 1);
    g_assert_false(write_is_durable(vm));
    for (unsigned i = 0; i < 3; i++) {
        set_writeback(vm, 0);
        g_assert_cmpint(WRITEBACK(vm->v), ==, 0);
        g_assert_true(write_is_durable(vm));
        set_writeback(vm, 1);
        g_assert_cmpint(WRITEBACK(vm->v), ==, 1);
        g_assert_false(write_is_durable(vm));
    }
    life_stop(vm);
}

/* Issue 2, WCE: a device reset brings back what the user set. */
static void test_reset(const LifeCase *c)
{
    LifeVm *vm = start(c, NULL, 0);

    set_writeback(vm, 0);
    g_assert_true(write_is_durable(vm));
    vblk_reset(vm->v);
    life_setup(vm);
    g_assert_cmpint(WRITEBACK(vm->v), ==, 1);
    g_assert_false(write_is_durable(vm));
    life_stop(vm);
}

/* Row 27: the same from the other side, write-cache=off. */
static void test_off(const LifeCase *c)
{
    LifeVm *vm = start(c, "\"write-cache\":\"off\",", 0);

    g_assert_cmpint(WRITEBACK(vm->v), ==, 0);
    g_assert_true(write_is_durable(vm));
    set_writeback(vm, 1);
    g_assert_false(write_is_durable(vm));
    vblk_reset(vm->v);
    life_setup(vm);
    g_assert_cmpint(WRITEBACK(vm->v), ==, 0);
    g_assert_true(write_is_durable(vm));
    life_stop(vm);
}

/* config-wce=off: no byte, FLUSH alone means writeback. */
static void test_no_config(const LifeCase *c)
{
    LifeVm *vm = start(c, "\"config-wce\":false,", 0);
    unsigned flushes;

    g_assert_false(vblk_has(vm->v, VIRTIO_BLK_F_CONFIG_WCE));
    g_assert_true(vblk_has(vm->v, VIRTIO_BLK_F_FLUSH));
    g_assert_false(write_is_durable(vm));
    flushes = life_log_flags(vm, LIFE_LOG_FLUSH);
    g_assert_cmpint(vblk_flush(vm->v), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(life_log_flags(vm, LIFE_LOG_FLUSH), ==, flushes + 1);
    life_stop(vm);
}

/* Row 26: a driver that knows neither gets durable writes. */
static void test_neither(const LifeCase *c)
{
    LifeVm *vm = start(c, NULL, VBLK_BIT(VIRTIO_BLK_F_FLUSH) |
                                VBLK_BIT(VIRTIO_BLK_F_CONFIG_WCE));

    g_assert_true(write_is_durable(vm));
    /* A next driver that does know is not bound by the first one. */
    vblk_reset(vm->v);
    vm->v->o.refuse = 0;
    life_setup(vm);
    g_assert_false(write_is_durable(vm));
    life_stop(vm);
}

/* Rows 26, 27: write zeroes are writes, too. */
static void test_zeroes(const LifeCase *c)
{
    LifeVm *vm = start(c, "\"write-cache\":\"off\",", 0);
    struct virtio_blk_discard_write_zeroes seg = {
        .sector = cpu_to_le64(64), .num_sectors = cpu_to_le32(8),
    };
    unsigned before = durables(vm);

    g_assert_cmpint(vblk_cmd(vm->v, 0, VIRTIO_BLK_T_WRITE_ZEROES, 0, &seg,
                             sizeof(seg), NULL), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(durables(vm), >, before);
    life_stop(vm);
}

/* Row 3: CONFIG_WCE without FLUSH starts with writeback = 0 (stock: 1). */
static void test_config_without_flush(const LifeCase *c)
{
    LifeVm *vm = start(c, NULL, VBLK_BIT(VIRTIO_BLK_F_FLUSH));

    g_assert_true(vblk_has(vm->v, VIRTIO_BLK_F_CONFIG_WCE));
    g_assert_cmpint(WRITEBACK(vm->v), ==, 0);
    g_assert_true(write_is_durable(vm));
    life_stop(vm);
}

/* Rows 17, 18: status and feature writes leave a chosen mode alone. */
static void test_status(const LifeCase *c)
{
    LifeVm *vm = start(c, NULL, 0);
    Vblk *v = vm->v;
    uint8_t status = vblk_status(v);

    set_writeback(vm, 0);
    vblk_set_status(v, status);
    vblk_set_status(v, status & ~VIRTIO_CONFIG_S_DRIVER_OK);
    g_assert_cmpint(WRITEBACK(v), ==, 0);
    if (!vblk_is_modern(v)) {
        vblk_accept(v, v->features);
        g_assert_cmpint(WRITEBACK(v), ==, 0);
    }
    vblk_set_status(v, status);
    g_assert_cmpint(WRITEBACK(v), ==, 0);
    g_assert_true(write_is_durable(vm));
    life_stop(vm);
}

/* Rows 1, 2: FLUSH is offered, and whenever CONFIG_WCE is. */
static void test_offer(const LifeCase *c)
{
    static const char *const props[] = {
        NULL, "\"config-wce\":false,", "\"write-cache\":\"off\",",
        "\"write-cache\":\"off\",\"config-wce\":false,",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(props); i++) {
        LifeVm *vm = start(c, props[i], 0);
        uint64_t f = vm->v->host_features;

        g_assert_true(!(f & VBLK_BIT(VIRTIO_BLK_F_CONFIG_WCE)) ||
                      f & VBLK_BIT(VIRTIO_BLK_F_FLUSH));
        /* Write-through with no way to change it: nothing to flush. */
        g_assert_cmpint(!!(f & VBLK_BIT(VIRTIO_BLK_F_FLUSH)), ==, i != 3);
        g_assert_cmpint(write_is_durable(vm), ==, i >= 2);
        life_stop(vm);
    }
}

void life_add_cache_tests(void)
{
    life_add("cache/byte", WCE_CASES, test_byte);
    life_add("cache/reset", WCE_CASES, test_reset);
    life_add("cache/off", WCE_CASES, test_off);
    life_add("cache/no-config-wce", WCE_CASES, test_no_config);
    life_add("cache/neither", WCE_CASES, test_neither);
    life_add("cache/write-zeroes", LIFE_SPLIT, test_zeroes);
    life_add("cache/config-without-flush", WCE_CASES & ~LIFE_LEGACY,
             test_config_without_flush);
    life_add("cache/status", LIFE_MAIN | LIFE_LEGACY | LIFE_MMIO,
             test_status);
    life_add("cache/offer", LIFE_MAIN | LIFE_LEGACY, test_offer);
}
