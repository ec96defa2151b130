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
#include <sys/resource.h>
#include <sys/syscall.h>
#include "vhost.h"

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
    { "enter", __NR_io_uring_enter, "io_uring" },
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

/* Later than 10.0, QEMU itself may wait by io_uring in each thread. */
static bool starts(const char *binary)
{
    g_autofree char *command = g_strdup_printf(
        "sh -c \"echo quit | timeout 20 %s -machine none -nodefaults "
        "-display none -monitor stdio\"", binary);
    g_autofree char *out = NULL, *err = NULL;
    int status = 1;

    return g_spawn_command_line_sync(command, &out, &err, &status, NULL) &&
           !status;
}

static void test_forbidden(const void *data)
{
    const Forbidden *f = data;
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *binary =
        g_strdup_printf("%s --without-syscall %d %s", self, f->number,
                        g_getenv("QTEST_QEMU_BINARY"));
    LifeVm *vm;

    if (!starts(binary)) {
        g_test_skip("this QEMU does not start without that system call");
        return;
    }
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
    /* The variable may say more than a path, such as what to preload. */
    g_autofree char *command = g_strdup_printf(
        "%s -sandbox on -machine none -version", getenv("QTEST_QEMU_BINARY"));
    g_autofree char *out = NULL, *err = NULL;
    int status = 1;

    if (!g_spawn_command_line_sync(command, &out, &err, &status, NULL) ||
        status) {
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

/* /dev/vhost-blk is opened before the sandbox is there, and in it. */
static void test_sandbox_vhost(void)
{
    LifeVm *vm;
    Vhost h;

    if (!has_sandbox() || !vhost_begin(&h, NULL)) {
        return;
    }
    vm = vhost_start(&h, &one_thread, (LifeSpec) { .args = SANDBOX });
    vhost_wait_engine(vm, "vhost");
    work(vm);
    vhost_wait_engine(vm, "vhost");
    life_stop(vm);
    vm = vhost_start(&h, &one_thread, (LifeSpec) {
        .machine = "pc", .hotplug = true, .args = SANDBOX,
    });
    life_plug(vm);
    vhost_wait_engine(vm, "vhost");
    vblk_check_io(vm->v, 0);
    life_unplug(vm);
    life_stop(vm);
    vhost_end(&h);
}

/* ---- the host is out of file descriptors ---- */

#define MOST_FDS    10          /* more than two queues want */

/* A limit that leaves so many descriptors to be had. */
static unsigned limit_for(pid_t pid, unsigned left)
{
    unsigned fd;

    for (fd = 0; ; fd++) {
        g_autofree char *path = g_strdup_printf("/proc/%d/fd/%u", pid, fd);
        g_autofree char *link = g_file_read_link(path, NULL);

        if (!link && !left--) {
            return fd;
        }
    }
}

/*
 * With 0, 1, 2 ... descriptors to be had, the notifiers of the queues or their
 * rings can't be made, each of them once.  The disk works all the same.
 */
static void test_no_fds(void)
{
    for (unsigned left = 0; left <= MOST_FDS; left++) {
        struct rlimit old, tight;
        LifeVm *vm = life_start(&one_thread, &(LifeSpec) {
            .no_setup = true, .json = "\"io-engine\":\"io_uring\",",
        });
        pid_t pid = qtest_pid(vm->v->qts);

        vblk_attach(vm->v);
        g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, NULL, &old), ==, 0);
        tight = (struct rlimit) { limit_for(pid, left), old.rlim_max };
        g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, &tight, NULL), ==, 0);
        vblk_setup(vm->v);
        for (unsigned q = 0; q < 2; q++) {
            vblk_check_io(vm->v, q);
        }
        g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, &old, NULL), ==, 0);
        vblk_reset(vm->v);
        life_setup(vm);
        for (unsigned q = 0; q < 2; q++) {
            vblk_check_io(vm->v, q);
        }
        life_stop(vm);
    }
}

void vblk_add_sandbox_tests(void)
{
    vblk_add_one("sandbox/no-fds", test_no_fds);
    for (unsigned i = 0; i < ARRAY_SIZE(forbidden); i++) {
        g_autofree char *name = g_strdup_printf("sandbox/without-%s",
                                                forbidden[i].name);

        vblk_add_data(name, &forbidden[i], test_forbidden);
    }
    vblk_add_data("sandbox/on/block", "block", test_sandbox);
    vblk_add_data("sandbox/on/io_uring", "io_uring", test_sandbox);
    vblk_add_one("vhost/sandbox", test_sandbox_vhost);
}
