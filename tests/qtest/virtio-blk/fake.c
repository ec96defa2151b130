/*
 * virtio-blk qtests: a host block device that is made up
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include "fake.h"

#define BINARY_ENV  "VBLK_FAKEHOST_BINARY"

static const char *const folders[] = { "queue", "device", "fault", "host",
                                       "host/health_descriptor" };

/* Every file that a test may have set; also what is to be removed. */
static const char *const files[] = {
    "queue/zoned", "queue/chunk_sectors", "queue/nr_zones",
    "queue/max_open_zones", "queue/max_active_zones",
    "queue/zone_append_max_bytes", "queue/physical_block_size",
    "queue/logical_block_size", "zones",
    "device/pre_eol_info", "device/life_time",
    "host/health_descriptor/eol_info",
    "host/health_descriptor/life_time_estimation_a",
    "host/health_descriptor/life_time_estimation_b",
    "fault/sg_io", "fault/sense", "fault/secure_discard", "fault/discard",
    "fault/zeroout", "fault/read", "fault/write", "dropped",
    "slow-names",
};

char *vblk_fake_library(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
    char *path = dir ? g_build_filename(dir, "fakehost.so", NULL) : NULL;

    if (path && g_file_test(path, G_FILE_TEST_EXISTS)) {
        return path;
    }
    g_free(path);
    g_test_skip("fakehost.so is not beside this program; build it with "
                "ninja tests/qtest/virtio-blk/fakehost.so");
    return NULL;
}

/* A failed test leaves nothing behind either. */
static void remove_all(void *opaque)
{
    VblkFake *f = opaque;

    for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
        vblk_fake_set(f, files[i], NULL);
    }
    for (unsigned i = ARRAY_SIZE(folders); i--; ) {
        g_autofree char *path = g_build_filename(f->dir, folders[i], NULL);

        g_rmdir(path);
    }
    g_unlink(f->image);
    g_rmdir(f->dir);
}

static void make_files(VblkFake *f, uint64_t size)
{
    int fd;

    f->dir = g_dir_make_tmp("vblk-fakehost-XXXXXX", NULL);
    g_assert_nonnull(f->dir);
    for (unsigned i = 0; i < ARRAY_SIZE(folders); i++) {
        g_autofree char *path = g_build_filename(f->dir, folders[i], NULL);

        g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
    }
    f->image = g_build_filename(f->dir, "image", NULL);
    fd = g_open(f->image, O_CREAT | O_RDWR, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
}

bool vblk_fake_begin(VblkFake *f, uint64_t size)
{
    g_autofree char *lib = vblk_fake_library();
    g_autofree char *binary = NULL;

    if (!lib) {
        return false;
    }
    *f = (VblkFake) {};
    make_files(f, size);
    /* The sanitizer's library need not come first. */
    binary = g_strdup_printf("/usr/bin/env LD_PRELOAD=%s FAKEHOST_PATH=%s "
                             "FAKEHOST_SYSFS=%s ASAN_OPTIONS=%s:"
                             "verify_asan_link_order=0 %s", lib, f->image,
                             f->dir, g_getenv("ASAN_OPTIONS") ?: "",
                             g_getenv("QTEST_QEMU_BINARY"));
    g_setenv(BINARY_ENV, binary, true);
    qtest_add_abrt_handler(remove_all, f);
    return true;
}

void vblk_fake_use(VblkFake *f, VblkOpts *o, const char *opts)
{
    g_free(f->blockdev);
    f->blockdev = g_strdup_printf("-blockdev driver=host_device,node-name="
                                  VBLK_NODE ",filename=%s,discard=unmap,"
                                  "cache.direct=on%s", f->image, opts ?: "");
    o->blockdev = f->blockdev;
    o->binary_env = BINARY_ENV;
}

void vblk_fake_use_drive(VblkFake *f, VblkOpts *o)
{
    g_free(f->blockdev);
    f->blockdev = g_strdup_printf("-drive if=none,id=" VBLK_NODE
                                  ",format=host_device,file=%s,cache=none",
                                  f->image);
    o->blockdev = f->blockdev;
    o->binary_env = BINARY_ENV;
}

void vblk_fake_end(VblkFake *f)
{
    qtest_remove_abrt_handler(f);
    remove_all(f);
    g_unsetenv(BINARY_ENV);
    g_free(f->blockdev);
    g_free(f->image);
    g_free(f->dir);
}

void vblk_fake_set(VblkFake *f, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);

    if (text) {
        g_assert_true(g_file_set_contents(path, text, -1, NULL));
    } else {
        g_unlink(path);
    }
}

void vblk_fake_set_num(VblkFake *f, const char *name, long value)
{
    g_autofree char *text = g_strdup_printf("%ld\n", value);

    vblk_fake_set(f, name, text);
}

void vblk_fake_fault(VblkFake *f, const char *op, int error)
{
    g_autofree char *name = g_build_filename("fault", op, NULL);

    if (error) {
        vblk_fake_set_num(f, name, error);
    } else {
        vblk_fake_set(f, name, NULL);
    }
}

char *vblk_fake_get(VblkFake *f, const char *name)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);
    char *text;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

static int image_open(VblkFake *f)
{
    int fd = g_open(f->image, O_RDWR, 0);

    g_assert_cmpint(fd, >=, 0);
    return fd;
}

bool vblk_fake_is(VblkFake *f, uint64_t offset, uint64_t len, uint8_t val)
{
    g_autofree uint8_t *buf = g_malloc(len);
    int fd = image_open(f);
    bool is = true;

    g_assert_cmpint(pread(fd, buf, len, offset), ==, len);
    close(fd);
    for (uint64_t i = 0; i < len; i++) {
        is &= buf[i] == val;
    }
    return is;
}

void vblk_fake_fill(VblkFake *f, uint64_t offset, uint64_t len, uint8_t val)
{
    g_autofree uint8_t *buf = g_malloc(len);
    int fd = image_open(f);

    memset(buf, val, len);
    g_assert_cmpint(pwrite(fd, buf, len, offset), ==, len);
    close(fd);
}
