/*
 * virtio-blk fuzzing: run a harness on the inputs given, without a fuzzer
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "input.h"

static unsigned run(const char *path)
{
    g_autofree char *data = NULL;
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    unsigned n = 0;
    gsize size;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *sub = g_build_filename(path, name, NULL);

        n += run(sub);
    }
    if (dir) {
        return n;
    }
    if (!g_file_get_contents(path, &data, &size, NULL)) {
        fprintf(stderr, "error: cannot read %s\n", path);
        exit(1);
    }
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput((uint8_t *)data, size);
    return 1;
}

int main(int argc, char **argv)
{
    unsigned n = 0;

    for (int i = 1; i < argc; i++) {
        n += run(argv[i]);
    }
    printf("%u inputs\n", n);
    return n ? 0 : 1;
}
