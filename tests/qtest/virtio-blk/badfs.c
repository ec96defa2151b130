/*
 * virtio-blk qtests: a disk that fails as it is told, tests/badfs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <sys/prctl.h>
#include "fixture.h"
#include "badfs.h"

bool vblk_badfs_there(void)
{
    return getenv("VBLK_BADFS");
}

static void dies_with_us(void *opaque)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

void vblk_badfs_ctl(VblkBadfs *b, const char *fmt, ...)
{
    g_autofree char *path = g_build_filename(b->dir, "ctl", NULL);
    g_autofree char *text = NULL;
    int fd = g_open(path, O_WRONLY);
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, text, strlen(text)), ==, strlen(text));
    close(fd);
}

unsigned vblk_badfs_count(VblkBadfs *b, const char *name)
{
    g_autofree char *path = g_build_filename(b->dir, "ctl", NULL);
    g_autofree char *word = g_strdup_printf("%s ", name);
    char text[256] = {};
    int fd = g_open(path, O_RDONLY);
    const char *at;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(read(fd, text, sizeof(text) - 1), >, 0);
    close(fd);
    at = strstr(text, word);
    g_assert_nonnull(at);
    return atoi(at + strlen(word));
}

void vblk_badfs_begin(VblkBadfs *b, unsigned size)
{
    g_autofree char *bytes = g_strdup_printf("%u", size);
    g_autofree char *disk = NULL;
    char *argv[] = { getenv("VBLK_BADFS"), NULL, bytes, NULL };
    gint64 end = g_get_monotonic_time() + VBLK_WAIT_MS * 1000;

    b->dir = g_dir_make_tmp("vblk-badfs-XXXXXX", NULL);
    g_assert_nonnull(b->dir);
    disk = g_build_filename(b->dir, "disk", NULL);
    argv[1] = b->dir;
    g_assert_true(g_spawn_async(NULL, argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                                dies_with_us, NULL, &b->pid, NULL));
    while (!g_file_test(disk, G_FILE_TEST_EXISTS)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(5000);
    }
}

void vblk_badfs_end(VblkBadfs *b)
{
    kill(b->pid, SIGTERM);
    waitpid(b->pid, NULL, 0);
    g_spawn_close_pid(b->pid);
    g_rmdir(b->dir);
    g_free(b->dir);
}
