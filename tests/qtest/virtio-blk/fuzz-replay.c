/*
 * virtio-blk fuzzing: inputs of fuzz-ops.c, on a QEMU of its own
 *
 * fuzz-replay INPUT...  The emulator is QTEST_QEMU_BINARY, its arguments are
 * QEMU_FUZZ_ARGS, as for the fuzzer; an input is a file, or a folder of them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "fuzz-ops.h"

#define TURN_US         200
#define INPUT_SECONDS   30

static void host_run(FuzzHost *h)
{
    g_usleep(TURN_US);
}

static void host_qmp(FuzzHost *h, const char *command)
{
    qtest_qmp_send_raw(h->qts, "%s", command);
    qobject_unref(qtest_qmp_receive(h->qts));
}

static void host_reset(FuzzHost *h)
{
    qtest_system_reset(h->qts);
}

static void run_input(FuzzHost *h, const char *path)
{
    g_autofree char *data = NULL;
    gsize size;

    if (!g_file_get_contents(path, &data, &size, NULL)) {
        fprintf(stderr, "error: cannot read %s\n", path);
        exit(1);
    }
    fprintf(stderr, "%s\n", path);
    alarm(INPUT_SECONDS);
    fuzz_ops(h, (uint8_t *)data, size);
    alarm(0);
}

static unsigned run(FuzzHost *h, const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned n = 0;

    if (!dir) {
        run_input(h, path);
        return 1;
    }
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *sub = g_build_filename(path, name, NULL);

        n += run(h, sub);
    }
    return n;
}

int main(int argc, char **argv)
{
    FuzzHost h = {
        .args = g_getenv("QEMU_FUZZ_ARGS"),
        .run = host_run,
        .qmp = host_qmp,
        .system_reset = host_reset,
    };
    unsigned n = 0;

    if (!h.args || argc < 2) {
        fprintf(stderr, "error: set QEMU_FUZZ_ARGS, and name inputs\n");
        return 1;
    }
    h.qts = qtest_initf("-m 64 %s", h.args);
    for (int i = 1; i < argc; i++) {
        n += run(&h, argv[i]);
    }
    qtest_quit(h.qts);
    printf("%u inputs\n", n);
    return n ? 0 : 1;
}
