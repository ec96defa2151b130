/*
 * virtio-blk qtests: live migration while the kernel serves the queues
 *
 * The load runs while the memory is sent: what the kernel writes into it, data,
 * status bytes and used rings, must be in the dirty log, or the driver finds
 * old bytes on the other side.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost.h"

typedef struct Move {
    const char *name;
    bool from_vhost, to_vhost;
} Move;

static const Move moves[] = {
    { "vhost-to-vhost", true, true },
    { "vhost-to-virtio", true, false },
    { "virtio-to-vhost", false, true },
};

/* In bytes a second, and the time that the guest may stand still. */
static void set_bandwidth(LifeVm *vm, int64_t bytes, int64_t downtime_ms)
{
    life_qmp(vm, "{'execute': 'migrate-set-parameters', 'arguments': {"
             "'max-bandwidth': %" PRId64 ", 'downtime-limit': %" PRId64 "}}",
             bytes, downtime_ms);
}

/* The status; how often the memory has been looked through for it. */
static char *migration_status(LifeVm *vm, int64_t *passes)
{
    QDict *resp = life_query(vm, "{'execute': 'query-migrate'}");
    QDict *info = qdict_get_qdict(resp, "return");
    QDict *ram = qdict_get_qdict(info, "ram");
    char *now = g_strdup(qdict_get_try_str(info, "status") ?: "");

    *passes = ram ? qdict_get_int(ram, "dirty-sync-count") : 0;
    qobject_unref(resp);
    return now;
}

static void wait_migration(LifeVm *vm, const char *status)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    int64_t passes;

    for (;;) {
        g_autofree char *now = migration_status(vm, &passes);

        if (!strcmp(now, status)) {
            return;
        }
        if (!strcmp(now, "failed") || g_get_monotonic_time() > end) {
            vblk_fail("migration is %s, not %s", now, status);
        }
        g_usleep(2000);
    }
}

static void wait_running(LifeVm *vm)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (!life_is_running(vm)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(2000);
    }
}

static LifeVm *start_side(Vhost *h, const LifeCase *c, LifeSpec s, bool vhost)
{
    if (!vhost) {
        s.device = c->transport <= VBLK_PCI_LEGACY_ONLY ? "virtio-blk-pci" :
                                                          "virtio-blk-device";
    }
    return vhost_start(h, c, s);
}

/*
 * A load until all of the memory was sent once, and some of it once more.
 * Where this test is not given the time to dirty memory as fast as it is sent,
 * the guest is stopped early.
 */
static void load_while_sent(LifeVm *vm, LifeLoad *l)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    int64_t passes = 0;

    while (passes < 2) {
        g_autofree char *now = NULL;

        if (!life_load_while_running(l, 10)) {
            return;
        }
        now = migration_status(vm, &passes);
        if (strcmp(now, "active")) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    set_bandwidth(vm, 1024, 1);
    life_load_while_running(l, 100);
}

/* The load goes on while the memory is sent, and then over there. */
static void move(LifeVm *vm, LifeVm *to, LifeLoad *l, const char *socket)
{
    g_autofree char *uri = g_strdup_printf("unix:%s", socket);

    life_qmp(vm, "{'execute': 'migrate-set-capabilities', 'arguments': {"
             "'capabilities': [{'capability': 'pause-before-switchover', "
             "'state': true}]}}");
    /* 0 ms would end it when all was sent, however much has changed. */
    set_bandwidth(vm, 512 * 1024, 1);
    life_qmp(vm, "{'execute': 'migrate', 'arguments': {'uri': %s}}", uri);
    wait_migration(vm, "active");
    load_while_sent(vm, l);
    set_bandwidth(vm, 1 << 30, 2000);
    wait_migration(vm, "pre-switchover");
    life_qmp(vm, "{'execute': 'migrate-continue', 'arguments': {"
             "'state': 'pre-switchover'}}");
    wait_migration(vm, "completed");
    wait_running(to);
    vblk_move(vm->v, to->v);
}

static void test_move(const void *data, const LifeCase *c)
{
    const Move *m = data;
    g_autofree char *dir = g_dir_make_tmp("vblk-move-XXXXXX", NULL);
    g_autofree char *socket = g_build_filename(dir, "socket", NULL);
    g_autofree char *args = g_strdup_printf("-incoming unix:%s", socket);
    LifeVm *vm, *to;
    LifeLoad *l;
    Vhost h;

    if (vhost_begin(&h, "FAKEHOST_VHOST_US=200")) {
        vm = start_side(&h, c, (LifeSpec) { 0 }, m->from_vhost);
        to = start_side(&h, c, (LifeSpec) {
            .args = args, .image = vm->image, .no_setup = true,
        }, m->to_vhost);
        if (m->from_vhost) {
            vhost_wait_engine(vm, "vhost");
        }
        l = life_load_new(vm, 6);
        life_load_run(l, 50);
        move(vm, to, l, socket);
        if (m->to_vhost) {
            vhost_wait_engine(vm, "vhost");
        }
        life_load_run(l, 200);
        life_load_end(l);
        for (unsigned q = 0; q < vm->s.queues; q++) {
            vblk_check_io(vm->v, q);
        }
        life_stop(to);
        life_stop(vm);
        vhost_end(&h);
    }
    unlink(socket);
    rmdir(dir);
}

static void test_same(const LifeCase *c)
{
    test_move(&moves[0], c);
}

static void test_away(const LifeCase *c)
{
    test_move(&moves[1], c);
}

static void test_hither(const LifeCase *c)
{
    test_move(&moves[2], c);
}

void vhost_add_move_tests(void)
{
    life_add("vhost/move/vhost-to-vhost", LIFE_MAIN | LIFE_MAP | LIFE_LEGACY,
             test_same);
    life_add("vhost/move/vhost-to-virtio", LIFE_ONE | LIFE_MAP, test_away);
    life_add("vhost/move/virtio-to-vhost", LIFE_ONE | LIFE_MAP, test_hither);
}
