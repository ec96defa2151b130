/*
 * virtio-blk qtests: what the host forbids
 *
 * With QEMU's own sandbox the device works as without.  Where a system call of
 * io_uring is forbidden, by a container's filter or by
 * /proc/sys/kernel/io_uring_disabled, the disk goes on through the block layer.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "life.h"

#define BINARY_ENV  "VBLK_SANDBOX_BINARY"
#define SANDBOX     "-sandbox on,obsolete=deny,elevateprivileges=deny," \
                    "spawn=deny,resourcecontrol=deny"

static const LifeCase one_thread = {
    "sandbox", VBLK_PCI_MODERN, .threads = 1, .queues = 2,
};

typedef struct Forbidden {
    const char *name;
    int number;
    const char *engine;         /* then in use */
} Forbidden;

/*
 * The filter is the one that answers EPERM, as containers' do.  The engine in
 * use is the one that was chosen when the queues were started; it may hand
 * everything to the block layer.
 */
static const Forbidden forbidden[] = {
    { "setup", __NR_io_uring_setup, "block" },
    { "register", __NR_io_uring_register, "io_uring" },
};

/* Filter BPF: @nr fails, all else is as it was.  Does not return. */
void vblk_exec_without(int nr, char **argv)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { ARRAY_SIZE(code), code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog)) {
        fprintf(stderr, "error: no seccomp filter: %m\n");
        exit(1);
    }
    execvp(argv[0], argv);
    fprintf(stderr, "error: %s: %m\n", argv[0]);
    exit(1);
}

static void assert_engine(LifeVm *vm, const char *want)
{
    g_autofree char *engine = vblk_qom_str(vm->v, "engine");

    g_assert_cmpstr(engine, ==, want);
}

/* Every type of request, on all queues, before and after a reset. */
static void work(LifeVm *vm)
{
    for (unsigned round = 0; round < 2; round++) {
        LifeLoad *l = life_load_new(vm, 6);

        life_load_run(l, 100);
        life_load_end(l);
        g_assert_cmpint(vblk_flush(vm->v), ==, VIRTIO_BLK_S_OK);
        vblk_reset(vm->v);
        life_setup(vm);
    }
}

static void test_forbidden(const void *data)
{
    const Forbidden *f = data;
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *binary =
        g_strdup_printf("%s --without-syscall %d %s", self, f->number,
                        g_getenv("QTEST_QEMU_BINARY"));
    LifeVm *vm;

    g_setenv(BINARY_ENV, binary, true);
    vm = life_start(&one_thread, &(LifeSpec) {
        .json = "\"io-engine\":\"io_uring\",", .binary_env = BINARY_ENV,
    });
    assert_engine(vm, f->engine);
    work(vm);
    life_stop(vm);
    g_unsetenv(BINARY_ENV);
}

static bool has_sandbox(void)
{
    const char *argv[] = { getenv("QTEST_QEMU_BINARY"), "-sandbox", "on",
                           "-machine", "none", "-version", NULL };
    int status = 1;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL |
                      G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL, NULL,
                      &status, NULL) || status) {
        g_test_skip("this QEMU is built without seccomp");
        return false;
    }
    return true;
}

static void test_sandbox(const void *engine)
{
    g_autofree char *json = g_strdup_printf("\"io-engine\":\"%s\",",
                                            (const char *)engine);
    LifeVm *vm;

    if (!has_sandbox()) {
        return;
    }
    vm = life_start(&one_thread, &(LifeSpec) {
        .json = json, .args = SANDBOX,
    });
    assert_engine(vm, engine);
    work(vm);
    life_stop(vm);
}

void vblk_add_sandbox_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(forbidden); i++) {
        g_autofree char *name = g_strdup_printf("sandbox/without-%s",
                                                forbidden[i].name);

        vblk_add_data(name, &forbidden[i], test_forbidden);
    }
    vblk_add_data("sandbox/on/block", "block", test_sandbox);
    vblk_add_data("sandbox/on/io_uring", "io_uring", test_sandbox);
}
