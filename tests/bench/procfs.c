/*
 * vblk-bench: what the kernel says about, and lets us do to, a child process
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bench.h"

static bool read_eventfd(pid_t pid, EventFd *e)
{
    char path[64], line[256];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, e->fd);
    f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "eventfd-count: %lx", &e->count) == 1) {
            found = true;
        }
    }
    if (f) {
        fclose(f);
    }
    return found;
}

/* The eventfds of a process, with their counts as they are now. */
unsigned list_eventfds(pid_t pid, EventFd *e, unsigned max)
{
    char path[64];
    struct dirent *ent;
    unsigned n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/fdinfo", pid);
    dir = opendir(path);
    if (!dir) {
        die("%s: %m", path);
    }
    while (n < max && (ent = readdir(dir))) {
        e[n].fd = atoi(ent->d_name);
        if (ent->d_name[0] != '.' && read_eventfd(pid, &e[n])) {
            n++;
        }
    }
    closedir(dir);
    return n;
}

/* A descriptor of ours for file FD of the process. */
int take_fd(pid_t pid, int fd)
{
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    int ours = pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, fd, 0);

    if (ours < 0) {
        die("sharing the eventfds of process %d: %m; this needs Linux 5.6 "
            "and the right to ptrace a child", pid);
    }
    close(pidfd);
    return ours;
}

uint64_t thread_cpu_ns(pid_t pid, pid_t tid)
{
    char path[64];
    uint64_t ns = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
    f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%lu", &ns) != 1) {
            ns = 0;
        }
        fclose(f);
    }
    return ns;
}

/* Kernel time in clock ticks: coarse, good for a share of a whole run. */
uint64_t thread_system_ticks(pid_t pid, pid_t tid)
{
    char path[64], line[1024] = "", *p;
    unsigned long ticks = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, tid);
    f = fopen(path, "r");
    if (f) {
        p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
        if (!p || sscanf(p, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                         "%*u %lu", &ticks) != 1) {
            ticks = 0;
        }
        fclose(f);
    }
    return ticks;
}

/* The threads of a process. */
unsigned list_threads(pid_t pid, pid_t *tid, unsigned max)
{
    char path[64];
    struct dirent *ent;
    unsigned n = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    dir = opendir(path);
    while (n < max && dir && (ent = readdir(dir))) {
        if (ent->d_name[0] != '.') {
            tid[n++] = atoi(ent->d_name);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return n;
}

/* Threads that end in between take their time with them; QEMU's do not end. */
uint64_t process_cpu_ns(pid_t pid)
{
    pid_t tid[MAX_THREADS];
    unsigned n = list_threads(pid, tid, MAX_THREADS);
    uint64_t ns = 0;

    for (unsigned i = 0; i < n; i++) {
        ns += thread_cpu_ns(pid, tid[i]);
    }
    return ns;
}

/*
 * Stop one thread of a child; only the thread of ours that stopped it can let
 * it go.  The child dies with us while we hold it.
 */
void stop_thread(pid_t tid)
{
    int status;

    if (ptrace(PTRACE_SEIZE, tid, NULL, PTRACE_O_EXITKILL) < 0 ||
        ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0) {
        die("ptrace of thread %d: %m; run where a process may trace its "
            "children", tid);
    }
    while (waitpid(tid, &status, __WALL) < 0) {
        if (errno != EINTR) {
            die("waiting for thread %d to stop: %m", tid);
        }
    }
    if (!WIFSTOPPED(status)) {
        die("thread %d ended instead of stopping", tid);
    }
}

void let_thread(pid_t tid)
{
    if (ptrace(PTRACE_DETACH, tid, NULL, NULL) < 0) {
        die("letting thread %d go: %m", tid);
    }
}
