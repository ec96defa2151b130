/*
 * virtio-blk qtests: the host runs out of memory, descriptors or rings
 *
 * The device is plugged again and again, and each time the next call of those
 * that tests/fakehost/fakeoom.c counts fails, from device_add to the first
 * requests.
 * Then there is one clear error and no device, or a device that works with
 * less.  When there is enough again, so is the next device as ever, and QEMU
 * holds no more files than at the start.  Leaks of memory are for the address
 * sanitizer to find, at QEMU's end.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/mman.h>
#include "qapi/error.h"
#include "qemu/atomic.h"
#include "qobject/qjson.h"
#include "../../fakehost/fakeoom.h"
#include "vhost.h"

#define MOST_CALLS  400         /* more than any device makes */
#define SETTLED     3           /* files that stay open are by then */

typedef struct OomCase {
    const char *name, *engine, *json;
    bool vhost;
    unsigned threads;
    bool packed, msix;
} OomCase;

static const OomCase cases[] = {
    { "block", "block", "\"io-engine\":\"block\"," },
    { "block-iothread", "block", "\"io-engine\":\"block\",", .threads = 1,
      .msix = true },
    { "io_uring", "io_uring", "\"io-engine\":\"io_uring\",", .packed = true },
    { "io_uring-mapping", "io_uring", "\"io-engine\":\"io_uring\",",
      .threads = 2, .msix = true },
    { "vhost", "vhost", "", .vhost = true, .threads = 1, .msix = true },
    { "vhost-auto", "vhost", "\"io-engine\":\"auto\",", .vhost = true,
      .msix = true },
};

/* What the library counts with; gone with the test. */
static struct {
    char *path;
    FakeOom *at;
} shared;

static void remove_shared(void *opaque)
{
    g_unlink(shared.path);
}

static void shared_begin(void)
{
    int fd;

    shared.path = life_temp("oom", sizeof(FakeOom));
    qtest_add_abrt_handler(remove_shared, &shared);
    fd = g_open(shared.path, O_RDWR, 0);
    g_assert_cmpint(fd, >=, 0);
    shared.at = mmap(NULL, sizeof(FakeOom), PROT_READ | PROT_WRITE,
                     MAP_SHARED, fd, 0);
    g_assert_true(shared.at != MAP_FAILED);
    close(fd);
}

static void shared_end(void)
{
    munmap(shared.at, sizeof(FakeOom));
    qtest_remove_abrt_handler(&shared);
    remove_shared(NULL);
    g_clear_pointer(&shared.path, g_free);
}

static void arm(unsigned nth)
{
    shared.at->nth = nth;
    shared.at->count = 0;
    memset(shared.at->failed, 0, sizeof(shared.at->failed));
    qatomic_set_mb(&shared.at->armed, true);
}

static void disarm(void)
{
    qatomic_set_mb(&shared.at->armed, false);
}

/* Says what it is about, in one line. */
static void assert_clear(QDict *resp, const char *failed)
{
    const char *text = qdict_get_str(qdict_get_qdict(resp, "error"), "desc");

    g_test_message("%s: %s", failed, text);
    if (strlen(text) < 10 || strchr(text, '\n')) {
        vblk_fail("%s fails, and the error is: %s", failed, text);
    }
}

static void check_io(LifeVm *vm)
{
    for (unsigned q = 0; q < vm->s.queues; q++) {
        vblk_check_io(vm->v, q);
    }
}

/* Plug and set up while call @nth fails; is there a device? */
static bool plug_with(LifeVm *vm, unsigned nth)
{
    QDict *args = qobject_to(QDict, qobject_from_json(vm->device,
                                                      &error_abort));
    QDict *resp;
    bool there;

    arm(nth);
    resp = qtest_qmp(vm->v->qts, "{'execute': 'device_add', "
                     "'arguments': %p}", args);
    there = qdict_haskey(resp, "return");
    if (there) {
        vblk_attach(vm->v);
        vblk_setup(vm->v);
        /* A ring is made for the first request. */
        check_io(vm);
    } else {
        g_assert_true(shared.at->failed[0]);
    }
    disarm();
    if (!there) {
        assert_clear(resp, shared.at->failed);
    }
    qobject_unref(resp);
    return there;
}

/* There is enough of all again. */
static void plug_as_ever(LifeVm *vm, const OomCase *c)
{
    life_plug(vm);
    check_io(vm);
    vhost_wait_engine(vm, c->engine);
    life_unplug(vm);
}

static void fail_each(LifeVm *vm, const OomCase *c)
{
    unsigned failed = 0, refused = 0, fds = 0;

    for (unsigned n = 1; ; n++) {
        bool there = plug_with(vm, n);

        alarm(VBLK_TEST_SECONDS);
        if (there) {
            life_unplug(vm);
        }
        if (!shared.at->failed[0]) {
            break;
        }
        failed++;
        refused += !there;
        if (there) {
            g_test_message("%u: %s: works", n, shared.at->failed);
        }
        plug_as_ever(vm, c);
        if (n == SETTLED) {
            fds = life_fds(vm);
        }
        g_assert_cmpint(n, <, MOST_CALLS);
    }
    g_test_message("%u calls failed, %u devices were refused", failed,
                   refused);
    /* The notifiers of two queues, at least. */
    g_assert_cmpint(failed, >, 3);
    g_assert_cmpint(life_fds(vm), <=, fds);
}

static LifeVm *start(const OomCase *c, Vhost *h)
{
    LifeCase life = {
        .name = c->name, .transport = VBLK_PCI_MODERN, .packed = c->packed,
        .threads = c->threads, .queues = 2,
    };
    LifeSpec spec = {
        .machine = "pc", .hotplug = true, .json = c->json, .msix = c->msix,
        .binary_env = h->binary_env,
    };

    return c->vhost ? vhost_start(h, &life, spec) : life_start(&life, &spec);
}

static void with_library(const OomCase *c,
                         void (*fn)(LifeVm *vm, const OomCase *c))
{
    g_autofree char *env = NULL;
    LifeVm *vm;
    Vhost h;

    if (!strcmp(c->engine, "io_uring") && !vblk_kernel_has_uring()) {
        return;
    }
    shared_begin();
    env = g_strdup_printf("FAKEHOST_OOM=%s", shared.path);
    if (c->vhost ? vhost_begin_fake(&h, env) : vhost_begin_library(&h, env)) {
        vm = start(c, &h);
        fn(vm, c);
        life_stop(vm);
        vhost_end(&h);
    }
    shared_end();
}

static void test_each(const void *data)
{
    with_library(data, fail_each);
}

/* The first look whether the kernel has io_uring is not the last. */
static void fail_first_ring(LifeVm *vm, const OomCase *c)
{
    g_autofree char *engine = NULL;

    strcpy(shared.at->only, "io_uring_setup");
    g_assert_true(plug_with(vm, 1));
    g_assert_cmpstr(shared.at->failed, ==, "io_uring_setup");
    engine = vblk_qom_str(vm->v, "engine");
    g_assert_cmpstr(engine, ==, "block");
    life_unplug(vm);
    plug_as_ever(vm, c);
}

static void test_first_ring(void)
{
    static const OomCase c = {
        "first-ring", "io_uring", "\"io-engine\":\"io_uring\",",
    };

    with_library(&c, fail_first_ring);
}

void vblk_add_oom_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *name = g_strdup_printf("oom/%s", cases[i].name);

        vblk_add_data(name, &cases[i], test_each);
    }
    vblk_add_one("oom/first-ring", test_first_ring);
}
