/*
 * vblk-bench: small helpers and the shared memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"

/*
 * The first MiB holds ROMs and holes of a PC, and the guest's memory is one
 * piece from there up to the PCI hole: a guest address is an offset.
 */
#define MEM_FIRST       MIB

static void (*clean_up)(void);

void at_die(void (*fn)(void))
{
    clean_up = fn;
}

void die(const char *fmt, ...)
{
    static atomic_bool dying;
    va_list ap;

    fflush(stdout);
    fprintf(stderr, "error: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    if (clean_up && !atomic_exchange(&dying, true)) {
        clean_up();
    }
    _exit(1);
}

void *xalloc(size_t n, size_t size)
{
    void *p = calloc(n, size);

    if (!p) {
        die("out of memory");
    }
    return p;
}

/* For command lines and names: nobody frees these, the program is short. */
char *format(const char *fmt, ...)
{
    va_list ap;
    char *s;

    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0) {
        die("out of memory");
    }
    va_end(ap);
    return s;
}

uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

void pin_thread(int driver)
{
    unsigned drivers = opt.threads, n = 0;
    cpu_set_t may, set;

    /* Whoever started us may have chosen, for us and for the device. */
    if (!opt.pin || sched_getaffinity(0, sizeof(may), &may) ||
        CPU_COUNT(&may) < (int)(drivers + MAX(opt.iothreads, 1))) {
        return;
    }
    CPU_ZERO(&set);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &may)) {
            continue;
        }
        if (driver >= 0 ? n == (unsigned)driver : n >= drivers) {
            CPU_SET(cpu, &set);
        }
        n++;
    }
    /* A container may forbid it: no harm done. */
    sched_setaffinity(0, sizeof(set), &set);
}

void sleep_until(uint64_t ns)
{
    struct timespec t = { ns / NS_PER_S, ns % NS_PER_S };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) ==
           EINTR) {
        continue;
    }
}

void mem_create(Mem *m, uint64_t size)
{
    m->size = size;
    m->next = MEM_FIRST;
    m->fd = memfd_create("vblk-bench", MFD_CLOEXEC);
    if (m->fd < 0 || ftruncate(m->fd, size) < 0) {
        die("memfd of %llu MiB: %m", (unsigned long long)(size / MIB));
    }
    m->host = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_POPULATE, m->fd, 0);
    if (m->host == MAP_FAILED) {
        die("mapping %llu MiB of memory: %m",
            (unsigned long long)(size / MIB));
    }
}

uint64_t mem_alloc(Mem *m, uint64_t size, uint64_t align)
{
    uint64_t at = (m->next + align - 1) / align * align;

    if (at + size > m->size) {
        die("guest memory is used up; this is a bug of vblk-bench");
    }
    m->next = at + size;
    return at;
}
