/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drive /dev/vhost-blk with no machine in between.
 *
 * Usage: ring-test NAME BACKEND [direct] [discard] [ro] [--only=PATTERN]
 * Prints one line a test in the form of scripts/check.  Each test is a process
 * of its own with a time limit, so that one that hangs is only one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"

#define TEST_SECONDS 25

Backend backend;
static char *reason;            /* shared with the test's process */

void fail(const char *file, int line, const char *what, const char *format,
          ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    snprintf(reason, PAGE, "%s:%d: %s: %s", strrchr(file, '/') ?
             strrchr(file, '/') + 1 : file, line, what, text);
    _exit(1);
}

void skip(const char *why)
{
    snprintf(reason, PAGE, "%s", why);
    _exit(77);
}

static int wait_for(pid_t pid)
{
    int status;

    for (int i = 0; i < TEST_SECONDS * 100; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        }
        usleep(10000);
    }
    snprintf(reason, PAGE, "no end in %d s", TEST_SECONDS);
    kill(pid, SIGKILL);
    for (int i = 0; i < 500; i++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return 1;
        }
        usleep(10000);
    }
    snprintf(reason, PAGE, "no end in %d s, and it cannot be killed",
             TEST_SECONDS);
    return 1;
}

static bool run_test(const char *name, const Test *test)
{
    pid_t pid;
    int code;

    reason[0] = 0;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        test->run();
        _exit(0);
    }
    code = wait_for(pid);
    if (code == 128 && !reason[0]) {
        strcpy(reason, "it was killed");
    }
    if (code == 77) {
        printf("skip %s/%s # %s\n", name, test->name, reason);
    } else if (code) {
        printf("not ok %s/%s # %s\n", name, test->name, reason);
    } else {
        printf("ok %s/%s\n", name, test->name);
    }
    fflush(stdout);
    return code == 0 || code == 77;
}

static void look_at_backend(void)
{
    int fd = open(backend.path, O_RDONLY);
    struct stat st;
    int size = 512;

    if (fd < 0 || fstat(fd, &st)) {
        fprintf(stderr, "%s: %s\n", backend.path, strerror(errno));
        exit(2);
    }
    backend.size = st.st_size;
    backend.block_size = 512;
    if (S_ISBLK(st.st_mode)) {
        backend.is_block = true;
        ioctl(fd, BLKGETSIZE64, &backend.size);
        ioctl(fd, BLKSSZGET, &size);
        backend.block_size = size;
        if (asprintf(&backend.sys, "/sys/dev/block/%u:%u",
                     major(st.st_rdev), minor(st.st_rdev)) < 0) {
            exit(2);
        }
    }
    close(fd);
}

int main(int argc, char **argv)
{
    const Test *const sets[] = { io_tests, unmap_tests, hostile_tests,
                                 control_tests };
    const char *only = "*";
    bool good = true;

    if (argc < 3) {
        fprintf(stderr, "usage: ring-test NAME BACKEND [direct] [discard] "
                "[ro] [--only=PATTERN]\n");
        return 2;
    }
    backend.path = argv[2];
    backend.flags = O_RDWR;
    for (int i = 3; i < argc; i++) {
        if (!strcmp(argv[i], "direct")) {
            backend.flags |= O_DIRECT;
        } else if (!strcmp(argv[i], "discard")) {
            backend.discard = true;
        } else if (!strcmp(argv[i], "ro")) {
            backend.flags = (backend.flags & ~O_ACCMODE) | O_RDONLY;
        } else if (!strncmp(argv[i], "--only=", 7)) {
            only = argv[i] + 7;
        }
    }
    look_at_backend();
    reason = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        for (const Test *test = sets[i]; test->name; test++) {
            if (!fnmatch(only, test->name, 0)) {
                good &= run_test(argv[1], test);
            }
        }
    }
    return good ? 0 : 1;
}
