/*
 * virtio-blk qtests: migration from one QEMU to another
 *
 * The driver, that is the test, goes on where the guest went: it finds its
 * rings in the memory that migrated, with the requests that were stopped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "life.h"

#define WCE             offsetof(struct virtio_blk_config, wce)

/* A place for the socket and for what QEMU prints, and the two machines. */
typedef struct Trip {
    char *dir, *socket, *text;
    LifeVm *vm, *to;
} Trip;

/* Also when the test fails. */
static void remove_dir(void *opaque)
{
    static const char *const files[] = { "socket", "text" };

    for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
        g_autofree char *path = g_strdup_printf("%s/%s", (char *)opaque,
                                                files[i]);

        unlink(path);
    }
    rmdir(opaque);
}

static Trip depart(const LifeCase *c, LifeSpec s)
{
    g_autofree char *dir = g_strdup_printf("%s/vblk-migrate-XXXXXX",
                                           g_get_tmp_dir());
    Trip t = { 0 };

    g_assert_nonnull(g_mkdtemp(dir));
    t.dir = g_steal_pointer(&dir);
    t.socket = g_strdup_printf("%s/socket", t.dir);
    t.text = g_strdup_printf("%s/text", t.dir);
    qtest_add_abrt_handler(remove_dir, t.dir);
    t.vm = life_start(c, &s);
    return t;
}

/* The other QEMU, on the same image; @s says how it differs. */
static void await(Trip *t, const LifeCase *c, LifeSpec s)
{
    g_autofree char *args = g_strdup_printf("-incoming unix:%s %s", t->socket,
                                            s.args ?: "");

    s.args = args;
    s.image = t->vm->image;
    s.no_setup = true;
    t->to = life_start(c, &s);
    t->to->s.args = NULL;
}

/* Wait until @command's status is one of two (or is not what follows a '!'). */
static void wait_for(LifeVm *vm, const char *command, const char *is,
                     const char *or)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    bool reached = false;

    while (!reached) {
        QDict *resp = life_query(vm, "{'execute': %s}", command);
        const char *now = qdict_get_try_str(qdict_get_qdict(resp, "return"),
                                            "status") ?: "";

        reached = is[0] == '!' ? strcmp(now, is + 1) != 0 :
                                 !strcmp(now, is) || !strcmp(now, or);
        if (!reached && (!strcmp(now, "failed") ||
                         g_get_monotonic_time() > end)) {
            vblk_fail("%s still says %s", command, now);
        }
        qobject_unref(resp);
        g_usleep(2000);
    }
}

static void send_off(Trip *t)
{
    g_autofree char *uri = g_strdup_printf("unix:%s", t->socket);

    life_qmp(t->vm, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
}

/* The guest moves over; from then on t->vm is on the other QEMU. */
static void travel(Trip *t)
{
    send_off(t);
    wait_for(t->vm, "query-migrate", "completed", "completed");
    wait_for(t->to, "query-status", "!inmigrate", NULL);
    vblk_move(t->vm->v, t->to->v);
}

static void arrive(Trip *t)
{
    if (t->to) {
        life_stop(t->to);
    }
    life_stop(t->vm);
    qtest_remove_abrt_handler(t->dir);
    remove_dir(t->dir);
    g_free(t->dir);
    g_free(t->socket);
    g_free(t->text);
}

static void assert_features(LifeVm *vm)
{
    g_assert_cmphex(vblk_offered(vm->v), ==, vm->v->host_features);
    g_assert_cmpint(vblk_status(vm->v) & VIRTIO_CONFIG_S_DRIVER_OK, !=, 0);
}

/* An idle disk: status, features, config space, data and interrupts. */
static void test_idle(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) { .msix = c->transport < VBLK_MMIO_MODERN });
    Vblk *v = t.vm->v;
    uint64_t capacity = vblk_cfg(v, capacity);

    life_ok(t.vm, life_write_kick(t.vm, t.vm->s.queues - 1, 64, 1));
    await(&t, c, (LifeSpec) { 0 });
    travel(&t);
    life_assert_state(t.vm, "running");
    assert_features(t.vm);
    g_assert_cmpint(vblk_cfg(v, capacity), ==, capacity);
    g_assert_cmpint(vblk_cfg(v, num_queues), ==, t.vm->s.queues);
    for (unsigned q = 0; q < t.vm->s.queues; q++) {
        vblk_irq(v, q);
        life_assert_read(t.vm, q, 64, 1);
        vblk_wait_irq(v, q);
        vblk_check_io(v, q);
    }
    arrive(&t);
}

/* Under a load, with requests put on the rings and no doorbell rung yet. */
static void test_load(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) { 0 });
    LifeLoad *l = life_load_new(t.vm, 6);

    await(&t, c, (LifeSpec) { 0 });
    life_load_run(l, 50);
    life_qmp(t.vm, "{'execute': 'stop'}");
    travel(&t);
    life_assert_state(t.vm, "paused");
    life_cont(t.vm);
    life_load_run(l, 50);
    life_load_end(l);
    arrive(&t);
}

/* Bytes of memory that were sent. */
static int64_t sent(LifeVm *vm)
{
    QDict *resp = life_query(vm, "{'execute': 'query-migrate'}");
    QDict *ram = qdict_get_qdict(qdict_get_qdict(resp, "return"), "ram");
    int64_t n = ram ? qdict_get_int(ram, "transferred") : 0;

    qobject_unref(resp);
    return n;
}

static void set_migration(LifeVm *vm, int64_t bandwidth, int downtime)
{
    life_qmp(vm, "{'execute': 'migrate-set-parameters', 'arguments': {"
             "'max-bandwidth': %" PRId64 ", 'downtime-limit': %d}}", bandwidth,
             downtime);
}

/*
 * Read a block into a page, with the status in another one, that the driver
 * does not touch.
 */
static void read_into(LifeVm *vm, uint64_t page, uint64_t sector)
{
    VblkChain c = { 0 };

    vblk_chain_header(vm->v, &c, VIRTIO_BLK_T_IN, sector);
    c.in[c.nin++] = (VblkSeg) { page, LIFE_BLOCK };
    c.in[c.nin++] = (VblkSeg) { page + LIFE_BLOCK, 1 };
    g_assert_cmpint(vblk_chain_run(vm->v, 0, &c, NULL), ==,
                    VBLK_S_UNTOUCHED);
}

static void assert_page(LifeVm *vm, uint64_t page, uint32_t seed)
{
    uint8_t want[LIFE_BLOCK], got[LIFE_BLOCK];

    vblk_pattern(want, sizeof(want), seed);
    qtest_memread(vm->v->qts, page, got, sizeof(got));
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
    g_assert_cmpint(qtest_readb(vm->v->qts, page + LIFE_BLOCK), ==,
                    VIRTIO_BLK_S_OK);
}

/*
 * With a load, after its memory has been sent once: what the device writes must
 * be sent again.  What is sent last, above, is large enough to take until the
 * load has run.
 */
static void test_live(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) { 0 });
    LifeLoad *l = life_load_new(t.vm, 6);
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    uint64_t page;

    qtest_memset(t.vm->v->qts, 48 * MiB, 0x5a, 32 * MiB);
    page = QEMU_ALIGN_UP(vblk_alloc(t.vm->v, 4 * LIFE_BLOCK), LIFE_BLOCK);
    qtest_memset(t.vm->v->qts, page, 0xff, 2 * LIFE_BLOCK);
    life_ok(t.vm, life_write_kick(t.vm, 0, 64, 1));
    await(&t, c, (LifeSpec) { 0 });
    set_migration(t.vm, MiB, 1);
    send_off(&t);
    while (sent(t.vm) < MiB) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    read_into(t.vm, page, 64);
    l->base[0] = vblk_completions(t.vm->v, 0);
    life_load_run(l, 100);
    life_qmp(t.vm, "{'execute': 'stop'}");
    set_migration(t.vm, GiB, 1000);
    wait_for(t.vm, "query-migrate", "completed", "completed");
    wait_for(t.to, "query-status", "!inmigrate", NULL);
    vblk_move(t.vm->v, t.to->v);
    life_assert_state(t.vm, "paused");
    assert_page(t.vm, page, 1);
    life_cont(t.vm);
    life_load_run(l, 50);
    life_load_end(l);
    arrive(&t);
}

/* A machine with writes parked in it, and another that waits for it. */
static Trip depart_parked(const LifeCase *c, VblkIo **io, unsigned *n,
                          LifeSpec to)
{
    Trip t = depart(c, (LifeSpec) { .rules = LIFE_PARKED_RULES,
                                    .json = LIFE_STOP_JSON });

    *n = life_park(t.vm, io);
    to.json = LIFE_STOP_JSON;
    await(&t, c, to);
    return t;
}

static void assert_unparked(LifeVm *vm, VblkIo **io, unsigned n)
{
    life_assert_unparked(vm, io, n);
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
    }
}

/* Issue 2: stopped requests travel and are done after cont, each once. */
static void test_stopped(const LifeCase *c)
{
    VblkIo *io[LIFE_PARKED_MAX];
    unsigned n;
    Trip t = depart_parked(c, io, &n, (LifeSpec) { 0 });

    travel(&t);
    life_assert_state(t.vm, "io-error");
    for (unsigned i = 0; i < n; i++) {
        vblk_expect_pending(t.vm->v, io[i]->req, 0);
    }
    life_cont(t.vm);
    assert_unparked(t.vm, io, n);
    arrive(&t);
}

/* They fail on the other side as well: parked again there, then done. */
static void test_stopped_again(const LifeCase *c)
{
    VblkIo *io[LIFE_PARKED_MAX];
    unsigned n;
    Trip t = depart_parked(c, io, &n, (LifeSpec) {
        .rules = LIFE_PARKED_RULES,
    });

    travel(&t);
    life_cont(t.vm);
    life_wait_stopped(t.vm);
    life_assert_state(t.vm, "io-error");
    life_assert_iostatus(t.vm, "failed");
    life_cont(t.vm);
    assert_unparked(t.vm, io, n);
    arrive(&t);
}

/* A reset on the other side drops them, and the rings are free again. */
static void test_stopped_reset(const LifeCase *c)
{
    VblkIo *io[LIFE_PARKED_MAX];
    unsigned n;
    Trip t = depart_parked(c, io, &n, (LifeSpec) { 0 });

    travel(&t);
    vblk_reset(t.vm->v);
    life_cont(t.vm);
    for (unsigned i = 0; i < n; i++) {
        life_untouched(t.vm, io[i], 0);
        life_assert_image(t.vm, LIFE_PARKED_SECTOR(i), 0);
        vblk_io_abandon(t.vm->v, io[i]);
    }
    life_setup(t.vm);
    for (unsigned q = 0; q < t.vm->s.queues; q++) {
        vblk_check_io(t.vm->v, q);
    }
    arrive(&t);
}

/* On to a third QEMU and none of them restarted in between. */
static void test_two_trips(const LifeCase *c)
{
    VblkIo *io[LIFE_PARKED_MAX];
    unsigned n;
    Trip t = depart_parked(c, io, &n, (LifeSpec) { 0 });
    LifeVm *first;

    travel(&t);
    first = t.to;
    await(&t, c, (LifeSpec) { .json = LIFE_STOP_JSON });
    travel(&t);
    life_cont(t.vm);
    assert_unparked(t.vm, io, n);
    life_stop(first);
    arrive(&t);
}

/* The sectors of the writes in a trace; returns how many. */
static unsigned traced_sectors(const char *file, uint64_t *sector, unsigned max)
{
    g_autofree char *text = NULL;
    char *p;
    unsigned n = 0;

    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    for (p = text; (p = strstr(p, " sector ")); n++) {
        p += strlen(" sector ");
        g_assert_cmpint(n, <, max);
        sector[n] = g_ascii_strtoull(p, NULL, 10);
    }
    return n;
}

/* The trip turns the list round; what starts first must still be first. */
static void test_order(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) { .rules = LIFE_PARKED_RULES,
                                    .json = LIFE_STOP_JSON });
    g_autofree char *args = g_strdup_printf("-trace virtio_blk_handle_write "
                                            "-D %s", t.text);
    uint64_t sector[LIFE_PARKED_MAX];
    VblkIo *io[LIFE_PARKED_MAX];
    unsigned n = life_park(t.vm, io);

    await(&t, c, (LifeSpec) { .json = LIFE_STOP_JSON, .args = args });
    travel(&t);
    life_cont(t.vm);
    for (unsigned i = 0; i < n; i++) {
        life_ok(t.vm, io[i]);
    }
    if (!g_file_test(t.text, G_FILE_TEST_EXISTS)) {
        g_test_skip("this QEMU was built without the log trace backend");
    } else {
        g_assert_cmpint(traced_sectors(t.text, sector, n), ==, n);
        for (unsigned i = 0; i < n; i++) {
            /* The queues may start in any order. */
            g_assert_true(i % LIFE_PARKED == 0 || sector[i] > sector[i - 1]);
        }
    }
    arrive(&t);
}

/* ---- the write cache mode ---- */

static void set_writeback(LifeVm *vm, uint8_t on)
{
    vblk_cfg_write8(vm->v, WCE, on);
}

/* B19: both values of the byte, against what the other side starts with. */
static void test_cache(const LifeCase *c)
{
    static const char *const json[] = {
        "\"write-cache\":\"on\",", "\"write-cache\":\"off\",",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(json); i++) {
        Trip t = depart(c, (LifeSpec) { .json = json[i] });

        set_writeback(t.vm, i);
        await(&t, c, (LifeSpec) { .json = json[i] });
        travel(&t);
        g_assert_cmpint(vblk_writeback(t.vm->v), ==, i);
        g_assert_cmpint(vblk_cfg(t.vm->v, wce), ==, i);
        /* The user's own mode comes back with the next driver. */
        vblk_reset(t.vm->v);
        g_assert_cmpint(vblk_writeback(t.vm->v), ==, !i);
        arrive(&t);
    }
}

/* B19: a driver that never read the config space keeps its write cache. */
static void test_cache_unread(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) { 0 });

    g_assert_true(vblk_writeback(t.vm->v));
    await(&t, c, (LifeSpec) { 0 });
    travel(&t);
    g_assert_true(vblk_writeback(t.vm->v));
    arrive(&t);
}

/* B19: the mode of a driver that is gone must not come back by the trip. */
static void test_cache_stale(const LifeCase *c)
{
    const char *json = "\"write-cache\":\"off\",";
    Trip t = depart(c, (LifeSpec) { .json = json });

    set_writeback(t.vm, 1);
    g_assert_cmpint(vblk_cfg(t.vm->v, num_queues), ==, t.vm->s.queues);
    vblk_reset(t.vm->v);
    life_setup(t.vm);
    g_assert_false(vblk_writeback(t.vm->v));
    await(&t, c, (LifeSpec) { .json = json });
    travel(&t);
    g_assert_false(vblk_writeback(t.vm->v));
    arrive(&t);
}

/* B19, row 26: neither FLUSH nor CONFIG_WCE, writes are durable there, too. */
static void test_cache_neither(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) {
        .refuse = VBLK_BIT(VIRTIO_BLK_F_FLUSH) |
                  VBLK_BIT(VIRTIO_BLK_F_CONFIG_WCE),
    });

    g_assert_false(vblk_writeback(t.vm->v));
    await(&t, c, (LifeSpec) { 0 });
    travel(&t);
    g_assert_false(vblk_writeback(t.vm->v));
    arrive(&t);
}

/* Row 3: CONFIG_WCE without FLUSH; what was read before is out of date. */
static void no_flush(const LifeCase *c, bool read_before)
{
    Trip t = depart(c, (LifeSpec) { .refuse = VBLK_BIT(VIRTIO_BLK_F_FLUSH) });

    if (read_before) {
        vblk_reset(t.vm->v);
        g_assert_cmpint(vblk_cfg(t.vm->v, wce), ==, 1);
        life_setup(t.vm);
    }
    g_assert_false(vblk_writeback(t.vm->v));
    await(&t, c, (LifeSpec) { 0 });
    travel(&t);
    g_assert_false(vblk_writeback(t.vm->v));
    arrive(&t);
}

/* B19. */
static void test_cache_no_flush(const LifeCase *c)
{
    no_flush(c, true);
    no_flush(c, false);
}

/* ---- a destination that does not fit ---- */

static void assert_printed(const Trip *t, const char *words)
{
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(t->text, &text, NULL, NULL));
    if (!strstr(text, words)) {
        vblk_fail("'%s' is missing in: %s", words, text);
    }
}

/*
 * The other QEMU ends with a message; the guest, to whom nothing happened,
 * goes on here.
 */
static void refused(const LifeCase *c, LifeSpec from, LifeSpec s,
                    const char *words)
{
    Trip t = depart(c, from);
    g_autofree char *args = g_strdup_printf("2>%s", t.text);

    s.args = args;
    /* What no driver has read does not travel. */
    vblk_cfg(t.vm->v, num_queues);
    await(&t, c, s);
    qtest_set_expected_status(t.to->v->qts, EXIT_FAILURE);
    send_off(&t);
    qtest_wait_qemu(t.to->v->qts);
    assert_printed(&t, words);
    /* Without a way back the source may think that all went well. */
    wait_for(t.vm, "query-migrate", "completed", "failed");
    life_qmp(t.vm, "{'execute': 'cont'}");
    life_assert_state(t.vm, "running");
    for (unsigned q = 0; q < t.vm->s.queues; q++) {
        vblk_check_io(t.vm->v, q);
    }
    arrive(&t);
}

/*
 * The number of MSI-X vectors follows num-queues by default, and the PCI code
 * would complain about that; with vectors= it is for the device to see.
 */
#define VECTORS_JSON    "\"vectors\":8,"

static void queues_refused(const LifeCase *c, unsigned from, unsigned to,
                           const char *words)
{
    bool pci = c->transport < VBLK_MMIO_MODERN;
    const char *json = pci ? VECTORS_JSON : NULL;

    refused(c, (LifeSpec) { .queues = from, .json = json },
            (LifeSpec) { .queues = to, .json = json }, words);
}

static void test_fewer_queues(const LifeCase *c)
{
    queues_refused(c, 4, 2, "num-queues=2, but the source had 4");
}

static void test_more_queues(const LifeCase *c)
{
    queues_refused(c, 2, 4, "num-queues=4, but the source had 2");
}

#define MIGRATE_CASES   (LIFE_PCI | LIFE_MMIO | LIFE_LEGACY | LIFE_NOEVENTFD)

/* One QEMU after the other; the last is like the first that was moved to. */
static void test_endure(const LifeCase *c)
{
    Trip t = depart(c, (LifeSpec) { 0 });
    LifeLoad *l = life_load_new(t.vm, 4);
    unsigned fds = 0, threads = 0;

    for (unsigned i = 0; i < MAX(life_endure_rounds() / 5, 10); i++) {
        alarm(VBLK_TEST_SECONDS);
        await(&t, c, (LifeSpec) { 0 });
        life_load_run(l, 20);
        travel(&t);
        life_stop(t.to);
        t.to = NULL;
        life_load_run(l, 20);
        life_drop_events(t.vm);
        if (!i) {
            fds = life_fds(t.vm);
            threads = life_threads(t.vm);
        }
    }
    g_test_message("files %u -> %u, threads %u -> %u", fds, life_fds(t.vm),
                   threads, life_threads(t.vm));
    g_assert_cmpint(life_fds(t.vm), <=, fds);
    g_assert_cmpint(life_threads(t.vm), <=, threads + 8);
    life_load_end(l);
    arrive(&t);
}

void life_add_migrate_tests(void)
{
    life_add("migrate/idle", MIGRATE_CASES, test_idle);
    life_add("migrate/load", MIGRATE_CASES, test_load);
    life_add("migrate/live", MIGRATE_CASES, test_live);
    life_add("migrate/stopped", MIGRATE_CASES, test_stopped);
    life_add("migrate/stopped-again", LIFE_PCI, test_stopped_again);
    life_add("migrate/stopped-reset", LIFE_PCI, test_stopped_reset);
    life_add("migrate/two-trips", LIFE_SPLIT | LIFE_MAP_PACKED,
             test_two_trips);
    life_add("migrate/order", LIFE_MAIN | LIFE_ONE, test_order);
    life_add("migrate/cache", LIFE_MAIN | LIFE_MAP | LIFE_LEGACY | LIFE_MMIO,
             test_cache);
    life_add("migrate/cache-unread", LIFE_MAIN | LIFE_LEGACY,
             test_cache_unread);
    life_add("migrate/cache-stale", LIFE_MAIN | LIFE_MAP, test_cache_stale);
    life_add("migrate/cache-neither", LIFE_MAIN | LIFE_MAP | LIFE_LEGACY,
             test_cache_neither);
    life_add("migrate/cache-no-flush", LIFE_MAIN | LIFE_MMIO,
             test_cache_no_flush);
    life_add("migrate/fewer-queues", LIFE_MAIN | LIFE_ONE | LIFE_MMIO,
             test_fewer_queues);
    life_add("migrate/more-queues", LIFE_MAIN | LIFE_ONE | LIFE_MMIO,
             test_more_queues);
    if (life_endure_rounds()) {
        life_add("endure/migrate", LIFE_MAP, test_endure);
    }
}
