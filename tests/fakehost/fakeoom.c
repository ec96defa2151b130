/*
 * fakehost: the host runs out of something
 *
 * Where FAKEHOST_OOM names a file (see fakeoom.h), calls that may fail for
 * want of memory, descriptors or threads are counted, and one of them fails.
 * Left alone is what ends QEMU by design: malloc() and posix_memalign(), the
 * stack of a coroutine (a private mapping without a file), and a thread.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#undef _FILE_OFFSET_BITS
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "fakehost.h"
#include "fakeoom.h"
#include "fakeoom-real.h"

#define REAL(name)      ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static FakeOom *oom;

static void __attribute__((constructor)) begin(void)
{
    const char *path = getenv("FAKEHOST_OOM");
    int fd = path ? REAL(open)(path, O_RDWR | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED :
               REAL(mmap)(NULL, sizeof(*oom), PROT_READ | PROT_WRITE,
                          MAP_SHARED, fd, 0);

    if (fd >= 0) {
        close(fd);
    }
    oom = at == MAP_FAILED ? NULL : at;
}

int fake_oom(const char *what)
{
    if (!oom || !__atomic_load_n(&oom->armed, __ATOMIC_ACQUIRE) ||
        (oom->only[0] && strcmp(oom->only, what)) ||
        __atomic_add_fetch(&oom->count, 1, __ATOMIC_RELAXED) != oom->nth) {
        return false;
    }
    strncpy(oom->failed, what, sizeof(oom->failed) - 1);
    return true;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

int eventfd(unsigned value, int flags)
{
    return fake_oom("eventfd") ? fail(EMFILE) : REAL(eventfd)(value, flags);
}

int fake_eventfd(unsigned value, int flags)
{
    return REAL(eventfd)(value, flags);
}

int epoll_create1(int flags)
{
    return fake_oom("epoll_create1") ? fail(EMFILE) :
                                       REAL(epoll_create1)(flags);
}

int timerfd_create(int clock, int flags)
{
    return fake_oom("timerfd_create") ? fail(EMFILE) :
                                        REAL(timerfd_create)(clock, flags);
}

int pipe2(int fd[2], int flags)
{
    return fake_oom("pipe2") ? fail(EMFILE) : REAL(pipe2)(fd, flags);
}

int dup(int fd)
{
    return fake_oom("dup") ? fail(EMFILE) : REAL(dup)(fd);
}

static bool map_fails(int flags)
{
    return !(flags & MAP_STACK) && fake_oom("mmap");
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    if (map_fails(flags)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return REAL(mmap)(at, n, prot, flags, fd, offset);
}

void *mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t offset)
{
    if (map_fails(flags)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return REAL(mmap64)(at, n, prot, flags, fd, offset);
}

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring,
                               struct io_uring_params *p)
{
    return fake_oom("io_uring_setup") ? -ENOMEM :
           REAL(io_uring_queue_init_params)(entries, ring, p);
}

int io_uring_queue_init(unsigned entries, struct io_uring *ring,
                        unsigned flags)
{
    return fake_oom("io_uring_setup") ? -ENOMEM :
           REAL(io_uring_queue_init)(entries, ring, flags);
}

int io_uring_register_files(struct io_uring *ring, const int *files,
                            unsigned n)
{
    return fake_oom("io_uring_register") ? -ENOMEM :
           REAL(io_uring_register_files)(ring, files, n);
}

void *g_try_malloc(size_t n)
{
    return fake_oom("g_try_malloc") ? NULL : REAL(g_try_malloc)(n);
}

void *g_try_malloc0(size_t n)
{
    return fake_oom("g_try_malloc0") ? NULL : REAL(g_try_malloc0)(n);
}

void *g_try_realloc(void *p, size_t n)
{
    return fake_oom("g_try_realloc") ? NULL : REAL(g_try_realloc)(p, n);
}

void *g_try_malloc_n(size_t n, size_t size)
{
    return fake_oom("g_try_malloc_n") ? NULL : REAL(g_try_malloc_n)(n, size);
}

void *g_try_malloc0_n(size_t n, size_t size)
{
    return fake_oom("g_try_malloc0_n") ? NULL : REAL(g_try_malloc0_n)(n, size);
}

void *g_try_realloc_n(void *p, size_t n, size_t size)
{
    return fake_oom("g_try_realloc_n") ? NULL :
                                         REAL(g_try_realloc_n)(p, n, size);
}
