/*
 * virtio-blk qtests: machine, initialisation, configuration space, QMP
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/wait.h>
#include "qemu/units.h"
#include "qobject/qjson.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "transport.h"

#define IOTHREAD            "vblk-iothread"
#define DEFAULT_SIZE        (16 * MiB)
#define RAM_MB              96
#define ALLOC_START         (2 * MiB)
#define FAIL_SECONDS        15          /* QEMU that shall refuse to start */

/* Features that need more of a driver than this one does. */
#define NEVER_ACCEPTED \
    (VBLK_BIT(VIRTIO_F_NOTIFY_ON_EMPTY) | VBLK_BIT(VIRTIO_F_IN_ORDER) | \
     VBLK_BIT(VIRTIO_F_NOTIFICATION_DATA) | VBLK_BIT(30))

/* ---- command line ---- */

const char *vblk_type(bool pci)
{
    if (g_getenv("VBLK_VHOST")) {
        return pci ? "vhost-blk-pci" : "vhost-blk-device";
    }
    return pci ? "virtio-blk-pci" : "virtio-blk-device";
}

static char *make_image(uint64_t size)
{
    char *path = g_strdup_printf("%s/vblk-qtest-XXXXXX", g_get_tmp_dir());
    int fd = g_mkstemp(path);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
    return path;
}

static bool opts_pci(const VblkOpts *o)
{
    return o->transport <= VBLK_PCI_LEGACY_ONLY;
}

char *vblk_device_arg(const VblkOpts *o)
{
    GString *s = g_string_new(o->device ?: vblk_type(opts_pci(o)));

    g_string_append_printf(s, ",id=" VBLK_DEV ",drive=" VBLK_NODE);
    if (opts_pci(o)) {
        g_string_append_printf(s, ",addr=%d.0%s%s", VBLK_PCI_SLOT,
                               o->device ? "" : ",disable-legacy=off",
                               o->transport == VBLK_PCI_LEGACY_ONLY ?
                               ",disable-modern=on" : "");
    }
    if (o->packed) {
        g_string_append(s, ",packed=on");
    }
    if (o->num_queues) {
        g_string_append_printf(s, ",num-queues=%u", o->num_queues);
    }
    if (o->queue_size) {
        g_string_append_printf(s, ",queue-size=%u", o->queue_size);
    }
    if (o->iothread) {
        g_string_append(s, ",iothread=" IOTHREAD);
    }
    if (o->props) {
        g_string_append_printf(s, ",%s", o->props);
    }
    return g_string_free(s, false);
}

/* The node on the image file, and what may lie between it and disk0. */
static void add_blockdevs(GString *s, const VblkOpts *o, const char *image)
{
    const char *below = "file0";
    bool blkdebug = o->blkdebug || o->blkdebug_opts;

    g_string_append_printf(s, " -blockdev driver=file,node-name=file0,"
                           "filename=%s,discard=unmap%s", image,
                           o->file_opts ?: "");
    if (blkdebug) {
        g_string_append_printf(s, " -blockdev driver=blkdebug,node-name=dbg0,"
                               "image=file0,discard=unmap%s",
                               o->blkdebug_opts ?: "");
        below = "dbg0";
    }
    if (o->throttle) {
        g_string_append_printf(s, " -object throttle-group,id=thr0"
                               " -blockdev driver=raw,node-name=raw0,file=%s,"
                               "discard=unmap"
                               " -blockdev driver=throttle,node-name="
                               VBLK_NODE ",throttle-group=thr0,file=raw0,"
                               "discard=unmap%s", below, o->disk_opts ?: "");
        return;
    }
    g_string_append_printf(s, " -blockdev driver=raw,node-name=" VBLK_NODE
                           ",file=%s,discard=unmap%s", below,
                           o->disk_opts ?: "");
}

static char *command_line(const VblkOpts *o, const char *image)
{
    GString *s = g_string_new(NULL);

    g_string_printf(s, "-machine %s -m %d -nodefaults",
                    o->machine ?: (opts_pci(o) ? "q35" : "microvm"), RAM_MB);
    if (o->transport == VBLK_MMIO_MODERN) {
        g_string_append(s, " -global virtio-mmio.force-legacy=false");
    }
    if (o->iothread) {
        g_string_append(s, " -object iothread,id=" IOTHREAD);
    }
    if (o->args) {
        g_string_append_printf(s, " %s", o->args);
    }
    if (o->blockdev) {
        g_string_append_printf(s, " %s", o->blockdev);
    } else if (image) {
        add_blockdevs(s, o, image);
    }
    if (!o->hotplug) {
        g_autofree char *dev = vblk_device_arg(o);

        g_string_append_printf(s, " -device '%s'", dev);
    }
    return g_string_free(s, false);
}

static char *image_for(const VblkOpts *o)
{
    if (o->blockdev || o->no_disk) {
        return NULL;
    }
    return o->image ? g_strdup(o->image) :
                      make_image(o->size ?: DEFAULT_SIZE);
}

/* ---- life of the machine ---- */

static void out_of_time(int sig)
{
    static const char msg[] = "\nBail out! test took too long\n";

    if (write(STDERR_FILENO, msg, sizeof(msg) - 1) < 0) {
        _exit(1);
    }
    abort();    /* libqtest's handler ends QEMU */
}

static void remove_image(void *opaque)
{
    Vblk *v = opaque;

    if (v->image && !v->o.image) {
        unlink(v->image);
    }
}

static bool take_event(QTestState *qts, const char *name, QDict *event,
                       void *opaque)
{
    Vblk *v = opaque;

    v->events = g_slist_append(v->events, qobject_ref(event));
    return true;
}

/* Sanitizers make everything slower. */
static unsigned patience(void)
{
    const char *factor = getenv("VBLK_PATIENCE");

    return factor ? atoi(factor) : 1;
}

/*
 * Start the emulator that the variable @binary_env names, if it is set.
 * libqtest's functions for that have other names in each release.
 */
static QTestState *start(const char *binary_env, const char *args)
{
    const char *other = binary_env ? getenv(binary_env) : NULL;
    g_autofree char *ours = g_strdup(getenv("QTEST_QEMU_BINARY"));
    QTestState *qts;

    if (!other) {
        return qtest_init(args);
    }
    g_setenv("QTEST_QEMU_BINARY", other, true);
    qts = qtest_init(args);
    g_setenv("QTEST_QEMU_BINARY", ours, true);
    return qts;
}

Vblk *vblk_launch(const VblkOpts *o)
{
    const struct sigaction timed_out = { .sa_handler = out_of_time };
    Vblk *v = g_new0(Vblk, 1);
    g_autofree char *args = NULL;

    sigaction(SIGALRM, &timed_out, NULL);
    alarm(VBLK_TEST_SECONDS * patience());
    v->o = *o;
    v->image = image_for(o);
    qtest_add_abrt_handler(remove_image, v);
    args = command_line(o, v->image);
    v->qts = start(o->binary_env, args);
    qtest_qmp_set_event_callback(v->qts, take_event, v);
    alloc_init(&v->alloc, ALLOC_NO_FLAGS, ALLOC_START, RAM_MB * MiB, 4096);
    if (vblk_is_pci(v)) {
        qpci_init_pc(&v->pcibus, v->qts, &v->alloc);
    }
    return v;
}

void vblk_attach(Vblk *v)
{
    g_assert_true(vblk_bus(v)->find(v));
    if (v->o.msix) {
        qpci_msix_enable(v->pdev);
        v->config_msix_addr = vblk_msix_vector(v, 0);
        for (unsigned q = 0; q < (v->o.num_queues ?: 1); q++) {
            v->q[q].msix_addr = vblk_msix_vector(v, q + 1);
        }
    }
}

void vblk_detach(Vblk *v)
{
    for (unsigned q = 0; q < VBLK_MAX_QUEUES; q++) {
        vblk_queue_forget(v, q);
    }
    if (v->pdev) {
        qpci_iounmap(v->pdev, v->bar);
        g_clear_pointer(&v->pdev, g_free);
    }
}

Vblk *vblk_start(const VblkOpts *o)
{
    Vblk *v = vblk_launch(o);

    if (o->hotplug) {
        vblk_device_add(v);
    }
    vblk_attach(v);
    vblk_setup(v);
    return v;
}

void vblk_move(Vblk *v, Vblk *to)
{
    QTestState *qts = v->qts;
    GSList *events = v->events;

    v->qts = to->qts;
    v->events = to->events;
    v->pcibus.bus.qts = v->qts;
    to->qts = qts;
    to->events = events;
    qtest_qmp_set_event_callback(v->qts, take_event, v);
    qtest_qmp_set_event_callback(to->qts, take_event, to);
}

static void unref_event(gpointer event)
{
    qobject_unref((QDict *)event);
}

void vblk_stop(Vblk *v)
{
    vblk_detach(v);
    qtest_quit(v->qts);
    qtest_remove_abrt_handler(v);
    remove_image(v);
    alloc_destroy(&v->alloc);
    g_slist_free_full(v->events, unref_event);
    g_free(v->image);
    g_free(v);
    alarm(0);
}

void vblk_device_add(Vblk *v)
{
    g_autofree char *arg = vblk_device_arg(&v->o);
    g_auto(GStrv) part = g_strsplit(arg, ",", -1);
    QDict *d = qdict_new();

    for (int i = 1; part[i]; i++) {
        char *eq = strchr(part[i], '=');

        g_assert_nonnull(eq);
        *eq = 0;
        qdict_put_str(d, part[i], eq + 1);
    }
    qtest_qmp_device_add_qdict(v->qts, part[0], d);
    qobject_unref(d);
}

/* ---- QEMU that must not start ---- */

static void wait_exit(GPid pid, int *wstatus)
{
    for (int i = 0; i < FAIL_SECONDS * 100; i++) {
        if (waitpid(pid, wstatus, WNOHANG) == pid) {
            return;
        }
        g_usleep(10000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, wstatus, 0);
    vblk_fail("QEMU started although it had to refuse");
}

void vblk_fails(const VblkOpts *o, ...)
{
    const char *binary = getenv(o->binary_env ?: "QTEST_QEMU_BINARY");
    g_autofree char *image = image_for(o);
    g_autofree char *args = command_line(o, image);
    g_autofree char *cmd = g_strdup_printf("%s %s -display none -S -accel "
                                           "qtest", binary, args);
    g_autofree char *text = NULL;
    g_auto(GStrv) argv = NULL;
    const char *word;
    va_list ap;
    GPid pid;
    int err_fd, wstatus;
    gsize n;

    g_test_message("must fail: %s", cmd);
    g_assert_true(g_shell_parse_argv(cmd, NULL, &argv, NULL));
    g_assert_true(g_spawn_async_with_pipes(NULL, argv, NULL,
                                           G_SPAWN_DO_NOT_REAP_CHILD |
                                           G_SPAWN_STDOUT_TO_DEV_NULL,
                                           NULL, NULL, &pid, NULL, NULL,
                                           &err_fd, NULL));
    wait_exit(pid, &wstatus);
    {
        GIOChannel *ch = g_io_channel_unix_new(err_fd);

        g_io_channel_read_to_end(ch, &text, &n, NULL);
        g_io_channel_shutdown(ch, false, NULL);
        g_io_channel_unref(ch);
    }
    if (image && !o->image) {
        unlink(image);
    }
    g_assert_true(WIFEXITED(wstatus) && WEXITSTATUS(wstatus));
    va_start(ap, o);
    while ((word = va_arg(ap, const char *))) {
        if (!strstr(text, word)) {
            vblk_fail("'%s' is missing in: %s", word, text);
        }
    }
    va_end(ap);
}

/* ---- initialisation ---- */

uint8_t vblk_status(Vblk *v)
{
    return vblk_bus(v)->status(v);
}

void vblk_set_status(Vblk *v, uint8_t status)
{
    vblk_bus(v)->set_status(v, status);
}

void vblk_reset(Vblk *v)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    vblk_set_status(v, 0);
    while (vblk_status(v)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
    for (unsigned q = 0; q < VBLK_MAX_QUEUES; q++) {
        vblk_queue_forget(v, q);
    }
    v->features = 0;
    v->isr_seen = 0;
}

uint64_t vblk_offered(Vblk *v)
{
    return vblk_bus(v)->features(v);
}

bool vblk_accept(Vblk *v, uint64_t features)
{
    v->features = features;
    vblk_bus(v)->accept(v, features);
    if (!vblk_is_modern(v)) {
        return true;
    }
    vblk_set_status(v, vblk_status(v) | VIRTIO_CONFIG_S_FEATURES_OK);
    return vblk_status(v) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static uint64_t wanted_features(Vblk *v)
{
    uint64_t f = v->host_features & ~v->o.refuse & ~NEVER_ACCEPTED;

    if (!v->o.event_idx) {
        f &= ~VBLK_BIT(VIRTIO_RING_F_EVENT_IDX);
    }
    if (!v->o.packed) {
        f &= ~VBLK_BIT(VIRTIO_F_RING_PACKED);
    }
    return f;
}

void vblk_negotiate(Vblk *v)
{
    vblk_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    vblk_set_status(v, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    v->host_features = vblk_offered(v);
    if (vblk_is_modern(v)) {
        g_assert_true(v->host_features & VBLK_BIT(VIRTIO_F_VERSION_1));
    }
    if (v->o.packed) {
        g_assert_true(v->host_features & VBLK_BIT(VIRTIO_F_RING_PACKED));
    }
    g_assert_true(vblk_accept(v, wanted_features(v)));
    if (v->o.msix) {
        vblk_msix_config(v, 0);
    }
}

void vblk_driver_ok(Vblk *v)
{
    vblk_set_status(v, vblk_status(v) | VIRTIO_CONFIG_S_DRIVER_OK);
}

void vblk_setup(Vblk *v)
{
    vblk_reset(v);
    vblk_negotiate(v);
    vblk_queues_setup(v);
    vblk_driver_ok(v);
}

void vblk_queue_reset_begin(Vblk *v, unsigned q)
{
    g_assert_cmpint(v->o.transport, ==, VBLK_PCI_MODERN);
    g_assert_true(vblk_has(v, VIRTIO_F_RING_RESET));
    vblk_bus(v)->select(v, q);
    vblk_queue_reset_write(v, 1);
}

void vblk_queue_reset_wait(Vblk *v, unsigned q)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    vblk_bus(v)->select(v, q);
    while (vblk_queue_reset_read(v)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

void vblk_queue_reset(Vblk *v, unsigned q)
{
    vblk_queue_reset_begin(v, q);
    vblk_queue_reset_wait(v, q);
    vblk_queue_forget(v, q);
}

void vblk_expect_broken(Vblk *v, unsigned q)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;
    VblkIo *io;

    while (vblk_is_modern(v) &&
           !(vblk_status(v) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
    io = vblk_io(v, q, VIRTIO_BLK_T_IN, 0, NULL, VBLK_SECTOR);
    vblk_publish(v, q);
    vblk_notify(v, q);
    vblk_expect_pending(v, io->req, 20);
    vblk_io_abandon(v, io);
}

const char *vblk_qom_path(const Vblk *v)
{
    return vblk_is_pci(v) ? VBLK_QOM_PCI : VBLK_QOM_MMIO;
}

/* ---- configuration space ---- */

uint8_t vblk_cfg8(Vblk *v, unsigned off)
{
    return vblk_bus(v)->cfg_read(v, off, 1);
}

uint16_t vblk_cfg16(Vblk *v, unsigned off)
{
    return vblk_bus(v)->cfg_read(v, off, 2);
}

uint32_t vblk_cfg32(Vblk *v, unsigned off)
{
    return vblk_bus(v)->cfg_read(v, off, 4);
}

uint64_t vblk_cfg64(Vblk *v, unsigned off)
{
    return vblk_cfg32(v, off) | (uint64_t)vblk_cfg32(v, off + 4) << 32;
}

void vblk_cfg_write8(Vblk *v, unsigned off, uint8_t val)
{
    vblk_bus(v)->cfg_write8(v, off, val);
}

uint32_t vblk_cfg_generation(Vblk *v)
{
    g_assert_nonnull(vblk_bus(v)->generation);
    return vblk_bus(v)->generation(v);
}

uint64_t vblk_hole(Vblk *v)
{
    return 0x40000000;      /* past RAM, below the PCI hole */
}

/* ---- interrupts ---- */

static bool take_isr(Vblk *v, uint8_t cause)
{
    v->isr_seen |= vblk_bus(v)->read_isr(v);
    if (v->isr_seen & cause) {
        v->isr_seen &= ~cause;
        return true;
    }
    return false;
}

static bool take_msi(Vblk *v, uint64_t addr)
{
    if (!qtest_readl(v->qts, addr)) {
        return false;
    }
    qtest_writel(v->qts, addr, 0);
    return true;
}

bool vblk_irq(Vblk *v, unsigned q)
{
    return v->o.msix ? take_msi(v, v->q[q].msix_addr) : take_isr(v, 1);
}

bool vblk_config_irq(Vblk *v)
{
    return v->o.msix ? take_msi(v, v->config_msix_addr) : take_isr(v, 2);
}

void vblk_wait_irq(Vblk *v, unsigned q)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (!vblk_irq(v, q)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

void vblk_wait_config_irq(Vblk *v)
{
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    while (!vblk_config_irq(v)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

/* ---- QMP ---- */

QDict *vblk_qmp(Vblk *v, const char *fmt, ...)
{
    QDict *resp;
    va_list ap;

    va_start(ap, fmt);
    resp = qtest_vqmp(v->qts, fmt, ap);
    va_end(ap);
    return resp;
}

void vblk_qmp_ok(Vblk *v, const char *fmt, ...)
{
    QDict *resp;
    va_list ap;

    va_start(ap, fmt);
    resp = qtest_vqmp(v->qts, fmt, ap);
    va_end(ap);
    if (!qdict_haskey(resp, "return")) {
        g_autoptr(GString) s = qobject_to_json_pretty(QOBJECT(resp), true);

        vblk_fail("QMP command failed: %s", s->str);
    }
    qobject_unref(resp);
}

static QDict *find_event(Vblk *v, const char *name)
{
    for (GSList *l = v->events; l; l = l->next) {
        QDict *event = l->data;

        if (!strcmp(qdict_get_str(event, "event"), name)) {
            v->events = g_slist_delete_link(v->events, l);
            return event;
        }
    }
    return NULL;
}

QDict *vblk_event(Vblk *v, const char *name, unsigned timeout_ms)
{
    gint64 end = g_get_monotonic_time() + timeout_ms * 1000;
    QDict *event;

    while (!(event = find_event(v, name))) {
        if (g_get_monotonic_time() > end) {
            return NULL;
        }
        g_usleep(500);
        /* Any command brings along the events that came before its answer. */
        vblk_qmp_ok(v, "{'execute': 'query-status'}");
    }
    return event;
}

void vblk_expect_event(Vblk *v, const char *name)
{
    QDict *event = vblk_event(v, name, VBLK_WAIT_MS);

    if (!event) {
        vblk_fail("no event %s within %d ms", name, VBLK_WAIT_MS);
    }
    qobject_unref(event);
}

bool vblk_no_event(Vblk *v, const char *name, unsigned timeout_ms)
{
    QDict *event = vblk_event(v, name, timeout_ms);

    qobject_unref(event);
    return !event;
}

int64_t vblk_stat(Vblk *v, const char *name)
{
    QDict *resp = vblk_qmp(v, "{'execute': 'query-blockstats'}");
    const QListEntry *e;
    int64_t val = -1;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(resp, "return"), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));
        const char *qdev = qdict_get_try_str(d, "qdev");

        if (qdev && strstr(qdev, VBLK_DEV)) {
            val = qdict_get_int(qdict_get_qdict(d, "stats"), name);
        }
    }
    qobject_unref(resp);
    return val;
}

bool vblk_writeback(Vblk *v)
{
    QDict *resp = vblk_qmp(v, "{'execute': 'query-block'}");
    const QListEntry *e;
    bool found = false, on = false;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(resp, "return"), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));
        const char *qdev = qdict_get_try_str(d, "qdev");

        if (qdev && strstr(qdev, VBLK_DEV)) {
            found = true;
            on = qdict_get_bool(qdict_get_qdict(qdict_get_qdict(d, "inserted"),
                                                "cache"), "writeback");
        }
    }
    qobject_unref(resp);
    g_assert_true(found);
    return on;
}

char *vblk_qom_str(Vblk *v, const char *prop)
{
    QDict *resp = vblk_qmp(v, "{'execute': 'qom-get', 'arguments': "
                           "{'path': %s, 'property': %s}}",
                           vblk_qom_path(v), prop);
    const char *s = qdict_get_try_str(resp, "return");
    char *copy;

    g_assert_nonnull(s);
    copy = g_strdup(s);
    qobject_unref(resp);
    return copy;
}

char *vblk_qemu_io(Vblk *v, const char *node, const char *cmd)
{
    return qtest_hmp(v->qts, "qemu-io %s \"%s\"", node, cmd);
}

/* ---- what the binary can do ---- */

static QDict *ask_binary(const char *fmt, const char *arg)
{
    QTestState *qts = qtest_init("-machine none -nodefaults");
    QDict *resp = qtest_qmp(qts, fmt, arg);

    qtest_quit(qts);
    return resp;
}

bool vblk_has_type(const char *device)
{
    QDict *resp = ask_binary("{'execute': 'device-list-properties', "
                             "'arguments': {'typename': %s}}", device);
    bool has = qdict_haskey(resp, "return");

    qobject_unref(resp);
    return has;
}

bool vblk_has_prop(const char *device, const char *prop)
{
    static GHashTable *known;
    QDict *resp;
    const QListEntry *e;
    bool has = false;

    if (!known) {
        known = g_hash_table_new(g_str_hash, g_str_equal);
    }
    resp = g_hash_table_lookup(known, device);
    if (!resp) {
        resp = ask_binary("{'execute': 'device-list-properties', 'arguments':"
                          " {'typename': %s}}", device);
        g_hash_table_insert(known, g_strdup(device), resp);
    }
    QLIST_FOREACH_ENTRY(qdict_get_qlist(resp, "return"), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));

        has |= !strcmp(qdict_get_str(d, "name"), prop);
    }
    return has;
}

bool vblk_needs_prop(const char *prop)
{
    g_autofree char *why = NULL;

    if (vblk_has_prop("virtio-blk-device", prop)) {
        return true;
    }
    why = g_strdup_printf("this QEMU's virtio-blk has no property %s", prop);
    g_test_skip(why);
    return false;
}

bool vblk_needs_machine(const char *machine)
{
    g_autofree char *why = NULL;

    if (qtest_has_machine(machine)) {
        return true;
    }
    why = g_strdup_printf("this QEMU has no machine %s", machine);
    g_test_skip(why);
    return false;
}

bool vblk_needs_version(unsigned major, unsigned minor, const char *what)
{
    QDict *resp = ask_binary("{'execute': %s}", "query-version");
    QDict *qemu = qdict_get_qdict(qdict_get_qdict(resp, "return"), "qemu");
    int64_t has = qdict_get_int(qemu, "major") * 100 +
                  qdict_get_int(qemu, "minor");
    g_autofree char *why = NULL;

    qobject_unref(resp);
    if (has >= major * 100 + minor) {
        return true;
    }
    why = g_strdup_printf("%s came with QEMU %u.%u", what, major, minor);
    g_test_skip(why);
    return false;
}

bool vblk_needs_mmio_iothread(void)
{
    return vblk_needs_version(9, 0, "virtio-mmio's iothread without KVM");
}

/* ---- requests held in flight ---- */

/*
 * Through the device's own BlockBackend: one made for the command would be
 * attached to the node, which has to wait for the request that is held.
 */
static void qemu_io_silent(Vblk *v, const char *cmd)
{
    g_autofree char *line = g_strdup_printf("qemu-io -d %s \"%s\"",
                                            vblk_qom_path(v), cmd);
    g_autofree char *out = qtest_hmp(v->qts, "%s", line);

    g_assert_cmpstr(g_strstrip(out), ==, "");
}

void vblk_hold(Vblk *v, const char *event, const char *tag)
{
    g_autofree char *cmd = g_strdup_printf("break %s %s", event, tag);

    qemu_io_silent(v, cmd);
}

void vblk_wait_held(Vblk *v, const char *tag)
{
    g_autofree char *cmd = g_strdup_printf("wait_break %s", tag);

    qemu_io_silent(v, cmd);
}

void vblk_release(Vblk *v, const char *tag)
{
    g_autofree char *cmd = g_strdup_printf("resume %s", tag);

    qemu_io_silent(v, cmd);
}

void vblk_throttle_on(Vblk *v)
{
    g_autofree char *out = NULL;

    vblk_qmp_ok(v, "{'execute': 'qom-set', 'arguments': {'path': "
                "'/objects/thr0', 'property': 'limits', 'value': "
                "{'iops-total': 1}}}");
    /* The first request passes: let it be ours.  Then the bucket is full. */
    out = vblk_qemu_io(v, VBLK_NODE, "read -q 0 512");
}

void vblk_throttle_off(Vblk *v)
{
    vblk_qmp_ok(v, "{'execute': 'qom-set', 'arguments': {'path': "
                "'/objects/thr0', 'property': 'limits', 'value': "
                "{'iops-total': 0}}}");
    qtest_clock_step(v->qts, 3600LL * 1000 * 1000 * 1000);
}
