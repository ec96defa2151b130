/*
 * virtio-blk fuzzing: a target of QEMU's fuzzer
 *
 * "virtio-blk-ops" takes QEMU's arguments from QEMU_FUZZ_ARGS, as generic-fuzz
 * does; see fuzz-ops.h for what the device must be called.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/coroutine.h"
#include "qemu/main-loop.h"
#include "block/aio.h"
#include "monitor/monitor-internal.h"
#include "qapi/qmp-registry.h"
#include "qobject/qjson.h"
#include "system/system.h"
#include "fuzz-ops.h"
#include "tests/qtest/fuzz/fuzz.h"

#define TURNS       4
#define TURN_US     20
#define QMP_SECONDS 15      /* some commands wait for threads */

static void host_run(FuzzHost *h)
{
    for (unsigned i = 0; i < TURNS; i++) {
        main_loop_wait(true);
    }
    if (strstr(h->args, "filename=") || strstr(h->args, "iothread=")) {
        /* Threads that do I/O need the processor. */
        g_usleep(TURN_US);
        main_loop_wait(true);
    }
}

typedef struct QmpCall {
    QObject *request;
    bool done;
} QmpCall;

static void coroutine_fn qmp_entry(void *opaque)
{
    QmpCall *call = opaque;

    qobject_unref(qmp_dispatch(&qmp_commands, call->request, false, NULL));
    call->done = true;
}

/* There is no monitor, since nobody could talk to it: it is called. */
static void host_qmp(FuzzHost *h, const char *command)
{
    QmpCall call = { .request = qobject_from_json(command, &error_abort) };
    gint64 end = g_get_monotonic_time() + QMP_SECONDS * G_USEC_PER_SEC;

    qemu_coroutine_enter(qemu_coroutine_create(qmp_entry, &call));
    while (!call.done) {
        g_assert(g_get_monotonic_time() < end);
        host_run(h);
    }
    qobject_unref(call.request);
}

static void host_reset(FuzzHost *h)
{
    fuzz_reset(h->qts);
}

static void fuzz(QTestState *s, const unsigned char *data, size_t size)
{
    FuzzHost h = {
        .qts = s,
        .args = getenv("QEMU_FUZZ_ARGS"),
        .run = host_run,
        .qmp = host_qmp,
        .system_reset = host_reset,
    };

    fuzz_ops(&h, data, size);
}

static GString *command_line(FuzzTarget *t)
{
    GString *line = g_string_new(TARGET_NAME);

    g_string_append_printf(line, " -display none -machine accel=qtest -m 64 %s",
                           getenv("QEMU_FUZZ_ARGS") ?: "");
    return line;
}

/*
 * QEMU blocks SIGALRM, by which libFuzzer finds inputs that hang.  This mends
 * it for all targets of the program.
 */
static void unblock_alarm(Notifier *notifier, void *data)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static Notifier machine_ready = { .notify = unblock_alarm };

static void register_target(void)
{
    qemu_add_machine_init_done_notifier(&machine_ready);
    fuzz_add_target(&(FuzzTarget) {
        .name = "virtio-blk-ops",
        .description = "Fuzz a virtio-blk device with whole requests",
        .get_init_cmdline = command_line,
        .fuzz = fuzz,
    });
}

fuzz_target_init(register_target);
