/*
 * vblk-bench: what waking a sleeping thread costs, there and back
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A driver that waits for the interrupt, and a device that waits for the
 * doorbell, wake each other once for a request.  Here two threads do nothing
 * but that, by eventfds and ppoll() as those do: no device can be faster.
 */

#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "bench.h"

static int doorbell, interrupt;
static atomic_bool stop;

static void wake(int fd)
{
    uint64_t one = 1;

    if (write(fd, &one, sizeof(one)) != sizeof(one)) {
        die("eventfd: %m");
    }
}

static void wait_for(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    uint64_t n;

    if (ppoll(&p, 1, NULL, NULL) != 1 || read(fd, &n, sizeof(n)) != sizeof(n)) {
        die("eventfd: %m");
    }
}

static void *device(void *opaque)
{
    pin_thread(-1);
    for (;;) {
        wait_for(doorbell);
        if (stop) {
            return NULL;
        }
        wake(interrupt);
    }
}

void wakeup_run(Result *r)
{
    uint64_t begin, start, end;
    pthread_t thread;

    doorbell = eventfd(0, EFD_CLOEXEC);
    interrupt = eventfd(0, EFD_CLOEXEC);
    if (doorbell < 0 || interrupt < 0 ||
        pthread_create(&thread, NULL, device, NULL)) {
        die("no eventfd or no thread: %m");
    }
    pin_thread(0);
    begin = now_ns() + opt.warm * NS_PER_S;
    end = begin + opt.time * NS_PER_S;
    for (start = now_ns(); start < end; start = now_ns()) {
        wake(doorbell);
        wait_for(interrupt);
        if (start >= begin) {
            hist_add(r->hist, now_ns() - start);
            r->ios++;
        }
    }
    stop = true;
    wake(doorbell);
    pthread_join(thread, NULL);
    r->seconds = (start - begin) / (double)NS_PER_S;
}
