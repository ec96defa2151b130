/*
 * virtio-blk qtests: tools for the life-cycle tests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qobject/qjson.h"
#include "qobject/qstring.h"
#include "life.h"

static const struct {
    unsigned where;
    LifeCase c;
} cases[] = {
    { LIFE_MAIN, { "main", VBLK_PCI_MODERN, false, 0, 2 } },
    { LIFE_MAIN_PACKED, { "main-packed", VBLK_PCI_MODERN, true, 0, 2 } },
    { LIFE_ONE, { "iothread", VBLK_PCI_MODERN, false, 1, 2 } },
    { LIFE_ONE_PACKED, { "iothread-packed", VBLK_PCI_MODERN, true, 1, 2 } },
    { LIFE_MAP, { "mapping", VBLK_PCI_MODERN, false, 2, 4 } },
    { LIFE_MAP_PACKED, { "mapping-packed", VBLK_PCI_MODERN, true, 2, 4 } },
    { LIFE_MMIO_MAIN, { "mmio", VBLK_MMIO_MODERN, false, 0, 1 } },
    { LIFE_MMIO_ONE, { "mmio-iothread-packed", VBLK_MMIO_MODERN, true, 1, 1 } },
    { LIFE_LEGACY, { "legacy", VBLK_PCI_LEGACY, false, 1, 2 } },
    { LIFE_NOEVENTFD, { "no-ioeventfd", VBLK_PCI_MODERN, false, 0, 2,
                        .no_ioeventfd = true } },
};

/* A test and the case that it is run with. */
typedef struct LifeTest {
    void (*fn)(const LifeCase *c);
    const LifeCase *c;
} LifeTest;

static void run_test(const void *opaque)
{
    const LifeTest *test = opaque;

    /* QEMU has the mapping since 9.0; the suite also runs on older ones. */
    if (test->c->threads == 2 && !vblk_needs_prop("iothread-vq-mapping")) {
        return;
    }
    if (test->c->threads && test->c->transport >= VBLK_MMIO_MODERN &&
        !vblk_needs_mmio_iothread()) {
        return;
    }
    test->fn(test->c);
}

void life_add(const char *name, unsigned where, void (*fn)(const LifeCase *c))
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *path = g_strdup_printf("life/%s/%s", name,
                                                cases[i].c.name);

        if (where & cases[i].where) {
            LifeTest *test = vblk_keep(g_new(LifeTest, 1));

            test->fn = fn;
            test->c = &cases[i].c;
            vblk_add_data(path, test, run_test);
        }
    }
}

void life_add_one(const char *name, void (*fn)(void))
{
    g_autofree char *path = g_strdup_printf("life/%s", name);

    vblk_add_one(path, fn);
}

/* ---- the machine ---- */

char *life_temp_in(const char *dir, const char *what, uint64_t size)
{
    g_autofree char *path = g_strdup_printf("%s/vblk-%s-XXXXXX", dir, what);
    int fd = g_mkstemp(path);

    if (fd < 0) {
        return NULL;
    }
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
    return g_steal_pointer(&path);
}

char *life_temp(const char *what, uint64_t size)
{
    char *path = life_temp_in(g_get_tmp_dir(), what, size);

    g_assert_nonnull(path);
    return path;
}

/* Also when the test fails: nothing is left behind. */
static void remove_files(void *opaque)
{
    LifeVm *vm = opaque;

    if (vm->image && !vm->s.image) {
        unlink(vm->image);
    }
    if (vm->logfile && !vm->s.logfile) {
        unlink(vm->logfile);
    }
}

static void add_node(GString *s, const char *json, ...) G_GNUC_PRINTF(2, 3);

static void add_node(GString *s, const char *json, ...)
{
    va_list ap;

    va_start(ap, json);
    g_string_append(s, " -blockdev '{");
    g_string_append_vprintf(s, json, ap);
    g_string_append(s, "}'");
    va_end(ap);
}

#define THROTTLE_NODE \
    "\"driver\":\"throttle\",\"node-name\":\"%s\"," \
    "\"throttle-group\":\"thr0\",\"file\":\"fmt0\",\"discard\":\"unmap\""

static bool is_device(const char *path)
{
    struct stat st;

    return !stat(path, &st) && S_ISBLK(st.st_mode);
}

static char *build_blockdevs(LifeVm *vm)
{
    const LifeSpec *s = &vm->s;
    GString *str = g_string_new(NULL);
    const char *below = "file0";

    if (s->blockdev) {
        g_string_append(str, s->blockdev);
        return g_string_free(str, false);
    }
    add_node(str, "\"driver\":\"%s\",\"node-name\":\"file0\","
             "\"filename\":\"%s\",\"discard\":\"unmap\",\"locking\":\"off\","
             "\"read-only\":%s", is_device(vm->image) ? "host_device" : "file",
             vm->image, s->read_only ? "true" : "false");
    if (s->log) {
        add_node(str, "\"driver\":\"file\",\"node-name\":\"logfile0\","
                 "\"filename\":\"%s\",\"locking\":\"off\"", vm->logfile);
        add_node(str, "\"driver\":\"blklogwrites\",\"node-name\":\"log0\","
                 "\"file\":\"%s\",\"log\":\"logfile0\",\"discard\":\"unmap\"",
                 below);
        below = "log0";
    }
    if (s->rules) {
        add_node(str, "\"driver\":\"blkdebug\",\"node-name\":\"dbg0\","
                 "\"image\":\"%s\",\"discard\":\"unmap\",\"read-only\":%s,"
                 "\"inject-error\":[%s]", below,
                 s->read_only ? "true" : "false", s->rules);
        below = "dbg0";
    }
    add_node(str, "\"driver\":\"%s\",\"node-name\":\"%s\","
             "\"file\":\"%s\",\"discard\":\"unmap\",\"read-only\":%s",
             s->qcow2 ? "qcow2" : "raw", s->throttle ? "fmt0" : VBLK_NODE,
             below, s->read_only ? "true" : "false");
    if (s->throttle) {
        /* On top: a drain does not reach a filter further down. */
        g_string_append(str, " -object throttle-group,id=thr0");
        add_node(str, THROTTLE_NODE, VBLK_NODE);
    }
    return g_string_free(str, false);
}

static char *build_device(LifeVm *vm)
{
    const LifeCase *c = &vm->c;
    bool pci = c->transport <= VBLK_PCI_LEGACY_ONLY;
    GString *s = g_string_new(NULL);

    g_string_printf(s, "{\"driver\":\"%s\",\"id\":\"" VBLK_DEV "\",",
                    vm->s.device ?: vblk_type(pci));
    if (pci) {
        g_string_append_printf(s, "\"addr\":\"%d\",\"disable-legacy\":\"%s\","
                               "\"ioeventfd\":%s,", VBLK_PCI_SLOT,
                               vm->s.no_legacy ? "on" : "off",
                               c->no_ioeventfd ? "false" : "true");
    }
    if (c->packed) {
        g_string_append(s, "\"packed\":true,");
    }
    if (c->threads == 1) {
        g_string_append(s, "\"iothread\":\"io0\",");
    } else if (c->threads) {
        g_string_append(s, "\"iothread-vq-mapping\":[{\"iothread\":\"io0\"},"
                        "{\"iothread\":\"io1\"}],");
    }
    g_string_append_printf(s, "%s\"num-queues\":%u,\"drive\":\"" VBLK_NODE
                           "\"}", vm->s.json ?: "", vm->s.queues);
    return g_string_free(s, false);
}

static char *build_args(LifeVm *vm)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < vm->c.threads; i++) {
        g_string_append_printf(s, " -object iothread,id=io%u", i);
    }
    if (vm->s.args) {
        g_string_append_printf(s, " %s", vm->s.args);
    }
    if (!vm->s.hotplug) {
        g_string_append_printf(s, " -device '%s'", vm->device);
    }
    return g_string_free(s, false);
}

/* VBLK_DISK names a block device to be the disk, instead of a file. */
static void use_disk(LifeVm *vm, const char *disk)
{
    g_autofree char *zeroes = g_malloc0(LIFE_DISK_SIZE);
    int fd = open(disk, O_WRONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, zeroes, LIFE_DISK_SIZE), ==, LIFE_DISK_SIZE);
    g_assert_cmpint(fsync(fd), ==, 0);
    close(fd);
    vm->s.image = disk;
}

static void make_files(LifeVm *vm)
{
    LifeSpec *s = &vm->s;
    uint64_t size = s->size ?: LIFE_DISK_SIZE;
    const char *disk = g_getenv("VBLK_DISK");

    if (s->blockdev) {
        return;
    }
    if (disk && !s->image) {
        use_disk(vm, disk);
    }
    vm->image = s->image ? g_strdup(s->image) : life_temp("image", size);
    if (s->log) {
        vm->logfile = s->logfile ? g_strdup(s->logfile) :
                                   life_temp("log", 2 * LIFE_DISK_SIZE);
    }
}

LifeVm *life_start(const LifeCase *c, const LifeSpec *s)
{
    LifeVm *vm = g_new0(LifeVm, 1);

    vm->c = *c;
    vm->s = *s;
    vm->s.queues = s->queues ?: c->queues;
    make_files(vm);
    qtest_add_abrt_handler(remove_files, vm);
    vm->blockdev = build_blockdevs(vm);
    vm->device = build_device(vm);
    vm->args = build_args(vm);
    vm->o = (VblkOpts) {
        .transport = c->transport,
        .machine = s->machine,
        .packed = c->packed,
        .event_idx = c->threads > 0,
        .msix = s->msix,
        .num_queues = vm->s.queues,
        .blockdev = vm->blockdev,
        .args = vm->args,
        .hotplug = true,        /* that is: -device is ours */
        .refuse = s->refuse,
        .ring_size = c->transport == VBLK_PCI_LEGACY ? 0 : 64,
        .binary_env = s->binary_env,
    };
    vm->v = vblk_launch(&vm->o);
    if (!s->hotplug && !s->no_setup) {
        vblk_attach(vm->v);
        vblk_setup(vm->v);
    }
    return vm;
}

void life_stop(LifeVm *vm)
{
    vblk_stop(vm->v);
    qtest_remove_abrt_handler(vm);
    remove_files(vm);
    g_free(vm->image);
    g_free(vm->logfile);
    g_free(vm->blockdev);
    g_free(vm->args);
    g_free(vm->device);
    g_free(vm);
}

void life_setup(LifeVm *vm)
{
    vblk_setup(vm->v);
}

void life_plug(LifeVm *vm)
{
    QDict *args = qobject_to(QDict, qobject_from_json(vm->device,
                                                      &error_abort));
    QDict *resp = qtest_qmp(vm->v->qts, "{'execute': 'device_add', "
                            "'arguments': %p}", args);

    g_assert_true(qdict_haskey(resp, "return"));
    qobject_unref(resp);
    vblk_attach(vm->v);
    vblk_setup(vm->v);
}

/* ---- QMP ---- */

QDict *life_query(LifeVm *vm, const char *fmt, ...)
{
    QDict *resp;
    va_list ap;

    va_start(ap, fmt);
    resp = qtest_vqmp(vm->v->qts, fmt, ap);
    va_end(ap);
    if (!qdict_haskey(resp, "return")) {
        g_autoptr(GString) s = qobject_to_json_pretty(QOBJECT(resp), true);

        vblk_fail("%s: %s", fmt, s->str);
    }
    return resp;
}

void life_assert_state(LifeVm *vm, const char *state)
{
    QDict *resp = life_query(vm, "{'execute': 'query-status'}");

    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(resp, "return"), "status"),
                    ==, state);
    qobject_unref(resp);
}

bool life_is_running(LifeVm *vm)
{
    QDict *resp = life_query(vm, "{'execute': 'query-status'}");
    bool running = qdict_get_bool(qdict_get_qdict(resp, "return"), "running");

    qobject_unref(resp);
    return running;
}

void life_wait_stopped(LifeVm *vm)
{
    vblk_expect_event(vm->v, "STOP");
}

void life_cont(LifeVm *vm)
{
    life_qmp(vm, "{'execute': 'cont'}");
    vblk_expect_event(vm->v, "RESUME");
}

QDict *life_block_entry(LifeVm *vm, const char *command)
{
    QDict *resp = life_query(vm, "{'execute': %s}", command);
    QDict *found = NULL;
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(resp, "return"), e) {
        QDict *d = qobject_to(QDict, qlist_entry_obj(e));
        const char *qdev = qdict_get_try_str(d, "qdev");

        if (qdev && strstr(qdev, VBLK_DEV)) {
            g_assert_null(found);
            found = qobject_ref(d);
        }
    }
    qobject_unref(resp);
    g_assert_nonnull(found);
    return found;
}

void life_assert_iostatus(LifeVm *vm, const char *status)
{
    QDict *d = life_block_entry(vm, "query-block");

    g_assert_cmpstr(qdict_get_str(d, "io-status"), ==, status);
    qobject_unref(d);
}

void life_drop_events(LifeVm *vm)
{
    qobject_unref(life_query(vm, "{'execute': 'query-status'}"));
    while (vm->v->events) {
        QDict *event = vm->v->events->data;

        vm->v->events = g_slist_delete_link(vm->v->events, vm->v->events);
        qobject_unref(event);
    }
}

/* ---- requests ---- */

VblkIo *life_write(LifeVm *vm, unsigned q, uint64_t sector, uint32_t seed)
{
    uint8_t data[LIFE_BLOCK];

    vblk_pattern(data, sizeof(data), seed);
    return vblk_io(vm->v, q, VIRTIO_BLK_T_OUT, sector, data, sizeof(data));
}

VblkIo *life_write_kick(LifeVm *vm, unsigned q, uint64_t sector,
                        uint32_t seed)
{
    VblkIo *io = life_write(vm, q, sector, seed);

    vblk_kick(vm->v, q);
    return io;
}

void life_ok(LifeVm *vm, VblkIo *io)
{
    g_assert_cmpint(vblk_io_wait(vm->v, io, NULL), ==, VIRTIO_BLK_S_OK);
}

void life_ioerr(LifeVm *vm, VblkIo *io)
{
    g_assert_cmpint(vblk_io_wait(vm->v, io, NULL), ==, VIRTIO_BLK_S_IOERR);
}

void life_untouched(LifeVm *vm, VblkIo *io, unsigned ms)
{
    gint64 end = g_get_monotonic_time() + ms * 1000;

    do {
        g_assert_cmphex(vblk_io_status(vm->v, io), ==, VBLK_S_UNTOUCHED);
        g_usleep(5000);
    } while (g_get_monotonic_time() < end);
}

void life_assert_image(LifeVm *vm, uint64_t sector, uint32_t seed)
{
    uint8_t want[LIFE_BLOCK] = { 0 }, got[LIFE_BLOCK];
    int fd = open(vm->image, O_RDONLY);

    if (seed) {
        vblk_pattern(want, sizeof(want), seed);
    }
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pread(fd, got, sizeof(got), sector * VBLK_SECTOR), ==,
                    sizeof(got));
    close(fd);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
}

void life_assert_read(LifeVm *vm, unsigned q, uint64_t sector, uint32_t seed)
{
    uint8_t want[LIFE_BLOCK] = { 0 }, got[LIFE_BLOCK];

    if (seed) {
        vblk_pattern(want, sizeof(want), seed);
    }
    g_assert_cmpint(vblk_cmd(vm->v, q, VIRTIO_BLK_T_IN, sector, got,
                             sizeof(got), NULL), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpmem(got, sizeof(got), want, sizeof(want));
}

/* ---- requests held by the throttle filter ---- */

static void set_limit(LifeVm *vm, int bps)
{
    life_qmp(vm, "{'execute': 'qom-set', 'arguments': {'path': "
             "'/objects/thr0', 'property': 'limits', 'value': "
             "{'bps-total': %d}}}", bps);
}

void life_hold(LifeVm *vm)
{
    g_autofree char *out = NULL;

    set_limit(vm, 1);
    /* The first one passes; the next has to wait 512 s for it. */
    out = vblk_qemu_io(vm->v, VBLK_NODE, "read -q 0 512");
    g_assert_cmpstr(g_strstrip(out), ==, "");
}

void life_hold_writes(LifeVm *vm, unsigned queues, VblkIo **io, unsigned n)
{
    life_hold(vm);
    for (unsigned i = 0; i < n; i++) {
        io[i] = life_write_kick(vm, i % queues, i * 16, i + 1);
    }
    vblk_expect_pending(vm->v, io[0]->req, 20);
}

void life_release(LifeVm *vm)
{
    set_limit(vm, 0);
    /* New limits do not wake who waits, but a drain does. */
    life_qmp(vm, "{'execute': 'blockdev-reopen', 'arguments': {'options': "
             "[{'driver': 'throttle', 'node-name': %s, 'throttle-group': "
             "'thr0', 'file': 'fmt0', 'discard': 'unmap'}]}}", VBLK_NODE);
}

/* ---- requests that stopped the VM ---- */

unsigned life_park(LifeVm *vm, VblkIo **io)
{
    unsigned n = vm->s.queues * LIFE_PARKED;

    g_assert_cmpint(n, <=, LIFE_PARKED_MAX);
    for (unsigned i = 0; i < n; i++) {
        io[i] = life_write(vm, i / LIFE_PARKED, LIFE_PARKED_SECTOR(i), i + 1);
    }
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_kick(vm->v, q);
    }
    life_wait_stopped(vm);
    for (unsigned i = 0; i < n; i++) {
        vblk_expect_pending(vm->v, io[i]->req, 0);
        life_assert_image(vm, LIFE_PARKED_SECTOR(i), 0);
    }
    return n;
}

void life_assert_unparked(LifeVm *vm, VblkIo **io, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        life_ok(vm, io[i]);
        life_assert_image(vm, LIFE_PARKED_SECTOR(i), i + 1);
    }
    for (unsigned q = 0; q < vm->s.queues; q++) {
        g_assert_cmpint(vblk_completions(vm->v, q), ==, LIFE_PARKED);
    }
}

/* ---- the log of writes ---- */

typedef struct LogEntry {
    uint64_t sector, nr_sectors, flags, data_len;
} LogEntry;

/* The entry at sector *@at, and where the next one is; false at the end. */
static bool log_next(int fd, uint64_t *at, LogEntry *e)
{
    ssize_t n = pread(fd, e, sizeof(*e), *at * VBLK_SECTOR);

    if (n != sizeof(*e) || (!e->nr_sectors && !e->flags)) {
        return false;
    }
    *at += 1;
    if (!(e->flags & LIFE_LOG_DISCARD)) {
        *at += e->nr_sectors;
    }
    return true;
}

void life_wait_taken(LifeVm *vm, unsigned q)
{
    for (unsigned i = 0; i < VBLK_WAIT_MS; i++) {
        QDict *resp = vblk_qmp(vm->v, "{'execute': 'x-query-virtio-queue-"
                               "status', 'arguments': {'path': %s, 'queue': "
                               "%u}}", vblk_qom_path(vm->v), q);
        QDict *ret = qdict_get_qdict(resp, "return");
        int inuse = ret ? qdict_get_int(ret, "inuse") : -1;

        qobject_unref(resp);
        g_assert_cmpint(inuse, >=, 0);
        if (inuse) {
            return;
        }
        g_usleep(1000);
    }
    vblk_fail("queue %u: nothing was taken from it", q);
}

static bool is_write_of(const LogEntry *e, uint64_t sector, uint64_t nr)
{
    return !(e->flags & (LIFE_LOG_FLUSH | LIFE_LOG_DISCARD)) &&
           e->sector < sector + nr && sector < e->sector + e->nr_sectors;
}

/* Entries that write to the @nr sectors, if any, and have all of @flags. */
static unsigned count_log(LifeVm *vm, uint64_t sector, uint64_t nr,
                          uint64_t flags)
{
    int fd = open(vm->logfile, O_RDONLY);
    uint64_t at = 1;
    unsigned n = 0;
    LogEntry e;

    g_assert_cmpint(fd, >=, 0);
    while (log_next(fd, &at, &e)) {
        n += (!nr || is_write_of(&e, sector, nr)) &&
             (e.flags & flags) == flags;
    }
    close(fd);
    return n;
}

unsigned life_log_count(LifeVm *vm, uint64_t sector, uint64_t nr)
{
    return count_log(vm, sector, nr, 0);
}

unsigned life_log_flags(LifeVm *vm, uint64_t flags)
{
    return count_log(vm, 0, 0, flags);
}

/* ---- /proc ---- */

static unsigned count_entries(LifeVm *vm, const char *dir)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s",
                                            qtest_pid(vm->v->qts), dir);
    GDir *d = g_dir_open(path, 0, NULL);
    unsigned n = 0;

    g_assert_nonnull(d);
    while (g_dir_read_name(d)) {
        n++;
    }
    g_dir_close(d);
    return n;
}

unsigned life_fds(LifeVm *vm)
{
    return count_entries(vm, "fd");
}

unsigned life_threads(LifeVm *vm)
{
    return count_entries(vm, "task");
}

unsigned life_cpu_ms(LifeVm *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat",
                                            qtest_pid(vm->v->qts));
    g_autofree char *text = NULL;
    unsigned long utime, stime;
    const char *p;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    p = strrchr(text, ')');     /* the name may hold anything */
    g_assert_nonnull(p);
    g_assert_cmpint(sscanf(p, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                           "%lu %lu", &utime, &stime), ==, 2);
    return (utime + stime) * 1000 / sysconf(_SC_CLK_TCK);
}

unsigned life_count_words(const char *file, const char *words)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
    for (char *at = text; (at = strstr(at, words)); at++) {
        n++;
    }
    return n;
}
